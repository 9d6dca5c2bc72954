/* SPDX-License-Identifier: Apache-2.0 */
#include "http/http.h"

#include <strings.h>
#include <time.h>

/* ---- headers ---- */

void http_headers_addn(struct http_headers *h, struct str name, struct str value)
{
    if (h->count == h->cap) {
        h->cap = h->cap > 0 ? 2 * h->cap : 16;
        h->items = xrealloc(h->items, h->cap * sizeof *h->items);
    }
    h->items[h->count++] = (struct http_header){
        .name = arena_strndup(&h->arena, name.n > 0 ? name.p : "", name.n),
        .value = arena_strndup(&h->arena, value.n > 0 ? value.p : "", value.n),
    };
    h->bytes += name.n + value.n;
}

void http_headers_add(struct http_headers *h, const char *name, const char *value)
{
    http_headers_addn(h, str_of(name), str_of(value));
}

const char *http_headers_get(const struct http_headers *h, const char *name)
{
    for (size_t i = 0; i < h->count; i++)
        if (strcasecmp(h->items[i].name, name) == 0)
            return h->items[i].value;
    return NULL;
}

size_t http_headers_count(const struct http_headers *h, const char *name)
{
    size_t count = 0;

    for (size_t i = 0; i < h->count; i++)
        count += strcasecmp(h->items[i].name, name) == 0;
    return count;
}

static bool http_list_has_token(const char *list, const char *token)
{
    size_t n = strlen(token);

    while (*list != '\0') {
        list += strspn(list, " \t,");
        size_t item = strcspn(list, ",");
        size_t end = item;
        while (end > 0 && (list[end - 1] == ' ' || list[end - 1] == '\t'))
            end--;
        if (end == n && strncasecmp(list, token, n) == 0)
            return true;
        list += item;
    }
    return false;
}

bool http_headers_has_token(const struct http_headers *h, const char *name, const char *token)
{
    for (size_t i = 0; i < h->count; i++)
        if (strcasecmp(h->items[i].name, name) == 0 && http_list_has_token(h->items[i].value, token))
            return true;
    return false;
}

void http_headers_free(struct http_headers *h)
{
    free(h->items);
    arena_free(&h->arena);
    *h = (struct http_headers){ 0 };
}

static bool http_is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool http_name_valid(const char *name)
{
    if (*name == '\0')
        return false;
    for (; *name != '\0'; name++)
        if (!http_is_alnum(*name) && strchr("!#$%&'*+-.^_`|~", *name) == NULL)
            return false;
    return true;
}

bool http_value_valid(const char *value)
{
    for (; *value != '\0'; value++)
        if (((unsigned char)*value < 0x20 && *value != '\t') || *value == 0x7f)
            return false;
    return true;
}

/* ---- status numbers ---- */

static const struct {
    int number;
    const char *reason;
    enum status_code code;
} http_statuses[] = {
    { 100, "Continue", STATUS_UNKNOWN },
    { 101, "Switching Protocols", STATUS_UNKNOWN },
    { 200, "OK", STATUS_OK },
    { 201, "Created", STATUS_OK },
    { 202, "Accepted", STATUS_OK },
    { 204, "No Content", STATUS_OK },
    { 206, "Partial Content", STATUS_OK },
    { 301, "Moved Permanently", STATUS_UNKNOWN },
    { 302, "Found", STATUS_UNKNOWN },
    { 303, "See Other", STATUS_UNKNOWN },
    { 304, "Not Modified", STATUS_UNKNOWN },
    { 307, "Temporary Redirect", STATUS_UNKNOWN },
    { 308, "Permanent Redirect", STATUS_UNKNOWN },
    { 400, "Bad Request", STATUS_INVALID_ARGUMENT },
    { 401, "Unauthorized", STATUS_UNAUTHENTICATED },
    { 403, "Forbidden", STATUS_PERMISSION_DENIED },
    { 404, "Not Found", STATUS_NOT_FOUND },
    { 405, "Method Not Allowed", STATUS_UNIMPLEMENTED },
    { 408, "Request Timeout", STATUS_DEADLINE_EXCEEDED },
    { 409, "Conflict", STATUS_ABORTED },
    { 410, "Gone", STATUS_NOT_FOUND },
    { 411, "Length Required", STATUS_INVALID_ARGUMENT },
    { 412, "Precondition Failed", STATUS_FAILED_PRECONDITION },
    { 413, "Content Too Large", STATUS_RESOURCE_EXHAUSTED },
    { 414, "URI Too Long", STATUS_INVALID_ARGUMENT },
    { 416, "Range Not Satisfiable", STATUS_OUT_OF_RANGE },
    { 417, "Expectation Failed", STATUS_FAILED_PRECONDITION },
    { 426, "Upgrade Required", STATUS_FAILED_PRECONDITION },
    { 429, "Too Many Requests", STATUS_RESOURCE_EXHAUSTED },
    { 431, "Request Header Fields Too Large", STATUS_INVALID_ARGUMENT },
    { 499, "Client Closed Request", STATUS_CANCELLED },
    { 500, "Internal Server Error", STATUS_INTERNAL },
    { 501, "Not Implemented", STATUS_UNIMPLEMENTED },
    { 502, "Bad Gateway", STATUS_UNAVAILABLE },
    { 503, "Service Unavailable", STATUS_UNAVAILABLE },
    { 504, "Gateway Timeout", STATUS_UNAVAILABLE },
};

const char *http_reason(int http_status)
{
    for (size_t i = 0; i < COUNT_OF(http_statuses); i++)
        if (http_statuses[i].number == http_status)
            return http_statuses[i].reason;
    return "Unknown";
}

enum status_code http_to_status_code(int http_status)
{
    for (size_t i = 0; i < COUNT_OF(http_statuses); i++)
        if (http_statuses[i].number == http_status)
            return http_statuses[i].code;
    switch (http_status / 100) {
    case 2: return STATUS_OK;
    case 4: return STATUS_FAILED_PRECONDITION;
    case 5: return STATUS_UNAVAILABLE;
    default: return STATUS_UNKNOWN;
    }
}

int http_from_status_code(enum status_code code)
{
    switch (code) {
    case STATUS_OK: return 200;
    case STATUS_CANCELLED: return 499;
    case STATUS_INVALID_ARGUMENT:
    case STATUS_OUT_OF_RANGE: return 400;
    case STATUS_DEADLINE_EXCEEDED: return 504;
    case STATUS_NOT_FOUND: return 404;
    case STATUS_ALREADY_EXISTS:
    case STATUS_ABORTED: return 409;
    case STATUS_PERMISSION_DENIED: return 403;
    case STATUS_RESOURCE_EXHAUSTED: return 429;
    case STATUS_FAILED_PRECONDITION: return 412;
    case STATUS_UNIMPLEMENTED: return 501;
    case STATUS_UNAVAILABLE: return 503;
    case STATUS_UNAUTHENTICATED: return 401;
    case STATUS_UNKNOWN:
    case STATUS_INTERNAL:
    case STATUS_DATA_LOSS: break;
    }
    return 500;
}

/* Seconds, or a date (RFC 9110 section 10.2.3). */
int64_t http_retry_after_ms(const char *text, int64_t now)
{
    struct tm tm = { 0 };
    uint64_t seconds;

    if (parse_u64(text, INT32_MAX, &seconds))
        return (int64_t)seconds * 1000;
    const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (end == NULL || *end != '\0')
        return 0;
    int64_t at = timegm(&tm);
    return at > now ? (at - now) * 1000 : 0;
}

/* ---- URLs ---- */

void http_percent_encode(struct buf *out, const char *text, const char *keep)
{
    for (; *text != '\0'; text++) {
        if (http_is_alnum(*text) || strchr("-._~", *text) != NULL || strchr(keep, *text) != NULL)
            buf_append_byte(out, (uint8_t)*text);
        else
            buf_printf(out, "%%%02X", (unsigned char)*text);
    }
}

bool http_percent_decode(struct str text, bool form, struct buf *out)
{
    for (size_t i = 0; i < text.n; i++) {
        uint8_t byte = (uint8_t)text.p[i];
        if (byte == '+' && form) {
            byte = ' ';
        } else if (byte == '%') {
            if (text.n - i < 3 || !hex_decode(text.p + i + 1, &byte, 1))
                return false;
            i += 2;
        }
        if (byte == 0)
            return false;
        buf_append_byte(out, byte);
    }
    return true;
}

const char *http_query_get(struct arena *arena, const char *query, const char *key)
{
    while (*query != '\0') {
        size_t pair = strcspn(query, "&"), name = strcspn(query, "&=");
        cleanup_buf struct buf decoded = BUF_INIT;
        if (http_percent_decode((struct str){ query, name }, true, &decoded) && strcmp(buf_cstr(&decoded), key) == 0) {
            size_t value = name < pair ? name + 1 : name;
            buf_clear(&decoded);
            if (!http_percent_decode((struct str){ query + value, pair - value }, true, &decoded))
                return NULL;
            return arena_strndup(arena, (const char *)decoded.p, decoded.n);
        }
        query += pair;
        query += *query == '&';
    }
    return NULL;
}

/* host[:port], the host perhaps in brackets. */
static bool http_authority_parse(struct str text, struct http_url *out)
{
    size_t host = 0, colon;

    if (text.n > 0 && text.p[0] == '[') {
        const char *bracket = memchr(text.p, ']', text.n);
        if (bracket == NULL)
            return false;
        host = 1;
        colon = (size_t)(bracket - text.p) + 1;
        if (colon < text.n && text.p[colon] != ':')
            return false;
    } else {
        const char *p = memchr(text.p, ':', text.n);
        colon = p != NULL ? (size_t)(p - text.p) : text.n;
    }
    size_t n = colon - 2 * host;
    if (n == 0 || n >= sizeof out->host)
        return false;
    for (size_t i = host; i < host + n; i++)
        if (!http_is_alnum(text.p[i]) && strchr(host ? ".:" : "-._", text.p[i]) == NULL)
            return false;
    memcpy(out->host, text.p + host, n);
    out->host[n] = '\0';
    if (colon == text.n)
        return true;
    char digits[6];
    uint64_t port;
    if (text.n - colon - 1 >= sizeof digits)
        return false;
    snprintf(digits, sizeof digits, "%.*s", (int)(text.n - colon - 1), text.p + colon + 1);
    out->has_port = parse_u64(digits, UINT16_MAX, &port) && port > 0;
    if (out->has_port)
        out->port = (uint16_t)port;
    return out->has_port;
}

bool http_url_parse(const char *text, struct http_url *out, struct status *err)
{
    *out = (struct http_url){ 0 };
    if (strncasecmp(text, "http://", 7) == 0) {
        strcpy(out->scheme, "http");
        out->port = 80;
    } else if (strncasecmp(text, "https://", 8) == 0) {
        strcpy(out->scheme, "https");
        out->port = 443;
    } else {
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.200s\" is not a URL that begins with http:// or https://", text);
    }
    if (strlen(text) > HTTP_URL_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the URL \"%.80s...\" is longer than %d bytes", text, HTTP_URL_MAX);
    const char *authority = strstr(text, "://") + 3;
    size_t n = strcspn(authority, "/?#");
    out->target = authority + n;
    if (memchr(authority, '@', n) != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the URL for %s carries a user name: give credentials apart from it",
                          (const char *)memchr(authority, '@', n) + 1);
    if (!http_authority_parse((struct str){ authority, n }, out))
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.200s\" has no usable host and port", text);
    for (const char *p = out->target; *p != '\0'; p++)
        if ((unsigned char)*p <= 0x20 || *p == 0x7f || *p == '#')
            return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.200s\" has a character that a URL here may not have", text);
    return true;
}
