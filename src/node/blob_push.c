/* SPDX-License-Identifier: Apache-2.0 */
#include "node/blob_push.h"

#include <fcntl.h>
#include <unistd.h>

#include "image/store.h"

/* One message. Read from the disk at once, so it is kept small: the kernel reads ahead of us. */
#define BLOB_PUSH_CHUNK (256u << 10)

struct blob_push {
    struct node *node;
    struct rpc_conn *conn; /* borrowed: a request that ends with it ends the push */
    void (*on_done)(void *arg, const struct status *err);
    void *arg;
    char **digests; /* owned: what is missing */
    size_t count, next;
    int fd;         /* of the blob under way; -1: none */
    bool first;     /* its digest has not been sent yet */
    struct rpc_request *request;
    struct status err; /* reading failed: told when the request has ended */
};

static void blob_push_next(struct blob_push *push);

static void blob_push_finish(struct blob_push *push, const struct status *err)
{
    if (push->fd >= 0)
        close(push->fd);
    push->on_done(push->arg, err);
    for (size_t i = 0; i < push->count; i++)
        free(push->digests[i]);
    free(push->digests);
    free(push);
}

/* Sends until the connection has enough; called again when it takes more. */
static void blob_push_on_writable(void *arg)
{
    struct blob_push *push = arg;
    Interlink__Agent__V1__PutBlobRequest message = INTERLINK__AGENT__V1__PUT_BLOB_REQUEST__INIT;
    cleanup_free uint8_t *chunk = xmalloc(BLOB_PUSH_CHUNK);
    bool more = push->fd >= 0;

    while (more) {
        ssize_t n = read(push->fd, chunk, BLOB_PUSH_CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            status_errno(&push->err, "cannot read blob %s", push->digests[push->next]);
        message.digest = push->first ? push->digests[push->next] : (char *)(uintptr_t)protobuf_c_empty_string;
        message.data = (ProtobufCBinaryData){ n > 0 ? (size_t)n : 0, chunk };
        if (n > 0 || push->first)
            more = rpc_request_send(push->request, &message.base);
        push->first = false;
        if (n > 0)
            continue;
        close(push->fd);
        push->fd = -1;
        rpc_request_half_close(push->request);
        return;
    }
}

static void blob_push_on_put(void *arg, const struct status *status)
{
    struct blob_push *push = arg;

    push->request = NULL;
    if (push->err.code != STATUS_OK) {
        blob_push_finish(push, &push->err);
    } else if (status->code != STATUS_OK) {
        push->err = *status;
        status_prefix(&push->err, "the agent did not take blob %s", push->digests[push->next]);
        blob_push_finish(push, &push->err);
    } else {
        push->next++;
        blob_push_next(push);
    }
}

static void blob_push_next(struct blob_push *push)
{
    struct digest digest;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/PutBlob",
        .bulk = true,
        .output = &interlink__agent__v1__put_blob_response__descriptor,
        .on_writable = blob_push_on_writable,
        .on_finish = blob_push_on_put,
        .arg = push,
    };

    if (push->fd >= 0)
        close(push->fd);
    push->fd = -1;
    if (push->next == push->count) {
        blob_push_finish(push, NULL);
        return;
    }
    if (!digest_parse(push->digests[push->next], &digest, &push->err)) {
        blob_push_finish(push, &push->err);
        return;
    }
    cleanup_free char *path = image_store_blob_path(push->node->images, &digest);
    push->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (push->fd < 0) {
        status_errno(&push->err, "cannot open blob %s", push->digests[push->next]);
        blob_push_finish(push, &push->err);
        return;
    }
    push->first = true;
    push->request = rpc_request_start(push->conn, &options);
    blob_push_on_writable(push);
}

static void blob_push_on_missing(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct blob_push *push = arg;
    const Interlink__Agent__V1__MissingBlobsResponse *missing = (const void *)response;

    if (status->code != STATUS_OK) {
        blob_push_finish(push, status);
        return;
    }
    push->digests = xcalloc(missing->n_digests, sizeof *push->digests);
    for (size_t i = 0; i < missing->n_digests; i++)
        push->digests[push->count++] = xstrdup(missing->digests[i]);
    blob_push_next(push);
}

struct blob_push *blob_push_start(struct node *node, struct rpc_conn *conn, Interlink__Agent__V1__Image *image,
                                  void (*on_done)(void *arg, const struct status *err), void *arg)
{
    struct blob_push *push = xcalloc(1, sizeof *push);
    Interlink__Agent__V1__MissingBlobsRequest request = INTERLINK__AGENT__V1__MISSING_BLOBS_REQUEST__INIT;

    *push = (struct blob_push){ .node = node, .conn = conn, .on_done = on_done, .arg = arg, .fd = -1 };
    request.image = image;
    rpc_unary(conn, "/interlink.agent.v1.Agent/MissingBlobs", &request.base,
              &interlink__agent__v1__missing_blobs_response__descriptor, 0, blob_push_on_missing, push);
    return push;
}

#undef BLOB_PUSH_CHUNK
