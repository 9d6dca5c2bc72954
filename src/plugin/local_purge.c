/* SPDX-License-Identifier: Apache-2.0 */
/* local_purge.c: makes sure that nothing of a job is left: processes, cgroups, mounts, folder. Runs in a worker.
 *
 * An agent that could make namespaces takes all of its pod with it when it ends. What this is for is the rest: an agent
 * that was killed where no namespaces could be had, programs that left its session, cgroups and mounts of the machine.
 * A process belongs to a job when it
 *   - descends from the job's process, or is in its session, while that process is there;
 *   - has INTERLINK_JOB_DIR=<the job's folder> in its environment;
 *   - lives in a root filesystem that comes from the job's folder;
 *   - is in one of the cgroups that the job's file `cgroups` names. */
#include "plugin/local.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "io/file.h"
#include "io/userns.h"

/* Rounds of looking and killing, with pauses that grow to PURGE_PAUSE_MS: about 2.5 s in all. */
#define PURGE_ROUNDS 60
#define PURGE_PAUSE_MS 50
/* Of one process's environment or mount table; longer ones are looked at up to here. */
#define PURGE_TEXT_MAX (1u << 20)
/* linux/magic.h */
#define PURGE_CGROUP_MAGIC 0x27e0ebUL
#define PURGE_CGROUP2_MAGIC 0x63677270UL

static void purge_pause(int round)
{
    int ms = round < PURGE_PAUSE_MS ? 1 + round : PURGE_PAUSE_MS;
    struct timespec t = { 0, ms * 1000000L };

    nanosleep(&t, NULL);
}

/* ---- processes ---- */

struct purge_process {
    pid_t pid, parent, session;
    uint64_t start_ticks;
    size_t owner; /* index of its job; SIZE_MAX: none */
};

struct purge_scan {
    struct purge_process *processes; /* owned */
    size_t count, room;
};

/* Field 4 is the parent, 6 the session, 22 the start (proc(5)). False for kernel threads, zombies and what is gone. */
static bool purge_read_stat(pid_t pid, struct purge_process *out)
{
    char path[64], text[1024], state;
    int parent, session;
    uint64_t start_ticks;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (n <= 0)
        return false;
    text[n] = '\0';
    const char *p = strrchr(text, ')');
    if (p == NULL ||
        sscanf(p + 1,
               " %c %d %*d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64,
               &state, &parent, &session, &start_ticks) != 4 ||
        state == 'Z' || state == 'X' || pid == 2 || parent == 2)
        return false;
    *out = (struct purge_process){ pid, parent, session, start_ticks, SIZE_MAX };
    return true;
}

static void purge_list_processes(struct purge_scan *scan)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    uint64_t pid;

    scan->count = 0;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (!parse_u64(entry->d_name, INT32_MAX, &pid) || pid <= 1 || (pid_t)pid == getpid() || (pid_t)pid == getppid())
            continue;
        if (scan->count == scan->room) {
            scan->room = scan->room * 2 + 256;
            scan->processes = xrealloc(scan->processes, scan->room * sizeof *scan->processes);
        }
        if (purge_read_stat((pid_t)pid, &scan->processes[scan->count]))
            scan->count++;
    }
    if (dir != NULL)
        closedir(dir);
}

/* The uid of a job whose folder is named at `p`: "<jobs_dir>/UID" followed by `end`. */
static size_t purge_owner_of_path(const struct local_purge *work, const char *p, size_t n, const char *ends)
{
    size_t prefix = strlen(work->jobs_dir);

    if (n <= prefix + 1 || memcmp(p, work->jobs_dir, prefix) != 0 || p[prefix] != '/')
        return SIZE_MAX;
    p += prefix + 1;
    n -= prefix + 1;
    for (size_t i = 0; i < work->count; i++) {
        size_t length = strlen(work->items[i].uid);
        if (n >= length && memcmp(p, work->items[i].uid, length) == 0 &&
            (n == length || strchr(ends, p[length]) != NULL))
            return i;
    }
    return SIZE_MAX;
}

static size_t purge_owner_by_environment(const struct local_purge *work, pid_t pid)
{
    static const char name[] = "INTERLINK_JOB_DIR=";
    char path[64];
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;

    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    if (!file_read(path, PURGE_TEXT_MAX, &text, &ignored))
        return SIZE_MAX;
    for (size_t at = 0; at < text.n;) {
        const char *entry = (const char *)text.p + at;
        size_t n = strnlen(entry, text.n - at);
        if (n >= sizeof name && memcmp(entry, name, sizeof name - 1) == 0)
            return purge_owner_of_path(work, entry + sizeof name - 1, n - (sizeof name - 1), "");
        at += n + 1;
    }
    return SIZE_MAX;
}

static bool purge_shares_mounts(pid_t pid)
{
    char path[64], theirs[64], ours[64];

    snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)pid);
    ssize_t n = readlink(path, theirs, sizeof theirs), m = readlink("/proc/self/ns/mnt", ours, sizeof ours);
    return n < 0 || m < 0 || (n == m && memcmp(theirs, ours, (size_t)n) == 0);
}

/* Only the mount at "/" counts: any process that makes a mount namespace has copies of all the others in it. */
static size_t purge_owner_by_root(const struct local_purge *work, pid_t pid)
{
    char path[64];
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;
    char *rest = NULL;

    if (purge_shares_mounts(pid))
        return SIZE_MAX;
    snprintf(path, sizeof path, "/proc/%d/mountinfo", (int)pid);
    if (!file_read(path, PURGE_TEXT_MAX, &text, &ignored))
        return SIZE_MAX;
    buf_append_byte(&text, '\0');
    for (char *line = strtok_r((char *)text.p, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        char root[4096], point[4096];
        if (sscanf(line, "%*d %*d %*s %4095s %4095s", root, point) != 2 || strcmp(point, "/") != 0)
            continue;
        for (const char *p = strchr(line, '/'); p != NULL; p = strchr(p + 1, '/')) {
            size_t owner = purge_owner_of_path(work, p, strlen(p), "/, :\n");
            if (owner != SIZE_MAX)
                return owner;
        }
    }
    return SIZE_MAX;
}

/* The job's own process and its session, unless that pid is another process by now. */
static size_t purge_owner_by_pid(const struct local_purge *work, const struct purge_process *p)
{
    for (size_t i = 0; i < work->count; i++) {
        const struct local_process *root = &work->items[i].process;
        if (root->pid > 1 && p->pid == root->pid && p->start_ticks == root->start_ticks)
            return i;
    }
    return SIZE_MAX;
}

static struct purge_process *purge_find(struct purge_scan *scan, pid_t pid)
{
    for (size_t i = 0; i < scan->count; i++)
        if (scan->processes[i].pid == pid)
            return &scan->processes[i];
    return NULL;
}

/* Nothing of these jobs is older than this; 0 when that is not known. */
static uint64_t purge_oldest(const struct local_purge *work)
{
    uint64_t oldest = UINT64_MAX;

    for (size_t i = 0; i < work->count; i++)
        if (work->items[i].process.start_ticks < oldest)
            oldest = work->items[i].process.start_ticks;
    return oldest;
}

/* Gives each process its owner. Returns how many have one. */
static size_t purge_assign(const struct local_purge *work, struct purge_scan *scan)
{
    size_t owned = 0;
    bool changed = true;
    uint64_t oldest = purge_oldest(work);

    for (size_t i = 0; i < scan->count; i++) {
        struct purge_process *p = &scan->processes[i];
        if (p->start_ticks < oldest)
            continue;
        p->owner = purge_owner_by_pid(work, p);
        if (p->owner == SIZE_MAX)
            p->owner = purge_owner_by_environment(work, p->pid);
        if (p->owner == SIZE_MAX)
            p->owner = purge_owner_by_root(work, p->pid);
        owned += p->owner != SIZE_MAX;
    }
    /* Children and session members of those, until no more are found. */
    while (changed && owned > 0) {
        changed = false;
        for (size_t i = 0; i < scan->count; i++) {
            struct purge_process *p = &scan->processes[i];
            if (p->owner != SIZE_MAX || p->start_ticks < oldest)
                continue;
            struct purge_process *parent = purge_find(scan, p->parent), *leader = purge_find(scan, p->session);
            if (parent != NULL && parent->owner != SIZE_MAX)
                p->owner = parent->owner;
            else if (leader != NULL && leader->owner != SIZE_MAX)
                p->owner = leader->owner;
            if (p->owner != SIZE_MAX) {
                owned++;
                changed = true;
            }
        }
    }
    return owned;
}

/* Through a pidfd, so that a pid that is used again meanwhile is not hit (Linux 5.3; without it, the moment is short). */
static void purge_kill(const struct purge_process *p)
{
    int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    uint64_t ticks;

    if (!local_process_start_ticks(p->pid, &ticks) || ticks != p->start_ticks) {
        if (fd >= 0)
            close(fd);
        return;
    }
    if (fd < 0) {
        kill(p->pid, SIGKILL);
        return;
    }
    syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
    close(fd);
}

static bool purge_processes(const struct local_purge *work)
{
    struct purge_scan scan = { NULL, 0, 0 };
    bool clean = false;

    for (int round = 0; round < PURGE_ROUNDS && !clean; round++) {
        if (round > 0)
            purge_pause(round);
        purge_list_processes(&scan);
        clean = purge_assign(work, &scan) == 0;
        for (size_t i = 0; i < scan.count; i++)
            if (scan.processes[i].owner != SIZE_MAX)
                purge_kill(&scan.processes[i]);
    }
    free(scan.processes);
    return clean;
}

/* ---- cgroups ---- */

static void purge_write(const char *folder, const char *name, const char *text)
{
    cleanup_free char *path = xasprintf("%s/%s", folder, name);
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t ignored UNUSED = fd >= 0 ? write(fd, text, strlen(text)) : 0;
}

static void purge_kill_members(const char *folder)
{
    cleanup_free char *path = xasprintf("%s/cgroup.procs", folder);
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;
    char *rest = NULL;
    uint64_t pid;

    if (!file_read(path, PURGE_TEXT_MAX, &text, &ignored))
        return;
    buf_append_byte(&text, '\0');
    for (char *line = strtok_r((char *)text.p, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
        if (parse_u64(line, INT32_MAX, &pid) && pid > 1 && (pid_t)pid != getpid() && (pid_t)pid != getppid())
            kill((pid_t)pid, SIGKILL);
}

/* Kills and removes a cgroup and those below it. The files in it are no obstacle to rmdir(2). */
static bool purge_cgroup(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;

    if (dir == NULL)
        return errno == ENOENT;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        cleanup_free char *below = xasprintf("%s/%s", folder, entry->d_name);
        purge_cgroup(below);
    }
    closedir(dir);
    for (int round = 0; round < PURGE_ROUNDS; round++) {
        if (rmdir(folder) == 0 || errno == ENOENT)
            return true;
        purge_write(folder, "cgroup.kill", "1"); /* v2, Linux 5.14 */
        purge_kill_members(folder);
        purge_write(folder, "cgroup.freeze", "0");
        purge_write(folder, "freezer.state", "THAWED"); /* v1: a frozen process does not die */
        purge_pause(round);
    }
    return false;
}

/* Whether it is a folder below the root of a cgroup file system: never a root itself, whatever the file says. */
static bool purge_is_cgroup(const char *folder)
{
    struct statfs fs;
    struct stat st, above;
    cleanup_free char *parent = xasprintf("%s/..", folder);

    return folder[0] == '/' && strstr(folder, "/..") == NULL && strlen(folder) < PATH_MAX && statfs(folder, &fs) == 0 &&
           ((unsigned long)fs.f_type == PURGE_CGROUP_MAGIC || (unsigned long)fs.f_type == PURGE_CGROUP2_MAGIC) &&
           stat(folder, &st) == 0 && stat(parent, &above) == 0 && st.st_dev == above.st_dev;
}

/* The agent's pods share one folder of ours; the last one to go takes it along. */
static void purge_cgroup_parent(char *folder)
{
    char *slash = strrchr(folder, '/');

    *slash = '\0';
    if (str_ends(folder, "/interlink-cri"))
        rmdir(folder);
}

/* The folders that the agent wrote down before it made them, the last first. */
static bool purge_cgroups(const char *job_dir)
{
    cleanup_free char *path = xasprintf("%s/cgroups", job_dir);
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;
    bool clean = true;

    if (!file_read(path, PURGE_TEXT_MAX, &text, &ignored))
        return true;
    char *all = (char *)(uintptr_t)buf_cstr(&text);
    while (all[0] != '\0') {
        char *line = strrchr(all, '\n');
        char *folder = line != NULL ? line + 1 : all;
        if (purge_is_cgroup(folder)) {
            clean = purge_cgroup(folder) && clean;
            purge_cgroup_parent(folder);
        }
        if (line == NULL)
            break;
        *line = '\0';
    }
    return clean;
}

/* ---- mounts and folder ---- */

/* mountinfo writes blanks and the like as \ooo. */
static void purge_unescape(char *s)
{
    char *to = s;

    for (const char *p = s; *p != '\0'; to++) {
        if (p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' && p[3] >= '0' && p[3] <= '7') {
            *to = (char)((p[1] - '0') * 64 + (p[2] - '0') * 8 + (p[3] - '0'));
            p += 4;
        } else {
            *to = *p++;
        }
    }
    *to = '\0';
}

static bool purge_mounts(const char *job_dir)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;
    size_t n = strlen(job_dir);
    bool clean = true;

    if (!file_read("/proc/self/mountinfo", 16 * PURGE_TEXT_MAX, &text, &ignored))
        return true;
    /* From the last to the first: what lies on top was mounted later. */
    char *all = (char *)(uintptr_t)buf_cstr(&text);
    while (all[0] != '\0') {
        char point[4096], *line = strrchr(all, '\n');
        if (sscanf(line != NULL ? line + 1 : all, "%*d %*d %*s %*s %4095s", point) == 1) {
            purge_unescape(point);
            if (strncmp(point, job_dir, n) == 0 && (point[n] == '/' || point[n] == '\0') &&
                umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
                clean = false;
        }
        if (line == NULL)
            break;
        *line = '\0';
    }
    return clean;
}

bool local_purge_run(void *work_arg, struct buf *output, struct status *err)
{
    const struct local_purge *work = work_arg;

    (void)err;
    bool dead = purge_processes(work);
    for (size_t i = 0; i < work->count; i++) {
        cleanup_free char *dir = xasprintf("%s/%s", work->jobs_dir, work->items[i].uid);
        struct status reason = STATUS_INIT;
        bool clean = purge_cgroups(dir) && dead;
        clean = purge_mounts(dir) && clean;
        if (clean && work->items[i].remove && !subid_tree_remove(dir, &reason)) {
            log_warn("local backend: %s", reason.message);
            clean = false;
        }
        buf_append_byte(output, clean ? 'y' : 'n');
    }
    return true;
}

#undef PURGE_ROUNDS
#undef PURGE_PAUSE_MS
#undef PURGE_TEXT_MAX
#undef PURGE_CGROUP_MAGIC
#undef PURGE_CGROUP2_MAGIC
