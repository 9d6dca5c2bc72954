/* SPDX-License-Identifier: Apache-2.0 */
/* What engine.h offers about usage, for all engines. */
#include "agent/engine_impl.h"

#include "agent/cgroup_stats.h"
#include "agent/track.h"

#include <dirent.h>
#include <linux/magic.h>
#include <sys/vfs.h>

bool engine_usage(const struct engine *e, const char *id, bool counters, struct usage *u)
{
    return cgroup_usage(&e->cgroups, id, counters, u);
}

bool engine_pod_usage(const struct engine *e, const char *pod_uid, struct usage *u)
{
    return cgroup_is_of_pod(&e->cgroups, pod_uid) && cgroup_usage(&e->cgroups, "", false, u);
}

uint64_t engine_oom_kills(const struct engine *e, const char *id)
{
    return cgroup_oom_kills(&e->cgroups, id);
}

struct engine_pid_list {
    pid_t *pids;
    size_t count, max;
};

static void engine_take_pid(void *arg, pid_t pid)
{
    struct engine_pid_list *list = arg;

    if (list->count < list->max)
        list->pids[list->count++] = pid;
}

size_t engine_pids(const struct engine *e, const char *id, const char *bundle, pid_t *pids, size_t max)
{
    struct engine_pid_list list = { .pids = pids, .max = max };

    if (cgroup_each(&e->cgroups, id, engine_take_pid, &list) < 0)
        track_each(bundle, engine_take_pid, &list);
    return list.count;
}

/* A root that is no overlay holds a copy of the image: then all of it takes the container's space. */
static bool engine_root_is_copy(const char *root)
{
    struct statfs fs;
    struct dirent *entry;
    DIR *dir = statfs(root, &fs) == 0 && fs.f_type != OVERLAYFS_SUPER_MAGIC ? opendir(root) : NULL;
    bool any = false;

    while (!any && dir != NULL && (entry = readdir(dir)) != NULL)
        any = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    if (dir != NULL)
        closedir(dir);
    return any;
}

char *engine_layer(const struct engine *e, const char *bundle)
{
    cleanup_free char *root = xasprintf("%s/rootfs", bundle);

    if (e->ops == &engine_host || e->ops == &engine_inside)
        return NULL;
    return engine_root_is_copy(root) ? steal_ptr(&root) : xasprintf("%s/upper", bundle);
}
