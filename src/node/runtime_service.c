/* SPDX-License-Identifier: Apache-2.0 */
/* runtime.v1.RuntimeService: each handler finds its object and hands over. What is not offered says why. */
#include "node/container.h"
#include "node/events.h"
#include "agent/logfile.h"
#include "node/node.h"
#include "node/resources.h"
#include "node/runtime_config.h"
#include "node/sandbox.h"
#include "node/stats.h"
#include "node/status.h"
#include "node/streaming.h"
#include "rpc/pb.h"

/* kubelet has compared this with "0.1.0" since the beginning of CRI. */
#define RUNTIME_KUBELET_API_VERSION "0.1.0"

static void runtime_version(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const struct node *node = context;
    Runtime__V1__VersionResponse response = RUNTIME__V1__VERSION_RESPONSE__INIT;

    (void)request;
    response.version = (char *)(uintptr_t)RUNTIME_KUBELET_API_VERSION;
    response.runtime_name = (char *)(uintptr_t) "interlink-cri";
    response.runtime_version = (char *)(uintptr_t)node->options->version;
    response.runtime_api_version = (char *)(uintptr_t) "v1";
    rpc_reply(call, &response.base);
}

static void runtime_status(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const Runtime__V1__StatusRequest *r = (const void *)request;

    rpc_reply(call, &status_of_runtime(rpc_call_arena(call), context, r->verbose)->base);
}

/* Stop and Remove are idempotent: what is not there (any more) is stopped and removed. */
static void runtime_reply_absent(struct rpc_call *call, const struct status *err)
{
    if (err->code == STATUS_NOT_FOUND)
        rpc_reply_packed(call, "", 0);
    else
        rpc_fail(call, err);
}

/* ---- sandboxes ---- */

static void runtime_run_pod_sandbox(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    sandbox_run(context, call, (const void *)request);
}

static void runtime_stop_pod_sandbox(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const Runtime__V1__StopPodSandboxRequest *r = (const void *)request;
    struct status err = STATUS_INIT;
    struct sandbox *sandbox = node_sandbox(context, r->pod_sandbox_id, &err);

    if (sandbox != NULL)
        sandbox_stop(sandbox, call);
    else
        runtime_reply_absent(call, &err);
}

static void runtime_remove_pod_sandbox(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const Runtime__V1__RemovePodSandboxRequest *r = (const void *)request;
    struct status err = STATUS_INIT;
    struct sandbox *sandbox = node_sandbox(context, r->pod_sandbox_id, &err);

    if (sandbox != NULL)
        sandbox_remove(sandbox, call);
    else
        runtime_reply_absent(call, &err);
}

static void runtime_pod_sandbox_status(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const Runtime__V1__PodSandboxStatusRequest *r = (const void *)request;
    struct status err = STATUS_INIT;
    struct sandbox *sandbox = node_sandbox(context, r->pod_sandbox_id, &err);

    if (sandbox == NULL)
        rpc_fail(call, &err);
    else
        rpc_reply(call, &status_of_sandbox(rpc_call_arena(call), sandbox, r->verbose)->base);
}

/* ---- containers ---- */

static void runtime_create_container(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const Runtime__V1__CreateContainerRequest *r = (const void *)request;
    struct status err = STATUS_INIT;
    struct sandbox *sandbox = node_sandbox(context, r->pod_sandbox_id, &err);

    if (sandbox == NULL)
        rpc_fail(call, &err);
    else
        container_create(sandbox, call, r);
}

static void runtime_start_container(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct status err = STATUS_INIT;
    struct container *container =
        node_container(context, ((const Runtime__V1__StartContainerRequest *)(const void *)request)->container_id, &err);

    if (container == NULL)
        rpc_fail(call, &err);
    else
        container_start(container, call);
}

static void runtime_stop_container(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const Runtime__V1__StopContainerRequest *r = (const void *)request;
    struct status err = STATUS_INIT;
    struct container *container = node_container(context, r->container_id, &err);

    if (container != NULL)
        container_stop(container, call, r->timeout);
    else
        runtime_reply_absent(call, &err);
}

static void runtime_remove_container(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct status err = STATUS_INIT;
    struct container *container =
        node_container(context, ((const Runtime__V1__RemoveContainerRequest *)(const void *)request)->container_id, &err);

    if (container != NULL)
        container_remove(container, call);
    else
        runtime_reply_absent(call, &err);
}

static void runtime_container_status(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const Runtime__V1__ContainerStatusRequest *r = (const void *)request;
    struct status err = STATUS_INIT;
    struct container *container = node_container(context, r->container_id, &err);

    if (container == NULL)
        rpc_fail(call, &err);
    else
        rpc_reply(call, &status_of_container(rpc_call_arena(call), container, r->verbose)->base);
}

static void runtime_reopen_container_log(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct status err = STATUS_INIT;
    struct container *container = node_container(
        context, ((const Runtime__V1__ReopenContainerLogRequest *)(const void *)request)->container_id, &err);

    if (container == NULL) {
        rpc_fail(call, &err);
    } else if (container->record->phase != INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING || container->log == NULL) {
        rpc_failf(call, STATUS_FAILED_PRECONDITION, "container %.13s is not running: its log is closed",
                  container->record->id);
    } else if (!logfile_reopen(container->log, &err)) {
        rpc_fail(call, &err);
    } else {
        rpc_reply_packed(call, "", 0);
    }
}

static void runtime_update_container(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const Runtime__V1__UpdateContainerResourcesRequest *r = (const void *)request;
    struct status err = STATUS_INIT;
    struct container *container = node_container(context, r->container_id, &err);

    if (container == NULL)
        rpc_fail(call, &err);
    else
        resources_update_container(container, call, r);
}

static void runtime_update_pod_sandbox(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const Runtime__V1__UpdatePodSandboxResourcesRequest *r = (const void *)request;
    struct status err = STATUS_INIT;
    struct sandbox *sandbox = node_sandbox(context, r->pod_sandbox_id, &err);

    if (sandbox == NULL)
        rpc_fail(call, &err);
    else
        resources_update_sandbox(sandbox, call, r);
}

static void runtime_exec_sync(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const Runtime__V1__ExecSyncRequest *r = (const void *)request;
    struct status err = STATUS_INIT;
    struct container *container = node_container(context, r->container_id, &err);

    if (container == NULL)
        rpc_fail(call, &err);
    else
        container_exec_sync(container, call, r);
}

static void runtime_events(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct node *node = context;

    (void)request;
    events_subscribe(node->events, call);
}

static void runtime_exec(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    streaming_exec(context, call, (const void *)request);
}

static void runtime_attach(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    streaming_attach(context, call, (const void *)request);
}

static void runtime_port_forward(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    streaming_port_forward(context, call, (const void *)request);
}

/* ---- what is not offered, and why ---- */

#define RUNTIME_REFUSE(function, reason)                                                                               \
    static void function(void *context, struct rpc_call *call, const ProtobufCMessage *request)                        \
    {                                                                                                                  \
        (void)context;                                                                                                 \
        (void)request;                                                                                                 \
        rpc_failf(call, STATUS_UNIMPLEMENTED, "%s", reason);                                                           \
    }
RUNTIME_REFUSE(runtime_no_checkpoint, "checkpoints are not offered: a job cannot be frozen and restored by its batch system")

#define RUNTIME_METHOD(rpc_name, input_name, output_name, function)                                                    \
    { rpc_name, RPC_UNARY, &runtime__v1__##input_name##__descriptor, &runtime__v1__##output_name##__descriptor, function }
#define RUNTIME_STREAM(rpc_name, input_name, output_name, function)                                                    \
    { rpc_name, RPC_SERVER_STREAMING, &runtime__v1__##input_name##__descriptor,                                        \
      &runtime__v1__##output_name##__descriptor, function }

const struct rpc_method runtime_methods[] = {
    RUNTIME_METHOD("Version", version_request, version_response, runtime_version),
    RUNTIME_METHOD("RunPodSandbox", run_pod_sandbox_request, run_pod_sandbox_response, runtime_run_pod_sandbox),
    RUNTIME_METHOD("StopPodSandbox", stop_pod_sandbox_request, stop_pod_sandbox_response, runtime_stop_pod_sandbox),
    RUNTIME_METHOD("RemovePodSandbox", remove_pod_sandbox_request, remove_pod_sandbox_response,
                   runtime_remove_pod_sandbox),
    RUNTIME_METHOD("PodSandboxStatus", pod_sandbox_status_request, pod_sandbox_status_response,
                   runtime_pod_sandbox_status),
    RUNTIME_METHOD("ListPodSandbox", list_pod_sandbox_request, list_pod_sandbox_response, lists_pod_sandboxes),
    RUNTIME_STREAM("StreamPodSandboxes", stream_pod_sandboxes_request, stream_pod_sandboxes_response,
                   lists_stream_pod_sandboxes),
    RUNTIME_METHOD("CreateContainer", create_container_request, create_container_response, runtime_create_container),
    RUNTIME_METHOD("StartContainer", start_container_request, start_container_response, runtime_start_container),
    RUNTIME_METHOD("StopContainer", stop_container_request, stop_container_response, runtime_stop_container),
    RUNTIME_METHOD("RemoveContainer", remove_container_request, remove_container_response, runtime_remove_container),
    RUNTIME_METHOD("ListContainers", list_containers_request, list_containers_response, lists_containers),
    RUNTIME_STREAM("StreamContainers", stream_containers_request, stream_containers_response, lists_stream_containers),
    RUNTIME_METHOD("ContainerStatus", container_status_request, container_status_response, runtime_container_status),
    RUNTIME_METHOD("UpdateContainerResources", update_container_resources_request, update_container_resources_response,
                   runtime_update_container),
    RUNTIME_METHOD("ReopenContainerLog", reopen_container_log_request, reopen_container_log_response,
                   runtime_reopen_container_log),
    RUNTIME_METHOD("ExecSync", exec_sync_request, exec_sync_response, runtime_exec_sync),
    RUNTIME_METHOD("Exec", exec_request, exec_response, runtime_exec),
    RUNTIME_METHOD("Attach", attach_request, attach_response, runtime_attach),
    RUNTIME_METHOD("PortForward", port_forward_request, port_forward_response, runtime_port_forward),
    RUNTIME_METHOD("ContainerStats", container_stats_request, container_stats_response, stats_container),
    RUNTIME_METHOD("ListContainerStats", list_container_stats_request, list_container_stats_response, stats_list_containers),
    RUNTIME_STREAM("StreamContainerStats", stream_container_stats_request, stream_container_stats_response,
                   stats_stream_containers),
    RUNTIME_METHOD("PodSandboxStats", pod_sandbox_stats_request, pod_sandbox_stats_response, stats_pod),
    RUNTIME_METHOD("ListPodSandboxStats", list_pod_sandbox_stats_request, list_pod_sandbox_stats_response,
                   stats_list_pods),
    RUNTIME_STREAM("StreamPodSandboxStats", stream_pod_sandbox_stats_request, stream_pod_sandbox_stats_response,
                   stats_stream_pods),
    RUNTIME_METHOD("UpdateRuntimeConfig", update_runtime_config_request, update_runtime_config_response,
                   runtime_config_update),
    RUNTIME_METHOD("Status", status_request, status_response, runtime_status),
    RUNTIME_METHOD("CheckpointContainer", checkpoint_container_request, checkpoint_container_response,
                   runtime_no_checkpoint),
    RUNTIME_METHOD("CheckpointPod", checkpoint_pod_request, checkpoint_pod_response, runtime_no_checkpoint),
    RUNTIME_METHOD("RestorePod", restore_pod_request, restore_pod_response, runtime_no_checkpoint),
    RUNTIME_STREAM("GetContainerEvents", get_events_request, container_event_response, runtime_events),
    RUNTIME_METHOD("ListMetricDescriptors", list_metric_descriptors_request, list_metric_descriptors_response,
                   metrics_list_descriptors),
    RUNTIME_METHOD("ListPodSandboxMetrics", list_pod_sandbox_metrics_request, list_pod_sandbox_metrics_response,
                   stats_list_metrics),
    RUNTIME_STREAM("StreamPodSandboxMetrics", stream_pod_sandbox_metrics_request, stream_pod_sandbox_metrics_response,
                   stats_stream_metrics),
    RUNTIME_METHOD("RuntimeConfig", runtime_config_request, runtime_config_response, runtime_config_get),
    RUNTIME_METHOD("UpdatePodSandboxResources", update_pod_sandbox_resources_request,
                   update_pod_sandbox_resources_response, runtime_update_pod_sandbox),
};
const size_t runtime_method_count = COUNT_OF(runtime_methods);
