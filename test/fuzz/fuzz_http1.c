/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP/1.1 engine: any bytes, cut in any way, as requests and as answers. Whatever comes must be within the bounds, and
 * must not depend on where the input was cut. */
#include "http/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEAD_MAX 512

/* What an engine told, in order: a hash of it. */
struct tale {
    uint64_t hash;
    bool failed, upgraded;
};

static void tale_add(struct tale *t, const void *p, size_t n)
{
    const uint8_t *bytes = p;

    for (size_t i = 0; i < n; i++)
        t->hash = (t->hash ^ bytes[i]) * 0x100000001b3u;
}

static void tale_add_head(struct tale *t, const struct http1 *h, bool requests)
{
    size_t total = 0;

    if (requests) {
        tale_add(t, h->head.method, strlen(h->head.method));
        tale_add(t, h->head.target, strlen(h->head.target));
        total = strlen(h->head.target);
    }
    for (size_t i = 0; i < h->head.headers.count; i++) {
        const struct http_header *header = &h->head.headers.items[i];
        if (!http_name_valid(header->name) || !http_value_valid(header->value))
            abort();
        total += strlen(header->name) + strlen(header->value);
        tale_add(t, header->name, strlen(header->name) + 1);
        tale_add(t, header->value, strlen(header->value) + 1);
    }
    if (total > HEAD_MAX + 1 || h->head.headers.count > HTTP_HEADERS_MAX)
        abort();
    tale_add(t, &h->head.content_length, sizeof h->head.content_length);
    tale_add(t, &h->head.status, sizeof h->head.status);
    tale_add(t, &h->head.keep_alive, sizeof h->head.keep_alive);
}

static struct tale tell(const uint8_t *data, size_t size, size_t step, bool requests, unsigned flags)
{
    struct http1 h;
    struct tale t = { .hash = 0xcbf29ce484222325u };
    struct status err = STATUS_INIT;

    http1_init(&h, requests, HEAD_MAX);
    h.connect = (flags & 1) != 0;
    h.no_body = (flags & 2) != 0;
    for (size_t at = 0; at < size && !t.failed && !t.upgraded; at += step) {
        struct str in = { (const char *)data + at, size - at < step ? size - at : step }, body;
        for (bool more = false; !more && !t.failed && !t.upgraded;) {
            enum http1_event event = http1_next(&h, &in, &body, &err);
            if (event != HTTP1_MORE && event != HTTP1_BODY)
                tale_add(&t, &event, sizeof event);
            switch (event) {
            case HTTP1_MORE: more = true; break;
            case HTTP1_HEAD: tale_add_head(&t, &h, requests); break;
            case HTTP1_BODY: tale_add(&t, body.p, body.n); break;
            case HTTP1_END: break;
            case HTTP1_UPGRADE:
                if (requests && (flags & 4) != 0)
                    http1_refuse_upgrade(&h);
                else
                    t.upgraded = true;
                break;
            case HTTP1_ERROR: t.failed = true; break;
            }
        }
    }
    if (!t.failed && !t.upgraded) {
        enum http1_event event = http1_finish(&h);
        tale_add(&t, &event, sizeof event);
    }
    http1_free(&h);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_buf struct buf out = BUF_INIT;
    struct arena arena = ARENA_INIT;
    struct http_url url;
    struct status err = STATUS_INIT;

    if (size < 2)
        return 0;
    unsigned flags = data[0];
    size_t step = data[1] % 64u + 1;
    bool requests = (flags & 8) != 0;
    struct tale whole = tell(data + 2, size - 2, size, requests, flags);
    struct tale pieces = tell(data + 2, size - 2, step, requests, flags);
    if (whole.hash != pieces.hash || whole.failed != pieces.failed || whole.upgraded != pieces.upgraded)
        abort();
    /* The small parsers around it. */
    cleanup_free char *text = xstrndup((const char *)data + 2, size - 2);
    http_percent_decode(str_of(text), flags & 1, &out);
    http_query_get(&arena, text, "a");
    if (http_url_parse(text, &url, &err) && (strlen(url.host) == 0 || url.port == 0))
        abort();
    arena_free(&arena);
    return 0;
}
