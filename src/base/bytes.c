/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <unistd.h>

static void *bytes_check(void *p)
{
    if (p == NULL) {
        static const char message[] = "out of memory\n";
        ssize_t ignored UNUSED = write(STDERR_FILENO, message, sizeof message - 1);
        abort();
    }
    return p;
}

void *xmalloc(size_t size)
{
    return bytes_check(malloc(size > 0 ? size : 1));
}

void *xcalloc(size_t count, size_t size)
{
    return bytes_check(calloc(count > 0 ? count : 1, size > 0 ? size : 1));
}

void *xrealloc(void *p, size_t size)
{
    return bytes_check(realloc(p, size > 0 ? size : 1));
}

char *xstrdup(const char *s)
{
    return xstrndup(s, strlen(s));
}

char *xstrndup(const char *s, size_t n)
{
    char *copy = xmalloc(n + 1);

    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

void *xmemdup(const void *p, size_t n)
{
    void *copy = xmalloc(n);

    if (n > 0)
        memcpy(copy, p, n);
    return copy;
}

char *xasprintf(const char *format, ...)
{
    va_list args, again;

    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        abort();
    char *s = xmalloc((size_t)n + 1);
    vsnprintf(s, (size_t)n + 1, format, again);
    va_end(again);
    return s;
}

void cleanup_free_fn(void *p)
{
    void *value;

    memcpy(&value, p, sizeof value);
    free(value);
}

void cleanup_close_fn(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    errno = saved;
}

struct str str_of(const char *s)
{
    return (struct str){ s, strlen(s) };
}

bool str_eq(struct str s, const char *text)
{
    size_t n = strlen(text);

    return s.n == n && (n == 0 || memcmp(s.p, text, n) == 0);
}

bool str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return n >= m && strcmp(s + n - m, suffix) == 0;
}

bool bytes_equal_constant_time(const void *a, size_t a_n, const void *b, size_t b_n)
{
    const uint8_t *x = a, *y = b;
    unsigned difference = a_n != b_n;
    size_t n = a_n < b_n ? a_n : b_n;

    for (size_t i = 0; i < n; i++)
        difference |= (unsigned)(x[i] ^ y[i]);
    return difference == 0;
}

bool parse_u64(const char *s, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;

    if (*s == '\0')
        return false;
    for (; *s != '\0'; s++) {
        if (*s < '0' || *s > '9')
            return false;
        uint64_t digit = (uint64_t)(*s - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    if (value > max)
        return false;
    *out = value;
    return true;
}

void buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf)BUF_INIT;
}

uint8_t *buf_reserve(struct buf *b, size_t extra)
{
    if (extra > SIZE_MAX / 2 - b->n)
        abort();
    if (b->cap - b->n < extra) {
        size_t cap = b->cap < 64 ? 64 : b->cap * 2;
        if (cap < b->n + extra)
            cap = b->n + extra;
        b->p = xrealloc(b->p, cap);
        b->cap = cap;
    }
    return b->p != NULL ? b->p + b->n : NULL;
}

void buf_append(struct buf *b, const void *p, size_t n)
{
    if (n == 0)
        return;
    memcpy(buf_reserve(b, n), p, n);
    b->n += n;
}

void buf_append_str(struct buf *b, const char *s)
{
    buf_append(b, s, strlen(s));
}

void buf_append_byte(struct buf *b, uint8_t byte)
{
    *buf_reserve(b, 1) = byte;
    b->n++;
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list args, again;

    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        abort();
    vsnprintf((char *)buf_reserve(b, (size_t)n + 1), (size_t)n + 1, format, again);
    va_end(again);
    b->n += (size_t)n;
}

void buf_consume(struct buf *b, size_t n)
{
    b->n -= n;
    if (b->n > 0 && n > 0)
        memmove(b->p, b->p + n, b->n);
}

void buf_clear(struct buf *b)
{
    b->n = 0;
}

const char *buf_cstr(struct buf *b)
{
    *buf_reserve(b, 1) = '\0';
    return (const char *)b->p;
}

char *buf_steal(struct buf *b)
{
    buf_cstr(b);
    char *s = (char *)b->p;
    *b = (struct buf)BUF_INIT;
    return s;
}

void hex_encode(const void *p, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = p;

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * n] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool hex_decode(const char *s, void *out, size_t n)
{
    uint8_t *bytes = out;

    for (size_t i = 0; i < n; i++) {
        int high = hex_value(s[2 * i]);
        int low = high < 0 ? -1 : hex_value(s[2 * i + 1]);
        if (low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void base64_append(struct buf *b, const void *p, size_t n, bool url)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char for_url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const char *alphabet = url ? for_url : plain;
    const uint8_t *in = p;
    uint8_t *out = buf_reserve(b, (n + 2) / 3 * 4);

    b->n += (n + 2) / 3 * 4;
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t word = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) | (left > 2 ? in[i + 2] : 0);
        *out++ = (uint8_t)alphabet[word >> 18];
        *out++ = (uint8_t)alphabet[word >> 12 & 63];
        *out++ = (uint8_t)(left > 1 ? alphabet[word >> 6 & 63] : '=');
        *out++ = (uint8_t)(left > 2 ? alphabet[word & 63] : '=');
    }
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    if (c == '/' || c == '_')
        return 63;
    return -1;
}

bool base64_decode(struct str s, struct buf *out)
{
    uint8_t *start, *p;
    uint32_t word = 0;
    unsigned bits = 0;

    for (int padding = 0; padding < 2 && s.n > 0 && s.p[s.n - 1] == '='; padding++)
        s.n--;
    if (s.n % 4 == 1)
        return false;
    start = p = buf_reserve(out, s.n / 4 * 3 + 2);
    for (size_t i = 0; i < s.n; i++) {
        int value = base64_value(s.p[i]);
        if (value < 0)
            return false;
        word = word << 6 | (uint32_t)value;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            *p++ = (uint8_t)(word >> bits);
        }
    }
    out->n += (size_t)(p - start);
    return true;
}
