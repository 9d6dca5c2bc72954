/* SPDX-License-Identifier: Apache-2.0 */
/* ExecSync: one Exec stream of the agent, its output collected. */
#include "node/container.h"
#include "node/link.h"
#include "node/sandbox.h"

struct exec_sync {
    struct rpc_call *call;
    struct rpc_request *request;
    struct buf out, err_out; /* stdout, stderr */
    int64_t timeout_s;
};

static void exec_sync_free(struct exec_sync *e)
{
    buf_free(&e->out);
    buf_free(&e->err_out);
    free(e);
}

/* The client has gone: the agent kills the command when its stream is reset. */
static void exec_sync_on_cancel(void *arg)
{
    struct exec_sync *e = arg;

    rpc_request_cancel(e->request);
    exec_sync_free(e);
}

/* What is more than fits is dropped, and the command goes on (CRI: ExecSyncResponse). */
static void exec_sync_collect(struct exec_sync *e, struct buf *to, const ProtobufCBinaryData *data)
{
    size_t room = EXEC_SYNC_OUTPUT_MAX - e->out.n - e->err_out.n;

    buf_append(to, data->data, data->len < room ? data->len : room);
}

/* Ends the call; e is gone. */
static void exec_sync_finish(struct exec_sync *e, const Interlink__Agent__V1__ExecExited *exited)
{
    Runtime__V1__ExecSyncResponse response = RUNTIME__V1__EXEC_SYNC_RESPONSE__INIT;

    rpc_request_cancel(e->request);
    if (exited->timed_out) {
        /* kubelet goes by the code, older tools by containerd's words. */
        rpc_failf(e->call, STATUS_DEADLINE_EXCEEDED,
                  "failed to exec in container: timeout %" PRId64 "s exceeded: context deadline exceeded; the command was killed",
                  e->timeout_s);
    } else {
        response.stdout = (ProtobufCBinaryData){ e->out.n, e->out.p };
        response.stderr = (ProtobufCBinaryData){ e->err_out.n, e->err_out.p };
        response.exit_code = exited->exit_code;
        rpc_reply(e->call, &response.base);
    }
    exec_sync_free(e);
}

static void exec_sync_on_message(void *arg, const ProtobufCMessage *message)
{
    struct exec_sync *e = arg;
    const Interlink__Agent__V1__ExecResponse *response = (const void *)message;

    exec_sync_collect(e, &e->out, &response->stdout);
    exec_sync_collect(e, &e->err_out, &response->stderr);
    if (response->exited != NULL)
        exec_sync_finish(e, response->exited);
}

static void exec_sync_on_finish(void *arg, const struct status *status)
{
    struct exec_sync *e = arg;

    if (status->code == STATUS_OK)
        rpc_failf(e->call, STATUS_INTERNAL, "the agent ended the command's stream without its exit status");
    else
        rpc_fail(e->call, status);
    exec_sync_free(e);
}

void container_exec_sync(struct container *container, struct rpc_call *call, const Runtime__V1__ExecSyncRequest *request)
{
    struct status err = STATUS_INIT;
    Interlink__Agent__V1__ExecStart start = INTERLINK__AGENT__V1__EXEC_START__INIT;
    Interlink__Agent__V1__ExecRequest first = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Exec",
        .output = &interlink__agent__v1__exec_response__descriptor,
        .on_message = exec_sync_on_message,
        .on_finish = exec_sync_on_finish,
    };
    struct link *link = container_link(container, &err);

    if (request->n_cmd == 0) {
        rpc_failf(call, STATUS_INVALID_ARGUMENT, "cmd: empty");
        return;
    }
    if (container->record->phase != INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING) {
        rpc_failf(call, STATUS_FAILED_PRECONDITION, "container %.13s is not running", container->record->id);
        return;
    }
    if (link == NULL) {
        rpc_fail(call, &err);
        return;
    }
    struct exec_sync *e = xcalloc(1, sizeof *e);
    e->call = call;
    e->timeout_s = request->timeout;
    options.arg = e;
    e->request = rpc_request_start(link_conn(link), &options);
    rpc_call_on_cancel(call, exec_sync_on_cancel, e);
    start.container_id = container->record->id;
    start.n_command = request->n_cmd;
    start.command = request->cmd;
    if (request->timeout > 0)
        start.timeout_ms = request->timeout < INT64_MAX / 1000 ? request->timeout * 1000 : INT64_MAX;
    first.start = &start;
    rpc_request_send(e->request, &first.base);
}
