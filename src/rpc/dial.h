/* SPDX-License-Identifier: Apache-2.0 */
/* dial.h: an agent's way to its relay: name, socket, proxy, TLS, HTTP/1.1 Upgrade; what is left is a bare connection
 * on which the agent is the gRPC server.
 *
 *   GET /agent HTTP/1.1
 *   Host: relay
 *   Connection: Upgrade
 *   Upgrade: interlink-agent/1
 *   Authorization: Bearer TOKEN
 *   Interlink-Sandbox: ID
 *
 * The other end is node/relay.h. */
#ifndef RPC_DIAL_H
#define RPC_DIAL_H

#include "io/stream.h"

#define DIAL_PATH "/agent"
#define DIAL_PROTOCOL "interlink-agent/1"
#define DIAL_SANDBOX_HEADER "Interlink-Sandbox"

struct dial;

/* Strings are copied. */
struct dial_options {
    const char *address;    /* unix path or host:port, as address_parse takes it; TCP is always TLS */
    const char *pin;        /* "sha256:<hex>" of the relay's key; NULL or "": see ca_path */
    const char *ca_path;    /* PEM bundle; NULL or "": the distribution's. Not looked at with a pin */
    const char *sandbox_id;
    const char *token;
    const char *proxy;      /* as in http/client.h: NULL: from https_proxy, HTTPS_PROXY and no_proxy; "": none */
    int64_t timeout_ms;     /* for all of it; 0: DIAL_TIMEOUT_MS */
    /* Exactly once, from the loop, unless cancelled; the dial is gone when it returns. On success err is NULL, the stream
     * is the callee's and `early` (borrowed) holds what the relay sent behind its 101. On failure stream is NULL;
     * `refused`: the relay answered 401, 403, 404 or 410, so trying again will not help. */
    void (*on_done)(void *arg, struct stream *stream, struct str early, const struct status *err, bool refused);
    void *arg;
};

/* Needs child_reaper_start() when the address or the proxy is a name (it is looked up in a worker). */
struct dial *dial_start(struct loop *loop, const struct dial_options *options);
/* The same over a connection that is there already, which it takes (also on failure): a command that the node has run. What carries it
 * need not be safe from others, so a pin is needed and TLS is spoken; `address` is only what messages call it. */
struct dial *dial_start_on(struct loop *loop, struct stream *stream, const struct dial_options *options);
void dial_cancel(struct dial *dial); /* NULL is fine */

#endif
