/* SPDX-License-Identifier: Apache-2.0 */
#include "interlink/target.h"

#include <sys/stat.h>

#include "io/file.h"

/* ---- targets ---- */

struct target_ping {
    struct list link; /* in target->pings */
    struct interlink_target *target;
    void (*on_done)(void *arg, const struct interlink_ping *ping, const struct status *err);
    void *arg;
};

/* "unix:///run/x.sock" gives the socket and a base that only makes a Host header; others keep their path. */
static bool target_parse_url(struct interlink_target *t, const char *url, struct status *err)
{
    struct http_url parsed;

    if (str_starts(url, "unix://")) {
        t->unix_socket = xstrdup(url + strlen("unix://"));
        t->base = xstrdup("http://localhost");
        return t->unix_socket[0] == '/' ||
               status_set(err, STATUS_INVALID_ARGUMENT, "target %s: %s: wanted unix:///path/of/a/socket", t->name, url);
    }
    if (!http_url_parse(url, &parsed, err))
        return status_prefix(err, "target %s", t->name);
    if (strchr(parsed.target, '?') != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "target %s: %s: a query has no place here", t->name, url);
    size_t n = strlen(url);
    while (n > 0 && url[n - 1] == '/')
        n--;
    t->base = xstrndup(url, n);
    t->unix_socket = xstrdup("");
    return true;
}

static int64_t target_pace(int64_t wanted, bool remote, int64_t local_default)
{
    if (!remote)
        return wanted > 0 ? wanted : local_default;
    return wanted > INTERLINK_POLL_REMOTE_MS ? wanted : INTERLINK_POLL_REMOTE_MS;
}

/* As struct http_client_options wants it. */
static const char *target_proxy(const struct interlink_target *t, const char *wanted)
{
    if (t->unix_socket[0] != '\0' || (wanted != NULL && strcmp(wanted, "none") == 0))
        return "";
    return wanted != NULL && *wanted != '\0' ? wanted : NULL;
}

struct interlink_target *interlink_target_new(struct loop *loop, const struct interlink_target_options *options,
                                              struct status *err)
{
    static const char *const paths[INTERLINK_CALL_KINDS] = { "/create", "/status", "/delete", "/getLogs", "/pinglink", "" };
    struct interlink_target *t = xcalloc(1, sizeof *t);

    for (size_t i = 0; i < COUNT_OF(paths); i++)
        t->counts[i].path = paths[i];
    t->loop = loop;
    t->name = xstrdup(options->name);
    t->token_file = xstrdup(options->bearer_token_file != NULL ? options->bearer_token_file : "");
    t->remote = options->remote;
    t->poll_ms = target_pace(options->poll_ms, t->remote, INTERLINK_POLL_LOCAL_MS);
    t->steady_ms = target_pace(options->poll_steady_ms, t->remote, INTERLINK_POLL_LOCAL_STEADY_MS);
    list_init(&t->jobs);
    list_init(&t->calls);
    list_init(&t->pings);
    list_init(&t->logs);
    t->creates = (struct interlink_lane){ .path = "/create", .max = INTERLINK_CREATES_MAX };
    t->deletes = (struct interlink_lane){ .path = "/delete", .max = INTERLINK_DELETES_MAX };
    list_init(&t->creates.waiting);
    list_init(&t->deletes.waiting);
    interlink_poll_init(t);
    if (!target_parse_url(t, options->url, err)) {
        interlink_target_free(t);
        return NULL;
    }
    struct http_client_options http = {
        .ca_path = options->ca_file,
        .cert_path = options->client_cert_file,
        .key_path = options->client_key_file,
        .proxy = target_proxy(t, options->proxy),
        .connections_max = INTERLINK_CONNECTIONS_MAX,
        .host_connections_max = INTERLINK_CONNECTIONS_MAX,
    };
    t->http = http_client_new(loop, &http);
    http.connections_max = http.host_connections_max = INTERLINK_LOG_STREAMS_MAX;
    t->http_logs = http_client_new(loop, &http);
    return t;
}

void interlink_target_free(struct interlink_target *t)
{
    if (t == NULL)
        return;
    interlink_poll_stop(t);
    for (LIST_EACH_SAFE(struct interlink_logs, logs, &t->logs, link))
        interlink_logs_cancel(logs);
    for (LIST_EACH_SAFE(struct target_ping, ping, &t->pings, link))
        free(ping);
    for (LIST_EACH_SAFE(struct interlink_call, call, &t->calls, link))
        interlink_call_cancel(call);
    deferred_stop(&t->lane_free);
    http_client_free(t->http);
    http_client_free(t->http_logs);
    buf_free(&t->token);
    free(t->name);
    free(t->base);
    free(t->unix_socket);
    free(t->token_file);
    free(t);
}

const struct status *interlink_target_health(const struct interlink_target *target)
{
    return &target->health;
}

const struct interlink_calls *interlink_target_calls(const struct interlink_target *target)
{
    return target->counts;
}

size_t interlink_target_job_count(const struct interlink_target *target)
{
    return target->job_count;
}

int64_t interlink_backoff_ms(unsigned failures)
{
    int64_t ms = failures < 7 ? INT64_C(1000) << failures : INTERLINK_BACKOFF_MAX_MS;

    return ms < INTERLINK_BACKOFF_MAX_MS ? ms : INTERLINK_BACKOFF_MAX_MS;
}

/* ---- the bearer token ---- */

/* Reads the token again when its file is another one, or another version, than last time: tokens are renewed by
 * replacing the file. */
static bool target_refresh_token(struct interlink_target *t, struct status *err)
{
    struct stat st;
    cleanup_buf struct buf text = BUF_INIT;

    if (t->token_file[0] == '\0')
        return true;
    if (stat(t->token_file, &st) < 0)
        return status_errno(err, "target %s: bearer token file %s", t->name, t->token_file);
    if (t->token.n > 0 && st.st_ino == t->token_stat.st_ino && st.st_dev == t->token_stat.st_dev &&
        st.st_size == t->token_stat.st_size && st.st_mtim.tv_sec == t->token_stat.st_mtim.tv_sec &&
        st.st_mtim.tv_nsec == t->token_stat.st_mtim.tv_nsec)
        return true;
    if (!file_read(t->token_file, INTERLINK_TOKEN_MAX, &text, err))
        return status_prefix(err, "target %s", t->name);
    while (text.n > 0 && text.p[text.n - 1] <= ' ')
        text.n--;
    if (text.n == 0 || memchr(text.p, '\0', text.n) != NULL || !http_value_valid(buf_cstr(&text)))
        return status_set(err, STATUS_FAILED_PRECONDITION, "target %s: %s does not hold a bearer token on one line",
                          t->name, t->token_file);
    buf_clear(&t->token);
    buf_printf(&t->token, "Bearer %s", buf_cstr(&text));
    t->token_stat = st;
    return true;
}

/* ---- calls ---- */

static void target_count(const struct interlink_call *call, const struct interlink_answer *answer)
{
    struct interlink_calls *c = call->target->counts;

    while (*c->path != '\0' && strcmp(c->path, call->what) != 0)
        c++;
    c->seconds += (double)(clock_mono_ns() - call->started_ns) / 1e9;
    if (answer->err == NULL)
        c->ok++;
    else if (answer->http_status != 0)
        c->refused++;
    else
        c->unanswered++;
}

static void target_call_end(struct interlink_call *call, const struct interlink_answer *answer)
{
    target_count(call, answer);
    void (*on_answer)(void *arg, const struct interlink_answer *answer) = call->on_answer;
    void *arg = call->arg;

    call->request = NULL;
    interlink_call_cancel(call);
    on_answer(arg, answer);
}

int64_t interlink_target_pause_ms(const struct interlink_target *target, int64_t delay_ms)
{
    int64_t left = target->hold_ms - clock_mono_ms();

    return left > delay_ms ? left : delay_ms;
}

/* Whether the server says that it did not act, and is to be left alone for a while (RFC 9110 section 10.2.3). */
static bool target_is_put_off(struct interlink_target *t, const struct http_result *result)
{
    const char *after = http_headers_get(result->headers, "Retry-After");
    int64_t ms = after != NULL ? http_retry_after_ms(after, clock_real_ns() / 1000000000) : 0;

    if (result->http_status != 429 && (result->http_status != 503 || after == NULL))
        return false;
    t->hold_ms = clock_mono_ms() + (ms < INTERLINK_HOLD_MAX_MS ? ms : INTERLINK_HOLD_MAX_MS);
    return true;
}

/* Anything but exactly 200 is an error; its text is dug out of the body. */
static void target_on_done(void *arg, const struct http_result *result)
{
    struct interlink_call *call = arg;
    const char *name = call->target->name;
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;
    struct interlink_answer answer = { .http_status = result->http_status, .body = result->body, .sent = result->sent };

    if (result->err != NULL) {
        err = *result->err;
        status_prefix(&err, "interLink at \"%s\": %s", name, call->what);
        answer.err = &err;
        /* What arrived before it broke is not an answer. */
        answer.http_status = 0;
    } else if (result->http_status != 200) {
        answer.told = interlink_error_text(result->body, result->http_status, &text);
        status_set(&err, interlink_error_code(result->http_status), "interLink at \"%s\": %s answered %d: %s", name,
                   call->what, result->http_status, text.n > 0                   ? buf_cstr(&text)
                   : result->http_status == 500 ? "no reason was given: the plugin behind it may be down"
                                                : "no reason was given");
        answer.err = &err;
        answer.put_off = target_is_put_off(call->target, result);
    }
    target_call_end(call, &answer);
}

static void target_on_body(void *arg, struct str piece)
{
    struct interlink_call *call = arg;

    call->on_body(call->arg, piece);
}

static void target_on_failed(void *arg)
{
    struct interlink_call *call = arg;
    struct status err = call->failure;

    target_call_end(call, &(struct interlink_answer){ .err = &err });
}

static void target_send(struct interlink_call *call, struct str body)
{
    struct interlink_target *t = call->target;
    char id[ID_LENGTH + 1], session[64];
    struct http_header headers[3];
    size_t count = 0;

    call->started_ns = clock_mono_ns();
    if (!target_refresh_token(t, &call->failure)) {
        deferred_start(t->loop, &call->failed, target_on_failed, call);
        return;
    }
    int64_t hold = interlink_target_pause_ms(t, 0);
    if (hold > 0) {
        status_set(&call->failure, STATUS_UNAVAILABLE, "interLink at \"%s\" wants to be left alone for another %" PRId64
                   " s: %s was not sent", t->name, (hold + 999) / 1000, call->what);
        deferred_start(t->loop, &call->failed, target_on_failed, call);
        return;
    }
    cleanup_free char *url = xasprintf("%s%s", t->base, call->what);
    random_id(id);
    /* One for each call: both servers write it beside what they log about the call. */
    snprintf(session, sizeof session, "interlink-cri-%.16s", id);
    headers[count++] = (struct http_header){ "Content-Type", "application/json" };
    headers[count++] = (struct http_header){ "InterLink-Http-Session", session };
    if (t->token.n > 0)
        headers[count++] = (struct http_header){ "Authorization", buf_cstr(&t->token) };
    struct http_request_options request = {
        .method = call->method,
        .url = url,
        .unix_socket = t->unix_socket,
        .headers = headers,
        .header_count = count,
        .body = body.n > 0 ? body.p : "",
        .body_n = body.n,
        .timeout_ms = call->timeout_ms,
        .body_max = call->on_body != NULL ? 0 : INTERLINK_ANSWER_MAX,
        .on_body = call->on_body != NULL ? target_on_body : NULL,
        .on_done = target_on_done,
        .arg = call,
    };
    call->request = http_request_start(call->on_body != NULL ? t->http_logs : t->http, &request);
}

/* ---- lanes ---- */

static struct interlink_lane *target_lane(struct interlink_target *t, const char *path)
{
    return strcmp(path, t->creates.path) == 0 ? &t->creates : strcmp(path, t->deletes.path) == 0 ? &t->deletes : NULL;
}

static void target_lane_fill(struct interlink_lane *lane)
{
    while (lane->under_way < lane->max && !list_empty(&lane->waiting)) {
        struct interlink_call *call = CONTAINER_OF(lane->waiting.next, struct interlink_call, lane_link);
        struct buf body = call->body;
        list_remove(&call->lane_link);
        call->body = (struct buf)BUF_INIT;
        lane->under_way++;
        target_send(call, (struct str){ (const char *)body.p, body.n });
        buf_free(&body);
    }
}

static void target_on_lane_free(void *arg)
{
    struct interlink_target *t = arg;

    target_lane_fill(&t->creates);
    target_lane_fill(&t->deletes);
}

bool interlink_call_waits(const struct interlink_call *call)
{
    return call != NULL && !list_empty(&call->lane_link);
}

/* The call is over, or was never sent. */
static void target_lane_leave(struct interlink_call *call)
{
    if (call->lane == NULL)
        return;
    if (interlink_call_waits(call)) {
        list_remove(&call->lane_link);
    } else {
        call->lane->under_way--;
        deferred_start(call->target->loop, &call->target->lane_free, target_on_lane_free, call->target);
    }
    call->lane = NULL;
}

struct interlink_call *interlink_call_start(struct interlink_target *t, const struct interlink_call_options *o)
{
    struct interlink_call *call = xcalloc(1, sizeof *call);

    *call = (struct interlink_call){ .target = t, .method = o->method, .timeout_ms = o->timeout_ms, .on_answer = o->on_answer,
                                     .on_body = o->on_body, .arg = o->arg, .lane = target_lane(t, o->path) };
    snprintf(call->what, sizeof call->what, "%s", o->path);
    list_append(&t->calls, &call->link);
    list_init(&call->lane_link);
    if (call->lane != NULL && (call->lane->under_way >= call->lane->max || !list_empty(&call->lane->waiting))) {
        buf_append(&call->body, o->body.p, o->body.n);
        list_append(&call->lane->waiting, &call->lane_link);
        return call;
    }
    if (call->lane != NULL)
        call->lane->under_way++;
    target_send(call, o->body);
    return call;
}

void interlink_call_cancel(struct interlink_call *call)
{
    if (call == NULL)
        return;
    target_lane_leave(call);
    http_request_cancel(call->request);
    deferred_stop(&call->failed);
    list_remove(&call->link);
    buf_free(&call->body);
    free(call);
}

/* ---- ping ---- */

static void target_on_ping(void *arg, const struct interlink_answer *answer)
{
    struct target_ping ping = *(struct target_ping *)arg;
    struct interlink_ping result;
    cleanup_arena struct arena arena = ARENA_INIT;

    list_remove(&((struct target_ping *)arg)->link);
    free(arg);
    ping.target->health = answer->err != NULL ? *answer->err : (struct status)STATUS_INIT;
    if (answer->err != NULL) {
        ping.on_done(ping.arg, NULL, answer->err);
        return;
    }
    interlink_ping_read(&arena, answer->body, &result);
    ping.on_done(ping.arg, &result, NULL);
}

void interlink_target_ping(struct interlink_target *target,
                           void (*on_done)(void *arg, const struct interlink_ping *ping, const struct status *err),
                           void *arg)
{
    struct target_ping *ping = xcalloc(1, sizeof *ping);

    *ping = (struct target_ping){ .target = target, .on_done = on_done, .arg = arg };
    list_append(&target->pings, &ping->link);
    interlink_call_start(target, &(struct interlink_call_options){ .method = "GET",
                                                                   .path = "/pinglink",
                                                                   .timeout_ms = INTERLINK_PING_TIMEOUT_MS,
                                                                   .on_answer = target_on_ping,
                                                                   .arg = ping });
}
