/* SPDX-License-Identifier: Apache-2.0 */
/* backend.h: what a plugin's backend offers: a small table of functions, and nothing of HTTP or JSON.
 *
 * A backend answers status, capacity and log questions from memory; what takes time (submit, cancel) it answers later,
 * through the `done` function, exactly once, also when it answers at once. After stop() nothing is called any more. */
#ifndef PLUGIN_BACKEND_H
#define PLUGIN_BACKEND_H

#include "base/base.h"
#include "interlink/message.h"
#include "interlink/pod.h"

struct json;
struct loop;

struct backend_options {
    const char *dir;     /* absolute; belongs to the backend alone, mode 0700 */
    const char *program; /* what the agent's argv[0] is replaced by; "": this very binary */
    int64_t default_grace_seconds;
    const struct json *settings; /* the backend's own part of the configuration; NULL: none */
};

/* Where a container's log is. The file may still grow while `live`. */
struct backend_log {
    char path[4096];
    bool live;
};

struct backend {
    const char *name; /* "local", "slurm" */
    /* Makes an instance and re-adopts the jobs of an earlier life. NULL on failure. */
    void *(*start)(struct loop *loop, const struct backend_options *options, struct status *err);
    /* Forgets everything; jobs go on. */
    void (*stop)(void *self);
    /* Idempotent by uid: the same uid again gives the same jid and no second job. `create` is borrowed for the call. */
    void (*submit)(void *self, const struct interlink_create *create,
                   void (*done)(void *arg, const char *jid, const struct status *err), void *arg);
    /* Ends the job and removes all of it; done when nothing is left. NOT_FOUND when it is not known. `caller_gone`
     * below withdraws `done`. */
    void (*cancel)(void *self, const char *uid, int64_t grace_seconds,
                   void (*done)(void *arg, const struct status *err), void *arg);
    /* Withdraws every pending done with this arg: whoever asked has left; the work goes on. */
    void (*caller_gone)(void *self, void *arg);
    /* Fills jid and the containers' states, named as in `pod`; strings live in the arena. A job that is not known gives
     * INTERLINK_UNKNOWN for each container and an empty jid. */
    void (*status)(void *self, struct arena *arena, const struct interlink_pod *pod, struct interlink_pod_status *out);
    bool (*log)(void *self, const char *uid, const char *container, struct backend_log *out, struct status *err);
    void (*capacity)(void *self, struct arena *arena, struct interlink_ping *out);
    size_t (*job_count)(void *self);
};

extern const struct backend backend_local;
extern const struct backend backend_slurm;

#endif
