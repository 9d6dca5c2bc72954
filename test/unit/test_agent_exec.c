/* SPDX-License-Identifier: Apache-2.0 */
/* Processes run in a container: streams, back-pressure, ends of all kinds, and that nothing is left behind. */
#include "agent_kit_exec.h"

#include <dirent.h>

/* `flags`: 't' terminal (80 x 24), 'i' standard input. */
static void exec_start(struct exec *e, unsigned container, const char *flags, int64_t timeout_ms, const char *command)
{
    char *words[] = { (char *)(uintptr_t)"/bin/sh", (char *)(uintptr_t)"-c", (char *)(uintptr_t)command };
    PB(ExecStart) start = INTERLINK__AGENT__V1__EXEC_START__INIT;
    PB(ExecRequest) request = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;

    exec_open(e, "Exec");
    start.container_id = kit_id(container);
    start.command = words;
    start.n_command = command != NULL ? 3 : 0;
    start.tty = strchr(flags, 't') != NULL;
    start.stdin = strchr(flags, 'i') != NULL;
    start.width = start.tty ? 80 : 0;
    start.height = start.tty ? 24 : 0;
    start.timeout_ms = timeout_ms;
    request.start = &start;
    rpc_request_send(e->request, &request.base);
}

static void exec_run(struct exec *e, const char *flags, int64_t timeout_ms, const char *command)
{
    exec_start(e, 1, flags, timeout_ms, command);
    kit_turn_until(&e->finished);
}

static int setup(void **state)
{
    kit_setup(state);
    kit_configure();
    kit_run_container(1, "exec sleep 1000");
    return 0;
}

/* The parent of a process that lives; 0: none such. */
static pid_t parent_of(pid_t pid)
{
    char path[32];
    cleanup_buf struct buf text = BUF_INIT;
    struct status err;
    char state = 'X';
    int parent = 0;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (!file_read(path, 4096, &text, &err) || sscanf(strrchr(buf_cstr(&text), ')') + 1, " %c %d", &state, &parent) != 2)
        return 0;
    return state == 'Z' || state == 'X' ? 0 : parent;
}

/* Our descendants (what lost its parent is our child), but for the container's process. */
static unsigned processes_left(void)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    unsigned count = 0;
    uint64_t pid;

    while ((entry = readdir(dir)) != NULL) {
        if (!parse_u64(entry->d_name, INT32_MAX, &pid) || (pid_t)pid == kit_container(1)->pid)
            continue;
        pid_t ancestor = parent_of((pid_t)pid);
        while (ancestor > 1 && ancestor != getpid())
            ancestor = parent_of(ancestor);
        count += ancestor == getpid();
    }
    closedir(dir);
    return count;
}

static void test_streams(void **state)
{
    struct exec e;

    (void)state;
    exec_run(&e, "", 0, "echo out; echo err >&2; cat; exit 9");
    assert_int_equal(e.status.code, STATUS_OK);
    assert_true(e.exited && !e.timed_out);
    assert_int_equal(e.exit_code, 9);
    assert_string_equal(buf_cstr(&e.out), "out\n");
    assert_string_equal(buf_cstr(&e.err), "err\n");
    exec_free(&e);
    exec_run(&e, "", 0, "kill -KILL $$");
    assert_int_equal(e.exit_code, 137);
    exec_free(&e);
}

static void test_errors(void **state)
{
    struct exec e;
    char *words[] = { (char *)(uintptr_t)"/does/not/exist" };
    PB(ExecStart) start = INTERLINK__AGENT__V1__EXEC_START__INIT;
    PB(ExecRequest) request = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;

    (void)state;
    exec_start(&e, 2, "", 0, "true");
    kit_turn_until(&e.finished);
    assert_int_equal(e.status.code, STATUS_NOT_FOUND);
    exec_run(&e, "", 0, NULL);
    assert_int_equal(e.status.code, STATUS_INVALID_ARGUMENT);
    exec_open(&e, "Exec");
    rpc_request_send(e.request, &request.base);
    kit_turn_until(&e.finished);
    assert_int_equal(e.status.code, STATUS_INVALID_ARGUMENT);
    exec_open(&e, "Exec");
    rpc_request_half_close(e.request);
    kit_turn_until(&e.finished);
    assert_int_equal(e.status.code, STATUS_INVALID_ARGUMENT);
    exec_open(&e, "Exec");
    start.container_id = kit_id(1);
    start.command = words;
    start.n_command = 1;
    request.start = &start;
    rpc_request_send(e.request, &request.base);
    kit_turn_until(&e.finished);
    assert_int_equal(e.status.code, STATUS_NOT_FOUND);
    assert_false(e.exited);
    cleanup_free char *huge = xmalloc(AGENT_COMMAND_BYTES_MAX + 1);
    memset(huge, 'x', AGENT_COMMAND_BYTES_MAX);
    huge[AGENT_COMMAND_BYTES_MAX] = '\0';
    exec_run(&e, "", 0, huge);
    assert_int_equal(e.status.code, STATUS_INVALID_ARGUMENT);
    kit_run_container(3, "true");
    kit_wait_state(3, AGENT_CONTAINER_EXITED);
    exec_start(&e, 3, "", 0, "true");
    kit_turn_until(&e.finished);
    assert_int_equal(e.status.code, STATUS_FAILED_PRECONDITION);
    assert_int_equal(kit->agent.exec_count, 0);
}

static void test_exit_before_adopt(void **state)
{
    struct exec e;

    (void)state;
    kit_engine.start_delay_ms = 20;
    for (int i = 0; i < 20; i++) {
        exec_run(&e, "", 0, "echo x; exit 3");
        assert_int_equal(e.exit_code, 3);
        assert_string_equal(buf_cstr(&e.out), "x\n");
        exec_free(&e);
    }
    assert_int_equal(kit->agent.orphans.expected, 0);
}

/* Both ways at once, more than all buffers hold. */
static void test_input_echoed(void **state)
{
    struct exec e;
    enum { PIECE = 100000, PIECES = 80 };
    cleanup_free uint8_t *data = xmalloc((size_t)PIECE * PIECES);

    (void)state;
    for (size_t i = 0; i < (size_t)PIECE * PIECES; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    exec_start(&e, 1, "i", 0, "cat");
    for (size_t i = 0; i < PIECES; i++) {
        exec_input(&e, data + i * PIECE, PIECE, false);
        if (i % 8 == 0)
            loop_turn(kit->agent.loop, 0);
    }
    exec_input(&e, NULL, 0, true);
    kit_turn_until(&e.finished);
    assert_int_equal(e.exit_code, 0);
    assert_int_equal(e.out.n, (size_t)PIECE * PIECES);
    assert_memory_equal(e.out.p, data, e.out.n);
    exec_free(&e);
}

static void test_input_ends(void **state)
{
    struct exec e;

    (void)state;
    /* By half-close. */
    exec_start(&e, 1, "i", 0, "wc -c");
    exec_input(&e, "hello", 5, false);
    rpc_request_half_close(e.request);
    kit_turn_until(&e.finished);
    assert_string_equal(buf_cstr(&e.out), "5\n");
    exec_free(&e);
    /* Nobody reads it. */
    exec_start(&e, 1, "i", 0, "exec 0<&-; sleep 0.1; echo fine");
    cleanup_free uint8_t *data = xcalloc(1, 1u << 20);
    for (int i = 0; i < 5; i++)
        exec_input(&e, data, 1u << 20, false);
    kit_turn_until(&e.finished);
    assert_int_equal(e.status.code, STATUS_OK);
    assert_string_equal(buf_cstr(&e.out), "fine\n");
    exec_free(&e);
    /* Held open, the process waits. */
    exec_start(&e, 1, "i", 0, "cat");
    kit_turn_ms(100);
    assert_false(e.finished);
    exec_input(&e, "x", 1, true);
    kit_turn_until(&e.finished);
    assert_string_equal(buf_cstr(&e.out), "x");
    exec_free(&e);
}

/* A caller that does not take the output holds the process up, and then gets all of it. */
static void test_slow_caller(void **state)
{
    struct exec e;

    (void)state;
    exec_start(&e, 1, "", 0, "head -c 30000000 /dev/zero");
    while (e.messages == 0)
        loop_turn(kit->agent.loop, 100);
    rpc_request_pause(e.request, true);
    kit_turn_ms(300);
    size_t messages = e.messages;
    assert_true(e.out.n < 8000000);
    kit_turn_ms(AGENT_DRAIN_MS + 200);
    assert_int_equal(e.messages, messages);
    rpc_request_pause(e.request, false);
    kit_turn_until(&e.finished);
    assert_int_equal(e.out.n, 30000000);
    assert_int_equal(e.exit_code, 0);
    exec_free(&e);
}

static void test_terminal(void **state)
{
    struct exec e;
    PB(ExecRequest) resize = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;

    (void)state;
    exec_start(&e, 1, "ti", 0, "stty size; read line; stty size; echo got $line; cat; echo end");
    while (e.out.n < 7)
        loop_turn(kit->agent.loop, 100);
    assert_string_equal(buf_cstr(&e.out), "24 80\r\n");
    resize.width = 100;
    resize.height = 50;
    rpc_request_send(e.request, &resize.base);
    exec_input(&e, "word\n", 5, false);
    exec_input(&e, "", 0, true); /* cat reads an end */
    kit_turn_until(&e.finished);
    assert_string_equal(buf_cstr(&e.out), "24 80\r\nword\r\n50 100\r\ngot word\r\nend\r\n");
    assert_int_equal(e.err.n, 0);
    exec_free(&e);
}

static void test_timeout(void **state)
{
    struct exec e;

    (void)state;
    int64_t begin = clock_mono_ms();
    /* Children, a daemon in its own session, one whose parent is gone, and one that ignores what can be ignored. */
    exec_run(&e, "", 300,
             "sleep 1000 & setsid sleep 1001 & (setsid sleep 1002 &) ; (trap '' TERM HUP INT; sleep 1003) & echo begun; sleep 1004");
    int64_t took = clock_mono_ms() - begin;
    assert_true(took >= 300 && took < 10000);
    assert_int_equal(e.status.code, STATUS_OK);
    assert_true(e.exited && e.timed_out);
    assert_int_equal(e.exit_code, 137);
    assert_string_equal(buf_cstr(&e.out), "begun\n");
    assert_int_equal(processes_left(), 0);
    exec_free(&e);
    /* One that forks all the time. */
    exec_run(&e, "", 200, "while :; do sleep 0.01 & done");
    assert_true(e.timed_out);
    assert_int_equal(processes_left(), 0);
    exec_free(&e);
}

static void wait_execs_gone(void)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    while (kit->agent.exec_count > 0 && clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, 100);
    assert_int_equal(kit->agent.exec_count, 0);
}

static void test_caller_goes(void **state)
{
    struct exec e;

    (void)state;
    exec_start(&e, 1, "i", 0, "sleep 1000 & echo begun; cat");
    while (e.messages == 0)
        loop_turn(kit->agent.loop, 100);
    assert_int_equal(processes_left(), 3);
    rpc_request_cancel(e.request);
    wait_execs_gone();
    assert_int_equal(processes_left(), 0);
    exec_free(&e);
    /* Before it has even begun. */
    kit_engine.start_delay_ms = 50;
    exec_start(&e, 1, "", 0, "sleep 1000");
    kit_turn_ms(20);
    assert_int_equal(kit->agent.exec_count, 1);
    rpc_request_cancel(e.request);
    wait_execs_gone();
    assert_int_equal(processes_left(), 0);
    exec_free(&e);
    kit_engine.start_delay_ms = 0;
    /* The whole connection. */
    exec_start(&e, 1, "ti", 0, "sleep 1000 & echo begun; cat");
    while (e.messages == 0)
        loop_turn(kit->agent.loop, 100);
    kit_disconnect();
    wait_execs_gone();
    assert_int_equal(processes_left(), 0);
    exec_free(&e);
    kit_connect();
    /* While it cannot send. */
    exec_start(&e, 1, "", 0, "cat /dev/zero");
    while (e.messages == 0)
        loop_turn(kit->agent.loop, 100);
    rpc_request_pause(e.request, true);
    kit_turn_ms(200);
    rpc_request_cancel(e.request);
    wait_execs_gone();
    assert_int_equal(processes_left(), 0);
    exec_free(&e);
}

static void test_descendant_holds_pipe(void **state)
{
    struct exec e;

    (void)state;
    int64_t begin = clock_mono_ms();
    exec_run(&e, "", 0, "sleep 60 & echo $!; exit 2");
    int64_t took = clock_mono_ms() - begin;
    assert_true(took >= AGENT_DRAIN_MS && took < AGENT_DRAIN_MS + 10000);
    assert_int_equal(e.exit_code, 2);
    kill((pid_t)strtol(buf_cstr(&e.out), NULL, 10), SIGKILL);
    exec_free(&e);
}

/* The caller takes longer than that for what the command had written before it ended, and what descendants write later is nobody's. */
static void test_slow_caller_after_the_end(void **state)
{
    struct exec e;

    (void)state;
    exec_start(&e, 1, "", 0, "head -c 2500000 /dev/zero; (sleep 2; echo late; sleep 60) & echo end >&2");
    for (int64_t until = clock_mono_ms() + AGENT_DRAIN_MS + 2500; clock_mono_ms() < until && !e.finished;) {
        size_t messages = e.messages;
        rpc_request_pause(e.request, false);
        for (int i = 0; i < 20 && e.messages == messages && !e.finished; i++)
            loop_turn(kit->agent.loop, 5);
        if (!e.finished)
            rpc_request_pause(e.request, true);
        kit_turn_ms(50);
    }
    if (!e.finished)
        rpc_request_pause(e.request, false);
    kit_turn_until(&e.finished);
    assert_int_equal(e.out.n, 2500000);
    assert_string_equal(buf_cstr(&e.err), "end\n");
    exec_free(&e);
}

static void test_container_ends(void **state)
{
    struct exec e;

    (void)state;
    exec_start(&e, 1, "", 0, "echo begun; exec sleep 1000");
    while (e.messages == 0)
        loop_turn(kit->agent.loop, 100);
    assert_int_equal(kit_remove(1), STATUS_OK);
    kit_turn_until(&e.finished);
    assert_int_equal(e.exit_code, 137);
    exec_free(&e);
}

static void test_many(void **state)
{
    static struct exec execs[AGENT_EXECS_MAX + 1];

    (void)state;
    for (size_t i = 0; i < 40; i++)
        exec_start(&execs[i], 1, "", 0, "exec cat /dev/null");
    for (size_t i = 0; i < 40; i++) {
        kit_turn_until(&execs[i].finished);
        assert_int_equal(execs[i].status.code, STATUS_OK);
        assert_int_equal(execs[i].exit_code, 0);
    }
}

#define KIT_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KIT_TEST(test_streams),
        KIT_TEST(test_errors),
        KIT_TEST(test_exit_before_adopt),
        KIT_TEST(test_input_echoed),
        KIT_TEST(test_input_ends),
        KIT_TEST(test_slow_caller),
        KIT_TEST(test_terminal),
        KIT_TEST(test_timeout),
        KIT_TEST(test_caller_goes),
        KIT_TEST(test_descendant_holds_pipe),
        KIT_TEST(test_slow_caller_after_the_end),
        KIT_TEST(test_container_ends),
        KIT_TEST(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
