/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox_size.h"

#include "kube/pod_find.h"
#include "node/job_size.h"
#include "rpc/pb.h"

static void sandbox_size_note(struct sandbox *sandbox, const struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const char *text = job_size_text(&arena, sandbox->record->size);
    bool none = err->code == STATUS_NOT_FOUND; /* ctl's and crictl's pods are not the cluster's */

    pb_set(&sandbox->record->size->note, err->message);
    (none ? log_info : log_warn)("pod %.13s: the size of its job is taken without the API server's pod (%s): %s",
                                 sandbox->record->id, err->message, *text != '\0' ? text : "nothing is known of it");
}

static void sandbox_size_on_pod(void *arg, const struct json *pod, const struct status *err)
{
    struct sandbox *sandbox = arg;
    Interlink__State__V1__Sandbox *record = sandbox->record;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status fault = err != NULL ? *err : (struct status)STATUS_INIT;
    Interlink__State__V1__JobSize *chosen = NULL;
    struct pod_size size;

    sandbox->size_find = NULL;
    if (pod != NULL && pod_size_read(&arena, pod, &size, &fault))
        chosen = job_size_choose(record->config, &size, &sandbox->node->options->size, &fault);
    if (chosen != NULL) {
        protobuf_c_message_free_unpacked(&record->size->base, NULL);
        record->size = chosen;
        log_info("pod %.13s: its job asks for %s", record->id, job_size_text(&arena, chosen));
    } else {
        sandbox_size_note(sandbox, &fault);
    }
    sandbox_on_sized(sandbox);
}

bool sandbox_size_start(struct sandbox *sandbox)
{
    const Runtime__V1__PodSandboxMetadata *m = sandbox->record->config->metadata;
    struct node *node = sandbox->node;

    if (node->kube == NULL || sandbox->handler->local || sandbox->handler->per_container)
        return false;
    free(sandbox->queue_words);
    sandbox->queue_words = xstrdup("the API server is being asked how large the pod is");
    sandbox->size_find = pod_find_start(node->kube, node->loop, m->namespace_, m->name, m->uid, sandbox_size_on_pod, sandbox);
    return true;
}

void sandbox_size_free(struct sandbox *sandbox)
{
    pod_find_cancel(sandbox->size_find);
    sandbox->size_find = NULL;
}
