/* SPDX-License-Identifier: Apache-2.0 */
#include "http/channel_internal.h"

#define CHANNEL_BASE64_GROUP 4

bool channel_conn_stopped(const struct channel_conn *conn)
{
    if (conn->spdy.out.n + conn->websocket.out.n > CHANNEL_ANSWERS_MAX)
        return true;
    if (conn->state != CHANNEL_OPEN)
        return false;
    if (channel_conn_plain(conn))
        return conn->paused > 0;
    return conn->overfull > 0;
}

/* ---- to the channels ---- */

/* Does it hold more than its share now? */
static void channel_check_held(struct channel *c)
{
    struct channel_conn *conn = c->conn;
    bool overfull = c->held.n > budget_share(&conn->budget->held, c->held_share, SPDY_STREAM_WINDOW, CHANNEL_HELD_MAX);

    if (overfull != c->overfull)
        conn->overfull = overfull ? conn->overfull + 1 : conn->overfull - 1;
    c->overfull = overfull;
}

static void channel_count_held(struct channel *c, size_t n, bool more)
{
    struct channel_conn *conn = c->conn;

    c->held.n = more ? c->held.n + n : c->held.n - n;
    conn->held = more ? conn->held + n : conn->held - n;
    budget_change(&conn->budget->held, &c->held_share, c->held.n > SPDY_STREAM_WINDOW ? c->held.n - SPDY_STREAM_WINDOW : 0);
    channel_check_held(c);
}

void channel_drop_held(struct channel *c)
{
    struct channel_conn *conn = c->conn;
    size_t n = c->held.n;

    if (n == 0)
        return;
    channel_count_held(c, n, false);
    channel_queue_drop(conn, &c->held);
    spdy_consumed(&conn->spdy, &c->stream, n);
}

static void channel_hear(struct channel *c, struct str piece)
{
    struct channel_conn *conn = c->conn;

    c->listener.on_data(c->listener.arg, piece);
    if (conn->spdy_carrier && !conn->freed)
        spdy_consumed(&conn->spdy, &c->stream, piece.n);
}

static void channel_hear_end(struct channel *c)
{
    c->end_heard = true;
    if (c->listener.on_end != NULL)
        c->listener.on_end(c->listener.arg);
    if (!c->gone)
        channel_check_done(c);
}

static void channel_take_data(struct channel *c, struct str piece)
{
    struct channel_conn *conn = c->conn;

    conn->last_data_ms = clock_mono_ms();
    if (conn->state != CHANNEL_OPEN || !c->listening) {
        if (conn->spdy_carrier)
            spdy_consumed(&conn->spdy, &c->stream, piece.n);
    } else if (c->paused || c->held.n > 0) {
        channel_queue_append(conn, &c->held, piece.p, piece.n);
        c->held.n -= piece.n; /* counted below, with the connection's */
        channel_count_held(c, piece.n, true);
    } else {
        channel_hear(c, piece);
    }
}

static void channel_take_end(struct channel *c)
{
    c->receive_ended = true;
    if (c->conn->state != CHANNEL_OPEN || !c->listening)
        c->end_heard = true;
    else if (!c->paused && c->held.n == 0)
        channel_hear_end(c);
}

static void channel_resume(struct channel *c)
{
    struct channel_conn *conn = c->conn;

    while (!c->gone && !c->paused && c->held.n > 0) {
        struct http_block *block = c->held.first;
        struct str piece = { (const char *)block->data, block->n };
        block->references++; /* it may be dropped while it is heard */
        if (conn->end_ms > 0)
            conn->end_ms = clock_mono_ms();
        channel_count_held(c, block->n, false);
        channel_queue_pop(conn, &c->held);
        channel_hear(c, piece);
        http_block_release(&conn->output, block);
    }
    if (!c->gone && !c->paused && c->receive_ended && !c->end_heard)
        channel_hear_end(c);
}

void channel_conn_resume(struct channel_conn *conn)
{
    while (!conn->freed && !list_empty(&conn->resumed)) {
        struct channel *c = CONTAINER_OF(conn->resumed.next, struct channel, resume);
        list_remove(&c->resume);
        channel_resume(c);
    }
    if (conn->freed || conn->overfull == 0)
        return;
    for (LIST_EACH(struct channel, c, &conn->channels, link)) /* others may have left it some more */
        channel_check_held(c);
}

/* ---- SPDY ---- */

static void channel_on_opened(struct channel_conn *conn, const struct spdy_event *event)
{
    size_t most = conn->options.channels_max > 0 ? conn->options.channels_max : CHANNELS_MAX;

    if (conn->state != CHANNEL_OPEN || conn->options.on_channel == NULL || conn->channel_count >= most) {
        spdy_refuse(&conn->spdy, SPDY_RESET_REFUSED_STREAM);
        return;
    }
    struct channel *c = channel_new(conn);
    spdy_accept(&conn->spdy, &c->stream);
    c->send_ended = c->end_sent = c->stream.local_ended; /* the peer wants no answer */
    conn->options.on_channel(conn->options.arg, c, event->headers, event->header_count);
    if (c->gone)
        return;
    spdy_reply(&conn->spdy, &c->stream);
    channel_make_ready(c);
}

/* Our channels that the peer says it did not look at. */
static void channel_on_goaway(struct channel_conn *conn, uint32_t last_id)
{
    struct status err = STATUS_INIT;

    conn->goaway = true;
    status_set(&err, STATUS_UNAVAILABLE, "connection to %s: the peer goes away", conn->peer);
    for (bool more = true; more && !conn->freed;) {
        more = false;
        for (LIST_EACH(struct channel, c, &conn->channels, link)) {
            if ((c->stream.id % 2 == 0) == conn->options.client || c->stream.id <= last_id)
                continue;
            channel_gone(c, &err);
            more = true;
            break;
        }
    }
}

/* A window has grown: on one channel, or on all. */
static void channel_on_window(struct channel_conn *conn, struct spdy_stream *stream)
{
    if (stream != NULL) {
        channel_make_ready(CONTAINER_OF(stream, struct channel, stream));
        return;
    }
    for (LIST_EACH(struct channel, c, &conn->channels, link))
        channel_make_ready(c);
}

static void channel_on_pong(struct channel_conn *conn)
{
    if (!conn->data_since_ping)
        conn->confirmed = true;
}

static void channel_on_spdy(struct channel_conn *conn, const struct spdy_event *event, const struct status *err)
{
    struct channel *c = event->stream != NULL ? CONTAINER_OF(event->stream, struct channel, stream) : NULL;

    switch (event->type) {
    case SPDY_MORE: break;
    case SPDY_OPENED: channel_on_opened(conn, event); break;
    case SPDY_REPLIED: channel_make_ready(c); break;
    case SPDY_DATA: channel_take_data(c, event->piece); break;
    case SPDY_END: channel_take_end(c); break;
    case SPDY_RESET: channel_gone(c, err); break;
    case SPDY_WINDOW: channel_on_window(conn, event->stream); break;
    case SPDY_PONG: channel_on_pong(conn); break;
    case SPDY_GOAWAY: channel_on_goaway(conn, event->id); break;
    case SPDY_ERROR: channel_conn_end(conn, err); break;
    }
}

static void channel_parse_spdy(struct channel_conn *conn, struct str *in)
{
    struct spdy_event event;
    struct status err = STATUS_INIT;

    do {
        spdy_next(&conn->spdy, in, &event, &err);
        channel_on_spdy(conn, &event, &err);
    } while (event.type != SPDY_MORE && !conn->freed && conn->state != CHANNEL_CLOSED);
}

/* ---- WebSocket ---- */

static void channel_websocket_fault(struct channel_conn *conn, enum websocket_code code, const char *text)
{
    struct status err = STATUS_INIT;

    websocket_close(&conn->websocket, code, text);
    status_set(&err, STATUS_INVALID_ARGUMENT, "WebSocket: %s", text);
    channel_conn_end(conn, &err);
}

/* The first byte of a message: a channel's number, or that one of them ends. */
static void channel_on_number(struct channel_conn *conn, uint8_t byte)
{
    size_t number = conn->options.carrier == CHANNEL_WEBSOCKET_BASE64 ? (size_t)(uint8_t)(byte - '0') : byte;

    conn->message = CHANNEL_MESSAGE_DATA;
    conn->target = NULL;
    conn->base64_ended = false;
    buf_clear(&conn->base64);
    if (conn->options.close_signals && byte == CHANNEL_CLOSE_SIGNAL)
        conn->message = CHANNEL_MESSAGE_SIGNAL;
    else if (number < conn->options.channel_count)
        conn->target = conn->numbers[number];
    else /* as Kubernetes' servers do: client-go says the end of a channel so, also in versions that do not know of it */
        log_debug("channels: connection to %s: a message for channel %zu, which there is not", conn->peer, number);
}

static void channel_on_signal(struct channel_conn *conn, uint8_t number)
{
    conn->message = CHANNEL_MESSAGE_DONE;
    if (number >= conn->options.channel_count) {
        channel_websocket_fault(conn, WEBSOCKET_POLICY_VIOLATION, "the end of a channel that there is not");
        return;
    }
    struct channel *c = conn->numbers[number];
    if (c != NULL && !c->receive_ended)
        channel_take_end(c);
}

/* Groups of four as far as they are complete; the rest waits. `last`: nothing follows. */
static void channel_on_base64(struct channel_conn *conn, struct str piece, bool last)
{
    cleanup_buf struct buf bytes = BUF_INIT;
    struct buf *text = &conn->base64;

    buf_append(text, piece.p, piece.n);
    size_t n = last ? text->n : text->n - text->n % CHANNEL_BASE64_GROUP;
    if (n == 0)
        return;
    if (conn->base64_ended || !base64_decode((struct str){ (const char *)text->p, n }, &bytes)) {
        channel_websocket_fault(conn, WEBSOCKET_INVALID_DATA, "a message that is not base64");
        return;
    }
    conn->base64_ended = text->p[n - 1] == '=';
    buf_consume(text, n);
    if (conn->target != NULL && bytes.n > 0)
        channel_take_data(conn->target, (struct str){ (const char *)bytes.p, bytes.n });
}

static void channel_on_message(struct channel_conn *conn, const struct websocket_event *event)
{
    struct str piece = event->piece;

    if (event->first)
        conn->message = CHANNEL_MESSAGE_NUMBER;
    while (piece.n > 0 && conn->state == CHANNEL_OPEN && !conn->freed) {
        size_t used = 1;
        switch (conn->message) {
        case CHANNEL_MESSAGE_NUMBER: channel_on_number(conn, (uint8_t)*piece.p); break;
        case CHANNEL_MESSAGE_SIGNAL: channel_on_signal(conn, (uint8_t)*piece.p); break;
        case CHANNEL_MESSAGE_DONE:
            channel_websocket_fault(conn, WEBSOCKET_PROTOCOL_ERROR, "the end of a channel with something behind it");
            break;
        case CHANNEL_MESSAGE_DATA:
            used = piece.n;
            if (conn->options.carrier == CHANNEL_WEBSOCKET_BASE64)
                channel_on_base64(conn, piece, false);
            else if (conn->target != NULL)
                channel_take_data(conn->target, piece);
            break;
        }
        piece = (struct str){ piece.p + used, piece.n - used };
    }
    if (!event->last || conn->state != CHANNEL_OPEN || conn->freed)
        return;
    if (conn->message == CHANNEL_MESSAGE_SIGNAL)
        channel_websocket_fault(conn, WEBSOCKET_PROTOCOL_ERROR, "the end of a channel without its number");
    else if (conn->message == CHANNEL_MESSAGE_DATA && conn->options.carrier == CHANNEL_WEBSOCKET_BASE64)
        channel_on_base64(conn, STR(""), true);
}

static void channel_on_websocket_closed(struct channel_conn *conn, const struct websocket_event *event)
{
    struct status err = STATUS_INIT;
    bool peace = event->code == WEBSOCKET_NORMAL || event->code == WEBSOCKET_GOING_AWAY || event->code == WEBSOCKET_NO_CODE;

    if (!peace)
        status_set(&err, STATUS_UNAVAILABLE, "connection to %s: closed by the peer with code %u: %.*s", conn->peer,
                   event->code, (int)event->piece.n, event->piece.p);
    if (conn->state == CHANNEL_FAREWELL)
        channel_conn_fail(conn, STATUS_UNAVAILABLE, "closed by the peer"); /* it answers our own, or gives up */
    else
        channel_conn_hear_out(conn, peace ? NULL : &err);
}

static void channel_on_websocket(struct channel_conn *conn, const struct websocket_event *event, const struct status *err)
{
    struct str piece = event->piece;

    switch (event->type) {
    case WEBSOCKET_MORE: break;
    case WEBSOCKET_DATA:
        if (channel_conn_plain(conn))
            channel_on_message(conn, event);
        else
            channel_parse_spdy(conn, &piece);
        break;
    case WEBSOCKET_PONGED: channel_on_pong(conn); break;
    case WEBSOCKET_CLOSED: channel_on_websocket_closed(conn, event); break;
    case WEBSOCKET_ERROR: channel_conn_end(conn, err); break;
    }
}

/* ---- from the stream ---- */

/* Takes from *in; what is left belongs to a paused channel. */
static void channel_conn_parse(struct channel_conn *conn, struct str *in)
{
    struct websocket_event event;
    struct status err = STATUS_INIT;

    if (!conn->websocket_carrier) {
        channel_parse_spdy(conn, in);
        return;
    }
    do {
        if (channel_conn_plain(conn) && channel_conn_stopped(conn))
            return;
        websocket_next(&conn->websocket, in, &event, &err);
        channel_on_websocket(conn, &event, &err);
    } while (event.type != WEBSOCKET_MORE && !conn->freed && conn->state != CHANNEL_CLOSED);
}

void channel_conn_continue(struct channel_conn *conn)
{
    if (conn->in.n == 0 || conn->freed || conn->state == CHANNEL_CLOSED || channel_conn_stopped(conn))
        return;
    if (conn->end_ms > 0)
        conn->end_ms = clock_mono_ms();
    struct str in = { (const char *)conn->in.p + conn->in_used, conn->in.n - conn->in_used };
    channel_conn_parse(conn, &in);
    if (conn->freed || conn->state == CHANNEL_CLOSED)
        return;
    conn->in_used = conn->in.n - in.n;
    if (in.n == 0) {
        buf_free(&conn->in);
        conn->in_used = 0;
    }
}

static void channel_conn_on_end(struct channel_conn *conn)
{
    struct status err = STATUS_INIT;

    if (conn->state != CHANNEL_OPEN) {
        channel_conn_fail(conn, STATUS_UNAVAILABLE, "closed by the peer");
        return;
    }
    /* A peer that has nothing open may just go. */
    if (!conn->spdy_carrier || (!conn->goaway && conn->channel_count > 0))
        status_set(&err, STATUS_UNAVAILABLE, "connection to %s: closed by the peer", conn->peer);
    channel_conn_hear_out(conn, &err);
    if (conn->state == CHANNEL_FAREWELL) /* it waits for nothing */
        channel_conn_finish(conn, NULL);
}

/* False when there is no more to be had now. */
static bool channel_conn_read_once(struct channel_conn *conn)
{
    char bytes[CHANNEL_READ_SIZE];

    ssize_t got = stream_read(conn->stream, bytes, sizeof bytes);
    if (got == -EAGAIN)
        return false;
    if (got == 0) {
        channel_conn_on_end(conn);
        return false;
    }
    if (got < 0) {
        channel_conn_fail(conn, STATUS_UNAVAILABLE, strerror((int)-got));
        return false;
    }
    struct str in = { bytes, (size_t)got };
    channel_conn_parse(conn, &in);
    if (conn->freed || conn->state == CHANNEL_CLOSED)
        return false;
    buf_append(&conn->in, in.p, in.n);
    return (size_t)got == sizeof bytes && conn->state != CHANNEL_HEARING && !channel_conn_stopped(conn);
}

void channel_conn_read(struct channel_conn *conn, unsigned events)
{
    if (conn->state == CHANNEL_HEARING) {
        if (events & WATCH_HANGUP)
            channel_conn_let_go(conn);
        return;
    }
    if (conn->in.n > 0 || channel_conn_stopped(conn)) {
        if (events & WATCH_HANGUP)
            channel_conn_fail(conn, STATUS_UNAVAILABLE, "the peer is gone");
        else if ((events & WATCH_END) && conn->end_ms == 0)
            conn->end_ms = clock_mono_ms();
        return;
    }
    conn->last_read_ms = clock_mono_ms();
    conn->pinged = false;
    for (int i = 0; i < CHANNEL_READS_PER_EVENT && channel_conn_read_once(conn); i++)
        continue;
}

#undef CHANNEL_BASE64_GROUP
