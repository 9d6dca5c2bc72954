/* SPDX-License-Identifier: Apache-2.0 */
/*
 * call_in.h: from the start of a job on another machine to the call of its agent, and after each loss of the connection.
 *
 *                    its job runs          PATIENCE, with Dial          its agent has called
 *      (nothing) -------------> EXPECTED -------------------> COMMAND ----------------------> CALLED
 *                                  ^                              | it ended, or no call in time  | connection lost
 *                                  +------------------------------+ <-----------------------------+
 *
 * Where compute nodes cannot dial out, a handler has a command (Dial: ssh, srun --overlap...) that runs `interlink-cri join` beside the
 * agent. Its standard input and output are the connection: what comes over them is taken as what comes to the relay's port, TLS and
 * token and all, so neither the command nor the network need be trusted. One command lasts as long as the connection.
 *
 * While nothing comes, whoever waits for the pod hears what is known: how long, what the command said, what the agent's log says.
 */
#ifndef NODE_CALL_IN_H
#define NODE_CALL_IN_H

#include "node/sandbox.h"

struct call_in;
struct stream;

/* Its job runs and its agent is not connected. Harmless when that is known already. */
void call_in_expect(struct sandbox *sandbox);
/* An agent has called: by the command, or by itself. */
void call_in_came(struct sandbox *sandbox, const struct stream *stream);
/* What is known of an agent that is expected; "" when none is. */
const char *call_in_words(const struct sandbox *sandbox);
void call_in_free(struct sandbox *sandbox);

/* What is filled in in a handler's Dial. */
struct call_in_places {
    const char *pod, *uid, *jid, *nodes; /* nodes: a host list; "" what is not known */
};
/* The command's words, NULL-terminated, on the arena. UNAVAILABLE when something is not known yet; FAILED_PRECONDITION when it could
 * mean something to a shell. */
const char *const *call_in_fill(struct arena *arena, const char *const *dial, const struct call_in_places *places, struct status *err);

/* "n[1-3,7],m2" -> "n1": the first name of a host list in Slurm's notation; false when it does not fit or is malformed. */
bool call_in_first_node(const char *nodes, char *out, size_t n);

#endif
