/* SPDX-License-Identifier: Apache-2.0 */
#include "http/channel_internal.h"

static void channel_conn_on_pump(void *arg);
static void channel_conn_on_timer(void *arg);

/* ---- channels ---- */

struct channel *channel_new(struct channel_conn *conn)
{
    struct channel *c = xcalloc(1, sizeof *c);

    c->conn = conn;
    list_init(&c->ready);
    list_init(&c->resume);
    list_init(&c->drain);
    list_append(&conn->channels, &c->link);
    conn->channel_count++;
    return c;
}

void channel_gone(struct channel *c, const struct status *err)
{
    struct channel_conn *conn = c->conn;

    if (c->gone)
        return;
    c->gone = true;
    channel_drop_held(c);
    channel_queue_drop(conn, &c->out);
    channel_count_out(c);
    spdy_detach(&conn->spdy, &c->stream);
    if (conn->numbers != NULL)
        conn->numbers[c->number] = NULL;
    if (conn->target == c)
        conn->target = NULL;
    conn->paused -= c->paused ? 1 : 0;
    list_remove(&c->ready);
    list_remove(&c->resume);
    list_remove(&c->drain);
    list_remove(&c->link);
    list_append(&conn->gone, &c->link);
    conn->channel_count--;
    channel_conn_want_pump(conn);
    if (c->listening)
        c->listener.on_gone(c->listener.arg, err != NULL && err->code != STATUS_OK ? err : NULL);
}

void channel_check_done(struct channel *c)
{
    if (c->end_sent && c->end_heard)
        channel_gone(c, NULL);
}

static void channel_conn_all_gone(struct channel_conn *conn, const struct status *err)
{
    while (!list_empty(&conn->channels))
        channel_gone(CONTAINER_OF(conn->channels.next, struct channel, link), err);
}

/* ---- the end of a connection ---- */

static void channel_conn_destroy(struct channel_conn *conn)
{
    deferred_stop(&conn->pump);
    timer_stop(&conn->timer);
    stream_free(conn->stream);
    http_output_free(&conn->output);
    spdy_free(&conn->spdy);
    websocket_free(&conn->websocket);
    buf_free(&conn->in);
    buf_free(&conn->base64);
    free(conn->numbers);
    free(conn);
}

void channel_conn_leave(struct channel_conn *conn)
{
    if (--conn->busy > 0)
        return;
    while (!list_empty(&conn->gone)) {
        struct channel *c = CONTAINER_OF(conn->gone.next, struct channel, link);
        list_remove(&c->link);
        free(c);
    }
    if (conn->freed)
        channel_conn_destroy(conn);
}

void channel_conn_free(struct channel_conn *conn)
{
    struct status err;

    if (conn == NULL || conn->freed)
        return;
    conn->freed = true;
    channel_conn_enter(conn);
    status_set(&err, STATUS_CANCELLED, "the connection was closed");
    channel_conn_all_gone(conn, &err);
    channel_conn_leave(conn);
}

void channel_conn_finish(struct channel_conn *conn, const struct status *err)
{
    struct status told = STATUS_INIT;

    if (conn->state == CHANNEL_CLOSED || conn->freed)
        return;
    if (conn->why.code != STATUS_OK)
        told = conn->why;
    else if (err != NULL)
        told = *err;
    conn->state = CHANNEL_CLOSED;
    deferred_stop(&conn->pump);
    timer_stop(&conn->timer);
    stream_free(conn->stream);
    conn->stream = NULL;
    channel_conn_all_gone(conn, &told);
    if (!conn->freed)
        conn->options.on_close(conn->options.arg, &told);
}

void channel_conn_fail(struct channel_conn *conn, enum status_code code, const char *why)
{
    struct status err;

    if (conn->state == CHANNEL_CLOSED || conn->freed)
        return;
    /* Behind our last word an end is what we wait for, however it comes. */
    if (conn->state == CHANNEL_FAREWELL && conn->output.pending == 0) {
        channel_conn_finish(conn, NULL);
        return;
    }
    status_set(&err, code, "connection to %s: %s", conn->peer, why);
    channel_conn_finish(conn, &err);
}

/* The engines have said theirs already when it was them who found the fault, and say no more after it. */
static void channel_conn_last_word(struct channel_conn *conn)
{
    bool peace = conn->why.code == STATUS_OK;

    if (conn->spdy_carrier)
        spdy_goaway(&conn->spdy, peace ? SPDY_GOAWAY_OK : SPDY_GOAWAY_INTERNAL_ERROR);
    if (conn->websocket_carrier)
        websocket_close(&conn->websocket, peace ? WEBSOCKET_NORMAL : WEBSOCKET_GOING_AWAY, peace ? "" : conn->why.message);
    channel_conn_want_pump(conn);
}

/* The first reason is the one that counts. */
static void channel_conn_because(struct channel_conn *conn, const struct status *err)
{
    if (err == NULL || err->code == STATUS_OK || conn->why.code != STATUS_OK)
        return;
    conn->why = *err;
    log_debug("channels: connection to %s: %s", conn->peer, err->message);
}

void channel_conn_end(struct channel_conn *conn, const struct status *err)
{
    if (conn->state >= CHANNEL_FAREWELL || conn->freed)
        return;
    channel_conn_because(conn, err);
    if (conn->stream == NULL) {
        channel_conn_finish(conn, NULL);
        return;
    }
    conn->state = CHANNEL_FAREWELL;
    conn->farewell_ms = clock_mono_ms();
    channel_conn_all_gone(conn, &conn->why);
    if (!conn->freed)
        channel_conn_last_word(conn);
}

static bool channel_conn_has_heard(const struct channel_conn *conn)
{
    for (LIST_EACH(const struct channel, c, &conn->channels, link))
        if (!channel_has_heard(c))
            return false;
    return true;
}

void channel_conn_hear_out(struct channel_conn *conn, const struct status *err)
{
    if (conn->state != CHANNEL_OPEN || conn->freed || channel_conn_has_heard(conn)) {
        channel_conn_end(conn, err);
        return;
    }
    channel_conn_because(conn, err);
    conn->state = CHANNEL_HEARING;
    conn->end_ms = clock_mono_ms();
    for (LIST_EACH(struct channel, c, &conn->channels, link)) {
        channel_queue_drop(conn, &c->out);
        channel_count_out(c);
    }
    channel_conn_last_word(conn);
}

void channel_conn_close(struct channel_conn *conn)
{
    if (conn->state != CHANNEL_OPEN && conn->state != CHANNEL_HEARING)
        return;
    channel_conn_enter(conn);
    if (conn->state == CHANNEL_OPEN)
        conn->state = CHANNEL_CLOSING;
    for (LIST_EACH(struct channel, c, &conn->channels, link)) {
        channel_drop_held(c);
        c->end_heard = c->receive_ended;
    }
    channel_conn_want_pump(conn);
    channel_conn_leave(conn);
}

/* ---- time ---- */

static void channel_conn_earlier(int64_t *due, int64_t other)
{
    if (other < *due)
        *due = other;
}

/* What the clock asks for now; when to look again. */
static int64_t channel_conn_check_keepalive(struct channel_conn *conn, int64_t now)
{
    const struct channel_conn_options *o = &conn->options;
    bool deaf = conn->write_blocked || channel_conn_stopped(conn) || conn->in.n > 0;
    int64_t timeout = o->keepalive_timeout_ms > 0 ? o->keepalive_timeout_ms : o->keepalive_ms;

    /* Silence of a peer that may be reading still, or whom we do not read, says nothing; but a ping that meets a closed
     * socket breaks the connection, and TCP itself gives up on a machine that is gone. */
    if (conn->pinged && conn->confirmed && !deaf) {
        if (now - conn->ping_ms >= timeout) {
            channel_conn_fail(conn, STATUS_UNAVAILABLE, "keepalive: the peer does not answer");
            return now;
        }
        return conn->ping_ms + timeout;
    }
    int64_t since = conn->last_read_ms > conn->ping_ms ? conn->last_read_ms : conn->ping_ms;
    if (now - since < o->keepalive_ms)
        return since + o->keepalive_ms;
    conn->pinged = true;
    conn->ping_ms = now;
    if (!conn->write_blocked) {
        channel_conn_ping(conn);
        channel_conn_want_pump(conn);
    }
    return now + (timeout < o->keepalive_ms ? timeout : o->keepalive_ms);
}

/* The peer has ended, and what it sent before waits for a paused channel. */
static int64_t channel_conn_check_end(struct channel_conn *conn, int64_t now)
{
    int64_t due = conn->end_ms + CHANNEL_GONE_MS;

    if (now >= due && (conn->state == CHANNEL_HEARING || conn->in.n > 0 || channel_conn_stopped(conn)))
        channel_conn_fail(conn, STATUS_UNAVAILABLE, "closed by the peer, with data that nobody took");
    return now < due ? due : now + CHANNEL_GONE_MS;
}

static int64_t channel_conn_check_idle(struct channel_conn *conn, int64_t now)
{
    int64_t due = conn->last_data_ms + conn->options.idle_timeout_ms;
    struct status err;

    if (now < due)
        return due;
    status_set(&err, STATUS_DEADLINE_EXCEEDED, "connection to %s: idle for %" PRId64 " s", conn->peer,
               conn->options.idle_timeout_ms / 1000);
    if (conn->state == CHANNEL_OPEN)
        channel_conn_end(conn, &err);
    else
        channel_conn_finish(conn, &err);
    return now + CHANNEL_CLOSE_MS;
}

static bool channel_conn_has_spare(const struct channel_conn *conn)
{
    return conn->output.spare_bytes > 0 || conn->output.segments != NULL || conn->output.bytes.cap > 0;
}

static void channel_conn_on_timer(void *arg)
{
    struct channel_conn *conn = arg;
    int64_t now = clock_mono_ms(), due = INT64_MAX;

    channel_conn_enter(conn);
    if (conn->state == CHANNEL_FAREWELL) {
        due = conn->farewell_ms + CHANNEL_CLOSE_MS;
        if (now >= due)
            channel_conn_fail(conn, STATUS_DEADLINE_EXCEEDED, "the peer does not close");
    } else {
        if (conn->options.keepalive_ms > 0 && conn->state != CHANNEL_HEARING)
            channel_conn_earlier(&due, channel_conn_check_keepalive(conn, now));
        if (conn->end_ms > 0 && conn->state != CHANNEL_CLOSED && !conn->freed)
            channel_conn_earlier(&due, channel_conn_check_end(conn, now));
        if (conn->options.idle_timeout_ms > 0 && conn->state != CHANNEL_CLOSED && !conn->freed)
            channel_conn_earlier(&due, channel_conn_check_idle(conn, now));
        if (conn->state != CHANNEL_CLOSED && now - conn->last_data_ms >= CHANNEL_TRIM_MS)
            http_output_trim(&conn->output);
        if (channel_conn_has_spare(conn))
            channel_conn_earlier(&due, now + CHANNEL_TRIM_MS);
    }
    if (conn->state != CHANNEL_CLOSED && !conn->freed && due != INT64_MAX)
        timer_start(conn->loop, &conn->timer, due > now ? due - now : 1, channel_conn_on_timer, conn);
    channel_conn_leave(conn);
}

static void channel_conn_set_timer(struct channel_conn *conn)
{
    const struct channel_conn_options *o = &conn->options;
    int64_t delay = INT64_MAX;

    if (conn->state == CHANNEL_FAREWELL) {
        delay = CHANNEL_CLOSE_MS;
    } else {
        if (o->keepalive_ms > 0)
            channel_conn_earlier(&delay, o->keepalive_ms);
        if (o->idle_timeout_ms > 0)
            channel_conn_earlier(&delay, o->idle_timeout_ms);
        if (conn->end_ms > 0)
            channel_conn_earlier(&delay, CHANNEL_GONE_MS);
        if (channel_conn_has_spare(conn))
            channel_conn_earlier(&delay, CHANNEL_TRIM_MS);
    }
    /* A timer that is due too early finds out by itself. */
    if (delay != INT64_MAX && (!timer_running(&conn->timer) || clock_mono_ms() + delay < conn->timer.due_ms))
        timer_start(conn->loop, &conn->timer, delay, channel_conn_on_timer, conn);
}

/* ---- the pump ---- */

void channel_conn_want_pump(struct channel_conn *conn)
{
    if (conn->state != CHANNEL_CLOSED && !conn->freed)
        deferred_start(conn->loop, &conn->pump, channel_conn_on_pump, conn);
}

/* The last word is out: say so to the kernel too, for a proxy between us that does not know what it means. */
static void channel_conn_half_close(struct channel_conn *conn)
{
    if (conn->half_closed || conn->output.pending > 0)
        return;
    conn->half_closed = true;
    stream_shutdown_write(conn->stream);
}

static bool channel_conn_over(const struct channel_conn *conn)
{
    return conn->freed || conn->state == CHANNEL_CLOSED;
}

void channel_conn_let_go(struct channel_conn *conn)
{
    stream_free(conn->stream);
    conn->stream = NULL;
}

static void channel_conn_pump(struct channel_conn *conn)
{
    channel_conn_resume(conn);
    channel_conn_continue(conn);
    if (channel_conn_over(conn))
        return;
    if ((conn->goaway && conn->channel_count == 0) || (conn->state == CHANNEL_HEARING && channel_conn_has_heard(conn)))
        channel_conn_end(conn, NULL);
    channel_conn_flush(conn);
    if (!channel_conn_over(conn) && conn->state == CHANNEL_HEARING && conn->output.pending == 0)
        channel_conn_let_go(conn);
    if (!channel_conn_over(conn))
        channel_conn_set_timer(conn);
    if (channel_conn_over(conn) || conn->stream == NULL)
        return;
    /* Both have said their last word in a WebSocket: nothing can come any more (RFC 6455 section 7.1.1). */
    if (conn->state == CHANNEL_FAREWELL && conn->websocket.dead && conn->output.pending == 0) {
        channel_conn_finish(conn, NULL);
        return;
    }
    if (conn->state == CHANNEL_FAREWELL)
        channel_conn_half_close(conn);
    bool read = conn->in.n == 0 && !channel_conn_stopped(conn) && conn->state != CHANNEL_HEARING;
    unsigned want = read ? WATCH_READ : conn->end_ms == 0 ? WATCH_END : 0;
    stream_want(conn->stream, want | (conn->write_blocked ? WATCH_WRITE : 0));
}

static void channel_conn_on_pump(void *arg)
{
    struct channel_conn *conn = arg;

    channel_conn_enter(conn);
    channel_conn_pump(conn);
    channel_conn_leave(conn);
}

static void channel_conn_on_event(void *arg, unsigned events)
{
    struct channel_conn *conn = arg;

    channel_conn_enter(conn);
    if (events & WATCH_WRITE)
        conn->write_blocked = false;
    if (events & (WATCH_READ | WATCH_HANGUP | WATCH_END))
        channel_conn_read(conn, events);
    channel_conn_want_pump(conn);
    channel_conn_leave(conn);
}

/* ---- the interface ---- */

struct channel_conn *channel_conn_new(struct loop *loop, struct stream *stream, struct str early,
                                      const struct channel_conn_options *options)
{
    struct channel_conn *conn = xcalloc(1, sizeof *conn);

    conn->loop = loop;
    conn->stream = stream;
    snprintf(conn->peer, sizeof conn->peer, "%s", stream->peer);
    conn->options = *options;
    channel_budget_init(&conn->own_budget);
    conn->budget = options->budget != NULL ? options->budget : &conn->own_budget;
    conn->spdy_carrier = options->carrier == CHANNEL_SPDY || options->carrier == CHANNEL_WEBSOCKET_SPDY;
    conn->websocket_carrier = options->carrier != CHANNEL_SPDY;
    conn->confirmed = true;
    conn->last_read_ms = conn->last_data_ms = clock_mono_ms();
    list_init(&conn->channels);
    list_init(&conn->ready);
    list_init(&conn->resumed);
    list_init(&conn->drained);
    list_init(&conn->gone);
    websocket_init(&conn->websocket, options->client);
    if (conn->spdy_carrier) {
        spdy_init(&conn->spdy, !options->client);
    } else {
        conn->numbers = xcalloc(options->channel_count, sizeof(struct channel *));
        for (size_t i = 0; i < options->channel_count; i++) {
            conn->numbers[i] = channel_new(conn);
            conn->numbers[i]->number = (uint8_t)i;
        }
    }
    buf_append(&conn->in, early.p, early.n);
    stream_listen(stream, channel_conn_on_event, conn);
    channel_conn_want_pump(conn);
    return conn;
}

size_t channel_conn_active(const struct channel_conn *conn)
{
    return conn->channel_count;
}

void channel_listen(struct channel *c, const struct channel_listener *listener)
{
    c->listener = *listener;
    c->listening = true;
}

struct channel *channel_number(struct channel_conn *conn, size_t number)
{
    return conn->numbers != NULL && number < conn->options.channel_count ? conn->numbers[number] : NULL;
}

struct channel *channel_open(struct channel_conn *conn, const struct http_header *headers, size_t header_count)
{
    if (!conn->spdy_carrier || conn->state != CHANNEL_OPEN || conn->goaway || conn->freed)
        return NULL;
    struct channel *c = channel_new(conn);
    if (!spdy_open(&conn->spdy, &c->stream, headers, header_count)) {
        list_remove(&c->link);
        conn->channel_count--;
        free(c);
        return NULL;
    }
    channel_conn_want_pump(conn);
    return c;
}

bool channel_send(struct channel *c, const void *p, size_t n)
{
    struct channel_conn *conn = c->conn;

    if (c->gone || c->send_ended || conn->state != CHANNEL_OPEN)
        return true;
    channel_conn_want_pump(conn);
    if (n > 0)
        channel_queue_append(conn, &c->out, p, n);
    else if (channel_conn_plain(conn) && c->out.n == 0)
        channel_send_empty(c);
    channel_make_ready(c);
    channel_count_out(c);
    return !c->blocked;
}

void channel_end(struct channel *c)
{
    if (c->gone || c->send_ended || c->conn->state != CHANNEL_OPEN)
        return;
    c->send_ended = true;
    channel_make_ready(c);
    channel_conn_want_pump(c->conn);
}

void channel_reset(struct channel *c)
{
    struct channel_conn *conn = c->conn;
    struct status err;

    if (c->gone)
        return;
    channel_conn_enter(conn);
    spdy_reset(&conn->spdy, &c->stream, SPDY_RESET_CANCEL);
    status_set(&err, STATUS_CANCELLED, "the channel was reset");
    channel_gone(c, &err);
    channel_conn_leave(conn);
}

void channel_pause(struct channel *c, bool paused)
{
    struct channel_conn *conn = c->conn;

    if (c->gone || c->paused == paused)
        return;
    c->paused = paused;
    conn->paused = paused ? conn->paused + 1 : conn->paused - 1;
    if (paused)
        return;
    if (list_empty(&c->resume))
        list_append(&conn->resumed, &c->resume);
    channel_conn_want_pump(conn);
}

size_t channel_queued(const struct channel *c)
{
    return c->out.n;
}
