/* SPDX-License-Identifier: Apache-2.0 */
#include "http/h2.h"

#include "http/h2_memory.h"
#include "http/h2_output.h"

struct h2 {
    struct loop *loop;
    struct stream *stream;      /* owned; NULL once closed */
    nghttp2_session *session;   /* owned */
    struct h2_options options;
    struct list streams;        /* of h2_stream.link: all that are open */
    struct list drained;        /* of h2_stream.drained_link: those to be told */
    size_t stream_count;
    struct h2_stream *current;  /* the one found last, for the run of callbacks that a frame brings */
    size_t header_bytes;        /* of the header block being read */
    struct h2_memory *memory; /* owned; the session's */
    struct h2_output output;
    struct deferred flush;
    struct timer keepalive;     /* the next PING, or the wait for its answer */
    struct timer grace;         /* before the second GOAWAY */
    struct buf early;           /* read before we got the stream */
    int64_t last_read_ms;       /* kept only when there is a keepalive */
    int64_t earned_ms;          /* when idle_frames was last refilled */
    int idle_frames;            /* how many frames that carry nothing are still taken */
    unsigned busy;              /* callbacks under way: nghttp2 must not be freed */
    bool freed;                 /* h2_free was called meanwhile */
    bool closed;                /* on_close was heard, or is next */
    bool writing_blocked;       /* waits for WATCH_WRITE */
    bool ping_sent, goaway_received, shutting_down, shutdown_sent;
    char *why;                  /* owned; the first thing that went wrong, or NULL */
};

/* Payloads of our PINGs, to know whose answer it is. */
static const uint8_t h2_ping_keepalive[8] = { 'a', 'l', 'i', 'v', 'e', '?', 0, 0 };
static const uint8_t h2_ping_shutdown[8] = { 's', 'h', 'u', 't', 'd', 'o', 'w', 'n' };

static void h2_on_flush(void *arg);

static void h2_want_flush(struct h2 *h2)
{
    if (!h2->closed)
        deferred_start(h2->loop, &h2->flush, h2_on_flush, h2);
}

/* Keeps the first reason: what follows is its consequence. */
static void h2_set_why(struct h2 *h2, const char *why)
{
    if (h2->why == NULL)
        h2->why = xstrdup(why);
}

/* nghttp2's own failures here are programming errors or lack of memory; what concerns a stream that is gone is not. */
static void h2_check(struct h2 *h2, int rv, const char *what)
{
    if (rv == NGHTTP2_ERR_NOMEM)
        abort();
    if (rv < 0)
        log_debug("%s: HTTP/2: cannot %s: %s", h2->stream != NULL ? h2->stream->peer : "-", what, nghttp2_strerror(rv));
}

/* ---- closing ---- */

static void h2_destroy(struct h2 *h2)
{
    deferred_stop(&h2->flush);
    timer_stop(&h2->keepalive);
    timer_stop(&h2->grace);
    h2_output_free(&h2->output);
    nghttp2_session_del(h2->session);
    h2_memory_release(h2->memory);
    stream_free(h2->stream);
    buf_free(&h2->early);
    free(h2->why);
    free(h2);
}

static void h2_drop_queue(struct h2 *h2, struct h2_stream *s)
{
    while (s->first != NULL) {
        struct h2_block *block = s->first;
        s->first = block->next;
        h2_block_release(&h2->output, block);
    }
    s->last = NULL;
    s->queued = 0;
}

static void h2_detach(struct h2 *h2, struct h2_stream *s)
{
    h2_drop_queue(h2, s);
    list_remove(&s->link);
    list_remove(&s->drained_link);
    h2->stream_count--;
    if (h2->current == s)
        h2->current = NULL;
    s->h2 = NULL;
}

/* Ends the connection at once. Runs only inside h2_enter/h2_leave. */
static void h2_close(struct h2 *h2, enum status_code code, const char *why)
{
    struct status err;

    if (h2->closed || h2->freed)
        return;
    h2_set_why(h2, why);
    status_set(&err, code, "connection to %s: %s", h2->stream->peer, h2->why);
    h2->closed = true;
    deferred_stop(&h2->flush);
    timer_stop(&h2->keepalive);
    timer_stop(&h2->grace);
    stream_free(h2->stream);
    h2->stream = NULL;
    while (!h2->freed && !list_empty(&h2->streams)) {
        struct h2_stream *s = CONTAINER_OF(h2->streams.next, struct h2_stream, link);
        h2_detach(h2, s);
        h2->options.ops->on_stream_close(s, H2_CONNECTION_LOST);
    }
    if (!h2->freed)
        h2->options.ops->on_close(h2->options.arg, &err);
}

static void h2_enter(struct h2 *h2)
{
    h2->busy++;
}

/* False when h2 is gone. */
static bool h2_leave(struct h2 *h2)
{
    if (--h2->busy > 0 || !h2->freed)
        return true;
    h2_destroy(h2);
    return false;
}

void h2_free(struct h2 *h2)
{
    if (h2 == NULL)
        return;
    while (!list_empty(&h2->streams))
        h2_detach(h2, CONTAINER_OF(h2->streams.next, struct h2_stream, link));
    h2->freed = true;
    if (h2->busy == 0) {
        h2_destroy(h2);
        return;
    }
    deferred_stop(&h2->flush);
    timer_stop(&h2->keepalive);
    timer_stop(&h2->grace);
}

/* In a callback of nghttp2: stop, when the owner freed us meanwhile. */
static int h2_verdict(const struct h2 *h2)
{
    return h2->freed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

void h2_terminate(struct h2 *h2, uint32_t code, const char *why)
{
    if (h2->closed)
        return;
    h2_set_why(h2, why);
    h2_check(h2, nghttp2_session_terminate_session(h2->session, code), "terminate the session");
    h2_want_flush(h2);
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

/* ---- callbacks of nghttp2: reading ---- */

static struct h2_stream *h2_find(struct h2 *h2, int32_t id)
{
    if (h2->current == NULL || h2->current->id != id)
        h2->current = nghttp2_session_get_stream_user_data(h2->session, id);
    return h2->current;
}

static void h2_attach(struct h2 *h2, struct h2_stream *s, int32_t id)
{
    *s = (struct h2_stream){ .h2 = h2, .id = id };
    list_append(&h2->streams, &s->link);
    list_init(&s->drained_link);
    h2->stream_count++;
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

    (void)session;
    (void)flags;
    if (s == NULL || s->reset)
        h2_consume_connection(h2, n);
    else
        h2->options.ops->on_data(s, p, n);
    return h2_verdict(h2);
}

static void h2_on_ping_answer(struct h2 *h2, const uint8_t *payload);

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
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
            s->received_end = true;
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
    h2_charge(h2, 4);
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

/* ---- callbacks of nghttp2: writing ---- */

static nghttp2_ssize h2_read_length(nghttp2_session *session, uint8_t type, int32_t id, int32_t session_window,
                                    int32_t stream_window, uint32_t max_frame_size, void *arg)
{
    (void)session, (void)type, (void)id, (void)arg;
    int32_t n = session_window < stream_window ? session_window : stream_window;
    if (n > H2_FRAME_MAX)
        n = H2_FRAME_MAX;
    return n < (int32_t)max_frame_size ? n : (int32_t)max_frame_size;
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
    if (h2_output_full(&h2->output))
        return NGHTTP2_ERR_WOULDBLOCK; /* asked again when the output is written */
    h2_output_copy(&h2->output, head, 9);
    s->queued -= n;
    while (n > 0) {
        struct h2_block *block = s->first;
        size_t part = block->n - block->taken < n ? block->n - block->taken : n;
        h2_output_take(&h2->output, block, part);
        n -= part;
        if (block->taken < block->n)
            break;
        s->first = block->next;
        if (s->first == NULL)
            s->last = NULL;
        h2_block_release(&h2->output, block);
    }
    if (s->above_mark && s->queued <= H2_SEND_HIGH_WATER / 2) {
        s->above_mark = false;
        list_append(&h2->drained, &s->drained_link);
    }
    return 0;
}

static int h2_on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2 *h2 = arg;
    struct h2_stream *s;

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

/* ---- the connection ---- */

static void h2_on_grace_over(void *arg);

static void h2_on_ping_answer(struct h2 *h2, const uint8_t *payload)
{
    if (memcmp(payload, h2_ping_keepalive, 8) == 0)
        h2->ping_sent = false;
    else if (memcmp(payload, h2_ping_shutdown, 8) == 0 && h2->shutting_down)
        timer_start(h2->loop, &h2->grace, 0, h2_on_grace_over, h2);
}

static void h2_on_keepalive(void *arg)
{
    struct h2 *h2 = arg;
    int64_t quiet = clock_mono_ms() - h2->last_read_ms;

    h2_enter(h2);
    if (h2->ping_sent && quiet >= h2->options.keepalive_timeout_ms) {
        h2_close(h2, STATUS_UNAVAILABLE, "keepalive: the peer does not answer");
    } else if (h2->ping_sent || quiet < h2->options.keepalive_ms) {
        h2->ping_sent = false;
        timer_start(h2->loop, &h2->keepalive, h2->options.keepalive_ms - quiet, h2_on_keepalive, h2);
    } else {
        h2->ping_sent = true;
        h2->last_read_ms += quiet; /* the wait starts now */
        h2_check(h2, nghttp2_submit_ping(h2->session, 0, h2_ping_keepalive), "ping");
        h2_want_flush(h2);
        timer_start(h2->loop, &h2->keepalive, h2->options.keepalive_timeout_ms, h2_on_keepalive, h2);
    }
    h2_leave(h2);
}

/* Makes as much output ready as fits; false when the session failed. */
static bool h2_stage(struct h2 *h2)
{
    const uint8_t *p;

    while (!h2_output_full(&h2->output)) {
        nghttp2_ssize n = nghttp2_session_mem_send2(h2->session, &p);
        if (h2->freed)
            return false;
        if (n < 0) {
            h2_close(h2, STATUS_INTERNAL, nghttp2_strerror((int)n));
            return false;
        }
        if (n == 0)
            break;
        h2_output_copy(&h2->output, p, (size_t)n);
    }
    return true;
}

static void h2_tell_drained(struct h2 *h2)
{
    while (!h2->freed && !list_empty(&h2->drained)) {
        struct h2_stream *s = CONTAINER_OF(h2->drained.next, struct h2_stream, drained_link);
        list_remove(&s->drained_link);
        h2->options.ops->on_drained(s);
    }
}

/* Writes until nothing is left, the stream takes no more, or others should have their turn. */
static void h2_write(struct h2 *h2)
{
    size_t written = 0;
    bool full = true;

    while (full || h2->output.pending > 0) {
        ssize_t put = h2_output_write(&h2->output, h2->stream);
        if (put < 0 && put != -EAGAIN) {
            h2_close(h2, STATUS_UNAVAILABLE, strerror((int)-put));
            return;
        }
        if (h2->output.pending > 0) {
            if (put < 0) {
                h2->writing_blocked = true;
                stream_want(h2->stream, WATCH_READ | WATCH_WRITE);
                return;
            }
            continue;
        }
        written += (size_t)put;
        if (written > H2_WRITE_PER_TURN) {
            h2_want_flush(h2);
            return;
        }
        if (!h2_stage(h2))
            return;
        full = h2_output_full(&h2->output);
    }
}

static void h2_flush(struct h2 *h2)
{
    if (h2->closed || h2->freed || h2->writing_blocked)
        return;
    h2_write(h2);
    if (h2->closed || h2->freed)
        return;
    h2_tell_drained(h2);
    if (h2->closed || h2->freed || h2->output.pending > 0 || h2->flush.loop != NULL)
        return;
    bool done = !nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session);
    if (!done && h2->stream_count == 0)
        done = h2->shutdown_sent || (h2->goaway_received && !h2->options.server);
    if (done)
        h2_close(h2, STATUS_UNAVAILABLE, "closed in good order");
}

static void h2_on_flush(void *arg)
{
    struct h2 *h2 = arg;

    h2_enter(h2);
    if (h2->early.n > 0) {
        struct buf early = h2->early;
        h2->early = (struct buf)BUF_INIT;
        nghttp2_ssize rv = nghttp2_session_mem_recv2(h2->session, early.p, early.n);
        buf_free(&early);
        if (rv < 0)
            h2_close(h2, STATUS_INTERNAL, nghttp2_strerror((int)rv));
    }
    h2_flush(h2);
    h2_leave(h2);
}

/* False when there is no more to be had now. */
static bool h2_read(struct h2 *h2)
{
    uint8_t input[H2_READ_SIZE];

    ssize_t got = stream_read(h2->stream, input, sizeof input);
    if (got == -EAGAIN)
        return false;
    if (got <= 0) {
        h2_close(h2, STATUS_UNAVAILABLE, got == 0 ? "closed by the peer" : strerror((int)-got));
        return false;
    }
    nghttp2_ssize rv = nghttp2_session_mem_recv2(h2->session, input, (size_t)got);
    if (h2->freed || h2->closed)
        return false;
    if (rv < 0) {
        log_warn("%s: HTTP/2: %s; closing the connection", h2->stream->peer, nghttp2_strerror((int)rv));
        h2_close(h2, STATUS_INTERNAL, nghttp2_strerror((int)rv));
        return false;
    }
    return got == (ssize_t)sizeof input;
}

static void h2_on_event(void *arg, unsigned events)
{
    struct h2 *h2 = arg;

    h2_enter(h2);
    if (events & WATCH_WRITE && h2->writing_blocked) {
        h2->writing_blocked = false;
        stream_want(h2->stream, WATCH_READ);
        h2_want_flush(h2);
    }
    if (events & (WATCH_READ | WATCH_HANGUP)) {
        if (h2->options.keepalive_ms > 0)
            h2->last_read_ms = clock_mono_ms();
        for (int i = 0; i < H2_READS_PER_EVENT && h2_read(h2); i++)
            ;
        if (!h2->freed && !h2->closed)
            h2_want_flush(h2);
    }
    h2_leave(h2);
}

static nghttp2_session *h2_session_new(struct h2 *h2)
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

struct h2 *h2_new(struct loop *loop, struct stream *stream, const struct h2_options *options, struct str early)
{
    struct h2 *h2 = xcalloc(1, sizeof *h2);
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW },
        { NGHTTP2_SETTINGS_MAX_FRAME_SIZE, H2_FRAME_MAX },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADERS_MAX },
        { NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
        /* The last depends on the role. */
        { options->server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
          options->server ? H2_STREAMS_MAX : 0 },
    };

    h2->loop = loop;
    h2->stream = stream;
    h2->options = *options;
    list_init(&h2->streams);
    list_init(&h2->drained);
    h2->idle_frames = H2_IDLE_FRAMES_BURST;
    h2->earned_ms = h2->last_read_ms = clock_mono_ms();
    h2->memory = h2_memory_new();
    h2->session = h2_session_new(h2);
    h2_check(h2, nghttp2_submit_settings(h2->session, 0, settings, COUNT_OF(settings)), "submit settings");
    h2_check(h2, nghttp2_session_set_local_window_size(h2->session, 0, 0, H2_CONNECTION_WINDOW), "set the window");
    buf_append(&h2->early, early.p, early.n);
    stream_listen(stream, h2_on_event, h2);
    stream_want(stream, WATCH_READ);
    if (options->keepalive_ms > 0)
        timer_start(loop, &h2->keepalive, options->keepalive_ms, h2_on_keepalive, h2);
    h2_want_flush(h2);
    return h2;
}

const char *h2_peer(const struct h2 *h2)
{
    return h2->stream != NULL ? h2->stream->peer : "a closed connection";
}

const char *h2_why(const struct h2 *h2)
{
    return h2->why != NULL ? h2->why : "closed";
}

bool h2_accepts_requests(const struct h2 *h2)
{
    return !h2->closed && !h2->freed && !h2->goaway_received && nghttp2_session_check_request_allowed(h2->session);
}

size_t h2_open_streams(const struct h2 *h2)
{
    return h2->stream_count;
}

void h2_trim(struct h2 *h2)
{
    h2_output_trim(&h2->output);
    h2_memory_trim(h2->memory);
}

/* The client has had time to hear the notice: from now on new streams are ignored. */
static void h2_on_grace_over(void *arg)
{
    struct h2 *h2 = arg;

    if (h2->shutdown_sent)
        return;
    timer_stop(&h2->grace);
    h2->shutdown_sent = true;
    int32_t last = nghttp2_session_get_last_proc_stream_id(h2->session);
    h2_check(h2, nghttp2_submit_goaway(h2->session, 0, last, NGHTTP2_NO_ERROR, NULL, 0), "say goodbye");
    h2_want_flush(h2);
}

/* RFC 9113 section 6.8: first a notice, so that requests already under way to us are still served, then the truth. */
void h2_shutdown(struct h2 *h2)
{
    if (h2->closed || h2->shutting_down)
        return;
    h2->shutting_down = true;
    h2_set_why(h2, "shut down");
    h2_check(h2, nghttp2_submit_shutdown_notice(h2->session), "announce the shutdown");
    h2_check(h2, nghttp2_submit_ping(h2->session, 0, h2_ping_shutdown), "ping");
    timer_start(h2->loop, &h2->grace, H2_SHUTDOWN_GRACE_MS, h2_on_grace_over, h2);
    h2_want_flush(h2);
}

/* ---- streams ---- */

bool h2_request(struct h2 *h2, struct h2_stream *s, const nghttp2_nv *fields, size_t count)
{
    nghttp2_data_provider2 body = { .source.ptr = s, .read_callback = h2_read_body };

    if (!h2_accepts_requests(h2))
        return false;
    int32_t id = nghttp2_submit_request2(h2->session, NULL, fields, count, &body, s);
    if (id < 0) {
        h2_check(h2, id, "start a request");
        return false;
    }
    h2_attach(h2, s, id);
    h2_want_flush(h2);
    return true;
}

void h2_respond(struct h2_stream *s, const nghttp2_nv *fields, size_t count, bool end)
{
    nghttp2_data_provider2 body = { .source.ptr = s, .read_callback = h2_read_body };

    h2_check(s->h2, nghttp2_submit_response2(s->h2->session, s->id, fields, count, end ? NULL : &body), "respond");
    h2_want_flush(s->h2);
}

static void h2_resume(struct h2_stream *s)
{
    if (s->deferred) {
        s->deferred = false;
        h2_check(s->h2, nghttp2_session_resume_data(s->h2->session, s->id), "resume a body");
    }
    h2_want_flush(s->h2);
}

uint8_t *h2_body_append(struct h2_stream *s, size_t n)
{
    if (s->last == NULL || s->last->capacity - s->last->n < n) {
        struct h2_block *block = h2_block_new(&s->h2->output, n);
        if (s->last == NULL)
            s->first = block;
        else
            s->last->next = block;
        s->last = block;
    }
    uint8_t *p = s->last->data + s->last->n;
    s->last->n += n;
    s->queued += n;
    if (s->queued > H2_SEND_HIGH_WATER) {
        s->above_mark = true;
        list_remove(&s->drained_link);
    }
    h2_resume(s);
    return p;
}

void h2_body_end(struct h2_stream *s, const nghttp2_nv *trailers, size_t count)
{
    s->body_ended = true;
    s->trailers = trailers;
    s->trailer_count = count;
    h2_resume(s);
}

void h2_body_drop(struct h2_stream *s)
{
    h2_drop_queue(s->h2, s);
}

void h2_reset(struct h2_stream *s, uint32_t code)
{
    if (s->reset)
        return;
    s->reset = true;
    h2_check(s->h2, nghttp2_submit_rst_stream(s->h2->session, 0, s->id, code), "reset a stream");
    h2_want_flush(s->h2);
}

void h2_consume(struct h2_stream *s, size_t n)
{
    s->unconsumed -= n;
    if (!s->received_end && !s->reset)
        h2_check(s->h2, nghttp2_session_consume_stream(s->h2->session, s->id, n), "give window back");
}

void h2_consume_connection(struct h2 *h2, size_t n)
{
    h2_check(h2, nghttp2_session_consume_connection(h2->session, n), "give window back");
}
