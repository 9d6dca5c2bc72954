/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_stats.h"

#include <unistd.h>

#include "agent/agent_container.h"
#include "agent/agent_container_work.h"
#include "agent/agent_context.h"
#include "agent/net_stats.h"

struct agent_stats_call {
    struct list link; /* in agent_stats.calls */
    struct agent *agent;
    struct rpc_call *call;
    bool counters;
    bool scanning; /* waits for a scan that has begun */
    bool scan_wanted; /* ... for one that has not */
    bool counting; /* waits for the layers */
};

void agent_stats_init(struct agent_stats *stats)
{
    list_init(&stats->calls);
}

static struct agent_container_stats *agent_stats_of(struct agent_container *c)
{
    if (c->stats == NULL) {
        c->stats = xcalloc(1, sizeof *c->stats);
        if (c->started_ns > 0)
            usage_rate_start(&c->stats->rate, clock_mono_ns() - (clock_real_ns() - c->started_ns));
    }
    return c->stats;
}

void agent_stats_forget(struct agent_container *c)
{
    if (c->stats == NULL)
        return;
    c->agent->stats.gone_cpu += c->stats->cpu;
    proc_account_free(&c->stats->account);
    free(c->stats);
    c->stats = NULL;
}

/* ---- the answer ---- */

/* What a running container uses: its cgroup's word, and that of the scan for what the cgroup does not say. */
static void agent_stats_measure(struct agent_container *c, bool counters, struct usage *u)
{
    const struct agent_container_stats *s = c->stats;

    usage_init(u);
    if (!engine_usage(c->agent->engine, c->id, counters, u)) {
        if (s->found_anything)
            *u = s->found;
        return;
    }
    if (!s->found_anything)
        return;
    u->files = s->found.files;
    u->sockets = s->found.sockets;
    u->files_limit = s->found.files_limit;
    if (u->threads == USAGE_UNKNOWN)
        u->threads = s->found.threads;
}

/* One that has ended has used what it was last seen to. */
static void agent_stats_add_container(struct agent_container *c, bool counters, struct arena *arena, struct usage *sum,
                                      Interlink__Agent__V1__StatsResponse *out)
{
    struct agent_container_stats *s = agent_stats_of(c);
    struct usage u, *known = c->state == AGENT_CONTAINER_RUNNING ? &u : NULL;
    uint64_t nano_cores = USAGE_UNKNOWN;
    Runtime__V1__ContainerStats *stats = ARENA_NEW(arena, Runtime__V1__ContainerStats);

    if (known != NULL) {
        agent_stats_measure(c, counters, known);
        nano_cores = usage_rate_add(&s->rate, clock_mono_ns(), u.cpu);
        if (u.cpu != USAGE_UNKNOWN)
            s->cpu = u.cpu;
        usage_add(sum, known);
    } else if (sum->cpu != USAGE_UNKNOWN) {
        sum->cpu += s->cpu;
    }
    const struct layer_stats *layer = s->layer_known ? &s->layer : NULL;
    agent_stats_fill_container(arena, c->id, known, nano_cores, layer, stats);
    out->pod->containers[out->pod->n_containers++] = stats;
    if (!counters)
        return;
    Interlink__Agent__V1__ContainerCounters *of = ARENA_NEW(arena, Interlink__Agent__V1__ContainerCounters);
    interlink__agent__v1__container_counters__init(of);
    of->id = c->id;
    agent_stats_fill_counters(arena, known, engine_oom_kills(c->agent->engine, c->id), known != NULL ? layer : NULL, of);
    out->containers[out->n_containers++] = of;
}

/* Containers are in the pod's network, as far as it has one; without any it is ours, which is the job's. */
static pid_t agent_stats_any_process(const struct agent *agent)
{
    struct strmap_iter it = { 0 };

    while (strmap_next(&agent->containers, &it)) {
        const struct agent_container *c = it.value;
        if (c->state == AGENT_CONTAINER_RUNNING)
            return c->pid;
    }
    return 0;
}

static const char *agent_stats_pod_uid(const struct agent *agent)
{
    return agent->sandbox != NULL && agent->sandbox->metadata != NULL ? agent->sandbox->metadata->uid : "";
}

static void agent_stats_reply(struct agent *agent, struct rpc_call *call, bool counters)
{
    struct arena *arena = rpc_call_arena(call);
    struct status err = STATUS_INIT;
    Interlink__Agent__V1__StatsResponse response = INTERLINK__AGENT__V1__STATS_RESPONSE__INIT;
    Runtime__V1__LinuxPodSandboxStats pod = RUNTIME__V1__LINUX_POD_SANDBOX_STATS__INIT;
    struct net_stats *network = ARENA_NEW(arena, struct net_stats);
    struct usage sum, whole;
    struct strmap_iter it = { 0 };
    size_t count = agent->containers.count;
    Runtime__V1__ContainerStats **containers = ARENA_ARRAY(arena, Runtime__V1__ContainerStats *, count);

    /* The pod may have been stopped while the call waited. */
    if (!agent_usable(agent, &err)) {
        rpc_fail(call, &err);
        return;
    }
    response.pod = &pod;
    pod.containers = containers;
    response.containers = ARENA_ARRAY(arena, Interlink__Agent__V1__ContainerCounters *, count);
    usage_init(&sum);
    sum.cpu = agent->stats.gone_cpu;
    sum.memory = sum.working_set = sum.rss = sum.swap = sum.faults = sum.major_faults = sum.processes = 0;
    while (strmap_next(&agent->containers, &it)) {
        struct agent_container *c = it.value;
        if (c->state != AGENT_CONTAINER_NEW)
            agent_stats_add_container(c, counters, arena, &sum, &response);
    }
    usage_init(&whole);
    if (!engine_pod_usage(agent->engine, agent_stats_pod_uid(agent), &whole))
        whole = sum;
    net_stats_read("/proc", agent_stats_any_process(agent), network);
    count = pod.n_containers;
    agent_stats_fill_pod(arena, &whole, usage_rate_add(&agent->stats.rate, clock_mono_ns(), whole.cpu), network, &pod);
    pod.containers = containers;
    pod.n_containers = count;
    if (counters)
        agent_stats_fill_network(arena, network, &response);
    rpc_reply(call, &response.base);
}

static void agent_stats_answer_ready(struct agent *agent)
{
    for (LIST_EACH_SAFE(struct agent_stats_call, c, &agent->stats.calls, link)) {
        if (c->scanning || c->scan_wanted || c->counting)
            continue;
        list_remove(&c->link);
        agent_stats_reply(agent, c->call, c->counters);
    }
}

static void agent_stats_on_cancel(void *arg)
{
    struct agent_stats_call *c = arg;

    list_remove(&c->link);
}

/* ---- processes ---- */

/* What the worker tells of one container; behind it the processes of its account. */
struct agent_stats_found {
    char id[ID_LENGTH + 1];
    struct usage usage;
    struct proc_process gone, sum;
    size_t process_count;
};

static void agent_stats_scan_one(struct agent_container *c, bool files, pid_t *pids, size_t *room, struct buf *output)
{
    struct agent_stats_found found;
    struct agent_container_stats *s = c->stats;
    pid_t init = c->own_pid ? c->pid : 0;

    memset(&found, 0, sizeof found);
    memcpy(found.id, c->id, sizeof found.id);
    usage_init(&found.usage);
    size_t count = engine_pids(c->agent->engine, c->id, c->bundle, pids, *room);
    if (count == *room) /* not all of them, perhaps: then nothing is said */
        return;
    bool in_group = strcmp(engine_cgroups(c->agent->engine), "none") != 0;
    if (!in_group) {
        proc_usage("/proc", pids, count, init, &s->account, &found.usage);
        *room -= s->account.count;
    }
    if (files)
        proc_open_files("/proc", pids, count, c->pid, &found.usage);
    found.gone = s->account.gone;
    found.sum = s->account.sum;
    found.process_count = s->account.count;
    buf_append(output, &found, sizeof found);
    buf_append(output, s->account.processes, found.process_count * sizeof *s->account.processes);
}

static bool agent_stats_scan(void *arg, struct buf *output, struct status *err)
{
    struct agent *agent = arg;
    struct strmap_iter it = { 0 };
    size_t room = USAGE_PROCESSES_MAX;
    cleanup_free pid_t *pids = xcalloc(room, sizeof *pids);

    (void)err;
    agent_worker_enter(agent);
    while (strmap_next(&agent->containers, &it)) {
        struct agent_container *c = it.value;
        if (c->state == AGENT_CONTAINER_RUNNING && c->stats != NULL && room > 0)
            agent_stats_scan_one(c, agent->stats.scan_files, pids, &room, output);
    }
    return true;
}

static void agent_stats_take_found(struct agent *agent, struct buf *output)
{
    struct agent_stats_found found;

    while (output->n >= sizeof found) {
        memcpy(&found, output->p, sizeof found);
        buf_consume(output, sizeof found);
        size_t size = found.process_count * sizeof(struct proc_process);
        struct agent_container *c = agent_container_find(agent, found.id);
        if (size > output->n)
            return;
        if (c != NULL && c->stats != NULL && c->state == AGENT_CONTAINER_RUNNING) {
            struct proc_account *account = &c->stats->account;
            free(account->processes);
            *account = (struct proc_account){ .processes = xmemdup(output->p, size), .count = found.process_count,
                                              .gone = found.gone, .sum = found.sum };
            c->stats->found = found.usage;
            c->stats->found_anything = true;
        }
        buf_consume(output, size);
    }
}

static void agent_stats_start_scan(struct agent *agent);

/* What is not found again is not known any more. */
static void agent_stats_scan_over(struct agent *agent, struct buf *output)
{
    struct strmap_iter it = { 0 };

    timer_stop(&agent->stats.scan_limit);
    while (strmap_next(&agent->containers, &it)) {
        struct agent_container *c = it.value;
        if (c->stats != NULL)
            c->stats->found_anything = false;
    }
    if (output != NULL)
        agent_stats_take_found(agent, output);
    for (LIST_EACH(struct agent_stats_call, c, &agent->stats.calls, link))
        c->scanning = false;
    agent_stats_answer_ready(agent);
    agent_stats_start_scan(agent);
}

static void agent_stats_on_scanned(void *arg, const struct status *err, struct buf *output)
{
    if (err != NULL)
        log_warn("the processes of the containers could not be looked at: %s", err->message);
    agent_stats_scan_over(arg, err == NULL ? output : NULL);
}

static void agent_stats_on_scan_limit(void *arg)
{
    struct agent *agent = arg;

    log_warn("looking at the processes of the containers took more than %d s: given up", USAGE_SCAN_MS / 1000);
    worker_cancel(&agent->stats.scan);
    agent_stats_scan_over(agent, NULL);
}

/* For all calls that want one, unless it is under way: then afterwards. */
static void agent_stats_start_scan(struct agent *agent)
{
    struct agent_stats *s = &agent->stats;
    struct status err = STATUS_INIT;
    bool wanted = false;

    if (worker_running(&s->scan))
        return;
    s->scan_files = false;
    for (LIST_EACH(struct agent_stats_call, c, &s->calls, link)) {
        if (!c->scan_wanted)
            continue;
        wanted = true;
        s->scan_files |= c->counters;
        c->scan_wanted = false;
        c->scanning = true;
    }
    if (!wanted)
        return;
    if (worker_start(agent->loop, &s->scan, agent_stats_scan, agent, agent_stats_on_scanned, agent, &err)) {
        timer_start(agent->loop, &s->scan_limit, USAGE_SCAN_MS, agent_stats_on_scan_limit, agent);
        return;
    }
    log_warn("the processes of the containers cannot be looked at: %s", err.message);
    for (LIST_EACH(struct agent_stats_call, c, &s->calls, link))
        c->scanning = false;
}

/* Whether something runs that no cgroup counts, or of which a cgroup does not count all. */
static bool agent_stats_needs_scan(struct agent *agent, bool counters)
{
    struct strmap_iter it = { 0 };
    bool runs = false;

    while (strmap_next(&agent->containers, &it)) {
        struct agent_container *c = it.value;
        if (c->state != AGENT_CONTAINER_RUNNING)
            continue;
        agent_stats_of(c);
        runs = true;
    }
    return runs && (counters || strcmp(engine_cgroups(agent->engine), "none") == 0);
}

/* ---- layers ---- */

struct agent_stats_layer {
    char id[ID_LENGTH + 1];
    int64_t took_ms;
    struct layer_stats layer;
};

/* What has ended writes no more. */
static bool agent_stats_layer_is_due(struct agent_container *c, int64_t now_ms)
{
    const struct agent_container_stats *s = agent_stats_of(c);

    if (c->state == AGENT_CONTAINER_EXITED && s->layer_known && s->layer.taken_ns > c->finished_ns)
        return false;
    return s->layer_ms == 0 || now_ms - s->layer_ms >= s->layer_age_ms;
}

/* So that counting is USAGE_LAYER_SHARE of the time. */
static int64_t agent_stats_layer_age(int64_t took_ms)
{
    int64_t age_ms = took_ms * USAGE_LAYER_SHARE;

    if (age_ms > USAGE_LAYER_AGE_MAX_MS)
        return USAGE_LAYER_AGE_MAX_MS;
    return age_ms > USAGE_LAYER_AGE_MS ? age_ms : USAGE_LAYER_AGE_MS;
}

static bool agent_stats_count(void *arg, struct buf *output, struct status *err)
{
    struct agent *agent = arg;
    struct strmap_iter it = { 0 };
    struct agent_stats_layer one;

    agent_worker_enter(agent);
    if (nice(10) < 0)
        errno = 0; /* only a courtesy */
    while (strmap_next(&agent->containers, &it)) {
        const struct agent_container *c = it.value;
        if (c->stats == NULL || !c->stats->layer_counting)
            continue;
        cleanup_free char *path = engine_layer(agent->engine, c->bundle);
        memset(&one, 0, sizeof one);
        memcpy(one.id, c->id, sizeof one.id);
        int64_t began_ms = clock_mono_ms();
        if (path == NULL)
            continue;
        if (!layer_measure(path, &one.layer, err)) {
            log_debug("container %.13s: its layer cannot be counted: %s", c->id, err->message);
            continue;
        }
        one.took_ms = clock_mono_ms() - began_ms;
        buf_append(output, &one, sizeof one);
    }
    return true;
}

static void agent_stats_count_over(struct agent *agent)
{
    struct strmap_iter it = { 0 };

    while (strmap_next(&agent->containers, &it)) {
        struct agent_container *c = it.value;
        if (c->stats != NULL)
            c->stats->layer_counting = false;
    }
    timer_stop(&agent->stats.count_limit);
    timer_stop(&agent->stats.count_wait);
    for (LIST_EACH(struct agent_stats_call, c, &agent->stats.calls, link))
        c->counting = false;
    agent_stats_answer_ready(agent);
}

static void agent_stats_on_counted(void *arg, const struct status *err, struct buf *output)
{
    struct agent *agent = arg;
    struct agent_stats_layer one;

    if (err != NULL)
        log_warn("the containers' layers could not be counted: %s", err->message);
    for (; err == NULL && output->n >= sizeof one; buf_consume(output, sizeof one)) {
        memcpy(&one, output->p, sizeof one);
        struct agent_container *c = agent_container_find(agent, one.id);
        if (c == NULL || c->stats == NULL)
            continue;
        c->stats->layer = one.layer;
        c->stats->layer_known = true;
        c->stats->layer_age_ms = agent_stats_layer_age(one.took_ms);
    }
    agent_stats_count_over(agent);
}

static void agent_stats_on_count_limit(void *arg)
{
    struct agent *agent = arg;
    struct strmap_iter it = { 0 };

    log_warn("counting the containers' layers took more than %d s: given up", USAGE_LAYER_COUNT_MS / 1000);
    worker_cancel(&agent->stats.count);
    while (strmap_next(&agent->containers, &it)) {
        struct agent_container *c = it.value;
        if (c->stats != NULL && c->stats->layer_counting)
            c->stats->layer_age_ms = USAGE_LAYER_AGE_MAX_MS;
    }
    agent_stats_count_over(agent);
}

/* Those who wait take the last count. */
static void agent_stats_on_count_wait(void *arg)
{
    struct agent *agent = arg;

    for (LIST_EACH(struct agent_stats_call, c, &agent->stats.calls, link))
        c->counting = false;
    agent_stats_answer_ready(agent);
}

/* Without a worker, when that is the smaller thing; *room: for all containers together. */
static bool agent_stats_count_quickly(struct agent_container *c, size_t *room)
{
    struct agent_container_stats *s = c->stats;
    const struct layer_stats *last = s->layer_known ? &s->layer : NULL;
    struct layer_stats now;

    if (last != NULL && last->inodes > *room)
        return false;
    cleanup_free char *path = engine_layer(c->agent->engine, c->bundle);
    if (path == NULL)
        return true; /* it has none */
    if (!layer_measure_quickly(path, last, room, &now))
        return false;
    s->layer = now;
    s->layer_known = true;
    return true;
}

/* Counts what is due; whether there is a worker to wait for. */
static bool agent_stats_start_count(struct agent *agent)
{
    struct agent_stats *s = &agent->stats;
    struct strmap_iter it = { 0 };
    struct status err = STATUS_INIT;
    bool running = worker_running(&s->count), wanted = false;
    size_t room = USAGE_LAYER_QUICK_MAX;
    int64_t now = clock_mono_ms();

    while (strmap_next(&agent->containers, &it)) {
        struct agent_container *c = it.value;
        if (c->state == AGENT_CONTAINER_NEW || !agent_stats_layer_is_due(c, now))
            continue;
        bool counted = agent_stats_count_quickly(c, &room);
        if (!counted && running)
            continue; /* the next worker's */
        c->stats->layer_ms = now;
        c->stats->layer_age_ms = USAGE_LAYER_AGE_MS;
        c->stats->layer_counting = !counted;
        wanted = wanted || !counted;
    }
    if (running)
        return timer_running(&s->count_wait);
    if (!wanted)
        return false;
    if (!worker_start(agent->loop, &s->count, agent_stats_count, agent, agent_stats_on_counted, agent, &err)) {
        log_warn("the containers' layers cannot be counted: %s", err.message);
        return false;
    }
    timer_start(agent->loop, &s->count_limit, USAGE_LAYER_COUNT_MS, agent_stats_on_count_limit, agent);
    timer_start(agent->loop, &s->count_wait, USAGE_LAYER_WAIT_MS, agent_stats_on_count_wait, agent);
    return true;
}

/* ---- the call ---- */

void agent_stats(struct agent *agent, struct rpc_call *call, const Interlink__Agent__V1__StatsRequest *request)
{
    struct status err = STATUS_INIT;

    if (!agent_usable(agent, &err)) {
        rpc_fail(call, &err);
        return;
    }
    struct agent_stats_call *c = ARENA_NEW(rpc_call_arena(call), struct agent_stats_call);
    c->agent = agent;
    c->call = call;
    c->counters = request->counters != 0;
    c->counting = agent_stats_start_count(agent);
    c->scan_wanted = agent_stats_needs_scan(agent, c->counters);
    list_append(&agent->stats.calls, &c->link);
    rpc_call_on_cancel(call, agent_stats_on_cancel, c);
    agent_stats_start_scan(agent);
    agent_stats_answer_ready(agent);
}

void agent_stats_free(struct agent *agent)
{
    worker_cancel(&agent->stats.scan);
    worker_cancel(&agent->stats.count);
    timer_stop(&agent->stats.scan_limit);
    timer_stop(&agent->stats.count_limit);
    timer_stop(&agent->stats.count_wait);
}
