/* SPDX-License-Identifier: Apache-2.0 */
/* Two archives of libarchive's in a row: the outer one takes the compression away, so that the plain bytes can be hashed and
 * counted on their way; the inner one reads them as tar. */
#include "image/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/layer_write.h"
#include "io/file.h"
#include "io/userns.h"
#include "text/json.h"

#define UNPACK_READ_SIZE (128u << 10)
#define UNPACK_XATTRS_MAX 64

struct unpack {
    int fd; /* of the blob; owned */
    const struct unpack_limits *limits;
    struct archive *outer, *inner; /* owned; outer is NULL for a plain archive */
    bool check_blob;
    struct digester blob, plain;
    uint64_t blob_bytes, plain_bytes, file_bytes, entries;
    struct layer_writer writer;
    struct status failure; /* why a read callback failed, when the archive itself is not to blame */
    uint8_t *buffer;       /* owned */
};

/* ---- bytes ---- */

static bool unpack_failed(const struct unpack *u)
{
    return u->failure.code != STATUS_OK;
}

/* The next bytes of the blob. */
static la_ssize_t unpack_read_blob(struct archive *a, void *context, const void **out)
{
    struct unpack *u = context;
    ssize_t n;

    do
        n = read(u->fd, u->buffer, UNPACK_READ_SIZE);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        status_errno(&u->failure, "cannot read the blob");
        archive_set_error(a, EIO, "cannot read the blob");
        return -1;
    }
    if (u->check_blob)
        digester_update(&u->blob, u->buffer, (size_t)n);
    u->blob_bytes += (uint64_t)n;
    *out = u->buffer;
    return n;
}

static bool unpack_count_plain(struct unpack *u, size_t n)
{
    u->plain_bytes += n;
    if (u->plain_bytes > u->limits->bytes)
        return status_set(&u->failure, STATUS_RESOURCE_EXHAUSTED, "the layer is larger than the %" PRIu64 " bytes allowed",
                          u->limits->bytes);
    if (u->plain_bytes > IMAGE_RATIO_FREE_BYTES && u->plain_bytes / u->limits->ratio > u->blob_bytes)
        return status_set(&u->failure, STATUS_RESOURCE_EXHAUSTED,
                          "the layer grows to more than %u times its compressed size, which honest ones do not",
                          u->limits->ratio);
    return true;
}

/* The next bytes of the plain archive. */
static la_ssize_t unpack_read_plain(struct archive *a, void *context, const void **out)
{
    struct unpack *u = context;
    const void *p = NULL;
    size_t n = 0;

    if (u->outer == NULL) {
        la_ssize_t got = unpack_read_blob(a, u, &p);
        if (got < 0)
            return got;
        n = (size_t)got;
    } else {
        la_int64_t offset;
        int code = archive_read_data_block(u->outer, &p, &n, &offset);
        if (code == ARCHIVE_EOF)
            n = 0;
        else if (code != ARCHIVE_OK) {
            if (!unpack_failed(u))
                status_set(&u->failure, STATUS_INVALID_ARGUMENT, "the layer cannot be decompressed: %.200s",
                           archive_error_string(u->outer));
            archive_set_error(a, EIO, "cannot decompress");
            return -1;
        }
    }
    digester_update(&u->plain, p, n);
    if (!unpack_count_plain(u, n)) {
        archive_set_error(a, EFBIG, "too large");
        return -1;
    }
    *out = p;
    return (la_ssize_t)n;
}

/* gzip and zstd are known by their first bytes (RFC 1952, RFC 8878); everything else must be plain tar. One filter only: what
 * is wrapped twice is no layer. */
static bool unpack_open_outer(struct unpack *u, struct status *err)
{
    uint8_t magic[4] = { 0 };
    struct archive_entry *entry;
    ssize_t n = pread(u->fd, magic, sizeof magic, 0);
    int filter = ARCHIVE_FILTER_NONE;

    if (n < 0)
        return status_errno(err, "cannot read the blob");
    if (magic[0] == 0x1f && magic[1] == 0x8b)
        filter = ARCHIVE_FILTER_GZIP;
    else if (memcmp(magic, "\x28\xb5\x2f\xfd", 4) == 0 || (memcmp(magic + 1, "\x2a\x4d\x18", 3) == 0 && magic[0] >> 4 == 5))
        filter = ARCHIVE_FILTER_ZSTD;
    if (filter == ARCHIVE_FILTER_NONE)
        return true;
    u->outer = archive_read_new();
    if (u->outer == NULL)
        abort();
    if (archive_read_append_filter(u->outer, filter) != ARCHIVE_OK || archive_read_support_format_raw(u->outer) != ARCHIVE_OK ||
        archive_read_open(u->outer, u, NULL, unpack_read_blob, NULL) != ARCHIVE_OK ||
        archive_read_next_header(u->outer, &entry) != ARCHIVE_OK)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the layer cannot be decompressed: %.200s",
                          archive_error_string(u->outer));
    return true;
}

/* What comes after the end of the tar archive belongs to the digests. */
static bool unpack_drain(struct unpack *u, struct status *err)
{
    const void *p;
    la_ssize_t n;

    while ((n = unpack_read_plain(u->inner, u, &p)) > 0)
        ;
    /* Nor may anything follow the compressed stream. */
    while (n == 0 && u->outer != NULL && (n = unpack_read_blob(u->inner, u, &p)) > 0)
        n = 0;
    if (n < 0)
        *err = u->failure;
    return n == 0;
}

/* ---- entries ---- */

/* libarchive's complaint, or our own reason when a callback of ours failed. */
static bool unpack_malformed(struct unpack *u, struct status *err)
{
    if (unpack_failed(u))
        *err = u->failure;
    else
        status_set(err, STATUS_INVALID_ARGUMENT, "the layer is no valid tar archive: %.200s",
                   archive_error_string(u->inner) != NULL ? archive_error_string(u->inner) : "unknown format");
    return false;
}

static bool unpack_content(struct unpack *u, const struct layer_entry *entry, int fd, struct status *err)
{
    const void *p;
    size_t n;
    la_int64_t offset;
    int code;

    while ((code = archive_read_data_block(u->inner, &p, &n, &offset)) == ARCHIVE_OK) {
        if (offset < 0 || (uint64_t)offset > entry->size || n > entry->size - (uint64_t)offset)
            return status_set(err, STATUS_INVALID_ARGUMENT, "'%.200s' has data beyond its size", entry->path);
        const uint8_t *from = p;
        while (n > 0) {
            ssize_t done = pwrite(fd, from, n, (off_t)offset);
            if (done < 0 && errno == EINTR)
                continue;
            if (done < 0)
                return status_errno(err, "cannot write '%.200s'", entry->path);
            from += done;
            n -= (size_t)done;
            offset += done;
        }
    }
    return code == ARCHIVE_EOF || unpack_malformed(u, err);
}

static bool unpack_entry_type(struct archive_entry *from, enum layer_entry_type *type, bool *known)
{
    static const struct {
        mode_t kind;
        enum layer_entry_type type;
    } types[] = {
        { AE_IFREG, LAYER_FILE }, { AE_IFDIR, LAYER_FOLDER }, { AE_IFLNK, LAYER_SYMLINK },
        { AE_IFIFO, LAYER_FIFO }, { AE_IFCHR, LAYER_CHAR },   { AE_IFBLK, LAYER_BLOCK },
    };

    *known = true;
    if (archive_entry_hardlink(from) != NULL || archive_entry_hardlink_utf8(from) != NULL) {
        *type = LAYER_HARDLINK;
        return true;
    }
    for (size_t i = 0; i < COUNT_OF(types); i++)
        if (archive_entry_filetype(from) == types[i].kind) {
            *type = types[i].type;
            return true;
        }
    *known = false; /* a socket, or tar's own bookkeeping */
    return true;
}

static bool unpack_fill(struct archive_entry *from, struct layer_entry *to, struct layer_xattr xattrs[UNPACK_XATTRS_MAX],
                        bool *known, struct status *err)
{
    memset(to, 0, sizeof *to);
    unpack_entry_type(from, &to->type, known);
    to->path = archive_entry_pathname(from) != NULL ? archive_entry_pathname(from) : archive_entry_pathname_utf8(from);
    if (to->path == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the layer has an entry without a name");
    to->target = "";
    if (to->type == LAYER_HARDLINK)
        to->target = archive_entry_hardlink(from) != NULL ? archive_entry_hardlink(from) : archive_entry_hardlink_utf8(from);
    else if (to->type == LAYER_SYMLINK)
        to->target = archive_entry_symlink(from) != NULL ? archive_entry_symlink(from) : archive_entry_symlink_utf8(from);
    if (to->target == NULL || (to->type == LAYER_SYMLINK && to->target[0] == '\0'))
        return status_set(err, STATUS_INVALID_ARGUMENT, "the link '%.200s' leads nowhere", to->path);
    if (strlen(to->target) >= LAYER_PATH_SIZE)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the target of link '%.200s' is too long", to->path);
    la_int64_t uid = archive_entry_uid(from), gid = archive_entry_gid(from), size = archive_entry_size(from);
    if (uid < 0 || gid < 0 || size < 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "'%.200s' has a negative size or owner", to->path);
    to->mode = archive_entry_perm(from);
    to->uid = (uint64_t)uid;
    to->gid = (uint64_t)gid;
    to->size = (uint64_t)size;
    if (archive_entry_mtime_is_set(from))
        to->mtime = (struct timespec){ archive_entry_mtime(from), archive_entry_mtime_nsec(from) };
    if (to->mtime.tv_nsec < 0 || to->mtime.tv_nsec > 999999999)
        to->mtime.tv_nsec = 0;
    to->device = archive_entry_rdev(from);
    archive_entry_xattr_reset(from);
    to->xattrs = xattrs;
    while (to->xattr_count < UNPACK_XATTRS_MAX &&
           archive_entry_xattr_next(from, &xattrs[to->xattr_count].name, &xattrs[to->xattr_count].value,
                                    &xattrs[to->xattr_count].n) == ARCHIVE_OK)
        to->xattr_count++;
    return true;
}

static bool unpack_one(struct unpack *u, struct archive_entry *from, struct status *err)
{
    struct layer_xattr xattrs[UNPACK_XATTRS_MAX];
    struct layer_entry entry;
    bool known;
    int fd;

    if (++u->entries > u->limits->entries)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "the layer has more than the %" PRIu64 " entries allowed",
                          u->limits->entries);
    if (!unpack_fill(from, &entry, xattrs, &known, err))
        return false;
    if (!known)
        return true;
    /* Holes cost nothing in the archive, and little on the disk until the file is copied. */
    if (entry.type == LAYER_FILE && entry.size > u->limits->bytes - u->file_bytes)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "the files of the layer are larger than the %" PRIu64 " bytes allowed",
                          u->limits->bytes);
    if (entry.type == LAYER_FILE)
        u->file_bytes += entry.size;
    if (!layer_write(&u->writer, &entry, &fd, err))
        return false;
    if (fd < 0)
        return true;
    if (!unpack_content(u, &entry, fd, err)) {
        close(fd);
        return false;
    }
    return layer_write_done(&u->writer, &entry, fd, err);
}

static bool unpack_entries(struct unpack *u, struct status *err)
{
    struct archive_entry *entry;
    int code;

    u->inner = archive_read_new();
    if (u->inner == NULL)
        abort();
    archive_read_support_format_tar(u->inner);
    if (archive_read_open(u->inner, u, NULL, unpack_read_plain, NULL) != ARCHIVE_OK)
        return unpack_malformed(u, err);
    while ((code = archive_read_next_header(u->inner, &entry)) != ARCHIVE_EOF) {
        if (code == ARCHIVE_RETRY)
            continue;
        /* A warning: a name that is not in the character set of the locale, for one. The bytes are there. */
        if (code != ARCHIVE_OK && code != ARCHIVE_WARN)
            return unpack_malformed(u, err);
        if (!unpack_one(u, entry, err))
            return false;
    }
    return unpack_drain(u, err);
}

/* ---- the whole ---- */

static bool unpack_check(struct unpack *u, const struct digest *blob, const struct digest *diff_id, struct status *err)
{
    struct digest got_blob = digester_value(&u->blob), got_plain = digester_value(&u->plain);
    char want[DIGEST_TEXT_SIZE], got[DIGEST_TEXT_SIZE];

    if (u->check_blob && !digest_equal(blob, &got_blob)) {
        digest_text(blob, want);
        digest_text(&got_blob, got);
        return status_set(err, STATUS_DATA_LOSS, "the blob %s is damaged: its digest is %s", want, got);
    }
    if (!digest_is_zero(diff_id) && !digest_equal(diff_id, &got_plain)) {
        digest_text(diff_id, want);
        digest_text(&got_plain, got);
        return status_set(err, STATUS_DATA_LOSS, "the layer is not the one that the image's configuration names (%s): its plain "
                                                 "digest is %s", want, got);
    }
    return true;
}

static bool unpack_into(struct unpack *u, const char *dir, const struct digest *blob, const struct digest *diff_id,
                        struct unpacked *out, struct status *err)
{
    return layer_writer_open(&u->writer, dir, err) && unpack_open_outer(u, err) && unpack_entries(u, err) &&
           unpack_check(u, blob, diff_id, err) && layer_writer_finish(&u->writer, out, err);
}

static void unpack_close(struct unpack *u)
{
    archive_read_free(u->inner);
    archive_read_free(u->outer);
    layer_writer_close(&u->writer);
    free(u->buffer);
    if (u->fd >= 0)
        close(u->fd);
}

static const char *const unpack_form_words[] = { "any", "trusted", "user", "flat" };

/* `part`: a name that is ours alone, for another process may be at the same layer. */
static bool unpack_write_info(const char *layer_dir, const char *part, const struct unpacked *u, struct status *err)
{
    cleanup_free char *path = xasprintf("%s.info", layer_dir);
    cleanup_free char *own = xasprintf("%s.info", part);
    cleanup_free char *text = xasprintf("{\"bytes\":%" PRIu64 ",\"inodes\":%" PRIu64 ",\"devices_skipped\":%" PRIu64
                                        ",\"xattrs_skipped\":%" PRIu64 ",\"owners_skipped\":%" PRIu64
                                        ",\"owners\":\"%s\",\"form\":\"%s\"}\n",
                                        u->bytes, u->inodes, u->devices_skipped, u->xattrs_skipped, u->owners_skipped, u->owners,
                                        unpack_form_words[u->form]);

    if (!file_replace(own, text, strlen(text), 0600, err))
        return false;
    if (rename(own, path) == 0)
        return true;
    status_errno(err, "cannot put %s in place", path);
    unlink(own);
    return false;
}

bool unpack_layer(const char *blob_path, const struct digest *blob, const struct digest *diff_id, const char *dest,
                  const struct unpack_limits *limits, struct unpacked *out, struct status *err)
{
    static const struct unpack_limits defaults = UNPACK_LIMITS_DEFAULT;
    struct unpack u = { .limits = limits != NULL ? limits : &defaults, .writer = { .root = { .fd = -1, .last_fd = -1 } } };
    uint8_t suffix[4];
    char hex[2 * sizeof suffix + 1];
    struct status ignored;

    setlocale(LC_CTYPE, "C.UTF-8"); /* else libarchive cannot give names beyond ASCII */
    random_bytes(suffix, sizeof suffix);
    hex_encode(suffix, sizeof suffix, hex);
    cleanup_free char *dir = xasprintf("%s.tmp%s", dest, hex);
    u.fd = open(blob_path, O_RDONLY | O_CLOEXEC);
    if (u.fd < 0)
        return status_errno(err, "cannot open %s", blob_path);
    u.buffer = xmalloc(UNPACK_READ_SIZE);
    u.check_blob = !digest_is_zero(blob);
    digester_init(&u.blob);
    digester_init(&u.plain);
    bool made = mkdir(dir, 0700) == 0;
    bool ok = made ? unpack_into(&u, dir, blob, diff_id, out, err) : status_errno(err, "cannot make folder %s", dir);
    unpack_close(&u);
    if (ok && unpack_write_info(dest, dir, out, err)) {
        if (rename(dir, dest) == 0)
            return true;
        /* Somebody else was faster with the same layer: theirs is as good. */
        if (errno == EEXIST || errno == ENOTEMPTY)
            return tree_remove(dir, err);
        status_errno(err, "cannot put %s in place", dest);
    }
    if (made)
        tree_remove(dir, &ignored);
    return false;
}

bool unpack_layer_info(const char *layer_dir, struct unpacked *out, struct status *err)
{
    cleanup_free char *path = xasprintf("%s.info", layer_dir);
    struct arena cleanup_arena scratch = ARENA_INIT;
    struct buf cleanup_buf text = BUF_INIT;
    const char *form = "", *owners = "";

    memset(out, 0, sizeof *out);
    if (!file_read(path, 4096, &text, err))
        return false;
    const struct json *j = json_parse(&scratch, (struct str){ buf_cstr(&text), text.n }, err);
    bool ok = j != NULL && json_read_u64(j, "bytes", UINT64_MAX, &out->bytes, err) &&
              json_read_u64(j, "inodes", UINT64_MAX, &out->inodes, err) &&
              json_read_u64(j, "devices_skipped", UINT64_MAX, &out->devices_skipped, err) &&
              json_read_u64(j, "xattrs_skipped", UINT64_MAX, &out->xattrs_skipped, err) &&
              json_read_string(j, "form", &form, err);
    /* Earlier versions did not say. */
    ok = ok && (json_member(j, "owners") == NULL || (json_read_string(j, "owners", &owners, err) &&
                                                     json_read_u64(j, "owners_skipped", UINT64_MAX, &out->owners_skipped, err)));
    snprintf(out->owners, sizeof out->owners, "%s", owners);
    for (size_t i = 0; ok && i < COUNT_OF(unpack_form_words); i++)
        if (strcmp(form, unpack_form_words[i]) == 0) {
            out->form = (enum unpack_form)i;
            return true;
        }
    if (ok)
        status_set(err, STATUS_DATA_LOSS, "it has no known form");
    err->code = STATUS_DATA_LOSS;
    return status_prefix(err, "%s is damaged", path);
}

/* ---- owners ---- */

void unpack_owners_here(char out[UNPACK_OWNERS_SIZE])
{
    struct buf text cleanup_buf = BUF_INIT;
    struct userns_map map;
    struct status ignored;

    snprintf(out, UNPACK_OWNERS_SIZE, "one");
    if (geteuid() != 0 || !userns_read_map("self", &map, &ignored) || userns_ids_count(&map.uids) <= 1 ||
        userns_ids_count(&map.gids) <= 1)
        return;
    /* Also in a user namespace in which every id stays the same. */
    if (map.uids.ranges[0].outside == map.uids.ranges[0].inside && map.gids.ranges[0].outside == map.gids.ranges[0].inside) {
        snprintf(out, UNPACK_OWNERS_SIZE, "all");
        return;
    }
    userns_print_ids(&map.uids, &text);
    buf_append_byte(&text, ' ');
    userns_print_ids(&map.gids, &text);
    struct digest d = digest_of(text.p, text.n);
    hex_encode(d.sha256, 8, out);
}

bool unpack_owners_fit(const struct unpacked *layer, const char *here)
{
    return layer->owners[0] == '\0' || strcmp(layer->owners, "none") == 0 || strcmp(layer->owners, here) == 0;
}

bool unpack_forms_agree(const enum unpack_form *forms, size_t count, enum unpack_form *out)
{
    enum unpack_form all = UNPACK_ANY;

    *out = UNPACK_FLAT;
    for (size_t i = 0; i < count; i++) {
        if (forms[i] == UNPACK_FLAT || (forms[i] != UNPACK_ANY && all != UNPACK_ANY && forms[i] != all))
            return false;
        if (forms[i] != UNPACK_ANY)
            all = forms[i];
    }
    *out = all;
    return true;
}

#undef UNPACK_READ_SIZE
#undef UNPACK_XATTRS_MAX
