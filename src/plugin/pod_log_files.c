/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/pod_log_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text/crilog.h"

/* Read at a time; a line of a log fits. */
#define POD_LOG_BLOCK (64u << 10)

/* ---- names ---- */

/* "K.log" or "K.log.N"; *part is 0 without N. */
static bool pod_log_name(const char *name, int64_t *attempt, unsigned *part)
{
    int used = 0;

    *part = 0;
    if (sscanf(name, "%" SCNd64 ".log%n", attempt, &used) != 1 || used == 0 || *attempt < 0)
        return false;
    if (name[used] == '\0')
        return true;
    int more = 0;
    return sscanf(name + used, ".%u%n", part, &more) == 1 && name[used + more] == '\0' && *part > 0;
}

bool pod_log_files_find(const char *job_dir, const char *container, bool previous, struct pod_log_files *out)
{
    *out = (struct pod_log_files){ .dir = xasprintf("%s/logs/%s", job_dir, container), .attempt = -1, .first = 1, .last = 0 };
    DIR *dir = opendir(out->dir);
    struct dirent *entry;
    int64_t newest = -1, before = -1, attempt;
    unsigned part;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (!pod_log_name(entry->d_name, &attempt, &part) || attempt == newest || attempt == before)
            continue;
        if (attempt > newest) {
            before = newest;
            newest = attempt;
        } else if (attempt > before) {
            before = attempt;
        }
    }
    out->attempt = previous ? before : newest;
    if (dir != NULL)
        rewinddir(dir);
    while (dir != NULL && out->attempt >= 0 && (entry = readdir(dir)) != NULL) {
        if (!pod_log_name(entry->d_name, &attempt, &part) || attempt != out->attempt || part == 0)
            continue;
        out->first = out->last == 0 || part < out->first ? part : out->first;
        out->last = part > out->last ? part : out->last;
    }
    if (dir != NULL)
        closedir(dir);
    if (out->attempt < 0)
        pod_log_files_free(out);
    return out->attempt >= 0;
}

void pod_log_files_free(struct pod_log_files *f)
{
    free(f->dir);
    f->dir = NULL;
}

int pod_log_files_open(const struct pod_log_files *f, unsigned part)
{
    cleanup_free char *path = part <= f->last ? xasprintf("%s/%" PRId64 ".log.%u", f->dir, f->attempt, part)
                                              : xasprintf("%s/%" PRId64 ".log", f->dir, f->attempt);

    return open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
}

/* ---- the last lines ---- */

/* From the file's end; false: its beginning was reached. */
static bool pod_log_tail_file(int fd, struct crilog_tail *tail, off_t *offset)
{
    cleanup_free char *block = xmalloc(POD_LOG_BLOCK);
    off_t end = lseek(fd, 0, SEEK_END);
    size_t at;

    while (end > 0) {
        size_t want = end < (off_t)POD_LOG_BLOCK ? (size_t)end : POD_LOG_BLOCK;
        if (pread(fd, block, want, end - (off_t)want) != (ssize_t)want)
            return false;
        if (crilog_tail_step(tail, (struct str){ block, want }, &at)) {
            *offset = end - (off_t)want + (off_t)at;
            return true;
        }
        end -= (off_t)want;
    }
    return false;
}

struct pod_log_place pod_log_files_tail(const struct pod_log_files *f, uint64_t lines)
{
    struct crilog_tail tail = { .lines = lines };
    struct pod_log_place place = { f->first, 0 };

    for (unsigned part = f->last + 1; part >= f->first; part--) {
        cleanup_close int fd = pod_log_files_open(f, part);
        if (fd < 0 || !pod_log_tail_file(fd, &tail, &place.offset))
            continue;
        place.part = part;
        break;
    }
    return place;
}

/* ---- a time ---- */

/* The time of the first whole line at or after `from`; INT64_MAX when there is none. *line: where it begins. */
static int64_t pod_log_time_at(int fd, off_t from, char *block, off_t *line)
{
    ssize_t n = pread(fd, block, POD_LOG_BLOCK, from > 0 ? from - 1 : 0);
    struct crilog_line parsed;
    size_t at = 0;

    if (n <= 0)
        return INT64_MAX;
    if (from > 0) { /* a line begins after the first end of a line from the byte before on */
        const char *end = memchr(block, '\n', (size_t)n);
        if (end == NULL)
            return INT64_MAX;
        at = (size_t)(end - block) + 1;
    }
    *line = (from > 0 ? from - 1 : 0) + (off_t)at;
    const char *end = memchr(block + at, '\n', (size_t)n - at);
    if (end == NULL || !crilog_parse((struct str){ block + at, (size_t)(end - block) - at }, &parsed))
        return INT64_MAX;
    return parsed.time_ns;
}

static off_t pod_log_since_file(int fd, int64_t since_ns, char *block)
{
    off_t low = 0, high = lseek(fd, 0, SEEK_END), line = 0;

    /* All lines that begin before `low` are older; the first that is not begins before `high`, or nowhere. */
    while (high - low > (off_t)POD_LOG_BLOCK) {
        off_t middle = low + (high - low) / 2;
        if (pod_log_time_at(fd, middle, block, &line) < since_ns)
            low = line;
        else
            high = middle;
    }
    return low;
}

struct pod_log_place pod_log_files_since(const struct pod_log_files *f, int64_t since_ns)
{
    cleanup_free char *block = xmalloc(POD_LOG_BLOCK);
    struct pod_log_place place = { f->first, 0 };
    off_t line;

    /* The last part that begins with an older line. */
    for (unsigned part = f->last + 1; part > f->first; part--) {
        cleanup_close int fd = pod_log_files_open(f, part);
        if (fd < 0 || pod_log_time_at(fd, 0, block, &line) >= since_ns)
            continue;
        place.part = part;
        break;
    }
    cleanup_close int fd = pod_log_files_open(f, place.part);
    if (fd >= 0)
        place.offset = pod_log_since_file(fd, since_ns, block);
    return place;
}

#undef POD_LOG_BLOCK
