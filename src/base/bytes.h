/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.h: allocation that cannot fail, borrowed slices, growable buffers, hex and base64. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include "base/base.h"

/* The x* family aborts when memory is out; the caller frees with free(). */
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
void *xmemdup(const void *p, size_t n);
char *xasprintf(const char *format, ...) PRINTF_LIKE(1, 2);

void cleanup_free_fn(void *p); /* p: address of a pointer */
void cleanup_close_fn(int *fd); /* closes when >= 0, keeps errno */
#define cleanup_free __attribute__((cleanup(cleanup_free_fn)))
#define cleanup_close __attribute__((cleanup(cleanup_close_fn)))

/* Takes the value out of `p` (address of a pointer), leaving NULL: `return steal_ptr(&s);` */
#define steal_ptr(p) ({ __typeof__(*(p)) stolen_ = *(p); *(p) = NULL; stolen_; })

/* A borrowed slice of bytes; not NUL-terminated. */
struct str {
    const char *p;
    size_t n;
};
#define STR(literal) ((struct str){ (literal), sizeof(literal) - 1 })
struct str str_of(const char *s);
bool str_eq(struct str s, const char *text);
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
/* Equality in time that depends on the lengths only: for tokens. */
bool bytes_equal_constant_time(const void *a, size_t a_n, const void *b, size_t b_n);
/* Number in base 10, whole string, within [0, max]; false otherwise. */
bool parse_u64(const char *s, uint64_t max, uint64_t *out);

/* Growable bytes. All zero is an empty buffer. `p` is not NUL-terminated except after buf_cstr(). */
struct buf {
    uint8_t *p; /* owned */
    size_t n, cap;
};
#define BUF_INIT { NULL, 0, 0 }
void buf_free(struct buf *b);
#define cleanup_buf __attribute__((cleanup(buf_free)))
/* Makes room for `extra` more bytes and returns where they go; the caller then adds to `n`. */
uint8_t *buf_reserve(struct buf *b, size_t extra);
void buf_append(struct buf *b, const void *p, size_t n);
void buf_append_str(struct buf *b, const char *s);
void buf_append_byte(struct buf *b, uint8_t byte);
void buf_printf(struct buf *b, const char *format, ...) PRINTF_LIKE(2, 3);
/* Drops the first n bytes (n <= b->n). */
void buf_consume(struct buf *b, size_t n);
void buf_clear(struct buf *b); /* keeps the memory */
/* The content as a C string, borrowed from the buffer until it changes. */
const char *buf_cstr(struct buf *b);
/* Hands the content over as a C string; the buffer is empty afterwards; the caller frees. */
char *buf_steal(struct buf *b);

/* out has room for 2n + 1. */
void hex_encode(const void *p, size_t n, char *out);
/* Decodes exactly 2n hex digits from s. */
bool hex_decode(const char *s, void *out, size_t n);
/* RFC 4648 base64 with padding, appended. `url`: the URL alphabet (section 5). */
void base64_append(struct buf *b, const void *p, size_t n, bool url);
/* Decodes either alphabet, padding optional, white space refused; false on anything else. */
bool base64_decode(struct str s, struct buf *out);

#endif
