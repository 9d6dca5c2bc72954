/* SPDX-License-Identifier: Apache-2.0 */
/* counters.h: what is counted while the node works, and all that can be counted when somebody asks, for Prometheus.
 *
 * Names: grpc_server_* as gRPC's own middleware has them (containerd's dashboards fit), process_* as Prometheus' clients have
 * them, and interlink_cri_* for the rest. Labels are handlers, methods and states: their number is bounded by the
 * configuration, never by pods. */
#ifndef NODE_COUNTERS_H
#define NODE_COUNTERS_H

#include "node/node.h"

struct counters_method;

struct counters {
    struct node *node;
    int64_t started_ns;             /* real time */
    struct counters_method *methods; /* owned; those that were called */
    size_t method_count;
    uint64_t log_bytes;             /* of containers' output, stored */
    uint64_t pulls, failed_pulls;
    struct prometheus_histogram pull_seconds; /* of those that did not fail */
};
struct counters *counters_new(struct node *node); /* the caller frees */
void counters_free(struct counters *counters);     /* NULL is fine */

/* For rpc_services.on_call_end; service and method are literals of the tables of methods. */
void counters_on_call_end(void *arg, const char *service, const char *method, enum status_code code, double seconds);
/* A pod has left its queue; created_at: real time, ns. */
void counters_queue_wait(struct handler *handler, int64_t created_at);
void counters_pull_ended(struct counters *counters, bool ok, int64_t started_ms);

void counters_write(const struct counters *counters, struct buf *out);

#endif
