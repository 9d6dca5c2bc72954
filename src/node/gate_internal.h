/* SPDX-License-Identifier: Apache-2.0 */
/* gate_internal.h: what the files of the gate share. */
#ifndef NODE_GATE_INTERNAL_H
#define NODE_GATE_INTERNAL_H

#include "io/prefix.h"
#include "io/sk_lookup.h"
#include "node/gate.h"
#include "node/sandbox.h"

enum gate_mode { GATE_NONE, GATE_NODE, GATE_SOCKETS, GATE_ALL };

struct gate_range {
    struct prefix prefix;
    uint32_t next;   /* which address is tried first for the next pod */
    bool current;    /* addresses are given out of it */
    bool local;      /* its route is there */
};

struct gate {
    struct node *node;
    enum gate_mode mode;       /* of new pods */
    struct status why;         /* GATE_NODE: why; GATE_SOCKETS: why not GATE_ALL */
    uint32_t metric;           /* of our routes */
    struct gate_range ranges[GATE_RANGES_MAX];
    size_t range_count;
    char *wanted;              /* owned; what the ranges were made of */
    struct sk_lookup *lookup;  /* owned; NULL: not tried yet, or refused */
    bool lookup_tried;
    struct listener listeners[2]; /* with lookup: IPv4, IPv6 */
    struct strmap by_ip;       /* addresses that were given -> struct gate_pod */
    struct list pods;
    size_t conn_count;
    int64_t complained_ms;     /* monotonic */
    size_t turned_away;        /* since then */
};

/* A port that is open, or (GATE_NODE) reserved. */
struct gate_port {
    struct list link;
    struct gate_pod *pod;
    uint16_t port;
    bool told;                  /* the pod listens there */
    char to[2][IP_TEXT_MAX];    /* where to connect to, for who comes by IPv4 and by IPv6; "": nowhere */
    int reserved_fd;            /* owned; bound, and does not listen yet; else -1 */
    struct listener listeners[2];
    bool open[2];
};

struct gate_pod {
    struct list link;
    struct gate *gate;
    struct sandbox *sandbox;
    struct ip ips[2];           /* own ones; in GATE_NODE the node's */
    size_t ip_count;
    bool own;
    struct list ports;          /* owned */
    struct list conns;          /* owned */
    size_t conn_count, socket_count;
    struct rpc_request *asked;  /* owned; the Ports call */
    bool complained;
};

/* gate.c */
void gate_turned_away(struct gate *gate, const struct gate_pod *pod, const char *why);

/* gate_give.c */
/* TCP ports that a pod declares, each once; how many. */
size_t gate_declared(const Runtime__V1__PodSandboxConfig *config, uint16_t *out, size_t max);
/* Where each range goes on: what gate_plan() has written. */
void gate_restore(struct gate *gate, const Interlink__State__V1__RelayRanges *record);
/* A socket that has that port of the node's address, or -1. */
int gate_bind(const struct ip *ip, uint16_t port, struct status *err);

/* gate_pod.c */
void gate_pod_on_accept(void *arg, int fd); /* arg: the gate */

/* gate_conn.c */
/* Takes fd, a client of that port. */
void gate_conn_start(struct gate_port *port, bool ipv6, int fd);
void gate_conns_break(struct gate_pod *pod);
/* Resets it. */
void gate_refuse(int fd);

#endif
