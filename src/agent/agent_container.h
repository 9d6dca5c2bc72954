/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_container.h: one container of the pod: its state, its first process, its output.
 *
 *             created            started            ended              drained
 *     NEW ---------------> CREATED ------> RUNNING -------> DRAINING ----------> EXITED
 *      ^                    |   |                                                 ^  |
 *      |                    |   +--------------- start failed --------------------+  |
 *      +----- removed ------+                                                        |
 *      +----- removed ---------------------------------------------------------------+
 *
 *   NEW       nothing is there; the container object lives only as long as something is asked of it
 *   CREATED   root filesystem and configuration are ready
 *   RUNNING   its first process runs
 *   DRAINING  the process has ended; its output is still being read. To the node it is RUNNING
 *   EXITED    the log is complete
 *
 * What is asked of a container is done one after the other, in order: create, start, signal, update, remove. What takes time
 * happens in a worker; the state changes when the worker has answered, in agent_container_move(), nowhere else.
 * All is idempotent: what is so already succeeds.
 */
#ifndef AGENT_AGENT_CONTAINER_H
#define AGENT_AGENT_CONTAINER_H

#include "agent/agent_input.h"
#include "agent/agent_output.h"
#include "agent/engine.h"
#include "io/child.h"

#include "agent.pb-c.h"

struct agent;
struct agent_container_stats;

enum agent_container_state {
    AGENT_CONTAINER_NEW,
    AGENT_CONTAINER_CREATED,
    AGENT_CONTAINER_RUNNING,
    AGENT_CONTAINER_DRAINING,
    AGENT_CONTAINER_EXITED,
};

struct agent_container {
    struct agent *agent;
    char id[ID_LENGTH + 1];
    char *bundle;            /* owned; the engine's folder for it */
    enum agent_container_state state;
    bool tty, with_stdin;
    bool stdin_once;         /* the first attach that has its standard input closes it when it ends */
    bool stdin_over;         /* that has been so */
    bool own_pid;            /* its first process is PID 1 of a namespace of its own */
    struct engine_created made; /* whom it runs as, and what could not be applied; since CREATED */
    int stop_signal;
    bool stop_sent;          /* at the pod's end */
    bool ended_with_job;     /* EXITED while the batch system ends the job, unasked by the node */
    pid_t pid;               /* of the first process; 0 unless RUNNING */
    struct child child;
    struct agent_input input; /* our end of its standard input, or its terminal's master */
    struct agent_output output;
    struct agent_container_stats *stats; /* owned; NULL until they are asked for (agent_stats.h) */
    struct list execs;       /* struct agent_exec: processes run in it */
    struct list attaches;    /* struct agent_attach: who is attached to it */
    /* What the node is told. */
    int64_t started_ns, finished_ns;
    int exit_code, signal;
    const char *reason;      /* a literal; "" unless it has ended */
    char *message;           /* owned */
    struct status start_error; /* why it could not be started */
    bool has_termination_log;
    struct buf termination_log; /* owned; the end of it, once EXITED */
    /* What is asked of it. */
    struct list operations;  /* struct agent_operation, owned; the first one may be under way */
    bool busy;               /* it is: in the worker, or waiting for the process to end */
    struct worker worker;
    int worker_fds[3];       /* while it starts: our ends of its standard streams; -1: none */
};

/* Heard once for each thing asked, from the loop or at once. err is NULL when it is done. `c` (NULL when it is not there
 * any more) is borrowed for the call. */
typedef void agent_container_done(void *arg, const struct status *err, const struct agent_container *c);

/* `request` must live until done. */
void agent_container_create(struct agent *agent, const Interlink__Agent__V1__CreateContainerRequest *request,
                            agent_container_done *done, void *arg);
void agent_container_start(struct agent *agent, const char *id, agent_container_done *done, void *arg);
void agent_container_signal(struct agent *agent, const char *id, int signal, bool all, agent_container_done *done, void *arg);
/* `resources` must live until done. */
void agent_container_update(struct agent *agent, const char *id, const Runtime__V1__LinuxContainerResources *resources,
                            agent_container_done *done, void *arg);
void agent_container_remove(struct agent *agent, const char *id, agent_container_done *done, void *arg);

struct agent_container *agent_container_find(struct agent *agent, const char *id); /* NULL when it is NEW, too */
/* Its strings are borrowed from the container. */
void agent_container_report(const struct agent_container *c, Interlink__Agent__V1__ContainerState *out);
static inline bool agent_container_runs(const struct agent_container *c)
{
    return c->state == AGENT_CONTAINER_RUNNING || c->state == AGENT_CONTAINER_DRAINING;
}
/* The pod ends: a create that is under way is given up (what it has made goes with remove). */
void agent_container_abandon(struct agent_container *c);
/* In a worker: closes what feeds containers and execs, so that only the agent decides when their input ends. */
void agent_container_close_inputs(struct agent *agent);

/* For the tests: whether the drawing above has an arrow between the two. */
bool agent_container_may_move(enum agent_container_state from, enum agent_container_state to);

#endif
