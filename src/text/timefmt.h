/* SPDX-License-Identifier: Apache-2.0 */
/* timefmt.h: time stamps (RFC 3339), ages and durations as text. Times are nanoseconds since the epoch, UTC. */
#ifndef TEXT_TIMEFMT_H
#define TEXT_TIMEFMT_H

#include "base/base.h"

/* Room for any text made here, with its NUL. */
#define TIMEFMT_SIZE 48

/* "2026-11-24T05:36:00.123456789Z": always nine digits, always this length (years 1678 to 2262). */
#define TIMEFMT_NANO_LENGTH 30
void timefmt_nano(int64_t ns, char out[TIMEFMT_SIZE]);
/* "2026-11-24T05:36:00Z", as Kubernetes objects have it. */
void timefmt_seconds(int64_t ns, char out[TIMEFMT_SIZE]);
/* RFC 3339 with any fraction (beyond nine digits cut) and any offset. False when it is not one or does not fit. */
bool timefmt_parse(struct str text, int64_t *ns);

/* "Less than a second", "5 seconds", "About a minute", "2 hours", "3 days", "2 weeks"...: as crictl's tables say it
 * (there followed by " ago"). */
void timefmt_age(int64_t elapsed_ns, char out[TIMEFMT_SIZE]);
/* Go's form: "1h2m3.5s", "250ms", "0s". */
void timefmt_duration(int64_t ns, char out[TIMEFMT_SIZE]);
/* Go's form read: "1h2m", "10s", "1.5h", "-2m", "0"; units ns us ms s m h. */
bool timefmt_parse_duration(const char *text, int64_t *ns);

#endif
