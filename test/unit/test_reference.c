/* SPDX-License-Identifier: Apache-2.0 */
#include "image/reference.h"

#include <setjmp.h>

#include <cmocka.h>

#define HEX64 "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"

static void assert_full(const char *text, const char *full)
{
    struct reference r;
    struct status err = STATUS_INIT;
    char out[REFERENCE_TEXT_SIZE];

    if (!reference_parse(text, &r, &err))
        fail_msg("'%s': %s", text, err.message);
    reference_text(&r, out);
    assert_string_equal(out, full);
    /* A full name stands for itself. */
    assert_true(reference_parse(out, &r, &err));
    char again[REFERENCE_TEXT_SIZE];
    reference_text(&r, again);
    assert_string_equal(again, out);
}

static void assert_refused(const char *text, const char *why)
{
    struct reference r;
    struct status err = STATUS_INIT;

    if (reference_parse(text, &r, &err))
        fail_msg("'%s' was taken", text);
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    if (strstr(err.message, why) == NULL)
        fail_msg("'%s': '%s' does not say '%s'", text, err.message, why);
}

static void test_names(void **state)
{
    (void)state;
    assert_full("busybox", "docker.io/library/busybox:latest");
    assert_full("busybox:1.36", "docker.io/library/busybox:1.36");
    assert_full("user/app", "docker.io/user/app:latest");
    assert_full("a/b/c:t", "docker.io/a/b/c:t");
    assert_full("docker.io/busybox", "docker.io/library/busybox:latest");
    assert_full("index.docker.io/busybox", "docker.io/library/busybox:latest");
    assert_full("docker.io/user/app:v1", "docker.io/user/app:v1");
    assert_full("localhost/app", "localhost/app:latest");
    assert_full("localhost:5000/app", "localhost:5000/app:latest");
    assert_full("localhost:5000", "docker.io/library/localhost:5000"); /* a tag, as Docker has it */
    assert_full("localhost", "docker.io/library/localhost:latest");
    assert_full("127.0.0.1:5000/a:b", "127.0.0.1:5000/a:b");
    assert_full("[::1]:5000/a/b:c", "[::1]:5000/a/b:c");
    assert_full("[fe80::1]/a", "[fe80::1]/a:latest");
    assert_full("registry.k8s.io/pause:3.10.1", "registry.k8s.io/pause:3.10.1");
    assert_full("Registry/app", "Registry/app:latest"); /* upper case can only be a host */
    assert_full("quay.io/a-b/c__d/e.f/g--h:_X", "quay.io/a-b/c__d/e.f/g--h:_X");
    assert_full("x.y/a:A.b-C_d", "x.y/a:A.b-C_d");
}

static void test_digests(void **state)
{
    struct reference r;
    struct status err = STATUS_INIT;
    char name[REFERENCE_TEXT_SIZE];

    (void)state;
    assert_full("busybox@sha256:" HEX64, "docker.io/library/busybox@sha256:" HEX64);
    assert_full("busybox:1.36@sha256:" HEX64, "docker.io/library/busybox@sha256:" HEX64);
    assert_full("localhost:5000/a@sha256:" HEX64, "localhost:5000/a@sha256:" HEX64);
    assert_true(reference_parse("k8s.gcr.io/pause:3@sha256:" HEX64, &r, &err));
    assert_string_equal(r.domain, "k8s.gcr.io");
    assert_string_equal(r.path, "pause");
    assert_string_equal(r.tag, "");
    assert_string_equal(r.digest, "sha256:" HEX64);
    reference_name(&r, name);
    assert_string_equal(name, "k8s.gcr.io/pause");
}

static void test_refused(void **state)
{
    char text[1024];

    (void)state;
    assert_refused("", "empty");
    assert_refused("busy box", "blank");
    assert_refused("busybox\n", "blank");
    assert_refused("b\xc3\xbcsybox", "ASCII");
    assert_refused("busybox:", "tag");
    assert_refused("busybox:-x", "tag");
    assert_refused("busybox:a/", "host name");
    assert_refused("docker.io/", "missing");
    assert_refused("quay.io/App", "lower case");
    assert_refused("library/App", "lower case");
    assert_refused("/busybox", "parts");
    assert_refused("a//b", "parts");
    assert_refused("a/_b", "parts");
    assert_refused("a/b_", "parts");
    assert_refused("a/b...c", "parts");
    assert_refused("a/b___c", "parts");
    assert_refused("a/b._c", "parts");
    assert_refused("../etc/passwd", "host name");
    assert_refused("a.b:99999999/x", "host name");
    assert_refused("a.b:/x", "host name");
    assert_refused("-a.b/x", "host name");
    assert_refused("[::1/x", "host name");
    assert_refused("[zz::]/x", "host name");
    assert_refused("https://quay.io/a", "host name");
    assert_refused(HEX64, "id");
    assert_refused("busybox@", "digest");
    assert_refused("busybox@sha256:abc", "64 hexadecimal");
    assert_refused("busybox@sha512:" HEX64 HEX64, "only sha256");
    assert_refused("busybox@sha256:ZZc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa", "digits");
    assert_refused("@sha256:" HEX64, "missing");
    memset(text, 'a', sizeof text);
    text[300] = '\0';
    assert_refused(text, "255");
    text[300] = 'a';
    text[1023] = '\0';
    assert_refused(text, "too long");
    memcpy(text, "x:", 2);
    text[2 + 129] = '\0';
    assert_refused(text, "tag");
}

static void test_digest(void **state)
{
    struct digest d = digest_of("abc", 3);
    struct digester part;
    char text[DIGEST_TEXT_SIZE], hex[DIGEST_HEX_SIZE];

    (void)state;
    digest_text(&d, text);
    assert_string_equal(text, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    digest_hex(&d, hex);
    assert_string_equal(hex, text + 7);
    digester_init(&part);
    digester_update(&part, "a", 1);
    digester_update(&part, "bc", 2);
    struct digest whole = digester_value(&part);
    assert_true(digest_equal(&whole, &d));
    assert_false(digest_is_zero(&d));
}

/* In pieces of any size, the same as BearSSL does it alone. */
static void test_digest_pieces(void **state)
{
    static uint8_t data[4096];
    uint32_t dice = 1;

    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(dice = dice * 1664525u + 1013904223u, dice >> 24);
    for (int round = 0; round < 3000; round++) {
        struct digester ours;
        br_sha256_context theirs;
        uint8_t want[32];
        size_t n = 0;
        digester_init(&ours);
        br_sha256_init(&theirs);
        while (n < sizeof data && dice % 16 != 0) {
            dice = dice * 1664525u + 1013904223u;
            size_t step = (dice >> 8) % (dice & 64 ? 700 : 70);
            if (step > sizeof data - n)
                step = sizeof data - n;
            digester_update(&ours, data + n, step);
            br_sha256_update(&theirs, data + n, step);
            n += step;
        }
        dice = dice * 1664525u + 1013904223u;
        br_sha256_out(&theirs, want);
        struct digest got = digester_value(&ours);
        assert_memory_equal(got.sha256, want, 32);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_digest_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
