/* SPDX-License-Identifier: Apache-2.0 */
#include "node/runtime_config.h"

#include <arpa/inet.h>

#include "node/gate.h"
#include "node/node_object.h"
#include "rpc/pb.h"

#define RUNTIME_CONFIG_FIELD "runtime_config.network_config.pod_cidr"
/* There is one node, so there is one record. */
#define RUNTIME_CONFIG_ID "node"

/* ---- the pod CIDR ---- */

static bool runtime_config_is_prefix(struct str text)
{
    char address[INET6_ADDRSTRLEN];
    uint8_t bytes[16];
    uint64_t length;
    const char *slash = memchr(text.p, '/', text.n);

    if (slash == NULL || (size_t)(slash - text.p) >= sizeof address)
        return false;
    snprintf(address, sizeof address, "%.*s", (int)(slash - text.p), text.p);
    cleanup_free char *digits = xstrndup(slash + 1, text.n - (size_t)(slash + 1 - text.p));
    if (inet_pton(AF_INET, address, bytes) == 1)
        return parse_u64(digits, 32, &length);
    return inet_pton(AF_INET6, address, bytes) == 1 && parse_u64(digits, 128, &length);
}

bool runtime_config_check_cidr(const char *text, struct status *err)
{
    size_t count = 0;

    for (const char *at = text;; count++) {
        size_t n = strcspn(at, ",");
        if (count == 2 || !runtime_config_is_prefix((struct str){ at, n }))
            return status_set(err, STATUS_INVALID_ARGUMENT,
                              RUNTIME_CONFIG_FIELD ": \"%.100s\" is not one or two prefixes such as 10.0.0.0/24,fd00::/64", text);
        if (at[n] == '\0')
            return true;
        at += n + 1;
    }
}

static void runtime_config_on_record(void *arg, ProtobufCMessage *message)
{
    struct node *node = arg;
    const Interlink__State__V1__Node *record = (const void *)message;

    if (record->n_sites > 0) {
        node_object_restore(node, (void *)message);
        return;
    }
    if (record->relay != NULL) {
        node->gate_record = (void *)message;
        return;
    }
    if (*record->pod_cidr != '\0') { /* else one of the records that health checks write */
        free(node->pod_cidr);
        node->pod_cidr = xstrdup(record->pod_cidr);
    }
    protobuf_c_message_free_unpacked(message, NULL);
}

bool runtime_config_load(struct node *node, struct status *err)
{
    node->pod_cidr = xstrdup("");
    return state_load(node->state, STATE_NODE, &interlink__state__v1__node__descriptor, runtime_config_on_record, node, err);
}

struct runtime_config_updating {
    struct rpc_call *call; /* NULL: its client has gone */
};

static void runtime_config_on_cancel(void *arg)
{
    ((struct runtime_config_updating *)arg)->call = NULL;
}

static void runtime_config_on_recorded(void *arg, const struct status *err)
{
    struct runtime_config_updating *u = arg;

    if (u->call != NULL && err != NULL)
        rpc_fail(u->call, err);
    else if (u->call != NULL)
        rpc_reply_packed(u->call, "", 0);
    free(u);
}

void runtime_config_update(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    struct node *node = context;
    const Runtime__V1__RuntimeConfig *config =
        ((const Runtime__V1__UpdateRuntimeConfigRequest *)(const void *)request)->runtime_config;
    const char *cidr = config != NULL && config->network_config != NULL ? config->network_config->pod_cidr : "";
    Interlink__State__V1__Node record = INTERLINK__STATE__V1__NODE__INIT;
    struct status err = STATUS_INIT;

    if (*cidr == '\0' || strcmp(cidr, node->pod_cidr) == 0) {
        rpc_reply_packed(call, "", 0);
        return;
    }
    if (!runtime_config_check_cidr(cidr, &err)) {
        rpc_fail(call, &err);
        return;
    }
    struct runtime_config_updating *u = xcalloc(1, sizeof *u);
    u->call = call;
    rpc_call_on_cancel(call, runtime_config_on_cancel, u);
    log_info("the pod CIDR is %s", cidr);
    free(node->pod_cidr);
    node->pod_cidr = xstrdup(cidr);
    record.pod_cidr = node->pod_cidr;
    if (node->gate != NULL)
        gate_refresh(node->gate);
    state_put(node->state, STATE_NODE, RUNTIME_CONFIG_ID, &record.base, runtime_config_on_recorded, u);
}

/* ---- the other direction ---- */

void runtime_config_get(void *context, struct rpc_call *call, const ProtobufCMessage *request)
{
    Runtime__V1__RuntimeConfigResponse response = RUNTIME__V1__RUNTIME_CONFIG_RESPONSE__INIT;
    Runtime__V1__LinuxRuntimeConfiguration linux_config = RUNTIME__V1__LINUX_RUNTIME_CONFIGURATION__INIT;

    (void)context;
    (void)request;
    /* Cgroups are made as folders, never through systemd; kubelet must name its own in the same way. */
    linux_config.cgroup_driver = RUNTIME__V1__CGROUP_DRIVER__CGROUPFS;
    response.linux = &linux_config;
    rpc_reply(call, &response.base);
}

#undef RUNTIME_CONFIG_FIELD
#undef RUNTIME_CONFIG_ID
