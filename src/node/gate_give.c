/* SPDX-License-Identifier: Apache-2.0 */
/* What address a pod gets. */
#include "node/gate_internal.h"

#include <netinet/in.h>
#include <unistd.h>

#include "rpc/pb.h"

/* There is one of these among the records of the node. */
#define GATE_RECORD_ID "relay"

size_t gate_declared(const Runtime__V1__PodSandboxConfig *config, uint16_t *out, size_t max)
{
    size_t count = 0;

    for (size_t i = 0; i < config->n_port_mappings && count < max; i++) {
        const Runtime__V1__PortMapping *m = config->port_mappings[i];
        bool known = m->protocol != RUNTIME__V1__PROTOCOL__TCP || m->container_port <= 0 || m->container_port > UINT16_MAX;
        for (size_t k = 0; k < count; k++)
            known = known || out[k] == m->container_port;
        if (!known)
            out[count++] = (uint16_t)m->container_port;
    }
    return count;
}

/* ---- addresses of their own ---- */

/* The range from where it stood, round once. The first two addresses are left out, and IPv4's last one: others take them for the
 * network's, the gateway's and all hosts'. */
static bool gate_next(const struct gate *gate, struct gate_range *range, struct ip *out)
{
    uint32_t size = prefix_size(&range->prefix), first = 2;
    uint32_t end = ip_is_v4(&range->prefix.ip) ? size - 1 : size;
    char text[IP_TEXT_MAX];

    if (size < 8) { /* so small that each one counts */
        first = 0;
        end = size;
    }
    for (uint32_t tries = 0; tries < end - first && tries < GATE_RANGE_TRIES_MAX; tries++) {
        uint32_t n = range->next >= first && range->next < end ? range->next : first;
        range->next = n + 1;
        prefix_at(&range->prefix, n, out);
        ip_format(out, text);
        if (strmap_get(&gate->by_ip, text) == NULL)
            return true;
    }
    return false;
}

void gate_restore(struct gate *gate, const Interlink__State__V1__RelayRanges *record)
{
    struct ip ip;

    for (size_t i = 0; record != NULL && i < record->n_last; i++)
        for (size_t k = 0; k < gate->range_count && ip_parse(record->last[i], &ip); k++)
            if (prefix_contains(&gate->ranges[k].prefix, &ip))
                gate->ranges[k].next = prefix_index(&gate->ranges[k].prefix, &ip) + 1;
}

static void gate_remember(struct gate *gate)
{
    Interlink__State__V1__Node record = INTERLINK__STATE__V1__NODE__INIT;
    Interlink__State__V1__RelayRanges ranges = INTERLINK__STATE__V1__RELAY_RANGES__INIT;
    char texts[GATE_RANGES_MAX][IP_TEXT_MAX], *last[GATE_RANGES_MAX];

    for (size_t i = 0; i < gate->range_count; i++) {
        struct ip ip;
        if (gate->ranges[i].next == 0 || !prefix_at(&gate->ranges[i].prefix, gate->ranges[i].next - 1, &ip))
            continue;
        ip_format(&ip, texts[ranges.n_last]);
        last[ranges.n_last] = texts[ranges.n_last];
        ranges.n_last++;
    }
    ranges.last = last;
    record.relay = &ranges;
    state_put(gate->node->state, STATE_NODE, GATE_RECORD_ID, &record.base, NULL, NULL);
}

static bool gate_give_own(struct gate *gate, Interlink__State__V1__Sandbox *record, struct status *err)
{
    char text[IP_TEXT_MAX + 4];
    struct ip ip;

    record->additional_ips = xcalloc(GATE_RANGES_MAX, sizeof *record->additional_ips);
    for (size_t i = 0, given = 0; i < gate->range_count; i++) {
        struct gate_range *range = &gate->ranges[i];
        if (!range->current || given == 2)
            continue;
        if (!gate_next(gate, range, &ip)) {
            prefix_format(&range->prefix, text);
            return status_set(err, STATUS_UNAVAILABLE, "no address of %s is free for the pod: each one is another pod's", text);
        }
        ip_format(&ip, text);
        if (given++ == 0)
            pb_set(&record->ip, text);
        else
            record->additional_ips[record->n_additional_ips++] = xstrdup(text);
    }
    record->own_addresses = true;
    gate_remember(gate);
    return true;
}

/* ---- the node's ---- */

int gate_bind(const struct ip *ip, uint16_t port, struct status *err)
{
    struct sockaddr_storage a;
    socklen_t n = ip_to_sockaddr(ip, port, &a);
    int on = 1;
    char text[IP_TEXT_MAX];
    int fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    ip_format(ip, text);
    if (fd < 0) {
        status_errno(err, "cannot make a socket for %s", text);
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    /* No interface carries it (Linux 2.4, 4.15). */
    if (ip_is_v4(ip))
        setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on);
    else
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (!ip_is_v4(ip))
        setsockopt(fd, IPPROTO_IPV6, 78 /* IPV6_FREEBIND, which libc headers do not have everywhere */, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&a, n) == 0)
        return fd;
    status_errno(err, "port %u of %s cannot be had", port, text);
    close(fd);
    return -1;
}

/* Whether one of our pods has it already: sockets that do not listen yet do not keep each other out. */
static const struct gate_pod *gate_port_owner(const struct gate *gate, uint16_t port)
{
    for (LIST_EACH(struct gate_pod, pod, &gate->pods, link))
        for (LIST_EACH(struct gate_port, p, &pod->ports, link))
            if (!pod->own && p->port == port)
                return pod;
    return NULL;
}

/* A bound socket may be let go of again: it has listened to nothing. But whether the port is free is only known from listening. */
static bool gate_is_free(const struct gate *gate, uint16_t port, struct status *err)
{
    const struct gate_pod *owner = gate_port_owner(gate, port);
    struct ip ip;

    if (owner != NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "port %u of this node is pod %s/%s's", port,
                          owner->sandbox->record->config->metadata->namespace_, owner->sandbox->record->config->metadata->name);
    if (!ip_parse(gate->node->node_ip, &ip))
        return false;
    cleanup_close int fd = gate_bind(&ip, port, err);
    return fd >= 0 && (listen(fd, 1) == 0 || status_errno(err, "port %u of this node cannot be had", port));
}

static void gate_give_nodes(const struct gate *gate, Interlink__State__V1__Sandbox *record)
{
    const Runtime__V1__PodSandboxMetadata *m = record->config->metadata;
    uint16_t ports[GATE_POD_SOCKETS_MAX];
    size_t count = gate_declared(record->config, ports, COUNT_OF(ports));
    struct status err = STATUS_INIT;

    for (size_t i = 0; i < count; i++) {
        if (gate_is_free(gate, ports[i], &err))
            continue;
        log_warn("pod %s/%s has no address, so that nobody takes another one for it: %s. With addresses of their own pods would not "
                 "meet: %s", m->namespace_, m->name, err.message, gate->why.message);
        return;
    }
    pb_set(&record->ip, gate->node->node_ip);
}

/* ---- both ---- */

static void gate_mention_other_protocols(const Runtime__V1__PodSandboxConfig *config)
{
    for (size_t i = 0; i < config->n_port_mappings; i++) {
        const Runtime__V1__PortMapping *m = config->port_mappings[i];
        if (m->protocol == RUNTIME__V1__PROTOCOL__TCP)
            continue;
        log_info("pod %s/%s declares port %d/%s: only TCP is carried to pods on other machines", config->metadata->namespace_,
                 config->metadata->name, m->container_port, m->protocol == RUNTIME__V1__PROTOCOL__UDP ? "UDP" : "SCTP");
        return;
    }
}

bool gate_plan(struct node *node, const struct handler *handler, Interlink__State__V1__Sandbox *record, struct status *err)
{
    struct gate *gate = node->gate;

    if (handler->local || handler->per_container || record->network != NULL || gate == NULL)
        return true;
    if (sandbox_is_host_network(record->config)) {
        pb_set(&record->ip, node->node_ip);
        return true;
    }
    gate_refresh(gate);
    gate_mention_other_protocols(record->config);
    if (gate->mode > GATE_NODE)
        return gate_give_own(gate, record, err);
    gate_give_nodes(gate, record);
    return true;
}

#undef GATE_RECORD_ID
