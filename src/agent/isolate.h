/* SPDX-License-Identifier: Apache-2.0 */
/*
 * isolate.h: puts the agent itself into the namespaces that the pod's containers share, so that containers simply
 * inherit them, and so that nothing of the pod can outlive the agent:
 *
 *   outer process     waits, forwards TERM and INT, mirrors the exit status; what the job's supervisor sees
 *     inner process   the agent: PID 1 of the pod's PID namespace, in its own mount, IPC and UTS namespaces
 *       containers
 *
 * When the inner process ends the kernel kills every process of its PID namespace, and with the last of them the mount
 * namespace and every mount in it go. When the outer process ends, however, the inner one is killed (PR_SET_PDEATHSIG).
 *
 * As root these namespaces belong to the machine's user namespace; otherwise a new user namespace is made around
 * them in which the caller's own uid and gid appear as 0. Other ids exist when the caller was given ranges of them and
 * newuidmap is installed (subuid(5)): they follow from 1 on. Without, there is no other.
 *
 * What the kernel refuses is left out, in this order, and recorded:
 *   1. all that was asked for;
 *   2. the same inside a user namespace (when root lacks the right to make namespaces);
 *   3. without a PID namespace (a /proc with masked parts cannot be mounted afresh);
 *   4. no namespaces at all: only the `host` engine works.
 * Without a PID namespace of its own (also when the pod has the machine's) the agent is a subreaper, and so is the outer
 * process, which kills what the inner one left.
 */
#ifndef AGENT_ISOLATE_H
#define AGENT_ISOLATE_H

#include "base/base.h"

struct isolate_options {
    char *const *argv; /* main's: the program runs itself once more with these, from a copy that cannot be written */
    bool host_pid;     /* the pod uses the machine's PID namespace */
    bool host_ipc;     /* ... its IPC namespace */
    bool host_uts;     /* ... its hostname (set for pods without one of their own) */
    bool none;         /* no namespaces at all: the engine is one that makes its own */
    void (*after)(void); /* in the outer process, once the inner one and all that it left have ended; NULL: nothing */
    const char *netns; /* the pod's network namespace, made by the node; "": the machine's network */
};

/* What was reached. Plain data; copied freely. */
struct isolation {
    bool user;       /* inside a user namespace of ours: the job's user is seen as 0 */
    uint32_t uids, gids; /* how many ids there are, from 0 on; 1: the job's own only */
    bool mount;      /* private mount namespace: without it no container can be made */
    bool pid;        /* own PID namespace, the agent is PID 1 in it, /proc shows it */
    bool ipc, uts;   /* own namespaces */
    bool network;    /* in a network namespace of the pod's */
    bool host_pid, host_ipc, host_uts; /* as asked for: these are the machine's on purpose */
    bool sealed;     /* our own binary cannot be written through /proc/PID/exe (CVE-2019-5736) */
    uint32_t uid, gid; /* of the job's user on the machine, outside any user namespace */
    int host_mount_fd; /* the machine's mount namespace, where host paths are looked up; -1 when it cannot be entered */
    char missing[256]; /* what was asked for and refused, with the reason: "pid namespace: Operation not permitted"; "" */
};

/* First thing in the agent's main, before any thread, timer, signalfd or descriptor of its own. Returns only in the
 * inner process, after the program has run itself once more: what comes before this call runs twice and must be
 * without side effects. The outer process never returns: it exits as the inner one did (128 + n after signal n).
 * False only when not even the first fork works or `argv` is unusable. Costs about a millisecond. */
bool isolate_enter(const struct isolate_options *options, struct isolation *out, struct status *err);

#endif
