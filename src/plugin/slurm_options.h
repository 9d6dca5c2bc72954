/* SPDX-License-Identifier: Apache-2.0 */
/* slurm_options.h: words for sbatch's command line out of text that people write in annotations and configurations.
 *
 * Text is split as a shell would split it. Each option then becomes ONE word, "--name=value", under its long and full name:
 * so nothing that follows an option can be taken for the script's path, abbreviations cannot slip through, and what was
 * quoted stays together. Source: sbatch(1), Slurm 22.05 to 25.05. */
#ifndef PLUGIN_SLURM_OPTIONS_H
#define PLUGIN_SLURM_OPTIONS_H

#include "base/base.h"
#include "interlink/pod.h"

/* Blanks separate; '...', "..." and \ quote as in sh, but nothing is expanded. INVALID_ARGUMENT for a quote without its end,
 * and for control characters. */
bool slurm_words_split(struct arena *arena, const char *text, struct interlink_strings *out, struct status *err);

/* Who wrote the options. */
enum slurm_trust {
    SLURM_OPERATOR, /* the configuration: any long option */
    SLURM_POD,      /* a pod's annotation: those that size and place a job, and what the operator allows */
};
/* Reads the words of `text` and appends options to `out`, whose array is replaced. `allowed`: further long names ("--" left
 * out) for SLURM_POD; may be NULL. What is refused (FAILED_PRECONDITION) is named. */
bool slurm_options_read(struct arena *arena, const char *text, enum slurm_trust trust,
                        const struct interlink_strings *allowed, struct interlink_strings *out, struct status *err);
void slurm_options_add(struct arena *arena, struct interlink_strings *out, const char *word);
/* The value of the last option of this name ("" for one without a value); NULL when there is none. */
const char *slurm_options_get(const struct interlink_strings *options, const char *name);
/* Takes away all options of this name. */
void slurm_options_drop(struct interlink_strings *options, const char *name);

/* Appends one word for a POSIX shell, in single quotes where it is not plain. */
void slurm_shell_word(struct buf *out, const char *word);

#endif
