/* SPDX-License-Identifier: Apache-2.0 */
/* proc_stats.h: what processes use, as /proc tells of each of them (proc_pid_stat(5), proc_pid_smaps(5)): for jobs without
 * control groups, and for open files, which groups do not count. All of it is for workers (io/child.h): the kernel walks the
 * page tables of large processes for it, and may wait for one that is stuck.
 *
 * `proc` is "/proc", but for tests. A process that is gone by the time it is looked at counts for nothing. */
#ifndef AGENT_PROC_STATS_H
#define AGENT_PROC_STATS_H

#include "agent/usage.h"

/* One process and the children that it has waited for. */
struct proc_process {
    pid_t pid, parent;
    uint64_t started; /* in clock ticks; with the pid this names a process for good */
    uint64_t user, system; /* ns */
    uint64_t faults, major_faults;
};

/* The processes of a container when they were last looked at, and what those used that are gone without anybody in the
 * container having waited for them. All zero: never. */
struct proc_account {
    struct proc_process *processes; /* owned; by pid */
    size_t count;
    struct proc_process gone, sum; /* only their figures; sum: of all */
};
void proc_account_free(struct proc_account *account);

/* Memory and CPU time of the processes `pids`: replaces those in the account and adds to `u`. `init`: the container's first
 * process when it reaps what loses its parent (PID 1 of its namespace), else 0. What is gone is counted as far as it was
 * ever looked at: so the sums never fall. */
void proc_usage(const char *proc, const pid_t *pids, size_t count, pid_t init, struct proc_account *account, struct usage *u);
/* Counts open files and sockets, and threads and processes when `u` does not know them yet; the limit is init's. */
void proc_open_files(const char *proc, const pid_t *pids, size_t count, pid_t init, struct usage *u);

#endif
