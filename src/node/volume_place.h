/* SPDX-License-Identifier: Apache-2.0 */
/*
 * volume_place.h: what a host path is to a pod whose job runs on another machine. No I/O.
 *
 * kubelet keeps a pod's things in <its root>/pods/UID, wherever that root is:
 *
 *   volumes/kubernetes.io~{configmap,secret,projected,downward-api}/NAME   written by kubelet, and again when they change
 *   volumes/kubernetes.io~empty-dir/NAME                                   a folder, or a mount in memory
 *   volumes/PLUGIN/NAME...                                                 something that is mounted there
 *   volume-subpaths/VOLUME/CONTAINER/INDEX                                 a part of one of these, mounted there
 *   etc-hosts                                                              /etc/hosts of all containers
 *   containers/CONTAINER/XXXXXXXX                                          /dev/termination-log of one
 */
#ifndef NODE_VOLUME_PLACE_H
#define NODE_VOLUME_PLACE_H

#include "base/base.h"

enum volume_kind {
    VOLUME_SHARED,    /* below one of SharedPaths: the same path there */
    VOLUME_PROJECTED, /* copied, and again when it changes */
    VOLUME_COPIED,    /* copied once for each container that is created */
    VOLUME_EMPTY_DIR, /* a folder of the job */
    VOLUME_TERMINATION_LOG, /* an empty file there; what is in it comes back at the end */
    VOLUME_MOUNTED,   /* what is mounted there decides (volume_origin.h) */
    VOLUME_ELSEWHERE, /* a path of this machine only */
};

struct volume_place {
    enum volume_kind kind;
    struct str pod_dir; /* <root>/pods/UID; empty when the path is not in it. Borrowed, as all here */
    const char *name;   /* the path below it; VOLUME_EMPTY_DIR: up to the volume's NAME only (name_length) */
    size_t name_length;
    const char *sub_path; /* VOLUME_EMPTY_DIR: below the volume; "" */
};

/* `shared`: NULL-terminated, or NULL for none. A path with ".." in it is VOLUME_ELSEWHERE. */
struct volume_place volume_place(const char *host_path, const char *pod_uid, const char *const *shared);
/* Whether `path` is `folder` or below it; "/" holds everything. Slashes at the end of `folder` do not count. */
bool volume_is_below(const char *path, const char *folder);

#endif
