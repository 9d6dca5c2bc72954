/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox_job.h"

#include "interlink/slurm_flags.h"
#include "node/job_size.h"
#include "node/last_words.h"
#include "node/pre_exec.h"
#include "node/waiter.h"
#include "rpc/pb.h"

const char *sandbox_job_name(struct arena *arena, const char *pod, const char *id)
{
    char *name = arena_printf(arena, "%.50s-%.8s", pod, id);

    for (char *p = name; *p != '\0'; p++)
        if ((*p < 'a' || *p > 'z') && (*p < '0' || *p > '9'))
            *p = '-';
    return name;
}

static void sandbox_job_env(struct interlink_container *c, const char *name, const char *value)
{
    c->env.items[c->env.count++] = (struct interlink_pair){ name, value };
}

/* Which namespaces the pod does not share with the machine it runs on. */
static const char *sandbox_job_namespaces(struct arena *arena, const Runtime__V1__PodSandboxConfig *config)
{
    const Runtime__V1__LinuxSandboxSecurityContext *context =
        config->linux != NULL ? config->linux->security_context : NULL;
    const Runtime__V1__NamespaceOption *options = context != NULL ? context->namespace_options : NULL;
    bool host_network = options != NULL && options->network == RUNTIME__V1__NAMESPACE_MODE__NODE;
    bool host_ipc = options != NULL && options->ipc == RUNTIME__V1__NAMESPACE_MODE__NODE;
    bool host_pid = options != NULL && options->pid == RUNTIME__V1__NAMESPACE_MODE__NODE;

    /* A pod on the node's network has the node's host name, as everywhere in Kubernetes. */
    return arena_printf(arena, "%s%s%s", host_ipc ? "" : "ipc,", host_network ? "" : "uts,", host_pid ? "" : "pid,");
}

void sandbox_job_size(struct arena *arena, const Interlink__State__V1__JobSize *size, struct interlink_container *c)
{
    size_t n = size != NULL ? size->n_amounts : 0;

    c->limits.items = ARENA_ARRAY(arena, struct interlink_pair, n + 1); /* one more for pre_exec_limits() */
    c->requests.items = ARENA_ARRAY(arena, struct interlink_pair, n + 1);
    for (size_t i = 0; i < n; i++) {
        const Interlink__State__V1__JobSize__Amount *a = size->amounts[i];
        c->limits.items[c->limits.count++] = (struct interlink_pair){ a->resource, a->limit };
        c->requests.items[c->requests.count++] = (struct interlink_pair){ a->resource, a->request };
    }
}

/* Whose GPUs the job has; by the vendor's device plugin, whose names of resources everybody uses. */
static const char *sandbox_job_gpus(const Interlink__State__V1__JobSize *size)
{
    static const char *const vendors[][2] = { { "nvidia.com/", "nvidia" }, { "amd.com/gpu", "amd" }, { "gpu.intel.com/", "intel" } };

    for (size_t i = 0; size != NULL && i < size->n_amounts; i++)
        for (size_t k = 0; k < COUNT_OF(vendors); k++)
            if (str_starts(size->amounts[i]->resource, vendors[k][0]))
                return vendors[k][1];
    return "";
}

/* The stock Slurm plugin knows no other way to limit a job's time. Whole minutes; of equal flags sbatch takes the last. */
const char *sandbox_job_flags(struct arena *arena, const Interlink__State__V1__JobSize *size, const char *flags)
{
    if (size == NULL || size->walltime_seconds == 0 || strcmp(size->walltime_source, SLURM_FLAGS_ANNOTATION) == 0)
        return flags;
    return arena_printf(arena, "%s%s--time=%" PRId64, flags, *flags != '\0' ? " " : "", (size->walltime_seconds + 59) / 60);
}

/* A plugin that runs containers only can start the agent by a script when it knows where the program is. */
static bool sandbox_job_by_pre_exec(const struct sandbox *sandbox)
{
    const struct node_handler_options *options = sandbox->handler->options;

    return *options->program != '\0' && strcmp(options->job_per, "container") != 0;
}

static bool sandbox_job_has(const struct interlink_pairs *pairs, const char *name)
{
    return *interlink_pair_get(pairs, name) != '\0';
}

void sandbox_job_annotations(struct arena *arena, const Runtime__V1__PodSandboxConfig *config,
                             const Interlink__State__V1__JobSize *job_size, const struct interlink_pairs *own,
                             struct interlink_pairs *out)
{
    static const char *const prefixes[] = { "slurm-job.vk.io/", "interlink.eu/", "interlink.io/" };
    const char *flags = pb_label(config->n_annotations, (void *)config->annotations, SLURM_FLAGS_ANNOTATION);
    const char *size = job_size_text(arena, job_size);

    out->items = ARENA_ARRAY(arena, struct interlink_pair, config->n_annotations + own->count + 2);
    for (size_t i = 0; i < own->count; i++)
        out->items[out->count++] = own->items[i];
    if (*size != '\0')
        out->items[out->count++] = (struct interlink_pair){ JOB_SIZE_ANNOTATION, size };
    flags = sandbox_job_flags(arena, job_size, flags != NULL ? flags : "");
    if (*flags != '\0' && !sandbox_job_has(own, SLURM_FLAGS_ANNOTATION))
        out->items[out->count++] = (struct interlink_pair){ SLURM_FLAGS_ANNOTATION, flags };
    for (size_t i = 0; i < config->n_annotations; i++) {
        const char *name = config->annotations[i]->key;
        bool known = sandbox_job_has(own, name) || strcmp(name, INTERLINK_JOB_ANNOTATION) == 0 ||
                     strcmp(name, JOB_SIZE_ANNOTATION) == 0 || strcmp(name, SLURM_FLAGS_ANNOTATION) == 0;
        bool travels = false;
        for (size_t k = 0; k < COUNT_OF(prefixes); k++)
            travels = travels || str_starts(name, prefixes[k]);
        if (travels && !known)
            out->items[out->count++] = (struct interlink_pair){ name, config->annotations[i]->value };
    }
}

static void sandbox_job_agent_annotations(struct arena *arena, const struct sandbox *sandbox, struct interlink_pairs *out)
{
    const Interlink__State__V1__Sandbox *record = sandbox->record;
    const Runtime__V1__PodSandboxConfig *config = record->config;
    const char *before = pb_label(config->n_annotations, (void *)config->annotations, PRE_EXEC_ANNOTATION);
    const char *flags = pb_label(config->n_annotations, (void *)config->annotations, SLURM_FLAGS_ANNOTATION);
    cleanup_buf struct buf script = BUF_INIT;
    struct interlink_pair items[3] = { { INTERLINK_JOB_ANNOTATION, INTERLINK_JOB_AGENT } };
    struct interlink_pairs own = { items, 1 };

    if (sandbox_job_by_pre_exec(sandbox)) {
        flags = sandbox_job_flags(arena, record->size, flags != NULL ? flags : "");
        flags = pre_exec_flags(arena, record->id, config, record->size, flags);
        pre_exec_write(&script, SANDBOX_JOB_CONTAINER, sandbox->handler->options->program, before != NULL ? before : "");
        items[own.count++] = (struct interlink_pair){ PRE_EXEC_ANNOTATION, arena_strdup(arena, buf_cstr(&script)) };
        if (*flags != '\0')
            items[own.count++] = (struct interlink_pair){ SLURM_FLAGS_ANNOTATION, flags };
    }
    sandbox_job_annotations(arena, config, record->size, &own, out);
}

static const char *sandbox_job_dirs(struct arena *arena, const char *const *dirs)
{
    const char *list = "";

    for (; *dirs != NULL; dirs++)
        list = arena_printf(arena, "%s%s%s", list, *list != '\0' ? ":" : "", *dirs);
    return list;
}

static void sandbox_job_agent(struct arena *arena, const struct sandbox *sandbox, struct interlink_container *c)
{
    const struct node *node = sandbox->node;
    const Interlink__State__V1__Sandbox *record = sandbox->record;
    const Runtime__V1__PodSandboxConfig *config = record->config;
    bool local = sandbox->handler->local;
    bool shares_images = local || node->options->agents_share_images;
    static const char *command[] = { "interlink-cri", "agent" };
    static struct interlink_mount mounts[] = {
        { .name = SANDBOX_JOB_SECRET, .mount_path = "/var/run/interlink", .sub_path = "", .read_only = true },
    };

    *c = (struct interlink_container){ .name = SANDBOX_JOB_CONTAINER, .image = "interlink-cri", .working_dir = "", .env_from = "" };
    c->command = (struct interlink_strings){ command, COUNT_OF(command) };
    c->env.items = ARENA_ARRAY(arena, struct interlink_pair, 16);
    sandbox_job_env(c, "INTERLINK_RELAY", local ? arena_printf(arena, "unix://%s", node->relay_socket)
                                                : node->options->relay_address);
    if (!local)
        sandbox_job_env(c, "INTERLINK_RELAY_PIN", node->relay_pin);
    if (sandbox->handler->options->dial != NULL)
        sandbox_job_env(c, "INTERLINK_JOIN", "1");
    if (!local)
        sandbox_job_env(c, "INTERLINK_KEEPALIVE", arena_printf(arena, "%" PRId64, node->options->relay_keepalive_ms / 1000));
    sandbox_job_env(c, "INTERLINK_SANDBOX", record->id);
    sandbox_job_env(c, "INTERLINK_NAMESPACES", sandbox_job_namespaces(arena, config));
    if (shares_images)
        sandbox_job_env(c, "INTERLINK_IMAGES", node->options->image_dir);
    sandbox_job_env(c, "INTERLINK_ENGINE", *sandbox->handler->options->engine != '\0' ? sandbox->handler->options->engine
                                                                                      : "auto");
    if (node->options->cdi_dirs != NULL)
        sandbox_job_env(c, "INTERLINK_CDI_DIRS", sandbox_job_dirs(arena, node->options->cdi_dirs));
    if (record->network != NULL)
        sandbox_job_env(c, "INTERLINK_NETNS", record->network->netns);
    if (local && config->linux != NULL && *config->linux->cgroup_parent != '\0')
        sandbox_job_env(c, "INTERLINK_CGROUP_PARENT", config->linux->cgroup_parent);
    sandbox_job_size(arena, record->size, c);
    const char *gpus = sandbox_job_gpus(record->size);
    if (*gpus != '\0')
        sandbox_job_env(c, "INTERLINK_GPUS", gpus);
    if (sandbox_job_by_pre_exec(sandbox)) {
        sandbox_job_env(c, PRE_EXEC_TOKEN, record->token);
        pre_exec_limits(arena, config, &c->limits);
    } else {
        c->mounts = mounts;
        c->mount_count = COUNT_OF(mounts);
    }
}

struct interlink_job *sandbox_job_new(struct sandbox *sandbox, const struct interlink_job_events *events)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const Interlink__State__V1__Sandbox *record = sandbox->record;
    struct interlink_create create = INTERLINK_CREATE_INIT;
    struct interlink_container agent;
    struct interlink_volume volume = { .name = SANDBOX_JOB_SECRET,
                                       .kind = INTERLINK_VOLUME_SECRET,
                                       .source = SANDBOX_JOB_SECRET,
                                       .host_path_type = "",
                                       .medium = "",
                                       .size_limit = "",
                                       .other = "",
                                       .default_mode = 0400 };
    struct interlink_file token = { .key = "token", .data = str_of(record->token) };
    struct interlink_object secret = { .name = SANDBOX_JOB_SECRET,
                                       .namespace_ = record->config->metadata->namespace_,
                                       .type = "Opaque",
                                       .files = &token,
                                       .file_count = 1 };

    sandbox_job_agent(&arena, sandbox, &agent);
    create.pod.name = sandbox_job_name(&arena, record->config->metadata->name, record->id);
    create.pod.namespace_ = record->config->metadata->namespace_;
    create.pod.uid = record->job_uid;
    create.pod.restart_policy = "Never";
    create.pod.containers = &agent;
    create.pod.container_count = 1;
    create.pod.volumes = &volume;
    create.pod.volume_count = agent.mount_count; /* by pre-exec there is none: that plugin keeps secrets in its own environment */
    if (record->size != NULL && record->size->walltime_seconds > 0)
        create.pod.active_deadline_seconds = record->size->walltime_seconds;
    sandbox_job_agent_annotations(&arena, sandbox, &create.pod.annotations);
    create.secrets = &secret;
    create.secret_count = agent.mount_count;
    return interlink_job_new(sandbox->handler->target, &create, events, sandbox);
}

struct last_words *sandbox_job_words(struct sandbox *sandbox, void (*on_done)(void *arg, const char *text), void *arg)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const Interlink__State__V1__Sandbox *record = sandbox->record;
    const struct interlink_log_request request = { .namespace_ = record->config->metadata->namespace_,
                                                   .pod_uid = record->job_uid,
                                                   .pod_name = sandbox_job_name(&arena, record->config->metadata->name, record->id),
                                                   .container = SANDBOX_JOB_CONTAINER };

    return last_words_start(sandbox->node->loop, sandbox->handler->target, &request, on_done, arg);
}

bool sandbox_job_ask(struct sandbox *sandbox, void (*on_done)(void *arg, const char *text))
{
    if (sandbox->last_words != NULL)
        return true; /* already */
    if (!sandbox_job_by_pre_exec(sandbox))
        return false;
    sandbox->last_words = sandbox_job_words(sandbox, on_done, sandbox);
    return true;
}

char *sandbox_job_end_words(const struct interlink_job_state *state)
{
    if (state->phase == INTERLINK_GONE)
        return xstrdup("the site no longer knows the pod's job");
    return xasprintf("the pod's job ended with exit code %d%s%s%s%s", state->exit_code, *state->reason != '\0' ? ", " : "",
                     state->reason, *state->message != '\0' ? ": " : "", state->message);
}

void sandbox_job_on_cancel_retry(void *arg, const struct status *err)
{
    struct sandbox *sandbox = arg;
    struct status wrapped = *err;

    status_prefix(&wrapped, "the job of pod %.13s cannot be cancelled yet (it is tried again)", sandbox->record->id);
    log_warn("%s", wrapped.message);
    if (sandbox->link == NULL)
        waiters_fail(&sandbox->waiters, WAIT_STOPPED, &wrapped);
    waiters_fail(&sandbox->waiters, WAIT_REMOVED, &wrapped);
}
