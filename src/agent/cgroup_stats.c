/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cgroup_stats.h"

#include <fcntl.h>
#include <unistd.h>

/* memory.stat is the largest with some 70 lines. */
#define CGROUP_STATS_TEXT_MAX 16384
/* v1 writes "no limit" as the largest number of pages; cAdvisor takes all above this for none. */
#define CGROUP_STATS_NO_LIMIT (1ull << 62)

/* The whole file or as much of it as fits, NUL-terminated; "" when there is none. */
static const char *cgroup_stats_read(int dir_fd, const char *name, char text[CGROUP_STATS_TEXT_MAX])
{
    cleanup_close int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t n = 0;
    ssize_t got = 0;

    while (fd >= 0 && n < CGROUP_STATS_TEXT_MAX - 1 && (got = read(fd, text + n, CGROUP_STATS_TEXT_MAX - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    return text;
}

static uint64_t cgroup_stats_number(int dir_fd, const char *name)
{
    char text[CGROUP_STATS_TEXT_MAX];

    return usage_number(cgroup_stats_read(dir_fd, name, text));
}

static uint64_t cgroup_stats_limit(int dir_fd, const char *name)
{
    uint64_t limit = cgroup_stats_number(dir_fd, name);

    return limit >= CGROUP_STATS_NO_LIMIT ? USAGE_UNKNOWN : limit;
}

static void cgroup_stats_pressure(int dir_fd, const char *name, struct usage_psi *psi)
{
    char text[CGROUP_STATS_TEXT_MAX];

    usage_read_pressure(cgroup_stats_read(dir_fd, name, text), psi);
}

/* ---- version 1: one folder for each controller or several of them ---- */

static void cgroup_stats_v1_cpu(int dir_fd, unsigned controllers, bool counters, struct usage *u)
{
    char text[CGROUP_STATS_TEXT_MAX];

    if ((controllers & CGROUP_CPUACCT) != 0)
        u->cpu = cgroup_stats_number(dir_fd, "cpuacct.usage");
    if ((controllers & CGROUP_CPUACCT) != 0 && counters) {
        u->cpu_user = cgroup_stats_number(dir_fd, "cpuacct.usage_user");
        u->cpu_system = cgroup_stats_number(dir_fd, "cpuacct.usage_sys");
    }
    if ((controllers & CGROUP_CPU) != 0) {
        const struct usage_name names[] = { { "nr_periods", &u->cfs_periods },
                                            { "nr_throttled", &u->cfs_throttled_periods },
                                            { "throttled_time", &u->cfs_throttled } };
        usage_read_names(cgroup_stats_read(dir_fd, "cpu.stat", text), names, COUNT_OF(names));
    }
}

static void cgroup_stats_v1_memory(int dir_fd, bool counters, struct usage *u)
{
    char text[CGROUP_STATS_TEXT_MAX];
    uint64_t inactive = USAGE_UNKNOWN, limit = USAGE_UNKNOWN, with_swap = USAGE_UNKNOWN;
    const struct usage_name names[] = {
        { "total_inactive_file", &inactive }, { "total_rss", &u->rss }, { "total_cache", &u->cache },
        { "total_mapped_file", &u->mapped_file }, { "total_swap", &u->swap }, { "total_pgfault", &u->faults },
        { "total_pgmajfault", &u->major_faults }, { "hierarchical_memory_limit", &limit },
        { "hierarchical_memsw_limit", &with_swap },
    };

    u->memory = cgroup_stats_number(dir_fd, "memory.usage_in_bytes");
    usage_read_names(cgroup_stats_read(dir_fd, "memory.stat", text), names, COUNT_OF(names));
    u->working_set = inactive == USAGE_UNKNOWN ? USAGE_UNKNOWN : usage_less(u->memory, inactive);
    /* The hierarchical ones include the limits of the groups above, which are not this one's; they spare two reads when
     * nobody has any. */
    if (limit < CGROUP_STATS_NO_LIMIT)
        u->memory_limit = cgroup_stats_limit(dir_fd, "memory.limit_in_bytes");
    if (with_swap < CGROUP_STATS_NO_LIMIT)
        u->swap_limit = usage_less(cgroup_stats_limit(dir_fd, "memory.memsw.limit_in_bytes"), u->memory_limit);
    if (!counters)
        return;
    u->memory_max = cgroup_stats_number(dir_fd, "memory.max_usage_in_bytes");
    u->kernel = cgroup_stats_number(dir_fd, "memory.kmem.usage_in_bytes");
    u->limit_hits = cgroup_stats_number(dir_fd, "memory.failcnt");
}

static void cgroup_stats_add_hugetlb(struct usage *u, const char *size, uint64_t used, uint64_t used_max)
{
    struct usage_hugetlb *h = &u->hugetlb[u->hugetlb_count];

    if (used == USAGE_UNKNOWN || u->hugetlb_count == USAGE_PAGE_SIZES_MAX)
        return;
    snprintf(h->size, sizeof h->size, "%s", size);
    h->used = used;
    h->used_max = used_max;
    u->hugetlb_count++;
}

/* The sizes that are on x86, arm64, ppc64 and s390. */
static void cgroup_stats_hugetlb(int dir_fd, bool unified, struct usage *u)
{
    static const char *const sizes[] = { "64KB", "1MB", "2MB", "16MB", "32MB", "512MB", "1GB", "16GB" };

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char used[64], used_max[64];
        snprintf(used, sizeof used, "hugetlb.%s.%s", sizes[i], unified ? "current" : "usage_in_bytes");
        snprintf(used_max, sizeof used_max, "hugetlb.%s.max_usage_in_bytes", sizes[i]);
        if (faccessat(dir_fd, used, R_OK, 0) == 0)
            cgroup_stats_add_hugetlb(u, sizes[i], cgroup_stats_number(dir_fd, used),
                                     unified ? USAGE_UNKNOWN : cgroup_stats_number(dir_fd, used_max));
    }
}

/* ---- version 2 ---- */

static void cgroup_stats_v2_cpu(int dir_fd, struct usage *u)
{
    char text[CGROUP_STATS_TEXT_MAX];
    const struct usage_name names[] = {
        { "usage_usec", &u->cpu }, { "user_usec", &u->cpu_user }, { "system_usec", &u->cpu_system },
        { "nr_periods", &u->cfs_periods }, { "nr_throttled", &u->cfs_throttled_periods },
        { "throttled_usec", &u->cfs_throttled },
    };
    uint64_t *const times[] = { &u->cpu, &u->cpu_user, &u->cpu_system, &u->cfs_throttled };

    usage_read_names(cgroup_stats_read(dir_fd, "cpu.stat", text), names, COUNT_OF(names));
    for (size_t i = 0; i < COUNT_OF(times); i++)
        *times[i] = usage_scaled(*times[i], 1000);
    cgroup_stats_pressure(dir_fd, "cpu.pressure", &u->cpu_psi);
}

static void cgroup_stats_v2_memory(int dir_fd, bool counters, struct usage *u)
{
    char text[CGROUP_STATS_TEXT_MAX];
    uint64_t inactive = USAGE_UNKNOWN;
    const struct usage_name names[] = {
        { "inactive_file", &inactive }, { "anon", &u->rss }, { "file", &u->cache }, { "file_mapped", &u->mapped_file },
        { "kernel", &u->kernel }, { "pgfault", &u->faults }, { "pgmajfault", &u->major_faults },
    };
    const struct usage_name hits = { "max", &u->limit_hits };

    u->memory = cgroup_stats_number(dir_fd, "memory.current");
    if (u->memory == USAGE_UNKNOWN)
        return;
    usage_read_names(cgroup_stats_read(dir_fd, "memory.stat", text), names, COUNT_OF(names));
    u->working_set = inactive == USAGE_UNKNOWN ? USAGE_UNKNOWN : usage_less(u->memory, inactive);
    u->memory_limit = cgroup_stats_limit(dir_fd, "memory.max");
    u->swap = cgroup_stats_number(dir_fd, "memory.swap.current");
    u->swap_limit = cgroup_stats_limit(dir_fd, "memory.swap.max");
    cgroup_stats_pressure(dir_fd, "memory.pressure", &u->memory_psi);
    if (!counters)
        return;
    u->memory_max = cgroup_stats_number(dir_fd, "memory.peak"); /* Linux 5.19 */
    usage_read_names(cgroup_stats_read(dir_fd, "memory.events", text), &hits, 1);
}

/* "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6", a line for each device. */
static void cgroup_stats_v2_io(int dir_fd, struct usage *u)
{
    char text[CGROUP_STATS_TEXT_MAX];
    const char *line = cgroup_stats_read(dir_fd, "io.stat", text);

    for (; *line != '\0' && u->device_count < USAGE_DEVICES_MAX; line += *line == '\n') {
        struct usage_device d = { 0 };
        if (sscanf(line, "%u:%u rbytes=%" SCNu64 " wbytes=%" SCNu64 " rios=%" SCNu64 " wios=%" SCNu64, &d.major, &d.minor,
                   &d.read_bytes, &d.written_bytes, &d.reads, &d.writes) == 6)
            u->devices[u->device_count++] = d;
        line += strcspn(line, "\n");
    }
}

/* ---- processes ---- */

static void cgroup_stats_count(void *arg, pid_t pid)
{
    (void)arg;
    (void)pid;
}

static void cgroup_stats_processes(const struct cgroups *c, const char *id, struct usage *u)
{
    int count = cgroup_each(c, id, cgroup_stats_count, NULL);

    if (count >= 0)
        u->processes = (uint64_t)count;
}

/* Threads, in fact: the controller's name is older than they are. */
static void cgroup_stats_pids(int dir_fd, struct usage *u)
{
    char text[CGROUP_STATS_TEXT_MAX];

    u->threads = cgroup_stats_number(dir_fd, "pids.current");
    const char *limit = cgroup_stats_read(dir_fd, "pids.max", text);
    u->threads_max = str_starts(limit, "max") ? 0 : usage_number(limit);
}

/* ---- all of it ---- */

static int cgroup_stats_open(const struct cgroups *c, const struct cgroup_hierarchy *h, const char *id)
{
    cleanup_free char *path = xasprintf("%s%s%s%s", h->mount, c->pod, *id != '\0' ? "/" : "", id);

    return h->used ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

static void cgroup_stats_v2(int dir_fd, bool counters, struct usage *u)
{
    cgroup_stats_v2_cpu(dir_fd, u);
    cgroup_stats_v2_memory(dir_fd, counters, u);
    cgroup_stats_pressure(dir_fd, "io.pressure", &u->io_psi);
    if (counters) {
        cgroup_stats_pids(dir_fd, u);
        cgroup_stats_v2_io(dir_fd, u);
        cgroup_stats_hugetlb(dir_fd, true, u);
    }
}

bool cgroup_usage(const struct cgroups *c, const char *id, bool counters, struct usage *u)
{
    bool any = false;

    for (size_t i = 0; i < c->count; i++) {
        const struct cgroup_hierarchy *h = &c->hierarchies[i];
        /* The others interest metrics only. */
        unsigned wanted = CGROUP_CPUACCT | CGROUP_MEMORY | (counters ? CGROUP_CPU | CGROUP_PIDS | CGROUP_HUGETLB : 0);
        if (!h->unified && (h->controllers & wanted) == 0)
            continue;
        cleanup_close int dir_fd = cgroup_stats_open(c, h, id);
        if (dir_fd < 0)
            continue;
        if (h->unified) {
            cgroup_stats_v2(dir_fd, counters, u);
            any = true;
            continue;
        }
        any = any || (h->controllers & (CGROUP_CPUACCT | CGROUP_MEMORY)) != 0;
        cgroup_stats_v1_cpu(dir_fd, h->controllers & wanted, counters, u);
        if ((h->controllers & CGROUP_MEMORY) != 0)
            cgroup_stats_v1_memory(dir_fd, counters, u);
        if (counters && (h->controllers & CGROUP_PIDS) != 0)
            cgroup_stats_pids(dir_fd, u);
        if (counters && (h->controllers & CGROUP_HUGETLB) != 0)
            cgroup_stats_hugetlb(dir_fd, false, u);
    }
    if (any)
        cgroup_stats_processes(c, id, u);
    return any;
}

uint64_t cgroup_oom_kills(const struct cgroups *c, const char *id)
{
    char text[CGROUP_STATS_TEXT_MAX];
    uint64_t kills = USAGE_UNKNOWN;
    const struct usage_name name = { "oom_kill", &kills };

    for (size_t i = 0; i < c->count && kills == USAGE_UNKNOWN; i++) {
        const struct cgroup_hierarchy *h = &c->hierarchies[i];
        if ((h->controllers & CGROUP_MEMORY) == 0)
            continue;
        cleanup_close int dir_fd = cgroup_stats_open(c, h, id);
        if (dir_fd >= 0)
            usage_read_names(cgroup_stats_read(dir_fd, h->unified ? "memory.events" : "memory.oom_control", text), &name, 1);
    }
    return kills;
}

bool cgroup_is_of_pod(const struct cgroups *c, const char *uid)
{
    if (c->mode == CGROUP_NONE || !c->given)
        return c->mode != CGROUP_NONE;
    /* The systemd driver writes the dashes of a uid as "_" (kubepods-burstable-pod1234_5678.slice). */
    cleanup_free char *name = xstrdup(strrchr(c->pod, '/'));
    for (char *p = name; *p != '\0'; p++)
        if (*p == '_')
            *p = '-';
    return *uid != '\0' && strstr(name, uid) != NULL;
}

#undef CGROUP_STATS_TEXT_MAX
#undef CGROUP_STATS_NO_LIMIT
