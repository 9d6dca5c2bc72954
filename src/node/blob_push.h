/* SPDX-License-Identifier: Apache-2.0 */
/* blob_push.h: an image to an agent that cannot see the image store: asks what it lacks and sends that, blob after blob,
 * as fast as the connection takes it. The agent verifies each by its digest. */
#ifndef NODE_BLOB_PUSH_H
#define NODE_BLOB_PUSH_H

#include "node/node.h"

struct blob_push;

/* `image` is borrowed for the call. on_done is called once, from the loop: err NULL when the agent has everything. The
 * push is gone when it returns. The image must be held meanwhile. */
struct blob_push *blob_push_start(struct node *node, struct rpc_conn *conn, Interlink__Agent__V1__Image *image,
                                  void (*on_done)(void *arg, const struct status *err), void *arg);

#endif
