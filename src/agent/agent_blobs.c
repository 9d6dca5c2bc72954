/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_blobs.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent_context.h"
#include "agent/agent_intake.h"
#include "image/digest.h"
#include "image/unpack.h"
#include "io/file.h"

/* ---- where things are ---- */

struct agent_layer {
    struct digest blob, diff_id;
    const char *folder;   /* unpacked, "" when it is nowhere */
    const char *archive;  /* as a blob, "" when it is nowhere */
    const char *own_folder, *own_archive; /* where ours are or would be */
};

static const char *agent_blobs_dir(const struct agent *agent, struct arena *arena)
{
    return agent->scratch.images != NULL ? agent->scratch.images : arena_printf(arena, "%s/images", agent->job_dir);
}

/* Whether it is there, and unpacked for the user ids that we have: the node may run as somebody else, or have been given other ids
 * since. Then it is unpacked once more, for this pod. */
static bool agent_layer_fits(const char *folder)
{
    struct unpacked info;
    struct status ignored;
    char here[UNPACK_OWNERS_SIZE];

    if (access(folder, R_OK | X_OK) < 0)
        return false;
    unpack_owners_here(here);
    if (!unpack_layer_info(folder, &info, &ignored) || unpack_owners_fit(&info, here))
        return true;
    log_info("layer %s is unpacked for other user ids, so this pod unpacks it once more: removing the image and pulling it again "
             "spares that", folder);
    return false;
}

static bool agent_layer_find(const struct agent *agent, const Interlink__Agent__V1__Layer *layer, struct arena *arena,
                             struct agent_layer *out, struct status *err)
{
    char blob[DIGEST_HEX_SIZE], diff_id[DIGEST_HEX_SIZE];

    if (!digest_parse(layer->digest, &out->blob, err) || !digest_parse(layer->diff_id, &out->diff_id, err))
        return false;
    digest_hex(&out->blob, blob);
    digest_hex(&out->diff_id, diff_id);
    out->folder = out->archive = "";
    out->own_folder = arena_printf(arena, "%s/layers/%s", agent_blobs_dir(agent, arena), diff_id);
    out->own_archive = arena_printf(arena, "%s/blobs/%s", agent_blobs_dir(agent, arena), blob);
    if (*agent->images_dir != '\0') {
        const char *folder = arena_printf(arena, "%s/layers/%s", agent->images_dir, diff_id);
        const char *archive = arena_printf(arena, "%s/blobs/sha256/%s", agent->images_dir, blob);
        if (agent_layer_fits(folder))
            out->folder = folder;
        else if (access(archive, R_OK) == 0)
            out->archive = archive;
    }
    if (*out->folder == '\0' && access(out->own_folder, R_OK | X_OK) == 0)
        out->folder = out->own_folder;
    if (*out->archive == '\0' && access(out->own_archive, R_OK) == 0)
        out->archive = out->own_archive;
    return true;
}

static bool agent_blobs_check(const Interlink__Agent__V1__Image *image, struct status *err)
{
    if (image == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "image: missing");
    if (image->n_layers > IMAGE_LAYERS_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "image.layers: %zu layers, at most %d are possible",
                          image->n_layers, IMAGE_LAYERS_MAX);
    return true;
}

void agent_blobs_missing(struct agent *agent, struct rpc_call *call, const Interlink__Agent__V1__MissingBlobsRequest *request)
{
    struct arena *arena = rpc_call_arena(call);
    Interlink__Agent__V1__MissingBlobsResponse response = INTERLINK__AGENT__V1__MISSING_BLOBS_RESPONSE__INIT;
    struct status err = STATUS_INIT;

    if (!agent_blobs_check(request->image, &err)) {
        rpc_fail(call, &err);
        return;
    }
    response.digests = ARENA_ARRAY(arena, char *, request->image->n_layers + 1);
    for (size_t i = 0; i < request->image->n_layers; i++) {
        struct agent_layer layer;
        if (!agent_layer_find(agent, request->image->layers[i], arena, &layer, &err)) {
            status_prefix(&err, "image.layers[%zu]", i);
            rpc_fail(call, &err);
            return;
        }
        if (*layer.folder == '\0' && *layer.archive == '\0')
            response.digests[response.n_digests++] = request->image->layers[i]->digest;
    }
    rpc_reply(call, &response.base);
}

/* ---- unpacking (worker) ---- */

static bool agent_layer_unpack(const struct agent *agent, const struct agent_layer *layer, struct arena *arena,
                               struct status *err)
{
    struct unpack_limits limits = UNPACK_LIMITS_DEFAULT;
    struct unpacked unpacked;
    const char *lock_path = arena_printf(arena, "%s.lock", layer->own_folder);

    if (!dir_make(arena_printf(arena, "%s/layers", agent_blobs_dir(agent, arena)), 0700, err))
        return false;
    /* Two containers of one image may be created at once: the second waits for the first one's layer. */
    cleanup_close int lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return status_errno(err, "cannot lock %s", lock_path);
    if (access(layer->own_folder, F_OK) == 0)
        return true;
    if (!unpack_layer(layer->archive, &layer->blob, &layer->diff_id, layer->own_folder, &limits, &unpacked, err))
        return false;
    /* Unpacked it is not needed any more, and the job's disk may be small. */
    if (layer->archive == layer->own_archive)
        unlink(layer->own_archive);
    return true;
}

bool agent_blobs_layers(const struct agent *agent, const Interlink__Agent__V1__Image *image, struct arena *arena,
                        const char *const **dirs, struct status *err)
{
    const char **out = ARENA_ARRAY(arena, const char *, image->n_layers + 1);

    *dirs = out;
    if (!agent_blobs_check(image, err))
        return false;
    for (size_t i = 0; i < image->n_layers; i++) {
        struct agent_layer layer;
        if (!agent_layer_find(agent, image->layers[i], arena, &layer, err))
            return status_prefix(err, "image.layers[%zu]", i);
        if (*layer.folder == '\0' && *layer.archive == '\0')
            return status_set(err, STATUS_FAILED_PRECONDITION,
                              "image.layers[%zu]: %s is neither in the job nor in a shared image store; send it first", i,
                              image->layers[i]->digest);
        if (*layer.folder == '\0') {
            if (!agent_layer_unpack(agent, &layer, arena, err))
                return status_prefix(err, "image.layers[%zu]", i);
            layer.folder = layer.own_folder;
        }
        if (layer.folder == layer.own_folder)
            scratch_touch(layer.folder);
        out[i] = layer.folder;
    }
    return true;
}

/* ---- arriving ---- */

struct agent_put {
    struct agent_intake in;
    struct digest digest;
    char *incoming, *final; /* owned; paths */
};

/* Hashes and writes what comes through the pipe, until its end. */
static bool agent_put_copy(const struct agent_put *put, int fd, struct status *err)
{
    struct digester digester;
    char text[DIGEST_TEXT_SIZE];
    size_t size = 256u << 10;
    cleanup_free uint8_t *block = xmalloc(size);
    uint64_t total = 0;
    ssize_t n;

    digester_init(&digester);
    while ((n = read(put->in.read_fd, block, size)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return status_errno(err, "cannot read the blob");
        total += (uint64_t)n;
        if (total > IMAGE_BLOB_SIZE_MAX)
            return status_set(err, STATUS_RESOURCE_EXHAUSTED, "the blob is larger than %llu bytes", IMAGE_BLOB_SIZE_MAX);
        digester_update(&digester, block, (size_t)n);
        if (!write_all(fd, block, (size_t)n, err))
            return status_prefix(err, "cannot write %s", put->incoming);
    }
    struct digest got = digester_value(&digester);
    digest_text(&got, text);
    if (!digest_equal(&got, &put->digest))
        return status_set(err, STATUS_DATA_LOSS, "the blob that arrived has another digest: %s", text);
    return true;
}

static bool agent_put_work(struct agent_intake *in, struct buf *output, struct status *err)
{
    struct agent_put *put = (struct agent_put *)in;
    cleanup_close int fd = open(put->incoming, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    (void)output;
    if (fd < 0)
        return status_errno(err, "cannot create %s", put->incoming);
    if (agent_put_copy(put, fd, err)) {
        if (rename(put->incoming, put->final) == 0)
            return true;
        status_errno(err, "cannot rename %s to %s", put->incoming, put->final);
    }
    return false;
}

static bool agent_put_begin(struct agent_put *put, const char *digest, struct status *err)
{
    char hex[DIGEST_HEX_SIZE], unique[ID_LENGTH + 1];
    cleanup_arena struct arena arena = ARENA_INIT;
    const char *blobs = arena_printf(&arena, "%s/blobs", agent_blobs_dir(put->in.agent, &arena));

    if (!digest_parse(digest, &put->digest, err) || !dir_make(blobs, 0700, err))
        return false;
    digest_hex(&put->digest, hex);
    random_id(unique);
    put->final = xasprintf("%s/%s", blobs, hex);
    put->incoming = xasprintf("%s/%s.incoming-%.8s", blobs, hex, unique);
    return true;
}

static bool agent_put_take(struct agent_intake *in, const ProtobufCMessage *message, struct buf *out, struct status *err)
{
    const Interlink__Agent__V1__PutBlobRequest *request = (const void *)message;

    if (!in->started && !agent_put_begin((struct agent_put *)in, request->digest, err))
        return false;
    buf_append(out, request->data.data, request->data.len);
    return true;
}

static void agent_put_done(struct agent_intake *in, struct rpc_call *call, struct buf *output)
{
    Interlink__Agent__V1__PutBlobResponse response = INTERLINK__AGENT__V1__PUT_BLOB_RESPONSE__INIT;

    (void)in;
    (void)output;
    rpc_reply(call, &response.base);
}

static void agent_put_undo(struct agent_intake *in)
{
    unlink(((struct agent_put *)in)->incoming);
}

static void agent_put_free(struct agent_intake *in)
{
    struct agent_put *put = (struct agent_put *)in;

    free(put->incoming);
    free(put->final);
}

void agent_blobs_put(struct agent *agent, struct rpc_call *call)
{
    static const struct agent_intake_ops ops = {
        .size = sizeof(struct agent_put),
        .take = agent_put_take,
        .work = agent_put_work,
        .done = agent_put_done,
        .undo = agent_put_undo,
        .free = agent_put_free,
        .first = "digest",
    };

    agent_intake_start(agent, call, &ops);
}
