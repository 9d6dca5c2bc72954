/* SPDX-License-Identifier: Apache-2.0 */
/* agent_service.c: the RPCs of interlink.agent.v1.Agent (proto/agent.proto), each a few lines over the other files. */
#include "agent/agent_attach.h"
#include "agent/agent_blobs.h"
#include "agent/agent_container.h"
#include "agent/agent_container_work.h"
#include "agent/agent_context.h"
#include "agent/agent_exec.h"
#include "agent/agent_forward.h"
#include "agent/agent_relay.h"
#include "rpc/pb.h"
#include "version.h"

bool agent_usable(const struct agent *agent, struct status *err)
{
    if (agent->ending.phase != AGENT_ENDING_NOT)
        return status_set(err, STATUS_FAILED_PRECONDITION, "the pod is being stopped");
    if (agent->engine == NULL) {
        *err = agent->engine_error;
        return false;
    }
    if (agent->sandbox == NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "the sandbox has not been configured (ConfigureSandbox)");
    return true;
}

/* ---- the pod ---- */

/* What batch systems tell their jobs; plugins may not know it. Never NULL. */
static char *agent_job_variable(struct arena *arena, const char *name)
{
    const char *value = getenv(name);

    return arena_strdup(arena, value != NULL ? value : "");
}

static void agent_on_hello(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct agent *agent = context;
    struct arena *arena = rpc_call_arena(call);
    Interlink__Agent__V1__HelloResponse response = INTERLINK__AGENT__V1__HELLO_RESPONSE__INIT;
    Interlink__Agent__V1__Features features;
    struct strmap_iter it = { 0 };

    if (agent->relay != NULL) /* else the connection is not one that we have dialled */
        agent_relay_learn(agent->relay, ((const Interlink__Agent__V1__HelloRequest *)(const void *)request)->relay);
    agent->greeted = true;
    response.version = arena_strdup(arena, INTERLINK_CRI_VERSION);
    response.engine = arena_strdup(arena, agent->engine != NULL ? engine_name(agent->engine) : "none");
    response.engine_reason = agent->engine != NULL ? agent->engine_reason : agent->engine_error.message;
    response.rootless = agent->engine != NULL && engine_rootless(agent->engine);
    response.hostname = agent->machine_name;
    response.job_id = agent_job_variable(arena, "SLURM_JOB_ID");
    response.job_nodes = agent_job_variable(arena, "SLURM_JOB_NODELIST");
    response.cgroup_driver = arena_strdup(arena, agent->engine != NULL ? engine_cgroups(agent->engine) : "none");
    response.containers = ARENA_ARRAY(arena, Interlink__Agent__V1__ContainerState *, agent->containers.count + 1);
    while (strmap_next(&agent->containers, &it)) {
        const struct agent_container *c = it.value;
        if (c->state == AGENT_CONTAINER_NEW)
            continue;
        Interlink__Agent__V1__ContainerState *state = ARENA_NEW(arena, Interlink__Agent__V1__ContainerState);
        agent_container_report(c, state);
        response.containers[response.n_containers++] = state;
    }
    response.last_sequence = agent->events.last;
    agent_files_report(agent, arena, &response);
    if (agent->engine != NULL) {
        engine_features(agent->engine, &features);
        response.features = &features;
    }
    rpc_reply(call, &response.base);
}

static void agent_on_configure_sandbox(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct agent *agent = context;
    const Interlink__Agent__V1__ConfigureSandboxRequest *request = (const void *)message;
    Interlink__Agent__V1__ConfigureSandboxResponse response = INTERLINK__AGENT__V1__CONFIGURE_SANDBOX_RESPONSE__INIT;
    struct status err = STATUS_INIT;

    if (request->config == NULL)
        status_set(&err, STATUS_INVALID_ARGUMENT, "config: missing");
    else if (agent->engine == NULL)
        err = agent->engine_error;
    else if (engine_configure(agent->engine, request->config, &err)) {
        if (agent->sandbox != NULL)
            protobuf_c_message_free_unpacked(&agent->sandbox->base, NULL);
        agent->sandbox = (void *)pb_copy(&request->config->base);
        rpc_reply(call, &response.base);
        return;
    }
    rpc_fail(call, &err);
}

static void agent_on_shutdown(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    const Interlink__Agent__V1__ShutdownRequest *request = (const void *)message;

    agent_ending_start(context, request->grace_ms, call);
}

static void agent_on_events(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct agent *agent = context;
    const Interlink__Agent__V1__EventsRequest *request = (const void *)message;

    agent_events_subscribe(&agent->events, call, request->from_sequence);
}

static void agent_on_ports(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    (void)message;
    agent_ports_subscribe(context, call);
}

/* ---- images ---- */

static void agent_on_missing_blobs(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    agent_blobs_missing(context, call, (const void *)message);
}

static void agent_on_put_blob(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    (void)message;
    agent_blobs_put(context, call);
}

/* ---- volumes ---- */

static void agent_on_put_files(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    (void)message;
    agent_files_put(context, call);
}

/* ---- containers ---- */

/* Borrows from the container. */
static void agent_fill_created(const struct agent_container *c, Interlink__Agent__V1__CreateContainerResponse *out)
{
    interlink__agent__v1__create_container_response__init(out);
    out->uid = c->made.uid;
    out->gid = c->made.gid;
    out->groups = (int64_t *)(uintptr_t)c->made.groups;
    out->n_groups = c->made.group_count;
    out->note = (char *)(uintptr_t)c->made.note;
}

static void agent_on_create_done(void *arg, const struct status *err, const struct agent_container *c)
{
    Interlink__Agent__V1__CreateContainerResponse response = INTERLINK__AGENT__V1__CREATE_CONTAINER_RESPONSE__INIT;

    if (err != NULL) {
        rpc_fail(arg, err);
        return;
    }
    agent_fill_created(c, &response);
    rpc_reply(arg, &response.base);
}

static void agent_on_create_container(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    agent_container_create(context, (const void *)message, agent_on_create_done, call);
}

static void agent_on_start_done(void *arg, const struct status *err, const struct agent_container *c)
{
    Interlink__Agent__V1__StartContainerResponse response = INTERLINK__AGENT__V1__START_CONTAINER_RESPONSE__INIT;
    Interlink__Agent__V1__CreateContainerResponse created;

    if (err != NULL) {
        rpc_fail(arg, err);
        return;
    }
    response.started_at = c->started_ns;
    agent_fill_created(c, &created);
    response.created = &created;
    rpc_reply(arg, &response.base);
}

static void agent_on_start_container(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    const Interlink__Agent__V1__StartContainerRequest *request = (const void *)message;

    agent_container_start(context, request->id, agent_on_start_done, call);
}

static void agent_on_signal_done(void *arg, const struct status *err, const struct agent_container *c)
{
    Interlink__Agent__V1__SignalContainerResponse response = INTERLINK__AGENT__V1__SIGNAL_CONTAINER_RESPONSE__INIT;

    (void)c;
    if (err != NULL)
        rpc_fail(arg, err);
    else
        rpc_reply(arg, &response.base);
}

static void agent_on_signal_container(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    const Interlink__Agent__V1__SignalContainerRequest *request = (const void *)message;

    agent_container_signal(context, request->id, request->signal, request->all != 0, agent_on_signal_done, call);
}

static void agent_on_remove_done(void *arg, const struct status *err, const struct agent_container *c)
{
    Interlink__Agent__V1__RemoveContainerResponse response = INTERLINK__AGENT__V1__REMOVE_CONTAINER_RESPONSE__INIT;

    (void)c;
    if (err != NULL)
        rpc_fail(arg, err);
    else
        rpc_reply(arg, &response.base);
}

static void agent_on_remove_container(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    const Interlink__Agent__V1__RemoveContainerRequest *request = (const void *)message;

    agent_container_remove(context, request->id, agent_on_remove_done, call);
}

static void agent_on_update_done(void *arg, const struct status *err, const struct agent_container *c)
{
    Interlink__Agent__V1__UpdateContainerResponse response = INTERLINK__AGENT__V1__UPDATE_CONTAINER_RESPONSE__INIT;

    (void)c;
    if (err != NULL)
        rpc_fail(arg, err);
    else
        rpc_reply(arg, &response.base);
}

static void agent_on_update_container(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    const Interlink__Agent__V1__UpdateContainerRequest *request = (const void *)message;

    if (request->resources == NULL)
        rpc_failf(call, STATUS_INVALID_ARGUMENT, "resources: missing");
    else
        agent_container_update(context, request->id, request->resources, agent_on_update_done, call);
}

/* The pod's own limits. */
struct agent_pod_update {
    struct agent *agent;
    struct rpc_call *call;
    const Interlink__Agent__V1__UpdateSandboxRequest *request; /* lives as long as the call */
    struct worker worker;
};

static bool agent_pod_update_work(void *arg, struct buf *output, struct status *err)
{
    const struct agent_pod_update *u = arg;

    (void)output;
    agent_worker_enter(u->agent);
    return engine_update_pod(u->agent->engine, u->request->overhead, u->request->resources, err);
}

static void agent_pod_update_done(void *arg, const struct status *err, struct buf *output)
{
    struct agent_pod_update *u = arg;
    Interlink__Agent__V1__UpdateSandboxResponse response = INTERLINK__AGENT__V1__UPDATE_SANDBOX_RESPONSE__INIT;

    (void)output;
    if (err != NULL)
        rpc_fail(u->call, err);
    else
        rpc_reply(u->call, &response.base);
}

/* Without a function for the call's end it is ours until the worker is done. */
static void agent_on_update_sandbox(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct agent *agent = context;
    struct agent_pod_update *u = ARENA_NEW(rpc_call_arena(call), struct agent_pod_update);
    struct status err = STATUS_INIT;

    *u = (struct agent_pod_update){ .agent = agent, .call = call, .request = (const void *)message };
    if (!agent_usable(agent, &err) ||
        !worker_start(agent->loop, &u->worker, agent_pod_update_work, u, agent_pod_update_done, u, &err))
        rpc_fail(call, &err);
}

static void agent_on_exec(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    (void)message;
    agent_exec(context, call);
}

static void agent_on_attach(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    (void)message;
    agent_attach(context, call);
}

static void agent_on_port_forward(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    (void)message;
    agent_forward(context, call);
}

/* ---- usage ---- */

static void agent_on_stats(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    agent_stats(context, call, (const void *)message);
}

/* ---- logs ---- */

/* Between the headers and the first message, which says whose log it is. */
struct agent_logs_call {
    struct agent *agent;
    struct rpc_call *call;
};

static void agent_on_logs_message(void *arg, const ProtobufCMessage *message)
{
    struct agent_logs_call *logs = arg;
    const Interlink__Agent__V1__LogsRequest *request = (const void *)message;

    if (request == NULL) {
        rpc_failf(logs->call, STATUS_INVALID_ARGUMENT, "container_id: missing: the call ended before its first message");
        return;
    }
    struct agent_container *c = agent_container_find(logs->agent, request->container_id);
    if (c == NULL)
        rpc_failf(logs->call, STATUS_NOT_FOUND, "container \"%.64s\" is not in this pod", request->container_id);
    else
        agent_output_read(&c->output, logs->call, request->from);
}

static void agent_on_logs_cancel(void *arg)
{
    (void)arg; /* nothing was begun; that there is a function lets the call go */
}

static void agent_on_logs(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct agent_logs_call *logs = ARENA_NEW(rpc_call_arena(call), struct agent_logs_call);

    (void)message;
    logs->agent = context;
    logs->call = call;
    rpc_call_on_cancel(call, agent_on_logs_cancel, logs);
    rpc_call_on_message(call, agent_on_logs_message, logs);
}

/* ---- the table ---- */

#define AGENT_METHOD(name, kind, lower)                                                                                \
    { #name, kind, &interlink__agent__v1__##lower##_request__descriptor,                                               \
      &interlink__agent__v1__##lower##_response__descriptor, agent_on_##lower }

static const struct rpc_method agent_methods[] = {
    AGENT_METHOD(Hello, RPC_UNARY, hello),
    AGENT_METHOD(ConfigureSandbox, RPC_UNARY, configure_sandbox),
    AGENT_METHOD(MissingBlobs, RPC_UNARY, missing_blobs),
    AGENT_METHOD(PutBlob, RPC_CLIENT_STREAMING, put_blob),
    AGENT_METHOD(PutFiles, RPC_CLIENT_STREAMING, put_files),
    AGENT_METHOD(CreateContainer, RPC_UNARY, create_container),
    AGENT_METHOD(StartContainer, RPC_UNARY, start_container),
    AGENT_METHOD(SignalContainer, RPC_UNARY, signal_container),
    AGENT_METHOD(RemoveContainer, RPC_UNARY, remove_container),
    AGENT_METHOD(UpdateContainer, RPC_UNARY, update_container),
    AGENT_METHOD(UpdateSandbox, RPC_UNARY, update_sandbox),
    AGENT_METHOD(Exec, RPC_BIDI_STREAMING, exec),
    { "Attach", RPC_BIDI_STREAMING, &interlink__agent__v1__exec_request__descriptor,
      &interlink__agent__v1__exec_response__descriptor, agent_on_attach },
    AGENT_METHOD(PortForward, RPC_BIDI_STREAMING, port_forward),
    AGENT_METHOD(Stats, RPC_UNARY, stats),
    AGENT_METHOD(Logs, RPC_BIDI_STREAMING, logs),
    { "Events", RPC_SERVER_STREAMING, &interlink__agent__v1__events_request__descriptor,
      &interlink__agent__v1__event__descriptor, agent_on_events },
    AGENT_METHOD(Ports, RPC_SERVER_STREAMING, ports),
    AGENT_METHOD(Shutdown, RPC_UNARY, shutdown),
};

#undef AGENT_METHOD

/* However many streams are open, there is room for calls. */
_Static_assert(AGENT_EXECS_MAX + AGENT_ATTACHES_MAX + AGENT_FORWARDS_MAX + AGENT_CONTAINERS_MAX + AGENT_INTAKES_MAX +
                       2 * AGENT_SUBSCRIBERS_MAX + 100 <= H2_STREAMS_MAX, "an agent's streams and calls fit one connection");

void agent_service(struct agent *agent, struct rpc_service *out)
{
    *out = (struct rpc_service){
        .name = "interlink.agent.v1.Agent",
        .methods = agent_methods,
        .method_count = COUNT_OF(agent_methods),
        .context = agent,
    };
}
