/* SPDX-License-Identifier: Apache-2.0 */
#include "io/prefix.h"

#include <arpa/inet.h>

static const uint8_t ip_v4_start[12] = { [10] = 0xff, [11] = 0xff };

/* ---- addresses ---- */

bool ip_is_v4(const struct ip *ip)
{
    return memcmp(ip->bytes, ip_v4_start, sizeof ip_v4_start) == 0;
}

bool ip_parse(const char *text, struct ip *out)
{
    memcpy(out->bytes, ip_v4_start, sizeof ip_v4_start);
    return inet_pton(AF_INET, text, out->bytes + 12) == 1 || inet_pton(AF_INET6, text, out->bytes) == 1;
}

void ip_format(const struct ip *ip, char out[IP_TEXT_MAX])
{
    bool v4 = ip_is_v4(ip);

    inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? ip->bytes + 12 : ip->bytes, out, IP_TEXT_MAX);
}

bool ip_of_sockaddr(const struct sockaddr *a, struct ip *out, uint16_t *port)
{
    const struct sockaddr_in *in = (const void *)a;
    const struct sockaddr_in6 *in6 = (const void *)a;

    if (a->sa_family != AF_INET && a->sa_family != AF_INET6)
        return false;
    memcpy(out->bytes, ip_v4_start, sizeof ip_v4_start);
    if (a->sa_family == AF_INET)
        memcpy(out->bytes + 12, &in->sin_addr, 4);
    else
        memcpy(out->bytes, &in6->sin6_addr, 16);
    if (port != NULL)
        *port = ntohs(a->sa_family == AF_INET ? in->sin_port : in6->sin6_port);
    return true;
}

socklen_t ip_to_sockaddr(const struct ip *ip, uint16_t port, struct sockaddr_storage *out)
{
    struct sockaddr_in *in = (void *)out;
    struct sockaddr_in6 *in6 = (void *)out;

    memset(out, 0, sizeof *out);
    if (ip_is_v4(ip)) {
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, ip->bytes + 12, 4);
        return sizeof *in;
    }
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    memcpy(&in6->sin6_addr, ip->bytes, 16);
    return sizeof *in6;
}

/* ---- ranges ---- */

static void prefix_mask(struct ip *ip, unsigned length)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned bits = length > 8 * i ? length - 8 * i : 0;
        if (bits < 8)
            ip->bytes[i] = (uint8_t)(ip->bytes[i] & ~(0xffu >> bits));
    }
}

bool prefix_parse(const char *text, struct prefix *out, struct status *err)
{
    const char *slash = strchr(text, '/');
    char address[IP_TEXT_MAX];
    uint64_t length;

    if (slash == NULL || (size_t)(slash - text) >= sizeof address)
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.100s\" is no range of addresses such as 10.244.1.0/24 or fd00::/64", text);
    snprintf(address, sizeof address, "%.*s", (int)(slash - text), text);
    if (!ip_parse(address, &out->ip) || !parse_u64(slash + 1, strchr(address, ':') != NULL ? 128 : 32, &length))
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.100s\" is no range of addresses such as 10.244.1.0/24 or fd00::/64", text);
    out->length = (unsigned)length + (strchr(address, ':') != NULL ? 0 : 96);
    struct ip first = out->ip;
    prefix_mask(&first, out->length);
    if (memcmp(first.bytes, out->ip.bytes, 16) != 0) {
        char said[IP_TEXT_MAX];
        ip_format(&first, said);
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.100s\": the range of that length begins at %s", text, said);
    }
    return true;
}

void prefix_format(const struct prefix *p, char out[IP_TEXT_MAX + 4])
{
    ip_format(&p->ip, out);
    snprintf(out + strlen(out), 5, "/%u", (p->length - (ip_is_v4(&p->ip) ? 96 : 0)) % 1000);
}

bool prefix_contains(const struct prefix *p, const struct ip *ip)
{
    struct ip first = *ip;

    prefix_mask(&first, p->length);
    return memcmp(first.bytes, p->ip.bytes, 16) == 0;
}

bool prefix_within(const struct prefix *inner, const struct prefix *outer)
{
    return inner->length >= outer->length && prefix_contains(outer, &inner->ip);
}

bool prefix_equal(const struct prefix *a, const struct prefix *b)
{
    return a->length == b->length && memcmp(a->ip.bytes, b->ip.bytes, 16) == 0;
}

uint32_t prefix_size(const struct prefix *p)
{
    return p->length <= 96 ? UINT32_MAX : 1u << (128 - p->length);
}

bool prefix_at(const struct prefix *p, uint32_t n, struct ip *out)
{
    uint32_t low;

    *out = p->ip;
    if (n >= prefix_size(p))
        return false;
    memcpy(&low, out->bytes + 12, 4);
    low = htonl(ntohl(low) + n);
    memcpy(out->bytes + 12, &low, 4);
    return true;
}

uint32_t prefix_index(const struct prefix *p, const struct ip *ip)
{
    uint32_t first, at;

    memcpy(&first, p->ip.bytes + 12, 4);
    memcpy(&at, ip->bytes + 12, 4);
    return ntohl(at) - ntohl(first);
}
