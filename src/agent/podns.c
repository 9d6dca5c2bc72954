/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/podns.h"

#include "io/child.h"
#include "io/file.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* linux/nsfs.h, Linux 4.9: the user namespace that a namespace belongs to. C libraries disagree on ioctl's type. */
#define PODNS_NS_GET_USERNS _IO(0xb7, 0x1)
/* waitid(2), Linux 5.4; not in every C library's enumeration. */
#define PODNS_P_PIDFD 3
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 4
#endif

/* ---- what is asked for ---- */

static bool podns_parse_ids(const char *field, const char *which, Runtime__V1__IDMapping *const *mappings, size_t count,
                            struct userns_ids *out, struct status *err)
{
    for (size_t i = 0; i < count; i++) {
        const Runtime__V1__IDMapping *m = mappings[i];
        if (m->length == 0 || m->host_id > UINT32_MAX - m->length || m->container_id > UINT32_MAX - m->length)
            return status_set(err, STATUS_INVALID_ARGUMENT, "%s.%s[%zu]: %u ids from %u on, as %u and so on, are no range of ids", field,
                              which, i, m->length, m->host_id, m->container_id);
        out->ranges[out->count++] = (struct userns_range){ m->container_id, m->host_id, m->length };
    }
    return true;
}

/* One range that begins at the container's 0: what containerd takes, and kubelet sends. */
static bool podns_parse_pod_ids(const char *field, const char *which, Runtime__V1__IDMapping *const *mappings, size_t count,
                                struct userns_ids *out, struct status *err)
{
    *out = (struct userns_ids){ .count = 0 };
    if (count != 1)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s.%s: mode POD needs one mapping, %zu are given", field, which, count);
    if (!podns_parse_ids(field, which, mappings, count, out, err))
        return false;
    return out->ranges[0].inside == 0 ||
           status_set(err, STATUS_INVALID_ARGUMENT, "%s.%s[0].container_id: %u: the container's id 0 must be mapped", field, which,
                      out->ranges[0].inside);
}

bool podns_parse(const char *field, const Runtime__V1__NamespaceOption *options, struct userns_map *map, bool *own,
                 struct status *err)
{
    const Runtime__V1__UserNamespace *u = options == NULL ? NULL : options->userns_options;
    char path[128];

    *own = false;
    if (u == NULL)
        return true;
    snprintf(path, sizeof path, "%.80s.userns_options", field);
    if (u->mode == RUNTIME__V1__NAMESPACE_MODE__NODE && u->n_uids + u->n_gids > 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: mode NODE goes without mappings", path);
    if (u->mode == RUNTIME__V1__NAMESPACE_MODE__NODE)
        return true;
    if (u->mode != RUNTIME__V1__NAMESPACE_MODE__POD)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s.mode: only POD and NODE are possible", path);
    *own = true;
    return podns_parse_pod_ids(path, "uids", u->uids, u->n_uids, &map->uids, err) &&
           podns_parse_pod_ids(path, "gids", u->gids, u->n_gids, &map->gids, err);
}

static const Runtime__V1__LinuxSandboxSecurityContext *podns_security(const Runtime__V1__PodSandboxConfig *sandbox)
{
    return sandbox == NULL || sandbox->linux == NULL ? NULL : sandbox->linux->security_context;
}

bool podns_check_sandbox(const Runtime__V1__PodSandboxConfig *sandbox, struct status *err)
{
    const Runtime__V1__LinuxSandboxSecurityContext *s = podns_security(sandbox);
    const Runtime__V1__NamespaceOption *n = s == NULL ? NULL : s->namespace_options;
    struct userns_map map;
    bool own;

    if (!podns_parse("linux.security_context.namespace_options", n, &map, &own, err))
        return false;
    if (!own)
        return true;
    if (n->pid == RUNTIME__V1__NAMESPACE_MODE__NODE || n->ipc == RUNTIME__V1__NAMESPACE_MODE__NODE)
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "linux.security_context.namespace_options.%s: NODE does not go with a user namespace of the pod's own",
                          n->pid == RUNTIME__V1__NAMESPACE_MODE__NODE ? "pid" : "ipc");
    return !s->privileged || status_set(err, STATUS_INVALID_ARGUMENT,
                                        "linux.security_context.privileged: a pod with a user namespace of its own has no "
                                        "privileges over the machine");
}

bool podns_check_container(const Runtime__V1__PodSandboxConfig *sandbox, const Runtime__V1__NamespaceOption *options,
                           struct status *err)
{
    static const char field[] = "linux.security_context.namespace_options";
    const Runtime__V1__LinuxSandboxSecurityContext *s = podns_security(sandbox);
    struct userns_map pod, container;
    bool pod_own, own;

    if (!podns_parse(field, s == NULL ? NULL : s->namespace_options, &pod, &pod_own, err) ||
        !podns_parse(field, options, &container, &own, err))
        return false;
    return (own == pod_own && (!own || userns_maps_equal(&pod, &container))) ||
           status_set(err, STATUS_INVALID_ARGUMENT, "%s.userns_options: must be those of the pod", field);
}

bool podns_parse_mount(const Runtime__V1__Mount *m, size_t index, struct userns_map *map, bool *mapped, struct status *err)
{
    char field[48];

    *map = (struct userns_map){ .uids = { .count = 0 } };
    *mapped = m->n_uidmappings + m->n_gidmappings > 0;
    snprintf(field, sizeof field, "mounts[%zu]", index);
    if (*mapped && (m->n_uidmappings == 0 || m->n_gidmappings == 0))
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s.%s: missing: both ids must be mapped, or none", field,
                          m->n_uidmappings == 0 ? "uidMappings" : "gidMappings");
    if (m->n_uidmappings > USERNS_RANGES_MAX || m->n_gidmappings > USERNS_RANGES_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s.uidMappings: more than %d ranges", field, USERNS_RANGES_MAX);
    return podns_parse_ids(field, "uidMappings", m->uidmappings, m->n_uidmappings, &map->uids, err) &&
           podns_parse_ids(field, "gidMappings", m->gidmappings, m->n_gidmappings, &map->gids, err);
}

/* ---- what this machine can ---- */

/* In a child: two folders of which one is mapped, on top of one another, seen by nobody. */
static bool podns_try(const char *dir, struct status *err)
{
    static const struct userns_map some = { .uids = { .ranges = { { 0, 65536, 65536 } }, .count = 1 },
                                            .gids = { .ranges = { { 0, 65536, 65536 } }, .count = 1 } };
    cleanup_close int user_fd = userns_new(&some, err);

    if (user_fd < 0)
        return false;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return status_errno(err, "cannot make a mount namespace");
    cleanup_close int mapped = userns_open_mapped(dir, user_fd, false, err);
    if (mapped < 0)
        return false;
    if (mount("tmpfs", dir, "tmpfs", 0, "size=16k") < 0 || chdir(dir) < 0 || mkdir("a", 0700) < 0 || mkdir("b", 0700) < 0 ||
        mkdir("c", 0700) < 0)
        return status_errno(err, "cannot mount a tmpfs at %s", dir);
    return (syscall(SYS_move_mount, mapped, "", AT_FDCWD, "a", MOVE_MOUNT_F_EMPTY_PATH) == 0 &&
            mount("overlay", "c", "overlay", MS_RDONLY, "lowerdir=a:b") == 0) ||
           status_errno(err, "overlayfs does not take layers with mapped owners (Linux 5.19)");
}

/* ---- children ---- */

/* Runs it in a forked copy and takes over its error. */
static bool podns_in_child(bool (*function)(void *arg, struct status *err), void *arg, struct status *err)
{
    struct status result;
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return status_errno(err, "cannot make a pipe");
    pid_t pid = fork();
    if (pid == 0) {
        struct status ignored;
        child_reset_signals();
        memset(&result, 0, sizeof result);
        function(arg, &result);
        _exit(write_all(fds[1], &result, sizeof result, &ignored) ? 0 : 1);
    }
    if (pid < 0)
        status_errno(err, "cannot fork");
    close(fds[1]);
    ssize_t n = pid < 0 ? 0 : read(fds[0], &result, sizeof result);
    close(fds[0]);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (pid < 0)
        return false;
    if (n != (ssize_t)sizeof result)
        return status_set(err, STATUS_INTERNAL, "a child process ended without a word");
    if (result.code == STATUS_OK)
        return true;
    *err = result;
    return false;
}

static bool podns_try_in_child(void *arg, struct status *err)
{
    return podns_try(arg, err);
}

bool podns_supported(const char *dir, struct status *err)
{
    if (geteuid() != 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "only root may map the machine's ids");
    return podns_in_child(podns_try_in_child, (void *)(uintptr_t)dir, err);
}

/* ---- the keeper ---- */

/* It sees nothing of the machine's files: an empty root of its own. */
static bool podns_hide_files(void)
{
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,mode=500") == 0 && chdir("/proc") == 0 &&
           /* From the kernel's initial file system there is no pivot: then the empty folder is only its root. */
           (syscall(SYS_pivot_root, ".", ".") == 0 ? umount2(".", MNT_DETACH) == 0 : chroot(".") == 0) && chdir("/") == 0;
}

/* Never returns. As the root of the pod's user namespace; nobody in the pod may look into it, for it was the agent. */
static void podns_keep(int ready_fd)
{
    char byte = 'y';
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL);
    prctl(PR_SET_DUMPABLE, 0L);
    prctl(PR_SET_NAME, "interlink-pause");
    setsid();
    if (!podns_hide_files() || write(ready_fd, &byte, 1) != 1)
        _exit(1);
    child_close_fds_except(NULL, 0);
    for (int i = 0; i < 3; i++)
        close(i);
    /* Whoever lost its parent in the pod's PID namespace is ours, and reaped by the kernel at once. */
    signal(SIGCHLD, SIG_IGN);
    sigemptyset(&none);
    for (;;)
        sigsuspend(&none);
}

struct podns_start {
    int user_fd;
    int ready_fd;
    pid_t keeper;
    int keeper_fd; /* where the pid is told */
};

/* In a child: from inside of the user namespace, so that what it makes belongs to that. The keeper becomes the agent's own child
 * (CLONE_PARENT). */
static bool podns_make_keeper(void *arg, struct status *err)
{
    struct podns_start *s = arg;
    struct status ignored;
    const unsigned long flags = CLONE_PARENT | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | SIGCHLD;
    cleanup_close int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    /* With it the pod ends, so it is the last to be killed for its memory, where that may be said. */
    if (score >= 0 && write(score, "-998", 4) != 4)
        log_debug("the pod's keeper has the agent's oom_score_adj");
    if (!userns_join(s->user_fd, err))
        return false;
    pid_t pid = (pid_t)syscall(SYS_clone, flags, 0, 0, 0, 0);
    if (pid == 0)
        podns_keep(s->ready_fd);
    if (pid < 0)
        return status_errno(err, "cannot make namespaces in the pod's user namespace");
    return write_all(s->keeper_fd, &pid, sizeof pid, &ignored);
}

static int podns_open(pid_t pid, const char *name, struct status *err)
{
    cleanup_free char *path = xasprintf("/proc/%d/ns/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        status_errno(err, "cannot open %s", path);
    return fd;
}

static bool podns_start_keeper(struct podns *p, struct status *err)
{
    int ready[2], told[2];
    pid_t pid = -1;
    char byte;

    if (pipe2(ready, O_CLOEXEC) < 0)
        return status_errno(err, "cannot make a pipe");
    if (pipe2(told, O_CLOEXEC) < 0) {
        close(ready[0]);
        close(ready[1]);
        return status_errno(err, "cannot make a pipe");
    }
    struct podns_start s = { .user_fd = p->user_fd, .ready_fd = ready[1], .keeper_fd = told[1] };
    bool ok = podns_in_child(podns_make_keeper, &s, err);
    close(ready[1]);
    close(told[1]);
    if (ok && read(told[0], &pid, sizeof pid) != (ssize_t)sizeof pid)
        ok = status_set(err, STATUS_INTERNAL, "the pod's keeper was not started");
    /* Until it is waited for, its number is nobody else's. */
    p->keeper_fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (ok && p->keeper_fd < 0)
        ok = status_errno(err, "cannot open the pod's keeper");
    if (ok && read(ready[0], &byte, 1) != 1)
        ok = status_set(err, STATUS_INTERNAL, "the pod's keeper ended at once");
    close(ready[0]);
    close(told[0]);
    return ok && (p->pid_fd = podns_open(pid, "pid", err)) >= 0 && (p->ipc_fd = podns_open(pid, "ipc", err)) >= 0 &&
           (p->uts_fd = podns_open(pid, "uts", err)) >= 0;
}

/* ---- start and stop ---- */

/* The user namespace that our network namespace belongs to, when it was made for this pod; -1. */
static int podns_of_network(const struct userns_map *map)
{
    cleanup_close int network = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    struct stat own, its;
    struct userns_map found;
    struct status ignored;
    char pid[16];
    int ready[2];

    int fd = network < 0 ? -1 : (int)syscall(SYS_ioctl, network, PODNS_NS_GET_USERNS);
    if (fd < 0)
        return -1;
    if (fstat(fd, &its) < 0 || stat("/proc/self/ns/user", &own) < 0 || its.st_ino == own.st_ino || pipe2(ready, O_CLOEXEC) < 0) {
        close(fd);
        return -1;
    }
    /* A map is only shown of a process. */
    pid_t child = fork();
    if (child == 0) {
        char byte = setns(fd, CLONE_NEWUSER) == 0 ? 'y' : 'n';
        if (write(ready[1], &byte, 1) == 1)
            pause();
        _exit(0);
    }
    close(ready[1]);
    snprintf(pid, sizeof pid, "%d", (int)child);
    char byte = 'n';
    bool same = child > 0 && read(ready[0], &byte, 1) == 1 && byte == 'y' && userns_read_map(pid, &found, &ignored) &&
                userns_maps_equal(map, &found);
    close(ready[0]);
    if (child > 0)
        kill(child, SIGKILL);
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    if (same)
        return fd;
    close(fd);
    return -1;
}

bool podns_start(struct podns *p, const struct userns_map *map, struct status *err)
{
    static const char field[] = "linux.security_context.namespace_options.userns_options";

    if (p->on)
        return userns_maps_equal(&p->map, map) ||
               status_set(err, STATUS_FAILED_PRECONDITION, "%s: cannot be changed once the pod has started", field);
    *p = (struct podns)PODNS_INIT;
    p->map = *map;
    p->user_fd = podns_of_network(map);
    p->has_network = p->user_fd >= 0;
    if (p->user_fd < 0)
        p->user_fd = userns_new(map, err);
    p->on = p->user_fd >= 0 && podns_start_keeper(p, err);
    if (p->on)
        return true;
    podns_stop(p);
    return status_prefix(err, "%s", field);
}

void podns_stop(struct podns *p)
{
    int fds[] = { p->keeper_fd, p->user_fd, p->pid_fd, p->ipc_fd, p->uts_fd };
    siginfo_t info;

    if (p->keeper_fd >= 0 && syscall(SYS_pidfd_send_signal, p->keeper_fd, SIGKILL, NULL, 0) == 0)
        while (waitid((idtype_t)PODNS_P_PIDFD, (id_t)p->keeper_fd, &info, WEXITED) < 0 && errno == EINTR)
            ;
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    *p = (struct podns)PODNS_INIT;
}

/* ---- inside ---- */

struct podns_run {
    const struct podns *pod;
    bool (*function)(void *arg, struct status *err);
    void *arg;
};

static bool podns_run_inside(void *arg, struct status *err)
{
    const struct podns_run *run = arg;

    if (setns(run->pod->ipc_fd, CLONE_NEWIPC) < 0 || setns(run->pod->uts_fd, CLONE_NEWUTS) < 0)
        return status_errno(err, "cannot join the pod's namespaces");
    return userns_join(run->pod->user_fd, err) && run->function(run->arg, err);
}

bool podns_run(const struct podns *p, bool (*function)(void *arg, struct status *err), void *arg, struct status *err)
{
    struct podns_run run = { p, function, arg };

    return podns_in_child(podns_run_inside, &run, err);
}

static uint32_t podns_id(const struct userns_ids *ids, uint32_t inside)
{
    uint32_t outside = 0;

    if (!userns_outside(ids, inside, &outside))
        userns_outside(ids, 0, &outside);
    return outside;
}

uid_t podns_uid(const struct podns *p, uint32_t inside)
{
    return p->on ? podns_id(&p->map.uids, inside) : inside;
}

gid_t podns_gid(const struct podns *p, uint32_t inside)
{
    return p->on ? podns_id(&p->map.gids, inside) : inside;
}

#undef PODNS_NS_GET_USERNS
#undef PODNS_P_PIDFD
