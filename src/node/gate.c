/* SPDX-License-Identifier: Apache-2.0 */
#include "node/gate.h"

#include <bearssl_hash.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/route.h"
#include "node/cni.h"
#include "node/gate_internal.h"

/* ---- what should be ---- */

static bool gate_is_needed(const struct node_options *o)
{
    bool needed = false;

    for (size_t i = 0; i < o->handler_count; i++)
        needed = needed || *o->handlers[i].url != '\0';
    return needed;
}

/* The ranges for pods elsewhere, separated by commas. NULL: there are none, and why. */
static const char *gate_wanted(const struct node *node, struct arena *arena, struct status *err)
{
    const struct node_options *o = node->options;
    struct cni_network network;
    const char *reason, *message, *list = "";
    bool found;

    for (const char *const *range = o->relay_cidrs; range != NULL && *range != NULL; range++)
        list = arena_printf(arena, "%s%s%s", list, *list != '\0' ? "," : "", *range);
    if (*list != '\0')
        return list;
    if (!cni_describe(o, arena, &network, &found, &reason, &message) || found) {
        status_set(err, STATUS_FAILED_PRECONDITION,
                   "CNI gives the node's pod CIDR to pods on this machine: pods on others need a range of their own, Network.RelayCIDRs");
        return NULL;
    }
    if (*node->pod_cidr == '\0') {
        status_set(err, STATUS_FAILED_PRECONDITION, "kubelet has told no pod CIDR (yet), and Network.RelayCIDRs is not set");
        return NULL;
    }
    return node->pod_cidr;
}

/* ---- ranges ---- */

static struct gate_range *gate_range_of(struct gate *gate, const struct prefix *prefix)
{
    for (size_t i = 0; i < gate->range_count; i++)
        if (prefix_equal(&gate->ranges[i].prefix, prefix))
            return &gate->ranges[i];
    if (gate->range_count == GATE_RANGES_MAX)
        return NULL;
    gate->ranges[gate->range_count] = (struct gate_range){ .prefix = *prefix };
    return &gate->ranges[gate->range_count++];
}

static bool gate_range_used(const struct gate *gate, const struct gate_range *range)
{
    for (LIST_EACH(struct gate_pod, pod, &gate->pods, link))
        for (size_t i = 0; pod->own && i < pod->ip_count; i++)
            if (prefix_contains(&range->prefix, &pod->ips[i]))
                return true;
    return false;
}

static bool gate_range_open(struct gate *gate, struct gate_range *range, struct status *err)
{
    bool there;

    if (!range->local) {
        if (!route_check(&range->prefix, gate->metric, &there, err) ||
            (!there && !route_add_local(&range->prefix, gate->metric, err)))
            return false;
        range->local = true;
    }
    return gate->lookup == NULL || sk_lookup_set_range(gate->lookup, &range->prefix, true, err);
}

static void gate_range_close(struct gate *gate, struct gate_range *range)
{
    struct status err = STATUS_INIT;
    char text[IP_TEXT_MAX + 4];

    prefix_format(&range->prefix, text);
    if (gate->lookup != NULL)
        sk_lookup_set_range(gate->lookup, &range->prefix, false, &err);
    if (!range->local)
        return;
    range->local = false;
    if (route_remove_local(&range->prefix, gate->metric, &err))
        log_info("%s is no longer for pods on other machines", text);
    else
        log_warn("%s is no longer for pods on other machines, but %s", text, err.message);
}

/* Those that nobody needs any more. */
static void gate_sweep(struct gate *gate)
{
    size_t kept = 0;

    for (size_t i = 0; i < gate->range_count; i++) {
        if (gate->ranges[i].current || gate_range_used(gate, &gate->ranges[i]))
            gate->ranges[kept++] = gate->ranges[i];
        else
            gate_range_close(gate, &gate->ranges[i]);
    }
    gate->range_count = kept;
}

/* ---- one socket for all ---- */

static bool gate_lookup_listen(struct gate *gate, bool ipv6, struct status *err)
{
    struct ip ip;
    char address[IP_TEXT_MAX];

    /* Whoever finds its port on the loopback is turned away: it is no pod's. */
    ip_parse(ipv6 ? "::1" : "127.0.0.1", &ip);
    ip_format(&ip, address);
    int fd = gate_bind(&ip, 0, err);
    return fd >= 0 && listener_take(gate->node->loop, &gate->listeners[ipv6], fd, GATE_BACKLOG, gate_pod_on_accept, gate, err) &&
           sk_lookup_set_socket(gate->lookup, ipv6, gate->listeners[ipv6].fd, err);
}

static void gate_lookup_open(struct gate *gate)
{
    struct status err = STATUS_INIT, ignored = STATUS_INIT;

    gate->lookup_tried = true;
    gate->lookup = sk_lookup_open(&err);
    if (gate->lookup != NULL && gate_lookup_listen(gate, false, &err)) {
        gate_lookup_listen(gate, true, &ignored); /* a machine may have no IPv6 */
        return;
    }
    gate->why = err;
    sk_lookup_free(gate->lookup);
    gate->lookup = NULL;
}

/* ---- which it is ---- */

static bool gate_take_ranges(struct gate *gate, const char *wanted, struct status *err)
{
    cleanup_free char *copy = xstrdup(wanted);
    size_t count = 0;

    for (char *rest = copy, *text; (text = strsep(&rest, ",")) != NULL; count++) {
        struct status failed = STATUS_INIT;
        struct prefix prefix;
        struct gate_range *range = prefix_parse(text, &prefix, &failed) ? gate_range_of(gate, &prefix) : NULL;
        if (range == NULL && failed.code == STATUS_OK)
            status_set(&failed, STATUS_RESOURCE_EXHAUSTED, "%d older ranges are still in use", GATE_RANGES_MAX);
        if (range != NULL && gate_range_open(gate, range, &failed)) {
            range->current = true;
            continue;
        }
        if (count == 0) { /* pods without their first address are none; without their second they are */
            *err = failed;
            return false;
        }
        log_warn("pods on other machines get no address of %s: %s", text, failed.message);
    }
    return true;
}

static void gate_set_mode(struct gate *gate, enum gate_mode mode, const char *wanted, const struct status *why)
{
    static const char *const words[] = {
        [GATE_SOCKETS] = "each port that they listen on has a socket of its own",
        [GATE_ALL] = "one socket takes the connections to all of their ports",
    };
    bool changed = mode != gate->mode || strcmp(wanted, gate->wanted) != 0 || strcmp(why->message, gate->why.message) != 0;

    if (changed && mode == GATE_NODE)
        log_info("pods on other machines have no addresses of their own, but this node's: %s", why->message);
    else if (changed && mode > GATE_NODE)
        log_info("pods on other machines get addresses of %s; %s%s%s", wanted, words[mode], mode == GATE_SOCKETS ? ": " : "",
                 mode == GATE_SOCKETS ? why->message : "");
    gate->mode = mode;
    gate->why = *why;
    free(gate->wanted);
    gate->wanted = xstrdup(wanted);
}

void gate_refresh(struct gate *gate)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status why = STATUS_INIT;

    if (!gate_is_needed(gate->node->options))
        return;
    const char *wanted = gate_wanted(gate->node, &arena, &why);
    if (wanted != NULL && gate->mode > GATE_NODE && strcmp(wanted, gate->wanted) == 0)
        return;
    for (size_t i = 0; i < gate->range_count; i++)
        gate->ranges[i].current = false;
    if (wanted != NULL && !gate->lookup_tried)
        gate_lookup_open(gate);
    struct status no_lookup = gate->lookup == NULL && gate->lookup_tried ? gate->why : (struct status)STATUS_INIT;
    if (wanted == NULL || !gate_take_ranges(gate, wanted, &why)) {
        for (size_t i = 0; i < gate->range_count; i++)
            gate->ranges[i].current = false;
        gate_set_mode(gate, GATE_NODE, "", &why);
        gate->lookup_tried = gate->lookup != NULL; /* what it was refused for is forgotten */
    } else {
        gate_set_mode(gate, gate->lookup != NULL ? GATE_ALL : GATE_SOCKETS, wanted, &no_lookup);
    }
    gate_sweep(gate);
}

/* ---- life ---- */

static uint32_t gate_metric(const char *state_dir)
{
    br_sha256_context context;
    uint8_t digest[br_sha256_SIZE];

    br_sha256_init(&context);
    br_sha256_update(&context, state_dir, strlen(state_dir));
    br_sha256_out(&context, digest);
    /* Not 0, which the kernel takes for none; and positive, for all tools. */
    return ((uint32_t)digest[0] << 16 | (uint32_t)digest[1] << 8 | digest[2]) + 1;
}

/* Of an earlier life. One that still waits, and was not given an address yet, comes of a version that did so later. */
static void gate_adopt(struct sandbox *sandbox)
{
    struct status err = STATUS_INIT;

    if (*sandbox->record->ip == '\0' && !sandbox_listed(sandbox) &&
        !gate_plan(sandbox->node, sandbox->handler, sandbox->record, &err))
        log_warn("pod %.13s: %s", sandbox->record->id, err.message);
    gate_add(sandbox);
}

struct gate *gate_start(struct node *node)
{
    struct gate *gate = xcalloc(1, sizeof *gate);
    struct prefix found[GATE_RANGES_MAX];
    struct strmap_iter it = { 0 };

    gate->node = node;
    node->gate = gate;
    gate->wanted = xstrdup("");
    gate->metric = gate_metric(node->options->state_dir);
    list_init(&gate->pods);
    for (size_t i = 0; i < COUNT_OF(gate->listeners); i++)
        gate->listeners[i].fd = -1;
    for (size_t i = 0, n = route_list_local(gate->metric, found, COUNT_OF(found)); i < n; i++)
        gate_range_of(gate, &found[i])->local = true;
    while (strmap_next(&node->sandboxes, &it))
        gate_add(it.value);
    gate_refresh(gate);
    for (it = (struct strmap_iter){ 0 }; strmap_next(&node->sandboxes, &it);)
        gate_adopt(it.value);
    if (node->gate_record != NULL) {
        gate_restore(gate, node->gate_record->relay);
        protobuf_c_message_free_unpacked(&node->gate_record->base, NULL);
        node->gate_record = NULL;
    }
    /* Older ranges, in which pods have addresses. */
    for (size_t i = 0; i < gate->range_count; i++) {
        struct status err = STATUS_INIT;
        if (!gate->ranges[i].current && gate_range_used(gate, &gate->ranges[i]) && !gate_range_open(gate, &gate->ranges[i], &err))
            log_warn("pods of an earlier configuration cannot be reached: %s", err.message);
    }
    gate_sweep(gate);
    return gate;
}

void gate_stop(struct gate *gate)
{
    if (gate == NULL)
        return;
    for (size_t i = 0; i < gate->range_count; i++)
        if (!gate_range_used(gate, &gate->ranges[i]))
            gate_range_close(gate, &gate->ranges[i]);
    while (!list_empty(&gate->pods))
        gate_remove(CONTAINER_OF(gate->pods.next, struct gate_pod, link)->sandbox);
    for (size_t i = 0; i < COUNT_OF(gate->listeners); i++)
        listener_close(&gate->listeners[i]);
    sk_lookup_free(gate->lookup);
    strmap_free(&gate->by_ip);
    free(gate->wanted);
    free(gate);
}

/* ---- what is said of it ---- */

void gate_turned_away(struct gate *gate, const struct gate_pod *pod, const char *why)
{
    int64_t now = clock_mono_ms();

    gate->turned_away++;
    if (gate->complained_ms != 0 && now - gate->complained_ms < GATE_COMPLAINT_MS)
        return;
    log_warn("%zu connections to pods were turned away, the last one to pod %.13s: %s", gate->turned_away,
             pod->sandbox->record->id, why);
    gate->complained_ms = now;
    gate->turned_away = 0;
}

bool gate_describe(struct node *node, struct arena *arena, const char **reason, const char **message)
{
    struct gate *gate = node->gate;

    if (gate == NULL || !gate_is_needed(node->options))
        return false;
    gate_refresh(gate);
    if (gate->mode == GATE_NODE) {
        *reason = "NodeAddress";
        *message = arena_printf(arena, "pods on other machines have this node's address, where only TCP ports that they declare are open: %s",
                                gate->why.message);
        return true;
    }
    *reason = "RelayCIDRs";
    *message = arena_printf(arena, "pods on other machines get addresses of %s, where all TCP ports that they listen on are open%s%s",
                            gate->wanted, gate->mode == GATE_SOCKETS ? ", with a socket for each: " : "",
                            gate->mode == GATE_SOCKETS ? gate->why.message : "");
    return true;
}

static bool gate_may_route(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { { 0, 0, 0 }, { 0, 0, 0 } };

    return syscall(SYS_capget, &header, data) == 0 && (data[0].effective & 1u << CAP_NET_ADMIN) != 0;
}

bool gate_try(const char *const *ranges, const char *state_dir, bool *all, struct status *err)
{
    struct status ignored = STATUS_INIT;
    struct prefix prefix;
    bool there;

    struct sk_lookup *lookup = sk_lookup_open(&ignored);
    *all = lookup != NULL;
    sk_lookup_free(lookup);
    for (const char *const *range = ranges; range != NULL && *range != NULL; range++)
        if (!prefix_parse(*range, &prefix, err) || !route_check(&prefix, gate_metric(state_dir), &there, err))
            return false;
    return gate_may_route() || status_set(err, STATUS_PERMISSION_DENIED, "that needs CAP_NET_ADMIN");
}
