/* SPDX-License-Identifier: Apache-2.0 */
/* server.h: an HTTP/1.1 server on any stream (socket, TLS).
 *
 *   http_route      what is offered: method, path, bound on the body, handler
 *   http_server     the connections, their time-outs and bounds
 *   http_exchange   one request and its reply
 *
 * Life of an exchange: the handler gets it (with the whole body, unless the route streams it) and must end it once, now
 * or later: http_reply*, or http_reply_start ... http_reply_end (or http_reply_abort), or http_exchange_upgrade. After
 * that it must not be touched. When the peer goes before, or the server is freed, the function set with
 * http_exchange_on_gone runs, and after it returns the exchange is gone. Without such a function the exchange stays valid
 * until the handler ends it, and the reply is dropped.
 *
 * Requests on one connection are handled one after another; a client that pipelines waits (its bytes stay in the socket). */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "http/http.h"
#include "io/stream.h"

struct http_server;
struct http_exchange;

struct http_route {
    const char *method; /* "GET"; NULL: any. A GET route answers HEAD too (the body is not sent) */
    const char *path;   /* the whole decoded path, or a prefix when it ends in a slash ("/exec/"; "/" is everything) */
    size_t body_max;    /* collected body; a larger one is answered 413. 0: a request with a body is answered 413 */
    bool stream_body;   /* the handler is called before the body, which comes through http_exchange_on_body (unbounded) */
    void (*handler)(void *context, struct http_exchange *x);
};

struct http_server_options {
    const struct http_route *routes; /* the first that matches; borrowed for the server's life */
    size_t route_count;
    void *context;               /* handed to each handler */
    size_t connections_max;      /* 0: HTTP_CONNECTIONS_MAX. Beyond it new connections are closed at once */
    int64_t head_timeout_ms;     /* from the first wait for a request's head to its end; 0: HTTP_HEAD_TIMEOUT_MS */
    int64_t idle_timeout_ms;     /* between requests on a kept connection; 0: HTTP_IDLE_TIMEOUT_MS */
    int64_t body_timeout_ms;     /* silence in the middle of a body; 0: HTTP_BODY_TIMEOUT_MS */
    int64_t write_timeout_ms;    /* a peer that takes nothing of a reply; 0: HTTP_WRITE_TIMEOUT_MS */
};

struct http_server *http_server_new(struct loop *loop, const struct http_server_options *options);
/* Takes the stream. */
void http_server_accept(struct http_server *server, struct stream *stream);
/* The same for a descriptor just accepted; fits `struct listener`'s on_accept with the server as its arg. */
void http_server_accept_fd(void *server, int fd);
size_t http_server_connections(const struct http_server *server);
/* Idle connections close; exchanges under way end in peace, then on_drained is called, from the loop. New connections
 * are closed at once. */
void http_server_shutdown(struct http_server *server, void (*on_drained)(void *arg), void *arg);
/* Ends everything at once. NULL is fine. Not from inside a handler or another function that the server calls. */
void http_server_free(struct http_server *server);

/* ---- the request; all strings live as long as the exchange ---- */
const char *http_exchange_method(const struct http_exchange *x);
const char *http_exchange_path(const struct http_exchange *x);  /* percent-decoded */
const char *http_exchange_query(const struct http_exchange *x); /* raw; "" when there is none */
const char *http_exchange_query_get(struct http_exchange *x, const char *key); /* decoded; NULL when absent */
const char *http_exchange_header(const struct http_exchange *x, const char *name); /* NULL when absent */
/* Whether a comma-separated list under that name, in any of its lines, holds the token (compared without case). */
bool http_exchange_has_token(const struct http_exchange *x, const char *name, const char *token);
struct str http_exchange_body(const struct http_exchange *x); /* NUL-terminated beyond its end, for parsers that like it */
const char *http_exchange_peer(const struct http_exchange *x); /* for log lines */
struct arena *http_exchange_arena(struct http_exchange *x);

/* Routes with stream_body: fn hears each piece (valid during the call) and an empty one at the end. */
void http_exchange_on_body(struct http_exchange *x, void (*fn)(void *arg, struct str piece), void *arg);
void http_exchange_pause(struct http_exchange *x, bool paused); /* paused: the peer runs into TCP's flow control */
void http_exchange_on_gone(struct http_exchange *x, void (*fn)(void *arg), void *arg);

/* ---- the reply ---- */
/* Whole; headers and body are copied. Content-Length, Date and Connection are ours. */
void http_reply(struct http_exchange *x, int http_status, const struct http_header *headers, size_t header_count,
                const void *body, size_t body_n);
/* Shorthands: `type` is the Content-Type. */
void http_reply_text(struct http_exchange *x, int http_status, const char *type, struct str body);
void http_replyf(struct http_exchange *x, int http_status, const char *format, ...) PRINTF_LIKE(3, 4); /* text/plain */
/* http_from_status_code() and the message as text. */
void http_reply_error(struct http_exchange *x, const struct status *error);

/* Streamed: chunked for HTTP/1.1, ended by closing for 1.0. */
void http_reply_start(struct http_exchange *x, int http_status, const struct http_header *headers, size_t header_count);
/* Queues a copy. False when the queue is above its high-water mark: stop sending until on_writable. */
bool http_reply_send(struct http_exchange *x, const void *p, size_t n);
void http_exchange_on_writable(struct http_exchange *x, void (*fn)(void *arg), void *arg);
void http_reply_end(struct http_exchange *x);
/* Ends the exchange by breaking the connection, so that the peer sees that the reply is not complete. */
void http_reply_abort(struct http_exchange *x);

/* Answers 101 with `Upgrade: protocol` and hands the connection over: the caller owns the stream; `early` (an empty buffer)
 * receives what the peer sent behind its request. Only for a request that asked for the upgrade and before any reply;
 * NULL when that is not so or the peer is gone: the exchange has then ended (answered 400 where possible). */
struct stream *http_exchange_upgrade(struct http_exchange *x, const char *protocol, const struct http_header *headers,
                                     size_t header_count, struct buf *early);
/* Whether the request asks for an upgrade to that protocol (the name is compared without case). */
bool http_exchange_wants_upgrade(const struct http_exchange *x, const char *protocol);

#endif
