/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pod_conn.h: a TCP connection to a port of a pod, wherever the pod runs.
 *
 * serve connects itself where the pod's network is one of this machine that it can enter: then its bytes pass one process less.
 * Else the pod's agent connects, and the bytes come through the relay (PortForward of agent.proto). Both look the same from here:
 *
 *   pod_conn_start ---> on_connected ---> on_data... ---> on_end ---> on_finish(OK)     both ways have ended
 *        |               |   pod_conn_send, pod_conn_half_close
 *        +---------------+---> on_finish(error)     nothing listens, it broke, the agent is lost
 *
 * Bounded: what pod_conn_send() has taken while the other side takes nothing is at most one piece and the windows below; a caller
 * stops at false. Callbacks come from the loop, never from within pod_conn_start().
 */
#ifndef NODE_POD_CONN_H
#define NODE_POD_CONN_H

#include "base/base.h"

struct pod_conn;
struct sandbox;

struct pod_conn_listener {
    void (*on_connected)(void *arg);
    void (*on_data)(void *arg, struct str piece); /* borrowed until it returns; may call pod_conn_pause() */
    void (*on_end)(void *arg);      /* the pod sends no more; our way may go on */
    void (*on_writable)(void *arg); /* after pod_conn_send() said false */
    /* The last one; the pod_conn is gone. OK: both ways have ended in peace. FAILED_PRECONDITION: nothing listens there. */
    void (*on_finish)(void *arg, const struct status *err);
    void *arg;
};

/* addresses: literal, of the pod's network as the pod sees it, tried in turn; NULL-terminated; copied. NULL, and an error, when the
 * pod's agent is not connected. The pod_conn is the caller's until on_finish or pod_conn_cancel(). */
struct pod_conn *pod_conn_start(struct sandbox *sandbox, uint16_t port, const char *const *addresses,
                        const struct pod_conn_listener *listener, struct status *err);
/* Takes all of it, also before it is connected. False: no more until on_writable. */
bool pod_conn_send(struct pod_conn *c, struct str piece);
/* We send no more. */
void pod_conn_half_close(struct pod_conn *c);
/* No on_data and on_end while paused. */
void pod_conn_pause(struct pod_conn *c, bool paused);
/* Breaks it off (a reset for the pod), and frees it; NULL is fine. */
void pod_conn_cancel(struct pod_conn *c);

#endif
