/* SPDX-License-Identifier: Apache-2.0 */
/* events.h: what happened to containers and sandboxes, to everybody who subscribed (GetContainerEvents; kubelet's evented
 * PLEG).
 *
 * A subscriber hears each event from its subscription on, once and in order, or its stream ends with an error: then it
 * lists and subscribes again, as kubelet does. So a gap is never silent:
 *  - one that reads too slowly is dropped with RESOURCE_EXHAUSTED when more than EVENTS_KEPT_BYTES wait for it;
 *  - while nobody subscribes, for EVENTS_KEEP_MS after the start and after the last subscriber went, events are kept and
 *    are the first that the next one hears; if they were more than fits, its stream ends with DATA_LOSS instead. */
#ifndef NODE_EVENTS_H
#define NODE_EVENTS_H

#include "base/base.h"
#include "io/loop.h"
#include "rpc/rpc.h"

#include "cri.pb-c.h"

struct events;

struct events *events_new(struct loop *loop); /* the caller frees */
/* The calls must have ended: by events_close or with their connections. NULL is fine. */
void events_free(struct events *events);

/* Whether an event would reach anybody: else there is no need to make it. */
bool events_wanted(const struct events *events);
/* Encodes it at once and sends it. Its created_at is set here: now, and later than that of any event before it, for
 * kubelet drops what is not newer than what it knows. */
void events_send(struct events *events, Runtime__V1__ContainerEventResponse *event);
/* Takes the call: a stream of ContainerEventResponse that the client ends. */
void events_subscribe(struct events *events, struct rpc_call *call);
size_t events_subscribers(const struct events *events);
/* Ends every stream with the status. */
void events_close(struct events *events, const struct status *why);

#endif
