/* SPDX-License-Identifier: Apache-2.0 */
/* What a target may answer, and what a client may ask for logs with: states, created jobs, pings, log requests, error texts. */
#include "interlink/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_statuses(struct str json)
{
    struct interlink_pod_status *statuses;
    size_t count;
    struct status err = STATUS_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf first = BUF_INIT, second = BUF_INIT;

    if (!interlink_statuses_read(&arena, json, &statuses, &count, &err))
        return;
    interlink_statuses_write(&first, statuses, count);
    if (!interlink_statuses_read(&arena, (struct str){ (const char *)first.p, first.n }, &statuses, &count, &err))
        abort();
    interlink_statuses_write(&second, statuses, count);
    if (first.n != second.n || memcmp(first.p, second.p, first.n) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size };
    struct interlink_created created;
    struct interlink_ping ping;
    struct interlink_log_request request;
    struct status err = STATUS_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf out = BUF_INIT;

    check_statuses(text);
    interlink_ping_read(&arena, text, &ping);
    interlink_ping_write(&out, &ping);
    if (interlink_created_read(&arena, text, &created, &err))
        interlink_created_write(&out, &created);
    if (interlink_log_request_read(&arena, text, &request, &err))
        interlink_log_request_write(&out, &request);
    buf_clear(&out);
    interlink_error_text(text, 500, &out);
    if (out.n >= STATUS_MESSAGE_MAX)
        abort();
    for (size_t i = 0; i < out.n; i++)
        if (out.p[i] < ' ' || out.p[i] == 0x7f)
            abort();
    return 0;
}
