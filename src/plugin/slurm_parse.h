/* SPDX-License-Identifier: Apache-2.0 */
/* slurm_parse.h: what Slurm's programs print, read line by line. Pure functions: nothing of processes or time.
 *
 * All programs are run with TZ=UTC0 and SLURM_TIME_FORMAT=standard, so times are UTC without saying so. Text that a job's
 * owner may choose (its name) comes last in a line. Sources: squeue(1), sacct(1), scontrol(1), sinfo(1), Slurm 22.05. */
#ifndef PLUGIN_SLURM_PARSE_H
#define PLUGIN_SLURM_PARSE_H

#include "base/base.h"

/* A state of Slurm's, as far as it matters for a pod. */
enum slurm_class {
    SLURM_CLASS_UNKNOWN, /* a word that is not known: nothing is concluded from it */
    SLURM_CLASS_PENDING,
    SLURM_CLASS_CONFIGURING, /* nodes are given, and being booted */
    SLURM_CLASS_RUNNING,
    SLURM_CLASS_COMPLETING, /* over, but its processes may still be there */
    SLURM_CLASS_ENDED,
};
/* "RUNNING", "CANCELLED by 1000", "CANCELLED+"...: what follows the first word does not count. */
enum slurm_class slurm_class_of(const char *state);

/* One job, from whichever program. Strings live in the arena, "" where nothing was told. */
struct slurm_info {
    uint32_t job_id;
    enum slurm_class state_class;
    const char *state; /* Slurm's word alone: "TIMEOUT" */
    int64_t submit_ns, start_ns, end_ns; /* 0: not told. Of a pending job start_ns is the scheduler's estimate */
    int64_t limit_seconds;               /* 0: none */
    uint32_t restarts;
    uint64_t priority;
    int exit_code, signal; /* of an ended job; signal 0: none */
    const char *partition, *nodes, *reason, *name;
    const char *cancelled_by; /* sacct: the uid of who cancelled it */
};

/* Arguments of squeue for slurm_squeue_line(). */
#define SLURM_SQUEUE_FORMAT                                                                                            \
    "--Format=JobID:|,State:|,exit_code:|,StartTime:|,EndTime:|,SubmitTime:|,TimeLimit:|,RestartCnt:|,PriorityLong:|," \
    "Partition:|,NodeList:|,Reason:|,Name:|"
/* False: no line of a job. */
bool slurm_squeue_line(struct arena *arena, struct str line, struct slurm_info *out);

/* `scontrol --oneliner show job ID`: its one line. */
bool slurm_scontrol_line(struct arena *arena, struct str line, struct slurm_info *out);

#define SLURM_SACCT_FORMAT "--format=JobIDRaw,State,ExitCode,Submit,Start,End,TimelimitRaw,Partition,NodeList,JobName"
bool slurm_sacct_line(struct arena *arena, struct str line, struct slurm_info *out);

/* `sbatch --parsable`: "4711" or "4711;cluster", perhaps after lines that a site's wrapper prints. */
bool slurm_sbatch_output(struct str text, uint32_t *job_id);

/* ---- the queue's order ---- */
struct slurm_place {
    uint32_t job_id;
    uint64_t priority;
    const char *partition;
};
#define SLURM_PLACE_FORMAT "--Format=JobID:|,PriorityLong:|,Partition:|"
bool slurm_place_line(struct arena *arena, struct str line, struct slurm_place *out);
/* The order that slurm_places_ahead() wants. */
void slurm_places_sort(struct slurm_place *places, size_t count);
/* How many pending jobs of the same partition come before it: a search, not a walk, since all jobs ask. */
size_t slurm_places_ahead(const struct slurm_place *places, size_t count, const struct slurm_info *job);

/* ---- nodes ---- */
struct slurm_node {
    const char *name, *state;
    int64_t cpus, memory_mib;
    const char *gres; /* "gpu:a100:4(S:0-1),shard:8" */
    bool usable;      /* neither down nor being taken out */
};
#define SLURM_SINFO_FORMAT "--Format=NodeList:|,StateLong:|,CPUs:|,Memory:|,Gres:|"
bool slurm_sinfo_line(struct arena *arena, struct str line, struct slurm_node *out);
/* How many of `gres` ("gpu", "gpu:a100") a node's list holds. */
int64_t slurm_gres_count(const char *list, const char *gres);

/* ---- pieces ---- */
/* The next line of *rest without its end; false at the end. Empty lines are left out. */
bool slurm_next_line(struct str *rest, struct str *line);
/* "2026-11-24T14:25:06"; 0 for "N/A", "NONE", "Unknown" and whatever is none. */
int64_t slurm_time(const char *text);
/* "1:00", "UNLIMITED", "1-00:00:00": seconds; 0: none. */
int64_t slurm_limit(const char *text);
/* wait(2)'s status. */
void slurm_wait_status(uint32_t status, int *exit_code, int *signal);
/* An error of Slurm's programs on one line, without "sbatch: error: " and repetition; STATUS_MESSAGE_MAX at most. */
void slurm_error_text(struct str text, struct buf *out);
/* What slurmstepd says at the end of a job's output of why it killed the job, in the words of a state: "TIMEOUT"; "" when it says
 * nothing. */
const char *slurm_step_verdict(struct str log);
/* The job is not known (any more): "Invalid job id specified". */
bool slurm_error_no_job(const char *text);
/* Nobody can say whether the request was carried out. */
bool slurm_error_ambiguous(const char *text);
/* The controller cannot be reached, or has no time now: trying again may help. */
bool slurm_error_passing(const char *text);
/* sacct has no database to ask. */
bool slurm_error_no_accounting(const char *text);

#endif
