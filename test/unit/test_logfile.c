/* SPDX-License-Identifier: Apache-2.0 */
/* The log file against an agent of a few lines: cut at random places, nothing may be lost or doubled. */
#include "rpc_pair.h"

#include "agent.pb-c.h"
#include "io/file.h"
#include "agent/logfile.h"

#include <sys/resource.h>
#include <sys/stat.h>

#define TOTAL 200000

/* ---- the agent's side: keeps everything above what was acknowledged ---- */

static struct {
    struct rpc_call *call;
    uint8_t data[TOTAL];
    size_t made, sent, acknowledged;
    bool ended, end_sent;
} agent;

static void agent_send(size_t most)
{
    Interlink__Agent__V1__LogsResponse response = INTERLINK__AGENT__V1__LOGS_RESPONSE__INIT;
    size_t n = agent.made - agent.sent < most ? agent.made - agent.sent : most;

    if (agent.call == NULL || (n == 0 && !(agent.ended && agent.sent == agent.made && !agent.end_sent)))
        return;
    response.offset = agent.sent;
    response.data = (ProtobufCBinaryData){ n, agent.data + agent.sent };
    agent.sent += n;
    response.end = agent.ended && agent.sent == agent.made;
    agent.end_sent |= response.end;
    rpc_send(agent.call, &response.base);
}

static void on_cancel(void *arg)
{
    if (agent.call == arg) /* else its successor has come already */
        agent.call = NULL;
}

static void on_request(void *arg, const ProtobufCMessage *message)
{
    const Interlink__Agent__V1__LogsRequest *request = (const void *)message;

    if (request == NULL) {
        rpc_finish(arg, NULL);
        on_cancel(arg);
        return;
    }
    if (*request->container_id != '\0') {
        assert_true(request->from >= agent.acknowledged); /* less would be gone already */
        agent.sent = request->from;
        agent.end_sent = false;
    } else {
        assert_true(request->stored <= agent.sent && request->stored >= agent.acknowledged);
        agent.acknowledged = request->stored;
    }
}

static void on_logs(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    agent.call = call;
    rpc_call_on_message(call, on_request, call);
    rpc_call_on_cancel(call, on_cancel, call);
}

static const struct rpc_method methods[] = {
    { "Logs", RPC_BIDI_STREAMING, &interlink__agent__v1__logs_request__descriptor,
      &interlink__agent__v1__logs_response__descriptor, on_logs },
};
static const struct rpc_service service = { "interlink.agent.v1.Agent", methods, 1, NULL };
static const struct rpc_service *const list[] = { &service };
static const struct rpc_services services = { list, 1, NULL, NULL };

/* ---- the node's side ---- */

static char dir[] = "/tmp/test_logfile.XXXXXX";
static char path[128], position[128];
static bool over;

static void on_end(void *arg)
{
    (void)arg;
    over = true;
}

static struct logfile *open_log(struct loop *loop)
{
    struct status err = STATUS_INIT;
    struct logfile *log = logfile_new(
        &(struct logfile_options){
            .loop = loop, .container_id = "c1", .path = path, .position_path = position, .on_end = on_end },
        &err);
    if (log == NULL)
        fail_msg("%s", err.message);
    return log;
}

static void begin(struct rpc_pair *pair)
{
    snprintf(path, sizeof path, "%s/pod/c/0.log", dir);
    snprintf(position, sizeof position, "%s/position", dir);
    memset(&agent, 0, sizeof agent);
    over = false;
    for (size_t i = 0; i < TOTAL; i++)
        agent.data[i] = (uint8_t)("0123456789abcdef\n"[(i * 7 + i / 17) % 17]);
    rpc_pair_open(pair, &services);
}

static void end(struct rpc_pair *pair)
{
    struct status err = STATUS_INIT;
    char *pod = xasprintf("%s/pod", dir);

    rpc_pair_close(pair);
    assert_true(tree_remove(pod, &err));
    unlink(position);
    free(pod);
}

/* The files in this order hold the whole stream. */
static void check_content(const char *const *files, size_t count)
{
    struct buf all = BUF_INIT;
    struct status err = STATUS_INIT;

    for (size_t i = 0; i < count; i++)
        assert_true(file_read(files[i], 1 << 20, &all, &err));
    assert_int_equal(all.n, agent.made);
    assert_memory_equal(all.p, agent.data, all.n);
    buf_free(&all);
}

static void everything_arrives_once_over_crashes_and_reconnections(void **state)
{
    struct rpc_pair pair;
    (void)state;

    begin(&pair);
    struct logfile *log = open_log(pair.loop);
    logfile_connect(log, pair.client);
    srandom(7);
    for (int step = 0; agent.made < TOTAL || !over; step++) {
        agent.made += (size_t)random() % 3000;
        agent.ended = agent.made >= TOTAL;
        agent.made = agent.made < TOTAL ? agent.made : TOTAL;
        for (int i = 0; i < 3; i++)
            agent_send((size_t)random() % 2000 + 1);
        for (long turns = random() % 4; turns > 0; turns--)
            loop_turn(pair.loop, 0);
        if (step % 5 == 4 && !over) { /* a crash: nothing is told to anybody, only the files stay */
            logfile_free(log);
            log = open_log(pair.loop);
            for (long turns = random() % 4; turns > 0; turns--)
                loop_turn(pair.loop, 0);
            logfile_connect(log, pair.client);
        }
        rpc_pair_settle(&pair);
        assert_true(step < 10000);
    }
    assert_true(logfile_ended(log));
    assert_int_equal(logfile_stored(log), TOTAL);
    check_content((const char *[]){ path }, 1);
    logfile_free(log);
    end(&pair);
}

static void rotation_cuts_between_two_writes(void **state)
{
    struct rpc_pair pair;
    struct status err = STATUS_INIT;
    char first[160];
    struct stat st;
    (void)state;

    begin(&pair);
    snprintf(first, sizeof first, "%s.1", path);
    struct logfile *log = open_log(pair.loop);
    logfile_connect(log, pair.client);
    rpc_pair_settle(&pair);
    agent.made = 1000;
    agent_send(1000);
    rpc_pair_settle(&pair);
    /* kubelet renames, we crash before it can say so: the renamed file goes on. */
    assert_int_equal(rename(path, first), 0);
    logfile_free(log);
    log = open_log(pair.loop);
    logfile_connect(log, pair.client);
    rpc_pair_settle(&pair);
    agent.made = 1500;
    agent_send(1000);
    rpc_pair_settle(&pair);
    assert_int_equal(stat(first, &st), 0);
    assert_int_equal(st.st_size, 1500);
    assert_true(logfile_reopen(log, &err));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 0);
    agent.made = 2500;
    agent_send(1000);
    rpc_pair_settle(&pair);
    /* And a crash after the rotation. */
    logfile_free(log);
    log = open_log(pair.loop);
    assert_int_equal(logfile_stored(log), 2500);
    check_content((const char *[]){ first, path }, 2);
    logfile_free(log);
    end(&pair);
}

static void a_loss_in_the_agent_moves_the_offset(void **state)
{
    struct rpc_pair pair;
    (void)state;

    begin(&pair);
    struct logfile *log = open_log(pair.loop);
    logfile_connect(log, pair.client);
    rpc_pair_settle(&pair);
    agent.sent = 5000; /* it dropped what was before */
    agent.made = 6000;
    agent_send(1000);
    rpc_pair_settle(&pair);
    assert_int_equal(logfile_stored(log), 6000);
    logfile_free(log);
    log = open_log(pair.loop);
    assert_int_equal(logfile_stored(log), 6000);
    logfile_free(log);
    end(&pair);
}

static void a_full_disk_holds_the_stream_and_nothing_is_lost(void **state)
{
    struct rpc_pair pair;
    struct rlimit limit, was;
    (void)state;

    begin(&pair);
    struct logfile *log = open_log(pair.loop);
    logfile_connect(log, pair.client);
    rpc_pair_settle(&pair);
    /* A limit on a file's size refuses writes as a full disk does. */
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    limit = was;
    limit.rlim_cur = 700;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    agent.made = 1000;
    agent_send(1000);
    rpc_pair_settle(&pair);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(logfile_stored(log), 700);
    int64_t limit_ms = clock_mono_ms() + 5000;
    while (logfile_stored(log) < 1000 && clock_mono_ms() < limit_ms)
        loop_turn(pair.loop, 100);
    check_content((const char *[]){ path }, 1);
    agent.made = 2000;
    agent_send(1000);
    rpc_pair_settle(&pair);
    check_content((const char *[]){ path }, 1);
    logfile_free(log);
    end(&pair);
}

static int setup(void **state)
{
    (void)state;
    log_setup(LOG_ERROR, "test");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    struct status err = STATUS_INIT;
    (void)state;
    return tree_remove(dir, &err) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_arrives_once_over_crashes_and_reconnections),
        cmocka_unit_test(rotation_cuts_between_two_writes),
        cmocka_unit_test(a_loss_in_the_agent_moves_the_offset),
        cmocka_unit_test(a_full_disk_holds_the_stream_and_nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
