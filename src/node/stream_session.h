/* SPDX-License-Identifier: Apache-2.0 */
/* stream_session.h: one open stream of streaming.h: a command (exec, attach) or a port forward, from the upgrade of the
 * client's connection to its end. It frees itself when that connection is gone. */
#ifndef NODE_STREAM_SESSION_H
#define NODE_STREAM_SESSION_H

#include "http/channel.h"
#include "node/node.h"
#include "node/stream_upgrade.h"

struct streaming;

struct stream_session {
    struct list link; /* in the list of streaming.c */
    struct streaming *streaming;
    struct node *node;
    const struct stream_protocol *protocol;
    char pod[ID_LENGTH + 1];   /* "": there was none any more */
    struct channel_conn *conn; /* owned */
    const struct stream_session_ops *ops;
};

struct stream_session_ops {
    void (*stop)(struct stream_session *s, const struct status *why); /* tells the client and closes; then it is freed */
    void (*free)(struct stream_session *s);
};

/* What the client's connection is made of; both constructors take the request and the stream. */
struct stream_opening {
    struct streaming *streaming;
    struct node *node;
    enum stream_kind kind;
    const char *pod;
    ProtobufCMessage *request; /* ExecRequest, AttachRequest or PortForwardRequest of CRI */
    const struct stream_protocol *protocol;
    struct stream *stream;
    struct str early;
};
struct stream_session *stream_command_open(const struct stream_opening *opening);
/* ports: those of the request or, when it names none, of the URL; for plain WebSocket. Borrowed. */
struct stream_session *stream_forward_open(const struct stream_opening *opening, const uint16_t *ports, size_t port_count);

/* ---- streaming.c, for both ---- */
void stream_session_init(struct stream_session *s, const struct stream_opening *opening,
                         const struct stream_session_ops *ops);
/* Makes s->conn; `options` needs channel_count, channels_max and the functions. */
void stream_session_connect(struct stream_session *s, const struct stream_opening *opening,
                            struct channel_conn_options *options);
void stream_session_done(struct stream_session *s); /* frees the connection; out of the list */
/* Connections of all port forwards: one more, if there may be, or one less. */
bool stream_forwards_add(struct streaming *streaming);
void stream_forwards_remove(struct streaming *streaming);
/* A channel that nothing wants. */
void stream_channel_refuse(struct channel *c);
/* Our way ends; with WebSocket, where no client expects to be told, the end of the connection says so. */
void stream_channel_end(const struct stream_session *s, struct channel *c);

#endif
