/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/files_writer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/beneath.h"
#include "io/file.h"

#define FILES_DATA "..data"
#define FILES_DATA_NEW "..data_tmp"

/* A folder whose mode is set when all is in it: followed by its path and a NUL. */
struct files_folder {
    bool in_data; /* the path is below data_fd, else below tree_fd */
    mode_t mode;
};

/* ---- names ---- */

static bool files_volume_ok(const char *volume)
{
    for (const char *p = volume; *p != '\0'; p++)
        if (!(*p >= 'a' && *p <= 'z') && !(*p >= 'A' && *p <= 'Z') && !(*p >= '0' && *p <= '9') && strchr("._~-/", *p) == NULL)
            return false;
    return beneath_is_plain(volume) && strlen(volume) <= FILES_VOLUME_NAME_MAX;
}

char *files_writer_path(const char *root, const char *volume)
{
    if (!files_volume_ok(volume))
        return NULL;
    char *path = xasprintf("%s/%s/tree", root, volume);
    for (char *p = path + strlen(root) + 1; p < path + strlen(root) + 1 + strlen(volume); p++)
        if (*p == '/')
            *p = '+';
    return path;
}

bool files_writer_check(const Interlink__Agent__V1__PutFilesStart *start, struct status *err)
{
    if (!files_volume_ok(start->volume))
        return status_set(err, STATUS_INVALID_ARGUMENT, "start.volume: \"%.100s\" cannot be a volume's name", start->volume);
    if (*start->version == '\0' || strlen(start->version) > FILES_VOLUME_NAME_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "start.version: missing, or longer than %d bytes", FILES_VOLUME_NAME_MAX);
    if (start->kind > INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FILE)
        return status_set(err, STATUS_INVALID_ARGUMENT, "start.kind: %u is not known here", (unsigned)start->kind);
    return true;
}

/* ---- the object ---- */

void files_writer_open(struct files_writer *w, const char *root)
{
    *w = (struct files_writer){ .root = xstrdup(root), .dir_fd = -1, .lock_fd = -1, .tree_fd = -1, .data_fd = -1, .file_fd = -1 };
}

static void files_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void files_close_volume(struct files_writer *w)
{
    files_close(&w->file_fd);
    files_close(&w->data_fd);
    files_close(&w->tree_fd);
    files_close(&w->dir_fd);
    files_close(&w->lock_fd);
    buf_free(&w->folders);
    free(w->volume);
    w->volume = NULL;
}

void files_writer_close(struct files_writer *w)
{
    files_close_volume(w);
    free(w->root);
    w->root = NULL;
}

static bool files_fail(const struct files_writer *w, struct status *err, const char *what)
{
    return status_errno(err, "volume %s: %s", w->volume, what);
}

/* ---- the beginning of a volume ---- */

/* As kubelet names them: the time, and a number so that no two are alike. */
static bool files_make_data(struct files_writer *w, struct status *err)
{
    char stamp[32];
    struct tm tm;
    time_t now = time(NULL);
    uint32_t number;

    gmtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "..%Y_%m_%d_%H_%M_%S", &tm);
    for (int tries = 0; tries < 100; tries++) {
        random_bytes(&number, sizeof number);
        snprintf(w->data_name, sizeof w->data_name, "%s.%" PRIu32, stamp, number);
        if (mkdirat(w->tree_fd, w->data_name, 0700) == 0) {
            w->data_fd = openat(w->tree_fd, w->data_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            return w->data_fd >= 0 || files_fail(w, err, "cannot open its new folder");
        }
        if (errno != EEXIST)
            break;
    }
    return files_fail(w, err, "cannot make a folder in it");
}

static bool files_remove_at(const struct files_writer *w, int dir_fd, const char *name, struct status *err)
{
    char path[64 + NAME_MAX];

    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dir_fd, name);
    return tree_remove(path, err) || status_prefix(err, "volume %s", w->volume);
}

static bool files_open_tree(struct files_writer *w, struct status *err)
{
    const char *name = w->kind == INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED ? "tree" : "incoming";

    if (w->kind == INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FILE)
        return true;
    if (w->kind == INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FOLDER && !files_remove_at(w, w->dir_fd, name, err))
        return false;
    if (mkdirat(w->dir_fd, name, 0700) < 0 && errno != EEXIST)
        return files_fail(w, err, "cannot make its folder");
    w->tree_fd = openat(w->dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (w->tree_fd < 0)
        return files_fail(w, err, "cannot open its folder");
    return w->kind != INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED || files_make_data(w, err);
}

static bool files_start(struct files_writer *w, const Interlink__Agent__V1__PutFilesStart *start, struct status *err)
{
    if (!files_writer_check(start, err))
        return false;
    cleanup_free char *dir = files_writer_path(w->root, start->volume);
    w->volume = xstrdup(start->volume);
    w->kind = start->kind;
    w->entries = 0;
    w->bytes = 0;
    *strrchr(dir, '/') = '\0'; /* without "/tree" */
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return files_fail(w, err, "cannot make its folder");
    w->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (w->dir_fd < 0)
        return files_fail(w, err, "cannot open its folder");
    /* One that was given up may still be writing: it is being killed. */
    w->lock_fd = openat(w->dir_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (w->lock_fd < 0 || flock(w->lock_fd, LOCK_EX) < 0)
        return files_fail(w, err, "cannot lock it");
    return files_open_tree(w, err);
}

/* ---- entries ---- */

static char *files_text(const ProtobufCBinaryData *bytes)
{
    return bytes->len > 0 ? xstrndup((const char *)bytes->data, bytes->len) : xstrdup("");
}

/* What was made is ours. An id that is not there cannot be given; nobody else can be then either. */
static bool files_own(const struct files_writer *w, int dir_fd, const char *name, const Interlink__Agent__V1__FileEntry *entry,
                      struct status *err)
{
    return fchownat(dir_fd, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW | (*name == '\0' ? AT_EMPTY_PATH : 0)) == 0 ||
           errno == EPERM || errno == EINVAL || files_fail(w, err, "cannot set the owner of a file");
}

static void files_remember_folder(struct files_writer *w, bool in_data, const char *path, mode_t mode)
{
    struct files_folder folder;

    memset(&folder, 0, sizeof folder);
    folder.in_data = in_data;
    folder.mode = mode;
    buf_append(&w->folders, &folder, sizeof folder);
    buf_append(&w->folders, path, strlen(path) + 1);
}

static bool files_make_folder(struct files_writer *w, bool in_data, const char *path, const Interlink__Agent__V1__FileEntry *entry,
                              struct status *err)
{
    const char *name = path;
    cleanup_close int parent = *path == '\0' ? -1 : beneath_parent(in_data ? w->data_fd : w->tree_fd, path, &name);

    if (*path != '\0' && (parent < 0 || (mkdirat(parent, name, 0700) < 0 && errno != EEXIST)))
        return files_fail(w, err, "cannot make a folder in it");
    files_remember_folder(w, in_data, path, entry->mode & 07777);
    return files_own(w, *path == '\0' ? (in_data ? w->data_fd : w->tree_fd) : parent, name, entry, err);
}

static bool files_make_link(struct files_writer *w, bool in_data, const char *path, const Interlink__Agent__V1__FileEntry *entry,
                            struct status *err)
{
    const char *name;
    cleanup_close int parent = beneath_parent(in_data ? w->data_fd : w->tree_fd, path, &name);
    cleanup_free char *target = files_text(&entry->target);

    if (entry->target.len == 0 || strlen(target) != entry->target.len)
        return status_set(err, STATUS_INVALID_ARGUMENT, "volume %s: the link \"%.100s\" has no target", w->volume, path);
    if (parent < 0 || symlinkat(target, parent, name) < 0)
        return files_fail(w, err, "cannot make a link in it");
    return files_own(w, parent, name, entry, err);
}

static bool files_write(struct files_writer *w, const void *p, size_t n, struct status *err)
{
    if (n > w->file_left)
        return status_set(err, STATUS_INVALID_ARGUMENT, "volume %s: a file is larger than was said", w->volume);
    w->file_left -= n;
    return write_all(w->file_fd, p, n, err) || status_prefix(err, "volume %s", w->volume);
}

/* One that is a volume by itself is written in place, for it is mounted. */
static int files_create(struct files_writer *w, bool in_data, const char *path, struct status *err)
{
    const char *name;
    int fd;

    if (w->kind == INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FILE) {
        fd = openat(w->dir_fd, "tree", O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        /* A folder, when the same place in a volume was one before. */
        if (fd < 0 && errno == EISDIR && files_remove_at(w, w->dir_fd, "tree", err))
            fd = openat(w->dir_fd, "tree", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    } else {
        cleanup_close int parent = beneath_parent(in_data ? w->data_fd : w->tree_fd, path, &name);
        fd = parent < 0 ? -1 : openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    }
    if (fd < 0)
        files_fail(w, err, "cannot make a file in it");
    return fd;
}

static bool files_make_file(struct files_writer *w, bool in_data, const char *path, const Interlink__Agent__V1__FileEntry *entry,
                            struct status *err)
{
    if (entry->size > FILES_VOLUME_BYTES_MAX || (w->bytes += entry->size) > FILES_VOLUME_BYTES_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "volume %s: more than the %u bytes that are copied", w->volume,
                          FILES_VOLUME_BYTES_MAX);
    w->file_fd = files_create(w, in_data, path, err);
    w->file_left = entry->size;
    return w->file_fd >= 0 && files_own(w, w->file_fd, "", entry, err) &&
           (fchmod(w->file_fd, entry->mode & 07777) == 0 || files_fail(w, err, "cannot set the mode of a file")) &&
           files_write(w, entry->data.data, entry->data.len, err);
}

/* The file under way must have come whole. */
static bool files_end_file(struct files_writer *w, struct status *err)
{
    off_t size = w->file_fd < 0 ? 0 : lseek(w->file_fd, 0, SEEK_CUR);

    if (w->file_fd < 0)
        return true;
    if (w->file_left > 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "volume %s: a file is %" PRIu64 " bytes shorter than was said", w->volume,
                          w->file_left);
    if (size < 0 || ftruncate(w->file_fd, size) < 0)
        return files_fail(w, err, "cannot end a file");
    files_close(&w->file_fd);
    return true;
}

/* Splits off "..data"; false for a path that an entry cannot have. */
static bool files_place(const struct files_writer *w, const char *path, const char **rest, bool *in_data)
{
    size_t n = strcspn(path, "/");

    *rest = path;
    *in_data = false;
    if (*path == '\0')
        return true;
    if (!beneath_is_plain(path) || w->kind == INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FILE)
        return false;
    if (w->kind != INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED || strncmp(path, "..", 2) != 0)
        return true;
    *in_data = true;
    *rest = path + n + (path[n] == '/');
    return n == strlen(FILES_DATA) && str_starts(path, FILES_DATA);
}

static bool files_entry(struct files_writer *w, const Interlink__Agent__V1__FileEntry *entry, struct status *err)
{
    cleanup_free char *path = files_text(&entry->path);
    bool in_data, single = w->kind == INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FILE;
    const char *rest;

    if (!files_end_file(w, err))
        return false;
    if (strlen(path) != entry->path.len || entry->path.len > FILES_PATH_MAX || !files_place(w, path, &rest, &in_data))
        return status_set(err, STATUS_INVALID_ARGUMENT, "volume %s: \"%.100s\" cannot be a path in it", w->volume, path);
    if (++w->entries > FILES_VOLUME_ENTRIES_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "volume %s: more than the %d files and folders that are copied", w->volume,
                          FILES_VOLUME_ENTRIES_MAX);
    size_t depth = 0;
    for (const char *p = path; *p != '\0'; p++)
        depth += *p == '/';
    if (depth >= FILES_DEPTH_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "volume %s: folders are more than %d deep", w->volume, FILES_DEPTH_MAX);
    bool first = w->entries == 1;
    if (first != (*path == '\0') || (first && S_ISREG(entry->mode) != single) || (first && !single && !S_ISDIR(entry->mode)))
        return status_set(err, STATUS_INVALID_ARGUMENT, "volume %s: its first entry is not the volume itself", w->volume);
    if (S_ISDIR(entry->mode))
        return files_make_folder(w, in_data, rest, entry, err);
    if (*rest == '\0' && !single)
        return status_set(err, STATUS_INVALID_ARGUMENT, "volume %s: \"%s\" is not a folder", w->volume, path);
    if (S_ISREG(entry->mode))
        return files_make_file(w, in_data, rest, entry, err);
    if (S_ISLNK(entry->mode))
        return files_make_link(w, in_data, rest, entry, err);
    return status_set(err, STATUS_INVALID_ARGUMENT, "volume %s: \"%.100s\" is neither file, folder nor link", w->volume, path);
}

/* ---- the end of a volume ---- */

/* The last ones first: what is inside before what holds it. */
static bool files_set_modes(struct files_writer *w, struct status *err)
{
    size_t count = 0, n = 0;
    cleanup_free size_t *at = xcalloc(w->entries + 1, sizeof *at);

    for (size_t i = 0; i < w->folders.n; count++) {
        at[count] = i;
        i += sizeof(struct files_folder);
        i += strlen((const char *)w->folders.p + i) + 1;
    }
    for (n = count; n-- > 0;) {
        struct files_folder folder;
        memcpy(&folder, w->folders.p + at[n], sizeof folder);
        const char *path = (const char *)w->folders.p + at[n] + sizeof folder;
        cleanup_close int fd = beneath_open(folder.in_data ? w->data_fd : w->tree_fd, path, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0 || fchmod(fd, folder.mode) < 0)
            return files_fail(w, err, "cannot set the mode of a folder");
    }
    return true;
}

/* A link to a place below ..data, as AtomicWriter makes them for names that users see. */
static bool files_is_visible_link(int dir_fd, const char *name)
{
    char target[sizeof FILES_DATA + 1] = "";

    return readlinkat(dir_fd, name, target, sizeof target - 1) > 0 && str_starts(target, FILES_DATA "/");
}

static DIR *files_list(const struct files_writer *w, int dir_fd, struct status *err)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (dir == NULL && fd >= 0)
        close(fd);
    if (dir == NULL)
        files_fail(w, err, "cannot list it");
    return dir;
}

static bool files_link_names(struct files_writer *w, struct status *err)
{
    DIR *dir = files_list(w, w->data_fd, err);
    struct dirent *entry;
    bool ok = dir != NULL;

    while (ok && (entry = readdir(dir)) != NULL) {
        cleanup_free char *target = xasprintf(FILES_DATA "/%s", entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        /* A folder of that name, made for a mount inside, stays. */
        ok = symlinkat(target, w->tree_fd, entry->d_name) == 0 || errno == EEXIST ||
             files_fail(w, err, "cannot make a link in it");
    }
    if (dir != NULL)
        closedir(dir);
    return ok;
}

/* Links that lead nowhere now, and folders of earlier versions and of writers that were killed. */
static bool files_remove_old(struct files_writer *w, struct status *err)
{
    DIR *dir = files_list(w, w->tree_fd, err);
    struct dirent *entry;
    struct stat st;
    bool ok = dir != NULL;

    while (ok && (entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, FILES_DATA) == 0 || strcmp(name, w->data_name) == 0)
            continue;
        if (str_starts(name, ".."))
            ok = files_remove_at(w, w->tree_fd, name, err);
        else if (files_is_visible_link(w->tree_fd, name) && fstatat(w->data_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            ok = unlinkat(w->tree_fd, name, 0) == 0 || errno == ENOENT || files_fail(w, err, "cannot remove an old link");
    }
    if (dir != NULL)
        closedir(dir);
    return ok;
}

static bool files_switch(struct files_writer *w, struct status *err)
{
    if (unlinkat(w->tree_fd, FILES_DATA_NEW, 0) < 0 && errno != ENOENT)
        return files_fail(w, err, "cannot remove an old link");
    if (symlinkat(w->data_name, w->tree_fd, FILES_DATA_NEW) < 0 ||
        renameat(w->tree_fd, FILES_DATA_NEW, w->tree_fd, FILES_DATA) < 0)
        return files_fail(w, err, "cannot switch to its new files");
    return files_link_names(w, err) && files_remove_old(w, err);
}

/* Nobody has the old folder mounted but containers that have ended. */
static bool files_replace_folder(struct files_writer *w, struct status *err)
{
    return files_remove_at(w, w->dir_fd, "tree", err) &&
           (renameat(w->dir_fd, "incoming", w->dir_fd, "tree") == 0 || files_fail(w, err, "cannot put its folder in place"));
}

static bool files_end_volume(struct files_writer *w, struct status *err)
{
    bool ok = true;

    if (w->volume == NULL)
        return true;
    if (w->entries == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "volume %s: it has no entries", w->volume);
    if (!files_end_file(w, err) || !files_set_modes(w, err))
        return false;
    if (w->kind == INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED)
        ok = files_switch(w, err);
    else if (w->kind == INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FOLDER)
        ok = files_replace_folder(w, err);
    if (ok)
        files_close_volume(w);
    return ok;
}

bool files_writer_take(struct files_writer *w, const Interlink__Agent__V1__PutFilesRequest *message, struct status *err)
{
    if (message->start != NULL && (!files_end_volume(w, err) || !files_start(w, message->start, err)))
        return false;
    if (w->volume == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "start: missing: no volume has begun");
    for (size_t i = 0; i < message->n_entries; i++)
        if (!files_entry(w, message->entries[i], err))
            return false;
    if (message->data.len == 0)
        return true;
    return w->file_fd >= 0 ? files_write(w, message->data.data, message->data.len, err)
                           : status_set(err, STATUS_INVALID_ARGUMENT, "volume %s: data without a file", w->volume);
}

bool files_writer_end(struct files_writer *w, struct status *err)
{
    return files_end_volume(w, err);
}

#undef FILES_DATA
#undef FILES_DATA_NEW
