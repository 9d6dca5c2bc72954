/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cdi.h: the Container Device Interface (github.com/cncf-tags/container-device-interface, SPEC.md, up to 1.1.0): a device has a
 * name, "vendor.com/class=name", and files on the machine where the container runs say what it consists of: device nodes,
 * mounts, variables, hooks, groups.
 *
 *   cdi_spec.c  one file -> what it says
 *   cdi.c       a container's names -> the edits that the files give them
 *
 * The names come from ContainerConfig.CDI_devices and from annotations cdi.k8s.io/ANYTHING (older kubelets), each a list with
 * commas. Of two files the one in the later folder counts; two in one folder that name the same device are an error once it is
 * asked for. A file that makes no sense spoils nothing but what it says itself.
 */
#ifndef AGENT_CDI_H
#define AGENT_CDI_H

#include "base/base.h"

#include "cri.pb-c.h"

struct cdi_node {
    const char *path, *host_path;
    const char *permissions; /* of "rwm"; "": none */
    char type;               /* 'b', 'c' or 'p' (a named pipe); 0: that of host_path */
    bool has_numbers;        /* else those of host_path */
    bool has_mode, has_uid, has_gid;
    int64_t major, minor;
    uint32_t mode, uid, gid;
};
struct cdi_mount {
    const char *host_path, *container_path;
    const char *type; /* "": a bind mount */
    const char **options;
    size_t option_count;
};
struct cdi_hook {
    const char *name, *path; /* "createContainer"... */
    const char **args, **env;
    size_t arg_count, env_count;
    int64_t timeout_s; /* 0: none */
};

/* What is to be added to a container. Everything lives on the arena it was read with. */
struct cdi_edits {
    const char **env; /* "NAME=value" */
    struct cdi_node *nodes;
    struct cdi_mount *mounts;
    struct cdi_hook *hooks;
    uint32_t *gids;
    size_t env_count, node_count, mount_count, hook_count, gid_count;
    const char *refused; /* the name of something that no engine here applies: "intelRdt", "netDevices"; NULL */
};

/* ---- one file ---- */
struct cdi_device {
    const char *name;
    struct cdi_edits edits;
};
struct cdi_spec {
    const char *kind;       /* "vendor.com/class" */
    struct cdi_edits edits; /* once, when any of the devices is used */
    struct cdi_device *devices;
    size_t device_count;
};
/* JSON or YAML. INVALID_ARGUMENT names the place; a field that is not known is an error, as in the reference. */
bool cdi_spec_read(struct arena *arena, struct str text, bool is_json, struct cdi_spec *out, struct status *err);
/* Appends what `from` holds; the parts stay where they are. */
void cdi_edits_add(struct arena *arena, struct cdi_edits *to, const struct cdi_edits *from);
/* Whether `name` is "vendor.com/class=name"; `kind_length`: up to the equals sign. */
bool cdi_name_split(const char *name, size_t *kind_length);

/* ---- a container ---- */
/* /etc/cdi and /var/run/cdi; NULL-terminated. */
extern const char *const cdi_default_dirs[];
/* Whether it names any device at all. */
bool cdi_wanted(const Runtime__V1__ContainerConfig *config);
/* FAILED_PRECONDITION for a device that no file has, or that cannot be given; the message starts with the field. Reads files:
 * for workers. */
bool cdi_collect(const Runtime__V1__ContainerConfig *config, const char *const *dirs, struct arena *arena, struct cdi_edits *out,
                 struct status *err);

#endif
