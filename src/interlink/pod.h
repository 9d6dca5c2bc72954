/* SPDX-License-Identifier: Apache-2.0 */
/* pod.h: Kubernetes' v1.Pod as interLink carries it, to and from JSON, and the two bodies of a create request.
 *
 * Reading is tolerant of unknown keys and strict on types; an error names the path ("pod.spec.containers[0].image").
 * Everything read lives in the arena given; everything written is borrowed for the call. Strings are never NULL: what
 * is absent is "". Writing leaves out what is empty. */
#ifndef INTERLINK_POD_H
#define INTERLINK_POD_H

#include "base/base.h"

/* Says that a pod's single container is our agent, which a node drives. A plugin of ours runs any other pod from its manifest. */
#define INTERLINK_JOB_ANNOTATION "interlink.eu/job"
#define INTERLINK_JOB_AGENT "agent"

struct interlink_pair {
    const char *name, *value;
};
struct interlink_pairs {
    struct interlink_pair *items;
    size_t count;
};
struct interlink_strings {
    const char **items;
    size_t count;
};
/* "" when absent. */
const char *interlink_pair_get(const struct interlink_pairs *pairs, const char *name);

struct json;

struct interlink_mount {
    const char *name, *mount_path, *sub_path;
    bool read_only;
};

/* One of `items` of a configMap, secret or projected source. mode < 0: the volume's. */
struct interlink_key_path {
    const char *key, *path;
    int mode;
};

enum interlink_volume_kind {
    INTERLINK_VOLUME_OTHER, /* a kind that is not listed here; `other` has its key */
    INTERLINK_VOLUME_CONFIG_MAP,
    INTERLINK_VOLUME_SECRET,
    INTERLINK_VOLUME_EMPTY_DIR,
    INTERLINK_VOLUME_HOST_PATH,
    INTERLINK_VOLUME_PROJECTED, /* its files come in interlink_create.projected, under the volume's name */
};

#define INTERLINK_DEFAULT_MODE 0644 /* Kubernetes' defaultMode; always written, because plugins read it unchecked */

struct interlink_volume {
    const char *name;
    enum interlink_volume_kind kind;
    const char *source;         /* name of the configMap or secret; path of the hostPath */
    const char *host_path_type; /* "" is written as "DirectoryOrCreate": plugins read it unchecked */
    const char *medium, *size_limit; /* emptyDir */
    const char *other;
    int default_mode; /* < 0: INTERLINK_DEFAULT_MODE */
    bool optional;
    struct interlink_key_path *items;
    size_t item_count;
};

struct interlink_container {
    const char *name, *image, *working_dir;
    struct interlink_strings command, args;
    struct interlink_pairs env;              /* values only */
    const char *env_from;                    /* name of the first variable with valueFrom (or "envFrom"); "" when none */
    struct interlink_pairs limits, requests; /* quantities as text */
    struct interlink_mount *mounts;
    size_t mount_count;
    bool tty;
    const struct json *json; /* as it was read, with what is not named here; NULL: made by hand */
};

struct interlink_pod {
    const char *name, *namespace_, *uid;
    struct interlink_pairs labels, annotations;
    const char *restart_policy, *node_name, *hostname, *service_account;
    int64_t active_deadline_seconds;   /* < 0: absent */
    int64_t termination_grace_seconds; /* spec.terminationGracePeriodSeconds; < 0: absent */
    int64_t deletion_grace_seconds;    /* metadata.deletionGracePeriodSeconds; < 0: absent */
    bool host_network;
    struct interlink_container *init_containers, *containers;
    size_t init_container_count, container_count;
    struct interlink_volume *volumes;
    size_t volume_count;
    const char *phase; /* status.phase; "" is written as "Pending" */
    const struct json *json; /* as it was read; NULL: made by hand */
};
/* Sets the integers that mean "absent"; a pod made by hand starts so. */
#define INTERLINK_POD_INIT                                                                                             \
    { .name = "", .namespace_ = "", .uid = "", .restart_policy = "", .node_name = "", .hostname = "",                  \
      .service_account = "", .active_deadline_seconds = -1, .termination_grace_seconds = -1,                           \
      .deletion_grace_seconds = -1, .phase = "" }

/* A ConfigMap, a Secret or the files of a projected volume: names and bytes, decoded. */
struct interlink_file {
    const char *key;
    struct str data;
};
struct interlink_object {
    const char *name, *namespace_;
    const char *type; /* of a secret: "Opaque"... */
    struct interlink_file *files;
    size_t file_count;
};

/* A create request with all that the pod's volumes refer to. The API server passes a configMap or secret on to the
 * plugin only when a container MOUNTS a volume of it, and a projected map only under its volume's name. */
struct interlink_create {
    struct interlink_pod pod;
    struct interlink_object *config_maps, *secrets, *projected;
    size_t config_map_count, secret_count, projected_count;
    const char *job_script; /* made by the API server's template; "" when none */
    bool plugin_wire;       /* read from RetrievedPodData, that is, it came through an API server */
    struct str manifest;    /* for a backend: what `agent --manifest` is to run; empty: the pod's container is the agent of a node */
};
#define INTERLINK_CREATE_INIT { .pod = INTERLINK_POD_INIT, .job_script = "" }

/* ---- reading ---- */
bool interlink_pod_read(struct arena *arena, struct str json, struct interlink_pod *out, struct status *err);
/* An array of pods (a status request); `null` and nothing at all are the empty array. */
bool interlink_pods_read(struct arena *arena, struct str json, struct interlink_pod **out, size_t *count,
                         struct status *err);
/* Both dialects, told apart by "container" at the top: RetrievedPodData has it, PodCreateRequests does not. */
bool interlink_create_read(struct arena *arena, struct str json, struct interlink_create *out, struct status *err);

/* ---- writing ---- */
void interlink_pod_write(struct buf *out, const struct interlink_pod *pod);
/* The same in two parts, so that what was written once is sent again with another phase: all but the status, then the
 * status ("Pending", "Running") and the end. */
void interlink_pod_write_open(struct buf *out, const struct interlink_pod *pod);
void interlink_pod_write_close(struct buf *out, const char *phase);
/* PodCreateRequests: what a client sends to an API server (or to our plugin directly). */
void interlink_create_write(struct buf *out, const struct interlink_create *create);

/* ---- checks ---- */
/* What makes a uid safe as a folder's name: lower-case letters, digits and hyphens, at most INTERLINK_UID_MAX. A UUID in
 * small letters is one; an API server takes nothing else in a log request. */
#define INTERLINK_UID_MAX 64
bool interlink_uid_valid(const char *uid);

#endif
