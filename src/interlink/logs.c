/* SPDX-License-Identifier: Apache-2.0 */
#include "interlink/target.h"

static void target_logs_free(struct interlink_logs *logs)
{
    if (logs->freed != NULL)
        *logs->freed = true;
    list_remove(&logs->link);
    free(logs);
}

static void target_logs_on_body(void *arg, struct str piece)
{
    struct interlink_logs *logs = arg;
    bool freed = false;

    logs->freed = &freed;
    bool more = logs->events->on_data(logs->arg, piece.p, piece.n);
    if (freed)
        return;
    logs->freed = NULL;
    if (more || logs->paused)
        return;
    logs->paused = true;
    http_request_pause(logs->call->request, true);
}

static void target_logs_on_answer(void *arg, const struct interlink_answer *answer)
{
    struct interlink_logs *logs = arg;
    const struct interlink_logs_events *events = logs->events;
    void *owner = logs->arg;

    target_logs_free(logs);
    events->on_end(owner, answer->err);
}

struct interlink_logs *interlink_logs_start(struct interlink_target *target,
                                            const struct interlink_log_request *request,
                                            const struct interlink_logs_events *events, void *arg)
{
    struct interlink_logs *logs = xcalloc(1, sizeof *logs);
    cleanup_buf struct buf body = BUF_INIT;

    *logs = (struct interlink_logs){ .events = events, .arg = arg };
    list_append(&target->logs, &logs->link);
    interlink_log_request_write(&body, request);
    logs->call = interlink_call_start(target, &(struct interlink_call_options){
                                                  .method = "GET", .path = "/getLogs",
                                                  .body = { (const char *)body.p, body.n },
                                                  .on_body = target_logs_on_body,
                                                  .on_answer = target_logs_on_answer,
                                                  .arg = logs });
    return logs;
}

void interlink_logs_resume(struct interlink_logs *logs)
{
    if (!logs->paused || logs->call->request == NULL)
        return;
    logs->paused = false;
    http_request_pause(logs->call->request, false);
}

void interlink_logs_cancel(struct interlink_logs *logs)
{
    if (logs == NULL)
        return;
    interlink_call_cancel(logs->call);
    target_logs_free(logs);
}
