/* SPDX-License-Identifier: Apache-2.0 */
/* notify.h: what a service manager hears of us, by the protocol of sd_notify(3): lines of NAME=VALUE in a datagram.
 *
 * The manager names its socket in NOTIFY_SOCKET and, when it watches us (WatchdogSec), how often it wants to hear from us in
 * WATCHDOG_USEC and WATCHDOG_PID. Without them nothing is sent and nothing is wrong. A message that the manager cannot take
 * just now is kept and sent again; a watchdog's is not, for the next one is as good. */
#ifndef IO_NOTIFY_H
#define IO_NOTIFY_H

#include "io/loop.h"

#include <sys/socket.h>
#include <sys/un.h>

struct notify {
    struct loop *loop;
    int fd; /* owned; -1: nobody listens */
    struct sockaddr_un address;
    socklen_t address_length;
    int64_t watchdog_ms; /* between two signs of life; 0: not wanted */
    struct timer watchdog, again;
    struct buf kept; /* what could not be sent yet */
};

/* Reads the variables and takes them out of the environment, so that no child speaks in our name: before any child is started.
 * A variable that makes no sense is logged and passed over. With no loop nothing is ever sent. notify_close is due in any case. */
void notify_open(struct notify *n, struct loop *loop);
/* `lines` is "READY=1\nSTATUS=..."; signs of life begin with the first READY=1. */
void notify_say(struct notify *n, const char *lines);
/* A line STATUS=..., which `systemctl status` shows; what follows a line's end in the text is left out. */
void notify_status(struct notify *n, const char *format, ...) PRINTF_LIKE(2, 3);
void notify_close(struct notify *n);

#endif
