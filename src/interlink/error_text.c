/* SPDX-License-Identifier: Apache-2.0 */
/* error_text.c: the plugin's own words out of an error body, and the codes that go with them. */
#include "interlink/message.h"

static const struct {
    const char *entity;
    char byte;
} error_text_entities[] = {
    { "&lt;", '<' }, { "&gt;", '>' }, { "&amp;", '&' }, { "&#34;", '"' }, { "&#39;", '\'' }, { "&quot;", '"' },
};

/* The byte an entity at s stands for, and how much of s it takes; the first byte itself when it is none. */
static char error_text_unescape(struct str s, size_t *step)
{
    for (size_t i = 0; i < COUNT_OF(error_text_entities) && s.p[0] == '&'; i++) {
        *step = strlen(error_text_entities[i].entity);
        if (s.n >= *step && memcmp(s.p, error_text_entities[i].entity, *step) == 0)
            return error_text_entities[i].byte;
    }
    *step = 1;
    return s.p[0];
}

/* What follows the API server's own words; the whole body when they are not there. A plugin behind two servers is
 * wrapped twice: the innermost counts. */
static struct str error_text_inner(struct str body, bool *wrapped)
{
    static const char call[] = "call exit status: ", mark[] = "Body: ";

    *wrapped = false;
    for (;;) {
        const char *at = memmem(body.p, body.n, call, sizeof call - 1);
        if (at == NULL)
            return body;
        size_t left = body.n - (size_t)(at - body.p);
        const char *text = memmem(at, left, mark, sizeof mark - 1);
        if (text == NULL)
            return body;
        text += sizeof mark - 1;
        body = (struct str){ text, body.n - (size_t)(text - body.p) };
        *wrapped = true;
    }
}

bool interlink_error_text(struct str body, int http_status, struct buf *out)
{
    bool wrapped = false, page, tag = false, blank = true;
    size_t start = out->n;
    struct str s = body.n > 0 ? error_text_inner(body, &wrapped) : body;

    if (s.n == 0)
        return false;
    /* A proxy's error page: its tags say nothing. */
    page = !wrapped && memchr("< \n\r\t", s.p[0], 5) != NULL && memmem(s.p, s.n, "<html", 5) != NULL;
    while (s.n > 0 && out->n - start < STATUS_MESSAGE_MAX - 1) {
        size_t step = 1;
        char c = wrapped || page ? error_text_unescape(s, &step) : s.p[0];
        if (page && step == 1 && (c == '<' || tag)) {
            tag = c != '>';
            c = ' ';
        }
        s = (struct str){ s.p + step, s.n - step };
        bool is_blank = (unsigned char)c <= ' ' || c == 0x7f;
        if (!is_blank)
            buf_append_byte(out, (uint8_t)c);
        else if (!blank)
            buf_append_byte(out, ' ');
        blank = is_blank;
    }
    while (out->n > start && out->p[out->n - 1] == ' ')
        out->n--;
    return out->n > start && (wrapped || (!page && http_status != 502 && http_status != 504));
}

/* ---- codes ---- */

static const struct {
    int http;
    enum status_code code;
} error_text_codes[] = {
    { 400, STATUS_INVALID_ARGUMENT },    { 401, STATUS_UNAUTHENTICATED },  { 403, STATUS_PERMISSION_DENIED },
    { 404, STATUS_NOT_FOUND },           { 405, STATUS_UNIMPLEMENTED },    { 409, STATUS_ALREADY_EXISTS },
    { 413, STATUS_RESOURCE_EXHAUSTED },  { 422, STATUS_FAILED_PRECONDITION }, { 429, STATUS_RESOURCE_EXHAUSTED },
    { 501, STATUS_UNIMPLEMENTED },
};

enum status_code interlink_error_code(int http_status)
{
    for (size_t i = 0; i < COUNT_OF(error_text_codes); i++)
        if (error_text_codes[i].http == http_status)
            return error_text_codes[i].code;
    /* 500, 502, 503, 504: plugins use them for whatever failed, most of it passing. */
    return http_status >= 500 ? STATUS_UNAVAILABLE : STATUS_UNKNOWN;
}

int interlink_http_status(enum status_code code)
{
    switch (code) {
    case STATUS_OK:
        return 200;
    case STATUS_RESOURCE_EXHAUSTED:
        return 429;
    case STATUS_UNAVAILABLE:
        return 503;
    case STATUS_DEADLINE_EXCEEDED:
        return 504;
    default:
        break;
    }
    for (size_t i = 0; i < COUNT_OF(error_text_codes); i++)
        if (error_text_codes[i].code == code)
            return error_text_codes[i].http;
    return 500;
}
