/* SPDX-License-Identifier: Apache-2.0 */
/* interlink.h: the client side of interLink's REST: what `serve` speaks to an API server, stock or our own plugin.
 *
 *   interlink_target   one API URL: its connections, its one batched status query, its bearer token
 *   interlink_job      one pod at that target: submitted, watched, cancelled
 *
 * Source: the wire as measured on interLink 0.6; where it misbehaves the comment says so.
 *
 * A job's life; every arrow is made in job_move() only:
 *
 *             submit              200 with a jid
 *      NEW ----------> SUBMITTING --------------> SUBMITTED ----------> GONE   the site forgot it
 *       |                 |    \  no answer           |  \ cancel
 *       | adopt           |     ----> UNSURE ---------+   --> CANCELLING --> CANCELLED
 *       +-----------------|--> (unconfirmed) |  status knows it
 *                 refused |                  | status does not know it
 *                         +---> REJECTED <---+        (submit again is allowed from here)
 *
 * A create that got no answer is never sent again before the target's status said that it does not know the pod: two
 * creates of one uid are two jobs, of which a delete cancels only one. Cancelling waits for that too.
 *
 * Callbacks run from the loop, never from inside the call that caused them; each may free its job. */
#ifndef INTERLINK_INTERLINK_H
#define INTERLINK_INTERLINK_H

#include "base/base.h"
#include "interlink/message.h"
#include "interlink/pod.h"

struct loop;

/* ---- targets ---- */
struct interlink_target;

struct interlink_target_options {
    const char *name;              /* for messages: the handler's */
    const char *url;               /* "unix:///run/x.sock", "http://host:port", "https://host:port"; a path is kept */
    const char *bearer_token_file; /* "": none; read again whenever it changes */
    const char *ca_file;           /* "": the system's */
    const char *client_cert_file, *client_key_file; /* "": none */
    const char *proxy; /* "http://host:port"; "" or NULL: as the environment says; "none": no proxy. Not for a unix socket */
    /* The pace of the status query. A remote target is never asked faster than INTERLINK_POLL_REMOTE_MS whatever is
     * set here, because plugins keep one answer for ten seconds whichever pods are asked for. */
    bool remote;
    int64_t poll_ms;        /* while a job waits, starts or ends; 0: the default for `remote` */
    int64_t poll_steady_ms; /* while all jobs run; 0: the default */
};

/* NULL on failure. Borrowed strings are copied. */
struct interlink_target *interlink_target_new(struct loop *loop, const struct interlink_target_options *options,
                                              struct status *err);
/* Every job must have been freed before; pings and log streams under way are dropped. Not from inside a callback of a
 * job, ping or stream of this target. NULL is fine. */
void interlink_target_free(struct interlink_target *target);
/* Asks for states as soon as the pace allows: for an owner that saw something happen. */
void interlink_target_poll_soon(struct interlink_target *target);
/* OK while the last status query or ping was answered; else why not. */
const struct status *interlink_target_health(const struct interlink_target *target);
size_t interlink_target_job_count(const struct interlink_target *target);
/* How its calls went since the start, by path. `refused`: answered, but not with 200; `unanswered`: no answer, or not all of it. */
enum { INTERLINK_CALL_KINDS = 6 };
struct interlink_calls {
    const char *path; /* "/create"; the last is "" and has all that are none of the others */
    uint64_t ok, refused, unanswered;
    double seconds; /* of all of them together */
};
const struct interlink_calls *interlink_target_calls(const struct interlink_target *target); /* INTERLINK_CALL_KINDS */

/* on_done hears exactly one of ping and err; both are borrowed. */
void interlink_target_ping(struct interlink_target *target,
                           void (*on_done)(void *arg, const struct interlink_ping *ping, const struct status *err),
                           void *arg);

/* ---- jobs ---- */
struct interlink_job;

enum interlink_job_stage {
    INTERLINK_JOB_NEW,
    INTERLINK_JOB_SUBMITTING,
    INTERLINK_JOB_UNSURE,
    INTERLINK_JOB_SUBMITTED,
    INTERLINK_JOB_REJECTED,
    INTERLINK_JOB_CANCELLING,
    INTERLINK_JOB_CANCELLED,
    INTERLINK_JOB_GONE,
};

struct interlink_job_state {
    /* The whole job: RUNNING when any container runs, TERMINATED when all main ones have ended, WAITING when one waits;
     * UNKNOWN when the site cannot say (`message` has its error), GONE when it has forgotten the job. */
    enum interlink_phase phase;
    const char *reason, *message;    /* of the container that decided the phase, or the error */
    int exit_code;                   /* TERMINATED: the first main container's that is not 0, else 0 */
    int64_t started_ns, finished_ns; /* 0: not told */
    const char *jid, *nodes;         /* "" when never told */
    const struct interlink_container_state *containers, *init_containers;
    size_t container_count, init_container_count;
};

struct interlink_job_events {
    /* The target has the job. `jid` may be "". */
    void (*on_submitted)(void *arg, const char *jid);
    /* It surely has not: the job is REJECTED; submit it again (when err->code is UNAVAILABLE) or free it. */
    void (*on_rejected)(void *arg, const struct status *err);
    /* A state that differs from the last one told. Not called before on_submitted. */
    void (*on_state)(void *arg, const struct interlink_job_state *state);
    /* An end is reported that need not be one, and is not told for INTERLINK_END_DOUBT_MS: who knows better says so by
     * interlink_job_believe(). With each such report; NULL: nobody does. */
    void (*on_doubt)(void *arg);
};

/* `create` is borrowed: what is needed later is kept as JSON. `events` must outlive the job. Never NULL. */
struct interlink_job *interlink_job_new(struct interlink_target *target, const struct interlink_create *create,
                                        const struct interlink_job_events *events, void *arg);
/* Allowed when NEW or REJECTED. */
void interlink_job_submit(struct interlink_job *job);
/* A job of an earlier life of this program, instead of submit. `confirmed`: its create was answered then, with this
 * jid; else its status decides between on_submitted and on_rejected, and its create was sent at least age_ms ago. Allowed when NEW. */
void interlink_job_adopt(struct interlink_job *job, const char *jid, bool confirmed, int64_t age_ms);
/* Deletes it at the target and retries until it is gone there; never gives up, since a delete is not queued for a plugin
 * that is down. on_done (may be NULL) is called once. `on_retry` (may be NULL) hears each failure. A second cancel
 * replaces callbacks and grace of the first. grace_seconds < 0: the pod's own. */
void interlink_job_cancel(struct interlink_job *job, int64_t grace_seconds, void (*on_done)(void *arg),
                          void (*on_retry)(void *arg, const struct status *err), void *arg);
enum interlink_job_stage interlink_job_stage(const struct interlink_job *job);
/* Why it is UNSURE or REJECTED, or why the last attempt to cancel failed. */
const struct status *interlink_job_error(const struct interlink_job *job);
/* Last state told; phase UNKNOWN before the first. */
const struct interlink_job_state *interlink_job_state(const struct interlink_job *job);
/* Its callbacks hear this from now on. */
void interlink_job_give(struct interlink_job *job, void *arg);
/* The end that is reported next is one. */
void interlink_job_believe(struct interlink_job *job);
/* Forgets it here; the target keeps it. Its callbacks are not called any more. NULL is fine. */
void interlink_job_free(struct interlink_job *job);

/* ---- logs ---- */
struct interlink_logs;

struct interlink_logs_events {
    /* Bytes as they come. False pauses the stream until interlink_logs_resume(); the bytes were taken all the same. */
    bool (*on_data)(void *arg, const void *p, size_t n);
    /* Once, at the end (err NULL) or on failure. The stream is gone when it returns. */
    void (*on_end)(void *arg, const struct status *err);
};
/* A stock plugin panics when `tail` equals the number of lines; ask for bytes instead where that matters. */
struct interlink_logs *interlink_logs_start(struct interlink_target *target,
                                            const struct interlink_log_request *request,
                                            const struct interlink_logs_events *events, void *arg);
void interlink_logs_resume(struct interlink_logs *logs);
/* Ends it without on_end. NULL is fine. */
void interlink_logs_cancel(struct interlink_logs *logs);

#endif
