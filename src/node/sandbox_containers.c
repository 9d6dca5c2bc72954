/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox_internal.h"

#include "node/container.h"
#include "node/container_job.h"
#include "node/waiter.h"

void sandbox_on_container_job_gone(struct sandbox *sandbox)
{
    if (!sandbox->stopping)
        return;
    for (LIST_EACH(struct container, c, &sandbox->containers, link))
        if (container_job_held(c))
            return;
    sandbox_stopped(sandbox, "");
}

void sandbox_on_container_job_stays(struct sandbox *sandbox, const struct status *err)
{
    waiters_fail(&sandbox->waiters, WAIT_STOPPED, err);
    waiters_fail(&sandbox->waiters, WAIT_REMOVED, err);
}

void sandbox_cancel_container_jobs(struct sandbox *sandbox)
{
    for (LIST_EACH_SAFE(struct container, c, &sandbox->containers, link))
        container_job_cancel(c);
    sandbox_on_container_job_gone(sandbox);
}

void sandbox_resume_container_jobs(struct sandbox *sandbox)
{
    struct status err = STATUS_INIT;

    for (LIST_EACH_SAFE(struct container, c, &sandbox->containers, link))
        container_job_adopt(c);
    if (sandbox_listed(sandbox))
        return;
    status_set(&err, STATUS_UNAVAILABLE, "serve was restarted");
    sandbox_abandon(sandbox, &err); /* nobody was told of it */
}
