/* SPDX-License-Identifier: Apache-2.0 */
/* A gRPC server on the program's own layer, for clients of other implementations to try: echo_server SOCKET [TCP-PORT].
 * Prints "ready" and the TCP port (0: none), serves until SIGTERM, drains, and exits with 0. */
#include "base/base.h"
#include "io/loop.h"
#include "io/socket.h"
#include "io/stream.h"
#include "rpc/health.h"
#include "rpc/reflection.h"
#include "rpc/rpc.h"

#include "descriptors.inc"
#include "echo.pb-c.h"

struct echo {
    struct loop *loop;
    struct rpc_server *server;
    struct rpc_health *health;
    struct listener unix_listener, tcp_listener;
    int64_t calls, cancelled, running;
};

/* One call that does not end at once; in its arena. */
struct echo_call {
    struct echo *echo;
    struct rpc_call *call;
    const Echo__V1__EchoRequest *request;
    struct timer timer;
    int64_t messages, bytes; /* Collect */
    uint8_t *payload;        /* Generate */
    int32_t index;
    bool paused_once;
};

static void echo_call_over(struct echo_call *c)
{
    timer_stop(&c->timer);
    c->echo->running--;
}

static void echo_on_cancel(void *arg)
{
    struct echo_call *c = arg;

    echo_call_over(c);
    c->echo->cancelled++;
}

static struct echo_call *echo_call_new(struct echo *echo, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct echo_call *c = ARENA_NEW(rpc_call_arena(call), struct echo_call);

    c->echo = echo;
    c->call = call;
    c->request = (const Echo__V1__EchoRequest *)(const void *)request;
    echo->calls++;
    echo->running++;
    rpc_call_on_cancel(call, echo_on_cancel, c);
    return c;
}

static int64_t echo_time_left(struct rpc_call *call)
{
    int64_t left = rpc_call_time_left_ms(call);

    return left == INT64_MAX ? -1 : left;
}

/* ---- Unary ---- */

static void echo_metadata(struct rpc_call *call)
{
    const char *key, *value;

    for (size_t i = 0; rpc_call_metadata_at(call, i, &key, &value); i++) {
        if (strncmp(key, "x-", 2) != 0)
            continue;
        struct str plain = rpc_call_metadata(call, key);
        struct rpc_metadata field = { key, plain.p, plain.n };
        rpc_call_add_header(call, &field);
        rpc_call_add_trailer(call, &field);
    }
}

static void echo_unary_answer(void *arg)
{
    struct echo_call *c = arg;
    Echo__V1__EchoReply reply = ECHO__V1__ECHO_REPLY__INIT;
    struct rpc_call *call = c->call;

    if (c->request->echo_metadata)
        echo_metadata(call);
    echo_call_over(c);
    if (c->request->fail_code != 0) {
        rpc_failf(call, (enum status_code)c->request->fail_code, "%s", c->request->text);
        return;
    }
    reply.text = c->request->text;
    reply.payload = c->request->payload;
    reply.time_left_ms = echo_time_left(call);
    rpc_reply(call, &reply.base);
}

static void echo_on_unary(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct echo_call *c = echo_call_new(context, call, message);

    if (c->request->delay_ms > 0)
        timer_start(c->echo->loop, &c->timer, c->request->delay_ms, echo_unary_answer, c);
    else
        echo_unary_answer(c);
}

/* ---- Collect ---- */

static void echo_resume(void *arg)
{
    struct echo_call *c = arg;

    rpc_call_pause(c->call, false);
}

static void echo_on_collected(void *arg, const ProtobufCMessage *message)
{
    struct echo_call *c = arg;
    const Echo__V1__EchoRequest *request = (const void *)message;
    Echo__V1__CollectReply reply = ECHO__V1__COLLECT_REPLY__INIT;

    if (request == NULL) {
        reply.messages = c->messages;
        reply.bytes = c->bytes;
        echo_call_over(c);
        rpc_reply(c->call, &reply.base);
        return;
    }
    c->messages++;
    c->bytes += (int64_t)request->payload.len;
    if (request->pause_ms > 0 && !c->paused_once) {
        c->paused_once = true;
        rpc_call_pause(c->call, true);
        timer_start(c->echo->loop, &c->timer, request->pause_ms, echo_resume, c);
    }
    if (request->fail_code != 0) {
        echo_call_over(c);
        rpc_failf(c->call, (enum status_code)request->fail_code, "%s", request->text);
    }
}

static void echo_on_collect(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct echo_call *c = echo_call_new(context, call, message);

    rpc_call_on_message(call, echo_on_collected, c);
}

/* ---- Generate ---- */

static void echo_generate(void *arg)
{
    struct echo_call *c = arg;
    Echo__V1__EchoReply reply = ECHO__V1__ECHO_REPLY__INIT;

    reply.payload.len = (size_t)c->request->size;
    reply.payload.data = c->payload;
    while (c->index < c->request->count) {
        reply.index = c->index++;
        if (!rpc_send(c->call, &reply.base))
            return;
    }
    echo_call_over(c);
    rpc_finish(c->call, NULL);
}

static void echo_on_generate(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct echo_call *c = echo_call_new(context, call, message);

    if (c->request->size < 0 || c->request->size > (int32_t)RPC_MESSAGE_MAX) {
        echo_call_over(c);
        rpc_failf(call, STATUS_INVALID_ARGUMENT, "size is out of bounds");
        return;
    }
    c->payload = arena_alloc_raw(rpc_call_arena(call), (size_t)c->request->size);
    memset(c->payload, 'g', (size_t)c->request->size);
    rpc_call_on_writable(call, echo_generate, c);
    echo_generate(c);
}

/* ---- Chat ---- */

static void echo_chat_writable(void *arg)
{
    struct echo_call *c = arg;

    rpc_call_pause(c->call, false);
}

static void echo_on_chat_message(void *arg, const ProtobufCMessage *message)
{
    struct echo_call *c = arg;
    const Echo__V1__EchoRequest *request = (const void *)message;
    Echo__V1__EchoReply reply = ECHO__V1__ECHO_REPLY__INIT;

    if (request == NULL) {
        echo_call_over(c);
        rpc_finish(c->call, NULL);
        return;
    }
    if (request->fail_code != 0) {
        echo_call_over(c);
        rpc_failf(c->call, (enum status_code)request->fail_code, "%s", request->text);
        return;
    }
    reply.text = request->text;
    reply.payload = request->payload;
    reply.index = c->index++;
    reply.time_left_ms = echo_time_left(c->call);
    if (!rpc_send(c->call, &reply.base))
        rpc_call_pause(c->call, true);
}

static void echo_on_chat(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct echo_call *c = echo_call_new(context, call, message);

    rpc_call_on_message(call, echo_on_chat_message, c);
    rpc_call_on_writable(call, echo_chat_writable, c);
}

static void echo_on_counters(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct echo *echo = context;
    Echo__V1__CountersReply reply = ECHO__V1__COUNTERS_REPLY__INIT;

    (void)message;
    reply.calls = echo->calls;
    reply.cancelled = echo->cancelled;
    reply.running = echo->running;
    rpc_reply(call, &reply.base);
}

static const struct rpc_method echo_methods[] = {
    { "Unary", RPC_UNARY, &echo__v1__echo_request__descriptor, &echo__v1__echo_reply__descriptor, echo_on_unary },
    { "Collect", RPC_CLIENT_STREAMING, &echo__v1__echo_request__descriptor, &echo__v1__collect_reply__descriptor,
      echo_on_collect },
    { "Generate", RPC_SERVER_STREAMING, &echo__v1__echo_request__descriptor, &echo__v1__echo_reply__descriptor,
      echo_on_generate },
    { "Chat", RPC_BIDI_STREAMING, &echo__v1__echo_request__descriptor, &echo__v1__echo_reply__descriptor, echo_on_chat },
    { "Counters", RPC_UNARY, &echo__v1__counters_request__descriptor, &echo__v1__counters_reply__descriptor,
      echo_on_counters },
};

/* ---- the process ---- */

static void echo_on_accept(void *arg, int fd)
{
    struct echo *echo = arg;
    struct status err;
    struct stream *stream = stream_of_fd(echo->loop, fd, &err);

    if (stream == NULL)
        log_error("%s", err.message);
    else
        rpc_server_accept(echo->server, stream);
}

static void echo_on_drained(void *arg)
{
    struct echo *echo = arg;

    loop_stop(echo->loop);
}

static void echo_on_term(void *arg, const struct signalfd_siginfo *info)
{
    struct echo *echo = arg;

    (void)info;
    listener_close(&echo->unix_listener);
    listener_close(&echo->tcp_listener);
    rpc_health_shutdown(echo->health);
    rpc_server_shutdown(echo->server, echo_on_drained, echo);
}

static bool echo_listen(struct echo *echo, const char *path, uint16_t *port, struct status *err)
{
    struct address address;

    if (!address_parse(path, &address, err) ||
        !listener_open(echo->loop, &echo->unix_listener, &address, 0600, echo_on_accept, echo, NULL, err))
        return false;
    if (port == NULL)
        return true;
    return address_parse("127.0.0.1:0", &address, err) &&
           listener_open(echo->loop, &echo->tcp_listener, &address, 0, echo_on_accept, echo, port, err);
}

int main(int argc, char **argv)
{
    struct status err;
    struct echo echo = { .unix_listener.fd = -1, .tcp_listener.fd = -1 };
    struct rpc_service service = { "echo.v1.Echo", echo_methods, COUNT_OF(echo_methods), &echo };
    const struct rpc_service *offered[4] = { &service };
    struct rpc_services services = { .services = offered, .count = COUNT_OF(offered) };
    struct str descriptors = { (const char *)descriptor_set, sizeof descriptor_set };
    uint16_t port = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: echo_server SOCKET [tcp]\n");
        return 2;
    }
    log_setup(getenv("ECHO_DEBUG") != NULL ? LOG_DEBUG : LOG_INFO, "echo");
    echo.loop = loop_new(&err);
    struct rpc_reflection *reflection = rpc_reflection_new(&services, descriptors, &err);
    if (echo.loop == NULL || reflection == NULL) {
        log_error("%s", err.message);
        return 1;
    }
    echo.health = rpc_health_new(&services);
    offered[1] = rpc_health_service(echo.health);
    offered[2] = rpc_reflection_v1(reflection);
    offered[3] = rpc_reflection_v1alpha(reflection);
    echo.server = rpc_server_new(echo.loop, &services);
    if (!loop_signal(echo.loop, SIGTERM, echo_on_term, &echo, &err) ||
        !echo_listen(&echo, argv[1], argc > 2 ? &port : NULL, &err)) {
        log_error("%s", err.message);
        return 1;
    }
    printf("ready %u\n", port);
    fflush(NULL);
    loop_run(echo.loop);
    rpc_server_free(echo.server);
    rpc_health_free(echo.health);
    rpc_reflection_free(reflection);
    loop_free(echo.loop);
    return 0;
}
