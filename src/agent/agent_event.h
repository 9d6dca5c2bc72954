/* SPDX-License-Identifier: Apache-2.0 */
/* agent_event.h: what happened to containers, in order, for whoever subscribed. The last AGENT_EVENTS_MAX are kept; the
 * snapshot in Hello stands for older ones. */
#ifndef AGENT_AGENT_EVENT_H
#define AGENT_AGENT_EVENT_H

#include "base/base.h"
#include "rpc/rpc.h"

#include "agent.pb-c.h"

/* Call agent_events_init. */
struct agent_events {
    uint64_t last; /* the newest event's number; 0: none yet */
    struct list kept; /* owned; oldest first */
    size_t count;
    struct list subscribers; /* live in their calls' arenas */
    size_t subscriber_count;
};

void agent_events_init(struct agent_events *e);
void agent_events_free(struct agent_events *e); /* subscriptions must have ended */
/* Copies the state. */
void agent_events_add(struct agent_events *e, const Interlink__Agent__V1__ContainerState *state);
/* An Events call: everything from number `from` on (0: from the oldest kept), until the connection goes. OUT_OF_RANGE when
 * older ones than those kept are wanted. */
void agent_events_subscribe(struct agent_events *e, struct rpc_call *call, uint64_t from);
/* Ends all subscriptions in peace. */
void agent_events_close(struct agent_events *e);

#endif
