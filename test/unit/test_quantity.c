/* SPDX-License-Identifier: Apache-2.0 */
#include "text/quantity.h"

#include <setjmp.h>
#include <cmocka.h>

static void test_parse(void **state)
{
    static const struct {
        const char *text;
        enum quantity_scale scale;
        int64_t value;
    } good[] = {
        { "500m", QUANTITY_MILLI, 500 },  { "1.5", QUANTITY_MILLI, 1500 },   { "128Mi", QUANTITY_ONE, 134217728 },
        { "2e3", QUANTITY_ONE, 2000 },    { "2E3", QUANTITY_ONE, 2000 },     { "1E", QUANTITY_ONE, 1000000000000000000 },
        { "1E-3", QUANTITY_MILLI, 1 },    { "0", QUANTITY_ONE, 0 },          { "-1", QUANTITY_ONE, -1 },
        { "+1", QUANTITY_ONE, 1 },        { ".5", QUANTITY_MILLI, 500 },     { "1.", QUANTITY_ONE, 1 },
        { "100n", QUANTITY_NANO, 100 },   { "1u", QUANTITY_NANO, 1000 },     { "1k", QUANTITY_ONE, 1000 },
        { "0.5Gi", QUANTITY_ONE, 536870912 }, { "1Ki", QUANTITY_MILLI, 1024000 }, { "7Ei", QUANTITY_ONE, 8070450532247928832 },
        { "0001", QUANTITY_ONE, 1 },      { "1e0", QUANTITY_ONE, 1 },        { "1.5Mi", QUANTITY_ONE, 1572864 },
        /* Rounded up, away from zero. */
        { "500m", QUANTITY_ONE, 1 },      { "1n", QUANTITY_MILLI, 1 },       { "-1500m", QUANTITY_ONE, -2 },
        { "1000m", QUANTITY_ONE, 1 },     { "0.1Ki", QUANTITY_ONE, 103 },    { "1e-1000", QUANTITY_ONE, 1 },
        { "1.00000000000000000000000000000000000000000000000001", QUANTITY_ONE, 2 },
        { "1.00000000000000000000000000000000000000000000000000", QUANTITY_ONE, 1 },
        { "0.00000000000000000000000000000000000000000000000001", QUANTITY_ONE, 1 },
        { "9223372036854775807", QUANTITY_ONE, INT64_MAX },
    };
    static const char *const bad[] = { "", "m", "-", "+", ".", "1x", "1 ", " 1", "1mi", "1KI", "1e", "1e+", "1e3m", "1.2.3", "--1", "0x1", "1Mib",
                                       "e3", "1e99999999999", "Mi", "\xc2\xb5" };
    static const char *const large[] = { "8Ei", "1e19", "10E", "9223372036854775808", "1e1000", "99999999999999999999999999999999999999999999" };
    struct status err = STATUS_INIT;
    int64_t value = 0;
    (void)state;

    for (size_t i = 0; i < COUNT_OF(good); i++) {
        if (!quantity_parse(good[i].text, good[i].scale, &value, &err) || value != good[i].value)
            fail_msg("%s: %" PRId64 " %s", good[i].text, value, err.message);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        if (quantity_parse(bad[i], QUANTITY_ONE, &value, &err))
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    }
    for (size_t i = 0; i < COUNT_OF(large); i++) {
        if (quantity_parse(large[i], QUANTITY_ONE, &value, &err))
            fail_msg("taken: %s", large[i]);
        assert_int_equal(err.code, STATUS_OUT_OF_RANGE);
    }
}

static void test_format(void **state)
{
    static const struct {
        int64_t value;
        enum quantity_scale scale;
        bool binary;
        const char *text;
    } cases[] = {
        { 0, QUANTITY_ONE, false, "0" },        { 0, QUANTITY_MILLI, true, "0" },      { 1500, QUANTITY_MILLI, false, "1500m" },
        { 2000, QUANTITY_MILLI, false, "2" },   { 2000, QUANTITY_ONE, false, "2k" },   { 134217728, QUANTITY_ONE, true, "128Mi" },
        { 1000, QUANTITY_ONE, true, "1000" },   { -2048, QUANTITY_ONE, true, "-2Ki" }, { 1500, QUANTITY_MILLI, true, "1500m" },
        { 1000000, QUANTITY_NANO, false, "1m" }, { 1, QUANTITY_NANO, false, "1n" },    { 1024000, QUANTITY_MILLI, true, "1Ki" },
        { INT64_MIN, QUANTITY_ONE, false, "-9223372036854775808" }, { INT64_MAX, QUANTITY_ONE, false, "9223372036854775807" },
        { 3000000000000000000, QUANTITY_ONE, false, "3E" }, { 1152921504606846976, QUANTITY_ONE, true, "1Ei" },
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[QUANTITY_TEXT_MAX];
        struct status err = STATUS_INIT;
        int64_t back = 1;
        quantity_format(cases[i].value, cases[i].scale, cases[i].binary, text);
        assert_string_equal(text, cases[i].text);
        if (cases[i].value != INT64_MIN) {
            assert_true(quantity_parse(text, cases[i].scale, &back, &err));
            assert_int_equal(back, cases[i].value);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_parse), cmocka_unit_test(test_format) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
