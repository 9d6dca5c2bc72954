/* SPDX-License-Identifier: Apache-2.0 */
/* events. */
#include "cli/ctl.h"

struct ctl_events {
    struct ctl *ctl;
    struct arena arena; /* what printing one event takes: this may go on for months */
    enum ctl_format format;
    bool done, broken; /* broken: nobody reads what we write */
    struct status status;
};

static void ctl_on_event(void *arg, const ProtobufCMessage *message)
{
    struct ctl_events *e = arg;

    struct arena lasting = e->ctl->arena;

    e->ctl->arena = e->arena;
    ctl_print_message(e->ctl, message, e->format);
    if (e->format == CTL_YAML)
        buf_append_byte(&e->ctl->out, '\n');
    e->broken = !ctl_flush(e->ctl);
    e->arena = e->ctl->arena;
    arena_reset(&e->arena);
    e->ctl->arena = lasting;
}

static void ctl_on_events_end(void *arg, const struct status *status)
{
    struct ctl_events *e = arg;

    e->done = true;
    e->status = *status;
}

int ctl_events(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    struct ctl_events e = { .ctl = ctl };
    Runtime__V1__GetEventsRequest request = RUNTIME__V1__GET_EVENTS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = ctl_method(ctl, CTL_RUNTIME, "GetContainerEvents"),
        .output = &runtime__v1__container_event_response__descriptor,
        .on_message = ctl_on_event,
        .on_finish = ctl_on_events_end,
        .arg = &e,
    };
    (void)arguments;
    (void)count;

    bool ok = ctl_format(ctl, CTL_JSON, &e.format, &err);
    if (ok && e.format == CTL_TABLE)
        ok = status_set(&err, STATUS_INVALID_ARGUMENT, "--output: wanted json or yaml");
    struct rpc_conn *conn = ok ? ctl_connect(ctl, ctl_endpoint_of(ctl, CTL_RUNTIME), &err) : NULL;
    if (conn == NULL)
        return ctl_fail(ctl, &err);
    struct rpc_request *call = rpc_request_start(conn, &options);
    rpc_request_send(call, &request.base);
    rpc_request_half_close(call);
    while (!e.done && !e.broken && ctl_turn(ctl, -1, &err))
        ;
    arena_free(&e.arena);
    if (!e.done) {
        rpc_request_cancel(call);
        loop_turn(ctl->loop, 0);
        return e.broken ? 1 : 0; /* that it is interrupted is its usual end */
    }
    return e.status.code == STATUS_OK ? 0 : ctl_fail(ctl, &e.status);
}
