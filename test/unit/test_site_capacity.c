/* SPDX-License-Identifier: Apache-2.0 */
#include "node/site_capacity.h"

#include <setjmp.h>
#include <cmocka.h>

#include "text/yaml.h"

typedef Interlink__State__V1__SiteReport report;

static report *report_of(const char *ping, const report *before, const char *odd)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf found = BUF_INIT;
    struct interlink_ping parsed;

    interlink_ping_read(&arena, str_of(ping), &parsed);
    report *r = site_report_of_ping("site", &parsed, before, &found);
    if (strcmp(buf_cstr(&found), odd) != 0)
        fail_msg("%s\nwanted \"%s\"\nfound  \"%s\"", ping, odd, buf_cstr(&found));
    return r;
}

static void report_free(report *r)
{
    protobuf_c_message_free_unpacked(&r->base, NULL);
}

/* The sum of what two sites say. */
static void sums(const char *a, const char *b, const char *wanted)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    report *reports[] = { report_of(a, NULL, ""), report_of(b, NULL, "") };
    struct site_capacity sum = site_capacity_sum(&arena, reports, 2);

    assert_string_equal(site_capacity_text(&arena, &sum), wanted);
    report_free(reports[0]);
    report_free(reports[1]);
}

#define SITE(cpu, memory, pods, more) \
    "{\"status\":\"ok\",\"resources\":{\"cpu\":\"" cpu "\",\"memory\":\"" memory "\",\"pods\":\"" pods "\"" more "}}"
#define GPUS(n) ",\"accelerators\":[{\"resourceType\":\"nvidia.com/gpu\",\"available\":\"" n "\"}]"

static void test_sums(void **state)
{
    (void)state;

    sums("", "pong", "");
    sums(SITE("128", "1Ti", "500", GPUS("8")), "{}", "cpu=128, memory=1Ti, pods=500, nvidia.com/gpu=8");
    sums(SITE("128", "1Ti", "500", GPUS("8")), SITE("0.5", "512Gi", "1k", GPUS("2")),
         "cpu=128500m, memory=1536Gi, pods=1500, nvidia.com/gpu=10");
    sums(SITE("0", "0", "0", GPUS("0")), "", "nvidia.com/gpu=0");
    sums("{\"resources\":{\"cpu\":64,\"memory\":1000}}", "", "cpu=64, memory=1k");
    sums(SITE("", "9E", "9E", GPUS("9E")), SITE("", "9E", "9E", ""),
         "memory=9223372036854775807, pods=999999999999999, nvidia.com/gpu=999999999999999");
}

static void test_odd(void **state)
{
    static const char *const bad[] = { "gpu", "/gpu", "nvidia/gpu", "nvidia.com/", "nvidia..com/gpu", ".com/gpu", "nvidia.com./gpu",
                                       "Nvidia.com/gpu", "nvidia.com/-gpu", "nvidia.com/gpu_", "nvidia-.com/gpu", "a.b/c/d",
                                       "kubernetes.io/x", "a.kubernetes.io/x", "hugepages-2Mi" };
    static const char *const fine[] = { "nvidia.com/gpu", "a.b.c-d.e/F_g.h", "notkubernetes.io/x", "x.com/1" };
    (void)state;

    report_free(report_of(SITE("lots", "-1", "", ""), NULL,
                          "cpu \"lots\": no quantity; memory \"-1\": no quantity"));
    for (size_t i = 0; i < COUNT_OF(bad) + COUNT_OF(fine); i++) {
        const char *name = i < COUNT_OF(bad) ? bad[i] : fine[i - COUNT_OF(bad)];
        cleanup_free char *ping = xasprintf("{\"resources\":{\"accelerators\":[{\"resourceType\":\"%s\",\"available\":\"1\"}]}}", name);
        cleanup_free char *odd = xasprintf("accelerator \"%s\": not a resource such as nvidia.com/gpu", name);
        report *r = report_of(ping, NULL, i < COUNT_OF(bad) ? odd : "");
        assert_int_equal(r->n_quantities, i < COUNT_OF(bad) ? 0 : 1);
        report_free(r);
    }
    report_free(report_of("{\"taints\":[{\"key\":\"a\",\"effect\":\"Never\"},{\"key\":\"a b\",\"effect\":\"NoSchedule\"},"
                          "{\"key\":\"a\",\"value\":\"x,y\",\"effect\":\"NoExecute\"}]}", NULL,
                          "taint \"a\": no such effect; taint \"a b\": not a key and value that Kubernetes takes; "
                          "taint \"a\": not a key and value that Kubernetes takes"));
}

/* The patch for what a site says and a Node; "" when there is none. */
static void patches(const char *ping, const char *node_yaml, bool all, const char *wanted)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf patch = BUF_INIT;
    struct status err = STATUS_INIT;
    report *r = report_of(ping, NULL, "");
    struct site_capacity sum = site_capacity_sum(&arena, &r, 1);
    const struct json *node = yaml_parse(&arena, str_of(node_yaml), &err);

    assert_non_null(node);
    bool changed = site_capacity_patch(&sum, node, all, &patch);
    assert_string_equal(changed ? buf_cstr(&patch) : "", wanted);
    report_free(r);
}

#define PATCH(text) "{\"metadata\":{\"annotations\":{" text "}}}"
#define A(name, value) "\"interlink.eu/" name "\":\"" value "\""

static void test_patches(void **state)
{
    (void)state;

    patches("pong", "{}", false, "");
    patches("pong", "metadata: {annotations: {interlink.eu/capacity-cpu: '7'}}", false, ""); /* somebody else's */
    patches(SITE("128", "", "", GPUS("8")), "metadata: {}", false,
            PATCH(A("capacity-cpu", "128") "," A("capacity-nvidia.com_gpu", "8") "," A("managed-capacity", "cpu,nvidia.com_gpu")));
    patches(SITE("128", "", "", GPUS("8")), "metadata: {annotations: {interlink.eu/capacity-cpu: '128', interlink.eu/capacity-"
            "nvidia.com_gpu: '8', interlink.eu/managed-capacity: 'cpu,nvidia.com_gpu'}}", false, "");
    patches(SITE("128", "", "", ""), "metadata: {annotations: {interlink.eu/capacity-cpu: '128', interlink.eu/managed-capacity: cpu}}",
            true, PATCH(A("capacity-cpu", "128") "," A("managed-capacity", "cpu")));
    patches(SITE("64", "", "", ""), "metadata: {annotations: {interlink.eu/capacity-cpu: '128', interlink.eu/managed-capacity: cpu}}",
            false, PATCH(A("capacity-cpu", "64")));
    /* Accelerators that are gone become "0" and stay ours; cpu is kubelet's again. */
    patches("pong", "metadata: {annotations: {interlink.eu/capacity-cpu: '128', interlink.eu/capacity-nvidia.com_gpu: '8', "
            "interlink.eu/capacity-a.b_c: '1', interlink.eu/managed-capacity: 'cpu,nvidia.com_gpu'}}", false,
            PATCH("\"interlink.eu/capacity-cpu\":null," A("capacity-nvidia.com_gpu", "0") "," A("managed-capacity", "nvidia.com_gpu")));
    patches("pong", "metadata: {annotations: {interlink.eu/capacity-nvidia.com_gpu: '0', interlink.eu/managed-capacity: nvidia.com_gpu}}",
            false, "");
    patches("pong", "metadata: {annotations: {interlink.eu/capacity-cpu: '1', interlink.eu/managed-capacity: ',cpu,'}}", false,
            PATCH("\"interlink.eu/capacity-cpu\":null,\"interlink.eu/managed-capacity\":null"));
    patches(SITE("1", "", "", ""), "metadata: {annotations: [x]}", false,
            PATCH(A("capacity-cpu", "1") "," A("managed-capacity", "cpu")));
}

static void test_unmet(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    report *r = report_of(SITE("128", "1Ti", "", GPUS("0")), NULL, "");
    struct site_capacity sum = site_capacity_sum(&arena, &r, 1);
    static const struct {
        const char *node, *unmet;
    } table[] = {
        { "{}", "cpu" },
        { "status: {capacity: {cpu: 2}}", "cpu" },
        { "status: {capacity: {cpu: 128000m, memory: 4Gi}}", "memory" },
        { "status: {capacity: {cpu: 128, memory: 1024Gi}}", "nvidia.com/gpu" },
        { "status: {capacity: {cpu: '128', memory: 1Ti, nvidia.com/gpu: '0', pods: 110}}", NULL },
        { "status: {capacity: {cpu: x}}", "cpu" },
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(table); i++) {
        const char *unmet = site_capacity_unmet(&sum, yaml_parse(&arena, str_of(table[i].node), &err));
        assert_string_equal(unmet != NULL ? unmet : "", table[i].unmet != NULL ? table[i].unmet : "");
    }
    report_free(r);
}

static void taints(const char *list, const char *node_yaml, const char *wanted)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf patch = BUF_INIT;
    struct status err = STATUS_INIT;
    cleanup_free char *ping = xasprintf("{\"taints\":%s}", list);
    report *r[] = { report_of(ping, NULL, ""), report_of(ping, NULL, "") }; /* what two sites say counts once */
    const struct json *node = yaml_parse(&arena, str_of(node_yaml), &err);

    assert_non_null(node);
    bool changed = site_taints_patch(r, 2, node, &patch);
    assert_string_equal(changed ? buf_cstr(&patch) : "", wanted);
    report_free(r[0]);
    report_free(r[1]);
}

#define T(key, value) "{\"key\":\"" key "\",\"value\":\"" value "\",\"effect\":\"NoSchedule\"}"
#define TAINTED(taints, managed) \
    "{\"spec\":{\"taints\":[" taints "]},\"metadata\":{\"resourceVersion\":\"7\",\"annotations\":{\"interlink.eu/managed-taints\":" managed "}}}"
#define NODE(managed, list) \
    "{metadata: {resourceVersion: '7', annotations: {interlink.eu/managed-taints: '" managed "'}}, spec: {taints: " list "}}"

static void test_taints(void **state)
{
    (void)state;

    taints("[]", "{}", "");
    taints("[]", NODE("", "[{key: theirs, effect: NoExecute}]"), "");
    taints("[" T("k", "v") "]", NODE("", "[{key: theirs, effect: NoExecute, timeAdded: x}]"),
           TAINTED("{\"key\":\"theirs\",\"effect\":\"NoExecute\",\"timeAdded\":\"x\"}," T("k", "v"), "\"k=v:NoSchedule\""));
    taints("[" T("k", "v") "]", NODE("k=v:NoSchedule", "[" T("k", "v") "]"), "");
    taints("[" T("k", "w") "]", NODE("k=v:NoSchedule", "[" T("k", "v") "]"), TAINTED(T("k", "w"), "\"k=w:NoSchedule\""));
    taints("[]", NODE("k=v:NoSchedule", "[" T("k", "v") ", " T("x", "y") "]"), TAINTED(T("x", "y"), "null"));
    /* Taken away by somebody, it is put back; there before us, it is left alone. */
    taints("[" T("k", "v") "]", NODE("k=v:NoSchedule", "[]"), TAINTED(T("k", "v"), "\"k=v:NoSchedule\""));
    taints("[" T("k", "v") "]", NODE("", "[" T("k", "theirs") "]"), "");
    taints("[{\"key\":\"a.b/c\",\"effect\":\"PreferNoSchedule\"}]", NODE("", "[]"),
           TAINTED("{\"key\":\"a.b/c\",\"effect\":\"PreferNoSchedule\"}", "\"a.b/c:PreferNoSchedule\""));
}

/* A ping that says nothing of taints leaves them; one with an empty list takes them away. */
static void test_silence_on_taints(void **state)
{
    report *first = report_of("{\"taints\":[" T("k", "v") "]}", NULL, ""), *second = report_of("{}", first, "");
    report *third = report_of("{\"taints\":[]}", second, "");
    (void)state;

    assert_int_equal(second->n_taints, 1);
    assert_true(site_report_equal(first, second));
    assert_int_equal(third->n_taints, 0);
    assert_false(site_report_equal(second, third));
    report_free(first);
    report_free(second);
    report_free(third);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_odd),
        cmocka_unit_test(test_patches),
        cmocka_unit_test(test_unmet),
        cmocka_unit_test(test_taints),
        cmocka_unit_test(test_silence_on_taints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
