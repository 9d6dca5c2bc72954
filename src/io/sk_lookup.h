/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sk_lookup.h: one socket that takes the connections to many ports of many addresses (BPF_PROG_TYPE_SK_LOOKUP, Linux 5.9).
 *
 * When a connection to an address of this machine comes in, the kernel asks our program before it looks for a socket itself:
 *
 *   the address is in none of our ranges          as if we were not there
 *   the port is open                              our socket takes it; getsockname(2) says what was asked for
 *   it is not, or the protocol is not TCP         refused, though a program of this machine listen on that port of all addresses
 *
 * The program is a few instructions, written out below without a compiler or a library. It goes with the descriptors: at the
 * latest when this process ends. Needs CAP_BPF and CAP_NET_ADMIN (before Linux 5.8 CAP_SYS_ADMIN), outside of user namespaces.
 */
#ifndef IO_SK_LOOKUP_H
#define IO_SK_LOOKUP_H

#include <linux/bpf.h>

#include "io/prefix.h"

struct sk_lookup;

/* For this network namespace. Nothing is in effect before a range is added. NULL: UNIMPLEMENTED, PERMISSION_DENIED... */
struct sk_lookup *sk_lookup_open(struct status *err);
void sk_lookup_free(struct sk_lookup *s); /* NULL is fine */
/* Which socket takes connections by IPv4, and by IPv6; listening, borrowed. */
bool sk_lookup_set_socket(struct sk_lookup *s, bool ipv6, int fd, struct status *err);
bool sk_lookup_set_range(struct sk_lookup *s, const struct prefix *range, bool ours, struct status *err);
bool sk_lookup_set_port(struct sk_lookup *s, const struct ip *ip, uint16_t port, bool open, struct status *err);

/* The instructions; for tests. How many. */
#define SK_LOOKUP_INSTRUCTIONS_MAX 96
size_t sk_lookup_program(struct bpf_insn out[SK_LOOKUP_INSTRUCTIONS_MAX], int ranges_fd, int ports_fd, int sockets_fd);

#endif
