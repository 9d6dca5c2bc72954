/* SPDX-License-Identifier: Apache-2.0 */
/* Many streams on one connection: those that stall hold nobody up and little memory, and those with much to send leave room
 * for others. */
#include "rpc_service.h"

#include "http/h2.h"
#include "rpc/conn.h"

/* ---- stalled receivers ---- */

enum { STALLED = 700 };

static struct result stalled[STALLED];
static struct rpc_call *sinks[STALLED];

static void open_stalled_sinks(struct rpc_pair *pair)
{
    for (int i = 0; i < STALLED; i++) {
        start(pair, &stalled[i], "/test.Test/Sink", 0);
        for (int turns = 0; seen.calls == i && turns < 1000; turns++)
            loop_turn(pair->loop, 1);
        sinks[i] = seen.call;
        rpc_call_pause(sinks[i], true);
    }
}

/* Fills every stream until its sender is told to wait and nothing moves any more. Returns how many messages that took. */
static size_t fill_all(struct rpc_pair *pair)
{
    test_message m = message_of(100000, 0);
    size_t sent = 0, before;

    do {
        before = sent;
        for (int i = 0; i < STALLED; i++) {
            if (stalled[i].messages == 0)
                stalled[i].writable = true; /* the first time */
            stalled[i].messages = 1;
            for (bool more = stalled[i].writable; more; sent++)
                more = rpc_request_send(stalled[i].request, &m.base);
            stalled[i].writable = false;
        }
        rpc_pair_settle(pair);
    } while (sent > before);
    return sent;
}

static size_t held_by_receivers(void)
{
    size_t n = 0;

    for (int i = 0; i < STALLED; i++)
        n += ((struct rpc_stream *)(void *)sinks[i])->in.cap;
    return n;
}

static size_t held_by_senders(void)
{
    size_t n = 0;

    for (int i = 0; i < STALLED; i++)
        n += ((struct rpc_stream *)(void *)stalled[i].request)->h2.queued;
    return n;
}

static void stalled_streams_hold_nobody_up(void **unused)
{
    struct rpc_pair pair;
    struct result other;
    size_t first = (size_t)STALLED * H2_STREAM_WINDOW_FIRST;

    (void)unused;
    rpc_pair_open(&pair, &services);
    open_stalled_sinks(&pair);
    size_t sent = fill_all(&pair);
    assert_int_equal(seen.messages, 0);
    /* Buffers may be twice as large as what they hold. */
    assert_true(held_by_receivers() <= 2 * (first + H2_WINDOWS_MAX));
    assert_true(held_by_senders() <= (size_t)STALLED * (H2_SEND_HIGH_WATER_LEAST + 100000) + H2_QUEUES_MAX);
    /* Calls are answered all the same, small and large ones. */
    unary(&pair, &other, "/test.Test/Echo", 100, 1, 0);
    rpc_pair_run(&pair, &other.done);
    assert_int_equal(other.status.code, STATUS_OK);
    unary(&pair, &other, "/test.Test/Echo", 1000000, 2, 0);
    rpc_pair_run(&pair, &other.done);
    assert_int_equal(other.status.code, STATUS_OK);
    /* As the calls end one after another, seen.call must be the one that ends. */
    for (int i = 0; i < STALLED; i++) {
        rpc_request_half_close(stalled[i].request);
        seen.call = sinks[i];
        rpc_call_pause(sinks[i], false);
        rpc_pair_run(&pair, &stalled[i].done);
        assert_int_equal(stalled[i].status.code, STATUS_OK);
    }
    assert_int_equal(seen.messages, sent);
    assert_int_equal(seen.bytes, sent * 100000);
    rpc_pair_close(&pair);
}

/* All shares go back: with the calls, and with the connection. */
static void shares_are_given_back(void **unused)
{
    struct rpc_pair pair;
    struct h2_budget budget;

    (void)unused;
    for (int round = 0; round < 2; round++) {
        int fd = rpc_pair_open_raw(&pair, &services);
        struct rpc_conn_options options = { .on_close = rpc_pair_on_close, .arg = &pair, .budget = &budget };
        h2_budget_init(&budget);
        pair.client = rpc_conn_new(pair.loop, rpc_pair_stream(&pair, fd), &options, STR(""));
        seen.calls = 0;
        open_stalled_sinks(&pair);
        fill_all(&pair);
        assert_true(budget.queues.used > (size_t)STALLED * H2_SEND_HIGH_WATER_LEAST);
        for (int i = 0; i < STALLED && round == 0; i++)
            rpc_request_cancel(stalled[i].request);
        rpc_pair_settle(&pair);
        if (round == 0) {
            assert_int_equal(budget.queues.used, 0);
            assert_int_equal(budget.windows.used, 0);
        }
        rpc_pair_close(&pair);
        assert_int_equal(budget.queues.used, 0);
        assert_int_equal(budget.windows.used, 0);
    }
}

/* A stream that is made use of gets its large window, though others are stalled: few of them leave it all, many some. */
static void windows_grow_with_use(void **unused)
{
    struct rpc_pair pair;
    struct result busy;
    test_message m = message_of(100000, 0);

    (void)unused;
    for (int round = 0; round < 2; round++) {
        rpc_pair_open(&pair, &services);
        seen.calls = 0;
        if (round == 1) {
            open_stalled_sinks(&pair);
            fill_all(&pair);
        }
        start(&pair, &busy, "/test.Test/Sink", 0);
        seen.call = NULL;
        while (seen.call == NULL)
            loop_turn(pair.loop, 1);
        struct rpc_stream *s = (void *)seen.call;
        assert_int_equal(s->h2.window, H2_STREAM_WINDOW_FIRST);
        for (int i = 0; i < 100; i++) {
            busy.writable = false;
            if (!rpc_request_send(busy.request, &m.base))
                rpc_pair_run(&pair, &busy.writable);
        }
        rpc_pair_settle(&pair);
        assert_true(s->h2.window == H2_STREAM_WINDOW);
        rpc_pair_close(&pair);
    }
}

/* ---- a connection that carries little ---- */

struct narrow {
    struct rpc_pair pair;
    int fds[2]; /* the client's end of the pipe between, and the server's */
};

static void narrow_open(struct narrow *n)
{
    struct rpc_conn_options options = { .on_close = rpc_pair_on_close, .arg = &n->pair };
    int small = 4096, fds[2];

    n->fds[1] = rpc_pair_open_raw(&n->pair, &services);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    n->fds[0] = fds[1];
    for (int i = 0; i < 2; i++)
        setsockopt(n->fds[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    n->pair.client = rpc_conn_new(n->pair.loop, rpc_pair_stream(&n->pair, fds[0]), &options, STR(""));
}

/* Carries 4 KiB at most each way, and turns the loop. */
static void narrow_step(struct narrow *n)
{
    char bytes[4096];

    for (int i = 0; i < 2; i++) {
        ssize_t got = recv(n->fds[i], bytes, sizeof bytes, 0);
        for (ssize_t done = 0, put; got > 0 && done < got; done += put > 0 ? put : 0) {
            put = send(n->fds[1 - i], bytes + done, (size_t)(got - done), MSG_NOSIGNAL);
            if (put < 0)
                loop_turn(n->pair.loop, 0);
        }
    }
    loop_turn(n->pair.loop, 0);
}

static void narrow_close(struct narrow *n)
{
    rpc_pair_close(&n->pair);
    close(n->fds[0]);
    close(n->fds[1]);
}

/* Steps until the call is answered, while `more` keeps the others busy. */
static int narrow_answer_takes(struct narrow *n, size_t size, void (*more)(struct narrow *n))
{
    struct result other;
    int steps = 0;

    unary(&n->pair, &other, "/test.Test/Echo", size, 1, 0);
    for (; !other.done && steps < 100000; steps++) {
        narrow_step(n);
        more(n);
    }
    assert_int_equal(other.status.code, STATUS_OK);
    return steps;
}

static struct result bulk[8];

static void bulk_upload(struct narrow *n)
{
    test_message m = message_of(50000, 0);

    (void)n;
    for (size_t i = 0; i < COUNT_OF(bulk); i++) {
        for (bool more = bulk[i].writable; more;)
            more = rpc_request_send(bulk[i].request, &m.base);
        bulk[i].writable = false;
    }
}

/* As the oldest streams, always with something to send, they must not keep a later call from being heard. */
static void uploads_leave_room(void **unused)
{
    struct narrow n;

    (void)unused;
    narrow_open(&n);
    for (size_t i = 0; i < COUNT_OF(bulk); i++) {
        start(&n.pair, &bulk[i], "/test.Test/Sink", 0);
        bulk[i].writable = true;
    }
    bulk_upload(&n);
    for (int i = 0; i < 500; i++) {
        narrow_step(&n);
        bulk_upload(&n);
    }
    /* What is staged already, and a frame, go before it: 512 KiB are 128 steps. A large one goes by windows. */
    assert_in_range(narrow_answer_takes(&n, 100, bulk_upload), 1, 400);
    assert_in_range(narrow_answer_takes(&n, 400000, bulk_upload), 1, 5000);
    narrow_close(&n);
}

static void bulk_download(struct narrow *n)
{
    (void)n;
}

static void downloads_leave_room(void **unused)
{
    struct narrow n;
    test_message m = TEST_MESSAGE_INIT;

    (void)unused;
    narrow_open(&n);
    seen.to_send = INT32_MAX;
    seen.size = 50000;
    start(&n.pair, &bulk[0], "/test.Test/Source", 0);
    rpc_request_send(bulk[0].request, &m.base);
    rpc_request_half_close(bulk[0].request);
    for (int i = 0; i < 500; i++)
        narrow_step(&n);
    assert_true(bulk[0].messages > 5);
    assert_in_range(narrow_answer_takes(&n, 100, bulk_download), 1, 400);
    assert_in_range(narrow_answer_takes(&n, 400000, bulk_download), 1, 5000);
    narrow_close(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(stalled_streams_hold_nobody_up, setup),
        cmocka_unit_test_setup(shares_are_given_back, setup),
        cmocka_unit_test_setup(windows_grow_with_use, setup),
        cmocka_unit_test_setup(uploads_leave_room, setup),
        cmocka_unit_test_setup(downloads_leave_room, setup),
    };

    setup_pattern(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
