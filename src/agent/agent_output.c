/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_output.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/file.h"

#include "agent.pb-c.h"

static void agent_output_balance(struct agent_output *o);

void agent_output_init(struct agent_output *o, struct loop *loop)
{
    *o = (struct agent_output){ .loop = loop };
    o->log.away_since_ms = clock_mono_ms();
    list_init(&o->taps);
    for (int i = 0; i < 2; i++)
        o->streams[i] = (struct agent_output_stream){
            .output = o, .kind = (enum crilog_stream)i, .fd = -1, .over = true, .left = SIZE_MAX,
        };
}

/* ---- buffers ---- */

static void agent_output_buffer(struct agent_output_stream *s)
{
    if (s->in != NULL)
        return;
    void *p = mmap(NULL, AGENT_LOG_READ_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        log_error("out of memory: no room for a container's output (%u bytes)", AGENT_LOG_READ_SIZE);
        abort();
    }
    madvise(p, AGENT_LOG_READ_SIZE, MADV_NOHUGEPAGE);
    s->in = p;
}

/* Gives back what the beginning of a line does not need; all of it when there is none. */
static void agent_output_trim_stream(struct agent_output_stream *s)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (s->in_n + page - 1) / page * page;

    if (s->in == NULL)
        return;
    if (used == 0) {
        munmap(s->in, AGENT_LOG_READ_SIZE);
        s->in = NULL;
    } else if (used < AGENT_LOG_READ_SIZE) {
        madvise(s->in + used, AGENT_LOG_READ_SIZE - used, MADV_DONTNEED);
    }
}

static void agent_output_on_trim(void *arg)
{
    struct agent_output *o = arg;

    for (int i = 0; i < 2; i++)
        agent_output_trim_stream(&o->streams[i]);
    agent_log_trim(&o->log);
}

/* ---- the reader ---- */

/* The log has come to its end and the reader knows it. */
static bool agent_output_all_stored(const struct agent_output *o)
{
    return o->end_sent && o->log.tail == o->log.head;
}

static struct rpc_call *agent_output_detach(struct agent_output *o)
{
    struct rpc_call *call = o->reader;

    o->reader = NULL;
    agent_log_close(&o->log, clock_mono_ms());
    return call;
}

static void agent_output_on_push(void *arg)
{
    struct agent_output *o = arg;

    while (o->reader != NULL && !o->blocked) {
        Interlink__Agent__V1__LogsResponse message = INTERLINK__AGENT__V1__LOGS_RESPONSE__INIT;
        struct str chunk = agent_log_next(&o->log, AGENT_LOG_CHUNK_MAX, &message.offset);
        bool end = o->log.ended && message.offset + chunk.n == o->log.head;
        if (chunk.n == 0 && (!end || o->end_sent))
            return;
        message.data.data = (uint8_t *)(uintptr_t)chunk.p;
        message.data.len = chunk.n;
        message.end = end;
        agent_log_sent(&o->log, chunk.n);
        o->end_sent = end;
        o->blocked = !rpc_send(o->reader, &message.base);
    }
}

/* Together at the end of the loop's turn: both streams' lines make one message. */
static void agent_output_push(struct agent_output *o)
{
    if (o->reader != NULL && !o->blocked)
        deferred_start(o->loop, &o->push, agent_output_on_push, o);
}

static void agent_output_on_writable(void *arg)
{
    struct agent_output *o = arg;

    o->blocked = false;
    agent_output_push(o);
}

static void agent_output_on_cancel(void *arg)
{
    struct agent_output *o = arg;

    agent_output_detach(o);
    agent_output_balance(o);
}

static void agent_output_on_message(void *arg, const ProtobufCMessage *message)
{
    struct agent_output *o = arg;
    const Interlink__Agent__V1__LogsRequest *request = (const void *)message;
    struct status err = STATUS_INIT;

    if (message == NULL || !agent_log_stored(&o->log, request->stored, &err)) {
        struct rpc_call *call = agent_output_detach(o);
        rpc_finish(call, message == NULL ? NULL : &err);
    } else if (agent_output_all_stored(o)) {
        rpc_finish(agent_output_detach(o), NULL);
    }
    agent_output_balance(o);
}

void agent_output_read(struct agent_output *o, struct rpc_call *call, uint64_t from)
{
    struct status err = STATUS_INIT;

    if (o->reader != NULL)
        rpc_failf(agent_output_detach(o), STATUS_ABORTED, "another call reads this log now");
    if (!agent_log_open(&o->log, from, clock_real_ns(), &err)) {
        rpc_fail(call, &err);
        return;
    }
    o->reader = call;
    o->blocked = o->end_sent = false;
    rpc_call_on_message(call, agent_output_on_message, o);
    rpc_call_on_writable(call, agent_output_on_writable, o);
    rpc_call_on_cancel(call, agent_output_on_cancel, o);
    agent_output_push(o);
    agent_output_balance(o);
}

void agent_output_tap(struct agent_output *o, struct agent_output_tap *t)
{
    t->output = o;
    t->full = false;
    list_append(&o->taps, &t->link);
}

void agent_output_tap_ready(struct agent_output_tap *t)
{
    t->full = false;
    agent_output_balance(t->output);
}

void agent_output_untap(struct agent_output_tap *t)
{
    struct agent_output *o = t->output;

    if (o == NULL)
        return;
    t->output = NULL;
    list_remove(&t->link);
    agent_output_balance(o);
}

bool agent_output_unread(const struct agent_output *o)
{
    return o->reader != NULL && !agent_output_all_stored(o);
}

/* ---- the container's side ---- */

/* The node has been away for so long that old lines may give way to new ones. */
static bool agent_output_may_drop(const struct agent_output *o)
{
    return agent_log_stall_ms(&o->log, clock_mono_ms()) == 0;
}

static bool agent_output_has_line(const struct agent_output_stream *s)
{
    return s->in_n > CRILOG_TEXT_MAX || (s->in_n > 0 && (s->over || memchr(s->in, '\n', s->in_n) != NULL));
}

/* Puts what was read into the log, as far as there is room. */
static void agent_output_feed(struct agent_output_stream *s)
{
    struct agent_output *o = s->output;

    while (s->in_n > 0) {
        struct str in = { (const char *)s->in, s->in_n };
        size_t used = agent_log_write(&o->log, s->kind, clock_real_ns(), in, s->over);
        s->in_n -= used;
        if (used > 0 && s->in_n > 0)
            memmove(s->in, s->in + used, s->in_n);
        if (!agent_log_full(&o->log) || !agent_output_has_line(s) || !agent_output_may_drop(o))
            return;
        agent_log_drop(&o->log);
    }
}

static void agent_output_close_stream(struct agent_output_stream *s)
{
    watch_stop(&s->watch);
    timer_stop(&s->gather);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->over = true;
}

/* A process that fills its pipe gets a larger one, so that it and we take turns less often. */
static void agent_output_enlarge(struct agent_output_stream *s)
{
    if (!s->asked)
        s->enlarged = fcntl(s->fd, F_SETPIPE_SZ, AGENT_PIPE_SIZE) >= AGENT_PIPE_SIZE;
    s->asked = true;
}

/* After feeding, at most the beginning of a line is left in the buffer when this is so. */
static bool agent_output_log_takes(const struct agent_output *o)
{
    return !agent_log_full(&o->log) || agent_output_may_drop(o);
}

static bool agent_output_may_read(const struct agent_output *o)
{
    if (!agent_output_log_takes(o))
        return false;
    for (LIST_EACH(struct agent_output_tap, t, &o->taps, link))
        if (t->full && !o->last)
            return false;
    return true;
}

/* To those who watch as well. */
static void agent_output_show(const struct agent_output_stream *s, size_t n)
{
    struct str piece = { (const char *)s->in + s->in_n, n };

    for (LIST_EACH(struct agent_output_tap, t, &s->output->taps, link))
        t->full = !t->take(t->arg, s->kind, piece);
}

static bool agent_output_read_once(struct agent_output_stream *s, size_t *budget)
{
    size_t want = AGENT_LOG_READ_SIZE - s->in_n;

    if (want > s->left)
        want = s->left;
    if (s->left == 0) { /* all that was there when the process had ended */
        agent_output_close_stream(s);
        return false;
    }
    if (want == 0) /* the node went out of patience just now: what is in the buffer comes first */
        return true;
    ssize_t n = read(s->fd, s->in + s->in_n, want);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) { /* a terminal whose other end is closed says EIO */
        agent_output_close_stream(s);
        return false;
    }
    agent_output_show(s, (size_t)n);
    s->in_n += (size_t)n;
    if (s->left != SIZE_MAX)
        s->left -= (size_t)n;
    if (n >= 65536)
        agent_output_enlarge(s);
    *budget -= (size_t)n < *budget ? (size_t)n : *budget;
    return (size_t)n == want;
}

static void agent_output_on_readable(void *arg, unsigned events);

static void agent_output_on_gathered(void *arg)
{
    agent_output_on_readable(arg, WATCH_READ);
}

void agent_output_expect(struct agent_output *o)
{
    for (size_t i = 0; i < COUNT_OF(o->streams); i++)
        o->streams[i].read_ms = 0;
}

/* After `got` bytes: whether to look away for a moment. */
static void agent_output_gather(struct agent_output_stream *s, size_t got)
{
    int64_t now = clock_mono_ms(), pause = now - s->read_ms;

    if (got == 0)
        return;
    s->read_ms = now;
    if (s->fd < 0 || got >= AGENT_LOG_GATHER_SIZE || pause > AGENT_LOG_GATHER_MS + 1 || s->output->draining)
        return;
    agent_output_enlarge(s);
    if (s->enlarged)
        timer_start(s->output->loop, &s->gather, AGENT_LOG_GATHER_MS, agent_output_on_gathered, s);
}

static void agent_output_on_readable(void *arg, unsigned events)
{
    struct agent_output_stream *s = arg;
    struct agent_output *o = s->output;
    size_t budget = AGENT_LOG_TURN_MAX;
    bool more = true;

    (void)events;
    agent_output_buffer(s);
    while (more && budget > 0 && s->fd >= 0 && agent_output_may_read(o)) {
        more = agent_output_read_once(s, &budget);
        agent_output_feed(s);
    }
    agent_output_gather(s, AGENT_LOG_TURN_MAX - budget);
    agent_output_balance(o);
}

static void agent_output_on_stall(void *arg)
{
    agent_output_balance(arg);
}

static void agent_output_on_drained(void *arg)
{
    struct agent_output *o = arg;

    o->on_drained(o->arg);
}

static void agent_output_check_end(struct agent_output *o)
{
    if (!o->draining || o->log.ended)
        return;
    for (int i = 0; i < 2; i++)
        if (!o->streams[i].over || o->streams[i].in_n > 0)
            return;
    o->log.ended = true;
    timer_stop(&o->drain);
    timer_stop(&o->stall);
    agent_output_push(o);
    deferred_start(o->loop, &o->drained, agent_output_on_drained, o);
}

/* A pipe that may not be read now is not watched at all: once its writer is gone it would report that for ever. */
static void agent_output_watch(struct agent_output_stream *s, bool on)
{
    struct status err = STATUS_INIT;

    if (!on || s->fd < 0 || timer_running(&s->gather)) {
        watch_stop(&s->watch);
    } else if (s->watch.loop == NULL &&
               !watch_start(s->output->loop, &s->watch, s->fd, WATCH_READ, agent_output_on_readable, s, &err)) {
        log_error("a container's output cannot be read any more: %s", err.message);
        agent_output_close_stream(s);
    }
}

/* To be called after any change: moves what can be moved, and sees to it that somebody will call again. */
static void agent_output_balance(struct agent_output *o)
{
    for (int i = 0; i < 2; i++)
        agent_output_feed(&o->streams[i]);
    for (int i = 0; i < 2; i++)
        agent_output_watch(&o->streams[i], agent_output_may_read(o));
    if (agent_output_log_takes(o) || o->log.reading)
        timer_stop(&o->stall);
    else if (!timer_running(&o->stall))
        timer_start(o->loop, &o->stall, agent_log_stall_ms(&o->log, clock_mono_ms()), agent_output_on_stall, o);
    if (o->log.tail == o->log.head &&
        (o->log.memory != NULL || o->streams[0].in != NULL || o->streams[1].in != NULL) && !timer_running(&o->trim))
        timer_start(o->loop, &o->trim, AGENT_LOG_TRIM_MS, agent_output_on_trim, o);
    agent_output_push(o);
    agent_output_check_end(o);
}

bool agent_output_start(struct agent_output *o, int stdout_fd, int stderr_fd, struct status *err)
{
    int fds[2] = { stdout_fd, stderr_fd };
    bool ok = true;

    for (int i = 0; i < 2; i++) {
        struct agent_output_stream *s = &o->streams[i];
        if (fds[i] < 0)
            continue;
        fd_set_nonblocking(fds[i], true);
        s->fd = fds[i];
        s->over = false;
        if (ok && !watch_start(o->loop, &s->watch, s->fd, WATCH_READ, agent_output_on_readable, s, err))
            ok = false;
    }
    return ok;
}

/* Somebody holds a pipe open after the process: what is in it by now is the container's, the rest nobody's. */
static void agent_output_on_drain(void *arg)
{
    struct agent_output *o = arg;

    o->last = true;
    for (int i = 0; i < 2; i++) {
        struct agent_output_stream *s = &o->streams[i];
        int n = 0;
        if (s->fd < 0)
            continue;
        if (ioctl(s->fd, FIONREAD, &n) < 0 || n <= 0)
            agent_output_close_stream(s);
        else
            s->left = (size_t)n;
    }
    agent_output_balance(o);
}

void agent_output_drain(struct agent_output *o, void (*on_drained)(void *arg), void *arg)
{
    o->draining = true;
    o->on_drained = on_drained;
    o->arg = arg;
    timer_start(o->loop, &o->drain, AGENT_DRAIN_MS, agent_output_on_drain, o);
    /* As a rule the pipes' ends are there already. */
    for (int i = 0; i < 2; i++) {
        timer_stop(&o->streams[i].gather);
        if (o->streams[i].fd >= 0)
            agent_output_on_readable(&o->streams[i], WATCH_READ);
    }
    agent_output_balance(o);
}

void agent_output_cut(struct agent_output *o)
{
    for (int i = 0; i < 2; i++) {
        agent_output_close_stream(&o->streams[i]);
        o->streams[i].in_n = 0;
    }
    agent_output_check_end(o);
}

void agent_output_free(struct agent_output *o, const struct status *why)
{
    if (o->reader != NULL)
        rpc_fail(agent_output_detach(o), why);
    while (!list_empty(&o->taps))
        agent_output_untap(CONTAINER_OF(o->taps.next, struct agent_output_tap, link));
    agent_output_cut(o);
    for (int i = 0; i < 2; i++)
        agent_output_trim_stream(&o->streams[i]);
    timer_stop(&o->stall);
    timer_stop(&o->drain);
    timer_stop(&o->trim);
    deferred_stop(&o->push);
    deferred_stop(&o->drained);
    agent_log_free(&o->log);
}
