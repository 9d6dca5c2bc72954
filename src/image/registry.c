/* SPDX-License-Identifier: Apache-2.0 */
#include "image/registry.h"

#include "image/manifest.h"
#include "image/registry_internal.h"
#include "io/file.h"
#include "io/tls.h"
#include "text/json.h"

static void registry_start_host(struct registry_call *call);
static void registry_on_timer(void *arg);

/* ---- servers ---- */

struct registry *registry_new(struct loop *loop, const struct registry_options *options, const struct reference *reference,
                              const struct image_auth *auth, struct status *err)
{
    struct registry *r = xcalloc(1, sizeof *r);

    r->loop = loop;
    r->reference = *reference;
    list_init(&r->calls);
    if (!credentials_read(auth, &r->arena, &r->credentials, err) || !hosts_for(options, reference->domain, &r->list, err)) {
        arena_free(&r->arena);
        free(r);
        return NULL;
    }
    r->ca_path = options->ca_path == NULL ? NULL : xstrdup(options->ca_path);
    r->proxy = options->proxy == NULL ? NULL : xstrdup(options->proxy);
    r->hosts = ARENA_ARRAY(&r->arena, struct registry_host, r->list.count);
    for (size_t i = 0; i < r->list.count; i++) {
        r->hosts[i].registry = r;
        r->hosts[i].host = &r->list.hosts[i];
    }
    return r;
}

void registry_free(struct registry *r)
{
    if (r == NULL)
        return;
    while (!list_empty(&r->calls))
        registry_cancel(CONTAINER_OF(r->calls.next, struct registry_call, link));
    for (size_t i = 0; i < r->list.count; i++) {
        http_request_cancel(r->hosts[i].token_request);
        http_client_free(r->hosts[i].client);
        free(r->hosts[i].authorization);
    }
    free(r->ca_path);
    free(r->proxy);
    hosts_free(&r->list);
    arena_free(&r->arena);
    free(r);
}

struct registry_host *registry_call_host(struct registry_call *call)
{
    return &call->registry->hosts[call->host];
}

/* Authorities named for one server are trusted beside the usual ones. */
static bool registry_read_authorities(const struct registry *r, const struct host *host, struct buf *pem, struct status *err)
{
    const char *common = r->ca_path != NULL && r->ca_path[0] != '\0' ? r->ca_path : tls_find_ca_bundle();

    if (host->ca_paths[0] == NULL)
        return true;
    if (common != NULL && !file_read(common, TLS_PEM_MAX, pem, err))
        return false;
    for (const char *const *path = host->ca_paths; *path != NULL; path++) {
        buf_append_byte(pem, '\n');
        if (!file_read(*path, TLS_PEM_MAX, pem, err))
            return status_prefix(err, "the authorities for %s", host->name);
    }
    return true;
}

static bool registry_make_client(struct registry_host *h, struct status *err)
{
    struct buf cleanup_buf pem = BUF_INIT;

    if (h->client != NULL)
        return true;
    if (!registry_read_authorities(h->registry, h->host, &pem, err))
        return false;
    h->client = http_client_new(h->registry->loop, &(struct http_client_options){
        .ca_path = h->registry->ca_path,
        .ca_pem = pem.n > 0 ? buf_cstr(&pem) : NULL,
        .cert_path = h->host->cert_path,
        .key_path = h->host->key_path,
        .skip_verify = h->host->skip_verify,
        .proxy = h->registry->proxy,
        .host_connections_max = IMAGE_FETCHES_MAX + 1,
    });
    return true;
}

/* ---- ending a call ---- */

static void registry_call_free(struct registry_call *call)
{
    list_remove(&call->link);
    http_request_cancel(call->request);
    timer_stop(&call->timer);
    buf_free(&call->complaints);
    arena_free(&call->arena);
    free(call);
}

void registry_cancel(struct registry_call *call)
{
    if (call != NULL)
        registry_call_free(call);
}

static void registry_finish(struct registry_call *call, const struct registry_answer *answer, const struct status *err)
{
    struct registry_get get = call->get;
    struct status copy = STATUS_INIT;

    call->request = NULL;
    if (err != NULL)
        copy = *err;
    if (answer == NULL) {
        registry_call_free(call);
        get.on_done(get.arg, NULL, &copy);
        return;
    }
    /* What the answer points to may live on the call. */
    list_remove(&call->link);
    get.on_done(get.arg, answer, NULL);
    registry_call_free(call);
}

static void registry_fail(void *arg)
{
    struct registry_call *call = arg;
    struct status err = STATUS_INIT;

    status_set(&err, call->worst, "%.900s", call->complaints.n > 0 ? buf_cstr(&call->complaints) : "no server can be asked");
    registry_finish(call, NULL, &err);
}

void registry_next_host(struct registry_call *call, const struct status *err)
{
    const struct host *host = registry_call_host(call)->host;

    /* An answer says more than the silence of the server asked after it. */
    if (call->complaints.n == 0 || !host->after_silence)
        call->worst = err->code;
    buf_printf(&call->complaints, "%s%s: %.500s", call->complaints.n > 0 ? "; " : "", host->name, err->message);
    call->host++;
    registry_start_host(call);
}

void registry_try_again(struct registry_call *call, const struct status *err, const char *retry_after, bool reached)
{
    struct registry *r = call->registry;
    /* Is this the one that has to answer? */
    bool last = call->host + 1 == r->list.count ||
                (r->hosts[call->host].answered && r->list.hosts[call->host + 1].after_silence);
    unsigned max = !last ? REGISTRY_MIRROR_TRIES_MAX : reached ? REGISTRY_TRIES_MAX : REGISTRY_MIRROR_TRIES_MAX;
    int64_t delay = (int64_t)REGISTRY_BACKOFF_MS << (call->tries < 8 ? call->tries : 8), wanted = 0;
    uint16_t dice;

    if (call->progress >= REGISTRY_PROGRESS_BYTES)
        call->tries = 0;
    call->progress = 0;
    if (++call->tries >= max) {
        registry_next_host(call, err);
        return;
    }
    if (retry_after != NULL)
        wanted = http_retry_after_ms(retry_after, clock_real_ns() / 1000000000);
    if (wanted > REGISTRY_RETRY_AFTER_MAX_MS) {
        struct status longer = *err;
        status_prefix(&longer, "it asks to wait %lld s", (long long)(wanted / 1000));
        registry_next_host(call, &longer);
        return;
    }
    /* Between three and five quarters, so that many nodes do not come back at the same moment. */
    random_bytes(&dice, sizeof dice);
    if (delay > REGISTRY_BACKOFF_MAX_MS)
        delay = REGISTRY_BACKOFF_MAX_MS;
    delay = delay * 3 / 4 + delay * dice / 65536 / 2;
    log_debug("%s: %s; again in %lld ms", registry_call_host(call)->host->name, err->message,
              (long long)(wanted > delay ? wanted : delay));
    timer_start(r->loop, &call->timer, wanted > delay ? wanted : delay, registry_on_timer, call);
}

/* ---- what the server says ---- */

bool registry_may_retry(const struct http_result *result)
{
    if (result->err != NULL)
        return result->err->code == STATUS_UNAVAILABLE || result->err->code == STATUS_DEADLINE_EXCEEDED;
    return result->http_status == 408 || result->http_status == 429 || result->http_status == 500 ||
           (result->http_status >= 502 && result->http_status <= 504);
}

void registry_http_error(const struct http_result *result, struct status *err)
{
    struct arena cleanup_arena scratch = ARENA_INIT;
    struct status ignored;

    if (result->err != NULL) {
        *err = *result->err;
        return;
    }
    /* {"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}; token servers: {"details":"..."} */
    const struct json *root = json_parse(&scratch, result->body, &ignored);
    const struct json *first = json_at(json_member(root, "errors"), 0);
    const char *text = json_string(json_member(first, "message"), json_string(json_member(root, "details"), ""));
    if (text[0] == '\0')
        text = json_string(json_member(first, "code"), "");
    enum status_code code = result->http_status == 404   ? STATUS_NOT_FOUND
                            : result->http_status == 401 ? STATUS_UNAUTHENTICATED
                            : result->http_status == 403 ? STATUS_PERMISSION_DENIED
                                                         : http_to_status_code(result->http_status);
    status_set(err, code, "%d %s%s%.300s%s", result->http_status, http_reason(result->http_status), text[0] != '\0' ? " (" : "",
               text, text[0] != '\0' ? ")" : "");
}

/* Content-Range: bytes 100-199/200 */
static bool registry_range_start(const struct http_headers *headers, uint64_t *start)
{
    const char *text = http_headers_get(headers, "Content-Range");
    char number[24];

    if (text == NULL || strncasecmp(text, "bytes ", 6) != 0)
        return false;
    size_t n = strspn(text + 6, "0123456789");
    if (n == 0 || n >= sizeof number || text[6 + n] != '-')
        return false;
    memcpy(number, text + 6, n);
    number[n] = '\0';
    return parse_u64(number, UINT64_MAX, start);
}

/* The owner cannot go on (a full disk), or the server sends what was not asked for. Ends the call from the loop: the HTTP
 * client does not like to be freed from within. */
static void registry_give_up(struct registry_call *call)
{
    http_request_cancel(call->request);
    call->request = NULL;
    timer_start(call->registry->loop, &call->timer, 0, registry_on_timer, call);
}

static void registry_on_head(void *arg, int http_status, const struct http_headers *headers)
{
    struct registry_call *call = arg;
    uint64_t offset = 0;

    if (http_status != 200 && http_status != 206)
        return;
    call->logins = 0; /* a long download may outlive several tokens */
    if (http_status == 206 && (!registry_range_start(headers, &offset) || offset != call->get.offset(call->get.arg))) {
        if (call->no_range)
            status_set(&call->gave_up, STATUS_DATA_LOSS, "%s sends parts that were not asked for",
                       registry_call_host(call)->host->name);
        call->no_range = true;
        registry_give_up(call);
        return;
    }
    if (!call->get.on_start(call->get.arg, offset, &call->gave_up))
        registry_give_up(call);
}

static void registry_on_body(void *arg, struct str piece)
{
    struct registry_call *call = arg;

    call->progress += piece.n;
    if (!call->get.on_body(call->get.arg, piece, &call->gave_up))
        registry_give_up(call);
}

/* ---- requests ---- */

static void registry_on_done(void *arg, const struct http_result *result);

/* `ours`: the server that we were told to ask, which may see credentials and the headers of its hosts.toml. */
static void registry_request(struct registry_call *call, const char *url, bool ours)
{
    struct registry_host *h = registry_call_host(call);
    struct http_header headers[64];
    size_t count = 0;
    uint64_t offset = call->get.offset != NULL && !call->no_range ? call->get.offset(call->get.arg) : 0;

    if (strcmp(call->get.kind, "manifests") == 0)
        headers[count++] = (struct http_header){ "Accept", MANIFEST_ACCEPT };
    if (ours && h->authorization != NULL)
        headers[count++] = (struct http_header){ "Authorization", h->authorization };
    if (offset > 0)
        headers[count++] = (struct http_header){ "Range", arena_printf(&call->arena, "bytes=%" PRIu64 "-", offset) };
    for (size_t i = 0; ours && i < h->host->header_count && count < COUNT_OF(headers); i++)
        headers[count++] = (struct http_header){ h->host->headers[2 * i], h->host->headers[2 * i + 1] };
    bool stream = call->get.on_body != NULL;
    call->request = http_request_start(h->client, &(struct http_request_options){
        .method = call->get.head ? "HEAD" : "GET",
        .url = url,
        .headers = headers,
        .header_count = count,
        .connect_timeout_ms = h->host->dial_timeout_ms,
        .timeout_ms = stream ? 0 : REGISTRY_MANIFEST_TIMEOUT_MS,
        .low_speed_ms = REGISTRY_LOW_SPEED_MS,
        .body_max = (size_t)call->get.size_max,
        .on_head = stream ? registry_on_head : NULL,
        .on_body = stream ? registry_on_body : NULL,
        .on_done = registry_on_done,
        .arg = call,
    });
}

void registry_send(struct registry_call *call)
{
    struct registry_host *h = registry_call_host(call);
    const struct reference *ref = &call->registry->reference;

    call->generation = h->generation;
    call->redirects = 0;
    registry_request(call, arena_printf(&call->arena, "%s/%s/%s/%s%s%s", h->host->url, ref->path, call->get.kind, call->get.name,
                                        h->host->is_registry ? "" : "?ns=", h->host->is_registry ? "" : ref->domain),
                     true);
}

/* Each server anew. */
static void registry_start_host(struct registry_call *call)
{
    struct registry *r = call->registry;
    bool by_digest = strcmp(call->get.kind, "blobs") == 0 || strchr(call->get.name, ':') != NULL;
    struct status err = STATUS_INIT;

    for (; call->host < r->list.count; call->host++) {
        struct registry_host *h = registry_call_host(call);
        if ((h->host->capabilities & (by_digest ? HOST_PULL : HOST_RESOLVE)) == 0 ||
            (h->host->after_silence && call->host > 0 && r->hosts[call->host - 1].answered))
            continue;
        call->tries = call->logins = 0;
        call->no_range = false;
        if (!registry_make_client(h, &err)) {
            registry_next_host(call, &err);
            return;
        }
        registry_send(call);
        return;
    }
    timer_start(r->loop, &call->timer, 0, registry_fail, call);
}

/* After a pause, or when a callback gave up. */
static void registry_on_timer(void *arg)
{
    struct registry_call *call = arg;

    if (call->gave_up.code != STATUS_OK) {
        struct status err = call->gave_up;
        registry_finish(call, NULL, &err);
        return;
    }
    registry_send(call);
}

static bool registry_same_server(const char *a, const char *b)
{
    struct http_url x, y;
    struct status ignored;

    return http_url_parse(a, &x, &ignored) && http_url_parse(b, &y, &ignored) && strcmp(x.scheme, y.scheme) == 0 &&
           strcasecmp(x.host, y.host) == 0 && x.port == y.port;
}

static bool registry_redirect(struct registry_call *call, const struct http_result *result, struct status *err)
{
    const char *to = http_headers_get(result->headers, "Location");
    struct http_url url;

    if (to == NULL)
        return status_set(err, STATUS_UNAVAILABLE, "it redirects without saying where");
    if (++call->redirects > REGISTRY_REDIRECTS_MAX)
        return status_set(err, STATUS_UNAVAILABLE, "it redirects more than %d times", REGISTRY_REDIRECTS_MAX);
    if (to[0] == '/' && to[1] != '/') {
        size_t origin = strcspn(result->url, "/");
        origin += 2 + strcspn(result->url + origin + 2, "/?");
        to = arena_printf(&call->arena, "%.*s%s", (int)origin, result->url, to);
    } else if (to[0] == '/') {
        to = arena_printf(&call->arena, "%.*s%s", (int)strcspn(result->url, "/"), result->url, to);
    } else {
        to = arena_strdup(&call->arena, to);
    }
    if (!http_url_parse(to, &url, err))
        return status_prefix(err, "it redirects to a wrong place");
    if (str_starts(result->url, "https:") && strcmp(url.scheme, "https") != 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "it redirects from https to plain http");
    registry_request(call, to, registry_same_server(registry_call_host(call)->host->url, to));
    return true;
}

/* What a tag stands for must be what the server says it is; what was asked for by its digest must have that digest. */
static bool registry_check_manifest(struct registry_call *call, const struct http_result *result,
                                    struct registry_answer *answer, struct status *err)
{
    const char *told = http_headers_get(result->headers, "Docker-Content-Digest");
    const char *length = http_headers_get(result->headers, "Content-Length");
    bool by_digest = strchr(call->get.name, ':') != NULL;
    struct digest want = { { 0 } };
    char text[DIGEST_TEXT_SIZE];
    struct status ignored;

    if (by_digest || told != NULL)
        if (!digest_parse(by_digest ? call->get.name : told, &want, by_digest ? err : &ignored) && by_digest)
            return false;
    if (call->get.head) {
        answer->digest = want;
        if (length == NULL || !parse_u64(length, IMAGE_MANIFEST_SIZE_MAX, &answer->size))
            answer->size = 0;
        return true;
    }
    answer->digest = digest_of(result->body.p, result->body.n);
    answer->size = result->body.n;
    if (digest_is_zero(&want) || digest_equal(&want, &answer->digest))
        return true;
    digest_text(&answer->digest, text);
    return status_set(err, STATUS_DATA_LOSS, "the manifest that it sent is damaged: it has the digest %s instead of %s", text,
                      by_digest ? call->get.name : told);
}

static void registry_on_success(struct registry_call *call, const struct http_result *result)
{
    const char *type = http_headers_get(result->headers, "Content-Type");
    struct registry_answer answer = { .body = result->body, .content_type = type == NULL ? "" : type,
                                      .server = registry_call_host(call)->host->name };
    struct status err = STATUS_INIT;
    bool ok = true;

    if (call->get.on_body == NULL && strcmp(call->get.kind, "manifests") == 0)
        ok = registry_check_manifest(call, result, &answer, &err);
    if (ok && call->get.verify != NULL)
        ok = call->get.verify(call->get.arg, &err);
    if (ok)
        registry_finish(call, &answer, NULL);
    else
        registry_next_host(call, &err);
}

static void registry_on_done(void *arg, const struct http_result *result)
{
    struct registry_call *call = arg;
    struct registry_host *h = registry_call_host(call);
    struct status err = STATUS_INIT;

    call->request = NULL;
    /* What a server for https says to plain http. */
    if (result->http_status != 0 && result->http_status != 400)
        h->answered = true;
    if (result->err == NULL && (result->http_status == 200 || result->http_status == 206)) {
        registry_on_success(call, result);
        return;
    }
    if (result->err == NULL && result->http_status == 401) {
        registry_log_in(call, result);
        return;
    }
    if (result->err == NULL && result->http_status >= 301 && result->http_status <= 308) {
        if (!registry_redirect(call, result, &err))
            registry_next_host(call, &err);
        return;
    }
    registry_http_error(result, &err);
    bool range = result->err == NULL && result->http_status == 416 && !call->no_range;
    if (range)
        call->no_range = true;
    if (range || registry_may_retry(result))
        registry_try_again(call, &err, http_headers_get(result->headers, "Retry-After"),
                           result->http_status != 0 || result->sent);
    else
        registry_next_host(call, &err);
}

struct registry_call *registry_call(struct registry *r, const struct registry_get *get)
{
    struct registry_call *call = xcalloc(1, sizeof *call);

    call->registry = r;
    call->get = *get;
    call->get.name = arena_strdup(&call->arena, get->name);
    call->worst = STATUS_UNAVAILABLE;
    list_append(&r->calls, &call->link);
    registry_start_host(call);
    return call;
}
