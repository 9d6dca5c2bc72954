/* SPDX-License-Identifier: Apache-2.0 */
/* The server side of an RPC. */
#include "rpc/conn.h"

#include "rpc/wire.h"

/* Who still needs a call:
 *
 *    headers come         handler called         rpc_reply/finish/fail
 *   ------------> OPEN -----------------> OWNED ----------------------> ENDED
 *                                           |  stream closed, deadline     \
 *                                           v  passed: cancelled            v
 *                  with a cancel function: it runs, and the handler   freed once the
 *                  has ended; without: the handler ends it later      stream is closed
 *
 * `owned` is the handler's half of this, h2.h2 != NULL the stream's. */
struct rpc_call {
    struct rpc_stream s; /* first */
    struct rpc_call *next; /* in the pool */
    const struct rpc_services *services;
    const struct rpc_service *service; /* NULL until found */
    const struct rpc_method *method;
    nghttp2_rcbuf *path; /* a reference */
    void (*on_cancel)(void *arg);
    void *on_cancel_arg;
    void (*on_message)(void *arg, const ProtobufCMessage *message);
    void *on_message_arg;
    void (*on_writable)(void *arg);
    void *on_writable_arg;
    struct timer timer;
    int64_t deadline_ms; /* monotonic; 0: none */
    int64_t timeout_ms;  /* of grpc-timeout; -1: none, -2: malformed */
    int64_t started_ns;
    nghttp2_nv *headers, *trailers; /* ours to add; in the arena */
    size_t header_count, trailer_count;
    bool is_post, content_type_ok, has_content_type;
    bool owned;        /* the handler has not ended it */
    bool cancelled;    /* the peer gave up, or the deadline passed */
    bool headers_seen; /* what follows is trailers */
    bool headers_sent, ended;
    bool reported; /* on_call_end was told */
    bool abandoned; /* counted in conn->abandoned */
};

/* Metadata that one call may add to its answer. */
#define RPC_CALL_FIELDS_MAX 16

static const nghttp2_nv rpc_call_answer_headers[] = {
    H2_FIELD(":status", "200"),
    H2_FIELD("content-type", "application/grpc"),
};
static const nghttp2_nv rpc_call_ok_trailers[] = { H2_FIELD("grpc-status", "0") };
static const nghttp2_nv rpc_call_accepts = H2_FIELD("grpc-accept-encoding", "identity");

static struct rpc_call *rpc_call_of(struct rpc_stream *s)
{
    return (struct rpc_call *)(void *)s;
}

/* ---- life ---- */

static const struct rpc_stream_ops rpc_call_ops;

struct rpc_stream *rpc_call_open(struct rpc_conn *conn)
{
    struct rpc_call *call = conn->pool;

    if (call != NULL) {
        conn->pool = call->next;
        conn->pool_count--;
        /* The arenas keep a chunk each. */
        struct arena arena = call->s.arena, message_arena = call->s.message_arena;
        memset(call, 0, sizeof *call);
        call->s.arena = arena;
        call->s.message_arena = message_arena;
    } else {
        call = xcalloc(1, sizeof *call);
    }
    call->s.ops = &rpc_call_ops;
    call->s.conn = conn;
    call->services = rpc_methods_services(conn->methods);
    call->timeout_ms = -1;
    list_append(&conn->streams, &call->s.link);
    return &call->s;
}

static void rpc_call_destroy(struct rpc_call *call)
{
    arena_free(&call->s.arena);
    arena_free(&call->s.message_arena);
    free(call);
}

void rpc_call_pool_free(struct rpc_conn *conn)
{
    while (conn->pool != NULL) {
        struct rpc_call *call = conn->pool;
        conn->pool = call->next;
        rpc_call_destroy(call);
    }
    conn->pool_count = 0;
}

/* Frees the call when nobody needs it any more. */
static void rpc_call_unhold(struct rpc_stream *s)
{
    struct rpc_call *call = rpc_call_of(s);
    struct rpc_conn *conn = s->conn;

    if (s->holds > 0 || s->h2.h2 != NULL)
        return;
    if (call->owned) {
        if (!call->abandoned && conn != NULL) {
            call->abandoned = true;
            conn->abandoned++;
        }
        return;
    }
    timer_stop(&call->timer);
    if (call->path != NULL)
        nghttp2_rcbuf_decref(call->path);
    rpc_stream_reset(s);
    list_remove(&s->link);
    if (conn != NULL && call->abandoned)
        conn->abandoned--;
    if (conn != NULL && conn->pool_count < RPC_POOL_MAX) {
        call->next = conn->pool;
        conn->pool = call;
        conn->pool_count++;
    } else {
        rpc_call_destroy(call);
    }
}

static void rpc_call_report(struct rpc_call *call, enum status_code code)
{
    if (call->reported || call->service == NULL)
        return;
    call->reported = true;
    if (call->services->on_call_end != NULL)
        call->services->on_call_end(call->services->arg, call->service->name, call->method->name, code,
                                    (double)(clock_mono_ns() - call->started_ns) / 1e9);
}

/* Nobody waits for the answer any more. */
static void rpc_call_cancel(struct rpc_call *call, enum status_code code)
{
    rpc_call_report(call, code);
    call->cancelled = true;
    timer_stop(&call->timer);
    rpc_inbound_discard(&call->s);
    if (!call->owned || call->on_cancel == NULL)
        return;
    void (*fn)(void *arg) = call->on_cancel;
    call->on_cancel = NULL;
    call->s.holds++;
    fn(call->on_cancel_arg);
    call->s.holds--;
    call->owned = false;
}

static void rpc_call_on_close(struct rpc_stream *s, uint32_t code)
{
    struct rpc_call *call = rpc_call_of(s);

    (void)code;
    if (call->owned && !call->cancelled)
        rpc_call_cancel(call, STATUS_CANCELLED);
    rpc_call_report(call, STATUS_CANCELLED);
    rpc_inbound_discard(s);
}

void rpc_call_connection_gone(struct rpc_stream *s)
{
    rpc_call_on_close(s, H2_CONNECTION_LOST);
    rpc_call_unhold(s);
}

/* ---- answering ---- */

/* Adds one field to an array in the arena. */
static void rpc_call_add(struct rpc_call *call, nghttp2_nv **fields, size_t *count, nghttp2_nv field)
{
    if (*fields == NULL)
        *fields = ARENA_ARRAY(&call->s.arena, nghttp2_nv, RPC_CALL_FIELDS_MAX + 6);
    (*fields)[(*count)++] = field;
}

static void rpc_call_send_headers(struct rpc_call *call)
{
    if (call->headers_sent)
        return;
    call->headers_sent = true;
    if (call->header_count == 0) {
        h2_respond(&call->s.h2, rpc_call_answer_headers, COUNT_OF(rpc_call_answer_headers), false);
        return;
    }
    nghttp2_nv fields[COUNT_OF(rpc_call_answer_headers) + RPC_CALL_FIELDS_MAX];
    memcpy(fields, rpc_call_answer_headers, sizeof rpc_call_answer_headers);
    memcpy(fields + COUNT_OF(rpc_call_answer_headers), call->headers, call->header_count * sizeof *fields);
    h2_respond(&call->s.h2, fields, COUNT_OF(rpc_call_answer_headers) + call->header_count, false);
}

/* grpc-status and grpc-message, before the handler's own trailers. */
static void rpc_call_status_fields(struct rpc_call *call, enum status_code code, const char *message)
{
    struct arena *arena = &call->s.arena;
    char *number = arena_printf(arena, "%d", (int)code);

    rpc_call_add(call, &call->trailers, &call->trailer_count, rpc_field("grpc-status", number, strlen(number)));
    if (code == STATUS_OK || *message == '\0')
        return;
    struct buf text cleanup_buf = BUF_INIT;
    rpc_message_encode(message, &text);
    rpc_call_add(call, &call->trailers, &call->trailer_count,
                 rpc_field("grpc-message", arena_strndup(arena, buf_cstr(&text), text.n), text.n));
}

/* Ends the answer. Nothing was sent yet and it is an error: one header block says it all (Trailers-Only). */
static void rpc_call_send_end(struct rpc_call *call, const char *http_status, enum status_code code, const char *message)
{
    call->ended = true;
    timer_stop(&call->timer);
    if (code == STATUS_OK && call->trailer_count == 0) {
        rpc_call_send_headers(call);
        h2_body_end(&call->s.h2, rpc_call_ok_trailers, COUNT_OF(rpc_call_ok_trailers));
        return;
    }
    bool only = !call->headers_sent && code != STATUS_OK;
    if (only) {
        nghttp2_nv *own = call->trailers;
        size_t own_count = call->trailer_count;
        call->trailers = NULL;
        call->trailer_count = 0;
        rpc_call_add(call, &call->trailers, &call->trailer_count, rpc_field(":status", http_status, 3));
        rpc_call_add(call, &call->trailers, &call->trailer_count, rpc_call_answer_headers[1]);
        for (size_t i = 0; i < own_count; i++)
            rpc_call_add(call, &call->trailers, &call->trailer_count, own[i]);
        if (code == STATUS_UNIMPLEMENTED && call->s.encoding != NULL)
            rpc_call_add(call, &call->trailers, &call->trailer_count, rpc_call_accepts);
    }
    rpc_call_status_fields(call, code, message);
    if (only) {
        call->headers_sent = true;
        h2_respond(&call->s.h2, call->trailers, call->trailer_count, true);
    } else {
        rpc_call_send_headers(call);
        h2_body_end(&call->s.h2, call->trailers, call->trailer_count);
    }
}

static bool rpc_call_is_heard(const struct rpc_call *call)
{
    return call->s.h2.h2 != NULL && !call->s.h2.reset && !call->cancelled && !call->ended;
}

/* The handler ends the call: true when there is still somebody to answer. After false, or after the answer, the caller
 * calls rpc_call_unhold. */
static bool rpc_call_take(struct rpc_call *call, enum status_code code)
{
    call->owned = false;
    rpc_inbound_discard(&call->s);
    if (!rpc_call_is_heard(call))
        return false;
    rpc_call_report(call, code);
    return true;
}

void rpc_reply(struct rpc_call *call, const ProtobufCMessage *response)
{
    if (rpc_call_take(call, STATUS_OK)) {
        rpc_call_send_headers(call);
        rpc_stream_send(&call->s, response);
        rpc_call_send_end(call, "200", STATUS_OK, "");
    }
    rpc_call_unhold(&call->s);
}

void rpc_reply_packed(struct rpc_call *call, const void *p, size_t n)
{
    if (rpc_call_take(call, STATUS_OK)) {
        rpc_call_send_headers(call);
        rpc_stream_send_packed(&call->s, p, n);
        rpc_call_send_end(call, "200", STATUS_OK, "");
    }
    rpc_call_unhold(&call->s);
}

void rpc_reply_shared(struct rpc_call *call, struct shared *response)
{
    if (rpc_call_take(call, STATUS_OK)) {
        rpc_call_send_headers(call);
        rpc_stream_send_shared(&call->s, response);
        rpc_call_send_end(call, "200", STATUS_OK, "");
    }
    rpc_call_unhold(&call->s);
}

void rpc_finish(struct rpc_call *call, const struct status *status)
{
    enum status_code code = status != NULL ? status->code : STATUS_OK;

    if (rpc_call_take(call, code))
        rpc_call_send_end(call, "200", code, status != NULL ? status->message : "");
    rpc_call_unhold(&call->s);
}

void rpc_fail(struct rpc_call *call, const struct status *status)
{
    rpc_finish(call, status);
}

void rpc_failf(struct rpc_call *call, enum status_code code, const char *format, ...)
{
    struct status status = { .code = code };
    va_list args;

    va_start(args, format);
    vsnprintf(status.message, sizeof status.message, format, args);
    va_end(args);
    rpc_finish(call, &status);
}

bool rpc_send(struct rpc_call *call, const ProtobufCMessage *message)
{
    if (!rpc_call_is_heard(call))
        return false;
    rpc_call_send_headers(call);
    rpc_stream_send(&call->s, message);
    return !h2_body_is_full(&call->s.h2);
}

bool rpc_send_packed(struct rpc_call *call, const void *p, size_t n)
{
    if (!rpc_call_is_heard(call))
        return false;
    rpc_call_send_headers(call);
    rpc_stream_send_packed(&call->s, p, n);
    return !h2_body_is_full(&call->s.h2);
}

void rpc_send_headers(struct rpc_call *call)
{
    if (rpc_call_is_heard(call))
        rpc_call_send_headers(call);
}

/* We end the call ourselves: bad input or a deadline. The handler, if it has the call, is cancelled. */
static void rpc_call_refuse(struct rpc_call *call, const char *http_status, enum status_code code, const char *message)
{
    rpc_call_cancel(call, code);
    if (call->s.h2.h2 == NULL || call->s.h2.reset || call->ended)
        return;
    if (call->s.h2.queued > 0) {
        /* Half an answer cannot be finished, and the client may not be reading. */
        call->ended = true;
        h2_body_drop(&call->s.h2);
        h2_reset(&call->s.h2, NGHTTP2_CANCEL);
        return;
    }
    rpc_call_send_end(call, http_status, code, message);
}

static void rpc_call_on_deadline(void *arg)
{
    struct rpc_call *call = arg;

    call->s.holds++;
    rpc_call_refuse(call, "200", STATUS_DEADLINE_EXCEEDED, "the deadline of the call has passed");
    call->s.holds--;
    rpc_call_unhold(&call->s);
}

/* ---- headers ---- */

static void rpc_call_on_grpc_header(struct rpc_call *call, struct str name, nghttp2_rcbuf *value)
{
    struct str text = rpc_rcbuf_str(value);

    if (str_eq(name, "grpc-timeout")) {
        if (!rpc_timeout_parse(text, &call->timeout_ms))
            call->timeout_ms = -2;
    } else if (str_eq(name, "grpc-encoding") && call->s.encoding == NULL && !str_eq(text, "identity")) {
        nghttp2_rcbuf_incref(value);
        call->s.encoding = value;
    }
}

static void rpc_call_on_header(struct rpc_stream *s, nghttp2_rcbuf *name_buf, nghttp2_rcbuf *value)
{
    struct rpc_call *call = rpc_call_of(s);
    struct str name = rpc_rcbuf_str(name_buf), text = rpc_rcbuf_str(value);

    if (call->headers_seen)
        return; /* a client's trailers mean nothing in gRPC */
    switch (name.p[0]) {
    case ':':
        if (str_eq(name, ":path") && call->path == NULL) {
            nghttp2_rcbuf_incref(value);
            call->path = value;
        } else if (str_eq(name, ":method")) {
            call->is_post = str_eq(text, "POST");
        }
        return;
    case 'g':
        if (name.n > 5 && memcmp(name.p, "grpc-", 5) == 0) {
            rpc_call_on_grpc_header(call, name, value);
            return;
        }
        break;
    case 'c':
        if (str_eq(name, "content-type")) {
            call->has_content_type = true;
            call->content_type_ok = rpc_content_type_ok(text);
            return;
        }
        break;
    case 't':
        if (str_eq(name, "te"))
            return;
        break;
    default:
        break;
    }
    rpc_metadata_keep(s, name_buf, value);
}

/* What is wrong with the headers, if anything; *http_status is what HTTP says to it. */
static bool rpc_call_check_headers(struct rpc_call *call, const char **http_status, struct status *err)
{
    *http_status = "200";
    if (call->s.h2.headers_too_large) {
        *http_status = "431";
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "request headers of more than %d bytes", H2_HEADERS_MAX);
    }
    if (!call->is_post) {
        *http_status = "405";
        return status_set(err, STATUS_INTERNAL, "gRPC requests are POST");
    }
    if (!call->content_type_ok) {
        *http_status = "415";
        return status_set(err, STATUS_INVALID_ARGUMENT, "content-type %s application/grpc or application/grpc+proto",
                          call->has_content_type ? "is not" : "is missing; it must be");
    }
    if (call->timeout_ms == -2)
        return status_set(err, STATUS_INVALID_ARGUMENT, "malformed grpc-timeout");
    return true;
}

/* False when the call was refused. */
static bool rpc_call_accept(struct rpc_call *call)
{
    struct rpc_conn *conn = call->s.conn;
    struct str path = call->path != NULL ? rpc_rcbuf_str(call->path) : STR("");
    const char *http_status;
    struct status err;

    if (!rpc_call_check_headers(call, &http_status, &err))
        log_warn("%s: %.200s: %s", h2_peer(conn->h2), path.p, err.message);
    else if (rpc_methods_find(conn->methods, path, &call->service, &call->method, &err))
        return true;
    rpc_call_refuse(call, http_status, err.code, err.message);
    return false;
}

static void rpc_call_on_headers(struct rpc_stream *s)
{
    struct rpc_call *call = rpc_call_of(s);
    struct rpc_conn *conn = s->conn;

    if (call->headers_seen)
        return;
    call->headers_seen = true;
    if (call->services->on_call_end != NULL)
        call->started_ns = clock_mono_ns();
    if (!rpc_call_accept(call))
        return;
    if (call->timeout_ms >= 0) {
        call->deadline_ms = clock_mono_ms() + call->timeout_ms;
        timer_start(conn->loop, &call->timer, call->timeout_ms, rpc_call_on_deadline, call);
    }
    s->type = call->method->input;
    s->single = call->method->kind == RPC_UNARY || call->method->kind == RPC_SERVER_STREAMING;
    if (s->single)
        return; /* until its message is complete */
    call->owned = true;
    call->method->handler(call->service->context, call, NULL);
}

/* ---- messages ---- */

static void rpc_call_on_message_in(struct rpc_stream *s, const ProtobufCMessage *message)
{
    struct rpc_call *call = rpc_call_of(s);

    if (call->owned && call->on_message != NULL)
        call->on_message(call->on_message_arg, message);
}

static void rpc_call_on_half_close(struct rpc_stream *s)
{
    struct rpc_call *call = rpc_call_of(s);

    if (call->method == NULL)
        return; /* refused */
    if (!s->single) {
        rpc_call_on_message_in(s, NULL);
    } else if (s->message == NULL) {
        rpc_call_refuse(call, "200", STATUS_UNIMPLEMENTED, "this method takes one message, and none came");
    } else {
        call->owned = true;
        call->method->handler(call->service->context, call, s->message);
    }
}

static void rpc_call_on_bad_message(struct rpc_stream *s, const struct status *err)
{
    struct rpc_call *call = rpc_call_of(s);

    log_warn("%s: %s/%s: %s", h2_peer(s->conn->h2), call->service->name, call->method->name, err->message);
    rpc_call_refuse(call, "200", err->code, err->message);
}

static void rpc_call_on_drained(struct rpc_stream *s)
{
    struct rpc_call *call = rpc_call_of(s);

    if (call->owned && call->on_writable != NULL)
        call->on_writable(call->on_writable_arg);
}

static const struct rpc_stream_ops rpc_call_ops = {
    .on_header = rpc_call_on_header,
    .on_headers = rpc_call_on_headers,
    .on_message = rpc_call_on_message_in,
    .on_half_close = rpc_call_on_half_close,
    .on_bad_message = rpc_call_on_bad_message,
    .on_writable = rpc_call_on_drained,
    .on_close = rpc_call_on_close,
    .unhold = rpc_call_unhold,
};

/* ---- what a handler asks ---- */

struct arena *rpc_call_arena(struct rpc_call *call)
{
    return &call->s.arena;
}

struct str rpc_call_metadata(struct rpc_call *call, const char *key)
{
    return rpc_metadata_find(&call->s, key);
}

bool rpc_call_metadata_at(struct rpc_call *call, size_t index, const char **key, const char **value)
{
    return rpc_metadata_at(&call->s, index, key, value);
}

void rpc_call_add_header(struct rpc_call *call, const struct rpc_metadata *field)
{
    if (!call->headers_sent && call->header_count < RPC_CALL_FIELDS_MAX)
        rpc_call_add(call, &call->headers, &call->header_count, rpc_metadata_field_of(&call->s.arena, field));
}

void rpc_call_add_trailer(struct rpc_call *call, const struct rpc_metadata *field)
{
    if (call->trailer_count < RPC_CALL_FIELDS_MAX)
        rpc_call_add(call, &call->trailers, &call->trailer_count, rpc_metadata_field_of(&call->s.arena, field));
}

int64_t rpc_call_time_left_ms(const struct rpc_call *call)
{
    if (call->deadline_ms == 0)
        return INT64_MAX;
    int64_t left = call->deadline_ms - clock_mono_ms();
    return left > 0 ? left : 0;
}

bool rpc_call_cancelled(const struct rpc_call *call)
{
    return call->cancelled;
}

void rpc_call_on_cancel(struct rpc_call *call, void (*fn)(void *arg), void *arg)
{
    call->on_cancel = fn;
    call->on_cancel_arg = arg;
}

void rpc_call_on_writable(struct rpc_call *call, void (*fn)(void *arg), void *arg)
{
    call->on_writable = fn;
    call->on_writable_arg = arg;
}

void rpc_call_on_message(struct rpc_call *call, void (*fn)(void *arg, const ProtobufCMessage *message), void *arg)
{
    call->on_message = fn;
    call->on_message_arg = arg;
}

void rpc_call_pause(struct rpc_call *call, bool paused)
{
    rpc_inbound_pause(&call->s, paused);
}

#undef RPC_CALL_FIELDS_MAX
