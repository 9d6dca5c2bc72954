/* SPDX-License-Identifier: Apache-2.0 */
#include "node/link.h"

#include "node/container.h"
#include "node/features.h"
#include "node/pod_network.h"
#include "rpc/pb.h"

/* An agent answers these at once; one that does not is as good as gone, and will dial again. */
#define LINK_SETUP_TIMEOUT_MS 15000
/* Through NATs and firewalls that forget idle connections, and to notice a machine that fell over. */
#define LINK_KEEPALIVE_PART 3 /* of Relay.Keepalive, for the answer */

struct link {
    struct sandbox *sandbox;
    const struct link_owner *owner;
    void *arg;
    struct rpc_conn *conn; /* owned */
    bool ready, configuring;
    Interlink__Agent__V1__HelloResponse *hello; /* owned; NULL before it came */
    char peer[64];
    struct deferred broken; /* a set-up that failed is told from the loop */
    struct status err;
};

static void link_on_broken(void *arg)
{
    struct link *link = arg;

    link->owner->on_lost(link->arg, &link->err);
}

static void link_break(struct link *link, const struct status *err, const char *what)
{
    link->err = *err;
    status_prefix(&link->err, "the agent at %s did not take %s", link->peer, what);
    deferred_start(link->sandbox->node->loop, &link->broken, link_on_broken, link);
}

static void link_on_event(void *arg, const ProtobufCMessage *message)
{
    struct link *link = arg;
    const Interlink__Agent__V1__Event *event = (const void *)message;
    struct container *container;

    if (event->state == NULL)
        return;
    container = strmap_get(&link->sandbox->node->containers, event->state->id);
    if (container != NULL && container->sandbox == link->sandbox)
        container_on_state(container, event->state);
}

static void link_on_events_end(void *arg, const struct status *status)
{
    struct link *link = arg;

    /* With the connection itself on_close speaks. */
    if (status->code != STATUS_UNAVAILABLE)
        link_break(link, status, "the subscription to events");
}

static void link_subscribe(struct link *link, uint64_t from)
{
    Interlink__Agent__V1__EventsRequest request = INTERLINK__AGENT__V1__EVENTS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Events",
        .output = &interlink__agent__v1__event__descriptor,
        .on_message = link_on_event,
        .on_finish = link_on_events_end,
        .arg = link,
    };

    request.from_sequence = from;
    struct rpc_request *events = rpc_request_start(link->conn, &options);
    rpc_request_send(events, &request.base);
    rpc_request_half_close(events);
}

static void link_on_configured(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct link *link = arg;

    (void)response;
    /* A word of refusal is the pod's end; silence is only the connection's. */
    if (status->code == STATUS_UNAVAILABLE || status->code == STATUS_DEADLINE_EXCEEDED) {
        link_break(link, status, "the pod's configuration");
    } else if (status->code != STATUS_OK) {
        link->owner->on_refused(link->arg, status);
    } else {
        link_subscribe(link, link->hello->last_sequence + 1);
        link->ready = true;
        link->owner->on_ready(link->arg, link->hello);
    }
}

/* Some sysctls can only be set when the pod's interfaces are there. */
void link_configure(struct link *link)
{
    Interlink__Agent__V1__ConfigureSandboxRequest configure = INTERLINK__AGENT__V1__CONFIGURE_SANDBOX_REQUEST__INIT;

    if (link->hello == NULL || link->configuring || !pod_network_up(link->sandbox))
        return;
    link->configuring = true;
    configure.config = link->sandbox->record->config;
    rpc_unary(link->conn, "/interlink.agent.v1.Agent/ConfigureSandbox", &configure.base,
              &interlink__agent__v1__configure_sandbox_response__descriptor, LINK_SETUP_TIMEOUT_MS, link_on_configured,
              link);
}

static void link_on_hello(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct link *link = arg;
    struct sandbox *sandbox = link->sandbox;

    if (status->code != STATUS_OK) {
        link_break(link, status, "our greeting");
        return;
    }
    link->hello = (void *)pb_copy(response);
    log_info("pod %.13s: agent %s on %s, engine %s (%s)", sandbox->record->id, link->hello->version,
             link->hello->hostname, link->hello->engine, link->hello->engine_reason);
    features_learn(sandbox->handler, link->hello->features);
    link_configure(link);
}

static void link_on_close(void *arg, const struct status *err)
{
    struct link *link = arg;

    link->ready = false;
    link->owner->on_lost(link->arg, err);
}

struct link *link_new(struct sandbox *sandbox, const struct link_owner *owner, void *arg, struct stream *stream, struct str early)
{
    struct link *link = xcalloc(1, sizeof *link);
    struct rpc_conn_options options = {
        .keepalive_ms = sandbox->node->options->relay_keepalive_ms,
        .keepalive_timeout_ms = sandbox->node->options->relay_keepalive_ms / LINK_KEEPALIVE_PART,
        .budget = &sandbox->node->link_budget,
        .on_close = link_on_close,
        .arg = link,
    };
    Interlink__Agent__V1__HelloRequest hello = INTERLINK__AGENT__V1__HELLO_REQUEST__INIT;

    link->sandbox = sandbox;
    link->owner = owner;
    link->arg = arg;
    snprintf(link->peer, sizeof link->peer, "%s", stream->peer);
    link->conn = rpc_conn_new(sandbox->node->loop, stream, &options, early);
    hello.version = (char *)(uintptr_t)sandbox->node->options->version;
    if (!sandbox->handler->local)
        hello.relay = (char *)(uintptr_t)sandbox->node->options->relay_address;
    rpc_unary(link->conn, "/interlink.agent.v1.Agent/Hello", &hello.base,
              &interlink__agent__v1__hello_response__descriptor, LINK_SETUP_TIMEOUT_MS, link_on_hello, link);
    return link;
}

void link_give(struct link *link, void *arg)
{
    link->arg = arg;
}

struct rpc_conn *link_conn(struct link *link)
{
    return link->conn;
}

const Interlink__Agent__V1__HelloResponse *link_hello(const struct link *link)
{
    return link->hello;
}

bool link_ready(const struct link *link)
{
    return link->ready;
}

int link_netns(const struct link *link)
{
    const struct stream *stream = rpc_conn_carrier(link->conn);

    return stream != NULL ? stream_peer_netns(stream) : -1;
}

void link_bytes(const struct link *link, uint64_t *received, uint64_t *sent)
{
    rpc_conn_bytes(link->conn, received, sent);
}

void link_free(struct link *link)
{
    uint64_t received, sent;

    if (link == NULL)
        return;
    link_bytes(link, &received, &sent);
    link->sandbox->handler->agent_received += received;
    link->sandbox->handler->agent_sent += sent;
    rpc_conn_free(link->conn); /* ends what is under way, which may call link_break */
    deferred_stop(&link->broken);
    if (link->hello != NULL)
        protobuf_c_message_free_unpacked(&link->hello->base, NULL);
    free(link);
}
