/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/health.h"

#include "health.pb-c.h"

struct rpc_health {
    const struct rpc_services *services;
    struct strmap down; /* names that are NOT_SERVING; the values mean nothing */
    bool shut_down;
    struct list watchers; /* of rpc_health_watcher.link */
    struct rpc_service service;
};

/* One Watch, in its call's arena. */
struct rpc_health_watcher {
    struct list link;
    struct rpc_health *health;
    struct rpc_call *call;
    const char *name;
    Grpc__Health__V1__HealthCheckResponse__ServingStatus told;
};

static bool rpc_health_knows(const struct rpc_health *health, const char *name)
{
    if (*name == '\0')
        return true;
    for (size_t i = 0; i < health->services->count; i++)
        if (strcmp(health->services->services[i]->name, name) == 0)
            return true;
    return false;
}

static Grpc__Health__V1__HealthCheckResponse__ServingStatus rpc_health_state(const struct rpc_health *health,
                                                                             const char *name)
{
    if (!rpc_health_knows(health, name))
        return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    if (health->shut_down || strmap_get(&health->down, name) != NULL)
        return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
    return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
}

static void rpc_health_on_check(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct rpc_health *health = context;
    const Grpc__Health__V1__HealthCheckRequest *request = (const void *)message;
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    response.status = rpc_health_state(health, request->service);
    if (response.status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN)
        rpc_failf(call, STATUS_NOT_FOUND, "unknown service %.200s", request->service);
    else
        rpc_reply(call, &response.base);
}

static void rpc_health_on_list(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct rpc_health *health = context;
    struct arena *arena = rpc_call_arena(call);
    Grpc__Health__V1__HealthListResponse response = GRPC__HEALTH__V1__HEALTH_LIST_RESPONSE__INIT;
    size_t count = health->services->count + 1;

    (void)message;
    response.statuses = ARENA_ARRAY(arena, Grpc__Health__V1__HealthListResponse__StatusesEntry *, count);
    for (size_t i = 0; i < count; i++) {
        const char *name = i == 0 ? "" : health->services->services[i - 1]->name;
        Grpc__Health__V1__HealthListResponse__StatusesEntry *entry =
            ARENA_NEW(arena, Grpc__Health__V1__HealthListResponse__StatusesEntry);
        grpc__health__v1__health_list_response__statuses_entry__init(entry);
        entry->key = arena_strdup(arena, name);
        entry->value = ARENA_NEW(arena, Grpc__Health__V1__HealthCheckResponse);
        grpc__health__v1__health_check_response__init(entry->value);
        entry->value->status = rpc_health_state(health, name);
        response.statuses[response.n_statuses++] = entry;
    }
    rpc_reply(call, &response.base);
}

static void rpc_health_tell(struct rpc_health_watcher *watcher)
{
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    response.status = watcher->told = rpc_health_state(watcher->health, watcher->name);
    rpc_send(watcher->call, &response.base);
}

static void rpc_health_on_watch_cancelled(void *arg)
{
    struct rpc_health_watcher *watcher = arg;

    list_remove(&watcher->link);
}

static void rpc_health_on_watch(void *context, struct rpc_call *call, const ProtobufCMessage *message)
{
    struct rpc_health *health = context;
    const Grpc__Health__V1__HealthCheckRequest *request = (const void *)message;
    struct rpc_health_watcher *watcher;

    if (health->shut_down) {
        rpc_failf(call, STATUS_UNAVAILABLE, "the server is shutting down");
        return;
    }
    watcher = ARENA_NEW(rpc_call_arena(call), struct rpc_health_watcher);
    watcher->health = health;
    watcher->call = call;
    watcher->name = request->service;
    list_append(&health->watchers, &watcher->link);
    rpc_call_on_cancel(call, rpc_health_on_watch_cancelled, watcher);
    rpc_health_tell(watcher);
}

static const struct rpc_method rpc_health_methods[] = {
    { "Check", RPC_UNARY, &grpc__health__v1__health_check_request__descriptor,
      &grpc__health__v1__health_check_response__descriptor, rpc_health_on_check },
    { "List", RPC_UNARY, &grpc__health__v1__health_list_request__descriptor,
      &grpc__health__v1__health_list_response__descriptor, rpc_health_on_list },
    { "Watch", RPC_SERVER_STREAMING, &grpc__health__v1__health_check_request__descriptor,
      &grpc__health__v1__health_check_response__descriptor, rpc_health_on_watch },
};

struct rpc_health *rpc_health_new(const struct rpc_services *services)
{
    struct rpc_health *health = xcalloc(1, sizeof *health);

    health->services = services;
    list_init(&health->watchers);
    health->service = (struct rpc_service){ "grpc.health.v1.Health", rpc_health_methods, COUNT_OF(rpc_health_methods),
                                            health };
    return health;
}

static void rpc_health_tell_changes(struct rpc_health *health)
{
    for (LIST_EACH(struct rpc_health_watcher, watcher, &health->watchers, link))
        if (rpc_health_state(health, watcher->name) != watcher->told)
            rpc_health_tell(watcher);
}

void rpc_health_set(struct rpc_health *health, const char *service, bool serving)
{
    if (!rpc_health_knows(health, service))
        return;
    if (serving)
        strmap_remove(&health->down, service);
    else
        strmap_put(&health->down, service, health);
    rpc_health_tell_changes(health);
}

void rpc_health_shutdown(struct rpc_health *health)
{
    health->shut_down = true;
    rpc_health_tell_changes(health);
    while (!list_empty(&health->watchers)) {
        struct rpc_health_watcher *watcher = CONTAINER_OF(health->watchers.next, struct rpc_health_watcher, link);
        list_remove(&watcher->link);
        rpc_failf(watcher->call, STATUS_UNAVAILABLE, "the server is shutting down");
    }
}

const struct rpc_service *rpc_health_service(struct rpc_health *health)
{
    return &health->service;
}

void rpc_health_free(struct rpc_health *health)
{
    if (health == NULL)
        return;
    strmap_free(&health->down);
    free(health);
}
