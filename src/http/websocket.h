/* SPDX-License-Identifier: Apache-2.0 */
/* websocket.h: the WebSocket engine, for either end: bytes in, events and bytes out; no I/O. Source: RFC 6455; no extensions.
 * A message's payload is handed on as it comes, whatever its length: nothing but control frames is collected. That text is
 * UTF-8 is left to whoever reads it. */
#ifndef HTTP_WEBSOCKET_H
#define HTTP_WEBSOCKET_H

#include "base/base.h"

enum websocket_opcode {
    WEBSOCKET_CONTINUATION = 0,
    WEBSOCKET_TEXT = 1,
    WEBSOCKET_BINARY = 2,
    WEBSOCKET_CLOSE = 8,
    WEBSOCKET_PING = 9,
    WEBSOCKET_PONG = 10,
};

/* Section 7.4.1. */
enum websocket_code {
    WEBSOCKET_NORMAL = 1000,
    WEBSOCKET_GOING_AWAY = 1001,
    WEBSOCKET_PROTOCOL_ERROR = 1002,
    WEBSOCKET_UNSUPPORTED_DATA = 1003,
    WEBSOCKET_NO_CODE = 1005, /* never sent: the peer gave none */
    WEBSOCKET_INVALID_DATA = 1007,
    WEBSOCKET_POLICY_VIOLATION = 1008,
    WEBSOCKET_INTERNAL_ERROR = 1011,
};

enum websocket_event_type {
    WEBSOCKET_MORE,   /* all bytes are used up; give more */
    WEBSOCKET_DATA,   /* a piece (may be empty) of a message: `first`, `last`, `text`; borrowed from the input */
    WEBSOCKET_PONGED, /* an answer to a ping of ours */
    WEBSOCKET_CLOSED, /* the peer closes, for `code`; our answer is in `out`; what comes later is thrown away */
    WEBSOCKET_ERROR,  /* err says why; our close is in `out`; what comes later is thrown away */
};

struct websocket_event {
    enum websocket_event_type type;
    struct str piece;
    bool first, last, text;
    uint16_t code;
};

#define WEBSOCKET_HEAD_MAX 14
#define WEBSOCKET_CONTROL_MAX 125

struct websocket {
    struct buf out; /* control frames to be sent; the owner takes them out */
    /* private */
    bool client, close_sent, dead;
    uint8_t head[WEBSOCKET_HEAD_MAX];
    size_t head_n;
    bool in_frame, in_message, first, text; /* in_frame: the head is complete */
    uint64_t left;    /* of the frame's payload */
    uint64_t offset;  /* in it, for the mask */
    uint8_t key[4];
    uint8_t control[WEBSOCKET_CONTROL_MAX];
    size_t control_n;
};

/* Zeroes; websocket_free when done. */
void websocket_init(struct websocket *ws, bool client);
void websocket_free(struct websocket *ws);
/* Takes bytes from the front of *in, which it unmasks where they are, until there is something to tell. err is written for
 * WEBSOCKET_ERROR. */
void websocket_next(struct websocket *ws, struct str *in, struct websocket_event *event, struct status *err);

/* The head of a frame that is a message of its own, with n bytes; returns its length. The payload must follow, masked with
 * `key` (all zero for a server, which does not mask). */
size_t websocket_head(const struct websocket *ws, enum websocket_opcode opcode, uint64_t n, uint8_t head[WEBSOCKET_HEAD_MAX],
                      uint8_t key[4]);
/* Masks (or unmasks) in place what stands at `offset` of a payload. */
void websocket_mask(const uint8_t key[4], uint64_t offset, uint8_t *p, size_t n);
/* A control frame into `out`: WEBSOCKET_PING or PONG; cut to WEBSOCKET_CONTROL_MAX. Nothing after a close. */
void websocket_control(struct websocket *ws, enum websocket_opcode opcode, const void *p, size_t n);
void websocket_close(struct websocket *ws, enum websocket_code code, const char *reason);

/* ---- the handshake (section 4) ---- */
/* 16 random bytes in base64, for Sec-WebSocket-Key. */
#define WEBSOCKET_KEY_SIZE (24 + 1)
void websocket_make_key(char out[WEBSOCKET_KEY_SIZE]);
bool websocket_key_valid(const char *key);
/* The proof that Sec-WebSocket-Key was understood, for Sec-WebSocket-Accept. */
#define WEBSOCKET_ACCEPT_SIZE (28 + 1)
void websocket_accept(const char *key, char out[WEBSOCKET_ACCEPT_SIZE]);

#endif
