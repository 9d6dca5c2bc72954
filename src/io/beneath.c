/* SPDX-License-Identifier: Apache-2.0 */
#include "io/beneath.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Somebody who renames folders all the time must not hold us up. */
#define BENEATH_TRIES_MAX 100

bool beneath_is_plain(const char *path)
{
    for (const char *p = path;; p++) {
        size_t n = strcspn(p, "/");
        if (n == 0 || n > NAME_MAX || (p[0] == '.' && (n == 1 || (n == 2 && p[1] == '.'))))
            return false;
        p += n;
        if (*p == '\0')
            return true;
    }
}

/* Before Linux 5.6: part by part, which no link can lead astray. */
static int beneath_walk(int dir_fd, const char *path, int flags, mode_t mode)
{
    cleanup_close int at = fcntl(dir_fd, F_DUPFD_CLOEXEC, 3);
    cleanup_free char *copy = xstrdup(path);
    char *part = copy, *slash;

    if (at < 0)
        return -1;
    if (!beneath_is_plain(path)) {
        errno = EXDEV;
        return -1;
    }
    for (; (slash = strchr(part, '/')) != NULL; part = slash + 1) {
        *slash = '\0';
        int next = openat(at, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0)
            return -1;
        close(at);
        at = next;
    }
    return openat(at, part, flags | O_NOFOLLOW | O_CLOEXEC, mode);
}

static int beneath_openat2(int dir_fd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
    struct open_how how = { .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC), .mode = mode,
                            .resolve = resolve | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
    int fd, tries = 0;

    if (*path == '\0' || strcmp(path, ".") == 0)
        return openat(dir_fd, ".", flags | O_CLOEXEC, mode);
    do
        fd = (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN && ++tries < BENEATH_TRIES_MAX); /* a rename on the way */
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) /* EPERM: a filter of system calls that does not know it */
        return fd;
    return beneath_walk(dir_fd, path, flags, mode);
}

int beneath_open(int dir_fd, const char *path, int flags, mode_t mode)
{
    return beneath_openat2(dir_fd, path, flags, mode, RESOLVE_NO_SYMLINKS);
}

int beneath_open_links(int dir_fd, const char *path, int flags)
{
    return beneath_openat2(dir_fd, path, flags, 0, 0);
}

int beneath_parent(int dir_fd, const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');
    cleanup_free char *parent = xstrndup(path, slash != NULL ? (size_t)(slash - path) : 0);

    *name = slash != NULL ? slash + 1 : path;
    if (**name == '\0') {
        errno = EINVAL;
        return -1;
    }
    return beneath_open(dir_fd, parent, O_PATH | O_DIRECTORY, 0);
}

#undef BENEATH_TRIES_MAX
