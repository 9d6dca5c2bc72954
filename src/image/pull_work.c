/* SPDX-License-Identifier: Apache-2.0 */
#include "image/pull_work.h"

#include <string.h>

#include "image/assemble.h"
#include "image/fetch.h"
#include "image/registry.h"
#include "image/store_internal.h"

struct pull_layer {
    struct pull *pull;
    struct fetch fetch;
    bool started, done;
    size_t same_as; /* an earlier layer with the same blob; itself otherwise */
};

/* One pull, in its child. */
struct pull {
    struct job_channel *channel;
    const struct pull_request *request;
    struct loop *loop;
    struct registry *registry;
    struct status err;
    bool ok;

    /* Resolving */
    char tag[REFERENCE_TEXT_SIZE], digest[REFERENCE_TEXT_SIZE]; /* the names it will have */
    uint64_t manifests_size;
    unsigned depth;
    struct manifest index, manifest;
    struct buf config; /* its text */

    /* Fetching */
    struct assembly *assembly;
    struct pull_layer *layers;
    size_t fetching;
    struct timer progress_timer;
    struct image_progress *progress, *told;
};

static void pull_fail(struct pull *p, const struct status *err)
{
    if (p->err.code == STATUS_OK)
        p->err = *err;
    loop_stop(p->loop);
}

/* ---- fetching ---- */

static void pull_report_progress(void *arg)
{
    struct pull *p = arg;
    size_t count = p->manifest.layer_count;

    for (size_t i = 0; i < count; i++) {
        const struct pull_layer *l = &p->layers[i];
        const struct pull_layer *same = &p->layers[l->same_as];
        p->progress[i] = (struct image_progress){ p->manifest.layers[i].digest,
                                                  same->done ? p->manifest.layers[i].size : same->fetch.position,
                                                  p->manifest.layers[i].size };
    }
    if (count > 0 && memcmp(p->progress, p->told, count * sizeof *p->progress) != 0) {
        job_progress(p->channel, p->progress, count);
        memcpy(p->told, p->progress, count * sizeof *p->progress);
    }
    timer_start(p->loop, &p->progress_timer, IMAGE_PROGRESS_MS, pull_report_progress, p);
}

static void pull_fetch_more(struct pull *p);

static void pull_on_blob(void *arg, const struct status *err)
{
    struct pull_layer *l = arg;
    struct pull *p = l->pull;
    size_t index = (size_t)(l - p->layers);

    if (err != NULL) {
        pull_fail(p, err);
        return;
    }
    l->done = true;
    p->fetching--;
    for (size_t i = index; i < p->manifest.layer_count; i++)
        if (p->layers[i].same_as == index)
            assembly_blob_ready(p->assembly, i);
    pull_fetch_more(p);
}

/* From the bottom: that is where unpacking begins. */
static void pull_fetch_more(struct pull *p)
{
    for (size_t i = 0; i < p->manifest.layer_count && p->fetching < IMAGE_FETCHES_MAX; i++) {
        struct pull_layer *l = &p->layers[i];
        const struct descriptor *d = &p->manifest.layers[i];
        if (l->started || l->same_as != i)
            continue;
        l->started = true;
        p->fetching++;
        fetch_start(&l->fetch, p->loop, image_store_root(p->channel->store), p->registry, &d->digest, d->size, pull_on_blob, l);
    }
}

static void pull_on_assembled(void *arg, const struct status *err)
{
    struct pull *p = arg;
    struct status failure = STATUS_INIT;

    if (err != NULL) {
        pull_fail(p, err);
        return;
    }
    timer_stop(&p->progress_timer);
    pull_report_progress(p);
    const char *tags[] = { p->tag };
    const struct assembly_names names = { tags, p->tag[0] != '\0', p->digest, p->request->annotations,
                                          p->request->annotation_count };
    if (!assembly_report(p->assembly, &names, &failure)) {
        pull_fail(p, &failure);
        return;
    }
    p->ok = true;
    loop_stop(p->loop);
}

static void pull_start_fetching(struct pull *p)
{
    size_t count = p->manifest.layer_count;
    struct status err = STATUS_INIT;

    p->assembly = assembly_new(&(struct assembly_options){
        .loop = p->loop,
        .channel = p->channel,
        .config = { (const char *)p->config.p, p->config.n },
        .layers = p->manifest.layers,
        .layer_count = count,
        .manifests_size = p->manifests_size,
        .on_done = pull_on_assembled,
        .arg = p,
    }, &err);
    if (p->assembly == NULL) {
        pull_fail(p, &err);
        return;
    }
    p->layers = xcalloc(count + 1, sizeof *p->layers);
    p->progress = xcalloc(count + 1, sizeof *p->progress);
    p->told = xcalloc(count + 1, sizeof *p->told);
    for (size_t i = 0; i < count; i++) {
        p->layers[i].pull = p;
        p->layers[i].same_as = i;
        for (size_t k = 0; k < i; k++)
            if (digest_equal(&p->manifest.layers[k].digest, &p->manifest.layers[i].digest)) {
                p->layers[i].same_as = k;
                break;
            }
    }
    pull_report_progress(p);
    pull_fetch_more(p);
}

/* ---- the configuration ---- */

static uint64_t pull_config_offset(void *arg)
{
    const struct pull *p = arg;

    return p->config.n;
}

static bool pull_config_start(void *arg, uint64_t offset, struct status *err)
{
    struct pull *p = arg;

    (void)err;
    p->config.n = (size_t)offset; /* where it stands, or 0 */
    return true;
}

static bool pull_config_body(void *arg, struct str piece, struct status *err)
{
    struct pull *p = arg;

    if (piece.n > p->manifest.config.size - p->config.n)
        return status_set(err, STATUS_DATA_LOSS, "the image's configuration is longer than its manifest says");
    buf_append(&p->config, piece.p, piece.n);
    return true;
}

static bool pull_config_verify(void *arg, struct status *err)
{
    struct pull *p = arg;
    struct digest got = digest_of(p->config.p, p->config.n);
    char text[DIGEST_TEXT_SIZE];

    if (p->config.n == p->manifest.config.size && digest_equal(&got, &p->manifest.config.digest))
        return true;
    digest_text(&p->manifest.config.digest, text);
    buf_clear(&p->config);
    return status_set(err, STATUS_DATA_LOSS, "the image configuration %s that it sent is damaged", text);
}

static void pull_on_config(void *arg, const struct registry_answer *answer, const struct status *err)
{
    struct pull *p = arg;

    if (answer == NULL)
        pull_fail(p, err);
    else
        pull_start_fetching(p);
}

static void pull_get_config(struct pull *p)
{
    char name[DIGEST_TEXT_SIZE];

    digest_text(&p->manifest.config.digest, name);
    registry_call(p->registry, &(struct registry_get){
        .kind = "blobs",
        .name = name,
        .size_max = IMAGE_CONFIG_SIZE_MAX,
        .offset = pull_config_offset,
        .on_start = pull_config_start,
        .on_body = pull_config_body,
        .verify = pull_config_verify,
        .on_done = pull_on_config,
        .arg = p,
    });
}

/* ---- manifests ---- */

static void pull_get_manifest(struct pull *p, const char *name);

static void pull_set_digest_name(struct pull *p, const struct digest *d)
{
    char name[REFERENCE_TEXT_SIZE], text[DIGEST_TEXT_SIZE];

    reference_name(&p->request->reference, name);
    digest_text(d, text);
    snprintf(p->digest, sizeof p->digest, "%.*s@%s", 2 * REFERENCE_NAME_MAX + 1, name, text);
}

static void pull_on_manifest(void *arg, const struct registry_answer *answer, const struct status *err)
{
    struct pull *p = arg;
    struct status failure = STATUS_INIT;
    struct manifest m;

    if (answer == NULL) {
        pull_fail(p, err);
        return;
    }
    if (p->depth == 0)
        pull_set_digest_name(p, &answer->digest);
    p->manifests_size += answer->size;
    if (!manifest_parse(answer->body, answer->content_type, &m, &failure)) {
        pull_fail(p, &failure);
        return;
    }
    if (!m.is_index) {
        p->manifest = m;
        pull_get_config(p);
        return;
    }
    manifest_free(&p->index);
    p->index = m;
    const struct descriptor *d = manifest_choose(&p->index, &p->request->platform, &failure);
    if (d != NULL && ++p->depth > IMAGE_INDEX_DEPTH_MAX) {
        status_set(&failure, STATUS_INVALID_ARGUMENT, "its indexes are nested more than %d deep", IMAGE_INDEX_DEPTH_MAX);
        d = NULL;
    }
    if (d == NULL) {
        pull_fail(p, &failure);
        return;
    }
    char name[DIGEST_TEXT_SIZE];
    digest_text(&d->digest, name);
    pull_get_manifest(p, name);
}

static void pull_get_manifest(struct pull *p, const char *name)
{
    registry_call(p->registry, &(struct registry_get){
        .kind = "manifests",
        .name = name,
        .size_max = IMAGE_MANIFEST_SIZE_MAX,
        .on_done = pull_on_manifest,
        .arg = p,
    });
}

/* ---- an image that is there already ---- */

/* The image that the tag stands for by now is in the store, whole: gives it the name. False: go the long way. */
static bool pull_use_present(struct pull *p)
{
    const struct image *image = image_store_find(p->channel->store, p->digest);
    struct digest needs[1 + 2 * IMAGE_LAYERS_MAX];
    struct buf cleanup_buf text = BUF_INIT;
    struct status err;
    size_t count = 0;

    if (image == NULL)
        return false;
    needs[count++] = image->config;
    for (size_t i = 0; i < image->layer_count; i++) {
        needs[count++] = image->layers[i].blob;
        needs[count++] = image->layers[i].diff_id;
    }
    record_encode(CONTAINER_OF(image, struct record, image), &text);
    struct record *r = record_decode((struct str){ (const char *)text.p, text.n }, &err);
    if (r == NULL)
        return false;
    while (r->image.tag_count > 0)
        record_drop(r->image.tags, &r->image.tag_count, r->image.tags[0]);
    while (r->image.digest_count > 0)
        record_drop(r->image.digests, &r->image.digest_count, r->image.digests[0]);
    record_add(&r->image.tags, &r->image.tag_count, p->tag);
    record_add(&r->image.digests, &r->image.digest_count, p->digest);
    bool ok = job_need(p->channel, needs, count, &err) && store_complete(p->channel->store, r, &err) &&
              job_image(p->channel, r, &err);
    record_free(r);
    return ok;
}

static void pull_on_head(void *arg, const struct registry_answer *answer, const struct status *err)
{
    struct pull *p = arg;

    (void)err;
    if (answer != NULL && !digest_is_zero(&answer->digest)) {
        pull_set_digest_name(p, &answer->digest);
        if (pull_use_present(p)) {
            p->ok = true;
            loop_stop(p->loop);
            return;
        }
    }
    pull_get_manifest(p, p->request->reference.tag);
}

static void pull_resolve(struct pull *p)
{
    const struct reference *ref = &p->request->reference;

    if (ref->tag[0] == '\0') {
        pull_get_manifest(p, ref->digest);
        return;
    }
    reference_text(ref, p->tag);
    /* A name that is known: most likely it still stands for the same, and registries count whole manifests but not this. */
    if (!p->request->platform_given && image_store_find(p->channel->store, p->tag) != NULL)
        registry_call(p->registry, &(struct registry_get){
            .head = true,
            .kind = "manifests",
            .name = ref->tag,
            .size_max = IMAGE_MANIFEST_SIZE_MAX,
            .on_done = pull_on_head,
            .arg = p,
        });
    else
        pull_get_manifest(p, ref->tag);
}

bool pull_work(struct job_channel *channel, void *work_arg, struct status *err)
{
    struct pull p = { .channel = channel, .request = work_arg };
    char name[REFERENCE_TEXT_SIZE];

    reference_text(&p.request->reference, name);
    p.loop = loop_new(err);
    if (p.loop == NULL || !child_reaper_start(p.loop, NULL, NULL, err))
        return false;
    p.registry = registry_new(p.loop, p.request->registries, &p.request->reference, &p.request->auth, err);
    if (p.registry == NULL)
        return status_prefix(err, "cannot pull %.500s", name);
    pull_resolve(&p);
    loop_run(p.loop);
    /* The process ends here: nothing is worth being freed, but what still runs must end before. */
    assembly_free(p.assembly);
    for (size_t i = 0; p.layers != NULL && i < p.manifest.layer_count; i++)
        fetch_stop(&p.layers[i].fetch);
    if (p.ok)
        return true;
    *err = p.err;
    return status_prefix(err, "cannot pull %.500s", name);
}
