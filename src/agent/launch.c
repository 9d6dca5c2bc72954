/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/launch.h"

#include "agent/terminal.h"
#include "agent/track.h"
#include "io/child.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAUNCH_DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4u
#endif

/* What the new process tells when it does not get as far as exec. */
struct launch_failure {
    int number; /* errno */
    bool is_exec;
    char step[120];
};

/* Namespaces to join and the way back of failures; opened before the fork. */
struct launch_fds {
    int mount, pid, cgroup; /* -1: not joined */
    bool user;              /* the pod's user namespace, and what belongs to it */
    int null;
    int report; /* close-on-exec: an end without a word means that exec has worked */
};

static bool launch_failed(struct launch_failure *f, const char *step)
{
    f->number = errno;
    snprintf(f->step, sizeof f->step, "%s", step);
    return false;
}

/* ---- in the new process ---- */

static bool launch_score(const struct process *p, struct launch_failure *f)
{
    char text[16];

    if (!p->has_oom_score_adj)
        return true;
    snprintf(text, sizeof text, "%d", (int)p->oom_score_adj);
    cleanup_close int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    return (fd >= 0 && write(fd, text, strlen(text)) > 0) || launch_failed(f, "set oom_score_adj");
}

/* The user namespace comes last: from inside of it nothing of the machine's can be joined. */
static bool launch_join_pod(const struct podns *pod, struct launch_failure *f)
{
    struct status err;

    if (setns(pod->ipc_fd, CLONE_NEWIPC) < 0 || setns(pod->uts_fd, CLONE_NEWUTS) < 0)
        return launch_failed(f, "join the pod's IPC and UTS namespaces");
    return userns_join(pod->user_fd, &err) || launch_failed(f, "join the pod's user namespace");
}

/* Through our own /proc: the container's may be made up. */
static bool launch_labels(const struct launch *l, struct launch_failure *f)
{
    return l->lsm == NULL || lsm_set_exec(l->lsm, l->process->apparmor, l->process->selinux) ||
           launch_failed(f, "set the AppArmor profile or SELinux label");
}

static bool launch_join(const struct launch *l, const struct launch_fds *fds, struct launch_failure *f)
{
    if (fds->cgroup >= 0 && setns(fds->cgroup, CLONE_NEWCGROUP) < 0)
        return launch_failed(f, "join the container's cgroup namespace");
    if (fds->mount >= 0 && setns(fds->mount, CLONE_NEWNS) < 0)
        return launch_failed(f, "join the container's mount namespace");
    return !fds->user || launch_join_pod(l->pod, f);
}

static bool launch_bind(const struct process *p, struct launch_failure *f)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return launch_failed(f, "make a mount namespace");
    for (size_t i = 0; i < p->bind_count; i++) {
        const struct process_bind *b = &p->binds[i];
        if (mount(b->source, b->target, NULL, MS_BIND | MS_REC, NULL) < 0 ||
            (b->read_only && mount(NULL, b->target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)) {
            int number = errno;
            char step[sizeof f->step];
            snprintf(step, sizeof step, "mount %.100s", b->target);
            errno = number;
            return launch_failed(f, step);
        }
    }
    return true;
}

/* Descriptors 0 to 2. The sources may be among them, so they move out of the way first. */
static bool launch_place_stdio(const struct engine_stdio *io, int null_fd, uid_t owner, gid_t group)
{
    int from[3] = { io->in, io->out, io->err };

    for (int i = 0; i < 3; i++) {
        if (from[i] < 0)
            from[i] = null_fd;
        if (from[i] <= 2)
            from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 3);
        if (from[i] < 0)
            return false;
    }
    for (int i = 0; i < 3; i++) {
        struct stat st;
        if (dup2(from[i], i) < 0)
            return false;
        /* So that the container's user can open /dev/stdout by name. */
        if (fstat(i, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)) && st.st_uid != owner)
            (void)!fchown(i, owner, group);
    }
    return true;
}

static bool launch_stdio(const struct launch *l, const struct launch_fds *fds, struct launch_failure *f)
{
    uid_t owner = l->one_id ? geteuid() : l->process->user.uid;
    gid_t group = (gid_t)-1;

    if (fds->user && !l->io->tty) { /* not joined yet */
        owner = podns_uid(l->pod, l->process->user.uid);
        group = podns_gid(l->pod, l->process->user.gid);
    }
    if (l->io->tty)
        return terminal_take(l->io->terminal_fd, l->io->width, l->io->height, owner) ||
               launch_failed(f, "open a terminal");
    return launch_place_stdio(l->io, fds->null, owner, group) || launch_failed(f, "set up standard input and output");
}

static bool launch_seccomp(const struct process *p, struct launch_failure *f)
{
    struct sock_fprog program = { .len = (unsigned short)(p->seccomp_size / sizeof(struct sock_filter)),
                                  .filter = (struct sock_filter *)(void *)p->seccomp };

    if (p->seccomp == NULL || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, p->seccomp_flags, &program) == 0)
        return true;
    /* Flags newer than the kernel are only about speed and logs. */
    return (errno == EINVAL && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0) ||
           launch_failed(f, "install the system call filter");
}

static bool launch_capset(uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = {
        { (uint32_t)permitted, (uint32_t)permitted, (uint32_t)inheritable },
        { (uint32_t)(permitted >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32) },
    };

    return syscall(SYS_capset, &header, data) == 0;
}

static bool launch_identity(const struct launch *l, struct launch_failure *f)
{
    const struct process *p = l->process;
    gid_t groups[USER_GROUPS_MAX];

    /* A process that is nobody's root has no capabilities to shape and no ids to change. */
    if (geteuid() != 0 || l->as_we_are)
        return true;
    for (int cap = 0; prctl(PR_CAPBSET_READ, (unsigned long)cap) >= 0; cap++)
        if ((p->bounding & 1ull << cap) == 0 && prctl(PR_CAPBSET_DROP, (unsigned long)cap) < 0)
            return launch_failed(f, "drop capabilities from the bounding set");
    if (prctl(PR_SET_KEEPCAPS, 1L) < 0)
        return launch_failed(f, "keep capabilities");
    for (size_t i = 0; i < p->user.group_count; i++)
        groups[i] = p->user.groups[i];
    if (!l->one_id && !p->keep_groups && setgroups(p->user.group_count, groups) < 0)
        return launch_failed(f, "set groups");
    if (setresgid(p->user.gid, p->user.gid, p->user.gid) < 0)
        return launch_failed(f, "set the gid");
    if (setresuid(p->user.uid, p->user.uid, p->user.uid) < 0)
        return launch_failed(f, "set the uid");
    if (!launch_capset(p->permitted, p->inheritable))
        return launch_failed(f, "set capabilities");
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0L, 0L, 0L);
    for (unsigned cap = 0; cap < 64; cap++)
        if ((p->ambient & 1ull << cap) != 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, (unsigned long)cap, 0L, 0L) < 0)
            return launch_failed(f, "raise ambient capabilities");
    return true;
}

/* Never returns when it works. PATH is the container's, as a shell would look it up. */
static void launch_exec(const struct launch *l, struct launch_failure *f)
{
    char *const *argv = (char *const *)(uintptr_t)l->argv;
    const char *path = process_env(l->process, "PATH");
    int number = ENOENT;

    f->is_exec = true;
    if (strchr(argv[0], '/') != NULL) {
        execve(argv[0], argv, l->process->env);
        launch_failed(f, "execute");
        return;
    }
    for (const char *p = path == NULL || *path == '\0' ? LAUNCH_DEFAULT_PATH : path; argv[0][0] != '\0';) {
        char full[PATH_MAX];
        size_t n = strcspn(p, ":");
        int length = snprintf(full, sizeof full, "%.*s%s%s", (int)n, p, n > 0 ? "/" : "", argv[0]);
        if (length > 0 && (size_t)length < sizeof full) {
            execve(full, argv, l->process->env);
            if (errno != ENOENT && errno != ENOTDIR)
                number = errno;
        }
        if (p[n] == '\0')
            break;
        p += n + 1;
    }
    errno = number;
    launch_failed(f, "execute");
}

/* Never returns. */
static void launch_child(const struct launch *l, struct launch_fds *fds)
{
    const struct process *p = l->process;
    struct launch_failure f;

    memset(&f, 0, sizeof f);
    bool ok = launch_labels(l, &f) && launch_score(p, &f) && (l->io->tty || launch_stdio(l, fds, &f)) && launch_join(l, fds, &f) &&
              (!l->own_mounts || launch_bind(p, &f));
    if (ok && setsid() < 0)
        ok = launch_failed(&f, "make a session");
    if (ok && l->bundle != NULL && !track_add(l->bundle, 0, l->own_mounts))
        ok = launch_failed(&f, "remember the process");
    ok = ok && (!l->io->tty || launch_stdio(l, fds, &f));
    if (ok) {
        /* The working directory may be readable for root only, or for the user only. */
        bool there = chdir(p->cwd) == 0;
        umask(022);
        int keep[1 + COUNT_OF(l->pass)] = { fds->report };
        for (size_t i = 0; i < l->pass_count; i++)
            keep[1 + i] = l->pass[i];
        if (syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
            child_close_fds_except(keep, 1 + l->pass_count);
        for (size_t i = 0; i < l->pass_count; i++)
            fcntl(l->pass[i], F_SETFD, 0);
        child_reset_signals();
        /* Nobody in the container may look into this process, which is still a copy of the agent, when it loses the
         * capabilities that protect it. Not earlier: without this flag a user namespace's /proc/self is closed. */
        prctl(PR_SET_DUMPABLE, 0L);
        /* Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before capabilities go. */
        ok = (p->no_new_privs || launch_seccomp(p, &f)) && launch_identity(l, &f);
        if (ok && !there && chdir(p->cwd) < 0)
            ok = launch_failed(&f, "enter the working directory");
        if (ok && p->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) < 0)
            ok = launch_failed(&f, "set no_new_privs");
        ok = ok && (!p->no_new_privs || launch_seccomp(p, &f));
        if (ok)
            launch_exec(l, &f);
    }
    ssize_t ignored UNUSED = write(fds->report, &f, sizeof f);
    _exit(127);
}

void launch_inside(const struct process *p, const struct engine_stdio *io, int report_fd)
{
    const struct launch l = { .process = p, .argv = (const char *const *)p->argv, .io = io, .one_id = true };
    struct launch_fds fds = { -1, -1, -1, false, -1, report_fd };
    struct launch_failure f;

    memset(&f, 0, sizeof f);
    bool ok = !io->tty || ((setsid() >= 0 || launch_failed(&f, "make a session")) && launch_stdio(&l, &fds, &f));
    umask(022);
    if (syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        child_close_fds_except(&report_fd, 1);
    child_reset_signals();
    ok = ok && (chdir(p->cwd) == 0 || launch_failed(&f, "enter the working directory"));
    /* Without privilege a filter can only be had so (seccomp(2)). */
    ok = ok && (prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) == 0 || launch_failed(&f, "set no_new_privs"));
    if (ok && launch_seccomp(p, &f))
        launch_exec(&l, &f);
    ssize_t ignored UNUSED = write(report_fd, &f, sizeof f);
    _exit(127);
}

/* ---- in the worker ---- */

/* Opens a namespace of pid's; *fd stays -1 when it is ours anyway. */
static bool launch_open_namespace(pid_t pid, const char *name, int *fd, struct status *err)
{
    char its[64], own[64];
    struct stat a, b;

    snprintf(its, sizeof its, "/proc/%d/ns/%s", (int)pid, name);
    snprintf(own, sizeof own, "/proc/self/ns/%s", name);
    if (stat(its, &a) < 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "the container is not running");
    if (stat(own, &b) == 0 && a.st_ino == b.st_ino)
        return true;
    *fd = open(its, O_RDONLY | O_CLOEXEC);
    return *fd >= 0 || status_errno(err, "cannot open %s", its);
}

static void launch_close(struct launch_fds *fds)
{
    int all[] = { fds->mount, fds->pid, fds->cgroup, fds->null, fds->report };

    for (size_t i = 0; i < COUNT_OF(all); i++)
        if (all[i] >= 0)
            close(all[i]);
}

static bool launch_open(const struct launch *l, struct launch_fds *fds, struct status *err)
{
    fds->null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fds->null < 0)
        return status_errno(err, "cannot open /dev/null");
    if (l->init <= 0)
        return true;
    fds->user = l->pod != NULL && l->pod->on;
    if (!launch_open_namespace(l->init, "mnt", &fds->mount, err) ||
        (l->process->own_cgroup && !launch_open_namespace(l->init, "cgroup", &fds->cgroup, err)) ||
        (l->process->own_pid && !launch_open_namespace(l->init, "pid", &fds->pid, err)))
        return false;
    /* Takes effect for children only. */
    return fds->pid < 0 || setns(fds->pid, CLONE_NEWPID) == 0 || status_errno(err, "cannot join the container's PID namespace");
}

bool launch_exec_error(const char *program, int number, struct status *err)
{
    if (number == ENOENT && strchr(program, '/') == NULL)
        return status_set(err, STATUS_NOT_FOUND, "exec: \"%.200s\": executable file not found in $PATH", program);
    if (number == ENOENT)
        return status_set(err, STATUS_NOT_FOUND, "exec: \"%.200s\": no such file or directory (or its interpreter is missing)",
                          program);
    errno = number;
    status_errno(err, "exec: \"%.200s\"", program);
    if (err->code == STATUS_INTERNAL)
        err->code = STATUS_FAILED_PRECONDITION;
    return false;
}

static bool launch_outcome(const struct launch_failure *f, ssize_t n, const char *program, struct status *err)
{
    if (n != (ssize_t)sizeof *f)
        return status_set(err, STATUS_INTERNAL, "a new process went away");
    if (f->is_exec)
        return launch_exec_error(program, f->number, err);
    errno = f->number;
    return status_errno(err, "cannot start \"%.200s\": %.*s", program, (int)sizeof f->step, f->step);
}

bool launch_await(int report_fd, const char *program, struct status *err)
{
    struct launch_failure f;
    ssize_t n;

    while ((n = read(report_fd, &f, sizeof f)) < 0 && errno == EINTR)
        ;
    return n == 0 || launch_outcome(&f, n, program, err);
}

bool launch_process(const struct launch *l, pid_t *pid, struct status *err)
{
    struct launch_fds fds = { -1, -1, -1, false, -1, -1 };
    struct launch_failure f;
    int report[2] = { -1, -1 };
    ssize_t n = 0;

    *pid = -1;
    bool ok = launch_open(l, &fds, err);
    if (ok && pipe2(report, O_CLOEXEC) < 0)
        ok = status_errno(err, "cannot make a pipe");
    if (ok) {
        fds.report = report[1];
        *pid = cgroup_fork(l->cgroups, l->id, err);
        if (*pid == 0) {
            close(report[0]);
            launch_child(l, &fds);
        }
        ok = *pid > 0;
    }
    launch_close(&fds);
    while (ok && (n = read(report[0], &f, sizeof f)) < 0 && errno == EINTR)
        ;
    if (report[0] >= 0)
        close(report[0]);
    if (!ok || n == 0) {
        if (ok && l->bundle != NULL && l->own_mounts)
            track_pin(l->bundle, *pid);
        return ok;
    }
    while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR)
        ;
    *pid = -1;
    return launch_outcome(&f, n, l->argv[0], err);
}

#undef LAUNCH_DEFAULT_PATH
