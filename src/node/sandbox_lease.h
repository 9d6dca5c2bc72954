/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox_lease.h: how long a job lives for whose pod nobody asks any more.
 *
 * kubelet says nothing when a pod is deleted that has no sandbox yet, so a pod that is not READY lives on a lease: each
 * RunPodSandbox renews it, and it runs only while kubelet polls. Before it ends the API server is asked, where there are
 * credentials, whether the pod was deleted. */
#ifndef NODE_SANDBOX_LEASE_H
#define NODE_SANDBOX_LEASE_H

#include "node/sandbox.h"

void sandbox_lease_renew(struct sandbox *sandbox);
void sandbox_lease_free(struct sandbox *sandbox);
/* Every few seconds: jobs that nobody asks for any more are cancelled. */
void sandbox_check_leases(struct node *node, int64_t elapsed_ms);

#endif
