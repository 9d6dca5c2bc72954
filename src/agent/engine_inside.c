/* SPDX-License-Identifier: Apache-2.0 */
/* The engine of an agent that runs inside the container already: the site's plugin has started the image, with the agent as its
 * command, so the container's command is simply a child of ours. It sees the files, the user and the environment that we have; what
 * else a container has was the plugin's to give, and what is asked of us is refused. */
#include "agent/engine_impl.h"
#include "agent/launch.h"
#include "agent/spec.h"
#include "agent/track.h"

#include <fcntl.h>
#include <unistd.h>

extern char **environ;

/* Ours, which is the image's and the plugin's, and over it the container's own; and the mark by which its processes are known. */
static void inside_env(const struct engine_create *c, struct spec *s)
{
    const Runtime__V1__ContainerConfig *config = c->config;
    size_t ours = 0, count = 0;

    while (environ[ours] != NULL)
        ours++;
    char **env = ARENA_ARRAY(&s->arena, char *, ours + config->n_envs + 3);
    for (size_t i = 0; i < ours; i++)
        if (strchr(environ[i], '=') != NULL)
            spec_env_set(env, &count, arena_strdup(&s->arena, environ[i]));
    /* What spec_process() made of it was checked there. */
    for (size_t i = 0; i < config->n_envs; i++)
        for (size_t k = 0; s->process.env[k] != NULL; k++)
            if (strncmp(s->process.env[k], config->envs[i]->key, strlen(config->envs[i]->key)) == 0 &&
                s->process.env[k][strlen(config->envs[i]->key)] == '=')
                spec_env_set(env, &count, s->process.env[k]);
    spec_env_set(env, &count, arena_printf(&s->arena, TRACK_VARIABLE "=%s", c->id));
    if (config->tty)
        spec_env_set(env, &count, arena_strdup(&s->arena, "TERM=xterm"));
    s->process.env = env;
}

static bool inside_create(struct engine *e, const struct engine_create *c, struct engine_created *out, struct status *err)
{
    struct spec s cleanup_spec = { .arena = ARENA_INIT };
    struct buf note cleanup_buf = BUF_INIT, limits cleanup_buf = BUF_INIT;
    struct status ignored;
    cleanup_close int root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct security_facts facts;
    struct cdi_edits cdi = { 0 };
    struct lsm_choice labels = { .apparmor = "", .selinux = "", .mount = "" };
    struct spec_input in = { .engine = e, .create = c, .facts = &facts, .root_fd = root_fd, .labels = &labels, .cdi = &cdi };

    if (c->config->n_mounts > 0 || c->config->n_devices > 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s[0]: the container was made before its agent: nothing can be added",
                          c->config->n_mounts > 0 ? "mounts" : "devices");
    security_facts_fill(&facts, &e->isolation, e->ops->name, e->root, e->cgroups.devices);
    if (!security_check(&facts, c->config, c->sandbox, err) || !spec_process(&in, &s, &note, err))
        return false;
    inside_env(c, &s);
    /* To count what it uses and to reach all its processes; limits are the batch system's. */
    if (!cgroup_create(&e->cgroups, c->id, NULL, NULL, 0, &limits, err))
        return false;
    if (!process_write(&s.process, c->bundle, err)) {
        cgroup_remove(&e->cgroups, c->id, &ignored);
        return false;
    }
    engine_fill_created(out, &s.process.user, &note);
    return true;
}

static bool inside_start(struct engine *e, const char *id, const char *bundle, const struct engine_stdio *io, pid_t *pid,
                         struct status *err)
{
    return engine_launch(e, id, bundle, io, &(struct launch){ .as_we_are = true }, pid, err);
}

static bool inside_remove(struct engine *e UNUSED, const char *id UNUSED, const char *bundle UNUSED, struct status *err UNUSED)
{
    return true;
}

static void inside_features(const struct isolation *isolation UNUSED, Interlink__Agent__V1__Features *out UNUSED)
{
    /* none of them */
}

const struct engine_ops engine_inside = { "inside", inside_features, inside_create, inside_start, inside_remove, NULL, NULL, NULL };
