/* SPDX-License-Identifier: Apache-2.0 */
/* sock_listeners.h: which TCP ports are listened on in this network namespace (sock_diag(7)). */
#ifndef IO_SOCK_LISTENERS_H
#define IO_SOCK_LISTENERS_H

#include "base/base.h"

#include <sys/types.h>

struct sock_listener {
    uint32_t inode;
    uid_t uid;
    uint16_t port;
    bool ipv6, ipv6_only;
    uint8_t address[16]; /* 4 bytes of it with IPv4; all zero: any address */
};

/* At most `max`; *count: how many. Some 60 microseconds: the kernel goes through the sockets that listen, not through the others.
 * UNIMPLEMENTED when this kernel does not tell. */
bool sock_listeners_read(struct sock_listener *out, size_t max, size_t *count, struct status *err);
/* It takes connections from this machine alone. */
bool sock_listener_is_loopback(const struct sock_listener *l);

#endif
