/* SPDX-License-Identifier: Apache-2.0 */
/* rpc_service.h: a service with every kind of method, and requests to it: for the tests of src/rpc. */
#ifndef TEST_RPC_SERVICE_H
#define TEST_RPC_SERVICE_H

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

static inline int setup(void **unused)
{
    (void)unused;
    memset(&seen, 0, sizeof seen);
    return 0;
}

static uint8_t pattern[1 << 20];

static inline test_message message_of(size_t n, int32_t code)
{
    test_message m = TEST_MESSAGE_INIT;

    m.stdout = (ProtobufCBinaryData){ n, pattern };
    m.exit_code = code;
    return m;
}

static inline void on_cancel(void *arg)
{
    (void)arg;
    seen.cancelled++;
    if (seen.reply_in_cancel)
        rpc_failf(seen.call, STATUS_ABORTED, "too late"); /* harmless */
    seen.call = NULL;
}

static inline void keep(struct rpc_call *call)
{
    seen.call = call;
    seen.calls++;
    if (!seen.no_cancel_function)
        rpc_call_on_cancel(call, on_cancel, NULL);
}

static inline void on_echo(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    seen.calls++;
    seen.time_left = rpc_call_time_left_ms(call);
    rpc_reply(call, request);
}

static inline void on_fail(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    const test_message *m = (const void *)request;

    (void)context;
    rpc_failf(call, (enum status_code)m->exit_code, "100%% \"böse\"\n%s", (char[]){ "\x7f end" });
}

static inline void on_hold(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    keep(call);
}

static inline void on_sink_message(void *arg, const ProtobufCMessage *message)
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

static inline void on_sink(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    assert_null(request);
    keep(call);
    rpc_call_on_message(call, on_sink_message, NULL);
}

static inline void source_more(void *arg)
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

static inline void on_source(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    keep(call);
    rpc_call_on_writable(call, source_more, NULL);
    source_more(NULL);
}

static inline void on_chat_message(void *arg, const ProtobufCMessage *message)
{
    (void)arg;
    if (message == NULL)
        rpc_finish(seen.call, NULL);
    else
        rpc_send(seen.call, message);
}

static inline void on_chat(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    keep(call);
    rpc_call_on_message(call, on_chat_message, NULL);
}

static inline void on_fields(void *context, struct rpc_call *call, const ProtobufCMessage *request)
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

static inline void on_call_end(void *arg, const char *service_name, const char *method, enum status_code code, double seconds)
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

static inline void on_unary_done(void *arg, const struct status *status, const ProtobufCMessage *response)
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

static inline void on_message(void *arg, const ProtobufCMessage *message)
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

static inline void on_finish(void *arg, const struct status *status)
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

static inline void on_writable(void *arg)
{
    struct result *r = arg;

    r->writable = true;
}

static inline struct rpc_request *unary(struct rpc_pair *pair, struct result *r, const char *method, size_t n, int32_t code,
                                 int64_t timeout_ms)
{
    test_message m = message_of(n, code);

    *r = (struct result){ 0 };
    return rpc_unary(pair->client, method, &m.base, TEST_MESSAGE_TYPE, timeout_ms, on_unary_done, r);
}

static inline void start(struct rpc_pair *pair, struct result *r, const char *method, int64_t timeout_ms)
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

static inline int setup_pattern(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)(i * 31 + (i >> 8));
    log_setup(LOG_ERROR, "test");
    return 0;
}

#endif
