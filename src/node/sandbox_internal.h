/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox_internal.h: what sandbox.c, sandbox_restore.c, sandbox_containers.c and call_in.c share; nobody else includes it. */
#ifndef NODE_SANDBOX_INTERNAL_H
#define NODE_SANDBOX_INTERNAL_H

#include "node/sandbox.h"

/* ---- sandbox.c ---- */
extern const struct interlink_job_events sandbox_job_events;
struct sandbox *sandbox_new(struct node *node, struct handler *handler, Interlink__State__V1__Sandbox *record); /* takes the record */
void sandbox_say(struct sandbox *sandbox, char *words); /* takes the words */
void sandbox_say_submitted(struct sandbox *sandbox);
/* It never became a pod: nothing was listed, nothing is left. It is gone, or will be with its network. */
void sandbox_abandon(struct sandbox *sandbox, const struct status *err);
void sandbox_cancel_job(struct sandbox *sandbox);
/* Nothing of the pod runs any more. May free it. */
void sandbox_stopped(struct sandbox *sandbox, const char *message);

/* ---- sandbox_containers.c: a pod each of whose containers is a job of its own ---- */
/* The pod is being stopped: sandbox_stopped() once all are gone. */
void sandbox_cancel_container_jobs(struct sandbox *sandbox);
/* After a restart. */
void sandbox_resume_container_jobs(struct sandbox *sandbox);

#endif
