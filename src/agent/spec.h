/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spec.h: a CRI ContainerConfig and an image's configuration -> what is to be started: a struct process for every engine, and
 * mounts, devices and an OCI runtime-spec document (config.json) for libcrun.
 *
 *   spec_process.c  command, environment, working directory, user, capabilities, system call filter
 *   spec_mounts.c   /proc, /dev, /sys and the rest, the pod's files, the container's own mounts
 *   spec_devices.c  device nodes and what may be done with them
 *   spec_cdi.c      what CDI devices add to each of these
 *   spec.c          the document
 *
 * Defaults are containerd's, so that a container finds what it would find there.
 */
#ifndef AGENT_SPEC_H
#define AGENT_SPEC_H

#include "agent/cdi.h"
#include "agent/engine_impl.h"
#include "agent/rootfs.h"
#include "agent/process.h"
#include "agent/security.h"

struct spec_mount {
    const char *destination, *type, *source;
    const char *options[16]; /* NULL-terminated */
};

struct spec_device {
    const char *path, *source; /* in the container, on the machine */
    char type; /* 'c' or 'b' */
    int64_t major, minor;
    uint32_t mode, uid, gid;
};

/* More device nodes than any machine's /dev has of use. */
#define SPEC_DEVICES_MAX 512

struct spec {
    struct arena arena; /* owns everything, the process's parts too */
    struct process process;
    struct spec_mount *mounts;
    size_t mount_count;
    struct spec_device *devices;
    size_t device_count;
    struct cgroup_device *rules; /* device nodes that may be used */
    size_t rule_count;
    bool all_devices; /* no restriction */
    const char *mount_label; /* SELinux's, of all its files; "": none */
    const char *propagation; /* of the root: "", "rslave" or "rshared" */
    bool readonly_root;
    bool new_pid;
    const char *pid_path; /* a PID namespace to join; "": none */
    const struct podns *pod; /* whose user, IPC and UTS namespaces to join; borrowed; NULL: none */
    bool new_cgroup;
    char *const *masked, *const *readonly;
    size_t masked_count, readonly_count;
    const struct cdi_hook *hooks; /* borrowed from the input, as what they point to */
    size_t hook_count;
};

struct spec_input {
    const struct engine *engine;
    const struct engine_create *create;
    const struct security_facts *facts;
    const struct rootfs_options *root; /* how it was made */
    int root_fd; /* the container's root */
    const struct lsm_choice *labels; /* NULL: none */
    const struct cdi_edits *cdi; /* what its CDI devices add; NULL: none */
    /* Makes a source (its path is not empty) ready to be mounted and appends where it is then (rootfs_stage). */
    bool (*stage)(void *arg, size_t index, const struct engine_source *source, Runtime__V1__MountPropagation propagation,
                  struct buf *out, struct status *err);
    void *arg;
};

void spec_free(struct spec *s);
#define cleanup_spec __attribute__((cleanup(spec_free)))

/* In this order, and the first one on a spec that is empty but for its arena; `note` collects what is left out with a reason. */
bool spec_process(const struct spec_input *in, struct spec *out, struct buf *note, struct status *err);
bool spec_mounts(const struct spec_input *in, struct spec *out, struct status *err);
bool spec_devices(const struct spec_input *in, struct spec *out, struct status *err);

/* ---- for each other ---- */
/* One more device node; one of the same path is replaced. `field`: for the message when it cannot be. */
bool spec_device_add(const struct spec_input *in, struct spec *out, const char *field, const struct spec_device *device,
                     const char *permissions, struct status *err);
/* options: separated by commas. */
struct spec_mount *spec_mount_add(struct spec *out, const char *destination, const char *type, const char *source,
                                  const char *options);
char *spec_clean_path(struct arena *arena, const char *path);
/* Of config->mounts[index]; its path is not empty. */
struct engine_source spec_source(const struct engine_create *c, size_t index);
/* What the engine cannot apply at all. */
bool spec_cdi_check(const struct spec_input *in, struct status *err);
void spec_cdi_env(const struct spec_input *in, struct spec *out, char **env, size_t *count);
bool spec_cdi_groups(const struct spec_input *in, struct user *user, struct status *err);
bool spec_cdi_mounts(const struct spec_input *in, struct spec *out, struct status *err);
bool spec_cdi_devices(const struct spec_input *in, struct spec *out, struct status *err);
/* A variable of the same name is replaced where it stands. `entry` is "NAME=value", on the arena. */
void spec_env_set(char **env, size_t *count, char *entry);

/* config.json. Environment and arguments that are not UTF-8 are not in it as they are: start takes them from the process. */
void spec_write(const struct spec *s, const char *root_path, struct buf *json);

/* An oom_score_adj as this process and its children may set it: without CAP_SYS_RESOURCE a process may raise its own but not
 * lower it below what it was given. Blocks: worker. */
int32_t spec_clamp_score(int32_t wanted);

/* The container's security context; NULL when there is none. */
const Runtime__V1__LinuxContainerSecurityContext *spec_security(const struct engine_create *c);
const Runtime__V1__LinuxContainerResources *spec_resources(const struct engine_create *c);
bool spec_privileged(const struct engine_create *c);
/* Whether mounts can be made read-only with all below them. */
bool spec_has_mount_setattr(void);

#endif
