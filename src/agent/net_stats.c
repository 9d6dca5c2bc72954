/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/net_stats.h"

#include "io/file.h"

/* 130 bytes an interface: room for thousands, as a machine with one a pod may have. */
#define NET_STATS_FILE_MAX (1u << 20)

/* " eth0: bytes packets errs drop fifo frame compressed multicast bytes packets errs drop ...", a line each; two of heads. */
static bool net_stats_parse_line(const char *line, struct net_interface *out)
{
    const char *name = line + strspn(line, " ");
    const char *colon = strrchr(name, ':');

    if (colon == NULL || colon == name || (size_t)(colon - name) >= sizeof out->name ||
        sscanf(colon + 1,
               "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64,
               &out->rx_bytes, &out->rx_packets, &out->rx_errors, &out->rx_dropped, &out->tx_bytes, &out->tx_packets,
               &out->tx_errors, &out->tx_dropped) != 8)
        return false;
    memcpy(out->name, name, (size_t)(colon - name));
    out->name[colon - name] = '\0';
    /* A name may be any bytes; in a message it is text. */
    for (char *p = out->name; *p != '\0'; p++)
        if (*p < ' ' || *p > '~')
            *p = '?';
    return true;
}

static void net_stats_parse(char *text, const char *route, struct net_stats *out)
{
    struct net_interface one, loopback;
    char *save = NULL;
    bool has_loopback = false;

    for (char *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        if (!net_stats_parse_line(line, &one))
            continue;
        if (strcmp(one.name, "lo") == 0) {
            loopback = one;
            has_loopback = true;
        } else if (out->count < NET_STATS_INTERFACES_MAX) {
            out->interfaces[out->count++] = one;
        } else if (strcmp(one.name, route) == 0) {
            out->interfaces[out->count - 1] = one;
        }
    }
    if (out->count == 0 && has_loopback)
        out->interfaces[out->count++] = loopback;
}

/* The interface of the default route with the lowest metric: "Iface Destination Gateway Flags RefCnt Use Metric Mask ...",
 * addresses in hex. */
static void net_stats_default_route(char *text, char name[32])
{
    char *save = NULL;
    unsigned long best = ~0ul;

    *name = '\0';
    for (char *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char interface[32];
        unsigned long destination, metric, mask;
        if (sscanf(line, "%31s %lx %*x %*x %*u %*u %lu %lx", interface, &destination, &metric, &mask) == 4 && destination == 0 &&
            mask == 0 && metric < best) {
            best = metric;
            snprintf(name, 32, "%s", interface);
        }
    }
}

static bool net_stats_load(const char *proc, pid_t pid, const char *name, struct buf *text)
{
    char number[24];
    struct status ignored;

    snprintf(number, sizeof number, pid > 0 ? "%d" : "self", (int)pid);
    cleanup_free char *path = xasprintf("%s/%s/net/%s", proc, number, name);
    return file_read(path, NET_STATS_FILE_MAX, text, &ignored);
}

bool net_stats_read(const char *proc, pid_t pid, struct net_stats *out)
{
    struct buf interfaces cleanup_buf = BUF_INIT, routes cleanup_buf = BUF_INIT;
    char route[32] = "";

    *out = (struct net_stats){ .taken_ns = clock_real_ns() };
    if (!net_stats_load(proc, pid, "dev", &interfaces))
        return false;
    /* A name begins its line, mostly behind blanks. */
    const char *text = buf_cstr(&interfaces);
    if (strstr(text, " eth0:") == NULL && strstr(text, "\neth0:") == NULL && net_stats_load(proc, pid, "route", &routes)) {
        buf_cstr(&routes);
        net_stats_default_route((char *)routes.p, route);
    }
    buf_cstr(&interfaces);
    net_stats_parse((char *)interfaces.p, route, out);
    for (size_t i = out->count; i-- > 0;)
        if (strcmp(out->interfaces[i].name, route) == 0)
            out->main = i;
    for (size_t i = 0; i < out->count; i++)
        if (strcmp(out->interfaces[i].name, "eth0") == 0)
            out->main = i;
    return out->count > 0;
}

#undef NET_STATS_FILE_MAX
