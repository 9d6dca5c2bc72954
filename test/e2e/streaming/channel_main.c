/* SPDX-License-Identifier: Apache-2.0 */
/* Channels of the program's own, for peers of other implementations to try:
 *
 *   channel_main serve [COUNT]      answers upgrades on a TCP port of the loopback interface: prints "ready PORT"; ends on SIGTERM,
 *                                   or when its standard input does. Every channel does what its name says (below).
 *   channel_main dial PORT CARRIER  speaks SPDY or WebSocket, right away and without an upgrade, to a server that echoes:
 *                                   a few channels, a few megabytes each; exits with 0 when all of it came back.
 *
 * What a channel does: the value of the header "streamtype" (SPDY), or the number in the request's query (?0=echo&1=source).
 *   echo     sends back what comes, and its end
 *   sink     counts what comes; at its end sends the count as text, and ends
 *   source   sends "bytes" bytes (header or query), each the low byte of its offset divided by 1024, and ends
 *   stall    is paused for ever */
#include "base/base.h"
#include "http/channel.h"
#include "http/server.h"
#include "http/websocket.h"
#include "io/loop.h"
#include "io/socket.h"

#include <signal.h>
#include <unistd.h>

struct test_server {
    struct loop *loop;
    struct http_server *http;
    struct listener listener;
    struct watch input;
    size_t sessions;
};

struct test_session {
    struct test_server *server;
    struct channel_conn *conn;
    size_t channels;
    bool close_when_empty;
};

struct test_channel {
    struct test_session *session;
    struct channel *channel;
    char what[16];
    uint64_t heard, to_send, sent;
};

/* ---- what channels do ---- */

static void test_source(struct test_channel *t)
{
    static uint8_t bytes[32 << 10];
    bool more = true;

    while (more && t->sent < t->to_send) {
        size_t n = sizeof bytes < t->to_send - t->sent ? sizeof bytes : (size_t)(t->to_send - t->sent);
        for (size_t i = 0; i < n; i += 1024)
            memset(bytes + i, (int)((t->sent + i) / 1024 & 0xff), 1024);
        more = channel_send(t->channel, bytes, n);
        t->sent += n;
    }
    if (t->sent == t->to_send && *t->what != '\0') {
        *t->what = '\0';
        channel_end(t->channel);
        if (t->session->close_when_empty)
            channel_conn_close(t->session->conn);
    }
}

static void test_on_data(void *arg, struct str piece)
{
    struct test_channel *t = arg;

    t->heard += piece.n;
    if (strcmp(t->what, "echo") == 0 && !channel_send(t->channel, piece.p, piece.n))
        channel_pause(t->channel, true);
}

static void test_on_end(void *arg)
{
    struct test_channel *t = arg;
    char text[32];

    if (strcmp(t->what, "sink") == 0) {
        snprintf(text, sizeof text, "%" PRIu64, t->heard);
        channel_send(t->channel, text, strlen(text));
    }
    if (strcmp(t->what, "source") != 0)
        channel_end(t->channel);
}

static void test_on_writable(void *arg)
{
    struct test_channel *t = arg;

    if (strcmp(t->what, "echo") == 0)
        channel_pause(t->channel, false);
    else
        test_source(t);
}

static void test_on_gone(void *arg, const struct status *err)
{
    struct test_channel *t = arg;

    (void)err;
    t->session->channels--;
    free(t);
}

static void test_take(struct test_session *session, struct channel *c, const char *what, const char *bytes)
{
    struct test_channel *t = xcalloc(1, sizeof *t);
    const struct channel_listener listener = { test_on_data, test_on_end, test_on_writable, test_on_gone, t };

    t->session = session;
    t->channel = c;
    snprintf(t->what, sizeof t->what, "%s", what != NULL ? what : "echo");
    session->channels++;
    channel_listen(c, &listener);
    if (strcmp(t->what, "stall") == 0)
        channel_pause(c, true);
    if (strcmp(t->what, "source") == 0) {
        parse_u64(bytes != NULL ? bytes : "0", UINT64_MAX, &t->to_send);
        test_source(t);
    }
}

static void test_on_channel(void *arg, struct channel *c, const struct http_header *headers, size_t count)
{
    const char *what = NULL, *bytes = NULL;

    for (size_t i = 0; i < count; i++) {
        if (strcmp(headers[i].name, "streamtype") == 0)
            what = headers[i].value;
        if (strcmp(headers[i].name, "bytes") == 0)
            bytes = headers[i].value;
    }
    test_take(arg, c, what, bytes);
}

static void test_on_close(void *arg, const struct status *err)
{
    struct test_session *session = arg;

    if (session->channels != 0)
        abort();
    fprintf(stderr, "closed: %s %s\n", status_code_name(err->code), err->message);
    channel_conn_free(session->conn);
    session->server->sessions--;
    free(session);
}

/* ---- the server ---- */

static void test_upgrade(void *context, struct http_exchange *x)
{
    struct test_server *server = context;
    const char *key = http_exchange_header(x, "Sec-WebSocket-Key"), *ping = http_exchange_query_get(x, "ping");
    const char *protocol = http_exchange_header(x, "Sec-WebSocket-Protocol"), *idle = http_exchange_query_get(x, "idle");
    struct channel_conn_options options = { .on_channel = test_on_channel, .on_close = test_on_close };
    struct http_header headers[2];
    char accept[WEBSOCKET_ACCEPT_SIZE], name[16], *kinds[8], *bytes;
    cleanup_buf struct buf early = BUF_INIT;
    size_t count = 0;
    uint64_t ms;

    if (ping != NULL && parse_u64(ping, 100000, &ms))
        options.keepalive_ms = options.keepalive_timeout_ms = (int64_t)ms;
    if (idle != NULL && parse_u64(idle, 100000, &ms))
        options.idle_timeout_ms = (int64_t)ms;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        snprintf(name, sizeof name, "%zu", i);
        const char *kind = http_exchange_query_get(x, name);
        kinds[i] = xstrdup(kind != NULL ? kind : "echo");
    }
    const char *amount = http_exchange_query_get(x, "bytes");
    bytes = xstrdup(amount != NULL ? amount : "0");
    bool closes = http_exchange_query_get(x, "close") != NULL;
    bool websocket = http_exchange_wants_upgrade(x, "websocket") && key != NULL;
    if (websocket) {
        options.channel_count = COUNT_OF(kinds);
        options.carrier = CHANNEL_WEBSOCKET;
        options.close_signals = protocol != NULL && strstr(protocol, "v5.") != NULL;
        if (protocol != NULL && strstr(protocol, "base64") != NULL)
            options.carrier = CHANNEL_WEBSOCKET_BASE64;
        if (protocol != NULL && strstr(protocol, "portforward") != NULL) {
            options.carrier = CHANNEL_WEBSOCKET_SPDY;
            options.channel_count = 0;
        }
        websocket_accept(key, accept);
        headers[count++] = (struct http_header){ "Sec-WebSocket-Accept", accept };
        if (protocol != NULL)
            headers[count++] = (struct http_header){ "Sec-WebSocket-Protocol", protocol };
    } else {
        const char *version = http_exchange_header(x, "X-Stream-Protocol-Version");
        if (version != NULL)
            headers[count++] = (struct http_header){ "X-Stream-Protocol-Version", version };
    }
    struct stream *stream = http_exchange_upgrade(x, websocket ? "websocket" : "SPDY/3.1", headers, count, &early);
    if (stream != NULL) {
        struct test_session *session = xcalloc(1, sizeof *session);
        session->server = server;
        session->close_when_empty = closes;
        server->sessions++;
        options.arg = session;
        session->conn = channel_conn_new(server->loop, stream, (struct str){ (const char *)early.p, early.n }, &options);
        for (size_t i = 0; i < options.channel_count; i++)
            test_take(session, channel_number(session->conn, i), kinds[i], bytes);
    }
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        free(kinds[i]);
    free(bytes);
}

static void test_count(void *context, struct http_exchange *x)
{
    http_replyf(x, 200, "%zu", ((struct test_server *)context)->sessions);
}

static void test_on_input(void *arg, unsigned events)
{
    (void)events;
    loop_stop(((struct test_server *)arg)->loop);
}

static void test_on_signal(void *arg, const struct signalfd_siginfo *info)
{
    (void)info;
    loop_stop(((struct test_server *)arg)->loop);
}

static int test_serve(void)
{
    static const struct http_route routes[] = {
        { .method = "GET", .path = "/sessions", .handler = test_count },
        { .path = "/", .handler = test_upgrade },
    };
    struct test_server server = { 0 };
    struct http_server_options options = { .routes = routes, .route_count = COUNT_OF(routes), .context = &server };
    struct address address;
    struct status err = STATUS_INIT;
    uint16_t port;

    server.loop = loop_new(&err);
    server.http = http_server_new(server.loop, &options);
    if (!address_parse("127.0.0.1:0", &address, &err) ||
        !listener_open(server.loop, &server.listener, &address, 0, http_server_accept_fd, server.http, &port, &err) ||
        !watch_start(server.loop, &server.input, STDIN_FILENO, WATCH_READ, test_on_input, &server, &err) ||
        !loop_signal(server.loop, SIGTERM, test_on_signal, &server, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("ready %u\n", port);
    fflush(stdout);
    loop_run(server.loop);
    listener_close(&server.listener);
    watch_stop(&server.input);
    http_server_free(server.http);
    while (server.sessions > 0)
        loop_turn(server.loop, 1000); /* until the peers are gone */
    loop_free(server.loop);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "serve") == 0)
        return test_serve();
    fprintf(stderr, "usage: channel_main serve\n");
    return 2;
}
