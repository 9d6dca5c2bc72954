/* SPDX-License-Identifier: Apache-2.0 */
#include "http/websocket.h"

#include <bearssl.h>

#include "text/json.h"

#define WEBSOCKET_FIN 0x80
#define WEBSOCKET_RESERVED 0x70
#define WEBSOCKET_MASKED 0x80
#define WEBSOCKET_KEY_BYTES 16

void websocket_init(struct websocket *ws, bool client)
{
    *ws = (struct websocket){ .client = client };
}

void websocket_free(struct websocket *ws)
{
    buf_free(&ws->out);
}

/* ---- what is sent ---- */

size_t websocket_head(const struct websocket *ws, enum websocket_opcode opcode, uint64_t n, uint8_t head[WEBSOCKET_HEAD_MAX],
                      uint8_t key[4])
{
    uint8_t mask = ws->client ? WEBSOCKET_MASKED : 0;
    size_t length_n = n < 126 ? 0 : n <= UINT16_MAX ? 2 : 8, at = 2 + length_n;

    head[0] = (uint8_t)(WEBSOCKET_FIN | (unsigned)opcode);
    head[1] = (uint8_t)(mask | (length_n == 0 ? (unsigned)n : length_n == 2 ? 126u : 127u));
    for (size_t i = 0; i < length_n; i++)
        head[2 + i] = (uint8_t)(n >> 8 * (length_n - 1 - i));
    memset(key, 0, 4);
    if (!ws->client)
        return at;
    random_bytes(key, 4);
    memcpy(head + at, key, 4);
    return at + 4;
}

void websocket_mask(const uint8_t key[4], uint64_t offset, uint8_t *p, size_t n)
{
    uint8_t turned[8];
    uint64_t wide, a, b;

    for (size_t i = 0; i < sizeof turned; i++)
        turned[i] = key[(offset + i) & 3];
    memcpy(&wide, turned, sizeof wide);
    if (wide == 0)
        return;
    for (; n >= 16; p += 16, n -= 16) {
        memcpy(&a, p, 8);
        memcpy(&b, p + 8, 8);
        a ^= wide;
        b ^= wide;
        memcpy(p, &a, 8);
        memcpy(p + 8, &b, 8);
    }
    for (size_t i = 0; i < n; i++)
        p[i] ^= turned[i & 7];
}

void websocket_control(struct websocket *ws, enum websocket_opcode opcode, const void *p, size_t n)
{
    uint8_t head[WEBSOCKET_HEAD_MAX], key[4];

    if (ws->close_sent)
        return;
    if (n > WEBSOCKET_CONTROL_MAX)
        n = WEBSOCKET_CONTROL_MAX;
    buf_append(&ws->out, head, websocket_head(ws, opcode, n, head, key));
    buf_append(&ws->out, p, n);
    websocket_mask(key, 0, ws->out.p + ws->out.n - n, n);
}

void websocket_close(struct websocket *ws, enum websocket_code code, const char *reason)
{
    uint8_t payload[WEBSOCKET_CONTROL_MAX];
    size_t n = 0;

    if (code != WEBSOCKET_NO_CODE) {
        payload[n++] = (uint8_t)(code >> 8);
        payload[n++] = (uint8_t)code;
        /* Whole characters only. */
        for (size_t step; *reason != '\0' && (step = utf8_sequence(reason, strlen(reason))) > 0; reason += step) {
            if (n + step > sizeof payload)
                break;
            memcpy(payload + n, reason, step);
            n += step;
        }
    }
    websocket_control(ws, WEBSOCKET_CLOSE, payload, n);
    ws->close_sent = true;
}

/* ---- what is received ---- */

static void websocket_fail(struct websocket *ws, enum websocket_code code, const char *text, struct websocket_event *event,
                           struct status *err)
{
    status_set(err, STATUS_INVALID_ARGUMENT, "WebSocket: %s", text);
    websocket_close(ws, code, text);
    ws->dead = true;
    event->type = WEBSOCKET_ERROR;
}

/* Length of the head, as far as its first two bytes tell. */
static size_t websocket_head_size(const uint8_t *head)
{
    uint8_t length = head[1] & 0x7f;

    return 2u + (length == 126 ? 2u : length == 127 ? 8u : 0u) + (head[1] & WEBSOCKET_MASKED ? 4u : 0u);
}

/* What is wrong with a frame's head; NULL: nothing. */
static const char *websocket_head_fault(const struct websocket *ws)
{
    unsigned opcode = ws->head[0] & 0xf;
    bool fin = (ws->head[0] & WEBSOCKET_FIN) != 0;

    if (ws->head[0] & WEBSOCKET_RESERVED)
        return "a reserved bit is set, and no extension was agreed on";
    if (((ws->head[1] & WEBSOCKET_MASKED) != 0) == ws->client)
        return ws->client ? "the server masks its frames" : "the client does not mask its frames";
    switch (opcode) {
    case WEBSOCKET_CONTINUATION: return ws->in_message ? NULL : "a continuation of no message";
    case WEBSOCKET_TEXT:
    case WEBSOCKET_BINARY: return ws->in_message ? "a message begins in the middle of another" : NULL;
    case WEBSOCKET_CLOSE:
    case WEBSOCKET_PING:
    case WEBSOCKET_PONG:
        if (!fin)
            return "a control frame in fragments";
        return (ws->head[1] & 0x7f) > WEBSOCKET_CONTROL_MAX ? "a control frame of more than 125 bytes" : NULL;
    default: return "an unknown opcode";
    }
}

/* The head is complete. False: it was wrong. */
static bool websocket_on_head(struct websocket *ws, struct websocket_event *event, struct status *err)
{
    size_t size = websocket_head_size(ws->head), length_n = size - 2 - (ws->head[1] & WEBSOCKET_MASKED ? 4 : 0);
    unsigned opcode = ws->head[0] & 0xf;

    ws->left = length_n == 0 ? ws->head[1] & 0x7f : 0;
    for (size_t i = 0; i < length_n; i++)
        ws->left = ws->left << 8 | ws->head[2 + i];
    if ((length_n == 2 && ws->left < 126) || (length_n == 8 && (ws->left <= UINT16_MAX || ws->left >> 63 != 0))) {
        websocket_fail(ws, WEBSOCKET_PROTOCOL_ERROR, "a length that is not in its shortest form", event, err);
        return false;
    }
    memset(ws->key, 0, sizeof ws->key);
    if (ws->head[1] & WEBSOCKET_MASKED)
        memcpy(ws->key, ws->head + size - 4, 4);
    ws->head_n = 0;
    ws->offset = 0;
    ws->control_n = 0;
    ws->in_frame = true;
    if (opcode == WEBSOCKET_TEXT || opcode == WEBSOCKET_BINARY) {
        ws->in_message = ws->first = true;
        ws->text = opcode == WEBSOCKET_TEXT;
    }
    return true;
}

static bool websocket_code_valid(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

static bool websocket_utf8(const uint8_t *p, size_t n)
{
    for (size_t step; n > 0; p += step, n -= step)
        if ((step = utf8_sequence((const char *)p, n)) == 0)
            return false;
    return true;
}

static void websocket_on_close(struct websocket *ws, struct websocket_event *event, struct status *err)
{
    unsigned code = ws->control_n >= 2 ? (unsigned)ws->control[0] << 8 | ws->control[1] : WEBSOCKET_NO_CODE;

    if (ws->control_n == 1 || (ws->control_n >= 2 && !websocket_code_valid(code))) {
        websocket_fail(ws, WEBSOCKET_PROTOCOL_ERROR, "a close without a proper code", event, err);
        return;
    }
    if (ws->control_n > 2 && !websocket_utf8(ws->control + 2, ws->control_n - 2)) {
        websocket_fail(ws, WEBSOCKET_INVALID_DATA, "a close whose reason is not UTF-8", event, err);
        return;
    }
    websocket_close(ws, (enum websocket_code)code, "");
    ws->dead = true;
    event->type = WEBSOCKET_CLOSED;
    event->code = (uint16_t)code;
    if (ws->control_n > 2)
        event->piece = (struct str){ (const char *)ws->control + 2, ws->control_n - 2 };
}

/* Payload of a control frame; acts when it is complete. */
static void websocket_on_control(struct websocket *ws, struct str piece, struct websocket_event *event, struct status *err)
{
    if (piece.n > 0)
        memcpy(ws->control + ws->control_n, piece.p, piece.n);
    ws->control_n += piece.n;
    if (ws->in_frame)
        return;
    switch (ws->head[0] & 0xf) {
    case WEBSOCKET_PING: websocket_control(ws, WEBSOCKET_PONG, ws->control, ws->control_n); break;
    case WEBSOCKET_PONG: event->type = WEBSOCKET_PONGED; break;
    default: websocket_on_close(ws, event, err); break;
    }
}

static void websocket_on_payload(struct websocket *ws, struct str *in, struct websocket_event *event, struct status *err)
{
    struct str piece = { in->p, ws->left < in->n ? (size_t)ws->left : in->n };

    websocket_mask(ws->key, ws->offset, (uint8_t *)(uintptr_t)piece.p, piece.n);
    in->p += piece.n;
    in->n -= piece.n;
    ws->offset += piece.n;
    ws->left -= piece.n;
    ws->in_frame = ws->left > 0;
    if (ws->head[0] & 8) { /* opcodes from 8 on are control frames */
        websocket_on_control(ws, piece, event, err);
        return;
    }
    bool last = !ws->in_frame && (ws->head[0] & WEBSOCKET_FIN);
    if (piece.n == 0 && !last)
        return; /* an empty fragment */
    *event = (struct websocket_event){ WEBSOCKET_DATA, piece, ws->first, last, ws->text, 0 };
    ws->first = false;
    ws->in_message = !last;
}

void websocket_next(struct websocket *ws, struct str *in, struct websocket_event *event, struct status *err)
{
    *event = (struct websocket_event){ .type = WEBSOCKET_MORE, .piece = STR("") };
    while (event->type == WEBSOCKET_MORE && !ws->dead) {
        if (ws->in_frame) {
            if (in->n == 0 && ws->left > 0)
                return;
            websocket_on_payload(ws, in, event, err);
            continue;
        }
        size_t need = ws->head_n < 2 ? 2 : websocket_head_size(ws->head);
        if (ws->head_n < need) {
            if (in->n == 0)
                return;
            ws->head[ws->head_n++] = (uint8_t)*in->p;
            in->p++;
            in->n--;
        }
        if (ws->head_n == 2) {
            const char *fault = websocket_head_fault(ws);
            if (fault != NULL) {
                websocket_fail(ws, WEBSOCKET_PROTOCOL_ERROR, fault, event, err);
                break;
            }
        }
        if (ws->head_n >= 2 && ws->head_n == websocket_head_size(ws->head))
            websocket_on_head(ws, event, err);
    }
    if (ws->dead) {
        in->p += in->n;
        in->n = 0;
    }
}

/* ---- the handshake ---- */

void websocket_make_key(char out[WEBSOCKET_KEY_SIZE])
{
    uint8_t bytes[WEBSOCKET_KEY_BYTES];
    cleanup_buf struct buf text = BUF_INIT;

    random_bytes(bytes, sizeof bytes);
    base64_append(&text, bytes, sizeof bytes, false);
    memcpy(out, buf_cstr(&text), WEBSOCKET_KEY_SIZE);
}

bool websocket_key_valid(const char *key)
{
    cleanup_buf struct buf bytes = BUF_INIT;

    return strlen(key) == WEBSOCKET_KEY_SIZE - 1 && base64_decode(str_of(key), &bytes) && bytes.n == WEBSOCKET_KEY_BYTES;
}

void websocket_accept(const char *key, char out[WEBSOCKET_ACCEPT_SIZE])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    cleanup_buf struct buf text = BUF_INIT;
    uint8_t hash[br_sha1_SIZE];
    br_sha1_context sha1;

    br_sha1_init(&sha1);
    br_sha1_update(&sha1, key, strlen(key));
    br_sha1_update(&sha1, guid, sizeof guid - 1);
    br_sha1_out(&sha1, hash);
    base64_append(&text, hash, sizeof hash, false);
    memcpy(out, buf_cstr(&text), WEBSOCKET_ACCEPT_SIZE);
}

#undef WEBSOCKET_FIN
#undef WEBSOCKET_RESERVED
#undef WEBSOCKET_MASKED
#undef WEBSOCKET_KEY_BYTES
