/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_site.h"

#include "io/file.h"

#include <setjmp.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    Runtime__V1__ContainerConfig config;
    Runtime__V1__PodSandboxConfig sandbox;
    Runtime__V1__PodSandboxConfig__AnnotationsEntry entry;
    Runtime__V1__PodSandboxConfig__AnnotationsEntry *entries[1];
    struct arena arena;
    struct buf note;
    struct status err;
} w;

static int set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof w);
    runtime__v1__container_config__init(&w.config);
    runtime__v1__pod_sandbox_config__init(&w.sandbox);
    runtime__v1__pod_sandbox_config__annotations_entry__init(&w.entry);
    w.entries[0] = &w.entry;
    w.sandbox.annotations = w.entries;
    unsetenv("INTERLINK_GPUS");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_free(&w.arena);
    buf_free(&w.note);
    return 0;
}

static void annotate(const char *key, const char *value)
{
    w.entry.key = (char *)(uintptr_t)key;
    w.entry.value = (char *)(uintptr_t)value;
    w.sandbox.n_annotations = 1;
}

static bool add(char *const *environment, const char *dev)
{
    const struct agent_site_input in = { .sandbox = &w.sandbox, .environment = environment, .dev = dev, .with_devices = true };

    w.err = (struct status)STATUS_INIT;
    return agent_site_add(&in, &w.config, &w.arena, &w.note, &w.err);
}

static const char *value_of(const char *name)
{
    for (size_t i = 0; i < w.config.n_envs; i++)
        if (strcmp(w.config.envs[i]->key, name) == 0)
            return (const char *)w.config.envs[i]->value.data;
    return NULL;
}

static void test_nothing_is_asked(void **state)
{
    char *environment[] = { (char *)(uintptr_t)"SLURM_JOB_ID=7", (char *)(uintptr_t)"CUDA_VISIBLE_DEVICES=0", NULL };

    (void)state;
    assert_true(add(environment, "/dev"));
    annotate(AGENT_SITE_SLURM, "false");
    assert_true(add(environment, "/dev"));
    assert_int_equal(w.config.n_envs + w.config.n_mounts + w.config.n_devices, 0);
    annotate(AGENT_SITE_SLURM, "yes");
    assert_false(add(environment, "/dev"));
    assert_int_equal(w.err.code, STATUS_INVALID_ARGUMENT);
    annotate(AGENT_SITE_GPUS, "voodoo");
    assert_false(add(environment, "/dev"));
    assert_non_null(strstr(w.err.message, "\"voodoo\" is none of nvidia, amd, intel"));
}

static void test_slurm_inside(void **state)
{
    char *environment[] = { (char *)(uintptr_t)"SLURM_JOB_ID=7", (char *)(uintptr_t)"SLURM_NNODES=2", (char *)(uintptr_t)"SECRET=x",
                            (char *)(uintptr_t)"INTERLINK_SLURM_PATHS=/usr:/etc", NULL };
    char *missing[] = { (char *)(uintptr_t)"SLURM_JOB_ID=7", (char *)(uintptr_t)"INTERLINK_SLURM_PATHS=/no/such/place", NULL };
    char *usual[] = { (char *)(uintptr_t)"SLURM_JOB_ID=7", (char *)(uintptr_t)"PATH=/no:/bin", NULL };
    char *none[] = { NULL };
    Runtime__V1__KeyValue own = RUNTIME__V1__KEY_VALUE__INIT, *envs[] = { &own };

    (void)state;
    own.key = (char *)(uintptr_t)"SLURM_NNODES";
    own.value = (ProtobufCBinaryData){ 1, (uint8_t *)(uintptr_t)"9" };
    w.config.envs = envs;
    w.config.n_envs = 1;
    annotate(AGENT_SITE_SLURM, "true");
    assert_true(add(environment, "/dev"));
    assert_string_equal(value_of("SLURM_JOB_ID"), "7");
    assert_string_equal(value_of("SLURM_NNODES"), "9");
    assert_null(value_of("SECRET"));
    assert_int_equal(w.config.n_mounts, 2);
    assert_string_equal(w.config.mounts[1]->container_path, "/etc");
    assert_true(w.config.mounts[1]->readonly);
    assert_false(add(missing, "/dev"));
    assert_int_equal(w.err.code, STATUS_FAILED_PRECONDITION);
    assert_true(add(usual, "/dev"));
    assert_false(add(none, "/dev"));
    assert_non_null(strstr(w.err.message, "no job of Slurm's"));
}

static void test_gpus(void **state)
{
    char *environment[] = { (char *)(uintptr_t)"CUDA_VISIBLE_DEVICES=1,2", (char *)(uintptr_t)"ROCR_VISIBLE_DEVICES=0", NULL };
    char dev[] = "/tmp/test_agent_site.XXXXXX";
    struct status err;

    (void)state;
    assert_non_null(mkdtemp(dev));
    annotate(AGENT_SITE_GPUS, "nvidia");
    assert_true(add(environment, dev));
    assert_non_null(strstr(buf_cstr(&w.note), "no device node of theirs"));
    assert_string_equal(value_of("CUDA_VISIBLE_DEVICES"), "1,2");
    assert_null(value_of("SLURM_JOB_GPUS"));
    buf_clear(&w.note);
    cleanup_free char *node = xasprintf("%s/nvidia0", dev), *caps = xasprintf("%s/nvidia-caps", dev), *cap = xasprintf("%s/nvidia-cap1", caps);
    cleanup_free char *file = xasprintf("%s/nvidia-file", dev), *kfd = xasprintf("%s/kfd", dev), *dri = xasprintf("%s/dri", dev);
    cleanup_free char *card = xasprintf("%s/renderD128", dri);
    bool may = mknod(node, S_IFCHR | 0600, makedev(1, 3)) == 0; /* as root only */
    if (may && (mkdir(caps, 0700) < 0 || mknod(cap, S_IFCHR | 0600, makedev(1, 3)) < 0 || mknod(kfd, S_IFCHR | 0600, makedev(1, 3)) < 0 ||
                mkdir(dri, 0700) < 0 || mknod(card, S_IFCHR | 0600, makedev(1, 3)) < 0 || !file_replace(file, "", 0, 0600, &err)))
        abort();
    if (may) {
        assert_true(add(environment, dev));
        assert_int_equal(w.config.n_devices, 2);
        assert_int_equal(w.note.n, 0);
        annotate("other", "");
        setenv("INTERLINK_GPUS", "amd", 1); /* what the node says of the job's size */
        assert_true(add(environment, dev));
        assert_int_equal(w.config.n_devices, 4);
        for (size_t i = 0; i < w.config.n_devices; i++)
            assert_true(str_starts(w.config.devices[i]->container_path, "/dev/"));
        assert_true(add(environment, dev)); /* none twice */
        assert_int_equal(w.config.n_devices, 4);
        unsetenv("INTERLINK_GPUS");
    }
    assert_true(tree_remove(dev, &err));
    if (!may)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_is_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slurm_inside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gpus, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
