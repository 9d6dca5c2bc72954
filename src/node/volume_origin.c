/* SPDX-License-Identifier: Apache-2.0 */
#include "node/volume_origin.h"

/* Two parts of a path as one: neither the first's "/" at the end nor an empty second counts. */
static char *volume_join(const char *a, const char *b)
{
    size_t n = strlen(a);

    while (n > 0 && a[n - 1] == '/')
        n--;
    while (*b == '/')
        b++;
    return *b == '\0' ? xasprintf("%.*s%s", (int)n, a, n == 0 ? "/" : "") : xasprintf("%.*s/%s", (int)n, a, b);
}

/* What follows `folder` in `path`; NULL when it is not below it. */
static const char *volume_behind(const char *path, const char *folder)
{
    size_t n = strlen(folder);

    while (n > 0 && folder[n - 1] == '/')
        n--;
    if (strncmp(path, folder, n) != 0 || (path[n] != '/' && path[n] != '\0'))
        return NULL;
    return path + n;
}

/* "server:/export", "//server/share", "10.0.0.1@tcp:/scratch": the same name is the same place on every mount of its type. */
static bool volume_is_remote(const struct mount_entry *e)
{
    return strstr(e->source, ":/") != NULL || str_starts(e->source, "//");
}

/* Where in its file system, or on its server, the files are. */
static char *volume_location(const struct mount_entry *e, const char *path, bool remote)
{
    cleanup_free char *inside = volume_join(e->root, volume_behind(path, e->point));

    return remote ? volume_join(e->source, inside) : steal_ptr(&inside);
}

static bool volume_offer(const struct mount_table *t, const struct mount_entry *mine, const char *path, const struct mount_entry *other,
                         bool (*fn)(void *arg, const char *origin), void *arg)
{
    bool same = mine->major == other->major && mine->minor == other->minor;
    bool remote = !same && strcmp(mine->type, other->type) == 0 && volume_is_remote(mine) && volume_is_remote(other);

    if (other == mine || (!same && !remote))
        return false;
    cleanup_free char *location = volume_location(mine, path, remote);
    cleanup_free char *base = volume_location(other, other->point, remote);
    const char *rest = volume_behind(location, base);
    if (rest == NULL)
        return false;
    cleanup_free char *origin = volume_join(other->point, rest);
    /* Something else may be mounted over it. */
    return mount_table_find(t, origin) == other && strcmp(origin, path) != 0 && fn(arg, origin);
}

bool volume_origin_each(const struct mount_table *t, const char *path, bool (*fn)(void *arg, const char *origin), void *arg)
{
    const struct mount_entry *mine = mount_table_find(t, path);

    for (size_t i = 0; mine != NULL && i < t->count; i++)
        if (volume_offer(t, mine, path, &t->entries[i], fn, arg))
            return true;
    return false;
}
