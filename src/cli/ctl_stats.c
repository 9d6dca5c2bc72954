/* SPDX-License-Identifier: Apache-2.0 */
/* stats, statsp, metricsp, metricdescs. */
#include "cli/ctl.h"

#include <unistd.h>

/* Between two tables with --watch, beside the time that CPU use is measured over. */
#define CTL_WATCH_MS 500

/* ---- waiting and drawing ---- */

static bool ctl_wait(struct ctl *ctl, int64_t ms, struct status *err)
{
    int64_t deadline = clock_mono_ms() + ms;

    for (int64_t left = ms; left > 0; left = deadline - clock_mono_ms())
        if (!ctl_turn(ctl, left < INT32_MAX ? (int)left : INT32_MAX, err))
            return false;
    return true;
}

/* Once, or with --watch until it is interrupted, which is no failure then. */
static int ctl_watch(struct ctl *ctl, bool (*show)(struct ctl *ctl, enum ctl_format format, struct status *err),
                     enum ctl_format fallback)
{
    struct status err = STATUS_INIT;
    enum ctl_format format;
    bool ok = ctl_format(ctl, fallback, &format, &err);

    if (ctl->flags.sample_seconds < 0 || ctl->flags.sample_seconds > INT32_MAX / 1000)
        ok = status_set(&err, STATUS_INVALID_ARGUMENT, "--seconds: wanted a number of seconds");
    /* What one look takes is given back, for this may go on for days. */
    struct arena lasting = ctl->arena, passing = ARENA_INIT;
    do {
        ctl->arena = passing;
        ok = ok && show(ctl, format, &err) && ctl_flush(ctl);
        passing = ctl->arena;
        arena_reset(&passing);
        ctl->arena = lasting;
    } while (ok && ctl->flags.watch && ctl_wait(ctl, CTL_WATCH_MS, &err));
    arena_free(&passing);
    if (ok || (ctl->flags.watch && ctl->interrupted))
        return 0;
    return ctl_fail(ctl, &err);
}

/* The next table takes the last one's place. */
static void ctl_clear_screen(struct ctl *ctl)
{
    if (ctl->flags.watch && isatty(STDOUT_FILENO) == 1)
        buf_append_str(&ctl->out, "\033[2J\033[H");
}

static uint64_t ctl_value(const Runtime__V1__UInt64Value *value)
{
    return value != NULL ? value->value : 0;
}

/* What of one CPU was used between two looks, in percent. */
static bool ctl_cpu_percent(struct ctl *ctl, const Runtime__V1__CpuUsage *before, const Runtime__V1__CpuUsage *now,
                            const char **out, struct status *err)
{
    uint64_t used = now != NULL ? ctl_value(now->usage_core_nano_seconds) : 0;
    double percent = 0;

    if (used > 0) { /* it runs */
        int64_t duration = now->timestamp - (before != NULL ? before->timestamp : 0);
        if (duration == 0)
            return status_set(err, STATUS_UNAVAILABLE, "the runtime has not measured again meanwhile; try a longer --seconds");
        percent = ((double)used - (double)(before != NULL ? ctl_value(before->usage_core_nano_seconds) : 0)) /
                  (double)duration * 100;
    }
    *out = arena_printf(&ctl->arena, "%.2f", percent);
    return true;
}

/* ---- containers ---- */

static int ctl_compare_container_stats(const void *a, const void *b)
{
    const Runtime__V1__ContainerStats *const *x = a, *const *y = b;

    return strcmp((*x)->attributes->id, (*y)->attributes->id);
}

/* Sorted by id; those without one are left out. NULL on failure. */
static Runtime__V1__ListContainerStatsResponse *ctl_container_stats(struct ctl *ctl, struct status *err)
{
    Runtime__V1__ContainerStatsFilter filter = RUNTIME__V1__CONTAINER_STATS_FILTER__INIT;
    Runtime__V1__ListContainerStatsRequest request = RUNTIME__V1__LIST_CONTAINER_STATS_REQUEST__INIT;
    size_t n = 0;

    request.filter = &filter;
    filter.id = (char *)(uintptr_t)ctl->flags.id;
    filter.pod_sandbox_id = (char *)(uintptr_t)ctl->flags.pod;
    if (!ctl_read_pairs(ctl, &ctl->flags.labels, &runtime__v1__container_stats_filter__label_selector_entry__descriptor,
                        &filter.n_label_selector, &filter.label_selector, err))
        return NULL;
    Runtime__V1__ListContainerStatsResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "ListContainerStats", &request, &runtime__v1__list_container_stats_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err);
    for (size_t i = 0; r != NULL && i < r->n_stats; i++)
        if (r->stats[i]->attributes != NULL)
            r->stats[n++] = r->stats[i];
    if (r != NULL) {
        r->n_stats = n;
        qsort(r->stats, n, sizeof *r->stats, ctl_compare_container_stats);
    }
    return r;
}

static bool ctl_container_stats_row(struct ctl *ctl, struct ctl_table *table, const Runtime__V1__ContainerStats *before,
                                    const Runtime__V1__ContainerStats *s, struct status *err)
{
    uint64_t memory = s->memory != NULL ? ctl_value(s->memory->working_set_bytes) : 0;
    const Runtime__V1__FilesystemUsage *disk = s->writable_layer;
    const char *cpu;

    if (!ctl->flags.all && memory == 0 && (s->cpu == NULL || ctl_value(s->cpu->usage_core_nano_seconds) == 0))
        return true; /* it does not run */
    if (!ctl_cpu_percent(ctl, before->cpu, s->cpu, &cpu, err))
        return false;
    const char *cells[] = {
        ctl_short_id(ctl, s->attributes->id),
        s->attributes->metadata != NULL ? s->attributes->metadata->name : "",
        cpu,
        ctl_size(ctl, (double)memory, 4),
        ctl_size(ctl, disk != NULL ? (double)ctl_value(disk->used_bytes) : 0, 4),
        arena_printf(&ctl->arena, "%" PRIu64, disk != NULL ? ctl_value(disk->inodes_used) : 0),
        ctl_size(ctl, s->swap != NULL ? (double)ctl_value(s->swap->swap_usage_bytes) : 0, 4),
    };
    ctl_table_row(table, cells);
    return true;
}

static bool ctl_show_stats(struct ctl *ctl, enum ctl_format format, struct status *err)
{
    static const char *const titles[] = { "CONTAINER", "NAME", "CPU %", "MEM", "DISK", "INODES", "SWAP" };
    const Runtime__V1__ListContainerStatsResponse *before = ctl_container_stats(ctl, err), *now;
    size_t at = 0;

    if (before == NULL)
        return false;
    if (format != CTL_TABLE) {
        ctl_print_message(ctl, &before->base, format);
        return true;
    }
    if (!ctl_wait(ctl, ctl->flags.sample_seconds * 1000, err) || (now = ctl_container_stats(ctl, err)) == NULL)
        return false;
    struct ctl_table table = ctl_table_new(ctl, titles, COUNT_OF(titles));
    for (size_t i = 0; i < now->n_stats; i++) {
        const char *id = now->stats[i]->attributes->id;
        while (at < before->n_stats && strcmp(before->stats[at]->attributes->id, id) < 0)
            at++;
        if (at < before->n_stats && strcmp(before->stats[at]->attributes->id, id) == 0 &&
            !ctl_container_stats_row(ctl, &table, before->stats[at], now->stats[i], err))
            return false;
    }
    ctl_clear_screen(ctl);
    ctl_table_print(&table);
    return true;
}

/* The one argument is an id, as --id. */
static void ctl_take_id(struct ctl *ctl, const char *const *arguments, size_t count)
{
    if (count > 0 && *ctl->flags.id == '\0')
        ctl->flags.id = arguments[0];
}

int ctl_stats(void *context, const char *const *arguments, size_t count)
{
    ctl_take_id(context, arguments, count);
    return ctl_watch(context, ctl_show_stats, CTL_TABLE);
}

/* ---- pods ---- */

static int ctl_compare_pod_stats(const void *a, const void *b)
{
    const Runtime__V1__PodSandboxStats *const *x = a, *const *y = b;

    return strcmp((*x)->attributes->id, (*y)->attributes->id);
}

static Runtime__V1__ListPodSandboxStatsResponse *ctl_pod_stats(struct ctl *ctl, struct status *err)
{
    Runtime__V1__PodSandboxStatsFilter filter = RUNTIME__V1__POD_SANDBOX_STATS_FILTER__INIT;
    Runtime__V1__ListPodSandboxStatsRequest request = RUNTIME__V1__LIST_POD_SANDBOX_STATS_REQUEST__INIT;
    size_t n = 0;

    request.filter = &filter;
    filter.id = (char *)(uintptr_t)ctl->flags.id;
    if (!ctl_read_pairs(ctl, &ctl->flags.labels, &runtime__v1__pod_sandbox_stats_filter__label_selector_entry__descriptor,
                        &filter.n_label_selector, &filter.label_selector, err))
        return NULL;
    Runtime__V1__ListPodSandboxStatsResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "ListPodSandboxStats", &request,
                 &runtime__v1__list_pod_sandbox_stats_response__descriptor, CTL_CALL_TIMEOUT_MS, err);
    for (size_t i = 0; r != NULL && i < r->n_stats; i++)
        if (r->stats[i]->attributes != NULL)
            r->stats[n++] = r->stats[i];
    if (r != NULL) {
        r->n_stats = n;
        qsort(r->stats, n, sizeof *r->stats, ctl_compare_pod_stats);
    }
    return r;
}

static bool ctl_pod_stats_row(struct ctl *ctl, struct ctl_table *table, const Runtime__V1__PodSandboxStats *before,
                              const Runtime__V1__PodSandboxStats *s, struct status *err)
{
    const Runtime__V1__LinuxPodSandboxStats *now = s->linux;
    uint64_t memory = now != NULL && now->memory != NULL ? ctl_value(now->memory->working_set_bytes) : 0;
    const char *cpu;

    if (memory == 0 && (now == NULL || now->cpu == NULL || ctl_value(now->cpu->usage_core_nano_seconds) == 0))
        return true;
    if (!ctl_cpu_percent(ctl, before->linux != NULL ? before->linux->cpu : NULL, now->cpu, &cpu, err))
        return false;
    const char *cells[] = {
        s->attributes->metadata != NULL ? s->attributes->metadata->name : "",
        ctl_short_id(ctl, s->attributes->id),
        cpu,
        ctl_size(ctl, (double)memory, 4),
    };
    ctl_table_row(table, cells);
    return true;
}

static bool ctl_show_statsp(struct ctl *ctl, enum ctl_format format, struct status *err)
{
    static const char *const titles[] = { "POD", "POD ID", "CPU %", "MEM" };
    const Runtime__V1__ListPodSandboxStatsResponse *before = ctl_pod_stats(ctl, err), *now;
    size_t at = 0;

    if (before == NULL)
        return false;
    if (format != CTL_TABLE) {
        ctl_print_message(ctl, &before->base, format);
        return true;
    }
    if (!ctl_wait(ctl, ctl->flags.sample_seconds * 1000, err) || (now = ctl_pod_stats(ctl, err)) == NULL)
        return false;
    struct ctl_table table = ctl_table_new(ctl, titles, COUNT_OF(titles));
    for (size_t i = 0; i < now->n_stats; i++) {
        const char *id = now->stats[i]->attributes->id;
        while (at < before->n_stats && strcmp(before->stats[at]->attributes->id, id) < 0)
            at++;
        if (at < before->n_stats && strcmp(before->stats[at]->attributes->id, id) == 0 &&
            !ctl_pod_stats_row(ctl, &table, before->stats[at], now->stats[i], err))
            return false;
    }
    ctl_clear_screen(ctl);
    ctl_table_print(&table);
    return true;
}

int ctl_statsp(void *context, const char *const *arguments, size_t count)
{
    ctl_take_id(context, arguments, count);
    return ctl_watch(context, ctl_show_statsp, CTL_TABLE);
}

/* ---- metrics ---- */

static bool ctl_show_metrics(struct ctl *ctl, enum ctl_format format, struct status *err)
{
    Runtime__V1__ListPodSandboxMetricsRequest request = RUNTIME__V1__LIST_POD_SANDBOX_METRICS_REQUEST__INIT;
    const Runtime__V1__ListPodSandboxMetricsResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "ListPodSandboxMetrics", &request,
                 &runtime__v1__list_pod_sandbox_metrics_response__descriptor, CTL_CALL_TIMEOUT_MS, err);

    if (r != NULL)
        ctl_print_message(ctl, &r->base, format);
    return r != NULL;
}

static bool ctl_show_descriptors(struct ctl *ctl, enum ctl_format format, struct status *err)
{
    Runtime__V1__ListMetricDescriptorsRequest request = RUNTIME__V1__LIST_METRIC_DESCRIPTORS_REQUEST__INIT;
    const Runtime__V1__ListMetricDescriptorsResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "ListMetricDescriptors", &request,
                 &runtime__v1__list_metric_descriptors_response__descriptor, CTL_CALL_TIMEOUT_MS, err);

    if (r != NULL)
        ctl_print_message(ctl, &r->base, format);
    return r != NULL;
}

static int ctl_metrics_as(struct ctl *ctl, bool (*show)(struct ctl *ctl, enum ctl_format format, struct status *err))
{
    struct status err = STATUS_INIT;

    if (strcmp(ctl->flags.output, "table") != 0)
        return ctl_watch(ctl, show, CTL_JSON);
    status_set(&err, STATUS_INVALID_ARGUMENT, "--output: wanted json or yaml");
    return ctl_fail(ctl, &err);
}

int ctl_metricsp(void *context, const char *const *arguments, size_t count)
{
    (void)arguments;
    (void)count;
    return ctl_metrics_as(context, ctl_show_metrics);
}

int ctl_metricdescs(void *context, const char *const *arguments, size_t count)
{
    (void)arguments;
    (void)count;
    return ctl_metrics_as(context, ctl_show_descriptors);
}

#undef CTL_WATCH_MS
