/* SPDX-License-Identifier: Apache-2.0 */
/* health.h: the standard gRPC health service (grpc.health.v1). */
#ifndef RPC_HEALTH_H
#define RPC_HEALTH_H

#include "rpc/rpc.h"

struct rpc_health;

/* Everything in `services`, and the server as a whole (""), is SERVING at first. `services` must outlive it; it may be
 * the table that the health service itself is in. */
struct rpc_health *rpc_health_new(const struct rpc_services *services);
/* Watchers are told. `service`: "" is the server as a whole; unknown names are ignored. */
void rpc_health_set(struct rpc_health *health, const char *service, bool serving);
/* Everything is NOT_SERVING from now on, and watches end (they would keep connections from draining). */
void rpc_health_shutdown(struct rpc_health *health);
/* To be offered: owned by `health`. */
const struct rpc_service *rpc_health_service(struct rpc_health *health);
/* The connections must be gone. NULL is fine. */
void rpc_health_free(struct rpc_health *health);

#endif
