/* SPDX-License-Identifier: Apache-2.0 */
/* capacity.c: what this machine has, as far as this process may use it. */
#include "plugin/local.h"

#include <sched.h>
#include <unistd.h>

#include "io/file.h"
#include "text/quantity.h"

static int64_t capacity_cpus(void)
{
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);

    /* Fails on machines with more CPUs than the set has room for. */
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    return online > 0 ? online : 1;
}

/* MemTotal, in bytes. */
static int64_t capacity_memory(void)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;
    int64_t kib = 0;

    if (file_read("/proc/meminfo", 65536, &text, &ignored)) {
        const char *line = strstr(buf_cstr(&text), "MemTotal:");
        if (line != NULL)
            kib = strtoll(line + strlen("MemTotal:"), NULL, 10);
    }
    return kib * 1024;
}

/* The memory limit of the cgroup this process is in, or of one above it; INT64_MAX when there is none. `line` is one of
 * /proc/self/cgroup: "0::/a/b" (unified) or "9:memory:/a/b". */
static int64_t capacity_cgroup_limit(const char *line)
{
    const char *controllers = strchr(line, ':');
    const char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
    int64_t limit = INT64_MAX;

    if (path == NULL)
        return limit;
    bool unified = path == controllers + 1;
    if (!unified && strncmp(controllers, ":memory:", 8) != 0)
        return limit;
    cleanup_free char *at = xasprintf("%s", path + 1);
    for (;;) {
        cleanup_free char *file = xasprintf("/sys/fs/cgroup%s%s/%s", unified ? "" : "/memory", strcmp(at, "/") == 0 ? "" : at,
                                            unified ? "memory.max" : "memory.limit_in_bytes");
        cleanup_buf struct buf text = BUF_INIT;
        struct status ignored = STATUS_INIT;
        if (file_read(file, 64, &text, &ignored)) {
            int64_t value = strtoll(buf_cstr(&text), NULL, 10); /* "max" gives 0 */
            limit = value > 0 && value < limit ? value : limit;
        }
        char *slash = strrchr(at, '/');
        if (slash == NULL || strcmp(at, "/") == 0)
            return limit;
        slash[slash == at ? 1 : 0] = '\0';
    }
}

static int64_t capacity_memory_limit(void)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;
    int64_t limit = INT64_MAX;
    char *rest = NULL;

    if (!file_read("/proc/self/cgroup", 65536, &text, &ignored))
        return limit;
    buf_append_byte(&text, '\0');
    for (char *line = strtok_r((char *)text.p, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        int64_t value = capacity_cgroup_limit(line);
        limit = value < limit ? value : limit;
    }
    return limit;
}

void capacity_read(struct arena *arena, struct interlink_ping *out)
{
    char memory[QUANTITY_TEXT_MAX];
    int64_t bytes = capacity_memory(), limit = capacity_memory_limit();

    quantity_format(bytes < limit ? bytes : limit, QUANTITY_ONE, true, memory);
    *out = (struct interlink_ping){ .status = "ok" };
    out->cpu = arena_printf(arena, "%" PRId64, capacity_cpus());
    out->memory = arena_strdup(arena, memory);
    out->pods = arena_printf(arena, "%d", PLUGIN_PODS_DEFAULT);
}
