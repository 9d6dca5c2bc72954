/* SPDX-License-Identifier: Apache-2.0 */
#include "io/netns.h"

#include "io/file.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* linux/magic.h: the file system of namespaces. */
#define NETNS_MAGIC 0x6e736673L
/* Mounts on one name: one, unless somebody else mounted there, too. */
#define NETNS_MOUNTS_MAX 16

/* ---- inside of a new namespace ---- */

static bool netns_raise_loopback(struct status *err)
{
    struct ifreq request;
    cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    memset(&request, 0, sizeof request);
    memcpy(request.ifr_name, "lo", 3);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return status_errno(err, "cannot see the loopback interface");
    request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
    return ioctl(fd, SIOCSIFFLAGS, &request) == 0 || status_errno(err, "cannot set the loopback interface up");
}

/* What containerd sets for each pod since 2.0: low ports and ping need no privilege in a network of one's own. Best effort. */
static void netns_open_ports(void)
{
    static const char *const settings[][2] = {
        { "/proc/sys/net/ipv4/ip_unprivileged_port_start", "0" },
        { "/proc/sys/net/ipv4/ping_group_range", "0 2147483647" },
    };

    for (size_t i = 0; i < COUNT_OF(settings); i++) {
        cleanup_close int fd = open(settings[i][0], O_WRONLY | O_CLOEXEC);
        ssize_t ignored UNUSED = fd >= 0 ? write(fd, settings[i][1], strlen(settings[i][1])) : 0;
    }
}

/* Never returns: holds the namespace until `go_fd` closes, which happens when it is mounted or when its maker died. */
static void netns_hold(int user_fd, int ready_fd, int go_fd)
{
    struct status result, ignored;
    char byte;

    memset(&result, 0, sizeof result);
    prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL);
    if (user_fd < 0 || userns_join(user_fd, &result)) {
        if (unshare(CLONE_NEWNET) < 0)
            status_errno(&result, "cannot make a network namespace");
        else if (netns_raise_loopback(&result))
            netns_open_ports();
    }
    if (write_all(ready_fd, &result, sizeof result, &ignored))
        while (read(go_fd, &byte, 1) < 0 && errno == EINTR)
            ;
    _exit(0);
}

/* ---- the name ---- */

bool netns_present(const char *path)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 && (long)fs.f_type == NETNS_MAGIC;
}

/* As ip-netns(8) does it: the folder is a mount of its own, shared with the mount namespaces that copy it, so that names that
 * are unmounted here are unmounted there. What comes first decides: ip would otherwise put its own mount over ours, under which
 * they could not be unmounted any more. */
static bool netns_share_folder(const char *folder, struct status *err)
{
    cleanup_close int lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return status_errno(err, "cannot lock %s", folder);
    if (mount("", folder, "none", MS_SHARED | MS_REC, NULL) == 0)
        return true;
    return (errno == EINVAL && mount(folder, folder, "none", MS_BIND | MS_REC, NULL) == 0 &&
            mount("", folder, "none", MS_SHARED | MS_REC, NULL) == 0) ||
           status_errno(err, "cannot make %s a shared mount", folder);
}

static bool netns_make_name(const char *path, struct status *err)
{
    cleanup_free char *folder = xstrndup(path, (size_t)(strrchr(path, '/') - path));

    if (!dir_make(folder, 0755, err) || !netns_share_folder(folder, err))
        return false;
    cleanup_close int fd = open(path, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0444);
    return fd >= 0 || status_errno(err, "cannot create %s", path);
}

static bool netns_mount(pid_t pid, const char *path, int ready_fd, struct status *err)
{
    cleanup_free char *source = xasprintf("/proc/%d/ns/net", (int)pid);
    struct status result;

    memset(&result, 0, sizeof result);
    if (read(ready_fd, &result, sizeof result) != (ssize_t)sizeof result)
        return status_set(err, STATUS_INTERNAL, "the process that makes a network namespace ended without a word");
    if (result.code != STATUS_OK) {
        *err = result;
        return false;
    }
    return mount(source, path, NULL, MS_BIND, NULL) == 0 || status_errno(err, "cannot mount a network namespace at %s", path);
}

bool netns_make(const char *path, const struct userns_map *map, struct status *err)
{
    int ready[2], go[2];

    if (netns_present(path))
        return true;
    if (!netns_make_name(path, err))
        return false;
    cleanup_close int user_fd = map != NULL ? userns_new(map, err) : -1;
    if (map != NULL && user_fd < 0)
        return false;
    if (pipe2(ready, O_CLOEXEC) < 0)
        return status_errno(err, "cannot make a pipe");
    if (pipe2(go, O_CLOEXEC) < 0) {
        close(ready[0]);
        close(ready[1]);
        return status_errno(err, "cannot make a pipe");
    }
    pid_t pid = fork();
    if (pid == 0) {
        close(ready[0]);
        close(go[1]);
        netns_hold(user_fd, ready[1], go[0]);
    }
    if (pid < 0)
        status_errno(err, "cannot fork");
    close(ready[1]);
    close(go[0]);
    bool ok = pid > 0 && netns_mount(pid, path, ready[0], err);
    close(ready[0]);
    close(go[1]);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (!ok)
        unlink(path);
    return ok;
}

bool netns_enter(const char *path, struct status *err)
{
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return status_errno(err, "cannot open the network namespace %s", path);
    if (!netns_present(path))
        return status_set(err, STATUS_NOT_FOUND, "%s is no network namespace (any more)", path);
    return setns(fd, CLONE_NEWNET) == 0 || status_errno(err, "cannot join the network namespace %s", path);
}

bool netns_remove(const char *path, struct status *err)
{
    for (int i = 0; i < NETNS_MOUNTS_MAX && netns_present(path); i++)
        if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
            return status_errno(err, "cannot unmount the network namespace %s", path);
    /* Copies of the mount in other mount namespaces go with the name (Linux 3.18). */
    return unlink(path) == 0 || errno == ENOENT || status_errno(err, "cannot remove %s", path);
}

#undef NETNS_MAGIC
#undef NETNS_MOUNTS_MAX
