/* SPDX-License-Identifier: Apache-2.0 */
/* Limits as they are written, in folders that only look like cgroups, and the program that restricts devices on v2. */
#include "agent/cgroup.h"
#include "io/file.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <setjmp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static int set_up(void **state)
{
    struct status err;
    cleanup_free char *v1 = NULL, *v2 = NULL;

    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_cgroup.XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    v1 = xasprintf("%s/v1/pod/box", dir);
    v2 = xasprintf("%s/v2/pod/box", dir);
    return dir_make(v1, 0755, &err) && dir_make(v2, 0755, &err) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct status err;

    (void)state;
    return tree_remove(dir, &err) ? 0 : -1;
}

static char *path_of(const char *version, const char *name)
{
    return xasprintf("%s/%s/pod/box/%s", dir, version, name);
}

static void put(const char *version, const char *name, const char *text)
{
    struct status err;
    cleanup_free char *path = path_of(version, name);

    assert_true(file_replace(path, text, strlen(text), 0644, &err));
}

static void assert_content(const char *version, const char *name, const char *text)
{
    struct status err;
    struct buf b = BUF_INIT;
    cleanup_free char *path = path_of(version, name);

    assert_true(file_read(path, 4096, &b, &err));
    assert_string_equal(buf_cstr(&b), text);
    buf_free(&b);
}

static struct cgroups cgroups(const char *version, unsigned controllers)
{
    struct cgroups c = { .mode = strcmp(version, "v2") == 0 ? CGROUP_V2 : CGROUP_V1, .count = 1 };

    c.pod = xstrdup("/pod");
    c.list_path = xasprintf("%s/cgroups", dir);
    c.hierarchies[0] = (struct cgroup_hierarchy){ .mount = xasprintf("%s/%s", dir, version), .own = xstrdup("/"),
                                                  .controllers = controllers, .unified = c.mode == CGROUP_V2, .used = true };
    return c;
}

static void cgroups_free(struct cgroups *c)
{
    free(c->pod);
    free(c->list_path);
    free(c->hierarchies[0].mount);
    free(c->hierarchies[0].own);
}

static Runtime__V1__LinuxContainerResources resources;
static Runtime__V1__HugepageLimit huge, *huges[] = { &huge };
static Runtime__V1__LinuxContainerResources__UnifiedEntry entry[2], *entries[] = { &entry[0], &entry[1] };

static void set_resources(void)
{
    runtime__v1__linux_container_resources__init(&resources);
    runtime__v1__hugepage_limit__init(&huge);
    runtime__v1__linux_container_resources__unified_entry__init(&entry[0]);
    runtime__v1__linux_container_resources__unified_entry__init(&entry[1]);
    resources.cpu_shares = 1024;
    resources.cpu_quota = 50000;
    resources.cpu_period = 100000;
    resources.memory_limit_in_bytes = 1 << 26;
    resources.memory_swap_limit_in_bytes = 3 << 25;
    huge.page_size = (char *)(uintptr_t) "2MB";
    huge.limit = 4 << 20;
    resources.hugepage_limits = huges;
    resources.n_hugepage_limits = 1;
}

static void test_v1(void **state)
{
    static const char *const files[] = { "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.shares",
                                         "cpu.cfs_period_us", "cpu.cfs_quota_us", "hugetlb.2MB.limit_in_bytes" };
    struct cgroups c = cgroups("v1", CGROUP_MEMORY | CGROUP_CPU | CGROUP_HUGETLB);
    struct status err = STATUS_INIT;
    struct buf note = BUF_INIT;

    (void)state;
    set_resources();
    for (size_t i = 0; i < COUNT_OF(files); i++)
        put("v1", files[i], "");
    resources.unified = entries;
    resources.n_unified = 1;
    entry[0].key = (char *)(uintptr_t) "memory.low";
    entry[0].value = (char *)(uintptr_t) "1";
    assert_true(cgroup_create(&c, "box", &resources, NULL, 0, &note, &err));
    assert_content("v1", "memory.limit_in_bytes", "67108864");
    assert_content("v1", "memory.memsw.limit_in_bytes", "100663296");
    assert_content("v1", "cpu.shares", "1024");
    assert_content("v1", "cpu.cfs_period_us", "100000");
    assert_content("v1", "cpu.cfs_quota_us", "50000");
    assert_content("v1", "hugetlb.2MB.limit_in_bytes", "4194304");
    assert_string_equal(buf_cstr(&note), "unified[memory.low]");
    put("v1", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n");
    assert_false(cgroup_oom_killed(&c, "box"));
    put("v1", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
    assert_true(cgroup_oom_killed(&c, "box"));
    assert_false(cgroup_oom_killed(&c, "other"));
    buf_free(&note);
    cgroups_free(&c);
}

static void test_v2(void **state)
{
    static const char *const files[] = { "memory.max", "memory.swap.max", "cpu.weight", "cpu.max", "memory.oom.group" };
    struct cgroups c = cgroups("v2", CGROUP_MEMORY | CGROUP_CPU | CGROUP_HUGETLB | CGROUP_CPUSET);
    struct status err = STATUS_INIT;
    struct buf note = BUF_INIT;

    (void)state;
    set_resources();
    for (size_t i = 0; i < COUNT_OF(files); i++)
        put("v2", files[i], "");
    resources.unified = entries;
    resources.n_unified = 2;
    entry[0].key = (char *)(uintptr_t) "memory.oom.group";
    entry[0].value = (char *)(uintptr_t) "1";
    entry[1].key = (char *)(uintptr_t) "../../v1/pod/box/cpu.shares";
    entry[1].value = (char *)(uintptr_t) "7";
    resources.cpuset_cpus = (char *)(uintptr_t) "0-1";
    assert_true(cgroup_create(&c, "box", &resources, NULL, 0, &note, &err));
    assert_content("v2", "memory.max", "67108864");
    assert_content("v2", "memory.swap.max", "33554432");
    assert_content("v2", "cpu.weight", "39");
    assert_content("v2", "cpu.max", "50000 100000");
    assert_content("v2", "memory.oom.group", "1");
    assert_string_equal(buf_cstr(&note), "cpuset_cpus, hugepage_limits, unified[../../v1/pod/box/cpu.shares]");
    put("v2", "memory.events", "low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\n");
    assert_true(cgroup_oom_killed(&c, "box"));
    /* Every folder made in a pod folder that is not ours is announced first. */
    struct buf list = BUF_INIT;
    assert_true(file_read(c.list_path, 4096, &list, &err));
    assert_non_null(strstr(buf_cstr(&list), "/v2/pod/box\n"));
    buf_free(&list);
    buf_free(&note);
    cgroups_free(&c);
}

/* ---- the device program, by running it ---- */

static int run(const struct bpf_insn *program, size_t n, uint32_t access, uint32_t type, uint32_t major, uint32_t minor)
{
    uint32_t context[3] = { access << 16 | type, major, minor };
    uint64_t r[11] = { 0 };

    for (size_t pc = 0; pc < n; pc++) {
        const struct bpf_insn *i = &program[pc];
        switch (i->code) {
        case BPF_LDX | BPF_W | BPF_MEM:
            r[i->dst_reg] = context[i->off / 4];
            break;
        case BPF_ALU | BPF_MOV | BPF_X:
            r[i->dst_reg] = (uint32_t)r[i->src_reg];
            break;
        case BPF_ALU | BPF_AND | BPF_K:
            r[i->dst_reg] &= (uint32_t)i->imm;
            break;
        case BPF_ALU | BPF_RSH | BPF_K:
            r[i->dst_reg] = (uint32_t)r[i->dst_reg] >> i->imm;
            break;
        case BPF_ALU64 | BPF_MOV | BPF_K:
            r[i->dst_reg] = (uint64_t)i->imm;
            break;
        case BPF_JMP | BPF_JNE | BPF_K:
            pc += r[i->dst_reg] != (uint64_t)i->imm ? (size_t)i->off : 0;
            break;
        case BPF_JMP | BPF_JSET | BPF_K:
            pc += (r[i->dst_reg] & (uint64_t)i->imm) != 0 ? (size_t)i->off : 0;
            break;
        case BPF_JMP | BPF_EXIT:
            return (int)r[0];
        default:
            fail_msg("unknown instruction %#x", i->code);
        }
    }
    fail_msg("the program ran off its end");
    return -1;
}

/* The files only look like a cgroup's: a write does not cut them, so that old and new values are of one length. */
static void test_update_v1(void **state)
{
    static const char *const files[] = { "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.shares",
                                         "cpu.cfs_period_us", "cpu.cfs_quota_us", "hugetlb.2MB.limit_in_bytes" };
    static const char *const old[] = { "11111111", "222222222", "3333", "444444", "55555", "6666666" };
    static const char *const new[] = { "67108864", "100663296", "1024", "100000", "50000", "4194304" };
    struct cgroups c = cgroups("v1", CGROUP_MEMORY | CGROUP_CPU | CGROUP_HUGETLB);
    struct status err = STATUS_INIT;

    (void)state;
    set_resources();
    for (size_t i = 0; i < COUNT_OF(files); i++)
        put("v1", files[i], old[i]);
    assert_true(cgroup_update(&c, "box", &resources, &err));
    for (size_t i = 0; i < COUNT_OF(files); i++)
        assert_content("v1", files[i], new[i]);
    /* What is not named stays. */
    runtime__v1__linux_container_resources__init(&resources);
    resources.cpu_shares = 2048;
    assert_true(cgroup_update(&c, "box", &resources, &err));
    assert_content("v1", "cpu.shares", "2048");
    assert_content("v1", "cpu.cfs_quota_us", "50000");
    /* One that fails takes all back. */
    set_resources();
    for (size_t i = 0; i < COUNT_OF(files); i++)
        put("v1", files[i], old[i]);
    cleanup_free char *path = path_of("v1", "hugetlb.2MB.limit_in_bytes");
    assert_int_equal(unlink(path), 0);
    assert_false(cgroup_update(&c, "box", &resources, &err));
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    assert_string_equal(err.message, "hugepage_limits: this machine's cgroups have no hugetlb.2MB.limit_in_bytes");
    for (size_t i = 0; i + 1 < COUNT_OF(files); i++)
        assert_content("v1", files[i], old[i]);
    cgroups_free(&c);
}

static void refused(const struct cgroups *c, enum status_code code, const char *message)
{
    struct status err = STATUS_INIT;

    assert_false(cgroup_update(c, "box", &resources, &err));
    assert_int_equal(err.code, code);
    assert_memory_equal(err.message, message, strlen(message));
}

static void test_update_refusals(void **state)
{
    struct cgroups c = cgroups("v1", CGROUP_CPU | CGROUP_PIDS), none = { .mode = CGROUP_NONE, .reason = "why" };

    (void)state;
    runtime__v1__linux_container_resources__init(&resources);
    resources.memory_limit_in_bytes = 1 << 26;
    refused(&c, STATUS_FAILED_PRECONDITION, "memory_limit_in_bytes: there is no cgroup with the memory controller");
    refused(&none, STATUS_FAILED_PRECONDITION, "memory_limit_in_bytes: no limits can be set here: why");
    runtime__v1__linux_container_resources__init(&resources);
    resources.unified = entries;
    resources.n_unified = 1;
    entry[0].key = (char *)(uintptr_t) "memory.high";
    entry[0].value = (char *)(uintptr_t) "1";
    refused(&c, STATUS_FAILED_PRECONDITION, "unified[memory.high]: this machine's cgroups are v1");
    entry[0].key = (char *)(uintptr_t) "cgroup.procs";
    refused(&c, STATUS_INVALID_ARGUMENT, "unified[cgroup.procs]: ");
    entry[0].key = (char *)(uintptr_t) "../x";
    refused(&c, STATUS_INVALID_ARGUMENT, "unified[../x]: ");
    runtime__v1__linux_container_resources__init(&resources);
    resources.hugepage_limits = huges;
    resources.n_hugepage_limits = 1;
    huge.page_size = (char *)(uintptr_t) "../2MB";
    refused(&c, STATUS_INVALID_ARGUMENT, "hugepage_limits: \"../2MB\"");
    /* Nothing at all is done in peace, wherever. */
    runtime__v1__linux_container_resources__init(&resources);
    struct status err = STATUS_INIT;
    assert_true(cgroup_update(&none, "box", &resources, &err));
    /* So are huge pages that nobody asks for; kubelet names them all. */
    huge.page_size = (char *)(uintptr_t) "2MB";
    huge.limit = 0;
    resources.hugepage_limits = huges;
    resources.n_hugepage_limits = 1;
    assert_true(cgroup_update(&none, "box", &resources, &err));
    huge.limit = 1 << 21;
    refused(&c, STATUS_FAILED_PRECONDITION, "hugepage_limits: there is no cgroup with the hugetlb controller");
    runtime__v1__linux_container_resources__init(&resources);
    /* The one limit that has one name everywhere. */
    resources.unified = entries;
    resources.n_unified = 1;
    entry[0].key = (char *)(uintptr_t) "pids.max";
    entry[0].value = (char *)(uintptr_t) "77";
    put("v1", "pids.max", "11");
    assert_true(cgroup_update(&c, "box", &resources, &err));
    assert_content("v1", "pids.max", "77");
    cgroups_free(&c);
}

static void test_update_v2(void **state)
{
    struct cgroups c = cgroups("v2", CGROUP_MEMORY | CGROUP_CPU | CGROUP_CPUSET);

    (void)state;
    struct status err = STATUS_INIT;
    set_resources();
    resources.n_hugepage_limits = 0;
    resources.cpuset_cpus = (char *)(uintptr_t) "0-1";
    put("v2", "memory.max", "11111111");
    put("v2", "memory.swap.max", "22222222");
    put("v2", "memory.current", "100000000");
    put("v2", "memory.stat", "anon 1\ninactive_file 30000000\nactive_file 10000000\n");
    put("v2", "cpu.weight", "99");
    put("v2", "cpu.max", "20000 200000");
    put("v2", "cpuset.cpus", "3-4");
    assert_true(cgroup_update(&c, "box", &resources, &err));
    assert_content("v2", "memory.max", "67108864");
    assert_content("v2", "memory.swap.max", "33554432");
    assert_content("v2", "cpu.weight", "39");
    assert_content("v2", "cpu.max", "50000 100000");
    assert_content("v2", "cpuset.cpus", "0-1");
    /* Swap alone; quota or period alone. */
    runtime__v1__linux_container_resources__init(&resources);
    resources.memory_swap_limit_in_bytes = 67108864 + 44444444;
    resources.cpu_quota = 70000;
    assert_true(cgroup_update(&c, "box", &resources, &err));
    assert_content("v2", "memory.swap.max", "44444444");
    assert_content("v2", "cpu.max", "70000 100000");
    resources.cpu_quota = 0;
    resources.cpu_period = 200000;
    assert_true(cgroup_update(&c, "box", &resources, &err));
    assert_content("v2", "cpu.max", "70000 200000");
    put("v2", "cpu.max", "70000 200000");
    resources.cpu_quota = -1;
    resources.cpu_period = 0;
    assert_true(cgroup_update(&c, "box", &resources, &err));
    assert_content("v2", "cpu.max", "max 20000000"); /* its end is the old text's */
    /* v2 would kill for it. */
    put("v2", "memory.current", "200000000");
    runtime__v1__linux_container_resources__init(&resources);
    resources.memory_limit_in_bytes = 67108864;
    refused(&c, STATUS_FAILED_PRECONDITION, "memory_limit_in_bytes: the container uses more than that (160000000 bytes)");
    runtime__v1__linux_container_resources__init(&resources);
    resources.memory_swap_limit_in_bytes = 1000;
    refused(&c, STATUS_INVALID_ARGUMENT, "memory_swap_limit_in_bytes: 1000 is less");
    cgroups_free(&c);
}

static void test_devices(void **state)
{
    static const struct cgroup_device devices[] = {
        { 'c', -1, -1, false, false, true }, { 'c', 1, 3, true, true, true }, { 'b', 8, -1, true, false, false }
    };
    struct bpf_insn program[64];
    const uint32_t c = BPF_DEVCG_DEV_CHAR, b = BPF_DEVCG_DEV_BLOCK, m = BPF_DEVCG_ACC_MKNOD, r = BPF_DEVCG_ACC_READ,
                   w = BPF_DEVCG_ACC_WRITE;
    size_t n = cgroup_device_program(devices, COUNT_OF(devices), program, COUNT_OF(program));

    (void)state;
    assert_true(n > 0);
    assert_int_equal(run(program, n, m, c, 10, 200), 1);
    assert_int_equal(run(program, n, r, c, 10, 200), 0);
    assert_int_equal(run(program, n, r | w, c, 1, 3), 1);
    assert_int_equal(run(program, n, r, c, 1, 4), 0);
    assert_int_equal(run(program, n, r, b, 8, 17), 1);
    assert_int_equal(run(program, n, r | w, b, 8, 17), 0);
    assert_int_equal(run(program, n, m, b, 8, 17), 0);
    assert_int_equal(run(program, n, r, b, 1, 3), 0);
    assert_int_equal(cgroup_device_program(devices, COUNT_OF(devices), program, 5), 0);
    n = cgroup_device_program(NULL, 0, program, COUNT_OF(program));
    assert_int_equal(run(program, n, m, c, 1, 3), 0);
}

/* On whatever this machine has, an ordinary pod path is chosen, or a reason is given. */
static void test_open(void **state)
{
    struct cgroup_options options = { .rootless = true, .parent = "", .sandbox_id = "feed", .job_dir = dir };
    struct cgroups c;

    (void)state;
    if (geteuid() == 0)
        options = (struct cgroup_options){ .parent = "/../escape", .sandbox_id = "feed", .job_dir = dir };
    cgroups_open(&c, &options);
    if (geteuid() == 0)
        assert_int_equal(c.mode, CGROUP_NONE);
    if (c.mode == CGROUP_NONE) {
        assert_true(c.reason[0] != '\0');
        assert_int_equal(cgroup_signal(&c, "box", 0), -1);
    }
    cgroups_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v1),
        cmocka_unit_test(test_v2),
        cmocka_unit_test(test_update_v1),
        cmocka_unit_test(test_update_refusals),
        cmocka_unit_test(test_update_v2),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_open),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
