/* SPDX-License-Identifier: Apache-2.0 */
#include "node/job_size.h"

#include <setjmp.h>
#include <cmocka.h>

#include "interlink/slurm_flags.h"

/* A pod's configuration as kubelet makes it. */
struct request {
    Runtime__V1__PodSandboxConfig config;
    Runtime__V1__LinuxPodSandboxConfig linux_config;
    Runtime__V1__LinuxContainerResources resources, overhead;
    Runtime__V1__PodSandboxConfig__AnnotationsEntry entries[8], *annotations[8];
};

static void request_init(struct request *r)
{
    runtime__v1__pod_sandbox_config__init(&r->config);
    runtime__v1__linux_pod_sandbox_config__init(&r->linux_config);
    runtime__v1__linux_container_resources__init(&r->resources);
    runtime__v1__linux_container_resources__init(&r->overhead);
    r->config.linux = &r->linux_config;
    r->linux_config.resources = &r->resources;
    r->linux_config.overhead = &r->overhead;
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

static void sizes(const struct request *r, const struct pod_size *pod, struct node_size_options defaults, const char *wanted)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    Interlink__State__V1__JobSize *size = job_size_choose(&r->config, pod, &defaults, &err);

    if (size == NULL)
        fail_msg("%s", err.message);
    assert_string_equal(job_size_text(&arena, size), wanted);
    protobuf_c_message_free_unpacked(&size->base, NULL);
}

static const struct node_size_options none = { 0, 0, 0 };
static const struct node_size_options some = { 1500, 2ull << 30, 3600000 };

static void test_cri(void **state)
{
    struct request r;
    Runtime__V1__HugepageLimit page = RUNTIME__V1__HUGEPAGE_LIMIT__INIT, odd = RUNTIME__V1__HUGEPAGE_LIMIT__INIT;
    Runtime__V1__HugepageLimit *pages[] = { &page, &odd };
    (void)state;

    request_init(&r);
    sizes(&r, NULL, none, "");
    r.resources.cpu_shares = 2; /* BestEffort */
    sizes(&r, NULL, none, "");
    sizes(&r, NULL, some, "cpu=1500m (Defaults), memory=2Gi (Defaults), walltime=1h0m0s (Defaults)");
    /* requests of 500m, limits of 1.5 CPU and 192Mi, as a real kubelet sends them */
    r.resources.cpu_shares = 512;
    r.resources.cpu_quota = 150000;
    r.resources.cpu_period = 100000;
    r.resources.memory_limit_in_bytes = 201326592;
    sizes(&r, NULL, some, "cpu=500m..1500m (cri), memory=192Mi (cri), walltime=1h0m0s (Defaults)");
    r.overhead.cpu_shares = 256;
    r.overhead.memory_limit_in_bytes = 64 << 20;
    sizes(&r, NULL, none, "cpu=750m..1750m (cri), memory=256Mi (cri)");
    request_init(&r);
    r.resources.cpu_shares = 102; /* 100m */
    sizes(&r, NULL, none, "cpu=100m (cri)");
    /* 300 CPUs: the shares end at 256 */
    r.resources.cpu_shares = 262144;
    r.resources.cpu_quota = 30000000;
    r.resources.cpu_period = 100000;
    sizes(&r, NULL, none, "cpu=300 (cri)");
    request_init(&r);
    page.page_size = (char *)(uintptr_t)"2MB";
    page.limit = 64 << 20;
    odd.page_size = (char *)(uintptr_t)"";
    odd.limit = 1;
    r.resources.hugepage_limits = pages;
    r.resources.n_hugepage_limits = 2;
    sizes(&r, NULL, none, "hugepages-2Mi=64Mi (cri)");
    r.config.linux = NULL;
    sizes(&r, NULL, none, "");
}

static void test_order(void **state)
{
    struct request r;
    struct pod_amount amounts[] = { { "cpu", 128000, 128000 }, { "nvidia.com/gpu", 8, 8 } };
    struct pod_size pod = { amounts, 2, 90 };
    (void)state;

    request_init(&r);
    r.resources.cpu_shares = 1024;
    r.resources.memory_limit_in_bytes = 1 << 30;
    request_annotate(&r, "interlink.eu/size-cpu", "16");
    request_annotate(&r, "interlink.eu/size-nvidia.com_gpu", "2");
    request_annotate(&r, "interlink.eu/size-memory", "64Gi");
    request_annotate(&r, "interlink.eu/walltime", "2h30m");
    request_annotate(&r, "slurm-job.vk.io/flags", "-c 4 --mem=8G --time=30 -p gpu");
    sizes(&r, &pod, some, "cpu=128 (pod), nvidia.com/gpu=8 (pod), memory=64Gi (interlink.eu/size-memory), walltime=1m30s (pod)");
    sizes(&r, NULL, some, "cpu=16 (interlink.eu/size-cpu), nvidia.com/gpu=2 (interlink.eu/size-nvidia.com_gpu), "
                          "memory=64Gi (interlink.eu/size-memory), walltime=2h30m0s (interlink.eu/walltime)");
    r.config.n_annotations = 0;
    request_annotate(&r, "slurm-job.vk.io/flags", "-c 4 --mem=8G --time=30 -p gpu");
    sizes(&r, NULL, some, "cpu=4 (slurm-job.vk.io/flags), memory=8Gi (slurm-job.vk.io/flags), "
                          "walltime=30m0s (slurm-job.vk.io/flags)");
    pod.count = 0;
    pod.deadline_s = 0;
    r.config.n_annotations = 0;
    sizes(&r, &pod, some, "cpu=1 (cri), memory=1Gi (cri), walltime=1h0m0s (Defaults)");
}

static void refused(const char *key, const char *value, const char *message)
{
    struct request r;
    struct status err = STATUS_INIT;

    request_init(&r);
    request_annotate(&r, key, value);
    if (job_size_choose(&r.config, NULL, &none, &err) != NULL)
        fail_msg("taken: %s: %s", key, value);
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    if (strstr(err.message, message) == NULL)
        fail_msg("wanted \"%s\", found \"%s\"", message, err.message);
}

static void test_bad_annotations(void **state)
{
    static const char *const walltimes[][2] = { { "90", "1m30s" }, { "1h", "1h0m0s" }, { "12:30:00", "12h30m0s" },
                                                { "1-12", "36h0m0s" }, { "0.5s", "1s" } };
    (void)state;

    refused("interlink.eu/size-cpu", "much", "annotation interlink.eu/size-cpu: \"much\" is no quantity");
    refused("interlink.eu/size-cpu", "0", "above zero");
    refused("interlink.eu/size-cpu", "-1", "below zero");
    refused("interlink.eu/size-", "1", "there is no such resource");
    refused("interlink.eu/size-gpu", "1", "there is no such resource");
    refused("interlink.eu/size-_gpu", "1", "there is no such resource");
    refused("interlink.eu/size-a/b_c", "1", "there is no such resource");
    refused("interlink.eu/walltime", "", "wanted a duration");
    refused("interlink.eu/walltime", "0", "wanted a duration");
    refused("interlink.eu/walltime", "-5m", "wanted a duration");
    refused("interlink.eu/walltime", "99999999-0", "wanted a duration");
    for (size_t i = 0; i < COUNT_OF(walltimes); i++) {
        struct request r;
        cleanup_free char *wanted = xasprintf("walltime=%s (interlink.eu/walltime)", walltimes[i][1]);
        request_init(&r);
        request_annotate(&r, "interlink.eu/walltime", walltimes[i][0]);
        sizes(&r, NULL, none, wanted);
    }
}

static void test_flags(void **state)
{
    static const struct {
        const char *text;
        int64_t cpus, memory, seconds;
    } table[] = {
        { "", 0, 0, 0 },
        { "--cpus-per-task=8 --mem=16G --time=1-00:00:00", 8, 16ll << 30, 86400 },
        { "  -c8\t-t 90:30  --mem 100 ", 8, 100ll << 20, 5430 },
        { "-c 1 -c 2", 2, 0, 0 },
        { "-p gpu --gres=gpu:8 --job-name=x -A acct --exclusive --time 30", 0, 0, 1800 },
        { "--mem=512M --mem-per-cpu=2G --memory=9", 0, 512ll << 20, 0 },
        { "--mem=1T --time=UNLIMITED -c many", 0, 1ll << 40, 0 },
        { "--mem=2gb", 0, 2ll << 30, 0 },
        { "--mem=0 --time=0 -c", 0, 0, 0 },
        { "--mem=9999999999999999999999 --time=1:2:3:4 --mem=-1", 0, 0, 0 },
        { "--time= --mem= -t --mem=1K", 0, 1024, 0 },
        { "-- - = --=", 0, 0, 0 },
    };
    cleanup_buf struct buf words = BUF_INIT;
    (void)state;

    for (size_t i = 0; i < COUNT_OF(table); i++) {
        struct slurm_flags f = slurm_flags_read(table[i].text);
        if (f.cpus_per_task != table[i].cpus || f.memory != table[i].memory || f.seconds != table[i].seconds)
            fail_msg("\"%s\": %" PRId64 " cpus, %" PRId64 " bytes, %" PRId64 " s", table[i].text, f.cpus_per_task, f.memory,
                     f.seconds);
    }
    for (int i = 0; i < 1000; i++)
        buf_append_str(&words, "--comment=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    buf_append_str(&words, " -c3");
    assert_int_equal(slurm_flags_read(buf_cstr(&words)).cpus_per_task, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cri),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_bad_annotations),
        cmocka_unit_test(test_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
