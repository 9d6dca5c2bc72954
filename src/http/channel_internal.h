/* SPDX-License-Identifier: Apache-2.0 */
/* channel_internal.h: what channel.c (life), channel_input.c (what comes) and channel_output.c (what goes) share.
 *
 * State of a connection, moved by channel_conn_close, channel_conn_end and channel_conn_finish:
 *
 *   OPEN -----> CLOSING -----> FAREWELL -----> CLOSED
 *     |  (ours: queues first)  ^     (the peer's end, or CHANNEL_CLOSE_MS)
 *     +------------------------+ (the peer's close, or its error)
 *     +-----> HEARING ---------+ (the same, and what it sent before waits for paused channels)
 *     +--- from any: the connection broke ------> CLOSED
 *
 * Functions that call the owner run between channel_conn_enter and _leave: what is gone stays in memory until then. */
#ifndef HTTP_CHANNEL_INTERNAL_H
#define HTTP_CHANNEL_INTERNAL_H

#include "http/channel.h"
#include "http/output.h"
#include "http/spdy.h"
#include "http/websocket.h"

enum channel_state {
    CHANNEL_OPEN,
    CHANNEL_CLOSING,  /* what is queued goes out, then our last word */
    CHANNEL_HEARING,  /* the peer has ended, and nothing is sent any more but our last word; its data is still being heard */
    CHANNEL_FAREWELL, /* that goes out, then the peer's end is waited for */
    CHANNEL_CLOSED,
};

/* v5.channel.k8s.io: what stands for a channel's number when one ends; that number follows. */
#define CHANNEL_CLOSE_SIGNAL 255

/* Blocks in a row, to be sent or to be heard. */
struct channel_queue {
    struct http_block *first, *last; /* owned */
    size_t n;                        /* bytes */
};

struct channel {
    struct spdy_stream stream; /* SPDY */
    uint8_t number;            /* WEBSOCKET */
    struct channel_conn *conn;
    struct list link;   /* conn->channels, or conn->gone */
    struct list ready;  /* conn->ready: can send a frame */
    struct list resume; /* conn->resumed: can hear what was held */
    struct list drain;  /* conn->drained: its sender need not wait any more */
    struct channel_listener listener;
    bool listening, paused, gone;
    bool blocked;                  /* channel_send said to wait */
    bool send_ended, end_sent;     /* channel_end was called; and is under way to the peer */
    bool receive_ended, end_heard; /* the peer's end has come; and was heard */
    struct channel_queue out, held; /* held: received while paused */
    size_t out_share, held_share;   /* as told to the budget */
    bool overfull;                  /* holds more than its share */
};

/* Where in a WebSocket message we are. */
enum channel_message {
    CHANNEL_MESSAGE_NUMBER, /* its first byte comes */
    CHANNEL_MESSAGE_DATA,
    CHANNEL_MESSAGE_SIGNAL, /* the number of a channel that ends */
    CHANNEL_MESSAGE_DONE,
};

struct channel_conn {
    struct loop *loop;
    struct stream *stream; /* owned; NULL when CLOSED, and when HEARING once our last word is out */
    char peer[64];         /* its name */
    struct channel_conn_options options;
    enum channel_state state;
    bool spdy_carrier, websocket_carrier;
    struct spdy spdy;
    struct websocket websocket;
    struct list channels, ready, resumed, drained, gone;
    size_t channel_count;     /* in channels */
    struct channel **numbers; /* WEBSOCKET: by number, NULL when gone; owned */
    /* input */
    struct buf in; /* read, but a channel is paused; from in_used on */
    size_t in_used;
    size_t held;     /* bytes in all channels */
    size_t overfull; /* channels that hold more than their share */
    size_t paused;   /* channels */
    enum channel_message message;
    struct channel *target; /* of the message; NULL: gone, or never there */
    struct buf base64;      /* of the message, not yet decoded: less than one group */
    bool base64_ended;
    bool goaway; /* received */
    /* output */
    struct http_output output;
    bool write_blocked;
    bool half_closed;
    /* time */
    struct deferred pump;
    struct timer timer;
    int64_t last_read_ms, last_data_ms, ping_ms, farewell_ms;
    int64_t end_ms;       /* when the peer's end was seen behind what is not heard, or some of that was heard since; 0: not */
    bool pinged;          /* and nothing came since */
    bool data_since_ping; /* staged */
    bool confirmed;       /* the peer has read all data that we sent: only then silence means anything */
    struct channel_budget *budget, own_budget; /* the one in use */
    struct status why;    /* told by on_close */
    unsigned busy;
    bool freed;
};

static inline void channel_conn_enter(struct channel_conn *conn)
{
    conn->busy++;
}
static inline bool channel_conn_plain(const struct channel_conn *conn) /* channels by number, in messages of their own */
{
    return !conn->spdy_carrier;
}

/* ---- channel.c ---- */
void channel_conn_leave(struct channel_conn *conn); /* may free it */
/* What can be done now is done at the end of this turn. */
void channel_conn_want_pump(struct channel_conn *conn);
struct channel *channel_new(struct channel_conn *conn);
/* The last that is heard of it; err NULL: in peace. */
void channel_gone(struct channel *c, const struct status *err);
/* Gone, in peace, once both ways have ended and been heard. */
void channel_check_done(struct channel *c);
/* The channels are gone, and our last word (which is queued, or is made here) goes out. err NULL: in peace. */
void channel_conn_end(struct channel_conn *conn, const struct status *err);
/* The same once they have heard what the peer sent before it ended. */
void channel_conn_hear_out(struct channel_conn *conn, const struct status *err);
/* It is over: on_close. err NULL: in peace. */
void channel_conn_finish(struct channel_conn *conn, const struct status *err);
/* HEARING: what is left to do needs no stream. */
void channel_conn_let_go(struct channel_conn *conn);
void channel_conn_fail(struct channel_conn *conn, enum status_code code, const char *why);

/* ---- channel_input.c ---- */
/* Bytes are not to be read: someone must hear, or the peer must read, first. */
bool channel_conn_stopped(const struct channel_conn *conn);
void channel_conn_read(struct channel_conn *conn, unsigned events);
/* What was read but not looked at. */
void channel_conn_continue(struct channel_conn *conn);
/* What a channel that was paused has not heard yet. */
void channel_conn_resume(struct channel_conn *conn);
void channel_drop_held(struct channel *c);
/* Has it heard all that came? */
static inline bool channel_has_heard(const struct channel *c)
{
    return !c->listening || (c->held.n == 0 && (c->end_heard || !c->receive_ended));
}

/* ---- channel_output.c ---- */
void channel_queue_append(struct channel_conn *conn, struct channel_queue *queue, const void *p, size_t n);
void channel_queue_pop(struct channel_conn *conn, struct channel_queue *queue); /* its first block, which must be */
void channel_queue_drop(struct channel_conn *conn, struct channel_queue *queue);
/* c->out.n has changed. */
void channel_count_out(struct channel *c);
/* Into its connection's list of those that can send, if it can. */
void channel_make_ready(struct channel *c);
/* Writes what the stream takes; then tells those that waited. */
void channel_conn_flush(struct channel_conn *conn);
void channel_conn_ping(struct channel_conn *conn);
/* One empty message. */
void channel_send_empty(struct channel *c);

#endif
