/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/proc_stats.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

/* stat, statm, smaps_rollup and limits have 1 to 2 KiB at most. */
#define PROC_STATS_TEXT_MAX 8192

static bool proc_stats_read(const char *proc, pid_t pid, const char *name, char text[PROC_STATS_TEXT_MAX])
{
    cleanup_free char *path = xasprintf("%s/%d/%s", proc, (int)pid, name);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t n = 0;
    ssize_t got;

    while (fd >= 0 && n < PROC_STATS_TEXT_MAX - 1 && (got = read(fd, text + n, PROC_STATS_TEXT_MAX - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    return n > 0;
}

/* ---- one process ---- */

static bool proc_stats_parse(const char *text, struct proc_process *out, uint64_t *threads)
{
    /* The name in parentheses may hold anything, a parenthesis too. */
    const char *rest = strrchr(text, ')');
    uint64_t fault[4], time[4];
    int parent;

    if (rest == NULL ||
        sscanf(rest + 1,
               " %*c %d %*d %*d %*d %*d %*u %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
               " %" SCNu64 " %*d %*d %" SCNu64 " %*d %" SCNu64,
               &parent, &fault[0], &fault[1], &fault[2], &fault[3], &time[0], &time[1], &time[2], &time[3], threads,
               &out->started) != 11)
        return false;
    uint64_t tick = 1000000000ull / (uint64_t)sysconf(_SC_CLK_TCK);
    out->parent = parent;
    out->faults = fault[0] + fault[1];
    out->major_faults = fault[2] + fault[3];
    out->user = (time[0] + time[2]) * tick;
    out->system = (time[1] + time[3]) * tick;
    return true;
}

/* Memory that several processes share is divided among them (PSS), so that a sum counts it once. */
static void proc_stats_add_memory(const char *proc, pid_t pid, struct usage *u)
{
    char text[PROC_STATS_TEXT_MAX];
    uint64_t pss = USAGE_UNKNOWN, anonymous = USAGE_UNKNOWN, pss_anonymous = USAGE_UNKNOWN, swap = 0, resident, shared;
    const struct usage_name names[] = { { "Pss:", &pss }, { "Anonymous:", &anonymous }, { "Pss_Anon:", &pss_anonymous },
                                        { "SwapPss:", &swap } };

    if (proc_stats_read(proc, pid, "smaps_rollup", text)) {
        usage_read_names(text, names, COUNT_OF(names));
        if (pss != USAGE_UNKNOWN && anonymous != USAGE_UNKNOWN) {
            u->memory += pss * 1024;
            u->rss += (pss_anonymous != USAGE_UNKNOWN ? pss_anonymous : anonymous) * 1024;
            u->swap += swap != USAGE_UNKNOWN ? swap * 1024 : 0;
            return;
        }
    }
    /* Not for us to see, or older than Linux 4.14. */
    if (proc_stats_read(proc, pid, "statm", text) && sscanf(text, "%*u %" SCNu64 " %" SCNu64, &resident, &shared) == 2) {
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        u->memory += resident * page;
        u->rss += usage_less(resident, shared) * page;
    }
}

/* ---- the account ---- */

void proc_account_free(struct proc_account *account)
{
    free(account->processes);
    *account = (struct proc_account){ 0 };
}

static int proc_stats_by_pid(const void *a, const void *b)
{
    const struct proc_process *left = a, *right = b;

    return left->pid < right->pid ? -1 : left->pid > right->pid;
}

static struct proc_process *proc_stats_find(struct proc_process *processes, size_t count, pid_t pid)
{
    struct proc_process key = { .pid = pid };

    return count > 0 ? bsearch(&key, processes, count, sizeof key, proc_stats_by_pid) : NULL;
}

static void proc_stats_sum(struct proc_process *sum, const struct proc_process *part)
{
    sum->user += part->user;
    sum->system += part->system;
    sum->faults += part->faults;
    sum->major_faults += part->major_faults;
}

/* Whether what a process used that is gone is counted by one that lives: the nearest of its forebears, or init, has waited for
 * it. (One that ignores SIGCHLD has not; its children's time is lost.) */
static bool proc_stats_inherited(const struct proc_account *old, struct proc_process *now, size_t count, pid_t init,
                                 const struct proc_process *gone)
{
    pid_t parent = gone->parent;

    for (size_t depth = 0; depth < old->count; depth++) {
        const struct proc_process *was = proc_stats_find(old->processes, old->count, parent);
        const struct proc_process *is = proc_stats_find(now, count, parent);
        if (was == NULL)
            break; /* not of this container, as the agent */
        if (is != NULL && is->started == was->started)
            return true;
        parent = was->parent;
    }
    return init != 0 && proc_stats_find(now, count, init) != NULL && gone->pid != init &&
           proc_stats_find(old->processes, old->count, gone->parent) != NULL;
}

static void proc_stats_settle(struct proc_account *account, struct proc_process *now, size_t count, pid_t init)
{
    for (size_t i = 0; i < account->count; i++) {
        const struct proc_process *was = &account->processes[i];
        const struct proc_process *is = proc_stats_find(now, count, was->pid);
        if (is != NULL && is->started == was->started)
            continue;
        if (!proc_stats_inherited(account, now, count, init, was))
            proc_stats_sum(&account->gone, was);
    }
    free(account->processes);
    account->processes = now;
    account->count = count;
}

/* A process that waited for another and ended, all since the last look, took more with it than was known of it: sums stay
 * where they were, and what is used from now on counts. */
static void proc_stats_hold(struct proc_account *account, struct proc_process *sum)
{
    uint64_t *const now[] = { &sum->user, &sum->system, &sum->faults, &sum->major_faults };
    const uint64_t before[] = { account->sum.user, account->sum.system, account->sum.faults, account->sum.major_faults };
    uint64_t *const gone[] = { &account->gone.user, &account->gone.system, &account->gone.faults, &account->gone.major_faults };

    for (size_t i = 0; i < COUNT_OF(now); i++) {
        if (*now[i] >= before[i])
            continue;
        *gone[i] += before[i] - *now[i];
        *now[i] = before[i];
    }
    account->sum = *sum;
}

void proc_usage(const char *proc, const pid_t *pids, size_t count, pid_t init, struct proc_account *account, struct usage *u)
{
    struct proc_process *now = xcalloc(count + 1, sizeof *now), sum = { 0 };
    char text[PROC_STATS_TEXT_MAX];
    size_t n = 0;

    u->memory = u->rss = u->swap = u->threads = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t threads;
        if (!proc_stats_read(proc, pids[i], "stat", text) || !proc_stats_parse(text, &now[n], &threads))
            continue;
        now[n++].pid = pids[i];
        u->threads += threads;
        proc_stats_add_memory(proc, pids[i], u);
    }
    qsort(now, n, sizeof *now, proc_stats_by_pid);
    proc_stats_settle(account, now, n, init);
    proc_stats_sum(&sum, &account->gone);
    for (size_t i = 0; i < n; i++)
        proc_stats_sum(&sum, &now[i]);
    proc_stats_hold(account, &sum);
    u->cpu_user = sum.user;
    u->cpu_system = sum.system;
    u->cpu = sum.user + sum.system;
    u->faults = sum.faults;
    u->major_faults = sum.major_faults;
    /* File pages here are mapped ones, which do not go first. */
    u->working_set = u->memory;
    u->processes = n;
}

/* ---- open files ---- */

static void proc_stats_count_files(const char *proc, pid_t pid, struct usage *u)
{
    cleanup_free char *path = xasprintf("%s/%d/fd", proc, (int)pid);
    DIR *dir = opendir(path);
    struct dirent *entry;
    char target[16];

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof target);
        u->files++;
        u->sockets += n >= 8 && memcmp(target, "socket:[", 8) == 0;
    }
    if (dir != NULL)
        closedir(dir);
}

/* "Max open files            1024                 1048576              files"; "unlimited" stays unknown. */
static uint64_t proc_stats_files_limit(const char *proc, pid_t pid)
{
    char text[PROC_STATS_TEXT_MAX];
    static const char name[] = "Max open files ";

    if (!proc_stats_read(proc, pid, "limits", text))
        return USAGE_UNKNOWN;
    const char *line = strstr(text, name);
    return line != NULL ? usage_number(line + strlen(name) + strspn(line + strlen(name), " ")) : USAGE_UNKNOWN;
}

static uint64_t proc_stats_threads(const char *proc, pid_t pid)
{
    char text[PROC_STATS_TEXT_MAX];
    struct proc_process ignored;
    uint64_t threads;

    return proc_stats_read(proc, pid, "stat", text) && proc_stats_parse(text, &ignored, &threads) ? threads : 0;
}

void proc_open_files(const char *proc, const pid_t *pids, size_t count, pid_t init, struct usage *u)
{
    bool count_threads = u->threads == USAGE_UNKNOWN;

    u->files = u->sockets = 0;
    if (count_threads)
        u->threads = 0;
    for (size_t i = 0; i < count; i++) {
        proc_stats_count_files(proc, pids[i], u);
        if (count_threads)
            u->threads += proc_stats_threads(proc, pids[i]);
    }
    if (u->processes == USAGE_UNKNOWN)
        u->processes = count;
    u->files_limit = proc_stats_files_limit(proc, init);
}

#undef PROC_STATS_TEXT_MAX
