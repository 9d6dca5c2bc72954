/* SPDX-License-Identifier: Apache-2.0 */
/* config.h: the configuration of `serve`: one YAML file, overridden by the environment, overridden by options.
 *
 * The keys are a table (config_keys): each has its place in the file ("Images.Dir"), an environment variable
 * (INTERLINK_CRI_IMAGES_DIR) and an option (--images-dir), both made from the place; lists and objects are in the file only.
 * docs/config.example.yaml says what each means and its default; a test holds the two together.
 * A key that is not in the table is an error that names its line and the nearest known one. */
#ifndef CLI_CONFIG_H
#define CLI_CONFIG_H

#include "base/base.h"
#include "cli/options.h"
#include "image/hosts.h"
#include "node/node.h"

/* Everything lives on the arena. */
struct config {
    struct arena arena;
    const char *path;         /* of the file that was read; "" when there is none */
    struct node_options node; /* what the node takes; complete after config_load */
    struct registry_options registries; /* node.registries */
    enum log_level log_level;
    const char *streaming_port, *defaults_cpu;
    const char *const *shared_paths; /* of handlers that have none of their own */
    bool has_log_level; /* set by LogLevel rather than by upstream's switches */
    /* Upstream's flat keys, which make one handler. */
    struct {
        const char *address, *port, *handler;
        bool tls;
        const char *cert_file, *key_file, *ca_file, *token_file;
        bool verbose, errors_only;
    } upstream;
};

/* An override from the command line: place in the file and text. */
struct config_override {
    const char *key, *value;
};

/* Defaults, then the file, then the environment, then overrides; then checks the whole. `path` NULL or "": from
 * INTERLINK_CRI_CONFIG, else the default place if there is a file there (config_default_path). On failure *out holds
 * nothing. */
bool config_load(const char *path, const struct config_override *overrides, size_t override_count, struct config *out,
                 struct status *err);
/* The same from a text instead of a file; `name` for messages. The environment counts only when `environment`. */
bool config_parse(const char *name, struct str text, bool environment, const struct config_override *overrides,
                  size_t override_count, struct config *out, struct status *err);
void config_free(struct config *c);
#define cleanup_config __attribute__((cleanup(config_free)))

/* /etc/interlink-cri/config.yaml, or for an ordinary user $XDG_CONFIG_HOME/interlink-cri/config.yaml. The caller frees. */
char *config_default_path(void);
/* The socket where there is no configuration. The caller frees. */
char *config_default_socket(void);

/* ---- the table, for options, help and tests ---- */
enum config_kind {
    CONFIG_TEXT,
    CONFIG_PATH,     /* absolute; from the command line also relative to the current folder */
    CONFIG_SWITCH,
    CONFIG_DURATION, /* milliseconds; "10s" or a number of seconds */
    CONFIG_SIZE,     /* bytes; a Kubernetes quantity */
    CONFIG_LEVEL,    /* of the log */
    CONFIG_TEXTS,    /* list of strings, NULL-terminated */
    CONFIG_PATHS,
    CONFIG_HANDLERS,
    CONFIG_MIRRORS,
};
struct config_key {
    const char *place; /* "Images.Dir" */
    enum config_kind kind;
    size_t offset;           /* in struct config */
    const char *help;        /* one line */
    const char *environment; /* upstream's name for the variable, besides ours; NULL: none */
};
extern const struct config_key config_keys[];
extern const size_t config_key_count;
/* The keys of one element of Handlers and of Images.Mirrors; offsets in their structs. */
extern const struct config_key config_handler_keys[];
extern const size_t config_handler_key_count;
extern const struct config_key config_mirror_keys[];
extern const size_t config_mirror_key_count;
/* False for lists and objects, which have neither. */
bool config_key_is_scalar(const struct config_key *key);
/* "Images.Dir": "images-dir", "INTERLINK_CRI_IMAGES_DIR". The caller frees. */
char *config_option_name(const struct config_key *key);
char *config_environment_name(const struct config_key *key);

#endif
