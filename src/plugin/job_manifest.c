/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/job_manifest.h"

#include "kube/pod_size.h"
#include "plugin/job_files.h"

bool job_manifest_wanted(const struct interlink_pod *pod)
{
    return interlink_pair_get(&pod->annotations, INTERLINK_JOB_ANNOTATION)[0] == '\0';
}

static bool job_manifest_size(struct arena *arena, const struct podspec *spec, struct interlink_pairs *out, struct status *err)
{
    struct pod_size size;

    if (!pod_size_read(arena, spec->create.pod.json, &size, err))
        return false;
    out->items = ARENA_ARRAY(arena, struct interlink_pair, size.count + 1);
    for (size_t i = 0; i < size.count; i++)
        out->items[out->count++] = (struct interlink_pair){ size.amounts[i].resource,
                                                            pod_size_text(arena, size.amounts[i].resource, size.amounts[i].limit) };
    return true;
}

bool job_manifest_make(struct arena *arena, struct str body, const char *job_dir, const char *images_dir, struct podspec *spec,
                       struct interlink_create *create, struct status *err)
{
    struct interlink_container *agent = ARENA_NEW(arena, struct interlink_container);
    const char **command = ARENA_ARRAY(arena, const char *, 4);
    struct interlink_pair *env = ARENA_ARRAY(arena, struct interlink_pair, 2);

    if (!podspec_read(arena, body, "", spec, err))
        return false;
    command[0] = "interlink-cri";
    command[1] = "agent";
    command[2] = "--manifest";
    command[3] = arena_printf(arena, "%s/" JOB_FILES_MANIFEST, job_dir);
    env[0] = (struct interlink_pair){ "INTERLINK_IMAGES", images_dir };
    env[1] = (struct interlink_pair){ "INTERLINK_NAMESPACES", "ipc,uts,pid" };
    *agent = (struct interlink_container){ .name = JOB_MANIFEST_CONTAINER, .image = "", .working_dir = "", .env_from = "",
                                           .command = { command, 4 }, .env = { env, 2 } };
    if (!job_manifest_size(arena, spec, &agent->limits, err))
        return false;
    create->pod.containers = agent;
    create->pod.container_count = 1;
    create->pod.init_containers = NULL;
    create->pod.init_container_count = create->pod.volume_count = 0;
    create->pod.termination_grace_seconds = spec->grace_seconds;
    create->manifest = body;
    return true;
}
