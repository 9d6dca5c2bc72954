/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <time.h>
#include <unistd.h>

static struct {
    enum log_level level;
    const char *role;
} log_state = { LOG_INFO, "interlink-cri" };

static const char *const log_words[] = { "error", "warn", "info", "debug" };

void log_setup(enum log_level level, const char *role)
{
    log_state.level = level;
    log_state.role = role;
}

bool log_level_parse(const char *word, enum log_level *out)
{
    for (size_t i = 0; i < COUNT_OF(log_words); i++) {
        if (strcmp(word, log_words[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

bool log_enabled(enum log_level level)
{
    return level <= log_state.level;
}

/* One write(2) a line, so that lines of several processes do not mix. Control characters become '?': what a peer sent
 * must not forge a line. */
static void log_line(enum log_level level, const char *format, va_list args)
{
    char line[LOG_LINE_MAX];
    struct timespec now;
    struct tm utc;

    if (level > log_state.level)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %-5s %s: ", now.tv_nsec / 1000000, log_words[level],
                          log_state.role);
    size_t start = n;
    int m = vsnprintf(line + n, sizeof line - n - 1, format, args);
    if (m < 0)
        return;
    n += (size_t)m;
    if (n > sizeof line - 2) {
        n = sizeof line - 2;
        memcpy(line + n - 3, "...", 3);
    }
    for (size_t i = start; i < n; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[n++] = '\n';
    ssize_t ignored UNUSED = write(STDERR_FILENO, line, n);
}

#define LOG_DEFINE(name, level)                                                                                        \
    void name(const char *format, ...)                                                                                 \
    {                                                                                                                  \
        va_list args;                                                                                                  \
        va_start(args, format);                                                                                        \
        log_line(level, format, args);                                                                                 \
        va_end(args);                                                                                                  \
    }
LOG_DEFINE(log_error, LOG_ERROR)
LOG_DEFINE(log_warn, LOG_WARN)
LOG_DEFINE(log_info, LOG_INFO)
LOG_DEFINE(log_debug, LOG_DEBUG)
#undef LOG_DEFINE
