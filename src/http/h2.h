/* SPDX-License-Identifier: Apache-2.0 */
/* h2.h: one HTTP/2 connection (RFC 9113) on any stream, in the role of server or client: nghttp2 and our loop.
 *
 * What is here: reading and writing, in one writev a turn of the loop; bodies to send, queued by stream and taken as flow
 * control allows; windows given back only for what the owner consumed; keepalive; graceful ends; and limits on what a
 * peer may make us do for nothing. What the headers mean is the owner's business.
 *
 * The owner embeds a struct h2_stream in each of its objects. It lives from h2_ops.on_request (server) or h2_request
 * (client) until h2_ops.on_stream_close, which is always heard, or until h2_free. Until then its memory, and what its
 * trailers point at, must stay. Functions here never call the owner back: callbacks come from the loop.
 * Inside a callback everything may be called, h2_free included. */
#ifndef HTTP_H2_H
#define HTTP_H2_H

#include "base/base.h"
#include "io/loop.h"
#include "io/stream.h"

#include <nghttp2/nghttp2.h>

struct h2;

struct http_block; /* a piece of a body, queued */

/* What streams share, of one connection or of many: one that is paused, or whose peer does not read, takes little of it from
 * the others. All zero has no room beyond the least shares; see h2_budget_init. */
struct h2_budget {
    struct budget windows; /* what peers may send, or have sent and we hold, beyond H2_STREAM_WINDOW_FIRST each */
    struct budget queues;  /* what waits to be sent */
};
static inline void h2_budget_init(struct h2_budget *budget)
{
    *budget = (struct h2_budget){ .windows.size = H2_WINDOWS_MAX, .queues.size = H2_QUEUES_MAX };
}

struct h2_stream {
    struct h2 *h2; /* NULL before it is opened and once it is closed */
    struct list link, drained_link;
    int32_t id;
    struct http_block *first, *last; /* what waits to be sent; owned */
    size_t queued, queued_share;   /* bytes in these; as told to the budget */
    const nghttp2_nv *trailers;    /* of the end; borrowed until the stream is closed */
    size_t trailer_count;
    size_t unconsumed; /* body bytes received for which no window was given back yet */
    int64_t credit;    /* what the peer may send beyond them */
    size_t window;     /* what both together grow to */
    size_t window_share; /* what they are beyond H2_STREAM_WINDOW_FIRST, as told to the budget */
    bool body_ended;   /* h2_body_end was called */
    bool deferred;     /* nghttp2 found nothing to send and waits to be told */
    bool above_mark;   /* queued passed its share of H2_SEND_HIGH_WATER and has not fallen to half of it since */
    bool sent_end;     /* END_STREAM has been sent */
    bool received_end; /* END_STREAM has been received */
    bool reset;        /* RST_STREAM is on its way: nothing more is delivered */
    bool headers_too_large; /* the header block being read is above H2_HEADERS_MAX; the rest of it is not delivered */
};

/* What the owner hears. `name` and `value` are NUL-terminated and live as long as somebody holds a reference
 * (nghttp2_rcbuf_incref). */
struct h2_ops {
    /* Server: a request opens a stream. Its object, or NULL to refuse it (REFUSED_STREAM). */
    struct h2_stream *(*on_request)(void *arg);
    void (*on_header)(struct h2_stream *s, nghttp2_rcbuf *name, nghttp2_rcbuf *value);
    /* A header block is complete: request or response headers, or trailers. */
    void (*on_headers)(struct h2_stream *s);
    /* Body bytes, in s->unconsumed until h2_consume. p is valid during the call. */
    void (*on_data)(struct h2_stream *s, const uint8_t *p, size_t n);
    /* END_STREAM: the peer sends no more on this stream. */
    void (*on_end)(struct h2_stream *s);
    /* The queue fell to half of what it may hold after it had been above that. */
    void (*on_drained)(struct h2_stream *s);
    /* The stream is over: an HTTP/2 error code; when the connection broke, H2_CONNECTION_LOST. */
    void (*on_stream_close)(struct h2_stream *s, uint32_t code);
    /* Nothing was read for a while (H2_TRIM_MS): time to give back what is kept for speed only. */
    void (*on_quiet)(void *arg);
    /* The connection is closed; no stream is left. Heard once, never from inside h2_free. It must be freed in here or later. */
    void (*on_close)(void *arg, const struct status *err);
};
#define H2_CONNECTION_LOST UINT32_MAX

struct h2_options {
    bool server;
    int64_t keepalive_ms;         /* a PING after this much silence; 0: none */
    int64_t keepalive_timeout_ms; /* then the connection is given up */
    struct h2_budget *budget;     /* outlives the connection; NULL: one of its own */
    const struct h2_ops *ops;
    void *arg;
};
/* Takes the stream. `early`: bytes already read from it (copied). Nothing is called before the next turn of the loop. */
struct h2 *h2_new(struct loop *loop, struct stream *stream, const struct h2_options *options, struct str early);
void h2_free(struct h2 *h2); /* NULL is fine; no callback */
const char *h2_peer(const struct h2 *h2);
/* What went wrong first, or "closed". */
const char *h2_why(const struct h2 *h2);
/* Server: GOAWAY; running streams end in peace, then the connection closes. */
void h2_shutdown(struct h2 *h2);
/* Closes in good order: GOAWAY, the rest of the output, then on_close with `why`. Streams that are open are lost. */
void h2_terminate(struct h2 *h2, uint32_t code, const char *why);
/* Client: false when the peer wants no more requests (GOAWAY) or the connection is closed. */
bool h2_accepts_requests(const struct h2 *h2);
size_t h2_open_streams(const struct h2 *h2);
/* What carries it; NULL once it is closed. */
struct stream *h2_carrier(const struct h2 *h2);
/* On the wire, or inside TLS, so far. */
void h2_bytes(const struct h2 *h2, uint64_t *received, uint64_t *sent);

/* ---- streams ---- */
/* Client: opens a stream. Header fields are copied unless flagged NO_COPY; a body follows (h2_body_end). `bulk`: when both
 * ends have more to send than the connection carries, other streams come first, both ways. False when the connection takes no
 * requests. */
bool h2_request(struct h2 *h2, struct h2_stream *s, const nghttp2_nv *fields, size_t count, bool bulk);
/* Server: sends the headers; a body follows unless `end`. */
void h2_respond(struct h2_stream *s, const nghttp2_nv *fields, size_t count, bool end);
/* Room for exactly n body bytes, which the caller writes at once: they are queued. */
uint8_t *h2_body_append(struct h2_stream *s, size_t n);
/* All of `shared`, by reference: for bodies that many get. */
void h2_body_append_shared(struct h2_stream *s, struct shared *shared);
static inline bool h2_body_is_full(const struct h2_stream *s)
{
    return s->above_mark;
}
/* No more body. trailers: NO_COPY, may be none. */
void h2_body_end(struct h2_stream *s, const nghttp2_nv *trailers, size_t count);
void h2_body_drop(struct h2_stream *s); /* forgets what is queued */
void h2_reset(struct h2_stream *s, uint32_t code);
/* The owner is done with n bytes of the body: the peer may send others, once it pays to say so, as far as the budget goes. */
void h2_consume(struct h2_stream *s, size_t n);

/* A header field whose name and value are literals. */
#define H2_FIELD(literal_name, literal_value)                                                                          \
    {                                                                                                                  \
        .name = (uint8_t *)(uintptr_t)(literal_name), .value = (uint8_t *)(uintptr_t)(literal_value),                  \
        .namelen = sizeof(literal_name) - 1, .valuelen = sizeof(literal_value) - 1,                                    \
        .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE                                          \
    }

#endif
