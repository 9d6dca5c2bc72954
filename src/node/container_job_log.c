/* SPDX-License-Identifier: Apache-2.0 */
#include "node/container_job_log.h"

#include "interlink/interlink.h"
#include "interlink/log_strip.h"
#include "agent/logfile.h"
#include "node/container_job_internal.h"
#include "node/sandbox.h"
#include "node/sandbox_job.h"
#include "rpc/pb.h"
#include "text/crilog.h"

/* Log lines made at a time. */
#define CONTAINER_JOB_LOG_BLOCK (4 * CRILOG_LINE_MAX)

struct container_job_log {
    struct container *container;
    struct interlink_logs *stream; /* NULL: none is under way */
    struct log_strip strip;
    struct buf text;               /* the container's output that makes no line yet */
    struct crilog_writer writer;
    uint64_t at;                   /* bytes of lines made from this answer */
    bool last, over;
    bool probing;                  /* this answer is only looked at */
    unsigned failures;             /* in a row */
    struct timer retry;
};

static void container_job_log_ask(void *arg);

/* False: the disk is full. */
static bool container_job_log_store(struct container_job_log *log, bool flush)
{
    struct logfile *file = log->container->log;
    uint8_t *block = xmalloc(CONTAINER_JOB_LOG_BLOCK);
    const struct crilog_span out[2] = { { block, CONTAINER_JOB_LOG_BLOCK }, { NULL, 0 } };
    size_t produced = 1;
    bool room = true;

    while (produced > 0 && file != NULL) {
        size_t used = crilog_write(&log->writer, CRILOG_STDOUT, clock_real_ns(),
                                   (struct str){ (const char *)log->text.p, log->text.n }, flush, out, &produced);
        buf_consume(&log->text, used);
        room = logfile_take(file, log->at, block, produced);
        log->at += produced;
    }
    free(block);
    return room;
}

static bool container_job_log_on_data(void *arg, const void *p, size_t n)
{
    struct container_job_log *log = arg;

    log->failures = 0;
    log_strip_feed(&log->strip, (struct str){ p, n }, &log->text);
    if (!log->probing)
        return container_job_log_store(log, false);
    buf_clear(&log->text);
    return true;
}

static void container_job_log_finish(struct container_job_log *log)
{
    log->over = true;
    if (log->container->log != NULL)
        logfile_take_end(log->container->log);
}

static void container_job_log_on_end(void *arg, const struct status *err)
{
    struct container_job_log *log = arg;

    log->stream = NULL;
    if (log->probing) {
        log->probing = false;
        if (log->strip.ended)
            interlink_job_believe(log->container->job->job);
        return;
    }
    if (log->last && err == NULL) {
        log_strip_end(&log->strip, &log->text);
        container_job_log_store(log, true);
        container_job_log_finish(log);
        return;
    }
    log->failures++;
    if (log->last && log->failures >= CONTAINER_JOB_LOG_TRIES) {
        log_warn("container %.13s: the end of its output cannot be had from the site: %s", log->container->record->id, err->message);
        container_job_log_finish(log);
        return;
    }
    if (err != NULL)
        log_debug("container %.13s: its output: %s", log->container->record->id, err->message);
    timer_start(log->container->node->loop, &log->retry, CONTAINER_JOB_LOG_RETRY_MS, container_job_log_ask, log);
}

static void container_job_log_ask(void *arg)
{
    struct container_job_log *log = arg;
    const struct container *container = log->container;
    const Runtime__V1__PodSandboxMetadata *m = container->sandbox->record->config->metadata;
    cleanup_arena struct arena arena = ARENA_INIT;
    static const struct interlink_logs_events events = { container_job_log_on_data, container_job_log_on_end };
    struct interlink_log_request request = {
        .namespace_ = m->namespace_,
        .pod_uid = container->record->job_uid,
        .pod_name = sandbox_job_name(&arena, m->name, container->record->id),
        .container = container->record->config->metadata->name,
        .follow = !log->last && !log->probing,
    };

    timer_stop(&log->retry);
    log_strip_reset(&log->strip);
    buf_clear(&log->text);
    log->at = 0;
    log->stream = interlink_logs_start(container->sandbox->handler->target, &request, &events, log);
}

struct container_job_log *container_job_log_new(struct container *container)
{
    struct container_job_log *log = xcalloc(1, sizeof *log);
    const Runtime__V1__PodSandboxConfig *pod = container->sandbox->record->config;

    log->container = container;
    /* What such a command says comes first. */
    log->strip.noisy = pb_label(pod->n_annotations, (void *)pod->annotations, "slurm-job.vk.io/pre-exec") != NULL;
    return log;
}

void container_job_log_probe(struct container_job_log *log)
{
    if (log->stream != NULL || timer_running(&log->retry) || log->last)
        return;
    log->probing = true;
    container_job_log_ask(log);
}

void container_job_log_follow(struct container_job_log *log)
{
    if (log->probing) {
        interlink_logs_cancel(log->stream);
        log->stream = NULL;
        log->probing = false;
    }
    if (log->stream == NULL && !timer_running(&log->retry) && !log->last)
        container_job_log_ask(log);
}

void container_job_log_last(struct container_job_log *log)
{
    if (log->last)
        return;
    log->last = true;
    log->probing = false;
    log->failures = 0;
    interlink_logs_cancel(log->stream);
    container_job_log_ask(log);
}

void container_job_log_resume(struct container_job_log *log)
{
    if (log->stream != NULL)
        interlink_logs_resume(log->stream);
}

void container_job_log_free(struct container_job_log *log)
{
    if (log == NULL)
        return;
    interlink_logs_cancel(log->stream);
    timer_stop(&log->retry);
    log_strip_reset(&log->strip);
    buf_free(&log->text);
    free(log);
}

#undef CONTAINER_JOB_LOG_BLOCK
