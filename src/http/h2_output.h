/* SPDX-License-Identifier: Apache-2.0 */
/* h2_output.h: what an HTTP/2 connection is about to write: frames copied together, and body bytes by reference, in one
 * writev. Used by h2.c alone. */
#ifndef HTTP_H2_OUTPUT_H
#define HTTP_H2_OUTPUT_H

#include "base/base.h"
#include "io/stream.h"

/* Body bytes: filled once, never moved, freed with the last reference. */
struct h2_block {
    struct h2_block *next; /* in a stream's queue */
    size_t n, capacity;
    size_t taken; /* bytes already handed to the output */
    unsigned references;
    uint8_t data[];
};
/* Blocks come in powers of two from this size on, and those up to the largest are kept for reuse: the C library would give
 * such memory back to the kernel each time. Short messages share one. */
#define H2_BLOCK_SMALLEST 1024
#define H2_BLOCK_CLASSES 10 /* up to 512 KiB */
/* Body pieces up to this size are copied next to their frame headers: cheaper than an iovec. */
#define H2_COPY_MAX 2048
#define H2_SEGMENTS 64

struct h2_segment {
    struct h2_block *block; /* a reference; NULL: in `bytes` */
    size_t offset, n;
};

/* All zero is an empty output. */
struct h2_output {
    struct buf bytes;
    struct h2_segment *segments; /* owned; a queue of H2_SEGMENTS, made when needed */
    size_t first, count;
    size_t pending; /* bytes in all segments */
    struct h2_block *spare[H2_BLOCK_CLASSES]; /* owned */
    size_t spare_bytes;
};
struct h2_block *h2_block_new(struct h2_output *out, size_t capacity);
void h2_block_release(struct h2_output *out, struct h2_block *block);
void h2_output_copy(struct h2_output *out, const void *p, size_t n);
/* The next n bytes of the block. */
void h2_output_take(struct h2_output *out, struct h2_block *block, size_t n);
static inline bool h2_output_full(const struct h2_output *out)
{
    return out->pending >= H2_STAGED_MAX || out->count >= H2_SEGMENTS - 2;
}
/* Writes what the stream takes: bytes written (0: nothing was pending), -EAGAIN, or another negative errno. */
ssize_t h2_output_write(struct h2_output *out, struct stream *stream);
/* Gives back memory that holds nothing. */
void h2_output_trim(struct h2_output *out);
void h2_output_free(struct h2_output *out);

#endif
