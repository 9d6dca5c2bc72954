/* SPDX-License-Identifier: Apache-2.0 */
/* A log gives the same output in one piece and in pieces of changing size, never more than went in, and memory stays bounded. */
#include "interlink/log_strip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void strip(const uint8_t *data, size_t size, bool noisy, size_t step, struct buf *out)
{
    struct log_strip s = { .noisy = noisy };

    for (size_t at = 0; at < size; at += step) {
        log_strip_feed(&s, (struct str){ (const char *)data + at, size - at < step ? size - at : step }, out);
        if (s.head.n > LOG_STRIP_HEAD_MAX || s.tail.n > LOG_STRIP_TAIL_MAX)
            abort();
    }
    log_strip_end(&s, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_buf struct buf whole = BUF_INIT, pieces = BUF_INIT;

    if (size < 2)
        return 0;
    bool noisy = (data[0] & 1) != 0;
    size_t step = 1u + data[1] % 97u;
    strip(data + 2, size - 2, noisy, size, &whole);
    strip(data + 2, size - 2, noisy, step, &pieces);
    if (whole.n > size || whole.n != pieces.n || (whole.n > 0 && memcmp(whole.p, pieces.p, whole.n) != 0))
        abort();
    return 0;
}
