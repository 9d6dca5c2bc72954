/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_context.h: what the agent's files share: one struct, made by agent.c (or by a test), handed to all.
 *
 *   agent.c            main: environment, isolation, engine, dialling, the end
 *   agent_service.c    the RPCs of proto/agent.proto, each a few lines over what follows
 *   agent_container.c  containers: states, operations, processes
 *   agent_output.c     a container's pipes -> its log -> the Logs stream
 *   agent_log.c        the log ring (no I/O)
 *   agent_input.c      what feeds a process's standard input
 *   agent_exec.c       processes run in a container
 *   agent_attach.c     clients at a container's own standard streams
 *   agent_forward.c    connections to the pod's ports
 *   agent_ports.c      which ports the pod's containers listen on
 *   agent_event.c      what changed, in order
 *   agent_orphan.c     ends of processes that nobody has asked about yet
 *   agent_kill.c       a process and all its descendants
 *   agent_blobs.c      image blobs that the node sends, layers ready for an engine
 *   agent_files.c      files of volumes that the node sends
 *   agent_intake.c     what both have in common: from a call to a worker
 *   agent_site.c       what a pod has of its job: Slurm inside, GPUs
 *   agent_sources.c    where mounts come from: those files, emptyDirs, the termination log
 *   agent_ending.c     the way out: stop, kill, hand over, remove
 *   agent_stats.c      what containers use; agent_stats_fill.c: as messages
 *   agent_settle.c     less memory when all is quiet
 *   agent_signal.c     names and numbers of signals
 */
#ifndef AGENT_AGENT_CONTEXT_H
#define AGENT_AGENT_CONTEXT_H

#include "agent/agent_ending.h"
#include "agent/agent_event.h"
#include "agent/agent_files.h"
#include "agent/agent_orphan.h"
#include "agent/agent_ports.h"
#include "agent/agent_stats.h"
#include "agent/engine.h"
#include "agent/scratch.h"
#include "base/base.h"
#include "io/tcp_dial.h"
#include "rpc/rpc.h"

#include "agent.pb-c.h"

struct agent {
    struct loop *loop;
    char sandbox_id[ID_LENGTH + 1];
    const struct agent_relay *relay; /* where the node is; borrowed */
    char *job_dir;      /* borrowed; absolute: what the plugin made */
    struct scratch scratch;
    char *images_dir;   /* borrowed; the node's image store, when this machine sees it; "" otherwise */
    char *machine_name; /* owned; the hostname before the pod got its own */
    bool own_mounts;    /* in a mount namespace of our own, in which we may mount */
    struct engine *engine;      /* owned; NULL when none can be used, and then engine_error says why */
    struct status engine_error;
    char engine_reason[ENGINE_REASON_SIZE];
    Runtime__V1__PodSandboxConfig *sandbox; /* owned; NULL until ConfigureSandbox */
    struct strmap containers;   /* id -> struct agent_container, owned */
    bool greeted;               /* the node has said hello on this connection */
    size_t exec_count, attach_count, forward_count;
    struct tcp_dialer dialer; /* connections to the pod's ports */
    uint8_t *exec_block;    /* owned by agent_exec.c, likewise */
    struct list intakes;        /* calls that bring blobs or files (agent_intake.c) */
    size_t intake_count;
    struct agent_files files;
    struct agent_events events;
    struct agent_orphans orphans;
    struct agent_ports ports;
    struct agent_ending ending;
    struct agent_stats stats;
    struct timer settle;        /* agent_settle.h */
};

/* Where what the pod writes goes: the job's folder, or one on a disk of this machine. */
static inline const char *agent_work_dir(const struct agent *agent)
{
    return agent->scratch.pod != NULL ? agent->scratch.pod : agent->job_dir;
}
/* FAILED_PRECONDITION when there is no engine, or the pod is on its way out. */
bool agent_usable(const struct agent *agent, struct status *err);
/* The gRPC service, with `agent` as its context; static memory. (agent_service.c) */
void agent_service(struct agent *agent, struct rpc_service *out);

#endif
