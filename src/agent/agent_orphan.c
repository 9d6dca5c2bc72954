/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_orphan.h"

void agent_orphans_expect(struct agent_orphans *o)
{
    o->expected++;
}

void agent_orphans_expected(struct agent_orphans *o)
{
    if (--o->expected > 0)
        return;
    free(o->ends);
    *o = (struct agent_orphans){ 0 };
}

void agent_orphans_add(struct agent_orphans *o, pid_t pid, int wait_status)
{
    if (o->expected == 0)
        return;
    if (o->count == AGENT_ORPHANS_MAX) {
        /* The oldest go: a worker answers within milliseconds of what it has started. */
        o->count /= 2;
        memmove(o->ends, o->ends + o->count, o->count * sizeof *o->ends);
    }
    if (o->count == o->capacity) {
        o->capacity = o->capacity > 0 ? o->capacity * 2 : 8;
        o->ends = xrealloc(o->ends, o->capacity * sizeof *o->ends);
    }
    o->ends[o->count++] = (struct agent_orphan){ pid, wait_status };
}

bool agent_orphans_take(struct agent_orphans *o, pid_t pid, int *wait_status)
{
    /* Newest first: a number that was used twice means its last bearer. */
    for (size_t i = o->count; i-- > 0;) {
        if (o->ends[i].pid != pid)
            continue;
        *wait_status = o->ends[i].wait_status;
        o->count--;
        memmove(o->ends + i, o->ends + i + 1, (o->count - i) * sizeof *o->ends);
        return true;
    }
    return false;
}
