/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's texts that usage is read from: control groups', processes', the network's. The first byte says which. */
#include "agent/net_stats.c"
#include "agent/proc_stats.c"
#include "agent/usage.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct usage u;
    struct net_stats net = { 0 };
    struct proc_process process;
    char route[32];
    uint64_t a = 0, b = 0, threads;
    const struct usage_name names[] = { { "total_rss", &a }, { "Pss:", &b } };

    if (size == 0)
        return 0;
    cleanup_free char *text = xstrndup((const char *)data + 1, size - 1);
    usage_init(&u);
    switch (data[0] % 5) {
    case 0:
        usage_read_names(text, names, COUNT_OF(names));
        break;
    case 1:
        usage_read_pressure(text, &u.cpu_psi);
        break;
    case 2:
        (void)proc_stats_parse(text, &process, &threads);
        break;
    case 3:
        net_stats_parse(text, "eth0", &net);
        for (size_t i = 0; i < net.count; i++)
            if (strlen(net.interfaces[i].name) >= sizeof net.interfaces[i].name)
                abort();
        break;
    case 4:
        net_stats_default_route(text, route);
        break;
    }
    return 0;
}
