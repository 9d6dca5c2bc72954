/* SPDX-License-Identifier: Apache-2.0 */
/* kubelet writes a volume anew when its ConfigMap, its Secret or the pod's labels were changed, and before a token runs out. */
#include "node/volumes_internal.h"

#include <limits.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "node/container.h"
#include "node/link.h"
#include "node/sandbox.h"

/* AtomicWriter ends with a rename; modes and owners may follow, and links for names. */
#define VOLUMES_WATCHED (IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_ATTRIB | IN_ONLYDIR | IN_DONT_FOLLOW)

static void volumes_on_settled(void *arg);
static void volumes_on_poll(void *arg);

/* ---- inotify ---- */

static void volumes_point_key(int descriptor, char out[16])
{
    snprintf(out, 16, "%d", descriptor);
}

static void volumes_point_free(struct volumes *v, struct volume_point *point)
{
    char key[16];

    while (!list_empty(&point->users)) {
        struct pod_volume *volume = CONTAINER_OF(point->users.next, struct pod_volume, point_link);
        list_remove(&volume->point_link);
        volume->point = NULL;
    }
    volumes_point_key(point->descriptor, key);
    strmap_remove(&v->points, key);
    free(point);
}

void volumes_unwatch(struct pod_volume *volume)
{
    struct volumes *v = volume->pod->v;
    struct volume_point *point = volume->point;

    if (point == NULL)
        return;
    list_remove(&volume->point_link);
    volume->point = NULL;
    if (!list_empty(&point->users))
        return;
    inotify_rm_watch(v->inotify_fd, point->descriptor);
    volumes_point_free(v, point);
}

static void volumes_watch(struct pod_volume *volume)
{
    struct volumes *v = volume->pod->v;
    char key[16];

    if (volume->point != NULL || v->inotify_fd < 0)
        return;
    int descriptor = inotify_add_watch(v->inotify_fd, volume->path, VOLUMES_WATCHED);
    if (descriptor < 0 && errno != ENOENT && !v->complained) {
        log_warn("volumes are looked at every %d ms, for the kernel watches no more of them (fs.inotify.max_user_watches): %s",
                 VOLUMES_POLL_MS, strerror(errno));
        v->complained = true;
    }
    if (descriptor < 0)
        return;
    volumes_point_key(descriptor, key);
    struct volume_point *point = strmap_get(&v->points, key);
    if (point == NULL) {
        point = xcalloc(1, sizeof *point);
        point->descriptor = descriptor;
        list_init(&point->users);
        strmap_put(&v->points, key, point);
    }
    volume->point = point;
    list_append(&point->users, &volume->point_link);
}

static void volumes_point_changed(struct volume_point *point)
{
    for (LIST_EACH(struct pod_volume, volume, &point->users, point_link)) {
        volume->dirty = true;
        volumes_changed(volume->pod, VOLUMES_SETTLE_MS);
    }
}

static void volumes_on_event(struct volumes *v, const struct inotify_event *event)
{
    struct strmap_iter it = { 0 };
    char key[16];

    if (event->mask & IN_Q_OVERFLOW) {
        while (strmap_next(&v->points, &it))
            volumes_point_changed(it.value);
        return;
    }
    volumes_point_key(event->wd, key);
    struct volume_point *point = strmap_get(&v->points, key);
    if (point == NULL)
        return;
    volumes_point_changed(point);
    /* The folder has gone, or its file system. */
    if (event->mask & IN_IGNORED)
        volumes_point_free(v, point);
}

static void volumes_on_events(void *arg, unsigned events)
{
    struct volumes *v = arg;
    _Alignas(struct inotify_event) char block[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)];
    ssize_t n;

    (void)events;
    while ((n = read(v->inotify_fd, block, sizeof block)) > 0)
        for (const char *p = block; p < block + n;) {
            const struct inotify_event *event = (const void *)p;
            volumes_on_event(v, event);
            p += sizeof *event + event->len;
        }
}

void volumes_watch_open(struct volumes *v)
{
    struct status err = STATUS_INIT;

    v->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (v->inotify_fd < 0) {
        log_warn("changes of volumes are not told by the kernel: %s; they are looked at every %d ms", strerror(errno), VOLUMES_POLL_MS);
    } else if (!watch_start(v->node->loop, &v->watch, v->inotify_fd, WATCH_READ, volumes_on_events, v, &err)) {
        log_warn("changes of volumes: %s; they are looked at every %d ms", err.message, VOLUMES_POLL_MS);
        close(v->inotify_fd);
        v->inotify_fd = -1;
    }
}

void volumes_watch_close(struct volumes *v)
{
    struct strmap_iter it = { 0 };

    watch_stop(&v->watch);
    if (v->inotify_fd >= 0)
        close(v->inotify_fd);
    while (strmap_next(&v->points, &it))
        volumes_point_free(v, it.value);
    strmap_free(&v->points);
}

/* ---- what is wanted ---- */

void volumes_learn_links(struct pod_volumes *p, const struct volume_plan *plan)
{
    for (size_t i = 0; i < plan->piece_count; i++)
        if (*plan->pieces[i].link != '\0')
            memcpy(pod_volume_of(p, plan->pieces[i].name)->link, plan->pieces[i].link, VOLUME_LINK_MAX);
}

static void volumes_compare_link(struct pod_volume *volume)
{
    char link[VOLUME_LINK_MAX];

    volume_read_link(volume->path, link);
    volume->dirty = volume->dirty || strcmp(link, volume->link) != 0;
}

static void volumes_want(struct pod_volumes *p, const struct container *container)
{
    const Runtime__V1__ContainerConfig *config = container->record->config;
    const struct sandbox *sandbox = p->sandbox;

    for (size_t i = 0; i < config->n_mounts; i++) {
        const char *path = config->mounts[i]->host_path;
        struct volume_place place = volume_place(path, sandbox->record->config->metadata->uid, sandbox->handler->options->shared_paths);
        if (place.kind != VOLUME_PROJECTED)
            continue;
        struct pod_volume *volume = pod_volume_of(p, place.name);
        volume->wanted = true;
        if (volume->path == NULL)
            volume->path = xstrdup(path);
    }
}

void volumes_follow(struct sandbox *sandbox)
{
    struct strmap_iter it = { 0 };
    bool dirty = false, blind = false;

    if (sandbox->handler->local || sandbox->handler->per_container || (sandbox->volumes == NULL && list_empty(&sandbox->containers)))
        return;
    struct pod_volumes *p = pod_volumes_of(sandbox);
    while (strmap_next(&p->volumes, &it))
        ((struct pod_volume *)it.value)->wanted = false;
    for (LIST_EACH(struct container, c, &sandbox->containers, link))
        if (!c->creating && c->record->phase != INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED)
            volumes_want(p, c);
    it = (struct strmap_iter){ 0 };
    while (strmap_next(&p->volumes, &it)) {
        struct pod_volume *volume = it.value;
        if (!volume->wanted) {
            volumes_unwatch(volume);
            volume->dirty = false;
            continue;
        }
        /* What happened between reading and watching shows in the link. */
        if (volume->point == NULL) {
            volumes_watch(volume);
            volumes_compare_link(volume);
        }
        dirty = dirty || volume->dirty;
        blind = blind || volume->point == NULL;
    }
    if (dirty)
        volumes_changed(p, VOLUMES_SETTLE_MS);
    if (!blind)
        timer_stop(&p->poll);
    else if (!timer_running(&p->poll))
        timer_start(p->v->node->loop, &p->poll, VOLUMES_POLL_MS, volumes_on_poll, p);
}

static void volumes_on_poll(void *arg)
{
    struct pod_volumes *p = arg;

    volumes_follow(p->sandbox);
}

/* ---- refreshing ---- */

void volumes_changed(struct pod_volumes *p, int64_t delay_ms)
{
    if (!timer_running(&p->settle))
        timer_start(p->v->node->loop, &p->settle, delay_ms, volumes_on_settled, p);
}

/* What was to be read and is not among what was: kubelet was at it. One whose folder has gone is not asked for again. */
static bool volumes_mark_unread(const struct volumes_op *op, const struct status *err)
{
    struct strmap_iter it = { 0 };
    bool any = false;

    while (strmap_next(&op->pod->volumes, &it)) {
        struct pod_volume *volume = it.value;
        bool asked = false, read = false;
        for (size_t i = 0; i < op->path_count && volume->path != NULL; i++)
            asked = asked || strcmp(op->paths[i], volume->path) == 0;
        for (size_t i = 0; i < op->plan.piece_count && err == NULL; i++)
            read = read || strcmp(op->plan.pieces[i].name, volume->name) == 0;
        if (!asked || read || !volume->wanted || access(volume->path, F_OK) < 0)
            continue;
        volume->dirty = true;
        any = true;
    }
    return any;
}

static void volumes_on_refreshed(void *arg, const struct status *err, const Interlink__Agent__V1__CreateContainerRequest *sources)
{
    struct volumes_op *op = arg;
    struct pod_volumes *p = op->pod;
    struct strmap_iter it = { 0 };
    bool again = volumes_mark_unread(op, err), dirty = false;

    (void)sources;
    p->refreshing = false;
    if (err != NULL && err->code != STATUS_UNAVAILABLE) /* then the agent calls in again */
        log_warn("pod %.13s: changed volumes are not sent yet: %s", p->sandbox->record->id, err->message);
    while (strmap_next(&p->volumes, &it))
        dirty = dirty || ((struct pod_volume *)it.value)->dirty;
    if (again || dirty)
        volumes_changed(p, again ? VOLUMES_RETRY_MS : VOLUMES_SETTLE_MS);
}

static void volumes_on_settled(void *arg)
{
    struct pod_volumes *p = arg;
    struct strmap_iter it = { 0 };
    const struct link *link = p->sandbox->link;

    /* What is not done now is done when the agent calls in, or when the refresh under way has ended. */
    if (p->refreshing || link == NULL || !link_ready(link))
        return;
    struct volumes_op *op = xcalloc(1, sizeof *op);
    op->paths = xcalloc(p->volumes.count + 1, sizeof *op->paths);
    while (strmap_next(&p->volumes, &it)) {
        struct pod_volume *volume = it.value;
        if (!volume->dirty || !volume->wanted)
            continue;
        volume->dirty = false;
        op->paths[op->path_count++] = xstrdup(volume->path);
    }
    if (op->path_count == 0) {
        free(op->paths);
        free(op);
        return;
    }
    p->refreshing = true;
    op->on_done = volumes_on_refreshed;
    op->arg = op;
    volumes_op_start(p, op);
}

#undef VOLUMES_WATCHED
