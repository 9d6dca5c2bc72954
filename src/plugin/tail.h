/* SPDX-License-Identifier: Apache-2.0 */
/* tail.h: sends a log file as the answer to a log request: the last lines, a time on, a number of bytes, as it grows.
 * A line's time is the RFC 3339 stamp it begins with; a line without one has the time of the line before it. */
#ifndef PLUGIN_TAIL_H
#define PLUGIN_TAIL_H

#include "http/server.h"
#include "interlink/message.h"

struct loop;

struct tail_options {
    const char *path; /* borrowed for the call */
    const struct interlink_log_request *request; /* borrowed for the call */
    int64_t now_ns;
    /* With `follow`: whether the file may still grow. Asked when its end is reached. `arg` is taken and freed (free()). */
    bool (*live)(void *arg);
    void *arg;
};
/* Takes the exchange: it is answered, now or later, or dropped when its peer goes or the server is freed. */
void tail_start(struct loop *loop, struct http_exchange *x, const struct tail_options *options);

#endif
