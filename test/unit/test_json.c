/* SPDX-License-Identifier: Apache-2.0 */
#include "text/json.h"

#include <setjmp.h>
#include <cmocka.h>

#include <float.h>

static const struct json *parse(struct arena *arena, const char *text)
{
    struct status err = STATUS_INIT;
    const struct json *j = json_parse(arena, str_of(text), &err);

    if (j == NULL)
        fail_msg("%s: %s", text, err.message);
    return j;
}

static void test_values(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    struct status err = STATUS_INIT;
    int64_t i = 0;
    uint64_t u = 0;
    double d = 0;
    (void)state;

    const struct json *j = parse(&a, " {\"a\": [1, -2, 3.5, true, false, null, \"x\"], \"b\": {\"c\": {}}, \"e\": []}\n");
    assert_int_equal(j->type, JSON_OBJECT);
    assert_int_equal(j->count, 3);
    assert_int_equal(json_i64(json_get(j, "a", "1"), 0), -2);
    assert_int_equal(json_i64(json_get(j, "a", "2"), 7), 7);
    assert_true(json_bool(json_get(j, "a", "3"), false));
    assert_false(json_bool(json_get(j, "a", "4"), true));
    assert_true(json_is(json_get(j, "a", "5"), JSON_NULL));
    assert_string_equal(json_string(json_get(j, "a", "6"), ""), "x");
    assert_null(json_get(j, "a", "7"));
    assert_null(json_get(j, "a", "x", "y"));
    assert_null(json_get(j, "b", "c", "d", "e"));
    assert_null(json_get(NULL, "b"));
    assert_true(json_as_double(json_at(json_member(j, "a"), 2), &d, &err));
    assert_true(d > 3.4 && d < 3.6);
    for (JSON_EACH(item, json_member(j, "e")))
        fail_msg("%s", item->key);

    assert_true(json_as_i64(parse(&a, "-9223372036854775808"), INT64_MIN, INT64_MAX, &i, &err));
    assert_true(i == INT64_MIN);
    assert_true(json_as_u64(parse(&a, "18446744073709551615"), UINT64_MAX, &u, &err));
    assert_true(u == UINT64_MAX);
    assert_false(json_as_u64(parse(&a, "18446744073709551616"), UINT64_MAX, &u, &err));
    assert_false(json_as_i64(parse(&a, "9223372036854775808"), INT64_MIN, INT64_MAX, &i, &err));
    assert_false(json_as_u64(parse(&a, "-1"), UINT64_MAX, &u, &err));
    assert_false(json_as_i64(parse(&a, "1.5"), INT64_MIN, INT64_MAX, &i, &err));
    assert_false(json_as_i64(parse(&a, "1e-1"), INT64_MIN, INT64_MAX, &i, &err));
    assert_false(json_as_i64(parse(&a, "1e99999999999"), INT64_MIN, INT64_MAX, &i, &err));
    static const struct {
        const char *text;
        int64_t value;
    } whole[] = { { "0", 0 },        { "-0", 0 },         { "1.0", 1 },        { "1e3", 1000 },      { "1.5E+1", 15 },
                  { "100e-2", 1 },   { "0.05e2", 5 },     { "10020", 10020 },  { "0e99999999", 0 },  { "1200.00", 1200 } };
    for (size_t k = 0; k < COUNT_OF(whole); k++) {
        assert_true(json_as_i64(parse(&a, whole[k].text), INT64_MIN, INT64_MAX, &i, &err));
        assert_int_equal(i, whole[k].value);
    }
    assert_false(json_as_double(parse(&a, "1e999"), &d, &err));
}

static void test_strings(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    (void)state;

    assert_string_equal(parse(&a, "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\"")->text, "\"\\/\b\f\n\r\tA");
    assert_string_equal(parse(&a, "\"\\u00e9\\u20ac\\ud83d\\ude00\"")->text, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    assert_string_equal(parse(&a, "\"\xc3\xa9\"")->text, "\xc3\xa9");
    const struct json *nul = parse(&a, "\"a\\u0000b\"");
    assert_int_equal(nul->length, 3);
    assert_string_equal(json_string(nul, "fallback"), "fallback");
    assert_memory_equal(json_bytes(nul).p, "a\0b", 3);
}

static void test_equal_keys(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    (void)state;

    const struct json *j = parse(&a, "{\"a\":1,\"b\":2,\"a\":3}");
    assert_int_equal(j->count, 2);
    assert_int_equal(json_i64(json_member(j, "a"), 0), 3);
    buf_append_byte(&text, '{');
    for (int i = 0; i < 1000; i++)
        buf_printf(&text, "%s\"k%d\":%d", i > 0 ? "," : "", i % 100, i);
    buf_append_byte(&text, '}');
    j = parse(&a, buf_cstr(&text));
    assert_int_equal(j->count, 100);
    assert_int_equal(json_i64(json_member(j, "k7"), 0), 907);
}

static void test_refused(void **state)
{
    static const char *const bad[] = {
        "", " ", "{", "}", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1:2]", "[\"a\":1]", "{\"a\"}", "{\"a\":}",
        "{\"a\" 1}", "{\"a\":1,}", "{,\"a\":1}", "{\"a\":1 \"b\":2}", "{1:2}", "{a:1}", "{\"a\":1:2}", "{\"a\",\"b\"}",
        "[1]]", "{}}", "[] []", "1 2", "nul", "nulll", "True", "tru", "[tru]", "[nulll]", "01", "[01]", "[-]", "[1.]",
        "[.5]", "[1e]", "[+1]", "[0x1]", "[1e5x]", "[NaN]", "\"a", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\"",
        "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"a\nb\"", "\"\t\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"",
        "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "{\"a\\u0000b\":1}", "[}", "{]", "[{]}", "{\"a\":[}]", "//", "[1]//",
        "{[]:1}", "{{}:1}", "[\"a\" \"b\"]", "{\"a\":\"b\" \"c\":\"d\"}", "{:1}", "{:\"a\"}", ",", ":", "[:]", "\xef\xbb\xbf{}",
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        cleanup_arena struct arena a = ARENA_INIT;
        struct status err = STATUS_INIT;
        if (json_parse(&a, str_of(bad[i]), &err) != NULL)
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, "line "));
    }
    cleanup_arena struct arena a = ARENA_INIT;
    struct status err = STATUS_INIT;
    assert_null(json_parse(&a, (struct str){ "[1]\0", 4 }, &err));
    assert_null(json_parse(&a, (struct str){ "[\0001]", 4 }, &err));
}

static void test_bounds(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;
    (void)state;

    for (int i = 0; i < JSON_DEPTH_MAX; i++)
        buf_append_byte(&text, '[');
    for (int i = 0; i < JSON_DEPTH_MAX; i++)
        buf_append_byte(&text, ']');
    assert_non_null(json_parse(&a, str_of(buf_cstr(&text)), &err));
    buf_clear(&text);
    for (int i = 0; i <= JSON_DEPTH_MAX; i++)
        buf_append_byte(&text, '[');
    for (int i = 0; i <= JSON_DEPTH_MAX; i++)
        buf_append_byte(&text, ']');
    assert_null(json_parse(&a, str_of(buf_cstr(&text)), &err));
    assert_int_equal(err.code, STATUS_RESOURCE_EXHAUSTED);
    buf_clear(&text);
    memset(buf_reserve(&text, 1u << 20), '[', 1u << 20);
    text.n = 1u << 20;
    assert_null(json_parse(&a, (struct str){ (char *)text.p, text.n }, &err));
    assert_int_equal(err.code, STATUS_RESOURCE_EXHAUSTED);
    buf_clear(&text);
    buf_append_byte(&text, '[');
    for (size_t i = 0; i <= JSON_NODES_MAX; i++)
        buf_append_str(&text, "1,");
    buf_append_str(&text, "1]");
    assert_null(json_parse(&a, (struct str){ (char *)text.p, text.n }, &err));
    assert_int_equal(err.code, STATUS_RESOURCE_EXHAUSTED);
}

static void test_strict(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    struct status err = STATUS_INIT;
    const char *s = "default";
    int64_t i = 5;
    bool b = true;
    const struct json *node = NULL;
    (void)state;

    const struct json *j = parse(&a, "{\"spec\":{\"containers\":[{\"env\":[{},{\"name\":7,\"a/b\":\"\"}]}],\"n\":null}}");
    const struct json *env = json_get(j, "spec", "containers", "0", "env", "1");
    assert_false(json_read_string(env, "name", &s, &err));
    assert_string_equal(err.message, "spec.containers[0].env[1].name: wanted a string, found a number");
    assert_false(json_read_i64(env, "a/b", 0, 1, &i, &err));
    assert_string_equal(err.message, "spec.containers[0].env[1][\"a/b\"]: wanted a number, found a string");
    assert_true(json_read_string(env, "absent", &s, &err));
    assert_string_equal(s, "default");
    assert_true(json_read_i64(json_member(j, "spec"), "n", 0, 9, &i, &err));
    assert_int_equal(i, 5);
    assert_false(json_read_i64(env, "name", 0, 6, &i, &err));
    assert_string_equal(err.message, "spec.containers[0].env[1].name: wanted a whole number from 0 to 6, found 7");
    assert_true(json_read_bool(NULL, "x", &b, &err));
    assert_false(json_read_bool(json_member(env, "name"), "x", &b, &err));
    assert_false(json_read_node(j, "spec", JSON_ARRAY, &node, &err));
    assert_true(json_read_node(j, "spec", JSON_OBJECT, &node, &err));
    assert_int_equal(node->count, 2);
}

static void test_writer(void **state)
{
    cleanup_buf struct buf out = BUF_INIT;
    struct json_writer w;
    (void)state;

    json_writer_init(&w, &out, 0);
    json_write_object(&w);
    json_write_member_string(&w, "a\"", "<&>\x01\x1f\\\"/\n\x7f\xc3\xa9\xff\xe2\x82");
    json_write_member_i64(&w, "i", INT64_MIN);
    json_write_member_array(&w, "l");
    json_write_u64(&w, UINT64_MAX);
    json_write_null(&w);
    json_write_object(&w);
    json_write_end(&w);
    json_write_array(&w);
    json_write_end(&w);
    json_write_raw(&w, STR("[1]"));
    json_write_end(&w);
    json_write_member_bool(&w, "b", true);
    json_write_key(&w, "d");
    json_write_double(&w, 0.1);
    json_write_end(&w);
    assert_string_equal(buf_cstr(&out),
                        "{\"a\\\"\":\"<&>\\u0001\\u001f\\\\\\\"/\\n\x7f\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\","
                        "\"i\":-9223372036854775808,\"l\":[18446744073709551615,null,{},[],[1]],\"b\":true,\"d\":0.1}");
    buf_clear(&out);
    json_writer_init(&w, &out, 2);
    json_write_object(&w);
    json_write_member_object(&w, "o");
    json_write_end(&w);
    json_write_member_array(&w, "l");
    json_write_i64(&w, 1);
    json_write_i64(&w, 2);
    json_write_end(&w);
    json_write_end(&w);
    assert_string_equal(buf_cstr(&out), "{\n  \"o\": {},\n  \"l\": [\n    1,\n    2\n  ]\n}");
}

static void test_doubles(void **state)
{
    static const double values[] = { 0, -0.5, 1e300, DBL_MAX, DBL_MIN, 1.0 / 3, 123456789.125, 1e21 };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(values); i++) {
        cleanup_arena struct arena a = ARENA_INIT;
        cleanup_buf struct buf out = BUF_INIT;
        struct status err = STATUS_INIT;
        struct json_writer w;
        double back = -1;
        json_writer_init(&w, &out, 0);
        json_write_double(&w, values[i]);
        assert_true(json_as_double(parse(&a, buf_cstr(&out)), &back, &err));
        assert_memory_equal(&back, &values[i], sizeof back);
    }
}

static void test_round_trip(void **state)
{
    static const char text[] = "{\"a\":[1,2.50,{\"b\":\"\\u0000x\"}],\"c\":null,\"d\":true,\"e\":{},\"f\":[]}";
    cleanup_arena struct arena a = ARENA_INIT;
    cleanup_buf struct buf out = BUF_INIT;
    struct json_writer w;
    (void)state;

    json_writer_init(&w, &out, 0);
    json_write_tree(&w, parse(&a, text));
    assert_string_equal(buf_cstr(&out), text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),  cmocka_unit_test(test_strings), cmocka_unit_test(test_equal_keys),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_bounds),  cmocka_unit_test(test_strict),
        cmocka_unit_test(test_writer),  cmocka_unit_test(test_doubles), cmocka_unit_test(test_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
