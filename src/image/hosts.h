/* SPDX-License-Identifier: Apache-2.0 */
/* hosts.h: which servers to ask for a registry's images, in which order, and how.
 *
 * In this order: what the configuration names (registry_options.mirrors), then the first of the `certs_dirs` that knows
 * the registry (a folder "HOST", "HOST_PORT_" or "_default" with a hosts.toml, as containerd and crictl have them), then
 * the registry itself: https, or for a loopback address http first. */
#ifndef IMAGE_HOSTS_H
#define IMAGE_HOSTS_H

#include "base/base.h"

/* Servers to be asked before the registry `registry` ("docker.io", "quay.io:8443", or "*" for all others). */
struct registry_mirror {
    const char *registry;
    const char *const *endpoints; /* "https://mirror.example/path", "http://127.0.0.1:5000"; NULL-terminated */
    const char *ca_path;          /* PEM; NULL: the common one */
    bool skip_verify;
    bool only; /* never ask the registry itself */
};

/* What a site says about registries. Borrowed by pulls. All zero: ask each registry itself. */
struct registry_options {
    const struct registry_mirror *mirrors;
    size_t mirror_count;
    const char *const *certs_dirs; /* folders like /etc/containerd/certs.d; NULL-terminated or NULL */
    const char *ca_path;           /* PEM bundle; NULL: the distribution's */
    const char *proxy;             /* as http/client.h: NULL: from the environment, "": none */
};

/* What a server may be asked. */
#define HOST_PULL 1u    /* what is named by its digest */
#define HOST_RESOLVE 2u /* what a tag stands for */

/* One server to ask. Strings live on the list's arena; "" where there is none. */
struct host {
    const char *url;  /* "https://mirror.example/v2": what /NAME/manifests/... is appended to */
    const char *name; /* "mirror.example:5000", for messages and credentials */
    bool is_registry;   /* the registry itself, not a mirror of it */
    bool after_silence; /* to be asked only if the one before gave no answer at all */
    unsigned capabilities;
    const char *const *ca_paths; /* PEM files; NULL-terminated */
    const char *cert_path, *key_path;
    bool skip_verify;
    int64_t dial_timeout_ms;    /* 0: the usual */
    const char *const *headers; /* name, value... */
    size_t header_count;        /* pairs */
};

struct host_list {
    struct arena arena;
    struct host *hosts;
    size_t count;
};

/* The servers for `domain` (reference.h), in order; at least one. Reads hosts.toml files (blocks: in a child). */
bool hosts_for(const struct registry_options *options, const char *domain, struct host_list *out, struct status *err);
void hosts_free(struct host_list *list);
/* localhost, 127.0.0.0/8 and ::1, with or without a port. */
bool hosts_is_loopback(const char *domain);

#endif
