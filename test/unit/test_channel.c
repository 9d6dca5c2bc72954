/* SPDX-License-Identifier: Apache-2.0 */
/* Channels over all their carriers: two ends of ours against each other. */
#include "channel_pair.h"

static const enum channel_carrier carriers[] = { CHANNEL_SPDY, CHANNEL_WEBSOCKET, CHANNEL_WEBSOCKET_BASE64,
                                                 CHANNEL_WEBSOCKET_SPDY };

static bool is_spdy(const struct pair *pair)
{
    return pair->options.carrier == CHANNEL_SPDY || pair->options.carrier == CHANNEL_WEBSOCKET_SPDY;
}

static struct pair pair_of(enum channel_carrier carrier)
{
    struct pair pair = { .options.carrier = carrier };

    if (!is_spdy(&pair)) {
        pair.options.channel_count = 5;
        pair.options.close_signals = carrier == CHANNEL_WEBSOCKET;
    }
    pair.server.keep = pair.client.keep = true;
    return pair;
}

/* A channel of the client's with that number; opened if need be. */
static struct ear *client_channel(struct pair *pair, size_t i)
{
    const struct http_header headers[] = { { "Streamtype", "data" }, { "port", "80" } };
    struct ear *ear = &pair->client.ears[i];

    if (is_spdy(pair)) {
        ear_listen(ear, &pair->client, channel_open(pair->client.conn, headers, COUNT_OF(headers)));
        pair->client.count++;
    }
    return ear;
}

static void assert_heard(const struct ear *ear, const char *text)
{
    assert_int_equal(ear->heard.n, strlen(text));
    assert_memory_equal(ear->heard.p, text, strlen(text));
}

static void send_text(struct ear *ear, const char *text)
{
    assert_true(channel_send(ear->channel, text, strlen(text)));
}

static void test_talk(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(carriers); i++) {
        struct pair pair = pair_of(carriers[i]);
        pair_open(&pair);
        struct ear *a = client_channel(&pair, 0), *b = client_channel(&pair, 1);
        send_text(b, "bee");
        send_text(a, "hel");
        send_text(a, "lo");
        pair_until(&pair, pair.server.count >= 2 && pair.server.ears[0].heard.n == 5 && pair.server.ears[1].heard.n == 3);
        assert_heard(&pair.server.ears[0], "hello");
        assert_heard(&pair.server.ears[1], "bee");
        if (is_spdy(&pair))
            assert_string_equal(pair.server.ears[0].header, "data");
        send_text(&pair.server.ears[0], "answer");
        pair_until(&pair, a->heard.n == 6);
        assert_heard(a, "answer");
        assert_int_equal(b->heard.n, 0);
        pair_close(&pair);
    }
}

/* Both ways end by themselves; then the channel is gone, and others are not. */
static void test_half_close(void **state)
{
    static const enum channel_carrier some[] = { CHANNEL_SPDY, CHANNEL_WEBSOCKET_SPDY };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(some); i++) {
        struct pair pair = pair_of(some[i]);
        pair_open(&pair);
        struct ear *a = client_channel(&pair, 0), *b = client_channel(&pair, 1);
        send_text(a, "question");
        channel_end(a->channel);
        pair_until(&pair, pair.server.count == 2 && pair.server.ears[0].ended);
        assert_heard(&pair.server.ears[0], "question");
        assert_false(a->gone || a->ended || pair.server.ears[0].gone);
        send_text(&pair.server.ears[0], "answer");
        channel_end(pair.server.ears[0].channel);
        pair_until(&pair, a->gone && pair.server.ears[0].gone);
        assert_true(a->ended && !a->failed && !pair.server.ears[0].failed);
        assert_heard(a, "answer");
        assert_int_equal(channel_conn_active(pair.client.conn), 1);
        assert_int_equal(channel_conn_active(pair.server.conn), 1);
        assert_false(b->gone);
        pair_close(&pair);
    }
}

/* v5.channel.k8s.io: a client ends one channel by its number; a server says nothing. */
static void test_close_signal(void **state)
{
    struct pair pair = pair_of(CHANNEL_WEBSOCKET);

    (void)state;
    pair_open(&pair);
    send_text(&pair.client.ears[0], "input");
    channel_end(pair.client.ears[0].channel);
    pair_until(&pair, pair.server.ears[0].ended);
    assert_heard(&pair.server.ears[0], "input");
    channel_end(pair.server.ears[1].channel);
    send_text(&pair.server.ears[2], "more");
    pair_until(&pair, pair.client.ears[2].heard.n == 4);
    assert_false(pair.client.ears[1].ended || pair.client.ears[255 % EARS_MAX].ended);
    channel_end(pair.server.ears[0].channel);
    pair_until(&pair, pair.server.ears[0].gone);
    assert_null(channel_number(pair.server.conn, 0));
    assert_non_null(channel_number(pair.server.conn, 1));
    pair_close(&pair);
}

/* Everything that was sent arrives although the connection was closed right behind it, and although the other end goes on
 * sending. */
static void test_close_delivers(void **state)
{
    static uint8_t bytes[3 << 20];

    (void)state;
    for (size_t i = 0; i < 2 * COUNT_OF(carriers); i++) {
        struct pair pair = pair_of(carriers[i / 2]);
        pair.tls = i % 2 == 1;
        pair_open(&pair);
        struct ear *a = client_channel(&pair, 0);
        pair_until(&pair, pair.server.count > 0);
        assert_false(channel_send(pair.server.ears[0].channel, bytes, sizeof bytes));
        channel_conn_close(pair.server.conn);
        assert_true(channel_send(pair.server.ears[0].channel, "late", 4));
        channel_send(a->channel, bytes, 100000);
        pair_until(&pair, pair.client.closed && pair.server.closed);
        assert_int_equal(a->bytes, sizeof bytes);
        assert_int_equal(pair.client.why.code, STATUS_OK);
        assert_int_equal(pair.server.why.code, STATUS_OK);
        assert_true(a->gone && !a->failed && pair.server.ears[0].gone && !pair.server.ears[0].failed);
        pair_close(&pair);
    }
}

/* Back and forth with a queue that fills: nothing is lost, and no end queues more than it should. */
static void test_bulk(void **state)
{
    static uint8_t bytes[48 << 10];

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    for (size_t k = 0; k < 2 * COUNT_OF(carriers); k++) {
        struct pair pair = pair_of(carriers[k / 2]);
        size_t total = 8 << 20, sent = 0, most = 0;
        pair.tls = k % 2 == 1;
        pair.server.echo = true;
        pair.server.keep = false;
        pair_open(&pair);
        struct ear *a = client_channel(&pair, 0);
        a->writable = true;
        while (a->bytes < total) {
            while (a->writable && sent < total) {
                size_t n = sizeof bytes < total - sent ? sizeof bytes : total - sent;
                a->writable = channel_send(a->channel, bytes, n);
                sent += n;
            }
            most = channel_queued(a->channel) > most ? channel_queued(a->channel) : most;
            loop_turn(pair.loop, 1000);
        }
        assert_int_equal(a->heard.n, total);
        for (size_t at = 0; at < total; at += sizeof bytes)
            assert_memory_equal(a->heard.p + at, bytes, sizeof bytes < total - at ? sizeof bytes : total - at);
        assert_true(most <= CHANNEL_SEND_HIGH_WATER + sizeof bytes);
        pair_close(&pair);
    }
}

/* A paused channel stops its peer; with SPDY the others go on. */
static void test_pause(void **state)
{
    static uint8_t bytes[64 << 10];

    (void)state;
    for (size_t k = 0; k < COUNT_OF(carriers); k++) {
        struct pair pair = pair_of(carriers[k]);
        size_t total = 12 << 20, sent = 0;
        pair.server.keep = false;
        pair_open(&pair);
        struct ear *a = client_channel(&pair, 0), *b = client_channel(&pair, 1);
        pair_until(&pair, pair.server.count >= 2);
        pair.server.ears[0].pause_at_once = true;
        a->writable = true;
        for (int quiet = 0; quiet < 20 && sent < total; quiet++) {
            while (a->writable && sent < total) {
                a->writable = channel_send(a->channel, bytes, sizeof bytes);
                sent += sizeof bytes;
                quiet = 0;
            }
            loop_turn(pair.loop, 1);
        }
        assert_true(sent < total);
        assert_true(pair.server.ears[0].bytes <= CHANNEL_READ_SIZE);
        send_text(b, "other");
        if (is_spdy(&pair))
            pair_until(&pair, pair.server.ears[1].bytes == 5);
        pair_settle(&pair);
        pair.server.ears[0].pause_at_once = false;
        channel_pause(pair.server.ears[0].channel, false);
        while (pair.server.ears[0].bytes < total) {
            while (a->writable && sent < total) {
                a->writable = channel_send(a->channel, bytes, sizeof bytes);
                sent += sizeof bytes;
            }
            loop_turn(pair.loop, 1000);
        }
        pair_until(&pair, pair.server.ears[1].bytes == 5);
        pair_close(&pair);
    }
}

static void test_reset(void **state)
{
    struct pair pair = pair_of(CHANNEL_SPDY);

    (void)state;
    pair_open(&pair);
    struct ear *a = client_channel(&pair, 0), *b = client_channel(&pair, 1), *c = client_channel(&pair, 2);
    pair_until(&pair, pair.server.count == 3);
    channel_reset(a->channel);
    assert_true(a->gone && a->failed);
    pair.server.ears[1].reset_at_once = true;
    send_text(b, "x");
    pair_until(&pair, pair.server.ears[0].gone && b->gone);
    assert_int_equal(pair.server.ears[0].err.code, STATUS_CANCELLED);
    assert_int_equal(b->err.code, STATUS_CANCELLED);
    assert_false(c->gone);
    assert_int_equal(channel_conn_active(pair.server.conn), 1);
    pair_close(&pair);
}

/* The peer vanishes without a word. */
static void test_vanish(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2 * COUNT_OF(carriers); k++) {
        struct pair pair = pair_of(carriers[k / 2]);
        pair.tls = k % 2 == 1;
        pair_open(&pair);
        client_channel(&pair, 0);
        pair_until(&pair, pair.server.count > 0);
        pair.server.free_on_close = true;
        end_close(&pair.client);
        pair_until(&pair, pair.server.closed);
        assert_int_equal(pair.server.why.code, STATUS_UNAVAILABLE);
        assert_true(pair.server.ears[0].failed);
        pair_close(&pair);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_talk),  cmocka_unit_test(test_half_close), cmocka_unit_test(test_close_signal),
        cmocka_unit_test(test_bulk),  cmocka_unit_test(test_close_delivers), cmocka_unit_test(test_pause),
        cmocka_unit_test(test_reset), cmocka_unit_test(test_vanish),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
