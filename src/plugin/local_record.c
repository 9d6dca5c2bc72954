/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/local.h"

#include <fcntl.h>
#include <unistd.h>

#include "io/file.h"
#include "plugin/backend_common.h"
#include "text/json.h"

#define LOCAL_RECORD_MAX 65536

char *local_record_path(const struct local *local, const char *uid, const char *suffix)
{
    return backend_record_path(local->dir, uid, suffix);
}

/* ---- processes ---- */

/* One line of proc(5): fields are numbered from 1; the second, the command's name in parentheses, may hold anything. */
static bool local_read_stat(pid_t pid, char *text, size_t room)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, room - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    return strrchr(text, ')') != NULL;
}

/* "" when there are fewer fields. */
static const char *local_stat_field(const char *text, int number)
{
    const char *p = strrchr(text, ')');

    for (int field = 2; p != NULL && field < number; field++)
        p = strchr(p + 1, ' ');
    return p != NULL ? p + 1 : "";
}

bool local_process_start_ticks(pid_t pid, uint64_t *out)
{
    char text[1024];

    if (!local_read_stat(pid, text, sizeof text))
        return false;
    *out = strtoull(local_stat_field(text, 22), NULL, 10);
    return true;
}

bool local_process_look(const struct local_process *p, bool *alive, int *wait_status)
{
    char text[1024];

    *alive = false;
    if (p->pid <= 0 || !local_read_stat(p->pid, text, sizeof text) ||
        strtoull(local_stat_field(text, 22), NULL, 10) != p->start_ticks)
        return false;
    *alive = strchr("ZX", *local_stat_field(text, 3)) == NULL;
    *wait_status = (int)strtol(local_stat_field(text, 52), NULL, 10);
    return true;
}

bool local_process_alive(const struct local_process *p)
{
    bool alive;
    int ignored;

    return local_process_look(p, &alive, &ignored) && alive;
}

/* ---- writing ---- */

/* Not synced: a power cut ends the jobs too, so records only have to survive this process. No file is ever written over:
 * replacing one makes ext4 write it out at once, which takes milliseconds. */
static bool local_record_put(const struct local_job *job, const char *suffix, const struct buf *text,
                             struct status *err)
{
    cleanup_free char *path = local_record_path(job->local, job->uid, suffix);

    return file_replace(path, text->p, text->n, 0600, err);
}

bool local_record_write(const struct local_job *job, struct status *err)
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
    json_write_member_string(&w, "jid", job->jid);
    json_write_member_i64(&w, "graceSeconds", job->grace_seconds);
    json_write_member_i64(&w, "createdNs", job->created_ns);
    json_write_end(&w);
    return local_record_put(job, "json", &text, err);
}

bool local_record_write_end(const struct local_job *job, struct status *err)
{
    struct json_writer w;
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *path = local_record_path(job->local, job->uid, "end");

    /* An earlier life has written it. */
    if (access(path, F_OK) == 0)
        return true;
    json_writer_init(&w, &text, 0);
    json_write_object(&w);
    json_write_member_i64(&w, "exitCode", job->exit_code);
    json_write_member_i64(&w, "signal", job->signal);
    json_write_member_string(&w, "reason", job->reason);
    json_write_member_string(&w, "message", job->message);
    json_write_member_i64(&w, "finishedNs", job->finished_ns);
    json_write_end(&w);
    return local_record_put(job, "end", &text, err);
}

bool local_record_write_cancel(const struct local_job *job, struct status *err)
{
    return local_record_put(job, "cancel", &(struct buf)BUF_INIT, err);
}

/* In this order: without its pid a job was never started, and as long as there is a record, a cancel stays one. */
static const char *const local_record_suffixes[] = { "pid", "end", "json", "cancel" };

void local_record_remove(const struct local *local, const char *uid)
{
    backend_record_remove("local", local->dir, uid, local_record_suffixes, COUNT_OF(local_record_suffixes));
}

/* ---- reading ---- */

static void local_copy_text(char *to, size_t room, const char *from)
{
    snprintf(to, room, "%s", from);
}

static bool local_record_parse(struct local_job *job, struct str text, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const struct json *j = json_parse(&arena, text, err);
    const char *uid = "", *namespace_ = "", *name = "", *container = "", *jid = "";
    int64_t version = 0;

    if (j == NULL || !json_want(j, JSON_OBJECT, err) || !json_read_i64(j, "version", 1, 1, &version, err) ||
        !json_read_string(j, "uid", &uid, err) || !json_read_string(j, "namespace", &namespace_, err) ||
        !json_read_string(j, "name", &name, err) || !json_read_string(j, "container", &container, err) ||
        !json_read_string(j, "jid", &jid, err) ||
        !json_read_i64(j, "graceSeconds", -1, INT32_MAX, &job->grace_seconds, err) ||
        !json_read_i64(j, "createdNs", 0, INT64_MAX, &job->created_ns, err))
        return false;
    if (version != 1 || strcmp(uid, job->uid) != 0)
        return status_set(err, STATUS_DATA_LOSS, "no record of a job with this name");
    job->namespace_ = xstrdup(namespace_);
    job->name = xstrdup(name);
    job->container = xstrdup(container);
    job->jid = xstrdup(jid);
    job->started_ns = job->created_ns;
    return true;
}

/* False when there is no such file or it makes no sense: the job's process then tells. */
static bool local_read_end(struct local_job *job)
{
    cleanup_free char *path = local_record_path(job->local, job->uid, "end");
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status ignored = STATUS_INIT;
    const char *reason = "", *message = "";
    int64_t exit_code = 0, sig = 0, finished_ns = 0;

    if (!file_read(path, LOCAL_RECORD_MAX, &text, &ignored))
        return false;
    const struct json *j = json_parse(&arena, (struct str){ (const char *)text.p, text.n }, &ignored);
    if (!json_is(j, JSON_OBJECT) || !json_read_i64(j, "exitCode", 0, 255, &exit_code, &ignored) ||
        !json_read_i64(j, "signal", 0, 255, &sig, &ignored) || !json_read_string(j, "reason", &reason, &ignored) ||
        !json_read_string(j, "message", &message, &ignored) ||
        !json_read_i64(j, "finishedNs", 1, INT64_MAX, &finished_ns, &ignored) || finished_ns == 0)
        return false;
    job->exit_code = (int)exit_code;
    job->signal = (int)sig;
    job->finished_ns = finished_ns;
    local_copy_text(job->reason, sizeof job->reason, reason);
    local_copy_text(job->message, sizeof job->message, message);
    return true;
}

/* "PID START BOOT"; of an earlier boot: the process is certainly gone, so pid stays 0 and *rebooted says so. */
static bool local_read_pid(struct local_job *job, bool *rebooted)
{
    cleanup_free char *path = local_record_path(job->local, job->uid, "pid");
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;
    char boot[40] = "";
    int pid = 0;
    uint64_t ticks = 0;

    if (!file_read(path, 256, &text, &ignored) ||
        sscanf(buf_cstr(&text), "%d %" SCNu64 " %39s", &pid, &ticks, boot) != 3 || pid <= 1)
        return false;
    *rebooted = strcmp(boot, job->local->boot_id) != 0;
    if (!*rebooted)
        job->process = (struct local_process){ pid, ticks };
    return true;
}

static void local_mark_ended(struct local_job *job, const char *message)
{
    job->exit_code = 137;
    local_copy_text(job->reason, sizeof job->reason, "Error");
    local_copy_text(job->message, sizeof job->message, message);
    job->finished_ns = clock_real_ns();
}

/* Decides what a job of an earlier life is now. */
static void local_classify(struct local_job *job)
{
    cleanup_free char *cancel = local_record_path(job->local, job->uid, "cancel");
    bool rebooted = false, cancelled = access(cancel, F_OK) == 0;
    bool ran = local_read_pid(job, &rebooted);
    bool ended = local_read_end(job);
    bool alive = !ended && local_process_alive(&job->process);

    if (cancelled)
        job->stage = alive ? LOCAL_ENDING : LOCAL_REMOVING;
    else if (!ran)
        job->stage = LOCAL_REMOVING; /* its create was never answered */
    else
        job->stage = alive ? LOCAL_RUNNING : LOCAL_CLEANING;
    if (!alive && !ended)
        local_mark_ended(job, rebooted ? "the machine was restarted"
                                       : "it ended while the plugin was not running; its exit code is not known");
}

static void local_record_load(void *arg, const char *uid)
{
    struct local *local = arg;
    struct status err = STATUS_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *path = local_record_path(local, uid, "json");
    struct local_job *job = local_job_new(local, uid);

    if (file_read(path, LOCAL_RECORD_MAX, &text, &err) &&
        local_record_parse(job, (struct str){ (const char *)text.p, text.n }, &err)) {
        local_classify(job);
        return;
    }
    backend_record_set_aside("local", path, uid, &err);
    local_job_free(job);
}

/* A folder whose record is gone or was set aside: as a job that is being removed. */
static void local_adopt_folder(void *arg, const char *uid)
{
    struct local *local = arg;

    if (strmap_get(&local->by_uid, uid) != NULL)
        return;
    struct local_job *job = local_job_new(local, uid);
    job->namespace_ = xstrdup("");
    job->name = xstrdup("");
    job->container = xstrdup("");
    job->jid = xstrdup("");
    bool rebooted = false;
    local_read_pid(job, &rebooted);
    job->stage = LOCAL_REMOVING;
    local_mark_ended(job, "");
}

/* What is left of a record whose removal was cut off. */
static void local_remove_stray(void *arg, const char *uid)
{
    const struct local *local = arg;

    if (strmap_get(&local->by_uid, uid) == NULL)
        local_record_remove(local, uid);
}

bool local_records_load(struct local *local, struct status *err)
{
    return backend_each(local->dir, "records", ".json", local_record_load, local, err) &&
           backend_each(local->dir, "jobs", "", local_adopt_folder, local, err) &&
           backend_each(local->dir, "records", ".pid", local_remove_stray, local, err) &&
           backend_each(local->dir, "records", ".end", local_remove_stray, local, err) &&
           backend_each(local->dir, "records", ".cancel", local_remove_stray, local, err);
}

#undef LOCAL_RECORD_MAX
