/* SPDX-License-Identifier: Apache-2.0 */
/* file.h: files and folders: whole reads, atomic writes, folder trees. These calls block on the disk: small files only
 * on the loop, anything larger in a worker (child.h). */
#ifndef IO_FILE_H
#define IO_FILE_H

#include "base/base.h"

/* Appends the whole file to out; RESOURCE_EXHAUSTED when it is larger than max. */
bool file_read(const char *path, size_t max, struct buf *out, struct status *err);
/* Temporary name in the same folder, write, fsync, rename, fsync of the folder: after true the content survives a
 * power cut; before, the old one does. */
bool file_write_atomic(const char *path, const void *p, size_t n, mode_t mode, struct status *err);
/* Same without any fsync: for what may be lost with the machine but never be torn. */
bool file_replace(const char *path, const void *p, size_t n, mode_t mode, struct status *err);
bool file_sync_dir(const char *path, struct status *err);
/* mkdir -p; new folders get `mode`. */
bool dir_make(const char *path, mode_t mode, struct status *err);
/* rm -rf that never follows a link and does not cross into another mount; true when nothing is left (or nothing was). */
bool tree_remove(const char *path, struct status *err);
/* Writes all, retrying short writes and EINTR. For blocking descriptors. */
bool write_all(int fd, const void *p, size_t n, struct status *err);
bool fd_set_nonblocking(int fd, bool on);

#endif
