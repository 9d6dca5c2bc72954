/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/pod_log.h"

#include <sys/stat.h>
#include <unistd.h>

#include "io/loop.h"
#include "plugin/pod_log_files.h"
#include "text/crilog.h"

/* Read at a time, and before others have their turn. */
#define POD_LOG_CHUNK (32u << 10)
#define POD_LOG_TURN (1u << 20)

struct pod_log {
    struct loop *loop;
    struct http_exchange *x;
    char *job_dir, *container; /* owned */
    uint64_t tail;
    bool previous, follow;
    bool (*live)(void *arg, int64_t attempt);
    void *arg; /* owned */
    struct pod_log_files files; /* dir NULL: there is no log yet */
    unsigned part;
    int fd; /* -1: none */
    off_t at;
    struct crilog_reader reader;
    struct timer timer;
};

static void pod_log_pump(void *arg);

static void pod_log_free(struct pod_log *l)
{
    timer_stop(&l->timer);
    if (l->fd >= 0)
        close(l->fd);
    crilog_reader_free(&l->reader);
    pod_log_files_free(&l->files);
    free(l->job_dir);
    free(l->container);
    free(l->arg);
    free(l);
}

static void pod_log_on_gone(void *arg)
{
    pod_log_free(arg);
}

static void pod_log_end(struct pod_log *l)
{
    struct http_exchange *x = l->x;

    pod_log_free(l);
    http_reply_end(x);
}

/* Finds the log and where to begin. False: there is none yet. */
static bool pod_log_open(struct pod_log *l)
{
    struct pod_log_place place, since;

    if (!pod_log_files_find(l->job_dir, l->container, l->previous, &l->files))
        return false;
    place = l->tail > 0 ? pod_log_files_tail(&l->files, l->tail) : (struct pod_log_place){ l->files.first, 0 };
    if (l->reader.since_ns > 0) {
        since = pod_log_files_since(&l->files, l->reader.since_ns);
        if (since.part > place.part || (since.part == place.part && since.offset > place.offset))
            place = since;
    }
    l->part = place.part;
    l->at = place.offset;
    l->fd = pod_log_files_open(&l->files, l->part);
    return true;
}

/* The file that was read to its end is no longer the one that grows: on to the next part. False: there is none. */
static bool pod_log_next_part(struct pod_log *l)
{
    struct pod_log_files now;
    struct stat ours, other;

    if (l->part <= l->files.last) { /* a numbered part was ended when it got its number */
        l->part++;
    } else {
        cleanup_close int growing = pod_log_files_open(&l->files, l->part);
        if (l->fd >= 0 && growing >= 0 && fstat(l->fd, &ours) == 0 && fstat(growing, &other) == 0 && ours.st_ino == other.st_ino)
            return false;
        /* It was rotated away, perhaps more than once: its number is the first new one. */
        if (growing < 0 || !pod_log_files_find(l->job_dir, l->container, l->previous, &now) || now.attempt != l->files.attempt) {
            if (growing >= 0)
                pod_log_files_free(&now);
            return false;
        }
        unsigned was = l->part;
        pod_log_files_free(&l->files);
        l->files = now;
        l->part = was + 1 > now.first ? was + 1 : now.first;
    }
    if (l->fd >= 0)
        close(l->fd);
    l->fd = pod_log_files_open(&l->files, l->part);
    l->at = 0;
    return l->fd >= 0;
}

/* True: there is more to read. */
static bool pod_log_at_end(struct pod_log *l)
{
    if (pod_log_next_part(l))
        return true;
    if (!l->follow) {
        pod_log_end(l);
        return false;
    }
    /* Asked before the file is looked at once more: what was written before the end is not missed. */
    if (!l->live(l->arg, l->files.attempt))
        l->follow = false;
    timer_start(l->loop, &l->timer, l->follow ? PLUGIN_FOLLOW_MS : 0, pod_log_pump, l);
    return false;
}

static void pod_log_pump(void *arg)
{
    struct pod_log *l = arg;
    cleanup_free char *chunk = xmalloc(POD_LOG_CHUNK);
    cleanup_buf struct buf out = BUF_INIT;
    size_t turn = 0;
    bool more = true;

    timer_stop(&l->timer);
    if (l->files.dir == NULL && !pod_log_open(l)) {
        if (l->follow && l->live(l->arg, -1))
            timer_start(l->loop, &l->timer, PLUGIN_FOLLOW_MS, pod_log_pump, l);
        else
            pod_log_end(l);
        return;
    }
    while (more && !l->reader.done) {
        ssize_t n = l->fd < 0 ? 0 : pread(l->fd, chunk, POD_LOG_CHUNK, l->at);
        if (n <= 0) {
            if (!pod_log_at_end(l))
                return;
            continue;
        }
        l->at += n;
        turn += (size_t)n;
        buf_clear(&out);
        crilog_read(&l->reader, (struct str){ chunk, (size_t)n }, &out, &out);
        more = out.n == 0 || http_reply_send(l->x, out.p, out.n);
        if (more && turn > POD_LOG_TURN && !l->reader.done) {
            timer_start(l->loop, &l->timer, 0, pod_log_pump, l);
            return;
        }
    }
    if (l->reader.done)
        pod_log_end(l);
}

void pod_log_start(struct loop *loop, struct http_exchange *x, const struct pod_log_options *o)
{
    const struct interlink_log_request *r = o->request;
    struct http_header type = { "Content-Type", "text/plain; charset=utf-8" };
    struct pod_log *l = xcalloc(1, sizeof *l);

    *l = (struct pod_log){ .loop = loop, .x = x, .job_dir = xstrdup(o->job_dir), .container = xstrdup(r->container), .tail = r->tail,
                           .previous = r->previous, .follow = r->follow && !r->previous, .live = o->live, .arg = o->arg, .fd = -1 };
    l->reader.timestamps = r->timestamps;
    l->reader.limit_bytes = r->bytes < SIZE_MAX ? (size_t)r->bytes : 0;
    l->reader.since_ns = r->since_seconds > 0 ? o->now_ns - (int64_t)r->since_seconds * 1000000000 : r->since_time_ns;
    http_reply_start(x, 200, &type, 1);
    http_exchange_on_gone(x, pod_log_on_gone, l);
    http_exchange_on_writable(x, pod_log_pump, l);
    pod_log_pump(l);
}

#undef POD_LOG_CHUNK
#undef POD_LOG_TURN
