/* SPDX-License-Identifier: Apache-2.0 */
#include "http/spdy.h"

#define SPDY_VERSION 3
#define SPDY_ID_MASK 0x7fffffffu
#define SPDY_WINDOW_MAX 0x7fffffff
/* Both ends' windows before anything is said. */
#define SPDY_DEFAULT_WINDOW 65536
#define SPDY_TABLE_SMALLEST 8

enum spdy_frame_type {
    SPDY_FRAME_SYN_STREAM = 1,
    SPDY_FRAME_SYN_REPLY = 2,
    SPDY_FRAME_RST_STREAM = 3,
    SPDY_FRAME_SETTINGS = 4,
    SPDY_FRAME_PING = 6,
    SPDY_FRAME_GO_AWAY = 7,
    SPDY_FRAME_HEADERS = 8,
    SPDY_FRAME_WINDOW_UPDATE = 9,
};

#define SPDY_FLAG_FIN 1
#define SPDY_FLAG_UNIDIRECTIONAL 2
#define SPDY_SETTING_INITIAL_WINDOW 7

static uint32_t spdy_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void spdy_put_u32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* A control frame whose payload are two numbers, as most are; `count` 1: only the first. */
static void spdy_append_frame(struct spdy *s, enum spdy_frame_type type, uint32_t a, uint32_t b, uint32_t count)
{
    uint8_t frame[16];

    spdy_put_u32(frame, 0x80000000u | SPDY_VERSION << 16 | (uint32_t)type);
    spdy_put_u32(frame + 4, 4 * count);
    spdy_put_u32(frame + 8, a);
    spdy_put_u32(frame + 12, b);
    buf_append(&s->out, frame, 8 + 4 * count);
}

/* A control frame that ends in a header block. */
static void spdy_append_headers(struct spdy *s, enum spdy_frame_type type, const uint8_t *fixed, size_t fixed_n,
                                const struct http_header *headers, size_t count)
{
    size_t at = s->out.n;
    uint8_t head[8];

    spdy_put_u32(head, 0x80000000u | SPDY_VERSION << 16 | (uint32_t)type);
    spdy_put_u32(head + 4, 0);
    buf_append(&s->out, head, sizeof head);
    buf_append(&s->out, fixed, fixed_n);
    spdy_headers_encode(&s->codec, headers, count, &s->out);
    spdy_put_u32(s->out.p + at + 4, (uint32_t)(s->out.n - at - sizeof head));
}

void spdy_init(struct spdy *s, bool server)
{
    uint8_t frame[20];

    *s = (struct spdy){ .server = server };
    s->next_id = server ? 2 : 1;
    s->next_ping = s->next_id;
    s->send_window = s->initial_window = SPDY_DEFAULT_WINDOW;
    spdy_put_u32(frame, 0x80000000u | SPDY_VERSION << 16 | SPDY_FRAME_SETTINGS);
    spdy_put_u32(frame + 4, 12);
    spdy_put_u32(frame + 8, 1);
    spdy_put_u32(frame + 12, SPDY_SETTING_INITIAL_WINDOW);
    spdy_put_u32(frame + 16, SPDY_STREAM_WINDOW);
    buf_append(&s->out, frame, sizeof frame);
    spdy_append_frame(s, SPDY_FRAME_WINDOW_UPDATE, 0, SPDY_SESSION_WINDOW - SPDY_DEFAULT_WINDOW, 2);
}

void spdy_free(struct spdy *s)
{
    spdy_headers_free(&s->codec);
    http_headers_free(&s->headers);
    buf_free(&s->frame);
    buf_free(&s->out);
    free(s->table);
    s->table = NULL;
}

/* ---- the table of streams ---- */

static struct spdy_stream **spdy_slot(const struct spdy *s, uint32_t id)
{
    return &s->table[id / 2 % s->table_size]; /* one end's ids are all odd or all even */
}

static struct spdy_stream *spdy_find(const struct spdy *s, uint32_t id)
{
    struct spdy_stream *stream = s->table_size > 0 ? *spdy_slot(s, id) : NULL;

    while (stream != NULL && stream->id != id)
        stream = stream->next;
    return stream;
}

static void spdy_table_grow(struct spdy *s)
{
    struct spdy_stream **old = s->table;
    size_t old_size = s->table_size;

    s->table_size = old_size == 0 ? SPDY_TABLE_SMALLEST : 2 * old_size;
    s->table = xcalloc(s->table_size, sizeof(struct spdy_stream *));
    for (size_t i = 0; i < old_size; i++) {
        for (struct spdy_stream *stream = old[i], *next; stream != NULL; stream = next) {
            next = stream->next;
            struct spdy_stream **slot = spdy_slot(s, stream->id);
            stream->next = *slot;
            *slot = stream;
        }
    }
    free(old);
}

static void spdy_attach(struct spdy *s, struct spdy_stream *stream, uint32_t id)
{
    if (s->count >= s->table_size)
        spdy_table_grow(s);
    struct spdy_stream **slot = spdy_slot(s, id);
    *stream = (struct spdy_stream){ .next = *slot, .id = id, .send_window = s->initial_window };
    *slot = stream;
    s->count++;
}

void spdy_detach(struct spdy *s, struct spdy_stream *stream)
{
    if (stream->id == 0)
        return;
    struct spdy_stream **slot = spdy_slot(s, stream->id);
    while (*slot != stream)
        slot = &(*slot)->next;
    *slot = stream->next;
    s->count--;
    if (s->current == stream)
        s->current = NULL;
    stream->id = 0;
}

size_t spdy_stream_count(const struct spdy *s)
{
    return s->count;
}

/* ---- what the owner does ---- */

void spdy_accept(struct spdy *s, struct spdy_stream *stream)
{
    bool one_way = (s->head[4] & SPDY_FLAG_UNIDIRECTIONAL) != 0; /* of the SYN_STREAM just read */

    spdy_attach(s, stream, s->opening);
    stream->local_ended = one_way;
    s->current = stream; /* its FIN may follow */
    s->opening = 0;
}

void spdy_reply(struct spdy *s, struct spdy_stream *stream)
{
    uint8_t id[4];

    stream->replied = true;
    if (stream->local_ended)
        return; /* one way: not answered (section 2.3.6) */
    spdy_put_u32(id, stream->id);
    spdy_append_headers(s, SPDY_FRAME_SYN_REPLY, id, sizeof id, NULL, 0);
}

void spdy_refuse(struct spdy *s, enum spdy_reset status)
{
    spdy_append_frame(s, SPDY_FRAME_RST_STREAM, s->opening, status, 2);
    s->opening = 0;
}

bool spdy_open(struct spdy *s, struct spdy_stream *stream, const struct http_header *headers, size_t count)
{
    uint8_t fixed[10] = { 0 }; /* id, associated stream, priority, slot */

    if (s->next_id > SPDY_ID_MASK)
        return false;
    spdy_attach(s, stream, s->next_id);
    s->next_id += 2;
    spdy_put_u32(fixed, stream->id);
    spdy_append_headers(s, SPDY_FRAME_SYN_STREAM, fixed, sizeof fixed, headers, count);
    return true;
}

void spdy_reset(struct spdy *s, struct spdy_stream *stream, enum spdy_reset status)
{
    if (stream->id == 0)
        return;
    if (!s->dead && !s->goaway_sent)
        spdy_append_frame(s, SPDY_FRAME_RST_STREAM, stream->id, status, 2);
    spdy_detach(s, stream);
}

size_t spdy_sendable(const struct spdy *s, const struct spdy_stream *stream)
{
    if (!stream->replied || stream->local_ended || stream->id == 0)
        return 0;
    if (!s->flow)
        return SIZE_MAX;
    int64_t n = stream->send_window < s->send_window ? stream->send_window : s->send_window;
    return n > 0 ? (size_t)n : 0;
}

void spdy_data_head(struct spdy *s, struct spdy_stream *stream, size_t n, bool fin, uint8_t head[SPDY_HEAD_SIZE])
{
    spdy_put_u32(head, stream->id);
    spdy_put_u32(head + 4, (fin ? (uint32_t)SPDY_FLAG_FIN << 24 : 0) | (uint32_t)n);
    stream->send_window -= (int64_t)n;
    s->send_window -= (int64_t)n;
    stream->local_ended = fin;
}

/* The connection's window comes back at once. */
static void spdy_received(struct spdy *s, size_t n)
{
    if (s->dead || s->goaway_sent)
        return;
    s->consumed += n;
    if (s->consumed < SPDY_SESSION_WINDOW / 2)
        return;
    spdy_append_frame(s, SPDY_FRAME_WINDOW_UPDATE, 0, (uint32_t)s->consumed, 2);
    s->consumed = 0;
}

void spdy_consumed(struct spdy *s, struct spdy_stream *stream, size_t n)
{
    if (s->dead || s->goaway_sent || stream->id == 0 || stream->remote_ended)
        return;
    stream->consumed += n;
    if (stream->consumed >= SPDY_STREAM_WINDOW / 2) {
        spdy_append_frame(s, SPDY_FRAME_WINDOW_UPDATE, stream->id, (uint32_t)stream->consumed, 2);
        stream->consumed = 0;
    }
}

void spdy_ping(struct spdy *s)
{
    spdy_append_frame(s, SPDY_FRAME_PING, s->next_ping, 0, 1);
    s->next_ping = (s->next_ping + 2) & SPDY_ID_MASK;
    if (s->next_ping == 0)
        s->next_ping = 2;
}

void spdy_goaway(struct spdy *s, enum spdy_goaway_status status)
{
    if (s->goaway_sent)
        return;
    s->goaway_sent = true;
    spdy_append_frame(s, SPDY_FRAME_GO_AWAY, s->last_id, status, 2);
}

/* ---- frames from the peer ---- */

/* The connection is lost. */
static void spdy_fail(struct spdy *s, struct spdy_event *event)
{
    spdy_goaway(s, SPDY_GOAWAY_PROTOCOL_ERROR);
    s->dead = true;
    event->type = SPDY_ERROR;
}

static void spdy_fail_with(struct spdy *s, struct spdy_event *event, struct status *err, const char *text)
{
    status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: %s", text);
    spdy_fail(s, event);
}

/* One stream is lost; err is written. */
static void spdy_fail_stream(struct spdy *s, struct spdy_stream *stream, enum spdy_reset status, struct spdy_event *event)
{
    spdy_reset(s, stream, status);
    event->type = SPDY_RESET;
    event->stream = stream;
    event->status = status;
}

/* Something came for a stream that is not open: refused if it never was, else on its way when we closed. */
static void spdy_unknown_stream(struct spdy *s, uint32_t id)
{
    bool ours = (id % 2 == 0) == s->server;

    if (!s->goaway_sent && (ours ? id >= s->next_id : id > s->last_id))
        spdy_append_frame(s, SPDY_FRAME_RST_STREAM, id, SPDY_RESET_INVALID_STREAM, 2);
}

/* A new header block must be read whatever becomes of its stream. False: the connection is lost. */
static bool spdy_read_headers(struct spdy *s, size_t offset, struct spdy_event *event, bool *malformed, struct status *err)
{
    struct str block = { (const char *)s->frame.p + offset, s->frame.n - offset };

    http_headers_free(&s->headers);
    s->headers = (struct http_headers){ 0 };
    enum spdy_headers_result result = spdy_headers_decode(&s->codec, block, &s->headers, err);
    *malformed = result == SPDY_HEADERS_MALFORMED;
    event->headers = s->headers.items;
    event->header_count = s->headers.count;
    if (result != SPDY_HEADERS_LOST)
        return true;
    spdy_fail(s, event);
    return false;
}

static void spdy_on_syn_stream(struct spdy *s, struct spdy_event *event, struct status *err)
{
    uint32_t id = spdy_u32(s->frame.p) & SPDY_ID_MASK;
    struct spdy_stream *stream = spdy_find(s, id);
    bool malformed;

    if (id == 0 || (id % 2 == 0) == s->server) {
        spdy_fail_with(s, event, err, "the peer opened a stream with a number that is not its to give");
        return;
    }
    if (!spdy_read_headers(s, 10, event, &malformed, err) || s->goaway_sent)
        return;
    if (stream != NULL) {
        status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: the peer opened stream %u twice", id);
        spdy_fail_stream(s, stream, SPDY_RESET_PROTOCOL_ERROR, event);
        return;
    }
    /* A number out of order ought to end the connection; older clients of Kubernetes mix them up when they open several at
     * once, and one stream less is what moby/spdystream makes of it. */
    bool in_order = id > s->last_id;
    if (in_order)
        s->last_id = id;
    if (malformed || !in_order) {
        spdy_append_frame(s, SPDY_FRAME_RST_STREAM, id, SPDY_RESET_PROTOCOL_ERROR, 2);
        return;
    }
    s->opening = id;
    s->current = NULL;
    s->fin = (s->head[4] & SPDY_FLAG_FIN) != 0;
    event->type = SPDY_OPENED;
    event->id = id;
}

/* SYN_REPLY, HEADERS. */
static void spdy_on_headers(struct spdy *s, bool reply, struct spdy_event *event, struct status *err)
{
    uint32_t id = spdy_u32(s->frame.p) & SPDY_ID_MASK;
    struct spdy_stream *stream = spdy_find(s, id);
    bool malformed, ours = (id % 2 == 0) == s->server;

    if (!spdy_read_headers(s, 4, event, &malformed, err))
        return;
    if (stream == NULL) {
        spdy_unknown_stream(s, id);
    } else if (malformed) {
        spdy_fail_stream(s, stream, SPDY_RESET_PROTOCOL_ERROR, event);
    } else if (stream->remote_ended) {
        status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: headers on stream %u after its end", id);
        spdy_fail_stream(s, stream, SPDY_RESET_STREAM_ALREADY_CLOSED, event);
    } else if (reply && (!ours || stream->replied)) {
        status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: a second answer on stream %u", id);
        spdy_fail_stream(s, stream, SPDY_RESET_STREAM_IN_USE, event);
    } else {
        s->fin = (s->head[4] & SPDY_FLAG_FIN) != 0;
        s->current = stream;
        if (!reply)
            return;
        stream->replied = true;
        event->type = SPDY_REPLIED;
        event->stream = stream;
    }
}

static void spdy_on_rst_stream(struct spdy *s, struct spdy_event *event, struct status *err)
{
    struct spdy_stream *stream = spdy_find(s, spdy_u32(s->frame.p) & SPDY_ID_MASK);

    if (stream == NULL)
        return;
    event->type = SPDY_RESET;
    event->stream = stream;
    event->status = spdy_u32(s->frame.p + 4);
    if (event->status == SPDY_RESET_REFUSED_STREAM)
        status_set(err, STATUS_RESOURCE_EXHAUSTED, "SPDY: the peer refused the stream");
    else
        status_set(err, event->status == SPDY_RESET_CANCEL ? STATUS_CANCELLED : STATUS_ABORTED,
                   "SPDY: the peer reset the stream (status %u)", event->status);
    spdy_detach(s, stream);
}

static void spdy_set_initial_window(struct spdy *s, uint32_t window, struct spdy_event *event)
{
    int64_t change = (int64_t)window - s->initial_window;

    s->flow = true;
    s->initial_window = window;
    for (size_t i = 0; i < s->table_size; i++)
        for (struct spdy_stream *stream = s->table[i]; stream != NULL; stream = stream->next)
            stream->send_window += change;
    event->type = SPDY_WINDOW;
}

static void spdy_on_settings(struct spdy *s, struct spdy_event *event, struct status *err)
{
    uint32_t count = spdy_u32(s->frame.p);

    if ((s->frame.n - 4) / 8 != count || (s->frame.n - 4) % 8 != 0) {
        spdy_fail_with(s, event, err, "SETTINGS whose length does not fit its count");
        return;
    }
    for (const uint8_t *p = s->frame.p + 4; count > 0; count--, p += 8) {
        uint32_t value = spdy_u32(p + 4);
        if ((spdy_u32(p) & 0xffffff) != SPDY_SETTING_INITIAL_WINDOW)
            continue;
        if (value > SPDY_WINDOW_MAX) {
            spdy_fail_with(s, event, err, "SETTINGS with an initial window of more than 2^31 - 1 bytes");
            return;
        }
        spdy_set_initial_window(s, value, event);
    }
}

static void spdy_on_window_update(struct spdy *s, struct spdy_event *event, struct status *err)
{
    uint32_t id = spdy_u32(s->frame.p) & SPDY_ID_MASK, delta = spdy_u32(s->frame.p + 4) & SPDY_ID_MASK;
    struct spdy_stream *stream = spdy_find(s, id);
    int64_t *window = id == 0 ? &s->send_window : stream != NULL ? &stream->send_window : NULL;

    s->flow = true;
    if (window == NULL)
        return; /* it crossed the stream's end */
    *window += delta;
    if (delta > 0 && *window <= SPDY_WINDOW_MAX) {
        event->type = SPDY_WINDOW;
        event->stream = stream;
    } else if (stream == NULL) {
        spdy_fail_with(s, event, err, "a WINDOW_UPDATE that makes no sense");
    } else {
        status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: a WINDOW_UPDATE on stream %u that makes no sense", id);
        spdy_fail_stream(s, stream, delta == 0 ? SPDY_RESET_PROTOCOL_ERROR : SPDY_RESET_FLOW_CONTROL_ERROR, event);
    }
}

static void spdy_on_ping(struct spdy *s, struct spdy_event *event)
{
    uint32_t id = spdy_u32(s->frame.p);

    if ((id % 2 == 0) == s->server) {
        event->type = SPDY_PONG;
        event->id = id;
    } else if (!s->goaway_sent) {
        spdy_append_frame(s, SPDY_FRAME_PING, id, 0, 1);
    }
}

static void spdy_on_goaway(struct spdy *s, struct spdy_event *event)
{
    event->type = SPDY_GOAWAY;
    event->id = spdy_u32(s->frame.p) & SPDY_ID_MASK;
    event->status = s->frame.n >= 8 ? spdy_u32(s->frame.p + 4) : SPDY_GOAWAY_OK;
}

/* The frame that is complete in s->frame. */
static void spdy_on_frame(struct spdy *s, struct spdy_event *event, struct status *err)
{
    switch ((int)(spdy_u32(s->head) & 0xffff)) {
    case SPDY_FRAME_SYN_STREAM: spdy_on_syn_stream(s, event, err); break;
    case SPDY_FRAME_SYN_REPLY: spdy_on_headers(s, true, event, err); break;
    case SPDY_FRAME_RST_STREAM: spdy_on_rst_stream(s, event, err); break;
    case SPDY_FRAME_SETTINGS: spdy_on_settings(s, event, err); break;
    case SPDY_FRAME_PING: spdy_on_ping(s, event); break;
    case SPDY_FRAME_GO_AWAY: spdy_on_goaway(s, event); break;
    case SPDY_FRAME_HEADERS: spdy_on_headers(s, false, event, err); break;
    case SPDY_FRAME_WINDOW_UPDATE: spdy_on_window_update(s, event, err); break;
    default: break;
    }
}

/* ---- heads of frames ---- */

/* Least and largest payload that a control frame may have; false: not known, to be skipped (section 2.2.1). */
static bool spdy_frame_bounds(uint32_t type, size_t *least, size_t *most)
{
    switch ((int)type) {
    case SPDY_FRAME_SYN_STREAM: *least = 10; *most = SPDY_CONTROL_MAX; return true;
    case SPDY_FRAME_SYN_REPLY:
    case SPDY_FRAME_HEADERS: *least = 4; *most = SPDY_CONTROL_MAX; return true;
    case SPDY_FRAME_SETTINGS: *least = 4; *most = SPDY_CONTROL_MAX; return true;
    case SPDY_FRAME_RST_STREAM:
    case SPDY_FRAME_WINDOW_UPDATE:
    case SPDY_FRAME_GO_AWAY: *least = *most = 8; return true;
    case SPDY_FRAME_PING: *least = *most = 4; return true;
    default: return false;
    }
}

static void spdy_on_control_head(struct spdy *s, uint32_t first, struct spdy_event *event, struct status *err)
{
    size_t least, most;

    s->skip = false;
    buf_clear(&s->frame);
    if ((first >> 16 & 0x7fff) != SPDY_VERSION) {
        status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: the peer speaks version %u; this is 3", first >> 16 & 0x7fff);
        spdy_fail(s, event);
    } else if (!spdy_frame_bounds(first & 0xffff, &least, &most)) {
        s->skip = true;
    } else if (s->left < least || s->left > most) {
        status_set(err, s->left > most ? STATUS_RESOURCE_EXHAUSTED : STATUS_INVALID_ARGUMENT,
                   "SPDY: a frame of type %u with %zu bytes", first & 0xffff, s->left);
        spdy_fail(s, event);
    }
}

static void spdy_on_data_head(struct spdy *s, uint32_t id, struct spdy_event *event, struct status *err)
{
    struct spdy_stream *stream = spdy_find(s, id);

    s->fin = (s->head[4] & SPDY_FLAG_FIN) != 0;
    s->current = NULL;
    if (id == 0) {
        spdy_fail_with(s, event, err, "data on stream 0");
    } else if (stream == NULL) {
        spdy_unknown_stream(s, id);
    } else if (!stream->replied) {
        status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: data on stream %u before its SYN_REPLY", id);
        spdy_fail_stream(s, stream, SPDY_RESET_PROTOCOL_ERROR, event);
    } else if (stream->remote_ended) {
        status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: data on stream %u after its end", id);
        spdy_fail_stream(s, stream, SPDY_RESET_STREAM_ALREADY_CLOSED, event);
    } else {
        s->current = stream;
    }
}

static void spdy_on_head(struct spdy *s, struct spdy_event *event, struct status *err)
{
    uint32_t first = spdy_u32(s->head);

    s->head_n = 0;
    s->in_frame = true;
    s->left = spdy_u32(s->head + 4) & 0xffffff;
    if (first & 0x80000000u)
        spdy_on_control_head(s, first, event, err);
    else
        spdy_on_data_head(s, first, event, err);
}

static struct str spdy_take(struct str *in, size_t n)
{
    struct str piece = { in->p, n < in->n ? n : in->n };

    in->p += piece.n;
    in->n -= piece.n;
    return piece;
}

/* Payload of the frame at hand, or its end. */
static void spdy_on_payload(struct spdy *s, struct str *in, struct spdy_event *event, struct status *err)
{
    bool control = (s->head[0] & 0x80) != 0;
    struct str piece = spdy_take(in, s->left);

    s->left -= piece.n;
    if (control && !s->skip)
        buf_append(&s->frame, piece.p, piece.n);
    s->in_frame = s->left > 0;
    if (control) {
        if (!s->in_frame && !s->skip)
            spdy_on_frame(s, event, err);
        return;
    }
    spdy_received(s, piece.n);
    if (s->current != NULL && piece.n > 0) {
        event->type = SPDY_DATA;
        event->stream = s->current;
        event->piece = piece;
    }
}

void spdy_next(struct spdy *s, struct str *in, struct spdy_event *event, struct status *err)
{
    *event = (struct spdy_event){ .type = SPDY_MORE };
    if (s->opening != 0)
        spdy_refuse(s, SPDY_RESET_INTERNAL_ERROR);
    while (event->type == SPDY_MORE && !s->dead) {
        if (!s->in_frame && s->fin) {
            s->fin = false;
            if (s->current != NULL && !s->current->remote_ended) {
                s->current->remote_ended = true;
                event->type = SPDY_END;
                event->stream = s->current;
            }
        } else if (!s->in_frame) {
            struct str part = spdy_take(in, sizeof s->head - s->head_n);
            if (part.n == 0)
                return;
            memcpy(s->head + s->head_n, part.p, part.n);
            s->head_n += part.n;
            if (s->head_n == sizeof s->head)
                spdy_on_head(s, event, err);
        } else if (in->n > 0 || s->left == 0) {
            spdy_on_payload(s, in, event, err);
        } else {
            return;
        }
    }
    if (s->dead)
        spdy_take(in, in->n);
}

#undef SPDY_VERSION
#undef SPDY_ID_MASK
#undef SPDY_WINDOW_MAX
#undef SPDY_DEFAULT_WINDOW
#undef SPDY_TABLE_SMALLEST
#undef SPDY_FLAG_FIN
#undef SPDY_FLAG_UNIDIRECTIONAL
#undef SPDY_SETTING_INITIAL_WINDOW
