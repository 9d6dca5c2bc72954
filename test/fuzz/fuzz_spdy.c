/* SPDX-License-Identifier: Apache-2.0 */
/* The SPDY engine, in either role: bytes as they are, or frames made of them (so that compression is no obstacle), cut in any
 * way. What it tells must not depend on the cuts, must be of streams that there are, and must stay within the bounds. */
#include "http/spdy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STREAMS 8

struct tale {
    struct spdy spdy;
    struct spdy_stream streams[STREAMS];
    uint64_t hash;
    size_t out;
    bool lost;
};

static void tale_add(struct tale *t, const void *p, size_t n)
{
    const uint8_t *bytes = p;

    for (size_t i = 0; i < n; i++)
        t->hash = (t->hash ^ bytes[i]) * 0x100000001b3u;
}

static struct spdy_stream *tale_free_stream(struct tale *t)
{
    for (size_t i = 0; i < STREAMS; i++)
        if (t->streams[i].id == 0)
            return &t->streams[i];
    return NULL;
}

static void tale_check_headers(const struct spdy_event *event)
{
    if (event->header_count > SPDY_HEADER_COUNT_MAX)
        abort();
    for (size_t i = 0; i < event->header_count; i++)
        if (*event->headers[i].name == '\0' || !http_value_valid(event->headers[i].value))
            abort();
}

static void tale_on_opened(struct tale *t, const struct spdy_event *event)
{
    struct spdy_stream *stream = tale_free_stream(t);

    tale_check_headers(event);
    for (size_t i = 0; i < event->header_count; i++)
        tale_add(t, event->headers[i].name, strlen(event->headers[i].name) + 1);
    if (stream == NULL || event->id % 11 == 0) {
        spdy_refuse(&t->spdy, SPDY_RESET_REFUSED_STREAM);
        return;
    }
    spdy_accept(&t->spdy, stream);
    spdy_reply(&t->spdy, stream);
}

/* What an owner does: takes, gives back, sends a little, resets now and then. */
static void tale_on_data(struct tale *t, const struct spdy_event *event)
{
    uint8_t head[SPDY_HEAD_SIZE];

    tale_add(t, event->piece.p, event->piece.n);
    spdy_consumed(&t->spdy, event->stream, event->piece.n);
    if (spdy_sendable(&t->spdy, event->stream) > 10)
        spdy_data_head(&t->spdy, event->stream, 10, event->piece.p[0] == 'E', head);
    if (event->piece.p[event->piece.n - 1] == 'R')
        spdy_reset(&t->spdy, event->stream, SPDY_RESET_CANCEL);
}

static void tale_on_event(struct tale *t, const struct spdy_event *event)
{
    struct spdy_stream *stream = event->stream;

    if (stream != NULL && (stream < t->streams || stream >= t->streams + STREAMS))
        abort();
    if (event->type != SPDY_DATA && event->type != SPDY_MORE) {
        tale_add(t, &event->type, sizeof event->type);
        tale_add(t, &event->id, sizeof event->id);
        tale_add(t, &event->status, sizeof event->status);
    }
    switch (event->type) {
    case SPDY_OPENED: tale_on_opened(t, event); break;
    case SPDY_DATA: tale_on_data(t, event); break;
    case SPDY_END:
        if (stream->local_ended)
            spdy_detach(&t->spdy, stream);
        break;
    case SPDY_RESET:
        if (stream->id != 0)
            abort();
        break;
    case SPDY_ERROR: t->lost = true; break;
    default: break;
    }
    t->out += t->spdy.out.n;
    buf_clear(&t->spdy.out);
}

static void tell(struct tale *t, const uint8_t *data, size_t size, size_t step, bool server)
{
    const struct http_header header = { "streamtype", "data" };
    struct status err = STATUS_INIT;
    struct spdy_event event;
    size_t open = 0;

    *t = (struct tale){ .hash = 0xcbf29ce484222325u };
    spdy_init(&t->spdy, server);
    for (int i = 0; i < 3 && !server; i++)
        spdy_open(&t->spdy, tale_free_stream(t), &header, 1);
    for (size_t at = 0; at < size; at += step) {
        struct str in = { (const char *)data + at, size - at < step ? size - at : step };
        do {
            spdy_next(&t->spdy, &in, &event, &err);
            tale_on_event(t, &event);
        } while (event.type != SPDY_MORE);
        if (in.n != 0)
            abort();
    }
    for (size_t i = 0; i < STREAMS; i++)
        open += t->streams[i].id != 0;
    if (open != spdy_stream_count(&t->spdy) || t->spdy.frame.n > SPDY_CONTROL_MAX)
        abort();
    if (t->out > 200 + 4 * size)
        abort();
    spdy_free(&t->spdy);
}

/* ---- frames made of any bytes ---- */

static void put_u32(struct buf *b, size_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        buf_append_byte(b, (uint8_t)(value >> shift));
}

static void put_block(z_stream *z, struct buf *frame, const uint8_t *p, size_t n)
{
    z->next_in = (Bytef *)(uintptr_t)p;
    z->avail_in = (uInt)n;
    do {
        z->next_out = buf_reserve(frame, 4096);
        z->avail_out = 4096;
        deflate(z, Z_SYNC_FLUSH);
        frame->n += 4096 - z->avail_out;
    } while (z->avail_out == 0);
}

/* A command is a type, an id, flags, a length and so many bytes. */
static void make_frames(const uint8_t *data, size_t size, struct buf *out)
{
    static const uint8_t types[] = { 1, 1, 2, 3, 4, 6, 7, 8, 9, 0, 0, 0 };
    z_stream z = { 0 };

    if (deflateInit(&z, 1) != Z_OK)
        abort();
    while (size >= 4) {
        cleanup_buf struct buf frame = BUF_INIT;
        unsigned type = types[data[0] % sizeof types], id = data[1], flags = data[2] & 3;
        size_t n = data[3] < size - 4 ? data[3] : size - 4;
        const uint8_t *p = data + 4;
        put_u32(&frame, id);
        if (type == 1)
            buf_append(&frame, "\0\0\0\0\0\0", 6);
        if (type == 1 || type == 2 || type == 8)
            put_block(&z, &frame, p, n);
        else
            buf_append(&frame, p, n);
        if (type == 0) {
            put_u32(out, id);
            put_u32(out, (size_t)flags << 24 | n);
            buf_append(out, p, n);
        } else {
            put_u32(out, 0x80030000u | type);
            put_u32(out, (size_t)flags << 24 | frame.n);
            buf_append(out, frame.p, frame.n);
        }
        data += 4 + n;
        size -= 4 + n;
    }
    deflateEnd(&z);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_buf struct buf made = BUF_INIT;
    struct tale whole, pieces;

    if (size < 3)
        return 0;
    bool server = (data[0] & 1) != 0;
    size_t step = data[1] % 64u + 1;
    if (data[0] & 2) {
        make_frames(data + 2, size - 2, &made);
        data = made.p;
        size = made.n;
    } else {
        data += 2;
        size -= 2;
    }
    tell(&whole, data, size, size > 0 ? size : 1, server);
    tell(&pieces, data, size, step, server);
    /* Resets depend on where pieces end; without them nothing does. */
    if (whole.lost != pieces.lost && size > 0 && memchr(data, 'R', size) == NULL && memchr(data, 'E', size) == NULL)
        abort();
    return 0;
}
