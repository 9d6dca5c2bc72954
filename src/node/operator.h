/* SPDX-License-Identifier: Apache-2.0 */
/* operator.h: HTTP for who runs the node, on a loopback address or a socket of its own; off unless the configuration names one.
 *
 *   GET /healthz       200 "ok", or 503 with a line for each check that failed; ?verbose shows all, ?exclude=NAME leaves one
 *                      out (several times), as the /healthz of Kubernetes' own programs. Checks: state (a record is written
 *                      to the disk and removed), loop (no turn took long), target-HANDLER (the interLink API answers)
 *   GET /metrics       counters.h
 *   GET /debug/state   pods and containers as JSON: states, jobs, connections; no environment, no annotation, no token
 *
 * There is no authentication: whoever may log in to the node may read on loopback what runs there. */
#ifndef NODE_OPERATOR_H
#define NODE_OPERATOR_H

#include "node/node.h"

struct operator;

/* On node->options->metrics_address. NULL on failure. */
struct operator *operator_start(struct node *node, struct status *err);
/* From now on /healthz says 503: the node is being stopped. NULL is fine. */
void operator_leaving(struct operator *operator);
void operator_stop(struct operator *operator); /* NULL is fine */

#endif
