/* SPDX-License-Identifier: Apache-2.0 */
/* status.h: what CRI shows of sandboxes, containers and the runtime: messages made on an arena, borrowing from records. */
#ifndef NODE_STATUS_H
#define NODE_STATUS_H

#include "node/container.h"
#include "node/sandbox.h"

Runtime__V1__PodSandboxStatusResponse *status_of_sandbox(struct arena *arena, const struct sandbox *sandbox, bool verbose);
Runtime__V1__ContainerStatusResponse *status_of_container(struct arena *arena, const struct container *container,
                                                          bool verbose);
Runtime__V1__StatusResponse *status_of_runtime(struct arena *arena, struct node *node, bool verbose);

#endif
