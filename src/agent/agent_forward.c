/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_forward.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/agent_context.h"
#include "io/socket.h"

struct agent_forward_address {
    char host[INET6_ADDRSTRLEN];
    int number; /* errno, when it was tried in vain */
};

struct agent_forward {
    struct agent *agent;
    struct rpc_call *call;
    uint16_t port; /* 0 before the first message */
    struct agent_forward_address addresses[AGENT_FORWARD_ADDRESSES_MAX];
    size_t address_count, address; /* how many; the one that is tried or connected */
    struct connector connector;
    int fd;             /* owned; -1 until it is connected */
    struct watch watch;
    struct buf rest;    /* of the caller's data; the call is paused meanwhile */
    bool in_end;        /* the caller sends no more */
    bool in_over;       /* and the connection has been told, or takes no more */
    bool out_over;      /* the connection sends no more, and the caller has been told */
    bool blocked;       /* until the call is writable again */
};

static void agent_forward_on_event(void *arg, unsigned events);

/* ---- the end ---- */

/* Gives the call back: the caller ends it. */
static struct rpc_call *agent_forward_free(struct agent_forward *f)
{
    struct agent *agent = f->agent;
    struct rpc_call *call = f->call;

    connector_cancel(&f->connector);
    watch_stop(&f->watch);
    if (f->fd >= 0)
        close(f->fd);
    buf_free(&f->rest);
    free(f);
    if (--agent->forward_count == 0) {
        free(agent->forward_block);
        agent->forward_block = NULL;
    }
    return call;
}

/* The caller gave up: what it does not want any more is no end in peace to the other side either. */
static void agent_forward_on_cancel(void *arg)
{
    struct agent_forward *f = arg;
    struct linger reset = { .l_onoff = 1, .l_linger = 0 };

    if (f->fd >= 0)
        setsockopt(f->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    agent_forward_free(f);
}

static void agent_forward_broken(struct agent_forward *f, int number)
{
    unsigned port = f->port;
    const char *reason = strerror(number);
    char host[INET6_ADDRSTRLEN];

    memcpy(host, f->addresses[f->address].host, sizeof host);
    rpc_failf(agent_forward_free(f), STATUS_UNAVAILABLE, "port %u: the connection to %s broke: %s", port, host, reason);
}

/* ---- data ---- */

/* Watches for what there is to do; ends it when that is nothing. f may be gone afterwards. */
static void agent_forward_next(struct agent_forward *f)
{
    unsigned events = (f->out_over || f->blocked ? 0 : WATCH_READ) | (f->rest.n > 0 ? WATCH_WRITE : 0);
    struct status err = STATUS_INIT;

    if (f->in_over && f->out_over) {
        rpc_finish(agent_forward_free(f), NULL);
        return;
    }
    /* With nothing to do a connection that hung up would still be reported, for ever. */
    if (events == 0)
        watch_stop(&f->watch);
    else if (f->watch.loop != NULL)
        watch_set(&f->watch, events);
    else if (!watch_start(f->agent->loop, &f->watch, f->fd, events, agent_forward_on_event, f, &err))
        rpc_fail(agent_forward_free(f), &err);
}

/* How much of the caller's data the connection took. */
static size_t agent_forward_put(struct agent_forward *f, const uint8_t *p, size_t n)
{
    size_t done = 0;

    while (done < n) {
        ssize_t sent = send(f->fd, p + done, n - done, MSG_NOSIGNAL);
        if (sent >= 0) {
            done += (size_t)sent;
        } else if (errno == EAGAIN) {
            return done;
        } else if (errno != EINTR) {
            /* It takes no more. What it has sent is still to be read, and says whether that is its end or a breach. */
            f->in_over = true;
            return n;
        }
    }
    return done;
}

/* All that the caller sent is written. */
static void agent_forward_check_input_end(struct agent_forward *f)
{
    if (!f->in_end || f->in_over || f->rest.n > 0)
        return;
    shutdown(f->fd, SHUT_WR);
    f->in_over = true;
}

static void agent_forward_flush(struct agent_forward *f)
{
    buf_consume(&f->rest, agent_forward_put(f, f->rest.p, f->rest.n));
    if (f->rest.n > 0)
        return;
    buf_free(&f->rest);
    rpc_call_pause(f->call, false);
    agent_forward_check_input_end(f);
}

/* False when it broke, and then f is gone. */
static bool agent_forward_read(struct agent_forward *f)
{
    Interlink__Agent__V1__PortForwardResponse response = INTERLINK__AGENT__V1__PORT_FORWARD_RESPONSE__INIT;

    if (f->agent->forward_block == NULL)
        f->agent->forward_block = xmalloc(AGENT_FORWARD_READ_SIZE);
    ssize_t n = recv(f->fd, f->agent->forward_block, AGENT_FORWARD_READ_SIZE, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n < 0) {
        agent_forward_broken(f, errno);
        return false;
    }
    response.data.data = f->agent->forward_block;
    response.data.len = (size_t)n;
    response.end = f->out_over = n == 0;
    f->blocked = !rpc_send(f->call, &response.base);
    return true;
}

static void agent_forward_on_event(void *arg, unsigned events)
{
    struct agent_forward *f = arg;

    (void)events; /* a hang-up is learnt by trying */
    if (f->rest.n > 0)
        agent_forward_flush(f);
    if (!f->out_over && !f->blocked && !agent_forward_read(f))
        return;
    agent_forward_next(f);
}

static void agent_forward_on_writable(void *arg)
{
    struct agent_forward *f = arg;

    f->blocked = false;
    if (f->fd >= 0)
        agent_forward_next(f);
}

/* ---- connecting ---- */

/* "connection refused" and so on: the first letter of strerror's words is not the beginning of ours. */
static void agent_forward_reason(int number, struct buf *out)
{
    const char *text = strerror(number);

    buf_printf(out, "%c%s", text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'a' ? text[0] - 'A' + 'a' : text[0], text + 1);
}

/* "port 8080: connection refused on 127.0.0.1 and ::1": addresses that fail alike are named together. */
static void agent_forward_fail(struct agent_forward *f)
{
    struct buf text cleanup_buf = BUF_INIT;
    enum status_code code = STATUS_FAILED_PRECONDITION;

    buf_printf(&text, "port %u: ", f->port);
    for (size_t i = 0; i < f->address_count; i++) {
        struct agent_forward_address *a = &f->addresses[i];
        size_t alike = 0, named = 0;
        if (a->number == 0)
            continue; /* named with one before */
        for (size_t j = i; j < f->address_count; j++)
            alike += f->addresses[j].number == a->number;
        if (a->number != ECONNREFUSED && a->number != EADDRNOTAVAIL && a->number != EAFNOSUPPORT)
            code = STATUS_UNAVAILABLE; /* not just that nothing listens, or that there is no such address: it may pass */
        buf_printf(&text, "%s", i > 0 ? "; " : "");
        agent_forward_reason(a->number, &text);
        for (size_t j = i, number = (size_t)a->number; j < f->address_count; j++) {
            if (f->addresses[j].number != (int)number)
                continue;
            buf_printf(&text, "%s%s", named == 0 ? " on " : named + 1 < alike ? ", " : " and ", f->addresses[j].host);
            f->addresses[j].number = 0;
            named++;
        }
    }
    rpc_failf(agent_forward_free(f), code, "%s", buf_cstr(&text));
}

static void agent_forward_try(struct agent_forward *f);

static void agent_forward_on_connected(void *arg, int fd, const struct status *err)
{
    struct agent_forward *f = arg;
    Interlink__Agent__V1__PortForwardResponse response = INTERLINK__AGENT__V1__PORT_FORWARD_RESPONSE__INIT;

    if (err != NULL) {
        f->addresses[f->address].number = f->connector.number;
        f->address++;
        agent_forward_try(f);
        return;
    }
    f->fd = fd;
    response.connected = true;
    f->blocked = !rpc_send(f->call, &response.base);
    agent_forward_flush(f);
    agent_forward_next(f);
}

static void agent_forward_try(struct agent_forward *f)
{
    struct address address = { .port = f->port };

    if (f->address == f->address_count) {
        agent_forward_fail(f);
        return;
    }
    snprintf(address.host, sizeof address.host, "%s", f->addresses[f->address].host);
    connector_start(f->agent->loop, &f->connector, &address, AGENT_FORWARD_CONNECT_MS, agent_forward_on_connected, f);
}

/* ---- the start ---- */

static bool agent_forward_add_address(struct agent_forward *f, const char *text, struct status *err)
{
    struct in6_addr ignored;

    if (inet_pton(AF_INET, text, &ignored) != 1 && inet_pton(AF_INET6, text, &ignored) != 1)
        return status_set(err, STATUS_INVALID_ARGUMENT, "start.addresses: \"%.60s\" is not an IP address", text);
    snprintf(f->addresses[f->address_count++].host, sizeof f->addresses[0].host, "%s", text);
    return true;
}

static bool agent_forward_start(struct agent_forward *f, const Interlink__Agent__V1__PortForwardRequest *request,
                                struct status *err)
{
    static const char *const local[] = { "127.0.0.1", "::1" };
    const Interlink__Agent__V1__PortForwardStart *start = request != NULL ? request->start : NULL;

    if (start == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "start: missing: it must be in the first message");
    if (start->port == 0 || start->port > UINT16_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "start.port: %u is not a port (1 to 65535)", start->port);
    if (start->n_addresses > AGENT_FORWARD_ADDRESSES_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "start.addresses: more than %d", AGENT_FORWARD_ADDRESSES_MAX);
    for (size_t i = 0; i < start->n_addresses; i++)
        if (!agent_forward_add_address(f, start->addresses[i], err))
            return false;
    for (size_t i = 0; start->n_addresses == 0 && i < COUNT_OF(local); i++)
        (void)agent_forward_add_address(f, local[i], err);
    f->port = (uint16_t)start->port;
    buf_append(&f->rest, request->data.data, request->data.len);
    rpc_call_pause(f->call, true);
    agent_forward_try(f);
    return true;
}

static void agent_forward_on_message(void *arg, const ProtobufCMessage *message)
{
    struct agent_forward *f = arg;
    const Interlink__Agent__V1__PortForwardRequest *request = (const void *)message;
    struct status err = STATUS_INIT;

    if (f->port == 0) {
        if (!agent_forward_start(f, request, &err))
            rpc_fail(agent_forward_free(f), &err);
        return;
    }
    if (request == NULL) {
        f->in_end = true;
        agent_forward_check_input_end(f);
    } else if (!f->in_over) {
        size_t done = agent_forward_put(f, request->data.data, request->data.len);
        buf_append(&f->rest, request->data.data + done, request->data.len - done);
        if (f->rest.n > 0)
            rpc_call_pause(f->call, true);
    }
    agent_forward_next(f);
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
    f->call = call;
    f->fd = -1;
    f->connector.fd = -1;
    agent->forward_count++;
    rpc_call_on_message(call, agent_forward_on_message, f);
    rpc_call_on_writable(call, agent_forward_on_writable, f);
    rpc_call_on_cancel(call, agent_forward_on_cancel, f);
}
