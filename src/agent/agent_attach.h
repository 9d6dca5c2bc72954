/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_attach.h: clients at the standard streams of a running container's first process: any number at once, each an Attach
 * call. They come and go; the process runs on.
 *
 *  - Output from the moment of attaching, the same bytes in the same order as the log gets. `exited` follows the last.
 *  - A client that does not take its output holds up the process, as its log does; one that takes nothing for
 *    AGENT_ATTACH_STALL_MS is sent away (RESOURCE_EXHAUSTED), so that the process and its log go on.
 *  - Input of several clients is taken by turns, message by message. When a client's input ends, or the client goes, the
 *    container's standard input stays open for the next one, unless the container was created with stdin_once: then it is
 *    closed. With a terminal it stays open even then, as with other runtimes: kubectl's word after a broken session is to
 *    attach again.
 *  - A client that asked for nothing but input is done when that has ended.
 */
#ifndef AGENT_AGENT_ATTACH_H
#define AGENT_AGENT_ATTACH_H

#include "base/base.h"
#include "rpc/rpc.h"

struct agent;
struct agent_container;

/* Handler of Attach. */
void agent_attach(struct agent *agent, struct rpc_call *call);
/* The process has ended and its output is complete: tells everybody who is attached. */
void agent_attach_end_all(struct agent_container *c);

#endif
