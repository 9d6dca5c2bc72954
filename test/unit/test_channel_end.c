/* SPDX-License-Identifier: Apache-2.0 */
/* Channels whose peer ends the connection: what it sent before is heard first. And channels that stall beside others. */
#include "channel_pair.h"

#include "http/channel_internal.h"

static const enum channel_carrier carriers[] = { CHANNEL_SPDY, CHANNEL_WEBSOCKET, CHANNEL_WEBSOCKET_BASE64,
                                                 CHANNEL_WEBSOCKET_SPDY };
static const enum channel_carrier windowed[] = { CHANNEL_SPDY, CHANNEL_WEBSOCKET_SPDY };

static uint8_t bytes[1 << 20];

static struct pair pair_of(enum channel_carrier carrier)
{
    struct pair pair = { .options.carrier = carrier };

    if (carrier == CHANNEL_WEBSOCKET || carrier == CHANNEL_WEBSOCKET_BASE64) {
        pair.options.channel_count = 3;
        pair.options.close_signals = carrier == CHANNEL_WEBSOCKET;
    }
    return pair;
}

static struct ear *client_channel(struct pair *pair, size_t i)
{
    const struct http_header headers[] = { { "streamtype", "data" } };
    struct ear *ear = &pair->client.ears[i];

    if (pair->options.channel_count == 0) {
        ear_listen(ear, &pair->client, channel_open(pair->client.conn, headers, COUNT_OF(headers)));
        pair->client.count++;
    }
    return ear;
}

/* A client has sent 40,000 bytes and the end of its way to a channel that is paused, and closed the connection. */
static void open_closed(struct pair *pair, enum channel_carrier carrier, bool tls)
{
    *pair = pair_of(carrier);
    pair->tls = tls;
    pair_open(pair);
    struct ear *a = client_channel(pair, 0);
    pair_until(pair, pair->server.count > 0);
    channel_pause(pair->server.ears[0].channel, true);
    channel_send(a->channel, bytes, 40000);
    channel_end(a->channel);
    channel_conn_close(pair->client.conn);
    /* With windows the close is noticed behind it; without, nothing is read. */
    if (pair->options.channel_count == 0)
        pair_until(pair, pair->server.conn->end_ms > 0);
    else
        pair_settle(pair);
    assert_false(pair->server.closed || pair->server.ears[0].gone || pair->server.ears[0].ended);
    assert_int_equal(pair->server.ears[0].bytes, 0);
}

static void test_heard_before_gone(void **state)
{
    struct pair pair;

    (void)state;
    for (size_t i = 0; i < 2 * COUNT_OF(carriers); i++) {
        open_closed(&pair, carriers[i / 2], i % 2 == 1);
        struct ear *ear = &pair.server.ears[0];
        channel_pause(ear->channel, false);
        pair_until(&pair, pair.server.closed && pair.client.closed);
        assert_int_equal(ear->bytes, 40000);
        assert_true(ear->gone && !ear->failed);
        assert_true(ear->ended || carriers[i / 2] == CHANNEL_WEBSOCKET_BASE64);
        assert_int_equal(pair.server.why.code, STATUS_OK);
        assert_int_equal(pair.client.why.code, STATUS_OK);
        pair_close(&pair);
    }
}

/* The client need not wait for that. */
static void test_client_is_free_at_once(void **state)
{
    struct pair pair;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(windowed); i++) {
        open_closed(&pair, windowed[i], false);
        pair_until(&pair, pair.client.closed);
        assert_int_equal(pair.client.why.code, STATUS_OK);
        assert_false(pair.server.closed);
        channel_pause(pair.server.ears[0].channel, false);
        pair_until(&pair, pair.server.closed);
        assert_int_equal(pair.server.ears[0].bytes, 40000);
        pair_close(&pair);
    }
}

/* Nobody takes it: not for ever, and said. */
static void test_never_heard(void **state)
{
    struct pair pair;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        int64_t begin = clock_mono_ms();
        open_closed(&pair, carriers[i], false);
        pair_until(&pair, pair.server.closed);
        assert_true(clock_mono_ms() - begin >= CHANNEL_GONE_MS);
        assert_int_equal(pair.server.ears[0].bytes, 0);
        assert_true(pair.server.ears[0].failed);
        assert_int_equal(pair.server.why.code, STATUS_UNAVAILABLE);
        pair_close(&pair);
    }
}

/* Some of it is taken now and then: as long as that goes on, the rest stays. */
static void test_heard_slowly(void **state)
{
    struct pair pair = pair_of(CHANNEL_SPDY);

    (void)state;
    pair_open(&pair);
    struct ear *a = client_channel(&pair, 0), *far = &pair.server.ears[0];
    pair_until(&pair, pair.server.count > 0);
    channel_pause(far->channel, true);
    far->pause_at_once = true;
    for (int i = 0; i < 3; i++)
        channel_send(a->channel, bytes, 20000);
    channel_conn_close(pair.client.conn);
    pair_until(&pair, pair.server.conn->end_ms > 0);
    for (int64_t i = 0; i < 3; i++) {
        int64_t until = clock_mono_ms() + CHANNEL_GONE_MS * 2 / 3;
        while (clock_mono_ms() < until)
            loop_turn(pair.loop, 100);
        assert_false(pair.server.closed);
        size_t before = far->bytes;
        channel_pause(far->channel, false);
        pair_until(&pair, far->bytes > before);
    }
    if (far->channel != NULL)
        channel_pause(far->channel, false);
    pair_until(&pair, pair.server.closed);
    assert_int_equal(far->bytes, 60000);
    assert_int_equal(pair.server.why.code, STATUS_OK);
    pair_close(&pair);
}

/* No word of farewell: what came is heard all the same, then it counts as broken. */
static void test_end_without_a_word(void **state)
{
    (void)state;
    struct pair pair = pair_of(CHANNEL_SPDY);
    pair_open(&pair);
    struct ear *a = client_channel(&pair, 0), *far = &pair.server.ears[0];
    pair_until(&pair, pair.server.count > 0);
    channel_pause(far->channel, true);
    channel_send(a->channel, bytes, 40000);
    pair_until(&pair, pair.server.conn->held == 40000);
    end_close(&pair.client);
    pair_until(&pair, pair.server.conn->end_ms > 0);
    assert_false(far->gone);
    channel_pause(far->channel, false);
    pair_until(&pair, pair.server.closed);
    assert_int_equal(far->bytes, 40000);
    assert_true(far->failed);
    assert_int_equal(pair.server.why.code, STATUS_UNAVAILABLE);
    pair_close(&pair);
}

/* The owner has other plans meanwhile: resets the channel, closes or frees the connection. What it sends goes nowhere. */
static void test_owner_while_hearing(void **state)
{
    struct pair pair;

    (void)state;
    for (int what = 0; what < 3 * 2; what++) {
        open_closed(&pair, windowed[what % 2], false);
        struct ear *ear = &pair.server.ears[0];
        assert_true(channel_send(ear->channel, bytes, sizeof bytes));
        assert_int_equal(channel_queued(ear->channel), 0);
        if (what / 2 == 0)
            channel_reset(ear->channel);
        else if (what / 2 == 1)
            channel_conn_close(pair.server.conn);
        else
            end_close(&pair.server);
        assert_int_equal(ear->gone, what / 2 != 1);
        if (what / 2 < 2)
            pair_until(&pair, pair.server.closed);
        assert_true(ear->gone);
        assert_int_equal(ear->bytes, 0);
        pair_close(&pair);
    }
}

/* ---- many that stall ---- */

/* Fifteen channels are not heard by the server, nor their answers by the client's peer: the sixteenth goes on. */
static void test_stalled_neighbours(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT_OF(windowed); k++) {
        struct pair pair = pair_of(windowed[k]);
        pair_open(&pair);
        for (size_t i = 0; i < EARS_MAX; i++)
            client_channel(&pair, i);
        pair_until(&pair, pair.server.count == EARS_MAX);
        for (size_t i = 0; i < EARS_MAX - 1; i++) {
            channel_pause(pair.server.ears[i].channel, true);
            channel_pause(pair.client.ears[i].channel, true);
            channel_send(pair.client.ears[i].channel, bytes, sizeof bytes);
            channel_send(pair.server.ears[i].channel, bytes, sizeof bytes);
        }
        struct ear *here = &pair.client.ears[EARS_MAX - 1], *there = &pair.server.ears[EARS_MAX - 1];
        for (size_t round = 1; round <= 8; round++) {
            channel_send(here->channel, bytes, sizeof bytes);
            channel_send(there->channel, bytes, sizeof bytes);
            pair_until(&pair, here->bytes == round * sizeof bytes && there->bytes == round * sizeof bytes);
        }
        assert_true(pair.server.conn->held <= (EARS_MAX - 1) * SPDY_STREAM_WINDOW);
        for (size_t i = 0; i < EARS_MAX - 1; i++) {
            channel_pause(pair.server.ears[i].channel, false);
            channel_pause(pair.client.ears[i].channel, false);
        }
        for (size_t i = 0; i < EARS_MAX - 1; i++)
            pair_until(&pair, pair.client.ears[i].bytes == sizeof bytes && pair.server.ears[i].bytes == sizeof bytes);
        pair_close(&pair);
    }
}

/* Their queues share a budget: with many of them each is told to wait sooner, and all of it goes back. */
static void test_queues_share(void **state)
{
    struct channel_budget budget = { .queues.size = 1 << 20 };
    struct pair pair = pair_of(CHANNEL_SPDY);
    size_t total = 0;

    (void)state;
    pair.options.budget = &budget;
    pair_open(&pair);
    for (size_t i = 0; i < EARS_MAX; i++)
        client_channel(&pair, i);
    pair_until(&pair, pair.server.count == EARS_MAX);
    for (size_t i = 0; i < EARS_MAX; i++)
        channel_pause(pair.server.ears[i].channel, true);
    for (size_t i = 0; i < EARS_MAX; i++) {
        struct ear *ear = &pair.client.ears[i];
        for (ear->writable = true; ear->writable; pair_settle(&pair))
            for (ear->writable = false; channel_send(ear->channel, bytes, 8000);)
                continue;
        total += channel_queued(ear->channel);
    }
    assert_int_equal(budget.queues.used, total);
    assert_true(total <= EARS_MAX * (CHANNEL_SEND_HIGH_WATER_LEAST + 8000) + budget.queues.size);
    for (size_t i = 0; i < EARS_MAX; i++)
        channel_pause(pair.server.ears[i].channel, false);
    for (size_t i = 0; i < EARS_MAX; i++)
        pair_until(&pair, pair.client.ears[i].writable);
    pair_settle(&pair);
    assert_int_equal(budget.queues.used, 0);
    pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heard_before_gone),  cmocka_unit_test(test_client_is_free_at_once),
        cmocka_unit_test(test_never_heard),        cmocka_unit_test(test_heard_slowly),
        cmocka_unit_test(test_end_without_a_word), cmocka_unit_test(test_owner_while_hearing),
        cmocka_unit_test(test_stalled_neighbours), cmocka_unit_test(test_queues_share),
    };

    log_setup(LOG_ERROR, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
