/* SPDX-License-Identifier: Apache-2.0 */
/* The WebSocket engine: bytes in, events and bytes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/websocket.h"

struct bench {
    struct websocket ws;
    struct buf in;
    size_t used;
    struct websocket_event event;
    struct status err;
};

static void bench_open(struct bench *b, bool client)
{
    *b = (struct bench){ 0 };
    websocket_init(&b->ws, client);
}

static void bench_close(struct bench *b)
{
    websocket_free(&b->ws);
    buf_free(&b->in);
}

static void put(struct bench *b, const void *p, size_t n)
{
    buf_append(&b->in, p, n);
}
#define PUT(b, bytes) put(b, bytes, sizeof(bytes) - 1)

/* A frame whose payload is masked if the peer is a client. `first`: FIN, reserved bits and opcode. */
static void put_frame(struct bench *b, unsigned first, const void *p, size_t n)
{
    uint8_t head[WEBSOCKET_HEAD_MAX], key[4];
    struct websocket peer;

    websocket_init(&peer, !b->ws.client);
    size_t head_n = websocket_head(&peer, WEBSOCKET_TEXT, n, head, key);
    head[0] = (uint8_t)first;
    put(b, head, head_n);
    put(b, p, n);
    websocket_mask(key, 0, b->in.p + b->in.n - n, n);
}

static enum websocket_event_type next(struct bench *b)
{
    struct str in = { "", 0 };

    if (b->used < b->in.n)
        in = (struct str){ (const char *)b->in.p + b->used, b->in.n - b->used };
    websocket_next(&b->ws, &in, &b->event, &b->err);
    b->used = b->in.n - in.n;
    return b->event.type;
}

#define expect(b, what) assert_int_equal(next(b), what)

static void expect_data(struct bench *b, const char *text, bool first, bool last, bool is_text)
{
    expect(b, WEBSOCKET_DATA);
    assert_int_equal(b->event.piece.n, strlen(text));
    assert_memory_equal(b->event.piece.p, text, strlen(text));
    assert_int_equal(b->event.first, first);
    assert_int_equal(b->event.last, last);
    assert_int_equal(b->event.text, is_text);
}

static void expect_out(struct bench *b, const void *p, size_t n)
{
    assert_int_equal(b->ws.out.n, n);
    if (n > 0)
        assert_memory_equal(b->ws.out.p, p, n);
    buf_clear(&b->ws.out);
}
#define EXPECT_OUT(b, bytes) expect_out(b, bytes, sizeof(bytes) - 1)

/* The examples of RFC 6455 section 5.7. */
static void test_rfc(void **state)
{
    struct bench server, client;

    (void)state;
    bench_open(&client, true);
    PUT(&client, "\x81\x05Hello\x01\x03Hel\x80\x02lo\x89\x05Hello\x82\x7e\x01\0");
    expect_data(&client, "Hello", true, true, true);
    expect_data(&client, "Hel", true, false, true);
    expect_data(&client, "lo", false, true, true);
    expect(&client, WEBSOCKET_MORE);
    assert_int_equal(client.ws.out.n, 11); /* the pong, masked */
    websocket_mask(client.ws.out.p + 2, 0, client.ws.out.p + 6, 5);
    assert_memory_equal(client.ws.out.p, "\x8a\x85", 2);
    assert_memory_equal(client.ws.out.p + 6, "Hello", 5);
    bench_close(&client);
    bench_open(&server, false);
    PUT(&server, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    expect_data(&server, "Hello", true, true, true);
    expect(&server, WEBSOCKET_PONGED);
    expect(&server, WEBSOCKET_MORE);
    expect_out(&server, "", 0);
    bench_close(&server);
}

static void test_handshake(void **state)
{
    char accept[WEBSOCKET_ACCEPT_SIZE], key[WEBSOCKET_KEY_SIZE], other[WEBSOCKET_KEY_SIZE];

    (void)state;
    websocket_accept("dGhlIHNhbXBsZSBub25jZQ==", accept); /* section 1.3 */
    assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_true(websocket_key_valid("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_false(websocket_key_valid(""));
    assert_false(websocket_key_valid("dGhlIHNhbXBsZSBub25jZQ"));
    assert_false(websocket_key_valid("dGhlIHNhbXBsZSBub25jZQ=\n"));
    assert_false(websocket_key_valid("dGhlIHNhbXBsZSBub25jZSE="));
    websocket_make_key(key);
    websocket_make_key(other);
    assert_true(websocket_key_valid(key));
    assert_string_not_equal(key, other);
}

/* Every length's form, both ways, in any cut. */
static void test_lengths(void **state)
{
    static const size_t lengths[] = { 0, 1, 125, 126, 127, 65535, 65536, 70000 };
    static uint8_t bytes[70000];

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i % 251);
    for (size_t step = 1; step < 2 * sizeof bytes; step = step * 7 + 1) {
        for (size_t k = 0; k < 2 * COUNT_OF(lengths); k++) {
            size_t n = lengths[k / 2];
            cleanup_buf struct buf all = BUF_INIT, got = BUF_INIT;
            bool first = true, last = false;
            struct bench b;
            bench_open(&b, k % 2 == 0);
            put_frame(&b, 0x82, bytes, n);
            buf_append(&all, b.in.p, b.in.n);
            buf_clear(&b.in);
            for (size_t at = 0; at < all.n; at += step) {
                put(&b, all.p + at, step < all.n - at ? step : all.n - at);
                while (next(&b) != WEBSOCKET_MORE) {
                    assert_int_equal(b.event.type, WEBSOCKET_DATA);
                    assert_int_equal(b.event.first, first);
                    assert_false(last);
                    first = false;
                    last = b.event.last;
                    buf_append(&got, b.event.piece.p, b.event.piece.n);
                }
            }
            assert_true(last);
            assert_int_equal(got.n, n);
            if (n > 0)
                assert_memory_equal(got.p, bytes, n);
            bench_close(&b);
        }
    }
}

/* Control frames between fragments; empty fragments; a message in many pieces. */
static void test_fragments(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b, false);
    put_frame(&b, 0x02, "", 0);
    put_frame(&b, 0x89, "p", 1);
    put_frame(&b, 0x00, "one", 3);
    put_frame(&b, 0x8a, "", 0);
    put_frame(&b, 0x00, "", 0);
    put_frame(&b, 0x80, "", 0);
    put_frame(&b, 0x81, "", 0);
    expect_data(&b, "one", true, false, false);
    EXPECT_OUT(&b, "\x8a\x01p");
    expect(&b, WEBSOCKET_PONGED);
    expect_data(&b, "", false, true, false);
    expect_data(&b, "", true, true, true);
    expect(&b, WEBSOCKET_MORE);
    bench_close(&b);
}

/* The engine says why, closes with the code, and takes no more. */
static void expect_fault(const void *p, size_t n, bool client, unsigned code)
{
    struct bench b;

    bench_open(&b, client);
    put(&b, p, n);
    while (next(&b) == WEBSOCKET_DATA)
        continue;
    assert_int_equal(b.event.type, WEBSOCKET_ERROR);
    assert_int_equal(b.err.code, STATUS_INVALID_ARGUMENT);
    const uint8_t *out = b.ws.out.p;
    size_t head = client ? 6 : 2;
    if (client)
        websocket_mask(out + 2, 0, b.ws.out.p + 6, b.ws.out.n - 6);
    assert_true(b.ws.out.n > head + 2 && b.ws.out.n <= head + WEBSOCKET_CONTROL_MAX);
    assert_int_equal(out[0], 0x88);
    assert_int_equal(out[head] << 8 | out[head + 1], code);
    buf_clear(&b.ws.out);
    PUT(&b, "\x89\x80\0\0\0\0");
    expect(&b, WEBSOCKET_MORE);
    assert_int_equal(b.used, b.in.n);
    expect_out(&b, "", 0);
    bench_close(&b);
}
#define SERVER_FAULT(bytes, code) expect_fault(bytes, sizeof(bytes) - 1, false, code)
#define CLIENT_FAULT(bytes, code) expect_fault(bytes, sizeof(bytes) - 1, true, code)

static void test_faults(void **state)
{
    (void)state;
    SERVER_FAULT("\x82\x01x", 1002);                              /* a client that does not mask */
    CLIENT_FAULT("\x82\x81\0\0\0\0x", 1002);                      /* a server that does */
    SERVER_FAULT("\xc2\x81\0\0\0\0x", 1002);                      /* reserved bits */
    SERVER_FAULT("\xa2\x81\0\0\0\0x", 1002);
    SERVER_FAULT("\x92\x81\0\0\0\0x", 1002);
    SERVER_FAULT("\x83\x81\0\0\0\0x", 1002);                      /* opcodes that there are not */
    SERVER_FAULT("\x8f\x80\0\0\0\0", 1002);
    SERVER_FAULT("\x80\x80\0\0\0\0", 1002);                       /* a continuation of nothing */
    SERVER_FAULT("\x02\x81\0\0\0\0x\x82\x81\0\0\0\0x", 1002);     /* a message within a message */
    SERVER_FAULT("\x82\x81\0\0\0\0x\x80\x80\0\0\0\0", 1002);      /* a continuation after the end */
    SERVER_FAULT("\x09\x80\0\0\0\0", 1002);                       /* a control frame in fragments */
    SERVER_FAULT("\x89\xfe\0\x7e\0\0\0\0", 1002);                 /* one of 126 bytes */
    SERVER_FAULT("\x88\xff\0\0\0\0\0\x01\0\0\0\0\0\0", 1002);     /* ... of 65536 */
    SERVER_FAULT("\x82\xfe\0\x7d\0\0\0\0", 1002);                 /* a length that is longer than need be */
    SERVER_FAULT("\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", 1002);
    SERVER_FAULT("\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", 1002);     /* 2^63 bytes */
    SERVER_FAULT("\x88\x81\0\0\0\0x", 1002);                      /* half a code */
    SERVER_FAULT("\x88\x82\0\0\0\0\x03\xe7", 1002);               /* 999 */
    SERVER_FAULT("\x88\x82\0\0\0\0\x03\xed", 1002);               /* 1005, which is never sent */
    SERVER_FAULT("\x88\x82\0\0\0\0\x13\x88", 1002);               /* 5000 */
    SERVER_FAULT("\x88\x83\0\0\0\0\x03\xe8\xff", 1007);           /* a reason that is no text */
}

static void test_close(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b, false);
    put_frame(&b, 0x88, "\x03\xe8" "bye", 5);
    put_frame(&b, 0x89, "", 0);
    expect(&b, WEBSOCKET_CLOSED);
    assert_int_equal(b.event.code, 1000);
    assert_memory_equal(b.event.piece.p, "bye", 3);
    EXPECT_OUT(&b, "\x88\x02\x03\xe8");
    expect(&b, WEBSOCKET_MORE);
    expect_out(&b, "", 0);
    bench_close(&b);
    /* Without a code, the answer has none. */
    bench_open(&b, false);
    put_frame(&b, 0x88, "", 0);
    expect(&b, WEBSOCKET_CLOSED);
    assert_int_equal(b.event.code, WEBSOCKET_NO_CODE);
    EXPECT_OUT(&b, "\x88\0");
    bench_close(&b);
    /* Ours first: then nothing more is said, also not when the answer comes. */
    bench_open(&b, false);
    websocket_close(&b.ws, WEBSOCKET_NORMAL, "");
    EXPECT_OUT(&b, "\x88\x02\x03\xe8");
    put_frame(&b, 0x89, "", 0);
    put_frame(&b, 0x82, "late", 4);
    put_frame(&b, 0x88, "\x03\xe8", 2);
    expect_data(&b, "late", true, true, false);
    expect(&b, WEBSOCKET_CLOSED);
    expect_out(&b, "", 0);
    bench_close(&b);
}

/* A reason that is too long is cut between characters. */
static void test_long_reason(void **state)
{
    struct bench b;
    char reason[200] = "a";

    (void)state;
    for (size_t i = 1; i + 2 < sizeof reason; i += 2)
        memcpy(reason + i, "\xc3\xa4", 2);
    bench_open(&b, false);
    websocket_close(&b.ws, WEBSOCKET_INTERNAL_ERROR, reason);
    assert_int_equal(b.ws.out.n, 2 + WEBSOCKET_CONTROL_MAX);
    assert_memory_equal(b.ws.out.p, "\x88\x7d\x03\xf3" "a", 5);
    bench_close(&b);
    bench_open(&b, false);
    websocket_close(&b.ws, WEBSOCKET_INTERNAL_ERROR, reason + 1);
    assert_int_equal(b.ws.out.n, 2 + WEBSOCKET_CONTROL_MAX - 1);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc),    cmocka_unit_test(test_handshake), cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_fragments), cmocka_unit_test(test_faults), cmocka_unit_test(test_close),
        cmocka_unit_test(test_long_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
