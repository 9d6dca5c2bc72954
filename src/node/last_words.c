/* SPDX-License-Identifier: Apache-2.0 */
#include "node/last_words.h"

#include "io/loop.h"

struct last_words {
    struct interlink_logs *logs; /* owned; NULL: it has ended */
    struct timer timer;
    struct buf end; /* of what came so far */
    uint64_t bytes;
    void (*on_done)(void *arg, const char *text);
    void *arg;
};

/* One line: ends of lines become "; ", and only what any terminal can show. */
static void last_words_line(const struct buf *end, struct buf *out)
{
    size_t at = end->n > LAST_WORDS_SHOWN ? end->n - LAST_WORDS_SHOWN : 0;
    bool pause = false;

    /* Not from the middle of a line on. */
    const uint8_t *line = at > 0 ? memchr(end->p + at, '\n', end->n - at - 1) : NULL;
    if (line != NULL)
        at = (size_t)(line - end->p);
    for (; at < end->n; at++) {
        uint8_t c = end->p[at];
        if (c == '\n') {
            pause = out->n > 0;
            continue;
        }
        if (pause)
            buf_append_str(out, "; ");
        pause = false;
        buf_append_byte(out, c >= ' ' && c < 0x7f ? c : c == '\t' ? ' ' : '?');
    }
}

static void last_words_tell(void *arg)
{
    struct last_words *words = arg;
    cleanup_buf struct buf line = BUF_INIT;
    void (*on_done)(void *arg, const char *text) = words->on_done;
    void *owner = words->arg;

    last_words_line(&words->end, &line);
    last_words_cancel(words);
    on_done(owner, buf_cstr(&line));
}

static bool last_words_on_data(void *arg, const void *p, size_t n)
{
    struct last_words *words = arg;

    words->bytes += n;
    buf_append(&words->end, p, n);
    if (words->end.n > 2 * LAST_WORDS_SHOWN) {
        memmove(words->end.p, words->end.p + words->end.n - LAST_WORDS_SHOWN - 1, LAST_WORDS_SHOWN + 1);
        words->end.n = LAST_WORDS_SHOWN + 1;
    }
    /* What is longer is no log of an agent that could not begin: it is held back until the time is over. */
    return words->bytes <= LAST_WORDS_READ_MAX;
}

static void last_words_on_end(void *arg, const struct status *err)
{
    struct last_words *words = arg;

    (void)err;
    words->logs = NULL;
    last_words_tell(words);
}

struct last_words *last_words_start(struct loop *loop, struct interlink_target *target, const struct interlink_log_request *request,
                                    void (*on_done)(void *arg, const char *text), void *arg)
{
    static const struct interlink_logs_events events = { last_words_on_data, last_words_on_end };
    struct last_words *words = xcalloc(1, sizeof *words);

    *words = (struct last_words){ .on_done = on_done, .arg = arg };
    words->logs = interlink_logs_start(target, request, &events, words);
    timer_start(loop, &words->timer, LAST_WORDS_TIMEOUT_MS, last_words_tell, words);
    return words;
}

void last_words_cancel(struct last_words *words)
{
    if (words == NULL)
        return;
    interlink_logs_cancel(words->logs);
    timer_stop(&words->timer);
    buf_free(&words->end);
    free(words);
}
