/* SPDX-License-Identifier: Apache-2.0 */
#include "io/route.h"

#include <net/if.h>
#include <unistd.h>

#include "io/netlink.h"

/* Not one that iproute2 or a routing daemon uses (iproute2's etc/rt_protos). */
#define ROUTE_PROTOCOL 105
#define ROUTE_ANSWER_SIZE 65536

struct route_request {
    struct nlmsghdr header;
    union {
        struct rtmsg route;
        struct ifaddrmsg address;
    } u;
    uint8_t attributes[128];
};

static int route_open(struct status *err)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (fd < 0)
        status_errno(err, "cannot speak with the kernel about routes");
    return fd;
}

static bool route_send(int fd, struct route_request *request, struct status *err)
{
    struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

    return sendto(fd, request, request->header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) >= 0 ||
           status_errno(err, "cannot speak with the kernel about routes");
}

static void route_attribute(struct route_request *request, unsigned short type, const void *p, unsigned short n)
{
    struct rtattr *a = (void *)((uint8_t *)request + NLMSG_ALIGN(request->header.nlmsg_len));

    a->rta_type = type;
    a->rta_len = (unsigned short)RTA_LENGTH(n);
    memcpy(RTA_DATA(a), p, n);
    request->header.nlmsg_len = (uint32_t)(NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

/* ---- what there is ---- */

struct route_found {
    const struct prefix *range; /* what would be in the way of it; only when it is there... */
    uint32_t metric;
    bool there, clash;
    struct prefix *ours; /* ... else routes of ours, as many */
    size_t ours_max, ours_count;
    struct status *err;
};

static bool route_ip(unsigned char family, const void *p, struct ip *out)
{
    static const uint8_t v4_start[12] = { [10] = 0xff, [11] = 0xff };

    memcpy(out->bytes, v4_start, sizeof v4_start);
    if (family != AF_INET && family != AF_INET6)
        return false;
    memcpy(family == AF_INET ? out->bytes + 12 : out->bytes, p, family == AF_INET ? 4 : 16);
    return true;
}

static const char *route_interface(int index, char name[IF_NAMESIZE])
{
    return index > 0 && if_indextoname((unsigned)index, name) != NULL ? name : "an interface";
}

static void route_look_at_route(struct route_found *f, const struct nlmsghdr *h)
{
    const struct rtmsg *m = netlink_payload(h, sizeof *h);
    struct netlink_rest rest = netlink_attributes(h, sizeof *m);
    const struct rtattr *a;
    size_t size;
    int oif = 0;
    struct prefix to = { .length = m->rtm_dst_len + (m->rtm_family == AF_INET ? 96u : 0u) };
    uint32_t metric = 0;
    char name[IF_NAMESIZE], range[IP_TEXT_MAX + 4], said[IP_TEXT_MAX + 4];
    uint8_t none[16] = { 0 };

    if (!route_ip(m->rtm_family, none, &to.ip))
        return;
    while ((a = netlink_attribute(&rest, &size)) != NULL) {
        const void *p = netlink_payload(a, sizeof *a);
        if (a->rta_type == RTA_DST && size >= (m->rtm_family == AF_INET ? 4 : 16))
            route_ip(m->rtm_family, p, &to.ip);
        else if (a->rta_type == RTA_PRIORITY && size >= sizeof metric)
            memcpy(&metric, p, sizeof metric);
        else if (a->rta_type == RTA_OIF && size >= sizeof oif)
            memcpy(&oif, p, sizeof oif);
    }
    bool ours = m->rtm_protocol == ROUTE_PROTOCOL && m->rtm_type == RTN_LOCAL && metric == f->metric;
    if (f->range == NULL) {
        if (ours && f->ours_count < f->ours_max)
            f->ours[f->ours_count++] = to;
        return;
    }
    /* What the kernel remembers of single connections is no route; and the last address of a larger range that an interface has is
     * nobody's, though it may be in ours. */
    if ((m->rtm_flags & RTM_F_CLONED) != 0 || m->rtm_type == RTN_BROADCAST || m->rtm_type == RTN_ANYCAST ||
        m->rtm_type == RTN_MULTICAST || f->clash || !prefix_within(&to, f->range))
        return;
    if (ours && prefix_equal(&to, f->range)) {
        f->there = true;
        return;
    }
    f->clash = true;
    prefix_format(f->range, range);
    prefix_format(&to, said);
    status_set(f->err, STATUS_FAILED_PRECONDITION, "%s is not free: there is a route to %s by %s", range, said, route_interface(oif, name));
}

static void route_look_at_address(struct route_found *f, const struct nlmsghdr *h)
{
    const struct ifaddrmsg *m = netlink_payload(h, sizeof *h);
    struct netlink_rest rest = netlink_attributes(h, sizeof *m);
    const struct rtattr *a;
    size_t size;
    struct ip ip;
    char name[IF_NAMESIZE], range[IP_TEXT_MAX + 4], said[IP_TEXT_MAX];

    while ((a = netlink_attribute(&rest, &size)) != NULL) {
        if ((a->rta_type != IFA_ADDRESS && a->rta_type != IFA_LOCAL) || size < (m->ifa_family == AF_INET ? 4 : 16) ||
            !route_ip(m->ifa_family, netlink_payload(a, sizeof *a), &ip) || f->clash || !prefix_contains(f->range, &ip))
            continue;
        f->clash = true;
        prefix_format(f->range, range);
        ip_format(&ip, said);
        status_set(f->err, STATUS_FAILED_PRECONDITION, "%s is not free: %s has the address %s", range,
                   route_interface((int)m->ifa_index, name), said);
    }
}

/* False: that was all, or an error. */
static bool route_look_at_part(struct route_found *f, struct netlink_rest rest)
{
    const struct nlmsghdr *h;

    while ((h = netlink_message(&rest)) != NULL) {
        if (h->nlmsg_type == NLMSG_DONE)
            return false;
        if (h->nlmsg_type == NLMSG_ERROR) {
            errno = netlink_errno(h);
            f->clash = true;
            status_errno(f->err, "the kernel does not tell its routes");
            return false;
        }
        if (h->nlmsg_type == RTM_NEWROUTE && h->nlmsg_len >= sizeof *h + sizeof(struct rtmsg))
            route_look_at_route(f, h);
        else if (h->nlmsg_type == RTM_NEWADDR && h->nlmsg_len >= sizeof *h + sizeof(struct ifaddrmsg))
            route_look_at_address(f, h);
    }
    return true;
}

static bool route_look(int fd, struct route_found *f, unsigned char family, uint16_t type)
{
    struct route_request request = { .header = { .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP } };
    cleanup_free uint8_t *bytes = xmalloc(ROUTE_ANSWER_SIZE);
    ssize_t n;

    if (type == RTM_GETROUTE)
        request.u.route.rtm_family = family;
    else
        request.u.address.ifa_family = family;
    request.header.nlmsg_len = (uint32_t)NLMSG_LENGTH(type == RTM_GETROUTE ? sizeof request.u.route : sizeof request.u.address);
    if (!route_send(fd, &request, f->err))
        return false;
    do {
        n = recv(fd, bytes, ROUTE_ANSWER_SIZE, 0);
        if (n < 0 && errno != EINTR)
            return status_errno(f->err, "cannot hear which routes there are");
    } while (n < 0 || route_look_at_part(f, (struct netlink_rest){ bytes, (size_t)n }));
    return !f->clash;
}

bool route_check(const struct prefix *range, uint32_t metric, bool *there, struct status *err)
{
    cleanup_close int fd = route_open(err);
    struct route_found f = { .range = range, .metric = metric, .err = err };

    unsigned char family = ip_is_v4(&range->ip) ? AF_INET : AF_INET6;

    *there = false;
    if (fd < 0 || !route_look(fd, &f, family, RTM_GETADDR) || !route_look(fd, &f, family, RTM_GETROUTE))
        return false;
    *there = f.there;
    return true;
}

size_t route_list_local(uint32_t metric, struct prefix *out, size_t max)
{
    struct status ignored = STATUS_INIT;
    cleanup_close int fd = route_open(&ignored);
    struct route_found f = { .metric = metric, .err = &ignored, .ours = out, .ours_max = max };

    if (fd >= 0 && route_look(fd, &f, AF_INET, RTM_GETROUTE))
        route_look(fd, &f, AF_INET6, RTM_GETROUTE);
    return f.ours_count;
}

/* ---- changing it ---- */

/* 0, or errno. */
static int route_ack(int fd)
{
    _Alignas(struct nlmsghdr) uint8_t bytes[4096];
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof bytes, 0)) < 0 && errno == EINTR)
        ;
    if (n < 0)
        return errno;
    struct netlink_rest rest = { bytes, (size_t)n };
    const struct nlmsghdr *h = netlink_message(&rest);
    return h != NULL && h->nlmsg_type == NLMSG_ERROR ? netlink_errno(h) : EPROTO;
}

static bool route_change(const struct prefix *range, uint32_t metric, uint16_t type, uint16_t flags, int fine, struct status *err)
{
    cleanup_close int fd = route_open(err);
    bool v4 = ip_is_v4(&range->ip);
    struct route_request request = {
        .header = { .nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags), .nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)) },
        .u.route = { .rtm_family = v4 ? AF_INET : AF_INET6,
                     .rtm_dst_len = (unsigned char)(range->length - (v4 ? 96 : 0)),
                     .rtm_table = RT_TABLE_LOCAL,
                     .rtm_protocol = ROUTE_PROTOCOL,
                     .rtm_scope = v4 ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE,
                     .rtm_type = RTN_LOCAL },
    };
    char said[IP_TEXT_MAX + 4];
    unsigned lo = if_nametoindex("lo");

    if (fd < 0)
        return false;
    route_attribute(&request, RTA_DST, v4 ? range->ip.bytes + 12 : range->ip.bytes, v4 ? 4 : 16);
    route_attribute(&request, RTA_OIF, &lo, sizeof lo);
    route_attribute(&request, RTA_PRIORITY, &metric, sizeof metric);
    if (!route_send(fd, &request, err))
        return false;
    errno = route_ack(fd);
    if (errno == 0 || errno == fine)
        return true;
    prefix_format(range, said);
    if (errno == EPERM)
        return status_set(err, STATUS_PERMISSION_DENIED, "cannot %s %s: that needs CAP_NET_ADMIN",
                          type == RTM_NEWROUTE ? "make this machine the owner of" : "remove the route to", said);
    return status_errno(err, "cannot %s the route to %s", type == RTM_NEWROUTE ? "make" : "remove", said);
}

bool route_add_local(const struct prefix *range, uint32_t metric, struct status *err)
{
    return route_change(range, metric, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, EEXIST, err);
}

bool route_remove_local(const struct prefix *range, uint32_t metric, struct status *err)
{
    return route_change(range, metric, RTM_DELROUTE, 0, ESRCH, err);
}

#undef ROUTE_PROTOCOL
#undef ROUTE_ANSWER_SIZE
