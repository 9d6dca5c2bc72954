/* SPDX-License-Identifier: Apache-2.0 */
/* job.h: a child process that puts something into the store, and what it and the store's owner say to each other.
 *
 *     child                                       owner
 *     NEEDS: these blobs and layers       ->      keeps them from being swept
 *                                         <-      GO: whatever of them is there stays there
 *     PROGRESS: bytes of each blob        ->
 *     IMAGE: all of it is there           ->      writes the record; remembers the id
 *     DONE, or FAILED and why             ->
 *
 * The child sees a copy of the owner's memory, so it knows what was in the store when it began. It dies with its owner. */
#ifndef IMAGE_JOB_H
#define IMAGE_JOB_H

#include "base/base.h"
#include "image/pull.h"
#include "image/record.h"
#include "io/child.h"

/* ---- in the child ---- */
struct job_channel {
    int fd;
    struct image_store *store; /* the copy */
};
/* Blocks until the owner answers. False: the owner is gone. */
bool job_need(struct job_channel *c, const struct digest *digests, size_t count, struct status *err);
void job_progress(struct job_channel *c, const struct image_progress *blobs, size_t count);
/* Makes sure first that what was written is on the disk (syncfs). */
bool job_image(struct job_channel *c, const struct record *record, struct status *err);

/* ---- in the owner ---- */
struct job;
struct job_options {
    /* Runs in the child. */
    bool (*work)(struct job_channel *c, void *work_arg, struct status *err);
    void *work_arg; /* must stay as it is until the job has started, which may be later: free it in on_done */
    void (*on_progress)(void *arg, const struct image_progress *blobs, size_t count); /* may be NULL */
    /* Once, from the loop, unless cancelled. Ids of the images it put in, which are listed by now, even with an error. */
    void (*on_done)(void *arg, const char *const *ids, size_t count, const struct status *err);
    void *arg;
};
/* Starts now, or when one of those under way ends. Never fails at once. */
struct job *job_start(struct image_store *store, const struct job_options *options);
/* NULL is fine. Not after on_done. */
void job_cancel(struct job *job);
bool job_waits(const struct job *job); /* for others to end */

#endif
