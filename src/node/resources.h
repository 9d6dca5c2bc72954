/* SPDX-License-Identifier: Apache-2.0 */
/* resources.h: new limits for a container or a pod (UpdateContainerResources, UpdatePodSandboxResources).
 *
 * The agent applies them, or refuses them and leaves everything as it was; then they are in the durable record; then the
 * caller hears "yes". A caller that hears nothing asks again: the same limits twice are the same limits. kubelet asks the
 * runtime before it changes the pod's cgroup: a refusal of ours refuses the resize. The annotations of a request are for
 * plugins of the runtime, of which there are none; nothing of CRI is said in them. */
#ifndef NODE_RESOURCES_H
#define NODE_RESOURCES_H

#include "node/container.h"
#include "node/sandbox.h"

void resources_update_container(struct container *container, struct rpc_call *call,
                                const Runtime__V1__UpdateContainerResourcesRequest *request);
void resources_update_sandbox(struct sandbox *sandbox, struct rpc_call *call,
                              const Runtime__V1__UpdatePodSandboxResourcesRequest *request);

/* What is in force after `from` was applied to *into (owned; NULL: nothing was): what is 0 or empty in `from` stays, huge
 * pages and unified entry by entry. `from` may be NULL. */
void resources_merge(Runtime__V1__LinuxContainerResources **into, const Runtime__V1__LinuxContainerResources *from);

#endif
