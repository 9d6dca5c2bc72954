/* SPDX-License-Identifier: Apache-2.0 */
/* clock.h: the two clocks. Stamps that leave the program are real time; everything that waits uses the monotonic one. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include "base/base.h"

int64_t clock_real_ns(void); /* since the epoch, UTC */
int64_t clock_mono_ns(void);
int64_t clock_mono_ms(void);

#endif
