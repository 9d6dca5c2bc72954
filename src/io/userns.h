/* SPDX-License-Identifier: Apache-2.0 */
/*
 * userns.h: user namespaces (user_namespaces(7)): which ids are which, making and joining them, and mounts whose owners are
 * shown through one (mount_setattr(2)).
 *
 *   userns.c   maps, namespaces, mapped mounts
 *   subid.c    the ranges that /etc/subuid and /etc/subgid give an ordinary user (subuid(5)), by newuidmap(1)
 *
 * These functions block for some milliseconds: a process is forked, for an ordinary user programs are run.
 */
#ifndef IO_USERNS_H
#define IO_USERNS_H

#include "base/base.h"

/* `count` ids: inside from `inside` on, outside from `outside` on. */
struct userns_range {
    uint32_t inside, outside, count;
};

struct userns_ids {
    struct userns_range ranges[USERNS_RANGES_MAX];
    size_t count;
};

struct userns_map {
    struct userns_ids uids, gids;
};

/* ---- maps ---- */
/* How many ids there are from 0 on without a gap: UINT32_MAX in the machine's own namespace, 1 where there is only one. */
uint32_t userns_ids_count(const struct userns_ids *ids);
/* The id outside; false when it has none. */
bool userns_outside(const struct userns_ids *ids, uint32_t inside, uint32_t *outside);
bool userns_maps_equal(const struct userns_map *a, const struct userns_map *b);
/* Of a running process, as it is seen in this process's namespace ("self": in the one above it). Without user namespaces in
 * the kernel: all ids. */
bool userns_read_map(const char *pid, struct userns_map *out, struct status *err);
/* "0:100000:65536", ranges with a comma between. */
void userns_print_ids(const struct userns_ids *ids, struct buf *out);

/* ---- namespaces ---- */
/* Writes the maps of a process that is in a new user namespace, which is a child of this process's: as root by itself, else by
 * newuidmap(1) and newgidmap(1), which must find the ranges in /etc/subuid and /etc/subgid. */
bool userns_write_map(pid_t pid, const struct userns_map *map, struct status *err);
/* A new one as a descriptor, close-on-exec; it lives as long as somebody holds it. -1 on failure. */
int userns_new(const struct userns_map *map, struct status *err);
/* The calling process, which must have one thread only, joins it and is its root: for a process that ends soon. */
bool userns_join(int fd, struct status *err);

/* ---- mounts ---- */
/* What is mounted at `path` (`recursive`: and below it) as a mount of its own that nobody sees yet, close-on-exec: its files
 * have the owners that the namespace's map gives to those on the disk. Linux 5.12, and a file system that can. -1 on failure;
 * FAILED_PRECONDITION when it cannot be had here. As root of the machine. */
int userns_open_mapped(const char *path, int userns_fd, bool recursive, struct status *err);
/* The same for a mount that is a descriptor already (open_tree(2)) and was not mapped before. */
bool userns_map_mount(int mount_fd, int userns_fd, bool recursive, struct status *err);

/* ---- subid.c: an ordinary user's own ---- */
/* This user as 0, and from 1 on the ranges it was given. False when it has none, or newuidmap is missing: the message says how
 * to mend it. */
bool subid_map(uid_t uid, gid_t gid, struct userns_map *out, struct status *err);
/* Runs newuidmap or newgidmap. (userns_write_map) */
bool subid_run(const char *program, pid_t pid, const struct userns_ids *ids, struct status *err);
/* The calling process, which must have one thread only, goes into a new namespace with that map, as its root. */
bool subid_enter(struct status *err);
/* tree_remove (file.h) of what may hold files of those ids, too: what this user may not remove, a child process in such a
 * namespace does. */
bool subid_tree_remove(const char *path, struct status *err);

#endif
