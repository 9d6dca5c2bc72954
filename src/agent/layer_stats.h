/* SPDX-License-Identifier: Apache-2.0 */
/* layer_stats.h: what a container has written to its root: the size of a folder, counted file by file. It may hold millions of
 * files, so this is for a worker; most hold a handful, which is cheaper than a worker. */
#ifndef AGENT_LAYER_STATS_H
#define AGENT_LAYER_STATS_H

#include "base/base.h"

struct layer_stats {
    int64_t taken_ns;       /* real time, at the end */
    uint64_t bytes, inodes; /* on the disk, the folder itself included; a file with several names counts once */
    uint64_t fs_bytes, fs_inodes, fs_inodes_free; /* of the file system it is on; fs_inodes 0: it does not say */
    char device[256];       /* that it is on: "/dev/vda1"; "" when not known */
    char mountpoint[1024];  /* of that file system; "" when not known or longer */
};

/* False when a part of it cannot be seen, so that the sum would be wrong. Worker. */
bool layer_measure(const char *path, struct layer_stats *out, struct status *err);
/* The same on the loop: gives up, with false, when there are more than *room files and folders, or when it is on a file system
 * that may keep us waiting (a network's). Takes what it has looked at off *room. `last`: an earlier count, for what does not
 * change; NULL: none. */
bool layer_measure_quickly(const char *path, const struct layer_stats *last, size_t *room, struct layer_stats *out);

#endif
