/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_site.h: what a pod has of the job that it is, beyond its own wishes, when it asks for that:
 *
 *   annotation interlink.eu/slurm-inside: "true"   srun, scontrol and the rest work in its containers: Slurm's programs, configuration
 *                                                  and munge's socket are mounted, and the job's SLURM_* variables are set
 *   INTERLINK_GPUS, or annotation interlink.eu/gpus: nvidia, amd or intel
 *                                                  the job's GPUs: device nodes, and the variables that say which of them are the job's
 *
 * The paths for Slurm are those in INTERLINK_SLURM_PATHS (colons between them), else the usual ones that this machine has. What the
 * container's configuration says itself stays as it is.
 */
#ifndef AGENT_AGENT_SITE_H
#define AGENT_AGENT_SITE_H

#include "base/base.h"

#include "cri.pb-c.h"

#define AGENT_SITE_SLURM "interlink.eu/slurm-inside"
#define AGENT_SITE_GPUS "interlink.eu/gpus"

enum agent_site_gpus { AGENT_GPUS_NONE, AGENT_GPUS_NVIDIA, AGENT_GPUS_AMD, AGENT_GPUS_INTEL };
/* Which the pod has. INVALID_ARGUMENT for a word that is none of them. */
bool agent_site_gpus_of(const Runtime__V1__PodSandboxConfig *sandbox, enum agent_site_gpus *out, struct status *err);

struct agent_site_input {
    const Runtime__V1__PodSandboxConfig *sandbox; /* may be NULL */
    char *const *environment; /* of the job */
    const char *dev;          /* "/dev" */
    bool renamed_user;        /* the job's user is 0 in the container and somebody else for the machine */
    bool with_devices;        /* else the engine brings them (apptainer's --nv) */
};
/* Changes `config` in place: its lists are new ones on the arena, longer than before; nothing is appended before the mounts it had. `note`
 * says what is not there. FAILED_PRECONDITION when the job is none of Slurm's. A few system calls. */
bool agent_site_add(const struct agent_site_input *in, Runtime__V1__ContainerConfig *config, struct arena *arena, struct buf *note,
                    struct status *err);

#endif
