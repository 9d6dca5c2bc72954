/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_container_work.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/agent_blobs.h"
#include "agent/agent_context.h"
#include "agent/agent_intake.h"
#include "agent/agent_signal.h"
#include "agent/agent_site.h"
#include "agent/agent_sources.h"
#include "image/config.h"
#include "io/file.h"

void agent_worker_enter(struct agent *agent)
{
    agent_container_close_inputs(agent);
    agent_intake_close_inputs(agent);
}

/* ---- create ---- */

/* The layers of the images that are mounted. */
static bool agent_create_volumes(const struct agent *agent, const Interlink__Agent__V1__CreateContainerRequest *request,
                                 struct arena *arena, struct engine_create *create, struct status *err)
{
    struct engine_image_volume *volumes = ARENA_ARRAY(arena, struct engine_image_volume, request->n_image_volumes + 1);

    for (size_t i = 0; i < request->n_image_volumes; i++) {
        const Interlink__Agent__V1__ImageVolume *volume = request->image_volumes[i];
        volumes[i].mount = volume->mount;
        if (!agent_blobs_layers(agent, volume->image, arena, &volumes[i].layers, err))
            return status_prefix(err, "mounts[%u]", volume->mount);
        volumes[i].layer_count = volume->image->n_layers;
    }
    create->volumes = volumes;
    create->volume_count = request->n_image_volumes;
    return true;
}

/* What the pod has of its job. The request is this worker's own copy. */
static bool agent_create_site(const struct agent *agent, Runtime__V1__ContainerConfig *config, struct arena *arena,
                              struct engine_create *create, struct buf *note, struct status *err)
{
    enum agent_site_gpus gpus;

    if (!agent_site_gpus_of(agent->sandbox, &gpus, err))
        return false;
    create->nvidia = gpus == AGENT_GPUS_NVIDIA;
    create->rocm = gpus == AGENT_GPUS_AMD;
    bool brings = strcmp(engine_name(agent->engine), "apptainer") == 0 && (create->nvidia || create->rocm);
    const struct agent_site_input in = { .sandbox = agent->sandbox, .environment = environ, .dev = "/dev", .with_devices = !brings,
                                         .renamed_user = strcmp(engine_name(agent->engine), "crun") == 0 && engine_rootless(agent->engine) };
    return agent_site_add(&in, config, arena, note, err);
}

static bool agent_create_in_bundle(const struct agent_create_work *work, const struct engine_create *create,
                                   struct agent_created *created, struct status *err)
{
    const struct agent_container *c = work->container;

    /* A worker that was killed leaves its bundle behind. */
    if (access(c->bundle, F_OK) == 0 && !engine_remove(c->agent->engine, c->id, c->bundle, err))
        return false;
    if (!dir_make(c->bundle, 0700, err))
        return false;
    if (!engine_create(c->agent->engine, create, &created->made, err)) {
        struct status ignored;
        tree_remove(c->bundle, &ignored);
        return false;
    }
    return true;
}

bool agent_create_worker(void *arg, struct buf *output, struct status *err)
{
    const struct agent_create_work *work = arg;
    const struct agent_container *c = work->container;
    const Interlink__Agent__V1__CreateContainerRequest *request = work->request;
    const Interlink__Agent__V1__Image *image = request->image;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_image_config struct image_config config = { 0 };
    struct engine_create create = {
        .id = c->id,
        .bundle = c->bundle,
        .config = request->config,
        .sandbox = c->agent->sandbox,
        .image = image != NULL ? &config : NULL,
        .layer_count = image != NULL ? image->n_layers : 0,
        .seccomp_profile = { (const char *)request->seccomp_profile.data, request->seccomp_profile.len },
        .target_pid = work->target_pid,
    };
    struct agent_created created;
    struct buf note cleanup_buf = BUF_INIT;

    memset(&created, 0, sizeof created);
    agent_worker_enter(c->agent);
    if (!agent_create_site(c->agent, request->config, &arena, &create, &note, err))
        return false;
    if (image != NULL && (!image_config_parse((struct str){ (const char *)image->config.data, image->config.len }, &config, err) ||
                          !agent_blobs_layers(c->agent, image, &arena, &create.layers, err)))
        return false;
    if (!agent_sources_make(c->agent, request, &arena, &create.sources, err) ||
        !agent_create_volumes(c->agent, request, &arena, &create, err) || !agent_create_in_bundle(work, &create, &created, err))
        return false;
    size_t noted = strlen(created.made.note);
    if (note.n > 0)
        snprintf(created.made.note + noted, sizeof created.made.note - noted, "%s%s", noted > 0 ? "; " : "", buf_cstr(&note));
    created.stop_signal = agent_signal_stop(request->config->stop_signal, image != NULL ? config.stop_signal : "");
    buf_append(output, &created, sizeof created);
    return true;
}

/* ---- standard streams ---- */

void agent_stdio_close(int fds[3])
{
    for (int i = 0; i < 3; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

bool agent_stdio_make(struct agent_stdio *io, bool tty, bool with_stdin, struct status *err)
{
    int pair[2];

    for (int i = 0; i < 3; i++)
        io->ours[i] = io->theirs[i] = -1;
    if (tty) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return status_errno(err, "no socket pair for a terminal");
        io->ours[0] = pair[0];
        io->theirs[0] = pair[1];
        return true;
    }
    for (int i = with_stdin ? 0 : 1; i < 3; i++) {
        if (pipe2(pair, O_CLOEXEC) < 0) {
            status_errno(err, "no pipe for a process's standard streams");
            agent_stdio_close(io->ours);
            agent_stdio_close(io->theirs);
            return false;
        }
        io->ours[i] = pair[i == 0 ? 1 : 0];
        io->theirs[i] = pair[i == 0 ? 0 : 1];
    }
    return true;
}

void agent_stdio_engine(const struct agent_stdio *io, bool tty, struct engine_stdio *out)
{
    *out = (struct engine_stdio){
        .in = tty ? -1 : io->theirs[0], .out = io->theirs[1], .err = io->theirs[2], .tty = tty,
        .terminal_fd = tty ? io->theirs[0] : -1,
    };
}

/* ---- start ---- */

struct agent_start_work {
    struct agent_container *container;
    struct engine_stdio io;
};

static bool agent_start_work(void *arg, struct buf *output, struct status *err)
{
    const struct agent_start_work *work = arg;
    const struct agent_container *c = work->container;
    pid_t pid;

    agent_worker_enter(c->agent);
    if (!engine_start(c->agent->engine, c->id, c->bundle, &work->io, &pid, err))
        return false;
    buf_append(output, &pid, sizeof pid);
    return true;
}

bool agent_start_worker(struct agent_container *c, void (*on_done)(void *arg, const struct status *err, struct buf *output),
                        struct status *err)
{
    struct agent_stdio io;
    struct agent_start_work work = { .container = c };

    if (!agent_stdio_make(&io, c->tty, c->with_stdin, err))
        return false;
    agent_stdio_engine(&io, c->tty, &work.io);
    memcpy(c->worker_fds, io.ours, sizeof c->worker_fds);
    bool started = worker_start(c->agent->loop, &c->worker, agent_start_work, &work, on_done, c, err);
    agent_stdio_close(io.theirs);
    if (!started)
        agent_start_close(c);
    return started;
}

void agent_start_close(struct agent_container *c)
{
    agent_stdio_close(c->worker_fds);
}

/* ---- update ---- */

bool agent_update_worker(void *arg, struct buf *output, struct status *err)
{
    const struct agent_update_work *work = arg;
    const struct agent_container *c = work->container;

    (void)output;
    agent_worker_enter(c->agent);
    return engine_update(c->agent->engine, c->id, c->bundle, work->resources, err);
}

/* ---- remove ---- */

bool agent_remove_worker(void *arg, struct buf *output, struct status *err)
{
    const struct agent_container *c = arg;

    (void)output;
    agent_worker_enter(c->agent);
    return engine_remove(c->agent->engine, c->id, c->bundle, err);
}
