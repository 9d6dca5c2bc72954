/* SPDX-License-Identifier: Apache-2.0 */
/* reflection.h: gRPC server reflection, v1 and v1alpha, so that clients such as grpcurl need no .proto files. */
#ifndef RPC_REFLECTION_H
#define RPC_REFLECTION_H

#include "rpc/rpc.h"

struct rpc_reflection;

/* `descriptors`: an encoded google.protobuf.FileDescriptorSet that holds the files of all services in `services`, imports
 * included. Both must outlive it; `services` may be the table that reflection's own services are in. NULL when the set
 * is malformed. */
struct rpc_reflection *rpc_reflection_new(const struct rpc_services *services, struct str descriptors,
                                          struct status *err);
/* To be offered: owned by `reflection`. */
const struct rpc_service *rpc_reflection_v1(struct rpc_reflection *reflection);
const struct rpc_service *rpc_reflection_v1alpha(struct rpc_reflection *reflection);
/* The connections must be gone. NULL is fine. */
void rpc_reflection_free(struct rpc_reflection *reflection);

#endif
