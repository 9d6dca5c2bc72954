/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/wire.h"

#include <nghttp2/nghttp2.h>

bool rpc_timeout_parse(struct str text, int64_t *ms)
{
    int64_t value = 0;

    if (text.n < 2 || text.n > 9)
        return false;
    for (size_t i = 0; i + 1 < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return false;
        value = value * 10 + (text.p[i] - '0');
    }
    switch (text.p[text.n - 1]) {
    case 'H':
        *ms = value * 3600 * 1000;
        return true;
    case 'M':
        *ms = value * 60 * 1000;
        return true;
    case 'S':
        *ms = value * 1000;
        return true;
    case 'm':
        *ms = value;
        return true;
    case 'u':
        *ms = (value + 999) / 1000;
        return true;
    case 'n':
        *ms = (value + 999999) / 1000000;
        return true;
    default:
        return false;
    }
}

void rpc_timeout_format(int64_t ms, char out[RPC_TIMEOUT_MAX])
{
    static const struct {
        char unit;
        int64_t ms;
    } units[] = { { 'm', 1 }, { 'S', 1000 }, { 'M', 60 * 1000 }, { 'H', 3600 * 1000 } };
    const int64_t most = 99999999; /* eight digits */

    if (ms < 0)
        ms = 0;
    for (size_t i = 0; i < COUNT_OF(units); i++) {
        int64_t value = (ms - 1 + units[i].ms) / units[i].ms;
        if (value <= most || i + 1 == COUNT_OF(units)) {
            snprintf(out, RPC_TIMEOUT_MAX, "%d%c", (int)(value < most ? value : most), units[i].unit);
            return;
        }
    }
}

void rpc_message_encode(const char *text, struct buf *out)
{
    static const char digits[] = "0123456789ABCDEF";

    for (; *text != '\0'; text++) {
        uint8_t byte = (uint8_t)*text;
        if (byte >= 0x20 && byte <= 0x7e && byte != '%') {
            buf_append_byte(out, byte);
        } else {
            buf_append_byte(out, '%');
            buf_append_byte(out, (uint8_t)digits[byte >> 4]);
            buf_append_byte(out, (uint8_t)digits[byte & 15]);
        }
    }
}

void rpc_message_decode(struct str text, char *out, size_t max)
{
    size_t n = 0;

    for (size_t i = 0; i < text.n && n + 1 < max; i++) {
        uint8_t byte;
        if (text.p[i] == '%' && text.n - i > 2 && hex_decode(text.p + i + 1, &byte, 1)) {
            i += 2;
            if (byte == 0)
                continue; /* messages are C strings here */
            out[n++] = (char)byte;
        } else {
            out[n++] = text.p[i];
        }
    }
    out[n] = '\0';
}

bool rpc_content_type_ok(struct str text)
{
    static const char base[] = "application/grpc", proto[] = "+proto";

    if (text.n < sizeof base - 1 || memcmp(text.p, base, sizeof base - 1) != 0)
        return false;
    text.p += sizeof base - 1;
    text.n -= sizeof base - 1;
    if (text.n >= sizeof proto - 1 && memcmp(text.p, proto, sizeof proto - 1) == 0) {
        text.p += sizeof proto - 1;
        text.n -= sizeof proto - 1;
    }
    return text.n == 0 || text.p[0] == ';' || text.p[0] == ' ';
}

enum status_code rpc_status_parse(struct str text)
{
    unsigned value = 0;

    if (text.n == 0 || text.n > 2)
        return STATUS_UNKNOWN;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return STATUS_UNKNOWN;
        value = value * 10 + (unsigned)(text.p[i] - '0');
    }
    return value <= STATUS_UNAUTHENTICATED ? (enum status_code)value : STATUS_UNKNOWN;
}

enum status_code rpc_status_of_http(unsigned http_status)
{
    switch (http_status) {
    case 400:
    case 431:
        return STATUS_INTERNAL;
    case 401:
        return STATUS_UNAUTHENTICATED;
    case 403:
        return STATUS_PERMISSION_DENIED;
    case 404:
        return STATUS_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return STATUS_UNAVAILABLE;
    default:
        return STATUS_UNKNOWN;
    }
}

enum status_code rpc_status_of_reset(uint32_t http2_error)
{
    switch (http2_error) {
    case NGHTTP2_REFUSED_STREAM:
        return STATUS_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return STATUS_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return STATUS_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY:
        return STATUS_PERMISSION_DENIED;
    default:
        return STATUS_INTERNAL;
    }
}

bool rpc_key_is_binary(const char *key)
{
    return str_ends(key, "-bin");
}
