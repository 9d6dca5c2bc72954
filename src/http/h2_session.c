/* SPDX-License-Identifier: Apache-2.0 */
/* What nghttp2 says and asks. */
#include "http/h2_private.h"

/* In a callback of nghttp2: stop, when the owner freed us meanwhile. */
static int h2_verdict(const struct h2 *h2)
{
    return h2->freed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* ---- what a peer may make us do for nothing ---- */

static void h2_earn(struct h2 *h2, int frames)
{
    h2->idle_frames += frames;
    if (h2->idle_frames > H2_IDLE_FRAMES_BURST)
        h2->idle_frames = H2_IDLE_FRAMES_BURST;
}

/* The clock is read only when the allowance is used up. */
static void h2_charge(struct h2 *h2, int frames)
{
    h2->idle_frames -= frames;
    if (h2->idle_frames >= 0)
        return;
    int64_t now = clock_mono_ms();
    int64_t earned = (now - h2->earned_ms) * H2_IDLE_FRAMES_PER_SECOND / 1000;
    if (earned > 0) {
        h2->earned_ms = now;
        h2_earn(h2, earned > H2_IDLE_FRAMES_BURST ? H2_IDLE_FRAMES_BURST : (int)earned);
    }
    if (h2->idle_frames < 0 && h2->why == NULL) {
        log_warn("%s: HTTP/2: too many frames that carry nothing; closing the connection", h2->stream->peer);
        h2_terminate(h2, NGHTTP2_ENHANCE_YOUR_CALM, "too many frames that carry nothing");
    }
}

static int h2_on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *arg)
{
    struct h2 *h2 = arg;

    (void)session;
    switch (hd->type) {
    case NGHTTP2_HEADERS:
        h2_earn(h2, 8);
        break;
    case NGHTTP2_DATA:
        if (hd->length > 0)
            h2_earn(h2, 1);
        else if ((hd->flags & NGHTTP2_FLAG_END_STREAM) == 0)
            h2_charge(h2, 1);
        break;
    case NGHTTP2_SETTINGS:
    case NGHTTP2_PING:
        if ((hd->flags & NGHTTP2_FLAG_ACK) == 0)
            h2_charge(h2, 1);
        break;
    case NGHTTP2_CONTINUATION:
        break; /* nghttp2 allows a few for each header block */
    default:
        h2_charge(h2, 1);
    }
    return h2_verdict(h2);
}

/* ---- streams ---- */

void h2_drop_queue(struct h2 *h2, struct h2_stream *s)
{
    while (s->first != NULL) {
        struct http_block *block = s->first;
        s->first = block->next;
        http_block_release(&h2->output, block);
    }
    s->last = NULL;
    s->queued = 0;
    budget_change(&h2->budget->queues, &s->queued_share, 0);
}

void h2_detach(struct h2 *h2, struct h2_stream *s)
{
    h2_drop_queue(h2, s);
    budget_change(&h2->budget->windows, &s->window_share, 0);
    list_remove(&s->link);
    list_remove(&s->drained_link);
    h2->stream_count--;
    if (h2->current == s)
        h2->current = NULL;
    if (h2->held == s)
        h2->held = NULL;
    s->h2 = NULL;
}

void h2_attach(struct h2 *h2, struct h2_stream *s, int32_t id)
{
    *s = (struct h2_stream){ .h2 = h2, .id = id };
    list_append(&h2->streams, &s->link);
    list_init(&s->drained_link);
    h2_open_window(s);
    h2->stream_count++;
}

/* ---- callbacks: reading ---- */

static struct h2_stream *h2_find(struct h2 *h2, int32_t id)
{
    if (h2->current == NULL || h2->current->id != id)
        h2->current = nghttp2_session_get_stream_user_data(h2->session, id);
    return h2->current;
}

static int h2_on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2 *h2 = arg;
    struct h2_stream *s;

    h2->header_bytes = 0;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        s = h2_find(h2, frame->hd.stream_id);
        if (s != NULL)
            s->headers_too_large = false;
        return 0;
    }
    s = h2->options.ops->on_request(h2->options.arg);
    if (s == NULL) {
        h2_check(h2, nghttp2_submit_rst_stream(session, 0, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM), "refuse");
        return h2_verdict(h2);
    }
    h2_attach(h2, s, frame->hd.stream_id);
    nghttp2_session_set_stream_user_data(session, s->id, s);
    h2->current = s;
    return h2_verdict(h2);
}

static int h2_on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
                        uint8_t flags, void *arg)
{
    struct h2 *h2 = arg;
    struct h2_stream *s = h2_find(h2, frame->hd.stream_id);

    (void)session;
    (void)flags;
    /* RFC 9113 section 6.5.2 counts 32 bytes for each field. */
    h2->header_bytes += nghttp2_rcbuf_get_buf(name).len + nghttp2_rcbuf_get_buf(value).len + 32;
    if (h2->header_bytes > H2_HEADERS_MAX) {
        if (s != NULL)
            s->headers_too_large = true;
        /* A few bytes of HPACK can stand for megabytes. */
        if (h2->header_bytes > 16 * H2_HEADERS_MAX && h2->why == NULL) {
            log_warn("%s: HTTP/2: a header block of more than %d bytes; closing the connection", h2->stream->peer,
                     16 * H2_HEADERS_MAX);
            h2_terminate(h2, NGHTTP2_ENHANCE_YOUR_CALM, "header block too large");
        }
        return 0;
    }
    if (s != NULL && !s->reset)
        h2->options.ops->on_header(s, name, value);
    return h2_verdict(h2);
}

static int h2_on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)
{
    struct h2 *h2 = arg;
    struct h2_stream *s = h2_find(h2, id);

    (void)flags;
    h2_check(h2, nghttp2_session_consume_connection(session, n), "give window back");
    h2_want_flush(h2);
    if (s == NULL || s->reset)
        return 0;
    s->credit -= (int64_t)n;
    s->unconsumed += n;
    h2->options.ops->on_data(s, p, n);
    return h2_verdict(h2);
}

static int h2_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2 *h2 = arg;
    struct h2_stream *s;

    (void)session;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        s = h2_find(h2, frame->hd.stream_id);
        if (s == NULL || s->reset)
            break;
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
            s->received_end = true;
            h2_count_window(s);
        }
        if (frame->hd.type == NGHTTP2_HEADERS)
            h2->options.ops->on_headers(s);
        if (h2->freed || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
            break;
        /* The first callback may have done away with the stream. */
        s = h2_find(h2, frame->hd.stream_id);
        if (s != NULL && !s->reset)
            h2->options.ops->on_end(s);
        break;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            h2_on_ping_answer(h2, frame->ping.opaque_data);
        break;
    case NGHTTP2_GOAWAY:
        h2->goaway_received = true;
        if (h2->stream_count == 0)
            h2_set_why(h2, "the peer said goodbye (GOAWAY)");
        h2_want_flush(h2);
        break;
    default:
        break;
    }
    return h2_verdict(h2);
}

static int h2_on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int code, void *arg)
{
    struct h2 *h2 = arg;

    (void)session;
    log_debug("%s: HTTP/2: invalid frame of type %u on stream %d: %s", h2->stream->peer, frame->hd.type,
              frame->hd.stream_id, nghttp2_strerror(code));
    /* Above what HEADERS earn: each may have made us start a call and reset it (CVE-2025-8671). Calls above the limit of
     * streams may be honest: our settings had not arrived yet. */
    h2_charge(h2, code == NGHTTP2_ERR_REFUSED_STREAM ? 1 : 16);
    return h2_verdict(h2);
}

static int h2_on_error(nghttp2_session *session, int code, const char *text, size_t n, void *arg)
{
    struct h2 *h2 = arg;

    (void)session;
    (void)code;
    log_debug("%s: HTTP/2: %.*s", h2->stream != NULL ? h2->stream->peer : "-", (int)n, text);
    return 0;
}

static int h2_on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    struct h2 *h2 = arg;
    struct h2_stream *s = h2_find(h2, id);

    (void)session;
    if (s == NULL)
        return 0;
    h2_detach(h2, s);
    h2->options.ops->on_stream_close(s, code);
    return h2_verdict(h2);
}

/* ---- callbacks: writing ---- */

/* How long the next DATA frame may be. nghttp2 makes room for as much, so not more than what is queued. */
static nghttp2_ssize h2_read_length(nghttp2_session *session, uint8_t type, int32_t id, int32_t session_window,
                                    int32_t stream_window, uint32_t max_frame_size, void *arg)
{
    const struct h2_stream *s = h2_find(arg, id);
    int32_t n = session_window < stream_window ? session_window : stream_window;

    (void)session;
    (void)type;
    if (n > H2_FRAME_MAX)
        n = H2_FRAME_MAX;
    if (n > (int32_t)max_frame_size)
        n = (int32_t)max_frame_size;
    if (s != NULL && (size_t)n > s->queued)
        n = s->queued > 0 ? (int32_t)s->queued : 1; /* none would be an error */
    return n;
}

static nghttp2_ssize h2_read_body(nghttp2_session *session, int32_t id, uint8_t *p, size_t n, uint32_t *flags,
                                  nghttp2_data_source *source, void *arg)
{
    struct h2_stream *s = source->ptr;
    struct h2 *h2 = arg;

    (void)p;
    if (s->queued == 0 && !s->body_ended) {
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (s->queued > n)
        return (nghttp2_ssize)n;
    if (s->body_ended) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->trailer_count > 0) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            h2_check(h2, nghttp2_submit_trailer(session, id, s->trailers, s->trailer_count), "submit trailers");
        }
    }
    return (nghttp2_ssize)s->queued;
}

static int h2_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t n,
                        nghttp2_data_source *source, void *arg)
{
    struct h2_stream *s = source->ptr;
    struct h2 *h2 = arg;

    (void)session;
    (void)frame;
    h2->held = http_output_full(&h2->output) ? s : NULL;
    if (h2->held != NULL)
        return NGHTTP2_ERR_WOULDBLOCK; /* asked again when the output is written */
    http_output_copy(&h2->output, head, 9);
    s->queued -= n;
    while (n > 0) {
        struct http_block *block = s->first;
        size_t part = block->n - block->taken < n ? block->n - block->taken : n;
        http_output_take(&h2->output, block, part);
        n -= part;
        if (block->taken < block->n)
            break;
        s->first = block->next;
        if (s->first == NULL)
            s->last = NULL;
        http_block_release(&h2->output, block);
    }
    h2_queue_shrank(s);
    return 0;
}

static int h2_on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2 *h2 = arg;
    struct h2_stream *s;

    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR && h2->why == NULL) {
        /* nghttp2 found fault with the peer; its reason is in the frame. */
        char *why cleanup_free = frame->goaway.opaque_data_len > 0
                                     ? xstrndup((const char *)frame->goaway.opaque_data, frame->goaway.opaque_data_len)
                                     : xstrdup(nghttp2_http2_strerror(frame->goaway.error_code));
        /* A client of grpc-go that leaves names stream 2^31 - 1, which it may not; it is leaving all the same. */
        if (strcmp(why, "GOAWAY: invalid last_stream_id") == 0)
            log_debug("%s: HTTP/2: the peer goes away", h2->stream->peer);
        else
            log_warn("%s: HTTP/2: %s; closing the connection", h2->stream->peer, why);
        h2_set_why(h2, why);
    }
    if (frame->hd.type > NGHTTP2_HEADERS)
        return 0;
    h2_earn(h2, 2); /* window updates will come for it */
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        return 0;
    s = h2_find(h2, frame->hd.stream_id);
    if (s == NULL)
        return 0;
    s->sent_end = true;
    /* RFC 9113 section 8.1: the answer is complete, so the client may stop sending. */
    if (h2->options.server && !s->received_end) {
        s->reset = true;
        h2_check(h2, nghttp2_submit_rst_stream(session, 0, s->id, NGHTTP2_NO_ERROR), "reset a stream");
    }
    return 0;
}

nghttp2_session *h2_session_new(struct h2 *h2)
{
    nghttp2_session *session;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;

    if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0)
        abort();
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, h2_on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, h2_on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, h2_on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, h2_on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, h2_on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, h2_on_invalid_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, h2_on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, h2_on_sent);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, h2_send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback2(callbacks, h2_read_length);
    nghttp2_session_callbacks_set_error_callback2(callbacks, h2_on_error);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    /* Resets by the peer: clients that give up hundreds of calls at once are fine, for ever they are not. */
    nghttp2_option_set_stream_reset_rate_limit(option, H2_IDLE_FRAMES_BURST, H2_IDLE_FRAMES_PER_SECOND);
    nghttp2_mem memory = h2_memory_hooks(h2->memory);
    int rv = h2->options.server ? nghttp2_session_server_new3(&session, callbacks, h2, option, &memory)
                                : nghttp2_session_client_new3(&session, callbacks, h2, option, &memory);
    if (rv != 0)
        abort();
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    return session;
}

nghttp2_data_provider2 h2_body_provider(struct h2_stream *s)
{
    return (nghttp2_data_provider2){ .source.ptr = s, .read_callback = h2_read_body };
}
