/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/slurm.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"
#include "plugin/backend_common.h"
#include "plugin/job_files.h"
#include "text/timefmt.h"

/* ---- jobs ---- */

struct slurm_job *slurm_job_new(struct slurm *slurm, const char *uid)
{
    struct slurm_job *job = xcalloc(1, sizeof *job);

    job->slurm = slurm;
    job->grace_seconds = -1;
    job->ahead = SIZE_MAX;
    job->info = (struct slurm_info){ .state = "", .partition = "", .nodes = "", .reason = "", .name = "", .cancelled_by = "" };
    snprintf(job->uid, sizeof job->uid, "%s", uid);
    job->dir = xasprintf("%s/jobs/%s", slurm->dir, uid);
    list_init(&job->waiters);
    list_append(&slurm->jobs, &job->link);
    strmap_put(&slurm->by_uid, job->uid, job);
    slurm->job_count++;
    return job;
}

void slurm_job_free(struct slurm_job *job)
{
    for (LIST_EACH_SAFE(struct slurm_waiter, w, &job->waiters, link))
        free(w);
    slurm_command_forget(&job->command);
    timer_stop(&job->timer);
    list_remove(&job->link);
    strmap_remove(&job->slurm->by_uid, job->uid);
    job->slurm->job_count--;
    arena_free(&job->arena);
    free(job->namespace_);
    free(job->name);
    free(job->container);
    free(job->dir);
    free(job);
}

void slurm_move(struct slurm_job *job, enum slurm_stage to)
{
    static const char *const names[] = { "SUBMITTING", "LOOKING", "QUEUED", "RUNNING", "ENDED", "ENDING", "REMOVING" };
    static const bool allowed[7][7] = {
        [SLURM_SUBMITTING] = { [SLURM_LOOKING] = true, [SLURM_QUEUED] = true, [SLURM_ENDING] = true, [SLURM_REMOVING] = true },
        [SLURM_LOOKING] = { [SLURM_QUEUED] = true, [SLURM_ENDING] = true, [SLURM_REMOVING] = true },
        [SLURM_QUEUED] = { [SLURM_RUNNING] = true, [SLURM_ENDING] = true },
        [SLURM_RUNNING] = { [SLURM_QUEUED] = true, [SLURM_ENDED] = true, [SLURM_ENDING] = true },
        [SLURM_ENDED] = { [SLURM_REMOVING] = true },
        [SLURM_ENDING] = { [SLURM_REMOVING] = true },
    };

    if (!allowed[job->stage][to]) {
        log_error("slurm job %s: a move from %s to %s was refused", job->uid, names[job->stage], names[to]);
        return;
    }
    log_debug("slurm job %s: %s -> %s", job->uid, names[job->stage], names[to]);
    job->stage = to;
}

void slurm_set_job_id(struct slurm_job *job, uint32_t job_id)
{
    job->job_id = job_id;
    snprintf(job->jid, sizeof job->jid, "%" PRIu32, job_id);
}

void slurm_answer_submit(struct slurm_job *job, const struct status *err)
{
    for (LIST_EACH_SAFE(struct slurm_waiter, w, &job->waiters, link)) {
        struct slurm_waiter copy = *w;
        if (copy.submitted == NULL)
            continue;
        list_remove(&w->link);
        free(w);
        copy.submitted(copy.arg, job->jid, err);
    }
}

static struct slurm_waiter *slurm_wait(struct slurm_job *job, void *arg)
{
    struct slurm_waiter *w = xcalloc(1, sizeof *w);

    w->arg = arg;
    list_append(&job->waiters, &w->link);
    return w;
}

/* ---- start ---- */

static bool slurm_copy_to(const char *path, int from, struct status *err)
{
    cleanup_free char *temporary = xasprintf("%s.new", path);
    cleanup_close int to = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0700);
    cleanup_buf struct buf chunk = BUF_INIT;
    ssize_t n;

    if (to < 0)
        return status_errno(err, "cannot create %s", temporary);
    buf_reserve(&chunk, 1 << 20);
    while ((n = read(from, chunk.p, 1 << 20)) > 0)
        if (!write_all(to, chunk.p, (size_t)n, err))
            return status_prefix(err, "cannot write %s", temporary);
    if (n < 0 || fsync(to) < 0 || rename(temporary, path) < 0)
        return status_errno(err, "cannot copy this program to %s", path);
    return true;
}

/* Our own binary, where compute nodes see it. Its name tells one build from another, so that jobs in the queue keep theirs. */
static bool slurm_find_program(struct slurm *slurm, const char *program, struct status *err)
{
    struct stat st;

    if (program[0] != '\0') {
        slurm->program = xstrdup(program);
        if (access(program, X_OK) < 0)
            log_warn("slurm backend: the agent's program %s cannot be seen here (%s); compute nodes have to", program, strerror(errno));
        return true;
    }
    cleanup_close int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (self < 0 || fstat(self, &st) < 0)
        return status_errno(err, "cannot find this program (/proc/self/exe)");
    slurm->program = xasprintf("%s/bin/interlink-cri-%llx-%llx", slurm->dir, (unsigned long long)st.st_mtim.tv_sec,
                               (unsigned long long)st.st_size);
    return access(slurm->program, X_OK) == 0 || slurm_copy_to(slurm->program, self, err);
}

static bool slurm_prepare(struct slurm *slurm, const struct backend_options *options, struct status *err)
{
    static const char *const folders[] = { "bin", "jobs", "records" };

    if (options->dir[0] != '/')
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: wanted an absolute path", options->dir);
    if (strpbrk(options->dir, "\n\\") != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: a path for Slurm has no backslashes and line ends", options->dir);
    if (!slurm_config_read(&slurm->config, options->settings, err) || !dir_make(options->dir, 0700, err))
        return false;
    /* Not resolved: compute nodes may see it under this name only. */
    slurm->dir = xstrdup(options->dir);
    for (size_t i = 0; i < COUNT_OF(folders); i++) {
        cleanup_free char *path = xasprintf("%s/%s", slurm->dir, folders[i]);
        if (!dir_make(path, 0700, err))
            return false;
    }
    slurm->poll_interval_ms = slurm->config.poll_min_ms;
    slurm->gres_counts = xcalloc(slurm->config.gres.count + 1, sizeof *slurm->gres_counts);
    slurm->lock_fd = backend_lock(slurm->dir, err);
    return slurm->lock_fd >= 0 && slurm_find_program(slurm, options->program, err) && slurm_records_load(slurm, err);
}

static void slurm_stop(void *self)
{
    struct slurm *slurm = self;

    slurm_purge_stop(slurm);
    slurm_poll_stop(slurm);
    slurm_command_forget(&slurm->sinfo);
    for (LIST_EACH_SAFE(struct slurm_job, job, &slurm->jobs, link))
        slurm_job_free(job);
    strmap_free(&slurm->by_uid);
    if (slurm->lock_fd >= 0)
        close(slurm->lock_fd);
    slurm_config_free(&slurm->config);
    free(slurm->gres_counts);
    free(slurm->dir);
    free(slurm->program);
    free(slurm);
}

static void *slurm_start_backend(struct loop *loop, const struct backend_options *options, struct status *err)
{
    struct slurm *slurm = xcalloc(1, sizeof *slurm);

    slurm->loop = loop;
    slurm->lock_fd = -1;
    slurm->default_grace_seconds = options->default_grace_seconds;
    list_init(&slurm->jobs);
    slurm_commands_init(&slurm->commands, loop, &slurm->config);
    if (!slurm_prepare(slurm, options, err)) {
        status_prefix(err, "slurm backend");
        slurm_stop(slurm);
        return NULL;
    }
    if (slurm->job_count > 0)
        log_info("slurm backend: %zu jobs of an earlier run found in %s", slurm->job_count, slurm->dir);
    slurm_poll_soon(slurm);
    slurm_purge_soon(slurm);
    slurm_capacity_refresh(slurm);
    return slurm;
}

/* ---- submit, cancel ---- */

static bool slurm_submit_new(struct slurm *slurm, const struct interlink_create *create, struct slurm_job **out, struct status *err)
{
    const struct interlink_pod *pod = &create->pod;

    if (!job_files_check(create, err))
        return false;
    if (slurm->job_count >= PLUGIN_JOBS_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "there are %zu jobs already, the most that are run at a time",
                          slurm->job_count);
    struct slurm_job *job = slurm_job_new(slurm, pod->uid);
    job->namespace_ = xstrdup(pod->namespace_);
    job->name = xstrdup(pod->name);
    job->container = xstrdup(pod->containers[0].name);
    job->grace_seconds = pod->termination_grace_seconds;
    job->created_ns = clock_real_ns();
    if (!slurm_submit_start(job, create, err)) {
        slurm_job_free(job);
        return false;
    }
    *out = job;
    return true;
}

static void slurm_submit(void *self, const struct interlink_create *create,
                         void (*done)(void *arg, const char *jid, const struct status *err), void *arg)
{
    struct slurm *slurm = self;
    struct status err = STATUS_INIT;
    struct slurm_job *job = strmap_get(&slurm->by_uid, create->pod.uid);

    if (job != NULL && (job->stage == SLURM_ENDING || job->stage == SLURM_REMOVING)) {
        status_set(&err, STATUS_UNAVAILABLE, "pod %s/%s: an earlier job with the uid %s is still being removed: try again",
                   create->pod.namespace_, create->pod.name, create->pod.uid);
        done(arg, "", &err);
        return;
    }
    if (job != NULL && job->stage != SLURM_SUBMITTING && job->stage != SLURM_LOOKING) {
        done(arg, job->jid, NULL);
        return;
    }
    if (job == NULL && !slurm_submit_new(slurm, create, &job, &err)) {
        done(arg, "", &err);
        return;
    }
    slurm_wait(job, arg)->submitted = done;
    slurm_poll_soon(slurm);
}

static void slurm_cancel(void *self, const char *uid, int64_t grace_seconds,
                         void (*done)(void *arg, const struct status *err), void *arg)
{
    struct slurm *slurm = self;
    struct slurm_job *job = strmap_get(&slurm->by_uid, uid);
    struct status err = STATUS_INIT;

    if (job == NULL) {
        status_set(&err, STATUS_NOT_FOUND, "no job with the uid %s is known", uid);
        done(arg, &err);
        return;
    }
    slurm_wait(job, arg)->cancelled = done;
    if (job->stage != SLURM_REMOVING)
        slurm_cancel_begin(job, grace_seconds);
}

static void slurm_caller_gone(void *self, void *arg)
{
    struct slurm *slurm = self;

    for (LIST_EACH(struct slurm_job, job, &slurm->jobs, link)) {
        for (LIST_EACH_SAFE(struct slurm_waiter, w, &job->waiters, link)) {
            if (w->arg != arg)
                continue;
            list_remove(&w->link);
            free(w);
        }
    }
}

/* ---- questions ---- */

static const char *slurm_waiting_message(const struct slurm_job *job, struct arena *arena)
{
    const struct slurm_info *info = &job->info;
    char at[TIMEFMT_SIZE];
    const char *text = "";

    if (job->slurm->trouble_since_ms != 0)
        return arena_printf(arena, "Slurm does not answer: %s", job->slurm->trouble.message);
    if (!job->seen)
        return "";
    if (info->state_class == SLURM_CLASS_CONFIGURING)
        return arena_printf(arena, "its nodes are being made ready: %s", info->nodes);
    if (job->ahead != SIZE_MAX)
        text = arena_printf(arena, "%zu ahead in partition %s", job->ahead, info->partition);
    else if (*info->partition != '\0')
        text = arena_printf(arena, "partition %s", info->partition);
    if (info->start_ns != 0) {
        timefmt_seconds(info->start_ns, at);
        text = arena_printf(arena, "%s, expected to start at %s", text, at);
    }
    if (info->restarts > 0)
        text = arena_printf(arena, "%s, requeued %" PRIu32 " times", text, info->restarts);
    return text;
}

/* What was not promised yet is not told of either: whoever asks then knows that there is no job. */
static void slurm_fill_state(const struct slurm_job *job, struct arena *arena, struct interlink_container_state *out)
{
    bool over = job->finished_ns != 0;
    bool queued = job->stage == SLURM_QUEUED ||
                  (job->stage == SLURM_ENDING && (!job->seen || job->info.state_class == SLURM_CLASS_PENDING));

    if (job->job_id == 0)
        return;
    if (over) {
        out->phase = INTERLINK_TERMINATED;
        out->exit_code = job->exit_code;
        out->signal = job->signal;
        out->reason = arena_strdup(arena, job->reason);
        out->message = arena_strdup(arena, job->message);
        out->finished_ns = job->finished_ns;
    } else if (queued) {
        bool configuring = job->info.state_class == SLURM_CLASS_CONFIGURING;
        out->phase = INTERLINK_WAITING;
        out->reason = *job->info.reason != '\0' && !configuring ? arena_strdup(arena, job->info.reason)
                                                                : configuring ? "CONFIGURING" : "PENDING";
        out->message = slurm_waiting_message(job, arena);
        return;
    } else {
        out->phase = INTERLINK_RUNNING;
        out->ready = true;
    }
    out->started_ns = job->started_ns;
}

/* Each script writes to one file of all when it starts and when it ends: then squeue is worth while. So a look costs the same
 * for one job and for thousands, on a file system that may be slow. */
static void slurm_look_for_changes(struct slurm *slurm)
{
    int64_t now = clock_mono_ms();
    cleanup_free char *path = NULL;
    struct stat st;

    if (slurm->changed_looked_ms != 0 && now - slurm->changed_looked_ms < SLURM_CHANGED_MS)
        return;
    slurm->changed_looked_ms = now;
    path = xasprintf("%s/changed", slurm->dir);
    if (stat(path, &st) < 0 ||
        (st.st_mtim.tv_sec == slurm->changed_at.tv_sec && st.st_mtim.tv_nsec == slurm->changed_at.tv_nsec))
        return;
    slurm->changed_at = st.st_mtim;
    slurm_poll_soon(slurm);
}

static void slurm_status(void *self, struct arena *arena, const struct interlink_pod *pod, struct interlink_pod_status *out)
{
    struct slurm *slurm = self;
    struct slurm_job *job = strmap_get(&slurm->by_uid, pod->uid);

    backend_status_init(arena, pod, out);
    if (job == NULL)
        return;
    slurm_look_for_changes(slurm);
    slurm_poll_demand(slurm);
    out->jid = arena_strdup(arena, job->jid);
    out->nodes = arena_strdup(arena, job->info.nodes);
    for (size_t i = 0; i < out->container_count; i++)
        if (strcmp(out->containers[i].name, job->container) == 0)
            slurm_fill_state(job, arena, &out->containers[i]);
}

static bool slurm_log(void *self, const char *uid, const char *container, struct backend_log *out, struct status *err)
{
    const struct slurm *slurm = self;
    const struct slurm_job *job = strmap_get(&slurm->by_uid, uid);

    if (job == NULL)
        return status_set(err, STATUS_NOT_FOUND, "no job with the uid %s is known", uid);
    if (container[0] != '\0' && strcmp(container, job->container) != 0)
        return status_set(err, STATUS_NOT_FOUND, "pod %s/%s has no container \"%s\"", job->namespace_, job->name, container);
    snprintf(out->path, sizeof out->path, "%s/agent.log", job->dir);
    out->live = job->stage != SLURM_ENDED && job->stage != SLURM_REMOVING;
    return true;
}

static void slurm_capacity(void *self, struct arena *arena, struct interlink_ping *out)
{
    slurm_capacity_fill(self, arena, out);
}

static size_t slurm_job_count(void *self)
{
    return ((struct slurm *)self)->job_count;
}

const struct backend backend_slurm = {
    .name = "slurm",
    .start = slurm_start_backend,
    .stop = slurm_stop,
    .submit = slurm_submit,
    .cancel = slurm_cancel,
    .caller_gone = slurm_caller_gone,
    .status = slurm_status,
    .log = slurm_log,
    .capacity = slurm_capacity,
    .job_count = slurm_job_count,
};
