/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/backend_common.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "agent/agent.h"
#include "io/file.h"

/* A lock of fcntl's kind belongs to this process alone: what it forks does not hold it. */
int backend_lock(const char *dir, struct status *err)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    cleanup_free char *path = xasprintf("%s/lock", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0) {
        status_errno(err, "cannot open %s", path);
        return -1;
    }
    if (fcntl(fd, F_SETLK, &lock) == 0)
        return fd;
    status_set(err, STATUS_FAILED_PRECONDITION, "%s is used by another plugin: give each its own folder", dir);
    close(fd);
    return -1;
}

/* ---- records ---- */

char *backend_record_path(const char *dir, const char *uid, const char *suffix)
{
    return xasprintf("%s/records/%s.%s", dir, uid, suffix);
}

void backend_record_remove(const char *backend, const char *dir, const char *uid, const char *const *suffixes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        cleanup_free char *path = backend_record_path(dir, uid, suffixes[i]);
        if (unlink(path) < 0 && errno != ENOENT)
            log_warn("%s backend: cannot remove %s: %s", backend, path, strerror(errno));
    }
}

void backend_record_set_aside(const char *backend, const char *path, const char *uid, const struct status *why)
{
    cleanup_free char *aside = xasprintf("%s.bad", path);

    log_warn("%s backend: record %s is set aside as %s.bad: %s", backend, path, uid, why->message);
    if (rename(path, aside) < 0)
        log_warn("%s backend: cannot rename %s: %s", backend, path, strerror(errno));
}

bool backend_each(const char *dir, const char *folder, const char *suffix, void (*fn)(void *arg, const char *uid), void *arg,
                  struct status *err)
{
    cleanup_free char *path = xasprintf("%s/%s", dir, folder);
    DIR *list = opendir(path);
    struct dirent *entry;

    if (list == NULL)
        return status_errno(err, "cannot list %s", path);
    while ((entry = readdir(list)) != NULL) {
        if (!str_ends(entry->d_name, suffix))
            continue;
        cleanup_free char *uid = xstrndup(entry->d_name, strlen(entry->d_name) - strlen(suffix));
        if (interlink_uid_valid(uid))
            fn(arg, uid);
    }
    closedir(list);
    return true;
}

void backend_write_grace(const char *job_dir, int64_t seconds)
{
    cleanup_free char *path = xasprintf("%s/" AGENT_GRACE_FILE, job_dir), *text = xasprintf("%" PRId64, seconds);
    struct status err = STATUS_INIT;

    if (!file_replace(path, text, strlen(text), 0600, &err))
        log_warn("the grace period of %" PRId64 " s cannot be told, %d s count: %s", seconds, AGENT_TERM_GRACE_MS / 1000, err.message);
}

bool backend_grace_written(const char *job_dir)
{
    cleanup_free char *path = xasprintf("%s/" AGENT_GRACE_FILE, job_dir);

    return access(path, F_OK) == 0;
}

/* ---- status ---- */

static struct interlink_container_state *backend_states(struct arena *arena, const struct interlink_container *containers,
                                                        size_t count)
{
    struct interlink_container_state *states = ARENA_ARRAY(arena, struct interlink_container_state, count + 1);

    for (size_t i = 0; i < count; i++)
        states[i] = INTERLINK_STATE_INIT(containers[i].name);
    return states;
}

void backend_status_init(struct arena *arena, const struct interlink_pod *pod, struct interlink_pod_status *out)
{
    *out = (struct interlink_pod_status){ .name = pod->name, .uid = pod->uid, .namespace_ = pod->namespace_, .jid = "", .nodes = "" };
    out->containers = backend_states(arena, pod->containers, pod->container_count);
    out->container_count = pod->container_count;
    out->init_containers = backend_states(arena, pod->init_containers, pod->init_container_count);
    out->init_container_count = pod->init_container_count;
}
