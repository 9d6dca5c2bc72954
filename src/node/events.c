/* SPDX-License-Identifier: Apache-2.0 */
#include "node/events.h"

struct events_entry {
    struct list link; /* in events->kept */
    size_t n;
    uint8_t bytes[];
};

struct events_subscriber {
    struct list link; /* in events->subscribers */
    struct events *events;
    struct rpc_call *call;
    struct list *next; /* link of the entry to be sent next; &events->kept: it has all */
    bool full;         /* its call has enough for now: until on_writable */
};

struct events {
    struct loop *loop;
    struct list kept; /* oldest first: what some subscriber, or the one to come, has not got */
    size_t kept_bytes;
    struct list subscribers;
    size_t subscriber_count;
    int64_t last_ns;   /* created_at of the last event */
    struct timer keep; /* runs while nobody subscribes and events are kept all the same */
    bool lost;         /* meanwhile more happened than could be kept */
};

/* ---- what is kept ---- */

static void events_drop_oldest(struct events *events)
{
    struct events_entry *entry = CONTAINER_OF(events->kept.next, struct events_entry, link);

    events->kept_bytes -= entry->n;
    list_remove(&entry->link);
    free(entry);
}

static void events_drop_all(struct events *events)
{
    while (!list_empty(&events->kept))
        events_drop_oldest(events);
}

/* Nobody came back in time. */
static void events_on_keep_over(void *arg)
{
    struct events *events = arg;

    events_drop_all(events);
    events->lost = false;
}

struct events *events_new(struct loop *loop)
{
    struct events *events = xcalloc(1, sizeof *events);

    events->loop = loop;
    list_init(&events->kept);
    list_init(&events->subscribers);
    timer_start(loop, &events->keep, EVENTS_KEEP_MS, events_on_keep_over, events);
    return events;
}

void events_free(struct events *events)
{
    if (events == NULL)
        return;
    timer_stop(&events->keep);
    events_drop_all(events);
    free(events);
}

bool events_wanted(const struct events *events)
{
    return events->subscriber_count > 0 || timer_running(&events->keep);
}

size_t events_subscribers(const struct events *events)
{
    return events->subscriber_count;
}

static bool events_waited_for(const struct events *events, const struct list *link)
{
    for (LIST_EACH(struct events_subscriber, s, &events->subscribers, link))
        if (s->next == link)
            return true;
    return false;
}

/* Forgets what every subscriber has. */
static void events_trim(struct events *events)
{
    while (!list_empty(&events->kept) && !events_waited_for(events, events->kept.next))
        events_drop_oldest(events);
}

/* ---- subscribers ---- */

/* The subscriber is gone; who comes next gets what happens meanwhile. */
static struct rpc_call *events_take(struct events_subscriber *s)
{
    struct events *events = s->events;
    struct rpc_call *call = s->call;

    list_remove(&s->link);
    free(s);
    if (--events->subscriber_count == 0)
        timer_start(events->loop, &events->keep, EVENTS_KEEP_MS, events_on_keep_over, events);
    events_trim(events);
    return call;
}

static void events_on_cancel(void *arg)
{
    events_take(arg);
}

static void events_pump(struct events_subscriber *s)
{
    struct list *end = &s->events->kept;

    while (!s->full && s->next != end) {
        const struct events_entry *entry = CONTAINER_OF(s->next, struct events_entry, link);
        s->next = s->next->next;
        s->full = !rpc_send_packed(s->call, entry->bytes, entry->n);
    }
}

static void events_on_writable(void *arg)
{
    struct events_subscriber *s = arg;

    s->full = false;
    events_pump(s);
    events_trim(s->events);
}

void events_subscribe(struct events *events, struct rpc_call *call)
{
    if (events->lost) {
        events->lost = false;
        rpc_failf(call, STATUS_DATA_LOSS,
                  "more happened while nobody subscribed to events than could be kept: list, then subscribe again");
        return;
    }
    if (events->subscriber_count >= EVENTS_SUBSCRIBERS_MAX) {
        rpc_failf(call, STATUS_RESOURCE_EXHAUSTED, "%zu clients subscribe to events already, which is the most",
                  events->subscriber_count);
        return;
    }
    struct events_subscriber *s = xcalloc(1, sizeof *s);
    timer_stop(&events->keep);
    s->events = events;
    s->call = call;
    s->next = events->subscriber_count == 0 ? events->kept.next : &events->kept;
    list_append(&events->subscribers, &s->link);
    events->subscriber_count++;
    rpc_call_on_cancel(call, events_on_cancel, s);
    rpc_call_on_writable(call, events_on_writable, s);
    rpc_send_headers(call); /* the client can rely on hearing what happens from now on */
    events_pump(s);
    events_trim(events);
}

static void events_fail_all(struct events *events, const struct list *waiting_at, const struct status *why)
{
    for (LIST_EACH_SAFE(struct events_subscriber, s, &events->subscribers, link))
        if (waiting_at == NULL || s->next == waiting_at)
            rpc_fail(events_take(s), why);
}

void events_close(struct events *events, const struct status *why)
{
    events_fail_all(events, NULL, why);
}

/* ---- sending ---- */

/* Above the bound: who is furthest behind goes, and with it what only it has not got. */
static void events_bound(struct events *events)
{
    struct status err = STATUS_INIT;

    while (events->kept_bytes > EVENTS_KEPT_BYTES && events->subscriber_count > 0) {
        status_set(&err, STATUS_RESOURCE_EXHAUSTED,
                   "more than %d MiB of events wait for this subscriber: list, then subscribe again", EVENTS_KEPT_BYTES >> 20);
        log_warn("events: a subscriber reads too slowly and was dropped");
        events_fail_all(events, events->kept.next, &err);
    }
    if (events->subscriber_count == 0 && events->kept_bytes > EVENTS_KEPT_IDLE_BYTES) {
        events->lost = true;
        events_drop_all(events);
    }
}

void events_send(struct events *events, Runtime__V1__ContainerEventResponse *event)
{
    int64_t now = clock_real_ns();
    struct status err = STATUS_INIT;

    events->last_ns = now > events->last_ns ? now : events->last_ns + 1;
    event->created_at = events->last_ns;
    if (!events_wanted(events))
        return;
    size_t n = protobuf_c_message_get_packed_size(&event->base);
    if (n > RPC_MESSAGE_MAX) {
        status_set(&err, STATUS_RESOURCE_EXHAUSTED,
                   "an event of %zu bytes is more than one message can hold: list, then subscribe again", n);
        events->lost |= events->subscriber_count == 0;
        events_close(events, &err);
        return;
    }
    if (events->lost)
        return;
    struct events_entry *entry = xmalloc(sizeof *entry + n);
    entry->n = protobuf_c_message_pack(&event->base, entry->bytes);
    list_append(&events->kept, &entry->link);
    events->kept_bytes += n;
    for (LIST_EACH(struct events_subscriber, s, &events->subscribers, link)) {
        if (s->next == &events->kept)
            s->next = &entry->link;
        events_pump(s);
    }
    if (events->subscriber_count > 0)
        events_trim(events);
    events_bound(events);
}
