/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_files.h: files of volumes that only the node sees, as PutFiles brings them (files_writer.h says how they lie there):
 *
 *   <job>/files        in memory where the job may mount that: kubelet does not let secrets touch a disk either
 *   <job>/empty        emptyDirs (agent_sources.h)
 *   <job>/termination  files for containers' last words (agent_sources.h)
 */
#ifndef AGENT_AGENT_FILES_H
#define AGENT_AGENT_FILES_H

#include "base/base.h"
#include "rpc/rpc.h"

#include "agent.pb-c.h"

struct agent;

/* All zero: none has come. */
struct agent_files {
    struct strmap versions; /* volume -> its version, an owned string; "" while it is being rewritten; only what has come once is in it */
};

/* Handler of PutFiles. */
void agent_files_put(struct agent *agent, struct rpc_call *call);
/* What there is, for Hello; the strings are borrowed. */
void agent_files_report(const struct agent *agent, struct arena *arena, Interlink__Agent__V1__HelloResponse *out);
void agent_files_free(struct agent *agent);

/* Where a volume's files are; NULL when they have not come. The caller frees. */
char *agent_files_path(const struct agent *agent, const char *volume);
/* Whether there is something to clear. Loop: three system calls. */
bool agent_files_any(const struct agent *agent);
/* Removes all that the pod had in the three folders. Worker; containers are gone. */
bool agent_files_clear(const struct agent *agent, struct status *err);

#endif
