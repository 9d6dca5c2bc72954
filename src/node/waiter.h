/* SPDX-License-Identifier: Apache-2.0 */
/* waiter.h: calls that wait for something to become true of an object. Each is in one list of that object; when its
 * client goes away it leaves the list by itself. */
#ifndef NODE_WAITER_H
#define NODE_WAITER_H

#include "base/base.h"
#include "io/loop.h"
#include "rpc/rpc.h"

enum waiter_for { WAIT_READY, WAIT_STOPPED, WAIT_REMOVED };

/* The call is answered by waiters_reply or waiters_fail, at the latest when hold_ms have passed (0: no limit of ours;
 * the call's own deadline counts anyway): then on_hold(arg, call) must end the call. */
void waiter_add(struct list *waiters, enum waiter_for what, struct rpc_call *call, struct loop *loop, int64_t hold_ms,
                void (*on_hold)(void *arg, struct rpc_call *call), void *arg);
/* Answers all that wait for `what` with the encoded message (n 0: an empty one). */
void waiters_reply(struct list *waiters, enum waiter_for what, const void *p, size_t n);
void waiters_fail(struct list *waiters, enum waiter_for what, const struct status *err);
bool waiters_any(const struct list *waiters, enum waiter_for what);

#endif
