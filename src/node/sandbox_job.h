/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox_job.h: a sandbox as an interLink pod: one container, our agent, sized as the pod. */
#ifndef NODE_SANDBOX_JOB_H
#define NODE_SANDBOX_JOB_H

#include "interlink/interlink.h"
#include "node/sandbox.h"

/* Environment of the agent (agent/agent.h reads it). */
#define SANDBOX_JOB_SECRET "interlink" /* volume; its key "token" is the agent's bearer token */

#define SANDBOX_JOB_CONTAINER "agent"

/* Asks for the end of its job's log (last_words.h), when the site could not say more of it than its exit code. False: there is
 * nothing to ask. */
bool sandbox_job_ask(struct sandbox *sandbox, void (*on_done)(void *arg, const char *text));

/* How it ended; the caller frees. */
char *sandbox_job_end_words(const struct interlink_job_state *state);
/* Whoever waits for the end of the job hears that it could not be cancelled yet. */
void sandbox_job_on_cancel_retry(void *arg, const struct status *err);

/* The same, to whoever asks and whichever the site is; the caller owns it. */
struct last_words *sandbox_job_words(struct sandbox *sandbox, void (*on_done)(void *arg, const char *text), void *arg);
/* Makes the job object of a sandbox; deterministic, so that a restart gives the same pod. Never NULL. */
struct interlink_job *sandbox_job_new(struct sandbox *sandbox, const struct interlink_job_events *events);

/* ---- what a container's own job has in common with it; all on the arena ---- */
/* A DNS label for REST: getLogs refuses other names. Pods of one name must not meet in one site's queue, hence the id. */
const char *sandbox_job_name(struct arena *arena, const char *pod, const char *id);
/* Limits and requests. Plugins look at limits, most of them at nothing else. */
void sandbox_job_size(struct arena *arena, const Interlink__State__V1__JobSize *size, struct interlink_container *c);
/* slurm-job.vk.io/flags with the time that the job may run. */
const char *sandbox_job_flags(struct arena *arena, const Interlink__State__V1__JobSize *size, const char *flags);
/* `own`, which count more than the pod's; the size; and of the pod's annotations those that are meant for the site: others are
 * Kubernetes' business and can be large. */
void sandbox_job_annotations(struct arena *arena, const Runtime__V1__PodSandboxConfig *config,
                             const Interlink__State__V1__JobSize *size, const struct interlink_pairs *own,
                             struct interlink_pairs *out);

#endif
