/* SPDX-License-Identifier: Apache-2.0 */
/* Messages out of bodies and into them, and metadata: what both ends of a call do alike. */
#include "rpc/conn.h"

#include "rpc/decode.h"
#include "rpc/wire.h"

/* The prefix of a message: one byte of flags, four of length, most significant first. */
#define RPC_PREFIX 5

static uint32_t rpc_inbound_length(const uint8_t *p)
{
    return (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
}

/* While a stream is paused its window bounds what comes. Else it is given back for parts of a message, too. */
static void rpc_inbound_count(struct rpc_stream *s)
{
    size_t n = s->in.n > H2_STREAM_WINDOW_FIRST ? s->in.n - H2_STREAM_WINDOW_FIRST : 0;

    if (s->paused && n > s->unfinished)
        return;
    if (s->conn != NULL)
        s->conn->unfinished = s->conn->unfinished - s->unfinished + n;
    s->unfinished = n;
}

static void rpc_inbound_unbuffer(struct rpc_stream *s, size_t n)
{
    buf_consume(&s->in, n);
    rpc_inbound_count(s);
    if (s->in.n == 0 && s->in.cap > H2_STREAM_WINDOW)
        buf_free(&s->in); /* made for one huge message */
}

void rpc_inbound_discard(struct rpc_stream *s)
{
    s->discard = true;
    deferred_stop(&s->resume);
    /* While a message is being delivered its bytes stay; the caller of rpc_inbound_deliver drops them. */
    if (!s->single && s->holds == 0)
        rpc_inbound_unbuffer(s, s->in.n);
}

static void rpc_inbound_bad(struct rpc_stream *s, const struct status *err)
{
    s->ops->on_bad_message(s, err);
}

/* The prefix is complete: can its message be taken? */
static bool rpc_inbound_check(const struct rpc_stream *s, const uint8_t *prefix, struct status *err)
{
    uint32_t length = rpc_inbound_length(prefix);

    if (prefix[0] == 1) {
        if (s->encoding == NULL)
            return status_set(err, STATUS_INTERNAL, "message is marked as compressed, but no grpc-encoding was given");
        return status_set(err, STATUS_UNIMPLEMENTED, "grpc-encoding \"%.100s\" is not supported; identity is",
                          rpc_rcbuf_str(s->encoding).p);
    }
    if (prefix[0] != 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "malformed gRPC frame: its first byte is 0x%02x", prefix[0]);
    if (length > RPC_MESSAGE_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "message of %u bytes is larger than the %u taken", length,
                          RPC_MESSAGE_MAX);
    return true;
}

/* One message, complete. `stays`: p is memory that lives as long as the call. */
static void rpc_inbound_deliver(struct rpc_stream *s, const uint8_t *p, size_t n, bool stays)
{
    struct status err;

    if (s->single) {
        s->message = rpc_decode(s->type, p, n, stays, &s->arena, &err);
        if (s->message == NULL)
            rpc_inbound_bad(s, &err);
        return;
    }
    const ProtobufCMessage *message = rpc_decode(s->type, p, n, true, &s->message_arena, &err);
    if (message == NULL)
        rpc_inbound_bad(s, &err);
    else
        s->ops->on_message(s, message);
    arena_reset(&s->message_arena);
}

/* Delivers what is complete in p; returns how many bytes that took. */
static size_t rpc_inbound_parse(struct rpc_stream *s, const uint8_t *p, size_t n, bool stays)
{
    struct status err;
    size_t at = 0;

    while (!s->paused && !s->discard && s->message == NULL && n - at >= RPC_PREFIX) {
        if (!rpc_inbound_check(s, p + at, &err)) {
            rpc_inbound_bad(s, &err);
            break;
        }
        size_t length = rpc_inbound_length(p + at);
        if (n - at - RPC_PREFIX < length)
            break;
        rpc_inbound_deliver(s, p + at + RPC_PREFIX, length, stays);
        at += RPC_PREFIX + length;
    }
    return at;
}

/* How many more bytes make the message in s->in complete. */
static size_t rpc_inbound_missing(const struct rpc_stream *s)
{
    if (s->in.n < RPC_PREFIX)
        return RPC_PREFIX - s->in.n;
    return RPC_PREFIX + (size_t)rpc_inbound_length(s->in.p) - s->in.n;
}

/* Appends, growing by doubling towards the message's size: a length is a claim until its bytes came. */
static bool rpc_inbound_keep(struct rpc_stream *s, const uint8_t *p, size_t n)
{
    struct status err;

    if (!s->paused && s->in.n + n > H2_STREAM_WINDOW_FIRST && s->conn->unfinished + n > RPC_CONN_UNFINISHED_MAX) {
        status_set(&err, STATUS_RESOURCE_EXHAUSTED, "more than %u bytes of unfinished messages on this connection",
                   RPC_CONN_UNFINISHED_MAX);
        rpc_inbound_bad(s, &err);
        return false;
    }
    buf_append(&s->in, p, n);
    rpc_inbound_count(s);
    return true;
}

/* Goes on as long as there are bytes: whole messages are delivered from where they lie; one that is not complete is put
 * together in s->in. */
static void rpc_inbound_take(struct rpc_stream *s, const uint8_t *p, size_t n)
{
    struct status err;

    while (n > 0 && !s->discard) {
        if (s->single && s->message != NULL) {
            status_set(&err, STATUS_UNIMPLEMENTED, "more than the one message that this method takes");
            rpc_inbound_bad(s, &err);
            return;
        }
        if (s->in.n == 0) {
            size_t used = rpc_inbound_parse(s, p, n, false);
            p += used;
            n -= used;
            if (used > 0)
                continue;
        }
        size_t part = s->paused || s->in.n == 0 ? n : rpc_inbound_missing(s);
        if (part > n)
            part = n;
        if (!rpc_inbound_keep(s, p, part))
            return;
        p += part;
        n -= part;
        size_t used = rpc_inbound_parse(s, s->in.p, s->in.n, true);
        if (used > 0 && !s->single)
            rpc_inbound_unbuffer(s, used);
    }
}

/* Flow control: what was taken is given back, but not while paused. */
static void rpc_inbound_give_window(struct rpc_stream *s)
{
    if (s->h2.h2 != NULL && !s->paused)
        h2_consume(&s->h2, s->h2.unconsumed);
}

static void rpc_inbound_hold(struct rpc_stream *s)
{
    s->holds++;
}

static void rpc_inbound_unhold(struct rpc_stream *s)
{
    if (--s->holds > 0)
        return;
    if (s->discard && !s->single)
        rpc_inbound_unbuffer(s, s->in.n);
    s->ops->unhold(s);
}

void rpc_inbound_data(struct rpc_stream *s, const uint8_t *p, size_t n)
{
    rpc_inbound_hold(s);
    rpc_inbound_take(s, p, n);
    rpc_inbound_give_window(s);
    rpc_inbound_unhold(s);
}

/* The end comes after the last message, which a pause may hold back. */
static void rpc_inbound_finish(struct rpc_stream *s)
{
    struct status err;
    bool partial = s->in.n > 0 && !(s->single && s->message != NULL);

    if (!s->half_closed || s->paused || s->discard)
        return;
    if (partial)
        status_set(&err, STATUS_INVALID_ARGUMENT, "the stream ended within a message");
    if (partial)
        rpc_inbound_bad(s, &err);
    else
        s->ops->on_half_close(s);
}

void rpc_inbound_end(struct rpc_stream *s)
{
    s->half_closed = true;
    rpc_inbound_hold(s);
    rpc_inbound_finish(s);
    rpc_inbound_unhold(s);
}

static void rpc_inbound_on_resume(void *arg)
{
    struct rpc_stream *s = arg;

    rpc_inbound_hold(s);
    size_t used = rpc_inbound_parse(s, s->in.p, s->in.n, true);
    if (used > 0 && !s->single)
        rpc_inbound_unbuffer(s, used);
    else
        rpc_inbound_count(s);
    rpc_inbound_give_window(s);
    rpc_inbound_finish(s);
    rpc_inbound_unhold(s);
}

void rpc_inbound_pause(struct rpc_stream *s, bool paused)
{
    if (s->paused == paused || s->discard)
        return;
    s->paused = paused;
    if (!paused && s->conn != NULL)
        deferred_start(s->conn->loop, &s->resume, rpc_inbound_on_resume, s);
    else
        deferred_stop(&s->resume);
}

/* ---- sending ---- */

/* The prefix of a message of n bytes, and room for the first `room` of them. */
static uint8_t *rpc_stream_prefix(struct rpc_stream *s, size_t n, size_t room)
{
    uint8_t *p = h2_body_append(&s->h2, RPC_PREFIX + room);

    p[0] = 0;
    p[1] = (uint8_t)(n >> 24);
    p[2] = (uint8_t)(n >> 16);
    p[3] = (uint8_t)(n >> 8);
    p[4] = (uint8_t)n;
    return p + RPC_PREFIX;
}

void rpc_stream_send(struct rpc_stream *s, const ProtobufCMessage *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);

    protobuf_c_message_pack(message, rpc_stream_prefix(s, n, n));
}

void rpc_stream_send_packed(struct rpc_stream *s, const void *p, size_t n)
{
    uint8_t *to = rpc_stream_prefix(s, n, n);

    if (n > 0)
        memcpy(to, p, n);
}

void rpc_stream_send_shared(struct rpc_stream *s, struct shared *message)
{
    rpc_stream_prefix(s, message->n, 0);
    h2_body_append_shared(&s->h2, message);
}

void rpc_stream_reset(struct rpc_stream *s)
{
    deferred_stop(&s->resume);
    if (s->in.n > 0)
        rpc_inbound_unbuffer(s, s->in.n);
    buf_free(&s->in);
    if (s->encoding != NULL)
        nghttp2_rcbuf_decref(s->encoding);
    for (size_t i = 0; i < s->metadata_count; i++) {
        nghttp2_rcbuf_decref(s->metadata[i].name);
        nghttp2_rcbuf_decref(s->metadata[i].value);
    }
    arena_reset(&s->arena);
    arena_reset(&s->message_arena);
}

/* ---- metadata ---- */

void rpc_metadata_keep(struct rpc_stream *s, nghttp2_rcbuf *name, nghttp2_rcbuf *value)
{
    if (s->metadata_count == 0)
        s->metadata = s->metadata_few;
    if (s->metadata_count >= RPC_METADATA_MAX)
        return;
    if (s->metadata_count == COUNT_OF(s->metadata_few)) {
        s->metadata = ARENA_ARRAY(&s->arena, struct rpc_metadata_field, RPC_METADATA_MAX);
        memcpy(s->metadata, s->metadata_few, sizeof s->metadata_few);
    }
    nghttp2_rcbuf_incref(name);
    nghttp2_rcbuf_incref(value);
    s->metadata[s->metadata_count++] = (struct rpc_metadata_field){ name, value };
}

bool rpc_metadata_at(struct rpc_stream *s, size_t index, const char **key, const char **value)
{
    if (index >= s->metadata_count)
        return false;
    *key = rpc_rcbuf_str(s->metadata[index].name).p;
    *value = rpc_rcbuf_str(s->metadata[index].value).p;
    return true;
}

struct str rpc_metadata_find(struct rpc_stream *s, const char *key)
{
    struct str value = { NULL, 0 };

    for (size_t i = 0; i < s->metadata_count && value.p == NULL; i++)
        if (str_eq(rpc_rcbuf_str(s->metadata[i].name), key))
            value = rpc_rcbuf_str(s->metadata[i].value);
    if (value.p == NULL || !rpc_key_is_binary(key))
        return value;
    /* Several values may have been joined by commas on their way. */
    const char *comma = memchr(value.p, ',', value.n);
    struct buf decoded cleanup_buf = BUF_INIT;
    if (comma != NULL)
        value.n = (size_t)(comma - value.p);
    if (!base64_decode(value, &decoded))
        return (struct str){ NULL, 0 };
    return (struct str){ arena_strndup(&s->arena, decoded.n > 0 ? (const char *)decoded.p : "", decoded.n), decoded.n };
}

nghttp2_nv rpc_field(const char *name, const char *value, size_t value_length)
{
    return (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name,
                         .value = (uint8_t *)(uintptr_t)value,
                         .namelen = strlen(name),
                         .valuelen = value_length,
                         .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE };
}

nghttp2_nv rpc_metadata_field_of(struct arena *arena, const struct rpc_metadata *m)
{
    struct buf encoded cleanup_buf = BUF_INIT;
    const char *value = m->value;
    size_t n = m->n;

    if (rpc_key_is_binary(m->key)) {
        base64_append(&encoded, m->value, m->n, false);
        value = buf_cstr(&encoded);
        n = encoded.n;
        while (n > 0 && value[n - 1] == '=') /* the protocol asks for no padding */
            n--;
    }
    return rpc_field(arena_strdup(arena, m->key), arena_strndup(arena, n > 0 ? value : "", n), n);
}

#undef RPC_PREFIX
