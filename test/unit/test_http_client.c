/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP client against our server (unix socket, TCP, TLS) and against peers that misbehave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "http/client.h"
#include "http/server.h"
#include "io/child.h"
#include "io/file.h"
#include "io/socket.h"
#include "io/tls.h"
#include "tls_fixtures.h"

#define TEXT(fixture) ((struct str){ fixture, sizeof fixture - 1 })

struct fixture {
    struct loop *loop;
    struct http_client *client;
    struct http_server *server;
    struct listener tcp, unix_listener, tls, canned;
    uint16_t tcp_port, tls_port, canned_port;
    struct tls_identity *identity; /* of `tls` */
    char dir[32], socket[64];
    size_t accepted;
    struct http_exchange *held;
    bool held_gone;
    const char *canned_reply; /* what `canned` answers, before it closes */
    bool canned_silent;       /* it keeps the connection open */
    struct stream *canned_streams[16];
    size_t canned_count;
    struct buf canned_heard;
    size_t blob_left;
    /* what the client told */
    bool done, head_told;
    struct status err;
    int http_status;
    bool sent;
    struct buf body;
    uint64_t body_bytes;
    char url[256], header[256];
    struct http_request *request;
    const char *cancel_in; /* "head", "body" */
    bool pause_body, free_in_done;
};

/* ---- the server's side ---- */

static void handle_echo(void *context, struct http_exchange *x)
{
    struct buf out = BUF_INIT;
    struct str body = http_exchange_body(x);

    (void)context;
    buf_printf(&out, "%s %s?%s", http_exchange_method(x), http_exchange_path(x), http_exchange_query(x));
    static const char *const names[] = { "User-Agent", "Content-Type", "X-One", "X-Empty", "Authorization", "Expect", "Host" };
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (http_exchange_header(x, names[i]) != NULL)
            buf_printf(&out, " %s=[%s]", names[i], http_exchange_header(x, names[i]));
    buf_printf(&out, " body=[%.*s]", (int)body.n, body.p);
    const struct http_header headers[] = { { "X-Reply", "first" }, { "x-reply", "second" } };
    http_reply(x, 200, headers, 2, out.p, out.n);
    buf_free(&out);
}

static void blob_go_on(void *arg)
{
    static char piece[20000];
    struct fixture *f = arg;

    while (f->blob_left > 0) {
        size_t n = f->blob_left < sizeof piece ? f->blob_left : sizeof piece;
        f->blob_left -= n;
        if (!http_reply_send(f->held, piece, n))
            return;
    }
    http_reply_end(f->held);
    f->held = NULL;
}

static void held_gone(void *arg)
{
    struct fixture *f = arg;

    f->held_gone = true;
    f->held = NULL;
}

static void handle_blob(void *context, struct http_exchange *x)
{
    struct fixture *f = context;

    f->held = x;
    f->blob_left = 5 << 20;
    http_exchange_on_gone(x, held_gone, f);
    http_exchange_on_writable(x, blob_go_on, f);
    http_reply_start(x, 200, NULL, 0);
    blob_go_on(f);
}

static void handle_hold(void *context, struct http_exchange *x)
{
    struct fixture *f = context;

    f->held = x;
    http_exchange_on_gone(x, held_gone, f);
    if (strcmp(http_exchange_path(x), "/trickle") == 0)
        http_reply_start(x, 200, NULL, 0);
}

static void handle_error(void *context, struct http_exchange *x)
{
    static char big[40000];

    (void)context;
    memset(big, 'e', sizeof big);
    http_reply(x, 500, NULL, 0, big, strcmp(http_exchange_path(x), "/bigerror") == 0 ? sizeof big : 3);
}

static void handle_redirect(void *context, struct http_exchange *x)
{
    struct fixture *f = context;
    const char *to = http_exchange_query_get(x, "to");
    struct http_header header = { "Location", "" };
    char text[100];

    if (to == NULL)
        header.value = "/redirect"; /* for ever */
    else if (strcmp(to, "other") == 0)
        header.value = arena_printf(http_exchange_arena(x), "http://localhost:%u/echo?here", f->tcp_port);
    else if (strcmp(to, "plain") == 0)
        header.value = arena_printf(http_exchange_arena(x), "http://127.0.0.1:%u/echo", f->tcp_port);
    else
        header.value = to;
    snprintf(text, sizeof text, "body of a redirect");
    http_reply(x, 302, &header, 1, text, strlen(text));
}

static const struct http_route routes[] = {
    { NULL, "/echo", 100000, false, handle_echo },     { "GET", "/blob", 0, false, handle_blob },
    { "GET", "/hold", 0, false, handle_hold },         { "POST", "/hold", 100, false, handle_hold },
    { "GET", "/trickle", 0, false, handle_hold },
    { "GET", "/error", 0, false, handle_error },       { "GET", "/bigerror", 0, false, handle_error },
    { "GET", "/redirect", 0, false, handle_redirect },
};

static void on_accept(void *arg, int fd)
{
    struct fixture *f = arg;

    f->accepted++;
    http_server_accept_fd(f->server, fd);
}

static void on_accept_tls(void *arg, int fd)
{
    struct fixture *f = arg;
    struct status err = STATUS_INIT;

    f->accepted++;
    struct stream *stream = stream_of_fd(f->loop, fd, &err);
    http_server_accept(f->server, tls_server(f->loop, stream, f->identity, 0, &err));
}

static void canned_on_event(void *arg, unsigned events)
{
    struct fixture *f = arg;
    struct stream *s = f->canned_streams[f->canned_count - 1];
    char bytes[4096];

    (void)events;
    ssize_t n = stream_read(s, bytes, sizeof bytes);
    if (n > 0)
        buf_append(&f->canned_heard, bytes, (size_t)n);
    stream_write(s, f->canned_reply, strlen(f->canned_reply));
    stream_want(s, 0);
    if (!f->canned_silent)
        stream_shutdown_write(s);
}

static void on_accept_canned(void *arg, int fd)
{
    struct fixture *f = arg;
    struct status err = STATUS_INIT;
    struct stream *s = stream_of_fd(f->loop, fd, &err);

    assert_true(f->canned_count < COUNT_OF(f->canned_streams));
    f->canned_streams[f->canned_count++] = s;
    stream_listen(s, canned_on_event, f);
    stream_want(s, WATCH_READ);
}

/* ---- the client's side ---- */

static void on_head(void *arg, int http_status, const struct http_headers *headers)
{
    struct fixture *f = arg;

    assert_false(f->head_told);
    f->head_told = true;
    f->http_status = http_status;
    assert_non_null(http_headers_get(headers, "date"));
    if (f->cancel_in != NULL && strcmp(f->cancel_in, "head") == 0) {
        http_request_cancel(f->request);
        f->done = true;
    }
}

static void on_body(void *arg, struct str piece)
{
    struct fixture *f = arg;

    assert_true(f->head_told);
    assert_true(piece.n > 0);
    f->body_bytes += piece.n;
    if (f->pause_body) {
        f->pause_body = false;
        http_request_pause(f->request, true);
    }
    if (f->cancel_in != NULL && strcmp(f->cancel_in, "body") == 0) {
        http_request_cancel(f->request);
        f->done = true;
    }
}

static void on_done(void *arg, const struct http_result *result)
{
    struct fixture *f = arg;

    assert_false(f->done);
    f->done = true;
    f->err = result->err != NULL ? *result->err : (struct status)STATUS_INIT;
    f->http_status = result->http_status;
    f->sent = result->sent;
    f->body_bytes = result->body_bytes;
    buf_clear(&f->body);
    buf_append(&f->body, result->body.p, result->body.n);
    buf_cstr(&f->body);
    snprintf(f->url, sizeof f->url, "%s", result->url);
    const char *header = http_headers_get(result->headers, "X-REPLY");
    snprintf(f->header, sizeof f->header, "%s", header != NULL ? header : "");
    f->request = NULL;
    if (f->free_in_done) {
        http_client_free(f->client);
        f->client = NULL;
    }
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct status err = STATUS_INIT;
    struct address address;
    const struct http_server_options options = { .routes = routes, .route_count = COUNT_OF(routes), .context = f };

    log_setup(LOG_ERROR, "test");
    f->loop = loop_new(&err);
    f->server = http_server_new(f->loop, &options);
    strcpy(f->dir, "/tmp/test-http-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->socket, sizeof f->socket, "%s/s", f->dir);
    assert_true(address_parse(f->socket, &address, &err));
    assert_true(listener_open(f->loop, &f->unix_listener, &address, 0600, on_accept, f, NULL, &err));
    assert_true(address_parse("127.0.0.1:0", &address, &err));
    assert_true(listener_open(f->loop, &f->tcp, &address, 0, on_accept, f, &f->tcp_port, &err));
    assert_true(listener_open(f->loop, &f->tls, &address, 0, on_accept_tls, f, &f->tls_port, &err));
    assert_true(listener_open(f->loop, &f->canned, &address, 0, on_accept_canned, f, &f->canned_port, &err));
    f->identity = tls_identity_parse(TEXT(fixture_ec_crt), TEXT(fixture_ec_key), &err);
    const struct http_client_options client = { .ca_pem = fixture_ca_crt };
    f->client = http_client_new(f->loop, &client);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;

    http_client_free(f->client);
    http_server_free(f->server);
    listener_close(&f->tcp);
    listener_close(&f->unix_listener);
    listener_close(&f->tls);
    listener_close(&f->canned);
    for (size_t i = 0; i < f->canned_count; i++)
        stream_free(f->canned_streams[i]);
    tls_identity_free(f->identity);
    tree_remove(f->dir, &err);
    buf_free(&f->body);
    buf_free(&f->canned_heard);
    loop_turn(f->loop, 0);
    loop_free(f->loop);
    free(f);
    return 0;
}

static void turn(struct fixture *f, int64_t ms)
{
    int64_t end = clock_mono_ms() + ms;

    do
        loop_turn(f->loop, 5);
    while (clock_mono_ms() < end);
}

#define TURN_UNTIL(condition)                                                                                          \
    for (int64_t end_ = clock_mono_ms() + 20000; !(condition);) {                                                      \
        loop_turn(f->loop, 5);                                                                                         \
        if (clock_mono_ms() > end_)                                                                                    \
            fail_msg("never: " #condition);                                                                            \
    }

static void start(struct fixture *f, struct http_request_options options)
{
    options.on_done = on_done;
    options.arg = f;
    f->done = f->head_told = false;
    f->body_bytes = 0;
    f->request = http_request_start(f->client, &options);
}

static void go(struct fixture *f, struct http_request_options options)
{
    start(f, options);
    TURN_UNTIL(f->done);
}

/* URL on one of the ports; in a buffer that the next call overwrites. */
static const char *url(const char *scheme, const char *host, uint16_t port, const char *target)
{
    static char text[4][256];
    static unsigned next;
    char *out = text[next++ % COUNT_OF(text)];

    snprintf(out, sizeof text[0], "%s://%s:%u%s", scheme, host, port, target);
    return out;
}
#define TCP(target) url("http", "127.0.0.1", f->tcp_port, target)
#define CANNED(target) url("http", "127.0.0.1", f->canned_port, target)

static void expect_ok(struct fixture *f, const char *body)
{
    if (f->err.code != STATUS_OK)
        fail_msg("%s", f->err.message);
    assert_int_equal(f->http_status, 200);
    if (strstr((const char *)f->body.p, body) == NULL)
        fail_msg("%s", (const char *)f->body.p);
}

static void expect_error(struct fixture *f, enum status_code code, const char *text)
{
    if (f->err.code != code || strstr(f->err.message, text) == NULL)
        fail_msg("%s: %s", status_code_name(f->err.code), f->err.message);
}

/* ---- tests ---- */

static void test_requests(void **state)
{
    struct fixture *f = *state;
    const struct http_header headers[] = { { "X-One", "1" }, { "X-Empty", "" } };

    go(f, (struct http_request_options){ .url = TCP("/echo?a=b"), .headers = headers, .header_count = 2 });
    expect_ok(f, "GET /echo?a=b User-Agent=[interlink-cri/");
    expect_ok(f, " X-One=[1] X-Empty=[] Host=[127.0.0.1:");
    expect_ok(f, "body=[]");
    assert_string_equal(f->header, "first");
    assert_true(f->sent);
    /* The socket instead of the host; a body makes it a POST. */
    go(f, (struct http_request_options){ .url = "http://anything/echo", .unix_socket = f->socket, .body = "hello", .body_n = 5 });
    expect_ok(f, "POST /echo? ");
    expect_ok(f, "Host=[anything] body=[hello]");
    assert_null(strstr((const char *)f->body.p, "Content-Type"));
    assert_null(strstr((const char *)f->body.p, "Expect"));
    /* interLink asks with GET and a body. */
    const struct http_header type = { "Content-Type", "application/json" };
    go(f, (struct http_request_options){ .method = "GET", .url = TCP("/echo"), .body = "[]", .body_n = 2, .headers = &type, .header_count = 1 });
    expect_ok(f, "GET /echo? ");
    expect_ok(f, "Content-Type=[application/json]");
    expect_ok(f, "body=[[]]");
    go(f, (struct http_request_options){ .method = "DELETE", .url = TCP("/echo"), .body = "x", .body_n = 1 });
    expect_ok(f, "DELETE /echo? ");
    go(f, (struct http_request_options){ .method = "PATCH", .url = TCP("/echo") });
    expect_ok(f, "PATCH /echo? ");
    go(f, (struct http_request_options){ .method = "POST", .url = TCP("/echo") });
    expect_ok(f, "POST /echo? ");
    go(f, (struct http_request_options){ .method = "HEAD", .url = TCP("/echo") });
    assert_int_equal(f->err.code, STATUS_OK);
    assert_int_equal(f->http_status, 200);
    assert_int_equal(f->body.n, 0);
    /* A large body in a request. */
    char *big = xcalloc(1, 100000);
    memset(big, 'b', 100000);
    go(f, (struct http_request_options){ .url = TCP("/echo"), .body = big, .body_n = 100000 });
    expect_ok(f, "bbb]");
    free(big);
    go(f, (struct http_request_options){ .url = TCP("/nowhere") });
    assert_int_equal(f->err.code, STATUS_OK);
    assert_int_equal(f->http_status, 404);
}

static void test_reuse(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 5; i++)
        go(f, (struct http_request_options){ .url = TCP("/echo") });
    assert_int_equal(f->accepted, 1);
    for (int i = 0; i < 3; i++)
        go(f, (struct http_request_options){ .url = url("https", "localhost", f->tls_port, "/echo") });
    assert_int_equal(f->accepted, 2);
    /* What must not happen twice goes over a connection of its own. */
    go(f, (struct http_request_options){ .url = TCP("/echo"), .body = "x", .body_n = 1 });
    assert_int_equal(f->accepted, 3);
}

static void test_bad_requests(void **state)
{
    struct fixture *f = *state;
    const struct http_header split = { "X", "a\r\nEvil: 1" };

    go(f, (struct http_request_options){ .url = "nonsense" });
    expect_error(f, STATUS_INVALID_ARGUMENT, "not a URL");
    assert_false(f->sent);
    go(f, (struct http_request_options){ .url = "file:///etc/passwd" });
    expect_error(f, STATUS_INVALID_ARGUMENT, "not a URL");
    go(f, (struct http_request_options){ .url = TCP("/echo"), .headers = &split, .header_count = 1 });
    expect_error(f, STATUS_INVALID_ARGUMENT, "header \"X\"");
    go(f, (struct http_request_options){ .url = TCP("/echo"), .method = "A B" });
    expect_error(f, STATUS_INVALID_ARGUMENT, "not an HTTP method");
}

static void test_streaming(void **state)
{
    struct fixture *f = *state;

    /* Held back after the first piece: the server cannot go on. */
    f->pause_body = true;
    start(f, (struct http_request_options){ .url = TCP("/blob"), .on_head = on_head, .on_body = on_body, .low_speed_ms = 1000 });
    TURN_UNTIL(f->body_bytes > 0);
    turn(f, 300);
    size_t so_far = (size_t)f->body_bytes;
    assert_in_range(so_far, 1, 20000);
    assert_true(f->blob_left > 0);
    http_request_pause(f->request, false);
    TURN_UNTIL(f->done);
    assert_int_equal(f->err.code, STATUS_OK);
    assert_int_equal(f->body_bytes, 5 << 20);
    assert_int_equal(f->body.n, 0);
    /* Paused before anything came, and over TLS. */
    start(f, (struct http_request_options){ .url = url("https", "localhost", f->tls_port, "/blob"), .on_head = on_head, .on_body = on_body });
    http_request_pause(f->request, true);
    turn(f, 100);
    assert_int_equal(f->body_bytes, 0);
    http_request_pause(f->request, false);
    TURN_UNTIL(f->done);
    assert_int_equal(f->err.code, STATUS_OK);
    assert_int_equal(f->body_bytes, 5 << 20);
    /* Collected, too. */
    go(f, (struct http_request_options){ .url = TCP("/blob"), .on_head = on_head });
    assert_int_equal(f->body.n, 5 << 20);
}

static void test_bounds(void **state)
{
    struct fixture *f = *state;

    go(f, (struct http_request_options){ .url = TCP("/blob"), .body_max = 1 << 20 });
    expect_error(f, STATUS_RESOURCE_EXHAUSTED, "larger than is allowed");
    go(f, (struct http_request_options){ .url = TCP("/blob"), .on_head = on_head, .on_body = on_body, .body_max = 1 << 20 });
    expect_error(f, STATUS_RESOURCE_EXHAUSTED, "larger than is allowed");
    assert_true(f->body_bytes <= 1 << 20);
    /* An error's body is kept though the sink wanted the rest, and cut. */
    go(f, (struct http_request_options){ .url = TCP("/error"), .on_head = on_head, .on_body = on_body });
    assert_int_equal(f->err.code, STATUS_OK);
    assert_int_equal(f->http_status, 500);
    assert_string_equal((const char *)f->body.p, "eee");
    go(f, (struct http_request_options){ .url = TCP("/bigerror") });
    assert_int_equal(f->err.code, STATUS_OK);
    assert_int_equal(f->http_status, 500);
    assert_int_equal(f->body.n, HTTP_ERROR_BODY_MAX);
    /* Headers without end. */
    struct buf reply = BUF_INIT;
    buf_append_str(&reply, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 3000; i++)
        buf_printf(&reply, "X-%d: 01234567890123456789\r\n", i);
    f->canned_reply = buf_cstr(&reply);
    go(f, (struct http_request_options){ .url = CANNED("/") });
    expect_error(f, STATUS_RESOURCE_EXHAUSTED, "headers are too large");
    buf_free(&reply);
}

static void test_cancel(void **state)
{
    struct fixture *f = *state;

    /* Before it began; while it waits for an answer; in each callback. */
    start(f, (struct http_request_options){ .url = TCP("/echo") });
    http_request_cancel(f->request);
    turn(f, 30);
    assert_false(f->done);
    start(f, (struct http_request_options){ .url = TCP("/hold") });
    TURN_UNTIL(f->held != NULL);
    http_request_cancel(f->request);
    TURN_UNTIL(f->held_gone);
    assert_false(f->done);
    f->held_gone = false;
    f->cancel_in = "head";
    go(f, (struct http_request_options){ .url = TCP("/blob"), .on_head = on_head, .on_body = on_body });
    TURN_UNTIL(f->held_gone);
    assert_int_equal(f->body_bytes, 0);
    f->held_gone = false;
    f->cancel_in = "body";
    go(f, (struct http_request_options){ .url = TCP("/blob"), .on_head = on_head, .on_body = on_body });
    TURN_UNTIL(f->held_gone);
    assert_int_equal(http_client_active(f->client), 0);
    http_request_cancel(NULL);
    /* The client goes with a request under way, and from inside on_done. */
    f->cancel_in = NULL;
    start(f, (struct http_request_options){ .url = TCP("/hold") });
    TURN_UNTIL(f->held != NULL);
    f->free_in_done = true;
    go(f, (struct http_request_options){ .url = TCP("/echo") });
    assert_null(f->client);
    turn(f, 30);
}

static void test_redirects(void **state)
{
    struct fixture *f = *state;
    const struct http_header token = { "Authorization", "Bearer secret" };

    /* Not followed unless asked. */
    go(f, (struct http_request_options){ .url = TCP("/redirect?to=/echo"), .on_head = on_head });
    assert_int_equal(f->http_status, 302);
    assert_string_equal((const char *)f->body.p, "body of a redirect");
    go(f, (struct http_request_options){ .url = TCP("/redirect?to=/echo?x"), .redirects_max = 2, .headers = &token, .header_count = 1,
                                         .on_head = on_head });
    expect_ok(f, "GET /echo?x");
    expect_ok(f, "Bearer secret");
    assert_true(str_ends(f->url, "/echo?x"));
    /* Another host does not hear the token. */
    go(f, (struct http_request_options){ .url = TCP("/redirect?to=other"), .redirects_max = 2, .headers = &token, .header_count = 1 });
    expect_ok(f, "GET /echo?here");
    assert_null(strstr((const char *)f->body.p, "secret"));
    go(f, (struct http_request_options){ .url = TCP("/redirect"), .redirects_max = 3 });
    expect_error(f, STATUS_UNAVAILABLE, "more than 3 redirects");
    /* Never from https to http. */
    go(f, (struct http_request_options){ .url = url("https", "localhost", f->tls_port, "/redirect?to=plain"), .redirects_max = 3 });
    expect_error(f, STATUS_UNAVAILABLE, "from https only to https");
    go(f, (struct http_request_options){ .url = TCP("/redirect?to=file:///etc/passwd"), .redirects_max = 3 });
    expect_error(f, STATUS_UNAVAILABLE, "redirects to where");
    /* From one host of TLS to another: each is checked by its own name. */
    char target[200];
    snprintf(target, sizeof target, "/redirect?to=https://127.0.0.1:%u/echo", f->tls_port);
    go(f, (struct http_request_options){ .url = url("https", "localhost", f->tls_port, target), .redirects_max = 3 });
    expect_ok(f, "GET /echo");
    snprintf(target, sizeof target, "/redirect?to=https://127.0.0.2:%u/echo", f->tls_port);
    go(f, (struct http_request_options){ .url = url("https", "localhost", f->tls_port, target), .redirects_max = 3 });
    assert_int_not_equal(f->err.code, STATUS_OK);
}

static void test_connection_failures(void **state)
{
    struct fixture *f = *state;

    uint16_t port = f->tcp_port;
    listener_close(&f->tcp);
    go(f, (struct http_request_options){ .url = url("http", "127.0.0.1", port, "/x?token=secret") });
    expect_error(f, STATUS_UNAVAILABLE, "cannot connect: Connection refused");
    assert_non_null(strstr(f->err.message, "GET http://127.0.0.1:"));
    assert_null(strstr(f->err.message, "secret"));
    assert_false(f->sent);
    go(f, (struct http_request_options){ .url = "http://x/", .unix_socket = "/nonexistent/socket" });
    expect_error(f, STATUS_UNAVAILABLE, "cannot connect to the socket /nonexistent/socket");
    assert_false(f->sent);
    go(f, (struct http_request_options){ .url = "http://no-such-host.invalid/", .connect_timeout_ms = 4000 });
    assert_true(f->err.code == STATUS_UNAVAILABLE || f->err.code == STATUS_DEADLINE_EXCEEDED);
    assert_false(f->sent);
}

static void test_bad_answers(void **state)
{
    static const struct {
        const char *reply, *text;
        enum status_code code;
    } cases[] = {
        { "", "closed the connection without an answer", STATUS_UNAVAILABLE },
        { "garbage\r\n\r\n", "not HTTP/1.1", STATUS_UNAVAILABLE },
        { "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "cut off", STATUS_UNAVAILABLE },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "cut off", STATUS_UNAVAILABLE },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc", "", STATUS_UNAVAILABLE },
        { "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc", "", STATUS_UNAVAILABLE },
        { "HTTP/1.1 200 OK\r\nContent-Le", "", STATUS_UNAVAILABLE },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        f->canned_reply = cases[i].reply;
        go(f, (struct http_request_options){ .url = CANNED("/") });
        if (f->err.code == STATUS_OK)
            fail_msg("accepted: %s", cases[i].reply);
        expect_error(f, cases[i].code, cases[i].text);
        assert_true(f->sent);
    }
    /* Until the end of the connection is an answer too; and 1xx before it are not. */
    f->canned_reply = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nX-Reply: y\r\n\r\nall of it";
    go(f, (struct http_request_options){ .url = CANNED("/") });
    expect_ok(f, "all of it");
    assert_string_equal(f->header, "y");
}

static void test_timeouts(void **state)
{
    struct fixture *f = *state;

    int64_t begun = clock_mono_ms();
    go(f, (struct http_request_options){ .url = TCP("/hold"), .timeout_ms = 200 });
    expect_error(f, STATUS_DEADLINE_EXCEEDED, "no complete answer in time");
    assert_in_range(clock_mono_ms() - begun, 150, 2000);
    assert_true(f->sent);
    begun = clock_mono_ms();
    go(f, (struct http_request_options){ .url = TCP("/trickle"), .low_speed_ms = 1000 });
    expect_error(f, STATUS_DEADLINE_EXCEEDED, "");
    assert_in_range(clock_mono_ms() - begun, 500, 6000);
    /* A TLS server that says nothing. */
    f->canned_reply = "";
    f->canned_silent = true;
    go(f, (struct http_request_options){ .url = url("https", "127.0.0.1", f->canned_port, "/"), .connect_timeout_ms = 200 });
    expect_error(f, STATUS_DEADLINE_EXCEEDED, "cannot connect in time");
    assert_false(f->sent);
}

/* A client with other options, for one request over TLS. */
static void go_tls(struct fixture *f, const struct http_client_options *options, const char *host, uint16_t port)
{
    http_client_free(f->client);
    f->client = http_client_new(f->loop, options);
    go(f, (struct http_request_options){ .url = url("https", host, port, "/echo") });
}

static void serve_as(struct fixture *f, struct str cert, struct str key)
{
    struct status err = STATUS_INIT;

    tls_identity_free(f->identity);
    f->identity = tls_identity_parse(cert, key, &err);
    assert_non_null(f->identity);
}

static void test_tls(void **state)
{
    struct fixture *f = *state;
    const struct http_client_options ca = { .ca_pem = fixture_ca_crt }, other = { .ca_pem = fixture_other_ca_crt },
        pin = { .pin = fixture_ec_pin }, wrong_pin = { .pin = fixture_rsa_pin }, bad_pin = { .pin = "sha256:1" },
        none = { .ca_path = "/nonexistent" }, skip = { .skip_verify = true }, bad_ca = { .ca_pem = "x" };

    go_tls(f, &ca, "localhost", f->tls_port);
    expect_ok(f, "GET /echo");
    go_tls(f, &ca, "127.0.0.1", f->tls_port);
    expect_ok(f, "GET /echo");
    go_tls(f, &pin, "127.0.0.1", f->tls_port);
    expect_ok(f, "GET /echo");
    go_tls(f, &skip, "127.0.0.1", f->tls_port);
    expect_ok(f, "GET /echo");
    go_tls(f, &other, "localhost", f->tls_port);
    expect_error(f, STATUS_UNAUTHENTICATED, "was not issued by any of the 1 authorities");
    assert_false(f->sent);
    go_tls(f, &wrong_pin, "localhost", f->tls_port);
    expect_error(f, STATUS_UNAUTHENTICATED, "not the one that is pinned");
    go_tls(f, &bad_pin, "localhost", f->tls_port);
    expect_error(f, STATUS_FAILED_PRECONDITION, "is not a key pin");
    go_tls(f, &none, "localhost", f->tls_port);
    expect_error(f, STATUS_FAILED_PRECONDITION, "/nonexistent");
    go_tls(f, &bad_ca, "localhost", f->tls_port);
    expect_error(f, STATUS_FAILED_PRECONDITION, "no usable certificate");
    serve_as(f, TEXT(fixture_rsa_crt), TEXT(fixture_rsa_key));
    go_tls(f, &ca, "localhost", f->tls_port);
    expect_ok(f, "GET /echo");
    go_tls(f, &pin, "localhost", f->tls_port);
    expect_error(f, STATUS_UNAUTHENTICATED, "not the one that is pinned");
    serve_as(f, TEXT(fixture_expired_crt), TEXT(fixture_expired_key));
    go_tls(f, &ca, "localhost", f->tls_port);
    expect_error(f, STATUS_UNAUTHENTICATED, "expired");
    go_tls(f, &ca, "127.0.0.1", f->tls_port);
    assert_int_equal(f->err.code, STATUS_UNAUTHENTICATED);
    serve_as(f, TEXT(fixture_client_ec_crt), TEXT(fixture_client_ec_key));
    go_tls(f, &ca, "localhost", f->tls_port);
    expect_error(f, STATUS_UNAUTHENTICATED, "issued for another name");
    go_tls(f, &ca, "127.0.0.1", f->tls_port);
    expect_error(f, STATUS_UNAUTHENTICATED, "does not carry this IP address");
    /* Not TLS at all. */
    go_tls(f, &ca, "localhost", f->tcp_port);
    expect_error(f, STATUS_UNAVAILABLE, "not TLS 1.2");
    f->canned_reply = "";
    go_tls(f, &ca, "localhost", f->canned_port);
    expect_error(f, STATUS_UNAVAILABLE, "closed the connection during the handshake");
}

/* ---- client certificates: against BearSSL's own server, in a process of its own ---- */

static int low_read(void *arg, unsigned char *p, size_t n)
{
    ssize_t got = read(*(int *)arg, p, n);

    return got > 0 ? (int)got : -1;
}

static int low_write(void *arg, const unsigned char *p, size_t n)
{
    ssize_t put = write(*(int *)arg, p, n);

    return put > 0 ? (int)put : -1;
}

static void append_bytes(void *arg, const void *p, size_t n)
{
    buf_append(arg, p, n);
}

/* Answers "hello" to a client that shows a certificate of the fixtures' CA. */
static void serve_demanding(int fd)
{
    static br_ssl_server_context server;
    static br_x509_minimal_context x509;
    static unsigned char buffer[BR_SSL_BUFSIZE_BIDI];
    static br_sslio_context io;
    static br_x509_decoder_context decoder;
    struct buf dn = BUF_INIT;
    br_skey_decoder_context key;
    br_pem_decoder_context pem;
    struct buf der[3] = { BUF_INIT, BUF_INIT, BUF_INIT };
    struct str texts[3] = { TEXT(fixture_ca_crt), TEXT(fixture_ec_crt), TEXT(fixture_ec_key) };

    for (int i = 0; i < 3; i++) {
        br_pem_decoder_init(&pem);
        while (texts[i].n > 0) {
            size_t n = br_pem_decoder_push(&pem, texts[i].p, texts[i].n);
            texts[i].p += n;
            texts[i].n -= n;
            if (br_pem_decoder_event(&pem) == BR_PEM_BEGIN_OBJ)
                br_pem_decoder_setdest(&pem, append_bytes, &der[i]);
        }
    }
    br_x509_decoder_init(&decoder, append_bytes, &dn);
    br_x509_decoder_push(&decoder, der[0].p, der[0].n);
    const br_x509_trust_anchor anchor = { .dn = { dn.p, dn.n }, .flags = BR_X509_TA_CA, .pkey = *br_x509_decoder_get_pkey(&decoder) };
    const br_x509_certificate certificate = { der[1].p, der[1].n };
    br_skey_decoder_init(&key);
    br_skey_decoder_push(&key, der[2].p, der[2].n);
    br_ssl_server_init_full_ec(&server, &certificate, 1, BR_KEYTYPE_RSA, br_skey_decoder_get_ec(&key));
    br_x509_minimal_init_full(&x509, &anchor, 1);
    br_ssl_engine_set_default_rsavrfy(&server.eng);
    br_ssl_engine_set_default_ecdsa(&server.eng);
    br_ssl_engine_set_x509(&server.eng, &x509.vtable);
    br_ssl_server_set_trust_anchor_names_alt(&server, &anchor, 1);
    br_ssl_engine_set_buffer(&server.eng, buffer, sizeof buffer, 1);
    br_ssl_server_reset(&server);
    br_sslio_init(&io, &server.eng, low_read, &fd, low_write, &fd);
    char request[1000];
    if (br_sslio_read(&io, request, sizeof request) > 0) {
        br_sslio_write_all(&io, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 43);
        br_sslio_close(&io);
    }
    close(fd);
}

static void on_accept_demanding(void *arg, int fd)
{
    (void)arg;
    if (fork() == 0) {
        /* Else this process holds the client's end of the connection too, and never sees it close. */
        child_close_fds_except(&fd, 1);
        alarm(20);
        fd_set_nonblocking(fd, false);
        serve_demanding(fd);
        _exit(0);
    }
    close(fd);
}

static void test_client_certificates(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;
    struct listener listener;
    struct address address;
    uint16_t port;

    assert_true(address_parse("127.0.0.1:0", &address, &err));
    assert_true(listener_open(f->loop, &listener, &address, 0, on_accept_demanding, f, &port, &err));
    go_tls(f, &(struct http_client_options){ .ca_pem = fixture_ca_crt, .cert_pem = fixture_client_ec_crt,
                                             .key_pem = fixture_client_ec_key }, "localhost", port);
    expect_ok(f, "hello");
    go_tls(f, &(struct http_client_options){ .ca_pem = fixture_ca_crt, .cert_pem = fixture_client_rsa_crt,
                                             .key_pem = fixture_client_rsa_key }, "localhost", port);
    expect_ok(f, "hello");
    go_tls(f, &(struct http_client_options){ .ca_pem = fixture_ca_crt }, "localhost", port);
    assert_int_not_equal(f->err.code, STATUS_OK);
    print_message("without a certificate: %s\n", f->err.message);
    /* From files. */
    cleanup_free char *path = xasprintf("%s/client.pem", f->dir);
    cleanup_free char *both = xasprintf("%s%s", fixture_client_ec_crt, fixture_client_ec_key);
    assert_true(file_replace(path, both, strlen(both), 0600, &err));
    go_tls(f, &(struct http_client_options){ .ca_pem = fixture_ca_crt, .cert_path = path }, "localhost", port);
    expect_ok(f, "hello");
    go_tls(f, &(struct http_client_options){ .ca_pem = fixture_ca_crt, .cert_path = path, .key_path = "/nonexistent" }, "localhost", port);
    expect_error(f, STATUS_FAILED_PRECONDITION, "/nonexistent");
    go_tls(f, &(struct http_client_options){ .ca_pem = fixture_ca_crt, .cert_pem = fixture_client_ec_crt,
                                             .key_pem = fixture_client_rsa_key }, "localhost", port);
    expect_error(f, STATUS_FAILED_PRECONDITION, "does not belong");
    listener_close(&listener);
}

static void test_proxy(void **state)
{
    struct fixture *f = *state;
    char proxy[64];

    snprintf(proxy, sizeof proxy, "http://127.0.0.1:%u", f->canned_port);
    http_client_free(f->client);
    f->client = http_client_new(f->loop, &(struct http_client_options){ .proxy = proxy, .ca_pem = fixture_ca_crt });
    f->canned_reply = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nvia";
    go(f, (struct http_request_options){ .url = "http://example.test/path" });
    expect_ok(f, "via");
    assert_true(str_starts(buf_cstr(&f->canned_heard), "GET http://example.test/path HTTP/1.1\r\n"));
    buf_clear(&f->canned_heard);
    f->canned_reply = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    go(f, (struct http_request_options){ .url = "https://example.test/path" });
    expect_error(f, STATUS_UNAVAILABLE, "the HTTP proxy refuses");
    assert_true(str_starts(buf_cstr(&f->canned_heard), "CONNECT example.test:443 HTTP/1.1\r\n"));
    assert_false(f->sent);
    /* What is on this machine is asked directly; a unix socket always. */
    go(f, (struct http_request_options){ .url = TCP("/echo") });
    expect_ok(f, "GET /echo");
    go(f, (struct http_request_options){ .url = "http://example.test/echo", .unix_socket = f->socket });
    expect_ok(f, "GET /echo");
    /* The same from the environment. */
    http_client_free(f->client);
    setenv("http_proxy", proxy, 1);
    f->client = http_client_new(f->loop, &(struct http_client_options){ 0 });
    f->canned_reply = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nenv";
    go(f, (struct http_request_options){ .url = "http://example.test/path" });
    expect_ok(f, "env");
    unsetenv("http_proxy");
    http_client_free(f->client);
    f->client = http_client_new(f->loop, &(struct http_client_options){ .proxy = "https://127.0.0.1:1" });
    go(f, (struct http_request_options){ .url = "http://example.test/path" });
    expect_error(f, STATUS_INVALID_ARGUMENT, "TLS to a proxy is not supported");
}

static size_t together_done;

static void together_on_done(void *arg, const struct http_result *result)
{
    (void)arg;
    assert_null(result->err);
    assert_int_equal(result->http_status, 200);
    together_done++;
}

static void test_many_at_once(void **state)
{
    struct fixture *f = *state;

    together_done = 0;
    for (int i = 0; i < 100; i++) {
        const struct http_request_options options = { .url = TCP("/echo"), .on_done = together_on_done };
        http_request_start(f->client, &options);
    }
    assert_int_equal(http_client_active(f->client), 100);
    TURN_UNTIL(together_done == 100);
    assert_true(f->accepted <= HTTP_CLIENT_HOST_CONNECTIONS_MAX);
    assert_int_equal(http_client_active(f->client), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_requests),    TEST(test_reuse),       TEST(test_bad_requests),       TEST(test_streaming),
        TEST(test_bounds),      TEST(test_cancel),      TEST(test_redirects),          TEST(test_connection_failures),
        TEST(test_bad_answers), TEST(test_timeouts),    TEST(test_tls),                TEST(test_client_certificates),
        TEST(test_proxy),       TEST(test_many_at_once),
    };

    /* The machine's own proxies are none of these tests' business. */
    static const char *const variables[] = { "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY" };
    for (size_t i = 0; i < COUNT_OF(variables); i++)
        unsetenv(variables[i]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
