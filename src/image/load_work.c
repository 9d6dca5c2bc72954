/* SPDX-License-Identifier: Apache-2.0 */
#include "image/load_work.h"

#include "image/assemble.h"
#include "image/load_source.h"
#include "image/reference.h"
#include "image/store_internal.h"
#include "text/json.h"

struct loading {
    struct job_channel *channel;
    const struct load_request *request;
    struct loop *loop;
    struct load_source source;
    size_t loaded, passed_over;
    struct status assembled; /* of the image at work */
};

/* One image, from wherever its names and files came. */
struct load_image {
    struct buf config;
    const struct descriptor *layers;
    const char *const *files; /* a file name for each layer */
    size_t layer_count;
    uint64_t manifests_size;
    const char *tags[IMAGE_NAMES_MAX];
    size_t tag_count;
    char digest[REFERENCE_TEXT_SIZE];
};

static void load_on_assembled(void *arg, const struct status *err)
{
    struct loading *l = arg;

    l->assembled = (struct status)STATUS_INIT;
    if (err != NULL)
        l->assembled = *err;
    loop_stop(l->loop);
}

static bool load_place_layers(struct loading *l, const struct load_image *image, struct assembly *a, struct status *err)
{
    for (size_t i = 0; i < image->layer_count; i++) {
        cleanup_free char *path = image_store_blob_path(l->channel->store, &image->layers[i].digest);
        if (!load_source_place(&l->source, image->files[i], &image->layers[i].digest, path, err))
            return false;
        assembly_blob_ready(a, i);
        loop_turn(l->loop, 0); /* unpacking begins meanwhile */
    }
    return true;
}

static bool load_one(struct loading *l, const struct load_image *image, struct status *err)
{
    const struct assembly_names names = { image->tags, image->tag_count, image->digest, NULL, 0 };
    struct assembly *a = assembly_new(&(struct assembly_options){
        .loop = l->loop,
        .channel = l->channel,
        .config = { (const char *)image->config.p, image->config.n },
        .layers = image->layers,
        .layer_count = image->layer_count,
        .manifests_size = image->manifests_size,
        .on_done = load_on_assembled,
        .arg = l,
    }, err);
    if (a == NULL)
        return false;
    l->assembled.code = STATUS_UNKNOWN; /* no word yet */
    bool ok = load_place_layers(l, image, a, err);
    if (ok && l->assembled.code == STATUS_UNKNOWN)
        loop_run(l->loop);
    if (ok && l->assembled.code != STATUS_OK) {
        *err = l->assembled;
        ok = false;
    }
    ok = ok && assembly_report(a, &names, err);
    assembly_free(a);
    l->loaded += ok;
    return ok;
}

/* ---- names ---- */

/* A tag's full name on the arena; NULL when the text is no tag's reference. */
static const char *load_full_name(struct loading *l, const char *text)
{
    struct reference r;
    struct status ignored;
    char full[REFERENCE_TEXT_SIZE];

    if (!reference_parse(text, &r, &ignored) || r.tag[0] == '\0')
        return NULL;
    reference_text(&r, full);
    return arena_strdup(&l->source.arena, full);
}

/* "org.opencontainers.image.ref.name" is a whole name to some tools and a tag to others. */
static const char *load_annotated_name(struct loading *l, const struct descriptor *d)
{
    const char *base = l->request->base_name, *ref = d->ref_name;

    if (d->name[0] != '\0' && load_full_name(l, d->name) != NULL)
        return load_full_name(l, d->name);
    if (strpbrk(ref, "/:") != NULL)
        return load_full_name(l, ref);
    if (base[0] == '\0')
        return NULL;
    return load_full_name(l, ref[0] == '\0' ? base : arena_printf(&l->source.arena, "%s:%s", base, ref));
}

/* ---- OCI layouts ---- */

static bool load_oci_read(struct loading *l, const struct descriptor *d, size_t max, struct buf *out, struct status *err)
{
    char hex[DIGEST_HEX_SIZE], name[DIGEST_HEX_SIZE + 16];

    digest_hex(&d->digest, hex);
    snprintf(name, sizeof name, "blobs/sha256/%s", hex);
    if (!load_source_read(&l->source, name, max, out, err))
        return false;
    struct digest got = digest_of(out->p, out->n);
    return digest_equal(&got, &d->digest) ||
           status_set(err, STATUS_DATA_LOSS, "%s: '%s' is damaged: its digest is another", l->source.path, name);
}

static bool load_oci_image(struct loading *l, const struct descriptor *top, const struct manifest *m, uint64_t manifests_size,
                           struct status *err)
{
    struct load_image image = { .layers = m->layers, .layer_count = m->layer_count, .manifests_size = manifests_size };
    const char **files = ARENA_ARRAY(&l->source.arena, const char *, m->layer_count + 1);
    const char *name = load_annotated_name(l, top);
    char hex[DIGEST_HEX_SIZE], digest[DIGEST_TEXT_SIZE];

    for (size_t i = 0; i < m->layer_count; i++) {
        digest_hex(&m->layers[i].digest, hex);
        files[i] = arena_printf(&l->source.arena, "blobs/sha256/%s", hex);
    }
    image.files = files;
    if (name != NULL) {
        struct reference r;
        char base[REFERENCE_TEXT_SIZE];
        image.tags[image.tag_count++] = name;
        if (!reference_parse(name, &r, err))
            return false;
        reference_name(&r, base);
        digest_text(&top->digest, digest);
        snprintf(image.digest, sizeof image.digest, "%.*s@%s", 2 * REFERENCE_NAME_MAX + 1, base, digest);
    }
    bool ok = load_oci_read(l, &m->config, IMAGE_CONFIG_SIZE_MAX, &image.config, err) && load_one(l, &image, err);
    buf_free(&image.config);
    return ok;
}

/* `top`: the entry that has the names; `d`: what to read now, the same or something it leads to. */
static bool load_oci_entry(struct loading *l, const struct descriptor *top, const struct descriptor *d, uint64_t manifests_size,
                           unsigned depth, struct status *err)
{
    struct buf cleanup_buf text = BUF_INIT;
    struct manifest m;
    bool ok;

    if (depth > IMAGE_INDEX_DEPTH_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: its indexes are nested more than %d deep", l->source.path,
                          IMAGE_INDEX_DEPTH_MAX);
    if (!load_oci_read(l, d, IMAGE_MANIFEST_SIZE_MAX, &text, err))
        return false;
    if (!manifest_parse((struct str){ (const char *)text.p, text.n }, d->media_type, &m, err)) {
        if (err->code != STATUS_FAILED_PRECONDITION)
            return status_prefix(err, "%s", l->source.path);
        log_info("%s: an entry is passed over: %s", l->source.path, err->message);
        l->passed_over++;
        return true;
    }
    if (m.is_index) {
        const struct descriptor *chosen = manifest_choose(&m, &l->request->platform, err);
        ok = chosen != NULL && load_oci_entry(l, top, chosen, manifests_size + text.n, depth + 1, err);
    } else {
        ok = load_oci_image(l, top, &m, manifests_size + text.n, err);
    }
    manifest_free(&m);
    return ok;
}

/* One image for several platforms may be listed here directly: of those with a platform only the fitting ones are meant. */
static bool load_oci_wanted(const struct loading *l, const struct descriptor *d)
{
    struct manifest one = { .is_index = true, .manifests = (struct descriptor *)(uintptr_t)d, .manifest_count = 1 };
    struct status ignored;

    return !d->has_platform || d->platform.os[0] == '\0' || manifest_choose(&one, &l->request->platform, &ignored) != NULL;
}

static bool load_oci(struct loading *l, struct status *err)
{
    struct buf cleanup_buf text = BUF_INIT;
    struct manifest index;
    bool ok = true;

    if (!load_source_read(&l->source, "index.json", IMAGE_MANIFEST_SIZE_MAX, &text, err))
        return false;
    if (!manifest_parse((struct str){ (const char *)text.p, text.n }, "application/vnd.oci.image.index.v1+json", &index, err))
        return status_prefix(err, "%s: index.json", l->source.path);
    for (size_t i = 0; ok && i < index.manifest_count; i++) {
        if (load_oci_wanted(l, &index.manifests[i]))
            ok = load_oci_entry(l, &index.manifests[i], &index.manifests[i], 0, 0, err);
        else
            l->passed_over++;
    }
    manifest_free(&index);
    return ok;
}

/* ---- docker save ---- */

/* For those who get the blob from us; unpacking looks for itself. */
static const char *load_docker_media_type(struct loading *l, const char *file)
{
    uint8_t head[2] = { 0 };

    load_source_peek(&l->source, file, head, sizeof head);
    return head[0] == 0x1f && head[1] == 0x8b ? "application/vnd.docker.image.rootfs.diff.tar.gzip"
                                              : "application/vnd.docker.image.rootfs.diff.tar";
}

static bool load_docker_layers(struct loading *l, const struct json *list, struct load_image *image, struct status *err)
{
    size_t count = list == NULL ? 0 : list->count;
    struct descriptor *layers = ARENA_ARRAY(&l->source.arena, struct descriptor, count + 1);
    const char **files = ARENA_ARRAY(&l->source.arena, const char *, count + 1);

    if (count > IMAGE_LAYERS_MAX)
        return json_fail(list, err, "more than %d layers", IMAGE_LAYERS_MAX);
    for (JSON_EACH(item, list)) {
        const char *file;
        struct descriptor *d = &layers[image->layer_count];
        if (!json_as_string(item, &file, err) || !load_source_digest(&l->source, file, &d->digest, &d->size, err))
            return false;
        d->media_type = load_docker_media_type(l, file);
        files[image->layer_count++] = arena_strdup(&l->source.arena, file);
    }
    image->layers = layers;
    image->files = files;
    return true;
}

static bool load_docker_image(struct loading *l, const struct json *j, struct status *err)
{
    struct load_image image = { .layer_count = 0 };
    const struct json *tags = NULL, *layers = NULL;
    const char *config = "";

    if (!json_want(j, JSON_OBJECT, err) || !json_read_string(j, "Config", &config, err) ||
        !json_read_node(j, "RepoTags", JSON_ARRAY, &tags, err) || !json_read_node(j, "Layers", JSON_ARRAY, &layers, err))
        return false;
    for (JSON_EACH(item, tags)) {
        const char *full = load_full_name(l, json_string(item, ""));
        if (full != NULL && image.tag_count < IMAGE_NAMES_MAX)
            image.tags[image.tag_count++] = full;
    }
    if (image.tag_count == 0 && l->request->base_name[0] != '\0' && load_full_name(l, l->request->base_name) != NULL)
        image.tags[image.tag_count++] = load_full_name(l, l->request->base_name);
    bool ok = load_docker_layers(l, layers, &image, err) &&
              load_source_read(&l->source, config, IMAGE_CONFIG_SIZE_MAX, &image.config, err) && load_one(l, &image, err);
    buf_free(&image.config);
    return ok;
}

static bool load_docker(struct loading *l, struct status *err)
{
    struct buf cleanup_buf text = BUF_INIT;
    struct arena cleanup_arena scratch = ARENA_INIT;

    if (!load_source_read(&l->source, "manifest.json", IMAGE_MANIFEST_SIZE_MAX, &text, err))
        return false;
    const struct json *root = json_parse(&scratch, (struct str){ (const char *)text.p, text.n }, err);
    if (root == NULL || !json_want(root, JSON_ARRAY, err))
        return status_prefix(err, "%s: manifest.json", l->source.path);
    for (JSON_EACH(item, root))
        if (!load_docker_image(l, item, err))
            return status_prefix(err, "%s", l->source.path);
    return true;
}

/* ---- the whole ---- */

static bool load_all(struct loading *l, struct status *err)
{
    bool ok;

    if (load_source_has(&l->source, "index.json"))
        ok = load_oci(l, err);
    else if (load_source_has(&l->source, "manifest.json"))
        ok = load_docker(l, err);
    else
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s holds neither an OCI layout (index.json) nor what 'docker save' "
                                                        "writes (manifest.json)", l->source.path);
    if (ok && l->loaded == 0)
        return status_set(err, STATUS_NOT_FOUND, "%s holds no image for this platform (%zu entries were passed over)",
                          l->source.path, l->passed_over);
    return ok;
}

bool load_work(struct job_channel *channel, void *work_arg, struct status *err)
{
    struct loading l = { .channel = channel, .request = work_arg };
    cleanup_free char *ingest = xasprintf("%s/ingest", image_store_root(channel->store));

    l.loop = loop_new(err);
    if (l.loop == NULL || !child_reaper_start(l.loop, NULL, NULL, err))
        return false;
    /* Nothing is needed yet, but ingest/ must not be swept from now on. */
    if (!job_need(channel, &(struct digest){ { 0 } }, 0, err))
        return false;
    if (!load_source_open(&l.source, l.request->path, ingest, channel->store->layer_bytes_max, err))
        return false;
    bool ok = load_all(&l, err);
    load_source_close(&l.source);
    return ok;
}
