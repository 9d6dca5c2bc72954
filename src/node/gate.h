/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gate.h: where connections to pods on other machines come in.
 *
 *   who            the node                                             the job's machine
 *   client --TCP-> address of the pod, one of ours --pod_conn.h--> agent --TCP-> a container of the pod
 *
 * Such a pod has an address out of a range that is this machine's as a whole (io/route.h): Network.RelayCIDRs, or the node's pod
 * CIDR. Its record has it before anybody hears of it, and keeps it until the pod is removed; the range is gone through in turn, so
 * that an address rests as long as can be. Agents tell which ports the pod's containers listen on (Ports of agent.proto): these are
 * open, all others refuse, at once. So a TCP probe tells the truth.
 *
 *   GATE_ALL       one socket for each family takes the connections to all ports of all pods (io/sk_lookup.h)
 *   GATE_SOCKETS   where the kernel does not allow that: a socket for each open port
 *   GATE_NODE      no range may be had, and `why` says why: pods report the node's own address, and those TCP ports that they declare
 *                  are open there. Of pods that declare the same port the first one has it; the next ones have no address, so that
 *                  nobody takes one for the other.
 *   GATE_NONE      no handler runs pods elsewhere
 *
 * Pods with host network have none of this: kubelet takes the node's address for them.
 *
 *   gate.c        which of these; ranges and their routes
 *   gate_give.c   what address a pod gets
 *   gate_pod.c    the ports of one pod
 *   gate_conn.c   one connection
 */
#ifndef NODE_GATE_H
#define NODE_GATE_H

#include "node/node.h"

struct sandbox;

/* Once pods are restored: takes over their addresses, and the routes of an earlier life. Never NULL. */
struct gate *gate_start(struct node *node);
/* With no pod left that needs them the routes go, too; else they stay: nobody is to be sent elsewhere while serve is away. NULL is
 * fine. */
void gate_stop(struct gate *gate);

/* What it was made of may have changed. */
void gate_refresh(struct gate *gate);
/* Gives a new pod its address and writes it into its record. UNAVAILABLE: no address is free. */
bool gate_plan(struct node *node, const struct handler *handler, Interlink__State__V1__Sandbox *record, struct status *err);
/* The pod is there, its record complete; also one of an earlier life. */
void gate_add(struct sandbox *sandbox);
/* Its agent is connected: asks for its ports. */
void gate_on_agent(struct sandbox *sandbox);
/* Its agent is not any more: the ports refuse, connections break. Also when the pod has stopped. */
void gate_on_agent_lost(struct sandbox *sandbox);
/* Nothing of it runs any more: it needs no port of the node. */
void gate_on_stopped(struct sandbox *sandbox);
/* It is removed, and its address free. */
void gate_remove(struct sandbox *sandbox);

/* For NetworkReady: what there is for pods elsewhere, in *message; false: there are none. *reason: a word. */
bool gate_describe(struct node *node, struct arena *arena, const char **reason, const char **message);
/* For doctor: whether `ranges` (NULL: any) could be had by this user; takes nothing. *all: without a socket for each port. */
bool gate_try(const char *const *ranges, const char *state_dir, bool *all, struct status *err);
/* Open ports of a pod, for ctl inspectp: an array. */
struct json_writer;
void gate_write(struct json_writer *w, const struct sandbox *sandbox);

#endif
