/* SPDX-License-Identifier: Apache-2.0 */
#include "node/call_in.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "io/child.h"
#include "io/file.h"
#include "io/stream.h"
#include "node/last_words.h"
#include "node/relay.h"
#include "node/sandbox_internal.h"
#include "node/sandbox_job.h"

struct call_in {
    struct sandbox *sandbox;
    struct timer next;    /* the next command, or the end of one that leads nowhere */
    struct timer silence; /* what to say is found out again */
    int64_t since_ms;     /* monotonic: expected since then */
    int64_t came_ms;      /* the last call; 0: none yet */
    struct child child;   /* the command */
    bool running;
    char peer[48];        /* of the stream that is the command's */
    unsigned failures;    /* commands in a row that led to no call, or not for long */
    struct watch errors;
    int errors_fd;        /* owned: its standard error; -1 */
    struct buf line;      /* of it, not complete yet */
    unsigned lines;       /* of this command, logged */
    char said[CALL_IN_WORDS_MAX]; /* its last line, or how it ended */
    struct last_words *words; /* owned: the end of its job's log, being read */
    char agent_said[CALL_IN_WORDS_MAX];
};

static void call_in_on_next(void *arg);
static void call_in_on_silence(void *arg);

static bool call_in_wanted(const struct sandbox *sandbox)
{
    return sandbox->link == NULL && sandbox->job != NULL && !sandbox->stopping &&
           sandbox->record->phase != INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY;
}

/* ---- words ---- */

static void call_in_say(struct call_in *c)
{
    struct sandbox *sandbox = c->sandbox;
    const Interlink__State__V1__Sandbox *record = sandbox->record;
    const struct node_handler_options *o = sandbox->handler->options;
    int64_t seconds = (clock_mono_ms() - c->since_ms) / 1000;
    cleanup_buf struct buf words = BUF_INIT;
    bool quiet = seconds * 1000 < CALL_IN_SILENCE_MS;

    buf_printf(&words, "job %s has started%s%s; its agent has not called in", *record->job_id != '\0' ? record->job_id : record->job_uid,
               *record->job_nodes != '\0' ? " on " : "", record->job_nodes);
    if (quiet)
        buf_append_str(&words, " yet");
    else
        buf_printf(&words, " for %" PRId64 " s", seconds);
    if (*c->agent_said != '\0')
        buf_printf(&words, "; it says: %s", c->agent_said);
    if (*c->said != '\0')
        buf_printf(&words, "; the command %s (Dial of handler %s): %s", o->dial[0], o->name, c->said);
    const char *relay = sandbox->node->options->relay_address;
    if (!quiet && !sandbox->handler->local)
        buf_printf(&words, "; compute nodes must reach Relay.Advertise (%s), directly or through https_proxy in their environment, or "
                   "this node must reach them by a command (Dial)", *relay != '\0' ? relay : "not set");
    if (!quiet && strcmp(sandbox->queue_words, buf_cstr(&words)) != 0)
        log_warn("pod %.13s: %s", record->id, buf_cstr(&words));
    sandbox_say(sandbox, xstrdup(buf_cstr(&words)));
}

/* One line, fit for an event. */
static void call_in_keep(char out[CALL_IN_WORDS_MAX], const char *text, size_t n)
{
    size_t kept = 0;

    while (n > 0 && (unsigned char)*text <= ' ') {
        text++;
        n--;
    }
    for (size_t i = 0; i < n && kept + 1 < CALL_IN_WORDS_MAX; i++)
        out[kept++] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? ' ' : text[i];
    while (kept > 0 && out[kept - 1] == ' ')
        kept--;
    out[kept] = '\0';
}

/* ---- the agent's log, by REST ---- */

static void call_in_on_words(void *arg, const char *text)
{
    struct call_in *c = arg;
    const char *found = NULL;

    c->words = NULL;
    for (const char *at = text; (at = strstr(at, AGENT_FAULT_WORDS)) != NULL; at++)
        found = at;
    if (found == NULL)
        return;
    const char *end = strstr(found, "; ");
    call_in_keep(c->agent_said, found, end != NULL ? (size_t)(end - found) : strlen(found));
    if (call_in_wanted(c->sandbox))
        call_in_say(c);
}

static void call_in_on_silence(void *arg)
{
    struct call_in *c = arg;

    if (!call_in_wanted(c->sandbox))
        return;
    call_in_say(c);
    if (c->words == NULL)
        c->words = sandbox_job_words(c->sandbox, call_in_on_words, c);
    bool first = clock_mono_ms() - c->since_ms < CALL_IN_SECOND_MS;
    timer_start(c->sandbox->node->loop, &c->silence, first ? CALL_IN_SECOND_MS : CALL_IN_AGAIN_MS, call_in_on_silence, c);
}

/* ---- the command ---- */

bool call_in_first_node(const char *nodes, char *out, size_t n)
{
    size_t head = strcspn(nodes, "[,"), number = 0, tail = 0;
    const char *rest = nodes + head;

    if (*rest == '[') {
        const char *end = strchr(rest, ']');
        number = strcspn(rest + 1, "-,]");
        if (end == NULL || number == 0)
            return false;
        const char *behind = end + 1;
        tail = strcspn(behind, "[,");
        if (behind[tail] == '[')
            return false;
        return (size_t)snprintf(out, n, "%.*s%.*s%.*s", (int)head, nodes, (int)number, rest + 1, (int)tail, behind) < n;
    }
    return head > 0 && (size_t)snprintf(out, n, "%.*s", (int)head, nodes) < n;
}

/* What is filled in goes through a shell, if the command is ssh: it must not mean anything to one. */
static bool call_in_plain(const char *value)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:@+-";

    return *value != '\0' && *value != '-' && value[strspn(value, plain)] == '\0';
}

static bool call_in_value(const struct call_in_places *p, const char *place, char out[CALL_IN_WORDS_MAX], struct status *err)
{
    const char *value = strcmp(place, "{pod}") == 0   ? p->pod
                        : strcmp(place, "{uid}") == 0 ? p->uid
                        : strcmp(place, "{jid}") == 0 ? p->jid
                                                      : p->nodes;

    if (*value == '\0')
        return status_set(err, STATUS_UNAVAILABLE, "the site has not said yet what %s is", place);
    if (value == p->nodes ? !call_in_first_node(value, out, CALL_IN_WORDS_MAX)
                                   : snprintf(out, CALL_IN_WORDS_MAX, "%s", value) >= CALL_IN_WORDS_MAX)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s cannot be told from \"%.100s\"", place, value);
    return call_in_plain(out) ||
           status_set(err, STATUS_FAILED_PRECONDITION, "%s is \"%.100s\", which has characters that a shell could take for its own", place,
                      out);
}

static bool call_in_word(struct arena *arena, const struct call_in_places *places, const char *word, const char **out, struct status *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    char value[CALL_IN_WORDS_MAX];

    while (*word != '\0') {
        size_t i = 0;
        while (i < COUNT_OF(node_dial_places) && !str_starts(word, node_dial_places[i]))
            i++;
        if (i == COUNT_OF(node_dial_places)) {
            buf_append_byte(&text, (uint8_t)*word++);
            continue;
        }
        if (!call_in_value(places, node_dial_places[i], value, err))
            return false;
        buf_append_str(&text, value);
        word += strlen(node_dial_places[i]);
    }
    *out = arena_strdup(arena, buf_cstr(&text));
    return true;
}

const char *const *call_in_fill(struct arena *arena, const char *const *dial, const struct call_in_places *places, struct status *err)
{
    size_t n = 0;

    while (dial[n] != NULL)
        n++;
    const char **argv = ARENA_ARRAY(arena, const char *, n + 1);
    for (size_t i = 0; i < n; i++)
        if (!call_in_word(arena, places, dial[i], &argv[i], err))
            return NULL;
    return argv;
}

static const char *const *call_in_command(struct arena *arena, const struct sandbox *sandbox, struct status *err)
{
    const Interlink__State__V1__Sandbox *record = sandbox->record;
    const struct call_in_places places = { record->id, record->job_uid, record->job_id, record->job_nodes };

    return call_in_fill(arena, sandbox->handler->options->dial, &places, err);
}

static void call_in_close_errors(struct call_in *c)
{
    watch_stop(&c->errors);
    if (c->errors_fd >= 0)
        close(c->errors_fd);
    c->errors_fd = -1;
}

static void call_in_take_lines(struct call_in *c, bool over)
{
    for (;;) {
        size_t n = strcspn(buf_cstr(&c->line), "\n");
        if (n == 0 && c->line.n == 0)
            return;
        if (n == c->line.n && !over && n < CALL_IN_WORDS_MAX)
            return;
        char words[CALL_IN_WORDS_MAX];
        call_in_keep(words, buf_cstr(&c->line), n);
        buf_consume(&c->line, n < c->line.n ? n + 1 : n);
        if (*words == '\0')
            continue;
        memcpy(c->said, words, sizeof words);
        if (c->lines++ < CALL_IN_LINES_MAX)
            log_info("pod %.13s: %s: %s", c->sandbox->record->id, c->sandbox->handler->options->dial[0], words);
    }
}

static void call_in_on_errors(void *arg, unsigned events)
{
    struct call_in *c = arg;
    ssize_t n = read(c->errors_fd, buf_reserve(&c->line, CALL_IN_WORDS_MAX), CALL_IN_WORDS_MAX);

    (void)events;
    if (n > 0)
        c->line.n += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        call_in_close_errors(c);
    call_in_take_lines(c, n <= 0);
}

/* Commands of many pods do not all begin at once when serve is started again: a part of each pause is left to chance. */
static void call_in_schedule(struct call_in *c, int64_t pause_ms)
{
    uint32_t chance;

    random_bytes(&chance, sizeof chance);
    timer_start(c->sandbox->node->loop, &c->next, pause_ms + (int64_t)(chance % (uint32_t)(pause_ms / 4 + 1)), call_in_on_next, c);
}

static int64_t call_in_pause_ms(const struct call_in *c)
{
    int64_t pause = c->failures < 6 ? CALL_IN_PAUSE_MIN_MS << c->failures : CALL_IN_PAUSE_MAX_MS;

    return pause < CALL_IN_PAUSE_MAX_MS ? pause : CALL_IN_PAUSE_MAX_MS;
}

static void call_in_on_exit(void *arg, int wait_status)
{
    struct call_in *c = arg;

    c->running = false;
    c->sandbox->node->calling_in--;
    timer_stop(&c->next);
    if (c->errors_fd >= 0)
        call_in_on_errors(c, WATCH_READ);
    call_in_close_errors(c);
    if (*c->said == '\0' && WIFEXITED(wait_status))
        snprintf(c->said, sizeof c->said, "ended with %d", WEXITSTATUS(wait_status));
    else if (*c->said == '\0')
        snprintf(c->said, sizeof c->said, "killed by signal %d", WTERMSIG(wait_status));
    if (!call_in_wanted(c->sandbox))
        return;
    /* One that has carried a connection for a while may begin again at once. */
    if (c->came_ms != 0 && clock_mono_ms() - c->came_ms > CALL_IN_PAUSE_MAX_MS)
        c->failures = 0;
    call_in_say(c);
    call_in_schedule(c, call_in_pause_ms(c));
    c->failures++;
}

static void call_in_kill(struct call_in *c)
{
    if (c->running)
        kill(-c->child.pid, SIGTERM); /* a session of its own */
}

static void call_in_on_stuck(void *arg)
{
    struct call_in *c = arg;

    snprintf(c->said, sizeof c->said, "no call came over it in %d s", CALL_IN_COMMAND_MS / 1000);
    kill(-c->child.pid, SIGKILL);
}

static bool call_in_spawn(struct call_in *c, const char *const *argv, const int in[2], const int out[2], const int errors[2],
                          struct status *err)
{
    struct child_options options = {
        .argv = argv,
        .stdin_fd = in[0],
        .stdout_fd = out[1],
        .stderr_fd = errors[1],
        .new_session = true, /* ssh must not ask on a terminal */
        .die_with_parent = true,
    };
    struct loop *loop = c->sandbox->node->loop;

    if (!child_spawn(loop, &c->child, &options, call_in_on_exit, c, err))
        return false;
    c->running = true;
    c->sandbox->node->calling_in++;
    return true;
}

static void call_in_close_pair(int pair[2])
{
    for (size_t i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
    pair[0] = pair[1] = -1;
}

/* Runs it and hands its ends to the relay. */
static bool call_in_run(struct call_in *c, struct status *err)
{
    struct node *node = c->sandbox->node;
    cleanup_arena struct arena arena = ARENA_INIT;
    const char *const *argv = call_in_command(&arena, c->sandbox, err);
    int in[2] = { -1, -1 }, out[2] = { -1, -1 }, errors[2] = { -1, -1 };

    if (argv == NULL)
        return false;
    bool ok = (pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 && pipe2(errors, O_CLOEXEC | O_NONBLOCK) == 0) ||
              status_errno(err, "no pipe");
    /* Its own end must not be non-blocking: programs do not expect that of standard error. */
    ok = ok && fd_set_nonblocking(errors[1], false) && call_in_spawn(c, argv, in, out, errors, err);
    if (ok) {
        c->errors_fd = errors[0];
        struct stream *stream = stream_of_fds(node->loop, out[0], in[1], err);
        errors[0] = out[0] = in[1] = -1;
        watch_start(node->loop, &c->errors, c->errors_fd, WATCH_READ, call_in_on_errors, c, err);
        snprintf(c->peer, sizeof c->peer, "command:pid=%d", (int)c->child.pid);
        if (stream != NULL) {
            snprintf(stream->peer, sizeof stream->peer, "%s", c->peer);
            relay_accept(node->relay, stream);
        }
        c->said[0] = '\0';
        c->lines = 0;
        timer_start(node->loop, &c->next, CALL_IN_COMMAND_MS, call_in_on_stuck, c);
    }
    call_in_close_pair(in);
    call_in_close_pair(out);
    call_in_close_pair(errors);
    return ok;
}

static void call_in_on_next(void *arg)
{
    struct call_in *c = arg;
    struct status err = STATUS_INIT;

    if (!call_in_wanted(c->sandbox) || c->running)
        return;
    if (c->sandbox->node->relay == NULL || c->sandbox->node->calling_in >= CALL_IN_COMMANDS_MAX) {
        call_in_schedule(c, CALL_IN_PAUSE_MIN_MS);
        return;
    }
    if (call_in_run(c, &err))
        return;
    call_in_keep(c->said, err.message, strlen(err.message));
    call_in_say(c);
    call_in_schedule(c, call_in_pause_ms(c));
    c->failures++;
}

/* ---- the interface ---- */

void call_in_expect(struct sandbox *sandbox)
{
    struct node *node = sandbox->node;
    struct call_in *c = sandbox->call_in;

    if (!call_in_wanted(sandbox))
        return;
    if (c == NULL) {
        c = sandbox->call_in = xcalloc(1, sizeof *c);
        c->sandbox = sandbox;
        c->errors_fd = -1;
        c->since_ms = clock_mono_ms();
    }
    if (!timer_running(&c->silence)) {
        c->since_ms = clock_mono_ms();
        timer_start(node->loop, &c->silence, CALL_IN_SILENCE_MS, call_in_on_silence, c);
    }
    call_in_say(c);
    if (sandbox->handler->options->dial == NULL)
        return;
    if (c->running)
        call_in_kill(c); /* it has carried a connection that is lost; its end begins the next */
    else if (!timer_running(&c->next))
        call_in_schedule(c, *node->options->relay_listen != '\0' ? CALL_IN_PATIENCE_MS : 0);
}

void call_in_came(struct sandbox *sandbox, const struct stream *stream)
{
    struct call_in *c = sandbox->call_in;

    if (c == NULL)
        return;
    timer_stop(&c->next);
    timer_stop(&c->silence);
    c->came_ms = clock_mono_ms();
    c->said[0] = c->agent_said[0] = '\0';
    last_words_cancel(c->words);
    c->words = NULL;
    if (c->running && strcmp(stream->peer, c->peer) != 0)
        call_in_kill(c); /* the agent has found its own way */
}

const char *call_in_words(const struct sandbox *sandbox)
{
    return sandbox->call_in != NULL && timer_running(&sandbox->call_in->silence) ? sandbox->queue_words : "";
}

void call_in_free(struct sandbox *sandbox)
{
    struct call_in *c = sandbox->call_in;

    if (c == NULL)
        return;
    timer_stop(&c->next);
    timer_stop(&c->silence);
    if (c->running) {
        call_in_kill(c);
        child_forget(&c->child);
        sandbox->node->calling_in--;
    }
    call_in_close_errors(c);
    last_words_cancel(c->words);
    buf_free(&c->line);
    free(c);
    sandbox->call_in = NULL;
}
