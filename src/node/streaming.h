/* SPDX-License-Identifier: Apache-2.0 */
/*
 * streaming.h: the server behind the URLs that Exec, Attach and PortForward answer with.
 *
 *   streaming.[ch]         the RPCs, the listener, the way from a token to a session
 *   stream_token.[ch]      requests waiting for their client
 *   stream_upgrade.[ch]    the protocols
 *   stream_session.h       what sessions have in common
 *   stream_command.c       exec and attach: channels of the client's connection <-> one call to the agent
 *   stream_forward.c       port forward: pairs of channels <-> a call to the agent each
 *
 * A client is whoever has the URL: kubelet hands it on to the API server's clients. Its token is 256 random bits, good for one
 * request as it was checked, once, within a minute.
 */
#ifndef NODE_STREAMING_H
#define NODE_STREAMING_H

#include "node/node.h"

struct streaming;

/* By node->options->streaming; NULL on failure. */
struct streaming *streaming_start(struct node *node, struct status *err);
/* Takes no more clients and tells those that are there; on_drained, from the loop, once all have taken that in. */
void streaming_shutdown(struct streaming *streaming, const struct status *why, void (*on_drained)(void *arg), void *arg);
/* Streams do not outlive the pod's agent, which serves them: they end, and their clients are told why. */
void streaming_pod_gone(const struct sandbox *sandbox, const char *reason);
/* Ends what is left at once. NULL is fine. */
void streaming_stop(struct streaming *streaming);
size_t streaming_sessions(const struct streaming *streaming);

/* The RPCs; node->streaming may be NULL: switched off. */
void streaming_exec(struct node *node, struct rpc_call *call, const Runtime__V1__ExecRequest *request);
void streaming_attach(struct node *node, struct rpc_call *call, const Runtime__V1__AttachRequest *request);
void streaming_port_forward(struct node *node, struct rpc_call *call, const Runtime__V1__PortForwardRequest *request);

#endif
