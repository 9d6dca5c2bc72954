/* SPDX-License-Identifier: Apache-2.0 */
/* signals.h: signal names, as images (STOPSIGNAL) and CRI (enum Signal) write them. */
#ifndef NODE_SIGNALS_H
#define NODE_SIGNALS_H

#include "base/base.h"

/* "SIGTERM", "TERM", "15", "SIGRTMIN+3", "RTMAX-1" (any case); 0 when it is none. */
int signal_parse(const char *name);

#endif
