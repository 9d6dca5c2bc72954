/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's containers, events and end, over its RPCs, with a fake engine. */
#include "agent_kit_streams.h"

#include "agent/agent_signal.h"

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
    assert_int_equal(agent_signal_cri(SIGTERM), RUNTIME__V1__SIGNAL__SIGNAL_SIGTERM);
    assert_int_equal(agent_signal_cri(37), RUNTIME__V1__SIGNAL__SIGNAL_SIGRTMINPLUS3);
    assert_int_equal(agent_signal_cri(SIGCHLD), RUNTIME__V1__SIGNAL__SIGNAL_SIGCHLD);
    assert_int_equal(agent_signal_cri(33), RUNTIME__V1__SIGNAL__SIGNAL_RUNTIME_DEFAULT);
    assert_int_equal(agent_signal_cri(0), RUNTIME__V1__SIGNAL__SIGNAL_RUNTIME_DEFAULT);
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
    const PB(CreateContainerResponse) *created = (const void *)a.response;
    assert_int_equal(created->uid, 1000);
    assert_int_equal(created->gid, 2000);
    assert_int_equal(created->n_groups, 2);
    assert_int_equal(created->groups[1], 4000);
    assert_string_equal(created->note, "a note");
    kit_answer_free(&a);
    a = kit_start(1);
    assert_int_equal(a.status.code, STATUS_OK);
    assert_true(((PB(StartContainerResponse) *)(void *)a.response)->started_at > 0);
    created = ((PB(StartContainerResponse) *)(void *)a.response)->created;
    assert_int_equal(created->uid, 1000);
    assert_int_equal(created->n_groups, 2);
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

/* The node goes while something takes its time: it is done all the same, and nobody is told. */
static void test_node_goes(void **state)
{
    PB(StartContainerRequest) start = INTERLINK__AGENT__V1__START_CONTAINER_REQUEST__INIT;
    struct kit_answer answer;

    (void)state;
    kit_configure();
    struct kit_answer a = kit_create(1, "", "exec sleep 100");
    kit_answer_free(&a);
    kit_engine.start_delay_ms = 50;
    start.id = kit_id(1);
    kit_ask(&answer, "StartContainer", &start.base, &interlink__agent__v1__start_container_response__descriptor);
    kit_turn_ms(20);
    assert_true(kit_container(1)->busy);
    kit_disconnect();
    kit_wait_state(1, AGENT_CONTAINER_RUNNING);
    assert_true(!answer.done || answer.status.code == STATUS_UNAVAILABLE);
    kit_connect();
    a = kit_start(1);
    assert_int_equal(a.status.code, STATUS_OK);
    kit_answer_free(&a);
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
    assert_true(hello->features->recursive_read_only_mounts);
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
    assert_true(took >= 290 && took < 10000);
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

static struct kit_answer update(unsigned number, int64_t memory)
{
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    PB(UpdateContainerRequest) request = INTERLINK__AGENT__V1__UPDATE_CONTAINER_REQUEST__INIT;
    struct kit_answer a;

    request.id = kit_id(number);
    request.resources = &resources;
    resources.memory_limit_in_bytes = memory;
    a = kit_call("UpdateContainer", &request.base, &interlink__agent__v1__update_container_response__descriptor);
    kit_answer_free(&a);
    return a;
}

static void test_update(void **state)
{
    PB(UpdateContainerRequest) empty = INTERLINK__AGENT__V1__UPDATE_CONTAINER_REQUEST__INIT;
    PB(UpdateSandboxRequest) pod = INTERLINK__AGENT__V1__UPDATE_SANDBOX_REQUEST__INIT;
    Runtime__V1__LinuxContainerResources overhead = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;

    (void)state;
    assert_int_equal(kit_code("UpdateSandbox", &pod.base, &interlink__agent__v1__update_sandbox_response__descriptor),
                     STATUS_FAILED_PRECONDITION); /* not configured */
    kit_configure();
    assert_int_equal(update(1, 5000).status.code, STATUS_NOT_FOUND);
    struct kit_answer a = kit_create(1, "", "exec sleep 1000");
    kit_answer_free(&a);
    assert_int_equal(update(1, 5000).status.code, STATUS_OK);
    a = kit_start(1);
    kit_answer_free(&a);
    assert_int_equal(update(1, 6000).status.code, STATUS_OK);
    cleanup_free char *path = xasprintf("%s/containers/%s/limit", kit->dir, kit_id(1));
    cleanup_buf struct buf text = BUF_INIT;
    struct status err;
    assert_true(file_read(path, 64, &text, &err));
    assert_string_equal(buf_cstr(&text), "6000");
    a = update(1, 10);
    assert_int_equal(a.status.code, STATUS_FAILED_PRECONDITION);
    assert_string_equal(a.status.message, "linux.memory_limit_in_bytes: the container uses more than that");
    assert_int_equal(kit_code("UpdateContainer", &empty.base, &interlink__agent__v1__update_container_response__descriptor),
                     STATUS_INVALID_ARGUMENT);
    assert_int_equal(kit_code("UpdateSandbox", &pod.base, &interlink__agent__v1__update_sandbox_response__descriptor),
                     STATUS_FAILED_PRECONDITION);
    pod.overhead = &overhead;
    pod.resources = &resources;
    overhead.cpu_shares = 1;
    resources.cpu_shares = 2;
    assert_int_equal(kit_code("UpdateSandbox", &pod.base, &interlink__agent__v1__update_sandbox_response__descriptor),
                     STATUS_OK);
    /* The process ends while it is being updated, and then a remove waits. */
    kit_engine.start_delay_ms = 100;
    PB(UpdateContainerRequest) request = INTERLINK__AGENT__V1__UPDATE_CONTAINER_REQUEST__INIT;
    PB(RemoveContainerRequest) remove = INTERLINK__AGENT__V1__REMOVE_CONTAINER_REQUEST__INIT;
    struct kit_answer b;
    resources.memory_limit_in_bytes = 7000;
    request.id = kit_id(1);
    request.resources = &resources;
    remove.id = kit_id(1);
    kit_ask(&a, "UpdateContainer", &request.base, &interlink__agent__v1__update_container_response__descriptor);
    kit_turn_ms(20);
    kill(kit_container(1)->pid, SIGKILL);
    kit_wait_state(1, AGENT_CONTAINER_EXITED);
    kit_ask(&b, "RemoveContainer", &remove.base, &interlink__agent__v1__remove_container_response__descriptor);
    kit_turn_until(&a.done);
    assert_int_equal(a.status.code, STATUS_OK);
    kit_answer_free(&a);
    kit_turn_until(&b.done);
    assert_int_equal(b.status.code, STATUS_OK);
    kit_answer_free(&b);
    assert_null(kit_container(1));
    kit_engine.start_delay_ms = 0;
    kit_run_container(2, "true");
    kit_wait_state(2, AGENT_CONTAINER_EXITED);
    assert_int_equal(update(2, 6000).status.code, STATUS_FAILED_PRECONDITION);
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
        KIT_TEST(test_node_goes),
        KIT_TEST(test_stdin_held_open),
        KIT_TEST(test_hello_and_events),
        KIT_TEST(test_update),
        KIT_TEST(test_shutdown),
        KIT_TEST(test_shutdown_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
