/* SPDX-License-Identifier: Apache-2.0 */
/* slurm.h: what the files of the `slurm` backend share with each other and with nobody else. docs/slurm.md is for operators.
 *
 *   slurm_config.c    the site's settings                     slurm.c          the backend's table; a job's life
 *   slurm_options.c   words for sbatch, quoting               slurm_submit.c   from a create request to a job in the queue
 *   slurm_script.c    a job's options, environment, script    slurm_poll.c     one squeue for all jobs, when it is worth while
 *   slurm_parse.c     what Slurm's programs print             slurm_end.c      how a job ended, and who says so
 *   slurm_command.c   runs those programs                     slurm_cancel.c   TERM, grace, KILL, and clearing away
 *   slurm_record.c    what is kept on disk                    slurm_capacity.c what the site has
 *
 * On disk, all of it 0700 and 0600; DIR is on a file system that the compute nodes see under the same path:
 *   DIR/lock              held while a plugin uses DIR
 *   DIR/bin/              our own binary, for the agents
 *   DIR/records/UID.json  the job; written before sbatch is started, removed after everything else of it
 *   DIR/records/UID.jid   Slurm's number of it; written before the create is answered
 *   DIR/records/UID.end   how it ended
 *   DIR/records/UID.cancel  (empty) it is to be removed
 *   DIR/changed            (its time) a job has begun or ended
 *   DIR/jobs/UID/         the agent's working folder: job.sh (locked while its sbatch runs), environment, volumes/NAME/KEY,
 *                         agent.log, started and ended (slurm_script.h), and what the agent makes
 *
 * A job's life, moved in slurm_move() only:
 *
 *     SUBMITTING -----------> QUEUED <----------> RUNNING ------> ENDED
 *         |  \ no clear       ^  | cancel  requeue   | cancel       | cancel
 *         |   v answer  found |  v                   |              |
 *         |  LOOKING ---------+ ENDING <-------------+              |
 *         |    | no such job    | it is over                        |
 *         +----+--------------> +--------> REMOVING <---------------+   nothing is left of it: forgotten
 *          refused
 *
 * A job in ENDING may have no number yet: then its name, which ends in the pod's uid, is looked for. */
#ifndef PLUGIN_SLURM_H
#define PLUGIN_SLURM_H

#include "io/child.h"
#include "io/loop.h"
#include "plugin/backend.h"
#include "plugin/slurm_command.h"
#include "plugin/slurm_config.h"
#include "plugin/slurm_parse.h"

enum slurm_stage {
    SLURM_SUBMITTING,
    SLURM_LOOKING,
    SLURM_QUEUED,
    SLURM_RUNNING,
    SLURM_ENDED,
    SLURM_ENDING,
    SLURM_REMOVING,
};

struct slurm_waiter {
    struct list link;
    void (*submitted)(void *arg, const char *jid, const struct status *err); /* one of the two is set */
    void (*cancelled)(void *arg, const struct status *err);
    void *arg;
};

/* How far the cancelling of a job that runs has come. */
enum slurm_cancel_step { SLURM_CANCEL_ASK, SLURM_CANCEL_GRACE, SLURM_CANCEL_KILL, SLURM_CANCEL_FORCE };

struct slurm_job {
    struct list link; /* in slurm->jobs */
    struct slurm *slurm;
    enum slurm_stage stage;
    char uid[INTERLINK_UID_MAX + 1];
    char *namespace_, *name, *container, *dir; /* owned */
    uint32_t job_id; /* 0: not known */
    char jid[16];    /* the same as text */
    int64_t grace_seconds; /* the pod's own; < 0: none */
    int64_t created_ns;
    /* Slurm's last word on it; what it was told by is newer than poll `since`. */
    struct arena arena;
    struct slurm_info info;
    uint64_t since;
    bool seen;     /* info is Slurm's and not only our own record's */
    size_t ahead;  /* in the queue; SIZE_MAX: not known */
    int64_t completing_ms; /* COMPLETING since; 0: it is not */
    int64_t looking_until_ms; /* LOOKING, or ENDING without a number: until then absence proves nothing */
    /* ENDED */
    int exit_code, signal;
    int64_t started_ns, finished_ns;
    char reason[32];
    char message[512];
    struct slurm_command command; /* sbatch, scancel, scontrol or sacct for it */
    struct timer timer;
    enum slurm_cancel_step cancel_step;
    int64_t cancel_grace_seconds;
    struct status refusal; /* what its create is answered when nothing is left of it */
    struct list waiters;
    bool purging;
};

struct slurm {
    struct loop *loop;
    struct slurm_config config;
    struct slurm_commands commands;
    char *dir;     /* owned; absolute, links resolved */
    char *program; /* owned; the agent's path on the compute nodes */
    int lock_fd;
    int64_t default_grace_seconds;
    struct list jobs;
    struct strmap by_uid;
    size_t job_count;
    /* slurm_poll.c */
    struct slurm_command squeue, places;
    struct timer poll_timer;
    uint64_t poll_count; /* how many were started */
    int64_t poll_interval_ms, poll_started_ms, poll_changed_ms, places_ms;
    int64_t changed_looked_ms; /* when DIR/changed was looked at, */
    struct timespec changed_at; /* and its time then */
    int64_t trouble_since_ms; /* Slurm does not answer since; 0: it does */
    struct status trouble;
    bool no_accounting; /* sacct has said so */
    /* slurm_capacity.c */
    struct slurm_command sinfo;
    int64_t nodes_ms;
    bool nodes_known, taint_told;
    int64_t cpus, memory_mib;
    int64_t *gres_counts; /* owned; as config.gres */
    /* clearing away */
    struct worker purge;
    struct slurm_purge *purge_work; /* owned */
    struct deferred purge_start;
};

/* ---- slurm.c ---- */
struct slurm_job *slurm_job_new(struct slurm *slurm, const char *uid);
void slurm_job_free(struct slurm_job *job);
void slurm_move(struct slurm_job *job, enum slurm_stage to);
void slurm_set_job_id(struct slurm_job *job, uint32_t job_id);
/* Calls the creates that wait. err NULL: yes. */
void slurm_answer_submit(struct slurm_job *job, const struct status *err);

/* ---- slurm_submit.c ---- */
/* Makes record and folder and starts sbatch. On failure nothing is left. */
bool slurm_submit_start(struct slurm_job *job, const struct interlink_create *create, struct status *err);
/* Slurm has a job with its name. */
void slurm_submit_found(struct slurm_job *job, uint32_t job_id);
/* squeue has answered and has none (or cannot be asked: err). */
void slurm_submit_not_found(struct slurm_job *job, const struct status *err);

/* ---- slurm_poll.c ---- */
void slurm_poll_soon(struct slurm *slurm); /* something is about to change */
void slurm_poll_demand(struct slurm *slurm); /* somebody asks */
void slurm_poll_stop(struct slurm *slurm);
/* Slurm says so, by whichever program: keeps it and acts on it. */
void slurm_poll_apply(struct slurm_job *job, const struct slurm_info *info);

/* ---- slurm_end.c ---- */
/* squeue does not know it any more. */
void slurm_end_resolve(struct slurm_job *job);
/* It is in a final state (job->info). */
void slurm_end_reached(struct slurm_job *job);
/* Fills job's exit code, reason and message from its info and what its script left. Pure but for reading that file. */
void slurm_end_describe(struct slurm_job *job);

/* ---- slurm_cancel.c ---- */
void slurm_cancel_begin(struct slurm_job *job, int64_t grace_seconds);
void slurm_cancel_go_on(struct slurm_job *job); /* its state may have changed */
void slurm_purge_soon(struct slurm *slurm);
void slurm_purge_stop(struct slurm *slurm);

/* ---- slurm_record.c ---- */
char *slurm_record_path(const struct slurm *slurm, const char *uid, const char *suffix); /* the caller frees */
bool slurm_record_write(const struct slurm_job *job, struct status *err);
bool slurm_record_write_jid(const struct slurm_job *job, struct status *err);
bool slurm_record_write_end(const struct slurm_job *job, struct status *err);
bool slurm_record_write_cancel(const struct slurm_job *job, struct status *err);
void slurm_record_remove(const struct slurm *slurm, const char *uid);
/* Makes jobs out of all records and folders; sets aside what cannot be read. */
bool slurm_records_load(struct slurm *slurm, struct status *err);
/* What a job's script left. False: nothing, or nothing that makes sense. */
struct slurm_started {
    uint32_t job_id, restarts;
    int64_t at_ns;
    char host[128];
};
struct slurm_left {
    int exit_code;
    int64_t at_ns, noticed_ns, termed_ns; /* 0: never */
};
bool slurm_read_started(const struct slurm_job *job, struct slurm_started *out);
bool slurm_read_left(const struct slurm_job *job, struct slurm_left *out);
/* slurm_step_verdict() of the end of its log. */
const char *slurm_read_verdict(const struct slurm_job *job);
/* Whether an sbatch of an earlier life is still under way. */
bool slurm_sbatch_under_way(const struct slurm_job *job);

/* ---- slurm_capacity.c ---- */
void slurm_capacity_fill(struct slurm *slurm, struct arena *arena, struct interlink_ping *out);
void slurm_capacity_refresh(struct slurm *slurm);

#endif
