/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens of the streaming server, and the words at a command's end. */
#include "base/base.h"

/* A minute is long for a test. */
#undef STREAM_TOKEN_MS
#define STREAM_TOKEN_MS 300
#include "node/stream_token.c"

#include "node/stream_status.h"

#include "cri.pb-c.h"

#include <setjmp.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;
static struct stream_tokens tokens;

static int setup(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    loop = loop_new(&err);
    tokens = (struct stream_tokens){ 0 };
    stream_tokens_init(&tokens, loop);
    return loop != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    stream_tokens_free(&tokens);
    loop_free(loop);
    return 0;
}

static const struct stream_token *promise(enum stream_kind kind, const char *container, struct status *err)
{
    Runtime__V1__ExecRequest request = RUNTIME__V1__EXEC_REQUEST__INIT;

    request.container_id = (char *)(uintptr_t)container;
    return stream_tokens_add(&tokens, kind, &request.base, err);
}

static void test_once_and_of_its_kind(void **state)
{
    struct status err = STATUS_INIT;
    const struct stream_token *first = promise(STREAM_EXEC, "one", &err), *second = promise(STREAM_ATTACH, "two", &err);
    char text[ID_LENGTH + 2];

    (void)state;
    assert_int_equal(strlen(first->text), ID_LENGTH);
    assert_string_not_equal(first->text, second->text);
    assert_null(stream_tokens_find(&tokens, STREAM_ATTACH, first->text));
    assert_null(stream_tokens_find(&tokens, STREAM_EXEC, ""));
    strcpy(text, first->text);
    text[ID_LENGTH - 1] ^= 1;
    assert_null(stream_tokens_find(&tokens, STREAM_EXEC, text));
    strcpy(text, first->text);
    strcat(text, "0");
    assert_null(stream_tokens_find(&tokens, STREAM_EXEC, text));
    text[ID_LENGTH] = '\0';
    struct stream_token *found = stream_tokens_find(&tokens, STREAM_EXEC, text);
    assert_ptr_equal(found, first);
    ProtobufCMessage *request = stream_tokens_use(&tokens, found);
    assert_string_equal(((Runtime__V1__ExecRequest *)(void *)request)->container_id, "one");
    protobuf_c_message_free_unpacked(request, NULL);
    assert_null(stream_tokens_find(&tokens, STREAM_EXEC, text));
    assert_int_equal(tokens.count, 1);
}

static void test_expiry(void **state)
{
    struct status err = STATUS_INIT;
    char old[ID_LENGTH + 1], new[ID_LENGTH + 1];

    (void)state;
    strcpy(old, promise(STREAM_EXEC, "old", &err)->text);
    usleep(150 * 1000);
    strcpy(new, promise(STREAM_EXEC, "new", &err)->text);
    usleep(160 * 1000);
    assert_null(stream_tokens_find(&tokens, STREAM_EXEC, old));
    assert_true(tokens.count <= 1); /* "new" may have some time still, on a slow machine none */
    /* Without anybody who asks, their memory goes all the same, and then nothing wakes up. */
    for (int i = 0; i < 100 && tokens.count > 0; i++)
        loop_turn(loop, 50);
    assert_int_equal(tokens.count, 0);
    assert_int_equal(tokens.bytes, 0);
    assert_false(timer_running(&tokens.expiry));
    assert_null(stream_tokens_find(&tokens, STREAM_EXEC, new));
}

static void test_bounds(void **state)
{
    struct status err = STATUS_INIT;
    cleanup_free char *large = xcalloc(STREAM_TOKENS_BYTES_MAX / 2 + 1, 1);

    (void)state;
    memset(large, 'x', STREAM_TOKENS_BYTES_MAX / 2);
    assert_non_null(promise(STREAM_EXEC, large, &err));
    assert_null(promise(STREAM_EXEC, large, &err));
    assert_int_equal(err.code, STATUS_RESOURCE_EXHAUSTED);
    for (int64_t end = clock_mono_ms() + 10000; tokens.count > 0 && clock_mono_ms() < end;)
        loop_turn(loop, 50);
    size_t made = 0;
    for (err.code = STATUS_OK; made < 5 * STREAM_TOKENS_MAX && promise(STREAM_EXEC, "x", &err) != NULL; made++)
        assert_true(tokens.count <= STREAM_TOKENS_MAX);
    assert_int_equal(err.code, STATUS_RESOURCE_EXHAUSTED);
}

static void assert_told(struct buf *told, const char *text)
{
    assert_string_equal(buf_cstr(told), text);
    buf_free(told);
}

static void test_status(void **state)
{
    struct buf told = BUF_INIT;
    struct status err = STATUS_INIT;

    (void)state;
    status_set(&err, STATUS_NOT_FOUND, "no \"x\"");
    stream_status_exit(&told, 4, 0);
    assert_told(&told, "{\"metadata\":{},\"status\":\"Success\"}");
    stream_status_exit(&told, 5, 137);
    assert_told(&told, "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"command terminated with non-zero exit code: 137\","
                       "\"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"137\"}]}}");
    stream_status_error(&told, 4, "error executing command in container", &err);
    assert_told(&told, "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"Internal error occurred: error executing command in "
                       "container: no \\\"x\\\"\",\"reason\":\"InternalError\",\"details\":{\"causes\":[{\"message\":\"error "
                       "executing command in container: no \\\"x\\\"\"}]},\"code\":500}");
    stream_status_exit(&told, 3, 0);
    assert_told(&told, "");
    stream_status_exit(&told, 1, 3);
    assert_told(&told, "command terminated with non-zero exit code: 3");
    stream_status_error(&told, 2, "error attaching to container", &err);
    assert_told(&told, "Internal error occurred: error attaching to container: no \"x\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_once_and_of_its_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_expiry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
        cmocka_unit_test(test_status),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
