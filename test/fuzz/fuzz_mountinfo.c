/* SPDX-License-Identifier: Apache-2.0 */
/* A table of mounts, whose names are anybody's; and host paths as a pod may name them. The first line is a path, the second a pod's
 * uid. */
#include <assert.h>

#include "io/mount.h"
#include "node/volume_origin.h"
#include "node/volume_place.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool on_origin(void *arg, const char *origin)
{
    assert(*origin == '/' || arg != NULL);
    return false;
}

static char *take_line(struct str *text)
{
    const char *end = text->n > 0 ? memchr(text->p, '\n', text->n) : NULL;
    size_t n = end != NULL ? (size_t)(end - text->p) : text->n;
    char *line = text->n > 0 ? xstrndup(text->p, n) : xstrdup("");

    n += end != NULL;
    text->p += n;
    text->n -= n;
    return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const shared[] = { "/home", "/shared/", NULL };
    struct str text = { (const char *)data, size };
    cleanup_free char *path = take_line(&text), *uid = take_line(&text);
    struct mount_table table;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct volume_place place = volume_place(path, uid, shared);

    /* All is borrowed from the path. */
    assert(place.name_length <= strlen(place.name) && place.pod_dir.n <= strlen(path));
    mount_table_parse(text, &table);
    volume_origin_each(&table, path, on_origin, &table);
    for (size_t i = 0; i < table.count; i++) {
        mount_entry_option(&table.entries[i], "size", &arena);
        volume_origin_each(&table, table.entries[i].point, on_origin, &table);
    }
    mount_table_free(&table);
    return 0;
}
