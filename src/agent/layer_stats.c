/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/layer_stats.h"

#include "io/mount.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Folders in folders, each with a descriptor, of the 1,024 that a process has. */
#define LAYER_STATS_DEPTH_MAX 500
/* Files with several names that are told apart: 64 MiB of memory. Beyond that each name counts. */
#define LAYER_STATS_LINKED_MAX (4u << 20)

struct layer_stats_walk {
    struct layer_stats *out;
    dev_t device;
    size_t room; /* more is not looked at */
    uint64_t *linked; /* owned; a hash table of inode numbers; 0: free */
    size_t linked_count, linked_size; /* the size is a power of two */
};

/* ---- files with several names ---- */

static bool layer_stats_insert(uint64_t *table, size_t size, uint64_t inode)
{
    size_t at = (size_t)(inode * 0x9e3779b97f4a7c15ull >> 20) & (size - 1);

    while (table[at] != 0 && table[at] != inode)
        at = (at + 1) & (size - 1);
    if (table[at] == inode)
        return false;
    table[at] = inode;
    return true;
}

/* Whether this is the first time that it is met. */
static bool layer_stats_is_new(struct layer_stats_walk *w, const struct stat *st)
{
    if (st->st_nlink < 2 || S_ISDIR(st->st_mode) || st->st_ino == 0)
        return true;
    if (w->linked_count * 2 >= w->linked_size && w->linked_size < 2 * LAYER_STATS_LINKED_MAX) {
        size_t size = w->linked_size > 0 ? w->linked_size * 2 : 1024;
        uint64_t *table = xcalloc(size, sizeof *table);
        for (size_t i = 0; i < w->linked_size; i++)
            if (w->linked[i] != 0)
                layer_stats_insert(table, size, w->linked[i]);
        free(w->linked);
        w->linked = table;
        w->linked_size = size;
    }
    if (w->linked_count >= LAYER_STATS_LINKED_MAX)
        return true;
    bool is_new = layer_stats_insert(w->linked, w->linked_size, st->st_ino);
    w->linked_count += is_new;
    return is_new;
}

/* ---- the walk ---- */

static void layer_stats_count(struct layer_stats_walk *w, const struct stat *st)
{
    if (!layer_stats_is_new(w, st))
        return;
    w->out->bytes += (uint64_t)st->st_blocks * 512;
    w->out->inodes++;
}

/* Takes dir_fd. What goes while we look is no error. */
static bool layer_stats_folder(struct layer_stats_walk *w, int dir_fd, int depth, struct status *err)
{
    DIR *dir = depth < LAYER_STATS_DEPTH_MAX ? fdopendir(dir_fd) : NULL;
    struct dirent *entry;
    struct stat st;
    bool ok = true;

    if (dir == NULL) {
        close(dir_fd);
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "the folders are too deep to be counted");
    }
    while (ok && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        /* Another file system that is mounted here is not the container's. */
        if (st.st_dev != w->device)
            continue;
        if (w->room == 0) {
            ok = status_set(err, STATUS_RESOURCE_EXHAUSTED, "there are too many files");
            break;
        }
        w->room--;
        layer_stats_count(w, &st);
        if (!S_ISDIR(st.st_mode))
            continue;
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0)
            ok = layer_stats_folder(w, fd, depth + 1, err);
        else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
            ok = status_errno(err, "cannot look into a folder of the container");
    }
    closedir(dir);
    return ok;
}

static void layer_stats_find_mount(const char *path, struct layer_stats *out)
{
    struct mount_info mount;

    mount_find(path, &mount);
    snprintf(out->device, sizeof out->device, "%s", mount.source);
    if (strlen(mount.point) < sizeof out->mountpoint)
        memcpy(out->mountpoint, mount.point, strlen(mount.point) + 1);
}

/* Whether looking at folders costs no more than memory and a disk's time at worst. */
static bool layer_stats_is_local(const struct statfs *fs)
{
    static const uint32_t types[] = { EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC };

    for (size_t i = 0; i < COUNT_OF(types); i++)
        if ((uint32_t)fs->f_type == types[i])
            return true;
    return false;
}

static bool layer_stats_measure(const char *path, const struct layer_stats *last, bool quickly, size_t *room,
                                struct layer_stats *out, struct status *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct layer_stats_walk w = { .out = out, .room = *room };
    struct statfs fs;
    struct stat st;

    memset(out, 0, sizeof *out);
    if (fd < 0 || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0 || (quickly && !layer_stats_is_local(&fs))) {
        status_errno(err, "cannot look into %s", path);
        if (fd >= 0)
            close(fd);
        return false;
    }
    if (last != NULL)
        *out = *last;
    else
        layer_stats_find_mount(path, out);
    out->bytes = out->inodes = 0;
    w.device = st.st_dev;
    layer_stats_count(&w, &st);
    bool ok = layer_stats_folder(&w, fd, 0, err);
    free(w.linked);
    *room = w.room;
    out->fs_bytes = (uint64_t)fs.f_blocks * (uint64_t)(fs.f_frsize != 0 ? fs.f_frsize : fs.f_bsize);
    out->fs_inodes = fs.f_files;
    out->fs_inodes_free = fs.f_ffree;
    out->taken_ns = clock_real_ns();
    return ok;
}

bool layer_measure(const char *path, struct layer_stats *out, struct status *err)
{
    size_t room = SIZE_MAX;

    return layer_stats_measure(path, NULL, false, &room, out, err);
}

bool layer_measure_quickly(const char *path, const struct layer_stats *last, size_t *room, struct layer_stats *out)
{
    struct status ignored;

    return layer_stats_measure(path, last, true, room, out, &ignored);
}

#undef LAYER_STATS_DEPTH_MAX
#undef LAYER_STATS_LINKED_MAX
