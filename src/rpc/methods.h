/* SPDX-License-Identifier: Apache-2.0 */
/* methods.h: from a request's path to what answers it. */
#ifndef RPC_METHODS_H
#define RPC_METHODS_H

#include "rpc/rpc.h"

struct rpc_methods; /* a hash table over struct rpc_services, which must outlive it */

struct rpc_methods *rpc_methods_new(const struct rpc_services *services); /* the caller frees */
void rpc_methods_free(struct rpc_methods *methods);                       /* NULL is fine */
const struct rpc_services *rpc_methods_services(const struct rpc_methods *methods);
/* "/package.Service/Method"; UNIMPLEMENTED, naming what is unknown. */
bool rpc_methods_find(const struct rpc_methods *methods, struct str path, const struct rpc_service **service,
                      const struct rpc_method **method, struct status *err);

#endif
