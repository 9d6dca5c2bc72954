/* SPDX-License-Identifier: Apache-2.0 */
/* After a restart of ours. */
#include "node/sandbox_internal.h"

#include "node/sandbox_job.h"

/* From its creation to its create on the way: asking how large it is, and its record on a slow disk. */
#define SANDBOX_SUBMIT_MS 30000

void sandbox_restore(struct node *node, Interlink__State__V1__Sandbox *record)
{
    struct status err = STATUS_INIT;
    struct handler *handler = node_handler(node, *record->handler != '\0' ? record->handler : record->runtime_handler, &err);

    if (handler == NULL) {
        log_error("pod %.13s: %s; it is left alone until that handler is configured again", record->id, err.message);
        strmap_put(&node->left_alone, record->id, node);
        protobuf_c_message_free_unpacked(&record->base, NULL);
        return;
    }
    struct sandbox *sandbox = sandbox_new(node, handler, record);
    sandbox->announced = announced_sandbox_phase((int)record->phase);
    sandbox->restored = true;
}

void sandbox_resume(struct sandbox *sandbox)
{
    const Interlink__State__V1__Sandbox *record = sandbox->record;

    if (sandbox->handler->per_container) {
        sandbox_resume_container_jobs(sandbox);
        return;
    }
    if (record->job_deleted)
        return;
    sandbox->job = sandbox_job_new(sandbox, &sandbox_job_events);
    int64_t age_ms = (clock_real_ns() - record->created_at) / 1000000 - SANDBOX_SUBMIT_MS;
    interlink_job_adopt(sandbox->job, record->job_id, record->submitted, age_ms > 0 ? age_ms : 0);
    if (record->submitted)
        sandbox_say_submitted(sandbox);
    else
        sandbox_say(sandbox, xstrdup("serve was restarted while its job was being submitted: the site is asked whether it has it"));
    if (record->phase == INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY)
        sandbox_cancel_job(sandbox);
}

#undef SANDBOX_SUBMIT_MS
