/* SPDX-License-Identifier: Apache-2.0 */
/* log.h: one line on standard error for each thing an operator should know. Never a secret, never a whole request. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/base.h"

/* A third-party header includes this one, whose macros would take the place of the words below from there on. */
#include <syslog.h>
#undef LOG_INFO
#undef LOG_DEBUG

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Lines above `level` are dropped. Default: LOG_INFO. `role` is a word put into each line ("serve", "agent"); it must
 * outlive the program. The level is process-wide: the one piece of state outside the context structs. */
void log_setup(enum log_level level, const char *role);
/* "error", "warn", "info", "debug"; false when the word is none of them. */
bool log_level_parse(const char *word, enum log_level *out);
bool log_enabled(enum log_level level);
void log_error(const char *format, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *format, ...) PRINTF_LIKE(1, 2);
void log_info(const char *format, ...) PRINTF_LIKE(1, 2);
void log_debug(const char *format, ...) PRINTF_LIKE(1, 2);

#endif
