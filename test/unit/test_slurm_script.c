/* SPDX-License-Identifier: Apache-2.0 */
/* From a pod and a site's settings to sbatch's words and a script; the scripts are run by a real sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/file.h"
#include "plugin/slurm_command.h"
#include "plugin/slurm_options.h"
#include "plugin/slurm_script.h"
#include "text/yaml.h"

#define UID "6f1a2b3c-0000-4000-8000-000000000001"

static struct arena arena;

static int teardown(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

/* ---- words ---- */

static const char *joined(const struct interlink_strings *words)
{
    cleanup_buf struct buf out = BUF_INIT;

    for (size_t i = 0; i < words->count; i++)
        buf_printf(&out, "%s[%s]", i > 0 ? " " : "", words->items[i]);
    return arena_strdup(&arena, buf_cstr(&out));
}

static void test_split(void **state)
{
    struct interlink_strings words;
    struct status err = STATUS_INIT;
    (void)state;

    assert_true(slurm_words_split(&arena, " a  'b c'\t\"d \\\" \\$e\" f\\ g''\n", &words, &err));
    assert_string_equal(joined(&words), "[a] [b c] [d \" \\$e] [f g]");
    assert_true(slurm_words_split(&arena, "''", &words, &err));
    assert_string_equal(joined(&words), "[]");
    assert_true(slurm_words_split(&arena, "  ", &words, &err));
    assert_int_equal(words.count, 0);
    static const char *const bad[] = { "'", "\"a", "a\\", "a\x01", "a\x7f" };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(slurm_words_split(&arena, bad[i], &words, &err));
}

static void test_options(void **state)
{
    struct interlink_strings options = { NULL, 0 }, allowed = { (const char *[]){ "chdir" }, 1 };
    struct status err = STATUS_INIT;
    (void)state;

    assert_true(slurm_options_read(&arena, "-p gpu -c4 --mem 8G --constraint='a100&nvlink' -N=2 --exclusive --hold --nice=5", SLURM_POD, NULL,
                                   &options, &err));
    assert_string_equal(joined(&options), "[--partition=gpu] [--cpus-per-task=4] [--mem=8G] [--constraint=a100&nvlink] [--nodes=2] "
                                          "[--exclusive] [--hold] [--nice=5]");
    assert_string_equal(slurm_options_get(&options, "mem"), "8G");
    assert_string_equal(slurm_options_get(&options, "exclusive"), "");
    assert_null(slurm_options_get(&options, "me"));
    slurm_options_drop(&options, "mem");
    assert_null(slurm_options_get(&options, "mem"));
    static const char *const refused[] = { "job.sh", "--hold job.sh", "--output=/etc/passwd", "-o/x", "--outp=x", "--uid=0", "--wrap=id", "-J x",
                                           "--array=1-9", "-D /", "--signal=KILL", "-Z", "--", "-", "--=x", "--mem", "--PARTITION=x",
                                           "--hold=1", "--get-user-env", "--export=ALL", "--mem 1 2" };
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        err = (struct status)STATUS_INIT;
        assert_false(slurm_options_read(&arena, refused[i], SLURM_POD, NULL, &options, &err));
        assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    }
    assert_true(slurm_options_read(&arena, "--chdir=/x", SLURM_POD, &allowed, &options, &err));
    assert_true(slurm_options_read(&arena, "--get-user-env --output=x --new-thing 7", SLURM_OPERATOR, NULL, &options, &err));
    assert_string_equal(slurm_options_get(&options, "new-thing"), "7");
}

static void shell_says(const char *word)
{
    cleanup_buf struct buf command = BUF_INIT;
    char out[512] = "";

    buf_append_str(&command, "printf %s ");
    slurm_shell_word(&command, word);
    FILE *shell = popen(buf_cstr(&command), "r");
    assert_non_null(shell);
    size_t n = fread(out, 1, sizeof out - 1, shell);
    assert_int_equal(pclose(shell), 0);
    out[n] = '\0';
    assert_string_equal(out, word);
}

static void test_shell_words(void **state)
{
    (void)state;
    static const char *const words[] = { "plain", "", "a b", "it's", "$(touch /x)`id`", "a\nb\\", "*?[]{}~#&;|<>()!", "-n", "''\"\"" };
    for (size_t i = 0; i < COUNT_OF(words); i++)
        shell_says(words[i]);
}

/* ---- settings ---- */

static bool configure(struct slurm_config *config, const char *yaml, struct status *err)
{
    const struct json *j = yaml_parse(&arena, str_of(yaml), err);

    assert_non_null(j);
    return slurm_config_read(config, j, err);
}

static void test_config(void **state)
{
    struct slurm_config c;
    struct status err = STATUS_INIT;
    (void)state;

    assert_true(configure(&c, "Prefix: [ssh, -q, login1]\nBinDir: /opt/slurm/bin\nCommands: {sacct: ''}\nFlags: --account=a\n"
                              "Flavors: {gpu: '-p gpu --gres=gpu:1'}\nDefaultFlavor: gpu\nGres: {nvidia.com/gpu: 'gpu:a100'}\n"
                              "Notice: 2m\nPollMin: 500ms\nPollMax: 30\nMemoryOverhead: 64Mi\nAllowFlags: chdir\nPosition: false\n",
                          &err));
    assert_true(c.prefix_is_shell);
    assert_string_equal(c.tools[SLURM_SBATCH], "/opt/slurm/bin/sbatch");
    assert_string_equal(c.tools[SLURM_SACCT], "");
    assert_int_equal(c.notice_seconds, 120);
    assert_int_equal(c.poll_min_ms, 500);
    assert_int_equal(c.poll_max_ms, 30000);
    assert_int_equal(c.memory_overhead, 64 << 20);
    const char *const arguments[] = { "--job-name=a b", "x", NULL };
    const char **line = slurm_command_line(&arena, &c, SLURM_SBATCH, arguments);
    assert_string_equal(line[2], "login1");
    assert_string_equal(line[3], "env");
    assert_string_equal(line[6], "/opt/slurm/bin/sbatch");
    assert_string_equal(line[7], "'--job-name=a b'");
    slurm_config_free(&c);
    static const char *const bad[] = { "Prefx: a", "Flags: '--a b c'", "Flags: [x]", "Notice: soon", "Notice: 19h", "PollMin: 0", "Gres: {a/b: 'x y'}",
                                       "Commands: {sbatch: ''}", "Commands: {qsub: x}", "DefaultFlavor: x", "BinDir: bin", "PollMax: 1s\nPollMin: 2s",
                                       "MemoryOverhead: -1", "Flavors: [a]", "Prefix: \"'\"", "[a]" };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        err = (struct status)STATUS_INIT;
        assert_false(configure(&c, bad[i], &err));
        assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
        slurm_config_free(&c);
    }
}

/* The example with every setting uncommented is valid, and names every key. */
static void test_example(void **state)
{
    static const char *const paths[] = { "docs/plugin.example.yaml", "../docs/plugin.example.yaml", "../../docs/plugin.example.yaml" };
    static const char *const keys[] = { "Prefix",  "PrefixShell",   "BinDir", "Commands",       "Flags", "Flavors", "DefaultFlavor", "Gres",
                                        "AllowFlags", "Notice", "MemoryOverhead", "Setup", "PollMin", "PollMax", "Position" };
    cleanup_buf struct buf text = BUF_INIT, yaml = BUF_INIT;
    struct slurm_config c;
    struct status err = STATUS_INIT;
    (void)state;

    for (size_t i = 0; i < COUNT_OF(paths) && text.n == 0; i++)
        (void)file_read(paths[i], 1 << 16, &text, &err);
    assert_true(text.n > 0);
    for (char *line = strtok((char *)(uintptr_t)buf_cstr(&text), "\n"); line != NULL; line = strtok(NULL, "\n"))
        if (!str_starts(line, "##"))
            buf_printf(&yaml, "%s\n", line + (*line == '#'));
    err = (struct status)STATUS_INIT;
    const struct json *j = yaml_parse(&arena, (struct str){ (const char *)yaml.p, yaml.n }, &err);
    assert_string_equal(err.message, "");
    assert_true(slurm_config_read(&c, json_member(j, "Slurm"), &err));
    slurm_config_free(&c);
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        assert_non_null(json_get(j, "Slurm", keys[i]));
    assert_int_equal(json_member(j, "Slurm")->count, COUNT_OF(keys));
}

/* ---- options of a pod ---- */

static struct interlink_container container;
static struct interlink_pair limits[8], requests[8], annotations[8], env[8];

static struct interlink_pod make_pod(void)
{
    struct interlink_pod pod = INTERLINK_POD_INIT;
    static const char *command[] = { "interlink-cri", "agent" };

    container = (struct interlink_container){ .name = "agent", .env_from = "", .command = { command, 2 } };
    container.limits.items = limits;
    container.requests.items = requests;
    container.env.items = env;
    pod.name = "web";
    pod.namespace_ = "default";
    pod.uid = UID;
    pod.annotations.items = annotations;
    pod.containers = &container;
    pod.container_count = 1;
    return pod;
}

static void put(struct interlink_pairs *pairs, const char *name, const char *value)
{
    pairs->items[pairs->count++] = (struct interlink_pair){ name, value };
}

static bool options_of(const char *yaml, const struct interlink_pod *pod, struct interlink_strings *out, struct status *err)
{
    struct slurm_config c;

    assert_true(configure(&c, yaml, err));
    bool ok = slurm_script_options(&arena, &c, pod, "/shared/jobs/50%j", out, err);
    slurm_config_free(&c);
    return ok;
}

static void test_size(void **state)
{
    struct interlink_pod pod = make_pod();
    struct interlink_strings out;
    struct status err = STATUS_INIT;
    (void)state;

    put(&container.limits, "cpu", "2500m");
    put(&container.limits, "memory", "1Gi");
    put(&container.limits, "nvidia.com/gpu", "2");
    put(&container.requests, "cpu", "100m");
    put(&container.requests, "nvidia.com/gpu", "2");
    put(&container.requests, "example.org/fpga", "1");
    pod.active_deadline_seconds = 61;
    assert_true(options_of("MemoryOverhead: 0\nGres: {nvidia.com/gpu: 'gpu:a100', example.org/fpga: fpga}", &pod, &out, &err));
    assert_string_equal(slurm_options_get(&out, "cpus-per-task"), "3");
    assert_string_equal(slurm_options_get(&out, "mem"), "1048576K");
    assert_string_equal(slurm_options_get(&out, "gres"), "gpu:a100:2,fpga:1");
    assert_string_equal(slurm_options_get(&out, "time"), "2");
    assert_string_equal(slurm_options_get(&out, "nodes"), "1");
    assert_string_equal(slurm_options_get(&out, "job-name"), "web." UID);
    assert_string_equal(slurm_options_get(&out, "comment"), "interlink-cri default/web");
    assert_string_equal(slurm_options_get(&out, "output"), "/shared/jobs/50%%j/agent.log");
    assert_string_equal(slurm_options_get(&out, "signal"), "B:USR2@30");
    assert_false(options_of("{}", &pod, &out, &err)); /* no gres for the fpga */
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "example.org/fpga"));
    container.requests.count = 1;
    limits[0].value = "x";
    assert_false(options_of("{}", &pod, &out, &err));
    assert_non_null(strstr(err.message, "cpu"));
}

static void test_annotations(void **state)
{
    struct interlink_pod pod = make_pod();
    struct interlink_strings out;
    struct status err = STATUS_INIT;
    (void)state;

    put(&container.limits, "memory", "1Gi");
    put(&container.limits, "nvidia.com/gpu", "1");
    put(&pod.annotations, "slurm-job.vk.io/flavor", "big");
    put(&pod.annotations, "interlink.eu/partition", "long jobs;rm -rf /");
    put(&pod.annotations, "interlink.eu/nodes", "2");
    put(&pod.annotations, "slurm-job.vk.io/flags", "--mem-per-cpu=2G --gpus=4 --ntasks=8 --partition 'a b'");
    assert_true(options_of("Flags: --account=site --mem-per-cpu=1G\nFlavors: {big: '--qos=big --account=flavor'}\nNotice: 0", &pod, &out, &err));
    assert_string_equal(slurm_options_get(&out, "account"), "flavor");
    assert_string_equal(slurm_options_get(&out, "qos"), "big");
    assert_string_equal(slurm_options_get(&out, "partition"), "a b");
    assert_string_equal(slurm_options_get(&out, "nodes"), "2");
    assert_string_equal(slurm_options_get(&out, "mem-per-cpu"), "2G");
    assert_string_equal(slurm_options_get(&out, "ntasks"), "8");
    assert_null(slurm_options_get(&out, "mem"));
    assert_null(slurm_options_get(&out, "gres"));
    assert_null(slurm_options_get(&out, "ntasks-per-node"));
    assert_null(slurm_options_get(&out, "signal"));
    /* Without it the pod's memory counts more than the site's default. */
    pod.annotations.count = 1;
    assert_true(options_of("Flags: --mem-per-cpu=1G\nFlavors: {big: ''}\nMemoryOverhead: 0", &pod, &out, &err));
    assert_null(slurm_options_get(&out, "mem-per-cpu"));
    assert_string_equal(slurm_options_get(&out, "mem"), "1048576K");
    assert_false(options_of("{}", &pod, &out, &err));
    assert_non_null(strstr(err.message, "slurm-job.vk.io/flavor"));
    annotations[0] = (struct interlink_pair){ "interlink.eu/flags", "--output=/x" };
    assert_false(options_of("{}", &pod, &out, &err));
    assert_non_null(strstr(err.message, "annotation interlink.eu/flags: --output"));
    annotations[0] = (struct interlink_pair){ "interlink.eu/qos", "a\nb" };
    assert_false(options_of("{}", &pod, &out, &err));
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
}

/* ---- scripts ---- */

/* Runs a script with `agent` as the agent's program; returns what "ended" says. */
static const char *run_script(const char *setup, const char *agent, const char *signals)
{
    char dir[] = "/tmp/test-slurm-XXXXXX";
    struct slurm_config c;
    struct status err = STATUS_INIT;
    struct interlink_pod pod = make_pod();
    cleanup_buf struct buf script = BUF_INIT, environment = BUF_INIT, text = BUF_INIT, runner = BUF_INIT;

    assert_non_null(mkdtemp(dir));
    cleanup_free char *program = xasprintf("%s/the agent's.sh", dir);
    cleanup_free char *path = xasprintf("%s/job.sh", dir);
    cleanup_free char *env_path = xasprintf("%s/environment", dir);
    assert_true(file_replace(program, agent, strlen(agent), 0700, &err));
    assert_true(configure(&c, "{}", &err));
    c.setup = setup;
    put(&container.env, "TRICKY", "it's\n$HOME `id`");
    assert_true(slurm_script_environment(&pod, dir, &environment, &err));
    slurm_script_write(&c, &pod, dir, program, &script);
    slurm_config_free(&c);
    assert_true(script.n < 4096);
    assert_null(memmem(script.p, script.n, "TRICKY", 6));
    assert_true(file_replace(path, script.p, script.n, 0700, &err));
    assert_true(file_replace(env_path, environment.p, environment.n, 0600, &err));
    buf_printf(&runner, "cd %s; SLURM_JOB_ID=17 sh ./job.sh >agent.log 2>&1 & p=$!; %s wait $p 2>/dev/null; exit 0", dir, signals);
    int ran = system(buf_cstr(&runner));
    assert_int_equal(ran, 0);
    cleanup_free char *ended = xasprintf("%s/ended", dir), *started = xasprintf("%s/started", dir), *log = xasprintf("%s/agent.log", dir);
    assert_true(file_read(started, 1024, &text, &err));
    assert_int_equal(strncmp(buf_cstr(&text), "17 0 ", 5), 0);
    buf_clear(&text);
    assert_true(file_read(ended, 1024, &text, &err));
    buf_append_byte(&text, '|');
    assert_true(file_read(log, 4096, &text, &err));
    tree_remove(dir, &err);
    return arena_strdup(&arena, buf_cstr(&text));
}

static void test_script_ends(void **state)
{
    int code = 0;
    (void)state;

    const char *text = run_script("export SETUP=done", "#!/bin/sh\necho \"$1 $TRICKY $SETUP\"; exit 7\n", "");
    assert_int_equal(sscanf(text, "%d ", &code), 1);
    assert_int_equal(code, 7);
    assert_non_null(strstr(text, "agent it's\n$HOME `id` done"));
    text = run_script("", "#!/bin/sh\nkill -9 $$\n", "");
    assert_int_equal(strncmp(text, "137 ", 4), 0);
}

#define UNTIL_UP "while ! grep -q up agent.log 2>/dev/null; do sleep 0.02; done; "

static void test_script_signals(void **state)
{
    static const char agent[] = "#!/bin/sh\ntrap 'echo TERM; n=1$n' TERM\necho up\n"
                                "while [ \"$n\" != \"$ENOUGH\" ]; do sleep 0.02; done\nexit 3\n";
    long long at = 0, noticed = -1, termed = -1;
    int code = 0;
    (void)state;

    /* Notice: passed on as TERM. */
    const char *text = run_script("ENOUGH=1; export ENOUGH", agent, UNTIL_UP "kill -USR2 $p;");
    assert_int_equal(sscanf(text, "%d %lld %lld %lld", &code, &at, &noticed, &termed), 4);
    assert_true(code == 3 && noticed > 0 && termed == 0);
    assert_non_null(strstr(text, "TERM"));
    /* At once: twice. */
    text = run_script("ENOUGH=11; export ENOUGH", agent, UNTIL_UP "kill -USR1 $p;");
    assert_int_equal(sscanf(text, "%d", &code), 1);
    assert_int_equal(code, 3);
    /* Slurm's own: passed on, and noted as such. */
    text = run_script("ENOUGH=1; export ENOUGH", agent, UNTIL_UP "kill -TERM $p;");
    assert_int_equal(sscanf(text, "%d %lld %lld %lld", &code, &at, &noticed, &termed), 4);
    assert_true(code == 3 && noticed == 0 && termed > 0);
}

static void test_environment_names(void **state)
{
    struct interlink_pod pod = make_pod();
    struct status err = STATUS_INIT;
    cleanup_buf struct buf out = BUF_INIT;
    (void)state;

    put(&container.env, "a.b", "x");
    assert_false(slurm_script_environment(&pod, "/d", &out, &err));
    assert_non_null(strstr(err.message, "a.b"));
    env[0].name = "A; rm -rf /";
    assert_false(slurm_script_environment(&pod, "/d", &out, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),       cmocka_unit_test(test_options),     cmocka_unit_test(test_shell_words),
        cmocka_unit_test(test_config), cmocka_unit_test(test_example),     cmocka_unit_test(test_size),        cmocka_unit_test(test_annotations),
        cmocka_unit_test(test_script_ends), cmocka_unit_test(test_script_signals), cmocka_unit_test(test_environment_names),
    };

    return cmocka_run_group_tests(tests, NULL, teardown);
}
