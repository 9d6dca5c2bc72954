/* SPDX-License-Identifier: Apache-2.0 */
#include "node/volume_plan.h"

#include <sys/stat.h>

#include "agent/image_volume.h"
#include "node/volume_origin.h"

struct volume_planner {
    struct arena arena;
    const Runtime__V1__ContainerConfig *config;
    const char *pod_uid, *handler;
    const char *const *shared;
    int fd;
    uint64_t end;
    struct buf pieces; /* struct volume_piece, one after the other */
    Interlink__Agent__V1__CreateContainerRequest request;
    struct mount_table mounts; /* read when it is needed first */
    bool has_mounts;
};

/* ---- sources ---- */

static Interlink__Agent__V1__MountSource *volume_plan_source(struct volume_planner *p, size_t mount, Interlink__Agent__V1__SourceKind kind)
{
    Interlink__Agent__V1__MountSource *s = ARENA_NEW(&p->arena, Interlink__Agent__V1__MountSource);

    interlink__agent__v1__mount_source__init(s);
    s->mount = (uint32_t)mount;
    s->kind = kind;
    p->request.sources[p->request.n_sources++] = s;
    return s;
}

static bool volume_plan_has(const struct volume_planner *p, const char *name)
{
    for (size_t i = 0; i < p->pieces.n; i += sizeof(struct volume_piece))
        if (strcmp(((const struct volume_piece *)(const void *)(p->pieces.p + i))->name, name) == 0)
            return true;
    return false;
}

/* One volume may be mounted several times. */
static bool volume_plan_copy(struct volume_planner *p, size_t mount, const struct volume_place *place, struct status *err)
{
    const char *pod_dir = arena_strndup(&p->arena, place->pod_dir.p, place->pod_dir.n);
    const char *name = arena_strndup(&p->arena, place->name, place->name_length);
    struct volume_piece piece;

    if (!volume_plan_has(p, name)) {
        if (!volume_read(pod_dir, name, place->kind == VOLUME_PROJECTED, p->fd, &p->end, &piece, err))
            return false;
        if (p->end > VOLUMES_BYTES_MAX)
            return status_set(err, STATUS_RESOURCE_EXHAUSTED, "the volumes of this container hold more than the %u bytes that are copied",
                              VOLUMES_BYTES_MAX);
        buf_append(&p->pieces, &piece, sizeof piece);
    }
    volume_plan_source(p, mount, INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_VOLUME)->volume = (char *)(uintptr_t)name;
    return true;
}

/* ---- mounts ---- */

static const struct mount_table *volume_plan_mounts(struct volume_planner *p, struct status *err)
{
    if (!p->has_mounts && !mount_table_read(&p->mounts, err))
        return NULL;
    p->has_mounts = true;
    return &p->mounts;
}

static const char *volume_plan_real(struct volume_planner *p, const char *path, struct status *err)
{
    cleanup_free char *real = realpath(path, NULL);

    if (real == NULL)
        status_errno(err, "%.500s", path);
    return real != NULL ? arena_strdup(&p->arena, real) : NULL;
}

/* kubelet's tmpfs says "size=65536k", its hugetlbfs "pagesize=2M". */
static bool volume_plan_medium(struct volume_planner *p, const char *dir, Interlink__Agent__V1__EmptyDir *e, struct status *err)
{
    const struct mount_table *mounts = volume_plan_mounts(p, err);
    const struct mount_entry *m = mounts != NULL ? mount_table_find(mounts, dir) : NULL;
    unsigned long long number = 0;
    char unit = '\0';

    if (mounts == NULL)
        return false;
    if (m == NULL || strcmp(m->point, dir) != 0)
        return true;
    e->memory = strcmp(m->type, "tmpfs") == 0;
    if (strcmp(m->type, "hugetlbfs") == 0)
        e->page_size = (char *)(uintptr_t)mount_entry_option(m, "pagesize", &p->arena);
    if (e->memory && sscanf(mount_entry_option(m, "size", &p->arena), "%llu%c", &number, &unit) >= 1)
        e->size = (uint64_t)number << (unit == 'k' ? 10 : unit == 'm' ? 20 : unit == 'g' ? 30 : 0);
    return true;
}

/* `dir`: the volume on this machine, without links; `at`: the part of it that is mounted. */
static bool volume_plan_empty_dir(struct volume_planner *p, size_t mount, const char *dir, const char *at, const char *sub_path,
                                  struct status *err)
{
    Interlink__Agent__V1__EmptyDir *e = ARENA_NEW(&p->arena, Interlink__Agent__V1__EmptyDir);
    struct stat st;

    interlink__agent__v1__empty_dir__init(e);
    if (stat(dir, &st) < 0)
        return status_errno(err, "%.500s", dir);
    e->mode = st.st_mode & 07777;
    e->uid = st.st_uid;
    e->gid = st.st_gid;
    if (!volume_plan_medium(p, dir, e, err))
        return false;
    if (*sub_path != '\0') {
        if (stat(at, &st) < 0)
            return status_errno(err, "%.500s", at);
        e->sub_path = (char *)(uintptr_t)sub_path;
        e->sub_mode = S_ISDIR(st.st_mode) ? st.st_mode & 07777 : e->mode;
        e->sub_uid = st.st_uid;
        e->sub_gid = st.st_gid;
    }
    Interlink__Agent__V1__MountSource *s = volume_plan_source(p, mount, INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_EMPTY_DIR);
    s->volume = (char *)(uintptr_t)(strrchr(dir, '/') + 1);
    s->empty_dir = e;
    return true;
}

/* ---- what is mounted somewhere in the pod's folder ---- */

struct volume_origin_search {
    struct volume_planner *planner;
    const char *origin;        /* on the arena; NULL: nothing of use so far */
    struct volume_place place; /* of it; borrows from it */
};

/* The shared path counts most: it is looked for among all, then a volume of the pod. */
static bool volume_plan_try_shared(void *arg, const char *origin)
{
    struct volume_origin_search *s = arg;

    s->place = volume_place(origin, "", s->planner->shared);
    if (s->place.kind != VOLUME_SHARED)
        return false;
    s->origin = arena_strdup(&s->planner->arena, origin);
    return true;
}

static bool volume_plan_try_pod(void *arg, const char *origin)
{
    struct volume_origin_search *s = arg;
    const char *copy = arena_strdup(&s->planner->arena, origin);

    s->place = volume_place(copy, s->planner->pod_uid, NULL);
    if (s->place.kind != VOLUME_PROJECTED && s->place.kind != VOLUME_COPIED && s->place.kind != VOLUME_EMPTY_DIR)
        return false;
    s->origin = copy;
    return true;
}

static bool volume_plan_elsewhere(const struct volume_planner *p, const char *host_path, struct status *err)
{
    return status_set(err, STATUS_FAILED_PRECONDITION,
                      "%.300s is on this node only, and handler %.63s runs its pods on other machines: a path that is the same there "
                      "belongs into SharedPaths",
                      host_path, p->handler);
}

/* A sub path, or a volume of a plugin's. */
static bool volume_plan_mounted(struct volume_planner *p, size_t mount, const char *host_path, const struct volume_place *place,
                                struct status *err)
{
    struct volume_origin_search s = { .planner = p };
    const struct mount_table *mounts = volume_plan_mounts(p, err);
    const char *real = mounts != NULL ? volume_plan_real(p, host_path, err) : NULL;
    bool sub_path = str_starts(place->name, "volume-subpaths/");

    if (real == NULL)
        return false;
    if (volume_origin_each(mounts, real, volume_plan_try_shared, &s)) {
        volume_plan_source(p, mount, INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_HOST)->path = (char *)(uintptr_t)s.origin;
        return true;
    }
    if (sub_path && volume_origin_each(mounts, real, volume_plan_try_pod, &s)) {
        if (s.place.kind != VOLUME_EMPTY_DIR)
            return volume_plan_copy(p, mount, place, err);
        const char *dir = arena_strndup(&p->arena, s.origin, (size_t)(s.place.name - s.origin) + s.place.name_length);
        return volume_plan_empty_dir(p, mount, dir, real, s.place.sub_path, err);
    }
    return volume_plan_elsewhere(p, host_path, err);
}

static bool volume_plan_mount(struct volume_planner *p, size_t i, struct status *err)
{
    const char *host_path = p->config->mounts[i]->host_path;
    struct volume_place place = volume_place(host_path, p->pod_uid, p->shared);
    const char *real, *dir;

    switch (place.kind) {
    case VOLUME_SHARED:
        volume_plan_source(p, i, INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_HOST)->path = (char *)(uintptr_t)host_path;
        return true;
    case VOLUME_PROJECTED:
    case VOLUME_COPIED:
        return volume_plan_copy(p, i, &place, err);
    case VOLUME_EMPTY_DIR:
        dir = arena_strndup(&p->arena, host_path, (size_t)(place.name - host_path) + place.name_length);
        real = volume_plan_real(p, dir, err);
        return real != NULL && volume_plan_empty_dir(p, i, real, host_path, place.sub_path, err);
    case VOLUME_TERMINATION_LOG:
        volume_plan_source(p, i, INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_TERMINATION_LOG);
        return true;
    case VOLUME_MOUNTED:
        return volume_plan_mounted(p, i, host_path, &place, err);
    case VOLUME_ELSEWHERE:
        break;
    }
    if (*host_path != '/' || strstr(host_path, "..") != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.300s\" is not an absolute path without \"..\"", host_path);
    return volume_plan_elsewhere(p, host_path, err);
}

/* ---- the plan ---- */

static void volume_plan_write(const struct volume_planner *p, struct buf *output)
{
    size_t n = protobuf_c_message_get_packed_size(&p->request.base);
    uint64_t count = p->pieces.n / sizeof(struct volume_piece);

    buf_append(output, &count, sizeof count);
    if (count > 0)
        buf_append(output, p->pieces.p, p->pieces.n);
    protobuf_c_message_pack(&p->request.base, buf_reserve(output, n));
    output->n += n;
}

static void volume_planner_free(struct volume_planner *p)
{
    if (p->has_mounts)
        mount_table_free(&p->mounts);
    buf_free(&p->pieces);
    arena_free(&p->arena);
}

bool volume_plan_make(const Runtime__V1__ContainerConfig *config, const char *pod_uid, const char *const *shared, const char *handler,
                      int fd, struct buf *output, struct status *err)
{
    struct volume_planner p = { .config = config, .pod_uid = pod_uid, .shared = shared, .handler = handler, .fd = fd };
    bool ok = true;

    interlink__agent__v1__create_container_request__init(&p.request);
    p.request.sources = ARENA_ARRAY(&p.arena, Interlink__Agent__V1__MountSource *, config->n_mounts + 1);
    for (size_t i = 0; i < config->n_mounts && ok; i++)
        ok = image_volume_wanted(config->mounts[i]) || volume_plan_mount(&p, i, err) ||
             status_prefix(err, "config.mounts[%zu].host_path", i);
    if (ok)
        volume_plan_write(&p, output);
    volume_planner_free(&p);
    return ok;
}

void volume_plan_reread(const char *const *paths, size_t count, const char *pod_uid, int fd, struct buf *output)
{
    struct volume_planner p = { .fd = fd };

    interlink__agent__v1__create_container_request__init(&p.request);
    for (size_t i = 0; i < count; i++) {
        struct volume_place place = volume_place(paths[i], pod_uid, NULL);
        cleanup_free char *pod_dir = xstrndup(place.pod_dir.n > 0 ? place.pod_dir.p : "", place.pod_dir.n);
        struct volume_piece piece;
        struct status err = STATUS_INIT;
        if (place.kind == VOLUME_PROJECTED && volume_read(pod_dir, place.name, true, fd, &p.end, &piece, &err))
            buf_append(&p.pieces, &piece, sizeof piece);
        else if (err.code == STATUS_NOT_FOUND) /* kubelet has taken it away: its pod is going */
            log_debug("a volume is not refreshed: %s", err.message);
        else
            log_warn("a volume is not refreshed: %s", err.message);
    }
    volume_plan_write(&p, output);
    volume_planner_free(&p);
}

bool volume_plan_parse(struct str output, struct volume_plan *out, struct status *err)
{
    uint64_t count = 0;
    size_t n = output.n - sizeof count;

    *out = (struct volume_plan){ 0 };
    if (output.n >= sizeof count)
        memcpy(&count, output.p, sizeof count);
    if (output.n < sizeof count || count > n / sizeof(struct volume_piece))
        return status_set(err, STATUS_INTERNAL, "the plan of a container's volumes is cut short");
    const char *p = output.p + sizeof count;
    out->piece_count = (size_t)count;
    out->pieces = xcalloc(out->piece_count + 1, sizeof *out->pieces);
    memcpy(out->pieces, p, out->piece_count * sizeof *out->pieces);
    p += out->piece_count * sizeof *out->pieces;
    out->request = interlink__agent__v1__create_container_request__unpack(NULL, (size_t)(output.p + output.n - p), (const uint8_t *)p);
    return out->request != NULL || status_set(err, STATUS_INTERNAL, "the plan of a container's volumes cannot be read");
}

void volume_plan_free(struct volume_plan *p)
{
    free(p->pieces);
    if (p->request != NULL)
        protobuf_c_message_free_unpacked(&p->request->base, NULL);
    *p = (struct volume_plan){ 0 };
}
