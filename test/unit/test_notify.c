/* SPDX-License-Identifier: Apache-2.0 */
/* A service manager's socket, by path and in the abstract namespace; signs of life; a manager that takes nothing; nonsense. */
#include "io/notify.h"

#include <setjmp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;
static char path[64];

static int setup(void **state)
{
    struct status err = STATUS_INIT;
    (void)state;
    loop = loop_new(&err);
    snprintf(path, sizeof path, "/tmp/test_notify.%d", (int)getpid());
    return loop != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    unlink(path);
    return 0;
}

/* The manager's end; `name` as NOTIFY_SOCKET has it, which is set. */
static int manager(const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    size_t n = strlen(name);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memcpy(address.sun_path, name, n);
    if (*name == '@')
        address.sun_path[0] = '\0';
    else
        unlink(name);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static const char *heard(int fd)
{
    static char text[2048];
    ssize_t n = recv(fd, text, sizeof text - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void test_told_by(const char *name)
{
    struct notify n;
    int fd = manager(name);

    notify_open(&n, loop);
    assert_null(getenv("NOTIFY_SOCKET"));
    notify_status(&n, "a %s\nREADY=1", "word");
    assert_string_equal(heard(fd), "STATUS=a word");
    notify_say(&n, "READY=1");
    assert_string_equal(heard(fd), "READY=1");
    assert_string_equal(heard(fd), "");
    assert_false(timer_running(&n.watchdog));
    notify_close(&n);
    close(fd);
}

static void test_path(void **state)
{
    (void)state;
    test_told_by(path);
}

static void test_abstract(void **state)
{
    char name[64];
    (void)state;
    snprintf(name, sizeof name, "@test_notify/%d", (int)getpid());
    test_told_by(name);
}

static void test_watchdog(void **state)
{
    struct notify n;
    int fd = manager(path);
    int64_t limit = clock_mono_ms() + 10000;
    (void)state;

    setenv("WATCHDOG_USEC", "20000", 1);
    setenv("WATCHDOG_PID", "1", 1); /* somebody else is meant */
    notify_open(&n, loop);
    assert_int_equal(n.watchdog_ms, 0);
    notify_close(&n);
    setenv("NOTIFY_SOCKET", path, 1);
    setenv("WATCHDOG_USEC", "20000", 1);
    notify_open(&n, loop);
    assert_null(getenv("WATCHDOG_USEC"));
    assert_int_equal(n.watchdog_ms, 10);
    loop_turn(loop, 30);
    assert_string_equal(heard(fd), ""); /* only from READY on */
    notify_say(&n, "READY=1");
    assert_string_equal(heard(fd), "READY=1");
    for (int i = 0; i < 3; i++) {
        const char *text;
        while (*(text = heard(fd)) == '\0' && clock_mono_ms() < limit)
            loop_turn(loop, 100);
        assert_string_equal(text, "WATCHDOG=1");
    }
    notify_close(&n);
    close(fd);
}

static void test_full(void **state)
{
    struct notify n;
    int fd = manager(path), count = 0, heard_count = 0;
    int64_t limit = clock_mono_ms() + 10000;
    (void)state;

    notify_open(&n, loop);
    while (n.kept.n == 0 && count < 100000) {
        notify_say(&n, "X=1");
        count++;
    }
    assert_int_equal(n.kept.n, 3);
    notify_say(&n, "STOPPING=1");
    for (int i = 0; i < 2 * NOTIFY_KEPT_MAX / 4; i++) /* bounded */
        notify_say(&n, "Y=1");
    assert_true(n.kept.n <= NOTIFY_KEPT_MAX);
    while (strcmp(heard(fd), "X=1") == 0)
        heard_count++;
    assert_int_equal(heard_count, count - 1);
    while (n.kept.n > 0 && clock_mono_ms() < limit)
        loop_turn(loop, 100);
    assert_true(str_starts(heard(fd), "X=1\nSTOPPING=1\nY=1\nY=1"));
    close(fd);
    notify_say(&n, "READY=1"); /* nobody is there any more: said in the log, and over */
    assert_int_equal(n.kept.n, 0);
    notify_close(&n);
}

static void test_nonsense(void **state)
{
    static const char *const names[] = { "", "relative", "/", "@", "vsock:2:1234", "unix:/x" };
    char longer[200];
    struct notify n;
    (void)state;

    unsetenv("NOTIFY_SOCKET");
    notify_open(&n, loop);
    notify_say(&n, "READY=1");
    notify_close(&n);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        setenv("NOTIFY_SOCKET", names[i], 1);
        notify_open(&n, loop);
        assert_int_equal(n.fd, -1);
        notify_status(&n, "x");
        notify_close(&n);
    }
    memset(longer, '/', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    setenv("NOTIFY_SOCKET", longer, 1);
    notify_open(&n, loop);
    assert_int_equal(n.fd, -1);
    static const char *const numbers[] = { "", "0", "-5", "soon", "99999999999999999999999" };
    int fd = manager(path);
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        setenv("NOTIFY_SOCKET", path, 1);
        setenv("WATCHDOG_USEC", numbers[i], 1);
        notify_open(&n, loop);
        assert_true(n.fd >= 0 && n.watchdog_ms == 0);
        notify_close(&n);
    }
    setenv("NOTIFY_SOCKET", path, 1);
    notify_open(&n, NULL);
    notify_say(&n, "READY=1");
    notify_close(&n);
    assert_string_equal(heard(fd), "");
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path), cmocka_unit_test(test_abstract), cmocka_unit_test(test_watchdog),
        cmocka_unit_test(test_full), cmocka_unit_test(test_nonsense),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
