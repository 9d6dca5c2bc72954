/* SPDX-License-Identifier: Apache-2.0 */
#include "image/layer_path.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

bool layer_root_open(struct layer_root *r, const char *path, struct status *err)
{
    memset(r, 0, sizeof *r);
    r->path = path;
    r->last_fd = -1;
    r->fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return r->fd >= 0 || status_errno(err, "cannot open folder %s", path);
}

static void layer_root_forget(struct layer_root *r)
{
    if (r->last_fd >= 0)
        close(r->last_fd);
    r->last_fd = -1;
}

void layer_root_close(struct layer_root *r)
{
    layer_root_forget(r);
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
}

/* The next component of *p: false at the end. */
static bool layer_path_next(const char **p, struct str *component)
{
    *p += strspn(*p, "/");
    *component = (struct str){ *p, strcspn(*p, "/") };
    *p += component->n;
    return component->n > 0;
}

static unsigned layer_path_depth(const char *path)
{
    unsigned depth = path[0] != '\0';

    for (; *path != '\0'; path++)
        depth += *path == '/';
    return depth;
}

bool layer_path_clean(const char *path, char out[LAYER_PATH_SIZE], struct status *err)
{
    const char *p = path;
    struct str component;
    size_t n = 0;

    out[0] = '\0';
    while (layer_path_next(&p, &component)) {
        if (str_eq(component, "."))
            continue;
        if (str_eq(component, ".."))
            return status_set(err, STATUS_INVALID_ARGUMENT, "the path '%.200s' leads out of its folder by '..'", path);
        if (component.n > 255)
            return status_set(err, STATUS_INVALID_ARGUMENT, "the path '%.200s' has a name longer than 255 bytes", path);
        if (n + 1 + component.n >= LAYER_PATH_SIZE)
            return status_set(err, STATUS_INVALID_ARGUMENT, "the path '%.200s...' is longer than %d bytes", path,
                              LAYER_PATH_SIZE - 1);
        if (n > 0)
            out[n++] = '/';
        memcpy(out + n, component.p, component.n);
        n += component.n;
        out[n] = '\0';
    }
    if (layer_path_depth(out) > IMAGE_DEPTH_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the path '%.200s...' is more than %d folders deep", path,
                          IMAGE_DEPTH_MAX);
    return true;
}

void layer_path_split(const char *path, char dir[LAYER_PATH_SIZE], const char **leaf)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 0 : (size_t)(slash - path);

    memcpy(dir, path, n);
    dir[n] = '\0';
    *leaf = slash == NULL ? path : slash + 1;
}

/* Opens a path that must hold no link. errno tells. */
static int layer_open_plain(struct layer_root *r, const char *path)
{
    if (path[0] == '\0')
        return openat(r->fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (!r->no_openat2) {
        struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
        int fd = (int)syscall(SYS_openat2, r->fd, path, &how, sizeof how);
        /* EPERM: a seccomp filter older than the call. */
        if (fd >= 0 || (errno != ENOSYS && errno != EPERM))
            return fd;
        r->no_openat2 = true;
    }
    int fd = openat(r->fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    const char *p = path;
    struct str component;
    while (fd >= 0 && layer_path_next(&p, &component)) {
        char name[256];
        memcpy(name, component.p, component.n);
        name[component.n] = '\0';
        int next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int number = errno;
        close(fd);
        fd = next;
        errno = number;
    }
    return fd;
}

/* State of resolving one path: what is known to be free of links, and what is still to come. */
struct layer_walk {
    struct layer_root *root;
    const char *path; /* as given, for messages */
    char *resolved;   /* LAYER_PATH_SIZE */
    char rest[LAYER_PATH_SIZE];
    unsigned links;
    bool create;
};

static bool layer_walk_link(struct layer_walk *w, const char *link, const char *rest, struct status *err)
{
    char target[LAYER_PATH_SIZE], next[LAYER_PATH_SIZE];

    ssize_t n = readlinkat(w->root->fd, link, target, sizeof target - 1);
    if (n < 0)
        return status_errno(err, "cannot read link '%.200s'", link);
    target[n] = '\0';
    if (++w->links > IMAGE_LINKS_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the path '%.200s' goes round in a circle of links", w->path);
    if (target[0] == '/')
        w->resolved[0] = '\0';
    if ((size_t)snprintf(next, sizeof next, "%s/%s", target, rest) >= sizeof next)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the path '%.200s' is too long with its links followed", w->path);
    memcpy(w->rest, next, sizeof next);
    return true;
}

static bool layer_walk_make(struct layer_walk *w, const char *dir, struct status *err)
{
    if (!w->create) {
        errno = ENOENT;
        return status_errno(err, "there is no folder '%.200s'", w->path);
    }
    if (layer_path_depth(dir) > IMAGE_DEPTH_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the path '%.200s' is more than %d folders deep", w->path,
                          IMAGE_DEPTH_MAX);
    if (mkdirat(w->root->fd, dir, 0755) < 0 || fchmodat(w->root->fd, dir, 0755, 0) < 0)
        return status_errno(err, "cannot make folder '%.200s'", dir);
    w->root->made++;
    return true;
}

/* One component further. `w->resolved` has no link in it, so that plain *at() calls on it are safe. */
static bool layer_walk_step(struct layer_walk *w, struct str component, const char *rest, struct status *err)
{
    size_t n = strlen(w->resolved);
    struct stat st;

    if (str_eq(component, "."))
        return true;
    if (str_eq(component, "..")) {
        char *slash = strrchr(w->resolved, '/');
        *(slash == NULL ? w->resolved : slash) = '\0';
        return true;
    }
    if (n + 1 + component.n >= LAYER_PATH_SIZE || component.n > 255)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the path '%.200s' is too long", w->path);
    snprintf(w->resolved + n, LAYER_PATH_SIZE - n, "%s%.*s", n > 0 ? "/" : "", (int)component.n, component.p);
    if (fstatat(w->root->fd, w->resolved, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT)
            return status_errno(err, "cannot look at '%.200s'", w->resolved);
        return layer_walk_make(w, w->resolved, err);
    }
    if (S_ISDIR(st.st_mode))
        return true;
    if (S_ISLNK(st.st_mode)) {
        char link[LAYER_PATH_SIZE];
        memcpy(link, w->resolved, LAYER_PATH_SIZE);
        w->resolved[n] = '\0';
        return layer_walk_link(w, link, rest, err);
    }
    if (w->create && w->root->replace != NULL)
        return w->root->replace(w->root->arg, w->resolved, err);
    return status_set(err, STATUS_INVALID_ARGUMENT, "the path '%.200s' leads through '%.200s', which is no folder", w->path,
                      w->resolved);
}

static bool layer_resolve(struct layer_root *r, const char *dir, bool create, char resolved[LAYER_PATH_SIZE],
                          struct status *err)
{
    struct layer_walk w = { .root = r, .path = dir, .resolved = resolved, .create = create };
    char text[LAYER_PATH_SIZE];
    struct str component;

    resolved[0] = '\0';
    memcpy(w.rest, dir, strlen(dir) + 1);
    for (;;) {
        const char *p = text;
        memcpy(text, w.rest, sizeof text);
        if (!layer_path_next(&p, &component))
            return true;
        /* A link replaces what is left; anything else just goes on. */
        memcpy(w.rest, p, strlen(p) + 1);
        if (!layer_walk_step(&w, component, p, err))
            return false;
    }
}

int layer_dir(struct layer_root *r, const char *dir, bool create, const char **resolved, struct status *err)
{
    if (r->last_fd >= 0 && strcmp(r->last, dir) == 0) {
        if (resolved != NULL)
            *resolved = r->last_resolved;
        return r->last_fd;
    }
    layer_root_forget(r);
    int fd = layer_open_plain(r, dir);
    if (fd >= 0) {
        memcpy(r->last_resolved, dir, strlen(dir) + 1);
    } else {
        if (!layer_resolve(r, dir, create, r->last_resolved, err))
            return -1;
        fd = layer_open_plain(r, r->last_resolved);
        if (fd < 0) {
            status_errno(err, "cannot open folder '%.200s'", r->last_resolved);
            return -1;
        }
    }
    memcpy(r->last, dir, strlen(dir) + 1);
    r->last_fd = fd;
    if (resolved != NULL)
        *resolved = r->last_resolved;
    return fd;
}
