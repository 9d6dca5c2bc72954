/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/podrun_internal.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "io/file.h"
#include "text/crilog.h"

/* An agent of this process answers; what takes long is layers being unpacked and the like. */
#define PODRUN_CALL_MS 0
#define PODRUN_FALLBACK_MAX 2048 /* kubelet's, of the output that becomes a message */

static void podrun_container_ended(struct podrun_container *c);

/* ---- states ---- */

static void podrun_move(struct podrun_container *c, enum podrun_phase to)
{
    static const char *const names[] = { "WAITING", "IMAGE", "CREATING", "STARTING", "RUNNING", "ENDED", "BACKOFF" };
    static const bool allowed[7][7] = {
        [PODRUN_WAITING] = { [PODRUN_IMAGE] = true, [PODRUN_ENDED] = true },
        [PODRUN_IMAGE] = { [PODRUN_CREATING] = true, [PODRUN_ENDED] = true },
        [PODRUN_CREATING] = { [PODRUN_STARTING] = true, [PODRUN_ENDED] = true },
        [PODRUN_STARTING] = { [PODRUN_RUNNING] = true, [PODRUN_ENDED] = true },
        [PODRUN_RUNNING] = { [PODRUN_ENDED] = true },
        [PODRUN_ENDED] = { [PODRUN_BACKOFF] = true, [PODRUN_IMAGE] = true },
        [PODRUN_BACKOFF] = { [PODRUN_IMAGE] = true, [PODRUN_ENDED] = true },
    };

    if (!allowed[c->phase][to]) {
        log_error("container %s: a move from %s to %s was refused", c->spec->base->name, names[c->phase], names[to]);
        return;
    }
    c->phase = to;
    podrun_status_changed(c->run);
    podrun_step_soon(c->run);
}

static void podrun_wait_for(struct podrun_container *c, const char *reason, const char *message)
{
    if (strcmp(c->waiting_reason, reason) == 0 && strcmp(c->waiting_message, message) == 0)
        return;
    snprintf(c->waiting_reason, sizeof c->waiting_reason, "%.63s", reason);
    snprintf(c->waiting_message, sizeof c->waiting_message, "%.511s", message);
    podrun_status_changed(c->run);
}

/* ---- its output ---- */

char *podrun_log_path(const struct podrun *run, const char *container, int64_t attempt)
{
    return xasprintf("%s/logs/%s/%" PRId64 ".log", run->job_dir, container, attempt);
}

static void podrun_log_remove(const struct podrun_container *c, int64_t attempt)
{
    cleanup_free char *path = podrun_log_path(c->run, c->spec->base->name, attempt);
    cleanup_free char *position = xasprintf("%s.position", path);

    unlink(path);
    unlink(position);
    for (unsigned i = 1; i <= c->log_parts; i++) {
        cleanup_free char *part = xasprintf("%s.%u", path, i);
        unlink(part);
    }
}

/* A full file gets a number, and the next one begins. */
static void podrun_log_on_stored(void *arg)
{
    struct podrun_container *c = arg;
    cleanup_free char *path = podrun_log_path(c->run, c->spec->base->name, c->attempt);
    struct status err = STATUS_INIT;

    if (logfile_stored(c->log) - c->log_part_from < PODRUN_LOG_BYTES)
        return;
    cleanup_free char *part = xasprintf("%s.%u", path, ++c->log_parts);
    c->log_part_from = logfile_stored(c->log);
    if (rename(path, part) < 0 || !logfile_reopen(c->log, &err))
        log_warn("container %s: its log cannot be rotated: %s", c->spec->base->name, err.code != STATUS_OK ? err.message : strerror(errno));
    if (c->log_parts >= PODRUN_LOG_FILES) {
        cleanup_free char *oldest = xasprintf("%s.%u", path, c->log_parts + 1 - PODRUN_LOG_FILES);
        unlink(oldest);
    }
}

static void podrun_log_on_end(void *arg)
{
    struct podrun_container *c = arg;

    c->log_ended = true;
    podrun_container_ended(c);
}

static bool podrun_log_open(struct podrun_container *c, struct status *err)
{
    cleanup_free char *path = podrun_log_path(c->run, c->spec->base->name, c->attempt);
    cleanup_free char *position = xasprintf("%s.position", path);
    cleanup_free char *folder = xstrndup(path, (size_t)(strrchr(path, '/') - path));
    struct logfile_options options = {
        .loop = c->run->loop, .container_id = c->id, .path = path, .position_path = position,
        .on_stored = podrun_log_on_stored, .on_end = podrun_log_on_end, .arg = c,
    };

    logfile_free(steal_ptr(&c->log));
    c->log_ended = false;
    c->log_part_from = 0;
    /* Kubelet keeps the one before. */
    if (c->attempt > 1)
        podrun_log_remove(c, c->attempt - 2);
    c->log_parts = 0;
    unlink(position);
    if (dir_make(folder, 0700, err))
        c->log = logfile_new(&options, err);
    return c->log != NULL;
}

/* The end of its output, without what CRI puts before each line. */
static void podrun_log_tail(const struct podrun_container *c, char *out, size_t room)
{
    cleanup_free char *path = podrun_log_path(c->run, c->spec->base->name, c->attempt);
    cleanup_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    cleanup_buf struct buf text = BUF_INIT;
    struct crilog_reader reader = { .since_ns = 0 };
    char block[PODRUN_FALLBACK_MAX];
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    ssize_t n = size <= 0 ? 0 : pread(fd, block, sizeof block, size > (off_t)sizeof block ? size - (off_t)sizeof block : 0);
    const char *line = n == (ssize_t)sizeof block ? memchr(block, '\n', sizeof block) : NULL;
    size_t skip = line != NULL ? (size_t)(line - block) + 1 : 0;

    if (n > 0)
        crilog_read(&reader, (struct str){ block + skip, (size_t)n - skip }, &text, &text);
    crilog_reader_free(&reader);
    snprintf(out, room, "%.*s", (int)text.n, text.n > 0 ? (const char *)text.p : "");
}

/* ---- the end of an attempt ---- */

static bool podrun_restarts(const struct podrun_container *c)
{
    if (c->run->stopping)
        return false;
    if (c->spec->role == PODSPEC_SIDECAR)
        return true;
    switch (c->run->spec.restart) {
    case PODSPEC_ALWAYS:
        return c->spec->role == PODSPEC_MAIN || c->end.exit_code != 0;
    case PODSPEC_ON_FAILURE:
        return c->end.exit_code != 0;
    case PODSPEC_NEVER:
        break;
    }
    return false;
}

static void podrun_container_restart(void *arg)
{
    struct podrun_container *c = arg;

    c->last = c->end;
    c->end = (struct podrun_end){ .known = false };
    c->attempt++;
    podrun_container_begin(c);
}

/* The first time at once; then after 10 s, 20 s... */
static void podrun_container_settle(struct podrun_container *c)
{
    char message[128];

    podrun_move(c, PODRUN_ENDED);
    c->for_good = !podrun_restarts(c);
    if (c->for_good)
        return;
    if (c->end.finished_ns - c->end.started_ns >= (int64_t)PODRUN_BACKOFF_RESET_MS * 1000000 && c->end.started_ns > 0)
        c->backoff_ms = 0;
    int64_t pause = c->backoff_ms;
    c->backoff_ms = pause == 0 ? PODRUN_BACKOFF_MIN_MS : pause * 2 < PODRUN_BACKOFF_MAX_MS ? pause * 2 : PODRUN_BACKOFF_MAX_MS;
    if (pause == 0) {
        podrun_container_restart(c);
        return;
    }
    snprintf(message, sizeof message, "back-off %" PRId64 " s restarting failed container %.63s", pause / 1000, c->spec->base->name);
    podrun_wait_for(c, "CrashLoopBackOff", message);
    podrun_move(c, PODRUN_BACKOFF);
    timer_start(c->run->loop, &c->timer, pause, podrun_container_restart, c);
}

static void podrun_on_removed(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    (void)arg;
    (void)response;
    if (status->code != STATUS_OK && status->code != STATUS_UNAVAILABLE)
        log_warn("a container that has ended cannot be removed: %s", status->message);
}

static void podrun_container_remove(struct podrun_container *c)
{
    Interlink__Agent__V1__RemoveContainerRequest request = INTERLINK__AGENT__V1__REMOVE_CONTAINER_REQUEST__INIT;

    request.id = c->id;
    rpc_unary(c->run->conn, "/interlink.agent.v1.Agent/RemoveContainer", &request.base,
              &interlink__agent__v1__remove_container_response__descriptor, PODRUN_CALL_MS, podrun_on_removed, NULL);
}

/* Its process has ended, and its output is stored. */
static void podrun_container_ended(struct podrun_container *c)
{
    if (!c->end.known || !c->log_ended || !podrun_container_active(c))
        return;
    if (c->end.message[0] == '\0' && c->end.exit_code != 0 && c->spec->termination_log_falls_back)
        podrun_log_tail(c, c->end.message, sizeof c->end.message);
    podrun_container_remove(c);
    podrun_container_settle(c);
}

/* It did not come to run. */
static void podrun_container_refused(struct podrun_container *c, const char *reason, const struct status *err)
{
    c->end = (struct podrun_end){ .known = true, .exit_code = 128, .finished_ns = clock_real_ns() };
    snprintf(c->end.reason, sizeof c->end.reason, "%s", reason);
    snprintf(c->end.message, sizeof c->end.message, "%.1000s", err->message);
    log_warn("container %s: %s: %s", c->spec->base->name, reason, err->message);
    if (c->log != NULL)
        logfile_connect(c->log, NULL);
    if (c->phase == PODRUN_STARTING)
        podrun_container_remove(c);
    podrun_container_settle(c);
}

static void podrun_container_stopped(struct podrun_container *c)
{
    podrun_probes_stop(c);
    podrun_check_cancel(&c->hook);
    timer_stop(&c->timer);
    timer_stop(&c->kill_timer);
}

void podrun_container_on_state(struct podrun_container *c, const Interlink__Agent__V1__ContainerState *state)
{
    if (state->phase != INTERLINK__AGENT__V1__CONTAINER_PHASE__EXITED || c->end.known || !podrun_container_active(c))
        return;
    podrun_container_stopped(c);
    c->end = (struct podrun_end){ .known = true, .exit_code = state->exit_code, .signal = state->signal,
                                  .started_ns = state->started_at, .finished_ns = state->finished_at };
    snprintf(c->end.reason, sizeof c->end.reason, "%.31s", state->reason);
    if (state->termination_log.len > 0)
        snprintf(c->end.message, sizeof c->end.message, "%.*s", (int)state->termination_log.len, (const char *)state->termination_log.data);
    else
        snprintf(c->end.message, sizeof c->end.message, "%.1000s", c->stop_reason[0] != '\0' ? c->stop_reason : state->message);
    podrun_container_ended(c);
}

/* ---- start ---- */

static void podrun_on_post_start(void *arg, bool ok, const char *why)
{
    struct podrun_container *c = arg;
    char text[256];

    if (ok)
        return;
    snprintf(text, sizeof text, "its postStart hook failed: %.200s", why);
    podrun_container_stop(c, c->run->spec.grace_seconds * 1000, text);
}

static void podrun_on_started(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct podrun_container *c = arg;
    const Interlink__Agent__V1__StartContainerResponse *started = (const void *)response;

    if (c->phase != PODRUN_STARTING)
        return;
    if (status->code != STATUS_OK) {
        podrun_container_refused(c, "StartError", status);
        return;
    }
    c->started_ns = started->started_at;
    c->waiting_reason[0] = c->waiting_message[0] = '\0';
    podrun_move(c, PODRUN_RUNNING);
    if (c->end.known) { /* it ended before that was heard */
        podrun_container_ended(c);
        return;
    }
    if (c->stopping) {
        c->stopping = false;
        podrun_container_stop(c, c->kill_at_ms - clock_mono_ms(), c->stop_reason);
        return;
    }
    if (c->spec->post_start.kind != PODSPEC_NONE)
        podrun_check_start(&c->hook, c, &c->spec->post_start, INT32_MAX, podrun_on_post_start, c);
    podrun_probes_start(c);
}

static void podrun_on_created(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct podrun_container *c = arg;
    Interlink__Agent__V1__StartContainerRequest request = INTERLINK__AGENT__V1__START_CONTAINER_REQUEST__INIT;
    struct status err = *status;

    (void)response;
    if (c->phase != PODRUN_CREATING)
        return;
    if (err.code == STATUS_OK)
        podrun_log_open(c, &err);
    if (err.code != STATUS_OK) {
        podrun_container_refused(c, "CreateContainerError", &err);
        return;
    }
    logfile_connect(c->log, c->run->conn);
    podrun_move(c, PODRUN_STARTING);
    request.id = c->id;
    rpc_unary(c->run->conn, "/interlink.agent.v1.Agent/StartContainer", &request.base,
              &interlink__agent__v1__start_container_response__descriptor, PODRUN_CALL_MS, podrun_on_started, c);
}

static void podrun_container_create(struct podrun_container *c, Interlink__Agent__V1__Image *image, struct arena *arena)
{
    Interlink__Agent__V1__CreateContainerRequest request;
    struct status err = STATUS_INIT;

    podrun_move(c, PODRUN_CREATING);
    random_id(c->id);
    snprintf(c->image_id, sizeof c->image_id, "%.79s", image->id);
    if (!podrun_container_config(arena, c, &request, &err)) {
        podrun_container_refused(c, "CreateContainerConfigError", &err);
        return;
    }
    request.image = image;
    rpc_unary(c->run->conn, "/interlink.agent.v1.Agent/CreateContainer", &request.base,
              &interlink__agent__v1__create_container_response__descriptor, PODRUN_CALL_MS, podrun_on_created, c);
}

static void podrun_container_look(void *arg)
{
    struct podrun_container *c = arg;
    cleanup_arena struct arena arena = ARENA_INIT;
    Interlink__Agent__V1__Image image;
    char reason[64], message[512];

    if (podrun_image_find(c->run, c->spec->base->image, &arena, &image, &c->stop_signal, reason, message)) {
        podrun_container_create(c, &image, &arena);
        return;
    }
    podrun_wait_for(c, reason, message);
    timer_start(c->run->loop, &c->timer, c->image_pause_ms, podrun_container_look, c);
    c->image_pause_ms = c->image_pause_ms * 2 < PODRUN_IMAGE_LOOK_MAX_MS ? c->image_pause_ms * 2 : PODRUN_IMAGE_LOOK_MAX_MS;
}

void podrun_container_begin(struct podrun_container *c)
{
    c->stopping = c->termed = c->for_good = false;
    c->started = c->ready = false;
    c->stop_reason[0] = '\0';
    c->waiting_reason[0] = c->waiting_message[0] = '\0';
    c->image_pause_ms = PODRUN_IMAGE_LOOK_MS;
    podrun_move(c, PODRUN_IMAGE);
    podrun_container_look(c);
}

/* ---- stop ---- */

static void podrun_on_signalled(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    const struct podrun_container *c = arg;

    (void)response;
    if (status->code != STATUS_OK && status->code != STATUS_NOT_FOUND && status->code != STATUS_UNAVAILABLE)
        log_warn("container %s cannot be signalled: %s", c->spec->base->name, status->message);
}

static void podrun_container_signal(struct podrun_container *c, int number)
{
    Interlink__Agent__V1__SignalContainerRequest request = INTERLINK__AGENT__V1__SIGNAL_CONTAINER_REQUEST__INIT;

    request.id = c->id;
    request.signal = number;
    request.all = number == SIGKILL;
    rpc_unary(c->run->conn, "/interlink.agent.v1.Agent/SignalContainer", &request.base,
              &interlink__agent__v1__signal_container_response__descriptor, PODRUN_CALL_MS, podrun_on_signalled, c);
}

static void podrun_container_kill(void *arg)
{
    struct podrun_container *c = arg;

    podrun_check_cancel(&c->hook);
    c->termed = true;
    podrun_container_signal(c, SIGKILL);
}

static void podrun_container_term(void *arg, bool ok, const char *why)
{
    struct podrun_container *c = arg;

    if (!ok)
        log_warn("container %s: its preStop hook failed: %s", c->spec->base->name, why);
    if (!c->termed)
        podrun_container_signal(c, c->stop_signal);
    c->termed = true;
}

/* It does not run: it never will. */
static void podrun_container_never(struct podrun_container *c, const char *why)
{
    timer_stop(&c->timer);
    if (c->phase != PODRUN_BACKOFF) {
        c->end = (struct podrun_end){ .known = true, .exit_code = 137, .finished_ns = clock_real_ns() };
        snprintf(c->end.reason, sizeof c->end.reason, "NotStarted");
        snprintf(c->end.message, sizeof c->end.message, "%.200s before it was started%s%.500s", why,
                 c->waiting_message[0] != '\0' ? ": " : "", c->waiting_message);
    }
    c->for_good = true;
    podrun_move(c, PODRUN_ENDED);
}

void podrun_container_stop(struct podrun_container *c, int64_t grace_ms, const char *why)
{
    int64_t at = clock_mono_ms() + (grace_ms > 0 ? grace_ms : 0);
    bool first = !c->stopping;

    if (c->phase == PODRUN_ENDED) {
        c->for_good = c->for_good || c->run->stopping;
        return;
    }
    if (!podrun_container_active(c)) {
        podrun_container_never(c, why);
        return;
    }
    c->stopping = true;
    if (first || at < c->kill_at_ms)
        c->kill_at_ms = at;
    if (first)
        snprintf(c->stop_reason, sizeof c->stop_reason, "%.255s", why);
    if (c->phase != PODRUN_RUNNING)
        return; /* once it is started */
    podrun_probes_stop(c);
    podrun_status_changed(c->run);
    int64_t left = c->kill_at_ms - clock_mono_ms();
    timer_start(c->run->loop, &c->kill_timer, left > 0 ? left : 0, podrun_container_kill, c);
    if (!first)
        return;
    if (c->spec->pre_stop.kind != PODSPEC_NONE && left > 0)
        podrun_check_start(&c->hook, c, &c->spec->pre_stop, left, podrun_container_term, c);
    else if (left > 0)
        podrun_container_term(c, true, "");
}

void podrun_container_free(struct podrun_container *c)
{
    podrun_container_stopped(c);
    logfile_free(c->log);
}

#undef PODRUN_CALL_MS
#undef PODRUN_FALLBACK_MAX
