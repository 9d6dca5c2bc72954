/* SPDX-License-Identifier: Apache-2.0 */
/* stream_upgrade.h: which protocol a client wants to speak, out of those that Kubernetes has had, and the change to it.
 *
 *   Upgrade    protocol                                exec, attach            port forward
 *   SPDY/3.1   X-Stream-Protocol-Version               channel.k8s.io, v2-v4   portforward.k8s.io
 *   websocket  Sec-WebSocket-Protocol                  none, channel.k8s.io,   none, v4.channel.k8s.io; with a SPDY connection
 *                                                      v4, v5                  inside: v2.portforward.k8s.io
 *              the same in base64                      base64.channel.k8s.io,  v4.base64.channel.k8s.io
 *                                                      v4.base64 */
#ifndef NODE_STREAM_UPGRADE_H
#define NODE_STREAM_UPGRADE_H

#include "http/channel.h"
#include "http/server.h"
#include "node/stream_token.h"

struct stream_protocol {
    const char *name; /* "" for a WebSocket client that names none */
    enum channel_carrier carrier;
    int version; /* of channel.k8s.io: 1 to 5 */
};

/* NULL: the exchange has been answered. */
const struct stream_protocol *stream_upgrade_choose(struct http_exchange *x, enum stream_kind kind);
/* Answers 101; ends the exchange. NULL when the client is gone. */
struct stream *stream_upgrade(struct http_exchange *x, const struct stream_protocol *protocol, struct buf *early);

#endif
