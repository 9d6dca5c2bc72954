/* SPDX-License-Identifier: Apache-2.0 */
#include "node/pre_exec.h"

#include <fcntl.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/file.h"

/* ---- flags ---- */

struct request {
    Runtime__V1__PodSandboxConfig config;
    Runtime__V1__PodSandboxConfig__AnnotationsEntry entries[8], *annotations[8];
};

static void request_init(struct request *r)
{
    runtime__v1__pod_sandbox_config__init(&r->config);
    r->config.annotations = r->annotations;
}

static void request_annotate(struct request *r, const char *key, const char *value)
{
    size_t n = r->config.n_annotations++;

    runtime__v1__pod_sandbox_config__annotations_entry__init(&r->entries[n]);
    r->entries[n].key = (char *)(uintptr_t)key;
    r->entries[n].value = (char *)(uintptr_t)value;
    r->annotations[n] = &r->entries[n];
}

static void flags_are(const struct request *r, const char *resource, const char *flags, const char *wanted)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    Interlink__State__V1__JobSize size = INTERLINK__STATE__V1__JOB_SIZE__INIT;
    Interlink__State__V1__JobSize__Amount amount = INTERLINK__STATE__V1__JOB_SIZE__AMOUNT__INIT, *amounts[] = { &amount };

    amount.resource = (char *)(uintptr_t)resource;
    amount.limit = (char *)(uintptr_t)"2";
    size.amounts = amounts;
    size.n_amounts = 1;
    assert_string_equal(pre_exec_flags(&arena, "x", &r->config, &size, flags), wanted);
}

static void test_flags(void **state)
{
    struct request r;
    (void)state;

    request_init(&r);
    flags_are(&r, "cpu", "", "");
    flags_are(&r, "nvidia.com/gpu", "", "--gres=gpu:2");
    flags_are(&r, "amd.com/gpu", "--time=5", "--time=5 --gres=gpu:2");
    flags_are(&r, "example.org/fpga", "", ""); /* nothing that Slurm would know */
    flags_are(&r, "nvidia.com/gpu", "--gres=gpu:a100:1", "--gres=gpu:a100:1");
    flags_are(&r, "nvidia.com/gpu", "--gpus-per-node=1", "--gpus-per-node=1");
    request_annotate(&r, "interlink.eu/partition", "gpu");
    request_annotate(&r, "interlink.eu/constraint", "a100&nvlink");
    request_annotate(&r, "interlink.eu/account", "no good"); /* would break the line of the script */
    request_annotate(&r, "interlink.eu/qos", "x\nrm -rf /");
    request_annotate(&r, "interlink.eu/flags", "--exclusive '--comment=two words'");
    flags_are(&r, "cpu", "-n 1", "-n 1 --partition=gpu --constraint=a100&nvlink --exclusive");
    request_init(&r);
    request_annotate(&r, "interlink.eu/gres", "gpu:h100:4");
    flags_are(&r, "nvidia.com/gpu", "", "--gres=gpu:h100:4");
    request_init(&r);
    request_annotate(&r, "slurm-job.vk.io/flavor", "gpu-nvidia");
    flags_are(&r, "nvidia.com/gpu", "", "");
}

static const char *limit_of(struct arena *arena, const struct request *r, const char *memory)
{
    struct interlink_pair items[2] = { { "memory", memory } };
    struct interlink_pairs limits = { items, *memory != '\0' };

    pre_exec_limits(arena, &r->config, &limits);
    return arena_strdup(arena, interlink_pair_get(&limits, "memory"));
}

static void test_limits(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct request r;
    (void)state;

    request_init(&r);
    assert_string_equal(limit_of(&arena, &r, "64Mi"), "100663296");
    assert_string_equal(limit_of(&arena, &r, ""), "1107296256");
    assert_string_equal(limit_of(&arena, &r, "9223372036854775807"), "9223372036854775807");
    request_annotate(&r, "slurm-job.vk.io/flavor", "small");
    assert_string_equal(limit_of(&arena, &r, ""), "");
    assert_string_equal(limit_of(&arena, &r, "1Gi"), "1107296256");
}

/* ---- the script ---- */

/* A plugin's folder of a pod, and a program that plays the agent. */
struct folder {
    char path[64];
};

static void put(const struct folder *f, const char *name, mode_t mode, const char *text)
{
    cleanup_free char *path = xasprintf("%s/%s", f->path, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    fchmod(fd, mode);
    close(fd);
}

static char *get(const struct folder *f, const char *name)
{
    cleanup_free char *path = xasprintf("%s/%s", f->path, name);
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;

    return file_read(path, 1 << 20, &text, &err) ? xstrdup(buf_cstr(&text)) : xstrdup("");
}

static int folder_set_up(void **state)
{
    struct folder *f = xcalloc(1, sizeof *f);

    snprintf(f->path, sizeof f->path, "/tmp/test-pre-exec-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    put(f, "job.sh", 0700, "");
    put(f, "agent_envfile.properties", 0644, "INTERLINK_TOKEN=sec'r'et\nINTERLINK_SANDBOX='a b'\n");
    *state = f;
    return 0;
}

static int folder_tear_down(void **state)
{
    struct folder *f = *state;
    cleanup_free char *command = xasprintf("rm -rf '%s'", f->path);

    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* Runs it as the plugin's batch script, whose last line would run the container; its exit code. */
static int run(const struct folder *f, const char *program, const char *before, const char *shell)
{
    cleanup_buf struct buf script = BUF_INIT;
    cleanup_free char *path = xasprintf("%s/%s", f->path, program);
    cleanup_free char *command = xasprintf("cd / && TMPDIR='%s/tmp' SLURM_JOB_ID=7 %s '%s/job.slurm' >'%s/job.out' 2>&1", f->path, shell,
                                           f->path, f->path);

    pre_exec_write(&script, "agent", path, before);
    buf_append_str(&script, "\necho the container starts\nexit 99\n");
    put(f, "job.slurm", 0700, buf_cstr(&script));
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static const char agent[] = "#!/bin/sh\n"
                            "echo \"$1 $INTERLINK_SANDBOX ${INTERLINK_TOKEN:-none} $(cat \"$INTERLINK_JOB_DIR/volumes/interlink/token\")\"\n"
                            "stat -c %a \"$INTERLINK_JOB_DIR\" \"$INTERLINK_JOB_DIR/volumes/interlink/token\"\n"
                            "case $INTERLINK_JOB_DIR in */tmp/interlink-cri.*) ;; *) echo elsewhere;; esac\n"
                            "exit 7\n";

static void test_the_agent_runs_in_place_of_the_container(void **state)
{
    static const char *const shells[] = { "bash", "sh" };
    const struct folder *f = *state;
    struct stat st;

    put(f, "agent.sh", 0755, agent);
    cleanup_free char *tmp = xasprintf("%s/tmp", f->path), *env = xasprintf("%s/agent_envfile.properties", f->path);
    assert_int_equal(mkdir(tmp, 0700), 0);
    for (size_t i = 0; i < COUNT_OF(shells); i++) {
        put(f, "run-agent.out", 0600, "");
        assert_int_equal(run(f, "agent.sh", "echo first", shells[i]), 7);
        cleanup_free char *out = get(f, "run-agent.out"), *code = get(f, "run-agent.status"), *job = get(f, "job.out");
        assert_string_equal(out, "agent a b none secret\n700\n600\n");
        assert_string_equal(code, "7\n");
        assert_non_null(strstr(job, "first\n"));
        assert_null(strstr(job, "the container starts"));
        assert_null(strstr(job, "secret"));
        assert_int_equal(stat(env, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_int_equal(rmdir(tmp), 0); /* nothing was left in it */
        assert_int_equal(mkdir(tmp, 0700), 0);
    }
}

static void test_what_goes_wrong_is_said(void **state)
{
    const struct folder *f = *state;

    assert_int_equal(run(f, "nowhere", "", "bash"), 127);
    cleanup_free char *out = get(f, "run-agent.out"), *code = get(f, "run-agent.status");
    assert_non_null(strstr(out, "nowhere is not there on "));
    assert_string_equal(code, "127\n");
    cleanup_free char *env = xasprintf("%s/agent_envfile.properties", f->path);
    unlink(env);
    put(f, "agent.sh", 0755, agent);
    assert_int_equal(run(f, "agent.sh", "", "bash"), 125);
    cleanup_free char *again = get(f, "run-agent.out");
    assert_non_null(strstr(again, "agent_envfile.properties cannot be read"));
}

/* A signal for the script reaches the agent, and the agent's own exit code counts, also when it ends while the signal is handled. */
static void test_signals(void **state)
{
    static const char *const shells[] = { "bash", "sh" };
    static const char *const signals[] = { "TERM", "USR1", "USR2" };
    const struct folder *f = *state;

    put(f, "agent.sh", 0755, "#!/bin/sh\ntrap 'exit 5' TERM\necho >ready\nwhile :; do sleep 0.02; done\n");
    for (size_t i = 0; i < COUNT_OF(shells) * COUNT_OF(signals); i++) {
        cleanup_free char *before = xasprintf("cd '%s'; rm -f ready; ( i=0; until [ -e ready ] || [ $i = 500 ]; do sleep 0.02; i=$((i+1)); "
                                              "done; kill -s %s $$ ) &", f->path, signals[i % COUNT_OF(signals)]);
        assert_int_equal(run(f, "agent.sh", before, shells[i / COUNT_OF(signals)]), 5);
        cleanup_free char *code = get(f, "run-agent.status");
        assert_string_equal(code, "5\n");
    }
}

/* What a job that was killed left behind goes with the next one; what another one uses stays. */
static void test_what_was_left_is_removed(void **state)
{
    const struct folder *f = *state;
    cleanup_free char *tmp = xasprintf("%s/tmp", f->path);
    cleanup_free char *left = xasprintf("%s/interlink-cri.%u.left", tmp, (unsigned)geteuid());
    cleanup_free char *used = xasprintf("%s/interlink-cri.%u.used", tmp, (unsigned)geteuid());
    cleanup_free char *command = xasprintf("mkdir -p '%s' '%s' && touch '%s/lock' '%s/lock'", left, used, left, used);

    put(f, "agent.sh", 0755, "#!/bin/sh\ni=0; while [ -e \"${INTERLINK_JOB_DIR%.*}.left\" ] && [ $i -lt 500 ]; do sleep 0.02; i=$((i+1)); done\n");
    assert_int_equal(system(command), 0);
    cleanup_free char *lock = xasprintf("exec 8>'%s/lock'; flock 8; ", used);
    cleanup_free char *before = xasprintf("(%s sleep 2) & sleep 0.3", lock); /* somebody else's */
    assert_int_equal(run(f, "agent.sh", before, "bash"), 0);
    assert_int_not_equal(access(left, F_OK), 0);
    assert_int_equal(access(used, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_limits),
        cmocka_unit_test_setup_teardown(test_the_agent_runs_in_place_of_the_container, folder_set_up, folder_tear_down),
        cmocka_unit_test_setup_teardown(test_what_goes_wrong_is_said, folder_set_up, folder_tear_down),
        cmocka_unit_test_setup_teardown(test_signals, folder_set_up, folder_tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_left_is_removed, folder_set_up, folder_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
