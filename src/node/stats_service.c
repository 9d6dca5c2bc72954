/* SPDX-License-Identifier: Apache-2.0 */
/* The stats RPCs: each asks the agents of the pods that its filter names, then answers with what they said. */
#include "node/container.h"
#include "node/lists.h"
#include "node/node.h"
#include "node/stats.h"
#include "rpc/pb.h"

/* One call under way. */
struct stats_call {
    struct stats_ask ask;
    struct rpc_call *call;
    bool streamed;
    char id[ID_LENGTH + 1]; /* of the one pod or container that is asked for */
    /* Whether the filter lets it through; the request lives as long as the call. */
    bool (*pod_matches)(const struct stats_call *c, const struct sandbox *sandbox);
    const ProtobufCMessage *filter; /* NULL: none */
    /* Appends what is told of a pod. */
    void (*append)(const struct stats_call *c, const struct sandbox *sandbox, struct buf *out);
};

static void stats_call_on_cancel(void *arg)
{
    struct stats_call *c = arg;

    stats_ask_cancel(&c->ask);
    free(c);
}

static struct stats_call *stats_call_new(struct node *node, struct rpc_call *call, bool counters,
                                         void (*on_done)(struct stats_ask *ask))
{
    struct stats_call *c = xcalloc(1, sizeof *c);

    c->ask = (struct stats_ask){ .node = node, .counters = counters, .on_done = on_done };
    c->call = call;
    rpc_call_on_cancel(call, stats_call_on_cancel, c);
    return c;
}

/* ---- lists ---- */

/* In the order of a list that was not asked for figures: none. */
static void stats_call_on_list(struct stats_ask *ask)
{
    struct stats_call *c = CONTAINER_OF(ask, struct stats_call, ask);
    cleanup_buf struct buf out = BUF_INIT;
    struct strmap_iter it = { 0 };
    struct status ignored;

    while (strmap_next(&ask->node->sandboxes, &it))
        if (sandbox_listed(it.value) && c->pod_matches(c, it.value) && stats_known(ask, it.value, &ignored))
            c->append(c, it.value, &out);
    struct shared *list = shared_new(out.n);
    memcpy(list->bytes, buf_cstr(&out), out.n);
    if (c->streamed) {
        lists_stream(ask->node, c->call, list);
    } else {
        rpc_reply_shared(c->call, list);
        shared_unref(list);
    }
    free(c);
}

/* Pods that have been stopped have no agent to ask. */
static void stats_call_start_list(struct stats_call *c)
{
    struct node *node = c->ask.node;
    cleanup_free struct sandbox **wanted = xcalloc(node->sandboxes.count + 1, sizeof(struct sandbox *));
    struct strmap_iter it = { 0 };
    size_t count = 0;

    while (strmap_next(&node->sandboxes, &it)) {
        struct sandbox *sandbox = it.value;
        if (sandbox->record->phase == INTERLINK__STATE__V1__SANDBOX_PHASE__READY && c->pod_matches(c, sandbox))
            wanted[count++] = sandbox;
    }
    stats_ask_start(&c->ask, wanted, count);
}

/* ---- containers ---- */

static bool stats_container_matches(const struct container *container, const Runtime__V1__ContainerStatsFilter *filter)
{
    const Interlink__State__V1__Container *record = container->record;

    return filter == NULL ||
           (str_starts(record->id, filter->id) && str_starts(record->sandbox_id, filter->pod_sandbox_id) &&
            pb_labels_match(filter->n_label_selector, filter->label_selector, record->config->n_labels, record->config->labels));
}

static bool stats_pod_has_match(const struct stats_call *c, const struct sandbox *sandbox)
{
    for (LIST_EACH(struct container, one, &sandbox->containers, link))
        if (container_listed(one) && stats_container_matches(one, (const void *)c->filter))
            return true;
    return false;
}

static void stats_append_containers(const struct stats_call *c, const struct sandbox *sandbox, struct buf *out)
{
    for (LIST_EACH(struct container, one, &sandbox->containers, link))
        if (one->stats_item.n > 0 && stats_container_matches(one, (const void *)c->filter))
            buf_append(out, one->stats_item.p, one->stats_item.n);
}

static void stats_containers(struct node *node, struct rpc_call *call, const Runtime__V1__ContainerStatsFilter *filter,
                             bool streamed)
{
    struct stats_call *c = stats_call_new(node, call, false, stats_call_on_list);

    c->streamed = streamed;
    c->filter = filter != NULL ? &filter->base : NULL;
    c->pod_matches = stats_pod_has_match;
    c->append = stats_append_containers;
    stats_call_start_list(c);
}

void stats_list_containers(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    stats_containers(context, call, ((const Runtime__V1__ListContainerStatsRequest *)(const void *)request)->filter, false);
}

void stats_stream_containers(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    stats_containers(context, call, ((const Runtime__V1__StreamContainerStatsRequest *)(const void *)request)->filter, true);
}

/* ---- pods ---- */

static bool stats_pod_matches(const struct stats_call *c, const struct sandbox *sandbox)
{
    const Runtime__V1__PodSandboxStatsFilter *filter = (const void *)c->filter;
    const Runtime__V1__PodSandboxConfig *config = sandbox->record->config;

    return filter == NULL ||
           (str_starts(sandbox->record->id, filter->id) &&
            pb_labels_match(filter->n_label_selector, filter->label_selector, config->n_labels, config->labels));
}

static void stats_append_pod(const struct stats_call *c, const struct sandbox *sandbox, struct buf *out)
{
    const struct buf *item = c->ask.counters ? &sandbox->stats->metrics : &sandbox->stats->pod;

    buf_append(out, item->p, item->n);
}

static void stats_pods(struct node *node, struct rpc_call *call, const Runtime__V1__PodSandboxStatsFilter *filter,
                       bool counters, bool streamed)
{
    struct stats_call *c = stats_call_new(node, call, counters, stats_call_on_list);

    c->streamed = streamed;
    c->filter = filter != NULL ? &filter->base : NULL;
    c->pod_matches = stats_pod_matches;
    c->append = stats_append_pod;
    stats_call_start_list(c);
}

void stats_list_pods(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    stats_pods(context, call, ((const Runtime__V1__ListPodSandboxStatsRequest *)(const void *)request)->filter, false, false);
}

void stats_stream_pods(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    stats_pods(context, call, ((const Runtime__V1__StreamPodSandboxStatsRequest *)(const void *)request)->filter, false, true);
}

void stats_list_metrics(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)request;
    stats_pods(context, call, NULL, true, false);
}

void stats_stream_metrics(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)request;
    stats_pods(context, call, NULL, true, true);
}

/* ---- one ---- */

static void stats_call_reply(struct stats_call *c, struct sandbox *sandbox, const struct buf *item, const char *what)
{
    struct status err = STATUS_INIT;

    /* A list's element and the one response's field have the same number. */
    if (sandbox == NULL)
        rpc_failf(c->call, STATUS_NOT_FOUND, "%s %.13s was removed meanwhile", what, c->id);
    else if (!stats_known(&c->ask, sandbox, &err))
        rpc_fail(c->call, &err);
    else if (item->n == 0)
        rpc_failf(c->call, STATUS_FAILED_PRECONDITION, "%s %.13s: the agent of its pod has no figures of it", what, c->id);
    else
        rpc_reply_packed(c->call, item->p, item->n);
    free(c);
}

static void stats_call_on_pod(struct stats_ask *ask)
{
    struct stats_call *c = CONTAINER_OF(ask, struct stats_call, ask);
    struct sandbox *sandbox = strmap_get(&ask->node->sandboxes, c->id);

    stats_call_reply(c, sandbox, sandbox != NULL && sandbox->stats != NULL ? &sandbox->stats->pod : NULL, "pod sandbox");
}

static void stats_call_on_container(struct stats_ask *ask)
{
    struct stats_call *c = CONTAINER_OF(ask, struct stats_call, ask);
    const struct container *container = strmap_get(&ask->node->containers, c->id);

    stats_call_reply(c, container != NULL ? container->sandbox : NULL, container != NULL ? &container->stats_item : NULL,
                     "container");
}

void stats_pod(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct status err = STATUS_INIT;
    struct sandbox *sandbox =
        node_sandbox(context, ((const Runtime__V1__PodSandboxStatsRequest *)(const void *)request)->pod_sandbox_id, &err);

    if (sandbox == NULL) {
        rpc_fail(call, &err);
        return;
    }
    struct stats_call *c = stats_call_new(context, call, false, stats_call_on_pod);
    memcpy(c->id, sandbox->record->id, sizeof c->id);
    stats_ask_start(&c->ask, &sandbox, 1);
}

void stats_container(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct status err = STATUS_INIT;
    struct container *container =
        node_container(context, ((const Runtime__V1__ContainerStatsRequest *)(const void *)request)->container_id, &err);

    if (container == NULL) {
        rpc_fail(call, &err);
        return;
    }
    struct stats_call *c = stats_call_new(context, call, false, stats_call_on_container);
    memcpy(c->id, container->record->id, sizeof c->id);
    stats_ask_start(&c->ask, &container->sandbox, 1);
}
