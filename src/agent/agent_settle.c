/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_settle.h"

#include <sys/mman.h>
#include <unistd.h>

extern char __executable_start[], etext[]; /* the linker's: where our code is */

/* Starting a container takes ten times the code that waiting does. Its pages are the file's: what is called again comes
 * back from the page cache. */
static void agent_on_settled(void *arg)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)__executable_start + page - 1) / page * page, to = (uintptr_t)etext / page * page;

    (void)arg;
    madvise((void *)from, to - from, MADV_DONTNEED);
}

void agent_settle(struct timer *timer, struct loop *loop)
{
    timer_start(loop, timer, AGENT_SETTLE_MS, agent_on_settled, NULL);
}
