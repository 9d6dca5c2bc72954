/* SPDX-License-Identifier: Apache-2.0 */
/* One connection: what comes from one side goes to the other, ends and resets with it. What a side does not take is not read from
 * the other. */
#include "node/gate_internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "node/pod_conn.h"

struct gate_conn {
    struct list link;
    struct gate_pod *pod;
    struct tcp_dial *client;  /* owned; NULL: gone in peace */
    struct pod_conn *server;  /* owned; NULL likewise */
};

static void gate_conn_free(struct gate_conn *c)
{
    tcp_dial_cancel(c->client);
    pod_conn_cancel(c->server);
    list_remove(&c->link);
    c->pod->conn_count--;
    c->pod->gate->conn_count--;
    free(c);
}

static void gate_conn_check_end(struct gate_conn *c, const struct status *err)
{
    if (err->code != STATUS_OK && err->code != STATUS_FAILED_PRECONDITION)
        log_debug("pod %.13s: %s", c->pod->sandbox->record->id, err->message);
    /* Both sides have to end in peace; else the other one sees a reset, too. */
    if (err->code != STATUS_OK || (c->client == NULL && c->server == NULL))
        gate_conn_free(c);
}

/* ---- from the client ---- */

static void gate_client_on_connected(void *arg)
{
    (void)arg; /* it was from the start */
}

static void gate_client_on_data(void *arg, struct str piece)
{
    struct gate_conn *c = arg;

    if (c->server == NULL) /* nobody is there any more to hear it */
        gate_conn_free(c);
    else if (!pod_conn_send(c->server, piece))
        tcp_dial_pause(c->client, true);
}

static void gate_client_on_end(void *arg)
{
    struct gate_conn *c = arg;

    if (c->server != NULL)
        pod_conn_half_close(c->server);
}

static void gate_client_on_writable(void *arg)
{
    struct gate_conn *c = arg;

    if (c->server != NULL)
        pod_conn_pause(c->server, false);
}

static void gate_client_on_finish(void *arg, const struct status *err)
{
    struct gate_conn *c = arg;

    c->client = NULL;
    gate_conn_check_end(c, err);
}

/* ---- from the pod ---- */

static void gate_server_on_data(void *arg, struct str piece)
{
    struct gate_conn *c = arg;

    if (c->client == NULL)
        gate_conn_free(c);
    else if (!tcp_dial_send(c->client, piece.p, piece.n))
        pod_conn_pause(c->server, true);
}

static void gate_server_on_end(void *arg)
{
    struct gate_conn *c = arg;

    if (c->client != NULL)
        tcp_dial_half_close(c->client);
}

/* It is there, or takes more again. */
static void gate_server_on_writable(void *arg)
{
    struct gate_conn *c = arg;

    if (c->client != NULL)
        tcp_dial_pause(c->client, false);
}

static void gate_server_on_finish(void *arg, const struct status *err)
{
    struct gate_conn *c = arg;

    c->server = NULL;
    gate_conn_check_end(c, err);
}

/* ---- both ---- */

void gate_refuse(int fd)
{
    socket_reset_at_close(fd);
    close(fd);
}

static void gate_keep_alive(int fd)
{
    int on = 1, after = GATE_KEEPALIVE_S;

    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &after, sizeof after);
}

void gate_conn_start(struct gate_port *port, bool ipv6, int fd)
{
    struct gate_pod *pod = port->pod;
    struct gate_conn *c = xcalloc(1, sizeof *c);
    const struct tcp_dial_listener from = {
        gate_client_on_connected, gate_client_on_data, gate_client_on_end, gate_client_on_writable, gate_client_on_finish, c,
    };
    const struct pod_conn_listener to = {
        gate_server_on_writable, gate_server_on_data, gate_server_on_end, gate_server_on_writable, gate_server_on_finish, c,
    };
    const char *addresses[] = { port->to[ipv6], NULL };
    struct status err = STATUS_INIT;

    if (pod->conn_count == GATE_POD_CONNECTIONS_MAX || pod->gate->conn_count == GATE_CONNECTIONS_MAX)
        status_set(&err, STATUS_RESOURCE_EXHAUSTED, "there are %zu connections to it, %zu to all pods", pod->conn_count, pod->gate->conn_count);
    if (err.code == STATUS_OK)
        c->server = pod_conn_start(pod->sandbox, port->port, addresses, &to, &err);
    if (c->server == NULL) {
        gate_turned_away(pod->gate, pod, err.message);
        gate_refuse(fd);
        free(c);
        return;
    }
    c->pod = pod;
    list_append(&pod->conns, &c->link);
    pod->conn_count++;
    pod->gate->conn_count++;
    gate_keep_alive(fd);
    c->client = tcp_dial_adopt(pod->gate->node->loop, &pod->gate->node->dialer, fd, &from);
}

void gate_conns_break(struct gate_pod *pod)
{
    while (!list_empty(&pod->conns))
        gate_conn_free(CONTAINER_OF(pod->conns.next, struct gate_conn, link));
}
