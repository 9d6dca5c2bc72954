/* SPDX-License-Identifier: Apache-2.0 */
/* What kubelet would have put into CRI's messages for this pod. */
#include "agent/podrun_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"
#include "text/quantity.h"

/* Kubelet's own (pkg/securitycontext/util.go). */
static const char *const podrun_masked[] = {
    "/proc/asound", "/proc/acpi",  "/proc/kcore",        "/proc/keys",  "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
};
static const char *const podrun_readonly[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };

static char *podrun_text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static char **podrun_texts(struct arena *arena, const char *const *items, size_t count)
{
    char **out = ARENA_ARRAY(arena, char *, count + 1);

    for (size_t i = 0; i < count; i++)
        out[i] = podrun_text(items[i]);
    return out;
}

/* ---- the sandbox ---- */

static Runtime__V1__NamespaceOption *podrun_namespaces(struct arena *arena, const struct podspec *spec)
{
    Runtime__V1__NamespaceOption *out = ARENA_NEW(arena, Runtime__V1__NamespaceOption);

    runtime__v1__namespace_option__init(out);
    out->network = RUNTIME__V1__NAMESPACE_MODE__NODE; /* the job's own */
    out->pid = spec->share_pids ? RUNTIME__V1__NAMESPACE_MODE__POD : RUNTIME__V1__NAMESPACE_MODE__CONTAINER;
    out->ipc = RUNTIME__V1__NAMESPACE_MODE__POD;
    return out;
}

void podrun_sandbox_config(struct arena *arena, const struct podrun *run, Runtime__V1__PodSandboxConfig *out)
{
    const struct interlink_pod *pod = &run->spec.create.pod;

    runtime__v1__pod_sandbox_config__init(out);
    out->metadata = ARENA_NEW(arena, Runtime__V1__PodSandboxMetadata);
    runtime__v1__pod_sandbox_metadata__init(out->metadata);
    out->metadata->name = podrun_text(pod->name);
    out->metadata->namespace_ = podrun_text(pod->namespace_);
    out->metadata->uid = podrun_text(pod->uid);
    out->hostname = podrun_text(run->spec.hostname);
    if (run->spec.dns_servers.count + run->spec.dns_searches.count > 0) {
        out->dns_config = ARENA_NEW(arena, Runtime__V1__DNSConfig);
        runtime__v1__dnsconfig__init(out->dns_config);
        out->dns_config->n_servers = run->spec.dns_servers.count;
        out->dns_config->servers = podrun_texts(arena, run->spec.dns_servers.items, run->spec.dns_servers.count);
        out->dns_config->n_searches = run->spec.dns_searches.count;
        out->dns_config->searches = podrun_texts(arena, run->spec.dns_searches.items, run->spec.dns_searches.count);
    }
    out->linux = ARENA_NEW(arena, Runtime__V1__LinuxPodSandboxConfig);
    runtime__v1__linux_pod_sandbox_config__init(out->linux);
    out->linux->security_context = ARENA_NEW(arena, Runtime__V1__LinuxSandboxSecurityContext);
    runtime__v1__linux_sandbox_security_context__init(out->linux->security_context);
    out->linux->security_context->namespace_options = podrun_namespaces(arena, &run->spec);
    out->linux->security_context->privileged = true; /* each container says for itself */
}

/* ---- security and resources ---- */

static Runtime__V1__Int64Value *podrun_id(struct arena *arena, int64_t value)
{
    if (value < 0)
        return NULL;
    Runtime__V1__Int64Value *out = ARENA_NEW(arena, Runtime__V1__Int64Value);
    runtime__v1__int64_value__init(out);
    out->value = value;
    return out;
}

static Runtime__V1__LinuxContainerSecurityContext *podrun_security(struct arena *arena, const struct podrun_container *c)
{
    const struct podspec_security *s = &c->spec->security;
    Runtime__V1__LinuxContainerSecurityContext *out = ARENA_NEW(arena, Runtime__V1__LinuxContainerSecurityContext);

    runtime__v1__linux_container_security_context__init(out);
    out->namespace_options = podrun_namespaces(arena, &c->run->spec);
    out->run_as_user = podrun_id(arena, s->run_as_user);
    out->run_as_group = podrun_id(arena, s->run_as_user < 0 ? -1 : s->run_as_group);
    out->privileged = s->privileged;
    out->readonly_rootfs = s->read_only_root;
    out->no_new_privs = s->no_new_privs;
    out->n_supplemental_groups = c->run->spec.group_count;
    out->supplemental_groups = c->run->spec.groups;
    out->capabilities = ARENA_NEW(arena, Runtime__V1__Capability);
    runtime__v1__capability__init(out->capabilities);
    out->capabilities->n_add_capabilities = s->add.count;
    out->capabilities->add_capabilities = podrun_texts(arena, s->add.items, s->add.count);
    out->capabilities->n_drop_capabilities = s->drop.count;
    out->capabilities->drop_capabilities = podrun_texts(arena, s->drop.items, s->drop.count);
    out->seccomp = ARENA_NEW(arena, Runtime__V1__SecurityProfile);
    runtime__v1__security_profile__init(out->seccomp);
    out->seccomp->profile_type = strcmp(s->seccomp, "RuntimeDefault") == 0
                                     ? RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__RuntimeDefault
                                     : RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Unconfined;
    if (s->privileged)
        return out;
    out->n_masked_paths = COUNT_OF(podrun_masked);
    out->masked_paths = podrun_texts(arena, podrun_masked, COUNT_OF(podrun_masked));
    out->n_readonly_paths = COUNT_OF(podrun_readonly);
    out->readonly_paths = podrun_texts(arena, podrun_readonly, COUNT_OF(podrun_readonly));
    return out;
}

static int64_t podrun_amount(const struct interlink_pairs *pairs, const char *name, enum quantity_scale scale)
{
    struct status ignored = STATUS_INIT;
    int64_t value = 0;
    const char *text = interlink_pair_get(pairs, name);

    return *text != '\0' && quantity_parse(text, scale, &value, &ignored) && value > 0 ? value : 0;
}

/* As kubelet computes them (pkg/kubelet/cm/helpers_linux.go): 1024 shares and 100 ms of quota a CPU. */
static Runtime__V1__LinuxContainerResources *podrun_resources(struct arena *arena, const struct interlink_container *c)
{
    Runtime__V1__LinuxContainerResources *out = ARENA_NEW(arena, Runtime__V1__LinuxContainerResources);
    int64_t limit = podrun_amount(&c->limits, "cpu", QUANTITY_MILLI), request = podrun_amount(&c->requests, "cpu", QUANTITY_MILLI);
    int64_t shares;

    runtime__v1__linux_container_resources__init(out);
    request = request > 0 ? request : limit;
    shares = request > 256000 ? 262144 : request * 1024 / 1000;
    out->cpu_shares = shares > 2 ? shares : 2;
    if (limit > 0 && limit < INT64_MAX / 100) {
        out->cpu_period = 100000;
        out->cpu_quota = limit * 100 > 1000 ? limit * 100 : 1000;
    }
    out->memory_limit_in_bytes = podrun_amount(&c->limits, "memory", QUANTITY_ONE);
    return out;
}

/* ---- mounts ---- */

/* What hostPath.type promises; the two that end in OrCreate are made. */
static bool podrun_check_host_path(const struct interlink_volume *v, struct status *err)
{
    static const struct {
        const char *type;
        mode_t mode;
    } types[] = { { "Directory", S_IFDIR }, { "DirectoryOrCreate", S_IFDIR }, { "File", S_IFREG },      { "FileOrCreate", S_IFREG },
                  { "Socket", S_IFSOCK },   { "CharDevice", S_IFCHR },        { "BlockDevice", S_IFBLK } };
    struct stat st;

    if (v->host_path_type[0] == '\0')
        return true;
    if (strcmp(v->host_path_type, "DirectoryOrCreate") == 0 && !dir_make(v->source, 0755, err))
        return status_prefix(err, "volume %s", v->name);
    if (strcmp(v->host_path_type, "FileOrCreate") == 0) {
        cleanup_close int fd = open(v->source, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
            return status_errno(err, "volume %s: cannot make %s", v->name, v->source);
    }
    if (stat(v->source, &st) < 0)
        return status_errno(err, "volume %s: hostPath %s", v->name, v->source);
    for (size_t i = 0; i < COUNT_OF(types); i++)
        if (strcmp(types[i].type, v->host_path_type) == 0)
            return (st.st_mode & S_IFMT) == types[i].mode ||
                   status_set(err, STATUS_FAILED_PRECONDITION, "volume %s: hostPath %s is no %s", v->name, v->source, v->host_path_type);
    return status_set(err, STATUS_INVALID_ARGUMENT, "volume %s: hostPath.type: \"%.40s\" is not known", v->name, v->host_path_type);
}

static Interlink__Agent__V1__MountSource *podrun_source(struct arena *arena, Interlink__Agent__V1__CreateContainerRequest *out,
                                                        size_t mount, Interlink__Agent__V1__SourceKind kind)
{
    Interlink__Agent__V1__MountSource *source = ARENA_NEW(arena, Interlink__Agent__V1__MountSource);

    interlink__agent__v1__mount_source__init(source);
    source->mount = (uint32_t)mount;
    source->kind = kind;
    out->sources[out->n_sources++] = source;
    return source;
}

static Interlink__Agent__V1__EmptyDir *podrun_empty_dir(struct arena *arena, const struct podspec *spec, const struct interlink_volume *v,
                                                        const struct interlink_mount *m)
{
    Interlink__Agent__V1__EmptyDir *e = ARENA_NEW(arena, Interlink__Agent__V1__EmptyDir);
    struct status ignored = STATUS_INIT;
    int64_t size = 0;

    interlink__agent__v1__empty_dir__init(e);
    e->mode = e->sub_mode = spec->fs_group >= 0 ? 02777 : 0777;
    e->gid = e->sub_gid = spec->fs_group >= 0 ? (uint32_t)spec->fs_group : 0;
    e->memory = strcmp(v->medium, "Memory") == 0;
    if (v->size_limit[0] != '\0' && quantity_parse(v->size_limit, QUANTITY_ONE, &size, &ignored) && size > 0)
        e->size = (uint64_t)size;
    if (str_starts(v->medium, "HugePages-"))
        e->page_size = podrun_text(v->medium + strlen("HugePages-"));
    e->sub_path = podrun_text(m->sub_path);
    return e;
}

static bool podrun_mount(struct arena *arena, const struct podrun_container *c, size_t index,
                         Interlink__Agent__V1__CreateContainerRequest *out, struct status *err)
{
    const struct podspec *spec = &c->run->spec;
    const struct interlink_mount *m = &c->spec->base->mounts[index];
    const struct interlink_volume *v = podspec_volume(spec, m->name);
    Runtime__V1__Mount *mount = ARENA_NEW(arena, Runtime__V1__Mount);
    Interlink__Agent__V1__MountSource *source;

    runtime__v1__mount__init(mount);
    mount->container_path = podrun_text(m->mount_path);
    mount->readonly = m->read_only;
    out->config->mounts[out->config->n_mounts++] = mount;
    switch (v->kind) {
    case INTERLINK_VOLUME_HOST_PATH:
        mount->host_path = m->sub_path[0] != '\0' ? arena_printf(arena, "%s/%s", v->source, m->sub_path) : podrun_text(v->source);
        return podrun_check_host_path(v, err);
    case INTERLINK_VOLUME_EMPTY_DIR:
        source = podrun_source(arena, out, index, INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_EMPTY_DIR);
        source->volume = podrun_text(v->name);
        source->empty_dir = podrun_empty_dir(arena, spec, v, m);
        break;
    default:
        source = podrun_source(arena, out, index, INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_VOLUME);
        source->volume = podrun_text(podrun_files_name(arena, spec, (size_t)(c - c->run->containers), index));
        mount->readonly = true;
        break;
    }
    mount->host_path = arena_printf(arena, "/var/lib/interlink-cri/volumes/%s", v->name); /* never looked at */
    return true;
}

static void podrun_termination_mount(struct arena *arena, const struct podrun_container *c, Interlink__Agent__V1__CreateContainerRequest *out)
{
    Runtime__V1__Mount *mount = ARENA_NEW(arena, Runtime__V1__Mount);

    if (c->spec->termination_path[0] == '\0')
        return;
    runtime__v1__mount__init(mount);
    mount->container_path = podrun_text(c->spec->termination_path);
    mount->host_path = podrun_text("/var/lib/interlink-cri/termination-log");
    podrun_source(arena, out, out->config->n_mounts, INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_TERMINATION_LOG);
    out->config->mounts[out->config->n_mounts++] = mount;
}

/* ---- the container ---- */

static void podrun_environment(struct arena *arena, const struct podrun_container *c, Runtime__V1__ContainerConfig *config)
{
    const struct interlink_pairs *env = &c->spec->env;

    config->envs = ARENA_ARRAY(arena, Runtime__V1__KeyValue *, env->count + 1);
    for (size_t i = 0; i < env->count; i++) {
        Runtime__V1__KeyValue *pair = ARENA_NEW(arena, Runtime__V1__KeyValue);
        runtime__v1__key_value__init(pair);
        pair->key = podrun_text(env->items[i].name);
        pair->value = (ProtobufCBinaryData){ strlen(env->items[i].value), (uint8_t *)podrun_text(env->items[i].value) };
        config->envs[config->n_envs++] = pair;
    }
}

bool podrun_container_config(struct arena *arena, const struct podrun_container *c, Interlink__Agent__V1__CreateContainerRequest *out,
                             struct status *err)
{
    const struct podspec_container *spec = c->spec;
    Runtime__V1__ContainerConfig *config = ARENA_NEW(arena, Runtime__V1__ContainerConfig);

    interlink__agent__v1__create_container_request__init(out);
    runtime__v1__container_config__init(config);
    out->id = podrun_text(c->id);
    out->config = config;
    out->sources = ARENA_ARRAY(arena, Interlink__Agent__V1__MountSource *, spec->base->mount_count + 1);
    config->mounts = ARENA_ARRAY(arena, Runtime__V1__Mount *, spec->base->mount_count + 1);
    config->metadata = ARENA_NEW(arena, Runtime__V1__ContainerMetadata);
    runtime__v1__container_metadata__init(config->metadata);
    config->metadata->name = podrun_text(spec->base->name);
    config->metadata->attempt = (uint32_t)c->attempt;
    config->image = ARENA_NEW(arena, Runtime__V1__ImageSpec);
    runtime__v1__image_spec__init(config->image);
    config->image->image = podrun_text(spec->base->image);
    config->n_command = spec->command.count;
    config->command = podrun_texts(arena, spec->command.items, spec->command.count);
    config->n_args = spec->args.count;
    config->args = podrun_texts(arena, spec->args.items, spec->args.count);
    config->working_dir = podrun_text(spec->base->working_dir);
    config->tty = spec->base->tty;
    config->stdin = spec->stdin;
    podrun_environment(arena, c, config);
    config->linux = ARENA_NEW(arena, Runtime__V1__LinuxContainerConfig);
    runtime__v1__linux_container_config__init(config->linux);
    config->linux->resources = podrun_resources(arena, spec->base);
    config->linux->security_context = podrun_security(arena, c);
    for (size_t i = 0; i < spec->base->mount_count; i++)
        if (!podrun_mount(arena, c, i, out, err))
            return false;
    podrun_termination_mount(arena, c, out);
    return true;
}
