/* SPDX-License-Identifier: Apache-2.0 */
/* CNI: configurations, requests, results, errors, and chains of plugins, which are shell scripts here. Needs no privilege. */
#include "node/cni_exec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/file.h"

static char folder[] = "/tmp/cni-XXXXXX";

static void put(const char *name, const char *text, mode_t mode)
{
    cleanup_free char *path = xasprintf("%s/%s", folder, name);
    cleanup_free char *dir = xstrndup(path, (size_t)(strrchr(path, '/') - path));
    struct status err = STATUS_INIT;

    assert_true(dir_make(dir, 0700, &err));
    assert_true(file_replace(path, text, strlen(text), mode, &err));
}

static const char *get(struct arena *arena, const char *name)
{
    cleanup_free char *path = xasprintf("%s/%s", folder, name);
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;

    return file_read(path, 1 << 20, &text, &err) ? arena_strdup(arena, buf_cstr(&text)) : "";
}

static int set_up(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    if (strstr(folder, "XXXXXX") != NULL)
        assert_non_null(mkdtemp(folder));
    assert_true(tree_remove(folder, &err) && dir_make(folder, 0700, &err));
    return 0;
}

static int tear_down(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    return tree_remove(folder, &err) ? 0 : 1;
}

/* ---- configurations ---- */

static void test_configurations(void **state)
{
    static const struct {
        const char *text;
        enum status_code code; /* OK: it is taken */
        const char *word;      /* of the version or the message */
    } cases[] = {
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"t\"}]}", STATUS_OK, "1.0.0" },
        { "{\"cniVersion\":\"0.3.1\",\"name\":\"a.b_c-1\",\"type\":\"t\"}", STATUS_OK, "0.3.1" },
        { "{\"cniVersion\":\"0.4.0\",\"cniVersions\":[\"1.1.0\",\"2.0.0\",\"0.3.0\"],\"name\":\"n\",\"plugins\":[{\"type\":\"t\"}]}",
          STATUS_OK, "1.1.0" },
        { "{\"cniVersions\":[\"1.0.0\"],\"name\":\"n\",\"disableCheck\":\"TRUE\",\"plugins\":[{\"type\":\"t\",\"ipam\":{\"type\":\"x\"}}]}",
          STATUS_OK, "1.0.0" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"t\",\"ipam\":17}]}", STATUS_OK, "1.0.0" },
        { "", STATUS_INVALID_ARGUMENT, "" },
        { "[]", STATUS_INVALID_ARGUMENT, "object" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\"}", STATUS_INVALID_ARGUMENT, "plugins" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[]}", STATUS_INVALID_ARGUMENT, "plugins" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":{}}", STATUS_INVALID_ARGUMENT, "plugins" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[1]}", STATUS_INVALID_ARGUMENT, "plugins[0]" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{}]}", STATUS_INVALID_ARGUMENT, "type" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"../t\"}]}", STATUS_INVALID_ARGUMENT, "../t" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"..\"}]}", STATUS_INVALID_ARGUMENT, "type" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"a\\u0000b\"}]}", STATUS_INVALID_ARGUMENT, "NUL" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"t\",\"ipam\":{\"type\":\"/bin/sh\"}}]}",
          STATUS_INVALID_ARGUMENT, "/bin/sh" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"t\",\"capabilities\":{\"dns\":1}}]}", STATUS_INVALID_ARGUMENT,
          "dns" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"t\",\"capabilities\":[]}]}", STATUS_INVALID_ARGUMENT,
          "capabilities" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n/m\",\"plugins\":[{\"type\":\"t\"}]}", STATUS_INVALID_ARGUMENT, "n/m" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"..\",\"plugins\":[{\"type\":\"t\"}]}", STATUS_INVALID_ARGUMENT, "name" },
        { "{\"cniVersion\":\"1.0.0\",\"plugins\":[{\"type\":\"t\"}]}", STATUS_INVALID_ARGUMENT, "name" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":7,\"plugins\":[{\"type\":\"t\"}]}", STATUS_INVALID_ARGUMENT, "name" },
        { "{\"name\":\"n\",\"plugins\":[{\"type\":\"t\"}]}", STATUS_FAILED_PRECONDITION, "missing" },
        { "{\"cniVersion\":\"0.2.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"t\"}]}", STATUS_FAILED_PRECONDITION, "0.2.0" },
        { "{\"cniVersion\":1.0,\"name\":\"n\",\"plugins\":[{\"type\":\"t\"}]}", STATUS_INVALID_ARGUMENT, "cniVersion" },
        { "{\"cniVersions\":[2],\"name\":\"n\",\"plugins\":[{\"type\":\"t\"}]}", STATUS_INVALID_ARGUMENT, "cniVersions[0]" },
        { "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"disableCheck\":\"yes\",\"plugins\":[{\"type\":\"t\"}]}", STATUS_INVALID_ARGUMENT,
          "disableCheck" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cleanup_arena struct arena arena = ARENA_INIT;
        struct status err = STATUS_INIT;
        struct cni_network n;
        bool ok = cni_network_parse(&arena, str_of(cases[i].text), &n, &err);
        if (ok != (cases[i].code == STATUS_OK) || (!ok && (err.code != cases[i].code || strstr(err.message, cases[i].word) == NULL)))
            fail_msg("%s: %s", cases[i].text, ok ? "taken" : err.message);
        if (ok)
            assert_string_equal(n.version, cases[i].word);
    }
}

/* What is written reads back as the same. */
static void test_configuration_round_trip(void **state)
{
    static const char text[] = "{\"cniVersion\":\"0.4.0\",\"cniVersions\":[\"1.0.0\"],\"name\":\"n\",\"disableCheck\":true,"
                               "\"plugins\":[{\"type\":\"a\",\"x\":{\"y\":[1.50,null,\"\\u0001\"]}},{\"type\":\"b\",\"capabilities\":{\"dns\":true}}]}";
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf once = BUF_INIT, twice = BUF_INIT;
    struct status err = STATUS_INIT;
    struct cni_network n;

    (void)state;
    assert_true(cni_network_parse(&arena, str_of(text), &n, &err));
    cni_network_write(&n, &once);
    assert_true(cni_network_parse(&arena, (struct str){ (char *)once.p, once.n }, &n, &err));
    cni_network_write(&n, &twice);
    assert_true(once.n == twice.n && memcmp(once.p, twice.p, once.n) == 0);
    assert_true(n.disable_check && !n.disable_gc && n.plugin_count == 2);
    assert_true(cni_network_can(&n, "dns") && !cni_network_can(&n, "bandwidth") && !cni_plugin_can(&n.plugins[0], "dns"));
    assert_true(cni_network_since(&n, "0.4.0") && cni_network_since(&n, "1.0.0") && !cni_network_since(&n, "1.1.0"));
}

static void test_deep_nesting(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;
    struct cni_network n;
    struct cni_result r;

    (void)state;
    buf_append_str(&text, "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"ips\":[],\"plugins\":[{\"type\":\"t\",\"x\":");
    for (int i = 0; i < CNI_DEPTH_MAX; i++)
        buf_append_byte(&text, '[');
    for (int i = 0; i < CNI_DEPTH_MAX; i++)
        buf_append_byte(&text, ']');
    buf_append_str(&text, "}]}");
    assert_false(cni_network_parse(&arena, (struct str){ (char *)text.p, text.n }, &n, &err));
    assert_non_null(strstr(err.message, "deep"));
    assert_false(cni_result_parse(&arena, (struct str){ (char *)text.p, text.n }, "eth0", &r, &err));
    assert_non_null(strstr(err.message, "deep"));
}

static bool find(struct arena *arena, struct cni_network *n, bool *found, struct status *err)
{
    cleanup_free char *dir = xasprintf("%s/net.d", folder);

    return cni_network_find(arena, dir, n, found, err);
}

static void test_finding(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    struct cni_network n;
    bool found = true;

    (void)state;
    assert_true(find(&arena, &n, &found, &err) && !found); /* no folder */
    put("net.d/README", "not one", 0600);
    put("net.d/00-folder.conflist/x", "", 0600);
    assert_true(find(&arena, &n, &found, &err) && !found);
    put("net.d/20-b.conf", "{\"cniVersion\":\"0.3.1\",\"name\":\"b\",\"type\":\"t\"}", 0600);
    assert_true(find(&arena, &n, &found, &err) && found);
    assert_string_equal(n.name, "b");
    put("net.d/10-a.json", "{\"cniVersion\":\"1.0.0\",\"name\":\"a\",\"plugins\":[{\"type\":\"t\"}]}", 0600);
    assert_true(find(&arena, &n, &found, &err) && found);
    assert_string_equal(n.name, "a");
    assert_true(str_ends(n.file, "/net.d/10-a.json"));
    /* A folder adds to the chain, unless the file says no. */
    put("net.d/a/20-late.conf", "{\"type\":\"late\"}", 0600);
    put("net.d/a/10-early.conf", "{\"type\":\"early\"}", 0600);
    put("net.d/a/05-other.json", "?", 0600);
    assert_true(find(&arena, &n, &found, &err) && n.plugin_count == 3);
    assert_string_equal(n.plugins[1].type, "early");
    assert_string_equal(n.plugins[2].type, "late");
    put("net.d/a/10-early.conf", "{\"type\":\"/bin/sh\"}", 0600);
    assert_false(find(&arena, &n, &found, &err));
    assert_non_null(strstr(err.message, "a/10-early.conf"));
    put("net.d/10-a.json", "{\"cniVersion\":\"1.0.0\",\"name\":\"a\",\"loadOnlyInlinedPlugins\":true,\"plugins\":[{\"type\":\"t\"}]}", 0600);
    assert_true(find(&arena, &n, &found, &err) && n.plugin_count == 1);
    /* The first file counts, also when it is of no use. */
    put("net.d/05-bad.conflist", "{", 0600);
    assert_false(find(&arena, &n, &found, &err));
    assert_true(found && strstr(err.message, "05-bad.conflist") != NULL);
}

static void test_huge_configuration(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;
    struct cni_network n;
    bool found;

    (void)state;
    buf_append_str(&text, "{\"cniVersion\":\"1.0.0\",\"name\":\"a\",\"plugins\":[{\"type\":\"t\"}],\"x\":\"");
    memset(buf_reserve(&text, CNI_CONFIG_MAX), 'x', CNI_CONFIG_MAX);
    text.n += CNI_CONFIG_MAX;
    buf_append_str(&text, "\"}");
    put("net.d/10-a.conflist", buf_cstr(&text), 0600);
    assert_false(find(&arena, &n, &found, &err));
    assert_int_equal(err.code, STATUS_RESOURCE_EXHAUSTED);
    buf_clear(&text);
    buf_append_str(&text, "{\"cniVersion\":\"1.0.0\",\"name\":\"a\",\"plugins\":[");
    for (int i = 0; i <= CNI_PLUGINS_MAX; i++)
        buf_printf(&text, "%s{\"type\":\"t\"}", i > 0 ? "," : "");
    buf_append_str(&text, "]}");
    put("net.d/10-a.conflist", buf_cstr(&text), 0600);
    assert_false(find(&arena, &n, &found, &err));
    assert_non_null(strstr(err.message, "more than"));
}

/* ---- results and errors ---- */

static void test_results(void **state)
{
    static const struct {
        const char *text, *addresses; /* NULL: refused */
    } cases[] = {
        { "{\"ips\":[{\"address\":\"10.0.0.2/16\"}]}", "10.0.0.2" },
        { "{\"ips\":[{\"version\":\"4\",\"address\":\"10.0.0.2/16\",\"interface\":-1}]}", "10.0.0.2" },
        { "{\"interfaces\":[{\"name\":\"br\"},{\"name\":\"eth0\",\"sandbox\":\"/x\"}],\"ips\":[{\"address\":\"FD00::0:5/64\",\"interface\":1},"
          "{\"address\":\"10.9.9.9/16\",\"interface\":0},{\"address\":\"10.0.0.2/16\",\"interface\":1},{\"address\":\"10.0.0.3/16\"}]}",
          "10.0.0.2 fd00::5 10.0.0.3" },
        { "{\"ips\":[{\"address\":\"fd00::1/64\"},{\"address\":\"fd00::2/64\"}]}", "fd00::1 fd00::2" },
        { "{}", "" },
        { "{\"ips\":null,\"interfaces\":null}", "" },
        { "", NULL },
        { "null", NULL },
        { "[]", NULL },
        { "{\"ips\":{}}", NULL },
        { "{\"ips\":[1]}", NULL },
        { "{\"ips\":[{}]}", NULL },
        { "{\"ips\":[{\"address\":\"10.0.0.2\"}]}", NULL },
        { "{\"ips\":[{\"address\":\"10.0.0.2/33\"}]}", NULL },
        { "{\"ips\":[{\"address\":\"10.0.0.2/\"}]}", NULL },
        { "{\"ips\":[{\"address\":\"10.0.0/16\"}]}", NULL },
        { "{\"ips\":[{\"address\":\"fd00::1/129\"}]}", NULL },
        { "{\"ips\":[{\"address\":\"10.0.0.2/16\",\"interface\":0}]}", NULL },
        { "{\"ips\":[{\"address\":\"10.0.0.2/16\",\"interface\":\"eth0\"}]}", NULL },
        { "{\"interfaces\":[1],\"ips\":[{\"address\":\"10.0.0.2/16\",\"interface\":0}]}", "" },
        { "{\"interfaces\":\"eth0\"}", NULL },
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cleanup_arena struct arena arena = ARENA_INIT;
        cleanup_buf struct buf addresses = BUF_INIT;
        struct status err = STATUS_INIT;
        struct cni_result r;
        bool ok = cni_result_parse(&arena, str_of(cases[i].text), "eth0", &r, &err);
        for (size_t k = 0; ok && k < r.address_count; k++)
            buf_printf(&addresses, "%s%s", k > 0 ? " " : "", r.addresses[k]);
        if (ok != (cases[i].addresses != NULL) || (ok && strcmp(buf_cstr(&addresses), cases[i].addresses) != 0))
            fail_msg("%s: %s", cases[i].text, ok ? buf_cstr(&addresses) : err.message);
    }
}

static void check_failure(int wait_status, const char *output, const char *errors, enum status_code code, const char *message)
{
    struct status err = STATUS_INIT;

    assert_false(cni_failure("bridge", CNI_ADD, wait_status, str_of(output), str_of(errors), &err));
    assert_int_equal(err.code, code);
    assert_string_equal(err.message, message);
}

static void test_errors(void **state)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;

    (void)state;
    check_failure(1 << 8, "{\"code\":7,\"msg\":\"bad\",\"details\":\"very\\nbad\"}", "noise", STATUS_INTERNAL,
                  "CNI plugin bridge failed (ADD): bad; very bad");
    check_failure(1 << 8, "{\"code\":1,\"msg\":\"old\"}", "", STATUS_FAILED_PRECONDITION, "CNI plugin bridge failed (ADD): old");
    check_failure(1 << 8, "{\"code\":11,\"details\":\"later\"}", "", STATUS_UNAVAILABLE, "CNI plugin bridge failed (ADD): later");
    check_failure(1 << 8, "{\"code\":\"x\",\"msg\":\"\"}", "said \xff\x01 so\n\n", STATUS_INTERNAL,
                  "CNI plugin bridge (ADD) ended with status 1: said ?  so");
    check_failure(2 << 8, "words", "", STATUS_INTERNAL, "CNI plugin bridge (ADD) ended with status 2: words");
    check_failure(2 << 8, "", "", STATUS_INTERNAL, "CNI plugin bridge (ADD) ended with status 2 and no word");
    check_failure(SIGKILL, "", "", STATUS_INTERNAL, "CNI plugin bridge (ADD) was ended by signal 9 (Killed)");
    /* Of a long one the end, from the beginning of a character on. */
    for (int i = 0; i < 5000; i++)
        buf_append_str(&text, "ä");
    buf_append_str(&text, "end");
    cni_failure("bridge", CNI_DEL, 256, str_of(""), (struct str){ (char *)text.p, text.n }, &err);
    assert_true(strlen(err.message) < STATUS_MESSAGE_MAX - 1 && str_ends(err.message, "end"));
    assert_non_null(strstr(err.message, "...ä"));
}

/* ---- chains ---- */

static const char *folders[2];

static struct cni_network chain(struct arena *arena, const char *version)
{
    cleanup_free char *text = xasprintf("{\"cniVersion\":\"%s\",\"name\":\"net\",\"plugins\":[{\"type\":\"one\",\"capabilities\":{\"a\":true,"
                                        "\"b\":false},\"runtimeConfig\":1},{\"type\":\"two\"}]}", version);
    struct status err = STATUS_INIT;
    struct cni_network n;

    assert_true(cni_network_parse(arena, str_of(text), &n, &err));
    folders[0] = arena_printf(arena, "%s/bin", folder);
    return n;
}

/* A plugin that notes what it is called with, then does as the script says. */
static void plugin(const char *name, const char *script)
{
    cleanup_free char *file = xasprintf("bin/%s", name);
    cleanup_free char *text = xasprintf("#!/bin/sh\necho \"$CNI_COMMAND %s $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS\" >> %s/calls\n%s\n",
                                        name, folder, script);
    put(file, text, 0700);
}

static const struct cni_attachment pod = { .container_id = "id", .netns = "/ns", .interface = "eth0", .arguments = "A=b" };

static void test_chain(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf result = BUF_INIT;
    struct status err = STATUS_INIT;
    struct cni_network n = chain(&arena, "1.0.0");
    struct cni_exec exec = { .folders = folders, .timeout_ms = 20000 };
    struct cni_attachment a = pod;

    (void)state;
    plugin("one", "cat > $0.$CNI_COMMAND; echo '{\"from\":\"one\",\"ips\":[]}'");
    plugin("two", "cat > $0.$CNI_COMMAND; echo '{\"from\":\"two\",\"ips\":[{\"address\":\"10.0.0.2/16\"}]}'");
    a.capabilities = json_parse(&arena, str_of("{\"a\":[1],\"b\":2,\"c\":3}"), &err);
    assert_true(cni_add(&exec, &n, &a, &result, &err));
    assert_string_equal(buf_cstr(&result), "{\"from\":\"two\",\"ips\":[{\"address\":\"10.0.0.2/16\"}]}\n");
    assert_string_equal(get(&arena, "bin/one.ADD"), "{\"cniVersion\":\"1.0.0\",\"name\":\"net\",\"type\":\"one\",\"capabilities\":{\"a\":true,"
                                                    "\"b\":false},\"runtimeConfig\":{\"a\":[1]}}");
    assert_string_equal(get(&arena, "bin/two.ADD"), "{\"cniVersion\":\"1.0.0\",\"name\":\"net\",\"type\":\"two\",\"prevResult\":{\"from\":\"one\","
                                                    "\"ips\":[]}}");
    a.result = json_parse(&arena, (struct str){ (char *)result.p, result.n }, &err);
    assert_true(cni_check(&exec, &n, &a, &err));
    a.netns = "";
    assert_true(cni_del(&exec, &n, &a, &err));
    assert_non_null(strstr(get(&arena, "bin/one.DEL"), "\"prevResult\":{\"from\":\"two\""));
    assert_true(cni_status(&exec, &n, &err)); /* not asked before 1.1.0 */
    assert_string_equal(get(&arena, "calls"), "ADD one id /ns eth0 A=b\nADD two id /ns eth0 A=b\nCHECK one id /ns eth0 A=b\n"
                                              "CHECK two id /ns eth0 A=b\nDEL two id  eth0 A=b\nDEL one id  eth0 A=b\n");
}

static void test_old_versions_are_asked_less(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    struct cni_network n = chain(&arena, "0.3.1"), disabled = chain(&arena, "1.1.0");
    struct cni_exec exec = { .folders = folders, .timeout_ms = 20000 };
    struct cni_attachment a = pod;

    (void)state;
    plugin("one", "cat > $0.$CNI_COMMAND");
    plugin("two", "cat > $0.$CNI_COMMAND");
    a.result = json_parse(&arena, str_of("{}"), &err);
    assert_true(cni_check(&exec, &n, &a, &err));
    assert_true(cni_del(&exec, &n, &a, &err));
    assert_null(strstr(get(&arena, "bin/one.DEL"), "prevResult"));
    disabled.disable_check = true;
    assert_true(cni_check(&exec, &disabled, &a, &err));
    assert_true(cni_status(&exec, &disabled, &err));
    assert_string_equal(get(&arena, "calls"), "DEL two id /ns eth0 A=b\nDEL one id /ns eth0 A=b\nSTATUS one    \nSTATUS two    \n");
}

static void check_add(const char *script, enum status_code code, const char *words)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf result = BUF_INIT;
    struct status err = STATUS_INIT;
    struct cni_network n = chain(&arena, "1.0.0");
    struct cni_exec exec = { .folders = folders, .timeout_ms = 20000 };

    plugin("one", "echo '{}'");
    plugin("two", script);
    assert_false(cni_add(&exec, &n, &pod, &result, &err));
    if (err.code != code || strstr(err.message, words) == NULL)
        fail_msg("%s: %s: %s", script, status_code_name(err.code), err.message);
}

static void test_add_failures(void **state)
{
    (void)state;
    check_add("echo '{\"msg\":\"no\"}'; exit 1", STATUS_INTERNAL, "CNI plugin two failed (ADD): no");
    check_add("echo nonsense", STATUS_INVALID_ARGUMENT, "CNI plugin two printed no result");
    check_add("exec 0<&- 1>&-; exit 0", STATUS_INVALID_ARGUMENT, "CNI plugin two printed no result");
    check_add("yes | head -c 2000000", STATUS_RESOURCE_EXHAUSTED, "printed more than");
    check_add("yes | head -c 2000000 >&2; echo last >&2; exit 4", STATUS_INTERNAL, "status 4");
    check_add("echo '{}'", STATUS_FAILED_PRECONDITION, "no address");
    check_add("kill -9 $$", STATUS_INTERNAL, "signal 9");
}

static void test_a_missing_program(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf result = BUF_INIT;
    struct status err = STATUS_INIT;
    struct cni_network n = chain(&arena, "1.0.0");
    struct cni_exec exec = { .folders = folders, .timeout_ms = 20000 };

    (void)state;
    plugin("one", "echo '{}'");
    assert_false(cni_network_check_programs(&n, folders, &err));
    assert_true(err.code == STATUS_NOT_FOUND && strstr(err.message, "two is in none of") != NULL);
    assert_false(cni_add(&exec, &n, &pod, &result, &err));
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    put("bin/two", "not a program", 0700);
    assert_true(cni_network_check_programs(&n, folders, &err));
    assert_false(cni_add(&exec, &n, &pod, &result, &err));
    assert_non_null(strstr(err.message, "cannot execute"));
    put("bin/two", "", 0600); /* may not be run */
    assert_false(cni_network_check_programs(&n, folders, &err));
}

/* With all that it started, in sessions of their own, too; and what holds its outputs open does not hold us up. */
static void test_time_out(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf result = BUF_INIT;
    struct status err = STATUS_INIT;
    struct cni_network n = chain(&arena, "1.0.0");
    struct cni_exec exec = { .folders = folders, .timeout_ms = 700 };
    cleanup_free char *late = xasprintf("%s/late", folder);

    (void)state;
    plugin("one", "echo '{}'; sleep 1000 &");
    plugin("two", "setsid sh -c 'sleep 2; touch $0' $0.late & sleep 1000");
    int64_t begin = clock_mono_ms();
    assert_false(cni_add(&exec, &n, &pod, &result, &err));
    assert_int_equal(err.code, STATUS_DEADLINE_EXCEEDED);
    assert_non_null(strstr(err.message, "CNI plugin two did not end in time"));
    assert_true(clock_mono_ms() - begin < 20000);
    sleep(2);
    assert_string_equal(get(&arena, "bin/two.late"), "");
    assert_int_equal(access(late, F_OK), -1);
}

static void test_strays(void **state)
{
    int wait_status;

    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        char *env[] = { (char *)(uintptr_t)"CNI_CONTAINERID=stray-of-test-cni", NULL };
        char *argv[] = { (char *)(uintptr_t)"sleep", (char *)(uintptr_t)"1000", NULL };
        execvpe("sleep", argv, env);
        _exit(1);
    }
    /* It shows our environment until its exec; then it is found. */
    for (int i = 0; i < 500 && waitpid(pid, &wait_status, WNOHANG) == 0; i++) {
        cni_end_strays("other", 0);
        cni_end_strays("stray-of-test-cni", 0);
        usleep(10000);
    }
    assert_true(WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL);
}

static void test_lock(void **state)
{
    struct status err = STATUS_INIT;
    int wait_status, fd = cni_lock("lock-of-test-cni", 0, &err);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(cni_lock("lock-of-test-cni", 20, &err), -1);
    assert_int_equal(err.code, STATUS_DEADLINE_EXCEEDED);
    int other = cni_lock("lock-of-test-cni-too", 0, &err);
    assert_true(other >= 0);
    close(other);
    /* It is waited for. */
    pid_t pid = fork();
    if (pid == 0) {
        close(fd);
        _exit(cni_lock("lock-of-test-cni", 20000, &err) >= 0 ? 0 : 1);
    }
    usleep(50000);
    close(fd);
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    assert_int_equal(wait_status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_configurations),
        cmocka_unit_test(test_configuration_round_trip),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test_setup(test_finding, set_up),
        cmocka_unit_test_setup(test_huge_configuration, set_up),
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_errors),
        cmocka_unit_test_setup(test_chain, set_up),
        cmocka_unit_test_setup(test_old_versions_are_asked_less, set_up),
        cmocka_unit_test_setup(test_add_failures, set_up),
        cmocka_unit_test_setup(test_a_missing_program, set_up),
        cmocka_unit_test_setup(test_time_out, set_up),
        cmocka_unit_test(test_strays),
        cmocka_unit_test(test_lock),
    };

    log_setup(LOG_ERROR, "test");
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
