/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_stats.h: the Stats call: measures when it is asked, and only then.
 *
 *   cgroups     read on the loop: a few small files of the kernel's for each container
 *   processes   looked at by a worker, where there are no cgroups, and for open files
 *   layers      small ones are counted on the loop, others by a worker of their own, which may take long: a call waits for
 *               it a moment, then takes the last count there is, which says when it was made
 *
 * Calls that come while a worker is under way wait for it together.
 */
#ifndef AGENT_AGENT_STATS_H
#define AGENT_AGENT_STATS_H

#include "agent/layer_stats.h"
#include "agent/proc_stats.h"
#include "agent/usage.h"
#include "io/child.h"
#include "rpc/rpc.h"

#include "agent.pb-c.h"

struct agent;
struct agent_container;

/* Of the pod; all zero but `calls` (agent_stats_init). */
struct agent_stats {
    struct list calls;             /* struct agent_stats_call, on their arenas: those that wait */
    struct worker scan, count;
    struct timer scan_limit, count_limit, count_wait;
    bool scan_files;               /* the scan under way counts open files */
    struct usage_rate rate;
    uint64_t gone_cpu;             /* of containers that were removed */
};

/* Of one container; made when it is first asked for. */
struct agent_container_stats {
    struct usage_rate rate;
    uint64_t cpu;                  /* as last seen */
    struct proc_account account;   /* without cgroups */
    struct usage found;            /* by the last scan */
    bool found_anything;
    struct layer_stats layer;
    bool layer_known;
    int64_t layer_ms;              /* monotonic: when the last count began; 0: none did */
    int64_t layer_age_ms;          /* how long it counts */
    bool layer_counting;           /* a worker is at it */
};

void agent_stats_init(struct agent_stats *stats);
/* The handler. */
void agent_stats(struct agent *agent, struct rpc_call *call, const Interlink__Agent__V1__StatsRequest *request);
/* The container's figures go with it. */
void agent_stats_forget(struct agent_container *c);
/* Ends the workers; the calls have ended by then. */
void agent_stats_free(struct agent *agent);

/* ---- agent_stats_fill.c: figures as messages, on an arena ---- */
struct net_stats;
void agent_stats_fill_container(struct arena *arena, const char *id, const struct usage *u, uint64_t nano_cores,
                                const struct layer_stats *layer, Runtime__V1__ContainerStats *out);
void agent_stats_fill_pod(struct arena *arena, const struct usage *u, uint64_t nano_cores, const struct net_stats *network,
                          Runtime__V1__LinuxPodSandboxStats *out);
/* u, layer: NULL when there is nothing. */
void agent_stats_fill_counters(struct arena *arena, const struct usage *u, uint64_t oom_kills, const struct layer_stats *layer,
                               Interlink__Agent__V1__ContainerCounters *out);
void agent_stats_fill_network(struct arena *arena, const struct net_stats *network, Interlink__Agent__V1__StatsResponse *out);

#endif
