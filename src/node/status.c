/* SPDX-License-Identifier: Apache-2.0 */
#include "node/status.h"

#include "agent/agent_signal.h"
#include "image/store.h"
#include "node/cni.h"
#include "node/gate.h"
#include "node/link.h"
#include "agent/logfile.h"
#include "node/node_object.h"
#include "node/pod_network.h"
#include "text/json.h"
#include "text/protojson.h"

/* All generated map entries are alike: base, key, value. */
typedef Runtime__V1__StatusResponse__InfoEntry status_info;

#define STATUS_NEW(arena, type, init)                                                                                  \
    ({                                                                                                                 \
        type *m_ = ARENA_NEW(arena, type);                                                                             \
        init(m_);                                                                                                      \
        m_;                                                                                                            \
    })

static status_info *status_info_entry(struct arena *arena, const ProtobufCMessageDescriptor *descriptor, const char *key,
                                      struct buf *json)
{
    status_info *entry = ARENA_NEW(arena, status_info);

    entry->base.descriptor = descriptor;
    entry->key = arena_strdup(arena, key);
    entry->value = arena_strdup(arena, buf_cstr(json));
    return entry;
}

/* ---- sandboxes ---- */

static void status_sandbox_network(struct json_writer *w, const struct sandbox *sandbox)
{
    const Interlink__State__V1__PodNetwork *network = sandbox->record->network;

    json_write_member_object(w, "network");
    json_write_member_string(w, "namespace", network->removed ? "" : network->netns);
    json_write_member_string(w, "fault", pod_network_fault(sandbox));
    json_write_key(w, "configuration");
    json_write_raw(w, (struct str){ (const char *)network->network.data, network->network.len });
    if (network->result.len > 0) {
        json_write_key(w, "result");
        json_write_raw(w, (struct str){ (const char *)network->result.data, network->result.len });
    }
    json_write_end(w);
}

static void status_job_size(struct json_writer *w, const Interlink__State__V1__JobSize *size)
{
    if (size == NULL) /* a record of before sizes were kept */
        return;
    json_write_member_object(w, "jobSize");
    json_write_member_array(w, "resources");
    for (size_t i = 0; i < size->n_amounts; i++) {
        json_write_object(w);
        json_write_member_string(w, "name", size->amounts[i]->resource);
        json_write_member_string(w, "request", size->amounts[i]->request);
        json_write_member_string(w, "limit", size->amounts[i]->limit);
        json_write_member_string(w, "source", size->amounts[i]->source);
        json_write_end(w);
    }
    json_write_end(w);
    json_write_member_i64(w, "walltimeSeconds", size->walltime_seconds);
    json_write_member_string(w, "walltimeSource", size->walltime_source);
    json_write_member_string(w, "note", size->note);
    json_write_end(w);
}

static void status_sandbox_info(struct arena *arena, const struct sandbox *sandbox,
                                Runtime__V1__PodSandboxStatusResponse *response)
{
    const Interlink__State__V1__Sandbox *record = sandbox->record;
    cleanup_buf struct buf json = BUF_INIT;
    struct json_writer w;

    json_writer_init(&w, &json, 0);
    json_write_object(&w);
    json_write_member_string(&w, "handler", sandbox->handler->options->name);
    json_write_member_string(&w, "jobUid", record->job_uid);
    json_write_member_string(&w, "jobId", record->job_id);
    json_write_member_string(&w, "jobNodes", record->job_nodes);
    status_job_size(&w, record->size);
    json_write_member_bool(&w, "agentConnected", sandbox->link != NULL && link_ready(sandbox->link));
    if (sandbox->link != NULL && link_hello(sandbox->link) != NULL) {
        json_write_member_string(&w, "engine", link_hello(sandbox->link)->engine);
        json_write_member_string(&w, "engineReason", link_hello(sandbox->link)->engine_reason);
    }
    json_write_member_string(&w, "message", record->message);
    if (record->network != NULL)
        status_sandbox_network(&w, sandbox);
    if (sandbox->gate != NULL) {
        json_write_key(&w, "openPorts");
        gate_write(&w, sandbox);
    }
    json_write_key(&w, "config");
    protojson_write(&w, &record->config->base, 0);
    json_write_end(&w);
    response->info = ARENA_NEW(arena, Runtime__V1__PodSandboxStatusResponse__InfoEntry *);
    response->info[0] = (void *)status_info_entry(
        arena, &runtime__v1__pod_sandbox_status_response__info_entry__descriptor, "info", &json);
    response->n_info = 1;
}

Runtime__V1__PodSandboxStatusResponse *status_of_sandbox(struct arena *arena, const struct sandbox *sandbox, bool verbose)
{
    const Interlink__State__V1__Sandbox *record = sandbox->record;
    const Runtime__V1__LinuxPodSandboxConfig *config = record->config->linux;
    Runtime__V1__PodSandboxStatusResponse *response = STATUS_NEW(
        arena, Runtime__V1__PodSandboxStatusResponse, runtime__v1__pod_sandbox_status_response__init);
    Runtime__V1__PodSandboxStatus *s =
        STATUS_NEW(arena, Runtime__V1__PodSandboxStatus, runtime__v1__pod_sandbox_status__init);
    Runtime__V1__NamespaceOption *options =
        config != NULL && config->security_context != NULL ? config->security_context->namespace_options : NULL;

    s->id = record->id;
    s->metadata = record->config->metadata;
    s->state = record->phase == INTERLINK__STATE__V1__SANDBOX_PHASE__READY
                   ? RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_READY
                   : RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_NOTREADY;
    s->created_at = record->created_at;
    s->n_labels = record->config->n_labels;
    s->labels = (void *)record->config->labels;
    s->n_annotations = record->config->n_annotations;
    s->annotations = (void *)record->config->annotations;
    s->runtime_handler = record->runtime_handler;
    s->linux = STATUS_NEW(arena, Runtime__V1__LinuxPodSandboxStatus, runtime__v1__linux_pod_sandbox_status__init);
    s->linux->namespaces = STATUS_NEW(arena, Runtime__V1__Namespace, runtime__v1__namespace__init);
    s->linux->namespaces->options =
        options != NULL ? options
                        : STATUS_NEW(arena, Runtime__V1__NamespaceOption, runtime__v1__namespace_option__init);
    /* kubelet takes the node's own address for a host-network pod, and tears down a pod whose message is there with an
     * empty ip. */
    if (!sandbox_is_host_network(record->config) && *record->ip != '\0') {
        s->network = STATUS_NEW(arena, Runtime__V1__PodSandboxNetworkStatus, runtime__v1__pod_sandbox_network_status__init);
        s->network->ip = record->ip;
        s->network->n_additional_ips = record->n_additional_ips;
        s->network->additional_ips = ARENA_ARRAY(arena, Runtime__V1__PodIP *, record->n_additional_ips);
        for (size_t i = 0; i < record->n_additional_ips; i++) {
            s->network->additional_ips[i] = STATUS_NEW(arena, Runtime__V1__PodIP, runtime__v1__pod_ip__init);
            s->network->additional_ips[i]->ip = record->additional_ips[i];
        }
    }
    response->status = s;
    response->timestamp = clock_real_ns();
    if (verbose)
        status_sandbox_info(arena, sandbox, response);
    return response;
}

/* ---- containers ---- */

static void status_container_info(struct arena *arena, const struct container *container,
                                  Runtime__V1__ContainerStatusResponse *response)
{
    const Interlink__State__V1__Container *record = container->record;
    cleanup_buf struct buf json = BUF_INIT;
    struct json_writer w;

    json_writer_init(&w, &json, 0);
    json_write_object(&w);
    json_write_member_string(&w, "sandboxID", record->sandbox_id);
    json_write_member_string(&w, "handler", container->sandbox->handler->options->name);
    json_write_member_string(&w, "jobUid", container->sandbox->record->job_uid);
    json_write_member_i64(&w, "stopSignal", record->stop_signal);
    json_write_member_string(&w, "notApplied", record->note);
    json_write_member_i64(&w, "logBytes", container->log != NULL ? (int64_t)logfile_stored(container->log) : 0);
    json_write_member_bool(&w, "logComplete", record->log_done);
    json_write_end(&w);
    response->info = ARENA_NEW(arena, Runtime__V1__ContainerStatusResponse__InfoEntry *);
    response->info[0] = (void *)status_info_entry(
        arena, &runtime__v1__container_status_response__info_entry__descriptor, "info", &json);
    response->n_info = 1;
}

/* The image under the name that a user knows; its id once that has gone. */
static Runtime__V1__ImageSpec *status_image(struct arena *arena, const struct container *container)
{
    const Interlink__State__V1__Container *record = container->record;
    const struct image *image = image_store_held(container->node->images, record->image_id);
    Runtime__V1__ImageSpec *spec = STATUS_NEW(arena, Runtime__V1__ImageSpec, runtime__v1__image_spec__init);
    const char *wanted = record->config->image->user_specified_image;

    spec->image = record->config->image->image;
    if (*wanted != '\0')
        spec->image = (char *)(uintptr_t)wanted;
    if (image != NULL && image->tag_count > 0 && *wanted == '\0')
        spec->image = arena_strdup(arena, image->tags[0]);
    spec->user_specified_image = (char *)(uintptr_t)wanted;
    spec->n_annotations = record->config->image->n_annotations;
    spec->annotations = record->config->image->annotations;
    spec->runtime_handler = record->config->image->runtime_handler;
    return spec;
}

Runtime__V1__ContainerStatusResponse *status_of_container(struct arena *arena, const struct container *container,
                                                          bool verbose)
{
    const Interlink__State__V1__Container *record = container->record;
    const char *log_directory = container->sandbox->record->config->log_directory;
    Runtime__V1__ContainerStatusResponse *response =
        STATUS_NEW(arena, Runtime__V1__ContainerStatusResponse, runtime__v1__container_status_response__init);
    Runtime__V1__ContainerStatus *s =
        STATUS_NEW(arena, Runtime__V1__ContainerStatus, runtime__v1__container_status__init);

    s->id = record->id;
    s->metadata = record->config->metadata;
    s->state = (Runtime__V1__ContainerState)record->phase;
    s->created_at = record->created_at;
    s->started_at = record->started_at;
    s->finished_at = record->finished_at;
    s->exit_code = record->exit_code;
    s->image = status_image(arena, container);
    s->image_ref = record->image_ref;
    s->image_id = record->image_id;
    s->reason = record->reason;
    s->message = record->message;
    s->n_labels = record->config->n_labels;
    s->labels = (void *)record->config->labels;
    s->n_annotations = record->config->n_annotations;
    s->annotations = (void *)record->config->annotations;
    s->n_mounts = record->config->n_mounts;
    s->mounts = record->config->mounts;
    if (*log_directory != '\0' && *record->config->log_path != '\0')
        s->log_path = arena_printf(arena, "%s/%s", log_directory, record->config->log_path);
    if (record->config->linux != NULL && record->config->linux->resources != NULL) {
        s->resources = STATUS_NEW(arena, Runtime__V1__ContainerResources, runtime__v1__container_resources__init);
        s->resources->linux = record->config->linux->resources;
    }
    if (record->user != NULL) {
        s->user = STATUS_NEW(arena, Runtime__V1__ContainerUser, runtime__v1__container_user__init);
        s->user->linux = record->user;
    }
    s->stop_signal = record->config->stop_signal != RUNTIME__V1__SIGNAL__SIGNAL_RUNTIME_DEFAULT
                         ? record->config->stop_signal
                         : agent_signal_cri(record->stop_signal);
    response->status = s;
    if (verbose)
        status_container_info(arena, container, response);
    return response;
}

/* ---- the runtime ---- */

static Runtime__V1__RuntimeCondition *status_condition(struct arena *arena, const char *type, bool status,
                                                       const char *reason, const char *message)
{
    Runtime__V1__RuntimeCondition *c =
        STATUS_NEW(arena, Runtime__V1__RuntimeCondition, runtime__v1__runtime_condition__init);

    c->type = (char *)(uintptr_t)type;
    c->status = status;
    c->reason = (char *)(uintptr_t)reason;
    c->message = (char *)(uintptr_t)message;
    return c;
}

/* What both can have. */
static Runtime__V1__RuntimeHandler *status_handler(struct arena *arena, const char *name, const struct handler *handler,
                                                   const struct handler *other)
{
    Runtime__V1__RuntimeHandler *h = STATUS_NEW(arena, Runtime__V1__RuntimeHandler, runtime__v1__runtime_handler__init);

    h->name = (char *)(uintptr_t)name;
    h->features =
        STATUS_NEW(arena, Runtime__V1__RuntimeHandlerFeatures, runtime__v1__runtime_handler_features__init);
    if (handler != NULL && other != NULL) {
        h->features->recursive_read_only_mounts = handler->recursive_read_only_mounts && other->recursive_read_only_mounts;
        h->features->user_namespaces = handler->user_namespaces && other->user_namespaces;
    }
    return h;
}

static void status_runtime_info(struct arena *arena, struct node *node, Runtime__V1__StatusResponse *response)
{
    cleanup_buf struct buf json = BUF_INIT;
    struct json_writer w;

    json_writer_init(&w, &json, 0);
    json_write_object(&w);
    json_write_member_string(&w, "socket", node->options->socket);
    json_write_member_string(&w, "stateDir", node->options->state_dir);
    json_write_member_string(&w, "defaultHandler", node->options->default_handler);
    json_write_member_object(&w, "nodePods");
    json_write_member_string(&w, "handler", node->options->node_pods_handler);
    json_write_member_array(&w, "namespaces");
    for (const char *const *name = node->options->node_pods_namespaces; *name != NULL; name++)
        json_write_string(&w, *name);
    json_write_end(&w);
    json_write_end(&w);
    json_write_member_string(&w, "podCIDR", node->pod_cidr);
    node_object_write(node, &w);
    json_write_member_array(&w, "handlers");
    for (size_t i = 0; i < node->options->handler_count; i++) {
        const struct status *health = interlink_target_health(node->handlers[i].target);
        json_write_object(&w);
        json_write_member_string(&w, "name", node->options->handlers[i].name);
        json_write_member_string(&w, "target",
                                 *node->options->handlers[i].url != '\0' ? node->options->handlers[i].url : "local");
        json_write_member_bool(&w, "healthy", health->code == STATUS_OK);
        json_write_member_string(&w, "message", health->message);
        json_write_member_i64(&w, "jobs", (int64_t)interlink_target_job_count(node->handlers[i].target));
        json_write_end(&w);
    }
    json_write_end(&w);
    json_write_end(&w);
    response->info = ARENA_NEW(arena, Runtime__V1__StatusResponse__InfoEntry *);
    response->info[0] =
        status_info_entry(arena, &runtime__v1__status_response__info_entry__descriptor, "config", &json);
    response->n_info = 1;
}

/* Pods here, and pods elsewhere. Only what concerns those here can make it false: those elsewhere have a way to fall back on. */
static bool status_network(struct node *node, struct arena *arena, const char **reason, const char **message)
{
    bool ready = cni_condition(node->cni, arena, reason, message);
    const char *gate_reason, *gate_message;

    if (!gate_describe(node, arena, &gate_reason, &gate_message))
        return ready;
    if (ready && strcmp(*reason, "JobNetwork") == 0)
        *reason = gate_reason;
    *message = arena_printf(arena, "%s; %s", *message, gate_message);
    return ready;
}

Runtime__V1__StatusResponse *status_of_runtime(struct arena *arena, struct node *node, bool verbose)
{
    Runtime__V1__StatusResponse *response =
        STATUS_NEW(arena, Runtime__V1__StatusResponse, runtime__v1__status_response__init);
    struct status ignored;
    const char *reason, *message;
    bool network_ready = status_network(node, arena, &reason, &message);

    response->status = STATUS_NEW(arena, Runtime__V1__RuntimeStatus, runtime__v1__runtime_status__init);
    response->status->n_conditions = 2;
    response->status->conditions = ARENA_ARRAY(arena, Runtime__V1__RuntimeCondition *, 2);
    /* A target that does not answer makes its pods wait, not the node unusable: other handlers go on. */
    response->status->conditions[0] = status_condition(arena, "RuntimeReady", true, "", "");
    response->status->conditions[1] = status_condition(arena, "NetworkReady", network_ready, reason, message);
    response->features = STATUS_NEW(arena, Runtime__V1__RuntimeFeatures, runtime__v1__runtime_features__init);
    response->features->supplemental_groups_policy = true;
    response->features->mount_options = true;
    /* The machine's network makes no difference to a pod with a user namespace of its own. */
    for (size_t i = 0; i < node->options->handler_count; i++)
        response->features->user_namespaces_host_network |= node->handlers[i].user_namespaces;
    /* The handler named "" is what pods without a RuntimeClass get: one of two. */
    response->n_runtime_handlers = node->options->handler_count + 1;
    response->runtime_handlers = ARENA_ARRAY(arena, Runtime__V1__RuntimeHandler *, response->n_runtime_handlers);
    response->runtime_handlers[0] = status_handler(arena, "", node_handler(node, "", &ignored),
                                                   node_handler(node, node->options->node_pods_handler, &ignored));
    for (size_t i = 0; i < node->options->handler_count; i++)
        response->runtime_handlers[i + 1] = status_handler(arena, node->options->handlers[i].name, &node->handlers[i],
                                                           &node->handlers[i]);
    if (verbose)
        status_runtime_info(arena, node, response);
    return response;
}
