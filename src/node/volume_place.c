/* SPDX-License-Identifier: Apache-2.0 */
#include "node/volume_place.h"

bool volume_is_below(const char *path, const char *folder)
{
    size_t n = strlen(folder);

    while (n > 0 && folder[n - 1] == '/')
        n--;
    return strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static bool volume_climbs(const char *path)
{
    for (const char *p = path; *p != '\0';) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.')
            return true;
        p += n;
        p += strspn(p, "/");
    }
    return false;
}

/* The path behind <root>/pods/UID/; NULL when it is not there. */
static const char *volume_in_pod_dir(const char *path, const char *pod_uid, struct str *pod_dir)
{
    cleanup_free char *marker = xasprintf("/pods/%s/", pod_uid);
    const char *found = *pod_uid == '\0' || strchr(pod_uid, '/') != NULL ? NULL : strstr(path, marker);

    if (found == NULL)
        return NULL;
    *pod_dir = (struct str){ path, (size_t)(found - path) + strlen(marker) - 1 };
    return found + strlen(marker);
}

/* How many parts a relative path has; 0 when it is not a plain one. */
static size_t volume_parts(const char *path)
{
    size_t parts = 0;

    for (const char *p = path;; p++) {
        size_t n = strcspn(p, "/");
        if (n == 0)
            return 0;
        parts++;
        p += n;
        if (*p == '\0')
            return parts;
    }
}

static bool volume_is_written_by_kubelet(const char *plugin)
{
    static const char *const plugins[] = { "kubernetes.io~configmap/", "kubernetes.io~secret/", "kubernetes.io~projected/",
                                           "kubernetes.io~downward-api/" };

    for (size_t i = 0; i < COUNT_OF(plugins); i++)
        if (str_starts(plugin, plugins[i]))
            return true;
    return false;
}

static enum volume_kind volume_kind_in_pod(const char *rest, struct volume_place *out)
{
    static const char empty_dir[] = "kubernetes.io~empty-dir/";
    size_t parts = volume_parts(rest);

    if (strcmp(rest, "etc-hosts") == 0)
        return VOLUME_COPIED;
    if (str_starts(rest, "containers/") && parts == 3)
        return VOLUME_TERMINATION_LOG;
    if (str_starts(rest, "volume-subpaths/") && parts == 4)
        return VOLUME_MOUNTED;
    if (!str_starts(rest, "volumes/") || parts < 3)
        return VOLUME_ELSEWHERE;
    const char *plugin = rest + strlen("volumes/");
    if (volume_is_written_by_kubelet(plugin))
        return parts == 3 ? VOLUME_PROJECTED : VOLUME_COPIED;
    if (!str_starts(plugin, empty_dir))
        return VOLUME_MOUNTED;
    out->name = plugin + strlen(empty_dir);
    out->name_length = strcspn(out->name, "/");
    out->sub_path = out->name + out->name_length;
    out->sub_path += *out->sub_path == '/';
    return VOLUME_EMPTY_DIR;
}

struct volume_place volume_place(const char *host_path, const char *pod_uid, const char *const *shared)
{
    struct volume_place out = { .kind = VOLUME_ELSEWHERE, .name = "", .sub_path = "" };

    if (*host_path != '/' || volume_climbs(host_path))
        return out;
    for (const char *const *s = shared; s != NULL && *s != NULL; s++)
        if (volume_is_below(host_path, *s)) {
            out.kind = VOLUME_SHARED;
            return out;
        }
    const char *rest = volume_in_pod_dir(host_path, pod_uid, &out.pod_dir);
    if (rest == NULL)
        return out;
    out.name = rest;
    out.name_length = strlen(rest);
    out.kind = volume_kind_in_pod(rest, &out);
    return out;
}
