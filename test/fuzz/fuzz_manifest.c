/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests and indexes as a registry might send them. */
#include "image/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const types[] = { "", "application/vnd.oci.image.index.v1+json; charset=utf-8",
                                         "application/vnd.docker.distribution.manifest.v2+json" };
    struct str text = { (const char *)data, size };
    struct platform platform;
    struct manifest m;
    struct status err;

    platform_host(&platform);
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        if (!manifest_parse(text, types[i], &m, &err))
            continue;
        if (m.is_index)
            manifest_choose(&m, &platform, &err);
        else if (m.manifest_count != 0)
            abort();
        manifest_free(&m);
    }
    return 0;
}
