/* SPDX-License-Identifier: Apache-2.0 */
#include "image/config.h"
#include "image/manifest.h"

#include <setjmp.h>

#include <cmocka.h>

#define HEX64 "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"
#define DIGEST "\"sha256:" HEX64 "\""
#define OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define OCI_LAYER "application/vnd.oci.image.layer.v1.tar"
#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX "application/vnd.oci.image.index.v1+json"

static void test_config(void **state)
{
    struct image_config c;
    struct status err = STATUS_INIT;
    const char *text =
        "{\"architecture\":\"arm64\",\"os\":\"linux\",\"variant\":\"v8\",\"created\":\"2026-01-01T00:00:00Z\","
        "\"config\":{\"Env\":[\"PATH=/bin\",\"A=b=c\"],\"Entrypoint\":[\"/e\",\"x y\"],\"Cmd\":null,\"WorkingDir\":\"/w\","
        "\"User\":\"1003:users\",\"StopSignal\":\"SIGQUIT\",\"Labels\":{\"a\":\"1\",\"b\":\"\"},"
        "\"Volumes\":{\"/data\":{},\"/logs\":{}},\"ExposedPorts\":{\"80/tcp\":{}}},"
        "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[" DIGEST "]},\"history\":[{}]}";

    (void)state;
    assert_true(image_config_parse(str_of(text), &c, &err));
    assert_string_equal(c.architecture, "arm64");
    assert_string_equal(c.variant, "v8");
    assert_string_equal(c.created, "2026-01-01T00:00:00Z");
    assert_int_equal(c.env_count, 2);
    assert_string_equal(c.env[1], "A=b=c");
    assert_int_equal(c.entrypoint_count, 2);
    assert_string_equal(c.entrypoint[1], "x y");
    assert_int_equal(c.cmd_count, 0);
    assert_string_equal(c.working_dir, "/w");
    assert_string_equal(c.user, "1003:users");
    assert_string_equal(c.stop_signal, "SIGQUIT");
    assert_int_equal(c.label_count, 2);
    assert_string_equal(c.labels[0], "a");
    assert_string_equal(c.labels[1], "1");
    assert_int_equal(c.volume_count, 2);
    assert_string_equal(c.volumes[1], "/logs");
    assert_int_equal(c.diff_id_count, 1);
    image_config_free(&c);

    assert_true(image_config_parse(STR("{\"rootfs\":{\"diff_ids\":null},\"config\":null}"), &c, &err));
    assert_string_equal(c.user, "");
    assert_int_equal(c.env_count, 0);
    image_config_free(&c);
}

static void assert_config_refused(const char *text, const char *why)
{
    struct image_config c;
    struct status err = STATUS_INIT;

    if (image_config_parse(str_of(text), &c, &err))
        fail_msg("%s was taken", text);
    if (strstr(err.message, why) == NULL)
        fail_msg("'%s' does not say '%s'", err.message, why);
}

static void test_config_refused(void **state)
{
    (void)state;
    assert_config_refused("", "JSON");
    assert_config_refused("[]", "object");
    assert_config_refused("{}", "rootfs");
    assert_config_refused("{\"rootfs\":[]}", "rootfs");
    assert_config_refused("{\"rootfs\":{\"diff_ids\":[\"x\"]}}", "diff_ids[0]");
    assert_config_refused("{\"rootfs\":{},\"config\":{\"Env\":[1]}}", "config.Env[0]");
    assert_config_refused("{\"rootfs\":{},\"config\":{\"Cmd\":\"x\"}}", "config.Cmd");
    assert_config_refused("{\"rootfs\":{},\"config\":{\"User\":5}}", "config.User");
    assert_config_refused("{\"rootfs\":{},\"config\":{\"User\":\"a\\u0000b\"}}", "config.User");
}

static void test_user(void **state)
{
    struct image_user u;

    (void)state;
    image_user_parse("", &u);
    assert_false(u.has_uid);
    assert_string_equal(u.name, "");
    image_user_parse("1002", &u);
    assert_true(u.has_uid);
    assert_int_equal(u.uid, 1002);
    assert_string_equal(u.name, "");
    image_user_parse("1003:users", &u);
    assert_int_equal(u.uid, 1003);
    image_user_parse("www-data:www-data", &u);
    assert_false(u.has_uid);
    assert_string_equal(u.name, "www-data");
    image_user_parse("0", &u);
    assert_true(u.has_uid);
    assert_int_equal(u.uid, 0);
    image_user_parse(":5", &u);
    assert_false(u.has_uid);
    assert_string_equal(u.name, "");
}

#define IMAGE_MANIFEST                                                                                                 \
    "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST "\",\"config\":{\"mediaType\":\"" OCI_CONFIG                \
    "\",\"size\":10,\"digest\":" DIGEST "},\"layers\":[{\"mediaType\":\"" OCI_LAYER                                   \
    "+zstd\",\"size\":20,\"digest\":" DIGEST "}]}"

static void test_manifest(void **state)
{
    struct manifest m;
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(manifest_parse(STR(IMAGE_MANIFEST), "", &m, &err));
    assert_false(m.is_index);
    assert_int_equal(m.config.size, 10);
    assert_int_equal(m.layer_count, 1);
    assert_int_equal(m.layers[0].size, 20);
    manifest_free(&m);
}

static void assert_manifest_refused(const char *text, const char *type, enum status_code code, const char *why)
{
    struct manifest m;
    struct status err = STATUS_INIT;

    if (manifest_parse(str_of(text), type, &m, &err))
        fail_msg("%s was taken", text);
    assert_int_equal(err.code, code);
    if (strstr(err.message, why) == NULL)
        fail_msg("'%s' does not say '%s'", err.message, why);
}

static void test_manifest_refused(void **state)
{
    (void)state;
    assert_manifest_refused("{", "", STATUS_INVALID_ARGUMENT, "JSON");
    assert_manifest_refused("{}", "", STATUS_INVALID_ARGUMENT, "type");
    assert_manifest_refused("{\"schemaVersion\":1}", "", STATUS_FAILED_PRECONDITION, "schema 1");
    assert_manifest_refused("{\"fsLayers\":[]}", "", STATUS_FAILED_PRECONDITION, "schema 1");
    assert_manifest_refused("{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", STATUS_FAILED_PRECONDITION,
                            "schema 1");
    assert_manifest_refused("{\"layers\":[],\"manifests\":[]}", OCI_MANIFEST, STATUS_INVALID_ARGUMENT, "both");
    assert_manifest_refused("{\"manifests\":[]}", OCI_MANIFEST, STATUS_INVALID_ARGUMENT, "type");
    assert_manifest_refused("{\"mediaType\":\"application/x\"}", "", STATUS_FAILED_PRECONDITION, "application/x");
    assert_manifest_refused("{\"config\":{\"mediaType\":\"application/vnd.cncf.helm.config.v1+json\",\"size\":1,"
                            "\"digest\":" DIGEST "},\"layers\":[]}",
                            OCI_MANIFEST, STATUS_FAILED_PRECONDITION, "helm");
    assert_manifest_refused("{\"config\":{\"size\":1,\"digest\":" DIGEST "},\"layers\":[{\"mediaType\":\"" OCI_LAYER
                            "+gzip+encrypted\",\"size\":1,\"digest\":" DIGEST "}]}",
                            OCI_MANIFEST, STATUS_FAILED_PRECONDITION, "encrypted");
    assert_manifest_refused("{\"config\":{\"size\":1,\"digest\":" DIGEST "},\"layers\":[{\"mediaType\":\"text/plain\","
                            "\"size\":1,\"digest\":" DIGEST "}]}",
                            OCI_MANIFEST, STATUS_FAILED_PRECONDITION, "text/plain");
    assert_manifest_refused("{\"config\":{\"digest\":" DIGEST "},\"layers\":[]}", OCI_MANIFEST, STATUS_INVALID_ARGUMENT, "size");
    assert_manifest_refused("{\"config\":{\"size\":-1,\"digest\":" DIGEST "},\"layers\":[]}", OCI_MANIFEST,
                            STATUS_INVALID_ARGUMENT, "size");
    assert_manifest_refused("{\"config\":{\"size\":1,\"digest\":\"md5:00\"},\"layers\":[]}", OCI_MANIFEST,
                            STATUS_INVALID_ARGUMENT, "sha256");
    assert_manifest_refused("{\"config\":{\"size\":99999999,\"digest\":" DIGEST "},\"layers\":[]}", OCI_MANIFEST,
                            STATUS_RESOURCE_EXHAUSTED, "configuration");
}

static int choose(const char *entries, const char *platform, struct status *err)
{
    struct manifest m;
    struct platform want;
    struct buf text = BUF_INIT;
    int index = -1;

    buf_append_str(&text, "{\"schemaVersion\":2,\"manifests\":[");
    unsigned i = 0;
    for (const char *p = entries; *p != '\0'; i++) {
        size_t n = strcspn(p, " ");
        char one[64];
        struct platform have;
        snprintf(one, sizeof one, "%.*s", (int)n, p);
        buf_printf(&text, "%s{\"mediaType\":\"" OCI_MANIFEST "\",\"size\":%u,\"digest\":" DIGEST, i > 0 ? "," : "", i);
        if (platform_parse(one, &have, err))
            buf_printf(&text, ",\"platform\":{\"os\":\"%s\",\"architecture\":\"%s\",\"variant\":\"%s\"}", have.os,
                       have.architecture, have.variant);
        buf_append_byte(&text, '}');
        p += n + (p[n] == ' ');
    }
    buf_append_str(&text, "]}");
    assert_true(platform_parse(platform, &want, err));
    assert_true(manifest_parse((struct str){ buf_cstr(&text), text.n }, OCI_INDEX, &m, err));
    assert_true(m.is_index);
    const struct descriptor *d = manifest_choose(&m, &want, err);
    if (d != NULL)
        index = (int)d->size;
    manifest_free(&m);
    buf_free(&text);
    return index;
}

static void test_platforms(void **state)
{
    struct status err = STATUS_INIT;
    struct platform p;

    (void)state;
    assert_int_equal(choose("linux/arm64/v8 linux/amd64 windows/amd64", "linux/amd64", &err), 1);
    assert_int_equal(choose("linux/amd64/v3 linux/amd64", "linux/amd64", &err), 1);
    assert_int_equal(choose("linux/arm/v5 linux/arm/v7 linux/arm/v6", "linux/arm/v7", &err), 1);
    assert_int_equal(choose("linux/arm/v5 linux/arm/v6", "linux/arm/v7", &err), 1);
    assert_int_equal(choose("linux/arm/v7", "linux/arm/v6", &err), -1);
    assert_int_equal(choose("unknown/unknown linux/arm64", "linux/arm64/v8", &err), 1);
    assert_int_equal(choose("linux/amd64 linux/arm64/v8", "linux/arm64", &err), 1);
    assert_int_equal(choose("-", "linux/amd64", &err), 0);
    assert_int_equal(choose("- -", "linux/amd64", &err), -1);
    assert_int_equal(choose("linux/arm64 windows/amd64 unknown/unknown", "linux/amd64", &err), -1);
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "linux/arm64, windows/amd64"));
    assert_null(strstr(err.message, "unknown"));
    platform_host(&p);
    assert_string_equal(p.os, "linux");
    assert_true(p.architecture[0] != '\0');
    assert_false(platform_parse("linux", &p, &err));
    assert_false(platform_parse("linux/", &p, &err));
    assert_false(platform_parse("linux/a/b/c", &p, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),   cmocka_unit_test(test_config_refused),   cmocka_unit_test(test_user),
        cmocka_unit_test(test_manifest), cmocka_unit_test(test_manifest_refused), cmocka_unit_test(test_platforms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
