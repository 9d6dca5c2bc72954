/* SPDX-License-Identifier: Apache-2.0 */
/* agent_container_work.h: the parts of a container's life that take time: they run in workers (io/child.h). */
#ifndef AGENT_AGENT_CONTAINER_WORK_H
#define AGENT_AGENT_CONTAINER_WORK_H

#include "agent/agent_container.h"

/* ---- create ---- */
struct agent_create_work {
    struct agent_container *container;
    const Interlink__Agent__V1__CreateContainerRequest *request;
    pid_t target_pid;
};
/* What the worker answers with, as it is. */
struct agent_created {
    int stop_signal;
    struct engine_created made;
};
/* Layers, root filesystem, configuration. `arg` is a struct agent_create_work. */
bool agent_create_worker(void *arg, struct buf *output, struct status *err);

/* ---- start ---- */
/* Makes the standard streams (our ends: c->worker_fds) and starts the worker, which answers with a pid_t. With a
 * terminal worker_fds[0] is the socket that its master comes through. */
bool agent_start_worker(struct agent_container *c, void (*on_done)(void *arg, const struct status *err, struct buf *output),
                        struct status *err);
/* Closes our ends. */
void agent_start_close(struct agent_container *c);

/* ---- update ---- */
struct agent_update_work {
    struct agent_container *container;
    const Runtime__V1__LinuxContainerResources *resources;
};
/* `arg` is a struct agent_update_work. */
bool agent_update_worker(void *arg, struct buf *output, struct status *err);

/* ---- remove ---- */
/* `arg` is the struct agent_container. */
bool agent_remove_worker(void *arg, struct buf *output, struct status *err);

/* ---- for exec, too ---- */
/* The standard streams of a process to be started: ours, and the process's. -1: none. */
struct agent_stdio {
    int ours[3], theirs[3]; /* with a terminal only [0], a socket pair */
};
bool agent_stdio_make(struct agent_stdio *io, bool tty, bool with_stdin, struct status *err);
void agent_stdio_close(int fds[3]);
void agent_stdio_engine(const struct agent_stdio *io, bool tty, struct engine_stdio *out);
/* In a worker: closes what belongs to the agent alone. */
void agent_worker_enter(struct agent *agent);

#endif
