/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/serve.h"

#include <signal.h>
#include <sys/stat.h>

#include "cli/config.h"
#include "cli/options.h"
#include "io/child.h"
#include "io/notify.h"
#include "node/node.h"

/* ---- the command line: --config, and an option for each scalar key of the configuration ---- */

struct serve_values {
    const char *config_path;
    const char *keys[]; /* by config_keys[]; NULL: not given */
};

struct serve_line {
    struct arena arena;
    struct serve_values *values;
    const char **places; /* of each value */
    size_t key_count;
};

static void serve_make_options(struct serve_line *line, struct option_spec *options, size_t *count)
{
    options[(*count)++] = (struct option_spec){ .name = "config",
                                           .letter = 'c',
                                           .kind = OPTION_STRING,
                                           .offset = offsetof(struct serve_values, config_path),
                                           .argument = "FILE",
                                           .help = "configuration (YAML)" };
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        if (!config_key_is_scalar(key))
            continue;
        cleanup_free char *name = config_option_name(key);
        line->places[line->key_count] = key->place;
        /* The environment is config_load's business: it knows the order of precedence. */
        options[(*count)++] = (struct option_spec){
            .name = arena_strdup(&line->arena, name),
            .kind = OPTION_STRING,
            .offset = offsetof(struct serve_values, keys) + line->key_count++ * sizeof(const char *),
            .argument = "VALUE",
            .help = key->help,
        };
    }
}

/* False with *status set: the program is over. */
static bool serve_read_line(struct serve_line *line, int argc, char **argv, int *status)
{
    struct option_spec *options = ARENA_ARRAY(&line->arena, struct option_spec, config_key_count + 1);
    struct option_result result;
    struct status err = STATUS_INIT;
    struct command command = {
        .name = "serve",
        .arguments = "",
        .aliases = "",
        .summary = "the CRI server: what kubelet's --container-runtime-endpoint points at",
        .details = "Without any configuration pods run on this machine. Each option stands for a key of the configuration\n"
                   "file; docs/config.example.yaml says what they mean.",
        .options = options,
    };

    line->values = arena_alloc(&line->arena, sizeof *line->values + config_key_count * sizeof(const char *));
    line->places = ARENA_ARRAY(&line->arena, const char *, config_key_count);
    serve_make_options(line, options, &command.option_count);
    if (!options_parse(&line->arena, &command, argc, argv, line->values, &result, &err)) {
        fprintf(stderr, "interlink-cri serve: %s\n", err.message);
        *status = 2;
        return false;
    }
    if (result.help) {
        cleanup_buf struct buf usage = BUF_INIT;
        options_usage(&usage, "interlink-cri", &command);
        fputs(buf_cstr(&usage), stdout);
        *status = 0;
        return false;
    }
    return true;
}

static bool serve_configure(struct serve_line *line, struct config *config, struct status *err)
{
    struct config_override *overrides = ARENA_ARRAY(&line->arena, struct config_override, line->key_count + 1);
    size_t count = 0;

    for (size_t i = 0; i < line->key_count; i++)
        if (line->values->keys[i] != NULL)
            overrides[count++] = (struct config_override){ line->places[i], line->values->keys[i] };
    return config_load(line->values->config_path, overrides, count, config, err);
}

/* ---- running ---- */

struct serving {
    struct loop *loop;
    struct node *node; /* NULL while it starts */
    bool stopping;
    struct notify notify; /* the service manager */
};

static void serve_on_shut_down(void *arg)
{
    loop_stop(((struct serving *)arg)->loop);
}

/* The second signal ends it at once. */
static void serve_on_stop_signal(void *arg, const struct signalfd_siginfo *info)
{
    struct serving *serving = arg;

    log_info("%s: stopping; pods go on", strsignal((int)info->ssi_signo));
    if (!serving->stopping)
        notify_say(&serving->notify, "STOPPING=1\nSTATUS=Stopping; pods go on");
    if (serving->node == NULL || serving->stopping)
        loop_stop(serving->loop);
    else
        node_shutdown(serving->node, serve_on_shut_down, serving);
    serving->stopping = true;
}

/* SIGINT and SIGTERM end serve in peace; SIGHUP of a closing terminal does the same. A peer that goes away must not. */
static bool serve_handle_signals(struct serving *serving, struct status *err)
{
    struct loop *loop = serving->loop;

    signal(SIGPIPE, SIG_IGN);
    return child_reaper_start(loop, NULL, NULL, err) && loop_signal(loop, SIGTERM, serve_on_stop_signal, serving, err) &&
           loop_signal(loop, SIGINT, serve_on_stop_signal, serving, err) &&
           loop_signal(loop, SIGHUP, serve_on_stop_signal, serving, err);
}

static int serve_run(const struct config *config)
{
    struct status err = STATUS_INIT;
    struct node *node = NULL;
    struct loop *loop = loop_new(&err);
    struct serving serving = { .loop = loop };

    notify_open(&serving.notify, loop);
    if (loop != NULL && serve_handle_signals(&serving, &err))
        serving.node = node = node_start(loop, &config->node, &err);
    if (node != NULL) {
        log_info("interlink-cri %s serves CRI on unix://%s", config->node.version, config->node.socket);
        /* All that was on disk is in memory again, and clients can connect. */
        notify_say(&serving.notify, "READY=1");
        notify_status(&serving.notify, "Serving CRI on unix://%s", config->node.socket);
        loop_run(loop);
    } else {
        log_error("%s", err.message);
        notify_status(&serving.notify, "%s", err.message);
    }
    node_stop(node);
    notify_close(&serving.notify);
    loop_free(loop);
    return node != NULL ? 0 : 1;
}

int serve_main(int argc, char **argv)
{
    struct serve_line line = { .arena = ARENA_INIT };
    struct config config;
    struct status err = STATUS_INIT;
    int status = 1;

    log_setup(LOG_INFO, "serve");
    umask(0022); /* log folders are for others to read; what is not says so when it is made */
    if (serve_read_line(&line, argc, argv, &status)) {
        if (serve_configure(&line, &config, &err)) {
            log_setup(config.log_level, "serve");
            status = serve_run(&config);
            config_free(&config);
        } else {
            fprintf(stderr, "interlink-cri serve: %s\n", err.message);
        }
    }
    arena_free(&line.arena);
    return status;
}
