/* SPDX-License-Identifier: Apache-2.0 */
/* pull and load. On a terminal, a pull asks our own service for its progress; other runtimes do not have it, then there is
 * only the time. */
#include "cli/ctl.h"

#include "control.pb-c.h"

#include <unistd.h>

/* The progress line is drawn anew this often. */
#define CTL_PROGRESS_MS 100

struct ctl_pulling {
    struct ctl *ctl;
    const char *image;
    struct status status;
    bool done;
    const char *image_ref; /* on the arena; NULL until the end */
    size_t blobs, blobs_done;
    uint64_t bytes, bytes_total;
    int64_t started_ms, drawn_ms;
    unsigned turn;
};

/* ---- the progress line ---- */

static void ctl_draw(struct ctl_pulling *p)
{
    static const char spinner[] = "|/-\\";
    int64_t now = clock_mono_ms(), seconds = (now - p->started_ms) / 1000;

    if (now - p->drawn_ms < CTL_PROGRESS_MS)
        return;
    p->drawn_ms = now;
    fprintf(stderr, "\r\033[K%c %.60s", spinner[p->turn++ % 4], p->image);
    if (p->bytes_total > 0)
        fprintf(stderr, "  %zu/%zu parts, %s of %s", p->blobs_done, p->blobs, ctl_size(p->ctl, (double)p->bytes, 3),
                ctl_size(p->ctl, (double)p->bytes_total, 3));
    fprintf(stderr, "  %" PRId64 "s", seconds);
    fflush(stderr);
}

static void ctl_draw_end(const struct ctl_pulling *p)
{
    if (p->drawn_ms != 0)
        fputs("\r\033[K", stderr);
}

static void ctl_on_progress(void *arg, const ProtobufCMessage *message)
{
    struct ctl_pulling *p = arg;
    const Interlink__Control__V1__PullImageProgressResponse *r = (const void *)message;

    p->blobs = r->n_blobs > 0 ? r->n_blobs : p->blobs;
    if (r->n_blobs > 0)
        p->blobs_done = p->bytes = p->bytes_total = 0;
    for (size_t i = 0; i < r->n_blobs; i++) {
        p->bytes += r->blobs[i]->done;
        p->bytes_total += r->blobs[i]->total;
        p->blobs_done += r->blobs[i]->done >= r->blobs[i]->total;
    }
    if (*r->image_ref != '\0')
        p->image_ref = arena_strdup(&p->ctl->arena, r->image_ref);
}

/* ---- pull ---- */

static void ctl_on_pull_finish(void *arg, const struct status *status)
{
    struct ctl_pulling *p = arg;

    p->status = *status;
    p->done = true;
}

static void ctl_on_pull_done(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct ctl_pulling *p = arg;
    const Runtime__V1__PullImageResponse *r = (const void *)response;

    if (r != NULL)
        p->image_ref = arena_strdup(&p->ctl->arena, r->image_ref);
    ctl_on_pull_finish(arg, status);
}

/* One attempt: by our own service with progress, or by CRI's. */
static bool ctl_pull_by(struct ctl_pulling *p, enum ctl_service service, const Runtime__V1__PullImageRequest *request,
                        bool draw, struct status *err)
{
    struct ctl *ctl = p->ctl;
    struct rpc_conn *conn = ctl_connect(ctl, ctl_endpoint_of(ctl, service), err);
    int64_t timeout_ms = (ctl->flags.pull_timeout_ns + 999999) / 1000000;
    struct rpc_request *call;

    if (conn == NULL)
        return false;
    if (service == CTL_CONTROL) {
        struct rpc_request_options options = {
            .method = ctl_method(ctl, service, "PullImageProgress"),
            .output = &interlink__control__v1__pull_image_progress_response__descriptor,
            .timeout_ms = timeout_ms,
            .on_message = ctl_on_progress,
            .on_finish = ctl_on_pull_finish,
            .arg = p,
        };
        call = rpc_request_start(conn, &options);
        rpc_request_send(call, &request->base);
        rpc_request_half_close(call);
    } else {
        call = rpc_unary(conn, ctl_method(ctl, service, "PullImage"), &request->base,
                         &runtime__v1__pull_image_response__descriptor, timeout_ms, ctl_on_pull_done, p);
    }
    p->done = false;
    while (!p->done) {
        if (!ctl_turn(ctl, draw ? CTL_PROGRESS_MS : -1, err)) {
            rpc_request_cancel(call);
            loop_turn(ctl->loop, 0);
            return false;
        }
        if (draw && !p->done)
            ctl_draw(p);
    }
    if (p->status.code != STATUS_OK) {
        *err = p->status;
        return false;
    }
    return p->image_ref != NULL ||
           status_set(err, STATUS_INTERNAL, "the runtime said that the pull is done, but not what it got");
}

bool ctl_pull_image(struct ctl *ctl, const char *image, const Runtime__V1__PodSandboxConfig *pod, const char **image_ref,
                    struct status *err)
{
    Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;
    Runtime__V1__PullImageRequest request = RUNTIME__V1__PULL_IMAGE_REQUEST__INIT;
    struct ctl_pulling p = { .ctl = ctl, .image = image, .started_ms = clock_mono_ms() };
    bool draw = isatty(STDERR_FILENO) == 1, ok = false;

    spec.image = (char *)(uintptr_t)image;
    request.image = &spec;
    request.sandbox_config = (Runtime__V1__PodSandboxConfig *)(uintptr_t)pod;
    if (ctl->flags.pull_timeout_ns < 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "--pull-timeout: wanted a time above zero");
    if (!ctl_read_auth(ctl, &request.auth, err) ||
        !ctl_read_pairs(ctl, &ctl->flags.annotations, &runtime__v1__image_spec__annotations_entry__descriptor,
                        &spec.n_annotations, &spec.annotations, err))
        return false;
    if (draw)
        ok = ctl_pull_by(&p, CTL_CONTROL, &request, true, err);
    if (!draw || (!ok && err->code == STATUS_UNIMPLEMENTED))
        ok = ctl_pull_by(&p, CTL_IMAGE, &request, draw, err);
    ctl_draw_end(&p);
    *image_ref = p.image_ref;
    return ok || status_prefix(err, "pulling %.256s", image);
}

int ctl_pull(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    const Runtime__V1__PodSandboxConfig *pod = NULL;
    const char *image_ref;
    (void)count;

    if (*ctl->flags.pod_config != '\0') {
        pod = ctl_read_pod(ctl, ctl->flags.pod_config, &err);
        if (pod == NULL)
            return ctl_fail(ctl, &err);
    }
    if (!ctl_pull_image(ctl, arguments[0], pod, &image_ref, &err))
        return ctl_fail(ctl, &err);
    buf_printf(&ctl->out, "Image is up to date for %s\n", image_ref);
    return 0;
}

/* ---- load ---- */

static bool ctl_load_one(struct ctl *ctl, const char *path, struct status *err)
{
    Interlink__Control__V1__LoadImageRequest request = INTERLINK__CONTROL__V1__LOAD_IMAGE_REQUEST__INIT;
    cleanup_free char *whole = realpath(path, NULL); /* the server opens it, from another folder */

    if (whole == NULL)
        return status_errno(err, "%.256s", path);
    request.path = whole;
    request.base_name = arena_strdup(&ctl->arena, ctl->flags.base_name);
    const Interlink__Control__V1__LoadImageResponse *r =
        ctl_call(ctl, CTL_CONTROL, "LoadImage", &request, &interlink__control__v1__load_image_response__descriptor, 0, err);
    if (r == NULL)
        return status_prefix(err, "loading %.256s", path);
    for (size_t i = 0; i < r->n_image_ids; i++) {
        Runtime__V1__ImageStatusResponse *image = NULL;
        if (!ctl_image_status(ctl, r->image_ids[i], false, &image, err))
            return false;
        buf_printf(&ctl->out, "Loaded image: %s\n",
                   image != NULL && image->image->n_repo_tags > 0 ? image->image->repo_tags[0] : r->image_ids[i]);
    }
    return true;
}

int ctl_load(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;

    for (size_t i = 0; i < count; i++)
        if (!ctl_load_one(ctl, arguments[i], &err))
            return ctl_fail(ctl, &err);
    return 0;
}

#undef CTL_PROGRESS_MS
