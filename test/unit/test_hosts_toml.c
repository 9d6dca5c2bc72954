/* SPDX-License-Identifier: Apache-2.0 */
#include "image/hosts.h"
#include "image/hosts_toml.h"
#include "io/file.h"

#include <setjmp.h>
#include <unistd.h>

#include <cmocka.h>

static void test_whole(void **state)
{
    struct hosts_toml t;
    struct status err = STATUS_INIT;
    const char *text =
        "# a comment\r\n"
        "server = \"https://registry-1.docker.io\" # another\n"
        "\n"
        "[host.\"https://mirror.example:5000/v2/proxy\"]\n"
        "  capabilities = [\"pull\", 'resolve',\n    # inside\n  \"push\", ]\n"
        "  ca = \"mirror.pem\"\n"
        "  client = [[\"c1.pem\", \"k1.pem\"], [\"both.pem\"], \"alone.pem\"]\n"
        "  skip_verify = false\n"
        "  override_path = true\n"
        "  dial_timeout = \"1m500ms\"\n"
        "  [host.\"https://mirror.example:5000/v2/proxy\".header]\n"
        "    x-one = \"a \\\"quoted\\\" \\u00e9\"\n"
        "    \"x-two\" = [\"b\", \"c\"]\n"
        "[host.'http://127.0.0.1:5000']\n"
        "header = { x = \"1\", y = [\"2\"] }\n"
        "ca = [\"/a.pem\", \"/b.pem\"]\n"
        "new_key = 1979-05-27T07:32:00Z\n"
        "numbers = [1, -2.5e3, 0xff]\n";

    (void)state;
    if (!hosts_toml_parse("hosts.toml", str_of(text), &t, &err))
        fail_msg("%s", err.message);
    assert_string_equal(t.server.url, "https://registry-1.docker.io");
    assert_int_equal(t.count, 2);
    const struct hosts_toml_host *h = &t.hosts[0];
    assert_string_equal(h->url, "https://mirror.example:5000/v2/proxy");
    assert_int_equal(h->line, 4);
    assert_true(h->has_capabilities && h->pull && h->resolve);
    assert_int_equal(h->ca_count, 1);
    assert_string_equal(h->ca[0], "mirror.pem");
    assert_int_equal(h->client_count, 3);
    assert_string_equal(h->client_cert[0], "c1.pem");
    assert_string_equal(h->client_key[0], "k1.pem");
    assert_string_equal(h->client_cert[1], "both.pem");
    assert_string_equal(h->client_key[2], "");
    assert_true(h->has_skip_verify && !h->skip_verify && h->override_path);
    assert_int_equal(h->dial_timeout_ms, 60500);
    assert_int_equal(h->header_count, 3);
    assert_string_equal(h->headers[0], "x-one");
    assert_string_equal(h->headers[1], "a \"quoted\" \xc3\xa9");
    assert_string_equal(h->headers[4], "x-two");
    assert_string_equal(h->headers[5], "c");
    h = &t.hosts[1];
    assert_false(h->has_capabilities);
    assert_int_equal(h->header_count, 2);
    assert_int_equal(h->ca_count, 2);
    assert_non_null(strstr(t.unknown, "hosts.toml:19: 'new_key'"));
    hosts_toml_free(&t);
    assert_true(hosts_toml_parse("f", STR(""), &t, &err));
    assert_int_equal(t.count, 0);
    hosts_toml_free(&t);
    assert_true(hosts_toml_parse("f", STR("\xef\xbb\xbfhost.\"a.b\".skip_verify = true"), &t, &err));
    assert_string_equal(t.hosts[0].url, "a.b");
    assert_true(t.hosts[0].skip_verify);
    hosts_toml_free(&t);
}

static void refused(const char *text, const char *why)
{
    struct hosts_toml t;
    struct status err = STATUS_INIT;

    if (hosts_toml_parse("/etc/x/hosts.toml", str_of(text), &t, &err))
        fail_msg("%s was taken", text);
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    if (strstr(err.message, why) == NULL)
        fail_msg("'%s' does not say '%s'", err.message, why);
}

static void test_refused(void **state)
{
    (void)state;
    refused("server", "/etc/x/hosts.toml:1: wanted '='");
    refused("\n\nserver = ", "hosts.toml:3: a value");
    refused("server = \"x", "no end");
    refused("server = \"x\ny\"", "no end");
    refused("server = \"\"\"x\"\"\"", "several lines");
    refused("server = \"\\q\"", "escape");
    refused("server = \"\\ud800\"", "escape");
    refused("server = \"\\u00g0\"", "escape");
    refused("server = \"x\" y", "behind");
    refused("server = 5", "must be a string");
    refused("server = true", "must be a string");
    refused("server = \"a\"\nserver = \"b\"", "hosts.toml:2: a key is there twice");
    refused("[host]\n[host]", "twice");
    refused("[[host]]", "arrays of tables");
    refused("[host", "']'");
    refused("[]", "key is missing");
    refused("[host.a]\ncapabilities = [\"fly\"]", "hosts.toml:2: 'capabilities' must be some of");
    refused("[host.a]\ncapabilities = [1]", "array of strings");
    refused("[host.a]\nskip_verify = \"yes\"", "true or false");
    refused("[host.a]\nheader = 1", "table of strings");
    refused("[host.a.header]\nx = 1", "'x' must be a string");
    refused("[host.a]\nclient = [[]]", "pairs");
    refused("[host.a]\nclient = [[\"a\",\"b\",\"c\"]]", "pairs");
    refused("[host.a]\nclient = true", "pairs");
    refused("[host.a]\ndial_timeout = \"10\"", "time");
    refused("[host.a]\ndial_timeout = \"10 s\"", "time");
    refused("[host.a]\ndial_timeout = 10", "time");
    refused("host = 1", "'host' must be a table");
    refused("host.a = 1", "'a' must be a table");
    refused("server.x = 1\nserver = \"a\"", "twice");
    refused("server = \"a\"\nserver.x = 1", "no table");
    refused("a = [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]", "deep");
    refused("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s = 1", "deep");
    refused("a = [1", "']'");
    refused("a = {b = 1", "'}'");
}

/* ---- which servers ---- */

static char top[64];

static int setup(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "/tmp/test-hosts-XXXXXX");
    assert_non_null(mkdtemp(top));
    return 0;
}

static int teardown(void **state)
{
    struct status err;

    (void)state;
    return tree_remove(top, &err) ? 0 : 1;
}

static void put(const char *name, const char *text)
{
    char *path = xasprintf("%s/%s", top, name);
    char *slash = strrchr(path, '/');
    struct status err;

    *slash = '\0';
    assert_true(dir_make(path, 0700, &err));
    *slash = '/';
    assert_true(file_replace(path, text, strlen(text), 0600, &err));
    free(path);
}

static void expect(const struct registry_options *o, const char *domain, const char *urls)
{
    struct host_list list;
    struct status err = STATUS_INIT;
    struct buf got = BUF_INIT;

    if (!hosts_for(o, domain, &list, &err)) {
        assert_non_null(strstr(err.message, urls));
        return;
    }
    for (size_t i = 0; i < list.count; i++) {
        const struct host *h = &list.hosts[i];
        buf_printf(&got, "%s%s%s%s%s%s%s", i > 0 ? " " : "", h->url, h->is_registry ? "" : "(m)", h->skip_verify ? "(skip)" : "",
                   h->after_silence ? "(2nd)" : "", h->capabilities & HOST_RESOLVE ? "" : "(digests)",
                   h->ca_paths[0] != NULL ? h->ca_paths[0] : "");
    }
    assert_string_equal(buf_cstr(&got), urls);
    buf_free(&got);
    hosts_free(&list);
}

static void test_hosts(void **state)
{
    const char *dirs[] = { "/nonexistent", top, NULL };
    const char *mirror[] = { "https://m.example/sub", "n.example:1", NULL };
    const char *star[] = { "http://10.0.0.1:5000/v2/", NULL };
    const char *bad[] = { "ftp://x", NULL };
    const struct registry_mirror mirrors[] = {
        { .registry = "quay.io", .endpoints = mirror, .skip_verify = true, .ca_path = "" },
        { .registry = "*", .endpoints = star },
        { .registry = "air.gap", .endpoints = star, .only = true, .ca_path = "/ca.pem" },
        { .registry = "bad.one", .endpoints = bad },
        { .registry = "none.left", .only = true },
    };
    struct registry_options plain = { 0 }, with_mirrors = { .mirrors = mirrors, .mirror_count = COUNT_OF(mirrors) };
    struct registry_options with_dirs = { .certs_dirs = dirs };

    (void)state;
    expect(&plain, "docker.io", "https://registry-1.docker.io/v2");
    expect(&plain, "registry.k8s.io", "https://registry.k8s.io/v2");
    expect(&plain, "localhost:5000", "http://localhost:5000/v2 https://localhost:5000/v2(2nd)");
    expect(&plain, "127.0.0.1:443", "https://127.0.0.1:443/v2");
    expect(&plain, "[::1]:5000", "http://[::1]:5000/v2 https://[::1]:5000/v2(2nd)");
    expect(&plain, "127.example.org", "https://127.example.org/v2");
    expect(&with_mirrors, "quay.io", "https://m.example/sub/v2(m)(skip) https://n.example:1/v2(m)(skip) https://quay.io/v2");
    expect(&with_mirrors, "gcr.io", "http://10.0.0.1:5000/v2(m) https://gcr.io/v2");
    expect(&with_mirrors, "air.gap", "http://10.0.0.1:5000/v2(m)/ca.pem");
    expect(&with_mirrors, "bad.one", "mirrors of bad.one");
    expect(&with_mirrors, "none.left", "names no mirror");

    put("docker.io/hosts.toml", "server = \"https://docker.io\"\n[host.\"https://m\"]\ncapabilities = [\"pull\"]\nca = \"ca.pem\"\n");
    put("reg.example:5000/hosts.toml", "[host.\"http://a:1/path\"]\noverride_path = true\n[host.\"http://b:2/v2\"]\n");
    put("reg.example_6000_/hosts.toml", "server = \"c\"\n");
    put("broken.example/hosts.toml", "server = \n");
    put("wrong.example/hosts.toml", "\n[host.\"gopher://x\"]\n");
    put("certs.example/ca.crt", "x");
    put("localhost:7000/hosts.toml", "[host.\"http://d\"]\n");
    char *expected = xasprintf("https://m/v2(m)(digests)%s/docker.io/ca.pem https://registry-1.docker.io/v2", top);
    expect(&with_dirs, "docker.io", expected);
    free(expected);
    expect(&with_dirs, "reg.example:5000", "http://a:1/path(m) http://b:2/v2(m) https://reg.example:5000/v2");
    expect(&with_dirs, "reg.example:6000", "https://c/v2(m)");
    expected = xasprintf("%s/broken.example/hosts.toml:1: a value", top);
    expect(&with_dirs, "broken.example", expected);
    free(expected);
    expected = xasprintf("%s/wrong.example/hosts.toml:2", top);
    expect(&with_dirs, "wrong.example", expected);
    free(expected);
    expected = xasprintf("https://certs.example/v2%s/certs.example/ca.crt", top);
    expect(&with_dirs, "certs.example", expected);
    free(expected);
    expect(&with_dirs, "localhost:7000", "http://d/v2(m) http://localhost:7000/v2 https://localhost:7000/v2(2nd)");
    expect(&with_dirs, "other.example", "https://other.example/v2");
    put("_default/hosts.toml", "server = \"https://all.example\"\nskip_verify = true\n");
    expect(&with_dirs, "other.example", "https://all.example/v2(m)(skip)");
}

static void test_loopback(void **state)
{
    (void)state;
    assert_true(hosts_is_loopback("localhost"));
    assert_true(hosts_is_loopback("localhost:1"));
    assert_true(hosts_is_loopback("127.1.2.3"));
    assert_true(hosts_is_loopback("[::1]:5"));
    assert_false(hosts_is_loopback("localhost.example"));
    assert_false(hosts_is_loopback("10.127.0.1"));
    assert_false(hosts_is_loopback("127.example.org:80"));
    assert_false(hosts_is_loopback("[::1x]"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_refused),
        cmocka_unit_test_setup_teardown(test_hosts, setup, teardown),
        cmocka_unit_test(test_loopback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
