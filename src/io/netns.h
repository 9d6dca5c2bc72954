/* SPDX-License-Identifier: Apache-2.0 */
/*
 * netns.h: network namespaces that have a name: a file on which the namespace is mounted, as ip-netns(8) has them. Such a
 * namespace lives without any process in it, until netns_remove().
 *
 * These functions fork and mount: some milliseconds, so they are for workers and for programs that have no loop yet.
 */
#ifndef IO_NETNS_H
#define IO_NETNS_H

#include "base/base.h"
#include "io/userns.h"

/* Makes one at `path`, with its loopback interface up; one that is there already stays as it is. `map`: it belongs to a new
 * user namespace with these ids, whose root may then change it; NULL: to the machine's. Missing folders are made, and the
 * last one becomes a mount of its own. Needs CAP_SYS_ADMIN. */
bool netns_make(const char *path, const struct userns_map *map, struct status *err);
/* Whether there is one. */
bool netns_present(const char *path);
/* The calling process, which must have one thread only, goes into it. NOT_FOUND when there is none. */
bool netns_enter(const char *path, struct status *err);
/* Takes name and mount away, in every mount namespace; what still runs in it keeps it until it ends. True when there is nothing
 * left (or was nothing). */
bool netns_remove(const char *path, struct status *err);

#endif
