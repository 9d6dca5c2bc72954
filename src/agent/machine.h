/* SPDX-License-Identifier: Apache-2.0 */
/* machine.h: what a machine lets this user do, as `doctor` asks it of the node and `agent --probe` of a compute node. */
#ifndef AGENT_MACHINE_H
#define AGENT_MACHINE_H

#include "base/base.h"

enum finding_result { FINDING_OK, FINDING_WARN, FINDING_FAIL };

/* One thing that was looked at. */
struct finding {
    enum finding_result result;
    const char *what;  /* "namespaces"; a literal */
    const char *mend;  /* "" when nothing is wrong; a literal, or lives as long as its maker says */
    char found[512];
};
void finding_set(struct finding *f, enum finding_result result, const char *what, const char *mend, const char *format, ...)
    PRINTF_LIKE(5, 6);
/* "ok", "warn", "fail" */
const char *finding_result_name(enum finding_result result);

/* Kernel, namespaces, user ids, overlayfs, cgroups, system call filters, clock. `dir`: a folder that this user may write, in
 * which things are tried and removed again; NULL: none. What could disturb this process is tried in a child of it, which is
 * waited for: not on a loop. */
void machine_check(const char *dir, void (*say)(void *arg, const struct finding *f), void *arg);

#endif
