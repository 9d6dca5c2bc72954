/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_blobs.h: from an image that the node names to layer folders that an engine can mount. A layer is looked for
 *
 *   1. in the node's own store, when this machine sees it:  <images>/layers/HEX       (HEX: of the diff id), when it is
 *      unpacked for the user ids that the job has
 *   2. unpacked here before:                                <job>/images/layers/HEX
 *   3. as a blob in the store:                              <images>/blobs/sha256/HEX (HEX: of the compressed blob)
 *   4. as a blob that the node sent:                        <job>/images/blobs/HEX
 *
 * and asked for when it is in none of these. 3 and 4 are unpacked when a container is created.
 */
#ifndef AGENT_AGENT_BLOBS_H
#define AGENT_AGENT_BLOBS_H

#include "base/base.h"
#include "rpc/rpc.h"

#include "agent.pb-c.h"

struct agent;

/* Handlers of MissingBlobs and PutBlob. */
void agent_blobs_missing(struct agent *agent, struct rpc_call *call, const Interlink__Agent__V1__MissingBlobsRequest *request);
void agent_blobs_put(struct agent *agent, struct rpc_call *call);

/* The layers' folders, lowest first, in `arena`; unpacks what is not unpacked yet. FAILED_PRECONDITION names a layer that is
 * missing. Worker. */
bool agent_blobs_layers(const struct agent *agent, const Interlink__Agent__V1__Image *image, struct arena *arena,
                        const char *const **dirs, struct status *err);

#endif
