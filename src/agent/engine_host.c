/* SPDX-License-Identifier: Apache-2.0 */
/* The engine without images: the command runs on the machine's own files, as a session of its own, in a cgroup where there are
 * any. What the pod asks for and this cannot give is refused as everywhere; only those defaults of kubelet's that no pod
 * can do without are left out with a note (see host_leave_out). */
#include "agent/engine_impl.h"
#include "agent/launch.h"
#include "agent/spec.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* kubelet mounts a file for the termination message into each container; few machines have that path. */
static bool host_leave_out(const struct engine_create *c, const Runtime__V1__Mount *m)
{
    const Runtime__V1__ContainerConfig *config = c->config;

    for (size_t i = 0; i < config->n_annotations; i++)
        if (strcmp(config->annotations[i]->key, "io.kubernetes.container.terminationMessagePath") == 0)
            return strcmp(config->annotations[i]->value, m->container_path) == 0;
    return false;
}

/* A mount can only go over something of its kind that the machine has. */
static bool host_mount(struct engine *e, const struct engine_create *c, size_t index, struct spec *s, struct buf *note,
                       struct status *err)
{
    const Runtime__V1__Mount *m = c->config->mounts[index];
    const char *source = spec_source(c, index).path;
    struct stat from, to;

    if (stat(source, &from) < 0)
        return status_set(err, STATUS_NOT_FOUND, "mounts[%zu]: host_path %s: %s", index, source, strerror(errno));
    if (stat(m->container_path, &to) < 0 || S_ISDIR(from.st_mode) != S_ISDIR(to.st_mode)) {
        if (host_leave_out(c, m)) {
            buf_printf(note, "%smounts[%zu]: %s is left out: this machine has no such file", note->n > 0 ? "; " : "", index,
                       m->container_path);
            return true;
        }
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "mounts[%zu].container_path: the host engine can only mount over what this machine has, and %s is not "
                          "there",
                          index, m->container_path);
    }
    if (from.st_dev == to.st_dev && from.st_ino == to.st_ino)
        return true;
    if (!e->isolation.mount)
        return status_set(err, STATUS_FAILED_PRECONDITION, "mounts[%zu].container_path: %s cannot be mounted here: %.300s", index,
                          m->container_path, e->isolation.missing);
    s->process.binds[s->process.bind_count++] = (struct process_bind){ .source = arena_strdup(&s->arena, source),
                                                                       .target = arena_strdup(&s->arena, m->container_path),
                                                                       .read_only = m->readonly };
    return true;
}

static bool host_device(const Runtime__V1__Device *d, size_t index, struct status *err)
{
    struct stat st;

    if (strcmp(d->host_path, d->container_path) != 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "devices[%zu].container_path: the host engine cannot rename %.200s",
                          index, d->host_path);
    if (stat(d->host_path, &st) < 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "devices[%zu].host_path: %.200s: %s on this machine", index,
                          d->host_path, strerror(errno));
    return true;
}

static bool host_prepare(struct engine *e, const struct engine_create *c, const struct security_facts *facts, struct spec *s,
                         struct buf *note, struct status *err)
{
    struct buf limits cleanup_buf = BUF_INIT;
    cleanup_close int root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct cdi_edits cdi;
    struct lsm_choice labels;
    struct spec_input in = { .engine = e, .create = c, .facts = facts, .root_fd = root_fd, .labels = &labels, .cdi = &cdi };

    if (!lsm_choose(&e->lsm, c->config, c->sandbox, e->root, &s->arena, &labels, note, err) || !cdi_collect(c->config, e->cdi_dirs, &s->arena, &cdi, err) || !spec_process(&in, s, note, err))
        return false;
    s->process.binds = ARENA_ARRAY(&s->arena, struct process_bind, c->config->n_mounts);
    for (size_t i = 0; i < c->config->n_mounts; i++)
        if (!host_mount(e, c, i, s, note, err))
            return false;
    for (size_t i = 0; i < c->config->n_devices; i++)
        if (!host_device(c->config->devices[i], i, err))
            return false;
    if (s->process.seccomp != NULL && !e->root && !e->isolation.user)
        s->process.no_new_privs = true; /* seccomp(2): without privilege only so */
    if (!cgroup_create(&e->cgroups, c->id, spec_resources(c), NULL, 0, &limits, err))
        return false;
    engine_note_limits(e, spec_resources(c), &limits, note);
    if (spec_security(c) != NULL && spec_security(c)->n_masked_paths + spec_security(c)->n_readonly_paths > 0)
        buf_printf(note, "%smasked_paths and readonly_paths mean nothing to the host engine", note->n > 0 ? "; " : "");
    return process_write(&s->process, c->bundle, err);
}

static bool host_create(struct engine *e, const struct engine_create *c, struct engine_created *out, struct status *err)
{
    struct spec s cleanup_spec = { .arena = ARENA_INIT };
    struct buf note cleanup_buf = BUF_INIT;
    struct security_facts facts;
    struct status ignored;

    security_facts_fill(&facts, &e->isolation, e->ops->name, e->root, e->cgroups.devices);
    if (!security_check(&facts, c->config, c->sandbox, err))
        return false;
    if (!host_prepare(e, c, &facts, &s, &note, err)) {
        cgroup_remove(&e->cgroups, c->id, &ignored);
        return false;
    }
    engine_fill_created(out, &s.process.user, &note);
    return true;
}

static bool host_start(struct engine *e, const char *id, const char *bundle, const struct engine_stdio *io, pid_t *pid,
                       struct status *err)
{
    return engine_launch(e, id, bundle, io, &(struct launch){ .own_mounts = e->isolation.mount }, pid, err);
}

static bool host_remove(struct engine *e UNUSED, const char *id UNUSED, const char *bundle UNUSED, struct status *err UNUSED)
{
    return true; /* its mounts went with its processes */
}

static void host_features(const struct isolation *isolation UNUSED, Interlink__Agent__V1__Features *out UNUSED)
{
    /* none of them */
}

const struct engine_ops engine_host = { "host", host_features, host_create, host_start, host_remove, NULL, NULL, NULL };
