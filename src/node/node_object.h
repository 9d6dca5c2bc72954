/* SPDX-License-Identifier: Apache-2.0 */
/* node_object.h: keeps the cluster's Node object true about the sites behind this node (site_capacity.h says in what words).
 *
 *   every NODE_OBJECT_PING_MS        each target on another machine is asked what it has; what it said last is kept, durably, while it
 *                                    does not answer
 *   a watch of the Node              tells when it was made anew, or somebody changed our annotations
 *   one patch at a time              of nodes/status (annotations; there they act at once), then of nodes (taints)
 *
 * Only with a kubeconfig, a handler on another machine, and Node.Capacity. kubelet's own credentials may do all of it but
 * taints, which the API server's NodeRestriction keeps from kubelets. Whatever fails is tried again; the log says it once. */
#ifndef NODE_NODE_OBJECT_H
#define NODE_NODE_OBJECT_H

#include "node/node.h"
#include "text/json.h"

/* A record of what sites told an earlier process; before the start. Takes it. */
void node_object_restore(struct node *node, Interlink__State__V1__Node *record);
/* After the handlers. */
void node_object_start(struct node *node);
void node_object_free(struct node_object *object); /* NULL is fine */
/* A member "cluster" for the runtime's status; nothing without a kubeconfig. */
void node_object_write(const struct node *node, struct json_writer *w);

#endif
