/* SPDX-License-Identifier: Apache-2.0 */
/* lookup.h: from a host name to addresses, without blocking the loop: getaddrinfo(3) in a worker. */
#ifndef RPC_LOOKUP_H
#define RPC_LOOKUP_H

#include "io/child.h"
#include "io/socket.h"

/* Addresses that are tried for one name. */
#define LOOKUP_MAX 8

struct lookup {
    struct worker worker;
    struct deferred deferred;
    char host[256]; /* the name or path */
    uint16_t port;
    struct status err; /* no worker could be started */
    /* Heard once. On success err is NULL and there is at least one address, each literal; on failure count is 0. */
    void (*on_done)(void *arg, const struct address *addresses, size_t count, const struct status *err);
    void *arg;
};
/* Zeroed before first use. Literal addresses and unix paths need no worker and come back as they are. */
void lookup_start(struct loop *loop, struct lookup *l, const struct address *address,
                  void (*on_done)(void *arg, const struct address *addresses, size_t count, const struct status *err),
                  void *arg);
void lookup_cancel(struct lookup *l); /* harmless when it is not running */

#endif
