/* SPDX-License-Identifier: Apache-2.0 */
#include "image/load_source.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"

#define LOAD_BUFFER (128u << 10)

struct load_file {
    const char *path; /* where it lies now; NULL: it was moved to its place */
    const char *link; /* the clean name it stands for; NULL: a file of its own */
    struct digest digest;
    uint64_t size;
};

/* ---- archives ---- */

/* "a/b/../c" seen from the folder of `from`. NULL when it leads out. */
static const char *load_link_target(struct arena *arena, const char *from, const char *target)
{
    char *out = arena_alloc(arena, strlen(from) + strlen(target) + 2);
    const char *slash = strrchr(from, '/');
    size_t n = slash == NULL || target[0] == '/' ? 0 : (size_t)(slash - from);

    memcpy(out, from, n);
    for (const char *p = target; *p != '\0';) {
        p += strspn(p, "/");
        size_t length = strcspn(p, "/");
        if (length == 2 && memcmp(p, "..", 2) == 0) {
            if (n == 0)
                return NULL;
            while (n > 0 && out[n - 1] != '/')
                n--;
            n -= n > 0;
        } else if (length > 0 && !(length == 1 && p[0] == '.')) {
            if (n > 0)
                out[n++] = '/';
            memcpy(out + n, p, length);
            n += length;
        }
        p += length;
    }
    out[n] = '\0';
    return out;
}

static bool load_archive_error(const struct load_source *s, struct archive *a, struct status *err)
{
    return status_set(err, STATUS_INVALID_ARGUMENT, "%s cannot be read as a tar archive: %.200s", s->path,
                      archive_error_string(a) != NULL ? archive_error_string(a) : "unknown format");
}

static bool load_extract_file(struct load_source *s, struct archive *a, struct load_file *file, uint64_t *left,
                              struct status *err)
{
    cleanup_close int fd = open(file->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    struct digester digester;
    const void *p;
    size_t n;
    la_int64_t offset;
    int code;

    if (fd < 0)
        return status_errno(err, "cannot make %s", file->path);
    digester_init(&digester);
    while ((code = archive_read_data_block(a, &p, &n, &offset)) == ARCHIVE_OK) {
        if (n == 0)
            continue;
        if (offset < 0 || (uint64_t)offset != file->size)
            return status_set(err, STATUS_INVALID_ARGUMENT, "%s holds a sparse file, which no image has", s->path);
        if (n > *left)
            return status_set(err, STATUS_RESOURCE_EXHAUSTED, "%s is larger than allowed when it is unpacked", s->path);
        if (!write_all(fd, p, n, err))
            return status_prefix(err, "cannot write %s", file->path);
        digester_update(&digester, p, n);
        file->size += n;
        *left -= n;
    }
    file->digest = digester_value(&digester);
    return code == ARCHIVE_EOF || load_archive_error(s, a, err);
}

static bool load_extract_entry(struct load_source *s, struct archive *a, struct archive_entry *entry, uint64_t *left,
                               struct status *err)
{
    const char *name = archive_entry_pathname(entry), *link = archive_entry_hardlink(entry);
    char clean[LAYER_PATH_SIZE];
    struct status ignored;

    /* What has no usable name cannot be asked for. */
    if (name == NULL || !layer_path_clean(name, clean, &ignored) || clean[0] == '\0')
        return true;
    struct load_file *file = ARENA_NEW(&s->arena, struct load_file);
    if (link != NULL)
        file->link = load_link_target(&s->arena, "", link);
    else if (archive_entry_filetype(entry) == AE_IFLNK && archive_entry_symlink(entry) != NULL)
        file->link = load_link_target(&s->arena, clean, archive_entry_symlink(entry));
    else if (archive_entry_filetype(entry) != AE_IFREG)
        return true;
    else {
        file->path = arena_printf(&s->arena, "%s/%zu", s->scratch, s->files.count);
        if (!load_extract_file(s, a, file, left, err))
            return false;
    }
    if (file->path != NULL || file->link != NULL) {
        struct load_file *old = strmap_put(&s->files, clean, file);
        if (old != NULL && old->path != NULL) /* its number must not be given again */
            strmap_put(&s->files, arena_printf(&s->arena, "//%zu", s->files.count), old);
    }
    return true;
}

static bool load_extract(struct load_source *s, uint64_t bytes_max, struct status *err)
{
    struct archive *a = archive_read_new();
    struct archive_entry *entry;
    uint64_t left = bytes_max;
    bool ok = true;
    int code;

    setlocale(LC_CTYPE, "C.UTF-8");
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_format_tar(a);
    if (archive_read_open_filename(a, s->path, LOAD_BUFFER) != ARCHIVE_OK)
        ok = load_archive_error(s, a, err);
    while (ok && (code = archive_read_next_header(a, &entry)) != ARCHIVE_EOF) {
        if (code != ARCHIVE_OK && code != ARCHIVE_WARN)
            ok = load_archive_error(s, a, err);
        else if (s->files.count >= IMAGE_LOAD_ENTRIES_MAX)
            ok = status_set(err, STATUS_RESOURCE_EXHAUSTED, "%s has more than the %d entries allowed", s->path,
                            IMAGE_LOAD_ENTRIES_MAX);
        else
            ok = load_extract_entry(s, a, entry, &left, err);
    }
    archive_read_free(a);
    return ok;
}

/* Follows links between entries. NULL: there is no such file. */
static struct load_file *load_find(struct load_source *s, const char *name)
{
    char clean[LAYER_PATH_SIZE];
    struct status ignored;
    struct load_file *file;

    if (!layer_path_clean(name, clean, &ignored))
        return NULL;
    file = strmap_get(&s->files, clean);
    for (unsigned i = 0; file != NULL && file->link != NULL; i++)
        file = i < IMAGE_LINKS_MAX ? strmap_get(&s->files, file->link) : NULL;
    return file;
}

/* ---- folders ---- */

/* -1: errno tells. */
static int load_open_in_folder(struct load_source *s, const char *name)
{
    char clean[LAYER_PATH_SIZE], dir[LAYER_PATH_SIZE];
    const char *leaf;
    struct status ignored;
    struct stat st;

    errno = ENOENT;
    if (!layer_path_clean(name, clean, &ignored) || clean[0] == '\0')
        return -1;
    layer_path_split(clean, dir, &leaf);
    int fd = layer_dir(&s->root, dir, false, NULL, &ignored);
    if (fd < 0) {
        errno = ENOENT;
        return -1;
    }
    fd = openat(fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) {
        close(fd);
        errno = ENOENT;
        return -1;
    }
    return fd;
}

/* -1: err says why. */
static int load_open(struct load_source *s, const char *name, struct status *err)
{
    struct load_file *file = s->is_folder ? NULL : load_find(s, name);
    int fd = s->is_folder ? load_open_in_folder(s, name) : -1;

    if (file != NULL && file->path != NULL)
        fd = open(file->path, O_RDONLY | O_CLOEXEC);
    else if (!s->is_folder)
        errno = ENOENT;
    if (fd < 0)
        status_errno(err, "%s: no file '%.200s' in it", s->path, name);
    return fd;
}

/* Hashes fd; copies to `to` unless that is -1. */
static bool load_pass(struct load_source *s, const char *name, int fd, int to, struct digest *digest, uint64_t *size,
                      struct status *err)
{
    cleanup_free uint8_t *buffer = xmalloc(LOAD_BUFFER);
    struct digester digester;
    ssize_t n;

    digester_init(&digester);
    *size = 0;
    while ((n = read(fd, buffer, LOAD_BUFFER)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return status_errno(err, "%s: cannot read '%.200s'", s->path, name);
        if (to >= 0 && !write_all(to, buffer, (size_t)n, err))
            return status_prefix(err, "cannot write into the image store");
        digester_update(&digester, buffer, (size_t)n);
        *size += (uint64_t)n;
    }
    *digest = digester_value(&digester);
    return true;
}

/* ---- both ---- */

bool load_source_open(struct load_source *s, const char *path, const char *ingest, uint64_t bytes_max, struct status *err)
{
    struct stat st;

    memset(s, 0, sizeof *s);
    s->root.fd = s->root.last_fd = -1;
    s->path = xstrdup(path);
    s->scratch = xasprintf("%s/load-XXXXXX", ingest);
    bool ok = mkdtemp(s->scratch) != NULL || status_errno(err, "cannot make a folder in %s", ingest);
    ok = ok && (stat(path, &st) == 0 || status_errno(err, "cannot open %s", path));
    s->is_folder = ok && S_ISDIR(st.st_mode);
    ok = ok && (s->is_folder ? layer_root_open(&s->root, path, err) : load_extract(s, bytes_max, err));
    if (!ok)
        load_source_close(s);
    return ok;
}

void load_source_close(struct load_source *s)
{
    struct status err;

    if (s->scratch != NULL && !tree_remove(s->scratch, &err))
        log_warn("%s", err.message);
    free(s->scratch);
    free(s->path);
    if (s->root.fd >= 0)
        layer_root_close(&s->root);
    strmap_free(&s->files);
    arena_free(&s->arena);
    memset(s, 0, sizeof *s);
    s->root.fd = s->root.last_fd = -1;
}

bool load_source_has(struct load_source *s, const char *name)
{
    if (!s->is_folder)
        return load_find(s, name) != NULL;
    int fd = load_open_in_folder(s, name);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

bool load_source_read(struct load_source *s, const char *name, size_t max, struct buf *out, struct status *err)
{
    cleanup_close int fd = load_open(s, name, err);
    struct stat st;

    if (fd < 0)
        return false;
    if (fstat(fd, &st) < 0)
        return status_errno(err, "%s: cannot look at '%.200s'", s->path, name);
    if ((uint64_t)st.st_size > max)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "%s: '%.200s' is larger than the %zu bytes allowed", s->path, name,
                          max);
    for (;;) {
        size_t room = max + 1 - out->n < 65536 ? max + 1 - out->n : 65536;
        ssize_t n = read(fd, buf_reserve(out, room), room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return status_errno(err, "%s: cannot read '%.200s'", s->path, name);
        if (n == 0)
            return true;
        out->n += (size_t)n;
        if (out->n > max)
            return status_set(err, STATUS_RESOURCE_EXHAUSTED, "%s: '%.200s' grows while it is read", s->path, name);
    }
}

size_t load_source_peek(struct load_source *s, const char *name, uint8_t *out, size_t n)
{
    struct status ignored;
    cleanup_close int fd = load_open(s, name, &ignored);
    ssize_t got = fd < 0 ? 0 : pread(fd, out, n, 0);

    return got < 0 ? 0 : (size_t)got;
}

bool load_source_digest(struct load_source *s, const char *name, struct digest *digest, uint64_t *size, struct status *err)
{
    const struct load_file *file = s->is_folder ? NULL : load_find(s, name);

    if (file != NULL) {
        *digest = file->digest;
        *size = file->size;
        return true;
    }
    cleanup_close int fd = load_open(s, name, err);
    return fd >= 0 && load_pass(s, name, fd, -1, digest, size, err);
}

static bool load_wrong(const struct load_source *s, const char *name, const struct digest *want, const struct digest *got,
                       struct status *err)
{
    char want_text[DIGEST_TEXT_SIZE], got_text[DIGEST_TEXT_SIZE];

    digest_text(want, want_text);
    digest_text(got, got_text);
    return status_set(err, STATUS_DATA_LOSS, "%s: '%.200s' is damaged: its digest is %s instead of %s", s->path, name, got_text,
                      want_text);
}

bool load_source_place(struct load_source *s, const char *name, const struct digest *digest, const char *to, struct status *err)
{
    struct load_file *file = s->is_folder ? NULL : load_find(s, name);
    struct digest got;
    uint64_t size;

    if (access(to, F_OK) == 0)
        return true;
    if (file != NULL && file->path != NULL) {
        if (!digest_equal(&file->digest, digest))
            return load_wrong(s, name, digest, &file->digest, err);
        if (rename(file->path, to) < 0)
            return status_errno(err, "cannot put %s in place", to);
        file->path = NULL;
        return true;
    }
    cleanup_close int fd = load_open(s, name, err);
    if (fd < 0)
        return false;
    cleanup_free char *part = xasprintf("%s/part", s->scratch);
    cleanup_close int out = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0)
        return status_errno(err, "cannot make %s", part);
    if (!load_pass(s, name, fd, out, &got, &size, err))
        return false;
    if (!digest_equal(&got, digest))
        return load_wrong(s, name, digest, &got, err);
    return rename(part, to) == 0 || status_errno(err, "cannot put %s in place", to);
}

#undef LOAD_BUFFER
