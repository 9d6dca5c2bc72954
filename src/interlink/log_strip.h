/* SPDX-License-Identifier: Apache-2.0 */
/* log_strip.h: takes out of a log what a plugin has added to a container's own output. No I/O.
 *
 * What the stock Slurm plugin answers to /getLogs, measured on f8451d93:
 *
 *   what else the batch script wrote (the pod's name and job, dated words on each container)     at the beginning
 *   "... because it does not exist yet, sleeping before retrying..." while there is no output    after it, with Follow
 *   the container's output, both streams mixed
 *   what bash's `time` has to say                                                                at the end
 *
 * What is taken out depends on the text alone, not on the pieces it comes in: after a broken connection the same log gives the
 * same output again, so that a reader can go on by counting bytes. Any other text passes unchanged. */
#ifndef INTERLINK_LOG_STRIP_H
#define INTERLINK_LOG_STRIP_H

#include "base/base.h"

/* All zero at first. */
struct log_strip {
    /* Set by the caller: other programs write into the batch script's output, too, before the words above. */
    bool noisy;
    /* Its own. */
    bool begun, stock;
    bool ended;      /* the batch script says that the container has ended */
    struct buf head; /* owned; the beginning, as long as it may be the batch script's; at most LOG_STRIP_HEAD_MAX */
    struct buf tail; /* owned; what may be the words of `time`; at most LOG_STRIP_TAIL_MAX */
};

/* Appends to `out` what is surely the container's. */
void log_strip_feed(struct log_strip *s, struct str piece, struct buf *out);
/* The log has ended. */
void log_strip_end(struct log_strip *s, struct buf *out);
/* Back to the beginning of the log. */
void log_strip_reset(struct log_strip *s);

#endif
