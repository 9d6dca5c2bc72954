/* SPDX-License-Identifier: Apache-2.0 */
#include "http/h2_output.h"

/* Blocks kept for reuse: about what a busy connection has in its queues. */
#define H2_OUTPUT_SPARE_MAX (1u << 20)

static size_t h2_block_class(size_t capacity)
{
    size_t class = 0;

    while (class < H2_BLOCK_CLASSES && capacity > (size_t)H2_BLOCK_SMALLEST << class)
        class++;
    return class;
}

struct h2_block *h2_block_new(struct h2_output *out, size_t capacity)
{
    size_t class = h2_block_class(capacity);
    struct h2_block *block = class < H2_BLOCK_CLASSES ? out->spare[class] : NULL;

    if (block != NULL) {
        out->spare[class] = block->next;
        out->spare_bytes -= block->capacity;
    } else {
        if (class < H2_BLOCK_CLASSES)
            capacity = (size_t)H2_BLOCK_SMALLEST << class;
        block = xmalloc(sizeof *block + capacity);
        block->capacity = capacity;
    }
    block->next = NULL;
    block->n = block->taken = 0;
    block->references = 1;
    return block;
}

void h2_block_release(struct h2_output *out, struct h2_block *block)
{
    size_t class = h2_block_class(block->capacity);

    if (--block->references > 0)
        return;
    if (class == H2_BLOCK_CLASSES || out->spare_bytes + block->capacity > H2_OUTPUT_SPARE_MAX) {
        free(block);
        return;
    }
    block->next = out->spare[class];
    out->spare[class] = block;
    out->spare_bytes += block->capacity;
}

static struct h2_segment *h2_output_segment(struct h2_output *out)
{
    if (out->segments == NULL)
        out->segments = xmalloc(H2_SEGMENTS * sizeof *out->segments);
    return &out->segments[(out->first + out->count++) % H2_SEGMENTS];
}

void h2_output_copy(struct h2_output *out, const void *p, size_t n)
{
    struct h2_segment *last = out->count > 0 ? &out->segments[(out->first + out->count - 1) % H2_SEGMENTS] : NULL;

    if (last == NULL || last->block != NULL) {
        last = h2_output_segment(out);
        *last = (struct h2_segment){ NULL, out->bytes.n, 0 };
    }
    buf_append(&out->bytes, p, n);
    last->n += n;
    out->pending += n;
}

void h2_output_take(struct h2_output *out, struct h2_block *block, size_t n)
{
    /* The last segment is kept for copies, which join each other. */
    if (n <= H2_COPY_MAX || out->count >= H2_SEGMENTS - 1) {
        h2_output_copy(out, block->data + block->taken, n);
    } else {
        *h2_output_segment(out) = (struct h2_segment){ block, block->taken, n };
        block->references++;
        out->pending += n;
    }
    block->taken += n;
}

/* Forgets the first n bytes, which are written. */
static void h2_output_advance(struct h2_output *out, size_t n)
{
    out->pending -= n;
    while (out->count > 0) {
        struct h2_segment *segment = &out->segments[out->first];
        if (n < segment->n) {
            segment->offset += n;
            segment->n -= n;
            return;
        }
        n -= segment->n;
        if (segment->block != NULL)
            h2_block_release(out, segment->block);
        out->first = (out->first + 1) % H2_SEGMENTS;
        out->count--;
    }
    buf_clear(&out->bytes);
}

ssize_t h2_output_write(struct h2_output *out, struct stream *stream)
{
    struct iovec iov[H2_SEGMENTS];

    if (out->count == 0)
        return 0;
    for (size_t i = 0; i < out->count; i++) {
        const struct h2_segment *segment = &out->segments[(out->first + i) % H2_SEGMENTS];
        uint8_t *base = segment->block != NULL ? segment->block->data : out->bytes.p;
        iov[i] = (struct iovec){ base + segment->offset, segment->n };
    }
    ssize_t put = stream_writev(stream, iov, (int)out->count);
    if (put > 0)
        h2_output_advance(out, (size_t)put);
    return put;
}

void h2_output_trim(struct h2_output *out)
{
    for (size_t class = 0; class < H2_BLOCK_CLASSES; class++) {
        while (out->spare[class] != NULL) {
            struct h2_block *next = out->spare[class]->next;
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

void h2_output_free(struct h2_output *out)
{
    for (; out->count > 0; out->count--) {
        if (out->segments[out->first].block != NULL)
            h2_block_release(out, out->segments[out->first].block);
        out->first = (out->first + 1) % H2_SEGMENTS;
    }
    h2_output_trim(out);
}

#undef H2_OUTPUT_SPARE_MAX
