/* SPDX-License-Identifier: Apache-2.0 */
#include "node/state.h"

#include <bearssl_hash.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/child.h"
#include "io/file.h"

#define STATE_MAGIC "ILCR"
#define STATE_VERSION 1
#define STATE_HEADER (4 + 4 + 8 + br_sha256_SIZE)

static const char *const state_folders[STATE_KINDS] = { "sandboxes", "containers", "node" };

/* One operation on its way to the writer: kept until it is confirmed, so that a new writer can repeat it. */
struct state_operation {
    struct list link;
    struct buf frame; /* owned: what goes over the socket */
    int64_t given_ms;
    void (*on_done)(void *arg, const struct status *err);
    void *arg;
};

/* A frame: this header, the id, the data. */
struct state_frame {
    uint32_t kind, remove, data_length;
    char id[ID_LENGTH + 4];
};

struct state_reply {
    uint32_t failed;
    struct status err;
};

struct state {
    struct loop *loop;
    char *dir;             /* owned */
    int lock_fd;
    int fd;                /* our end of the writer's socket; -1: none */
    struct watch watch;
    struct child writer;
    struct list operations; /* given, not confirmed; oldest first */
    struct list *next_to_send; /* link of the first one not wholly sent; &operations: none */
    size_t sent;           /* bytes sent of it */
    struct buf replies;    /* read, not yet whole */
    struct timer restart;
    size_t pending;        /* how many operations */
    struct status last;    /* how the last one ended */
};

/* ---- the record's form ---- */

static void state_put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t state_get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void state_digest(const uint8_t *p, size_t n, uint8_t out[br_sha256_SIZE])
{
    br_sha256_context context;

    br_sha256_init(&context);
    br_sha256_update(&context, p, n);
    br_sha256_out(&context, out);
}

void state_encode(const ProtobufCMessage *message, struct buf *out)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    uint8_t *p = buf_reserve(out, STATE_HEADER + n);

    memcpy(p, STATE_MAGIC, 4);
    state_put_u32(p + 4, STATE_VERSION);
    state_put_u32(p + 8, (uint32_t)n);
    state_put_u32(p + 12, 0);
    protobuf_c_message_pack(message, p + STATE_HEADER);
    state_digest(p + STATE_HEADER, n, p + 16);
    out->n += STATE_HEADER + n;
}

ProtobufCMessage *state_decode(const ProtobufCMessageDescriptor *descriptor, struct str file, struct status *err)
{
    const uint8_t *p = (const uint8_t *)file.p;
    uint8_t digest[br_sha256_SIZE];

    if (file.n < STATE_HEADER || memcmp(p, STATE_MAGIC, 4) != 0) {
        status_set(err, STATUS_DATA_LOSS, "not a record of ours");
        return NULL;
    }
    if (state_get_u32(p + 4) != STATE_VERSION) {
        status_set(err, STATUS_DATA_LOSS, "a record of version %u; this program reads version %d", state_get_u32(p + 4),
                   STATE_VERSION);
        return NULL;
    }
    if (state_get_u32(p + 8) != file.n - STATE_HEADER) {
        status_set(err, STATUS_DATA_LOSS, "a torn record: %zu bytes where %u are announced", file.n - STATE_HEADER,
                   state_get_u32(p + 8));
        return NULL;
    }
    state_digest(p + STATE_HEADER, file.n - STATE_HEADER, digest);
    if (memcmp(digest, p + 16, sizeof digest) != 0) {
        status_set(err, STATUS_DATA_LOSS, "a damaged record: its checksum does not match");
        return NULL;
    }
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, NULL, file.n - STATE_HEADER, p + STATE_HEADER);
    if (message == NULL)
        status_set(err, STATUS_DATA_LOSS, "a record that is no %s", descriptor->name);
    return message;
}

/* ---- the writer process ---- */

/* Operations carried out together: one sync of each folder for all of them. */
#define STATE_BATCH 64

static bool state_writer_read(int fd, void *p, size_t n)
{
    uint8_t *to = p;

    while (n > 0) {
        ssize_t got = read(fd, to, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        to += got;
        n -= (size_t)got;
    }
    return true;
}

static bool state_writer_put(int dir_fd, const struct state_frame *frame, const uint8_t *data, struct status *err)
{
    char temporary[ID_LENGTH + 16];

    snprintf(temporary, sizeof temporary, ".%s.tmp", frame->id);
    cleanup_close int fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return status_errno(err, "cannot create the record %s", frame->id);
    if (!write_all(fd, data, frame->data_length, err) || fsync(fd) < 0 ||
        renameat(dir_fd, temporary, dir_fd, frame->id) < 0) {
        status_errno(err, "cannot write the record %s", frame->id);
        unlinkat(dir_fd, temporary, 0);
        return false;
    }
    return true;
}

/* Carries out what is waiting on the socket, up to a batch, then confirms it all. */
static bool state_writer_batch(int fd, const int dir_fds[STATE_KINDS], struct state_reply *replies)
{
    bool dirty[STATE_KINDS] = { false };
    size_t count = 0;
    char probe;

    do {
        struct state_frame frame;
        if (!state_writer_read(fd, &frame, sizeof frame) || frame.kind >= STATE_KINDS)
            return false;
        cleanup_free uint8_t *data = xmalloc(frame.data_length);
        if (!state_writer_read(fd, data, frame.data_length))
            return false;
        struct state_reply *reply = &replies[count++];
        memset(reply, 0, sizeof *reply);
        if (frame.remove && unlinkat(dir_fds[frame.kind], frame.id, 0) < 0 && errno != ENOENT)
            status_errno(&reply->err, "cannot delete the record %s", frame.id);
        else if (!frame.remove)
            state_writer_put(dir_fds[frame.kind], &frame, data, &reply->err);
        reply->failed = reply->err.code != STATUS_OK;
        dirty[frame.kind] = true;
    } while (count < STATE_BATCH && recv(fd, &probe, 1, MSG_PEEK | MSG_DONTWAIT) == 1);
    for (size_t k = 0; k < STATE_KINDS; k++) {
        if (!dirty[k] || fsync(dir_fds[k]) == 0)
            continue;
        for (size_t i = 0; i < count; i++) {
            if (!replies[i].failed)
                status_errno(&replies[i].err, "cannot sync the folder of records");
            replies[i].failed = 1;
        }
    }
    struct status ignored;
    return write_all(fd, replies, count * sizeof *replies, &ignored);
}

static void state_writer_main(int fd, const char *dir)
{
    int dir_fds[STATE_KINDS];

    prctl(PR_SET_NAME, "state");
    for (size_t k = 0; k < STATE_KINDS; k++) {
        cleanup_free char *path = xasprintf("%s/%s", dir, state_folders[k]);
        dir_fds[k] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir_fds[k] < 0)
            _exit(1);
    }
    struct state_reply *replies = xcalloc(STATE_BATCH, sizeof *replies);
    while (state_writer_batch(fd, dir_fds, replies))
        ;
    _exit(0);
}

/* ---- our end ---- */

static void state_on_event(void *arg, unsigned events);
static void state_start_writer_later(struct state *state);

static void state_on_writer_exit(void *arg, int wait_status)
{
    struct state *state = arg;

    log_error("the writer of the state ended unexpectedly (wait status %#x): starting another", (unsigned)wait_status);
    state_start_writer_later(state);
}

static bool state_start_writer(struct state *state, struct status *err)
{
    int fds[2];
    pid_t parent = getpid();

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return status_errno(err, "cannot start the writer of the state: no socket");
    pid_t pid = fork();
    if (pid == 0) {
        child_reset_signals();
        /* It reads to the end of its socket and stops then: what it was given is carried out even when we die. Only
         * the terminal's signals must not reach it first. */
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        if (getppid() != parent)
            _exit(1);
        int keep[] = { fds[1], state->lock_fd };
        child_close_fds_except(keep, 2);
        state_writer_main(fds[1], state->dir);
    }
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return status_errno(err, "cannot start the writer of the state: fork");
    }
    child_adopt(state->loop, &state->writer, pid, state_on_writer_exit, state);
    fd_set_nonblocking(fds[0], true);
    state->fd = fds[0];
    state->next_to_send = state->operations.next;
    state->sent = 0;
    buf_clear(&state->replies);
    return watch_start(state->loop, &state->watch, state->fd, WATCH_READ | WATCH_WRITE, state_on_event, state, err);
}

static void state_on_restart(void *arg)
{
    struct state *state = arg;
    struct status err = STATUS_INIT;

    if (!state_start_writer(state, &err)) {
        log_error("%s", err.message);
        timer_start(state->loop, &state->restart, 1000, state_on_restart, state);
    }
}

static void state_start_writer_later(struct state *state)
{
    if (state->fd >= 0) {
        watch_stop(&state->watch);
        close(state->fd);
        state->fd = -1;
    }
    timer_start(state->loop, &state->restart, 100, state_on_restart, state);
}

static void state_send(struct state *state)
{
    while (state->fd >= 0 && state->next_to_send != &state->operations) {
        struct state_operation *o = CONTAINER_OF(state->next_to_send, struct state_operation, link);
        ssize_t n = send(state->fd, o->frame.p + state->sent, o->frame.n - state->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        state->sent += (size_t)n;
        if (state->sent < o->frame.n)
            continue;
        state->next_to_send = o->link.next;
        state->sent = 0;
    }
    if (state->fd >= 0)
        watch_set(&state->watch, WATCH_READ | (state->next_to_send != &state->operations ? WATCH_WRITE : 0u));
}

static void state_confirm(struct state *state, const struct state_reply *reply)
{
    if (list_empty(&state->operations) || state->operations.next == state->next_to_send)
        return;
    struct state_operation *o = CONTAINER_OF(state->operations.next, struct state_operation, link);
    list_remove(&o->link);
    state->pending--;
    state->last = reply->failed ? reply->err : (struct status)STATUS_INIT;
    if (reply->failed)
        log_error("%s", reply->err.message);
    if (o->on_done != NULL)
        o->on_done(o->arg, reply->failed ? &reply->err : NULL);
    buf_free(&o->frame);
    free(o);
}

static void state_on_event(void *arg, unsigned events)
{
    struct state *state = arg;

    if (events & WATCH_WRITE)
        state_send(state);
    while (state->fd >= 0) {
        size_t room = sizeof(struct state_reply) - state->replies.n;
        ssize_t n = recv(state->fd, buf_reserve(&state->replies, room), room, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            watch_set(&state->watch, 0); /* the child's exit starts another */
            watch_stop(&state->watch);
            return;
        }
        state->replies.n += (size_t)n;
        if (state->replies.n < sizeof(struct state_reply))
            continue;
        struct state_reply reply;
        memcpy(&reply, state->replies.p, sizeof reply);
        buf_clear(&state->replies);
        state_confirm(state, &reply);
    }
}

static void state_submit(struct state *state, enum state_kind kind, const char *id, bool remove, struct str data,
                         void (*on_done)(void *arg, const struct status *err), void *arg)
{
    struct state_operation *o = xcalloc(1, sizeof *o);
    struct state_frame frame = { .kind = (uint32_t)kind, .remove = remove, .data_length = (uint32_t)data.n };

    snprintf(frame.id, sizeof frame.id, "%s", id);
    buf_append(&o->frame, &frame, sizeof frame);
    buf_append(&o->frame, data.p, data.n);
    o->given_ms = clock_mono_ms();
    o->on_done = on_done;
    o->arg = arg;
    state->pending++;
    bool all_sent = state->next_to_send == &state->operations;
    list_append(&state->operations, &o->link);
    if (all_sent)
        state->next_to_send = &o->link;
    state_send(state);
}

void state_put(struct state *state, enum state_kind kind, const char *id, const ProtobufCMessage *message,
               void (*on_done)(void *arg, const struct status *err), void *arg)
{
    cleanup_buf struct buf data = BUF_INIT;

    state_encode(message, &data);
    state_submit(state, kind, id, false, (struct str){ (const char *)data.p, data.n }, on_done, arg);
}

void state_delete(struct state *state, enum state_kind kind, const char *id,
                  void (*on_done)(void *arg, const struct status *err), void *arg)
{
    state_submit(state, kind, id, true, (struct str){ "", 0 }, on_done, arg);
}

void state_forget(struct state *state, const void *arg)
{
    for (LIST_EACH(struct state_operation, o, &state->operations, link))
        if (o->arg == arg)
            o->on_done = NULL;
}

size_t state_pending(const struct state *state)
{
    return state->pending;
}

bool state_healthy(const struct state *state, int64_t patience_ms, struct status *err)
{
    const struct state_operation *oldest = CONTAINER_OF(state->operations.next, struct state_operation, link);

    if (state->last.code != STATUS_OK) {
        *err = state->last;
        return false;
    }
    if (list_empty(&state->operations) || clock_mono_ms() - oldest->given_ms <= patience_ms)
        return true;
    return status_set(err, STATUS_UNAVAILABLE, "a record has waited to be written for %" PRId64 " s",
                      (clock_mono_ms() - oldest->given_ms) / 1000);
}

/* ---- opening, loading, closing ---- */

struct state *state_open(struct loop *loop, const char *dir, struct status *err)
{
    struct state *state = xcalloc(1, sizeof *state);

    state->loop = loop;
    state->dir = xstrdup(dir);
    state->fd = -1;
    list_init(&state->operations);
    state->next_to_send = &state->operations;
    state->lock_fd = -1;
    bool ok = dir_make(dir, 0700, err);
    for (size_t k = 0; ok && k < STATE_KINDS; k++) {
        cleanup_free char *path = xasprintf("%s/%s", dir, state_folders[k]);
        ok = dir_make(path, 0700, err);
    }
    if (ok) {
        cleanup_free char *path = xasprintf("%s/lock", dir);
        state->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        /* The writer of a killed serve holds the lock until it has carried out what it was given: moments. */
        for (int i = 0; ok && flock(state->lock_fd, LOCK_EX | LOCK_NB) < 0; i++) {
            if (state->lock_fd < 0 || errno != EWOULDBLOCK)
                ok = status_errno(err, "cannot lock %s", path);
            else if (i == 100)
                ok = status_set(err, STATUS_FAILED_PRECONDITION,
                                "another interlink-cri serve uses %s: stop it, or give this one its own StateDir", dir);
            else
                usleep(20000);
        }
    }
    if (!ok || !state_start_writer(state, err)) {
        if (state->lock_fd >= 0)
            close(state->lock_fd);
        free(state->dir);
        free(state);
        return NULL;
    }
    return state;
}

static void state_set_aside(struct state *state, const char *folder, const char *name, const struct status *why)
{
    cleanup_free char *aside = xasprintf("%s/set-aside", state->dir);
    cleanup_free char *from = xasprintf("%s/%s/%s", state->dir, folder, name);
    cleanup_free char *to = xasprintf("%s/%s-%s-%" PRId64, aside, folder, name, clock_real_ns());
    struct status err = STATUS_INIT;

    if (!dir_make(aside, 0700, &err) || rename(from, to) < 0)
        log_error("%s: %s; it could not be set aside either: %s", from, why->message, strerror(errno));
    else
        log_error("%s: %s; set aside as %s", from, why->message, to);
}

bool state_load(struct state *state, enum state_kind kind, const ProtobufCMessageDescriptor *descriptor,
                void (*on_record)(void *arg, ProtobufCMessage *message), void *arg, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/%s", state->dir, state_folders[kind]);
    DIR *dir = opendir(path);
    struct dirent *entry;

    if (dir == NULL)
        return status_errno(err, "cannot list %s", path);
    while ((entry = readdir(dir)) != NULL) {
        cleanup_free char *file = xasprintf("%s/%s", path, entry->d_name);
        cleanup_buf struct buf data = BUF_INIT;
        struct status why = STATUS_INIT;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (entry->d_name[0] == '.') {
            unlink(file); /* a temporary of a writer that was killed: never confirmed */
            continue;
        }
        ProtobufCMessage *message = NULL;
        if (file_read(file, RPC_MESSAGE_MAX * 2, &data, &why))
            message = state_decode(descriptor, (struct str){ (const char *)data.p, data.n }, &why);
        if (message == NULL)
            state_set_aside(state, state_folders[kind], entry->d_name, &why);
        else
            on_record(arg, message);
    }
    closedir(dir);
    return true;
}

void state_close(struct state *state)
{
    if (state == NULL)
        return;
    timer_stop(&state->restart);
    if (state->fd >= 0) {
        watch_stop(&state->watch);
        fd_set_nonblocking(state->fd, false);
        state_send(state);
        shutdown(state->fd, SHUT_WR);
        child_forget(&state->writer);
        while (waitpid(state->writer.pid, NULL, 0) < 0 && errno == EINTR)
            ;
        close(state->fd);
    }
    for (LIST_EACH_SAFE(struct state_operation, o, &state->operations, link)) {
        buf_free(&o->frame);
        free(o);
    }
    buf_free(&state->replies);
    close(state->lock_fd);
    free(state->dir);
    free(state);
}
