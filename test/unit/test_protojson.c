/* SPDX-License-Identifier: Apache-2.0 */
#include "text/protojson.h"

#include "cri.pb-c.h"

#include <setjmp.h>
#include <cmocka.h>

static ProtobufCMessage *parse(struct arena *a, const ProtobufCMessageDescriptor *d, const char *text, unsigned flags)
{
    struct status err = STATUS_INIT;
    const struct json *j = json_parse(a, str_of(text), &err);
    ProtobufCMessage *m = j != NULL ? protojson_read(a, d, j, flags, &err) : NULL;

    if (m == NULL)
        fail_msg("%s: %s", text, err.message);
    return m;
}

static void refused(const ProtobufCMessageDescriptor *d, const char *text, const char *message)
{
    cleanup_arena struct arena a = ARENA_INIT;
    struct status err = STATUS_INIT;
    const struct json *j = json_parse(&a, str_of(text), &err);

    assert_non_null(j);
    if (protojson_read(&a, d, j, 0, &err) != NULL)
        fail_msg("taken: %s", text);
    assert_string_equal(err.message, message);
}

static void test_read(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    (void)state;

    Runtime__V1__PodSandboxConfig *pod = (Runtime__V1__PodSandboxConfig *)(void *)parse(&a, &runtime__v1__pod_sandbox_config__descriptor,
        "{\"metadata\":{\"name\":\"n\",\"uid\":\"u\",\"attempt\":3},\"log_directory\":\"/tmp\",\"labels\":{\"a\":\"b\",\"c/d\":\"e\"},"
        "\"portMappings\":[{\"protocol\":\"UDP\",\"containerPort\":80},{\"protocol\":2}],\"dnsConfig\":null,"
        "\"linux\":{\"cgroupParent\":\"/x\",\"security_context\":{\"namespaceOptions\":{\"network\":\"NODE\"},\"runAsUser\":{\"value\":\"7\"},"
        "\"supplementalGroups\":[1,\"2\"],\"privileged\":true}}}", 0);
    assert_string_equal(pod->metadata->name, "n");
    assert_int_equal(pod->metadata->attempt, 3);
    assert_string_equal(pod->metadata->namespace_, "");
    assert_string_equal(pod->log_directory, "/tmp");
    assert_int_equal(pod->n_labels, 2);
    assert_string_equal(pod->labels[1]->key, "c/d");
    assert_string_equal(pod->labels[1]->value, "e");
    assert_int_equal(pod->n_port_mappings, 2);
    assert_int_equal(pod->port_mappings[0]->protocol, RUNTIME__V1__PROTOCOL__UDP);
    assert_int_equal(pod->port_mappings[1]->protocol, RUNTIME__V1__PROTOCOL__SCTP);
    assert_null(pod->dns_config);
    Runtime__V1__LinuxSandboxSecurityContext *security = pod->linux->security_context;
    assert_int_equal(security->namespace_options->network, RUNTIME__V1__NAMESPACE_MODE__NODE);
    assert_int_equal(security->run_as_user->value, 7);
    assert_int_equal(security->n_supplemental_groups, 2);
    assert_int_equal(security->supplemental_groups[1], 2);
    assert_true(security->privileged);
    /* What was read can be sent. */
    size_t n = protobuf_c_message_get_packed_size(&pod->base);
    uint8_t *packed = arena_alloc(&a, n);
    assert_int_equal(protobuf_c_message_pack(&pod->base, packed), n);
    ProtobufCMessage *back = protobuf_c_message_unpack(pod->base.descriptor, NULL, n, packed);
    assert_non_null(back);
    protobuf_c_message_free_unpacked(back, NULL);
}

static void test_bytes(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    cleanup_buf struct buf out = BUF_INIT;
    struct json_writer w;
    (void)state;

    const char *text = "{\"envs\":[{\"key\":\"k\",\"value\":\"dmFs\"}]}";
    Runtime__V1__ContainerConfig *c = (void *)parse(&a, &runtime__v1__container_config__descriptor, text, 0);
    assert_int_equal(c->envs[0]->value.len, 3);
    assert_memory_equal(c->envs[0]->value.data, "val", 3);
    json_writer_init(&w, &out, 0);
    protojson_write(&w, &c->base, 0);
    assert_string_equal(buf_cstr(&out), text);
    buf_clear(&out);
    json_writer_init(&w, &out, 0);
    protojson_write(&w, &c->base, PROTOJSON_TEXT_BYTES);
    assert_string_equal(buf_cstr(&out), "{\"envs\":[{\"key\":\"k\",\"value\":\"val\"}]}");
    c = (void *)parse(&a, &runtime__v1__container_config__descriptor, text, PROTOJSON_BYTES_AS_TEXT);
    assert_int_equal(c->envs[0]->value.len, 4);
    c = (void *)parse(&a, &runtime__v1__container_config__descriptor, "{\"nonsense\":1,\"command\":[\"a\",\"b\"]}", PROTOJSON_IGNORE_UNKNOWN);
    assert_int_equal(c->n_command, 2);
}

static void test_write(void **state)
{
    cleanup_buf struct buf out = BUF_INIT;
    struct json_writer w;
    Runtime__V1__ContainerStatus status = RUNTIME__V1__CONTAINER_STATUS__INIT;
    Runtime__V1__ContainerStatus__LabelsEntry one = RUNTIME__V1__CONTAINER_STATUS__LABELS_ENTRY__INIT, two = one;
    Runtime__V1__ContainerStatus__LabelsEntry *labels[] = { &one, &two };
    (void)state;

    one.key = (char *)(uintptr_t)"z";
    one.value = (char *)(uintptr_t)"1";
    two.key = (char *)(uintptr_t)"a";
    status.id = (char *)(uintptr_t)"x";
    status.created_at = INT64_C(1795498560123456789);
    status.state = RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED;
    status.exit_code = -1;
    status.n_labels = 2;
    status.labels = labels;
    json_writer_init(&w, &out, 0);
    protojson_write(&w, &status.base, 0);
    assert_string_equal(buf_cstr(&out), "{\"id\":\"x\",\"state\":\"CONTAINER_EXITED\",\"createdAt\":\"1795498560123456789\",\"exitCode\":-1,"
                                        "\"labels\":{\"a\":\"\",\"z\":\"1\"}}");
    buf_clear(&out);
    json_writer_init(&w, &out, 0);
    protojson_write(&w, &status.base, PROTOJSON_EMIT_DEFAULTS);
    const char *text = buf_cstr(&out);
    assert_non_null(strstr(text, "\"startedAt\":\"0\",\"finishedAt\":\"0\",\"exitCode\":-1,"));
    assert_non_null(strstr(text, "\"mounts\":[]"));
    assert_non_null(strstr(text, "\"annotations\":{}"));
    assert_null(strstr(text, "\"image\":"));
    assert_null(strstr(text, "null"));
}

static void test_refused(void **state)
{
    const ProtobufCMessageDescriptor *c = &runtime__v1__container_config__descriptor;
    (void)state;

    refused(c, "[]", "wanted an object, found an array");
    refused(c, "{\"comand\":[]}", "comand: no such field in ContainerConfig, did you mean command?");
    refused(c, "{\"qqqqqq\":1}", "qqqqqq: no such field in ContainerConfig");
    refused(c, "{\"command\":[\"a\",7]}", "command[1]: wanted a string, found a number");
    refused(c, "{\"envs\":[{\"value\":\"***\"}]}", "envs[0].value: wanted bytes as base64");
    refused(c, "{\"mounts\":[{\"propagation\":\"PROPAGATION_PRIVAT\"}]}",
            "mounts[0].propagation: PROPAGATION_PRIVAT is no MountPropagation, did you mean PROPAGATION_PRIVATE?");
    refused(c, "{\"metadata\":{\"attempt\":-1}}", "metadata.attempt: wanted a whole number from 0 to 4294967295, found -1");
    refused(c, "{\"metadata\":{\"attempt\":\"x\"}}", "metadata.attempt: wanted a number, found a string");
    refused(c, "{\"labels\":{\"a\":{}}}", "labels.a: wanted a string, found an object");
    refused(c, "{\"labels\":[]}", "labels: wanted an object, found an array");
    refused(c, "{\"image\":{\"image\":\"a\\u0000b\"}}", "image.image: the string holds a NUL character");
}

/* Every message of CRI: what is written with all defaults is read back to the same. */
static void test_every_message(void **state)
{
    static const ProtobufCMessageDescriptor *const all[] = {
        &runtime__v1__run_pod_sandbox_request__descriptor, &runtime__v1__create_container_request__descriptor,
        &runtime__v1__container_status_response__descriptor, &runtime__v1__pod_sandbox_status_response__descriptor,
        &runtime__v1__status_response__descriptor, &runtime__v1__image_status_response__descriptor,
        &runtime__v1__container_stats__descriptor, &runtime__v1__list_images_response__descriptor,
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(all); i++) {
        cleanup_arena struct arena a = ARENA_INIT;
        cleanup_buf struct buf out = BUF_INIT, again = BUF_INIT;
        struct json_writer w;
        ProtobufCMessage *m = arena_alloc(&a, all[i]->sizeof_message);
        protobuf_c_message_init(all[i], m);
        json_writer_init(&w, &out, 2);
        protojson_write(&w, m, PROTOJSON_EMIT_DEFAULTS);
        m = parse(&a, all[i], buf_cstr(&out), 0);
        json_writer_init(&w, &again, 2);
        protojson_write(&w, m, PROTOJSON_EMIT_DEFAULTS);
        assert_string_equal(buf_cstr(&out), buf_cstr(&again));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),    cmocka_unit_test(test_bytes),         cmocka_unit_test(test_write),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_every_message),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
