/* SPDX-License-Identifier: Apache-2.0 */
/* WWW-Authenticate headers, what is asked because of them, and the answers. */
#include "image/auth.h"
#include "image/registry_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct credentials creds = { "user", "password", "", "", "" };
    cleanup_free char *text = xstrndup((const char *)data, size);
    struct arena cleanup_arena arena = ARENA_INIT;
    struct http_headers headers = { 0 };
    struct challenge challenge;
    struct token_query query;
    struct credentials read;
    struct status err;
    const char *token;

    http_headers_add(&headers, "WWW-Authenticate", text);
    challenge_read(&headers, &arena, &challenge);
    for (unsigned i = 0; i < 4 && challenge.kind == CHALLENGE_BEARER; i++)
        if (token_query_make(&challenge, &creds, i & 1, i & 2, "repository:a:pull", &arena, &query, &err) && (i & 2) &&
            !(query.url[0] == 'h' || query.url[0] == 'H'))
            abort();
    token_read((struct str){ (const char *)data, size }, &arena, &token, &err);
    credentials_read(&(struct image_auth){ .auth = text, .server_address = text }, &arena, &read, &err);
    if (http_retry_after_ms(text, 0) < 0)
        abort();
    http_headers_free(&headers);
    return 0;
}
