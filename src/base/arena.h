/* SPDX-License-Identifier: Apache-2.0 */
/* arena.h: memory that lives as long as a call: allocate freely, free once. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/base.h"

/* All zero is an empty arena. */
struct arena {
    struct arena_chunk *chunks; /* owned; newest first */
};
#define ARENA_INIT { NULL }
/* Zeroed memory, aligned for any type; valid until arena_free. Never NULL. */
void *arena_alloc(struct arena *a, size_t size);
/* Not zeroed. */
void *arena_alloc_raw(struct arena *a, size_t size);
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t n);
char *arena_printf(struct arena *a, const char *format, ...) PRINTF_LIKE(2, 3);
void *arena_memdup(struct arena *a, const void *p, size_t n);
void arena_free(struct arena *a);
/* Forgets everything but keeps one chunk for what comes next. */
void arena_reset(struct arena *a);
#define cleanup_arena __attribute__((cleanup(arena_free)))
#define ARENA_NEW(arena, type) ((type *)arena_alloc((arena), sizeof(type)))
#define ARENA_ARRAY(arena, type, count) ((type *)arena_alloc((arena), sizeof(type) * (count)))

#endif
