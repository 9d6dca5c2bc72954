/* SPDX-License-Identifier: Apache-2.0 */
/* main.c: `interlink-cri plugin`: a plugin in a process of its own. */
#include "plugin/plugin.h"

#include <getopt.h>
#include <signal.h>
#include <unistd.h>

#include "io/child.h"
#include "io/file.h"
#include "io/loop.h"
#include "text/nearest.h"
#include "text/yaml.h"

/* A configuration has a handful of lines; one for a site with many flavors, some hundred. */
#define PLUGIN_CONFIG_MAX 262144

static const char plugin_usage[] =
    "Usage: interlink-cri plugin [--listen ADDRESS] [--dir FOLDER] [--backend local|slurm] [--config FILE]\n"
    "                            [--program FILE] [--allow-tcp] [--log-level error|warn|info|debug]\n"
    "\n"
    "An interLink plugin: runs pods for an interLink API server, or for `interlink-cri serve` directly.\n"
    "\n"
    "  --listen     unix:///run/plugin.sock (default: plugin.sock in --dir) or HOST:PORT\n"
    "  --dir        where jobs and their records are kept (default: /var/lib/interlink-cri/plugin as root, else\n"
    "               ~/.local/state/interlink-cri/plugin)\n"
    "  --backend    local: run pods on this machine; slurm: as jobs of the site's Slurm (then --dir is on a file system that\n"
    "               the compute nodes share)\n"
    "  --config     YAML with the keys Listen, Dir, Backend, Program, AllowTCP, LogLevel, and Slurm, with keys of its own;\n"
    "               options here count more\n"
    "  --program    run this instead of interlink-cri itself\n"
    "  --allow-tcp  listen on a TCP port although whoever reaches it can run programs as this user\n"
    "\n"
    "Jobs go on when the plugin ends; the next one in the same folder takes them up again.\n";

void plugin_settings_init(struct plugin_settings *s)
{
    *s = (struct plugin_settings){ xstrdup(""), xstrdup(""), xstrdup(""), xstrdup(""), xstrdup("info"), false, ARENA_INIT, NULL };
}

void plugin_settings_free(struct plugin_settings *s)
{
    free(s->listen);
    free(s->dir);
    free(s->backend);
    free(s->program);
    free(s->log_level);
    arena_free(&s->arena);
}

static void plugin_set(char **setting, const char *value)
{
    free(*setting);
    *setting = xstrdup(value);
}

/* ---- the configuration file ---- */

static bool plugin_read_setting(struct plugin_settings *s, const struct json *j, struct status *err)
{
    const struct {
        const char *key;
        char **text;
    } known[] = { { "Listen", &s->listen },   { "Dir", &s->dir },           { "Backend", &s->backend },
                  { "Program", &s->program }, { "LogLevel", &s->log_level } };
    struct nearest nearest = nearest_start(j->key);
    char hint[128];
    const char *value = "";

    if (strcmp(j->key, "AllowTCP") == 0)
        return json_as_bool(j, &s->allow_tcp, err);
    if (strcmp(j->key, "Slurm") == 0) {
        s->slurm = j;
        return true;
    }
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        if (strcmp(j->key, known[i].key) != 0) {
            nearest_offer(&nearest, known[i].key);
            continue;
        }
        if (!json_as_string(j, &value, err))
            return false;
        plugin_set(known[i].text, value);
        return true;
    }
    nearest_offer(&nearest, "AllowTCP");
    nearest_offer(&nearest, "Slurm");
    return json_fail(j, err, "there is no such setting%s", nearest_hint(&nearest, hint, sizeof hint));
}

bool plugin_read_config(struct plugin_settings *s, const char *path, struct status *err)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (!file_read(path, PLUGIN_CONFIG_MAX, &text, err))
        return false;
    const struct json *j = yaml_parse(&s->arena, (struct str){ (const char *)text.p, text.n }, err);
    if (j == NULL || (j->type != JSON_NULL && !json_want(j, JSON_OBJECT, err)))
        return status_prefix(err, "%s", path);
    for (JSON_EACH(setting, j))
        if (!plugin_read_setting(s, setting, err))
            return status_prefix(err, "%s", path);
    return true;
}

/* ---- the command line ---- */

enum { PLUGIN_LISTEN = 256, PLUGIN_DIR, PLUGIN_BACKEND, PLUGIN_CONFIG, PLUGIN_PROGRAM, PLUGIN_TCP, PLUGIN_LOG, PLUGIN_HELP };

static const struct option plugin_options_table[] = {
    { "listen", required_argument, NULL, PLUGIN_LISTEN },   { "dir", required_argument, NULL, PLUGIN_DIR },
    { "backend", required_argument, NULL, PLUGIN_BACKEND }, { "config", required_argument, NULL, PLUGIN_CONFIG },
    { "program", required_argument, NULL, PLUGIN_PROGRAM }, { "allow-tcp", no_argument, NULL, PLUGIN_TCP },
    { "log-level", required_argument, NULL, PLUGIN_LOG },   { "help", no_argument, NULL, PLUGIN_HELP },
    { NULL, 0, NULL, 0 },
};

/* 0: go on; else the exit status + 1. `config_pass`: only --config is looked at, so that options count more than the file. */
static int plugin_parse_options(struct plugin_settings *s, int argc, char **argv, bool config_pass)
{
    struct status err = STATUS_INIT;
    int option;

    optind = 1;
    opterr = !config_pass;
    while ((option = getopt_long(argc, argv, "h", plugin_options_table, NULL)) != -1) {
        if (option == '?') {
            if (config_pass)
                continue;
            fputs(plugin_usage, stderr);
            return 2 + 1;
        }
        if (option == PLUGIN_HELP || option == 'h') {
            fputs(plugin_usage, stdout);
            return 0 + 1;
        }
        if (config_pass) {
            if (option == PLUGIN_CONFIG && !plugin_read_config(s, optarg, &err)) {
                fprintf(stderr, "interlink-cri plugin: %s\n", err.message);
                return 1 + 1;
            }
            continue;
        }
        switch (option) {
        case PLUGIN_LISTEN:
            plugin_set(&s->listen, optarg);
            break;
        case PLUGIN_DIR:
            plugin_set(&s->dir, optarg);
            break;
        case PLUGIN_BACKEND:
            plugin_set(&s->backend, optarg);
            break;
        case PLUGIN_PROGRAM:
            plugin_set(&s->program, optarg);
            break;
        case PLUGIN_LOG:
            plugin_set(&s->log_level, optarg);
            break;
        case PLUGIN_TCP:
            s->allow_tcp = true;
            break;
        default:
            break;
        }
    }
    if (optind < argc && !config_pass) {
        fprintf(stderr, "interlink-cri plugin: %s is no option\n%s", argv[optind], plugin_usage);
        return 2 + 1;
    }
    return 0;
}

void plugin_fill_defaults(struct plugin_settings *s)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (s->dir[0] == '\0') {
        free(s->dir);
        if (geteuid() == 0)
            s->dir = xstrdup("/var/lib/interlink-cri/plugin");
        else if (state != NULL && state[0] == '/')
            s->dir = xasprintf("%s/interlink-cri/plugin", state);
        else
            s->dir = xasprintf("%s/.local/state/interlink-cri/plugin", home != NULL ? home : "");
    }
    if (s->dir[0] != '/') {
        cleanup_free char *cwd = getcwd(NULL, 0);
        char *absolute = xasprintf("%s/%s", cwd != NULL ? cwd : "", s->dir);
        free(s->dir);
        s->dir = absolute;
    }
    if (s->listen[0] == '\0') {
        free(s->listen);
        s->listen = xasprintf("unix://%s/plugin.sock", s->dir);
    }
}

/* ---- running ---- */

static void plugin_on_signal(void *arg, const struct signalfd_siginfo *info)
{
    (void)info;
    loop_stop(arg);
}

static bool plugin_run(const struct plugin_settings *s, struct status *err)
{
    struct plugin_options options = {
        .listen = s->listen, .dir = s->dir, .backend = s->backend, .program = s->program, .settings = s->slurm, .allow_tcp = s->allow_tcp,
    };
    struct loop *loop = loop_new(err);
    struct plugin *plugin = NULL;

    signal(SIGPIPE, SIG_IGN);
    if (loop != NULL && child_reaper_start(loop, NULL, NULL, err) &&
        loop_signal(loop, SIGTERM, plugin_on_signal, loop, err) &&
        loop_signal(loop, SIGINT, plugin_on_signal, loop, err))
        plugin = plugin_start(loop, &options, err);
    if (plugin != NULL) {
        log_info("listening on %s, backend %s, jobs in %s", s->listen, s->backend[0] != '\0' ? s->backend : "local",
                 s->dir);
        loop_run(loop);
        log_info("ending; %zu jobs go on", plugin_job_count(plugin));
    }
    bool ok = plugin != NULL;
    plugin_stop(plugin);
    loop_free(loop);
    return ok;
}

int plugin_main(int argc, char **argv)
{
    struct plugin_settings s;
    struct status err = STATUS_INIT;
    enum log_level level;

    plugin_settings_init(&s);
    int ended = plugin_parse_options(&s, argc, argv, true);
    if (ended == 0)
        ended = plugin_parse_options(&s, argc, argv, false);
    if (ended == 0 && !log_level_parse(s.log_level, &level)) {
        fprintf(stderr, "interlink-cri plugin: --log-level %s: wanted error, warn, info or debug\n", s.log_level);
        ended = 2 + 1;
    }
    if (ended == 0) {
        log_setup(level, "plugin");
        plugin_fill_defaults(&s);
        if (s.slurm != NULL && strcmp(s.backend, "slurm") != 0)
            log_warn("the configuration's Slurm counts only with Backend: slurm");
        if (!plugin_run(&s, &err))
            fprintf(stderr, "interlink-cri plugin: %s\n", err.message);
        ended = (err.code == STATUS_OK ? 0 : 1) + 1;
    }
    plugin_settings_free(&s);
    return ended - 1;
}

#undef PLUGIN_CONFIG_MAX
