/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/scratch.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "image/unpack.h"
#include "io/file.h"

const char *const scratch_usual[] = { "/local", "/localscratch", "/scratch", "/tmp", "/var/tmp", NULL };

static const struct scratch_filesystem scratch_filesystems[] = {
    { 0xEF53, "ext4", false, false },     { 0x58465342, "xfs", false, false },   { 0x9123683E, "btrfs", false, false },
    { 0x2FC12FC1, "zfs", false, false },  { 0x01021994, "tmpfs", false, true },  { 0x794C7630, "overlay", false, false },
    { 0x858458F6, "ramfs", false, true }, { 0x6969, "nfs", true, false },        { 0x0BD00BD0, "lustre", true, false },
    { 0x47504653, "gpfs", true, false },  { 0x19830326, "beegfs", true, false }, { 0x00C36400, "ceph", true, false },
    { 0xFF534D42, "cifs", true, false },  { 0x65735546, "fuse", true, false },
};

const struct scratch_filesystem *scratch_filesystem_of(const struct statfs *fs)
{
    static const struct scratch_filesystem unknown = { 0, "unknown file system", false, false };

    for (size_t i = 0; i < COUNT_OF(scratch_filesystems); i++)
        if ((uint32_t)fs->f_type == (uint32_t)scratch_filesystems[i].magic)
            return &scratch_filesystems[i];
    return &unknown;
}

/* ---- where ---- */

/* NULL: it will do; else why not. */
static const char *scratch_fault(const char *path, char text[128])
{
    struct statfs fs;
    struct statvfs flags;

    if (path[0] != '/')
        return "is no absolute path";
    if (access(path, W_OK | X_OK) < 0 || statfs(path, &fs) < 0 || statvfs(path, &flags) < 0) {
        snprintf(text, 128, "%s", strerror(errno));
        return text;
    }
    const struct scratch_filesystem *type = scratch_filesystem_of(&fs);
    uint64_t bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
    if (type->shared)
        snprintf(text, 128, "is on %s, which machines share", type->name);
    else if ((flags.f_flag & ST_NOEXEC) != 0)
        return "is mounted noexec";
    else if (bytes < SCRATCH_FREE_MIN)
        snprintf(text, 128, "has only %" PRIu64 " MiB left", bytes >> 20);
    else
        return NULL;
    return text;
}

static bool scratch_is_shared(const char *path)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 && scratch_filesystem_of(&fs)->shared;
}

/* A folder that is ours alone, also where others may write beside it. */
static bool scratch_make_own(const char *path, struct status *err)
{
    struct stat st;

    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return status_errno(err, "cannot make %s", path);
    if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return status_set(err, STATUS_PERMISSION_DENIED, "%s is not a folder of ours alone", path);
    return true;
}

/* ---- locks ---- */

/* Open and locked; -1 with err. A sweeper may have taken and removed it in between: then there is a new one. */
static int scratch_lock(const char *path, int how, struct status *err)
{
    for (int tries = 0; tries < 10; tries++) {
        struct stat st;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0 && flock(fd, how) == 0 && fstat(fd, &st) == 0 && st.st_nlink > 0)
            return fd;
        if (fd >= 0)
            close(fd);
        if (fd < 0 || (how & LOCK_NB) != 0)
            break;
    }
    status_errno(err, "cannot lock %s", path);
    return -1;
}

/* ---- images ---- */

struct scratch_layer {
    char *path; /* owned */
    int64_t used_s;
    uint64_t bytes;
};

static int scratch_compare(const void *a, const void *b)
{
    const struct scratch_layer *x = a, *y = b;

    return x->used_s < y->used_s ? -1 : x->used_s > y->used_s;
}

void scratch_touch(const char *layer)
{
    cleanup_free char *info = xasprintf("%s.info", layer);

    utimensat(AT_FDCWD, info, NULL, 0);
}

/* Out of the way at once; its removal takes time. */
static void scratch_discard(const char *base, const struct scratch_layer *layer)
{
    cleanup_free char *trash = xasprintf("%s/trash", base), *to = xasprintf("%s/trash/%s", base, strrchr(layer->path, '/') + 1);
    cleanup_free char *info = xasprintf("%s.info", layer->path);

    mkdir(trash, 0700);
    log_info("%s has not been used for %" PRId64 " hours and goes", layer->path, (clock_real_ns() / 1000000000 - layer->used_s) / 3600);
    if (rename(layer->path, to) == 0)
        unlink(info);
}

/* Nobody else uses any of them now. */
static void scratch_thin(const char *base, const char *images)
{
    cleanup_free char *dir_path = xasprintf("%s/layers", images);
    struct scratch_layer layers[SCRATCH_LAYERS_MAX];
    size_t count = 0;
    uint64_t total = 0;
    int64_t now_s = clock_real_ns() / 1000000000;
    DIR *dir = opendir(dir_path);
    struct dirent *entry;

    while (dir != NULL && count < SCRATCH_LAYERS_MAX && (entry = readdir(dir)) != NULL) {
        size_t n = strlen(entry->d_name);
        struct unpacked unpacked;
        struct status ignored;
        struct stat st;
        if (n <= strlen(".info") || strcmp(entry->d_name + n - strlen(".info"), ".info") != 0 || fstatat(dirfd(dir), entry->d_name, &st, 0) < 0)
            continue;
        char *path = xasprintf("%s/%.*s", dir_path, (int)(n - strlen(".info")), entry->d_name);
        layers[count] = (struct scratch_layer){ .path = path, .used_s = st.st_mtime };
        if (unpack_layer_info(path, &unpacked, &ignored))
            layers[count].bytes = unpacked.bytes;
        total += layers[count++].bytes;
    }
    if (dir != NULL)
        closedir(dir);
    qsort(layers, count, sizeof *layers, scratch_compare);
    for (size_t i = 0; i < count; i++) {
        if (total > SCRATCH_IMAGES_MAX || now_s - layers[i].used_s > SCRATCH_UNUSED_MAX_S) {
            scratch_discard(base, &layers[i]);
            total -= layers[i].bytes;
        }
        free(layers[i].path);
    }
}

static bool scratch_open_images(const struct scratch_options *o, struct scratch *s, struct status *err)
{
    cleanup_free char *lock = xasprintf("%s/images-%s.lock", s->base, o->kind);

    s->images = xasprintf("%s/images-%s", s->base, o->kind);
    if (!scratch_make_own(s->images, err))
        return false;
    s->images_lock = scratch_lock(lock, LOCK_EX | LOCK_NB, err);
    if (s->images_lock >= 0)
        scratch_thin(s->base, s->images);
    else
        s->images_lock = scratch_lock(lock, LOCK_SH, err);
    return s->images_lock >= 0 && flock(s->images_lock, LOCK_SH) == 0;
}

/* ---- the pod's folder ---- */

static char *scratch_base(const struct scratch_options *o, const char *place)
{
    return xasprintf("%s%sinterlink-cri-%u", place, place[strlen(place) - 1] == '/' ? "" : "/", o->uid);
}

static bool scratch_take(const struct scratch_options *o, const char *place, struct scratch *s, struct status *err)
{
    cleanup_free char *pods = NULL, *lock = NULL;

    s->base = scratch_base(o, place);
    pods = xasprintf("%s/pods", s->base);
    lock = xasprintf("%s/%s.lock", pods, o->sandbox_id);
    s->pod = xasprintf("%s/%s", pods, o->sandbox_id);
    if (!scratch_make_own(s->base, err) || !scratch_make_own(pods, err))
        return false;
    s->pod_lock = scratch_lock(lock, LOCK_EX | LOCK_NB, err);
    return s->pod_lock >= 0 && scratch_make_own(s->pod, err) && scratch_open_images(o, s, err);
}

static void scratch_forget(struct scratch *s)
{
    if (s->pod_lock >= 0)
        close(s->pod_lock);
    if (s->images_lock >= 0)
        close(s->images_lock);
    free(s->pod);
    free(s->images);
    free(s->base);
    s->pod = s->images = s->base = NULL;
    s->pod_lock = s->images_lock = -1;
}

static bool scratch_try(const struct scratch_options *o, const char *place, struct scratch *s)
{
    char text[128];
    struct status err = STATUS_INIT;
    const char *fault;

    if (place == NULL || *place == '\0')
        return false;
    fault = scratch_fault(place, text);
    if (fault == NULL && scratch_take(o, place, s, &err)) {
        snprintf(s->why, sizeof s->why, "scratch %.180s", s->base);
        return true;
    }
    size_t n = strlen(s->why);
    snprintf(s->why + n, sizeof s->why - n, "%s%.60s: %.80s", n > 0 ? "; " : "no scratch folder: ", place, fault != NULL ? fault : err.message);
    scratch_forget(s);
    return false;
}

/* Each place that may serve, in order, until one does. */
static bool scratch_each(const struct scratch_options *o, bool (*visit)(const struct scratch_options *o, const char *place, struct scratch *s),
                         struct scratch *s)
{
    const char *wanted = o->wanted != NULL ? o->wanted : "";
    char *save = NULL;

    if (strcmp(wanted, "none") == 0 || (*wanted == '\0' && !scratch_is_shared(o->job_dir)))
        return false;
    cleanup_free char *copy = xstrdup(wanted);
    for (char *place = strtok_r(copy, ":", &save); place != NULL; place = strtok_r(NULL, ":", &save))
        /* A name in it: $SLURM_TMPDIR. */
        if (visit(o, *place == '$' ? getenv(place + 1) : place, s))
            return true;
    if (*wanted != '\0')
        return false;
    bool found = visit(o, getenv("SLURM_TMPDIR"), s) || visit(o, getenv("TMPDIR"), s);
    for (size_t i = 0; !found && scratch_usual[i] != NULL; i++)
        found = visit(o, scratch_usual[i], s);
    return found;
}

void scratch_open(const struct scratch_options *o, struct scratch *s)
{
    *s = (struct scratch){ .pod_lock = -1, .images_lock = -1 };
    scratch_each(o, scratch_try, s);
}

/* ---- the end ---- */

static bool scratch_sweep_pods(const struct scratch *s, struct status *err)
{
    cleanup_free char *pods = xasprintf("%s/pods", s->base);
    DIR *dir = opendir(pods);
    struct dirent *entry;
    bool ok = true;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        size_t n = strlen(entry->d_name);
        struct status ignored;
        if (n <= strlen(".lock") || strcmp(entry->d_name + n - strlen(".lock"), ".lock") != 0)
            continue;
        cleanup_free char *lock = xasprintf("%s/%s", pods, entry->d_name);
        cleanup_free char *pod = xasprintf("%s/%.*s", pods, (int)(n - strlen(".lock")), entry->d_name);
        cleanup_close int fd = s->pod != NULL && strcmp(pod, s->pod) == 0 ? -1 : scratch_lock(lock, LOCK_EX | LOCK_NB, &ignored);
        if (fd < 0)
            continue;
        log_info("%s was left by a job that is gone", pod);
        if (tree_remove(pod, err))
            unlink(lock);
        else
            ok = false;
    }
    if (dir != NULL)
        closedir(dir);
    return ok;
}

bool scratch_sweep(const struct scratch *s, struct status *err)
{
    if (s->base == NULL)
        return true;
    cleanup_free char *trash = xasprintf("%s/trash", s->base);
    return scratch_sweep_pods(s, err) && tree_remove(trash, err);
}

void scratch_close(struct scratch *s)
{
    struct status err;

    if (s->pod != NULL) {
        cleanup_free char *lock = xasprintf("%s.lock", s->pod);
        if (tree_remove(s->pod, &err))
            unlink(lock);
        else
            log_warn("%s", err.message);
    }
    scratch_forget(s);
}

static bool scratch_clean_one(const struct scratch_options *o, const char *place, struct scratch *s)
{
    struct status err;

    if (place == NULL || *place == '\0')
        return false;
    s->base = scratch_base(o, place);
    s->pod = xasprintf("%s/pods/%s", s->base, o->sandbox_id);
    cleanup_free char *lock = xasprintf("%s.lock", s->pod);
    s->pod_lock = access(lock, F_OK) == 0 ? scratch_lock(lock, LOCK_EX | LOCK_NB, &err) : -1;
    if (s->pod_lock >= 0)
        scratch_close(s);
    scratch_forget(s);
    return false;
}

void scratch_clean(const struct scratch_options *o)
{
    struct scratch s = { .pod_lock = -1, .images_lock = -1 };

    scratch_each(o, scratch_clean_one, &s);
}
