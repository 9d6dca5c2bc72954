/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rootfs.h: a container's root file system, and what is mounted for it in the agent's mount namespace.
 *
 *   <bundle>/rootfs     overlayfs: the image's layers below, <bundle>/upper above; or a plain copy where overlayfs is refused
 *   <bundle>/mounts/N   the N-th mount: a host path, taken from the machine's own mount namespace, or an image's folder
 *   <bundle>/volumes/N  the image that is the N-th mount, made as a container's root is
 *
 * Everything here is for workers; as root of the agent's user namespace.
 */
#ifndef AGENT_ROOTFS_H
#define AGENT_ROOTFS_H

#include "agent/podns.h"
#include "base/base.h"

#include "cri.pb-c.h"

/* A file of an image that is read (passwd, group) or a link chain that is followed. */
#define ROOTFS_LINKS_MAX 40

/* A place for what is mounted as the container's mount `index`, a folder or a file: <bundle>/mounts/<index>, which the caller frees. */
char *rootfs_stage_point(const char *bundle, size_t index, bool is_dir, struct status *err);
struct rootfs_options {
    bool userns;             /* in a user namespace of ours */
    /* Its files are to have the owners that the pod's user namespace gives them, if it has one of its own. */
    const struct podns *pod;
    const char *label;       /* SELinux's, of all its files; "": none */
};
/* Makes <bundle>/rootfs. FAILED_PRECONDITION when the file system cannot map owners. */
bool rootfs_make(const char *bundle, const char *const *layers, size_t layer_count, const struct rootfs_options *options,
                 struct status *err);
/* Unmounts what rootfs_make and rootfs_stage mounted. True also when there was nothing. */
bool rootfs_unmount(const char *bundle, struct status *err);

/* Opens a path as if root_fd's folder were the root: links and ".." cannot leave it. -1 with errno. */
int rootfs_open(int root_fd, const char *path, int flags);
/* Appends a file's content; a missing one is empty. */
bool rootfs_read(int root_fd, const char *path, size_t max, struct buf *out, struct status *err);
/* mkdir -p with mode 0755. */
bool rootfs_mkdir(int root_fd, const char *path, struct status *err);

/* Takes a host path (links followed) as a mount at <bundle>/mounts/<index>, appended to `out` as a path. When
 * host_mount_fd >= 0 the path is looked up in that mount namespace, so that what was mounted there after the agent
 * started is seen and propagation works; else where we are. `create`: a missing folder is made, as kubelet expects.
 * NOT_FOUND when the path is on neither side; FAILED_PRECONDITION when its mount cannot propagate as wanted. */
bool rootfs_stage(const char *bundle, size_t index, const char *host_path, int host_mount_fd, bool create,
                  Runtime__V1__MountPropagation propagation, struct buf *out, struct status *err);
/* What has just been mounted at `point` (not the root of a file system tree of the machine's) gets mapped owners, with what is
 * mounted below it. FAILED_PRECONDITION when a file system in it cannot do that. */
bool rootfs_map(const char *point, int userns_fd, struct status *err);

#endif
