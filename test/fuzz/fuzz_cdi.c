/* SPDX-License-Identifier: Apache-2.0 */
/* A CDI file, as JSON or (first byte 'y') as YAML. What is taken must be whole: every name is one that a container could ask for. */
#include "agent/cdi.h"

static void check(struct arena *arena, const struct cdi_spec *spec)
{
    struct cdi_edits all = { .env_count = 0 };
    size_t kind;

    cdi_edits_add(arena, &all, &spec->edits);
    for (size_t i = 0; i < spec->device_count; i++) {
        const struct cdi_edits *e = &spec->devices[i].edits;
        cdi_edits_add(arena, &all, e);
        if (!cdi_name_split(arena_printf(arena, "%s=%s", spec->kind, spec->devices[i].name), &kind) || kind != strlen(spec->kind))
            abort();
    }
    for (size_t i = 0; i < all.env_count; i++)
        if (strchr(all.env[i], '=') == NULL)
            abort();
    for (size_t i = 0; i < all.node_count; i++)
        if (all.nodes[i].path[0] != '/' || all.nodes[i].host_path[0] != '/' || strspn(all.nodes[i].permissions, "rwm") > 64)
            abort();
    for (size_t i = 0; i < all.mount_count; i++)
        if (all.mounts[i].container_path[0] != '/' || all.mounts[i].host_path[0] == '\0')
            abort();
    for (size_t i = 0; i < all.hook_count; i++)
        if (all.hooks[i].path[0] != '/' || all.hooks[i].name[0] == '\0')
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena cleanup_arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    struct cdi_spec spec;
    bool is_yaml = size > 0 && data[0] == 'y';

    if (cdi_spec_read(&arena, (struct str){ (const char *)data + is_yaml, size - is_yaml }, !is_yaml, &spec, &err))
        check(&arena, &spec);
    else if (err.message[0] == '\0')
        abort();
    return 0;
}
