/* SPDX-License-Identifier: Apache-2.0 */
/* shared.h: bytes with several holders: filled once by who made them, then never changed, gone with the last holder. */
#ifndef BASE_SHARED_H
#define BASE_SHARED_H

#include "base/base.h"

struct shared {
    unsigned references;
    size_t n;
    uint8_t bytes[];
};
struct shared *shared_new(size_t n); /* one reference, the caller's, who fills `bytes` */
static inline struct shared *shared_ref(struct shared *shared)
{
    shared->references++;
    return shared;
}
static inline void shared_unref(struct shared *shared) /* NULL is fine */
{
    if (shared != NULL && --shared->references == 0)
        free(shared);
}

#endif
