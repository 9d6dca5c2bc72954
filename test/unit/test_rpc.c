/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC, server and client against each other: the four kinds of calls, metadata, errors, back-pressure. */
#include "rpc_service.h"

/* ---- unary ---- */

static void unary_calls(void **unused)
{
    struct rpc_pair pair;
    struct result r, many[200];

    (void)unused;
    rpc_pair_open(&pair, &services);
    unary(&pair, &r, "/test.Test/Echo", 5, 42, 0);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_OK);
    assert_int_equal(r.last, 42);
    assert_int_equal(r.bytes, 5);
    assert_true(seen.time_left == INT64_MAX);
    unary(&pair, &r, "/test.Test/Echo", 5, 42, 60000);
    rpc_pair_run(&pair, &r.done);
    assert_in_range(seen.time_left, 50000, 60001);
    for (size_t i = 0; i < COUNT_OF(many); i++)
        unary(&pair, &many[i], "/test.Test/Echo", i * 100, (int32_t)i, 0);
    assert_int_equal(rpc_conn_active(pair.client), COUNT_OF(many));
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        rpc_pair_run(&pair, &many[i].done);
        assert_int_equal(many[i].status.code, STATUS_OK);
        assert_int_equal(many[i].last, i);
        assert_int_equal(many[i].bytes, i * 100);
    }
    rpc_pair_settle(&pair);
    assert_int_equal(rpc_conn_active(pair.client), 0);
    assert_int_equal(seen.call_ends, COUNT_OF(many) + 2);
    rpc_pair_close(&pair);
}

static void big_messages(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = TEST_MESSAGE_INIT;
    /* The message is that and 5 bytes of tag and length: exactly the largest, then one byte more. */
    size_t fits = RPC_MESSAGE_MAX - 5;
    uint8_t *big = xcalloc(1, fits + 1);

    (void)unused;
    memcpy(big, pattern, sizeof pattern);
    rpc_pair_open(&pair, &services);
    for (int i = 0; i < 2; i++) {
        r = (struct result){ 0 };
        m.stdout = (ProtobufCBinaryData){ fits + (size_t)i, big };
        rpc_unary(pair.client, "/test.Test/Echo", &m.base, TEST_MESSAGE_TYPE, 0, on_unary_done, &r);
        rpc_pair_run(&pair, &r.done);
        if (i == 0) {
            assert_int_equal(r.status.code, STATUS_OK);
            assert_int_equal(r.bytes, fits);
        } else {
            assert_int_equal(r.status.code, STATUS_RESOURCE_EXHAUSTED);
            assert_non_null(strstr(r.status.message, "16777217"));
        }
    }
    free(big);
    /* The connection has survived it. */
    unary(&pair, &r, "/test.Test/Echo", 0, 1, 0);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_OK);
    rpc_pair_close(&pair);
}

static void errors(void **unused)
{
    struct rpc_pair pair;
    struct result r;

    (void)unused;
    rpc_pair_open(&pair, &services);
    for (int32_t code = 1; code <= 16; code++) {
        unary(&pair, &r, "/test.Test/Fail", 0, code, 0);
        rpc_pair_run(&pair, &r.done);
        assert_int_equal(r.status.code, code);
        assert_string_equal(r.status.message, "100% \"böse\"\n\x7f end");
        assert_int_equal(seen.last_code, code);
    }
    static const struct {
        const char *path, *message;
    } unknown[] = {
        { "/test.Test/Nothing", "unknown method Nothing of service test.Test" },
        { "/test.Other/Echo", "unknown service test.Other" },
        { "/test.Test", "malformed method name \"/test.Test\"" },
        { "/test.TestXEcho", "malformed method name \"/test.TestXEcho\"" },
        { "/", "malformed method name \"/\"" },
    };
    for (size_t i = 0; i < COUNT_OF(unknown); i++) {
        unary(&pair, &r, unknown[i].path, 0, 0, 0);
        rpc_pair_run(&pair, &r.done);
        assert_int_equal(r.status.code, STATUS_UNIMPLEMENTED);
        assert_string_equal(r.status.message, unknown[i].message);
    }
    rpc_pair_close(&pair);
}

static void metadata(void **unused)
{
    struct rpc_pair pair;
    struct result r = { 0 };
    const struct rpc_metadata sent[] = { { "x-text", "plain text", 10 }, { "x-raw-bin", "\0\1\xff\0", 4 } };

    (void)unused;
    rpc_pair_open(&pair, &services);
    for (int32_t code = 0; code < 2; code++) {
        struct rpc_request_options options = { .method = "/test.Test/Fields",
                                               .output = TEST_MESSAGE_TYPE,
                                               .on_finish = on_finish,
                                               .arg = &r,
                                               .metadata = sent,
                                               .metadata_count = 2 };
        test_message m = message_of(0, code);
        r = (struct result){ 0 };
        r.request = rpc_request_start(pair.client, &options);
        rpc_request_send(r.request, &m.base);
        rpc_request_half_close(r.request);
        rpc_pair_run(&pair, &r.done);
        assert_int_equal(r.status.code, code == 0 ? STATUS_OK : STATUS_ABORTED);
        /* A failed call sends trailers only: the handler's headers have no place. */
        assert_string_equal(r.text, code == 0 ? "plain text" : "");
        assert_int_equal(r.raw.n, 4);
        assert_memory_equal(r.raw.p, "\0\1\xff\0", 4);
        free((void *)(uintptr_t)r.raw.p);
    }
    rpc_pair_close(&pair);
}

/* ---- streams ---- */

static void client_streaming(void **unused)
{
    struct rpc_pair pair;
    struct result r;

    (void)unused;
    rpc_pair_open(&pair, &services);
    start(&pair, &r, "/test.Test/Sink", 0);
    for (int32_t i = 0; i < 300; i++) {
        test_message m = message_of((size_t)i * 700, i);
        rpc_request_send(r.request, &m.base);
    }
    rpc_request_half_close(r.request);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_OK);
    assert_int_equal(r.last, 300);
    assert_int_equal(seen.bytes, 299 * 300 / 2 * 700);
    assert_int_equal(seen.ends, 1);
    /* No message at all. */
    seen.messages = 0;
    start(&pair, &r, "/test.Test/Sink", 0);
    rpc_request_half_close(r.request);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.last, 0);
    rpc_pair_close(&pair);
}

static void server_streaming(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = TEST_MESSAGE_INIT;

    (void)unused;
    rpc_pair_open(&pair, &services);
    seen.to_send = 500;
    seen.size = 50000;
    start(&pair, &r, "/test.Test/Source", 0);
    rpc_request_send(r.request, &m.base);
    rpc_request_half_close(r.request);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_OK);
    assert_int_equal(r.messages, 500);
    assert_int_equal(r.bytes, 500 * 50000);
    assert_int_equal(r.last, 499);
    rpc_pair_close(&pair);
}

static void bidi_streaming(void **unused)
{
    struct rpc_pair pair;
    struct result r;

    (void)unused;
    rpc_pair_open(&pair, &services);
    start(&pair, &r, "/test.Test/Chat", 0);
    for (int32_t i = 1; i <= 20; i++) {
        test_message m = message_of(10, i);
        assert_true(rpc_request_send(r.request, &m.base));
        while (r.last != i)
            loop_turn(pair.loop, 10);
        assert_false(r.done);
    }
    rpc_request_half_close(r.request);
    assert_false(rpc_request_send(r.request, &(test_message)TEST_MESSAGE_INIT.base)); /* too late: dropped */
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_OK);
    assert_int_equal(r.messages, 20);
    rpc_pair_close(&pair);
}

/* ---- back-pressure ---- */

static void paused_client(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = TEST_MESSAGE_INIT;

    (void)unused;
    rpc_pair_open(&pair, &services);
    seen.to_send = 1000;
    seen.size = 100000;
    start(&pair, &r, "/test.Test/Source", 0);
    r.pause_at_first = true;
    rpc_request_send(r.request, &m.base);
    rpc_request_half_close(r.request);
    for (int i = 0; i < 200; i++)
        loop_turn(pair.loop, 1);
    assert_int_equal(r.messages, 1);
    /* At most a window and the queues of both ends are under way. */
    assert_in_range(seen.sent, 2, (H2_STREAM_WINDOW + 4 * H2_SEND_HIGH_WATER) / 100000);
    /* Another stream of the same connection is not held up. */
    struct result other;
    unary(&pair, &other, "/test.Test/Echo", 100, 1, 0);
    rpc_pair_run(&pair, &other.done);
    assert_int_equal(other.status.code, STATUS_OK);
    rpc_request_pause(r.request, false);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.messages, 1000);
    assert_int_equal(r.last, 999);
    rpc_pair_close(&pair);
}

/* An answer that ended while its receiver was paused is delivered whole. */
static void paused_until_after_the_end(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = TEST_MESSAGE_INIT;

    (void)unused;
    rpc_pair_open(&pair, &services);
    seen.to_send = 10;
    seen.size = 100;
    start(&pair, &r, "/test.Test/Source", 0);
    r.pause_at_first = true;
    rpc_request_send(r.request, &m.base);
    rpc_request_half_close(r.request);
    rpc_pair_settle(&pair);
    assert_null(seen.call);
    assert_int_equal(r.messages, 1);
    assert_false(r.done);
    rpc_request_pause(r.request, false);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.messages, 10);
    assert_int_equal(r.status.code, STATUS_OK);
    rpc_pair_close(&pair);
}

static void paused_server(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    int sent = 0;

    (void)unused;
    rpc_pair_open(&pair, &services);
    seen.pause_at_first = true;
    start(&pair, &r, "/test.Test/Sink", 0);
    test_message m = message_of(100000, 0);
    for (int rounds = 0; rounds < 100; rounds++) {
        r.writable = false;
        while (rpc_request_send(r.request, &m.base))
            sent++;
        sent++;
        for (int i = 0; i < 5 && !r.writable; i++)
            loop_turn(pair.loop, 1);
        if (!r.writable)
            break;
    }
    assert_false(r.writable);
    assert_int_equal(seen.messages, 1);
    assert_in_range(sent, 2, (H2_STREAM_WINDOW + 4 * H2_SEND_HIGH_WATER) / 100000);
    rpc_call_pause(seen.call, false);
    rpc_pair_run(&pair, &r.writable);
    rpc_request_half_close(r.request);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(seen.messages, sent);
    rpc_pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(unary_calls, setup),
        cmocka_unit_test_setup(big_messages, setup),
        cmocka_unit_test_setup(errors, setup),
        cmocka_unit_test_setup(metadata, setup),
        cmocka_unit_test_setup(client_streaming, setup),
        cmocka_unit_test_setup(server_streaming, setup),
        cmocka_unit_test_setup(bidi_streaming, setup),
        cmocka_unit_test_setup(paused_client, setup),
        cmocka_unit_test_setup(paused_until_after_the_end, setup),
        cmocka_unit_test_setup(paused_server, setup),
    };

    return cmocka_run_group_tests(tests, setup_pattern, NULL);
}
