/* SPDX-License-Identifier: Apache-2.0 */
/* job_size.h: how large a pod's job is.
 *
 * For each resource, and for the time it may run, the first that says something counts:
 *
 *   pod          the v1.Pod as the API server has it (kube/pod_size.h): requests and limits of all containers, overhead,
 *                extended resources, activeDeadlineSeconds
 *   annotations  interlink.eu/size-RESOURCE: QUANTITY (the slash of an extended resource written "_", as in
 *                interlink.eu/size-nvidia.com_gpu) and interlink.eu/walltime: DURATION; then upstream's slurm-job.vk.io/flags
 *   cri          what kubelet puts into RunPodSandbox: limits of CPU, memory and huge pages, requests of CPU; overhead
 *   Defaults     of the configuration
 *
 * The result is kept in the sandbox's record before the job is submitted: a restart finds the same job. */
#ifndef NODE_JOB_SIZE_H
#define NODE_JOB_SIZE_H

#include "kube/pod_size.h"
#include "node/node.h"

#define JOB_SIZE_PREFIX "interlink.eu/size-"
#define JOB_SIZE_WALLTIME "interlink.eu/walltime"
/* On the submitted pod: job_size_text(). */
#define JOB_SIZE_ANNOTATION "interlink.eu/job-size"

/* `pod`: NULL when it is not known. NULL: INVALID_ARGUMENT names the annotation that cannot be read. The caller frees with
 * protobuf_c_message_free_unpacked. */
Interlink__State__V1__JobSize *job_size_choose(const Runtime__V1__PodSandboxConfig *config, const struct pod_size *pod,
                                               const struct node_size_options *defaults, struct status *err);
/* The same for a container that is a job of its own: `cri` are its own resources, and the annotations those of its pod. */
Interlink__State__V1__JobSize *job_size_choose_container(const Runtime__V1__PodSandboxConfig *pod,
                                                         const Runtime__V1__ContainerConfig *config,
                                                         const struct node_size_options *defaults, struct status *err);
/* "cpu=500m..2 (pod), memory=4Gi (Defaults), walltime=1h0m0s (interlink.eu/walltime)"; "" when nothing is known. */
const char *job_size_text(struct arena *arena, const Interlink__State__V1__JobSize *size);

#endif
