/* SPDX-License-Identifier: Apache-2.0 */
/* http1.h: the HTTP/1.1 engine (on llhttp): bytes in, events out; no I/O. One engine reads one side of a connection:
 * requests (a server's) or answers (a client's). Source: RFC 9112. */
#ifndef HTTP_HTTP1_H
#define HTTP_HTTP1_H

#include "http/http.h"

#include <llhttp.h>

enum http1_event {
    HTTP1_MORE,    /* all bytes are used up; give more */
    HTTP1_HEAD,    /* request or status line and all headers are in `head` */
    HTTP1_BODY,    /* a piece of the body: `*body`, borrowed from the input */
    HTTP1_END,     /* the message is complete; the next one (if any) follows */
    HTTP1_UPGRADE, /* complete, and what follows may not be HTTP: the rest of the input is left alone */
    HTTP1_ERROR,   /* not HTTP: err says why; the engine takes no more */
};

struct http1_head {
    const char *method; /* requests */
    const char *target; /* requests: as it came, in the arena of `headers` */
    int status;         /* answers */
    int major, minor;   /* 1.0 or 1.1 */
    bool keep_alive;
    bool upgrade;       /* HTTP1_UPGRADE will follow: a request for one, or an answer that grants it */
    bool chunked;
    int64_t content_length; /* -1: not given */
    bool expect_continue;   /* requests: the client waits for 100 before it sends the body */
    struct http_headers headers;
};

struct http1 {
    struct http1_head head;
    bool no_body; /* answers: the next has none whatever its headers say, for it is one to HEAD. Set by the owner */
    bool connect; /* answers: the next is one to CONNECT, so that a 2xx is HTTP1_UPGRADE. Set by the owner */
    /* private */
    llhttp_t parser;
    size_t head_max;   /* bytes of the first line and the headers together */
    size_t unproductive; /* bytes taken since the last piece of body: heads, chunk sizes, trailers */
    bool in_body; /* between HTTP1_HEAD and the end */
    bool dead, too_large;
    enum http1_event event;
    struct str piece;
    struct buf target, name, value;
    const char *reason; /* static; why a callback refused; NULL: ask llhttp */
};

/* Zeroes and prepares; http1_free when done. */
void http1_init(struct http1 *h, bool requests, size_t head_max);
void http1_free(struct http1 *h);
/* Takes bytes from the front of *in until there is something to tell. `head` is valid from HTTP1_HEAD until the call after
 * HTTP1_END. err is written for HTTP1_ERROR only: INVALID_ARGUMENT, or
 * RESOURCE_EXHAUSTED when a bound on the head was met. */
enum http1_event http1_next(struct http1 *h, struct str *in, struct str *body, struct status *err);
/* After HTTP1_UPGRADE of a request: the protocol stays HTTP, go on. (Not possible after CONNECT.) */
void http1_refuse_upgrade(struct http1 *h);
/* The connection ended. HTTP1_END: an answer without a length ended there; HTTP1_MORE: between two messages; HTTP1_ERROR:
 * in the middle of one. */
enum http1_event http1_finish(struct http1 *h);

#endif
