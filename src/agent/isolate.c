/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/isolate.h"

#include "agent/agent_settle.h"
#include "agent/cgroup.h"
#include "io/file.h"
#include "io/netns.h"
#include "io/userns.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* How the second start of the program knows what the first one did: bits, uid, gid, a descriptor, and what is missing. */
#define ISOLATE_VARIABLE "INTERLINK_CRI_ISOLATED"
enum {
    ISOLATE_USER = 1,
    ISOLATE_MOUNT = 2,
    ISOLATE_PID = 4,
    ISOLATE_IPC = 8,
    ISOLATE_UTS = 16,
    ISOLATE_SEALED = 32,
    ISOLATE_HOST_PID = 64,
    ISOLATE_HOST_IPC = 128,
    ISOLATE_HOST_UTS = 256,
    ISOLATE_NETWORK = 512,
};
/* What failed when the ranges of ids were refused. */
#define ISOLATE_STEP_MAP "map ids"
/* A machine with thousands of mounts. */
#define ISOLATE_MOUNTINFO_MAX (4u << 20)
/* How long processes that were killed may take to go. */
#define ISOLATE_REAP_MS 5000

/* What is known before the fork. */
struct isolate_plan {
    const struct isolate_options *options;
    unsigned bits;
    uid_t uid;
    gid_t gid;
    int host_mount_fd;
    bool ranges; /* the user namespace has more ids than the own one: those of map, written from outside */
    struct userns_map map;
    char exe[PATH_MAX]; /* where our binary is; "" when it has no name any more */
    sigset_t signals;   /* to be restored in the inner process */
    char missing[256];
};

/* What the inner process tells when it does not get as far as running the program again. */
struct isolate_failure {
    int number;    /* errno */
    char step[60]; /* what was tried */
};

static bool isolate_failed(struct isolate_failure *f, const char *step)
{
    f->number = errno;
    snprintf(f->step, sizeof f->step, "%s", step);
    return false;
}

/* ---- the inner process, before it runs the program again: single-threaded, made by clone(2), so system calls only ---- */

static bool isolate_write(const char *path, const char *text)
{
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* user_namespaces(7): without privilege one line that maps the own id, and setgroups(2) given up before the gid map. */
static bool isolate_map_ids(const struct isolate_plan *p, struct isolate_failure *f)
{
    char map[32];

    if (!isolate_write("/proc/self/setgroups", "deny") && errno != ENOENT)
        return isolate_failed(f, "write /proc/self/setgroups");
    snprintf(map, sizeof map, "0 %u 1", (unsigned)p->gid);
    if (!isolate_write("/proc/self/gid_map", map))
        return isolate_failed(f, "write /proc/self/gid_map");
    snprintf(map, sizeof map, "0 %u 1", (unsigned)p->uid);
    if (!isolate_write("/proc/self/uid_map", map))
        return isolate_failed(f, "write /proc/self/uid_map");
    return true;
}

/* Waits for the word from outside: the maps are written, or we write our own. False without one. */
static bool isolate_await_map(const struct isolate_plan *p, int go_fd, struct isolate_failure *f)
{
    char word = 'x';

    while (read(go_fd, &word, 1) < 0 && errno == EINTR)
        ;
    if (word != (p->ranges ? 'r' : 's'))
        _exit(1);
    return p->ranges || isolate_map_ids(p, f);
}

/* Diskless nodes run from the kernel's initial file system. A container's root cannot be pivoted into there (pivot_root(2):
 * the absolute root), so in our namespace the same tree is put over it and entered, as switch_root(8) does. */
static bool isolate_root(struct isolate_failure *f)
{
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;

    if (!file_read("/proc/self/mountinfo", ISOLATE_MOUNTINFO_MAX, &text, &ignored))
        return true;
    const char *line = strstr(buf_cstr(&text), " - rootfs ");
    if (line == NULL)
        return true;
    return (mount("/", "/tmp", NULL, MS_BIND | MS_REC, NULL) == 0 && chdir("/tmp") == 0 &&
            mount(".", "/", NULL, MS_MOVE, NULL) == 0 && chroot(".") == 0) ||
           isolate_failed(f, "put a root over the initial file system");
}

static bool isolate_mounts(const struct isolate_plan *p, struct isolate_failure *f)
{
    /* What the machine mounts later still appears here; what is mounted here does not appear there. */
    if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
        return isolate_failed(f, "make mounts private");
    if (!isolate_root(f))
        return false;
    if ((p->bits & ISOLATE_PID) != 0 && mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return isolate_failed(f, "mount /proc");
    return true;
}

/* A clone of the mount that holds our binary, read-only and visible to nobody (open_tree(2): Linux 5.2, mount_setattr(2):
 * 5.12). Opening /proc/PID/exe for writing then fails with EROFS. -1 when it cannot be had. */
static int isolate_seal_by_mount(const struct isolate_plan *p)
{
#if defined(SYS_open_tree) && defined(SYS_mount_setattr) && defined(OPEN_TREE_CLONE)
    struct stat named, running;
    struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID };

    if ((p->bits & ISOLATE_MOUNT) == 0 || p->exe[0] != '/')
        return -1;
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, p->exe, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd < 0)
        return -1;
    /* The file may have been replaced since we were started. */
    if (stat("/proc/self/exe", &running) == 0 && fstat(fd, &named) == 0 && running.st_dev == named.st_dev &&
        running.st_ino == named.st_ino && syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof attr) == 0)
        return fd;
    close(fd);
#else
    (void)p;
#endif
    return -1;
}

/* The same by a copy in memory that is sealed against writing (memfd_create(2): Linux 3.17). */
static int isolate_seal_by_copy(void)
{
    char chunk[65536];
    cleanup_close int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int fd = from < 0 ? -1 : (int)syscall(SYS_memfd_create, "interlink-cri", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ssize_t n = 1;

    while (fd >= 0 && (n = read(from, chunk, sizeof chunk)) > 0)
        if (write(fd, chunk, (size_t)n) != n)
            n = -1;
    if (fd >= 0 && (n < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool isolate_run_again(struct isolate_plan *p, struct isolate_failure *f)
{
    int fd = -1;
    char variable[sizeof p->missing + 96];
    size_t count = 0;

    /* Without a mount namespace there are no containers to be protected from. */
    if (p->bits & ISOLATE_MOUNT) {
        fd = isolate_seal_by_mount(p);
        if (fd < 0)
            fd = isolate_seal_by_copy();
        if (fd >= 0)
            p->bits |= ISOLATE_SEALED;
    }
    snprintf(variable, sizeof variable, ISOLATE_VARIABLE "=%u %u %u %d %s", p->bits, (unsigned)p->uid, (unsigned)p->gid,
             p->host_mount_fd, p->missing);
    while (environ[count] != NULL)
        count++;
    char **env = xcalloc(count + 2, sizeof *env);
    memcpy(env, environ, count * sizeof *env);
    env[count] = variable;
    if (p->host_mount_fd >= 0)
        fcntl(p->host_mount_fd, F_SETFD, 0);
    if (fd < 0)
        fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    sigprocmask(SIG_SETMASK, &p->signals, NULL);
    if (fd >= 0) {
        char name[32];
        syscall(SYS_execveat, fd, "", p->options->argv, env, AT_EMPTY_PATH);
        /* Some security modules look the program up as /dev/fd/N, which not every /dev has. */
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        execve(name, p->options->argv, env);
    }
    return isolate_failed(f, "run the program again");
}

/* Never returns. */
static void isolate_inner(struct isolate_plan *p, int failure_fd, int alive_fd, int go_fd)
{
    struct isolate_failure f;
    struct pollfd alive = { .fd = alive_fd };

    memset(&f, 0, sizeof f);
    /* The outer process may have ended before the request stood: then its end of this pipe is closed. */
    if (prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL) < 0 || (poll(&alive, 1, 0) == 1 && (alive.revents & (POLLHUP | POLLERR)) != 0))
        _exit(1);
    /* A session keyring of the pod's own (keyrings(7)): the job's stays out of its reach. Best effort. */
    syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
    bool ok = (p->bits & ISOLATE_USER) == 0 || isolate_await_map(p, go_fd, &f);
    ok = ok && ((p->bits & ISOLATE_MOUNT) == 0 || isolate_mounts(p, &f));
    if (ok)
        isolate_run_again(p, &f);
    ssize_t ignored UNUSED = write(failure_fd, &f, sizeof f);
    _exit(1);
}

/* ---- the outer process ---- */

/* Three pipes: what failed; that we live; the word to go on. */
static bool isolate_pipes(int pipes[3][2], struct isolate_failure *f)
{
    for (int i = 0; i < 3; i++)
        if (pipe2(pipes[i], O_CLOEXEC) < 0) {
            isolate_failed(f, "make a pipe");
            for (; i > 0; i--) {
                close(pipes[i - 1][0]);
                close(pipes[i - 1][1]);
            }
            return false;
        }
    return true;
}

/* Writes the maps of the inner process's user namespace, when they are ours to write, and lets it go on. False: they were refused,
 * and it ends. */
static bool isolate_release(struct isolate_plan *p, pid_t pid, int go_fd)
{
    struct status err = STATUS_INIT;
    char word = p->ranges ? 'r' : 's';

    if (p->ranges && !userns_write_map(pid, &p->map, &err)) {
        log_info("containers have one user id only: %s", err.message);
        return false;
    }
    return write(go_fd, &word, 1) == 1;
}

/* Starts the inner process with these bits; its pid once the program runs again in it, else -1 with the failure. */
static pid_t isolate_try_once(struct isolate_plan *p, unsigned bits, struct isolate_failure *f)
{
    int pipes[3][2];
    unsigned long flags = SIGCHLD;
    ssize_t n;

    p->bits = bits;
    flags |= bits & ISOLATE_USER ? CLONE_NEWUSER : 0;
    flags |= bits & ISOLATE_MOUNT ? CLONE_NEWNS : 0;
    flags |= bits & ISOLATE_PID ? CLONE_NEWPID : 0;
    flags |= bits & ISOLATE_IPC ? CLONE_NEWIPC : 0;
    flags |= bits & ISOLATE_UTS ? CLONE_NEWUTS : 0;
    memset(f, 0, sizeof *f);
    if (!isolate_pipes(pipes, f))
        return -1;
    int *failure = pipes[0], *alive = pipes[1], *go = pipes[2];
    /* clone(2) as fork: no stack of its own. The other arguments differ by architecture but are all zero. */
    pid_t pid = (pid_t)syscall(SYS_clone, flags, 0, 0, 0, 0);
    if (pid == 0) {
        close(failure[0]);
        close(alive[1]);
        close(go[1]);
        isolate_inner(p, failure[1], alive[0], go[0]);
    }
    if (pid < 0)
        isolate_failed(f, "make namespaces");
    bool mapped = pid > 0 && ((bits & ISOLATE_USER) == 0 || isolate_release(p, pid, go[1]));
    close(failure[1]);
    close(alive[0]);
    close(go[0]);
    close(go[1]);
    do
        n = pid < 0 ? 0 : read(failure[0], f, sizeof *f);
    while (n < 0 && errno == EINTR);
    close(failure[0]);
    close(alive[1]);
    if (pid > 0 && (n != 0 || !mapped)) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        pid = -1;
        if (!mapped)
            snprintf(f->step, sizeof f->step, "%s", ISOLATE_STEP_MAP);
    }
    return pid;
}

/* With the ranges if they are to be had, else with the own id only. */
static pid_t isolate_try(struct isolate_plan *p, unsigned bits, struct isolate_failure *f)
{
    pid_t pid = isolate_try_once(p, bits, f);

    if (pid > 0 || !p->ranges || strcmp(f->step, ISOLATE_STEP_MAP) != 0)
        return pid;
    p->ranges = false;
    return isolate_try_once(p, bits, f);
}

static void isolate_note(struct isolate_plan *p, const char *what, const struct isolate_failure *f)
{
    /* The two ways in which sites switch namespaces off (namespaces(7), user_namespaces(7)). */
    const char *hint = f->number == ENOSPC  ? " (a limit in /proc/sys/user/ is 0 or used up)"
                       : f->number == EPERM ? " (switched off on this machine, or for this job)"
                                            : "";
    snprintf(p->missing, sizeof p->missing, "%s: %s: %s%s", what, f->step, strerror(f->number), hint);
}

/* Which ids a user namespace of ours can have besides the own one: those that an ordinary user was given; of root without the
 * right to make other namespaces, all that it has itself. */
static void isolate_find_ranges(struct isolate_plan *p)
{
    struct status err = STATUS_INIT;
    struct userns_map own;

    if (p->uid != 0) {
        p->ranges = subid_map(p->uid, p->gid, &p->map, &err);
        if (!p->ranges)
            log_info("containers have one user id only: %s", err.message);
    } else if (userns_read_map("self", &own, &err)) {
        /* But for the last one, since a map of all ids is taken for the sign of no user namespace at all. */
        p->map.uids = (struct userns_ids){ .ranges = { { 0, 0, userns_ids_count(&own.uids) - 1 } }, .count = 1 };
        p->map.gids = (struct userns_ids){ .ranges = { { 0, 0, userns_ids_count(&own.gids) - 1 } }, .count = 1 };
        p->ranges = userns_ids_count(&own.uids) > 2 && userns_ids_count(&own.gids) > 2;
    }
}

/* Tries from everything downwards (isolate.h says in which order). */
static pid_t isolate_start(struct isolate_plan *p, struct isolate_failure *f)
{
    const struct isolate_options *o = p->options;
    unsigned asked = (o->host_pid ? ISOLATE_HOST_PID : 0u) | (o->host_ipc ? ISOLATE_HOST_IPC : 0u) |
                     (o->host_uts ? ISOLATE_HOST_UTS : 0u) | (*o->netns != '\0' ? ISOLATE_NETWORK : 0u);
    unsigned all = ISOLATE_MOUNT | (o->host_pid ? 0u : ISOLATE_PID) | (o->host_ipc ? 0u : ISOLATE_IPC) |
                   (o->host_uts ? 0u : ISOLATE_UTS);
    int host_mount_fd = p->host_mount_fd;

    if (o->none) {
        snprintf(p->missing, sizeof p->missing, "no namespaces were asked for");
        p->host_mount_fd = -1;
        return isolate_try(p, asked, f);
    }
    for (int without_pid = 0; without_pid <= (o->host_pid ? 0 : 1); without_pid++) {
        unsigned bits = without_pid ? all & ~(unsigned)ISOLATE_PID : all;
        for (int with_user = p->uid == 0 ? 0 : 1; with_user <= 1; with_user++) {
            /* From a user namespace of ours the machine's mount namespace cannot be entered. */
            p->host_mount_fd = with_user ? -1 : host_mount_fd;
            pid_t pid = isolate_try(p, asked | bits | (with_user ? ISOLATE_USER : 0), f);
            if (pid > 0)
                return pid;
        }
        isolate_note(p, without_pid || o->host_pid ? "namespaces" : "PID namespace", f);
    }
    return isolate_try(p, asked, f);
}

/* Kills what an inner process without a PID namespace left: its orphans are ours, for we are a subreaper. */
static void isolate_kill_orphans(void)
{
    int64_t deadline = clock_mono_ms() + ISOLATE_REAP_MS;
    char path[64];

    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    while (clock_mono_ms() < deadline) {
        struct buf text cleanup_buf = BUF_INIT;
        struct status ignored;
        pid_t pid;
        if (file_read(path, 1 << 16, &text, &ignored))
            for (const char *p = buf_cstr(&text); *p != '\0';) {
                char *end;
                long child = strtol(p, &end, 10);
                if (end == p)
                    break;
                kill((pid_t)child, SIGKILL);
                p = end + strspn(end, " ");
            }
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
            ;
        if (pid < 0 && errno == ECHILD)
            return;
        struct timespec pause = { 0, 2000000 };
        nanosleep(&pause, NULL);
    }
}

/* Waits for the inner process and ends as it did. */
static void isolate_outer(pid_t inner, void (*after)(void))
{
    sigset_t waited;
    int wait_status = 0;

    sigemptyset(&waited);
    sigaddset(&waited, SIGCHLD);
    sigaddset(&waited, SIGTERM);
    sigaddset(&waited, SIGINT);
    agent_settle_now();
    for (bool running = true; running;) {
        siginfo_t info;
        int signal = sigwaitinfo(&waited, &info);
        pid_t pid;
        if (signal == SIGTERM || signal == SIGINT)
            kill(inner, signal);
        while (running && (pid = waitpid(-1, &wait_status, WNOHANG)) > 0)
            running = pid != inner;
    }
    isolate_kill_orphans();
    if (after != NULL)
        after();
    _exit(WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status));
}

/* ---- both ---- */

/* How many ids there are here. */
static void isolate_count_ids(struct isolation *out)
{
    struct userns_map map;
    struct status ignored;

    out->uids = out->gids = 1;
    if (userns_read_map("self", &map, &ignored)) {
        out->uids = userns_ids_count(&map.uids);
        out->gids = userns_ids_count(&map.gids);
    }
}

/* Reads what the first start left in the environment. */
static bool isolate_parse(const char *text, struct isolation *out, struct status *err)
{
    unsigned bits, uid, gid;
    int fd, used = 0;

    if (sscanf(text, "%u %u %u %d %n", &bits, &uid, &gid, &fd, &used) != 4)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the variable " ISOLATE_VARIABLE " is reserved: unset it");
    *out = (struct isolation){ .user = bits & ISOLATE_USER,
                               .mount = bits & ISOLATE_MOUNT,
                               .pid = bits & ISOLATE_PID,
                               .ipc = bits & ISOLATE_IPC,
                               .uts = bits & ISOLATE_UTS,
                               .network = bits & ISOLATE_NETWORK,
                               .sealed = bits & ISOLATE_SEALED,
                               .host_pid = bits & ISOLATE_HOST_PID,
                               .host_ipc = bits & ISOLATE_HOST_IPC,
                               .host_uts = bits & ISOLATE_HOST_UTS,
                               .uid = uid,
                               .gid = gid,
                               .host_mount_fd = fd };
    snprintf(out->missing, sizeof out->missing, "%s", text + used);
    isolate_count_ids(out);
    if (fd >= 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        out->host_mount_fd = -1;
    return true;
}

bool isolate_enter(const struct isolate_options *options, struct isolation *out, struct status *err)
{
    const char *done = getenv(ISOLATE_VARIABLE);
    struct isolate_failure failure;
    struct isolate_plan plan = { .options = options, .uid = geteuid(), .gid = getegid(), .host_mount_fd = -1 };
    sigset_t all;

    if (done != NULL) {
        bool ok = isolate_parse(done, out, err);
        unsetenv(ISOLATE_VARIABLE);
        /* A program run from a descriptor is named after its number. */
        prctl(PR_SET_NAME, "interlink-cri");
        if (ok && !out->pid && prctl(PR_SET_CHILD_SUBREAPER, 1L) < 0)
            return status_errno(err, "cannot become a subreaper");
        return ok;
    }
    /* Never in the machine's network instead. */
    if (*options->netns != '\0' && !netns_enter(options->netns, err))
        return false;
    ssize_t n = readlink("/proc/self/exe", plan.exe, sizeof plan.exe - 1);
    plan.exe[n > 0 ? n : 0] = '\0';
    if (plan.uid == 0)
        plan.host_mount_fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    else
        cgroup_delegate();
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &plan.signals);
    prctl(PR_SET_CHILD_SUBREAPER, 1L);
    isolate_find_ranges(&plan);
    pid_t inner = isolate_start(&plan, &failure);
    if (inner < 0) {
        sigprocmask(SIG_SETMASK, &plan.signals, NULL);
        errno = failure.number;
        return status_errno(err, "cannot start the agent: %s", failure.step);
    }
    isolate_outer(inner, options->after);
    return false;
}

#undef ISOLATE_VARIABLE
#undef ISOLATE_STEP_MAP
#undef ISOLATE_MOUNTINFO_MAX
#undef ISOLATE_REAP_MS
