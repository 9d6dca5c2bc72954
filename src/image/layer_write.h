/* SPDX-License-Identifier: Apache-2.0 */
/* layer_write.h: the entries of a layer's archive, one after the other, into its folder: whiteouts in overlayfs' form, links,
 * owners, modes, attributes, times. Knows nothing of tar. Blocks. */
#ifndef IMAGE_LAYER_WRITE_H
#define IMAGE_LAYER_WRITE_H

#include "base/base.h"
#include "image/layer_path.h"
#include "image/unpack.h"

#include <sys/stat.h>

enum layer_entry_type {
    LAYER_FILE, LAYER_FOLDER, LAYER_SYMLINK, LAYER_HARDLINK, LAYER_FIFO, LAYER_CHAR, LAYER_BLOCK,
};

struct layer_xattr {
    const char *name;
    const void *value;
    size_t n;
};

struct layer_entry {
    enum layer_entry_type type;
    const char *path;   /* as in the archive */
    const char *target; /* of links */
    mode_t mode;
    uint64_t uid, gid;
    struct timespec mtime;
    dev_t device;
    uint64_t size; /* of a file; it may have holes */
    const struct layer_xattr *xattrs;
    size_t xattr_count;
};

struct layer_writer {
    struct layer_root root;
    bool machine;         /* the machine's root: devices and all attributes as in the archive */
    bool owners;          /* owners as in the archive, as far as there are such ids: */
    uint32_t uids, gids;  /* from 0 on */
    struct unpacked usage;
    struct buf folders;   /* whose times are to be set at the end; owned */
    bool opaque_trusted, opaque_user, flat_only; /* the forms that whiteouts took */
};

/* `dir` is an empty folder (borrowed as long as the writer). */
bool layer_writer_open(struct layer_writer *w, const char *dir, struct status *err);
/* A file that is to be filled: *fd >= 0 (the caller writes to it, then calls layer_write_done); else *fd is -1 and all is
 * done. */
bool layer_write(struct layer_writer *w, const struct layer_entry *entry, int *fd, struct status *err);
/* Closes fd. */
bool layer_write_done(struct layer_writer *w, const struct layer_entry *entry, int fd, struct status *err);
/* After the last entry. */
bool layer_writer_finish(struct layer_writer *w, struct unpacked *out, struct status *err);
void layer_writer_close(struct layer_writer *w);

#endif
