/* SPDX-License-Identifier: Apache-2.0 */
/* agent_settle.h: an agent's life is a second of work and hours of waiting: then it should weigh little. */
#ifndef AGENT_AGENT_SETTLE_H
#define AGENT_AGENT_SETTLE_H

#include "io/loop.h"

/* Something has happened: AGENT_SETTLE_MS after the last time, the pages of our code are given back. */
void agent_settle(struct timer *timer, struct loop *loop);

#endif
