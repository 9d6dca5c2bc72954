/* SPDX-License-Identifier: Apache-2.0 */
/* How much a pod asks for, from a v1.Pod of any shape; or (first byte '-') what sbatch's flags say of it. */
#include "kube/pod_size.h"

#include "interlink/slurm_flags.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    struct pod_size sizes;

    if (size > 0 && data[0] == '-') {
        struct slurm_flags flags = slurm_flags_read(arena_strndup(&arena, (const char *)data, size));
        if (flags.cpus_per_task < 0 || flags.memory < 0 || flags.seconds < 0)
            abort();
        return 0;
    }
    const struct json *pod = json_parse(&arena, (struct str){ (const char *)data, size }, &err);
    if (pod == NULL)
        return 0;
    if (!pod_size_read(&arena, pod, &sizes, &err)) {
        if (err.message[0] == '\0')
            abort();
        return 0;
    }
    for (size_t i = 0; i < sizes.count; i++) {
        const struct pod_amount *a = &sizes.amounts[i];
        int64_t again = 0;
        if (a->request < 0 || a->limit < a->request || a->limit == 0)
            abort();
        /* What is told to a plugin is the same amount. */
        if (!pod_size_parse(a->resource, pod_size_text(&arena, a->resource, a->limit), &again, &err) || again != a->limit)
            abort();
    }
    return 0;
}
