/* SPDX-License-Identifier: Apache-2.0 */
/* tar_maker.h: tar archives byte by byte, honest and hostile, for tests. */
#ifndef TEST_TAR_MAKER_H
#define TEST_TAR_MAKER_H

#include "base/base.h"

#include <zlib.h>

struct tar_entry {
    const char *name, *link;
    char type; /* '0' file, '1' hard link, '2' symbolic link, '3' '4' devices, '5' folder, '6' fifo, 'L' 'K' 'x' 'g' extensions */
    unsigned mode, uid, gid;
    unsigned major, minor;
    const void *data;
    size_t n;
    uint64_t size; /* when it is to differ from n */
    const char *prefix;
    long mtime;
};

static inline void tar_octal(char *field, size_t width, uint64_t value)
{
    for (size_t i = width - 1; i > 0; i--, value >>= 3)
        field[i - 1] = (char)('0' + (value & 7));
}

static inline void tar_add(struct buf *tar, const struct tar_entry *e)
{
    char h[512] = { 0 };
    unsigned sum = 0;
    size_t name_n = strlen(e->name);

    memcpy(h, e->name, name_n < 100 ? name_n : 100);
    tar_octal(h + 100, 8, e->mode);
    tar_octal(h + 108, 8, e->uid);
    tar_octal(h + 116, 8, e->gid);
    tar_octal(h + 124, 12, e->size != 0 ? e->size : e->n);
    tar_octal(h + 136, 12, (uint64_t)(e->mtime != 0 ? e->mtime : 1000000000));
    memset(h + 148, ' ', 8);
    h[156] = e->type;
    if (e->link != NULL)
        memcpy(h + 157, e->link, strlen(e->link) < 100 ? strlen(e->link) : 100);
    memcpy(h + 257, "ustar\00000", 8);
    tar_octal(h + 329, 8, e->major);
    tar_octal(h + 337, 8, e->minor);
    if (e->prefix != NULL)
        memcpy(h + 345, e->prefix, strlen(e->prefix));
    for (size_t i = 0; i < sizeof h; i++)
        sum += (unsigned char)h[i];
    snprintf(h + 148, 8, "%06o", sum);
    h[155] = ' ';
    buf_append(tar, h, sizeof h);
    if (e->n > 0)
        buf_append(tar, e->data, e->n);
    while (tar->n % 512 != 0)
        buf_append_byte(tar, 0);
}

static inline void tar_file(struct buf *tar, const char *name, const char *content)
{
    tar_add(tar, &(struct tar_entry){ .name = name, .type = '0', .mode = 0644, .data = content, .n = strlen(content) });
}

static inline void tar_dir(struct buf *tar, const char *name)
{
    tar_add(tar, &(struct tar_entry){ .name = name, .type = '5', .mode = 0755 });
}

static inline void tar_link(struct buf *tar, char type, const char *name, const char *to)
{
    tar_add(tar, &(struct tar_entry){ .name = name, .type = type, .mode = 0777, .link = to });
}

/* One record of a PAX header: "LENGTH KEY=VALUE\n", LENGTH counting itself. */
static inline void tar_pax_record(struct buf *records, const char *key, const void *value, size_t n)
{
    size_t rest = 1 + strlen(key) + 1 + n + 1, length = rest + 1;
    char digits[24];

    while ((size_t)snprintf(digits, sizeof digits, "%zu", length) + rest != length)
        length = (size_t)snprintf(digits, sizeof digits, "%zu", length) + rest;
    buf_printf(records, "%zu %s=", length, key);
    buf_append(records, value, n);
    buf_append_byte(records, '\n');
}

static inline void tar_pax(struct buf *tar, const struct buf *records)
{
    tar_add(tar, &(struct tar_entry){ .name = "pax", .type = 'x', .mode = 0644, .data = records->p, .n = records->n });
}

static inline void tar_end(struct buf *tar)
{
    for (int i = 0; i < 1024; i++)
        buf_append_byte(tar, 0);
}

static inline void tar_gzip(const struct buf *plain, struct buf *out)
{
    z_stream z = { 0 };

    deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    size_t bound = deflateBound(&z, plain->n) + 32;
    z.next_in = plain->p;
    z.avail_in = (uInt)plain->n;
    z.next_out = buf_reserve(out, bound);
    z.avail_out = (uInt)bound;
    deflate(&z, Z_FINISH);
    out->n += bound - z.avail_out;
    deflateEnd(&z);
}

/* One frame of raw blocks (RFC 8878): what a compressor that gave up writes. */
static inline void tar_zstd(const struct buf *plain, struct buf *out)
{
    uint32_t n = (uint32_t)plain->n;
    size_t at = 0;

    buf_append(out, "\x28\xb5\x2f\xfd\xa0", 5);
    for (int i = 0; i < 4; i++)
        buf_append_byte(out, (uint8_t)(n >> (8 * i)));
    do {
        size_t step = plain->n - at < 65536 ? plain->n - at : 65536;
        uint32_t header = (uint32_t)(step << 3) | (at + step == plain->n);
        for (int i = 0; i < 3; i++)
            buf_append_byte(out, (uint8_t)(header >> (8 * i)));
        buf_append(out, plain->p + at, step);
        at += step;
    } while (at < plain->n);
}

#endif
