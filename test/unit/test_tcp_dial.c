/* SPDX-License-Identifier: Apache-2.0 */
/* TCP connections out: the order of addresses, other network namespaces, ends and resets, what a callback may do. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "io/file.h"
#include "io/netns.h"
#include "io/tcp_dial.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS 20000

static struct loop *loop;
static struct tcp_dialer dialer;

enum where { NOWHERE, CONNECTED, DATA, END, WRITABLE };

struct talk {
    struct tcp_dial *dial; /* NULL once finished or cancelled */
    struct buf data;
    bool connected, end, writable, finished;
    struct status status;
    enum where cancel_in;
};

static void maybe_cancel(struct talk *t, enum where where)
{
    if (t->cancel_in != where)
        return;
    tcp_dial_cancel(t->dial);
    t->dial = NULL;
}

static void on_connected(void *arg)
{
    struct talk *t = arg;

    assert_false(t->connected);
    assert_non_null(t->dial); /* also: never from within tcp_dial_start() */
    t->connected = true;
    maybe_cancel(t, CONNECTED);
}

static void on_data(void *arg, struct str piece)
{
    struct talk *t = arg;

    assert_true(t->connected && t->dial != NULL);
    buf_append(&t->data, piece.p, piece.n);
    maybe_cancel(t, DATA);
}

static void on_end(void *arg)
{
    struct talk *t = arg;

    assert_true(t->connected && !t->end && t->dial != NULL);
    t->end = true;
    maybe_cancel(t, END);
}

static void on_writable(void *arg)
{
    struct talk *t = arg;

    assert_non_null(t->dial);
    t->writable = true;
    maybe_cancel(t, WRITABLE);
}

static void on_finish(void *arg, const struct status *err)
{
    struct talk *t = arg;

    assert_non_null(t->dial);
    t->dial = NULL;
    t->finished = true;
    t->status = *err;
}

static bool talk_start(struct talk *t, int netns_fd, uint16_t port, size_t count, const char *const *addresses,
                       struct status *err)
{
    const struct tcp_dial_listener listener = { on_connected, on_data, on_end, on_writable, on_finish, t };

    t->dial = tcp_dial_start(loop, &dialer, netns_fd, port, addresses, count, &listener, err);
    return t->dial != NULL;
}

static void talk_open(struct talk *t, int netns_fd, uint16_t port)
{
    static const char *const address[] = { "127.0.0.1" };
    struct status err = STATUS_INIT;

    *t = (struct talk){ .cancel_in = t->cancel_in };
    assert_true(talk_start(t, netns_fd, port, 1, address, &err));
}

static void wait_for(const bool *what)
{
    for (int64_t end = clock_mono_ms() + WAIT_MS; !*what && clock_mono_ms() < end;)
        loop_turn(loop, 5);
    assert_true(*what);
}

static void wait_gone(const struct talk *t)
{
    for (int64_t end = clock_mono_ms() + WAIT_MS; t->dial != NULL && clock_mono_ms() < end;)
        loop_turn(loop, 5);
    assert_null(t->dial);
    assert_false(t->finished);
}

/* ---- the other side ---- */

static int listen_on(const char *host, uint16_t *port)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t n = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, host, &address.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 10), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static int listen_fd;
static uint16_t listen_port;

static int accept_one(void)
{
    return accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC); /* the kernel completes connections by itself */
}

static void assert_reset(int fd)
{
    char byte;

    while (read(fd, &byte, 1) > 0)
        ;
    assert_int_equal(errno, ECONNRESET);
    close(fd);
}

/* ---- tests ---- */

static void test_both_ways(void **state)
{
    struct talk t = { 0 };
    char got[16] = "";

    (void)state;
    talk_open(&t, -1, listen_port);
    assert_false(tcp_dial_send(t.dial, "early ", 6)); /* taken, but not on its way */
    wait_for(&t.writable);
    assert_true(t.connected);
    assert_true(tcp_dial_send(t.dial, "late", 4));
    tcp_dial_half_close(t.dial);
    assert_true(tcp_dial_send(t.dial, "after the end", 13)); /* goes nowhere */
    int fd = accept_one();
    assert_int_equal(recv(fd, got, 10, MSG_WAITALL), 10);
    assert_string_equal(got, "early late");
    assert_int_equal(read(fd, got, 1), 0);
    assert_int_equal(write(fd, "answer", 6), 6);
    close(fd);
    wait_for(&t.finished);
    assert_int_equal(t.status.code, STATUS_OK);
    assert_true(t.end);
    assert_string_equal(buf_cstr(&t.data), "answer");
    buf_free(&t.data);
}

/* They end first, and hear the rest. Nothing is read while it is paused. */
static void test_they_end_first(void **state)
{
    struct talk t = { 0 };
    char got[8] = "";

    (void)state;
    talk_open(&t, -1, listen_port);
    wait_for(&t.connected);
    int fd = accept_one();
    tcp_dial_pause(t.dial, true);
    assert_int_equal(write(fd, "bye", 3), 3);
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < 10; i++)
        loop_turn(loop, 5);
    assert_int_equal(t.data.n, 0);
    assert_false(t.end);
    tcp_dial_pause(t.dial, false);
    wait_for(&t.end);
    assert_true(tcp_dial_send(t.dial, "rest", 4));
    tcp_dial_half_close(t.dial);
    assert_false(t.finished); /* never from within */
    wait_for(&t.finished);
    assert_int_equal(recv(fd, got, 8, MSG_WAITALL), 4);
    close(fd);
    buf_free(&t.data);
}

static void test_addresses(void **state)
{
    static const char *const order[] = { "127.0.0.2", "127.0.0.3", "127.0.0.1" };
    static const char *const none[] = { "127.0.0.2", "127.0.0.3" }, *const name[] = { "localhost" };
    const char *many[TCP_DIAL_ADDRESSES_MAX + 1];
    struct status err = STATUS_INIT;
    struct talk t = { 0 };

    (void)state;
    assert_true(talk_start(&t, -1, listen_port, COUNT_OF(order), order, &err));
    wait_for(&t.connected);
    tcp_dial_cancel(t.dial);
    assert_reset(accept_one());
    t = (struct talk){ 0 };
    assert_true(talk_start(&t, -1, listen_port, COUNT_OF(none), none, &err));
    wait_for(&t.finished);
    cleanup_free char *text = xasprintf("port %u: connection refused on 127.0.0.2 and 127.0.0.3", listen_port);
    assert_string_equal(t.status.message, text);
    assert_int_equal(t.status.code, STATUS_FAILED_PRECONDITION);
    for (size_t i = 0; i < COUNT_OF(many); i++)
        many[i] = "127.0.0.1";
    assert_false(talk_start(&t, -1, listen_port, COUNT_OF(many), many, &err));
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    assert_false(talk_start(&t, -1, listen_port, 1, name, &err));
    assert_false(talk_start(&t, -1, listen_port, 0, name, &err));
}

static void test_broken(void **state)
{
    struct linger reset = { .l_onoff = 1, .l_linger = 0 };
    struct talk t = { 0 };

    (void)state;
    talk_open(&t, -1, listen_port);
    wait_for(&t.connected);
    int fd = accept_one();
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    wait_for(&t.finished);
    assert_int_equal(t.status.code, STATUS_UNAVAILABLE);
    assert_false(t.end);
}

/* Cancelled before it is connected, and in each callback. */
static void test_cancel(void **state)
{
    static const char *const address[] = { "127.0.0.1" };
    cleanup_free char *much = xcalloc(1, 16 << 20);
    struct status err = STATUS_INIT;
    struct talk t = { 0 };

    (void)state;
    assert_true(talk_start(&t, -1, listen_port, 1, address, &err));
    tcp_dial_cancel(t.dial);
    close(accept_one());
    for (enum where where = CONNECTED; where <= WRITABLE; where++) {
        t.cancel_in = where;
        talk_open(&t, -1, listen_port);
        if (where == WRITABLE)
            assert_false(tcp_dial_send(t.dial, much, 16 << 20));
        int fd = accept_one();
        assert_int_equal(write(fd, "x", 1), 1);
        if (where == END)
            shutdown(fd, SHUT_WR);
        for (int i = 0; where == WRITABLE && !t.writable && i < 100000; i++) {
            loop_turn(loop, 0);
            if (!t.writable)
                (void)!recv(fd, much, 1 << 20, MSG_DONTWAIT);
        }
        wait_gone(&t);
        assert_reset(fd);
        buf_free(&t.data);
    }
}

static ino_t netns_inode(void)
{
    struct stat st;

    assert_int_equal(stat("/proc/self/ns/net", &st), 0);
    return st.st_ino;
}

/* The connection is in the other namespace, where the same address is another one; we are not. */
static void test_other_namespace(void **state)
{
    char folder[] = "/tmp/tcp-dial-XXXXXX";
    struct status err = STATUS_INIT;
    struct talk t = { 0 };
    uint16_t port = 0;
    char got[4] = "";

    (void)state;
    if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        skip();
    assert_non_null(mkdtemp(folder));
    cleanup_free char *path = xasprintf("%s/other", folder);
    if (!netns_make(path, NULL, &err)) {
        rmdir(folder);
        skip();
    }
    cleanup_close int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int there = open(path, O_RDONLY | O_CLOEXEC);
    ino_t before = netns_inode();
    assert_int_equal(setns(there, CLONE_NEWNET), 0);
    int foreign = listen_on("127.0.0.1", &port);
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    talk_open(&t, there, port); /* takes the descriptor */
    assert_true(netns_inode() == before);
    wait_for(&t.connected);
    assert_true(netns_inode() == before);
    tcp_dial_send(t.dial, "hey", 3);
    int fd = accept(foreign, NULL, NULL);
    assert_int_equal(recv(fd, got, 3, MSG_WAITALL), 3);
    tcp_dial_cancel(t.dial);
    assert_reset(fd);
    close(foreign);
    /* What is no network namespace is not entered. */
    const char *const address[] = { "127.0.0.1" };
    assert_false(talk_start(&t, open("/dev/null", O_RDONLY | O_CLOEXEC), port, 1, address, &err));
    assert_true(netns_inode() == before);
    assert_true(netns_remove(path, &err));
    umount2(folder, MNT_DETACH);
    assert_true(tree_remove(folder, &err));
}

static int setup(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    loop = loop_new(&err);
    listen_fd = listen_on("127.0.0.1", &listen_port);
    return loop != NULL ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(dialer.count, 0);
    assert_null(dialer.block);
    close(listen_fd);
    loop_free(loop);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(test_they_end_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_namespace, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
