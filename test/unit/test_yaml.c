/* SPDX-License-Identifier: Apache-2.0 */
#include "text/yaml.h"

#include <setjmp.h>
#include <cmocka.h>

static const struct json *parse(struct arena *arena, const char *text)
{
    struct status err = STATUS_INIT;
    const struct json *j = yaml_parse(arena, str_of(text), &err);

    if (j == NULL)
        fail_msg("%s: %s", text, err.message);
    return j;
}

/* The YAML text, given as JSON, is `json`. */
static void same(const char *yaml, const char *json)
{
    cleanup_arena struct arena a = ARENA_INIT;
    cleanup_buf struct buf out = BUF_INIT;
    struct json_writer w;

    json_writer_init(&w, &out, 0);
    json_write_tree(&w, parse(&a, yaml));
    assert_string_equal(buf_cstr(&out), json);
}

static void refused(const char *yaml, const char *message)
{
    cleanup_arena struct arena a = ARENA_INIT;
    struct status err = STATUS_INIT;

    if (yaml_parse(&a, str_of(yaml), &err) != NULL)
        fail_msg("taken: %s", yaml);
    if (strstr(err.message, message) == NULL)
        fail_msg("%s: %s", yaml, err.message);
}

static void test_types(void **state)
{
    (void)state;
    same("", "null");
    same("# only a comment\n", "null");
    same("[~, null, Null, NULL, nULL, '', \"null\"]", "[null,null,null,null,\"nULL\",\"\",\"null\"]");
    same("[true, True, TRUE, false, 'true', yes, on, tRUE]", "[true,true,true,false,\"true\",\"yes\",\"on\",\"tRUE\"]");
    same("[0, -1, +12, 0x1F, 0o17, 1.5, .5, 1., 1e3, -.5e-2, '7']", "[0,-1,12,31,15,1.5,0.5,1,1e3,-0.5e-2,\"7\"]");
    same("[1_000, 0b1, 1:30, 2026-11-24, .inf, -, ., 1e, 0x, 1.2.3]",
         "[\"1_000\",\"0b1\",\"1:30\",\"2026-11-24\",\".inf\",\"-\",\".\",\"1e\",\"0x\",\"1.2.3\"]");
    same("[!!str 7, !!int 7, !<tag:yaml.org,2002:str> true, ! 8]", "[\"7\",7,\"true\",\"8\"]");
    same("a: |\n  x\n  y\nb: >\n  x\n  y\nc: \"\\x41\\u00e9\\n\"\n", "{\"a\":\"x\\ny\\n\",\"b\":\"x y\\n\",\"c\":\"A\xc3\xa9\\n\"}");
}

static void test_structure(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    struct status err = STATUS_INIT;
    (void)state;

    same("a:\n- 1\n- b: 2\n  c: 3\n-\n  - x\n1: y\ntrue: z\n", "{\"a\":[1,{\"b\":2,\"c\":3},[\"x\"]],\"1\":\"y\",\"true\":\"z\"}");
    const struct json *j = parse(&a, "one: 1\nlist:\n  - Name: x\n    Wrong:\n      k: v\n");
    const struct json *wrong = json_get(j, "list", "0", "Wrong");
    assert_int_equal(wrong->line, 4);
    assert_int_equal(wrong->column, 5);
    assert_false(json_want(wrong, JSON_STRING, &err));
    assert_string_equal(err.message, "line 4, column 5: list[0].Wrong: wanted a string, found an object");
}

static void test_aliases(void **state)
{
    cleanup_buf struct buf bomb = BUF_INIT;
    (void)state;

    same("a: &x {k: [1]}\nb: *x\nc: [*x, *x]\n", "{\"a\":{\"k\":[1]},\"b\":{\"k\":[1]},\"c\":[{\"k\":[1]},{\"k\":[1]}]}");
    same("- &x 1\n- &x 2\n- *x\n", "[1,2,2]");
    refused("a: *x\n", "line 1, column 4: this alias");
    refused("a: &x [*x]\n", "this alias");
    refused("--- &x 1\n--- *x\n", "this alias");
    refused("a: &x {b: 1}\nc:\n  <<: *x\n", "line 3, column 3: merge keys");
    buf_append_str(&bomb, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for (int i = 1; i < 12; i++) {
        buf_printf(&bomb, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++)
            buf_printf(&bomb, "*a%d%s", i - 1, k < 9 ? "," : "]\n");
    }
    refused(buf_cstr(&bomb), "too many values");
    buf_clear(&bomb);
    buf_append_str(&bomb, "- &a0 [x]\n");
    for (int i = 1; i < 100; i++)
        buf_printf(&bomb, "- &a%d [*a%d]\n", i, i - 1);
    refused(buf_cstr(&bomb), "nested too deep");
}

static void test_refused(void **state)
{
    cleanup_buf struct buf deep = BUF_INIT;
    (void)state;

    refused("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key a is given twice");
    refused("a: 1\n\tb: 2\n", "line 2");
    refused("a: [1, 2\n", "line");
    refused("a: 'x\n", "line");
    refused("a: 0777\n", "line 1, column 4: a number with a leading zero");
    refused("a: 0xfffffffffffffffff\n", "too large");
    refused("a: !thing x\n", "this tag");
    refused("a: !thing [x]\n", "this tag");
    refused("? [a]\n: b\n", "a key must be plain text");
    refused("? {a: b}\n: b\n", "a key must be plain text");
    refused("\"a\\0b\": 1\n", "NUL");
    refused("--- 1\n--- 2\n", "line 2, column 5: one document is wanted");
    refused("\xff\xfe", "byte 0");
    refused("a: \x01\n", "control");
    for (int i = 0; i < 500; i++)
        buf_append_byte(&deep, '[');
    refused(buf_cstr(&deep), "nested too deep");
}

static void test_many(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;
    (void)state;

    for (int i = 0; i < 500; i++)
        buf_printf(&text, "k%d: %d\n", i, i);
    assert_int_equal(parse(&a, buf_cstr(&text))->count, 500);
    buf_append_str(&text, "k17: again\n");
    refused(buf_cstr(&text), "line 501, column 1: the key k17 is given twice");
    const struct json *all = yaml_parse_all(&a, STR("a: 1\n---\nb: 2\n---\n"), &err);
    assert_non_null(all);
    assert_int_equal(all->count, 3);
    assert_int_equal(json_i64(json_member(json_at(all, 1), "b"), 0), 2);
    cleanup_buf struct buf path = BUF_INIT;
    json_path(json_member(json_at(all, 1), "b"), &path);
    assert_string_equal(buf_cstr(&path), "b");
}

static void test_writer(void **state)
{
    static const char yaml[] = "name: demo\n"
                               "list:\n"
                               "- 1\n"
                               "- a: x y\n"
                               "  b:\n"
                               "  - - \"1\"\n"
                               "    - \"\"\n"
                               "  c: {}\n"
                               "- []\n"
                               "when: \"2026-11-24T05:36:00Z\"\n"
                               "\"yes\": \"no\"\n"
                               "image: docker.io/library/busybox:1\n"
                               "key: \"a: b\"\n"
                               "hash: \"x #y\"\n"
                               "lines: \"a\\nb\"\n"
                               "none: null\n"
                               "\"on\": true\n";
    cleanup_arena struct arena a = ARENA_INIT;
    cleanup_buf struct buf out = BUF_INIT;
    (void)state;

    yaml_write(&out, parse(&a, yaml));
    assert_string_equal(buf_cstr(&out), yaml);
}

static void test_round_trip(void **state)
{
    static const char *const strings[] = {
        "", " ", "a ", " a", "-", "- a", "?", ":", "a:", "a:b", "a: b", "#", "a #b", "a#b", "~", "null", "NULL", "True", "1", "1.5", "0x1f",
        "0o7", "1e3", ".5", "-1", "+1", "1_000", "0777", "...", "---", "%a", "@a", "`a", "!a", "&a", "*a", "|", ">", "{a}", "[a]", "a,b",
        "'a'", "\"a\"", "a\nb", "\n", "a\tb", "\t", "\r", "\xc2\x85", "\xe2\x80\xa8", "\xef\xbb\xbf", "\xef\xbf\xbe", "\x7f", "\x01", "\xc2\x80",
        "\xc3\xa9", "\xf0\x9f\x98\x80", "a\\b", "<<", "=", "y", "off", "2026-11-24", "12:30:45", "key: |", "a - b", "a ? b", "(x)",
        "5 minutes ago", "/run/x.sock", ".hidden", "_x", "0", "00", "e3", "1e", "deadbeef", "0.0.0.0:8080", "sha256:0123",
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(strings); i++) {
        cleanup_arena struct arena a = ARENA_INIT;
        cleanup_buf struct buf out = BUF_INIT;
        struct status err = STATUS_INIT;
        struct json *j = json_new(&a, JSON_OBJECT, "", 0);
        json_append(j, strings[i], json_new(&a, JSON_STRING, strings[i], strlen(strings[i])));
        yaml_write(&out, j);
        const struct json *back = yaml_parse(&a, (struct str){ (char *)out.p, out.n }, &err);
        if (back == NULL)
            fail_msg("%s%s", buf_cstr(&out), err.message);
        if (!json_is(back->child, JSON_STRING) || strcmp(back->child->text, strings[i]) != 0 ||
            strcmp(back->child->key, strings[i]) != 0)
            fail_msg("%s came back as %s", strings[i], back->child->text);
    }
}

static void test_long_key(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    cleanup_buf struct buf out = BUF_INIT;
    struct status err = STATUS_INIT;
    char key[3000];
    (void)state;

    memset(key, 'k', sizeof key);
    key[sizeof key - 1] = '\0';
    struct json *j = json_new(&a, JSON_OBJECT, "", 0), *list = json_new(&a, JSON_ARRAY, "", 0);
    json_append(list, "", json_new(&a, JSON_NUMBER, "1", 1));
    json_append(j, key, list);
    json_append(j, "other", json_new(&a, JSON_NULL, "", 0));
    yaml_write(&out, j);
    const struct json *back = yaml_parse(&a, (struct str){ (char *)out.p, out.n }, &err);
    assert_int_equal(json_i64(json_get(back, key, "0"), 0), 1);
    assert_true(json_is(json_member(back, "other"), JSON_NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types), cmocka_unit_test(test_structure), cmocka_unit_test(test_aliases), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_many),  cmocka_unit_test(test_writer),    cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_long_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
