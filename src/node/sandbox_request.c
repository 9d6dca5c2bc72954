/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox.h"

#include "agent/podns.h"
#include "node/container.h"
#include "node/gate.h"
#include "node/job_size.h"
#include "node/pod_network.h"
#include "node/waiter.h"
#include "rpc/pb.h"

bool sandbox_check_request(const Runtime__V1__RunPodSandboxRequest *request, struct status *err)
{
    const Runtime__V1__PodSandboxConfig *config = request->config;

    if (config == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "config: missing");
    if (config->metadata == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "config.metadata: missing");
    if (*config->metadata->name == '\0' || *config->metadata->namespace_ == '\0' || *config->metadata->uid == '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT, "config.metadata: name, namespace and uid must not be empty");
    if (strlen(config->hostname) > 64)
        return status_set(err, STATUS_INVALID_ARGUMENT, "config.hostname: longer than the 64 bytes Linux allows");
    if (*config->log_directory != '\0' && *config->log_directory != '/')
        return status_set(err, STATUS_INVALID_ARGUMENT, "config.log_directory: \"%s\" is not an absolute path",
                          config->log_directory);
    if (config->windows != NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "config.windows: this is Linux");
    /* They would be the pause container's, and there is none; but a contradiction is one. */
    if (config->linux != NULL && config->linux->security_context != NULL &&
        config->linux->security_context->run_as_group != NULL && config->linux->security_context->run_as_user == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "config.linux.security_context.run_as_group: needs run_as_user");
    return podns_check_sandbox(config, err);
}

bool sandbox_is_host_network(const Runtime__V1__PodSandboxConfig *config)
{
    const Runtime__V1__LinuxSandboxSecurityContext *s = config->linux != NULL ? config->linux->security_context : NULL;

    return s != NULL && s->namespace_options != NULL && s->namespace_options->network == RUNTIME__V1__NAMESPACE_MODE__NODE;
}

void sandbox_stop_waiting(struct sandbox *sandbox, const struct status *why)
{
    struct status err = *why;

    if (!sandbox_listed(sandbox))
        status_prefix(&err, "%s", sandbox->queue_words);
    waiters_fail(&sandbox->waiters, WAIT_READY, &err);
    for (LIST_EACH(struct container, c, &sandbox->containers, link))
        waiters_fail(&c->waiters, WAIT_READY, &err); /* a start; its job goes on */
}

Interlink__State__V1__Sandbox *sandbox_record_new(struct node *node, const struct handler *handler,
                                                  const Runtime__V1__RunPodSandboxRequest *request, struct status *err)
{
    Interlink__State__V1__Sandbox *record = xmalloc(sizeof *record);
    char id[ID_LENGTH + 1], uid[UUID_LENGTH + 1], token[ID_LENGTH + 1];

    random_id(id);
    random_id(token); /* 256 bits */
    uuid_of_id(id, uid);
    interlink__state__v1__sandbox__init(record);
    record->config = (void *)pb_copy(&request->config->base);
    pb_set(&record->id, id);
    pb_set(&record->token, token);
    pb_set(&record->job_uid, uid);
    pb_set(&record->runtime_handler, request->runtime_handler);
    pb_set(&record->handler, handler->options->name);
    record->created_at = clock_real_ns();
    record->size = job_size_choose(record->config, NULL, &node->options->size, err);
    if (record->size != NULL && pod_network_plan(node, handler, record, err) && gate_plan(node, handler, record, err))
        return record;
    protobuf_c_message_free_unpacked(&record->base, NULL);
    return NULL;
}

struct sandbox *sandbox_find(struct node *node, const Runtime__V1__PodSandboxMetadata *metadata)
{
    struct strmap_iter it = { 0 };

    while (strmap_next(&node->sandboxes, &it)) {
        struct sandbox *sandbox = it.value;
        const Runtime__V1__PodSandboxMetadata *m = sandbox->record->config->metadata;
        if (m->attempt == metadata->attempt && strcmp(m->uid, metadata->uid) == 0 &&
            strcmp(m->name, metadata->name) == 0 && strcmp(m->namespace_, metadata->namespace_) == 0)
            return sandbox;
    }
    return NULL;
}
