/* SPDX-License-Identifier: Apache-2.0 */
/* Source: SPDY protocol draft 3.1, section 2.6.10. */
#include "http/spdy_headers.h"

#include <ctype.h>

/* What both ends know before the first block; each word with its length before it, as in a block. */
static const char spdy_dictionary[] =
    "\0\0\0\7" "options" "\0\0\0\4" "head" "\0\0\0\4" "post" "\0\0\0\3" "put" "\0\0\0\6" "delete" "\0\0\0\5" "trace"
    "\0\0\0\6" "accept" "\0\0\0\16" "accept-charset" "\0\0\0\17" "accept-encoding" "\0\0\0\17" "accept-language"
    "\0\0\0\15" "accept-ranges" "\0\0\0\3" "age" "\0\0\0\5" "allow" "\0\0\0\15" "authorization"
    "\0\0\0\15" "cache-control" "\0\0\0\12" "connection" "\0\0\0\14" "content-base" "\0\0\0\20" "content-encoding"
    "\0\0\0\20" "content-language" "\0\0\0\16" "content-length" "\0\0\0\20" "content-location"
    "\0\0\0\13" "content-md5" "\0\0\0\15" "content-range" "\0\0\0\14" "content-type" "\0\0\0\4" "date"
    "\0\0\0\4" "etag" "\0\0\0\6" "expect" "\0\0\0\7" "expires" "\0\0\0\4" "from" "\0\0\0\4" "host"
    "\0\0\0\10" "if-match" "\0\0\0\21" "if-modified-since" "\0\0\0\15" "if-none-match" "\0\0\0\10" "if-range"
    "\0\0\0\23" "if-unmodified-since" "\0\0\0\15" "last-modified" "\0\0\0\10" "location" "\0\0\0\14" "max-forwards"
    "\0\0\0\6" "pragma" "\0\0\0\22" "proxy-authenticate" "\0\0\0\23" "proxy-authorization" "\0\0\0\5" "range"
    "\0\0\0\7" "referer" "\0\0\0\13" "retry-after" "\0\0\0\6" "server" "\0\0\0\2" "te" "\0\0\0\7" "trailer"
    "\0\0\0\21" "transfer-encoding" "\0\0\0\7" "upgrade" "\0\0\0\12" "user-agent" "\0\0\0\4" "vary" "\0\0\0\3" "via"
    "\0\0\0\7" "warning" "\0\0\0\20" "www-authenticate" "\0\0\0\6" "method" "\0\0\0\3" "get" "\0\0\0\6" "status"
    "\0\0\0\6" "200 OK" "\0\0\0\7" "version" "\0\0\0\10" "HTTP/1.1" "\0\0\0\3" "url" "\0\0\0\6" "public"
    "\0\0\0\12" "set-cookie" "\0\0\0\12" "keep-alive" "\0\0\0\6" "origin"
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritativ"
    "e Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 I"
    "nternal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec"
    " 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xm"
    "l,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset="
    "iso-8859-1,utf-,*,enq=0.";
#define SPDY_DICTIONARY_SIZE (sizeof spdy_dictionary - 1)

/* Our blocks are short: a small window saves 256 KiB a connection, but the dictionary must fit in. */
#define SPDY_DEFLATE_WINDOW_BITS 11
#define SPDY_DEFLATE_MEMORY_LEVEL 1
#define SPDY_DEFLATE_LEVEL 6
#define SPDY_INFLATE_STEP 2048

static void spdy_zlib_check(int rc)
{
    if (rc == Z_MEM_ERROR)
        abort();
}

void spdy_headers_free(struct spdy_headers *h)
{
    if (h->inflating)
        inflateEnd(&h->inflater);
    if (h->deflating)
        deflateEnd(&h->deflater);
    h->inflating = h->deflating = false;
    buf_free(&h->plain);
}

/* ---- decoding ---- */

/* One step of inflating. False when the stream is no zlib. */
static bool spdy_inflate_step(z_stream *z)
{
    int rc = inflate(z, Z_SYNC_FLUSH);

    spdy_zlib_check(rc);
    if (rc == Z_NEED_DICT)
        rc = inflateSetDictionary(z, (const Bytef *)spdy_dictionary, SPDY_DICTIONARY_SIZE);
    return rc == Z_OK || rc == Z_BUF_ERROR;
}

static bool spdy_headers_inflate(struct spdy_headers *h, struct str block, struct status *err)
{
    z_stream *z = &h->inflater;

    if (!h->inflating) {
        spdy_zlib_check(inflateInit(z));
        h->inflating = true;
    }
    buf_clear(&h->plain);
    z->next_in = (Bytef *)(uintptr_t)block.p;
    z->avail_in = (uInt)block.n;
    do {
        z->next_out = buf_reserve(&h->plain, SPDY_INFLATE_STEP);
        z->avail_out = SPDY_INFLATE_STEP;
        uInt left = z->avail_in;
        if (!spdy_inflate_step(z))
            return status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: a header block is not compressed as it should be");
        h->plain.n += SPDY_INFLATE_STEP - z->avail_out;
        if (h->plain.n > SPDY_HEADERS_MAX)
            return status_set(err, STATUS_RESOURCE_EXHAUSTED, "SPDY: a header block has more than %d bytes", SPDY_HEADERS_MAX);
        if (z->avail_in == left && z->avail_out == SPDY_INFLATE_STEP)
            break; /* no progress: all of it is out */
    } while (z->avail_in > 0 || z->avail_out == 0);
    return z->avail_in == 0 || status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: something follows a header block");
}

/* Takes a number and so many bytes from the front. */
static bool spdy_headers_take(struct str *in, struct str *out)
{
    const uint8_t *p = (const uint8_t *)in->p;

    if (in->n < 4)
        return false;
    size_t n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    if (n > in->n - 4)
        return false;
    *out = (struct str){ in->p + 4, n };
    *in = (struct str){ in->p + 4 + n, in->n - 4 - n };
    return true;
}

static bool spdy_header_name_valid(struct str name)
{
    for (size_t i = 0; i < name.n; i++)
        if ((uint8_t)name.p[i] <= ' ' || (uint8_t)name.p[i] >= 0x7f || isupper((uint8_t)name.p[i]))
            return false;
    return name.n > 0;
}

/* One name with its values, which are separated by NUL. */
static bool spdy_headers_add(struct http_headers *out, struct str name, struct str values)
{
    if (!spdy_header_name_valid(name))
        return false;
    for (;;) {
        const char *end = values.n > 0 ? memchr(values.p, '\0', values.n) : NULL;
        size_t n = end != NULL ? (size_t)(end - values.p) : values.n;
        if (out->count == SPDY_HEADER_COUNT_MAX)
            return false;
        http_headers_addn(out, name, (struct str){ values.p, n });
        if (!http_value_valid(out->items[out->count - 1].value))
            return false;
        if (end == NULL)
            return true;
        values = (struct str){ end + 1, values.n - n - 1 };
    }
}

enum spdy_headers_result spdy_headers_decode(struct spdy_headers *h, struct str block, struct http_headers *out,
                                             struct status *err)
{
    struct str in, name, values;

    if (!spdy_headers_inflate(h, block, err))
        return SPDY_HEADERS_LOST;
    in = (struct str){ (const char *)h->plain.p, h->plain.n };
    const uint8_t *p = h->plain.p;
    if (in.n < 4) {
        status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: a header block ends too early");
        return SPDY_HEADERS_MALFORMED;
    }
    uint32_t count = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    in = (struct str){ in.p + 4, in.n - 4 };
    for (; count > 0; count--) {
        if (!spdy_headers_take(&in, &name) || !spdy_headers_take(&in, &values) || !spdy_headers_add(out, name, values))
            break;
    }
    if (count == 0 && in.n == 0)
        return SPDY_HEADERS_OK;
    status_set(err, STATUS_INVALID_ARGUMENT, "SPDY: a header block is malformed, or has more than %d headers",
               SPDY_HEADER_COUNT_MAX);
    return SPDY_HEADERS_MALFORMED;
}

/* ---- encoding ---- */

static void spdy_append_u32(struct buf *out, size_t value)
{
    const uint8_t bytes[] = { (uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value };

    buf_append(out, bytes, sizeof bytes);
}

static void spdy_headers_deflate(struct spdy_headers *h, struct buf *out)
{
    z_stream *z = &h->deflater;

    if (!h->deflating) {
        spdy_zlib_check(deflateInit2(z, SPDY_DEFLATE_LEVEL, Z_DEFLATED, SPDY_DEFLATE_WINDOW_BITS, SPDY_DEFLATE_MEMORY_LEVEL,
                                     Z_DEFAULT_STRATEGY));
        spdy_zlib_check(deflateSetDictionary(z, (const Bytef *)spdy_dictionary, SPDY_DICTIONARY_SIZE));
        h->deflating = true;
    }
    z->next_in = h->plain.p;
    z->avail_in = (uInt)h->plain.n;
    do {
        z->next_out = buf_reserve(out, SPDY_INFLATE_STEP);
        z->avail_out = SPDY_INFLATE_STEP;
        spdy_zlib_check(deflate(z, Z_SYNC_FLUSH));
        out->n += SPDY_INFLATE_STEP - z->avail_out;
    } while (z->avail_out == 0);
}

void spdy_headers_encode(struct spdy_headers *h, const struct http_header *headers, size_t count, struct buf *out)
{
    size_t names = 0;

    buf_clear(&h->plain);
    spdy_append_u32(&h->plain, 0);
    for (size_t i = 0, next; i < count; i = next, names++) {
        const char *name = headers[i].name;
        spdy_append_u32(&h->plain, strlen(name));
        for (const char *p = name; *p != '\0'; p++)
            buf_append_byte(&h->plain, (uint8_t)tolower((uint8_t)*p));
        size_t at = h->plain.n;
        spdy_append_u32(&h->plain, 0);
        for (next = i; next < count && strcmp(headers[next].name, name) == 0; next++) {
            if (next > i)
                buf_append_byte(&h->plain, '\0');
            buf_append_str(&h->plain, headers[next].value);
        }
        size_t n = h->plain.n - at - 4;
        for (size_t k = 0; k < 4; k++)
            h->plain.p[at + k] = (uint8_t)(n >> (24 - 8 * k));
    }
    for (size_t k = 0; k < 4; k++)
        h->plain.p[k] = (uint8_t)(names >> (24 - 8 * k));
    spdy_headers_deflate(h, out);
}

#undef SPDY_DICTIONARY_SIZE
#undef SPDY_DEFLATE_WINDOW_BITS
#undef SPDY_DEFLATE_MEMORY_LEVEL
#undef SPDY_DEFLATE_LEVEL
#undef SPDY_INFLATE_STEP
