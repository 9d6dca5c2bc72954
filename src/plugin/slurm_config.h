/* SPDX-License-Identifier: Apache-2.0 */
/* slurm_config.h: the site's settings: the mapping `Slurm` of the plugin's configuration. docs/slurm.md describes each key. */
#ifndef PLUGIN_SLURM_CONFIG_H
#define PLUGIN_SLURM_CONFIG_H

#include "base/base.h"
#include "interlink/pod.h"
#include "text/json.h"

enum slurm_tool { SLURM_SBATCH, SLURM_SQUEUE, SLURM_SCANCEL, SLURM_SACCT, SLURM_SCONTROL, SLURM_SINFO, SLURM_TOOLS };

struct slurm_flavor {
    const char *name;
    struct interlink_strings options;
};

/* Everything lives in the arena. */
struct slurm_config {
    struct arena arena;
    const char *tools[SLURM_TOOLS]; /* a name for PATH, or a path; sacct and sinfo may be "": not used */
    struct interlink_strings prefix; /* before each command: "ssh", "login1" */
    bool prefix_is_shell;            /* what follows it is read by a shell again, as ssh does */
    struct interlink_strings options; /* for each job; what follows from the pod counts more */
    struct slurm_flavor *flavors;
    size_t flavor_count;
    const char *default_flavor; /* "": none */
    struct interlink_pairs gres; /* resource to gres: "nvidia.com/gpu" to "gpu:a100" */
    struct interlink_strings allowed; /* options that pods may set beyond the usual ones */
    int64_t notice_seconds;  /* TERM so long before the time limit; 0: none */
    int64_t memory_overhead; /* bytes, for the agent itself */
    const char *setup;       /* lines of sh that the job runs first */
    int64_t poll_min_ms, poll_max_ms;
    bool position; /* tell queued pods their place */
};

/* `j`: NULL or null for all defaults. INVALID_ARGUMENT names the key. On failure, too, the caller frees. */
bool slurm_config_read(struct slurm_config *config, const struct json *j, struct status *err);
void slurm_config_free(struct slurm_config *config);
const struct slurm_flavor *slurm_config_flavor(const struct slurm_config *config, const char *name);
extern const char *const slurm_tool_names[SLURM_TOOLS];

#endif
