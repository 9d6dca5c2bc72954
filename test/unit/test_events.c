/* SPDX-License-Identifier: Apache-2.0 */
/* node/events: who hears what, and that nothing is left out in silence. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc_pair.h"

#include "node/events.h"

static struct events *events;

static void on_events(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    events_subscribe(events, call);
}

static const struct rpc_method methods[] = {
    { "Events", RPC_SERVER_STREAMING, &runtime__v1__get_events_request__descriptor,
      &runtime__v1__container_event_response__descriptor, on_events },
};
static const struct rpc_service service = { "test.Test", methods, COUNT_OF(methods), NULL };
static const struct rpc_service *const offered[] = { &service };
static const struct rpc_services services = { offered, COUNT_OF(offered), NULL, NULL };

struct listener_end {
    struct rpc_request *request;
    int heard, first, last; /* numbers of events */
    int64_t last_ns;
    bool done, pause;
    struct status status;
};

static void on_message(void *arg, const ProtobufCMessage *message)
{
    struct listener_end *l = arg;
    const Runtime__V1__ContainerEventResponse *event = (const void *)message;
    int number = atoi(event->container_id);

    assert_true(l->heard == 0 || number == l->last + 1);
    assert_true(event->created_at > l->last_ns);
    if (l->heard++ == 0)
        l->first = number;
    l->last = number;
    l->last_ns = event->created_at;
    if (l->pause)
        rpc_request_pause(l->request, true);
}

static void on_finish(void *arg, const struct status *status)
{
    struct listener_end *l = arg;

    l->done = true;
    l->status = *status;
}

static void subscribe(struct rpc_pair *pair, struct listener_end *l)
{
    Runtime__V1__GetEventsRequest request = RUNTIME__V1__GET_EVENTS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/test.Test/Events",
        .output = &runtime__v1__container_event_response__descriptor,
        .on_message = on_message,
        .on_finish = on_finish,
        .arg = l,
    };

    bool pause = l->pause;
    *l = (struct listener_end){ .pause = pause };
    l->request = rpc_request_start(pair->client, &options);
    rpc_request_send(l->request, &request.base);
    rpc_request_half_close(l->request);
    rpc_pair_settle(pair);
}

/* An event with a number and that many bytes of ballast. */
static void send_event(int number, size_t n)
{
    Runtime__V1__ContainerEventResponse event = RUNTIME__V1__CONTAINER_EVENT_RESPONSE__INIT;
    Runtime__V1__PodSandboxStatus sandbox = RUNTIME__V1__POD_SANDBOX_STATUS__INIT;
    char id[16];
    cleanup_free char *ballast = xmalloc(n + 1);

    memset(ballast, 'x', n);
    ballast[n] = '\0';
    snprintf(id, sizeof id, "%d", number);
    event.container_id = id;
    sandbox.id = ballast;
    event.pod_sandbox_status = &sandbox;
    events_send(events, &event);
}

static void open_pair(struct rpc_pair *pair)
{
    rpc_pair_open(pair, &services);
    events = events_new(pair->loop);
}

static void close_pair(struct rpc_pair *pair)
{
    rpc_conn_free(pair->client);
    rpc_server_free(pair->server);
    events_free(events);
    loop_free(pair->loop);
}

static void test_everybody_hears_everything(void **unused)
{
    struct rpc_pair pair;
    struct listener_end a = { 0 }, b = { 0 };

    (void)unused;
    open_pair(&pair);
    assert_true(events_wanted(events));
    send_event(1, 10); /* kept for who comes first */
    subscribe(&pair, &a);
    subscribe(&pair, &b);
    assert_int_equal(events_subscribers(events), 2);
    for (int i = 2; i <= 100; i++)
        send_event(i, 1000);
    rpc_pair_settle(&pair);
    assert_int_equal(a.first, 1);
    assert_int_equal(a.last, 100);
    assert_int_equal(b.first, 2);
    assert_int_equal(b.last, 100);
    rpc_request_cancel(a.request);
    rpc_pair_settle(&pair);
    assert_int_equal(events_subscribers(events), 1);
    send_event(101, 10);
    rpc_pair_settle(&pair);
    assert_int_equal(a.last, 100);
    assert_int_equal(b.last, 101);
    close_pair(&pair);
}

/* One does not read: it is told, the other loses nothing. */
static void test_a_slow_subscriber_is_dropped_with_a_word(void **unused)
{
    struct rpc_pair pair;
    struct listener_end slow = { .pause = true }, quick = { 0 };
    int i;

    (void)unused;
    open_pair(&pair);
    subscribe(&pair, &slow);
    subscribe(&pair, &quick);
    for (i = 1; events_subscribers(events) == 2; i++) {
        assert_true(i < 1000);
        send_event(i, 64 << 10);
        rpc_pair_settle(&pair);
    }
    assert_true((size_t)i * (64 << 10) > EVENTS_KEPT_BYTES);
    send_event(i, 10);
    slow.pause = false;
    rpc_request_pause(slow.request, false);
    rpc_pair_run(&pair, &slow.done);
    assert_int_equal(slow.status.code, STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(slow.first, 1);
    assert_true(slow.last < i);
    assert_int_equal(quick.first, 1);
    assert_int_equal(quick.last, i);
    close_pair(&pair);
}

/* A pause that fits the bound costs nothing. */
static void test_a_late_reader_catches_up(void **unused)
{
    struct rpc_pair pair;
    struct listener_end l = { .pause = true };

    (void)unused;
    open_pair(&pair);
    subscribe(&pair, &l);
    for (int i = 1; i <= 60; i++)
        send_event(i, 64 << 10);
    rpc_pair_settle(&pair);
    assert_int_equal(l.heard, 1);
    l.pause = false;
    rpc_request_pause(l.request, false);
    for (int i = 0; i < 100 && l.last < 60; i++)
        rpc_pair_settle(&pair);
    assert_int_equal(l.heard, 60);
    close_pair(&pair);
}

static void test_a_loss_while_nobody_listened_is_told_once(void **unused)
{
    struct rpc_pair pair;
    struct listener_end l = { 0 };

    (void)unused;
    open_pair(&pair);
    for (int i = 1; i <= 200; i++)
        send_event(i, 64 << 10);
    subscribe(&pair, &l);
    rpc_pair_run(&pair, &l.done);
    assert_int_equal(l.status.code, STATUS_DATA_LOSS);
    subscribe(&pair, &l);
    assert_false(l.done);
    send_event(201, 10);
    rpc_pair_settle(&pair);
    assert_int_equal(l.first, 201);
    close_pair(&pair);
}

static void test_an_event_that_no_message_holds_ends_the_streams(void **unused)
{
    struct rpc_pair pair;
    struct listener_end l = { 0 };

    (void)unused;
    open_pair(&pair);
    subscribe(&pair, &l);
    send_event(1, RPC_MESSAGE_MAX);
    rpc_pair_run(&pair, &l.done);
    assert_int_equal(l.status.code, STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(events_subscribers(events), 0);
    close_pair(&pair);
}

static void test_closing_ends_the_streams_in_order(void **unused)
{
    struct rpc_pair pair;
    struct listener_end l = { 0 };
    struct status why = STATUS_INIT;

    (void)unused;
    open_pair(&pair);
    subscribe(&pair, &l);
    send_event(1, 10);
    status_set(&why, STATUS_UNAVAILABLE, "the end");
    events_close(events, &why);
    rpc_pair_run(&pair, &l.done);
    assert_int_equal(l.last, 1);
    assert_int_equal(l.status.code, STATUS_UNAVAILABLE);
    assert_string_equal(l.status.message, "the end");
    close_pair(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everybody_hears_everything),
        cmocka_unit_test(test_a_slow_subscriber_is_dropped_with_a_word),
        cmocka_unit_test(test_a_late_reader_catches_up),
        cmocka_unit_test(test_a_loss_while_nobody_listened_is_told_once),
        cmocka_unit_test(test_an_event_that_no_message_holds_ends_the_streams),
        cmocka_unit_test(test_closing_ends_the_streams_in_order),
    };

    log_setup(LOG_ERROR, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
