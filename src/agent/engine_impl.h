/* SPDX-License-Identifier: Apache-2.0 */
/* engine_impl.h: what the engines' own files share. Everybody else includes engine.h only. */
#ifndef AGENT_ENGINE_IMPL_H
#define AGENT_ENGINE_IMPL_H

#include "agent/apptainer.h"
#include "agent/cgroup.h"
#include "agent/engine.h"
#include "agent/lsm.h"
#include "agent/podns.h"

struct process;
struct engine_ops {
    const char *name;
    void (*features)(const struct isolation *isolation, Interlink__Agent__V1__Features *out);
    bool (*create)(struct engine *engine, const struct engine_create *c, struct engine_created *out, struct status *err);
    bool (*start)(struct engine *engine, const char *id, const char *bundle, const struct engine_stdio *io, pid_t *pid,
                  struct status *err);
    bool (*remove)(struct engine *engine, const char *id, const char *bundle, struct status *err);
    /* What follows is NULL where the kernel does it: a process joins namespaces, a signal reaches it, PID 1 takes all with it. */
    bool (*exec)(struct engine *engine, const char *id, const char *bundle, const struct process *process,
                 const struct engine_stdio *io, pid_t *pid, struct status *err);
    pid_t (*program)(pid_t pid);      /* who hears the signals for this process of the agent's */
    void (*kill)(const char *bundle); /* what else runs of the container */
};
extern const struct engine_ops engine_crun, engine_apptainer, engine_host, engine_inside;

struct engine {
    const struct engine_ops *ops;
    struct isolation isolation;
    struct podns pod; /* from the first engine_configure on, when the pod asks for it */
    struct cgroups cgroups;
    char *dir; /* owned; <work_dir>/engine:
                * run/       libcrun's state
                * shm/       the pod's /dev/shm (tmpfs)
                * hostname, hosts, resolv.conf */
    char *hostname; /* owned; of the pod */
    struct arena arena; /* of what follows */
    const char *const *cdi_dirs; /* NULL-terminated */
    struct lsm lsm;
    struct apptainer apptainer; /* its engine's only */
    bool root;      /* uid 0 of the machine: several ids, devices, cgroups */
};

/* A process cannot change its ids. */
bool engine_has_one_id(const struct engine *engine);
/* Hands the user and the note over to the caller of create. */
struct user;
void engine_fill_created(struct engine_created *out, const struct user *user, struct buf *note);
/* Starts what create wrote in `bundle`, without libcrun; `l` has what is the engine's own, the rest is filled in. */
struct launch;
bool engine_launch(struct engine *e, const char *id, const char *bundle, const struct engine_stdio *io, const struct launch *l,
                   pid_t *pid, struct status *err);
/* Says in `note` which limits are not applied: those in `limits`, or all when there are no cgroups. */
void engine_note_limits(const struct engine *e, const Runtime__V1__LinuxContainerResources *r, struct buf *limits,
                        struct buf *note);

#endif
