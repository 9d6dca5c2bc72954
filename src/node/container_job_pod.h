/* SPDX-License-Identifier: Apache-2.0 */
/* container_job_pod.h: a container as an interLink pod of its own: the real image, the resolved command, plain environment, and
 * volumes that any plugin knows. What such a pod cannot have is refused with the field's name. */
#ifndef NODE_CONTAINER_JOB_POD_H
#define NODE_CONTAINER_JOB_POD_H

#include "image/config.h"
#include "interlink/pod.h"
#include "node/container.h"

/* Whether the pod can be had as jobs of its containers. FAILED_PRECONDITION names the field. */
bool container_job_check_sandbox(const Runtime__V1__PodSandboxConfig *config, struct status *err);
/* The same of a container, as far as it can be told without the disk. What is no reason to refuse goes into `note`. */
bool container_job_check(const struct sandbox *sandbox, const Runtime__V1__ContainerConfig *config, struct buf *note,
                         struct status *err);

/* Everything but volumes; on the arena, and borrowed from the container. `image` NULL: only what says which pod it is, as status and
 * delete need it. */
bool container_job_fill(struct arena *arena, const struct container *container, const struct image_config *image,
                        struct interlink_create *out, struct status *err);
/* What the agent in the container is told to run; on the arena, and borrowed from the container. */
bool container_job_inside(struct arena *arena, const struct container *container, const struct image_config *image,
                          Runtime__V1__ContainerConfig *out, struct status *err);
/* Worker: the whole create request as JSON, with volumes as they are at this moment. Errors name the mount. */
bool container_job_write(const struct container *container, const struct image_config *image, struct buf *output,
                         struct status *err);

#endif
