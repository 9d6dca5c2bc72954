/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/slurm.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "io/file.h"
#include "plugin/backend_common.h"
#include "text/json.h"

#define SLURM_RECORD_MAX 65536
/* slurmstepd's last words are among the last lines of a log. */
#define SLURM_LOG_TAIL 4096

char *slurm_record_path(const struct slurm *slurm, const char *uid, const char *suffix)
{
    return backend_record_path(slurm->dir, uid, suffix);
}

/* ---- writing ---- */

/* Synced: unlike a process of this machine, a job survives a power cut here. */
static bool slurm_record_put(const struct slurm_job *job, const char *suffix, const void *p, size_t n, struct status *err)
{
    cleanup_free char *path = slurm_record_path(job->slurm, job->uid, suffix);

    return file_write_atomic(path, p, n, 0600, err);
}

bool slurm_record_write(const struct slurm_job *job, struct status *err)
{
    struct json_writer w;
    cleanup_buf struct buf text = BUF_INIT;

    json_writer_init(&w, &text, 0);
    json_write_object(&w);
    json_write_member_i64(&w, "version", 1);
    json_write_member_string(&w, "uid", job->uid);
    json_write_member_string(&w, "namespace", job->namespace_);
    json_write_member_string(&w, "name", job->name);
    json_write_member_string(&w, "container", job->container);
    json_write_member_i64(&w, "graceSeconds", job->grace_seconds);
    json_write_member_i64(&w, "createdNs", job->created_ns);
    json_write_end(&w);
    return slurm_record_put(job, "json", text.p, text.n, err);
}

bool slurm_record_write_jid(const struct slurm_job *job, struct status *err)
{
    return slurm_record_put(job, "jid", job->jid, strlen(job->jid), err);
}

bool slurm_record_write_end(const struct slurm_job *job, struct status *err)
{
    struct json_writer w;
    cleanup_buf struct buf text = BUF_INIT;

    json_writer_init(&w, &text, 0);
    json_write_object(&w);
    json_write_member_i64(&w, "exitCode", job->exit_code);
    json_write_member_i64(&w, "signal", job->signal);
    json_write_member_string(&w, "reason", job->reason);
    json_write_member_string(&w, "message", job->message);
    json_write_member_i64(&w, "startedNs", job->started_ns);
    json_write_member_i64(&w, "finishedNs", job->finished_ns);
    json_write_end(&w);
    return slurm_record_put(job, "end", text.p, text.n, err);
}

bool slurm_record_write_cancel(const struct slurm_job *job, struct status *err)
{
    return slurm_record_put(job, "cancel", "", 0, err);
}

/* In this order: as long as there is a record, a cancel stays one. */
static const char *const slurm_record_suffixes[] = { "end", "jid", "json", "cancel" };

void slurm_record_remove(const struct slurm *slurm, const char *uid)
{
    backend_record_remove("slurm", slurm->dir, uid, slurm_record_suffixes, COUNT_OF(slurm_record_suffixes));
}

/* ---- what the job's script left ---- */

static bool slurm_read_job_file(const struct slurm_job *job, const char *name, struct buf *text)
{
    struct status ignored = STATUS_INIT;
    cleanup_free char *path = xasprintf("%s/%s", job->dir, name);

    return file_read(path, 1024, text, &ignored);
}

/* Seconds since the epoch; far from any overflow. */
static int64_t slurm_epoch_ns(long long seconds)
{
    return seconds > 0 && seconds < INT64_C(8000000000) ? (int64_t)seconds * 1000000000 : 0;
}

bool slurm_read_started(const struct slurm_job *job, struct slurm_started *out)
{
    cleanup_buf struct buf text = BUF_INIT;
    long long at = 0;

    *out = (struct slurm_started){ 0 };
    if (!slurm_read_job_file(job, "started", &text) ||
        sscanf(buf_cstr(&text), "%" SCNu32 " %" SCNu32 " %lld %127s", &out->job_id, &out->restarts, &at, out->host) < 3)
        return false;
    out->at_ns = slurm_epoch_ns(at);
    return out->job_id != 0;
}

bool slurm_read_left(const struct slurm_job *job, struct slurm_left *out)
{
    cleanup_buf struct buf text = BUF_INIT;
    long long at = 0, noticed = 0, termed = 0;

    *out = (struct slurm_left){ 0 };
    if (!slurm_read_job_file(job, "ended", &text) ||
        sscanf(buf_cstr(&text), "%3d %lld %lld %lld", &out->exit_code, &at, &noticed, &termed) != 4 || out->exit_code < 0 ||
        out->exit_code > 255)
        return false;
    out->at_ns = slurm_epoch_ns(at);
    out->noticed_ns = slurm_epoch_ns(noticed);
    out->termed_ns = slurm_epoch_ns(termed);
    return true;
}

const char *slurm_read_verdict(const struct slurm_job *job)
{
    char tail[SLURM_LOG_TAIL];
    cleanup_free char *path = xasprintf("%s/agent.log", job->dir);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
    ssize_t n = size >= 0 ? pread(fd, tail, sizeof tail, size > (off_t)sizeof tail ? size - (off_t)sizeof tail : 0) : -1;

    return n > 0 ? slurm_step_verdict((struct str){ tail, (size_t)n }) : "";
}

bool slurm_sbatch_under_way(const struct slurm_job *job)
{
    cleanup_free char *path = xasprintf("%s/job.sh", job->dir);
    cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

/* ---- reading records ---- */

static bool slurm_record_parse(struct slurm_job *job, struct str text, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const struct json *j = json_parse(&arena, text, err);
    const char *uid = "", *namespace_ = "", *name = "", *container = "";
    int64_t version = 0;

    if (j == NULL || !json_want(j, JSON_OBJECT, err) || !json_read_i64(j, "version", 1, 1, &version, err) ||
        !json_read_string(j, "uid", &uid, err) || !json_read_string(j, "namespace", &namespace_, err) ||
        !json_read_string(j, "name", &name, err) || !json_read_string(j, "container", &container, err) ||
        !json_read_i64(j, "graceSeconds", -1, INT32_MAX, &job->grace_seconds, err) ||
        !json_read_i64(j, "createdNs", 0, INT64_MAX, &job->created_ns, err))
        return false;
    if (version != 1 || strcmp(uid, job->uid) != 0)
        return status_set(err, STATUS_DATA_LOSS, "no record of a job with this name");
    job->namespace_ = xstrdup(namespace_);
    job->name = xstrdup(name);
    job->container = xstrdup(container);
    return true;
}

static bool slurm_read_jid(struct slurm_job *job)
{
    cleanup_free char *path = slurm_record_path(job->slurm, job->uid, "jid");
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;
    uint64_t value;

    if (!file_read(path, 64, &text, &ignored) || !parse_u64(buf_cstr(&text), UINT32_MAX, &value) || value == 0)
        return false;
    slurm_set_job_id(job, (uint32_t)value);
    return true;
}

static bool slurm_read_end(struct slurm_job *job)
{
    cleanup_free char *path = slurm_record_path(job->slurm, job->uid, "end");
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status ignored = STATUS_INIT;
    const char *reason = "", *message = "";
    int64_t exit_code = 0, sig = 0, started_ns = 0, finished_ns = 0;

    if (!file_read(path, SLURM_RECORD_MAX, &text, &ignored))
        return false;
    const struct json *j = json_parse(&arena, (struct str){ (const char *)text.p, text.n }, &ignored);
    if (!json_is(j, JSON_OBJECT) || !json_read_i64(j, "exitCode", 0, 255, &exit_code, &ignored) ||
        !json_read_i64(j, "signal", 0, 255, &sig, &ignored) || !json_read_string(j, "reason", &reason, &ignored) ||
        !json_read_string(j, "message", &message, &ignored) ||
        !json_read_i64(j, "startedNs", 0, INT64_MAX, &started_ns, &ignored) ||
        !json_read_i64(j, "finishedNs", 1, INT64_MAX, &finished_ns, &ignored) || finished_ns == 0)
        return false;
    job->exit_code = (int)exit_code;
    job->signal = (int)sig;
    job->started_ns = started_ns;
    job->finished_ns = finished_ns;
    snprintf(job->reason, sizeof job->reason, "%s", reason);
    snprintf(job->message, sizeof job->message, "%s", message);
    return true;
}

/* Decides what a job of an earlier life is now. */
static void slurm_classify(struct slurm_job *job)
{
    cleanup_free char *cancel = slurm_record_path(job->slurm, job->uid, "cancel");
    struct slurm_started started;
    struct status err = STATUS_INIT;
    bool cancelled = access(cancel, F_OK) == 0;
    bool known = slurm_read_jid(job), ended = slurm_read_end(job);
    bool ran = slurm_read_started(job, &started);

    if (!known && ran) {
        slurm_set_job_id(job, started.job_id);
        known = true;
        if (!slurm_record_write_jid(job, &err))
            log_warn("slurm job %s: %s", job->uid, err.message);
    }
    if (!ended && ran)
        job->started_ns = started.at_ns;
    if (ended)
        job->stage = cancelled ? SLURM_REMOVING : SLURM_ENDED;
    else if (cancelled)
        job->stage = SLURM_ENDING;
    else if (!known)
        job->stage = SLURM_LOOKING;
    else
        job->stage = ran ? SLURM_RUNNING : SLURM_QUEUED;
    /* Behind a prefix (ssh) an sbatch may go on though what started it here has ended. */
    if (!known)
        job->looking_until_ms =
            clock_mono_ms() + (job->slurm->config.prefix.count > 0 ? SLURM_GHOST_MS : SLURM_GHOST_RESTART_MS);
}

static void slurm_record_load(void *arg, const char *uid)
{
    struct slurm *slurm = arg;
    struct status err = STATUS_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *path = slurm_record_path(slurm, uid, "json");
    struct slurm_job *job = slurm_job_new(slurm, uid);

    if (file_read(path, SLURM_RECORD_MAX, &text, &err) &&
        slurm_record_parse(job, (struct str){ (const char *)text.p, text.n }, &err)) {
        slurm_classify(job);
        return;
    }
    backend_record_set_aside("slurm", path, uid, &err);
    slurm_job_free(job);
}

/* A folder whose record is gone or was set aside: as a job that is being removed, from Slurm too should it be there. */
static void slurm_adopt_folder(void *arg, const char *uid)
{
    struct slurm *slurm = arg;
    struct status err = STATUS_INIT;

    if (strmap_get(&slurm->by_uid, uid) != NULL)
        return;
    struct slurm_job *job = slurm_job_new(slurm, uid);
    job->namespace_ = xstrdup("");
    job->name = xstrdup("");
    job->container = xstrdup("");
    if (!slurm_record_write_cancel(job, &err))
        log_warn("slurm job %s: %s", uid, err.message);
    slurm_classify(job);
}

/* What is left of a record whose removal was cut off. */
static void slurm_remove_stray(void *arg, const char *uid)
{
    const struct slurm *slurm = arg;

    if (strmap_get(&slurm->by_uid, uid) == NULL)
        slurm_record_remove(slurm, uid);
}

bool slurm_records_load(struct slurm *slurm, struct status *err)
{
    return backend_each(slurm->dir, "records", ".json", slurm_record_load, slurm, err) &&
           backend_each(slurm->dir, "jobs", "", slurm_adopt_folder, slurm, err) &&
           backend_each(slurm->dir, "records", ".jid", slurm_remove_stray, slurm, err) &&
           backend_each(slurm->dir, "records", ".end", slurm_remove_stray, slurm, err) &&
           backend_each(slurm->dir, "records", ".cancel", slurm_remove_stray, slurm, err);
}

#undef SLURM_RECORD_MAX
#undef SLURM_LOG_TAIL
