/* SPDX-License-Identifier: Apache-2.0 */
#include "image/job.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/store_internal.h"
#include "io/file.h"

/* A message: its length (32 bits, this machine's order), its word, its content. */
enum job_word { JOB_NEEDS = 'n', JOB_GO = 'g', JOB_PROGRESS = 'p', JOB_IMAGE = 'i', JOB_DONE = 'd', JOB_FAILED = 'f' };
#define JOB_HEAD 5u

/* ---- in the child ---- */

static bool job_say(int fd, enum job_word word, const void *p, size_t n, struct status *err)
{
    struct buf cleanup_buf message = BUF_INIT;
    uint32_t length = (uint32_t)n;

    buf_append(&message, &length, sizeof length);
    buf_append_byte(&message, (uint8_t)word);
    buf_append(&message, p, n);
    return write_all(fd, message.p, message.n, err);
}

bool job_need(struct job_channel *c, const struct digest *digests, size_t count, struct status *err)
{
    uint8_t answer;
    ssize_t n;

    if (!job_say(c->fd, JOB_NEEDS, digests, count * sizeof *digests, err))
        return false;
    do
        n = read(c->fd, &answer, 1);
    while (n < 0 && errno == EINTR);
    return (n == 1 && answer == JOB_GO) || status_set(err, STATUS_CANCELLED, "the image store's owner is gone");
}

void job_progress(struct job_channel *c, const struct image_progress *blobs, size_t count)
{
    struct status ignored;

    job_say(c->fd, JOB_PROGRESS, blobs, count * sizeof *blobs, &ignored);
}

bool job_image(struct job_channel *c, const struct record *record, struct status *err)
{
    struct buf cleanup_buf text = BUF_INIT;
    cleanup_close int root = open(c->store->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (root < 0 || syncfs(root) < 0)
        return status_errno(err, "cannot sync the file system of %s", c->store->root);
    record_encode(record, &text);
    return job_say(c->fd, JOB_IMAGE, text.p, text.n, err);
}

/* Runs in the forked copy; never returns. */
static void job_child(struct job *job, int fd, pid_t parent)
{
    struct job_channel channel = { .fd = fd, .store = job->store };
    struct status err = STATUS_INIT, ignored;

    child_reset_signals();
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(1);
    /* Pods' calls go before images. */
    setpriority(PRIO_PROCESS, 0, 5);
    child_close_fds_except(&fd, 1);
    if (job->options.work(&channel, job->options.work_arg, &err))
        job_say(fd, JOB_DONE, "", 0, &ignored);
    else
        job_say(fd, JOB_FAILED, &err, sizeof err, &ignored);
    _exit(0);
}

/* ---- in the owner ---- */

static void job_free(struct job *job)
{
    if (job->gone != NULL)
        *job->gone = true;
    deferred_stop(&job->ending);
    watch_stop(&job->watch);
    if (job->fd >= 0)
        close(job->fd);
    if (job->state != JOB_WAITING && !job->exited) {
        kill(job->child.pid, SIGKILL);
        child_forget(&job->child);
    }
    list_remove(&job->link);
    buf_free(&job->in);
    for (size_t i = 0; i < job->id_count; i++)
        free(job->ids[i]);
    free(job->ids);
    free(job->pins);
    free(job);
}

static void job_next(struct image_store *store);

/* Everything has been heard: tells the owner. */
static void job_finish(void *arg)
{
    struct job *job = arg;
    struct image_store *store = job->store;
    struct job_options o = job->options;
    struct status err = job->err;
    bool ok = job->ended && err.code == STATUS_OK;

    if (!ok && err.code == STATUS_OK && WIFSIGNALED(job->wait_status))
        status_set(&err, STATUS_INTERNAL, "the process that fetched the image was ended by signal %d (%s)",
                   WTERMSIG(job->wait_status), strsignal(WTERMSIG(job->wait_status)));
    else if (!ok && err.code == STATUS_OK)
        status_set(&err, STATUS_INTERNAL, "the process that fetched the image ended with status %d and without a word",
                   WEXITSTATUS(job->wait_status));
    char **ids = job->ids;
    size_t count = job->id_count;
    job->ids = NULL;
    job->id_count = 0;
    job_free(job);
    sweep_after_job(store, !ok, err.code);
    job_next(store);
    o.on_done(o.arg, (const char *const *)ids, count, ok ? NULL : &err);
    for (size_t i = 0; i < count; i++)
        free(ids[i]);
    free(ids);
}

static void job_check_end(struct job *job)
{
    if (job->exited && job->fd < 0)
        deferred_start(job->store->loop, &job->ending, job_finish, job);
}

static void job_on_exit(void *arg, int wait_status)
{
    struct job *job = arg;

    job->exited = true;
    job->wait_status = wait_status;
    job_check_end(job);
}

static void job_on_needs(struct job *job, struct str body)
{
    size_t count = body.n / sizeof *job->pins;

    job->pins = xrealloc(job->pins, (job->pin_count + count + 1) * sizeof *job->pins);
    memcpy(job->pins + job->pin_count, body.p, count * sizeof *job->pins);
    job->pin_count += count;
    job->state = JOB_ASKING;
    if (!sweep_running(job->store))
        job_sweep_ended(job->store);
}

void job_sweep_ended(struct image_store *store)
{
    uint8_t go = JOB_GO;

    for (LIST_EACH(struct job, job, &store->jobs, link)) {
        if (job->state != JOB_ASKING)
            continue;
        job->state = JOB_RUNNING;
        /* One byte always fits; a child that is gone is heard of otherwise. */
        ssize_t ignored UNUSED = send(job->fd, &go, 1, MSG_NOSIGNAL);
    }
}

static void job_on_image(struct job *job, struct str body)
{
    struct record *proposal = record_decode(body, &job->err);
    const struct record *r = proposal == NULL ? NULL : store_commit(job->store, proposal, &job->err);

    if (r == NULL)
        return;
    job->ids = xrealloc(job->ids, (job->id_count + 1) * sizeof *job->ids);
    job->ids[job->id_count++] = xstrdup(r->image.id);
}

static void job_on_progress(struct job *job, struct str body)
{
    size_t count = body.n / sizeof(struct image_progress);
    cleanup_free struct image_progress *blobs = xcalloc(count + 1, sizeof *blobs); /* aligned, as the message is not */

    memcpy(blobs, body.p, count * sizeof *blobs);
    job->options.on_progress(job->options.arg, blobs, count);
}

static void job_hear(struct job *job, uint8_t word, struct str body)
{
    switch (word) {
    case JOB_NEEDS:
        job_on_needs(job, body);
        return;
    case JOB_IMAGE:
        if (job->err.code == STATUS_OK)
            job_on_image(job, body);
        return;
    case JOB_DONE:
        job->ended = true;
        return;
    case JOB_FAILED:
        job->ended = true;
        if (body.n == sizeof job->err && job->err.code == STATUS_OK)
            memcpy(&job->err, body.p, sizeof job->err);
        return;
    case JOB_PROGRESS:
        if (job->options.on_progress != NULL)
            job_on_progress(job, body);
        return;
    default:
        return;
    }
}

/* Hears all whole messages. False: no more is to be read, or a callback has cancelled the job (*gone). */
static bool job_take(struct job *job, bool *gone)
{
    uint32_t length;

    while (job->in.n >= JOB_HEAD) {
        memcpy(&length, job->in.p, sizeof length);
        if (length > IMAGE_JOB_MESSAGE_MAX)
            return false;
        if (job->in.n < JOB_HEAD + length)
            return true;
        job_hear(job, job->in.p[4], (struct str){ (const char *)job->in.p + JOB_HEAD, length });
        if (*gone)
            return false;
        buf_consume(&job->in, JOB_HEAD + length);
    }
    return true;
}

static void job_on_input(void *arg, unsigned events)
{
    struct job *job = arg;
    bool gone = false;

    (void)events;
    job->gone = &gone;
    for (;;) {
        ssize_t n = read(job->fd, buf_reserve(&job->in, 4096), 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            job->gone = NULL;
            return;
        }
        if (n <= 0)
            break;
        job->in.n += (size_t)n;
        if (!job_take(job, &gone))
            break;
    }
    if (gone)
        return;
    job->gone = NULL;
    watch_stop(&job->watch);
    close(job->fd);
    job->fd = -1;
    job_check_end(job);
}

/* ---- starting ---- */

static bool job_fork(struct job *job, struct status *err)
{
    pid_t parent = getpid();
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return status_errno(err, "cannot start a process for the image: no socket");
    pid_t pid = fork();
    if (pid == 0)
        job_child(job, fds[1], parent);
    if (pid < 0)
        status_errno(err, "cannot start a process for the image: fork");
    close(fds[1]);
    fd_set_nonblocking(fds[0], true);
    if (pid < 0) {
        close(fds[0]);
        return false;
    }
    job->fd = fds[0];
    job->exited = false;
    child_adopt(job->store->loop, &job->child, pid, job_on_exit, job);
    return watch_start(job->store->loop, &job->watch, job->fd, WATCH_READ, job_on_input, job, err);
}

static void job_next(struct image_store *store)
{
    size_t running = 0;

    for (LIST_EACH(struct job, job, &store->jobs, link))
        running += job->state != JOB_WAITING;
    for (LIST_EACH(struct job, job, &store->jobs, link)) {
        if (running >= store->jobs_max)
            return;
        if (job->state != JOB_WAITING)
            continue;
        running++;
        job->state = JOB_RUNNING;
        job->exited = true; /* until there is a child */
        if (!job_fork(job, &job->err))
            deferred_start(store->loop, &job->ending, job_finish, job);
    }
}

struct job *job_start(struct image_store *store, const struct job_options *options)
{
    struct job *job = xcalloc(1, sizeof *job);

    job->store = store;
    job->options = *options;
    job->fd = -1;
    list_append(&store->jobs, &job->link);
    job_next(store);
    return job;
}

void job_cancel(struct job *job)
{
    if (job == NULL)
        return;
    struct image_store *store = job->store;
    bool begun = job->state != JOB_WAITING;
    job_free(job);
    if (begun)
        sweep_after_job(store, true, STATUS_CANCELLED);
    job_next(store);
}

bool job_waits(const struct job *job)
{
    return job->state == JOB_WAITING;
}

#undef JOB_HEAD
