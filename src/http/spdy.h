/* SPDX-License-Identifier: Apache-2.0 */
/* spdy.h: the SPDY/3.1 engine, for either end: bytes in, events and bytes out; no I/O. Source: SPDY protocol draft 3.1.
 *
 *   spdy          one connection: frames, header compression, flow control
 *   spdy_stream   one stream, embedded in its owner's structure
 *
 * Whom we talk to. The peers in Kubernetes (moby/spdystream, in kubelet, kubectl, crictl and client-go) neither keep to
 * windows nor give any back, and end a connection at a frame that they do not know. So the peer's windows bind us from its
 * first WINDOW_UPDATE, or SETTINGS with an initial window, on; before that it is taken for one that has none. Ours are
 * announced and given back, but a peer that oversteps them is not punished: the owner bounds what it keeps by not reading.
 *
 * A stream error (RST_STREAM) and a connection error (GOAWAY) are answered here; the owner hears of them by events. */
#ifndef HTTP_SPDY_H
#define HTTP_SPDY_H

#include "http/spdy_headers.h"

enum spdy_reset {
    SPDY_RESET_PROTOCOL_ERROR = 1,
    SPDY_RESET_INVALID_STREAM = 2,
    SPDY_RESET_REFUSED_STREAM = 3,
    SPDY_RESET_UNSUPPORTED_VERSION = 4,
    SPDY_RESET_CANCEL = 5,
    SPDY_RESET_INTERNAL_ERROR = 6,
    SPDY_RESET_FLOW_CONTROL_ERROR = 7,
    SPDY_RESET_STREAM_IN_USE = 8,
    SPDY_RESET_STREAM_ALREADY_CLOSED = 9,
    SPDY_RESET_FRAME_TOO_LARGE = 11,
};

enum spdy_goaway_status {
    SPDY_GOAWAY_OK = 0,
    SPDY_GOAWAY_PROTOCOL_ERROR = 1,
    SPDY_GOAWAY_INTERNAL_ERROR = 2,
};

enum spdy_event_type {
    SPDY_MORE,    /* all bytes are used up; give more */
    SPDY_OPENED,  /* the peer opened `id` with `headers`: spdy_accept or spdy_refuse it, before the next spdy_next */
    SPDY_REPLIED, /* the peer accepted our stream: it may be sent on */
    SPDY_DATA,    /* a piece, borrowed from the input; the owner says spdy_consumed once it is done with it */
    SPDY_END,     /* the peer sends no more on the stream */
    SPDY_RESET,   /* the stream is gone: by the peer, or by us for an error of its; `status` */
    SPDY_WINDOW,  /* more can be sent on the stream; NULL: on any */
    SPDY_PONG,    /* our ping `id` came back */
    SPDY_GOAWAY,  /* the peer goes away with `status`; our streams above `id` were not looked at */
    SPDY_ERROR,   /* the connection is lost: err says why, GOAWAY is in `out`; what comes later is thrown away */
};

/* All zero before it is given to spdy_open or spdy_accept. */
struct spdy_stream {
    struct spdy_stream *next; /* private */
    uint32_t id;              /* 0: not in use */
    bool replied;             /* both ends know of it */
    bool local_ended, remote_ended;
    int64_t send_window;
    size_t consumed; /* not yet given back */
};

struct spdy_event {
    enum spdy_event_type type;
    struct spdy_stream *stream;
    uint32_t id, status;
    struct str piece;
    const struct http_header *headers; /* valid until the next spdy_next */
    size_t header_count;
};

struct spdy {
    struct buf out;    /* frames to be sent, before any data; the owner takes them out */
    uint32_t last_id;  /* the newest stream of the peer's */
    /* private */
    bool server, flow, goaway_sent, dead;
    uint32_t next_id, next_ping;
    int64_t send_window, initial_window; /* the peer's */
    size_t consumed;
    struct spdy_headers codec;
    struct http_headers headers; /* of the event */
    struct spdy_stream **table;  /* by id; chained */
    size_t table_size, count;
    /* the frame being read */
    uint8_t head[8];
    size_t head_n;
    size_t left; /* of its payload */
    bool in_frame, fin, skip;
    struct buf frame;             /* a control frame's payload so far */
    struct spdy_stream *current;  /* whose data or end follows; NULL: nobody's */
    uint32_t opening;             /* offered by SPDY_OPENED */
};

/* Zeroes; the first frames (our windows) are in `out`. spdy_free when done; it does not touch the streams. */
void spdy_init(struct spdy *s, bool server);
void spdy_free(struct spdy *s);
/* Takes bytes from the front of *in until there is something to tell. err is written for SPDY_ERROR, and for SPDY_RESET. */
void spdy_next(struct spdy *s, struct str *in, struct spdy_event *event, struct status *err);

/* ---- streams; the owner keeps the memory until spdy_detach, SPDY_RESET or spdy_free ---- */
void spdy_accept(struct spdy *s, struct spdy_stream *stream); /* SYN_REPLY follows with spdy_reply */
void spdy_reply(struct spdy *s, struct spdy_stream *stream);
void spdy_refuse(struct spdy *s, enum spdy_reset status);
/* False when the numbers are used up. Nothing can be sent on it before SPDY_REPLIED. */
bool spdy_open(struct spdy *s, struct spdy_stream *stream, const struct http_header *headers, size_t count);
void spdy_reset(struct spdy *s, struct spdy_stream *stream, enum spdy_reset status); /* detaches it */
void spdy_detach(struct spdy *s, struct spdy_stream *stream); /* done with it: both ways have ended */
size_t spdy_stream_count(const struct spdy *s);

/* ---- data ---- */
/* How much may be sent now; SIZE_MAX: no bound. */
size_t spdy_sendable(const struct spdy *s, const struct spdy_stream *stream);
/* The head of a frame with n (<= SPDY_FRAME_MAX) bytes, which must follow it. */
#define SPDY_HEAD_SIZE 8
#define SPDY_FRAME_MAX 0xffffff
void spdy_data_head(struct spdy *s, struct spdy_stream *stream, size_t n, bool fin, uint8_t head[SPDY_HEAD_SIZE]);
/* The owner is done with n bytes. */
void spdy_consumed(struct spdy *s, struct spdy_stream *stream, size_t n);

/* ---- the connection ---- */
void spdy_ping(struct spdy *s);
/* The last frame: peers read nothing behind it. */
void spdy_goaway(struct spdy *s, enum spdy_goaway_status status);

#endif
