/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/pod_size.h"

#include "text/quantity.h"

/* Amounts of all resources, by their place in `names` of the reader. */
struct pod_size_sum {
    int64_t request[POD_SIZE_RESOURCES_MAX], limit[POD_SIZE_RESOURCES_MAX];
};

struct pod_size_reader {
    const char *names[POD_SIZE_RESOURCES_MAX];
    size_t count;
};

/* ---- amounts ---- */

static enum quantity_scale pod_size_scale(const char *resource)
{
    return strcmp(resource, "cpu") == 0 ? QUANTITY_MILLI : QUANTITY_ONE;
}

bool pod_size_parse(const char *resource, const char *text, int64_t *out, struct status *err)
{
    if (!quantity_parse(text, pod_size_scale(resource), out, err))
        return false;
    return *out >= 0 || status_set(err, STATUS_INVALID_ARGUMENT, "\"%.64s\" is below zero", text);
}

const char *pod_size_text(struct arena *arena, const char *resource, int64_t value)
{
    char *decimal = arena_alloc(arena, QUANTITY_TEXT_MAX), *binary = arena_alloc(arena, QUANTITY_TEXT_MAX);
    bool bytes = strcmp(resource, "memory") == 0 || strcmp(resource, "ephemeral-storage") == 0 ||
                 str_starts(resource, "hugepages-");

    quantity_format(value, pod_size_scale(resource), false, decimal);
    if (bytes)
        quantity_format(value, pod_size_scale(resource), true, binary);
    return bytes && strlen(binary) <= strlen(decimal) ? binary : decimal;
}

static int64_t pod_size_add(int64_t a, int64_t b)
{
    int64_t sum;

    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static void pod_size_sum_add(struct pod_size_sum *into, const struct pod_size_sum *from)
{
    for (size_t i = 0; i < POD_SIZE_RESOURCES_MAX; i++) {
        into->request[i] = pod_size_add(into->request[i], from->request[i]);
        into->limit[i] = pod_size_add(into->limit[i], from->limit[i]);
    }
}

static void pod_size_sum_raise(struct pod_size_sum *into, const struct pod_size_sum *to)
{
    for (size_t i = 0; i < POD_SIZE_RESOURCES_MAX; i++) {
        into->request[i] = to->request[i] > into->request[i] ? to->request[i] : into->request[i];
        into->limit[i] = to->limit[i] > into->limit[i] ? to->limit[i] : into->limit[i];
    }
}

/* ---- lists of resources ---- */

static bool pod_size_index(struct pod_size_reader *r, const struct json *item, size_t *out, struct status *err)
{
    for (*out = 0; *out < r->count; ++*out)
        if (strcmp(r->names[*out], item->key) == 0)
            return true;
    if (r->count == POD_SIZE_RESOURCES_MAX) {
        json_fail(item, err, "more than %d kinds of resources", POD_SIZE_RESOURCES_MAX);
        err->code = STATUS_RESOURCE_EXHAUSTED;
        return false;
    }
    r->names[r->count++] = item->key;
    return true;
}

/* A map from resource to quantity, into values that begin at -1 for "not given". */
static bool pod_size_list(struct pod_size_reader *r, const struct json *j, const char *name,
                          int64_t values[POD_SIZE_RESOURCES_MAX], struct status *err)
{
    const struct json *list = NULL;
    struct status reason = STATUS_INIT;
    size_t at;

    for (size_t i = 0; i < POD_SIZE_RESOURCES_MAX; i++)
        values[i] = -1;
    if (!json_read_node(j, name, JSON_OBJECT, &list, err))
        return false;
    for (JSON_EACH(item, list)) {
        if (item->type != JSON_NUMBER && !json_want(item, JSON_STRING, err))
            return false;
        if (!pod_size_index(r, item, &at, err))
            return false;
        if (!pod_size_parse(item->key, item->text, &values[at], &reason))
            return json_fail(item, err, "%s", reason.message);
    }
    return true;
}

/* What one container asks for: requests, else limits; limits, else requests. */
static bool pod_size_container(struct pod_size_reader *r, const struct json *j, struct pod_size_sum *out, struct status *err)
{
    const struct json *resources = NULL;
    int64_t requests[POD_SIZE_RESOURCES_MAX], limits[POD_SIZE_RESOURCES_MAX];

    *out = (struct pod_size_sum){ { 0 }, { 0 } };
    if (!json_want(j, JSON_OBJECT, err) || !json_read_node(j, "resources", JSON_OBJECT, &resources, err) ||
        !pod_size_list(r, resources, "requests", requests, err) || !pod_size_list(r, resources, "limits", limits, err))
        return false;
    for (size_t i = 0; i < r->count; i++) {
        int64_t request = requests[i] >= 0 ? requests[i] : limits[i] >= 0 ? limits[i] : 0;
        out->request[i] = request;
        out->limit[i] = limits[i] > request ? limits[i] : request;
    }
    return true;
}

/* ---- the pod ---- */

static bool pod_size_containers(struct pod_size_reader *r, const struct json *spec, struct pod_size_sum *total,
                                struct status *err)
{
    const struct json *list = NULL, *init = NULL;
    struct pod_size_sum one, sidecars = { { 0 }, { 0 } }, most = { { 0 }, { 0 } };

    if (!json_read_node(spec, "containers", JSON_ARRAY, &list, err) ||
        !json_read_node(spec, "initContainers", JSON_ARRAY, &init, err))
        return false;
    for (JSON_EACH(c, list)) {
        if (!pod_size_container(r, c, &one, err))
            return false;
        pod_size_sum_add(total, &one);
    }
    for (JSON_EACH(c, init)) {
        if (!pod_size_container(r, c, &one, err))
            return false;
        if (strcmp(json_string(json_member(c, "restartPolicy"), ""), "Always") == 0) {
            pod_size_sum_add(total, &one);
            pod_size_sum_add(&sidecars, &one);
            pod_size_sum_raise(&most, &sidecars);
        } else {
            pod_size_sum_add(&one, &sidecars);
            pod_size_sum_raise(&most, &one);
        }
    }
    pod_size_sum_raise(total, &most);
    return true;
}

/* spec.resources counts for these only, as in the scheduler. */
static bool pod_size_is_pod_level(const char *resource)
{
    return strcmp(resource, "cpu") == 0 || strcmp(resource, "memory") == 0 || str_starts(resource, "hugepages-");
}

static bool pod_size_pod_level(struct pod_size_reader *r, const struct json *spec, struct pod_size_sum *total,
                               struct status *err)
{
    const struct json *resources = NULL;
    int64_t requests[POD_SIZE_RESOURCES_MAX], limits[POD_SIZE_RESOURCES_MAX];

    if (!json_read_node(spec, "resources", JSON_OBJECT, &resources, err) ||
        !pod_size_list(r, resources, "requests", requests, err) || !pod_size_list(r, resources, "limits", limits, err))
        return false;
    for (size_t i = 0; i < r->count; i++) {
        if (!pod_size_is_pod_level(r->names[i]))
            continue;
        if (requests[i] >= 0)
            total->request[i] = requests[i];
        else if (limits[i] >= 0 && total->request[i] == 0) /* the API server would have said so */
            total->request[i] = limits[i];
        if (limits[i] >= 0)
            total->limit[i] = limits[i];
    }
    return true;
}

static bool pod_size_overhead(struct pod_size_reader *r, const struct json *spec, struct pod_size_sum *total,
                              struct status *err)
{
    int64_t overhead[POD_SIZE_RESOURCES_MAX];

    if (!pod_size_list(r, spec, "overhead", overhead, err))
        return false;
    for (size_t i = 0; i < r->count; i++) {
        if (overhead[i] <= 0)
            continue;
        total->request[i] = pod_size_add(total->request[i], overhead[i]);
        total->limit[i] = pod_size_add(total->limit[i], overhead[i]);
    }
    return true;
}

bool pod_size_read(struct arena *arena, const struct json *pod, struct pod_size *out, struct status *err)
{
    struct pod_size_reader r = { .count = 0 };
    struct pod_size_sum total = { { 0 }, { 0 } };
    const struct json *spec = NULL;

    *out = (struct pod_size){ .count = 0 };
    if (!json_want(pod, JSON_OBJECT, err) || !json_read_node(pod, "spec", JSON_OBJECT, &spec, err) ||
        !pod_size_containers(&r, spec, &total, err) || !pod_size_pod_level(&r, spec, &total, err) ||
        !pod_size_overhead(&r, spec, &total, err) ||
        !json_read_i64(spec, "activeDeadlineSeconds", 0, INT32_MAX, &out->deadline_s, err))
        return false;
    out->amounts = ARENA_ARRAY(arena, struct pod_amount, r.count + 1);
    for (size_t i = 0; i < r.count; i++) {
        int64_t request = total.request[i], limit = total.limit[i] > request ? total.limit[i] : request;
        if (limit > 0)
            out->amounts[out->count++] = (struct pod_amount){ arena_strdup(arena, r.names[i]), request, limit };
    }
    return true;
}
