/* SPDX-License-Identifier: Apache-2.0 */
/* slurm_command.h: runs Slurm's programs: a few at a time, never waited for, their output bounded, their environment ours.
 *
 * A command outlives this process: an sbatch under way is finished, whoever hears of it. */
#ifndef PLUGIN_SLURM_COMMAND_H
#define PLUGIN_SLURM_COMMAND_H

#include "io/child.h"
#include "plugin/slurm_config.h"

/* All commands of a backend. */
struct slurm_commands {
    struct loop *loop;
    const struct slurm_config *config; /* borrowed */
    struct list waiting; /* struct slurm_command */
    size_t running;
    uint64_t started[SLURM_TOOLS]; /* how often, since the start */
};
void slurm_commands_init(struct slurm_commands *commands, struct loop *loop, const struct slurm_config *config);

struct slurm_answer {
    struct str output;
    /* NULL when it ended with 0. Else UNAVAILABLE when it could not run to its end, FAILED_PRECONDITION when it ended with
     * another code; the message is the program's own. */
    const struct status *err;
    bool cut_off; /* it did not end by itself: what it was to do may have been done or not */
};

/* Embedded in its owner, zeroed. */
struct slurm_command {
    struct slurm_commands *commands; /* NULL: not in use */
    struct list link;
    enum slurm_tool tool;
    char **argv; /* owned */
    int stdin_fd; /* owned; -1: none */
    bool running;
    struct child child;
    struct watch out_watch, errors_watch;
    int out_fd, errors_fd;
    struct buf out, errors;
    struct timer timer;
    bool exited, timed_out, overflow;
    int wait_status;
    void (*done)(void *arg, const struct slurm_answer *answer);
    void *arg;
};

/* Starts it, or queues it. `arguments` end in NULL and are copied. `stdin_fd` (-1: none) is taken. `done` is called once, later;
 * the command can be used again from inside it. */
void slurm_command_start(struct slurm_commands *commands, struct slurm_command *command, enum slurm_tool tool,
                         const char *const *arguments, int stdin_fd,
                         void (*done)(void *arg, const struct slurm_answer *answer), void *arg);
static inline bool slurm_command_busy(const struct slurm_command *command)
{
    return command->commands != NULL;
}
/* Forgets it: one that runs goes on, but nobody hears of it. */
void slurm_command_forget(struct slurm_command *command);

/* The words of a command line, prefix first; NULL-terminated, in the arena. For tests. */
const char **slurm_command_line(struct arena *arena, const struct slurm_config *config, enum slurm_tool tool,
                                const char *const *arguments);

#endif
