/* SPDX-License-Identifier: Apache-2.0 */
#include "image/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "image/store_internal.h"
#include "image/unpack.h"
#include "io/file.h"

static const char *const store_folders[] = { "blobs", "blobs/sha256", "layers", "images", "ingest", "trash", "set-aside" };

char *store_path(const struct image_store *store, const char *folder, const char *name)
{
    return xasprintf("%s/%s/%s", store->root, folder, name);
}

char *image_store_blob_path(const struct image_store *store, const struct digest *blob)
{
    char hex[DIGEST_HEX_SIZE];

    digest_hex(blob, hex);
    return store_path(store, "blobs/sha256", hex);
}

char *image_store_layer_path(const struct image_store *store, const struct digest *diff_id)
{
    char hex[DIGEST_HEX_SIZE];

    digest_hex(diff_id, hex);
    return store_path(store, "layers", hex);
}

const char *image_store_root(const struct image_store *store)
{
    return store->root;
}

static struct record *store_record_of(const struct image *image)
{
    return CONTAINER_OF(image, struct record, image);
}

/* for (STORE_EACH(r, store)): all records, listed or not. */
#define STORE_EACH(r, store)                                                                                           \
    struct record *r = (struct record *)(void *)CONTAINER_OF((store)->records.next, struct image, link);               \
    &r->image.link != &(store)->records;                                                                               \
    r = (struct record *)(void *)CONTAINER_OF(r->image.link.next, struct image, link)

static struct record *store_by_id(const struct image_store *store, const char *id)
{
    for (STORE_EACH(r, store))
        if (strcmp(r->image.id, id) == 0)
            return r;
    return NULL;
}

/* ---- accounts ---- */

/* Each blob and each layer counts once, however many images have it. */
static void store_count(struct image_store *store)
{
    struct strmap seen = STRMAP_INIT;
    char key[DIGEST_HEX_SIZE + 1];

    store->bytes = store->inodes = 0;
    store->listed = 0;
    for (STORE_EACH(r, store)) {
        const struct image *i = &r->image;
        store->listed += r->listed;
        /* The configuration's blob and the record: a block each. */
        store->bytes += 4096 + (i->config_size + 4095) / 4096 * 4096;
        store->inodes += 2;
        for (size_t k = 0; k < i->layer_count; k++) {
            key[0] = 'b';
            digest_hex(&i->layers[k].blob, key + 1);
            if (strmap_put(&seen, key, store) == NULL) {
                store->bytes += r->costs[k].blob_bytes;
                store->inodes++;
            }
            key[0] = 'l';
            digest_hex(&i->layers[k].diff_id, key + 1);
            if (strmap_put(&seen, key, store) == NULL) {
                store->bytes += r->costs[k].bytes;
                store->inodes += r->costs[k].inodes + 1; /* and what is known of it */
            }
        }
    }
    strmap_free(&seen);
}

static void store_changed(struct image_store *store)
{
    store->generation++;
    store_count(store);
    for (STORE_EACH(r, store)) {
        r->image.pinned = false;
        for (const char *const *p = store->pinned; p != NULL && *p != NULL; p++)
            if (record_has(r->image.tags, r->image.tag_count, *p) || record_has(r->image.digests, r->image.digest_count, *p))
                r->image.pinned = true;
    }
}

void image_store_usage(struct image_store *store, struct image_usage *out)
{
    *out = (struct image_usage){ clock_real_ns(), store->bytes, store->inodes, store->mount.point };
}

/* ---- records on disk ---- */

static bool store_write(struct image_store *store, struct record *r, struct status *err)
{
    struct buf cleanup_buf text = BUF_INIT;
    cleanup_free char *path = store_path(store, "images", r->image.id + strlen("sha256:"));

    r->sequence = ++store->sequence;
    record_seal(r, &text);
    return file_write_atomic(path, text.p, text.n, 0600, err);
}

static bool store_unlink(struct image_store *store, struct record *r, struct status *err)
{
    cleanup_free char *path = store_path(store, "images", r->image.id + strlen("sha256:"));
    cleanup_free char *dir = store_path(store, "images", "");

    if (unlink(path) < 0 && errno != ENOENT)
        return status_errno(err, "cannot remove %s", path);
    return file_sync_dir(dir, err);
}

static void store_drop_names(struct record *r)
{
    while (r->image.tag_count > 0)
        record_drop(r->image.tags, &r->image.tag_count, r->image.tags[0]);
    while (r->image.digest_count > 0)
        record_drop(r->image.digests, &r->image.digest_count, r->image.digests[0]);
}

static void store_forget(struct image_store *store, struct record *r)
{
    sweep_doom(store, r);
    list_remove(&r->image.link);
    record_free(r);
}

/* Everything that the record names must be there: a store that was copied in part, or cleaned by hand, is no store. */
bool store_complete(const struct image_store *store, const struct record *r, struct status *err)
{
    cleanup_free char *config = image_store_blob_path(store, &r->image.config);
    struct stat st;

    if (stat(config, &st) < 0)
        return status_errno(err, "its configuration is gone: %s", config);
    for (size_t i = 0; i < r->image.layer_count; i++) {
        cleanup_free char *blob = image_store_blob_path(store, &r->image.layers[i].blob);
        cleanup_free char *layer = image_store_layer_path(store, &r->image.layers[i].diff_id);
        if (stat(blob, &st) < 0)
            return status_errno(err, "a blob is gone: %s", blob);
        if ((uint64_t)st.st_size != r->image.layers[i].size)
            return status_set(err, STATUS_DATA_LOSS, "a blob has the wrong size: %s", blob);
        if (stat(layer, &st) < 0)
            return status_errno(err, "a layer is gone: %s", layer);
    }
    return true;
}

static void store_set_aside(struct image_store *store, const char *name, const struct status *err)
{
    cleanup_free char *from = store_path(store, "images", name);
    cleanup_free char *to = store_path(store, "set-aside", name);

    log_warn("image record %s is set aside in %s: %s", from, to, err->message);
    if (rename(from, to) < 0)
        log_error("cannot move %s to %s: %s", from, to, strerror(errno));
}

static void store_insert(struct image_store *store, struct record *r)
{
    struct list *before = store->records.next;

    while (before != &store->records && store_record_of(CONTAINER_OF(before, struct image, link))->created_ns <= r->created_ns)
        before = before->next;
    list_append(before, &r->image.link);
}

static void store_load(struct image_store *store, const char *name)
{
    cleanup_free char *path = store_path(store, "images", name);
    struct buf cleanup_buf text = BUF_INIT;
    struct status err = STATUS_INIT;
    struct record *r = NULL;

    if (str_ends(name, ".tmp")) { /* the write of it was cut short */
        unlink(path);
        return;
    }
    if (file_read(path, IMAGE_RECORD_SIZE_MAX, &text, &err))
        r = record_open((struct str){ (const char *)text.p, text.n }, &err);
    if (r != NULL && strcmp(r->image.id + strlen("sha256:"), name) != 0) {
        status_set(&err, STATUS_DATA_LOSS, "it is the record of another image, %s", r->image.id);
        record_free(r);
        r = NULL;
    }
    if (r != NULL && !store_complete(store, r, &err)) {
        record_free(r);
        r = NULL;
    }
    if (r == NULL) {
        store_set_aside(store, name, &err);
        return;
    }
    if (r->sequence > store->sequence)
        store->sequence = r->sequence;
    if (!r->listed)
        store_drop_names(r);
    store_insert(store, r);
}

/* A name moved from one image to another, and only the new owner was written: the later record has it. */
static void store_settle_names(struct image_store *store)
{
    for (STORE_EACH(a, store))
        for (STORE_EACH(b, store)) {
            if (a == b || a->sequence <= b->sequence)
                continue;
            for (size_t i = 0; i < a->image.tag_count; i++)
                record_drop(b->image.tags, &b->image.tag_count, a->image.tags[i]);
            for (size_t i = 0; i < a->image.digest_count; i++)
                record_drop(b->image.digests, &b->image.digest_count, a->image.digests[i]);
        }
}

static bool store_read_all(struct image_store *store, struct status *err)
{
    cleanup_free char *path = store_path(store, "images", "");
    DIR *dir = opendir(path);
    struct dirent *entry;

    if (dir == NULL)
        return status_errno(err, "cannot list %s", path);
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.')
            store_load(store, entry->d_name);
    closedir(dir);
    store_settle_names(store);
    return true;
}

/* A lock of this process, which its children do not inherit: after a crash it is free at once. */
static bool store_lock(struct image_store *store, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/lock", store->root);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    store->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0)
        return status_errno(err, "cannot open %s", path);
    if (fcntl(store->lock_fd, F_SETLK, &lock) == 0)
        return true;
    if (errno == EAGAIN || errno == EACCES)
        return status_set(err, STATUS_FAILED_PRECONDITION, "the image store %s is in use by another process: stop that one, or "
                                                           "give this one another folder", store->root);
    return status_errno(err, "cannot lock %s", path);
}

static bool store_make(struct image_store *store, struct status *err)
{
    if (!dir_make(store->root, 0700, err))
        return false;
    if (chmod(store->root, 0700) < 0)
        return status_errno(err, "cannot make %s private", store->root);
    for (size_t i = 0; i < COUNT_OF(store_folders); i++) {
        cleanup_free char *path = xasprintf("%s/%s", store->root, store_folders[i]);
        if (!dir_make(path, 0700, err))
            return false;
    }
    return store_lock(store, err);
}

struct image_store *image_store_open(struct loop *loop, const struct image_store_options *options, struct status *err)
{
    struct image_store *store = xcalloc(1, sizeof *store);

    store->loop = loop;
    store->root = xstrdup(options->root);
    store->lock_fd = -1;
    store->pinned = options->pinned;
    store->layer_bytes_max = options->layer_bytes_max != 0 ? options->layer_bytes_max : IMAGE_LAYER_BYTES_MAX;
    store->layer_entries_max = options->layer_entries_max != 0 ? options->layer_entries_max : IMAGE_LAYER_ENTRIES_MAX;
    store->jobs_max = options->pulls_max != 0 ? options->pulls_max : IMAGE_JOBS_MAX;
    list_init(&store->records);
    list_init(&store->holds);
    list_init(&store->jobs);
    if (!store_make(store, err) || !store_read_all(store, err)) {
        image_store_free(store);
        return NULL;
    }
    mount_find(store->root, &store->mount);
    store_changed(store);
    return store;
}

void image_store_start(struct image_store *store)
{
    struct status err;

    store->started = true;
    for (LIST_EACH_SAFE(struct image, i, &store->records, link)) {
        struct record *r = store_record_of(i);
        if (r->listed || r->holds > 0)
            continue;
        if (!store_unlink(store, r, &err))
            log_warn("%s", err.message);
        store_forget(store, r);
    }
    store_changed(store);
    sweep_want(store, true);
}

void image_store_free(struct image_store *store)
{
    if (store == NULL)
        return;
    store->jobs_max = 0; /* those that wait must not start now */
    while (!list_empty(&store->jobs))
        job_cancel(CONTAINER_OF(store->jobs.next, struct job, link));
    sweep_stop(store); /* a cancelled job wants what it left swept */
    for (LIST_EACH_SAFE(struct store_hold, h, &store->holds, link)) {
        list_remove(&h->link);
        free(h->owner);
        free(h);
    }
    for (LIST_EACH_SAFE(struct image, i, &store->records, link)) {
        list_remove(&i->link);
        record_free(store_record_of(i));
    }
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    free(store->doomed);
    free(store->root);
    free(store);
}

/* ---- what is there ---- */

/* `min`: digits that an id must have at least, so that a short name that happens to be hexadecimal is no id. */
static struct record *store_by_prefix(const struct image_store *store, const char *hex, size_t min)
{
    struct record *found = NULL;
    size_t n = strlen(hex);

    if (n < min)
        return NULL;
    for (STORE_EACH(r, store)) {
        if (!r->listed || strncmp(r->image.id + strlen("sha256:"), hex, n) != 0)
            continue;
        if (found != NULL)
            return NULL;
        found = r;
    }
    return found;
}

static struct record *store_by_name(const struct image_store *store, const char *name)
{
    for (STORE_EACH(r, store))
        if (r->listed && (record_has(r->image.tags, r->image.tag_count, name) ||
                          record_has(r->image.digests, r->image.digest_count, name)))
            return r;
    return NULL;
}

static struct record *store_find(const struct image_store *store, const char *text, size_t min)
{
    struct reference reference;
    struct status ignored;
    char full[REFERENCE_TEXT_SIZE];
    struct record *r;

    if (text[0] == '\0')
        return NULL;
    if (str_starts(text, "sha256:"))
        return store_by_prefix(store, text + strlen("sha256:"), min);
    if (reference_parse(text, &reference, &ignored)) {
        reference_text(&reference, full);
        r = store_by_name(store, full);
        if (r != NULL)
            return r;
    }
    return strspn(text, "0123456789abcdef") == strlen(text) ? store_by_prefix(store, text, min) : NULL;
}

const struct image *image_store_find(struct image_store *store, const char *text)
{
    struct record *r = store_find(store, text, IMAGE_ID_DIGITS_MIN);

    return r == NULL ? NULL : &r->image;
}

const struct image *image_store_next(struct image_store *store, const struct image *previous)
{
    struct list *l = previous == NULL ? store->records.next : previous->link.next;

    for (; l != &store->records; l = l->next) {
        struct image *i = CONTAINER_OF(l, struct image, link);
        if (store_record_of(i)->listed)
            return i;
    }
    return NULL;
}

size_t image_store_count(const struct image_store *store)
{
    return store->listed;
}

uint64_t image_store_generation(const struct image_store *store)
{
    return store->generation;
}

bool image_store_read_config_text(struct image_store *store, const struct image *image, struct buf *out, struct status *err)
{
    cleanup_free char *path = image_store_blob_path(store, &image->config);
    size_t before = out->n;

    if (!file_read(path, IMAGE_CONFIG_SIZE_MAX, out, err))
        return false;
    struct digest d = digest_of(out->p + before, out->n - before);
    if (digest_equal(&d, &image->config))
        return true;
    out->n = before;
    return status_set(err, STATUS_DATA_LOSS, "the image configuration %s is damaged: remove the image and pull it again", path);
}

/* ---- putting in ---- */

/* Names that point to something else by now. The record that gets them is written first (store_settle_names). */
static void store_take_names(struct image_store *store, const struct record *winner)
{
    struct status err;

    for (STORE_EACH(r, store)) {
        bool lost = false;
        if (r == winner)
            continue;
        for (size_t i = 0; i < winner->image.tag_count; i++)
            lost |= record_drop(r->image.tags, &r->image.tag_count, winner->image.tags[i]);
        for (size_t i = 0; i < winner->image.digest_count; i++)
            lost |= record_drop(r->image.digests, &r->image.digest_count, winner->image.digests[i]);
        if (lost && !store_write(store, r, &err))
            log_warn("%s", err.message);
    }
}

/* The same image again: under another name, or with its layers compressed in another way. Old names go first, in the order
 * they came. */
static void store_merge(const struct record *old, struct record *proposal)
{
    struct image *to = &proposal->image;
    char **tags = to->tags, **digests = to->digests;
    size_t tag_count = to->tag_count, digest_count = to->digest_count;

    proposal->created_ns = old->created_ns;
    to->tags = to->digests = NULL;
    to->tag_count = to->digest_count = 0;
    for (size_t i = 0; i < old->image.tag_count; i++)
        record_add(&to->tags, &to->tag_count, old->image.tags[i]);
    for (size_t i = 0; i < old->image.digest_count; i++)
        record_add(&to->digests, &to->digest_count, old->image.digests[i]);
    for (size_t i = 0; i < tag_count; i++) {
        record_add(&to->tags, &to->tag_count, tags[i]);
        free(tags[i]);
    }
    for (size_t i = 0; i < digest_count; i++) {
        record_add(&to->digests, &to->digest_count, digests[i]);
        free(digests[i]);
    }
    free(tags);
    free(digests);
    /* An image that is given a thousand names is a mistake somewhere: the oldest go. */
    while (to->tag_count > IMAGE_NAMES_MAX)
        record_drop(to->tags, &to->tag_count, to->tags[0]);
    while (to->digest_count > IMAGE_NAMES_MAX)
        record_drop(to->digests, &to->digest_count, to->digests[0]);
}

const struct record *store_commit(struct image_store *store, struct record *proposal, struct status *err)
{
    struct record *old = store_by_id(store, proposal->image.id);

    proposal->listed = true;
    proposal->created_ns = clock_real_ns();
    if (old != NULL && old->listed)
        store_merge(old, proposal);
    if (!store_write(store, proposal, err)) {
        record_free(proposal);
        status_prefix(err, "the image is complete, but its record cannot be written");
        return NULL;
    }
    store_insert(store, proposal);
    if (old != NULL) {
        proposal->holds = old->holds;
        for (LIST_EACH(struct store_hold, h, &store->holds, link))
            if (h->record == old)
                h->record = proposal;
        store_forget(store, old); /* its blobs may be others than the new one's */
    }
    store_take_names(store, proposal);
    store_changed(store);
    return proposal;
}

/* ---- removing and holding ---- */

bool image_store_remove(struct image_store *store, const char *text, struct status *err)
{
    struct record *r = store_find(store, text, 64);

    if (r == NULL)
        return true;
    if (r->holds > 0) {
        /* It stays for those who use it, without a name. */
        r->listed = false;
        if (!store_write(store, r, err)) {
            r->listed = true;
            return false;
        }
        store_drop_names(r);
        store_changed(store);
        return true;
    }
    if (!store_unlink(store, r, err))
        return false;
    store_forget(store, r);
    store_changed(store);
    return true;
}

const struct image *image_store_held(struct image_store *store, const char *image_id)
{
    struct record *r = store_by_id(store, image_id);

    return r == NULL ? NULL : &r->image;
}

bool image_store_hold(struct image_store *store, const char *image_id, const char *owner, struct status *err)
{
    struct record *r = store_by_id(store, image_id);

    if (r == NULL)
        return status_set(err, STATUS_NOT_FOUND, "there is no image %.80s on this machine", image_id);
    for (LIST_EACH(struct store_hold, h, &store->holds, link))
        if (h->record == r && strcmp(h->owner, owner) == 0)
            return true;
    struct store_hold *h = xcalloc(1, sizeof *h);
    h->record = r;
    h->owner = xstrdup(owner);
    list_append(&store->holds, &h->link);
    r->holds++;
    return true;
}

void image_store_release(struct image_store *store, const char *owner)
{
    struct status err;

    for (LIST_EACH_SAFE(struct store_hold, h, &store->holds, link)) {
        struct record *r = h->record;
        if (strcmp(h->owner, owner) != 0)
            continue;
        list_remove(&h->link);
        free(h->owner);
        free(h);
        if (--r->holds > 0 || r->listed)
            continue;
        if (!store_unlink(store, r, &err))
            log_warn("%s", err.message);
        store_forget(store, r);
        store_changed(store);
    }
}

#undef STORE_EACH
