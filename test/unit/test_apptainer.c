/* SPDX-License-Identifier: Apache-2.0 */
/* The site's apptainer: where it is found, what its command line looks like, and when it is picked. */
#include "agent/apptainer.h"

#include "agent/spec.h"
#include "io/file.h"

#include <setjmp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char place[64];
static char *old_path;

static int set_up(void **state)
{
    (void)state;
    snprintf(place, sizeof place, "/tmp/test_apptainer.XXXXXX");
    old_path = xstrdup(getenv("PATH"));
    return mkdtemp(place) != NULL && chmod(place, 0755) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    struct status err;

    (void)state;
    setenv("PATH", old_path, 1);
    free(old_path);
    return tree_remove(place, &err) ? 0 : -1;
}

static void put(const char *name, mode_t mode, const char *text)
{
    cleanup_free char *path = xasprintf("%s/%s", place, name);
    struct status err;

    if (!file_replace(path, text, strlen(text), 0755, &err) || chmod(path, mode) < 0)
        abort();
}

/* A site's program, as far as it is asked. */
static void put_program(const char *name)
{
    cleanup_free char *text = xasprintf("#!/bin/sh\ncase $1 in --version) echo 'apptainer version 9.9.9';; buildcfg) echo PACKAGE_NAME=apptainer;"
                                        " echo LIBEXECDIR=%s/libexec;; *) exit 1;; esac\n", place);
    put(name, 0755, text);
}

static void put_setuid(void)
{
    cleanup_free char *dir = xasprintf("%s/libexec/apptainer/bin", place);
    struct status err;

    if (!dir_make(dir, 0755, &err))
        abort();
    put("libexec/apptainer/bin/starter-suid", 04755, "");
}

static void test_find(void **state)
{
    struct apptainer a;
    struct status err = STATUS_INIT;

    (void)state;
    setenv("PATH", place, 1);
    assert_false(apptainer_find("", &a, &err));
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "neither apptainer nor singularity in $PATH"));
    assert_false(apptainer_find("/no/such/apptainer", &a, &err));
    put("apptainer-dead", 0755, "#!/bin/sh\nexit 3\n");
    assert_false(apptainer_find("apptainer-dead", &a, &err));
    assert_non_null(strstr(err.message, "--version ended with wait status 0x300"));
    put_program("singularity");
    put_setuid();
    cleanup_free char *want = xasprintf("%s/singularity", place);
    assert_true(apptainer_find(NULL, &a, &err));
    assert_string_equal(a.path, want);
    assert_string_equal(a.version, "apptainer version 9.9.9");
    assert_int_equal(a.setuid, geteuid() == 0); /* the starter belongs to us */
    put_program("apptainer");
    assert_true(apptainer_find("", &a, &err));
    assert_true(str_starts(a.path, place) && strstr(a.path, "/apptainer") != NULL);
}

static void test_pick(void **state)
{
    struct engine_options o = { .wanted = "auto", .job_dir = place, .sandbox_id = "x", .cgroup_parent = "", .cdi_dirs = "",
                                .isolation = { .uid = geteuid(), .missing = "namespaces: switched off" } };
    Interlink__Agent__V1__Features features;
    char reason[ENGINE_REASON_SIZE] = "";
    struct status err = STATUS_INIT;

    (void)state;
    setenv("PATH", place, 1);
    assert_null(engine_probe(&o, &features, reason, &err));
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "not crun: namespaces: switched off; not apptainer: there is neither"));
    assert_non_null(strstr(err.message, "not host: the configuration does not allow it"));
    o.allow_host = true;
    assert_string_equal(engine_probe(&o, &features, reason, &err), "host");
    assert_non_null(strstr(reason, "not apptainer: there is neither"));
    put_program("apptainer");
    put_setuid();
    if (geteuid() != 0)
        skip();
    assert_string_equal(engine_probe(&o, &features, reason, &err), "apptainer");
    assert_non_null(strstr(reason, "apptainer version 9.9.9 at "));
    assert_non_null(strstr(reason, ", setuid; not crun: namespaces: switched off"));
    /* Inside of namespaces that lack something it would lack that, too. */
    o.isolation.mount = true;
    assert_string_equal(engine_probe(&o, &features, reason, &err), "host");
    o.isolation.mount = false;
    o.wanted = "apptainer";
    assert_string_equal(engine_probe(&o, &features, reason, &err), "apptainer");
    assert_true(str_starts(reason, "configured; apptainer version"));
    o.apptainer = "/no/such";
    assert_null(engine_probe(&o, &features, reason, &err));
    assert_non_null(strstr(err.message, "/no/such is not a program that can be run"));
    o.wanted = "crun";
    assert_null(engine_probe(&o, &features, reason, &err));
    o.wanted = "docker";
    assert_null(engine_probe(&o, &features, reason, &err));
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    /* And the best of all. */
    o.wanted = "";
    o.isolation.mount = o.isolation.pid = true;
    assert_string_equal(engine_probe(&o, &features, reason, &err), "crun");
}

static char *joined(const char *const *argv)
{
    struct buf text = BUF_INIT;

    for (; *argv != NULL; argv++)
        buf_printf(&text, "%s%s", text.n > 0 ? " " : "", *argv);
    return buf_steal(&text);
}

static void test_words(void **state)
{
    static const struct apptainer program = { .path = "/usr/bin/apptainer" };
    struct spec_mount mounts[] = {
        { .destination = "/proc", .type = "proc", .source = "proc", .options = { "nosuid" } },
        { .destination = "/sys", .type = "bind", .source = "/sys", .options = { "rbind" } },
        { .destination = "/dev/shm", .type = "bind", .source = "/job/shm", .options = { "rbind", "rw" } },
        { .destination = "/data", .type = "bind", .source = "/host/data", .options = { "rbind", "ro" } },
        { .destination = "/dev/termination-log", .type = "bind", .source = "/job/log", .options = { "rbind", "rw" } },
    };
    struct spec_device devices[] = { { .path = "/dev/other", .source = "/dev/fuse", .type = 'c' } };
    struct spec s = { .mounts = mounts, .mount_count = COUNT_OF(mounts), .devices = devices, .device_count = 1 };
    struct apptainer_instance i = { .program = &program, .id = "abc", .root = "/b/rootfs", .enter = "/job/enter", .pid_file = "/b/pid",
                                    .spec = &s, .own_ipc = true, .nvidia = true };
    cleanup_arena struct arena arena = ARENA_INIT;
    const char *const *argv;
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(apptainer_start_argv(&i, &arena, &argv, &err));
    cleanup_free char *text = joined(argv);
    assert_string_equal(text, "/usr/bin/apptainer --silent instance start --cleanenv --contain --no-home --no-mount home,tmp,cwd --pid-file "
                              "/b/pid --ipc --writable --nv --bind /job/shm:/dev/shm --bind /host/data:/data:ro --bind "
                              "/job/log:/.singularity.d/dev/4 --bind /dev/fuse:/dev/fuse --bind /job/enter:/.singularity.d/actions/start:ro "
                              "/b/rootfs interlink-abc agent idle");
    s.readonly_root = true;
    i.own_ipc = i.nvidia = false;
    i.root_user = i.rocm = true;
    assert_true(apptainer_start_argv(&i, &arena, &argv, &err));
    cleanup_free char *other = joined(argv);
    assert_non_null(strstr(other, "--pid-file /b/pid --no-privs --rocm --bind"));
    mounts[3].source = "/host/a:b";
    assert_false(apptainer_start_argv(&i, &arena, &argv, &err));
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    const char *const words[] = { "agent", "enter", "5", NULL };
    cleanup_free char *exec = joined(apptainer_exec_argv(&program, "abc", words, &arena));
    assert_string_equal(exec, "/usr/bin/apptainer --silent exec --cleanenv instance://interlink-abc /.singularity.d/actions/start agent enter 5");
}

static void test_environment(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    size_t found = 0;

    (void)state;
    setenv("HOME", "/home/somebody", 1);
    for (char **e = apptainer_env("/job/state", &arena); *e != NULL; e++) {
        found += strcmp(*e, "APPTAINER_CONFIGDIR=/job/state") == 0 || strcmp(*e, "SINGULARITY_CACHEDIR=/job/state") == 0;
        assert_string_not_equal(*e, "HOME=/home/somebody");
    }
    assert_int_equal(found, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_find, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pick, set_up, tear_down),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_environment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
