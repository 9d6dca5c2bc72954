/* SPDX-License-Identifier: Apache-2.0 */
/*
 * route.h: makes a range of addresses this machine's own, as `ip route add local RANGE dev lo` does (rtnetlink(7)): whoever sends
 * to one of them reaches our sockets, without each address being configured.
 *
 * Needs CAP_NET_ADMIN in the user namespace that owns the network namespace. Such routes carry a protocol number of ours, and a
 * metric that its user chooses, so that they are not taken for somebody else's.
 */
#ifndef IO_ROUTE_H
#define IO_ROUTE_H

#include "io/prefix.h"

/* Whether the range could be made local: no address of this machine is in it, and no route leads to it or to a part of it (one that
 * leads to more than it is fine). FAILED_PRECONDITION says what is in the way. *there: our own route is there already. */
bool route_check(const struct prefix *range, uint32_t metric, bool *there, struct status *err);
/* Our own routes with that metric, of both families; at most `max`. How many. */
size_t route_list_local(uint32_t metric, struct prefix *out, size_t max);
/* PERMISSION_DENIED without the privilege. Fine when it is there already. */
bool route_add_local(const struct prefix *range, uint32_t metric, struct status *err);
/* Fine when it is not there. */
bool route_remove_local(const struct prefix *range, uint32_t metric, struct status *err);

#endif
