/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests as any client may send them. What is taken has names and paths that are safe, and mounts of volumes that there are. */
#include "agent/podspec.h"
#include "io/beneath.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_container(const struct podspec *spec, const struct podspec_container *c)
{
    if (!beneath_is_plain(c->base->name) || strchr(c->base->name, '/') != NULL || c->env.count > PODSPEC_VARIABLES_MAX)
        abort();
    for (size_t i = 0; i < c->base->mount_count; i++) {
        const struct interlink_mount *m = &c->base->mounts[i];
        const struct interlink_volume *v = podspec_volume(spec, m->name);
        if (v == NULL || m->mount_path[0] != '/' || (m->sub_path[0] != '\0' && !beneath_is_plain(m->sub_path)))
            abort();
        const struct interlink_object *object = podspec_object(spec, v);
        for (size_t k = 0; object != NULL && v->item_count == 0 && k < object->file_count; k++)
            if (!beneath_is_plain(object->files[k].key))
                abort();
    }
    for (size_t i = 0; i < PODSPEC_PROBES; i++)
        if (c->probes[i].action.kind != PODSPEC_NONE && (c->probes[i].period < 1 || c->probes[i].timeout < 1 || c->role == PODSPEC_INIT))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct podspec spec;
    struct status err = STATUS_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;

    if (!podspec_read(&arena, (struct str){ (const char *)data, size }, "192.0.2.1", &spec, &err)) {
        if (err.code == STATUS_OK || err.message[0] == '\0')
            abort();
        return 0;
    }
    if (spec.count == 0 || spec.count > PODSPEC_CONTAINERS_MAX || !interlink_uid_valid(spec.create.pod.uid))
        abort();
    for (size_t i = 0; i < spec.count; i++)
        check_container(&spec, &spec.containers[i]);
    return 0;
}
