/* SPDX-License-Identifier: Apache-2.0 */
/* interlink.control.v1.Control: images from disk, and pulling with progress. */
#include "image/image.h"
#include "node/counters.h"
#include "node/node.h"

#include "control.pb-c.h"

/* ---- load ---- */

struct control_loading {
    struct rpc_call *call;
    struct image_load *load;
};

static void control_on_load_cancel(void *arg)
{
    struct control_loading *loading = arg;

    image_load_cancel(loading->load);
    free(loading);
}

static void control_on_loaded(void *arg, const char *const *image_ids, size_t count, const struct status *err)
{
    struct control_loading *loading = arg;
    Interlink__Control__V1__LoadImageResponse response = INTERLINK__CONTROL__V1__LOAD_IMAGE_RESPONSE__INIT;

    if (err != NULL) {
        rpc_fail(loading->call, err);
    } else {
        response.n_image_ids = count;
        response.image_ids = (char **)(uintptr_t)image_ids;
        rpc_reply(loading->call, &response.base);
    }
    free(loading);
}

static void control_load_image(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct node *node = context;
    const Interlink__Control__V1__LoadImageRequest *r = (const void *)request;

    if (*r->path != '/') {
        rpc_failf(call, STATUS_INVALID_ARGUMENT, "path: \"%s\" is not absolute", r->path);
        return;
    }
    struct control_loading *loading = xcalloc(1, sizeof *loading);
    loading->call = call;
    loading->load = image_load_start(node->images, &(struct image_load_options){
                                                       .path = r->path,
                                                       .base_name = r->base_name,
                                                       .on_done = control_on_loaded,
                                                       .arg = loading,
                                                   });
    rpc_call_on_cancel(call, control_on_load_cancel, loading);
}

/* ---- pull ---- */

struct control_pulling {
    struct rpc_call *call;
    struct image_pull *pull;
    struct counters *counters;
    int64_t started_ms;
};

static void control_on_pull_cancel(void *arg)
{
    struct control_pulling *pulling = arg;

    image_pull_cancel(pulling->pull);
    free(pulling);
}

static void control_on_progress(void *arg, const struct image_progress *blobs, size_t count)
{
    struct control_pulling *pulling = arg;
    cleanup_arena struct arena arena = ARENA_INIT;
    Interlink__Control__V1__PullImageProgressResponse response =
        INTERLINK__CONTROL__V1__PULL_IMAGE_PROGRESS_RESPONSE__INIT;

    response.n_blobs = count;
    response.blobs = ARENA_ARRAY(&arena, Interlink__Control__V1__BlobProgress *, count);
    for (size_t i = 0; i < count; i++) {
        Interlink__Control__V1__BlobProgress *blob = ARENA_NEW(&arena, Interlink__Control__V1__BlobProgress);
        char digest[DIGEST_TEXT_SIZE];
        interlink__control__v1__blob_progress__init(blob);
        digest_text(&blobs[i].blob, digest);
        blob->digest = arena_strdup(&arena, digest);
        blob->done = blobs[i].done;
        blob->total = blobs[i].total;
        response.blobs[i] = blob;
    }
    /* At most ten a second: a client that does not read them meets flow control long before memory matters. */
    rpc_send(pulling->call, &response.base);
}

static void control_on_pulled(void *arg, const char *image_id, const struct status *err)
{
    struct control_pulling *pulling = arg;
    Interlink__Control__V1__PullImageProgressResponse response =
        INTERLINK__CONTROL__V1__PULL_IMAGE_PROGRESS_RESPONSE__INIT;

    counters_pull_ended(pulling->counters, err == NULL, pulling->started_ms);
    if (err == NULL) {
        response.image_ref = (char *)(uintptr_t)image_id;
        rpc_send(pulling->call, &response.base);
    }
    rpc_finish(pulling->call, err);
    free(pulling);
}

static void control_pull_image_progress(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct node *node = context;
    const Runtime__V1__PullImageRequest *r = (const void *)request;
    struct image_auth auth;
    struct image_pull_options options;
    struct control_pulling *pulling = xcalloc(1, sizeof *pulling);

    pulling->call = call;
    pulling->counters = node->counters;
    pulling->started_ms = clock_mono_ms();
    if (!node_pull_options(node, call, r, &auth, &options)) {
        free(pulling);
        return;
    }
    options.on_progress = control_on_progress;
    options.on_done = control_on_pulled;
    options.arg = pulling;
    pulling->pull = image_pull_start(node->images, &options);
    rpc_call_on_cancel(call, control_on_pull_cancel, pulling);
}

const struct rpc_method control_methods[] = {
    { "LoadImage", RPC_UNARY, &interlink__control__v1__load_image_request__descriptor,
      &interlink__control__v1__load_image_response__descriptor, control_load_image },
    { "PullImageProgress", RPC_SERVER_STREAMING, &runtime__v1__pull_image_request__descriptor,
      &interlink__control__v1__pull_image_progress_response__descriptor, control_pull_image_progress },
};
const size_t control_method_count = COUNT_OF(control_methods);
