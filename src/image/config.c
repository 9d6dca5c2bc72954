/* SPDX-License-Identifier: Apache-2.0 */
#include "image/config.h"

#include "text/json.h"

static bool image_config_string(struct image_config *c, const struct json *j, const char *name, char **out, struct status *err)
{
    const char *value = "";

    if (!json_read_string(j, name, &value, err))
        return false;
    *out = arena_strdup(&c->arena, value);
    return true;
}

/* A list of strings; absent and null are an empty one. */
static bool image_config_strings(struct image_config *c, const struct json *j, const char *name, char ***out, size_t *count,
                                 struct status *err)
{
    const struct json *array = NULL;

    if (!json_read_node(j, name, JSON_ARRAY, &array, err))
        return false;
    *count = 0;
    *out = ARENA_ARRAY(&c->arena, char *, (array == NULL ? 0u : array->count) + 1u);
    for (JSON_EACH(item, array)) {
        const char *value;
        if (!json_as_string(item, &value, err))
            return false;
        (*out)[(*count)++] = arena_strdup(&c->arena, value);
    }
    return true;
}

/* An object's keys, and its values too when they are wanted: name, value, name, value... */
static bool image_config_pairs(struct image_config *c, const struct json *j, const char *name, bool values, char ***out,
                               size_t *count, struct status *err)
{
    const struct json *object = NULL;
    size_t n = 0;

    if (!json_read_node(j, name, JSON_OBJECT, &object, err))
        return false;
    *count = object == NULL ? 0 : object->count;
    *out = ARENA_ARRAY(&c->arena, char *, 2 * *count + 1);
    for (JSON_EACH(item, object)) {
        const char *value = "";
        if (values && item->type != JSON_NULL && !json_as_string(item, &value, err))
            return false;
        (*out)[n++] = arena_strdup(&c->arena, item->key);
        if (values)
            (*out)[n++] = arena_strdup(&c->arena, value);
    }
    return true;
}

static bool image_config_layers(struct image_config *c, const struct json *root, struct status *err)
{
    const struct json *rootfs = NULL, *ids = NULL;

    if (!json_read_node(root, "rootfs", JSON_OBJECT, &rootfs, err) ||
        !json_read_node(rootfs, "diff_ids", JSON_ARRAY, &ids, err))
        return false;
    if (rootfs == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "it has no 'rootfs': this is no container image's configuration");
    size_t count = ids == NULL ? 0 : ids->count;
    if (count > IMAGE_LAYERS_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "%zu layers are more than the %d allowed", count, IMAGE_LAYERS_MAX);
    c->diff_ids = ARENA_ARRAY(&c->arena, struct digest, count + 1);
    for (JSON_EACH(item, ids)) {
        const char *text;
        if (!json_as_string(item, &text, err))
            return false;
        if (!digest_parse(text, &c->diff_ids[c->diff_id_count++], err))
            return status_prefix(err, "rootfs.diff_ids[%zu]", c->diff_id_count - 1);
    }
    return true;
}

static bool image_config_read(struct image_config *c, const struct json *root, struct status *err)
{
    const struct json *config = NULL;

    return json_want(root, JSON_OBJECT, err) && image_config_string(c, root, "architecture", &c->architecture, err) &&
           image_config_string(c, root, "os", &c->os, err) && image_config_string(c, root, "variant", &c->variant, err) &&
           image_config_string(c, root, "created", &c->created, err) &&
           json_read_node(root, "config", JSON_OBJECT, &config, err) &&
           image_config_strings(c, config, "Env", &c->env, &c->env_count, err) &&
           image_config_strings(c, config, "Entrypoint", &c->entrypoint, &c->entrypoint_count, err) &&
           image_config_strings(c, config, "Cmd", &c->cmd, &c->cmd_count, err) &&
           image_config_string(c, config, "WorkingDir", &c->working_dir, err) &&
           image_config_string(c, config, "User", &c->user, err) &&
           image_config_string(c, config, "StopSignal", &c->stop_signal, err) &&
           image_config_pairs(c, config, "Volumes", false, &c->volumes, &c->volume_count, err) &&
           image_config_pairs(c, config, "Labels", true, &c->labels, &c->label_count, err) &&
           image_config_layers(c, root, err);
}

bool image_config_parse(struct str json, struct image_config *out, struct status *err)
{
    struct arena cleanup_arena scratch = ARENA_INIT;
    struct image_config c = { .arena = ARENA_INIT };

    if (json.n > IMAGE_CONFIG_SIZE_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "an image configuration of %zu bytes is larger than the %d allowed",
                          json.n, IMAGE_CONFIG_SIZE_MAX);
    const struct json *root = json_parse(&scratch, json, err);
    if (root == NULL || !image_config_read(&c, root, err)) {
        image_config_free(&c);
        return status_prefix(err, "image configuration");
    }
    *out = c;
    return true;
}

void image_config_free(struct image_config *c)
{
    arena_free(&c->arena);
    memset(c, 0, sizeof *c);
}

bool image_config_argv(const struct image_config *image, char *const *command, size_t command_count, char *const *args,
                       size_t args_count, struct arena *arena, char ***argv, size_t *count, struct status *err)
{
    size_t n = 0;

    if (command_count == 0 && image != NULL) {
        command = image->entrypoint;
        command_count = image->entrypoint_count;
        if (args_count == 0) {
            args = image->cmd;
            args_count = image->cmd_count;
        }
    }
    if (command_count + args_count == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "command: none given, and the image has neither ENTRYPOINT nor CMD");
    *argv = ARENA_ARRAY(arena, char *, command_count + args_count + 1);
    for (size_t i = 0; i < command_count; i++)
        (*argv)[n++] = arena_strdup(arena, command[i]);
    for (size_t i = 0; i < args_count; i++)
        (*argv)[n++] = arena_strdup(arena, args[i]);
    *count = n;
    return true;
}

void image_user_parse(const char *user, struct image_user *out)
{
    size_t n = strcspn(user, ":");
    char head[sizeof out->name];
    uint64_t uid;

    memset(out, 0, sizeof *out);
    if (n >= sizeof head)
        n = sizeof head - 1;
    memcpy(head, user, n);
    head[n] = '\0';
    if (parse_u64(head, INT64_MAX, &uid)) {
        out->has_uid = true;
        out->uid = (int64_t)uid;
    } else {
        memcpy(out->name, head, n + 1);
    }
}
