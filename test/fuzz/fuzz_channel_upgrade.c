/* SPDX-License-Identifier: Apache-2.0 */
/* From the first byte of an HTTP request to channels: the server reads the request, answers the upgrade that it asks for, and
 * hands the connection to SPDY or WebSocket; channels send back what they hear. The first byte says how the rest is cut, and
 * what the owner of the channels does. At the end everything is gone, once. */
#include "http/channel.h"
#include "http/server.h"
#include "http/websocket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHANNELS 4

struct fuzz {
    struct loop *loop;
    struct channel_conn *conn;
    unsigned behaviour;
    size_t channels; /* alive */
    bool closed;
    struct stream *stream; /* ours, while somebody holds it */
};

/* ---- a stream in memory ---- */

struct fuzz_stream {
    struct stream base; /* first */
    struct fuzz *fuzz;
    const uint8_t *p;
    size_t n, step;
    unsigned writes;
};

static ssize_t fuzz_read(struct stream *s, void *p, size_t n)
{
    struct fuzz_stream *f = (struct fuzz_stream *)(void *)s;

    if (f->n == 0)
        return 0;
    if (n > f->n)
        n = f->n;
    if (n > f->step)
        n = f->step;
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
    if (f->writes > 1 && f->writes % 7 == 0)
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

static void fuzz_stream_free(struct stream *s)
{
    ((struct fuzz_stream *)(void *)s)->fuzz->stream = NULL;
    free(s);
}

static const struct stream_ops fuzz_stream_ops = { fuzz_read, fuzz_write, fuzz_want, fuzz_shutdown_write, fuzz_stream_free };

/* ---- channels ---- */

struct fuzz_channel {
    struct fuzz *fuzz;
    struct channel *channel;
};

static void fuzz_on_data(void *arg, struct str piece)
{
    struct fuzz_channel *c = arg;
    struct fuzz *fuzz = c->fuzz;

    if (!channel_send(c->channel, piece.p, piece.n) || (fuzz->behaviour & 1))
        channel_pause(c->channel, true);
    if ((fuzz->behaviour & 2) && piece.n > 0 && piece.p[0] == 'R')
        channel_reset(c->channel);
    if ((fuzz->behaviour & 4) && piece.n > 0 && piece.p[0] == 'C')
        channel_conn_close(fuzz->conn);
    if ((fuzz->behaviour & 32) && piece.n > 0 && piece.p[0] == 'F') {
        channel_conn_free(fuzz->conn);
        fuzz->conn = NULL;
    }
}

static void fuzz_on_end(void *arg)
{
    channel_end(((struct fuzz_channel *)arg)->channel);
}

static void fuzz_on_writable(void *arg)
{
    channel_pause(((struct fuzz_channel *)arg)->channel, false);
}

static void fuzz_on_gone(void *arg, const struct status *err)
{
    struct fuzz_channel *c = arg;

    if (err != NULL && err->code == STATUS_OK)
        abort();
    c->fuzz->channels--;
    free(c);
}

static void fuzz_take(struct fuzz *fuzz, struct channel *channel)
{
    struct fuzz_channel *c = xcalloc(1, sizeof *c);
    const struct channel_listener listener = { fuzz_on_data, fuzz_on_end, fuzz_on_writable, fuzz_on_gone, c };

    *c = (struct fuzz_channel){ fuzz, channel };
    fuzz->channels++;
    channel_listen(channel, &listener);
}

static void fuzz_on_channel(void *arg, struct channel *channel, const struct http_header *headers, size_t count)
{
    struct fuzz *fuzz = arg;

    fuzz_take(fuzz, channel);
    for (size_t i = 0; i < count; i++)
        if ((fuzz->behaviour & 8) && strcmp(headers[i].value, "error") == 0)
            channel_reset(channel);
}

static void fuzz_on_close(void *arg, const struct status *err)
{
    struct fuzz *fuzz = arg;

    (void)err;
    if (fuzz->closed || fuzz->channels != 0)
        abort();
    fuzz->closed = true;
    if (fuzz->behaviour & 16) {
        channel_conn_free(fuzz->conn);
        fuzz->conn = NULL;
    }
}

static void fuzz_handle(void *context, struct http_exchange *x)
{
    struct fuzz *fuzz = context;
    const char *key = http_exchange_header(x, "Sec-WebSocket-Key");
    const char *protocol = http_exchange_header(x, "Sec-WebSocket-Protocol");
    struct channel_conn_options options = { .on_channel = fuzz_on_channel, .on_close = fuzz_on_close, .arg = fuzz };
    bool websocket = http_exchange_wants_upgrade(x, "websocket");
    char accept[WEBSOCKET_ACCEPT_SIZE] = "";
    const struct http_header header = { "Sec-WebSocket-Accept", accept };
    cleanup_buf struct buf early = BUF_INIT;

    if (websocket && (key == NULL || !websocket_key_valid(key))) {
        http_replyf(x, 400, "no key");
        return;
    }
    if (websocket) {
        websocket_accept(key, accept);
        options.carrier = CHANNEL_WEBSOCKET;
        options.close_signals = true;
        if (protocol != NULL && strstr(protocol, "base64") != NULL)
            options.carrier = CHANNEL_WEBSOCKET_BASE64;
        if (protocol != NULL && strstr(protocol, "portforward") != NULL)
            options.carrier = CHANNEL_WEBSOCKET_SPDY;
        options.channel_count = options.carrier == CHANNEL_WEBSOCKET_SPDY ? 0 : CHANNELS;
    }
    options.channels_max = 20;
    struct stream *stream = http_exchange_upgrade(x, websocket ? "websocket" : "SPDY/3.1", &header, websocket, &early);
    if (stream == NULL)
        return;
    fuzz->conn = channel_conn_new(fuzz->loop, stream, (struct str){ (const char *)early.p, early.n }, &options);
    for (size_t i = 0; i < options.channel_count; i++)
        fuzz_take(fuzz, channel_number(fuzz->conn, i));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct http_route routes[] = { { .path = "/", .handler = fuzz_handle } };
    struct fuzz fuzz = { 0 };
    struct http_server_options options = { .routes = routes, .route_count = COUNT_OF(routes), .context = &fuzz };
    struct status err = STATUS_INIT;

    if (size < 2)
        return 0;
    fuzz.behaviour = data[1];
    fuzz.loop = loop_new(&err);
    if (fuzz.loop == NULL)
        abort();
    struct http_server *server = http_server_new(fuzz.loop, &options);
    struct fuzz_stream *stream = xcalloc(1, sizeof *stream);
    *stream = (struct fuzz_stream){ .base.ops = &fuzz_stream_ops, .fuzz = &fuzz, .p = data + 2, .n = size - 2,
                                    .step = data[0] < 200 ? size : data[0] - 199u };
    fuzz.stream = &stream->base;
    http_server_accept(server, &stream->base);
    for (size_t turn = 0; turn < 2 * size + 20 && fuzz.stream != NULL; turn++) {
        if (fuzz.stream->on_event != NULL)
            fuzz.stream->on_event(fuzz.stream->arg, WATCH_READ | WATCH_WRITE);
        loop_turn(fuzz.loop, 0);
    }
    channel_conn_free(fuzz.conn);
    http_server_free(server);
    loop_free(fuzz.loop);
    if (fuzz.channels != 0 || fuzz.stream != NULL)
        abort();
    return 0;
}
