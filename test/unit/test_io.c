/* SPDX-License-Identifier: Apache-2.0 */
#include "io/child.h"
#include "io/file.h"
#include "io/socket.h"
#include "io/stream.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;
static char dir[] = "/tmp/test_io.XXXXXX";

static int setup(void **state)
{
    struct status err = STATUS_INIT;
    (void)state;
    loop = loop_new(&err);
    return loop != NULL && child_reaper_start(loop, NULL, NULL, &err) && mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    struct status err = STATUS_INIT;
    (void)state;
    loop_free(loop);
    return tree_remove(dir, &err) ? 0 : -1;
}

static void turn_until(const bool *done)
{
    int64_t limit = clock_mono_ms() + 10000;

    while (!*done && clock_mono_ms() < limit)
        loop_turn(loop, 100);
    assert_true(*done);
}

/* ---- timers ---- */

static int fired[200], fired_count;

struct numbered {
    struct timer timer;
    int number;
};

static void on_timer(void *arg)
{
    fired[fired_count++] = ((struct numbered *)arg)->number;
}

static void timers_fire_in_order_and_stop(void **state)
{
    static struct numbered timers[100];
    (void)state;

    for (int i = 0; i < 100; i++) {
        timers[i].number = (i * 37) % 100;
        timer_start(loop, &timers[i].timer, timers[i].number / 2 * 2, on_timer, &timers[i]);
    }
    for (int i = 0; i < 100; i += 3)
        timer_stop(&timers[i].timer);
    int64_t limit = clock_mono_ms() + 5000;
    while (fired_count < 66 && clock_mono_ms() < limit)
        loop_turn(loop, 10);
    assert_int_equal(fired_count, 66);
    for (int i = 1; i < fired_count; i++)
        assert_true(fired[i] / 2 >= fired[i - 1] / 2);
}

/* ---- children ---- */

static bool child_done;
static int child_status;

static void on_child_exit(void *arg, int wait_status)
{
    (void)arg;
    child_done = true;
    child_status = wait_status;
}

static void spawn_and_wait(const char *const *argv, int out)
{
    struct child child = { 0 };
    struct status err = STATUS_INIT;

    child_done = false;
    assert_true(child_spawn(loop, &child,
                            &(struct child_options){ .argv = argv, .stdin_fd = -1, .stdout_fd = out, .stderr_fd = -1 },
                            on_child_exit, NULL, &err));
    turn_until(&child_done);
}

static void a_program_runs_and_its_status_is_exact(void **state)
{
    (void)state;
    spawn_and_wait((const char *[]){ "sh", "-c", "exit 7", NULL }, -1);
    assert_int_equal(WEXITSTATUS(child_status), 7);
    spawn_and_wait((const char *[]){ "sh", "-c", "kill -9 $$", NULL }, -1);
    assert_int_equal(WTERMSIG(child_status), SIGKILL);
}

static void a_child_holds_only_its_descriptors(void **state)
{
    int fds[2];
    char text[256] = "";
    (void)state;

    assert_int_equal(pipe(fds), 0);
    int extra = open("/dev/null", O_RDONLY); /* without close-on-exec, on purpose */
    spawn_and_wait((const char *[]){ "sh", "-c", "echo /proc/self/fd/*", NULL }, fds[1]);
    close(fds[1]);
    assert_true(read(fds[0], text, sizeof text - 1) > 0);
    close(fds[0]);
    close(extra);
    char name[32];
    snprintf(name, sizeof name, "fd/%d ", extra);
    assert_null(strstr(text, name));
}

static void a_missing_program_is_an_error_at_once(void **state)
{
    struct child child = { 0 };
    struct status err = STATUS_INIT;
    const char *argv[] = { "/nonexistent/program", NULL };
    (void)state;

    assert_false(child_spawn(loop, &child,
                             &(struct child_options){ .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1 },
                             on_child_exit, NULL, &err));
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/program"));
}

/* ---- workers ---- */

static bool worker_done;
static struct status worker_err;
static struct buf worker_output;

static void on_worker_done(void *arg, const struct status *err, struct buf *output)
{
    (void)arg;
    worker_done = true;
    worker_err = err != NULL ? *err : (struct status)STATUS_INIT;
    buf_clear(&worker_output);
    buf_append(&worker_output, output->p, output->n);
}

static bool work_large(void *arg, struct buf *output, struct status *err)
{
    (void)err;
    for (int i = 0; i < *(int *)arg; i++)
        buf_append_byte(output, (uint8_t)i);
    return true;
}

static bool work_fails(void *arg, struct buf *output, struct status *err)
{
    (void)arg;
    (void)output;
    return status_set(err, STATUS_OUT_OF_RANGE, "the reason");
}

static bool work_dies(void *arg, struct buf *output, struct status *err)
{
    (void)arg;
    (void)output;
    (void)err;
    kill(getpid(), SIGKILL);
    return true;
}

static void run_worker(bool (*work)(void *arg, struct buf *output, struct status *err), void *arg)
{
    struct worker worker = { 0 };
    struct status err = STATUS_INIT;

    worker_done = false;
    assert_true(worker_start(loop, &worker, work, arg, on_worker_done, NULL, &err));
    turn_until(&worker_done);
}

static void workers_hand_back_what_they_made(void **state)
{
    int n = 300000, none = 0;
    (void)state;

    run_worker(work_large, &n);
    assert_int_equal(worker_err.code, STATUS_OK);
    assert_int_equal(worker_output.n, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(worker_output.p[i], (uint8_t)i);
    run_worker(work_large, &none);
    assert_int_equal(worker_output.n, 0);
    run_worker(work_fails, NULL);
    assert_int_equal(worker_err.code, STATUS_OUT_OF_RANGE);
    assert_string_equal(worker_err.message, "the reason");
    run_worker(work_dies, NULL);
    assert_int_equal(worker_err.code, STATUS_INTERNAL);
    assert_non_null(strstr(worker_err.message, "signal 9"));
    buf_free(&worker_output);
}

/* After its parent is gone it writes a file; none of our descriptors is with it. */
static bool work_lasts(void *arg, struct buf *output, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/lasted", dir);

    (void)output;
    usleep(100000);
    bool alone = getppid() != *(pid_t *)arg && getsid(0) == getpid() && fcntl(999, F_GETFD) < 0;
    return file_replace(path, alone ? "alone" : "not alone", alone ? 5 : 9, 0600, err);
}

static void lasting_workers_outlive_us(void **state)
{
    cleanup_free char *path = xasprintf("%s/lasted", dir);
    cleanup_buf struct buf text = BUF_INIT;
    struct worker worker = { 0 };
    struct status err = STATUS_INIT;
    int n = 1000;
    (void)state;

    worker_done = false;
    assert_true(worker_start_lasting(loop, &worker, work_large, &n, on_worker_done, NULL, &err));
    turn_until(&worker_done);
    assert_int_equal(worker_output.n, n);
    buf_free(&worker_output);
    pid_t pid = fork();
    if (pid == 0) {
        pid_t parent = getpid();
        dup2(1, 999);
        struct loop *own = loop_new(&err);
        if (!child_reaper_start(own, NULL, NULL, &err) ||
            !worker_start_lasting(own, &worker, work_lasts, &parent, on_worker_done, NULL, &err))
            _exit(1);
        worker_leave(&worker);
        _exit(worker_running(&worker) ? 1 : 0);
    }
    int wait_status;
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    assert_int_equal(wait_status, 0);
    for (int i = 0; i < 1000 && access(path, F_OK) != 0; i++)
        usleep(10000);
    assert_true(file_read(path, 100, &text, &err));
    assert_string_equal(buf_cstr(&text), "alone");
}

/* ---- files ---- */

static void files_are_written_whole_and_read_bounded(void **state)
{
    struct status err = STATUS_INIT;
    struct buf data = BUF_INIT;
    struct stat st;
    char *path = xasprintf("%s/file", dir);
    (void)state;

    assert_true(file_write_atomic(path, "hello", 5, 0600, &err));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_true(file_read(path, 5, &data, &err));
    assert_int_equal(data.n, 5);
    assert_false(file_read(path, 4, &data, &err));
    assert_int_equal(err.code, STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(data.n, 5);
    assert_false(file_read("/nonexistent", 4, &data, &err));
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    buf_free(&data);
    free(path);
}

static void trees_go_without_following_links(void **state)
{
    struct status err = STATUS_INIT;
    char *outside = xasprintf("%s/outside", dir), *tree = xasprintf("%s/tree", dir);
    char *deep = xasprintf("%s/a/b/c", tree), *link = xasprintf("%s/a/link", tree), *locked = xasprintf("%s/a/b", tree);
    (void)state;

    assert_true(file_replace(outside, "x", 1, 0600, &err));
    assert_true(dir_make(deep, 0755, &err));
    assert_true(dir_make(deep, 0755, &err)); /* again is fine */
    assert_int_equal(symlink(outside, link), 0);
    assert_int_equal(chmod(locked, 0000), 0);
    assert_true(tree_remove(tree, &err));
    assert_int_equal(access(tree, F_OK), -1);
    assert_int_equal(access(outside, F_OK), 0);
    assert_true(tree_remove(tree, &err)); /* nothing is fine, too */
    assert_false(dir_make(outside, 0755, &err));
    free(outside);
    free(tree);
    free(deep);
    free(link);
    free(locked);
}

/* ---- sockets and streams ---- */

static void addresses_are_parsed(void **state)
{
    struct address a;
    struct status err = STATUS_INIT;
    char text[300];
    (void)state;

    assert_true(address_parse("unix:///run/x.sock", &a, &err) && a.is_unix);
    assert_string_equal(a.path, "/run/x.sock");
    assert_true(address_parse("/run/x.sock", &a, &err) && a.is_unix);
    assert_true(address_parse("[::1]:80", &a, &err) && !a.is_unix && a.port == 80);
    assert_string_equal(a.host, "::1");
    assert_true(address_parse("tcp://host.example:65535", &a, &err));
    assert_string_equal(a.host, "host.example");
    assert_false(address_parse("host:65536", &a, &err));
    assert_false(address_parse("host", &a, &err));
    assert_false(address_parse("::1:80", &a, &err));
    assert_false(address_parse(":80", &a, &err));
    assert_false(address_parse("unix://", &a, &err));
    memset(text, 'a', sizeof text);
    text[0] = '/';
    text[299] = '\0';
    assert_false(address_parse(text, &a, &err));
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
}

static bool connected, ended;
static size_t received;
static struct stream *server_side;

static void on_server_event(void *arg, unsigned events)
{
    char data[65536];
    ssize_t n;
    (void)arg;
    (void)events;

    while ((n = stream_read(server_side, data, sizeof data)) > 0)
        received += (size_t)n;
    if (n == 0) {
        ended = true;
        stream_want(server_side, 0);
    }
}

static void on_accept(void *arg, int fd)
{
    struct status err = STATUS_INIT;
    (void)arg;

    stream_free(server_side); /* of the one who only asked whether somebody listens */
    server_side = stream_of_fd(loop, fd, &err);
    stream_listen(server_side, on_server_event, NULL);
    stream_want(server_side, WATCH_READ);
}

static int client_fd;

static void on_connected(void *arg, int fd, const struct status *err)
{
    (void)arg;
    (void)err;
    connected = true;
    client_fd = fd;
}

static void a_stream_carries_bytes_with_back_pressure(void **state)
{
    struct listener listener;
    struct connector connector;
    struct address a;
    struct status err = STATUS_INIT;
    char *path = xasprintf("%s/s", dir);
    static char block[100000];
    size_t sent = 0;
    (void)state;

    assert_true(address_parse(path, &a, &err));
    assert_true(listener_open(loop, &listener, &a, 0600, on_accept, NULL, NULL, &err));
    struct listener second;
    assert_false(listener_open(loop, &second, &a, 0600, on_accept, NULL, NULL, &err));
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    connector_start(loop, &connector, &a, 1000, on_connected, NULL);
    turn_until(&connected);
    assert_true(client_fd >= 0);
    struct stream *client = stream_of_fd(loop, client_fd, &err);
    while (sent < 10 * sizeof block) {
        ssize_t n = stream_write(client, block, sizeof block);
        if (n == -EAGAIN)
            loop_turn(loop, 10);
        else
            sent += (size_t)n;
    }
    stream_shutdown_write(client);
    turn_until(&ended);
    assert_int_equal(received, sent);
    stream_free(client);
    stream_free(server_side);
    listener_close(&listener);
    assert_int_equal(access(path, F_OK), -1);
    connected = false;
    connector_start(loop, &connector, &a, 1000, on_connected, NULL);
    assert_false(connected); /* never from inside the call */
    turn_until(&connected);
    assert_int_equal(client_fd, -1);
    free(path);
}

static int deferred_runs;
static struct deferred again;

static void on_deferred(void *arg)
{
    if (deferred_runs++ == 0)
        deferred_start(loop, &again, on_deferred, arg);
}

static void deferred_calls_run_once_and_may_repeat(void **state)
{
    struct deferred stopped = { 0 };
    (void)state;

    deferred_start(loop, &again, on_deferred, NULL);
    deferred_start(loop, &again, on_deferred, NULL);
    deferred_start(loop, &stopped, on_deferred, NULL);
    deferred_stop(&stopped);
    loop_turn(loop, 0);
    assert_int_equal(deferred_runs, 1);
    loop_turn(loop, 0);
    assert_int_equal(deferred_runs, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_order_and_stop),
        cmocka_unit_test(a_program_runs_and_its_status_is_exact),
        cmocka_unit_test(a_child_holds_only_its_descriptors),
        cmocka_unit_test(a_missing_program_is_an_error_at_once),
        cmocka_unit_test(workers_hand_back_what_they_made),
        cmocka_unit_test(lasting_workers_outlive_us),
        cmocka_unit_test(files_are_written_whole_and_read_bounded),
        cmocka_unit_test(trees_go_without_following_links),
        cmocka_unit_test(addresses_are_parsed),
        cmocka_unit_test(a_stream_carries_bytes_with_back_pressure),
        cmocka_unit_test(deferred_calls_run_once_and_may_repeat),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
