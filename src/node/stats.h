/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.h: what pods and containers use, as their agents measure it.
 *
 * Nothing is measured unless somebody asks. Then each pod's agent is asked once, all at the same time, for the whole pod; its
 * answer is kept, encoded as elements of the list responses, for STATS_KEEP_MS, so that several who poll cost one
 * measurement. A list waits STATS_WAIT_MS for the slowest agent: a pod whose agent has not answered by then is left out, and
 * is not waited for again while its answer is overdue. A call for one pod or container says what is missing.
 *
 *   stats.c          asking agents, keeping their answers
 *   stats_service.c  the RPCs
 *   metrics.c        the same figures under cAdvisor's names
 */
#ifndef NODE_STATS_H
#define NODE_STATS_H

#include "node/sandbox.h"
#include "rpc/rpc.h"

struct container;

/* Of one pod; made when it is first asked for. */
struct stats {
    struct sandbox *sandbox;
    struct rpc_request *request; /* under way; NULL */
    bool request_counters;       /* it asks for counters, too */
    int64_t asked_ms;            /* monotonic: when it was sent */
    int64_t taken_ms;            /* monotonic: when the last answer came; 0: none has */
    bool has_counters;           /* it had them */
    struct buf pod, metrics;     /* elements of the list responses; metrics only with counters */
    uint64_t layer_bytes, layer_inodes; /* of all its containers, as far as they are known */
    struct status error;         /* how the last request failed */
    struct list waits;           /* struct stats_wait: who waits for the request */
};
void stats_free(struct stats *stats); /* NULL is fine; who waits does so no longer */

/* ---- for the RPCs ---- */
/* Somebody who wants figures of some pods. */
struct stats_ask {
    struct node *node;
    bool counters;
    void (*on_done)(struct stats_ask *ask); /* heard once, perhaps at once, unless stats_ask_cancel */
    /* stats.c's own */
    int64_t began_ms;
    size_t waiting;
    struct stats_wait *waits; /* owned */
    size_t wait_count;
    struct timer deadline;
};
/* Asks the agents of these pods, as far as their figures are too old. */
void stats_ask_start(struct stats_ask *ask, struct sandbox *const *sandboxes, size_t count);
void stats_ask_cancel(struct stats_ask *ask);
/* Once done: whether there are figures of this pod that are new enough for the ask. False: err says why not. */
bool stats_known(const struct stats_ask *ask, struct sandbox *sandbox, struct status *err);

/* ---- the handlers (stats_service.c) ---- */
void stats_container(void *context, struct rpc_call *call, const ProtobufCMessage *request);
void stats_list_containers(void *context, struct rpc_call *call, const ProtobufCMessage *request);
void stats_stream_containers(void *context, struct rpc_call *call, const ProtobufCMessage *request);
void stats_pod(void *context, struct rpc_call *call, const ProtobufCMessage *request);
void stats_list_pods(void *context, struct rpc_call *call, const ProtobufCMessage *request);
void stats_stream_pods(void *context, struct rpc_call *call, const ProtobufCMessage *request);
void stats_list_metrics(void *context, struct rpc_call *call, const ProtobufCMessage *request);
void stats_stream_metrics(void *context, struct rpc_call *call, const ProtobufCMessage *request);

/* ---- metrics.c ---- */
void metrics_list_descriptors(void *context, struct rpc_call *call, const ProtobufCMessage *request);
/* Encodes a pod's metrics as an element of the list response. */
void metrics_encode(const struct sandbox *sandbox, const Interlink__Agent__V1__StatsResponse *response, struct buf *out);

#endif
