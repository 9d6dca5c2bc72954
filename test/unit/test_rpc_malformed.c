/* SPDX-License-Identifier: Apache-2.0 */
/* A gRPC server against bytes that no honest client sends: each gets its precise answer or a closed connection. */
#include "rpc_pair.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>

/* ---- the service ---- */

static int calls, cancelled;

static void on_echo(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    calls++;
    rpc_reply(call, request);
}

static void on_cancel(void *arg)
{
    (void)arg;
    cancelled++;
}

static void on_chat_message(void *arg, const ProtobufCMessage *message)
{
    if (message == NULL)
        rpc_finish(arg, NULL);
    else
        rpc_send(arg, message);
}

static void on_chat(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    calls++;
    rpc_call_on_cancel(call, on_cancel, NULL);
    rpc_call_on_message(call, on_chat_message, call);
}

static const struct rpc_method methods[] = {
    { "Echo", RPC_UNARY, TEST_MESSAGE_TYPE, TEST_MESSAGE_TYPE, on_echo },
    { "Chat", RPC_BIDI_STREAMING, TEST_MESSAGE_TYPE, TEST_MESSAGE_TYPE, on_chat },
};
static const struct rpc_service service = { "test.Test", methods, COUNT_OF(methods), NULL };
static const struct rpc_service *const offered[] = { &service };
static const struct rpc_services services = { offered, COUNT_OF(offered), NULL, NULL };

/* ---- a client made of bytes ---- */

struct raw {
    struct rpc_pair pair;
    int fd;
    struct buf out, in;
    nghttp2_hd_inflater *inflater;
    bool closed, goaway;
    uint32_t goaway_code, reset_code;
    int answers, resets, pongs;
    /* Of the last header block that ended a stream. */
    char http_status[8], grpc_status[8], grpc_message[512], accept[32];
};

static void raw_open(struct raw *raw)
{
    memset(raw, 0, sizeof *raw);
    calls = cancelled = 0;
    raw->fd = rpc_pair_open_raw(&raw->pair, &services);
    assert_int_equal(nghttp2_hd_inflate_new(&raw->inflater), 0);
}

static void raw_close(struct raw *raw)
{
    close(raw->fd);
    rpc_pair_close(&raw->pair);
    nghttp2_hd_inflate_del(raw->inflater);
    buf_free(&raw->out);
    buf_free(&raw->in);
}

static void raw_frame(struct raw *raw, uint8_t type, uint8_t flags, uint32_t stream, const void *p, size_t n)
{
    uint8_t head[9] = { (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, type, flags, (uint8_t)(stream >> 24),
                        (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream };

    buf_append(&raw->out, head, sizeof head);
    buf_append(&raw->out, p, n);
}

/* HPACK, literal without indexing (RFC 7541 section 6.2.2). */
static void raw_length(struct buf *b, size_t n)
{
    if (n < 127) {
        buf_append_byte(b, (uint8_t)n);
        return;
    }
    buf_append_byte(b, 127);
    for (n -= 127; n >= 128; n >>= 7)
        buf_append_byte(b, (uint8_t)(n | 128));
    buf_append_byte(b, (uint8_t)n);
}

static void raw_field(struct buf *b, const char *name, const char *value)
{
    buf_append_byte(b, 0);
    raw_length(b, strlen(name));
    buf_append_str(b, name);
    raw_length(b, strlen(value));
    buf_append_str(b, value);
}

/* Headers of a call; `extra`: name, value, ..., NULL, which may replace content-type and :method. */
static void raw_headers(struct raw *raw, uint32_t stream, const char *path, uint8_t flags, const char *const *extra)
{
    struct buf b cleanup_buf = BUF_INIT;
    bool own_type = false, own_method = false;

    for (size_t i = 0; extra != NULL && extra[i] != NULL; i += 2) {
        own_type |= strcmp(extra[i], "content-type") == 0;
        own_method |= strcmp(extra[i], ":method") == 0;
    }
    if (own_method)
        raw_field(&b, extra[0], extra[1]);
    else
        raw_field(&b, ":method", "POST");
    raw_field(&b, ":scheme", "http");
    raw_field(&b, ":path", path);
    raw_field(&b, ":authority", "localhost");
    if (!own_type)
        raw_field(&b, "content-type", "application/grpc+proto");
    for (size_t i = own_method ? 2 : 0; extra != NULL && extra[i] != NULL; i += 2)
        if (*extra[i + 1] != '\0')
            raw_field(&b, extra[i], extra[i + 1]);
    raw_frame(raw, NGHTTP2_HEADERS, (uint8_t)(flags | NGHTTP2_FLAG_END_HEADERS), stream, b.p, b.n);
}

static void raw_inflate(struct raw *raw, const uint8_t *p, size_t n)
{
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        nghttp2_ssize used = nghttp2_hd_inflate_hd3(raw->inflater, &nv, &flags, p, n, 1);
        assert_true(used >= 0);
        p += used;
        n -= (size_t)used;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            const char *name = (const char *)nv.name, *value = (const char *)nv.value;
            if (strcmp(name, ":status") == 0)
                snprintf(raw->http_status, sizeof raw->http_status, "%s", value);
            else if (strcmp(name, "grpc-status") == 0)
                snprintf(raw->grpc_status, sizeof raw->grpc_status, "%s", value);
            else if (strcmp(name, "grpc-message") == 0)
                snprintf(raw->grpc_message, sizeof raw->grpc_message, "%s", value);
            else if (strcmp(name, "grpc-accept-encoding") == 0)
                snprintf(raw->accept, sizeof raw->accept, "%s", value);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL) {
            nghttp2_hd_inflate_end_headers(raw->inflater);
            return;
        }
    }
}

static uint32_t raw_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void raw_take_frames(struct raw *raw)
{
    while (raw->in.n >= 9) {
        size_t n = raw_u32(raw->in.p) >> 8;
        uint8_t type = raw->in.p[3], flags = raw->in.p[4];
        const uint8_t *p = raw->in.p + 9;
        if (raw->in.n < 9 + n)
            return;
        if (type == NGHTTP2_HEADERS) {
            raw_inflate(raw, p, n);
            raw->answers += (flags & NGHTTP2_FLAG_END_STREAM) != 0;
        } else if (type == NGHTTP2_GOAWAY) {
            raw->goaway = true;
            raw->goaway_code = raw_u32(p + 4);
        } else if (type == NGHTTP2_RST_STREAM) {
            raw->resets++;
            raw->reset_code = raw_u32(p);
        } else if (type == NGHTTP2_PING && (flags & NGHTTP2_FLAG_ACK)) {
            raw->pongs++;
        }
        buf_consume(&raw->in, 9 + n);
    }
}

/* Sends what is queued and turns the loop a little. */
static void raw_turn(struct raw *raw)
{
    for (int i = 0; i < 3; i++) {
        while (raw->out.n > 0) {
            ssize_t put = send(raw->fd, raw->out.p, raw->out.n, MSG_NOSIGNAL);
            if (put < 0 && errno != EAGAIN)
                buf_clear(&raw->out);
            if (put <= 0)
                break;
            buf_consume(&raw->out, (size_t)put);
        }
        loop_turn(raw->pair.loop, 1);
        loop_turn(raw->pair.loop, 0);
        for (;;) {
            uint8_t chunk[65536];
            ssize_t got = recv(raw->fd, chunk, sizeof chunk, 0);
            if (got == 0 || (got < 0 && errno != EAGAIN))
                raw->closed = true;
            if (got <= 0)
                break;
            buf_append(&raw->in, chunk, (size_t)got);
        }
        raw_take_frames(raw);
    }
}

/* The start of a connection, up to the acknowledgement of the server's settings. */
static void raw_preface(struct raw *raw)
{
    buf_append_str(&raw->out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    raw_frame(raw, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
    raw_turn(raw);
    raw_frame(raw, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, NULL, 0);
}

static void raw_answer(struct raw *raw)
{
    int before = raw->answers;

    for (int i = 0; i < 2000 && raw->answers == before && !raw->closed; i++)
        raw_turn(raw);
    assert_int_equal(raw->answers, before + 1);
    raw_turn(raw);
}

/* The server still serves this connection. */
static void raw_still_works(struct raw *raw, uint32_t stream)
{
    raw_headers(raw, stream, "/test.Test/Echo", 0, NULL);
    raw_frame(raw, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, stream, "\0\0\0\0\0", 5);
    raw_answer(raw);
    assert_string_equal(raw->grpc_status, "0");
    assert_false(raw->closed);
    assert_false(raw->goaway);
}

/* ---- calls ---- */

struct bad_call {
    const char *path;
    const char *extra[6];
    const char *body;
    size_t n;
    const char *http_status, *grpc_status, *message;
};
#define ECHO "/test.Test/Echo"
#define CHAT "/test.Test/Chat"
#define BODY(literal) literal, sizeof(literal) - 1

static const struct bad_call bad_calls[] = {
    { ECHO, { "content-type", "application/json" }, BODY("{}"), "415", "3", "content-type is not application/grpc" },
    { ECHO, { "content-type", "application/grpc-web" }, BODY("\0\0\0\0\0"), "415", "3", "content-type" },
    { ECHO, { "content-type", "application/grpc+json" }, BODY("\0\0\0\0\0"), "415", "3", "content-type" },
    { ECHO, { "content-type", "" }, BODY("\0\0\0\0\0"), "415", "3", "content-type is missing; it must be application/grpc" },
    { ECHO, { ":method", "GET" }, BODY("\0\0\0\0\0"), "405", "13", "POST" },
    { ECHO, { "grpc-timeout", "5x" }, BODY("\0\0\0\0\0"), "200", "3", "grpc-timeout" },
    { ECHO, { "grpc-timeout", "123456789S" }, BODY("\0\0\0\0\0"), "200", "3", "grpc-timeout" },
    { ECHO, { "grpc-timeout", "S" }, BODY("\0\0\0\0\0"), "200", "3", "grpc-timeout" },
    { "/nowhere", { NULL }, BODY("\0\0\0\0\0"), "200", "12", "malformed method name" },
    { "/a.B/C", { NULL }, BODY("\0\0\0\0\0"), "200", "12", "unknown service a.B" },
    { ECHO, { NULL }, BODY(""), "200", "12", "takes one message, and none came" },
    { ECHO, { NULL }, BODY("\0\0\0"), "200", "3", "ended within a message" },
    { ECHO, { NULL }, BODY("\0\0\0\0\5\0\0"), "200", "3", "ended within a message" },
    { ECHO, { NULL }, BODY("\0\0\0\0\0\0\0\0\0\0"), "200", "12", "more than the one message" },
    { ECHO, { NULL }, BODY("\0\0\0\0\0\0"), "200", "12", "more than the one message" },
    { ECHO, { NULL }, BODY("\1\0\0\0\0"), "200", "13", "no grpc-encoding" },
    { ECHO, { "grpc-encoding", "identity" }, BODY("\1\0\0\0\0"), "200", "13", "no grpc-encoding" },
    { ECHO, { "grpc-encoding", "gzip" }, BODY("\1\0\0\0\0"), "200", "12", "grpc-encoding \"gzip\" is not supported" },
    { ECHO, { NULL }, BODY("\7\0\0\0\0"), "200", "3", "first byte is 0x07" },
    { ECHO, { NULL }, BODY("\0\1\0\0\1"), "200", "8", "16777217 bytes is larger than the 16777216" },
    { ECHO, { NULL }, BODY("\0\xff\xff\xff\xff"), "200", "8", "4294967295" },
    { ECHO, { NULL }, BODY("\0\0\0\0\3\x0a\5a"), "200", "3", "field stdout of runtime.v1.ExecSyncResponse: cut off" },
    { ECHO, { NULL }, BODY("\0\0\0\0\1\x80"), "200", "3", "malformed tag" },
    { ECHO, { NULL }, BODY("\0\0\0\0\1\x0b"), "200", "3", "wrong wire type" },
    { CHAT, { NULL }, BODY("\0\0\0\0\1\x80"), "200", "3", "malformed tag" },
    { CHAT, { NULL }, BODY("\0\0\0\0\5abc"), "200", "3", "ended within a message" },
};

static void malformed_calls(void **unused)
{
    struct raw raw;
    uint32_t stream = 1;

    (void)unused;
    raw_open(&raw);
    raw_preface(&raw);
    for (size_t i = 0; i < COUNT_OF(bad_calls); i++, stream += 2) {
        const struct bad_call *bad = &bad_calls[i];
        int before = raw.answers;
        raw.grpc_message[0] = '\0';
        raw_headers(&raw, stream, bad->path, 0, bad->extra);
        raw_frame(&raw, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, stream, bad->body, bad->n);
        raw_answer(&raw);
        if (strcmp(raw.http_status, bad->http_status) != 0 || strcmp(raw.grpc_status, bad->grpc_status) != 0 ||
            strstr(raw.grpc_message, bad->message) == NULL)
            fail_msg("case %zu: HTTP %s, grpc-status %s, \"%s\"", i, raw.http_status, raw.grpc_status, raw.grpc_message);
        assert_int_equal(raw.answers, before + 1);
        if (strcmp(bad->message, "grpc-encoding \"gzip\" is not supported") == 0)
            assert_string_equal(raw.accept, "identity");
    }
    raw_still_works(&raw, stream);
    assert_int_equal(cancelled, 2);
    raw_close(&raw);
}

/* Refused at its headers, a call that goes on sending is reset, with the answer before it. */
static void refused_while_sending(void **unused)
{
    static const char *const json[] = { "content-type", "text/plain", NULL };
    struct raw raw;
    uint8_t body[1000] = { 0 };

    (void)unused;
    raw_open(&raw);
    raw_preface(&raw);
    raw_headers(&raw, 1, ECHO, 0, json);
    raw_answer(&raw);
    assert_string_equal(raw.http_status, "415");
    assert_int_equal(raw.resets, 1);
    assert_int_equal(raw.reset_code, NGHTTP2_NO_ERROR);
    /* What was under way is dropped; its window is given back. */
    for (int i = 0; i < 5000; i++) {
        raw_frame(&raw, NGHTTP2_DATA, 0, 1, body, sizeof body);
        if (i % 50 == 0)
            raw_turn(&raw);
    }
    raw_still_works(&raw, 3);
    raw_close(&raw);
}

static void byte_by_byte(void **unused)
{
    struct raw raw;
    struct buf all cleanup_buf = BUF_INIT;

    (void)unused;
    raw_open(&raw);
    raw_preface(&raw);
    raw_headers(&raw, 1, ECHO, 0, NULL);
    raw_frame(&raw, NGHTTP2_DATA, 0, 1, "\0\0", 2);
    raw_frame(&raw, NGHTTP2_DATA, 0, 1, "\0\0\6\x0a\3", 5);
    raw_frame(&raw, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, "abc\x18", 4);
    buf_append(&all, raw.out.p, raw.out.n);
    buf_clear(&raw.out);
    for (size_t i = 0; i < all.n; i++) {
        buf_append(&raw.out, all.p + i, 1);
        raw_turn(&raw);
    }
    assert_int_equal(raw.answers, 1);
    assert_string_equal(raw.grpc_status, "3"); /* its last field was cut off */
    raw_still_works(&raw, 3);
    raw_close(&raw);
}

static void large_headers(void **unused)
{
    struct raw raw;
    char value[4000];
    const char *extra[61] = { NULL };
    struct buf b cleanup_buf = BUF_INIT;

    (void)unused;
    memset(value, 'v', sizeof value);
    value[sizeof value - 1] = '\0';
    for (size_t i = 0; i < 40; i += 2) {
        extra[i] = "x-large";
        extra[i + 1] = value;
    }
    raw_open(&raw);
    raw_preface(&raw);
    raw_headers(&raw, 1, ECHO, NGHTTP2_FLAG_END_STREAM, extra);
    raw_answer(&raw);
    assert_string_equal(raw.http_status, "431");
    assert_string_equal(raw.grpc_status, "8");
    raw_still_works(&raw, 3);
    /* A bomb: one field put into the table of HPACK, then named thousands of times by one byte. */
    buf_append_byte(&b, 0x40);
    raw_length(&b, 1);
    buf_append_str(&b, "x");
    raw_length(&b, sizeof value - 1);
    buf_append_str(&b, value);
    for (int i = 0; i < 10000; i++)
        buf_append_byte(&b, 0x80 | 62);
    raw_frame(&raw, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 5, b.p, b.n);
    for (int i = 0; i < 100 && !raw.closed; i++)
        raw_turn(&raw);
    assert_true(raw.closed);
    raw_close(&raw);
}

/* ---- connections ---- */

static void not_http2(void **unused)
{
    static const char *const starts[] = { "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01 this is TLS",
                                          "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" };
    struct raw raw;

    (void)unused;
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        raw_open(&raw);
        buf_append_str(&raw.out, starts[i]);
        raw_turn(&raw);
        assert_true(raw.closed);
        raw_close(&raw);
    }
}

/* Frames that break RFC 9113: a GOAWAY with the code, then the end. */
static void broken_frames(void **unused)
{
    static const struct {
        uint8_t type, flags;
        uint32_t stream;
        const char *payload;
        size_t n;
        uint32_t code;
    } frames[] = {
        { NGHTTP2_PING, 0, 0, BODY("1234567"), NGHTTP2_FRAME_SIZE_ERROR },
        { NGHTTP2_PING, 0, 1, BODY("12345678"), NGHTTP2_PROTOCOL_ERROR },
        { NGHTTP2_SETTINGS, 0, 0, BODY("12345"), NGHTTP2_FRAME_SIZE_ERROR },
        { NGHTTP2_SETTINGS, 0, 0, BODY("\0\5\0\0\0\0"), NGHTTP2_PROTOCOL_ERROR },
        { NGHTTP2_WINDOW_UPDATE, 0, 0, BODY("\0\0\0\0"), NGHTTP2_PROTOCOL_ERROR },
        { NGHTTP2_DATA, 0, 0, BODY("x"), NGHTTP2_PROTOCOL_ERROR },
        { NGHTTP2_DATA, 0, 7, BODY("x"), NGHTTP2_PROTOCOL_ERROR },
        { NGHTTP2_CONTINUATION, 0, 1, BODY("x"), NGHTTP2_PROTOCOL_ERROR },
        { NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, BODY("\xff\xff\xff\xff\xff\xff"), NGHTTP2_COMPRESSION_ERROR },
        { NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 2, BODY("\x82"), NGHTTP2_PROTOCOL_ERROR },
        { NGHTTP2_PUSH_PROMISE, NGHTTP2_FLAG_END_HEADERS, 1, BODY("\0\0\0\2\x82"), NGHTTP2_PROTOCOL_ERROR },
    };
    struct raw raw;

    (void)unused;
    for (size_t i = 0; i < COUNT_OF(frames); i++) {
        raw_open(&raw);
        raw_preface(&raw);
        raw_frame(&raw, frames[i].type, frames[i].flags, frames[i].stream, frames[i].payload, frames[i].n);
        for (int k = 0; k < 20 && !raw.closed; k++)
            raw_turn(&raw);
        if (!raw.goaway || !raw.closed || raw.goaway_code != frames[i].code)
            fail_msg("case %zu: goaway %d closed %d code %u", i, raw.goaway, raw.closed, raw.goaway_code);
        raw_close(&raw);
    }
}

/* ---- floods ---- */

static void flood_ping(struct raw *raw, uint32_t round)
{
    (void)round;
    raw_frame(raw, NGHTTP2_PING, 0, 0, "12345678", 8);
}

static void flood_settings(struct raw *raw, uint32_t round)
{
    (void)round;
    raw_frame(raw, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
}

static void flood_empty_data(struct raw *raw, uint32_t round)
{
    if (round == 0)
        raw_headers(raw, 1, CHAT, 0, NULL);
    raw_frame(raw, NGHTTP2_DATA, 0, 1, NULL, 0);
}

static void flood_priority(struct raw *raw, uint32_t round)
{
    raw_frame(raw, NGHTTP2_PRIORITY, 0, 2 * round + 1, "\0\0\0\0\0", 5);
}

static void flood_window_update(struct raw *raw, uint32_t round)
{
    (void)round;
    raw_frame(raw, NGHTTP2_WINDOW_UPDATE, 0, 0, "\0\0\0\1", 4);
}

/* CVE-2023-44487: calls that are reset as soon as they are made. */
static void flood_reset(struct raw *raw, uint32_t round)
{
    raw_headers(raw, 2 * round + 1, CHAT, 0, NULL);
    raw_frame(raw, NGHTTP2_RST_STREAM, 0, 2 * round + 1, "\0\0\0\x08", 4);
}

/* CVE-2025-8671: errors that make the server reset the call itself. */
static void flood_made_reset(struct raw *raw, uint32_t round)
{
    raw_headers(raw, 2 * round + 1, CHAT, 0, NULL);
    raw_frame(raw, NGHTTP2_WINDOW_UPDATE, 0, 2 * round + 1, "\0\0\0\0", 4);
}

static void floods(void **unused)
{
    static void (*const kinds[])(struct raw *raw, uint32_t round) = {
        flood_ping,          flood_settings, flood_empty_data, flood_priority,
        flood_window_update, flood_reset,    flood_made_reset,
    };
    struct raw raw;

    (void)unused;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        raw_open(&raw);
        raw_preface(&raw);
        uint32_t round = 0;
        while (round < 20000 && !raw.closed) {
            kinds[i](&raw, round++);
            if (round % 100 == 0)
                raw_turn(&raw);
        }
        if (!raw.closed)
            fail_msg("flood %zu was endured", i);
        /* Some of it is nobody's fault. */
        if (round < 100)
            fail_msg("flood %zu: cut off after %u rounds, goaway %d", i, round, raw.goaway);
        raw_close(&raw);
    }
}

/* Honest clients ping, too: grpc's bandwidth estimation does so with every round of data. */
static void pings_among_data(void **unused)
{
    struct raw raw;

    (void)unused;
    raw_open(&raw);
    raw_preface(&raw);
    raw_headers(&raw, 1, CHAT, 0, NULL);
    for (int i = 0; i < 5000; i++) {
        raw_frame(&raw, NGHTTP2_DATA, 0, 1, "\0\0\0\0\2\x18\1", 7);
        raw_frame(&raw, NGHTTP2_PING, 0, 0, "12345678", 8);
        if (i % 20 == 0)
            raw_turn(&raw);
    }
    raw_turn(&raw);
    assert_int_equal(raw.pongs, 5000);
    raw_still_works(&raw, 3);
    raw_close(&raw);
}

/* One stream more than announced: refused alone by who has not heard of the limit yet, else a fault of the client. */
static void too_many_streams(void **unused)
{
    struct raw raw;

    (void)unused;
    for (int acknowledged = 0; acknowledged < 2; acknowledged++) {
        raw_open(&raw);
        raw_preface(&raw);
        if (!acknowledged)
            buf_clear(&raw.out);
        for (uint32_t i = 0; i <= H2_STREAMS_MAX; i++) {
            raw_headers(&raw, 2 * i + 1, CHAT, 0, NULL);
            if (i % 100 == 0)
                raw_turn(&raw);
        }
        for (int i = 0; i < 10; i++)
            raw_turn(&raw);
        assert_int_equal(calls, H2_STREAMS_MAX);
        if (acknowledged) {
            assert_int_equal(raw.goaway_code, NGHTTP2_PROTOCOL_ERROR);
            assert_true(raw.closed);
        } else {
            assert_int_equal(raw.resets, 1);
            assert_int_equal(raw.reset_code, NGHTTP2_REFUSED_STREAM);
            assert_false(raw.goaway || raw.closed);
        }
        raw_close(&raw);
        assert_int_equal(cancelled, H2_STREAMS_MAX);
    }
}

/* Messages that are announced large and never finished cannot fill the memory: the call that goes too far is refused. */
static void unfinished_messages(void **unused)
{
    struct raw raw;
    uint8_t *part = xcalloc(1, 16000);
    uint32_t calls_open = 8;
    int rounds = 0;

    (void)unused;
    raw_open(&raw);
    raw_preface(&raw);
    for (uint32_t i = 0; i < calls_open; i++) {
        raw_headers(&raw, 2 * i + 1, ECHO, 0, NULL);
        raw_frame(&raw, NGHTTP2_DATA, 0, 2 * i + 1, "\0\1\0\0\0", 5); /* 16 MiB to come */
    }
    while (raw.answers == 0 && rounds++ < 1100) {
        for (uint32_t i = 0; i < calls_open; i++)
            raw_frame(&raw, NGHTTP2_DATA, 0, 2 * i + 1, part, 16000);
        raw_turn(&raw);
    }
    assert_string_equal(raw.grpc_status, "8");
    assert_non_null(strstr(raw.grpc_message, "unfinished messages"));
    assert_in_range(rounds, RPC_CONN_UNFINISHED_MAX / (16000 * calls_open) - 50, RPC_CONN_UNFINISHED_MAX / (16000 * calls_open) + 50);
    assert_false(raw.closed);
    free(part);
    raw_close(&raw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_calls), cmocka_unit_test(refused_while_sending), cmocka_unit_test(byte_by_byte),
        cmocka_unit_test(large_headers),   cmocka_unit_test(not_http2),             cmocka_unit_test(broken_frames),
        cmocka_unit_test(floods),          cmocka_unit_test(pings_among_data),      cmocka_unit_test(too_many_streams),
        cmocka_unit_test(unfinished_messages),
    };

    log_setup(LOG_ERROR, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
