/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/kube.h"

#include <sys/stat.h>

#include "http/client.h"
#include "io/file.h"
#include "kube/kubeconfig.h"
#include "text/json.h"

/* The kubeconfig itself, CA, certificate, key, token. */
#define KUBE_FILES 5

/* One state of the credentials. Calls hold on to the one they began with. */
struct kube_session {
    unsigned references;
    struct http_client *http;
    char *server;
    struct buf authorization; /* "Bearer ..." or empty */
};

struct kube {
    struct loop *loop;
    char *path;
    struct list calls;
    struct kube_session *session; /* NULL until the files could be read */
    char *files[KUBE_FILES];      /* NULL: no such file is named. files[0] is `path` */
    struct stat stats[KUBE_FILES];
    struct status health;
};

struct kube_call {
    struct list link; /* in kube->calls */
    struct kube *kube;
    struct kube_session *session; /* a reference; NULL when there are no credentials */
    struct http_request *request; /* NULL: it failed before it was sent */
    struct deferred failed;
    struct status failure;
    char *what; /* method and path without its query, for messages */
    void (*on_answer)(void *arg, const struct kube_answer *answer);
    void (*on_piece)(void *arg, struct str piece);
    void *arg;
};

bool kube_name_valid(const char *name)
{
    size_t n = strlen(name);

    return n > 0 && n <= 253 && name[0] != '.' && name[0] != '-' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") == n;
}

/* ---- credentials ---- */

static struct kube_session *kube_session_ref(struct kube_session *session)
{
    session->references++;
    return session;
}

static void kube_session_free(struct kube_session *session)
{
    if (session == NULL || --session->references > 0)
        return;
    http_client_free(session->http);
    free(session->server);
    if (session->authorization.p != NULL)
        explicit_bzero(session->authorization.p, session->authorization.cap);
    buf_free(&session->authorization);
    free(session);
}

static bool kube_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Whether all files are those that the session was made of. */
static bool kube_is_current(const struct kube *kube)
{
    struct stat st;

    for (size_t i = 0; kube->session != NULL && i < KUBE_FILES; i++)
        if (kube->files[i] != NULL && (stat(kube->files[i], &st) < 0 || !kube_same_file(&st, &kube->stats[i])))
            return false;
    return kube->session != NULL;
}

/* Notes what the file is now, before it is read: a later change is then seen. */
static bool kube_note_file(struct kube *kube, size_t at, const char *path, struct status *err)
{
    free(kube->files[at]);
    kube->files[at] = *path != '\0' ? xstrdup(path) : NULL;
    if (*path == '\0' || stat(path, &kube->stats[at]) == 0)
        return true;
    status_errno(err, "kubeconfig %s: %s", kube->path, path);
    err->code = STATUS_FAILED_PRECONDITION;
    return false;
}

static bool kube_read_token(const struct kubeconfig *k, struct buf *authorization, struct status *err)
{
    cleanup_buf struct buf text = BUF_INIT;

    buf_append_str(&text, k->token);
    if (*k->token_path != '\0' && !file_read(k->token_path, KUBE_TOKEN_MAX, &text, err))
        return false;
    while (text.n > 0 && text.p[text.n - 1] <= ' ')
        text.n--;
    bool given = *k->token != '\0' || *k->token_path != '\0';
    if (given && (text.n == 0 || memchr(text.p, '\0', text.n) != NULL || !http_value_valid(buf_cstr(&text))))
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s does not hold a token on one line",
                          *k->token_path != '\0' ? k->token_path : "token");
    if (given)
        buf_printf(authorization, "Bearer %s", buf_cstr(&text));
    if (text.p != NULL)
        explicit_bzero(text.p, text.cap);
    return true;
}

static bool kube_make_session(struct kube *kube, const struct kubeconfig *k, struct status *err)
{
    const char *paths[KUBE_FILES] = { kube->path, k->ca_path, k->cert_path, k->key_path, k->token_path };
    struct kube_session *session;

    for (size_t i = 1; i < KUBE_FILES; i++)
        if (!kube_note_file(kube, i, paths[i], err))
            return false;
    session = xcalloc(1, sizeof *session);
    session->references = 1;
    if (!kube_read_token(k, &session->authorization, err)) {
        kube_session_free(session);
        return status_prefix(err, "kubeconfig %s", kube->path);
    }
    session->server = xstrdup(k->server);
    session->http = http_client_new(kube->loop, &(struct http_client_options){
                                                    .ca_path = k->ca_path,
                                                    .ca_pem = k->ca_pem,
                                                    .cert_path = k->cert_path,
                                                    .cert_pem = k->cert_pem,
                                                    .key_path = k->key_path,
                                                    .key_pem = k->key_pem,
                                                    .proxy = *k->proxy != '\0' ? k->proxy : NULL,
                                                });
    kube->session = session;
    return true;
}

static bool kube_refresh(struct kube *kube, struct status *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct kubeconfig k;

    if (kube_is_current(kube))
        return true;
    bool again = kube->session != NULL;
    kube_session_free(kube->session);
    kube->session = NULL;
    if (!kube_note_file(kube, 0, kube->path, err) || !file_read(kube->path, KUBECONFIG_MAX, &text, err)) {
        err->code = STATUS_FAILED_PRECONDITION;
        return false;
    }
    bool ok = kubeconfig_parse(kube->path, (struct str){ (const char *)text.p, text.n }, &k, err);
    explicit_bzero(text.p, text.n);
    if (!ok)
        return false;
    ok = kube_make_session(kube, &k, err);
    kubeconfig_free(&k);
    if (ok && again)
        log_info("kubeconfig %s: files have changed and were read again", kube->path);
    return ok;
}

/* ---- the client ---- */

struct kube *kube_new(struct loop *loop, const char *kubeconfig)
{
    struct kube *kube = xcalloc(1, sizeof *kube);

    kube->loop = loop;
    kube->path = xstrdup(kubeconfig);
    list_init(&kube->calls);
    return kube;
}

void kube_free(struct kube *kube)
{
    if (kube == NULL)
        return;
    for (LIST_EACH_SAFE(struct kube_call, call, &kube->calls, link))
        kube_call_cancel(call);
    kube_session_free(kube->session);
    for (size_t i = 0; i < KUBE_FILES; i++)
        free(kube->files[i]);
    free(kube->path);
    free(kube);
}

const char *kube_server(const struct kube *kube)
{
    return kube->session != NULL ? kube->session->server : "";
}

const struct status *kube_health(const struct kube *kube)
{
    return &kube->health;
}

/* ---- calls ---- */

static void kube_call_end(struct kube_call *call, const struct kube_answer *answer)
{
    void (*on_answer)(void *arg, const struct kube_answer *answer) = call->on_answer;
    void *arg = call->arg;

    call->kube->health = answer->http_status == 0 && answer->err != NULL ? *answer->err : (struct status)STATUS_INIT;
    call->request = NULL;
    kube_call_cancel(call);
    on_answer(arg, answer);
}

/* An error is a v1.Status, whose message says it best; a proxy on the way may answer anything. */
static void kube_explain(const struct kube_call *call, const struct http_result *result, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status ignored = STATUS_INIT;
    const struct json *j = json_parse(&arena, result->body, &ignored);
    const char *text = json_string(json_member(j, "message"), "");

    status_set(err, http_to_status_code(result->http_status), "the API server answers %s with %d: %.400s", call->what,
               result->http_status, *text != '\0' ? text : http_reason(result->http_status));
}

static void kube_on_done(void *arg, const struct http_result *result)
{
    struct kube_call *call = arg;
    struct kube_answer answer = { .http_status = result->http_status, .body = result->body };
    struct status err = STATUS_INIT;

    if (result->err != NULL) {
        err = *result->err;
        status_prefix(&err, "the API server");
        answer.http_status = 0;
        answer.err = &err;
    } else if (result->http_status / 100 != 2) {
        kube_explain(call, result, &err);
        answer.err = &err;
    }
    kube_call_end(call, &answer);
}

static void kube_on_body(void *arg, struct str piece)
{
    struct kube_call *call = arg;

    call->on_piece(call->arg, piece);
}

static void kube_on_failed(void *arg)
{
    struct kube_call *call = arg;
    struct status err = call->failure;

    kube_call_end(call, &(struct kube_answer){ .err = &err, .body = { "", 0 } });
}

struct kube_call *kube_call_start(struct kube *kube, const struct kube_call_options *o)
{
    struct kube_call *call = xcalloc(1, sizeof *call);
    const char *method = o->method != NULL ? o->method : "GET";
    struct http_header headers[3];
    size_t count = 0;

    *call = (struct kube_call){ .kube = kube, .on_answer = o->on_answer, .on_piece = o->on_piece, .arg = o->arg };
    call->what = xasprintf("%s %.*s", method, (int)strcspn(o->path, "?"), o->path);
    list_append(&kube->calls, &call->link);
    if (!kube_refresh(kube, &call->failure)) {
        deferred_start(kube->loop, &call->failed, kube_on_failed, call);
        return call;
    }
    call->session = kube_session_ref(kube->session);
    cleanup_free char *url = xasprintf("%s%s", call->session->server, o->path);
    headers[count++] = (struct http_header){ "Accept", "application/json" };
    if (o->body.n > 0)
        headers[count++] = (struct http_header){ "Content-Type",
                                                 o->content_type != NULL ? o->content_type : "application/json" };
    if (call->session->authorization.n > 0)
        headers[count++] = (struct http_header){ "Authorization", buf_cstr(&call->session->authorization) };
    call->request = http_request_start(call->session->http, &(struct http_request_options){
                                                                .method = method,
                                                                .url = url,
                                                                .headers = headers,
                                                                .header_count = count,
                                                                .body = o->body.n > 0 ? o->body.p : NULL,
                                                                .body_n = o->body.n,
                                                                .timeout_ms = o->timeout_ms > 0 ? o->timeout_ms
                                                                                                : KUBE_CALL_TIMEOUT_MS,
                                                                .body_max = o->on_piece != NULL ? 0 : KUBE_ANSWER_MAX,
                                                                .on_body = o->on_piece != NULL ? kube_on_body : NULL,
                                                                .on_done = kube_on_done,
                                                                .arg = call,
                                                            });
    return call;
}

void kube_call_cancel(struct kube_call *call)
{
    if (call == NULL)
        return;
    http_request_cancel(call->request);
    deferred_stop(&call->failed);
    list_remove(&call->link);
    kube_session_free(call->session);
    free(call->what);
    free(call);
}

#undef KUBE_FILES
