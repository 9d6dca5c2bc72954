/* SPDX-License-Identifier: Apache-2.0 */
#include "http/server_internal.h"

#include <strings.h>

/* Taken from the socket at a time. */
#define HTTP_READ_SIZE (16u << 10)
/* While a request is being answered we read on, to notice that the peer is gone; but no more than this. */
#define HTTP_READ_AHEAD (4u << 10)
/* A body that is collected must grow by this much in each body_timeout_ms. */
#define HTTP_BODY_STEP (16u << 10)
/* A reply that did not wait for the whole request is followed by reading the rest, or the peer's kernel may throw the reply
 * away (RFC 9112 section 9.6); for so long and so much. */
#define HTTP_LINGER_MS 2000
#define HTTP_LINGER_BYTES (1u << 20)

/* ---- connections ---- */

static void http_server_check_drained(struct http_server *server)
{
    if (server->draining && server->count == 0 && server->on_drained != NULL) {
        deferred_start(server->loop, &server->drained, server->on_drained, server->drained_arg);
        server->on_drained = NULL;
    }
}

static void http_connection_close(struct http_connection *c)
{
    struct http_exchange *x = c->x;
    struct http_server *server = c->server;

    if (x != NULL) {
        x->conn = NULL;
        if (x->on_gone != NULL) {
            x->in_gone = true;
            x->on_gone(x->on_gone_arg);
        }
        if (x->in_gone || !x->handed)
            http_exchange_free(x);
    }
    deferred_stop(&c->pump);
    timer_stop(&c->timer);
    stream_free(c->stream);
    http1_free(&c->engine);
    buf_free(&c->in);
    buf_free(&c->out);
    list_remove(&c->link);
    free(c);
    server->count--;
    http_server_check_drained(server);
}

void http_connection_write(struct http_connection *c)
{
    while (http_connection_queued(c) > 0) {
        ssize_t n = stream_write(c->stream, c->out.p + c->out_sent, http_connection_queued(c));
        if (n == -EAGAIN)
            break;
        if (n <= 0) {
            c->broken = true;
            return;
        }
        c->out_sent += (size_t)n;
        c->wait = HTTP_WAIT_NOTHING; /* progress: the timer starts anew */
    }
    if (http_connection_queued(c) == 0) {
        buf_free(&c->out);
        c->out_sent = 0;
    } else if (c->out_sent > c->out.n / 2) {
        buf_consume(&c->out, c->out_sent);
        c->out_sent = 0;
    }
}

static void http_connection_read(struct http_connection *c)
{
    if (c->in_used > 0) {
        buf_consume(&c->in, c->in_used);
        c->in_used = 0;
    }
    ssize_t n = stream_read(c->stream, buf_reserve(&c->in, HTTP_READ_SIZE), HTTP_READ_SIZE);
    if (n > 0) {
        c->in.n += (size_t)n;
        c->body_step += (size_t)n;
        if (c->phase == HTTP_PHASE_BODY && (c->x->route->stream_body || c->body_step >= HTTP_BODY_STEP)) {
            c->body_step = 0;
            c->wait = HTTP_WAIT_NOTHING;
        }
    } else if (n == 0) {
        c->eof = true;
    } else if (n != -EAGAIN) {
        c->broken = true;
    }
}

/* A reply outside of any exchange: to what could not be read as a request. */
static void http_connection_refuse(struct http_connection *c, int http_status, const char *text)
{
    buf_printf(&c->out, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n"
               "Connection: close\r\n\r\n%s\n", http_status, http_reason(http_status), strlen(text) + 1, text);
    c->phase = HTTP_PHASE_LINGER;
}

/* ---- requests ---- */

/* Splits the target into path and query; RFC 9112 section 3.2: origin form, or absolute form. */
static bool http_exchange_set_target(struct http_exchange *x, const char *target)
{
    cleanup_buf struct buf path = BUF_INIT;

    if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
        target = strstr(target, "://") + 3;
        target += strcspn(target, "/?");
        if (*target != '/')
            buf_append_byte(&path, '/');
    } else if (*target != '/' && strcmp(target, "*") != 0) {
        return false;
    }
    size_t n = strcspn(target, "?");
    if (!http_percent_decode((struct str){ target, n }, false, &path))
        return false;
    x->path = arena_strndup(&x->arena, (const char *)path.p, path.n);
    x->query = target[n] == '?' ? target + n + 1 : "";
    return true;
}

static bool http_route_fits_path(const struct http_route *route, const char *path)
{
    return str_ends(route->path, "/") ? str_starts(path, route->path) : strcmp(path, route->path) == 0;
}

static bool http_route_fits_method(const struct http_route *route, const struct http_exchange *x)
{
    return route->method == NULL || strcmp(route->method, x->method) == 0 ||
           (x->is_head && strcmp(route->method, "GET") == 0);
}

/* Finds the route; without one replies 404 or 405, and false. */
static bool http_exchange_route(struct http_exchange *x)
{
    const struct http_server_options *options = &x->conn->server->options;
    cleanup_buf struct buf allow = BUF_INIT;

    for (size_t i = 0; i < options->route_count; i++) {
        const struct http_route *route = &options->routes[i];
        if (!http_route_fits_path(route, x->path))
            continue;
        if (http_route_fits_method(route, x)) {
            x->route = route;
            return true;
        }
        buf_printf(&allow, "%s%s", allow.n > 0 ? ", " : "", route->method);
    }
    if (allow.n > 0) {
        const struct http_header header = { "Allow", buf_cstr(&allow) };
        http_reply(x, 405, &header, 1, "method not allowed\n", 19);
    } else {
        http_replyf(x, 404, "nothing is at %.200s", x->path);
    }
    return false;
}

/* Before anything of a request is handled: its target, route and announced size must do. Else replies, and false. */
static bool http_exchange_admit(struct http_exchange *x)
{
    const struct http1_head *head = &x->conn->engine.head;
    bool has_body = head->chunked || head->content_length > 0;

    if (!http_exchange_set_target(x, head->target)) {
        http_replyf(x, 400, "the request's target is malformed");
        return false;
    }
    if (!http_exchange_route(x))
        return false;
    if (x->route->stream_body)
        return true;
    if (has_body && x->route->body_max == 0) {
        http_replyf(x, 413, "%.200s takes no body", x->path);
        return false;
    }
    if (head->content_length > (int64_t)x->route->body_max) {
        http_replyf(x, 413, "the body is larger than %zu bytes", x->route->body_max);
        return false;
    }
    return true;
}

static void http_exchange_hand(struct http_exchange *x)
{
    x->handed = true;
    x->route->handler(x->context, x);
}

static void http_connection_on_head(struct http_connection *c)
{
    struct http1_head *head = &c->engine.head;
    struct http_exchange *x = xcalloc(1, sizeof *x);

    c->phase = HTTP_PHASE_BODY;
    c->body_step = 0;
    c->x = x;
    x->conn = c;
    x->context = c->server->options.context;
    x->headers = head->headers;
    head->headers = (struct http_headers){ 0 };
    x->method = head->method;
    x->is_head = strcmp(head->method, "HEAD") == 0;
    x->http10 = head->minor == 0;
    x->keep_alive = head->keep_alive;
    memcpy(x->peer, c->stream->peer, sizeof x->peer);
    if (!head->chunked && head->content_length <= 0)
        return; /* the end follows at once, and with it the handler */
    if (!http_exchange_admit(x))
        return;
    if (head->expect_continue)
        buf_append_str(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
    if (x->route->stream_body)
        http_exchange_hand(x);
}

static void http_connection_on_body(struct http_connection *c, struct str piece)
{
    struct http_exchange *x = c->x;

    if (x->route->stream_body)
        x->on_body(x->on_body_arg, piece);
    else if (piece.n > x->route->body_max - x->body.n)
        http_replyf(x, 413, "the body is larger than %zu bytes", x->route->body_max);
    else
        buf_append(&x->body, piece.p, piece.n);
}

/* The end of a streamed body, once the handler listens. */
static void http_connection_tell_end(struct http_connection *c)
{
    struct http_exchange *x = c->x;

    if (x == NULL || c->phase != HTTP_PHASE_REPLY || !x->route->stream_body || x->on_body == NULL || x->body_paused ||
        x->end_told)
        return;
    x->end_told = true;
    x->on_body(x->on_body_arg, STR(""));
}

static void http_connection_on_request_end(struct http_connection *c, bool upgrade)
{
    struct http_exchange *x = c->x;

    c->phase = HTTP_PHASE_REPLY;
    x->upgrade = upgrade;
    /* Behind CONNECT nothing can be HTTP again. */
    if (strcmp(x->method, "CONNECT") == 0)
        x->keep_alive = false;
    buf_cstr(&x->body);
    if (x->route == NULL ? http_exchange_admit(x) : !x->route->stream_body)
        http_exchange_hand(x);
    http_connection_tell_end(c);
}

static bool http_connection_may_parse(const struct http_connection *c)
{
    if (c->broken || c->stream == NULL)
        return false;
    switch (c->phase) {
    case HTTP_PHASE_WAIT:
    case HTTP_PHASE_HEAD: return true;
    case HTTP_PHASE_BODY:
        return c->x->route == NULL || !c->x->route->stream_body || (c->x->on_body != NULL && !c->x->body_paused);
    case HTTP_PHASE_REPLY:
    case HTTP_PHASE_LINGER: break;
    }
    return false;
}

/* One event of the engine; false when it wants more bytes. */
static bool http_connection_step(struct http_connection *c)
{
    struct str in = STR(""), piece;
    struct status err = STATUS_INIT;

    if (c->in_used < c->in.n)
        in = (struct str){ (const char *)c->in.p + c->in_used, c->in.n - c->in_used };
    enum http1_event event = http1_next(&c->engine, &in, &piece, &err);
    c->in_used = c->in.n - in.n;
    switch (event) {
    case HTTP1_MORE:
        if (c->phase == HTTP_PHASE_WAIT && c->engine.unproductive > 0)
            c->phase = HTTP_PHASE_HEAD;
        return false;
    case HTTP1_HEAD: http_connection_on_head(c); break;
    case HTTP1_BODY: http_connection_on_body(c, piece); break;
    case HTTP1_END: http_connection_on_request_end(c, false); break;
    case HTTP1_UPGRADE: http_connection_on_request_end(c, true); break;
    case HTTP1_ERROR:
        log_info("http: %s from %s", err.message, c->stream->peer);
        /* In the middle of a body the handler may have begun to reply: nothing sensible can be said any more. */
        if (c->x != NULL)
            c->broken = true;
        else
            http_connection_refuse(c, err.code == STATUS_RESOURCE_EXHAUSTED ? 431 : 400, err.message);
        break;
    }
    return true;
}

/* ---- what a connection waits for ---- */

static void http_connection_on_timeout(void *arg)
{
    struct http_connection *c = arg;

    c->wait = HTTP_WAIT_NOTHING;
    if (c->phase == HTTP_PHASE_HEAD && http_connection_queued(c) == 0) {
        http_connection_refuse(c, 408, "the request did not come in time");
        http_connection_pump(c);
        return;
    }
    if (c->phase != HTTP_PHASE_WAIT && c->phase != HTTP_PHASE_LINGER)
        log_info("http: %s timed out", c->stream->peer);
    http_connection_close(c);
}

static void http_connection_set_timer(struct http_connection *c)
{
    const struct http_server_options *o = &c->server->options;
    enum http_wait wait = HTTP_WAIT_NOTHING;
    int64_t ms = 0;

    if (http_connection_queued(c) > 0) {
        wait = HTTP_WAIT_WRITE;
        ms = o->write_timeout_ms;
    } else if (c->phase == HTTP_PHASE_WAIT) {
        wait = c->served ? HTTP_WAIT_IDLE : HTTP_WAIT_FIRST;
        ms = c->served ? o->idle_timeout_ms : o->head_timeout_ms;
    } else if (c->phase == HTTP_PHASE_HEAD) {
        /* On a new connection the clock runs from its beginning. */
        wait = c->served ? HTTP_WAIT_HEAD : HTTP_WAIT_FIRST;
        ms = o->head_timeout_ms;
    } else if (c->phase == HTTP_PHASE_BODY && http_connection_may_parse(c)) {
        wait = HTTP_WAIT_BODY;
        ms = o->body_timeout_ms;
    } else if (c->phase == HTTP_PHASE_LINGER) {
        wait = HTTP_WAIT_LINGER;
        ms = HTTP_LINGER_MS;
    }
    bool same = wait == c->wait && timer_running(&c->timer);
    c->wait = wait;
    if (wait == HTTP_WAIT_NOTHING)
        timer_stop(&c->timer);
    else if (!same)
        timer_start(c->server->loop, &c->timer, ms, http_connection_on_timeout, c);
}

static void http_connection_set_want(struct http_connection *c)
{
    unsigned want = http_connection_queued(c) > 0 ? WATCH_WRITE : 0;

    if (!c->eof && (http_connection_may_parse(c) || c->phase == HTTP_PHASE_LINGER || c->in.n - c->in_used < HTTP_READ_AHEAD))
        want |= WATCH_READ;
    stream_want(c->stream, want);
}

/* The end of a connection, as far as it can go now. True: it is to be closed. */
static bool http_connection_linger(struct http_connection *c)
{
    if (http_connection_queued(c) > 0)
        return false;
    /* What was asked is answered and nothing else came: nothing can get lost. */
    bool whole = !c->engine.in_body && !c->engine.dead && c->engine.unproductive == 0 && c->in.n == c->in_used;
    c->lingered += c->in.n - c->in_used;
    c->in_used = c->in.n;
    if (c->eof || whole || c->lingered > HTTP_LINGER_BYTES)
        return true;
    if (!c->half_closed) {
        c->half_closed = true;
        stream_shutdown_write(c->stream);
    }
    return false;
}

/* Whether the peer can be taken as gone: it closed, and nothing that it began can be completed. */
static bool http_connection_gone(const struct http_connection *c)
{
    if (!c->eof || c->phase == HTTP_PHASE_LINGER || http_connection_queued(c) > 0)
        return false;
    if (c->phase != HTTP_PHASE_REPLY)
        return !(c->phase == HTTP_PHASE_BODY && !http_connection_may_parse(c) && c->in_used < c->in.n);
    /* A client may close its side and still wait for a reply; but one whose handler wants to know is not waited for. */
    return c->x->on_gone != NULL;
}

void http_connection_pump(void *arg)
{
    struct http_connection *c = arg;

    while (http_connection_may_parse(c) && http_connection_step(c))
        continue;
    http_connection_tell_end(c);
    if (c->stream != NULL && !c->broken)
        http_connection_write(c);
    if (c->stream == NULL || c->broken) {
        http_connection_close(c);
        return;
    }
    struct http_exchange *x = c->x;
    if (x != NULL && x->blocked && http_connection_queued(c) <= HTTP_SEND_HIGH_WATER / 2) {
        x->blocked = false;
        if (x->on_writable != NULL)
            x->on_writable(x->on_writable_arg); /* may end the exchange; what it queued goes out in the deferred call */
    }
    bool idle_end = c->server->draining && c->phase == HTTP_PHASE_WAIT && http_connection_queued(c) == 0;
    if (c->broken || c->stream == NULL || idle_end || http_connection_gone(c) ||
        (c->phase == HTTP_PHASE_LINGER && http_connection_linger(c))) {
        http_connection_close(c);
        return;
    }
    if (c->in_used == c->in.n) {
        buf_free(&c->in);
        c->in_used = 0;
    }
    http_connection_set_want(c);
    http_connection_set_timer(c);
}

static void http_connection_on_event(void *arg, unsigned events)
{
    struct http_connection *c = arg;

    if (events & WATCH_READ)
        http_connection_read(c);
    if (events & WATCH_HANGUP)
        c->broken = true;
    http_connection_pump(c);
}

/* ---- the server ---- */

struct http_server *http_server_new(struct loop *loop, const struct http_server_options *options)
{
    struct http_server *server = xcalloc(1, sizeof *server);
    struct http_server_options *o = &server->options;

    server->loop = loop;
    *o = *options;
    o->connections_max = o->connections_max > 0 ? o->connections_max : HTTP_CONNECTIONS_MAX;
    o->head_timeout_ms = o->head_timeout_ms > 0 ? o->head_timeout_ms : HTTP_HEAD_TIMEOUT_MS;
    o->idle_timeout_ms = o->idle_timeout_ms > 0 ? o->idle_timeout_ms : HTTP_IDLE_TIMEOUT_MS;
    o->body_timeout_ms = o->body_timeout_ms > 0 ? o->body_timeout_ms : HTTP_BODY_TIMEOUT_MS;
    o->write_timeout_ms = o->write_timeout_ms > 0 ? o->write_timeout_ms : HTTP_WRITE_TIMEOUT_MS;
    list_init(&server->connections);
    return server;
}

void http_server_accept(struct http_server *server, struct stream *stream)
{
    if (server->draining || server->count >= server->options.connections_max) {
        if (!server->draining)
            log_warn("http: %s turned away: %zu connections are open already", stream->peer, server->count);
        stream_free(stream);
        return;
    }
    struct http_connection *c = xcalloc(1, sizeof *c);
    c->server = server;
    c->stream = stream;
    http1_init(&c->engine, true, HTTP_HEAD_MAX);
    list_append(&server->connections, &c->link);
    server->count++;
    stream_listen(stream, http_connection_on_event, c);
    http_connection_set_want(c);
    http_connection_set_timer(c);
}

void http_server_accept_fd(void *server, int fd)
{
    struct http_server *s = server;
    struct status err = STATUS_INIT;
    struct stream *stream = stream_of_fd(s->loop, fd, &err);

    if (stream == NULL)
        log_warn("http: %s", err.message);
    else
        http_server_accept(s, stream);
}

size_t http_server_connections(const struct http_server *server)
{
    return server->count;
}

void http_server_shutdown(struct http_server *server, void (*on_drained)(void *arg), void *arg)
{
    server->draining = true;
    server->on_drained = on_drained;
    server->drained_arg = arg;
    for (LIST_EACH(struct http_connection, c, &server->connections, link))
        deferred_start(server->loop, &c->pump, http_connection_pump, c);
    http_server_check_drained(server);
}

void http_server_free(struct http_server *server)
{
    if (server == NULL)
        return;
    server->on_drained = NULL;
    while (!list_empty(&server->connections))
        http_connection_close(CONTAINER_OF(server->connections.next, struct http_connection, link));
    deferred_stop(&server->drained);
    free(server);
}

