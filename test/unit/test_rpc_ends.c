/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC, server and client against each other: how calls and connections end. */
#include "rpc_service.h"

/* ---- deadlines and cancellation ---- */

static void deadline(void **unused)
{
    struct rpc_pair pair;
    struct result r;

    (void)unused;
    rpc_pair_open(&pair, &services);
    int64_t begin = clock_mono_ms();
    unary(&pair, &r, "/test.Test/Hold", 0, 0, 50);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_DEADLINE_EXCEEDED);
    assert_in_range(clock_mono_ms() - begin, 45, 5000);
    rpc_pair_settle(&pair);
    assert_int_equal(seen.cancelled, 1);
    rpc_pair_close(&pair);
}

/* The server's own watch: the client of this request lies about its deadline by asking with a raw header. */
static void deadline_on_the_server(void **unused)
{
    struct rpc_pair pair;
    struct result r = { 0 };
    struct rpc_metadata timeout = { "grpc-timeout", "30m", 3 };
    struct rpc_request_options options = { .method = "/test.Test/Hold",
                                           .output = TEST_MESSAGE_TYPE,
                                           .on_finish = on_finish,
                                           .arg = &r,
                                           .metadata = &timeout,
                                           .metadata_count = 1 };
    test_message m = TEST_MESSAGE_INIT;

    (void)unused;
    for (int i = 0; i < 2; i++) {
        rpc_pair_open(&pair, &services);
        seen.no_cancel_function = i == 1;
        seen.cancelled = 0;
        r = (struct result){ 0 };
        r.request = rpc_request_start(pair.client, &options);
        rpc_request_send(r.request, &m.base);
        rpc_request_half_close(r.request);
        rpc_pair_run(&pair, &r.done);
        assert_int_equal(r.status.code, STATUS_DEADLINE_EXCEEDED);
        assert_int_equal(seen.last_code, STATUS_DEADLINE_EXCEEDED);
        assert_int_equal(seen.cancelled, i == 0);
        if (i == 1) { /* it is still the handler's, who ends it in his own time */
            assert_true(rpc_call_cancelled(seen.call));
            assert_int_equal(rpc_call_time_left_ms(seen.call), 0);
            rpc_reply(seen.call, &m.base);
        }
        rpc_pair_close(&pair);
    }
}

static void cancellation(void **unused)
{
    struct rpc_pair pair;
    struct result r;

    (void)unused;
    for (int i = 0; i < 4; i++) {
        memset(&seen, 0, sizeof seen);
        seen.reply_in_cancel = i == 1;
        seen.no_cancel_function = i == 2;
        rpc_pair_open(&pair, &services);
        struct rpc_request *request = unary(&pair, &r, "/test.Test/Hold", 0, 0, 0);
        if (i != 3)
            rpc_pair_settle(&pair); /* else: cancelled before it was sent */
        rpc_request_cancel(request);
        rpc_pair_settle(&pair);
        assert_false(r.done);
        assert_int_equal(seen.cancelled, i < 2);
        if (i < 3)
            assert_int_equal(seen.last_code, STATUS_CANCELLED);
        if (i == 2) {
            test_message m = TEST_MESSAGE_INIT;
            assert_true(rpc_call_cancelled(seen.call));
            assert_false(rpc_send(seen.call, &m.base));
            rpc_reply(seen.call, &m.base);
        }
        unary(&pair, &r, "/test.Test/Echo", 0, 7, 0);
        rpc_pair_run(&pair, &r.done);
        assert_int_equal(r.last, 7);
        rpc_pair_close(&pair);
    }
}

/* ---- ends ---- */

static void on_drained(void *arg)
{
    struct rpc_pair *pair = arg;

    pair->drained = true;
}

static void graceful_shutdown(void **unused)
{
    struct rpc_pair pair;
    struct result held, late;
    test_message m = message_of(3, 9);

    (void)unused;
    rpc_pair_open(&pair, &services);
    unary(&pair, &held, "/test.Test/Hold", 0, 0, 0);
    rpc_pair_settle(&pair);
    rpc_server_shutdown(pair.server, on_drained, &pair);
    rpc_pair_settle(&pair);
    /* The running call goes on, a new one is refused, nobody is cut off. */
    assert_false(pair.drained);
    assert_false(pair.client_closed);
    unary(&pair, &late, "/test.Test/Echo", 0, 0, 0);
    assert_false(late.done);
    rpc_pair_run(&pair, &late.done);
    assert_int_equal(late.status.code, STATUS_UNAVAILABLE);
    assert_false(held.done);
    rpc_reply(seen.call, &m.base);
    rpc_pair_run(&pair, &held.done);
    assert_int_equal(held.status.code, STATUS_OK);
    assert_int_equal(held.last, 9);
    rpc_pair_run(&pair, &pair.drained);
    rpc_pair_run(&pair, &pair.client_closed);
    assert_int_equal(pair.client_status.code, STATUS_UNAVAILABLE);
    rpc_pair_close(&pair);
}

static void idle_shutdown(void **unused)
{
    struct rpc_pair pair;

    (void)unused;
    rpc_pair_open(&pair, &services);
    rpc_pair_settle(&pair);
    rpc_server_shutdown(pair.server, on_drained, &pair);
    rpc_pair_run(&pair, &pair.drained);
    rpc_pair_run(&pair, &pair.client_closed);
    rpc_pair_close(&pair);
}

static void server_gone(void **unused)
{
    struct rpc_pair pair;
    struct result r, after;

    (void)unused;
    rpc_pair_open(&pair, &services);
    unary(&pair, &r, "/test.Test/Hold", 0, 0, 0);
    rpc_pair_settle(&pair);
    rpc_server_free(pair.server);
    pair.server = NULL;
    assert_int_equal(seen.cancelled, 1);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_UNAVAILABLE);
    rpc_pair_run(&pair, &pair.client_closed);
    unary(&pair, &after, "/test.Test/Echo", 0, 0, 0);
    assert_false(after.done);
    rpc_pair_run(&pair, &after.done);
    assert_int_equal(after.status.code, STATUS_UNAVAILABLE);
    rpc_pair_close(&pair);
}

static void client_gone(void **unused)
{
    struct rpc_pair pair;
    struct result r, sent, unsent;

    (void)unused;
    for (int i = 0; i < 2; i++) {
        memset(&seen, 0, sizeof seen);
        seen.no_cancel_function = i == 1;
        rpc_pair_open(&pair, &services);
        unary(&pair, &r, "/test.Test/Hold", 0, 0, 0);
        rpc_pair_settle(&pair);
        unary(&pair, &unsent, "/test.Test/Echo", 0, 0, 0);
        start(&pair, &sent, "/test.Test/Chat", 0);
        rpc_conn_free(pair.client);
        pair.client = NULL;
        /* Those under way hear of it. */
        assert_true(r.done && sent.done && unsent.done);
        assert_int_equal(r.status.code, STATUS_UNAVAILABLE);
        rpc_pair_settle(&pair);
        assert_int_equal(seen.cancelled, i == 0);
        if (i == 1) {
            /* The call outlives its connection and the server, with what it borrowed. */
            struct str agent = rpc_call_metadata(seen.call, "user-agent");
            rpc_server_free(pair.server);
            pair.server = NULL;
            assert_string_equal(agent.p, "interlink-cri");
            rpc_failf(seen.call, STATUS_ABORTED, "too late");
        }
        rpc_pair_close(&pair);
    }
}

static struct rpc_pair *in_message_pair;

static void free_server_in_message(void)
{
    rpc_server_free(in_message_pair->server);
    in_message_pair->server = NULL;
}

/* Everything may be done inside of a callback. */
static void freed_in_a_callback(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = message_of(1000, 0);

    (void)unused;
    rpc_pair_open(&pair, &services);
    in_message_pair = &pair;
    seen.in_message = free_server_in_message;
    start(&pair, &r, "/test.Test/Sink", 0);
    rpc_request_send(r.request, &m.base);
    rpc_request_send(r.request, &m.base);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_UNAVAILABLE);
    assert_int_equal(seen.messages, 1);
    assert_int_equal(seen.cancelled, 1);
    rpc_pair_close(&pair);
}

static void end_in_message(void)
{
    rpc_failf(seen.call, STATUS_FAILED_PRECONDITION, "enough");
    seen.call = NULL;
}

/* The answer comes while the client still has much to send: it is delivered, and the client stops. */
static void answered_early(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = message_of(300000, 0);

    (void)unused;
    rpc_pair_open(&pair, &services);
    seen.in_message = end_in_message;
    start(&pair, &r, "/test.Test/Sink", 0);
    for (int i = 0; i < 20; i++)
        rpc_request_send(r.request, &m.base);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_FAILED_PRECONDITION);
    assert_string_equal(r.status.message, "enough");
    assert_int_equal(seen.messages, 1);
    rpc_pair_settle(&pair);
    assert_int_equal(rpc_conn_active(pair.client), 0);
    rpc_pair_close(&pair);
}

/* A request given up while its messages are delivered, or held back after the answer has ended. */
static void cancelled_with_messages(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = TEST_MESSAGE_INIT;

    (void)unused;
    for (int i = 0; i < 3; i++) {
        rpc_pair_open(&pair, &services);
        seen.sent = 0;
        seen.to_send = i == 2 ? 1000 : 10;
        seen.size = 1000;
        start(&pair, &r, "/test.Test/Source", 0);
        r.pause_at_first = i == 0;
        r.cancel_at_first = i > 0;
        rpc_request_send(r.request, &m.base);
        rpc_request_half_close(r.request);
        rpc_pair_settle(&pair);
        assert_int_equal(r.messages, 1);
        if (i == 0)
            rpc_request_cancel(r.request);
        rpc_pair_settle(&pair);
        assert_false(r.done);
        assert_int_equal(r.messages, 1);
        assert_int_equal(rpc_conn_active(pair.client), 0);
        rpc_pair_close(&pair);
    }
}

/* A request given up while one of its frames is half made, because the peer does not read. */
static void cancelled_while_blocked(void **unused)
{
    struct rpc_pair pair;
    struct status err;
    struct result r[3];
    test_message m = message_of(100000, 0);

    (void)unused;
    int fd = rpc_pair_open_raw(&pair, &services);
    struct loop *server_loop = pair.loop;
    struct rpc_conn_options options = { .on_close = rpc_pair_on_close, .arg = &pair };
    pair.loop = loop_new(&err);
    pair.client = rpc_conn_new(pair.loop, rpc_pair_stream(&pair, fd), &options, STR(""));
    for (int i = 0; i < 20; i++) { /* the server's windows are known */
        loop_turn(server_loop, 1);
        loop_turn(pair.loop, 1);
    }
    for (int i = 0; i < 3; i++)
        start(&pair, &r[i], "/test.Test/Sink", 0);
    for (int i = 0; i < 30; i++)
        rpc_request_send(r[i % 3].request, &m.base);
    rpc_pair_settle(&pair); /* until nothing more can be written */
    for (int i = 0; i < 3; i++)
        rpc_request_cancel(r[i].request);
    for (int i = 0; i < 100 && rpc_conn_active(pair.client) > 0; i++) {
        loop_turn(server_loop, 1);
        loop_turn(pair.loop, 1);
    }
    assert_int_equal(rpc_conn_active(pair.client), 0);
    assert_false(pair.client_closed);
    rpc_conn_free(pair.client);
    rpc_server_free(pair.server);
    loop_free(pair.loop);
    loop_free(server_loop);
}

static void client_shutdown(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = message_of(3, 9);

    (void)unused;
    rpc_pair_open(&pair, &services);
    unary(&pair, &r, "/test.Test/Hold", 0, 0, 0);
    rpc_pair_settle(&pair);
    rpc_conn_shutdown(pair.client);
    rpc_pair_settle(&pair);
    assert_false(pair.client_closed);
    rpc_reply(seen.call, &m.base);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.last, 9);
    rpc_pair_run(&pair, &pair.client_closed);
    rpc_pair_close(&pair);
}

/* More calls than a connection takes at once: the rest waits at the client. */
static void many_at_once(void **unused)
{
    struct rpc_pair pair;
    static struct result r[H2_STREAMS_MAX + 200];

    (void)unused;
    rpc_pair_open(&pair, &services);
    rpc_pair_settle(&pair); /* the server's settings have come */
    for (size_t i = 0; i < COUNT_OF(r); i++)
        unary(&pair, &r[i], i < H2_STREAMS_MAX ? "/test.Test/Hold" : "/test.Test/Echo", 0, 0, 200);
    rpc_pair_settle(&pair);
    assert_int_equal(seen.calls, H2_STREAMS_MAX);
    for (size_t i = 0; i < COUNT_OF(r); i++)
        rpc_pair_run(&pair, &r[i].done);
    rpc_pair_close(&pair);
}

static void keepalive(void **unused)
{
    struct rpc_pair pair;
    struct status err;
    int fds[2];

    (void)unused;
    /* Somebody who never answers. */
    pair = (struct rpc_pair){ .loop = loop_new(&err) };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    struct rpc_conn_options options = {
        .keepalive_ms = 30, .keepalive_timeout_ms = 50, .on_close = rpc_pair_on_close, .arg = &pair
    };
    pair.client = rpc_conn_new(pair.loop, rpc_pair_stream(&pair, fds[0]), &options, STR(""));
    int64_t begin = clock_mono_ms();
    rpc_pair_run(&pair, &pair.client_closed);
    assert_in_range(clock_mono_ms() - begin, 70, 10000);
    assert_int_equal(pair.client_status.code, STATUS_UNAVAILABLE);
    assert_non_null(strstr(pair.client_status.message, "keepalive"));
    close(fds[1]);
    rpc_pair_close(&pair);
    /* Somebody who does. */
    int fd = rpc_pair_open_raw(&pair, &services);
    pair.client = rpc_conn_new(pair.loop, rpc_pair_stream(&pair, fd), &options, STR(""));
    begin = clock_mono_ms();
    while (clock_mono_ms() - begin < 300)
        loop_turn(pair.loop, 10);
    assert_false(pair.client_closed);
    rpc_pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(deadline, setup),
        cmocka_unit_test_setup(deadline_on_the_server, setup),
        cmocka_unit_test_setup(cancellation, setup),
        cmocka_unit_test_setup(graceful_shutdown, setup),
        cmocka_unit_test_setup(idle_shutdown, setup),
        cmocka_unit_test_setup(server_gone, setup),
        cmocka_unit_test_setup(client_gone, setup),
        cmocka_unit_test_setup(freed_in_a_callback, setup),
        cmocka_unit_test_setup(answered_early, setup),
        cmocka_unit_test_setup(cancelled_with_messages, setup),
        cmocka_unit_test_setup(cancelled_while_blocked, setup),
        cmocka_unit_test_setup(client_shutdown, setup),
        cmocka_unit_test_setup(many_at_once, setup),
        cmocka_unit_test_setup(keepalive, setup),
    };

    return cmocka_run_group_tests(tests, setup_pattern, NULL);
}
