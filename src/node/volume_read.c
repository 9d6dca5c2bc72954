/* SPDX-License-Identifier: Apache-2.0 */
#include "node/volume_read.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/digest.h"
#include "io/beneath.h"

/* Bytes of one message: the agent's loop takes it in one go. */
#define VOLUME_MESSAGE_BYTES (128u << 10)
/* kubelet writes a volume in some milliseconds, every minute or so. */
#define VOLUME_TRIES_MAX 10
#define VOLUME_DATA "..data"

struct volume_reader {
    int fd;         /* borrowed */
    uint64_t end;
    struct digester digester;
    struct arena arena; /* of the entries that wait */
    Interlink__Agent__V1__FileEntry **entries; /* of VOLUME_READER_ENTRIES */
    size_t entry_count, waiting; /* bytes */
    size_t total_entries;
    uint64_t total_bytes;
    struct buf packed;
    uint8_t *block; /* owned; VOLUME_MESSAGE_BYTES */
    const char *name;
    bool changed; /* something was no longer what it had been */
};
#define VOLUME_READER_ENTRIES 1024

/* ---- messages ---- */

static bool volume_write(struct volume_reader *r, const void *p, size_t n, struct status *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(r->fd, (const uint8_t *)p + done, n - done, (off_t)(r->end + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return status_errno(err, "cannot keep the files of %s", r->name);
        done += (size_t)put;
    }
    r->end += n;
    return true;
}

static bool volume_put_message(struct volume_reader *r, const Interlink__Agent__V1__PutFilesRequest *m, struct status *err)
{
    size_t n = protobuf_c_message_get_packed_size(&m->base);
    uint32_t length = (uint32_t)n;

    buf_clear(&r->packed);
    buf_append(&r->packed, &length, sizeof length);
    protobuf_c_message_pack(&m->base, buf_reserve(&r->packed, n));
    r->packed.n += n;
    digester_update(&r->digester, r->packed.p, r->packed.n);
    return volume_write(r, r->packed.p, r->packed.n, err);
}

static bool volume_flush(struct volume_reader *r, struct status *err)
{
    Interlink__Agent__V1__PutFilesRequest m = INTERLINK__AGENT__V1__PUT_FILES_REQUEST__INIT;

    if (r->entry_count == 0)
        return true;
    m.entries = r->entries;
    m.n_entries = r->entry_count;
    bool ok = volume_put_message(r, &m, err);
    arena_reset(&r->arena);
    r->entry_count = 0;
    r->waiting = 0;
    return ok;
}

/* The entry is waiting; its file's first bytes may be added. */
static Interlink__Agent__V1__FileEntry *volume_add(struct volume_reader *r, const char *path, const struct stat *st, struct status *err)
{
    if (++r->total_entries > FILES_VOLUME_ENTRIES_MAX) {
        status_set(err, STATUS_RESOURCE_EXHAUSTED, "%s holds more than the %d files and folders that are copied", r->name,
                   FILES_VOLUME_ENTRIES_MAX);
        return NULL;
    }
    if ((r->entry_count == VOLUME_READER_ENTRIES || r->waiting > VOLUME_MESSAGE_BYTES) && !volume_flush(r, err))
        return NULL;
    Interlink__Agent__V1__FileEntry *e = ARENA_NEW(&r->arena, Interlink__Agent__V1__FileEntry);
    interlink__agent__v1__file_entry__init(e);
    e->path.len = strlen(path);
    e->path.data = (uint8_t *)arena_strdup(&r->arena, path);
    e->mode = st->st_mode;
    e->uid = st->st_uid;
    e->gid = st->st_gid;
    r->entries[r->entry_count++] = e;
    r->waiting += 64 + e->path.len;
    return e;
}

/* ---- files ---- */

/* False without an error in `err`: the file has become shorter. */
static bool volume_fill(struct volume_reader *r, int fd, size_t n, struct status *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = read(fd, r->block + done, n - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return status_errno(err, "cannot read %s", r->name);
        if (got == 0) {
            r->changed = true;
            return false;
        }
        done += (size_t)got;
    }
    return true;
}

static bool volume_read_file(struct volume_reader *r, int fd, const char *path, const struct stat *st, struct status *err)
{
    uint64_t left = (uint64_t)st->st_size;

    r->total_bytes += left;
    if (r->total_bytes > FILES_VOLUME_BYTES_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "%s holds more than the %u bytes that are copied", r->name,
                          FILES_VOLUME_BYTES_MAX);
    Interlink__Agent__V1__FileEntry *e = volume_add(r, path, st, err);
    if (e == NULL)
        return false;
    e->size = left;
    size_t n = left < VOLUME_MESSAGE_BYTES ? (size_t)left : VOLUME_MESSAGE_BYTES;
    if (!volume_fill(r, fd, n, err))
        return false;
    e->data = (ProtobufCBinaryData){ n, n > 0 ? arena_memdup(&r->arena, r->block, n) : NULL };
    r->waiting += n;
    for (left -= n; left > 0; left -= n) {
        Interlink__Agent__V1__PutFilesRequest m = INTERLINK__AGENT__V1__PUT_FILES_REQUEST__INIT;
        n = left < VOLUME_MESSAGE_BYTES ? (size_t)left : VOLUME_MESSAGE_BYTES;
        if (!volume_flush(r, err) || !volume_fill(r, fd, n, err))
            return false;
        m.data = (ProtobufCBinaryData){ n, r->block };
        if (!volume_put_message(r, &m, err))
            return false;
    }
    return true;
}

static bool volume_read_symlink(struct volume_reader *r, int dir_fd, const char *name, const char *path, const struct stat *st,
                                struct status *err)
{
    char target[FILES_PATH_MAX];
    ssize_t n = readlinkat(dir_fd, name, target, sizeof target);

    if (n <= 0 || n == sizeof target) {
        r->changed = n < 0 && (errno == ENOENT || errno == EINVAL);
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: the link %.200s cannot be read", r->name, path);
    }
    Interlink__Agent__V1__FileEntry *e = volume_add(r, path, st, err);
    if (e == NULL)
        return false;
    e->target = (ProtobufCBinaryData){ (size_t)n, arena_memdup(&r->arena, target, (size_t)n) };
    r->waiting += (size_t)n;
    return true;
}

/* ---- folders ---- */

static int volume_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, so that the same files make the same version. On `arena`; ends with NULL. */
static char **volume_list(struct volume_reader *r, int fd, struct arena *arena, struct status *err)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    char **names = NULL;
    size_t n = 0, room = 0;

    if (dir == NULL) {
        if (copy >= 0)
            close(copy);
        status_errno(err, "cannot list %s", r->name);
        return NULL;
    }
    while ((entry = readdir(dir)) != NULL && n <= FILES_VOLUME_ENTRIES_MAX) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (n + 1 >= room)
            names = xrealloc(names, (room = room * 2 + 64) * sizeof *names);
        names[n++] = arena_strdup(arena, entry->d_name);
    }
    closedir(dir);
    char **out = ARENA_ARRAY(arena, char *, n + 1);
    if (n > 0) {
        qsort(names, n, sizeof *names, volume_compare);
        memcpy(out, names, n * sizeof *names);
    }
    free(names);
    return out;
}

static bool volume_read_folder(struct volume_reader *r, int fd, const char *path, int depth, struct status *err);

/* `folders_only`: anything else is passed over. */
static bool volume_read_entry(struct volume_reader *r, int dir_fd, const char *name, const char *path, int depth, bool folders_only,
                              struct status *err)
{
    struct stat st;

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        r->changed = errno == ENOENT;
        return status_errno(err, "%s: cannot look at %.200s", r->name, path);
    }
    if (folders_only && !S_ISDIR(st.st_mode))
        return true;
    if (S_ISLNK(st.st_mode))
        return volume_read_symlink(r, dir_fd, name, path, &st, err);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s: %.200s is neither file, folder nor link, and cannot be copied",
                          r->name, path);
    cleanup_close int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        r->changed = errno == ENOENT || errno == ELOOP;
        return status_errno(err, "%s: cannot open %.200s", r->name, path);
    }
    if (S_ISREG(st.st_mode))
        return volume_read_file(r, fd, path, &st, err);
    return volume_add(r, path, &st, err) != NULL && volume_read_folder(r, fd, path, depth + 1, err);
}

static bool volume_read_folder(struct volume_reader *r, int fd, const char *path, int depth, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    char **names;

    if (depth >= FILES_DEPTH_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "%s: folders are more than %d deep", r->name, FILES_DEPTH_MAX);
    names = volume_list(r, fd, &arena, err);
    if (names == NULL)
        return false;
    for (; *names != NULL; names++) {
        const char *below = arena_printf(&arena, "%s%s%s", path, *path != '\0' ? "/" : "", *names);
        if (!volume_read_entry(r, fd, *names, below, depth, false, err))
            return false;
    }
    return true;
}

/* Folders beside ..data, which kubelet makes for mounts inside of the volume. */
static bool volume_read_nested(struct volume_reader *r, int fd, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    char **names = volume_list(r, fd, &arena, err);

    if (names == NULL)
        return false;
    for (; *names != NULL; names++)
        if (!str_starts(*names, "..") && !volume_read_entry(r, fd, *names, *names, 0, true, err))
            return false;
    return true;
}

static void volume_link(int fd, const char *path, char out[VOLUME_LINK_MAX])
{
    ssize_t n = readlinkat(fd, path, out, VOLUME_LINK_MAX - 1);

    out[n > 0 ? n : 0] = '\0';
}

void volume_read_link(const char *path, char out[VOLUME_LINK_MAX])
{
    cleanup_free char *link = xasprintf("%s/" VOLUME_DATA, path);

    volume_link(AT_FDCWD, link, out);
}

/* What ..data leads to, as long as it leads there. kubelet removes an old folder after it has turned the link. */
static bool volume_read_projected(struct volume_reader *r, int fd, struct volume_piece *out, struct status *err)
{
    char after[VOLUME_LINK_MAX];
    struct stat st;

    volume_link(fd, VOLUME_DATA, out->link);
    if (!str_starts(out->link, "..") || !beneath_is_plain(out->link) || strchr(out->link, '/') != NULL) {
        r->changed = true; /* kubelet is about to write it for the first time */
        return status_set(err, STATUS_UNAVAILABLE, "%s is not complete: there is no " VOLUME_DATA " in it", r->name);
    }
    cleanup_close int data = openat(fd, out->link, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (data < 0 || fstat(data, &st) < 0) {
        r->changed = true;
        return status_errno(err, "cannot open the files of %s", r->name);
    }
    bool ok = volume_add(r, VOLUME_DATA, &st, err) != NULL && volume_read_folder(r, data, VOLUME_DATA, 0, err) &&
              volume_read_nested(r, fd, err);
    volume_link(fd, VOLUME_DATA, after);
    r->changed = r->changed || strcmp(after, out->link) != 0;
    return ok;
}

/* ---- a volume ---- */

static bool volume_read_whole(struct volume_reader *r, int fd, bool projected, struct volume_piece *out, struct status *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return status_errno(err, "cannot look at %s", r->name);
    if (S_ISREG(st.st_mode) && !projected) {
        out->kind = INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FILE;
        return volume_read_file(r, fd, "", &st, err);
    }
    if (!S_ISDIR(st.st_mode))
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s is neither a folder nor a file, and cannot be copied", r->name);
    out->kind = projected ? INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED : INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FOLDER;
    if (volume_add(r, "", &st, err) == NULL)
        return false;
    return projected ? volume_read_projected(r, fd, out, err) : volume_read_folder(r, fd, "", 0, err);
}

static void volume_hash(struct volume_reader *r, struct volume_piece *out)
{
    uint8_t kind = (uint8_t)out->kind;
    char hex[DIGEST_HEX_SIZE];

    digester_update(&r->digester, &kind, 1);
    struct digest digest = digester_value(&r->digester);
    digest_hex(&digest, hex);
    snprintf(out->version, sizeof out->version, "%s", hex);
}

/* From the beginning, once more. */
static void volume_rewind(struct volume_reader *r, uint64_t begin)
{
    r->end = begin;
    r->entry_count = r->waiting = r->total_entries = 0;
    r->total_bytes = 0;
    r->changed = false;
    arena_reset(&r->arena);
    digester_init(&r->digester);
}

static bool volume_read_tries(struct volume_reader *r, int pod_fd, bool projected, uint64_t begin, struct volume_piece *out,
                              struct status *err)
{
    for (int tries = 0; tries < VOLUME_TRIES_MAX; tries++) {
        if (tries > 0)
            usleep(10000u << tries / 2);
        volume_rewind(r, begin);
        cleanup_close int fd = beneath_open(pod_fd, out->name, O_RDONLY | O_NONBLOCK, 0);
        if (fd < 0)
            return status_errno(err, "cannot open %s", r->name);
        bool ok = volume_read_whole(r, fd, projected, out, err) && volume_flush(r, err);
        if (ok && !r->changed) {
            volume_hash(r, out);
            return true;
        }
        if (!ok && !r->changed)
            return false;
    }
    return status_set(err, STATUS_UNAVAILABLE, "%s changes all the time, or is not complete", r->name);
}

bool volume_read(const char *pod_dir, const char *name, bool projected, int fd, uint64_t *end, struct volume_piece *out,
                 struct status *err)
{
    cleanup_free char *path = xasprintf("%s/%s", pod_dir, name);
    cleanup_close int pod_fd = open(pod_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct volume_reader r = { .fd = fd, .name = path, .arena = ARENA_INIT };

    if (pod_fd < 0)
        return status_errno(err, "cannot open %s", pod_dir);
    memset(out, 0, sizeof *out);
    if (snprintf(out->name, sizeof out->name, "%s", name) >= (int)sizeof out->name)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: longer than any volume's name", name);
    r.entries = xcalloc(VOLUME_READER_ENTRIES, sizeof(Interlink__Agent__V1__FileEntry *));
    r.block = xmalloc(VOLUME_MESSAGE_BYTES);
    bool ok = volume_read_tries(&r, pod_fd, projected, *end, out, err);
    out->offset = *end;
    out->length = r.end - *end;
    if (ok)
        *end = r.end;
    arena_free(&r.arena);
    buf_free(&r.packed);
    free(r.entries);
    free(r.block);
    return ok;
}

#undef VOLUME_MESSAGE_BYTES
#undef VOLUME_TRIES_MAX
#undef VOLUME_DATA
#undef VOLUME_READER_ENTRIES
