/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's containers, events, logs and end, over its RPCs, with a fake engine. */
#include "agent_kit.h"

#include "agent/agent_signal.h"
#include "image/digest.h"

/* ---- events ---- */
struct events {
    struct rpc_request *request;
    bool finished;
    struct status status;
    size_t count;
    struct {
        uint64_t sequence;
        int phase, exit_code;
        char id[ID_LENGTH + 1], reason[32], message[64];
        uint64_t log_end;
    } seen[1024];
};

static void on_event(void *arg, const ProtobufCMessage *message)
{
    struct events *e = arg;
    const PB(Event) *event = (const void *)message;

    assert_true(e->count < COUNT_OF(e->seen));
    e->seen[e->count].sequence = event->sequence;
    e->seen[e->count].phase = (int)event->state->phase;
    e->seen[e->count].exit_code = event->state->exit_code;
    e->seen[e->count].log_end = event->state->log_end;
    snprintf(e->seen[e->count].id, sizeof e->seen[0].id, "%s", event->state->id);
    snprintf(e->seen[e->count].reason, sizeof e->seen[0].reason, "%s", event->state->reason);
    snprintf(e->seen[e->count].message, sizeof e->seen[0].message, "%.60s", event->state->message);
    e->count++;
}

static void on_events_finish(void *arg, const struct status *status)
{
    struct events *e = arg;

    e->finished = true;
    e->status = *status;
}

static void events_open(struct events *e, uint64_t from)
{
    PB(EventsRequest) request = INTERLINK__AGENT__V1__EVENTS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Events",
        .output = &interlink__agent__v1__event__descriptor,
        .on_message = on_event,
        .on_finish = on_events_finish,
        .arg = e,
    };

    *e = (struct events){ 0 };
    request.from_sequence = from;
    e->request = rpc_request_start(kit->client, &options);
    rpc_request_send(e->request, &request.base);
    rpc_request_half_close(e->request);
}

static void events_wait(struct events *e, size_t count)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    while (e->count < count && clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, 100);
    assert_int_equal(e->count, count);
}

/* ---- logs ---- */
struct reader {
    struct rpc_request *request;
    char id[ID_LENGTH + 1];
    struct buf file;
    uint64_t position;
    bool ack, end, finished;
    size_t jumps;
    struct status status;
};

static void on_chunk(void *arg, const ProtobufCMessage *message)
{
    struct reader *r = arg;
    const PB(LogsResponse) *chunk = (const void *)message;
    PB(LogsRequest) request = INTERLINK__AGENT__V1__LOGS_REQUEST__INIT;

    assert_true(chunk->offset >= r->position);
    r->jumps += chunk->offset > r->position;
    buf_append(&r->file, chunk->data.data, chunk->data.len);
    r->position = chunk->offset + chunk->data.len;
    r->end = r->end || chunk->end;
    request.stored = r->position;
    if (r->ack)
        rpc_request_send(r->request, &request.base);
}

static void on_logs_finish(void *arg, const struct status *status)
{
    struct reader *r = arg;

    r->finished = true;
    r->request = NULL;
    r->status = *status;
}

static void reader_open(struct reader *r, unsigned number)
{
    PB(LogsRequest) request = INTERLINK__AGENT__V1__LOGS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Logs",
        .output = &interlink__agent__v1__logs_response__descriptor,
        .on_message = on_chunk,
        .on_finish = on_logs_finish,
        .arg = r,
    };

    r->finished = false;
    r->ack = true;
    memcpy(r->id, kit_id(number), sizeof r->id);
    request.container_id = r->id;
    request.from = r->position;
    r->request = rpc_request_start(kit->client, &options);
    rpc_request_send(r->request, &request.base);
}

/* The text of the log, one stream after the other, without prefixes. */
static char *reader_text(struct reader *r, const char *stream)
{
    struct buf out = BUF_INIT;
    const char *p = (const char *)r->file.p, *end = p + r->file.n;

    while (p < end) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        struct crilog_line line;
        assert_non_null(line_end);
        assert_true(crilog_parse((struct str){ p, (size_t)(line_end - p) }, &line));
        if (line.stream == (strcmp(stream, "stdout") == 0 ? CRILOG_STDOUT : CRILOG_STDERR)) {
            buf_append(&out, line.text.p, line.text.n);
            if (!line.partial)
                buf_append_byte(&out, '\n');
        }
        p = line_end + 1;
    }
    return buf_steal(&out);
}

/* ---- tests ---- */

static void test_moves(void **state)
{
    unsigned arrows = 0;

    (void)state;
    for (int from = AGENT_CONTAINER_NEW; from <= AGENT_CONTAINER_EXITED; from++)
        for (int to = AGENT_CONTAINER_NEW; to <= AGENT_CONTAINER_EXITED; to++)
            arrows += agent_container_may_move((enum agent_container_state)from, (enum agent_container_state)to);
    assert_int_equal(arrows, 7); /* as drawn */
    assert_false(agent_container_may_move(AGENT_CONTAINER_RUNNING, AGENT_CONTAINER_EXITED));
    assert_false(agent_container_may_move(AGENT_CONTAINER_EXITED, AGENT_CONTAINER_RUNNING));
}

static void test_signals(void **state)
{
    (void)state;
    assert_int_equal(agent_signal_number("SIGTERM"), SIGTERM);
    assert_int_equal(agent_signal_number("quit"), SIGQUIT);
    assert_int_equal(agent_signal_number("9"), 9);
    assert_int_equal(agent_signal_number("SIGRTMIN+3"), 37);
    assert_int_equal(agent_signal_number("SIGRTMAX-1"), 63);
    assert_int_equal(agent_signal_number("SIGRTMINPLUS15"), 49);
    assert_int_equal(agent_signal_number("SIGRTMIN*3"), 0);
    assert_int_equal(agent_signal_number("SIGRTMIN+31"), 0);
    assert_int_equal(agent_signal_number("65"), 0);
    assert_int_equal(agent_signal_number("SIGNONE"), 0);
    assert_int_equal(agent_signal_number(""), 0);
    assert_int_equal(agent_signal_stop(RUNTIME__V1__SIGNAL__SIGNAL_RUNTIME_DEFAULT, ""), SIGTERM);
    assert_int_equal(agent_signal_stop(RUNTIME__V1__SIGNAL__SIGNAL_RUNTIME_DEFAULT, "SIGWINCH"), SIGWINCH);
    assert_int_equal(agent_signal_stop(RUNTIME__V1__SIGNAL__SIGNAL_SIGUSR1, "SIGWINCH"), SIGUSR1);
    for (unsigned i = 1; i < runtime__v1__signal__descriptor.n_values; i++)
        assert_true(agent_signal_stop((Runtime__V1__Signal)runtime__v1__signal__descriptor.values[i].value, "SIGWINCH") !=
                        SIGWINCH ||
                    strcmp(runtime__v1__signal__descriptor.values[i].name, "SIGNAL_SIGWINCH") == 0);
}

static void test_life(void **state)
{
    struct events events;
    struct reader reader = { 0 };

    (void)state;
    events_open(&events, 0);
    struct kit_answer a = kit_create(1, "", "true");
    assert_int_equal(a.status.code, STATUS_FAILED_PRECONDITION); /* no sandbox yet */
    assert_int_equal(kit_configure(), STATUS_OK);
    kit_run_container(1, "echo out; echo err >&2; exit 3");
    reader_open(&reader, 1);
    events_wait(&events, 3);
    assert_int_equal(events.seen[0].sequence, 1);
    assert_int_equal(events.seen[0].phase, 0);
    assert_string_equal(events.seen[0].message, "a note");
    assert_int_equal(events.seen[1].phase, 1);
    assert_int_equal(events.seen[2].phase, 2);
    assert_int_equal(events.seen[2].exit_code, 3);
    assert_string_equal(events.seen[2].reason, "Error");
    assert_int_equal(events.seen[2].log_end, 88);
    kit_turn_until(&reader.finished);
    assert_int_equal(reader.status.code, STATUS_OK);
    assert_true(reader.end);
    assert_int_equal(reader.position, 88);
    cleanup_free char *out = reader_text(&reader, "stdout");
    cleanup_free char *errors = reader_text(&reader, "stderr");
    assert_string_equal(out, "out\n");
    assert_string_equal(errors, "err\n");

    /* Everything again: what is so already succeeds. */
    a = kit_create(1, "", "other");
    assert_int_equal(a.status.code, STATUS_OK);
    kit_answer_free(&a);
    a = kit_start(1);
    assert_int_equal(a.status.code, STATUS_OK);
    assert_true(((PB(StartContainerResponse) *)(void *)a.response)->started_at > 0);
    kit_answer_free(&a);
    assert_int_equal(kit_signal(1, SIGTERM), STATUS_OK);
    assert_int_equal(kit_remove(1), STATUS_OK);
    assert_int_equal(kit_remove(1), STATUS_OK);
    assert_int_equal(kit->agent.containers.count, 0);
    assert_int_equal(kit_signal(1, SIGTERM), STATUS_NOT_FOUND);
    a = kit_start(1);
    assert_int_equal(a.status.code, STATUS_NOT_FOUND);
    assert_int_equal(events.count, 3);

    /* And anew under the same name. */
    kit_run_container(1, "exit 0");
    events_wait(&events, 6);
    assert_string_equal(events.seen[5].reason, "Completed");
    assert_int_equal(events.seen[5].log_end, 0);
    buf_free(&reader.file);
}

static void test_bad_requests(void **state)
{
    PB(CreateContainerRequest) create = INTERLINK__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    PB(RemoveContainerRequest) removal = INTERLINK__AGENT__V1__REMOVE_CONTAINER_REQUEST__INIT;
    Runtime__V1__ContainerConfig config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    const ProtobufCMessageDescriptor *created = &interlink__agent__v1__create_container_response__descriptor;

    (void)state;
    kit_configure();
    create.id = kit_id(1);
    assert_int_equal(kit_code("CreateContainer", &create.base, created), STATUS_INVALID_ARGUMENT);
    create.config = &config;
    create.id = (char *)(uintptr_t)"../../../../../../../../../../../../../../../../../../../etc/shadow";
    assert_int_equal(kit_code("CreateContainer", &create.base, created), STATUS_INVALID_ARGUMENT);
    create.id = (char *)(uintptr_t)"";
    assert_int_equal(kit_code("CreateContainer", &create.base, created), STATUS_INVALID_ARGUMENT);
    removal.id = (char *)(uintptr_t)"..";
    assert_int_equal(kit_code("RemoveContainer", &removal.base, &interlink__agent__v1__remove_container_response__descriptor),
                     STATUS_INVALID_ARGUMENT);
    kit_run_container(1, "sleep 100");
    assert_int_equal(kit_signal(1, 0), STATUS_INVALID_ARGUMENT);
    assert_int_equal(kit_signal(1, 65), STATUS_INVALID_ARGUMENT);
    assert_int_equal(kit_signal(1, -9), STATUS_INVALID_ARGUMENT);
    assert_int_equal(kit_container(1)->state, AGENT_CONTAINER_RUNNING);
    /* Images that cannot be. */
    PB(Image) image = INTERLINK__AGENT__V1__IMAGE__INIT;
    PB(Layer) layer = INTERLINK__AGENT__V1__LAYER__INIT, *layers[1] = { &layer };
    create.id = kit_id(2);
    create.image = &image;
    assert_int_equal(kit_code("CreateContainer", &create.base, created), STATUS_INVALID_ARGUMENT);
    image.config.data = (uint8_t *)(uintptr_t)"{}";
    image.config.len = 2;
    image.layers = layers;
    image.n_layers = 1;
    layer.digest = (char *)(uintptr_t)"sha256:../../x";
    assert_int_not_equal(kit_code("CreateContainer", &create.base, created), STATUS_OK);
    assert_int_equal(kit->agent.containers.count, 1);
}

static void test_refused(void **state)
{
    (void)state;
    kit_configure();
    kit_engine.refuse = true;
    struct kit_answer a = kit_create(1, "", "true");
    assert_int_equal(a.status.code, STATUS_FAILED_PRECONDITION);
    assert_string_equal(a.status.message, "linux.security_context.run_as_user: no such luck");
    assert_int_equal(kit->agent.containers.count, 0);
    cleanup_free char *bundle = xasprintf("%s/containers/%s", kit->dir, kit_id(1));
    assert_int_equal(access(bundle, F_OK), -1);
    kit_engine.refuse = false;
    kit_run_container(1, "true");
}

static void test_start_error(void **state)
{
    char *words[] = { (char *)(uintptr_t)"/does/not/exist" };
    Runtime__V1__ContainerConfig config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    PB(CreateContainerRequest) request = INTERLINK__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    struct events events;
    struct reader reader = { 0 };

    (void)state;
    kit_configure();
    events_open(&events, 0);
    request.id = kit_id(1);
    request.config = &config;
    config.command = words;
    config.n_command = 1;
    assert_int_equal(kit_code("CreateContainer", &request.base, &interlink__agent__v1__create_container_response__descriptor),
                     STATUS_OK);
    struct kit_answer a = kit_start(1);
    assert_int_equal(a.status.code, STATUS_NOT_FOUND);
    assert_non_null(strstr(a.status.message, "/does/not/exist"));
    events_wait(&events, 2);
    assert_int_equal(events.seen[1].phase, 2);
    assert_int_equal(events.seen[1].exit_code, 128);
    assert_string_equal(events.seen[1].reason, "StartError");
    /* The same answer to the same question. */
    a = kit_start(1);
    assert_int_equal(a.status.code, STATUS_NOT_FOUND);
    /* Its log is complete, and empty. */
    reader_open(&reader, 1);
    kit_turn_until(&reader.finished);
    assert_true(reader.end);
    assert_int_equal(reader.status.code, STATUS_OK);
    assert_int_equal(kit_remove(1), STATUS_OK);
}

/* The process has ended, and been reaped, before its pid is known. */
static void test_exit_before_adopt(void **state)
{
    struct events events;

    (void)state;
    kit_configure();
    events_open(&events, 0);
    kit_engine.start_delay_ms = 30;
    for (unsigned i = 1; i <= 20; i++) {
        kit_run_container(i, "echo gone; exit 7");
        kit_wait_state(i, AGENT_CONTAINER_EXITED);
        assert_int_equal(kit_container(i)->exit_code, 7);
        assert_int_equal(kit_container(i)->output.log.head, 45);
    }
    assert_int_equal(kit->agent.orphans.expected, 0);
    assert_int_equal(kit->agent.orphans.count, 0);
    events_wait(&events, 60);
    for (size_t i = 0; i < 60; i++) {
        assert_int_equal(events.seen[i].sequence, i + 1);
        assert_int_equal(events.seen[i].phase, i % 3);
    }
}

static void test_signalled_and_oom(void **state)
{
    struct status err;

    (void)state;
    kit_configure();
    kit_run_container(1, "kill -SEGV $$");
    kit_wait_state(1, AGENT_CONTAINER_EXITED);
    assert_int_equal(kit_container(1)->exit_code, 139);
    assert_string_equal(kit_container(1)->reason, "Error");
    kit_run_container(2, "sleep 100");
    cleanup_free char *oom = xasprintf("%s/oom", kit_container(2)->bundle);
    assert_true(file_replace(oom, "", 0, 0600, &err));
    assert_int_equal(kit_signal(2, SIGKILL), STATUS_OK);
    kit_wait_state(2, AGENT_CONTAINER_EXITED);
    assert_int_equal(kit_container(2)->exit_code, 137);
    assert_string_equal(kit_container(2)->reason, "OOMKilled");
}

/* What is asked of one container is done in order, also when all of it is asked at once. */
static void test_queue(void **state)
{
    char *words[] = { (char *)(uintptr_t)"sleep", (char *)(uintptr_t)"100" };
    Runtime__V1__ContainerConfig config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    PB(CreateContainerRequest) create = INTERLINK__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    PB(StartContainerRequest) start = INTERLINK__AGENT__V1__START_CONTAINER_REQUEST__INIT;
    PB(SignalContainerRequest) signal_request = INTERLINK__AGENT__V1__SIGNAL_CONTAINER_REQUEST__INIT;
    PB(RemoveContainerRequest) removal = INTERLINK__AGENT__V1__REMOVE_CONTAINER_REQUEST__INIT;
    struct kit_answer answers[8];
    struct events events;

    (void)state;
    kit_configure();
    events_open(&events, 0);
    create.id = start.id = signal_request.id = removal.id = kit_id(1);
    create.config = &config;
    config.command = words;
    config.n_command = 2;
    signal_request.signal = SIGUSR1;
    kit_ask(&answers[0], "CreateContainer", &create.base, &interlink__agent__v1__create_container_response__descriptor);
    kit_ask(&answers[1], "CreateContainer", &create.base, &interlink__agent__v1__create_container_response__descriptor);
    kit_ask(&answers[2], "StartContainer", &start.base, &interlink__agent__v1__start_container_response__descriptor);
    kit_ask(&answers[3], "StartContainer", &start.base, &interlink__agent__v1__start_container_response__descriptor);
    kit_ask(&answers[4], "SignalContainer", &signal_request.base, &interlink__agent__v1__signal_container_response__descriptor);
    kit_ask(&answers[5], "RemoveContainer", &removal.base, &interlink__agent__v1__remove_container_response__descriptor);
    kit_ask(&answers[6], "RemoveContainer", &removal.base, &interlink__agent__v1__remove_container_response__descriptor);
    kit_ask(&answers[7], "CreateContainer", &create.base, &interlink__agent__v1__create_container_response__descriptor);
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        kit_turn_until(&answers[i].done);
        assert_int_equal(answers[i].status.code, STATUS_OK);
        kit_answer_free(&answers[i]);
    }
    assert_int_equal(kit_container(1)->state, AGENT_CONTAINER_CREATED);
    events_wait(&events, 4); /* created, running, exited, created */
    assert_int_equal(events.seen[2].exit_code, 128 + SIGUSR1);
}

static void test_remove_kills(void **state)
{
    (void)state;
    kit_configure();
    kit_run_container(1, "trap '' TERM; while :; do sleep 1; done");
    pid_t pid = kit_container(1)->pid;
    assert_int_equal(kit_remove(1), STATUS_OK);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(kit->agent.containers.count, 0);
}

/* Somebody holds the pipes after the first process: his time is bounded, and what he wrote meanwhile counts. */
static void test_grandchild_holds_pipe(void **state)
{
    (void)state;
    kit_configure();
    kit_run_container(1, "echo one; setsid sh -c 'sleep 0.3; echo two; exec sleep 1.2' & sleep 0.1");
    int64_t begin = clock_mono_ms();
    kit_wait_state(1, AGENT_CONTAINER_EXITED);
    int64_t took = clock_mono_ms() - begin;
    assert_true(took >= AGENT_DRAIN_MS && took < AGENT_DRAIN_MS + 400);
    assert_int_equal(kit_container(1)->output.log.head, 88);
    kit_turn_ms(600);
}

static void test_stdin_held_open(void **state)
{
    (void)state;
    kit_configure();
    struct kit_answer a = kit_create(1, "i", "cat; echo end");
    kit_answer_free(&a);
    a = kit_start(1);
    kit_answer_free(&a);
    kit_run_container(2, "cat; echo end"); /* without one it reads an end */
    kit_wait_state(2, AGENT_CONTAINER_EXITED);
    assert_int_equal(kit_container(1)->state, AGENT_CONTAINER_RUNNING);
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

/* ---- hello, events, end ---- */

static void test_hello_and_events(void **state)
{
    PB(HelloRequest) request = INTERLINK__AGENT__V1__HELLO_REQUEST__INIT;
    struct events events;

    (void)state;
    kit_configure();
    kit_run_container(1, "exit 4");
    kit_wait_state(1, AGENT_CONTAINER_EXITED);
    struct kit_answer a = kit_call("Hello", &request.base, &interlink__agent__v1__hello_response__descriptor);
    const PB(HelloResponse) *hello = (const void *)a.response;
    assert_int_equal(hello->n_containers, 1);
    assert_int_equal(hello->containers[0]->exit_code, 4);
    assert_int_equal(hello->last_sequence, 3);
    assert_string_equal(hello->hostname, "machine");
    kit_answer_free(&a);
    /* From the second on, again and again. */
    events_open(&events, 2);
    events_wait(&events, 2);
    assert_int_equal(events.seen[0].sequence, 2);
    for (unsigned i = 0; i < AGENT_EVENTS_MAX; i++) {
        kit_remove(1);
        struct kit_answer b = kit_create(1, "", "true");
        kit_answer_free(&b);
    }
    events_wait(&events, 2 + AGENT_EVENTS_MAX);
    assert_int_equal(kit->agent.events.count, AGENT_EVENTS_MAX);
    events_open(&events, 2);
    kit_turn_until(&events.finished);
    assert_int_equal(events.status.code, STATUS_OUT_OF_RANGE);
    events_open(&events, 0);
    events_wait(&events, AGENT_EVENTS_MAX);
}

static void test_shutdown(void **state)
{
    PB(ShutdownRequest) request = INTERLINK__AGENT__V1__SHUTDOWN_REQUEST__INIT;
    struct reader readers[2] = { { 0 }, { 0 } };
    struct events events;

    (void)state;
    kit_configure();
    events_open(&events, 0);
    kit_run_container(1, "trap 'echo bye; exit 5' TERM; echo hi; while :; do sleep 0.01; done");
    kit_run_container(2, "trap '' TERM; echo hi; while :; do sleep 0.01; done");
    reader_open(&readers[0], 1);
    reader_open(&readers[1], 2);
    while (readers[0].position == 0 || readers[1].position == 0)
        loop_turn(kit->agent.loop, 100);
    request.grace_ms = 300;
    int64_t begin = clock_mono_ms();
    assert_int_equal(kit_code("Shutdown", &request.base, &interlink__agent__v1__shutdown_response__descriptor), STATUS_OK);
    int64_t took = clock_mono_ms() - begin;
    assert_true(took >= 290 && took < 2000);
    assert_true(kit->ended);
    assert_int_equal(kit->agent.containers.count, 0);
    /* The node has heard everything by then. */
    assert_true(readers[0].end && readers[1].end);
    cleanup_free char *text = reader_text(&readers[0], "stdout");
    assert_string_equal(text, "hi\nbye\n");
    events_wait(&events, 6);
    kit_turn_until(&events.finished);
    assert_int_equal(events.seen[4].exit_code, 5);
    assert_int_equal(events.seen[5].exit_code, 137);
    buf_free(&readers[0].file);
    buf_free(&readers[1].file);
}

static void test_shutdown_at_once(void **state)
{
    PB(ShutdownRequest) request = INTERLINK__AGENT__V1__SHUTDOWN_REQUEST__INIT;

    (void)state;
    kit_configure();
    kit_run_container(1, "trap '' TERM; while :; do sleep 0.01; done");
    struct kit_answer a = kit_create(2, "", "true"); /* never started */
    kit_answer_free(&a);
    assert_int_equal(kit_code("Shutdown", &request.base, &interlink__agent__v1__shutdown_response__descriptor), STATUS_OK);
    assert_int_equal(kit->agent.containers.count, 0);
}

/* ---- blobs ---- */

struct put {
    bool finished;
    struct status status;
};

static void on_put_finish(void *arg, const struct status *status)
{
    struct put *p = arg;

    p->finished = true;
    p->status = *status;
}

static enum status_code put_blob(const char *digest, size_t pieces, size_t piece)
{
    struct put put = { 0 };
    PB(PutBlobRequest) request = INTERLINK__AGENT__V1__PUT_BLOB_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/PutBlob",
        .output = &interlink__agent__v1__put_blob_response__descriptor,
        .on_finish = on_put_finish,
        .arg = &put,
    };
    cleanup_free uint8_t *data = xcalloc(1, piece + 1);

    struct rpc_request *r = rpc_request_start(kit->client, &options);
    request.digest = (char *)(uintptr_t)digest;
    for (size_t i = 0; i < pieces; i++) {
        request.data.data = data;
        request.data.len = piece;
        rpc_request_send(r, &request.base);
        request.digest = (char *)(uintptr_t)"";
        loop_turn(kit->agent.loop, 0);
        if (put.finished)
            return put.status.code;
    }
    rpc_request_half_close(r);
    kit_turn_until(&put.finished);
    return put.status.code;
}

static void test_blobs(void **state)
{
    PB(Image) image = INTERLINK__AGENT__V1__IMAGE__INIT;
    PB(Layer) layer = INTERLINK__AGENT__V1__LAYER__INIT, *layers[1] = { &layer };
    PB(MissingBlobsRequest) request = INTERLINK__AGENT__V1__MISSING_BLOBS_REQUEST__INIT;
    char text[DIGEST_TEXT_SIZE];
    cleanup_free uint8_t *zeros = xcalloc(1, 3000000);
    struct digest d = digest_of(zeros, 3000000);

    (void)state;
    digest_text(&d, text);
    const char *digest = text;
    layer.digest = (char *)(uintptr_t)digest;
    layer.diff_id = (char *)(uintptr_t)"sha256:0000000000000000000000000000000000000000000000000000000000000001";
    image.layers = layers;
    image.n_layers = 1;
    request.image = &image;
    struct kit_answer a = kit_call("MissingBlobs", &request.base, &interlink__agent__v1__missing_blobs_response__descriptor);
    const PB(MissingBlobsResponse) *missing = (const void *)a.response;
    assert_int_equal(missing->n_digests, 1);
    assert_string_equal(missing->digests[0], digest);
    kit_answer_free(&a);
    assert_int_equal(put_blob(digest, 3, 999999), STATUS_DATA_LOSS);
    assert_int_equal(put_blob("sha256:none", 1, 10), STATUS_INVALID_ARGUMENT);
    assert_int_equal(put_blob("", 0, 10), STATUS_INVALID_ARGUMENT);
    assert_int_equal(put_blob(digest, 3, 1000000), STATUS_OK);
    assert_int_equal(put_blob(digest, 3, 1000000), STATUS_OK);
    a = kit_call("MissingBlobs", &request.base, &interlink__agent__v1__missing_blobs_response__descriptor);
    assert_int_equal(((const PB(MissingBlobsResponse) *)(const void *)a.response)->n_digests, 0);
    kit_answer_free(&a);
    layer.digest = (char *)(uintptr_t)"../x";
    assert_int_equal(kit_code("MissingBlobs", &request.base, &interlink__agent__v1__missing_blobs_response__descriptor),
                     STATUS_INVALID_ARGUMENT);
    cleanup_free char *left = xasprintf("ls %s/images/blobs | wc -l | grep -qx 1", kit->dir);
    assert_int_equal(system(left), 0);
}

#define KIT_TEST(fn) cmocka_unit_test_setup_teardown(fn, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moves),
        cmocka_unit_test(test_signals),
        KIT_TEST(test_life),
        KIT_TEST(test_bad_requests),
        KIT_TEST(test_refused),
        KIT_TEST(test_start_error),
        KIT_TEST(test_exit_before_adopt),
        KIT_TEST(test_signalled_and_oom),
        KIT_TEST(test_queue),
        KIT_TEST(test_remove_kills),
        KIT_TEST(test_grandchild_holds_pipe),
        KIT_TEST(test_stdin_held_open),
        KIT_TEST(test_terminal),
        KIT_TEST(test_logs_resumed),
        KIT_TEST(test_back_pressure_then_loss),
        KIT_TEST(test_full_at_the_end),
        KIT_TEST(test_logs_misuse),
        KIT_TEST(test_hello_and_events),
        KIT_TEST(test_shutdown),
        KIT_TEST(test_shutdown_at_once),
        KIT_TEST(test_blobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
