/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sock_listeners.h"

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/netlink.h"

/* include/net/tcp_states.h */
#define SOCK_LISTENERS_STATE 10
/* One answer: the kernel fills pages. */
#define SOCK_LISTENERS_ANSWER_SIZE 32768

static bool sock_listeners_ask(int fd, uint8_t family, struct status *err)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } message;
    struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

    memset(&message, 0, sizeof message);
    message.header = (struct nlmsghdr){ .nlmsg_len = sizeof message,
                                        .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                                        .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP };
    message.request.sdiag_family = family;
    message.request.sdiag_protocol = IPPROTO_TCP;
    message.request.idiag_states = 1u << SOCK_LISTENERS_STATE;
    return sendto(fd, &message, sizeof message, 0, (struct sockaddr *)&kernel, sizeof kernel) == (ssize_t)sizeof message ||
           status_errno(err, "cannot ask which ports are listened on");
}

static void sock_listeners_take(const struct nlmsghdr *header, struct sock_listener *out)
{
    const struct inet_diag_msg *m = netlink_payload(header, sizeof *header);
    struct netlink_rest rest = netlink_attributes(header, sizeof *m);
    const struct rtattr *a;
    size_t size;

    memset(out, 0, sizeof *out);
    out->inode = m->idiag_inode;
    out->uid = m->idiag_uid;
    out->port = ntohs(m->id.idiag_sport);
    out->ipv6 = m->idiag_family == AF_INET6;
    memcpy(out->address, m->id.idiag_src, out->ipv6 ? 16 : 4);
    while ((a = netlink_attribute(&rest, &size)) != NULL)
        if (a->rta_type == INET_DIAG_SKV6ONLY && size >= 1)
            out->ipv6_only = *(const uint8_t *)netlink_payload(a, sizeof *a) != 0;
}

/* False with an OK status: that was all. */
static bool sock_listeners_part(struct netlink_rest rest, struct sock_listener *out, size_t max, size_t *count, struct status *err)
{
    const struct nlmsghdr *h;

    while ((h = netlink_message(&rest)) != NULL) {
        if (h->nlmsg_type == NLMSG_DONE)
            return false;
        if (h->nlmsg_type == NLMSG_ERROR) {
            errno = netlink_errno(h);
            return status_set(err, errno == ENOENT || errno == EINVAL ? STATUS_UNIMPLEMENTED : STATUS_UNAVAILABLE,
                              "the kernel does not tell which ports are listened on: %s", strerror(errno));
        }
        if (h->nlmsg_len < sizeof *h + sizeof(struct inet_diag_msg) || *count == max)
            continue;
        sock_listeners_take(h, &out[(*count)++]);
    }
    return true;
}

bool sock_listeners_read(struct sock_listener *out, size_t max, size_t *count, struct status *err)
{
    static const uint8_t families[] = { AF_INET, AF_INET6 };
    cleanup_close int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    _Alignas(struct nlmsghdr) uint8_t bytes[SOCK_LISTENERS_ANSWER_SIZE];

    *count = 0;
    if (fd < 0)
        return status_set(err, STATUS_UNIMPLEMENTED, "the kernel does not tell which ports are listened on: %s", strerror(errno));
    for (size_t i = 0; i < COUNT_OF(families); i++) {
        struct status end = STATUS_INIT;
        ssize_t n;
        if (!sock_listeners_ask(fd, families[i], err))
            return false;
        do {
            n = recv(fd, bytes, sizeof bytes, 0);
            if (n < 0 && errno != EINTR)
                return status_errno(err, "cannot hear which ports are listened on");
        } while (n < 0 || sock_listeners_part((struct netlink_rest){ bytes, (size_t)n }, out, max, count, &end));
        /* Without IPv6 in the kernel there is nothing to be told of it. */
        if (end.code != STATUS_OK && (families[i] == AF_INET || end.code != STATUS_UNIMPLEMENTED)) {
            *err = end;
            return false;
        }
    }
    return true;
}

bool sock_listener_is_loopback(const struct sock_listener *l)
{
    static const uint8_t loopback6[16] = { [15] = 1 };
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

    if (!l->ipv6)
        return l->address[0] == 127;
    if (memcmp(l->address, mapped, sizeof mapped) == 0)
        return l->address[12] == 127;
    return memcmp(l->address, loopback6, sizeof loopback6) == 0;
}

#undef SOCK_LISTENERS_STATE
#undef SOCK_LISTENERS_ANSWER_SIZE
