/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC, server and client against each other: the four kinds of calls, deadlines, cancellation, back-pressure, ends. */
#include "rpc_pair.h"

/* ---- the service ---- */

static struct {
    struct rpc_call *call; /* the last one that is not ended at once */
    int calls, cancelled, messages, ends, call_ends;
    enum status_code last_code;
    size_t bytes;
    bool pause_at_first, reply_in_cancel, no_cancel_function;
    int sent, to_send;
    size_t size;
    int64_t time_left;
    void (*in_message)(void); /* runs in the middle of things */
} seen;

static int setup(void **unused)
{
    (void)unused;
    memset(&seen, 0, sizeof seen);
    return 0;
}

static uint8_t pattern[1 << 20];

static test_message message_of(size_t n, int32_t code)
{
    test_message m = TEST_MESSAGE_INIT;

    m.stdout = (ProtobufCBinaryData){ n, pattern };
    m.exit_code = code;
    return m;
}

static void on_cancel(void *arg)
{
    (void)arg;
    seen.cancelled++;
    if (seen.reply_in_cancel)
        rpc_failf(seen.call, STATUS_ABORTED, "too late"); /* harmless */
    seen.call = NULL;
}

static void keep(struct rpc_call *call)
{
    seen.call = call;
    seen.calls++;
    if (!seen.no_cancel_function)
        rpc_call_on_cancel(call, on_cancel, NULL);
}

static void on_echo(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    seen.calls++;
    seen.time_left = rpc_call_time_left_ms(call);
    rpc_reply(call, request);
}

static void on_fail(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const test_message *m = (const void *)request;

    (void)context;
    rpc_failf(call, (enum status_code)m->exit_code, "100%% \"böse\"\n%s", (char[]){ "\x7f end" });
}

static void on_hold(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    keep(call);
}

static void on_sink_message(void *arg, const ProtobufCMessage *message)
{
    const test_message *m = (const void *)message;

    (void)arg;
    if (m == NULL) {
        test_message reply = message_of(0, seen.messages);
        seen.ends++;
        struct rpc_call *call = seen.call;
        seen.call = NULL;
        rpc_reply(call, &reply.base);
        return;
    }
    seen.messages++;
    seen.bytes += m->stdout.len;
    assert_memory_equal(m->stdout.data, pattern, m->stdout.len);
    if (seen.pause_at_first && seen.messages == 1)
        rpc_call_pause(seen.call, true);
    if (seen.in_message != NULL)
        seen.in_message();
}

static void on_sink(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    assert_null(request);
    keep(call);
    rpc_call_on_message(call, on_sink_message, NULL);
}

static void source_more(void *arg)
{
    struct rpc_call *call = seen.call;

    (void)arg;
    while (seen.sent < seen.to_send) {
        test_message m = message_of(seen.size, seen.sent++);
        if (!rpc_send(call, &m.base))
            return;
    }
    seen.call = NULL;
    rpc_finish(call, NULL);
}

static void on_source(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    keep(call);
    rpc_call_on_writable(call, source_more, NULL);
    source_more(NULL);
}

static void on_chat_message(void *arg, const ProtobufCMessage *message)
{
    (void)arg;
    if (message == NULL)
        rpc_finish(seen.call, NULL);
    else
        rpc_send(seen.call, message);
}

static void on_chat(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    keep(call);
    rpc_call_on_message(call, on_chat_message, NULL);
}

static void on_fields(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct str text = rpc_call_metadata(call, "x-text"), raw = rpc_call_metadata(call, "x-raw-bin");
    struct rpc_metadata header = { "x-text", text.p, text.n }, trailer = { "x-raw-bin", raw.p, raw.n };
    const char *key, *value;
    size_t count = 0;

    (void)context;
    assert_null(rpc_call_metadata(call, "x-absent").p);
    while (rpc_call_metadata_at(call, count, &key, &value))
        count++;
    assert_true(count >= 2);
    rpc_call_add_header(call, &header);
    rpc_call_add_trailer(call, &trailer);
    if (((const test_message *)(const void *)request)->exit_code != 0)
        rpc_failf(call, STATUS_ABORTED, "as asked");
    else
        rpc_reply(call, request);
}

static const struct rpc_method methods[] = {
    { "Echo", RPC_UNARY, TEST_MESSAGE_TYPE, TEST_MESSAGE_TYPE, on_echo },
    { "Fail", RPC_UNARY, TEST_MESSAGE_TYPE, TEST_MESSAGE_TYPE, on_fail },
    { "Hold", RPC_UNARY, TEST_MESSAGE_TYPE, TEST_MESSAGE_TYPE, on_hold },
    { "Fields", RPC_UNARY, TEST_MESSAGE_TYPE, TEST_MESSAGE_TYPE, on_fields },
    { "Sink", RPC_CLIENT_STREAMING, TEST_MESSAGE_TYPE, TEST_MESSAGE_TYPE, on_sink },
    { "Source", RPC_SERVER_STREAMING, TEST_MESSAGE_TYPE, TEST_MESSAGE_TYPE, on_source },
    { "Chat", RPC_BIDI_STREAMING, TEST_MESSAGE_TYPE, TEST_MESSAGE_TYPE, on_chat },
};
static const struct rpc_service service = { "test.Test", methods, COUNT_OF(methods), NULL };
static const struct rpc_service *const offered[] = { &service };

static void on_call_end(void *arg, const char *service_name, const char *method, enum status_code code, double seconds)
{
    (void)arg;
    assert_string_equal(service_name, "test.Test");
    assert_true(*method != '\0' && seconds >= 0 && seconds < 100);
    seen.call_ends++;
    seen.last_code = code;
}
static const struct rpc_services services = { offered, COUNT_OF(offered), on_call_end, NULL };

/* ---- the client ---- */

struct result {
    bool done, writable;
    struct status status;
    int messages;
    size_t bytes;
    int32_t last;
    struct rpc_request *request;
    char text[32];
    struct str raw;
    bool pause_at_first, cancel_at_first;
};

static void on_unary_done(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct result *r = arg;
    const test_message *m = (const void *)response;

    assert_false(r->done);
    r->done = true;
    r->status = *status;
    assert_true((m != NULL) == (status->code == STATUS_OK));
    if (m == NULL)
        return;
    r->messages++;
    r->bytes += m->stdout.len;
    r->last = m->exit_code;
    assert_memory_equal(m->stdout.data, pattern, m->stdout.len < sizeof pattern ? m->stdout.len : sizeof pattern);
}

static void on_message(void *arg, const ProtobufCMessage *message)
{
    struct result *r = arg;
    const test_message *m = (const void *)message;

    assert_false(r->done);
    r->messages++;
    r->bytes += m->stdout.len;
    r->last = m->exit_code;
    if (r->pause_at_first && r->messages == 1)
        rpc_request_pause(r->request, true);
    if (r->cancel_at_first)
        rpc_request_cancel(r->request);
}

static void on_finish(void *arg, const struct status *status)
{
    struct result *r = arg;
    struct str text = rpc_request_metadata(r->request, "x-text");

    assert_false(r->done);
    r->done = true;
    r->status = *status;
    if (text.p != NULL)
        snprintf(r->text, sizeof r->text, "%s", text.p);
    struct str raw = rpc_request_metadata(r->request, "x-raw-bin");
    if (raw.p != NULL)
        r->raw = (struct str){ xmemdup(raw.p, raw.n), raw.n };
}

static void on_writable(void *arg)
{
    struct result *r = arg;

    r->writable = true;
}

static struct rpc_request *unary(struct rpc_pair *pair, struct result *r, const char *method, size_t n, int32_t code,
                                 int64_t timeout_ms)
{
    test_message m = message_of(n, code);

    *r = (struct result){ 0 };
    return rpc_unary(pair->client, method, &m.base, TEST_MESSAGE_TYPE, timeout_ms, on_unary_done, r);
}

static void start(struct rpc_pair *pair, struct result *r, const char *method, int64_t timeout_ms)
{
    struct rpc_request_options options = {
        .method = method,
        .output = TEST_MESSAGE_TYPE,
        .timeout_ms = timeout_ms,
        .on_message = on_message,
        .on_writable = on_writable,
        .on_finish = on_finish,
        .arg = r,
    };
    *r = (struct result){ 0 };
    r->request = rpc_request_start(pair->client, &options);
}

/* ---- unary ---- */

static void unary_calls(void **unused)
{
    struct rpc_pair pair;
    struct result r, many[200];

    (void)unused;
    rpc_pair_open(&pair, &services);
    unary(&pair, &r, "/test.Test/Echo", 5, 42, 0);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_OK);
    assert_int_equal(r.last, 42);
    assert_int_equal(r.bytes, 5);
    assert_true(seen.time_left == INT64_MAX);
    unary(&pair, &r, "/test.Test/Echo", 5, 42, 60000);
    rpc_pair_run(&pair, &r.done);
    assert_in_range(seen.time_left, 50000, 60001);
    for (size_t i = 0; i < COUNT_OF(many); i++)
        unary(&pair, &many[i], "/test.Test/Echo", i * 100, (int32_t)i, 0);
    assert_int_equal(rpc_conn_active(pair.client), COUNT_OF(many));
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        rpc_pair_run(&pair, &many[i].done);
        assert_int_equal(many[i].status.code, STATUS_OK);
        assert_int_equal(many[i].last, i);
        assert_int_equal(many[i].bytes, i * 100);
    }
    rpc_pair_settle(&pair);
    assert_int_equal(rpc_conn_active(pair.client), 0);
    assert_int_equal(seen.call_ends, COUNT_OF(many) + 2);
    rpc_pair_close(&pair);
}

static void big_messages(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = TEST_MESSAGE_INIT;
    /* The message is that and 5 bytes of tag and length: exactly the largest, then one byte more. */
    size_t fits = RPC_MESSAGE_MAX - 5;
    uint8_t *big = xcalloc(1, fits + 1);

    (void)unused;
    memcpy(big, pattern, sizeof pattern);
    rpc_pair_open(&pair, &services);
    for (int i = 0; i < 2; i++) {
        r = (struct result){ 0 };
        m.stdout = (ProtobufCBinaryData){ fits + (size_t)i, big };
        rpc_unary(pair.client, "/test.Test/Echo", &m.base, TEST_MESSAGE_TYPE, 0, on_unary_done, &r);
        rpc_pair_run(&pair, &r.done);
        if (i == 0) {
            assert_int_equal(r.status.code, STATUS_OK);
            assert_int_equal(r.bytes, fits);
        } else {
            assert_int_equal(r.status.code, STATUS_RESOURCE_EXHAUSTED);
            assert_non_null(strstr(r.status.message, "16777217"));
        }
    }
    free(big);
    /* The connection has survived it. */
    unary(&pair, &r, "/test.Test/Echo", 0, 1, 0);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_OK);
    rpc_pair_close(&pair);
}

static void errors(void **unused)
{
    struct rpc_pair pair;
    struct result r;

    (void)unused;
    rpc_pair_open(&pair, &services);
    for (int32_t code = 1; code <= 16; code++) {
        unary(&pair, &r, "/test.Test/Fail", 0, code, 0);
        rpc_pair_run(&pair, &r.done);
        assert_int_equal(r.status.code, code);
        assert_string_equal(r.status.message, "100% \"böse\"\n\x7f end");
        assert_int_equal(seen.last_code, code);
    }
    static const struct {
        const char *path, *message;
    } unknown[] = {
        { "/test.Test/Nothing", "unknown method Nothing of service test.Test" },
        { "/test.Other/Echo", "unknown service test.Other" },
        { "/test.Test", "malformed method name \"/test.Test\"" },
        { "/test.TestXEcho", "malformed method name \"/test.TestXEcho\"" },
        { "/", "malformed method name \"/\"" },
    };
    for (size_t i = 0; i < COUNT_OF(unknown); i++) {
        unary(&pair, &r, unknown[i].path, 0, 0, 0);
        rpc_pair_run(&pair, &r.done);
        assert_int_equal(r.status.code, STATUS_UNIMPLEMENTED);
        assert_string_equal(r.status.message, unknown[i].message);
    }
    rpc_pair_close(&pair);
}

static void metadata(void **unused)
{
    struct rpc_pair pair;
    struct result r = { 0 };
    const struct rpc_metadata sent[] = { { "x-text", "plain text", 10 }, { "x-raw-bin", "\0\1\xff\0", 4 } };

    (void)unused;
    rpc_pair_open(&pair, &services);
    for (int32_t code = 0; code < 2; code++) {
        struct rpc_request_options options = { .method = "/test.Test/Fields",
                                               .output = TEST_MESSAGE_TYPE,
                                               .on_finish = on_finish,
                                               .arg = &r,
                                               .metadata = sent,
                                               .metadata_count = 2 };
        test_message m = message_of(0, code);
        r = (struct result){ 0 };
        r.request = rpc_request_start(pair.client, &options);
        rpc_request_send(r.request, &m.base);
        rpc_request_half_close(r.request);
        rpc_pair_run(&pair, &r.done);
        assert_int_equal(r.status.code, code == 0 ? STATUS_OK : STATUS_ABORTED);
        /* A failed call sends trailers only: the handler's headers have no place. */
        assert_string_equal(r.text, code == 0 ? "plain text" : "");
        assert_int_equal(r.raw.n, 4);
        assert_memory_equal(r.raw.p, "\0\1\xff\0", 4);
        free((void *)(uintptr_t)r.raw.p);
    }
    rpc_pair_close(&pair);
}

/* ---- streams ---- */

static void client_streaming(void **unused)
{
    struct rpc_pair pair;
    struct result r;

    (void)unused;
    rpc_pair_open(&pair, &services);
    start(&pair, &r, "/test.Test/Sink", 0);
    for (int32_t i = 0; i < 300; i++) {
        test_message m = message_of((size_t)i * 700, i);
        rpc_request_send(r.request, &m.base);
    }
    rpc_request_half_close(r.request);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_OK);
    assert_int_equal(r.last, 300);
    assert_int_equal(seen.bytes, 299 * 300 / 2 * 700);
    assert_int_equal(seen.ends, 1);
    /* No message at all. */
    seen.messages = 0;
    start(&pair, &r, "/test.Test/Sink", 0);
    rpc_request_half_close(r.request);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.last, 0);
    rpc_pair_close(&pair);
}

static void server_streaming(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = TEST_MESSAGE_INIT;

    (void)unused;
    rpc_pair_open(&pair, &services);
    seen.to_send = 500;
    seen.size = 50000;
    start(&pair, &r, "/test.Test/Source", 0);
    rpc_request_send(r.request, &m.base);
    rpc_request_half_close(r.request);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_OK);
    assert_int_equal(r.messages, 500);
    assert_int_equal(r.bytes, 500 * 50000);
    assert_int_equal(r.last, 499);
    rpc_pair_close(&pair);
}

static void bidi_streaming(void **unused)
{
    struct rpc_pair pair;
    struct result r;

    (void)unused;
    rpc_pair_open(&pair, &services);
    start(&pair, &r, "/test.Test/Chat", 0);
    for (int32_t i = 1; i <= 20; i++) {
        test_message m = message_of(10, i);
        assert_true(rpc_request_send(r.request, &m.base));
        while (r.last != i)
            loop_turn(pair.loop, 10);
        assert_false(r.done);
    }
    rpc_request_half_close(r.request);
    assert_false(rpc_request_send(r.request, &(test_message)TEST_MESSAGE_INIT.base)); /* too late: dropped */
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_OK);
    assert_int_equal(r.messages, 20);
    rpc_pair_close(&pair);
}

/* ---- deadlines and cancellation ---- */

static void deadline(void **unused)
{
    struct rpc_pair pair;
    struct result r;

    (void)unused;
    rpc_pair_open(&pair, &services);
    int64_t begin = clock_mono_ms();
    unary(&pair, &r, "/test.Test/Hold", 0, 0, 50);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_DEADLINE_EXCEEDED);
    assert_in_range(clock_mono_ms() - begin, 45, 5000);
    rpc_pair_settle(&pair);
    assert_int_equal(seen.cancelled, 1);
    rpc_pair_close(&pair);
}

/* The server's own watch: the client of this request lies about its deadline by asking with a raw header. */
static void deadline_on_the_server(void **unused)
{
    struct rpc_pair pair;
    struct result r = { 0 };
    struct rpc_metadata timeout = { "grpc-timeout", "30m", 3 };
    struct rpc_request_options options = { .method = "/test.Test/Hold",
                                           .output = TEST_MESSAGE_TYPE,
                                           .on_finish = on_finish,
                                           .arg = &r,
                                           .metadata = &timeout,
                                           .metadata_count = 1 };
    test_message m = TEST_MESSAGE_INIT;

    (void)unused;
    for (int i = 0; i < 2; i++) {
        rpc_pair_open(&pair, &services);
        seen.no_cancel_function = i == 1;
        seen.cancelled = 0;
        r = (struct result){ 0 };
        r.request = rpc_request_start(pair.client, &options);
        rpc_request_send(r.request, &m.base);
        rpc_request_half_close(r.request);
        rpc_pair_run(&pair, &r.done);
        assert_int_equal(r.status.code, STATUS_DEADLINE_EXCEEDED);
        assert_int_equal(seen.last_code, STATUS_DEADLINE_EXCEEDED);
        assert_int_equal(seen.cancelled, i == 0);
        if (i == 1) { /* it is still the handler's, who ends it in his own time */
            assert_true(rpc_call_cancelled(seen.call));
            assert_int_equal(rpc_call_time_left_ms(seen.call), 0);
            rpc_reply(seen.call, &m.base);
        }
        rpc_pair_close(&pair);
    }
}

static void cancellation(void **unused)
{
    struct rpc_pair pair;
    struct result r;

    (void)unused;
    for (int i = 0; i < 4; i++) {
        memset(&seen, 0, sizeof seen);
        seen.reply_in_cancel = i == 1;
        seen.no_cancel_function = i == 2;
        rpc_pair_open(&pair, &services);
        struct rpc_request *request = unary(&pair, &r, "/test.Test/Hold", 0, 0, 0);
        if (i != 3)
            rpc_pair_settle(&pair); /* else: cancelled before it was sent */
        rpc_request_cancel(request);
        rpc_pair_settle(&pair);
        assert_false(r.done);
        assert_int_equal(seen.cancelled, i < 2);
        if (i < 3)
            assert_int_equal(seen.last_code, STATUS_CANCELLED);
        if (i == 2) {
            test_message m = TEST_MESSAGE_INIT;
            assert_true(rpc_call_cancelled(seen.call));
            assert_false(rpc_send(seen.call, &m.base));
            rpc_reply(seen.call, &m.base);
        }
        unary(&pair, &r, "/test.Test/Echo", 0, 7, 0);
        rpc_pair_run(&pair, &r.done);
        assert_int_equal(r.last, 7);
        rpc_pair_close(&pair);
    }
}

/* ---- back-pressure ---- */

static void paused_client(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = TEST_MESSAGE_INIT;

    (void)unused;
    rpc_pair_open(&pair, &services);
    seen.to_send = 1000;
    seen.size = 100000;
    start(&pair, &r, "/test.Test/Source", 0);
    r.pause_at_first = true;
    rpc_request_send(r.request, &m.base);
    rpc_request_half_close(r.request);
    for (int i = 0; i < 200; i++)
        loop_turn(pair.loop, 1);
    assert_int_equal(r.messages, 1);
    /* At most a window and the queues of both ends are under way. */
    assert_in_range(seen.sent, 2, (H2_STREAM_WINDOW + 4 * H2_SEND_HIGH_WATER) / 100000);
    /* Another stream of the same connection is not held up. */
    struct result other;
    unary(&pair, &other, "/test.Test/Echo", 100, 1, 0);
    rpc_pair_run(&pair, &other.done);
    assert_int_equal(other.status.code, STATUS_OK);
    rpc_request_pause(r.request, false);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.messages, 1000);
    assert_int_equal(r.last, 999);
    rpc_pair_close(&pair);
}

/* An answer that ended while its receiver was paused is delivered whole. */
static void paused_until_after_the_end(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = TEST_MESSAGE_INIT;

    (void)unused;
    rpc_pair_open(&pair, &services);
    seen.to_send = 10;
    seen.size = 100;
    start(&pair, &r, "/test.Test/Source", 0);
    r.pause_at_first = true;
    rpc_request_send(r.request, &m.base);
    rpc_request_half_close(r.request);
    rpc_pair_settle(&pair);
    assert_null(seen.call);
    assert_int_equal(r.messages, 1);
    assert_false(r.done);
    rpc_request_pause(r.request, false);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.messages, 10);
    assert_int_equal(r.status.code, STATUS_OK);
    rpc_pair_close(&pair);
}

static void paused_server(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    int sent = 0;

    (void)unused;
    rpc_pair_open(&pair, &services);
    seen.pause_at_first = true;
    start(&pair, &r, "/test.Test/Sink", 0);
    test_message m = message_of(100000, 0);
    for (int rounds = 0; rounds < 100; rounds++) {
        r.writable = false;
        while (rpc_request_send(r.request, &m.base))
            sent++;
        sent++;
        for (int i = 0; i < 5 && !r.writable; i++)
            loop_turn(pair.loop, 1);
        if (!r.writable)
            break;
    }
    assert_false(r.writable);
    assert_int_equal(seen.messages, 1);
    assert_in_range(sent, 2, (H2_STREAM_WINDOW + 4 * H2_SEND_HIGH_WATER) / 100000);
    rpc_call_pause(seen.call, false);
    rpc_pair_run(&pair, &r.writable);
    rpc_request_half_close(r.request);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(seen.messages, sent);
    rpc_pair_close(&pair);
}

/* More than RPC_CONN_BUFFERED_MAX in paused streams: the connection as a whole stops, and all of it arrives later. */
static void many_paused(void **unused)
{
    enum { STREAMS = RPC_CONN_BUFFERED_MAX / H2_STREAM_WINDOW + 30 };
    struct rpc_pair pair;
    static struct result r[STREAMS];
    static struct rpc_call *sinks[STREAMS];
    size_t sent = 0;

    (void)unused;
    rpc_pair_open(&pair, &services);
    for (int i = 0; i < STREAMS; i++) {
        start(&pair, &r[i], "/test.Test/Sink", 0);
        rpc_pair_settle(&pair);
        sinks[i] = seen.call;
        rpc_call_pause(sinks[i], true);
    }
    test_message m = message_of(200000, 0);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < STREAMS; i++) {
            while (rpc_request_send(r[i].request, &m.base))
                sent++;
            sent++;
        }
        rpc_pair_settle(&pair);
    }
    assert_int_equal(seen.messages, 0);
    /* As the calls end one after another, seen.call must be the one that ends. */
    for (int i = 0; i < STREAMS; i++) {
        rpc_request_half_close(r[i].request);
        seen.call = sinks[i];
        rpc_call_pause(sinks[i], false);
        rpc_pair_run(&pair, &r[i].done);
        assert_int_equal(r[i].status.code, STATUS_OK);
    }
    assert_int_equal(seen.messages, sent);
    assert_int_equal(seen.bytes, sent * 200000);
    rpc_pair_close(&pair);
}

/* ---- ends ---- */

static void on_drained(void *arg)
{
    struct rpc_pair *pair = arg;

    pair->drained = true;
}

static void graceful_shutdown(void **unused)
{
    struct rpc_pair pair;
    struct result held, late;
    test_message m = message_of(3, 9);

    (void)unused;
    rpc_pair_open(&pair, &services);
    unary(&pair, &held, "/test.Test/Hold", 0, 0, 0);
    rpc_pair_settle(&pair);
    rpc_server_shutdown(pair.server, on_drained, &pair);
    rpc_pair_settle(&pair);
    /* The running call goes on, a new one is refused, nobody is cut off. */
    assert_false(pair.drained);
    assert_false(pair.client_closed);
    unary(&pair, &late, "/test.Test/Echo", 0, 0, 0);
    assert_false(late.done);
    rpc_pair_run(&pair, &late.done);
    assert_int_equal(late.status.code, STATUS_UNAVAILABLE);
    assert_false(held.done);
    rpc_reply(seen.call, &m.base);
    rpc_pair_run(&pair, &held.done);
    assert_int_equal(held.status.code, STATUS_OK);
    assert_int_equal(held.last, 9);
    rpc_pair_run(&pair, &pair.drained);
    rpc_pair_run(&pair, &pair.client_closed);
    assert_int_equal(pair.client_status.code, STATUS_UNAVAILABLE);
    rpc_pair_close(&pair);
}

static void idle_shutdown(void **unused)
{
    struct rpc_pair pair;

    (void)unused;
    rpc_pair_open(&pair, &services);
    rpc_pair_settle(&pair);
    rpc_server_shutdown(pair.server, on_drained, &pair);
    rpc_pair_run(&pair, &pair.drained);
    rpc_pair_run(&pair, &pair.client_closed);
    rpc_pair_close(&pair);
}

static void server_gone(void **unused)
{
    struct rpc_pair pair;
    struct result r, after;

    (void)unused;
    rpc_pair_open(&pair, &services);
    unary(&pair, &r, "/test.Test/Hold", 0, 0, 0);
    rpc_pair_settle(&pair);
    rpc_server_free(pair.server);
    pair.server = NULL;
    assert_int_equal(seen.cancelled, 1);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_UNAVAILABLE);
    rpc_pair_run(&pair, &pair.client_closed);
    unary(&pair, &after, "/test.Test/Echo", 0, 0, 0);
    assert_false(after.done);
    rpc_pair_run(&pair, &after.done);
    assert_int_equal(after.status.code, STATUS_UNAVAILABLE);
    rpc_pair_close(&pair);
}

static void client_gone(void **unused)
{
    struct rpc_pair pair;
    struct result r, sent, unsent;

    (void)unused;
    for (int i = 0; i < 2; i++) {
        memset(&seen, 0, sizeof seen);
        seen.no_cancel_function = i == 1;
        rpc_pair_open(&pair, &services);
        unary(&pair, &r, "/test.Test/Hold", 0, 0, 0);
        rpc_pair_settle(&pair);
        unary(&pair, &unsent, "/test.Test/Echo", 0, 0, 0);
        start(&pair, &sent, "/test.Test/Chat", 0);
        rpc_conn_free(pair.client);
        pair.client = NULL;
        /* Those under way hear of it. */
        assert_true(r.done && sent.done && unsent.done);
        assert_int_equal(r.status.code, STATUS_UNAVAILABLE);
        rpc_pair_settle(&pair);
        assert_int_equal(seen.cancelled, i == 0);
        if (i == 1) {
            /* The call outlives its connection and the server, with what it borrowed. */
            struct str agent = rpc_call_metadata(seen.call, "user-agent");
            rpc_server_free(pair.server);
            pair.server = NULL;
            assert_string_equal(agent.p, "interlink-cri");
            rpc_failf(seen.call, STATUS_ABORTED, "too late");
        }
        rpc_pair_close(&pair);
    }
}

static struct rpc_pair *in_message_pair;

static void free_server_in_message(void)
{
    rpc_server_free(in_message_pair->server);
    in_message_pair->server = NULL;
}

/* Everything may be done inside of a callback. */
static void freed_in_a_callback(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = message_of(1000, 0);

    (void)unused;
    rpc_pair_open(&pair, &services);
    in_message_pair = &pair;
    seen.in_message = free_server_in_message;
    start(&pair, &r, "/test.Test/Sink", 0);
    rpc_request_send(r.request, &m.base);
    rpc_request_send(r.request, &m.base);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_UNAVAILABLE);
    assert_int_equal(seen.messages, 1);
    assert_int_equal(seen.cancelled, 1);
    rpc_pair_close(&pair);
}

static void end_in_message(void)
{
    rpc_failf(seen.call, STATUS_FAILED_PRECONDITION, "enough");
    seen.call = NULL;
}

/* The answer comes while the client still has much to send: it is delivered, and the client stops. */
static void answered_early(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = message_of(300000, 0);

    (void)unused;
    rpc_pair_open(&pair, &services);
    seen.in_message = end_in_message;
    start(&pair, &r, "/test.Test/Sink", 0);
    for (int i = 0; i < 20; i++)
        rpc_request_send(r.request, &m.base);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.status.code, STATUS_FAILED_PRECONDITION);
    assert_string_equal(r.status.message, "enough");
    assert_int_equal(seen.messages, 1);
    rpc_pair_settle(&pair);
    assert_int_equal(rpc_conn_active(pair.client), 0);
    rpc_pair_close(&pair);
}

/* A request given up while its messages are delivered, or held back after the answer has ended. */
static void cancelled_with_messages(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = TEST_MESSAGE_INIT;

    (void)unused;
    for (int i = 0; i < 3; i++) {
        rpc_pair_open(&pair, &services);
        seen.sent = 0;
        seen.to_send = i == 2 ? 1000 : 10;
        seen.size = 1000;
        start(&pair, &r, "/test.Test/Source", 0);
        r.pause_at_first = i == 0;
        r.cancel_at_first = i > 0;
        rpc_request_send(r.request, &m.base);
        rpc_request_half_close(r.request);
        rpc_pair_settle(&pair);
        assert_int_equal(r.messages, 1);
        if (i == 0)
            rpc_request_cancel(r.request);
        rpc_pair_settle(&pair);
        assert_false(r.done);
        assert_int_equal(r.messages, 1);
        assert_int_equal(rpc_conn_active(pair.client), 0);
        rpc_pair_close(&pair);
    }
}

static void client_shutdown(void **unused)
{
    struct rpc_pair pair;
    struct result r;
    test_message m = message_of(3, 9);

    (void)unused;
    rpc_pair_open(&pair, &services);
    unary(&pair, &r, "/test.Test/Hold", 0, 0, 0);
    rpc_pair_settle(&pair);
    rpc_conn_shutdown(pair.client);
    rpc_pair_settle(&pair);
    assert_false(pair.client_closed);
    rpc_reply(seen.call, &m.base);
    rpc_pair_run(&pair, &r.done);
    assert_int_equal(r.last, 9);
    rpc_pair_run(&pair, &pair.client_closed);
    rpc_pair_close(&pair);
}

/* More calls than a connection takes at once: the rest waits at the client. */
static void many_at_once(void **unused)
{
    struct rpc_pair pair;
    static struct result r[H2_STREAMS_MAX + 200];

    (void)unused;
    rpc_pair_open(&pair, &services);
    rpc_pair_settle(&pair); /* the server's settings have come */
    for (size_t i = 0; i < COUNT_OF(r); i++)
        unary(&pair, &r[i], i < H2_STREAMS_MAX ? "/test.Test/Hold" : "/test.Test/Echo", 0, 0, 200);
    rpc_pair_settle(&pair);
    assert_int_equal(seen.calls, H2_STREAMS_MAX);
    for (size_t i = 0; i < COUNT_OF(r); i++)
        rpc_pair_run(&pair, &r[i].done);
    rpc_pair_close(&pair);
}

static void keepalive(void **unused)
{
    struct rpc_pair pair;
    struct status err;
    int fds[2];

    (void)unused;
    /* Somebody who never answers. */
    pair = (struct rpc_pair){ .loop = loop_new(&err) };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    struct rpc_conn_options options = {
        .keepalive_ms = 30, .keepalive_timeout_ms = 50, .on_close = rpc_pair_on_close, .arg = &pair
    };
    pair.client = rpc_conn_new(pair.loop, rpc_pair_stream(&pair, fds[0]), &options, STR(""));
    int64_t begin = clock_mono_ms();
    rpc_pair_run(&pair, &pair.client_closed);
    assert_in_range(clock_mono_ms() - begin, 70, 10000);
    assert_int_equal(pair.client_status.code, STATUS_UNAVAILABLE);
    assert_non_null(strstr(pair.client_status.message, "keepalive"));
    close(fds[1]);
    rpc_pair_close(&pair);
    /* Somebody who does. */
    int fd = rpc_pair_open_raw(&pair, &services);
    pair.client = rpc_conn_new(pair.loop, rpc_pair_stream(&pair, fd), &options, STR(""));
    begin = clock_mono_ms();
    while (clock_mono_ms() - begin < 300)
        loop_turn(pair.loop, 10);
    assert_false(pair.client_closed);
    rpc_pair_close(&pair);
}

int main(void)
{
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)(i * 31 + (i >> 8));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(unary_calls, setup),
        cmocka_unit_test_setup(big_messages, setup),
        cmocka_unit_test_setup(errors, setup),
        cmocka_unit_test_setup(metadata, setup),
        cmocka_unit_test_setup(client_streaming, setup),
        cmocka_unit_test_setup(server_streaming, setup),
        cmocka_unit_test_setup(bidi_streaming, setup),
        cmocka_unit_test_setup(deadline, setup),
        cmocka_unit_test_setup(deadline_on_the_server, setup),
        cmocka_unit_test_setup(cancellation, setup),
        cmocka_unit_test_setup(paused_client, setup),
        cmocka_unit_test_setup(paused_until_after_the_end, setup),
        cmocka_unit_test_setup(paused_server, setup),
        cmocka_unit_test_setup(graceful_shutdown, setup),
        cmocka_unit_test_setup(idle_shutdown, setup),
        cmocka_unit_test_setup(server_gone, setup),
        cmocka_unit_test_setup(client_gone, setup),
        cmocka_unit_test_setup(freed_in_a_callback, setup),
        cmocka_unit_test_setup(answered_early, setup),
        cmocka_unit_test_setup(cancelled_with_messages, setup),
        cmocka_unit_test_setup(client_shutdown, setup),
        cmocka_unit_test_setup(many_at_once, setup),
        cmocka_unit_test_setup(many_paused, setup),
        cmocka_unit_test_setup(keepalive, setup),
    };

    log_setup(LOG_ERROR, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
