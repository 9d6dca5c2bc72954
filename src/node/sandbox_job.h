/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox_job.h: a sandbox as an interLink pod: one container, our agent, sized as the pod. */
#ifndef NODE_SANDBOX_JOB_H
#define NODE_SANDBOX_JOB_H

#include "interlink/interlink.h"
#include "node/sandbox.h"

/* Environment of the agent (agent/agent.h reads it). */
#define SANDBOX_JOB_SECRET "interlink" /* volume; its key "token" is the agent's bearer token */

#define SANDBOX_JOB_CONTAINER "agent"

/* Makes the job object of a sandbox; deterministic, so that a restart gives the same pod. Never NULL. */
struct interlink_job *sandbox_job_new(struct sandbox *sandbox, const struct interlink_job_events *events);

#endif
