/* SPDX-License-Identifier: Apache-2.0 */
/* agent_relay.h: the addresses at which the node is to be reached, and whose turn it is: those that the job was made with, or, when
 * the file is there, those of JOB_DIR/relay. The node writes it when it has come to be reached elsewhere (HelloRequest.relay), and an
 * operator may, when it has moved without a word. It is read anew for each dial, as names are looked up anew. */
#ifndef AGENT_AGENT_RELAY_H
#define AGENT_AGENT_RELAY_H

#include "base/base.h"

struct agent_relay {
    char *given;         /* owned: addresses as address_parse() takes them, separated by commas; "": none */
    const char *job_dir; /* borrowed */
    size_t turn;
    char *current; /* owned */
};

/* Whether each is an address; INVALID_ARGUMENT. An empty list is none, and good. */
bool agent_relay_check(const char *addresses, struct status *err);
/* The one to dial now; valid until the next call. "": there is none. */
const char *agent_relay_next(struct agent_relay *relay);
/* What the node says of itself; what is no list of addresses is left out with a log line. */
void agent_relay_learn(const struct agent_relay *relay, const char *addresses);
void agent_relay_free(struct agent_relay *relay);

#endif
