/* SPDX-License-Identifier: Apache-2.0 */
#include "http/server_internal.h"

#include <strings.h>
#include <time.h>

/* ---- the end ---- */

void http_exchange_free(struct http_exchange *x)
{
    http_headers_free(&x->headers);
    arena_free(&x->arena);
    buf_free(&x->body);
    free(x);
}

/* The reply is complete (or never will be): the connection goes on to the next request or to its end. */
static void http_exchange_end(struct http_exchange *x, bool keep)
{
    struct http_connection *c = x->conn;

    if (x->in_gone)
        return;
    if (c != NULL) {
        keep = keep && x->keep_alive && c->phase == HTTP_PHASE_REPLY;
        if (keep && x->upgrade)
            http1_refuse_upgrade(&c->engine);
        c->phase = keep ? HTTP_PHASE_WAIT : HTTP_PHASE_LINGER;
        c->served = true;
        c->x = NULL;
        deferred_start(c->server->loop, &c->pump, http_connection_pump, c);
    }
    http_exchange_free(x);
}

/* ---- the request ---- */

const char *http_exchange_method(const struct http_exchange *x)
{
    return x->method;
}

const char *http_exchange_path(const struct http_exchange *x)
{
    return x->path;
}

const char *http_exchange_query(const struct http_exchange *x)
{
    return x->query;
}

const char *http_exchange_query_get(struct http_exchange *x, const char *key)
{
    return http_query_get(&x->arena, x->query, key);
}

const char *http_exchange_header(const struct http_exchange *x, const char *name)
{
    return http_headers_get(&x->headers, name);
}

bool http_exchange_has_token(const struct http_exchange *x, const char *name, const char *token)
{
    return http_headers_has_token(&x->headers, name, token);
}

struct str http_exchange_body(const struct http_exchange *x)
{
    return (struct str){ x->body.n > 0 ? (const char *)x->body.p : "", x->body.n };
}

const char *http_exchange_peer(const struct http_exchange *x)
{
    return x->peer;
}

struct arena *http_exchange_arena(struct http_exchange *x)
{
    return &x->arena;
}

static void http_exchange_wake(struct http_exchange *x)
{
    if (x->conn != NULL)
        deferred_start(x->conn->server->loop, &x->conn->pump, http_connection_pump, x->conn);
}

void http_exchange_on_body(struct http_exchange *x, void (*fn)(void *arg, struct str piece), void *arg)
{
    x->on_body = fn;
    x->on_body_arg = arg;
    http_exchange_wake(x);
}

void http_exchange_pause(struct http_exchange *x, bool paused)
{
    x->body_paused = paused;
    http_exchange_wake(x);
}

void http_exchange_on_gone(struct http_exchange *x, void (*fn)(void *arg), void *arg)
{
    x->on_gone = fn;
    x->on_gone_arg = arg;
    http_exchange_wake(x);
}

/* ---- the reply ---- */

static bool http_header_is_ours(const char *name)
{
    static const char *const ours[] = { "Connection", "Content-Length", "Transfer-Encoding", "Date" };

    for (size_t i = 0; i < COUNT_OF(ours); i++)
        if (strcasecmp(name, ours[i]) == 0)
            return true;
    return false;
}

static void http_append_head(struct buf *out, int http_status, const struct http_header *headers, size_t header_count)
{
    char date[40];
    time_t now = (time_t)(clock_real_ns() / 1000000000);
    struct tm tm;

    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
    buf_printf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\n", http_status, http_reason(http_status), date);
    for (size_t i = 0; i < header_count; i++) {
        if (http_header_is_ours(headers[i].name))
            continue;
        /* A line end in a value would let whoever chose it write headers of their own. */
        if (http_name_valid(headers[i].name) && http_value_valid(headers[i].value))
            buf_printf(out, "%s: %s\r\n", headers[i].name, headers[i].value);
        else
            log_warn("http: a reply's header was left out: it is not valid");
    }
}

/* Decides whether the connection stays and says so. */
static void http_exchange_append_connection(struct http_exchange *x, struct buf *out)
{
    struct http_connection *c = x->conn;

    x->keep_alive = x->keep_alive && c->phase == HTTP_PHASE_REPLY && !c->server->draining && !c->eof;
    if (!x->keep_alive)
        buf_append_str(out, "Connection: close\r\n");
    else if (x->http10)
        buf_append_str(out, "Connection: keep-alive\r\n");
}

void http_reply(struct http_exchange *x, int http_status, const struct http_header *headers, size_t header_count,
                const void *body, size_t body_n)
{
    struct http_connection *c = x->conn;

    if (x->replying) { /* something went wrong behind the first bytes */
        http_reply_abort(x);
        return;
    }
    if (c != NULL) {
        http_append_head(&c->out, http_status, headers, header_count);
        http_exchange_append_connection(x, &c->out);
        /* RFC 9110 section 8.6: no length where there cannot be a body. */
        bool bodiless = http_status / 100 == 1 || http_status == 204 || http_status == 304;
        if (!bodiless)
            buf_printf(&c->out, "Content-Length: %zu\r\n", body_n);
        buf_append_str(&c->out, "\r\n");
        if (!bodiless && !x->is_head)
            buf_append(&c->out, body, body_n);
    }
    http_exchange_end(x, true);
}

void http_reply_text(struct http_exchange *x, int http_status, const char *type, struct str body)
{
    const struct http_header header = { "Content-Type", type };

    http_reply(x, http_status, &header, 1, body.p, body.n);
}

void http_replyf(struct http_exchange *x, int http_status, const char *format, ...)
{
    char text[STATUS_MESSAGE_MAX + 1];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(text, sizeof text - 1, format, args);
    va_end(args);
    size_t length = n < 0 ? 0 : (size_t)n < sizeof text - 1 ? (size_t)n : sizeof text - 2;
    text[length++] = '\n';
    http_reply_text(x, http_status, "text/plain; charset=utf-8", (struct str){ text, length });
}

void http_reply_error(struct http_exchange *x, const struct status *error)
{
    http_replyf(x, http_from_status_code(error->code), "%s", error->message);
}

void http_reply_start(struct http_exchange *x, int http_status, const struct http_header *headers, size_t header_count)
{
    struct http_connection *c = x->conn;

    x->chunked = !x->http10;
    if (c == NULL || x->replying)
        return;
    x->replying = true;
    http_append_head(&c->out, http_status, headers, header_count);
    /* HTTP/1.0 knows no chunks: the end of the connection is the end of the body. */
    if (!x->chunked)
        x->keep_alive = false;
    http_exchange_append_connection(x, &c->out);
    buf_append_str(&c->out, x->chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    http_exchange_wake(x);
}

bool http_reply_send(struct http_exchange *x, const void *p, size_t n)
{
    struct http_connection *c = x->conn;

    if (c == NULL || n == 0 || x->is_head)
        return true;
    if (x->chunked)
        buf_printf(&c->out, "%zx\r\n", n);
    buf_append(&c->out, p, n);
    if (x->chunked)
        buf_append(&c->out, "\r\n", 2);
    http_exchange_wake(x);
    x->blocked = http_connection_queued(c) > HTTP_SEND_HIGH_WATER;
    return !x->blocked;
}

void http_exchange_on_writable(struct http_exchange *x, void (*fn)(void *arg), void *arg)
{
    x->on_writable = fn;
    x->on_writable_arg = arg;
}

void http_reply_end(struct http_exchange *x)
{
    if (x->conn != NULL && x->chunked && !x->is_head)
        buf_append_str(&x->conn->out, "0\r\n\r\n");
    http_exchange_end(x, true);
}

void http_reply_abort(struct http_exchange *x)
{
    if (x->conn != NULL)
        x->conn->broken = true;
    http_exchange_end(x, false);
}

bool http_exchange_wants_upgrade(const struct http_exchange *x, const char *protocol)
{
    return x->upgrade && http_headers_has_token(&x->headers, "Upgrade", protocol);
}

struct stream *http_exchange_upgrade(struct http_exchange *x, const char *protocol, const struct http_header *headers,
                                     size_t header_count, struct buf *early)
{
    struct http_connection *c = x->conn;

    if (c == NULL || x->replying || !http_exchange_wants_upgrade(x, protocol)) {
        http_replyf(x, 400, "this needs a request with Connection: Upgrade and Upgrade: %s", protocol);
        return NULL;
    }
    http_append_head(&c->out, 101, headers, header_count);
    buf_printf(&c->out, "Connection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol);
    /* Nothing else is under way here, so that these few bytes find room, unless the peer is gone or plays games. */
    http_connection_write(c);
    if (c->broken || http_connection_queued(c) > 0) {
        c->broken = true;
        http_exchange_end(x, false);
        return NULL;
    }
    struct stream *stream = c->stream;
    c->stream = NULL;
    stream_listen(stream, NULL, NULL);
    stream_want(stream, 0);
    if (c->in_used < c->in.n)
        buf_append(early, c->in.p + c->in_used, c->in.n - c->in_used);
    http_exchange_end(x, false);
    return stream;
}
