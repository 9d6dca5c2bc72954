/* SPDX-License-Identifier: Apache-2.0 */
/* pb.h: protobuf messages that we own and change: copies, strings, labels, list entries. */
#ifndef RPC_PB_H
#define RPC_PB_H

#include "base/base.h"

#include <protobuf-c/protobuf-c.h>

/* A deep copy, through its encoding; free with protobuf_c_message_free_unpacked(m, NULL). */
ProtobufCMessage *pb_copy(const ProtobufCMessage *message);
/* Replaces a string field of an unpacked message. */
void pb_set(char **field, const char *value);

/* The value of a label or annotation; NULL when absent. Works on any map<string, string> field: all its entry types
 * have one layout. */
const char *pb_label(size_t count, void *entries, const char *key);
/* Whether every pair of `wanted` is among `have`. */
bool pb_labels_match(size_t wanted_count, void *wanted, size_t have_count, void *have);

/* Encodes `message` as an element of the repeated field 1: what all list responses of CRI consist of. */
void pb_encode_item(const ProtobufCMessage *message, struct buf *out);

#endif
