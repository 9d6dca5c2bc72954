/* SPDX-License-Identifier: Apache-2.0 */
/* Channels against peers that mean no good, or know no better: raw bytes on the other end of a socket pair. */
#include "channel_pair.h"

#include "http/channel_internal.h"

/* The far end: what it wrote and read. */
struct raw {
    struct pair pair;
    struct spdy_headers codec;
    struct buf out; /* to be written from `sent` on */
    size_t sent;
    struct buf in; /* what we answered */
    bool reads, eof;
    int fd;
};

static void raw_open(struct raw *r, enum channel_carrier carrier)
{
    r->pair.options.carrier = carrier;
    if (carrier == CHANNEL_WEBSOCKET || carrier == CHANNEL_WEBSOCKET_BASE64)
        r->pair.options.channel_count = 3;
    r->reads = true;
    r->pair.server.keep = true;
    r->fd = pair_open_raw(&r->pair, &r->pair.server, false);
}

static void raw_close(struct raw *r)
{
    if (r->fd >= 0)
        close(r->fd);
    end_close(&r->pair.server);
    loop_free(r->pair.loop);
    spdy_headers_free(&r->codec);
    buf_free(&r->out);
    buf_free(&r->in);
}

/* One turn; false when nothing could be written or read. */
static bool raw_turn(struct raw *r)
{
    uint8_t bytes[16384];
    bool moved = false;
    ssize_t n;

    if (r->sent < r->out.n && (n = send(r->fd, r->out.p + r->sent, r->out.n - r->sent, MSG_NOSIGNAL)) > 0) {
        r->sent += (size_t)n;
        moved = true;
    }
    loop_turn(r->pair.loop, 1);
    while (r->reads && (n = recv(r->fd, bytes, sizeof bytes, 0)) >= 0) {
        if (n == 0) {
            r->eof = true;
            break;
        }
        buf_append(&r->in, bytes, (size_t)n);
        moved = true;
    }
    return moved;
}

static void raw_settle(struct raw *r)
{
    for (int quiet = 0; quiet < 30; quiet++)
        if (raw_turn(r))
            quiet = 0;
}

#define raw_until(r, condition)                                                                                        \
    do {                                                                                                               \
        int64_t until_ = clock_mono_ms() + 20000;                                                                      \
        while (!(condition)) {                                                                                         \
            if (clock_mono_ms() > until_)                                                                              \
                fail_msg("did not come: %s", #condition);                                                              \
            raw_turn(r);                                                                                               \
        }                                                                                                              \
    } while (0)

static void put_u32(struct buf *b, size_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        buf_append_byte(b, (uint8_t)(value >> shift));
}

static void put_syn(struct raw *r, uint32_t id)
{
    const struct http_header headers[] = { { "streamtype", "data" } };
    cleanup_buf struct buf payload = BUF_INIT;

    put_u32(&payload, id);
    put_u32(&payload, 0);
    buf_append(&payload, "\0\0", 2);
    spdy_headers_encode(&r->codec, headers, 1, &payload);
    put_u32(&r->out, 0x80030001u);
    put_u32(&r->out, payload.n);
    buf_append(&r->out, payload.p, payload.n);
}

static void set_flags(struct raw *r, size_t at, uint8_t flags)
{
    r->out.p[at + 4] = flags;
}

static void put_data(struct raw *r, uint32_t id, size_t n)
{
    put_u32(&r->out, id);
    put_u32(&r->out, n);
    memset(buf_reserve(&r->out, n), 'x', n);
    r->out.n += n;
}

/* A masked frame, mask all zero. */
static void put_frame(struct raw *r, unsigned first, const char *text, size_t n)
{
    buf_append_byte(&r->out, (uint8_t)first);
    buf_append_byte(&r->out, (uint8_t)(0x80 | n));
    put_u32(&r->out, 0);
    buf_append(&r->out, text, n);
}

/* How many control frames of that type we sent; `second`: with that second number, or ANY. */
#define ANY UINT32_MAX
static size_t count_answers(const struct raw *r, unsigned type, uint32_t second)
{
    size_t count = 0;

    for (size_t at = 0; at + 8 <= r->in.n;) {
        const uint8_t *p = r->in.p + at;
        size_t n = (size_t)p[5] << 16 | (size_t)p[6] << 8 | p[7];
        if ((p[0] & 0x80) && p[3] == type && (second == ANY || p[15] == second))
            count++;
        at += 8 + n;
    }
    return count;
}

/* What a connection holds for its peer. */
static size_t memory_of(const struct channel_conn *conn)
{
    return conn->held + conn->in.cap + conn->spdy.out.cap + conn->websocket.out.cap + conn->output.pending +
           conn->output.spare_bytes + conn->output.bytes.cap;
}

/* ---- */

static void test_ten_thousand_streams(void **state)
{
    struct raw r = { 0 };

    (void)state;
    raw_open(&r, CHANNEL_SPDY);
    for (uint32_t i = 0; i < 10000; i++)
        put_syn(&r, 2 * i + 1);
    raw_settle(&r);
    assert_int_equal(r.sent, r.out.n);
    assert_int_equal(channel_conn_active(r.pair.server.conn), CHANNELS_MAX);
    assert_int_equal(r.pair.server.opened, CHANNELS_MAX);
    assert_int_equal(count_answers(&r, 2, ANY), CHANNELS_MAX);
    assert_int_equal(count_answers(&r, 3, SPDY_RESET_REFUSED_STREAM), 10000 - CHANNELS_MAX);
    assert_true(memory_of(r.pair.server.conn) < (1u << 20));
    raw_close(&r);
}

/* Who opens and does not read is not read; and goes on where it stopped. */
static void test_answers_not_read(void **state)
{
    struct raw r = { 0 };

    (void)state;
    r.pair.options.channels_max = 2;
    raw_open(&r, CHANNEL_SPDY);
    r.reads = false;
    for (uint32_t i = 0; i < 200000; i++)
        put_syn(&r, 2 * i + 1);
    raw_settle(&r);
    assert_true(r.sent < r.out.n);
    assert_true(channel_conn_stopped(r.pair.server.conn));
    assert_true(memory_of(r.pair.server.conn) < (1u << 20));
    r.reads = true;
    raw_settle(&r);
    assert_int_equal(r.sent, r.out.n);
    assert_int_equal(count_answers(&r, 3, SPDY_RESET_REFUSED_STREAM), 200000 - 2);
    raw_close(&r);
}

static void test_ping_flood(void **state)
{
    static const enum channel_carrier kinds[] = { CHANNEL_SPDY, CHANNEL_WEBSOCKET };

    (void)state;
    for (size_t k = 0; k < COUNT_OF(kinds); k++) {
        struct raw r = { 0 };
        raw_open(&r, kinds[k]);
        r.reads = false;
        for (uint32_t i = 0; i < 400000; i++) {
            if (kinds[k] == CHANNEL_SPDY) {
                put_u32(&r.out, 0x80030006u);
                put_u32(&r.out, 4);
                put_u32(&r.out, 2 * i + 1);
            } else {
                put_frame(&r, 0x89, "0123456789", 10);
            }
        }
        raw_settle(&r);
        assert_true(r.sent < r.out.n);
        assert_true(memory_of(r.pair.server.conn) < (1u << 20));
        r.reads = true;
        raw_settle(&r);
        assert_int_equal(r.sent, r.out.n);
        assert_int_equal(r.in.n, kinds[k] == CHANNEL_SPDY ? 36 + 12 * 400000 : 12 * 400000);
        raw_close(&r);
    }
}

/* A peer that knows no windows meets a paused channel: the connection is not read any more, and nothing is lost. */
static void test_window_ignored(void **state)
{
    struct raw r = { 0 };
    size_t total = 0;

    (void)state;
    raw_open(&r, CHANNEL_SPDY);
    r.pair.server.keep = false;
    put_syn(&r, 1);
    put_syn(&r, 3);
    raw_until(&r, r.pair.server.count == 2);
    channel_pause(r.pair.server.ears[0].channel, true);
    for (; total < (8u << 20); total += 30000)
        put_data(&r, 1, 30000);
    put_data(&r, 3, 5);
    raw_settle(&r);
    assert_true(r.sent < r.out.n);
    assert_int_equal(r.pair.server.ears[0].bytes, 0);
    assert_true(memory_of(r.pair.server.conn) < CHANNEL_HELD_MAX + (512u << 10));
    channel_pause(r.pair.server.ears[0].channel, false);
    raw_until(&r, r.pair.server.ears[1].bytes == 5);
    assert_int_equal(r.pair.server.ears[0].bytes, total);
    raw_close(&r);
}

/* Many paused channels together hold a window each, and no more than connections together may beyond that. */
static void test_many_paused(void **state)
{
    struct channel_budget budget = { .held.size = 2 << 20 };
    struct raw r = { .pair.options.budget = &budget };

    (void)state;
    raw_open(&r, CHANNEL_SPDY);
    for (uint32_t i = 0; i < EARS_MAX; i++)
        put_syn(&r, 2 * i + 1);
    raw_until(&r, r.pair.server.count == EARS_MAX);
    for (uint32_t i = 0; i < EARS_MAX; i++)
        channel_pause(r.pair.server.ears[i].channel, true);
    for (uint32_t round = 0; round < 20; round++)
        for (uint32_t i = 0; i < EARS_MAX; i++)
            put_data(&r, 2 * i + 1, 25000);
    raw_settle(&r);
    assert_true(r.sent < r.out.n);
    assert_true(r.pair.server.conn->held <= EARS_MAX * SPDY_STREAM_WINDOW + budget.held.size + CHANNEL_READ_SIZE);
    assert_true(budget.held.used > 0);
    /* One of them resets its channel: what was held for it is let go, and the rest flows on. */
    size_t sent = r.sent;
    channel_reset(r.pair.server.ears[3].channel);
    raw_settle(&r);
    assert_true(r.sent > sent);
    raw_close(&r);
    assert_int_equal(budget.held.used, 0);
}

/* A paused channel's peer goes away: noticed although nothing is read. */
static void test_gone_while_paused(void **state)
{
    static const enum channel_carrier kinds[] = { CHANNEL_SPDY, CHANNEL_WEBSOCKET };

    (void)state;
    for (size_t k = 0; k < COUNT_OF(kinds); k++) {
        struct raw r = { 0 };
        raw_open(&r, kinds[k]);
        put_syn(&r, 1);
        if (kinds[k] == CHANNEL_WEBSOCKET)
            buf_clear(&r.out);
        raw_until(&r, r.pair.server.count > 0);
        channel_pause(r.pair.server.ears[0].channel, true);
        for (size_t i = 0; i < 100; i++) {
            if (kinds[k] == CHANNEL_SPDY)
                put_data(&r, 1, 10000);
            else
                put_frame(&r, 0x82, "\0some more input for channel zero", 33);
        }
        raw_settle(&r);
        assert_false(r.pair.server.closed);
        close(r.fd);
        r.fd = -1;
        raw_until(&r, r.pair.server.closed);
        assert_int_equal(r.pair.server.why.code, STATUS_UNAVAILABLE);
        raw_close(&r);
    }
}

/* It ends its way only: what it sent before may still be wanted, but not for ever. */
static void test_end_while_paused(void **state)
{
    (void)state;
    for (int resumed = 0; resumed < 2; resumed++) {
        struct raw r = { 0 };
        raw_open(&r, CHANNEL_WEBSOCKET);
        channel_pause(r.pair.server.ears[0].channel, true);
        put_frame(&r, 0x82, "\0input", 6);
        raw_until(&r, r.sent == r.out.n);
        shutdown(r.fd, SHUT_WR);
        raw_settle(&r);
        assert_false(r.pair.server.closed);
        if (resumed)
            channel_pause(r.pair.server.ears[0].channel, false);
        raw_until(&r, r.pair.server.closed);
        assert_int_equal(r.pair.server.ears[0].bytes, resumed ? 5 : 0);
        assert_int_equal(r.pair.server.why.code, STATUS_UNAVAILABLE);
        raw_close(&r);
    }
}

/* FLAG_UNIDIRECTIONAL: what we send on it goes nowhere, and it is gone when the peer has ended. FLAG_FIN: the other way round. */
static void test_one_way(void **state)
{
    struct raw r = { 0 };

    (void)state;
    raw_open(&r, CHANNEL_SPDY);
    put_syn(&r, 1);
    set_flags(&r, 0, 2);
    size_t at = r.out.n;
    put_syn(&r, 3);
    set_flags(&r, at, 1);
    raw_until(&r, r.pair.server.count == 2 && r.pair.server.ears[1].ended);
    assert_true(channel_send(r.pair.server.ears[0].channel, "x", 1));
    put_u32(&r.out, 1);
    put_u32(&r.out, 1u << 24);
    raw_until(&r, r.pair.server.ears[0].gone);
    assert_true(r.pair.server.ears[0].ended && !r.pair.server.ears[0].failed);
    assert_int_equal(count_answers(&r, 2, ANY), 1);
    channel_send(r.pair.server.ears[1].channel, "answer", 6);
    channel_end(r.pair.server.ears[1].channel);
    raw_until(&r, r.pair.server.ears[1].gone);
    assert_false(r.pair.server.ears[1].failed);
    raw_settle(&r);
    assert_memory_equal(r.in.p + r.in.n - 14, "\0\0\0\x03\x01\0\0\x06" "answer", 14);
    raw_close(&r);
}

static void test_goaway(void **state)
{
    struct raw r = { 0 };

    (void)state;
    raw_open(&r, CHANNEL_SPDY);
    put_syn(&r, 1);
    raw_until(&r, r.pair.server.count == 1);
    put_u32(&r.out, 0x80030007u);
    put_u32(&r.out, 8);
    put_u32(&r.out, 0);
    put_u32(&r.out, 0);
    put_u32(&r.out, 1); /* the stream goes on to its end */
    put_u32(&r.out, 1u << 24 | 4);
    buf_append(&r.out, "last", 4);
    raw_until(&r, r.pair.server.ears[0].ended);
    assert_int_equal(r.pair.server.ears[0].bytes, 4);
    assert_null(channel_open(r.pair.server.conn, NULL, 0));
    raw_settle(&r);
    assert_false(r.pair.server.closed || r.eof);
    channel_send(r.pair.server.ears[0].channel, "answer", 6);
    channel_end(r.pair.server.ears[0].channel);
    raw_until(&r, r.eof);
    assert_memory_equal(r.in.p + r.in.n - 16, "\x80\x03\0\x07\0\0\0\x08\0\0\0\x01\0\0\0\0", 16);
    assert_memory_equal(r.in.p + r.in.n - 22, "answer", 6);
    assert_false(r.pair.server.closed);
    close(r.fd);
    r.fd = -1;
    raw_until(&r, r.pair.server.closed);
    assert_int_equal(r.pair.server.why.code, STATUS_OK);
    assert_false(r.pair.server.ears[0].failed);
    raw_close(&r);
}

static void test_spdy_error(void **state)
{
    struct raw r = { 0 };

    (void)state;
    raw_open(&r, CHANNEL_SPDY);
    put_syn(&r, 1);
    put_u32(&r.out, 0); /* data on stream 0 */
    put_u32(&r.out, 4);
    raw_until(&r, r.eof);
    assert_true(r.pair.server.ears[0].gone && r.pair.server.ears[0].failed);
    assert_int_equal(count_answers(&r, 7, SPDY_GOAWAY_PROTOCOL_ERROR), 1);
    assert_false(r.pair.server.closed); /* until the peer has heard it */
    shutdown(r.fd, SHUT_WR);
    raw_until(&r, r.pair.server.closed);
    assert_int_equal(r.pair.server.why.code, STATUS_INVALID_ARGUMENT);
    raw_close(&r);
}

/* In the middle of anything the peer is gone. */
static void test_cut(void **state)
{
    struct raw whole = { 0 };

    (void)state;
    put_syn(&whole, 1);
    put_data(&whole, 1, 100);
    for (size_t n = 0; n < whole.out.n; n++) {
        struct raw r = { 0 };
        raw_open(&r, CHANNEL_SPDY);
        buf_append(&r.out, whole.out.p, n);
        raw_until(&r, r.sent == n);
        close(r.fd);
        r.fd = -1;
        raw_until(&r, r.pair.server.closed);
        assert_int_equal(r.pair.server.why.code, r.pair.server.count > 0 ? STATUS_UNAVAILABLE : STATUS_OK);
        raw_close(&r);
    }
    spdy_headers_free(&whole.codec);
    buf_free(&whole.out);
}

/* Byte by byte, as slowly as it likes: nothing is kept but the frame at hand. */
static void test_drips(void **state)
{
    struct raw r = { 0 };

    (void)state;
    raw_open(&r, CHANNEL_WEBSOCKET_BASE64);
    put_frame(&r, 0x01, "0aGVs", 5);
    put_frame(&r, 0x00, "bG8", 3);
    put_frame(&r, 0x80, "gd29ybGQ=", 9);
    size_t all = r.out.n;
    for (r.out.n = 1; r.out.n <= all; r.out.n++)
        raw_turn(&r);
    r.out.n = all;
    raw_settle(&r);
    assert_int_equal(r.pair.server.ears[0].heard.n, 11);
    assert_memory_equal(r.pair.server.ears[0].heard.p, "hello world", 11);
    raw_close(&r);
}

static void expect_websocket_close(enum channel_carrier carrier, const char *message, size_t n, unsigned code)
{
    struct raw r = { .pair.options.close_signals = true };

    raw_open(&r, carrier);
    put_frame(&r, carrier == CHANNEL_WEBSOCKET ? 0x82 : 0x81, message, n);
    raw_until(&r, r.eof);
    assert_true(r.in.n > 4 && r.in.p[0] == 0x88);
    assert_int_equal(r.in.p[2] << 8 | r.in.p[3], code);
    assert_true(r.pair.server.ears[0].gone && r.pair.server.ears[0].failed);
    put_frame(&r, 0x88, "\x03\xe8", 2); /* its answer completes the handshake */
    raw_until(&r, r.pair.server.closed);
    assert_int_equal(r.pair.server.why.code, STATUS_INVALID_ARGUMENT);
    raw_close(&r);
}

static void test_websocket_messages(void **state)
{
    struct raw r = { .pair.options.close_signals = true };

    (void)state;
    expect_websocket_close(CHANNEL_WEBSOCKET, "\xff\x03", 2, 1008); /* of three, 0 to 2 */
    expect_websocket_close(CHANNEL_WEBSOCKET, "\xff", 1, 1002);
    expect_websocket_close(CHANNEL_WEBSOCKET, "\xff\x01\x02", 3, 1002);
    expect_websocket_close(CHANNEL_WEBSOCKET_BASE64, "0aG*=", 5, 1007);
    expect_websocket_close(CHANNEL_WEBSOCKET_BASE64, "0a", 2, 1007);
    expect_websocket_close(CHANNEL_WEBSOCKET_BASE64, "0aGk=aGk=", 9, 1007);
    /* Harmless: an empty message, a channel that there is not, a number with nothing behind it, text instead of binary, a
     * second end. */
    raw_open(&r, CHANNEL_WEBSOCKET);
    put_frame(&r, 0x82, "", 0);
    put_frame(&r, 0x82, "\x03x", 2);
    put_frame(&r, 0x82, "\x01", 1);
    put_frame(&r, 0x81, "\x01text", 5);
    put_frame(&r, 0x82, "\xff\x01", 2);
    put_frame(&r, 0x82, "\xff\x01", 2);
    put_frame(&r, 0x82, "\x02more", 5);
    raw_until(&r, r.pair.server.ears[2].heard.n == 4);
    assert_true(r.pair.server.ears[1].ended && r.pair.server.ears[1].heard.n == 4);
    raw_close(&r);
}

/* The peer closes: in peace, or not. */
static void test_websocket_close(void **state)
{
    static const struct { const char *payload; size_t n; enum status_code code; } closes[] = {
        { "", 0, STATUS_OK }, { "\x03\xe8", 2, STATUS_OK }, { "\x03\xf3oops", 6, STATUS_UNAVAILABLE },
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(closes); i++) {
        struct raw r = { 0 };
        raw_open(&r, CHANNEL_WEBSOCKET);
        put_frame(&r, 0x88, closes[i].payload, closes[i].n);
        raw_until(&r, r.pair.server.closed && r.eof);
        assert_int_equal(r.pair.server.why.code, closes[i].code);
        assert_int_equal(r.pair.server.ears[0].failed, closes[i].code != STATUS_OK);
        assert_int_equal(r.in.p[0], 0x88);
        raw_close(&r);
    }
}

/* A peer that is silent is asked, and then given up; one that may still be reading is not. */
static void test_keepalive(void **state)
{
    static uint8_t bytes[4 << 20];

    (void)state;
    for (int reading = 0; reading < 2; reading++) {
        struct raw r = { .pair.options = { .keepalive_ms = 50, .keepalive_timeout_ms = 50 } };
        raw_open(&r, CHANNEL_WEBSOCKET);
        r.reads = false;
        if (reading)
            channel_send(r.pair.server.ears[0].channel, bytes, sizeof bytes);
        int64_t begin = clock_mono_ms();
        while (clock_mono_ms() < begin + 400 && !r.pair.server.closed)
            raw_turn(&r);
        assert_int_equal(r.pair.server.closed, !reading);
        if (!reading)
            assert_non_null(strstr(r.pair.server.why.message, "keepalive"));
        raw_close(&r);
    }
    /* Who answers lives. */
    struct pair pair = { .options = { .carrier = CHANNEL_SPDY, .keepalive_ms = 20, .keepalive_timeout_ms = 5000 } };
    pair_open(&pair);
    for (int64_t begin = clock_mono_ms(); clock_mono_ms() < begin + 200;)
        loop_turn(pair.loop, 10);
    assert_false(pair.server.closed || pair.client.closed);
    pair_close(&pair);
}

static void test_idle(void **state)
{
    static const enum channel_carrier kinds[] = { CHANNEL_SPDY, CHANNEL_WEBSOCKET, CHANNEL_WEBSOCKET_SPDY };

    (void)state;
    for (size_t k = 0; k < COUNT_OF(kinds); k++) {
        /* Pings are no activity. */
        struct raw r = { .pair.options = { .idle_timeout_ms = 60, .keepalive_ms = 10, .keepalive_timeout_ms = 10000 } };
        raw_open(&r, kinds[k]);
        raw_until(&r, r.eof);
        shutdown(r.fd, SHUT_WR);
        raw_until(&r, r.pair.server.closed);
        assert_int_equal(r.pair.server.why.code, STATUS_DEADLINE_EXCEEDED);
        raw_close(&r);
    }
}

/* A reader that takes its time gets all of it after we have closed; then our last word. */
static void test_slow_reader_after_close(void **state)
{
    static uint8_t bytes[3 << 20];
    struct raw r = { .pair.options = { .keepalive_ms = 20, .keepalive_timeout_ms = 20 } };

    (void)state;
    raw_open(&r, CHANNEL_SPDY);
    put_syn(&r, 1);
    raw_until(&r, r.pair.server.count == 1);
    r.reads = false;
    channel_send(r.pair.server.ears[0].channel, bytes, sizeof bytes);
    channel_conn_close(r.pair.server.conn);
    put_data(&r, 1, 200000); /* dropped, but read */
    for (int64_t begin = clock_mono_ms(); clock_mono_ms() < begin + 200;)
        raw_turn(&r);
    assert_false(r.pair.server.closed);
    assert_int_equal(r.sent, r.out.n);
    r.reads = true;
    raw_until(&r, r.eof);
    assert_true(r.in.n > sizeof bytes);
    assert_int_equal(count_answers(&r, 7, 0), 1);
    close(r.fd);
    r.fd = -1;
    raw_until(&r, r.pair.server.closed);
    assert_int_equal(r.pair.server.why.code, STATUS_OK);
    raw_close(&r);
}

/* The owner frees the connection, or resets channels, from inside whatever it hears. */
static void test_free_inside(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        struct raw r = { 0 };
        r.pair.server.free_on_close = true;
        r.pair.server.reset_on_channel = way == 1;
        raw_open(&r, CHANNEL_SPDY);
        for (uint32_t i = 0; i < 10; i++)
            put_syn(&r, 2 * i + 1);
        put_data(&r, 1, 10);
        raw_until(&r, r.pair.server.opened == 10 && r.sent == r.out.n);
        raw_settle(&r);
        if (way == 1)
            assert_int_equal(count_answers(&r, 3, SPDY_RESET_CANCEL), 10);
        put_u32(&r.out, 0);
        put_u32(&r.out, 1);
        shutdown(r.fd, SHUT_WR);
        raw_until(&r, r.pair.server.conn == NULL);
        raw_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ten_thousand_streams),
        cmocka_unit_test(test_answers_not_read),
        cmocka_unit_test(test_ping_flood),
        cmocka_unit_test(test_window_ignored),
        cmocka_unit_test(test_many_paused),
        cmocka_unit_test(test_gone_while_paused),
        cmocka_unit_test(test_end_while_paused),
        cmocka_unit_test(test_one_way),
        cmocka_unit_test(test_goaway),
        cmocka_unit_test(test_spdy_error),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_drips),
        cmocka_unit_test(test_websocket_messages),
        cmocka_unit_test(test_websocket_close),
        cmocka_unit_test(test_keepalive),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_slow_reader_after_close),
        cmocka_unit_test(test_free_inside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
