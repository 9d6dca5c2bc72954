/* SPDX-License-Identifier: Apache-2.0 */
/* What the JSON reader takes, the writer must give back as JSON that reads to the same text; then into a message. */
#include "text/protojson.h"

#include "cri.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_arena struct arena a = ARENA_INIT;
    cleanup_buf struct buf one = BUF_INIT, two = BUF_INIT;
    struct status err = STATUS_INIT;
    struct json_writer w;
    const struct json *j = json_parse(&a, (struct str){ (const char *)data, size }, &err);

    if (j == NULL)
        return 0;
    json_writer_init(&w, &one, 0);
    json_write_tree(&w, j);
    const struct json *back = json_parse(&a, (struct str){ (char *)one.p, one.n }, &err);
    if (back == NULL)
        abort();
    json_writer_init(&w, &two, 0);
    json_write_tree(&w, back);
    if (one.n != two.n || memcmp(one.p, two.p, one.n) != 0)
        abort();
    ProtobufCMessage *m = protojson_read(&a, &runtime__v1__run_pod_sandbox_request__descriptor, j, 0, &err);
    if (m == NULL)
        return 0;
    buf_clear(&one);
    json_writer_init(&w, &one, 2);
    protojson_write(&w, m, PROTOJSON_EMIT_DEFAULTS);
    back = json_parse(&a, (struct str){ (char *)one.p, one.n }, &err);
    if (back == NULL || protojson_read(&a, m->descriptor, back, 0, &err) == NULL)
        abort();
    return 0;
}
