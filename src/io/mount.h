/* SPDX-License-Identifier: Apache-2.0 */
/* mount.h: what is mounted where (proc_pid_mountinfo(5)). Blocks: a few thousand lines at most. */
#ifndef IO_MOUNT_H
#define IO_MOUNT_H

#include "base/base.h"

/* Which file system a path is on. */
struct mount_info {
    char point[4096];  /* where it is mounted; "/" when that cannot be found out */
    char source[256];  /* what is: "/dev/vda1", "tmpfs"; "" when that cannot be found out; cut when longer */
};
void mount_find(const char *path, struct mount_info *out);

/* ---- all of them ---- */
struct mount_entry {
    unsigned major, minor; /* of the file system: mounts of one have the same */
    const char *root;      /* the folder of it that is mounted: "/" */
    const char *point;
    const char *type, *source; /* "nfs4", "server:/export" */
    const char *options;   /* of the file system, with commas between */
};
/* In the order in which they were made: a later one may hide an earlier one. */
struct mount_table {
    struct arena arena;
    struct mount_entry *entries;
    size_t count;
};
/* This process's. The caller frees with mount_table_free, also on failure. */
bool mount_table_read(struct mount_table *out, struct status *err);
/* The same from its text, which is copied. Lines that make no sense are left out. */
void mount_table_parse(struct str text, struct mount_table *out);
void mount_table_free(struct mount_table *t);
/* The mount that a path without links is on; NULL when there is none. */
const struct mount_entry *mount_table_find(const struct mount_table *t, const char *path);
/* The value of an option ("size" of "rw,size=64k"), on `arena`; "" when it has none. */
const char *mount_entry_option(const struct mount_entry *e, const char *name, struct arena *arena);

#endif
