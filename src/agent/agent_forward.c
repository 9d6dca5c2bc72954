/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_forward.h"

#include "agent/agent_context.h"

struct agent_forward {
    struct agent *agent;
    struct rpc_call *call;
    struct tcp_dial *dial; /* owned; NULL before the first message */
};

/* Gives the call back: the caller ends it. */
static struct rpc_call *agent_forward_free(struct agent_forward *f)
{
    struct rpc_call *call = f->call;

    f->agent->forward_count--;
    free(f);
    return call;
}

/* The caller gave up. */
static void agent_forward_on_cancel(void *arg)
{
    struct agent_forward *f = arg;

    tcp_dial_cancel(f->dial);
    agent_forward_free(f);
}

/* ---- from the pod ---- */

static void agent_forward_tell(struct agent_forward *f, const Interlink__Agent__V1__PortForwardResponse *response)
{
    if (!rpc_send(f->call, &response->base))
        tcp_dial_pause(f->dial, true);
}

static void agent_forward_on_connected(void *arg)
{
    Interlink__Agent__V1__PortForwardResponse response = INTERLINK__AGENT__V1__PORT_FORWARD_RESPONSE__INIT;

    response.connected = true;
    agent_forward_tell(arg, &response);
}

static void agent_forward_on_data(void *arg, struct str piece)
{
    Interlink__Agent__V1__PortForwardResponse response = INTERLINK__AGENT__V1__PORT_FORWARD_RESPONSE__INIT;

    response.data = (ProtobufCBinaryData){ piece.n, (uint8_t *)(uintptr_t)piece.p };
    agent_forward_tell(arg, &response);
}

static void agent_forward_on_end(void *arg)
{
    Interlink__Agent__V1__PortForwardResponse response = INTERLINK__AGENT__V1__PORT_FORWARD_RESPONSE__INIT;

    response.end = true;
    agent_forward_tell(arg, &response);
}

static void agent_forward_on_pod_writable(void *arg)
{
    struct agent_forward *f = arg;

    rpc_call_pause(f->call, false);
}

static void agent_forward_on_finish(void *arg, const struct status *err)
{
    struct agent_forward *f = arg;

    rpc_finish(agent_forward_free(f), err->code != STATUS_OK ? err : NULL);
}

/* ---- from the caller ---- */

static void agent_forward_on_writable(void *arg)
{
    struct agent_forward *f = arg;

    if (f->dial != NULL)
        tcp_dial_pause(f->dial, false);
}

static bool agent_forward_start(struct agent_forward *f, const Interlink__Agent__V1__PortForwardRequest *request,
                                struct status *err)
{
    static const char *const local[] = { "127.0.0.1", "::1" };
    const Interlink__Agent__V1__PortForwardStart *start = request != NULL ? request->start : NULL;
    const struct tcp_dial_listener listener = {
        .on_connected = agent_forward_on_connected,
        .on_data = agent_forward_on_data,
        .on_end = agent_forward_on_end,
        .on_writable = agent_forward_on_pod_writable,
        .on_finish = agent_forward_on_finish,
        .arg = f,
    };

    if (start == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "start: missing: it must be in the first message");
    if (start->port == 0 || start->port > UINT16_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "start.port: %u is not a port (1 to 65535)", start->port);
    const char *const *addresses = start->n_addresses > 0 ? (const char *const *)(void *)start->addresses : local;
    size_t count = start->n_addresses > 0 ? start->n_addresses : COUNT_OF(local);
    f->dial = tcp_dial_start(f->agent->loop, &f->agent->dialer, -1, (uint16_t)start->port, addresses, count, &listener,
                             err);
    return f->dial != NULL || status_prefix(err, "start");
}

static void agent_forward_on_message(void *arg, const ProtobufCMessage *message)
{
    struct agent_forward *f = arg;
    const Interlink__Agent__V1__PortForwardRequest *request = (const void *)message;
    struct status err = STATUS_INIT;

    if (f->dial == NULL && !agent_forward_start(f, request, &err))
        rpc_fail(agent_forward_free(f), &err);
    else if (request == NULL)
        tcp_dial_half_close(f->dial);
    else if (request->data.len > 0 && !tcp_dial_send(f->dial, request->data.data, request->data.len))
        rpc_call_pause(f->call, true);
}

void agent_forward(struct agent *agent, struct rpc_call *call)
{
    if (agent->forward_count == AGENT_FORWARDS_MAX) {
        rpc_failf(call, STATUS_RESOURCE_EXHAUSTED, "%d connections to ports of this pod are open already; try again later",
                  AGENT_FORWARDS_MAX);
        return;
    }
    struct agent_forward *f = xcalloc(1, sizeof *f);
    f->agent = agent;
    agent->forward_count++;
    f->call = call;
    rpc_call_on_message(call, agent_forward_on_message, f);
    rpc_call_on_writable(call, agent_forward_on_writable, f);
    rpc_call_on_cancel(call, agent_forward_on_cancel, f);
}
