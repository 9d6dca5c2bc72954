/* SPDX-License-Identifier: Apache-2.0 */
/* target.h: what the files of the client side share with each other and with nobody else.
 *
 *   target.c   targets, calls, the bearer token, the ping
 *   poll.c     the batched status query, and how a pod that spoils it is found
 *   job.c      a job's stages: submit, reconcile, cancel
 *   logs.c     log streams */
#ifndef INTERLINK_TARGET_H
#define INTERLINK_TARGET_H

#include "http/client.h"
#include "interlink/interlink.h"
#include "io/loop.h"

#include <sys/stat.h>

/* ---- calls ---- */
struct interlink_answer {
    const struct status *err; /* NULL: exactly 200 */
    int http_status;          /* 0: no answer came */
    struct str body;
    bool sent; /* false: the target cannot have acted on it */
    bool told; /* an error with words of the plugin's own (in err->message) */
    bool put_off; /* it was not acted upon: 429, or 503 with Retry-After */
};

struct interlink_call_options {
    /* The methods are those of interLink's own client, bodies and all. Only POST is sent on a connection of its own, because
     * what is sent on a kept one may be sent twice when that turns out dead. */
    const char *method;
    const char *path; /* "/create" */
    struct str body;
    int64_t timeout_ms; /* 0: none */
    void (*on_answer)(void *arg, const struct interlink_answer *answer); /* once; the call is gone when it returns */
    void (*on_body)(void *arg, struct str piece);                        /* NULL: the body comes with the answer */
    void *arg;
};

/* Calls of a kind of which only some are under way at a time. */
struct interlink_lane {
    const char *path; /* "/create" */
    size_t max, under_way;
    struct list waiting; /* struct interlink_call, by lane_link */
};

struct interlink_call {
    struct list link; /* in target->calls */
    struct interlink_lane *lane; /* NULL: none, or it does not count there (any more) */
    struct list lane_link;       /* in lane->waiting, until it is sent */
    const char *method;
    struct buf body; /* while it waits */
    int64_t timeout_ms;
    struct interlink_target *target;
    struct http_request *request; /* NULL: it failed before it was sent */
    struct deferred failed;
    struct status failure;
    char what[32]; /* the path, for messages */
    int64_t started_ns;
    void (*on_answer)(void *arg, const struct interlink_answer *answer);
    void (*on_body)(void *arg, struct str piece);
    void *arg;
};

struct interlink_call *interlink_call_start(struct interlink_target *target,
                                            const struct interlink_call_options *options);
void interlink_call_cancel(struct interlink_call *call); /* NULL is fine */
/* It has not been sent: the target knows nothing of it. */
bool interlink_call_waits(const struct interlink_call *call);
/* The pause until `delay_ms` from now, or longer when the server has asked for that. */
int64_t interlink_target_pause_ms(const struct interlink_target *target, int64_t delay_ms);

/* ---- targets ---- */
/* Jobs asked for in one status query. Entries of jobs that were freed meanwhile are NULL. */
struct interlink_batch {
    struct list link; /* in target->batches; unlinked while it is asked */
    struct interlink_job **jobs; /* owned array of borrowed jobs */
    size_t count;
};

struct interlink_poll {
    struct timer timer;
    struct deferred schedule;      /* the timer is to be set anew */
    struct interlink_call *call;   /* the query under way */
    struct interlink_call *probe;  /* the ping that tells a bad pod from a bad plugin */
    struct interlink_batch *asked; /* owned; what `call` or `probe` is about */
    struct list batches;           /* halves still to be asked */
    int64_t allowed_ms;            /* monotonic; no query before */
    int64_t full_ms;               /* the next query for every job */
    unsigned failures;             /* in a row */
    bool soon;
};

struct interlink_target {
    struct loop *loop;
    struct http_client *http, *http_logs; /* streams hold their connections, so they have their own */
    char *name, *base, *unix_socket, *token_file; /* owned */
    bool remote;
    int64_t poll_ms, steady_ms;
    struct buf token; /* "Bearer ...", as of token_stat */
    struct stat token_stat;
    struct status health;
    int64_t hold_ms; /* monotonic; until then the server wants to hear nothing (Retry-After) */
    struct list jobs, calls, pings, logs;
    size_t job_count;
    struct interlink_calls counts[INTERLINK_CALL_KINDS];
    struct interlink_lane creates, deletes;
    struct deferred lane_free; /* one has room */
    struct interlink_poll poll;
};

struct interlink_logs {
    struct list link; /* in target->logs */
    struct interlink_call *call;
    const struct interlink_logs_events *events;
    void *arg;
    bool paused;
    bool *freed; /* as in struct interlink_job */
};

/* ---- jobs ---- */
struct interlink_job {
    struct list link; /* in target->jobs */
    struct interlink_target *target;
    enum interlink_job_stage stage;
    char uid[INTERLINK_UID_MAX + 1];
    char *name;          /* namespace/name, for log lines */
    struct buf pod;      /* interlink_pod_write_open() */
    struct buf create;   /* the create body, until it is confirmed */
    struct buf jid;
    const struct interlink_job_events *events;
    void *arg;
    bool *freed; /* set true by interlink_job_free, for code that calls back and goes on */

    /* state */
    struct arena arena; /* owns what `state` points to */
    struct interlink_job_state state;
    struct buf wire; /* the last state told, as JSON: what has not changed is not told again */
    unsigned unknown_answers, missing_answers; /* in a row */
    bool believed;    /* an end is one */
    int64_t doubt_ms; /* since when an end is reported that need not be one; 0: none is */
    bool poison;     /* asked for alone */
    int64_t poison_ms; /* when next */

    /* submitting and cancelling */
    struct interlink_call *call;
    struct status error;     /* of the last attempt */
    int64_t settled_ms;      /* a create without an answer may come into effect until then */
    struct timer timer;      /* retry of a cancel */
    struct deferred deferred; /* answers that are known at once */
    unsigned attempts;
    bool cancel_wanted, probed;
    int64_t grace_seconds;
    void (*on_cancelled)(void *arg);
    void (*on_retry)(void *arg, const struct status *err);
    void *cancel_arg;
};

/* What a status answer says of the job; NULL: it does not name it. May free the job. */
void interlink_job_apply(struct interlink_job *job, const struct interlink_pod_status *status);
/* The job's own status query failed while its plugin answers others. May free the job. */
void interlink_job_poisoned(struct interlink_job *job, const struct status *err);
/* Whether a status query should ask for it, and whether soon. */
bool interlink_job_wants_status(const struct interlink_job *job);
bool interlink_job_unsettled(const struct interlink_job *job);

void interlink_poll_init(struct interlink_target *target);
void interlink_poll_schedule(struct interlink_target *target);
void interlink_poll_forget(struct interlink_target *target, const struct interlink_job *job);
void interlink_poll_stop(struct interlink_target *target);

/* 1, 2, 4 ... seconds, at most INTERLINK_BACKOFF_MAX_MS. */
int64_t interlink_backoff_ms(unsigned failures);

#endif
