/* SPDX-License-Identifier: Apache-2.0 */
/* runtime_config.h: what kubelet and the runtime tell each other about the node: UpdateRuntimeConfig and RuntimeConfig.
 *
 * kubelet says the pod CIDR once at its start and whenever the control plane changes it. It counts on a "yes": without one
 * it does not take over the CIDR and asks again with every report of the node's status. So the CIDR is kept, durably, in
 * node->pod_cidr, for whoever gives addresses to pods: CNI plugins here, the gate (gate.h) to pods elsewhere. Status says (verbose)
 * what was kept. containerd and CRI-O say "yes" in the same case. */
#ifndef NODE_RUNTIME_CONFIG_H
#define NODE_RUNTIME_CONFIG_H

#include "node/node.h"

/* What an earlier process was told. */
bool runtime_config_load(struct node *node, struct status *err);

/* The handlers. */
void runtime_config_get(void *context, struct rpc_call *call, const ProtobufCMessage *request);
void runtime_config_update(void *context, struct rpc_call *call, const ProtobufCMessage *request);

/* "10.0.0.0/24,fd00::/64": one or two prefixes; the message names the field. */
bool runtime_config_check_cidr(const char *text, struct status *err);

#endif
