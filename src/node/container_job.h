/* SPDX-License-Identifier: Apache-2.0 */
/* container_job.h: a container that is an interLink pod of its own (JobPer: container), for sites on which no agent can make
 * containers. It is the second container_backend (container.h).
 *
 *   CreateContainer   checks, reads the volumes, makes the request; no job yet
 *   StartContainer    on disk that a job is wanted; submitted; answered once the site has it and it runs, or at the end of QueueHold
 *   RUNNING           also while it waits in the queue after that: the message says so. kubelet makes another container of one
 *                     whose start fails, so an answer of "not yet" would cost the place in the queue
 *   EXITED            what /status says, once the output is complete; then the site may forget the job
 *
 * A job is on disk (job_wanted) from before its submission until its deletion was confirmed: none is ever forgotten. Its uid comes
 * from the container's id, so that each attempt is a job and no attempt is two; an attempt that kubelet has given up is cancelled
 * before the next one may start. */
#ifndef NODE_CONTAINER_JOB_H
#define NODE_CONTAINER_JOB_H

#include "image/config.h"
#include "node/container.h"

struct container_job;

extern const struct container_backend container_backend_job;

/* CreateContainer, when the request was found good and its image is there. Takes the record. */
void container_job_create(struct sandbox *sandbox, struct rpc_call *call, Interlink__State__V1__Container *record,
                          const struct image_config *image);
/* Whether the site may still have its job. */
bool container_job_held(const struct container *container);
/* The pod is being stopped: the job goes. sandbox_on_container_job_gone() when it has. */
void container_job_cancel(struct container *container);
/* After a restart. */
void container_job_adopt(struct container *container);
/* Where its job is: "job 4711 is queued: Priority"; "" when there is nothing to say. */
const char *container_job_words(const struct container *container);
/* Whose agent calls itself so; NULL: no container's. */
struct container *container_job_by_agent(struct node *node, const char *id);
/* The agent in the container has called in: takes the stream. */
void container_job_attach(struct container *container, struct stream *stream, struct str early);
/* The agent of a container of the pod that runs, for what is asked of the pod as a whole. NULL: UNAVAILABLE. */
struct link *container_job_any_link(struct sandbox *sandbox, struct status *err);
void container_job_free(struct container_job *job); /* NULL is fine */

#endif
