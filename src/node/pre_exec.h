/* SPDX-License-Identifier: Apache-2.0 */
/* pre_exec.h: the agent of a pod by way of a plugin that only runs containers: the stock Slurm plugin.
 *
 * That plugin puts the text of the annotation slurm-job.vk.io/pre-exec into its batch script, before any container. Ours starts
 * the agent there, keeps its output and exit code where the plugin looks for those of the container, and ends the script: the
 * container itself never starts. A plugin of ours takes no notice of the annotation.
 *
 * Measured with the stock Slurm plugin f8451d93 (interLink 0.6). */
#ifndef NODE_PRE_EXEC_H
#define NODE_PRE_EXEC_H

#include "interlink/pod.h"
#include "node/job_size.h"

#define PRE_EXEC_ANNOTATION "slurm-job.vk.io/pre-exec"
/* The agent's token, as a variable of the container: the only thing that plugin keeps in a file in every configuration. */
#define PRE_EXEC_TOKEN "INTERLINK_TOKEN"

/* Appends the script. `container`: the pod's single one; `program`: ours, on the machines where jobs run; `before`: the pod's own
 * annotation of this name, run first ("": none). */
void pre_exec_write(struct buf *out, const char *container, const char *program, const char *before);

/* The annotation slurm-job.vk.io/flags: `flags`, the pod's own, and with it what that plugin understands in no other way: the
 * options of interlink.eu/partition and its kin, and --gres for GPUs unless the pod's annotations ask for them themselves. What
 * cannot be said is logged for pod `id`. */
const char *pre_exec_flags(struct arena *arena, const char *id, const Runtime__V1__PodSandboxConfig *config,
                           const Interlink__State__V1__JobSize *size, const char *flags);

/* That plugin gives a job without a limit of memory 1 MB, and takes none for the agent: adds both. */
void pre_exec_limits(struct arena *arena, const Runtime__V1__PodSandboxConfig *config, struct interlink_pairs *limits);

#endif
