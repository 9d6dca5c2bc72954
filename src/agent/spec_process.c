/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/spec.h"

#include "agent/rootfs.h"
#include "agent/seccomp.h"
#include "agent/track.h"
#include "image/config.h"
#include "io/file.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPEC_DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
/* What execve(2) takes at most for one string (MAX_ARG_STRLEN). */
#define SPEC_STRING_MAX (128u * 1024)

const Runtime__V1__LinuxContainerSecurityContext *spec_security(const struct engine_create *c)
{
    return c->config->linux == NULL ? NULL : c->config->linux->security_context;
}

const Runtime__V1__LinuxContainerResources *spec_resources(const struct engine_create *c)
{
    return c->config->linux == NULL ? NULL : c->config->linux->resources;
}

bool spec_privileged(const struct engine_create *c)
{
    return spec_security(c) != NULL && spec_security(c)->privileged;
}

/* ---- command ---- */

static bool spec_argv(const struct spec_input *in, struct spec *out, struct status *err)
{
    const Runtime__V1__ContainerConfig *c = in->create->config;
    size_t count;

    if (!image_config_argv(in->create->image, c->command, c->n_command, c->args, c->n_args, &out->arena, &out->process.argv, &count, err))
        return false;
    if (out->process.argv[0][0] == '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT, "command[0]: the program's name is empty");
    return true;
}

/* ---- environment ---- */

void spec_env_set(char **env, size_t *count, char *entry)
{
    size_t name = (size_t)(strchr(entry, '=') - entry) + 1;

    for (size_t i = 0; i < *count; i++)
        if (strncmp(env[i], entry, name) == 0) {
            env[i] = entry;
            return;
        }
    env[(*count)++] = entry;
}

static bool spec_env(const struct spec_input *in, struct spec *out, struct status *err)
{
    const Runtime__V1__ContainerConfig *c = in->create->config;
    const struct image_config *image = in->create->image;
    size_t count = 0;
    size_t room = (image != NULL ? image->env_count : 0) + c->n_envs + (in->cdi != NULL ? in->cdi->env_count : 0) + 6;
    char **env = ARENA_ARRAY(&out->arena, char *, room);

    spec_env_set(env, &count, arena_strdup(&out->arena, SPEC_DEFAULT_PATH));
    spec_env_set(env, &count, arena_printf(&out->arena, "HOSTNAME=%s", in->engine->hostname));
    if (!in->facts->containers && !in->facts->isolation->mount)
        spec_env_set(env, &count, arena_printf(&out->arena, TRACK_VARIABLE "=%s", in->create->id));
    if (c->tty)
        spec_env_set(env, &count, arena_strdup(&out->arena, "TERM=xterm"));
    for (size_t i = 0; image != NULL && i < image->env_count; i++)
        if (strchr(image->env[i], '=') != NULL && image->env[i][0] != '=')
            spec_env_set(env, &count, arena_strdup(&out->arena, image->env[i]));
    for (size_t i = 0; i < c->n_envs; i++) {
        const Runtime__V1__KeyValue *e = c->envs[i];
        size_t name = strlen(e->key);
        if (name == 0 || strchr(e->key, '=') != NULL)
            return status_set(err, STATUS_INVALID_ARGUMENT, "envs[%zu].key: \"%.60s\" is not a variable's name", i, e->key);
        if (e->value.len > 0 && memchr(e->value.data, '\0', e->value.len) != NULL)
            return status_set(err, STATUS_INVALID_ARGUMENT, "envs[%zu].value: of %.60s: it has a zero byte", i, e->key);
        if (name + e->value.len + 2 > SPEC_STRING_MAX)
            return status_set(err, STATUS_INVALID_ARGUMENT, "envs[%zu].value: of %.60s: longer than the kernel takes (%u bytes)", i,
                              e->key, SPEC_STRING_MAX);
        char *entry = arena_alloc_raw(&out->arena, name + e->value.len + 2);
        memcpy(entry, e->key, name);
        entry[name] = '=';
        if (e->value.len > 0)
            memcpy(entry + name + 1, e->value.data, e->value.len);
        entry[name + 1 + e->value.len] = '\0';
        spec_env_set(env, &count, entry);
    }
    spec_cdi_env(in, out, env, &count);
    out->process.env = env;
    if (process_env(&out->process, "HOME") == NULL)
        env[count] = arena_printf(&out->arena, "HOME=%s", out->process.user.home);
    return true;
}

/* ---- working directory ---- */

static bool spec_cwd(const struct spec_input *in, struct spec *out, struct status *err)
{
    const char *dir = in->create->config->working_dir;

    if (*dir == '\0')
        dir = in->create->image != NULL && *in->create->image->working_dir != '\0' ? in->create->image->working_dir : "/";
    else if (*dir != '/')
        return status_set(err, STATUS_INVALID_ARGUMENT, "working_dir: \"%.200s\" is not an absolute path", dir);
    out->process.cwd = arena_printf(&out->arena, "%s%s", *dir == '/' ? "" : "/", dir);
    /* Images name folders that they do not hold; with a root of its own the container gets them. (From libcrun, as the pod's root,
     * where owners are mapped: ours may have no id there.) */
    if (in->facts->own_root && !in->engine->pod.on && !rootfs_mkdir(in->root_fd, out->process.cwd, err))
        return status_prefix(err, "working_dir");
    return true;
}

/* ---- user ---- */

static bool spec_user(const struct spec_input *in, struct spec *out, struct buf *note, struct status *err)
{
    const Runtime__V1__LinuxContainerSecurityContext *s = spec_security(in->create);
    struct user_request r = { .username = "",
                              .image_user = in->create->image != NULL ? in->create->image->user : "" };
    struct buf passwd cleanup_buf = BUF_INIT, group cleanup_buf = BUF_INIT;
    char own[64];

    if (s != NULL) {
        r.has_uid = s->run_as_user != NULL;
        r.uid = r.has_uid ? s->run_as_user->value : 0;
        r.has_gid = s->run_as_group != NULL;
        r.gid = r.has_gid ? s->run_as_group->value : 0;
        r.username = s->run_as_username;
        r.groups = s->supplemental_groups;
        r.group_count = s->n_supplemental_groups;
        r.strict = s->supplemental_groups_policy == RUNTIME__V1__SUPPLEMENTAL_GROUPS_POLICY__Strict;
    }
    bool from_image = !r.has_uid && *r.username == '\0';
    if (!in->facts->containers && !in->facts->isolation->user && (*r.image_user == '\0' || (in->facts->own_root && from_image))) {
        /* On the machine's own files the default is the job's user, and without namespaces of ours there is no other: then what
         * the image says about it is no wish of the pod's. */
        if (*r.image_user != '\0')
            buf_printf(note, "%sthe container runs as the job's user %u, not as the image's \"%.60s\"", note->n > 0 ? "; " : "",
                       in->facts->isolation->uid, r.image_user);
        snprintf(own, sizeof own, "%u:%u", in->facts->isolation->uid, in->facts->isolation->gid);
        r.image_user = own;
        r.strict = r.strict || !in->facts->root;
    }
    if (!rootfs_read(in->root_fd, "/etc/passwd", USER_FILE_MAX, &passwd, err) ||
        !rootfs_read(in->root_fd, "/etc/group", USER_FILE_MAX, &group, err))
        return false;
    if (!user_resolve(&r, (struct str){ (const char *)passwd.p, passwd.n }, (struct str){ (const char *)group.p, group.n },
                      &out->process.user, err) ||
        !security_check_user(in->facts, in->create->config, &out->process.user, note, err) ||
        !spec_cdi_groups(in, &out->process.user, err))
        return false;
    out->process.keep_groups = (in->cdi == NULL || in->cdi->gid_count == 0) &&
                               security_leaves_groups(in->facts, &out->process.user, r.strict, note);
    return true;
}

/* ---- the rest ---- */

static bool spec_seccomp(const struct spec_input *in, struct spec *out, struct status *err)
{
    struct seccomp_filter filter cleanup_seccomp_filter = SECCOMP_FILTER_INIT;
    struct buf text cleanup_buf = BUF_INIT;
    enum security_seccomp kind;
    const char *path;

    if (!security_seccomp(spec_security(in->create), &kind, &path, err))
        return false;
    if (kind == SECURITY_SECCOMP_NONE)
        return true;
    struct str profile = in->create->seccomp_profile;
    bool ok = kind == SECURITY_SECCOMP_DEFAULT || profile.n > 0 || file_read(path, SECURITY_SECCOMP_PROFILE_MAX, &text, err);
    if (profile.n == 0)
        profile = (struct str){ (const char *)text.p, text.n };
    ok = ok && (kind == SECURITY_SECCOMP_DEFAULT ? seccomp_default(out->process.bounding, &filter, err)
                                                 : seccomp_from_json(profile, &filter, err));
    if (!ok)
        return status_prefix(err, "linux.security_context.seccomp: %s",
                             kind == SECURITY_SECCOMP_DEFAULT ? "default profile" : path);
    out->process.seccomp = arena_memdup(&out->arena, filter.program.p, filter.program.n);
    out->process.seccomp_size = filter.program.n;
    out->process.seccomp_flags = filter.flags;
    return true;
}

/* Tried in a process that ends at once. */
int32_t spec_clamp_score(int32_t wanted)
{
    static const char path[] = "/proc/self/oom_score_adj";
    struct buf own cleanup_buf = BUF_INIT;
    struct status ignored;
    int wait_status = 0;

    if (!file_read(path, 32, &own, &ignored))
        return wanted;
    int32_t current = (int32_t)strtol(buf_cstr(&own), NULL, 10);
    if (wanted >= current)
        return wanted;
    pid_t pid = fork();
    if (pid == 0) {
        char text[16];
        int n = snprintf(text, sizeof text, "%d", (int)wanted);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        _exit(fd >= 0 && write(fd, text, (size_t)n) == n ? 0 : 1);
    }
    while (pid > 0 && waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
        ;
    return pid > 0 && WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0 ? wanted : current;
}

static bool spec_score(const struct spec_input *in, struct spec *out, struct status *err)
{
    const Runtime__V1__LinuxContainerResources *r = spec_resources(in->create);

    if (r == NULL)
        return true;
    if (r->oom_score_adj < -1000 || r->oom_score_adj > 1000)
        return status_set(err, STATUS_INVALID_ARGUMENT, "linux.resources.oom_score_adj: %" PRId64 " is not within -1000 to 1000",
                          r->oom_score_adj);
    out->process.has_oom_score_adj = true;
    out->process.oom_score_adj = spec_clamp_score((int32_t)r->oom_score_adj);
    return true;
}

static void spec_namespaces(const struct spec_input *in, struct spec *out)
{
    const Runtime__V1__LinuxContainerSecurityContext *s = spec_security(in->create);
    const Runtime__V1__NamespaceOption *n = s == NULL ? NULL : s->namespace_options;

    out->pid_path = "";
    if (!in->facts->containers)
        return;
    out->new_pid = n != NULL && n->pid == RUNTIME__V1__NAMESPACE_MODE__CONTAINER;
    if (in->engine->pod.on)
        out->pod = &in->engine->pod;
    /* The pod's own PID namespace: the agent's, in which everything is, belongs to the machine's user namespace. */
    if (in->engine->pod.on && (n == NULL || n->pid == RUNTIME__V1__NAMESPACE_MODE__POD))
        out->pid_path = arena_printf(&out->arena, "/proc/self/fd/%d", in->engine->pod.pid_fd);
    if (n != NULL && n->pid == RUNTIME__V1__NAMESPACE_MODE__TARGET)
        out->pid_path = arena_printf(&out->arena, "/proc/%d/ns/pid", (int)in->create->target_pid);
    /* As containerd: on v2, where it hides the rest of the tree. */
    out->new_cgroup = in->engine->cgroups.mode == CGROUP_V2 && !spec_privileged(in->create);
    out->process.own_pid = out->new_pid || *out->pid_path != '\0';
    out->process.own_cgroup = out->new_cgroup;
}

bool spec_process(const struct spec_input *in, struct spec *out, struct buf *note, struct status *err)
{
    const Runtime__V1__LinuxContainerSecurityContext *s = spec_security(in->create);
    struct security_capabilities caps;
    struct arena arena = out->arena;

    *out = (struct spec){ .arena = arena };
    if (!spec_cdi_check(in, err))
        return false;
    if (s != NULL && s->namespace_options != NULL &&
        s->namespace_options->pid == RUNTIME__V1__NAMESPACE_MODE__TARGET && in->create->target_pid <= 0)
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "linux.security_context.namespace_options.target_id: container \"%.64s\" is not running in this pod",
                          s->namespace_options->target_id);
    if (!spec_argv(in, out, err) || !spec_user(in, out, note, err) || !spec_env(in, out, err) || !spec_cwd(in, out, err) ||
        !security_capabilities(in->facts, s, &caps, note, err))
        return false;
    out->process.bounding = caps.bounding;
    out->process.permitted = caps.permitted;
    out->process.inheritable = caps.inheritable;
    out->process.ambient = caps.ambient;
    out->process.no_new_privs = s != NULL && s->no_new_privs;
    out->process.tty = in->create->config->tty;
    out->process.apparmor = arena_strdup(&out->arena, in->labels != NULL ? in->labels->apparmor : "");
    out->process.selinux = arena_strdup(&out->arena, in->labels != NULL ? in->labels->selinux : "");
    out->mount_label = arena_strdup(&out->arena, in->labels != NULL ? in->labels->mount : "");
    spec_namespaces(in, out);
    return spec_seccomp(in, out, err) && spec_score(in, out, err);
}

#undef SPEC_DEFAULT_PATH
#undef SPEC_STRING_MAX
