/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New limits for groups with processes in them. All that is to be written is planned first, in an order that the kernel takes
 * at every step; then it is written, and when the kernel refuses one, what was written before is taken back.
 * Sources as in cgroup_limits.c.
 */
#include "agent/cgroup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

/* How often a group's processes are looked for while they are moved: those that fork meanwhile leave less each time. */
#define CGROUP_MOVES 10

struct cgroup_change {
    struct list link;
    const char *field; /* as in CRI */
    const char *path, *text;
    const char *old; /* what was there; NULL: not written yet */
};

struct cgroup_plan {
    struct arena arena;
    struct list changes;
    const char *who; /* "the container", "the pod" */
    const Runtime__V1__LinuxContainerResources *r;
};

/* ---- planning ---- */

static void cgroup_plan_add(struct cgroup_plan *p, const char *field, const char *dir, const char *name, const char *text)
{
    struct cgroup_change *change = ARENA_NEW(&p->arena, struct cgroup_change);

    *change = (struct cgroup_change){ .field = arena_strdup(&p->arena, field),
                                      .path = arena_printf(&p->arena, "%s/%s", dir, name),
                                      .text = arena_strdup(&p->arena, text) };
    list_append(&p->changes, &change->link);
}

static void cgroup_plan_number(struct cgroup_plan *p, const char *field, const char *dir, const char *name, int64_t value)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRId64, value);
    cgroup_plan_add(p, field, dir, name, text);
}

/* A number in a file; `none` when there is no such file or it says "max". */
static int64_t cgroup_read_number(const char *dir, const char *name, int64_t none)
{
    cleanup_free char *path = xasprintf("%s/%s", dir, name);
    cleanup_free char *text = cgroup_read_text(path);
    char *end;

    errno = 0;
    int64_t value = strtoll(text, &end, 10);
    return end == text || errno != 0 ? none : value;
}

/* Memory may never be above memory and swap together, not even for a moment. */
static void cgroup_plan_memory_v1(struct cgroup_plan *p, const char *dir)
{
    const Runtime__V1__LinuxContainerResources *r = p->r;
    int64_t swap = r->memory_swap_limit_in_bytes, now = cgroup_read_number(dir, "memory.memsw.limit_in_bytes", -1);
    /* Without swap accounting there is no such file; a limit equal to that of memory only forbids swap. */
    bool has_swap = swap != 0 && (now >= 0 || swap != r->memory_limit_in_bytes);
    bool swap_first = swap < 0 || swap > now;

    if (has_swap && swap_first)
        cgroup_plan_number(p, "memory_swap_limit_in_bytes", dir, "memory.memsw.limit_in_bytes", swap < 0 ? -1 : swap);
    if (r->memory_limit_in_bytes != 0)
        cgroup_plan_number(p, "memory_limit_in_bytes", dir, "memory.limit_in_bytes",
                           r->memory_limit_in_bytes < 0 ? -1 : r->memory_limit_in_bytes);
    if (has_swap && !swap_first)
        cgroup_plan_number(p, "memory_swap_limit_in_bytes", dir, "memory.memsw.limit_in_bytes", swap);
}

/* v1 refuses what cannot be; v2 would kill for it. Pages of files do not count: the kernel takes them back. */
static bool cgroup_check_memory_v2(const struct cgroup_plan *p, const char *dir, struct status *err)
{
    int64_t used = cgroup_read_number(dir, "memory.current", 0), limit = p->r->memory_limit_in_bytes;
    cleanup_free char *path = xasprintf("%s/memory.stat", dir);
    cleanup_free char *text = cgroup_read_text(path);
    char *rest = text, *line;

    while ((line = cgroup_line(&rest)) != NULL)
        if (str_starts(line, "active_file ") || str_starts(line, "inactive_file "))
            used -= strtoll(strchr(line, ' '), NULL, 10);
    return limit <= 0 || used <= limit ||
           status_set(err, STATUS_FAILED_PRECONDITION, "memory_limit_in_bytes: %s uses more than that (%" PRId64 " bytes)", p->who,
                      used);
}

static bool cgroup_plan_memory_v2(struct cgroup_plan *p, const char *dir, struct status *err)
{
    const Runtime__V1__LinuxContainerResources *r = p->r;
    int64_t memory = r->memory_limit_in_bytes, swap = r->memory_swap_limit_in_bytes;

    if (memory < 0)
        cgroup_plan_add(p, "memory_limit_in_bytes", dir, "memory.max", "max");
    else if (memory > 0)
        cgroup_plan_number(p, "memory_limit_in_bytes", dir, "memory.max", memory);
    /* CRI counts memory and swap together, v2 swap alone. */
    if (memory == 0)
        memory = cgroup_read_number(dir, "memory.max", -1);
    if (swap < 0) {
        cgroup_plan_add(p, "memory_swap_limit_in_bytes", dir, "memory.swap.max", "max");
    } else if (swap > 0) {
        if (memory < 0 || swap < memory)
            return status_set(err, STATUS_INVALID_ARGUMENT, "memory_swap_limit_in_bytes: %" PRId64 " is less than memory alone may take",
                              swap);
        /* Without swap there is no such file, and none is what is asked for. */
        if (swap > memory || cgroup_read_number(dir, "memory.swap.current", -1) >= 0)
            cgroup_plan_number(p, "memory_swap_limit_in_bytes", dir, "memory.swap.max", swap - memory);
    }
    return cgroup_check_memory_v2(p, dir, err);
}

/* The quota's share of a period must stay within the pod's at every step: the step between is the lesser of the two ways. */
static void cgroup_plan_cpu_v1(struct cgroup_plan *p, const char *dir)
{
    const Runtime__V1__LinuxContainerResources *r = p->r;
    bool period_first = r->cpu_period >= cgroup_read_number(dir, "cpu.cfs_period_us", 0);

    if (r->cpu_shares > 0)
        cgroup_plan_number(p, "cpu_shares", dir, "cpu.shares", r->cpu_shares);
    if (r->cpu_period > 0 && period_first)
        cgroup_plan_number(p, "cpu_period", dir, "cpu.cfs_period_us", r->cpu_period);
    if (r->cpu_quota != 0)
        cgroup_plan_number(p, "cpu_quota", dir, "cpu.cfs_quota_us", r->cpu_quota < 0 ? -1 : r->cpu_quota);
    if (r->cpu_period > 0 && !period_first)
        cgroup_plan_number(p, "cpu_period", dir, "cpu.cfs_period_us", r->cpu_period);
}

static void cgroup_plan_cpu_v2(struct cgroup_plan *p, const char *dir)
{
    const Runtime__V1__LinuxContainerResources *r = p->r;
    cleanup_free char *path = xasprintf("%s/cpu.max", dir), *now = cgroup_read_text(path);
    char quota[24] = "max", text[64];
    long long period = 100000;

    if (r->cpu_shares > 0)
        cgroup_plan_number(p, "cpu_shares", dir, "cpu.weight", cgroup_weight(r->cpu_shares));
    if (r->cpu_quota == 0 && r->cpu_period <= 0)
        return;
    (void)sscanf(now, "%23s %lld", quota, &period);
    if (r->cpu_quota != 0)
        snprintf(quota, sizeof quota, r->cpu_quota < 0 ? "max" : "%" PRId64, r->cpu_quota);
    snprintf(text, sizeof text, "%s %" PRId64, quota, r->cpu_period > 0 ? r->cpu_period : (int64_t)period);
    cgroup_plan_add(p, r->cpu_quota != 0 ? "cpu_quota" : "cpu_period", dir, "cpu.max", text);
}

static void cgroup_plan_hugetlb(struct cgroup_plan *p, const char *dir, bool unified)
{
    for (size_t i = 0; i < p->r->n_hugepage_limits; i++) {
        const Runtime__V1__HugepageLimit *l = p->r->hugepage_limits[i];
        char name[64], text[24];
        snprintf(name, sizeof name, unified ? "hugetlb.%.12s.max" : "hugetlb.%.12s.limit_in_bytes", l->page_size);
        snprintf(text, sizeof text, "%" PRIu64, l->limit);
        cgroup_plan_add(p, "hugepage_limits", dir, name, text);
    }
}

static void cgroup_plan_unified(struct cgroup_plan *p, const char *dir, bool unified)
{
    for (size_t i = 0; i < p->r->n_unified; i++) {
        const char *name = p->r->unified[i]->key;
        if (unified || strcmp(name, CGROUP_PIDS_MAX) == 0)
            cgroup_plan_add(p, arena_printf(&p->arena, "unified[%.64s]", name), dir, name, p->r->unified[i]->value);
    }
}

static bool cgroup_plan_group(struct cgroup_plan *p, const struct cgroup_hierarchy *h, const char *dir, struct status *err)
{
    const Runtime__V1__LinuxContainerResources *r = p->r;

    if (h->controllers & CGROUP_MEMORY) {
        if (!h->unified)
            cgroup_plan_memory_v1(p, dir);
        else if (!cgroup_plan_memory_v2(p, dir, err))
            return false;
    }
    if (h->controllers & CGROUP_CPU)
        (h->unified ? cgroup_plan_cpu_v2 : cgroup_plan_cpu_v1)(p, dir);
    if (h->controllers & CGROUP_CPUSET) {
        if (*r->cpuset_cpus != '\0')
            cgroup_plan_add(p, "cpuset_cpus", dir, "cpuset.cpus", r->cpuset_cpus);
        if (*r->cpuset_mems != '\0')
            cgroup_plan_add(p, "cpuset_mems", dir, "cpuset.mems", r->cpuset_mems);
    }
    if (h->controllers & CGROUP_HUGETLB)
        cgroup_plan_hugetlb(p, dir, h->unified);
    if (h->unified || (h->controllers & CGROUP_PIDS) != 0)
        cgroup_plan_unified(p, dir, h->unified);
    return true;
}

/* ---- what cannot be planned ---- */

static bool cgroup_check_syntax(const Runtime__V1__LinuxContainerResources *r, struct status *err)
{
    for (size_t i = 0; i < r->n_hugepage_limits; i++)
        if (!cgroup_page_size_ok(r->hugepage_limits[i]->page_size))
            return status_set(err, STATUS_INVALID_ARGUMENT, "hugepage_limits: \"%.40s\" is no size of pages, as 2MB is",
                              r->hugepage_limits[i]->page_size);
    for (size_t i = 0; i < r->n_unified; i++)
        if (!cgroup_unified_ok(r->unified[i]->key))
            return status_set(err, STATUS_INVALID_ARGUMENT, "unified[%.64s]: not a limit", r->unified[i]->key);
    return true;
}

/* kubelet names every size of pages with a limit of 0 when a pod asks for none: where nothing counts them, as at create, that
 * changes nothing. */
static bool cgroup_huge_pages_asked(const Runtime__V1__LinuxContainerResources *r)
{
    for (size_t i = 0; i < r->n_hugepage_limits; i++)
        if (r->hugepage_limits[i]->limit > 0)
            return true;
    return false;
}

/* Each field that is named needs its controller. */
static bool cgroup_check_controllers(const struct cgroups *c, const Runtime__V1__LinuxContainerResources *r,
                                     struct status *err)
{
    const struct {
        const char *field, *controller;
        bool named;
        unsigned bit;
    } fields[] = {
        { "cpu_shares", "cpu", r->cpu_shares > 0, CGROUP_CPU },
        { "cpu_quota", "cpu", r->cpu_quota != 0, CGROUP_CPU },
        { "cpu_period", "cpu", r->cpu_period > 0, CGROUP_CPU },
        { "memory_limit_in_bytes", "memory", r->memory_limit_in_bytes != 0, CGROUP_MEMORY },
        { "memory_swap_limit_in_bytes", "memory", r->memory_swap_limit_in_bytes != 0, CGROUP_MEMORY },
        { "cpuset_cpus", "cpuset", *r->cpuset_cpus != '\0', CGROUP_CPUSET },
        { "cpuset_mems", "cpuset", *r->cpuset_mems != '\0', CGROUP_CPUSET },
        { "hugepage_limits", "hugetlb", cgroup_huge_pages_asked(r), CGROUP_HUGETLB },
        { "unified", "pids", r->n_unified > 0, CGROUP_PIDS },
    };
    unsigned have = 0;

    for (size_t i = 0; i < c->count; i++)
        if (c->hierarchies[i].used)
            have |= c->hierarchies[i].controllers;
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        if (!fields[i].named || (have & fields[i].bit) != 0)
            continue;
        return c->mode == CGROUP_NONE
                   ? status_set(err, STATUS_FAILED_PRECONDITION, "%s: no limits can be set here: %s", fields[i].field, c->reason)
                   : status_set(err, STATUS_FAILED_PRECONDITION, "%s: there is no cgroup with the %s controller for this pod",
                                fields[i].field, fields[i].controller);
    }
    for (size_t i = 0; i < r->n_unified && c->mode != CGROUP_V2; i++)
        if (strcmp(r->unified[i]->key, CGROUP_PIDS_MAX) != 0)
            return status_set(err, STATUS_FAILED_PRECONDITION, "unified[%.64s]: this machine's cgroups are %s, which has no such file",
                              r->unified[i]->key, cgroup_mode_name(c->mode));
    return true;
}

/* ---- a group that create did not need ---- */

struct cgroup_move {
    const char *procs_path;
    const char *members; /* who was there when this look began */
    bool moved;
};

static void cgroup_move_one(void *arg, pid_t pid)
{
    struct cgroup_move *m = arg;
    char line[24];
    int n = snprintf(line, sizeof line, "%d\n", (int)pid);
    const char *at = strstr(m->members, line);

    while (at != NULL && at != m->members && at[-1] != '\n')
        at = strstr(at + 1, line);
    if (at != NULL)
        return;
    cleanup_close int fd = open(m->procs_path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, line, (size_t)n - 1) > 0)
        m->moved = true;
}

/* v1 only: makes the container's group in h and moves its processes there. */
static bool cgroup_join(const struct cgroups *c, const struct cgroup_hierarchy *h, const char *id, const char *dir,
                        struct status *err)
{
    cleanup_free char *procs_path = xasprintf("%s/cgroup.procs", dir);
    struct cgroup_move move = { .procs_path = procs_path, .moved = true };

    if (!cgroup_make_group(c, h, dir, err))
        return false;
    for (int i = 0; move.moved && i < CGROUP_MOVES; i++) {
        cleanup_free char *members = cgroup_read_text(procs_path);
        move.members = members;
        move.moved = false;
        (void)cgroup_each(c, id, cgroup_move_one, &move);
    }
    return true;
}

/* Whether create may have left the group out, and now it is needed. */
static bool cgroup_wanted(const struct cgroup_hierarchy *h, const Runtime__V1__LinuxContainerResources *r)
{
    return ((h->controllers & CGROUP_CPUSET) != 0 && (*r->cpuset_cpus != '\0' || *r->cpuset_mems != '\0')) ||
           ((h->controllers & CGROUP_HUGETLB) != 0 && r->n_hugepage_limits > 0);
}

/* ---- writing ---- */

static bool cgroup_write_path(const char *path, const char *text)
{
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t n = strlen(text);

    return fd >= 0 && write(fd, text, n) == (ssize_t)n;
}

/* A file that lists several settings takes one a time. */
static void cgroup_restore(struct cgroup_change *change)
{
    cleanup_free char *text = xstrdup(change->old);
    char *rest = text, *line;

    while ((line = cgroup_line(&rest)) != NULL)
        (void)cgroup_write_path(change->path, line);
}

static bool cgroup_refused(const struct cgroup_plan *p, const struct cgroup_change *change, int number, struct status *err)
{
    const char *name = strrchr(change->path, '/') + 1;

    if (number == EBUSY && str_starts(change->field, "memory_"))
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s: %s uses more than that", change->field, p->who);
    if (number == EINVAL && strcmp(change->field, "memory_limit_in_bytes") == 0 && p->r->memory_swap_limit_in_bytes == 0)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "%s: the kernel does not take %s: memory_swap_limit_in_bytes, which counts both, must be raised with it",
                          change->field, change->text);
    if (str_starts(change->field, "cpuset_") && number != ENOENT)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s: the kernel does not take \"%.100s\": not in the pod's own, or no list",
                          change->field, change->text);
    if (number == ENOENT)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s: this machine's cgroups have no %s", change->field, name);
    return status_set(err, STATUS_FAILED_PRECONDITION, "%s: the kernel does not take \"%.100s\" for %s: %s", change->field,
                      change->text, name, strerror(number));
}

static bool cgroup_apply(struct cgroup_plan *p, struct status *err)
{
    for (LIST_EACH(struct cgroup_change, change, &p->changes, link)) {
        cleanup_free char *old = cgroup_read_text(change->path);
        if (cgroup_write_path(change->path, change->text)) {
            change->old = arena_strdup(&p->arena, old);
            continue;
        }
        cgroup_refused(p, change, errno, err);
        for (struct list *l = change->link.prev; l != &p->changes; l = l->prev)
            cgroup_restore(CONTAINER_OF(l, struct cgroup_change, link));
        return false;
    }
    return true;
}

bool cgroup_update(const struct cgroups *c, const char *id, const Runtime__V1__LinuxContainerResources *r, struct status *err)
{
    struct cgroup_plan plan = { .arena = ARENA_INIT, .who = *id != '\0' ? "the container" : "the pod", .r = r };
    bool ok = cgroup_check_syntax(r, err) && cgroup_check_controllers(c, r, err);

    list_init(&plan.changes);
    for (size_t i = 0; ok && i < c->count; i++) {
        const struct cgroup_hierarchy *h = &c->hierarchies[i];
        struct stat st;
        if (!h->used)
            continue;
        cleanup_free char *dir = *id != '\0' ? cgroup_path(c, h, id) : xasprintf("%s%s", h->mount, c->pod);
        bool there = stat(dir, &st) == 0;
        if (!there && !h->unified && cgroup_wanted(h, r))
            there = ok = cgroup_join(c, h, id, dir, err);
        if (there)
            ok = cgroup_plan_group(&plan, h, dir, err);
        else if (ok && (h->unified || (h->controllers & (CGROUP_CPUSET | CGROUP_HUGETLB)) == 0))
            ok = status_set(err, STATUS_FAILED_PRECONDITION, "%s has no cgroup %s", plan.who, dir);
    }
    ok = ok && cgroup_apply(&plan, err);
    arena_free(&plan.arena);
    return ok;
}

#undef CGROUP_MOVES
