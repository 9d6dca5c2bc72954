/* SPDX-License-Identifier: Apache-2.0 */
/* server_internal.h: what server.c (connections) and exchange.c (requests and replies) share; nobody else includes it. */
#ifndef HTTP_SERVER_INTERNAL_H
#define HTTP_SERVER_INTERNAL_H

#include "http/http1.h"
#include "http/server.h"

/* A connection moves WAIT -> HEAD -> BODY -> REPLY -> WAIT ..., and from anywhere to LINGER when it is to end. BODY and
 * REPLY have an exchange. */
enum http_phase {
    HTTP_PHASE_WAIT,   /* no byte of a request yet */
    HTTP_PHASE_HEAD,   /* some bytes of one */
    HTTP_PHASE_BODY,   /* head complete, body not */
    HTTP_PHASE_REPLY,  /* request complete, reply not */
    HTTP_PHASE_LINGER, /* nothing more is handled: what is queued goes out, the rest is thrown away */
};

/* What the connection's one timer waits for. */
enum http_wait {
    HTTP_WAIT_NOTHING,
    HTTP_WAIT_FIRST,
    HTTP_WAIT_HEAD,
    HTTP_WAIT_IDLE,
    HTTP_WAIT_BODY,
    HTTP_WAIT_WRITE,
    HTTP_WAIT_LINGER,
};

struct http_connection {
    struct list link;
    struct http_server *server;
    struct stream *stream; /* owned; NULL after an upgrade */
    struct http1 engine;
    enum http_phase phase;
    struct http_exchange *x; /* owned until it ends; in BODY and REPLY */
    struct buf in;           /* read, and from in_used on not yet parsed */
    size_t in_used;
    struct buf out; /* to be written from out_sent on */
    size_t out_sent;
    struct timer timer;
    enum http_wait wait;
    struct deferred pump;
    size_t body_step, lingered;
    bool served; /* a request was answered here */
    bool eof;    /* the peer sends no more */
    bool broken; /* to be closed at the next chance */
    bool half_closed;
};

struct http_server {
    struct loop *loop;
    struct http_server_options options;
    struct list connections;
    size_t count;
    bool draining;
    struct deferred drained;
    void (*on_drained)(void *arg);
    void *drained_arg;
};

struct http_exchange {
    struct http_connection *conn; /* NULL: the peer is gone */
    const struct http_route *route;
    void *context;
    struct arena arena;
    struct http_headers headers;
    const char *method, *path, *query;
    struct buf body;
    char peer[sizeof((struct stream *)0)->peer];
    bool is_head, http10, keep_alive;
    bool upgrade; /* the engine stands behind a request for an upgrade */
    bool replying, chunked, blocked;
    bool handed; /* to its handler, which must end it */
    bool body_paused, end_told, in_gone;
    void (*on_body)(void *arg, struct str piece);
    void *on_body_arg;
    void (*on_gone)(void *arg);
    void *on_gone_arg;
    void (*on_writable)(void *arg);
    void *on_writable_arg;
};

/* ---- server.c ---- */
static inline size_t http_connection_queued(const struct http_connection *c)
{
    return c->out.n - c->out_sent;
}
/* Writes what the peer takes now; sets `broken` when it is gone. */
void http_connection_write(struct http_connection *c);
/* Does all that can be done now: parses, calls handlers, writes; then waits for the right things. May free it. */
void http_connection_pump(void *connection);

/* ---- exchange.c ---- */
void http_exchange_free(struct http_exchange *x);

#endif
