/* SPDX-License-Identifier: Apache-2.0 */
/* agent_stats_fill.c: figures as messages. What is unknown is left out. */
#include "agent/agent_stats.h"

#include "agent/net_stats.h"
#include "text/json.h"

/* Counters of one container: each kind once, some of them a few times, and those of its devices and page sizes. */
#define AGENT_STATS_COUNTERS_MAX (64 + 6 * USAGE_DEVICES_MAX + 2 * USAGE_PAGE_SIZES_MAX)

static char *agent_fill_text(const char *text)
{
    return (char *)(uintptr_t)text; /* messages are only read */
}

static Runtime__V1__UInt64Value *agent_fill_value(struct arena *arena, uint64_t value)
{
    if (value == USAGE_UNKNOWN)
        return NULL;
    Runtime__V1__UInt64Value *out = ARENA_NEW(arena, Runtime__V1__UInt64Value);
    runtime__v1__uint64_value__init(out);
    out->value = value;
    return out;
}

/* ---- CRI's messages ---- */

static Runtime__V1__PsiData *agent_fill_pressure(struct arena *arena, const struct usage_pressure *p)
{
    if (p->total_ns == USAGE_UNKNOWN)
        return NULL;
    Runtime__V1__PsiData *out = ARENA_NEW(arena, Runtime__V1__PsiData);
    runtime__v1__psi_data__init(out);
    out->total = p->total_ns;
    out->avg10 = p->avg10;
    out->avg60 = p->avg60;
    out->avg300 = p->avg300;
    return out;
}

static Runtime__V1__PsiStats *agent_fill_psi(struct arena *arena, const struct usage_psi *psi)
{
    if (psi->some.total_ns == USAGE_UNKNOWN && psi->full.total_ns == USAGE_UNKNOWN)
        return NULL;
    Runtime__V1__PsiStats *out = ARENA_NEW(arena, Runtime__V1__PsiStats);
    runtime__v1__psi_stats__init(out);
    out->some = agent_fill_pressure(arena, &psi->some);
    out->full = agent_fill_pressure(arena, &psi->full);
    return out;
}

static Runtime__V1__CpuUsage *agent_fill_cpu(struct arena *arena, const struct usage *u, uint64_t nano_cores)
{
    if (u->cpu == USAGE_UNKNOWN)
        return NULL;
    Runtime__V1__CpuUsage *out = ARENA_NEW(arena, Runtime__V1__CpuUsage);
    runtime__v1__cpu_usage__init(out);
    out->timestamp = u->taken_ns;
    out->usage_core_nano_seconds = agent_fill_value(arena, u->cpu);
    out->usage_nano_cores = agent_fill_value(arena, nano_cores);
    out->psi = agent_fill_psi(arena, &u->cpu_psi);
    return out;
}

static Runtime__V1__MemoryUsage *agent_fill_memory(struct arena *arena, const struct usage *u)
{
    if (u->memory == USAGE_UNKNOWN)
        return NULL;
    Runtime__V1__MemoryUsage *out = ARENA_NEW(arena, Runtime__V1__MemoryUsage);
    runtime__v1__memory_usage__init(out);
    out->timestamp = u->taken_ns;
    out->working_set_bytes = agent_fill_value(arena, u->working_set);
    out->available_bytes = agent_fill_value(arena, usage_less(u->memory_limit, u->working_set));
    out->usage_bytes = agent_fill_value(arena, u->memory);
    out->rss_bytes = agent_fill_value(arena, u->rss);
    out->page_faults = agent_fill_value(arena, u->faults);
    out->major_page_faults = agent_fill_value(arena, u->major_faults);
    out->psi = agent_fill_psi(arena, &u->memory_psi);
    return out;
}

static Runtime__V1__SwapUsage *agent_fill_swap(struct arena *arena, const struct usage *u)
{
    if (u->swap == USAGE_UNKNOWN)
        return NULL;
    Runtime__V1__SwapUsage *out = ARENA_NEW(arena, Runtime__V1__SwapUsage);
    runtime__v1__swap_usage__init(out);
    out->timestamp = u->taken_ns;
    out->swap_usage_bytes = agent_fill_value(arena, u->swap);
    out->swap_available_bytes = agent_fill_value(arena, usage_less(u->swap_limit, u->swap));
    return out;
}

static Runtime__V1__IoUsage *agent_fill_io(struct arena *arena, const struct usage *u)
{
    Runtime__V1__PsiStats *psi = agent_fill_psi(arena, &u->io_psi);

    if (psi == NULL)
        return NULL;
    Runtime__V1__IoUsage *out = ARENA_NEW(arena, Runtime__V1__IoUsage);
    runtime__v1__io_usage__init(out);
    out->timestamp = u->taken_ns;
    out->psi = psi;
    return out;
}

/* A path may be any bytes; what is not text cannot be told. */
static bool agent_fill_is_text(const char *s)
{
    size_t n = strlen(s);

    for (size_t i = 0, step; i < n; i += step)
        if ((step = utf8_sequence(s + i, n - i)) == 0)
            return false;
    return true;
}

static Runtime__V1__FilesystemUsage *agent_fill_layer(struct arena *arena, const struct layer_stats *layer)
{
    if (layer == NULL)
        return NULL;
    Runtime__V1__FilesystemUsage *out = ARENA_NEW(arena, Runtime__V1__FilesystemUsage);
    runtime__v1__filesystem_usage__init(out);
    out->timestamp = layer->taken_ns;
    if (*layer->mountpoint != '\0' && agent_fill_is_text(layer->mountpoint)) {
        out->fs_id = ARENA_NEW(arena, Runtime__V1__FilesystemIdentifier);
        runtime__v1__filesystem_identifier__init(out->fs_id);
        out->fs_id->mountpoint = agent_fill_text(layer->mountpoint);
    }
    out->used_bytes = agent_fill_value(arena, layer->bytes);
    out->inodes_used = agent_fill_value(arena, layer->inodes);
    return out;
}

void agent_stats_fill_container(struct arena *arena, const char *id, const struct usage *u, uint64_t nano_cores,
                                const struct layer_stats *layer, Runtime__V1__ContainerStats *out)
{
    runtime__v1__container_stats__init(out);
    out->attributes = ARENA_NEW(arena, Runtime__V1__ContainerAttributes);
    runtime__v1__container_attributes__init(out->attributes);
    out->attributes->id = agent_fill_text(id);
    out->writable_layer = agent_fill_layer(arena, layer);
    if (u == NULL)
        return;
    out->cpu = agent_fill_cpu(arena, u, nano_cores);
    out->memory = agent_fill_memory(arena, u);
    out->swap = agent_fill_swap(arena, u);
    out->io = agent_fill_io(arena, u);
}

static Runtime__V1__NetworkInterfaceUsage *agent_fill_interface(struct arena *arena, const struct net_interface *i)
{
    Runtime__V1__NetworkInterfaceUsage *out = ARENA_NEW(arena, Runtime__V1__NetworkInterfaceUsage);

    runtime__v1__network_interface_usage__init(out);
    out->name = agent_fill_text(i->name);
    out->rx_bytes = agent_fill_value(arena, i->rx_bytes);
    out->rx_errors = agent_fill_value(arena, i->rx_errors);
    out->tx_bytes = agent_fill_value(arena, i->tx_bytes);
    out->tx_errors = agent_fill_value(arena, i->tx_errors);
    return out;
}

static Runtime__V1__NetworkUsage *agent_fill_network(struct arena *arena, const struct net_stats *network)
{
    Runtime__V1__NetworkUsage *out = ARENA_NEW(arena, Runtime__V1__NetworkUsage);

    runtime__v1__network_usage__init(out);
    out->timestamp = network->taken_ns;
    out->interfaces = ARENA_ARRAY(arena, Runtime__V1__NetworkInterfaceUsage *, network->count);
    for (size_t i = 0; i < network->count; i++) {
        Runtime__V1__NetworkInterfaceUsage *one = agent_fill_interface(arena, &network->interfaces[i]);
        if (i == network->main)
            out->default_interface = one;
        else
            out->interfaces[out->n_interfaces++] = one;
    }
    return out;
}

void agent_stats_fill_pod(struct arena *arena, const struct usage *u, uint64_t nano_cores, const struct net_stats *network,
                          Runtime__V1__LinuxPodSandboxStats *out)
{
    runtime__v1__linux_pod_sandbox_stats__init(out);
    out->cpu = agent_fill_cpu(arena, u, nano_cores);
    out->memory = agent_fill_memory(arena, u);
    out->io = agent_fill_io(arena, u);
    if (network->count > 0)
        out->network = agent_fill_network(arena, network);
    if (u->processes == USAGE_UNKNOWN)
        return;
    out->process = ARENA_NEW(arena, Runtime__V1__ProcessUsage);
    runtime__v1__process_usage__init(out->process);
    out->process->timestamp = u->taken_ns;
    out->process->process_count = agent_fill_value(arena, u->processes);
}

/* ---- counters ---- */

struct agent_fill_counters {
    struct arena *arena;
    Interlink__Agent__V1__Counter **items; /* room for `max` */
    size_t count, max;
};

#define FILL_KIND(name) INTERLINK__AGENT__V1__COUNTER_KIND__COUNTER_##name

/* The labels end with NULL; borrowed, as long as the arena. */
static void agent_fill_count(struct agent_fill_counters *c, Interlink__Agent__V1__CounterKind kind, uint64_t value, ...)
{
    char *labels[8];
    size_t n = 0;
    va_list list;

    if (value == USAGE_UNKNOWN || c->count == c->max)
        return;
    va_start(list, value);
    for (char *label; n < COUNT_OF(labels) && (label = va_arg(list, char *)) != NULL;)
        labels[n++] = label;
    va_end(list);
    Interlink__Agent__V1__Counter *out = ARENA_NEW(c->arena, Interlink__Agent__V1__Counter);
    interlink__agent__v1__counter__init(out);
    out->kind = kind;
    out->value = value;
    out->n_labels = n;
    out->labels = arena_memdup(c->arena, labels, n * sizeof *labels);
    c->items[c->count++] = out;
}

static void agent_fill_count_processor(struct agent_fill_counters *c, const struct usage *u)
{
    agent_fill_count(c, FILL_KIND(CPU_USAGE), u->cpu, "total", NULL);
    agent_fill_count(c, FILL_KIND(CPU_USER), u->cpu_user, NULL);
    agent_fill_count(c, FILL_KIND(CPU_SYSTEM), u->cpu_system, NULL);
    agent_fill_count(c, FILL_KIND(CFS_PERIODS), u->cfs_periods, NULL);
    agent_fill_count(c, FILL_KIND(CFS_THROTTLED_PERIODS), u->cfs_throttled_periods, NULL);
    agent_fill_count(c, FILL_KIND(CFS_THROTTLED_TIME), u->cfs_throttled, NULL);
    agent_fill_count(c, FILL_KIND(CPU_WAITING), u->cpu_psi.some.total_ns, NULL);
    agent_fill_count(c, FILL_KIND(CPU_STALLED), u->cpu_psi.full.total_ns, NULL);
    agent_fill_count(c, FILL_KIND(PROCESSES), u->processes, NULL);
    agent_fill_count(c, FILL_KIND(THREADS), u->threads, NULL);
    agent_fill_count(c, FILL_KIND(THREADS_MAX), u->threads_max, NULL);
    agent_fill_count(c, FILL_KIND(FILE_DESCRIPTORS), u->files, NULL);
    agent_fill_count(c, FILL_KIND(SOCKETS), u->sockets, NULL);
    agent_fill_count(c, FILL_KIND(ULIMIT_SOFT), u->files_limit, "max_open_files", NULL);
}

static void agent_fill_count_memory(struct agent_fill_counters *c, const struct usage *u)
{
    agent_fill_count(c, FILL_KIND(MEMORY_USAGE), u->memory, NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_MAX_USAGE), u->memory_max, NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_WORKING_SET), u->working_set, NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_RSS), u->rss, NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_CACHE), u->cache, NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_KERNEL), u->kernel, NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_MAPPED_FILE), u->mapped_file, NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_SWAP), u->swap, NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_LIMIT_HITS), u->limit_hits, NULL);
    /* The kernel counts a container together with the groups in it; cAdvisor shows that under both names. */
    agent_fill_count(c, FILL_KIND(MEMORY_FAILURES), u->faults, "pgfault", "container", NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_FAILURES), u->faults, "pgfault", "hierarchy", NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_FAILURES), u->major_faults, "pgmajfault", "container", NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_FAILURES), u->major_faults, "pgmajfault", "hierarchy", NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_WAITING), u->memory_psi.some.total_ns, NULL);
    agent_fill_count(c, FILL_KIND(MEMORY_STALLED), u->memory_psi.full.total_ns, NULL);
    agent_fill_count(c, FILL_KIND(IO_WAITING), u->io_psi.some.total_ns, NULL);
    agent_fill_count(c, FILL_KIND(IO_STALLED), u->io_psi.full.total_ns, NULL);
    for (size_t i = 0; i < u->hugetlb_count; i++) {
        agent_fill_count(c, FILL_KIND(HUGETLB_USAGE), u->hugetlb[i].used, u->hugetlb[i].size, NULL);
        agent_fill_count(c, FILL_KIND(HUGETLB_MAX_USAGE), u->hugetlb[i].used_max, u->hugetlb[i].size, NULL);
    }
}

/* "/dev/sda", as cAdvisor names a device, or its numbers when the kernel does not tell the name. */
static char *agent_fill_device_name(struct arena *arena, const struct usage_device *d)
{
    char path[64], line[256], name[128] = "";

    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/uevent", d->major, d->minor);
    FILE *file = fopen(path, "re");
    while (file != NULL && *name == '\0' && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "DEVNAME=%127s", name) != 1)
            *name = '\0';
    if (file != NULL)
        fclose(file);
    if (*name != '\0' && agent_fill_is_text(name))
        return arena_printf(arena, "/dev/%s", name);
    return arena_printf(arena, "%u:%u", d->major, d->minor);
}

static void agent_fill_count_devices(struct agent_fill_counters *c, const struct usage *u)
{
    for (size_t i = 0; i < u->device_count; i++) {
        const struct usage_device *d = &u->devices[i];
        const char *name = agent_fill_device_name(c->arena, d);
        const char *major = arena_printf(c->arena, "%u", d->major), *minor = arena_printf(c->arena, "%u", d->minor);
        agent_fill_count(c, FILL_KIND(FS_READ_BYTES), d->read_bytes, name, NULL);
        agent_fill_count(c, FILL_KIND(FS_READS), d->reads, name, NULL);
        agent_fill_count(c, FILL_KIND(FS_WRITTEN_BYTES), d->written_bytes, name, NULL);
        agent_fill_count(c, FILL_KIND(FS_WRITES), d->writes, name, NULL);
        agent_fill_count(c, FILL_KIND(DEVICE_USAGE), d->read_bytes, name, major, minor, "Read", NULL);
        agent_fill_count(c, FILL_KIND(DEVICE_USAGE), d->written_bytes, name, major, minor, "Write", NULL);
    }
}

static void agent_fill_count_layer(struct agent_fill_counters *c, const struct layer_stats *layer)
{
    const char *device = agent_fill_is_text(layer->device) ? layer->device : "";

    agent_fill_count(c, FILL_KIND(FS_USAGE), layer->bytes, device, NULL);
    agent_fill_count(c, FILL_KIND(FS_LIMIT), layer->fs_bytes, device, NULL);
    /* Some file systems (btrfs) have no table of inodes. */
    if (layer->fs_inodes > 0) {
        agent_fill_count(c, FILL_KIND(FS_INODES), layer->fs_inodes, device, NULL);
        agent_fill_count(c, FILL_KIND(FS_INODES_FREE), layer->fs_inodes_free, device, NULL);
    }
}

void agent_stats_fill_counters(struct arena *arena, const struct usage *u, uint64_t oom_kills, const struct layer_stats *layer,
                               Interlink__Agent__V1__ContainerCounters *out)
{
    struct agent_fill_counters c = { .arena = arena, .max = AGENT_STATS_COUNTERS_MAX };

    c.items = ARENA_ARRAY(arena, Interlink__Agent__V1__Counter *, c.max);
    agent_fill_count(&c, FILL_KIND(OOM_EVENTS), oom_kills, NULL);
    if (u != NULL) {
        agent_fill_count_processor(&c, u);
        agent_fill_count_memory(&c, u);
        agent_fill_count_devices(&c, u);
    }
    if (layer != NULL)
        agent_fill_count_layer(&c, layer);
    out->counters = c.items;
    out->n_counters = c.count;
}

void agent_stats_fill_network(struct arena *arena, const struct net_stats *network, Interlink__Agent__V1__StatsResponse *out)
{
    struct agent_fill_counters c = { .arena = arena, .max = 8 * NET_STATS_INTERFACES_MAX };

    c.items = ARENA_ARRAY(arena, Interlink__Agent__V1__Counter *, c.max);
    for (size_t k = 0; k < network->count; k++) {
        const struct net_interface *i = &network->interfaces[k];
        agent_fill_count(&c, FILL_KIND(RECEIVED_BYTES), i->rx_bytes, i->name, NULL);
        agent_fill_count(&c, FILL_KIND(RECEIVED_PACKETS), i->rx_packets, i->name, NULL);
        agent_fill_count(&c, FILL_KIND(RECEIVED_DROPPED), i->rx_dropped, i->name, NULL);
        agent_fill_count(&c, FILL_KIND(RECEIVED_ERRORS), i->rx_errors, i->name, NULL);
        agent_fill_count(&c, FILL_KIND(TRANSMITTED_BYTES), i->tx_bytes, i->name, NULL);
        agent_fill_count(&c, FILL_KIND(TRANSMITTED_PACKETS), i->tx_packets, i->name, NULL);
        agent_fill_count(&c, FILL_KIND(TRANSMITTED_DROPPED), i->tx_dropped, i->name, NULL);
        agent_fill_count(&c, FILL_KIND(TRANSMITTED_ERRORS), i->tx_errors, i->name, NULL);
    }
    out->counters = c.items;
    out->n_counters = c.count;
}

#undef AGENT_STATS_COUNTERS_MAX
#undef FILL_KIND
