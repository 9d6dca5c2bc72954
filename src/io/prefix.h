/* SPDX-License-Identifier: Apache-2.0 */
/* prefix.h: IP addresses and the ranges they are in ("10.244.1.0/24", "fd00:10:244:1::/64"). Both families have 16 bytes here: an
 * IPv4 address is written as an IPv6 one (::ffff:0:0/96, RFC 4291), so that comparing is comparing bytes. */
#ifndef IO_PREFIX_H
#define IO_PREFIX_H

#include "base/base.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define IP_TEXT_MAX INET6_ADDRSTRLEN

struct ip {
    uint8_t bytes[16];
};
struct prefix {
    struct ip ip;    /* the first of the range */
    unsigned length; /* of 128: an IPv4 one's is 96 longer than one writes it */
};

bool ip_is_v4(const struct ip *ip);
bool ip_parse(const char *text, struct ip *out); /* a literal one */
void ip_format(const struct ip *ip, char out[IP_TEXT_MAX]);
bool ip_of_sockaddr(const struct sockaddr *a, struct ip *out, uint16_t *port); /* port may be NULL */
socklen_t ip_to_sockaddr(const struct ip *ip, uint16_t port, struct sockaddr_storage *out);

/* What comes after the first `length` bits must be 0. INVALID_ARGUMENT. */
bool prefix_parse(const char *text, struct prefix *out, struct status *err);
void prefix_format(const struct prefix *p, char out[IP_TEXT_MAX + 4]);
bool prefix_contains(const struct prefix *p, const struct ip *ip);
bool prefix_within(const struct prefix *inner, const struct prefix *outer); /* also when they are equal */
bool prefix_equal(const struct prefix *a, const struct prefix *b);
/* The n-th address of it (the first is 0), when it has that many. */
bool prefix_at(const struct prefix *p, uint32_t n, struct ip *out);
/* How many it has; UINT32_MAX: that many or more. */
uint32_t prefix_size(const struct prefix *p);
/* The number of an address in it. */
uint32_t prefix_index(const struct prefix *p, const struct ip *ip);

#endif
