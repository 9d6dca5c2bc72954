/* SPDX-License-Identifier: Apache-2.0 */
/* A site's answer to a ping and, behind a NUL, the Node as the API server sends it: both are somebody else's. A patch is JSON, and one
 * that was applied in full is not wanted again. */
#include "node/site_capacity.h"

static void apply(struct arena *arena, struct json *into, const struct json *patch)
{
    for (JSON_EACH(member, patch))
        if (member->type == JSON_STRING)
            json_append(into, member->key, json_new(arena, JSON_STRING, member->text, member->length));
}

/* The Node that has what the patch says, and nothing else. */
static const struct json *patched(struct arena *arena, struct str text)
{
    struct status err = STATUS_INIT;
    const struct json *patch = json_parse(arena, text, &err);
    struct json *node = json_new(arena, JSON_OBJECT, "", 0), *metadata = json_new(arena, JSON_OBJECT, "", 0);
    struct json *annotations = json_new(arena, JSON_OBJECT, "", 0);

    if (patch == NULL)
        abort();
    apply(arena, annotations, json_get(patch, "metadata", "annotations"));
    json_append(metadata, "annotations", annotations);
    json_append(node, "metadata", metadata);
    return node;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf odd = BUF_INIT, first = BUF_INIT, second = BUF_INIT, taints = BUF_INIT;
    const uint8_t *mark = memchr(data, '\0', size);
    size_t ping_n = mark != NULL ? (size_t)(mark - data) : size, node_n = mark != NULL ? size - ping_n - 1 : 0;
    struct status err = STATUS_INIT;
    struct interlink_ping ping;

    interlink_ping_read(&arena, (struct str){ (const char *)data, ping_n }, &ping);
    Interlink__State__V1__SiteReport *report = site_report_of_ping("site", &ping, NULL, &odd);
    struct site_capacity wanted = site_capacity_sum(&arena, &report, 1);
    const struct json *node = json_parse(&arena, (struct str){ (const char *)data + size - node_n, node_n }, &err);
    site_capacity_unmet(&wanted, node);
    if (site_capacity_patch(&wanted, node, false, &first) &&
        site_capacity_patch(&wanted, patched(&arena, (struct str){ buf_cstr(&first), first.n }), false, &second) &&
        node == NULL)
        abort();
    if (site_taints_patch(&report, 1, node, &taints) && json_parse(&arena, (struct str){ buf_cstr(&taints), taints.n }, &err) == NULL)
        abort();
    protobuf_c_message_free_unpacked(&report->base, NULL);
    return 0;
}
