/* SPDX-License-Identifier: Apache-2.0 */
#include "interlink/log_strip.h"

#include <setjmp.h>
#include <cmocka.h>

#define SCRIPT                                                                                                         \
    "This pod web-1a/6b4c has been submitted to SLURM node n1.\n"                                                       \
    "To get more info, please run: scontrol show job 12.\n"                                                             \
    "2026-11-24T05:36:00+00:00 Running in background web pid 17...\n"                                                   \
    "2026-11-24T05:36:00+00:00 Waiting for container web pid 17...\n"
#define SCRIPT_END                                                                                                     \
    "2026-11-24T05:36:02+00:00 Container web pid 17 ended with status 0.\n"                                             \
    "2026-11-24T05:36:02+00:00 Checking if file exists: /x/run-web.status ...\n"                                        \
    "2026-11-24T05:36:02+00:00 attempt 1/60 file found /x/run-web.status\n"                                             \
    "2026-11-24T05:36:02+00:00 End of script, highest exit code 0...\n"
#define WAITING                                                                                                        \
    "HTTP InterLink session Request-1: Cannot open in follow mode the container logs /x/run-web.out because it does not exist " \
    "yet, sleeping before retrying..."
#define TIME "\nreal\t0m1.005s\nuser\t0m0.002s\nsys\t0m0.001s\n"

/* The same result however the log is cut. */
static void expect(const char *log, const char *wanted, bool noisy)
{
    size_t n = strlen(log);

    for (size_t step = 1; step <= n + 1; step = step < 80 ? step + 1 : step * 2) {
        struct log_strip s = { .noisy = noisy };
        cleanup_buf struct buf out = BUF_INIT;
        for (size_t at = 0; at < n; at += step)
            log_strip_feed(&s, (struct str){ log + at, n - at < step ? n - at : step }, &out);
        log_strip_end(&s, &out);
        assert_string_equal(buf_cstr(&out), wanted);
    }
}

static void test_stock(void **state)
{
    (void)state;
    expect(SCRIPT "one\ntwo\n" TIME, "one\ntwo\n", false);
    expect(SCRIPT SCRIPT_END "one\ntwo" TIME, "one\ntwo", false);
    expect(SCRIPT SCRIPT_END TIME, "", false);
    expect(SCRIPT, "", false);
    expect(SCRIPT "slurmstepd: error: *** JOB 12 ON n1 CANCELLED ***\none\n", "one\n", false);
    expect(WAITING WAITING "one\n" TIME, "one\n", false);
    expect(SCRIPT WAITING "one\n", "one\n", false);
    /* Its own `time` stays. */
    expect(SCRIPT TIME "done\n" TIME, TIME "done\n", false);
    expect(SCRIPT "\nreal\t0m1.0", "\nreal\t0m1.0", false);
    expect(SCRIPT "\nreal\t0m1,005s\nuser\t0m0,002s\nsys\t0m0,001s\n", "", false);
    expect(SCRIPT "2026-11-24T05:36:02+00:00 My own words\n", "2026-11-24T05:36:02+00:00 My own words\n", false);
}

static void test_others(void **state)
{
    (void)state;
    expect("", "", false);
    expect("one\n" TIME, "one\n" TIME, false);
    expect("This pod is mine\n", "This pod is mine\n", false);
    expect("slurmstepd: error: x\n", "slurmstepd: error: x\n", false);
    expect("HTTP InterLink session is a fine name\nx", "HTTP InterLink session is a fine name\nx", false);
    expect("Cannot open in follow mode", "Cannot open in follow mode", false);
}

static void test_noisy(void **state)
{
    (void)state;
    expect("module: loaded\nmore\n" SCRIPT "one\n" TIME, "one\n", true);
    expect("one\ntwo", "one\ntwo", true);
    expect("module: loaded\n" SCRIPT "one\n", "module: loaded\n" SCRIPT "one\n", false);
}

static void test_bounded(void **state)
{
    struct log_strip s = { .noisy = true };
    cleanup_buf struct buf out = BUF_INIT;
    static char block[1000];
    (void)state;

    memset(block, 'x', sizeof block);
    for (int i = 0; i < 200; i++) {
        log_strip_feed(&s, (struct str){ block, sizeof block }, &out);
        assert_true(s.head.n <= LOG_STRIP_HEAD_MAX && s.tail.n <= LOG_STRIP_TAIL_MAX);
    }
    log_strip_end(&s, &out);
    assert_int_equal(out.n, 200 * sizeof block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stock),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_noisy),
        cmocka_unit_test(test_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
