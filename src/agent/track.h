/* SPDX-License-Identifier: Apache-2.0 */
/* track.h: which processes belong to a container when no cgroup says it: by its mount namespace; where there is none by their
 * sessions, and by a variable in their environment, which also daemons keep that left their session. Kept in
 * <bundle>/track. */
#ifndef AGENT_TRACK_H
#define AGENT_TRACK_H

#include "base/base.h"

/* In the environment of a container's processes where there are no namespaces; its value is the container's id. */
#define TRACK_VARIABLE "INTERLINK_CRI_CONTAINER"

/* Remembers a process (0: the caller) that is about to run the container's program: its mount namespace when the container
 * has one of its own (`by_mount`), else its session; the bundle's name is the container's id. To be called before the program begins, for
 * it may be gone in an instant and leave others behind. False with errno. */
bool track_add(const char *bundle, pid_t pid, bool by_mount);
/* Holds the mount namespace of a process, so that its number cannot come to stand for another container's; track_add does it
 * where it can, which is from outside that namespace. Until track_unpin, once nothing of the container runs any more. */
void track_pin(const char *bundle, pid_t pid);
void track_unpin(const char *bundle);
/* Calls visit for each process of the container; how many there are. */
size_t track_each(const char *bundle, void (*visit)(void *arg, pid_t pid), void *arg);
/* Sends a signal to every process of the container (0: only counts them); how many there are. */
size_t track_signal(const char *bundle, int signal);

#endif
