/* SPDX-License-Identifier: Apache-2.0 */
/* slurm_flags.h: what the annotation slurm-job.vk.io/flags says of a job's size: words of sbatch's command line, separated by
 * blanks as the stock Slurm plugin separates them.
 *
 * The flags themselves travel on to the site as they are. So what is not understood here is passed over: sbatch will judge. */
#ifndef INTERLINK_SLURM_FLAGS_H
#define INTERLINK_SLURM_FLAGS_H

#include "base/base.h"

#define SLURM_FLAGS_ANNOTATION "slurm-job.vk.io/flags"

/* 0: not told. */
struct slurm_flags {
    int64_t cpus_per_task; /* -c, --cpus-per-task */
    int64_t memory;        /* --mem, in bytes */
    int64_t seconds;       /* -t, --time */
};
/* The last of equal flags counts, as for sbatch. */
struct slurm_flags slurm_flags_read(const char *text);

/* Slurm's times: "30" (minutes), "30:00", "12:30:00", "1-12", "1-12:30", "1-12:30:00". False when it is none, or no limit. */
bool slurm_flags_time(const char *text, int64_t *seconds);

#endif
