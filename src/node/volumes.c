/* SPDX-License-Identifier: Apache-2.0 */
#include "node/volumes_internal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/container.h"
#include "node/link.h"
#include "node/sandbox.h"
#include "rpc/pb.h"

static void volumes_schedule(struct volumes *v);
static void volumes_send(struct volumes_op *op);

/* ---- objects ---- */

struct volumes *volumes_new(struct node *node)
{
    struct volumes *v = xcalloc(1, sizeof *v);

    v->node = node;
    v->inotify_fd = -1;
    list_init(&v->waiting);
    volumes_watch_open(v);
    return v;
}

void volumes_free(struct volumes *v)
{
    if (v == NULL)
        return;
    volumes_watch_close(v);
    free(v);
}

struct pod_volumes *pod_volumes_of(struct sandbox *sandbox)
{
    if (sandbox->volumes != NULL)
        return sandbox->volumes;
    struct pod_volumes *p = xcalloc(1, sizeof *p);
    p->v = sandbox->node->volumes;
    p->sandbox = sandbox;
    list_init(&p->ops);
    sandbox->volumes = p;
    return p;
}

struct pod_volume *pod_volume_of(struct pod_volumes *p, const char *name)
{
    struct pod_volume *volume = strmap_get(&p->volumes, name);

    if (volume != NULL)
        return volume;
    volume = xcalloc(1, sizeof *volume);
    volume->pod = p;
    volume->name = xstrdup(name);
    volume->version = xstrdup("");
    strmap_put(&p->volumes, volume->name, volume);
    return volume;
}

static void pod_volume_free(struct pod_volume *volume)
{
    volumes_unwatch(volume);
    free(volume->name);
    free(volume->path);
    free(volume->version);
    free(volume);
}

static void volumes_op_free(struct volumes_op *op)
{
    if (op->fd >= 0)
        close(op->fd);
    if (op->config != NULL)
        protobuf_c_message_free_unpacked(&op->config->base, NULL);
    for (size_t i = 0; i < op->path_count; i++)
        free(op->paths[i]);
    free(op->paths);
    volume_plan_free(&op->plan);
    free(op);
}

void pod_volumes_free(struct pod_volumes *p)
{
    struct strmap_iter it = { 0 };
    struct status err = STATUS_INIT;

    if (p == NULL)
        return;
    status_set(&err, STATUS_UNAVAILABLE, "the pod's sandbox went away");
    while (!list_empty(&p->ops)) {
        struct volumes_op *op = CONTAINER_OF(p->ops.next, struct volumes_op, link);
        list_remove(&op->link);
        list_remove(&op->waiting);
        worker_cancel(&op->worker);
        if (op->reading)
            p->v->readers--;
        rpc_request_cancel(op->request);
        op->on_done(op->arg, &err, NULL);
        volumes_op_free(op);
    }
    while (strmap_next(&p->volumes, &it))
        pod_volume_free(it.value);
    strmap_free(&p->volumes);
    timer_stop(&p->settle);
    timer_stop(&p->poll);
    volumes_schedule(p->v);
    free(p);
}

/* ---- one operation ---- */

static void volumes_op_wait(struct volumes_op *op)
{
    list_append(&op->pod->v->waiting, &op->waiting);
    volumes_schedule(op->pod->v);
}

void volumes_op_start(struct pod_volumes *p, struct volumes_op *op)
{
    bool idle = list_empty(&p->ops);

    op->pod = p;
    op->fd = -1;
    list_init(&op->waiting);
    list_append(&p->ops, &op->link);
    if (idle)
        volumes_op_wait(op);
}

/* The next one of this pod begins. */
static void volumes_op_end(struct volumes_op *op, const struct status *err)
{
    struct pod_volumes *p = op->pod;

    list_remove(&op->link);
    if (!list_empty(&p->ops))
        volumes_op_wait(CONTAINER_OF(p->ops.next, struct volumes_op, link));
    op->on_done(op->arg, err, op->plan.request);
    volumes_op_free(op);
}

/* ---- reading ---- */

static bool volumes_read_work(void *arg, struct buf *output, struct status *err)
{
    const struct volumes_op *op = arg;
    const struct sandbox *sandbox = op->pod->sandbox;
    const char *uid = sandbox->record->config->metadata->uid;

    if (op->config == NULL) {
        volume_plan_reread((const char *const *)op->paths, op->path_count, uid, op->fd, output);
        return true;
    }
    return volume_plan_make(op->config, uid, sandbox->handler->options->shared_paths, sandbox->handler->options->name, op->fd, output,
                            err);
}

static void volumes_on_read(void *arg, const struct status *err, struct buf *output)
{
    struct volumes_op *op = arg;
    struct status parsed = STATUS_INIT;

    op->reading = false;
    op->pod->v->readers--;
    if (err == NULL && !volume_plan_parse((struct str){ (const char *)output->p, output->n }, &op->plan, &parsed))
        err = &parsed;
    volumes_schedule(op->pod->v);
    if (err != NULL)
        volumes_op_end(op, err);
    else
        volumes_send(op);
}

static bool volumes_read(struct volumes_op *op, struct status *err)
{
    op->fd = memfd_create("interlink-cri volumes", MFD_CLOEXEC);
    if (op->fd < 0)
        return status_errno(err, "no memory for a volume's files");
    op->reading = worker_start(op->pod->v->node->loop, &op->worker, volumes_read_work, op, volumes_on_read, op, err);
    op->pod->v->readers += op->reading;
    return op->reading;
}

static void volumes_schedule(struct volumes *v)
{
    while (v->readers < VOLUMES_READERS_MAX && !list_empty(&v->waiting)) {
        struct volumes_op *op = CONTAINER_OF(v->waiting.next, struct volumes_op, waiting);
        struct status err = STATUS_INIT;
        list_remove(&op->waiting);
        list_init(&op->waiting);
        if (!volumes_read(op, &err))
            volumes_op_end(op, &err);
    }
}

/* ---- sending ---- */

static void volumes_give_up(struct volumes_op *op)
{
    rpc_request_cancel(op->request);
    op->request = NULL;
    volumes_op_end(op, &op->err);
}

static bool volumes_is_known(const struct volumes_op *op, const struct volume_piece *piece)
{
    const struct pod_volume *volume = strmap_get(&op->pod->volumes, piece->name);

    return volume != NULL && strcmp(volume->version, piece->version) == 0;
}

/* The next message of the piece; *more: whether the connection takes another one. False: it cannot be read. */
static bool volumes_send_next(struct volumes_op *op, const struct volume_piece *piece, bool *more)
{
    Interlink__Agent__V1__PutFilesStart start = INTERLINK__AGENT__V1__PUT_FILES_START__INIT;
    Interlink__Agent__V1__PutFilesRequest message = INTERLINK__AGENT__V1__PUT_FILES_REQUEST__INIT;
    cleanup_buf struct buf packed = BUF_INIT;
    uint32_t length;

    if (!op->begun) {
        start.volume = (char *)(uintptr_t)piece->name;
        start.version = (char *)(uintptr_t)piece->version;
        start.kind = piece->kind;
        message.start = &start;
        op->begun = true;
        *more = rpc_request_send(op->request, &message.base);
        return true;
    }
    off_t at = (off_t)(piece->offset + op->sent);
    if (pread(op->fd, &length, sizeof length, at) != (ssize_t)sizeof length || length > piece->length)
        return false;
    if (pread(op->fd, buf_reserve(&packed, length), length, at + (off_t)sizeof length) != (ssize_t)length)
        return false;
    *more = rpc_request_send_packed(op->request, packed.p, length);
    op->sent += sizeof length + length;
    return true;
}

/* Sends until the connection has enough; called again when it takes more. */
static void volumes_on_writable(void *arg)
{
    struct volumes_op *op = arg;
    bool more = true;

    while (more && op->next < op->plan.piece_count) {
        const struct volume_piece *piece = &op->plan.pieces[op->next];
        if ((!op->begun && volumes_is_known(op, piece)) || (op->begun && op->sent >= piece->length)) {
            op->next++;
            op->begun = false;
            op->sent = 0;
        } else if (!volumes_send_next(op, piece, &more)) {
            status_set(&op->err, STATUS_INTERNAL, "the files of volume %s cannot be read back", piece->name);
            volumes_give_up(op);
            return;
        }
    }
    if (op->next == op->plan.piece_count)
        rpc_request_half_close(op->request);
}

static void volumes_on_sent(void *arg, const struct status *status)
{
    struct volumes_op *op = arg;

    op->request = NULL;
    if (status->code != STATUS_OK) {
        op->err = *status;
        status_prefix(&op->err, "the agent did not take the files of volumes");
        volumes_op_end(op, &op->err);
        return;
    }
    for (size_t i = 0; i < op->plan.piece_count; i++) {
        struct pod_volume *volume = pod_volume_of(op->pod, op->plan.pieces[i].name);
        free(volume->version);
        volume->version = xstrdup(op->plan.pieces[i].version);
    }
    volumes_op_end(op, NULL);
}

static void volumes_send(struct volumes_op *op)
{
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/PutFiles",
        .output = &interlink__agent__v1__put_files_response__descriptor,
        .timeout_ms = VOLUMES_SEND_TIMEOUT_MS,
        .on_writable = volumes_on_writable,
        .on_finish = volumes_on_sent,
        .arg = op,
    };
    bool any = false;

    volumes_learn_links(op->pod, &op->plan);
    for (size_t i = 0; i < op->plan.piece_count && !any; i++)
        any = !volumes_is_known(op, &op->plan.pieces[i]);
    if (!any) {
        volumes_op_end(op, NULL);
        return;
    }
    struct link *link = sandbox_link(op->pod->sandbox, &op->err);
    if (link == NULL) {
        volumes_op_end(op, &op->err);
        return;
    }
    /* From now on the agent may have the old files or the new ones. */
    for (size_t i = 0; i < op->plan.piece_count; i++)
        if (!volumes_is_known(op, &op->plan.pieces[i]))
            *pod_volume_of(op->pod, op->plan.pieces[i].name)->version = '\0';
    op->request = rpc_request_start(link_conn(link), &options);
    volumes_on_writable(op);
}

/* ---- what others ask for ---- */

void volumes_bring(struct sandbox *sandbox, const Runtime__V1__ContainerConfig *config,
                   void (*on_done)(void *arg, const struct status *err, const Interlink__Agent__V1__CreateContainerRequest *sources),
                   void *arg)
{
    struct volumes_op *op = xcalloc(1, sizeof *op);

    op->config = (void *)pb_copy(&config->base);
    op->on_done = on_done;
    op->arg = arg;
    volumes_op_start(pod_volumes_of(sandbox), op);
}

void volumes_on_agent(struct sandbox *sandbox, const Interlink__Agent__V1__HelloResponse *hello)
{
    struct strmap_iter it = { 0 };

    if (sandbox->handler->local)
        return;
    struct pod_volumes *p = pod_volumes_of(sandbox);
    while (strmap_next(&p->volumes, &it)) {
        struct pod_volume *volume = it.value;
        *volume->version = '\0';
        volume->dirty = true;
    }
    for (size_t i = 0; i < hello->n_volumes; i++) {
        struct pod_volume *volume = pod_volume_of(p, hello->volumes[i]->name);
        free(volume->version);
        volume->version = xstrdup(hello->volumes[i]->version);
    }
    volumes_follow(sandbox);
    volumes_changed(p, 0);
}

void volumes_put_back(struct container *container, const Interlink__Agent__V1__ContainerState *state)
{
    const struct sandbox *sandbox = container->sandbox;
    const Runtime__V1__ContainerConfig *config = container->record->config;
    const ProtobufCBinaryData *log = &state->termination_log;
    struct stat st;

    for (size_t i = 0; i < config->n_mounts && !sandbox->handler->local && log->len > 0; i++) {
        const char *path = config->mounts[i]->host_path;
        struct volume_place place = volume_place(path, sandbox->record->config->metadata->uid, sandbox->handler->options->shared_paths);
        if (place.kind != VOLUME_TERMINATION_LOG)
            continue;
        /* kubelet has made it; it is some KiB, which the page cache takes. */
        cleanup_close int fd = open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || pwrite(fd, log->data, log->len, 0) != (ssize_t)log->len ||
            ftruncate(fd, (off_t)log->len) < 0)
            log_warn("container %.13s: its termination message cannot be written to %s: %s", container->record->id, path, strerror(errno));
        return;
    }
}
