/* SPDX-License-Identifier: Apache-2.0 */
#include "node/resources.h"

#include "node/link.h"
#include "rpc/pb.h"

/* The kernel may have to reclaim memory before a lower limit holds. kubelet itself waits two minutes. */
#define RESOURCES_CALL_TIMEOUT_MS 60000

/* ---- what is in force ---- */

static void resources_merge_number(int64_t *into, int64_t from)
{
    if (from != 0)
        *into = from;
}

static void resources_merge_text(char **into, const char *from)
{
    if (*from != '\0')
        pb_set(into, from);
}

static void resources_merge_hugepages(Runtime__V1__LinuxContainerResources *into,
                                      const Runtime__V1__LinuxContainerResources *from)
{
    for (size_t i = 0; i < from->n_hugepage_limits; i++) {
        const Runtime__V1__HugepageLimit *limit = from->hugepage_limits[i];
        size_t at = 0;
        while (at < into->n_hugepage_limits && strcmp(into->hugepage_limits[at]->page_size, limit->page_size) != 0)
            at++;
        if (at < into->n_hugepage_limits) {
            into->hugepage_limits[at]->limit = limit->limit;
            continue;
        }
        into->hugepage_limits = xrealloc(into->hugepage_limits, (at + 1) * sizeof(Runtime__V1__HugepageLimit *));
        into->hugepage_limits[into->n_hugepage_limits++] = (void *)pb_copy(&limit->base);
    }
}

static void resources_merge_unified(Runtime__V1__LinuxContainerResources *into,
                                    const Runtime__V1__LinuxContainerResources *from)
{
    typedef Runtime__V1__LinuxContainerResources__UnifiedEntry entry;

    for (size_t i = 0; i < from->n_unified; i++) {
        const entry *file = from->unified[i];
        size_t at = 0;
        while (at < into->n_unified && strcmp(into->unified[at]->key, file->key) != 0)
            at++;
        if (at < into->n_unified) {
            pb_set(&into->unified[at]->value, file->value);
            continue;
        }
        into->unified = xrealloc(into->unified, (at + 1) * sizeof(entry *));
        into->unified[into->n_unified++] = (void *)pb_copy(&file->base);
    }
}

void resources_merge(Runtime__V1__LinuxContainerResources **into, const Runtime__V1__LinuxContainerResources *from)
{
    if (from == NULL)
        return;
    if (*into == NULL) {
        *into = (void *)pb_copy(&from->base);
        return;
    }
    resources_merge_number(&(*into)->cpu_period, from->cpu_period);
    resources_merge_number(&(*into)->cpu_quota, from->cpu_quota);
    resources_merge_number(&(*into)->cpu_shares, from->cpu_shares);
    resources_merge_number(&(*into)->memory_limit_in_bytes, from->memory_limit_in_bytes);
    resources_merge_number(&(*into)->memory_swap_limit_in_bytes, from->memory_swap_limit_in_bytes);
    resources_merge_number(&(*into)->oom_score_adj, from->oom_score_adj);
    resources_merge_text(&(*into)->cpuset_cpus, from->cpuset_cpus);
    resources_merge_text(&(*into)->cpuset_mems, from->cpuset_mems);
    resources_merge_hugepages(*into, from);
    resources_merge_unified(*into, from);
}

/* ---- one update under way ---- */

struct resources_updating {
    struct node *node;
    char id[ID_LENGTH + 1];
    struct rpc_call *call; /* NULL: its client has gone; what is applied is recorded all the same */
    Runtime__V1__LinuxContainerResources *resources, *overhead; /* owned; may be NULL */
};

static void resources_on_cancel(void *arg)
{
    ((struct resources_updating *)arg)->call = NULL;
}

static struct resources_updating *resources_begin(struct node *node, const char *id, struct rpc_call *call,
                                                  const Runtime__V1__LinuxContainerResources *resources,
                                                  const Runtime__V1__LinuxContainerResources *overhead)
{
    struct resources_updating *u = xcalloc(1, sizeof *u);

    u->node = node;
    snprintf(u->id, sizeof u->id, "%s", id);
    u->call = call;
    u->resources = resources != NULL ? (void *)pb_copy(&resources->base) : NULL;
    u->overhead = overhead != NULL ? (void *)pb_copy(&overhead->base) : NULL;
    rpc_call_on_cancel(call, resources_on_cancel, u);
    return u;
}

static void resources_end(struct resources_updating *u, const struct status *err)
{
    if (u->call != NULL && err != NULL)
        rpc_fail(u->call, err);
    else if (u->call != NULL)
        rpc_reply_packed(u->call, "", 0);
    if (u->resources != NULL)
        protobuf_c_message_free_unpacked(&u->resources->base, NULL);
    if (u->overhead != NULL)
        protobuf_c_message_free_unpacked(&u->overhead->base, NULL);
    free(u);
}

static void resources_on_recorded(void *arg, const struct status *err)
{
    resources_end(arg, err);
}

static void resources_end_gone(struct resources_updating *u, const char *what)
{
    struct status err = STATUS_INIT;

    status_set(&err, STATUS_NOT_FOUND, "%s %.13s was removed meanwhile", what, u->id);
    resources_end(u, &err);
}

/* ---- a container ---- */

static void resources_on_container_updated(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct resources_updating *u = arg;
    struct container *container = strmap_get(&u->node->containers, u->id);

    (void)response;
    if (status->code != STATUS_OK) {
        resources_end(u, status);
        return;
    }
    if (container == NULL) {
        resources_end_gone(u, "container");
        return;
    }
    Runtime__V1__ContainerConfig *config = container->record->config;
    if (config->linux == NULL) {
        config->linux = xmalloc(sizeof *config->linux);
        runtime__v1__linux_container_config__init(config->linux);
    }
    resources_merge(&config->linux->resources, u->resources);
    state_put(u->node->state, STATE_CONTAINER, u->id, &container->record->base, resources_on_recorded, u);
}

void resources_update_container(struct container *container, struct rpc_call *call,
                                const Runtime__V1__UpdateContainerResourcesRequest *request)
{
    struct status err = STATUS_INIT;
    Interlink__Agent__V1__UpdateContainerRequest update = INTERLINK__AGENT__V1__UPDATE_CONTAINER_REQUEST__INIT;
    struct link *link;

    if (request->windows != NULL) {
        rpc_failf(call, STATUS_INVALID_ARGUMENT, "windows: containers are Linux containers here");
    } else if (request->linux == NULL) {
        rpc_failf(call, STATUS_INVALID_ARGUMENT, "linux: missing");
    } else if (container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED) {
        rpc_failf(call, STATUS_FAILED_PRECONDITION, "container %.13s has exited: its resources cannot be changed",
                  container->record->id);
    } else if ((link = container_link(container, &err)) == NULL) {
        rpc_fail(call, &err);
    } else {
        struct resources_updating *u =
            resources_begin(container->node, container->record->id, call, request->linux, NULL);
        update.id = u->id;
        update.resources = u->resources;
        rpc_unary(link_conn(link), "/interlink.agent.v1.Agent/UpdateContainer", &update.base,
                  &interlink__agent__v1__update_container_response__descriptor, RESOURCES_CALL_TIMEOUT_MS,
                  resources_on_container_updated, u);
    }
}

/* ---- a pod ---- */

static void resources_on_sandbox_updated(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct resources_updating *u = arg;
    struct sandbox *sandbox = strmap_get(&u->node->sandboxes, u->id);

    (void)response;
    if (status->code != STATUS_OK) {
        resources_end(u, status);
        return;
    }
    if (sandbox == NULL) {
        resources_end_gone(u, "pod sandbox");
        return;
    }
    /* The agent gets this configuration again with each new connection. */
    Runtime__V1__PodSandboxConfig *config = sandbox->record->config;
    if (config->linux == NULL) {
        config->linux = xmalloc(sizeof *config->linux);
        runtime__v1__linux_pod_sandbox_config__init(config->linux);
    }
    resources_merge(&config->linux->resources, u->resources);
    resources_merge(&config->linux->overhead, u->overhead);
    state_put(u->node->state, STATE_SANDBOX, u->id, &sandbox->record->base, resources_on_recorded, u);
}

void resources_update_sandbox(struct sandbox *sandbox, struct rpc_call *call,
                              const Runtime__V1__UpdatePodSandboxResourcesRequest *request)
{
    struct status err = STATUS_INIT;
    Interlink__Agent__V1__UpdateSandboxRequest update = INTERLINK__AGENT__V1__UPDATE_SANDBOX_REQUEST__INIT;
    struct link *link = sandbox_link(sandbox, &err);

    if (request->resources == NULL && request->overhead == NULL) {
        rpc_failf(call, STATUS_INVALID_ARGUMENT, "resources, overhead: both are missing");
    } else if (link == NULL) {
        rpc_fail(call, &err);
    } else {
        struct resources_updating *u =
            resources_begin(sandbox->node, sandbox->record->id, call, request->resources, request->overhead);
        update.resources = u->resources;
        update.overhead = u->overhead;
        rpc_unary(link_conn(link), "/interlink.agent.v1.Agent/UpdateSandbox", &update.base,
                  &interlink__agent__v1__update_sandbox_response__descriptor, RESOURCES_CALL_TIMEOUT_MS,
                  resources_on_sandbox_updated, u);
    }
}

#undef RESOURCES_CALL_TIMEOUT_MS
