/* SPDX-License-Identifier: Apache-2.0 */
/* Pods and interLink's messages against bodies captured from the real API server and plugins. Run from the top folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "interlink/message.h"
#include "interlink/pod.h"
#include "io/file.h"
#include "text/json.h"

#define FIXTURES "test/fixtures/interlink/"

static struct str load(struct arena *arena, const char *name)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *path = xasprintf(FIXTURES "%s", name);
    struct status err = STATUS_INIT;

    if (!file_read(path, 1 << 20, &text, &err))
        fail_msg("%s", err.message);
    return (struct str){ arena_memdup(arena, text.p, text.n), text.n };
}

static struct str str_of_buf(const struct buf *b)
{
    return (struct str){ (const char *)b->p, b->n };
}

static void check_sample(const struct interlink_create *c)
{
    const struct interlink_pod *pod = &c->pod;
    const struct interlink_container *main_ = &pod->containers[0];

    assert_string_equal(pod->name, "p1");
    assert_string_equal(pod->namespace_, "default");
    assert_string_equal(pod->uid, "11111111-1111-1111-1111-111111111111");
    assert_string_equal(pod->restart_policy, "Never");
    assert_string_equal(pod->phase, "Pending");
    assert_int_equal(pod->active_deadline_seconds, -1);
    assert_int_equal(pod->container_count, 1);
    assert_int_equal(pod->init_container_count, 0);
    assert_int_equal(main_->command.count, 3);
    assert_string_equal(main_->command.items[0], "/bin/sh");
    assert_string_equal(interlink_pair_get(&main_->env, "FOO"), "a b'c\"$HOME\nline2");
    assert_string_equal(interlink_pair_get(&main_->limits, "memory"), "128Mi");
    assert_string_equal(interlink_pair_get(&main_->requests, "cpu"), "500m");
    assert_string_equal(interlink_pair_get(&main_->requests, "nvidia.com/gpu"), "");
    assert_int_equal(main_->mount_count, 3);
    assert_true(main_->mounts[1].read_only);
    assert_false(main_->mounts[0].read_only);
    assert_int_equal(pod->volume_count, 3);
    assert_int_equal(pod->volumes[0].kind, INTERLINK_VOLUME_CONFIG_MAP);
    assert_int_equal(pod->volumes[1].kind, INTERLINK_VOLUME_SECRET);
    assert_string_equal(pod->volumes[1].source, "s1");
    assert_int_equal(pod->volumes[1].default_mode, 256);
    assert_int_equal(pod->volumes[2].kind, INTERLINK_VOLUME_EMPTY_DIR);
    assert_int_equal(c->config_map_count, 1);
    assert_int_equal(c->config_maps[0].file_count, 2);
    assert_true(str_eq(c->config_maps[0].files[0].data, "cfg-a\n"));
    assert_int_equal(c->secret_count, 1);
    assert_string_equal(c->secrets[0].type, "Opaque");
    assert_true(str_eq(c->secrets[0].files[0].data, "hunter2"));
    assert_int_equal(c->projected_count, 0);
}

static void test_both_dialects(void **state)
{
    static const char *const names[] = { "api-create-request.json", "plugin-create-RetrievedPodData.json" };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        cleanup_arena struct arena arena = ARENA_INIT;
        cleanup_buf struct buf written = BUF_INIT;
        struct interlink_create create;
        struct status err = STATUS_INIT;
        if (!interlink_create_read(&arena, load(&arena, names[i]), &create, &err))
            fail_msg("%s", err.message);
        assert_int_equal(create.plugin_wire, i == 1);
        check_sample(&create);
        /* Written in the API's dialect and read again it is the same. */
        interlink_create_write(&written, &create);
        if (!interlink_create_read(&arena, str_of_buf(&written), &create, &err))
            fail_msg("%s", err.message);
        assert_false(create.plugin_wire);
        check_sample(&create);
    }
}

/* What stock plugins die of when it is not there. */
static void test_what_is_always_written(void **state)
{
    struct interlink_volume volumes[] = {
        { .name = "a", .kind = INTERLINK_VOLUME_CONFIG_MAP, .source = "c", .default_mode = -1 },
        { .name = "b", .kind = INTERLINK_VOLUME_HOST_PATH, .source = "/data", .host_path_type = "" },
        { .name = "c", .kind = INTERLINK_VOLUME_PROJECTED, .default_mode = 0600 },
    };
    struct interlink_pod pod = INTERLINK_POD_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;

    (void)state;
    pod.volumes = volumes;
    pod.volume_count = 3;
    interlink_pod_write(&text, &pod);
    const struct json *j = json_parse(&arena, str_of_buf(&text), &err);
    assert_non_null(j);
    assert_string_equal(json_string(json_get(j, "status", "phase"), ""), "Pending");
    assert_int_equal(json_i64(json_get(j, "spec", "volumes", "0", "configMap", "defaultMode"), -1), 0644);
    assert_string_equal(json_string(json_get(j, "spec", "volumes", "1", "hostPath", "type"), ""), "DirectoryOrCreate");
    assert_int_equal(json_i64(json_get(j, "spec", "volumes", "2", "projected", "defaultMode"), -1), 0600);
    assert_true(json_is(json_get(j, "spec", "containers"), JSON_ARRAY));
    buf_clear(&text);
    pod.phase = "Succeeded"; /* an API server would answer from its cache for ever */
    interlink_pod_write(&text, &pod);
    assert_non_null(strstr(buf_cstr(&text), "\"phase\":\"Pending\""));
}

static void test_binary_files(void **state)
{
    struct interlink_file files[] = { { "text", STR("plain \xc3\xa4") }, { "bin", STR("\x00\xff\x01") } };
    struct interlink_object map = { "m", "ns", "", files, 2 }, secret = { "s", "ns", "Opaque", files, 2 };
    struct interlink_create create = INTERLINK_CREATE_INIT, again;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;

    (void)state;
    create.config_maps = create.projected = &map;
    create.secrets = &secret;
    create.config_map_count = create.projected_count = create.secret_count = 1;
    interlink_create_write(&text, &create);
    assert_true(interlink_create_read(&arena, str_of_buf(&text), &again, &err));
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(again.config_maps[0].files[i].data.n, files[i].data.n);
        assert_memory_equal(again.config_maps[0].files[i].data.p, files[i].data.p, files[i].data.n);
        assert_int_equal(again.secrets[0].files[i].data.n, files[i].data.n);
        assert_memory_equal(again.secrets[0].files[i].data.p, files[i].data.p, files[i].data.n);
        assert_memory_equal(again.projected[0].files[i].data.p, files[i].data.p, files[i].data.n);
    }
}

/* A volume that two containers mount comes twice on the plugin wire. */
static void test_copies_are_merged(void **state)
{
    static const char json[] =
        "{\"pod\":{},\"container\":[{\"name\":\"a\",\"secrets\":[{\"metadata\":{\"name\":\"s\"},\"data\":{\"k\":\"YQ==\"}}],"
        "\"configMaps\":null},{\"name\":\"b\",\"secrets\":[{\"metadata\":{\"name\":\"s\"},\"data\":{\"k\":\"YQ==\"}},"
        "{\"metadata\":{\"name\":\"t\"}}],\"projectedvolumemaps\":[{\"metadata\":{\"name\":\"p\"},\"data\":{\"x/y\":\"1\"}}]}]}";
    struct interlink_create create;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(interlink_create_read(&arena, STR(json), &create, &err));
    assert_true(create.plugin_wire);
    assert_int_equal(create.secret_count, 2);
    assert_string_equal(create.secrets[1].name, "t");
    assert_int_equal(create.projected_count, 1);
    assert_string_equal(create.projected[0].files[0].key, "x/y");
}

static void test_errors_name_the_place(void **state)
{
    static const struct {
        const char *json, *place;
    } cases[] = {
        { "{\"pod\":{\"metadata\":{\"uid\":5}}}", "pod.metadata.uid" },
        { "{\"pod\":{\"spec\":{\"containers\":[{\"name\":\"a\"},{\"name\":\"b\",\"image\":[]}]}}}",
          "pod.spec.containers[1].image" },
        { "{\"pod\":{\"spec\":{\"containers\":[{}]}}}", "pod.spec.containers[0]" },
        { "{\"pod\":{\"spec\":{\"containers\":[null]}}}", "pod.spec.containers[0]" },
        { "{\"pod\":{\"spec\":{\"containers\":[{\"name\":\"a\",\"command\":[\"x\",1]}]}}}",
          "pod.spec.containers[0].command[1]" },
        { "{\"pod\":{\"spec\":{\"containers\":[{\"name\":\"a\",\"env\":[{\"name\":\"A=B\"}]}]}}}",
          "pod.spec.containers[0].env[0]" },
        { "{\"pod\":{\"spec\":{\"containers\":[{\"name\":\"a\",\"resources\":{\"limits\":{\"cpu\":\"many\"}}}]}}}",
          "pod.spec.containers[0].resources.limits.cpu" },
        { "{\"pod\":{\"spec\":{\"volumes\":[{\"name\":\"v\",\"secret\":{\"defaultMode\":99999}}]}}}",
          "pod.spec.volumes[0].secret.defaultMode" },
        { "{\"pod\":{\"metadata\":{\"annotations\":{\"a/b\":true}}}}", "pod.metadata.annotations" },
        { "{\"pod\":{},\"secrets\":[{\"data\":{\"k\":\"%%%\"}}]}", "secrets[0].data.k" },
        { "{\"pod\":{},\"container\":[{\"configMaps\":[{\"data\":{\"k\":1}}]}]}", "container[0].configMaps[0].data.k" },
        { "{}", "a create request needs a pod" },
        { "null", "" },
        { "[]", "" },
        { "", "" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cleanup_arena struct arena arena = ARENA_INIT;
        struct interlink_create create;
        struct status err = STATUS_INIT;
        assert_false(interlink_create_read(&arena, str_of(cases[i].json), &create, &err));
        assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
        if (strstr(err.message, cases[i].place) == NULL)
            fail_msg("%s: %s", cases[i].json, err.message);
    }
}

static void test_unknown_keys_are_passed_over(void **state)
{
    static const char json[] = "[{\"metadata\":{\"name\":\"p\",\"managedFields\":[{}],\"creationTimestamp\":null},"
                               "\"spec\":{\"containers\":[{\"name\":\"c\",\"ports\":[{}],\"resources\":{\"limits\":{\"cpu\":2}},"
                               "\"env\":[{\"name\":\"E\",\"valueFrom\":{\"fieldRef\":{}}}]}],\"tolerations\":7,"
                               "\"volumes\":[{\"name\":\"v\",\"csi\":{}}]}},{\"status\":{\"phase\":\"Running\"}}]";
    struct interlink_pod *pods;
    size_t count;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;

    (void)state;
    if (!interlink_pods_read(&arena, STR(json), &pods, &count, &err))
        fail_msg("%s", err.message);
    assert_int_equal(count, 2);
    assert_string_equal(interlink_pair_get(&pods[0].containers[0].limits, "cpu"), "2");
    assert_string_equal(pods[0].containers[0].env_from, "E");
    assert_int_equal(pods[0].volumes[0].kind, INTERLINK_VOLUME_OTHER);
    assert_string_equal(pods[0].volumes[0].other, "csi");
    assert_string_equal(pods[1].phase, "Running");
    assert_true(interlink_pods_read(&arena, STR("null"), &pods, &count, &err) && count == 0);
    assert_true(interlink_pods_read(&arena, STR(""), &pods, &count, &err) && count == 0);
    assert_false(interlink_pods_read(&arena, STR("{}"), &pods, &count, &err));
}

static void test_uids(void **state)
{
    (void)state;
    assert_true(interlink_uid_valid("11111111-1111-1111-1111-111111111111"));
    assert_true(interlink_uid_valid("0123456789abcdef0123456789abcdef"));
    assert_false(interlink_uid_valid(""));
    assert_false(interlink_uid_valid(".."));
    assert_false(interlink_uid_valid("a/b"));
    assert_false(interlink_uid_valid("-a"));
    assert_false(interlink_uid_valid("ABC"));
}

/* ---- messages ---- */

static void test_status_of_a_plugin(void **state)
{
    struct interlink_pod_status *statuses;
    size_t count;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(interlink_statuses_read(&arena, load(&arena, "plugin-status-response-terminated.json"), &statuses, &count,
                                        &err));
    assert_int_equal(count, 1);
    assert_string_equal(statuses[0].uid, "11111111-1111-1111-1111-111111111111");
    assert_int_equal(statuses[0].container_count, 1);
    assert_int_equal(statuses[0].init_container_count, 0);
    assert_int_equal(statuses[0].containers[0].phase, INTERLINK_TERMINATED);
    assert_int_equal(statuses[0].containers[0].exit_code, 7);
    assert_int_equal(statuses[0].containers[0].started_ns, 0);
    assert_int_equal(statuses[0].containers[0].finished_ns, INT64_C(1795490976) * 1000000000);
}

static void test_states(void **state)
{
    static const char json[] =
        "[null,{\"UID\":\"u\",\"JID\":\"4711\",\"containers\":["
        "{\"name\":\"a\",\"state\":{\"waiting\":{\"reason\":\"Priority\",\"message\":\"12 ahead\"}}},"
        "{\"name\":\"b\",\"containerID\":\"job://4711@n[1-2]\",\"state\":{\"running\":{\"startedAt\":\"2026-11-24T03:29:36Z\"}}},"
        "{\"name\":\"c\",\"state\":{}},{\"name\":\"d\"},"
        "{\"name\":\"e\",\"state\":{\"running\":{\"startedAt\":\"0001-01-01T00:00:00Z\"}}}],"
        "\"initContainers\":[{\"name\":\"i\",\"state\":{\"terminated\":{\"exitCode\":137,\"signal\":9,\"reason\":\"Error\"}}}]}]";
    struct interlink_pod_status *s;
    size_t count;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;

    (void)state;
    for (int round = 0; round < 2; round++) {
        struct str from = round == 0 ? STR(json) : str_of_buf(&text);
        if (!interlink_statuses_read(&arena, from, &s, &count, &err))
            fail_msg("%s", err.message);
        assert_int_equal(count, 1);
        assert_string_equal(s->jid, "4711");
        assert_string_equal(s->nodes, "n[1-2]");
        assert_int_equal(s->containers[0].phase, INTERLINK_WAITING);
        assert_string_equal(s->containers[0].message, "12 ahead");
        assert_int_equal(s->containers[1].phase, INTERLINK_RUNNING);
        assert_true(s->containers[1].started_ns > 0);
        assert_int_equal(s->containers[2].phase, INTERLINK_UNKNOWN);
        assert_int_equal(s->containers[3].phase, INTERLINK_UNKNOWN);
        assert_int_equal(s->containers[4].started_ns, 0);
        assert_int_equal(s->init_containers[0].signal, 9);
        assert_string_equal(s->init_containers[0].reason, "Error");
        if (round == 0)
            interlink_statuses_write(&text, s, count);
    }
    assert_true(interlink_statuses_read(&arena, STR("null"), &s, &count, &err) && count == 0);
    assert_false(interlink_statuses_read(&arena, STR("[{\"UID\":7}]"), &s, &count, &err));
    assert_false(interlink_statuses_read(&arena, STR("[7]"), &s, &count, &err));
    assert_false(interlink_statuses_read(&arena, STR("{"), &s, &count, &err));
}

static void test_pings(void **state)
{
    struct interlink_ping ping;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;

    (void)state;
    interlink_ping_read(&arena, STR("{\"status\":\"ok\",\"resources\":{\"cpu\":\"128\",\"memory\":\"512Gi\",\"pods\":110,"
                                    "\"accelerators\":[{\"resourceType\":\"nvidia.com/gpu\",\"available\":\"8\"},{}]},"
                                    "\"taints\":[{\"key\":\"k\",\"effect\":\"NoSchedule\"}]}"),
                        &ping);
    for (int round = 0; round < 2; round++) {
        assert_string_equal(ping.status, "ok");
        assert_string_equal(ping.cpu, "128");
        assert_string_equal(ping.pods, "110");
        assert_int_equal(ping.accelerator_count, 1);
        assert_string_equal(ping.accelerators[0].available, "8");
        assert_true(ping.has_taints);
        assert_string_equal(ping.taints[0].effect, "NoSchedule");
        interlink_ping_write(&text, &ping);
        interlink_ping_read(&arena, str_of_buf(&text), &ping);
    }
    interlink_ping_read(&arena, STR("pong"), &ping);
    assert_string_equal(ping.status, "pong");
    assert_false(ping.has_taints);
    interlink_ping_read(&arena, STR(""), &ping);
    assert_string_equal(ping.status, "");
    interlink_ping_read(&arena, STR("{\"resources\":7,\"taints\":null}"), &ping);
    assert_string_equal(ping.cpu, "");
    assert_false(ping.has_taints);
}

static void test_log_requests(void **state)
{
    struct interlink_log_request r;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(interlink_log_request_read(&arena, load(&arena, "plugin-getLogs-request.json"), &r, &err));
    assert_string_equal(r.container, "main");
    assert_true(r.since_time_ns == 0 && r.tail == 0 && !r.follow);
    r.tail = 7;
    r.follow = true;
    r.since_time_ns = INT64_C(1795490976) * 1000000000 + 5;
    interlink_log_request_write(&text, &r);
    assert_true(interlink_log_request_read(&arena, str_of_buf(&text), &r, &err));
    assert_true(r.tail == 7 && r.follow && r.since_time_ns == INT64_C(1795490976) * 1000000000 + 5);
    assert_false(interlink_log_request_read(&arena, STR("{\"Opts\":{\"Tail\":-1}}"), &r, &err));
}

static void check_error_of(int http_status, const char *body, const char *wanted, bool plugins)
{
    cleanup_buf struct buf out = BUF_INIT;

    assert_int_equal(interlink_error_text(str_of(body), http_status, &out), plugins);
    assert_string_equal(buf_cstr(&out), wanted);
}

static void check_error(const char *body, const char *wanted)
{
    check_error_of(500, body, wanted, *wanted != '\0' && strstr(body, "<html") == NULL);
}

static void test_error_texts(void **state)
{
    (void)state;
    check_error("HTTP InterLink session Request-1:  call exit status: 500. Body: sbatch: error: &lt;Invalid&gt; &#34;a&#34; &amp;amp;",
                "sbatch: error: <Invalid> \"a\" &amp;");
    check_error("HTTP InterLink session R:  call exit status: 500. Body: HTTP InterLink session R:  call exit status: 500. Body: x",
                "x");
    check_error("HTTP InterLink session R:  call exit status: 500. Body: ", "");
    check_error("  plain\n\ttext &lt; \r\n", "plain text &lt;");
    check_error_of(504, "HTTP InterLink session R:  call exit status: 500. Body: x", "x", true);
    check_error_of(504, "Gateway Timeout", "Gateway Timeout", false);
    check_error_of(502, "Bad Gateway", "Bad Gateway", false);
    check_error_of(503, "it is ending", "it is ending", true);
    check_error("<html><head><title>504 Gateway Time-out</title></head>\n<body>nginx</body></html>",
                "504 Gateway Time-out nginx");
    check_error("", "");
    check_error("a < b", "a < b");
    assert_int_equal(interlink_error_code(404), STATUS_NOT_FOUND);
    assert_int_equal(interlink_error_code(504), STATUS_UNAVAILABLE);
    assert_int_equal(interlink_error_code(302), STATUS_UNKNOWN);
    assert_int_equal(interlink_http_status(STATUS_FAILED_PRECONDITION), 422);
    assert_int_equal(interlink_http_status(STATUS_RESOURCE_EXHAUSTED), 429);
    assert_int_equal(interlink_http_status(STATUS_INTERNAL), 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_dialects),
        cmocka_unit_test(test_what_is_always_written),
        cmocka_unit_test(test_binary_files),
        cmocka_unit_test(test_copies_are_merged),
        cmocka_unit_test(test_errors_name_the_place),
        cmocka_unit_test(test_unknown_keys_are_passed_over),
        cmocka_unit_test(test_uids),
        cmocka_unit_test(test_status_of_a_plugin),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_pings),
        cmocka_unit_test(test_log_requests),
        cmocka_unit_test(test_error_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
