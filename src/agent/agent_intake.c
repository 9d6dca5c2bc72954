/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_intake.h"

#include <fcntl.h>
#include <unistd.h>

#include "agent/agent_context.h"
#include "io/file.h"

static void agent_intake_free(struct agent_intake *in)
{
    watch_stop(&in->watch);
    if (in->write_fd >= 0)
        close(in->write_fd);
    list_remove(&in->link);
    in->agent->intake_count--;
    buf_free(&in->rest);
    in->ops->free(in);
    free(in);
}

static void agent_intake_fail(struct agent_intake *in, const struct status *err)
{
    struct rpc_call *call = in->call;

    if (in->started)
        worker_cancel(&in->worker);
    if (in->started && in->ops->undo != NULL)
        in->ops->undo(in);
    agent_intake_free(in);
    if (err != NULL)
        rpc_fail(call, err);
}

static void agent_intake_on_cancel(void *arg)
{
    agent_intake_fail(arg, NULL);
}

static bool agent_intake_work(void *arg, struct buf *output, struct status *err)
{
    struct agent_intake *in = arg;

    agent_intake_close_inputs(in->agent);
    return in->ops->work(in, output, err);
}

static void agent_intake_on_done(void *arg, const struct status *err, struct buf *output)
{
    struct agent_intake *in = arg;

    if (err != NULL) {
        struct status copy = *err;
        agent_intake_fail(in, &copy);
        return;
    }
    in->ops->done(in, in->call, output);
    agent_intake_free(in);
}

static bool agent_intake_begin(struct agent_intake *in, struct status *err)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return status_errno(err, "no pipe for what arrives");
    in->read_fd = fds[0];
    in->write_fd = fds[1];
    fcntl(in->write_fd, F_SETPIPE_SZ, AGENT_PIPE_SIZE);
    fd_set_nonblocking(in->write_fd, true);
    in->started = worker_start(in->agent->loop, &in->worker, agent_intake_work, in, agent_intake_on_done, in, err);
    close(in->read_fd);
    return in->started;
}

/* Writes what the pipe takes; the rest waits, and so does the call. */
static void agent_intake_flush(struct agent_intake *in)
{
    size_t done = 0;
    bool broken = false;

    while (done < in->rest.n && !broken) {
        ssize_t n = write(in->write_fd, in->rest.p + done, in->rest.n - done);
        if (n > 0)
            done += (size_t)n;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            broken = true; /* the worker has failed; its answer says why */
    }
    buf_consume(&in->rest, broken ? in->rest.n : done);
    if (in->rest.n == 0 && in->ended && in->write_fd >= 0) {
        watch_stop(&in->watch);
        close(in->write_fd);
        in->write_fd = -1;
    }
}

static void agent_intake_on_room(void *arg, unsigned events)
{
    struct agent_intake *in = arg;

    (void)events;
    agent_intake_flush(in);
    if (in->rest.n > 0)
        return;
    buf_free(&in->rest);
    watch_stop(&in->watch);
    rpc_call_pause(in->call, false);
}

static void agent_intake_on_message(void *arg, const ProtobufCMessage *message)
{
    struct agent_intake *in = arg;
    struct status err = STATUS_INIT;
    bool ok;

    if (message == NULL) {
        in->ended = true;
        ok = in->started || status_set(&err, STATUS_INVALID_ARGUMENT,
                                       "%s: missing: the call ended before its first message", in->ops->first);
    } else {
        ok = in->ops->take(in, message, &in->rest, &err) && (in->started || agent_intake_begin(in, &err));
    }
    if (!ok) {
        agent_intake_fail(in, &err);
        return;
    }
    agent_intake_flush(in);
    if (in->rest.n > 0 && in->watch.loop == NULL) {
        if (!watch_start(in->agent->loop, &in->watch, in->write_fd, WATCH_WRITE, agent_intake_on_room, in, &err)) {
            agent_intake_fail(in, &err);
            return;
        }
        rpc_call_pause(in->call, true);
    }
}

void agent_intake_start(struct agent *agent, struct rpc_call *call, const struct agent_intake_ops *ops)
{
    if (agent->intake_count == AGENT_INTAKES_MAX) {
        rpc_failf(call, STATUS_RESOURCE_EXHAUSTED, "%d calls bring files or blobs already; try again later", AGENT_INTAKES_MAX);
        return;
    }
    struct agent_intake *in = xcalloc(1, ops->size);
    in->ops = ops;
    in->agent = agent;
    in->call = call;
    in->read_fd = in->write_fd = -1;
    list_append(&agent->intakes, &in->link);
    agent->intake_count++;
    rpc_call_on_cancel(call, agent_intake_on_cancel, in);
    rpc_call_on_message(call, agent_intake_on_message, in);
}

void agent_intake_close_inputs(struct agent *agent)
{
    for (LIST_EACH(struct agent_intake, in, &agent->intakes, link))
        if (in->write_fd >= 0)
            close(in->write_fd);
}
