/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox.h"

#include "node/container.h"
#include "node/link.h"
#include "rpc/pb.h"

static const Interlink__Agent__V1__ContainerState *sandbox_hello_find(const Interlink__Agent__V1__HelloResponse *hello,
                                                                      const char *id)
{
    for (size_t i = 0; i < hello->n_containers; i++)
        if (strcmp(hello->containers[i]->id, id) == 0)
            return hello->containers[i];
    return NULL;
}

static void sandbox_on_stray_removed(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    (void)arg;
    (void)response;
    if (status->code != STATUS_OK)
        log_warn("a stray container could not be removed: %s", status->message);
}

void sandbox_reconcile(struct sandbox *sandbox, const Interlink__Agent__V1__HelloResponse *hello)
{
    struct node *node = sandbox->node;

    for (LIST_EACH_SAFE(struct container, c, &sandbox->containers, link)) {
        const Interlink__Agent__V1__ContainerState *state = sandbox_hello_find(hello, c->record->id);
        if (c->creating)
            continue;
        if (state != NULL)
            container_on_state(c, state);
        else
            container_on_lost(c, "the agent was started again and no longer has it");
    }
    for (size_t i = 0; i < hello->n_containers; i++) {
        Interlink__Agent__V1__RemoveContainerRequest remove = INTERLINK__AGENT__V1__REMOVE_CONTAINER_REQUEST__INIT;
        if (strmap_get(&node->containers, hello->containers[i]->id) != NULL)
            continue;
        remove.id = hello->containers[i]->id;
        log_info("pod %.13s: removing container %.13s, which was never confirmed", sandbox->record->id, remove.id);
        rpc_unary(link_conn(sandbox->link), "/interlink.agent.v1.Agent/RemoveContainer", &remove.base,
                  &interlink__agent__v1__remove_container_response__descriptor, 0, sandbox_on_stray_removed, NULL);
    }
}

void sandbox_learn_job(struct sandbox *sandbox, const char *jid, const char *nodes)
{
    Interlink__State__V1__Sandbox *record = sandbox->record;

    if ((*jid == '\0' || strcmp(jid, record->job_id) == 0) && (*nodes == '\0' || strcmp(nodes, record->job_nodes) == 0))
        return;
    if (*jid != '\0')
        pb_set(&record->job_id, jid);
    if (*nodes != '\0') {
        pb_set(&record->job_nodes, nodes);
        log_info("pod %.13s: job %s runs on %s", record->id, *record->job_id != '\0' ? record->job_id : record->job_uid, nodes);
    }
    state_put(sandbox->node->state, STATE_SANDBOX, record->id, &record->base, NULL, sandbox);
}
