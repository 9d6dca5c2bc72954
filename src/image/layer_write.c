/* SPDX-License-Identifier: Apache-2.0 */
#include "image/layer_write.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "io/file.h"
#include "io/userns.h"

#define LAYER_WHITEOUT ".wh."
#define LAYER_OPAQUE ".wh..wh..opq"
#define LAYER_AUFS ".wh..wh." /* aufs kept its own things under such names */

/* ---- what this process may do ---- */

/* Which ids there are and may be given files: none but our own without these capabilities. */
static void layer_count_ids(struct layer_writer *w)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { { 0 } };
    const uint32_t wanted = 1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER;
    struct userns_map map;
    struct status ignored;

    if (geteuid() != 0 || syscall(SYS_capget, &header, data) < 0 || (data[0].effective & wanted) != wanted ||
        !userns_read_map("self", &map, &ignored))
        return;
    w->uids = userns_ids_count(&map.uids);
    w->gids = userns_ids_count(&map.gids);
    w->machine = w->uids == UINT32_MAX && map.uids.ranges[0].outside == 0;
    w->owners = w->uids > 1 && w->gids > 1;
}

static bool layer_replace(void *arg, const char *resolved, struct status *err);

bool layer_writer_open(struct layer_writer *w, const char *dir, struct status *err)
{
    memset(w, 0, sizeof *w);
    w->root.fd = -1;
    w->root.last_fd = -1;
    if (!layer_root_open(&w->root, dir, err))
        return false;
    w->root.replace = layer_replace;
    w->root.arg = w;
    layer_count_ids(w);
    unpack_owners_here(w->usage.owners);
    /* A file system may refuse even root (NFS with root squashed), or know nothing of other ids (NFS and user namespaces). */
    if (w->owners && (fchown(w->root.fd, 1, 1) < 0 || fchown(w->root.fd, 0, 0) < 0)) {
        w->machine = w->owners = false;
        snprintf(w->usage.owners, sizeof w->usage.owners, "none");
    }
    if (fchmod(w->root.fd, 0755) < 0)
        return status_errno(err, "cannot set the mode of %s", dir);
    return true;
}

void layer_writer_close(struct layer_writer *w)
{
    layer_root_close(&w->root);
    buf_free(&w->folders);
}

/* ---- owners, modes, attributes ---- */

static bool layer_xattr_wanted(const struct layer_writer *w, const char *name)
{
    /* overlayfs' own: an archive must not redirect its look-ups. */
    if (str_starts(name, "user.overlay.") || str_starts(name, "trusted.overlay."))
        return false;
    if (str_starts(name, "user."))
        return true;
    /* In a user namespace capabilities are kept as those of its root (capabilities(7), "namespaced file capabilities"). */
    return w->owners && (strcmp(name, "security.capability") == 0 || (w->machine && str_starts(name, "trusted.")) ||
                         str_starts(name, "system.posix_acl_"));
}

static bool layer_set_xattrs(struct layer_writer *w, const struct layer_entry *entry, int fd, struct status *err)
{
    for (size_t i = 0; i < entry->xattr_count; i++) {
        const struct layer_xattr *x = &entry->xattrs[i];
        if (layer_xattr_wanted(w, x->name) && fsetxattr(fd, x->name, x->value, x->n, 0) == 0)
            continue;
        if (layer_xattr_wanted(w, x->name) && errno != EOPNOTSUPP && errno != EPERM && errno != EINVAL)
            return status_errno(err, "cannot set the attribute %.100s of '%.200s'", x->name, entry->path);
        w->usage.xattrs_skipped++;
    }
    return true;
}

/* For a user with one id everything must stay usable: what it cannot read it could neither copy nor remove. */
static mode_t layer_mode(const struct layer_writer *w, const struct layer_entry *entry)
{
    mode_t mode = entry->mode & 07777;

    if (w->owners)
        return mode;
    return mode | (entry->type == LAYER_FOLDER ? 0700 : 0400);
}

/* Root stands for those that do not exist here. */
static void layer_owner(struct layer_writer *w, const struct layer_entry *entry, uid_t *uid, gid_t *gid)
{
    *uid = entry->uid < w->uids ? (uid_t)entry->uid : 0;
    *gid = entry->gid < w->gids ? (gid_t)entry->gid : 0;
    w->usage.owners_skipped += w->owners && (entry->uid >= w->uids || entry->gid >= w->gids);
}

/* Of a file or folder that is open. The owner first: a change of it clears set-id bits and capabilities. */
static bool layer_set_fd(struct layer_writer *w, const struct layer_entry *entry, int fd, struct status *err)
{
    uid_t uid;
    gid_t gid;

    layer_owner(w, entry, &uid, &gid);
    if (w->owners && fchown(fd, uid, gid) < 0)
        return status_errno(err, "cannot give '%.200s' to user %u", entry->path, uid);
    if (!layer_set_xattrs(w, entry, fd, err))
        return false;
    if (fchmod(fd, layer_mode(w, entry)) < 0)
        return status_errno(err, "cannot set the mode of '%.200s'", entry->path);
    return true;
}

/* Of anything else that was just made under that name. */
static bool layer_set_at(struct layer_writer *w, const struct layer_entry *entry, int dir, const char *leaf, struct status *err)
{
    struct timespec times[2] = { entry->mtime, entry->mtime };
    uid_t uid;
    gid_t gid;

    w->usage.inodes++;
    w->usage.xattrs_skipped += entry->xattr_count;
    layer_owner(w, entry, &uid, &gid);
    if (w->owners && fchownat(dir, leaf, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
        return status_errno(err, "cannot give '%.200s' to user %u", entry->path, uid);
    if (entry->type != LAYER_SYMLINK && fchmodat(dir, leaf, layer_mode(w, entry), 0) < 0)
        return status_errno(err, "cannot set the mode of '%.200s'", entry->path);
    if (utimensat(dir, leaf, times, AT_SYMLINK_NOFOLLOW) < 0)
        return status_errno(err, "cannot set the time of '%.200s'", entry->path);
    return true;
}

/* ---- whiteouts ---- */

static bool layer_is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

/* The form of last resort: the archive's own name as an empty file, which only a flat copy understands. */
static bool layer_mark_flat(struct layer_writer *w, int dir, const char *name, struct status *err)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return status_errno(err, "cannot make whiteout '%.200s'", name);
    close(fd);
    w->flat_only = true;
    w->usage.inodes++;
    return true;
}

/* Nothing of this folder is to show from the layers below. */
static bool layer_mark_opaque(struct layer_writer *w, int dir, const char *leaf, struct status *err)
{
    cleanup_close int fd = openat(dir, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return status_errno(err, "cannot open folder '%.200s'", leaf);
    if (w->machine && !w->opaque_user && fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0) == 0) {
        w->opaque_trusted = true;
        return true;
    }
    if (!w->opaque_trusted && fsetxattr(fd, "user.overlay.opaque", "y", 1, 0) == 0) {
        w->opaque_user = true;
        return true;
    }
    return layer_mark_flat(w, fd, LAYER_OPAQUE, err);
}

/* `.wh.name`: hides what the layers below have under that name. What this layer itself has there stays (OCI layer.md), but a
 * folder of its own then replaces the lower one. */
static bool layer_whiteout(struct layer_writer *w, int dir, const char *name, struct status *err)
{
    char flat[300];
    struct stat st;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return !S_ISDIR(st.st_mode) || layer_mark_opaque(w, dir, name, err);
    if (errno != ENOENT)
        return status_errno(err, "cannot look at '%.200s'", name);
    if (mknodat(dir, name, S_IFCHR, 0) == 0) {
        w->usage.inodes++;
        return true;
    }
    if (errno == ENOSPC || errno == EDQUOT || errno == ENAMETOOLONG)
        return status_errno(err, "cannot make whiteout '%.200s'", name);
    snprintf(flat, sizeof flat, LAYER_WHITEOUT "%.255s", name);
    return layer_mark_flat(w, dir, flat, err);
}

/* Every name that begins with .wh. and every path below one. *handled: there is nothing else to do. */
static bool layer_whiteout_entry(struct layer_writer *w, const char *clean, bool *handled, struct status *err)
{
    char dir[LAYER_PATH_SIZE];
    const char *leaf;

    layer_path_split(clean, dir, &leaf);
    *handled = true;
    if (str_starts(dir, LAYER_AUFS) || strstr(dir, "/" LAYER_AUFS) != NULL)
        return true;
    if (!str_starts(leaf, LAYER_WHITEOUT)) {
        *handled = false;
        return true;
    }
    const char *name = leaf + strlen(LAYER_WHITEOUT);
    bool opaque = strcmp(leaf, LAYER_OPAQUE) == 0;
    if (!opaque && str_starts(leaf, LAYER_AUFS))
        return true;
    if (!opaque && (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0))
        return status_set(err, STATUS_INVALID_ARGUMENT, "the whiteout '%.200s' names nothing", clean);
    int fd = layer_dir(&w->root, dir, true, NULL, err);
    return fd >= 0 && (opaque ? layer_mark_opaque(w, fd, ".", err) : layer_whiteout(w, fd, name, err));
}

/* On the way to something below it, a name turns out to be hidden by this very layer: then it is a new folder. */
static bool layer_replace(void *arg, const char *resolved, struct status *err)
{
    struct layer_writer *w = arg;
    struct stat st;

    if (fstatat(w->root.fd, resolved, &st, AT_SYMLINK_NOFOLLOW) < 0 || !layer_is_whiteout(&st))
        return status_set(err, STATUS_INVALID_ARGUMENT, "there is something below '%.200s', which is no folder", resolved);
    /* `resolved` has no link in it (layer_path.h). */
    if (unlinkat(w->root.fd, resolved, 0) < 0 || mkdirat(w->root.fd, resolved, 0755) < 0 ||
        fchmodat(w->root.fd, resolved, 0755, 0) < 0)
        return status_errno(err, "cannot make folder '%.200s'", resolved);
    return layer_mark_opaque(w, w->root.fd, resolved, err);
}

/* ---- entries ---- */

/* Takes away what is there under that name, unless it is a folder and stays one. */
static bool layer_make_room(struct layer_writer *w, const struct layer_entry *entry, int dir, const char *resolved,
                            const char *leaf, bool *kept, bool *was_whiteout, struct status *err)
{
    struct stat st;

    *kept = *was_whiteout = false;
    if (fstatat(dir, leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT || status_errno(err, "cannot look at '%.200s'", entry->path);
    if (S_ISDIR(st.st_mode) && entry->type == LAYER_FOLDER) {
        *kept = true;
        return true;
    }
    if (S_ISDIR(st.st_mode)) {
        cleanup_free char *path = xasprintf("%s/%s%s%s", w->root.path, resolved, resolved[0] != '\0' ? "/" : "", leaf);
        return tree_remove(path, err);
    }
    *was_whiteout = layer_is_whiteout(&st);
    if (unlinkat(dir, leaf, 0) < 0)
        return status_errno(err, "cannot replace '%.200s'", entry->path);
    if (st.st_nlink == 1) {
        w->usage.inodes--;
        w->usage.bytes -= (uint64_t)st.st_blocks * 512;
    }
    return true;
}

/* Its times are set when nothing more comes into it. */
static bool layer_remember_folder(struct layer_writer *w, const char *resolved, const char *leaf, const struct timespec *mtime,
                                  bool fresh, struct status *err)
{
    if (w->folders.n > IMAGE_FOLDERS_BYTES_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "the layer has too many folders: their names take more than %u bytes",
                          IMAGE_FOLDERS_BYTES_MAX);
    buf_append(&w->folders, mtime, sizeof *mtime);
    buf_append_byte(&w->folders, fresh);
    buf_append_str(&w->folders, resolved);
    if (resolved[0] != '\0' && leaf[0] != '\0')
        buf_append_byte(&w->folders, '/');
    buf_append(&w->folders, leaf, strlen(leaf) + 1);
    return true;
}

static bool layer_write_folder(struct layer_writer *w, const struct layer_entry *entry, int dir, const char *resolved,
                               const char *leaf, bool kept, bool opaque, struct status *err)
{
    if (!kept && mkdirat(dir, leaf, 0700) < 0)
        return status_errno(err, "cannot make folder '%.200s'", entry->path);
    w->usage.inodes += !kept;
    cleanup_close int fd = openat(dir, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return status_errno(err, "cannot open folder '%.200s'", entry->path);
    return layer_set_fd(w, entry, fd, err) && (!opaque || layer_mark_opaque(w, fd, ".", err)) &&
           layer_remember_folder(w, resolved, leaf, &entry->mtime, !kept, err);
}

static bool layer_write_root(struct layer_writer *w, const struct layer_entry *entry, struct status *err)
{
    if (entry->type != LAYER_FOLDER)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the entry '%.200s' would replace the layer's own folder", entry->path);
    return layer_set_fd(w, entry, w->root.fd, err) && layer_remember_folder(w, "", "", &entry->mtime, false, err);
}

/* A second name for something that is in the layer already. */
static bool layer_write_hardlink(struct layer_writer *w, const struct layer_entry *entry, const char *clean, struct status *err)
{
    char target[LAYER_PATH_SIZE], dir[LAYER_PATH_SIZE];
    const char *leaf, *resolved;
    struct stat from, to;
    bool kept, was_whiteout;

    if (!layer_path_clean(entry->target, target, err))
        return status_prefix(err, "hard link '%.200s'", entry->path);
    if (target[0] == '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT, "hard link '%.200s' leads to the layer's own folder", entry->path);
    layer_path_split(target, dir, &leaf);
    int fd = layer_dir(&w->root, dir, false, NULL, err);
    cleanup_close int from_dir = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (from_dir < 0 || fstatat(from_dir, leaf, &from, AT_SYMLINK_NOFOLLOW) < 0 || layer_is_whiteout(&from))
        return status_set(err, STATUS_INVALID_ARGUMENT, "hard link '%.200s' leads to '%.200s', which is not in the layer",
                          entry->path, entry->target);
    if (S_ISDIR(from.st_mode))
        return status_set(err, STATUS_INVALID_ARGUMENT, "hard link '%.200s' leads to a folder", entry->path);
    const char *from_leaf = leaf;
    char to_dir_path[LAYER_PATH_SIZE];
    layer_path_split(clean, to_dir_path, &leaf);
    int to_dir = layer_dir(&w->root, to_dir_path, true, &resolved, err);
    if (to_dir < 0)
        return false;
    if (fstatat(to_dir, leaf, &to, AT_SYMLINK_NOFOLLOW) == 0 && to.st_ino == from.st_ino)
        return true;
    if (!layer_make_room(w, entry, to_dir, resolved, leaf, &kept, &was_whiteout, err))
        return false;
    if (linkat(from_dir, from_leaf, to_dir, leaf, 0) < 0)
        return status_errno(err, "cannot link '%.200s' to '%.200s'", entry->path, entry->target);
    return true;
}

/* Everything that needs a parent folder and is no hard link. */
static bool layer_write_at(struct layer_writer *w, const struct layer_entry *entry, const char *clean, int *fd,
                           struct status *err)
{
    char dir_path[LAYER_PATH_SIZE];
    const char *leaf, *resolved;
    bool kept, was_whiteout;

    layer_path_split(clean, dir_path, &leaf);
    int dir = layer_dir(&w->root, dir_path, true, &resolved, err);
    bool device = entry->type == LAYER_CHAR || entry->type == LAYER_BLOCK;
    if (dir < 0)
        return false;
    if (entry->type == LAYER_CHAR && entry->device == 0)
        return layer_whiteout(w, dir, leaf, err);
    if (device && !w->machine) {
        w->usage.devices_skipped++;
        return true;
    }
    if (!layer_make_room(w, entry, dir, resolved, leaf, &kept, &was_whiteout, err))
        return false;
    switch (entry->type) {
    case LAYER_FOLDER:
        return layer_write_folder(w, entry, dir, resolved, leaf, kept, was_whiteout, err);
    case LAYER_SYMLINK:
        if (symlinkat(entry->target, dir, leaf) < 0)
            return status_errno(err, "cannot make link '%.200s'", entry->path);
        return layer_set_at(w, entry, dir, leaf, err);
    case LAYER_FILE:
        *fd = openat(dir, leaf, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        return *fd >= 0 || status_errno(err, "cannot make file '%.200s'", entry->path);
    default:
        break;
    }
    mode_t kind = entry->type == LAYER_FIFO ? S_IFIFO : entry->type == LAYER_CHAR ? S_IFCHR : S_IFBLK;
    if (mknodat(dir, leaf, kind | 0600, entry->device) < 0) {
        if (!device || errno != EPERM)
            return status_errno(err, "cannot make '%.200s'", entry->path);
        w->usage.devices_skipped++;
        return true;
    }
    return layer_set_at(w, entry, dir, leaf, err);
}

bool layer_write(struct layer_writer *w, const struct layer_entry *entry, int *fd, struct status *err)
{
    char clean[LAYER_PATH_SIZE];
    bool handled;

    *fd = -1;
    if (!layer_path_clean(entry->path, clean, err))
        return false;
    if (entry->uid >= UINT32_MAX || entry->gid >= UINT32_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the owner of '%.200s' is no user id", entry->path);
    if (clean[0] == '\0')
        return layer_write_root(w, entry, err);
    if (!layer_whiteout_entry(w, clean, &handled, err))
        return false;
    if (handled)
        return true;
    if (entry->type == LAYER_HARDLINK)
        return layer_write_hardlink(w, entry, clean, err);
    return layer_write_at(w, entry, clean, fd, err);
}

bool layer_write_done(struct layer_writer *w, const struct layer_entry *entry, int fd, struct status *err)
{
    struct timespec times[2] = { entry->mtime, entry->mtime };
    struct stat st;
    /* The end may be a hole. */
    bool ok = ftruncate(fd, (off_t)entry->size) == 0 || status_errno(err, "cannot write '%.200s'", entry->path);

    ok = ok && layer_set_fd(w, entry, fd, err);
    if (ok && (futimens(fd, times) < 0 || fstat(fd, &st) < 0))
        ok = status_errno(err, "cannot set the time of '%.200s'", entry->path);
    if (ok) {
        w->usage.inodes++;
        w->usage.bytes += (uint64_t)st.st_blocks * 512;
    }
    if (close(fd) < 0 && ok) /* NFS tells of a full disk here */
        ok = status_errno(err, "cannot write '%.200s'", entry->path);
    return ok;
}

/* ---- the end ---- */

static void layer_set_folder_time(struct layer_writer *w, const char *path, const struct timespec *mtime, bool fresh)
{
    struct timespec times[2] = { *mtime, *mtime };
    char dir_path[LAYER_PATH_SIZE];
    const char *leaf = ".";
    struct status ignored;
    struct stat st;

    dir_path[0] = '\0';
    if (path[0] != '\0')
        layer_path_split(path, dir_path, &leaf);
    /* A later entry may have taken it away. */
    int dir = layer_dir(&w->root, dir_path, false, NULL, &ignored);
    if (dir < 0 || fstatat(dir, leaf, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
        return;
    utimensat(dir, leaf, times, AT_SYMLINK_NOFOLLOW);
    if (fresh)
        w->usage.bytes += (uint64_t)st.st_blocks * 512;
}

bool layer_writer_finish(struct layer_writer *w, struct unpacked *out, struct status *err)
{
    struct stat st;

    for (size_t at = 0; at < w->folders.n;) {
        struct timespec mtime;
        memcpy(&mtime, w->folders.p + at, sizeof mtime);
        bool fresh = w->folders.p[at + sizeof mtime] != 0;
        const char *path = (const char *)w->folders.p + at + sizeof mtime + 1;
        layer_set_folder_time(w, path, &mtime, fresh);
        at += sizeof mtime + 1 + strlen(path) + 1;
    }
    if (fstat(w->root.fd, &st) < 0)
        return status_errno(err, "cannot look at %s", w->root.path);
    /* The folder itself and those that no entry described are taken to be as large as each other. */
    w->usage.inodes += 1 + w->root.made;
    w->usage.bytes += (w->root.made + 1) * (uint64_t)st.st_blocks * 512;
    w->usage.form = w->flat_only        ? UNPACK_FLAT
                    : w->opaque_trusted ? UNPACK_TRUSTED
                    : w->opaque_user    ? UNPACK_USER
                                        : UNPACK_ANY;
    *out = w->usage;
    return true;
}

#undef LAYER_WHITEOUT
#undef LAYER_OPAQUE
#undef LAYER_AUFS
