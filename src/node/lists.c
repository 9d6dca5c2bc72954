/* SPDX-License-Identifier: Apache-2.0 */
#include "node/lists.h"

#include "node/container.h"
#include "node/node.h"
#include "node/sandbox.h"
#include "rpc/pb.h"

/* What kubelet marks every sandbox and container with, and asks for. */
#define LISTS_UID_LABEL "io.kubernetes.pod.uid"

/* Objects with one value of that label. */
struct lists_group {
    struct list members; /* of sandbox or container.uid_link */
};

/* ---- objects come and go ---- */

void lists_changed(struct node *node, enum lists_kind kind)
{
    for (size_t i = 0; i < LISTS_VARIANTS; i++) {
        shared_unref(node->lists.kept[kind][i]);
        node->lists.kept[kind][i] = NULL;
    }
}

void lists_free(struct lists *lists)
{
    for (size_t k = 0; k < LISTS_KINDS; k++) {
        for (size_t i = 0; i < LISTS_VARIANTS; i++)
            shared_unref(lists->kept[k][i]);
        strmap_free(&lists->by_uid[k]);
    }
}

static void lists_add(struct strmap *by_uid, const char *uid, struct list *link)
{
    list_init(link);
    if (uid == NULL)
        return;
    struct lists_group *group = strmap_get(by_uid, uid);
    if (group == NULL) {
        group = xcalloc(1, sizeof *group);
        list_init(&group->members);
        strmap_put(by_uid, uid, group);
    }
    list_append(&group->members, link);
}

static void lists_remove(struct strmap *by_uid, const char *uid, struct list *link)
{
    list_remove(link);
    if (uid == NULL)
        return;
    struct lists_group *group = strmap_get(by_uid, uid);
    if (group == NULL || !list_empty(&group->members))
        return;
    strmap_remove(by_uid, uid);
    free(group);
}

static const char *lists_sandbox_uid(const struct sandbox *sandbox)
{
    const Runtime__V1__PodSandboxConfig *config = sandbox->record->config;

    return pb_label(config->n_labels, config->labels, LISTS_UID_LABEL);
}

static const char *lists_container_uid(const struct container *container)
{
    const Runtime__V1__ContainerConfig *config = container->record->config;

    return pb_label(config->n_labels, config->labels, LISTS_UID_LABEL);
}

void lists_add_sandbox(struct sandbox *sandbox)
{
    lists_add(&sandbox->node->lists.by_uid[LISTS_SANDBOXES], lists_sandbox_uid(sandbox), &sandbox->uid_link);
}

void lists_add_container(struct container *container)
{
    lists_add(&container->node->lists.by_uid[LISTS_CONTAINERS], lists_container_uid(container), &container->uid_link);
}

void lists_remove_sandbox(struct sandbox *sandbox)
{
    lists_remove(&sandbox->node->lists.by_uid[LISTS_SANDBOXES], lists_sandbox_uid(sandbox), &sandbox->uid_link);
    lists_changed(sandbox->node, LISTS_SANDBOXES);
}

void lists_remove_container(struct container *container)
{
    lists_remove(&container->node->lists.by_uid[LISTS_CONTAINERS], lists_container_uid(container), &container->uid_link);
    lists_changed(container->node, LISTS_CONTAINERS);
}

/* ---- elements, gathered ---- */

struct lists_gathered {
    const struct buf **items; /* owned */
    size_t count, cap, bytes;
};

static void lists_gather(struct lists_gathered *g, const struct buf *item)
{
    if (g->count == g->cap) {
        g->cap = g->cap > 0 ? 2 * g->cap : 16;
        g->items = xrealloc(g->items, g->cap * sizeof(const struct buf *));
    }
    g->items[g->count++] = item;
    g->bytes += item->n;
}

static struct shared *lists_join(struct lists_gathered *g)
{
    struct shared *list = shared_new(g->bytes);
    uint8_t *to = list->bytes;

    for (size_t i = 0; i < g->count; i++) {
        memcpy(to, g->items[i]->p, g->items[i]->n);
        to += g->items[i]->n;
    }
    free(g->items);
    return list;
}

/* ---- sandboxes ---- */

static Runtime__V1__PodSandboxState lists_sandbox_state(const struct sandbox *sandbox)
{
    return sandbox->record->phase == INTERLINK__STATE__V1__SANDBOX_PHASE__READY
               ? RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_READY
               : RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_NOTREADY;
}

static void lists_try_sandbox(struct lists_gathered *g, const struct sandbox *sandbox,
                              const Runtime__V1__PodSandboxFilter *filter)
{
    const Interlink__State__V1__Sandbox *record = sandbox->record;

    if (sandbox->item.n > 0 &&
        (filter == NULL ||
         (str_starts(record->id, filter->id) &&
          (filter->state == NULL || lists_sandbox_state(sandbox) == filter->state->state) &&
          pb_labels_match(filter->n_label_selector, filter->label_selector, record->config->n_labels,
                          record->config->labels))))
        lists_gather(g, &sandbox->item);
}

static struct shared *lists_make_sandboxes(struct node *node, const Runtime__V1__PodSandboxFilter *filter)
{
    struct lists_gathered g = { 0 };
    struct strmap_iter it = { 0 };
    const char *uid = filter != NULL ? pb_label(filter->n_label_selector, filter->label_selector, LISTS_UID_LABEL) : NULL;
    const struct sandbox *one = filter != NULL ? strmap_get(&node->sandboxes, filter->id) : NULL;

    if (one != NULL) {
        lists_try_sandbox(&g, one, filter);
    } else if (uid != NULL) {
        const struct lists_group *group = strmap_get(&node->lists.by_uid[LISTS_SANDBOXES], uid);
        if (group != NULL)
            for (LIST_EACH(struct sandbox, s, &group->members, uid_link))
                lists_try_sandbox(&g, s, filter);
    } else {
        while (strmap_next(&node->sandboxes, &it))
            lists_try_sandbox(&g, it.value, filter);
    }
    return lists_join(&g);
}

/* Which of the kept lists a filter asks for; -1: none of them. */
static int lists_variant_of(const char *id, size_t labels, int state, bool has_state)
{
    if (*id != '\0' || labels > 0 || (has_state && (state < 0 || state + 1 >= LISTS_VARIANTS)))
        return -1;
    return has_state ? state + 1 : 0;
}

/* A reference for the caller. */
static struct shared *lists_sandboxes_for(struct node *node, const Runtime__V1__PodSandboxFilter *filter)
{
    int variant = filter == NULL ? 0
                                 : lists_variant_of(filter->id, filter->n_label_selector,
                                                    filter->state != NULL ? (int)filter->state->state : 0,
                                                    filter->state != NULL);

    node->last_poll_ms = clock_mono_ms();
    if (variant < 0)
        return lists_make_sandboxes(node, filter);
    struct shared **kept = &node->lists.kept[LISTS_SANDBOXES][variant];
    if (*kept == NULL)
        *kept = lists_make_sandboxes(node, filter);
    return shared_ref(*kept);
}

/* ---- containers ---- */

static void lists_try_container(struct lists_gathered *g, const struct container *container,
                                const Runtime__V1__ContainerFilter *filter)
{
    const Interlink__State__V1__Container *record = container->record;

    if (container->item.n > 0 &&
        (filter == NULL ||
         (str_starts(record->id, filter->id) && str_starts(record->sandbox_id, filter->pod_sandbox_id) &&
          (filter->state == NULL || (int)record->phase == (int)filter->state->state) &&
          pb_labels_match(filter->n_label_selector, filter->label_selector, record->config->n_labels,
                          record->config->labels))))
        lists_gather(g, &container->item);
}

static struct shared *lists_make_containers(struct node *node, const Runtime__V1__ContainerFilter *filter)
{
    struct lists_gathered g = { 0 };
    struct strmap_iter it = { 0 };
    const char *uid = filter != NULL ? pb_label(filter->n_label_selector, filter->label_selector, LISTS_UID_LABEL) : NULL;
    const struct container *one = filter != NULL ? strmap_get(&node->containers, filter->id) : NULL;
    const struct sandbox *sandbox = filter != NULL ? strmap_get(&node->sandboxes, filter->pod_sandbox_id) : NULL;

    if (one != NULL) {
        lists_try_container(&g, one, filter);
    } else if (sandbox != NULL) {
        for (LIST_EACH(struct container, c, &sandbox->containers, link))
            lists_try_container(&g, c, filter);
    } else if (uid != NULL) {
        const struct lists_group *group = strmap_get(&node->lists.by_uid[LISTS_CONTAINERS], uid);
        if (group != NULL)
            for (LIST_EACH(struct container, c, &group->members, uid_link))
                lists_try_container(&g, c, filter);
    } else {
        while (strmap_next(&node->containers, &it))
            lists_try_container(&g, it.value, filter);
    }
    return lists_join(&g);
}

static struct shared *lists_containers_for(struct node *node, const Runtime__V1__ContainerFilter *filter)
{
    int variant = filter == NULL ? 0
                  : *filter->pod_sandbox_id != '\0'
                      ? -1
                      : lists_variant_of(filter->id, filter->n_label_selector,
                                         filter->state != NULL ? (int)filter->state->state : 0, filter->state != NULL);

    node->last_poll_ms = clock_mono_ms();
    if (variant < 0)
        return lists_make_containers(node, filter);
    struct shared **kept = &node->lists.kept[LISTS_CONTAINERS][variant];
    if (*kept == NULL)
        *kept = lists_make_containers(node, filter);
    return shared_ref(*kept);
}

/* ---- answers ---- */

static void lists_reply(struct rpc_call *call, struct shared *list)
{
    rpc_reply_shared(call, list);
    shared_unref(list);
}

void lists_pod_sandboxes(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    lists_reply(call, lists_sandboxes_for(context, ((const Runtime__V1__ListPodSandboxRequest *)(const void *)request)->filter));
}

void lists_containers(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    lists_reply(call, lists_containers_for(context, ((const Runtime__V1__ListContainersRequest *)(const void *)request)->filter));
}

/* One Stream* call: what it says is as of its beginning, whatever changes meanwhile. */
struct lists_streaming {
    struct node *node;
    struct rpc_call *call;
    struct shared *list; /* a reference */
    size_t sent;
};

static void lists_stream_free(struct lists_streaming *s)
{
    s->node->lists.streams--;
    shared_unref(s->list);
    free(s);
}

/* Where the element at `at` ends: a tag of one byte, a length, and that many bytes. */
static size_t lists_element_end(const struct shared *list, size_t at)
{
    size_t n = 0;
    unsigned shift = 0;

    for (at++; at < list->n; at++, shift += 7) {
        n |= (size_t)(list->bytes[at] & 0x7f) << shift;
        if ((list->bytes[at] & 0x80) == 0)
            break;
    }
    return at + 1 + n;
}

static void lists_stream_more(void *arg)
{
    struct lists_streaming *s = arg;

    while (s->sent < s->list->n) {
        size_t from = s->sent;
        do
            s->sent = lists_element_end(s->list, s->sent);
        while (s->sent < s->list->n && s->sent - from < LISTS_PART_SIZE);
        if (!rpc_send_packed(s->call, s->list->bytes + from, s->sent - from))
            return;
    }
    struct rpc_call *call = s->call;
    lists_stream_free(s);
    rpc_finish(call, NULL);
}

static void lists_stream_on_cancel(void *arg)
{
    lists_stream_free(arg);
}

void lists_stream(struct node *node, struct rpc_call *call, struct shared *list)
{
    if (node->lists.streams >= LISTS_STREAMS_MAX) {
        shared_unref(list);
        rpc_failf(call, STATUS_RESOURCE_EXHAUSTED, "%zu lists are being streamed already, which is the most: try again",
                  node->lists.streams);
        return;
    }
    struct lists_streaming *s = xcalloc(1, sizeof *s);
    node->lists.streams++;
    s->node = node;
    s->call = call;
    s->list = list;
    rpc_call_on_cancel(call, lists_stream_on_cancel, s);
    rpc_call_on_writable(call, lists_stream_more, s);
    lists_stream_more(s);
}

void lists_stream_pod_sandboxes(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    lists_stream(context, call,
                 lists_sandboxes_for(context, ((const Runtime__V1__StreamPodSandboxesRequest *)(const void *)request)->filter));
}

void lists_stream_containers(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    lists_stream(context, call,
                 lists_containers_for(context, ((const Runtime__V1__StreamContainersRequest *)(const void *)request)->filter));
}

#undef LISTS_UID_LABEL
