/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    max_align_t data[];
};

void *arena_alloc_raw(struct arena *a, size_t size)
{
    const size_t align = sizeof(max_align_t);

    if (size > SIZE_MAX / 2)
        abort();
    size = (size + align - 1) / align * align;
    struct arena_chunk *chunk = a->chunks;
    if (chunk == NULL || chunk->size - chunk->used < size) {
        size_t capacity = size > ARENA_CHUNK_SIZE / 2 ? size : ARENA_CHUNK_SIZE;
        struct arena_chunk *fresh = xmalloc(sizeof *fresh + capacity);
        fresh->used = 0;
        fresh->size = capacity;
        /* A chunk made for one big object goes behind the current one, whose room stays in use. */
        if (chunk != NULL && capacity == size) {
            fresh->next = chunk->next;
            chunk->next = fresh;
        } else {
            fresh->next = chunk;
            a->chunks = fresh;
        }
        chunk = fresh;
    }
    void *p = (char *)chunk->data + chunk->used;
    chunk->used += size;
    return p;
}

void *arena_alloc(struct arena *a, size_t size)
{
    return memset(arena_alloc_raw(a, size), 0, size);
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *copy = arena_alloc_raw(a, n + 1);

    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

char *arena_printf(struct arena *a, const char *format, ...)
{
    va_list args, again;

    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        abort();
    char *s = arena_alloc_raw(a, (size_t)n + 1);
    vsnprintf(s, (size_t)n + 1, format, again);
    va_end(again);
    return s;
}

void *arena_memdup(struct arena *a, const void *p, size_t n)
{
    void *copy = arena_alloc_raw(a, n);

    if (n > 0)
        memcpy(copy, p, n);
    return copy;
}

void arena_free(struct arena *a)
{
    while (a->chunks != NULL) {
        struct arena_chunk *next = a->chunks->next;
        free(a->chunks);
        a->chunks = next;
    }
}

void arena_reset(struct arena *a)
{
    struct arena_chunk *kept = NULL;

    while (a->chunks != NULL) {
        struct arena_chunk *chunk = a->chunks;
        a->chunks = chunk->next;
        if (kept == NULL && chunk->size == ARENA_CHUNK_SIZE)
            kept = chunk;
        else
            free(chunk);
    }
    if (kept != NULL) {
        kept->used = 0;
        kept->next = NULL;
    }
    a->chunks = kept;
}
