/* SPDX-License-Identifier: Apache-2.0 */
/*
 * podns.h: a pod's own user namespace (CRI: userns_options with mode POD) and the namespaces that belong to it.
 *
 *   agent             stays in the machine's user namespace, as its root: it mounts, makes devices, signals, clears up
 *     keeper          PID 1 of the pod's PID namespace; in the pod's user, IPC and UTS namespaces; has no files, does nothing
 *     containers      join the keeper's namespaces; their own mount, PID and cgroup namespaces are made inside
 *
 * The pod's root (0 inside) is an unprivileged user of the machine, with full capabilities over what belongs to the pod's user
 * namespace only. The network is the agent's: when its namespace was made inside of a user namespace with the pod's map, the
 * pod uses that one and owns its network; else sysfs cannot be mounted, and the machine's is shown, read-only.
 *
 * Files: an image's layers, and volumes for which the pod says so, are mounted with mapped owners (userns.h).
 */
#ifndef AGENT_PODNS_H
#define AGENT_PODNS_H

#include "base/base.h"
#include "io/userns.h"

#include "cri.pb-c.h"

struct podns {
    bool on;
    struct userns_map map;
    bool has_network; /* the network namespace belongs to it */
    int keeper_fd;    /* of the process, our child; owned, as those below */
    int user_fd, pid_fd, ipc_fd, uts_fd; /* the namespaces */
};
#define PODNS_INIT { .keeper_fd = -1, .user_fd = -1, .pid_fd = -1, .ipc_fd = -1, .uts_fd = -1 }

/* What a pod or container asks for, checked as containerd does: *own is false for the machine's (mode NODE, or nothing said).
 * `field`: where the options are ("linux.security_context.namespace_options"). INVALID_ARGUMENT. No I/O. */
bool podns_parse(const char *field, const Runtime__V1__NamespaceOption *options, struct userns_map *map, bool *own,
                 struct status *err);
/* Whether the rest of a pod's configuration goes with a user namespace of its own. INVALID_ARGUMENT. No I/O. */
bool podns_check_sandbox(const Runtime__V1__PodSandboxConfig *sandbox, struct status *err);
/* A container must want what its pod has. INVALID_ARGUMENT. No I/O. */
bool podns_check_container(const Runtime__V1__PodSandboxConfig *sandbox, const Runtime__V1__NamespaceOption *options,
                           struct status *err);
/* The map of a mount (Mount.uidMappings, gidMappings). INVALID_ARGUMENT. No I/O. */
bool podns_parse_mount(const Runtime__V1__Mount *mount, size_t index, struct userns_map *map, bool *mapped, struct status *err);

/* Whether this process could give a pod whose image lies below `dir` a user namespace: it is root, and overlayfs takes layers
 * with mapped owners there (Linux 5.19). Tries it, in namespaces of its own: some milliseconds. False with the reason. */
bool podns_supported(const char *dir, struct status *err);

/* Makes the namespaces and the keeper. Called again: true when the map is the same. Loop: some milliseconds. As root of the
 * machine. */
bool podns_start(struct podns *p, const struct userns_map *map, struct status *err);
/* Ends the keeper, and what is left in its PID namespace. */
void podns_stop(struct podns *p);
/* Runs a function as the pod's root in its user, IPC and UTS namespaces, in a child process. */
bool podns_run(const struct podns *p, bool (*function)(void *arg, struct status *err), void *arg, struct status *err);
/* The machine's id for one of the pod's; the pod's root for those that it does not have, and the same id where the pod has no
 * user namespace of its own. */
uid_t podns_uid(const struct podns *p, uint32_t inside);
gid_t podns_gid(const struct podns *p, uint32_t inside);

#endif
