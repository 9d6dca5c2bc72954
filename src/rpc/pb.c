/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/pb.h"

#include "cri.pb-c.h"

ProtobufCMessage *pb_copy(const ProtobufCMessage *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    cleanup_free uint8_t *bytes = xmalloc(n);

    protobuf_c_message_pack(message, bytes);
    ProtobufCMessage *copy = protobuf_c_message_unpack(message->descriptor, NULL, n, bytes);
    if (copy == NULL)
        abort(); /* what was just encoded can be decoded, unless memory is out */
    return copy;
}

void pb_set(char **field, const char *value)
{
    char *copy = *value != '\0' ? xstrdup(value) : (char *)(uintptr_t)protobuf_c_empty_string;

    if (*field != protobuf_c_empty_string)
        free(*field);
    *field = copy;
}

/* All generated entry types of map<string, string> are this: base, key, value. */
typedef Runtime__V1__PodSandboxConfig__LabelsEntry pb_entry;

const char *pb_label(size_t count, void *entries, const char *key)
{
    pb_entry **list = entries;

    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i]->key, key) == 0)
            return list[i]->value;
    return NULL;
}

bool pb_labels_match(size_t wanted_count, void *wanted, size_t have_count, void *have)
{
    pb_entry **list = wanted;

    for (size_t i = 0; i < wanted_count; i++) {
        const char *value = pb_label(have_count, have, list[i]->key);
        if (value == NULL || strcmp(value, list[i]->value) != 0)
            return false;
    }
    return true;
}

void pb_encode_item(const ProtobufCMessage *message, struct buf *out)
{
    size_t n = protobuf_c_message_get_packed_size(message);

    buf_append_byte(out, 1 << 3 | 2); /* field 1, length-delimited */
    for (size_t rest = n;; rest >>= 7) {
        buf_append_byte(out, (uint8_t)((rest & 0x7f) | (rest > 0x7f ? 0x80u : 0u)));
        if (rest <= 0x7f)
            break;
    }
    protobuf_c_message_pack(message, buf_reserve(out, n));
    out->n += n;
}
