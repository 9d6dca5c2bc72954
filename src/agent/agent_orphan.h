/* SPDX-License-Identifier: Apache-2.0 */
/* agent_orphan.h: a process that an engine's worker has started may end before the worker's answer, with its pid, is read.
 * So while a start or exec is under way the ends of unknown processes are kept. */
#ifndef AGENT_AGENT_ORPHAN_H
#define AGENT_AGENT_ORPHAN_H

#include "base/base.h"

/* All zero is empty. */
struct agent_orphans {
    size_t expected; /* starts and execs under way */
    struct agent_orphan {
        pid_t pid;
        int wait_status;
    } *ends;         /* owned */
    size_t count, capacity;
};

/* Around each start and exec. After the last one all is forgotten: the numbers may be used again. */
void agent_orphans_expect(struct agent_orphans *o);
void agent_orphans_expected(struct agent_orphans *o);
/* A child that nobody registered has ended. */
void agent_orphans_add(struct agent_orphans *o, pid_t pid, int wait_status);
/* Whether pid has ended; then its status is taken out. */
bool agent_orphans_take(struct agent_orphans *o, pid_t pid, int *wait_status);

#endif
