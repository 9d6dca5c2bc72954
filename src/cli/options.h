/* SPDX-License-Identifier: Apache-2.0 */
/* options.h: command lines from tables: parsing, usage text, "did you mean".
 *
 *   --name value   --name=value   -x value   -xvalue   -abc (switches together)   --switch=false   --   (ends options)
 *
 * A long name may also follow a single dash, as Go's programs (crictl) take it. An option that was not given is looked up
 * in its environment variable. Values go into the caller's struct, where its defaults already are. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "base/base.h"

enum option_kind {
    OPTION_SWITCH,   /* bool */
    OPTION_STRING,   /* const char * */
    OPTION_NUMBER,   /* int64_t */
    OPTION_DURATION, /* int64_t, nanoseconds: "1h2m", "10s"; a plain number is seconds */
    OPTION_LIST,     /* struct option_list; may be given several times */
};

struct option_list {
    const char **items; /* on the arena */
    size_t count;
};

struct option_spec {
    const char *name;        /* without dashes */
    char letter;             /* 0: none */
    enum option_kind kind;
    size_t offset;           /* of the value in the caller's struct */
    const char *argument;    /* what the usage calls the value; NULL for switches */
    const char *help;        /* NULL: an alias, not shown */
    const char *environment; /* NULL: none */
};

/* One verb, or a whole program without verbs. */
struct command {
    const char *name;      /* "inspectp" */
    const char *aliases;   /* other names, separated by blanks; "" */
    const char *arguments; /* "POD-ID [POD-ID...]", "" */
    const char *summary;   /* one line */
    const char *details;   /* further paragraphs of the help; "" */
    const struct option_spec *options;
    size_t option_count;
    size_t arguments_min, arguments_max;
    bool stops; /* what follows the first argument is not for us, even with dashes */
    /* `values`: the struct that the options' offsets are for, already filled. Returns the exit status. */
    int (*run)(void *context, const char *const *arguments, size_t count);
};

struct option_result {
    const char *const *arguments; /* on the arena */
    size_t count;
    bool help; /* --help was asked for: nothing else was looked at */
};

/* argv[0] is not looked at. False: err says what is wrong with which option (INVALID_ARGUMENT). */
bool options_parse(struct arena *arena, const struct command *command, int argc, char *const *argv, void *values,
                   struct option_result *out, struct status *err);
/* The help text, appended. `program`: what goes before the command's name ("interlink-cri ctl"), or "". */
void options_usage(struct buf *out, const char *program, const struct command *command);
/* By name or alias; NULL: err says which is near. */
const struct command *command_find(const struct command *commands, size_t count, const char *name, struct status *err);
/* "  name   summary", one line a command, appended. */
void commands_list(struct buf *out, const struct command *commands, size_t count);

#endif
