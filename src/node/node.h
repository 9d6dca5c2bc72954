/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.h: the CRI side: what a kubelet sees.
 *
 *   node.[ch]               the context of the process: its objects, looking them up, start and end
 *   state.[ch]              what must survive a crash
 *   volumes.[ch]            files of this machine that its pods elsewhere need
 *   sandbox.[ch]            a pod: submitted as one interLink job, ready when its agent has called in
 *   setbacks.[ch]           pods whose jobs failed before they were pods
 *   container.[ch]          a container of a ready pod, driven through the agent
 *   container_job.[ch]      a container that is a job of its own
 *   job_size.[ch]           how large that job is
 *   link.[ch]               the connection to a pod's agent
 *   node_object.[ch], site_capacity.[ch]  the Node in the cluster says what the sites behind it have
 *   events.[ch], announce.[ch]  what happened to containers and sandboxes, to who subscribed
 *   lists.[ch]              the lists of both, kept ready
 *   stats.[ch], metrics.c   what pods and containers use, as their agents measure it
 *   logfile.[ch]            a container's output, from the agent into the file that kubelet reads
 *   relay.[ch]              where agents call in
 *   cni.[ch], pod_network.[ch]  networks of pods' own on this machine; cni_network, cni_call, cni_exec: CNI itself
 *   gate.[ch]               addresses of pods on other machines, and connections to them
 *   features.[ch]           what pods can have here and elsewhere
 *   streaming.[ch]          exec, attach and port forward: the server behind their URLs
 *   operator.[ch]           health, metrics and state over HTTP, for who runs the node
 *   counters.[ch]           what they count
 *   *_service.c             the RPCs
 *
 * Memory: a sandbox owns its record, its job, its link and its containers' list; a container owns its record and log.
 * Objects are freed in one place each (sandbox_free, container_free). Calls that wait are lists on the object waited
 * for, so that freeing the object fails them.
 */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "base/base.h"
#include "http/channel.h"
#include "http/h2.h"
#include "io/loop.h"
#include "io/socket.h"
#include "io/tcp_dial.h"
#include "node/lists.h"
#include "node/state.h"
#include "rpc/rpc.h"
#include "text/prometheus.h"

#include "agent.pb-c.h"
#include "cri.pb-c.h"
#include "state.pb-c.h"

struct cni;
struct events;
struct image_store;
struct kube;
struct counters;
struct operator;
struct registry_options;
struct interlink_target;
struct node_object;
struct features_question;
struct gate;
struct gate_pod;
struct plugin;
struct relay;
struct setbacks;
struct streaming;
struct tls_identity;
struct volumes;

/* ---- configuration, made by the command line's side (cli/serve.c); borrowed for the life of the node ---- */
struct node_handler_options {
    const char *name;   /* what RuntimeClass.handler says */
    const char *url;    /* interLink API; "": the embedded plugin on this machine */
    const char *engine; /* "", "auto", "crun", "apptainer", "host" */
    const char *job_per; /* "" and "pod": a pod is a job whose agent makes its containers; "container": each container is a job */
    const char *program; /* path of this program on the machines where jobs run; "": not known */
    const char *bearer_token_file, *ca_file, *client_cert_file, *client_key_file; /* "" when none */
    const char *const *dial; /* a command that leads to the agent of a job (call_in.h); NULL-terminated, or NULL: agents call by themselves */
    const char *proxy; /* to the API: "": as the environment says; "none": no proxy; else http://[USER:PASSWORD@]HOST[:PORT] */
    const char *const *shared_paths; /* what means the same where its pods run; NULL-terminated, or NULL for nothing */
};
/* What is filled in in `dial`: the pod's id, its interLink pod's uid, the batch system's job id, the first machine of the job. */
static const char *const node_dial_places[] UNUSED = { "{pod}", "{uid}", "{jid}", "{node}" };
#define NODE_HANDLER_OPTIONS_INIT(handler_name)                                                                                 \
    {                                                                                                                         \
        .name = (handler_name), .url = "", .engine = "", .job_per = "", .program = "", .bearer_token_file = "", .ca_file = "", \
        .client_cert_file = "", .client_key_file = "", .proxy = ""                                                             \
    }
struct node_streaming_options {
    bool enabled;
    const char *address; /* literal; loopback unless there is a certificate */
    uint16_t port;       /* 0: any that is free */
    const char *cert_file, *key_file; /* "": plain HTTP */
    int64_t idle_timeout_ms;     /* 0: none */
    int64_t keepalive_ms;        /* silence after which a peer is asked whether it lives; 0: never */
    int64_t creation_timeout_ms; /* for the client to create its streams */
};
/* Of a job about which nobody says more (job_size.h); 0: nothing is asked for. */
struct node_size_options {
    int64_t cpu_milli;
    uint64_t memory; /* bytes */
    int64_t walltime_ms;
};
struct node_options {
    const char *version;
    const char *socket;    /* CRI */
    const char *state_dir; /* 0700 */
    const char *image_dir;
    const struct registry_options *registries; /* image/hosts.h */
    const char *const *pinned_images;          /* NULL-terminated or NULL */
    uint64_t layer_bytes_max;                  /* of an unpacked layer; 0: the default */
    const char *relay_listen; /* "host:port" for agents on other machines; "": only this machine */
    const char *relay_address; /* what such agents dial, one or more separated by commas; "": relay_listen */
    int64_t relay_keepalive_ms; /* silence after which the other end is asked whether it lives */
    const struct node_handler_options *handlers;
    size_t handler_count;
    const char *default_handler;
    const char *node_pods_handler;            /* of the node's own pods, when they have no RuntimeClass */
    const char *const *node_pods_namespaces;  /* whose pods are; NULL-terminated. Static pods always are */
    int64_t queue_hold_ms;  /* how long RunPodSandbox waits for a queued job */
    int64_t queue_lease_ms; /* a queued job lives this long without a call, in kubelet's polling time */
    const char *metrics_address; /* "127.0.0.1:PORT" or "unix:///path"; "": none */
    const char *network_mode;             /* "auto", "always", "never": pods of this machine have networks of their own, by CNI */
    const char *cni_conf_dir;
    const char *const *cni_bin_dirs;      /* NULL-terminated */
    int64_t cni_timeout_ms;               /* for all plugins of a pod together */
    const char *const *relay_cidrs;       /* for pods on other machines; NULL-terminated or NULL: the node's pod CIDR */
    bool cni_gc;                          /* the networks are ours alone: plugins may be told to forget all other pods */
    bool agents_share_images; /* agents on other machines see image_dir under the same path */
    struct node_streaming_options streaming;
    const char *kubeconfig; /* of this node's kubelet, or of somebody who may read its pods; "": the API server is not asked */
    const char *node_name;  /* "": whom the credentials name, else this machine's host name */
    bool keep_capacity;     /* the Node object is told what targets on other machines report */
    struct node_size_options size;
    const char *const *cdi_dirs; /* on the machines where pods run; NULL-terminated or NULL: the standard ones */
};

struct handler {
    const struct node_handler_options *options;
    struct interlink_target *target; /* owned */
    bool local;                      /* jobs run on this machine */
    bool per_container;              /* each container is a job of its own (container_job.h) */
    bool inside;                     /* and an agent runs its command there */
    uint64_t agent_connections;      /* made so far */
    uint64_t agent_received, agent_sent; /* bytes, of connections that have ended */
    struct prometheus_histogram queue_wait; /* counters.c's */
    /* What its pods can have, as far as it is known (features.h). */
    bool recursive_read_only_mounts, user_namespaces;
    struct features_question *question; /* owned; NULL: none is under way */
};

/* ---- the context ---- */
struct node {
    struct loop *loop;
    const struct node_options *options;
    struct state *state;             /* owned, as all below */
    struct image_store *images;
    struct counters *counters;
    struct kube *kube;               /* NULL without a kubeconfig */
    struct node_object *object;      /* NULL: the cluster's Node is not our business */
    struct operator *operator;       /* NULL: not asked for */
    struct events *events;           /* what happened, to who subscribed */
    struct setbacks *setbacks;       /* pods whose last job failed early */
    struct volumes *volumes;         /* what is copied to where pods run */
    struct cni *cni;                 /* networks of pods on this machine */
    struct gate *gate;               /* where connections to pods on other machines come in */
    struct plugin *plugin;           /* the embedded one; NULL without a local handler */
    struct relay *relay;
    struct h2_budget link_budget;    /* of all agents' connections */
    struct channel_budget stream_budget; /* of all clients' streams */
    struct tcp_dialer dialer;        /* connections to ports of pods on this machine */
    struct streaming *streaming;     /* NULL: switched off */
    struct tls_identity *identity;   /* NULL when no agent is elsewhere */
    char relay_pin[72 + 8];          /* "sha256:<64 hex digits>", "" when no agent is elsewhere */
    char *relay_socket;
    unsigned calling_in;             /* commands under way (call_in.h) */
    struct handler *handlers;
    struct strmap sandboxes;         /* id -> struct sandbox */
    struct strmap left_alone;        /* ids of sandboxes whose handler is not configured at present */
    struct strmap containers;        /* id -> struct container */
    struct listener listener;        /* CRI */
    struct rpc_services services;
    struct rpc_health *health;
    struct rpc_reflection *reflection;
    struct rpc_server *server;
    int64_t last_poll_ms;            /* monotonic: kubelet's last list call */
    struct timer lease_timer;
    struct timer shutdown_timer;
    unsigned draining;               /* servers whose clients are still there */
    void (*on_shut_down)(void *arg); /* a shutdown is under way */
    void *on_shut_down_arg;
    struct lists lists;
    char *pod_cidr;                  /* what kubelet has said; "" */
    Interlink__State__V1__Node *gate_record; /* of an earlier life; owned, NULL once gate.c has read it */
    char *layers_mountpoint;         /* of the file system that pods of this machine write to */
    char node_ip[46];                /* of pods that use this machine's network */
};

/* Opens everything: store, images, handlers, relay, CRI socket; restores what was. NULL on failure. */
struct node *node_start(struct loop *loop, const struct node_options *options, struct status *err);
/* The beginning of the end: health says NOT_SERVING, no new connection is taken, event streams, calls that only wait
 * for a queue, and streams of exec, attach and port-forward end with UNAVAILABLE, and calls under way have NODE_SHUTDOWN_MS to end by themselves. Then on_done, from the
 * loop, and node_stop is due. */
void node_shutdown(struct node *node, void (*on_done)(void *arg), void *arg);
/* The running pods stay as they are. NULL is fine. */
void node_stop(struct node *node);
/* NULL: NOT_FOUND, naming the handler. "" is the default one. */
struct handler *node_handler(struct node *node, const char *name, struct status *err);
/* A static pod, or one of node_pods_namespaces: kube-proxy, network plugins... */
bool node_is_own_pod(const struct node *node, const Runtime__V1__PodSandboxConfig *config);
/* The handler of a pod: what its RuntimeClass says, else by whether it is one of the node's own. */
struct handler *node_handler_of_pod(struct node *node, const Runtime__V1__RunPodSandboxRequest *request, struct status *err);

/* Something waits in a queue: leases are counted from now on. */
void node_watch_leases(struct node *node);

struct sandbox;
struct container;
/* By id or unambiguous prefix; NULL: NOT_FOUND or INVALID_ARGUMENT (several match). Queued sandboxes are found too. */
struct sandbox *node_sandbox(struct node *node, const char *id, struct status *err);
struct container *node_container(struct node *node, const char *id, struct status *err);

/* ---- services ---- */
extern const struct rpc_method runtime_methods[];
extern const size_t runtime_method_count;
extern const struct rpc_method image_methods[];
extern const size_t image_method_count;
extern const struct rpc_method control_methods[];
extern const size_t control_method_count;
/* For both ways to pull: fills all but the callbacks; annotations live on the call's arena. False: the call was failed. */
struct image_auth;
struct image_pull_options;
bool node_pull_options(struct node *node, struct rpc_call *call, const Runtime__V1__PullImageRequest *request,
                       struct image_auth *auth, struct image_pull_options *out);

#endif
