/* SPDX-License-Identifier: Apache-2.0 */
/* backend_common.h: what backends do alike: a folder DIR that is theirs alone, records of jobs in it (DIR/records/UID.SUFFIX), and
 * the status of a pod of which nothing is known yet. `backend` is the one that log lines name. */
#ifndef PLUGIN_BACKEND_COMMON_H
#define PLUGIN_BACKEND_COMMON_H

#include "base/base.h"
#include "interlink/message.h"
#include "interlink/pod.h"

/* DIR/lock, held until the descriptor that is returned is closed; -1: another plugin has it (FAILED_PRECONDITION), or an error. */
int backend_lock(const char *dir, struct status *err);

char *backend_record_path(const char *dir, const char *uid, const char *suffix); /* the caller frees */
/* Removes the files of one record in that order; those that are not there are fine. */
void backend_record_remove(const char *backend, const char *dir, const char *uid, const char *const *suffixes, size_t count);
/* A record that makes no sense becomes PATH.bad, with a line in the log. */
void backend_record_set_aside(const char *backend, const char *path, const char *uid, const struct status *why);
/* Calls fn for each entry of DIR/FOLDER whose name, without `suffix`, is a uid. */
bool backend_each(const char *dir, const char *folder, const char *suffix, void (*fn)(void *arg, const char *uid), void *arg,
                  struct status *err);

/* Tells the agent in this folder how long its next TERM leaves its containers (agent/agent.h). */
void backend_write_grace(const char *job_dir, int64_t seconds);
bool backend_grace_written(const char *job_dir);

/* The pod's names and its containers' with no state; in the arena. */
void backend_status_init(struct arena *arena, const struct interlink_pod *pod, struct interlink_pod_status *out);

#endif
