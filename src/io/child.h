/* SPDX-License-Identifier: Apache-2.0 */
/* child.h: processes of ours: programs (child) and pieces of work in a forked copy of ourselves (worker). */
#ifndef IO_CHILD_H
#define IO_CHILD_H

#include "io/loop.h"

/* ---- reaping ---- */
struct child {
    struct loop *loop; /* NULL when not running */
    pid_t pid;
    struct list link;
    void (*on_exit)(void *arg, int wait_status); /* as waitpid(2); the child is no longer running by then */
    void *arg;
};
/* Starts to reap this process's children on SIGCHLD. Must be called once, before the first child. `on_orphan` (may be
 * NULL) hears of children nobody registered: a subreaper's orphans. */
bool child_reaper_start(struct loop *loop, void (*on_orphan)(void *arg, pid_t pid, int wait_status), void *arg,
                        struct status *err);
/* Registers a process that was forked elsewhere (or that became our child as an orphan). */
void child_adopt(struct loop *loop, struct child *c, pid_t pid, void (*on_exit)(void *arg, int wait_status), void *arg);
/* Forgets it without killing it; it is reaped in silence. */
void child_forget(struct child *c);

/* ---- programs ---- */
struct child_options {
    const char *const *argv;   /* NULL-terminated; argv[0] is looked up in PATH unless it holds a slash */
    const char *const *envp;   /* NULL: ours */
    const char *cwd;           /* NULL: ours */
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null; borrowed, may be equal */
    bool new_session;          /* setsid: the child outlives us */
    bool die_with_parent;      /* PR_SET_PDEATHSIG SIGKILL */
    /* Runs in the child just before exec, after descriptors are set (async-signal-safe calls only); false: exit 127. May be NULL. */
    bool (*in_child)(void *arg);
    void *in_child_arg;
};
/* All other descriptors are closed in the child, signals have their default action and none is blocked. A program that
 * cannot be executed is an error here, with errno's text, not a silent exit. */
bool child_spawn(struct loop *loop, struct child *c, const struct child_options *options,
                 void (*on_exit)(void *arg, int wait_status), void *arg, struct status *err);

/* Runs a program to its end and waits for it, so only for those that take milliseconds, or in a worker. What it says on its standard
 * output, and with `errors_too` on its standard error, is appended to `said`, at most `max` bytes and what a pipe gives at once; what is
 * beyond ends it. True when it was started; then *wait_status is set as by waitpid(2). */
bool child_capture(const char *path, char *const argv[], bool errors_too, size_t max, struct buf *said, int *wait_status,
                   struct status *err);

/* ---- workers ---- */
/* A function run in a forked copy of this process: what may take CPU or disk time. It shares nothing back but its
 * result: bytes appended to `output` (at most WORKER_OUTPUT_MAX) and, on false, the error. It must not touch the loop. */
struct worker {
    struct child child;
    struct watch watch;
    int pipe_fd;
    struct buf output;
    bool exited, eof;
    int wait_status;
    void (*on_done)(void *arg, const struct status *err, struct buf *output);
    void *arg;
};
/* on_done hears err == NULL on success. A worker that dies (killed, crashed) gives INTERNAL with the signal's name. */
bool worker_start(struct loop *loop, struct worker *w, bool (*work)(void *work_arg, struct buf *output, struct status *err),
                  void *work_arg, void (*on_done)(void *arg, const struct status *err, struct buf *output), void *arg,
                  struct status *err);
/* The same for what must not stop half way: the worker has a session of its own and none of our descriptors but 0 to 2, and goes
 * on to its end when we have died. */
bool worker_start_lasting(struct loop *loop, struct worker *w,
                          bool (*work)(void *work_arg, struct buf *output, struct status *err), void *work_arg,
                          void (*on_done)(void *arg, const struct status *err, struct buf *output), void *arg,
                          struct status *err);
/* Kills it (SIGKILL); on_done is not called. Harmless when it is not running. */
void worker_cancel(struct worker *w);
/* Lets it go on; on_done is not called. Harmless when it is not running. */
void worker_leave(struct worker *w);
static inline bool worker_running(const struct worker *w)
{
    return w->on_done != NULL;
}

/* In a forked child: default actions, nothing blocked, every descriptor but those listed and 0-2 closed. */
void child_reset_signals(void);
void child_close_fds_except(const int *keep, size_t count);

#endif
