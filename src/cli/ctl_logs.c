/* SPDX-License-Identifier: Apache-2.0 */
/* logs: reads the file that ContainerStatus names, as crictl does; with --follow over rotations, until the container ends. */
#include "cli/ctl.h"

#include "text/crilog.h"
#include "text/timefmt.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* One read, and one step backwards while the last lines are looked for. */
#define CTL_LOG_BLOCK (64u << 10)
/* At the end of the file: how soon to look again, and how often to ask whether the container still runs. */
#define CTL_LOG_PAUSE_MS 100
#define CTL_LOG_STATUS_MS 1000
/* Nobody makes a new file under the old name in this time: there is none. */
#define CTL_LOG_REOPEN_MS 5000

struct ctl_logging {
    struct ctl *ctl;
    const char *id, *path;
    struct crilog_reader reader;
    struct buf error; /* for standard error, unless: */
    bool together;    /* it is the same file, terminal or pipe as standard output: the lines keep their order */
    int fd;
    int64_t asked_ms;   /* when the container's state was asked for last */
    bool ended;         /* it runs no more: what is in the file now is all */
};

/* ---- --since ---- */

/* RFC 3339 in a shorter form (no zone: local time; no seconds, no time of day): completed. */
static bool ctl_local_time(const char *text, int64_t *ns)
{
    static const char *const forms[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d" };

    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        struct tm tm = { .tm_isdst = -1 };
        const char *end = strptime(text, forms[i], &tm);
        int64_t fraction = 0, unit = 100000000;
        if (end == NULL)
            continue;
        if (i == 0 && *end == '.')
            for (end++; *end >= '0' && *end <= '9'; end++, unit /= 10)
                fraction += unit * (*end - '0');
        if (*end != '\0')
            continue;
        time_t seconds = mktime(&tm);
        return !__builtin_mul_overflow((int64_t)seconds, INT64_C(1000000000), ns) &&
               !__builtin_add_overflow(*ns, fraction, ns);
    }
    return false;
}

/* A duration back from now, a time, or seconds since the epoch. */
static bool ctl_read_since(const char *text, int64_t *ns, struct status *err)
{
    uint64_t seconds;
    int64_t back;

    *ns = 0;
    if (*text == '\0')
        return true;
    if (parse_u64(text, INT64_MAX / 1000000000, &seconds)) {
        *ns = (int64_t)seconds * 1000000000;
        return true;
    }
    if (timefmt_parse_duration(text, &back)) {
        *ns = clock_real_ns() - back;
        return true;
    }
    return timefmt_parse(str_of(text), ns) || ctl_local_time(text, ns) ||
           status_set(err, STATUS_INVALID_ARGUMENT,
                      "--since: wanted a duration like 10m or a time like 2026-11-24T05:36:00Z, got \"%.64s\"", text);
}

/* ---- reading ---- */

/* Goes to where the last `lines` lines begin. */
static bool ctl_seek_tail(struct ctl_logging *l, int64_t lines, struct status *err)
{
    struct crilog_tail tail = { .lines = (uint64_t)lines };
    uint8_t *block = arena_alloc_raw(&l->ctl->arena, CTL_LOG_BLOCK);
    off_t end = lseek(l->fd, 0, SEEK_END), at = 0;

    while (end > 0) {
        size_t n = end < (off_t)CTL_LOG_BLOCK ? (size_t)end : CTL_LOG_BLOCK, offset;
        ssize_t got = pread(l->fd, block, n, end - (off_t)n);
        if (got != (ssize_t)n)
            return got < 0 ? status_errno(err, "reading %s", l->path)
                           : status_set(err, STATUS_ABORTED, "%s was cut while it was read: try again", l->path);
        if (crilog_tail_step(&tail, (struct str){ (const char *)block, n }, &offset)) {
            at = end - (off_t)n + (off_t)offset;
            break;
        }
        end -= (off_t)n;
    }
    return lseek(l->fd, at, SEEK_SET) >= 0 || status_errno(err, "reading %s", l->path);
}

/* Shows what there is up to the file's end; *more: something came. */
static bool ctl_show(struct ctl_logging *l, bool *more, struct status *err)
{
    static uint8_t block[CTL_LOG_BLOCK];

    *more = false;
    while (!l->reader.done) {
        ssize_t n = read(l->fd, block, sizeof block);
        if (n < 0)
            return status_errno(err, "reading %s", l->path);
        if (n == 0)
            break;
        *more = true;
        crilog_read(&l->reader, (struct str){ (const char *)block, (size_t)n }, &l->ctl->out,
                    l->together ? &l->ctl->out : &l->error);
        if (!ctl_flush(l->ctl))
            l->reader.done = true; /* nobody reads any more */
        ctl_write_error(l->error.p, l->error.n);
        buf_clear(&l->error);
        if (!ctl_turn(l->ctl, 0, err))
            return false;
    }
    return true;
}

static bool ctl_same_output(void)
{
    struct stat out, error;

    return fstat(STDOUT_FILENO, &out) == 0 && fstat(STDERR_FILENO, &error) == 0 && out.st_dev == error.st_dev &&
           out.st_ino == error.st_ino;
}

static bool ctl_open_log(struct ctl_logging *l, struct status *err)
{
    l->fd = open(l->path, O_RDONLY | O_CLOEXEC);
    return l->fd >= 0 || status_errno(err, "opening the log %s", l->path);
}

/* ---- following ---- */

/* Whether another file stands under the log's name now: kubelet rotates by renaming. */
static bool ctl_rotated(const struct ctl_logging *l)
{
    struct stat here, there;

    return fstat(l->fd, &here) == 0 && stat(l->path, &there) == 0 &&
           (here.st_ino != there.st_ino || here.st_dev != there.st_dev);
}

static bool ctl_log_status(struct ctl *ctl, const char *id, const Runtime__V1__ContainerStatus **out, struct status *err)
{
    Runtime__V1__ContainerStatusRequest request = RUNTIME__V1__CONTAINER_STATUS_REQUEST__INIT;

    request.container_id = (char *)(uintptr_t)id;
    const Runtime__V1__ContainerStatusResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "ContainerStatus", &request, &runtime__v1__container_status_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err);
    if (r == NULL || r->status == NULL)
        return r == NULL ? status_prefix(err, "the status of the container %s", id)
                         : status_set(err, STATUS_INTERNAL, "the runtime gave no status of the container %s", id);
    *out = r->status;
    return true;
}

/* Sets `ended` when the container has ended or is gone. */
static bool ctl_ask_ended(struct ctl_logging *l, struct status *err)
{
    const Runtime__V1__ContainerStatus *status;

    l->asked_ms = clock_mono_ms();
    if (!ctl_log_status(l->ctl, l->id, &status, err)) {
        l->ended = err->code == STATUS_NOT_FOUND;
        return l->ended;
    }
    l->ended = status->state == RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED;
    return true;
}

/* Takes the next file after a rotation. */
static bool ctl_next_log(struct ctl_logging *l, struct status *err)
{
    int64_t until = clock_mono_ms() + CTL_LOG_REOPEN_MS;

    close(l->fd);
    while (!ctl_open_log(l, err)) {
        if (err->code != STATUS_NOT_FOUND || clock_mono_ms() > until || !ctl_turn(l->ctl, CTL_LOG_PAUSE_MS, err))
            return false;
    }
    return true;
}

static bool ctl_follow(struct ctl_logging *l, struct status *err)
{
    while (!l->reader.done) {
        bool more;
        /* Asked before the last look, so that nothing written before the end is missed. */
        bool ended = l->ended, rotated = ctl_rotated(l);
        if (!ctl_show(l, &more, err))
            return false;
        if (more)
            continue;
        if (rotated) {
            if (!ctl_next_log(l, err))
                return false;
            continue;
        }
        if (ended)
            return true;
        if (clock_mono_ms() - l->asked_ms >= CTL_LOG_STATUS_MS && !ctl_ask_ended(l, err))
            return false;
        if (!l->ended && !ctl_turn(l->ctl, CTL_LOG_PAUSE_MS, err))
            return false;
    }
    return true;
}

/* ---- the verb ---- */

/* --previous: the log of the attempt before, beside this one: .../0.log, .../1.log. */
static bool ctl_previous_log(struct ctl *ctl, const Runtime__V1__ContainerStatus *status, const char **path,
                             struct status *err)
{
    const char *slash = strrchr(*path, '/'), *dot = strrchr(*path, '.');

    if (status->metadata == NULL || status->metadata->attempt == 0)
        return status_set(err, STATUS_NOT_FOUND, "the container has no previous instance");
    *path = arena_printf(&ctl->arena, "%.*s%" PRIu32 "%s", (int)(slash + 1 - *path), *path, status->metadata->attempt - 1,
                         dot != NULL && dot > slash ? dot : "");
    return true;
}

static bool ctl_find_log(struct ctl *ctl, struct ctl_logging *l, struct status *err)
{
    Runtime__V1__ReopenContainerLogRequest reopen = RUNTIME__V1__REOPEN_CONTAINER_LOG_REQUEST__INIT;
    const Runtime__V1__ContainerStatus *status;

    reopen.container_id = (char *)(uintptr_t)l->id;
    if (ctl->flags.reopen) {
        if (ctl_call(ctl, CTL_RUNTIME, "ReopenContainerLog", &reopen,
                     &runtime__v1__reopen_container_log_response__descriptor, CTL_CALL_TIMEOUT_MS, err) == NULL)
            return status_prefix(err, "reopening the log");
        fputs("Container logs reopened\n", stderr);
    }
    if (!ctl_log_status(ctl, l->id, &status, err))
        return false;
    l->path = status->log_path;
    l->ended = status->state == RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED;
    if (*l->path != '/')
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "the container writes no log: its pod has no log_directory, or it has no log_path");
    return !ctl->flags.previous || ctl_previous_log(ctl, status, &l->path, err);
}

static bool ctl_read_log_flags(const struct ctl *ctl, struct crilog_reader *r, struct status *err)
{
    const struct ctl_flags *f = &ctl->flags;

    r->timestamps = f->timestamps;
    r->limit_bytes = f->limit_bytes > 0 ? (size_t)f->limit_bytes : 0;
    r->only_stdout = strcmp(f->stream, "stdout") == 0;
    r->only_stderr = strcmp(f->stream, "stderr") == 0;
    if (*f->stream != '\0' && !r->only_stdout && !r->only_stderr)
        return status_set(err, STATUS_INVALID_ARGUMENT, "--stream: wanted stdout or stderr, got \"%.64s\"", f->stream);
    if (*f->stream != '\0' && f->tail >= 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "--tail and --stream cannot go together");
    return ctl_read_since(f->since, &r->since_ns, err);
}

int ctl_logs(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct ctl_logging l = { .ctl = ctl, .id = arguments[0], .fd = -1, .together = ctl_same_output() };
    struct status err = STATUS_INIT;
    bool more;
    (void)count;

    bool ok = ctl_read_log_flags(ctl, &l.reader, &err) && ctl_find_log(ctl, &l, &err) && ctl_open_log(&l, &err);
    if (ok && ctl->flags.tail >= 0)
        ok = ctl_seek_tail(&l, ctl->flags.tail, &err);
    if (ok && ctl->flags.limit_bytes != 0)
        ok = ctl->flags.follow && !ctl->flags.previous ? ctl_follow(&l, &err) : ctl_show(&l, &more, &err);
    if (l.fd >= 0)
        close(l.fd);
    crilog_reader_free(&l.reader);
    buf_free(&l.error);
    if (ok || ctl->interrupted) /* Ctrl-C is how one stops following */
        return 0;
    return ctl_fail(ctl, &err);
}

#undef CTL_LOG_BLOCK
#undef CTL_LOG_PAUSE_MS
#undef CTL_LOG_STATUS_MS
#undef CTL_LOG_REOPEN_MS
