/* SPDX-License-Identifier: Apache-2.0 */
/* local.h: what the files of the `local` backend share with each other and with nobody else.
 *
 *   local.c         the backend's table; a job's life
 *   local_start.c   from a create request to a running agent: folder, environment, exec
 *   local_record.c  what is kept on disk, and what an earlier life left there
 *   local_purge.c   makes sure that nothing of a job is left (runs in a worker)
 *   capacity.c      what this machine has
 *
 * On disk, all of it 0700 and 0600:
 *   DIR/lock              held while a plugin uses DIR
 *   DIR/records/UID.json  the job; written before its process is started, removed after everything else of it
 *   DIR/records/UID.pid   "PID START BOOT", written by the process itself just before it becomes the agent
 *   DIR/records/UID.end   how its process ended
 *   DIR/records/UID.cancel  (empty) it is to be removed
 *   DIR/jobs/UID/         the agent's working folder: volumes/NAME/KEY, agent.log, cgroups and what the agent makes
 *
 * A job's life, moved in local_move() only:
 *
 *     STARTING --> RUNNING ---------------> CLEANING --> ENDED       the process ended by itself
 *        |            | cancel                 | cancel    | cancel
 *        |            v                        v           v
 *        |         ENDING --> (process ended) REMOVING <---+
 *        v                                     |
 *     forgotten <------------------------------+                     nothing is left of it
 */
#ifndef PLUGIN_LOCAL_H
#define PLUGIN_LOCAL_H

#include "io/child.h"
#include "io/loop.h"
#include "plugin/backend.h"

enum local_stage { LOCAL_STARTING, LOCAL_RUNNING, LOCAL_CLEANING, LOCAL_ENDED, LOCAL_ENDING, LOCAL_REMOVING };

/* Identity of a process: a pid alone may be another's by now. */
struct local_process {
    pid_t pid;           /* 0: none */
    uint64_t start_ticks; /* field 22 of /proc/PID/stat, since boot */
};

struct local_waiter {
    struct list link;
    void (*done)(void *arg, const struct status *err);
    void *arg;
};

struct local_job {
    struct list link; /* in local->jobs */
    struct local *local;
    enum local_stage stage;
    char uid[INTERLINK_UID_MAX + 1];
    char *namespace_, *name, *container, *jid, *dir; /* owned */
    struct local_process process;
    struct child child; /* running when the process is our child */
    int pidfd;          /* when it is not; -1: none */
    struct watch pidfd_watch;
    struct timer timer; /* ENDING: the grace period; RUNNING without a pidfd: looking whether it still lives */
    int64_t grace_seconds; /* the pod's own */
    int64_t created_ns, started_ns, finished_ns;
    int exit_code, signal;
    char reason[32];
    char message[256];
    unsigned reap_looks;
    struct list waiters; /* of cancel */
    bool purging;        /* in the worker's hands */
};

struct local {
    struct loop *loop;
    char *dir, *jobs_dir; /* owned; DIR with every link resolved, and DIR/jobs */
    char *program;        /* owned; the path to be executed */
    int program_fd;      /* of our own binary, so that it can be executed after its file was replaced; -1: not ours */
    int lock_fd;
    char boot_id[40];
    int64_t default_grace_seconds;
    struct list jobs;
    struct strmap by_uid;
    size_t job_count;
    struct worker purge;
    struct local_purge *purge_work; /* owned; what the worker does */
    struct deferred purge_start;
};

/* ---- local_start.c ---- */
/* Makes folder and record, starts the agent. On failure nothing is left. */
bool local_start(struct local_job *job, const struct interlink_create *create,
                 void (*on_exit)(void *arg, int wait_status), struct status *err);
char *local_record_path(const struct local *local, const char *uid, const char *suffix); /* the caller frees */

/* ---- local_record.c ---- */
bool local_record_write(const struct local_job *job, struct status *err);
bool local_record_write_end(const struct local_job *job, struct status *err);
bool local_record_write_cancel(const struct local_job *job, struct status *err);
void local_record_remove(const struct local *local, const char *uid);
/* Makes jobs out of all records; sets aside those that cannot be read. Their processes are not looked at yet, except that
 * process.pid is 0 when it never ran. Folders without a record are removed. */
bool local_records_load(struct local *local, struct status *err);
/* Start time of a process in ticks since boot; false when there is none of that pid. Async-signal-safe. */
bool local_process_start_ticks(pid_t pid, uint64_t *out);
/* False when it is gone without trace. When it is not alive but still to be reaped, *wait_status is as waitpid(2) will give
 * it to its parent. */
bool local_process_look(const struct local_process *p, bool *alive, int *wait_status);
bool local_process_alive(const struct local_process *p);

/* ---- local.c ---- */
struct local_job *local_job_new(struct local *local, const char *uid);
void local_job_free(struct local_job *job);

/* ---- local_purge.c ---- */
struct local_purge_item {
    char uid[INTERLINK_UID_MAX + 1];
    struct local_process process;
    bool remove; /* the folder too */
};
struct local_purge {
    const char *jobs_dir; /* DIR/jobs, borrowed */
    struct local_purge_item *items; /* owned */
    size_t count;
};
/* For worker_start(); work_arg is a struct local_purge. Kills every process of the jobs, removes their cgroups, mounts
 * and (where asked) folders. Output: one byte an item, 'y' or 'n'. */
bool local_purge_run(void *work_arg, struct buf *output, struct status *err);

/* ---- capacity.c ---- */
void capacity_read(struct arena *arena, struct interlink_ping *out);

#endif
