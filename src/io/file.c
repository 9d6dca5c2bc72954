/* SPDX-License-Identifier: Apache-2.0 */
#include "io/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The least that is read at once: a page. */
#define FILE_READ_STEP 4096

bool fd_set_nonblocking(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) == 0;
}

bool write_all(int fd, const void *p, size_t n, struct status *err)
{
    const uint8_t *from = p;

    while (n > 0) {
        ssize_t done = write(fd, from, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return status_errno(err, "write");
        from += done;
        n -= (size_t)done;
    }
    return true;
}

bool file_read(const char *path, size_t max, struct buf *out, struct status *err)
{
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t before = out->n;

    if (fd < 0)
        return status_errno(err, "cannot open %s", path);
    for (;;) {
        /* Little at first: most files are small. The buffer doubles, and so do the steps. */
        size_t left = max - (out->n - before), room = out->cap - out->n;
        size_t step = room > FILE_READ_STEP ? room : FILE_READ_STEP;
        step = step < left + 1 ? step : left + 1;
        ssize_t n = read(fd, buf_reserve(out, step), step);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            out->n = before;
            return status_errno(err, "cannot read %s", path);
        }
        if (n == 0)
            return true;
        if ((size_t)n > left) {
            out->n = before;
            return status_set(err, STATUS_RESOURCE_EXHAUSTED, "%s is larger than the %zu bytes allowed", path, max);
        }
        out->n += (size_t)n;
    }
}

bool file_sync_dir(const char *path, struct status *err)
{
    cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return status_errno(err, "cannot sync folder %s", path);
    return true;
}

static bool file_write(const char *path, const void *p, size_t n, mode_t mode, bool durable, struct status *err)
{
    cleanup_free char *temporary = xasprintf("%s.tmp", path);
    cleanup_close int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);

    if (fd < 0)
        return status_errno(err, "cannot create %s", temporary);
    if (!write_all(fd, p, n, err)) {
        status_prefix(err, "cannot write %s", temporary);
        unlink(temporary);
        return false;
    }
    /* open(2)'s mode passes the umask and does nothing to a left-over file. */
    if (fchmod(fd, mode) < 0 || (durable && fsync(fd) < 0) || rename(temporary, path) < 0) {
        status_errno(err, "cannot put %s in place", path);
        unlink(temporary);
        return false;
    }
    return true;
}

bool file_replace(const char *path, const void *p, size_t n, mode_t mode, struct status *err)
{
    return file_write(path, p, n, mode, false, err);
}

bool file_write_atomic(const char *path, const void *p, size_t n, mode_t mode, struct status *err)
{
    const char *slash = strrchr(path, '/');
    cleanup_free char *dir = slash == NULL ? xstrdup(".") : xstrndup(path, slash == path ? 1 : (size_t)(slash - path));

    return file_write(path, p, n, mode, true, err) && file_sync_dir(dir, err);
}

bool dir_make(const char *path, mode_t mode, struct status *err)
{
    cleanup_free char *copy = xstrdup(path);

    for (char *p = copy + 1; *p != '\0'; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(copy, mode) < 0 && errno != EEXIST)
            return status_errno(err, "cannot make folder %s", copy);
        *p = '/';
    }
    if (mkdir(copy, mode) < 0 && errno != EEXIST)
        return status_errno(err, "cannot make folder %s", path);
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return status_errno(err, "cannot make folder %s", path);
    }
    return true;
}

static bool tree_remove_at(int dir_fd, const char *name, dev_t device, const char *path, struct status *err);

static bool tree_remove_children(int fd, dev_t device, const char *path, struct status *err)
{
    DIR *dir = fdopendir(fd);
    struct dirent *entry;
    bool ok = true;

    if (dir == NULL) {
        close(fd);
        return status_errno(err, "cannot list %s", path);
    }
    while (ok && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            ok = tree_remove_at(dirfd(dir), entry->d_name, device, path, err);
    closedir(dir);
    return ok;
}

static bool tree_remove_at(int dir_fd, const char *name, dev_t device, const char *path, struct status *err)
{
    struct stat st;

    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
        return true;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT || status_errno(err, "cannot remove %s below %s", name, path);
    if (!S_ISDIR(st.st_mode))
        return status_errno(err, "cannot remove %s below %s", name, path);
    if (device != 0 && st.st_dev != device)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s below %s is a mount: left alone", name, path);
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == EACCES) {
        /* A folder without read permission that is ours, as images of ordinary users have them. */
        fchmodat(dir_fd, name, 0700, 0);
        fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    } else if (fd >= 0 && (st.st_mode & 0300) != 0300) {
        fchmod(fd, 0700);
    }
    if (fd < 0)
        return status_errno(err, "cannot open folder %s below %s", name, path);
    if (!tree_remove_children(fd, st.st_dev, path, err))
        return false;
    if (unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return status_errno(err, "cannot remove folder %s below %s", name, path);
    return true;
}

bool tree_remove(const char *path, struct status *err)
{
    return tree_remove_at(AT_FDCWD, path, 0, path, err);
}

#undef FILE_READ_STEP
