/* SPDX-License-Identifier: Apache-2.0 */
/* Raw output through the log writer and a small ring, in pieces of changing size, must come back from the reader as it was; the
 * reader also gets the input as it stands. */
#include "text/crilog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_rubbish(const uint8_t *data, size_t size)
{
    cleanup_buf struct buf out = BUF_INIT;
    struct crilog_reader r = { .timestamps = true };
    struct crilog_tail t = { .lines = 2 };
    size_t offset = 0;

    for (size_t at = 0; at < size; at += 13)
        crilog_read(&r, (struct str){ (const char *)data + at, size - at < 13 ? size - at : 13 }, &out, &out);
    crilog_reader_free(&r);
    if (crilog_tail_step(&t, (struct str){ (const char *)data, size }, &offset) && offset > size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t ring[CRILOG_LINE_MAX + 17];
    cleanup_buf struct buf log = BUF_INIT, out = BUF_INIT;
    struct crilog_writer w = { 0 };
    struct crilog_reader r = { 0 };
    size_t at = 0, known = 0, head = 0;

    read_rubbish(data, size);
    while (at < size) {
        size_t produced = 0, step = 1 + data[known / 2] * 7u;
        known = known + step < size ? known + step : size;
        struct crilog_span spans[2] = { { ring + head, sizeof ring - head }, { ring, head } };
        at += crilog_write(&w, CRILOG_STDERR, (int64_t)known, (struct str){ (const char *)data + at, known - at }, known == size, spans,
                           &produced);
        size_t first = produced < sizeof ring - head ? produced : sizeof ring - head;
        buf_append(&log, ring + head, first);
        buf_append(&log, ring, produced - first);
        head = (head + produced) % sizeof ring;
    }
    crilog_read(&r, (struct str){ (char *)log.p, log.n }, &out, &out);
    if (r.malformed != 0 || out.n != size || (size > 0 && memcmp(out.p, data, size) != 0))
        abort();
    crilog_reader_free(&r);
    return 0;
}
