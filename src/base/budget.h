/* SPDX-License-Identifier: Apache-2.0 */
/* budget.h: memory that many queues share. What one of them may take depends on how much is left: a quarter of it, between a
 * least share, which all have whatever the others do, and a most. So a few get all they can use, many share, and there is
 * always something left for one more (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet
 * Switches", 1998). With n queues that take all they may, each has size / (4 + n) beyond its least share. */
#ifndef BASE_BUDGET_H
#define BASE_BUDGET_H

#include <stddef.h>

struct budget {
    size_t size, used;
};

/* What a queue may have that has `own` of `used` now. */
static inline size_t budget_share(const struct budget *b, size_t own, size_t least, size_t most)
{
    size_t others = b->used - own, free = b->size > others ? b->size - others : 0;
    size_t share = least + free / 4;

    return share < most ? share : most;
}

/* A queue that had `*own` has `n` now. */
static inline void budget_change(struct budget *b, size_t *own, size_t n)
{
    b->used = b->used - *own + n;
    *own = n;
}

#endif
