/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/local.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/file.h"
#include "plugin/backend_common.h"
#include "plugin/job_files.h"

/* Looking whether a process still lives, where there are no pidfds (before Linux 5.3). */
#define LOCAL_LOOK_MS 1000
/* Between those two moments: a few looks more. */
#define LOCAL_REAP_MS 5
#define LOCAL_REAP_LOOKS 4
/* Jobs that one worker clears away; more wait for the next. */
#define LOCAL_PURGE_BATCH 64
/* After a removal that did not succeed. */
#define LOCAL_PURGE_RETRY_MS 10000

static void local_purge_soon(struct local *local);
static void local_end_now(void *arg);

/* ---- jobs ---- */

struct local_job *local_job_new(struct local *local, const char *uid)
{
    struct local_job *job = xcalloc(1, sizeof *job);

    job->local = local;
    job->pidfd = -1;
    job->grace_seconds = -1;
    snprintf(job->uid, sizeof job->uid, "%s", uid);
    job->dir = xasprintf("%s/jobs/%s", local->dir, uid);
    list_init(&job->waiters);
    list_append(&local->jobs, &job->link);
    strmap_put(&local->by_uid, job->uid, job);
    local->job_count++;
    return job;
}

void local_job_free(struct local_job *job)
{
    for (LIST_EACH_SAFE(struct local_waiter, w, &job->waiters, link))
        free(w);
    child_forget(&job->child);
    watch_stop(&job->pidfd_watch);
    timer_stop(&job->timer);
    if (job->pidfd >= 0)
        close(job->pidfd);
    list_remove(&job->link);
    strmap_remove(&job->local->by_uid, job->uid);
    job->local->job_count--;
    free(job->namespace_);
    free(job->name);
    free(job->container);
    free(job->jid);
    free(job->dir);
    free(job);
}

static void local_move(struct local_job *job, enum local_stage to)
{
    static const char *const names[] = { "STARTING", "RUNNING", "CLEANING", "ENDED", "ENDING", "REMOVING" };
    static const bool allowed[6][6] = {
        [LOCAL_STARTING] = { [LOCAL_RUNNING] = true },
        [LOCAL_RUNNING] = { [LOCAL_CLEANING] = true, [LOCAL_ENDING] = true },
        [LOCAL_CLEANING] = { [LOCAL_ENDED] = true, [LOCAL_REMOVING] = true },
        [LOCAL_ENDED] = { [LOCAL_REMOVING] = true },
        [LOCAL_ENDING] = { [LOCAL_REMOVING] = true },
    };

    if (!allowed[job->stage][to]) {
        log_error("local job %s: a move from %s to %s was refused", job->uid, names[job->stage], names[to]);
        return;
    }
    log_debug("local job %s: %s -> %s", job->uid, names[job->stage], names[to]);
    job->stage = to;
}

/* Without it a restart finds the job's process instead, or not: less exact, but not wrong. */
static void local_save_end(struct local_job *job)
{
    struct status err = STATUS_INIT;

    if (!local_record_write_end(job, &err))
        log_warn("local job %s: %s", job->uid, err.message);
}

static void local_save_cancel(struct local_job *job)
{
    struct status err = STATUS_INIT;

    if (!local_record_write_cancel(job, &err))
        log_warn("local job %s: %s", job->uid, err.message);
}

/* ---- the end of a process ---- */

/* PIDFD_GET_INFO with PIDFD_INFO_EXIT (linux/pidfd.h, Linux 6.15): the exit status of a process that is not our child. */
static bool local_pidfd_exit(int pidfd, int *wait_status)
{
    struct {
        uint64_t mask, cgroup_id;
        uint32_t pid, tgid, ppid, ids[8];
        int32_t exit_code;
    } info = { .mask = 8 };

    /* C libraries do not agree on the type of ioctl's request. */
    if (syscall(SYS_ioctl, pidfd, _IOWR(0xFF, 11, __typeof__(info)), &info) < 0 || (info.mask & 8) == 0)
        return false;
    *wait_status = info.exit_code;
    return true;
}

static void local_ended(struct local_job *job)
{
    job->finished_ns = clock_real_ns();
    job->child.loop = NULL;
    watch_stop(&job->pidfd_watch);
    timer_stop(&job->timer);
    local_move(job, job->stage == LOCAL_ENDING ? LOCAL_REMOVING : LOCAL_CLEANING);
    if (job->stage == LOCAL_CLEANING)
        local_save_end(job);
    local_purge_soon(job->local);
}

static void local_on_exit(void *arg, int wait_status)
{
    struct local_job *job = arg;

    if (WIFSIGNALED(wait_status)) {
        job->signal = WTERMSIG(wait_status);
        job->exit_code = 128 + job->signal;
        snprintf(job->message, sizeof job->message, "the agent was ended by signal %d (%s)", job->signal,
                 strsignal(job->signal));
    } else {
        job->exit_code = WEXITSTATUS(wait_status);
    }
    snprintf(job->reason, sizeof job->reason, "%s", job->exit_code == 0 ? "Completed" : "Error");
    local_ended(job);
}

/* A process that is not our child has ended. Its status can be had from /proc until its parent has reaped it, and from the
 * pidfd afterwards. */
static void local_gone(void *arg)
{
    struct local_job *job = arg;
    int wait_status;
    bool alive;

    watch_stop(&job->pidfd_watch);
    if (local_process_look(&job->process, &alive, &wait_status) && !alive) {
        local_on_exit(job, wait_status);
        return;
    }
    if (job->pidfd >= 0 && local_pidfd_exit(job->pidfd, &wait_status)) {
        local_on_exit(job, wait_status);
        return;
    }
    if (job->pidfd >= 0 && job->reap_looks++ < LOCAL_REAP_LOOKS) {
        timer_start(job->local->loop, &job->timer, LOCAL_REAP_MS, local_gone, job);
        return;
    }
    job->exit_code = 137;
    snprintf(job->reason, sizeof job->reason, "Error");
    snprintf(job->message, sizeof job->message, "it ended after a restart of the plugin; its exit code is not known");
    local_ended(job);
}

static void local_on_pidfd(void *arg, unsigned events)
{
    (void)events;
    local_gone(arg);
}

static void local_look(void *arg)
{
    struct local_job *job = arg;

    if (local_process_alive(&job->process))
        timer_start(job->local->loop, &job->timer, LOCAL_LOOK_MS, local_look, job);
    else
        local_gone(job);
}

/* ---- signals ---- */

/* A child that has ended stays a zombie until we hear of it, so its pid is its own; others have their pidfd, or the check of
 * their start time. */
static void local_signal(struct local_job *job, int number)
{
    if (job->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, job->pidfd, number, NULL, 0);
    else if (job->child.loop != NULL || local_process_alive(&job->process))
        kill(job->process.pid, number);
}

/* The grace period is over. What SIGKILL to the agent leaves is cleared away when its end is heard of. */
static void local_end_now(void *arg)
{
    struct local_job *job = arg;

    local_signal(job, SIGKILL);
    /* Where the timer also looks after a process without a pidfd, it goes on doing so. */
    if (job->pidfd < 0 && job->child.loop == NULL)
        timer_start(job->local->loop, &job->timer, 100, local_look, job);
}

/* `again`: it has been told already, and would take a second TERM for an order to kill. */
static void local_end(struct local_job *job, int64_t grace_seconds, bool again)
{
    if (grace_seconds < 0)
        grace_seconds = job->grace_seconds >= 0 ? job->grace_seconds : job->local->default_grace_seconds;
    if (grace_seconds > 0 && !again) {
        backend_write_grace(job->dir, grace_seconds);
        local_signal(job, SIGTERM);
    }
    if (grace_seconds == 0)
        local_signal(job, SIGKILL);
    timer_start(job->local->loop, &job->timer, grace_seconds > 0 ? grace_seconds * 1000 : 0, local_end_now, job);
}

/* ---- clearing away ---- */

static void local_removed(struct local_job *job)
{
    struct list waiters;

    local_record_remove(job->local, job->uid);
    list_init(&waiters);
    for (LIST_EACH_SAFE(struct local_waiter, w, &job->waiters, link)) {
        list_remove(&w->link);
        list_append(&waiters, &w->link);
    }
    log_debug("local job %s is gone", job->uid);
    local_job_free(job);
    for (LIST_EACH_SAFE(struct local_waiter, waiter, &waiters, link)) {
        struct local_waiter copy = *waiter;
        list_remove(&waiter->link);
        free(waiter);
        copy.done(copy.arg, NULL);
    }
}

static void local_purge_again(void *arg)
{
    struct local_job *job = arg;

    local_purge_soon(job->local);
}

static void local_purged(struct local_job *job, bool clean, bool removed)
{
    job->purging = false;
    if (!clean)
        log_warn("local job %s: something of it could not be removed; trying again", job->uid);
    if (job->stage == LOCAL_CLEANING && clean)
        local_move(job, LOCAL_ENDED);
    if (job->stage == LOCAL_REMOVING && removed && clean)
        local_removed(job);
    else if (!clean)
        timer_start(job->local->loop, &job->timer, LOCAL_PURGE_RETRY_MS, local_purge_again, job);
}

static void local_on_purged(void *arg, const struct status *err, struct buf *output)
{
    struct local *local = arg;
    struct local_purge *work = steal_ptr(&local->purge_work);

    if (err != NULL)
        log_warn("local backend: %s", err->message);
    for (size_t i = 0; i < work->count; i++) {
        struct local_job *job = strmap_get(&local->by_uid, work->items[i].uid);
        if (job != NULL)
            local_purged(job, err == NULL && i < output->n && output->p[i] == 'y', work->items[i].remove);
    }
    free(work->items);
    free(work);
    local_purge_soon(local);
}

static bool local_wants_purge(const struct local_job *job)
{
    return (job->stage == LOCAL_CLEANING || job->stage == LOCAL_REMOVING) && !job->purging && !timer_running(&job->timer);
}

/* One worker at a time, for all jobs that wait: it looks at each process of the machine once. */
static void local_purge_start(void *arg)
{
    struct local *local = arg;
    struct status err = STATUS_INIT;

    if (local->purge_work != NULL)
        return;
    struct local_purge *work = xcalloc(1, sizeof *work);
    work->items = xcalloc(LOCAL_PURGE_BATCH, sizeof *work->items);
    work->jobs_dir = local->jobs_dir;
    for (LIST_EACH(struct local_job, job, &local->jobs, link)) {
        if (!local_wants_purge(job) || work->count == LOCAL_PURGE_BATCH)
            continue;
        struct local_purge_item *item = &work->items[work->count++];
        memcpy(item->uid, job->uid, sizeof item->uid);
        item->process = job->process;
        item->remove = job->stage == LOCAL_REMOVING;
        job->purging = true;
    }
    if (work->count > 0) {
        local->purge_work = work;
        if (worker_start(local->loop, &local->purge, local_purge_run, work, local_on_purged, local, &err))
            return;
        log_warn("local backend: %s", err.message);
        local->purge_work = NULL;
        for (size_t i = 0; i < work->count; i++)
            local_purged(strmap_get(&local->by_uid, work->items[i].uid), false, false);
    }
    free(work->items);
    free(work);
}

static void local_purge_soon(struct local *local)
{
    deferred_start(local->loop, &local->purge_start, local_purge_start, local);
}

/* ---- start and stop ---- */

static void local_adopt(struct local_job *job)
{
    struct local *local = job->local;
    struct status err = STATUS_INIT;

    if (job->stage == LOCAL_CLEANING || job->stage == LOCAL_REMOVING) {
        if (job->stage == LOCAL_CLEANING)
            local_save_end(job);
        local_purge_soon(local);
        return;
    }
    job->pidfd = (int)syscall(SYS_pidfd_open, job->process.pid, 0);
    /* It may have ended, and its pid be another's, since it was looked at. */
    if (!local_process_alive(&job->process)) {
        local_gone(job);
        return;
    }
    if (job->pidfd < 0)
        timer_start(local->loop, &job->timer, LOCAL_LOOK_MS, local_look, job);
    else if (!watch_start(local->loop, &job->pidfd_watch, job->pidfd, WATCH_READ, local_on_pidfd, job, &err))
        log_warn("local job %s: %s", job->uid, err.message);
    if (job->stage == LOCAL_ENDING)
        local_end(job, -1, backend_grace_written(job->dir));
}

static bool local_find_program(struct local *local, const char *program, struct status *err)
{
    char path[4096];

    if (program[0] != '\0') {
        local->program = xstrdup(program);
        return access(program, X_OK) == 0 || status_errno(err, "cannot run %s", program);
    }
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    local->program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (n <= 0 || local->program_fd < 0)
        return status_errno(err, "cannot find this program (/proc/self/exe)");
    path[n] = '\0';
    local->program = xstrdup(path);
    return true;
}

static bool local_prepare(struct local *local, const struct backend_options *options, struct status *err)
{
    static const char *const folders[] = { "jobs", "records" };
    cleanup_buf struct buf boot = BUF_INIT;
    struct status ignored = STATUS_INIT;

    if (options->dir[0] != '/')
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: wanted an absolute path", options->dir);
    if (!dir_make(options->dir, 0700, err))
        return false;
    /* As the kernel shows it in mount tables. */
    local->dir = realpath(options->dir, NULL);
    if (local->dir == NULL)
        return status_errno(err, "cannot use folder %s", options->dir);
    local->jobs_dir = xasprintf("%s/jobs", local->dir);
    for (size_t i = 0; i < COUNT_OF(folders); i++) {
        cleanup_free char *path = xasprintf("%s/%s", local->dir, folders[i]);
        if (!dir_make(path, 0700, err))
            return false;
    }
    if (file_read("/proc/sys/kernel/random/boot_id", 64, &boot, &ignored))
        snprintf(local->boot_id, sizeof local->boot_id, "%.36s", buf_cstr(&boot));
    else
        snprintf(local->boot_id, sizeof local->boot_id, "-");
    local->lock_fd = backend_lock(local->dir, err);
    return local->lock_fd >= 0 && local_find_program(local, options->program, err) &&
           local_records_load(local, err);
}

static void local_stop(void *self)
{
    struct local *local = self;

    worker_cancel(&local->purge);
    deferred_stop(&local->purge_start);
    if (local->purge_work != NULL)
        free(local->purge_work->items);
    free(local->purge_work);
    for (LIST_EACH_SAFE(struct local_job, job, &local->jobs, link))
        local_job_free(job);
    strmap_free(&local->by_uid);
    if (local->program_fd >= 0)
        close(local->program_fd);
    if (local->lock_fd >= 0)
        close(local->lock_fd);
    free(local->dir);
    free(local->jobs_dir);
    free(local->program);
    free(local);
}

static void *local_start_backend(struct loop *loop, const struct backend_options *options, struct status *err)
{
    struct local *local = xcalloc(1, sizeof *local);

    local->loop = loop;
    local->program_fd = local->lock_fd = -1;
    local->default_grace_seconds = options->default_grace_seconds;
    list_init(&local->jobs);
    if (!local_prepare(local, options, err)) {
        status_prefix(err, "local backend");
        local_stop(local);
        return NULL;
    }
    for (LIST_EACH_SAFE(struct local_job, job, &local->jobs, link))
        local_adopt(job);
    if (local->job_count > 0)
        log_info("local backend: %zu jobs of an earlier run found in %s", local->job_count, local->dir);
    return local;
}

/* ---- submit, cancel ---- */

static bool local_submit_new(struct local *local, const struct interlink_create *create, const char **jid,
                             struct status *err)
{
    const struct interlink_pod *pod = &create->pod;

    if (!job_files_check(create, err))
        return false;
    if (local->job_count >= PLUGIN_JOBS_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "there are %zu jobs already, the most that are run at a time",
                          local->job_count);
    struct local_job *job = local_job_new(local, pod->uid);
    job->namespace_ = xstrdup(pod->namespace_);
    job->name = xstrdup(pod->name);
    job->container = xstrdup(pod->containers[0].name);
    job->jid = xasprintf("local-%.13s", pod->uid);
    job->grace_seconds = pod->termination_grace_seconds;
    job->created_ns = job->started_ns = clock_real_ns();
    if (!local_start(job, create, local_on_exit, err)) {
        local_job_free(job);
        return false;
    }
    local_move(job, LOCAL_RUNNING);
    log_info("local job %s (%s/%s) runs as process %d", job->uid, job->namespace_, job->name, (int)job->process.pid);
    *jid = job->jid;
    return true;
}

static void local_submit(void *self, const struct interlink_create *create,
                         void (*done)(void *arg, const char *jid, const struct status *err), void *arg)
{
    struct local *local = self;
    struct status err = STATUS_INIT;
    struct local_job *known = strmap_get(&local->by_uid, create->pod.uid);
    const char *jid = "";

    if (known != NULL && (known->stage == LOCAL_ENDING || known->stage == LOCAL_REMOVING))
        status_set(&err, STATUS_UNAVAILABLE, "pod %s/%s: an earlier job with the uid %s is still being removed: try again",
                   create->pod.namespace_, create->pod.name, create->pod.uid);
    else if (known != NULL)
        jid = known->jid;
    else
        local_submit_new(local, create, &jid, &err);
    done(arg, jid, err.code == STATUS_OK ? NULL : &err);
}

static void local_cancel(void *self, const char *uid, int64_t grace_seconds,
                         void (*done)(void *arg, const struct status *err), void *arg)
{
    struct local *local = self;
    struct local_job *job = strmap_get(&local->by_uid, uid);
    struct status err = STATUS_INIT;

    if (job == NULL) {
        status_set(&err, STATUS_NOT_FOUND, "no job with the uid %s is known", uid);
        done(arg, &err);
        return;
    }
    struct local_waiter *waiter = xcalloc(1, sizeof *waiter);
    *waiter = (struct local_waiter){ .done = done, .arg = arg };
    list_append(&job->waiters, &waiter->link);
    if (job->stage == LOCAL_RUNNING) {
        local_move(job, LOCAL_ENDING);
        local_save_cancel(job);
        local_end(job, grace_seconds, false);
    } else if (job->stage == LOCAL_ENDING) {
        /* Asked again: the newer grace period counts. */
        local_end(job, grace_seconds, true);
    } else if (job->stage == LOCAL_CLEANING || job->stage == LOCAL_ENDED) {
        local_move(job, LOCAL_REMOVING);
        local_save_cancel(job);
        timer_stop(&job->timer);
        local_purge_soon(local);
    }
}

static void local_caller_gone(void *self, void *arg)
{
    struct local *local = self;

    for (LIST_EACH(struct local_job, job, &local->jobs, link)) {
        for (LIST_EACH_SAFE(struct local_waiter, w, &job->waiters, link)) {
            if (w->arg != arg)
                continue;
            list_remove(&w->link);
            free(w);
        }
    }
}

/* ---- questions ---- */

static void local_fill_state(const struct local_job *job, struct arena *arena, struct interlink_container_state *out)
{
    if (job->stage == LOCAL_RUNNING || job->stage == LOCAL_ENDING) {
        out->phase = INTERLINK_RUNNING;
        out->ready = true;
        out->started_ns = job->started_ns;
        return;
    }
    /* A removal shows as what it was until nothing is left. */
    out->phase = INTERLINK_TERMINATED;
    out->exit_code = job->exit_code;
    out->signal = job->signal;
    out->reason = arena_strdup(arena, job->reason);
    out->message = arena_strdup(arena, job->message);
    out->started_ns = job->started_ns;
    out->finished_ns = job->finished_ns;
}

static void local_status(void *self, struct arena *arena, const struct interlink_pod *pod,
                         struct interlink_pod_status *out)
{
    const struct local *local = self;
    const struct local_job *job = strmap_get(&local->by_uid, pod->uid);

    backend_status_init(arena, pod, out);
    if (job == NULL)
        return;
    out->jid = arena_strdup(arena, job->jid);
    for (size_t i = 0; i < out->container_count; i++)
        if (strcmp(out->containers[i].name, job->container) == 0)
            local_fill_state(job, arena, &out->containers[i]);
}

static bool local_log(void *self, const char *uid, const char *container, struct backend_log *out, struct status *err)
{
    const struct local *local = self;
    const struct local_job *job = strmap_get(&local->by_uid, uid);

    if (job == NULL)
        return status_set(err, STATUS_NOT_FOUND, "no job with the uid %s is known", uid);
    if (container[0] != '\0' && strcmp(container, job->container) != 0)
        return status_set(err, STATUS_NOT_FOUND, "pod %s/%s has no container \"%s\"", job->namespace_, job->name,
                          container);
    snprintf(out->path, sizeof out->path, "%s/agent.log", job->dir);
    out->live = job->stage == LOCAL_RUNNING || job->stage == LOCAL_ENDING;
    return true;
}

static void local_capacity(void *self, struct arena *arena, struct interlink_ping *out)
{
    (void)self;
    capacity_read(arena, out);
}

static size_t local_job_count(void *self)
{
    return ((struct local *)self)->job_count;
}

const struct backend backend_local = {
    .name = "local",
    .start = local_start_backend,
    .stop = local_stop,
    .submit = local_submit,
    .cancel = local_cancel,
    .caller_gone = local_caller_gone,
    .status = local_status,
    .log = local_log,
    .capacity = local_capacity,
    .job_count = local_job_count,
};

#undef LOCAL_LOOK_MS
#undef LOCAL_REAP_MS
#undef LOCAL_REAP_LOOKS
#undef LOCAL_PURGE_BATCH
#undef LOCAL_PURGE_RETRY_MS
