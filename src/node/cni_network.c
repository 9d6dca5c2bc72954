/* SPDX-License-Identifier: Apache-2.0 */
#include "node/cni_network.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"

/* The versions that are spoken, oldest first. Older ones have another form of result. */
static const char *const cni_network_versions[] = { "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0" };

/* ---- checks ---- */

bool cni_check_depth(const struct json *j, struct status *err)
{
    unsigned depth = 0;

    /* Down first, then along, then up. */
    for (const struct json *at = j; at != NULL;) {
        if (depth > CNI_DEPTH_MAX)
            return status_set(err, STATUS_INVALID_ARGUMENT, "more than %d levels deep", CNI_DEPTH_MAX);
        if (json_first(at) != NULL) {
            at = json_first(at);
            depth++;
            continue;
        }
        while (at != j && at->next == NULL) {
            at = at->parent;
            depth--;
        }
        at = at == j ? NULL : at->next;
    }
    return true;
}

/* "Must start with an alphanumeric character, optionally followed by [...] alphanumeric characters, underscore, dot or hyphen". */
static bool cni_network_is_name(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t n = strlen(name);

    return n > 0 && n <= CNI_NAME_MAX && strspn(name, letters) == n && strchr("-_.", name[0]) == NULL;
}

/* A program's name: no path. */
static bool cni_network_is_type(const char *type)
{
    size_t n = strlen(type);

    if (n == 0 || n > CNI_NAME_MAX || strcmp(type, ".") == 0 || strcmp(type, "..") == 0)
        return false;
    for (const char *p = type; *p != '\0'; p++)
        if (*p == '/' || *p == '\\' || *p == ':' || (unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return true;
}

static int cni_network_version_number(const char *version)
{
    for (size_t i = 0; i < COUNT_OF(cni_network_versions); i++)
        if (strcmp(cni_network_versions[i], version) == 0)
            return (int)i;
    return -1;
}

bool cni_network_since(const struct cni_network *network, const char *version)
{
    return cni_network_version_number(network->version) >= cni_network_version_number(version);
}

/* Of all that the configuration allows, the highest that we know. */
static bool cni_network_pick_version(const struct json *list, struct cni_network *out, struct status *err)
{
    const struct json *versions = NULL;
    const char *single = "", *text = "";
    int best;

    if (!json_read_string(list, "cniVersion", &single, err) || !json_read_node(list, "cniVersions", JSON_ARRAY, &versions, err))
        return false;
    best = cni_network_version_number(single);
    for (JSON_EACH(item, versions)) {
        if (!json_as_string(item, &text, err))
            return false;
        if (cni_network_version_number(text) > best)
            best = cni_network_version_number(text);
    }
    if (best < 0 && *single == '\0' && versions == NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "cniVersion: missing, which means 0.1.0; versions %s to %s are spoken here",
                          cni_network_versions[0], cni_network_versions[COUNT_OF(cni_network_versions) - 1]);
    if (best < 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "cniVersion: \"%.20s\" is not spoken here: %s to %s are", single,
                          cni_network_versions[0], cni_network_versions[COUNT_OF(cni_network_versions) - 1]);
    out->version = cni_network_versions[best];
    return true;
}

/* libcni takes the words for the values, too. */
static bool cni_network_read_switch(const struct json *list, const char *name, bool *out, struct status *err)
{
    const struct json *j = json_member(list, name);

    *out = false;
    if (!json_is(j, JSON_STRING))
        return json_read_bool(list, name, out, err);
    if (strcasecmp(json_string(j, ""), "true") != 0 && strcasecmp(json_string(j, ""), "false") != 0)
        return json_fail(j, err, "wanted true or false, found \"%.40s\"", json_string(j, ""));
    *out = strcasecmp(json_string(j, ""), "true") == 0;
    return true;
}

/* ---- reading ---- */

static bool cni_network_add_plugin(const struct json *j, struct cni_network *out, struct status *err)
{
    const struct json *capabilities = NULL, *ipam = NULL;
    const char *type = "", *ipam_type = "";

    if (!json_want(j, JSON_OBJECT, err) || !json_read_string(j, "type", &type, err) ||
        !json_read_node(j, "capabilities", JSON_OBJECT, &capabilities, err))
        return false;
    if (*type == '\0')
        return json_fail(j, err, "it has no type, the name of a plugin's program");
    if (!cni_network_is_type(type))
        return json_fail(json_member(j, "type"), err, "\"%.80s\" is not the name of a program", type);
    for (JSON_EACH(capability, capabilities))
        if (!json_want(capability, JSON_BOOL, err))
            return false;
    /* Not every plugin means this by it: checked only where it looks like it. */
    ipam = json_member(j, "ipam");
    ipam_type = json_string(json_member(ipam, "type"), "");
    if (*ipam_type != '\0' && !cni_network_is_type(ipam_type))
        return json_fail(json_member(ipam, "type"), err, "\"%.80s\" is not the name of a program", ipam_type);
    if (out->plugin_count == CNI_PLUGINS_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "more than %d plugins in one network", CNI_PLUGINS_MAX);
    out->plugins[out->plugin_count++] = (struct cni_plugin){ .type = type, .config = j };
    return true;
}

static bool cni_network_read_list(const struct json *list, struct cni_network *out, struct status *err)
{
    const struct json *plugins = NULL;

    *out = (struct cni_network){ .file = "", .name = "" };
    if (!json_want(list, JSON_OBJECT, err) || !cni_check_depth(list, err) || !json_read_string(list, "name", &out->name, err))
        return false;
    if (!cni_network_is_name(out->name))
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "name: \"%.80s\" is not the name of a network: letters, digits and . _ - after the first", out->name);
    if (!cni_network_pick_version(list, out, err) || !cni_network_read_switch(list, "disableCheck", &out->disable_check, err) ||
        !cni_network_read_switch(list, "disableGC", &out->disable_gc, err) ||
        !cni_network_read_switch(list, "loadOnlyInlinedPlugins", &out->inline_only, err) ||
        !json_read_node(list, "plugins", JSON_ARRAY, &plugins, err))
        return false;
    /* A single plugin, as before 1.0.0. */
    if (plugins == NULL && json_member(list, "type") != NULL) {
        out->inline_only = true;
        return cni_network_add_plugin(list, out, err);
    }
    for (JSON_EACH(plugin, plugins))
        if (!cni_network_add_plugin(plugin, out, err))
            return false;
    return true;
}

static bool cni_network_check_plugins(const struct cni_network *network, struct status *err)
{
    return network->plugin_count > 0 || status_set(err, STATUS_INVALID_ARGUMENT, "plugins: the network has none");
}

bool cni_network_parse(struct arena *arena, struct str text, struct cni_network *out, struct status *err)
{
    const struct json *list = json_parse(arena, text, err);

    return list != NULL && cni_network_read_list(list, out, err) && cni_network_check_plugins(out, err);
}

/* ---- finding ---- */

struct cni_network_files {
    char **paths; /* on the arena, sorted */
    size_t count;
};

static int cni_network_compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool cni_network_has_ending(const char *name, const char *const *endings)
{
    for (; *endings != NULL; endings++)
        if (str_ends(name, *endings))
            return true;
    return false;
}

static bool cni_network_list_files(struct arena *arena, const char *folder, const char *const *endings, struct cni_network_files *out,
                           struct status *err)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    struct stat st;

    *out = (struct cni_network_files){ NULL, 0 };
    if (dir == NULL)
        return errno == ENOENT || status_errno(err, "cannot list %s", folder);
    out->paths = ARENA_ARRAY(arena, char *, CNI_FILES_MAX);
    while ((entry = readdir(dir)) != NULL && out->count < CNI_FILES_MAX) {
        const char *path = arena_printf(arena, "%s/%s", folder, entry->d_name);
        if (cni_network_has_ending(entry->d_name, endings) && (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)))
            out->paths[out->count++] = (char *)(uintptr_t)path;
    }
    closedir(dir);
    qsort(out->paths, out->count, sizeof *out->paths, cni_network_compare_paths);
    return true;
}

static const struct json *cni_network_read_file(struct arena *arena, const char *path, size_t *left, struct status *err)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (!file_read(path, *left, &text, err))
        return NULL;
    *left -= text.n;
    const struct json *j = json_parse(arena, (struct str){ (const char *)text.p, text.n }, err);
    if (j == NULL || !cni_check_depth(j, err)) {
        status_prefix(err, "%s", path);
        return NULL;
    }
    return j;
}

/* Vendors may add plugins to a chain without a change to its file: those of FOLDER/NAME/ *.conf come last. */
static bool cni_network_add_folder(struct arena *arena, const char *folder, struct cni_network *out, size_t *left, struct status *err)
{
    static const char *const endings[] = { ".conf", NULL };
    struct cni_network_files files;

    if (out->inline_only)
        return true;
    if (!cni_network_list_files(arena, arena_printf(arena, "%s/%s", folder, out->name), endings, &files, err))
        return false;
    for (size_t i = 0; i < files.count; i++) {
        const struct json *j = cni_network_read_file(arena, files.paths[i], left, err);
        if (j == NULL)
            return false;
        if (!cni_network_add_plugin(j, out, err))
            return status_prefix(err, "%s", files.paths[i]);
    }
    return true;
}

bool cni_network_find(struct arena *arena, const char *folder, struct cni_network *out, bool *found, struct status *err)
{
    static const char *const endings[] = { ".conflist", ".conf", ".json", NULL };
    struct cni_network_files files;
    size_t left = CNI_CONFIG_MAX;

    *found = false;
    if (!cni_network_list_files(arena, folder, endings, &files, err))
        return false;
    if (files.count == 0)
        return true;
    *found = true;
    const struct json *list = cni_network_read_file(arena, files.paths[0], &left, err);
    if (list == NULL)
        return false;
    if (!cni_network_read_list(list, out, err))
        return status_prefix(err, "%s", files.paths[0]);
    out->file = files.paths[0];
    return cni_network_add_folder(arena, folder, out, &left, err) &&
           (cni_network_check_plugins(out, err) || status_prefix(err, "%s", files.paths[0]));
}

/* ---- the rest ---- */

void cni_network_write(const struct cni_network *network, struct buf *json)
{
    struct json_writer w;

    json_writer_init(&w, json, 0);
    json_write_object(&w);
    json_write_member_string(&w, "cniVersion", network->version);
    json_write_member_string(&w, "name", network->name);
    json_write_member_bool(&w, "disableCheck", network->disable_check);
    json_write_member_bool(&w, "disableGC", network->disable_gc);
    json_write_member_bool(&w, "loadOnlyInlinedPlugins", true);
    json_write_member_array(&w, "plugins");
    for (size_t i = 0; i < network->plugin_count; i++)
        json_write_tree(&w, network->plugins[i].config);
    json_write_end(&w);
    json_write_end(&w);
}

bool cni_plugin_can(const struct cni_plugin *plugin, const char *capability)
{
    return json_bool(json_get(plugin->config, "capabilities", capability), false);
}

bool cni_network_can(const struct cni_network *network, const char *capability)
{
    for (size_t i = 0; i < network->plugin_count; i++)
        if (cni_plugin_can(&network->plugins[i], capability))
            return true;
    return false;
}

char *cni_find_program(const char *const *folders, const char *type, struct status *err)
{
    cleanup_buf struct buf searched = BUF_INIT;

    for (const char *const *folder = folders; *folder != NULL; folder++) {
        cleanup_free char *path = xasprintf("%s/%s", *folder, type);
        struct stat st;
        if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0)
            return steal_ptr(&path);
        buf_printf(&searched, "%s%s", searched.n > 0 ? ", " : "", *folder);
    }
    status_set(err, STATUS_NOT_FOUND, "the CNI plugin %s is in none of %s", type, buf_cstr(&searched));
    return NULL;
}

bool cni_network_check_programs(const struct cni_network *network, const char *const *folders, struct status *err)
{
    for (size_t i = 0; i < network->plugin_count; i++) {
        const char *types[] = { network->plugins[i].type, json_string(json_get(network->plugins[i].config, "ipam", "type"), "") };
        for (size_t k = 0; k < COUNT_OF(types); k++) {
            cleanup_free char *program = *types[k] != '\0' ? cni_find_program(folders, types[k], err) : xstrdup("");
            if (program == NULL)
                return status_prefix(err, "network %s of %s", network->name, network->file);
        }
    }
    return true;
}
