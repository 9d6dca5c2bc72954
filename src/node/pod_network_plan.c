/* SPDX-License-Identifier: Apache-2.0 */
/* What a new pod's network is to be, and what its plugins may take from the runtime (containernetworking/cni, CONVENTIONS.md). */
#include "node/pod_network.h"

#include <arpa/inet.h>

#include "node/sandbox.h"
#include "rpc/pb.h"
#include "text/quantity.h"

/* Kubernetes' bounds for the two annotations, in bits a second; and "no bound" for bursts, as containerd has it. */
#define POD_NETWORK_RATE_MIN 1000
#define POD_NETWORK_RATE_MAX 1000000000000000
#define POD_NETWORK_BURST UINT32_MAX

/* ---- ports of the machine ---- */

static bool pod_network_check_port(const Runtime__V1__PortMapping *m, size_t index, struct status *err)
{
    uint8_t bytes[16];

    if (m->host_port < 0 || m->host_port > 65535)
        return status_set(err, STATUS_INVALID_ARGUMENT, "config.port_mappings[%zu].host_port: %d is no port", index, m->host_port);
    if (m->container_port < 0 || m->container_port > 65535 || (m->host_port > 0 && m->container_port == 0))
        return status_set(err, STATUS_INVALID_ARGUMENT, "config.port_mappings[%zu].container_port: %d is no port", index,
                          m->container_port);
    if (m->protocol != RUNTIME__V1__PROTOCOL__TCP && m->protocol != RUNTIME__V1__PROTOCOL__UDP &&
        m->protocol != RUNTIME__V1__PROTOCOL__SCTP)
        return status_set(err, STATUS_INVALID_ARGUMENT, "config.port_mappings[%zu].protocol: %d is unknown", index, (int)m->protocol);
    if (*m->host_ip != '\0' && inet_pton(AF_INET, m->host_ip, bytes) != 1 && inet_pton(AF_INET6, m->host_ip, bytes) != 1)
        return status_set(err, STATUS_INVALID_ARGUMENT, "config.port_mappings[%zu].host_ip: \"%.60s\" is no address", index,
                          m->host_ip);
    return true;
}

/* Every mapping must make sense. True also when none asks for a port of the machine (kubelet sends the others, too). */
static bool pod_network_check_ports(const Runtime__V1__PodSandboxConfig *config, bool *any, struct status *err)
{
    *any = false;
    for (size_t i = 0; i < config->n_port_mappings; i++) {
        if (!pod_network_check_port(config->port_mappings[i], i, err))
            return false;
        *any = *any || config->port_mappings[i]->host_port > 0;
    }
    return true;
}

/* In the machine's network a container that listens on a port has that port of the machine, on the addresses that it likes. */
static bool pod_network_check_plain_ports(const Runtime__V1__PodSandboxConfig *config, const struct handler *handler, struct status *err)
{
    for (size_t i = 0; i < config->n_port_mappings; i++) {
        const Runtime__V1__PortMapping *m = config->port_mappings[i];
        if (m->host_port == 0)
            continue;
        if (!handler->local)
            return status_set(err, STATUS_FAILED_PRECONDITION,
                              "config.port_mappings[%zu].host_port: %d: pods of handler %s run on other machines, which a port of this one "
                              "does not lead to", i, m->host_port, handler->options->name);
        if (m->host_port != m->container_port)
            return status_set(err, STATUS_FAILED_PRECONDITION,
                              "config.port_mappings[%zu].host_port: %d is not container_port %d: the pod uses this machine's network, "
                              "where nothing maps ports; a pod network (CNI) with the capability portMappings would", i, m->host_port,
                              m->container_port);
        if (*m->host_ip != '\0' && strcmp(m->host_ip, "0.0.0.0") != 0 && strcmp(m->host_ip, "::") != 0)
            return status_set(err, STATUS_FAILED_PRECONDITION,
                              "config.port_mappings[%zu].host_ip: %s: the pod uses this machine's network, on all addresses that it "
                              "listens on; a pod network (CNI) with the capability portMappings would choose", i, m->host_ip);
    }
    return true;
}

/* ---- what plugins may take ---- */

static void pod_network_write_ports(struct json_writer *w, const Runtime__V1__PodSandboxConfig *config)
{
    static const char *const protocols[] = { "tcp", "udp", "sctp" };

    json_write_member_array(w, "portMappings");
    for (size_t i = 0; i < config->n_port_mappings; i++) {
        const Runtime__V1__PortMapping *m = config->port_mappings[i];
        if (m->host_port == 0)
            continue;
        json_write_object(w);
        json_write_member_i64(w, "hostPort", m->host_port);
        json_write_member_i64(w, "containerPort", m->container_port);
        json_write_member_string(w, "protocol", protocols[m->protocol]);
        if (*m->host_ip != '\0')
            json_write_member_string(w, "hostIP", m->host_ip);
        json_write_end(w);
    }
    json_write_end(w);
}

/* *rate: 0 when the annotation is not there. */
static bool pod_network_read_rate(const Runtime__V1__PodSandboxConfig *config, const char *key, int64_t *rate, struct status *err)
{
    const char *text = pb_label(config->n_annotations, config->annotations, key);

    *rate = 0;
    if (text == NULL)
        return true;
    if (!quantity_parse(text, QUANTITY_ONE, rate, err)) {
        err->code = STATUS_INVALID_ARGUMENT;
        return status_prefix(err, "config.annotations[%s]", key);
    }
    return (*rate >= POD_NETWORK_RATE_MIN && *rate <= POD_NETWORK_RATE_MAX) ||
           status_set(err, STATUS_INVALID_ARGUMENT, "config.annotations[%s]: \"%.40s\" is not between 1k and 1P (bits a second)", key,
                      text);
}

static bool pod_network_write_bandwidth(struct json_writer *w, const Runtime__V1__PodSandboxConfig *config,
                                        const struct cni_network *network, struct status *err)
{
    int64_t in, out;

    if (!pod_network_read_rate(config, "kubernetes.io/ingress-bandwidth", &in, err) ||
        !pod_network_read_rate(config, "kubernetes.io/egress-bandwidth", &out, err))
        return false;
    if (in == 0 && out == 0)
        return true;
    if (!cni_network_can(network, "bandwidth")) {
        log_warn("pod %s/%s asks for a bandwidth, which no plugin of network %s can limit", config->metadata->namespace_,
                 config->metadata->name, network->name);
        return true;
    }
    json_write_member_object(w, "bandwidth");
    if (in > 0) {
        json_write_member_i64(w, "ingressRate", in);
        json_write_member_i64(w, "ingressBurst", POD_NETWORK_BURST);
    }
    if (out > 0) {
        json_write_member_i64(w, "egressRate", out);
        json_write_member_i64(w, "egressBurst", POD_NETWORK_BURST);
    }
    json_write_end(w);
    return true;
}

static void pod_network_write_words(struct json_writer *w, const char *key, char *const *words, size_t count)
{
    if (count == 0)
        return;
    json_write_member_array(w, key);
    for (size_t i = 0; i < count; i++)
        json_write_string(w, words[i]);
    json_write_end(w);
}

static void pod_network_write_dns(struct json_writer *w, const Runtime__V1__DNSConfig *dns)
{
    json_write_member_object(w, "dns");
    pod_network_write_words(w, "servers", dns->servers, dns->n_servers);
    pod_network_write_words(w, "searches", dns->searches, dns->n_searches);
    pod_network_write_words(w, "options", dns->options, dns->n_options);
    json_write_end(w);
}

/* One address out of each prefix of the node's. */
static void pod_network_write_ranges(struct json_writer *w, const char *cidrs)
{
    json_write_member_array(w, "ipRanges");
    for (const char *at = cidrs; *at != '\0';) {
        size_t n = strcspn(at, ",");
        json_write_array(w);
        json_write_object(w);
        json_write_key(w, "subnet");
        json_write_bytes(w, (struct str){ at, n });
        json_write_end(w);
        json_write_end(w);
        at += n + (at[n] == ',');
    }
    json_write_end(w);
}

static void pod_network_write_annotations(struct json_writer *w, const Runtime__V1__PodSandboxConfig *config)
{
    json_write_member_object(w, "io.kubernetes.cri.pod-annotations");
    for (size_t i = 0; i < config->n_annotations; i++)
        json_write_member_string(w, config->annotations[i]->key, config->annotations[i]->value);
    json_write_end(w);
}

/* Only what some plugin of the network can take: it is kept with the pod. */
static bool pod_network_write_capabilities(const struct node *node, const Runtime__V1__PodSandboxConfig *config,
                                           const struct cni_network *network, bool ports, struct buf *out, struct status *err)
{
    struct json_writer w;

    json_writer_init(&w, out, 0);
    json_write_object(&w);
    if (ports)
        pod_network_write_ports(&w, config);
    if (!pod_network_write_bandwidth(&w, config, network, err))
        return false;
    if (config->dns_config != NULL && cni_network_can(network, "dns"))
        pod_network_write_dns(&w, config->dns_config);
    if (*node->pod_cidr != '\0' && cni_network_can(network, "ipRanges"))
        pod_network_write_ranges(&w, node->pod_cidr);
    if (config->linux != NULL && *config->linux->cgroup_parent != '\0' && cni_network_can(network, "cgroupPath"))
        json_write_member_string(&w, "cgroupPath", config->linux->cgroup_parent);
    if (config->n_annotations > 0 && cni_network_can(network, "io.kubernetes.cri.pod-annotations"))
        pod_network_write_annotations(&w, config);
    json_write_end(&w);
    return true;
}

/* CNI_ARGS has no way to quote. */
static bool pod_network_write_arguments(const Interlink__State__V1__Sandbox *record, struct buf *out, struct status *err)
{
    const Runtime__V1__PodSandboxMetadata *m = record->config->metadata;
    const char *const values[][2] = { { "namespace", m->namespace_ }, { "name", m->name }, { "uid", m->uid } };

    for (size_t i = 0; i < COUNT_OF(values); i++)
        if (strpbrk(values[i][1], ";=") != NULL)
            return status_set(err, STATUS_INVALID_ARGUMENT, "config.metadata.%s: \"%.100s\" holds ; or =, which CNI plugins cannot be told",
                              values[i][0], values[i][1]);
    buf_printf(out, "IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s", m->namespace_,
               m->name, record->id, m->uid);
    return true;
}

/* ---- the plan ---- */

static ProtobufCBinaryData pod_network_data(struct buf *b)
{
    return (ProtobufCBinaryData){ .len = b->n, .data = xmemdup(b->p, b->n) };
}

static bool pod_network_plan_own(struct node *node, struct arena *arena, Interlink__State__V1__Sandbox *record,
                                 const struct cni_network *network, bool ports, struct status *err)
{
    cleanup_buf struct buf capabilities = BUF_INIT, arguments = BUF_INIT, text = BUF_INIT;

    if (ports && !cni_network_can(network, "portMappings"))
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "config.port_mappings: a host_port needs a plugin with the capability portMappings, which network %s has not",
                          network->name);
    if (!pod_network_write_capabilities(node, record->config, network, ports, &capabilities, err) ||
        !pod_network_write_arguments(record, &arguments, err))
        return false;
    cni_network_write(network, &text);
    record->network = xmalloc(sizeof *record->network);
    interlink__state__v1__pod_network__init(record->network);
    pb_set(&record->network->netns, cni_netns_path(node->cni, arena, record->id));
    pb_set(&record->network->arguments, buf_cstr(&arguments));
    record->network->network = pod_network_data(&text);
    record->network->capabilities = pod_network_data(&capabilities);
    return true;
}

bool pod_network_plan(struct node *node, const struct handler *handler, Interlink__State__V1__Sandbox *record, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct cni_network network;
    bool offered = false, ports;

    if (!pod_network_check_ports(record->config, &ports, err))
        return false;
    /* There each port that a container listens on is the machine's. */
    if (sandbox_is_host_network(record->config))
        return true;
    if (handler->local && !cni_offer(node->cni, &arena, &network, &offered, err))
        return false;
    if (offered)
        return pod_network_plan_own(node, &arena, record, &network, ports, err);
    return pod_network_check_plain_ports(record->config, handler, err);
}

#undef POD_NETWORK_RATE_MIN
#undef POD_NETWORK_RATE_MAX
#undef POD_NETWORK_BURST
