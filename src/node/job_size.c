/* SPDX-License-Identifier: Apache-2.0 */
#include "node/job_size.h"

#include "interlink/slurm_flags.h"
#include "rpc/pb.h"
#include "text/timefmt.h"

/* Kubernetes' least and largest cpu_shares: the first is what a pod without a request gets and says nothing about its size, the
 * second stands for 256 CPUs and all above. */
#define JOB_SIZE_SHARES_MIN 2
#define JOB_SIZE_SHARES_MAX 262144

struct job_size_choice {
    struct arena *arena;
    Interlink__State__V1__JobSize *size; /* arrays on the arena */
};

static void job_size_add(struct job_size_choice *c, const char *resource, int64_t request, int64_t limit, const char *source)
{
    Interlink__State__V1__JobSize *size = c->size;
    Interlink__State__V1__JobSize__Amount *amount = ARENA_NEW(c->arena, Interlink__State__V1__JobSize__Amount);

    if (limit <= 0 || size->n_amounts == POD_SIZE_RESOURCES_MAX)
        return;
    for (size_t i = 0; i < size->n_amounts; i++)
        if (strcmp(size->amounts[i]->resource, resource) == 0)
            return; /* who spoke first counts */
    interlink__state__v1__job_size__amount__init(amount);
    amount->resource = arena_strdup(c->arena, resource);
    amount->request = (char *)(uintptr_t)pod_size_text(c->arena, resource, request);
    amount->limit = (char *)(uintptr_t)pod_size_text(c->arena, resource, limit);
    amount->source = arena_strdup(c->arena, source);
    size->amounts[size->n_amounts++] = amount;
}

static void job_size_add_walltime(struct job_size_choice *c, int64_t seconds, const char *source)
{
    if (seconds <= 0 || c->size->walltime_seconds > 0)
        return;
    c->size->walltime_seconds = seconds < INT32_MAX ? seconds : INT32_MAX;
    c->size->walltime_source = arena_strdup(c->arena, source);
}

/* ---- annotations ---- */

/* "nvidia.com_gpu" is nvidia.com/gpu. NULL: no resource has that name. */
static const char *job_size_resource(struct arena *arena, const char *suffix)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    char *name = arena_strdup(arena, suffix), *mark = strchr(name, '_');

    if (strcmp(name, "cpu") == 0 || strcmp(name, "memory") == 0 || strcmp(name, "ephemeral-storage") == 0)
        return name;
    if (strspn(name, allowed) != strlen(name))
        return NULL;
    if (str_starts(name, "hugepages-") && mark == NULL)
        return name;
    if (mark == NULL || mark == name || mark[1] == '\0')
        return NULL;
    *mark = '/';
    return name;
}

static bool job_size_read_amount(struct job_size_choice *c, const char *name, const char *text, struct status *err)
{
    const char *resource = job_size_resource(c->arena, name + strlen(JOB_SIZE_PREFIX));
    int64_t value;

    if (resource == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "annotation %.128s: there is no such resource: wanted cpu, memory, ephemeral-storage, or an extended "
                          "one with \"_\" for its slash, as in %snvidia.com_gpu", name, JOB_SIZE_PREFIX);
    if (!pod_size_parse(resource, text, &value, err))
        return status_prefix(err, "annotation %.128s", name);
    if (value == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "annotation %.128s: must be above zero", name);
    job_size_add(c, resource, value, value, name);
    return true;
}

/* "2h30m", a number of seconds, or one of Slurm's times with a colon or a dash. */
static bool job_size_read_walltime(struct job_size_choice *c, const char *text, struct status *err)
{
    uint64_t seconds;
    int64_t ns, value = 0;

    if (parse_u64(text, INT32_MAX, &seconds))
        value = (int64_t)seconds;
    else if (strpbrk(text, ":-") != NULL)
        value = slurm_flags_time(text, &value) && value <= INT32_MAX ? value : 0;
    else if (timefmt_parse_duration(text, &ns) && ns > 0)
        value = (ns + 999999999) / 1000000000;
    if (value <= 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "annotation " JOB_SIZE_WALLTIME ": wanted a duration above zero like 2h30m, "
                          "3600 (seconds) or 1-12:00:00, found \"%.64s\"", text);
    job_size_add_walltime(c, value, JOB_SIZE_WALLTIME);
    return true;
}

static bool job_size_from_annotations(struct job_size_choice *c, const Runtime__V1__PodSandboxConfig *config,
                                      struct status *err)
{
    for (size_t i = 0; i < config->n_annotations; i++) {
        const char *name = config->annotations[i]->key, *text = config->annotations[i]->value;
        if (str_starts(name, JOB_SIZE_PREFIX) && !job_size_read_amount(c, name, text, err))
            return false;
        if (strcmp(name, JOB_SIZE_WALLTIME) == 0 && !job_size_read_walltime(c, text, err))
            return false;
    }
    const char *flags = pb_label(config->n_annotations, (void *)config->annotations, SLURM_FLAGS_ANNOTATION);
    if (flags == NULL)
        return true;
    struct slurm_flags said = slurm_flags_read(flags);
    job_size_add(c, "cpu", said.cpus_per_task * 1000, said.cpus_per_task * 1000, SLURM_FLAGS_ANNOTATION);
    job_size_add(c, "memory", said.memory, said.memory, SLURM_FLAGS_ANNOTATION);
    job_size_add_walltime(c, said.seconds, SLURM_FLAGS_ANNOTATION);
    return true;
}

/* ---- CRI ---- */

struct job_size_cri {
    int64_t cpu_request, cpu_limit, memory;
};

static void job_size_cri_add(struct job_size_cri *sum, const Runtime__V1__LinuxContainerResources *r)
{
    int64_t request = 0, limit = 0;

    if (r == NULL)
        return;
    if (r->cpu_shares > JOB_SIZE_SHARES_MIN)
        request = (r->cpu_shares * 1000 + 1023) / 1024;
    if (r->cpu_quota > 0 && r->cpu_period > 0)
        limit = (int64_t)(((__int128)r->cpu_quota * 1000 + r->cpu_period - 1) / r->cpu_period);
    if (limit == 0)
        limit = request;
    if (request == 0 || request > limit || r->cpu_shares >= JOB_SIZE_SHARES_MAX)
        request = limit;
    sum->cpu_request += request;
    sum->cpu_limit += limit;
    if (r->memory_limit_in_bytes > 0 && __builtin_add_overflow(sum->memory, r->memory_limit_in_bytes, &sum->memory))
        sum->memory = INT64_MAX;
}

/* CRI writes the size of huge pages as "2MB" and "1GB", and means binary units. */
static void job_size_add_hugepages(struct job_size_choice *c, const Runtime__V1__LinuxContainerResources *r)
{
    for (size_t i = 0; r != NULL && i < r->n_hugepage_limits; i++) {
        const char *size = r->hugepage_limits[i]->page_size;
        size_t n = strlen(size);
        if (n < 3 || n > 16 || size[n - 1] != 'B' || r->hugepage_limits[i]->limit == 0 ||
            r->hugepage_limits[i]->limit > INT64_MAX)
            continue;
        int64_t limit = (int64_t)r->hugepage_limits[i]->limit;
        job_size_add(c, arena_printf(c->arena, "hugepages-%.*si", (int)n - 1, size), limit, limit, "cri");
    }
}

static void job_size_from_cri(struct job_size_choice *c, const Runtime__V1__PodSandboxConfig *config)
{
    struct job_size_cri sum = { 0, 0, 0 };

    if (config->linux == NULL)
        return;
    job_size_cri_add(&sum, config->linux->resources);
    job_size_cri_add(&sum, config->linux->overhead);
    job_size_add(c, "cpu", sum.cpu_request, sum.cpu_limit, "cri");
    job_size_add(c, "memory", sum.memory, sum.memory, "cri");
    job_size_add_hugepages(c, config->linux->resources);
}

/* ---- all of it ---- */

Interlink__State__V1__JobSize *job_size_choose(const Runtime__V1__PodSandboxConfig *config, const struct pod_size *pod,
                                               const struct node_size_options *defaults, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    Interlink__State__V1__JobSize size = INTERLINK__STATE__V1__JOB_SIZE__INIT;
    struct job_size_choice c = { &arena, &size };

    size.amounts = ARENA_ARRAY(&arena, Interlink__State__V1__JobSize__Amount *, POD_SIZE_RESOURCES_MAX);
    for (size_t i = 0; pod != NULL && i < pod->count; i++)
        job_size_add(&c, pod->amounts[i].resource, pod->amounts[i].request, pod->amounts[i].limit, "pod");
    if (pod != NULL)
        job_size_add_walltime(&c, pod->deadline_s, "pod");
    if (!job_size_from_annotations(&c, config, err))
        return NULL;
    job_size_from_cri(&c, config);
    job_size_add(&c, "cpu", defaults->cpu_milli, defaults->cpu_milli, "Defaults");
    job_size_add(&c, "memory", (int64_t)defaults->memory, (int64_t)defaults->memory, "Defaults");
    job_size_add_walltime(&c, (defaults->walltime_ms + 999) / 1000, "Defaults");
    return (void *)pb_copy(&size.base);
}

Interlink__State__V1__JobSize *job_size_choose_container(const Runtime__V1__PodSandboxConfig *pod,
                                                         const Runtime__V1__ContainerConfig *config,
                                                         const struct node_size_options *defaults, struct status *err)
{
    Runtime__V1__PodSandboxConfig one = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
    Runtime__V1__LinuxPodSandboxConfig resources = RUNTIME__V1__LINUX_POD_SANDBOX_CONFIG__INIT;

    one.n_annotations = pod->n_annotations;
    one.annotations = pod->annotations;
    one.linux = &resources;
    resources.resources = config->linux != NULL ? config->linux->resources : NULL;
    return job_size_choose(&one, NULL, defaults, err);
}

const char *job_size_text(struct arena *arena, const Interlink__State__V1__JobSize *size)
{
    const char *text = "";
    char walltime[TIMEFMT_SIZE];

    for (size_t i = 0; size != NULL && i < size->n_amounts; i++) {
        const Interlink__State__V1__JobSize__Amount *a = size->amounts[i];
        bool range = strcmp(a->request, a->limit) != 0;
        text = arena_printf(arena, "%s%s%s=%s%s%s (%s)", text, *text != '\0' ? ", " : "", a->resource, range ? a->request : "",
                            range ? ".." : "", a->limit, a->source);
    }
    if (size == NULL || size->walltime_seconds == 0)
        return text;
    timefmt_duration(size->walltime_seconds * 1000000000, walltime);
    return arena_printf(arena, "%s%swalltime=%s (%s)", text, *text != '\0' ? ", " : "", walltime, size->walltime_source);
}

#undef JOB_SIZE_SHARES_MIN
#undef JOB_SIZE_SHARES_MAX
