/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/podrun.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <arpa/inet.h>

#include "agent/podrun_internal.h"
#include "interlink/message.h"
#include "io/file.h"
#include "io/stream.h"

/* ---- the end ---- */

static int podrun_exit_code(const struct podrun *run)
{
    for (size_t i = 0; i < run->spec.count; i++) {
        const struct podrun_container *c = &run->containers[i];
        /* How a sidecar takes its TERM says nothing about the pod. */
        if (c->spec->role != PODSPEC_SIDECAR && c->end.exit_code != 0)
            return c->end.exit_code;
    }
    return run->failure.code != STATUS_OK ? 128 : 0;
}

static void podrun_on_shutdown(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    (void)arg;
    (void)response;
    if (status->code != STATUS_OK && status->code != STATUS_UNAVAILABLE)
        log_warn("the agent does not end: %s", status->message);
}

/* All containers have ended: that is written down before the agent goes. */
static void podrun_leave(struct podrun *run)
{
    Interlink__Agent__V1__ShutdownRequest request = INTERLINK__AGENT__V1__SHUTDOWN_REQUEST__INIT;
    struct status err = STATUS_INIT;

    if (run->leaving)
        return;
    run->leaving = true;
    timer_stop(&run->deadline);
    timer_stop(&run->status_timer);
    if (!podrun_status_write(run, &err))
        log_error("how the pod ended cannot be told: %s", err.message);
    int code = podrun_exit_code(run);
    log_info("the pod has ended: %d", code);
    run->on_done(run->arg, code);
    rpc_unary(run->conn, "/interlink.agent.v1.Agent/Shutdown", &request.base, &interlink__agent__v1__shutdown_response__descriptor, 0,
              podrun_on_shutdown, NULL);
}

static bool podrun_all_ended(const struct podrun *run, bool sidecars)
{
    for (size_t i = 0; i < run->spec.count; i++) {
        const struct podrun_container *c = &run->containers[i];
        if ((c->spec->role == PODSPEC_SIDECAR) == sidecars && !(c->phase == PODRUN_ENDED && c->for_good))
            return false;
    }
    return true;
}

/* First all but the sidecars, then those, last one first. */
static void podrun_step_stop(struct podrun *run)
{
    int64_t left = run->stop_by_ms - clock_mono_ms();

    for (size_t i = 0; i < run->spec.count; i++)
        if (run->containers[i].spec->role != PODSPEC_SIDECAR)
            podrun_container_stop(&run->containers[i], left, run->failure.message);
    if (!podrun_all_ended(run, false) && left > 0)
        return;
    for (size_t i = run->spec.init_count; i > 0; i--) {
        struct podrun_container *c = &run->containers[i - 1];
        if (c->spec->role != PODSPEC_SIDECAR)
            continue;
        /* The others may have used up the time; these get a little of their own. */
        podrun_container_stop(c, left > PODRUN_SIDECAR_GRACE_MS ? left : PODRUN_SIDECAR_GRACE_MS, run->failure.message);
        if (!(c->phase == PODRUN_ENDED && c->for_good) && left > 0)
            return;
    }
    if (podrun_all_ended(run, false) && podrun_all_ended(run, true))
        podrun_leave(run);
}

static void podrun_begin_stop(struct podrun *run, int64_t grace_ms, enum status_code code, const char *why)
{
    int64_t by = clock_mono_ms() + grace_ms;

    if (!run->stopping) {
        status_set(&run->failure, code, "%s", why);
        run->stop_by_ms = by;
    }
    run->stopping = true;
    run->stop_by_ms = by < run->stop_by_ms ? by : run->stop_by_ms;
    podrun_step_soon(run);
}

void podrun_fail(struct podrun *run, const struct status *err)
{
    log_error("the pod cannot be run: %s", err->message);
    podrun_begin_stop(run, run->spec.grace_seconds * 1000, err->code, err->message);
}

/* What a deletion says counts more than the pod. */
static int64_t podrun_grace_seconds(const struct podrun *run)
{
    cleanup_free char *path = xasprintf("%s/grace", run->job_dir);
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;
    uint64_t seconds;

    return file_read(path, 32, &text, &ignored) && parse_u64(buf_cstr(&text), INT32_MAX, &seconds) ? (int64_t)seconds
                                                                                                   : run->spec.grace_seconds;
}

void podrun_stop(struct podrun *run, bool now, const char *why)
{
    podrun_begin_stop(run, now ? 0 : podrun_grace_seconds(run) * 1000, STATUS_CANCELLED, why);
}

static void podrun_on_deadline(void *arg)
{
    struct podrun *run = arg;

    podrun_begin_stop(run, run->spec.grace_seconds * 1000, STATUS_DEADLINE_EXCEEDED,
                      "DeadlineExceeded: the pod was active on the node longer than the specified deadline");
}

/* ---- the order of containers ---- */

/* True: the next one's turn. */
static bool podrun_step_init(struct podrun *run, struct podrun_container *c)
{
    if (c->phase == PODRUN_WAITING)
        podrun_container_begin(c);
    if (c->spec->role == PODSPEC_SIDECAR)
        return c->started || c->attempt > 0;
    if (c->phase != PODRUN_ENDED || !c->for_good)
        return false;
    if (c->end.exit_code == 0)
        return true;
    podrun_begin_stop(run, run->spec.grace_seconds * 1000, STATUS_ABORTED, "an init container failed");
    return false;
}

static void podrun_step(void *arg)
{
    struct podrun *run = arg;

    if (run->leaving)
        return;
    for (size_t i = 0; run->ready && !run->stopping && i < run->spec.init_count; i++)
        if (!podrun_step_init(run, &run->containers[i]))
            break;
    bool turn = run->ready && !run->stopping;
    for (size_t i = 0; turn && i < run->spec.init_count; i++) {
        const struct podrun_container *c = &run->containers[i];
        turn = c->spec->role == PODSPEC_SIDECAR ? c->started || c->attempt > 0 : c->phase == PODRUN_ENDED && c->for_good;
    }
    bool ended = turn;
    for (size_t i = run->spec.init_count; turn && i < run->spec.count; i++) {
        struct podrun_container *c = &run->containers[i];
        if (c->phase == PODRUN_WAITING)
            podrun_container_begin(c);
        ended = ended && c->phase == PODRUN_ENDED && c->for_good;
    }
    if (ended && !run->stopping) {
        run->stopping = true;
        run->stop_by_ms = clock_mono_ms() + run->spec.grace_seconds * 1000;
    }
    if (run->stopping)
        podrun_step_stop(run);
}

void podrun_step_soon(struct podrun *run)
{
    deferred_start(run->loop, &run->step, podrun_step, run);
}

/* ---- set-up ---- */

static void podrun_on_event(void *arg, const ProtobufCMessage *message)
{
    struct podrun *run = arg;
    const Interlink__Agent__V1__Event *event = (const void *)message;

    for (size_t i = 0; event->state != NULL && i < run->spec.count; i++)
        if (strcmp(run->containers[i].id, event->state->id) == 0)
            podrun_container_on_state(&run->containers[i], event->state);
}

static void podrun_on_events_end(void *arg, const struct status *status)
{
    struct podrun *run = arg;

    if (!run->leaving)
        podrun_fail(run, status);
}

static void podrun_subscribe(struct podrun *run)
{
    Interlink__Agent__V1__EventsRequest request = INTERLINK__AGENT__V1__EVENTS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Events",
        .output = &interlink__agent__v1__event__descriptor,
        .on_message = podrun_on_event,
        .on_finish = podrun_on_events_end,
        .arg = run,
    };

    struct rpc_request *events = rpc_request_start(run->conn, &options);
    rpc_request_send(events, &request.base);
    rpc_request_half_close(events);
}

static void podrun_on_files(struct podrun *run, const struct status *err)
{
    if (err != NULL && !run->leaving) {
        podrun_fail(run, err);
        return;
    }
    run->ready = true;
    podrun_step_soon(run);
}

static void podrun_on_configured(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct podrun *run = arg;

    (void)response;
    if (run->leaving)
        return;
    if (status->code != STATUS_OK) {
        podrun_fail(run, status);
        return;
    }
    podrun_subscribe(run);
    podrun_files_put(run, podrun_on_files);
}

static void podrun_on_hello(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct podrun *run = arg;
    cleanup_arena struct arena arena = ARENA_INIT;
    Interlink__Agent__V1__ConfigureSandboxRequest request = INTERLINK__AGENT__V1__CONFIGURE_SANDBOX_REQUEST__INIT;
    Runtime__V1__PodSandboxConfig config;

    (void)response;
    if (run->leaving)
        return;
    if (status->code != STATUS_OK) {
        podrun_fail(run, status);
        return;
    }
    podrun_sandbox_config(&arena, run, &config);
    request.config = &config;
    rpc_unary(run->conn, "/interlink.agent.v1.Agent/ConfigureSandbox", &request.base,
              &interlink__agent__v1__configure_sandbox_response__descriptor, 0, podrun_on_configured, run);
}

/* The first address that others may reach: what kubelet calls the host's IP, which is the pod's too. */
static const char *podrun_address(struct arena *arena)
{
    struct ifaddrs *all = NULL;
    char text[INET_ADDRSTRLEN] = "127.0.0.1";

    if (getifaddrs(&all) == 0)
        for (struct ifaddrs *a = all; a != NULL; a = a->ifa_next)
            if (a->ifa_addr != NULL && a->ifa_addr->sa_family == AF_INET && (a->ifa_flags & IFF_LOOPBACK) == 0 &&
                (a->ifa_flags & IFF_UP) != 0) {
                const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)a->ifa_addr;
                inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
                break;
            }
    freeifaddrs(all);
    return arena_strdup(arena, text);
}

static void podrun_on_close(void *arg, const struct status *err)
{
    struct podrun *run = arg;

    if (!run->leaving)
        log_error("the agent's own connection broke: %s", err->message);
}

static void podrun_start_containers(struct podrun *run)
{
    run->containers = xcalloc(run->spec.count, sizeof *run->containers);
    for (size_t i = 0; i < run->spec.count; i++) {
        run->containers[i].run = run;
        run->containers[i].spec = &run->spec.containers[i];
    }
    if (run->spec.create.pod.active_deadline_seconds > 0)
        timer_start(run->loop, &run->deadline, run->spec.create.pod.active_deadline_seconds * 1000, podrun_on_deadline, run);
    podrun_status_changed(run);
}

struct podrun *podrun_start(const struct podrun_options *options, struct status *err)
{
    struct podrun *run = xcalloc(1, sizeof *run);
    Interlink__Agent__V1__HelloRequest hello = INTERLINK__AGENT__V1__HELLO_REQUEST__INIT;

    run->loop = options->loop;
    run->job_dir = options->job_dir;
    run->images_dir = options->images_dir;
    run->on_done = options->on_done;
    run->arg = options->arg;
    run->conn = rpc_conn_new(run->loop, options->stream, &(struct rpc_conn_options){ .on_close = podrun_on_close, .arg = run }, STR(""));
    if (!file_read(options->manifest, PLUGIN_CREATE_MAX, &run->manifest, err) ||
        !podspec_read(&run->arena, (struct str){ (const char *)run->manifest.p, run->manifest.n }, podrun_address(&run->arena), &run->spec,
                      err)) {
        podrun_free(run);
        return NULL;
    }
    podrun_start_containers(run);
    rpc_unary(run->conn, "/interlink.agent.v1.Agent/Hello", &hello.base, &interlink__agent__v1__hello_response__descriptor, 0,
              podrun_on_hello, run);
    return run;
}

void podrun_free(struct podrun *run)
{
    if (run == NULL)
        return;
    run->leaving = true;
    timer_stop(&run->deadline);
    timer_stop(&run->status_timer);
    for (size_t i = 0; run->containers != NULL && i < run->spec.count; i++)
        podrun_container_free(&run->containers[i]);
    rpc_conn_free(run->conn);
    deferred_stop(&run->step);
    http_client_free(run->http);
    free(run->containers);
    buf_free(&run->manifest);
    arena_free(&run->arena);
    free(run);
}
