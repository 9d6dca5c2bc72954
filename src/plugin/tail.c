/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/tail.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/loop.h"
#include "text/timefmt.h"

/* Read at a time. */
#define TAIL_CHUNK (16u << 10)

struct tail {
    struct loop *loop;
    struct http_exchange *x;
    int fd;
    off_t at;
    uint64_t left;     /* bytes that may still be sent */
    int64_t since_ns;  /* lines before it are left out; 0: none are, any more */
    bool line_start;   /* at a line's beginning, while since_ns counts */
    bool follow;
    bool (*live)(void *arg);
    void *arg;
    struct timer timer;
};

static void tail_pump(void *arg);

static void tail_free(struct tail *t)
{
    timer_stop(&t->timer);
    close(t->fd);
    free(t->arg);
    free(t);
}

static void tail_on_gone(void *arg)
{
    tail_free(arg);
}

static void tail_end(struct tail *t)
{
    struct http_exchange *x = t->x;

    tail_free(t);
    http_reply_end(x);
}

/* Offset of the last `lines` lines. A last line without an end counts. */
static off_t tail_find(int fd, off_t size, uint64_t lines)
{
    char chunk[TAIL_CHUNK];
    off_t end = size;

    while (end > 0) {
        size_t want = end < (off_t)sizeof chunk ? (size_t)end : sizeof chunk;
        ssize_t n = pread(fd, chunk, want, end - (off_t)want);
        if (n != (ssize_t)want)
            return 0;
        for (size_t i = want; i > 0; i--) {
            /* The end of the last line separates nothing. */
            if (chunk[i - 1] != '\n' || end - (off_t)(want - i) == size)
                continue;
            if (--lines == 0)
                return end - (off_t)(want - i);
        }
        end -= (off_t)want;
    }
    return 0;
}

/* Leaves out lines before since_ns from the front of a piece; how many bytes that are. */
static size_t tail_skip(struct tail *t, const char *p, size_t n)
{
    size_t at = 0;

    while (t->since_ns > 0 && at < n) {
        if (t->line_start) {
            const char *blank = memchr(p + at, ' ', n - at);
            int64_t ns;
            struct str stamp = { p + at, blank != NULL ? (size_t)(blank - p) - at : n - at };
            if (stamp.n <= TIMEFMT_SIZE && timefmt_parse(stamp, &ns) && ns >= t->since_ns) {
                t->since_ns = 0;
                break;
            }
        }
        const char *end = memchr(p + at, '\n', n - at);
        t->line_start = end != NULL;
        at = end != NULL ? (size_t)(end - p) + 1 : n;
    }
    return at;
}

static void tail_at_end(struct tail *t)
{
    if (!t->follow) {
        tail_end(t);
        return;
    }
    /* Asked before the file is looked at once more: what was written before the end is not missed. */
    if (!t->live(t->arg))
        t->follow = false;
    timer_start(t->loop, &t->timer, t->follow ? PLUGIN_FOLLOW_MS : 0, tail_pump, t);
}

static void tail_pump(void *arg)
{
    struct tail *t = arg;
    char chunk[TAIL_CHUNK];
    bool more = true;

    timer_stop(&t->timer);
    while (more && t->left > 0) {
        ssize_t n = pread(t->fd, chunk, sizeof chunk, t->at);
        if (n <= 0) {
            tail_at_end(t);
            return;
        }
        t->at += n;
        size_t skip = tail_skip(t, chunk, (size_t)n);
        size_t take = (size_t)n - skip;
        take = take < t->left ? take : (size_t)t->left;
        t->left -= take;
        more = take == 0 || http_reply_send(t->x, chunk + skip, take);
    }
    if (t->left == 0)
        tail_end(t);
}

void tail_start(struct loop *loop, struct http_exchange *x, const struct tail_options *o)
{
    const struct interlink_log_request *r = o->request;
    struct http_header type = { "Content-Type", "text/plain; charset=utf-8" };
    struct stat st;
    int fd = open(o->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0) {
        free(o->arg);
        http_replyf(x, 404, "there is no log: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return;
    }
    struct tail *t = xcalloc(1, sizeof *t);
    *t = (struct tail){ .loop = loop, .x = x, .fd = fd, .line_start = true, .follow = r->follow, .live = o->live,
                        .arg = o->arg, .left = r->bytes > 0 ? r->bytes : UINT64_MAX };
    t->since_ns = r->since_time_ns;
    if (r->since_seconds > 0)
        t->since_ns = o->now_ns - (int64_t)r->since_seconds * 1000000000;
    if (r->tail > 0)
        t->at = tail_find(fd, st.st_size, r->tail);
    http_reply_start(x, 200, &type, 1);
    http_exchange_on_gone(x, tail_on_gone, t);
    http_exchange_on_writable(x, tail_pump, t);
    tail_pump(t);
}

#undef TAIL_CHUNK
