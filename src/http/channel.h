/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel.h: several byte streams over one upgraded HTTP/1.1 connection, as remote commands and port forwards need them.
 * What is beneath is SPDY/3.1 (http/spdy.h) or WebSocket (http/websocket.h); who uses this need not know which.
 *
 *   channel_conn   one connection, either end of it
 *   channel        one byte stream in it, both ways; each way ends by itself (half-close)
 *
 * Back-pressure both ways: channel_send() says when to wait; a paused channel stops its peer (SPDY: by its window, so
 * that other channels go on; WebSocket has no windows, so that the whole connection waits).
 *
 * Kubernetes' own SPDY peers (moby/spdystream) know no windows: they send no WINDOW_UPDATE and look at none. So a sender minds
 * the peer's windows only once it has seen one of its WINDOW_UPDATEs or SETTINGS, and a paused channel whose peer goes on all
 * the same stops the reading of the whole connection when a bound is reached. They answer no PING either while their reader
 * takes its time, nor do WebSocket clients in Go.
 *
 * Life: a channel belongs to its connection and is gone when it was reset, by either end, or when both ways have ended
 * and been heard, or with the connection; on_gone is the last thing heard of it. When the peer has ended the connection, what
 * it sent before is heard first, if a paused channel takes some of it every CHANNEL_GONE_MS. The connection is gone after
 * channel_conn_free(), which may be called from any of its functions.
 */
#ifndef HTTP_CHANNEL_H
#define HTTP_CHANNEL_H

#include "http/http.h"
#include "io/stream.h"

struct channel_conn;
struct channel;

/* What channels share, of one connection or of many, so that some that stall take little from the others. */
struct channel_budget {
    struct budget held;   /* received while paused, beyond SPDY_STREAM_WINDOW each */
    struct budget queues; /* what waits to be sent */
};
static inline void channel_budget_init(struct channel_budget *budget)
{
    *budget = (struct channel_budget){ .held.size = CHANNELS_HELD_MAX, .queues.size = CHANNELS_QUEUED_MAX };
}

enum channel_carrier {
    CHANNEL_SPDY,             /* SPDY/3.1 right on the connection: the peer (or we) opens channels, with headers */
    CHANNEL_WEBSOCKET,        /* binary messages, first byte: the channel's number; channels are there from the start */
    CHANNEL_WEBSOCKET_BASE64, /* text messages, first character: the number; the rest in base64 */
    CHANNEL_WEBSOCKET_SPDY,   /* SPDY/3.1 as the payload of binary messages (tunnelled port forwards) */
};

struct channel_conn_options {
    enum channel_carrier carrier;
    bool client;              /* we dialled */
    size_t channel_count;     /* WEBSOCKET and BASE64: how many there are, from number 0 on */
    bool close_signals;       /* WEBSOCKET: v5.channel.k8s.io: byte 255 and a number end that channel */
    size_t channels_max;      /* SPDY: open at a time; the peer's next one is refused (REFUSED_STREAM). 0: CHANNELS_MAX */
    int64_t keepalive_ms;     /* a PING after this much silence of the peer; 0: none */
    int64_t keepalive_timeout_ms; /* then broken when nothing at all comes, from a peer that had read all we sent; 0: the same */
    int64_t idle_timeout_ms;  /* closed when no channel carried a byte for so long; 0: never */
    struct channel_budget *budget; /* outlives the connection; NULL: one of its own */
    /* SPDY: the peer opened one; headers (names in lower case) are borrowed for the call. It is answered (SYN_REPLY) after the
     * function returns unless it was reset in it. Must call channel_listen. */
    void (*on_channel)(void *arg, struct channel *c, const struct http_header *headers, size_t header_count);
    /* Heard once, from the loop: OK when the peer closed in peace or our own close is complete; else why it broke. All
     * channels are gone by then. The owner then frees the connection, in it or later. */
    void (*on_close)(void *arg, const struct status *err);
    void *arg;
};

/* Takes the stream. `early`: what the peer sent behind the upgrade; copied. */
struct channel_conn *channel_conn_new(struct loop *loop, struct stream *stream, struct str early,
                                      const struct channel_conn_options *options);
/* Channels hear no more data. What is queued is still delivered, however slowly the peer reads (somebody may look at it in a
 * pager; idle_timeout_ms bounds it); then the closing itself takes at most CHANNEL_CLOSE_MS; then on_close. What the peer still
 * sends is read and dropped meanwhile, so that no reset of the kernel's destroys what is on the way to it. */
void channel_conn_close(struct channel_conn *conn);
/* Ends everything at once, without a word; on_gone of each channel is called, on_close is not. NULL is fine. */
void channel_conn_free(struct channel_conn *conn);
size_t channel_conn_active(const struct channel_conn *conn); /* SPDY: open channels */

struct channel_listener {
    void (*on_data)(void *arg, struct str piece); /* valid during the call */
    void (*on_end)(void *arg);                    /* the peer sends no more on it; may be NULL */
    void (*on_writable)(void *arg);               /* after channel_send was false; may be NULL */
    /* The last of it. err: NULL when both ways ended in peace or the connection closed in peace. */
    void (*on_gone)(void *arg, const struct status *err);
    void *arg;
};
void channel_listen(struct channel *c, const struct channel_listener *listener); /* copied */
/* WEBSOCKET and BASE64: number < channel_count, before anything came from the loop. NULL once it is gone. */
struct channel *channel_number(struct channel_conn *conn, size_t number);
/* SPDY: opens one. Headers are copied. NULL when the connection is closing. */
struct channel *channel_open(struct channel_conn *conn, const struct http_header *headers, size_t header_count);

/* Queues a copy. False when the queue is above its share of CHANNEL_SEND_HIGH_WATER (the bytes are kept): stop until on_writable. n 0:
 * WEBSOCKET and BASE64: an empty message, by which Kubernetes' servers greet their clients. Nothing once it is ending. */
bool channel_send(struct channel *c, const void *p, size_t n);
/* Our way ends, after what is queued (SPDY: FLAG_FIN; the client of v5 WebSocket: the close signal; else nothing to tell). */
void channel_end(struct channel *c);
/* Both ways, at once: SPDY: RST_STREAM(CANCEL). on_gone is called from inside. */
void channel_reset(struct channel *c);
void channel_pause(struct channel *c, bool paused);
size_t channel_queued(const struct channel *c); /* bytes that wait to be sent */

#endif
