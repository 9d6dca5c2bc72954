/* SPDX-License-Identifier: Apache-2.0 */
/* agent_kill.h: ends a process and everything that came of it, where no cgroup does that for us. */
#ifndef AGENT_AGENT_KILL_H
#define AGENT_AGENT_KILL_H

#include "base/base.h"

/* What belongs to a process: its process group and session, its descendants, and who else holds one of its pipes (a daemon
 * that has left both keeps them unless it took pains). */
struct agent_kill {
    pid_t root;
    ino_t pipes[3]; /* 0: none */
};
/* Stops all of them first, so that none escapes by forking, then kills them, and waits until they are gone (or are zombies).
 * DEADLINE_EXCEEDED after AGENT_KILL_MS. Blocks: worker. Needs a /proc that shows our PID namespace. */
bool agent_kill_all(const struct agent_kill *k, struct status *err);

#endif
