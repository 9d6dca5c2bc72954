/* SPDX-License-Identifier: Apache-2.0 */
/* Channels of the program's own, for peers of other implementations to try:
 *
 *   channel_main serve                 answers upgrades on a TCP port of the loopback interface: prints "ready PORT"; ends on
 *                                      SIGTERM, or when its standard input does. Channels do what their names say (below).
 *   channel_main dial ADDRESS CARRIER  to a server that sends back what it gets, by "spdy", "binary", "base64" or "tunnel":
 *                                      three channels, some megabytes each; exits with 0 when all of it came back.
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

#include <netinet/in.h>
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

/* ---- the client ---- */

#define DIAL_CHANNELS 3
#define DIAL_BYTES (5u << 20)

struct test_dial {
    struct loop *loop;
    struct channel_conn *conn;
    size_t done;
    bool spdy, close_signals, closed;
    struct status why;
};

struct test_sender {
    struct test_dial *dial;
    struct channel *channel;
    size_t number, sent, heard;
    bool ended, gone, wrong;
};

static uint8_t test_byte(const struct test_sender *s, size_t at)
{
    return (uint8_t)(at / 1000 + at * 3 + s->number);
}

static void test_sender_go(struct test_sender *s)
{
    uint8_t bytes[10000];
    bool more = true;

    while (more && s->sent < DIAL_BYTES) {
        size_t n = sizeof bytes < DIAL_BYTES - s->sent ? sizeof bytes : DIAL_BYTES - s->sent;
        for (size_t i = 0; i < n; i++)
            bytes[i] = test_byte(s, s->sent + i);
        more = channel_send(s->channel, bytes, n);
        s->sent += n;
    }
    if (s->sent == DIAL_BYTES)
        channel_end(s->channel);
}

static void test_sender_on_data(void *arg, struct str piece)
{
    struct test_sender *s = arg;

    for (size_t i = 0; i < piece.n; i++)
        s->wrong = s->wrong || (uint8_t)piece.p[i] != test_byte(s, s->heard + i);
    s->heard += piece.n;
    if (s->heard == DIAL_BYTES)
        s->dial->done++;
}

static void test_sender_on_end(void *arg)
{
    ((struct test_sender *)arg)->ended = true;
}

static void test_sender_on_writable(void *arg)
{
    test_sender_go(arg);
}

static void test_sender_on_gone(void *arg, const struct status *err)
{
    struct test_sender *s = arg;

    s->gone = true;
    if (err != NULL)
        fprintf(stderr, "channel %zu: %s\n", s->number, err->message);
}

static void test_dial_on_close(void *arg, const struct status *err)
{
    struct test_dial *dial = arg;

    dial->closed = true;
    dial->why = *err;
}

/* Asks for the upgrade and reads the answer's head; blocking, and as simple as a test may be. */
static int test_dial_upgrade(const char *address, const char *carrier)
{
    struct address a;
    struct status err;
    char request[512], head[4096], key[WEBSOCKET_KEY_SIZE], accept[WEBSOCKET_ACCEPT_SIZE];
    size_t n = 0;

    if (!address_parse(address, &a, &err))
        return -1;
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(a.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&in, sizeof in) != 0)
        return -1;
    websocket_make_key(key);
    websocket_accept(key, accept);
    if (strcmp(carrier, "spdy") == 0)
        snprintf(request, sizeof request, "POST / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
                 "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n", address);
    else
        snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n", address, key,
                 strcmp(carrier, "binary") == 0   ? "v5.channel.k8s.io"
                 : strcmp(carrier, "base64") == 0 ? "base64.channel.k8s.io"
                                                  : "SPDY/3.1+portforward.k8s.io");
    if (write(fd, request, strlen(request)) != (ssize_t)strlen(request))
        return -1;
    while (n < sizeof head - 1 && (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4) != 0))
        if (read(fd, head + n++, 1) != 1)
            return -1;
    head[n] = '\0';
    if (!str_starts(head, "HTTP/1.1 101") || (strcmp(carrier, "spdy") != 0 && strstr(head, accept) == NULL)) {
        fprintf(stderr, "not upgraded: %s\n", head);
        return -1;
    }
    return fd;
}

static int test_dial(const char *address, const char *carrier)
{
    const struct http_header headers[] = { { "streamType", "data" }, { "port", "80" } };
    struct test_sender senders[DIAL_CHANNELS] = { { 0 } };
    struct test_dial dial = { 0 };
    struct channel_conn_options options = { .client = true, .on_close = test_dial_on_close, .arg = &dial };
    struct status err = STATUS_INIT;
    int fd = test_dial_upgrade(address, carrier), status = 0;

    if (fd < 0)
        return 1;
    dial.loop = loop_new(&err);
    dial.spdy = strcmp(carrier, "spdy") == 0 || strcmp(carrier, "tunnel") == 0;
    options.carrier = strcmp(carrier, "spdy") == 0     ? CHANNEL_SPDY
                      : strcmp(carrier, "binary") == 0 ? CHANNEL_WEBSOCKET
                      : strcmp(carrier, "base64") == 0 ? CHANNEL_WEBSOCKET_BASE64
                                                       : CHANNEL_WEBSOCKET_SPDY;
    options.channel_count = dial.spdy ? 0 : DIAL_CHANNELS;
    options.close_signals = options.carrier == CHANNEL_WEBSOCKET;
    dial.conn = channel_conn_new(dial.loop, stream_of_fd(dial.loop, fd, &err), STR(""), &options);
    for (size_t i = 0; i < DIAL_CHANNELS; i++) {
        struct test_sender *s = &senders[i];
        const struct channel_listener listener = { test_sender_on_data, test_sender_on_end, test_sender_on_writable,
                                                   test_sender_on_gone, s };
        *s = (struct test_sender){ .dial = &dial, .number = i };
        s->channel = dial.spdy ? channel_open(dial.conn, headers, COUNT_OF(headers)) : channel_number(dial.conn, i);
        channel_listen(s->channel, &listener);
        test_sender_go(s);
    }
    while (dial.done < DIAL_CHANNELS && !dial.closed)
        loop_turn(dial.loop, 1000);
    while (dial.spdy && channel_conn_active(dial.conn) > 0 && !dial.closed)
        loop_turn(dial.loop, 1000);
    channel_conn_close(dial.conn);
    while (!dial.closed)
        loop_turn(dial.loop, 1000);
    for (size_t i = 0; i < DIAL_CHANNELS; i++) {
        const struct test_sender *s = &senders[i];
        if (s->heard != DIAL_BYTES || s->wrong || !s->gone || (dial.spdy && !s->ended)) {
            fprintf(stderr, "channel %zu: %zu bytes came back%s\n", i, s->heard, s->wrong ? ", and not those that were sent" : "");
            status = 1;
        }
    }
    if (dial.why.code != STATUS_OK) {
        fprintf(stderr, "%s\n", dial.why.message);
        status = 1;
    }
    channel_conn_free(dial.conn);
    loop_free(dial.loop);
    return status;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "serve") == 0)
        return test_serve();
    if (argc == 4 && strcmp(argv[1], "dial") == 0)
        return test_dial(argv[2], argv[3]);
    fprintf(stderr, "usage: channel_main serve | dial ADDRESS CARRIER\n");
    return 2;
}
