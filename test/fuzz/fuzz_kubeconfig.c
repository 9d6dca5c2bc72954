/* SPDX-License-Identifier: Apache-2.0 */
/* A kubeconfig. What is taken is fit for a connection: TLS, credentials, nothing that could end a header's line. */
#include "kube/kubeconfig.h"

#include "http/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct status err = STATUS_INIT;
    struct kubeconfig k;

    if (!kubeconfig_parse("/etc/kubelet.conf", (struct str){ (const char *)data, size }, &k, &err)) {
        if (err.message[0] == '\0' || k.arena.chunks != NULL)
            abort();
        return 0;
    }
    bool cert = *k.cert_path != '\0' || *k.cert_pem != '\0', key = *k.key_path != '\0' || *k.key_pem != '\0';
    if (!str_starts(k.server, "https://") && strncasecmp(k.server, "https://", 8) != 0)
        abort();
    if (cert != key || (!cert && *k.token == '\0' && *k.token_path == '\0') || !http_value_valid(k.token) ||
        (*k.token != '\0' && *k.token_path != '\0') || (*k.ca_path != '\0' && *k.ca_pem != '\0'))
        abort();
    kubeconfig_free(&k);
    return 0;
}
