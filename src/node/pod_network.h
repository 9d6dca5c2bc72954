/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pod_network.h: the network of one pod: a network namespace on this machine and what CNI plugins make in it.
 *
 *   planned: in the pod's record, durable before anything is made
 *      |
 *   namespace made ----> the job is submitted, its agent goes into the namespace
 *      |
 *   ADD, while the job starts ----> the addresses are known; the agent is told the pod's configuration, the pod gets READY
 *      |
 *   (CHECK, once after a restart of serve: what it finds is only said)
 *      |
 *   DEL and the namespace removed, when nothing of the pod runs any more; tried again until it succeeds, for ever
 *
 * All of it runs in workers, which end what they have begun when serve dies. A kill of serve at any moment leaves a record with a
 * network in it; the next start waits for such a worker, pod by pod, then goes on: a pod that was ready stays, one whose ADD was not finished gets DEL and ADD again, one that was
 * stopped gets DEL. Callbacks: sandbox_on_network_*(), from the loop. Sandboxes without a network of their own have none of this:
 * every function takes them without harm.
 */
#ifndef NODE_POD_NETWORK_H
#define NODE_POD_NETWORK_H

#include "node/cni.h"

#define POD_NETWORK_INTERFACE "eth0" /* as everywhere in Kubernetes */

struct sandbox;

/* Decides what a new pod gets and writes it into its record (record->network). FAILED_PRECONDITION, INVALID_ARGUMENT: it asks for
 * what it cannot have here, by the field's name; else why it cannot have a network at the moment. */
bool pod_network_plan(struct node *node, const struct handler *handler, Interlink__State__V1__Sandbox *record, struct status *err);

/* Once the record is durable; of an earlier life's pod, once there surely is a job. True when the job has to wait for
 * sandbox_on_network_made(). */
bool pod_network_start(struct sandbox *sandbox);
/* Of an earlier life's pod: goes on as its record says. */
void pod_network_resume(struct sandbox *sandbox);
/* Nothing of the pod runs any more, or ever will: DEL, then sandbox_on_network_removed(). Called again while that is being tried
 * again: at once. */
void pod_network_remove(struct sandbox *sandbox);
void pod_network_free(struct sandbox *sandbox); /* the memory only */

/* The addresses are known, or it needs none. */
bool pod_network_up(const struct sandbox *sandbox);
/* There may be something of it that must be removed. */
bool pod_network_held(const struct sandbox *sandbox);
/* What the last CHECK found wrong, or why it cannot be removed yet; "". */
const char *pod_network_fault(const struct sandbox *sandbox);

#endif
