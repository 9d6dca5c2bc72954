/* SPDX-License-Identifier: Apache-2.0 */
/* A manifest as it is understood: the bodies captured from the real API server, one with everything, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/podspec.h"
#include "io/file.h"

static struct podspec spec;
static struct arena arena;

static struct str load(const char *path)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;

    if (!file_read(path, 1 << 20, &text, &err))
        fail_msg("%s", err.message);
    return (struct str){ arena_memdup(&arena, text.p, text.n), text.n };
}

static int teardown(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

static void must(struct str manifest)
{
    struct status err = STATUS_INIT;

    if (!podspec_read(&arena, manifest, "192.0.2.1", &spec, &err))
        fail_msg("%s", err.message);
}

static const char *env(size_t container, const char *name)
{
    return interlink_pair_get(&spec.containers[container].env, name);
}

static void test_captured(void **state)
{
    static const char *const samples[] = { "test/fixtures/interlink/plugin-create-RetrievedPodData.json",
                                           "test/fixtures/interlink/api-create-request.json" };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(samples); i++) {
        must(load(samples[i]));
        assert_int_equal(spec.count, 1);
        assert_int_equal(spec.restart, PODSPEC_NEVER);
        assert_string_equal(env(0, "FOO"), "a b'c\"$HOME\nline2");
        const struct interlink_object *secret = podspec_object(&spec, podspec_volume(&spec, "sec"));
        assert_non_null(secret);
        assert_true(str_eq(secret->files[0].data, "hunter2"));
    }
}

static void test_everything(void **state)
{
    (void)state;
    must(load("test/fuzz/corpus/podspec/full.json"));
    assert_int_equal(spec.count, 3);
    assert_int_equal(spec.containers[0].role, PODSPEC_INIT);
    assert_int_equal(spec.containers[1].role, PODSPEC_SIDECAR);
    assert_int_equal(spec.containers[2].role, PODSPEC_MAIN);
    assert_int_equal(spec.grace_seconds, 3);
    assert_int_equal(spec.group_count, 2);
    /* What is said later is not known earlier. */
    assert_string_equal(env(2, "A"), "$(B)");
    assert_string_equal(env(2, "B"), "v");
    assert_string_equal(env(2, "C"), "b");
    assert_string_equal(env(2, "D"), "1000");
    assert_string_equal(env(2, "Px"), "y");
    assert_string_equal(spec.containers[2].command.items[0], "$(B)");
    assert_string_equal(spec.containers[2].args.items[0], "$(A)");
    assert_string_equal(spec.containers[0].pull_policy, "IfNotPresent");
    assert_string_equal(spec.containers[2].pull_policy, "Always");
    assert_int_equal(spec.containers[2].probes[PODSPEC_READINESS].action.port, 80);
    assert_int_equal(spec.containers[2].probes[PODSPEC_LIVENESS].failures, 3);
    assert_int_equal(spec.containers[2].pre_stop.kind, PODSPEC_SLEEP);
    assert_int_equal(spec.containers[2].security.run_as_user, 1);
}

#define POD(spec_text) "{\"metadata\":{\"name\":\"p\",\"namespace\":\"d\",\"uid\":\"u\"},\"spec\":{" spec_text "}}"
#define ONE(more) "\"containers\":[{\"name\":\"a\",\"image\":\"i\"" more "}]"

static void test_refused(void **state)
{
    static const struct {
        const char *text, *word;
    } cases[] = {
        { "", "" },
        { "[]", "object" },
        { "{\"pod\":7}", "pod" },
        { "{\"metadata\":{\"uid\":\"../x\"},\"spec\":{" ONE("") "}}", "uid" },
        { POD("\"containers\":[{\"name\":\"A\",\"image\":\"i\"}]"), "containers[0].name" },
        { POD("\"containers\":[{\"name\":\"a/b\",\"image\":\"i\"}]"), "containers[0].name" },
        { POD("\"containers\":[{\"name\":\"a\",\"image\":7}]"), "image" },
        { POD(ONE(",\"env\":[{\"name\":\"X\",\"valueFrom\":{}}]")), "none of" },
        { POD(ONE(",\"env\":[{\"name\":\"X\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"spec.x\"}}}]")), "spec.x" },
        { POD(ONE(",\"envFrom\":[{\"secretRef\":{\"name\":\"s\"}}]")), "did not come" },
        { POD(ONE(",\"livenessProbe\":{}")), "livenessProbe" },
        { POD(ONE(",\"livenessProbe\":{\"tcpSocket\":{\"port\":\"http\"}}")), "no port" },
        { POD(ONE(",\"livenessProbe\":{\"tcpSocket\":{\"port\":70000}}")), "port" },
        { POD(ONE(",\"lifecycle\":{\"preStop\":{\"exec\":{\"command\":[]}}}")), "command" },
        { POD(ONE(",\"restartPolicy\":\"Always\"")), "restartPolicy" },
        { POD(ONE(",\"securityContext\":{\"runAsUser\":\"root\"}")), "runAsUser" },
        { POD(ONE(",\"securityContext\":{\"seccompProfile\":{\"type\":\"Localhost\"}}")), "Localhost" },
        { POD(ONE(",\"volumeMounts\":[{\"name\":\"v\",\"mountPath\":\"x\"}]") ",\"volumes\":[{\"name\":\"v\",\"emptyDir\":{}}]"),
          "mountPath" },
        { POD(ONE("") ",\"hostPID\":true"), "hostPID" },
        { POD(ONE("") ",\"hostAliases\":[{\"ip\":\"1.2.3.4\"}]"), "hostAliases" },
        { POD(ONE("") ",\"securityContext\":{\"sysctls\":[{\"name\":\"x\"}]}"), "sysctls" },
        { POD(ONE(",\"volumeDevices\":[{\"name\":\"x\"}]")), "volumeDevices" },
        { POD(ONE(",\"securityContext\":{\"procMount\":\"Unmasked\"}")), "procMount" },
        { POD(ONE("") ",\"volumes\":[{\"name\":\"v\",\"hostPath\":{\"path\":\"x\"}}]"), "absolute" },
        { POD(ONE("") ",\"volumes\":[{\"name\":\"v\",\"emptyDir\":{}},{\"name\":\"v\",\"emptyDir\":{}}]"), "two called" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct status err = STATUS_INIT;
        assert_false(podspec_read(&arena, str_of(cases[i].text), "", &spec, &err));
        assert_int_not_equal(err.code, STATUS_OK);
        if (strstr(err.message, cases[i].word) == NULL)
            fail_msg("%s: \"%s\" is not in \"%s\"", cases[i].text, cases[i].word, err.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_captured, teardown),
        cmocka_unit_test_teardown(test_everything, teardown),
        cmocka_unit_test_teardown(test_refused, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
