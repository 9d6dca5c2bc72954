/* SPDX-License-Identifier: Apache-2.0 */
/*
 * volumes.h: files that only this machine has, brought to where a pod's job runs, and kept as they are here.
 *
 *   volume_place.c    what a host path is: shared, kubelet's own, elsewhere
 *   volume_origin.c   what is mounted over kubelet's folders
 *   volume_read.c     one volume, as it is at one moment
 *   volume_plan.c     all mounts of a container: where each comes from (these four run in a worker)
 *   volumes.c         a plan is made, and its files are sent
 *   volumes_watch.c   when kubelet has written a volume anew
 *
 * Of each pod one thing is done at a time, so that no older version overtakes a newer one:
 *
 *   waiting ----> reading ----------> sending ------------> done
 *           a reader   its answer:     PutFiles, of what the agent
 *           is free    the plan        does not have in this version
 *
 * What the agent has is known from its greeting, so after a restart of ours or a broken connection only what has changed meanwhile
 * is sent. Pods on this machine have none of this: they see the files themselves.
 */
#ifndef NODE_VOLUMES_H
#define NODE_VOLUMES_H

#include "node/node.h"
#include "node/volume_plan.h"

struct container;
struct sandbox;
struct volumes;     /* of the node */
struct pod_volumes; /* of a sandbox, which owns it */

struct volumes *volumes_new(struct node *node);
void volumes_free(struct volumes *v); /* after the sandboxes; NULL is fine */
void pod_volumes_free(struct pod_volumes *p); /* what is under way fails; NULL is fine */

/* CreateContainer: plans the mounts and sends what is needed. on_done hears an error, or the sources for the agent's request
 * (borrowed for the call), from the loop. */
void volumes_bring(struct sandbox *sandbox, const Runtime__V1__ContainerConfig *config,
                   void (*on_done)(void *arg, const struct status *err, const Interlink__Agent__V1__CreateContainerRequest *sources),
                   void *arg);

/* Its agent has called in: what it has; what has changed since then is sent. */
void volumes_on_agent(struct sandbox *sandbox, const Interlink__Agent__V1__HelloResponse *hello);
/* A container was created or has ended: what the ones that are left use is watched. */
void volumes_follow(struct sandbox *sandbox);

/* The container's last words, into the file where kubelet looks for them. */
void volumes_put_back(struct container *container, const Interlink__Agent__V1__ContainerState *state);

#endif
