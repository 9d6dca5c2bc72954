/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_ending.h: the end of the pod, whoever asked for it.
 *
 *     stop signals        grace is over: KILL      all have ended         logs stored           all removed
 *   -------------> STOPPING ---------> KILLING ---------------> HANDOVER ---------> REMOVING --------------> DONE
 *
 * REMOVING: the containers, then what was brought for them and their emptyDirs (agent_files.h).
 *
 * Each phase but the first has its own bound in time, so that the agent ends in any case; when it does, the kernel ends what
 * is left in its namespaces.
 */
#ifndef AGENT_AGENT_ENDING_H
#define AGENT_AGENT_ENDING_H

#include "io/child.h"

struct agent;
struct rpc_call;

enum agent_ending_phase {
    AGENT_ENDING_NOT,
    AGENT_ENDING_STOPPING,
    AGENT_ENDING_KILLING,
    AGENT_ENDING_HANDOVER,
    AGENT_ENDING_REMOVING,
    AGENT_ENDING_DONE,
};

/* All zero: nobody has asked. Set on_done. */
struct agent_ending {
    enum agent_ending_phase phase;
    struct timer timer;
    struct deferred step;
    int64_t grace_until_ms; /* monotonic */
    size_t removing;        /* containers */
    bool clearing;          /* they are gone; their files go, in the worker */
    struct worker worker;
    struct rpc_call *calls[8]; /* Shutdown calls that wait for the end */
    size_t call_count;
    /* Heard once, when all is gone, the engine too, and the calls are answered. */
    void (*on_done)(void *arg);
    void *arg;
};

/* Begins, or shortens the grace. `call` (may be NULL) is answered at the end. */
void agent_ending_start(struct agent *agent, int64_t grace_ms, struct rpc_call *call);
/* It has begun, and not because the node asked for it: a signal told us. */
bool agent_ending_unasked(const struct agent *agent);
/* Something has changed that it may wait for. */
void agent_ending_check(struct agent *agent);
void agent_ending_cancel(struct agent *agent);

#endif
