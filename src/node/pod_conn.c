/* SPDX-License-Identifier: Apache-2.0 */
#include "node/pod_conn.h"

#include "node/link.h"
#include "node/sandbox.h"

#include <sys/stat.h>
#include <unistd.h>

/* One of both is there. */
struct pod_conn {
    struct pod_conn_listener listener;
    struct tcp_dial *dial;   /* owned */
    struct rpc_request *rpc; /* owned */
};

static void pod_conn_on_finish(void *arg, const struct status *err)
{
    struct pod_conn *c = arg;
    struct pod_conn_listener l = c->listener;

    free(c);
    l.on_finish(l.arg, err);
}

static void pod_conn_on_writable(void *arg)
{
    struct pod_conn *c = arg;

    c->listener.on_writable(c->listener.arg);
}

/* ---- by the agent ---- */

/* One message is one of the three. */
static void pod_conn_on_message(void *arg, const ProtobufCMessage *message)
{
    struct pod_conn *c = arg;
    const Interlink__Agent__V1__PortForwardResponse *response = (const void *)message;

    if (response->data.len > 0)
        c->listener.on_data(c->listener.arg, (struct str){ (const char *)response->data.data, response->data.len });
    else if (response->end)
        c->listener.on_end(c->listener.arg);
    else if (response->connected)
        c->listener.on_connected(c->listener.arg);
}

static void pod_conn_ask(struct pod_conn *c, struct link *link, uint16_t port, const char *const *addresses, size_t count)
{
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/PortForward",
        .bulk = true,
        .output = &interlink__agent__v1__port_forward_response__descriptor,
        .on_message = pod_conn_on_message,
        .on_writable = pod_conn_on_writable,
        .on_finish = pod_conn_on_finish,
        .arg = c,
    };
    Interlink__Agent__V1__PortForwardStart start = INTERLINK__AGENT__V1__PORT_FORWARD_START__INIT;
    Interlink__Agent__V1__PortForwardRequest first = INTERLINK__AGENT__V1__PORT_FORWARD_REQUEST__INIT;

    start.port = port;
    start.addresses = (char **)(uintptr_t)addresses;
    start.n_addresses = count;
    first.start = &start;
    c->rpc = rpc_request_start(link_conn(link), &options);
    rpc_request_send(c->rpc, &first.base);
}

/* ---- by ourselves ---- */

static void pod_conn_on_connected(void *arg)
{
    struct pod_conn *c = arg;

    c->listener.on_connected(c->listener.arg);
}

static void pod_conn_on_data(void *arg, struct str piece)
{
    struct pod_conn *c = arg;

    c->listener.on_data(c->listener.arg, piece);
}

static void pod_conn_on_end(void *arg)
{
    struct pod_conn *c = arg;

    c->listener.on_end(c->listener.arg);
}

/* -1 when it is our own. */
static int pod_conn_foreign(int netns_fd)
{
    struct stat ours, theirs;

    if (stat("/proc/self/ns/net", &ours) < 0 || fstat(netns_fd, &theirs) < 0 || ours.st_ino != theirs.st_ino ||
        ours.st_dev != theirs.st_dev)
        return netns_fd;
    close(netns_fd);
    return -1;
}

/* ---- both ---- */

struct pod_conn *pod_conn_start(struct sandbox *sandbox, uint16_t port, const char *const *addresses,
                                const struct pod_conn_listener *listener, struct status *err)
{
    struct node *node = sandbox->node;
    struct link *link = sandbox_link(sandbox, err);
    size_t count = 0;

    if (link == NULL)
        return NULL;
    while (addresses[count] != NULL)
        count++;
    struct pod_conn *c = xcalloc(1, sizeof *c);
    c->listener = *listener;
    int netns_fd = link_netns(link);
    if (netns_fd >= 0) {
        const struct tcp_dial_listener own = {
            pod_conn_on_connected, pod_conn_on_data, pod_conn_on_end, pod_conn_on_writable, pod_conn_on_finish, c,
        };
        netns_fd = pod_conn_foreign(netns_fd);
        c->dial = tcp_dial_start(node->loop, &node->dialer, netns_fd, port, addresses, count, &own, err);
    }
    if (c->dial == NULL) { /* what is wrong with the addresses the agent says, too */
        *err = (struct status)STATUS_INIT;
        pod_conn_ask(c, link, port, addresses, count);
    }
    return c;
}

bool pod_conn_send(struct pod_conn *c, struct str piece)
{
    Interlink__Agent__V1__PortForwardRequest request = INTERLINK__AGENT__V1__PORT_FORWARD_REQUEST__INIT;

    if (c->dial != NULL)
        return tcp_dial_send(c->dial, piece.p, piece.n);
    request.data = (ProtobufCBinaryData){ piece.n, (uint8_t *)(uintptr_t)piece.p };
    return rpc_request_send(c->rpc, &request.base);
}

void pod_conn_half_close(struct pod_conn *c)
{
    if (c->dial != NULL)
        tcp_dial_half_close(c->dial);
    else
        rpc_request_half_close(c->rpc);
}

void pod_conn_pause(struct pod_conn *c, bool paused)
{
    if (c->dial != NULL)
        tcp_dial_pause(c->dial, paused);
    else
        rpc_request_pause(c->rpc, paused);
}

void pod_conn_cancel(struct pod_conn *c)
{
    if (c == NULL)
        return;
    tcp_dial_cancel(c->dial);
    rpc_request_cancel(c->rpc);
    free(c);
}
