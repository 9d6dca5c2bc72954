/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cdi.h"

#include "text/json.h"
#include "text/yaml.h"

/* The specification's patterns: [A-Za-z0-9] first and last, and between them also these. A vendor and a class begin with a
 * letter. */
#define CDI_VENDOR_MARKS "_.-"
#define CDI_CLASS_MARKS "_-"
#define CDI_NAME_MARKS "_.:-"

/* ---- arrays that grow, on an arena ---- */

/* Room for one more item: a larger copy whenever the count reaches a power of two from 8 on. */
static void *cdi_grow(struct arena *arena, void *items, size_t count, size_t size)
{
    if (count != 0 && (count < 8 || (count & (count - 1)) != 0))
        return items;
    void *larger = arena_alloc(arena, (count < 8 ? 8 : 2 * count) * size);
    if (count > 0)
        memcpy(larger, items, count * size);
    return larger;
}
#define CDI_APPEND(arena, items, count, value)                                                                                   \
    ((items) = cdi_grow((arena), (items), (count), sizeof *(items)), (items)[(count)++] = (value))

void cdi_edits_add(struct arena *arena, struct cdi_edits *to, const struct cdi_edits *from)
{
    for (size_t i = 0; i < from->env_count; i++)
        CDI_APPEND(arena, to->env, to->env_count, from->env[i]);
    for (size_t i = 0; i < from->node_count; i++)
        CDI_APPEND(arena, to->nodes, to->node_count, from->nodes[i]);
    for (size_t i = 0; i < from->mount_count; i++)
        CDI_APPEND(arena, to->mounts, to->mount_count, from->mounts[i]);
    for (size_t i = 0; i < from->hook_count; i++)
        CDI_APPEND(arena, to->hooks, to->hook_count, from->hooks[i]);
    for (size_t i = 0; i < from->gid_count; i++)
        CDI_APPEND(arena, to->gids, to->gid_count, from->gids[i]);
    if (to->refused == NULL)
        to->refused = from->refused;
}

/* ---- names ---- */

static bool cdi_is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool cdi_is_alphanumeric(char c)
{
    return cdi_is_letter(c) || (c >= '0' && c <= '9');
}

static bool cdi_is_word(struct str s, bool letter_first, const char *marks)
{
    if (s.n == 0 || !(letter_first ? cdi_is_letter(s.p[0]) : cdi_is_alphanumeric(s.p[0])) || !cdi_is_alphanumeric(s.p[s.n - 1]))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!cdi_is_alphanumeric(s.p[i]) && strchr(marks, s.p[i]) == NULL)
            return false;
    return true;
}

static bool cdi_is_kind(struct str s)
{
    const char *slash = s.n > 0 ? memchr(s.p, '/', s.n) : NULL;

    return slash != NULL && cdi_is_word((struct str){ s.p, (size_t)(slash - s.p) }, true, CDI_VENDOR_MARKS) &&
           cdi_is_word((struct str){ slash + 1, s.n - (size_t)(slash - s.p) - 1 }, true, CDI_CLASS_MARKS);
}

bool cdi_name_split(const char *name, size_t *kind_length)
{
    *kind_length = strcspn(name, "=");
    return name[*kind_length] == '=' && cdi_is_kind((struct str){ name, *kind_length }) &&
           cdi_is_word(str_of(name + *kind_length + 1), false, CDI_NAME_MARKS);
}

/* ---- values ---- */

/* `known`: the members that there may be, separated by spaces. */
static bool cdi_check_members(const struct json *j, const char *known, struct status *err)
{
    if (!json_want(j, JSON_OBJECT, err))
        return false;
    for (JSON_EACH(member, j)) {
        size_t n = strlen(member->key);
        bool found = false;
        for (const char *p = known; *p != '\0' && !found; p += strspn(p, " ")) {
            size_t length = strcspn(p, " ");
            found = length == n && memcmp(p, member->key, n) == 0;
            p += length;
        }
        if (!found)
            return json_fail(member, err, "no such field");
    }
    return true;
}

static bool cdi_read_strings(struct arena *arena, const struct json *j, const char *name, const char ***out, size_t *count,
                             struct status *err)
{
    const struct json *array = NULL;
    const char *text;

    if (!json_read_node(j, name, JSON_ARRAY, &array, err))
        return false;
    for (JSON_EACH(item, array)) {
        if (!json_as_string(item, &text, err))
            return false;
        CDI_APPEND(arena, *out, *count, text);
    }
    return true;
}

/* "NAME=value". */
static bool cdi_read_env(struct arena *arena, const struct json *j, const char ***out, size_t *count, struct status *err)
{
    if (!cdi_read_strings(arena, j, "env", out, count, err))
        return false;
    for (size_t i = 0; i < *count; i++)
        if ((*out)[i][0] == '=' || strchr((*out)[i], '=') == NULL)
            return json_fail(json_at(json_member(j, "env"), i), err, "\"%.60s\" is not NAME=value", (*out)[i]);
    return true;
}

static bool cdi_read_path(const struct json *j, const char *name, const char **out, struct status *err)
{
    if (!json_read_string(j, name, out, err))
        return false;
    return **out == '/' || json_fail(j, err, "%s: \"%.100s\" is not an absolute path", name, *out);
}

static bool cdi_read_id(const struct json *j, const char *name, bool *has, uint32_t *out, struct status *err)
{
    uint64_t value = 0;

    *has = json_member(j, name) != NULL;
    if (!json_read_u64(j, name, UINT32_MAX - 1, &value, err))
        return false;
    *out = (uint32_t)value;
    return true;
}

/* ---- edits ---- */

static bool cdi_read_permissions(const struct json *j, struct cdi_node *node, struct status *err)
{
    const char *text = "";

    if (!json_read_string(j, "permissions", &text, err))
        return false;
    node->permissions = *text == '\0' ? "rwm" : strcmp(text, "none") == 0 ? "" : text;
    return strspn(node->permissions, "rwm") == strlen(node->permissions) ||
           json_fail(j, err, "permissions: \"%.20s\" is not of r, w and m", text);
}

static bool cdi_read_node(const struct json *j, struct cdi_node *out, struct status *err)
{
    const char *type = "";

    *out = (struct cdi_node){ .path = "", .host_path = "" };
    if (!cdi_check_members(j, "path hostPath type major minor fileMode permissions uid gid", err) ||
        !cdi_read_path(j, "path", &out->path, err))
        return false;
    out->host_path = out->path;
    if (!cdi_read_path(j, "hostPath", &out->host_path, err) || !json_read_string(j, "type", &type, err) ||
        !json_read_i64(j, "major", 0, UINT32_MAX, &out->major, err) ||
        !json_read_i64(j, "minor", 0, UINT32_MAX, &out->minor, err) || !cdi_read_id(j, "fileMode", &out->has_mode, &out->mode, err) ||
        !cdi_read_permissions(j, out, err) || !cdi_read_id(j, "uid", &out->has_uid, &out->uid, err) ||
        !cdi_read_id(j, "gid", &out->has_gid, &out->gid, err))
        return false;
    out->mode &= 07777;
    if (*type != '\0' && (type[1] != '\0' || strchr("bcup", type[0]) == NULL))
        return json_fail(j, err, "type: \"%.20s\" is not one of b, c, u and p", type);
    out->type = *type == 'u' ? 'c' : *type; /* an unbuffered device is a character device */
    out->has_numbers = out->major != 0 || out->minor != 0;
    return true;
}

static bool cdi_read_mount(struct arena *arena, const struct json *j, struct cdi_mount *out, struct status *err)
{
    *out = (struct cdi_mount){ .host_path = "", .container_path = "", .type = "" };
    if (!cdi_check_members(j, "hostPath containerPath options type", err) ||
        !json_read_string(j, "hostPath", &out->host_path, err) || !cdi_read_path(j, "containerPath", &out->container_path, err) ||
        !json_read_string(j, "type", &out->type, err) ||
        !cdi_read_strings(arena, j, "options", &out->options, &out->option_count, err))
        return false;
    return *out->host_path != '\0' || json_fail(j, err, "hostPath: missing");
}

static bool cdi_read_hook(struct arena *arena, const struct json *j, struct cdi_hook *out, struct status *err)
{
    static const char *const names[] = { "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop" };

    *out = (struct cdi_hook){ .name = "", .path = "" };
    if (!cdi_check_members(j, "hookName path args env timeout", err) || !json_read_string(j, "hookName", &out->name, err) ||
        !cdi_read_path(j, "path", &out->path, err) || !cdi_read_strings(arena, j, "args", &out->args, &out->arg_count, err) ||
        !cdi_read_env(arena, j, &out->env, &out->env_count, err) ||
        !json_read_i64(j, "timeout", 0, INT32_MAX, &out->timeout_s, err))
        return false;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (strcmp(out->name, names[i]) == 0)
            return true;
    return json_fail(j, err, "hookName: there is no hook \"%.40s\"", out->name);
}

static bool cdi_read_lists(struct arena *arena, const struct json *j, struct cdi_edits *out, struct status *err)
{
    const struct json *nodes = NULL, *mounts = NULL, *hooks = NULL, *gids = NULL;
    struct cdi_node node;
    struct cdi_mount mount;
    struct cdi_hook hook;
    uint64_t gid;

    if (!json_read_node(j, "deviceNodes", JSON_ARRAY, &nodes, err) || !json_read_node(j, "mounts", JSON_ARRAY, &mounts, err) ||
        !json_read_node(j, "hooks", JSON_ARRAY, &hooks, err) || !json_read_node(j, "additionalGids", JSON_ARRAY, &gids, err))
        return false;
    for (JSON_EACH(item, nodes)) {
        if (!cdi_read_node(item, &node, err))
            return false;
        CDI_APPEND(arena, out->nodes, out->node_count, node);
    }
    for (JSON_EACH(item, mounts)) {
        if (!cdi_read_mount(arena, item, &mount, err))
            return false;
        CDI_APPEND(arena, out->mounts, out->mount_count, mount);
    }
    for (JSON_EACH(item, hooks)) {
        if (!cdi_read_hook(arena, item, &hook, err))
            return false;
        CDI_APPEND(arena, out->hooks, out->hook_count, hook);
    }
    for (JSON_EACH(item, gids)) {
        if (!json_as_u64(item, UINT32_MAX - 1, &gid, err))
            return false;
        if (gid != 0) /* means nothing, says the specification */
            CDI_APPEND(arena, out->gids, out->gid_count, (uint32_t)gid);
    }
    return true;
}

/* j: may be NULL. */
static bool cdi_read_edits(struct arena *arena, const struct json *j, struct cdi_edits *out, struct status *err)
{
    const struct json *rdt = NULL, *net = NULL;

    *out = (struct cdi_edits){ .env_count = 0 };
    if (j == NULL)
        return true;
    if (!cdi_check_members(j, "env deviceNodes netDevices hooks mounts intelRdt additionalGids", err) ||
        !cdi_read_env(arena, j, &out->env, &out->env_count, err) || !cdi_read_lists(arena, j, out, err) ||
        !json_read_node(j, "intelRdt", JSON_OBJECT, &rdt, err) || !json_read_node(j, "netDevices", JSON_ARRAY, &net, err))
        return false;
    out->refused = rdt != NULL ? "intelRdt" : json_first(net) != NULL ? "netDevices" : NULL;
    return true;
}

/* ---- the file ---- */

static bool cdi_read_device(struct arena *arena, const struct json *j, struct cdi_spec *spec, struct status *err)
{
    struct cdi_device device = { .name = "" };

    if (!cdi_check_members(j, "name annotations containerEdits", err) || !json_read_string(j, "name", &device.name, err))
        return false;
    if (!cdi_is_word(str_of(device.name), false, CDI_NAME_MARKS))
        return json_fail(j, err, "name: \"%.60s\" is not a device's name", device.name);
    for (size_t i = 0; i < spec->device_count; i++)
        if (strcmp(spec->devices[i].name, device.name) == 0)
            return json_fail(j, err, "name: \"%.60s\" is there twice", device.name);
    if (!cdi_read_edits(arena, json_member(j, "containerEdits"), &device.edits, err))
        return false;
    CDI_APPEND(arena, spec->devices, spec->device_count, device);
    return true;
}

static bool cdi_check_version(const struct json *root, struct status *err)
{
    static const char *const versions[] = { "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0" };
    const char *version = "";

    if (!json_read_string(root, "cdiVersion", &version, err))
        return false;
    for (size_t i = 0; i < COUNT_OF(versions); i++)
        if (strcmp(version, versions[i]) == 0)
            return true;
    return json_fail(root, err, "cdiVersion: \"%.20s\" is none from 0.3.0 to 1.1.0", version);
}

bool cdi_spec_read(struct arena *arena, struct str text, bool is_json, struct cdi_spec *out, struct status *err)
{
    const struct json *root = is_json ? json_parse(arena, text, err) : yaml_parse(arena, text, err), *devices = NULL;

    *out = (struct cdi_spec){ .kind = "" };
    if (root == NULL || !cdi_check_members(root, "cdiVersion kind annotations devices containerEdits", err) ||
        !cdi_check_version(root, err) || !json_read_string(root, "kind", &out->kind, err))
        return false;
    if (!cdi_is_kind(str_of(out->kind)))
        return json_fail(root, err, "kind: \"%.100s\" is not vendor/class", out->kind);
    if (!json_read_node(root, "devices", JSON_ARRAY, &devices, err) ||
        !cdi_read_edits(arena, json_member(root, "containerEdits"), &out->edits, err))
        return false;
    for (JSON_EACH(item, devices))
        if (!cdi_read_device(arena, item, out, err))
            return false;
    return out->device_count > 0 || json_fail(root, err, "devices: there is none");
}

#undef CDI_VENDOR_MARKS
#undef CDI_CLASS_MARKS
#undef CDI_NAME_MARKS
#undef CDI_APPEND
