/* SPDX-License-Identifier: Apache-2.0 */
#include "node/stats.h"

#include "node/container.h"
#include "node/link.h"
#include "rpc/pb.h"

struct stats_wait {
    struct list link; /* in stats.waits */
    struct stats_ask *ask;
};

/* ---- an answer, encoded ---- */

static void stats_fill_attributes(const struct container *container, Runtime__V1__ContainerAttributes *out)
{
    const Interlink__State__V1__Container *record = container->record;

    runtime__v1__container_attributes__init(out);
    out->id = record->id;
    out->metadata = record->config->metadata;
    out->n_labels = record->config->n_labels;
    out->labels = (Runtime__V1__ContainerAttributes__LabelsEntry **)(void *)record->config->labels;
    out->n_annotations = record->config->n_annotations;
    out->annotations = (Runtime__V1__ContainerAttributes__AnnotationsEntry **)(void *)record->config->annotations;
}

static void stats_fill_pod_attributes(const struct sandbox *sandbox, Runtime__V1__PodSandboxAttributes *out)
{
    const Interlink__State__V1__Sandbox *record = sandbox->record;

    runtime__v1__pod_sandbox_attributes__init(out);
    out->id = record->id;
    out->metadata = record->config->metadata;
    out->n_labels = record->config->n_labels;
    out->labels = (Runtime__V1__PodSandboxAttributes__LabelsEntry **)(void *)record->config->labels;
    out->n_annotations = record->config->n_annotations;
    out->annotations = (Runtime__V1__PodSandboxAttributes__AnnotationsEntry **)(void *)record->config->annotations;
}

/* One container's figures with our attributes; NULL when it is none of this pod's that is listed, or was there before. */
static Runtime__V1__ContainerStats *stats_adopt(struct stats *stats, struct arena *arena,
                                                const Runtime__V1__ContainerStats *from)
{
    const struct sandbox *sandbox = stats->sandbox;
    struct container *container =
        from->attributes != NULL ? strmap_get(&sandbox->node->containers, from->attributes->id) : NULL;

    if (container == NULL || container->sandbox != sandbox || !container_listed(container) || container->stats_item.n > 0)
        return NULL;
    Runtime__V1__ContainerStats *out = arena_memdup(arena, from, sizeof *from);
    out->attributes = ARENA_NEW(arena, Runtime__V1__ContainerAttributes);
    stats_fill_attributes(container, out->attributes);
    if (out->writable_layer != NULL) {
        out->writable_layer = arena_memdup(arena, out->writable_layer, sizeof *out->writable_layer);
        /* A mount point of another machine: kubelet would look for it here, and give up on all stats. */
        if (!sandbox->handler->local)
            out->writable_layer->fs_id = NULL;
        stats->layer_bytes += out->writable_layer->used_bytes != NULL ? out->writable_layer->used_bytes->value : 0;
        stats->layer_inodes += out->writable_layer->inodes_used != NULL ? out->writable_layer->inodes_used->value : 0;
    }
    pb_encode_item(&out->base, &container->stats_item);
    return out;
}

static void stats_take(struct stats *stats, const Interlink__Agent__V1__StatsResponse *response)
{
    struct sandbox *sandbox = stats->sandbox;
    cleanup_arena struct arena arena = ARENA_INIT;
    Runtime__V1__PodSandboxStats pod = RUNTIME__V1__POD_SANDBOX_STATS__INIT;
    Runtime__V1__PodSandboxAttributes attributes;
    Runtime__V1__LinuxPodSandboxStats figures = *response->pod;

    for (LIST_EACH(struct container, c, &sandbox->containers, link))
        buf_clear(&c->stats_item);
    buf_clear(&stats->pod);
    buf_clear(&stats->metrics);
    stats->layer_bytes = stats->layer_inodes = 0;
    figures.n_containers = 0;
    figures.containers = ARENA_ARRAY(&arena, Runtime__V1__ContainerStats *, response->pod->n_containers);
    for (size_t i = 0; i < response->pod->n_containers; i++) {
        Runtime__V1__ContainerStats *one = stats_adopt(stats, &arena, response->pod->containers[i]);
        if (one != NULL)
            figures.containers[figures.n_containers++] = one;
    }
    stats_fill_pod_attributes(sandbox, &attributes);
    pod.attributes = &attributes;
    pod.linux = &figures;
    pb_encode_item(&pod.base, &stats->pod);
    stats->has_counters = stats->request_counters;
    if (stats->has_counters)
        metrics_encode(sandbox, response, &stats->metrics);
    stats->taken_ms = clock_mono_ms();
}

/* ---- who waits ---- */

static void stats_ask_end(struct stats_ask *ask)
{
    timer_stop(&ask->deadline);
    for (size_t i = 0; i < ask->wait_count; i++)
        list_remove(&ask->waits[i].link);
    free(ask->waits);
    ask->waits = NULL;
    ask->wait_count = 0;
}

static void stats_ask_finish(struct stats_ask *ask)
{
    stats_ask_end(ask);
    ask->on_done(ask);
}

void stats_ask_cancel(struct stats_ask *ask)
{
    stats_ask_end(ask);
}

static void stats_ask_on_deadline(void *arg)
{
    stats_ask_finish(arg);
}

/* All of them, or those who did not ask for counters. What hears of it may not free the sandbox. */
static void stats_wake(struct stats *stats, bool all)
{
    struct list ready;

    list_init(&ready);
    for (LIST_EACH_SAFE(struct stats_wait, wait, &stats->waits, link)) {
        if (!all && wait->ask->counters)
            continue;
        list_remove(&wait->link);
        list_append(&ready, &wait->link);
    }
    while (!list_empty(&ready)) {
        struct stats_wait *wait = CONTAINER_OF(ready.next, struct stats_wait, link);
        list_remove(&wait->link);
        if (--wait->ask->waiting == 0)
            stats_ask_finish(wait->ask);
    }
}

/* Somebody came for counters while an answer without was on its way. */
static bool stats_want_counters(const struct stats *stats)
{
    for (LIST_EACH(struct stats_wait, wait, &stats->waits, link))
        if (wait->ask->counters)
            return true;
    return false;
}

/* ---- asking an agent ---- */

static void stats_send(struct stats *stats, struct link *link, bool counters);

static bool stats_ask_again(struct stats *stats)
{
    struct status err = STATUS_INIT;
    struct link *link = sandbox_link(stats->sandbox, &err);

    if (link != NULL)
        stats_send(stats, link, true);
    return link != NULL;
}

static void stats_on_answer(void *arg, const struct status *status, const ProtobufCMessage *message)
{
    struct stats *stats = arg;
    const Interlink__Agent__V1__StatsResponse *response = (const void *)message;

    stats->request = NULL;
    stats->error = *status;
    if (status->code == STATUS_OK && response->pod == NULL)
        status_set(&stats->error, STATUS_INTERNAL, "the agent of sandbox %.13s gave no figures", stats->sandbox->record->id);
    else if (status->code == STATUS_OK && protobuf_c_message_get_packed_size(message) > STATS_ANSWER_MAX)
        status_set(&stats->error, STATUS_INTERNAL, "the agent of sandbox %.13s gave more figures than a pod can have",
                   stats->sandbox->record->id);
    else if (status->code == STATUS_OK)
        stats_take(stats, response);
    bool again = stats->error.code == STATUS_OK && !stats->has_counters && stats_want_counters(stats) && stats_ask_again(stats);
    stats_wake(stats, !again);
}

static void stats_send(struct stats *stats, struct link *link, bool counters)
{
    Interlink__Agent__V1__StatsRequest request = INTERLINK__AGENT__V1__STATS_REQUEST__INIT;

    request.counters = counters;
    stats->request_counters = counters;
    stats->asked_ms = clock_mono_ms();
    /* What the answer will be about: a container that moves on meanwhile is asked for again. */
    for (LIST_EACH(struct container, c, &stats->sandbox->containers, link))
        c->stats_phase = c->record->phase;
    stats->request = rpc_unary(link_conn(link), "/interlink.agent.v1.Agent/Stats", &request.base,
                               &interlink__agent__v1__stats_response__descriptor, STATS_OVERDUE_MS, stats_on_answer, stats);
}

static struct stats *stats_of(struct sandbox *sandbox)
{
    if (sandbox->stats == NULL) {
        sandbox->stats = xcalloc(1, sizeof *sandbox->stats);
        sandbox->stats->sandbox = sandbox;
        list_init(&sandbox->stats->waits);
    }
    return sandbox->stats;
}

void stats_free(struct stats *stats)
{
    if (stats == NULL)
        return;
    rpc_request_cancel(stats->request);
    stats_wake(stats, true);
    buf_free(&stats->pod);
    buf_free(&stats->metrics);
    free(stats);
}

/* Whether what is kept is about the pod as it is. */
static bool stats_are_fresh(const struct stats *stats, bool counters)
{
    if (stats->taken_ms == 0 || clock_mono_ms() - stats->taken_ms > STATS_KEEP_MS || (counters && !stats->has_counters))
        return false;
    for (LIST_EACH(struct container, c, &stats->sandbox->containers, link))
        if (container_listed(c) && c->stats_phase != (int)c->record->phase)
            return false;
    return true;
}

/* Whether there is an answer to wait for. */
static bool stats_want(struct sandbox *sandbox, bool counters)
{
    struct stats *stats = stats_of(sandbox);
    struct status err = STATUS_INIT;

    if (stats_are_fresh(stats, counters))
        return false;
    if (stats->request != NULL)
        return clock_mono_ms() - stats->asked_ms < STATS_WAIT_MS;
    struct link *link = sandbox_link(sandbox, &err);
    if (link == NULL) {
        stats->error = err;
        return false;
    }
    stats_send(stats, link, counters);
    return true;
}

void stats_ask_start(struct stats_ask *ask, struct sandbox *const *sandboxes, size_t count)
{
    ask->began_ms = clock_mono_ms();
    ask->waits = xcalloc(count + 1, sizeof *ask->waits);
    for (size_t i = 0; i < count; i++) {
        if (!stats_want(sandboxes[i], ask->counters))
            continue;
        struct stats_wait *wait = &ask->waits[ask->wait_count++];
        wait->ask = ask;
        list_append(&sandboxes[i]->stats->waits, &wait->link);
    }
    ask->waiting = ask->wait_count;
    if (ask->waiting == 0)
        stats_ask_finish(ask);
    else
        timer_start(ask->node->loop, &ask->deadline, STATS_WAIT_MS, stats_ask_on_deadline, ask);
}

bool stats_known(const struct stats_ask *ask, struct sandbox *sandbox, struct status *err)
{
    const struct stats *stats = sandbox->stats;

    /* Once it is stopped nothing of it uses anything, whatever was measured a moment ago. */
    if (sandbox->record->phase != INTERLINK__STATE__V1__SANDBOX_PHASE__READY)
        return sandbox_link(sandbox, err) != NULL;
    if (stats != NULL && stats->taken_ms != 0 && stats->taken_ms >= ask->began_ms - STATS_KEEP_MS &&
        (!ask->counters || stats->has_counters))
        return true;
    if (stats != NULL && stats->request == NULL && stats->error.code != STATUS_OK) {
        *err = stats->error;
        return false;
    }
    return status_set(err, STATUS_DEADLINE_EXCEEDED, "the agent of sandbox %.13s has not measured within %d ms",
                      sandbox->record->id, STATS_WAIT_MS);
}
