/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/local.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "io/file.h"
#include "text/json.h"

#define LOCAL_RECORD_MAX 65536

char *local_record_path(const struct local *local, const char *uid, const char *suffix)
{
    return xasprintf("%s/records/%s.%s", local->dir, uid, suffix);
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

bool local_record_write(const struct local_job *job, struct status *err)
{
    struct json_writer w;
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *path = local_record_path(job->local, job->uid, "json");

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
    if (job->stage == LOCAL_ENDING || job->stage == LOCAL_REMOVING)
        json_write_member_bool(&w, "cancelled", true);
    if (job->finished_ns != 0) {
        json_write_member_object(&w, "ended");
        json_write_member_i64(&w, "exitCode", job->exit_code);
        json_write_member_i64(&w, "signal", job->signal);
        json_write_member_string(&w, "reason", job->reason);
        json_write_member_string(&w, "message", job->message);
        json_write_member_i64(&w, "finishedNs", job->finished_ns);
        json_write_end(&w);
    }
    json_write_end(&w);
    /* Not synced: a power cut ends the jobs too, so a record only has to survive this process. */
    return file_replace(path, text.p, text.n, 0600, err);
}

void local_record_remove(const struct local *local, const char *uid)
{
    static const char *const suffixes[] = { "pid", "json" };

    for (size_t i = 0; i < COUNT_OF(suffixes); i++) {
        cleanup_free char *path = local_record_path(local, uid, suffixes[i]);
        if (unlink(path) < 0 && errno != ENOENT)
            log_warn("local backend: cannot remove %s: %s", path, strerror(errno));
    }
}

/* ---- reading ---- */

static void local_copy_text(char *to, size_t room, const char *from)
{
    snprintf(to, room, "%s", from);
}

static bool local_record_parse(struct local_job *job, struct str text, bool *cancelled, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const struct json *j = json_parse(&arena, text, err), *ended = NULL;
    const char *uid = "", *namespace_ = "", *name = "", *container = "", *jid = "", *reason = "", *message = "";
    int64_t version = 0, exit_code = 0, sig = 0;

    if (j == NULL || !json_want(j, JSON_OBJECT, err) || !json_read_i64(j, "version", 1, 1, &version, err) ||
        !json_read_string(j, "uid", &uid, err) || !json_read_string(j, "namespace", &namespace_, err) ||
        !json_read_string(j, "name", &name, err) || !json_read_string(j, "container", &container, err) ||
        !json_read_string(j, "jid", &jid, err) ||
        !json_read_i64(j, "graceSeconds", -1, INT32_MAX, &job->grace_seconds, err) ||
        !json_read_i64(j, "createdNs", 0, INT64_MAX, &job->created_ns, err) ||
        !json_read_bool(j, "cancelled", cancelled, err) || !json_read_node(j, "ended", JSON_OBJECT, &ended, err) ||
        !json_read_i64(ended, "exitCode", 0, 255, &exit_code, err) ||
        !json_read_i64(ended, "signal", 0, 255, &sig, err) || !json_read_string(ended, "reason", &reason, err) ||
        !json_read_string(ended, "message", &message, err) ||
        !json_read_i64(ended, "finishedNs", 1, INT64_MAX, &job->finished_ns, err))
        return false;
    if (version != 1 || strcmp(uid, job->uid) != 0)
        return status_set(err, STATUS_DATA_LOSS, "no record of a job with this name");
    job->namespace_ = xstrdup(namespace_);
    job->name = xstrdup(name);
    job->container = xstrdup(container);
    job->jid = xstrdup(jid);
    job->started_ns = job->created_ns;
    job->exit_code = (int)exit_code;
    job->signal = (int)sig;
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
static void local_classify(struct local_job *job, bool cancelled)
{
    bool rebooted = false;
    bool ran = local_read_pid(job, &rebooted);
    bool alive = job->finished_ns == 0 && local_process_alive(&job->process);

    if (cancelled)
        job->stage = alive ? LOCAL_ENDING : LOCAL_REMOVING;
    else if (!ran)
        job->stage = LOCAL_REMOVING; /* its create was never answered */
    else
        job->stage = alive ? LOCAL_RUNNING : LOCAL_CLEANING;
    if (!alive && job->finished_ns == 0)
        local_mark_ended(job, rebooted ? "the machine was restarted"
                                       : "it ended while the plugin was not running; its exit code is not known");
}

static void local_record_load(struct local *local, const char *uid)
{
    struct status err = STATUS_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *path = local_record_path(local, uid, "json");
    struct local_job *job = local_job_new(local, uid);
    bool cancelled = false;

    if (file_read(path, LOCAL_RECORD_MAX, &text, &err) &&
        local_record_parse(job, (struct str){ (const char *)text.p, text.n }, &cancelled, &err)) {
        local_classify(job, cancelled);
        return;
    }
    cleanup_free char *aside = xasprintf("%s.bad", path);
    log_warn("local backend: record %s is set aside as %s.bad: %s", path, uid, err.message);
    if (rename(path, aside) < 0)
        log_warn("local backend: cannot rename %s: %s", path, strerror(errno));
    local_job_free(job);
}

/* Calls fn for each entry of a folder whose name, without `suffix`, is a uid. */
static bool local_each(struct local *local, const char *folder, const char *suffix,
                       void (*fn)(struct local *local, const char *uid), struct status *err)
{
    cleanup_free char *path = xasprintf("%s/%s", local->dir, folder);
    DIR *dir = opendir(path);
    struct dirent *entry;

    if (dir == NULL)
        return status_errno(err, "cannot list %s", path);
    while ((entry = readdir(dir)) != NULL) {
        if (!str_ends(entry->d_name, suffix))
            continue;
        cleanup_free char *uid = xstrndup(entry->d_name, strlen(entry->d_name) - strlen(suffix));
        if (interlink_uid_valid(uid))
            fn(local, uid);
    }
    closedir(dir);
    return true;
}

/* A folder whose record is gone or was set aside: as a job that is being removed. */
static void local_adopt_folder(struct local *local, const char *uid)
{
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

bool local_records_load(struct local *local, struct status *err)
{
    return local_each(local, "records", ".json", local_record_load, err) &&
           local_each(local, "jobs", "", local_adopt_folder, err);
}

#undef LOCAL_RECORD_MAX
