/* SPDX-License-Identifier: Apache-2.0 */
#include "interlink/log_strip.h"

/* "2026-11-24T05:36:00+00:00 ", as `date -Is --utc` writes it. */
#define LOG_STRIP_DATE "dddd-dd-ddTdd:dd:dd+00:00 "
/* No word of the plugin's is longer: paths and session names are in them. */
#define LOG_STRIP_LINE_MAX 4096

/* ---- patterns ---- */

enum log_strip_match { LOG_STRIP_NO, LOG_STRIP_PREFIX, LOG_STRIP_YES };

/* Whether `text` begins with the pattern ('d': a digit), or is the beginning of something that does. */
static enum log_strip_match log_strip_begins(struct str text, const char *pattern)
{
    for (size_t i = 0; pattern[i] != '\0'; i++) {
        if (i == text.n)
            return LOG_STRIP_PREFIX;
        bool digit = text.p[i] >= '0' && text.p[i] <= '9';
        if (pattern[i] == 'd' ? !digit : text.p[i] != pattern[i])
            return LOG_STRIP_NO;
    }
    return LOG_STRIP_YES;
}

/* Letters only: 'd' is itself. */
static enum log_strip_match log_strip_word(struct str text, const char *word)
{
    size_t n = strlen(word);
    size_t common = text.n < n ? text.n : n;

    if (common > 0 && memcmp(text.p, word, common) != 0)
        return LOG_STRIP_NO;
    return text.n < n ? LOG_STRIP_PREFIX : LOG_STRIP_YES;
}

static struct str log_strip_after(struct str text, size_t n)
{
    return (struct str){ text.p + n, text.n - n };
}

/* What the batch script says of its progress. */
static enum log_strip_match log_strip_dated(struct str line)
{
    static const char *const words[] = {
        "Running in background ", "Waiting for container ", "Container ", "Checking if file exists: ", "attempt ",
        "End of script, ",        "Running init container ", "InitContainer ",
    };
    enum log_strip_match best = log_strip_begins(line, LOG_STRIP_DATE);

    if (best != LOG_STRIP_YES)
        return best;
    best = LOG_STRIP_NO;
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        enum log_strip_match m = log_strip_word(log_strip_after(line, strlen(LOG_STRIP_DATE)), words[i]);
        best = m > best ? m : best;
    }
    return best;
}

/* A line of the batch script's output. `marker`: only the one that says whose job it is. */
static enum log_strip_match log_strip_line(struct str line, bool marker)
{
    static const char *const words[] = { "This pod ", "To get more info, please run: scontrol show job ", "slurmstepd: ", "srun: " };
    enum log_strip_match best = marker ? LOG_STRIP_NO : log_strip_dated(line);

    for (size_t i = 0; i < (marker ? 1 : COUNT_OF(words)); i++) {
        enum log_strip_match m = log_strip_word(line, words[i]);
        if (m == LOG_STRIP_YES && i == 0 && memchr(line.p, '\n', line.n) != NULL &&
            memmem(line.p, line.n, " has been submitted to SLURM node ", 34) == NULL)
            m = LOG_STRIP_NO;
        best = m > best ? m : best;
    }
    return best;
}

/* The words of a log that does not exist yet; they end without a new line. *length: theirs, with YES. */
static enum log_strip_match log_strip_waiting(struct str text, size_t *length)
{
    static const char end[] = "because it does not exist yet, sleeping before retrying...";
    static const char middle[] = "Cannot open in follow mode the container logs ";
    enum log_strip_match session = log_strip_word(text, "HTTP InterLink session ");
    enum log_strip_match bare = log_strip_word(text, middle);

    if (session == LOG_STRIP_NO && bare == LOG_STRIP_NO)
        return LOG_STRIP_NO;
    const char *found = memmem(text.p, text.n, end, sizeof end - 1);
    const char *line = memchr(text.p, '\n', text.n);
    if (found != NULL && (line == NULL || line > found)) {
        *length = (size_t)(found - text.p) + sizeof end - 1;
        return memmem(text.p, *length, middle, sizeof middle - 1) != NULL ? LOG_STRIP_YES : LOG_STRIP_NO;
    }
    return line == NULL && text.n < LOG_STRIP_LINE_MAX ? LOG_STRIP_PREFIX : LOG_STRIP_NO;
}

/* ---- the end ---- */

static bool log_strip_digits(struct str *text)
{
    size_t n = 0;

    while (n < text->n && text->p[n] >= '0' && text->p[n] <= '9')
        n++;
    *text = log_strip_after(*text, n);
    return n > 0 || text->n == 0;
}

/* bash's TIMEFORMAT without a setting: "\nreal\t0m1.005s\nuser\t0m0.002s\nsys\t0m0.001s\n"; the comma is some locales' point. */
static enum log_strip_match log_strip_time(struct str text)
{
    static const char *const names[] = { "\nreal\t", "user\t", "sys\t" };

    for (size_t i = 0; i < COUNT_OF(names); i++) {
        enum log_strip_match m = log_strip_word(text, names[i]);
        if (m != LOG_STRIP_YES)
            return m;
        text = log_strip_after(text, strlen(names[i]));
        if (!log_strip_digits(&text) || (text.n > 0 && *text.p != 'm'))
            return LOG_STRIP_NO;
        text = log_strip_after(text, text.n > 0);
        if (!log_strip_digits(&text) || (text.n > 0 && *text.p != '.' && *text.p != ','))
            return LOG_STRIP_NO;
        text = log_strip_after(text, text.n > 0);
        if (!log_strip_digits(&text))
            return LOG_STRIP_NO;
        m = log_strip_word(text, "s\n");
        if (m != LOG_STRIP_YES)
            return m;
        text = log_strip_after(text, 2);
    }
    return text.n == 0 ? LOG_STRIP_YES : LOG_STRIP_NO;
}

/* Gives out all but what may be the beginning of these words. */
static void log_strip_body(struct log_strip *s, struct str piece, struct buf *out)
{
    size_t from;

    if (!s->stock) {
        buf_append(out, piece.p, piece.n);
        return;
    }
    if (piece.n > LOG_STRIP_TAIL_MAX) {
        buf_append(out, s->tail.p, s->tail.n);
        buf_append(out, piece.p, piece.n - LOG_STRIP_TAIL_MAX);
        buf_clear(&s->tail);
        piece = log_strip_after(piece, piece.n - LOG_STRIP_TAIL_MAX);
    }
    buf_append(&s->tail, piece.p, piece.n);
    from = s->tail.n > LOG_STRIP_TAIL_MAX ? s->tail.n - LOG_STRIP_TAIL_MAX : 0;
    while (from < s->tail.n &&
           log_strip_time((struct str){ (const char *)s->tail.p + from, s->tail.n - from }) == LOG_STRIP_NO)
        from++;
    buf_append(out, s->tail.p, from);
    buf_consume(&s->tail, from);
}

/* ---- the beginning ---- */

/* Everything up to the line that says whose job it is. */
static bool log_strip_skip_noise(struct log_strip *s, bool last)
{
    struct str text = { (const char *)s->head.p, s->head.n };

    for (size_t at = 0; at < text.n;) {
        const char *end = memchr(text.p + at, '\n', text.n - at);
        size_t n = end != NULL ? (size_t)(end - text.p) + 1 - at : text.n - at;
        if (end != NULL && log_strip_line((struct str){ text.p + at, n }, true) == LOG_STRIP_YES) {
            buf_consume(&s->head, at);
            return true;
        }
        at += n;
    }
    return last || text.n >= LOG_STRIP_HEAD_MAX;
}

/* Takes one thing of the plugin's from the front. PREFIX: that cannot be told yet; NO: the container's output begins here. */
static enum log_strip_match log_strip_one(struct log_strip *s)
{
    struct str text = { (const char *)s->head.p, s->head.n };
    size_t waiting = 0;
    enum log_strip_match m = log_strip_waiting(text, &waiting);

    if (m != LOG_STRIP_NO) {
        buf_consume(&s->head, waiting);
        s->stock = s->stock || m == LOG_STRIP_YES;
        return m;
    }
    const char *end = text.n > 0 ? memchr(text.p, '\n', text.n) : NULL;
    size_t n = end != NULL ? (size_t)(end - text.p) + 1 : text.n;
    /* Before the line that says whose job it is nothing else counts as the script's. */
    m = log_strip_line((struct str){ text.p, n }, !s->stock);
    if (m == LOG_STRIP_YES && end == NULL)
        m = text.n < LOG_STRIP_LINE_MAX ? LOG_STRIP_PREFIX : LOG_STRIP_NO;
    else if (m == LOG_STRIP_PREFIX && end != NULL)
        m = LOG_STRIP_NO;
    if (m == LOG_STRIP_YES) {
        s->ended = s->ended || memmem(text.p, n, " ended with status ", 19) != NULL;
        buf_consume(&s->head, n);
        s->stock = true;
    }
    return m;
}

static void log_strip_head(struct log_strip *s, bool last, struct buf *out)
{
    enum log_strip_match m = LOG_STRIP_YES;

    if (s->noisy && !s->stock && !log_strip_skip_noise(s, last))
        return;
    while (s->head.n > 0 && m == LOG_STRIP_YES)
        m = log_strip_one(s);
    if (s->head.n == 0 || (m == LOG_STRIP_PREFIX && !last))
        return;
    s->begun = true;
    log_strip_body(s, (struct str){ (const char *)s->head.p, s->head.n }, out);
    buf_free(&s->head);
}

/* ---- all of it ---- */

void log_strip_feed(struct log_strip *s, struct str piece, struct buf *out)
{
    while (!s->begun && piece.n > 0) {
        size_t room = LOG_STRIP_HEAD_MAX - s->head.n, n = piece.n < room ? piece.n : room;
        buf_append(&s->head, piece.p, n);
        piece = log_strip_after(piece, n);
        log_strip_head(s, false, out);
    }
    if (piece.n > 0)
        log_strip_body(s, piece, out);
}

void log_strip_end(struct log_strip *s, struct buf *out)
{
    if (!s->begun)
        log_strip_head(s, true, out);
    if (log_strip_time((struct str){ (const char *)s->tail.p, s->tail.n }) != LOG_STRIP_YES)
        buf_append(out, s->tail.p, s->tail.n);
    log_strip_reset(s);
}

void log_strip_reset(struct log_strip *s)
{
    buf_free(&s->head);
    buf_free(&s->tail);
    s->begun = s->stock = s->ended = false;
}

#undef LOG_STRIP_DATE
#undef LOG_STRIP_LINE_MAX
