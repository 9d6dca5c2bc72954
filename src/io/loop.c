/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loop.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Signals we route are few; each has one function. */
struct loop_signal_route {
    void (*fn)(void *arg, const struct signalfd_siginfo *info);
    void *arg;
};

struct loop {
    int epoll_fd;
    bool stopped;
    /* The batch being dispatched: watch_stop() clears what it stops. */
    struct epoll_event events[LOOP_EVENTS_PER_TURN];
    int event_count, event_next;
    /* Binary heap of running timers, the earliest first. */
    struct timer **timers; /* owned; the timers are not */
    size_t timer_count, timer_capacity;
    struct list deferred;
    int signal_fd;
    sigset_t signals;
    struct watch signal_watch;
    struct loop_signal_route routes[NSIG];
    int64_t longest_ns[2]; /* turn of this window, and of the one before */
    int64_t window_ns;     /* when this one began */
};

struct loop *loop_new(struct status *err)
{
    struct loop *loop = xcalloc(1, sizeof *loop);

    loop->signal_fd = -1;
    list_init(&loop->deferred);
    sigemptyset(&loop->signals);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        status_errno(err, "cannot make an event loop (epoll_create1)");
        free(loop);
        return NULL;
    }
    return loop;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL)
        return;
    watch_stop(&loop->signal_watch);
    if (loop->signal_fd >= 0)
        close(loop->signal_fd);
    close(loop->epoll_fd);
    free(loop->timers);
    free(loop);
}

/* ---- file descriptors ---- */

static uint32_t loop_epoll_events(unsigned events)
{
    return (events & WATCH_READ ? (uint32_t)EPOLLIN | (uint32_t)EPOLLRDHUP : 0u) |
           (events & WATCH_END ? (uint32_t)EPOLLRDHUP : 0u) |
           (events & WATCH_WRITE ? (uint32_t)EPOLLOUT : 0u);
}

bool watch_start(struct loop *loop, struct watch *w, int fd, unsigned events, void (*fn)(void *arg, unsigned events),
                 void *arg, struct status *err)
{
    struct epoll_event event = { .events = loop_epoll_events(events), .data.ptr = w };

    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return status_errno(err, "cannot watch descriptor %d (epoll_ctl)", fd);
    *w = (struct watch){ .loop = loop, .fd = fd, .events = events, .fn = fn, .arg = arg };
    return true;
}

void watch_set(struct watch *w, unsigned events)
{
    struct epoll_event event = { .events = loop_epoll_events(events), .data.ptr = w };

    if (w->loop == NULL || w->events == events)
        return;
    w->events = events;
    epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &event);
}

void watch_stop(struct watch *w)
{
    struct loop *loop = w->loop;

    if (loop == NULL)
        return;
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    for (int i = loop->event_next; i < loop->event_count; i++)
        if (loop->events[i].data.ptr == w)
            loop->events[i].data.ptr = NULL;
    w->loop = NULL;
}

/* ---- timers ---- */

static void loop_timer_place(struct loop *loop, size_t i, struct timer *t)
{
    loop->timers[i] = t;
    t->index = i;
}

static void loop_timer_up(struct loop *loop, size_t i)
{
    struct timer *t = loop->timers[i];

    while (i > 0 && loop->timers[(i - 1) / 2]->due_ms > t->due_ms) {
        loop_timer_place(loop, i, loop->timers[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    loop_timer_place(loop, i, t);
}

static void loop_timer_down(struct loop *loop, size_t i)
{
    struct timer *t = loop->timers[i];

    for (;;) {
        size_t least = 2 * i + 1;
        if (least >= loop->timer_count)
            break;
        if (least + 1 < loop->timer_count && loop->timers[least + 1]->due_ms < loop->timers[least]->due_ms)
            least++;
        if (loop->timers[least]->due_ms >= t->due_ms)
            break;
        loop_timer_place(loop, i, loop->timers[least]);
        i = least;
    }
    loop_timer_place(loop, i, t);
}

void timer_start(struct loop *loop, struct timer *t, int64_t delay_ms, void (*fn)(void *arg), void *arg)
{
    timer_stop(t);
    if (loop->timer_count == loop->timer_capacity) {
        loop->timer_capacity = loop->timer_capacity > 0 ? loop->timer_capacity * 2 : 16;
        loop->timers = xrealloc(loop->timers, loop->timer_capacity * sizeof(struct timer *));
    }
    *t = (struct timer){ .loop = loop, .due_ms = clock_mono_ms() + (delay_ms > 0 ? delay_ms : 0), .fn = fn, .arg = arg };
    loop->timers[loop->timer_count] = t;
    t->index = loop->timer_count++;
    loop_timer_up(loop, t->index);
}

void timer_stop(struct timer *t)
{
    struct loop *loop = t->loop;

    if (loop == NULL)
        return;
    t->loop = NULL;
    size_t i = t->index;
    struct timer *last = loop->timers[--loop->timer_count];
    if (last == t)
        return;
    loop_timer_place(loop, i, last);
    loop_timer_up(loop, i);
    loop_timer_down(loop, last->index);
}

static int loop_timeout(const struct loop *loop, int limit_ms)
{
    if (!list_empty(&loop->deferred))
        return 0;
    if (loop->timer_count == 0)
        return limit_ms;
    int64_t wait = loop->timers[0]->due_ms - clock_mono_ms();
    if (wait < 0)
        wait = 0;
    /* clock_mono_ms() rounds down: a wait of 0.4 ms must not become a busy loop. */
    if (wait >= INT32_MAX - 1)
        wait = INT32_MAX - 1;
    return limit_ms >= 0 && limit_ms < wait ? limit_ms : (int)wait;
}

static void loop_run_timers(struct loop *loop)
{
    int64_t now = clock_mono_ms();

    while (loop->timer_count > 0 && loop->timers[0]->due_ms <= now) {
        struct timer *t = loop->timers[0];
        timer_stop(t);
        t->fn(t->arg);
    }
}

/* ---- deferred calls ---- */

void deferred_start(struct loop *loop, struct deferred *d, void (*fn)(void *arg), void *arg)
{
    if (d->loop != NULL)
        return;
    d->loop = loop;
    d->fn = fn;
    d->arg = arg;
    list_append(&loop->deferred, &d->link);
}

void deferred_stop(struct deferred *d)
{
    if (d->loop == NULL)
        return;
    list_remove(&d->link);
    d->loop = NULL;
}

/* Runs what is queued now; what these queue in turn waits for the next turn, so that events get their share. */
static void loop_run_deferred(struct loop *loop)
{
    struct list batch;

    if (list_empty(&loop->deferred))
        return;
    list_init(&batch);
    batch.next = loop->deferred.next;
    batch.prev = loop->deferred.prev;
    batch.next->prev = batch.prev->next = &batch;
    list_init(&loop->deferred);
    while (!list_empty(&batch)) {
        struct deferred *d = CONTAINER_OF(batch.next, struct deferred, link);
        deferred_stop(d);
        d->fn(d->arg);
    }
}

/* ---- signals ---- */

static void loop_on_signal(void *arg, unsigned events)
{
    struct loop *loop = arg;
    struct signalfd_siginfo info;

    (void)events;
    while (read(loop->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo < NSIG && loop->routes[info.ssi_signo].fn != NULL)
            loop->routes[info.ssi_signo].fn(loop->routes[info.ssi_signo].arg, &info);
    }
}

bool loop_signal(struct loop *loop, int signal, void (*fn)(void *arg, const struct signalfd_siginfo *info), void *arg,
                 struct status *err)
{
    sigaddset(&loop->signals, signal);
    if (sigprocmask(SIG_BLOCK, &loop->signals, NULL) < 0)
        return status_errno(err, "cannot block signal %d", signal);
    int fd = signalfd(loop->signal_fd, &loop->signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return status_errno(err, "cannot make a signalfd");
    loop->routes[signal] = (struct loop_signal_route){ fn, arg };
    if (loop->signal_fd >= 0)
        return true;
    loop->signal_fd = fd;
    return watch_start(loop, &loop->signal_watch, fd, WATCH_READ, loop_on_signal, loop, err);
}

/* ---- turning ---- */

static unsigned loop_watch_events(uint32_t events)
{
    unsigned out = 0;

    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        out |= WATCH_READ;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        out |= WATCH_WRITE;
    if (events & (EPOLLHUP | EPOLLERR))
        out |= WATCH_HANGUP;
    if (events & (EPOLLRDHUP | EPOLLHUP))
        out |= WATCH_END;
    return out;
}

static void loop_note_turn(struct loop *loop, int64_t began_ns)
{
    int64_t now = clock_mono_ns(), window = (int64_t)LOOP_LAG_WINDOW_MS * 1000000;

    if (now - loop->window_ns > window) {
        loop->longest_ns[1] = now - loop->window_ns > 2 * window ? 0 : loop->longest_ns[0];
        loop->longest_ns[0] = 0;
        loop->window_ns = now;
    }
    if (now - began_ns > loop->longest_ns[0])
        loop->longest_ns[0] = now - began_ns;
}

int64_t loop_lag_ms(const struct loop *loop)
{
    return (loop->longest_ns[0] > loop->longest_ns[1] ? loop->longest_ns[0] : loop->longest_ns[1]) / 1000000;
}

void loop_turn(struct loop *loop, int timeout_ms)
{
    int n = epoll_wait(loop->epoll_fd, loop->events, LOOP_EVENTS_PER_TURN, loop_timeout(loop, timeout_ms));
    int64_t began = clock_mono_ns();

    loop->event_count = n > 0 ? n : 0;
    for (loop->event_next = 0; loop->event_next < loop->event_count;) {
        struct epoll_event *event = &loop->events[loop->event_next++];
        struct watch *w = event->data.ptr;
        if (w == NULL)
            continue;
        unsigned events = loop_watch_events(event->events);
        events &= w->events | WATCH_HANGUP;
        if (events != 0)
            w->fn(w->arg, events);
    }
    loop->event_count = loop->event_next = 0;
    loop_run_timers(loop);
    loop_run_deferred(loop);
    loop_note_turn(loop, began);
}

void loop_run(struct loop *loop)
{
    loop->stopped = false;
    while (!loop->stopped)
        loop_turn(loop, -1);
}

void loop_stop(struct loop *loop)
{
    loop->stopped = true;
}
