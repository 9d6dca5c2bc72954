/* SPDX-License-Identifier: Apache-2.0 */
/* The WebSocket engine, in either role: any bytes, cut in any way. What it tells must not depend on the cuts. */
#include "http/websocket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct tale {
    uint64_t hash;
    bool in_message, over;
};

static void tale_add(struct tale *t, const void *p, size_t n)
{
    const uint8_t *bytes = p;

    for (size_t i = 0; i < n; i++)
        t->hash = (t->hash ^ bytes[i]) * 0x100000001b3u;
}

static void tale_on_event(struct tale *t, const struct websocket_event *event)
{
    uint8_t marks[3] = { (uint8_t)event->type, (uint8_t)(event->code >> 8), (uint8_t)event->code };

    if (t->over && event->type != WEBSOCKET_MORE)
        abort();
    if (event->type == WEBSOCKET_DATA) {
        if (event->first == t->in_message || (event->piece.n == 0 && !event->last))
            abort();
        t->in_message = !event->last;
        marks[0] = (uint8_t)(event->last << 1 | event->text);
        tale_add(t, event->piece.p, event->piece.n);
        if (event->last)
            tale_add(t, marks, 1);
    } else if (event->type != WEBSOCKET_MORE) {
        tale_add(t, marks, sizeof marks);
        tale_add(t, event->piece.p, event->piece.n);
    }
    t->over = t->over || event->type == WEBSOCKET_CLOSED || event->type == WEBSOCKET_ERROR;
}

static struct tale tell(const uint8_t *data, size_t size, size_t step, bool client)
{
    struct tale t = { .hash = 0xcbf29ce484222325u };
    struct status err = STATUS_INIT;
    struct websocket_event event;
    struct websocket ws;

    websocket_init(&ws, client);
    for (size_t at = 0; at < size; at += step) {
        size_t n = size - at < step ? size - at : step;
        cleanup_free char *bytes = xmemdup(data + at, n); /* it is unmasked in place */
        struct str in = { bytes, n };
        do {
            websocket_next(&ws, &in, &event, &err);
            tale_on_event(&t, &event);
        } while (event.type != WEBSOCKET_MORE);
        if (in.n != 0)
            abort();
    }
    /* Pongs: an answer is no larger than its question, but for the client's mask. */
    if (ws.out.n > 3 * size + 200)
        abort();
    for (size_t i = 0; !client && i < ws.out.n; i += 2u + ws.out.p[i + 1])
        if ((ws.out.p[i] & 0xf8) != 0x88 || ws.out.p[i + 1] > WEBSOCKET_CONTROL_MAX)
            abort();
    if (!client)
        tale_add(&t, ws.out.p, ws.out.n);
    websocket_free(&ws);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    bool client = (data[0] & 1) != 0;
    size_t step = data[1] % 32u + 1;
    struct tale whole = tell(data + 2, size - 2, size, client), pieces = tell(data + 2, size - 2, step, client);
    if (whole.hash != pieces.hash || whole.over != pieces.over)
        abort();
    return 0;
}
