/* SPDX-License-Identifier: Apache-2.0 */
/* unpack.h: layer archives -> folders. These functions block: they belong in a worker (io/child.h).
 *
 * A layer is a tar archive, plain or compressed by gzip or zstd, whose `.wh.` entries (OCI image-spec, layer.md) say what it
 * takes away from the layers below. In its folder these become what overlayfs understands:
 *   as root          a character device 0/0; trusted.overlay.opaque on a folder
 *   as a user        a character device 0/0 (allowed since Linux 5.8); user.overlay.opaque (the mount needs userxattr)
 *   where neither    the `.wh.` files as they are: overlayfs cannot use such a layer (UNPACK_FLAT), only
 *                    unpack_rootfs_copy can
 * Owners are as in the archive as far as there are such ids where it is unpacked: all of them for the machine's root; in a user
 * namespace those that its map has, and root for others. A user with one id only owns everything, and can read it; the
 * container engine maps that user to root. Only the machine's root makes devices; else they are left out.
 *
 * Nothing in an archive can reach outside of the folder: links are followed as if the folder were the root. */
#ifndef IMAGE_UNPACK_H
#define IMAGE_UNPACK_H

#include "base/base.h"
#include "image/digest.h"

struct unpack_limits {
    uint64_t bytes;   /* of the plain archive, and of the files it makes */
    uint64_t entries;
    uint32_t ratio;   /* plain to compressed, once past IMAGE_RATIO_FREE_BYTES */
};
#define UNPACK_LIMITS_DEFAULT { IMAGE_LAYER_BYTES_MAX, IMAGE_LAYER_ENTRIES_MAX, IMAGE_LAYER_RATIO_MAX }

/* How overlayfs can use a layer: the mount's options must suit all of its layers, or they are copied flat. */
enum unpack_form {
    UNPACK_ANY,     /* with any options: it makes no folder opaque */
    UNPACK_TRUSTED, /* as root, without userxattr */
    UNPACK_USER,    /* with userxattr */
    UNPACK_FLAT,    /* not at all */
};

/* Whose ids the owners are:
 *   "all"   the machine's own
 *   "one"   there was one id only
 *   "none"  the file system does not keep owners
 *   16 hex digits: those of a user namespace; equal for equal maps */
#define UNPACK_OWNERS_SIZE 20

struct unpacked {
    uint64_t bytes, inodes; /* on the disk */
    uint64_t devices_skipped, xattrs_skipped, owners_skipped;
    char owners[UNPACK_OWNERS_SIZE]; /* "": not known */
    enum unpack_form form;
};

/* Unpacks the archive in `blob_path` into the folder `dest`, which must not exist: it appears at once and whole, or not at
 * all (the work is done in `dest` + ".tmp" and a random suffix beside it). `blob` and `diff_id`, unless zero, must be the
 * digests of the archive as it is and of the plain archive: DATA_LOSS when they are not. RESOURCE_EXHAUSTED when a limit
 * is reached, INVALID_ARGUMENT when the archive is malformed or tries to leave the folder. limits: NULL for the defaults. */
bool unpack_layer(const char *blob_path, const struct digest *blob, const struct digest *diff_id, const char *dest,
                  const struct unpack_limits *limits, struct unpacked *out, struct status *err);

/* What unpack_layer found out about the layer in a folder that it made (kept beside it, in `layer_dir`.info). NOT_FOUND when
 * there is no such layer; DATA_LOSS when the file is damaged. Reads one small file. */
bool unpack_layer_info(const char *layer_dir, struct unpacked *out, struct status *err);
/* Whose ids the owners of what this process unpacks are. */
void unpack_owners_here(char out[UNPACK_OWNERS_SIZE]);
/* Whether a layer's owners are what they should be where `here` are the ids. */
bool unpack_owners_fit(const struct unpacked *layer, const char *here);
/* The form of several layers together. False: overlayfs cannot mount them in one go, copy them. */
bool unpack_forms_agree(const enum unpack_form *forms, size_t count, enum unpack_form *out);

/* One plain folder out of layers (bottom first): for machines without overlayfs. Files are cloned where the file system can
 * (reflink), else copied; whiteouts are applied. `dest` must be an empty folder or not exist; on failure it is removed. */
bool unpack_rootfs_copy(const char *const *layer_dirs, size_t count, const char *dest, struct unpacked *out,
                        struct status *err);

#endif
