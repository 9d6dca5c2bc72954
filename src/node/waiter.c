/* SPDX-License-Identifier: Apache-2.0 */
#include "node/waiter.h"

struct waiter {
    struct list link;
    enum waiter_for what;
    struct rpc_call *call;
    struct timer hold;
    void (*on_hold)(void *arg, struct rpc_call *call);
    void *arg;
};

/* Takes the call out; the waiter is gone. */
static struct rpc_call *waiter_take(struct waiter *w)
{
    struct rpc_call *call = w->call;

    list_remove(&w->link);
    timer_stop(&w->hold);
    free(w);
    return call;
}

static void waiter_on_cancel(void *arg)
{
    waiter_take(arg);
}

static void waiter_on_hold(void *arg)
{
    struct waiter *w = arg;
    void (*on_hold)(void *arg, struct rpc_call *call) = w->on_hold;
    void *on_hold_arg = w->arg;

    on_hold(on_hold_arg, waiter_take(w));
}

void waiter_add(struct list *waiters, enum waiter_for what, struct rpc_call *call, struct loop *loop, int64_t hold_ms,
                void (*on_hold)(void *arg, struct rpc_call *call), void *arg)
{
    struct waiter *w = xcalloc(1, sizeof *w);

    w->what = what;
    w->call = call;
    w->on_hold = on_hold;
    w->arg = arg;
    list_append(waiters, &w->link);
    rpc_call_on_cancel(call, waiter_on_cancel, w);
    if (hold_ms > 0)
        timer_start(loop, &w->hold, hold_ms, waiter_on_hold, w);
}

/* Answering a call may change the list (a client that goes away takes its other calls with it), so each round looks for
 * the first one again. */
static struct waiter *waiters_find(const struct list *waiters, enum waiter_for what)
{
    for (LIST_EACH(struct waiter, w, waiters, link))
        if (w->what == what)
            return w;
    return NULL;
}

void waiters_reply(struct list *waiters, enum waiter_for what, const void *p, size_t n)
{
    struct waiter *w;

    while ((w = waiters_find(waiters, what)) != NULL)
        rpc_reply_packed(waiter_take(w), p, n);
}

void waiters_fail(struct list *waiters, enum waiter_for what, const struct status *err)
{
    struct waiter *w;

    while ((w = waiters_find(waiters, what)) != NULL)
        rpc_fail(waiter_take(w), err);
}

bool waiters_any(const struct list *waiters, enum waiter_for what)
{
    return waiters_find(waiters, what) != NULL;
}
