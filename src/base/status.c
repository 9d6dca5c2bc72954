/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

static enum status_code status_code_of_errno(int number)
{
    switch (number) {
    case ENOENT:
        return STATUS_NOT_FOUND;
    case EEXIST:
        return STATUS_ALREADY_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return STATUS_PERMISSION_DENIED;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EAGAIN:
        return STATUS_RESOURCE_EXHAUSTED;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return STATUS_UNAVAILABLE;
    case ETIMEDOUT:
        return STATUS_DEADLINE_EXCEEDED;
    default:
        return STATUS_INTERNAL;
    }
}

bool status_set(struct status *err, enum status_code code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    err->code = code;
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return false;
}

bool status_errno(struct status *err, const char *format, ...)
{
    int number = errno;
    va_list args;

    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->message)
        snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s", strerror(number));
    err->code = status_code_of_errno(number);
    errno = number;
    return false;
}

bool status_prefix(struct status *err, const char *format, ...)
{
    char old[STATUS_MESSAGE_MAX];
    va_list args;

    memcpy(old, err->message, sizeof old);
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->message) {
        struct buf text = BUF_INIT;
        buf_printf(&text, "%s: %s", err->message, old);
        size_t length = text.n < sizeof err->message - 1 ? text.n : sizeof err->message - 1;
        memcpy(err->message, text.p, length);
        err->message[length] = '\0';
        buf_free(&text);
    }
    return false;
}

const char *status_code_name(enum status_code code)
{
    static const char *const names[] = {
        "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
        "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
        "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
    };
    size_t i = (size_t)code;

    return i < COUNT_OF(names) ? names[i] : "UNKNOWN";
}
