/* SPDX-License-Identifier: Apache-2.0 */
/* A peer's bytes into a gRPC connection, in the role of server and of client. The first byte says which, and whether the rest
 * is bytes as they are or a list of frames to make of it (so that framing is no obstacle). */
#include "cri.pb-c.h"
#include "http/h2.h"
#include "rpc/rpc.h"

#define MESSAGE (&runtime__v1__exec_sync_response__descriptor)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- a stream in memory ---- */

struct fuzz_stream {
    struct stream base; /* first */
    const uint8_t *p;
    size_t n;
    bool eof;
    bool *gone;
    unsigned writes;
};

static ssize_t fuzz_read(struct stream *s, void *p, size_t n)
{
    struct fuzz_stream *f = (struct fuzz_stream *)(void *)s;

    if (f->n == 0)
        return f->eof ? 0 : -EAGAIN;
    if (n > f->n)
        n = f->n;
    memcpy(p, f->p, n);
    f->p += n;
    f->n -= n;
    return (ssize_t)n;
}

/* Takes everything, but now and then only a part, or nothing. */
static ssize_t fuzz_write(struct stream *s, const struct iovec *iov, int count)
{
    struct fuzz_stream *f = (struct fuzz_stream *)(void *)s;
    size_t n = 0;

    for (int i = 0; i < count; i++)
        n += iov[i].iov_len;
    f->writes++;
    if (f->writes % 7 == 0)
        return -EAGAIN;
    return (ssize_t)(f->writes % 5 == 0 && n > 1 ? n / 2 : n);
}

static void fuzz_want(struct stream *s, unsigned events)
{
    (void)s;
    (void)events;
}

static void fuzz_shutdown_write(struct stream *s)
{
    (void)s;
}

static void fuzz_free(struct stream *s)
{
    struct fuzz_stream *f = (struct fuzz_stream *)(void *)s;

    *f->gone = true;
    free(f);
}

static const struct stream_ops fuzz_ops = { fuzz_read, fuzz_write, fuzz_want, fuzz_shutdown_write, fuzz_free };

/* ---- the service ---- */

static struct rpc_call *held[64];
static size_t held_count;

static void on_cancel(void *arg)
{
    (void)arg;
}

static void on_echo(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct str text = rpc_call_metadata(call, "x-text"), raw = rpc_call_metadata(call, "x-raw-bin");
    struct rpc_metadata back = { "x-raw-bin", raw.p, raw.n };

    (void)context;
    if (text.p != NULL)
        rpc_call_add_trailer(call, &back);
    rpc_reply(call, request);
}

static void on_hold(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    if (held_count < sizeof held / sizeof held[0])
        held[held_count++] = call; /* without a cancel function: ours until we end it */
    else
        rpc_failf(call, STATUS_RESOURCE_EXHAUSTED, "enough");
}

static void on_chat_message(void *arg, const ProtobufCMessage *message)
{
    struct rpc_call *call = arg;
    const Runtime__V1__ExecSyncResponse *m = (const void *)message;

    if (message == NULL)
        rpc_finish(call, NULL);
    else if (m->exit_code == 9)
        rpc_failf(call, STATUS_ABORTED, "as asked");
    else if (!rpc_send(call, message))
        rpc_call_pause(call, true);
    else if (m->exit_code == 7)
        rpc_call_pause(call, true);
}

static void on_chat_writable(void *arg)
{
    rpc_call_pause(arg, false);
}

static void on_chat(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    rpc_call_on_cancel(call, on_cancel, NULL);
    rpc_call_on_message(call, on_chat_message, call);
    rpc_call_on_writable(call, on_chat_writable, call);
}

static const struct rpc_method methods[] = {
    { "E", RPC_UNARY, MESSAGE, MESSAGE, on_echo },
    { "H", RPC_UNARY, MESSAGE, MESSAGE, on_hold },
    { "C", RPC_BIDI_STREAMING, MESSAGE, MESSAGE, on_chat },
};
static const struct rpc_service service = { "t.T", methods, 3, NULL };
static const struct rpc_service *const offered[] = { &service };
static const struct rpc_services services = { offered, 1, NULL, NULL };

/* ---- frames out of the input ---- */

static void put_frame(struct buf *out, uint8_t type, uint8_t flags, uint32_t id, const void *p, size_t n)
{
    const uint8_t head[9] = { (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, type, flags, 0, 0, (uint8_t)(id >> 8), (uint8_t)id };

    buf_append(out, head, sizeof head);
    buf_append(out, p, n);
}

static void put_field(struct buf *out, const char *name, const char *value)
{
    buf_append_byte(out, 0x40); /* into HPACK's table */
    buf_append_byte(out, (uint8_t)strlen(name));
    buf_append_str(out, name);
    buf_append_byte(out, (uint8_t)strlen(value));
    buf_append_str(out, value);
}

static void put_headers(struct buf *out, bool server, uint8_t which, uint32_t id)
{
    static const char *const paths[] = { "/t.T/E", "/t.T/H", "/t.T/C", "/t.T/X" };
    struct buf b cleanup_buf = BUF_INIT;

    if (server) {
        put_field(&b, ":method", which & 4 ? "GET" : "POST");
        put_field(&b, ":scheme", "http");
        put_field(&b, ":path", paths[which & 3]);
        put_field(&b, ":authority", "localhost");
        put_field(&b, "content-type", which & 8 ? "text/plain" : "application/grpc");
        if (which & 16)
            put_field(&b, "grpc-timeout", "1m");
        if (which & 32)
            put_field(&b, "grpc-encoding", "gzip");
        if (which & 64)
            put_field(&b, "x-raw-bin", "AAEC");
    } else {
        if (which & 1)
            put_field(&b, ":status", which & 2 ? "404" : "200");
        if (which & 4)
            put_field(&b, "content-type", "application/grpc");
        if (which & 8)
            put_field(&b, "grpc-status", which & 16 ? "5" : "0");
        if (which & 32)
            put_field(&b, "grpc-message", "a%20b");
    }
    put_frame(out, NGHTTP2_HEADERS, (uint8_t)(NGHTTP2_FLAG_END_HEADERS | (which >> 7 & 1)), id, b.p, b.n);
}

/* Each op: kind, an argument, a stream, a length, that many bytes. */
static void put_frames(struct buf *out, bool server, const uint8_t *p, size_t n)
{
    while (n >= 4) {
        uint32_t id = server ? 2u * (p[2] & 31) + 1 : 2u * (p[2] & 3) + 1;
        size_t length = p[3] < n - 4 ? p[3] : n - 4;
        switch (p[0] % 4) {
        case 0:
            put_headers(out, server, p[1], id);
            break;
        case 1: { /* one message, whole */
            uint8_t prefix[5] = { 0, 0, 0, 0, (uint8_t)length };
            struct buf b cleanup_buf = BUF_INIT;
            buf_append(&b, prefix, 5);
            buf_append(&b, p + 4, length);
            put_frame(out, NGHTTP2_DATA, p[1] & 1, id, b.p, b.n);
            break;
        }
        case 2: /* anything as a body */
            put_frame(out, NGHTTP2_DATA, p[1] & 9, id, p + 4, length);
            break;
        default: /* any frame */
            put_frame(out, p[1] & 15, p[2] >> 3, p[2] & 7 ? id : 0, p + 4, length);
            break;
        }
        p += 4 + length;
        n -= 4 + length;
    }
}

/* ---- the client's side ---- */

static void on_done(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    (void)arg;
    if ((status->code == STATUS_OK) != (response != NULL))
        abort();
}

static unsigned messages_seen;
static struct rpc_request *chat;

static void on_message(void *arg, const ProtobufCMessage *message)
{
    (void)arg;
    if (message == NULL)
        abort();
    if (++messages_seen % 8 == 3)
        rpc_request_pause(chat, true);
}

static void on_finish(void *arg, const struct status *status)
{
    (void)arg;
    (void)status;
    rpc_request_metadata(chat, "x-text");
    chat = NULL;
}

static struct rpc_conn *open_client(struct loop *loop, struct stream *stream, const struct rpc_conn_options *options)
{
    struct rpc_conn *conn = rpc_conn_new(loop, stream, options, STR(""));
    Runtime__V1__ExecSyncResponse m = RUNTIME__V1__EXEC_SYNC_RESPONSE__INIT;
    struct rpc_request_options request = { .method = "/t.T/C", .output = MESSAGE, .on_message = on_message, .on_finish = on_finish };

    rpc_unary(conn, "/t.T/E", &m.base, MESSAGE, 0, on_done, NULL);
    chat = rpc_request_start(conn, &request);
    rpc_request_send(chat, &m.base);
    rpc_unary(conn, "/t.T/H", &m.base, MESSAGE, 100000, on_done, NULL);
    return conn;
}

static void on_close(void *arg, const struct status *err)
{
    (void)err;
    *(bool *)arg = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct loop *loop;
    struct status err;
    struct buf input cleanup_buf = BUF_INIT;
    bool closed = false, gone = false;

    if (loop == NULL) {
        log_setup(LOG_ERROR, "fuzz");
        loop = loop_new(&err);
    }
    if (size < 2)
        return 0;
    bool server = data[0] & 1, frames = data[0] & 2;
    size_t step = data[0] & 4 ? 1 + data[1] : SIZE_MAX;
    if (server)
        buf_append_str(&input, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    put_frame(&input, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
    if (frames)
        put_frames(&input, server, data + 2, size - 2);
    else
        buf_append(&input, data + 2, size - 2);

    struct fuzz_stream *f = xcalloc(1, sizeof *f);
    f->base.ops = &fuzz_ops;
    f->gone = &gone;
    struct rpc_conn_options options = { .services = server ? &services : NULL, .on_close = on_close, .arg = &closed };
    held_count = messages_seen = 0;
    chat = NULL;
    struct rpc_conn *conn = server ? rpc_conn_new(loop, &f->base, &options, STR("")) : open_client(loop, &f->base, &options);
    loop_turn(loop, 0);
    for (size_t at = 0; at < input.n && !gone;) {
        size_t n = step < input.n - at ? step : input.n - at;
        f->p = input.p + at;
        f->n = n;
        at += n;
        f->base.on_event(f->base.arg, WATCH_READ | WATCH_WRITE);
        loop_turn(loop, 0);
        if (chat != NULL && messages_seen % 8 == 3)
            rpc_request_pause(chat, false);
    }
    if (held_count > 0 && data[1] & 1) {
        Runtime__V1__ExecSyncResponse m = RUNTIME__V1__EXEC_SYNC_RESPONSE__INIT;
        rpc_reply(held[--held_count], &m.base);
        loop_turn(loop, 0);
    }
    if (!gone && data[1] & 2) {
        f->eof = true;
        f->base.on_event(f->base.arg, WATCH_READ | WATCH_HANGUP);
        loop_turn(loop, 0);
    }
    rpc_conn_free(conn);
    while (held_count > 0)
        rpc_failf(held[--held_count], STATUS_ABORTED, "over");
    loop_turn(loop, 0);
    return 0;
}
