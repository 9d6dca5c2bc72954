/* SPDX-License-Identifier: Apache-2.0 */
/* pod_log_files.h: the files of a container's log, as an agent with a manifest leaves them (agent/podrun.h), and where in them something
 * is. Nothing is read that need not be: from the end backwards for the last lines, by halving for a time. */
#ifndef PLUGIN_POD_LOG_FILES_H
#define PLUGIN_POD_LOG_FILES_H

#include "base/base.h"

/* The parts of one attempt's log, oldest first: DIR/K.log.1, K.log.2... and K.log, which may grow. */
struct pod_log_files {
    char *dir;       /* owned */
    int64_t attempt; /* < 0: there is none */
    unsigned first, last; /* numbered parts; last < first: none */
};

/* The newest attempt's, or with `previous` the one's before. Opens nothing. False: there is none. */
bool pod_log_files_find(const char *job_dir, const char *container, bool previous, struct pod_log_files *out);
void pod_log_files_free(struct pod_log_files *f);
/* Part number `part` (first to last), or last + 1: the one that may grow. -1 when it is gone. */
int pod_log_files_open(const struct pod_log_files *f, unsigned part);

struct pod_log_place {
    unsigned part;
    off_t offset; /* of a line's beginning */
};
/* The last `lines` lines begin at... (the log's beginning when it has fewer). */
struct pod_log_place pod_log_files_tail(const struct pod_log_files *f, uint64_t lines);
/* A place before which all lines are older than since_ns; what follows is to be looked at line by line. */
struct pod_log_place pod_log_files_since(const struct pod_log_files *f, int64_t since_ns);

#endif
