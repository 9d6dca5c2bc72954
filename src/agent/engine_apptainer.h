/* SPDX-License-Identifier: Apache-2.0 */
/* engine_apptainer.h: what of this engine others call. */
#ifndef AGENT_ENGINE_APPTAINER_H
#define AGENT_ENGINE_APPTAINER_H

#include "agent/engine.h"

/* Puts what containers need of ours into the engine's folder. */
bool engine_apptainer_open(struct engine *engine, struct status *err);
/* `agent enter`, in a container: becomes one of its processes. Returns an exit status when that fails. */
int engine_apptainer_enter(int argc, char **argv);

#endif
