/* SPDX-License-Identifier: Apache-2.0 */
#include "io/userns.h"

#include "io/file.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
/* A map has at most 340 lines of three numbers (user_namespaces(7)). */
#define USERNS_MAP_TEXT_MAX (340u * 36)

/* ---- maps ---- */

uint32_t userns_ids_count(const struct userns_ids *ids)
{
    uint64_t next = 0;
    bool found = true;

    /* The kernel keeps the lines as they were written: in any order. */
    while (found && next < UINT32_MAX) {
        found = false;
        for (size_t i = 0; i < ids->count; i++)
            if (ids->ranges[i].inside <= next && next < (uint64_t)ids->ranges[i].inside + ids->ranges[i].count) {
                next = (uint64_t)ids->ranges[i].inside + ids->ranges[i].count;
                found = true;
            }
    }
    return next < UINT32_MAX ? (uint32_t)next : UINT32_MAX;
}

bool userns_outside(const struct userns_ids *ids, uint32_t inside, uint32_t *outside)
{
    for (size_t i = 0; i < ids->count; i++) {
        const struct userns_range *r = &ids->ranges[i];
        if (inside >= r->inside && inside - r->inside < r->count) {
            *outside = r->outside + (inside - r->inside);
            return true;
        }
    }
    return false;
}

static bool userns_ids_equal(const struct userns_ids *a, const struct userns_ids *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (a->ranges[i].inside != b->ranges[i].inside || a->ranges[i].outside != b->ranges[i].outside ||
            a->ranges[i].count != b->ranges[i].count)
            return false;
    return true;
}

bool userns_maps_equal(const struct userns_map *a, const struct userns_map *b)
{
    return userns_ids_equal(&a->uids, &b->uids) && userns_ids_equal(&a->gids, &b->gids);
}

void userns_print_ids(const struct userns_ids *ids, struct buf *out)
{
    for (size_t i = 0; i < ids->count; i++)
        buf_printf(out, "%s%u:%u:%u", i > 0 ? "," : "", ids->ranges[i].inside, ids->ranges[i].outside, ids->ranges[i].count);
}

static bool userns_read_ids(const char *pid, const char *name, struct userns_ids *out, struct status *err)
{
    cleanup_free char *path = xasprintf("/proc/%s/%s", pid, name);
    struct buf text cleanup_buf = BUF_INIT;
    int used = 0;

    *out = (struct userns_ids){ .count = 0 };
    if (!file_read(path, USERNS_MAP_TEXT_MAX, &text, err)) {
        if (err->code != STATUS_NOT_FOUND || access("/proc/self/ns/user", F_OK) == 0)
            return false;
        out->ranges[out->count++] = (struct userns_range){ 0, 0, UINT32_MAX };
        return true;
    }
    for (const char *p = buf_cstr(&text); out->count < USERNS_RANGES_MAX; p += used) {
        struct userns_range *r = &out->ranges[out->count];
        if (sscanf(p, " %" SCNu32 " %" SCNu32 " %" SCNu32 "%n", &r->inside, &r->outside, &r->count, &used) != 3)
            break;
        out->count++;
    }
    return true;
}

bool userns_read_map(const char *pid, struct userns_map *out, struct status *err)
{
    return userns_read_ids(pid, "uid_map", &out->uids, err) && userns_read_ids(pid, "gid_map", &out->gids, err);
}

/* ---- namespaces ---- */

/* One write(2) for the whole map, which the kernel takes once. */
static bool userns_write_ids(pid_t pid, const char *name, const struct userns_ids *ids, struct status *err)
{
    cleanup_free char *path = xasprintf("/proc/%d/%s", (int)pid, name);
    struct buf text cleanup_buf = BUF_INIT;
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

    for (size_t i = 0; i < ids->count; i++)
        buf_printf(&text, "%u %u %u\n", ids->ranges[i].inside, ids->ranges[i].outside, ids->ranges[i].count);
    return (fd >= 0 && write(fd, text.p, text.n) == (ssize_t)text.n) || status_errno(err, "cannot write %s of a new user namespace", name);
}

bool userns_write_map(pid_t pid, const struct userns_map *map, struct status *err)
{
    if (geteuid() != 0)
        return subid_run("newuidmap", pid, &map->uids, err) && subid_run("newgidmap", pid, &map->gids, err);
    return userns_write_ids(pid, "gid_map", &map->gids, err) && userns_write_ids(pid, "uid_map", &map->uids, err);
}

/* The process that stands for the namespace until we hold it: made by clone(2), so system calls only. Never returns. */
static void userns_wait(int fd)
{
    char byte;

    prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL);
    while (read(fd, &byte, 1) < 0 && errno == EINTR)
        ;
    _exit(0);
}

int userns_new(const struct userns_map *map, struct status *err)
{
    int fds[2], fd = -1;

    if (pipe2(fds, O_CLOEXEC) < 0) {
        status_errno(err, "cannot make a pipe");
        return -1;
    }
    pid_t pid = (pid_t)syscall(SYS_clone, (unsigned long)(CLONE_NEWUSER | SIGCHLD), 0, 0, 0, 0);
    if (pid == 0) {
        close(fds[1]);
        userns_wait(fds[0]);
    }
    close(fds[0]);
    if (pid < 0) {
        status_errno(err, "cannot make a user namespace");
    } else if (userns_write_map(pid, map, err)) {
        cleanup_free char *path = xasprintf("/proc/%d/ns/user", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            status_errno(err, "cannot open %s", path);
    }
    close(fds[1]);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return fd;
}

bool userns_join(int fd, struct status *err)
{
    if (setns(fd, CLONE_NEWUSER) < 0)
        return status_errno(err, "cannot join a user namespace");
    /* Refused where there is one id only; then there are none to drop. */
    (void)setgroups(0, NULL);
    return (setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0) || status_errno(err, "cannot become root of a user namespace");
}

/* ---- mounts ---- */

bool userns_map_mount(int mount_fd, int userns_fd, bool recursive, struct status *err)
{
#if defined(SYS_mount_setattr) && defined(MOUNT_ATTR_IDMAP)
    struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (__u64)(unsigned)userns_fd };

    if (syscall(SYS_mount_setattr, mount_fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr, sizeof attr) == 0)
        return true;
#else
    (void)mount_fd;
    (void)userns_fd;
    (void)recursive;
    errno = ENOSYS;
#endif
    if (errno == ENOSYS)
        return status_set(err, STATUS_FAILED_PRECONDITION, "mounts with mapped owners need Linux 5.12");
    if (errno == EINVAL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "its file system cannot be mounted with mapped owners on this kernel");
    return status_errno(err, "cannot map the owners of a mount");
}

int userns_open_mapped(const char *path, int userns_fd, bool recursive, struct status *err)
{
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
                          (unsigned)(OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0)));

    if (fd < 0) {
        status_errno(err, "cannot clone the mount of %s", path);
        if (errno == ENOSYS)
            status_set(err, STATUS_FAILED_PRECONDITION, "mounts with mapped owners need Linux 5.12");
        return -1;
    }
    if (userns_map_mount(fd, userns_fd, recursive, err))
        return fd;
    status_prefix(err, "%s", path);
    close(fd);
    return -1;
}

#undef USERNS_MAP_TEXT_MAX
