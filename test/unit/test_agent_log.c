/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's log ring: what a reader has stored equals what was written, whatever was cut and when, and what was dropped is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/agent_log.h"

#define NOW INT64_C(1795500000123456789)

static size_t put(struct agent_log *l, const char *text, bool flush)
{
    return agent_log_write(l, CRILOG_STDOUT, NOW, str_of(text), flush);
}

static void test_lines(void **state)
{
    struct agent_log l = { 0 };
    struct status err;
    uint64_t offset;

    (void)state;
    assert_int_equal(put(&l, "one\ntwo\nthr", false), 8);
    assert_true(agent_log_open(&l, 0, NOW, &err));
    struct str chunk = agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset);
    assert_int_equal(offset, 0);
    assert_int_equal(chunk.n, 2 * (CRILOG_PREFIX_LENGTH + 4));
    assert_memory_equal(chunk.p + CRILOG_PREFIX_LENGTH - 9, "stdout F one\n", 13);
    agent_log_sent(&l, chunk.n);
    assert_int_equal(agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset).n, 0);
    assert_int_equal(put(&l, "thr", true), 3);
    chunk = agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset);
    assert_int_equal(chunk.n, CRILOG_PREFIX_LENGTH + 4);
    assert_memory_equal(chunk.p + CRILOG_PREFIX_LENGTH - 9, "stdout P thr\n", 13);
    agent_log_free(&l);
}

static void test_offsets_refused(void **state)
{
    struct agent_log l = { 0 };
    struct status err;
    uint64_t offset;

    (void)state;
    put(&l, "one\n", false);
    assert_false(agent_log_open(&l, 45, NOW, &err));
    assert_int_equal(err.code, STATUS_OUT_OF_RANGE);
    assert_true(agent_log_open(&l, 0, NOW, &err));
    assert_false(agent_log_stored(&l, 1, &err));
    assert_int_equal(err.code, STATUS_OUT_OF_RANGE);
    agent_log_sent(&l, agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset).n);
    assert_true(agent_log_stored(&l, 44, &err));
    assert_true(agent_log_stored(&l, 3, &err)); /* an old acknowledgement, late */
    assert_int_equal(l.tail, 44);
    agent_log_free(&l);
}

static void test_memory(void **state)
{
    struct agent_log l = { 0 };
    struct status err;
    uint64_t offset;

    (void)state;
    agent_log_trim(&l);
    assert_null(l.memory);
    put(&l, "one\n", false);
    agent_log_trim(&l);
    assert_non_null(l.memory);
    assert_true(agent_log_open(&l, 0, NOW, &err));
    agent_log_sent(&l, agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset).n);
    assert_true(agent_log_stored(&l, 44, &err));
    assert_int_equal(l.old_at, 0); /* the next line takes the same page */
    agent_log_trim(&l);
    assert_null(l.memory);
    put(&l, "two\n", false);
    assert_int_equal(agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset).n, 44);
    assert_int_equal(offset, 44);
    agent_log_free(&l);
}

/* Fills the log with lines "<number> xxxx..." of 101 bytes; the next number. */
static unsigned fill(struct agent_log *l, unsigned number)
{
    char line[128];

    while (!agent_log_full(l)) {
        snprintf(line, sizeof line, "%08u %091d\n", number, 0);
        if (put(l, line, false) == 0)
            break;
        number++;
    }
    return number;
}

static void test_full_and_grace(void **state)
{
    struct agent_log l = { .away_since_ms = 1000 };
    struct status err;

    (void)state;
    fill(&l, 0);
    assert_true(agent_log_full(&l));
    assert_true(l.head > AGENT_LOG_SIZE - CRILOG_LINE_MAX - 200);
    assert_int_equal(put(&l, "more\n", false), 0);
    assert_int_equal(agent_log_stall_ms(&l, 1000), LOG_STALL_GRACE_MS);
    assert_int_equal(agent_log_stall_ms(&l, 1000 + LOG_STALL_GRACE_MS - 1), 1);
    assert_int_equal(agent_log_stall_ms(&l, 1000 + LOG_STALL_GRACE_MS), 0);
    assert_true(agent_log_open(&l, 0, NOW, &err));
    assert_int_equal(agent_log_stall_ms(&l, 1000 + LOG_STALL_GRACE_MS), -1);
    agent_log_close(&l, 90000);
    assert_int_equal(agent_log_stall_ms(&l, 90001), LOG_STALL_GRACE_MS - 1);
    agent_log_free(&l);
}

static void test_marker(void **state)
{
    struct agent_log l = { 0 };
    struct status err;
    uint64_t offset;
    char expected[96];

    (void)state;
    fill(&l, 0);
    agent_log_drop(&l);
    assert_false(agent_log_full(&l));
    uint64_t lost = l.tail;
    assert_true(lost >= AGENT_LOG_SIZE / 8 && lost % 141 == 0);
    assert_true(agent_log_open(&l, 0, NOW, &err));
    struct str chunk = agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset);
    assert_int_equal(offset + chunk.n, lost);
    int n = snprintf(expected, sizeof expected, "stderr F interlink-cri: %" PRIu64 " bytes of output were lost: the node was away\n",
                     lost);
    assert_int_equal(chunk.n, CRILOG_PREFIX_LENGTH - 9 + n);
    assert_memory_equal(chunk.p + chunk.n - n, expected, (size_t)n);
    /* Cut before anything was stored: the same again. */
    agent_log_sent(&l, chunk.n);
    agent_log_close(&l, 0);
    assert_true(agent_log_open(&l, 0, NOW, &err));
    assert_int_equal(agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset).n, chunk.n);
    /* Half of the line was stored: the other half, as it was. */
    agent_log_sent(&l, chunk.n);
    assert_true(agent_log_stored(&l, offset + 10, &err));
    agent_log_close(&l, 0);
    assert_true(agent_log_open(&l, offset + 10, NOW + 5, &err));
    chunk = agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset);
    assert_int_equal(offset + chunk.n, lost);
    agent_log_sent(&l, chunk.n);
    /* Then the lines that were kept. */
    chunk = agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset);
    assert_int_equal(offset, lost);
    snprintf(expected, sizeof expected, "%08u ", (unsigned)(lost / 141));
    assert_memory_equal(chunk.p + CRILOG_PREFIX_LENGTH, expected, 9);
    /* All of it stored: no line about it is left over. */
    agent_log_sent(&l, chunk.n);
    assert_true(agent_log_stored(&l, offset + chunk.n, &err));
    agent_log_close(&l, 0);
    assert_true(agent_log_open(&l, offset + chunk.n, NOW, &err));
    assert_int_equal(l.marker_n, 0);
    agent_log_free(&l);
}

/* A reader that has forgotten what it acknowledged is told of the gap, and offsets stay right. */
static void test_marker_without_room(void **state)
{
    struct agent_log l = { 0 };
    struct status err;
    uint64_t offset;

    (void)state;
    put(&l, "one\n", false);
    put(&l, "two\n", false);
    assert_true(agent_log_open(&l, 0, NOW, &err));
    agent_log_sent(&l, agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset).n);
    assert_true(agent_log_stored(&l, 44, &err));
    agent_log_close(&l, 0);
    /* 44 bytes are gone, which is less than the line that says so: "two" goes, and the log grows by the rest. */
    assert_true(agent_log_open(&l, 0, NOW, &err));
    struct str chunk = agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset);
    assert_int_equal(offset, 0);
    assert_non_null(memmem(chunk.p, chunk.n, " bytes of output were lost", 26));
    assert_int_equal(chunk.n, l.head);
    agent_log_sent(&l, chunk.n);
    put(&l, "three\n", false);
    agent_log_next(&l, AGENT_LOG_CHUNK_MAX, &offset);
    assert_int_equal(offset, chunk.n);
    agent_log_free(&l);

    /* Complete and acknowledged: its length is final, so there is nothing to put the line into. */
    struct agent_log done = { 0 };
    put(&done, "one\n", false);
    done.ended = true;
    assert_true(agent_log_open(&done, 0, NOW, &err));
    agent_log_sent(&done, 44);
    assert_true(agent_log_stored(&done, 44, &err));
    agent_log_close(&done, 0);
    assert_true(agent_log_open(&done, 10, NOW, &err));
    assert_int_equal(agent_log_next(&done, AGENT_LOG_CHUNK_MAX, &offset).n, 0);
    assert_int_equal(offset, 44);
    assert_int_equal(done.head, 44);
    agent_log_free(&done);
}

/* ---- the property ---- */

/* A node that may lose anything but what it has stored. */
struct node {
    struct buf file;
    uint64_t position;
    bool reading;
    uint64_t expected; /* of the next chunk */
};

static uint32_t seed;

static uint32_t chance(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static void node_step(struct node *node, struct agent_log *l, int64_t now_ms)
{
    struct status err;
    uint64_t offset;

    if (!node->reading) {
        assert_true(agent_log_open(l, node->position, NOW, &err));
        node->reading = true;
        node->expected = node->position;
    }
    for (uint32_t i = chance(12); i > 0; i--) {
        struct str chunk = agent_log_next(l, CRILOG_LINE_MAX + chance(AGENT_LOG_CHUNK_MAX), &offset);
        if (chunk.n == 0)
            break;
        assert_true(offset >= node->expected);
        if (offset > node->expected) /* only at once after opening, and the first line tells */
            assert_true(node->expected == node->position && memmem(chunk.p, chunk.n, "bytes of output were lost", 25) != NULL);
        assert_int_equal(chunk.p[chunk.n - 1], '\n');
        agent_log_sent(l, chunk.n);
        node->expected = offset + chunk.n;
        if (chance(4) == 0)
            continue; /* received, not stored yet: a cut loses it, a later chunk must not be stored before */
        if (offset < node->position || (offset > node->position && node->position + 1 == 0))
            continue;
        if (node->position == offset || memmem(chunk.p, chunk.n, "bytes of output were lost", 25) != NULL) {
            buf_append(&node->file, chunk.p, chunk.n);
            node->position = offset + chunk.n;
            if (chance(2) == 0)
                assert_true(agent_log_stored(l, node->position, &err));
        } else {
            break;
        }
    }
    if (node->expected != node->position || chance(10) == 0) {
        agent_log_close(l, now_ms);
        node->reading = false;
    }
}

/* Reads the file: numbers go up by one, but for the gaps that marker lines tell of, whose bytes must be exact. */
static void check_file(struct node *node, const uint32_t *lengths, unsigned count, bool *lossy)
{
    const char *p = (const char *)node->file.p, *end = p + node->file.n;
    unsigned next = 0;
    uint64_t told = 0, missing = 0;

    while (p < end) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        struct crilog_line line;
        unsigned number;
        uint64_t lost;
        char text[100] = "";
        assert_non_null(line_end);
        assert_true(crilog_parse((struct str){ p, (size_t)(line_end - p) }, &line));
        memcpy(text, line.text.p, line.text.n < sizeof text - 1 ? line.text.n : sizeof text - 1);
        if (sscanf(text, "interlink-cri: %" SCNu64 " bytes of output were lost: the node was away", &lost) == 1) {
            told += lost;
        } else {
            assert_int_equal(sscanf(text, "n%u ", &number), 1);
            assert_true(number >= next);
            for (; next < number; next++)
                missing += lengths[next];
            assert_int_equal(line_end + 1 - p, lengths[number]);
            next++;
            assert_int_equal(told, missing);
        }
        p = line_end + 1;
    }
    for (; next < count; next++)
        missing += lengths[next];
    assert_int_equal(told, missing);
    *lossy = told > 0;
}

static void run_property(uint32_t start, bool patient, bool *lossy)
{
    enum { LINES_MAX = 60000 };
    struct agent_log l = { 0 };
    struct node node = { 0 };
    uint32_t *lengths = xcalloc(LINES_MAX, sizeof *lengths);
    unsigned count = 0;
    char *line = xmalloc(CRILOG_TEXT_MAX + 1);
    int64_t now = 0;
    unsigned away = 0;

    seed = start;
    memset(line, 'x', CRILOG_TEXT_MAX);
    for (int round = 0; round < 400; round++) {
        /* The container writes for a while. */
        for (uint32_t i = chance(300); i > 0 && count < LINES_MAX; i--) {
            size_t n = chance(20) == 0 ? 12 + chance(CRILOG_TEXT_MAX - 12) : 12 + chance(200);
            int head = snprintf(line, CRILOG_TEXT_MAX, "n%u ", count);
            line[head] = 'y';
            line[n] = '\n';
            size_t used = agent_log_write(&l, (enum crilog_stream)chance(2), NOW + count, (struct str){ line, n + 1 }, false);
            line[n] = 'x';
            if (used == 0) {
                assert_true(agent_log_full(&l));
                if (!patient && agent_log_stall_ms(&l, now) == 0)
                    agent_log_drop(&l);
                break;
            }
            lengths[count++] = (uint32_t)(CRILOG_PREFIX_LENGTH + n + 1);
        }
        now += chance(20000);
        if (!patient && away == 0 && chance(15) == 0)
            away = 40;
        if (away > 0 && node.reading) {
            agent_log_close(&l, now);
            node.reading = false;
        }
        if (away > 0)
            away--;
        else if (chance(3) > 0)
            node_step(&node, &l, now);
    }
    l.ended = true;
    while (node.position < l.head)
        node_step(&node, &l, now);
    check_file(&node, lengths, count, lossy);
    assert_true(count > 1000);
    buf_free(&node.file);
    agent_log_free(&l);
    free(lengths);
    free(line);
}

static void test_property_nothing_lost(void **state)
{
    bool lossy;

    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        run_property(i * 7919 + 1, true, &lossy);
        assert_false(lossy);
    }
}

static void test_property_losses_told(void **state)
{
    unsigned lossy_runs = 0;
    bool lossy;

    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        run_property(i * 104729 + 3, false, &lossy);
        lossy_runs += lossy;
    }
    assert_true(lossy_runs > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_offsets_refused),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_full_and_grace),
        cmocka_unit_test(test_marker),
        cmocka_unit_test(test_marker_without_room),
        cmocka_unit_test(test_property_nothing_lost),
        cmocka_unit_test(test_property_losses_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
