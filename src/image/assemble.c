/* SPDX-License-Identifier: Apache-2.0 */
#include "image/assemble.h"

#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/fetch.h"
#include "image/store_internal.h"
#include "image/unpack.h"
#include "io/file.h"
#include "io/userns.h"

/* How often a layer that another job unpacks is looked at. */
#define ASSEMBLY_WAIT_MS 50

enum assembly_state { LAYER_NO_BLOB, LAYER_READY, LAYER_LOCKED_OUT, LAYER_UNPACKING, LAYER_UNPACKED };

struct assembly_layer {
    struct assembly *assembly;
    enum assembly_state state;
    struct descriptor blob; /* media_type owned by the arena */
    struct digest diff_id;
    char *blob_path, *path, *lock_path; /* owned */
    int lock_fd;
    struct worker worker;
};

struct assembly {
    struct assembly_options options;
    struct arena arena;
    struct digest config_digest;
    struct image_config config;
    struct assembly_layer *layers; /* owned */
    size_t unpacking, unpacked;
    struct timer timer;
    struct deferred step;
    bool ended;
};

static void assembly_step(void *arg);

/* ---- making ---- */

static bool assembly_check(struct assembly *a, struct status *err)
{
    const struct image_config *c = &a->config;

    if (c->os[0] != '\0' && strcmp(c->os, "linux") != 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "it is an image for %.40s, not for Linux", c->os);
    if (c->diff_id_count != a->options.layer_count)
        return status_set(err, STATUS_INVALID_ARGUMENT, "its manifest has %zu layers, but its configuration %zu",
                          a->options.layer_count, c->diff_id_count);
    for (size_t i = 0; i < a->options.layer_count; i++)
        for (size_t k = 0; k < i; k++)
            if (digest_equal(&a->options.layers[i].digest, &a->options.layers[k].digest) &&
                !digest_equal(&c->diff_ids[i], &c->diff_ids[k]))
                return status_set(err, STATUS_INVALID_ARGUMENT, "its configuration gives one layer two different digests");
    return true;
}

static void assembly_make_layers(struct assembly *a)
{
    const struct image_store *store = a->options.channel->store;
    char hex[DIGEST_HEX_SIZE];

    a->layers = xcalloc(a->options.layer_count + 1, sizeof *a->layers);
    for (size_t i = 0; i < a->options.layer_count; i++) {
        struct assembly_layer *l = &a->layers[i];
        l->assembly = a;
        l->blob = a->options.layers[i];
        l->blob.media_type = arena_strdup(&a->arena, l->blob.media_type);
        l->diff_id = a->config.diff_ids[i];
        l->blob_path = image_store_blob_path(store, &l->blob.digest);
        l->path = image_store_layer_path(store, &l->diff_id);
        digest_hex(&l->diff_id, hex);
        char *name = xasprintf("layer-%s.lock", hex);
        l->lock_path = store_path(store, "ingest", name);
        free(name);
        l->lock_fd = -1;
    }
}

static bool assembly_ask(struct assembly *a, struct status *err)
{
    size_t count = 0;
    struct digest *needs = ARENA_ARRAY(&a->arena, struct digest, 1 + 2 * a->options.layer_count);

    needs[count++] = a->config_digest;
    for (size_t i = 0; i < a->options.layer_count; i++) {
        needs[count++] = a->layers[i].blob.digest;
        needs[count++] = a->layers[i].diff_id;
    }
    return job_need(a->options.channel, needs, count, err);
}

/* Under a name of our own first: another job may be at the same image. */
static bool assembly_write_config(struct assembly *a, struct str text, struct status *err)
{
    const struct image_store *store = a->options.channel->store;
    cleanup_free char *path = image_store_blob_path(store, &a->config_digest);
    uint8_t dice[8];
    char name[2 * sizeof dice + 1];

    if (access(path, F_OK) == 0)
        return true;
    random_bytes(dice, sizeof dice);
    hex_encode(dice, sizeof dice, name);
    cleanup_free char *part = store_path(store, "ingest", name);
    return file_replace(part, text.p, text.n, 0600, err) &&
           (rename(part, path) == 0 || status_errno(err, "cannot put %s in place", path));
}

struct assembly *assembly_new(const struct assembly_options *options, struct status *err)
{
    struct assembly *a = xcalloc(1, sizeof *a);
    struct str text = options->config;

    a->options = *options;
    a->config_digest = digest_of(text.p, text.n);
    if (!image_config_parse(text, &a->config, err)) {
        free(a);
        return NULL;
    }
    bool ok = assembly_check(a, err);
    if (ok)
        assembly_make_layers(a);
    if (ok && assembly_ask(a, err) && assembly_write_config(a, text, err)) {
        deferred_start(options->loop, &a->step, assembly_step, a); /* there may be no layers at all */
        return a;
    }
    assembly_free(a);
    return NULL;
}

static void assembly_unlock(struct assembly_layer *l)
{
    if (l->lock_fd < 0)
        return;
    unlink(l->lock_path);
    flock(l->lock_fd, LOCK_UN);
    close(l->lock_fd);
    l->lock_fd = -1;
}

void assembly_free(struct assembly *a)
{
    if (a == NULL)
        return;
    timer_stop(&a->timer);
    deferred_stop(&a->step);
    for (size_t i = 0; a->layers != NULL && i < a->options.layer_count; i++) {
        worker_cancel(&a->layers[i].worker);
        assembly_unlock(&a->layers[i]);
        free(a->layers[i].blob_path);
        free(a->layers[i].path);
        free(a->layers[i].lock_path);
    }
    free(a->layers);
    image_config_free(&a->config);
    arena_free(&a->arena);
    free(a);
}

/* ---- unpacking ---- */

static void assembly_end(struct assembly *a, const struct status *err)
{
    if (a->ended)
        return;
    a->ended = true;
    a->options.on_done(a->options.arg, err);
}

/* In a process of its own. */
static bool assembly_unpack(void *arg, struct buf *output, struct status *err)
{
    struct assembly_layer *l = arg;
    const struct image_store *store = l->assembly->options.channel->store;
    const struct unpack_limits limits = { store->layer_bytes_max, store->layer_entries_max, IMAGE_LAYER_RATIO_MAX };
    static const struct digest verified; /* the blob was, when it came; what happens to it later shows in the diff id */
    struct unpacked out;

    (void)output;
    /* With other ids, where this user was given some: the owners of files are then as in the archive. */
    struct status why;
    if (geteuid() != 0 && !subid_enter(&why))
        log_debug("layer %s: all its files are this user's: %s", strrchr(l->path, '/') + 1, why.message);
#if !defined(__SANITIZE_ADDRESS__)
    const struct rlimit memory = { IMAGE_UNPACK_MEMORY_MAX, IMAGE_UNPACK_MEMORY_MAX };
    setrlimit(RLIMIT_AS, &memory);
#endif
    if (unpack_layer(l->blob_path, &verified, &l->diff_id, l->path, &limits, &out, err)) {
        if (out.devices_skipped > 0 || out.xattrs_skipped > 0 || out.owners_skipped > 0)
            log_info("layer %s: %" PRIu64 " devices, %" PRIu64 " attributes and %" PRIu64 " owners could not be made by this user",
                     strrchr(l->path, '/') + 1, out.devices_skipped, out.xattrs_skipped, out.owners_skipped);
        return true;
    }
    char digest[DIGEST_TEXT_SIZE];
    digest_text(&l->blob.digest, digest);
    return status_prefix(err, "layer %s", digest);
}

static void assembly_on_unpacked(void *arg, const struct status *err, struct buf *output)
{
    struct assembly_layer *l = arg;
    struct assembly *a = l->assembly;

    (void)output;
    assembly_unlock(l);
    a->unpacking--;
    if (err != NULL) {
        assembly_end(a, err);
        return;
    }
    l->state = LAYER_UNPACKED;
    assembly_step(a);
}

/* Whole, with what is known of it. Half of it (a folder whose description was lost) is unpacked again. */
static bool assembly_is_unpacked(struct assembly_layer *l)
{
    struct unpacked info;
    struct status ignored;

    if (access(l->path, F_OK) < 0)
        return false;
    return unpack_layer_info(l->path, &info, &ignored) || !subid_tree_remove(l->path, &ignored);
}

/* *later: another job has it in hands. */
static bool assembly_try(struct assembly_layer *l, bool *later, struct status *err)
{
    struct assembly *a = l->assembly;
    bool none;

    if (assembly_is_unpacked(l)) {
        l->state = LAYER_UNPACKED;
        return true;
    }
    l->lock_fd = fetch_lock(l->lock_path, &none);
    if (l->lock_fd < 0 && !none && errno == EWOULDBLOCK) {
        l->state = LAYER_LOCKED_OUT;
        *later = true;
        return true;
    }
    if (l->lock_fd < 0 && !none)
        return status_errno(err, "cannot open %s", l->lock_path);
    if (assembly_is_unpacked(l)) {
        assembly_unlock(l);
        l->state = LAYER_UNPACKED;
        return true;
    }
    if (!worker_start(a->options.loop, &l->worker, assembly_unpack, l, assembly_on_unpacked, l, err))
        return false;
    l->state = LAYER_UNPACKING;
    a->unpacking++;
    return true;
}

/* The same layer may be in one image twice: the second waits for the first. */
static bool assembly_is_at_work(const struct assembly *a, const struct assembly_layer *l)
{
    for (size_t i = 0; i < a->options.layer_count; i++)
        if (a->layers[i].state == LAYER_UNPACKING && digest_equal(&a->layers[i].diff_id, &l->diff_id))
            return true;
    return false;
}

static void assembly_step(void *arg)
{
    struct assembly *a = arg;
    struct status err = STATUS_INIT;
    bool later = false;
    size_t done = 0;

    for (size_t i = 0; i < a->options.layer_count; i++) {
        struct assembly_layer *l = &a->layers[i];
        bool wants = l->state == LAYER_READY || l->state == LAYER_LOCKED_OUT;
        if (wants && a->unpacking < IMAGE_UNPACKS_MAX && !assembly_is_at_work(a, l) && !assembly_try(l, &later, &err)) {
            assembly_end(a, &err);
            return;
        }
        done += l->state == LAYER_UNPACKED;
    }
    if (later)
        timer_start(a->options.loop, &a->timer, ASSEMBLY_WAIT_MS, assembly_step, a);
    if (done == a->options.layer_count)
        assembly_end(a, NULL);
}

void assembly_blob_ready(struct assembly *a, size_t layer)
{
    if (a->layers[layer].state == LAYER_NO_BLOB)
        a->layers[layer].state = LAYER_READY;
    deferred_start(a->options.loop, &a->step, assembly_step, a);
}

/* ---- reporting ---- */

static bool assembly_fill_layer(const struct assembly_layer *l, struct image_layer *layer, struct record_cost *cost,
                                struct status *err)
{
    struct unpacked info;
    struct stat st;

    if (stat(l->blob_path, &st) < 0)
        return status_errno(err, "cannot look at %s", l->blob_path);
    if (!unpack_layer_info(l->path, &info, err))
        return false;
    *layer = (struct image_layer){ .diff_id = l->diff_id, .blob = l->blob.digest, .size = l->blob.size,
                                   .media_type = xstrdup(l->blob.media_type) };
    *cost = (struct record_cost){ .blob_bytes = (uint64_t)st.st_blocks * 512, .bytes = info.bytes, .inodes = info.inodes };
    return true;
}

bool assembly_report(struct assembly *a, const struct assembly_names *names, struct status *err)
{
    struct record *r = xcalloc(1, sizeof *r);
    struct image *i = &r->image;
    bool ok = true;

    i->config = a->config_digest;
    digest_text(&i->config, i->id);
    i->config_size = a->options.config.n;
    i->size = a->options.manifests_size + a->options.config.n;
    image_user_parse(a->config.user, &i->user);
    for (size_t k = 0; k < names->tag_count; k++)
        record_add(&i->tags, &i->tag_count, names->tags[k]);
    if (names->digest[0] != '\0')
        record_add(&i->digests, &i->digest_count, names->digest);
    i->annotations = xcalloc(2 * names->annotation_count + 1, sizeof *i->annotations);
    for (size_t k = 0; k < 2 * names->annotation_count; k++)
        i->annotations[k] = xstrdup(names->annotations[k]);
    i->annotation_count = names->annotation_count;
    i->layers = xcalloc(a->options.layer_count + 1, sizeof *i->layers);
    r->costs = xcalloc(a->options.layer_count + 1, sizeof *r->costs);
    for (size_t k = 0; ok && k < a->options.layer_count; k++) {
        ok = assembly_fill_layer(&a->layers[k], &i->layers[k], &r->costs[k], err);
        i->layer_count += ok;
        i->size += a->layers[k].blob.size;
    }
    r->listed = true;
    ok = ok && job_image(a->options.channel, r, err);
    record_free(r);
    return ok;
}

#undef ASSEMBLY_WAIT_MS
