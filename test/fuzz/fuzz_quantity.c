/* SPDX-License-Identifier: Apache-2.0 */
/* A quantity that is read must come back the same from its canonical text; times and durations likewise. */
#include "text/quantity.h"
#include "text/timefmt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_free char *text = xstrndup((const char *)data, size);
    char out[QUANTITY_TEXT_MAX > TIMEFMT_SIZE ? QUANTITY_TEXT_MAX : TIMEFMT_SIZE];
    struct status err = STATUS_INIT;
    int64_t value, back;

    for (int scale = QUANTITY_ONE; scale <= QUANTITY_NANO; scale++) {
        if (!quantity_parse(text, (enum quantity_scale)scale, &value, &err))
            continue;
        for (int binary = 0; binary < 2; binary++) {
            quantity_format(value, (enum quantity_scale)scale, binary != 0, out);
            if (!quantity_parse(out, (enum quantity_scale)scale, &back, &err) || back != value)
                abort();
        }
    }
    if (timefmt_parse(str_of(text), &value)) {
        timefmt_nano(value, out);
        if (!timefmt_parse(str_of(out), &back) || back != value)
            abort();
    }
    if (timefmt_parse_duration(text, &value)) {
        timefmt_duration(value, out);
        if (!timefmt_parse_duration(out, &back) || back != value)
            abort();
    }
    return 0;
}
