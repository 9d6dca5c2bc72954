/* SPDX-License-Identifier: Apache-2.0 */
#include "interlink/target.h"

static void job_cancel_try(void *arg);

/* ---- stages ---- */

static const char *job_stage_name(enum interlink_job_stage stage)
{
    static const char *const names[] = { "NEW",      "SUBMITTING", "UNSURE",    "SUBMITTED",
                                         "REJECTED", "CANCELLING", "CANCELLED", "GONE" };

    return names[stage];
}

/* The arrows of interlink.h. */
static bool job_may_move(enum interlink_job_stage from, enum interlink_job_stage to)
{
    switch (to) {
    case INTERLINK_JOB_SUBMITTING:
        return from == INTERLINK_JOB_NEW || from == INTERLINK_JOB_REJECTED;
    case INTERLINK_JOB_UNSURE:
        return from == INTERLINK_JOB_SUBMITTING || from == INTERLINK_JOB_NEW;
    case INTERLINK_JOB_SUBMITTED:
        return from == INTERLINK_JOB_SUBMITTING || from == INTERLINK_JOB_UNSURE || from == INTERLINK_JOB_NEW;
    case INTERLINK_JOB_REJECTED:
        return from == INTERLINK_JOB_SUBMITTING || from == INTERLINK_JOB_UNSURE;
    case INTERLINK_JOB_CANCELLING:
        return from != INTERLINK_JOB_CANCELLING && from != INTERLINK_JOB_CANCELLED;
    case INTERLINK_JOB_CANCELLED:
        return from == INTERLINK_JOB_CANCELLING;
    case INTERLINK_JOB_GONE:
        return from == INTERLINK_JOB_SUBMITTED;
    case INTERLINK_JOB_NEW:
        break;
    }
    return false;
}

static bool job_move(struct interlink_job *job, enum interlink_job_stage to)
{
    if (!job_may_move(job->stage, to)) {
        log_error("interLink job %s (%s): a move from %s to %s was refused", job->uid, job->name,
                  job_stage_name(job->stage), job_stage_name(to));
        return false;
    }
    log_debug("interLink job %s (%s): %s -> %s", job->uid, job->name, job_stage_name(job->stage), job_stage_name(to));
    job->stage = to;
    return true;
}

enum interlink_job_stage interlink_job_stage(const struct interlink_job *job)
{
    return job->stage;
}

const struct interlink_job_state *interlink_job_state(const struct interlink_job *job)
{
    return &job->state;
}

const struct status *interlink_job_error(const struct interlink_job *job)
{
    return &job->error;
}

/* ---- life ---- */

static void job_reset_state(struct interlink_job *job)
{
    job->state = (struct interlink_job_state){ .reason = "", .message = "", .jid = "", .nodes = "" };
}

struct interlink_job *interlink_job_new(struct interlink_target *target, const struct interlink_create *create,
                                        const struct interlink_job_events *events, void *arg)
{
    struct interlink_job *job = xcalloc(1, sizeof *job);

    job->target = target;
    job->events = events;
    job->arg = arg;
    job->grace_seconds = -1;
    snprintf(job->uid, sizeof job->uid, "%s", create->pod.uid);
    job->name = xasprintf("%s/%s", create->pod.namespace_, create->pod.name);
    interlink_pod_write_open(&job->pod, &create->pod);
    interlink_create_write(&job->create, create);
    job_reset_state(job);
    list_append(&target->jobs, &job->link);
    target->job_count++;
    return job;
}

void interlink_job_free(struct interlink_job *job)
{
    if (job == NULL)
        return;
    if (job->freed != NULL)
        *job->freed = true;
    interlink_poll_forget(job->target, job);
    interlink_call_cancel(job->call);
    timer_stop(&job->timer);
    deferred_stop(&job->deferred);
    list_remove(&job->link);
    job->target->job_count--;
    interlink_poll_schedule(job->target);
    free(job->name);
    buf_free(&job->pod);
    buf_free(&job->create);
    buf_free(&job->jid);
    buf_free(&job->wire);
    arena_free(&job->arena);
    free(job);
}

bool interlink_job_wants_status(const struct interlink_job *job)
{
    return job->stage == INTERLINK_JOB_UNSURE ||
           (job->stage == INTERLINK_JOB_SUBMITTED && job->state.phase != INTERLINK_TERMINATED);
}

bool interlink_job_unsettled(const struct interlink_job *job)
{
    return job->stage == INTERLINK_JOB_UNSURE || job->state.phase != INTERLINK_RUNNING;
}

/* ---- submitting ---- */

static void job_cancelled(void *arg)
{
    struct interlink_job *job = arg;

    if (job->stage != INTERLINK_JOB_CANCELLED)
        job_move(job, INTERLINK_JOB_CANCELLED);
    if (job->on_cancelled != NULL)
        job->on_cancelled(job->cancel_arg);
}

/* Starts the cancel that waited for the create's answer. */
static bool job_cancel_waiting(struct interlink_job *job)
{
    if (!job->cancel_wanted)
        return false;
    job_move(job, INTERLINK_JOB_CANCELLING);
    job_cancel_try(job);
    return true;
}

static void job_submitted(struct interlink_job *job, const char *jid)
{
    if (!job_move(job, INTERLINK_JOB_SUBMITTED))
        return;
    job->unknown_answers = job->missing_answers = 0;
    buf_clear(&job->jid);
    buf_append_str(&job->jid, jid);
    job->state.jid = buf_cstr(&job->jid);
    buf_free(&job->create);
    interlink_poll_schedule(job->target);
    if (!job_cancel_waiting(job))
        job->events->on_submitted(job->arg, job->state.jid);
}

static void job_rejected(struct interlink_job *job, const struct status *err)
{
    if (!job_move(job, INTERLINK_JOB_REJECTED))
        return;
    job->error = *err;
    interlink_poll_schedule(job->target);
    if (!job->cancel_wanted) {
        job->events->on_rejected(job->arg, err);
        return;
    }
    job_move(job, INTERLINK_JOB_CANCELLING);
    job_cancelled(job);
}

/* No answer that settles it: ask the target's status from now on. `settle_ms`: how long the create may still come into
 * effect. A cancel does not wait for that: it sends deletes until then. */
static void job_unsure(struct interlink_job *job, const struct status *err, int64_t settle_ms)
{
    if (!job_move(job, INTERLINK_JOB_UNSURE))
        return;
    job->error = *err;
    job->settled_ms = clock_mono_ms() + settle_ms;
    job->unknown_answers = job->missing_answers = 0;
    log_warn("pod %s: %s; its status decides whether it is sent again", job->name, err->message);
    if (!job_cancel_waiting(job))
        interlink_poll_schedule(job->target);
}

static int64_t job_settle_ms(const struct interlink_job *job)
{
    return job->target->remote ? INTERLINK_CREATE_TIMEOUT_MS : 0;
}

static void job_on_created(void *arg, const struct interlink_answer *answer)
{
    struct interlink_job *job = arg;
    struct interlink_created created;
    struct status err = STATUS_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;

    job->call = NULL;
    if (answer->err == NULL) {
        if (interlink_created_read(&arena, answer->body, &created, &err) && created.uid[0] != '\0') {
            job_submitted(job, created.jid);
            return;
        }
        status_set(&err, STATUS_UNAVAILABLE, "interLink at \"%s\" answered the create without naming a job",
                   job->target->name);
        job_unsure(job, &err, 0);
    } else if (answer->http_status / 100 == 2) {
        /* A success of a kind that API servers do not have: whoever said so may have made the job. */
        job_unsure(job, answer->err, 0);
    } else if (!answer->sent || (answer->http_status > 0 && answer->http_status < 500) || answer->told || answer->put_off) {
        /* Never sent, refused, put off, or failed in the plugin's own words. */
        job_rejected(job, answer->err);
    } else if (answer->http_status == 500) {
        /* The API server's own: it has given up on its plugin, which may or may not have started something. */
        job_unsure(job, answer->err, 0);
    } else {
        /* A gateway's time-out or a broken connection: the API server may still be at it. */
        job_unsure(job, answer->err, job_settle_ms(job));
    }
}

void interlink_job_submit(struct interlink_job *job)
{
    if (!job_move(job, INTERLINK_JOB_SUBMITTING))
        return;
    job_reset_state(job);
    buf_clear(&job->wire);
    job->call = interlink_call_start(
        job->target, &(struct interlink_call_options){ .method = "POST", .path = "/create",
                                                       .body = { (const char *)job->create.p, job->create.n },
                                                       .timeout_ms = INTERLINK_CREATE_TIMEOUT_MS,
                                                       .on_answer = job_on_created,
                                                       .arg = job });
}

void interlink_job_adopt(struct interlink_job *job, const char *jid, bool confirmed, int64_t age_ms)
{
    struct status err = STATUS_INIT;

    if (!job_move(job, confirmed ? INTERLINK_JOB_SUBMITTED : INTERLINK_JOB_UNSURE))
        return;
    if (confirmed) {
        buf_append_str(&job->jid, jid);
        job->state.jid = buf_cstr(&job->jid);
        buf_free(&job->create);
    } else {
        status_set(&err, STATUS_UNAVAILABLE, "it is not known whether interLink at \"%s\" has taken the pod",
                   job->target->name);
        job->error = err;
        job->settled_ms = clock_mono_ms() + (age_ms < job_settle_ms(job) ? job_settle_ms(job) - age_ms : 0);
    }
    /* Whoever waits for it hears again what the queue says, not only after a round of polling. */
    interlink_target_poll_soon(job->target);
}

/* ---- states ---- */

static struct interlink_container_state *job_copy_states(struct arena *arena,
                                                         const struct interlink_container_state *from, size_t count)
{
    struct interlink_container_state *to = ARENA_ARRAY(arena, struct interlink_container_state, count + 1);

    for (size_t i = 0; i < count; i++) {
        to[i] = from[i];
        to[i].name = arena_strdup(arena, from[i].name);
        to[i].reason = arena_strdup(arena, from[i].reason);
        to[i].message = arena_strdup(arena, from[i].message);
        to[i].image = arena_strdup(arena, from[i].image);
        to[i].image_id = arena_strdup(arena, from[i].image_id);
        to[i].last = NULL; /* of its answer, which goes */
    }
    return to;
}

/* The whole job's phase and the container that decides it. */
static const struct interlink_container_state *job_decide(const struct interlink_pod_status *s,
                                                          enum interlink_phase *phase)
{
    const struct interlink_container_state *of[INTERLINK_GONE] = { NULL, NULL, NULL, NULL };
    const struct interlink_container_state *failed = NULL;

    for (size_t i = 0; i < s->container_count; i++) {
        const struct interlink_container_state *c = &s->containers[i];
        if (of[c->phase] == NULL)
            of[c->phase] = c;
        if (failed == NULL && c->phase == INTERLINK_TERMINATED && c->exit_code != 0)
            failed = c;
    }
    for (size_t i = 0; i < s->init_container_count; i++)
        if (s->init_containers[i].phase == INTERLINK_RUNNING && of[INTERLINK_RUNNING] == NULL)
            of[INTERLINK_RUNNING] = &s->init_containers[i];
    *phase = INTERLINK_UNKNOWN;
    if (of[INTERLINK_RUNNING] != NULL || (of[INTERLINK_TERMINATED] != NULL && of[INTERLINK_WAITING] != NULL))
        *phase = INTERLINK_RUNNING;
    else if (of[INTERLINK_TERMINATED] != NULL)
        *phase = INTERLINK_TERMINATED;
    else if (of[INTERLINK_WAITING] != NULL)
        *phase = INTERLINK_WAITING;
    if (*phase == INTERLINK_TERMINATED && failed != NULL)
        return failed;
    return of[*phase] != NULL ? of[*phase] : of[INTERLINK_TERMINATED];
}

static void job_tell(struct interlink_job *job)
{
    interlink_poll_schedule(job->target);
    job->events->on_state(job->arg, &job->state);
}

static void job_set_state(struct interlink_job *job, const struct interlink_pod_status *s, enum interlink_phase phase,
                          const struct interlink_container_state *by)
{
    struct arena arena = ARENA_INIT;
    struct interlink_job_state state = { .phase = phase, .reason = "", .message = "", .nodes = arena_strdup(&arena, s->nodes) };

    state.containers = job_copy_states(&arena, s->containers, s->container_count);
    state.container_count = s->container_count;
    state.init_containers = job_copy_states(&arena, s->init_containers, s->init_container_count);
    state.init_container_count = s->init_container_count;
    if (by != NULL) {
        state.reason = arena_strdup(&arena, by->reason);
        state.message = arena_strdup(&arena, by->message);
        state.exit_code = by->exit_code;
        state.started_ns = by->started_ns;
        state.finished_ns = by->finished_ns;
    }
    if (s->jid[0] != '\0') {
        buf_clear(&job->jid);
        buf_append_str(&job->jid, s->jid);
    }
    state.jid = buf_cstr(&job->jid);
    arena_free(&job->arena);
    job->arena = arena;
    job->state = state;
}

/* The pod as it was created, with the grace period of this delete (below 0: its own). */
static void job_write_delete(struct interlink_job *job, int64_t grace_seconds, struct buf *out)
{
    struct interlink_pod pod;
    struct status err = STATUS_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;

    buf_append(&text, job->pod.p, job->pod.n);
    interlink_pod_write_close(&text, "Running");
    if (grace_seconds < 0 ||
        !interlink_pod_read(&arena, (struct str){ (const char *)text.p, text.n }, &pod, &err)) {
        buf_append(out, text.p, text.n);
        return;
    }
    pod.deletion_grace_seconds = grace_seconds;
    interlink_pod_write(out, &pod);
}

static void job_on_swept(void *arg, const struct interlink_answer *answer)
{
    struct interlink_job *job = arg;
    struct status err = job->error;

    job->call = NULL;
    /* 200: it was there after all; 404 and a bare 500: it was not. Anything else: the next answer tries again. */
    if (answer->http_status == 200 || answer->http_status == 404 || answer->http_status == 500)
        job_rejected(job, &err);
}

/* The pod was never named in any answer: whatever may be there under its uid goes before it is created again. */
static void job_sweep(struct interlink_job *job)
{
    cleanup_buf struct buf body = BUF_INIT;

    if (job->call != NULL)
        return;
    job_write_delete(job, 0, &body);
    job->call = interlink_call_start(job->target,
                                     &(struct interlink_call_options){ .method = "DELETE", .path = "/delete",
                                                                       .body = { (const char *)body.p, body.n },
                                                                       .timeout_ms = INTERLINK_DELETE_TIMEOUT_MS,
                                                                       .on_answer = job_on_swept,
                                                                       .arg = job });
}

static void job_gone(struct interlink_job *job)
{
    job_move(job, INTERLINK_JOB_GONE);
    job->state.phase = INTERLINK_GONE;
    job->state.reason = "";
    job->state.message = "the site does not know the job any more";
    job_tell(job);
}

/* The site does not know it, or says so without words: not at once, since the answer may be older than the create. */
static void job_apply_unknown(struct interlink_job *job, bool missing)
{
    if (missing)
        job->missing_answers++;
    else
        job->unknown_answers++;
    if (job->stage == INTERLINK_JOB_SUBMITTED) {
        /* A missing pod is no news; only a plain "nothing known" counts. */
        if (job->unknown_answers < INTERLINK_GONE_ANSWERS)
            return;
        job_gone(job);
        return;
    }
    if (clock_mono_ms() < job->settled_ms || job->unknown_answers + job->missing_answers < INTERLINK_GONE_ANSWERS)
        return;
    struct status err = job->error;
    job->error.code = err.code = STATUS_UNAVAILABLE;
    if (job->unknown_answers == 0)
        job_sweep(job);
    else
        job_rejected(job, &err);
}

/* Whether an end is to be believed: not at once when the site is remote, the job was never seen to run, and the end is a
 * success without a beginning. To take a job that has yet to start for one that succeeded would be worse than waiting. */
static bool job_end_doubtful(struct interlink_job *job, enum interlink_phase phase,
                             const struct interlink_container_state *by)
{
    int64_t now = clock_mono_ms();

    if (!job->target->remote || job->believed || phase != INTERLINK_TERMINATED || job->state.phase == INTERLINK_RUNNING ||
        by->exit_code != 0 || by->started_ns != 0) {
        job->doubt_ms = 0;
        return false;
    }
    if (job->doubt_ms == 0)
        job->doubt_ms = now;
    return now - job->doubt_ms < INTERLINK_END_DOUBT_MS;
}

void interlink_job_give(struct interlink_job *job, void *arg)
{
    job->arg = arg;
}

void interlink_job_believe(struct interlink_job *job)
{
    job->believed = true;
    interlink_target_poll_soon(job->target);
}

void interlink_job_apply(struct interlink_job *job, const struct interlink_pod_status *s)
{
    enum interlink_phase phase = INTERLINK_UNKNOWN;
    cleanup_buf struct buf wire = BUF_INIT;
    bool freed = false;

    if (!interlink_job_wants_status(job))
        return;
    const struct interlink_container_state *by = s != NULL ? job_decide(s, &phase) : NULL;
    job->poison = false;
    if (phase == INTERLINK_UNKNOWN) {
        job_apply_unknown(job, s == NULL);
        return;
    }
    job->unknown_answers = job->missing_answers = 0;
    if (job->stage == INTERLINK_JOB_UNSURE) {
        job->freed = &freed;
        job_submitted(job, s->jid);
        if (freed)
            return;
        job->freed = NULL;
        if (job->stage != INTERLINK_JOB_SUBMITTED)
            return;
    }
    if (job_end_doubtful(job, phase, by)) {
        if (job->events->on_doubt != NULL)
            job->events->on_doubt(job->arg);
        return;
    }
    interlink_statuses_write(&wire, s, 1);
    if (wire.n == job->wire.n && memcmp(wire.p, job->wire.p, wire.n) == 0)
        return;
    buf_clear(&job->wire);
    buf_append(&job->wire, wire.p, wire.n);
    job_set_state(job, s, phase, by);
    job_tell(job);
}

/* The stock Slurm plugin asks squeue of all jobs first, then of each. It says this when the first went well, Slurm does not know
 * the job any more, and the job left no exit code: it was killed, and nobody looked while Slurm remembered. */
static bool job_forgotten(const struct status *err)
{
    return strstr(err->message, "unable to retrieve container status") != NULL;
}

void interlink_job_poisoned(struct interlink_job *job, const struct status *err)
{
    bool first = !job->poison;

    job->poison = true;
    job->poison_ms = clock_mono_ms() + INTERLINK_POISON_RETRY_MS;
    if (!job_forgotten(err)) {
        job->unknown_answers = 0;
    } else if (job->stage == INTERLINK_JOB_SUBMITTED && ++job->unknown_answers >= INTERLINK_GONE_ANSWERS) {
        job_gone(job);
        return;
    }
    if (!first || job->stage != INTERLINK_JOB_SUBMITTED)
        return;
    log_warn("pod %s: the plugin fails on its status: %s", job->name, err->message);
    arena_free(&job->arena);
    buf_clear(&job->wire);
    job_reset_state(job);
    job->state.jid = buf_cstr(&job->jid);
    job->state.message = arena_strdup(&job->arena, err->message);
    job_tell(job);
}

/* ---- cancelling ---- */

static void job_cancel_later(struct interlink_job *job, const struct status *err, int64_t delay_ms)
{
    job->error = *err;
    job->probed = false;
    timer_start(job->target->loop, &job->timer, interlink_target_pause_ms(job->target, delay_ms), job_cancel_try, job);
    if (job->on_retry != NULL)
        job->on_retry(job->cancel_arg, &job->error);
}

/* The plugin does not know the uid. That is the end, unless a create without an answer may still come into effect. */
static void job_cancel_unknown(struct interlink_job *job, const struct status *err)
{
    int64_t left = job->settled_ms - clock_mono_ms();

    if (left <= 0)
        job_cancelled(job);
    else
        job_cancel_later(job, err, left < INTERLINK_POLL_REMOTE_MS ? left : INTERLINK_POLL_REMOTE_MS);
}

static void job_on_cancel_probe(void *arg, const struct interlink_answer *answer)
{
    struct interlink_job *job = arg;

    job->call = NULL;
    if (answer->err != NULL) {
        job_cancel_later(job, answer->err, interlink_backoff_ms(job->attempts++));
        return;
    }
    job->probed = true;
    job_cancel_try(job);
}

static void job_on_deleted(void *arg, const struct interlink_answer *answer)
{
    struct interlink_job *job = arg;

    job->call = NULL;
    if (answer->err == NULL) {
        job_cancelled(job);
    } else if (answer->http_status == 404) {
        job_cancel_unknown(job, answer->err);
    } else if (answer->http_status == 500 && !answer->told && job->probed) {
        /* 500 without a word, before and after a ping that was answered: the uid is unknown there. */
        job_cancel_unknown(job, answer->err);
    } else if (answer->http_status == 500 && !answer->told) {
        /* Either the uid is unknown or the plugin is down. */
        job->call = interlink_call_start(
            job->target, &(struct interlink_call_options){ .method = "GET", .path = "/pinglink",
                                                           .timeout_ms = INTERLINK_PING_TIMEOUT_MS,
                                                           .on_answer = job_on_cancel_probe,
                                                           .arg = job });
    } else {
        job_cancel_later(job, answer->err, interlink_backoff_ms(job->attempts++));
    }
}

static void job_cancel_try(void *arg)
{
    struct interlink_job *job = arg;
    cleanup_buf struct buf body = BUF_INIT;
    int64_t grace = job->grace_seconds >= 0 ? job->grace_seconds : 0;

    timer_stop(&job->timer);
    interlink_call_cancel(job->call);
    job_write_delete(job, job->grace_seconds, &body);
    job->call = interlink_call_start(
        job->target, &(struct interlink_call_options){ .method = "DELETE", .path = "/delete",
                                                       .body = { (const char *)body.p, body.n },
                                                       .timeout_ms = grace * 1000 + INTERLINK_DELETE_TIMEOUT_MS,
                                                       .on_answer = job_on_deleted,
                                                       .arg = job });
}

void interlink_job_cancel(struct interlink_job *job, int64_t grace_seconds, void (*on_done)(void *arg),
                          void (*on_retry)(void *arg, const struct status *err), void *arg)
{
    job->grace_seconds = grace_seconds;
    job->on_cancelled = on_done;
    job->on_retry = on_retry;
    job->cancel_arg = arg;
    job->cancel_wanted = true;
    switch (job->stage) {
    case INTERLINK_JOB_NEW:
    case INTERLINK_JOB_REJECTED:
        job_move(job, INTERLINK_JOB_CANCELLING);
        deferred_start(job->target->loop, &job->deferred, job_cancelled, job);
        break;
    case INTERLINK_JOB_CANCELLED:
        deferred_start(job->target->loop, &job->deferred, job_cancelled, job);
        break;
    case INTERLINK_JOB_SUBMITTING: /* goes on when the create is answered, if it was sent at all */
        if (!interlink_call_waits(job->call))
            break;
        interlink_call_cancel(job->call);
        job->call = NULL;
        job_move(job, INTERLINK_JOB_CANCELLING);
        deferred_start(job->target->loop, &job->deferred, job_cancelled, job);
        break;
    case INTERLINK_JOB_CANCELLING:
        /* Again with another grace period; but not while it is about to be over. */
        if (job->deferred.loop == NULL)
            job_cancel_try(job);
        break;
    case INTERLINK_JOB_UNSURE:
    case INTERLINK_JOB_SUBMITTED:
    case INTERLINK_JOB_GONE:
        job_move(job, INTERLINK_JOB_CANCELLING);
        interlink_poll_schedule(job->target);
        job_cancel_try(job);
        break;
    }
}
