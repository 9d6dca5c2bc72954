/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <setjmp.h>
#include <cmocka.h>

static void status_keeps_code_and_adds_context(void **state)
{
    struct status err = STATUS_INIT;
    (void)state;

    assert_false(status_set(&err, STATUS_NOT_FOUND, "no %s", "file"));
    assert_false(status_prefix(&err, "cannot start %d", 7));
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    assert_string_equal(err.message, "cannot start 7: no file");
    errno = EACCES;
    status_errno(&err, "open");
    assert_int_equal(err.code, STATUS_PERMISSION_DENIED);
    assert_string_equal(err.message, "open: Permission denied");
    char *large = xcalloc(1, 3000);
    memset(large, 'a', 2999);
    status_set(&err, STATUS_INTERNAL, "%s", large);
    status_prefix(&err, "b");
    assert_int_equal(strlen(err.message), STATUS_MESSAGE_MAX - 1);
    free(large);
    assert_string_equal(status_code_name(STATUS_UNAUTHENTICATED), "UNAUTHENTICATED");
    assert_string_equal(status_code_name((enum status_code)99), "UNKNOWN");
}

static void numbers_are_checked(void **state)
{
    uint64_t n = 5;
    (void)state;

    assert_true(parse_u64("18446744073709551615", UINT64_MAX, &n));
    assert_true(n == UINT64_MAX);
    assert_false(parse_u64("18446744073709551616", UINT64_MAX, &n));
    assert_false(parse_u64("256", 255, &n));
    assert_false(parse_u64("", 255, &n));
    assert_false(parse_u64("-1", 255, &n));
    assert_false(parse_u64("1 ", 255, &n));
}

static void base64_goes_round(void **state)
{
    (void)state;
    for (size_t n = 0; n < 70; n++) {
        uint8_t bytes[70];
        struct buf text = BUF_INIT, back = BUF_INIT;
        random_bytes(bytes, sizeof bytes);
        base64_append(&text, bytes, n, n % 2 == 0);
        assert_true(base64_decode((struct str){ (const char *)text.p, text.n }, &back));
        assert_int_equal(back.n, n);
        assert_true(n == 0 || memcmp(back.p, bytes, n) == 0);
        buf_free(&text);
        buf_free(&back);
    }
    struct buf out = BUF_INIT;
    assert_false(base64_decode(STR("abcde"), &out));
    assert_false(base64_decode(STR("ab d"), &out));
    assert_false(base64_decode(STR("a==="), &out));
    buf_free(&out);
}

static void hex_goes_round(void **state)
{
    uint8_t bytes[3] = { 0, 0xab, 0xff }, back[3];
    char text[7];
    (void)state;

    hex_encode(bytes, 3, text);
    assert_string_equal(text, "00abff");
    assert_true(hex_decode("00aBFf", back, 3));
    assert_memory_equal(bytes, back, 3);
    assert_false(hex_decode("00abf", back, 3));
    assert_false(hex_decode("00abxg", back, 3));
}

static void map_finds_what_was_put(void **state)
{
    struct strmap m = STRMAP_INIT;
    struct strmap_iter it = { 0 };
    static int values[1000];
    char key[16];
    bool ambiguous;
    size_t seen = 0;
    (void)state;

    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "k%04d", i);
        assert_null(strmap_put(&m, key, &values[i]));
    }
    assert_ptr_equal(strmap_get(&m, "k0500"), &values[500]);
    assert_null(strmap_get(&m, "k1000"));
    assert_ptr_equal(strmap_put(&m, "k0500", &values[1]), &values[500]);
    assert_null(strmap_prefix(&m, "k05", &ambiguous));
    assert_true(ambiguous);
    assert_ptr_equal(strmap_prefix(&m, "k0999", &ambiguous), &values[999]);
    assert_null(strmap_prefix(&m, "x", &ambiguous));
    assert_false(ambiguous);
    while (strmap_next(&m, &it)) {
        seen++;
        strmap_remove(&m, it.key);
    }
    assert_int_equal(seen, 1000);
    assert_int_equal(m.count, 0);
    assert_null(strmap_remove(&m, "k0001"));
    strmap_free(&m);
}

static void arena_keeps_everything_apart(void **state)
{
    struct arena a = ARENA_INIT;
    char *texts[500];
    (void)state;

    for (int i = 0; i < 500; i++) {
        texts[i] = arena_printf(&a, "text %d", i);
        uint8_t *block = arena_alloc(&a, (size_t)i * 37);
        for (int k = 0; k < i * 37; k++)
            assert_int_equal(block[k], 0);
        if (i > 0)
            memset(block, 0xff, (size_t)i * 37);
    }
    for (int i = 0; i < 500; i++) {
        char want[32];
        snprintf(want, sizeof want, "text %d", i);
        assert_string_equal(texts[i], want);
    }
    arena_free(&a);
}

static void uuid_has_the_form(void **state)
{
    char id[ID_LENGTH + 1], uuid[UUID_LENGTH + 1];
    (void)state;

    uuid_of_id("0123456789abcdef0123456789abcdef", uuid);
    assert_string_equal(uuid, "01234567-89ab-4def-8123-456789abcdef");
    random_id(id);
    uuid_of_id(id, uuid);
    assert_int_equal(uuid[14], '4');
    assert_non_null(strchr("89ab", uuid[19]));
}

static void buffer_grows_and_shrinks(void **state)
{
    struct buf b = BUF_INIT;
    (void)state;

    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "%d,", i);
    assert_int_equal(b.n, 10 * 2 + 90 * 3 + 900 * 4);
    buf_consume(&b, 4);
    assert_int_equal(b.p[0], '2');
    char *s = buf_steal(&b);
    assert_true(str_starts(s, "2,3,"));
    assert_true(str_ends(s, "999,"));
    assert_int_equal(b.n, 0);
    free(s);
}

static void tokens_compare(void **state)
{
    (void)state;
    assert_true(bytes_equal_constant_time("abc", 3, "abc", 3));
    assert_false(bytes_equal_constant_time("abc", 3, "abd", 3));
    assert_false(bytes_equal_constant_time("abc", 3, "abcd", 4));
    assert_false(bytes_equal_constant_time("", 0, "a", 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_keeps_code_and_adds_context),
        cmocka_unit_test(numbers_are_checked),
        cmocka_unit_test(base64_goes_round),
        cmocka_unit_test(hex_goes_round),
        cmocka_unit_test(map_finds_what_was_put),
        cmocka_unit_test(arena_keeps_everything_apart),
        cmocka_unit_test(uuid_has_the_form),
        cmocka_unit_test(buffer_grows_and_shrinks),
        cmocka_unit_test(tokens_compare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
