/* SPDX-License-Identifier: Apache-2.0 */
/* The processes of one container's cgroup. */
#include "agent/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

/* How deep a container's own groups are followed. */
#define CGROUP_DEPTH_MAX 32

/* The processes of dir and of the groups below. */
static int cgroup_each_below(const char *dir, void (*visit)(void *arg, pid_t pid), void *arg, int depth)
{
    cleanup_free char *procs_path = xasprintf("%s/cgroup.procs", dir);
    cleanup_free char *text = cgroup_read_text(procs_path);
    char *rest = text, *line;
    int count = 0;

    while ((line = cgroup_line(&rest)) != NULL) {
        uint64_t pid;
        /* 0: a process outside of our PID namespace; none of ours. */
        if (!parse_u64(line, INT32_MAX, &pid) || pid == 0)
            continue;
        count++;
        visit(arg, (pid_t)pid);
    }
    struct stat st;
    /* A folder has two links, and one more for each folder in it. */
    bool more = depth < CGROUP_DEPTH_MAX && (stat(dir, &st) < 0 || st.st_nlink != 2);
    DIR *d = more ? opendir(dir) : NULL;
    struct dirent *entry;
    while (d != NULL && (entry = readdir(d)) != NULL) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        cleanup_free char *child = xasprintf("%s/%s", dir, entry->d_name);
        count += cgroup_each_below(child, visit, arg, depth + 1);
    }
    if (d != NULL)
        closedir(d);
    return count;
}

/* The hierarchy that says best which processes a container has; NULL when it has no group. */
static const struct cgroup_hierarchy *cgroup_main(const struct cgroups *c, const char *id, char **path)
{
    static const unsigned order[] = { CGROUP_PIDS, CGROUP_MEMORY, CGROUP_CPU, CGROUP_DEVICES, CGROUP_CPUACCT };

    for (size_t k = 0; k <= COUNT_OF(order); k++) {
        for (size_t i = 0; i < c->count; i++) {
            const struct cgroup_hierarchy *h = &c->hierarchies[i];
            if (!h->used || (!h->unified && k < COUNT_OF(order) && (h->controllers & order[k]) == 0))
                continue;
            *path = cgroup_path(c, h, id);
            if (access(*path, F_OK) == 0)
                return h;
            free(*path);
            *path = NULL;
        }
    }
    return NULL;
}

int cgroup_each(const struct cgroups *c, const char *id, void (*visit)(void *arg, pid_t pid), void *arg)
{
    cleanup_free char *path = NULL;

    return cgroup_main(c, id, &path) != NULL ? cgroup_each_below(path, visit, arg, 0) : -1;
}

static void cgroup_signal_one(void *arg, pid_t pid)
{
    const int *signal = arg;

    if (*signal != 0)
        kill(pid, *signal);
}

int cgroup_signal(const struct cgroups *c, const char *id, int signal)
{
    cleanup_free char *path = NULL;
    const struct cgroup_hierarchy *h = cgroup_main(c, id, &path);
    int none = 0;

    if (h == NULL)
        return -1;
    if (h->unified && signal == SIGKILL) {
        int count = cgroup_each_below(path, cgroup_signal_one, &none, 0);
        cleanup_close int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (count == 0 || (fd >= 0 && cgroup_write(fd, "cgroup.kill", "1")))
            return count;
    }
    return cgroup_each_below(path, cgroup_signal_one, &signal, 0);
}

#undef CGROUP_DEPTH_MAX
