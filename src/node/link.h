/* SPDX-License-Identifier: Apache-2.0 */
/* link.h: the connection to a pod's agent: the node is the gRPC client on a connection that the agent dialled. */
#ifndef NODE_LINK_H
#define NODE_LINK_H

#include "node/sandbox.h"
#include "rpc/rpc.h"

struct link;

/* Whose agent it is. */
struct link_owner {
    void (*on_ready)(void *arg, const Interlink__Agent__V1__HelloResponse *hello);
    void (*on_refused)(void *arg, const struct status *err); /* the agent will not be this pod's */
    void (*on_lost)(void *arg, const struct status *err);    /* the connection has gone; the owner frees the link */
};

/* Takes the stream; says hello, configures the sandbox (once its network is up), subscribes to events; then on_ready. */
struct link *link_new(struct sandbox *sandbox, const struct link_owner *owner, void *arg, struct stream *stream, struct str early);
/* Its owner's callbacks hear this from now on. */
void link_give(struct link *link, void *arg);
struct rpc_conn *link_conn(struct link *link);
bool link_ready(const struct link *link);
/* What the agent said of itself; NULL until it has. Borrowed. */
const Interlink__Agent__V1__HelloResponse *link_hello(const struct link *link);
/* The network that the agent is in: a descriptor of its namespace, for the caller to close, when serve can see it; else -1. */
int link_netns(const struct link *link);
void link_bytes(const struct link *link, uint64_t *received, uint64_t *sent);
/* The pod's network is up: goes on with the set-up if that waits for it. */
void link_configure(struct link *link);
void link_free(struct link *link); /* NULL is fine */

#endif
