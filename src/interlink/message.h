/* SPDX-License-Identifier: Apache-2.0 */
/* message.h: interLink's small messages, to and from JSON: the answer to a create, states, pings, log requests, and
 * the error texts that travel inside them. Ownership as in pod.h. */
#ifndef INTERLINK_MESSAGE_H
#define INTERLINK_MESSAGE_H

#include "base/base.h"

/* ---- states ---- */
enum interlink_phase {
    INTERLINK_UNKNOWN,    /* no state was given: not created, deleted, or nobody can say */
    INTERLINK_WAITING,    /* queued; `reason` and `message` may be "" */
    INTERLINK_RUNNING,    /* started_ns */
    INTERLINK_TERMINATED, /* exit_code, started_ns, finished_ns, reason, message */
    INTERLINK_GONE,       /* the site knew the job and no longer does; never on the wire */
};

struct interlink_container_state {
    const char *name;
    enum interlink_phase phase;
    const char *reason, *message;
    int exit_code, signal;
    int64_t started_ns, finished_ns; /* since the epoch; 0: not told */
    bool ready;
    int64_t restart_count;
    const char *image, *image_id;                  /* "" when not told */
    const struct interlink_container_state *last; /* how it ended before it was restarted; NULL: it was not */
};
/* A container of which nothing is known. */
#define INTERLINK_STATE_INIT(container)                                                                                \
    (struct interlink_container_state)                                                                                 \
    {                                                                                                                  \
        .name = (container), .reason = "", .message = "", .image = "", .image_id = ""                                  \
    }

struct interlink_pod_status {
    const char *name, *uid, *namespace_, *jid;
    const char *nodes; /* where the job runs, in the batch system's own notation ("n[1-2]"); "": not told */
    struct interlink_container_state *containers, *init_containers;
    size_t container_count, init_container_count;
};

/* `null` and an empty body are no pods at all. The wire has no field for nodes, and API servers pass on what they know: they travel
 * as the containers' containerID, "job://JID@NODES", which users of a virtual kubelet see. */
bool interlink_statuses_read(struct arena *arena, struct str json, struct interlink_pod_status **out, size_t *count,
                             struct status *err);
void interlink_statuses_write(struct buf *out, const struct interlink_pod_status *statuses, size_t count);

/* ---- create ---- */
struct interlink_created {
    const char *uid, *jid;
};
bool interlink_created_read(struct arena *arena, struct str json, struct interlink_created *out, struct status *err);
void interlink_created_write(struct buf *out, const struct interlink_created *created);

/* ---- ping ---- */
struct interlink_accelerator {
    const char *resource, *available;
};
struct interlink_taint {
    const char *key, *value, *effect;
};
struct interlink_ping {
    const char *status;            /* the plugin's word, or the whole text when the answer was no JSON */
    const char *cpu, *memory, *pods; /* quantities; "": not told */
    struct interlink_accelerator *accelerators;
    size_t accelerator_count;
    struct interlink_taint *taints;
    size_t taint_count;
    bool has_taints; /* an empty list removes taints, an absent one leaves them */
};
/* Any text is an answer to a ping: what is no PingResponse becomes `status`. */
void interlink_ping_read(struct arena *arena, struct str text, struct interlink_ping *out);
void interlink_ping_write(struct buf *out, const struct interlink_ping *ping);

/* ---- logs ---- */
struct interlink_log_request {
    const char *namespace_, *pod_uid, *pod_name, *container;
    uint64_t tail, bytes; /* 0: all */
    bool timestamps, follow, previous;
    uint64_t since_seconds; /* 0: all */
    int64_t since_time_ns;  /* since the epoch; 0: all */
};
bool interlink_log_request_read(struct arena *arena, struct str json, struct interlink_log_request *out,
                                struct status *err);
void interlink_log_request_write(struct buf *out, const struct interlink_log_request *request);

/* ---- errors ---- */
/* The plugin's own words out of an error body: the API server wraps them as HTML-escaped
 * "HTTP InterLink session ID:  call exit status: 500. Body: TEXT". Appends TEXT, unescaped, on one line, cut at
 * STATUS_MESSAGE_MAX. Nothing is appended when the body says nothing. False: these are not the plugin's words, but none at
 * all, a page of a proxy in between, or what a gateway (502, 504) says that got no answer: who is behind it may be at it. */
bool interlink_error_text(struct str body, int http_status, struct buf *out);
/* The gRPC code for an HTTP status of an interLink answer. */
enum status_code interlink_error_code(int http_status);
/* And back: what our plugin answers for an error. */
int interlink_http_status(enum status_code code);

#endif
