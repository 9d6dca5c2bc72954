/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_log.h"

#include <sys/mman.h>

static void agent_log_allocate(struct agent_log *l)
{
    if (l->memory != NULL)
        return;
    void *p = mmap(NULL, AGENT_LOG_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        log_error("out of memory: no room for a container's output (%u bytes)", AGENT_LOG_SIZE);
        abort();
    }
    /* One huge page for the first line of a quiet container would be the whole ring at once. */
    madvise(p, AGENT_LOG_SIZE, MADV_NOHUGEPAGE);
    l->memory = p;
}

void agent_log_free(struct agent_log *l)
{
    if (l->memory != NULL)
        munmap(l->memory, AGENT_LOG_SIZE);
    l->memory = NULL;
    l->tail = l->head;
    l->old_at = l->old_n = l->young_n = 0;
    l->wrapped = false;
}

void agent_log_trim(struct agent_log *l)
{
    if (l->tail == l->head)
        agent_log_free(l);
}

/* ---- the container's side ---- */

/* Where the next line may go: one piece that holds the longest line, or nothing. */
static struct crilog_span agent_log_room(const struct agent_log *l, bool *wraps)
{
    size_t old_end = l->old_at + l->old_n;

    *wraps = l->wrapped;
    if (!l->wrapped && AGENT_LOG_SIZE - old_end >= CRILOG_LINE_MAX)
        return (struct crilog_span){ l->memory + old_end, AGENT_LOG_SIZE - old_end };
    *wraps = true;
    if (l->old_at - l->young_n >= CRILOG_LINE_MAX)
        return (struct crilog_span){ l->memory + l->young_n, l->old_at - l->young_n };
    return (struct crilog_span){ NULL, 0 };
}

bool agent_log_full(const struct agent_log *l)
{
    bool wraps;

    return l->memory != NULL && agent_log_room(l, &wraps).n == 0;
}

size_t agent_log_write(struct agent_log *l, enum crilog_stream stream, int64_t real_ns, struct str in, bool flush)
{
    size_t taken = 0;

    if (in.n == 0)
        return 0;
    agent_log_allocate(l);
    for (;;) {
        bool wraps;
        struct crilog_span room[2] = { agent_log_room(l, &wraps), { NULL, 0 } };
        size_t made = 0;
        if (room[0].n == 0)
            return taken;
        struct str rest = { in.p + taken, in.n - taken };
        size_t used = crilog_write(&l->writer, stream, real_ns, rest, flush, room, &made);
        if (used == 0 && made == 0)
            return taken;
        taken += used;
        l->head += made;
        if (wraps) {
            l->wrapped = true;
            l->young_n += made;
        } else {
            l->old_n += made;
        }
        if (taken == in.n)
            return taken;
    }
}

int64_t agent_log_stall_ms(const struct agent_log *l, int64_t mono_ms)
{
    if (l->reading)
        return -1;
    int64_t left = l->away_since_ms + LOG_STALL_GRACE_MS - mono_ms;
    return left > 0 ? left : 0;
}

/* Forgets the first n bytes kept. */
static void agent_log_consume(struct agent_log *l, uint64_t n)
{
    l->tail += n;
    if (n < l->old_n) {
        l->old_at += (size_t)n;
        l->old_n -= (size_t)n;
        return;
    }
    l->old_at = (size_t)n - l->old_n;
    l->old_n = l->young_n - l->old_at;
    l->young_n = 0;
    l->wrapped = false;
    /* Starting again at the beginning keeps a quiet container's log within one page. */
    if (l->old_n == 0)
        l->old_at = 0;
}

/* Drops lines until at least n bytes are gone, or all are. */
static void agent_log_drop_lines(struct agent_log *l, size_t n)
{
    if (n >= l->old_n) {
        size_t rest = n - l->old_n;
        agent_log_consume(l, l->old_n);
        if (rest == 0 || l->old_n == 0)
            return;
        n = rest < l->old_n ? rest : l->old_n;
    }
    const uint8_t *from = l->memory + l->old_at + n - 1;
    const uint8_t *end = memchr(from, '\n', l->old_n - n + 1);
    agent_log_consume(l, end != NULL ? (uint64_t)(end + 1 - from) + n - 1 : l->old_n);
}

void agent_log_drop(struct agent_log *l)
{
    agent_log_drop_lines(l, AGENT_LOG_SIZE / 8);
}

/* ---- the reader's side ---- */

static size_t agent_log_make_marker(struct agent_log *l, uint64_t lost, int64_t real_ns)
{
    struct crilog_writer writer = { 0 };
    struct crilog_span room[2] = { { l->marker, sizeof l->marker }, { NULL, 0 } };
    char text[96];
    size_t made = 0;

    int n = snprintf(text, sizeof text, "interlink-cri: %" PRIu64 " bytes of output were lost: the node was away\n", lost);
    crilog_write(&writer, CRILOG_STDERR, real_ns, (struct str){ text, (size_t)n }, false, room, &made);
    return made;
}

/* Puts the line that tells of the loss in place of the last bytes lost, from `from` to tail. */
static void agent_log_mark(struct agent_log *l, uint64_t from, int64_t real_ns)
{
    for (;;) {
        l->marker_n = agent_log_make_marker(l, l->tail - from, real_ns);
        if (l->tail - from >= l->marker_n)
            break;
        /* So little is missing that the line would not fit: let another line go, or, when there is none, make room where
         * nothing was written yet. */
        if (l->tail < l->head) {
            agent_log_drop_lines(l, 1);
        } else if (!l->ended) {
            l->head += from + l->marker_n - l->tail;
            l->tail = l->head;
        } else {
            /* The log is complete and its end was acknowledged before: there is nothing to put the line into. */
            l->marker_n = 0;
            break;
        }
    }
    l->marker_at = l->tail - l->marker_n;
}

bool agent_log_open(struct agent_log *l, uint64_t from, int64_t real_ns, struct status *err)
{
    if (from > l->head)
        return status_set(err, STATUS_OUT_OF_RANGE,
                          "the log is asked for from byte %" PRIu64 " on, but only %" PRIu64 " bytes were ever made", from,
                          l->head);
    l->reading = true;
    if (from >= l->tail) {
        l->marker_n = 0;
        l->sent = from;
        return agent_log_stored(l, from, err);
    }
    /* Stored in part, the same line must go on as it began. */
    if (l->marker_n > 0 && l->marker_at + l->marker_n == l->tail && from >= l->marker_at) {
        l->sent = from;
        return true;
    }
    agent_log_mark(l, from, real_ns);
    l->sent = l->marker_at;
    return true;
}

void agent_log_close(struct agent_log *l, int64_t mono_ms)
{
    if (!l->reading)
        return;
    l->reading = false;
    l->away_since_ms = mono_ms;
}

struct str agent_log_next(const struct agent_log *l, size_t max, uint64_t *offset)
{
    const uint8_t *p;
    size_t n;

    *offset = l->sent;
    if (l->sent < l->tail)
        return (struct str){ (const char *)l->marker + (l->sent - l->marker_at), (size_t)(l->tail - l->sent) };
    size_t at = (size_t)(l->sent - l->tail);
    if (at < l->old_n) {
        p = l->memory + l->old_at + at;
        n = l->old_n - at;
    } else {
        p = l->memory + (at - l->old_n);
        n = l->young_n - (at - l->old_n);
    }
    if (n > max) {
        const uint8_t *end = memrchr(p, '\n', max);
        n = end != NULL ? (size_t)(end + 1 - p) : max;
    }
    return (struct str){ (const char *)p, n };
}

void agent_log_sent(struct agent_log *l, size_t n)
{
    l->sent += n;
}

bool agent_log_stored(struct agent_log *l, uint64_t offset, struct status *err)
{
    if (offset > l->sent)
        return status_set(err, STATUS_OUT_OF_RANGE,
                          "the log was said to be stored up to byte %" PRIu64 ", but was sent only up to %" PRIu64, offset,
                          l->sent);
    if (offset > l->tail)
        agent_log_consume(l, offset - l->tail);
    return true;
}
