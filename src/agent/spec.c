/* SPDX-License-Identifier: Apache-2.0 */
/* The OCI document: https://github.com/opencontainers/runtime-spec, config.md and config-linux.md, 1.0.2. */
#include "agent/spec.h"

#include "text/json.h"

#include <linux/seccomp.h>

#ifndef SECCOMP_FILTER_FLAG_LOG
#define SECCOMP_FILTER_FLAG_LOG 2u
#endif

void spec_free(struct spec *s)
{
    arena_free(&s->arena);
}

static void spec_write_strings(struct json_writer *w, const char *key, char *const *strings, size_t count)
{
    json_write_member_array(w, key);
    for (size_t i = 0; i < count; i++)
        json_write_string(w, strings[i]);
    json_write_end(w);
}

static void spec_write_capabilities(struct json_writer *w, const char *key, uint64_t bits)
{
    const char *name;

    json_write_member_array(w, key);
    for (unsigned i = 0; (name = security_capability_name(i)) != NULL; i++)
        if ((bits & 1ull << i) != 0)
            json_write_string(w, name);
    json_write_end(w);
}

static void spec_write_process(struct json_writer *w, const struct process *p)
{
    size_t argc = 0;

    while (p->argv[argc] != NULL)
        argc++;
    json_write_member_object(w, "process");
    json_write_member_bool(w, "terminal", p->tty);
    json_write_member_object(w, "user");
    json_write_member_i64(w, "uid", p->user.uid);
    json_write_member_i64(w, "gid", p->user.gid);
    json_write_member_array(w, "additionalGids");
    for (size_t i = 0; i < p->user.group_count; i++)
        json_write_i64(w, p->user.groups[i]);
    json_write_end(w);
    json_write_end(w);
    spec_write_strings(w, "args", p->argv, argc);
    json_write_member_string(w, "cwd", p->cwd);
    json_write_member_object(w, "capabilities");
    spec_write_capabilities(w, "bounding", p->bounding);
    spec_write_capabilities(w, "effective", p->permitted);
    spec_write_capabilities(w, "permitted", p->permitted);
    spec_write_capabilities(w, "inheritable", p->inheritable);
    spec_write_capabilities(w, "ambient", p->ambient);
    json_write_end(w);
    json_write_member_bool(w, "noNewPrivileges", p->no_new_privs);
    if (*p->apparmor != '\0')
        json_write_member_string(w, "apparmorProfile", p->apparmor);
    if (*p->selinux != '\0')
        json_write_member_string(w, "selinuxLabel", p->selinux);
    if (p->has_oom_score_adj)
        json_write_member_i64(w, "oomScoreAdj", p->oom_score_adj);
    json_write_end(w);
}

static void spec_write_mounts(struct json_writer *w, const struct spec *s)
{
    json_write_member_array(w, "mounts");
    for (size_t i = 0; i < s->mount_count; i++) {
        const struct spec_mount *m = &s->mounts[i];
        json_write_object(w);
        json_write_member_string(w, "destination", m->destination);
        json_write_member_string(w, "type", m->type);
        json_write_member_string(w, "source", m->source);
        json_write_member_array(w, "options");
        for (size_t k = 0; m->options[k] != NULL; k++)
            json_write_string(w, m->options[k]);
        json_write_end(w);
        json_write_end(w);
    }
    json_write_end(w);
}

static void spec_write_namespace(struct json_writer *w, const char *type, const char *path)
{
    json_write_object(w);
    json_write_member_string(w, "type", type);
    if (*path != '\0')
        json_write_member_string(w, "path", path);
    json_write_end(w);
}

static void spec_write_ids(struct json_writer *w, const char *key, const struct userns_ids *ids)
{
    json_write_member_array(w, key);
    for (size_t i = 0; i < ids->count; i++) {
        json_write_object(w);
        json_write_member_i64(w, "containerID", ids->ranges[i].inside);
        json_write_member_i64(w, "hostID", ids->ranges[i].outside);
        json_write_member_i64(w, "size", ids->ranges[i].count);
        json_write_end(w);
    }
    json_write_end(w);
}

/* By descriptor: libcrun is called in a copy of the agent. */
static void spec_write_pod_namespaces(struct json_writer *w, const struct podns *pod)
{
    char path[48];

    snprintf(path, sizeof path, "/proc/self/fd/%d", pod->user_fd);
    spec_write_namespace(w, "user", path);
    snprintf(path, sizeof path, "/proc/self/fd/%d", pod->ipc_fd);
    spec_write_namespace(w, "ipc", path);
    snprintf(path, sizeof path, "/proc/self/fd/%d", pod->uts_fd);
    spec_write_namespace(w, "uts", path);
}

static void spec_write_devices(struct json_writer *w, const struct spec *s)
{
    json_write_member_array(w, "devices");
    for (size_t i = 0; i < s->device_count; i++) {
        const struct spec_device *d = &s->devices[i];
        const char type[2] = { d->type, '\0' };
        json_write_object(w);
        json_write_member_string(w, "path", d->path);
        json_write_member_string(w, "type", type);
        json_write_member_i64(w, "major", d->major);
        json_write_member_i64(w, "minor", d->minor);
        json_write_member_i64(w, "fileMode", d->mode);
        json_write_member_i64(w, "uid", d->uid);
        json_write_member_i64(w, "gid", d->gid);
        json_write_end(w);
    }
    json_write_end(w);
}

/* The filter travels compiled, in an annotation of libcrun's; the usual section then only carries flags. */
static void spec_write_seccomp_flags(struct json_writer *w, const struct process *p)
{
    if (p->seccomp == NULL || p->seccomp_flags == SECCOMP_FILTER_FLAG_SPEC_ALLOW)
        return;
    json_write_member_object(w, "seccomp");
    json_write_member_string(w, "defaultAction", "SCMP_ACT_ALLOW");
    json_write_member_array(w, "flags");
    if (p->seccomp_flags & SECCOMP_FILTER_FLAG_LOG)
        json_write_string(w, "SECCOMP_FILTER_FLAG_LOG");
    if (p->seccomp_flags & SECCOMP_FILTER_FLAG_SPEC_ALLOW)
        json_write_string(w, "SECCOMP_FILTER_FLAG_SPEC_ALLOW");
    json_write_end(w);
    json_write_end(w);
}

static void spec_write_annotations(struct json_writer *w, const struct process *p)
{
    struct buf text cleanup_buf = BUF_INIT;

    json_write_member_object(w, "annotations");
    if (p->seccomp != NULL) {
        base64_append(&text, p->seccomp, p->seccomp_size, false);
        json_write_member_string(w, "run.oci.seccomp_bpf_data", buf_cstr(&text));
    }
    if (p->keep_groups)
        json_write_member_string(w, "run.oci.keep_original_groups", "1");
    json_write_end(w);
}

static void spec_write_hook(struct json_writer *w, const struct cdi_hook *h)
{
    json_write_object(w);
    json_write_member_string(w, "path", h->path);
    if (h->arg_count > 0)
        spec_write_strings(w, "args", (char *const *)(uintptr_t)h->args, h->arg_count);
    /* Always a list: without one a hook would get the agent's environment. */
    json_write_member_array(w, "env");
    json_write_string(w, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    for (size_t i = 0; i < h->env_count; i++)
        json_write_string(w, h->env[i]);
    json_write_end(w);
    if (h->timeout_s > 0)
        json_write_member_i64(w, "timeout", h->timeout_s);
    json_write_end(w);
}

static void spec_write_hooks(struct json_writer *w, const struct spec *s)
{
    json_write_member_object(w, "hooks");
    for (size_t i = 0; i < s->hook_count; i++) {
        const char *name = s->hooks[i].name;
        bool written = false;
        for (size_t k = 0; k < i && !written; k++)
            written = strcmp(s->hooks[k].name, name) == 0;
        if (written)
            continue;
        json_write_member_array(w, name);
        for (size_t k = i; k < s->hook_count; k++)
            if (strcmp(s->hooks[k].name, name) == 0)
                spec_write_hook(w, &s->hooks[k]);
        json_write_end(w);
    }
    json_write_end(w);
}

void spec_write(const struct spec *s, const char *root_path, struct buf *json)
{
    struct json_writer w;

    json_writer_init(&w, json, 0);
    json_write_object(&w);
    json_write_member_string(&w, "ociVersion", "1.0.2");
    spec_write_process(&w, &s->process);
    json_write_member_object(&w, "root");
    json_write_member_string(&w, "path", root_path);
    json_write_member_bool(&w, "readonly", s->readonly_root);
    json_write_end(&w);
    spec_write_mounts(&w, s);
    if (s->process.seccomp != NULL || s->process.keep_groups)
        spec_write_annotations(&w, &s->process);
    if (s->hook_count > 0)
        spec_write_hooks(&w, s);
    json_write_member_object(&w, "linux");
    if (s->pod != NULL) {
        spec_write_ids(&w, "uidMappings", &s->pod->map.uids);
        spec_write_ids(&w, "gidMappings", &s->pod->map.gids);
    }
    json_write_member_array(&w, "namespaces");
    if (s->pod != NULL)
        spec_write_pod_namespaces(&w, s->pod);
    spec_write_namespace(&w, "mount", "");
    if (s->new_pid || *s->pid_path != '\0')
        spec_write_namespace(&w, "pid", s->pid_path);
    if (s->new_cgroup)
        spec_write_namespace(&w, "cgroup", "");
    json_write_end(&w);
    if (s->device_count > 0)
        spec_write_devices(&w, s);
    if (*s->mount_label != '\0')
        json_write_member_string(&w, "mountLabel", s->mount_label);
    if (*s->propagation != '\0')
        json_write_member_string(&w, "rootfsPropagation", s->propagation);
    spec_write_strings(&w, "maskedPaths", s->masked, s->masked_count);
    spec_write_strings(&w, "readonlyPaths", s->readonly, s->readonly_count);
    spec_write_seccomp_flags(&w, &s->process);
    json_write_end(&w);
    json_write_end(&w);
}
