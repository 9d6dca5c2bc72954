/* SPDX-License-Identifier: Apache-2.0 */
/* A CNI configuration that is taken reads back as the same; whatever a plugin prints is a result, which can be handed on, or an
 * error in words. */
#include "node/cni_call.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_network(struct arena *a, struct str text)
{
    cleanup_buf struct buf one = BUF_INIT, two = BUF_INIT;
    struct cni_network network, again;
    struct status err = STATUS_INIT;

    if (!cni_network_parse(a, text, &network, &err))
        return;
    cni_network_write(&network, &one);
    if (!cni_network_parse(a, (struct str){ (char *)one.p, one.n }, &again, &err))
        abort();
    cni_network_write(&again, &two);
    if (one.n != two.n || memcmp(one.p, two.p, one.n) != 0)
        abort();
    struct cni_attachment attachment = { .container_id = "c", .netns = "", .interface = "eth0", .arguments = "",
                                         .capabilities = json_parse(a, STR("{\"dns\":{},\"x\":1}"), &err) };
    for (size_t i = 0; i < network.plugin_count; i++) {
        buf_clear(&one);
        cni_request(&network, &network.plugins[i], &attachment, network.plugins[i].config, NULL, &one);
        if (json_parse(a, (struct str){ (char *)one.p, one.n }, &err) == NULL)
            abort();
    }
}

static void fuzz_result(struct arena *a, struct str text)
{
    struct status err = STATUS_INIT;
    struct cni_network network;
    struct cni_result result;
    cleanup_buf struct buf request = BUF_INIT;

    if (cni_result_parse(a, text, "eth0", &result, &err)) {
        if (!cni_network_parse(a, STR("{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"t\"}"), &network, &err))
            abort();
        cni_request(&network, &network.plugins[0], NULL, result.json, NULL, &request);
        if (json_parse(a, (struct str){ (char *)request.p, request.n }, &err) == NULL)
            abort();
    }
    if (cni_failure("t", CNI_ADD, 256, text, text, &err) || *err.message == '\0')
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_arena struct arena a = ARENA_INIT;
    struct str text = { (const char *)data, size };

    fuzz_network(&a, text);
    fuzz_result(&a, text);
    return 0;
}
