/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_exec.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent/agent_container.h"
#include "agent/agent_container_work.h"
#include "agent/agent_context.h"
#include "agent/agent_input.h"
#include "agent/agent_kill.h"
#include "agent/terminal.h"
#include "io/file.h"

enum agent_exec_state { AGENT_EXEC_WAITING, AGENT_EXEC_STARTING, AGENT_EXEC_RUNNING, AGENT_EXEC_ENDED };

/* Standard output or error. */
struct agent_exec_stream {
    struct agent_exec *exec;
    bool is_stderr;
    int fd; /* owned; -1: none, or it has ended */
    bool asked, enlarged; /* the pipe, once its writer was found busy */
    int64_t read_ms;      /* when there was something last */
    unsigned small;       /* pieces in a row that came one soon after another, without any input meanwhile */
    size_t left;          /* bytes to read, then it is over; SIZE_MAX: until the pipe's end */
    struct timer gather;  /* runs while it is not read, for more to come together */
    struct watch watch;
};

struct agent_exec {
    struct list link;       /* in the container's execs */
    struct agent *agent;
    struct agent_container *container; /* NULL before the first message, and once it is gone */
    struct rpc_call *call;  /* NULL once the caller is gone */
    enum agent_exec_state state;
    bool tty;
    bool timed_out;
    bool kill_wanted;       /* as soon as there is something to kill */
    bool blocked;           /* until the call is writable again */
    pid_t pid;
    int wait_status;
    struct child child;
    struct worker worker, killer;
    int worker_fds[3];      /* while it starts: our ends */
    struct agent_exec_stream streams[2];
    struct agent_input input;
    struct agent_input_writer writer; /* the call; paused while it waits */
    bool stdin_end;         /* no more input will come */
    struct timer timeout, drain;
};

static void agent_exec_check_end(struct agent_exec *e);

/* ---- object ---- */

static void agent_exec_close_stream(struct agent_exec_stream *s)
{
    watch_stop(&s->watch);
    timer_stop(&s->gather);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static void agent_exec_close_stdin(struct agent_exec *e)
{
    agent_input_drop(&e->input, &e->writer);
    agent_input_close(&e->input);
}

static void agent_exec_free(struct agent_exec *e)
{
    agent_exec_close_stream(&e->streams[0]);
    agent_exec_close_stream(&e->streams[1]);
    agent_exec_close_stdin(e);
    agent_stdio_close(e->worker_fds);
    timer_stop(&e->timeout);
    timer_stop(&e->drain);
    list_remove(&e->link);
    if (--e->agent->exec_count == 0) {
        free(e->agent->exec_block);
        e->agent->exec_block = NULL;
    }
    free(e);
}

/* ---- killing ---- */

struct agent_exec_kill_work {
    struct agent *agent;
    struct agent_kill kill;
};

static bool agent_exec_kill_work(void *arg, struct buf *output, struct status *err)
{
    const struct agent_exec_kill_work *work = arg;

    (void)output;
    agent_worker_enter(work->agent);
    return agent_kill_all(&work->kill, err);
}

static void agent_exec_on_killed(void *arg, const struct status *err, struct buf *output)
{
    struct agent_exec *e = arg;

    (void)output;
    if (err != NULL)
        log_warn("exec: %s", err->message);
    agent_exec_check_end(e);
}

static ino_t agent_exec_inode(int fd)
{
    struct stat st;

    return fd >= 0 && fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) ? st.st_ino : 0;
}

/* Kills the process and its descendants, now or when it has started. */
static void agent_exec_kill(struct agent_exec *e)
{
    struct status err = STATUS_INIT;
    struct agent_exec_kill_work work = {
        .agent = e->agent,
        .kill = { e->pid,
                  { agent_exec_inode(e->input.fd), agent_exec_inode(e->streams[0].fd),
                    agent_exec_inode(e->streams[1].fd) } },
    };

    e->kill_wanted = true;
    if (e->state != AGENT_EXEC_RUNNING || worker_running(&e->killer))
        return;
    if (!worker_start(e->agent->loop, &e->killer, agent_exec_kill_work, &work, agent_exec_on_killed, e, &err)) {
        log_warn("exec: only the process group of %d is killed: %s", e->pid, err.message);
        kill(-e->pid, SIGKILL);
    }
}

static void agent_exec_on_timeout(void *arg)
{
    struct agent_exec *e = arg;

    e->timed_out = true;
    /* A process that has ended leaves nothing to kill but descendants which hold its pipes: those are not waited for. */
    if (e->state == AGENT_EXEC_ENDED)
        agent_exec_check_end(e);
    else
        agent_exec_kill(e);
}

static void agent_exec_on_cancel(void *arg)
{
    struct agent_exec *e = arg;

    e->call = NULL;
    if (e->state == AGENT_EXEC_WAITING) {
        agent_exec_free(e);
        return;
    }
    agent_exec_kill(e);
    agent_exec_check_end(e);
}

/* ---- the end ---- */

static void agent_exec_finish(struct agent_exec *e)
{
    struct rpc_call *call = e->call;
    Interlink__Agent__V1__ExecExited exited = INTERLINK__AGENT__V1__EXEC_EXITED__INIT;
    Interlink__Agent__V1__ExecResponse response = INTERLINK__AGENT__V1__EXEC_RESPONSE__INIT;

    exited.exit_code = WIFSIGNALED(e->wait_status) ? 128 + WTERMSIG(e->wait_status) : WEXITSTATUS(e->wait_status);
    exited.timed_out = e->timed_out;
    response.exited = &exited;
    agent_exec_free(e);
    if (call == NULL)
        return;
    rpc_send(call, &response.base);
    rpc_finish(call, NULL);
}

/* It is over when the process has ended, nothing is being killed, and its output has ended, or nobody waits for that. */
static void agent_exec_check_end(struct agent_exec *e)
{
    bool output_ended = e->streams[0].fd < 0 && e->streams[1].fd < 0;

    if (e->state != AGENT_EXEC_ENDED || worker_running(&e->killer))
        return;
    if (output_ended || e->call == NULL || e->timed_out)
        agent_exec_finish(e);
}

/* ---- output ---- */

static void agent_exec_on_readable(void *arg, unsigned events);

/* A pipe that may not be read now is not watched: with its writer gone it would report that for ever. */
static void agent_exec_watch(struct agent_exec_stream *s)
{
    struct status err = STATUS_INIT;

    if (s->fd < 0)
        return;
    if (s->exec->blocked || timer_running(&s->gather))
        watch_stop(&s->watch);
    else if (s->watch.loop == NULL &&
             !watch_start(s->exec->agent->loop, &s->watch, s->fd, WATCH_READ, agent_exec_on_readable, s, &err))
        agent_exec_close_stream(s);
}

static void agent_exec_on_gathered(void *arg)
{
    agent_exec_watch(arg);
}

/* A process that fills its pipe gets a larger one, so that it and we take turns less often. One that writes on and on in small
 * pieces is looked at every so often only. That must not slow a dialogue down: there is input between its pieces. */
static void agent_exec_pace(struct agent_exec_stream *s, size_t n)
{
    int64_t now = clock_mono_ms(), pause = now - s->read_ms;

    s->read_ms = now;
    if (pause > AGENT_EXEC_GATHER_MS + 1)
        s->small = 0;
    else if (n < AGENT_EXEC_GATHER_SIZE)
        s->small++;
    bool busy = s->small >= AGENT_EXEC_GATHER_AFTER && n < AGENT_EXEC_GATHER_SIZE;
    if (!s->asked && (busy || n == AGENT_EXEC_READ_SIZE)) {
        s->asked = true;
        s->enlarged = fcntl(s->fd, F_SETPIPE_SZ, AGENT_PIPE_SIZE) >= AGENT_PIPE_SIZE;
    }
    if (busy && s->enlarged && s->exec->state == AGENT_EXEC_RUNNING)
        timer_start(s->exec->agent->loop, &s->gather, AGENT_EXEC_GATHER_MS, agent_exec_on_gathered, s);
}

static void agent_exec_on_readable(void *arg, unsigned events)
{
    struct agent_exec_stream *s = arg;
    struct agent_exec *e = s->exec;

    (void)events;
    if (e->agent->exec_block == NULL)
        e->agent->exec_block = xmalloc(AGENT_EXEC_READ_SIZE);
    ssize_t n = read(s->fd, e->agent->exec_block, s->left < AGENT_EXEC_READ_SIZE ? s->left : AGENT_EXEC_READ_SIZE);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) { /* a terminal whose other end is closed says EIO */
        agent_exec_close_stream(s);
        agent_exec_check_end(e);
        return;
    }
    if (e->call == NULL) /* nobody listens any more */
        return;
    s->left -= s->left != SIZE_MAX ? (size_t)n : 0;
    Interlink__Agent__V1__ExecResponse response = INTERLINK__AGENT__V1__EXEC_RESPONSE__INIT;
    ProtobufCBinaryData *data = s->is_stderr ? &response.stderr : &response.stdout;
    data->data = e->agent->exec_block;
    data->len = (size_t)n;
    agent_exec_pace(s, (size_t)n);
    e->blocked = !rpc_send(e->call, &response.base);
    if (s->left == 0)
        agent_exec_close_stream(s);
    agent_exec_watch(&e->streams[0]);
    agent_exec_watch(&e->streams[1]);
    agent_exec_check_end(e);
}

static void agent_exec_on_writable(void *arg)
{
    struct agent_exec *e = arg;

    e->blocked = false;
    agent_exec_watch(&e->streams[0]);
    agent_exec_watch(&e->streams[1]);
}

/* Either the caller is slow or this machine, or descendants hold the pipes: what is in them by now is the command's, the rest nobody's. */
static void agent_exec_on_drain(void *arg)
{
    struct agent_exec *e = arg;

    for (int i = 0; i < 2; i++) {
        struct agent_exec_stream *s = &e->streams[i];
        int n = 0;
        if (s->fd >= 0 && (ioctl(s->fd, FIONREAD, &n) < 0 || n <= 0))
            agent_exec_close_stream(s);
        else
            s->left = (size_t)n;
    }
    agent_exec_check_end(e);
}

static void agent_exec_on_exit(void *arg, int wait_status)
{
    struct agent_exec *e = arg;

    e->state = AGENT_EXEC_ENDED;
    e->wait_status = wait_status;
    agent_exec_close_stdin(e);
    for (int i = 0; i < 2; i++) { /* what it left is there */
        timer_stop(&e->streams[i].gather);
        agent_exec_watch(&e->streams[i]);
    }
    timer_start(e->agent->loop, &e->drain, AGENT_DRAIN_MS, agent_exec_on_drain, e);
    agent_exec_check_end(e);
}

/* ---- input ---- */

/* The end of input on a terminal is a character, unless the program reads it raw. */
static void agent_exec_end_terminal(const struct agent_exec *e)
{
    struct termios settings;

    if (e->input.fd >= 0 && tcgetattr(e->input.fd, &settings) == 0 && (settings.c_lflag & ICANON) != 0) {
        ssize_t ignored UNUSED = write(e->input.fd, &settings.c_cc[VEOF], 1);
    }
}

static void agent_exec_check_input_end(struct agent_exec *e)
{
    if (!e->stdin_end)
        return;
    if (e->tty)
        agent_exec_end_terminal(e);
    agent_input_close(&e->input);
}

static void agent_exec_on_input_room(void *arg)
{
    struct agent_exec *e = arg;

    agent_exec_check_input_end(e);
    if (e->call != NULL)
        rpc_call_pause(e->call, false);
}

static void agent_exec_on_input(struct agent_exec *e, const Interlink__Agent__V1__ExecRequest *request)
{
    if (request->width != 0 && request->height != 0 && e->tty && e->streams[0].fd >= 0)
        terminal_resize(e->streams[0].fd, request->width, request->height);
    e->streams[0].small = e->streams[1].small = 0;
    if (e->input.fd < 0 || e->stdin_end)
        return;
    e->stdin_end = request->stdin_end != 0;
    if (agent_input_write(&e->input, &e->writer, request->stdin.data, request->stdin.len))
        agent_exec_check_input_end(e);
    else
        rpc_call_pause(e->call, true);
}

/* ---- the start ---- */

struct agent_exec_work {
    struct agent *agent;
    const struct agent_container *container;
    const char *const *argv;
    struct engine_stdio io;
};

static bool agent_exec_work(void *arg, struct buf *output, struct status *err)
{
    const struct agent_exec_work *work = arg;
    const struct agent_container *c = work->container;
    pid_t pid;

    agent_worker_enter(work->agent);
    if (!engine_exec(work->agent->engine, c->id, c->bundle, c->pid, work->argv, &work->io, &pid, err))
        return false;
    buf_append(output, &pid, sizeof pid);
    return true;
}

/* Takes the streams over from the worker. */
static bool agent_exec_take(struct agent_exec *e, struct status *err)
{
    int *fds = e->worker_fds;

    if (e->tty) {
        int terminal = engine_terminal(fds[0], err);
        if (terminal < 0)
            return false;
        agent_input_open(&e->input, fcntl(terminal, F_DUPFD_CLOEXEC, 3));
        e->streams[0].fd = terminal;
    } else {
        agent_input_open(&e->input, fds[0]);
        e->streams[0].fd = fds[1];
        e->streams[1].fd = fds[2];
        fds[0] = fds[1] = fds[2] = -1;
    }
    for (int i = 0; i < 2; i++)
        if (e->streams[i].fd >= 0)
            fd_set_nonblocking(e->streams[i].fd, true);
    agent_exec_watch(&e->streams[0]);
    agent_exec_watch(&e->streams[1]);
    return true;
}

static void agent_exec_on_started(void *arg, const struct status *err, struct buf *output)
{
    struct agent_exec *e = arg;
    struct status lost = STATUS_INIT;
    pid_t pid = 0;
    int wait_status;

    if (err == NULL && output->n == sizeof pid)
        memcpy(&pid, output->p, sizeof pid);
    bool ended = pid > 0 && agent_orphans_take(&e->agent->orphans, pid, &wait_status);
    agent_orphans_expected(&e->agent->orphans);
    if (err == NULL && !agent_exec_take(e, &lost)) {
        if (!ended)
            kill(-pid, SIGKILL);
        err = &lost;
    }
    if (err != NULL) {
        struct rpc_call *call = e->call;
        agent_exec_free(e);
        if (call != NULL)
            rpc_fail(call, err);
        return;
    }
    agent_stdio_close(e->worker_fds);
    e->pid = pid;
    e->state = AGENT_EXEC_RUNNING;
    if (e->call != NULL)
        rpc_call_pause(e->call, false);
    if (ended) {
        agent_exec_on_exit(e, wait_status);
        return;
    }
    child_adopt(e->agent->loop, &e->child, pid, agent_exec_on_exit, e);
    if (e->kill_wanted)
        agent_exec_kill(e);
}

static bool agent_exec_check(const struct agent_exec *e, const Interlink__Agent__V1__ExecStart *start, struct status *err)
{
    size_t bytes = 0;

    if (!agent_usable(e->agent, err))
        return false;
    const struct agent_container *c = agent_container_find(e->agent, start->container_id);
    if (c == NULL)
        return status_set(err, STATUS_NOT_FOUND, "container \"%.64s\" is not in this pod", start->container_id);
    if (c->state != AGENT_CONTAINER_RUNNING)
        return status_set(err, STATUS_FAILED_PRECONDITION, "container %s is not running", c->id);
    if (start->n_command == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "start.command: empty");
    for (size_t i = 0; i < start->n_command; i++)
        bytes += strlen(start->command[i]) + 1 + sizeof(char *);
    return bytes <= AGENT_COMMAND_BYTES_MAX ||
           status_set(err, STATUS_INVALID_ARGUMENT, "start.command: longer than %u bytes", AGENT_COMMAND_BYTES_MAX);
}

static bool agent_exec_start(struct agent_exec *e, const Interlink__Agent__V1__ExecStart *start, struct status *err)
{
    struct agent_stdio io;
    struct agent_exec_work work = { .agent = e->agent };

    if (!agent_exec_check(e, start, err) || !agent_stdio_make(&io, start->tty != 0, start->stdin != 0, err))
        return false;
    struct agent_container *c = agent_container_find(e->agent, start->container_id);
    const char **argv = ARENA_ARRAY(rpc_call_arena(e->call), const char *, start->n_command + 1);
    for (size_t i = 0; i < start->n_command; i++)
        argv[i] = start->command[i];
    work.container = c;
    work.argv = argv;
    agent_stdio_engine(&io, start->tty != 0, &work.io);
    work.io.width = start->width;
    work.io.height = start->height;
    e->tty = start->tty != 0;
    memcpy(e->worker_fds, io.ours, sizeof e->worker_fds);
    bool started = worker_start(e->agent->loop, &e->worker, agent_exec_work, &work, agent_exec_on_started, e, err);
    agent_stdio_close(io.theirs);
    if (!started)
        return false;
    agent_orphans_expect(&e->agent->orphans);
    e->state = AGENT_EXEC_STARTING;
    e->container = c;
    list_append(&c->execs, &e->link);
    rpc_call_pause(e->call, true);
    if (start->timeout_ms > 0)
        timer_start(e->agent->loop, &e->timeout, start->timeout_ms < INT32_MAX ? start->timeout_ms : INT32_MAX,
                    agent_exec_on_timeout, e);
    return true;
}

static void agent_exec_on_message(void *arg, const ProtobufCMessage *message)
{
    struct agent_exec *e = arg;
    const Interlink__Agent__V1__ExecRequest *request = (const void *)message;
    struct status err = STATUS_INIT;

    if (e->state != AGENT_EXEC_WAITING) {
        /* The caller's half-close ends the input, and nothing else. */
        Interlink__Agent__V1__ExecRequest end = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;
        end.stdin_end = true;
        agent_exec_on_input(e, request != NULL ? request : &end);
        return;
    }
    if (request == NULL || request->start == NULL)
        status_set(&err, STATUS_INVALID_ARGUMENT, "start: missing: it must be in the first message");
    else if (agent_exec_start(e, request->start, &err))
        return;
    struct rpc_call *call = e->call;
    agent_exec_free(e);
    rpc_fail(call, &err);
}

void agent_exec(struct agent *agent, struct rpc_call *call)
{
    if (agent->exec_count == AGENT_EXECS_MAX) {
        rpc_failf(call, STATUS_RESOURCE_EXHAUSTED, "%d commands run in this pod already; try again later", AGENT_EXECS_MAX);
        return;
    }
    struct agent_exec *e = xcalloc(1, sizeof *e);
    e->agent = agent;
    e->call = call;
    agent_input_init(&e->input, agent->loop);
    agent_input_writer_init(&e->writer, agent_exec_on_input_room, e);
    for (size_t i = 0; i < COUNT_OF(e->worker_fds); i++)
        e->worker_fds[i] = -1;
    for (int i = 0; i < 2; i++)
        e->streams[i] = (struct agent_exec_stream){ .exec = e, .is_stderr = i == 1, .fd = -1, .left = SIZE_MAX };
    list_init(&e->link);
    agent->exec_count++;
    rpc_call_on_message(call, agent_exec_on_message, e);
    rpc_call_on_writable(call, agent_exec_on_writable, e);
    rpc_call_on_cancel(call, agent_exec_on_cancel, e);
}

/* ---- for the container ---- */

void agent_exec_kill_all(struct agent_container *c)
{
    /* What has left its group is in the container still, and goes with that. */
    for (LIST_EACH(struct agent_exec, e, &c->execs, link))
        if (e->state == AGENT_EXEC_RUNNING)
            kill(-e->pid, SIGKILL);
}

void agent_exec_detach_all(struct agent_container *c)
{
    while (!list_empty(&c->execs)) {
        struct agent_exec *e = CONTAINER_OF(c->execs.next, struct agent_exec, link);
        e->container = NULL;
        list_remove(&e->link);
    }
}

void agent_exec_close_inputs(struct agent_container *c)
{
    for (LIST_EACH(struct agent_exec, e, &c->execs, link)) {
        if (e->input.fd >= 0)
            close(e->input.fd);
        if (e->worker_fds[0] >= 0)
            close(e->worker_fds[0]);
    }
}
