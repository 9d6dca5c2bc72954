/* SPDX-License-Identifier: Apache-2.0 */
/* operator_state.h: what the node knows, as JSON: for somebody who asks why a pod is as it is. What may be secret (environment,
 * annotations, commands, tokens) is left out. */
#ifndef NODE_OPERATOR_STATE_H
#define NODE_OPERATOR_STATE_H

#include "node/node.h"

void operator_state_write(struct node *node, struct buf *out);

#endif
