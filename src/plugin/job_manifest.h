/* SPDX-License-Identifier: Apache-2.0 */
/* job_manifest.h: any pod as a job: one that runs `agent --manifest` (agent/podrun.h), so that a backend has one kind of job only. */
#ifndef PLUGIN_JOB_MANIFEST_H
#define PLUGIN_JOB_MANIFEST_H

#include "agent/podspec.h"
#include "interlink/pod.h"

/* The job's single container, as backends know it. */
#define JOB_MANIFEST_CONTAINER "interlink-cri"

/* Whether it is not a node's agent, but a pod to be run as it is. */
bool job_manifest_wanted(const struct interlink_pod *pod);
/* Checks the pod and makes of `create`, which was read from `body`, one for a backend. It is as large as the pod's containers together.
 * All in the arena; `body` is borrowed as long. */
bool job_manifest_make(struct arena *arena, struct str body, const char *job_dir, const char *images_dir, struct podspec *spec,
                       struct interlink_create *create, struct status *err);

#endif
