/* SPDX-License-Identifier: Apache-2.0 */
/* Create requests, pods and lists of pods as any client may send them. What was read is written and read again: the second
 * reading must succeed and give the same text. */
#include "interlink/pod.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_pod(const struct interlink_pod *pod)
{
    struct interlink_pod again;
    struct status err = STATUS_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf first = BUF_INIT, second = BUF_INIT;

    interlink_pod_write(&first, pod);
    if (!interlink_pod_read(&arena, (struct str){ (const char *)first.p, first.n }, &again, &err))
        abort();
    interlink_pod_write(&second, &again);
    if (first.n != second.n || memcmp(first.p, second.p, first.n) != 0)
        abort();
}

static void check_create(const struct interlink_create *create)
{
    struct interlink_create again;
    struct status err = STATUS_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf first = BUF_INIT, second = BUF_INIT;

    check_pod(&create->pod);
    interlink_create_write(&first, create);
    if (!interlink_create_read(&arena, (struct str){ (const char *)first.p, first.n }, &again, &err))
        abort();
    interlink_create_write(&second, &again);
    if (first.n != second.n || memcmp(first.p, second.p, first.n) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct interlink_create create;
    struct interlink_pod pod, *pods;
    size_t count;
    struct status err = STATUS_INIT;
    struct str json = { (const char *)data, size };
    cleanup_arena struct arena arena = ARENA_INIT;

    if (interlink_create_read(&arena, json, &create, &err))
        check_create(&create);
    if (interlink_pod_read(&arena, json, &pod, &err))
        check_pod(&pod);
    if (interlink_pods_read(&arena, json, &pods, &count, &err))
        for (size_t i = 0; i < count; i++)
            check_pod(&pods[i]);
    return 0;
}
