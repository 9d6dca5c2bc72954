/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox.h: a pod: one interLink job whose agent stands in for the pause container.
 *
 *   (record written)      API accepted        job waits             agent has called in
 *      SUBMITTED  ----------> SUBMITTED ----------> QUEUED -----------------> READY
 *          |                      |                   |                        | stopped, or the job ended
 *          +---- refused,  -------+---- cancelled, ---+                        v
 *               ended early           lease ran out         gone           NOTREADY ----> removed: gone
 *
 * Until READY a sandbox is unlisted: kubelet would tear down what it sees failing, but waits for what it does not see
 * (RunPodSandbox answers UNAVAILABLE in the queue's words and is called again; it joins the same job). Once READY it is
 * listed, and kubelet adopts it. Moves happen in sandbox_move() only.
 *
 * A pod with a network of its own (pod_network.h) is READY when that is up, too, and is stopped and gone only with it. */
#ifndef NODE_SANDBOX_H
#define NODE_SANDBOX_H

#include "interlink/interlink.h"
#include "node/announce.h"
#include "node/node.h"

struct call_in;
struct gate_pod;
struct link;
struct pod_find;
struct pod_network;
struct stats;

struct sandbox {
    struct node *node;
    struct handler *handler;
    Interlink__State__V1__Sandbox *record; /* owned; id, config, phase... */
    struct list uid_link;                  /* lists.c's */
    struct list containers;                /* struct container.link */
    struct interlink_job *job;             /* owned; NULL once its deletion is confirmed */
    struct link *link;                     /* owned; NULL while the agent is not connected */
    struct buf item;                       /* its element of the list response; empty until READY */
    char *queue_words;                     /* owned: what to tell a caller who waits */
    struct list waiters;                   /* calls that wait for READY, for the stop or for the removal */
    bool stopping;                         /* a stop is under way */
    bool removing;                         /* gone as soon as the job is */
    bool deleting;                         /* its record is being deleted */
    bool saving_stop;                      /* the stop is not durable yet */
    bool abandoned;                        /* it never became a pod: gone as soon as its network is */
    bool restored;                         /* of an earlier life of this program */
    struct pod_network *network;           /* owned; pod_network.c's */
    struct last_words *last_words;         /* owned; of a job that ended too early: then it is given up */
    struct call_in *call_in;               /* owned; call_in.c's */
    struct pod_find *size_find;            /* owned; sandbox_size.c's: its job is not made yet */
    enum announced announced;              /* events sent */
    int64_t lease_used_ms;                 /* polling time since the last call, while queued (sandbox_lease.h) */
    struct pod_find *lease_find;           /* owned; sandbox_lease.c's */
    bool lease_doubted;                    /* it would be over, but who could tell is away */
    struct timer stop_timer;
    struct stats *stats;                   /* owned; NULL until somebody asks (stats.h) */
    struct gate_pod *gate;                 /* owned; gate.h's; NULL: its connections are none of our business */
    struct pod_volumes *volumes;           /* owned; NULL until they are needed (volumes.h) */
};

/* RunPodSandbox: joins or starts. The call is answered when READY, or at the end of the hold. */
void sandbox_run(struct node *node, struct rpc_call *call, const Runtime__V1__RunPodSandboxRequest *request);
/* Whether a request is one for a pod. INVALID_ARGUMENT. */
bool sandbox_check_request(const Runtime__V1__RunPodSandboxRequest *request, struct status *err);
/* What is remembered of a new pod. NULL: it asks for what it cannot have, or in a way that cannot be read. */
Interlink__State__V1__Sandbox *sandbox_record_new(struct node *node, const struct handler *handler,
                                                  const Runtime__V1__RunPodSandboxRequest *request, struct status *err);
/* The sandbox of a pod's attempt; NULL: there is none. */
struct sandbox *sandbox_find(struct node *node, const Runtime__V1__PodSandboxMetadata *metadata);
void sandbox_stop(struct sandbox *sandbox, struct rpc_call *call);
void sandbox_remove(struct sandbox *sandbox, struct rpc_call *call);

/* Takes the record of an earlier life. */
void sandbox_restore(struct node *node, Interlink__State__V1__Sandbox *record);
/* After all were restored: adopts the jobs, drops what never became a pod. */
void sandbox_resume(struct sandbox *sandbox);
/* Its agent called in: takes the stream. */
void sandbox_attach(struct sandbox *sandbox, struct stream *stream, struct str early);
/* Whether containers can be made in it; else FAILED_PRECONDITION. */
bool sandbox_check_ready(const struct sandbox *sandbox, struct status *err);
/* Once READY and connected; else err UNAVAILABLE or FAILED_PRECONDITION says what is missing. */
struct link *sandbox_link(struct sandbox *sandbox, struct status *err);

/* From the link, as its owner. */
void sandbox_on_agent_ready(void *sandbox, const Interlink__Agent__V1__HelloResponse *hello);
/* The agent is there and cannot be this pod: it has no engine, or a setting that it cannot honour. */
void sandbox_on_agent_refused(void *sandbox, const struct status *err);
void sandbox_on_agent_lost(void *sandbox, const struct status *err);

/* From a container that was a job of its own (container_job.h): the site has it no more, or cannot let go of it at present. */
void sandbox_on_container_job_gone(struct sandbox *sandbox);
void sandbox_on_container_job_stays(struct sandbox *sandbox, const struct status *err);

/* The size of its job is known (sandbox_size.h). */
void sandbox_on_sized(struct sandbox *sandbox);

/* From its network (pod_network.h). */
void sandbox_on_network_made(struct sandbox *sandbox);
void sandbox_on_network_up(struct sandbox *sandbox);
void sandbox_on_network_failed(struct sandbox *sandbox, const struct status *err);
/* err NULL: nothing is left of it, and the sandbox may be gone afterwards; else it is tried again. */
void sandbox_on_network_removed(struct sandbox *sandbox, const struct status *err);

/* What the agent holds and what we remember are made one; the agent knows what is, we know what is wanted. */
void sandbox_reconcile(struct sandbox *sandbox, const Interlink__Agent__V1__HelloResponse *hello);

/* What its site calls the job, and where it runs; "": nothing new. A requeued job moves. */
void sandbox_learn_job(struct sandbox *sandbox, const char *jid, const char *nodes);

/* Whoever waits for it to leave the queue hears `why`; the job stays where it is. */
void sandbox_stop_waiting(struct sandbox *sandbox, const struct status *why);

/* linux.security_context.namespace_options.network is NODE. */
bool sandbox_is_host_network(const Runtime__V1__PodSandboxConfig *config);
bool sandbox_listed(const struct sandbox *sandbox);
void sandbox_changed(struct sandbox *sandbox); /* renews the list entry */
void sandbox_free(struct sandbox *sandbox);    /* the memory only */
/* It is not a pod yet and nobody wants it any more: its job is cancelled. */
void sandbox_expire(struct sandbox *sandbox);

#endif
