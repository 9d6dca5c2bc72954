/* SPDX-License-Identifier: Apache-2.0 */
/* layer_path.h: paths inside a layer's folder, which cannot leave it. Symbolic links are followed as if the folder were
 * the root ("/lib" is its lib, ".." at the top stays there), which is what they will mean in the container.
 *
 * Two locks on one door: links are resolved by hand, to a path without any, and that path is opened with openat2(2) and
 * RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, or before Linux 5.6 folder by folder with O_NOFOLLOW. Nobody else changes the
 * folder meanwhile: it belongs to one process and lies below a folder of mode 0700. */
#ifndef IMAGE_LAYER_PATH_H
#define IMAGE_LAYER_PATH_H

#include "base/base.h"

#define LAYER_PATH_SIZE 4096 /* PATH_MAX */

struct layer_root {
    int fd;             /* owned */
    const char *path;   /* of the folder, for messages and for removing trees; borrowed */
    bool no_openat2;    /* the kernel has none */
    uint64_t made;      /* folders made on the way to something */
    /* Something that is no folder is in the way of one, at a path without links. True: it is a folder now. NULL: refuse. */
    bool (*replace)(void *arg, const char *resolved, struct status *err);
    void *arg;
    /* The folder asked for last: archives list a folder's content together. */
    char last[LAYER_PATH_SIZE], last_resolved[LAYER_PATH_SIZE];
    int last_fd; /* owned; -1: none */
};

bool layer_root_open(struct layer_root *r, const char *path, struct status *err);
void layer_root_close(struct layer_root *r);

/* "./a//b/" -> "a/b", "/" -> "". INVALID_ARGUMENT for a path with "..", too long or too deep. */
bool layer_path_clean(const char *path, char out[LAYER_PATH_SIZE], struct status *err);
/* Splits a clean path: "a/b" -> "a" and "b". `path` must not be "". */
void layer_path_split(const char *path, char dir[LAYER_PATH_SIZE], const char **leaf);

/* Opens the folder `dir` (clean; "" is the root), making it and what leads there (0755) when `create`. The descriptor is
 * borrowed until the next call and good for *at() calls only (O_PATH). `resolved` (may be NULL): its path without links, as
 * long. -1 on failure: NOT_FOUND, or INVALID_ARGUMENT when something that is no folder is in the way. */
int layer_dir(struct layer_root *r, const char *dir, bool create, const char **resolved, struct status *err);

#endif
