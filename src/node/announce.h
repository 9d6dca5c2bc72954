/* SPDX-License-Identifier: Apache-2.0 */
/* announce.h: the events of CRI that a container's and a sandbox's moves are. A sandbox counts as a container of its own,
 * as everywhere in CRI.
 *
 * Each is announced once its record is durable (and visible in lists before), in the order CREATED, STARTED, STOPPED,
 * DELETED, none twice and none left out; only what never started has no STARTED. What was durable before this process began
 * was announced by the one before, or its subscribers lost their streams with it. */
#ifndef NODE_ANNOUNCE_H
#define NODE_ANNOUNCE_H

#include "base/base.h"

struct container;
struct sandbox;

/* How far an object has been announced. */
enum announced { ANNOUNCED_NOTHING, ANNOUNCED_CREATED, ANNOUNCED_STARTED, ANNOUNCED_STOPPED };

/* Sends what is owed up to this one. */
void announce_container(struct container *container, enum announced upto);
void announce_sandbox(struct sandbox *sandbox, enum announced upto);
/* All that is owed, and DELETED, unless the object was never announced. Called when it is about to be freed. */
void announce_container_deleted(struct container *container);
void announce_sandbox_deleted(struct sandbox *sandbox);
/* What an earlier process has announced of restored objects. */
enum announced announced_container_phase(int phase); /* Interlink__State__V1__ContainerPhase */
enum announced announced_sandbox_phase(int phase);   /* Interlink__State__V1__SandboxPhase */

#endif
