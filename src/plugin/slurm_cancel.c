/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a job whose pod is deleted. One that waits is taken out of the queue. One that runs is told through its script, which
 * passes it on to the agent: TERM, and after the grace period KILL, both to the containers and in order; only then Slurm is told to
 * do away with it. Each step is repeated until Slurm says that the job is over. */
#include "plugin/slurm.h"

#include <unistd.h>

#include "io/userns.h"
#include "plugin/backend_common.h"

/* Folders that one worker clears away; more wait for the next. */
#define SLURM_PURGE_BATCH 64
/* After a removal that did not succeed. On NFS a file that is open elsewhere goes only later. */
#define SLURM_PURGE_RETRY_MS 5000

static void slurm_cancel_on_timer(void *arg);

/* ---- one step ---- */

static void slurm_cancel_on_answer(void *arg, const struct slurm_answer *answer)
{
    struct slurm_job *job = arg;

    if (answer->err != NULL && !slurm_error_no_job(answer->err->message))
        log_warn("Slurm job %s cannot be cancelled yet: %s", job->jid, answer->err->message);
    slurm_poll_soon(job->slurm);
}

static void slurm_cancel_run(struct slurm_job *job, const char *first, const char *second)
{
    const char *arguments[4];
    size_t count = 0;

    if (slurm_command_busy(&job->command))
        return;
    if (*first != '\0')
        arguments[count++] = first;
    if (*second != '\0')
        arguments[count++] = second;
    arguments[count++] = job->jid;
    arguments[count] = NULL;
    slurm_command_start(&job->slurm->commands, &job->command, SLURM_SCANCEL, arguments, -1, slurm_cancel_on_answer, job);
}

/* KILL for its script, whereupon Slurm kills the rest without the pause of KillWait; then the end of the allocation. */
static void slurm_cancel_on_killed(void *arg, const struct slurm_answer *answer)
{
    (void)answer;
    slurm_cancel_run(arg, "", "");
}

static void slurm_cancel_force(struct slurm_job *job)
{
    const char *const arguments[] = { "--signal=KILL", "--batch", job->jid, NULL };

    if (slurm_command_busy(&job->command))
        return;
    slurm_command_start(&job->slurm->commands, &job->command, SLURM_SCANCEL, arguments, -1, slurm_cancel_on_killed, job);
}

/* What the step before has not brought about the next one does. */
static void slurm_cancel_running(struct slurm_job *job)
{
    struct loop *loop = job->slurm->loop;

    if (timer_running(&job->timer) || slurm_command_busy(&job->command))
        return;
    if (job->cancel_step == SLURM_CANCEL_ASK)
        job->cancel_step = job->cancel_grace_seconds > 0 ? SLURM_CANCEL_GRACE : SLURM_CANCEL_KILL;
    else if (job->cancel_step == SLURM_CANCEL_GRACE)
        job->cancel_step = SLURM_CANCEL_KILL;
    else
        job->cancel_step = SLURM_CANCEL_FORCE;
    switch (job->cancel_step) {
    case SLURM_CANCEL_ASK:
    case SLURM_CANCEL_GRACE:
        backend_write_grace(job->dir, job->cancel_grace_seconds);
        slurm_cancel_run(job, "--signal=USR2", "--batch");
        timer_start(loop, &job->timer, job->cancel_grace_seconds * 1000, slurm_cancel_on_timer, job);
        break;
    case SLURM_CANCEL_KILL:
        slurm_cancel_run(job, "--signal=USR1", "--batch");
        timer_start(loop, &job->timer, SLURM_ORDERLY_KILL_MS, slurm_cancel_on_timer, job);
        break;
    case SLURM_CANCEL_FORCE:
        slurm_cancel_force(job);
        timer_start(loop, &job->timer, SLURM_CANCEL_RETRY_MS, slurm_cancel_on_timer, job);
        break;
    }
}

void slurm_cancel_go_on(struct slurm_job *job)
{
    if (job->job_id == 0) {
        slurm_poll_soon(job->slurm);
        return;
    }
    if (!job->seen) {
        slurm_poll_soon(job->slurm); /* whether it waits or runs is not known */
        return;
    }
    switch (job->info.state_class) {
    case SLURM_CLASS_PENDING:
        if (timer_running(&job->timer))
            return;
        /* Only if it still waits: it may have started this moment, and then has its grace period. */
        slurm_cancel_run(job, "--state=PENDING", "");
        timer_start(job->slurm->loop, &job->timer, SLURM_CANCEL_RETRY_MS, slurm_cancel_on_timer, job);
        break;
    case SLURM_CLASS_CONFIGURING:
    case SLURM_CLASS_UNKNOWN:
        if (timer_running(&job->timer))
            return;
        slurm_cancel_run(job, "", "");
        timer_start(job->slurm->loop, &job->timer, SLURM_CANCEL_RETRY_MS, slurm_cancel_on_timer, job);
        break;
    case SLURM_CLASS_RUNNING:
        /* The pause after an attempt to take it out of the queue does not count. */
        if (job->cancel_step == SLURM_CANCEL_ASK)
            timer_stop(&job->timer);
        slurm_cancel_running(job);
        break;
    case SLURM_CLASS_COMPLETING:
        if (clock_mono_ms() - job->completing_ms < SLURM_COMPLETING_MS)
            return;
        log_warn("Slurm job %s is still COMPLETING; its pod is removed without waiting for that", job->jid);
        timer_stop(&job->timer);
        slurm_move(job, SLURM_REMOVING);
        slurm_purge_soon(job->slurm);
        break;
    case SLURM_CLASS_ENDED:
        slurm_end_reached(job);
        break;
    }
}

static void slurm_cancel_on_timer(void *arg)
{
    struct slurm_job *job = arg;

    slurm_poll_soon(job->slurm);
    slurm_cancel_go_on(job);
}

void slurm_cancel_begin(struct slurm_job *job, int64_t grace_seconds)
{
    struct status err = STATUS_INIT;

    if (grace_seconds < 0)
        grace_seconds = job->grace_seconds >= 0 ? job->grace_seconds : job->slurm->default_grace_seconds;
    job->cancel_grace_seconds = grace_seconds;
    if (job->stage == SLURM_ENDING) {
        /* Asked again: the newer grace period counts from now on. */
        if (job->cancel_step == SLURM_CANCEL_GRACE && timer_running(&job->timer))
            timer_start(job->slurm->loop, &job->timer, grace_seconds * 1000, slurm_cancel_on_timer, job);
        return;
    }
    if (!slurm_record_write_cancel(job, &err))
        log_warn("slurm job %s: %s", job->uid, err.message);
    if (job->stage == SLURM_ENDED) {
        slurm_move(job, SLURM_REMOVING);
        slurm_purge_soon(job->slurm);
        return;
    }
    if (job->job_id == 0 && job->looking_until_ms == 0)
        job->looking_until_ms = clock_mono_ms(); /* the sbatch under way decides */
    slurm_move(job, SLURM_ENDING);
    timer_stop(&job->timer);
    slurm_cancel_go_on(job);
}

/* ---- clearing away ---- */

struct slurm_purge_item {
    char uid[INTERLINK_UID_MAX + 1];
    char *dir; /* owned */
};
struct slurm_purge {
    struct slurm_purge_item items[SLURM_PURGE_BATCH];
    size_t count;
};

static bool slurm_purge_run(void *work_arg, struct buf *output, struct status *err)
{
    const struct slurm_purge *work = work_arg;

    (void)err;
    for (size_t i = 0; i < work->count; i++) {
        struct status reason = STATUS_INIT;
        bool clean = subid_tree_remove(work->items[i].dir, &reason);
        if (!clean)
            log_warn("slurm backend: %s", reason.message);
        buf_append_byte(output, clean ? 'y' : 'n');
    }
    return true;
}

static void slurm_purge_free(struct slurm_purge *work)
{
    for (size_t i = 0; work != NULL && i < work->count; i++)
        free(work->items[i].dir);
    free(work);
}

/* Nothing is left of it: everybody who waits hears so. */
static void slurm_forget(struct slurm_job *job)
{
    struct list waiters;
    struct status refusal = job->refusal;

    if (refusal.code == STATUS_OK)
        status_set(&refusal, STATUS_CANCELLED, "pod %s/%s was deleted meanwhile", job->namespace_, job->name);
    slurm_record_remove(job->slurm, job->uid);
    list_init(&waiters);
    for (LIST_EACH_SAFE(struct slurm_waiter, w, &job->waiters, link)) {
        list_remove(&w->link);
        list_append(&waiters, &w->link);
    }
    log_debug("slurm job %s is gone", job->uid);
    slurm_job_free(job);
    for (LIST_EACH_SAFE(struct slurm_waiter, waiter, &waiters, link)) {
        struct slurm_waiter copy = *waiter;
        list_remove(&waiter->link);
        free(waiter);
        if (copy.submitted != NULL)
            copy.submitted(copy.arg, "", &refusal);
        else
            copy.cancelled(copy.arg, NULL);
    }
}

static void slurm_purge_again(void *arg)
{
    struct slurm_job *job = arg;

    slurm_purge_soon(job->slurm);
}

static void slurm_purged(struct slurm_job *job, bool clean)
{
    job->purging = false;
    if (clean)
        slurm_forget(job);
    else
        timer_start(job->slurm->loop, &job->timer, SLURM_PURGE_RETRY_MS, slurm_purge_again, job);
}

static void slurm_on_purged(void *arg, const struct status *err, struct buf *output)
{
    struct slurm *slurm = arg;
    struct slurm_purge *work = steal_ptr(&slurm->purge_work);

    if (err != NULL)
        log_warn("slurm backend: %s", err->message);
    for (size_t i = 0; i < work->count; i++) {
        struct slurm_job *job = strmap_get(&slurm->by_uid, work->items[i].uid);
        if (job != NULL)
            slurm_purged(job, err == NULL && i < output->n && output->p[i] == 'y');
    }
    slurm_purge_free(work);
    slurm_purge_soon(slurm);
}

static void slurm_purge_start(void *arg)
{
    struct slurm *slurm = arg;
    struct status err = STATUS_INIT;

    if (slurm->purge_work != NULL)
        return;
    struct slurm_purge *work = xcalloc(1, sizeof *work);
    for (LIST_EACH(struct slurm_job, job, &slurm->jobs, link)) {
        /* A command for it may still be on its way, and tell it something. */
        if (job->stage != SLURM_REMOVING || job->purging || timer_running(&job->timer) || work->count == SLURM_PURGE_BATCH)
            continue;
        slurm_command_forget(&job->command);
        memcpy(work->items[work->count].uid, job->uid, sizeof job->uid);
        work->items[work->count++].dir = xstrdup(job->dir);
        job->purging = true;
    }
    if (work->count == 0) {
        slurm_purge_free(work);
        return;
    }
    slurm->purge_work = work;
    if (worker_start(slurm->loop, &slurm->purge, slurm_purge_run, work, slurm_on_purged, slurm, &err))
        return;
    log_warn("slurm backend: %s", err.message);
    slurm->purge_work = NULL;
    for (size_t i = 0; i < work->count; i++)
        slurm_purged(strmap_get(&slurm->by_uid, work->items[i].uid), false);
    slurm_purge_free(work);
}

void slurm_purge_soon(struct slurm *slurm)
{
    deferred_start(slurm->loop, &slurm->purge_start, slurm_purge_start, slurm);
}

void slurm_purge_stop(struct slurm *slurm)
{
    worker_cancel(&slurm->purge);
    deferred_stop(&slurm->purge_start);
    slurm_purge_free(slurm->purge_work);
    slurm->purge_work = NULL;
}

#undef SLURM_PURGE_BATCH
#undef SLURM_PURGE_RETRY_MS
