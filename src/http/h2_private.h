/* SPDX-License-Identifier: Apache-2.0 */
/* h2_private.h: what h2.c (the connection), h2_session.c (what nghttp2 says and asks) and h2_flow.c (how much may be under
 * way) share. */
#ifndef HTTP_H2_PRIVATE_H
#define HTTP_H2_PRIVATE_H

#include "http/h2.h"
#include "http/h2_memory.h"
#include "http/output.h"

struct h2 {
    struct loop *loop;
    struct stream *stream;      /* owned; NULL once closed */
    nghttp2_session *session;   /* owned */
    struct h2_options options;
    struct list streams;        /* of h2_stream.link: all that are open */
    struct list drained;        /* of h2_stream.drained_link: those to be told */
    size_t stream_count;
    struct h2_budget *budget, own_budget; /* the one in use */
    struct h2_stream *current;  /* the one found last, for the run of callbacks that a frame brings */
    struct h2_stream *held;     /* whose DATA frame has begun and waits for room in the output; NULL: none */
    size_t header_bytes;        /* of the header block being read */
    struct h2_memory *memory; /* owned; the session's */
    struct http_output output;
    struct deferred flush;
    struct timer keepalive;     /* the next PING, or the wait for its answer */
    struct timer grace;         /* before the second GOAWAY */
    struct timer trim;          /* looks whether the connection has fallen quiet */
    unsigned events, events_at_trim; /* how often something happened; as of the last look */
    struct buf early;           /* read before we got the stream */
    int64_t last_read_ms;       /* kept only when there is a keepalive */
    int64_t earned_ms;          /* when idle_frames was last refilled */
    int idle_frames;            /* how many frames that carry nothing are still taken */
    unsigned busy;              /* callbacks under way: nghttp2 must not be freed */
    bool freed;                 /* h2_free was called meanwhile */
    bool closed;                /* on_close was heard, or is next */
    bool writing_blocked;       /* waits for WATCH_WRITE */
    uint64_t received, sent;    /* bytes, frames and all */
    bool ping_sent, goaway_received, shutting_down, shutdown_sent;
    char *why;                  /* owned; the first thing that went wrong, or NULL */
};

/* ---- h2_session.c ---- */
/* A session with its callbacks set and nothing submitted; the caller frees. */
nghttp2_session *h2_session_new(struct h2 *h2);
/* What a body asks of nghttp2: the provider of what is queued in the stream. */
nghttp2_data_provider2 h2_body_provider(struct h2_stream *s);
void h2_attach(struct h2 *h2, struct h2_stream *s, int32_t id);
void h2_detach(struct h2 *h2, struct h2_stream *s);
void h2_drop_queue(struct h2 *h2, struct h2_stream *s);

/* ---- h2_flow.c ---- */
void h2_open_window(struct h2_stream *s);
/* s->unconsumed or s->credit has changed, or the peer's way has ended. */
void h2_count_window(struct h2_stream *s);
void h2_queue_grew(struct h2_stream *s); /* s->queued has changed; afterwards it may be above or below its mark */
void h2_queue_shrank(struct h2_stream *s);
nghttp2_priority_spec h2_priority(bool bulk);

/* ---- h2.c ---- */
void h2_want_flush(struct h2 *h2);
/* Keeps the first reason: what follows is its consequence. */
void h2_set_why(struct h2 *h2, const char *why);
/* Of nghttp2's return values: no memory aborts; what concerns a stream that is gone is only noted. */
void h2_check(struct h2 *h2, int rv, const char *what);
void h2_on_ping_answer(struct h2 *h2, const uint8_t *payload);

#endif
