/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/plugin.h"

#include <unistd.h>

#include "http/server.h"
#include "io/child.h"
#include "io/file.h"
#include "io/socket.h"
#include "plugin/backend.h"
#include "plugin/backend_common.h"
#include "plugin/job_images.h"
#include "plugin/job_manifest.h"
#include "plugin/job_status.h"
#include "plugin/pod_log.h"
#include "plugin/tail.h"

struct plugin {
    struct loop *loop;
    const struct backend *backend;
    void *self; /* the backend's instance */
    char *dir;  /* owned; where its jobs are, DIR/jobs/UID */
    struct job_images *images; /* owned; of pods from manifests, and which these are */
    struct http_server *server;
    struct listener listener;
};

/* A create or delete that the backend has not answered yet. */
struct plugin_pending {
    struct plugin *plugin;
    struct http_exchange *x;
    struct timer timer;
    char uid[INTERLINK_UID_MAX + 1];
};

static const struct backend *const plugin_backends[] = { &backend_local, &backend_slurm };

/* ---- replies ---- */

static void plugin_fail(struct http_exchange *x, const struct status *err)
{
    http_replyf(x, interlink_http_status(err->code), "%s", err->message);
}

static void plugin_reply_json(struct http_exchange *x, const struct buf *body)
{
    http_reply_text(x, 200, "application/json", (struct str){ (const char *)body->p, body->n });
}

/* A request that cannot be understood. */
static void plugin_malformed(struct http_exchange *x, struct status *err)
{
    status_prefix(err, "%s", http_exchange_path(x));
    log_debug("plugin: from %s: %s", http_exchange_peer(x), err->message);
    http_replyf(x, err->code == STATUS_RESOURCE_EXHAUSTED ? 413 : 400, "%s", err->message);
}

static bool plugin_method(struct http_exchange *x, const char *first, const char *second)
{
    const char *method = http_exchange_method(x);

    if (strcmp(method, first) == 0 || strcmp(method, second) == 0)
        return true;
    http_replyf(x, 405, "%s takes %s or %s, not %s", http_exchange_path(x), first, second, method);
    return false;
}

static bool plugin_check_uid(struct http_exchange *x, const char *uid)
{
    if (interlink_uid_valid(uid))
        return true;
    http_replyf(x, 400, "%s: metadata.uid: wanted lower-case letters, digits and hyphens, at most %d",
                http_exchange_path(x), INTERLINK_UID_MAX);
    return false;
}

/* ---- what is answered later ---- */

static void plugin_pending_free(struct plugin_pending *p)
{
    timer_stop(&p->timer);
    free(p);
}

static void plugin_on_gone(void *arg)
{
    struct plugin_pending *p = arg;

    p->plugin->backend->caller_gone(p->plugin->self, p);
    plugin_pending_free(p);
}

static struct plugin_pending *plugin_pending_new(struct plugin *plugin, struct http_exchange *x, const char *uid)
{
    struct plugin_pending *p = xcalloc(1, sizeof *p);

    p->plugin = plugin;
    p->x = x;
    snprintf(p->uid, sizeof p->uid, "%s", uid);
    http_exchange_on_gone(x, plugin_on_gone, p);
    return p;
}

/* ---- create ---- */

static const char *plugin_job_dir(const struct plugin *plugin, struct arena *arena, const char *uid)
{
    return arena_printf(arena, "%s/jobs/%s", plugin->dir, uid);
}

/* The job of a pod from a manifest, as the backend sees it. */
static void plugin_job_state(const struct plugin *plugin, struct arena *arena, const struct interlink_pod *pod,
                             struct interlink_pod_status *status, struct interlink_container_state *out)
{
    struct interlink_container agent = { .name = JOB_MANIFEST_CONTAINER };
    struct interlink_pod job = *pod;

    job.containers = &agent;
    job.container_count = 1;
    job.init_container_count = 0;
    plugin->backend->status(plugin->self, arena, &job, status);
    *out = status->containers[0];
}

static bool plugin_knows(void *arg, const char *uid)
{
    const struct plugin *plugin = arg;
    struct backend_log log;
    struct status ignored = STATUS_INIT;

    return plugin->backend->log(plugin->self, uid, "", &log, &ignored);
}

/* Of a pod that the backend does not know there is nothing to be brought. */
static void plugin_settle_images(struct plugin *plugin, const char *uid)
{
    if (job_images_known(plugin->images, uid) && !plugin_knows(plugin, uid))
        job_images_forget(plugin->images, uid);
}

static void plugin_on_submitted(void *arg, const char *jid, const struct status *err)
{
    struct plugin_pending *p = arg;
    cleanup_buf struct buf body = BUF_INIT;

    if (err != NULL) {
        plugin_fail(p->x, err);
        plugin_settle_images(p->plugin, p->uid);
    } else {
        job_images_tell(p->plugin->images, p->uid);
        interlink_created_write(&body, &(struct interlink_created){ p->uid, jid });
        plugin_reply_json(p->x, &body);
    }
    plugin_pending_free(p);
}

/* A pod that is not a node's agent: the job runs it from its manifest. */
static bool plugin_create_manifest(struct plugin *plugin, struct http_exchange *x, struct interlink_create *create, struct podspec *spec,
                                   struct status *err)
{
    struct arena *arena = http_exchange_arena(x);

    return job_manifest_make(arena, http_exchange_body(x), plugin_job_dir(plugin, arena, create->pod.uid), job_images_dir(plugin->images),
                             spec, create, err) &&
           job_images_add(plugin->images, spec, err);
}

static void plugin_create(void *context, struct http_exchange *x)
{
    struct plugin *plugin = context;
    struct interlink_create create;
    struct podspec spec;
    struct status err = STATUS_INIT;

    if (!plugin_method(x, "POST", "PUT"))
        return;
    if (!interlink_create_read(http_exchange_arena(x), http_exchange_body(x), &create, &err)) {
        plugin_malformed(x, &err);
        return;
    }
    if (!plugin_check_uid(x, create.pod.uid))
        return;
    if (job_manifest_wanted(&create.pod) && !plugin_create_manifest(plugin, x, &create, &spec, &err)) {
        plugin_fail(x, &err);
        return;
    }
    plugin->backend->submit(plugin->self, &create, plugin_on_submitted, plugin_pending_new(plugin, x, create.pod.uid));
}

/* ---- status and ping ---- */

static void plugin_ping(void *context, struct http_exchange *x)
{
    struct plugin *plugin = context;
    struct interlink_ping ping;
    cleanup_buf struct buf body = BUF_INIT;

    job_images_sweep(plugin->images, plugin_knows, plugin); /* it comes now and then */
    plugin->backend->capacity(plugin->self, http_exchange_arena(x), &ping);
    interlink_ping_write(&body, &ping);
    plugin_reply_json(x, &body);
}

static void plugin_pod_status(const struct plugin *plugin, struct arena *arena, const struct interlink_pod *pod,
                              struct interlink_pod_status *out)
{
    struct interlink_pod_status job_status;
    struct interlink_container_state job;

    if (!job_images_known(plugin->images, pod->uid)) {
        plugin->backend->status(plugin->self, arena, pod, out);
        return;
    }
    plugin_job_state(plugin, arena, pod, &job_status, &job);
    backend_status_init(arena, pod, out);
    out->jid = job_status.jid;
    out->nodes = job_status.nodes;
    job_status_fill(arena, plugin_job_dir(plugin, arena, pod->uid), &job, out);
}

static void plugin_status(void *context, struct http_exchange *x)
{
    struct plugin *plugin = context;
    struct arena *arena = http_exchange_arena(x);
    struct interlink_pod *pods;
    size_t count;
    struct status err = STATUS_INIT;
    cleanup_buf struct buf body = BUF_INIT;

    if (!plugin_method(x, "GET", "POST"))
        return;
    if (!interlink_pods_read(arena, http_exchange_body(x), &pods, &count, &err)) {
        plugin_malformed(x, &err);
        return;
    }
    /* How an API server passes on a ping. */
    if (count == 0) {
        plugin_ping(context, x);
        return;
    }
    struct interlink_pod_status *statuses = ARENA_ARRAY(arena, struct interlink_pod_status, count);
    for (size_t i = 0; i < count; i++)
        plugin_pod_status(plugin, arena, &pods[i], &statuses[i]);
    interlink_statuses_write(&body, statuses, count);
    plugin_reply_json(x, &body);
}

/* ---- delete ---- */

static void plugin_on_cancelled(void *arg, const struct status *err)
{
    struct plugin_pending *p = arg;

    plugin_settle_images(p->plugin, p->uid);
    if (err != NULL)
        plugin_fail(p->x, err);
    else
        http_replyf(p->x, 200, "the job of pod %s is gone", p->uid);
    plugin_pending_free(p);
}

static void plugin_delete_holds(void *arg)
{
    struct plugin_pending *p = arg;

    p->plugin->backend->caller_gone(p->plugin->self, p);
    http_replyf(p->x, 504, "the job of pod %s is still ending within its grace period: ask again", p->uid);
    plugin_pending_free(p);
}

/* For the agent of a pod from a manifest, which is about to be told to end. */
static void plugin_tell_grace(struct plugin *plugin, struct http_exchange *x, const char *uid, int64_t seconds)
{
    const char *path = arena_printf(http_exchange_arena(x), "%s/grace", plugin_job_dir(plugin, http_exchange_arena(x), uid));
    const char *text = arena_printf(http_exchange_arena(x), "%" PRId64, seconds);
    struct status err = STATUS_INIT;

    if (seconds >= 0 && job_images_known(plugin->images, uid) && !file_replace(path, text, strlen(text), 0600, &err))
        log_debug("%s", err.message); /* there is no such job */
}

static void plugin_delete(void *context, struct http_exchange *x)
{
    struct plugin *plugin = context;
    struct interlink_pod pod;
    struct status err = STATUS_INIT;

    if (!plugin_method(x, "DELETE", "POST"))
        return;
    if (!interlink_pod_read(http_exchange_arena(x), http_exchange_body(x), &pod, &err)) {
        plugin_malformed(x, &err);
        return;
    }
    if (!plugin_check_uid(x, pod.uid))
        return;
    struct plugin_pending *p = plugin_pending_new(plugin, x, pod.uid);
    int64_t grace = pod.deletion_grace_seconds >= 0 ? pod.deletion_grace_seconds : pod.termination_grace_seconds;
    plugin_tell_grace(plugin, x, pod.uid, grace);
    timer_start(plugin->loop, &p->timer, PLUGIN_DELETE_HOLD_MS, plugin_delete_holds, p);
    plugin->backend->cancel(plugin->self, pod.uid, grace, plugin_on_cancelled, p);
}

/* ---- logs ---- */

struct plugin_log_source {
    struct plugin *plugin;
    char uid[INTERLINK_UID_MAX + 1];
    char container[64]; /* of a pod from a manifest */
};

static bool plugin_log_live(void *arg)
{
    const struct plugin_log_source *source = arg;
    struct backend_log log;
    struct status ignored = STATUS_INIT;

    return source->plugin->backend->log(source->plugin->self, source->uid, "", &log, &ignored) && log.live;
}

/* The combinations that an API server refuses too. */
static bool plugin_check_log_request(struct http_exchange *x, const struct interlink_log_request *r)
{
    if (!plugin_check_uid(x, r->pod_uid))
        return false;
    if (r->tail > 0 && r->bytes > 0)
        http_replyf(x, 400, "Opts: Tail and Bytes exclude each other");
    else if (r->since_seconds > 0 && r->since_time_ns > 0)
        http_replyf(x, 400, "Opts: SinceSeconds and SinceTime exclude each other");
    else
        return true;
    return false;
}

/* Whether that attempt at a container may still write; < 0: whether there will be one. */
static bool plugin_pod_log_live(void *arg, int64_t attempt)
{
    const struct plugin_log_source *source = arg;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct interlink_pod pod = INTERLINK_POD_INIT;
    struct interlink_pod_status job_status;
    struct interlink_container_state job, state;

    pod.uid = source->uid;
    plugin_job_state(source->plugin, &arena, &pod, &job_status, &job);
    if (!job_status_container(&arena, plugin_job_dir(source->plugin, &arena, source->uid), &job, source->container, &state))
        return false;
    if (state.phase == INTERLINK_WAITING) /* it is being started, or waits to be once more */
        return attempt < 0 || (state.restart_count == attempt && strcmp(state.reason, "CrashLoopBackOff") != 0);
    return state.phase == INTERLINK_RUNNING && (attempt < 0 || state.restart_count <= attempt);
}

static void plugin_pod_logs(struct plugin *plugin, struct http_exchange *x, const struct interlink_log_request *r)
{
    struct arena *arena = http_exchange_arena(x);
    const char *dir = plugin_job_dir(plugin, arena, r->pod_uid);
    struct interlink_pod pod = INTERLINK_POD_INIT;
    struct interlink_pod_status job_status;
    struct interlink_container_state job, state;

    pod.uid = r->pod_uid;
    plugin_job_state(plugin, arena, &pod, &job_status, &job);
    if (strlen(r->container) > 63 || strspn(r->container, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(r->container) ||
        r->container[0] == '\0') {
        http_replyf(x, 400, "ContainerName: \"%.80s\" is no container's name", r->container);
    } else if (!job_status_container(arena, dir, &job, r->container, &state)) {
        http_replyf(x, 404, "pod %s has no container \"%s\"", r->pod_uid, r->container);
    } else if (r->previous && state.restart_count == 0) {
        http_replyf(x, 404, "there is no previous instance of container \"%s\"", r->container);
    } else {
        struct plugin_log_source *source = xcalloc(1, sizeof *source);
        source->plugin = plugin;
        snprintf(source->uid, sizeof source->uid, "%s", r->pod_uid);
        snprintf(source->container, sizeof source->container, "%s", r->container);
        pod_log_start(plugin->loop, x, &(struct pod_log_options){ .job_dir = dir, .request = r, .now_ns = clock_real_ns(),
                                                                   .live = plugin_pod_log_live, .arg = source });
    }
}

static void plugin_logs(void *context, struct http_exchange *x)
{
    struct plugin *plugin = context;
    struct interlink_log_request request;
    struct backend_log log;
    struct status err = STATUS_INIT;

    if (!plugin_method(x, "GET", "POST"))
        return;
    if (!interlink_log_request_read(http_exchange_arena(x), http_exchange_body(x), &request, &err)) {
        plugin_malformed(x, &err);
        return;
    }
    if (!plugin_check_log_request(x, &request))
        return;
    if (job_images_known(plugin->images, request.pod_uid)) {
        plugin_pod_logs(plugin, x, &request);
        return;
    }
    if (request.previous) {
        http_replyf(x, 404, "there is no previous instance: jobs are not restarted");
        return;
    }
    if (!plugin->backend->log(plugin->self, request.pod_uid, request.container, &log, &err)) {
        plugin_fail(x, &err);
        return;
    }
    struct plugin_log_source *source = xcalloc(1, sizeof *source);
    source->plugin = plugin;
    snprintf(source->uid, sizeof source->uid, "%s", request.pod_uid);
    tail_start(plugin->loop, x,
               &(struct tail_options){ .path = log.path, .request = &request, .now_ns = clock_real_ns(),
                                       .live = plugin_log_live, .arg = source });
}

static void plugin_update_cache(void *context, struct http_exchange *x)
{
    (void)context;
    http_replyf(x, 200, "there is no cache here");
}

static void plugin_not_found(void *context, struct http_exchange *x)
{
    (void)context;
    http_replyf(x, 404, "%s is none of /create, /status, /delete, /getLogs, /pinglink, /updateCache",
                http_exchange_path(x));
}

static const struct http_route plugin_routes[] = {
    { NULL, "/create", PLUGIN_CREATE_MAX, false, plugin_create },
    { NULL, "/status", PLUGIN_STATUS_MAX, false, plugin_status },
    { NULL, "/delete", PLUGIN_REQUEST_MAX, false, plugin_delete },
    { NULL, "/getLogs", PLUGIN_REQUEST_MAX, false, plugin_logs },
    { NULL, "/pinglink", PLUGIN_REQUEST_MAX, false, plugin_ping },
    { NULL, "/updateCache", PLUGIN_REQUEST_MAX, false, plugin_update_cache },
    { NULL, "/", PLUGIN_REQUEST_MAX, false, plugin_not_found },
};

/* ---- start and stop ---- */

static const struct backend *plugin_find_backend(const char *name, struct status *err)
{
    for (size_t i = 0; i < COUNT_OF(plugin_backends); i++)
        if (name[0] == '\0' || strcmp(plugin_backends[i]->name, name) == 0)
            return plugin_backends[i];
    status_set(err, STATUS_INVALID_ARGUMENT, "there is no backend \"%s\"; this program has \"local\" and \"slurm\"", name);
    return NULL;
}

static bool plugin_listen(struct plugin *plugin, const struct plugin_options *options, struct status *err)
{
    struct address address;

    if (!address_parse(options->listen, &address, err))
        return false;
    /* interLink's API server sends its plugin no credentials, so a port would let every user of this machine (and of others)
     * run programs as this one. */
    if (!address.is_unix && !options->allow_tcp)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "listening on %s: a plugin cannot tell who dials a TCP port, and runs what it is told to: use "
                          "unix:///..., or allow TCP where only trusted users can reach it",
                          options->listen);
    return listener_open(plugin->loop, &plugin->listener, &address, 0600, http_server_accept_fd, plugin->server, NULL,
                         err);
}

struct plugin *plugin_start(struct loop *loop, const struct plugin_options *options, struct status *err)
{
    const struct backend *backend = plugin_find_backend(options->backend, err);
    struct backend_options backend_options = { options->dir, options->program, PLUGIN_DEFAULT_GRACE_SECONDS,
                                               options->settings };

    if (backend == NULL)
        return NULL;
    struct plugin *plugin = xcalloc(1, sizeof *plugin);
    plugin->loop = loop;
    plugin->backend = backend;
    plugin->listener.fd = -1;
    plugin->dir = xstrdup(options->dir);
    plugin->self = backend->start(loop, &backend_options, err);
    if (plugin->self != NULL)
        plugin->images = job_images_new(loop, options->dir, err);
    plugin->server = http_server_new(
        loop, &(struct http_server_options){ .routes = plugin_routes, .route_count = COUNT_OF(plugin_routes),
                                             .context = plugin });
    if (plugin->images != NULL && plugin_listen(plugin, options, err))
        return plugin;
    status_prefix(err, "plugin");
    plugin_stop(plugin);
    return NULL;
}

void plugin_stop(struct plugin *plugin)
{
    if (plugin == NULL)
        return;
    if (plugin->listener.fd >= 0)
        listener_close(&plugin->listener);
    http_server_free(plugin->server);
    job_images_free(plugin->images);
    if (plugin->self != NULL)
        plugin->backend->stop(plugin->self);
    free(plugin->dir);
    free(plugin);
}

size_t plugin_job_count(const struct plugin *plugin)
{
    return plugin->backend->job_count(plugin->self);
}
