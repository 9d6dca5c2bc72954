/* SPDX-License-Identifier: Apache-2.0 */
/* New limits for what is there already: a container's and the pod's. */
#include "agent/engine_impl.h"
#include "agent/process.h"
#include "agent/spec.h"
#include "agent/track.h"
#include "io/file.h"

#include <fcntl.h>
#include <unistd.h>

/* ---- oom_score_adj ---- */

struct engine_score {
    int32_t value;
    int number; /* errno of the first process that it could not be set for */
};

static void engine_score_one(void *arg, pid_t pid)
{
    struct engine_score *s = arg;
    char path[64], text[16];

    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
    snprintf(text, sizeof text, "%d", (int)s->value);
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) > 0;
    if (!ok && errno != ENOENT && errno != ESRCH && s->number == 0) /* else it has ended */
        s->number = errno;
}

static int engine_set_score(const struct engine *e, const char *id, const char *bundle, int32_t value)
{
    struct engine_score s = { .value = value };

    if (cgroup_each(&e->cgroups, id, engine_score_one, &s) < 0)
        (void)track_each(bundle, engine_score_one, &s);
    return s.number;
}

/* Those that run, and in the bundle for those to come. *old: what it was, for the way back; INT32_MIN: nothing was changed. */
static bool engine_update_score(const struct engine *e, const char *id, const char *bundle, int64_t wanted, int32_t *old,
                                struct status *err)
{
    struct process process cleanup_process = { .arena = ARENA_INIT };

    *old = INT32_MIN;
    if (wanted == 0)
        return true;
    if (wanted < -1000 || wanted > 1000)
        return status_set(err, STATUS_INVALID_ARGUMENT, "oom_score_adj: %" PRId64 " is not within -1000 to 1000", wanted);
    if (!process_read(&process, bundle, err))
        return false;
    int32_t before = process.has_oom_score_adj ? process.oom_score_adj : 0;
    process.has_oom_score_adj = true;
    process.oom_score_adj = spec_clamp_score((int32_t)wanted);
    if (!process_write(&process, bundle, err))
        return false;
    *old = before;
    int number = engine_set_score(e, id, bundle, process.oom_score_adj);
    return number == 0 || status_set(err, STATUS_FAILED_PRECONDITION, "oom_score_adj: cannot be set: %s", strerror(number));
}

static void engine_restore_score(const struct engine *e, const char *id, const char *bundle, int32_t old)
{
    struct process process cleanup_process = { .arena = ARENA_INIT };
    struct status ignored;

    if (old == INT32_MIN || !process_read(&process, bundle, &ignored))
        return;
    process.oom_score_adj = old;
    (void)process_write(&process, bundle, &ignored);
    (void)engine_set_score(e, id, bundle, old);
}

bool engine_update(struct engine *e, const char *id, const char *bundle, const Runtime__V1__LinuxContainerResources *r,
                   struct status *err)
{
    char message[STATUS_MESSAGE_MAX];
    int32_t old;

    if (engine_update_score(e, id, bundle, r->oom_score_adj, &old, err) && cgroup_update(&e->cgroups, id, r, err))
        return true;
    engine_restore_score(e, id, bundle, old);
    snprintf(message, sizeof message, "%s", err->message);
    return status_set(err, err->code, "linux.%s", message);
}

/* ---- the pod ---- */

/* Of quotas over different periods: in the period of the first. -1 and less: no limit. */
static int64_t engine_sum_quota(const Runtime__V1__LinuxContainerResources *a, const Runtime__V1__LinuxContainerResources *b)
{
    if (a->cpu_quota < 0 || b->cpu_quota < 0)
        return -1;
    if (b->cpu_quota == 0 || b->cpu_period <= 0 || a->cpu_period <= 0)
        return a->cpu_quota + b->cpu_quota;
    return a->cpu_quota + (int64_t)((double)b->cpu_quota * (double)a->cpu_period / (double)b->cpu_period);
}

static int64_t engine_sum(int64_t a, int64_t b)
{
    int64_t sum;

    if (a < 0 || b < 0)
        return -1;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static size_t engine_sum_hugepages(const Runtime__V1__LinuxContainerResources *r, Runtime__V1__HugepageLimit **out, size_t n)
{
    for (size_t i = 0; i < r->n_hugepage_limits; i++) {
        Runtime__V1__HugepageLimit *add = r->hugepage_limits[i];
        size_t at = 0;
        while (at < n && strcmp(out[at]->page_size, add->page_size) != 0)
            at++;
        if (at < n)
            out[at]->limit += add->limit;
        else
            out[n++] = add;
    }
    return n;
}

bool engine_update_pod(struct engine *e, const Runtime__V1__LinuxContainerResources *overhead,
                       const Runtime__V1__LinuxContainerResources *resources, struct status *err)
{
    static const Runtime__V1__LinuxContainerResources none = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    const Runtime__V1__LinuxContainerResources *a = resources != NULL ? resources : &none;
    const Runtime__V1__LinuxContainerResources *b = overhead != NULL ? overhead : &none;
    Runtime__V1__LinuxContainerResources sum = *a;
    char message[STATUS_MESSAGE_MAX];

    if (e->cgroups.given)
        return true;
    sum.cpu_shares = engine_sum(a->cpu_shares, b->cpu_shares);
    sum.cpu_quota = engine_sum_quota(a, b);
    sum.cpu_period = a->cpu_period > 0 ? a->cpu_period : b->cpu_period;
    sum.memory_limit_in_bytes = engine_sum(a->memory_limit_in_bytes, b->memory_limit_in_bytes);
    sum.memory_swap_limit_in_bytes = engine_sum(a->memory_swap_limit_in_bytes, b->memory_swap_limit_in_bytes);
    cleanup_free Runtime__V1__HugepageLimit **pages =
        xcalloc(a->n_hugepage_limits + b->n_hugepage_limits + 1, sizeof(Runtime__V1__HugepageLimit *));
    sum.n_hugepage_limits = engine_sum_hugepages(b, pages, engine_sum_hugepages(a, pages, 0));
    sum.hugepage_limits = pages;
    if (cgroup_update(&e->cgroups, "", &sum, err))
        return true;
    snprintf(message, sizeof message, "%s", err->message);
    return status_set(err, err->code, "resources.%s", message);
}
