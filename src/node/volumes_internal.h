/* SPDX-License-Identifier: Apache-2.0 */
/* volumes_internal.h: what volumes.c and volumes_watch.c share; nobody else includes it. */
#ifndef NODE_VOLUMES_INTERNAL_H
#define NODE_VOLUMES_INTERNAL_H

#include "io/child.h"
#include "node/volumes.h"

/* A folder that inotify watches. Two sandboxes of one pod may be interested: the kernel knows one watch a folder. */
struct volume_point {
    int descriptor; /* inotify's */
    struct list users; /* of struct pod_volume.point_link */
};

/* One volume of a pod, as far as it is known. */
struct pod_volume {
    struct pod_volumes *pod;
    char *name;     /* owned; below the pod's folder: "volumes/kubernetes.io~configmap/cm" */
    char *path;     /* owned; on this machine; NULL: not refreshed */
    char *version;  /* owned; what the agent has; "": nothing that we know */
    char link[VOLUME_LINK_MAX]; /* where ..data led when that was read */
    bool wanted;    /* a container that runs, or will, uses it */
    bool dirty;     /* it may have changed since then */
    struct volume_point *point; /* NULL: not watched */
    struct list point_link;
};

struct volumes {
    struct node *node;
    unsigned readers;
    struct list waiting;  /* struct volumes_op.waiting, for a reader */
    int inotify_fd;       /* -1: there is none */
    struct watch watch;
    struct strmap points; /* descriptor -> struct volume_point, owned */
    bool complained;      /* that the kernel watches no more */
};

struct pod_volumes {
    struct volumes *v;
    struct sandbox *sandbox;
    struct strmap volumes; /* name -> struct pod_volume, owned */
    struct list ops;       /* struct volumes_op; the first one is under way */
    bool refreshing;       /* one of them is a refresh */
    struct timer settle;   /* until a change is looked at */
    struct timer poll;     /* for volumes that are not watched */
};

/* One thing that is done for a pod. */
struct volumes_op {
    struct list link;    /* in pod->ops */
    struct list waiting; /* in v->waiting, while it is */
    struct pod_volumes *pod;
    Runtime__V1__ContainerConfig *config; /* owned; what is planned; NULL: a refresh */
    char **paths;        /* owned; of a refresh */
    size_t path_count;
    bool reading;
    int fd;              /* what was read, in memory; -1: none yet */
    struct worker worker;
    struct volume_plan plan;
    struct rpc_request *request;
    size_t next;         /* piece that is being sent */
    uint64_t sent;       /* bytes of it */
    bool begun;          /* its first message has been sent */
    struct status err;   /* ours, when the request was given up for it */
    void (*on_done)(void *arg, const struct status *err, const Interlink__Agent__V1__CreateContainerRequest *sources);
    void *arg;
};

struct pod_volumes *pod_volumes_of(struct sandbox *sandbox); /* makes it */
struct pod_volume *pod_volume_of(struct pod_volumes *p, const char *name); /* makes it */
/* Takes op, whose config, paths and on_done are set. */
void volumes_op_start(struct pod_volumes *p, struct volumes_op *op);

/* ---- volumes_watch.c ---- */
void volumes_watch_open(struct volumes *v);
void volumes_watch_close(struct volumes *v);
void volumes_unwatch(struct pod_volume *volume);
/* Looks at what is dirty, soon. */
void volumes_changed(struct pod_volumes *p, int64_t delay_ms);
/* The links of what is wanted may be others by now: what was read a moment ago counts as read. */
void volumes_learn_links(struct pod_volumes *p, const struct volume_plan *plan);

#endif
