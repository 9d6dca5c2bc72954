/* SPDX-License-Identifier: Apache-2.0 */
#include "http/http1.h"

#include <strings.h>

/* llhttp calls back while it runs; each callback that has something to tell pauses it, which turns it into an engine that
 * is asked for the next event. Its strict mode (the default) refuses what request smuggling lives on: two lengths, a
 * length beside chunked, bare line feeds, blanks before the colon. */

#define HTTP1_OF(parser) CONTAINER_OF(parser, struct http1, parser)

static int http1_refuse(struct http1 *h, const char *reason)
{
    h->reason = reason;
    return HPE_USER;
}

static int http1_pause(struct http1 *h, enum http1_event event)
{
    h->event = event;
    return HPE_PAUSED;
}

static int http1_on_begin(llhttp_t *parser)
{
    struct http1 *h = HTTP1_OF(parser);

    http_headers_free(&h->head.headers);
    h->head = (struct http1_head){ .content_length = -1 };
    buf_clear(&h->target);
    buf_clear(&h->name);
    buf_clear(&h->value);
    return 0;
}

static int http1_on_url(llhttp_t *parser, const char *p, size_t n)
{
    buf_append(&HTTP1_OF(parser)->target, p, n);
    return 0;
}

static int http1_on_name(llhttp_t *parser, const char *p, size_t n)
{
    struct http1 *h = HTTP1_OF(parser);

    if (!h->in_body)
        buf_append(&h->name, p, n);
    return 0;
}

static int http1_on_value(llhttp_t *parser, const char *p, size_t n)
{
    struct http1 *h = HTTP1_OF(parser);

    if (!h->in_body)
        buf_append(&h->value, p, n);
    return 0;
}

static int http1_on_value_end(llhttp_t *parser)
{
    struct http1 *h = HTTP1_OF(parser);

    if (h->in_body) /* a trailer: allowed, and ignored (RFC 9110 section 6.5) */
        return 0;
    if (h->head.headers.count >= HTTP_HEADERS_MAX) {
        h->too_large = true;
        return http1_refuse(h, "too many headers");
    }
    while (h->value.n > 0 && (h->value.p[h->value.n - 1] == ' ' || h->value.p[h->value.n - 1] == '\t'))
        h->value.n--;
    http_headers_addn(&h->head.headers, (struct str){ (const char *)h->name.p, h->name.n },
                      (struct str){ (const char *)h->value.p, h->value.n });
    buf_clear(&h->name);
    buf_clear(&h->value);
    return 0;
}

static int http1_check_request(struct http1 *h)
{
    struct http1_head *head = &h->head;

    head->method = llhttp_method_name((llhttp_method_t)llhttp_get_method(&h->parser));
    head->target = arena_strndup(&head->headers.arena, (const char *)h->target.p, h->target.n);
    /* RFC 9112 section 3.2: a 1.1 request has exactly one Host. */
    size_t hosts = http_headers_count(&head->headers, "Host");
    if (hosts > 1 || (hosts == 0 && head->minor == 1))
        return http1_refuse(h, hosts == 0 ? "the request has no Host" : "the request has several Hosts");
    const char *expect = http_headers_get(&head->headers, "Expect");
    head->expect_continue = head->minor == 1 && expect != NULL && strcasecmp(expect, "100-continue") == 0;
    return 0;
}

static int http1_on_head(llhttp_t *parser)
{
    struct http1 *h = HTTP1_OF(parser);
    struct http1_head *head = &h->head;

    head->major = llhttp_get_http_major(parser);
    head->minor = llhttp_get_http_minor(parser);
    head->status = llhttp_get_status_code(parser);
    head->chunked = (parser->flags & F_CHUNKED) != 0;
    if (head->major != 1 || head->minor > 1)
        return http1_refuse(h, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    /* RFC 9112 section 6.1: framing that HTTP/1.0 does not know is faulty. */
    if (head->minor == 0 && (parser->flags & F_TRANSFER_ENCODING) != 0)
        return http1_refuse(h, "Transfer-Encoding in an HTTP/1.0 message");
    if ((parser->flags & F_CONTENT_LENGTH) != 0) {
        if (parser->content_length > INT64_MAX)
            return http1_refuse(h, "Content-Length is out of range");
        head->content_length = (int64_t)parser->content_length;
    }
    if (parser->type == HTTP_REQUEST) {
        int refused = http1_check_request(h);
        if (refused != 0)
            return refused;
    } else if (head->status < 100 || head->status > 599) {
        return http1_refuse(h, "the status is not within 100 to 599");
    }
    if (parser->type == HTTP_RESPONSE && h->connect && head->status / 100 == 2) {
        parser->flags |= F_SKIPBODY;
        parser->upgrade = 1;
    } else if (parser->type == HTTP_RESPONSE && h->no_body) {
        parser->flags |= F_SKIPBODY;
    }
    /* Without Upgrade and its Connection, a 101 says nothing about what comes next. */
    if (parser->type == HTTP_RESPONSE && head->status == 101 && !parser->upgrade)
        return http1_refuse(h, "101 without Upgrade");
    head->upgrade = parser->upgrade != 0;
    head->keep_alive = llhttp_should_keep_alive(parser) != 0;
    h->in_body = true;
    return http1_pause(h, HTTP1_HEAD);
}

static int http1_on_body(llhttp_t *parser, const char *p, size_t n)
{
    struct http1 *h = HTTP1_OF(parser);

    if (n == 0)
        return 0;
    h->piece = (struct str){ p, n };
    return http1_pause(h, HTTP1_BODY);
}

static int http1_on_end(llhttp_t *parser)
{
    struct http1 *h = HTTP1_OF(parser);

    h->in_body = false;
    /* With an upgrade llhttp stops by itself right behind this. */
    return parser->upgrade ? 0 : http1_pause(h, HTTP1_END);
}

static const llhttp_settings_t http1_settings = {
    .on_message_begin = http1_on_begin,
    .on_url = http1_on_url,
    .on_header_field = http1_on_name,
    .on_header_value = http1_on_value,
    .on_header_value_complete = http1_on_value_end,
    .on_headers_complete = http1_on_head,
    .on_body = http1_on_body,
    .on_message_complete = http1_on_end,
};

void http1_init(struct http1 *h, bool requests, size_t head_max)
{
    *h = (struct http1){ .head_max = head_max, .head.content_length = -1 };
    llhttp_init(&h->parser, requests ? HTTP_REQUEST : HTTP_RESPONSE, &http1_settings);
}

void http1_free(struct http1 *h)
{
    http_headers_free(&h->head.headers);
    buf_free(&h->target);
    buf_free(&h->name);
    buf_free(&h->value);
    h->dead = true;
}

static enum http1_event http1_fail(struct http1 *h, struct status *err, const char *reason)
{
    h->dead = true;
    status_set(err, h->too_large ? STATUS_RESOURCE_EXHAUSTED : STATUS_INVALID_ARGUMENT, "malformed HTTP: %s",
               reason != NULL && *reason != '\0' ? reason : "not HTTP/1.1");
    return HTTP1_ERROR;
}

/* One run of llhttp over the first n bytes of *in. n may be 0: after a pause there may be more to tell without more bytes. */
static enum http1_event http1_run(struct http1 *h, struct str *in, size_t n, struct status *err)
{
    if (llhttp_get_errno(&h->parser) == HPE_PAUSED)
        llhttp_resume(&h->parser);
    h->event = HTTP1_MORE;
    llhttp_errno_t code = llhttp_execute(&h->parser, in->p, n);
    size_t taken = code == HPE_OK ? n : (size_t)(llhttp_get_error_pos(&h->parser) - in->p);
    in->p += taken;
    in->n -= taken;
    h->unproductive += taken;
    if (code == HPE_PAUSED_UPGRADE)
        h->event = HTTP1_UPGRADE;
    else if (code != HPE_OK && code != HPE_PAUSED)
        return http1_fail(h, err, h->reason != NULL ? h->reason : llhttp_get_error_reason(&h->parser));
    if (h->event == HTTP1_BODY || h->event == HTTP1_END || h->event == HTTP1_UPGRADE)
        h->unproductive = 0;
    return h->event;
}

enum http1_event http1_next(struct http1 *h, struct str *in, struct str *body, struct status *err)
{
    if (h->dead)
        return http1_fail(h, err, "the connection is beyond repair");
    if (in->n == 0)
        *in = STR("");
    for (;;) {
        /* Never more at a time than may still come without anything to tell: what the callbacks copy stays within that
         * bound, and how the input is cut makes no difference. */
        size_t room = h->head_max + 1 - h->unproductive, n = in->n < room ? in->n : room;
        enum http1_event event = http1_run(h, in, n, err);
        if (event == HTTP1_BODY)
            *body = h->piece;
        if (event != HTTP1_MORE)
            return event;
        if (h->unproductive > h->head_max) {
            h->too_large = true;
            return http1_fail(h, err, "the head is too large");
        }
        if (in->n == 0)
            return HTTP1_MORE;
    }
}

void http1_refuse_upgrade(struct http1 *h)
{
    if (llhttp_get_errno(&h->parser) == HPE_PAUSED_UPGRADE)
        llhttp_resume_after_upgrade(&h->parser);
}

enum http1_event http1_finish(struct http1 *h)
{
    struct str nothing = STR("");
    struct status ignored;

    if (h->dead)
        return HTTP1_ERROR;
    enum http1_event event = http1_run(h, &nothing, 0, &ignored);
    if (event == HTTP1_MORE) {
        llhttp_errno_t code = llhttp_finish(&h->parser);
        event = h->event == HTTP1_END ? HTTP1_END : code == HPE_OK ? HTTP1_MORE : HTTP1_ERROR;
    }
    h->dead = true;
    return event;
}
