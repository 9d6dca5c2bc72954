/* SPDX-License-Identifier: Apache-2.0 */
/*
 * podspec.h: what `agent --manifest` runs: a v1.Pod with the objects that it refers to, as an API server hands it to a plugin,
 * checked and resolved. No I/O.
 *
 *   podspec.c         the pod, its containers and volumes: names, mounts, security
 *   podspec_env.c     env, envFrom, $(VARIABLES) in env, command and args
 *   podspec_probe.c   probes and hooks
 *
 * What cannot be honoured is FAILED_PRECONDITION, what makes no sense INVALID_ARGUMENT; the message names the field. The plugin reads
 * a pod before it takes it, the agent reads it again before it runs it.
 */
#ifndef AGENT_PODSPEC_H
#define AGENT_PODSPEC_H

#include "interlink/pod.h"

struct json;

enum podspec_role {
    PODSPEC_INIT,    /* runs to its end before the next one begins */
    PODSPEC_SIDECAR, /* an init container that is restarted always: runs until the others have ended */
    PODSPEC_MAIN,
};

enum podspec_restart { PODSPEC_ALWAYS, PODSPEC_ON_FAILURE, PODSPEC_NEVER };

enum podspec_action_kind { PODSPEC_NONE, PODSPEC_EXEC, PODSPEC_HTTP, PODSPEC_TCP, PODSPEC_SLEEP };

/* What a probe or a hook does. */
struct podspec_action {
    enum podspec_action_kind kind;
    struct interlink_strings command; /* EXEC */
    const char *host, *path;          /* HTTP; TCP has a host; "": this pod */
    bool https;
    uint16_t port;
    struct interlink_pairs headers;
    int64_t sleep_seconds;
};

enum podspec_probe_kind { PODSPEC_STARTUP, PODSPEC_READINESS, PODSPEC_LIVENESS };
#define PODSPEC_PROBES 3

/* A probe without an action is none. Times are in seconds. */
struct podspec_probe {
    struct podspec_action action;
    int64_t initial_delay, timeout, period, successes, failures;
    int64_t grace; /* between TERM and KILL when it fails; < 0: the pod's */
};

/* Of the container, else of the pod. Absent ones are < 0, NULL or "". */
struct podspec_security {
    int64_t run_as_user, run_as_group;
    bool run_as_non_root, privileged, read_only_root, no_new_privs;
    struct interlink_strings add, drop; /* capabilities */
    const char *seccomp;                /* "RuntimeDefault", "Unconfined", "" */
};

struct podspec_container {
    const struct interlink_container *base;
    enum podspec_role role;
    const char *field; /* "pod.spec.containers[0]" */
    struct interlink_pairs env;
    struct interlink_strings command, args;
    struct podspec_security security;
    struct podspec_probe probes[PODSPEC_PROBES];
    struct podspec_action post_start, pre_stop;
    const char *pull_policy; /* "Always", "IfNotPresent", "Never" */
    const char *termination_path;
    bool termination_log_falls_back; /* to the end of its output, when it fails without last words */
    bool stdin;
};

struct podspec {
    struct interlink_create create;
    struct podspec_container *containers; /* init containers first, in their order */
    size_t count, init_count;
    enum podspec_restart restart;
    int64_t grace_seconds;
    const char *hostname;
    struct interlink_strings dns_servers, dns_searches; /* none: the machine's own */
    int64_t *groups; /* supplementary ones, fsGroup among them */
    size_t group_count;
    int64_t fs_group; /* < 0: none */
    bool share_pids;
    const char *address; /* of the machine, for variables that ask for it */
};

/* `manifest`: the body of a create request, either dialect, or a v1.Pod alone. Everything lives in the arena. `address` is borrowed as
 * long; "": not known yet. */
bool podspec_read(struct arena *arena, struct str manifest, const char *address, struct podspec *out, struct status *err);

/* The volume of that name; NULL when there is none. */
const struct interlink_volume *podspec_volume(const struct podspec *spec, const char *name);
/* What it has its files from; NULL when that did not come along, or it has no files. */
const struct interlink_object *podspec_object(const struct podspec *spec, const struct interlink_volume *v);

/* ---- podspec_env.c ---- */
bool podspec_read_env(struct arena *arena, const struct podspec *spec, struct podspec_container *c, struct status *err);
/* ---- podspec_probe.c ---- */
bool podspec_read_probes(struct arena *arena, const struct json *container, struct podspec_container *c, struct status *err);

#endif
