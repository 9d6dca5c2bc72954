/* SPDX-License-Identifier: Apache-2.0 */
/* conn.h: the inside of rpc: what a connection, a call (server side) and a request (client side) share. Only rpc's own
 * files include it. */
#ifndef RPC_CONN_H
#define RPC_CONN_H

#include "http/h2.h"
#include "rpc/methods.h"
#include "rpc/rpc.h"

struct rpc_conn {
    struct loop *loop;
    struct h2 *h2; /* owned */
    struct rpc_conn_options options;
    const struct rpc_methods *methods; /* server role: what is offered */
    struct rpc_methods *own_methods;   /* owned; NULL when `methods` is shared */
    struct list streams;               /* of rpc_stream.link: calls and requests not ended by both sides */
    size_t abandoned;                  /* calls among them whose stream is closed */
    struct rpc_call *pool;             /* owned; calls for reuse */
    size_t pool_count;
    struct list unstarted;     /* of rpc_stream.link: requests that could not be started */
    struct deferred fail;      /* ends them */
    size_t unfinished;         /* of all streams */
};

/* One message after another out of a body: a prefix of 5 bytes (compressed flag, length), then protobuf. */
struct rpc_stream {
    struct h2_stream h2; /* first */
    const struct rpc_stream_ops *ops;
    struct rpc_conn *conn; /* NULL once it is freed */
    struct list link;
    const ProtobufCMessageDescriptor *type;
    struct arena arena;         /* lives as long as the call */
    struct arena message_arena; /* of the message being delivered */
    struct buf in;              /* a message not yet complete, or not yet wanted */
    size_t unfinished;          /* of it, what no window bounds: an unfinished message's bytes beyond the first window */
    ProtobufCMessage *message;  /* when `single`: the one, once it is complete */
    nghttp2_rcbuf *encoding;    /* grpc-encoding, or NULL; a reference */
    struct rpc_metadata_field {
        nghttp2_rcbuf *name, *value; /* references */
    } *metadata, metadata_few[4];
    size_t metadata_count;
    struct deferred resume;
    unsigned holds;  /* callbacks under way: the memory must stay */
    bool single;     /* exactly one message is expected */
    bool paused;
    bool discard;    /* nothing more is delivered */
    bool half_closed; /* the peer sends no more */
};

struct rpc_stream_ops {
    void (*on_header)(struct rpc_stream *s, nghttp2_rcbuf *name, nghttp2_rcbuf *value);
    void (*on_headers)(struct rpc_stream *s);
    void (*on_message)(struct rpc_stream *s, const ProtobufCMessage *message);
    void (*on_half_close)(struct rpc_stream *s); /* after the last message */
    void (*on_bad_message)(struct rpc_stream *s, const struct status *err);
    void (*on_writable)(struct rpc_stream *s);
    void (*on_close)(struct rpc_stream *s, uint32_t code);
    void (*unhold)(struct rpc_stream *s); /* a callback returned: frees what has ended */
};

static inline struct str rpc_rcbuf_str(nghttp2_rcbuf *b)
{
    nghttp2_vec v = nghttp2_rcbuf_get_buf(b);
    return (struct str){ (const char *)v.base, v.len };
}

/* ---- inbound.c ---- */
void rpc_inbound_data(struct rpc_stream *s, const uint8_t *p, size_t n);
void rpc_inbound_end(struct rpc_stream *s);
void rpc_inbound_pause(struct rpc_stream *s, bool paused);
/* Forgets what was received and delivers nothing more. */
void rpc_inbound_discard(struct rpc_stream *s);
/* Keeps a metadata field (a reference each); those above RPC_METADATA_MAX are dropped. */
void rpc_metadata_keep(struct rpc_stream *s, nghttp2_rcbuf *name, nghttp2_rcbuf *value);
struct str rpc_metadata_find(struct rpc_stream *s, const char *key);
bool rpc_metadata_at(struct rpc_stream *s, size_t index, const char **key, const char **value);
/* A field to send, its memory in the arena; -bin values are encoded. */
nghttp2_nv rpc_metadata_field_of(struct arena *arena, const struct rpc_metadata *m);
nghttp2_nv rpc_field(const char *name, const char *value, size_t value_length); /* borrows both */
/* Queues one message. */
void rpc_stream_send(struct rpc_stream *s, const ProtobufCMessage *message);
void rpc_stream_send_packed(struct rpc_stream *s, const void *p, size_t n);
void rpc_stream_send_shared(struct rpc_stream *s, struct shared *message);
/* Gives back everything but the arenas' first chunks. */
void rpc_stream_reset(struct rpc_stream *s);

/* ---- conn.c ---- */
/* As rpc_conn_new, sharing a table of methods, which must outlive the connection. */
struct rpc_conn *rpc_conn_new_shared(struct loop *loop, struct stream *stream, const struct rpc_conn_options *options,
                                     const struct rpc_methods *methods, struct str early);

/* ---- call.c, request.c ---- */
struct rpc_stream *rpc_call_open(struct rpc_conn *conn);
void rpc_call_connection_gone(struct rpc_stream *s); /* rpc_conn_free: s->conn is NULL already */
void rpc_call_pool_free(struct rpc_conn *conn);
void rpc_request_connection_gone(struct rpc_stream *s);

#endif
