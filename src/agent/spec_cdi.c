/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/spec.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Options of a mount as libcrun takes them; those with a value are tmpfs's. */
#define SPEC_CDI_OPTIONS_MAX 12
static const char *const spec_cdi_options[] = {
    "ro",       "rw",      "bind",    "rbind",      "nosuid",   "suid",       "nodev",       "dev",
    "noexec",   "exec",    "private", "rprivate",   "slave",    "rslave",     "shared",      "rshared",
    "relatime", "noatime", "nodiratime", "strictatime", "norelatime", "sync", "dirsync",
};

bool spec_cdi_check(const struct spec_input *in, struct status *err)
{
    size_t count = in->cdi != NULL ? in->cdi->hook_count : 0;

    for (size_t i = 0; i < count; i++) {
        const struct cdi_hook *hook = &in->cdi->hooks[i];
        if (!in->facts->containers)
            return status_set(err, STATUS_FAILED_PRECONDITION, "CDI_devices: hook %s %.200s: the %s engine runs no hooks", hook->name,
                              hook->path, in->facts->engine);
        if (in->engine->pod.on)
            return status_set(err, STATUS_FAILED_PRECONDITION,
                              "CDI_devices: hook %s %.200s: hooks are not run for a pod with a user namespace of its own", hook->name,
                              hook->path);
        if (str_starts(hook->name, "post"))
            return status_set(err, STATUS_FAILED_PRECONDITION, "CDI_devices: hook %s %.200s: hooks after the start are not run",
                              hook->name, hook->path);
    }
    return true;
}

void spec_cdi_env(const struct spec_input *in, struct spec *out, char **env, size_t *count)
{
    for (size_t i = 0; in->cdi != NULL && i < in->cdi->env_count; i++)
        spec_env_set(env, count, arena_strdup(&out->arena, in->cdi->env[i]));
}

bool spec_cdi_groups(const struct spec_input *in, struct user *user, struct status *err)
{
    for (size_t i = 0; in->cdi != NULL && i < in->cdi->gid_count; i++) {
        uint32_t gid = in->cdi->gids[i];
        if (!security_has_gid(in->facts, gid))
            return status_set(err, STATUS_FAILED_PRECONDITION,
                              "CDI_devices: additionalGids: gid %u cannot be mapped: this job runs without root", gid);
        if (!user_add_group(user, gid, err))
            return status_prefix(err, "CDI_devices: additionalGids");
    }
    return true;
}

/* ---- mounts ---- */

static bool spec_cdi_option(const struct cdi_mount *m, const char *option, bool is_tmpfs, struct status *err)
{
    for (size_t i = 0; i < COUNT_OF(spec_cdi_options); i++)
        if (strcmp(option, spec_cdi_options[i]) == 0)
            return true;
    return (is_tmpfs && (str_starts(option, "size=") || str_starts(option, "mode="))) ||
           status_set(err, STATUS_FAILED_PRECONDITION, "CDI_devices: mount %.200s: the option \"%.60s\" cannot be applied",
                      m->container_path, option);
}

static bool spec_cdi_has_option(const struct cdi_mount *m, const char *option)
{
    for (size_t i = 0; i < m->option_count; i++)
        if (strcmp(m->options[i], option) == 0)
            return true;
    return false;
}

static Runtime__V1__MountPropagation spec_cdi_propagation(const struct cdi_mount *m)
{
    if (spec_cdi_has_option(m, "shared") || spec_cdi_has_option(m, "rshared"))
        return RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_BIDIRECTIONAL;
    if (spec_cdi_has_option(m, "slave") || spec_cdi_has_option(m, "rslave"))
        return RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_HOST_TO_CONTAINER;
    return RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_PRIVATE;
}

/* Where the mount comes from, appended to `source`; "rbind" unless something else is said. */
static bool spec_cdi_source(const struct spec_input *in, const struct cdi_mount *m, size_t index, bool is_tmpfs,
                            struct buf *source, struct status *err)
{
    if (is_tmpfs) {
        buf_append_str(source, "tmpfs");
        return true;
    }
    return in->stage(in->arg, index, &(struct engine_source){ .path = m->host_path, .fd = -1 }, spec_cdi_propagation(m), source, err) ||
           status_prefix(err, "CDI_devices: mount %.200s", m->container_path);
}

static bool spec_cdi_mount(const struct spec_input *in, struct spec *out, const struct cdi_mount *m, size_t index,
                           struct status *err)
{
    bool is_tmpfs = strcmp(m->type, "tmpfs") == 0;
    struct buf source cleanup_buf = BUF_INIT, options cleanup_buf = BUF_INIT;

    if (*m->type != '\0' && strcmp(m->type, "bind") != 0 && strcmp(m->type, "none") != 0 && !is_tmpfs)
        return status_set(err, STATUS_FAILED_PRECONDITION, "CDI_devices: mount %.200s: the type \"%.40s\" cannot be mounted",
                          m->container_path, m->type);
    if (m->option_count > SPEC_CDI_OPTIONS_MAX)
        return status_set(err, STATUS_FAILED_PRECONDITION, "CDI_devices: mount %.200s: more than %d options", m->container_path,
                          SPEC_CDI_OPTIONS_MAX);
    buf_append_str(&options, is_tmpfs || spec_cdi_has_option(m, "bind") ? "" : "rbind");
    for (size_t i = 0; i < m->option_count; i++) {
        if (!spec_cdi_option(m, m->options[i], is_tmpfs, err))
            return false;
        buf_printf(&options, ",%s", m->options[i]);
    }
    if (!spec_cdi_source(in, m, index, is_tmpfs, &source, err))
        return false;
    if (spec_cdi_propagation(m) == RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_BIDIRECTIONAL)
        out->propagation = "rshared";
    else if (spec_cdi_propagation(m) != RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_PRIVATE && *out->propagation == '\0')
        out->propagation = "rslave";
    char *destination = spec_clean_path(&out->arena, m->container_path);
    for (size_t i = 0; i < out->mount_count; i++)
        if (strcmp(out->mounts[i].destination, destination) == 0) {
            memmove(&out->mounts[i], &out->mounts[i + 1], (--out->mount_count - i) * sizeof *out->mounts);
            i--;
        }
    spec_mount_add(out, destination, is_tmpfs ? "tmpfs" : "bind", arena_strdup(&out->arena, buf_cstr(&source)), buf_cstr(&options));
    return true;
}

bool spec_cdi_mounts(const struct spec_input *in, struct spec *out, struct status *err)
{
    /* After the container's own. */
    size_t first = in->create->config->n_mounts;

    for (size_t i = 0; in->cdi != NULL && i < in->cdi->mount_count; i++)
        if (!spec_cdi_mount(in, out, &in->cdi->mounts[i], first + i, err))
            return false;
    if (in->cdi != NULL) {
        out->hooks = in->cdi->hooks;
        out->hook_count = in->cdi->hook_count;
    }
    return true;
}

/* ---- device nodes ---- */

static bool spec_cdi_node(const struct spec_input *in, struct spec *out, const struct cdi_node *n, struct status *err)
{
    const struct user *user = &out->process.user;
    struct stat st = { .st_mode = 0 };
    bool known = n->has_numbers && n->type != 0, there = stat(n->host_path, &st) == 0;

    if (n->type == 'p')
        return status_set(err, STATUS_FAILED_PRECONDITION, "CDI_devices: %.200s: named pipes cannot be made", n->path);
    /* In a user namespace the node itself is mounted. */
    if (!there && (!known || in->facts->isolation->user))
        return status_set(err, STATUS_FAILED_PRECONDITION, "CDI_devices: %.200s: %s on this machine", n->host_path, strerror(errno));
    char type = S_ISBLK(st.st_mode) ? 'b' : S_ISCHR(st.st_mode) ? 'c' : '\0';
    if (there && (type == '\0' || (n->type != 0 && n->type != type)))
        return status_set(err, STATUS_FAILED_PRECONDITION, "CDI_devices: %.200s is not a %s device on this machine", n->host_path,
                          n->type == 'b' ? "block" : n->type == 'c' ? "character" : "block or character");
    struct spec_device device = { .path = n->path,
                                  .source = n->host_path,
                                  .type = n->type != 0 ? n->type : type,
                                  .major = n->has_numbers ? n->major : (int64_t)major(st.st_rdev),
                                  .minor = n->has_numbers ? n->minor : (int64_t)minor(st.st_rdev),
                                  .mode = n->has_mode ? n->mode : there ? st.st_mode & 07777 : 0666,
                                  /* The container's user is to use it. */
                                  .uid = n->has_uid ? n->uid : user->uid,
                                  .gid = n->has_gid ? n->gid : user->gid };
    return spec_device_add(in, out, "CDI_devices", &device, n->permissions, err);
}

bool spec_cdi_devices(const struct spec_input *in, struct spec *out, struct status *err)
{
    for (size_t i = 0; in->cdi != NULL && i < in->cdi->node_count; i++)
        if (!spec_cdi_node(in, out, &in->cdi->nodes[i], err))
            return false;
    return true;
}

#undef SPEC_CDI_OPTIONS_MAX
