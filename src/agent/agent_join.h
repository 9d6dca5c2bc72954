/* SPDX-License-Identifier: Apache-2.0 */
/* agent_join.h: where the node comes to the agent, when the agent does not come to the node: a socket (0600) in the job's folder, to
 * which `interlink-cri join` connects on the same machine, run by a command of the node's. What comes in is no authority by itself:
 * the agent calls over it as over a connection that it has dialled, TLS with the node's pinned key and its token and all. */
#ifndef AGENT_AGENT_JOIN_H
#define AGENT_AGENT_JOIN_H

#include "io/socket.h"
#include "io/stream.h"

struct agent_join {
    struct listener listener;
    struct loop *loop;
    int dir_fd;  /* the job's folder, since its path may be longer than a socket's may; -1 */
    char *link;  /* owned: in /tmp, for who knows the pod's id alone; NULL: none */
    void (*on_stream)(void *arg, struct stream *stream); /* takes it */
    void *arg;
};

/* A socket or a link of an agent that was killed is replaced. */
bool agent_join_open(struct agent_join *join, struct loop *loop, const char *job_dir, const char *sandbox_id,
                     void (*on_stream)(void *arg, struct stream *stream), void *arg, struct status *err);
void agent_join_close(struct agent_join *join);

/* `interlink-cri join POD`, beside the agent: POD is the pod's id or the absolute path of its job's folder. What comes in on
 * standard input goes to the agent, what the agent says to standard output, until either ends. */
int agent_join_main(int argc, char **argv);

#endif
