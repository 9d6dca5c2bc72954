/* SPDX-License-Identifier: Apache-2.0 */
/* job_status.h: how the containers of a pod from a manifest are: what the agent has written, and what the backend knows of its job. */
#ifndef PLUGIN_JOB_STATUS_H
#define PLUGIN_JOB_STATUS_H

#include "interlink/message.h"

/* Fills the states that `out` has by name. `job`: of the job as a whole. Everything lives in the arena. Reads one small file. */
void job_status_fill(struct arena *arena, const char *job_dir, const struct interlink_container_state *job,
                     struct interlink_pod_status *out);
/* The same for one container; false when the pod has none of that name, as far as is known. */
bool job_status_container(struct arena *arena, const char *job_dir, const struct interlink_container_state *job, const char *container,
                          struct interlink_container_state *out);

#endif
