/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_sources.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent_context.h"
#include "agent/agent_files.h"
#include "io/beneath.h"
#include "io/file.h"

/* ---- emptyDirs ---- */

static bool agent_empty_name_ok(const char *name)
{
    return beneath_is_plain(name) &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == strlen(name);
}

/* Owners that are not to be had here stay ours: then nobody else can be in the container either. */
static bool agent_empty_set_owner(int fd, uint32_t mode, uint32_t uid, uint32_t gid, const char *what, struct status *err)
{
    if (fchown(fd, uid, gid) < 0 && errno != EPERM && errno != EINVAL)
        return status_errno(err, "cannot set the owner of %s", what);
    return fchmod(fd, mode & 07777) == 0 || status_errno(err, "cannot set the mode of %s", what);
}

static bool agent_empty_mount(const struct agent *agent, const char *dir, const Interlink__Agent__V1__EmptyDir *e, struct status *err)
{
    bool huge = *e->page_size != '\0';
    cleanup_free char *options = huge ? xasprintf("pagesize=%.16s", e->page_size)
                               : e->size > 0 ? xasprintf("size=%" PRIu64, e->size)
                                             : xstrdup("");

    if (!e->memory && !huge)
        return true;
    if (strchr(options, ',') != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "empty_dir.page_size: \"%.16s\" is no size", e->page_size);
    if (!agent->own_mounts)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "its medium is memory, and this job cannot mount a file system (use the default medium)");
    return mount(huge ? "nodev" : "tmpfs", dir, huge ? "hugetlbfs" : "tmpfs", MS_NOSUID | MS_NODEV, options) == 0 ||
           status_errno(err, "cannot mount a file system in memory (%s)", options);
}

/* The first container that mounts it makes it; a worker that was killed on the way leaves no "ready". */
static bool agent_empty_make(const struct agent *agent, const char *place, const Interlink__Agent__V1__EmptyDir *e, struct status *err)
{
    cleanup_free char *dir = xasprintf("%s/dir", place), *ready = xasprintf("%s/ready", place), *lock_path = xasprintf("%s/lock", place);

    if (!dir_make(place, 0700, err))
        return false;
    cleanup_close int lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return status_errno(err, "cannot lock %s", lock_path);
    if (access(ready, F_OK) == 0)
        return true;
    if (agent->own_mounts)
        umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW);
    if (!dir_make(dir, 0700, err) || !agent_empty_mount(agent, dir, e, err))
        return false;
    cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return status_errno(err, "cannot open %s", dir);
    return agent_empty_set_owner(fd, e->mode, e->uid, e->gid, dir, err) && file_replace(ready, "", 0, 0600, err);
}

static int agent_empty_make_part(int parent, const char *name, const Interlink__Agent__V1__EmptyDir *e, struct status *err)
{
    cleanup_close int fd = -1;

    if (mkdirat(parent, name, 0700) < 0 && errno != EEXIST) {
        status_errno(err, "cannot make the sub path %.200s", e->sub_path);
        return -1;
    }
    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        status_errno(err, "cannot open the sub path %.200s", e->sub_path);
    else if (agent_empty_set_owner(fd, e->sub_mode, e->sub_uid, e->sub_gid, "the sub path", err))
        return fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return -1;
}

/* mkdir -p below an emptyDir, in which containers may be at work. Links are followed as long as they stay inside. What is there
 * may be a file. -1 with err. */
static int agent_empty_open_sub_path(int root, const Interlink__Agent__V1__EmptyDir *e, struct status *err)
{
    cleanup_free char *path = xstrdup(e->sub_path);
    int at = fcntl(root, F_DUPFD_CLOEXEC, 3);

    for (char *part = path, *slash; at >= 0; part = slash + 1) {
        slash = strchr(part, '/');
        if (slash != NULL)
            *slash = '\0';
        int next = beneath_open_links(root, path, O_PATH);
        if (next < 0 && errno == ENOENT)
            next = agent_empty_make_part(at, part, e, err);
        else if (next < 0)
            status_errno(err, "the sub path %.200s", e->sub_path);
        close(at);
        at = next;
        if (slash == NULL)
            break;
        *slash = '/';
    }
    return at;
}

static bool agent_source_empty(const struct agent *agent, const Interlink__Agent__V1__MountSource *from, struct arena *arena,
                               struct engine_source *out, struct status *err)
{
    static const Interlink__Agent__V1__EmptyDir none = INTERLINK__AGENT__V1__EMPTY_DIR__INIT;
    const Interlink__Agent__V1__EmptyDir *e = from->empty_dir != NULL ? from->empty_dir : &none;
    char real[PATH_MAX], link[64];

    if (!agent_empty_name_ok(from->volume))
        return status_set(err, STATUS_INVALID_ARGUMENT, "volume: \"%.100s\" cannot be an emptyDir's name", from->volume);
    const char *place = arena_printf(arena, "%s/empty/%s", agent_work_dir(agent), from->volume);
    if (!agent_empty_make(agent, place, e, err))
        return false;
    out->path = arena_printf(arena, "%s/dir", place);
    if (*e->sub_path == '\0')
        return true;
    if (!beneath_is_plain(e->sub_path) || strlen(e->sub_path) > FILES_PATH_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "empty_dir.sub_path: \"%.200s\" leaves the emptyDir", e->sub_path);
    cleanup_close int root = open(out->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (root < 0)
        return status_errno(err, "cannot open %s", out->path);
    out->fd = agent_empty_open_sub_path(root, e, err);
    if (out->fd < 0)
        return false;
    /* For the engine that starts later and takes paths. */
    snprintf(link, sizeof link, "/proc/self/fd/%d", out->fd);
    ssize_t n = readlink(link, real, sizeof real);
    if (n <= 0 || n == sizeof real)
        return status_set(err, STATUS_INTERNAL, "where the sub path %.200s is cannot be told", e->sub_path);
    out->path = arena_strndup(arena, real, (size_t)n);
    return true;
}

/* ---- the termination log ---- */

static char *agent_termination_path(const struct agent *agent, const char *id)
{
    return xasprintf("%s/termination/%s", agent_work_dir(agent), id);
}

static bool agent_source_termination(const struct agent *agent, const char *id, struct arena *arena, struct engine_source *out,
                                     struct status *err)
{
    cleanup_free char *dir = xasprintf("%s/termination", agent_work_dir(agent)), *path = agent_termination_path(agent, id);

    if (!dir_make(dir, 0700, err))
        return false;
    out->path = arena_strdup(arena, path);
    cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    /* As kubelet makes it: whoever the container runs as may write. */
    return (fd >= 0 && fchmod(fd, 0666) == 0) || status_errno(err, "cannot make %s", path);
}

bool agent_sources_has_termination_log(const Interlink__Agent__V1__CreateContainerRequest *request)
{
    for (size_t i = 0; i < request->n_sources; i++)
        if (request->sources[i]->kind == INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_TERMINATION_LOG)
            return true;
    return false;
}

void agent_sources_read_termination_log(const struct agent *agent, const char *id, struct buf *out)
{
    cleanup_free char *path = agent_termination_path(agent, id);
    cleanup_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);

    if (size <= 0)
        return;
    off_t from = size > TERMINATION_LOG_MAX ? size - TERMINATION_LOG_MAX : 0;
    ssize_t n = pread(fd, buf_reserve(out, TERMINATION_LOG_MAX), TERMINATION_LOG_MAX, from);
    if (n > 0)
        out->n += (size_t)n;
}

void agent_sources_remove_termination_log(const struct agent *agent, const char *id)
{
    cleanup_free char *path = agent_termination_path(agent, id);

    unlink(path);
}

/* ---- all of them ---- */

static bool agent_source_make(const struct agent *agent, const Interlink__Agent__V1__CreateContainerRequest *request,
                              const Interlink__Agent__V1__MountSource *from, struct arena *arena, struct engine_source *out,
                              struct status *err)
{
    *out = (struct engine_source){ .path = "", .fd = -1, .in_job = true };
    switch (from->kind) {
    case INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_HOST:
        out->in_job = false;
        out->path = from->path;
        return *from->path == '/' || status_set(err, STATUS_INVALID_ARGUMENT, "path: \"%.200s\" is not absolute", from->path);
    case INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_EMPTY_DIR:
        return agent_source_empty(agent, from, arena, out, err);
    case INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_TERMINATION_LOG:
        return agent_source_termination(agent, request->id, arena, out, err);
    case INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_VOLUME:
        break;
    default:
        return status_set(err, STATUS_INVALID_ARGUMENT, "kind: %u is not known here", (unsigned)from->kind);
    }
    cleanup_free char *path = agent_files_path(agent, from->volume);
    if (path == NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "the files of volume \"%.100s\" have not been sent", from->volume);
    out->path = arena_strdup(arena, path);
    return true;
}

bool agent_sources_make(const struct agent *agent, const Interlink__Agent__V1__CreateContainerRequest *request, struct arena *arena,
                        const struct engine_source **out, struct status *err)
{
    size_t count = request->config->n_mounts;
    struct engine_source *sources = ARENA_ARRAY(arena, struct engine_source, count + 1);

    *out = NULL;
    if (request->n_sources == 0)
        return true;
    for (size_t i = 0; i < count; i++)
        sources[i] = (struct engine_source){ .path = "", .fd = -1, .create = true };
    for (size_t i = 0; i < request->n_sources; i++) {
        const Interlink__Agent__V1__MountSource *from = request->sources[i];
        if (from->mount >= count)
            return status_set(err, STATUS_INVALID_ARGUMENT, "sources[%zu].mount: there is no mount %u", i, from->mount);
        if (!agent_source_make(agent, request, from, arena, &sources[from->mount], err))
            return status_prefix(err, "mounts[%u]", from->mount);
    }
    *out = sources;
    return true;
}
