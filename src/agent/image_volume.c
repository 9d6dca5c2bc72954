/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/image_volume.h"

#include "io/file.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct engine_image_volume *image_volume_find(const struct engine_create *create, size_t mount)
{
    for (size_t i = 0; i < create->volume_count; i++)
        if (create->volumes[i].mount == mount)
            return &create->volumes[i];
    return NULL;
}

/* kubelet has checked it as well. */
static bool image_volume_check_sub_path(const char *path, struct status *err)
{
    bool bad = *path == '/';

    for (const char *p = path; *p != '\0' && !bad;) {
        size_t n = strcspn(p, "/");
        bad = n == 2 && p[0] == '.' && p[1] == '.';
        p += n;
        p += strspn(p, "/");
    }
    return !bad || status_set(err, STATUS_INVALID_ARGUMENT, "image_sub_path: \"%.200s\" leaves the image", path);
}

/* A folder or file of the image, opened as a place. -1 with err. */
static int image_volume_open(const char *root, const char *sub_path, bool *is_dir, struct status *err)
{
    cleanup_close int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = root_fd < 0 ? -1 : rootfs_open(root_fd, *sub_path != '\0' ? sub_path : ".", O_PATH);
    struct stat st;

    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            status_set(err, STATUS_NOT_FOUND, "image_sub_path: the image has no \"%.200s\"", sub_path);
        else
            status_errno(err, "image_sub_path: \"%.200s\"", sub_path);
        return -1;
    }
    if (fstat(fd, &st) == 0 && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode))) {
        *is_dir = S_ISDIR(st.st_mode);
        return fd;
    }
    status_set(err, STATUS_INVALID_ARGUMENT, "image_sub_path: \"%.200s\" is neither a folder nor a file", sub_path);
    close(fd);
    return -1;
}

bool image_volume_stage(const struct engine_create *create, size_t index, const struct rootfs_options *options, struct buf *out,
                        struct status *err)
{
    const struct engine_image_volume *volume = image_volume_find(create, index);
    const char *sub_path = create->config->mounts[index]->image_sub_path;
    cleanup_free char *dir = xasprintf("%s/volumes/%zu", create->bundle, index);
    cleanup_free char *root = xasprintf("%s/rootfs", dir), *point = NULL;
    char place[64];
    bool is_dir = true;

    if (volume == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "image: its layers are not named");
    if (!image_volume_check_sub_path(sub_path, err) || !dir_make(dir, 0700, err) ||
        !rootfs_make(dir, volume->layers, volume->layer_count, options, err))
        return false;
    cleanup_close int fd = image_volume_open(root, sub_path, &is_dir, err);
    if (fd < 0)
        return false;
    point = rootfs_stage_point(create->bundle, index, is_dir, err);
    if (point == NULL)
        return false;
    snprintf(place, sizeof place, "/proc/self/fd/%d", fd);
    if (mount(place, point, NULL, MS_BIND, NULL) < 0 || mount(NULL, point, NULL, MS_PRIVATE, NULL) < 0)
        return status_errno(err, "cannot mount the image");
    buf_append_str(out, point);
    return true;
}
