/* SPDX-License-Identifier: Apache-2.0 */
/* container.h: a container of a pod, as CRI shows it; the real one is the agent's.
 *
 *     create            start                exit, or the pod is lost
 *   ---------> CREATED -------> RUNNING ---------------------------------> EXITED
 *                 |                                                          ^
 *                 +------------- it cannot be started, or the pod is lost ---+
 *
 * While it is being created it is unlisted. Moves happen in container_move() only; the agent's word (its events, and
 * its list after a reconnection) is what moves it. */
#ifndef NODE_CONTAINER_H
#define NODE_CONTAINER_H

#include "node/announce.h"
#include "node/node.h"

struct container_job;
struct link;
struct logfile;
struct sandbox;
struct container;

/* What makes the containers of a handler's pods: the pod's agent (container.c), or the site, each as a job (container_job.h). */
struct container_backend {
    void (*start)(struct container *container, struct rpc_call *call);
    void (*stop)(struct container *container, struct rpc_call *call, int64_t timeout_s);
    void (*remove)(struct container *container, struct rpc_call *call);
    void (*follow_log)(struct container *container);  /* into its log file, which is open */
    void (*on_log_over)(struct container *container); /* all of it is stored; NULL: no matter */
    void (*on_log_room)(void *container);             /* logfile_options.on_room */
    /* The connection to the agent that has it. NULL: err says what is missing. */
    struct link *(*link)(struct container *container, struct status *err);
    int64_t drain_ms; /* how long one that has ended is still shown running while its last output is on the way */
};

struct container {
    struct node *node;
    struct sandbox *sandbox;
    Interlink__State__V1__Container *record; /* owned */
    struct list link;                        /* in sandbox->containers */
    struct list uid_link;                    /* lists.c's */
    struct buf item;                         /* its element of the list response */
    struct logfile *log;                     /* owned; NULL when all output is stored */
    bool creating, removing;
    bool starting;                           /* StartContainer is under way and will write the record */
    struct list waiters;                     /* calls that wait for its end or its removal */
    struct container_job *job;               /* owned; container_job.c's; NULL: its pod's agent makes it */
    struct timer kill_timer;                 /* the grace period of a stop */
    Interlink__Agent__V1__ContainerState *exit; /* owned: it has ended, and its last output is on the way */
    struct timer exit_timer;                 /* how long that may take */
    struct deferred log_over;
    struct buf stats_item;                   /* its element of the stats response, by stats.c; empty when not known */
    int stats_phase;                         /* the phase that it was measured in */
    enum announced announced;                /* events sent */
};

void container_create(struct sandbox *sandbox, struct rpc_call *call, const Runtime__V1__CreateContainerRequest *request);
void container_start(struct container *container, struct rpc_call *call);
/* timeout_s: grace between the stop signal and KILL; 0: KILL at once. */
void container_stop(struct container *container, struct rpc_call *call, int64_t timeout_s);
void container_remove(struct container *container, struct rpc_call *call);
void container_exec_sync(struct container *container, struct rpc_call *call, const Runtime__V1__ExecSyncRequest *request);

void container_restore(struct node *node, Interlink__State__V1__Container *record);
/* The agent's word about it: an event, or its list after a (re)connection. */
void container_on_state(struct container *container, const Interlink__Agent__V1__ContainerState *state);
/* Its pod is gone: what was not EXITED is now. */
void container_on_lost(struct container *container, const char *message);
/* The same with an exit code. */
void container_on_cancelled(struct container *container, int exit_code, const char *message);
/* Opens the log stream when there is output left to store; after a (re)connection, too. */
void container_follow_log(struct container *container);
/* The connection to the agent is about to go. */
void container_unfollow_log(struct container *container);
/* Forgets it, its record and its log position; the agent's part is gone or not our business. */
void container_drop(struct container *container);
void container_free(struct container *container);

/* The agent that has it, for exec, statistics... NULL: err says what is missing. */
struct link *container_link(struct container *container, struct status *err);

/* ---- for its other files ---- */
/* By its agent: the stop signal, and KILL after the grace period. */
void container_stop_by_agent(struct container *container, struct rpc_call *call, int64_t timeout_s);
/* Whether its phase lets it be started. */
bool container_check_start(const struct container *container, struct status *err);
/* The one place where the phase changes. False: an impossible move, refused. */
bool container_move(struct container *container, Interlink__State__V1__ContainerPhase to);
/* Writes its record. */
void container_put(struct container *container, void (*on_done)(void *arg, const struct status *err), void *arg);
/* Deletes its record; then it is gone, and who waits for its removal hears so. */
void container_forget(struct container *container);
/* Takes the record; the image is held by its id. */
struct container *container_new(struct sandbox *sandbox, Interlink__State__V1__Container *record);
/* Who its first process is and what could not be applied; written with the next change of the record. NULL: not told. */
void container_set_created(struct container *container, const Interlink__Agent__V1__CreateContainerResponse *created);
/* The container's image and those it mounts: they stay on the disk as long as it is there. */
void container_hold_images(struct container *container);
/* Makes the log file ready, at the latest before the start. */
bool container_open_log(struct container *container, struct status *err);
/* What container->exit says becomes true. */
void container_apply_exit(struct container *container);
bool container_listed(const struct container *container);
void container_changed(struct container *container);

#endif
