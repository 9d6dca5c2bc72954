/* SPDX-License-Identifier: Apache-2.0 */
#include "http/h2_memory.h"

/* Before each object; keeps its alignment. */
struct h2_memory_piece {
    union {
        struct h2_memory_piece *next; /* when spare */
        size_t capacity;              /* when in use */
    };
    max_align_t data[];
};

/* Sizes up to 64, 128, 256 and 512 bytes. */
#define H2_MEMORY_CLASSES 4

struct h2_memory {
    struct h2_memory_piece *spare[H2_MEMORY_CLASSES]; /* owned */
    size_t spare_bytes;
    size_t in_use; /* objects */
    bool released;
};

/* What a connection with hundreds of calls under way uses; more goes back at once. */
#define H2_MEMORY_SPARE_MAX (256 << 10)

/* The class whose objects are just large enough; H2_MEMORY_CLASSES: none. */
static size_t h2_memory_class(size_t size)
{
    size_t class = 0;

    while (class < H2_MEMORY_CLASSES && size > (size_t)64 << class)
        class++;
    return class;
}

static void *h2_memory_alloc(size_t size, void *arg)
{
    struct h2_memory *memory = arg;
    size_t class = h2_memory_class(size), capacity = class < H2_MEMORY_CLASSES ? (size_t)64 << class : size;
    struct h2_memory_piece *piece = class < H2_MEMORY_CLASSES ? memory->spare[class] : NULL;

    if (piece != NULL) {
        memory->spare[class] = piece->next;
        memory->spare_bytes -= capacity;
    } else {
        piece = xmalloc(sizeof *piece + capacity);
    }
    piece->capacity = capacity;
    memory->in_use++;
    return piece->data;
}

static void h2_memory_free(void *p, void *arg)
{
    struct h2_memory *memory = arg;

    if (p == NULL)
        return;
    struct h2_memory_piece *piece = CONTAINER_OF(p, struct h2_memory_piece, data);
    size_t class = h2_memory_class(piece->capacity);
    memory->in_use--;
    if (class == H2_MEMORY_CLASSES || memory->spare_bytes >= H2_MEMORY_SPARE_MAX || memory->released) {
        free(piece);
        if (memory->released && memory->in_use == 0)
            free(memory);
        return;
    }
    memory->spare_bytes += piece->capacity;
    piece->next = memory->spare[class];
    memory->spare[class] = piece;
}

static void *h2_memory_calloc(size_t count, size_t size, void *arg)
{
    if (size > 0 && count > SIZE_MAX / size)
        abort();
    return memset(h2_memory_alloc(count * size, arg), 0, count * size);
}

static void *h2_memory_realloc(void *p, size_t size, void *arg)
{
    struct h2_memory_piece *piece = p != NULL ? CONTAINER_OF(p, struct h2_memory_piece, data) : NULL;

    if (piece != NULL && size <= piece->capacity)
        return p;
    void *larger = h2_memory_alloc(size, arg);
    if (piece != NULL) {
        memcpy(larger, p, piece->capacity);
        h2_memory_free(p, arg);
    }
    return larger;
}

struct h2_memory *h2_memory_new(void)
{
    return xcalloc(1, sizeof(struct h2_memory));
}

nghttp2_mem h2_memory_hooks(struct h2_memory *memory)
{
    return (nghttp2_mem){ memory, h2_memory_alloc, h2_memory_free, h2_memory_calloc, h2_memory_realloc };
}

void h2_memory_trim(struct h2_memory *memory)
{
    for (size_t class = 0; class < H2_MEMORY_CLASSES; class++) {
        while (memory->spare[class] != NULL) {
            struct h2_memory_piece *next = memory->spare[class]->next;
            free(memory->spare[class]);
            memory->spare[class] = next;
        }
    }
    memory->spare_bytes = 0;
}

void h2_memory_release(struct h2_memory *memory)
{
    h2_memory_trim(memory);
    memory->released = true;
    if (memory->in_use == 0)
        free(memory);
}

#undef H2_MEMORY_CLASSES
#undef H2_MEMORY_SPARE_MAX
