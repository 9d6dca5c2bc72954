/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/logfile.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.pb-c.h"
#include "io/file.h"
#include "state.pb-c.h"

/* A write that failed (disk full, quota) is tried again after this. */
#define LOGFILE_RETRY_MS 1000
#define LOGFILE_METHOD "/interlink.agent.v1.Agent/Logs"

struct logfile {
    struct loop *loop;
    char *container_id, *path, *position_path; /* owned */
    void (*on_stored)(void *arg);
    void (*on_end)(void *arg);
    void (*on_room)(void *arg);
    void *arg;
    int fd;                      /* -1: nothing is kept, or the file could not be opened yet */
    uint64_t stored;
    uint64_t *total;
    struct rpc_conn *conn;       /* borrowed; NULL: not connected */
    struct rpc_request *request; /* the stream */
    struct buf pending;          /* received, not written: while the disk is full */
    bool complained, ended, end_seen;
    struct timer retry;
};

/* ---- position ---- */

static bool logfile_save_position(const struct logfile *log, uint64_t inode, int64_t start, struct status *err)
{
    Interlink__State__V1__LogPosition position = INTERLINK__STATE__V1__LOG_POSITION__INIT;
    uint8_t bytes[64];

    position.stored = log->stored;
    position.inode = inode;
    position.start = start;
    /* Three varints: at most 33 bytes. Not fsynced: it guards against the death of this process, not of the machine. */
    size_t n = protobuf_c_message_pack(&position.base, bytes);
    return file_replace(log->position_path, bytes, n, 0600, err);
}

/* The file of that inode in the folder of the log: kubelet may have renamed it. */
static int logfile_find_inode(const struct logfile *log, uint64_t inode)
{
    const char *slash = strrchr(log->path, '/');
    cleanup_free char *folder = xstrndup(log->path, slash != NULL ? (size_t)(slash - log->path) : 0);
    DIR *dir = opendir(folder);
    struct dirent *entry;
    int found = -1;

    while (dir != NULL && found < 0 && (entry = readdir(dir)) != NULL)
        if (entry->d_ino == inode)
            found = openat(dirfd(dir), entry->d_name, O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
    if (dir != NULL)
        closedir(dir);
    return found;
}

/* Goes on where an earlier life was. False: there was none. */
static bool logfile_recover(struct logfile *log)
{
    cleanup_buf struct buf bytes = BUF_INIT;
    struct status ignored;
    struct stat st;

    if (!file_read(log->position_path, 64, &bytes, &ignored))
        return false;
    Interlink__State__V1__LogPosition *position =
        interlink__state__v1__log_position__unpack(NULL, bytes.n, bytes.p);
    if (position == NULL)
        return false;
    log->stored = position->stored;
    if (position->inode != 0) {
        log->fd = logfile_find_inode(log, position->inode);
        if (log->fd >= 0 && fstat(log->fd, &st) == 0)
            log->stored = (uint64_t)(position->start + st.st_size);
    }
    protobuf_c_message_free_unpacked(&position->base, NULL);
    return true;
}

static bool logfile_open(struct logfile *log, struct status *err)
{
    cleanup_free char *folder = xstrndup(log->path, (size_t)(strrchr(log->path, '/') - log->path));
    struct stat st;

    if (!logfile_save_position(log, 0, 0, err) || !dir_make(folder, 0755, err))
        return false;
    int fd = open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (fd < 0 || fstat(fd, &st) < 0) {
        status_errno(err, "cannot open the log file %s", log->path);
        if (fd >= 0)
            close(fd);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return status_set(err, STATUS_FAILED_PRECONDITION, "the log file %s is no regular file", log->path);
    }
    if (!logfile_save_position(log, st.st_ino, (int64_t)log->stored - st.st_size, err)) {
        close(fd);
        return false;
    }
    if (log->fd >= 0)
        close(log->fd);
    log->fd = fd;
    return true;
}

/* ---- storing ---- */

/* Writes what fits; the number of bytes dealt with. */
static size_t logfile_write(struct logfile *log, const uint8_t *p, size_t n)
{
    size_t done = 0;

    while (done < n) {
        ssize_t put = log->fd >= 0 ? write(log->fd, p + done, n - done) : (ssize_t)(n - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0) {
            if (!log->complained)
                log_warn("container %.13s: cannot write %s: %s; its output waits", log->container_id, log->path,
                         strerror(errno));
            log->complained = true;
            break;
        }
        log->complained = false;
        done += (size_t)put;
    }
    log->stored += done;
    if (log->total != NULL)
        *log->total += done;
    return done;
}

static void logfile_acknowledge(struct logfile *log)
{
    Interlink__Agent__V1__LogsRequest request = INTERLINK__AGENT__V1__LOGS_REQUEST__INIT;

    if (log->request == NULL)
        return;
    request.stored = log->stored;
    rpc_request_send(log->request, &request.base);
}

static void logfile_finish(struct logfile *log)
{
    if (!log->end_seen || log->pending.n > 0 || log->ended)
        return;
    log->ended = true;
    if (log->request != NULL)
        rpc_request_half_close(log->request);
    log->on_end(log->arg);
}

static void logfile_on_retry(void *arg)
{
    struct logfile *log = arg;

    buf_consume(&log->pending, logfile_write(log, log->pending.p, log->pending.n));
    if (log->pending.n > 0) {
        timer_start(log->loop, &log->retry, LOGFILE_RETRY_MS, logfile_on_retry, log);
        return;
    }
    buf_free(&log->pending);
    if (log->request != NULL) {
        logfile_acknowledge(log);
        rpc_request_pause(log->request, false);
    }
    logfile_finish(log);
    if (log->on_room != NULL && !log->end_seen)
        log->on_room(log->arg);
}

/* What is not stored yet. False: the rest waits for the disk. */
static bool logfile_store(struct logfile *log, uint64_t offset, const uint8_t *p, size_t n)
{
    uint64_t known = log->stored + log->pending.n - offset;
    size_t skip = known < n ? (size_t)known : n;
    size_t done = skip + (log->pending.n > 0 ? 0 : logfile_write(log, p + skip, n - skip));

    if (done < n)
        buf_append(&log->pending, p + done, n - done);
    if (log->pending.n > 0 && !timer_running(&log->retry))
        timer_start(log->loop, &log->retry, LOGFILE_RETRY_MS, logfile_on_retry, log);
    return log->pending.n == 0;
}

bool logfile_take(struct logfile *log, uint64_t offset, const void *p, size_t n)
{
    /* Where nothing is stored, as after a line that was lost, the output goes on. */
    return log->ended || offset > log->stored + log->pending.n || logfile_store(log, offset, p, n);
}

void logfile_take_end(struct logfile *log)
{
    log->end_seen = true;
    logfile_finish(log);
}

/* The agent jumped ahead: what lies between was lost there, and its next line says so. The file's arithmetic follows. */
static void logfile_skip_to(struct logfile *log, uint64_t offset)
{
    struct status err = STATUS_INIT;
    struct stat st;

    log->stored = offset;
    if (log->fd >= 0 && fstat(log->fd, &st) == 0 &&
        !logfile_save_position(log, st.st_ino, (int64_t)offset - st.st_size, &err))
        log_warn("container %.13s: %s", log->container_id, err.message);
}

static void logfile_on_message(void *arg, const ProtobufCMessage *message)
{
    struct logfile *log = arg;
    const Interlink__Agent__V1__LogsResponse *response = (const void *)message;
    const uint8_t *p = response->data.data;
    size_t n = response->data.len;

    if (response->offset > log->stored)
        logfile_skip_to(log, response->offset);
    log->end_seen |= response->end;
    if (!logfile_store(log, response->offset, p, n)) {
        rpc_request_pause(log->request, true);
        return;
    }
    logfile_acknowledge(log);
    if (log->on_stored != NULL && n > 0)
        log->on_stored(log->arg);
    logfile_finish(log);
}

static void logfile_on_finish(void *arg, const struct status *status)
{
    struct logfile *log = arg;

    log->request = NULL;
    if (!log->ended && status->code != STATUS_OK && status->code != STATUS_UNAVAILABLE &&
        status->code != STATUS_CANCELLED)
        log_warn("container %.13s: its output cannot be read from the agent: %s", log->container_id, status->message);
}

void logfile_connect(struct logfile *log, struct rpc_conn *conn)
{
    Interlink__Agent__V1__LogsRequest first = INTERLINK__AGENT__V1__LOGS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = LOGFILE_METHOD,
        .bulk = true,
        .output = &interlink__agent__v1__logs_response__descriptor,
        .on_message = logfile_on_message,
        .on_finish = logfile_on_finish,
        .arg = log,
    };

    if (log->conn == conn && log->request != NULL)
        return;
    /* Of the old connection: it has told us, or it is being freed. What was not written is sent again. */
    if (log->request != NULL && log->conn != NULL)
        rpc_request_cancel(log->request);
    log->request = NULL;
    log->conn = conn;
    timer_stop(&log->retry);
    buf_free(&log->pending);
    log->end_seen = false;
    if (conn == NULL || log->ended)
        return;
    log->request = rpc_request_start(conn, &options);
    first.container_id = log->container_id;
    first.from = log->stored;
    rpc_request_send(log->request, &first.base);
}

/* ---- life ---- */

struct logfile *logfile_new(const struct logfile_options *options, struct status *err)
{
    struct logfile *log = xcalloc(1, sizeof *log);

    log->loop = options->loop;
    log->container_id = xstrdup(options->container_id);
    log->path = xstrdup(options->path);
    log->position_path = xstrdup(options->position_path);
    log->total = options->total;
    log->on_stored = options->on_stored;
    log->on_end = options->on_end;
    log->on_room = options->on_room;
    log->arg = options->arg;
    log->fd = -1;
    bool recovered = log->path[0] != '\0' && logfile_recover(log);
    if (log->path[0] != '\0' && (!recovered || log->fd < 0) && !logfile_open(log, err)) {
        logfile_free(log);
        return NULL;
    }
    return log;
}

bool logfile_reopen(struct logfile *log, struct status *err)
{
    if (log->path[0] == '\0')
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "the container keeps no log: log_directory or log_path was empty when it was created");
    return logfile_open(log, err);
}

bool logfile_ended(const struct logfile *log)
{
    return log->ended;
}

uint64_t logfile_stored(const struct logfile *log)
{
    return log->stored;
}

void logfile_free(struct logfile *log)
{
    if (log == NULL)
        return;
    if (log->request != NULL && log->conn != NULL)
        rpc_request_cancel(log->request);
    timer_stop(&log->retry);
    buf_free(&log->pending);
    if (log->fd >= 0)
        close(log->fd);
    free(log->container_id);
    free(log->path);
    free(log->position_path);
    free(log);
}
