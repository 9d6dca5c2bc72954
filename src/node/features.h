/* SPDX-License-Identifier: Apache-2.0 */
/* features.h: what pods of each handler can have, for Status. Of this machine our own program is asked when the node starts,
 * the way it starts an agent; of other machines the agents tell when they call in, and the newest word counts. Until then
 * nothing is promised. */
#ifndef NODE_FEATURES_H
#define NODE_FEATURES_H

#include "node/node.h"

/* Asks for every local handler; the answers come from the loop. A failure is only logged. */
void features_ask(struct node *node);
/* What an agent has said of its machine, when that is not this one; NULL: nothing. */
void features_learn(struct handler *handler, const Interlink__Agent__V1__Features *features);
/* Forgets questions under way. */
void features_free(struct handler *handler);

#endif
