/* SPDX-License-Identifier: Apache-2.0 */
/* The ports of one pod. */
#include "node/gate_internal.h"

#include <unistd.h>

#include "node/link.h"
#include "rpc/pb.h"
#include "text/json.h"

static void gate_port_on_accept(void *arg, int fd)
{
    struct gate_port *port = arg;
    struct sockaddr_storage a;
    socklen_t n = sizeof a;

    if (getsockname(fd, (struct sockaddr *)&a, &n) == 0)
        gate_conn_start(port, a.ss_family == AF_INET6, fd);
    else
        gate_refuse(fd);
}

/* ---- opening and closing ---- */

static bool gate_port_listen(struct gate_port *port, const struct ip *ip, bool ipv6, struct status *err)
{
    struct gate_pod *pod = port->pod;
    int fd = port->reserved_fd;

    if (pod->socket_count == GATE_POD_SOCKETS_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "port %u: %d ports of the pod are open already", port->port, GATE_POD_SOCKETS_MAX);
    port->reserved_fd = -1;
    if (fd < 0)
        fd = gate_bind(ip, port->port, err);
    if (fd < 0 || !listener_take(pod->gate->node->loop, &port->listeners[ipv6], fd, GATE_BACKLOG, gate_port_on_accept, port, err))
        return false;
    pod->socket_count++;
    return true;
}

static void gate_port_open(struct gate_port *port, size_t which, bool open)
{
    struct gate_pod *pod = port->pod;
    const struct ip *ip = &pod->ips[which];
    bool ipv6 = !ip_is_v4(ip), ok = true;
    struct status err = STATUS_INIT;

    if (port->open[ipv6] == open)
        return;
    if (pod->own && pod->gate->lookup != NULL) {
        ok = sk_lookup_set_port(pod->gate->lookup, ip, port->port, open, &err);
    } else if (open) {
        ok = gate_port_listen(port, ip, ipv6, &err);
    } else {
        listener_close(&port->listeners[ipv6]);
        pod->socket_count--;
        if (!pod->own) /* it stays the pod's */
            port->reserved_fd = gate_bind(ip, port->port, &err);
    }
    if (ok)
        port->open[ipv6] = open;
    if (err.code == STATUS_OK || pod->complained)
        return;
    pod->complained = true;
    log_warn("pod %.13s: %s", pod->sandbox->record->id, err.message);
}

static void gate_port_set(struct gate_port *port, const char *ipv4, const char *ipv6)
{
    const struct gate_pod *pod = port->pod;

    snprintf(port->to[0], sizeof port->to[0], "%s", ipv4);
    snprintf(port->to[1], sizeof port->to[1], "%s", ipv6);
    for (size_t i = 0; i < pod->ip_count; i++)
        gate_port_open(port, i, *port->to[!ip_is_v4(&pod->ips[i])] != '\0');
}

static struct gate_port *gate_port_find(struct gate_pod *pod, uint16_t number)
{
    for (LIST_EACH(struct gate_port, port, &pod->ports, link))
        if (port->port == number)
            return port;
    return NULL;
}

static struct gate_port *gate_port_add(struct gate_pod *pod, uint16_t number)
{
    struct gate_port *port = xcalloc(1, sizeof *port);

    port->pod = pod;
    port->port = number;
    port->reserved_fd = -1;
    port->listeners[0].fd = port->listeners[1].fd = -1;
    list_append(&pod->ports, &port->link);
    return port;
}

static void gate_port_free(struct gate_port *port)
{
    gate_port_set(port, "", "");
    if (port->reserved_fd >= 0)
        close(port->reserved_fd);
    list_remove(&port->link);
    free(port);
}

/* ---- what the agent tells ---- */

static void gate_pod_take(struct gate_pod *pod, const Interlink__Agent__V1__PortsResponse *message)
{
    for (LIST_EACH(struct gate_port, port, &pod->ports, link))
        port->told = false;
    for (size_t i = 0; i < message->n_ports && i < AGENT_PORTS_MAX; i++) { /* an agent of ours tells no more */
        const Interlink__Agent__V1__ListeningPort *told = message->ports[i];
        struct gate_port *port = told->port > 0 && told->port <= UINT16_MAX ? gate_port_find(pod, (uint16_t)told->port) : NULL;
        if (port == NULL && pod->own && told->port > 0 && told->port <= UINT16_MAX)
            port = gate_port_add(pod, (uint16_t)told->port);
        if (port == NULL)
            continue;
        port->told = true;
        gate_port_set(port, told->ipv4, told->ipv6);
    }
    for (LIST_EACH_SAFE(struct gate_port, port, &pod->ports, link)) {
        if (port->told)
            continue;
        if (pod->own)
            gate_port_free(port);
        else
            gate_port_set(port, "", "");
    }
}

static void gate_pod_on_ports(void *arg, const ProtobufCMessage *message)
{
    gate_pod_take(arg, (const void *)message);
}

/* It cannot tell: what the pod declares counts. */
static void gate_pod_on_told_over(void *arg, const struct status *status)
{
    struct gate_pod *pod = arg;
    uint16_t ports[GATE_POD_SOCKETS_MAX];

    pod->asked = NULL;
    if (status->code != STATUS_UNIMPLEMENTED)
        return;
    log_info("pod %.13s: its agent cannot tell which ports are listened on: those that it declares count as open",
             pod->sandbox->record->id);
    for (size_t i = 0, n = gate_declared(pod->sandbox->record->config, ports, COUNT_OF(ports)); i < n; i++) {
        struct gate_port *port = gate_port_find(pod, ports[i]);
        gate_port_set(port != NULL ? port : gate_port_add(pod, ports[i]), "127.0.0.1", "::1");
    }
}

void gate_on_agent(struct sandbox *sandbox)
{
    struct gate_pod *pod = sandbox->gate;
    Interlink__Agent__V1__PortsRequest request = INTERLINK__AGENT__V1__PORTS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Ports",
        .output = &interlink__agent__v1__ports_response__descriptor,
        .on_message = gate_pod_on_ports,
        .on_finish = gate_pod_on_told_over,
        .arg = pod,
    };

    if (pod == NULL || pod->asked != NULL)
        return;
    pod->asked = rpc_request_start(link_conn(sandbox->link), &options);
    rpc_request_send(pod->asked, &request.base);
    rpc_request_half_close(pod->asked);
}

void gate_on_agent_lost(struct sandbox *sandbox)
{
    struct gate_pod *pod = sandbox->gate;

    if (pod == NULL)
        return;
    rpc_request_cancel(pod->asked);
    pod->asked = NULL;
    gate_conns_break(pod);
    for (LIST_EACH_SAFE(struct gate_port, port, &pod->ports, link)) {
        if (pod->own)
            gate_port_free(port);
        else
            gate_port_set(port, "", "");
    }
}

void gate_on_stopped(struct sandbox *sandbox)
{
    struct gate_pod *pod = sandbox->gate;

    gate_on_agent_lost(sandbox);
    while (pod != NULL && !list_empty(&pod->ports))
        gate_port_free(CONTAINER_OF(pod->ports.next, struct gate_port, link));
}

/* ---- the pod ---- */

static void gate_pod_reserve(struct gate_pod *pod)
{
    uint16_t ports[GATE_POD_SOCKETS_MAX];
    size_t count = gate_declared(pod->sandbox->record->config, ports, COUNT_OF(ports));

    for (size_t i = 0; i < count; i++) {
        struct status err = STATUS_INIT;
        struct gate_port *port = gate_port_add(pod, ports[i]);
        port->reserved_fd = gate_bind(&pod->ips[0], ports[i], &err);
        if (port->reserved_fd < 0)
            log_warn("pod %.13s: %s", pod->sandbox->record->id, err.message);
    }
}

static void gate_pod_add_ip(struct gate_pod *pod, const char *text)
{
    if (pod->ip_count == COUNT_OF(pod->ips) || !ip_parse(text, &pod->ips[pod->ip_count]))
        return;
    pod->ip_count++;
    if (pod->own)
        strmap_put(&pod->gate->by_ip, text, pod);
}

static void gate_pod_add(struct gate *gate, struct sandbox *sandbox)
{
    struct gate_pod *pod = xcalloc(1, sizeof *pod);
    const Interlink__State__V1__Sandbox *record = sandbox->record;

    pod->gate = gate;
    pod->sandbox = sandbox;
    pod->own = record->own_addresses;
    list_init(&pod->ports);
    list_init(&pod->conns);
    list_append(&gate->pods, &pod->link);
    sandbox->gate = pod;
    gate_pod_add_ip(pod, record->ip);
    for (size_t i = 0; i < record->n_additional_ips; i++)
        gate_pod_add_ip(pod, record->additional_ips[i]);
    if (!pod->own && record->phase != INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY)
        gate_pod_reserve(pod);
}

void gate_add(struct sandbox *sandbox)
{
    struct gate *gate = sandbox->node->gate;

    if (gate == NULL || sandbox->gate != NULL || sandbox->handler->local || sandbox->record->network != NULL ||
        sandbox_is_host_network(sandbox->record->config) || *sandbox->record->ip == '\0')
        return;
    gate_pod_add(gate, sandbox);
}

void gate_remove(struct sandbox *sandbox)
{
    struct gate_pod *pod = sandbox->gate;
    char text[IP_TEXT_MAX];

    if (pod == NULL)
        return;
    gate_on_stopped(sandbox);
    for (size_t i = 0; pod->own && i < pod->ip_count; i++) {
        ip_format(&pod->ips[i], text);
        strmap_remove(&pod->gate->by_ip, text);
    }
    list_remove(&pod->link);
    free(pod);
    sandbox->gate = NULL;
}

/* ---- one socket for all ---- */

void gate_pod_on_accept(void *arg, int fd)
{
    struct gate *gate = arg;
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    struct ip ip;
    uint16_t number;
    char text[IP_TEXT_MAX];
    struct gate_pod *pod = NULL;

    if (getsockname(fd, (struct sockaddr *)&a, &n) == 0 && ip_of_sockaddr((struct sockaddr *)&a, &ip, &number)) {
        ip_format(&ip, text);
        pod = strmap_get(&gate->by_ip, text);
    }
    struct gate_port *port = pod != NULL ? gate_port_find(pod, number) : NULL;
    if (port != NULL)
        gate_conn_start(port, !ip_is_v4(&ip), fd);
    else
        gate_refuse(fd);
}

/* ---- for people ---- */

void gate_write(struct json_writer *w, const struct sandbox *sandbox)
{
    json_write_array(w);
    if (sandbox->gate != NULL)
        for (LIST_EACH(struct gate_port, port, &sandbox->gate->ports, link))
            if (port->open[0] || port->open[1])
                json_write_i64(w, port->port);
    json_write_end(w);
}
