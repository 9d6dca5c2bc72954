/* SPDX-License-Identifier: Apache-2.0 */
/* rpc.h: gRPC over HTTP/2 (nghttp2), both ends; either end of a connection may have dialled it.
 * Source: grpc/doc/PROTOCOL-HTTP2.md, doc/statuscodes.md, doc/keepalive.md.
 *
 *   rpc_services   what a server offers: a table of services
 *   rpc_conn       one connection, in the role of server or client, on any stream
 *   rpc_call       one RPC on the server side
 *   rpc_request    one RPC on the client side
 *
 * Life of a call: the handler gets it and must end it once, now or later: rpc_reply, rpc_reply_packed, rpc_finish or
 * rpc_fail. When the client cancels, its deadline passes or the connection goes, the call's cancel function (if set)
 * runs, and after it returns the call is gone: it must not be touched again. Without a cancel function a call that was
 * cancelled stays valid until the handler ends it (the answer is dropped). After ending a call it must not be touched.
 * The same for a request: after on_finish, or after rpc_cancel, it is gone. */
#ifndef RPC_RPC_H
#define RPC_RPC_H

#include "base/base.h"
#include "io/stream.h"

#include <protobuf-c/protobuf-c.h>

/* One field of metadata to send. key: lower case; "...-bin": any bytes (encoded by us), else printable ASCII. */
struct rpc_metadata {
    const char *key;
    const void *value;
    size_t n;
};

/* ---- what is offered ---- */
struct rpc_call;

enum rpc_kind { RPC_UNARY, RPC_CLIENT_STREAMING, RPC_SERVER_STREAMING, RPC_BIDI_STREAMING };

struct rpc_method {
    const char *name; /* "RunPodSandbox" */
    enum rpc_kind kind;
    const ProtobufCMessageDescriptor *input, *output;
    /* Unary and server-streaming: called once with the request, which lives as long as the call. Client- and
     * bidi-streaming: called with NULL when the headers came; messages then come through rpc_on_message. */
    void (*handler)(void *context, struct rpc_call *call, const ProtobufCMessage *request);
};

struct rpc_service {
    const char *name; /* "runtime.v1.RuntimeService" */
    const struct rpc_method *methods;
    size_t method_count;
    void *context; /* handed to each handler */
};

struct rpc_services {
    const struct rpc_service *const *services;
    size_t count;
    /* Called when a call ends, for metrics and logs; may be NULL. `seconds` from headers to end. */
    void (*on_call_end)(void *arg, const char *service, const char *method, enum status_code code, double seconds);
    void *arg;
};

/* ---- connections ---- */
struct rpc_conn;
struct h2_budget;

struct rpc_conn_options {
    const struct rpc_services *services; /* server role: what to offer; NULL: client role */
    int64_t keepalive_ms;                /* a PING after this much silence; 0: none */
    int64_t keepalive_timeout_ms;        /* then close when it is not answered in time */
    struct h2_budget *budget;            /* shared by connections (http/h2.h); NULL: each has its own */
    /* Heard once, when the connection is closed or broken (never from inside rpc_conn_free); all calls and requests
     * have ended by then. The connection must be freed in it or later. `err` says why. */
    void (*on_close)(void *arg, const struct status *err);
    void *arg;
};
/* Takes the stream. `early`: bytes that the peer has sent already (read past an HTTP/1.1 upgrade); may be empty. */
struct rpc_conn *rpc_conn_new(struct loop *loop, struct stream *stream, const struct rpc_conn_options *options,
                              struct str early);
/* GOAWAY: running calls and requests end in peace, then the connection closes by itself (on_close). */
void rpc_conn_shutdown(struct rpc_conn *conn);
/* Ends everything at once: calls are cancelled, requests finish with UNAVAILABLE. NULL is fine. */
void rpc_conn_free(struct rpc_conn *conn);
size_t rpc_conn_active(const struct rpc_conn *conn); /* calls or requests under way */
struct stream *rpc_conn_carrier(const struct rpc_conn *conn); /* what carries it; NULL once it is closed */
/* What the connection has carried so far, in bytes. */
void rpc_conn_bytes(const struct rpc_conn *conn, uint64_t *received, uint64_t *sent);

/* A listening gRPC server: accepted connections are owned here. */
struct rpc_server;
struct rpc_server *rpc_server_new(struct loop *loop, const struct rpc_services *services);
void rpc_server_accept(struct rpc_server *server, struct stream *stream); /* takes it */
/* GOAWAY on every connection; on_drained once when the last is closed. */
void rpc_server_shutdown(struct rpc_server *server, void (*on_drained)(void *arg), void *arg);
void rpc_server_free(struct rpc_server *server);

/* ---- server side ---- */
struct arena *rpc_call_arena(struct rpc_call *call);
/* Request metadata; keys are lower case; "-bin" values come decoded. The first of several. p is NULL when absent, else
 * NUL-terminated; borrowed, as long as the call. */
struct str rpc_call_metadata(struct rpc_call *call, const char *key);
/* All of it, as it came ("-bin" values are base64): false when there is no field number `index`. */
bool rpc_call_metadata_at(struct rpc_call *call, size_t index, const char **key, const char **value);
/* Adds to the answer: to its headers, as long as nothing was sent, or to its trailers. Copied. */
void rpc_call_add_header(struct rpc_call *call, const struct rpc_metadata *field);
void rpc_call_add_trailer(struct rpc_call *call, const struct rpc_metadata *field);
/* Milliseconds left until the deadline; INT64_MAX without one. */
int64_t rpc_call_time_left_ms(const struct rpc_call *call);
bool rpc_call_cancelled(const struct rpc_call *call);
void rpc_call_on_cancel(struct rpc_call *call, void (*fn)(void *arg), void *arg);

/* Unary and client-streaming: the one response, and OK. */
void rpc_reply(struct rpc_call *call, const ProtobufCMessage *response);
/* Same with the response already encoded (copied). */
void rpc_reply_packed(struct rpc_call *call, const void *p, size_t n);
/* Same by reference: for cached lists. */
void rpc_reply_shared(struct rpc_call *call, struct shared *response);
void rpc_fail(struct rpc_call *call, const struct status *status);
/* Shorthand. */
void rpc_failf(struct rpc_call *call, enum status_code code, const char *format, ...) PRINTF_LIKE(3, 4);

/* Server- and bidi-streaming: queues one message (encoded at once). Returns false when the queue is above its high-water
 * mark (the message is kept all the same): stop sending until on_writable. On a call that was cancelled nothing is
 * sent, the answer is false, and on_writable never comes: a stream needs rpc_call_on_cancel. */
bool rpc_send(struct rpc_call *call, const ProtobufCMessage *message);
/* Same with the message already encoded (copied). */
bool rpc_send_packed(struct rpc_call *call, const void *p, size_t n);
/* Sends the headers of the answer now instead of with the first message: the client sees that it is being served. */
void rpc_send_headers(struct rpc_call *call);
void rpc_call_on_writable(struct rpc_call *call, void (*fn)(void *arg), void *arg);
/* Ends a stream; what is queued is delivered first. */
void rpc_finish(struct rpc_call *call, const struct status *status); /* NULL: OK */

/* Client- and bidi-streaming: fn hears each message (valid during the call of fn) and NULL at the peer's half-close. */
void rpc_call_on_message(struct rpc_call *call, void (*fn)(void *arg, const ProtobufCMessage *message), void *arg);
/* Stops and restarts the flow of messages: while paused the peer runs into flow control. */
void rpc_call_pause(struct rpc_call *call, bool paused);

/* ---- client side ---- */
struct rpc_request;

struct rpc_request_options {
    const char *method; /* "/runtime.v1.RuntimeService/Version" */
    const ProtobufCMessageDescriptor *output;
    int64_t timeout_ms; /* 0: none */
    bool bulk;          /* what it carries waits for other requests, both ways */
    void (*on_message)(void *arg, const ProtobufCMessage *message); /* may be NULL */
    void (*on_writable)(void *arg);                                 /* may be NULL */
    /* Heard exactly once unless the request is cancelled: OK or the error. rpc_conn_free calls it, too (UNAVAILABLE). */
    void (*on_finish)(void *arg, const struct status *status);
    void *arg;
    const struct rpc_metadata *metadata; /* sent with the request; copied */
    size_t metadata_count;
};
/* Never fails at once: an error comes through on_finish, from the loop. */
struct rpc_request *rpc_request_start(struct rpc_conn *conn, const struct rpc_request_options *options);
bool rpc_request_send(struct rpc_request *request, const ProtobufCMessage *message); /* as rpc_send */
bool rpc_request_send_packed(struct rpc_request *request, const void *p, size_t n);  /* as rpc_send_packed */
void rpc_request_half_close(struct rpc_request *request);
/* Metadata of the answer so far (headers and trailers), as rpc_call_metadata; valid until on_finish returns. */
struct str rpc_request_metadata(struct rpc_request *request, const char *key);
void rpc_request_pause(struct rpc_request *request, bool paused);
/* RST_STREAM(CANCEL); on_finish is not called. NULL is fine. */
void rpc_request_cancel(struct rpc_request *request);
/* Sends the one message and half-closes; on_done hears status OK with the response (valid during the call), or an error
 * with NULL. */
struct rpc_request *rpc_unary(struct rpc_conn *conn, const char *method, const ProtobufCMessage *message,
                              const ProtobufCMessageDescriptor *output, int64_t timeout_ms,
                              void (*on_done)(void *arg, const struct status *status, const ProtobufCMessage *response),
                              void *arg);

#endif
