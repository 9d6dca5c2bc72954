/* SPDX-License-Identifier: Apache-2.0 */
/* agent_intake.h: a call that brings bytes, which go through a pipe to a worker, so that neither hashing nor writing happens on
 * the loop. While the pipe is full the call is paused. */
#ifndef AGENT_AGENT_INTAKE_H
#define AGENT_AGENT_INTAKE_H

#include "base/base.h"
#include "io/child.h"
#include "rpc/rpc.h"

struct agent;
struct agent_intake;

struct agent_intake_ops {
    size_t size; /* of the whole object, which begins with a struct agent_intake */
    /* A message: appends to `out` what the worker is to read. False: the call fails. */
    bool (*take)(struct agent_intake *in, const ProtobufCMessage *message, struct buf *out, struct status *err);
    /* In the worker: reads in->read_fd to its end. */
    bool (*work)(struct agent_intake *in, struct buf *output, struct status *err);
    /* The worker has ended well: makes known what it did and answers the call. */
    void (*done)(struct agent_intake *in, struct rpc_call *call, struct buf *output);
    /* The call failed, or was given up: what the worker may have left behind goes. May be NULL. */
    void (*undo)(struct agent_intake *in);
    void (*free)(struct agent_intake *in); /* what the object owns */
    const char *first; /* the field that a call without any message lacks, for its error */
};

struct agent_intake {
    struct list link; /* in agent->intakes */
    const struct agent_intake_ops *ops;
    struct agent *agent;
    struct rpc_call *call;
    bool started; /* the first message has come */
    bool ended;   /* ... and the last */
    int read_fd, write_fd;
    struct watch watch;
    struct buf rest; /* not yet in the pipe; the call is paused meanwhile */
    struct worker worker;
};

/* Serves the call; the object is zeroed but for its beginning. */
void agent_intake_start(struct agent *agent, struct rpc_call *call, const struct agent_intake_ops *ops);
/* In a worker: closes what feeds other workers. */
void agent_intake_close_inputs(struct agent *agent);

#endif
