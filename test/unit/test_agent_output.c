/* SPDX-License-Identifier: Apache-2.0 */
/* A container's output on its way to the node: complete and in order whatever breaks, bounded, and losses told. */
#include "agent_kit_streams.h"

/* Somebody holds the pipes after the first process: his time is bounded, and what he wrote meanwhile counts. */
static void test_grandchild_holds_pipe(void **state)
{
    cleanup_free char *command = xasprintf("setsid sh -c 'echo $$ >%s/pid; sleep 0.3; echo two; exec sleep 60' & echo one; sleep 0.1",
                                           kit->dir);
    cleanup_free char *path = xasprintf("%s/pid", kit->dir);
    cleanup_buf struct buf pid = BUF_INIT;
    struct status err;

    (void)state;
    kit_configure();
    kit_run_container(1, command);
    int64_t begin = clock_mono_ms();
    kit_wait_state(1, AGENT_CONTAINER_EXITED);
    int64_t took = clock_mono_ms() - begin;
    assert_true(took >= AGENT_DRAIN_MS && took < AGENT_DRAIN_MS + 10000);
    assert_int_equal(kit_container(1)->output.log.head, 88);
    assert_true(file_read(path, 32, &pid, &err));
    kill((pid_t)strtol(buf_cstr(&pid), NULL, 10), SIGKILL);
}

static void test_terminal(void **state)
{
    struct reader reader = { 0 };

    (void)state;
    kit_configure();
    struct kit_answer a = kit_create(1, "t", "test -t 0 && test -t 1 && test -t 2 && echo terminal; echo err >&2");
    kit_answer_free(&a);
    a = kit_start(1);
    assert_int_equal(a.status.code, STATUS_OK);
    kit_answer_free(&a);
    reader_open(&reader, 1);
    kit_turn_until(&reader.finished);
    cleanup_free char *out = reader_text(&reader, "stdout");
    assert_string_equal(out, "terminal\r\nerr\r\n");
    buf_free(&reader.file);
}

/* ---- logs over connections that break ---- */

static char *numbers(unsigned count)
{
    struct buf text = BUF_INIT;

    for (unsigned i = 1; i <= count; i++)
        buf_printf(&text, "%u\n", i);
    return buf_steal(&text);
}

static void test_logs_resumed(void **state)
{
    struct reader reader = { 0 };
    unsigned cuts = 0;

    (void)state;
    kit_configure();
    kit_run_container(1, "seq 1 300000");
    srand(1);
    reader_open(&reader, 1);
    while (!reader.finished) {
        reader.ack = rand() % 4 != 0;
        for (int turns = rand() % 12; turns >= 0 && !reader.finished; turns--)
            loop_turn(kit->agent.loop, 100);
        if (reader.finished && reader.end)
            break;
        if (rand() % 3 == 0) {
            kit_disconnect();
            if (reader.request != NULL && rand() % 2 == 0)
                kit_turn_ms(rand() % 5);
            kit_connect();
            reader_open(&reader, 1);
            cuts++;
        } else if (!reader.ack) {
            /* Acknowledge late, all at once. */
            PB(LogsRequest) request = INTERLINK__AGENT__V1__LOGS_REQUEST__INIT;
            request.stored = reader.position;
            reader.ack = true;
            if (reader.request != NULL)
                rpc_request_send(reader.request, &request.base);
        }
    }
    assert_int_equal(reader.status.code, STATUS_OK);
    assert_int_equal(reader.jumps, 0);
    cleanup_free char *got = reader_text(&reader, "stdout");
    cleanup_free char *wanted = numbers(300000);
    assert_true(strcmp(got, wanted) == 0);
    assert_int_equal(reader.position, kit_container(1)->output.log.head);
    assert_true(cuts > 3);
    kit_turn_ms(AGENT_LOG_TRIM_MS + 100);
    assert_null(kit_container(1)->output.log.memory);
    assert_null(kit_container(1)->output.streams[0].in);
    buf_free(&reader.file);
}

static bool full(void)
{
    return agent_log_full(&kit_container(1)->output.log) && kit_container(1)->output.streams[0].watch.loop == NULL;
}

static void wait_full(void)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    while (!full() && clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, 100);
    assert_true(full());
}

static void test_back_pressure_then_loss(void **state)
{
    struct reader reader = { 0 };

    (void)state;
    kit_configure();
    kit_run_container(1, "seq 1 400000");
    struct agent_output *output = &kit_container(1)->output;
    wait_full();
    kit_turn_ms(50);
    assert_true(full());
    assert_true(timer_running(&output->stall)); /* waits for the node */
    assert_int_equal(output->log.tail, 0);
    uint64_t before = output->log.head;
    /* Patience is over: the container goes on, and the oldest lines go. */
    output->log.away_since_ms -= LOG_STALL_GRACE_MS;
    timer_start(kit->agent.loop, &output->stall, 0, output->stall.fn, output->stall.arg);
    kit_wait_state(1, AGENT_CONTAINER_EXITED);
    assert_true(output->log.head > before && output->log.tail > 0);
    uint64_t lost = output->log.tail;
    reader_open(&reader, 1);
    kit_turn_until(&reader.finished);
    assert_int_equal(reader.jumps, 1);
    cleanup_free char *told = reader_text(&reader, "stderr");
    char wanted[128];
    snprintf(wanted, sizeof wanted, "interlink-cri: %" PRIu64 " bytes of output were lost: the node was away\n", lost);
    assert_string_equal(told, wanted);
    cleanup_free char *got = reader_text(&reader, "stdout");
    assert_true(str_ends(got, "\n399999\n400000\n"));
    assert_int_equal(reader.position, output->log.head);
    buf_free(&reader.file);
}

/* The process ends while its log is full: the rest waits in the pipe for the node. */
static void test_full_at_the_end(void **state)
{
    struct reader reader = { 0 };

    (void)state;
    kit_configure();
    /* 41 bytes of prefix a line: 64 KiB of short lines fill the log and leave some in the pipe. */
    kit_run_container(1, "yes '' | head -c 90000");
    wait_full();
    kit_turn_ms(AGENT_DRAIN_MS + 300);
    assert_int_not_equal(kit_container(1)->state, AGENT_CONTAINER_EXITED);
    reader_open(&reader, 1);
    kit_turn_until(&reader.finished);
    kit_wait_state(1, AGENT_CONTAINER_EXITED);
    assert_int_equal(reader.position, 90000 * 41);
    assert_int_equal(reader.jumps, 0);
    buf_free(&reader.file);
}

static void test_logs_misuse(void **state)
{
    struct reader reader = { 0 }, second = { 0 };

    (void)state;
    kit_configure();
    reader_open(&reader, 9);
    kit_turn_until(&reader.finished);
    assert_int_equal(reader.status.code, STATUS_NOT_FOUND);
    kit_run_container(1, "echo one; exec sleep 100");
    reader.position = 1000;
    reader_open(&reader, 1);
    kit_turn_until(&reader.finished);
    assert_int_equal(reader.status.code, STATUS_OUT_OF_RANGE);
    /* One reader at a time: the newer one. */
    reader.position = 0;
    reader_open(&reader, 1);
    kit_turn_ms(20);
    assert_false(reader.finished);
    reader_open(&second, 1);
    kit_turn_until(&reader.finished);
    assert_int_equal(reader.status.code, STATUS_ABORTED);
    /* Acknowledging what was never sent. */
    PB(LogsRequest) request = INTERLINK__AGENT__V1__LOGS_REQUEST__INIT;
    request.stored = 1000000;
    rpc_request_send(second.request, &request.base);
    kit_turn_until(&second.finished);
    assert_int_equal(second.status.code, STATUS_OUT_OF_RANGE);
    /* The container goes under the reader. */
    struct reader third = { .position = 44 };
    reader_open(&third, 1);
    kit_turn_ms(20);
    third.ack = false;
    kit_remove(1);
    kit_turn_until(&third.finished);
    buf_free(&reader.file);
    buf_free(&second.file);
    buf_free(&third.file);
}

#define KIT_TEST(fn) cmocka_unit_test_setup_teardown(fn, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KIT_TEST(test_grandchild_holds_pipe),
        KIT_TEST(test_terminal),
        KIT_TEST(test_logs_resumed),
        KIT_TEST(test_back_pressure_then_loss),
        KIT_TEST(test_full_at_the_end),
        KIT_TEST(test_logs_misuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
