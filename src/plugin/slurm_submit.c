/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/slurm.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"
#include "io/userns.h"
#include "plugin/job_files.h"
#include "plugin/slurm_options.h"
#include "plugin/slurm_script.h"

/* ---- the folder ---- */

static bool slurm_submit_put(const struct slurm_job *job, const char *name, struct str text, mode_t mode, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/%s", job->dir, name);

    return file_replace(path, text.p, text.n, mode, err);
}

static bool slurm_submit_files(const struct slurm_job *job, const struct interlink_create *create, struct status *err)
{
    cleanup_buf struct buf environment = BUF_INIT, script = BUF_INIT;

    if (!slurm_script_environment(&create->pod, job->dir, &environment, err))
        return false;
    slurm_script_write(&job->slurm->config, &create->pod, job->dir, job->slurm->program, &script);
    return slurm_submit_put(job, "environment", (struct str){ (const char *)environment.p, environment.n }, 0600, err) &&
           slurm_submit_put(job, "job.sh", (struct str){ (const char *)script.p, script.n }, 0700, err) &&
           slurm_submit_put(job, "agent.log", STR(""), 0600, err);
}

static bool slurm_submit_folder(const struct slurm_job *job, const struct interlink_create *create, struct status *err)
{
    /* What an interrupted removal may have left. */
    if (!subid_tree_remove(job->dir, err))
        return false;
    if (mkdir(job->dir, 0700) < 0)
        return status_errno(err, "cannot make folder %s", job->dir);
    return job_files_write_volumes(job->dir, create, err) && slurm_submit_files(job, create, err);
}

/* The script as sbatch's standard input. The lock on it goes along, and lasts as long as sbatch: so a later life of this
 * plugin can tell whether one is still under way. */
static int slurm_submit_open(const struct slurm_job *job, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/job.sh", job->dir);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0) {
        status_errno(err, "cannot open %s", path);
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        status_errno(err, "cannot lock %s", path);
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- sbatch ---- */

/* The number is on disk before anybody hears of it. */
void slurm_submit_found(struct slurm_job *job, uint32_t job_id)
{
    struct status err = STATUS_INIT;

    slurm_set_job_id(job, job_id);
    job->since = job->slurm->poll_count;
    if (!slurm_record_write_jid(job, &err)) {
        /* Without it a restart would find the job by its name; but what is not on disk is not promised. */
        log_warn("slurm job %s: %s", job->uid, err.message);
        slurm_answer_submit(job, &err);
        if (job->stage != SLURM_ENDING)
            slurm_cancel_begin(job, 0);
        return;
    }
    log_info("pod %s/%s (%s) is Slurm job %s", job->namespace_, job->name, job->uid, job->jid);
    if (job->stage == SLURM_ENDING) {
        slurm_cancel_go_on(job);
        return;
    }
    slurm_move(job, SLURM_QUEUED);
    slurm_poll_soon(job->slurm);
    slurm_answer_submit(job, NULL);
}

/* There is no job, and there will be none. */
static void slurm_submit_refused(struct slurm_job *job, const struct status *err)
{
    struct status cancel = STATUS_INIT;

    job->refusal = *err;
    log_info("pod %s/%s (%s): %s", job->namespace_, job->name, job->uid, err->message);
    if (!slurm_record_write_cancel(job, &cancel))
        log_warn("slurm job %s: %s", job->uid, cancel.message);
    slurm_move(job, SLURM_REMOVING);
    slurm_purge_soon(job->slurm);
}

void slurm_submit_not_found(struct slurm_job *job, const struct status *err)
{
    struct status gone = STATUS_INIT;

    if (clock_mono_ms() < job->looking_until_ms)
        return;
    if (err == NULL && !slurm_sbatch_under_way(job)) {
        if (job->refusal.code == STATUS_OK)
            status_set(&gone, STATUS_UNAVAILABLE, "Slurm has not taken the job of pod %s/%s: try again", job->namespace_, job->name);
        else
            gone = job->refusal;
        slurm_submit_refused(job, &gone);
        return;
    }
    /* Nobody can say. Whoever waits is told so; who asks again waits again. */
    status_set(&gone, STATUS_UNAVAILABLE, "it is not known whether Slurm has taken the job of pod %s/%s: %.300s", job->namespace_,
               job->name, err != NULL ? err->message : "sbatch is still under way");
    slurm_answer_submit(job, &gone);
}

static void slurm_submit_on_sbatch(void *arg, const struct slurm_answer *answer)
{
    struct slurm_job *job = arg;
    struct status err = STATUS_INIT;
    uint32_t job_id;

    if (answer->err == NULL && slurm_sbatch_output(answer->output, &job_id)) {
        slurm_submit_found(job, job_id);
        return;
    }
    if (answer->err != NULL)
        err = *answer->err;
    else
        status_set(&err, STATUS_UNAVAILABLE, "sbatch printed no job's number: \"%.*s\"", (int)(answer->output.n < 80 ? answer->output.n : 80),
                   answer->output.p);
    if (answer->err == NULL || answer->cut_off || slurm_error_ambiguous(err.message)) {
        log_warn("pod %s/%s (%s): %s: looking whether Slurm has taken it", job->namespace_, job->name, job->uid, err.message);
        job->refusal = err;
        job->refusal.code = STATUS_UNAVAILABLE;
        job->since = job->slurm->poll_count;
        job->looking_until_ms = clock_mono_ms() + SLURM_GHOST_MS;
        if (job->stage == SLURM_SUBMITTING)
            slurm_move(job, SLURM_LOOKING);
        slurm_poll_soon(job->slurm);
        return;
    }
    slurm_submit_refused(job, &err);
}

bool slurm_submit_start(struct slurm_job *job, const struct interlink_create *create, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct interlink_strings options;
    struct status ignored = STATUS_INIT;
    int fd = -1;

    if (!slurm_script_options(&arena, &job->slurm->config, &create->pod, job->dir, &options, err))
        return false;
    if (slurm_record_write(job, err) && slurm_submit_folder(job, create, err))
        fd = slurm_submit_open(job, err);
    if (fd < 0) {
        tree_remove(job->dir, &ignored);
        slurm_record_remove(job->slurm, job->uid);
        return false;
    }
    const char **arguments = ARENA_ARRAY(&arena, const char *, options.count + 1);
    for (size_t i = 0; i < options.count; i++)
        arguments[i] = options.items[i];
    slurm_command_start(&job->slurm->commands, &job->command, SLURM_SBATCH, arguments, fd, slurm_submit_on_sbatch, job);
    return true;
}
