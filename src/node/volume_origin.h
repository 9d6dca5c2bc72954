/* SPDX-License-Identifier: Apache-2.0 */
/* volume_origin.h: where else the files are that something is mounted over kubelet's folders: PersistentVolumes and sub paths are
 * binds of a place that the machine where the pod runs may know, too. No I/O: the table says it. */
#ifndef NODE_VOLUME_ORIGIN_H
#define NODE_VOLUME_ORIGIN_H

#include "io/mount.h"

/* Calls fn with each other path of this machine under which the files at `path` (without links) are seen, until it says true;
 * whether it did. Of network file systems also mounts of other parts of the same export. */
bool volume_origin_each(const struct mount_table *t, const char *path, bool (*fn)(void *arg, const char *origin), void *arg);

#endif
