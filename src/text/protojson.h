/* SPDX-License-Identifier: Apache-2.0 */
/* protojson.h: any protobuf message to and from JSON by its descriptor, by protobuf's JSON mapping
 * (protobuf.dev/programming-guides/json): camelCase names, 64-bit integers as strings, enums by name, bytes as base64,
 * maps as objects. Reading also takes snake_case names, enum numbers and 64-bit integers as numbers.
 * The descriptors must carry names: messages generated with optimize_for = CODE_SIZE do not. */
#ifndef TEXT_PROTOJSON_H
#define TEXT_PROTOJSON_H

#include "text/json.h"

#include <protobuf-c/protobuf-c.h>

/* ---- writing ---- */
#define PROTOJSON_EMIT_DEFAULTS 1u /* also fields that are zero or empty (messages and oneofs only when set) */
#define PROTOJSON_TEXT_BYTES 2u    /* bytes as text where they are UTF-8, else base64: for people */
#define PROTOJSON_PROTO_NAMES 16u  /* names as in the .proto file: snake_case */
void protojson_write(struct json_writer *w, const ProtobufCMessage *message, unsigned flags);

/* ---- reading ---- */
#define PROTOJSON_BYTES_AS_TEXT 4u  /* bytes take their text as it stands (what people write in files), not base64 */
#define PROTOJSON_IGNORE_UNKNOWN 8u /* unknown names are skipped instead of refused */
/* The message and all it holds live on the arena: it must not be freed with protobuf-c. NULL: the error names the path
 * and, for an unknown name, the nearest one known. */
ProtobufCMessage *protojson_read(struct arena *arena, const ProtobufCMessageDescriptor *descriptor, const struct json *j,
                                 unsigned flags, struct status *err);

#endif
