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
    HTTP1_UPGRADE, /* complete, and what follows is not HTTP: the engine takes no more */
    HTTP1_ERROR,   /* not HTTP: err says why; the engine takes no more */
};

struct http1_head {
    char *method;       /* requests */
    char *target;       /* requests: as it came */
    int status;         /* answers */
    int major, minor;   /* 1.0 or 1.1 */
    bool keep_alive;
    bool upgrade;       /* a request that asks for one (Connection: upgrade), or CONNECT; an answer that is 101 */
    bool chunked;
    int64_t content_length; /* -1: not given */
    bool expect_continue;   /* requests: the client waits for 100 before it sends the body */
    struct http_headers headers;
};

struct http1 {
    llhttp_t parser;
    struct http1_head head;
    bool requests;
    bool no_body;      /* the next answer has none whatever its headers say: it is one to HEAD */
    bool keep_upgrade; /* set by the owner on HTTP1_HEAD: the upgrade that was asked for will be granted */
    size_t head_max;   /* bytes of line and headers together */
    /* private */
    struct buf name, value, line, version;
    bool in_value, done, paused;
    int event;
    struct str body;
    size_t head_bytes;
    char reason[160];
};

void http1_init(struct http1 *h, bool requests, size_t head_max);
void http1_free(struct http1 *h);
/* Takes bytes from the front of *in until something is to be told. After HTTP1_HEAD of a request that asks for an upgrade,
 * set keep_upgrade to have HTTP1_UPGRADE at its end instead of HTTP1_END. */
enum http1_event http1_next(struct http1 *h, struct str *in, struct str *body, struct status *err);
/* The connection ended. True when that is where an answer without a length may end (HTTP1_END); false: it was cut. */
bool http1_finish(struct http1 *h);

#endif
