/* SPDX-License-Identifier: Apache-2.0 */
/* pod_log.h: the log of a container that an agent with a manifest runs, as the answer to a log request: all of LogStruct's options. */
#ifndef PLUGIN_POD_LOG_H
#define PLUGIN_POD_LOG_H

#include "http/server.h"
#include "interlink/message.h"

struct loop;

struct pod_log_options {
    const char *job_dir; /* borrowed for the call */
    const struct interlink_log_request *request; /* borrowed for the call */
    int64_t now_ns;
    /* With `follow`: whether attempt `attempt` of the container (< 0: the first one to come) may still write. `arg` is taken and freed
     * (free()). */
    bool (*live)(void *arg, int64_t attempt);
    void *arg;
};
/* Takes the exchange: it is answered, now or later, or dropped when its peer goes or the server is freed. What is not read by the peer is
 * not read from the disk. */
void pod_log_start(struct loop *loop, struct http_exchange *x, const struct pod_log_options *options);

#endif
