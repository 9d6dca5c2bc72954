/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base.h: the vocabulary of the program. Every other file starts from here.
 *
 *   status.h    the one error type: a gRPC code and a sentence
 *   bytes.h     allocation that cannot fail, strings, growable buffers, hex and base64
 *   arena.h     memory that lives as long as a call
 *   list.h      intrusive lists
 *   shared.h    bytes with several holders
 *   budget.h    memory that many queues share
 *   strmap.h    a map from strings to pointers
 *   clock.h     the two clocks
 *   random.h    random bytes and ids
 *   log.h       one line on standard error for each thing an operator should know
 *   limits.h    every bound, with its reason
 *
 * Conventions, stated once:
 *  - A function that can fail returns bool (true: done) or an int below 0, and takes `struct status *err` as its
 *    LAST parameter. `err` is written only on failure and must not be NULL unless the function says so.
 *  - Every pointer has one owner. A function that takes ownership says "takes"; one that hands it over says
 *    "the caller frees"; everything else is borrowed for the call.
 *  - `cleanup_*` attributes free a local at the end of its scope; steal_ptr() hands its value on.
 *  - Running out of memory aborts: a daemon that cannot allocate a few bytes has nothing sensible left to do.
 *    What comes from outside is bounded before it is allocated (limits.h).
 *  - NULL strings are never passed around: "nothing" is "".
 *  - Names carry their module's prefix when public; everything else is static.
 */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

/* Some compilers define these plain words as macros in GNU mode; generated message fields carry them as names. */
#undef linux
#undef unix

/* musl makes these macros "(stdin)" and so on, which cannot name a field either; the objects stay. */
#undef stdin
#undef stdout
#undef stderr

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define UNUSED __attribute__((unused))

#include "base/limits.h"
#include "base/status.h"
#include "base/bytes.h"
#include "base/arena.h"
#include "base/list.h"
#include "base/shared.h"
#include "base/budget.h"
#include "base/strmap.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/log.h"

#endif
