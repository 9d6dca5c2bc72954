/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/slurm_command.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/file.h"
#include "plugin/slurm_options.h"
#include "plugin/slurm_parse.h"

extern char **environ;

static void slurm_commands_next(struct slurm_commands *commands);

void slurm_commands_init(struct slurm_commands *commands, struct loop *loop, const struct slurm_config *config)
{
    *commands = (struct slurm_commands){ .loop = loop, .config = config };
    list_init(&commands->waiting);
}

/* ---- words ---- */

/* env(1) sets how times are written, also on the other side of a prefix. */
const char **slurm_command_line(struct arena *arena, const struct slurm_config *config, enum slurm_tool tool,
                                const char *const *arguments)
{
    static const char *const before[] = { "env", "TZ=UTC0", "SLURM_TIME_FORMAT=standard" };
    size_t count = 0, n = 0;

    while (arguments[n] != NULL)
        n++;
    const char **argv = ARENA_ARRAY(arena, const char *, config->prefix.count + COUNT_OF(before) + n + 2);
    for (size_t i = 0; i < config->prefix.count; i++)
        argv[count++] = config->prefix.items[i];
    size_t quoted_from = count;
    for (size_t i = 0; i < COUNT_OF(before); i++)
        argv[count++] = before[i];
    argv[count++] = config->tools[tool];
    for (size_t i = 0; i < n; i++)
        argv[count++] = arguments[i];
    for (size_t i = quoted_from; config->prefix_is_shell && i < count; i++) {
        cleanup_buf struct buf word = BUF_INIT;
        slurm_shell_word(&word, argv[i]);
        argv[i] = arena_strdup(arena, buf_cstr(&word));
    }
    return argv;
}

/* A job gets sbatch's environment. So nothing of ours travels but what makes programs work: no secrets that a service manager or an
 * operator may have put there, and no SBATCH_ variables, which would change what was asked for. */
static const char **slurm_command_environment(struct arena *arena)
{
    static const char *const names[] = { "PATH=", "HOME=", "USER=", "LOGNAME=", "SHELL=", "LANG=", "LC_ALL=", "SLURM_CONF=",
                                         "LD_LIBRARY_PATH=", "SSH_AUTH_SOCK=", "KRB5CCNAME=" };
    size_t n = 0, count = 0;

    while (environ[n] != NULL)
        n++;
    const char **envp = ARENA_ARRAY(arena, const char *, n + 1);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < COUNT_OF(names); k++)
            if (str_starts(environ[i], names[k]))
                envp[count++] = environ[i];
    return envp;
}

/* ---- the end ---- */

static void slurm_command_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Gives everything back; the command is not in use any more. */
static void slurm_command_release(struct slurm_command *c)
{
    struct slurm_commands *commands = c->commands;

    watch_stop(&c->out_watch);
    watch_stop(&c->errors_watch);
    timer_stop(&c->timer);
    child_forget(&c->child);
    slurm_command_close(&c->out_fd);
    slurm_command_close(&c->errors_fd);
    slurm_command_close(&c->stdin_fd);
    for (size_t i = 0; c->argv != NULL && c->argv[i] != NULL; i++)
        free(c->argv[i]);
    free(c->argv);
    c->argv = NULL;
    list_remove(&c->link);
    if (c->running)
        commands->running--;
    c->running = false;
    c->commands = NULL;
    slurm_commands_next(commands);
}

static bool slurm_command_verdict(struct slurm_command *c, struct status *err)
{
    const char *name = slurm_tool_names[c->tool];
    cleanup_buf struct buf words = BUF_INIT;

    slurm_error_text((struct str){ (const char *)c->errors.p, c->errors.n }, &words);
    const char *text = buf_cstr(&words);
    if (c->timed_out)
        return status_set(err, STATUS_UNAVAILABLE, "%s did not end within %d s%s%s", name, SLURM_COMMAND_TIMEOUT_MS / 1000,
                          *text != '\0' ? ": " : "", text);
    if (c->overflow)
        return status_set(err, STATUS_UNAVAILABLE, "%s printed more than %u bytes", name, SLURM_OUTPUT_MAX);
    if (WIFSIGNALED(c->wait_status))
        return status_set(err, STATUS_UNAVAILABLE, "%s was ended by signal %d%s%s", name, WTERMSIG(c->wait_status),
                          *text != '\0' ? ": " : "", text);
    if (WEXITSTATUS(c->wait_status) == 0)
        return true;
    return status_set(err, slurm_error_passing(text) ? STATUS_UNAVAILABLE : STATUS_FAILED_PRECONDITION, "%s: %s", name,
                      *text != '\0' ? text : "it failed without a word");
}

static void slurm_command_finish(struct slurm_command *c)
{
    struct status err = STATUS_INIT;
    struct slurm_answer answer = { .output = { (const char *)c->out.p, c->out.n } };
    void (*done)(void *arg, const struct slurm_answer *answer) = c->done;
    void *arg = c->arg;

    if (!slurm_command_verdict(c, &err))
        answer.err = &err;
    /* ssh(1) ends with 255 when its connection breaks. */
    answer.cut_off = c->timed_out || c->overflow || WIFSIGNALED(c->wait_status) ||
                     (c->commands->config->prefix.count > 0 && WIFEXITED(c->wait_status) && WEXITSTATUS(c->wait_status) == 255);
    struct buf out = c->out;
    c->out = (struct buf)BUF_INIT;
    buf_free(&c->errors);
    slurm_command_release(c);
    done(arg, &answer);
    buf_free(&out);
}

static void slurm_command_check(struct slurm_command *c)
{
    if (c->exited && c->out_fd < 0 && c->errors_fd < 0)
        slurm_command_finish(c);
}

static void slurm_command_on_exit(void *arg, int wait_status)
{
    struct slurm_command *c = arg;

    c->exited = true;
    c->wait_status = wait_status;
    slurm_command_check(c);
}

/* Something that it started may hold the pipes open: they are closed, too. */
static void slurm_command_on_time(void *arg)
{
    struct slurm_command *c = arg;

    c->timed_out = true;
    if (!c->exited)
        kill(-c->child.pid, SIGKILL);
    watch_stop(&c->out_watch);
    watch_stop(&c->errors_watch);
    slurm_command_close(&c->out_fd);
    slurm_command_close(&c->errors_fd);
    slurm_command_check(c);
}

/* ---- output ---- */

static void slurm_command_read(struct slurm_command *c, int *fd, struct watch *watch, struct buf *into, size_t max)
{
    for (;;) {
        ssize_t n = read(*fd, buf_reserve(into, 16384), 16384);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            break;
        into->n += (size_t)n;
        if (into->n <= max)
            continue;
        if (into == &c->errors) {
            into->n = max; /* the first words count */
            continue;
        }
        c->overflow = true;
        if (!c->exited)
            kill(-c->child.pid, SIGKILL);
        break;
    }
    watch_stop(watch);
    slurm_command_close(fd);
    slurm_command_check(c);
}

static void slurm_command_on_output(void *arg, unsigned events)
{
    struct slurm_command *c = arg;

    (void)events;
    slurm_command_read(c, &c->out_fd, &c->out_watch, &c->out, SLURM_OUTPUT_MAX);
}

static void slurm_command_on_errors(void *arg, unsigned events)
{
    struct slurm_command *c = arg;

    (void)events;
    slurm_command_read(c, &c->errors_fd, &c->errors_watch, &c->errors, SLURM_ERRORS_MAX);
}

/* ---- start ---- */

/* sbatch gives its mask to the job. */
static bool slurm_command_in_child(void *arg)
{
    (void)arg;
    umask(077);
    return true;
}

static bool slurm_command_spawn(struct slurm_command *c, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct loop *loop = c->commands->loop;
    int out[2], errors[2];

    if (pipe2(out, O_CLOEXEC) < 0)
        return status_errno(err, "no pipe");
    c->out_fd = out[0];
    if (pipe2(errors, O_CLOEXEC) < 0) {
        close(out[1]);
        return status_errno(err, "no pipe");
    }
    c->errors_fd = errors[0];
    fd_set_nonblocking(c->out_fd, true);
    fd_set_nonblocking(c->errors_fd, true);
    struct child_options options = {
        .argv = (const char *const *)(uintptr_t)c->argv,
        .envp = slurm_command_environment(&arena),
        .stdin_fd = c->stdin_fd,
        .stdout_fd = out[1],
        .stderr_fd = errors[1],
        .new_session = true,
        .in_child = slurm_command_in_child,
    };
    bool ok = watch_start(loop, &c->out_watch, c->out_fd, WATCH_READ, slurm_command_on_output, c, err) &&
              watch_start(loop, &c->errors_watch, c->errors_fd, WATCH_READ, slurm_command_on_errors, c, err) &&
              child_spawn(loop, &c->child, &options, slurm_command_on_exit, c, err);
    close(out[1]);
    close(errors[1]);
    slurm_command_close(&c->stdin_fd);
    if (ok)
        timer_start(loop, &c->timer, SLURM_COMMAND_TIMEOUT_MS, slurm_command_on_time, c);
    return ok;
}

static void slurm_command_failed(void *arg)
{
    struct slurm_command *c = arg;
    struct status err = STATUS_INIT;
    void (*done)(void *arg, const struct slurm_answer *answer) = c->done;
    void *done_arg = c->arg;

    status_set(&err, STATUS_UNAVAILABLE, "%s cannot be started: %.*s", slurm_tool_names[c->tool], (int)c->errors.n,
               (const char *)c->errors.p);
    buf_free(&c->out);
    buf_free(&c->errors);
    slurm_command_release(c);
    done(done_arg, &(struct slurm_answer){ .err = &err });
}

static void slurm_commands_next(struct slurm_commands *commands)
{
    while (commands->running < SLURM_COMMANDS_MAX && !list_empty(&commands->waiting)) {
        struct slurm_command *c = CONTAINER_OF(commands->waiting.next, struct slurm_command, link);
        struct status err = STATUS_INIT;
        list_remove(&c->link);
        c->running = true;
        commands->running++;
        commands->started[c->tool]++;
        if (slurm_command_spawn(c, &err))
            continue;
        buf_clear(&c->errors);
        buf_append_str(&c->errors, err.message);
        /* Not from inside the caller. */
        timer_start(commands->loop, &c->timer, 0, slurm_command_failed, c);
    }
}

void slurm_command_start(struct slurm_commands *commands, struct slurm_command *c, enum slurm_tool tool,
                         const char *const *arguments, int stdin_fd,
                         void (*done)(void *arg, const struct slurm_answer *answer), void *arg)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const char **line = slurm_command_line(&arena, commands->config, tool, arguments);
    size_t n = 0;

    while (line[n] != NULL)
        n++;
    *c = (struct slurm_command){ .commands = commands, .tool = tool, .stdin_fd = stdin_fd, .out_fd = -1, .errors_fd = -1,
                                 .done = done, .arg = arg };
    c->argv = xcalloc(n + 1, sizeof *c->argv);
    for (size_t i = 0; i < n; i++)
        c->argv[i] = xstrdup(line[i]);
    list_append(&commands->waiting, &c->link);
    slurm_commands_next(commands);
}

void slurm_command_forget(struct slurm_command *c)
{
    if (c->commands == NULL)
        return;
    buf_free(&c->out);
    buf_free(&c->errors);
    slurm_command_release(c);
}
