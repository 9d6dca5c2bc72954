/* SPDX-License-Identifier: Apache-2.0 */
/* Clients at a container's standard streams: many at once, slow ones, ones that go; input, terminals, and the log beside. */
#include "agent_kit_exec.h"
#include "agent_kit_streams.h"

/* So that the test need not wait for so long. */
#undef AGENT_ATTACH_STALL_MS
#define AGENT_ATTACH_STALL_MS 2000
#include "agent/agent_attach.c"

/* `streams`: 'i', 'o', 'e'. */
static void attach_start(struct exec *e, unsigned container, const char *streams)
{
    PB(AttachStart) start = INTERLINK__AGENT__V1__ATTACH_START__INIT;
    PB(ExecRequest) request = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;

    exec_open(e, "Attach");
    start.container_id = kit_id(container);
    start.stdin = strchr(streams, 'i') != NULL;
    start.stdout = strchr(streams, 'o') != NULL;
    start.stderr = strchr(streams, 'e') != NULL;
    request.attach = &start;
    rpc_request_send(e->request, &request.base);
}

static void wait_attached(size_t count)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    while (kit->agent.attach_count != count && clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, 100);
    assert_int_equal(kit->agent.attach_count, count);
    kit_turn_ms(30); /* its first message follows its headers */
}

static void wait_text(const struct exec *e, size_t n)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    while (e->out.n < n && clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, 100);
    assert_true(e->out.n >= n);
}

static int setup(void **state)
{
    kit_setup(state);
    kit_configure();
    return 0;
}

/* kubectl run -i: a shell whose input is the first client's. */
static void test_once(void **state)
{
    struct exec e;
    struct reader log = { 0 };

    (void)state;
    kit_run_container_with(1, "i1", "exec sh");
    reader_open(&log, 1);
    attach_start(&e, 1, "ioe");
    exec_input(&e, "echo hel", 8, false);
    exec_input(&e, "lo; exit 3\n", 11, false);
    kit_turn_until(&e.finished);
    assert_int_equal(e.status.code, STATUS_OK);
    assert_true(e.exited);
    assert_int_equal(e.exit_code, 3);
    assert_string_equal(buf_cstr(&e.out), "hello\n");
    assert_int_equal(e.err.n, 0);
    exec_free(&e);
    kit_turn_until(&log.finished);
    cleanup_free char *text = reader_text(&log, "stdout");
    assert_string_equal(text, "hello\n");
    buf_free(&log.file);
}

/* The end of the first client's input is the end of the container's; without stdin_once it is nothing to the container. */
static void test_input_end(void **state)
{
    struct exec e, second;

    (void)state;
    for (int how = 0; how < 3; how++) {
        kit_run_container_with(1, "i1", "cat; echo end >&2; exec sleep 1000");
        attach_start(&e, 1, "ioe");
        exec_input(&e, "x\n", 2, how == 0);
        wait_text(&e, 2);
        if (how == 1)
            rpc_request_half_close(e.request);
        if (how == 2) {
            rpc_request_cancel(e.request);
            wait_attached(0);
        }
        if (how < 2) {
            while (e.err.n == 0)
                loop_turn(kit->agent.loop, 100);
            assert_string_equal(buf_cstr(&e.err), "end\n");
            assert_false(e.finished);
        }
        attach_start(&second, 1, "io");
        kit_turn_until(&second.finished);
        assert_int_equal(second.status.code, STATUS_FAILED_PRECONDITION);
        assert_non_null(strstr(second.status.message, "stdin_once"));
        assert_int_equal(kit_remove(1), STATUS_OK);
        if (how < 2) {
            kit_turn_until(&e.finished);
            assert_int_equal(e.exit_code, 137);
        }
        exec_free(&e);
    }
    kit_run_container_with(2, "i", "cat; echo end");
    for (int how = 0; how < 3; how++) {
        attach_start(&e, 2, "io");
        exec_input(&e, "more\n", 5, how == 0);
        wait_text(&e, 5);
        if (how == 1)
            rpc_request_half_close(e.request);
        kit_turn_ms(30);
        assert_false(e.finished);
        assert_string_equal(buf_cstr(&e.out), "more\n");
        rpc_request_cancel(e.request);
        wait_attached(0);
        exec_free(&e);
    }
    assert_int_equal(kit_container(2)->state, AGENT_CONTAINER_RUNNING);
}

/* Nothing but input: done when that has ended. */
static void test_input_only(void **state)
{
    struct exec e, watcher;

    (void)state;
    kit_run_container_with(1, "i", "cat");
    attach_start(&watcher, 1, "o");
    wait_attached(1);
    attach_start(&e, 1, "i");
    cleanup_free char *data = xmalloc(500000);
    memset(data, 'x', 500000);
    exec_input(&e, data, 500000, true);
    kit_turn_until(&e.finished);
    assert_int_equal(e.status.code, STATUS_OK);
    assert_false(e.exited);
    wait_text(&watcher, 500000);
    rpc_request_cancel(watcher.request);
    exec_free(&watcher);
    exec_free(&e);
}

/* Two write at once: each message stays whole, more than the pipe holds. */
static void test_input_of_two(void **state)
{
    struct exec a, b;
    enum { SIZE = 200000, COUNT = 10 };
    cleanup_free char *data = xmalloc(SIZE);
    struct reader log = { 0 };

    (void)state;
    kit_run_container_with(1, "i", "exec cat");
    reader_open(&log, 1);
    attach_start(&a, 1, "io");
    attach_start(&b, 1, "i");
    wait_attached(2);
    for (int i = 0; i < COUNT; i++) {
        memset(data, 'a', SIZE);
        exec_input(&a, data, SIZE, false);
        memset(data, 'b', SIZE);
        exec_input(&b, data, SIZE, false);
    }
    wait_text(&a, (size_t)2 * SIZE * COUNT);
    size_t counts[2] = { 0, 0 };
    for (size_t at = 0; at < a.out.n; at += SIZE) {
        for (size_t i = 1; i < SIZE; i++)
            assert_int_equal(a.out.p[at + i], a.out.p[at]);
        counts[a.out.p[at] - 'a']++;
    }
    assert_int_equal(counts[0], COUNT);
    assert_int_equal(counts[1], COUNT);
    rpc_request_cancel(a.request);
    rpc_request_cancel(b.request);
    rpc_request_cancel(log.request);
    exec_free(&a);
    buf_free(&log.file);
}

/* Input that nobody reads, and a reader that closes its end. */
static void test_input_unread(void **state)
{
    struct exec a, b;
    cleanup_free char *data = xcalloc(1, 1 << 20);

    (void)state;
    kit_run_container_with(1, "i", "sleep 0.3; exec 0<&-; echo closed; exec sleep 1000");
    attach_start(&a, 1, "io");
    attach_start(&b, 1, "io");
    for (int i = 0; i < 3; i++) {
        exec_input(&a, data, 1 << 20, false);
        exec_input(&b, data, 1 << 20, false);
    }
    wait_text(&a, 7);
    wait_text(&b, 7);
    exec_input(&a, data, 1 << 20, true);
    kit_turn_ms(50);
    assert_false(a.finished);
    rpc_request_cancel(a.request);
    rpc_request_cancel(b.request);
    exec_free(&a);
    exec_free(&b);
}

/* Many clients see what is written from when they came on; all of it is in the log. */
static void test_many(void **state)
{
    enum { CLIENTS = 20 };
    struct exec early, clients[CLIENTS];
    struct reader log = { 0 };

    (void)state;
    kit_run_container_with(1, "i", "echo first; read x; i=0; while [ $i -lt 2000 ]; do echo $i; echo $i >&2; i=$((i + 1)); done; exit 7");
    reader_open(&log, 1);
    attach_start(&early, 1, "ioe");
    while (log.file.n == 0)
        loop_turn(kit->agent.loop, 100);
    for (int i = 0; i < CLIENTS; i++)
        attach_start(&clients[i], 1, i % 2 == 0 ? "oe" : "o");
    wait_attached(CLIENTS + 1);
    rpc_request_cancel(clients[0].request);
    exec_input(&early, "go\n", 3, false);
    kit_turn_until(&log.finished);
    cleanup_free char *out = reader_text(&log, "stdout"), *errors = reader_text(&log, "stderr");
    assert_string_equal(out + 6, errors);
    for (int i = 1; i < CLIENTS; i++) {
        kit_turn_until(&clients[i].finished);
        assert_true(clients[i].exited);
        assert_int_equal(clients[i].exit_code, 7);
        assert_string_equal(buf_cstr(&clients[i].out), out + 6);
        assert_string_equal(buf_cstr(&clients[i].err), i % 2 == 0 ? errors : "");
        exec_free(&clients[i]);
    }
    kit_turn_until(&early.finished);
    exec_free(&early);
    exec_free(&clients[0]);
    buf_free(&log.file);
}

/* A client that takes nothing holds up the process; when it does again, nothing is missing. After the end it is not waited
 * for. */
static void test_slow(void **state)
{
    struct exec slow;
    struct reader log = { 0 };

    (void)state;
    kit_run_container_with(1, "i", "read x; head -c 20000000 /dev/zero | tr '\\0' x; echo; read x; echo last");
    reader_open(&log, 1);
    attach_start(&slow, 1, "io");
    exec_input(&slow, "\n", 1, false);
    wait_text(&slow, 1);
    rpc_request_pause(slow.request, true);
    kit_turn_ms(200);
    size_t held = log.file.n;
    kit_turn_ms(100);
    assert_int_equal(log.file.n, held);
    assert_true(held < 10000000);
    rpc_request_pause(slow.request, false);
    wait_text(&slow, 20000001);
    assert_int_equal(slow.out.n, 20000001);
    rpc_request_pause(slow.request, true);
    exec_input(&slow, "\n", 1, false);
    kit_wait_state(1, AGENT_CONTAINER_EXITED);
    kit_turn_until(&log.finished);
    rpc_request_pause(slow.request, false);
    kit_turn_until(&slow.finished);
    assert_int_equal(slow.out.n, 20000006);
    exec_free(&slow);
    buf_free(&log.file);
}

/* The process ends while a client takes nothing, with full pipes behind it. */
static void test_slow_end(void **state)
{
    struct exec slow;
    struct reader log = { 0 };

    (void)state;
    kit_run_container_with(1, "i", "read x; head -c 3000000 /dev/zero | tr '\\0' x");
    reader_open(&log, 1);
    attach_start(&slow, 1, "io");
    exec_input(&slow, "\n", 1, false);
    wait_text(&slow, 1);
    rpc_request_pause(slow.request, true);
    kit_wait_state(1, AGENT_CONTAINER_RUNNING);
    kit_turn_ms(300);
    kit_signal(1, SIGKILL);
    kit_wait_state(1, AGENT_CONTAINER_EXITED);
    kit_turn_until(&log.finished);
    rpc_request_pause(slow.request, false);
    kit_turn_until(&slow.finished);
    cleanup_free char *text = reader_text(&log, "stdout");
    assert_int_equal(strlen(text), slow.out.n);
    assert_true(slow.exited);
    exec_free(&slow);
    buf_free(&log.file);
}

/* One that takes nothing for ever is sent away; the container goes on. */
static void test_stuck(void **state)
{
    struct exec stuck;
    struct reader log = { 0 };

    (void)state;
    kit_run_container_with(1, "i", "read x; head -c 5000000 /dev/zero | tr '\\0' x");
    reader_open(&log, 1);
    attach_start(&stuck, 1, "io");
    exec_input(&stuck, "\n", 1, false);
    wait_text(&stuck, 1);
    rpc_request_pause(stuck.request, true);
    kit_turn_until(&log.finished);
    cleanup_free char *text = reader_text(&log, "stdout");
    assert_int_equal(strlen(text), 5000000);
    assert_int_equal(kit->agent.attach_count, 0);
    rpc_request_pause(stuck.request, false);
    kit_turn_until(&stuck.finished);
    assert_int_equal(stuck.status.code, STATUS_RESOURCE_EXHAUSTED);
    exec_free(&stuck);
    buf_free(&log.file);
}

static void test_terminal(void **state)
{
    struct exec a, b;
    PB(ExecRequest) resize = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;

    (void)state;
    kit_run_container_with(1, "ti1", "read line; stty size; echo got $line; read line; echo then $line; exec sleep 1000");
    attach_start(&a, 1, "io");
    resize.width = 100;
    resize.height = 50;
    rpc_request_send(a.request, &resize.base);
    exec_input(&a, "word\n", 5, false);
    wait_text(&a, strlen("word\r\n50 100\r\ngot word\r\n"));
    assert_string_equal(buf_cstr(&a.out), "word\r\n50 100\r\ngot word\r\n");
    /* Its end is no end of a terminal, even with stdin_once. */
    rpc_request_cancel(a.request);
    wait_attached(0);
    exec_free(&a);
    attach_start(&b, 1, "ioe");
    exec_input(&b, "again\n", 6, true);
    wait_text(&b, strlen("again\r\nthen again\r\n"));
    assert_string_equal(buf_cstr(&b.out), "again\r\nthen again\r\n");
    kit_signal(1, SIGKILL);
    kit_turn_until(&b.finished);
    assert_int_equal(b.exit_code, 137);
    assert_int_equal(b.err.n, 0);
    exec_free(&b);
}

static enum status_code refused(unsigned container, const char *streams)
{
    struct exec e;

    attach_start(&e, container, streams);
    kit_turn_until(&e.finished);
    exec_free(&e);
    return e.status.code;
}

static void test_refusals(void **state)
{
    struct exec e;
    PB(ExecRequest) empty = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;
    struct exec many[AGENT_ATTACHES_MAX + 1];

    (void)state;
    assert_int_equal(refused(1, "o"), STATUS_NOT_FOUND);
    struct kit_answer a = kit_create(1, "", "exec sleep 1000");
    kit_answer_free(&a);
    assert_int_equal(refused(1, "o"), STATUS_FAILED_PRECONDITION);
    a = kit_start(1);
    kit_answer_free(&a);
    assert_int_equal(refused(1, ""), STATUS_INVALID_ARGUMENT);
    assert_int_equal(refused(1, "io"), STATUS_FAILED_PRECONDITION);
    exec_open(&e, "Attach");
    rpc_request_send(e.request, &empty.base);
    kit_turn_until(&e.finished);
    assert_int_equal(e.status.code, STATUS_INVALID_ARGUMENT);
    exec_open(&e, "Attach");
    rpc_request_half_close(e.request);
    kit_turn_until(&e.finished);
    assert_int_equal(e.status.code, STATUS_INVALID_ARGUMENT);
    for (int i = 0; i < AGENT_ATTACHES_MAX; i++)
        attach_start(&many[i], 1, "o");
    wait_attached(AGENT_ATTACHES_MAX);
    assert_int_equal(refused(1, "o"), STATUS_RESOURCE_EXHAUSTED);
    /* The whole connection goes: the process runs on. */
    kit_disconnect();
    wait_attached(0);
    kit_connect();
    assert_int_equal(kit_container(1)->state, AGENT_CONTAINER_RUNNING);
    kit_run_container(2, "true");
    kit_wait_state(2, AGENT_CONTAINER_EXITED);
    assert_int_equal(refused(2, "o"), STATUS_FAILED_PRECONDITION);
}

#define KIT_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KIT_TEST(test_once),      KIT_TEST(test_input_end), KIT_TEST(test_input_only), KIT_TEST(test_input_of_two),
        KIT_TEST(test_input_unread), KIT_TEST(test_many),   KIT_TEST(test_slow),       KIT_TEST(test_slow_end),
        KIT_TEST(test_stuck),     KIT_TEST(test_terminal),  KIT_TEST(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
