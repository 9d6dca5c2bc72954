/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/ctl.h"

#include "io/socket.h"

/* ---- endpoints ---- */

struct ctl_endpoint *ctl_endpoint_of(struct ctl *ctl, enum ctl_service service)
{
    if (service == CTL_RUNTIME || strcmp(ctl->image.path, ctl->runtime.path) == 0)
        return &ctl->runtime;
    return &ctl->image;
}

const char *ctl_method(struct ctl *ctl, enum ctl_service service, const char *method)
{
    static const char *const names[] = { [CTL_RUNTIME] = "runtime.v1.RuntimeService",
                                         [CTL_IMAGE] = "runtime.v1.ImageService",
                                         [CTL_CONTROL] = "interlink.control.v1.Control" };

    return arena_printf(&ctl->arena, "/%s/%s", names[service], method);
}

static void ctl_on_close(void *arg, const struct status *err)
{
    struct ctl_endpoint *endpoint = arg;

    endpoint->closed = *err;
    rpc_conn_free(endpoint->conn);
    endpoint->conn = NULL;
}

struct rpc_conn *ctl_connect(struct ctl *ctl, struct ctl_endpoint *endpoint, struct status *err)
{
    struct rpc_conn_options options = { .on_close = ctl_on_close, .arg = endpoint };

    if (endpoint->conn != NULL)
        return endpoint->conn;
    int fd = socket_connect_unix(endpoint->path, err);
    struct stream *stream = fd >= 0 ? stream_of_fd(ctl->loop, fd, err) : NULL;
    if (stream == NULL) {
        size_t n = strlen(err->message);
        snprintf(err->message + n, sizeof err->message - n,
                 "\nIs `interlink-cri serve` running, and may you open its socket? --runtime-endpoint names another one.");
        return NULL;
    }
    endpoint->conn = rpc_conn_new(ctl->loop, stream, &options, STR(""));
    return endpoint->conn;
}

/* ---- waiting ---- */

bool ctl_turn(struct ctl *ctl, int ms, struct status *err)
{
    if (!ctl->interrupted)
        loop_turn(ctl->loop, ms);
    return !ctl->interrupted || status_set(err, STATUS_CANCELLED, "interrupted");
}

int64_t ctl_timeout_ms(const struct ctl *ctl, int64_t timeout_ms)
{
    int64_t ns = ctl->flags.cancel_timeout_ns > 0 ? ctl->flags.cancel_timeout_ns : ctl->flags.timeout_ns;

    return ns > 0 ? (ns + 999999) / 1000000 : timeout_ms;
}

/* protobuf-c's unpacker with our arena for its memory. */
static void *ctl_arena_alloc(void *arg, size_t size)
{
    return arena_alloc(arg, size);
}

static void ctl_arena_free(void *arg, void *p)
{
    (void)arg;
    (void)p;
}

struct ctl_waiting {
    struct ctl *ctl;
    const ProtobufCMessageDescriptor *output;
    struct status *err;
    void *response;
    bool done;
};

static void ctl_on_done(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct ctl_waiting *waiting = arg;
    ProtobufCAllocator allocator = { ctl_arena_alloc, ctl_arena_free, &waiting->ctl->arena };

    waiting->done = true;
    if (status->code != STATUS_OK) {
        *waiting->err = *status;
        return;
    }
    /* The response is gone after this function: a copy goes to the arena. */
    size_t n = protobuf_c_message_get_packed_size(response);
    uint8_t *packed = xmalloc(n + 1);
    protobuf_c_message_pack(response, packed);
    waiting->response = protobuf_c_message_unpack(waiting->output, &allocator, n, packed);
    free(packed);
}

void *ctl_call(struct ctl *ctl, enum ctl_service service, const char *method, const void *request,
               const ProtobufCMessageDescriptor *output, int64_t timeout_ms, struct status *err)
{
    struct ctl_waiting waiting = { .ctl = ctl, .output = output, .err = err };
    struct rpc_conn *conn = ctl_connect(ctl, ctl_endpoint_of(ctl, service), err);

    if (conn == NULL)
        return NULL;
    ctl_flush(ctl); /* what is done is shown before the next thing may take long */
    if (ctl->flags.debug)
        fprintf(stderr, "%s\n", ctl_method(ctl, service, method));
    struct rpc_request *call = rpc_unary(conn, ctl_method(ctl, service, method), request, output,
                                         ctl_timeout_ms(ctl, timeout_ms), ctl_on_done, &waiting);
    while (!waiting.done) {
        if (ctl_turn(ctl, -1, err))
            continue;
        rpc_request_cancel(call);
        /* The reset must leave before the process does. */
        loop_turn(ctl->loop, 0);
        return NULL;
    }
    return waiting.response;
}
