/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_kill.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

/* One process of the machine as /proc shows it (proc_pid_stat(5)). */
struct agent_kill_process {
    pid_t pid, parent, group, session;
    char state;
    uint64_t started; /* with the pid this names a process for good */
    bool member;
};

struct agent_kill_table {
    struct agent_kill_process *processes; /* owned */
    size_t count, capacity;
};

static bool agent_kill_read_stat(pid_t pid, struct agent_kill_process *out)
{
    char path[32], text[1024];

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    /* The name in parentheses may hold anything, a parenthesis too. */
    const char *rest = strrchr(text, ')');
    *out = (struct agent_kill_process){ .pid = pid };
    return rest != NULL &&
           sscanf(rest + 1, " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64, &out->state,
                  &out->parent, &out->group, &out->session, &out->started) == 5;
}

static void agent_kill_add(struct agent_kill_table *t, const struct agent_kill_process *process)
{
    if (t->count == t->capacity) {
        t->capacity = t->capacity > 0 ? t->capacity * 2 : 64;
        t->processes = xrealloc(t->processes, t->capacity * sizeof *t->processes);
    }
    t->processes[t->count++] = *process;
}

static void agent_kill_read_all(struct agent_kill_table *t)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    struct agent_kill_process process;
    uint64_t pid;

    t->count = 0;
    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        if (parse_u64(entry->d_name, INT32_MAX, &pid) && (pid_t)pid != getpid() &&
            agent_kill_read_stat((pid_t)pid, &process))
            agent_kill_add(t, &process);
    }
    closedir(dir);
}

/* Whether the process has one of the pipes as standard input, output or error. */
static bool agent_kill_holds_pipe(const struct agent_kill *k, pid_t pid)
{
    char path[32], target[64];
    unsigned long long inode;

    for (int fd = 0; fd < 3; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
        ssize_t n = readlink(path, target, sizeof target - 1);
        if (n <= 0)
            continue;
        target[n] = '\0';
        if (sscanf(target, "pipe:[%llu]", &inode) != 1)
            continue;
        for (size_t i = 0; i < COUNT_OF(k->pipes); i++)
            if (k->pipes[i] != 0 && k->pipes[i] == inode)
                return true;
    }
    return false;
}

/* The table is in the order of /proc, by number. */
static struct agent_kill_process *agent_kill_find(const struct agent_kill_table *t, pid_t pid)
{
    size_t low = 0, high = t->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->processes[middle].pid == pid)
            return &t->processes[middle];
        if (t->processes[middle].pid < pid)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* Marks who belongs to the root. The agent (our parent) never does, nor do we. */
static void agent_kill_mark(const struct agent_kill *k, struct agent_kill_table *t)
{
    pid_t agent = getppid();
    bool grown = true;

    for (size_t i = 0; i < t->count; i++) {
        struct agent_kill_process *p = &t->processes[i];
        if (p->pid != agent)
            p->member = p->pid == k->root || p->group == k->root || p->session == k->root ||
                        agent_kill_holds_pipe(k, p->pid);
    }
    while (grown) {
        grown = false;
        for (size_t i = 0; i < t->count; i++) {
            struct agent_kill_process *p = &t->processes[i], *parent;
            if (p->member || p->pid == agent)
                continue;
            parent = agent_kill_find(t, p->parent);
            if (parent != NULL && parent->member)
                grown = p->member = true;
        }
    }
}

static bool agent_kill_is_over(const struct agent_kill_process *p)
{
    return p->state == 'Z' || p->state == 'X';
}

/* One look at /proc: stops the members that run and are not stopped yet; how many those were. All members are added to
 * `victims`. */
static size_t agent_kill_stop_members(const struct agent_kill *k, struct agent_kill_table *t,
                                      struct agent_kill_table *victims)
{
    size_t stopped = 0;

    agent_kill_read_all(t);
    agent_kill_mark(k, t);
    for (size_t i = 0; i < t->count; i++) {
        struct agent_kill_process *p = &t->processes[i];
        bool known = false;
        for (size_t j = 0; j < victims->count && !known; j++)
            known = victims->processes[j].pid == p->pid && victims->processes[j].started == p->started;
        if (!p->member || known || agent_kill_is_over(p))
            continue;
        kill(p->pid, SIGSTOP);
        agent_kill_add(victims, p);
        stopped++;
    }
    return stopped;
}

static bool agent_kill_gone(const struct agent_kill_process *victim)
{
    struct agent_kill_process now;

    return !agent_kill_read_stat(victim->pid, &now) || now.started != victim->started || agent_kill_is_over(&now);
}

bool agent_kill_all(const struct agent_kill *k, struct status *err)
{
    struct agent_kill_table table = { 0 }, victims = { 0 };
    int64_t deadline = clock_mono_ms() + AGENT_KILL_MS;
    size_t left = 1;

    while (left > 0 && clock_mono_ms() < deadline) {
        /* A stopped process has no more children, so this comes to an end. */
        while (agent_kill_stop_members(k, &table, &victims) > 0 && clock_mono_ms() < deadline)
            ;
        for (size_t i = 0; i < victims.count; i++)
            kill(victims.processes[i].pid, SIGKILL);
        for (;;) {
            left = 0;
            for (size_t i = 0; i < victims.count; i++)
                left += !agent_kill_gone(&victims.processes[i]);
            if (left == 0 || clock_mono_ms() >= deadline)
                break;
            nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        }
        victims.count = 0;
        /* Once more, until nothing new is found: signals reach a process that was just being made a little late. */
        left += agent_kill_stop_members(k, &table, &victims);
    }
    free(table.processes);
    free(victims.processes);
    return left == 0 || status_set(err, STATUS_DEADLINE_EXCEEDED,
                                   "%zu processes that came of process %d are still there %d ms after SIGKILL", left,
                                   k->root, AGENT_KILL_MS);
}
