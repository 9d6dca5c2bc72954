/* SPDX-License-Identifier: Apache-2.0 */
/* An agent's call and the relay that takes it: over a unix socket, over TLS, through a proxy, and everything that can go wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "http/proxy.h"
#include "io/file.h"
#include "io/socket.h"
#include "io/tls.h"
#include "node/relay.h"
#include "rpc/dial.h"
#include "rpc/lookup.h"
#include "tls_fixtures.h"

#define TEXT(fixture) ((struct str){ fixture, sizeof fixture - 1 })
#define TOKEN "0123456789abcdef"

struct fixture {
    struct loop *loop;
    struct relay *relay;
    struct tls_identity *identity;
    char dir[64], socket[128], address[64];
    /* the relay's side */
    struct stream *agent;
    char agent_id[64];
    struct buf agent_early;
    /* the caller's side */
    bool done, refused;
    struct stream *stream;
    struct buf early;
    struct status err;
    /* a peer that says one thing */
    struct listener canned;
    uint16_t canned_port;
    const char *canned_reply;
    bool canned_keeps;
    struct stream *canned_stream, *canned_other; /* the second end when it carries bytes to the relay: a proxy */
    struct buf canned_heard;
};

static bool authorise(void *arg, const char *sandbox_id, const char *token, struct status *err)
{
    (void)arg;
    if (strcmp(sandbox_id, "over") == 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "the sandbox is over");
    if (strcmp(sandbox_id, "unknown") == 0)
        return status_set(err, STATUS_NOT_FOUND, "no such sandbox");
    if (strcmp(sandbox_id, "busy") == 0)
        return status_set(err, STATUS_UNAVAILABLE, "try later");
    if (!bytes_equal_constant_time(token, strlen(token), TOKEN, strlen(TOKEN)))
        return status_set(err, STATUS_UNAUTHENTICATED, "wrong token");
    return true;
}

static void on_agent(void *arg, const char *sandbox_id, struct stream *stream, struct str early)
{
    struct fixture *f = arg;

    assert_null(f->agent);
    f->agent = stream;
    snprintf(f->agent_id, sizeof f->agent_id, "%s", sandbox_id);
    buf_append(&f->agent_early, early.p, early.n);
    stream_write(stream, "first", 5);
}

static void on_dialled(void *arg, struct stream *stream, struct str early, const struct status *err, bool refused)
{
    struct fixture *f = arg;

    assert_false(f->done);
    assert_true((stream == NULL) == (err != NULL));
    f->done = true;
    f->stream = stream;
    buf_append(&f->early, early.p, early.n);
    f->err = err != NULL ? *err : (struct status)STATUS_INIT;
    f->refused = refused;
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct status err = STATUS_INIT;

    log_setup(LOG_ERROR, "test");
    f->loop = loop_new(&err);
    assert_true(child_reaper_start(f->loop, NULL, NULL, &err));
    strcpy(f->dir, "/tmp/test-relay-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->socket, sizeof f->socket, "%s/run/relay.sock", f->dir);
    f->identity = tls_identity_parse(TEXT(fixture_ec_crt), TEXT(fixture_ec_key), &err);
    const struct relay_options options = { .unix_path = f->socket, .listen = "127.0.0.1:0", .identity = f->identity,
                                           .authorise = authorise, .on_agent = on_agent, .arg = f };
    f->relay = relay_start(f->loop, &options, &err);
    if (f->relay == NULL)
        fail_msg("%s", err.message);
    snprintf(f->address, sizeof f->address, "127.0.0.1:%u", relay_port(f->relay));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;

    stream_free(f->agent);
    stream_free(f->stream);
    stream_free(f->canned_stream);
    stream_free(f->canned_other);
    listener_close(&f->canned);
    relay_free(f->relay);
    tls_identity_free(f->identity);
    buf_free(&f->early);
    buf_free(&f->agent_early);
    buf_free(&f->canned_heard);
    tree_remove(f->dir, &err);
    loop_turn(f->loop, 0);
    loop_free(f->loop);
    free(f);
    return 0;
}

#define TURN_UNTIL(condition)                                                                                          \
    for (int64_t end_ = clock_mono_ms() + 20000; !(condition);) {                                                      \
        loop_turn(f->loop, 5);                                                                                         \
        if (clock_mono_ms() > end_)                                                                                    \
            fail_msg("never: " #condition);                                                                            \
    }

static struct dial *start(struct fixture *f, struct dial_options options)
{
    options.on_done = on_dialled;
    options.arg = f;
    if (options.sandbox_id == NULL)
        options.sandbox_id = "sandbox-1";
    if (options.token == NULL)
        options.token = TOKEN;
    f->done = false;
    return dial_start(f->loop, &options);
}

static void dial(struct fixture *f, struct dial_options options)
{
    start(f, options);
    TURN_UNTIL(f->done);
}

static void expect_error(struct fixture *f, enum status_code code, bool refused, const char *text)
{
    if (f->err.code != code || f->refused != refused || strstr(f->err.message, text) == NULL)
        fail_msg("%s%s: %s", status_code_name(f->err.code), f->refused ? " (refused)" : "", f->err.message);
    assert_null(f->stream);
}

/* Both ends of what a dial made: bytes go both ways. */
static void expect_connection(struct fixture *f)
{
    char bytes[64] = "";
    size_t n = 0;

    if (f->err.code != STATUS_OK)
        fail_msg("%s", f->err.message);
    assert_non_null(f->stream);
    TURN_UNTIL(f->agent != NULL);
    assert_string_equal(f->agent_id, "sandbox-1");
    n = f->early.n;
    if (n > 0)
        memcpy(bytes, f->early.p, n);
    stream_want(f->stream, WATCH_READ);
    TURN_UNTIL(({
        ssize_t got = stream_read(f->stream, bytes + n, sizeof bytes - n);
        n += got > 0 ? (size_t)got : 0;
        n >= 5;
    }));
    assert_memory_equal(bytes, "first", 5);
    TURN_UNTIL(stream_write(f->stream, "answer", 6) == 6);
    n = 0;
    stream_want(f->agent, WATCH_READ);
    TURN_UNTIL(({
        ssize_t got = stream_read(f->agent, bytes + n, sizeof bytes - n);
        n += got > 0 ? (size_t)got : 0;
        n >= 6;
    }));
    assert_memory_equal(bytes, "answer", 6);
    stream_free(f->agent);
    stream_free(f->stream);
    f->agent = f->stream = NULL;
    buf_clear(&f->early);
    buf_clear(&f->agent_early);
}

/* ---- tests ---- */

static void test_unix(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    assert_int_equal(stat(f->socket, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    cleanup_free char *folder = xasprintf("%s/run", f->dir);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    dial(f, (struct dial_options){ .address = f->socket });
    expect_connection(f);
    cleanup_free char *with_scheme = xasprintf("unix://%s", f->socket);
    dial(f, (struct dial_options){ .address = with_scheme, .proxy = "http://127.0.0.1:1" });
    expect_connection(f);
}

static void test_tls(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;
    cleanup_free char *ca = xasprintf("%s/ca.pem", f->dir);
    cleanup_free char *other = xasprintf("%s/other.pem", f->dir);

    assert_true(file_replace(ca, fixture_ca_crt, strlen(fixture_ca_crt), 0600, &err));
    assert_true(file_replace(other, fixture_other_ca_crt, strlen(fixture_other_ca_crt), 0600, &err));
    dial(f, (struct dial_options){ .address = f->address, .pin = fixture_ec_pin });
    expect_connection(f);
    dial(f, (struct dial_options){ .address = f->address, .ca_path = ca });
    expect_connection(f);
    cleanup_free char *by_name = xasprintf("localhost:%u", relay_port(f->relay));
    dial(f, (struct dial_options){ .address = by_name, .ca_path = ca });
    expect_connection(f);
    dial(f, (struct dial_options){ .address = f->address, .pin = fixture_rsa_pin });
    expect_error(f, STATUS_UNAUTHENTICATED, false, "not the one that is pinned");
    dial(f, (struct dial_options){ .address = f->address, .ca_path = other });
    expect_error(f, STATUS_UNAUTHENTICATED, false, "not issued by any");
    dial(f, (struct dial_options){ .address = f->address, .ca_path = "/nonexistent" });
    expect_error(f, STATUS_NOT_FOUND, false, "/nonexistent");
    dial(f, (struct dial_options){ .address = f->address, .pin = "sha256:12" });
    expect_error(f, STATUS_INVALID_ARGUMENT, false, "not a key pin");
    assert_null(f->agent);
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;

    dial(f, (struct dial_options){ .address = f->socket, .token = "wrong" });
    expect_error(f, STATUS_UNAUTHENTICATED, true, "401 Unauthorized: wrong token");
    dial(f, (struct dial_options){ .address = f->socket, .sandbox_id = "unknown" });
    expect_error(f, STATUS_NOT_FOUND, true, "404 Not Found: no such sandbox");
    dial(f, (struct dial_options){ .address = f->socket, .sandbox_id = "over" });
    expect_error(f, STATUS_NOT_FOUND, true, "410 Gone: the sandbox is over");
    dial(f, (struct dial_options){ .address = f->address, .pin = fixture_ec_pin, .sandbox_id = "over" });
    expect_error(f, STATUS_NOT_FOUND, true, "410 Gone: the sandbox is over");
    dial(f, (struct dial_options){ .address = f->socket, .sandbox_id = "busy" });
    expect_error(f, STATUS_UNAVAILABLE, false, "503 Service Unavailable: try later");
    dial(f, (struct dial_options){ .address = f->socket, .sandbox_id = "a/b" });
    expect_error(f, STATUS_UNAVAILABLE, false, "400 Bad Request");
    dial(f, (struct dial_options){ .address = f->socket, .token = "a\r\nb" });
    expect_error(f, STATUS_INVALID_ARGUMENT, false, "malformed");
    dial(f, (struct dial_options){ .address = f->socket, .token = "" });
    expect_error(f, STATUS_INVALID_ARGUMENT, false, "missing");
    dial(f, (struct dial_options){ .address = "nonsense" });
    expect_error(f, STATUS_INVALID_ARGUMENT, false, "nonsense");
    assert_null(f->agent);
}

static void test_unreachable(void **state)
{
    struct fixture *f = *state;
    cleanup_free char *gone = xasprintf("%s.gone", f->socket);

    dial(f, (struct dial_options){ .address = gone });
    expect_error(f, STATUS_UNAVAILABLE, false, "cannot connect");
    dial(f, (struct dial_options){ .address = "127.0.0.1:1", .pin = fixture_ec_pin });
    expect_error(f, STATUS_UNAVAILABLE, false, "refused");
    dial(f, (struct dial_options){ .address = "no-such-host.invalid:1", .pin = fixture_ec_pin, .proxy = "", .timeout_ms = 5000 });
    assert_true(f->err.code == STATUS_UNAVAILABLE || f->err.code == STATUS_DEADLINE_EXCEEDED);
    assert_non_null(strstr(f->err.message, "name"));
    /* Cancelled at various times. */
    dial_cancel(start(f, (struct dial_options){ .address = f->socket }));
    dial_cancel(start(f, (struct dial_options){ .address = "no-such-host.invalid:1", .pin = fixture_ec_pin }));
    for (int turns = 1; turns < 6; turns++) {
        struct dial *d = start(f, (struct dial_options){ .address = f->address, .pin = fixture_ec_pin });
        for (int i = 0; i < turns && !f->done; i++)
            loop_turn(f->loop, 5);
        if (!f->done)
            dial_cancel(d);
        stream_free(f->stream);
        f->stream = NULL;
    }
    dial_cancel(NULL);
}

/* ---- peers that say one thing ---- */

static void canned_on_event(void *arg, unsigned events)
{
    struct fixture *f = arg;
    char bytes[4096];

    (void)events;
    ssize_t n = stream_read(f->canned_stream, bytes, sizeof bytes);
    if (n > 0)
        buf_append(&f->canned_heard, bytes, (size_t)n);
    stream_write(f->canned_stream, f->canned_reply, strlen(f->canned_reply));
    stream_want(f->canned_stream, 0);
    if (!f->canned_keeps)
        stream_shutdown_write(f->canned_stream);
}

static void on_accept_canned(void *arg, int fd)
{
    struct fixture *f = arg;
    struct status err = STATUS_INIT;

    stream_free(f->canned_stream);
    f->canned_stream = stream_of_fd(f->loop, fd, &err);
    stream_listen(f->canned_stream, canned_on_event, f);
    stream_want(f->canned_stream, WATCH_READ);
}

static const char *listen_canned(struct fixture *f, const char *where, void (*on_accept)(void *arg, int fd))
{
    struct status err = STATUS_INIT;
    struct address address;

    assert_true(address_parse(where, &address, &err));
    assert_true(listener_open(f->loop, &f->canned, &address, 0600, on_accept, f, &f->canned_port, &err));
    return where;
}

static void test_bad_relays(void **state)
{
    static const struct {
        const char *reply, *text;
        bool refused;
    } cases[] = {
        { "", "closed the connection without an answer", false },
        { "SSH-2.0-OpenSSH\r\n", "does not speak HTTP", false },
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 OK: hi", false },
        { "HTTP/1.1 404 Not Found\r\n\r\nuntil\nthe \x1b[31mend", "404 Not Found: until the  [31mend", true },
        { "HTTP/1.1 410 Gone\r\nContent-Length: 100\r\n\r\ncut", "closed the connection", false },
        { "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other/1\r\n\r\n", "another protocol", false },
        { "HTTP/1.1 101 Switching Protocols\r\n\r\n", "does not speak HTTP", false },
        { "HTTP/1.1 101 Switching", "closed the connection", false },
    };
    struct fixture *f = *state;
    cleanup_free char *path = xasprintf("%s/canned", f->dir);

    listen_canned(f, path, on_accept_canned);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        f->canned_reply = cases[i].reply;
        dial(f, (struct dial_options){ .address = path });
        assert_int_equal(f->refused, cases[i].refused);
        expect_error(f, cases[i].refused ? STATUS_NOT_FOUND : STATUS_UNAVAILABLE, cases[i].refused, cases[i].text);
    }
    /* An interim answer, and bytes right behind the 101. */
    f->canned_reply = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                      "Upgrade: interlink-agent/1\r\n\r\nearly";
    f->canned_keeps = true;
    dial(f, (struct dial_options){ .address = path });
    assert_non_null(f->stream);
    assert_string_equal(buf_cstr(&f->early), "early");
    stream_free(f->stream);
    f->stream = NULL;
    /* Headers without end; silence. */
    struct buf endless = BUF_INIT;
    buf_append_str(&endless, "HTTP/1.1 101 Switching Protocols\r\nX: ");
    for (int i = 0; i < 40000; i++)
        buf_append_byte(&endless, 'x');
    f->canned_reply = buf_cstr(&endless);
    dial(f, (struct dial_options){ .address = path });
    expect_error(f, STATUS_UNAVAILABLE, false, "does not speak HTTP");
    buf_free(&endless);
    f->canned_reply = "";
    int64_t begun = clock_mono_ms();
    dial(f, (struct dial_options){ .address = path, .timeout_ms = 200 });
    expect_error(f, STATUS_DEADLINE_EXCEEDED, false, "did not answer in time");
    assert_in_range(clock_mono_ms() - begun, 150, 2000);
}

/* ---- over what the node has opened ---- */

static void dial_on(struct fixture *f, const char *pin, bool relay)
{
    struct status err = STATUS_INIT;
    int fds[2];

    f->done = false;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    if (relay)
        relay_accept(f->relay, stream_of_fd(f->loop, fds[0], &err));
    else
        assert_int_equal(write(fds[0], "SSH-2.0-OpenSSH_9.2\r\n", 21), 21);
    dial_start_on(f->loop, stream_of_fd(f->loop, fds[1], &err),
                  &(struct dial_options){ .address = "by a command", .pin = pin, .sandbox_id = "sandbox-1", .token = TOKEN,
                                          .on_done = on_dialled, .arg = f });
    while (!f->done)
        loop_turn(f->loop, 1000);
    if (!relay)
        close(fds[0]);
}

static void test_carried(void **state)
{
    struct fixture *f = *state;

    dial_on(f, fixture_ec_pin, true);
    expect_connection(f);
    dial_on(f, fixture_rsa_pin, true);
    expect_error(f, STATUS_UNAUTHENTICATED, false, "not the one that is pinned");
    dial_on(f, "", true);
    expect_error(f, STATUS_INVALID_ARGUMENT, false, "no pin");
    dial_on(f, fixture_ec_pin, false);
    expect_error(f, STATUS_UNAVAILABLE, false, "not TLS");
}

/* ---- through a proxy ---- */

static void carry(struct stream *from, struct stream *to)
{
    char bytes[4096];
    ssize_t n = from != NULL && to != NULL ? stream_read(from, bytes, sizeof bytes) : -EAGAIN;

    if (n > 0)
        assert_int_equal(stream_write(to, bytes, (size_t)n), n);
}

static void proxy_on_event(void *arg, unsigned events)
{
    struct fixture *f = arg;
    char bytes[4096];

    (void)events;
    if (f->canned_other == NULL) {
        ssize_t n = stream_read(f->canned_stream, bytes, sizeof bytes);
        if (n <= 0)
            return;
        buf_append(&f->canned_heard, bytes, (size_t)n);
        if (strstr(buf_cstr(&f->canned_heard), "\r\n\r\n") == NULL)
            return;
        struct status err = STATUS_INIT;
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(relay_port(f->relay)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)(void *)&to, sizeof to), 0);
        f->canned_other = stream_of_fd(f->loop, fd, &err);
        stream_listen(f->canned_other, proxy_on_event, f);
        stream_want(f->canned_other, WATCH_READ);
        stream_write(f->canned_stream, "HTTP/1.1 200 Connection established\r\n\r\n", 39);
        return;
    }
    carry(f->canned_stream, f->canned_other);
    carry(f->canned_other, f->canned_stream);
}

static void on_accept_proxy(void *arg, int fd)
{
    struct fixture *f = arg;

    on_accept_canned(arg, fd);
    stream_listen(f->canned_stream, proxy_on_event, f);
}

static void test_proxy(void **state)
{
    struct fixture *f = *state;
    char proxy[128];

    listen_canned(f, "127.0.0.1:0", on_accept_proxy);
    snprintf(proxy, sizeof proxy, "http://me:a%%20b@127.0.0.1:%u", f->canned_port);
    /* A name that only the proxy knows. */
    dial(f, (struct dial_options){ .address = "relay.example:443", .pin = fixture_ec_pin, .proxy = proxy });
    assert_string_equal(buf_cstr(&f->canned_heard), "CONNECT relay.example:443 HTTP/1.1\r\nHost: relay.example:443\r\n"
                                                    "Proxy-Authorization: Basic bWU6YSBi\r\n\r\n");
    expect_connection(f);
    stream_free(f->canned_other);
    f->canned_other = NULL;
    listener_close(&f->canned);
    listen_canned(f, "127.0.0.1:0", on_accept_canned);
    snprintf(proxy, sizeof proxy, "127.0.0.1:%u", f->canned_port);
    f->canned_reply = "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\npolicy";
    dial(f, (struct dial_options){ .address = "relay.example:443", .pin = fixture_ec_pin, .proxy = proxy });
    expect_error(f, STATUS_UNAVAILABLE, false, "the HTTP proxy answers 403 Forbidden: policy");
    f->canned_reply = "";
    dial(f, (struct dial_options){ .address = "relay.example:443", .pin = fixture_ec_pin, .proxy = proxy });
    expect_error(f, STATUS_UNAVAILABLE, false, "the HTTP proxy closed the connection");
    f->canned_reply = "HTTP/1.1 200 OK\r\n\r\nmore";
    dial(f, (struct dial_options){ .address = "relay.example:443", .pin = fixture_ec_pin, .proxy = proxy });
    expect_error(f, STATUS_UNAVAILABLE, false, "bytes of its own");
    dial(f, (struct dial_options){ .address = "relay.example:443", .pin = fixture_ec_pin, .proxy = "http://127.0.0.1:1" });
    expect_error(f, STATUS_UNAVAILABLE, false, "through HTTP proxy 127.0.0.1:1: the HTTP proxy is not reached");
    dial(f, (struct dial_options){ .address = "relay.example:443", .pin = fixture_ec_pin, .proxy = "https://127.0.0.1:1" });
    expect_error(f, STATUS_INVALID_ARGUMENT, false, "only http:// proxies");
    /* From the environment. */
    setenv("https_proxy", proxy, 1);
    f->canned_reply = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
    dial(f, (struct dial_options){ .address = "relay.example:443", .pin = fixture_ec_pin });
    expect_error(f, STATUS_UNAVAILABLE, false, "wants a user and a password");
    dial(f, (struct dial_options){ .address = f->address, .pin = fixture_ec_pin });
    expect_connection(f);
    unsetenv("https_proxy");
}

static void test_no_proxy(void **state)
{
    (void)state;
    static const struct {
        const char *list, *host;
        bool covered;
    } cases[] = {
        { "", "a", false }, { "*", "a", true }, { "example.org", "example.org", true }, { "example.org", "www.Example.org", true },
        { ".example.org", "www.example.org", true }, { ".example.org", "example.org", true }, { "example.org", "badexample.org", false },
        { "a, b\tc", "b", true }, { "a, b\tc", "c", true }, { "10.0.0.0/8", "10.1.2.3", true }, { "10.0.0.0/8", "11.1.2.3", false },
        { "10.128.0.0/9", "10.127.0.1", false }, { "10.0.0.1", "10.0.0.1", true }, { "10.0.0.1", "10.0.0.2", false },
        { "fd00::/8", "fd12::1", true }, { "fd00::/8", "fe80::1", false }, { "::1", "::1", true }, { "0.0.0.0/0", "1.2.3.4", true },
        { "10.0.0.0/33", "10.0.0.1", false }, { "10.0.0.0/x", "10.0.0.1", false }, { "0.0.0.0/0", "::1", false }, { ",,", "a", false },
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++)
        if (http_no_proxy_covers(cases[i].list, cases[i].host) != cases[i].covered)
            fail_msg("\"%s\" and %s", cases[i].list, cases[i].host);
}

/* ---- the relay by itself ---- */

static void ask(struct fixture *f, const char *request, const char *expected)
{
    struct status err = STATUS_INIT;
    char reply[1000];
    size_t n = 0;
    int fd = socket_connect_unix(f->socket, &err);

    assert_true(fd >= 0);
    fd_set_nonblocking(fd, true);
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    TURN_UNTIL(({
        ssize_t got = read(fd, reply + n, sizeof reply - 1 - n);
        n += got > 0 ? (size_t)got : 0;
        reply[n] = '\0';
        strstr(reply, expected) != NULL || got == 0;
    }));
    if (strstr(reply, expected) == NULL)
        fail_msg("%s", reply);
    close(fd);
}

static void test_requests(void **state)
{
    struct fixture *f = *state;

    ask(f, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "ok\n");
    ask(f, "GET /agent HTTP/1.1\r\nHost: x\r\n\r\n", "426 Upgrade Required");
    ask(f, "GET /agent HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: interlink-agent/1\r\n\r\n", "400 Bad Request");
    ask(f, "GET /agent HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: interlink-agent/1\r\nInterlink-Sandbox: a\r\n\r\n",
        "401 Unauthorized");
    ask(f, "GET /agent HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: interlink-agent/1\r\nInterlink-Sandbox: a\r\n"
        "Authorization: Basic eDp5\r\n\r\n", "401 Unauthorized");
    ask(f, "POST /agent HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed");
    ask(f, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found");
    assert_null(f->agent);
}

static void test_start_failures(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;
    const struct relay_options base = { .authorise = authorise, .on_agent = on_agent, .arg = f };
    struct relay_options options = base;

    /* No TCP without TLS. */
    options.listen = "127.0.0.1:0";
    assert_null(relay_start(f->loop, &options, &err));
    assert_non_null(strstr(err.message, "TLS"));
    /* Somebody listens there already. */
    options = base;
    options.unix_path = f->socket;
    assert_null(relay_start(f->loop, &options, &err));
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    options.unix_path = "127.0.0.1:80";
    assert_null(relay_start(f->loop, &options, &err));
    options.unix_path = "/proc/nowhere/relay.sock";
    assert_null(relay_start(f->loop, &options, &err));
    /* A name is not an address to listen on. */
    options = base;
    options.listen = "example.invalid:0";
    options.identity = f->identity;
    assert_null(relay_start(f->loop, &options, &err));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_unix),       TEST(test_tls),        TEST(test_refusals),       TEST(test_unreachable), TEST(test_bad_relays),
        TEST(test_carried),    TEST(test_proxy),      TEST(test_requests),   TEST(test_start_failures), cmocka_unit_test(test_no_proxy),
    };

    static const char *const variables[] = { "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY" };
    for (size_t i = 0; i < COUNT_OF(variables); i++)
        unsetenv(variables[i]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
