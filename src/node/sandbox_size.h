/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox_size.h: asks the API server how large a new pod is, before its job is made.
 *
 * Only for pods that go to a site: on this machine kubelet itself gives pods their share. The answer is waited for
 * KUBE_POD_WAIT_MS at most; without one the job is made of what is known, which the log and the record say. */
#ifndef NODE_SANDBOX_SIZE_H
#define NODE_SANDBOX_SIZE_H

#include "node/sandbox.h"

/* record->size is what is known without the API server. True when the job has to wait for sandbox_on_sized(). */
bool sandbox_size_start(struct sandbox *sandbox);
void sandbox_size_free(struct sandbox *sandbox);

#endif
