/* SPDX-License-Identifier: Apache-2.0 */
/* The SPDY/3.1 engine: bytes in, events and bytes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/spdy.h"

/* The two streams "error" and "stdin" for port 80, "hi" and the end on the first, PING 1, GOAWAY: as moby/spdystream 0.5.1, a
 * client, writes them. */
static const uint8_t moby[] = {
    0x80, 0x03, 0x00, 0x01, 0x00, 0x00, 0x00, 0x30, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x78, 0xf9,
    0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0xe5, 0x0e, 0x70, 0x3a, 0x2b, 0x29, 0x4a, 0x4d, 0xcc, 0x85, 0x16, 0x25, 0xac, 0xa9, 0xa0,
    0x80, 0x86, 0x14, 0xcb, 0x45, 0xa0, 0x24, 0xcc, 0x64, 0x61, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0x80, 0x03, 0x00, 0x01,
    0x00, 0x00, 0x00, 0x19, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xc2, 0xae, 0xb0, 0xb8, 0x24, 0x25,
    0x33, 0x0f, 0x55, 0x21, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x01, 0x01, 0x00, 0x00, 0x02, 0x68, 0x69, 0x80,
    0x03, 0x00, 0x06, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x01, 0x80, 0x03, 0x00, 0x07, 0x00, 0x00, 0x00, 0x08, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

/* An engine and a peer of no brains: its frames are built here. */
struct bench {
    struct spdy spdy;
    struct spdy_headers codec; /* the peer's */
    struct buf in;
    size_t used;
    struct spdy_event event;
    struct status err;
};

static void put_u32(struct buf *b, size_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        buf_append_byte(b, (uint8_t)(value >> shift));
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void bench_open(struct bench *b, bool server)
{
    *b = (struct bench){ 0 };
    spdy_init(&b->spdy, server);
    buf_clear(&b->spdy.out);
}

static void bench_close(struct bench *b)
{
    spdy_free(&b->spdy);
    spdy_headers_free(&b->codec);
    buf_free(&b->in);
}

static void put_control(struct bench *b, unsigned type, unsigned flags, const void *p, size_t n)
{
    put_u32(&b->in, 0x80030000u | type);
    put_u32(&b->in, (size_t)flags << 24 | n);
    buf_append(&b->in, p, n);
}

static void put_numbers(struct bench *b, unsigned type, size_t a, size_t c)
{
    put_u32(&b->in, 0x80030000u | type);
    put_u32(&b->in, 8);
    put_u32(&b->in, a);
    put_u32(&b->in, c);
}

static void put_data(struct bench *b, uint32_t id, bool fin, const char *text)
{
    put_u32(&b->in, id);
    put_u32(&b->in, (fin ? 1u << 24 : 0) | strlen(text));
    buf_append(&b->in, text, strlen(text));
}

static void put_syn_flags(struct bench *b, uint32_t id, unsigned flags, const struct http_header *headers, size_t count)
{
    cleanup_buf struct buf payload = BUF_INIT;

    put_u32(&payload, id);
    put_u32(&payload, 0);
    buf_append(&payload, "\0\0", 2);
    spdy_headers_encode(&b->codec, headers, count, &payload);
    put_control(b, 1, flags, payload.p, payload.n);
}

static void put_syn(struct bench *b, uint32_t id)
{
    const struct http_header headers[] = { { "streamtype", "data" } };

    put_syn_flags(b, id, 0, headers, 1);
}

/* A SYN_STREAM with this block, before compression. */
static void put_syn_block(struct bench *b, uint32_t id, const void *block, size_t n)
{
    cleanup_buf struct buf payload = BUF_INIT, none = BUF_INIT;
    z_stream *z = &b->codec.deflater;

    spdy_headers_encode(&b->codec, NULL, 0, &none); /* begins the stream; */
    put_syn_flags(b, id, 0, NULL, 0);               /* never sent */
    buf_clear(&b->in);
    b->used = 0;
    put_u32(&payload, id);
    put_u32(&payload, 0);
    buf_append(&payload, "\0\0", 2);
    deflateReset(z);
    z->next_in = (Bytef *)(uintptr_t)block;
    z->avail_in = (uInt)n;
    do {
        z->next_out = buf_reserve(&payload, 4096);
        z->avail_out = 4096;
        deflate(z, Z_SYNC_FLUSH);
        payload.n += 4096 - z->avail_out;
    } while (z->avail_out == 0);
    put_control(b, 1, 0, payload.p, payload.n);
}

static enum spdy_event_type next(struct bench *b)
{
    struct str in = { "", 0 };

    if (b->used < b->in.n)
        in = (struct str){ (const char *)b->in.p + b->used, b->in.n - b->used };
    spdy_next(&b->spdy, &in, &b->event, &b->err);
    b->used = b->in.n - in.n;
    return b->event.type;
}

#define expect(b, what) assert_int_equal(next(b), what)

/* What was answered is exactly one control frame of that type with these two numbers. */
static void expect_answer(struct bench *b, unsigned type, uint32_t first, uint32_t second)
{
    const struct buf *out = &b->spdy.out;

    assert_int_equal(out->n, 16);
    assert_int_equal(get_u32(out->p), 0x80030000u | type);
    assert_int_equal(get_u32(out->p + 4), 8);
    assert_int_equal(get_u32(out->p + 8), first);
    assert_int_equal(get_u32(out->p + 12), second);
    buf_clear(&b->spdy.out);
}

static void expect_no_answer(const struct bench *b)
{
    assert_int_equal(b->spdy.out.n, 0);
}

/* The peer opened `id`, and we took it. */
static void open_stream(struct bench *b, struct spdy_stream *stream, uint32_t id)
{
    put_syn(b, id);
    expect(b, SPDY_OPENED);
    assert_int_equal(b->event.id, id);
    spdy_accept(&b->spdy, stream);
    spdy_reply(&b->spdy, stream);
    buf_clear(&b->spdy.out);
}

/* ---- */

static void test_greeting(void **state)
{
    struct spdy s;

    (void)state;
    spdy_init(&s, true);
    assert_int_equal(s.out.n, 36);
    assert_memory_equal(s.out.p, "\x80\x03\0\x04\0\0\0\x0c\0\0\0\x01\0\0\0\x07", 16); /* SETTINGS, one: initial window */
    assert_int_equal(get_u32(s.out.p + 16), SPDY_STREAM_WINDOW);
    assert_memory_equal(s.out.p + 20, "\x80\x03\0\x09\0\0\0\x08\0\0\0\0", 12); /* WINDOW_UPDATE of the connection */
    assert_int_equal(get_u32(s.out.p + 32), SPDY_SESSION_WINDOW - 65536);
    spdy_free(&s);
}

/* What a real peer writes, whole and byte by byte. */
static void test_moby(void **state)
{
    (void)state;
    for (size_t step = 1; step <= sizeof moby; step += sizeof moby - 1) {
        struct spdy_stream streams[2] = { { 0 } };
        cleanup_buf struct buf text = BUF_INIT, events = BUF_INIT;
        struct bench b;
        bench_open(&b, true);
        for (size_t at = 0; at < sizeof moby;) {
            buf_append(&b.in, moby + at, step);
            at += step;
            while (next(&b) != SPDY_MORE) {
                buf_append_byte(&events, (uint8_t)('0' + b.event.type));
                if (b.event.type == SPDY_OPENED) {
                    struct spdy_stream *stream = &streams[b.event.id / 2];
                    assert_int_equal(b.event.header_count, 2);
                    for (size_t i = 0; i < 2; i++)
                        buf_printf(&text, "%s=%s ", b.event.headers[i].name, b.event.headers[i].value);
                    spdy_accept(&b.spdy, stream);
                    spdy_reply(&b.spdy, stream);
                }
                if (b.event.type == SPDY_DATA)
                    buf_append(&text, b.event.piece.p, b.event.piece.n);
            }
        }
        assert_non_null(strstr(buf_cstr(&text), "streamtype=error "));
        assert_non_null(strstr(buf_cstr(&text), "streamtype=stdin "));
        assert_true(str_ends(buf_cstr(&text), "hi"));
        assert_true(streams[0].remote_ended && !streams[1].remote_ended);
        /* The last answer is to its PING. */
        assert_memory_equal(b.spdy.out.p + b.spdy.out.n - 12, "\x80\x03\0\x06\0\0\0\x04\0\0\0\x01", 12);
        bench_close(&b);
    }
}

/* Two of ours. */
static void test_both_ends(void **state)
{
    const struct http_header headers[] = { { "StreamType", "a" }, { "x", "1" }, { "x", "" }, { "x", "3" }, { "y", "\xc3\xa4" } };
    struct spdy_stream ours = { 0 }, theirs = { 0 };
    struct bench client, server;
    uint8_t head[SPDY_HEAD_SIZE];

    (void)state;
    bench_open(&client, false);
    bench_open(&server, true);
    assert_true(spdy_open(&client.spdy, &ours, headers, COUNT_OF(headers)));
    assert_int_equal(spdy_sendable(&client.spdy, &ours), 0);
    /* The compression announces the dictionary by its checksum (section 2.6.10.1). */
    assert_memory_equal(client.spdy.out.p + 20, "\xe3\xc6\xa7\xc2", 4);
    buf_append(&server.in, client.spdy.out.p, client.spdy.out.n);
    expect(&server, SPDY_OPENED);
    assert_int_equal(server.event.header_count, COUNT_OF(headers));
    assert_string_equal(server.event.headers[0].name, "streamtype");
    for (size_t i = 1; i < COUNT_OF(headers); i++) {
        assert_string_equal(server.event.headers[i].name, headers[i].name);
        assert_string_equal(server.event.headers[i].value, headers[i].value);
    }
    spdy_accept(&server.spdy, &theirs);
    spdy_reply(&server.spdy, &theirs);
    buf_append(&client.in, server.spdy.out.p, server.spdy.out.n);
    expect(&client, SPDY_REPLIED);
    assert_ptr_equal(client.event.stream, &ours);
    assert_true(spdy_sendable(&client.spdy, &ours) == SIZE_MAX);
    spdy_data_head(&client.spdy, &ours, 3, true, head);
    assert_memory_equal(head, "\0\0\0\x01\x01\0\0\x03", 8);
    buf_append(&server.in, head, sizeof head);
    buf_append(&server.in, "abc", 3);
    expect(&server, SPDY_DATA);
    assert_memory_equal(server.event.piece.p, "abc", 3);
    expect(&server, SPDY_END);
    expect(&server, SPDY_MORE);
    assert_int_equal(spdy_sendable(&client.spdy, &ours), 0);
    bench_close(&client);
    bench_close(&server);
}

static void test_send_window(void **state)
{
    static const uint8_t settings[] = { 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 100 };
    struct spdy_stream stream = { 0 };
    uint8_t head[SPDY_HEAD_SIZE];
    struct bench b;

    (void)state;
    bench_open(&b, true);
    open_stream(&b, &stream, 1);
    spdy_data_head(&b.spdy, &stream, 70000, false, head);
    assert_true(spdy_sendable(&b.spdy, &stream) == SIZE_MAX);
    /* From its first word about windows on all of them count, and what was sent before, too. */
    put_control(&b, 4, 0, settings, sizeof settings);
    expect(&b, SPDY_WINDOW);
    assert_null(b.event.stream);
    assert_int_equal(spdy_sendable(&b.spdy, &stream), 0);
    put_numbers(&b, 9, 0, 5000);
    put_numbers(&b, 9, 1, 70001);
    expect(&b, SPDY_WINDOW);
    assert_null(b.event.stream);
    expect(&b, SPDY_WINDOW);
    assert_ptr_equal(b.event.stream, &stream);
    assert_int_equal(spdy_sendable(&b.spdy, &stream), 101); /* 100 - 70000 + 70001 */
    put_numbers(&b, 9, 1, 10000);
    expect(&b, SPDY_WINDOW);
    assert_int_equal(spdy_sendable(&b.spdy, &stream), 65536 + 5000 - 70000);
    put_numbers(&b, 9, 99, 1); /* of a stream that is gone */
    expect(&b, SPDY_MORE);
    expect_no_answer(&b);
    put_numbers(&b, 9, 1, 0x7fffffff);
    expect(&b, SPDY_RESET);
    assert_int_equal(b.event.status, SPDY_RESET_FLOW_CONTROL_ERROR);
    expect_answer(&b, 3, 1, SPDY_RESET_FLOW_CONTROL_ERROR);
    put_numbers(&b, 9, 0, 0x7fffffff);
    expect(&b, SPDY_ERROR);
    expect_answer(&b, 7, 1, SPDY_GOAWAY_PROTOCOL_ERROR);
    bench_close(&b);
}

static void test_receive_window(void **state)
{
    struct spdy_stream stream = { 0 };
    struct bench b;

    (void)state;
    bench_open(&b, true);
    open_stream(&b, &stream, 1);
    spdy_consumed(&b.spdy, &stream, SPDY_STREAM_WINDOW / 2 - 1);
    expect_no_answer(&b);
    spdy_consumed(&b.spdy, &stream, 1);
    expect_answer(&b, 9, 1, SPDY_STREAM_WINDOW / 2);
    bench_close(&b);
}

/* What concerns one stream costs that stream. */
static void test_stream_errors(void **state)
{
    struct spdy_stream one = { 0 }, three = { 0 }, ours = { 0 };
    struct bench b;

    (void)state;
    bench_open(&b, true);
    open_stream(&b, &one, 1);
    open_stream(&b, &three, 3);
    put_data(&b, 5, false, "to nobody");
    expect(&b, SPDY_MORE);
    expect_answer(&b, 3, 5, SPDY_RESET_INVALID_STREAM);
    put_data(&b, 2, true, "to nobody of ours");
    expect(&b, SPDY_MORE);
    expect_answer(&b, 3, 2, SPDY_RESET_INVALID_STREAM);
    put_syn(&b, 1); /* twice */
    expect(&b, SPDY_RESET);
    assert_ptr_equal(b.event.stream, &one);
    expect_answer(&b, 3, 1, SPDY_RESET_PROTOCOL_ERROR);
    put_data(&b, 1, true, "was on its way");
    expect(&b, SPDY_MORE);
    expect_no_answer(&b);
    put_syn(&b, 1); /* out of order */
    expect(&b, SPDY_MORE);
    expect_answer(&b, 3, 1, SPDY_RESET_PROTOCOL_ERROR);
    put_data(&b, 3, true, "");
    expect(&b, SPDY_END);
    put_data(&b, 3, false, "after the end");
    expect(&b, SPDY_RESET);
    assert_ptr_equal(b.event.stream, &three);
    expect_answer(&b, 3, 3, SPDY_RESET_STREAM_ALREADY_CLOSED);
    expect(&b, SPDY_MORE);
    assert_true(spdy_open(&b.spdy, &ours, NULL, 0));
    buf_clear(&b.spdy.out);
    put_data(&b, 2, false, "before the reply");
    expect(&b, SPDY_RESET);
    expect_answer(&b, 3, 2, SPDY_RESET_PROTOCOL_ERROR);
    expect(&b, SPDY_MORE);
    assert_int_equal(spdy_stream_count(&b.spdy), 0);
    bench_close(&b);
}

static void test_peer_resets(void **state)
{
    struct spdy_stream one = { 0 }, three = { 0 };
    struct bench b;

    (void)state;
    bench_open(&b, true);
    open_stream(&b, &one, 1);
    open_stream(&b, &three, 3);
    put_numbers(&b, 3, 3, SPDY_RESET_CANCEL);
    expect(&b, SPDY_RESET);
    assert_ptr_equal(b.event.stream, &three);
    assert_int_equal(b.err.code, STATUS_CANCELLED);
    put_numbers(&b, 3, 1, SPDY_RESET_REFUSED_STREAM);
    expect(&b, SPDY_RESET);
    assert_int_equal(b.err.code, STATUS_RESOURCE_EXHAUSTED);
    put_numbers(&b, 3, 1, SPDY_RESET_INTERNAL_ERROR);
    expect(&b, SPDY_MORE);
    expect_no_answer(&b);
    bench_close(&b);
}

/* What breaks the connection is answered by GOAWAY with the newest stream, and nothing more is taken. */
static void expect_lost(const void *frame, size_t n, bool server)
{
    struct spdy_stream one = { 0 };
    struct bench b;

    bench_open(&b, server);
    if (server)
        open_stream(&b, &one, 1);
    buf_append(&b.in, frame, n);
    expect(&b, SPDY_ERROR);
    assert_true(b.err.code == STATUS_INVALID_ARGUMENT || b.err.code == STATUS_RESOURCE_EXHAUSTED);
    expect_answer(&b, 7, server ? 1 : 0, SPDY_GOAWAY_PROTOCOL_ERROR);
    put_syn(&b, 3);
    expect(&b, SPDY_MORE);
    expect_no_answer(&b);
    assert_int_equal(b.used, b.in.n);
    bench_close(&b);
}
#define EXPECT_LOST(bytes) expect_lost(bytes, sizeof(bytes) - 1, true)

static void test_connection_errors(void **state)
{
    (void)state;
    EXPECT_LOST("\x80\x02\0\x01\0\0\0\x0a");                              /* another version */
    EXPECT_LOST("\0\0\0\0\0\0\0\x01x");                                   /* data on stream 0 */
    EXPECT_LOST("\x80\x03\0\x01\0\0\0\x0a\0\0\0\0\0\0\0\0\0\0");          /* stream 0 */
    EXPECT_LOST("\x80\x03\0\x01\0\0\0\x0a\0\0\0\x02\0\0\0\0\0\0");        /* a number of ours */
    EXPECT_LOST("\x80\x03\0\x01\0\0\0\x09");                              /* too short */
    EXPECT_LOST("\x80\x03\0\x01\0\xff\xff\xff");                          /* too long */
    EXPECT_LOST("\x80\x03\0\x03\0\0\0\x09");                              /* RST_STREAM of 9 bytes */
    EXPECT_LOST("\x80\x03\0\x06\0\0\0\x08");                              /* PING of 8 */
    EXPECT_LOST("\x80\x03\0\x07\0\0\0\x04");                              /* GOAWAY of SPDY/2 */
    EXPECT_LOST("\x80\x03\0\x09\0\0\0\x04");                              /* WINDOW_UPDATE of 4 */
    EXPECT_LOST("\x80\x03\0\x09\0\0\0\x08\0\0\0\0\0\0\0\0");              /* of nothing */
    EXPECT_LOST("\x80\x03\0\x04\0\0\0\x0c\0\0\0\x02\0\0\0\x07\0\0\0\x01"); /* SETTINGS that claim to be two */
    EXPECT_LOST("\x80\x03\0\x04\0\0\0\x0c\0\0\0\x01\0\0\0\x07\x80\0\0\0"); /* a window of 2^31 */
    EXPECT_LOST("\x80\x03\0\x01\0\0\0\x0e\0\0\0\x03\0\0\0\0\0\0" "\x07unk"); /* not zlib */
    expect_lost("\x80\x03\0\x01\0\0\0\x0a\0\0\0\x03\0\0\0\0\0\0", 18, false); /* a client's number from a server */
}

/* A header block that is whole but says nonsense costs its stream; one that cannot be read, or is too large, the connection. */
static void test_header_blocks(void **state)
{
    static const struct { const char *block; size_t n; } bad[] = {
        { "", 0 },
        { "\0\0\0", 3 },
        { "\0\0\0\x01", 4 },
        { "\0\0\0\x01\0\0\0\x01" "a", 9 },
        { "\0\0\0\x01\0\0\0\xff" "a\0\0\0\0", 13 },
        { "\0\0\0\x01\xff\xff\xff\xff" "a\0\0\0\0", 13 },
        { "\0\0\0\x01\0\0\0\0\0\0\0\x01" "b", 13 },       /* no name */
        { "\0\0\0\x01\0\0\0\x01" "A\0\0\0\x01" "b", 14 }, /* capital */
        { "\0\0\0\x01\0\0\0\x01\0\0\0\0\x01" "b", 14 },   /* a NUL in the name */
        { "\0\0\0\x01\0\0\0\x01" "a\0\0\0\x01\n", 14 },   /* an end of line in the value */
        { "\0\0\0\x01\0\0\0\x01" "a\0\0\0\x01" "bc", 15 }, /* something behind it */
        { "\x7f\xff\xff\xff\0\0\0\x01" "a\0\0\0\x01" "b", 14 },
    };
    struct bench b;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        bench_open(&b, true);
        put_syn_block(&b, 1, bad[i].block, bad[i].n);
        expect(&b, SPDY_MORE);
        expect_answer(&b, 3, 1, SPDY_RESET_PROTOCOL_ERROR);
        put_data(&b, 1, false, "on its way");
        expect(&b, SPDY_MORE);
        expect_no_answer(&b);
        bench_close(&b);
    }
    /* 64 headers are fine, 65 are too many, however they are written. */
    for (size_t count = SPDY_HEADER_COUNT_MAX; count <= SPDY_HEADER_COUNT_MAX + 1; count++) {
        cleanup_buf struct buf block = BUF_INIT;
        put_u32(&block, 1);
        put_u32(&block, 1);
        buf_append_byte(&block, 'a');
        put_u32(&block, count - 1);
        for (size_t i = 1; i < count; i++)
            buf_append_byte(&block, '\0');
        bench_open(&b, true);
        put_syn_block(&b, 1, block.p, block.n);
        expect(&b, count > SPDY_HEADER_COUNT_MAX ? SPDY_MORE : SPDY_OPENED);
        bench_close(&b);
    }
    /* A bomb: a few hundred bytes that inflate to a megabyte. */
    cleanup_free uint8_t *zeros = xcalloc(1, 1 << 20);
    bench_open(&b, true);
    put_syn_block(&b, 1, zeros, 1 << 20);
    assert_true(b.in.n < SPDY_CONTROL_MAX);
    expect(&b, SPDY_ERROR);
    assert_int_equal(b.err.code, STATUS_RESOURCE_EXHAUSTED);
    assert_true(b.spdy.codec.plain.cap <= 4 * SPDY_HEADERS_MAX);
    expect_answer(&b, 7, 0, SPDY_GOAWAY_PROTOCOL_ERROR);
    bench_close(&b);
}

static void test_refuse_and_ignore(void **state)
{
    static const uint8_t big[3000];
    struct bench b;

    (void)state;
    bench_open(&b, true);
    put_control(&b, 11, 0, big, sizeof big); /* not known: skipped */
    put_syn(&b, 1);
    expect(&b, SPDY_OPENED);
    spdy_refuse(&b.spdy, SPDY_RESET_REFUSED_STREAM);
    expect_answer(&b, 3, 1, SPDY_RESET_REFUSED_STREAM);
    put_syn(&b, 3);
    expect(&b, SPDY_OPENED); /* and then the owner forgets it */
    put_data(&b, 3, true, "x");
    expect(&b, SPDY_MORE);
    expect_answer(&b, 3, 3, SPDY_RESET_INTERNAL_ERROR);
    put_numbers(&b, 7, 0, SPDY_GOAWAY_OK);
    expect(&b, SPDY_GOAWAY);
    /* Behind our own GOAWAY nothing is opened or answered any more. */
    spdy_goaway(&b.spdy, SPDY_GOAWAY_OK);
    expect_answer(&b, 7, 3, SPDY_GOAWAY_OK);
    put_syn(&b, 5);
    put_control(&b, 6, 0, "\0\0\0\x05", 4);
    put_data(&b, 7, false, "x");
    expect(&b, SPDY_MORE);
    expect_no_answer(&b);
    bench_close(&b);
}

/* FLAG_FIN: nothing follows. FLAG_UNIDIRECTIONAL: nothing is answered. */
static void test_flags(void **state)
{
    struct spdy_stream one = { 0 }, three = { 0 };
    struct bench b;

    (void)state;
    bench_open(&b, true);
    put_syn_flags(&b, 1, 1, NULL, 0);
    expect(&b, SPDY_OPENED);
    spdy_accept(&b.spdy, &one);
    spdy_reply(&b.spdy, &one);
    expect(&b, SPDY_END);
    assert_ptr_equal(b.event.stream, &one);
    buf_clear(&b.spdy.out);
    put_syn_flags(&b, 3, 2, NULL, 0);
    expect(&b, SPDY_OPENED);
    spdy_accept(&b.spdy, &three);
    spdy_reply(&b.spdy, &three);
    expect_no_answer(&b);
    assert_int_equal(spdy_sendable(&b.spdy, &three), 0);
    assert_true(three.local_ended);
    put_data(&b, 3, true, "x");
    expect(&b, SPDY_DATA);
    expect(&b, SPDY_END);
    bench_close(&b);
}

static void test_ping(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b, false);
    spdy_ping(&b.spdy);
    assert_memory_equal(b.spdy.out.p, "\x80\x03\0\x06\0\0\0\x04\0\0\0\x01", 12);
    buf_clear(&b.spdy.out);
    put_control(&b, 6, 0, "\0\0\0\x02", 4);
    put_control(&b, 6, 0, "\0\0\0\x01", 4);
    expect(&b, SPDY_PONG);
    assert_int_equal(b.event.id, 1);
    assert_memory_equal(b.spdy.out.p, "\x80\x03\0\x06\0\0\0\x04\0\0\0\x02", 12);
    bench_close(&b);
}

static void test_many_streams(void **state)
{
    enum { COUNT = 5000 };
    struct spdy_stream *streams = xcalloc(COUNT, sizeof *streams);
    struct bench b;

    (void)state;
    bench_open(&b, true);
    for (uint32_t i = 0; i < COUNT; i++)
        open_stream(&b, &streams[i], 2 * i + 1);
    assert_int_equal(spdy_stream_count(&b.spdy), COUNT);
    for (uint32_t i = 0; i < COUNT; i += 7) {
        put_data(&b, 2 * i + 1, false, "x");
        expect(&b, SPDY_DATA);
        assert_ptr_equal(b.event.stream, &streams[i]);
    }
    for (uint32_t i = 0; i < COUNT; i += 2)
        spdy_detach(&b.spdy, &streams[i]);
    assert_int_equal(spdy_stream_count(&b.spdy), COUNT / 2);
    expect_no_answer(&b);
    bench_close(&b);
    free(streams);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greeting),      cmocka_unit_test(test_moby),
        cmocka_unit_test(test_both_ends),     cmocka_unit_test(test_send_window),
        cmocka_unit_test(test_receive_window), cmocka_unit_test(test_stream_errors),
        cmocka_unit_test(test_peer_resets),   cmocka_unit_test(test_connection_errors),
        cmocka_unit_test(test_header_blocks), cmocka_unit_test(test_refuse_and_ignore),
        cmocka_unit_test(test_flags),         cmocka_unit_test(test_ping),
        cmocka_unit_test(test_many_streams),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
