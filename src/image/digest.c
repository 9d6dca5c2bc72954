/* SPDX-License-Identifier: Apache-2.0 */
#include "image/digest.h"

bool digest_parse(const char *text, struct digest *out, struct status *err)
{
    const char *colon = strchr(text, ':');

    if (colon != NULL && !str_starts(text, "sha256:"))
        return status_set(err, STATUS_INVALID_ARGUMENT, "digest '%.100s': only sha256 digests can be used", text);
    if (colon == NULL || strlen(text) != DIGEST_TEXT_SIZE - 1)
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "digest '%.100s' is not of the form sha256: and 64 hexadecimal digits", text);
    for (const char *p = colon + 1; *p != '\0'; p++)
        if (!((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f')))
            return status_set(err, STATUS_INVALID_ARGUMENT,
                              "digest '%.100s' holds something else than the digits 0-9 and a-f", text);
    hex_decode(colon + 1, out->sha256, sizeof out->sha256);
    return true;
}

void digest_text(const struct digest *d, char out[DIGEST_TEXT_SIZE])
{
    memcpy(out, "sha256:", 7);
    hex_encode(d->sha256, sizeof d->sha256, out + 7);
}

void digest_hex(const struct digest *d, char out[DIGEST_HEX_SIZE])
{
    hex_encode(d->sha256, sizeof d->sha256, out);
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
    return memcmp(a->sha256, b->sha256, sizeof a->sha256) == 0;
}

bool digest_is_zero(const struct digest *d)
{
    static const struct digest zero;

    return digest_equal(d, &zero);
}

struct digest digest_of(const void *p, size_t n)
{
    struct digester d;

    digester_init(&d);
    digester_update(&d, p, n);
    return digester_value(&d);
}

void digester_init(struct digester *d)
{
    br_sha256_init(&d->context);
}

void digester_update(struct digester *d, const void *p, size_t n)
{
    br_sha256_update(&d->context, p, n);
}

struct digest digester_value(const struct digester *d)
{
    struct digest value;

    br_sha256_out(&d->context, value.sha256);
    return value;
}
