/* SPDX-License-Identifier: Apache-2.0 */
#include "io/child.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/file.h"

/* SIGCHLD belongs to the process, so its table does too. Started once, by child_reaper_start. */
static struct {
    struct list children;
    pid_t owner; /* whose children these are: a forked copy of us has none yet */
    void (*on_orphan)(void *arg, pid_t pid, int wait_status);
    void *arg;
} child_table;

static struct child *child_find(pid_t pid)
{
    for (LIST_EACH(struct child, c, &child_table.children, link))
        if (c->pid == pid)
            return c;
    return NULL;
}

static void child_on_sigchld(void *arg, const struct signalfd_siginfo *info)
{
    int wait_status;
    pid_t pid;

    (void)arg;
    (void)info;
    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
        struct child *c = child_find(pid);
        if (c == NULL) {
            if (child_table.on_orphan != NULL)
                child_table.on_orphan(child_table.arg, pid, wait_status);
            continue;
        }
        list_remove(&c->link);
        c->loop = NULL;
        if (c->on_exit != NULL)
            c->on_exit(c->arg, wait_status);
    }
}

bool child_reaper_start(struct loop *loop, void (*on_orphan)(void *arg, pid_t pid, int wait_status), void *arg,
                        struct status *err)
{
    if (child_table.owner != getpid())
        list_init(&child_table.children);
    child_table.owner = getpid();
    child_table.on_orphan = on_orphan;
    child_table.arg = arg;
    return loop_signal(loop, SIGCHLD, child_on_sigchld, NULL, err);
}

void child_adopt(struct loop *loop, struct child *c, pid_t pid, void (*on_exit)(void *arg, int wait_status), void *arg)
{
    *c = (struct child){ .loop = loop, .pid = pid, .on_exit = on_exit, .arg = arg };
    list_append(&child_table.children, &c->link);
}

void child_forget(struct child *c)
{
    if (c->loop == NULL)
        return;
    list_remove(&c->link);
    c->loop = NULL;
}

void child_reset_signals(void)
{
    sigset_t none;

    for (int i = 1; i < NSIG; i++)
        if (i != SIGKILL && i != SIGSTOP)
            signal(i, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool child_kept(int fd, const int *keep, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (keep[i] == fd)
            return true;
    return fd <= 2;
}

void child_close_fds_except(const int *keep, size_t count)
{
    /* close_range(2), Linux 5.9: one call for each gap between the kept ones. */
#ifdef SYS_close_range
    unsigned first = 3;
    for (;;) {
        unsigned next = ~0u;
        for (size_t i = 0; i < count; i++)
            if (keep[i] >= (int)first && (unsigned)keep[i] < next)
                next = (unsigned)keep[i];
        if (next > first && syscall(SYS_close_range, first, next == ~0u ? ~0u : next - 1, 0) < 0)
            break;
        if (next == ~0u)
            return;
        first = next + 1;
    }
#endif
    /* Older kernels: what /proc lists, else everything up to the limit. */
    DIR *dir = opendir("/proc/self/fd");
    if (dir != NULL) {
        struct dirent *entry;
        while ((entry = readdir(dir)) != NULL) {
            uint64_t fd;
            if (parse_u64(entry->d_name, INT32_MAX, &fd) && (int)fd != dirfd(dir) && !child_kept((int)fd, keep, count))
                close((int)fd);
        }
        closedir(dir);
        return;
    }
    long limit = sysconf(_SC_OPEN_MAX);
    for (int fd = 3; fd < limit; fd++)
        if (!child_kept(fd, keep, count))
            close(fd);
}

/* Gives the child its descriptors 0 to 2. Sources may be among 0 to 2 themselves, so they move out of the way first. */
static bool child_place_stdio(const struct child_options *o)
{
    int from[3] = { o->stdin_fd, o->stdout_fd, o->stderr_fd };

    for (int i = 0; i < 3; i++) {
        from[i] = from[i] < 0 ? open("/dev/null", O_RDWR) : from[i];
        if (from[i] >= 0 && from[i] <= 2)
            from[i] = fcntl(from[i], F_DUPFD, 3);
        if (from[i] < 0)
            return false;
    }
    for (int i = 0; i < 3; i++)
        if (dup2(from[i], i) < 0)
            return false;
    return true;
}

/* Runs in the child; never returns. */
static void child_exec(const struct child_options *o, int error_fd, pid_t parent)
{
    int keep = error_fd;

    child_reset_signals();
    if (o->new_session)
        setsid();
    if (o->die_with_parent && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
        _exit(127);
    if (child_place_stdio(o) && (o->cwd == NULL || chdir(o->cwd) == 0)) {
        child_close_fds_except(&keep, 1);
        if (o->in_child != NULL && !o->in_child(o->in_child_arg))
            _exit(127);
        if (o->envp != NULL)
            execvpe(o->argv[0], (char *const *)(uintptr_t)o->argv, (char *const *)(uintptr_t)o->envp);
        else
            execvp(o->argv[0], (char *const *)(uintptr_t)o->argv);
    }
    int number = errno;
    ssize_t ignored UNUSED = write(error_fd, &number, sizeof number);
    _exit(127);
}

bool child_spawn(struct loop *loop, struct child *c, const struct child_options *options,
                 void (*on_exit)(void *arg, int wait_status), void *arg, struct status *err)
{
    int pipe_fds[2];
    pid_t parent = getpid();

    /* The pipe closes on a successful exec; an errno in it is the child's failure. exec takes well under a
     * millisecond, so waiting for it here does not hold up the loop. */
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return status_errno(err, "cannot start %s: no pipe", options->argv[0]);
    /* The error pipe must not be one of 0 to 2, which the child replaces. */
    int error_fd = fcntl(pipe_fds[1], F_DUPFD_CLOEXEC, 3);
    close(pipe_fds[1]);
    pid_t pid = error_fd < 0 ? -1 : fork();
    if (pid == 0) {
        close(pipe_fds[0]);
        child_exec(options, error_fd, parent);
    }
    if (pid < 0)
        status_errno(err, "cannot start %s: fork", options->argv[0]);
    if (error_fd >= 0)
        close(error_fd);
    int number = 0;
    ssize_t n = 0;
    if (pid > 0)
        do
            n = read(pipe_fds[0], &number, sizeof number);
        while (n < 0 && errno == EINTR);
    close(pipe_fds[0]);
    if (pid < 0)
        return false;
    if (n == (ssize_t)sizeof number) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        errno = number;
        return status_errno(err, "cannot start %s", options->argv[0]);
    }
    child_adopt(loop, c, pid, on_exit, arg);
    return true;
}

bool child_capture(const char *path, char *const argv[], bool errors_too, size_t max, struct buf *said, int *wait_status,
                   struct status *err)
{
    int fds[2];
    ssize_t n;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return status_errno(err, "cannot make a pipe");
    pid_t pid = fork();
    if (pid == 0) {
        int null_fd = open("/dev/null", O_RDWR);
        child_reset_signals();
        if (null_fd >= 0 && dup2(null_fd, 0) >= 0 && dup2(fds[1], 1) >= 0 && dup2(errors_too ? fds[1] : null_fd, 2) >= 0) {
            child_close_fds_except(NULL, 0);
            execv(path, argv);
        }
        _exit(127);
    }
    if (pid < 0)
        status_errno(err, "cannot start %s: fork", path);
    close(fds[1]);
    while (pid > 0 && said->n < max && ((n = read(fds[0], buf_reserve(said, 4096), 4096)) > 0 || (n < 0 && errno == EINTR)))
        said->n += n > 0 ? (size_t)n : 0;
    close(fds[0]);
    while (pid > 0 && waitpid(pid, wait_status, 0) < 0 && errno == EINTR)
        ;
    return pid > 0;
}

/* ---- workers ---- */

static void worker_finish(struct worker *w)
{
    struct status err = STATUS_INIT;
    const struct status *result = &err;
    void (*on_done)(void *arg, const struct status *err, struct buf *output) = w->on_done;
    struct buf output = w->output;

    /* The result's first byte is 'y' (output follows) or 'n' (a struct status follows). */
    if (WIFSIGNALED(w->wait_status))
        status_set(&err, STATUS_INTERNAL, "a worker process was ended by signal %d (%s)", WTERMSIG(w->wait_status),
                   strsignal(WTERMSIG(w->wait_status)));
    else if (output.n >= 1 && output.p[0] == 'y')
        result = NULL;
    else if (output.n == 1 + sizeof err && output.p[0] == 'n')
        memcpy(&err, output.p + 1, sizeof err);
    else
        status_set(&err, STATUS_INTERNAL, "a worker process ended with status %d and no result",
                   WEXITSTATUS(w->wait_status));
    if (result == NULL)
        buf_consume(&output, 1);
    else
        buf_clear(&output);
    w->output = (struct buf)BUF_INIT;
    w->on_done = NULL;
    on_done(w->arg, result, &output);
    buf_free(&output);
}

static void worker_on_exit(void *arg, int wait_status)
{
    struct worker *w = arg;

    w->exited = true;
    w->wait_status = wait_status;
    if (w->eof)
        worker_finish(w);
}

static void worker_on_output(void *arg, unsigned events)
{
    struct worker *w = arg;

    (void)events;
    for (;;) {
        uint8_t *room = buf_reserve(&w->output, 4096);
        ssize_t n = read(w->pipe_fd, room, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n > 0 && w->output.n + (size_t)n <= WORKER_OUTPUT_MAX + 1 + sizeof(struct status)) {
            w->output.n += (size_t)n;
            continue;
        }
        break;
    }
    watch_stop(&w->watch);
    close(w->pipe_fd);
    w->eof = true;
    if (w->exited)
        worker_finish(w);
}

/* Runs in the forked copy; never returns. */
static void worker_main(int fd, bool (*work)(void *work_arg, struct buf *output, struct status *err), void *work_arg,
                        pid_t parent, bool lasting)
{
    struct buf output = BUF_INIT;
    struct status err = STATUS_INIT, ignored;

    child_reset_signals();
    if (lasting) {
        setsid();
        child_close_fds_except(&fd, 1);
        signal(SIGPIPE, SIG_IGN); /* nobody may be there for the result */
    } else if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent) {
        _exit(1);
    }
    buf_append_byte(&output, 'y');
    if (!work(work_arg, &output, &err)) {
        buf_clear(&output);
        buf_append_byte(&output, 'n');
        buf_append(&output, &err, sizeof err);
    }
    _exit(write_all(fd, output.p, output.n, &ignored) ? 0 : 1);
}

static bool worker_launch(struct loop *loop, struct worker *w,
                          bool (*work)(void *work_arg, struct buf *output, struct status *err), void *work_arg,
                          void (*on_done)(void *arg, const struct status *err, struct buf *output), void *arg, bool lasting,
                          struct status *err)
{
    int fds[2];
    pid_t parent = getpid();

    if (pipe2(fds, O_CLOEXEC) < 0)
        return status_errno(err, "cannot start a worker: no pipe");
    pid_t pid = fork();
    if (pid == 0) {
        close(fds[0]);
        worker_main(fds[1], work, work_arg, parent, lasting);
    }
    if (pid < 0)
        status_errno(err, "cannot start a worker: fork");
    close(fds[1]);
    *w = (struct worker){ .pipe_fd = fds[0], .on_done = on_done, .arg = arg };
    fd_set_nonblocking(fds[0], true);
    if (pid < 0 || !watch_start(loop, &w->watch, fds[0], WATCH_READ, worker_on_output, w, err)) {
        close(fds[0]);
        if (pid > 0)
            kill(pid, SIGKILL);
        w->on_done = NULL;
        return false;
    }
    child_adopt(loop, &w->child, pid, worker_on_exit, w);
    return true;
}

bool worker_start(struct loop *loop, struct worker *w, bool (*work)(void *work_arg, struct buf *output, struct status *err),
                  void *work_arg, void (*on_done)(void *arg, const struct status *err, struct buf *output), void *arg,
                  struct status *err)
{
    return worker_launch(loop, w, work, work_arg, on_done, arg, false, err);
}

bool worker_start_lasting(struct loop *loop, struct worker *w,
                          bool (*work)(void *work_arg, struct buf *output, struct status *err), void *work_arg,
                          void (*on_done)(void *arg, const struct status *err, struct buf *output), void *arg,
                          struct status *err)
{
    return worker_launch(loop, w, work, work_arg, on_done, arg, true, err);
}

void worker_cancel(struct worker *w)
{
    if (w->on_done != NULL && !w->exited)
        kill(w->child.pid, SIGKILL);
    worker_leave(w);
}

void worker_leave(struct worker *w)
{
    if (w->on_done == NULL)
        return;
    if (!w->exited)
        child_forget(&w->child);
    if (!w->eof) {
        watch_stop(&w->watch);
        close(w->pipe_fd);
    }
    buf_free(&w->output);
    w->on_done = NULL;
}
