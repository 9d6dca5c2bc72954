/* SPDX-License-Identifier: Apache-2.0 */
/* digest.h: sha256 digests: the names of blobs. Others that OCI allows (sha512) are refused with a sentence. */
#ifndef IMAGE_DIGEST_H
#define IMAGE_DIGEST_H

#include "base/base.h"

#include <bearssl_hash.h>

struct digest {
    uint8_t sha256[32];
};
#define DIGEST_TEXT_SIZE 72 /* "sha256:", 64 digits, NUL */
#define DIGEST_HEX_SIZE 65

/* "sha256:" and 64 lower-case hex digits. INVALID_ARGUMENT quotes what was given. */
bool digest_parse(const char *text, struct digest *out, struct status *err);
void digest_text(const struct digest *d, char out[DIGEST_TEXT_SIZE]);
void digest_hex(const struct digest *d, char out[DIGEST_HEX_SIZE]);
bool digest_equal(const struct digest *a, const struct digest *b);
bool digest_is_zero(const struct digest *d); /* all zero: "not known" */
struct digest digest_of(const void *p, size_t n);

/* Computed while bytes pass. */
struct digester {
    br_sha256_context context;
};
void digester_init(struct digester *d);
void digester_update(struct digester *d, const void *p, size_t n);
struct digest digester_value(const struct digester *d); /* of what has passed so far */

#endif
