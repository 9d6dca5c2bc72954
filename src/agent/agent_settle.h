/* SPDX-License-Identifier: Apache-2.0 */
/* agent_settle.h: an agent's life is a second of work and hours of waiting: then it should weigh little. */
#ifndef AGENT_AGENT_SETTLE_H
#define AGENT_AGENT_SETTLE_H

#include "io/loop.h"

/* Gives back the pages of our code and constants. Starting a container takes ten times the code that waiting does; the pages are the
 * file's, so what is called again comes back from the page cache. Not what is written to. */
void agent_settle_now(void);
/* Something has happened: that, AGENT_SETTLE_MS after the last time. */
void agent_settle(struct timer *timer, struct loop *loop);

#endif
