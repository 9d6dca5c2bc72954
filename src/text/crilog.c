/* SPDX-License-Identifier: Apache-2.0 */
#include "text/crilog.h"

#include "text/timefmt.h"

/* ---- making ---- */

static const char *const crilog_stream_names[] = { [CRILOG_STDOUT] = "stdout", [CRILOG_STDERR] = "stderr" };

/* Where the parts of a prefix begin. */
#define CRILOG_AT_NANO 20
#define CRILOG_AT_STREAM 31
#define CRILOG_AT_TAG 38

static void crilog_make_prefix(struct crilog_writer *w, enum crilog_stream stream, int64_t now_ns,
                               char prefix[CRILOG_PREFIX_LENGTH])
{
    int64_t second = now_ns / 1000000000;
    uint32_t nano = (uint32_t)(now_ns % 1000000000);

    if (!w->made || w->second != second) {
        char text[TIMEFMT_SIZE];
        timefmt_nano(second * 1000000000, text);
        memcpy(w->prefix, text, CRILOG_AT_NANO);
        w->second = second;
        w->made = true;
    }
    memcpy(prefix, w->prefix, CRILOG_AT_NANO);
    for (int i = 8; i >= 0; i--, nano /= 10)
        prefix[CRILOG_AT_NANO + i] = (char)('0' + nano % 10);
    memcpy(prefix + CRILOG_AT_NANO + 9, "Z ", 2);
    memcpy(prefix + CRILOG_AT_STREAM, crilog_stream_names[stream], 6);
    memcpy(prefix + CRILOG_AT_STREAM + 6, " F ", 3);
}

/* Puts bytes where the spans are free; `at` counts over both. The caller has looked that they fit. */
static void crilog_put(const struct crilog_span out[2], size_t at, const char *p, size_t n)
{
    size_t first = at < out[0].n ? out[0].n - at : 0;

    if (first > n)
        first = n;
    if (first > 0)
        memcpy(out[0].p + at, p, first);
    if (n > first)
        memcpy(out[1].p + (at + first - out[0].n), p + first, n - first);
}

static void crilog_put_line(const struct crilog_span out[2], size_t at, const char *prefix, const char *text, size_t n)
{
    size_t total = CRILOG_PREFIX_LENGTH + n + 1;

    if (at + total <= out[0].n) { /* all but one line of a ring's round */
        uint8_t *p = out[0].p + at;
        memcpy(p, prefix, CRILOG_PREFIX_LENGTH);
        memcpy(p + CRILOG_PREFIX_LENGTH, text, n);
        p[total - 1] = '\n';
        return;
    }
    crilog_put(out, at, prefix, CRILOG_PREFIX_LENGTH);
    crilog_put(out, at + CRILOG_PREFIX_LENGTH, text, n);
    crilog_put(out, at + total - 1, "\n", 1);
}

size_t crilog_write(struct crilog_writer *w, enum crilog_stream stream, int64_t now_ns, struct str in, bool flush,
                    const struct crilog_span out[2], size_t *produced)
{
    char prefix[CRILOG_PREFIX_LENGTH];
    size_t room = out[0].n + out[1].n, used = 0, put = 0;

    crilog_make_prefix(w, stream, now_ns, prefix);
    while (used < in.n) {
        const char *text = in.p + used;
        size_t left = in.n - used, n = left < CRILOG_TEXT_MAX + 1 ? left : CRILOG_TEXT_MAX + 1;
        const char *end = memchr(text, '\n', n);
        if (end != NULL)
            n = (size_t)(end - text);
        else if (n > CRILOG_TEXT_MAX)
            n = CRILOG_TEXT_MAX;
        else if (!flush)
            break;
        if (room - put < CRILOG_PREFIX_LENGTH + n + 1)
            break;
        prefix[CRILOG_AT_TAG] = end != NULL ? 'F' : 'P';
        crilog_put_line(out, put, prefix, text, n);
        put += CRILOG_PREFIX_LENGTH + n + 1;
        used += n + (end != NULL);
    }
    *produced = put;
    return used;
}

/* ---- reading ---- */

/* Cuts the word before the next blank off the front. */
static bool crilog_word(struct str *rest, struct str *word)
{
    const char *blank = rest->n > 0 ? memchr(rest->p, ' ', rest->n) : NULL;

    if (blank == NULL)
        return false;
    *word = (struct str){ rest->p, (size_t)(blank - rest->p) };
    rest->n -= word->n + 1;
    rest->p = blank + 1;
    return true;
}

bool crilog_parse(struct str line, struct crilog_line *out)
{
    struct str stream, tags;

    if (!crilog_word(&line, &out->time) || !timefmt_parse(out->time, &out->time_ns) || !crilog_word(&line, &stream) ||
        !crilog_word(&line, &tags))
        return false;
    if (!str_eq(stream, "stdout") && !str_eq(stream, "stderr"))
        return false;
    out->stream = str_eq(stream, "stdout") ? CRILOG_STDOUT : CRILOG_STDERR;
    /* Tags are separated by colons; the first says whether the line is partial, further ones mean nothing yet. */
    if (tags.n == 0 || (tags.p[0] != 'P' && tags.p[0] != 'F') || (tags.n > 1 && tags.p[1] != ':'))
        return false;
    out->partial = tags.p[0] == 'P';
    out->text = line;
    return true;
}

static bool crilog_wanted(const struct crilog_reader *r, const struct crilog_line *line)
{
    if ((r->only_stdout && line->stream != CRILOG_STDOUT) || (r->only_stderr && line->stream != CRILOG_STDERR))
        return false;
    return (r->since_ns == 0 || line->time_ns >= r->since_ns) && (r->until_ns == 0 || line->time_ns <= r->until_ns);
}

static void crilog_emit(struct crilog_reader *r, struct buf *out, const void *p, size_t n)
{
    if (r->limit_bytes > 0 && n >= r->limit_bytes - r->written) {
        n = r->limit_bytes - r->written;
        r->done = true;
    }
    buf_append(out, p, n);
    r->written += n;
}

static void crilog_read_line(struct crilog_reader *r, struct str text, struct buf *out_stdout, struct buf *out_stderr)
{
    struct crilog_line line;

    if (text.n == 0)
        return;
    if (!crilog_parse(text, &line)) {
        r->malformed++;
        return;
    }
    bool continued = r->continued[line.stream];
    r->continued[line.stream] = line.partial;
    if (!crilog_wanted(r, &line))
        return;
    struct buf *out = line.stream == CRILOG_STDOUT ? out_stdout : out_stderr;
    if (r->timestamps && !continued) {
        crilog_emit(r, out, line.time.p, line.time.n);
        if (!r->done)
            crilog_emit(r, out, " ", 1);
    }
    if (!r->done)
        crilog_emit(r, out, line.text.p, line.text.n);
    if (!r->done && !line.partial)
        crilog_emit(r, out, "\n", 1);
}

void crilog_read(struct crilog_reader *r, struct str in, struct buf *out_stdout, struct buf *out_stderr)
{
    while (in.n > 0 && !r->done) {
        const char *end = memchr(in.p, '\n', in.n);
        size_t n = end != NULL ? (size_t)(end - in.p) : in.n;
        bool whole = end != NULL && r->rest.n == 0 && !r->skipping;
        if (whole) {
            crilog_read_line(r, (struct str){ in.p, n }, out_stdout, out_stderr);
        } else if (!r->skipping && r->rest.n + n > CRILOG_READ_LINE_MAX) {
            r->malformed++;
            r->skipping = true;
            buf_clear(&r->rest);
        } else if (!r->skipping) {
            buf_append(&r->rest, in.p, n);
        }
        if (end != NULL && !whole) {
            if (!r->skipping)
                crilog_read_line(r, (struct str){ (const char *)r->rest.p, r->rest.n }, out_stdout, out_stderr);
            buf_clear(&r->rest);
            r->skipping = false;
        }
        n += end != NULL;
        in.p += n;
        in.n -= n;
    }
}

void crilog_reader_free(struct crilog_reader *r)
{
    buf_free(&r->rest);
}

bool crilog_tail_step(struct crilog_tail *t, struct str block, size_t *offset)
{
    size_t at = block.n;

    if (at == 0)
        return false;
    if (!t->seen_end) {
        t->seen_end = true;
        if (t->lines == 0) {
            *offset = at;
            return true;
        }
        if (block.p[at - 1] == '\n') /* ends the last line, does not separate it from another */
            at--;
    }
    while (at > 0) {
        const char *found = memrchr(block.p, '\n', at);
        if (found == NULL)
            return false;
        at = (size_t)(found - block.p);
        if (--t->lines == 0) {
            *offset = at + 1;
            return true;
        }
    }
    return false;
}

#undef CRILOG_AT_NANO
#undef CRILOG_AT_STREAM
#undef CRILOG_AT_TAG
