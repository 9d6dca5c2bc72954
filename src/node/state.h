/* SPDX-License-Identifier: Apache-2.0 */
/* state.h: what must survive: one record an object, one file a record.
 *
 * A record file is: magic "ILCR", version, length, SHA-256 of the message, the protobuf message (state.proto). It is written
 * to a temporary name, fsynced, renamed, and its folder fsynced, by a writer process of ours: the loop never waits for
 * the disk, and records that come close together share one sync of the folder. Operations are carried out in the order
 * given. A writer that dies is started again and repeats what it had not confirmed. */
#ifndef NODE_STATE_H
#define NODE_STATE_H

#include "base/base.h"
#include "io/loop.h"

#include <protobuf-c/protobuf-c.h>

enum state_kind { STATE_SANDBOX, STATE_CONTAINER, STATE_NODE, STATE_KINDS };

struct state;

/* Makes DIR/sandboxes, DIR/containers and DIR/node, 0700, and starts the writer. Takes the lock DIR/lock: FAILED_PRECONDITION when
 * another process holds it. NULL on failure. Must be called before large things are allocated: the writer is a fork. */
struct state *state_open(struct loop *loop, const char *dir, struct status *err);
/* Waits for what was given to the writer, then ends it. NULL is fine. */
void state_close(struct state *state);

/* on_done (may be NULL) hears err == NULL once the record is durable. The message is encoded at once. */
void state_put(struct state *state, enum state_kind kind, const char *id, const ProtobufCMessage *message,
               void (*on_done)(void *arg, const struct status *err), void *arg);
void state_delete(struct state *state, enum state_kind kind, const char *id,
                  void (*on_done)(void *arg, const struct status *err), void *arg);
/* The callbacks with this arg are not called any more; the operations are still carried out. */
void state_forget(struct state *state, const void *arg);

/* Whether records reach the disk: false with the reason when the last one did not, or when one has waited for longer. */
bool state_healthy(const struct state *state, int64_t patience_ms, struct status *err);
size_t state_pending(const struct state *state); /* operations that are not confirmed */

/* Reads every record of a kind; on_record takes the message (free with protobuf_c_message_free_unpacked). A torn or
 * foreign file is moved to DIR/set-aside with a line in the log. For the start: it blocks on the disk. */
bool state_load(struct state *state, enum state_kind kind, const ProtobufCMessageDescriptor *descriptor,
                void (*on_record)(void *arg, ProtobufCMessage *message), void *arg, struct status *err);

/* The record file's form, for the writer, the loader and the tests. */
void state_encode(const ProtobufCMessage *message, struct buf *out);
/* NULL: DATA_LOSS with what is wrong. */
ProtobufCMessage *state_decode(const ProtobufCMessageDescriptor *descriptor, struct str file, struct status *err);

#endif
