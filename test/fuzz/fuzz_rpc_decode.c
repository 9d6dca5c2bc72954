/* SPDX-License-Identifier: Apache-2.0 */
/* What our protobuf decoder takes must encode to something that decodes to the same, by protobuf-c's own decoder, too. */
#include "cri.pb-c.h"
#include "reflection.pb-c.h"
#include "rpc/decode.h"
#include "rpc/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void pack(const ProtobufCMessage *m, struct buf *out)
{
    size_t n = protobuf_c_message_get_packed_size(m);

    out->n = protobuf_c_message_pack(m, buf_reserve(out, n + 1));
    if (out->n != n)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ProtobufCMessageDescriptor *const types[] = {
        &runtime__v1__run_pod_sandbox_request__descriptor,
        &runtime__v1__list_containers_response__descriptor,
        &runtime__v1__create_container_request__descriptor,
        &runtime__v1__container_stats__descriptor,
        &grpc__reflection__v1__server_reflection_response__descriptor,
        &grpc__reflection__v1__server_reflection_request__descriptor,
    };
    struct arena arena cleanup_arena = ARENA_INIT;
    struct buf one cleanup_buf = BUF_INIT, two cleanup_buf = BUF_INIT, three cleanup_buf = BUF_INIT;
    struct status err;
    char text[200];
    int64_t ms;

    if (size < 1)
        return 0;
    const ProtobufCMessageDescriptor *type = types[data[0] % (sizeof types / sizeof types[0])];
    struct str rest = { (const char *)data + 1, size - 1 };
    rpc_timeout_parse(rest, &ms);
    rpc_message_decode(rest, text, sizeof text);
    rpc_content_type_ok(rest);
    const ProtobufCMessage *first = rpc_decode(type, rest.p, rest.n, data[0] & 128, &arena, &err);
    if (first == NULL)
        return 0;
    pack(first, &one);
    const ProtobufCMessage *second = rpc_decode(type, one.p, one.n, false, &arena, &err);
    ProtobufCMessage *other = protobuf_c_message_unpack(type, NULL, one.n, one.p);
    if (second == NULL || other == NULL)
        abort();
    pack(second, &two);
    pack(other, &three);
    protobuf_c_message_free_unpacked(other, NULL);
    if (one.n != two.n || memcmp(one.p, two.p, one.n) != 0 || one.n != three.n || memcmp(one.p, three.p, one.n) != 0)
        abort();
    return 0;
}
