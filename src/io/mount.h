/* SPDX-License-Identifier: Apache-2.0 */
/* mount.h: which mounted file system a path is on (proc_pid_mountinfo(5)). Blocks: a few thousand lines at most. */
#ifndef IO_MOUNT_H
#define IO_MOUNT_H

#include "base/base.h"

struct mount_info {
    char point[4096];  /* where it is mounted; "/" when that cannot be found out */
    char source[256];  /* what is: "/dev/vda1", "tmpfs"; "" when that cannot be found out; cut when longer */
};
void mount_find(const char *path, struct mount_info *out);

#endif
