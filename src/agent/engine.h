/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.h: what makes containers inside a job. One table of functions an engine:
 *
 *   crun   libcrun, linked in: namespaces, overlayfs, cgroups where the job has them; as root or not
 *   apptainer  the site's own, where we may make no namespaces: no privileges, one user
 *   inside     none: the agent is in the container already, as its command, and what it starts are its children
 *   host   no image: the command runs on the machine's own files; only when the configuration allows it
 *
 * Where each call may run is said with it: "loop" (it never blocks for long) or "worker" (in a forked copy of the agent,
 * io/child.h). A worker's process IS the parent of what start and exec begin; when it ends, the kernel hands the new
 * process to the agent (PID 1 or subreaper), which reaps it. So it may already have ended when the worker's answer is
 * read: keep the statuses of unknown orphans until no start or exec is under way.
 *
 * An engine keeps nothing in memory about containers: all is in the container's bundle directory and in the kernel, so
 * that calls in different workers agree.
 *
 * Life of a container:   create -> start -> (exec | signal)* -> remove
 */
#ifndef AGENT_ENGINE_H
#define AGENT_ENGINE_H

#include "agent/isolate.h"
#include "base/base.h"

#include "agent.pb-c.h"
#include "cri.pb-c.h"

struct image_config; /* image/config.h */

struct engine_options {
    const char *wanted;     /* "", "auto", "crun", "apptainer" or "host" */
    const char *apptainer;  /* its path, or a name for $PATH; NULL or "": apptainer or singularity from $PATH */
    bool allow_host;        /* the configuration allows the host engine to be picked by "auto" */
    const char *job_dir;    /* absolute, mode 0700 */
    const char *work_dir;   /* likewise; the engine keeps its own things in <work_dir>/engine; NULL: job_dir */
    const char *sandbox_id; /* 64 hex digits */
    const char *cgroup_parent; /* of the pod, an absolute cgroup path; "": /interlink-cri/<sandbox_id> */
    const char *cdi_dirs;      /* where CDI's files are, separated by colons; "": its standard folders */
    struct isolation isolation;
    const char *images; /* engine_probe only: a folder where images are; NULL or "": not known */
};

struct engine;

/* What `reason` may hold: why this engine, and why none of those before it. */
#define ENGINE_REASON_SIZE 768
/* Picks and sets up the engine: makes <work_dir>/engine, the pod's /dev/shm and, where it may, its cgroup. `reason`
 * says why this one ("namespaces as root", "apptainer version 1.4.5 in /usr/bin; not crun: mount namespace: Operation not
 * permitted"). Before the loop; a few system calls, and a few milliseconds of apptainer's when that is asked.
 * NULL when nothing can be used: FAILED_PRECONDITION that names what is missing. The caller frees with engine_free. */
struct engine *engine_new(const struct engine_options *options, char reason[ENGINE_REASON_SIZE], struct status *err);
/* Removes the pod's cgroup, mounts and <work_dir>/engine; containers must be gone. NULL is fine. Loop. */
void engine_free(struct engine *engine);

const char *engine_name(const struct engine *engine);   /* "crun", "apptainer", "host" */
const char *engine_cgroups(const struct engine *engine); /* "v1", "v2", "hybrid", or "none": no limits are applied */
bool engine_rootless(const struct engine *engine);
void engine_features(const struct engine *engine, Interlink__Agent__V1__Features *out);
/* What engine_new would pick and what that can do, without making anything. `reason`: as there. NULL: no engine. */
const char *engine_probe(const struct engine_options *options, Interlink__Agent__V1__Features *out, char reason[ENGINE_REASON_SIZE],
                         struct status *err);

/* The pod's hostname, resolv.conf, hosts and sysctls; before the first create; again to replace them for containers
 * created later. Loop; writes three small files. */
bool engine_configure(struct engine *engine, const Runtime__V1__PodSandboxConfig *sandbox, struct status *err);

/* ---- create ---- */
/* An image that is mounted into a container: config->mounts[mount].image. */
struct engine_image_volume {
    size_t mount;
    const char *const *layers; /* unpacked, lowest first */
    size_t layer_count;
};
/* Where a mount's files are, when that is not its host_path, whatever is there on this machine. */
struct engine_source {
    const char *path; /* absolute; "": the host_path */
    int fd;           /* the same place, when the path cannot be trusted to stay what it is; borrowed; -1: none */
    bool in_job;      /* the agent's own, in its mount namespace; else the machine's */
    bool create;      /* a missing folder is made, as containerd does it */
};
struct engine_create {
    const char *id;     /* 64 hex digits */
    const char *bundle; /* absolute; exists, empty, mode 0700: the container's until remove */
    const Runtime__V1__ContainerConfig *config;
    const Runtime__V1__PodSandboxConfig *sandbox;
    const struct image_config *image; /* NULL: none (host engine) */
    const char *const *layers;        /* unpacked layer directories, lowest first */
    size_t layer_count;
    const struct engine_source *sources; /* one for each of config->mounts; NULL: all are the machine's, and made when missing */
    const struct engine_image_volume *volumes;
    size_t volume_count;
    struct str seccomp_profile; /* content of a Localhost profile; empty: it is a file of this machine */
    bool nvidia, rocm; /* the pod has GPUs of this kind: for engines that bring what belongs to them */
    pid_t target_pid; /* init of the container that NamespaceMode TARGET names; 0: none */
};
#define ENGINE_GROUPS_MAX 64
struct engine_created {
    int64_t uid, gid; /* as seen in the container */
    int64_t groups[ENGINE_GROUPS_MAX];
    size_t group_count;
    char note[512]; /* what could not be applied though it is no reason to refuse (limits without cgroups); "" */
};
/* Refuses with FAILED_PRECONDITION what cannot be honoured and with INVALID_ARGUMENT what makes no sense; the message
 * starts with the field's path in ContainerConfig: "linux.security_context.run_as_user: ...". After a failure nothing
 * is left but the bundle directory, which the caller removes. Worker. */
bool engine_create(struct engine *engine, const struct engine_create *c, struct engine_created *out, struct status *err);

/* ---- start and exec ---- */
struct engine_stdio {
    int in, out, err; /* borrowed; -1: /dev/null. Not used with a terminal */
    bool tty;
    int terminal_fd;  /* tty: one end of a socket pair; the terminal's master is sent through it (engine_terminal) */
    uint32_t width, height; /* tty: 0 means unset */
};
/* Starts the container's first process and gives its pid in the agent's PID namespace. True: the program is running
 * (it has been exec'ed). False with NOT_FOUND or PERMISSION_DENIED when the program cannot be executed, and nothing runs. Worker. */
bool engine_start(struct engine *engine, const char *id, const char *bundle, const struct engine_stdio *io, pid_t *pid,
                  struct status *err);
/* Starts one more process, with the user, environment, working directory, capabilities, namespaces and cgroup of the
 * container whose first process is `init`; it leads a process group of its own (kill(-pid)). As engine_start. Worker. */
bool engine_exec(struct engine *engine, const char *id, const char *bundle, pid_t init, const char *const *argv,
                 const struct engine_stdio *io, pid_t *pid, struct status *err);
/* The agent's side of a terminal: receives the master from the other end of the socket pair, once the worker has
 * answered; non-blocking, close-on-exec. -1 on failure. Loop. */
int engine_terminal(int socket_fd, struct status *err);

/* ---- new limits ---- */
/* For a container that is created or runs: its cgroup, and the oom_score_adj of its processes and of those to come, clamped as at
 * create. Fields that are 0 or empty stay as they are. All or nothing; the message begins with the field's path in
 * UpdateContainerResourcesRequest: "linux.memory_limit_in_bytes: the container uses more than that". Worker. */
bool engine_update(struct engine *engine, const char *id, const char *bundle, const Runtime__V1__LinuxContainerResources *r,
                   struct status *err);
/* For the pod's own cgroup, which gets the sum of both; either may be NULL. One that was given (cgroup_parent) is left to who
 * gave it: kubelet sets its limits itself. Paths as in UpdatePodSandboxResourcesRequest: "resources.cpu_quota". Worker. */
bool engine_update_pod(struct engine *engine, const Runtime__V1__LinuxContainerResources *overhead,
                       const Runtime__V1__LinuxContainerResources *resources, struct status *err);

/* ---- while it runs, and after ---- */
/* `all`: to every process of the container, not only to `init`. True also when nothing runs any more. Loop. */
bool engine_signal(struct engine *engine, const char *id, const char *bundle, pid_t init, int signal, bool all,
                   struct status *err);
/* Whether the kernel killed a process of the container for its memory limit. To be asked before remove. Loop. */
bool engine_oom_killed(const struct engine *engine, const char *id, const char *bundle);
/* ---- what is used (engine_stats.c) ---- */
struct usage;
/* What the container's cgroup counts, added to `u`; false when it has none that does. `counters`: all that it counts. Loop. */
bool engine_usage(const struct engine *engine, const char *id, bool counters, struct usage *u);
/* The same for the pod as a whole; false also when its cgroup may hold other pods. Loop. */
bool engine_pod_usage(const struct engine *engine, const char *pod_uid, struct usage *u);
/* OOM kills so far; USAGE_UNKNOWN when nobody counts them. Loop. */
uint64_t engine_oom_kills(const struct engine *engine, const char *id);
/* The container's processes, at most max; how many. Worker. */
size_t engine_pids(const struct engine *engine, const char *id, const char *bundle, pid_t *pids, size_t max);
/* The folder that takes what the container writes to its root; NULL when it has none. The caller frees. Loop. */
char *engine_layer(const struct engine *engine, const char *bundle);

/* Kills what is left, unmounts, removes the cgroup and everything in the bundle directory and itself. True when there is
 * nothing left, also when there was nothing. Worker. */
bool engine_remove(struct engine *engine, const char *id, const char *bundle, struct status *err);

#endif
