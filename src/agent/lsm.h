/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lsm.h: profiles of AppArmor and labels of SELinux.
 *
 * Which module is on is read from the kernel. That a profile is loaded or a label is valid is tried when a container is created:
 * a process of ours writes it where the kernel takes it for the next exec (/proc/self/attr/exec), and ends. libcrun does the same for a
 * container's first process, launch.c for others.
 *
 * AppArmor  Localhost: that profile. RuntimeDefault, or nothing said: interlink-cri-default, which root loads by apparmor_parser
 *           where it is installed; else no profile, as containerd does it. Off: Localhost is refused.
 * SELinux   the policy's labels for containers (contexts/lxc_contexts) with what the pod says in their place, and two categories that
 *           follow from the pod's uid, so that its containers share them. Without root only when the pod says something: an ordinary
 *           user's files do not have labels that such a process may read. Off: what the pod says means nothing, which a note says.
 */
#ifndef AGENT_LSM_H
#define AGENT_LSM_H

#include "base/base.h"

#include "cri.pb-c.h"

struct lsm {
    const char *root; /* "": that of the machine; else a folder that stands for it, in tests */
    bool apparmor, selinux; /* on */
};
void lsm_open(struct lsm *l, const char *root);

/* For one container; "" for none. On the arena. */
struct lsm_choice {
    const char *apparmor; /* profile */
    const char *selinux;  /* of its processes */
    const char *mount;    /* of its files */
};
/* `root`: whether we are the machine's. FAILED_PRECONDITION, INVALID_ARGUMENT; `note`: what is left out. Worker. */
bool lsm_choose(const struct lsm *l, const Runtime__V1__ContainerConfig *config, const Runtime__V1__PodSandboxConfig *sandbox, bool root,
                struct arena *arena, struct lsm_choice *out, struct buf *note, struct status *err);

/* For the calling process's next exec. False with errno. Only system calls: it may follow a fork. */
bool lsm_set_exec(const struct lsm *l, const char *apparmor, const char *selinux);

/* Gives a file, or a folder and all in it, this label; links are not followed, other mounts below are not entered. What is the system's
 * own ("/usr", "/etc"...) is refused. */
bool lsm_relabel(const char *host_path, const char *path, const char *label, struct status *err);

#endif
