/* SPDX-License-Identifier: Apache-2.0 */
/* net_stats.h: what went through the network interfaces of a process's network namespace (proc_pid_net(5)). */
#ifndef AGENT_NET_STATS_H
#define AGENT_NET_STATS_H

#include "base/base.h"

/* Interfaces that are told of: a pod has two, a large machine some dozens; more are left out. */
#define NET_STATS_INTERFACES_MAX 64

struct net_interface {
    char name[32];
    uint64_t rx_bytes, rx_packets, rx_errors, rx_dropped;
    uint64_t tx_bytes, tx_packets, tx_errors, tx_dropped;
};

struct net_stats {
    int64_t taken_ns; /* real time */
    struct net_interface interfaces[NET_STATS_INTERFACES_MAX]; /* without the loopback, unless there is nothing else */
    size_t count;
    size_t main; /* which of them is the pod's usual one: eth0, or where the default route leads, or the first */
};

/* `pid` 0: our own. False when there is nothing to be read. Two small files of the kernel's. `proc` is "/proc". */
bool net_stats_read(const char *proc, pid_t pid, struct net_stats *out);

#endif
