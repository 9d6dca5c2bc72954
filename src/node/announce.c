/* SPDX-License-Identifier: Apache-2.0 */
#include "node/announce.h"

#include "node/container.h"
#include "node/events.h"
#include "node/sandbox.h"
#include "node/status.h"

/* CREATED and so on have the numbers of enum announced, less one. */
static Runtime__V1__ContainerEventType announce_type(enum announced what)
{
    return (Runtime__V1__ContainerEventType)(what - 1);
}

/* `gone`: a container that is being removed and is not shown any more; NULL: none. */
static void announce_send(struct sandbox *sandbox, const char *id, Runtime__V1__ContainerEventType type,
                          const struct container *gone)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    Runtime__V1__ContainerEventResponse event = RUNTIME__V1__CONTAINER_EVENT_RESPONSE__INIT;
    size_t count = 0;

    if (!events_wanted(sandbox->node->events))
        return;
    for (LIST_EACH(struct container, c, &sandbox->containers, link))
        count++;
    event.container_id = (char *)(uintptr_t)id;
    event.container_event_type = type;
    event.pod_sandbox_status = status_of_sandbox(&arena, sandbox, false)->status;
    event.containers_statuses = ARENA_ARRAY(&arena, Runtime__V1__ContainerStatus *, count);
    for (LIST_EACH(struct container, c, &sandbox->containers, link))
        if (c != gone && container_listed(c))
            event.containers_statuses[event.n_containers_statuses++] = status_of_container(&arena, c, false)->status;
    events_send(sandbox->node->events, &event);
}

void announce_container(struct container *container, enum announced upto)
{
    while (container_listed(container) && container->announced < upto) {
        container->announced++;
        if (container->announced == ANNOUNCED_STARTED && container->record->started_at == 0)
            continue;
        announce_send(container->sandbox, container->record->id, announce_type(container->announced), NULL);
    }
}

void announce_container_deleted(struct container *container)
{
    if (container->announced == ANNOUNCED_NOTHING)
        return;
    announce_container(container, announced_container_phase((int)container->record->phase));
    announce_send(container->sandbox, container->record->id,
                  RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_DELETED_EVENT, container);
    container->announced = ANNOUNCED_NOTHING;
}

void announce_sandbox(struct sandbox *sandbox, enum announced upto)
{
    while (sandbox->announced < upto) {
        sandbox->announced++;
        announce_send(sandbox, sandbox->record->id, announce_type(sandbox->announced), NULL);
    }
}

void announce_sandbox_deleted(struct sandbox *sandbox)
{
    if (sandbox->announced == ANNOUNCED_NOTHING)
        return;
    announce_sandbox(sandbox, announced_sandbox_phase((int)sandbox->record->phase));
    announce_send(sandbox, sandbox->record->id, RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_DELETED_EVENT, NULL);
    sandbox->announced = ANNOUNCED_NOTHING;
}

enum announced announced_container_phase(int phase)
{
    switch ((Interlink__State__V1__ContainerPhase)phase) {
    case INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING:
        return ANNOUNCED_STARTED;
    case INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED:
        return ANNOUNCED_STOPPED;
    default:
        return ANNOUNCED_CREATED;
    }
}

enum announced announced_sandbox_phase(int phase)
{
    switch ((Interlink__State__V1__SandboxPhase)phase) {
    case INTERLINK__STATE__V1__SANDBOX_PHASE__READY:
        return ANNOUNCED_STARTED;
    case INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY:
        return ANNOUNCED_STOPPED;
    default:
        return ANNOUNCED_NOTHING; /* not listed yet */
    }
}
