/* SPDX-License-Identifier: Apache-2.0 */
/* What the YAML reader takes, the YAML writer must give back as the same tree. */
#include "text/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_json(const struct json *j, struct buf *out)
{
    struct json_writer w;

    json_writer_init(&w, out, 0);
    json_write_tree(&w, j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_arena struct arena a = ARENA_INIT;
    cleanup_buf struct buf yaml = BUF_INIT, one = BUF_INIT, two = BUF_INIT;
    struct status err = STATUS_INIT;
    const struct json *j = yaml_parse(&a, (struct str){ (const char *)data, size }, &err);

    if (j == NULL)
        return 0;
    as_json(j, &one);
    yaml_write(&yaml, j);
    const struct json *back = yaml_parse(&a, (struct str){ (char *)yaml.p, yaml.n }, &err);
    if (back == NULL)
        abort();
    as_json(back, &two);
    if (one.n != two.n || memcmp(one.p, two.p, one.n) != 0)
        abort();
    return 0;
}
