/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_settle.h"

#include <elf.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

/* Where the program begins: 0 unless the kernel chose another place than the one it was linked for (elf(5), PT_PHDR). */
static uintptr_t agent_settle_base(const ElfW(Phdr) *headers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (headers[i].p_type == PT_PHDR)
            return (uintptr_t)headers - headers[i].p_vaddr;
    return 0;
}

void agent_settle_now(void)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const ElfW(Phdr) *headers = (const ElfW(Phdr) *)getauxval(AT_PHDR);
    size_t count = headers == NULL ? 0 : getauxval(AT_PHNUM);
    uintptr_t base = agent_settle_base(headers, count);

    for (size_t i = 0; i < count; i++) {
        const ElfW(Phdr) *h = &headers[i];
        if (h->p_type != PT_LOAD || (h->p_flags & PF_W) != 0)
            continue;
        uintptr_t from = (base + h->p_vaddr + page - 1) / page * page, to = (base + h->p_vaddr + h->p_filesz) / page * page;
        if (from < to)
            madvise((void *)from, to - from, MADV_DONTNEED);
    }
}

static void agent_on_settled(void *arg)
{
    (void)arg;
    agent_settle_now();
}

void agent_settle(struct timer *timer, struct loop *loop)
{
    timer_start(loop, timer, AGENT_SETTLE_MS, agent_on_settled, NULL);
}
