/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp_dial.h: a TCP connection to the first of some addresses that answers, in this network namespace or another.
 *
 *   tcp_dial_start ---> on_connected ---> on_data... ---> on_end ---> on_finish(OK)     both ways have ended
 *        |                  |   tcp_dial_send, tcp_dial_half_close
 *        +------------------+---> on_finish(error)     none answers, or it broke
 *
 * Each way ends by itself. What one side does not take is not read from the other: tcp_dial_send() says false, tcp_dial_pause()
 * stops on_data. Callbacks come from the loop, never from within tcp_dial_start(); each may cancel the dial.
 */
#ifndef IO_TCP_DIAL_H
#define IO_TCP_DIAL_H

#include "io/loop.h"

/* What all dials of a process share; zeroed before first use. */
struct tcp_dialer {
    uint8_t *block; /* owned; what is read, while there are any dials */
    size_t count;
};

struct tcp_dial;

struct tcp_dial_listener {
    void (*on_connected)(void *arg);
    void (*on_data)(void *arg, struct str piece); /* borrowed until it returns */
    void (*on_end)(void *arg);                    /* the other side sends no more */
    void (*on_writable)(void *arg);               /* after tcp_dial_send() said false */
    /* The last one, the dial is gone after it. FAILED_PRECONDITION: nothing listens at any of the addresses, or there are no such
     * addresses; UNAVAILABLE: it may be otherwise later. The text begins with the port. */
    void (*on_finish)(void *arg, const struct status *err);
    void *arg;
};

/* addresses: literal, at most TCP_DIAL_ADDRESSES_MAX, copied. netns_fd: the network namespace they are in, taken and closed (also
 * when it fails); -1: ours. Entering another one needs CAP_SYS_ADMIN, and a process of one thread. NULL: INVALID_ARGUMENT, or that
 * namespace cannot be entered. */
struct tcp_dial *tcp_dial_start(struct loop *loop, struct tcp_dialer *dialer, int netns_fd, uint16_t port,
                                const char *const *addresses, size_t address_count,
                                const struct tcp_dial_listener *listener, struct status *err);
/* The same for a connection that somebody made to us: takes fd. It begins paused, and on_connected never comes. */
struct tcp_dial *tcp_dial_adopt(struct loop *loop, struct tcp_dialer *dialer, int fd, const struct tcp_dial_listener *listener);
/* Takes all of it, also before the connection is there. False: no more until on_writable. */
bool tcp_dial_send(struct tcp_dial *d, const void *p, size_t n);
/* We send no more: told to the other side when what was sent before is on its way. */
void tcp_dial_half_close(struct tcp_dial *d);
void tcp_dial_pause(struct tcp_dial *d, bool paused);
/* Breaks it off and frees it; no callback. The other side sees a reset. NULL is fine. */
void tcp_dial_cancel(struct tcp_dial *d);

#endif
