/* SPDX-License-Identifier: Apache-2.0 */
/* Source: k8s.io/apimachinery/pkg/apis/meta/v1 (Status), k8s.io/apimachinery/pkg/util/remotecommand. */
#include "node/stream_status.h"

#include "text/json.h"

#define STREAM_STATUS_VERSION 4

/* Up to where the reason's own members begin. */
static void stream_status_begin(struct json_writer *w, struct buf *out, const char *status)
{
    json_writer_init(w, out, 0);
    json_write_object(w);
    json_write_member_object(w, "metadata");
    json_write_end(w);
    json_write_member_string(w, "status", status);
}

/* "reason" in a cause is its type. */
static void stream_status_cause(struct json_writer *w, const char *reason, const char *message)
{
    json_write_member_object(w, "details");
    json_write_member_array(w, "causes");
    json_write_object(w);
    if (*reason != '\0')
        json_write_member_string(w, "reason", reason);
    json_write_member_string(w, "message", message);
    json_write_end(w);
    json_write_end(w);
    json_write_end(w);
}

void stream_status_exit(struct buf *out, int version, int exit_code)
{
    struct json_writer w;
    char text[96], number[16];

    snprintf(number, sizeof number, "%d", exit_code);
    snprintf(text, sizeof text, "command terminated with non-zero exit code: %d", exit_code);
    if (version < STREAM_STATUS_VERSION) {
        buf_append_str(out, exit_code != 0 ? text : "");
        return;
    }
    stream_status_begin(&w, out, exit_code == 0 ? "Success" : "Failure");
    if (exit_code != 0) {
        json_write_member_string(&w, "message", text);
        json_write_member_string(&w, "reason", "NonZeroExitCode");
        stream_status_cause(&w, "ExitCode", number);
    }
    json_write_end(&w);
}

void stream_status_error(struct buf *out, int version, const char *what, const struct status *err)
{
    struct json_writer w;
    cleanup_free char *text = xasprintf("%s: %s", what, err->message);
    cleanup_free char *message = xasprintf("Internal error occurred: %s", text);

    if (version < STREAM_STATUS_VERSION) {
        buf_append_str(out, message);
        return;
    }
    stream_status_begin(&w, out, "Failure");
    json_write_member_string(&w, "message", message);
    json_write_member_string(&w, "reason", "InternalError");
    stream_status_cause(&w, "", text);
    json_write_member_i64(&w, "code", 500);
    json_write_end(&w);
}

#undef STREAM_STATUS_VERSION
