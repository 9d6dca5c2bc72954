/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/spec.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Device folders (/dev/infiniband, /dev/dri) are shallow. */
#define SPEC_DEVICE_DEPTH_MAX 4

static void spec_device_rule(struct spec *out, const struct cgroup_device *rule)
{
    if (out->rule_count < 2 * SPEC_DEVICES_MAX)
        out->rules[out->rule_count++] = *rule;
}

bool spec_device_add(const struct spec_input *in, struct spec *out, const char *field, const struct spec_device *device,
                     const char *permissions, struct status *err)
{
    struct cgroup_device rule = { .type = device->type,
                                  .major = device->major,
                                  .minor = device->minor,
                                  .read = strchr(permissions, 'r') != NULL,
                                  .write = strchr(permissions, 'w') != NULL,
                                  .mknod = strchr(permissions, 'm') != NULL };
    size_t at = 0;

    /* Without rules whoever may open a node may do with it what its mode says. (To make nodes is withheld then.) */
    if ((!rule.read || !rule.write) && !(in->facts->device_rules && in->facts->root))
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "%s: %.200s: permissions \"%.10s\" cannot be enforced, for cgroups cannot restrict devices here", field,
                          device->source, permissions);
    while (at < out->device_count && strcmp(out->devices[at].path, device->path) != 0)
        at++;
    if (at == SPEC_DEVICES_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: more than %d device nodes", field, SPEC_DEVICES_MAX);
    out->device_count += at == out->device_count;
    out->devices[at] = *device;
    out->devices[at].path = arena_strdup(&out->arena, device->path);
    out->devices[at].source = arena_strdup(&out->arena, device->source);
    spec_device_rule(out, &rule);
    return true;
}

static bool spec_device_add_node(const struct spec_input *in, struct spec *out, const char *field, const char *source,
                                 const char *path, const struct stat *st, const char *permissions, struct status *err)
{
    struct spec_device device = { .path = path,
                                  .source = source,
                                  .type = S_ISBLK(st->st_mode) ? 'b' : 'c',
                                  .major = (int64_t)major(st->st_rdev),
                                  .minor = (int64_t)minor(st->st_rdev),
                                  .mode = st->st_mode & 07777,
                                  .uid = st->st_uid,
                                  .gid = st->st_gid };

    return spec_device_add(in, out, field, &device, permissions, err);
}

/* A device node, or a folder of them. */
static bool spec_device_path(const struct spec_input *in, struct spec *out, const char *field, const char *host_path,
                             const char *container_path, const char *permissions, int depth, struct status *err)
{
    struct stat st;

    if (stat(host_path, &st) < 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s: %.200s: %s on this machine", field, host_path, strerror(errno));
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
        return spec_device_add_node(in, out, field, host_path, container_path, &st, permissions, err);
    if (!S_ISDIR(st.st_mode) || depth == SPEC_DEVICE_DEPTH_MAX)
        return depth > 0 || status_set(err, STATUS_FAILED_PRECONDITION, "%s: %.200s is not a device", field, host_path);
    DIR *dir = opendir(host_path);
    struct dirent *entry;
    bool ok = dir != NULL || status_errno(err, "%s: %.200s", field, host_path);
    while (ok && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        cleanup_free char *from = xasprintf("%s/%s", host_path, entry->d_name);
        cleanup_free char *to = xasprintf("%s/%s", container_path, entry->d_name);
        ok = spec_device_path(in, out, field, from, to, permissions, depth + 1, err);
    }
    if (dir != NULL)
        closedir(dir);
    return ok;
}

/* Every node of the machine's /dev, for a privileged container. What comes and goes meanwhile is skipped. */
static bool spec_device_all(const struct spec_input *in, struct spec *out, const char *dir_path, int depth, struct status *err)
{
    /* Mounts of their own in a container, or links of the machine's. */
    static const char *const skipped[] = { "pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console" };
    DIR *dir = depth < SPEC_DEVICE_DEPTH_MAX ? opendir(dir_path) : NULL;
    struct dirent *entry;
    bool ok = true;

    while (ok && dir != NULL && (entry = readdir(dir)) != NULL) {
        struct stat st;
        bool skip = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
        for (size_t i = 0; i < COUNT_OF(skipped); i++)
            skip = skip || strcmp(entry->d_name, skipped[i]) == 0;
        cleanup_free char *path = xasprintf("%s/%s", dir_path, entry->d_name);
        if (skip || lstat(path, &st) < 0)
            continue;
        if (S_ISDIR(st.st_mode))
            ok = spec_device_all(in, out, path, depth + 1, err);
        else if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
            ok = spec_device_add_node(in, out, "linux.security_context.privileged", path, path, &st, "rwm", err);
    }
    if (dir != NULL)
        closedir(dir);
    return ok;
}

/* In a user namespace device nodes cannot be made: the machine's are mounted, under the container's names. */
static void spec_device_mounts(struct spec *out)
{
    struct spec_mount *mounts = ARENA_ARRAY(&out->arena, struct spec_mount, out->mount_count + out->device_count);

    if (out->mount_count > 0)
        memcpy(mounts, out->mounts, out->mount_count * sizeof *mounts);
    for (size_t i = 0; i < out->device_count; i++)
        mounts[out->mount_count++] = (struct spec_mount){ .destination = out->devices[i].path,
                                                          .type = "bind",
                                                          .source = out->devices[i].source,
                                                          .options = { "bind", "nosuid", "noexec" } };
    out->mounts = mounts;
    out->device_count = 0;
}

bool spec_devices(const struct spec_input *in, struct spec *out, struct status *err)
{
    /* What every container may use: making any node (but not opening it), and the nodes that are always there. */
    static const struct cgroup_device always[] = {
        { 'c', -1, -1, false, false, true }, { 'b', -1, -1, false, false, true },
        { 'c', 1, 3, true, true, true },   /* null */
        { 'c', 1, 5, true, true, true },   /* zero */
        { 'c', 1, 7, true, true, true },   /* full */
        { 'c', 1, 8, true, true, true },   /* random */
        { 'c', 1, 9, true, true, true },   /* urandom */
        { 'c', 5, 0, true, true, true },   /* tty */
        { 'c', 5, 2, true, true, true },   /* ptmx */
        { 'c', 136, -1, true, true, true } /* pts */
    };
    const Runtime__V1__ContainerConfig *c = in->create->config;

    out->devices = ARENA_ARRAY(&out->arena, struct spec_device, SPEC_DEVICES_MAX);
    out->rules = ARENA_ARRAY(&out->arena, struct cgroup_device, 2 * SPEC_DEVICES_MAX);
    for (size_t i = 0; i < COUNT_OF(always); i++)
        spec_device_rule(out, &always[i]);
    out->all_devices = spec_privileged(in->create);
    if (out->all_devices && !spec_device_all(in, out, "/dev", 0, err))
        return false;
    for (size_t i = 0; i < c->n_devices; i++) {
        const Runtime__V1__Device *d = c->devices[i];
        char field[48];
        snprintf(field, sizeof field, "devices[%zu].host_path", i);
        if (d->container_path[0] != '/' || d->host_path[0] != '/')
            return status_set(err, STATUS_INVALID_ARGUMENT, "devices[%zu]: host_path and container_path must be absolute", i);
        if (strspn(d->permissions, "rwm") != strlen(d->permissions))
            return status_set(err, STATUS_INVALID_ARGUMENT, "devices[%zu].permissions: \"%.20s\" is not of r, w and m", i,
                              d->permissions);
        if (!spec_device_path(in, out, field, d->host_path, d->container_path, *d->permissions != '\0' ? d->permissions : "rwm", 0, err))
            return false;
    }
    if (!spec_cdi_devices(in, out, err))
        return false;
    if (in->facts->isolation->user)
        spec_device_mounts(out);
    return true;
}

#undef SPEC_DEVICE_DEPTH_MAX
