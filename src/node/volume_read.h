/* SPDX-License-Identifier: Apache-2.0 */
/* volume_read.h: a volume of kubelet's, as it is at one moment, ready to be sent. For workers: it reads the disk.
 *
 * The result is a file of the caller's (in memory): PutFilesRequest messages, each with its length (4 bytes, as this machine has
 * them) before it; the one that begins the volume is not among them, for it carries the version, a hash of the others. */
#ifndef NODE_VOLUME_READ_H
#define NODE_VOLUME_READ_H

#include "base/base.h"

#include "agent.pb-c.h"

#define VOLUME_VERSION_SIZE 65 /* hex digits of a SHA-256 and a NUL */
#define VOLUME_LINK_MAX 80

struct volume_piece {
    char name[FILES_VOLUME_NAME_MAX + 1];
    char version[VOLUME_VERSION_SIZE];
    char link[VOLUME_LINK_MAX]; /* where ..data of a projected volume led; "" otherwise */
    Interlink__Agent__V1__VolumeKind kind;
    uint64_t offset, length; /* in the file */
};

/* Reads <pod_dir>/<name>; nothing outside is read, whatever links there are. `projected`: as AtomicWriter has it; all files are of
 * one version. Appends to `fd` at *end, which moves. What changes all the time is UNAVAILABLE; NOT_FOUND, RESOURCE_EXHAUSTED... */
bool volume_read(const char *pod_dir, const char *name, bool projected, int fd, uint64_t *end, struct volume_piece *out, struct status *err);
/* Where <path>/..data leads, "" when it is no such volume. One system call. */
void volume_read_link(const char *path, char out[VOLUME_LINK_MAX]);

#endif
