/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/rootfs.h"

#include "agent/lsm.h"
#include "image/unpack.h"
#include "io/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 4
#endif

/* A machine with thousands of mounts. */
#define ROOTFS_MOUNTINFO_MAX (4u << 20)

/* ---- paths inside ---- */

/* Appends path's components to `resolved` (relative to root_fd, free of links), following links inside the root. False
 * with errno. `last`: whether the last component may be a link that stays one. */
static bool rootfs_resolve(int root_fd, const char *path, struct buf *resolved, bool last, int *links)
{
    const char *p = path;

    if (*p == '/')
        buf_clear(resolved);
    for (;;) {
        p += strspn(p, "/");
        size_t n = strcspn(p, "/");
        if (n == 0)
            return true;
        bool is_last = p[n + strspn(p + n, "/")] == '\0';
        if (n == 2 && p[0] == '.' && p[1] == '.') {
            while (resolved->n > 0 && resolved->p[--resolved->n] != '/')
                ;
        } else if (n != 1 || p[0] != '.') {
            size_t before = resolved->n;
            char target[PATH_MAX];
            if (resolved->n > 0)
                buf_append_byte(resolved, '/');
            buf_append(resolved, p, n);
            ssize_t length = readlinkat(root_fd, buf_cstr(resolved), target, sizeof target - 1);
            if (length >= 0 && !(is_last && last)) {
                if (++*links > ROOTFS_LINKS_MAX) {
                    errno = ELOOP;
                    return false;
                }
                target[length] = '\0';
                resolved->n = before;
                if (!rootfs_resolve(root_fd, target, resolved, false, links))
                    return false;
            } else if (length < 0 && errno != EINVAL && !(errno == ENOENT && is_last)) {
                return false;
            }
        }
        p += n;
    }
}

int rootfs_open(int root_fd, const char *path, int flags)
{
    struct open_how how = { .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC), .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
    int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof how);

    if (fd >= 0 || errno != ENOSYS)
        return fd;
    /* Before Linux 5.6: the container is not running yet, so nothing changes underneath. */
    struct buf resolved cleanup_buf = BUF_INIT;
    int links = 0;
    if (!rootfs_resolve(root_fd, path, &resolved, (flags & O_NOFOLLOW) != 0, &links))
        return -1;
    return openat(root_fd, resolved.n == 0 ? "." : buf_cstr(&resolved), flags | O_NOFOLLOW | O_CLOEXEC);
}

bool rootfs_read(int root_fd, const char *path, size_t max, struct buf *out, struct status *err)
{
    cleanup_close int fd = rootfs_open(root_fd, path, O_RDONLY | O_NONBLOCK);
    struct stat st;

    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR || status_errno(err, "cannot open the image's %s", path);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return status_set(err, STATUS_INVALID_ARGUMENT, "the image's %s is not a file", path);
    if ((uint64_t)st.st_size > max)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the image's %s is larger than %zu bytes", path, max);
    for (;;) {
        ssize_t n = read(fd, buf_reserve(out, 4096), 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return status_errno(err, "cannot read the image's %s", path);
        if (n == 0)
            return true;
        out->n += (size_t)n;
        if (out->n > max)
            return status_set(err, STATUS_INVALID_ARGUMENT, "the image's %s is larger than %zu bytes", path, max);
    }
}

bool rootfs_mkdir(int root_fd, const char *path, struct status *err)
{
    cleanup_free char *copy = xstrdup(path);
    cleanup_close int at = fcntl(root_fd, F_DUPFD_CLOEXEC, 3);

    for (char *p = copy; at >= 0;) {
        p += strspn(p, "/");
        size_t n = strcspn(p, "/");
        if (n == 0)
            return true;
        char after = p[n];
        p[n] = '\0';
        int next = rootfs_open(root_fd, copy, O_PATH | O_DIRECTORY);
        if (next < 0 && errno == ENOENT) {
            /* A dangling link has this name too: mkdirat says EEXIST then, and the second look fails. */
            if (mkdirat(at, p, 0755) < 0 && errno != EEXIST)
                break;
            next = rootfs_open(root_fd, copy, O_PATH | O_DIRECTORY);
        }
        if (next < 0)
            break;
        close(at);
        at = next;
        p[n] = after;
        p += n;
    }
    return status_errno(err, "cannot make the folder %s in the container", path);
}

/* ---- the root ---- */

/* A folder with the pod's owners, mounted at `point`, which is made. */
static bool rootfs_mount_mapped(const char *folder, const char *point, const struct podns *pod, struct status *err)
{
    cleanup_close int fd = userns_open_mapped(folder, pod->user_fd, false, err);

    if (fd < 0)
        return false;
    if (mkdir(point, 0700) < 0 && errno != EEXIST)
        return status_errno(err, "cannot make %s", point);
    return syscall(SYS_move_mount, fd, "", AT_FDCWD, point, MOVE_MOUNT_F_EMPTY_PATH) == 0 ||
           status_errno(err, "cannot mount %s", point);
}

/* Layers by short names, for a mount's options are cut at one page: <bundle>/l/0 is the lowest. */
static bool rootfs_link_layers(const char *bundle, const char *const *layers, size_t count, const struct podns *pod,
                               struct status *err)
{
    cleanup_free char *dir = xasprintf("%s/l", bundle);

    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return status_errno(err, "cannot make %s", dir);
    for (size_t i = 0; i < count; i++) {
        cleanup_free char *name = xasprintf("%s/%zu", dir, i);
        if (pod->on && !rootfs_mount_mapped(layers[i], name, pod, err))
            return status_prefix(err, "linux.security_context.namespace_options.userns_options: the image");
        if (!pod->on && symlink(layers[i], name) < 0 && errno != EEXIST)
            return status_errno(err, "cannot make %s", name);
    }
    return true;
}

/* Mapped layers, which overlayfs has taken hold of by itself once it is mounted. */
static void rootfs_unlink_layers(const char *bundle)
{
    for (size_t i = 0;; i++) {
        cleanup_free char *name = xasprintf("%s/l/%zu", bundle, i);
        struct stat st;
        if (lstat(name, &st) < 0 || !S_ISDIR(st.st_mode))
            return;
        umount2(name, MNT_DETACH | UMOUNT_NOFOLLOW);
    }
}

/* False with errno. Paths in the options are relative to the bundle, where the caller is. */
static bool rootfs_mount_overlay(size_t count, bool userxattr, const char *label)
{
    /* "volatile" (Linux 5.10) spares a sync of the whole upper file system at unmount; "userxattr" (5.11) makes overlayfs
     * usable in a user namespace. Older kernels refuse unknown options, some distributions' allow user mounts without. */
    static const char *const extras[] = { ",volatile", "", NULL };
    struct buf options cleanup_buf = BUF_INIT;

    buf_append_str(&options, "lowerdir=");
    for (size_t i = count; i-- > 0;)
        buf_printf(&options, "l/%zu%s", i, i > 0 ? ":" : "");
    buf_printf(&options, ",upperdir=upper,workdir=work%s", userxattr ? ",userxattr" : "");
    if (*label != '\0')
        buf_printf(&options, ",context=\"%s\"", label);
    size_t length = options.n;
    for (const char *const *extra = extras; *extra != NULL; extra++) {
        options.n = length;
        buf_append_str(&options, *extra);
        if (mount("overlay", "rootfs", "overlay", 0, buf_cstr(&options)) == 0)
            return true;
        if (errno != EINVAL)
            break;
    }
    return false;
}

/* Whether overlayfs can show these layers here, and how. */
static bool rootfs_layers_fit_overlay(const char *const *layers, size_t count, bool userns, bool *userxattr)
{
    cleanup_free enum unpack_form *forms = xcalloc(count, sizeof *forms);
    enum unpack_form form;

    for (size_t i = 0; i < count; i++) {
        struct unpacked info;
        struct status ignored;
        /* A folder that says nothing about itself was made for the likes of us. */
        forms[i] = unpack_layer_info(layers[i], &info, &ignored) ? info.form : UNPACK_ANY;
    }
    if (!unpack_forms_agree(forms, count, &form) || form == UNPACK_FLAT || (userns && form == UNPACK_TRUSTED))
        return false;
    *userxattr = userns || form == UNPACK_USER;
    return true;
}

/* The root folder of an overlay is its upper folder: owner and mode must be those of the image's. */
static bool rootfs_copy_root(const char *layer, const struct podns *pod, struct status *err)
{
    struct stat st;

    if (stat(layer, &st) < 0)
        return status_errno(err, "cannot look at the layer %s", layer);
    /* In a user namespace the owner is ours already. */
    (void)!chown("upper", podns_uid(pod, st.st_uid), podns_gid(pod, st.st_gid));
    return chmod("upper", st.st_mode & 07777) == 0 || status_errno(err, "cannot prepare the root folder");
}

bool rootfs_make(const char *bundle, const char *const *layers, size_t layer_count, const struct rootfs_options *options,
                 struct status *err)
{
    const struct podns *pod = options->pod;
    static const char *const folders[] = { "rootfs", "upper", "work" };
    cleanup_free char *root = xasprintf("%s/rootfs", bundle);
    struct unpacked unpacked;

    if (layer_count == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "image: it has no layers");
    cleanup_close int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (chdir(bundle) < 0)
        return status_errno(err, "cannot enter %s", bundle);
    bool ok = rootfs_link_layers(bundle, layers, layer_count, pod, err);
    for (size_t i = 0; i < COUNT_OF(folders) && ok; i++)
        if (mkdir(folders[i], 0755) < 0 && errno != EEXIST)
            ok = status_errno(err, "cannot make %s/%s", bundle, folders[i]);
    ok = ok && rootfs_copy_root(layers[layer_count - 1], pod, err);
    bool mounted = false, userxattr = options->userns;
    if (ok && rootfs_layers_fit_overlay(layers, layer_count, options->userns, &userxattr)) {
        mounted = rootfs_mount_overlay(layer_count, userxattr, options->label);
        if (!mounted)
            log_info("overlayfs is refused at %s (%s): the image is copied", bundle, strerror(errno));
    }
    rootfs_unlink_layers(bundle);
    if (ok && !mounted)
        ok = unpack_rootfs_copy(layers, layer_count, root, &unpacked, err) &&
             (*options->label == '\0' || lsm_relabel(root, root, options->label, err)) &&
             (!pod->on || rootfs_mount_mapped(root, root, pod, err));
    if (here >= 0 && fchdir(here) < 0)
        log_debug("cannot return to the working directory");
    return ok;
}

/* ---- host paths ---- */

/* A folder for a folder, an empty file for anything else: what is mounted must fit. */
char *rootfs_stage_point(const char *bundle, size_t index, bool is_dir, struct status *err)
{
    cleanup_free char *dir = xasprintf("%s/mounts", bundle);
    char *point = xasprintf("%s/%zu", dir, index);
    bool ok = mkdir(dir, 0700) == 0 || errno == EEXIST;

    if (ok && is_dir) {
        ok = mkdir(point, 0700) == 0 || errno == EEXIST;
    } else if (ok) {
        cleanup_close int fd = open(point, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        ok = fd >= 0;
    }
    if (ok)
        return point;
    status_errno(err, "cannot make %s", point);
    free(point);
    return NULL;
}

static bool rootfs_stat_source(const char *host_path, bool create, struct stat *st, struct status *err)
{
    if (stat(host_path, st) == 0)
        return true;
    if (errno == ENOENT && create && dir_make(host_path, 0755, err) && stat(host_path, st) == 0)
        return true;
    if (errno == ENOENT && !create)
        return status_set(err, STATUS_NOT_FOUND, "host_path %s does not exist on this machine", host_path);
    return status_errno(err, "host_path %s", host_path);
}

/* In the machine's mount namespace: a detached clone of what is mounted at host_path and below. -1 with err. */
static int rootfs_clone_from_host(const char *host_path, int host_mount_fd, bool create, struct stat *st, bool *unsupported,
                                  struct status *err)
{
    cleanup_close int own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = -1;

    *unsupported = false;
    if (own < 0 || root < 0 || here < 0 || setns(host_mount_fd, CLONE_NEWNS) < 0) {
        status_errno(err, "cannot enter the machine's mount namespace");
        return -1;
    }
    if (rootfs_stat_source(host_path, create, st, err)) {
        fd = (int)syscall(SYS_open_tree, AT_FDCWD, host_path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
        *unsupported = fd < 0 && errno == ENOSYS;
        if (fd < 0)
            status_errno(err, "host_path %s: cannot clone the mount", host_path);
    }
    /* Also resets root and working directory. Without the way back this worker is of no use. */
    if (setns(own, CLONE_NEWNS) < 0 || fchdir(root) < 0 || chroot(".") < 0 || fchdir(here) < 0)
        _exit(125);
    return fd;
}

/* The optional fields ("shared:3 master:1") of the mount at `point` (proc(5), mountinfo). A clone has its original's. */
static void rootfs_propagation(const char *point, bool *shared, bool *slave)
{
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;
    char *save = NULL;

    *shared = *slave = false;
    if (!file_read("/proc/self/mountinfo", ROOTFS_MOUNTINFO_MAX, &text, &ignored))
        return;
    buf_cstr(&text);
    for (char *line = strtok_r((char *)text.p, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char at[PATH_MAX];
        char *end = strstr(line, " - ");
        if (end == NULL || sscanf(line, "%*s %*s %*s %*s %4095s", at) != 1 || strcmp(at, point) != 0)
            continue;
        *end = '\0';
        *shared = strstr(line, " shared:") != NULL;
        *slave = strstr(line, " master:") != NULL;
    }
}

static bool rootfs_set_propagation(const char *point, const char *host_path, Runtime__V1__MountPropagation propagation,
                                   struct status *err)
{
    bool shared, slave;

    if (propagation == RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_PRIVATE)
        return mount(NULL, point, NULL, MS_PRIVATE | MS_REC, NULL) == 0 ||
               status_errno(err, "cannot make the mount of host_path %s private", host_path);
    rootfs_propagation(point, &shared, &slave);
    if (propagation == RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_HOST_TO_CONTAINER && !shared && !slave)
        return status_set(err, STATUS_FAILED_PRECONDITION, "host_path %s is on a mount that is neither shared nor a slave: "
                          "it cannot propagate into the container", host_path);
    if (propagation == RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_BIDIRECTIONAL && !shared)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "host_path %s is not on a shared mount that the agent can reach: it cannot propagate from the "
                          "container", host_path);
    return true;
}

bool rootfs_stage(const char *bundle, size_t index, const char *host_path, int host_mount_fd, bool create,
                  Runtime__V1__MountPropagation propagation, struct buf *out, struct status *err)
{
    cleanup_free char *point = NULL;
    cleanup_close int tree = -1;
    struct stat st;
    bool unsupported = true;

    if (host_path[0] != '/')
        return status_set(err, STATUS_INVALID_ARGUMENT, "host_path \"%s\" is not an absolute path", host_path);
    if (host_mount_fd >= 0) {
        tree = rootfs_clone_from_host(host_path, host_mount_fd, create, &st, &unsupported, err);
        if (tree < 0 && !unsupported)
            return false;
    } else if (!rootfs_stat_source(host_path, create, &st, err)) {
        return false;
    }
    point = rootfs_stage_point(bundle, index, S_ISDIR(st.st_mode), err);
    if (point == NULL)
        return false;
    if (tree >= 0 ? syscall(SYS_move_mount, tree, "", AT_FDCWD, point, MOVE_MOUNT_F_EMPTY_PATH) < 0
                  : mount(host_path, point, NULL, MS_BIND | MS_REC, NULL) < 0)
        return status_errno(err, "cannot mount host_path %s", host_path);
    buf_append_str(out, point);
    return rootfs_set_propagation(point, host_path, propagation, err);
}

bool rootfs_map(const char *point, int userns_fd, struct status *err)
{
    cleanup_close int fd = userns_open_mapped(point, userns_fd, true, err);

    if (fd < 0)
        return false;
    /* In its place, so that there is one mount to be taken away again. */
    return (umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 &&
            syscall(SYS_move_mount, fd, "", AT_FDCWD, point, MOVE_MOUNT_F_EMPTY_PATH) == 0) ||
           status_errno(err, "cannot mount %s", point);
}

/* ---- the end ---- */

/* What is not mounted there is no error. */
static bool rootfs_unmount_one(const char *point, struct status *err)
{
    /* Private first: a lazy unmount would otherwise take the mounts below away from the machine as well. */
    if (mount(NULL, point, NULL, MS_PRIVATE | MS_REC, NULL) < 0)
        return errno == EINVAL || errno == ENOENT || status_errno(err, "cannot make %s private", point);
    /* Lazily, for what still uses it in a namespace of its own must not hold us up. */
    return umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || errno == EINVAL || status_errno(err, "cannot unmount %s", point);
}

/* The images among its mounts. */
static bool rootfs_unmount_volumes(const char *bundle, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/volumes", bundle);
    DIR *dir = opendir(path);
    struct dirent *entry;
    bool ok = true;

    while (ok && dir != NULL && (entry = readdir(dir)) != NULL) {
        cleanup_free char *root = xasprintf("%s/%s/rootfs", path, entry->d_name);
        ok = entry->d_name[0] == '.' || rootfs_unmount_one(root, err);
    }
    if (dir != NULL)
        closedir(dir);
    return ok;
}

bool rootfs_unmount(const char *bundle, struct status *err)
{
    cleanup_free char *root = xasprintf("%s/rootfs", bundle);

    if (!rootfs_unmount_one(root, err) || !rootfs_unmount_volumes(bundle, err))
        return false;
    rootfs_unlink_layers(bundle);
    for (size_t i = 0;; i++) {
        cleanup_free char *point = xasprintf("%s/mounts/%zu", bundle, i);
        if (access(point, F_OK) < 0)
            return true;
        if (!rootfs_unmount_one(point, err))
            return false;
    }
}

#undef ROOTFS_MOUNTINFO_MAX
