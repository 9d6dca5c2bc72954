/* SPDX-License-Identifier: Apache-2.0 */
#include "text/timefmt.h"

#include <setjmp.h>
#include <cmocka.h>

#include <time.h>

#define SECOND INT64_C(1000000000)

static void test_stamps(void **state)
{
    char text[TIMEFMT_SIZE];
    int64_t ns = 0;
    (void)state;

    timefmt_nano(1795498560123456789, text);
    assert_string_equal(text, "2026-11-24T05:36:00.123456789Z");
    assert_int_equal(strlen(text), TIMEFMT_NANO_LENGTH);
    timefmt_seconds(1795498560123456789, text);
    assert_string_equal(text, "2026-11-24T05:36:00Z");
    timefmt_nano(0, text);
    assert_string_equal(text, "1970-01-01T00:00:00.000000000Z");
    timefmt_nano(-1, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999999999Z");
    timefmt_nano(INT64_MAX, text);
    assert_string_equal(text, "2262-04-11T23:47:16.854775807Z");
    timefmt_nano(INT64_MIN, text);
    assert_string_equal(text, "1677-09-21T00:12:43.145224192Z");
    assert_true(timefmt_parse(STR("2026-11-24T05:36:00.123456789Z"), &ns));
    assert_true(ns == 1795498560123456789);
    assert_true(timefmt_parse(STR("2026-11-24T07:06:00.5+01:30"), &ns));
    assert_true(ns == 1795498560500000000);
    assert_true(timefmt_parse(STR("2026-11-24t05:36:00z"), &ns));
    assert_true(timefmt_parse(STR("2026-11-24T05:36:00.1234567891234Z"), &ns));
    assert_true(ns == 1795498560123456789);
    assert_true(timefmt_parse(STR("2024-02-29T00:00:00-23:59"), &ns));
    assert_true(timefmt_parse(STR("1969-12-31T23:59:59.25Z"), &ns));
    assert_true(ns == -750000000);
}

static void test_against_libc(void **state)
{
    (void)state;

    for (int64_t seconds = -9000000000; seconds < 9000000000; seconds += 7654321) {
        char text[TIMEFMT_SIZE], wanted[TIMEFMT_SIZE];
        time_t t = (time_t)seconds;
        struct tm tm;
        int64_t back = 0;
        strftime(wanted, sizeof wanted, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
        timefmt_seconds(seconds * SECOND, text);
        assert_string_equal(text, wanted);
        assert_true(timefmt_parse(str_of(text), &back));
        assert_true(back == seconds * SECOND);
    }
}

static void test_refused(void **state)
{
    static const char *const bad[] = { "", "2026", "2026-11-24", "2026-11-24T05:36:00", "2026-11-24 05:36:00Z", "2026-13-24T05:36:00Z",
        "2026-02-29T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00+0100", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00Zx",
        "-026-01-01T00:00:00Z", "2026-01-01T00:00:00.5", "0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "2026-01-01T00:00:00+1:000" };
    int64_t ns;
    (void)state;

    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (timefmt_parse(str_of(bad[i]), &ns))
            fail_msg("taken: %s", bad[i]);
}

static void test_age(void **state)
{
    static const struct {
        int64_t seconds;
        const char *text;
    } cases[] = {
        { -5, "Less than a second" }, { 0, "Less than a second" }, { 1, "1 second" }, { 59, "59 seconds" }, { 60, "About a minute" },
        { 119, "About a minute" }, { 120, "2 minutes" }, { 3599, "59 minutes" }, { 3600, "About an hour" }, { 5399, "About an hour" },
        { 5400, "2 hours" }, { 47 * 3600, "47 hours" }, { 48 * 3600, "2 days" }, { 13 * 86400, "13 days" }, { 14 * 86400, "2 weeks" },
        { 59 * 86400, "8 weeks" }, { 60 * 86400, "2 months" }, { 729 * 86400, "24 months" }, { 731 * 86400, "2 years" },
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[TIMEFMT_SIZE];
        timefmt_age(cases[i].seconds * SECOND, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_durations(void **state)
{
    static const struct {
        int64_t ns;
        const char *text;
    } both[] = {
        { 0, "0s" }, { 1, "1ns" }, { 1500, "1.5us" }, { 2000000, "2ms" }, { SECOND, "1s" }, { 3723500000000, "1h2m3.5s" },
        { 60 * SECOND, "1m0s" }, { 3600 * SECOND, "1h0m0s" }, { -SECOND, "-1s" }, { 1000000001, "1.000000001s" },
        { INT64_MAX, "2562047h47m16.854775807s" },
    };
    static const struct {
        const char *text;
        int64_t ns;
    } read[] = { { "1h2m", 3720 * SECOND }, { "1.5h", 5400 * SECOND }, { "0", 0 }, { "-2m", -120 * SECOND }, { ".5s", SECOND / 2 },
                 { "1.s", SECOND }, { "3\xc2\xb5s", 3000 }, { "+5s", 5 * SECOND } };
    static const char *const bad[] = { "", "-", "1", "s", "1x", "1h2", ".s", "1 s", "9999999999h", "1.5.5s", "1s-1s" };
    int64_t ns = 0;
    (void)state;

    for (size_t i = 0; i < COUNT_OF(both); i++) {
        char text[TIMEFMT_SIZE];
        timefmt_duration(both[i].ns, text);
        assert_string_equal(text, both[i].text);
        assert_true(timefmt_parse_duration(text, &ns));
        assert_true(ns == both[i].ns);
    }
    for (size_t i = 0; i < COUNT_OF(read); i++) {
        assert_true(timefmt_parse_duration(read[i].text, &ns));
        if (ns != read[i].ns)
            fail_msg("%s", read[i].text);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (timefmt_parse_duration(bad[i], &ns))
            fail_msg("taken: %s", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stamps), cmocka_unit_test(test_against_libc), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_age),    cmocka_unit_test(test_durations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
