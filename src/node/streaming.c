/* SPDX-License-Identifier: Apache-2.0 */
#include "node/streaming.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "http/server.h"
#include "io/tls.h"
#include "node/container.h"
#include "node/link.h"
#include "node/stream_session.h"
#include "node/stream_token.h"
#include "node/stream_upgrade.h"
#include "rpc/pb.h"

/* Probes of a silent peer, and how many may stay unanswered. */
#define STREAMING_PROBE_MS 10000
#define STREAMING_PROBES 3

struct streaming {
    struct node *node;
    struct tls_identity *identity; /* owned; NULL: plain HTTP */
    struct http_server *server;    /* owned; connections before their upgrade */
    struct listener listener;
    char *base; /* owned: "http://127.0.0.1:45913" */
    struct stream_tokens tokens;
    struct list sessions; /* of stream_session.link */
    size_t session_count;
    size_t forward_count; /* connections of port forwards */
    bool closing;
    void (*on_drained)(void *arg); /* to be told, once */
    void *drained_arg;
    struct deferred drained;
};

static void streaming_check_drained(struct streaming *streaming);

/* ---- the RPCs ---- */

static bool streaming_check_streams(bool tty, bool in, bool out, bool err_stream, struct status *err)
{
    if (tty && err_stream)
        return status_set(err, STATUS_INVALID_ARGUMENT, "tty and stderr cannot both be true: a terminal has one output");
    return in || out || err_stream ||
           status_set(err, STATUS_INVALID_ARGUMENT, "one of stdin, stdout and stderr must be set");
}

/* The container, running and within reach. */
static struct container *streaming_container(struct node *node, const char *id, struct status *err)
{
    struct container *container = node_container(node, id, err);

    if (container == NULL)
        return NULL;
    if (container->record->phase != INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING) {
        status_set(err, STATUS_FAILED_PRECONDITION, "container %.13s is not running", container->record->id);
        return NULL;
    }
    return container_link(container, err) != NULL ? container : NULL;
}

/* The URL for a request that has been checked; lives on the call's arena. */
static char *streaming_promise(struct node *node, struct rpc_call *call, enum stream_kind kind,
                               const ProtobufCMessage *request, struct status *err)
{
    static const char *const paths[] = { "exec", "attach", "portforward" };

    if (node->streaming == NULL) {
        status_set(err, STATUS_FAILED_PRECONDITION, "streams are switched off here (Streaming.Enabled in the configuration)");
        return NULL;
    }
    const struct stream_token *token = stream_tokens_add(&node->streaming->tokens, kind, request, err);
    if (token == NULL)
        return NULL;
    return arena_printf(rpc_call_arena(call), "%s/%s/%s", node->streaming->base, paths[kind], token->text);
}

void streaming_exec(struct node *node, struct rpc_call *call, const Runtime__V1__ExecRequest *request)
{
    Runtime__V1__ExecResponse response = RUNTIME__V1__EXEC_RESPONSE__INIT;
    Runtime__V1__ExecRequest checked = *request;
    struct status err = STATUS_INIT;

    struct container *container = NULL;
    if (request->n_cmd == 0)
        status_set(&err, STATUS_INVALID_ARGUMENT, "cmd: empty");
    else if (streaming_check_streams(request->tty != 0, request->stdin != 0, request->stdout != 0, request->stderr != 0, &err))
        container = streaming_container(node, request->container_id, &err);
    if (container != NULL) {
        checked.container_id = container->record->id; /* a prefix may fit others later */
        response.url = streaming_promise(node, call, STREAM_EXEC, &checked.base, &err);
    }
    if (container == NULL || response.url == NULL)
        rpc_fail(call, &err);
    else
        rpc_reply(call, &response.base);
}

void streaming_attach(struct node *node, struct rpc_call *call, const Runtime__V1__AttachRequest *request)
{
    Runtime__V1__AttachResponse response = RUNTIME__V1__ATTACH_RESPONSE__INIT;
    Runtime__V1__AttachRequest checked = *request;
    struct status err = STATUS_INIT;

    struct container *container = NULL;
    if (streaming_check_streams(request->tty != 0, request->stdin != 0, request->stdout != 0, request->stderr != 0, &err))
        container = streaming_container(node, request->container_id, &err);
    if (container != NULL) {
        checked.container_id = container->record->id;
        response.url = streaming_promise(node, call, STREAM_ATTACH, &checked.base, &err);
    }
    if (container == NULL || response.url == NULL)
        rpc_fail(call, &err);
    else
        rpc_reply(call, &response.base);
}

static bool streaming_check_ports(const Runtime__V1__PortForwardRequest *request, struct status *err)
{
    if (request->n_port > STREAM_PORTS_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "port: %zu of them; %d are the most", request->n_port,
                          STREAM_PORTS_MAX);
    for (size_t i = 0; i < request->n_port; i++)
        if (request->port[i] < 1 || request->port[i] > 65535)
            return status_set(err, STATUS_INVALID_ARGUMENT, "port[%zu]: %d is none: they go from 1 to 65535", i,
                              request->port[i]);
    return true;
}

void streaming_port_forward(struct node *node, struct rpc_call *call, const Runtime__V1__PortForwardRequest *request)
{
    Runtime__V1__PortForwardResponse response = RUNTIME__V1__PORT_FORWARD_RESPONSE__INIT;
    Runtime__V1__PortForwardRequest checked = *request;
    struct status err = STATUS_INIT;
    struct sandbox *sandbox = node_sandbox(node, request->pod_sandbox_id, &err);

    if (sandbox != NULL && streaming_check_ports(request, &err) && sandbox_link(sandbox, &err) != NULL) {
        checked.pod_sandbox_id = sandbox->record->id;
        response.url = streaming_promise(node, call, STREAM_FORWARD, &checked.base, &err);
    }
    if (err.code != STATUS_OK)
        rpc_fail(call, &err);
    else
        rpc_reply(call, &response.base);
}

/* ---- sessions ---- */

void stream_session_init(struct stream_session *s, const struct stream_opening *opening,
                         const struct stream_session_ops *ops)
{
    s->streaming = opening->streaming;
    s->node = opening->node;
    s->protocol = opening->protocol;
    snprintf(s->pod, sizeof s->pod, "%s", opening->pod);
    s->ops = ops;
    list_append(&s->streaming->sessions, &s->link);
    s->streaming->session_count++;
}

void stream_session_connect(struct stream_session *s, const struct stream_opening *opening,
                            struct channel_conn_options *options)
{
    options->carrier = s->protocol->carrier;
    options->close_signals = s->protocol->carrier == CHANNEL_WEBSOCKET && s->protocol->version >= 5;
    options->idle_timeout_ms = s->node->options->streaming.idle_timeout_ms;
    options->budget = &s->node->stream_budget;
    options->arg = s;
    s->conn = channel_conn_new(s->node->loop, opening->stream, opening->early, options);
}

void stream_session_done(struct stream_session *s)
{
    channel_conn_free(s->conn);
    s->conn = NULL;
    list_remove(&s->link);
    s->streaming->session_count--;
    streaming_check_drained(s->streaming);
}

bool stream_forwards_add(struct streaming *streaming)
{
    if (streaming->forward_count >= STREAM_FORWARDS_ALL_MAX)
        return false;
    streaming->forward_count++;
    return true;
}

void stream_forwards_remove(struct streaming *streaming)
{
    streaming->forward_count--;
}

static void stream_refused_data(void *arg, struct str piece)
{
    (void)arg;
    (void)piece;
}

static void stream_refused_gone(void *arg, const struct status *err)
{
    (void)arg;
    (void)err;
}

void stream_channel_refuse(struct channel *c)
{
    const struct channel_listener nobody = { .on_data = stream_refused_data, .on_gone = stream_refused_gone };

    channel_listen(c, &nobody);
    channel_reset(c);
}

void stream_channel_end(const struct stream_session *s, struct channel *c)
{
    if (s->protocol->carrier == CHANNEL_SPDY || s->protocol->carrier == CHANNEL_WEBSOCKET_SPDY)
        channel_end(c);
}

size_t streaming_sessions(const struct streaming *streaming)
{
    return streaming->session_count;
}

/* ---- the way to a session ---- */

/* Ports in the URL's query ("port=80&port=443" or "port=80,443"), for plain WebSocket. False: answered 400. */
static bool streaming_query_ports(struct http_exchange *x, uint16_t *ports, size_t *count)
{
    const char *query = http_exchange_query(x);
    cleanup_buf struct buf values = BUF_INIT;
    char *rest;

    for (size_t n; *query != '\0'; query += n + (query[n] == '&')) {
        n = strcspn(query, "&");
        if (n > 5 && strncmp(query, "port=", 5) == 0 &&
            (!http_percent_decode((struct str){ query + 5, n - 5 }, true, &values) || values.n == 0)) {
            http_replyf(x, 400, "a port in the URL is malformed");
            return false;
        }
        buf_append_byte(&values, ',');
    }
    cleanup_free char *list = buf_steal(&values);
    for (char *word = strtok_r(list, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
        uint64_t port;
        if (*count == STREAM_PORTS_MAX || !parse_u64(word, 65535, &port) || port == 0) {
            http_replyf(x, 400, "ports in the URL are numbers from 1 to 65535, %d at most", STREAM_PORTS_MAX);
            return false;
        }
        ports[(*count)++] = (uint16_t)port;
    }
    return true;
}

/* What plain WebSocket carries is settled before it begins: the request's ports, else the URL's. False: answered. */
static bool streaming_ports(struct http_exchange *x, const struct stream_token *token,
                            const struct stream_protocol *protocol, uint16_t *ports, size_t *count)
{
    const Runtime__V1__PortForwardRequest *request = (const void *)token->request;

    *count = 0;
    if (token->kind != STREAM_FORWARD || protocol->carrier == CHANNEL_SPDY || protocol->carrier == CHANNEL_WEBSOCKET_SPDY)
        return true;
    for (size_t i = 0; i < request->n_port; i++)
        ports[(*count)++] = (uint16_t)request->port[i];
    if (*count == 0 && !streaming_query_ports(x, ports, count))
        return false;
    if (*count > 0)
        return true;
    http_replyf(x, 400, "which port? WebSocket needs it in the request (port) or in the URL (?port=80)");
    return false;
}

/* Of a request that was checked when the token was made. */
static const char *streaming_pod(struct node *node, enum stream_kind kind, const ProtobufCMessage *request)
{
    const Runtime__V1__PortForwardRequest *forward = (const void *)request;
    const Runtime__V1__AttachRequest *attach = (const void *)request;
    const Runtime__V1__ExecRequest *exec = (const void *)request;

    if (kind == STREAM_FORWARD)
        return forward->pod_sandbox_id;
    const struct container *container =
        strmap_get(&node->containers, kind == STREAM_ATTACH ? attach->container_id : exec->container_id);
    return container != NULL ? container->sandbox->record->id : "";
}

static void streaming_serve(struct streaming *streaming, struct http_exchange *x, enum stream_kind kind)
{
    static const char unknown[] = "this address is not known: it is good for one stream, once, within a minute of its making; "
                                  "ask for a new one (Exec, Attach, PortForward)";
    const char *text = strchr(http_exchange_path(x) + 1, '/') + 1; /* the routes see to it that there is one */
    struct stream_token *token = stream_tokens_find(&streaming->tokens, kind, text);
    uint16_t ports[STREAM_PORTS_MAX];
    size_t port_count;

    if (token == NULL) {
        log_info("streaming: %s came with an unknown token", http_exchange_peer(x));
        http_replyf(x, 404, "%s", unknown);
        return;
    }
    if (streaming->session_count >= STREAM_SESSIONS_MAX || streaming->closing) {
        http_replyf(x, 503, streaming->closing ? "interlink-cri is being stopped" : "too many streams are open");
        return;
    }
    const struct stream_protocol *protocol = stream_upgrade_choose(x, kind);
    if (protocol == NULL || !streaming_ports(x, token, protocol, ports, &port_count))
        return;
    if (port_count > STREAM_FORWARDS_ALL_MAX - streaming->forward_count) {
        http_replyf(x, 503, "too many ports are being forwarded");
        return;
    }
    cleanup_buf struct buf early = BUF_INIT;
    struct stream_opening opening = {
        .streaming = streaming,
        .node = streaming->node,
        .kind = kind,
        .request = stream_tokens_use(&streaming->tokens, token),
        .protocol = protocol,
        .stream = stream_upgrade(x, protocol, &early),
    };
    if (opening.stream == NULL) {
        protobuf_c_message_free_unpacked(opening.request, NULL);
        return;
    }
    opening.early = (struct str){ buf_cstr(&early), early.n };
    opening.pod = streaming_pod(streaming->node, kind, opening.request);
    if (kind == STREAM_FORWARD)
        stream_forward_open(&opening, ports, port_count);
    else
        stream_command_open(&opening);
}

static void streaming_on_exec(void *context, struct http_exchange *x)
{
    streaming_serve(context, x, STREAM_EXEC);
}

static void streaming_on_attach(void *context, struct http_exchange *x)
{
    streaming_serve(context, x, STREAM_ATTACH);
}

static void streaming_on_port_forward(void *context, struct http_exchange *x)
{
    streaming_serve(context, x, STREAM_FORWARD);
}

static const struct http_route streaming_routes[] = {
    { "GET", "/exec/", 0, false, streaming_on_exec },
    { "POST", "/exec/", 0, false, streaming_on_exec },
    { "GET", "/attach/", 0, false, streaming_on_attach },
    { "POST", "/attach/", 0, false, streaming_on_attach },
    { "GET", "/portforward/", 0, false, streaming_on_port_forward },
    { "POST", "/portforward/", 0, false, streaming_on_port_forward },
};

/* ---- the listener ---- */

/* The kernel asks silent peers whether they live. PINGs of the protocols would not do: a client whose reader takes its
 * time answers none. */
static void streaming_watch_peer(const struct streaming *streaming, int fd)
{
    int64_t ms = streaming->node->options->streaming.keepalive_ms;
    int on = 1, idle = ms < 1000 ? 1 : ms / 1000 > INT16_MAX ? INT16_MAX : (int)(ms / 1000), gap = STREAMING_PROBE_MS / 1000;
    int probes = STREAMING_PROBES;

    if (ms <= 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &gap, sizeof gap);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

static void streaming_on_accept(void *arg, int fd)
{
    struct streaming *streaming = arg;
    struct status err = STATUS_INIT;

    streaming_watch_peer(streaming, fd);
    struct stream *stream = stream_of_fd(streaming->node->loop, fd, &err);
    if (stream != NULL && streaming->identity != NULL)
        stream = tls_server(streaming->node->loop, stream, streaming->identity, 0, &err);
    if (stream != NULL)
        http_server_accept(streaming->server, stream);
    else
        log_warn("streaming: %s", err.message);
}

/* What clients dial: an address that stands for all of this machine's is none. */
static char *streaming_base(const struct streaming *streaming, const struct address *address)
{
    const char *host = address->host;
    bool all = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;

    if (all)
        host = streaming->node->node_ip;
    bool v6 = strchr(host, ':') != NULL;
    return xasprintf("%s://%s%s%s:%u", streaming->identity != NULL ? "https" : "http", v6 ? "[" : "", host, v6 ? "]" : "",
                     address->port);
}

struct streaming *streaming_start(struct node *node, struct status *err)
{
    const struct node_streaming_options *o = &node->options->streaming;
    struct streaming *streaming = xcalloc(1, sizeof *streaming);
    struct address address = { .port = o->port };
    const struct http_server_options server = {
        .routes = streaming_routes,
        .route_count = COUNT_OF(streaming_routes),
        .context = streaming,
        .connections_max = STREAM_PENDING_MAX,
    };

    streaming->node = node;
    streaming->listener.fd = -1;
    list_init(&streaming->sessions);
    stream_tokens_init(&streaming->tokens, node->loop);
    streaming->server = http_server_new(node->loop, &server);
    snprintf(address.host, sizeof address.host, "%s", o->address);
    if (*o->cert_file != '\0')
        streaming->identity = tls_identity_load(o->cert_file, o->key_file, err);
    if ((*o->cert_file != '\0' && streaming->identity == NULL) ||
        !listener_open(node->loop, &streaming->listener, &address, 0, streaming_on_accept, streaming, &address.port, err)) {
        status_prefix(err, "streaming");
        streaming_stop(streaming);
        return NULL;
    }
    streaming->base = streaming_base(streaming, &address);
    return streaming;
}

static void streaming_check_drained(struct streaming *streaming)
{
    if (streaming->on_drained == NULL || !list_empty(&streaming->sessions))
        return;
    deferred_start(streaming->node->loop, &streaming->drained, streaming->on_drained, streaming->drained_arg);
    streaming->on_drained = NULL;
}

void streaming_shutdown(struct streaming *streaming, const struct status *why, void (*on_drained)(void *arg), void *arg)
{
    streaming->closing = true;
    listener_close(&streaming->listener);
    for (LIST_EACH_SAFE(struct stream_session, s, &streaming->sessions, link))
        s->ops->stop(s, why);
    streaming->on_drained = on_drained;
    streaming->drained_arg = arg;
    streaming_check_drained(streaming);
}

void streaming_pod_gone(const struct sandbox *sandbox, const char *reason)
{
    struct streaming *streaming = sandbox->node->streaming;
    const char *pod = sandbox->record->id;
    struct status why = STATUS_INIT;

    if (streaming == NULL)
        return;
    if (sandbox->stopping)
        status_set(&why, STATUS_UNAVAILABLE, "pod %.13s was stopped", pod);
    else
        status_set(&why, STATUS_UNAVAILABLE, "pod %.13s is out of reach: %s", pod, reason);
    for (LIST_EACH_SAFE(struct stream_session, s, &streaming->sessions, link))
        if (strcmp(s->pod, pod) == 0)
            s->ops->stop(s, &why);
}

void streaming_stop(struct streaming *streaming)
{
    if (streaming == NULL)
        return;
    listener_close(&streaming->listener);
    streaming->on_drained = NULL;
    deferred_stop(&streaming->drained);
    while (!list_empty(&streaming->sessions)) {
        struct stream_session *s = CONTAINER_OF(streaming->sessions.next, struct stream_session, link);
        s->ops->free(s);
    }
    http_server_free(streaming->server);
    stream_tokens_free(&streaming->tokens);
    tls_identity_free(streaming->identity);
    free(streaming->base);
    free(streaming);
}

#undef STREAMING_PROBE_MS
#undef STREAMING_PROBES
