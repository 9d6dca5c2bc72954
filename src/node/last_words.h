/* SPDX-License-Identifier: Apache-2.0 */
/* last_words.h: the end of a job's log, for the message about a job that ended before it was a pod and whose site gives no reason:
 * the stock Slurm plugin knows exit codes only. */
#ifndef NODE_LAST_WORDS_H
#define NODE_LAST_WORDS_H

#include "interlink/interlink.h"

struct last_words;

/* on_done is called once, from the loop, after at most LAST_WORDS_TIMEOUT_MS; `text` is one line, "" when there is no log, borrowed.
 * `request` is borrowed for the call. */
struct last_words *last_words_start(struct loop *loop, struct interlink_target *target, const struct interlink_log_request *request,
                                    void (*on_done)(void *arg, const char *text), void *arg);
void last_words_cancel(struct last_words *words); /* NULL is fine */

#endif
