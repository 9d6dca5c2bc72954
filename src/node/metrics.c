/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.c: usage under the names that cAdvisor gave it, with its labels, types and units, so that the dashboards and alerts of
 * Kubernetes hold (KEP-2371; github.com/google/cadvisor, docs/storage/prometheus.md). A value is a whole number in CRI, so
 * times lose their fractions of a second. */
#include "node/container.h"
#include "node/stats.h"
#include "rpc/pb.h"

/* What every metric is labelled with, as kubelet labels cAdvisor's; a metric's own labels come behind. */
static const char *const metrics_labels[] = { "id", "name", "image", "container", "pod", "namespace" };
#define METRICS_LABELS COUNT_OF(metrics_labels)
#define METRICS_OWN_LABELS_MAX 4

#define METRICS_SECOND 1000000000ull

struct metrics_kind {
    const char *name, *help;
    bool gauge;
    uint64_t divisor; /* from ours to the metric's unit; 0: 1 */
    const char *labels[METRICS_OWN_LABELS_MAX];
};

/* What we know ourselves, after what agents count. */
enum {
    METRICS_LAST_SEEN = INTERLINK__AGENT__V1__COUNTER_KIND__COUNTER_IO_STALLED + 1,
    METRICS_START_TIME,
    METRICS_SPEC_CPU_PERIOD,
    METRICS_SPEC_CPU_QUOTA,
    METRICS_SPEC_CPU_SHARES,
    METRICS_SPEC_MEMORY_LIMIT,
    METRICS_SPEC_MEMORY_RESERVATION,
    METRICS_SPEC_MEMORY_SWAP_LIMIT,
    METRICS_KINDS,
};

/* A metric that goes up and down, one that only grows, and one of the kind in seconds. Own labels, then NULL. */
#define METRICS_GAUGE(name, help, ...) { "container_" name, help, true, 1, { __VA_ARGS__ } }
#define METRICS_COUNTER(name, help, ...) { "container_" name, help, false, 1, { __VA_ARGS__ } }
#define METRICS_SECONDS(name, help, ...) { "container_" name, help, false, METRICS_SECOND, { __VA_ARGS__ } }
#define METRICS_KIND(kind) [INTERLINK__AGENT__V1__COUNTER_KIND__COUNTER_##kind]

static const struct metrics_kind metrics_kinds[METRICS_KINDS] = {
    METRICS_KIND(CPU_USAGE) = METRICS_SECONDS("cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", "cpu"),
    METRICS_KIND(CPU_USER) = METRICS_SECONDS("cpu_user_seconds_total",
        "Cumulative user cpu time consumed in seconds.", NULL),
    METRICS_KIND(CPU_SYSTEM) = METRICS_SECONDS("cpu_system_seconds_total",
        "Cumulative system cpu time consumed in seconds.", NULL),
    METRICS_KIND(CFS_PERIODS) = METRICS_COUNTER("cpu_cfs_periods_total",
        "Number of elapsed enforcement period intervals.", NULL),
    METRICS_KIND(CFS_THROTTLED_PERIODS) = METRICS_COUNTER("cpu_cfs_throttled_periods_total",
        "Number of throttled period intervals.", NULL),
    METRICS_KIND(CFS_THROTTLED_TIME) = METRICS_SECONDS("cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.", NULL),
    METRICS_KIND(MEMORY_USAGE) = METRICS_GAUGE("memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed.", NULL),
    METRICS_KIND(MEMORY_MAX_USAGE) = METRICS_GAUGE("memory_max_usage_bytes",
        "Maximum memory usage recorded in bytes.", NULL),
    METRICS_KIND(MEMORY_WORKING_SET) = METRICS_GAUGE("memory_working_set_bytes", "Current working set in bytes.", NULL),
    METRICS_KIND(MEMORY_RSS) = METRICS_GAUGE("memory_rss", "Size of RSS in bytes.", NULL),
    METRICS_KIND(MEMORY_CACHE) = METRICS_GAUGE("memory_cache", "Number of bytes of page cache memory.", NULL),
    METRICS_KIND(MEMORY_KERNEL) = METRICS_GAUGE("memory_kernel_usage", "Size of kernel memory allocated in bytes.", NULL),
    METRICS_KIND(MEMORY_MAPPED_FILE) = METRICS_GAUGE("memory_mapped_file", "Size of memory mapped files in bytes.", NULL),
    METRICS_KIND(MEMORY_SWAP) = METRICS_GAUGE("memory_swap", "Container swap usage in bytes.", NULL),
    METRICS_KIND(MEMORY_LIMIT_HITS) = METRICS_COUNTER("memory_failcnt", "Number of memory usage hits limits.", NULL),
    METRICS_KIND(MEMORY_FAILURES) = METRICS_COUNTER("memory_failures_total",
        "Cumulative count of memory allocation failures.", "failure_type", "scope"),
    METRICS_KIND(OOM_EVENTS) = METRICS_COUNTER("oom_events_total",
        "Count of out of memory events observed for the container.", NULL),
    METRICS_KIND(FS_USAGE) = METRICS_GAUGE("fs_usage_bytes",
        "Number of bytes that are consumed by the container on this filesystem.", "device"),
    METRICS_KIND(FS_LIMIT) = METRICS_GAUGE("fs_limit_bytes",
        "Number of bytes that can be consumed by the container on this filesystem.", "device"),
    METRICS_KIND(FS_INODES) = METRICS_GAUGE("fs_inodes_total", "Number of inodes.", "device"),
    METRICS_KIND(FS_INODES_FREE) = METRICS_GAUGE("fs_inodes_free", "Number of available inodes.", "device"),
    METRICS_KIND(FS_READ_BYTES) = METRICS_COUNTER("fs_reads_bytes_total", "Cumulative count of bytes read.", "device"),
    METRICS_KIND(FS_READS) = METRICS_COUNTER("fs_reads_total", "Cumulative count of reads completed.", "device"),
    METRICS_KIND(FS_WRITTEN_BYTES) = METRICS_COUNTER("fs_writes_bytes_total",
        "Cumulative count of bytes written.", "device"),
    METRICS_KIND(FS_WRITES) = METRICS_COUNTER("fs_writes_total", "Cumulative count of writes completed.", "device"),
    METRICS_KIND(DEVICE_USAGE) = METRICS_COUNTER("blkio_device_usage_total",
        "Blkio device bytes usage.", "device", "major", "minor", "operation"),
    METRICS_KIND(HUGETLB_USAGE) = METRICS_GAUGE("hugetlb_usage_bytes", "Current hugepage usage in bytes.", "pagesize"),
    METRICS_KIND(HUGETLB_MAX_USAGE) = METRICS_GAUGE("hugetlb_max_usage_bytes",
        "Maximum hugepage usage recorded in bytes.", "pagesize"),
    METRICS_KIND(RECEIVED_BYTES) = METRICS_COUNTER("network_receive_bytes_total",
        "Cumulative count of bytes received.", "interface"),
    METRICS_KIND(RECEIVED_PACKETS) = METRICS_COUNTER("network_receive_packets_total",
        "Cumulative count of packets received.", "interface"),
    METRICS_KIND(RECEIVED_DROPPED) = METRICS_COUNTER("network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving.", "interface"),
    METRICS_KIND(RECEIVED_ERRORS) = METRICS_COUNTER("network_receive_errors_total",
        "Cumulative count of errors encountered while receiving.", "interface"),
    METRICS_KIND(TRANSMITTED_BYTES) = METRICS_COUNTER("network_transmit_bytes_total",
        "Cumulative count of bytes transmitted.", "interface"),
    METRICS_KIND(TRANSMITTED_PACKETS) = METRICS_COUNTER("network_transmit_packets_total",
        "Cumulative count of packets transmitted.", "interface"),
    METRICS_KIND(TRANSMITTED_DROPPED) = METRICS_COUNTER("network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting.", "interface"),
    METRICS_KIND(TRANSMITTED_ERRORS) = METRICS_COUNTER("network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting.", "interface"),
    METRICS_KIND(PROCESSES) = METRICS_GAUGE("processes", "Number of processes running inside the container.", NULL),
    METRICS_KIND(THREADS) = METRICS_GAUGE("threads", "Number of threads running inside the container.", NULL),
    METRICS_KIND(THREADS_MAX) = METRICS_GAUGE("threads_max",
        "Maximum number of threads allowed inside the container, infinity if value is zero.", NULL),
    METRICS_KIND(FILE_DESCRIPTORS) = METRICS_GAUGE("file_descriptors",
        "Number of open file descriptors for the container.", NULL),
    METRICS_KIND(SOCKETS) = METRICS_GAUGE("sockets", "Number of open sockets for the container.", NULL),
    METRICS_KIND(ULIMIT_SOFT) = METRICS_GAUGE("ulimits_soft",
        "Soft ulimit values for the container root process.", "ulimit"),
    METRICS_KIND(CPU_WAITING) = METRICS_SECONDS("pressure_cpu_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to CPU congestion.", NULL),
    METRICS_KIND(CPU_STALLED) = METRICS_SECONDS("pressure_cpu_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to CPU congestion.", NULL),
    METRICS_KIND(MEMORY_WAITING) = METRICS_SECONDS("pressure_memory_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to memory congestion.", NULL),
    METRICS_KIND(MEMORY_STALLED) = METRICS_SECONDS("pressure_memory_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to memory congestion.", NULL),
    METRICS_KIND(IO_WAITING) = METRICS_SECONDS("pressure_io_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to IO congestion.", NULL),
    METRICS_KIND(IO_STALLED) = METRICS_SECONDS("pressure_io_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to IO congestion.", NULL),
    [METRICS_LAST_SEEN] = METRICS_GAUGE("last_seen", "Last time a container was seen by the exporter.", NULL),
    [METRICS_START_TIME] = { "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds.", true, METRICS_SECOND, { NULL } },
    [METRICS_SPEC_CPU_PERIOD] = METRICS_GAUGE("spec_cpu_period", "CPU period of the container.", NULL),
    [METRICS_SPEC_CPU_QUOTA] = METRICS_GAUGE("spec_cpu_quota", "CPU quota of the container.", NULL),
    [METRICS_SPEC_CPU_SHARES] = METRICS_GAUGE("spec_cpu_shares", "CPU share of the container.", NULL),
    [METRICS_SPEC_MEMORY_LIMIT] = METRICS_GAUGE("spec_memory_limit_bytes", "Memory limit for the container.", NULL),
    [METRICS_SPEC_MEMORY_RESERVATION] = METRICS_GAUGE("spec_memory_reservation_limit_bytes",
        "Memory reservation limit for the container.", NULL),
    [METRICS_SPEC_MEMORY_SWAP_LIMIT] = METRICS_GAUGE("spec_memory_swap_limit_bytes",
        "Memory swap limit for the container.", NULL),
};

static size_t metrics_own_labels(const struct metrics_kind *kind)
{
    size_t n = 0;

    while (n < METRICS_OWN_LABELS_MAX && kind->labels[n] != NULL)
        n++;
    return n;
}

/* ---- descriptors ---- */

void metrics_list_descriptors(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    cleanup_buf struct buf out = BUF_INIT;

    (void)context;
    (void)request;
    for (size_t i = 0; i < METRICS_KINDS; i++) {
        const struct metrics_kind *kind = &metrics_kinds[i];
        Runtime__V1__MetricDescriptor item = RUNTIME__V1__METRIC_DESCRIPTOR__INIT;
        const char *labels[METRICS_LABELS + METRICS_OWN_LABELS_MAX];
        if (kind->name == NULL)
            continue;
        memcpy(labels, metrics_labels, sizeof metrics_labels);
        memcpy(labels + METRICS_LABELS, kind->labels, sizeof kind->labels);
        item.name = (char *)(uintptr_t)kind->name;
        item.help = (char *)(uintptr_t)kind->help;
        item.label_keys = (char **)(uintptr_t)labels;
        item.n_label_keys = METRICS_LABELS + metrics_own_labels(kind);
        pb_encode_item(&item.base, &out);
    }
    rpc_reply_packed(call, out.p, out.n);
}

/* ---- values ---- */

/* The metrics of a pod or container while they are put together. */
struct metrics_set {
    struct arena *arena;
    int64_t now_ns;
    char *labels[METRICS_LABELS];
    Runtime__V1__Metric **items;
    size_t count, max;
};

static void metrics_add(struct metrics_set *set, size_t number, uint64_t value, char *const *own, size_t own_count)
{
    const struct metrics_kind *kind = number < METRICS_KINDS ? &metrics_kinds[number] : NULL;

    if (kind == NULL || kind->name == NULL || own_count != metrics_own_labels(kind) || set->count == set->max)
        return;
    Runtime__V1__Metric *m = ARENA_NEW(set->arena, Runtime__V1__Metric);
    runtime__v1__metric__init(m);
    m->name = (char *)(uintptr_t)kind->name;
    m->timestamp = set->now_ns;
    m->metric_type = kind->gauge ? RUNTIME__V1__METRIC_TYPE__GAUGE : RUNTIME__V1__METRIC_TYPE__COUNTER;
    m->n_label_values = METRICS_LABELS + own_count;
    m->label_values = set->labels; /* shared by all that have no others */
    if (own_count > 0) {
        m->label_values = ARENA_ARRAY(set->arena, char *, m->n_label_values);
        memcpy(m->label_values, set->labels, sizeof set->labels);
        memcpy(m->label_values + METRICS_LABELS, own, own_count * sizeof *own);
    }
    m->value = ARENA_NEW(set->arena, Runtime__V1__UInt64Value);
    runtime__v1__uint64_value__init(m->value);
    m->value->value = kind->divisor > 1 ? value / kind->divisor : value;
    set->items[set->count++] = m;
}

static void metrics_add_counters(struct metrics_set *set, Interlink__Agent__V1__Counter *const *counters, size_t count)
{
    for (size_t i = 0; i < count; i++)
        metrics_add(set, (size_t)counters[i]->kind, counters[i]->value, counters[i]->labels, counters[i]->n_labels);
}

/* What was asked for, as cAdvisor shows it: no limit is 0; a quota only when there is one. */
static uint64_t metrics_limit(int64_t value)
{
    return value > 0 ? (uint64_t)value : 0;
}

static void metrics_add_spec(struct metrics_set *set, const Runtime__V1__LinuxContainerResources *r)
{
    const char *reservation;
    uint64_t bytes = 0;

    if (r == NULL)
        return;
    if (r->cpu_period > 0)
        metrics_add(set, METRICS_SPEC_CPU_PERIOD, metrics_limit(r->cpu_period), NULL, 0);
    if (r->cpu_quota > 0)
        metrics_add(set, METRICS_SPEC_CPU_QUOTA, metrics_limit(r->cpu_quota), NULL, 0);
    if (r->cpu_shares > 0)
        metrics_add(set, METRICS_SPEC_CPU_SHARES, metrics_limit(r->cpu_shares), NULL, 0);
    reservation = pb_label(r->n_unified, r->unified, "memory.low");
    if (reservation != NULL && !parse_u64(reservation, INT64_MAX, &bytes))
        bytes = 0;
    metrics_add(set, METRICS_SPEC_MEMORY_LIMIT, metrics_limit(r->memory_limit_in_bytes), NULL, 0);
    metrics_add(set, METRICS_SPEC_MEMORY_RESERVATION, bytes, NULL, 0);
    metrics_add(set, METRICS_SPEC_MEMORY_SWAP_LIMIT, metrics_limit(r->memory_swap_limit_in_bytes), NULL, 0);
}

static struct metrics_set metrics_set_new(struct arena *arena, const struct sandbox *sandbox, size_t counters)
{
    const Runtime__V1__PodSandboxMetadata *metadata = sandbox->record->config->metadata;
    struct metrics_set set = { .arena = arena, .now_ns = clock_real_ns() };

    set.max = counters + METRICS_KINDS - METRICS_LAST_SEEN;
    set.items = ARENA_ARRAY(arena, Runtime__V1__Metric *, set.max);
    set.labels[4] = metadata->name;
    set.labels[5] = metadata->namespace_;
    return set;
}

/* NULL: it is none of this pod's. One that has ended keeps its count of OOM kills, which nobody would see otherwise. */
static Runtime__V1__ContainerMetrics *metrics_of_container(const struct sandbox *sandbox, struct arena *arena,
                                                           const Interlink__Agent__V1__ContainerCounters *counters)
{
    const struct container *container = strmap_get(&sandbox->node->containers, counters->id);

    if (container == NULL || container->sandbox != sandbox || !container_listed(container))
        return NULL;
    const Interlink__State__V1__Container *record = container->record;
    const Runtime__V1__ImageSpec *image = record->config->image;
    Runtime__V1__ContainerMetrics *out = ARENA_NEW(arena, Runtime__V1__ContainerMetrics);
    struct metrics_set *set = ARENA_NEW(arena, struct metrics_set); /* its labels are pointed at */
    *set = metrics_set_new(arena, sandbox, counters->n_counters);
    set->labels[0] = set->labels[1] = record->id;
    set->labels[2] = image == NULL                          ? record->image_ref
                     : *image->user_specified_image != '\0' ? image->user_specified_image
                                                            : image->image;
    set->labels[3] = record->config->metadata->name;
    metrics_add_counters(set, counters->counters, counters->n_counters);
    if (record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING) {
        metrics_add(set, METRICS_LAST_SEEN, (uint64_t)set->now_ns / METRICS_SECOND, NULL, 0);
        metrics_add(set, METRICS_START_TIME, metrics_limit(record->started_at), NULL, 0);
        metrics_add_spec(set, record->config->linux != NULL ? record->config->linux->resources : NULL);
    }
    runtime__v1__container_metrics__init(out);
    out->container_id = record->id;
    out->metrics = set->items;
    out->n_metrics = set->count;
    return out;
}

void metrics_encode(const struct sandbox *sandbox, const Interlink__Agent__V1__StatsResponse *response, struct buf *out)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    Runtime__V1__PodSandboxMetrics item = RUNTIME__V1__POD_SANDBOX_METRICS__INIT;
    struct metrics_set set = metrics_set_new(&arena, sandbox, response->n_counters);

    set.labels[0] = set.labels[1] = sandbox->record->id;
    set.labels[2] = (char *)(uintptr_t) "";
    set.labels[3] = (char *)(uintptr_t) "POD"; /* cAdvisor's name for what is nobody else's */
    metrics_add_counters(&set, response->counters, response->n_counters);
    item.pod_sandbox_id = sandbox->record->id;
    item.metrics = set.items;
    item.n_metrics = set.count;
    item.container_metrics = ARENA_ARRAY(&arena, Runtime__V1__ContainerMetrics *, response->n_containers);
    for (size_t i = 0; i < response->n_containers; i++) {
        Runtime__V1__ContainerMetrics *one = metrics_of_container(sandbox, &arena, response->containers[i]);
        if (one != NULL)
            item.container_metrics[item.n_container_metrics++] = one;
    }
    pb_encode_item(&item.base, out);
}

#undef METRICS_LABELS
#undef METRICS_OWN_LABELS_MAX
#undef METRICS_SECOND
#undef METRICS_GAUGE
#undef METRICS_COUNTER
#undef METRICS_SECONDS
#undef METRICS_KIND
