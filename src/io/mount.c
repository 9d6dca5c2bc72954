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

#undef MOUNT_TABLE_MAX
