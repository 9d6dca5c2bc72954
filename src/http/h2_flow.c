/* SPDX-License-Identifier: Apache-2.0 */
/* How much may be under way: windows of streams, and the lengths of their queues. */
#include "http/h2_private.h"

/* Weights, of 1 to 256 (RFC 7540 section 5.3; both our ends follow them): streams that have something to send at the same time
 * share the connection by them. The priorities that came later (RFC 9218) would not do: nghttp2 sends the oldest stream of an
 * urgency as long as that has something to send, and a client has no say at all. So SETTINGS_NO_RFC7540_PRIORITIES is not sent. */
#define H2_WEIGHT 256
#define H2_WEIGHT_BULK 1

/* ---- windows ---- */

/* What the peer can make us hold on this stream, in all. */
static size_t h2_claim(const struct h2_stream *s)
{
    bool over = s->received_end || s->reset;
    int64_t claim = (int64_t)s->unconsumed + (over ? 0 : s->credit);

    return claim > 0 ? (size_t)claim : 0;
}

void h2_count_window(struct h2_stream *s)
{
    size_t claim = h2_claim(s), first = H2_STREAM_WINDOW_FIRST;

    budget_change(&s->h2->budget->windows, &s->window_share, claim > first ? claim - first : 0);
}

void h2_open_window(struct h2_stream *s)
{
    s->credit = H2_STREAM_WINDOW_FIRST;
    s->window = H2_STREAM_WINDOW_FIRST;
}

void h2_consume(struct h2_stream *s, size_t n)
{
    struct budget *budget = &s->h2->budget->windows;

    s->unconsumed -= n;
    h2_count_window(s);
    size_t claim = h2_claim(s);
    if (s->received_end || s->reset || claim > s->window - s->window / 4)
        return;
    /* The peer has made use of its window: next time it may have twice as much. */
    size_t share = budget_share(budget, s->window_share, H2_STREAM_WINDOW_FIRST, H2_STREAM_WINDOW);
    s->window = 2 * s->window < share ? 2 * s->window : share;
    if (claim >= s->window)
        return;
    size_t more = s->window - claim;
    s->credit += (int64_t)more;
    h2_count_window(s);
    h2_check(s->h2, nghttp2_submit_window_update(s->h2->session, 0, s->id, (int32_t)more), "give window back");
    h2_want_flush(s->h2);
}

/* ---- queues ---- */

static size_t h2_queue_share(const struct h2_stream *s)
{
    return budget_share(&s->h2->budget->queues, s->queued_share, H2_SEND_HIGH_WATER_LEAST, H2_SEND_HIGH_WATER);
}

void h2_queue_grew(struct h2_stream *s)
{
    if (s->queued > h2_queue_share(s)) {
        s->above_mark = true;
        list_remove(&s->drained_link);
    }
    budget_change(&s->h2->budget->queues, &s->queued_share, s->queued);
}

void h2_queue_shrank(struct h2_stream *s)
{
    budget_change(&s->h2->budget->queues, &s->queued_share, s->queued);
    if (s->above_mark && s->queued <= h2_queue_share(s) / 2) {
        s->above_mark = false;
        list_append(&s->h2->drained, &s->drained_link);
    }
}

/* ---- order ---- */

nghttp2_priority_spec h2_priority(bool bulk)
{
    nghttp2_priority_spec priority;

    nghttp2_priority_spec_init(&priority, 0, bulk ? H2_WEIGHT_BULK : H2_WEIGHT, 0);
    return priority;
}

#undef H2_WEIGHT
#undef H2_WEIGHT_BULK
