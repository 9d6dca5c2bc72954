/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_event.h"

struct agent_event {
    struct list link;
    uint64_t sequence;
    Interlink__Agent__V1__ContainerState state; /* its strings are owned */
};

struct agent_subscriber {
    struct list link;
    struct agent_events *events;
    struct rpc_call *call;
    uint64_t next;
    bool blocked; /* until the call is writable again */
};

void agent_events_init(struct agent_events *e)
{
    *e = (struct agent_events){ 0 };
    list_init(&e->kept);
    list_init(&e->subscribers);
}

static void agent_event_drop_oldest(struct agent_events *e)
{
    struct agent_event *event = CONTAINER_OF(e->kept.next, struct agent_event, link);

    list_remove(&event->link);
    e->count--;
    free(event->state.id);
    free(event->state.reason);
    free(event->state.message);
    free(event->state.termination_log.data);
    free(event);
}

void agent_events_free(struct agent_events *e)
{
    while (e->count > 0)
        agent_event_drop_oldest(e);
}

static void agent_subscriber_end(struct agent_subscriber *s)
{
    list_remove(&s->link);
    s->events->subscriber_count--;
}

/* Sends what the subscriber has not seen, as far as its call takes it. */
static void agent_subscriber_push(struct agent_subscriber *s)
{
    for (LIST_EACH(struct agent_event, event, &s->events->kept, link)) {
        if (s->blocked)
            return;
        if (event->sequence < s->next)
            continue;
        if (event->sequence > s->next) {
            struct rpc_call *call = s->call;
            agent_subscriber_end(s);
            rpc_failf(call, STATUS_OUT_OF_RANGE,
                      "events up to %" PRIu64 " are no longer kept: the subscriber was too slow; say Hello again",
                      event->sequence - 1);
            return;
        }
        Interlink__Agent__V1__Event message = INTERLINK__AGENT__V1__EVENT__INIT;
        message.sequence = event->sequence;
        message.state = &event->state;
        s->next = event->sequence + 1;
        s->blocked = !rpc_send(s->call, &message.base);
    }
}

static void agent_subscriber_on_writable(void *arg)
{
    struct agent_subscriber *s = arg;

    s->blocked = false;
    agent_subscriber_push(s);
}

static void agent_subscriber_on_cancel(void *arg)
{
    agent_subscriber_end(arg);
}

void agent_events_add(struct agent_events *e, const Interlink__Agent__V1__ContainerState *state)
{
    struct agent_event *event = xcalloc(1, sizeof *event);

    event->sequence = ++e->last;
    event->state = *state;
    event->state.id = xstrdup(state->id);
    event->state.reason = xstrdup(state->reason);
    event->state.message = xstrdup(state->message);
    event->state.termination_log.data = state->termination_log.len == 0 ? NULL : xmemdup(state->termination_log.data,
                                                                                         state->termination_log.len);
    list_append(&e->kept, &event->link);
    if (++e->count > AGENT_EVENTS_MAX)
        agent_event_drop_oldest(e);
    for (LIST_EACH_SAFE(struct agent_subscriber, s, &e->subscribers, link))
        agent_subscriber_push(s);
}

void agent_events_subscribe(struct agent_events *e, struct rpc_call *call, uint64_t from)
{
    uint64_t oldest = e->last - e->count + 1;

    if (from == 0)
        from = oldest;
    if (from < oldest) {
        rpc_failf(call, STATUS_OUT_OF_RANGE, "events below %" PRIu64 " are no longer kept; say Hello for a snapshot", oldest);
        return;
    }
    if (e->subscriber_count == AGENT_SUBSCRIBERS_MAX) {
        rpc_failf(call, STATUS_RESOURCE_EXHAUSTED, "%d calls are subscribed to events already", AGENT_SUBSCRIBERS_MAX);
        return;
    }
    struct agent_subscriber *s = ARENA_NEW(rpc_call_arena(call), struct agent_subscriber);
    s->events = e;
    s->call = call;
    s->next = from;
    list_append(&e->subscribers, &s->link);
    e->subscriber_count++;
    rpc_call_on_cancel(call, agent_subscriber_on_cancel, s);
    rpc_call_on_writable(call, agent_subscriber_on_writable, s);
    agent_subscriber_push(s);
}

void agent_events_close(struct agent_events *e)
{
    while (!list_empty(&e->subscribers)) {
        struct agent_subscriber *s = CONTAINER_OF(e->subscribers.next, struct agent_subscriber, link);
        struct rpc_call *call = s->call;
        agent_subscriber_end(s);
        rpc_finish(call, NULL);
    }
}
