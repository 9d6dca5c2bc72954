/* SPDX-License-Identifier: Apache-2.0 */
/* poll.c: the batched status query. One request asks for all jobs. When the plugin fails on it but answers a ping, one
 * pod in the batch is to blame: the batch is halved until that pod is alone; then it is asked for apart from the others. */
#include "interlink/target.h"

static void poll_run(void *arg);

void interlink_poll_init(struct interlink_target *target)
{
    list_init(&target->poll.batches);
}

/* ---- batches ---- */

static struct interlink_batch *poll_batch_new(size_t room)
{
    struct interlink_batch *batch = xcalloc(1, sizeof *batch);

    list_init(&batch->link);
    batch->jobs = xcalloc(room > 0 ? room : 1, sizeof(struct interlink_job *));
    return batch;
}

static void poll_batch_free(struct interlink_batch *batch)
{
    if (batch == NULL)
        return;
    list_remove(&batch->link);
    free(batch->jobs);
    free(batch);
}

static void poll_drop_batches(struct interlink_poll *poll)
{
    for (LIST_EACH_SAFE(struct interlink_batch, batch, &poll->batches, link))
        poll_batch_free(batch);
}

/* Drops what was freed or needs no status any more. */
static void poll_batch_compact(struct interlink_batch *batch)
{
    size_t kept = 0;

    for (size_t i = 0; i < batch->count; i++)
        if (batch->jobs[i] != NULL && interlink_job_wants_status(batch->jobs[i]))
            batch->jobs[kept++] = batch->jobs[i];
    batch->count = kept;
}

static void poll_batch_forget(struct interlink_batch *batch, const struct interlink_job *job)
{
    for (size_t i = 0; batch != NULL && i < batch->count; i++)
        if (batch->jobs[i] == job)
            batch->jobs[i] = NULL;
}

void interlink_poll_forget(struct interlink_target *target, const struct interlink_job *job)
{
    poll_batch_forget(target->poll.asked, job);
    for (LIST_EACH(struct interlink_batch, batch, &target->poll.batches, link))
        poll_batch_forget(batch, job);
}

static void poll_split(struct interlink_poll *poll, const struct interlink_batch *batch)
{
    struct interlink_batch *halves[2] = { poll_batch_new(batch->count), poll_batch_new(batch->count) };

    for (size_t i = 0; i < batch->count; i++) {
        struct interlink_batch *half = halves[i >= (batch->count + 1) / 2];
        half->jobs[half->count++] = batch->jobs[i];
    }
    /* In front of older halves, so that the search goes to its end first. */
    list_append(poll->batches.next, &halves[0]->link);
    list_append(halves[0]->link.next, &halves[1]->link);
}

/* A remote target is asked for everything, since its one answer is kept whoever is asked for; a local one only for what
 * is about to change, and for everything at the steady pace. */
static struct interlink_batch *poll_gather(struct interlink_target *t, int64_t now)
{
    struct interlink_batch *batch = poll_batch_new(t->job_count);
    bool full = t->remote || now >= t->poll.full_ms;

    for (LIST_EACH(struct interlink_job, job, &t->jobs, link)) {
        if (!interlink_job_wants_status(job))
            continue;
        if (job->poison) {
            /* Alone, behind this batch; one at a time, so that many of them do not keep the others waiting. */
            if (job->poison_ms <= now && list_empty(&t->poll.batches)) {
                struct interlink_batch *alone = poll_batch_new(1);
                alone->jobs[alone->count++] = job;
                list_append(&t->poll.batches, &alone->link);
            }
        } else if (full || t->poll.soon || interlink_job_unsettled(job)) {
            batch->jobs[batch->count++] = job;
        }
    }
    if (full)
        t->poll.full_ms = now + t->steady_ms;
    return batch;
}

/* ---- when ---- */

/* The first words of a queue are asked for early: kubelet is waiting to tell them. */
static int64_t poll_pace(const struct interlink_target *t, const struct interlink_job *job)
{
    bool first = job->stage == INTERLINK_JOB_SUBMITTED && job->wire.n == 0;

    return first && t->poll_ms > INTERLINK_POLL_FIRST_MS ? INTERLINK_POLL_FIRST_MS : t->poll_ms;
}

static void poll_schedule(void *arg)
{
    struct interlink_target *t = arg;
    struct interlink_poll *poll = &t->poll;
    int64_t now = clock_mono_ms(), due = INT64_MAX;

    if (poll->call != NULL || poll->probe != NULL)
        return;
    if (!list_empty(&poll->batches))
        due = poll->allowed_ms;
    for (LIST_EACH(struct interlink_job, job, &t->jobs, link)) {
        if (!interlink_job_wants_status(job))
            continue;
        int64_t at = poll->full_ms;
        if (job->poison)
            at = job->poison_ms;
        else if (poll->soon)
            at = now;
        else if (interlink_job_unsettled(job) && (at <= now || at > now + poll_pace(t, job)))
            at = now + poll_pace(t, job);
        due = at < due ? at : due;
    }
    if (due == INT64_MAX) {
        timer_stop(&poll->timer);
        poll->soon = false;
        return;
    }
    due = due > poll->allowed_ms ? due : poll->allowed_ms;
    /* A timer that is due earlier stays: new jobs must not put it off for ever. */
    if (timer_running(&poll->timer) && poll->timer.due_ms <= due)
        return;
    timer_start(t->loop, &poll->timer, due > now ? due - now : 0, poll_run, t);
}

/* Looking at all jobs once for many that have changed, at the end of the turn. */
void interlink_poll_schedule(struct interlink_target *t)
{
    deferred_start(t->loop, &t->poll.schedule, poll_schedule, t);
}

void interlink_target_poll_soon(struct interlink_target *target)
{
    target->poll.soon = true;
    interlink_poll_schedule(target);
}

void interlink_poll_stop(struct interlink_target *target)
{
    struct interlink_poll *poll = &target->poll;

    timer_stop(&poll->timer);
    deferred_stop(&poll->schedule);
    interlink_call_cancel(poll->call);
    interlink_call_cancel(poll->probe);
    poll->call = poll->probe = NULL;
    poll_batch_free(poll->asked);
    poll->asked = NULL;
    poll_drop_batches(poll);
}

/* ---- answers ---- */

static void poll_finish(struct interlink_target *t, int64_t pause_ms)
{
    poll_batch_free(t->poll.asked);
    t->poll.asked = NULL;
    t->poll.allowed_ms = clock_mono_ms() + pause_ms;
    interlink_poll_schedule(t);
}

static int64_t poll_gap(const struct interlink_target *t)
{
    return t->remote ? INTERLINK_POLL_REMOTE_MS : INTERLINK_POLL_LOCAL_GAP_MS;
}

static void poll_failed(struct interlink_target *t, const struct status *err)
{
    t->health = *err;
    if (t->poll.failures++ == 0)
        log_warn("%s", err->message);
    poll_drop_batches(&t->poll);
    t->poll.full_ms = 0;
    int64_t pause = interlink_target_pause_ms(t, interlink_backoff_ms(t->poll.failures));
    poll_finish(t, pause > poll_gap(t) ? pause : poll_gap(t));
}

static void poll_answered(struct interlink_target *t, const struct interlink_pod_status *statuses, size_t count)
{
    struct interlink_batch *batch = t->poll.asked;
    cleanup_strmap struct strmap by_uid = STRMAP_INIT;

    if (t->poll.failures > 0)
        log_info("interLink at \"%s\" answers again", t->name);
    t->poll.failures = 0;
    t->health = (struct status)STATUS_INIT;
    for (size_t i = 0; i < count; i++)
        strmap_put(&by_uid, statuses[i].uid, (void *)(uintptr_t)&statuses[i]);
    /* Callbacks may free jobs: interlink_poll_forget() clears their entries. */
    for (size_t i = 0; i < batch->count; i++)
        if (batch->jobs[i] != NULL)
            interlink_job_apply(batch->jobs[i], strmap_get(&by_uid, batch->jobs[i]->uid));
    poll_finish(t, poll_gap(t));
}

/* The plugin is well, so it is the batch. */
static void poll_on_probe(void *arg, const struct interlink_answer *answer)
{
    struct interlink_target *t = arg;
    struct interlink_batch *batch = t->poll.asked;

    t->poll.probe = NULL;
    if (answer->err != NULL) {
        poll_failed(t, answer->err);
        return;
    }
    poll_batch_compact(batch);
    if (batch->count > 1)
        poll_split(&t->poll, batch);
    else if (batch->count == 1)
        interlink_job_poisoned(batch->jobs[0], &t->health);
    t->health = (struct status)STATUS_INIT;
    poll_finish(t, t->remote ? INTERLINK_POLL_SPLIT_MS : INTERLINK_POLL_LOCAL_GAP_MS);
}

static void poll_on_answer(void *arg, const struct interlink_answer *answer)
{
    struct interlink_target *t = arg;
    struct interlink_pod_status *statuses = NULL;
    size_t count = 0;
    struct status err = STATUS_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;

    t->poll.call = NULL;
    if (answer->err != NULL && answer->http_status >= 500 && !answer->put_off) {
        t->health = *answer->err;
        t->poll.probe = interlink_call_start(
            t, &(struct interlink_call_options){ .method = "GET", .path = "/pinglink", .timeout_ms = INTERLINK_PING_TIMEOUT_MS,
                                                 .on_answer = poll_on_probe, .arg = t });
        return;
    }
    if (answer->err != NULL) {
        poll_failed(t, answer->err);
        return;
    }
    /* "null" is no news; nothing at all is how the API server passes on an answer that was no JSON. */
    if (answer->body.n == 0)
        status_set(&err, STATUS_UNAVAILABLE, "interLink at \"%s\": the plugin's answer to /status is empty or no JSON",
                   t->name);
    else if (!interlink_statuses_read(&arena, answer->body, &statuses, &count, &err))
        status_prefix(&err, "interLink at \"%s\": malformed answer to /status", t->name);
    if (err.code != STATUS_OK)
        poll_failed(t, &err);
    else
        poll_answered(t, statuses, count);
}

/* ---- asking ---- */

static void poll_ask(struct interlink_target *t, struct interlink_batch *batch)
{
    cleanup_buf struct buf body = BUF_INIT;

    buf_append_byte(&body, '[');
    for (size_t i = 0; i < batch->count; i++) {
        struct interlink_job *job = batch->jobs[i];
        if (i > 0)
            buf_append_byte(&body, ',');
        buf_append(&body, job->pod.p, job->pod.n);
        /* Any other phase, and the API server answers from its cache for ever. */
        interlink_pod_write_close(&body, job->state.phase == INTERLINK_RUNNING ? "Running" : "Pending");
    }
    buf_append_byte(&body, ']');
    t->poll.asked = batch;
    t->poll.call = interlink_call_start(t, &(struct interlink_call_options){ .method = "GET", .path = "/status",
                                                                             .body = { (const char *)body.p, body.n },
                                                                             .timeout_ms = INTERLINK_STATUS_TIMEOUT_MS,
                                                                             .on_answer = poll_on_answer,
                                                                             .arg = t });
}

static void poll_run(void *arg)
{
    struct interlink_target *t = arg;
    struct interlink_batch *batch;

    if (!list_empty(&t->poll.batches)) {
        batch = CONTAINER_OF(t->poll.batches.next, struct interlink_batch, link);
        list_remove(&batch->link);
    } else {
        batch = poll_gather(t, clock_mono_ms());
        t->poll.soon = false;
    }
    poll_batch_compact(batch);
    if (batch->count > 0) {
        poll_ask(t, batch);
        return;
    }
    poll_batch_free(batch);
    interlink_poll_schedule(t);
}
