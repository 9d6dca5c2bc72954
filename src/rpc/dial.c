/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/dial.h"

#include "http/http1.h"
#include "http/proxy.h"
#include "io/tls.h"
#include "rpc/lookup.h"

/* One address may be dead while the next is not: none of them gets all the time. */
#define DIAL_CONNECT_MS 10000
/* Of an answer that refuses, for the message. */
#define DIAL_BODY_MAX 300

/* LOOKUP -> CONNECT -> (TUNNEL ->) UPGRADE; TLS begins with UPGRADE and needs no state here. */
enum dial_phase { DIAL_LOOKUP, DIAL_CONNECT, DIAL_TUNNEL, DIAL_UPGRADE };

struct dial {
    struct loop *loop;
    struct dial_options options; /* strings in `arena` */
    struct arena arena;
    struct address address;
    struct http_proxy proxy;
    enum dial_phase phase;
    struct lookup lookup;
    struct connector connector;
    struct address candidates[LOOKUP_MAX];
    size_t candidate_count, candidate_next;
    struct stream *stream; /* owned */
    bool is_tls;
    bool carried; /* by a stream that was there before */
    struct http1 answer;
    struct buf out, in, body;
    int http_status;
    struct timer timer;
    struct deferred failed; /* what was wrong from the start */
    struct status err;
};

static void dial_free(struct dial *d)
{
    lookup_cancel(&d->lookup);
    if (d->phase == DIAL_CONNECT)
        connector_cancel(&d->connector);
    timer_stop(&d->timer);
    deferred_stop(&d->failed);
    stream_free(d->stream);
    http1_free(&d->answer);
    buf_free(&d->out);
    buf_free(&d->in);
    buf_free(&d->body);
    http_proxy_free(&d->proxy);
    arena_free(&d->arena);
    free(d);
}

static void dial_fail(struct dial *d, const struct status *err, bool refused)
{
    struct status told = *err;

    if (d->proxy.host[0] != '\0')
        status_prefix(&told, "relay %s through HTTP proxy %s:%u", d->options.address, d->proxy.host, d->proxy.port);
    else
        status_prefix(&told, "relay %s%s", d->options.address, d->address.is_unix || d->carried ? "" : " (no proxy)");
    d->options.on_done(d->options.arg, NULL, STR(""), &told, refused);
    dial_free(d);
}

static void dial_failf(struct dial *d, enum status_code code, const char *text)
{
    struct status err = STATUS_INIT;

    status_set(&err, code, "%s", text);
    dial_fail(d, &err, false);
}

static void dial_on_failed(void *arg)
{
    struct dial *d = arg;

    dial_fail(d, &d->err, false);
}

static void dial_on_timeout(void *arg)
{
    static const char *const texts[] = {
        [DIAL_LOOKUP] = "its name was not found in time",
        [DIAL_CONNECT] = "it was not reached in time",
        [DIAL_TUNNEL] = "the HTTP proxy did not open the way in time",
        [DIAL_UPGRADE] = "it did not answer in time",
    };
    struct dial *d = arg;

    dial_failf(d, STATUS_DEADLINE_EXCEEDED, texts[d->phase]);
}

/* ---- requests and answers ---- */

/* The connection broke; TLS knows better why. */
static void dial_lost(struct dial *d)
{
    struct status err = STATUS_INIT;

    if (!d->is_tls || !tls_stream_error(d->stream, &err))
        status_set(&err, STATUS_UNAVAILABLE, d->phase == DIAL_TUNNEL ? "the HTTP proxy closed the connection"
                                                                     : "it closed the connection without an answer");
    dial_fail(d, &err, false);
}

static void dial_succeed(struct dial *d)
{
    struct stream *stream = d->stream;

    d->stream = NULL;
    stream_listen(stream, NULL, NULL);
    stream_want(stream, 0);
    d->options.on_done(d->options.arg, stream, (struct str){ buf_cstr(&d->in), d->in.n }, NULL, false);
    dial_free(d);
}

/* What to do about a proxy's refusal. */
static const char *dial_proxy_hint(int http_status)
{
    switch (http_status) {
    case 407: return " (it wants a user and a password: https_proxy=http://USER:PASSWORD@HOST:PORT)";
    case 403:
    case 405:
    case 501: return " (it does not open connections to this host and port: no_proxy says which are dialled directly)";
    case 502:
    case 503:
    case 504: return " (it does not reach the relay either)";
    default: return "";
    }
}

static void dial_refuse(struct dial *d)
{
    struct status err = STATUS_INIT;
    int status = d->http_status;
    bool for_good = d->phase == DIAL_UPGRADE && (status == 401 || status == 403 || status == 404 || status == 410);

    /* One line, without what could disturb a terminal or a log. */
    for (size_t i = 0; i < d->body.n; i++)
        if (d->body.p[i] < 0x20 || d->body.p[i] == 0x7f)
            d->body.p[i] = ' ';
    while (d->body.n > 0 && d->body.p[d->body.n - 1] == ' ')
        d->body.n--;
    status_set(&err, for_good ? http_to_status_code(status) : STATUS_UNAVAILABLE, "%s %d %s%s%s%s",
               d->phase == DIAL_TUNNEL ? "the HTTP proxy answers" : "it answers", status, http_reason(status),
               d->body.n > 0 ? ": " : "", buf_cstr(&d->body), d->phase == DIAL_TUNNEL ? dial_proxy_hint(status) : "");
    dial_fail(d, &err, for_good);
}

static bool dial_begin_upgrade(struct dial *d, struct status *err);

/* The way through the proxy is open. */
static void dial_enter_tunnel(struct dial *d)
{
    struct status err = STATUS_INIT;

    if (d->in.n > 0)
        dial_failf(d, STATUS_UNAVAILABLE, "the HTTP proxy sends bytes of its own into the connection");
    else if (!dial_begin_upgrade(d, &err))
        dial_fail(d, &err, false);
}

/* What the answer means, once it is complete or cut off. */
static void dial_on_answer(struct dial *d, enum http1_event event)
{
    if (event == HTTP1_UPGRADE && d->phase == DIAL_TUNNEL && d->http_status / 100 == 2)
        dial_enter_tunnel(d);
    else if (event == HTTP1_UPGRADE && http_headers_has_token(&d->answer.head.headers, "Upgrade", DIAL_PROTOCOL))
        dial_succeed(d);
    else if (event == HTTP1_UPGRADE)
        dial_failf(d, STATUS_UNAVAILABLE, "it switches to another protocol than was asked for");
    else
        dial_refuse(d);
}

/* Feeds what has come in; true when the answer was dealt with (the dial may be gone). */
static bool dial_parse(struct dial *d)
{
    struct status err = STATUS_INIT;
    struct str in = { buf_cstr(&d->in), d->in.n }, piece;

    for (;;) {
        enum http1_event event = http1_next(&d->answer, &in, &piece, &err);
        switch (event) {
        case HTTP1_MORE: buf_clear(&d->in); return false;
        case HTTP1_HEAD: d->http_status = d->answer.head.status; break;
        case HTTP1_BODY:
            buf_append(&d->body, piece.p, piece.n < DIAL_BODY_MAX - d->body.n ? piece.n : DIAL_BODY_MAX - d->body.n);
            if (d->body.n < DIAL_BODY_MAX)
                break;
            dial_on_answer(d, HTTP1_END);
            return true;
        case HTTP1_END:
            if (d->http_status / 100 == 1) /* interim: the answer is yet to come */
                break;
            dial_on_answer(d, event);
            return true;
        case HTTP1_UPGRADE:
            buf_consume(&d->in, d->in.n - in.n);
            dial_on_answer(d, event);
            return true;
        case HTTP1_ERROR: dial_failf(d, STATUS_UNAVAILABLE, "what answers there does not speak HTTP"); return true;
        }
    }
}

/* Writes what is left of the request; false when the connection is lost (the dial is gone). */
static bool dial_write(struct dial *d)
{
    while (d->out.n > 0) {
        ssize_t n = stream_write(d->stream, d->out.p, d->out.n);
        if (n == -EAGAIN)
            break;
        if (n <= 0) {
            dial_lost(d);
            return false;
        }
        buf_consume(&d->out, (size_t)n);
    }
    stream_want(d->stream, WATCH_READ | (d->out.n > 0 ? WATCH_WRITE : 0));
    return true;
}

static void dial_on_event(void *arg, unsigned events)
{
    struct dial *d = arg;

    if (events & (WATCH_READ | WATCH_HANGUP)) {
        ssize_t n = stream_read(d->stream, buf_reserve(&d->in, 4096), 4096);
        if (n > 0) {
            d->in.n += (size_t)n;
            if (dial_parse(d))
                return;
        } else if (n == 0 && d->http_status != 0 && http1_finish(&d->answer) == HTTP1_END) {
            dial_on_answer(d, HTTP1_END);
            return;
        } else if (n != -EAGAIN) {
            dial_lost(d);
            return;
        }
    }
    if (events & WATCH_WRITE)
        dial_write(d);
}

static void dial_send(struct dial *d, enum dial_phase phase)
{
    d->phase = phase;
    d->http_status = 0;
    buf_clear(&d->in);
    buf_clear(&d->body);
    http1_free(&d->answer);
    http1_init(&d->answer, false, HTTP_HEAD_MAX);
    d->answer.connect = phase == DIAL_TUNNEL;
    stream_listen(d->stream, dial_on_event, d);
    stream_want(d->stream, WATCH_READ | WATCH_WRITE);
}

/* "host:port" as headers and CONNECT want it. */
static void dial_put_authority(struct dial *d)
{
    bool v6 = strchr(d->address.host, ':') != NULL;

    if (d->address.is_unix)
        buf_append_str(&d->out, "relay");
    else
        buf_printf(&d->out, "%s%s%s:%u", v6 ? "[" : "", d->address.host, v6 ? "]" : "", d->address.port);
}

static bool dial_begin_tls(struct dial *d, struct status *err)
{
    const struct dial_options *o = &d->options;
    struct tls_trust *trust;

    if (*o->pin != '\0') {
        trust = tls_trust_pin(o->pin, err);
    } else {
        const char *path = *o->ca_path != '\0' ? o->ca_path : tls_find_ca_bundle();
        if (path == NULL)
            return status_set(err, STATUS_FAILED_PRECONDITION, "there is neither a pin of its key nor a CA bundle to know it by");
        trust = tls_trust_load(path, err);
    }
    if (trust == NULL)
        return false;
    struct stream *lower = d->stream;
    d->stream = tls_client(d->loop, lower, trust, d->address.host, NULL, 0, err);
    d->is_tls = d->stream != NULL;
    tls_trust_free(trust);
    return d->is_tls;
}

static bool dial_begin_upgrade(struct dial *d, struct status *err)
{
    if (!d->address.is_unix && !dial_begin_tls(d, err))
        return false;
    buf_append_str(&d->out, "GET " DIAL_PATH " HTTP/1.1\r\nHost: ");
    dial_put_authority(d);
    buf_printf(&d->out, "\r\nConnection: Upgrade\r\nUpgrade: " DIAL_PROTOCOL "\r\nAuthorization: Bearer %s\r\n"
               DIAL_SANDBOX_HEADER ": %s\r\n\r\n", d->options.token, d->options.sandbox_id);
    dial_send(d, DIAL_UPGRADE);
    return true;
}

static void dial_begin_tunnel(struct dial *d)
{
    buf_append_str(&d->out, "CONNECT ");
    dial_put_authority(d);
    buf_append_str(&d->out, " HTTP/1.1\r\nHost: ");
    dial_put_authority(d);
    buf_append_str(&d->out, "\r\n");
    if (d->proxy.authorization != NULL)
        buf_printf(&d->out, "Proxy-Authorization: %s\r\n", d->proxy.authorization);
    buf_append_str(&d->out, "\r\n");
    dial_send(d, DIAL_TUNNEL);
}

/* ---- connecting ---- */

static void dial_on_connected(void *arg, int fd, const struct status *connect_err);

static void dial_connect_next(struct dial *d)
{
    d->phase = DIAL_CONNECT;
    connector_start(d->loop, &d->connector, &d->candidates[d->candidate_next++], DIAL_CONNECT_MS, dial_on_connected, d);
}

static void dial_on_connected(void *arg, int fd, const struct status *connect_err)
{
    struct dial *d = arg;
    struct status err = STATUS_INIT;

    if (connect_err != NULL && d->candidate_next < d->candidate_count) {
        dial_connect_next(d);
        return;
    }
    if (connect_err != NULL) {
        err = *connect_err;
        err.code = STATUS_UNAVAILABLE;
        if (d->proxy.host[0] != '\0')
            status_prefix(&err, "the HTTP proxy is not reached");
        dial_fail(d, &err, false);
        return;
    }
    d->stream = stream_of_fd(d->loop, fd, &err);
    if (d->stream == NULL)
        dial_fail(d, &err, false);
    else if (d->proxy.host[0] != '\0')
        dial_begin_tunnel(d);
    else if (!dial_begin_upgrade(d, &err))
        dial_fail(d, &err, false);
}

static void dial_on_found(void *arg, const struct address *addresses, size_t count, const struct status *err)
{
    struct dial *d = arg;

    if (err != NULL) {
        dial_fail(d, err, false);
        return;
    }
    memcpy(d->candidates, addresses, count * sizeof *addresses);
    d->candidate_count = count;
    dial_connect_next(d);
}

/* ---- the interface ---- */

static bool dial_check(struct dial *d, struct status *err)
{
    const struct dial_options *o = &d->options;

    if (!http_value_valid(o->address))
        return status_set(err, STATUS_INVALID_ARGUMENT, "the address has control characters");
    if (!address_parse(o->address, &d->address, err))
        return false;
    if (*o->sandbox_id == '\0' || !http_value_valid(o->sandbox_id) || *o->token == '\0' || !http_value_valid(o->token))
        return status_set(err, STATUS_INVALID_ARGUMENT, "the sandbox's id or token is missing or malformed");
    if (d->address.is_unix)
        return true;
    if (*o->pin != '\0' && !tls_pin_valid(o->pin))
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.100s\" is not a key pin (sha256: and 64 hex digits)", o->pin);
    return http_proxy_choose(o->proxy, d->address.host, &d->proxy, err);
}

static const char *dial_copy(struct dial *d, const char *text)
{
    return arena_strdup(&d->arena, text != NULL ? text : "");
}

static struct dial *dial_new(struct loop *loop, const struct dial_options *options)
{
    struct dial *d = xcalloc(1, sizeof *d);
    struct dial_options *o = &d->options;

    d->loop = loop;
    *o = *options;
    o->address = dial_copy(d, o->address);
    o->pin = dial_copy(d, o->pin);
    o->ca_path = dial_copy(d, o->ca_path);
    o->sandbox_id = dial_copy(d, o->sandbox_id);
    o->token = dial_copy(d, o->token);
    if (o->proxy != NULL)
        o->proxy = dial_copy(d, o->proxy);
    return d;
}

struct dial *dial_start(struct loop *loop, const struct dial_options *options)
{
    struct dial *d = dial_new(loop, options);
    const struct dial_options *o = &d->options;

    if (!dial_check(d, &d->err)) {
        deferred_start(loop, &d->failed, dial_on_failed, d);
        return d;
    }
    struct address first = d->address;
    if (d->proxy.host[0] != '\0') {
        first = (struct address){ .port = d->proxy.port };
        strcpy(first.host, d->proxy.host);
    }
    timer_start(loop, &d->timer, o->timeout_ms > 0 ? o->timeout_ms : DIAL_TIMEOUT_MS, dial_on_timeout, d);
    lookup_start(loop, &d->lookup, &first, dial_on_found, d);
    return d;
}

struct dial *dial_start_on(struct loop *loop, struct stream *stream, const struct dial_options *options)
{
    struct dial *d = dial_new(loop, options);
    const struct dial_options *o = &d->options;

    d->carried = true;
    d->phase = DIAL_UPGRADE;
    d->stream = stream;
    strcpy(d->address.host, "relay");
    if (!tls_pin_valid(o->pin)) {
        status_set(&d->err, STATUS_INVALID_ARGUMENT, "there is no pin of its key to know it by");
        deferred_start(loop, &d->failed, dial_on_failed, d);
        return d;
    }
    timer_start(loop, &d->timer, o->timeout_ms > 0 ? o->timeout_ms : DIAL_TIMEOUT_MS, dial_on_timeout, d);
    if (!dial_begin_upgrade(d, &d->err))
        deferred_start(loop, &d->failed, dial_on_failed, d);
    return d;
}

void dial_cancel(struct dial *d)
{
    if (d != NULL)
        dial_free(d);
}
