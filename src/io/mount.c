/* SPDX-License-Identifier: Apache-2.0 */
#include "io/mount.h"

#include "io/file.h"

/* A machine with some ten thousand mounts. */
#define MOUNT_TABLE_MAX (4u << 20)

/* The kernel writes a blank as \040; in place. */
static void mount_unescape(char *text)
{
    char *out = text;

    for (const char *p = text; *p != '\0'; p++) {
        unsigned code;
        if (*p == '\\' && strlen(p) >= 4 && sscanf(p + 1, "%3o", &code) == 1) {
            *out++ = (char)code;
            p += 3;
        } else {
            *out++ = *p;
        }
    }
    *out = '\0';
}

static void mount_take(char *line, const char *real, size_t *best, struct mount_info *out)
{
    char point[sizeof out->point], source[sizeof out->source] = "";
    const char *rest = strstr(line, " - ");

    if (sscanf(line, "%*s %*s %*s %*s %4095s", point) != 1)
        return;
    mount_unescape(point);
    size_t n = strlen(point);
    bool inside = n == 1 || (strncmp(real, point, n) == 0 && (real[n] == '/' || real[n] == '\0'));
    if (!inside || n < *best)
        return;
    *best = n;
    memcpy(out->point, point, n + 1);
    if (rest != NULL && sscanf(rest, " - %*s %255s", source) == 1)
        mount_unescape(source);
    memcpy(out->source, source, sizeof source);
}

void mount_find(const char *path, struct mount_info *out)
{
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;
    cleanup_free char *real = realpath(path, NULL);
    char *save = NULL;
    size_t best = 0;

    *out = (struct mount_info){ .point = "/" };
    if (real == NULL || !file_read("/proc/self/mountinfo", MOUNT_TABLE_MAX, &text, &ignored))
        return;
    buf_cstr(&text);
    /* The mount with the longest path that ours begins with; of several on one path the last is on top. */
    for (char *line = strtok_r((char *)text.p, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save))
        mount_take(line, real, &best, out);
}

/* ---- all of them ---- */

/* ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELDS...] - TYPE SOURCE OPTIONS */
static bool mount_entry_parse(char *line, struct arena *arena, struct mount_entry *out)
{
    char *rest = strstr(line, " - "), *words[5] = { NULL }, *ends[3] = { NULL }, *save = NULL;
    size_t n = 0;

    if (rest == NULL)
        return false;
    *rest = '\0';
    for (char *w = strtok_r(line, " ", &save); w != NULL && n < COUNT_OF(words); w = strtok_r(NULL, " ", &save))
        words[n++] = w;
    size_t tail = 0;
    for (char *w = strtok_r(rest + 3, " ", &save); w != NULL && tail < COUNT_OF(ends); w = strtok_r(NULL, " ", &save))
        ends[tail++] = w;
    if (n < COUNT_OF(words) || tail < 1 || sscanf(words[2], "%u:%u", &out->major, &out->minor) != 2)
        return false;
    mount_unescape(words[3]);
    mount_unescape(words[4]);
    if (words[4][0] != '/')
        return false;
    if (ends[1] != NULL)
        mount_unescape(ends[1]);
    out->root = arena_strdup(arena, words[3]);
    out->point = arena_strdup(arena, words[4]);
    out->type = arena_strdup(arena, ends[0]);
    out->source = arena_strdup(arena, ends[1] != NULL ? ends[1] : "");
    out->options = arena_strdup(arena, ends[2] != NULL ? ends[2] : "");
    return true;
}

void mount_table_parse(struct str text, struct mount_table *out)
{
    cleanup_free char *copy = xstrndup(text.n > 0 ? text.p : "", text.n);
    char *save = NULL;
    size_t lines = 1;

    *out = (struct mount_table){ .arena = ARENA_INIT };
    for (const char *p = copy; (p = strchr(p, '\n')) != NULL; p++)
        lines++;
    out->entries = ARENA_ARRAY(&out->arena, struct mount_entry, lines);
    for (char *line = strtok_r(copy, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save))
        if (mount_entry_parse(line, &out->arena, &out->entries[out->count]))
            out->count++;
}

bool mount_table_read(struct mount_table *out, struct status *err)
{
    struct buf text cleanup_buf = BUF_INIT;

    *out = (struct mount_table){ .arena = ARENA_INIT };
    if (!file_read("/proc/self/mountinfo", MOUNT_TABLE_MAX, &text, err))
        return false;
    mount_table_parse((struct str){ (const char *)text.p, text.n }, out);
    return true;
}

void mount_table_free(struct mount_table *t)
{
    arena_free(&t->arena);
    *t = (struct mount_table){ .arena = ARENA_INIT };
}

const struct mount_entry *mount_table_find(const struct mount_table *t, const char *path)
{
    const struct mount_entry *found = NULL;
    size_t best = 0;

    for (size_t i = 0; i < t->count && *path == '/'; i++) {
        const struct mount_entry *e = &t->entries[i];
        size_t n = strlen(e->point);
        if ((n == 1 || (strncmp(path, e->point, n) == 0 && (path[n] == '/' || path[n] == '\0'))) && n >= best) {
            best = n;
            found = e;
        }
    }
    return found;
}

const char *mount_entry_option(const struct mount_entry *e, const char *name, struct arena *arena)
{
    size_t n = strlen(name);

    for (const char *p = e->options; p != NULL; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, name, n) == 0 && p[n] == '=')
            return arena_strndup(arena, p + n + 1, strcspn(p + n + 1, ","));
    }
    return "";
}

#undef MOUNT_TABLE_MAX
