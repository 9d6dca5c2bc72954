/* SPDX-License-Identifier: Apache-2.0 */
/* pod_size.h: how much a pod asks for, counted as the scheduler counts.
 *
 * For each resource, of a v1.Pod's spec:
 *   request  sum of the containers' requests and those of sidecars (restartable init containers), but at least what any
 *            init container needs beside the sidecars started before it; replaced by the pod's own (spec.resources) where it
 *            has one for cpu, memory or huge pages; plus overhead
 *   limit    the most that it may come to use: the same with each container's limit, and its request where it has none
 * Where a container gives a limit alone, that is its request too (the API server fills it in; a static pod's mirror may lack it).
 * Source: k8s.io/component-helpers/resource (PodRequests, PodLimits), Kubernetes 1.37. A batch system enforces what a job asked
 * for, so the job needs the limit, while the node was charged for the request. */
#ifndef KUBE_POD_SIZE_H
#define KUBE_POD_SIZE_H

#include "text/json.h"

struct pod_amount {
    const char *resource;   /* "cpu", "memory", "nvidia.com/gpu" */
    int64_t request, limit; /* cpu: thousandths; all else: units. limit >= request. Sums too large stay at INT64_MAX */
};
struct pod_size {
    struct pod_amount *amounts; /* in the order in which they were met; zeros are left out */
    size_t count;
    int64_t deadline_s;         /* activeDeadlineSeconds; 0: none */
};

/* All on the arena. INVALID_ARGUMENT names what is no quantity; more than POD_SIZE_RESOURCES_MAX kinds are RESOURCE_EXHAUSTED. */
bool pod_size_read(struct arena *arena, const struct json *pod, struct pod_size *out, struct status *err);

/* The text of an amount of a resource, on the arena: "128", "1500m", "500Gi". And back. */
const char *pod_size_text(struct arena *arena, const char *resource, int64_t value);
bool pod_size_parse(const char *resource, const char *text, int64_t *out, struct status *err);

#endif
