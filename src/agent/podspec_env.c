/* SPDX-License-Identifier: Apache-2.0 */
/* Environments as kubelet makes them (pkg/kubelet/kubelet_pods.go, makeEnvironmentVariables). */
#include "agent/podspec.h"

#include "kube/pod_size.h"
#include "text/json.h"

struct podspec_env {
    struct arena *arena;
    const struct podspec *spec;
    struct podspec_container *c;
    size_t room;
};

static void podspec_env_put(struct podspec_env *e, const char *name, const char *value)
{
    struct interlink_pairs *env = &e->c->env;

    for (size_t i = 0; i < env->count; i++)
        if (strcmp(env->items[i].name, name) == 0) {
            env->items[i].value = value;
            return;
        }
    if (env->count == e->room) {
        size_t room = e->room * 2 + 16;
        struct interlink_pair *items = ARENA_ARRAY(e->arena, struct interlink_pair, room);
        if (env->count > 0)
            memcpy(items, env->items, env->count * sizeof *items);
        env->items = items;
        e->room = room;
    }
    env->items[env->count++] = (struct interlink_pair){ name, value };
}

/* ---- $(NAME) ---- */

static const char *podspec_env_get(const struct interlink_pairs *env, const char *name, size_t n)
{
    for (size_t i = 0; i < env->count; i++)
        if (strlen(env->items[i].name) == n && memcmp(env->items[i].name, name, n) == 0)
            return env->items[i].value;
    return NULL;
}

/* $(NAME) is replaced when there is such a variable, $$ stands for $, all else stays.
 * Source: k8s.io/kubernetes/third_party/forked/golang/expansion. */
static const char *podspec_expand(struct arena *arena, const struct interlink_pairs *env, const char *text)
{
    cleanup_buf struct buf out = BUF_INIT;

    if (strchr(text, '$') == NULL)
        return text;
    for (const char *p = text; *p != '\0'; p++) {
        const char *close = p[0] == '$' && p[1] == '(' ? strchr(p, ')') : NULL;
        const char *value = close != NULL ? podspec_env_get(env, p + 2, (size_t)(close - p) - 2) : NULL;
        if (value != NULL) {
            buf_append_str(&out, value);
            p = close;
        } else if (p[0] == '$' && p[1] == '$') {
            buf_append_byte(&out, '$');
            p++;
        } else {
            buf_append_byte(&out, (uint8_t)*p);
        }
    }
    return arena_strdup(arena, buf_cstr(&out));
}

static void podspec_expand_all(struct arena *arena, const struct interlink_pairs *env, const struct interlink_strings *in,
                               struct interlink_strings *out)
{
    out->items = ARENA_ARRAY(arena, const char *, in->count + 1);
    out->count = in->count;
    for (size_t i = 0; i < in->count; i++)
        out->items[i] = podspec_expand(arena, env, in->items[i]);
}

/* ---- from objects ---- */

static const struct interlink_object *podspec_env_object(const struct podspec_env *e, bool secret, const char *name)
{
    const struct interlink_create *create = &e->spec->create;
    const struct interlink_object *objects = secret ? create->secrets : create->config_maps;
    size_t count = secret ? create->secret_count : create->config_map_count;

    for (size_t i = 0; i < count; i++)
        if (strcmp(objects[i].name, name) == 0)
            return &objects[i];
    return NULL;
}

static bool podspec_env_text(const struct podspec_env *e, const struct interlink_file *file, const char **out)
{
    if (memchr(file->data.p, '\0', file->data.n) != NULL)
        return false;
    *out = arena_strndup(e->arena, file->data.p, file->data.n);
    return true;
}

static bool podspec_env_key(struct podspec_env *e, const struct json *ref, bool secret, const char **out, bool *skip, struct status *err)
{
    const char *name = "", *key = "";
    bool optional = false;

    if (!json_read_string(ref, "name", &name, err) || !json_read_string(ref, "key", &key, err) ||
        !json_read_bool(ref, "optional", &optional, err))
        return false;
    const struct interlink_object *object = podspec_env_object(e, secret, name);
    for (size_t i = 0; object != NULL && i < object->file_count; i++)
        if (strcmp(object->files[i].key, key) == 0)
            return podspec_env_text(e, &object->files[i], out) || json_fail(ref, err, "\"%.80s\" has a NUL in it", key);
    *skip = optional;
    if (optional)
        return true;
    json_fail(ref, err, "%s \"%.80s\" %s", secret ? "secret" : "configMap", name,
              object == NULL ? "did not come with the create request" : "has no such key");
    err->code = STATUS_FAILED_PRECONDITION;
    return false;
}

static bool podspec_env_from(struct podspec_env *e, const struct json *item, struct status *err)
{
    const struct json *config = NULL, *secret = NULL;
    const char *prefix = "", *name = "";
    bool optional = false;

    if (!json_want(item, JSON_OBJECT, err) || !json_read_string(item, "prefix", &prefix, err) ||
        !json_read_node(item, "configMapRef", JSON_OBJECT, &config, err) ||
        !json_read_node(item, "secretRef", JSON_OBJECT, &secret, err))
        return false;
    const struct json *ref = secret != NULL ? secret : config;
    if (!json_read_string(ref, "name", &name, err) || !json_read_bool(ref, "optional", &optional, err))
        return false;
    const struct interlink_object *object = podspec_env_object(e, secret != NULL, name);
    if (object == NULL && !optional) {
        json_fail(item, err, "\"%.80s\" did not come with the create request", name);
        err->code = STATUS_FAILED_PRECONDITION;
        return false;
    }
    for (size_t i = 0; object != NULL && i < object->file_count; i++) {
        const char *value, *key = object->files[i].key;
        /* What cannot be a variable is left out, as kubelet does. */
        if (key[0] != '\0' && strchr(key, '=') == NULL && podspec_env_text(e, &object->files[i], &value))
            podspec_env_put(e, arena_printf(e->arena, "%s%s", prefix, key), value);
    }
    return true;
}

/* ---- from the pod itself ---- */

/* metadata.labels['KEY'] */
static const char *podspec_env_subscript(const struct podspec_env *e, const char *path, const char *field,
                                         const struct interlink_pairs *pairs)
{
    size_t n = strlen(field), length = strlen(path);

    if (!str_starts(path, field) || length < n + 4 || memcmp(path + n, "['", 2) != 0 || !str_ends(path, "']"))
        return NULL;
    return interlink_pair_get(pairs, arena_strndup(e->arena, path + n + 2, length - n - 4));
}

static bool podspec_env_field(const struct podspec_env *e, const struct json *ref, const char **out, struct status *err)
{
    const struct interlink_pod *pod = &e->spec->create.pod;
    const struct {
        const char *path, *value;
    } fields[] = {
        { "metadata.name", pod->name },
        { "metadata.namespace", pod->namespace_ },
        { "metadata.uid", pod->uid },
        { "spec.nodeName", pod->node_name },
        { "spec.serviceAccountName", pod->service_account },
        { "status.hostIP", e->spec->address },
        { "status.hostIPs", e->spec->address },
        { "status.podIP", e->spec->address },
        { "status.podIPs", e->spec->address },
    };
    const char *path = "";

    if (!json_read_string(ref, "fieldPath", &path, err))
        return false;
    for (size_t i = 0; i < COUNT_OF(fields); i++)
        if (strcmp(path, fields[i].path) == 0) {
            *out = fields[i].value;
            return true;
        }
    *out = podspec_env_subscript(e, path, "metadata.labels", &pod->labels);
    if (*out == NULL)
        *out = podspec_env_subscript(e, path, "metadata.annotations", &pod->annotations);
    return *out != NULL || json_fail(ref, err, "\"%.80s\" is no field that a variable can have", path);
}

/* limits.cpu and the like, of this container or another one: in whole divisors, rounded up. */
static bool podspec_env_resource(const struct podspec_env *e, const struct json *ref, const char **out, struct status *err)
{
    const char *container = e->c->base->name, *resource = "", *divisor = "1";
    const struct json *by = json_member(ref, "divisor");
    const struct interlink_container *c = NULL;
    int64_t value = 0, unit = 1;

    if (!json_read_string(ref, "containerName", &container, err) || !json_read_string(ref, "resource", &resource, err))
        return false;
    if (json_is(by, JSON_STRING) || json_is(by, JSON_NUMBER))
        divisor = strcmp(by->text, "0") == 0 ? "1" : by->text;
    const struct interlink_pod *pod = &e->spec->create.pod;
    for (size_t i = 0; i < pod->container_count + pod->init_container_count && c == NULL; i++) {
        const struct interlink_container *one =
            i < pod->container_count ? &pod->containers[i] : &pod->init_containers[i - pod->container_count];
        c = strcmp(one->name, container) == 0 ? one : NULL;
    }
    bool limit = str_starts(resource, "limits.");
    if (c == NULL || (!limit && !str_starts(resource, "requests.")))
        return json_fail(ref, err, "there is no \"%.60s\" of a container \"%.60s\"", resource, container);
    const char *name = strchr(resource, '.') + 1;
    const char *text = interlink_pair_get(limit ? &c->limits : &c->requests, name);
    if (text[0] != '\0' && !pod_size_parse(name, text, &value, err))
        return false;
    if (!pod_size_parse(name, divisor, &unit, err))
        return false;
    *out = arena_printf(e->arena, "%" PRId64, unit > 0 && value > 0 ? (value - 1) / unit + 1 : 0);
    return true;
}

/* ---- all of it ---- */

static bool podspec_env_value(struct podspec_env *e, const struct json *from, const char **out, bool *skip, struct status *err)
{
    const struct json *key = NULL, *secret = NULL, *field = NULL, *resource = NULL;

    if (!json_read_node(from, "configMapKeyRef", JSON_OBJECT, &key, err) ||
        !json_read_node(from, "secretKeyRef", JSON_OBJECT, &secret, err) ||
        !json_read_node(from, "fieldRef", JSON_OBJECT, &field, err) ||
        !json_read_node(from, "resourceFieldRef", JSON_OBJECT, &resource, err))
        return false;
    if (key != NULL || secret != NULL)
        return podspec_env_key(e, key != NULL ? key : secret, key == NULL, out, skip, err);
    if (field != NULL)
        return podspec_env_field(e, field, out, err);
    if (resource != NULL)
        return podspec_env_resource(e, resource, out, err);
    return json_fail(from, err, "none of configMapKeyRef, secretKeyRef, fieldRef, resourceFieldRef");
}

bool podspec_read_env(struct arena *arena, const struct podspec *spec, struct podspec_container *c, struct status *err)
{
    struct podspec_env e = { .arena = arena, .spec = spec, .c = c };
    const struct json *list = NULL, *from = NULL;

    if (!json_read_node(c->base->json, "env", JSON_ARRAY, &list, err) ||
        !json_read_node(c->base->json, "envFrom", JSON_ARRAY, &from, err))
        return false;
    if ((list != NULL && list->count > PODSPEC_VARIABLES_MAX) || (from != NULL && from->count > PODSPEC_VARIABLES_MAX))
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s.env: more than %d variables", c->field, PODSPEC_VARIABLES_MAX);
    for (JSON_EACH(item, from))
        if (!podspec_env_from(&e, item, err))
            return false;
    for (JSON_EACH(item, list)) {
        const struct json *value_from = json_member(item, "valueFrom");
        const char *value = podspec_expand(arena, &c->env, json_string(json_member(item, "value"), ""));
        bool skip = false;
        if (json_is(value_from, JSON_OBJECT) && value[0] == '\0' && !podspec_env_value(&e, value_from, &value, &skip, err))
            return false;
        if (!skip)
            podspec_env_put(&e, json_string(json_member(item, "name"), ""), value);
    }
    if (c->env.count > PODSPEC_VARIABLES_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s.env: more than %d variables", c->field, PODSPEC_VARIABLES_MAX);
    podspec_expand_all(arena, &c->env, &c->base->command, &c->command);
    podspec_expand_all(arena, &c->env, &c->base->args, &c->args);
    return true;
}
