/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/image_volume.h"
#include "agent/spec.h"

#include <linux/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Default mounts, the pod's files, and then the container's own. */
#define SPEC_MOUNTS_DEFAULT 16
/* A container with more mounts than this is a mistake; each costs some tens of microseconds. */
#define SPEC_MOUNTS_MAX 1024

/* Without repeated and trailing slashes; "." and ".." are left to libcrun, which resolves them inside the root. */
char *spec_clean_path(struct arena *arena, const char *path)
{
    char *out = arena_alloc(arena, strlen(path) + 2);
    size_t n = 0;

    for (const char *p = path; *p != '\0';) {
        p += strspn(p, "/");
        size_t length = strcspn(p, "/");
        if (length > 0) {
            out[n++] = '/';
            memcpy(out + n, p, length);
            n += length;
        }
        p += length;
    }
    if (n == 0)
        out[0] = '/';
    return out;
}

static size_t spec_path_parts(const char *path)
{
    size_t parts = 0;

    for (; *path != '\0'; path++)
        parts += *path == '/' && path[1] != '\0';
    return parts;
}

static void spec_mount_option(struct spec_mount *m, const char *option)
{
    for (size_t i = 0; i + 1 < COUNT_OF(m->options); i++)
        if (m->options[i] == NULL) {
            m->options[i] = option;
            return;
        }
}

struct spec_mount *spec_mount_add(struct spec *out, const char *destination, const char *type, const char *source,
                                  const char *options)
{
    struct spec_mount *m = &out->mounts[out->mount_count++];
    char *copy = arena_strdup(&out->arena, options), *save = NULL;

    *m = (struct spec_mount){ .destination = destination, .type = type, .source = source };
    for (char *o = strtok_r(copy, ",", &save); o != NULL; o = strtok_r(NULL, ",", &save))
        spec_mount_option(m, o);
    return m;
}

/* Whether the container brings its own mount for this place, or (for places below /dev) for /dev as a whole. */
static bool spec_is_overridden(const struct spec_input *in, struct arena *arena, const char *destination)
{
    const Runtime__V1__ContainerConfig *c = in->create->config;

    for (size_t i = 0; i < c->n_mounts; i++) {
        const char *path = spec_clean_path(arena, c->mounts[i]->container_path);
        if (strcmp(path, destination) == 0 || (strcmp(path, "/dev") == 0 && str_starts(destination, "/dev/")))
            return true;
    }
    for (size_t i = 0; in->cdi != NULL && i < in->cdi->mount_count; i++)
        if (strcmp(spec_clean_path(arena, in->cdi->mounts[i].container_path), destination) == 0)
            return true;
    return false;
}

static void spec_mount_default(const struct spec_input *in, struct spec *out, const char *destination, const char *type,
                               const char *source, const char *options)
{
    if (!spec_is_overridden(in, &out->arena, destination))
        spec_mount_add(out, destination, type, source, options);
}

/* mount_setattr(2), Linux 5.12: makes a whole tree of mounts read-only. */
bool spec_has_mount_setattr(void)
{
#ifdef SYS_mount_setattr
    return syscall(SYS_mount_setattr, -1, "", 0, NULL, 0) < 0 && errno != ENOSYS;
#else
    return false;
#endif
}

/* The terminals' group, where it exists: gid 5 on every Linux (devpts of the kernel's documentation). */
static bool spec_has_tty_group(const struct spec_input *in)
{
    uint32_t ignored;

    return in->engine->pod.on ? userns_outside(&in->engine->pod.map.gids, 5, &ignored)
                              : !in->facts->isolation->user || in->facts->isolation->gids > 5;
}

/* The machine's, whole, with the cgroups below: in a user namespace they are nobody's to write to. */
static void spec_mount_sys(const struct spec_input *in, struct spec *out)
{
    spec_mount_default(in, out, "/sys", "bind", "/sys", spec_has_mount_setattr() ? "rbind,nosuid,noexec,nodev,rro"
                                                                                 : "rbind,nosuid,noexec,nodev,ro");
}

static void spec_mount_kernel(const struct spec_input *in, struct spec *out)
{
    const struct isolation *is = in->facts->isolation;
    const char *mode = spec_privileged(in->create) ? "rw" : "ro";

    /* In a user namespace /proc can only be mounted afresh for a PID namespace of ours, /sys for a network namespace of
     * ours, /dev/mqueue for an IPC namespace of ours. Else the machine's is shown. */
    if (is->user && !is->pid && !out->new_pid)
        spec_mount_default(in, out, "/proc", "bind", "/proc", "rbind,nosuid,noexec,nodev");
    else
        spec_mount_default(in, out, "/proc", "proc", "proc", "nosuid,noexec,nodev");
    spec_mount_default(in, out, "/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k");
    spec_mount_default(in, out, "/dev/pts", "devpts", "devpts",
                       spec_has_tty_group(in) ? "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"
                                              : "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620");
    if (!is->user || is->ipc)
        spec_mount_default(in, out, "/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev");
    else if (access("/dev/mqueue", F_OK) == 0) /* not every machine mounts it */
        spec_mount_default(in, out, "/dev/mqueue", "bind", "/dev/mqueue", "rbind,nosuid,noexec,nodev");
    if (is->user) {
        spec_mount_sys(in, out);
        return;
    }
    if (in->engine->pod.on && !in->engine->pod.has_network)
        spec_mount_sys(in, out);
    else
        spec_mount_default(in, out, "/sys", "sysfs", "sysfs", arena_printf(&out->arena, "nosuid,noexec,nodev,%s", mode));
    if (in->engine->cgroups.mode != CGROUP_NONE)
        spec_mount_default(in, out, "/sys/fs/cgroup", "cgroup", "cgroup",
                           arena_printf(&out->arena, "nosuid,noexec,nodev,relatime,%s", mode));
}

/* Files that all containers of the pod see. Read-only when the root is. */
static bool spec_mount_pod(const struct spec_input *in, struct spec *out, struct status *err)
{
    static const char *const files[][2] = {
        { "/etc/hostname", "hostname" }, { "/etc/hosts", "hosts" }, { "/etc/resolv.conf", "resolv.conf" }
    };

    for (size_t i = 0; i < COUNT_OF(files); i++) {
        char *source = arena_printf(&out->arena, "%s/%s", in->engine->dir, files[i][1]);
        /* Not there until the pod has been configured. */
        if (access(source, F_OK) < 0)
            continue;
        if (*out->mount_label != '\0' && !lsm_relabel(source, source, out->mount_label, err))
            return false;
        spec_mount_default(in, out, files[i][0], "bind", source, out->readonly_root ? "rbind,rprivate,ro" : "rbind,rprivate,rw");
    }
    const char *shm = in->facts->isolation->host_ipc ? "/dev/shm" : arena_printf(&out->arena, "%s/shm", in->engine->dir);
    if (*out->mount_label != '\0' && !in->facts->isolation->host_ipc && !lsm_relabel(shm, shm, out->mount_label, err))
        return false;
    spec_mount_default(in, out, "/dev/shm", "bind", shm, "rbind,rprivate,rw");
    return true;
}

struct engine_source spec_source(const struct engine_create *c, size_t index)
{
    struct engine_source source = { .path = "", .fd = -1, .create = true };

    if (c->sources != NULL)
        source = c->sources[index];
    if (*source.path == '\0')
        source.path = c->config->mounts[index]->host_path;
    return source;
}

static bool spec_mount_own(const struct spec_input *in, struct spec *out, size_t index, struct status *err)
{
    const Runtime__V1__Mount *m = in->create->config->mounts[index];
    struct engine_source from = spec_source(in->create, index);
    struct buf source cleanup_buf = BUF_INIT;

    if (m->recursive_read_only && !spec_has_mount_setattr())
        return status_set(err, STATUS_FAILED_PRECONDITION, "mounts[%zu].recursive_read_only: needs Linux 5.12", index);
    if (!in->stage(in->arg, index, &from, m->propagation, &source, err))
        return status_prefix(err, "mounts[%zu]", index);
    if (m->selinux_relabel && *out->mount_label != '\0' && !image_volume_wanted(m) &&
        !lsm_relabel(from.path, buf_cstr(&source), out->mount_label, err))
        return status_prefix(err, "mounts[%zu]", index);
    struct spec_mount *to = spec_mount_add(out, spec_clean_path(&out->arena, m->container_path), "bind",
                                           arena_strndup(&out->arena, (const char *)source.p, source.n), "rbind");
    switch (m->propagation) {
    case RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_BIDIRECTIONAL:
        spec_mount_option(to, "rshared");
        out->propagation = "rshared";
        break;
    case RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_HOST_TO_CONTAINER:
        spec_mount_option(to, "rslave");
        if (*out->propagation == '\0')
            out->propagation = "rslave";
        break;
    default:
        spec_mount_option(to, "rprivate");
    }
    spec_mount_option(to, !m->readonly ? "rw" : m->recursive_read_only ? "rro" : "ro");
    for (size_t i = 0; i < m->n_mount_options; i++)
        spec_mount_option(to, arena_strdup(&out->arena, m->mount_options[i]));
    return true;
}

/* Those nearer to the root first, so that none hides another; the order is kept otherwise. */
static void spec_sort_mounts(struct spec_mount *mounts, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        struct spec_mount m = mounts[i];
        size_t parts = spec_path_parts(m.destination), k = i;
        for (; k > 0 && spec_path_parts(mounts[k - 1].destination) > parts; k--)
            mounts[k] = mounts[k - 1];
        mounts[k] = m;
    }
}

bool spec_mounts(const struct spec_input *in, struct spec *out, struct status *err)
{
    const Runtime__V1__LinuxContainerSecurityContext *s = spec_security(in->create);
    const Runtime__V1__ContainerConfig *c = in->create->config;

    if (c->n_mounts > SPEC_MOUNTS_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "mounts: %zu are more than the %d allowed", c->n_mounts, SPEC_MOUNTS_MAX);
    size_t room = SPEC_MOUNTS_DEFAULT + c->n_mounts + (in->cdi != NULL ? in->cdi->mount_count : 0);
    out->mounts = ARENA_ARRAY(&out->arena, struct spec_mount, room);
    out->propagation = "";
    if (s != NULL) {
        out->readonly_root = s->readonly_rootfs;
        /* Without a wish nothing is masked (crictl): as containerd. */
        if (!s->privileged) {
            out->masked = s->masked_paths;
            out->masked_count = s->n_masked_paths;
            out->readonly = s->readonly_paths;
            out->readonly_count = s->n_readonly_paths;
        }
    }
    spec_mount_kernel(in, out);
    size_t kernel = out->mount_count;
    if (!spec_mount_pod(in, out, err))
        return false;
    for (size_t i = 0; i < c->n_mounts; i++)
        if (!spec_mount_own(in, out, i, err))
            return false;
    if (!spec_cdi_mounts(in, out, err))
        return false;
    spec_sort_mounts(out->mounts + kernel, out->mount_count - kernel);
    return true;
}

#undef SPEC_MOUNTS_DEFAULT
#undef SPEC_MOUNTS_MAX
