/* SPDX-License-Identifier: Apache-2.0 */
/* http.h: what both ends of HTTP/1.1 share: header lists, URLs, the meaning of status numbers. */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H

#include "base/base.h"

struct http_header {
    const char *name; /* any case: names are compared without it */
    const char *value;
};

/* A list of headers; all zero is an empty one. Strings are copied into `arena`. */
struct http_headers {
    struct http_header *items;
    size_t count, cap;
    size_t bytes; /* of all names and values, for bounds */
    struct arena arena;
};
void http_headers_add(struct http_headers *h, const char *name, const char *value);
void http_headers_addn(struct http_headers *h, struct str name, struct str value);
/* The first of that name; NULL when absent; borrowed. */
const char *http_headers_get(const struct http_headers *h, const char *name);
size_t http_headers_count(const struct http_headers *h, const char *name);
/* Whether a comma-separated list (RFC 9110 section 5.6.1) under that name, in any of its lines, holds the token. */
bool http_headers_has_token(const struct http_headers *h, const char *name, const char *token);
void http_headers_free(struct http_headers *h);
/* Token characters only (RFC 9110 section 5.6.2). */
bool http_name_valid(const char *name);
/* No control characters but the tab: nothing that could end the line. */
bool http_value_valid(const char *value);

/* Standard text of a status number ("Not Found"); "Unknown" for those without one. */
const char *http_reason(int http_status);
/* The error code that stands for an HTTP status (404: NOT_FOUND, 429: RESOURCE_EXHAUSTED, 503: UNAVAILABLE ...), and the
 * other way round. */
enum status_code http_to_status_code(int http_status);
int http_from_status_code(enum status_code code);
/* Milliseconds that a Retry-After header asks for; 0 when it cannot be read. `now`: seconds since the epoch. */
int64_t http_retry_after_ms(const char *text, int64_t now);

/* Percent-encodes everything but RFC 3986's unreserved characters and those in `keep`. */
void http_percent_encode(struct buf *out, const char *text, const char *keep);
/* Decodes %XX (and + as a blank when `form`) into out; false on a broken escape or an encoded NUL. */
bool http_percent_decode(struct str text, bool form, struct buf *out);
/* The decoded value of a parameter in a query string ("a=1&b=2"), from the arena; NULL when absent or broken. */
const char *http_query_get(struct arena *arena, const char *query, const char *key);

/* scheme://host[:port][/path][?query], split. User information and fragments are refused. */
struct http_url {
    char scheme[8]; /* "http", "https" (others are refused) */
    char host[256]; /* brackets of an IPv6 literal removed */
    uint16_t port;  /* the scheme's default when the URL names none */
    bool has_port;
    const char *target; /* from the path on, borrowed from the text; "" when there is none */
};
bool http_url_parse(const char *text, struct http_url *out, struct status *err);

#endif
