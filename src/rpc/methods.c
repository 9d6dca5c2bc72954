/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/methods.h"

struct rpc_methods_slot {
    uint32_t hash;
    uint16_t service_length, method_length;
    const struct rpc_service *service;
    const struct rpc_method *method; /* NULL: an empty slot */
};

struct rpc_methods {
    const struct rpc_services *services;
    size_t mask; /* slots - 1; a power of two at least twice the number of methods */
    struct rpc_methods_slot slots[];
};

/* FNV-1a. The table is ours, so nobody can choose keys that collide. */
static uint32_t rpc_methods_hash(uint32_t hash, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (uint8_t)p[i]) * 16777619u;
    return hash;
}
#define RPC_METHODS_HASH_START 2166136261u

struct rpc_methods *rpc_methods_new(const struct rpc_services *services)
{
    size_t count = 0, size = 16;

    for (size_t i = 0; i < services->count; i++)
        count += services->services[i]->method_count;
    while (size < count * 2)
        size *= 2;
    struct rpc_methods *methods = xcalloc(1, sizeof *methods + size * sizeof methods->slots[0]);
    methods->services = services;
    methods->mask = size - 1;
    for (size_t i = 0; i < services->count; i++) {
        const struct rpc_service *service = services->services[i];
        for (size_t k = 0; k < service->method_count; k++) {
            const struct rpc_method *method = &service->methods[k];
            size_t service_length = strlen(service->name), method_length = strlen(method->name);
            uint32_t hash = rpc_methods_hash(RPC_METHODS_HASH_START, service->name, service_length);
            hash = rpc_methods_hash(rpc_methods_hash(hash, "/", 1), method->name, method_length);
            size_t at = hash & methods->mask;
            while (methods->slots[at].method != NULL)
                at = (at + 1) & methods->mask;
            methods->slots[at] = (struct rpc_methods_slot){ hash, (uint16_t)service_length, (uint16_t)method_length,
                                                            service, method };
        }
    }
    return methods;
}

void rpc_methods_free(struct rpc_methods *methods)
{
    free(methods);
}

const struct rpc_services *rpc_methods_services(const struct rpc_methods *methods)
{
    return methods->services;
}

/* Says what is wrong with a path that was not found. */
static bool rpc_methods_unknown(const struct rpc_methods *methods, struct str path, struct status *err)
{
    const char *slash = path.n > 1 ? memchr(path.p + 1, '/', path.n - 1) : NULL;

    if (path.n == 0 || path.p[0] != '/' || slash == NULL)
        return status_set(err, STATUS_UNIMPLEMENTED, "malformed method name \"%.*s\"", (int)(path.n < 200 ? path.n : 200),
                          path.p);
    struct str service = { path.p + 1, (size_t)(slash - path.p - 1) };
    struct str method = { slash + 1, path.n - service.n - 2 };
    int service_shown = (int)(service.n < 200 ? service.n : 200), method_shown = (int)(method.n < 200 ? method.n : 200);
    for (size_t i = 0; i < methods->services->count; i++)
        if (str_eq(service, methods->services->services[i]->name))
            return status_set(err, STATUS_UNIMPLEMENTED, "unknown method %.*s of service %.*s", method_shown, method.p,
                              service_shown, service.p);
    return status_set(err, STATUS_UNIMPLEMENTED, "unknown service %.*s", service_shown, service.p);
}

bool rpc_methods_find(const struct rpc_methods *methods, struct str path, const struct rpc_service **service,
                      const struct rpc_method **method, struct status *err)
{
    if (path.n == 0 || path.p[0] != '/')
        return rpc_methods_unknown(methods, path, err);
    uint32_t hash = rpc_methods_hash(RPC_METHODS_HASH_START, path.p + 1, path.n - 1);
    for (size_t at = hash & methods->mask; methods->slots[at].method != NULL; at = (at + 1) & methods->mask) {
        const struct rpc_methods_slot *slot = &methods->slots[at];
        size_t length = (size_t)slot->service_length + slot->method_length + 2;
        if (slot->hash != hash || length != path.n || path.p[slot->service_length + 1] != '/' ||
            memcmp(path.p + 1, slot->service->name, slot->service_length) != 0 ||
            memcmp(path.p + slot->service_length + 2, slot->method->name, slot->method_length) != 0)
            continue;
        *service = slot->service;
        *method = slot->method;
        return true;
    }
    return rpc_methods_unknown(methods, path, err);
}

#undef RPC_METHODS_HASH_START
