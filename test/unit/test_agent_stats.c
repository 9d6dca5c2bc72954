/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's Stats call: figures of cgroups that the test makes up, and of real processes and folders. */
#include "agent_kit_streams.h"

#include "agent/agent_stats.h"

static struct kit_answer stats(bool counters)
{
    PB(StatsRequest) request = INTERLINK__AGENT__V1__STATS_REQUEST__INIT;

    request.counters = counters;
    return kit_call("Stats", &request.base, &interlink__agent__v1__stats_response__descriptor);
}

static const PB(StatsResponse) *response_of(const struct kit_answer *a)
{
    assert_int_equal(a->status.code, STATUS_OK);
    return (const void *)a->response;
}

static const Runtime__V1__ContainerStats *container_of(const struct kit_answer *a, unsigned number)
{
    const PB(StatsResponse) *r = response_of(a);

    for (size_t i = 0; i < r->pod->n_containers; i++)
        if (strcmp(r->pod->containers[i]->attributes->id, kit_id(number)) == 0)
            return r->pod->containers[i];
    fail_msg("container %u is missing", number);
    return NULL;
}

/* UINT64_MAX: not told. */
static uint64_t counter_of(const struct kit_answer *a, unsigned number, PB(CounterKind) kind)
{
    const PB(StatsResponse) *r = response_of(a);

    for (size_t i = 0; i < r->n_containers; i++)
        for (size_t k = 0; strcmp(r->containers[i]->id, kit_id(number)) == 0 && k < r->containers[i]->n_counters; k++)
            if (r->containers[i]->counters[k]->kind == kind)
                return r->containers[i]->counters[k]->value;
    return UINT64_MAX;
}

#define KIND(name) INTERLINK__AGENT__V1__COUNTER_KIND__COUNTER_##name

static struct agent_container_stats *stats_state(unsigned number)
{
    return agent_container_find(&kit->agent, kit_id(number))->stats;
}

static void test_from_cgroups(void **state)
{
    struct usage u;

    (void)state;
    usage_init(&u);
    u.cpu = 1000000000;
    u.memory = 5000;
    u.working_set = 4000;
    u.memory_limit = 10000;
    u.rss = 3000;
    u.oom_kills = 2;
    u.processes = 7;
    u.io_psi.some.total_ns = 11;
    kit_engine.usage = &u;
    kit_configure();
    kit_run_container(1, "exec sleep 1000");
    struct kit_answer a = stats(false);
    const Runtime__V1__ContainerStats *c = container_of(&a, 1);
    assert_true(c->cpu->usage_core_nano_seconds->value == 1000000000 && c->cpu->timestamp == u.taken_ns);
    assert_null(c->cpu->psi);
    assert_true(c->memory->working_set_bytes->value == 4000 && c->memory->available_bytes->value == 6000);
    assert_true(c->memory->usage_bytes->value == 5000 && c->memory->rss_bytes->value == 3000);
    assert_null(c->memory->page_faults);
    assert_null(c->swap);
    assert_null(c->writable_layer);
    assert_true(c->io->psi->some->total == 11 && c->io->psi->full == NULL);
    const Runtime__V1__LinuxPodSandboxStats *pod = response_of(&a)->pod;
    assert_true(pod->process->process_count->value == 7 && pod->cpu->usage_core_nano_seconds->value == 1000000000);
    assert_non_null(pod->network->default_interface);
    assert_int_equal(response_of(&a)->n_containers, 0);
    assert_false(worker_running(&kit->agent.stats.scan));
    kit_answer_free(&a);

    /* The cgroup's word, and open files from the processes themselves. */
    a = stats(true);
    assert_true(counter_of(&a, 1, KIND(CPU_USAGE)) == 1000000000 && counter_of(&a, 1, KIND(OOM_EVENTS)) == 2);
    assert_true(counter_of(&a, 1, KIND(PROCESSES)) == 7 && counter_of(&a, 1, KIND(MEMORY_WORKING_SET)) == 4000);
    assert_int_equal(counter_of(&a, 1, KIND(FILE_DESCRIPTORS)), 3);
    assert_int_equal(counter_of(&a, 1, KIND(THREADS)), 1);
    assert_true(counter_of(&a, 1, KIND(CFS_PERIODS)) == UINT64_MAX);
    assert_true(response_of(&a)->n_counters >= 8);
    kit_answer_free(&a);
}

static void test_nano_cores(void **state)
{
    struct usage u;

    (void)state;
    usage_init(&u);
    u.cpu = 0;
    kit_engine.usage = &u;
    kit_configure();
    kit_run_container(1, "exec sleep 1000");
    int64_t started_ns = agent_container_find(&kit->agent, kit_id(1))->started_ns;
    struct kit_answer a = stats(false);
    if (clock_real_ns() - started_ns < USAGE_WINDOW_MIN_MS * 1000000ll) /* on any but a very slow machine */
        assert_null(container_of(&a, 1)->cpu->usage_nano_cores);
    kit_answer_free(&a);
    kit_turn_ms(USAGE_WINDOW_MIN_MS + 10);
    u.cpu = 1000000000;
    a = stats(false);
    uint64_t cores = container_of(&a, 1)->cpu->usage_nano_cores->value;
    assert_true(cores > 10000000 && cores < 2000000000);
    kit_answer_free(&a);
}

/* A process that does nothing but work. */
static void test_from_processes(void **state)
{
    (void)state;
    kit_configure();
    kit_run_container(1, "while :; do :; done");
    kit_turn_ms(USAGE_WINDOW_MIN_MS + 300);
    struct kit_answer a = stats(false);
    const Runtime__V1__ContainerStats *c = container_of(&a, 1);
    assert_true(c->cpu->usage_core_nano_seconds->value >= 10000000);
    assert_true(c->cpu->usage_nano_cores->value > 10000000);
    assert_true(c->memory->usage_bytes->value > 100000 && c->memory->working_set_bytes->value == c->memory->usage_bytes->value);
    assert_true(c->memory->rss_bytes->value > 0 && c->memory->rss_bytes->value <= c->memory->usage_bytes->value);
    assert_true(c->memory->page_faults->value > 0);
    assert_null(c->memory->available_bytes); /* nobody limits it */
    assert_int_equal(response_of(&a)->pod->process->process_count->value, 1);
    uint64_t before = c->cpu->usage_core_nano_seconds->value;
    kit_answer_free(&a);
    kit_turn_ms(300);
    a = stats(true);
    c = container_of(&a, 1);
    assert_true(c->cpu->usage_core_nano_seconds->value > before);
    assert_int_equal(counter_of(&a, 1, KIND(FILE_DESCRIPTORS)), 3);
    assert_true(counter_of(&a, 1, KIND(OOM_EVENTS)) == UINT64_MAX);
    kit_answer_free(&a);
}

static void wait_exited(unsigned number)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    while (agent_container_find(&kit->agent, kit_id(number))->state != AGENT_CONTAINER_EXITED && clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, 20);
}

static void test_layers(void **state)
{
    struct status err;
    cleanup_free char *text = xcalloc(1, 1 << 20);
    struct usage u;

    (void)state;
    usage_init(&u);
    kit_engine.usage = &u;
    kit_configure();
    kit_run_container(1, "exec sleep 1000");
    cleanup_free char *upper = xasprintf("%s/upper", agent_container_find(&kit->agent, kit_id(1))->bundle);
    cleanup_free char *file = xasprintf("%s/file", upper);
    assert_true(dir_make(upper, 0755, &err));
    struct kit_answer a = stats(true);
    const Runtime__V1__FilesystemUsage *layer = container_of(&a, 1)->writable_layer;
    assert_int_equal(layer->inodes_used->value, 1);
    assert_true(layer->timestamp > 0 && layer->fs_id->mountpoint[0] == '/');
    assert_true(counter_of(&a, 1, KIND(FS_LIMIT)) > 0);
    int64_t taken = layer->timestamp;
    kit_answer_free(&a);

    /* A count is good for a while. */
    assert_true(file_replace(file, text, 1 << 20, 0644, &err));
    a = stats(false);
    assert_int_equal(container_of(&a, 1)->writable_layer->timestamp, taken);
    kit_answer_free(&a);
    stats_state(1)->layer_ms -= USAGE_LAYER_AGE_MS;
    a = stats(false);
    layer = container_of(&a, 1)->writable_layer;
    assert_true(layer->timestamp > taken && layer->inodes_used->value == 2 && layer->used_bytes->value >= 1 << 20);
    kit_answer_free(&a);

    /* What has ended is counted once more, and then no more. It uses nothing else. */
    kit_signal(1, SIGKILL);
    wait_exited(1);
    stats_state(1)->layer_ms -= USAGE_LAYER_AGE_MS;
    a = stats(true);
    taken = container_of(&a, 1)->writable_layer->timestamp;
    assert_null(container_of(&a, 1)->cpu);
    assert_null(container_of(&a, 1)->memory);
    assert_true(counter_of(&a, 1, KIND(FS_LIMIT)) == UINT64_MAX);
    kit_answer_free(&a);
    stats_state(1)->layer_ms -= USAGE_LAYER_AGE_MAX_MS;
    a = stats(false);
    assert_int_equal(container_of(&a, 1)->writable_layer->timestamp, taken);
    kit_answer_free(&a);
}

/* More files than are counted on the way: a worker does it. */
static void test_large_layers(void **state)
{
    PB(StatsRequest) request = INTERLINK__AGENT__V1__STATS_REQUEST__INIT;
    struct status err;
    struct usage u;
    struct kit_answer a;

    (void)state;
    usage_init(&u);
    kit_engine.usage = &u;
    kit_configure();
    kit_run_container(1, "exec sleep 1000");
    cleanup_free char *upper = xasprintf("%s/upper", agent_container_find(&kit->agent, kit_id(1))->bundle);
    assert_true(dir_make(upper, 0755, &err));
    for (int i = 0; i < USAGE_LAYER_QUICK_MAX + 100; i++) {
        cleanup_free char *file = xasprintf("%s/%d", upper, i);
        int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        close(fd);
    }
    for (int round = 0; round < 2; round++) {
        kit_ask(&a, "Stats", &request.base, &interlink__agent__v1__stats_response__descriptor);
        int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;
        bool worked = false;
        while (!a.done && clock_mono_ms() < deadline) {
            loop_turn(kit->agent.loop, 10);
            worked = worked || worker_running(&kit->agent.stats.count);
        }
        assert_true(worked);
        while (worker_running(&kit->agent.stats.count) && clock_mono_ms() < deadline) /* it may take longer than the call */
            loop_turn(kit->agent.loop, 10);
        kit_answer_free(&a);
        a = stats(false);
        assert_int_equal(container_of(&a, 1)->writable_layer->inodes_used->value, USAGE_LAYER_QUICK_MAX + 101);
        kit_answer_free(&a);
        stats_state(1)->layer_ms -= USAGE_LAYER_AGE_MAX_MS;
    }
}

/* Calls that wait together, some of which go away. */
static void test_many_calls(void **state)
{
    PB(StatsRequest) request = INTERLINK__AGENT__V1__STATS_REQUEST__INIT;
    struct kit_answer answers[8];

    (void)state;
    kit_configure();
    kit_run_container(1, "exec sleep 1000");
    kit_run_container(2, "exec sleep 1000");
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        request.counters = i % 2 == 0;
        kit_ask(&answers[i], "Stats", &request.base, &interlink__agent__v1__stats_response__descriptor);
    }
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        kit_turn_until(&answers[i].done);
        assert_int_equal(response_of(&answers[i])->pod->n_containers, 2);
        assert_int_equal(response_of(&answers[i])->n_containers, i % 2 == 0 ? 2 : 0);
        assert_non_null(container_of(&answers[i], 2)->cpu);
        kit_answer_free(&answers[i]);
    }
    kit_ask(&answers[0], "Stats", &request.base, &interlink__agent__v1__stats_response__descriptor);
    loop_turn(kit->agent.loop, 0);
    kit_disconnect();
    assert_true(answers[0].done);
    kit_answer_free(&answers[0]);
    kit_connect();
    struct kit_answer a = stats(true);
    assert_int_equal(response_of(&a)->pod->n_containers, 2);
    kit_answer_free(&a);
}

static void test_removed_containers_still_count_in_the_pod(void **state)
{
    (void)state;
    kit_configure();
    kit_run_container(1, "while :; do :; done");
    kit_turn_ms(300);
    struct kit_answer a = stats(false);
    uint64_t before = response_of(&a)->pod->cpu->usage_core_nano_seconds->value;
    assert_true(before > 0);
    kit_answer_free(&a);
    assert_int_equal(kit_remove(1), STATUS_OK);
    a = stats(false);
    assert_int_equal(response_of(&a)->pod->n_containers, 0);
    assert_true(response_of(&a)->pod->cpu->usage_core_nano_seconds->value == before);
    assert_int_equal(response_of(&a)->pod->process->process_count->value, 0);
    kit_answer_free(&a);
}

static void test_before_and_after(void **state)
{
    PB(StatsRequest) request = INTERLINK__AGENT__V1__STATS_REQUEST__INIT;
    struct kit_answer a, b;
    PB(ShutdownRequest) shutdown = INTERLINK__AGENT__V1__SHUTDOWN_REQUEST__INIT;

    (void)state;
    a = stats(false);
    assert_int_equal(a.status.code, STATUS_FAILED_PRECONDITION);
    kit_configure();
    kit_run_container(1, "exec sleep 1000");
    /* The pod ends while a call waits: it is answered, with figures or with the reason. */
    kit_ask(&a, "Stats", &request.base, &interlink__agent__v1__stats_response__descriptor);
    kit_ask(&b, "Shutdown", &shutdown.base, &interlink__agent__v1__shutdown_response__descriptor);
    kit_turn_until(&a.done);
    kit_turn_until(&b.done);
    kit_answer_free(&a);
    kit_answer_free(&b);
    a = stats(false);
    assert_int_equal(a.status.code, STATUS_FAILED_PRECONDITION);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        T(test_from_cgroups), T(test_nano_cores), T(test_from_processes), T(test_layers), T(test_large_layers),
        T(test_many_calls),
        T(test_removed_containers_still_count_in_the_pod), T(test_before_and_after),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
