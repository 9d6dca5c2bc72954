/* SPDX-License-Identifier: Apache-2.0 */
/* Archives into a folder, then a flat copy of it. The first byte says how to read the rest: as an archive, or as a list of
 * entries made of few names, so that links, whiteouts and folders get into each other's way. Nothing may appear outside, and
 * a failure may leave nothing behind. */
#include "image/unpack.h"
#include "io/file.h"

#include "../unit/tar_maker.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char top[64];

static void remove_top(void)
{
    struct status err;

    tree_remove(top, &err);
}

static void setup(void)
{
    /* Memory is quicker than a disk. */
    snprintf(top, sizeof top, "%s/fuzz-unpack-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(top) == NULL)
        abort();
    atexit(remove_top);
}

/* A path of up to three parts. */
static void make_path(uint8_t seed, char out[128])
{
    static const char *const parts[] = { "a", "b", "l", "..", ".wh.a", ".wh..wh..opq", "/", "outside" };

    snprintf(out, 128, "%s", parts[seed & 7]);
    if (seed & 0x40)
        snprintf(out + strlen(out), 64, "/%s", parts[seed >> 3 & 7]);
    if (seed & 0x80)
        snprintf(out + strlen(out), 64, "/%s", parts[(seed >> 4 & 3) | (seed & 1) << 2]);
}

static void make_tar(const uint8_t *data, size_t size, struct buf *tar)
{
    static const char types[] = "0125673x";
    char name[128], link[128], far[256];

    for (size_t i = 0; i + 3 <= size && i < 120; i += 3) {
        make_path(data[i + 1], name);
        make_path(data[i + 2], link);
        snprintf(far, sizeof far, "%s%s", data[i] & 8 ? top : "../../", link);
        struct tar_entry e = { .name = name, .link = data[i] & 16 ? far : link, .type = types[data[i] & 7], .mode = data[i] >> 5 | 0600u,
                               .data = "content", .n = (data[i] & 7) == 0 ? 7 : 0 };
        if (e.type == 'x')
            continue;
        tar_add(tar, &e);
    }
    tar_end(tar);
}

static size_t count(const char *path)
{
    DIR *dir = opendir(path);
    size_t n = 0;

    while (dir != NULL && readdir(dir) != NULL)
        n++;
    if (dir != NULL)
        closedir(dir);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct unpack_limits limits = { 1 << 20, 64, 100 };
    static const struct digest any;
    char blob[64], dest[96], info[104], flat[96];
    struct buf cleanup_buf tar = BUF_INIT;
    struct unpacked out;
    struct status err = STATUS_INIT;

    if (top[0] == '\0')
        setup();
    if (size == 0)
        return 0;
    if (data[0] & 1)
        buf_append(&tar, data + 1, size - 1);
    else
        make_tar(data + 1, size - 1, &tar);
    int fd = memfd_create("blob", MFD_CLOEXEC);
    if (fd < 0 || write(fd, tar.p, tar.n) != (ssize_t)tar.n)
        abort();
    snprintf(blob, sizeof blob, "/proc/self/fd/%d", fd);
    snprintf(dest, sizeof dest, "%s/layer", top);
    snprintf(info, sizeof info, "%s.info", dest);
    snprintf(flat, sizeof flat, "%s/flat", top);
    if (unpack_layer(blob, &any, &any, dest, &limits, &out, &err)) {
        const char *layers[] = { dest, dest };
        if (!unpack_layer_info(dest, &out, &err) || !unpack_rootfs_copy(layers, 2, flat, &out, &err)) {
            fprintf(stderr, "%s\n", err.message);
            abort();
        }
    } else if (err.code == STATUS_INTERNAL) {
        fprintf(stderr, "%s\n", err.message); /* every fault of an archive has a better word */
        abort();
    }
    close(fd);
    if (!tree_remove(dest, &err) || !tree_remove(flat, &err))
        abort();
    unlink(info);
    if (count(top) != 2)
        abort();
    return 0;
}
