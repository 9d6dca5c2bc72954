/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/decode.h"

#include <assert.h>

struct decoder {
    struct arena *arena;
    struct status *err;
    size_t budget; /* memory that may still be taken */
    bool borrow;
};

struct decode_input {
    const uint8_t *p, *end;
};

/* Where an error is: for its message. */
static bool decode_error(struct decoder *d, const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field,
                         const char *what)
{
    if (field != NULL)
        return status_set(d->err, STATUS_INVALID_ARGUMENT, "malformed message: field %s of %s: %s", field->name,
                          type->name, what);
    return status_set(d->err, STATUS_INVALID_ARGUMENT, "malformed message %s: %s", type->name, what);
}

static void *decode_alloc(struct decoder *d, size_t size)
{
    if (size > d->budget) {
        status_set(d->err, STATUS_RESOURCE_EXHAUSTED, "message needs more than %u bytes of memory", RPC_DECODED_MAX);
        return NULL;
    }
    d->budget -= size;
    return arena_alloc_raw(d->arena, size);
}

static bool decode_varint(struct decode_input *in, uint64_t *out)
{
    uint64_t value = 0;

    if (in->p < in->end && *in->p < 0x80) {
        *out = *in->p++;
        return true;
    }
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (in->p == in->end)
            return false;
        uint8_t byte = *in->p++;
        value |= (uint64_t)(byte & 0x7f) << (shift < 64 ? shift : 63);
        if (byte < 0x80) {
            *out = value;
            return shift < 63 || byte <= 1;
        }
    }
    return false;
}

/* RFC 3629; also refuses NUL, which would cut the C string. */
static bool decode_text_ok(const uint8_t *p, const uint8_t *end)
{
    while (p < end) {
        uint8_t c = *p++;
        if (c < 0x80) {
            if (c == 0)
                return false;
            continue;
        }
        size_t more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4 || (size_t)(end - p) < more)
            return false;
        /* Overlong forms, surrogates and what is above U+10FFFF show in the second byte. */
        uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
        if (p[0] < low || p[0] > high)
            return false;
        for (size_t i = 1; i < more; i++)
            if ((p[i] & 0xc0) != 0x80)
                return false;
        p += more;
    }
    return true;
}

static size_t decode_size_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
        return 4;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    }
    return 0;
}

/* Wire types: protobuf's encoding documentation. */
enum { DECODE_VARINT = 0, DECODE_64 = 1, DECODE_BYTES = 2, DECODE_32 = 5 };

static unsigned decode_wire_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return DECODE_32;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return DECODE_64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return DECODE_BYTES;
    default:
        return DECODE_VARINT;
    }
}

static uint64_t decode_zigzag(uint64_t value)
{
    return (value >> 1) ^ (0 - (value & 1));
}

/* One number into `member`. */
static bool decode_number(struct decode_input *in, ProtobufCType type, void *member)
{
    size_t size = decode_wire_of(type) == DECODE_32 ? 4 : decode_wire_of(type) == DECODE_64 ? 8 : 0;
    uint64_t value = 0;

    if (size > 0) {
        if ((size_t)(in->end - in->p) < size)
            return false;
        for (size_t i = 0; i < size; i++)
            value |= (uint64_t)in->p[i] << (8 * i);
        in->p += size;
    } else if (!decode_varint(in, &value)) {
        return false;
    }
    if (type == PROTOBUF_C_TYPE_SINT32)
        value = decode_zigzag(value & UINT32_MAX);
    else if (type == PROTOBUF_C_TYPE_SINT64)
        value = decode_zigzag(value);
    if (type == PROTOBUF_C_TYPE_BOOL)
        *(protobuf_c_boolean *)member = value != 0;
    else if (decode_size_of(type) == 4)
        *(uint32_t *)member = (uint32_t)value;
    else
        *(uint64_t *)member = value;
    return true;
}

static bool decode_message(struct decoder *d, const ProtobufCMessageDescriptor *type, struct decode_input in,
                           unsigned depth, ProtobufCMessage *message);

/* Something with a length: text, bytes, or a message, which is merged into the one that is there. */
static bool decode_content(struct decoder *d, const ProtobufCMessageDescriptor *type,
                           const ProtobufCFieldDescriptor *field, struct decode_input in, unsigned depth, void *member)
{
    size_t n = (size_t)(in.end - in.p);

    if (field->type == PROTOBUF_C_TYPE_BYTES) {
        uint8_t *copy = (uint8_t *)(uintptr_t)in.p;
        if (!d->borrow && n > 0) {
            copy = decode_alloc(d, n);
            if (copy == NULL)
                return false;
            memcpy(copy, in.p, n);
        }
        *(ProtobufCBinaryData *)member = (ProtobufCBinaryData){ n, n > 0 ? copy : NULL };
        return true;
    }
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        if (!decode_text_ok(in.p, in.end))
            return decode_error(d, type, field, "text is not UTF-8 or holds a NUL byte");
        char *text = decode_alloc(d, n + 1);
        if (text == NULL)
            return false;
        memcpy(text, in.p, n);
        text[n] = '\0';
        *(char **)member = text;
        return true;
    }
    const ProtobufCMessageDescriptor *sub = field->descriptor;
    ProtobufCMessage *message = *(ProtobufCMessage **)member;
    if (depth >= RPC_NESTING_MAX)
        return decode_error(d, type, field, "nested too deeply");
    if (message == NULL) {
        message = decode_alloc(d, sub->sizeof_message);
        if (message == NULL)
            return false;
        protobuf_c_message_init(sub, message);
        *(ProtobufCMessage **)member = message;
    }
    return decode_message(d, sub, in, depth + 1, message);
}

/* Room for `extra` more elements of a repeated field. An array's capacity is the power of two at or above its length. */
static void *decode_grow(struct decoder *d, const ProtobufCFieldDescriptor *field, ProtobufCMessage *message, size_t extra)
{
    size_t *n = (size_t *)(void *)((char *)message + field->quantifier_offset);
    void **array = (void **)(void *)((char *)message + field->offset);
    size_t size = decode_size_of(field->type), capacity = 1;

    if (*n > 0)
        while (capacity < *n)
            capacity *= 2;
    if (*n == 0 || *n + extra > capacity) {
        while (capacity < *n + extra)
            capacity *= 2;
        void *larger = decode_alloc(d, capacity * size);
        if (larger == NULL)
            return NULL;
        if (*n > 0)
            memcpy(larger, *array, *n * size);
        *array = larger;
    }
    return (char *)*array + *n * size;
}

/* A packed array of numbers. */
static bool decode_packed(struct decoder *d, const ProtobufCMessageDescriptor *type,
                          const ProtobufCFieldDescriptor *field, struct decode_input in, ProtobufCMessage *message)
{
    size_t *n = (size_t *)(void *)((char *)message + field->quantifier_offset);
    size_t size = decode_size_of(field->type), count = 0;
    unsigned wire = decode_wire_of(field->type);

    if (wire == DECODE_VARINT) {
        for (const uint8_t *p = in.p; p < in.end; p++)
            count += *p < 0x80;
    } else {
        count = (size_t)(in.end - in.p) / (wire == DECODE_32 ? 4 : 8);
    }
    if (count == 0)
        return in.p == in.end || decode_error(d, type, field, "cut off");
    char *member = decode_grow(d, field, message, count);
    if (member == NULL)
        return false;
    for (size_t i = 0; i < count; i++, member += size)
        if (!decode_number(&in, field->type, member))
            return decode_error(d, type, field, "malformed number");
    *n += count;
    return in.p == in.end || decode_error(d, type, field, "cut off");
}

/* Where a singular field goes, and the note that it is there. */
static void *decode_member(const ProtobufCFieldDescriptor *field, ProtobufCMessage *message)
{
    void *member = (char *)message + field->offset, *quantifier = (char *)message + field->quantifier_offset;

    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        /* Another member of the oneof lies in the same place: forget it. */
        if (*(uint32_t *)quantifier != field->id)
            memset(member, 0, decode_size_of(field->type));
        *(uint32_t *)quantifier = field->id;
    } else if (field->label == PROTOBUF_C_LABEL_OPTIONAL && field->type != PROTOBUF_C_TYPE_STRING &&
               field->type != PROTOBUF_C_TYPE_MESSAGE) {
        *(protobuf_c_boolean *)quantifier = 1;
    }
    return member;
}

static bool decode_field(struct decoder *d, const ProtobufCMessageDescriptor *type,
                         const ProtobufCFieldDescriptor *field, unsigned wire, struct decode_input *in, unsigned depth,
                         ProtobufCMessage *message)
{
    struct decode_input content = *in;
    bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
    unsigned expected = decode_wire_of(field->type);

    if (wire == DECODE_BYTES) {
        uint64_t n;
        if (!decode_varint(in, &n) || n > (uint64_t)(in->end - in->p))
            return decode_error(d, type, field, "cut off");
        content = (struct decode_input){ in->p, in->p + n };
        in->p += n;
        if (repeated && expected != DECODE_BYTES)
            return decode_packed(d, type, field, content, message);
    }
    if (wire != expected)
        return decode_error(d, type, field, "wrong wire type");
    void *member = repeated ? decode_grow(d, field, message, 1) : decode_member(field, message);
    if (member == NULL)
        return false;
    if (repeated) {
        memset(member, 0, decode_size_of(field->type));
        *(size_t *)(void *)((char *)message + field->quantifier_offset) += 1;
    }
    if (wire == DECODE_BYTES)
        return decode_content(d, type, field, content, depth, member);
    return decode_number(in, field->type, member) || decode_error(d, type, field, "malformed number");
}

static bool decode_skip(struct decode_input *in, unsigned wire)
{
    uint64_t n = wire == DECODE_32 ? 4 : 8;

    if (wire == DECODE_VARINT)
        return decode_varint(in, &n);
    if (wire == DECODE_BYTES && !decode_varint(in, &n))
        return false;
    if (wire > DECODE_BYTES && wire != DECODE_32)
        return false; /* groups were never part of proto3 */
    if (n > (uint64_t)(in->end - in->p))
        return false;
    in->p += n;
    return true;
}

/* Fields mostly come in the order of their numbers: *hint is the index of the one before. */
static const ProtobufCFieldDescriptor *decode_find(const ProtobufCMessageDescriptor *type, uint32_t id, unsigned *hint)
{
    for (unsigned i = *hint; i < type->n_fields && i < *hint + 2; i++) {
        if (type->fields[i].id == id) {
            *hint = i;
            return &type->fields[i];
        }
    }
    unsigned low = 0, high = type->n_fields;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (type->fields[middle].id == id) {
            *hint = middle;
            return &type->fields[middle];
        }
        if (type->fields[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static bool decode_message(struct decoder *d, const ProtobufCMessageDescriptor *type, struct decode_input in,
                           unsigned depth, ProtobufCMessage *message)
{
    unsigned hint = 0;

    while (in.p < in.end) {
        uint64_t tag;
        if (!decode_varint(&in, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
            return decode_error(d, type, NULL, "malformed tag");
        const ProtobufCFieldDescriptor *field = decode_find(type, (uint32_t)(tag >> 3), &hint);
        if (field == NULL) {
            if (!decode_skip(&in, (unsigned)tag & 7))
                return decode_error(d, type, NULL, "malformed unknown field");
        } else if (!decode_field(d, type, field, (unsigned)tag & 7, &in, depth, message)) {
            return false;
        }
    }
    return true;
}

ProtobufCMessage *rpc_decode(const ProtobufCMessageDescriptor *type, const void *p, size_t n, bool borrow,
                             struct arena *arena, struct status *err)
{
    struct decoder d = { arena, err, RPC_DECODED_MAX, borrow };
    struct decode_input in = { p, (const uint8_t *)p + n };

    assert(type->magic == PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC);
    ProtobufCMessage *message = decode_alloc(&d, type->sizeof_message);
    if (message == NULL)
        return NULL;
    protobuf_c_message_init(type, message);
    return decode_message(&d, type, in, 0, message) ? message : NULL;
}
