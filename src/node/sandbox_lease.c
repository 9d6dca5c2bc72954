/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox_lease.h"

#include "kube/pod_find.h"
#include "node/waiter.h"

/* kubelet lists every second; when it has not for this long it is not running. */
#define SANDBOX_POLL_RECENT_MS 5000

/* It waits in the queue, and no call waits for it. */
static bool lease_counts(const struct sandbox *sandbox)
{
    return !sandbox_listed(sandbox) && !sandbox->stopping && !waiters_any(&sandbox->waiters, WAIT_READY);
}

static bool lease_is_over(const struct sandbox *sandbox)
{
    return lease_counts(sandbox) && sandbox->lease_used_ms >= sandbox->node->options->queue_lease_ms;
}

static void lease_expire(struct sandbox *sandbox)
{
    log_info("pod %.13s: nobody has asked for it for %" PRId64 " s of kubelet's polling: cancelling its job",
             sandbox->record->id, sandbox->lease_used_ms / 1000);
    sandbox_expire(sandbox);
}

/* A pod that nobody has deleted and that has not ended: kubelet will ask for it. */
static bool lease_pod_waits(const struct json *pod)
{
    const char *phase = json_string(json_get(pod, "status", "phase"), "Pending");

    return json_get(pod, "metadata", "deletionTimestamp") == NULL && strcmp(phase, "Failed") != 0 &&
           strcmp(phase, "Succeeded") != 0;
}

/* Kubelet that was started while the API server is away knows no pods and asks for none. Whoever can tell is asked. */
static void lease_on_pod(void *arg, const struct json *pod, const struct status *err)
{
    struct sandbox *sandbox = arg;

    sandbox->lease_find = NULL;
    if (!lease_is_over(sandbox))
        return;
    if (pod != NULL && lease_pod_waits(pod)) {
        log_info("pod %.13s: kubelet does not ask for it, but it has not been deleted: its job stays", sandbox->record->id);
        sandbox->lease_used_ms = 0;
    } else if (pod != NULL || (err->code != STATUS_UNAVAILABLE && err->code != STATUS_DEADLINE_EXCEEDED)) {
        lease_expire(sandbox);
    } else if (!sandbox->lease_doubted) {
        log_info("pod %.13s: kubelet does not ask for it, but the API server cannot be asked whether it was deleted (%s): its job "
                 "stays until it can", sandbox->record->id, err->message);
        sandbox->lease_doubted = true;
    }
}

static void lease_ask(struct sandbox *sandbox)
{
    const Runtime__V1__PodSandboxMetadata *m = sandbox->record->config->metadata;
    struct node *node = sandbox->node;

    if (node->kube == NULL)
        lease_expire(sandbox);
    else if (sandbox->lease_find == NULL)
        sandbox->lease_find = pod_find_start(node->kube, node->loop, m->namespace_, m->name, m->uid, lease_on_pod, sandbox);
}

void sandbox_lease_renew(struct sandbox *sandbox)
{
    sandbox->lease_used_ms = 0;
    sandbox->lease_doubted = false;
    node_watch_leases(sandbox->node);
}

void sandbox_lease_free(struct sandbox *sandbox)
{
    pod_find_cancel(sandbox->lease_find);
    sandbox->lease_find = NULL;
}

void sandbox_check_leases(struct node *node, int64_t elapsed_ms)
{
    struct strmap_iter it = { 0 };

    if (node->last_poll_ms == 0 || clock_mono_ms() - node->last_poll_ms > SANDBOX_POLL_RECENT_MS)
        return;
    while (strmap_next(&node->sandboxes, &it)) {
        struct sandbox *sandbox = it.value;
        if (!lease_counts(sandbox))
            continue;
        sandbox->lease_used_ms += elapsed_ms;
        if (lease_is_over(sandbox))
            lease_ask(sandbox);
    }
}

#undef SANDBOX_POLL_RECENT_MS
