/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <time.h>

static int64_t clock_read(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_real_ns(void)
{
    return clock_read(CLOCK_REALTIME);
}

int64_t clock_mono_ns(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

int64_t clock_mono_ms(void)
{
    return clock_read(CLOCK_MONOTONIC) / 1000000;
}
