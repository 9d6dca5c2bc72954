/* SPDX-License-Identifier: Apache-2.0 */
/* site_capacity.h: what the sites behind this node have, as its Node object should say it. No I/O: answers to pings and the Node
 * go in, bodies of patches come out.
 *
 * Capacity is told in annotations interlink.eu/capacity-RESOURCE (the slash of an extended resource written "_"), which the
 * admission policy of deploy/capacity-policy.yaml puts into the Node's status: the sum over all sites. The annotation
 * interlink.eu/managed-capacity lists those that are ours, interlink.eu/managed-taints our taints; what others have set there is
 * left alone. When no site has an accelerator any more its annotation says "0", since a kubelet keeps what it does not know;
 * cpu, memory and pods lose theirs and are kubelet's again. */
#ifndef NODE_SITE_CAPACITY_H
#define NODE_SITE_CAPACITY_H

#include "interlink/message.h"
#include "text/json.h"

#include "state.pb-c.h"

#define SITE_CAPACITY_PREFIX "interlink.eu/capacity-"
#define SITE_CAPACITY_MANAGED "interlink.eu/managed-capacity"
#define SITE_CAPACITY_TAINTS "interlink.eu/managed-taints"

/* What is of use in a ping; the caller frees with protobuf_c_message_free_unpacked. `before`: the last report or NULL; a ping
 * without a word of taints leaves them as they were. What cannot be used is named in `odd`, separated by "; ". */
Interlink__State__V1__SiteReport *site_report_of_ping(const char *handler, const struct interlink_ping *ping,
                                                      const Interlink__State__V1__SiteReport *before, struct buf *odd);
bool site_report_equal(const Interlink__State__V1__SiteReport *a, const Interlink__State__V1__SiteReport *b);

/* One annotation each. */
struct site_capacity {
    struct site_capacity_item {
        const char *resource; /* "nvidia.com/gpu" */
        const char *name;     /* "nvidia.com_gpu" */
        const char *value;    /* in the form that the policy takes */
    } *items;
    size_t count;
};
/* The sum, on the arena. */
struct site_capacity site_capacity_sum(struct arena *arena, Interlink__State__V1__SiteReport *const *reports, size_t count);
/* "cpu=128, memory=1Ti" */
const char *site_capacity_text(struct arena *arena, const struct site_capacity *wanted);

/* The body of a merge patch (RFC 7396) of nodes/status that gives the Node its annotations; false when it has them. `all`: also
 * those that it has, so that the policy looks at them again. */
bool site_capacity_patch(const struct site_capacity *wanted, const struct json *node, bool all, struct buf *patch);
/* The first resource whose capacity is not what the annotation says: the policy does not work. NULL: all is well. */
const char *site_capacity_unmet(const struct site_capacity *wanted, const struct json *node);

/* The same for taints: of the Node itself, since its status has none. With the resource version: taints are one list, and
 * others change it too. */
bool site_taints_patch(Interlink__State__V1__SiteReport *const *reports, size_t count, const struct json *node,
                       struct buf *patch);

#endif
