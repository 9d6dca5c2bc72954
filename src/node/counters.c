/* SPDX-License-Identifier: Apache-2.0 */
#include "node/counters.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include "image/image.h"
#include "interlink/interlink.h"
#include "io/file.h"
#include "node/container.h"
#include "node/events.h"
#include "node/link.h"
#include "node/sandbox.h"
#include "node/streaming.h"

struct counters_method {
    const char *service, *method; /* compared as pointers: each call's are the same */
    uint64_t by_code[STATUS_UNAUTHENTICATED + 1];
    struct prometheus_histogram seconds;
};

/* From the quickest list to the longest wait for a queue. */
static const double counters_call_bounds[] = { 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 120 };
static const double counters_wait_bounds[] = { 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 43200, 86400, 259200 };
static const double counters_pull_bounds[] = { 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 900, 3600 };

/* As gRPC for Go spells them, which is what dashboards look for. */
static const char *const counters_codes[] = {
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
    "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss",
    "Unauthenticated",
};
static const char *const counters_kinds[] = { "unary", "client_stream", "server_stream", "bidi_stream" };
static const char *const counters_pod_states[] = { "submitted", "queued", "ready", "notready" };
static const char *const counters_container_states[] = { "created", "running", "exited" };

/* ---- counting ---- */

struct counters *counters_new(struct node *node)
{
    struct counters *counters = xcalloc(1, sizeof *counters);

    counters->node = node;
    counters->started_ns = clock_real_ns();
    return counters;
}

void counters_free(struct counters *counters)
{
    if (counters == NULL)
        return;
    free(counters->methods);
    free(counters);
}

void counters_on_call_end(void *arg, const char *service, const char *method, enum status_code code, double seconds)
{
    struct counters *counters = arg;
    struct counters_method *m = NULL;

    for (size_t i = 0; i < counters->method_count && m == NULL; i++)
        if (counters->methods[i].method == method && counters->methods[i].service == service)
            m = &counters->methods[i];
    if (m == NULL) { /* as many as there are methods, then no more */
        counters->methods = xrealloc(counters->methods, (counters->method_count + 1) * sizeof *m);
        m = &counters->methods[counters->method_count++];
        *m = (struct counters_method){ .service = service, .method = method };
    }
    m->by_code[code <= STATUS_UNAUTHENTICATED ? code : STATUS_UNKNOWN]++;
    prometheus_observe(&m->seconds, counters_call_bounds, COUNT_OF(counters_call_bounds), seconds);
}

void counters_queue_wait(struct handler *handler, int64_t created_at)
{
    double seconds = (double)(clock_real_ns() - created_at) / 1e9;

    prometheus_observe(&handler->queue_wait, counters_wait_bounds, COUNT_OF(counters_wait_bounds), seconds > 0 ? seconds : 0);
}

void counters_pull_ended(struct counters *counters, bool ok, int64_t started_ms)
{
    counters->pulls += ok;
    counters->failed_pulls += !ok;
    if (ok)
        prometheus_observe(&counters->pull_seconds, counters_pull_bounds, COUNT_OF(counters_pull_bounds),
                           (double)(clock_mono_ms() - started_ms) / 1000);
}

/* ---- calls ---- */

static const char *counters_kind(const struct node *node, const struct counters_method *m)
{
    for (size_t i = 0; i < node->services.count; i++) {
        const struct rpc_service *service = node->services.services[i];
        for (size_t k = 0; service->name == m->service && k < service->method_count; k++)
            if (service->methods[k].name == m->method)
                return counters_kinds[service->methods[k].kind];
    }
    return counters_kinds[RPC_UNARY];
}

static void counters_write_calls(const struct counters *counters, struct buf *out)
{
    prometheus_family(out, "grpc_server_handled_total", "counter", "Calls on the CRI socket that have ended, by their status.");
    for (size_t i = 0; i < counters->method_count; i++) {
        const struct counters_method *m = &counters->methods[i];
        for (size_t code = 0; code < COUNT_OF(m->by_code); code++)
            if (m->by_code[code] > 0)
                prometheus_u64(out, "grpc_server_handled_total",
                               PROMETHEUS_LABELS("grpc_type", counters_kind(counters->node, m), "grpc_service", m->service,
                                                 "grpc_method", m->method, "grpc_code", counters_codes[code]),
                               m->by_code[code]);
    }
    prometheus_family(out, "grpc_server_handling_seconds", "histogram",
                      "From the headers of a call on the CRI socket to its end.");
    for (size_t i = 0; i < counters->method_count; i++) {
        const struct counters_method *m = &counters->methods[i];
        prometheus_histogram(out, "grpc_server_handling_seconds",
                             PROMETHEUS_LABELS("grpc_type", counters_kind(counters->node, m), "grpc_service", m->service,
                                               "grpc_method", m->method),
                             &m->seconds, counters_call_bounds, COUNT_OF(counters_call_bounds));
    }
}

/* ---- by handler ---- */

/* What a walk over all pods finds of one handler. */
struct counters_handler {
    uint64_t pods[COUNT_OF(counters_pod_states)], containers[COUNT_OF(counters_container_states)];
    uint64_t agents, received, sent;
    int64_t oldest_ns; /* creation of the pod that has waited longest; 0: none waits */
};

static struct counters_handler *counters_walk(struct node *node)
{
    struct counters_handler *all = xcalloc(node->options->handler_count, sizeof *all);
    struct strmap_iter it = { 0 };

    while (strmap_next(&node->sandboxes, &it)) {
        const struct sandbox *sandbox = it.value;
        struct counters_handler *h = &all[sandbox->handler - node->handlers];
        uint64_t received = 0, sent = 0;
        h->pods[sandbox->record->phase]++;
        if (!sandbox_listed(sandbox) && (h->oldest_ns == 0 || sandbox->record->created_at < h->oldest_ns))
            h->oldest_ns = sandbox->record->created_at;
        for (LIST_EACH(struct container, c, &sandbox->containers, link))
            h->containers[c->record->phase]++;
        if (sandbox->link == NULL)
            continue;
        h->agents += link_ready(sandbox->link);
        link_bytes(sandbox->link, &received, &sent);
        h->received += received;
        h->sent += sent;
    }
    return all;
}

static void counters_write_pods(const struct node *node, const struct counters_handler *all, struct buf *out)
{
    size_t count = node->options->handler_count;

    prometheus_family(out, "interlink_cri_pods", "gauge", "Pods by handler and state.");
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < COUNT_OF(counters_pod_states); k++)
            prometheus_u64(out, "interlink_cri_pods",
                           PROMETHEUS_LABELS("handler", node->handlers[i].options->name, "state", counters_pod_states[k]),
                           all[i].pods[k]);
    prometheus_family(out, "interlink_cri_containers", "gauge", "Containers by handler and state.");
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < COUNT_OF(counters_container_states); k++)
            prometheus_u64(out, "interlink_cri_containers",
                           PROMETHEUS_LABELS("handler", node->handlers[i].options->name, "state", counters_container_states[k]),
                           all[i].containers[k]);
    prometheus_family(out, "interlink_cri_queue_wait_seconds", "histogram",
                      "From RunPodSandbox to the agent's call, of pods that have become ready.");
    for (size_t i = 0; i < count; i++)
        prometheus_histogram(out, "interlink_cri_queue_wait_seconds",
                             PROMETHEUS_LABELS("handler", node->handlers[i].options->name), &node->handlers[i].queue_wait,
                             counters_wait_bounds, COUNT_OF(counters_wait_bounds));
    prometheus_family(out, "interlink_cri_queue_oldest_seconds", "gauge",
                      "How long the pod that has waited longest has waited; 0: none waits.");
    for (size_t i = 0; i < count; i++)
        prometheus_double(out, "interlink_cri_queue_oldest_seconds", PROMETHEUS_LABELS("handler", node->handlers[i].options->name),
                          all[i].oldest_ns > 0 ? (double)(clock_real_ns() - all[i].oldest_ns) / 1e9 : 0);
}

static void counters_write_agents(const struct node *node, const struct counters_handler *all, struct buf *out)
{
    size_t count = node->options->handler_count;

    prometheus_family(out, "interlink_cri_agents_connected", "gauge", "Pods whose agent is connected.");
    for (size_t i = 0; i < count; i++)
        prometheus_u64(out, "interlink_cri_agents_connected", PROMETHEUS_LABELS("handler", node->handlers[i].options->name),
                       all[i].agents);
    prometheus_family(out, "interlink_cri_agent_connections_total", "counter", "Connections that agents have made.");
    for (size_t i = 0; i < count; i++)
        prometheus_u64(out, "interlink_cri_agent_connections_total",
                       PROMETHEUS_LABELS("handler", node->handlers[i].options->name), node->handlers[i].agent_connections);
    prometheus_family(out, "interlink_cri_agent_bytes_total", "counter",
                      "Bytes between this node and agents: output, streams, images, all of it.");
    for (size_t i = 0; i < count; i++) {
        const char *name = node->handlers[i].options->name;
        prometheus_u64(out, "interlink_cri_agent_bytes_total", PROMETHEUS_LABELS("handler", name, "direction", "received"),
                       all[i].received + node->handlers[i].agent_received);
        prometheus_u64(out, "interlink_cri_agent_bytes_total", PROMETHEUS_LABELS("handler", name, "direction", "sent"),
                       all[i].sent + node->handlers[i].agent_sent);
    }
}

static void counters_write_targets(const struct node *node, struct buf *out)
{
    size_t count = node->options->handler_count;

    prometheus_family(out, "interlink_cri_target_up", "gauge", "Whether the handler's interLink API answered its last query.");
    for (size_t i = 0; i < count; i++)
        prometheus_u64(out, "interlink_cri_target_up", PROMETHEUS_LABELS("handler", node->handlers[i].options->name),
                       interlink_target_health(node->handlers[i].target)->code == STATUS_OK);
    prometheus_family(out, "interlink_cri_jobs", "gauge", "Jobs that are watched at the handler's interLink API.");
    for (size_t i = 0; i < count; i++)
        prometheus_u64(out, "interlink_cri_jobs", PROMETHEUS_LABELS("handler", node->handlers[i].options->name),
                       interlink_target_job_count(node->handlers[i].target));
    prometheus_family(out, "interlink_cri_rest_requests_total", "counter",
                      "Requests to interLink APIs: ok, refused (answered with an error) or unanswered.");
    for (size_t i = 0; i < count; i++) {
        const struct interlink_calls *calls = interlink_target_calls(node->handlers[i].target);
        for (size_t k = 0; k < INTERLINK_CALL_KINDS; k++) {
            const char *name = node->handlers[i].options->name, *call = *calls[k].path != '\0' ? calls[k].path + 1 : "other";
            prometheus_u64(out, "interlink_cri_rest_requests_total",
                           PROMETHEUS_LABELS("handler", name, "call", call, "result", "ok"), calls[k].ok);
            prometheus_u64(out, "interlink_cri_rest_requests_total",
                           PROMETHEUS_LABELS("handler", name, "call", call, "result", "refused"), calls[k].refused);
            prometheus_u64(out, "interlink_cri_rest_requests_total",
                           PROMETHEUS_LABELS("handler", name, "call", call, "result", "unanswered"), calls[k].unanswered);
        }
    }
    prometheus_family(out, "interlink_cri_rest_request_seconds_total", "counter", "Time that these requests took, in all.");
    for (size_t i = 0; i < count; i++) {
        const struct interlink_calls *calls = interlink_target_calls(node->handlers[i].target);
        for (size_t k = 0; k < INTERLINK_CALL_KINDS; k++)
            prometheus_double(out, "interlink_cri_rest_request_seconds_total",
                              PROMETHEUS_LABELS("handler", node->handlers[i].options->name, "call",
                                                *calls[k].path != '\0' ? calls[k].path + 1 : "other"),
                              calls[k].seconds);
    }
}

/* ---- one of each ---- */

static void counters_one(struct buf *out, const char *name, const char *type, const char *help, double value)
{
    prometheus_family(out, name, type, help);
    prometheus_double(out, name, PROMETHEUS_NONE, value);
}

static void counters_write_images(const struct counters *counters, struct buf *out)
{
    struct node *node = counters->node;
    struct image_usage usage;
    uint64_t count = 0;

    for (const struct image *i = image_store_next(node->images, NULL); i != NULL; i = image_store_next(node->images, i))
        count++;
    image_store_usage(node->images, &usage);
    prometheus_family(out, "interlink_cri_image_pulls_total", "counter", "Pulls that have ended.");
    prometheus_u64(out, "interlink_cri_image_pulls_total", PROMETHEUS_LABELS("result", "ok"), counters->pulls);
    prometheus_u64(out, "interlink_cri_image_pulls_total", PROMETHEUS_LABELS("result", "failed"), counters->failed_pulls);
    prometheus_family(out, "interlink_cri_image_pull_seconds", "histogram", "How long pulls took that did not fail.");
    prometheus_histogram(out, "interlink_cri_image_pull_seconds", PROMETHEUS_NONE, &counters->pull_seconds, counters_pull_bounds,
                         COUNT_OF(counters_pull_bounds));
    counters_one(out, "interlink_cri_images", "gauge", "Images in the store.", (double)count);
    counters_one(out, "interlink_cri_image_store_bytes", "gauge", "What they take on the disk.", (double)usage.bytes);
}

static void counters_write_node(const struct counters *counters, struct buf *out)
{
    struct node *node = counters->node;
    struct status ignored;

    prometheus_family(out, "interlink_cri_build_info", "gauge", "This program.");
    prometheus_u64(out, "interlink_cri_build_info", PROMETHEUS_LABELS("version", node->options->version), 1);
    counters_one(out, "interlink_cri_container_log_bytes_total", "counter", "Output of containers that was stored in their logs.",
                (double)counters->log_bytes);
    counters_one(out, "interlink_cri_event_subscribers", "gauge", "Streams of GetContainerEvents.",
                (double)events_subscribers(node->events));
    counters_one(out, "interlink_cri_streams", "gauge", "Open streams of exec, attach and port-forward.",
                node->streaming != NULL ? (double)streaming_sessions(node->streaming) : 0);
    counters_one(out, "interlink_cri_state_pending_records", "gauge", "Records on their way to the disk.",
                (double)state_pending(node->state));
    counters_one(out, "interlink_cri_state_up", "gauge", "Whether records reach the disk.",
                state_healthy(node->state, NODE_STATE_PATIENCE_MS, &ignored));
    counters_one(out, "interlink_cri_loop_lag_seconds", "gauge",
                "The longest that one turn of the event loop took within the last minute.", (double)loop_lag_ms(node->loop) / 1000);
}

/* ---- the process ---- */

static uint64_t counters_open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    uint64_t count = 0;

    while (dir != NULL && readdir(dir) != NULL)
        count++;
    if (dir != NULL)
        closedir(dir);
    return count > 3 ? count - 3 : 0; /* without ".", ".." and the folder itself */
}

static void counters_write_process(const struct counters *counters, struct buf *out)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored;
    unsigned long user = 0, system = 0, size = 0;
    long rss = 0;
    double ticks = (double)sysconf(_SC_CLK_TCK);
    struct rlimit files = { 0, 0 };

    /* proc(5): the name in brackets may hold anything, so the fields are counted from its end: state is number 3. */
    const char *fields = file_read("/proc/self/stat", 4096, &text, &ignored) ? strrchr(buf_cstr(&text), ')') : NULL;
    if (fields == NULL || sscanf(fields + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %lu %ld",
                                 &user, &system, &size, &rss) != 4)
        return;
    getrlimit(RLIMIT_NOFILE, &files);
    counters_one(out, "process_cpu_seconds_total", "counter", "CPU time, user and system.", (double)(user + system) / ticks);
    counters_one(out, "process_resident_memory_bytes", "gauge", "Memory in use.", (double)rss * (double)sysconf(_SC_PAGESIZE));
    counters_one(out, "process_virtual_memory_bytes", "gauge", "Address space in use.", (double)size);
    counters_one(out, "process_open_fds", "gauge", "Open file descriptors.", (double)counters_open_fds());
    counters_one(out, "process_max_fds", "gauge", "As many may be open.", (double)files.rlim_cur);
    counters_one(out, "process_start_time_seconds", "gauge", "Start of the process, since the epoch.",
                (double)counters->started_ns / 1e9);
}

void counters_write(const struct counters *counters, struct buf *out)
{
    struct node *node = counters->node;
    struct counters_handler *all = counters_walk(node);

    counters_write_calls(counters, out);
    counters_write_pods(node, all, out);
    counters_write_agents(node, all, out);
    counters_write_targets(node, out);
    counters_write_images(counters, out);
    counters_write_node(counters, out);
    counters_write_process(counters, out);
    free(all);
}
