/* SPDX-License-Identifier: Apache-2.0 */
/* spdy_headers.h: SPDY/3.1's header blocks: name and value pairs, compressed by one zlib stream for each direction of a
 * connection, whose state every block changes. Used by spdy.c alone. */
#ifndef HTTP_SPDY_HEADERS_H
#define HTTP_SPDY_HEADERS_H

#include "http/http.h"

#include <zlib.h>

/* All zero is the start of a connection. */
struct spdy_headers {
    z_stream inflater, deflater;
    bool inflating, deflating; /* the stream above is in use */
    struct buf plain;
};

enum spdy_headers_result {
    SPDY_HEADERS_OK,
    SPDY_HEADERS_MALFORMED, /* this block alone: its stream cannot be used */
    SPDY_HEADERS_LOST,      /* no later block could be read: the connection cannot be used */
};

/* Adds the block's headers to `out` (an empty list), names in lower case; several values under one name become several
 * headers. Writes err unless OK. */
enum spdy_headers_result spdy_headers_decode(struct spdy_headers *h, struct str block, struct http_headers *out,
                                             struct status *err);
/* Appends the compressed block. Names are put in lower case; the values of equal names must stand together. */
void spdy_headers_encode(struct spdy_headers *h, const struct http_header *headers, size_t count, struct buf *out);
void spdy_headers_free(struct spdy_headers *h);

#endif
