/* SPDX-License-Identifier: Apache-2.0 */
/* agent_signal.h: the signal that stops a container, by the names that images and CRI give. */
#ifndef AGENT_AGENT_SIGNAL_H
#define AGENT_AGENT_SIGNAL_H

#include "base/base.h"

#include "cri.pb-c.h"

/* "SIGTERM", "TERM", "15", "SIGRTMIN+3", "SIGRTMAXMINUS2"; any case. 0 when it is none. */
int agent_signal_number(const char *name);
/* What CRI asks for, else what the image asks for ("" or an unknown word: neither), else SIGTERM. */
int agent_signal_stop(Runtime__V1__Signal wanted, const char *image_signal);
/* CRI's word for a signal's number; RUNTIME_DEFAULT when it has none. */
Runtime__V1__Signal agent_signal_cri(int number);

#endif
