/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_forward.h: one TCP connection to a port of the pod, each a PortForward call.
 *
 *     first message      one address answers      both sides have ended
 *     WAITING ------> CONNECTING ------> OPEN ------> gone
 *
 * Each way ends by itself: the caller's half-close shuts the connection's input down, once all is written; the connection's
 * end is told by `end`. A connection that breaks fails the call (UNAVAILABLE); a call that is cancelled resets the
 * connection. Back-pressure both ways: what one side does not take is not read from the other.
 */
#ifndef AGENT_AGENT_FORWARD_H
#define AGENT_AGENT_FORWARD_H

#include "base/base.h"
#include "rpc/rpc.h"

struct agent;

/* Handler of PortForward. */
void agent_forward(struct agent *agent, struct rpc_call *call);

#endif
