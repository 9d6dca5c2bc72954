/* SPDX-License-Identifier: Apache-2.0 */
#include "image/digest.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

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

#if defined(__x86_64__)
/* The processor's own instructions are five times as fast as the best C, and images are gigabytes. */
static bool digest_cpu_has_sha(void)
{
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_SSSE3) == 0 || (c & bit_SSE4_1) == 0)
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA) != 0;
}

/* FIPS 180-4, section 6.2.2. The instructions want the eight words as ABEF and CDGH; four rounds need one group of four
 * schedule words, and each group is made of the four before it. */
__attribute__((target("sha,sse4.1"))) static void digest_blocks(uint32_t state[8], const uint8_t *p, size_t blocks)
{
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
        0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
        0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
        0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
        0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
        0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    };
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
    __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128((const void *)state), 0xb1);
    __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const void *)(state + 4)), 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);

    for (; blocks > 0; blocks--, p += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++) {
            if (i < 4) {
                w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const void *)(p + 16 * i)), big_endian);
            } else {
                __m128i last = w[(i + 3) % 4], next = _mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(last, w[(i + 2) % 4], 4));
                w[i % 4] = _mm_sha256msg2_epu32(next, last);
            }
            __m128i wk = _mm_add_epi32(w[i % 4], _mm_loadu_si128((const void *)(k + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(wk, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((void *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((void *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* Whole blocks, of which BearSSL's context then believes that it has done them itself. Returns the bytes taken. */
static size_t digest_fast(struct digester *d, const uint8_t *p, size_t n)
{
    static int able = -1; /* a fact about the machine, not state */

    if (able < 0)
        able = digest_cpu_has_sha();
    if (!able)
        return 0;
    digest_blocks(d->context.val, p, n / 64);
    d->context.count += n / 64 * 64;
    return n / 64 * 64;
}
#else
static size_t digest_fast(struct digester *d, const uint8_t *p, size_t n)
{
    (void)d;
    (void)p;
    (void)n;
    return 0;
}
#endif

void digester_update(struct digester *d, const void *p, size_t n)
{
    size_t pending = (size_t)(d->context.count % 64);
    size_t first = pending == 0 ? 0 : 64 - pending;
    const uint8_t *from = p;

    if (n == 0)
        return;
    if (first > n)
        first = n;
    br_sha256_update(&d->context, from, first);
    size_t fast = first == n ? 0 : digest_fast(d, from + first, n - first);
    br_sha256_update(&d->context, from + first + fast, n - first - fast);
}

struct digest digester_value(const struct digester *d)
{
    struct digest value;

    br_sha256_out(&d->context, value.sha256);
    return value;
}
