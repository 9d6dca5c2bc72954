/* SPDX-License-Identifier: Apache-2.0 */
/* launch.h: starts a process the way a container's processes are started, without libcrun: exec in a running container, and
 * everything that the host engine does. */
#ifndef AGENT_LAUNCH_H
#define AGENT_LAUNCH_H

#include "agent/cgroup.h"
#include "agent/engine.h"
#include "agent/lsm.h"
#include "agent/podns.h"
#include "agent/process.h"

struct launch {
    const struct process *process;
    const char *const *argv; /* NULL-terminated */
    const struct engine_stdio *io;
    const struct cgroups *cgroups;
    const char *id;
    pid_t init;     /* whose mount, PID and cgroup namespaces to join; 0: none */
    const struct podns *pod; /* the pod's user namespace, if it has one of its own; NULL: none */
    bool one_id;    /* in a user namespace with one id only, or no root at all: ids cannot be changed */
    bool as_we_are; /* ids, groups and capabilities stay the agent's: somebody else has made the container */
    const struct lsm *lsm; /* NULL: no profiles and labels */
    bool own_mounts; /* make a mount namespace for it and the process's binds */
    int pass[2];     /* descriptors that it keeps, at the same numbers, when pass_count says so */
    size_t pass_count;
    const char *bundle; /* where to remember it (track.h); NULL: it is known by its namespaces */
};

/* For a worker (io/child.h): joins namespaces with the calling process, so it must end soon. The new process is the
 * worker's child; true once it has been exec'ed. NOT_FOUND or PERMISSION_DENIED when the program cannot be executed. */
bool launch_process(const struct launch *l, pid_t *pid, struct status *err);

/* In a process that is in its container already: a terminal when `io` has one (the process must not lead a group then),
 * working directory, system call filter, and then the program; descriptors 0 to 2 stay otherwise. Never returns: a failure
 * goes to report_fd, which the program does not get. */
void launch_inside(const struct process *process, const struct engine_stdio *io, int report_fd);
/* At the other end of report_fd: waits until the program runs, or says why it does not. */
bool launch_await(int report_fd, const char *program, struct status *err);

/* The words of a program that cannot be executed, for an errno of execve(2). Returns false. */
bool launch_exec_error(const char *program, int number, struct status *err);

#endif
