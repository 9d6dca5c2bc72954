/* SPDX-License-Identifier: Apache-2.0 */
/* hosts_toml.h: one hosts.toml, as containerd and crictl have them (containerd, docs/hosts.md), read into plain structures.
 *
 *     server = "https://registry.example"
 *     [host."https://mirror.example:5000"]
 *       capabilities = ["pull", "resolve"]
 *       ca = "/etc/certs/mirror.pem"
 *       [host."https://mirror.example:5000".header]
 *         x-site = "hpc"
 *
 * Of TOML 1.0 there is what such a file needs: tables, dotted and quoted keys, strings (but not those of several lines),
 * arrays, booleans, inline tables. Values of other types are passed over where nothing of ours is expected. */
#ifndef IMAGE_HOSTS_TOML_H
#define IMAGE_HOSTS_TOML_H

#include "base/base.h"

/* One server. Everything lives on the file's arena; "" and NULL where there is nothing. */
struct hosts_toml_host {
    const char *url; /* as written */
    unsigned line;
    bool has_capabilities, pull, resolve;
    const char **ca; /* paths */
    size_t ca_count;
    const char **client_cert, **client_key; /* paths; the key is "" when it is in the same file */
    size_t client_count;
    bool has_skip_verify, skip_verify, override_path;
    int64_t dial_timeout_ms; /* 0: not given */
    const char **headers;    /* name, value... */
    size_t header_count;     /* pairs */
};

struct hosts_toml {
    struct arena arena;
    struct hosts_toml_host server; /* url "": the registry itself */
    struct hosts_toml_host *hosts; /* in the order of the file */
    size_t count;
    /* Keys that are not known here are no error (they may be newer than this program), but worth a line in the log. */
    char unknown[256];
};

/* INVALID_ARGUMENT names file and line. `file` is for messages only. */
bool hosts_toml_parse(const char *file, struct str text, struct hosts_toml *out, struct status *err);
void hosts_toml_free(struct hosts_toml *t);

#endif
