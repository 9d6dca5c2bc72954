/* SPDX-License-Identifier: Apache-2.0 */
/* loop.h: the event loop: file descriptors (epoll), timers, deferred calls, signals and children of this process.
 *
 * Every structure is embedded in its owner's, zeroed before first use, and must be stopped before its memory goes.
 * A callback may start and stop anything, itself included, and may free its own structure after stopping it. */
#ifndef IO_LOOP_H
#define IO_LOOP_H

#include "base/base.h"

#include <signal.h>
#include <sys/signalfd.h>

struct loop;

struct loop *loop_new(struct status *err); /* NULL on failure; the caller frees with loop_free */
void loop_free(struct loop *loop);
/* Runs until loop_stop(). */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* The longest that dispatching one turn took within the last LOOP_LAG_WINDOW_MS to twice that: how late others were served. */
int64_t loop_lag_ms(const struct loop *loop);
/* One turn: waits at most timeout_ms (-1: for ever) and dispatches. For tests and for children that drive a loop. */
void loop_turn(struct loop *loop, int timeout_ms);

/* ---- file descriptors; level-triggered ---- */
#define WATCH_READ 1u
#define WATCH_WRITE 2u
#define WATCH_HANGUP 4u /* always reported: the peer is gone or the descriptor has an error */
#define WATCH_END 8u    /* the peer has ended its way, though what it sent before may not have been read yet */
struct watch {
    struct loop *loop; /* NULL when not started */
    int fd;            /* borrowed: stopping does not close it */
    unsigned events;
    void (*fn)(void *arg, unsigned events);
    void *arg;
};
/* events may be 0: then only WATCH_HANGUP is reported. */
bool watch_start(struct loop *loop, struct watch *w, int fd, unsigned events, void (*fn)(void *arg, unsigned events),
                 void *arg, struct status *err);
void watch_set(struct watch *w, unsigned events);
void watch_stop(struct watch *w); /* harmless when not started */

/* ---- timers ---- */
struct timer {
    struct loop *loop; /* NULL when not running */
    int64_t due_ms;
    size_t index; /* in the loop's heap */
    void (*fn)(void *arg);
    void *arg;
};
/* (Re)starts: calls fn once, not before delay_ms from now. */
void timer_start(struct loop *loop, struct timer *t, int64_t delay_ms, void (*fn)(void *arg), void *arg);
void timer_stop(struct timer *t);
static inline bool timer_running(const struct timer *t)
{
    return t->loop != NULL;
}

/* ---- deferred calls: once, at the end of this turn, so that a callback never re-enters its caller ---- */
struct deferred {
    struct list link;
    struct loop *loop; /* NULL when not queued */
    void (*fn)(void *arg);
    void *arg;
};
void deferred_start(struct loop *loop, struct deferred *d, void (*fn)(void *arg), void *arg); /* no-op when queued */
void deferred_stop(struct deferred *d);

/* ---- signals ---- */
/* Routes `signal` to fn instead of its default action (signalfd; the signal is blocked in this process; child.h
 * unblocks it in children). One function a signal. */
bool loop_signal(struct loop *loop, int signal, void (*fn)(void *arg, const struct signalfd_siginfo *info), void *arg,
                 struct status *err);

#endif
