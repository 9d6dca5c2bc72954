/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server over socket pairs: what a client writes, and what it reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/server.h"
#include "io/file.h"

struct fixture {
    struct loop *loop;
    struct http_server *server;
    struct http_exchange *held; /* by /hold and /stream */
    struct stream *upgraded;
    struct buf early, streamed;
    bool gone, writable, drained, stream_ended;
    int fds[8];
    size_t fd_count;
};

/* ---- handlers ---- */

static void on_gone(void *arg)
{
    struct fixture *f = arg;

    f->gone = true;
    f->held = NULL;
}

static void on_writable(void *arg)
{
    ((struct fixture *)arg)->writable = true;
}

static void handle_echo(void *context, struct http_exchange *x)
{
    struct str body = http_exchange_body(x);
    struct http_header header = { "X-Method", http_exchange_method(x) };

    (void)context;
    assert_int_equal(body.p[body.n], 0);
    http_reply(x, 200, &header, 1, body.p, body.n);
}

static void handle_query(void *context, struct http_exchange *x)
{
    const char *name = http_exchange_query_get(x, "name"), *header = http_exchange_header(x, "x-thing");

    (void)context;
    http_replyf(x, 200, "%s|%s|%s", http_exchange_path(x), name != NULL ? name : "-", header != NULL ? header : "-");
}

static void handle_hold(void *context, struct http_exchange *x)
{
    struct fixture *f = context;

    f->held = x;
    http_exchange_on_gone(x, on_gone, f);
    http_exchange_on_writable(x, on_writable, f);
}

static void handle_hold_deaf(void *context, struct http_exchange *x)
{
    ((struct fixture *)context)->held = x;
}

static void on_piece(void *arg, struct str piece)
{
    struct fixture *f = arg;

    if (piece.n == 0) {
        f->stream_ended = true;
        http_replyf(f->held, 200, "%zu bytes", f->streamed.n);
        f->held = NULL;
    } else {
        buf_append(&f->streamed, piece.p, piece.n);
    }
}

static void handle_stream(void *context, struct http_exchange *x)
{
    struct fixture *f = context;

    f->held = x;
    http_exchange_on_gone(x, on_gone, f);
    http_exchange_on_body(x, on_piece, f);
}

static void handle_upgrade(void *context, struct http_exchange *x)
{
    struct fixture *f = context;
    const struct http_header header = { "X-Extra", "1" };

    f->upgraded = http_exchange_upgrade(x, "raw/1", &header, 1, &f->early);
}

static void handle_bad_header(void *context, struct http_exchange *x)
{
    const struct http_header headers[] = { { "X-A", "a\r\nX-Evil: 1" }, { "Content-Length", "77" }, { "X-B", "b" } };

    (void)context;
    http_reply(x, 200, headers, COUNT_OF(headers), "ok", 2);
}

static void handle_error(void *context, struct http_exchange *x)
{
    struct status err = STATUS_INIT;

    (void)context;
    status_set(&err, STATUS_UNAVAILABLE, "try later");
    http_reply_error(x, &err);
}

static const struct http_route routes[] = {
    { "POST", "/echo", 1000, false, handle_echo },
    { NULL, "/any", 1000, false, handle_echo },
    { "GET", "/query/", 0, false, handle_query },
    { "GET", "/hold", 0, false, handle_hold },
    { "GET", "/deaf", 0, false, handle_hold_deaf },
    { "PUT", "/stream", 0, true, handle_stream },
    { "GET", "/upgrade", 0, false, handle_upgrade },
    { "GET", "/headers", 0, false, handle_bad_header },
    { "GET", "/error", 0, false, handle_error },
};

/* ---- fixture ---- */

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct status err = STATUS_INIT;
    const struct http_server_options options = {
        .routes = routes, .route_count = COUNT_OF(routes), .context = f, .connections_max = 4, .head_timeout_ms = 150,
        .idle_timeout_ms = 300, .body_timeout_ms = 150, .write_timeout_ms = 200,
    };

    log_setup(LOG_ERROR, "test");
    f->loop = loop_new(&err);
    f->server = http_server_new(f->loop, &options);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    http_server_free(f->server);
    stream_free(f->upgraded);
    buf_free(&f->early);
    buf_free(&f->streamed);
    for (size_t i = 0; i < f->fd_count; i++)
        if (f->fds[i] >= 0)
            close(f->fds[i]);
    loop_free(f->loop);
    free(f);
    return 0;
}

static int dial(struct fixture *f)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    fd_set_nonblocking(pair[0], true);
    http_server_accept_fd(f->server, pair[1]);
    f->fds[f->fd_count++] = pair[0];
    return pair[0];
}

static void hang_up(struct fixture *f, int fd)
{
    for (size_t i = 0; i < f->fd_count; i++)
        if (f->fds[i] == fd)
            f->fds[i] = -1;
    close(fd);
}

static void turn(struct fixture *f, int64_t ms)
{
    int64_t end = clock_mono_ms() + ms;

    do
        loop_turn(f->loop, 5);
    while (clock_mono_ms() < end);
}

static void say(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* Reads until `until` was seen (or the end, when NULL) or a second has passed; Date lines are taken out. */
static const char *hear(struct fixture *f, int fd, const char *until)
{
    static char text[1 << 17];
    size_t n = 0;
    int64_t end = clock_mono_ms() + 3000;

    text[0] = '\0';
    while (clock_mono_ms() < end && (until == NULL || strstr(text, until) == NULL)) {
        loop_turn(f->loop, 5);
        ssize_t got = read(fd, text + n, sizeof text - 1 - n);
        if (got == 0 || (got < 0 && errno != EAGAIN)) {
            if (until != NULL)
                print_message("ended before \"%s\": %s\n", until, text);
            assert_null(until);
            break;
        }
        n += got > 0 ? (size_t)got : 0;
        text[n] = '\0';
    }
    for (char *date; (date = strstr(text, "Date: ")) != NULL;)
        memmove(date, strstr(date, "\r\n") + 2, strlen(strstr(date, "\r\n") + 2) + 1);
    return text;
}

#define SAY(text) say(fd, text)
#define EXPECT_END(expected) assert_string_equal(hear(f, fd, NULL), expected)

/* ---- tests ---- */

static void test_simple(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert_string_equal(hear(f, fd, "hello"), "HTTP/1.1 200 OK\r\nX-Method: POST\r\nContent-Length: 5\r\n\r\nhello");
    /* The connection is kept. */
    SAY("GET /query/a%2fb?name=c+d HTTP/1.1\r\nHost: x\r\nX-Thing: t\r\n\r\n");
    assert_string_equal(hear(f, fd, "|t\n"), "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
                                              "Content-Length: 17\r\n\r\n/query/a/b|c d|t\n");
    /* In pieces, with a chunked body. */
    const char *request = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for (const char *p = request; *p != '\0'; p++) {
        assert_int_equal(write(fd, p, 1), 1);
        loop_turn(f->loop, 0);
    }
    assert_string_equal(hear(f, fd, "abc"), "HTTP/1.1 200 OK\r\nX-Method: POST\r\nContent-Length: 3\r\n\r\nabc");
    /* Absolute form, any method, HEAD, a GET with a body. */
    SAY("QUERY http://h/any HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nq");
    hear(f, fd, "\r\n\r\nq");
    SAY("GET /any HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nb");
    hear(f, fd, "\r\n\r\nb");
    SAY("HEAD /query/ HTTP/1.1\r\nHost: x\r\n\r\nGET /error HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_END("HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 12\r\n\r\n"
               "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
               "Content-Length: 10\r\n\r\ntry later\n");
    assert_int_equal(http_server_connections(f->server), 0);
}

static void test_http10(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("GET /query/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_non_null(strstr(hear(f, fd, "|-\n"), "Connection: keep-alive\r\n"));
    SAY("GET /hold HTTP/1.0\r\n\r\n");
    turn(f, 20);
    http_reply_start(f->held, 200, NULL, 0);
    http_reply_send(f->held, "abc", 3);
    http_reply_end(f->held);
    EXPECT_END("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc");
}

static void test_refusals(void **state)
{
    static const struct {
        const char *request, *status;
    } cases[] = {
        { "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404 Not Found" },
        { "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "405 Method Not Allowed\r\nAllow: POST\r\n" },
        { "GET /query/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", "413 Content Too Large" },
        { "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", "413 Content Too Large" },
        { "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", "413 Content Too Large" },
        { "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n", "404 Not Found" },
        { "GET /%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "400 Bad Request" },
        { "GET /%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "400 Bad Request" },
        { "CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", "400 Bad Request" },
        { "garbage\r\n\r\n", "400 Bad Request" },
        { "GET / HTTP/1.1\r\n\r\n", "400 Bad Request" },
    };
    struct fixture *f = *state;
    char body[1002];

    memset(body, 'a', sizeof body - 1);
    body[1001] = '\0';
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int fd = dial(f);
        SAY(cases[i].request);
        if (strstr(cases[i].request, "3e9") != NULL)
            SAY(body);
        shutdown(fd, SHUT_WR);
        const char *reply = hear(f, fd, NULL);
        if (strstr(reply, cases[i].status) == NULL)
            print_message("%s -> %s\n", cases[i].request, reply);
        assert_non_null(strstr(reply, cases[i].status));
        assert_non_null(strstr(reply, "Connection: close\r\n"));
        hang_up(f, fd);
        f->fd_count--;
    }
}

static void test_404_keeps_the_connection(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_null(strstr(hear(f, fd, "nothing\n"), "Connection: close"));
    SAY("GET /error HTTP/1.1\r\nHost: x\r\n\r\n");
    hear(f, fd, "try later");
}

static void test_huge_head(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("GET / HTTP/1.1\r\nHost: x\r\nX: ");
    for (int i = 0; i < 40; i++) {
        char piece[1024];
        memset(piece, 'a', sizeof piece);
        ssize_t ignored UNUSED = write(fd, piece, sizeof piece);
        loop_turn(f->loop, 0);
    }
    assert_non_null(strstr(hear(f, fd, "too large"), "431 Request Header Fields Too Large"));
}

static void test_expect_continue(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_string_equal(hear(f, fd, "Continue\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    SAY("ok");
    hear(f, fd, "\r\n\r\nok");
    /* Refused at once: no 100. */
    SAY("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n");
    assert_non_null(strstr(hear(f, fd, "\n"), "HTTP/1.1 413"));
}

static void test_pipelining(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    /* The first answer is withheld: the second request is not handled before. */
    SAY("GET /hold HTTP/1.1\r\nHost: x\r\n\r\nGET /query/2 HTTP/1.1\r\nHost: x\r\n\r\nGET /query/3 HTTP/1.1\r\nHost: x\r\n\r\n");
    turn(f, 30);
    char byte;
    assert_int_equal(read(fd, &byte, 1), -1);
    http_replyf(f->held, 200, "one");
    const char *all = hear(f, fd, "/query/3|-|-\n");
    assert_true(strstr(all, "one") < strstr(all, "/query/2"));
    /* A flood of requests behind one that is held is not read into memory. */
    SAY("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    size_t written = 0;
    for (int i = 0; i < 20000; i++) {
        ssize_t n = write(fd, "GET /query/2 HTTP/1.1\r\nHost: x\r\n\r\n", 35);
        written += n > 0 ? (size_t)n : 0;
        loop_turn(f->loop, 0);
    }
    assert_true(written < 600000); /* the socket's buffer and little more */
}

static void test_streamed_reply(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    turn(f, 20);
    http_reply_start(f->held, 200, NULL, 0);
    assert_true(http_reply_send(f->held, "abc", 3));
    assert_string_equal(hear(f, fd, "abc\r\n"), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    /* Back-pressure: the queue fills while nobody reads, and on_writable comes when somebody does. */
    char piece[8192];
    memset(piece, 'x', sizeof piece);
    size_t sent = 0;
    for (int i = 0; i < 10000 && http_reply_send(f->held, piece, sizeof piece); i++) {
        sent += sizeof piece;
        loop_turn(f->loop, 0);
    }
    assert_true(sent < 2000000);
    turn(f, 20);
    assert_false(f->writable);
    size_t got = 0;
    while (!f->writable) {
        static char sink[65536];
        ssize_t n = read(fd, sink, sizeof sink);
        got += n > 0 ? (size_t)n : 0;
        loop_turn(f->loop, 1);
    }
    assert_true(got >= sent / 2);
    http_reply_end(f->held);
    assert_true(str_ends(hear(f, fd, "\r\n0\r\n\r\n"), "\r\n0\r\n\r\n"));
    /* And the connection goes on. */
    SAY("GET /error HTTP/1.1\r\nHost: x\r\n\r\n");
    hear(f, fd, "try later");
}

static void test_abort(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    turn(f, 20);
    http_reply_start(f->held, 200, NULL, 0);
    http_reply_send(f->held, "abc", 3);
    turn(f, 20);
    http_reply_abort(f->held);
    EXPECT_END("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
}

static void test_gone(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    turn(f, 20);
    http_reply_start(f->held, 200, NULL, 0);
    hear(f, fd, "\r\n\r\n");
    hang_up(f, fd);
    turn(f, 20);
    assert_true(f->gone);
    assert_int_equal(http_server_connections(f->server), 0);
    /* Half closed counts too when the handler wants to know... */
    f->gone = false;
    fd = dial(f);
    SAY("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(fd, SHUT_WR);
    turn(f, 20);
    assert_true(f->gone);
    /* ...and else the client gets its answer. */
    fd = dial(f);
    SAY("GET /deaf HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(fd, SHUT_WR);
    turn(f, 20);
    http_replyf(f->held, 200, "late");
    assert_non_null(strstr(hear(f, fd, NULL), "late\n"));
    /* Without on_gone the exchange outlives its connection. */
    fd = dial(f);
    SAY("GET /deaf HTTP/1.1\r\nHost: x\r\n\r\n");
    turn(f, 20);
    hang_up(f, fd);
    turn(f, 20);
    assert_int_equal(http_server_connections(f->server), 0);
    http_reply_start(f->held, 200, NULL, 0);
    assert_true(http_reply_send(f->held, "x", 1));
    http_reply_end(f->held);
}

static void test_streamed_body(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("PUT /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc");
    turn(f, 20);
    assert_int_equal(f->streamed.n, 3);
    http_exchange_pause(f->held, true);
    SAY("def");
    turn(f, 200); /* longer than body_timeout_ms, which does not run while we hold it */
    assert_int_equal(f->streamed.n, 3);
    assert_false(f->stream_ended);
    http_exchange_pause(f->held, false);
    hear(f, fd, "6 bytes");
    assert_true(f->stream_ended);
    /* No body at all. */
    buf_clear(&f->streamed);
    SAY("PUT /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    hear(f, fd, "0 bytes");
    /* A peer that leaves in the middle. */
    SAY("PUT /stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc");
    turn(f, 20);
    hang_up(f, fd);
    turn(f, 20);
    assert_true(f->gone);
    /* A peer that breaks the framing. */
    f->gone = false;
    fd = dial(f);
    SAY("PUT /stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc");
    turn(f, 20);
    assert_true(f->gone);
    /* A reply before the body has come: the rest is thrown away and the connection ends. */
    fd = dial(f);
    SAY("PUT /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 600000\r\n\r\nabc");
    turn(f, 20);
    http_replyf(f->held, 200, "enough");
    f->held = NULL;
    assert_non_null(strstr(hear(f, fd, "enough\n"), "Connection: close"));
    for (int i = 0; i < 50; i++) {
        char piece[1000] = "";
        ssize_t ignored UNUSED = send(fd, piece, sizeof piece, MSG_NOSIGNAL);
        loop_turn(f->loop, 0);
    }
    hang_up(f, fd);
    turn(f, 20);
    assert_int_equal(http_server_connections(f->server), 0);
}

static void test_upgrade(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("GET /upgrade HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_non_null(strstr(hear(f, fd, "raw/1\n"), "400 Bad Request"));
    SAY("GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n");
    assert_non_null(strstr(hear(f, fd, "raw/1\n"), "400 Bad Request"));
    /* After an upgrade that was not granted the connection still speaks HTTP. */
    SAY("GET /error HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\n");
    hear(f, fd, "try later\n");
    SAY("GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: other, RAW/1\r\n\r\nearly bytes");
    assert_string_equal(hear(f, fd, "raw/1\r\n\r\n"),
                        "HTTP/1.1 101 Switching Protocols\r\nX-Extra: 1\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n");
    assert_non_null(f->upgraded);
    assert_string_equal(buf_cstr(&f->early), "early bytes");
    assert_int_equal(http_server_connections(f->server), 0);
    assert_int_equal(stream_write(f->upgraded, "ping", 4), 4);
    assert_string_equal(hear(f, fd, "ping"), "ping");
}

static void test_headers_of_replies(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("GET /headers HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_string_equal(hear(f, fd, "ok"), "HTTP/1.1 200 OK\r\nX-B: b\r\nContent-Length: 2\r\n\r\nok");
}

static void test_timeouts(void **state)
{
    struct fixture *f = *state;

    /* Silence. */
    int fd = dial(f);
    int64_t start = clock_mono_ms();
    EXPECT_END("");
    assert_in_range(clock_mono_ms() - start, 100, 600);
    /* A head by drips. */
    fd = dial(f);
    start = clock_mono_ms();
    const char *drip = "GET / HTTP/1.1\r\nHost: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    char byte;
    while (*drip != '\0' && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && clock_mono_ms() - start < 3000) {
        ssize_t n = send(fd, drip, 1, MSG_NOSIGNAL);
        drip += n > 0 ? n : 0;
        turn(f, 10);
    }
    assert_in_range(clock_mono_ms() - start, 100, 1000);
    assert_non_null(strstr(hear(f, fd, NULL), "408 Request Timeout"));
    /* A body that stops. */
    fd = dial(f);
    SAY("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel");
    EXPECT_END("");
    /* A kept connection that is not used. */
    fd = dial(f);
    SAY("GET /error HTTP/1.1\r\nHost: x\r\n\r\n");
    hear(f, fd, "later\n");
    start = clock_mono_ms();
    EXPECT_END("");
    assert_in_range(clock_mono_ms() - start, 200, 900);
    /* A peer that does not read. */
    fd = dial(f);
    SAY("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    turn(f, 20);
    http_reply_start(f->held, 200, NULL, 0);
    char piece[8192] = "";
    while (http_reply_send(f->held, piece, sizeof piece))
        loop_turn(f->loop, 0);
    turn(f, 400);
    assert_true(f->gone);
    /* A held request has no time-out of ours. */
    f->gone = false;
    fd = dial(f);
    SAY("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    turn(f, 500);
    assert_false(f->gone);
    http_replyf(f->held, 200, "patience");
    hear(f, fd, "patience");
}

static void test_connection_bound(void **state)
{
    struct fixture *f = *state;
    char byte;

    for (int i = 0; i < 4; i++)
        dial(f);
    int fd = dial(f);
    assert_int_equal(read(fd, &byte, 1), 0);
    assert_int_equal(http_server_connections(f->server), 4);
    hang_up(f, f->fds[0]);
    turn(f, 20);
    assert_int_equal(http_server_connections(f->server), 3);
}

static void on_drained(void *arg)
{
    ((struct fixture *)arg)->drained = true;
}

static void test_shutdown(void **state)
{
    struct fixture *f = *state;
    int idle = dial(f), fd = dial(f);
    char byte;

    SAY("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    turn(f, 20);
    http_server_shutdown(f->server, on_drained, f);
    turn(f, 20);
    assert_int_equal(read(idle, &byte, 1), 0);
    assert_false(f->drained);
    int late = dial(f);
    assert_int_equal(read(late, &byte, 1), 0);
    http_replyf(f->held, 200, "last");
    const char *reply = hear(f, fd, NULL);
    assert_non_null(strstr(reply, "Connection: close"));
    assert_non_null(strstr(reply, "last"));
    turn(f, 20);
    assert_true(f->drained);
}

static void test_free_under_way(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);

    SAY("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    turn(f, 20);
    http_server_free(f->server);
    f->server = NULL;
    assert_true(f->gone);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_simple),        TEST(test_http10),         TEST(test_refusals),           TEST(test_404_keeps_the_connection),
        TEST(test_huge_head),     TEST(test_expect_continue), TEST(test_pipelining),        TEST(test_streamed_reply),
        TEST(test_abort),         TEST(test_gone),           TEST(test_streamed_body),      TEST(test_upgrade),
        TEST(test_headers_of_replies), TEST(test_timeouts),  TEST(test_connection_bound),   TEST(test_shutdown),
        TEST(test_free_under_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
