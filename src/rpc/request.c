/* SPDX-License-Identifier: Apache-2.0 */
/* The client side of an RPC. */
#include "rpc/conn.h"

#include "rpc/wire.h"

struct rpc_request {
    struct rpc_stream s; /* first */
    struct rpc_request_options options; /* its strings are not kept */
    void (*on_done)(void *arg, const struct status *status, const ProtobufCMessage *response); /* of rpc_unary */
    struct timer timer;
    unsigned http_status; /* of the header block being read, then of the answer */
    bool content_type_ok;
    bool has_status; /* grpc-status came */
    enum status_code code;
    nghttp2_rcbuf *message; /* grpc-message; a reference, or NULL */
    bool finished;          /* the owner was told, or gave it up */
    bool sent_end;          /* half-closed by us */
};

static struct rpc_request *rpc_request_of(struct rpc_stream *s)
{
    return (struct rpc_request *)(void *)s;
}

/* ---- the end ---- */

static void rpc_request_unhold(struct rpc_stream *s)
{
    struct rpc_request *request = rpc_request_of(s);

    if (s->holds > 0 || s->h2.h2 != NULL || !request->finished)
        return;
    timer_stop(&request->timer);
    if (request->message != NULL)
        nghttp2_rcbuf_decref(request->message);
    rpc_stream_reset(s);
    list_remove(&s->link);
    arena_free(&s->arena);
    arena_free(&s->message_arena);
    free(request);
}

/* The stream is of no more use: what both sides ended closes by itself. */
static void rpc_request_abandon(struct rpc_request *request)
{
    struct rpc_stream *s = &request->s;

    request->finished = true;
    timer_stop(&request->timer);
    rpc_inbound_discard(s);
    if (s->h2.h2 == NULL || (s->h2.sent_end && s->h2.received_end))
        return;
    h2_body_drop(&s->h2);
    h2_reset(&s->h2, NGHTTP2_CANCEL);
}

static void rpc_request_finish(struct rpc_request *request, const struct status *status)
{
    if (request->finished)
        return;
    request->s.holds++;
    rpc_request_abandon(request);
    if (request->on_done != NULL)
        request->on_done(request->options.arg, status, status->code == STATUS_OK ? request->s.message : NULL);
    else if (request->options.on_finish != NULL)
        request->options.on_finish(request->options.arg, status);
    request->s.holds--;
}

static void PRINTF_LIKE(3, 4)
    rpc_request_finishf(struct rpc_request *request, enum status_code code, const char *format, ...)
{
    struct status status = { .code = code };
    va_list args;

    va_start(args, format);
    vsnprintf(status.message, sizeof status.message, format, args);
    va_end(args);
    rpc_request_finish(request, &status);
}

void rpc_request_cancel(struct rpc_request *request)
{
    if (request == NULL || request->finished)
        return;
    rpc_request_abandon(request);
    rpc_request_unhold(&request->s);
}

static void rpc_request_on_timeout(void *arg)
{
    struct rpc_request *request = arg;

    rpc_request_finishf(request, STATUS_DEADLINE_EXCEEDED, "no answer within %" PRId64 " ms", request->options.timeout_ms);
    rpc_request_unhold(&request->s);
}

void rpc_request_connection_gone(struct rpc_stream *s)
{
    rpc_request_finishf(rpc_request_of(s), STATUS_UNAVAILABLE, "the connection was closed");
    rpc_request_unhold(s);
}

/* ---- the answer ---- */

static void rpc_request_on_header(struct rpc_stream *s, nghttp2_rcbuf *name_buf, nghttp2_rcbuf *value)
{
    struct rpc_request *request = rpc_request_of(s);
    struct str name = rpc_rcbuf_str(name_buf), text = rpc_rcbuf_str(value);

    if (str_eq(name, ":status")) {
        request->http_status = (unsigned)strtoul(text.p, NULL, 10);
        request->content_type_ok = false;
    } else if (str_eq(name, "content-type")) {
        request->content_type_ok = rpc_content_type_ok(text);
    } else if (str_eq(name, "grpc-status")) {
        request->has_status = true;
        request->code = rpc_status_parse(text);
    } else if (str_eq(name, "grpc-message") && request->message == NULL) {
        nghttp2_rcbuf_incref(value);
        request->message = value;
    } else if (str_eq(name, "grpc-encoding") && s->encoding == NULL) {
        nghttp2_rcbuf_incref(value);
        s->encoding = value;
    } else if (name.n < 5 || memcmp(name.p, "grpc-", 5) != 0) {
        rpc_metadata_keep(s, name_buf, value);
    }
}

static void rpc_request_on_headers(struct rpc_stream *s)
{
    struct rpc_request *request = rpc_request_of(s);

    if (request->http_status / 100 == 1)
        return; /* an interim answer */
    if (s->h2.headers_too_large)
        rpc_request_finishf(request, STATUS_RESOURCE_EXHAUSTED, "headers of more than %d bytes in the answer", H2_HEADERS_MAX);
    else if (request->http_status != 200 && !request->has_status)
        rpc_request_finishf(request, rpc_status_of_http(request->http_status), "HTTP status %u instead of a gRPC answer",
                            request->http_status);
    else if (!request->content_type_ok && !request->has_status)
        rpc_request_finishf(request, STATUS_UNKNOWN, "the answer's content-type is not application/grpc");
}

/* OK needs the one message where one is due. */
static void rpc_request_on_half_close(struct rpc_stream *s)
{
    struct rpc_request *request = rpc_request_of(s);
    struct status status = { .code = request->code };

    if (!request->has_status) {
        rpc_request_finishf(request, STATUS_UNKNOWN, "the answer ended without a grpc-status");
        return;
    }
    if (request->message != NULL && request->code != STATUS_OK)
        rpc_message_decode(rpc_rcbuf_str(request->message), status.message, sizeof status.message);
    if (s->single && request->code == STATUS_OK && s->message == NULL)
        status_set(&status, STATUS_UNIMPLEMENTED, "the answer holds no message, and one is due");
    rpc_request_finish(request, &status);
}

static void rpc_request_on_message(struct rpc_stream *s, const ProtobufCMessage *message)
{
    struct rpc_request *request = rpc_request_of(s);

    if (request->options.on_message != NULL)
        request->options.on_message(request->options.arg, message);
}

static void rpc_request_on_bad_message(struct rpc_stream *s, const struct status *err)
{
    log_warn("%s: in an answer: %s", h2_peer(s->conn->h2), err->message);
    rpc_request_finish(rpc_request_of(s), err);
}

static void rpc_request_on_drained(struct rpc_stream *s)
{
    struct rpc_request *request = rpc_request_of(s);

    if (!request->finished && request->options.on_writable != NULL)
        request->options.on_writable(request->options.arg);
}

static void rpc_request_on_close(struct rpc_stream *s, uint32_t code)
{
    struct rpc_request *request = rpc_request_of(s);

    if (request->finished || s->half_closed)
        return; /* the end is known; a pause may hold it back */
    if (code == H2_CONNECTION_LOST)
        rpc_request_finishf(request, STATUS_UNAVAILABLE, "connection lost: %s", h2_why(s->conn->h2));
    else if (code == NGHTTP2_REFUSED_STREAM && !h2_accepts_requests(s->conn->h2))
        rpc_request_finishf(request, STATUS_UNAVAILABLE, "the server is going away");
    else
        rpc_request_finishf(request, rpc_status_of_reset(code), "the server reset the stream (%s)", nghttp2_http2_strerror(code));
}

static const struct rpc_stream_ops rpc_request_ops = {
    .on_header = rpc_request_on_header,
    .on_headers = rpc_request_on_headers,
    .on_message = rpc_request_on_message,
    .on_half_close = rpc_request_on_half_close,
    .on_bad_message = rpc_request_on_bad_message,
    .on_writable = rpc_request_on_drained,
    .on_close = rpc_request_on_close,
    .unhold = rpc_request_unhold,
};

/* ---- the request ---- */

/* Those before ":path", and those after. */
static const nghttp2_nv rpc_request_fields_before[] = {
    H2_FIELD(":method", "POST"),
    H2_FIELD(":scheme", "http"),
    H2_FIELD(":authority", "localhost"),
};
static const nghttp2_nv rpc_request_fields_after[] = {
    H2_FIELD("te", "trailers"),
    H2_FIELD("content-type", "application/grpc"),
    H2_FIELD("user-agent", "interlink-cri"),
    H2_FIELD("grpc-accept-encoding", "identity"),
};

static bool rpc_request_submit(struct rpc_conn *conn, struct rpc_request *request, const struct rpc_request_options *options)
{
    const size_t before = COUNT_OF(rpc_request_fields_before), after = COUNT_OF(rpc_request_fields_after);
    size_t count = 0, extra = options->metadata_count < RPC_METADATA_MAX ? options->metadata_count : RPC_METADATA_MAX;
    nghttp2_nv *fields = ARENA_ARRAY(&request->s.arena, nghttp2_nv, before + after + extra + 2);
    char timeout[RPC_TIMEOUT_MAX];

    memcpy(fields, rpc_request_fields_before, sizeof rpc_request_fields_before);
    count += before;
    fields[count] = rpc_field(":path", options->method, strlen(options->method));
    fields[count++].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME; /* the value is copied: the caller's string may go */
    memcpy(fields + count, rpc_request_fields_after, sizeof rpc_request_fields_after);
    count += after;
    if (options->timeout_ms > 0) {
        rpc_timeout_format(options->timeout_ms, timeout);
        fields[count] = rpc_field("grpc-timeout", timeout, strlen(timeout));
        fields[count++].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME;
    }
    for (size_t i = 0; i < extra; i++)
        fields[count++] = rpc_metadata_field_of(&request->s.arena, &options->metadata[i]);
    return h2_request(conn->h2, &request->s.h2, fields, count, options->bulk);
}

static void rpc_request_on_fail(void *arg)
{
    struct rpc_conn *conn = arg;
    struct list failing;

    /* What ends may free the connection, and with it what is still in its list. */
    list_init(&failing);
    while (!list_empty(&conn->unstarted)) {
        struct list *link = conn->unstarted.next;
        list_remove(link);
        list_append(&failing, link);
    }
    struct status status;
    status_set(&status, STATUS_UNAVAILABLE, "no connection to %s: %s", h2_peer(conn->h2), h2_why(conn->h2));
    while (!list_empty(&failing)) {
        struct rpc_stream *s = CONTAINER_OF(failing.next, struct rpc_stream, link);
        list_remove(&s->link);
        s->conn = NULL;
        rpc_request_finish(rpc_request_of(s), &status);
        rpc_request_unhold(s);
    }
}

struct rpc_request *rpc_request_start(struct rpc_conn *conn, const struct rpc_request_options *options)
{
    struct rpc_request *request = xcalloc(1, sizeof *request);

    request->s.ops = &rpc_request_ops;
    request->s.conn = conn;
    request->s.type = options->output;
    request->options = *options;
    if (rpc_request_submit(conn, request, options)) {
        list_append(&conn->streams, &request->s.link);
        if (options->timeout_ms > 0)
            timer_start(conn->loop, &request->timer, options->timeout_ms, rpc_request_on_timeout, request);
    } else {
        list_append(&conn->unstarted, &request->s.link);
        deferred_start(conn->loop, &conn->fail, rpc_request_on_fail, conn);
    }
    return request;
}

static bool rpc_request_open(const struct rpc_request *request)
{
    return request->s.h2.h2 != NULL && !request->finished && !request->sent_end && !request->s.h2.reset;
}

bool rpc_request_send(struct rpc_request *request, const ProtobufCMessage *message)
{
    if (!rpc_request_open(request))
        return false;
    rpc_stream_send(&request->s, message);
    return !h2_body_is_full(&request->s.h2);
}

bool rpc_request_send_packed(struct rpc_request *request, const void *p, size_t n)
{
    if (!rpc_request_open(request))
        return false;
    rpc_stream_send_packed(&request->s, p, n);
    return !h2_body_is_full(&request->s.h2);
}

void rpc_request_half_close(struct rpc_request *request)
{
    if (!rpc_request_open(request))
        return;
    request->sent_end = true;
    h2_body_end(&request->s.h2, NULL, 0);
}

struct str rpc_request_metadata(struct rpc_request *request, const char *key)
{
    return rpc_metadata_find(&request->s, key);
}

void rpc_request_pause(struct rpc_request *request, bool paused)
{
    rpc_inbound_pause(&request->s, paused);
}

struct rpc_request *rpc_unary(struct rpc_conn *conn, const char *method, const ProtobufCMessage *message,
                              const ProtobufCMessageDescriptor *output, int64_t timeout_ms,
                              void (*on_done)(void *arg, const struct status *status, const ProtobufCMessage *response),
                              void *arg)
{
    struct rpc_request_options options = { .method = method, .output = output, .timeout_ms = timeout_ms, .arg = arg };
    struct rpc_request *request = rpc_request_start(conn, &options);

    request->on_done = on_done;
    request->s.single = true;
    rpc_request_send(request, message);
    rpc_request_half_close(request);
    return request;
}
