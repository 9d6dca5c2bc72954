/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cni.h: networks of pods' own on this machine: which one there is, whether pods can have it, and turns for the workers that run
 * plugins.
 *
 * The configuration is read whenever it is needed, so that a change counts for the next pod; a pod keeps what it began with. Where
 * there is none, or serve may not make namespaces, pods use the machine's network (Network.Mode "auto").
 */
#ifndef NODE_CNI_H
#define NODE_CNI_H

#include "io/loop.h"
#include "node/cni_exec.h"
#include "node/node.h"

struct cni *cni_new(struct node *node);
/* Once pods are restored: ends what an earlier life left running, tidies what no record knows, then lets restored pods'
 * networks go on (pod_network_resume). */
void cni_start(struct cni *cni);
/* Nothing is begun any more. NULL is fine, here and below. */
void cni_stop(struct cni *cni);
void cni_free(struct cni *cni);

/* What a new pod on this machine gets: *offered is false when it uses the machine's network. On failure no pod with a network of
 * its own can be started now: the reason. */
bool cni_offer(struct cni *cni, struct arena *arena, struct cni_network *out, bool *offered, struct status *err);
/* What is configured, without asking plugins: whether pods can have what they should, a word and a sentence; *found: a network,
 * in *out. */
bool cni_describe(const struct node_options *options, struct arena *arena, struct cni_network *out, bool *found,
                  const char **reason, const char **message);
/* The condition NetworkReady; the words live on the arena. May ask the plugins anew, for the next time (STATUS). */
bool cni_condition(struct cni *cni, struct arena *arena, const char **reason, const char **message);
const struct cni_exec *cni_exec_options(const struct cni *cni);
/* Where a pod's namespace is mounted: /run/netns/icri-TAG-ID, where plugins that run elsewhere and people (ip netns) look for
 * it. TAG stands for our state folder: another serve's are left alone. */
char *cni_netns_path(const struct cni *cni, struct arena *arena, const char *sandbox_id);
bool cni_started(const struct cni *cni); /* pods' plugins may be run */

/* ---- turns: so that a thousand pods do not run a thousand chains at once ---- */
struct cni_turn {
    struct list link;
    void (*run)(void *arg);
    void *arg;
    enum { CNI_TURN_NONE, CNI_TURN_WAITS, CNI_TURN_RUNS } state;
};
/* CHECK may be begun: of one pod at a time. Its end lets others go on (pod_network_resume). */
bool cni_check_begin(struct cni *cni);
void cni_check_end(struct cni *cni);
/* run(arg) is called now or later; then cni_turn_end() must be. */
void cni_turn_take(struct cni *cni, struct cni_turn *turn, void (*run)(void *arg), void *arg);
void cni_turn_end(struct cni *cni, struct cni_turn *turn); /* also of one that waits; harmless on one that has none */

#endif
