/* SPDX-License-Identifier: Apache-2.0 */
/* status.h: the one error type. Codes are gRPC's (google.rpc.Code), so that an error made deep inside reaches the
 * client of an RPC unchanged. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include "base/base.h"

enum status_code {
    STATUS_OK = 0,
    STATUS_CANCELLED = 1,
    STATUS_UNKNOWN = 2,
    STATUS_INVALID_ARGUMENT = 3,
    STATUS_DEADLINE_EXCEEDED = 4,
    STATUS_NOT_FOUND = 5,
    STATUS_ALREADY_EXISTS = 6,
    STATUS_PERMISSION_DENIED = 7,
    STATUS_RESOURCE_EXHAUSTED = 8,
    STATUS_FAILED_PRECONDITION = 9,
    STATUS_ABORTED = 10,
    STATUS_OUT_OF_RANGE = 11,
    STATUS_UNIMPLEMENTED = 12,
    STATUS_INTERNAL = 13,
    STATUS_UNAVAILABLE = 14,
    STATUS_DATA_LOSS = 15,
    STATUS_UNAUTHENTICATED = 16,
};

/* An error by value: no ownership, fits on the stack. The message says what was tried, on what, and what to do. */
struct status {
    enum status_code code;
    char message[STATUS_MESSAGE_MAX];
};

#define STATUS_INIT { .code = STATUS_OK, .message = "" }

/* Sets code and message. Returns false, so that `return status_set(err, ...)` reads well. */
bool status_set(struct status *err, enum status_code code, const char *format, ...) PRINTF_LIKE(3, 4);
/* Same, the code chosen from errno (ENOENT: NOT_FOUND, EACCES/EPERM: PERMISSION_DENIED, ENOSPC/EMFILE/...:
 * RESOURCE_EXHAUSTED, else INTERNAL) and ": <strerror(errno)>" appended. Returns false. */
bool status_errno(struct status *err, const char *format, ...) PRINTF_LIKE(2, 3);
/* Puts "<text>: " before the message, keeping the code: context on the way up. Returns false. */
bool status_prefix(struct status *err, const char *format, ...) PRINTF_LIKE(2, 3);
/* The code's name as gRPC spells it ("NOT_FOUND"); "CODE_<n>" is never returned: unknown numbers give "UNKNOWN". */
const char *status_code_name(enum status_code code);

#endif
