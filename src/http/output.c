/* SPDX-License-Identifier: Apache-2.0 */
#include "http/output.h"

/* Blocks kept for reuse: about what a busy connection has in its queues. */
#define HTTP_OUTPUT_SPARE_MAX (1u << 20)

static size_t http_block_class(size_t capacity)
{
    size_t class = 0;

    while (class < HTTP_BLOCK_CLASSES && capacity > (size_t)HTTP_BLOCK_SMALLEST << class)
        class++;
    return class;
}

struct http_block *http_block_new(struct http_output *out, size_t capacity)
{
    size_t class = http_block_class(capacity);
    struct http_block *block = class < HTTP_BLOCK_CLASSES ? out->spare[class] : NULL;

    if (block != NULL) {
        out->spare[class] = block->next;
        out->spare_bytes -= block->capacity;
    } else {
        if (class < HTTP_BLOCK_CLASSES)
            capacity = (size_t)HTTP_BLOCK_SMALLEST << class;
        block = xmalloc(sizeof *block + capacity);
        block->capacity = capacity;
    }
    block->next = NULL;
    block->n = block->taken = 0;
    block->references = 1;
    block->shared = NULL;
    return block;
}

struct http_block *http_block_of_shared(struct shared *shared)
{
    struct http_block *block = xcalloc(1, sizeof *block);

    block->n = block->capacity = shared->n;
    block->references = 1;
    block->shared = shared_ref(shared);
    return block;
}

void http_block_release(struct http_output *out, struct http_block *block)
{
    size_t class = http_block_class(block->capacity);

    if (--block->references > 0)
        return;
    if (block->shared != NULL) {
        shared_unref(block->shared);
        free(block);
        return;
    }
    if (class == HTTP_BLOCK_CLASSES || out->spare_bytes + block->capacity > HTTP_OUTPUT_SPARE_MAX) {
        free(block);
        return;
    }
    block->next = out->spare[class];
    out->spare[class] = block;
    out->spare_bytes += block->capacity;
}

static struct http_segment *http_output_segment(struct http_output *out)
{
    if (out->segments == NULL)
        out->segments = xmalloc(HTTP_OUTPUT_SEGMENTS * sizeof *out->segments);
    return &out->segments[(out->first + out->count++) % HTTP_OUTPUT_SEGMENTS];
}

void http_output_copy(struct http_output *out, const void *p, size_t n)
{
    struct http_segment *last = NULL;

    if (out->count > 0)
        last = &out->segments[(out->first + out->count - 1) % HTTP_OUTPUT_SEGMENTS];
    if (last == NULL || last->block != NULL) {
        last = http_output_segment(out);
        *last = (struct http_segment){ NULL, out->bytes.n, 0 };
    }
    buf_append(&out->bytes, p, n);
    last->n += n;
    out->pending += n;
}

void http_output_take(struct http_output *out, struct http_block *block, size_t n)
{
    /* The last segment is kept for copies, which join each other. */
    if (n <= HTTP_OUTPUT_COPY_MAX || out->count >= HTTP_OUTPUT_SEGMENTS - 1) {
        http_output_copy(out, http_block_data(block) + block->taken, n);
    } else {
        *http_output_segment(out) = (struct http_segment){ block, block->taken, n };
        block->references++;
        out->pending += n;
    }
    block->taken += n;
}

/* Forgets the first n bytes, which are written. */
static void http_output_advance(struct http_output *out, size_t n)
{
    out->pending -= n;
    while (out->count > 0) {
        struct http_segment *segment = &out->segments[out->first];
        if (n < segment->n) {
            segment->offset += n;
            segment->n -= n;
            return;
        }
        n -= segment->n;
        if (segment->block != NULL)
            http_block_release(out, segment->block);
        out->first = (out->first + 1) % HTTP_OUTPUT_SEGMENTS;
        out->count--;
    }
    buf_clear(&out->bytes);
}

ssize_t http_output_write(struct http_output *out, struct stream *stream)
{
    struct iovec iov[HTTP_OUTPUT_SEGMENTS];

    if (out->count == 0)
        return 0;
    for (size_t i = 0; i < out->count; i++) {
        const struct http_segment *segment = &out->segments[(out->first + i) % HTTP_OUTPUT_SEGMENTS];
        uint8_t *base = segment->block != NULL ? http_block_data(segment->block) : out->bytes.p;
        iov[i] = (struct iovec){ base + segment->offset, segment->n };
    }
    ssize_t put = stream_writev(stream, iov, (int)out->count);
    if (put > 0)
        http_output_advance(out, (size_t)put);
    return put;
}

void http_output_trim(struct http_output *out)
{
    for (size_t class = 0; class < HTTP_BLOCK_CLASSES; class++) {
        while (out->spare[class] != NULL) {
            struct http_block *next = out->spare[class]->next;
            free(out->spare[class]);
            out->spare[class] = next;
        }
    }
    out->spare_bytes = 0;
    if (out->count == 0) {
        buf_free(&out->bytes);
        free(out->segments);
        out->segments = NULL;
        out->first = 0;
    }
}

void http_output_free(struct http_output *out)
{
    for (; out->count > 0; out->count--) {
        if (out->segments[out->first].block != NULL)
            http_block_release(out, out->segments[out->first].block);
        out->first = (out->first + 1) % HTTP_OUTPUT_SEGMENTS;
    }
    http_output_trim(out);
}

#undef HTTP_OUTPUT_SPARE_MAX
