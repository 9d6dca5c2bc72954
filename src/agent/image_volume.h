/* SPDX-License-Identifier: Apache-2.0 */
/* image_volume.h: an image among a container's mounts (CRI Mount.image): its files, or those of one folder in it, read-only. */
#ifndef AGENT_IMAGE_VOLUME_H
#define AGENT_IMAGE_VOLUME_H

#include "agent/engine.h"
#include "agent/rootfs.h"

static inline bool image_volume_wanted(const Runtime__V1__Mount *mount)
{
    return mount->image != NULL && *mount->image->image != '\0';
}

/* Puts the layers together below <bundle>/volumes and takes what image_sub_path names as a mount, whose path is appended to
 * `out`. `options`: as for the container's own image. Links in the image are followed as if its root were the machine's: nothing
 * outside can be reached. INVALID_ARGUMENT for a path that tries, NOT_FOUND for one that is not there. Worker. */
bool image_volume_stage(const struct engine_create *create, size_t index, const struct rootfs_options *options, struct buf *out,
                        struct status *err);

#endif
