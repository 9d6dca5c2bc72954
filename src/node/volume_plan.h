/* SPDX-License-Identifier: Apache-2.0 */
/* volume_plan.h: where each mount of a container that runs elsewhere comes from, and the files that have to be sent for that. */
#ifndef NODE_VOLUME_PLAN_H
#define NODE_VOLUME_PLAN_H

#include "node/volume_place.h"
#include "node/volume_read.h"

#include "agent.pb-c.h"
#include "cri.pb-c.h"

struct volume_plan {
    struct volume_piece *pieces; /* owned */
    size_t piece_count;
    Interlink__Agent__V1__CreateContainerRequest *request; /* owned; only its sources are set */
};

/* Worker: reads what is copied into `fd` and appends the plan, encoded. A mount that cannot be had there is FAILED_PRECONDITION or
 * NOT_FOUND and named: "config.mounts[3].host_path: ...". `handler`: for the message. */
bool volume_plan_make(const Runtime__V1__ContainerConfig *config, const char *pod_uid, const char *const *shared, const char *handler,
                      int fd, struct buf *output, struct status *err);
/* Worker: reads projected volumes again; those that cannot be read are left out, with a line in the log. Appends a plan without
 * sources. */
void volume_plan_reread(const char *const *paths, size_t count, const char *pod_uid, int fd, struct buf *output);
/* What the worker has appended. False: INTERNAL. */
bool volume_plan_parse(struct str output, struct volume_plan *out, struct status *err);
void volume_plan_free(struct volume_plan *p); /* all zero is fine */

#endif
