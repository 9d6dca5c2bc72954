/* SPDX-License-Identifier: Apache-2.0 */
/* logfile.h: a container's output: a stream of CRI log lines from an agent, appended to a file.
 *
 * Exactly once, whatever dies: the position is the file's own size plus what LogPosition (state.proto) says, so no
 * write of ours can be counted twice or not at all:
 *   opening a file   1. position {stored: N, inode: 0}   2. open or create   3. position {start: N - size, inode}
 *   after a crash    inode 0: N is stored; else start + size of that file, found again by its inode when kubelet has
 *                    renamed it meanwhile
 * The agent keeps what is not acknowledged. */
#ifndef AGENT_LOGFILE_H
#define AGENT_LOGFILE_H

#include "base/base.h"
#include "io/loop.h"
#include "rpc/rpc.h"

struct logfile;

struct logfile_options {
    struct loop *loop;
    const char *container_id;
    const char *path;          /* absolute; "": output is acknowledged and dropped */
    const char *position_path; /* the LogPosition's own file */
    uint64_t *total;           /* bytes stored are added here, too; may be NULL */
    void (*on_stored)(void *arg); /* more has been written; may be NULL; may call logfile_reopen */
    void (*on_end)(void *arg); /* the container has ended and all is stored; from the loop */
    void (*on_room)(void *arg); /* after logfile_take() said false; NULL with an agent */
    void *arg;
};
/* Recovers the position of an earlier life. Opens the file (folders are made, 0755). */
struct logfile *logfile_new(const struct logfile_options *options, struct status *err); /* NULL on failure */
/* (Re)starts the stream on a connection to the agent; NULL: the connection is gone. */
void logfile_connect(struct logfile *log, struct rpc_conn *conn);
/* Without an agent: CRI log lines, the first byte of which has this offset in the whole output; what is stored already is passed
 * over. False: the disk is full; more only after on_room. */
bool logfile_take(struct logfile *log, uint64_t offset, const void *p, size_t n);
/* That was all: on_end, once it is stored. */
void logfile_take_end(struct logfile *log);
/* ReopenContainerLog: the file at the path from now on, made before this returns; the old one grows no more. */
bool logfile_reopen(struct logfile *log, struct status *err);
bool logfile_ended(const struct logfile *log);
uint64_t logfile_stored(const struct logfile *log);
/* Keeps files; NULL is fine. */
void logfile_free(struct logfile *log);

#endif
