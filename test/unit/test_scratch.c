/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/scratch.h"

#include "io/file.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char place[64];

static int set_up(void **state)
{
    (void)state;
    snprintf(place, sizeof place, "/tmp/test_scratch.XXXXXX");
    return mkdtemp(place) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    struct status err;

    (void)state;
    return tree_remove(place, &err) ? 0 : -1;
}

static struct scratch_options wish(const char *wanted, const char *sandbox)
{
    return (struct scratch_options){ .wanted = wanted, .job_dir = "/", .sandbox_id = sandbox, .uid = geteuid(), .kind = "one" };
}

static bool there(const char *format, ...) PRINTF_LIKE(1, 2);
static bool there(const char *format, ...)
{
    char path[512];
    va_list args;

    va_start(args, format);
    vsnprintf(path, sizeof path, format, args);
    va_end(args);
    return access(path, F_OK) == 0;
}

static void test_none(void **state)
{
    struct scratch s;
    struct scratch_options o = wish("none", "a");

    (void)state;
    scratch_open(&o, &s);
    assert_null(s.pod);
    o.wanted = "/no/such/place:relative";
    scratch_open(&o, &s);
    assert_null(s.pod);
    assert_non_null(strstr(s.why, "/no/such/place: No such file or directory; relative: is no absolute path"));
    /* The job's own folder is a disk of this machine: nothing else is looked for. */
    o.wanted = "";
    scratch_open(&o, &s);
    assert_null(s.pod);
    assert_string_equal(s.why, "");
    scratch_close(&s);
}

static void test_file_systems(void **state)
{
    struct statfs fs;

    (void)state;
    memset(&fs, 0, sizeof fs);
    fs.f_type = (__typeof__(fs.f_type))0x6969;
    assert_true(scratch_filesystem_of(&fs)->shared);
    fs.f_type = (__typeof__(fs.f_type))0x01021994;
    assert_true(scratch_filesystem_of(&fs)->memory);
    fs.f_type = 12345;
    assert_string_equal(scratch_filesystem_of(&fs)->name, "unknown file system");
}

static void test_life(void **state)
{
    struct scratch s;
    struct scratch_options o = wish("$TEST_SCRATCH", "pod1");
    struct stat st;

    (void)state;
    setenv("TEST_SCRATCH", place, 1);
    scratch_open(&o, &s);
    assert_non_null(s.pod);
    assert_true(there("%s/interlink-cri-%u/pods/pod1", place, geteuid()));
    assert_int_equal(stat(s.base, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_true(there("%s", s.images));
    scratch_close(&s);
    assert_false(there("%s/interlink-cri-%u/pods/pod1", place, geteuid()));
    assert_false(there("%s/interlink-cri-%u/pods/pod1.lock", place, geteuid()));
}

/* Someone else has made the folder for us. */
static void test_trap(void **state)
{
    struct scratch s;
    struct scratch_options o = wish(place, "pod1");
    cleanup_free char *base = xasprintf("%s/interlink-cri-%u", place, geteuid());

    (void)state;
    assert_int_equal(symlink("/", base), 0);
    scratch_open(&o, &s);
    assert_null(s.pod);
    assert_non_null(strstr(s.why, "is not a folder of ours alone"));
    unlink(base);
    assert_int_equal(mkdir(base, 0777), 0);
    assert_int_equal(chmod(base, 0777), 0);
    scratch_open(&o, &s);
    assert_null(s.pod);
}

/* A pod whose process was killed, and one that lives. */
static void test_orphans(void **state)
{
    int ready[2];
    char byte;

    (void)state;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct scratch_options o = wish(place, "orphan");
        struct scratch s;
        scratch_open(&o, &s);
        cleanup_free char *deep = xasprintf("%s/containers/x/rootfs", s.pod);
        struct status err;
        if (!dir_make(deep, 0700, &err))
            _exit(1);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    struct scratch s;
    struct scratch_options o = wish(place, "alive");
    struct status err;
    scratch_open(&o, &s);
    assert_true(scratch_sweep(&s, &err));
    assert_true(there("%s/pods/orphan/containers", s.base));
    /* One who waits outside cannot take it either. */
    struct scratch_options other = wish(place, "orphan");
    scratch_clean(&other);
    assert_true(there("%s/pods/orphan/containers", s.base));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    cleanup_free char *second = xasprintf("%s/pods/second.lock", s.base), *tree = xasprintf("%s/pods/second/a/b", s.base);
    assert_true(dir_make(tree, 0700, &err) && file_replace(second, "", 0, 0600, &err));
    scratch_clean(&other); /* now it can, and takes no other */
    assert_false(there("%s/pods/orphan", s.base));
    assert_true(there("%s/pods/second/a/b", s.base));
    assert_true(scratch_sweep(&s, &err));
    assert_false(there("%s/pods/second", s.base));
    assert_false(there("%s/pods/orphan.lock", s.base));
    assert_true(there("%s", s.pod));
    scratch_close(&s);
    close(ready[0]);
    close(ready[1]);
}

static void make_layer(const char *images, const char *name, time_t age)
{
    cleanup_free char *dir = xasprintf("%s/layers/%s", images, name), *info = xasprintf("%s.info", dir);
    struct status err;
    struct timespec times[2] = { { .tv_sec = time(NULL) - age }, { .tv_sec = time(NULL) - age } };

    if (!dir_make(dir, 0700, &err) || !file_replace(info, "?", 1, 0600, &err) || utimensat(AT_FDCWD, info, times, 0) < 0)
        abort();
}

static void test_images_go_when_nobody_uses_them(void **state)
{
    struct scratch a, b;
    struct scratch_options oa = wish(place, "a"), ob = wish(place, "b");
    struct status err;

    (void)state;
    scratch_open(&oa, &a);
    make_layer(a.images, "old", SCRATCH_UNUSED_MAX_S + 60);
    make_layer(a.images, "new", 60);
    make_layer(a.images, "touched", SCRATCH_UNUSED_MAX_S + 60);
    cleanup_free char *touched = xasprintf("%s/layers/touched", a.images);
    scratch_touch(touched);
    /* One lives, so all stays. */
    scratch_open(&ob, &b);
    assert_true(there("%s/layers/old", b.images));
    scratch_close(&b);
    scratch_close(&a);
    scratch_open(&ob, &b);
    assert_false(there("%s/layers/old", b.images));
    assert_false(there("%s/layers/old.info", b.images));
    assert_true(there("%s/layers/new", b.images));
    assert_true(there("%s/layers/touched", b.images));
    assert_true(scratch_sweep(&b, &err));
    assert_false(there("%s/trash", b.base));
    scratch_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_file_systems),
        cmocka_unit_test_setup_teardown(test_life, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_trap, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_orphans, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_images_go_when_nobody_uses_them, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
