/* SPDX-License-Identifier: Apache-2.0 */
/* One squeue tells of all jobs. It is run when something may have changed: soon after a create, a cancel or a change, then less and
 * less often, and not at all while no job is in the queue or runs. */
#include "plugin/slurm.h"

static void slurm_poll_run(void *arg);
static void slurm_places_run(struct slurm *slurm);

/* ---- when ---- */

static bool slurm_poll_wanted_by(const struct slurm_job *job)
{
    return job->stage == SLURM_LOOKING || job->stage == SLURM_QUEUED || job->stage == SLURM_RUNNING ||
           job->stage == SLURM_ENDING;
}

/* Somebody waits: for the answer whether there is such a job, or for its end. */
static bool slurm_poll_urgent(const struct slurm *slurm)
{
    for (LIST_EACH(struct slurm_job, job, &slurm->jobs, link))
        if (job->stage == SLURM_LOOKING || job->stage == SLURM_ENDING)
            return true;
    return false;
}

static bool slurm_poll_wanted(const struct slurm *slurm)
{
    for (LIST_EACH(struct slurm_job, job, &slurm->jobs, link))
        if (slurm_poll_wanted_by(job))
            return true;
    return false;
}

/* Not before delay_ms after the last one began. */
static void slurm_poll_schedule(struct slurm *slurm, int64_t delay_ms)
{
    int64_t now = clock_mono_ms();
    int64_t due = slurm->poll_started_ms == 0 ? 0 : slurm->poll_started_ms + delay_ms - now;

    due = due < 0 ? 0 : due;
    if (timer_running(&slurm->poll_timer) && slurm->poll_timer.due_ms <= now + due)
        return;
    timer_start(slurm->loop, &slurm->poll_timer, due, slurm_poll_run, slurm);
}

void slurm_poll_soon(struct slurm *slurm)
{
    slurm->poll_changed_ms = clock_mono_ms();
    slurm->poll_interval_ms = slurm->config.poll_min_ms;
    slurm_poll_schedule(slurm, slurm->config.poll_min_ms);
}

void slurm_poll_demand(struct slurm *slurm)
{
    int64_t demand = slurm->config.poll_min_ms > SLURM_POLL_DEMAND_MS ? slurm->config.poll_min_ms : SLURM_POLL_DEMAND_MS;

    if (slurm->poll_interval_ms > demand && clock_mono_ms() - slurm->poll_changed_ms < SLURM_POLL_LATELY_MS)
        slurm_poll_schedule(slurm, demand);
}

void slurm_poll_stop(struct slurm *slurm)
{
    timer_stop(&slurm->poll_timer);
    slurm_command_forget(&slurm->squeue);
    slurm_command_forget(&slurm->places);
}

/* ---- what it says of one job ---- */

static bool slurm_info_equal(const struct slurm_info *a, const struct slurm_info *b)
{
    return a->state_class == b->state_class && a->start_ns == b->start_ns && a->end_ns == b->end_ns &&
           a->limit_seconds == b->limit_seconds && a->restarts == b->restarts && a->priority == b->priority &&
           a->exit_code == b->exit_code && a->signal == b->signal && strcmp(a->state, b->state) == 0 &&
           strcmp(a->partition, b->partition) == 0 && strcmp(a->nodes, b->nodes) == 0 && strcmp(a->reason, b->reason) == 0 &&
           strcmp(a->cancelled_by, b->cancelled_by) == 0;
}

static void slurm_info_keep(struct slurm_job *job, const struct slurm_info *info)
{
    struct arena arena = ARENA_INIT;
    struct slurm_info copy = *info;

    copy.state = arena_strdup(&arena, info->state);
    copy.partition = arena_strdup(&arena, info->partition);
    copy.nodes = arena_strdup(&arena, info->nodes);
    copy.reason = arena_strdup(&arena, info->reason);
    copy.name = "";
    copy.cancelled_by = arena_strdup(&arena, info->cancelled_by);
    arena_free(&job->arena);
    job->arena = arena;
    job->info = copy;
}

static void slurm_poll_pending(struct slurm_job *job)
{
    job->started_ns = 0;
    if (job->stage != SLURM_RUNNING)
        return;
    log_info("Slurm job %s (%s/%s) was requeued: %s", job->jid, job->namespace_, job->name,
             *job->info.reason != '\0' ? job->info.reason : job->info.state);
    slurm_move(job, SLURM_QUEUED);
}

static void slurm_poll_running(struct slurm_job *job)
{
    if (job->info.start_ns != 0)
        job->started_ns = job->info.start_ns;
    if (job->info.state_class == SLURM_CLASS_COMPLETING && job->completing_ms == 0)
        job->completing_ms = clock_mono_ms();
    /* What is COMPLETING without having been seen to run ends, or waits again: it was requeued. */
    if (job->stage != SLURM_QUEUED || job->info.state_class == SLURM_CLASS_COMPLETING)
        return;
    log_info("Slurm job %s (%s/%s) runs on %s", job->jid, job->namespace_, job->name, job->info.nodes);
    slurm_move(job, SLURM_RUNNING);
}

void slurm_poll_apply(struct slurm_job *job, const struct slurm_info *info)
{
    bool state_changed = !job->seen || strcmp(job->info.state, info->state) != 0 || job->info.restarts != info->restarts;

    if (job->stage == SLURM_ENDED || job->stage == SLURM_REMOVING)
        return;
    if (info->state_class == SLURM_CLASS_UNKNOWN) {
        if (state_changed)
            log_warn("Slurm job %s: its state \"%.40s\" is not known here", job->jid, info->state);
        slurm_info_keep(job, info);
        job->seen = true;
        return;
    }
    if (state_changed || !slurm_info_equal(&job->info, info))
        slurm_info_keep(job, info);
    if (state_changed)
        slurm_poll_soon(job->slurm);
    job->seen = true;
    if (info->state_class != SLURM_CLASS_COMPLETING)
        job->completing_ms = 0;
    switch (info->state_class) {
    case SLURM_CLASS_PENDING:
    case SLURM_CLASS_CONFIGURING:
        slurm_poll_pending(job);
        break;
    case SLURM_CLASS_RUNNING:
    case SLURM_CLASS_COMPLETING:
        slurm_poll_running(job);
        break;
    case SLURM_CLASS_ENDED:
        slurm_end_reached(job);
        return;
    case SLURM_CLASS_UNKNOWN:
        break;
    }
    if (job->stage == SLURM_ENDING)
        slurm_cancel_go_on(job);
}

/* ---- what it says of all ---- */

/* A list with a fast way to one job, by its number or by the uid at the end of its name. */
struct slurm_listing {
    struct arena arena;
    struct strmap by_id, by_uid;
};

static void slurm_listing_free(struct slurm_listing *l)
{
    strmap_free(&l->by_id);
    strmap_free(&l->by_uid);
    arena_free(&l->arena);
}

static void slurm_listing_read(struct slurm_listing *l, struct str text)
{
    struct str line;

    while (slurm_next_line(&text, &line)) {
        struct slurm_info *info = ARENA_NEW(&l->arena, struct slurm_info);
        char id[16];
        if (!slurm_squeue_line(&l->arena, line, info))
            continue;
        snprintf(id, sizeof id, "%" PRIu32, info->job_id);
        strmap_put(&l->by_id, id, info);
        const char *dot = strrchr(info->name, '.');
        /* A submission that was refused can leave a job that never had a node. */
        if (dot == NULL || (info->state_class == SLURM_CLASS_ENDED && *info->nodes == '\0'))
            continue;
        const struct slurm_info *other = strmap_get(&l->by_uid, dot + 1);
        if (other == NULL || other->job_id < info->job_id)
            strmap_put(&l->by_uid, dot + 1, info);
    }
}

/* A job that became known after this query had begun may be missing in its answer. */
static void slurm_poll_job(struct slurm_job *job, const struct slurm_listing *l, uint64_t poll)
{
    const struct slurm_info *info =
        job->job_id != 0 ? strmap_get(&l->by_id, job->jid) : strmap_get(&l->by_uid, job->uid);

    if (info != NULL && job->job_id == 0) {
        if (slurm_command_busy(&job->command))
            return; /* its sbatch will say so itself */
        slurm_submit_found(job, info->job_id);
        return; /* the next answer tells more */
    }
    if (info != NULL)
        slurm_poll_apply(job, info);
    else if (job->since >= poll)
        return;
    else if (job->job_id != 0)
        slurm_end_resolve(job);
    else if (!slurm_command_busy(&job->command))
        slurm_submit_not_found(job, NULL);
}

static void slurm_poll_failed(struct slurm *slurm, const struct status *err)
{
    if (slurm->trouble_since_ms == 0) {
        log_warn("Slurm does not answer: %s", err->message);
        slurm->trouble_since_ms = clock_mono_ms();
    }
    slurm->trouble = *err;
    for (LIST_EACH_SAFE(struct slurm_job, job, &slurm->jobs, link))
        if (job->job_id == 0 && job->stage == SLURM_LOOKING)
            slurm_submit_not_found(job, err);
}

static void slurm_poll_answered(struct slurm *slurm, struct str output, uint64_t poll)
{
    struct slurm_listing l = { .arena = ARENA_INIT };

    if (slurm->trouble_since_ms != 0) {
        log_info("Slurm answers again");
        slurm->trouble_since_ms = 0;
        slurm->poll_changed_ms = clock_mono_ms();
        slurm->poll_interval_ms = slurm->config.poll_min_ms;
    }
    slurm_listing_read(&l, output);
    for (LIST_EACH_SAFE(struct slurm_job, job, &slurm->jobs, link))
        if (slurm_poll_wanted_by(job))
            slurm_poll_job(job, &l, poll);
    slurm_listing_free(&l);
}

static void slurm_poll_on_answer(void *arg, const struct slurm_answer *answer)
{
    struct slurm *slurm = arg;

    int64_t changed_ms = slurm->poll_changed_ms;
    if (answer->err != NULL)
        slurm_poll_failed(slurm, answer->err);
    else
        slurm_poll_answered(slurm, answer->output, slurm->poll_count);
    if (slurm->poll_changed_ms == changed_ms && slurm->poll_interval_ms < slurm->config.poll_max_ms)
        slurm->poll_interval_ms = slurm->poll_interval_ms * 2 < slurm->config.poll_max_ms ? slurm->poll_interval_ms * 2
                                                                                         : slurm->config.poll_max_ms;
    if (!slurm_poll_wanted(slurm)) {
        timer_stop(&slurm->poll_timer);
        return;
    }
    bool urgent = slurm->poll_interval_ms > SLURM_POLL_DEMAND_MS && slurm_poll_urgent(slurm);
    slurm_poll_schedule(slurm, urgent ? SLURM_POLL_DEMAND_MS : slurm->poll_interval_ms);
    if (answer->err == NULL)
        slurm_places_run(slurm);
}

static void slurm_poll_run(void *arg)
{
    struct slurm *slurm = arg;
    static const char *const arguments[] = { "--noheader", "--me", "--states=all", SLURM_SQUEUE_FORMAT, NULL };

    timer_stop(&slurm->poll_timer);
    if (slurm_command_busy(&slurm->squeue) || !slurm_poll_wanted(slurm))
        return;
    slurm->poll_started_ms = clock_mono_ms();
    slurm->poll_count++;
    slurm_command_start(&slurm->commands, &slurm->squeue, SLURM_SQUEUE, arguments, -1, slurm_poll_on_answer, slurm);
}

/* ---- the order of the queue ---- */

static void slurm_places_on_answer(void *arg, const struct slurm_answer *answer)
{
    struct slurm *slurm = arg;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct str rest = answer->output, line;
    size_t count = 0, lines = 0;

    if (answer->err != NULL)
        return;
    for (size_t i = 0; i < rest.n; i++)
        lines += rest.p[i] == '\n';
    struct slurm_place *places = ARENA_ARRAY(&arena, struct slurm_place, lines + 1);
    while (count < lines && slurm_next_line(&rest, &line))
        count += slurm_place_line(&arena, line, &places[count]);
    slurm_places_sort(places, count);
    for (LIST_EACH(struct slurm_job, job, &slurm->jobs, link))
        if (job->stage == SLURM_QUEUED && job->seen)
            job->ahead = slurm_places_ahead(places, count, &job->info);
}

/* Asked for a job that waits its turn and does not know its place, else now and then. */
static void slurm_places_run(struct slurm *slurm)
{
    static const char *const arguments[] = { "--noheader", "--states=PENDING", SLURM_PLACE_FORMAT, NULL };
    int64_t now = clock_mono_ms();
    bool queued = false, new_one = false;

    for (LIST_EACH(const struct slurm_job, job, &slurm->jobs, link)) {
        bool waits = job->stage == SLURM_QUEUED && job->seen && job->info.state_class == SLURM_CLASS_PENDING;
        queued = queued || waits;
        new_one = new_one || (waits && job->ahead == SIZE_MAX);
    }
    int64_t pause = new_one ? SLURM_POLL_DEMAND_MS : SLURM_PLACES_MS;
    if (!slurm->config.position || !queued || slurm_command_busy(&slurm->places) ||
        (slurm->places_ms != 0 && now - slurm->places_ms < pause))
        return;
    slurm->places_ms = now;
    slurm_command_start(&slurm->commands, &slurm->places, SLURM_SQUEUE, arguments, -1, slurm_places_on_answer, slurm);
}
