/* SPDX-License-Identifier: Apache-2.0 */
/* track.h: which processes belong to a container when no cgroup says it: by its mount namespace, else by their sessions.
 * Kept in <bundle>/track. A process of the agent's own (a worker that is about to become a container's) never counts. */
#ifndef AGENT_TRACK_H
#define AGENT_TRACK_H

#include "base/base.h"

/* Remembers a process (0: the caller) that is about to run the container's program: its mount namespace when the container
 * has one of its own (`by_mount`), else its session. To be called before the program begins, for it may be gone in an
 * instant and leave others behind. False with errno. */
bool track_add(const char *bundle, pid_t pid, bool by_mount);
/* Sends a signal to every process of the container (0: only counts them); how many there are. */
size_t track_signal(const char *bundle, int signal);

#endif
