/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_exec.h: one more process in a running container, its standard streams carried by an Exec call.
 *
 *     first message    worker answers        process ends      streams end, or AGENT_DRAIN_MS
 *     WAITING ------> STARTING ------> RUNNING ------> ENDED ------> gone
 *
 * The call may go away at any time (the caller cancelled, the connection broke): then the process and all that came of it
 * is killed, and the object lives until that is done. A time-out does the same, but the call hears of it at the end.
 * Back-pressure both ways: output is not read while the call cannot take it, messages do not flow while the process
 * does not read.
 */
#ifndef AGENT_AGENT_EXEC_H
#define AGENT_AGENT_EXEC_H

#include "base/base.h"
#include "rpc/rpc.h"

struct agent;
struct agent_container;

/* Handler of Exec. */
void agent_exec(struct agent *agent, struct rpc_call *call);

/* ---- for the container ---- */
/* Kills all that runs in it by exec. */
void agent_exec_kill_all(struct agent_container *c);
/* The container goes; what is still being killed does not know it any more. */
void agent_exec_detach_all(struct agent_container *c);
/* In a worker: closes the agent's ends of standard inputs. */
void agent_exec_close_inputs(struct agent_container *c);

#endif
