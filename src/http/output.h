/* SPDX-License-Identifier: Apache-2.0 */
/* output.h: what a connection with many streams is about to write: frame heads copied together, and payload by reference, in
 * one writev. Used by h2.c and channel.c. */
#ifndef HTTP_OUTPUT_H
#define HTTP_OUTPUT_H

#include "base/base.h"
#include "io/stream.h"

/* Body bytes: filled once, never moved, freed with the last reference. They follow the block, or others hold them, too. */
struct http_block {
    struct http_block *next; /* in a stream's queue */
    size_t n, capacity;
    size_t taken; /* bytes already handed to the output */
    unsigned references;
    struct shared *shared; /* a reference; NULL: the bytes are `data` */
    uint8_t data[];
};
static inline uint8_t *http_block_data(struct http_block *block)
{
    return block->shared != NULL ? block->shared->bytes : block->data;
}
/* Blocks come in powers of two from this size on, and those up to the largest are kept for reuse: the C library would give
 * such memory back to the kernel each time. Short messages share one. */
#define HTTP_BLOCK_SMALLEST 1024
#define HTTP_BLOCK_CLASSES 10 /* up to 512 KiB */
/* Body pieces up to this size are copied next to their frame headers: cheaper than an iovec. */
#define HTTP_OUTPUT_COPY_MAX 2048
#define HTTP_OUTPUT_SEGMENTS 64

struct http_segment {
    struct http_block *block; /* a reference; NULL: in `bytes` */
    size_t offset, n;
};

/* All zero is an empty output. */
struct http_output {
    struct buf bytes;
    struct http_segment *segments; /* owned; a queue of HTTP_OUTPUT_SEGMENTS, made when needed */
    size_t first, count;
    size_t pending; /* bytes in all segments */
    struct http_block *spare[HTTP_BLOCK_CLASSES]; /* owned */
    size_t spare_bytes;
};
struct http_block *http_block_new(struct http_output *out, size_t capacity);
/* With all of `shared`, and full: nothing can be added. Takes a reference. */
struct http_block *http_block_of_shared(struct shared *shared);
void http_block_release(struct http_output *out, struct http_block *block);
void http_output_copy(struct http_output *out, const void *p, size_t n);
/* The next n bytes of the block. */
void http_output_take(struct http_output *out, struct http_block *block, size_t n);
static inline bool http_output_full(const struct http_output *out)
{
    return out->pending >= HTTP_OUTPUT_STAGED_MAX || out->count >= HTTP_OUTPUT_SEGMENTS - 2;
}
/* Writes what the stream takes: bytes written (0: nothing was pending), -EAGAIN, or another negative errno. */
ssize_t http_output_write(struct http_output *out, struct stream *stream);
/* Gives back memory that holds nothing. */
void http_output_trim(struct http_output *out);
void http_output_free(struct http_output *out);

#endif
