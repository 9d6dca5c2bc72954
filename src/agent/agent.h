/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.h: the program inside a job: the pod's pause process. It starts containers, keeps their logs, runs commands in
 * them, and is the gRPC server (proto/agent.proto) on a connection that it dials itself.
 *
 * Its settings are in its environment, which containers do not inherit. With the one argument "features" it only says, as a
 * HelloResponse in JSON, what an agent could do on this machine, and ends. With "--manifest FILE" it dials nobody: it runs the pod that
 * is in the file, and ends with it (podrun.h); INTERLINK_JOB_DIR is then by default the file's folder. ("idle" and "enter ..." are said
 * by apptainer in a container: engine_apptainer.c.)
 *
 *   INTERLINK_RELAY          where to dial: unix:///path or host:port, or several of them, separated by commas, that are tried in
 *                            turn (agent_relay.h); empty with INTERLINK_JOIN: it does not dial
 *   INTERLINK_RELAY_PIN      sha256:HEX of the relay's key; without it the relay needs a certificate that is trusted here
 *   INTERLINK_JOIN           1: the node may come in by a command (agent_join.h); needs the pin
 *   INTERLINK_KEEPALIVE      seconds of silence after which a node elsewhere is asked whether it lives (default 60)
 *   INTERLINK_SANDBOX        the pod's id, 64 hex digits
 *   INTERLINK_JOB_DIR        the job's folder (0700); the token is in its volumes/interlink/token...
 *   INTERLINK_TOKEN          ... unless it is here
 *   INTERLINK_TOKEN_FILE     ... or in this file
 *   INTERLINK_NAMESPACES     which of ipc, uts, pid the pod does not share with the machine: "ipc,uts,pid"
 *   INTERLINK_IMAGES         the node's image store, when this machine sees it
 *   INTERLINK_ENGINE         auto (default), crun, apptainer, host (no images and no isolation: only when it is named)
 *   INTERLINK_APPTAINER      where the site's apptainer is; else it is looked for in $PATH
 *   INTERLINK_CGROUP_PARENT  the pod's cgroup
 *   INTERLINK_NETNS          the pod's network namespace, a file on this machine; without it the pod uses the machine's network
 *   INTERLINK_CDI_DIRS       where this machine has CDI specifications, separated by colons (/etc/cdi:/var/run/cdi)
 *   INTERLINK_SCRATCH        places on disks of this machine, separated by colons (or names of variables: $SLURM_TMPDIR), for what pods
 *                            write and for images; none: the job's folder; default: only when that is on a shared file system
 *   INTERLINK_SLURM_PATHS    what containers need of this machine to use Slurm, for pods that ask for it (agent_site.h)
 *   INTERLINK_GPUS           nvidia, amd or intel: the job has GPUs, and so have the pod's containers
 *   INTERLINK_LOG_LEVEL      error, warn, info (default), debug
 */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

/* How the agent ends, for whoever looks at the job. */
#define AGENT_EXIT_OK 0            /* the node said so, or no longer knows the pod */
#define AGENT_EXIT_ENVIRONMENT 64  /* a setting is missing or wrong (EX_USAGE) */
#define AGENT_EXIT_MACHINE 71      /* the machine refuses something basic (EX_OSERR) */
#define AGENT_EXIT_TERMINATED 143  /* ended by SIGTERM or SIGINT, containers stopped before */

/* A line of its log with these words says why it has not called in. */
#define AGENT_FAULT_WORDS "cannot reach the node: "

/* The arguments are main's own, all of them: the program runs itself once more with them (isolate.h). */
int agent_main(int argc, char **argv);

/* In the job's folder: how many seconds lie between the next TERM and KILL. Whoever deletes the pod writes it first. */
#define AGENT_GRACE_FILE "grace"

#endif
