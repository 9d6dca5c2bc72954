/* SPDX-License-Identifier: Apache-2.0 */
/* flatten.c: unpack_rootfs_copy of unpack.h: layers, bottom first, copied over one another into one folder.
 *
 * No link is ever followed: both trees are walked folder by folder with O_NOFOLLOW. Depth is bounded by what layer_path.h
 * lets into a layer (IMAGE_DEPTH_MAX), so descriptors and stack are too. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "image/layer_path.h"
#include "image/unpack.h"
#include "io/file.h"

#define FLATTEN_BUFFER (64u << 10) /* XATTR_SIZE_MAX, and a fair size for copying */

struct flatten {
    const char *dest;
    int dest_fd;
    struct strmap links; /* "device:inode" of files with several names in this layer -> path in dest; values owned */
    bool no_clone, no_copy_range;
    char *path; /* of the folder at work, below dest; LAYER_PATH_SIZE */
    uint8_t *buffer;
    struct unpacked *out;
};

static bool flatten_is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

static bool flatten_is_opaque(int fd)
{
    char value = 0;

    return (fgetxattr(fd, "trusted.overlay.opaque", &value, 1) == 1 && value == 'y') ||
           (fgetxattr(fd, "user.overlay.opaque", &value, 1) == 1 && value == 'y');
}

/* ---- one file ---- */

static bool flatten_range(struct flatten *f, int from, int to, off_t offset, off_t end, const char *name, struct status *err)
{
    while (offset < end) {
        size_t want = (size_t)(end - offset < (1 << 30) ? end - offset : 1 << 30);
        off_t at = offset, to_at = offset;
        ssize_t n = f->no_copy_range ? -1 : copy_file_range(from, &at, to, &to_at, want, 0);
        if (n < 0 && (f->no_copy_range || errno == ENOSYS || errno == EXDEV || errno == EOPNOTSUPP || errno == EINVAL ||
                      errno == EPERM)) {
            f->no_copy_range = true;
            n = pread(from, f->buffer, want < FLATTEN_BUFFER ? want : FLATTEN_BUFFER, offset);
            if (n > 0)
                n = pwrite(to, f->buffer, (size_t)n, offset);
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return status_errno(err, "cannot copy %s/%s", f->path, name);
        if (n == 0)
            return status_set(err, STATUS_INTERNAL, "%s/%s became shorter while it was copied", f->path, name);
        offset += n;
    }
    return true;
}

/* Holes stay holes. */
static bool flatten_content(struct flatten *f, int from, int to, off_t size, const char *name, struct status *err)
{
    off_t data = 0, hole;

    if (size == 0)
        return true;
    if (!f->no_clone && ioctl(to, FICLONE, from) == 0)
        return true;
    f->no_clone = true;
    if (ftruncate(to, size) < 0)
        return status_errno(err, "cannot write %s/%s", f->path, name);
    while (data < size) {
        off_t next = lseek(from, data, SEEK_DATA);
        if (next < 0 && errno == ENXIO)
            return true; /* nothing but a hole is left */
        hole = next < 0 ? size : lseek(from, next, SEEK_HOLE);
        if (next < 0)
            next = data; /* a file system that knows no holes */
        if (hole < 0 || hole > size)
            hole = size;
        if (!flatten_range(f, from, to, next, hole, name, err))
            return false;
        data = hole;
    }
    return true;
}

static bool flatten_xattrs(struct flatten *f, int from, int to, const char *name, struct status *err)
{
    cleanup_free char *names = xmalloc(FLATTEN_BUFFER);
    ssize_t n = flistxattr(from, names, FLATTEN_BUFFER);

    for (const char *p = names; n > 0 && p < names + n; p += strlen(p) + 1) {
        if (str_starts(p, "trusted.overlay.") || str_starts(p, "user.overlay."))
            continue;
        ssize_t length = fgetxattr(from, p, f->buffer, FLATTEN_BUFFER);
        if (length < 0 || fsetxattr(to, p, f->buffer, (size_t)length, 0) == 0)
            continue;
        if (errno != EOPNOTSUPP && errno != EPERM && errno != EACCES && errno != EINVAL)
            return status_errno(err, "cannot set the attribute %.100s of %s/%s", p, f->path, name);
        f->out->xattrs_skipped++;
    }
    return true;
}

/* Owner first, for a change of it clears set-id bits and capabilities. A user may not give files away: all are its own. */
static bool flatten_meta(struct flatten *f, int from, int to, const struct stat *st, const char *name, struct status *err)
{
    struct timespec times[2] = { st->st_mtim, st->st_mtim };

    if (fchown(to, st->st_uid, st->st_gid) < 0 && geteuid() == 0)
        return status_errno(err, "cannot give %s/%s to user %u", f->path, name, (unsigned)st->st_uid);
    if (!flatten_xattrs(f, from, to, name, err))
        return false;
    if (fchmod(to, st->st_mode & 07777) < 0 || futimens(to, times) < 0)
        return status_errno(err, "cannot set the mode and time of %s/%s", f->path, name);
    return true;
}

static bool flatten_file(struct flatten *f, int from_dir, int to_dir, const char *name, const struct stat *st, struct status *err)
{
    cleanup_close int from = openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    cleanup_close int to = from < 0 ? -1 : openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (from < 0 || to < 0)
        return status_errno(err, "cannot copy %s/%s", f->path, name);
    return flatten_content(f, from, to, st->st_size, name, err) && flatten_meta(f, from, to, st, name, err);
}

/* Links, devices, pipes. */
static bool flatten_special(struct flatten *f, int from_dir, int to_dir, const char *name, const struct stat *st,
                            struct status *err)
{
    struct timespec times[2] = { st->st_mtim, st->st_mtim };
    char target[LAYER_PATH_SIZE];

    if (S_ISSOCK(st->st_mode))
        return true;
    if (S_ISLNK(st->st_mode)) {
        ssize_t n = readlinkat(from_dir, name, target, sizeof target - 1);
        if (n < 0)
            return status_errno(err, "cannot read link %s/%s", f->path, name);
        target[n] = '\0';
        if (symlinkat(target, to_dir, name) < 0)
            return status_errno(err, "cannot make link %s/%s", f->path, name);
    } else if (mknodat(to_dir, name, st->st_mode, st->st_rdev) < 0) {
        if (errno != EPERM || S_ISFIFO(st->st_mode))
            return status_errno(err, "cannot make %s/%s", f->path, name);
        f->out->devices_skipped++;
        return true;
    }
    if ((fchownat(to_dir, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0 && geteuid() == 0) ||
        (!S_ISLNK(st->st_mode) && fchmodat(to_dir, name, st->st_mode & 07777, 0) < 0) ||
        utimensat(to_dir, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return status_errno(err, "cannot set owner, mode and time of %s/%s", f->path, name);
    return true;
}

/* ---- folders ---- */

static bool flatten_remove(struct flatten *f, const char *name, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/%s%s%s", f->dest, f->path, f->path[0] != '\0' ? "/" : "", name);

    return tree_remove(path, err);
}

static bool flatten_clear(struct flatten *f, int to_dir, struct status *err)
{
    int fd = openat(to_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    bool ok = true;

    if (dir == NULL) {
        status_errno(err, "cannot list %s/%s", f->dest, f->path);
        if (fd >= 0)
            close(fd);
        return false;
    }
    while (ok && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            ok = flatten_remove(f, entry->d_name, err);
    closedir(dir);
    return ok;
}

/* What the layer takes away here, before what it brings. */
static bool flatten_take_away(struct flatten *f, DIR *from, int to_dir, struct status *err)
{
    struct dirent *entry;
    struct stat st;

    while ((entry = readdir(from)) != NULL) {
        const char *name = entry->d_name;
        if (strcmp(name, ".wh..wh..opq") == 0) {
            if (!flatten_clear(f, to_dir, err))
                return false;
        } else if (str_starts(name, ".wh.")) {
            if (!flatten_remove(f, name + 4, err))
                return false;
        } else if (entry->d_type == DT_CHR || entry->d_type == DT_UNKNOWN) {
            if (fstatat(dirfd(from), name, &st, AT_SYMLINK_NOFOLLOW) == 0 && flatten_is_whiteout(&st) &&
                !flatten_remove(f, name, err))
                return false;
        }
    }
    rewinddir(from);
    return true;
}

static bool flatten_dir(struct flatten *f, int from_fd, int to_fd, struct status *err);

static bool flatten_subdir(struct flatten *f, int from_dir, int to_dir, const char *name, const struct stat *st,
                           struct status *err)
{
    int from = openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    size_t before = strlen(f->path);
    struct stat there;

    if (from < 0)
        return status_errno(err, "cannot open folder %s/%s", f->path, name);
    bool keep = fstatat(to_dir, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(there.st_mode) && !flatten_is_opaque(from);
    if (before + 1 + strlen(name) >= LAYER_PATH_SIZE) {
        close(from);
        return status_set(err, STATUS_INVALID_ARGUMENT, "the path %.200s... is too long", f->path);
    }
    if (!keep && (!flatten_remove(f, name, err) || (mkdirat(to_dir, name, 0700) < 0 &&
                                                    !status_errno(err, "cannot make folder %s/%s", f->path, name)))) {
        close(from);
        return false;
    }
    cleanup_close int to = openat(to_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    cleanup_close int from_meta = fcntl(from, F_DUPFD_CLOEXEC, 3);
    if (to < 0 || from_meta < 0) {
        close(from);
        return status_errno(err, "cannot open folder %s/%s", f->path, name);
    }
    snprintf(f->path + before, LAYER_PATH_SIZE - before, "%s%s", before > 0 ? "/" : "", name);
    bool ok = flatten_dir(f, from, to, err);
    f->path[before] = '\0';
    return ok && flatten_meta(f, from_meta, to, st, name, err);
}

/* A file's second name in the same layer. *done: it was linked. */
static bool flatten_hardlink(struct flatten *f, int to_dir, const char *name, const struct stat *st, bool *done,
                             struct status *err)
{
    char key[64];

    *done = false;
    if (st->st_nlink < 2)
        return true;
    snprintf(key, sizeof key, "%llx:%llx", (unsigned long long)st->st_dev, (unsigned long long)st->st_ino);
    const char *first = strmap_get(&f->links, key);
    if (first == NULL) {
        strmap_put(&f->links, key, xasprintf("%s%s%s", f->path, f->path[0] != '\0' ? "/" : "", name));
        return true;
    }
    *done = true;
    return linkat(f->dest_fd, first, to_dir, name, 0) == 0 || status_errno(err, "cannot link %s/%s", f->path, name);
}

static bool flatten_entry(struct flatten *f, int from_dir, int to_dir, const char *name, struct status *err)
{
    struct stat st, there;
    bool done;

    if (fstatat(from_dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return status_errno(err, "cannot look at %s/%s", f->path, name);
    if (flatten_is_whiteout(&st) || str_starts(name, ".wh."))
        return true;
    if (S_ISDIR(st.st_mode))
        return flatten_subdir(f, from_dir, to_dir, name, &st, err);
    if (fstatat(to_dir, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && !flatten_remove(f, name, err))
        return false;
    if (!flatten_hardlink(f, to_dir, name, &st, &done, err))
        return false;
    if (done)
        return true;
    return S_ISREG(st.st_mode) ? flatten_file(f, from_dir, to_dir, name, &st, err)
                               : flatten_special(f, from_dir, to_dir, name, &st, err);
}

/* Takes from_fd. */
static bool flatten_dir(struct flatten *f, int from_fd, int to_fd, struct status *err)
{
    DIR *dir = fdopendir(from_fd);
    struct dirent *entry;

    if (dir == NULL) {
        close(from_fd);
        return status_errno(err, "cannot list folder %s", f->path);
    }
    bool ok = flatten_take_away(f, dir, to_fd, err);
    while (ok && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            ok = flatten_entry(f, from_fd, to_fd, entry->d_name, err);
    closedir(dir);
    return ok;
}

static bool flatten_layer(struct flatten *f, const char *layer, struct status *err)
{
    int from = open(layer, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct strmap_iter it = { 0 };
    struct stat st;

    if (from < 0)
        return status_errno(err, "cannot open the layer %s", layer);
    cleanup_close int meta = fcntl(from, F_DUPFD_CLOEXEC, 3);
    f->path[0] = '\0';
    bool ok = (meta >= 0 && fstat(from, &st) == 0) || status_errno(err, "cannot open the layer %s", layer);
    ok = ok && (!flatten_is_opaque(from) || flatten_clear(f, f->dest_fd, err));
    if (ok)
        ok = flatten_dir(f, from, f->dest_fd, err) && flatten_meta(f, meta, f->dest_fd, &st, ".", err);
    else
        close(from);
    while (strmap_next(&f->links, &it))
        free(it.value);
    strmap_free(&f->links);
    f->links = (struct strmap)STRMAP_INIT;
    return ok;
}

/* ---- the whole ---- */

/* Takes fd. Files with several names are counted once a name: close enough for one container's files. */
static void flatten_count(int fd, struct unpacked *out)
{
    DIR *dir = fdopendir(fd);
    struct dirent *entry;
    struct stat st;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, "..") == 0 || fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        bool self = strcmp(entry->d_name, ".") == 0;
        if (S_ISDIR(st.st_mode) && !self) {
            int sub = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (sub >= 0)
                flatten_count(sub, out);
            continue;
        }
        out->inodes++;
        out->bytes += (uint64_t)st.st_blocks * 512;
    }
    if (dir != NULL)
        closedir(dir);
    else
        close(fd);
}

static bool flatten_open(struct flatten *f, struct status *err)
{
    if (mkdir(f->dest, 0755) < 0) {
        /* Another's empty folder will do; rmdir tells whether it is empty. */
        if (errno != EEXIST)
            return status_errno(err, "cannot make folder %s", f->dest);
        if (rmdir(f->dest) < 0 || mkdir(f->dest, 0755) < 0)
            return status_errno(err, "cannot use folder %s", f->dest);
    }
    f->dest_fd = open(f->dest, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return f->dest_fd >= 0 || status_errno(err, "cannot open folder %s", f->dest);
}

bool unpack_rootfs_copy(const char *const *layer_dirs, size_t count, const char *dest, struct unpacked *out, struct status *err)
{
    struct flatten f = { .dest = dest, .dest_fd = -1, .out = out };
    struct status ignored;

    memset(out, 0, sizeof *out);
    out->form = UNPACK_ANY;
    if (!flatten_open(&f, err))
        return false;
    f.path = xcalloc(1, LAYER_PATH_SIZE);
    f.buffer = xmalloc(FLATTEN_BUFFER);
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++)
        ok = flatten_layer(&f, layer_dirs[i], err);
    if (ok)
        flatten_count(f.dest_fd, out);
    else
        close(f.dest_fd);
    free(f.path);
    free(f.buffer);
    if (!ok)
        tree_remove(dest, &ignored);
    return ok;
}

#undef FLATTEN_BUFFER
