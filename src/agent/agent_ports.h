/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_ports.h: the TCP ports on which the pod's containers take connections from others.
 *
 * The kernel does not say when a port is listened on, so it is asked: a few times a second after something has happened, once a
 * second else, and only while the node wants to know. A socket that was not there before is looked for among the open files of
 * the containers' processes, in a worker: the pod shares its network with the machine, on which others listen, too.
 */
#ifndef AGENT_AGENT_PORTS_H
#define AGENT_AGENT_PORTS_H

#include "io/child.h"
#include "io/sock_listeners.h"
#include "rpc/rpc.h"

#include "agent.pb-c.h"

struct agent;

struct agent_ports_socket {
    struct sock_listener listener;
    bool known, ours;
    int64_t looked_ms; /* monotonic; when `known` */
};

/* All zero is fine but for `agent`; call agent_ports_free. */
struct agent_ports {
    struct list subscribers; /* live in their calls' arenas */
    size_t subscriber_count;
    struct agent_ports_socket *sockets; /* owned */
    size_t count;
    struct buf told;    /* what was said last, encoded */
    bool any_told;
    int64_t quick_until_ms; /* monotonic */
    struct timer look;
    struct worker search;
};

void agent_ports_init(struct agent_ports *p);
void agent_ports_free(struct agent *agent); /* subscriptions must have ended */
/* A Ports call. */
void agent_ports_subscribe(struct agent *agent, struct rpc_call *call);
/* Something has happened to a container: its ports may change soon. */
void agent_ports_expect(struct agent *agent);
/* Ends all subscriptions in peace. */
void agent_ports_close(struct agent *agent);
/* What is told of those sockets that are the pod's; for tests. Borrows nothing from `sockets`. */
Interlink__Agent__V1__PortsResponse *agent_ports_message(struct arena *arena, const struct agent_ports_socket *sockets, size_t count);

#endif
