/* SPDX-License-Identifier: Apache-2.0 */
/* pod_find.h: the v1.Pod of a sandbox, asked of the API server in bounded time. */
#ifndef KUBE_POD_FIND_H
#define KUBE_POD_FIND_H

#include "kube/kube.h"
#include "text/json.h"

struct pod_find;

/* on_done hears the pod, once, within KUBE_POD_WAIT_MS; it and the error are borrowed. NULL with NOT_FOUND when there is no such pod,
 * or only another one of the same name: `uid` must be the pod's own, or, for a static pod, what its mirror says of it. */
struct pod_find *pod_find_start(struct kube *kube, struct loop *loop, const char *namespace_, const char *name, const char *uid,
                                void (*on_done)(void *arg, const struct json *pod, const struct status *err), void *arg);
/* on_done is not called any more. NULL is fine. */
void pod_find_cancel(struct pod_find *find);

#endif
