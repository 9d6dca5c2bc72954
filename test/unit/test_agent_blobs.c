/* SPDX-License-Identifier: Apache-2.0 */
/* Image blobs that the node sends. */
#include "agent_kit.h"

#include "image/digest.h"

struct put {
    bool finished;
    struct status status;
};

static void on_put_finish(void *arg, const struct status *status)
{
    struct put *p = arg;

    p->finished = true;
    p->status = *status;
}

static enum status_code put_blob(const char *digest, size_t pieces, size_t piece)
{
    struct put put = { 0 };
    PB(PutBlobRequest) request = INTERLINK__AGENT__V1__PUT_BLOB_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/PutBlob",
        .output = &interlink__agent__v1__put_blob_response__descriptor,
        .on_finish = on_put_finish,
        .arg = &put,
    };
    cleanup_free uint8_t *data = xcalloc(1, piece + 1);

    struct rpc_request *r = rpc_request_start(kit->client, &options);
    request.digest = (char *)(uintptr_t)digest;
    for (size_t i = 0; i < pieces; i++) {
        request.data.data = data;
        request.data.len = piece;
        rpc_request_send(r, &request.base);
        request.digest = (char *)(uintptr_t)"";
        loop_turn(kit->agent.loop, 0);
        if (put.finished)
            return put.status.code;
    }
    rpc_request_half_close(r);
    kit_turn_until(&put.finished);
    return put.status.code;
}

static void test_blobs(void **state)
{
    PB(Image) image = INTERLINK__AGENT__V1__IMAGE__INIT;
    PB(Layer) layer = INTERLINK__AGENT__V1__LAYER__INIT, *layers[1] = { &layer };
    PB(MissingBlobsRequest) request = INTERLINK__AGENT__V1__MISSING_BLOBS_REQUEST__INIT;
    char text[DIGEST_TEXT_SIZE];
    cleanup_free uint8_t *zeros = xcalloc(1, 3000000);
    struct digest d = digest_of(zeros, 3000000);

    (void)state;
    digest_text(&d, text);
    const char *digest = text;
    layer.digest = (char *)(uintptr_t)digest;
    layer.diff_id = (char *)(uintptr_t)"sha256:0000000000000000000000000000000000000000000000000000000000000001";
    image.layers = layers;
    image.n_layers = 1;
    request.image = &image;
    struct kit_answer a = kit_call("MissingBlobs", &request.base, &interlink__agent__v1__missing_blobs_response__descriptor);
    const PB(MissingBlobsResponse) *missing = (const void *)a.response;
    assert_int_equal(missing->n_digests, 1);
    assert_string_equal(missing->digests[0], digest);
    kit_answer_free(&a);
    assert_int_equal(put_blob(digest, 3, 999999), STATUS_DATA_LOSS);
    assert_int_equal(put_blob("sha256:none", 1, 10), STATUS_INVALID_ARGUMENT);
    assert_int_equal(put_blob("", 0, 10), STATUS_INVALID_ARGUMENT);
    assert_int_equal(put_blob(digest, 3, 1000000), STATUS_OK);
    assert_int_equal(put_blob(digest, 3, 1000000), STATUS_OK);
    a = kit_call("MissingBlobs", &request.base, &interlink__agent__v1__missing_blobs_response__descriptor);
    assert_int_equal(((const PB(MissingBlobsResponse) *)(const void *)a.response)->n_digests, 0);
    kit_answer_free(&a);
    layer.digest = (char *)(uintptr_t)"../x";
    assert_int_equal(kit_code("MissingBlobs", &request.base, &interlink__agent__v1__missing_blobs_response__descriptor),
                     STATUS_INVALID_ARGUMENT);
    cleanup_free char *left = xasprintf("ls %s/images/blobs | wc -l | grep -qx 1", kit->dir);
    assert_int_equal(system(left), 0);
}

#define KIT_TEST(fn) cmocka_unit_test_setup_teardown(fn, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KIT_TEST(test_blobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
