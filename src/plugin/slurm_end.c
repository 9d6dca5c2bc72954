/* SPDX-License-Identifier: Apache-2.0 */
/* How a job ended. Slurm's memory of it is short: squeue and scontrol know it for MinJobAge (five minutes, at some sites seconds), sacct
 * where there is a database. After that there is what the job's own script left. */
#include "plugin/slurm.h"

#include <unistd.h>

#include "text/timefmt.h"

static void slurm_end_ask_sacct(struct slurm_job *job);

/* ---- words ---- */

static void slurm_end_say(struct slurm_job *job, const char *reason, const char *format, ...) PRINTF_LIKE(3, 4);
static void slurm_end_say(struct slurm_job *job, const char *reason, const char *format, ...)
{
    char words[384] = "";
    va_list arguments;
    bool on = *job->info.nodes != '\0';

    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    snprintf(job->reason, sizeof job->reason, "%s", reason);
    snprintf(job->message, sizeof job->message, "Slurm job %s%s%.64s: %s", job->jid, on ? " on " : "", job->info.nodes, words);
}

static void slurm_end_limit(const struct slurm_job *job, char out[TIMEFMT_SIZE])
{
    if (job->info.limit_seconds > 0)
        timefmt_duration(job->info.limit_seconds * 1000000000, out);
    else
        snprintf(out, TIMEFMT_SIZE, "the partition's");
}

/* The script was told (--signal) and ended in time: for Slurm an ordinary end. Slurm may send it 60 s earlier than asked. */
static bool slurm_end_noticed(struct slurm_job *job, const struct slurm_left *left)
{
    char limit[TIMEFMT_SIZE];
    int64_t due_ns = job->started_ns + (job->info.limit_seconds - job->slurm->config.notice_seconds - 65) * 1000000000;

    if (left->noticed_ns == 0)
        return false;
    slurm_end_limit(job, limit);
    if (job->info.limit_seconds > 0 && left->noticed_ns >= due_ns)
        slurm_end_say(job, "TIMEOUT", "TIMEOUT: told %" PRId64 " s before its time limit of %s, it ended in time",
                      job->slurm->config.notice_seconds, limit);
    else
        slurm_end_say(job, "Terminated", "it was told to end by a signal (USR2) that the site or its user sent");
    return true;
}

static void slurm_end_cancelled(struct slurm_job *job)
{
    const char *by = job->info.cancelled_by;
    char self[16];

    snprintf(self, sizeof self, "%u", (unsigned)geteuid());
    if (job->stage == SLURM_ENDING)
        slurm_end_say(job, "CANCELLED", "CANCELLED: its pod was deleted");
    else if (*by == '\0')
        slurm_end_say(job, "CANCELLED", "CANCELLED by scancel: by whom is not known, since the site keeps no accounts");
    else if (strcmp(by, self) == 0 && job->slurm->config.prefix.count == 0)
        slurm_end_say(job, "CANCELLED", "CANCELLED by user %s, as whom this plugin runs, but not by it", by);
    else
        slurm_end_say(job, "CANCELLED", "CANCELLED by user %.40s", by);
}

/* Sites that look at memory now and then have Slurm kill a job without saying OUT_OF_MEMORY. */
static bool slurm_end_overused(const struct slurm_job *job)
{
    return job->info.signal == 9 && strcmp(slurm_read_verdict(job), "OUT_OF_MEMORY") == 0;
}

static void slurm_end_words(struct slurm_job *job, const struct slurm_left *left)
{
    const struct slurm_info *info = &job->info;
    const char *reason = strcmp(info->reason, "NonZeroExitCode") == 0 ? "" : info->reason;
    char limit[TIMEFMT_SIZE];

    slurm_end_limit(job, limit);
    if (strcmp(info->state, "COMPLETED") == 0 || strcmp(info->state, "FAILED") == 0) {
        if (slurm_end_noticed(job, left))
            return;
        if (slurm_end_overused(job))
            slurm_end_say(job, "OUT_OF_MEMORY", "OUT_OF_MEMORY: it used more memory than it had asked for");
        else if (job->exit_code == 0)
            slurm_end_say(job, "Completed", "COMPLETED");
        else if (job->signal != 0)
            slurm_end_say(job, "Error", "FAILED by signal %d (%s)", job->signal, strsignal(job->signal));
        else
            slurm_end_say(job, "Error", "FAILED with exit code %d%s%.100s", job->exit_code, *reason != '\0' ? ", " : "", reason);
    } else if (strcmp(info->state, "TIMEOUT") == 0) {
        slurm_end_say(job, "TIMEOUT", "TIMEOUT: it ran into its time limit of %s", limit);
    } else if (strcmp(info->state, "OUT_OF_MEMORY") == 0) {
        slurm_end_say(job, "OUT_OF_MEMORY", "OUT_OF_MEMORY: it used more memory than it had asked for");
    } else if (strcmp(info->state, "NODE_FAIL") == 0) {
        slurm_end_say(job, "NODE_FAIL", "NODE_FAIL: a node of it failed");
    } else if (strcmp(info->state, "PREEMPTED") == 0) {
        slurm_end_say(job, "PREEMPTED", "PREEMPTED: it had to make room for a job of higher priority");
    } else if (strcmp(info->state, "CANCELLED") == 0) {
        slurm_end_cancelled(job);
    } else {
        slurm_end_say(job, info->state, "%.40s%s%.100s", info->state, *info->reason != '\0' ? ": " : "", info->reason);
    }
}

/* 128 + signal, as a shell has it. What did not succeed for Slurm has not succeeded, whatever its script said. */
static void slurm_end_code(struct slurm_job *job, const struct slurm_left *left)
{
    const struct slurm_info *info = &job->info;

    job->signal = info->signal;
    job->exit_code = info->signal != 0 ? 128 + info->signal : info->exit_code;
    if (job->exit_code == 0 && strcmp(info->state, "COMPLETED") != 0)
        job->exit_code = left->exit_code != 0 ? left->exit_code : 137;
    /* Slurm marks what ran out of memory with a signal that there is none of (125): it was KILL. */
    if (strcmp(info->state, "OUT_OF_MEMORY") == 0) {
        job->signal = 9;
        job->exit_code = 137;
    } else if (job->signal > 64) {
        job->signal = 0;
    }
    /* A shell tells of its child's signal in its own exit code. */
    if (job->signal == 0 && job->exit_code > 128 && job->exit_code < 128 + 65)
        job->signal = job->exit_code - 128;
}

void slurm_end_describe(struct slurm_job *job)
{
    struct slurm_left left;
    const struct slurm_info *info = &job->info;

    slurm_read_left(job, &left);
    if (info->start_ns != 0 && *info->nodes != '\0')
        job->started_ns = info->start_ns;
    job->finished_ns = info->end_ns != 0 ? info->end_ns : left.at_ns != 0 ? left.at_ns : clock_real_ns();
    slurm_end_code(job, &left);
    slurm_end_words(job, &left);
}

/* ---- the end ---- */

static void slurm_end_settle(struct slurm_job *job)
{
    struct status err = STATUS_INIT;

    if (job->stage == SLURM_ENDED || job->stage == SLURM_REMOVING)
        return;
    log_info("pod %s/%s: %s", job->namespace_, job->name, job->message);
    if (!slurm_record_write_end(job, &err))
        log_warn("slurm job %s: %s", job->uid, err.message);
    if (job->stage == SLURM_ENDING) {
        timer_stop(&job->timer);
        slurm_move(job, SLURM_REMOVING);
        slurm_purge_soon(job->slurm);
        return;
    }
    /* Not seen running in between. */
    if (job->stage == SLURM_QUEUED)
        slurm_move(job, SLURM_RUNNING);
    slurm_move(job, SLURM_ENDED);
}

static bool slurm_end_sacct_usable(const struct slurm *slurm)
{
    return *slurm->config.tools[SLURM_SACCT] != '\0' && !slurm->no_accounting;
}

static void slurm_end_on_pause(void *arg)
{
    slurm_end_ask_sacct(arg);
}

void slurm_end_reached(struct slurm_job *job)
{
    if (slurm_command_busy(&job->command) || (job->stage != SLURM_ENDING && timer_running(&job->timer)))
        return; /* it is being asked; the next answer comes here again */
    if (job->stage != SLURM_ENDING && strcmp(job->info.state, "CANCELLED") == 0 && *job->info.cancelled_by == '\0' &&
        slurm_end_sacct_usable(job->slurm)) {
        timer_start(job->slurm->loop, &job->timer, SLURM_ACCOUNTING_MS, slurm_end_on_pause, job);
        return;
    }
    slurm_end_describe(job);
    slurm_end_settle(job);
}

/* ---- what squeue has forgotten ---- */

/* Slurm knows nothing: the job's own record is the last word. */
static void slurm_end_by_record(struct slurm_job *job)
{
    struct slurm_left left;
    bool has_left = slurm_read_left(job, &left);
    const char *verdict = slurm_read_verdict(job);

    job->exit_code = has_left ? left.exit_code : 137;
    job->signal = job->exit_code > 128 && job->exit_code < 128 + 65 ? job->exit_code - 128 : 0;
    job->finished_ns = has_left && left.at_ns != 0 ? left.at_ns : clock_real_ns();
    if (*verdict != '\0' && job->exit_code == 0)
        job->exit_code = 137;
    if (*verdict != '\0')
        slurm_end_say(job, verdict, "%s, says its log: Slurm does not know it any more", verdict);
    else if (!has_left)
        slurm_end_say(job, "Lost", "Slurm does not know it any more, and it left no exit code: it was killed or never started");
    else if (!slurm_end_noticed(job, &left))
        slurm_end_say(job, job->exit_code == 0 ? "Completed" : left.termed_ns != 0 ? "Terminated" : "Error",
                      "%s exit code %d (its own record: Slurm does not know it any more)",
                      left.termed_ns != 0 ? "told by Slurm to end, it did so with" : "it ended with", job->exit_code);
    slurm_end_settle(job);
}

static void slurm_end_on_sacct(void *arg, const struct slurm_answer *answer)
{
    struct slurm_job *job = arg;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct str rest = answer->output, line;
    struct slurm_info info;
    bool found = false;

    if (answer->err != NULL && slurm_error_no_accounting(answer->err->message)) {
        log_info("sacct is not asked any more: %s", answer->err->message);
        job->slurm->no_accounting = true;
    }
    /* The last line counts: the job's latest run. */
    while (answer->err == NULL && slurm_next_line(&rest, &line)) {
        struct slurm_info one;
        if (slurm_sacct_line(&arena, line, &one) && one.job_id == job->job_id && one.state_class == SLURM_CLASS_ENDED) {
            info = one;
            found = true;
        }
    }
    if (found && *info.cancelled_by == '\0' && strcmp(info.state, "CANCELLED") == 0)
        info.cancelled_by = "an unknown user";
    if (found) {
        slurm_poll_apply(job, &info);
    } else if (job->seen && job->info.state_class == SLURM_CLASS_ENDED) {
        slurm_end_describe(job);
        slurm_end_settle(job);
    } else {
        slurm_end_by_record(job);
    }
}

static void slurm_end_ask_sacct(struct slurm_job *job)
{
    const char *const arguments[] = { "--noheader", "--parsable2", "--allocations", "--jobs", job->jid, "--starttime=1970-01-01",
                                      SLURM_SACCT_FORMAT, NULL };

    slurm_command_start(&job->slurm->commands, &job->command, SLURM_SACCT, arguments, -1, slurm_end_on_sacct, job);
}

static void slurm_end_on_scontrol(void *arg, const struct slurm_answer *answer)
{
    struct slurm_job *job = arg;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct str rest = answer->output, line;
    struct slurm_info info;

    if (answer->err == NULL) {
        while (slurm_next_line(&rest, &line))
            if (slurm_scontrol_line(&arena, line, &info) && info.job_id == job->job_id) {
                slurm_poll_apply(job, &info);
                return;
            }
    } else if (!slurm_error_no_job(answer->err->message)) {
        return; /* it cannot be asked now: after the next squeue */
    }
    if (slurm_end_sacct_usable(job->slurm))
        slurm_end_ask_sacct(job);
    else
        slurm_end_by_record(job);
}

void slurm_end_resolve(struct slurm_job *job)
{
    const char *const arguments[] = { "--oneliner", "show", "job", job->jid, NULL };

    if (slurm_command_busy(&job->command))
        return;
    slurm_command_start(&job->slurm->commands, &job->command, SLURM_SCONTROL, arguments, -1, slurm_end_on_scontrol, job);
}
