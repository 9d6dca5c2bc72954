/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cni_exec.h: runs the plugins of a network, one after another. For workers (io/child.h): everything here blocks, up to the
 * time-out given. One plugin that takes too long is killed with all that it started; otherwise none ever is: a plugin that is
 * stopped half way may leave what its own DEL does not find again (bridge: firewall rules, when the interface is gone already). So
 * the workers are lasting ones, which end their chain when serve has died, and who comes next waits for them (cni_lock).
 */
#ifndef NODE_CNI_EXEC_H
#define NODE_CNI_EXEC_H

#include "node/cni_call.h"

struct cni_exec {
    const char *const *folders; /* of programs, NULL-terminated */
    int64_t timeout_ms;         /* for the whole chain */
};

/* ADD: forwards, each going on from the one before; *result is what the last one printed. An error leaves what was done so far:
 * call cni_del(). A result without an address for the pod is an error. */
bool cni_add(const struct cni_exec *exec, const struct cni_network *network, const struct cni_attachment *attachment,
             struct buf *result, struct status *err);
/* DEL: backwards, with the result of the ADD where there is one (from 0.4.0 on). The first error ends it; doing it again is
 * harmless. */
bool cni_del(const struct cni_exec *exec, const struct cni_network *network, const struct cni_attachment *attachment,
             struct status *err);
/* CHECK: whether the pod's network still is as ADD left it. True where it cannot be asked (before 0.4.0, disableCheck). */
bool cni_check(const struct cni_exec *exec, const struct cni_network *network, const struct cni_attachment *attachment,
               struct status *err);
/* STATUS: whether the plugins could add a pod. True where it cannot be asked (before 1.1.0). */
bool cni_status(const struct cni_exec *exec, const struct cni_network *network, struct status *err);
/* GC: has the plugins give back what they hold for any pod that is not in `valid`, an array of {"containerID", "ifname"}: also for
 * those of other runtimes. Each plugin is asked, the first error is told. True where it cannot be asked (before 1.1.0, disableGC). No
 * other chain may run meanwhile. */
bool cni_gc(const struct cni_exec *exec, const struct cni_network *network, const struct json *valid, struct status *err);

/* One chain a pod at a time, also across lives of serve: waits until the worker of an earlier one has ended. The lock is the
 * descriptor, which is not inherited by plugins, and goes with the process. -1: DEADLINE_EXCEEDED. */
int cni_lock(const char *container_id, int64_t timeout_ms, struct status *err);
/* What a worker that was killed itself has left: processes, of whichever parent, whose environment says that they work for this pod
 * (CNI_CONTAINERID) get so much time to end, then they are killed. */
void cni_end_strays(const char *container_id, int64_t grace_ms);

#endif
