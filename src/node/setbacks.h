/* SPDX-License-Identifier: Apache-2.0 */
/* setbacks.h: pods that had a job which failed before it could be a pod.
 *
 * Such a job may fail when no call waits to hear of it: the next call hears it, instead of starting anew at once. And a job
 * that always fails is not submitted every 12 s for ever: like kubelet with a container that crashes, the pause doubles, from
 * 10 s to 5 minutes. Kept in memory: a restart forgets it. */
#ifndef NODE_SETBACKS_H
#define NODE_SETBACKS_H

#include "base/base.h"

#include "cri.pb-c.h"

struct setbacks;

struct setbacks *setbacks_new(void);
void setbacks_free(struct setbacks *setbacks); /* NULL is fine */
/* `told`: somebody has heard it. `had_job`: a job was made for it, and the next one has to wait. */
void setbacks_note(struct setbacks *setbacks, const Runtime__V1__PodSandboxMetadata *metadata, const struct status *why,
                   bool told, bool had_job, int64_t now_ms);
/* Whether a job may be submitted for the pod; if not: what to answer. */
bool setbacks_allow(struct setbacks *setbacks, const Runtime__V1__PodSandboxMetadata *metadata, int64_t now_ms, struct status *err);
/* It has become a pod. */
void setbacks_forget(struct setbacks *setbacks, const Runtime__V1__PodSandboxMetadata *metadata);

#endif
