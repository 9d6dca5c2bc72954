/* SPDX-License-Identifier: Apache-2.0 */
/* security.h: which of a container's wishes can be honoured here, and its capabilities. What cannot be honoured is refused
 * with the field's path in ContainerConfig at the start of the message; nothing is dropped in silence. */
#ifndef AGENT_SECURITY_H
#define AGENT_SECURITY_H

#include "agent/isolate.h"
#include "agent/podns.h"
#include "agent/user.h"
#include "base/base.h"

#include "cri.pb-c.h"

/* What is to be had on this machine. */
struct security_facts {
    const struct isolation *isolation;
    const struct podns *pod; /* the pod's own user namespace; NULL: it has none */
    bool root;         /* all ids, devices and real capabilities */
    const char *engine; /* its name, for messages */
    bool containers;   /* the engine has namespaces and mounts of ours (crun), or not (apptainer, host) */
    bool own_root;     /* containers have a root file system of their own (crun, apptainer) */
    bool device_rules; /* access to device nodes can be restricted by cgroups */
    bool kept_groups;  /* processes keep supplementary groups of the job's user, for they cannot be given up */
    bool foreign_network; /* the pod is to have a network of its own and uses the machine's, which it would have rights over */
    uint64_t available; /* capabilities of this process, as bits by number */
};
/* Whether the pod asks for the machine's network. */
bool security_host_network(const Runtime__V1__PodSandboxConfig *sandbox);
/* `engine`: its name. */
void security_facts_fill(struct security_facts *f, const struct isolation *isolation, const char *engine, bool root,
                         bool device_rules);

/* Checks every field that has to do with security, namespaces and mounts' options; lsm.h: profiles and labels.
 * FAILED_PRECONDITION, INVALID_ARGUMENT. */
bool security_check(const struct security_facts *f, const Runtime__V1__ContainerConfig *config,
                    const Runtime__V1__PodSandboxConfig *sandbox, struct status *err);
/* Whether a user (already resolved) can be had. Groups that only the image's /etc/group adds and that cannot be had are
 * taken out of it, which the note says. */
bool security_check_user(const struct security_facts *f, const Runtime__V1__ContainerConfig *config, struct user *user,
                         struct buf *note, struct status *err);

/* Whether there is such a group for processes of this job. */
bool security_has_gid(const struct security_facts *f, uint32_t gid);
/* Whether the process, which is the job's own user as root, is left that user's groups, as it is where there is one id only: group
 * folders that a site shares stay within its reach. Then it has no others. `strict`: the pod wants only those that it names. */
bool security_leaves_groups(const struct security_facts *f, struct user *user, bool strict, struct buf *note);

struct security_capabilities {
    uint64_t bounding, permitted, inheritable, ambient;
};
/* The container's sets: the default ones, what is added and dropped, or all for a privileged container. */
bool security_capabilities(const struct security_facts *f, const Runtime__V1__LinuxContainerSecurityContext *security,
                           struct security_capabilities *out, struct buf *note, struct status *err);
/* "CAP_CHOWN"; NULL past the last one. */
const char *security_capability_name(unsigned number);

/* A seccomp profile: the default one is 15 KB as JSON. */
#define SECURITY_SECCOMP_PROFILE_MAX (1u << 20)
/* Which filter a container asks for. */
enum security_seccomp { SECURITY_SECCOMP_NONE, SECURITY_SECCOMP_DEFAULT, SECURITY_SECCOMP_FILE };
/* *path: of the profile, for SECURITY_SECCOMP_FILE; borrowed. */
bool security_seccomp(const Runtime__V1__LinuxContainerSecurityContext *security, enum security_seccomp *kind,
                      const char **path, struct status *err);

#endif
