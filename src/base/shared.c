/* SPDX-License-Identifier: Apache-2.0 */
#include "base/shared.h"

struct shared *shared_new(size_t n)
{
    struct shared *shared = xmalloc(sizeof *shared + n);

    shared->references = 1;
    shared->n = n;
    return shared;
}
