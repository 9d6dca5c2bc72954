/* SPDX-License-Identifier: Apache-2.0 */
/* Connections to ports of the pod: data and ends both ways, back-pressure, breaches, and what is refused. */
#include "agent_kit.h"

#include <arpa/inet.h>
#include <netinet/in.h>

struct forward {
    struct rpc_request *request; /* NULL once finished */
    struct buf data;
    uint64_t bytes;
    bool connected, end, finished, keep;
    struct status status;
};

static void on_forward_message(void *arg, const ProtobufCMessage *message)
{
    struct forward *f = arg;
    const PB(PortForwardResponse) *response = (const void *)message;

    assert_true(f->connected != (response->connected != 0)); /* first, and never again */
    assert_false(f->end);
    f->connected = true;
    f->end = response->end != 0;
    f->bytes += response->data.len;
    if (f->keep)
        buf_append(&f->data, response->data.data, response->data.len);
}

static void on_forward_finish(void *arg, const struct status *status)
{
    struct forward *f = arg;

    f->finished = true;
    f->request = NULL;
    f->status = *status;
}

static void forward_open(struct forward *f)
{
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/PortForward",
        .output = &interlink__agent__v1__port_forward_response__descriptor,
        .on_message = on_forward_message,
        .on_finish = on_forward_finish,
        .arg = f,
    };

    *f = (struct forward){ .keep = true };
    f->request = rpc_request_start(kit->client, &options);
}

static void forward_begin(struct forward *f, uint32_t port, const char *first, size_t address_count, const char **addresses)
{
    PB(PortForwardStart) start = INTERLINK__AGENT__V1__PORT_FORWARD_START__INIT;
    PB(PortForwardRequest) request = INTERLINK__AGENT__V1__PORT_FORWARD_REQUEST__INIT;

    forward_open(f);
    start.port = port;
    start.n_addresses = address_count;
    start.addresses = (char **)(uintptr_t)addresses;
    request.start = &start;
    request.data.data = (uint8_t *)(uintptr_t)first;
    request.data.len = strlen(first);
    rpc_request_send(f->request, &request.base);
}

static void forward_start(struct forward *f, uint32_t port)
{
    forward_begin(f, port, "", 0, NULL);
}

static bool forward_send(struct forward *f, const void *p, size_t n)
{
    PB(PortForwardRequest) request = INTERLINK__AGENT__V1__PORT_FORWARD_REQUEST__INIT;

    request.data.data = (uint8_t *)(uintptr_t)p;
    request.data.len = n;
    return rpc_request_send(f->request, &request.base);
}

static void forward_free(struct forward *f)
{
    buf_free(&f->data);
}

/* ---- a server whose every step is ours ---- */

static int listen_on(const char *host, uint16_t *port)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t n = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, host, &address.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 100), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

/* What a turn of the loop is between two looks. */
static void turn(void)
{
    loop_turn(kit->agent.loop, 5);
}

static int accept_one(int listen_fd)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;
    int fd;

    fd_set_nonblocking(listen_fd, true);
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) < 0 && clock_mono_ms() < deadline)
        turn();
    assert_true(fd >= 0);
    return fd;
}

/* Reads exactly n bytes; fewer when the end comes first. The end's errno: 0 for an end in peace, -1 for none. */
static size_t read_bytes(int fd, struct buf *out, size_t n, int *end)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;
    size_t at = out->n;

    *end = -1;
    while (out->n - at < n && clock_mono_ms() < deadline) {
        ssize_t got = read(fd, buf_reserve(out, n), n - (out->n - at));
        if (got > 0) {
            out->n += (size_t)got;
        } else if (got == 0 || errno != EAGAIN) {
            *end = got == 0 ? 0 : errno;
            break;
        } else {
            turn();
        }
    }
    return out->n - at;
}

static void wait_bytes(const struct forward *f, uint64_t n)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    while (f->bytes < n && clock_mono_ms() < deadline)
        turn();
    assert_int_equal(f->bytes, n);
}

static void wait_forwards(size_t count)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    while (kit->agent.forward_count != count && clock_mono_ms() < deadline)
        turn();
    assert_int_equal(kit->agent.forward_count, count);
}

static int listen_fd;
static uint16_t listen_port;

static int setup(void **state)
{
    kit_setup(state);
    listen_fd = listen_on("127.0.0.1", &listen_port);
    return 0;
}

static int teardown(void **state)
{
    close(listen_fd);
    wait_forwards(0);
    assert_null(kit->agent.dialer.block);
    return kit_teardown(state);
}

/* ---- tests ---- */

static void test_both_ways(void **state)
{
    struct forward f;
    struct buf got cleanup_buf = BUF_INIT;
    int end;

    (void)state;
    forward_begin(&f, listen_port, "GET ", 0, NULL);
    forward_send(&f, "/", 1);
    int fd = accept_one(listen_fd);
    read_bytes(fd, &got, 5, &end);
    assert_string_equal(buf_cstr(&got), "GET /");
    kit_turn_until(&f.connected);
    assert_int_equal(write(fd, "answer", 6), 6);
    wait_bytes(&f, 6);
    /* The caller's end first: the server still answers. */
    rpc_request_half_close(f.request);
    assert_int_equal(read_bytes(fd, &got, 1, &end), 0);
    assert_int_equal(end, 0);
    assert_int_equal(write(fd, " more", 5), 5);
    wait_bytes(&f, 11);
    assert_false(f.finished);
    close(fd);
    kit_turn_until(&f.finished);
    assert_int_equal(f.status.code, STATUS_OK);
    assert_true(f.end);
    assert_string_equal(buf_cstr(&f.data), "answer more");
    forward_free(&f);
}

/* The server's end first: it still reads. */
static void test_server_ends(void **state)
{
    struct forward f;
    struct buf got cleanup_buf = BUF_INIT;
    int end;

    (void)state;
    forward_start(&f, listen_port);
    int fd = accept_one(listen_fd);
    assert_int_equal(write(fd, "bye", 3), 3);
    shutdown(fd, SHUT_WR);
    kit_turn_until(&f.end);
    assert_false(f.finished);
    forward_send(&f, "still here", 10);
    rpc_request_half_close(f.request);
    kit_turn_until(&f.finished);
    assert_int_equal(f.status.code, STATUS_OK);
    assert_int_equal(read_bytes(fd, &got, 11, &end), 10);
    assert_int_equal(end, 0);
    assert_string_equal(buf_cstr(&got), "still here");
    assert_string_equal(buf_cstr(&f.data), "bye");
    close(fd);
    forward_free(&f);
    /* It has ended and reads nothing either: what comes is thrown away. */
    forward_start(&f, listen_port);
    fd = accept_one(listen_fd);
    kit_turn_until(&f.connected);
    close(fd);
    kit_turn_until(&f.end);
    for (int i = 0; i < 10 && f.request != NULL; i++) {
        forward_send(&f, "x", 1);
        kit_turn_ms(10);
    }
    kit_turn_until(&f.finished);
    assert_int_equal(f.status.code, STATUS_OK);
    forward_free(&f);
}

/* More than all buffers hold, both ways at once; neither side waits for the other. */
static void test_bulk(void **state)
{
    struct forward f;
    enum { PIECE = 100000, PIECES = 100 };
    struct buf got cleanup_buf = BUF_INIT;
    cleanup_free uint8_t *data = xmalloc((size_t)PIECE * PIECES);
    size_t written = 0, total = (size_t)PIECE * PIECES;
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    (void)state;
    for (size_t i = 0; i < total; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    forward_start(&f, listen_port);
    for (size_t i = 0; i < PIECES; i++)
        forward_send(&f, data + i * PIECE, PIECE);
    rpc_request_half_close(f.request);
    int fd = accept_one(listen_fd);
    while ((got.n < total || written < total) && clock_mono_ms() < deadline) {
        ssize_t n = read(fd, buf_reserve(&got, PIECE), PIECE);
        got.n += n > 0 ? (size_t)n : 0;
        n = written < total ? write(fd, data + written, total - written) : 0;
        written += n > 0 ? (size_t)n : 0;
        loop_turn(kit->agent.loop, 0);
    }
    close(fd);
    kit_turn_until(&f.finished);
    assert_int_equal(f.status.code, STATUS_OK);
    assert_int_equal(got.n, total);
    assert_memory_equal(got.p, data, total);
    assert_int_equal(f.data.n, total);
    assert_memory_equal(f.data.p, data, total);
    forward_free(&f);
}

/* A side that takes nothing stops the other, and nothing is lost. */
static void test_slow(void **state)
{
    struct forward f;
    enum { SIZE = 1 << 20, COUNT = 40 };
    cleanup_free uint8_t *data = xcalloc(1, SIZE);
    struct buf got cleanup_buf = BUF_INIT;
    size_t sent = 0, written = 0;
    int end;

    (void)state;
    forward_start(&f, listen_port);
    int fd = accept_one(listen_fd);
    kit_turn_until(&f.connected);
    /* The server does not read. */
    for (int quiet = 0; sent < COUNT && quiet < 20; quiet++) {
        if (forward_send(&f, data, SIZE))
            quiet = 0;
        sent++;
        kit_turn_ms(10);
    }
    assert_true(sent < COUNT);
    read_bytes(fd, &got, sent * SIZE, &end);
    assert_int_equal(got.n, sent * SIZE);
    /* The caller does not read. */
    rpc_request_pause(f.request, true);
    for (int quiet = 0; written < (size_t)COUNT * SIZE && quiet < 20;) {
        ssize_t n = write(fd, data, SIZE);
        quiet = n > 0 ? 0 : quiet + 1;
        written += n > 0 ? (size_t)n : 0;
        kit_turn_ms(n > 0 ? 1 : 10);
    }
    assert_true(written < (size_t)COUNT * SIZE);
    rpc_request_pause(f.request, false);
    wait_bytes(&f, written);
    rpc_request_half_close(f.request);
    close(fd);
    kit_turn_until(&f.finished);
    assert_int_equal(f.status.code, STATUS_OK);
    forward_free(&f);
}

static void test_resets(void **state)
{
    struct forward f;
    struct linger reset = { 1, 0 };
    struct buf got cleanup_buf = BUF_INIT;
    int end;

    (void)state;
    /* The server's. */
    forward_start(&f, listen_port);
    int fd = accept_one(listen_fd);
    kit_turn_until(&f.connected);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    kit_turn_until(&f.finished);
    assert_int_equal(f.status.code, STATUS_UNAVAILABLE);
    assert_non_null(strstr(f.status.message, "the connection to 127.0.0.1 broke: Connection reset by peer"));
    forward_free(&f);
    /* The server's, while the caller takes nothing: known when it does again. */
    forward_start(&f, listen_port);
    fd = accept_one(listen_fd);
    kit_turn_until(&f.connected);
    rpc_request_pause(f.request, true);
    cleanup_free uint8_t *data = xcalloc(1, 1 << 20);
    for (int i = 0; i < 30; i++) {
        ssize_t ignored UNUSED = write(fd, data, 1 << 20);
        kit_turn_ms(5);
    }
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    kit_turn_ms(50);
    assert_false(f.finished);
    rpc_request_pause(f.request, false);
    kit_turn_until(&f.finished);
    assert_int_equal(f.status.code, STATUS_UNAVAILABLE);
    forward_free(&f);
    /* The caller's. */
    forward_start(&f, listen_port);
    fd = accept_one(listen_fd);
    kit_turn_until(&f.connected);
    rpc_request_cancel(f.request);
    read_bytes(fd, &got, 1, &end);
    assert_int_equal(end, ECONNRESET);
    close(fd);
    forward_free(&f);
    /* The connection's to the node. */
    forward_start(&f, listen_port);
    fd = accept_one(listen_fd);
    kit_turn_until(&f.connected);
    kit_disconnect();
    read_bytes(fd, &got, 1, &end);
    assert_int_equal(end, ECONNRESET);
    close(fd);
    kit_connect();
    forward_free(&f);
}

static void test_addresses(void **state)
{
    struct forward f;
    uint16_t port, unused;
    int other = listen_on("127.0.0.2", &port);
    const char *list[] = { "127.0.0.1", "127.0.0.3", "127.0.0.2" };

    (void)state;
    forward_begin(&f, port, "", 3, list);
    int fd = accept_one(other);
    kit_turn_until(&f.connected);
    rpc_request_cancel(f.request);
    close(fd);
    wait_forwards(0);
    close(other);
    /* Nobody listens. */
    close(listen_on("127.0.0.1", &unused));
    char expected[128];
    forward_begin(&f, unused, "", 3, list);
    kit_turn_until(&f.finished);
    assert_int_equal(f.status.code, STATUS_FAILED_PRECONDITION);
    snprintf(expected, sizeof expected, "port %u: connection refused on 127.0.0.1, 127.0.0.3 and 127.0.0.2", unused);
    assert_string_equal(f.status.message, expected);
    forward_start(&f, unused);
    kit_turn_until(&f.finished);
    assert_int_equal(f.status.code, STATUS_FAILED_PRECONDITION);
    snprintf(expected, sizeof expected, "port %u: connection refused on 127.0.0.1", unused);
    assert_memory_equal(f.status.message, expected, strlen(expected));
    assert_non_null(strstr(f.status.message, "::1"));
    /* Each reason once. */
    const char *mixed[] = { "127.0.0.1", "224.0.0.1", "127.0.0.3" };
    forward_begin(&f, unused, "", 3, mixed);
    kit_turn_until(&f.finished);
    snprintf(expected, sizeof expected, "port %u: connection refused on 127.0.0.1 and 127.0.0.3; ", unused);
    assert_memory_equal(f.status.message, expected, strlen(expected));
    assert_non_null(strstr(f.status.message, " on 224.0.0.1"));
}

static enum status_code refused(uint32_t port, size_t count, const char **addresses)
{
    struct forward f;

    forward_begin(&f, port, "", count, addresses);
    kit_turn_until(&f.finished);
    assert_false(f.connected);
    return f.status.code;
}

static void test_bad_input(void **state)
{
    struct forward f;
    const char *many[TCP_DIAL_ADDRESSES_MAX + 1], *name[] = { "localhost" }, *empty[] = { "" };
    PB(PortForwardRequest) request = INTERLINK__AGENT__V1__PORT_FORWARD_REQUEST__INIT;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(many); i++)
        many[i] = "127.0.0.1";
    assert_int_equal(refused(0, 0, NULL), STATUS_INVALID_ARGUMENT);
    assert_int_equal(refused(65536, 0, NULL), STATUS_INVALID_ARGUMENT);
    assert_int_equal(refused(80, 1, name), STATUS_INVALID_ARGUMENT);
    assert_int_equal(refused(80, 1, empty), STATUS_INVALID_ARGUMENT);
    assert_int_equal(refused(80, COUNT_OF(many), many), STATUS_INVALID_ARGUMENT);
    forward_open(&f);
    rpc_request_send(f.request, &request.base);
    kit_turn_until(&f.finished);
    assert_int_equal(f.status.code, STATUS_INVALID_ARGUMENT);
    forward_open(&f);
    rpc_request_half_close(f.request);
    kit_turn_until(&f.finished);
    assert_int_equal(f.status.code, STATUS_INVALID_ARGUMENT);
}

static void test_many(void **state)
{
    static struct forward forwards[AGENT_FORWARDS_MAX];
    static int fds[100];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        forward_begin(&forwards[i], listen_port, "x", 0, NULL);
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        fds[i] = accept_one(listen_fd);
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        struct buf got cleanup_buf = BUF_INIT;
        int end;
        read_bytes(fds[i], &got, 1, &end);
        assert_int_equal(write(fds[i], "y", 1), 1);
        close(fds[i]);
    }
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        kit_turn_until(&forwards[i].end);
        assert_string_equal(buf_cstr(&forwards[i].data), "y");
        rpc_request_half_close(forwards[i].request);
        kit_turn_until(&forwards[i].finished);
        assert_int_equal(forwards[i].status.code, STATUS_OK);
        forward_free(&forwards[i]);
    }
    /* The bound. */
    for (size_t i = 0; i < AGENT_FORWARDS_MAX; i++)
        forward_open(&forwards[i]);
    wait_forwards(AGENT_FORWARDS_MAX);
    assert_int_equal(refused(listen_port, 0, NULL), STATUS_RESOURCE_EXHAUSTED);
    for (size_t i = 0; i < AGENT_FORWARDS_MAX; i++)
        rpc_request_cancel(forwards[i].request);
}

#define KIT_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KIT_TEST(test_both_ways), KIT_TEST(test_server_ends), KIT_TEST(test_bulk),      KIT_TEST(test_slow),
        KIT_TEST(test_resets),    KIT_TEST(test_addresses),   KIT_TEST(test_bad_input), KIT_TEST(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
