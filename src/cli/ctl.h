/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl.h: `interlink-cri ctl VERB`: crictl's verbs, flags, columns and input files, against any CRI socket.
 * Source: kubernetes-sigs/cri-tools, cmd/crictl.
 *
 *   ctl.c             the verbs' table, endpoints, dispatch
 *   ctl_call.c        one connection an endpoint; RPCs that wait for their answer
 *   ctl_input.c       pod and container configurations from JSON or YAML files, credentials, labels
 *   ctl_output.c      tables, JSON, YAML, ages, sizes
 *   ctl_runtime.c     version, info, runtime-config
 *   ctl_pod.c         runp, stopp, rmp, pods, inspectp
 *   ctl_container.c   create, start, run, stop, rm
 *   ctl_list.c        ps, inspect
 *   ctl_inspect.c     what the inspect verbs share
 *   ctl_image.c       images, inspecti, rmi, imagefsinfo
 *   ctl_pull.c        pull, load, and their progress
 *   ctl_logs.c        logs
 *   ctl_stats.c       stats, statsp, metricsp, metricdescs
 *   ctl_events.c      events
 *   ctl_update.c      update, checkpoint, update-runtime-config
 *   ctl_stream.h      exec, attach, port-forward
 *
 * One verb a process: everything lives on one arena until the end. */
#ifndef CLI_CTL_H
#define CLI_CTL_H

#include "base/base.h"
#include "cli/options.h"
#include "io/loop.h"
#include "rpc/rpc.h"
#include "text/json.h"

#include "cri.pb-c.h"

/* Every verb's flags; a verb uses its own. */
struct ctl_flags {
    /* before the verb */
    const char *runtime_endpoint, *image_endpoint, *config;
    int64_t timeout_ns; /* 0: kubelet's own for each RPC */
    bool debug;
    /* filters and forms of lists */
    const char *id, *name, *name_space, *pod, *image, *state, *output;
    struct option_list labels, filters;
    int64_t last;
    bool all, latest, verbose, quiet, no_trunc, resolve_image_path, digests, pinned;
    /* pulling */
    const char *creds, *auth, *username, *pod_config;
    struct option_list annotations;
    int64_t pull_timeout_ns;
    bool no_pull, with_pull;
    /* pods and containers */
    const char *runtime;
    int64_t cancel_timeout_ns, timeout_seconds;
    bool force, keep_logs, sync, prune, ignore_errors;
    /* logs */
    bool follow, previous, reopen, timestamps;
    int64_t tail, limit_bytes;
    const char *since, *stream;
    /* load */
    const char *base_name;
    /* streams */
    bool tty, interactive;
    const char *transport, *tls_sni, *tls_ca, *tls_cert, *tls_key;
    /* stats */
    int64_t sample_seconds;
    bool watch;
    /* updates */
    int64_t cpu_period, cpu_quota, cpu_shares, memory, oom_score_adj;
    const char *cpuset_cpus, *cpuset_mems, *export_path;
    const char *pod_cidr; /* NULL: not given */
};

struct ctl_endpoint {
    const char *path; /* of the socket */
    struct rpc_conn *conn; /* owned; NULL before the first call and after the end */
    struct status closed;  /* why it ended */
};

struct ctl {
    struct arena arena;
    struct loop *loop;
    struct ctl_flags flags;
    struct ctl_endpoint runtime, image;
    bool pull_on_create, no_pull_on_run; /* from a crictl.yaml */
    bool interrupted; /* SIGINT or SIGTERM came */
    int interrupted_by;
    bool reaps;            /* child_reaper_start was called */
    bool watches_terminal; /* signals about the terminal go to the loop */
    struct ctl_session *session; /* the one that has the terminal; NULL: none */
    bool colour;      /* standard output is a terminal */
    struct buf out;   /* standard output, written by ctl_flush */
    const struct command *command;
};

/* `interlink-cri ctl ...`; argv[0] is "ctl". Returns the exit status: 0, or 1 as crictl. */
int ctl_main(int argc, char **argv);

/* ---- ctl_call.c ---- */
enum ctl_service { CTL_RUNTIME, CTL_IMAGE, CTL_CONTROL };
/* Opens the endpoint if it is not open. */
struct rpc_conn *ctl_connect(struct ctl *ctl, struct ctl_endpoint *endpoint, struct status *err);
/* Calls and waits. The response lives on the arena; NULL on failure. timeout_ms 0: none;
 * overridden by --cancel-timeout and --timeout. */
void *ctl_call(struct ctl *ctl, enum ctl_service service, const char *method, const void *request,
               const ProtobufCMessageDescriptor *output, int64_t timeout_ms, struct status *err);
/* kubelet's deadline for RPCs that do not wait for anything. */
#define CTL_CALL_TIMEOUT_MS 120000
const char *ctl_method(struct ctl *ctl, enum ctl_service service, const char *method);
struct ctl_endpoint *ctl_endpoint_of(struct ctl *ctl, enum ctl_service service);
int64_t ctl_timeout_ms(const struct ctl *ctl, int64_t timeout_ms);
/* One turn of the loop of at most `ms`; false when interrupted (err says so). */
bool ctl_turn(struct ctl *ctl, int ms, struct status *err);

/* ---- ctl_input.c ---- */
Runtime__V1__PodSandboxConfig *ctl_read_pod(struct ctl *ctl, const char *path, struct status *err);
Runtime__V1__ContainerConfig *ctl_read_container(struct ctl *ctl, const char *path, struct status *err);
/* A YAML or JSON file; on the arena. */
const struct json *ctl_read_file(struct ctl *ctl, const char *path, struct status *err);
/* From --creds, --auth, --username; *out NULL when none was given. */
bool ctl_read_auth(struct ctl *ctl, Runtime__V1__AuthConfig **out, struct status *err);

/* Every map<string, string> of CRI has entries of this form. */
struct ctl_entry {
    ProtobufCMessage base;
    char *key, *value;
};
/* "key=value" words as entries of the given map type; *count and *entries are the message's fields. */
bool ctl_read_pairs(struct ctl *ctl, const struct option_list *words, const ProtobufCMessageDescriptor *entry,
                    size_t *count, void *entries, struct status *err);
/* "" when absent. */
const char *ctl_pair(const void *entries, size_t count, const char *key, const char *fallback);
/* Extended regular expression; "" matches everything. */
bool ctl_match(const char *pattern, const char *text, bool *matches, struct status *err);

/* ---- ctl_output.c ---- */
/* Prints "interlink-cri ctl VERB: message" and gives the exit status. */
int ctl_fail(const struct ctl *ctl, const struct status *err);
void ctl_warn(const struct ctl *ctl, const char *format, ...) PRINTF_LIKE(2, 3);
/* Writes ctl->out to standard output. False: nobody reads it any more. */
bool ctl_flush(struct ctl *ctl);
/* To standard error, as it is. */
void ctl_write_error(const void *p, size_t n);

struct ctl_table {
    struct ctl *ctl;
    size_t columns, count;
    const char **cells; /* on the arena; count rows of `columns` */
    size_t room;
};
/* `titles` is the first row. */
struct ctl_table ctl_table_new(struct ctl *ctl, const char *const *titles, size_t columns);
void ctl_table_row(struct ctl_table *table, const char *const *cells);
/* Columns as crictl's: at least 20 wide, 3 blanks between. A column called STATE is coloured on a terminal. */
void ctl_table_print(const struct ctl_table *table);

/* "3 minutes ago" */
const char *ctl_ago(struct ctl *ctl, int64_t created_ns);
/* 13 characters of an id without "sha256:", unless --no-trunc. */
const char *ctl_short_id(struct ctl *ctl, const char *id);
/* "4.26MB" */
const char *ctl_size(struct ctl *ctl, double bytes, int digits);
/* RFC 3339 without zeros at the fraction's end; 0 gives Go's zero time. */
const char *ctl_time(struct ctl *ctl, int64_t ns);
/* "Labels:" and "\tkey -> value" lines, sorted. */
void ctl_print_pairs(struct ctl *ctl, const char *title, const void *entries, size_t count);

enum ctl_format { CTL_TABLE, CTL_JSON, CTL_YAML };
/* From --output; `fallback` when it was not given. */
bool ctl_format(const struct ctl *ctl, enum ctl_format fallback, enum ctl_format *out, struct status *err);
/* A message as JSON (in its fields' order) or YAML (sorted, as crictl). */
void ctl_print_message(struct ctl *ctl, const ProtobufCMessage *message, enum ctl_format format);
/* A message as a tree that may be changed: with defaults, camelCase names. */
struct json *ctl_tree(struct ctl *ctl, const void *message, unsigned protojson_flags);
/* Replaces or adds a member by a string. */
void ctl_tree_set(struct ctl *ctl, struct json *object, const char *key, const char *value);
/* What inspect verbs print of one object: {"status": ..., info...}. `entries`: the response's info. */
struct json *ctl_status_tree(struct ctl *ctl, struct json *status, const void *entries, size_t count);
/* One alone, several in a list; keys sorted. */
void ctl_print_trees(struct ctl *ctl, struct json *const *trees, size_t count, enum ctl_format format);

/* ---- ctl_inspect.c ---- */
/* What inspect, inspectp and inspecti differ in. */
struct ctl_inspection {
    const char *noun;
    /* The ids that fit the flags' filters, on the arena: for a call that names none. */
    bool (*list)(struct ctl *ctl, const char *const **ids, size_t *count, struct status *err);
    /* Prints one as text, or gives its tree. */
    bool (*show)(struct ctl *ctl, const char *id, bool text, struct json **tree, struct status *err);
};
int ctl_inspect_each(struct ctl *ctl, const struct ctl_inspection *kind, const char *const *ids, size_t count);

/* ---- verbs ---- */
int ctl_version(void *context, const char *const *arguments, size_t count);
int ctl_info(void *context, const char *const *arguments, size_t count);
int ctl_runp(void *context, const char *const *arguments, size_t count);
int ctl_stopp(void *context, const char *const *arguments, size_t count);
int ctl_rmp(void *context, const char *const *arguments, size_t count);
int ctl_pods(void *context, const char *const *arguments, size_t count);
int ctl_inspectp(void *context, const char *const *arguments, size_t count);
int ctl_create(void *context, const char *const *arguments, size_t count);
int ctl_start(void *context, const char *const *arguments, size_t count);
int ctl_run(void *context, const char *const *arguments, size_t count);
int ctl_stop(void *context, const char *const *arguments, size_t count);
int ctl_rm(void *context, const char *const *arguments, size_t count);
int ctl_exec(void *context, const char *const *arguments, size_t count);
int ctl_attach(void *context, const char *const *arguments, size_t count);
int ctl_port_forward(void *context, const char *const *arguments, size_t count);
int ctl_ps(void *context, const char *const *arguments, size_t count);
int ctl_inspect(void *context, const char *const *arguments, size_t count);
int ctl_images(void *context, const char *const *arguments, size_t count);
int ctl_inspecti(void *context, const char *const *arguments, size_t count);
int ctl_rmi(void *context, const char *const *arguments, size_t count);
int ctl_imagefsinfo(void *context, const char *const *arguments, size_t count);
int ctl_pull(void *context, const char *const *arguments, size_t count);
int ctl_load(void *context, const char *const *arguments, size_t count);
int ctl_logs(void *context, const char *const *arguments, size_t count);
int ctl_stats(void *context, const char *const *arguments, size_t count);
int ctl_statsp(void *context, const char *const *arguments, size_t count);
int ctl_metricsp(void *context, const char *const *arguments, size_t count);
int ctl_metricdescs(void *context, const char *const *arguments, size_t count);
int ctl_events(void *context, const char *const *arguments, size_t count);
int ctl_update(void *context, const char *const *arguments, size_t count);
int ctl_checkpoint(void *context, const char *const *arguments, size_t count);
int ctl_update_runtime_config(void *context, const char *const *arguments, size_t count);
int ctl_runtime_config(void *context, const char *const *arguments, size_t count);

/* ---- what verbs share ---- */
/* The ids of those that fit the flags' filters. */
bool ctl_all_containers(struct ctl *ctl, const char *const **ids, size_t *count, struct status *err);
/* Containers by the flags' filters, newest first. False on failure. */
bool ctl_list_containers(struct ctl *ctl, Runtime__V1__Container ***out, size_t *count, struct status *err);
bool ctl_list_pods(struct ctl *ctl, Runtime__V1__PodSandbox ***out, size_t *count, struct status *err);
char *ctl_run_pod(struct ctl *ctl, const char *path, struct status *err); /* id, or NULL */
bool ctl_pull_image(struct ctl *ctl, const char *image, const Runtime__V1__PodSandboxConfig *pod, const char **image_ref,
                    struct status *err);
/* The image's status; *out NULL when there is none. */
bool ctl_image_status(struct ctl *ctl, const char *image, bool verbose, Runtime__V1__ImageStatusResponse **out,
                      struct status *err);

#endif
