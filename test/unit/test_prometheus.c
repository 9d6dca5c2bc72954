/* SPDX-License-Identifier: Apache-2.0 */
/* text/prometheus: what the text looks like; that Prometheus' own parser takes it is an end-to-end test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "text/prometheus.h"

static void test_samples(void **unused)
{
    cleanup_buf struct buf out = BUF_INIT;

    (void)unused;
    prometheus_family(&out, "a_total", "counter", "Back\\slash\nand line.");
    prometheus_u64(&out, "a_total", PROMETHEUS_LABELS("x", "quote\" back\\ line\n", "y", ""), UINT64_MAX);
    prometheus_double(&out, "b", PROMETHEUS_NONE, 0.25);
    prometheus_double(&out, "b", PROMETHEUS_NONE, 1e15);
    prometheus_double(&out, "b", PROMETHEUS_NONE, INFINITY);
    prometheus_double(&out, "b", PROMETHEUS_NONE, -INFINITY);
    prometheus_double(&out, "b", PROMETHEUS_NONE, NAN);
    assert_string_equal(buf_cstr(&out), "# HELP a_total Back\\\\slash\\nand line.\n"
                                        "# TYPE a_total counter\n"
                                        "a_total{x=\"quote\\\" back\\\\ line\\n\",y=\"\"} 18446744073709551615\n"
                                        "b 0.25\n"
                                        "b 1e+15\n"
                                        "b +Inf\n"
                                        "b -Inf\n"
                                        "b NaN\n");
}

static void test_histogram(void **unused)
{
    static const double bounds[] = { 0.1, 1 };
    struct prometheus_histogram h = { .sum = 0 };
    cleanup_buf struct buf out = BUF_INIT;

    (void)unused;
    prometheus_observe(&h, bounds, 2, 0.1); /* a bound belongs to its bucket */
    prometheus_observe(&h, bounds, 2, 0.5);
    prometheus_observe(&h, bounds, 2, 7);
    prometheus_histogram(&out, "t", PROMETHEUS_LABELS("m", "v"), &h, bounds, 2);
    assert_string_equal(buf_cstr(&out), "t_bucket{m=\"v\",le=\"0.1\"} 1\n"
                                        "t_bucket{m=\"v\",le=\"1\"} 2\n"
                                        "t_bucket{m=\"v\",le=\"+Inf\"} 3\n"
                                        "t_sum{m=\"v\"} 7.6\n"
                                        "t_count{m=\"v\"} 3\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_samples), cmocka_unit_test(test_histogram) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
