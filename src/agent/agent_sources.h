/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_sources.h: where a container's mounts come from, when the node says that it is not their host_path:
 *
 *   a path of this machine, which must be there
 *   files that PutFiles has brought (agent_files.h)
 *   <job>/empty/NAME/dir    an emptyDir, shared by the pod's containers; <job>/empty/NAME/ready says that it is complete
 *   <job>/termination/ID    the file for the container's last words; on the disk, for a container may fill it
 */
#ifndef AGENT_AGENT_SOURCES_H
#define AGENT_AGENT_SOURCES_H

#include "agent/engine.h"

#include "agent.pb-c.h"

struct agent;

/* In `arena`: one for each mount, NULL when the node names none. Makes emptyDirs and the termination log. FAILED_PRECONDITION or
 * NOT_FOUND name the mount. Worker, whose descriptors go with it. */
bool agent_sources_make(const struct agent *agent, const Interlink__Agent__V1__CreateContainerRequest *request, struct arena *arena,
                        const struct engine_source **out, struct status *err);
/* Whether the container has a termination log of ours. */
bool agent_sources_has_termination_log(const Interlink__Agent__V1__CreateContainerRequest *request);
/* The end of it, appended; nothing when there is none. Loop: reads some KiB. */
void agent_sources_read_termination_log(const struct agent *agent, const char *id, struct buf *out);
/* With the container. Loop. */
void agent_sources_remove_termination_log(const struct agent *agent, const char *id);

#endif
