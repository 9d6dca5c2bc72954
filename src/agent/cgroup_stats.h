/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup_stats.h: what the control groups of a container or of the pod count. Sources: the kernel's admin-guide/cgroup-v1 and
 * admin-guide/cgroup-v2.rst; what is what is as in cAdvisor, for that is what kubelet's users know. */
#ifndef AGENT_CGROUP_STATS_H
#define AGENT_CGROUP_STATS_H

#include "agent/cgroup.h"
#include "agent/usage.h"

/* Adds to `u` what the container's groups know; id "" is the pod's. `counters`: also what only metrics are made of. False:
 * there is no group that counts CPU time or memory, and nothing was added. Reads some ten small files of the kernel's. */
bool cgroup_usage(const struct cgroups *c, const char *id, bool counters, struct usage *u);
/* OOM kills in a container, running or not; USAGE_UNKNOWN without a group that counts them. */
uint64_t cgroup_oom_kills(const struct cgroups *c, const char *id);
/* Whether the pod's group holds this pod only: one of ours, or one that bears the pod's uid, as kubelet's do. */
bool cgroup_is_of_pod(const struct cgroups *c, const char *uid);

#endif
