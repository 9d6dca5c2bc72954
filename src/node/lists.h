/* SPDX-License-Identifier: Apache-2.0 */
/* lists.h: ListPodSandbox and ListContainers, and their streamed forms.
 *
 * kubelet asks for all objects and for those in one state every second or two, whether anything has changed or not: these
 * answers are kept encoded and sent by reference until something changes. Before it works on a pod it asks for the objects
 * that carry the pod's uid as a label, or for one id: these are found without a look at the others. Anything else is
 * a walk over all objects. */
#ifndef NODE_LISTS_H
#define NODE_LISTS_H

#include "base/base.h"
#include "rpc/rpc.h"

struct container;
struct node;
struct sandbox;

enum lists_kind { LISTS_SANDBOXES, LISTS_CONTAINERS, LISTS_KINDS };
/* All objects, and those in each of CRI's states (two of a sandbox, three of a container). */
#define LISTS_VARIANTS 4

/* All zero is an empty one; in struct node. */
struct lists {
    struct shared *kept[LISTS_KINDS][LISTS_VARIANTS]; /* a reference each; NULL: to be made */
    struct strmap by_uid[LISTS_KINDS];                /* the label's value -> struct lists_group */
    size_t streams;                                   /* under way */
};
void lists_free(struct lists *lists); /* the objects must be gone */

/* An object has come, or goes: its record is complete and stays. */
void lists_add_sandbox(struct sandbox *sandbox);
void lists_add_container(struct container *container);
void lists_remove_sandbox(struct sandbox *sandbox);
void lists_remove_container(struct container *container);
/* An object's element has changed. */
void lists_changed(struct node *node, enum lists_kind kind);

/* The handlers. */
void lists_pod_sandboxes(void *context, struct rpc_call *call, const ProtobufCMessage *request);
void lists_containers(void *context, struct rpc_call *call, const ProtobufCMessage *request);
void lists_stream_pod_sandboxes(void *context, struct rpc_call *call, const ProtobufCMessage *request);
void lists_stream_containers(void *context, struct rpc_call *call, const ProtobufCMessage *request);

/* Answers a Stream* call with a list response: an encoded message whose only field is number 1, repeated. Each element goes
 * into one message of about LISTS_PART_SIZE, as fast as the client takes them. Takes the reference. */
void lists_stream(struct node *node, struct rpc_call *call, struct shared *list);

#endif
