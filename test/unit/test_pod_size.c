/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/pod_size.h"

#include <setjmp.h>
#include <cmocka.h>

#include "text/yaml.h"

/* "cpu=REQUEST..LIMIT memory=..." in the order in which they were met; one figure when both are equal. */
static void sizes(const char *yaml, const char *wanted)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;
    struct pod_size size;
    const struct json *pod = yaml_parse(&arena, str_of(yaml), &err);

    if (pod == NULL || !pod_size_read(&arena, pod, &size, &err))
        fail_msg("%s: %s", yaml, err.message);
    for (size_t i = 0; i < size.count; i++) {
        const struct pod_amount *a = &size.amounts[i];
        buf_printf(&text, "%s%s=%s", i > 0 ? " " : "", a->resource, pod_size_text(&arena, a->resource, a->request));
        if (a->limit != a->request)
            buf_printf(&text, "..%s", pod_size_text(&arena, a->resource, a->limit));
    }
    if (size.deadline_s > 0)
        buf_printf(&text, "%sdeadline=%" PRId64, text.n > 0 ? " " : "", size.deadline_s);
    if (strcmp(buf_cstr(&text), wanted) != 0)
        fail_msg("%s\nwanted %s\nfound  %s", yaml, wanted, buf_cstr(&text));
}

#define R(requests, limits) "{resources: {requests: {" requests "}, limits: {" limits "}}}"
#define SIDECAR(requests, limits) "{restartPolicy: Always, resources: {requests: {" requests "}, limits: {" limits "}}}"
#define SPEC(text) "spec: {" text "}"

static void test_containers(void **state)
{
    (void)state;

    sizes("{}", "");
    sizes(SPEC("containers: [{name: a}]"), "");
    sizes(SPEC("containers: [" R("cpu: 500m, memory: 64Mi", "cpu: 1500m, memory: 192Mi") "]"), "cpu=500m..1500m memory=64Mi..192Mi");
    sizes(SPEC("containers: [" R("cpu: 1, memory: 1G", "") ", " R("cpu: 250m", "memory: 2G") "]"), "cpu=1250m memory=3G");
    /* What has no limit is counted with its request. */
    sizes(SPEC("containers: [" R("cpu: 1", "cpu: 4") ", " R("cpu: 2", "") "]"), "cpu=3..6");
    /* A limit alone is a request, too. */
    sizes(SPEC("containers: [" R("", "cpu: 128, memory: 500Gi, nvidia.com/gpu: 8") "]"), "cpu=128 memory=500Gi nvidia.com/gpu=8");
    sizes(SPEC("containers: [" R("cpu: 3", "cpu: 1") "]"), "cpu=3"); /* never admitted, but no limit is below a request */
    sizes(SPEC("containers: [" R("ephemeral-storage: 1Gi, hugepages-2Mi: 4Mi, example.com/x: 1", "example.com/x: 1") ", "
               R("ephemeral-storage: 1Gi", "ephemeral-storage: 3Gi") "]"),
          "ephemeral-storage=2Gi..4Gi hugepages-2Mi=4Mi example.com/x=1");
    sizes(SPEC("containers: [" R("cpu: 0, memory: 0", "") "]"), "");
    sizes(SPEC("containers: [" R("cpu: 100u", "") "]"), "cpu=1m");
    sizes(SPEC("activeDeadlineSeconds: 90, containers: []"), "deadline=90");
    sizes(SPEC("containers: [" R("memory: 8E", "") ", " R("memory: 8E", "") "]"), "memory=9223372036854775807");
}

static void test_init_containers(void **state)
{
    (void)state;

    /* One after another: the largest counts, not the sum; and only where it is more than the containers. */
    sizes(SPEC("initContainers: [" R("cpu: 1", "") ", " R("cpu: 3", "") "], containers: [" R("cpu: 2", "") "]"), "cpu=3");
    sizes(SPEC("initContainers: [" R("cpu: 1", "") "], containers: [" R("cpu: 1", "") ", " R("cpu: 1", "") "]"), "cpu=2");
    sizes(SPEC("initContainers: [" R("memory: 9Gi", "cpu: 1") "], containers: [" R("cpu: 2, memory: 1Gi", "") "]"),
          "cpu=2 memory=9Gi");
    sizes(SPEC("initContainers: [" R("cpu: 1", "cpu: 8") "], containers: [" R("cpu: 2", "cpu: 4") "]"), "cpu=2..8");
}

/* The examples of KEP-753 (sidecar containers). */
static void test_sidecars(void **state)
{
    (void)state;

    sizes(SPEC("initContainers: [" SIDECAR("cpu: 1", "") "], containers: [" R("cpu: 2", "") "]"), "cpu=3");
    /* Sidecars started before an init container run beside it, later ones do not. */
    sizes(SPEC("initContainers: [" SIDECAR("cpu: 1", "") ", " R("cpu: 5", "") ", " SIDECAR("cpu: 2", "") "], containers: ["
               R("cpu: 1", "") "]"), "cpu=6");
    sizes(SPEC("initContainers: [" R("cpu: 5", "") ", " SIDECAR("cpu: 1", "") ", " SIDECAR("cpu: 2", "") "], containers: ["
               R("cpu: 1", "") "]"), "cpu=5");
    sizes(SPEC("initContainers: [" SIDECAR("cpu: 1", "cpu: 2") ", " SIDECAR("cpu: 2", "") "], containers: [" R("cpu: 1", "cpu: 3")
               "]"), "cpu=4..7");
}

static void test_pod_level_and_overhead(void **state)
{
    (void)state;

    sizes(SPEC("resources: {requests: {cpu: 300m, memory: 100Mi}, limits: {cpu: 600m, memory: 200Mi}}, containers: [{name: a}]"),
          "cpu=300m..600m memory=100Mi..200Mi");
    sizes(SPEC("resources: {requests: {cpu: 5}}, containers: [" R("cpu: 1", "cpu: 2") "]"), "cpu=5");
    sizes(SPEC("resources: {limits: {cpu: 5}}, containers: [" R("cpu: 1", "cpu: 2") "]"), "cpu=1..5");
    sizes(SPEC("resources: {limits: {cpu: 5}}, containers: [{name: a}]"), "cpu=5");
    sizes(SPEC("resources: {limits: {cpu: 2}}, containers: [" R("cpu: 1", "cpu: 8") "]"), "cpu=1..2");
    sizes(SPEC("resources: {requests: {example.com/x: 9}}, containers: [" R("example.com/x: 1", "") "]"), "example.com/x=1");
    sizes(SPEC("overhead: {cpu: 250m, memory: 120Mi}, containers: [" R("cpu: 1", "cpu: 2") "]"), "cpu=1250m..2250m memory=120Mi");
    sizes(SPEC("overhead: {cpu: 1}, resources: {requests: {cpu: 2}}, containers: []"), "cpu=3");
}

static void refused(const char *yaml, const char *message)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    struct pod_size size;
    const struct json *pod = yaml_parse(&arena, str_of(yaml), &err);

    assert_non_null(pod);
    if (pod_size_read(&arena, pod, &size, &err))
        fail_msg("taken: %s", yaml);
    if (strstr(err.message, message) == NULL)
        fail_msg("wanted \"%s\", found \"%s\"", message, err.message);
}

static void test_malformed(void **state)
{
    cleanup_buf struct buf many = BUF_INIT;
    (void)state;

    refused("[]", "wanted an object");
    refused("spec: 7", "spec: wanted an object");
    refused(SPEC("containers: {}"), "spec.containers: wanted an array");
    refused(SPEC("containers: [x]"), "spec.containers[0]: wanted an object");
    refused(SPEC("containers: [" R("cpu: much", "") "]"), "spec.containers[0].resources.requests.cpu: \"much\" is no quantity");
    refused(SPEC("containers: [" R("cpu: [1]", "") "]"), "spec.containers[0].resources.requests.cpu: wanted a string");
    refused(SPEC("containers: [" R("cpu: -1", "") "]"), "below zero");
    refused(SPEC("containers: [" R("memory: 99999999E", "") "]"), "too large");
    refused(SPEC("overhead: [1]"), "spec.overhead: wanted an object");
    refused(SPEC("activeDeadlineSeconds: -1"), "spec.activeDeadlineSeconds");
    buf_append_str(&many, "spec: {overhead: {");
    for (int i = 0; i <= POD_SIZE_RESOURCES_MAX; i++)
        buf_printf(&many, "e.org/r%d: 1, ", i);
    buf_append_str(&many, "}}");
    refused(buf_cstr(&many), "more than 64 kinds of resources");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_containers),
        cmocka_unit_test(test_init_containers),
        cmocka_unit_test(test_sidecars),
        cmocka_unit_test(test_pod_level_and_overhead),
        cmocka_unit_test(test_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
