/* SPDX-License-Identifier: Apache-2.0 */
#include "node/stream_token.h"

#include "rpc/pb.h"

static void stream_tokens_on_expiry(void *arg);

void stream_tokens_init(struct stream_tokens *tokens, struct loop *loop)
{
    tokens->loop = loop;
    list_init(&tokens->items);
}

ProtobufCMessage *stream_tokens_use(struct stream_tokens *tokens, struct stream_token *token)
{
    ProtobufCMessage *request = token->request;

    list_remove(&token->link);
    tokens->count--;
    tokens->bytes -= token->bytes;
    free(token);
    return request;
}

static void stream_tokens_drop(struct stream_tokens *tokens, struct stream_token *token)
{
    protobuf_c_message_free_unpacked(stream_tokens_use(tokens, token), NULL);
}

/* What nobody came for goes, its memory too, without waiting for the next request. */
static void stream_tokens_expire(struct stream_tokens *tokens)
{
    int64_t now = clock_mono_ms();

    while (!list_empty(&tokens->items)) {
        struct stream_token *oldest = CONTAINER_OF(tokens->items.next, struct stream_token, link);
        if (oldest->expires_ms > now) {
            timer_start(tokens->loop, &tokens->expiry, oldest->expires_ms - now, stream_tokens_on_expiry, tokens);
            return;
        }
        stream_tokens_drop(tokens, oldest);
    }
    timer_stop(&tokens->expiry);
}

static void stream_tokens_on_expiry(void *arg)
{
    stream_tokens_expire(arg);
}

void stream_tokens_free(struct stream_tokens *tokens)
{
    if (tokens->loop == NULL)
        return;
    while (!list_empty(&tokens->items))
        stream_tokens_drop(tokens, CONTAINER_OF(tokens->items.next, struct stream_token, link));
    timer_stop(&tokens->expiry);
}

const struct stream_token *stream_tokens_add(struct stream_tokens *tokens, enum stream_kind kind,
                                             const ProtobufCMessage *request, struct status *err)
{
    size_t bytes = protobuf_c_message_get_packed_size(request);

    stream_tokens_expire(tokens);
    if (tokens->count >= STREAM_TOKENS_MAX || bytes > STREAM_TOKENS_BYTES_MAX - tokens->bytes) {
        status_set(err, STATUS_RESOURCE_EXHAUSTED,
                   "too many streams were asked for (%zu) that nobody has opened: each is dropped after %d s", tokens->count,
                   STREAM_TOKEN_MS / 1000);
        return NULL;
    }
    struct stream_token *token = xcalloc(1, sizeof *token);
    token->kind = kind;
    token->request = pb_copy(request);
    token->bytes = bytes;
    token->expires_ms = clock_mono_ms() + STREAM_TOKEN_MS;
    random_id(token->text);
    list_append(&tokens->items, &token->link);
    tokens->count++;
    tokens->bytes += bytes;
    if (!timer_running(&tokens->expiry))
        timer_start(tokens->loop, &tokens->expiry, STREAM_TOKEN_MS, stream_tokens_on_expiry, tokens);
    return token;
}

struct stream_token *stream_tokens_find(struct stream_tokens *tokens, enum stream_kind kind, const char *text)
{
    struct stream_token *found = NULL;
    size_t n = strlen(text);

    stream_tokens_expire(tokens);
    for (LIST_EACH(struct stream_token, token, &tokens->items, link)) {
        bool same = bytes_equal_constant_time(text, n, token->text, ID_LENGTH);
        if (same && token->kind == kind)
            found = token;
    }
    return found;
}
