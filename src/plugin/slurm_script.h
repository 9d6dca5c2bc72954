/* SPDX-License-Identifier: Apache-2.0 */
/* slurm_script.h: from a pod to what sbatch is given: its options, and the script. Pure functions.
 *
 * In the job's folder the script leaves, each written whole or not at all:
 *   started   "JOBID RESTARTS EPOCH HOST"
 *   ended     "EXITCODE EPOCH NOTICED TERMED": when it was told of its time limit, and when Slurm told it to end; 0: never
 *
 * Signals of the batch shell (scancel --batch): USR2 ends the agent as TERM does, USR1 at once but in order. TERM comes from
 * Slurm itself and is passed on, too. */
#ifndef PLUGIN_SLURM_SCRIPT_H
#define PLUGIN_SLURM_SCRIPT_H

#include "interlink/pod.h"
#include "plugin/slurm_config.h"

#define SLURM_ANNOTATION "interlink.eu/"        /* + partition, account, qos, constraint, reservation, nodes, gres, flavor, flags */
/* Those of them that are options of sbatch by the same name. */
#define SLURM_ANNOTATION_OPTIONS "partition", "account", "qos", "constraint", "reservation", "nodes", "gres"
#define SLURM_ANNOTATION_FLAVOR "slurm-job.vk.io/flavor" /* upstream's; its flags: SLURM_FLAGS_ANNOTATION */

/* sbatch's options without its name. FAILED_PRECONDITION and INVALID_ARGUMENT name the field or the annotation. `job_dir` is absolute. */
bool slurm_script_options(struct arena *arena, const struct slurm_config *config, const struct interlink_pod *pod,
                          const char *job_dir, struct interlink_strings *out, struct status *err);
/* The job's name: it ends in ".UID", by which the job is found again. */
const char *slurm_script_job_name(struct arena *arena, const struct interlink_pod *pod);
/* The pod's variables for sh to read, for a file 0600. FAILED_PRECONDITION when sh cannot have a variable of this name. */
bool slurm_script_environment(const struct interlink_pod *pod, const char *job_dir, struct buf *out, struct status *err);
/* `program`: the agent's path on the compute nodes. */
void slurm_script_write(const struct slurm_config *config, const struct interlink_pod *pod, const char *job_dir,
                        const char *program, struct buf *out);

/* Pieces of a script in which an agent runs. The first sets INTERLINK_CGROUP_PARENT where that is of use. The second waits for what
 * was just started in the background, whose number is then in $agent, and calls `end` with its exit code. */
extern const char slurm_script_cgroup[], slurm_script_wait[];

#endif
