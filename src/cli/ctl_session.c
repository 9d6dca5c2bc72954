/* SPDX-License-Identifier: Apache-2.0 */
/* Source: k8s.io/client-go/tools/remotecommand (the protocol channel.k8s.io, versions 4 and 5). */
#include "cli/ctl_stream.h"

#include "text/json.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Read from standard input at once. */
#define CTL_INPUT_SIZE (32 << 10)
/* How a command ended, as JSON. */
#define CTL_STATUS_MAX (64 << 10)
/* What leaves the other side to itself, typed one after the other: ctrl-p, ctrl-q. */
#define CTL_DETACH_FIRST 0x10
#define CTL_DETACH_SECOND 0x11

/* As WebSocket numbers them. */
enum { CTL_STREAM_IN, CTL_STREAM_OUT, CTL_STREAM_ERR, CTL_STREAM_STATUS, CTL_STREAM_RESIZE, CTL_STREAMS };

struct ctl_session;

/* Standard output or error. Whoever reads them slowly is waited for, and with us the whole connection, so that what has come is
 * shown whatever becomes of the other side. Signals are heard meanwhile, for the write does not block, where that can be had
 * without changing what we share with others. */
struct ctl_output {
    int fd;        /* STDOUT_FILENO or STDERR_FILENO */
    int reopened;  /* owned; the same pipe or terminal with flags of its own; -1: none */
    bool is_socket;
    bool broken;   /* nobody reads it */
};

struct ctl_session_channel {
    struct ctl_session *session;
    struct channel *channel; /* NULL: none, or gone */
    bool ended;              /* nothing more comes */
    struct ctl_output output;
};

struct ctl_session {
    struct ctl *ctl;
    const struct ctl_session_options *options;
    struct channel_conn *conn;
    struct ctl_session_channel channels[CTL_STREAMS];
    struct watch in_watch;
    struct timer in_timer; /* for files, which are always ready */
    bool in_full;          /* the other side does not take more */
    bool in_over;
    bool detach_first;     /* the first of the two keys was typed */
    bool detached;
    struct buf status;
    bool closed;
    struct status closed_why;
    struct timer timeout;
    bool timed_out;
};

/* ---- output ---- */

static void ctl_output_open(struct ctl_output *o, int fd)
{
    struct stat st;
    char path[32];

    *o = (struct ctl_output){ .fd = fd, .reopened = -1 };
    if (fstat(fd, &st) < 0)
        return;
    o->is_socket = S_ISSOCK(st.st_mode);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (S_ISFIFO(st.st_mode) || isatty(fd) == 1)
        o->reopened = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static void ctl_output_close(struct ctl_output *o)
{
    if (o->reopened >= 0)
        close(o->reopened);
}

/* Until it can be written, or the time is up. SIGINT and SIGTERM, which the loop cannot hear now, do what they do by themselves. */
static void ctl_output_wait(struct ctl_session *s, const struct ctl_output *o)
{
    struct pollfd poll = { .fd = o->reopened >= 0 ? o->reopened : o->fd, .events = POLLOUT };
    int64_t left = timer_running(&s->timeout) ? s->timeout.due_ms - clock_mono_ms() : INT64_MAX;
    struct timespec time = { .tv_sec = (time_t)(left / 1000), .tv_nsec = (long)(left % 1000 * 1000000) };
    sigset_t mask;

    sigprocmask(SIG_SETMASK, NULL, &mask);
    sigdelset(&mask, SIGINT);
    sigdelset(&mask, SIGTERM);
    if (left > 0)
        ppoll(&poll, 1, left != INT64_MAX ? &time : NULL, &mask);
    s->timed_out = s->timed_out || (left != INT64_MAX && s->timeout.due_ms <= clock_mono_ms());
}

static void ctl_output_put(struct ctl_session *s, struct ctl_output *o, struct str piece)
{
    while (piece.n > 0 && !o->broken && !s->timed_out) {
        ssize_t n = o->is_socket ? send(o->fd, piece.p, piece.n, MSG_DONTWAIT | MSG_NOSIGNAL)
                                 : write(o->reopened >= 0 ? o->reopened : o->fd, piece.p, piece.n);
        if (n >= 0)
            piece = (struct str){ piece.p + n, piece.n - (size_t)n };
        else if (errno == EAGAIN)
            ctl_output_wait(s, o);
        else if (errno != EINTR)
            o->broken = true;
    }
}

/* ---- input ---- */

static void ctl_input_on_readable(void *arg, unsigned events);

static void ctl_input_on_timer(void *arg)
{
    ctl_input_on_readable(arg, WATCH_READ);
}

/* Listens to standard input as long as the other side takes it. */
static void ctl_input_listen(struct ctl_session *s)
{
    struct status err;

    if (s->in_over || s->in_full || s->channels[CTL_STREAM_IN].channel == NULL) {
        watch_stop(&s->in_watch);
        timer_stop(&s->in_timer);
    } else if (s->in_watch.loop == NULL && !timer_running(&s->in_timer) &&
               !watch_start(s->ctl->loop, &s->in_watch, STDIN_FILENO, WATCH_READ, ctl_input_on_readable, s, &err)) {
        timer_start(s->ctl->loop, &s->in_timer, 0, ctl_input_on_timer, s); /* a file: epoll does not take those */
    }
}

/* What was typed, without the keys that detach; the first of them is held back until the next one comes. */
static size_t ctl_input_filter(struct ctl_session *s, const uint8_t *typed, size_t n, uint8_t *out)
{
    size_t left = 0;

    for (size_t i = 0; i < n; i++) {
        bool first = s->detach_first;
        s->detach_first = typed[i] == CTL_DETACH_FIRST;
        if (first && typed[i] == CTL_DETACH_SECOND) {
            s->detached = true;
            return left;
        }
        if (first)
            out[left++] = CTL_DETACH_FIRST;
        if (!s->detach_first)
            out[left++] = typed[i];
    }
    return left;
}

static void ctl_input_on_readable(void *arg, unsigned events)
{
    struct ctl_session *s = arg;
    struct channel *channel = s->channels[CTL_STREAM_IN].channel;
    uint8_t bytes[CTL_INPUT_SIZE], filtered[CTL_INPUT_SIZE + 1];

    (void)events;
    ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
    if (n > 0) {
        size_t left = s->options->tty ? ctl_input_filter(s, bytes, (size_t)n, filtered) : (size_t)n;
        s->in_full = left > 0 && !channel_send(channel, s->options->tty ? filtered : bytes, left);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        s->in_over = true;
        channel_end(channel);
    }
    ctl_input_listen(s);
}

/* ---- the terminal ---- */

static void ctl_session_send_size(struct ctl_session *s)
{
    struct channel *channel = s->channels[CTL_STREAM_RESIZE].channel;
    unsigned width, height;
    char text[64];

    if (channel == NULL || (!ctl_terminal_size(STDIN_FILENO, &width, &height) &&
                            !ctl_terminal_size(STDOUT_FILENO, &width, &height)))
        return;
    int n = snprintf(text, sizeof text, "{\"Width\":%u,\"Height\":%u}\n", width, height);
    channel_send(channel, text, (size_t)n);
}

static void ctl_session_on_window(void *arg, const struct signalfd_siginfo *info)
{
    struct ctl *ctl = arg;

    (void)info;
    if (ctl->session != NULL)
        ctl_session_send_size(ctl->session);
}

/* The terminal is the shell's while we are stopped. */
static void ctl_session_on_stop(void *arg, const struct signalfd_siginfo *info)
{
    (void)arg;
    (void)info;
    ctl_terminal_restore();
    raise(SIGSTOP);
}

static void ctl_session_on_continue(void *arg, const struct signalfd_siginfo *info)
{
    struct ctl *ctl = arg;
    struct status ignored;

    (void)info;
    if (ctl->session == NULL)
        return;
    ctl_terminal_restore(); /* stopped by SIGSTOP: nobody could do it then */
    (void)ctl_terminal_raw(STDIN_FILENO, &ignored);
    ctl_session_send_size(ctl->session);
}

static bool ctl_session_take_terminal(struct ctl_session *s, struct status *err)
{
    struct ctl *ctl = s->ctl;

    /* Handlers stay with the loop; they look which session there is. */
    if (!ctl->watches_terminal && (!loop_signal(ctl->loop, SIGWINCH, ctl_session_on_window, ctl, err) ||
                                   !loop_signal(ctl->loop, SIGTSTP, ctl_session_on_stop, ctl, err) ||
                                   !loop_signal(ctl->loop, SIGCONT, ctl_session_on_continue, ctl, err)))
        return false;
    ctl->watches_terminal = true;
    ctl->session = s;
    return ctl_terminal_raw(STDIN_FILENO, err);
}

/* ---- channels ---- */

static int ctl_session_which(const struct ctl_session_channel *c)
{
    return (int)(c - c->session->channels);
}

static void ctl_session_on_data(void *arg, struct str piece)
{
    struct ctl_session_channel *c = arg;
    struct ctl_session *s = c->session;
    int which = ctl_session_which(c);

    if (which == CTL_STREAM_OUT || which == CTL_STREAM_ERR)
        ctl_output_put(s, &c->output, piece);
    else if (which == CTL_STREAM_STATUS && s->status.n + piece.n <= CTL_STATUS_MAX)
        buf_append(&s->status, piece.p, piece.n);
}

static void ctl_session_on_end(void *arg)
{
    struct ctl_session_channel *c = arg;

    c->ended = true;
}

static void ctl_session_on_writable(void *arg)
{
    struct ctl_session_channel *c = arg;

    if (ctl_session_which(c) != CTL_STREAM_IN)
        return;
    c->session->in_full = false;
    ctl_input_listen(c->session);
}

static void ctl_session_on_gone(void *arg, const struct status *err)
{
    struct ctl_session_channel *c = arg;

    (void)err; /* that of the connection is told */
    c->channel = NULL;
    c->ended = true;
    if (ctl_session_which(c) == CTL_STREAM_IN)
        ctl_input_listen(c->session);
}

static void ctl_session_on_close(void *arg, const struct status *err)
{
    struct ctl_session *s = arg;

    s->closed = true;
    s->closed_why = *err;
}

static bool ctl_session_open(struct ctl_session *s, const struct ctl_upgraded *upgraded, bool websocket, struct status *err)
{
    static const char *const types[CTL_STREAMS] = { "stdin", "stdout", "stderr", "error", "resize" };
    /* The order in which Kubernetes' own clients open them. */
    static const int order[CTL_STREAMS] = { CTL_STREAM_STATUS, CTL_STREAM_IN, CTL_STREAM_OUT, CTL_STREAM_ERR, CTL_STREAM_RESIZE };
    const bool wanted[CTL_STREAMS] = { s->options->with_stdin, true, !s->options->tty, true, s->options->tty };
    struct channel_conn_options options = {
        .carrier = websocket ? CHANNEL_WEBSOCKET : CHANNEL_SPDY,
        .client = true,
        .channel_count = CTL_STREAMS,
        .close_signals = strcmp(upgraded->protocol, "v5.channel.k8s.io") == 0,
        .on_close = ctl_session_on_close,
        .arg = s,
    };
    struct channel_listener listener = {
        .on_data = ctl_session_on_data, .on_end = ctl_session_on_end, .on_writable = ctl_session_on_writable,
        .on_gone = ctl_session_on_gone,
    };

    s->conn = channel_conn_new(s->ctl->loop, upgraded->stream, (struct str){ (const char *)upgraded->early.p, upgraded->early.n },
                               &options);
    for (int i = 0; i < CTL_STREAMS; i++) {
        struct ctl_session_channel *c = &s->channels[order[i]];
        const struct http_header header = { "streamtype", types[order[i]] };
        c->ended = !wanted[order[i]];
        if (!websocket && !wanted[order[i]])
            continue;
        c->channel = websocket ? channel_number(s->conn, (size_t)order[i]) : channel_open(s->conn, &header, 1);
        if (c->channel == NULL)
            return status_set(err, STATUS_UNAVAILABLE, "the connection is closing");
        listener.arg = c;
        channel_listen(c->channel, &listener);
    }
    return true;
}

/* ---- the end ---- */

static bool ctl_session_over(const struct ctl_session *s)
{
    const struct ctl_session_channel *c = s->channels;

    if (s->detached || s->timed_out || c[CTL_STREAM_OUT].output.broken)
        return true;
    return s->closed || (c[CTL_STREAM_STATUS].ended && c[CTL_STREAM_OUT].ended && c[CTL_STREAM_ERR].ended);
}

/* metav1.Status: {"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}} */
static bool ctl_session_result(struct ctl_session *s, int *exit_code, struct status *err)
{
    const char *status = "", *reason = "", *message = "";
    const struct json *j;
    struct status ignored = STATUS_INIT;
    uint64_t code;

    if (s->status.n == 0)
        return status_set(err, STATUS_UNAVAILABLE, "the connection ended before the command%s%s",
                          s->closed_why.code != STATUS_OK ? ": " : "", s->closed_why.message);
    j = json_parse(&s->ctl->arena, (struct str){ buf_cstr(&s->status), s->status.n }, err);
    if (j == NULL || !json_read_string(j, "status", &status, err) || !json_read_string(j, "reason", &reason, err) ||
        !json_read_string(j, "message", &message, err))
        return status_prefix(err, "how the command ended cannot be understood");
    *exit_code = 0;
    if (strcmp(status, "Success") == 0)
        return true;
    const struct json *details = json_member(j, "details"), *causes = details != NULL ? json_member(details, "causes") : NULL;
    if (strcmp(reason, "NonZeroExitCode") == 0 && causes != NULL && causes->type == JSON_ARRAY) {
        for (JSON_EACH(cause, causes)) {
            const char *kind = "", *number = "";
            if (json_read_string(cause, "reason", &kind, &ignored) && json_read_string(cause, "message", &number, &ignored) &&
                strcmp(kind, "ExitCode") == 0 && parse_u64(number, 255, &code)) {
                *exit_code = (int)code;
                return true;
            }
        }
    }
    return status_set(err, STATUS_UNKNOWN, "%.800s", *message != '\0' ? message : "the command failed, and nothing says why");
}

static void ctl_session_on_timeout(void *arg)
{
    struct ctl_session *s = arg;

    s->timed_out = true;
}

/* Until it is over, in one way or another. */
static bool ctl_session_wait(struct ctl_session *s, int *exit_code, struct status *err)
{
    struct ctl *ctl = s->ctl;

    while (!ctl_session_over(s)) {
        if (!ctl_turn(ctl, -1, err)) {
            *exit_code = 128 + ctl->interrupted_by;
            return true;
        }
    }
    *exit_code = s->channels[CTL_STREAM_OUT].output.broken ? 1 : 0;
    if (s->timed_out)
        return status_set(err, STATUS_DEADLINE_EXCEEDED, "the command did not end within %" PRId64 " s", s->options->timeout_ms / 1000);
    if (s->detached || s->channels[CTL_STREAM_OUT].output.broken)
        return true;
    return ctl_session_result(s, exit_code, err);
}

static void ctl_session_free(struct ctl_session *s)
{
    s->ctl->session = NULL;
    ctl_terminal_restore();
    watch_stop(&s->in_watch);
    timer_stop(&s->in_timer);
    timer_stop(&s->timeout);
    channel_conn_free(s->conn);
    ctl_output_close(&s->channels[CTL_STREAM_OUT].output);
    ctl_output_close(&s->channels[CTL_STREAM_ERR].output);
    buf_free(&s->status);
}

bool ctl_session_run(struct ctl *ctl, const struct ctl_session_options *options, int *exit_code, struct status *err)
{
    static const char *const spdy[] = { "v4.channel.k8s.io" };
    static const char *const websocket[] = { "v5.channel.k8s.io", "v4.channel.k8s.io" };
    struct ctl_session s = { .ctl = ctl, .options = options };
    struct ctl_upgraded upgraded;
    bool is_websocket;

    if (!ctl_wants_websocket(ctl, &is_websocket, err))
        return false;
    struct ctl_upgrade wanted = { .url = options->url, .protocols = is_websocket ? websocket : spdy,
                                  .protocol_count = is_websocket ? COUNT_OF(websocket) : COUNT_OF(spdy) };
    if (!ctl_upgrade(ctl, &wanted, &upgraded, err))
        return false;
    ctl_flush(ctl);
    signal(SIGPIPE, SIG_IGN); /* a reader of ours that goes is no reason to leave the terminal as it is */
    for (int i = 0; i < CTL_STREAMS; i++)
        s.channels[i].session = &s;
    ctl_output_open(&s.channels[CTL_STREAM_OUT].output, STDOUT_FILENO);
    ctl_output_open(&s.channels[CTL_STREAM_ERR].output, STDERR_FILENO);
    bool ok = ctl_session_open(&s, &upgraded, is_websocket, err);
    buf_free(&upgraded.early);
    ok = ok && (!options->tty || ctl_session_take_terminal(&s, err));
    if (ok) {
        ctl_session_send_size(&s);
        ctl_input_listen(&s);
        if (options->timeout_ms > 0)
            timer_start(ctl->loop, &s.timeout, options->timeout_ms, ctl_session_on_timeout, &s);
        ok = ctl_session_wait(&s, exit_code, err);
    }
    ctl_session_free(&s);
    return ok;
}

#undef CTL_INPUT_SIZE
#undef CTL_STATUS_MAX
#undef CTL_DETACH_FIRST
#undef CTL_DETACH_SECOND
