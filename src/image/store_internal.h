/* SPDX-License-Identifier: Apache-2.0 */
/* store_internal.h: what store.c (records, names), sweep.c (garbage) and job.c (children) share; nobody else includes it. */
#ifndef IMAGE_STORE_INTERNAL_H
#define IMAGE_STORE_INTERNAL_H

#include "image/job.h"
#include "image/record.h"
#include "image/store.h"
#include "io/child.h"
#include "io/mount.h"

struct store_hold {
    struct list link;
    struct record *record;
    char *owner; /* owned */
};

enum job_state { JOB_WAITING, JOB_RUNNING, JOB_ASKING };

struct job {
    struct list link;
    struct image_store *store;
    struct job_options options;
    enum job_state state;
    struct digest *pins; /* owned: what it needs; never swept */
    size_t pin_count;
    char **ids; /* owned: images it has put in */
    size_t id_count;
    struct child child;
    struct watch watch;
    struct deferred ending;
    int fd; /* owned; -1 when closed */
    struct buf in;
    bool *gone;         /* set while it is heard: tells that a callback cancelled it */
    bool exited, ended; /* ended: it has said DONE or FAILED */
    int wait_status;
    struct status err;
};

struct image_store {
    struct loop *loop;
    char *root; /* owned */
    int lock_fd;
    const char *const *pinned; /* borrowed */
    uint64_t layer_bytes_max, layer_entries_max;
    size_t jobs_max;
    struct mount_info mount; /* that the root is on */
    struct list records; /* struct record, oldest first; listed or not */
    struct list holds;
    struct list jobs;
    size_t listed;
    uint64_t generation, sequence;
    uint64_t bytes, inodes; /* of all records' blobs and layers, each counted once */
    /* Sweeping */
    bool started;
    struct worker sweeper, emptier; /* moves garbage to trash; empties trash */
    bool empty_again;               /* more came while it was at work */
    bool sweep_all, sweep_torn;     /* wanted next time */
    struct digest *doomed;          /* owned: of removed images; wanted next time */
    size_t doomed_count;
    struct deferred sweep_soon;
    struct timer garbage; /* then everything is swept */
};

/* ---- store.c ---- */
/* Puts in what a job reports, with its names, and writes the record. Takes `proposal`. NULL on failure. */
const struct record *store_commit(struct image_store *store, struct record *proposal, struct status *err);
/* Whether all that the record names is on the disk. */
bool store_complete(const struct image_store *store, const struct record *r, struct status *err);
char *store_path(const struct image_store *store, const char *folder, const char *name);

/* ---- sweep.c ---- */
/* What these digests name goes, unless somebody needs it. */
void sweep_doom(struct image_store *store, const struct record *record);
/* Soon; `all`: everything that nobody needs, not only what is doomed. */
void sweep_want(struct image_store *store, bool all);
/* Is told of every job's end. */
void sweep_after_job(struct image_store *store, bool failed, enum status_code code);
bool sweep_running(const struct image_store *store);
void sweep_stop(struct image_store *store);

/* ---- job.c ---- */
/* A sweep has ended: those who asked meanwhile may go on. */
void job_sweep_ended(struct image_store *store);

#endif
