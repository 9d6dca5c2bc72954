/* SPDX-License-Identifier: Apache-2.0 */
/* beneath.h: paths that cannot leave the folder they begin in, whatever somebody else does there meanwhile (openat2(2)). */
#ifndef IO_BENEATH_H
#define IO_BENEATH_H

#include "base/base.h"

/* Opens `path`, relative to dir_fd ("" and ".": the folder itself), without following any symbolic link, not even in the last
 * place: that is ELOOP, but for O_PATH | O_NOFOLLOW, which opens the link. A ".." that leads out is EXDEV. Close-on-exec. -1 with errno. */
int beneath_open(int dir_fd, const char *path, int flags, mode_t mode);
/* The same, but links are followed as long as they stay inside. Before Linux 5.6 none is. */
int beneath_open_links(int dir_fd, const char *path, int flags);
/* The folder that holds the last part of `path`, as an O_PATH descriptor; *name is that part, inside of `path`. -1 with errno:
 * EINVAL when it has none. */
int beneath_parent(int dir_fd, const char *path, const char **name);

/* Whether `path` is relative, and each of its parts a plain name: not empty, "." or "..", and at most 255 bytes. No I/O. */
bool beneath_is_plain(const char *path);

#endif
