/* SPDX-License-Identifier: Apache-2.0 */
#include "node/node.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <unistd.h>

#include "image/image.h"
#include "interlink/interlink.h"
#include "io/file.h"
#include "io/mount.h"
#include "io/tls.h"
#include "kube/kube.h"
#include "node/cni.h"
#include "node/container.h"
#include "node/container_job.h"
#include "node/events.h"
#include "node/counters.h"
#include "node/operator.h"
#include "node/features.h"
#include "node/gate.h"
#include "node/node_object.h"
#include "node/relay.h"
#include "node/runtime_config.h"
#include "node/sandbox_lease.h"
#include "node/setbacks.h"
#include "node/streaming.h"
#include "node/volumes.h"
#include "plugin/plugin.h"
#include "rpc/health.h"
#include "rpc/reflection.h"

#include "descriptors.inc"

/* Leases are counted in steps of this. */
#define NODE_LEASE_STEP_MS 5000

/* ---- looking up ---- */

struct handler *node_handler(struct node *node, const char *name, struct status *err)
{
    const char *wanted = *name != '\0' ? name : node->options->default_handler;

    for (size_t i = 0; i < node->options->handler_count; i++)
        if (strcmp(node->handlers[i].options->name, wanted) == 0)
            return &node->handlers[i];
    cleanup_buf struct buf names = BUF_INIT;
    for (size_t i = 0; i < node->options->handler_count; i++)
        buf_printf(&names, "%s%s", i > 0 ? ", " : "", node->handlers[i].options->name);
    status_set(err, STATUS_NOT_FOUND, "runtime_handler: no handler \"%s\" is configured on this node, only %.512s (see Handlers in the "
               "configuration)", wanted, buf_cstr(&names));
    return NULL;
}

/* kubelet says so itself, whatever a pod's own annotations hold: "api", "file" or "http". */
#define NODE_POD_SOURCE "kubernetes.io/config.source"

bool node_is_own_pod(const struct node *node, const Runtime__V1__PodSandboxConfig *config)
{
    for (size_t i = 0; i < config->n_annotations; i++)
        if (strcmp(config->annotations[i]->key, NODE_POD_SOURCE) == 0 && strcmp(config->annotations[i]->value, "api") != 0)
            return true;
    for (const char *const *name = node->options->node_pods_namespaces; *name != NULL; name++)
        if (strcmp(*name, config->metadata->namespace_) == 0)
            return true;
    return false;
}

struct handler *node_handler_of_pod(struct node *node, const Runtime__V1__RunPodSandboxRequest *request, struct status *err)
{
    bool own = *request->runtime_handler == '\0' && node_is_own_pod(node, request->config);

    return node_handler(node, own ? node->options->node_pods_handler : request->runtime_handler, err);
}

static void *node_find(const struct strmap *map, const char *what, const char *id, struct status *err)
{
    bool ambiguous = false;
    void *found = strmap_get(map, id);

    if (found == NULL && *id != '\0')
        found = strmap_prefix(map, id, &ambiguous);
    if (*id == '\0')
        status_set(err, STATUS_INVALID_ARGUMENT, "%s: the id is empty", what);
    else if (ambiguous)
        status_set(err, STATUS_INVALID_ARGUMENT, "%s \"%.64s\" is the beginning of several ids", what, id);
    else if (found == NULL)
        status_set(err, STATUS_NOT_FOUND, "%s \"%.64s\" is not known here", what, id);
    return found;
}

struct sandbox *node_sandbox(struct node *node, const char *id, struct status *err)
{
    return node_find(&node->sandboxes, "pod sandbox", id, err);
}

struct container *node_container(struct node *node, const char *id, struct status *err)
{
    struct container *container = node_find(&node->containers, "container", id, err);

    if (container == NULL || container_listed(container))
        return container;
    status_set(err, STATUS_NOT_FOUND, "container \"%.64s\" is still being created", id);
    return NULL;
}

/* ---- agents calling in ---- */

static bool node_check_token(const char *token, const char *wanted, struct status *err)
{
    return (*wanted != '\0' && bytes_equal_constant_time(token, strlen(token), wanted, strlen(wanted))) ||
           status_set(err, STATUS_UNAUTHENTICATED, "the token is not this pod's");
}

/* An agent is a pod's, or that of a container which is a job of its own. */
static bool node_authorise(void *arg, const char *id, const char *token, struct status *err)
{
    struct node *node = arg;
    const struct sandbox *sandbox = strmap_get(&node->sandboxes, id);
    const struct container *container = container_job_by_agent(node, id);

    /* To be told that there is no such pod would be its end. */
    if (strmap_get(&node->left_alone, id) != NULL || (sandbox == NULL && container == NULL && node->left_alone.count > 0))
        return status_set(err, STATUS_UNAVAILABLE, "the pod's handler is not configured at present");
    if (container != NULL)
        return node_check_token(token, container->record->token, err) &&
               (container_job_held(container) || status_set(err, STATUS_FAILED_PRECONDITION, "the container has been stopped"));
    if (sandbox == NULL)
        return status_set(err, STATUS_NOT_FOUND, "there is no such pod");
    if (!node_check_token(token, sandbox->record->token, err))
        return false;
    if (sandbox->stopping || sandbox->record->phase == INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY)
        return status_set(err, STATUS_FAILED_PRECONDITION, "the pod has been stopped");
    return true;
}

static void node_on_agent(void *arg, const char *id, struct stream *stream, struct str early)
{
    struct node *node = arg;
    struct sandbox *sandbox = strmap_get(&node->sandboxes, id);
    struct container *container = container_job_by_agent(node, id);

    if (container != NULL)
        container_job_attach(container, stream, early);
    else if (sandbox != NULL)
        sandbox_attach(sandbox, stream, early);
    else
        stream_free(stream);
}

/* Before any job is made: it carries the pin. */
static bool node_load_identity(struct node *node, struct status *err)
{
    const struct node_options *o = node->options;
    cleanup_free char *dir = xasprintf("%s/relay", o->state_dir);

    bool elsewhere = *o->relay_listen != '\0';
    for (size_t i = 0; i < o->handler_count; i++)
        elsewhere = elsewhere || o->handlers[i].dial != NULL;
    if (!elsewhere)
        return true;
    node->identity = tls_identity_load_or_create(dir, "interlink-cri-relay", err);
    if (node->identity != NULL)
        tls_identity_pin(node->identity, node->relay_pin);
    return node->identity != NULL;
}

static bool node_start_relay(struct node *node, struct status *err)
{
    const struct node_options *o = node->options;
    struct relay_options options = {
        .unix_path = node->relay_socket,
        .listen = o->relay_listen,
        .identity = node->identity,
        .authorise = node_authorise,
        .on_agent = node_on_agent,
        .arg = node,
    };
    node->relay = relay_start(node->loop, &options, err);
    return node->relay != NULL;
}

/* ---- handlers ---- */

static bool node_start_handler(struct node *node, struct handler *handler, const struct node_handler_options *o,
                               const char *plugin_url, struct status *err)
{
    handler->options = o;
    handler->local = *o->url == '\0';
    handler->per_container = strcmp(o->job_per, "container") == 0;
    handler->inside = handler->per_container && *o->program != '\0' && *node->options->relay_listen != '\0';
    handler->target = interlink_target_new(node->loop, &(struct interlink_target_options){
                                                           .name = o->name,
                                                           .url = handler->local ? plugin_url : o->url,
                                                           .bearer_token_file = o->bearer_token_file,
                                                           .ca_file = o->ca_file,
                                                           .client_cert_file = o->client_cert_file,
                                                           .client_key_file = o->client_key_file,
                                                           .proxy = o->proxy,
                                                           .remote = !handler->local,
                                                       }, err);
    return handler->target != NULL;
}

static bool node_start_handlers(struct node *node, struct status *err)
{
    const struct node_options *o = node->options;
    cleanup_free char *socket = xasprintf("%s/plugin.sock", o->state_dir);
    cleanup_free char *url = xasprintf("unix://%s", socket);
    cleanup_free char *dir = xasprintf("%s/plugin", o->state_dir);
    bool local = false;

    for (size_t i = 0; i < o->handler_count; i++)
        local |= *o->handlers[i].url == '\0';
    if (local) {
        node->plugin = plugin_start(node->loop, &(struct plugin_options){ .listen = url, .dir = dir, .backend = "local", .program = "" }, err);
        if (node->plugin == NULL)
            return false;
    }
    node->handlers = xcalloc(o->handler_count, sizeof *node->handlers);
    for (size_t i = 0; i < o->handler_count; i++)
        if (!node_start_handler(node, &node->handlers[i], &o->handlers[i], url, err))
            return false;
    return true;
}

/* ---- restoring ---- */

static void node_on_sandbox_record(void *arg, ProtobufCMessage *message)
{
    sandbox_restore(arg, (Interlink__State__V1__Sandbox *)(void *)message);
}

static void node_on_container_record(void *arg, ProtobufCMessage *message)
{
    container_restore(arg, (Interlink__State__V1__Container *)(void *)message);
}

static bool node_restore(struct node *node, struct status *err)
{
    struct strmap_iter it = { 0 };

    if (!state_load(node->state, STATE_SANDBOX, &interlink__state__v1__sandbox__descriptor, node_on_sandbox_record, node,
                    err) ||
        !state_load(node->state, STATE_CONTAINER, &interlink__state__v1__container__descriptor,
                    node_on_container_record, node, err))
        return false;
    if (!runtime_config_load(node, err))
        return false;
    image_store_start(node->images);
    gate_start(node);
    while (strmap_next(&node->sandboxes, &it))
        sandbox_resume(it.value);
    if (node->sandboxes.count > 0)
        log_info("restored %zu pods and %zu containers", node->sandboxes.count, node->containers.count);
    return true;
}

/* ---- the CRI socket ---- */

static void node_on_client(void *arg, int fd)
{
    struct node *node = arg;
    struct status err = STATUS_INIT;
    struct stream *stream = stream_of_fd(node->loop, fd, &err);

    if (stream != NULL)
        rpc_server_accept(node->server, stream);
    else
        log_warn("a client could not be taken in: %s", err.message);
}

static const struct rpc_service *node_service(const char *name, const struct rpc_method *methods, size_t count,
                                              struct node *node)
{
    struct rpc_service *service = xcalloc(1, sizeof *service);

    *service = (struct rpc_service){ .name = name, .methods = methods, .method_count = count, .context = node };
    return service;
}

static bool node_listen(struct node *node, struct status *err)
{
    const struct rpc_service **services = xcalloc(8, sizeof *services);
    struct address address;
    size_t n = 0;

    services[n++] = node_service("runtime.v1.RuntimeService", runtime_methods, runtime_method_count, node);
    services[n++] = node_service("runtime.v1.ImageService", image_methods, image_method_count, node);
    services[n++] = node_service("interlink.control.v1.Control", control_methods, control_method_count, node);
    node->services = (struct rpc_services){
        .services = services, .count = n, .on_call_end = counters_on_call_end, .arg = node->counters
    };
    node->health = rpc_health_new(&node->services);
    node->reflection = rpc_reflection_new(&node->services,
                                          (struct str){ (const char *)descriptor_set, sizeof descriptor_set }, err);
    if (node->reflection == NULL)
        return false;
    services[n++] = rpc_health_service(node->health);
    services[n++] = rpc_reflection_v1(node->reflection);
    services[n++] = rpc_reflection_v1alpha(node->reflection);
    node->services.count = n;
    node->server = rpc_server_new(node->loop, &node->services);
    return address_parse(node->options->socket, &address, err) &&
           listener_open(node->loop, &node->listener, &address, 0660, node_on_client, node, NULL, err);
}

/* ---- this machine's address ---- */

/* The source address of the default route: connecting a datagram socket sends nothing. 192.0.2.0/24 and 2001:db8::/32
 * are documentation's (RFC 5737, RFC 3849). */
static bool node_route_address(struct node *node, int family)
{
    struct sockaddr_in to4 = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr = { htonl(0xc0000201) } };
    struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr = { { { 0x20, 1, 0xd, 0xb8, [15] = 1 } } } };
    struct sockaddr_storage from;
    socklen_t n = sizeof from;
    cleanup_close int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || (family == AF_INET ? connect(fd, (struct sockaddr *)&to4, sizeof to4)
                                     : connect(fd, (struct sockaddr *)&to6, sizeof to6)) < 0 ||
        getsockname(fd, (struct sockaddr *)&from, &n) < 0)
        return false;
    const void *bytes = family == AF_INET ? (const void *)&((struct sockaddr_in *)(void *)&from)->sin_addr
                                          : (const void *)&((struct sockaddr_in6 *)(void *)&from)->sin6_addr;
    return inet_ntop(family, bytes, node->node_ip, sizeof node->node_ip) != NULL;
}

static void node_find_address(struct node *node)
{
    struct ifaddrs *list = NULL;

    if (node_route_address(node, AF_INET) || node_route_address(node, AF_INET6))
        return;
    strcpy(node->node_ip, "127.0.0.1");
    if (getifaddrs(&list) < 0)
        return;
    for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        if (i->ifa_addr == NULL || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & (unsigned)IFF_UP) == 0)
            continue;
        struct in_addr a = ((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr;
        if (ntohl(a.s_addr) >> 24 == 127)
            continue;
        inet_ntop(AF_INET, &a, node->node_ip, sizeof node->node_ip);
        break;
    }
    freeifaddrs(list);
}

/* ---- life ---- */

static void node_on_lease_step(void *arg)
{
    struct node *node = arg;
    struct strmap_iter it = { 0 };
    bool waiting = false;

    sandbox_check_leases(node, NODE_LEASE_STEP_MS);
    while (!waiting && strmap_next(&node->sandboxes, &it))
        waiting = !sandbox_listed(it.value);
    /* An idle node wakes up for nothing. */
    if (waiting)
        timer_start(node->loop, &node->lease_timer, NODE_LEASE_STEP_MS, node_on_lease_step, node);
}

void node_watch_leases(struct node *node)
{
    if (!timer_running(&node->lease_timer))
        timer_start(node->loop, &node->lease_timer, NODE_LEASE_STEP_MS, node_on_lease_step, node);
}

static bool node_start_streaming(struct node *node, struct status *err)
{
    if (node->options->streaming.enabled)
        node->streaming = streaming_start(node, err);
    return node->streaming != NULL || !node->options->streaming.enabled;
}

static bool node_start_operator(struct node *node, struct status *err)
{
    if (*node->options->metrics_address != '\0')
        node->operator = operator_start(node, err);
    return node->operator != NULL || *node->options->metrics_address == '\0';
}

static bool node_open(struct node *node, struct status *err)
{
    const struct node_options *o = node->options;
    cleanup_free char *logs = xasprintf("%s/logs", o->state_dir);
    struct image_store_options images = { .root = o->image_dir, .pinned = o->pinned_images,
                                          .layer_bytes_max = o->layer_bytes_max };

    node->state = state_open(node->loop, o->state_dir, err);
    if (node->state == NULL || !dir_make(logs, 0700, err))
        return false;
    struct mount_info mount;
    mount_find(o->state_dir, &mount);
    node->layers_mountpoint = xstrdup(mount.point);
    node->cni = cni_new(node);
    node->images = image_store_open(node->loop, &images, err);
    return node->images != NULL && node_load_identity(node, err) && node_start_handlers(node, err) && node_restore(node, err) &&
           node_start_relay(node, err) && node_start_streaming(node, err) && node_listen(node, err) &&
           node_start_operator(node, err);
}

struct node *node_start(struct loop *loop, const struct node_options *options, struct status *err)
{
    struct node *node = xcalloc(1, sizeof *node);

    node->loop = loop;
    node->events = events_new(loop);
    node->volumes = volumes_new(node);
    node->setbacks = setbacks_new();
    node->counters = counters_new(node);
    node->options = options;
    if (*options->kubeconfig != '\0')
        node->kube = kube_new(loop, options->kubeconfig);
    node->listener.fd = -1;
    h2_budget_init(&node->link_budget);
    channel_budget_init(&node->stream_budget);
    node->relay_socket = xasprintf("%s/relay.sock", options->state_dir);
    node_find_address(node);
    if (!node_open(node, err)) {
        node_stop(node);
        return NULL;
    }
    node_watch_leases(node);
    features_ask(node);
    node_object_start(node);
    cni_start(node->cni);
    return node;
}

static void node_on_drained(void *arg)
{
    struct node *node = arg;

    if (--node->draining > 0)
        return;
    timer_stop(&node->shutdown_timer);
    node->on_shut_down(node->on_shut_down_arg);
}

static void node_on_shutdown_timeout(void *arg)
{
    struct node *node = arg;

    log_info("calls were still under way after %d ms: they end without an answer", NODE_SHUTDOWN_MS);
    node->on_shut_down(node->on_shut_down_arg);
}

void node_shutdown(struct node *node, void (*on_done)(void *arg), void *arg)
{
    struct strmap_iter it = { 0 };
    struct status why = STATUS_INIT;

    node->on_shut_down = on_done;
    node->on_shut_down_arg = arg;
    status_set(&why, STATUS_UNAVAILABLE, "interlink-cri is being stopped");
    operator_leaving(node->operator);
    rpc_health_shutdown(node->health);
    listener_close(&node->listener);
    events_close(node->events, &why);
    while (strmap_next(&node->sandboxes, &it))
        sandbox_stop_waiting(it.value, &why);
    timer_start(node->loop, &node->shutdown_timer, NODE_SHUTDOWN_MS, node_on_shutdown_timeout, node);
    node->draining = node->streaming != NULL ? 2 : 1;
    if (node->streaming != NULL)
        streaming_shutdown(node->streaming, &why, node_on_drained, node);
    rpc_server_shutdown(node->server, node_on_drained, node);
}

void node_stop(struct node *node)
{
    struct strmap_iter it = { 0 };

    if (node == NULL)
        return;
    timer_stop(&node->lease_timer);
    timer_stop(&node->shutdown_timer);
    operator_stop(node->operator);
    listener_close(&node->listener);
    streaming_stop(node->streaming);
    node->streaming = NULL;
    rpc_server_free(node->server);
    relay_free(node->relay);
    cni_stop(node->cni);
    gate_stop(node->gate);
    node->gate = NULL;
    while (strmap_next(&node->sandboxes, &it))
        sandbox_free(it.value);
    cni_free(node->cni);
    for (size_t i = 0; node->handlers != NULL && i < node->options->handler_count; i++) {
        features_free(&node->handlers[i]);
        interlink_target_free(node->handlers[i].target);
    }
    node_object_free(node->object);
    kube_free(node->kube);
    plugin_stop(node->plugin);
    image_store_free(node->images);
    state_close(node->state);
    events_free(node->events);
    volumes_free(node->volumes);
    setbacks_free(node->setbacks);
    counters_free(node->counters);
    tls_identity_free(node->identity);
    rpc_health_free(node->health);
    rpc_reflection_free(node->reflection);
    for (size_t i = 0; i < 3 && node->services.services != NULL; i++)
        free((void *)(uintptr_t)node->services.services[i]);
    free((void *)(uintptr_t)node->services.services);
    strmap_free(&node->sandboxes);
    strmap_free(&node->left_alone);
    strmap_free(&node->containers);
    lists_free(&node->lists);
    free(node->handlers);
    free(node->relay_socket);
    free(node->layers_mountpoint);
    free(node->pod_cidr);
    free(node);
}

#undef NODE_LEASE_STEP_MS
#undef NODE_POD_SOURCE
