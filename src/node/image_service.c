/* SPDX-License-Identifier: Apache-2.0 */
/* runtime.v1.ImageService: the image store, shown as CRI wants it. */
#include "image/image.h"
#include "node/counters.h"
#include "node/node.h"
#include "node/stats.h"
#include "rpc/pb.h"
#include "text/json.h"


/* ---- showing ---- */

static void images_fill(struct arena *arena, const struct image *image, Runtime__V1__Image *out)
{
    runtime__v1__image__init(out);
    out->id = (char *)(uintptr_t)image->id;
    out->n_repo_tags = image->tag_count;
    out->repo_tags = image->tags;
    out->n_repo_digests = image->digest_count;
    out->repo_digests = image->digests;
    out->size = image->size;
    out->pinned = image->pinned;
    if (image->user.has_uid) {
        out->uid = ARENA_NEW(arena, Runtime__V1__Int64Value);
        runtime__v1__int64_value__init(out->uid);
        out->uid->value = image->user.uid;
    } else {
        out->username = (char *)(uintptr_t)image->user.name;
    }
    out->spec = ARENA_NEW(arena, Runtime__V1__ImageSpec);
    runtime__v1__image_spec__init(out->spec);
    out->spec->image = (char *)(uintptr_t)image->id;
    out->spec->n_annotations = image->annotation_count;
    out->spec->annotations = ARENA_ARRAY(arena, Runtime__V1__ImageSpec__AnnotationsEntry *, image->annotation_count);
    for (size_t i = 0; i < image->annotation_count; i++) {
        out->spec->annotations[i] = ARENA_NEW(arena, Runtime__V1__ImageSpec__AnnotationsEntry);
        runtime__v1__image_spec__annotations_entry__init(out->spec->annotations[i]);
        out->spec->annotations[i]->key = image->annotations[2 * i];
        out->spec->annotations[i]->value = image->annotations[2 * i + 1];
    }
}

/* Appends the elements of the list response. */
static void images_encode(struct node *node, struct arena *arena, const Runtime__V1__ImageFilter *filter, struct buf *out)
{
    const char *wanted = filter != NULL && filter->image != NULL ? filter->image->image : "";
    const struct image *only = *wanted != '\0' ? image_store_find(node->images, wanted) : NULL;
    const struct image *image = NULL;

    while ((image = image_store_next(node->images, image)) != NULL) {
        Runtime__V1__Image item;
        if (*wanted != '\0' && image != only)
            continue;
        images_fill(arena, image, &item);
        pb_encode_item(&item.base, out);
    }
}

static void images_list(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    cleanup_buf struct buf out = BUF_INIT;

    images_encode(context, rpc_call_arena(call), ((const Runtime__V1__ListImagesRequest *)(const void *)request)->filter, &out);
    rpc_reply_packed(call, out.p, out.n);
}

static void images_stream(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    cleanup_buf struct buf out = BUF_INIT;

    images_encode(context, rpc_call_arena(call), ((const Runtime__V1__StreamImagesRequest *)(const void *)request)->filter, &out);
    struct shared *list = shared_new(out.n);
    if (out.n > 0)
        memcpy(list->bytes, out.p, out.n);
    lists_stream(context, call, list);
}

static void images_verbose(struct arena *arena, struct node *node, const struct image *image,
                          Runtime__V1__ImageStatusResponse *response)
{
    cleanup_buf struct buf config = BUF_INIT, json = BUF_INIT;
    struct status err = STATUS_INIT;
    struct json_writer w;

    json_writer_init(&w, &json, 0);
    json_write_object(&w);
    json_write_member_i64(&w, "layers", (int64_t)image->layer_count);
    if (image_store_read_config_text(node->images, image, &config, &err)) {
        json_write_key(&w, "imageSpec");
        json_write_raw(&w, (struct str){ (const char *)config.p, config.n });
    }
    json_write_end(&w);
    Runtime__V1__ImageStatusResponse__InfoEntry *entry = ARENA_NEW(arena, Runtime__V1__ImageStatusResponse__InfoEntry);
    runtime__v1__image_status_response__info_entry__init(entry);
    entry->key = (char *)(uintptr_t) "info";
    entry->value = arena_strdup(arena, buf_cstr(&json));
    response->info = ARENA_NEW(arena, Runtime__V1__ImageStatusResponse__InfoEntry *);
    response->info[0] = entry;
    response->n_info = 1;
}

static const char *images_wanted(const Runtime__V1__ImageSpec *spec, struct rpc_call *call)
{
    if (spec != NULL && *spec->image != '\0')
        return spec->image;
    rpc_failf(call, STATUS_INVALID_ARGUMENT, "image.image: missing");
    return NULL;
}

static void images_status(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct node *node = context;
    const Runtime__V1__ImageStatusRequest *r = (const void *)request;
    Runtime__V1__ImageStatusResponse response = RUNTIME__V1__IMAGE_STATUS_RESPONSE__INIT;
    Runtime__V1__Image item;
    const char *wanted = images_wanted(r->image, call);

    if (wanted == NULL)
        return;
    /* One that is not there is no error: the answer has no image. */
    const struct image *image = image_store_find(node->images, wanted);
    if (image != NULL) {
        images_fill(rpc_call_arena(call), image, &item);
        response.image = &item;
        if (r->verbose)
            images_verbose(rpc_call_arena(call), node, image, &response);
    }
    rpc_reply(call, &response.base);
}

/* ---- pulling ---- */

struct images_pulling {
    struct rpc_call *call;
    struct image_pull *pull;
    struct counters *counters;
    int64_t started_ms;
};

static void images_on_cancel(void *arg)
{
    struct images_pulling *pulling = arg;

    image_pull_cancel(pulling->pull);
    free(pulling);
}

static void images_on_pulled(void *arg, const char *image_id, const struct status *err)
{
    struct images_pulling *pulling = arg;
    Runtime__V1__PullImageResponse response = RUNTIME__V1__PULL_IMAGE_RESPONSE__INIT;

    counters_pull_ended(pulling->counters, err == NULL, pulling->started_ms);
    if (err != NULL) {
        rpc_fail(pulling->call, err);
    } else {
        response.image_ref = (char *)(uintptr_t)image_id;
        rpc_reply(pulling->call, &response.base);
    }
    free(pulling);
}

bool node_pull_options(struct node *node, struct rpc_call *call, const Runtime__V1__PullImageRequest *r,
                       struct image_auth *auth, struct image_pull_options *out)
{
    const char *wanted = images_wanted(r->image, call);
    struct status err = STATUS_INIT;

    if (wanted == NULL)
        return false;
    if (*r->image->runtime_handler != '\0' && node_handler(node, r->image->runtime_handler, &err) == NULL) {
        rpc_fail(call, &err);
        return false;
    }
    if (r->auth != NULL)
        *auth = (struct image_auth){ .username = r->auth->username,
                                     .password = r->auth->password,
                                     .auth = r->auth->auth,
                                     .server_address = r->auth->server_address,
                                     .identity_token = r->auth->identity_token,
                                     .registry_token = r->auth->registry_token };
    const char **annotations = ARENA_ARRAY(rpc_call_arena(call), const char *, 2 * r->image->n_annotations);
    for (size_t i = 0; i < r->image->n_annotations; i++) {
        annotations[2 * i] = r->image->annotations[i]->key;
        annotations[2 * i + 1] = r->image->annotations[i]->value;
    }
    *out = (struct image_pull_options){
        .reference = wanted,
        .auth = r->auth != NULL ? auth : NULL,
        .timeout_ms = rpc_call_time_left_ms(call),
        .annotations = annotations,
        .annotation_count = r->image->n_annotations,
        .registries = node->options->registries,
    };
    return true;
}

static void images_pull(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct node *node = context;
    struct image_auth auth;
    struct image_pull_options options;

    if (!node_pull_options(node, call, (const void *)request, &auth, &options))
        return;
    struct images_pulling *pulling = xcalloc(1, sizeof *pulling);
    pulling->call = call;
    pulling->counters = node->counters;
    pulling->started_ms = clock_mono_ms();
    options.on_done = images_on_pulled;
    options.arg = pulling;
    pulling->pull = image_pull_start(node->images, &options);
    rpc_call_on_cancel(call, images_on_cancel, pulling);
}

static void images_remove(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct node *node = context;
    struct status err = STATUS_INIT;
    const char *wanted = images_wanted(((const Runtime__V1__RemoveImageRequest *)(const void *)request)->image, call);

    if (wanted == NULL)
        return;
    if (image_store_remove(node->images, wanted, &err))
        rpc_reply_packed(call, "", 0);
    else
        rpc_fail(call, &err);
}

/* ---- space ---- */

/* One ImageFsInfo under way: the pods of this machine are asked how much they have written. */
struct images_fs_call {
    struct stats_ask ask;
    struct rpc_call *call;
};

static void images_fs_on_cancel(void *arg)
{
    struct images_fs_call *c = arg;

    stats_ask_cancel(&c->ask);
    free(c);
}

static void images_fill_fs(struct arena *arena, const struct image_usage *usage, Runtime__V1__FilesystemUsage *out)
{
    runtime__v1__filesystem_usage__init(out);
    out->timestamp = usage->timestamp_ns;
    out->fs_id = ARENA_NEW(arena, Runtime__V1__FilesystemIdentifier);
    runtime__v1__filesystem_identifier__init(out->fs_id);
    out->fs_id->mountpoint = (char *)(uintptr_t)usage->mountpoint;
    out->used_bytes = ARENA_NEW(arena, Runtime__V1__UInt64Value);
    runtime__v1__uint64_value__init(out->used_bytes);
    out->used_bytes->value = usage->bytes;
    out->inodes_used = ARENA_NEW(arena, Runtime__V1__UInt64Value);
    runtime__v1__uint64_value__init(out->inodes_used);
    out->inodes_used->value = usage->inodes;
}

/* kubelet takes images and containers for split between two file systems when the mount points differ; it wants both named.
 * A pod that did not answer counts with what it had last. */
static void images_fs_on_asked(struct stats_ask *ask)
{
    struct images_fs_call *c = CONTAINER_OF(ask, struct images_fs_call, ask);
    struct node *node = ask->node;
    struct arena *arena = rpc_call_arena(c->call);
    struct image_usage images, containers = { .timestamp_ns = clock_real_ns(), .mountpoint = node->layers_mountpoint };
    struct strmap_iter it = { 0 };
    Runtime__V1__ImageFsInfoResponse response = RUNTIME__V1__IMAGE_FS_INFO_RESPONSE__INIT;
    Runtime__V1__FilesystemUsage of_images, of_containers;
    Runtime__V1__FilesystemUsage *image_list[] = { &of_images }, *container_list[] = { &of_containers };

    while (strmap_next(&node->sandboxes, &it)) {
        const struct sandbox *sandbox = it.value;
        if (!sandbox->handler->local || sandbox->stats == NULL ||
            sandbox->record->phase != INTERLINK__STATE__V1__SANDBOX_PHASE__READY)
            continue;
        containers.bytes += sandbox->stats->layer_bytes;
        containers.inodes += sandbox->stats->layer_inodes;
    }
    image_store_usage(node->images, &images);
    images_fill_fs(arena, &images, &of_images);
    images_fill_fs(arena, &containers, &of_containers);
    response.n_image_filesystems = 1;
    response.image_filesystems = image_list;
    response.n_container_filesystems = 1;
    response.container_filesystems = container_list;
    rpc_reply(c->call, &response.base);
    free(c);
}

static void images_fs_info(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct node *node = context;
    struct images_fs_call *c = xcalloc(1, sizeof *c);
    cleanup_free struct sandbox **local = xcalloc(node->sandboxes.count + 1, sizeof(struct sandbox *));
    struct strmap_iter it = { 0 };
    size_t count = 0;

    (void)request;
    while (strmap_next(&node->sandboxes, &it)) {
        struct sandbox *sandbox = it.value;
        if (sandbox->handler->local && sandbox->record->phase == INTERLINK__STATE__V1__SANDBOX_PHASE__READY)
            local[count++] = sandbox;
    }
    c->ask = (struct stats_ask){ .node = node, .on_done = images_fs_on_asked };
    c->call = call;
    rpc_call_on_cancel(call, images_fs_on_cancel, c);
    stats_ask_start(&c->ask, local, count);
}

#define IMAGE_METHOD(rpc_name, input_name, output_name, function)                                                      \
    { rpc_name, RPC_UNARY, &runtime__v1__##input_name##__descriptor, &runtime__v1__##output_name##__descriptor, function }

const struct rpc_method image_methods[] = {
    IMAGE_METHOD("ListImages", list_images_request, list_images_response, images_list),
    { "StreamImages", RPC_SERVER_STREAMING, &runtime__v1__stream_images_request__descriptor,
      &runtime__v1__stream_images_response__descriptor, images_stream },
    IMAGE_METHOD("ImageStatus", image_status_request, image_status_response, images_status),
    IMAGE_METHOD("PullImage", pull_image_request, pull_image_response, images_pull),
    IMAGE_METHOD("RemoveImage", remove_image_request, remove_image_response, images_remove),
    IMAGE_METHOD("ImageFsInfo", image_fs_info_request, image_fs_info_response, images_fs_info),
};
const size_t image_method_count = COUNT_OF(image_methods);
