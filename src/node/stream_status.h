/* SPDX-License-Identifier: Apache-2.0 */
/* stream_status.h: how a command's end is told on its error channel. From version 4 of channel.k8s.io on: a metav1.Status in
 * JSON, also for success; before: plain text, and nothing for success. */
#ifndef NODE_STREAM_STATUS_H
#define NODE_STREAM_STATUS_H

#include "base/base.h"

void stream_status_exit(struct buf *out, int version, int exit_code);
/* what: "error executing command in container". */
void stream_status_error(struct buf *out, int version, const char *what, const struct status *err);

#endif
