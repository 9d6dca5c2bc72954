/* SPDX-License-Identifier: Apache-2.0 */
/* What gRPC's headers say, protobuf into structures, paths to methods. */
#include "cri.pb-c.h"
#include "health.pb-c.h"
#include "reflection.pb-c.h"
#include "rpc/decode.h"
#include "rpc/methods.h"
#include "rpc/wire.h"

#include <setjmp.h>

#include <cmocka.h>

/* ---- texts ---- */

static void timeouts(void **unused)
{
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = { { "1H", 3600000 },   { "2M", 120000 }, { "3S", 3000 },        { "4m", 4 },  { "5u", 1 },
                 { "1000u", 1 },      { "1001u", 2 },   { "1n", 1 },           { "0m", 0 },  { "0n", 0 },
                 { "99999999m", 99999999 }, { "99999999H", 99999999LL * 3600000 } };
    static const char *const bad[] = { "", "m", "1", "1x", "-1m", "+1m", " 1m", "1 m", "1.5S", "123456789m", "1mm" };
    static const struct {
        int64_t ms;
        const char *text;
    } formatted[] = { { -5, "0m" }, { 0, "0m" }, { 1, "1m" }, { 99999999, "99999999m" }, { 100000000, "100000S" },
                      { 100000001, "100001S" }, { 99999999LL * 3600000 + 1, "99999999H" }, { INT64_MAX / 2, "99999999H" } };
    int64_t ms;
    char text[RPC_TIMEOUT_MAX];

    (void)unused;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_true(rpc_timeout_parse(str_of(good[i].text), &ms));
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(rpc_timeout_parse(str_of(bad[i]), &ms));
    for (size_t i = 0; i < COUNT_OF(formatted); i++) {
        rpc_timeout_format(formatted[i].ms, text);
        assert_string_equal(text, formatted[i].text);
    }
}

static void messages(void **unused)
{
    struct buf b cleanup_buf = BUF_INIT;
    char out[64];
    char all[256];

    (void)unused;
    rpc_message_encode("a b%c\nd\xc3\xa9~\x7f", &b);
    assert_string_equal(buf_cstr(&b), "a b%25c%0Ad%C3%A9~%7F");
    rpc_message_decode(str_of(buf_cstr(&b)), out, sizeof out);
    assert_string_equal(out, "a b%c\nd\xc3\xa9~\x7f");
    /* Tolerant: what is no escape stays. A NUL is dropped. */
    rpc_message_decode(str_of("%zz%4%%00%41%"), out, sizeof out);
    assert_string_equal(out, "%zz%4%A%");
    rpc_message_decode(str_of("0123456789"), out, 5);
    assert_string_equal(out, "0123");
    for (int i = 1; i < 256; i++)
        all[i - 1] = (char)i;
    all[255] = '\0';
    buf_clear(&b);
    rpc_message_encode(all, &b);
    char back[256];
    rpc_message_decode((struct str){ buf_cstr(&b), b.n }, back, sizeof back);
    assert_string_equal(back, all);
}

static void content_types(void **unused)
{
    (void)unused;
    assert_true(rpc_content_type_ok(STR("application/grpc")));
    assert_true(rpc_content_type_ok(STR("application/grpc+proto")));
    assert_true(rpc_content_type_ok(STR("application/grpc;charset=utf-8")));
    assert_true(rpc_content_type_ok(STR("application/grpc+proto; x=y")));
    assert_false(rpc_content_type_ok(STR("application/grpc-web")));
    assert_false(rpc_content_type_ok(STR("application/grpc+json")));
    assert_false(rpc_content_type_ok(STR("application/grp")));
    assert_false(rpc_content_type_ok(STR("")));
}

static void codes(void **unused)
{
    (void)unused;
    assert_int_equal(rpc_status_parse(STR("0")), STATUS_OK);
    assert_int_equal(rpc_status_parse(STR("16")), STATUS_UNAUTHENTICATED);
    assert_int_equal(rpc_status_parse(STR("17")), STATUS_UNKNOWN);
    assert_int_equal(rpc_status_parse(STR("")), STATUS_UNKNOWN);
    assert_int_equal(rpc_status_parse(STR("-1")), STATUS_UNKNOWN);
    assert_int_equal(rpc_status_parse(STR("0x")), STATUS_UNKNOWN);
    assert_int_equal(rpc_status_of_http(404), STATUS_UNIMPLEMENTED);
    assert_int_equal(rpc_status_of_http(503), STATUS_UNAVAILABLE);
    assert_int_equal(rpc_status_of_http(418), STATUS_UNKNOWN);
    assert_int_equal(rpc_status_of_reset(7), STATUS_UNAVAILABLE);
    assert_int_equal(rpc_status_of_reset(8), STATUS_CANCELLED);
    assert_int_equal(rpc_status_of_reset(11), STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(rpc_status_of_reset(2), STATUS_INTERNAL);
}

/* ---- protobuf ---- */

static void assert_decodes_alike(const ProtobufCMessage *message)
{
    struct arena arena cleanup_arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    size_t n = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = xmalloc(n), *again = xmalloc(n);

    protobuf_c_message_pack(message, packed);
    for (int borrow = 0; borrow < 2; borrow++) {
        ProtobufCMessage *decoded = rpc_decode(message->descriptor, packed, n, borrow, &arena, &err);
        if (decoded == NULL)
            fail_msg("%s", err.message);
        assert_int_equal(protobuf_c_message_get_packed_size(decoded), n);
        protobuf_c_message_pack(decoded, again);
        assert_memory_equal(again, packed, n);
    }
    /* Cut anywhere, it is an error or a smaller message, never more. Every cut is in a buffer of its own size. */
    for (size_t cut = 0; cut < n && cut < 2000; cut++) {
        uint8_t *part = xmemdup(packed, cut);
        rpc_decode(message->descriptor, part, cut, false, &arena, &err);
        arena_reset(&arena);
        free(part);
    }
    free(packed);
    free(again);
}

static void decode_cri(void **unused)
{
    Runtime__V1__RunPodSandboxRequest request = RUNTIME__V1__RUN_POD_SANDBOX_REQUEST__INIT;
    Runtime__V1__PodSandboxConfig config = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
    Runtime__V1__PodSandboxMetadata metadata = RUNTIME__V1__POD_SANDBOX_METADATA__INIT;
    Runtime__V1__PodSandboxConfig__LabelsEntry labels[3] = { RUNTIME__V1__POD_SANDBOX_CONFIG__LABELS_ENTRY__INIT,
                                                             RUNTIME__V1__POD_SANDBOX_CONFIG__LABELS_ENTRY__INIT,
                                                             RUNTIME__V1__POD_SANDBOX_CONFIG__LABELS_ENTRY__INIT };
    Runtime__V1__PodSandboxConfig__LabelsEntry *label_list[3] = { &labels[0], &labels[1], &labels[2] };
    Runtime__V1__LinuxPodSandboxConfig linux_config = RUNTIME__V1__LINUX_POD_SANDBOX_CONFIG__INIT;
    Runtime__V1__LinuxSandboxSecurityContext security = RUNTIME__V1__LINUX_SANDBOX_SECURITY_CONTEXT__INIT;
    int64_t groups[] = { 0, 1, -1, 127, 128, INT64_MAX, INT64_MIN };
    Runtime__V1__Int64Value user = RUNTIME__V1__INT64_VALUE__INIT;
    char keys[3][3] = { "a", "bb", "" }, value[] = "v";

    (void)unused;
    assert_decodes_alike(&request.base);
    metadata.name = (char[]){ "n\xc3\xa4me \xf0\x9f\x98\x80" };
    metadata.uid = (char[]){ "" };
    metadata.attempt = UINT32_MAX;
    config.metadata = &metadata;
    for (int i = 0; i < 3; i++) {
        labels[i].key = keys[i];
        labels[i].value = value;
    }
    config.n_labels = 3;
    config.labels = label_list;
    user.value = -5;
    security.run_as_user = &user;
    security.n_supplemental_groups = COUNT_OF(groups);
    security.supplemental_groups = groups;
    security.readonly_rootfs = 1;
    linux_config.security_context = &security;
    config.linux = &linux_config;
    request.config = &config;
    request.runtime_handler = (char[]){ "handler" };
    assert_decodes_alike(&request.base);
}

static void decode_oneof(void **unused)
{
    Grpc__Reflection__V1__ServerReflectionRequest request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    Grpc__Reflection__V1__ExtensionRequest extension = GRPC__REFLECTION__V1__EXTENSION_REQUEST__INIT;
    struct arena arena cleanup_arena = ARENA_INIT;
    struct status err;

    (void)unused;
    request.message_request_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME;
    request.file_by_filename = (char[]){ "x.proto" };
    assert_decodes_alike(&request.base);
    request.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION;
    request.file_containing_extension = &extension;
    extension.containing_type = (char[]){ "T" };
    extension.extension_number = -1;
    assert_decodes_alike(&request.base);
    /* Several members: the last counts; a message after a text is not merged into the text. Field 5 twice: merged. */
    const char several[] = "\x1a\1a\x22\1b\x2a\3\x0a\1T\x2a\2\x10\7";
    Grpc__Reflection__V1__ServerReflectionRequest *decoded =
        (void *)rpc_decode(&grpc__reflection__v1__server_reflection_request__descriptor, several, sizeof several - 1,
                           false, &arena, &err);
    assert_non_null(decoded);
    assert_int_equal(decoded->message_request_case,
                     GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION);
    assert_string_equal(decoded->file_containing_extension->containing_type, "T");
    assert_int_equal(decoded->file_containing_extension->extension_number, 7);
}

static const void *decode_groups(struct arena *arena, const char *p, size_t n, struct status *err)
{
    return rpc_decode(&runtime__v1__linux_sandbox_security_context__descriptor, p, n, false, arena, err);
}

/* Arrays of numbers come packed, one by one, or mixed. supplemental_groups is field 5. */
static void decode_repeated(void **unused)
{
    struct arena arena cleanup_arena = ARENA_INIT;
    struct status err;
    const char mixed[] = "\x28\1\x2a\3\2\3\4\x28\5\x2a\0\x28\6\x2a\2\7\x08";

    (void)unused;
    const Runtime__V1__LinuxSandboxSecurityContext *m = decode_groups(&arena, mixed, sizeof mixed - 1, &err);
    assert_non_null(m);
    assert_int_equal(m->n_supplemental_groups, 8);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(m->supplemental_groups[i], i + 1);
    assert_null(decode_groups(&arena, "\x2a\2\1\x80", 4, &err));
    assert_null(decode_groups(&arena, "\x2a\1\x80", 3, &err));
    assert_null(decode_groups(&arena, "\x2a\xb\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\1", 13, &err));
    /* The largest number is ten bytes; one more bit is an error. */
    assert_non_null(decode_groups(&arena, "\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", 11, &err));
    assert_null(decode_groups(&arena, "\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\2", 11, &err));
}

struct bad_message {
    const char *p;
    size_t n;
    enum status_code code;
    const char *message;
};
#define BAD(literal, message) { literal, sizeof(literal) - 1, STATUS_INVALID_ARGUMENT, message }

static void decode_malformed(void **unused)
{
    /* Of runtime.v1.ImageSpec: image = 1 (text), annotations = 2 (map). */
    static const struct bad_message bad[] = {
        BAD("\x0a\5abcd", "field image of runtime.v1.ImageSpec: cut off"),
        BAD("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", "cut off"),
        BAD("\x0a", "cut off"),
        BAD("\x08\1", "wrong wire type"),
        BAD("\0\1", "malformed tag"),
        BAD("\x0a\1\0", "not UTF-8 or holds a NUL byte"),
        BAD("\x0a\1\xff", "not UTF-8"),
        BAD("\x0a\2\xc0\x80", "not UTF-8"),
        BAD("\x0a\3\xed\xa0\x80", "not UTF-8"),
        BAD("\x0a\4\xf4\x90\x80\x80", "not UTF-8"),
        BAD("\x0a\2\xe2\x82", "not UTF-8"),
        BAD("\x12\2\x0a\5", "field key of runtime.v1.ImageSpec.AnnotationsEntry: cut off"),
        BAD("\xfa\1\5ab", "malformed unknown field"),
        BAD("\xfb\1", "malformed unknown field"),
        BAD("\xf9\1\0\0\0", "malformed unknown field"),
        BAD("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", "malformed tag"),
    };
    struct arena arena cleanup_arena = ARENA_INIT;
    struct status err;

    (void)unused;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        uint8_t *exact = xmemdup(bad[i].p, bad[i].n);
        err = (struct status)STATUS_INIT;
        assert_null(rpc_decode(&runtime__v1__image_spec__descriptor, exact, bad[i].n, true, &arena, &err));
        free(exact);
        if (err.code != bad[i].code || strstr(err.message, bad[i].message) == NULL)
            fail_msg("case %zu: %s", i, err.message);
    }
    /* Unknown fields of every kind are passed over. */
    const char unknown[] = "\xf8\1\5\xf9\1" "12345678" "\xfa\1\2ab\xfd\1" "1234" "\x0a\2ok";
    const Runtime__V1__ImageSpec *spec =
        (void *)rpc_decode(&runtime__v1__image_spec__descriptor, unknown, sizeof unknown - 1, true, &arena, &err);
    assert_non_null(spec);
    assert_string_equal(spec->image, "ok");
}

/* A few megabytes that would be gigabytes decoded. */
static void decode_bomb(void **unused)
{
    struct arena arena cleanup_arena = ARENA_INIT;
    struct status err;
    size_t count = 2 << 20;
    uint8_t *bomb = xmalloc(count * 2);

    (void)unused;
    for (size_t i = 0; i < count; i++) {
        bomb[2 * i] = 0x0a; /* ListContainersResponse.containers: an empty Container each */
        bomb[2 * i + 1] = 0;
    }
    assert_null(rpc_decode(&runtime__v1__list_containers_response__descriptor, bomb, count * 2, true, &arena, &err));
    assert_int_equal(err.code, STATUS_RESOURCE_EXHAUSTED);
    free(bomb);
}

/* ---- methods ---- */

static void find_methods(void **unused)
{
    static struct rpc_method many[100];
    static char names[100][16];
    const struct rpc_method few[] = { { .name = "A" }, { .name = "Ab" } };
    const struct rpc_service one = { "p.One", many, COUNT_OF(many), NULL }, two = { "p.On", few, COUNT_OF(few), NULL };
    const struct rpc_service *const offered[] = { &one, &two };
    const struct rpc_services services = { offered, 2, NULL, NULL };
    const struct rpc_service *service;
    const struct rpc_method *method;
    struct status err;
    char path[64];

    (void)unused;
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        snprintf(names[i], sizeof names[i], "M%zu", i);
        many[i].name = names[i];
    }
    struct rpc_methods *methods = rpc_methods_new(&services);
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        snprintf(path, sizeof path, "/p.One/M%zu", i);
        assert_true(rpc_methods_find(methods, str_of(path), &service, &method, &err));
        assert_ptr_equal(service, &one);
        assert_ptr_equal(method, &many[i]);
    }
    assert_true(rpc_methods_find(methods, STR("/p.On/Ab"), &service, &method, &err));
    assert_ptr_equal(method, &few[1]);
    assert_false(rpc_methods_find(methods, STR("/p.On/M1"), &service, &method, &err));
    assert_string_equal(err.message, "unknown method M1 of service p.On");
    assert_false(rpc_methods_find(methods, STR("/p.O/A"), &service, &method, &err));
    assert_false(rpc_methods_find(methods, STR("/p.On/A/"), &service, &method, &err));
    assert_false(rpc_methods_find(methods, STR(""), &service, &method, &err));
    assert_false(rpc_methods_find(methods, STR("p.On/A"), &service, &method, &err));
    assert_false(rpc_methods_find(methods, STR("//"), &service, &method, &err));
    rpc_methods_free(methods);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timeouts),        cmocka_unit_test(messages),         cmocka_unit_test(content_types),
        cmocka_unit_test(codes),           cmocka_unit_test(decode_cri),       cmocka_unit_test(decode_oneof),
        cmocka_unit_test(decode_repeated), cmocka_unit_test(decode_malformed), cmocka_unit_test(decode_bomb),
        cmocka_unit_test(find_methods),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
