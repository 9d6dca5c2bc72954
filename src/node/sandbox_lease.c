/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox.h"

#include "node/waiter.h"

/* kubelet lists every second; when it has not for this long it is not running. */
#define SANDBOX_POLL_RECENT_MS 5000

void sandbox_check_leases(struct node *node, int64_t elapsed_ms)
{
    struct strmap_iter it = { 0 };

    if (node->last_poll_ms == 0 || clock_mono_ms() - node->last_poll_ms > SANDBOX_POLL_RECENT_MS)
        return;
    while (strmap_next(&node->sandboxes, &it)) {
        struct sandbox *sandbox = it.value;
        if (sandbox_listed(sandbox) || sandbox->stopping || waiters_any(&sandbox->waiters, WAIT_READY))
            continue;
        sandbox->lease_used_ms += elapsed_ms;
        if (sandbox->lease_used_ms < node->options->queue_lease_ms)
            continue;
        log_info("pod %.13s: nobody has asked for it for %" PRId64 " s of kubelet's polling: cancelling its job",
                 sandbox->record->id, sandbox->lease_used_ms / 1000);
        sandbox_expire(sandbox);
    }
}

#undef SANDBOX_POLL_RECENT_MS
