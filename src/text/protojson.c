/* SPDX-License-Identifier: Apache-2.0 */
#include "text/protojson.h"

#include "text/nearest.h"

#include <math.h>

/* Longest JSON name of a field. */
#define PROTOJSON_NAME_MAX 64

/* ---- what the two directions share ---- */

/* pod_sandbox_id: podSandboxId */
static const char *protojson_name(const ProtobufCFieldDescriptor *field, char out[PROTOJSON_NAME_MAX])
{
    size_t n = 0;
    bool upper = false;

    for (const char *p = field->name; *p != '\0' && n + 1 < PROTOJSON_NAME_MAX; p++) {
        if (*p == '_') {
            upper = true;
            continue;
        }
        out[n++] = upper && *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
        upper = false;
    }
    out[n] = '\0';
    return out;
}

/* protoc makes a map<K, V> of a repeated message "...Entry" of key and value. */
static bool protojson_is_map(const ProtobufCFieldDescriptor *field)
{
    if (field->label != PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE)
        return false;
    const ProtobufCMessageDescriptor *entry = field->descriptor;
    return entry->n_fields == 2 && str_ends(entry->name, "Entry") && strcmp(entry->fields[0].name, "key") == 0 &&
           strcmp(entry->fields[1].name, "value") == 0;
}

static size_t protojson_element_size(ProtobufCType type)
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
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    }
    return 0;
}

static const void *protojson_at(const ProtobufCMessage *message, unsigned offset)
{
    return (const char *)message + offset;
}

/* ---- writing ---- */

static void protojson_write_value(struct json_writer *w, const ProtobufCFieldDescriptor *field, const void *p,
                                  unsigned flags);

static bool protojson_is_utf8(const ProtobufCBinaryData *data)
{
    for (size_t at = 0; at < data->len;) {
        size_t n = utf8_sequence((const char *)data->data + at, data->len - at);
        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

static void protojson_write_binary(struct json_writer *w, const ProtobufCBinaryData *data, unsigned flags)
{
    cleanup_buf struct buf text = BUF_INIT;

    if ((flags & PROTOJSON_TEXT_BYTES) != 0 && protojson_is_utf8(data)) {
        json_write_bytes(w, (struct str){ (const char *)data->data, data->len });
        return;
    }
    base64_append(&text, data->data, data->len, false);
    json_write_string(w, buf_cstr(&text));
}

static void protojson_write_long(struct json_writer *w, const char *format, uint64_t value)
{
    char text[24];

    if (*format == 'u')
        snprintf(text, sizeof text, "%" PRIu64, value);
    else
        snprintf(text, sizeof text, "%" PRId64, (int64_t)value);
    json_write_string(w, text);
}

static void protojson_write_real(struct json_writer *w, double value)
{
    if (isnan(value))
        json_write_string(w, "NaN");
    else if (isinf(value))
        json_write_string(w, value < 0 ? "-Infinity" : "Infinity");
    else
        json_write_double(w, value);
}

static void protojson_write_enum(struct json_writer *w, const ProtobufCEnumDescriptor *descriptor, int value)
{
    const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(descriptor, value);

    if (known != NULL)
        json_write_string(w, known->name);
    else
        json_write_i64(w, value);
}

static void protojson_write_value(struct json_writer *w, const ProtobufCFieldDescriptor *field, const void *p,
                                  unsigned flags)
{
    const char *const *string = p;

    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        json_write_i64(w, *(const int32_t *)p);
        return;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        json_write_u64(w, *(const uint32_t *)p);
        return;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        protojson_write_long(w, "i", (uint64_t) * (const int64_t *)p);
        return;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        protojson_write_long(w, "u", *(const uint64_t *)p);
        return;
    case PROTOBUF_C_TYPE_FLOAT:
        protojson_write_real(w, (double)*(const float *)p);
        return;
    case PROTOBUF_C_TYPE_DOUBLE:
        protojson_write_real(w, *(const double *)p);
        return;
    case PROTOBUF_C_TYPE_BOOL:
        json_write_bool(w, *(const protobuf_c_boolean *)p != 0);
        return;
    case PROTOBUF_C_TYPE_ENUM:
        protojson_write_enum(w, field->descriptor, *(const int *)p);
        return;
    case PROTOBUF_C_TYPE_STRING:
        json_write_string(w, *string != NULL ? *string : "");
        return;
    case PROTOBUF_C_TYPE_BYTES:
        protojson_write_binary(w, p, flags);
        return;
    case PROTOBUF_C_TYPE_MESSAGE:
        protojson_write(w, *(const ProtobufCMessage *const *)p, flags);
        return;
    }
}

/* The key of a map's entry as the text that JSON wants: strings, numbers and booleans may be keys. */
static char *protojson_entry_key(const ProtobufCMessage *entry)
{
    const ProtobufCFieldDescriptor *field = &entry->descriptor->fields[0];
    const char *const *string = protojson_at(entry, field->offset);
    cleanup_buf struct buf text = BUF_INIT;
    struct json_writer w;

    if (field->type == PROTOBUF_C_TYPE_STRING)
        return xstrdup(*string != NULL ? *string : "");
    json_writer_init(&w, &text, 0);
    protojson_write_value(&w, field, protojson_at(entry, field->offset), 0);
    if (text.n > 2 && text.p[0] == '"')
        return xstrndup((const char *)text.p + 1, text.n - 2);
    return buf_steal(&text);
}

struct protojson_entry {
    char *key; /* owned */
    const ProtobufCMessage *message;
};

static int protojson_compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct protojson_entry *)a)->key, ((const struct protojson_entry *)b)->key);
}

/* Entries come in no order on the wire; sorted, the text is the same each time. */
static void protojson_write_map(struct json_writer *w, const ProtobufCMessage *const *entries, size_t count,
                                unsigned flags)
{
    struct protojson_entry *sorted = xcalloc(count + 1, sizeof *sorted);

    for (size_t i = 0; i < count; i++)
        sorted[i] = (struct protojson_entry){ protojson_entry_key(entries[i]), entries[i] };
    qsort(sorted, count, sizeof *sorted, protojson_compare_entries);
    json_write_object(w);
    for (size_t i = 0; i < count; i++) {
        const ProtobufCFieldDescriptor *value = &sorted[i].message->descriptor->fields[1];
        const void *p = protojson_at(sorted[i].message, value->offset);
        json_write_key(w, sorted[i].key);
        if (value->type == PROTOBUF_C_TYPE_MESSAGE && *(const ProtobufCMessage *const *)p == NULL) {
            json_write_object(w);
            json_write_end(w);
        } else {
            protojson_write_value(w, value, p, flags);
        }
        free(sorted[i].key);
    }
    json_write_end(w);
    free(sorted);
}

static void protojson_write_repeated(struct json_writer *w, const ProtobufCFieldDescriptor *field,
                                     const ProtobufCMessage *message, unsigned flags)
{
    size_t count = *(const size_t *)protojson_at(message, field->quantifier_offset);
    const char *const *elements = protojson_at(message, field->offset);

    if (protojson_is_map(field)) {
        protojson_write_map(w, (const ProtobufCMessage *const *)(const void *)*elements, count, flags);
        return;
    }
    json_write_array(w);
    for (size_t i = 0; i < count; i++)
        protojson_write_value(w, field, *elements + i * protojson_element_size(field->type), flags);
    json_write_end(w);
}

/* Is the field's value set, or for proto3's scalars, another than zero? */
static bool protojson_is_set(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message)
{
    static const char zero[8];
    const void *p = protojson_at(message, field->offset);
    const char *const *string = p;

    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0)
        return *(const uint32_t *)protojson_at(message, field->quantifier_offset) == field->id;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return *string != NULL;
    if (field->label == PROTOBUF_C_LABEL_REQUIRED)
        return true;
    if (field->type == PROTOBUF_C_TYPE_STRING)
        return *string != NULL && (field->label == PROTOBUF_C_LABEL_OPTIONAL || **string != '\0');
    if (field->label == PROTOBUF_C_LABEL_OPTIONAL)
        return *(const protobuf_c_boolean *)protojson_at(message, field->quantifier_offset) != 0;
    if (field->type == PROTOBUF_C_TYPE_BYTES)
        return ((const ProtobufCBinaryData *)p)->len > 0;
    return memcmp(p, zero, protojson_element_size(field->type)) != 0;
}

static bool protojson_has_presence(const ProtobufCFieldDescriptor *field)
{
    return field->type == PROTOBUF_C_TYPE_MESSAGE || field->label == PROTOBUF_C_LABEL_OPTIONAL ||
           (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
}

void protojson_write(struct json_writer *w, const ProtobufCMessage *message, unsigned flags)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    char name[PROTOJSON_NAME_MAX];

    json_write_object(w);
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        bool defaults = (flags & PROTOJSON_EMIT_DEFAULTS) != 0;
        const char *key = (flags & PROTOJSON_PROTO_NAMES) != 0 ? field->name : protojson_name(field, name);
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            if (!defaults && *(const size_t *)protojson_at(message, field->quantifier_offset) == 0)
                continue;
            json_write_key(w, key);
            protojson_write_repeated(w, field, message, flags);
        } else if (protojson_is_set(field, message) || (defaults && !protojson_has_presence(field))) {
            json_write_key(w, key);
            protojson_write_value(w, field, protojson_at(message, field->offset), flags);
        }
    }
    json_write_end(w);
}

/* ---- reading ---- */

struct protojson_reader {
    struct arena *arena;
    unsigned flags;
    struct status *err;
};

static ProtobufCMessage *protojson_read_message(const struct protojson_reader *r,
                                                const ProtobufCMessageDescriptor *descriptor, const struct json *j);

/* The same name but for underscores and case: podSandboxId, pod_sandbox_id, PodSandboxId. */
static bool protojson_same_name(const char *a, const char *b)
{
    for (;; a++, b++) {
        while (*a == '_')
            a++;
        while (*b == '_')
            b++;
        char x = *a >= 'A' && *a <= 'Z' ? (char)(*a | 0x20) : *a;
        char y = *b >= 'A' && *b <= 'Z' ? (char)(*b | 0x20) : *b;
        if (x != y)
            return false;
        if (x == '\0')
            return true;
    }
}

static const ProtobufCFieldDescriptor *protojson_find(const ProtobufCMessageDescriptor *descriptor, const char *key)
{
    for (unsigned i = 0; i < descriptor->n_fields; i++)
        if (strcmp(descriptor->fields[i].name, key) == 0)
            return &descriptor->fields[i];
    for (unsigned i = 0; i < descriptor->n_fields; i++)
        if (protojson_same_name(descriptor->fields[i].name, key))
            return &descriptor->fields[i];
    return NULL;
}

static bool protojson_unknown(const struct protojson_reader *r, const ProtobufCMessageDescriptor *descriptor,
                              const struct json *member)
{
    struct nearest nearest = nearest_start(member->key);
    char hint[128];

    for (unsigned i = 0; i < descriptor->n_fields; i++)
        nearest_offer(&nearest, descriptor->fields[i].name);
    return json_fail(member, r->err, "no such field in %s%s", descriptor->short_name,
                     nearest_hint(&nearest, hint, sizeof hint));
}

/* Numbers may come as strings: that is how 64-bit ones are written. */
static const struct json *protojson_number(const struct json *j, struct json *copy)
{
    if (j->type != JSON_STRING || !json_is_number(json_bytes(j)))
        return j;
    *copy = *j;
    copy->type = JSON_NUMBER;
    return copy;
}

static bool protojson_read_real(const struct protojson_reader *r, const struct json *j, double *out)
{
    struct json copy;

    if (j->type == JSON_STRING && str_eq(json_bytes(j), "NaN"))
        *out = (double)NAN;
    else if (j->type == JSON_STRING && str_eq(json_bytes(j), "Infinity"))
        *out = (double)INFINITY;
    else if (j->type == JSON_STRING && str_eq(json_bytes(j), "-Infinity"))
        *out = -(double)INFINITY;
    else
        return json_as_double(protojson_number(j, &copy), out, r->err);
    return true;
}

static bool protojson_read_integer(const struct protojson_reader *r, ProtobufCType type, const struct json *j, void *p)
{
    struct json copy;
    int64_t i = 0;
    uint64_t u = 0;

    j = protojson_number(j, &copy);
    switch (type) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        if (!json_as_u64(j, UINT32_MAX, &u, r->err))
            return false;
        *(uint32_t *)p = (uint32_t)u;
        return true;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return json_as_u64(j, UINT64_MAX, p, r->err);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return json_as_i64(j, INT64_MIN, INT64_MAX, p, r->err);
    default:
        if (!json_as_i64(j, INT32_MIN, INT32_MAX, &i, r->err))
            return false;
        *(int32_t *)p = (int32_t)i;
        return true;
    }
}

static bool protojson_read_enum(const struct protojson_reader *r, const ProtobufCEnumDescriptor *descriptor,
                                const struct json *j, int *out)
{
    int64_t number;
    char hint[128];

    if (j->type == JSON_NUMBER) {
        if (!json_as_i64(j, INT32_MIN, INT32_MAX, &number, r->err))
            return false;
        *out = (int)number;
        return true;
    }
    if (!json_want(j, JSON_STRING, r->err))
        return false;
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value_by_name(descriptor, j->text);
    if (value != NULL) {
        *out = value->value;
        return true;
    }
    struct nearest nearest = nearest_start(j->text);
    for (unsigned i = 0; i < descriptor->n_value_names; i++)
        nearest_offer(&nearest, descriptor->values_by_name[i].name);
    return json_fail(j, r->err, "%.64s is no %s%s", j->text, descriptor->short_name,
                     nearest_hint(&nearest, hint, sizeof hint));
}

static bool protojson_read_binary(const struct protojson_reader *r, const struct json *j, ProtobufCBinaryData *out)
{
    cleanup_buf struct buf decoded = BUF_INIT;
    struct str text = json_bytes(j);

    if (!json_want(j, JSON_STRING, r->err))
        return false;
    if ((r->flags & PROTOJSON_BYTES_AS_TEXT) == 0) {
        if (!base64_decode(text, &decoded))
            return json_fail(j, r->err, "wanted bytes as base64");
        text = (struct str){ (const char *)decoded.p, decoded.n };
    }
    out->data = text.n > 0 ? arena_memdup(r->arena, text.p, text.n) : NULL;
    out->len = text.n;
    return true;
}

static bool protojson_read_value(const struct protojson_reader *r, const ProtobufCFieldDescriptor *field,
                                 const struct json *j, void *p)
{
    double real = 0;
    bool boolean = false;
    const char *string;

    switch (field->type) {
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        if (!protojson_read_real(r, j, &real))
            return false;
        if (field->type == PROTOBUF_C_TYPE_FLOAT)
            *(float *)p = (float)real;
        else
            *(double *)p = real;
        return true;
    case PROTOBUF_C_TYPE_BOOL:
        if (!json_as_bool(j, &boolean, r->err))
            return false;
        *(protobuf_c_boolean *)p = boolean;
        return true;
    case PROTOBUF_C_TYPE_ENUM:
        return protojson_read_enum(r, field->descriptor, j, p);
    case PROTOBUF_C_TYPE_STRING:
        if (!json_as_string(j, &string, r->err))
            return false;
        *(char **)p = arena_strdup(r->arena, string);
        return true;
    case PROTOBUF_C_TYPE_BYTES:
        return protojson_read_binary(r, j, p);
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)p = protojson_read_message(r, field->descriptor, j);
        return *(ProtobufCMessage **)p != NULL;
    default:
        return protojson_read_integer(r, field->type, j, p);
    }
}

/* A key of a JSON object as a map's key: the reader of values takes it from a node of its own. */
static bool protojson_read_key(const struct protojson_reader *r, const ProtobufCFieldDescriptor *field,
                               const struct json *member, void *p)
{
    struct json key = *member;

    key.type = JSON_STRING;
    key.text = member->key;
    key.length = strlen(member->key);
    if (field->type == PROTOBUF_C_TYPE_BOOL && (strcmp(key.text, "true") == 0 || strcmp(key.text, "false") == 0)) {
        key.type = JSON_BOOL;
        key.boolean = key.text[0] == 't';
    }
    return protojson_read_value(r, field, &key, p);
}

static bool protojson_read_map(const struct protojson_reader *r, const ProtobufCFieldDescriptor *field,
                               const struct json *j, ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *descriptor = field->descriptor;
    size_t n = 0;

    if (!json_want(j, JSON_OBJECT, r->err))
        return false;
    ProtobufCMessage **entries = ARENA_ARRAY(r->arena, ProtobufCMessage *, j->count);
    for (JSON_EACH(member, j)) {
        ProtobufCMessage *entry = arena_alloc(r->arena, descriptor->sizeof_message);
        protobuf_c_message_init(descriptor, entry);
        const ProtobufCFieldDescriptor *key = &descriptor->fields[0], *value = &descriptor->fields[1];
        if (!protojson_read_key(r, key, member, (char *)entry + key->offset) ||
            !protojson_read_value(r, value, member, (char *)entry + value->offset))
            return false;
        entries[n++] = entry;
    }
    *(size_t *)(void *)((char *)message + field->quantifier_offset) = n;
    *(ProtobufCMessage ***)(void *)((char *)message + field->offset) = n > 0 ? entries : NULL;
    return true;
}

static bool protojson_read_repeated(const struct protojson_reader *r, const ProtobufCFieldDescriptor *field,
                                    const struct json *j, ProtobufCMessage *message)
{
    size_t size = protojson_element_size(field->type), n = 0;

    if (!json_want(j, JSON_ARRAY, r->err))
        return false;
    char *elements = arena_alloc(r->arena, size * j->count);
    for (JSON_EACH(element, j))
        if (!protojson_read_value(r, field, element, elements + size * n++))
            return false;
    *(size_t *)(void *)((char *)message + field->quantifier_offset) = n;
    *(char **)(void *)((char *)message + field->offset) = n > 0 ? elements : NULL;
    return true;
}

static bool protojson_read_field(const struct protojson_reader *r, const ProtobufCFieldDescriptor *field,
                                 const struct json *j, ProtobufCMessage *message)
{
    void *quantifier = (char *)message + field->quantifier_offset;

    if (protojson_is_map(field))
        return protojson_read_map(r, field, j, message);
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return protojson_read_repeated(r, field, j, message);
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        if (*(uint32_t *)quantifier != 0)
            return json_fail(j, r->err, "another field of the same choice is given too");
        *(uint32_t *)quantifier = field->id;
    } else if (field->label == PROTOBUF_C_LABEL_OPTIONAL && field->type != PROTOBUF_C_TYPE_MESSAGE &&
               field->type != PROTOBUF_C_TYPE_STRING) {
        *(protobuf_c_boolean *)quantifier = true;
    }
    return protojson_read_value(r, field, j, (char *)message + field->offset);
}

static ProtobufCMessage *protojson_read_message(const struct protojson_reader *r,
                                                const ProtobufCMessageDescriptor *descriptor, const struct json *j)
{
    if (!json_want(j, JSON_OBJECT, r->err))
        return NULL;
    ProtobufCMessage *message = arena_alloc(r->arena, descriptor->sizeof_message);
    protobuf_c_message_init(descriptor, message);
    for (JSON_EACH(member, j)) {
        const ProtobufCFieldDescriptor *field = protojson_find(descriptor, member->key);
        if (field == NULL && (r->flags & PROTOJSON_IGNORE_UNKNOWN) != 0)
            continue;
        if (field == NULL) {
            protojson_unknown(r, descriptor, member);
            return NULL;
        }
        if (member->type != JSON_NULL && !protojson_read_field(r, field, member, message))
            return NULL;
    }
    return message;
}

ProtobufCMessage *protojson_read(struct arena *arena, const ProtobufCMessageDescriptor *descriptor,
                                 const struct json *j, unsigned flags, struct status *err)
{
    struct protojson_reader r = { arena, flags, err };

    return protojson_read_message(&r, descriptor, j);
}

#undef PROTOJSON_NAME_MAX
