/* SPDX-License-Identifier: Apache-2.0 */
/* decode.h: protobuf messages from the wire into protobuf-c's structures, in an arena: one pass, no allocation a field,
 * bounded in depth and in memory (RPC_NESTING_MAX, RPC_DECODED_MAX) whatever the input.
 *
 * As protobuf_c_message_unpack(), but: strings that are no UTF-8 or hold a NUL byte are refused, unknown fields are
 * dropped, and required fields (proto2) are not checked, for there are none. */
#ifndef RPC_DECODE_H
#define RPC_DECODE_H

#include "base/base.h"

#include <protobuf-c/protobuf-c.h>

/* `borrow`: fields of type bytes point into the input, which must outlive the message; else they are copied.
 * The message lives as long as the arena. NULL when malformed (INVALID_ARGUMENT, names the field) or too large
 * (RESOURCE_EXHAUSTED). */
ProtobufCMessage *rpc_decode(const ProtobufCMessageDescriptor *type, const void *p, size_t n, bool borrow,
                             struct arena *arena, struct status *err);

#endif
