/* SPDX-License-Identifier: Apache-2.0 */
#include "interlink/pod.h"

#include "text/json.h"
#include "text/quantity.h"

const char *interlink_pair_get(const struct interlink_pairs *pairs, const char *name)
{
    for (size_t i = 0; i < pairs->count; i++)
        if (strcmp(pairs->items[i].name, name) == 0)
            return pairs->items[i].value;
    return "";
}

bool interlink_uid_valid(const char *uid)
{
    size_t n = strlen(uid);

    return n > 0 && n <= INTERLINK_UID_MAX && uid[0] != '-' &&
           strspn(uid, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

/* ---- lists ---- */

/* Reads the array `name` of objects into an array of `size`-byte items. A null item is an error: every list of a pod
 * has values in it. */
static bool pod_read_list(struct arena *arena, const struct json *parent, const char *name, size_t size,
                          bool (*read)(struct arena *arena, const struct json *j, void *item, struct status *err),
                          void *items_out, size_t *count, struct status *err)
{
    const struct json *list = NULL;

    if (!json_read_node(parent, name, JSON_ARRAY, &list, err))
        return false;
    if (list == NULL || list->count == 0)
        return true;
    char *items = arena_alloc(arena, size * list->count);
    size_t i = 0;
    for (JSON_EACH(item, list))
        if (!json_want(item, JSON_OBJECT, err) || !read(arena, item, items + size * i++, err))
            return false;
    memcpy(items_out, &items, sizeof items);
    *count = i;
    return true;
}

/* An object whose values are strings. */
static bool pod_read_pairs(struct arena *arena, const struct json *parent, const char *name,
                           struct interlink_pairs *out, struct status *err)
{
    const struct json *map = NULL;

    if (!json_read_node(parent, name, JSON_OBJECT, &map, err))
        return false;
    if (map == NULL || map->count == 0)
        return true;
    out->items = ARENA_ARRAY(arena, struct interlink_pair, map->count);
    for (JSON_EACH(value, map)) {
        struct interlink_pair *pair = &out->items[out->count];
        *pair = (struct interlink_pair){ value->key, "" };
        if (value->type != JSON_NULL && !json_as_string(value, &pair->value, err))
            return false;
        out->count++;
    }
    return true;
}

static bool pod_read_strings(struct arena *arena, const struct json *parent, const char *name,
                             struct interlink_strings *out, struct status *err)
{
    const struct json *list = NULL;

    if (!json_read_node(parent, name, JSON_ARRAY, &list, err))
        return false;
    if (list == NULL || list->count == 0)
        return true;
    out->items = ARENA_ARRAY(arena, const char *, list->count);
    for (JSON_EACH(item, list))
        if (!json_as_string(item, &out->items[out->count++], err))
            return false;
    return true;
}

/* Quantities may be written as numbers; they are kept as text. */
static bool pod_read_quantities(struct arena *arena, const struct json *parent, const char *name,
                                struct interlink_pairs *out, struct status *err)
{
    const struct json *map = NULL;
    struct status reason = STATUS_INIT;
    int64_t value;

    if (!json_read_node(parent, name, JSON_OBJECT, &map, err))
        return false;
    if (map == NULL || map->count == 0)
        return true;
    out->items = ARENA_ARRAY(arena, struct interlink_pair, map->count);
    for (JSON_EACH(item, map)) {
        if (item->type != JSON_NUMBER && !json_want(item, JSON_STRING, err))
            return false;
        if (!quantity_parse(item->text, QUANTITY_MILLI, &value, &reason) &&
            !quantity_parse(item->text, QUANTITY_ONE, &value, &reason))
            return json_fail(item, err, "%s", reason.message);
        out->items[out->count++] = (struct interlink_pair){ item->key, item->text };
    }
    return true;
}

/* ---- containers ---- */

static bool pod_read_mount(struct arena *arena, const struct json *j, void *item, struct status *err)
{
    struct interlink_mount *m = item;

    (void)arena;
    *m = (struct interlink_mount){ "", "", "", false };
    return json_read_string(j, "name", &m->name, err) && json_read_string(j, "mountPath", &m->mount_path, err) &&
           json_read_string(j, "subPath", &m->sub_path, err) && json_read_bool(j, "readOnly", &m->read_only, err);
}

static bool pod_read_env(struct arena *arena, const struct json *parent, struct interlink_container *c,
                         struct status *err)
{
    const struct json *list = NULL, *from = NULL;

    if (!json_read_node(parent, "env", JSON_ARRAY, &list, err) ||
        !json_read_node(parent, "envFrom", JSON_ARRAY, &from, err))
        return false;
    if (from != NULL && from->count > 0)
        c->env_from = "envFrom";
    if (list == NULL || list->count == 0)
        return true;
    c->env.items = ARENA_ARRAY(arena, struct interlink_pair, list->count);
    for (JSON_EACH(item, list)) {
        struct interlink_pair *pair = &c->env.items[c->env.count++];
        const struct json *value_from = NULL;
        *pair = (struct interlink_pair){ "", "" };
        if (!json_want(item, JSON_OBJECT, err) || !json_read_string(item, "name", &pair->name, err) ||
            !json_read_string(item, "value", &pair->value, err) ||
            !json_read_node(item, "valueFrom", JSON_OBJECT, &value_from, err))
            return false;
        if (pair->name[0] == '\0' || strchr(pair->name, '=') != NULL)
            return json_fail(item, err, "an environment variable needs a name without \"=\"");
        if (value_from != NULL && c->env_from[0] == '\0')
            c->env_from = pair->name;
    }
    return true;
}

static bool pod_read_container(struct arena *arena, const struct json *j, void *item, struct status *err)
{
    struct interlink_container *c = item;
    const struct json *resources = NULL;

    *c = (struct interlink_container){ .name = "", .image = "", .working_dir = "", .env_from = "", .json = j };
    if (!json_read_string(j, "name", &c->name, err) || !json_read_string(j, "image", &c->image, err) ||
        !json_read_string(j, "workingDir", &c->working_dir, err) || !json_read_bool(j, "tty", &c->tty, err) ||
        !pod_read_strings(arena, j, "command", &c->command, err) ||
        !pod_read_strings(arena, j, "args", &c->args, err) || !pod_read_env(arena, j, c, err) ||
        !json_read_node(j, "resources", JSON_OBJECT, &resources, err) ||
        !pod_read_quantities(arena, resources, "limits", &c->limits, err) ||
        !pod_read_quantities(arena, resources, "requests", &c->requests, err) ||
        !pod_read_list(arena, j, "volumeMounts", sizeof(struct interlink_mount), pod_read_mount, &c->mounts,
                       &c->mount_count, err))
        return false;
    return c->name[0] != '\0' || json_fail(j, err, "a container needs a name");
}

/* ---- volumes ---- */

static bool pod_read_mode(const struct json *j, const char *name, int *out, struct status *err)
{
    int64_t mode = -1;

    if (!json_read_i64(j, name, 0, 07777, &mode, err))
        return false;
    *out = (int)mode;
    return true;
}

static bool pod_read_key_path(struct arena *arena, const struct json *j, void *item, struct status *err)
{
    struct interlink_key_path *k = item;

    (void)arena;
    *k = (struct interlink_key_path){ "", "", -1 };
    return json_read_string(j, "key", &k->key, err) && json_read_string(j, "path", &k->path, err) &&
           pod_read_mode(j, "mode", &k->mode, err);
}

/* What configMap, secret and projected sources share. */
static bool pod_read_key_source(struct arena *arena, const struct json *j, const char *name_key,
                                struct interlink_volume *v, struct status *err)
{
    return json_read_string(j, name_key, &v->source, err) && pod_read_mode(j, "defaultMode", &v->default_mode, err) &&
           json_read_bool(j, "optional", &v->optional, err) &&
           pod_read_list(arena, j, "items", sizeof(struct interlink_key_path), pod_read_key_path, &v->items,
                         &v->item_count, err);
}

static bool pod_read_host_path(struct arena *arena, const struct json *j, struct interlink_volume *v,
                               struct status *err)
{
    (void)arena;
    return json_read_string(j, "path", &v->source, err) && json_read_string(j, "type", &v->host_path_type, err);
}

static bool pod_read_empty_dir(struct arena *arena, const struct json *j, struct interlink_volume *v,
                               struct status *err)
{
    const struct json *size = json_member(j, "sizeLimit");

    (void)arena;
    if (!json_read_string(j, "medium", &v->medium, err))
        return false;
    if (size == NULL || size->type == JSON_NULL)
        return true;
    if (size->type != JSON_NUMBER && !json_want(size, JSON_STRING, err))
        return false;
    v->size_limit = size->text;
    return true;
}

static bool pod_read_config_map_source(struct arena *arena, const struct json *j, struct interlink_volume *v,
                                       struct status *err)
{
    return pod_read_key_source(arena, j, "name", v, err);
}

static bool pod_read_secret_source(struct arena *arena, const struct json *j, struct interlink_volume *v,
                                   struct status *err)
{
    return pod_read_key_source(arena, j, "secretName", v, err);
}

static bool pod_read_projected_source(struct arena *arena, const struct json *j, struct interlink_volume *v,
                                      struct status *err)
{
    (void)arena;
    return pod_read_mode(j, "defaultMode", &v->default_mode, err);
}

static const struct {
    const char *key;
    enum interlink_volume_kind kind;
    bool (*read)(struct arena *arena, const struct json *j, struct interlink_volume *v, struct status *err);
} pod_volume_kinds[] = {
    { "configMap", INTERLINK_VOLUME_CONFIG_MAP, pod_read_config_map_source },
    { "secret", INTERLINK_VOLUME_SECRET, pod_read_secret_source },
    { "emptyDir", INTERLINK_VOLUME_EMPTY_DIR, pod_read_empty_dir },
    { "hostPath", INTERLINK_VOLUME_HOST_PATH, pod_read_host_path },
    { "projected", INTERLINK_VOLUME_PROJECTED, pod_read_projected_source },
};

static bool pod_read_volume(struct arena *arena, const struct json *j, void *item, struct status *err)
{
    struct interlink_volume *v = item;

    *v = (struct interlink_volume){ .name = "", .source = "", .host_path_type = "", .medium = "", .size_limit = "",
                                    .other = "", .default_mode = -1 };
    if (!json_read_string(j, "name", &v->name, err))
        return false;
    if (v->name[0] == '\0')
        return json_fail(j, err, "a volume needs a name");
    for (size_t i = 0; i < COUNT_OF(pod_volume_kinds); i++) {
        const struct json *source = NULL;
        if (!json_read_node(j, pod_volume_kinds[i].key, JSON_OBJECT, &source, err))
            return false;
        if (source == NULL)
            continue;
        v->kind = pod_volume_kinds[i].kind;
        return pod_volume_kinds[i].read(arena, source, v, err);
    }
    for (JSON_EACH(member, j))
        if (strcmp(member->key, "name") != 0 && member->type == JSON_OBJECT)
            v->other = member->key;
    return true;
}

/* ---- pods ---- */

static bool pod_read_metadata(struct arena *arena, const struct json *j, struct interlink_pod *pod, struct status *err)
{
    return json_read_string(j, "name", &pod->name, err) && json_read_string(j, "namespace", &pod->namespace_, err) &&
           json_read_string(j, "uid", &pod->uid, err) &&
           json_read_i64(j, "deletionGracePeriodSeconds", 0, INT32_MAX, &pod->deletion_grace_seconds, err) &&
           pod_read_pairs(arena, j, "labels", &pod->labels, err) &&
           pod_read_pairs(arena, j, "annotations", &pod->annotations, err);
}

static bool pod_read_spec(struct arena *arena, const struct json *j, struct interlink_pod *pod, struct status *err)
{
    return json_read_string(j, "restartPolicy", &pod->restart_policy, err) &&
           json_read_string(j, "nodeName", &pod->node_name, err) &&
           json_read_string(j, "hostname", &pod->hostname, err) &&
           json_read_string(j, "serviceAccountName", &pod->service_account, err) &&
           json_read_bool(j, "hostNetwork", &pod->host_network, err) &&
           json_read_i64(j, "activeDeadlineSeconds", 0, INT64_MAX, &pod->active_deadline_seconds, err) &&
           json_read_i64(j, "terminationGracePeriodSeconds", 0, INT32_MAX, &pod->termination_grace_seconds, err) &&
           pod_read_list(arena, j, "initContainers", sizeof(struct interlink_container), pod_read_container,
                         &pod->init_containers, &pod->init_container_count, err) &&
           pod_read_list(arena, j, "containers", sizeof(struct interlink_container), pod_read_container,
                         &pod->containers, &pod->container_count, err) &&
           pod_read_list(arena, j, "volumes", sizeof(struct interlink_volume), pod_read_volume, &pod->volumes,
                         &pod->volume_count, err);
}

static bool pod_read_node(struct arena *arena, const struct json *j, void *item, struct status *err)
{
    struct interlink_pod *pod = item;
    const struct json *metadata = NULL, *spec = NULL, *status = NULL;

    *pod = (struct interlink_pod)INTERLINK_POD_INIT;
    pod->json = j;
    return json_read_node(j, "metadata", JSON_OBJECT, &metadata, err) &&
           json_read_node(j, "spec", JSON_OBJECT, &spec, err) &&
           json_read_node(j, "status", JSON_OBJECT, &status, err) &&
           pod_read_metadata(arena, metadata, pod, err) && pod_read_spec(arena, spec, pod, err) &&
           json_read_string(status, "phase", &pod->phase, err);
}

bool interlink_pod_read(struct arena *arena, struct str json, struct interlink_pod *out, struct status *err)
{
    const struct json *j = json_parse(arena, json, err);

    return j != NULL && json_want(j, JSON_OBJECT, err) && pod_read_node(arena, j, out, err);
}

bool interlink_pods_read(struct arena *arena, struct str json, struct interlink_pod **out, size_t *count,
                         struct status *err)
{
    *out = NULL;
    *count = 0;
    if (json.n == 0)
        return true;
    const struct json *j = json_parse(arena, json, err);
    if (j == NULL)
        return false;
    if (j->type == JSON_NULL)
        return true;
    if (!json_want(j, JSON_ARRAY, err))
        return false;
    *out = ARENA_ARRAY(arena, struct interlink_pod, j->count + 1);
    for (JSON_EACH(item, j))
        if (!json_want(item, JSON_OBJECT, err) || !pod_read_node(arena, item, &(*out)[(*count)++], err))
            return false;
    return true;
}

/* ---- what volumes refer to ---- */

static bool pod_read_files(struct arena *arena, const struct json *map, bool encoded, struct interlink_object *object,
                           struct status *err)
{
    for (JSON_EACH(value, map)) {
        struct interlink_file *file = &object->files[object->file_count];
        if (value->type != JSON_NULL && !json_want(value, JSON_STRING, err))
            return false;
        *file = (struct interlink_file){ value->key, json_bytes(value) };
        if (encoded) {
            cleanup_buf struct buf bytes = BUF_INIT;
            if (!base64_decode(file->data, &bytes))
                return json_fail(value, err, "not base64");
            file->data = (struct str){ arena_memdup(arena, bytes.n > 0 ? (const void *)bytes.p : "", bytes.n),
                                       bytes.n };
        }
        object->file_count++;
    }
    return true;
}

/* `data` of a secret is base64, of a configMap plain; binaryData and stringData are the other way round. */
static bool pod_read_object(struct arena *arena, const struct json *j, bool secret, struct interlink_object *out,
                            struct status *err)
{
    const struct json *metadata = NULL, *plain = NULL, *encoded = NULL;

    *out = (struct interlink_object){ .name = "", .namespace_ = "", .type = "" };
    if (!json_read_node(j, "metadata", JSON_OBJECT, &metadata, err) ||
        !json_read_string(metadata, "name", &out->name, err) ||
        !json_read_string(metadata, "namespace", &out->namespace_, err) ||
        (secret && !json_read_string(j, "type", &out->type, err)) ||
        !json_read_node(j, secret ? "stringData" : "data", JSON_OBJECT, &plain, err) ||
        !json_read_node(j, secret ? "data" : "binaryData", JSON_OBJECT, &encoded, err))
        return false;
    size_t count = (plain != NULL ? plain->count : 0) + (encoded != NULL ? encoded->count : 0);
    out->files = ARENA_ARRAY(arena, struct interlink_file, count + 1);
    return pod_read_files(arena, plain, false, out, err) && pod_read_files(arena, encoded, true, out, err);
}

static bool pod_read_config_map(struct arena *arena, const struct json *j, void *item, struct status *err)
{
    return pod_read_object(arena, j, false, item, err);
}

static bool pod_read_secret(struct arena *arena, const struct json *j, void *item, struct status *err)
{
    return pod_read_object(arena, j, true, item, err);
}

/* Appends what is not there under the same name: containers that mount the same volume each bring a copy. */
static void pod_merge_objects(struct arena *arena, struct interlink_object **objects, size_t *count,
                              const struct interlink_object *more, size_t more_count)
{
    if (more_count == 0)
        return;
    struct interlink_object *all = ARENA_ARRAY(arena, struct interlink_object, *count + more_count);
    if (*count > 0)
        memcpy(all, *objects, *count * sizeof *all);
    for (size_t i = 0; i < more_count; i++) {
        size_t k = 0;
        while (k < *count && strcmp(all[k].name, more[i].name) != 0)
            k++;
        if (k == *count)
            all[(*count)++] = more[i];
    }
    *objects = all;
}

/* The three lists of objects, under whatever names they have in this dialect, added to `out`. */
static bool pod_read_objects(struct arena *arena, const struct json *j, const char *const names[3],
                             struct interlink_create *out, struct status *err)
{
    struct interlink_object *lists[3] = { NULL, NULL, NULL };
    size_t counts[3] = { 0, 0, 0 };

    if (!pod_read_list(arena, j, names[0], sizeof(struct interlink_object), pod_read_config_map, &lists[0],
                       &counts[0], err) ||
        !pod_read_list(arena, j, names[1], sizeof(struct interlink_object), pod_read_secret, &lists[1], &counts[1],
                       err) ||
        !pod_read_list(arena, j, names[2], sizeof(struct interlink_object), pod_read_config_map, &lists[2],
                       &counts[2], err))
        return false;
    pod_merge_objects(arena, &out->config_maps, &out->config_map_count, lists[0], counts[0]);
    pod_merge_objects(arena, &out->secrets, &out->secret_count, lists[1], counts[1]);
    pod_merge_objects(arena, &out->projected, &out->projected_count, lists[2], counts[2]);
    return true;
}

bool interlink_create_read(struct arena *arena, struct str json, struct interlink_create *out, struct status *err)
{
    static const char *const api_names[3] = { "configmaps", "secrets", "projectedvolumesmaps" };
    static const char *const plugin_names[3] = { "configMaps", "secrets", "projectedvolumemaps" };
    const struct json *pod = NULL, *containers = NULL;
    const struct json *j = json_parse(arena, json, err);

    *out = (struct interlink_create)INTERLINK_CREATE_INIT;
    if (j == NULL || !json_want(j, JSON_OBJECT, err) || !json_read_node(j, "pod", JSON_OBJECT, &pod, err))
        return false;
    if (pod == NULL)
        return json_fail(j, err, "a create request needs a pod");
    if (!pod_read_node(arena, pod, &out->pod, err) || !json_read_string(j, "jobScript", &out->job_script, err))
        return false;
    out->plugin_wire = json_member(j, "container") != NULL;
    if (!out->plugin_wire)
        return pod_read_objects(arena, j, api_names, out, err);
    if (!json_read_node(j, "container", JSON_ARRAY, &containers, err))
        return false;
    for (JSON_EACH(container, containers))
        if (!json_want(container, JSON_OBJECT, err) || !pod_read_objects(arena, container, plugin_names, out, err))
            return false;
    return true;
}
