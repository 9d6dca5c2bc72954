/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin embedded in this process and the client that `serve` uses, over a real socket: no shortcut round REST. The agent is this
 * very program, started again with the word "agent". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "interlink/interlink.h"
#include "io/child.h"
#include "io/file.h"
#include "plugin/job_files.c"
#include "plugin/local_purge.c"
#include "plugin/local_start.c"
#include "plugin/plugin.h"

struct fixture {
    struct loop *loop;
    struct plugin *plugin;
    struct interlink_target *target;
    char dir[64], listen[128];
    struct interlink_job *job;
    int submitted, rejected, cancelled;
    struct status error;
    struct interlink_job_state state;
    char jid[64], reason[64];
};

#define UNTIL(f, condition)                                                                                            \
    do {                                                                                                               \
        int64_t until_ = clock_mono_ms() + 10000;                                                                      \
        while (!(condition)) {                                                                                         \
            if (clock_mono_ms() > until_)                                                                              \
                fail_msg("never: %s", #condition);                                                                     \
            loop_turn((f)->loop, 10);                                                                                  \
        }                                                                                                              \
    } while (0)

/* SIGCHLD and its table belong to the process: one loop for all tests. */
static struct loop *shared_loop;

static void plugin_up(struct fixture *f, const char *program)
{
    struct status err = STATUS_INIT;
    cleanup_free char *dir = xasprintf("%s/plugin", f->dir);
    struct plugin_options options = { .listen = f->listen, .dir = dir, .backend = "local", .program = program };

    f->plugin = plugin_start(f->loop, &options, &err);
    if (f->plugin == NULL)
        fail_msg("%s", err.message);
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct status err = STATUS_INIT;

    snprintf(f->dir, sizeof f->dir, "/tmp/test-plugin-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->listen, sizeof f->listen, "unix://%s/plugin.sock", f->dir);
    f->loop = shared_loop;
    plugin_up(f, "");
    struct interlink_target_options options = { .name = "local", .url = f->listen, .bearer_token_file = "", .ca_file = "",
                                                .client_cert_file = "", .client_key_file = "", .poll_ms = 20,
                                                .poll_steady_ms = 40 };
    f->target = interlink_target_new(f->loop, &options, &err);
    assert_non_null(f->target);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;

    interlink_job_free(f->job);
    interlink_target_free(f->target);
    plugin_stop(f->plugin);
    assert_true(tree_remove(f->dir, &err));
    free(f);
    return 0;
}

static void heard_submitted(void *arg, const char *jid)
{
    struct fixture *f = arg;

    f->submitted++;
    snprintf(f->jid, sizeof f->jid, "%s", jid);
}

static void heard_rejected(void *arg, const struct status *err)
{
    struct fixture *f = arg;

    f->rejected++;
    f->error = *err;
}

static void heard_state(void *arg, const struct interlink_job_state *s)
{
    struct fixture *f = arg;

    f->state = *s;
    snprintf(f->reason, sizeof f->reason, "%s", s->reason);
}

static void heard_cancelled(void *arg)
{
    ((struct fixture *)arg)->cancelled++;
}

static const struct interlink_job_events events = { .on_submitted = heard_submitted, .on_rejected = heard_rejected, .on_state = heard_state };

static const char *const uid = "0a0b0c0d-0000-4000-8000-000000000001";

static void new_job(struct fixture *f, const char *annotation)
{
    static const char *command[] = { "interlink-cri", "agent", "--test" };
    static struct interlink_pair env[] = { { "RELAY", "unix:///x" } };
    static struct interlink_mount mounts[] = { { "token", "/token", "", true } };
    static struct interlink_file files[] = { { "token", STR("secret") } };
    static struct interlink_object secret = { "s", "default", "Opaque", files, 1 };
    static struct interlink_volume volumes[] = { { .name = "token", .kind = INTERLINK_VOLUME_SECRET, .source = "s",
                                                   .host_path_type = "", .medium = "", .size_limit = "", .other = "",
                                                   .default_mode = 0400 } };
    static struct interlink_container container = { .name = "agent", .image = "none", .working_dir = "", .env_from = "",
                                                    .command = { command, 3 }, .env = { env, 1 }, .mounts = mounts,
                                                    .mount_count = 1 };
    struct interlink_pair annotations[] = { { INTERLINK_JOB_ANNOTATION, annotation } };
    struct interlink_create create = INTERLINK_CREATE_INIT;

    create.pod.name = "p";
    create.pod.namespace_ = "default";
    create.pod.uid = uid;
    create.pod.annotations = (struct interlink_pairs){ annotations, 1 };
    create.pod.containers = &container;
    create.pod.container_count = 1;
    create.pod.volumes = volumes;
    create.pod.volume_count = 1;
    create.secrets = &secret;
    create.secret_count = 1;
    f->job = interlink_job_new(f->target, &create, &events, f);
}

static pid_t job_pid(const struct fixture *f)
{
    cleanup_free char *path = xasprintf("%s/plugin/records/%s.pid", f->dir, uid);
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;

    assert_true(file_read(path, 256, &text, &err));
    return (pid_t)strtol(buf_cstr(&text), NULL, 10);
}

static bool job_has_file(const struct fixture *f, const char *name)
{
    cleanup_free char *path = xasprintf("%s/plugin/jobs/%s/%s", f->dir, uid, name);

    return access(path, F_OK) == 0;
}

/* ---- tests ---- */

static void test_life(void **state)
{
    struct fixture *f = *state;

    new_job(f, INTERLINK_JOB_AGENT);
    int64_t start = clock_mono_ns();
    interlink_job_submit(f->job);
    UNTIL(f, f->submitted == 1);
    print_message("create took %" PRId64 " us\n", (clock_mono_ns() - start) / 1000);
    assert_string_equal(f->jid, "local-0a0b0c0d-0000");
    assert_int_equal(plugin_job_count(f->plugin), 1);
    UNTIL(f, f->state.phase == INTERLINK_RUNNING);
    UNTIL(f, job_has_file(f, "started"));
    assert_true(job_has_file(f, "volumes/token/token"));
    interlink_job_cancel(f->job, 5, heard_cancelled, NULL, f);
    UNTIL(f, f->cancelled == 1);
    assert_false(job_has_file(f, ""));
    assert_int_equal(plugin_job_count(f->plugin), 0);
}

static void test_refused(void **state)
{
    struct fixture *f = *state;

    new_job(f, "something else");
    interlink_job_submit(f->job);
    UNTIL(f, f->rejected == 1);
    assert_int_equal(f->error.code, STATUS_FAILED_PRECONDITION);
    assert_non_null(strstr(f->error.message, INTERLINK_JOB_ANNOTATION));
    assert_int_equal(plugin_job_count(f->plugin), 0);
}

static void test_stop_and_start_again(void **state)
{
    struct fixture *f = *state;

    new_job(f, INTERLINK_JOB_AGENT);
    interlink_job_submit(f->job);
    UNTIL(f, f->state.phase == INTERLINK_RUNNING && job_has_file(f, "started"));
    plugin_stop(f->plugin);
    plugin_up(f, "");
    assert_int_equal(plugin_job_count(f->plugin), 1);
    interlink_target_poll_soon(f->target);
    for (int i = 0; i < 20; i++)
        loop_turn(f->loop, 10);
    assert_int_equal(f->state.phase, INTERLINK_RUNNING);
    kill(job_pid(f), SIGKILL);
    UNTIL(f, f->state.phase == INTERLINK_TERMINATED);
    assert_int_equal(f->state.exit_code, 137);
    assert_string_equal(f->reason, "Error");
    interlink_job_cancel(f->job, 0, heard_cancelled, NULL, f);
    UNTIL(f, f->cancelled == 1);
}

static void test_agents_own_exit_code(void **state)
{
    struct fixture *f = *state;

    new_job(f, INTERLINK_JOB_AGENT);
    interlink_job_submit(f->job);
    UNTIL(f, f->submitted == 1 && job_has_file(f, "started"));
    kill(job_pid(f), SIGUSR1);
    UNTIL(f, f->state.phase == INTERLINK_TERMINATED);
    assert_int_equal(f->state.exit_code, 5);
    interlink_job_cancel(f->job, 0, heard_cancelled, NULL, f);
    UNTIL(f, f->cancelled == 1);
}

static void test_tcp_must_be_allowed(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;
    cleanup_free char *dir = xasprintf("%s/other", f->dir);
    struct plugin_options options = { .listen = "127.0.0.1:0", .dir = dir, .backend = "", .program = "" };

    assert_null(plugin_start(f->loop, &options, &err));
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    options.allow_tcp = true;
    struct plugin *plugin = plugin_start(f->loop, &options, &err);
    assert_non_null(plugin);
    plugin_stop(plugin);
    options.backend = "slurry";
    assert_null(plugin_start(f->loop, &options, &err));
    options.backend = "";
    options.dir = "relative";
    assert_null(plugin_start(f->loop, &options, &err));
}

static void on_exit_code(void *arg, int wait_status)
{
    *(int *)arg = wait_status;
}

/* A program that was replaced on disk is started from the descriptor that still holds it. */
static void test_replaced_program(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf binary = BUF_INIT;
    cleanup_free char *path = xasprintf("%s/program", f->dir);
    struct local local = { .program = path };
    struct child child = { 0 };
    int wait_status = -1;

    assert_true(file_read("/bin/true", 8 << 20, &binary, &err));
    assert_true(file_replace(path, binary.p, binary.n, 0700, &err));
    local.program_fd = open(path, O_PATH | O_CLOEXEC);
    assert_string_equal(local_program(&arena, &local), path);
    assert_true(file_replace(path, "#!/no/such\n", 11, 0700, &err));
    const char *argv[] = { local_program(&arena, &local), NULL };
    assert_true(str_starts(argv[0], "/proc/"));
    struct child_options options = { .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1 };
    if (!child_spawn(f->loop, &child, &options, on_exit_code, &wait_status, &err))
        fail_msg("%s", err.message);
    UNTIL(f, wait_status == 0);
    close(local.program_fd);
    local.program_fd = -1; /* a program that was given: always its path */
    assert_string_equal(local_program(&arena, &local), path);
}

static void test_paths_within_a_volume(void **state)
{
    static const char *const good[] = { "a", "a/b", "..a", "a..", ".hidden", "a/.b/c" };
    static const char *const bad[] = { "", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a/../b" };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++)
        assert_true(job_files_path_safe(good[i]));
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(job_files_path_safe(bad[i]));
    cleanup_free char *lengthy = xasprintf("%0256d", 0);
    assert_false(job_files_path_safe(lengthy));
}

static void test_whose_path(void **state)
{
    struct local_purge_item items[] = { { .uid = "abc" }, { .uid = "abcd" } };
    struct local_purge work = { "/d/jobs", items, 2 };
    char text[] = "/a\\040b\\134c\\011";

    (void)state;
    assert_int_equal(purge_owner_of_path(&work, "/d/jobs/abc", 11, "/"), 0);
    assert_int_equal(purge_owner_of_path(&work, "/d/jobs/abcd", 12, "/"), 1);
    assert_int_equal(purge_owner_of_path(&work, "/d/jobs/abc/x", 13, "/"), 0);
    assert_true(purge_owner_of_path(&work, "/d/jobs/abcde", 13, "/") == SIZE_MAX);
    assert_true(purge_owner_of_path(&work, "/d/jobs/", 8, "/") == SIZE_MAX);
    assert_true(purge_owner_of_path(&work, "/d/jobs", 7, "/") == SIZE_MAX);
    assert_true(purge_owner_of_path(&work, "/d/jobsabc", 10, "/") == SIZE_MAX);
    purge_unescape(text);
    assert_string_equal(text, "/a b\\c\t");
    /* Nothing that is no cgroup, and no cgroup file system's root, is taken for one. */
    assert_false(purge_is_cgroup("/tmp"));
    assert_false(purge_is_cgroup("/sys/fs/cgroup"));
    assert_false(purge_is_cgroup("relative"));
    assert_false(purge_is_cgroup(""));
}

/* ---- the agent ---- */

static int agent_main(void)
{
    sigset_t set;
    int number = 0;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (getenv("RELAY") == NULL || getenv("INTERLINK_JOB_DIR") == NULL)
        return 99;
    close(open("started", O_WRONLY | O_CREAT, 0600));
    sigwait(&set, &number);
    return number == SIGUSR1 ? 5 : 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_life),
        TEST(test_refused),
        TEST(test_stop_and_start_again),
        TEST(test_agents_own_exit_code),
        TEST(test_tcp_must_be_allowed),
        TEST(test_replaced_program),
        cmocka_unit_test(test_paths_within_a_volume),
        cmocka_unit_test(test_whose_path),
    };
    struct status err = STATUS_INIT;

    if (argc > 1 && strcmp(argv[1], "agent") == 0)
        return agent_main();
    log_setup(LOG_ERROR, "test");
    shared_loop = loop_new(&err);
    if (shared_loop == NULL || !child_reaper_start(shared_loop, NULL, NULL, &err))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    loop_free(shared_loop);
    return failed;
}
