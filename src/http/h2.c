/* SPDX-License-Identifier: Apache-2.0 */
#include "http/h2_private.h"

/* Payloads of our PINGs, to know whose answer it is. */
static const uint8_t h2_ping_keepalive[8] = { 'a', 'l', 'i', 'v', 'e', '?', 0, 0 };
static const uint8_t h2_ping_shutdown[8] = { 's', 'h', 'u', 't', 'd', 'o', 'w', 'n' };

static void h2_on_flush(void *arg);

void h2_want_flush(struct h2 *h2)
{
    if (!h2->closed && !h2->freed)
        deferred_start(h2->loop, &h2->flush, h2_on_flush, h2);
}

void h2_set_why(struct h2 *h2, const char *why)
{
    if (h2->why == NULL)
        h2->why = xstrdup(why);
}

void h2_check(struct h2 *h2, int rv, const char *what)
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
    timer_stop(&h2->trim);
    http_output_free(&h2->output);
    nghttp2_session_del(h2->session);
    h2_memory_release(h2->memory);
    stream_free(h2->stream);
    buf_free(&h2->early);
    free(h2->why);
    free(h2);
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
    timer_stop(&h2->trim);
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
    timer_stop(&h2->trim);
}

void h2_terminate(struct h2 *h2, uint32_t code, const char *why)
{
    if (h2->closed)
        return;
    h2_set_why(h2, why);
    h2_check(h2, nghttp2_session_terminate_session(h2->session, code), "terminate the session");
    h2_want_flush(h2);
}

/* ---- the connection ---- */

static void h2_on_grace_over(void *arg);

void h2_on_ping_answer(struct h2 *h2, const uint8_t *payload)
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

    while (!http_output_full(&h2->output)) {
        nghttp2_ssize n = nghttp2_session_mem_send2(h2->session, &p);
        if (h2->freed)
            return false;
        if (n < 0) {
            h2_close(h2, STATUS_INTERNAL, nghttp2_strerror((int)n));
            return false;
        }
        if (n == 0)
            break;
        http_output_copy(&h2->output, p, (size_t)n);
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
        ssize_t put = http_output_write(&h2->output, h2->stream);
        if (put < 0 && put != -EAGAIN) {
            h2_close(h2, STATUS_UNAVAILABLE, strerror((int)-put));
            return;
        }
        h2->sent += put > 0 ? (uint64_t)put : 0;
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
        full = http_output_full(&h2->output);
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

/* Bytes from the peer; false when the connection is at its end. */
static bool h2_feed(struct h2 *h2, const uint8_t *p, size_t n)
{
    nghttp2_ssize rv = nghttp2_session_mem_recv2(h2->session, p, n);

    if (h2->freed || h2->closed)
        return false;
    if (rv >= 0)
        return true;
    log_warn("%s: HTTP/2: %s; closing the connection", h2->stream->peer, nghttp2_strerror((int)rv));
    h2_close(h2, STATUS_INTERNAL, nghttp2_strerror((int)rv));
    return false;
}

static void h2_on_flush(void *arg)
{
    struct h2 *h2 = arg;

    h2_enter(h2);
    if (h2->early.n > 0) {
        struct buf early cleanup_buf = h2->early;
        h2->early = (struct buf)BUF_INIT;
        h2_feed(h2, early.p, early.n);
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
    h2->received += (uint64_t)got;
    return h2_feed(h2, input, (size_t)got) && got == (ssize_t)sizeof input;
}

/* A connection that has fallen quiet keeps nothing for speed. */
static void h2_on_trim(void *arg)
{
    struct h2 *h2 = arg;

    if (h2->events != h2->events_at_trim) {
        h2->events_at_trim = h2->events;
        timer_start(h2->loop, &h2->trim, H2_TRIM_MS, h2_on_trim, h2);
        return;
    }
    h2_enter(h2);
    h2->options.ops->on_quiet(h2->options.arg);
    if (!h2->freed) {
        http_output_trim(&h2->output);
        h2_memory_trim(h2->memory);
    }
    h2_leave(h2);
}

static void h2_on_event(void *arg, unsigned events)
{
    struct h2 *h2 = arg;

    h2_enter(h2);
    h2->events++;
    if (!timer_running(&h2->trim))
        timer_start(h2->loop, &h2->trim, H2_TRIM_MS, h2_on_trim, h2);
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

struct h2 *h2_new(struct loop *loop, struct stream *stream, const struct h2_options *options, struct str early)
{
    struct h2 *h2 = xcalloc(1, sizeof *h2);
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW_FIRST },
        { NGHTTP2_SETTINGS_MAX_FRAME_SIZE, H2_FRAME_MAX },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADERS_MAX },
        /* The last depends on the role. */
        { options->server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
          options->server ? H2_STREAMS_MAX : 0 },
    };

    h2->loop = loop;
    h2->stream = stream;
    h2->options = *options;
    h2_budget_init(&h2->own_budget);
    h2->budget = options->budget != NULL ? options->budget : &h2->own_budget;
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

struct stream *h2_carrier(const struct h2 *h2)
{
    return h2->stream;
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
void h2_bytes(const struct h2 *h2, uint64_t *received, uint64_t *sent)
{
    *received = h2->received;
    *sent = h2->sent;
}

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

bool h2_request(struct h2 *h2, struct h2_stream *s, const nghttp2_nv *fields, size_t count, bool bulk)
{
    nghttp2_data_provider2 body = h2_body_provider(s);
    nghttp2_priority_spec priority = h2_priority(bulk);

    if (!h2_accepts_requests(h2))
        return false;
    int32_t id = nghttp2_submit_request2(h2->session, &priority, fields, count, &body, s);
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
    nghttp2_data_provider2 body = h2_body_provider(s);

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

static void h2_body_queue(struct h2_stream *s, struct http_block *block)
{
    if (s->last == NULL)
        s->first = block;
    else
        s->last->next = block;
    s->last = block;
}

static void h2_body_grew(struct h2_stream *s, size_t n)
{
    s->queued += n;
    h2_queue_grew(s);
    h2_resume(s);
}

uint8_t *h2_body_append(struct h2_stream *s, size_t n)
{
    if (s->last == NULL || s->last->capacity - s->last->n < n)
        h2_body_queue(s, http_block_new(&s->h2->output, n));
    uint8_t *p = s->last->data + s->last->n;
    s->last->n += n;
    h2_body_grew(s, n);
    return p;
}

void h2_body_append_shared(struct h2_stream *s, struct shared *shared)
{
    if (shared->n <= HTTP_OUTPUT_COPY_MAX) {
        if (shared->n > 0)
            memcpy(h2_body_append(s, shared->n), shared->bytes, shared->n);
        return;
    }
    h2_body_queue(s, http_block_of_shared(shared));
    h2_body_grew(s, shared->n);
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
    if (s->h2->held != s) /* a frame that has begun needs its bytes; they go with the stream */
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
