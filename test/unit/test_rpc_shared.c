/* SPDX-License-Identifier: Apache-2.0 */
/* Answers by reference: one encoding for many calls, whatever becomes of them. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc_pair.h"

static struct shared *answer;

static void on_get(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    (void)context;
    (void)request;
    rpc_reply_shared(call, answer);
}

static const struct rpc_method methods[] = { { "Get", RPC_UNARY, TEST_MESSAGE_TYPE, TEST_MESSAGE_TYPE, on_get } };
static const struct rpc_service service = { "test.Test", methods, COUNT_OF(methods), NULL };
static const struct rpc_service *const offered[] = { &service };
static const struct rpc_services services = { offered, COUNT_OF(offered), NULL, NULL };

static void make_answer(size_t n)
{
    test_message m = TEST_MESSAGE_INIT;
    cleanup_free uint8_t *bytes = xmalloc(n + 1);

    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 9));
    m.stdout = (ProtobufCBinaryData){ n, bytes };
    answer = shared_new(protobuf_c_message_get_packed_size(&m.base));
    protobuf_c_message_pack(&m.base, answer->bytes);
}

struct got {
    size_t wanted;
    int done;
};

static void on_done(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct got *got = arg;
    const test_message *m = (const void *)response;

    assert_int_equal(status->code, STATUS_OK);
    assert_int_equal(m->stdout.len, got->wanted);
    for (size_t i = 0; i < m->stdout.len; i++)
        assert_int_equal(m->stdout.data[i], (uint8_t)(i * 7 + (i >> 9)));
    got->done++;
}

static struct rpc_request *ask(struct rpc_pair *pair, struct got *got)
{
    test_message m = TEST_MESSAGE_INIT;

    return rpc_unary(pair->client, "/test.Test/Get", &m.base, TEST_MESSAGE_TYPE, 0, on_done, got);
}

static void test_every_size_comes_whole_many_times(void **unused)
{
    static const size_t sizes[] = { 0, 1, 2000, 2040, 2048, 2049, 5000, 70000, 300000, 3000000 };

    (void)unused;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct rpc_pair pair;
        struct got got = { .wanted = sizes[i] };
        rpc_pair_open(&pair, &services);
        make_answer(sizes[i]);
        for (int k = 0; k < 5; k++)
            ask(&pair, &got);
        for (int turn = 0; got.done < 5 && turn < 20000; turn++)
            loop_turn(pair.loop, 50);
        assert_int_equal(got.done, 5);
        rpc_pair_settle(&pair);
        assert_int_equal(answer->references, 1);
        shared_unref(answer);
        rpc_pair_close(&pair);
    }
}

static void test_what_is_given_up_holds_on_to_nothing(void **unused)
{
    struct rpc_pair pair;
    struct got got = { .wanted = 3000000 };
    struct rpc_request *requests[5];

    (void)unused;
    rpc_pair_open(&pair, &services);
    make_answer(got.wanted);
    for (int i = 0; i < 5; i++)
        requests[i] = ask(&pair, &got);
    for (int turn = 0; answer->references == 1 && turn < 1000; turn++)
        loop_turn(pair.loop, 50);
    for (int i = 0; i < 4; i++)
        rpc_request_cancel(requests[i]);
    for (int turn = 0; got.done < 1 && turn < 20000; turn++)
        loop_turn(pair.loop, 50);
    rpc_pair_settle(&pair);
    assert_int_equal(got.done, 1);
    assert_int_equal(answer->references, 1);
    requests[0] = ask(&pair, &got);
    for (int turn = 0; answer->references == 1 && turn < 1000; turn++)
        loop_turn(pair.loop, 50);
    rpc_request_cancel(requests[0]);
    rpc_server_free(pair.server); /* in the middle of an answer */
    pair.server = NULL;
    assert_int_equal(answer->references, 1);
    shared_unref(answer);
    rpc_pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_size_comes_whole_many_times),
        cmocka_unit_test(test_what_is_given_up_holds_on_to_nothing),
    };

    log_setup(LOG_ERROR, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
