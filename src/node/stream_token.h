/* SPDX-License-Identifier: Apache-2.0 */
/* stream_token.h: requests that a client was promised a stream for, each kept under a random token until the client comes
 * for it, once, or a minute has passed. */
#ifndef NODE_STREAM_TOKEN_H
#define NODE_STREAM_TOKEN_H

#include "base/base.h"
#include "io/loop.h"

#include <protobuf-c/protobuf-c.h>

enum stream_kind { STREAM_EXEC, STREAM_ATTACH, STREAM_FORWARD };

struct stream_token {
    struct list link;
    enum stream_kind kind;
    ProtobufCMessage *request; /* owned */
    size_t bytes;              /* of it */
    int64_t expires_ms;        /* monotonic */
    char text[ID_LENGTH + 1];  /* 256 random bits */
};

struct stream_tokens {
    struct loop *loop;
    struct list items; /* oldest first */
    size_t count, bytes;
    struct timer expiry;
};

void stream_tokens_init(struct stream_tokens *tokens, struct loop *loop);
void stream_tokens_free(struct stream_tokens *tokens);
/* Keeps a copy of the request; NULL: RESOURCE_EXHAUSTED. Borrowed until it is used or expires. */
const struct stream_token *stream_tokens_add(struct stream_tokens *tokens, enum stream_kind kind,
                                             const ProtobufCMessage *request, struct status *err);
/* NULL when there is none of that kind. How long it takes tells nothing about how much of the text was right. */
struct stream_token *stream_tokens_find(struct stream_tokens *tokens, enum stream_kind kind, const char *text);
/* The token is gone and the request the caller's. */
ProtobufCMessage *stream_tokens_use(struct stream_tokens *tokens, struct stream_token *token);

#endif
