/* SPDX-License-Identifier: Apache-2.0 */
/* Usage from control groups, processes, folders and network interfaces: all of it from files that the tests write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "agent/cgroup_stats.h"
#include "agent/layer_stats.h"
#include "agent/net_stats.h"
#include "agent/proc_stats.h"
#include "agent/usage.h"
#include "io/file.h"
#include "io/mount.h"

static char root[64];

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/test-usage-XXXXXX");
    assert_non_null(mkdtemp(root));
    return 0;
}

static int teardown(void **state)
{
    struct status err;

    (void)state;
    assert_true(tree_remove(root, &err));
    return 0;
}

/* Makes the folders above it, too. */
static void put(const char *path, const char *text)
{
    cleanup_free char *full = xasprintf("%s/%s", root, path);
    cleanup_free char *folder = xstrndup(full, (size_t)(strrchr(full, '/') - full));
    struct status err;

    assert_true(dir_make(folder, 0755, &err));
    assert_true(file_replace(full, text, strlen(text), 0644, &err));
}

/* ---- texts ---- */

static void test_numbers(void **state)
{
    (void)state;
    assert_int_equal(usage_number("0"), 0);
    assert_int_equal(usage_number("42\n"), 42);
    assert_int_equal(usage_number("42 kB"), 42);
    assert_true(usage_number("18446744073709551614") == UINT64_MAX - 1);
    const char *const bad[] = { "", "max", "max\n", "-1", " 1", "1x", "18446744073709551615", "99999999999999999999999", "\xff" };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_true(usage_number(bad[i]) == USAGE_UNKNOWN);
    assert_true(usage_less(5, 7) == 0);
    assert_true(usage_less(USAGE_UNKNOWN, 7) == USAGE_UNKNOWN);
    assert_true(usage_less(7, USAGE_UNKNOWN) == USAGE_UNKNOWN);
    assert_true(usage_scaled(USAGE_UNKNOWN, 1000) == USAGE_UNKNOWN);
    assert_true(usage_scaled(UINT64_MAX / 2, 1000) == USAGE_UNKNOWN);
}

static void test_names(void **state)
{
    uint64_t a = USAGE_UNKNOWN, ab = USAGE_UNKNOWN, c = USAGE_UNKNOWN;
    const struct usage_name names[] = { { "a", &a }, { "ab", &ab }, { "c", &c } };

    (void)state;
    usage_read_names("ab 2\na    1 kB\n\n \nc\nd 9\nno newline at the end 7", names, COUNT_OF(names));
    assert_int_equal(a, 1);
    assert_int_equal(ab, 2);
    assert_true(c == USAGE_UNKNOWN);
    usage_read_names("a -1\nab 3", names, COUNT_OF(names));
    assert_true(a == USAGE_UNKNOWN);
    assert_int_equal(ab, 3);
}

static void test_pressure(void **state)
{
    struct usage u;

    (void)state;
    usage_init(&u);
    usage_read_pressure("some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
                        &u.cpu_psi);
    assert_int_equal(u.cpu_psi.some.total_ns, 1234000);
    assert_true(u.cpu_psi.some.avg10 == 1.5 && u.cpu_psi.some.avg60 == 0.25);
    assert_int_equal(u.cpu_psi.full.total_ns, 7000);
    usage_read_pressure("some avg10=x avg60=0.25 avg300=0.00 total=1\nfull avg10=0.00\nfull\nsome ", &u.io_psi);
    assert_true(u.io_psi.some.total_ns == USAGE_UNKNOWN && u.io_psi.full.total_ns == USAGE_UNKNOWN);
    /* Older kernels have no line for all tasks of a CPU. */
    usage_read_pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", &u.memory_psi);
    assert_int_equal(u.memory_psi.some.total_ns, 0);
    assert_true(u.memory_psi.full.total_ns == USAGE_UNKNOWN);
}

/* ---- rates ---- */

#define MS(ms) ((int64_t)(ms) * 1000000)

static void test_rates(void **state)
{
    struct usage_rate r = { 0 };

    (void)state;
    assert_true(usage_rate_add(&r, MS(1000), 5) == USAGE_UNKNOWN);
    assert_true(usage_rate_add(&r, MS(1001), 6) == USAGE_UNKNOWN); /* too soon to tell */
    assert_int_equal(usage_rate_add(&r, MS(2000), 5 + 500000000), 500000000);
    /* Asked again at once: over the window before and what has come since. */
    assert_int_equal(usage_rate_add(&r, MS(2100), 5 + 550000000), 500000000);
    assert_int_equal(usage_rate_add(&r, MS(4000), 5 + 500000000), 0);
    /* Unknown now and known again. */
    assert_true(usage_rate_add(&r, MS(5000), USAGE_UNKNOWN) == USAGE_UNKNOWN);
    assert_int_equal(usage_rate_add(&r, MS(6000), 5 + 2500000000u), 1000000000);
    /* It was counted anew; and nobody has asked for long. */
    assert_true(usage_rate_add(&r, MS(7000), 3) == USAGE_UNKNOWN);
    assert_int_equal(usage_rate_add(&r, MS(8000), 3), 0);
    assert_true(usage_rate_add(&r, MS(8000 + USAGE_WINDOW_MAX_MS + 1), 9) == USAGE_UNKNOWN);
}

static void test_rate_since_the_start(void **state)
{
    struct usage_rate r = { 0 };

    (void)state;
    usage_rate_start(&r, MS(1000));
    assert_true(usage_rate_add(&r, MS(1100), 100000000) == USAGE_UNKNOWN);
    assert_int_equal(usage_rate_add(&r, MS(3000), 4000000000u), 2000000000);
    /* The clock was set back, so that it seems to begin tomorrow. */
    usage_rate_start(&r, MS(100000));
    assert_true(usage_rate_add(&r, MS(3000), 5) == USAGE_UNKNOWN);
    assert_int_equal(usage_rate_add(&r, MS(4000), 5), 0);
}

/* ---- control groups ---- */

static struct cgroups groups;

/* A hierarchy whose mount point is a folder of the test's. */
static void add_hierarchy(const char *name, unsigned controllers, bool unified)
{
    groups.hierarchies[groups.count++] = (struct cgroup_hierarchy){
        .mount = xasprintf("%s/%s", root, name), .own = xstrdup("/"), .controllers = controllers, .unified = unified, .used = true
    };
}

static void open_groups(enum cgroup_mode mode, const char *pod, bool given)
{
    groups = (struct cgroups){ .mode = mode, .pod = xstrdup(pod), .given = given };
}

static void close_groups(void)
{
    for (size_t i = 0; i < groups.count; i++) {
        free(groups.hierarchies[i].mount);
        free(groups.hierarchies[i].own);
    }
    free(groups.pod);
}

static void put_v1(void)
{
    open_groups(CGROUP_HYBRID, "/pod", false);
    add_hierarchy("unified", 0, true);
    groups.hierarchies[0].used = false;
    add_hierarchy("cpu", CGROUP_CPU, false);
    add_hierarchy("cpuacct", CGROUP_CPUACCT, false);
    add_hierarchy("memory", CGROUP_MEMORY, false);
    add_hierarchy("pids", CGROUP_PIDS, false);
    add_hierarchy("hugetlb", CGROUP_HUGETLB, false);
    put("cpu/pod/c1/cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 123456789\n");
    put("cpuacct/pod/c1/cpuacct.usage", "5000000000\n");
    put("cpuacct/pod/c1/cpuacct.usage_user", "3000000000\n");
    put("cpuacct/pod/c1/cpuacct.usage_sys", "2000000000\n");
    put("memory/pod/c1/memory.usage_in_bytes", "10000000\n");
    put("memory/pod/c1/memory.limit_in_bytes", "67108864\n");
    put("memory/pod/c1/memory.memsw.limit_in_bytes", "77108864\n");
    put("memory/pod/c1/memory.max_usage_in_bytes", "20000000\n");
    put("memory/pod/c1/memory.kmem.usage_in_bytes", "300000\n");
    put("memory/pod/c1/memory.failcnt", "3\n");
    put("memory/pod/c1/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
    put("memory/pod/c1/memory.stat", "cache 1\nrss 2\ninactive_file 3\nhierarchical_memory_limit 67108864\n"
                                     "hierarchical_memsw_limit 77108864\ntotal_cache 4000000\ntotal_rss 5000000\n"
                                     "total_mapped_file 600000\ntotal_swap 7000\ntotal_pgfault 800\ntotal_pgmajfault 9\n"
                                     "total_inactive_file 1000000\n");
    put("pids/pod/c1/pids.current", "7\n");
    put("pids/pod/c1/pids.max", "max\n");
    put("pids/pod/c1/cgroup.procs", "100\n101\n0\n");
    put("pids/pod/c1/inner/cgroup.procs", "102\n");
    put("hugetlb/pod/c1/hugetlb.2MB.usage_in_bytes", "2097152\n");
    put("hugetlb/pod/c1/hugetlb.2MB.max_usage_in_bytes", "4194304\n");
}

static void test_cgroup_v1(void **state)
{
    struct usage u;

    (void)state;
    put_v1();
    usage_init(&u);
    assert_true(cgroup_usage(&groups, "c1", true, &u));
    assert_true(u.cpu == 5000000000u && u.cpu_user == 3000000000u && u.cpu_system == 2000000000u);
    assert_true(u.cfs_periods == 10 && u.cfs_throttled_periods == 4 && u.cfs_throttled == 123456789);
    assert_true(u.memory == 10000000 && u.working_set == 9000000 && u.memory_limit == 67108864 && u.memory_max == 20000000);
    assert_true(u.rss == 5000000 && u.cache == 4000000 && u.mapped_file == 600000 && u.kernel == 300000);
    assert_true(u.swap == 7000 && u.swap_limit == 10000000);
    assert_true(u.faults == 800 && u.major_faults == 9 && u.limit_hits == 3);
    assert_true(u.processes == 3 && u.threads == 7 && u.threads_max == 0);
    assert_int_equal(u.hugetlb_count, 1);
    assert_string_equal(u.hugetlb[0].size, "2MB");
    assert_true(u.hugetlb[0].used == 2097152 && u.hugetlb[0].used_max == 4194304);
    /* What v1 does not count. */
    assert_true(u.cpu_psi.some.total_ns == USAGE_UNKNOWN && u.io_psi.some.total_ns == USAGE_UNKNOWN && u.device_count == 0);
    assert_int_equal(cgroup_oom_kills(&groups, "c1"), 2);
    /* The cheap half is without what only metrics need. */
    usage_init(&u);
    assert_true(cgroup_usage(&groups, "c1", false, &u));
    assert_true(u.cpu == 5000000000u && u.working_set == 9000000 && u.processes == 3);
    assert_true(u.cfs_periods == USAGE_UNKNOWN && u.threads == USAGE_UNKNOWN && u.memory_max == USAGE_UNKNOWN);
    close_groups();
}

static void test_cgroup_v1_without_limits(void **state)
{
    struct usage u;

    (void)state;
    put_v1();
    put("memory/pod/c1/memory.limit_in_bytes", "9223372036854771712\n");
    put("memory/pod/c1/memory.memsw.limit_in_bytes", "9223372036854771712\n");
    usage_init(&u);
    assert_true(cgroup_usage(&groups, "c1", false, &u)); /* a group above has a limit */
    assert_true(u.memory_limit == USAGE_UNKNOWN && u.swap_limit == USAGE_UNKNOWN);
    put("memory/pod/c1/memory.stat", "total_inactive_file 99999999999\nhierarchical_memory_limit 9223372036854771712\n");
    usage_init(&u);
    assert_true(cgroup_usage(&groups, "c1", false, &u));
    assert_true(u.memory_limit == USAGE_UNKNOWN && u.working_set == 0 && u.rss == USAGE_UNKNOWN && u.swap == USAGE_UNKNOWN);
    close_groups();
}

static void put_v2(void)
{
    open_groups(CGROUP_V2, "/pod", false);
    add_hierarchy("cgroup", CGROUP_CPU | CGROUP_MEMORY | CGROUP_PIDS | CGROUP_IO, true);
    put("cgroup/pod/c1/cpu.stat", "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 1\nnr_throttled 2\n"
                                  "throttled_usec 3\n");
    put("cgroup/pod/c1/cpu.pressure", "some avg10=1.00 avg60=2.00 avg300=3.00 total=4\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
    put("cgroup/pod/c1/memory.current", "10000000\n");
    put("cgroup/pod/c1/memory.max", "67108864\n");
    put("cgroup/pod/c1/memory.peak", "20000000\n");
    put("cgroup/pod/c1/memory.swap.current", "4096\n");
    put("cgroup/pod/c1/memory.swap.max", "max\n");
    put("cgroup/pod/c1/memory.stat", "anon 5000000\nfile 4000000\nkernel 300000\nfile_mapped 600000\ninactive_file 1000000\n"
                                     "pgfault 800\npgmajfault 9\n");
    put("cgroup/pod/c1/memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n");
    put("cgroup/pod/c1/memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n");
    put("cgroup/pod/c1/io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=6\n");
    put("cgroup/pod/c1/io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\nrubbish\n8:16 rbytes=x\n"
                                 "254:16 rbytes=10 wbytes=20 rios=30 wios=40 dbytes=0 dios=0\n");
    put("cgroup/pod/c1/pids.current", "7\n");
    put("cgroup/pod/c1/pids.max", "100\n");
    put("cgroup/pod/c1/cgroup.procs", "100\n101\n");
}

static void test_cgroup_v2(void **state)
{
    struct usage u;

    (void)state;
    put_v2();
    usage_init(&u);
    assert_true(cgroup_usage(&groups, "c1", true, &u));
    assert_true(u.cpu == 5000000000u && u.cpu_user == 3000000000u && u.cpu_system == 2000000000u && u.cfs_throttled == 3000);
    assert_int_equal(u.cpu_psi.some.total_ns, 4000);
    assert_int_equal(u.memory_psi.some.total_ns, 5000);
    assert_int_equal(u.io_psi.some.total_ns, 6000);
    assert_true(u.memory == 10000000 && u.working_set == 9000000 && u.memory_limit == 67108864 && u.memory_max == 20000000);
    assert_true(u.rss == 5000000 && u.cache == 4000000 && u.kernel == 300000 && u.mapped_file == 600000);
    assert_true(u.swap == 4096 && u.swap_limit == USAGE_UNKNOWN && u.limit_hits == 3);
    assert_true(u.faults == 800 && u.major_faults == 9);
    assert_true(u.processes == 2 && u.threads == 7 && u.threads_max == 100);
    assert_int_equal(u.device_count, 2);
    assert_true(u.devices[1].major == 254 && u.devices[1].minor == 16 && u.devices[1].read_bytes == 10 && u.devices[1].writes == 40);
    assert_int_equal(cgroup_oom_kills(&groups, "c1"), 1);
    close_groups();
}

static void test_cgroup_v2_with_files_missing(void **state)
{
    struct usage u;

    (void)state;
    open_groups(CGROUP_V2, "/pod", false);
    add_hierarchy("cgroup", CGROUP_CPU, true);
    put("cgroup/pod/c1/cpu.stat", "usage_usec what\nuser_usec 18446744073709551615\n\nsystem_usec");
    usage_init(&u);
    assert_true(cgroup_usage(&groups, "c1", true, &u));
    assert_true(u.cpu == USAGE_UNKNOWN && u.cpu_user == USAGE_UNKNOWN && u.cpu_system == USAGE_UNKNOWN);
    assert_true(u.memory == USAGE_UNKNOWN && u.memory_limit == USAGE_UNKNOWN && u.threads == USAGE_UNKNOWN);
    assert_true(cgroup_oom_kills(&groups, "c1") == USAGE_UNKNOWN);
    assert_false(cgroup_usage(&groups, "c2", true, &u));
    close_groups();
}

static void test_whose_group(void **state)
{
    static const struct {
        const char *pod;
        bool given, own;
    } cases[] = {
        { "/interlink-cri/abc", false, true },
        { "/kubepods/burstable/pod0a1b2c3d-1111-2222-3333-444455556666", true, true },
        { "/kubepods.slice/kubepods-burstable-pod0a1b2c3d_1111_2222_3333_444455556666.slice", true, true },
        { "/kubepods/burstable", true, false },
        { "/pod0a1b2c3d-1111-2222-3333-444455556666/shared", true, false },
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        open_groups(CGROUP_V2, cases[i].pod, cases[i].given);
        assert_int_equal(cgroup_is_of_pod(&groups, "0a1b2c3d-1111-2222-3333-444455556666"), cases[i].own);
        assert_int_equal(cgroup_is_of_pod(&groups, ""), cases[i].own && !cases[i].given);
        close_groups();
    }
    open_groups(CGROUP_NONE, "", false);
    assert_false(cgroup_is_of_pod(&groups, "0a1b2c3d"));
    close_groups();
}

/* ---- processes ---- */

/* Ticks are a hundredth of a second. */
static void put_process(int pid, int parent, unsigned own_ticks, unsigned children_ticks, unsigned started)
{
    cleanup_free char *path = xasprintf("proc/%d/stat", pid);
    cleanup_free char *text =
        xasprintf("%d (a) (name) S %d 1 1 0 -1 4194560 100 10 2 1 %u 0 %u 0 20 0 3 0 %u 1000000 50 18446744073709551615 1 1 0 0\n",
                  pid, parent, own_ticks, children_ticks, started);

    put(path, text);
}

static void remove_process(int pid)
{
    cleanup_free char *path = xasprintf("%s/proc/%d", root, pid);
    struct status err;

    assert_true(tree_remove(path, &err));
}

static void look(const pid_t *pids, size_t count, pid_t init, struct proc_account *account, struct usage *u)
{
    cleanup_free char *proc = xasprintf("%s/proc", root);

    usage_init(u);
    proc_usage(proc, pids, count, init, account, u);
}

#define TICK 10000000u

static void test_processes(void **state)
{
    struct proc_account account = { 0 };
    const pid_t pids[] = { 20, 10, 30 }; /* 30 is gone already */
    struct usage u;

    (void)state;
    put_process(10, 1, 100, 5, 7);
    put_process(20, 10, 50, 0, 8);
    put("proc/10/smaps_rollup", "00400000-7fff00000000 ---p 00000000 00:00 0    [rollup]\nRss:   1000 kB\nPss:   600 kB\n"
                                "Pss_Anon:   400 kB\nAnonymous:   500 kB\nSwap: 8 kB\nSwapPss:   4 kB\n");
    put("proc/20/statm", "1000 300 200 1 0 100 0\n"); /* its maps are not for us to see */
    look(pids, 3, 0, &account, &u);
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    assert_true(u.cpu == 155 * TICK && u.cpu_user == 155 * TICK && u.cpu_system == 0);
    assert_true(u.memory == 600 * 1024 + 300 * page && u.working_set == u.memory);
    assert_true(u.rss == 400 * 1024 + 100 * page && u.swap == 4 * 1024);
    assert_true(u.faults == 220 && u.major_faults == 6 && u.processes == 2 && u.threads == 6);
    proc_account_free(&account);
}

static void test_time_of_processes_that_are_gone(void **state)
{
    struct proc_account account = { 0 };
    const pid_t pids[] = { 10, 20, 21, 40, 41 };
    struct usage u;

    (void)state;
    put_process(10, 1, 10, 0, 1);   /* the first process */
    put_process(20, 10, 100, 0, 2); /* its child */
    put_process(21, 20, 50, 0, 3);  /* and that one's */
    put_process(40, 1, 200, 0, 4);  /* run by exec: the agent is its parent */
    put_process(41, 40, 7, 0, 5);
    look(pids, 5, 0, &account, &u);
    assert_true(u.cpu == 367 * TICK);
    /* A grandchild ends and is waited for: its time is its parent's now. */
    remove_process(21);
    put_process(20, 10, 101, 50, 2);
    look(pids, 5, 0, &account, &u);
    assert_true(u.cpu == 368 * TICK);
    /* What exec ran ends with all of its own; nobody in the container has waited for it. */
    remove_process(41);
    remove_process(40);
    put_process(10, 1, 11, 0, 1);
    look(pids, 5, 0, &account, &u);
    assert_true(u.cpu == 369 * TICK);
    /* A number that is used again is another process. */
    put_process(40, 1, 3, 0, 99);
    look(pids, 5, 0, &account, &u);
    assert_true(u.cpu == 372 * TICK);
    /* The child's end is missed: it took what it had waited for with it. Sums do not fall. */
    remove_process(20);
    put_process(10, 1, 11, 20, 1);
    look(pids, 5, 0, &account, &u);
    assert_true(u.cpu == 372 * TICK);
    put_process(10, 1, 12, 20, 1);
    look(pids, 5, 0, &account, &u);
    assert_true(u.cpu == 373 * TICK);
    proc_account_free(&account);
}

static void test_orphans_are_reaped_by_init(void **state)
{
    struct proc_account account = { 0 };
    const pid_t pids[] = { 10, 20, 21 };
    struct usage u;

    (void)state;
    put_process(10, 1, 10, 0, 1);
    put_process(20, 10, 100, 0, 2);
    put_process(21, 20, 50, 0, 3);
    look(pids, 3, 10, &account, &u);
    remove_process(20);
    remove_process(21);
    put_process(10, 1, 10, 150, 1);
    look(pids, 3, 10, &account, &u);
    assert_true(u.cpu == 160 * TICK);
    proc_account_free(&account);
}

static void test_processes_that_make_no_sense(void **state)
{
    static const char *const texts[] = { "", "10", "10 (x", "10 (x) S", "10 (x) S 1 2 3 x", ")", "10 (x) S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1\n" };
    struct proc_account account = { 0 };
    const pid_t pids[] = { 10 };
    struct usage u;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        put("proc/10/stat", texts[i]);
        put("proc/10/smaps_rollup", "Pss: many\nAnonymous:\n");
        put("proc/10/statm", "-");
        look(pids, 1, 0, &account, &u);
        assert_true(u.cpu == 0 && u.processes == 0 && u.memory == 0);
    }
    look(pids, 0, 0, &account, &u);
    assert_int_equal(u.processes, 0);
    proc_account_free(&account);
}

static void test_open_files(void **state)
{
    cleanup_free char *proc = xasprintf("%s/proc", root);
    const pid_t pids[] = { 10, 11 };
    struct usage u;

    (void)state;
    put_process(10, 1, 1, 0, 1);
    put("proc/10/limits", "Limit                     Soft Limit           Hard Limit           Units     \n"
                          "Max processes             95860                95860                processes \n"
                          "Max open files            1024                 1048576              files     \n");
    put("proc/10/fd/0", "");
    cleanup_free char *socket = xasprintf("%s/proc/10/fd/3", root);
    assert_int_equal(symlink("socket:[12345]", socket), 0);
    cleanup_free char *pipe = xasprintf("%s/proc/10/fd/4", root);
    assert_int_equal(symlink("pipe:[1]", pipe), 0);
    usage_init(&u);
    proc_open_files(proc, pids, 2, 10, &u);
    assert_true(u.files == 3 && u.sockets == 1 && u.files_limit == 1024 && u.threads == 3 && u.processes == 2);
    put("proc/10/limits", "Max open files            unlimited            unlimited            files     \n");
    u.threads = 99;
    proc_open_files(proc, pids, 2, 10, &u);
    assert_true(u.files_limit == USAGE_UNKNOWN && u.threads == 99);
}

/* ---- the network ---- */

#define NET_HEAD                                                                                                       \
    "Inter-|   Receive                                                |  Transmit\n"                                   \
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"

static bool read_net(const char *dev, const char *route, struct net_stats *out)
{
    cleanup_free char *proc = xasprintf("%s/proc", root);

    put("proc/5/net/dev", dev);
    put("proc/5/net/route", route);
    return net_stats_read(proc, 5, out);
}

static void test_network(void **state)
{
    struct net_stats n;

    (void)state;
    assert_true(read_net(NET_HEAD "    lo:   1  1 0 0 0 0 0 0   1 1 0 0 0 0 0 0\n"
                                  "  ib0: 100 10 1 2 0 0 0 0 200 20 3 4 0 0 0 0\n"
                                  "enp3s0:18446744073709551615 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n",
                         "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
                         "ib0\t00000000\t010011AC\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
                         "enp3s0\t00000000\t010011AC\t0003\t0\t0\t50\t00000000\t0\t0\t0\n"
                         "ib0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n",
                         &n));
    assert_int_equal(n.count, 2);
    assert_string_equal(n.interfaces[n.main].name, "enp3s0");
    assert_true(n.interfaces[n.main].rx_bytes == UINT64_MAX);
    const struct net_interface *i = &n.interfaces[0];
    assert_string_equal(i->name, "ib0");
    assert_true(i->rx_bytes == 100 && i->rx_packets == 10 && i->rx_errors == 1 && i->rx_dropped == 2);
    assert_true(i->tx_bytes == 200 && i->tx_packets == 20 && i->tx_errors == 3 && i->tx_dropped == 4);
    /* eth0 is the pod's own, wherever the routes lead. */
    assert_true(read_net(NET_HEAD "net1: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\neth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n", "", &n));
    assert_string_equal(n.interfaces[n.main].name, "eth0");
    /* A loopback is better than nothing. */
    assert_true(read_net(NET_HEAD "lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n", "", &n));
    assert_true(n.count == 1 && n.interfaces[0].rx_bytes == 5);
}

static void test_network_that_makes_no_sense(void **state)
{
    static const char *const texts[] = { "", NET_HEAD, "eth0: 1 2 3\n", ": 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n", "eth0 1 1 1\n",
                                         "a-name-that-is-much-too-long-for-an-interface: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n" };
    cleanup_buf struct buf many = BUF_INIT;
    struct net_stats n;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        assert_false(read_net(texts[i], "x\nx y z", &n));
    assert_true(read_net("et\xffh: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n", "", &n));
    assert_string_equal(n.interfaces[0].name, "et?h");
    for (int i = 0; i < 500; i++)
        buf_printf(&many, "veth%d: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n", i);
    assert_true(read_net(buf_cstr(&many), "veth400\t00000000\t0\t3\t0\t0\t0\t00000000\n", &n));
    assert_int_equal(n.count, NET_STATS_INTERFACES_MAX);
    assert_string_equal(n.interfaces[n.main].name, "veth400");
}

/* ---- folders ---- */

static void test_layer(void **state)
{
    cleanup_free char *path = xasprintf("%s/upper", root);
    cleanup_free char *file = xasprintf("%s/upper/a/file", root), *second = xasprintf("%s/upper/second", root);
    cleanup_free char *outside = xasprintf("%s/upper/link", root);
    cleanup_free char *megabyte = xcalloc(1, (1 << 20) + 1);
    struct layer_stats before, after;
    struct status err;

    (void)state;
    put("upper/a/file", "some text");
    put("elsewhere/large", "not counted");
    assert_int_equal(symlink("../elsewhere", outside), 0);
    assert_true(layer_measure(path, &before, &err));
    assert_int_equal(before.inodes, 4); /* upper, a, file, link */
    assert_true(before.fs_bytes > 0 && *before.mountpoint == '/');
    memset(megabyte, 'x', 1 << 20);
    put("upper/a/file", megabyte);
    assert_int_equal(link(file, second), 0);
    assert_true(layer_measure(path, &after, &err));
    assert_int_equal(after.inodes, 4); /* a second name is no second file */
    assert_true(after.bytes >= before.bytes + (1 << 20) - 4096 && after.bytes < before.bytes + (3 << 20));
    assert_false(layer_measure("/no/such/folder", &after, &err));
    assert_false(layer_measure(file, &after, &err));
}

static void test_many_links(void **state)
{
    cleanup_free char *path = xasprintf("%s/upper", root);
    struct layer_stats stats;
    struct status err;

    (void)state;
    put("upper/0", "");
    for (int i = 0; i < 3000; i++) {
        cleanup_free char *name = xasprintf("%s/upper/f%d", root, i), *other = xasprintf("%s/upper/g%d", root, i);
        FILE *f = fopen(name, "w");
        assert_non_null(f);
        fclose(f);
        assert_int_equal(link(name, other), 0);
    }
    assert_true(layer_measure(path, &stats, &err));
    assert_int_equal(stats.inodes, 3002);
}

static void test_mount(void **state)
{
    struct mount_info m;

    (void)state;
    mount_find("/proc/self", &m);
    assert_string_equal(m.point, "/proc");
    assert_string_equal(m.source, "proc");
    mount_find("/no/such/path", &m);
    assert_string_equal(m.point, "/");
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_numbers), T(test_names), T(test_pressure), T(test_rates), T(test_rate_since_the_start), T(test_cgroup_v1),
        T(test_cgroup_v1_without_limits), T(test_cgroup_v2), T(test_cgroup_v2_with_files_missing), T(test_whose_group),
        T(test_processes), T(test_time_of_processes_that_are_gone), T(test_orphans_are_reaped_by_init),
        T(test_processes_that_make_no_sense), T(test_open_files), T(test_network), T(test_network_that_makes_no_sense),
        T(test_layer), T(test_many_links), T(test_mount),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
