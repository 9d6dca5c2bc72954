/* SPDX-License-Identifier: Apache-2.0 */
#include "image/hosts_toml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hosts_toml t;
    struct status err = STATUS_INIT;

    if (hosts_toml_parse("hosts.toml", (struct str){ (const char *)data, size }, &t, &err))
        hosts_toml_free(&t);
    else if (!str_starts(err.message, "hosts.toml:"))
        abort(); /* each error names file and line */
    return 0;
}
