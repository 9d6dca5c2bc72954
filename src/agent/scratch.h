/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scratch.h: a folder on a disk of this machine's own, for a job whose own folder is on a file system that machines share:
 *
 *   <place>/interlink-cri-<uid>/           0700, ours
 *     pods/<sandbox>/                      what the pod writes: containers, emptyDirs, the engine's files
 *     pods/<sandbox>.lock                  locked while anybody of the pod lives
 *     images-<kind>/layers, blobs          unpacked once for all jobs of this user that unpack alike
 *     images-<kind>.lock                   shared by the agents that may be using it
 *
 * A pod's folder goes with its agent; if that is killed, with the process in front of it (isolate.h); if all of the job is killed
 * at once, with the next agent here, which takes the locks that nobody holds any more. Images go when nobody uses any: the
 * longest unused first, when they are old or many.
 */
#ifndef AGENT_SCRATCH_H
#define AGENT_SCRATCH_H

#include "base/base.h"

#include <sys/vfs.h>

/* Where a site may have put it, NULL-terminated; asked after the job's own variables. */
extern const char *const scratch_usual[];

struct scratch_filesystem {
    long long magic; /* statfs(2) */
    const char *name;
    bool shared; /* other machines see it: slow for images, and not cleaned with the node */
    bool memory; /* the job's own */
};
/* "unknown file system", not shared, when it is none of those listed. */
const struct scratch_filesystem *scratch_filesystem_of(const struct statfs *fs);

struct scratch {
    char *pod;    /* owned; the pod's folder; NULL: the job's folder serves */
    char *images; /* owned; holds layers/ and blobs/; NULL likewise */
    char *base;   /* owned; <place>/interlink-cri-<uid> */
    int pod_lock, images_lock; /* -1 */
    char why[256]; /* what was taken, or why nothing was: one line for the log */
};

struct scratch_options {
    const char *wanted;  /* places, separated by colons; "none"; "" or NULL: only if job_dir is on a shared file system */
    const char *job_dir;
    const char *sandbox_id;
    uint32_t uid;        /* the job's user on the machine */
    const char *kind;    /* whose images fit whose: word characters */
};

/* Never fails: without a place the job's own folder is used, and `why` says so. Before the loop: a few system calls, and one for each
 * image layer that is kept. */
void scratch_open(const struct scratch_options *options, struct scratch *out);
/* Removes what dead pods left, and images that nobody needs. Worker. */
bool scratch_sweep(const struct scratch *s, struct status *err);
/* Removes the pod's folder. Blocks: at the very end. */
void scratch_close(struct scratch *s);
/* For whoever stays when the agent was killed: removes the folder of this pod, if nobody else holds it. */
void scratch_clean(const struct scratch_options *options);
/* A layer is used: it counts as new. */
void scratch_touch(const char *layer);

#endif
