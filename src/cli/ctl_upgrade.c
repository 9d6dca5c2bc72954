/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/ctl_stream.h"

#include "http/http1.h"
#include "http/websocket.h"
#include "io/child.h"
#include "io/tls.h"
#include "rpc/lookup.h"

/* For one address to take the connection, and for the whole. */
#define CTL_UPGRADE_CONNECT_MS 10000
#define CTL_UPGRADE_MS 30000
/* Of an answer that refuses, for the message. */
#define CTL_UPGRADE_BODY_MAX 512
/* Where crictl looks when a URL names no server: kubelet. */
#define CTL_UPGRADE_SERVER "http://127.0.0.1:10250"

struct ctl_upgrading {
    struct ctl *ctl;
    const struct ctl_upgrade *wanted;
    struct ctl_upgraded *out;
    bool websocket;
    struct http_url url;
    char key[WEBSOCKET_KEY_SIZE];
    struct lookup lookup;
    struct connector connector;
    struct address addresses[LOOKUP_MAX];
    size_t address_count, address;
    struct stream *stream; /* owned until it is handed over */
    struct http1 answer;
    struct buf request, in, body;
    int http_status;
    struct timer timer;
    bool done;
    struct status err; /* code OK: it worked */
};

bool ctl_wants_websocket(const struct ctl *ctl, bool *websocket, struct status *err)
{
    const char *word = ctl->flags.transport;

    *websocket = strcmp(word, "websocket") == 0;
    return *word == '\0' || *websocket || strcmp(word, "spdy") == 0 ||
           status_set(err, STATUS_INVALID_ARGUMENT, "--transport: wanted spdy or websocket, got \"%.64s\"", word);
}

static void ctl_upgrade_end(struct ctl_upgrading *u, const struct status *err)
{
    u->done = true;
    if (err != NULL)
        u->err = *err;
}

static void ctl_upgrade_fail(struct ctl_upgrading *u, enum status_code code, const char *text)
{
    struct status err = STATUS_INIT;

    status_set(&err, code, "%s", text);
    ctl_upgrade_end(u, &err);
}

static void ctl_upgrade_on_timeout(void *arg)
{
    ctl_upgrade_fail(arg, STATUS_DEADLINE_EXCEEDED, "no answer in time");
}

/* ---- the answer ---- */

/* The server says which protocol it has chosen. */
static const char *ctl_upgrade_protocol(const struct ctl_upgrading *u)
{
    const char *chosen = http_headers_get(&u->answer.head.headers,
                                          u->websocket ? "Sec-WebSocket-Protocol" : "X-Stream-Protocol-Version");

    for (size_t i = 0; chosen != NULL && i < u->wanted->protocol_count; i++)
        if (strcmp(chosen, u->wanted->protocols[i]) == 0)
            return u->wanted->protocols[i];
    return NULL;
}

static void ctl_upgrade_accept(struct ctl_upgrading *u)
{
    const struct http_headers *headers = &u->answer.head.headers;
    const char *proof = http_headers_get(headers, "Sec-WebSocket-Accept");
    char expected[WEBSOCKET_ACCEPT_SIZE];

    websocket_accept(u->key, expected);
    if (!http_headers_has_token(headers, "Upgrade", u->websocket ? "websocket" : "SPDY/3.1")) {
        ctl_upgrade_fail(u, STATUS_UNAVAILABLE, "it changes to another protocol than was asked for");
    } else if (u->websocket && (proof == NULL || strcmp(proof, expected) != 0)) {
        ctl_upgrade_fail(u, STATUS_UNAVAILABLE, "its Sec-WebSocket-Accept is wrong: it has not understood the request");
    } else if ((u->out->protocol = ctl_upgrade_protocol(u)) == NULL) {
        ctl_upgrade_fail(u, STATUS_UNAVAILABLE, "it speaks none of the protocols that were offered");
    } else {
        u->out->stream = steal_ptr(&u->stream);
        stream_listen(u->out->stream, NULL, NULL);
        stream_want(u->out->stream, 0);
        u->out->early = u->in;
        u->in = (struct buf)BUF_INIT;
        ctl_upgrade_end(u, NULL);
    }
}

/* Its own words, in one line without what could disturb a terminal. */
static void ctl_upgrade_refused(struct ctl_upgrading *u)
{
    struct status err = STATUS_INIT;

    for (size_t i = 0; i < u->body.n; i++)
        if (u->body.p[i] < 0x20 || u->body.p[i] == 0x7f)
            u->body.p[i] = ' ';
    while (u->body.n > 0 && u->body.p[u->body.n - 1] == ' ')
        u->body.n--;
    status_set(&err, http_to_status_code(u->http_status), "it answers %d %s%s%s", u->http_status, http_reason(u->http_status),
               u->body.n > 0 ? ": " : "", buf_cstr(&u->body));
    if (err.code == STATUS_OK)
        err.code = STATUS_UNAVAILABLE;
    ctl_upgrade_end(u, &err);
}

static void ctl_upgrade_parse(struct ctl_upgrading *u)
{
    struct status err = STATUS_INIT;
    struct str in = { buf_cstr(&u->in), u->in.n }, piece;

    while (!u->done) {
        enum http1_event event = http1_next(&u->answer, &in, &piece, &err);
        size_t room = CTL_UPGRADE_BODY_MAX - u->body.n;
        switch (event) {
        case HTTP1_MORE: buf_clear(&u->in); return;
        case HTTP1_HEAD: u->http_status = u->answer.head.status; break;
        case HTTP1_BODY:
            buf_append(&u->body, piece.p, piece.n < room ? piece.n : room);
            if (u->body.n == CTL_UPGRADE_BODY_MAX)
                ctl_upgrade_refused(u);
            break;
        case HTTP1_END:
            if (u->http_status / 100 != 1) /* else the answer is yet to come */
                ctl_upgrade_refused(u);
            break;
        case HTTP1_UPGRADE:
            buf_consume(&u->in, u->in.n - in.n);
            ctl_upgrade_accept(u);
            return;
        case HTTP1_ERROR: ctl_upgrade_fail(u, STATUS_UNAVAILABLE, "what answers there does not speak HTTP"); return;
        }
    }
}

/* ---- the request ---- */

static void ctl_upgrade_lost(struct ctl_upgrading *u)
{
    struct status err = STATUS_INIT;

    if (u->http_status != 0 && http1_finish(&u->answer) == HTTP1_END)
        ctl_upgrade_refused(u);
    else if (strcmp(u->url.scheme, "https") == 0 && tls_stream_error(u->stream, &err))
        ctl_upgrade_end(u, &err);
    else
        ctl_upgrade_fail(u, STATUS_UNAVAILABLE, "it closed the connection without an answer");
}

static void ctl_upgrade_on_event(void *arg, unsigned events)
{
    struct ctl_upgrading *u = arg;

    while (u->request.n > 0) {
        ssize_t n = stream_write(u->stream, u->request.p, u->request.n);
        if (n == -EAGAIN)
            break;
        if (n <= 0) {
            ctl_upgrade_lost(u);
            return;
        }
        buf_consume(&u->request, (size_t)n);
    }
    stream_want(u->stream, WATCH_READ | (u->request.n > 0 ? WATCH_WRITE : 0));
    if ((events & (WATCH_READ | WATCH_HANGUP)) == 0)
        return;
    ssize_t n = stream_read(u->stream, buf_reserve(&u->in, 4096), 4096);
    if (n > 0) {
        u->in.n += (size_t)n;
        ctl_upgrade_parse(u);
    } else if (n != -EAGAIN) {
        ctl_upgrade_lost(u);
    }
}

static void ctl_upgrade_write_request(struct ctl_upgrading *u)
{
    struct buf *out = &u->request;
    bool v6 = strchr(u->url.host, ':') != NULL;

    buf_printf(out, "%s %s%s HTTP/1.1\r\nHost: %s%s%s:%u\r\nConnection: Upgrade\r\n", u->websocket ? "GET" : "POST",
               *u->url.target == '/' ? "" : "/", u->url.target, v6 ? "[" : "", u->url.host, v6 ? "]" : "", u->url.port);
    if (u->websocket) {
        websocket_make_key(u->key);
        buf_printf(out, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", u->key);
    } else {
        buf_append_str(out, "Upgrade: SPDY/3.1\r\nContent-Length: 0\r\n");
    }
    for (size_t i = 0; i < u->wanted->protocol_count; i++)
        buf_printf(out, "%s: %s\r\n", u->websocket ? "Sec-WebSocket-Protocol" : "X-Stream-Protocol-Version",
                   u->wanted->protocols[i]);
    buf_append_str(out, "\r\n");
}

/* ---- TLS; as crictl: without --tls-ca nothing is checked, for the URL came over a socket that is trusted ---- */

static struct stream *ctl_upgrade_tls(struct ctl_upgrading *u, struct stream *lower, struct status *err)
{
    const struct ctl_flags *f = &u->ctl->flags;
    struct tls_trust *trust = *f->tls_ca != '\0' ? tls_trust_load(f->tls_ca, err) : tls_trust_anyone();
    struct tls_identity *identity = NULL;
    struct stream *stream = NULL;

    if (trust != NULL && *f->tls_cert != '\0')
        identity = tls_identity_load(f->tls_cert, f->tls_key, err);
    if (trust == NULL || (*f->tls_cert != '\0' && identity == NULL))
        stream_free(lower);
    else
        stream = tls_client(u->ctl->loop, lower, trust, *f->tls_sni != '\0' ? f->tls_sni : "localhost", identity, 0, err);
    tls_trust_free(trust);
    tls_identity_free(identity);
    return stream;
}

/* ---- connecting ---- */

static void ctl_upgrade_on_connected(void *arg, int fd, const struct status *connect_err);

static void ctl_upgrade_connect(struct ctl_upgrading *u)
{
    connector_start(u->ctl->loop, &u->connector, &u->addresses[u->address++], CTL_UPGRADE_CONNECT_MS, ctl_upgrade_on_connected,
                    u);
}

static void ctl_upgrade_on_connected(void *arg, int fd, const struct status *connect_err)
{
    struct ctl_upgrading *u = arg;
    struct status err = STATUS_INIT;

    if (connect_err != NULL && u->address < u->address_count) {
        ctl_upgrade_connect(u);
        return;
    }
    if (connect_err != NULL) {
        err = *connect_err;
        err.code = STATUS_UNAVAILABLE;
        ctl_upgrade_end(u, &err);
        return;
    }
    u->stream = stream_of_fd(u->ctl->loop, fd, &err);
    if (u->stream != NULL && strcmp(u->url.scheme, "https") == 0)
        u->stream = ctl_upgrade_tls(u, u->stream, &err);
    if (u->stream == NULL) {
        ctl_upgrade_end(u, &err);
        return;
    }
    http1_init(&u->answer, false, HTTP_HEAD_MAX);
    ctl_upgrade_write_request(u);
    stream_listen(u->stream, ctl_upgrade_on_event, u);
    stream_want(u->stream, WATCH_READ | WATCH_WRITE);
}

static void ctl_upgrade_on_found(void *arg, const struct address *addresses, size_t count, const struct status *err)
{
    struct ctl_upgrading *u = arg;

    if (err != NULL) {
        ctl_upgrade_end(u, err);
        return;
    }
    memcpy(u->addresses, addresses, count * sizeof *addresses);
    u->address_count = count;
    ctl_upgrade_connect(u);
}

static bool ctl_upgrade_begin(struct ctl_upgrading *u, struct status *err)
{
    struct ctl *ctl = u->ctl;
    const char *text = u->wanted->url;
    struct address address = { 0 };

    if (*text == '/')
        text = arena_printf(&ctl->arena, CTL_UPGRADE_SERVER "%s", text);
    if ((*ctl->flags.tls_cert == '\0') != (*ctl->flags.tls_key == '\0'))
        return status_set(err, STATUS_INVALID_ARGUMENT, "--tls-cert and --tls-key belong together");
    if (!http_value_valid(text) || !http_url_parse(text, &u->url, err) || !ctl_wants_websocket(ctl, &u->websocket, err) ||
        (!ctl->reaps && !child_reaper_start(ctl->loop, NULL, NULL, err)))
        return false;
    ctl->reaps = true;
    snprintf(address.host, sizeof address.host, "%s", u->url.host);
    address.port = u->url.port;
    timer_start(ctl->loop, &u->timer, ctl_timeout_ms(ctl, CTL_UPGRADE_MS), ctl_upgrade_on_timeout, u);
    lookup_start(ctl->loop, &u->lookup, &address, ctl_upgrade_on_found, u);
    return true;
}

bool ctl_upgrade(struct ctl *ctl, const struct ctl_upgrade *wanted, struct ctl_upgraded *out, struct status *err)
{
    struct ctl_upgrading *u = xcalloc(1, sizeof *u);

    *out = (struct ctl_upgraded){ .early = BUF_INIT };
    *u = (struct ctl_upgrading){ .ctl = ctl, .wanted = wanted, .out = out, .connector = { .fd = -1 } };
    bool ok = ctl_upgrade_begin(u, err);
    while (ok && !u->done)
        ok = ctl_turn(ctl, -1, err);
    if (ok && u->err.code != STATUS_OK) {
        *err = u->err;
        ok = status_prefix(err, "the streaming server %.200s:%u", u->url.host, u->url.port);
    }
    lookup_cancel(&u->lookup);
    connector_cancel(&u->connector);
    timer_stop(&u->timer);
    stream_free(u->stream);
    http1_free(&u->answer);
    buf_free(&u->request);
    buf_free(&u->in);
    buf_free(&u->body);
    free(u);
    return ok;
}

#undef CTL_UPGRADE_CONNECT_MS
#undef CTL_UPGRADE_MS
#undef CTL_UPGRADE_BODY_MAX
#undef CTL_UPGRADE_SERVER
