/* SPDX-License-Identifier: Apache-2.0 */
#include "text/crilog.h"

#include <setjmp.h>
#include <cmocka.h>

#define NOW INT64_C(1795498560123456789)
#define STAMP "2026-11-24T05:36:00.123456789Z"

static void test_write(void **state)
{
    struct crilog_writer w = { 0 };
    uint8_t out[4096];
    struct crilog_span spans[2] = { { out, sizeof out }, { NULL, 0 } };
    size_t produced = 0;
    (void)state;

    assert_int_equal(crilog_write(&w, CRILOG_STDOUT, NOW, STR("one\n\ntwo"), false, spans, &produced), 5);
    out[produced] = 0;
    assert_string_equal((char *)out, STAMP " stdout F one\n" STAMP " stdout F \n");
    assert_int_equal(crilog_write(&w, CRILOG_STDERR, NOW, STR("two"), true, spans, &produced), 3);
    out[produced] = 0;
    assert_string_equal((char *)out, STAMP " stderr P two\n");
    assert_int_equal(crilog_write(&w, CRILOG_STDOUT, NOW + 1000000000, STR("x\n"), false, spans, &produced), 2);
    out[produced] = 0;
    assert_string_equal((char *)out, "2026-11-24T05:36:01.123456789Z stdout F x\n");
    assert_int_equal(crilog_write(&w, CRILOG_STDOUT, NOW, STR(""), true, spans, &produced), 0);
    assert_int_equal(produced, 0);
}

static void test_long_lines(void **state)
{
    struct crilog_writer w = { 0 };
    static char in[2 * CRILOG_TEXT_MAX + 10];
    static uint8_t out[4 * CRILOG_TEXT_MAX];
    struct crilog_span spans[2] = { { out, sizeof out }, { NULL, 0 } };
    size_t produced = 0;
    (void)state;

    memset(in, 'x', sizeof in);
    /* Exactly the limit and no end yet: waits. */
    assert_int_equal(crilog_write(&w, CRILOG_STDOUT, NOW, (struct str){ in, CRILOG_TEXT_MAX }, false, spans, &produced), 0);
    in[CRILOG_TEXT_MAX] = '\n';
    assert_int_equal(crilog_write(&w, CRILOG_STDOUT, NOW, (struct str){ in, CRILOG_TEXT_MAX + 1 }, false, spans, &produced), CRILOG_TEXT_MAX + 1);
    assert_int_equal(produced, CRILOG_LINE_MAX);
    assert_int_equal(out[38], 'F');
    /* One byte more: a part, and the rest. */
    in[CRILOG_TEXT_MAX] = 'x';
    in[CRILOG_TEXT_MAX + 1] = '\n';
    assert_int_equal(crilog_write(&w, CRILOG_STDOUT, NOW, (struct str){ in, CRILOG_TEXT_MAX + 2 }, false, spans, &produced), CRILOG_TEXT_MAX + 2);
    assert_int_equal(out[38], 'P');
    assert_int_equal(out[CRILOG_LINE_MAX + 38], 'F');
    assert_int_equal(produced, CRILOG_LINE_MAX + CRILOG_PREFIX_LENGTH + 2);
    /* No room for it: nothing is taken. */
    spans[0].n = CRILOG_LINE_MAX - 1;
    assert_int_equal(crilog_write(&w, CRILOG_STDOUT, NOW, (struct str){ in, CRILOG_TEXT_MAX + 2 }, false, spans, &produced), 0);
    assert_int_equal(produced, 0);
}

/* Everything fed through a small ring in every size of piece, then read back, is what was fed. */
static void test_ring(void **state)
{
    static uint8_t ring[CRILOG_LINE_MAX + 300];
    cleanup_buf struct buf input = BUF_INIT, log = BUF_INIT, output = BUF_INIT;
    struct crilog_writer w = { 0 };
    struct crilog_reader r = { 0 };
    size_t head = 0, fed = 0, step = 1;
    (void)state;

    for (int i = 0; i < 3000; i++) {
        for (int k = 0; k < (i * 7919) % 211; k++)
            buf_append_byte(&input, (uint8_t)('a' + (i + k) % 26));
        if (i % 500 == 3) {
            memset(buf_reserve(&input, 40000), 'L', 40000);
            input.n += 40000;
        }
        buf_append_byte(&input, '\n');
    }
    cleanup_buf struct buf waiting = BUF_INIT;
    while (fed < input.n || waiting.n > 0) {
        size_t n = step < input.n - fed ? step : input.n - fed, produced = 0;
        step = step * 3 % 20011 + 1;
        buf_append(&waiting, input.p + fed, n);
        fed += n;
        for (size_t used = 1; used > 0;) {
            struct crilog_span spans[2] = { { ring + head, sizeof ring - head }, { ring, head } };
            used = crilog_write(&w, CRILOG_STDOUT, NOW, (struct str){ (char *)waiting.p, waiting.n }, false, spans, &produced);
            buf_consume(&waiting, used);
            size_t first = produced < sizeof ring - head ? produced : sizeof ring - head;
            buf_append(&log, ring + head, first);
            buf_append(&log, ring, produced - first);
            head = (head + produced) % sizeof ring;
        }
    }
    for (size_t at = 0; at < log.n; at += 777)
        crilog_read(&r, (struct str){ (char *)log.p + at, log.n - at < 777 ? log.n - at : 777 }, &output, &output);
    assert_int_equal(r.malformed, 0);
    assert_int_equal(output.n, input.n);
    assert_memory_equal(output.p, input.p, input.n);
    crilog_reader_free(&r);
}

static void test_parse(void **state)
{
    struct crilog_line line;
    static const char *const bad[] = { "", " ", "x", STAMP, STAMP " ", STAMP " stdout", STAMP " stdout F", STAMP " stdin F x", STAMP " stdout X x",
                                       "2026 stdout F x", STAMP " stdout  x", STAMP " stdout FP x", "  ", STAMP "  F x" };
    (void)state;

    assert_true(crilog_parse(STR(STAMP " stderr P:x a b "), &line));
    assert_true(line.partial && line.stream == CRILOG_STDERR && line.time_ns == NOW);
    assert_true(str_eq(line.text, "a b "));
    assert_true(crilog_parse(STR("2026-11-24T06:36:00.123456789+01:00 stdout F "), &line));
    assert_true(!line.partial && line.stream == CRILOG_STDOUT && line.time_ns == NOW && line.text.n == 0);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (crilog_parse(str_of(bad[i]), &line))
            fail_msg("taken: %s", bad[i]);
}

static const char log_text[] = "2026-01-01T00:00:01.000000000Z stdout F one\n"
                               "2026-01-01T00:00:02.000000000Z stdout P tw\n"
                               "2026-01-01T00:00:02.000000001Z stderr F err\n"
                               "rubbish\n"
                               "2026-01-01T00:00:03.000000000Z stdout F o\n"
                               "\n"
                               "2026-01-01T00:00:04.000000000Z stdout F four\n";

static void reads(struct crilog_reader r, const char *wanted_stdout, const char *wanted_stderr)
{
    for (size_t piece = 1; piece < sizeof log_text; piece++) {
        cleanup_buf struct buf out = BUF_INIT, error = BUF_INIT;
        struct crilog_reader reader = r;
        for (size_t at = 0; at < sizeof log_text - 1; at += piece) {
            size_t left = sizeof log_text - 1 - at;
            crilog_read(&reader, (struct str){ log_text + at, left < piece ? left : piece }, &out, &error);
        }
        assert_string_equal(buf_cstr(&out), wanted_stdout);
        assert_string_equal(buf_cstr(&error), wanted_stderr);
        crilog_reader_free(&reader);
    }
}

static void test_reader(void **state)
{
    (void)state;
    reads((struct crilog_reader){ 0 }, "one\ntwo\nfour\n", "err\n");
    reads((struct crilog_reader){ .timestamps = true },
          "2026-01-01T00:00:01.000000000Z one\n2026-01-01T00:00:02.000000000Z two\n2026-01-01T00:00:04.000000000Z four\n",
          "2026-01-01T00:00:02.000000001Z err\n");
    reads((struct crilog_reader){ .only_stderr = true }, "", "err\n");
    reads((struct crilog_reader){ .only_stdout = true }, "one\ntwo\nfour\n", "");
    reads((struct crilog_reader){ .since_ns = INT64_C(1767225603000000000) }, "o\nfour\n", "");
    reads((struct crilog_reader){ .until_ns = INT64_C(1767225602000000000) }, "one\ntw", "");
    reads((struct crilog_reader){ .limit_bytes = 6 }, "one\ntw", "");
    reads((struct crilog_reader){ .limit_bytes = 4 }, "one\n", "");
}

static void test_too_long(void **state)
{
    cleanup_buf struct buf out = BUF_INIT;
    struct crilog_reader r = { 0 };
    static char piece[1000];
    (void)state;

    memset(piece, 'x', sizeof piece);
    for (size_t i = 0; i < 2 * CRILOG_READ_LINE_MAX / sizeof piece; i++)
        crilog_read(&r, (struct str){ piece, sizeof piece }, &out, &out);
    crilog_read(&r, STR("\n" STAMP " stdout F after\n"), &out, &out);
    assert_string_equal(buf_cstr(&out), "after\n");
    assert_int_equal(r.malformed, 1);
    crilog_reader_free(&r);
}

static size_t tail(const char *text, uint64_t lines, size_t block)
{
    struct crilog_tail t = { .lines = lines };
    size_t end = strlen(text), offset = 0;

    while (end > 0) {
        size_t start = end > block ? end - block : 0;
        if (crilog_tail_step(&t, (struct str){ text + start, end - start }, &offset))
            return start + offset;
        end = start;
    }
    return 0;
}

static void test_tail(void **state)
{
    (void)state;
    for (size_t block = 1; block < 20; block++) {
        assert_int_equal(tail("a\nbb\nccc\n", 0, block), 9);
        assert_int_equal(tail("a\nbb\nccc\n", 1, block), 5);
        assert_int_equal(tail("a\nbb\nccc\n", 2, block), 2);
        assert_int_equal(tail("a\nbb\nccc\n", 3, block), 0);
        assert_int_equal(tail("a\nbb\nccc\n", 4, block), 0);
        assert_int_equal(tail("a\nbb\nccc", 1, block), 5);
        assert_int_equal(tail("\n\n\n", 1, block), 2);
        assert_int_equal(tail("", 1, block), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write),  cmocka_unit_test(test_long_lines), cmocka_unit_test(test_ring), cmocka_unit_test(test_parse),
        cmocka_unit_test(test_reader), cmocka_unit_test(test_too_long),   cmocka_unit_test(test_tail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
