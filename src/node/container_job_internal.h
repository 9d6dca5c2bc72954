/* SPDX-License-Identifier: Apache-2.0 */
/* container_job_internal.h: what container_job.c and container_inside.c share; nobody else includes it. */
#ifndef NODE_CONTAINER_JOB_INTERNAL_H
#define NODE_CONTAINER_JOB_INTERNAL_H

#include "io/child.h"
#include "node/container_job.h"

struct container_job_log;
struct interlink_job;

struct container_job {
    struct container *container;
    struct interlink_job *job;       /* owned; NULL: none, or its deletion is confirmed */
    struct container_job_log *log;   /* owned; NULL before it runs */
    struct link *link;               /* owned; to the agent in the container; NULL: there is none at present */
    struct worker writer;            /* makes the request */
    struct buf request;              /* owned; from CreateContainer to StartContainer; secrets are in it */
    struct rpc_call *creating;       /* CreateContainer; NULL: answered, or its client has gone */
    bool created;                    /* CreateContainer has succeeded */
    bool starting;                   /* from StartContainer until it is answered */
    bool ending;                     /* the job is to be deleted */
    bool stopped;                    /* kubelet wanted it to end: no other attempt will follow */
    bool farewell;                   /* its agent was asked to end, so that it leaves nothing behind */
    bool cancelled;                  /* and its deletion was asked for */
    int64_t grace_s;
    char *words;                     /* owned */
    struct timer hold;               /* of StartContainer: how long a queue is waited for */
    struct timer patience;           /* of a stop: how long the output is waited for */
};

/* ---- container_job.c ---- */
/* It runs since then; 0: it waits in a queue, or nobody has said. Answers its start. */
void container_job_running(struct container *container, int64_t started_ns);
/* Its job is to be deleted, once what it has written so far is stored. */
void container_job_end(struct container *container, int64_t grace_s);
void container_job_delete(void *container);
void container_job_start_failed(struct container *container, const struct status *err);
/* The configuration of its image, a small file of the store. The caller frees. */
bool container_job_read_image(const struct container *container, struct image_config *out, struct status *err);

/* ---- container_inside.c: the agent that runs the container's command where the site has made the container ---- */
/* NULL: UNAVAILABLE. */
struct link *container_inside_link(struct container *container, struct status *err);
/* The job of an earlier attempt, whose agent waits, becomes this container's, and runs its command. False: there is none. */
bool container_inside_take_over(struct container *container);
/* Asks the agent to end; container_job_delete() when its connection has gone. False: there is none to ask. */
bool container_inside_shutdown(struct container *container);
void container_inside_follow_log(struct container *container);
void container_inside_free(struct container_job *job);

#endif
