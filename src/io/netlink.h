/* SPDX-License-Identifier: Apache-2.0 */
/* netlink.h: going through what the kernel answers (netlink(7), rtnetlink(7)), as its NLMSG_ and RTA_ macros do, with sizes. */
#ifndef IO_NETLINK_H
#define IO_NETLINK_H

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "base/base.h"

struct netlink_rest {
    const uint8_t *p; /* aligned as the kernel's structures are */
    size_t n;
};

static inline void netlink_skip(struct netlink_rest *r, size_t n)
{
    n = n + 3 < r->n ? (n + 3) & ~(size_t)3 : r->n;
    r->p += n;
    r->n -= n;
}

/* The next message; NULL: there is none. */
static inline const struct nlmsghdr *netlink_message(struct netlink_rest *r)
{
    const struct nlmsghdr *h = (const void *)r->p;

    if (r->n < sizeof *h || h->nlmsg_len < sizeof *h || h->nlmsg_len > r->n)
        return NULL;
    netlink_skip(r, h->nlmsg_len);
    return h;
}

/* What follows a message's own structure of that size: its attributes. */
static inline struct netlink_rest netlink_attributes(const struct nlmsghdr *h, size_t size)
{
    struct netlink_rest r = { (const uint8_t *)h, h->nlmsg_len };

    netlink_skip(&r, sizeof *h);
    netlink_skip(&r, size);
    return r;
}

/* The next attribute; its payload has *size bytes. NULL: there is none. */
static inline const struct rtattr *netlink_attribute(struct netlink_rest *r, size_t *size)
{
    const struct rtattr *a = (const void *)r->p;

    if (r->n < sizeof *a || a->rta_len < sizeof *a || a->rta_len > r->n)
        return NULL;
    *size = a->rta_len - sizeof *a;
    netlink_skip(r, a->rta_len);
    return a;
}

static inline const void *netlink_payload(const void *header, size_t size)
{
    return (const uint8_t *)header + size;
}

/* Of NLMSG_ERROR: errno, 0 for an acknowledgement. */
static inline int netlink_errno(const struct nlmsghdr *h)
{
    const struct nlmsgerr *e = netlink_payload(h, sizeof *h);

    return h->nlmsg_len >= sizeof *h + sizeof e->error ? -e->error : EPROTO;
}

#endif
