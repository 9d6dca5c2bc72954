/* SPDX-License-Identifier: Apache-2.0 */
/*
 * podrun.h: plays kubelet's part for a pod from a manifest, inside the job: a client of the agent's own service (proto/agent.proto) on a
 * connection that never leaves the process. So a pod without a node runs by the same calls as one with a node.
 *
 *   podrun.c            the pod: set-up, the order of containers, its end
 *   podrun_container.c  one container: attempts, restarts, stopping
 *   podrun_config.c     from the pod's spec to CRI's configurations
 *   podrun_files.c      volumes with files, as PutFiles takes them
 *   podrun_image.c      from an image's name to its layers in the plugin's store
 *   podrun_probe.c      probes and hooks
 *   podrun_status.c     the file that says how it is
 *
 * In the job's folder (0700; files 0600):
 *
 *   manifest.json       read: what is to run (podspec.h)
 *   images.json         read: {"NAME": {"id": "sha256:..."}} or {"NAME": {"reason": "ErrImagePull", "message": "..."}}
 *   grace               read when it is told to end: seconds between TERM and KILL, if not the pod's own
 *   status.json         written, synced: one pod's status as an interLink plugin answers it
 *   logs/NAME/K.log     written: CRI log lines of the container's attempt K; older parts of it are K.log.1, K.log.2...
 */
#ifndef AGENT_PODRUN_H
#define AGENT_PODRUN_H

#include "io/loop.h"

struct podrun;
struct stream;

struct podrun_options {
    struct loop *loop;
    const char *job_dir, *images_dir; /* borrowed as long as it runs */
    const char *manifest;             /* path of the manifest; borrowed for the call */
    struct stream *stream;            /* to the agent's service; taken */
    /* Heard once: the containers have ended, their output is stored and the agent was told to end; 0 when the pod succeeded. */
    void (*on_done)(void *arg, int exit_code);
    void *arg;
};

/* NULL when the manifest cannot be run: the status file, if it can be written, says why. */
struct podrun *podrun_start(const struct podrun_options *options, struct status *err);
/* Ends it: hooks, TERM, KILL after its grace period; at once when `now`. */
void podrun_stop(struct podrun *run, bool now, const char *why);
void podrun_free(struct podrun *run); /* NULL is fine */

#endif
