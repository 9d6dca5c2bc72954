/* SPDX-License-Identifier: Apache-2.0 */
#include "http/channel_internal.h"

/* Room of a block, so that small pieces share one. */
#define CHANNEL_BLOCK_SIZE (16u << 10)
/* base64 makes four bytes of three. */
#define CHANNEL_BASE64_FRAME_MAX (CHANNEL_FRAME_MAX / 4 * 3)
/* Answers are short; a buffer that had to hold many of them is not kept. */
#define CHANNEL_ANSWERS_KEPT 4096u

/* ---- queues ---- */

void channel_queue_append(struct channel_conn *conn, struct channel_queue *queue, const void *p, size_t n)
{
    struct http_block *last = queue->last;

    if (last == NULL || last->capacity - last->n < n) {
        /* The first piece gets what it needs; those behind it may be many. */
        size_t room = last != NULL && n < CHANNEL_BLOCK_SIZE ? CHANNEL_BLOCK_SIZE : n;
        struct http_block *block = http_block_new(&conn->output, room);
        if (last == NULL)
            queue->first = block;
        else
            last->next = block;
        queue->last = last = block;
    }
    memcpy(last->data + last->n, p, n);
    last->n += n;
    queue->n += n;
}

void channel_queue_pop(struct channel_conn *conn, struct channel_queue *queue)
{
    struct http_block *block = queue->first;

    queue->first = block->next;
    if (queue->first == NULL)
        queue->last = NULL;
    http_block_release(&conn->output, block);
}

void channel_queue_drop(struct channel_conn *conn, struct channel_queue *queue)
{
    while (queue->first != NULL)
        channel_queue_pop(conn, queue);
    queue->n = 0;
}

void channel_count_out(struct channel *c)
{
    struct channel_conn *conn = c->conn;
    struct budget *budget = &conn->budget->queues;

    budget_change(budget, &c->out_share, c->out.n);
    size_t share = budget_share(budget, c->out_share, CHANNEL_SEND_HIGH_WATER_LEAST, CHANNEL_SEND_HIGH_WATER);
    if (c->out.n > share) {
        c->blocked = true;
        list_remove(&c->drain);
    } else if (c->blocked && c->out.n <= share / 2 && !c->gone && list_empty(&c->drain)) {
        list_append(&conn->drained, &c->drain);
    }
}

/* ---- frames ---- */

/* How much a channel may send now. */
static size_t channel_sendable(const struct channel *c)
{
    return c->conn->spdy_carrier ? spdy_sendable(&c->conn->spdy, &c->stream) : SIZE_MAX;
}

static bool channel_can_send(const struct channel *c)
{
    if (c->out.n > 0)
        return channel_sendable(c) > 0;
    return c->send_ended && !c->end_sent && (!c->conn->spdy_carrier || c->stream.replied);
}

void channel_make_ready(struct channel *c)
{
    if (!c->gone && list_empty(&c->ready) && channel_can_send(c))
        list_append(&c->conn->ready, &c->ready);
}

/* The head of a message of n bytes, which must follow masked with `key`. */
static void channel_stage_message(struct channel_conn *conn, enum websocket_opcode opcode, size_t n, uint8_t key[4])
{
    uint8_t head[WEBSOCKET_HEAD_MAX];

    http_output_copy(&conn->output, head, websocket_head(&conn->websocket, opcode, n, head, key));
}

/* A few bytes of a message, masked. */
static void channel_stage_bytes(struct channel_conn *conn, const uint8_t key[4], const void *p, size_t n)
{
    uint8_t bytes[32];

    memcpy(bytes, p, n);
    websocket_mask(key, 0, bytes, n);
    http_output_copy(&conn->output, bytes, n);
}

/* n bytes of the first block of the queue; all of it: the block goes. */
static void channel_stage_block(struct channel *c, size_t n)
{
    struct channel_conn *conn = c->conn;
    struct http_block *block = c->out.first;

    http_output_take(&conn->output, block, n);
    c->out.n -= n;
    if (block->taken == block->n)
        channel_queue_pop(conn, &c->out);
    channel_count_out(c);
}

static void channel_stage_spdy(struct channel *c, size_t n, bool fin)
{
    struct channel_conn *conn = c->conn;
    uint8_t head[SPDY_HEAD_SIZE], key[4] = { 0 };

    spdy_data_head(&conn->spdy, &c->stream, n, fin, head);
    if (conn->websocket_carrier)
        channel_stage_message(conn, WEBSOCKET_BINARY, sizeof head + n, key);
    channel_stage_bytes(conn, key, head, sizeof head);
    if (n == 0)
        return;
    websocket_mask(key, sizeof head, c->out.first->data + c->out.first->taken, n);
    channel_stage_block(c, n);
}

static void channel_stage_binary(struct channel *c, size_t n)
{
    struct channel_conn *conn = c->conn;
    uint8_t key[4];

    channel_stage_message(conn, WEBSOCKET_BINARY, 1 + n, key);
    channel_stage_bytes(conn, key, &c->number, 1);
    if (n == 0)
        return;
    websocket_mask(key, 1, c->out.first->data + c->out.first->taken, n);
    channel_stage_block(c, n);
}

static void channel_stage_base64(struct channel *c, size_t n)
{
    struct channel_conn *conn = c->conn;
    struct http_block *block = c->out.first;
    cleanup_buf struct buf text = BUF_INIT;
    uint8_t key[4];

    buf_append_byte(&text, (uint8_t)('0' + c->number));
    if (n > 0)
        base64_append(&text, block->data + block->taken, n, false);
    channel_stage_message(conn, WEBSOCKET_TEXT, text.n, key);
    websocket_mask(key, 0, text.p, text.n);
    http_output_copy(&conn->output, text.p, text.n);
    if (n == 0)
        return;
    block->taken += n;
    c->out.n -= n;
    if (block->taken == block->n)
        channel_queue_pop(conn, &c->out);
    channel_count_out(c);
}

static void channel_stage_data(struct channel *c, size_t n, bool fin)
{
    switch (c->conn->options.carrier) {
    case CHANNEL_SPDY:
    case CHANNEL_WEBSOCKET_SPDY: channel_stage_spdy(c, n, fin); break;
    case CHANNEL_WEBSOCKET: channel_stage_binary(c, n); break;
    case CHANNEL_WEBSOCKET_BASE64: channel_stage_base64(c, n); break;
    }
}

void channel_send_empty(struct channel *c)
{
    channel_stage_data(c, 0, false);
}

/* Says to the peer that this way has ended, where there is a word for it. */
static void channel_stage_end(struct channel *c)
{
    struct channel_conn *conn = c->conn;
    const uint8_t signal[] = { CHANNEL_CLOSE_SIGNAL, c->number };
    uint8_t key[4];

    if (conn->spdy_carrier) {
        if (!c->stream.local_ended)
            channel_stage_spdy(c, 0, true);
    } else if (conn->options.close_signals && conn->options.client) {
        /* Only a server hears it: Kubernetes' clients complain about a channel that they do not know. */
        channel_stage_message(conn, WEBSOCKET_BINARY, sizeof signal, key);
        channel_stage_bytes(conn, key, signal, sizeof signal);
    }
}

/* One frame of the first channel in the row; then it is the last. */
static void channel_conn_stage_channel(struct channel_conn *conn)
{
    struct channel *c = CONTAINER_OF(conn->ready.next, struct channel, ready);
    size_t n = 0, most = channel_sendable(c);

    list_remove(&c->ready);
    if (c->out.n > 0) {
        size_t frame_max = conn->options.carrier == CHANNEL_WEBSOCKET_BASE64 ? CHANNEL_BASE64_FRAME_MAX : CHANNEL_FRAME_MAX;
        most = most < frame_max ? most : frame_max;
        n = c->out.first->n - c->out.first->taken;
        n = n < most ? n : most;
    }
    if (n > 0) {
        bool fin = c->send_ended && n == c->out.n;
        channel_stage_data(c, n, fin);
        conn->data_since_ping = true;
        conn->confirmed = false;
        conn->last_data_ms = clock_mono_ms();
        c->end_sent = fin && conn->spdy_carrier;
    }
    if (c->send_ended && c->out.n == 0 && !c->end_sent) {
        channel_stage_end(c);
        c->end_sent = true;
    }
    channel_make_ready(c);
    if (c->end_sent)
        channel_check_done(c);
}

static void channel_answers_taken(struct buf *answers)
{
    if (answers->cap > CHANNEL_ANSWERS_KEPT)
        buf_free(answers);
    else
        buf_clear(answers);
}

/* Frames of the engines, which go before any data. Tunnelled SPDY travels in a message. */
static void channel_conn_stage_answers(struct channel_conn *conn)
{
    struct buf *spdy = &conn->spdy.out, *websocket = &conn->websocket.out;
    uint8_t key[4];

    if (spdy->n > 0) {
        if (conn->websocket_carrier) {
            channel_stage_message(conn, WEBSOCKET_BINARY, spdy->n, key);
            websocket_mask(key, 0, spdy->p, spdy->n);
        }
        http_output_copy(&conn->output, spdy->p, spdy->n);
        channel_answers_taken(spdy);
    }
    if (websocket->n > 0) {
        http_output_copy(&conn->output, websocket->p, websocket->n);
        channel_answers_taken(websocket);
    }
}

void channel_conn_ping(struct channel_conn *conn)
{
    if (conn->spdy_carrier && !conn->websocket_carrier)
        spdy_ping(&conn->spdy);
    else
        websocket_control(&conn->websocket, WEBSOCKET_PING, "", 0);
    conn->data_since_ping = false;
}

/* ---- writing ---- */

static bool channel_conn_queued(const struct channel_conn *conn)
{
    for (LIST_EACH(struct channel, c, &conn->channels, link))
        if (c->out.n > 0 || (c->send_ended && !c->end_sent))
            return true;
    return false;
}

/* Makes as much output ready as fits. */
static void channel_conn_stage(struct channel_conn *conn)
{
    channel_conn_stage_answers(conn);
    while (!http_output_full(&conn->output) && !list_empty(&conn->ready)) {
        channel_conn_stage_channel(conn);
        if (conn->freed)
            return;
    }
    if (conn->state == CHANNEL_CLOSING && !channel_conn_queued(conn))
        channel_conn_end(conn, NULL);
    if (conn->state == CHANNEL_FAREWELL)
        channel_conn_stage_answers(conn);
}

/* Until nothing is left, the stream takes no more, or others should have their turn. */
static void channel_conn_write(struct channel_conn *conn)
{
    size_t written = 0;

    while (!conn->freed && conn->stream != NULL && !conn->write_blocked) {
        channel_conn_stage(conn);
        if (conn->freed || conn->output.pending == 0)
            return;
        if (written > CHANNEL_WRITE_PER_TURN) {
            channel_conn_want_pump(conn);
            return;
        }
        ssize_t put = http_output_write(&conn->output, conn->stream);
        if (put == -EAGAIN) {
            conn->write_blocked = true;
        } else if (put < 0 && conn->state == CHANNEL_HEARING) {
            channel_conn_let_go(conn);
        } else if (put < 0) {
            channel_conn_fail(conn, STATUS_UNAVAILABLE, strerror((int)-put));
        } else {
            written += (size_t)put;
        }
    }
}

/* Those that had to wait and need not any more. */
static void channel_conn_tell_drained(struct channel_conn *conn)
{
    while (!conn->freed && !list_empty(&conn->drained)) {
        struct channel *c = CONTAINER_OF(conn->drained.next, struct channel, drain);
        list_remove(&c->drain);
        if (conn->state != CHANNEL_OPEN)
            continue;
        c->blocked = false;
        if (c->listener.on_writable != NULL)
            c->listener.on_writable(c->listener.arg);
    }
}

void channel_conn_flush(struct channel_conn *conn)
{
    channel_conn_write(conn);
    channel_conn_tell_drained(conn);
}

#undef CHANNEL_BLOCK_SIZE
#undef CHANNEL_BASE64_FRAME_MAX
#undef CHANNEL_ANSWERS_KEPT
