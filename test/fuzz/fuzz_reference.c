/* SPDX-License-Identifier: Apache-2.0 */
/* Any text: what is taken has a full name that stands for itself. */
#include "image/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_free char *text = xstrndup((const char *)data, size);
    char full[REFERENCE_TEXT_SIZE], again[REFERENCE_TEXT_SIZE];
    struct reference r;
    struct status err;

    if (!reference_parse(text, &r, &err))
        return 0;
    reference_text(&r, full);
    if ((r.tag[0] == '\0') == (r.digest[0] == '\0') || strstr(full, "/.") != NULL || !reference_parse(full, &r, &err))
        abort();
    reference_text(&r, again);
    if (strcmp(full, again) != 0)
        abort();
    return 0;
}
