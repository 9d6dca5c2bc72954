/* SPDX-License-Identifier: Apache-2.0 */
/* Sources: k8s.io/kubelet/pkg/cri/streaming, RFC 6455 section 4, KEP-4006. */
#include "node/stream_upgrade.h"

#include "http/websocket.h"

#define STREAM_SPDY "SPDY/3.1"
#define STREAM_SPDY_HEADER "X-Stream-Protocol-Version"
#define STREAM_WEBSOCKET "websocket"
#define STREAM_WEBSOCKET_HEADER "Sec-WebSocket-Protocol"

/* Best first: a client that offers several gets the first of these. */
static const struct stream_protocol stream_command_spdy[] = {
    { "v4.channel.k8s.io", CHANNEL_SPDY, 4 },
    { "v3.channel.k8s.io", CHANNEL_SPDY, 3 },
    { "v2.channel.k8s.io", CHANNEL_SPDY, 2 },
    { "channel.k8s.io", CHANNEL_SPDY, 1 },
};
static const struct stream_protocol stream_command_websocket[] = {
    { "v5.channel.k8s.io", CHANNEL_WEBSOCKET, 5 },
    { "v4.channel.k8s.io", CHANNEL_WEBSOCKET, 4 },
    { "v4.base64.channel.k8s.io", CHANNEL_WEBSOCKET_BASE64, 4 },
    { "channel.k8s.io", CHANNEL_WEBSOCKET, 1 },
    { "base64.channel.k8s.io", CHANNEL_WEBSOCKET_BASE64, 1 },
    { "", CHANNEL_WEBSOCKET, 1 },
};
static const struct stream_protocol stream_forward_spdy[] = {
    { "portforward.k8s.io", CHANNEL_SPDY, 1 },
};
/* The tunnel's first name is what Kubernetes' documents say, the second what its client sends. */
static const struct stream_protocol stream_forward_websocket[] = {
    { "v2.portforward.k8s.io", CHANNEL_WEBSOCKET_SPDY, 1 },
    { "SPDY/3.1+portforward.k8s.io", CHANNEL_WEBSOCKET_SPDY, 1 },
    { "v4.channel.k8s.io", CHANNEL_WEBSOCKET, 4 },
    { "v4.base64.channel.k8s.io", CHANNEL_WEBSOCKET_BASE64, 4 },
    { "", CHANNEL_WEBSOCKET, 4 },
};

/* One of the table that the client names; NULL: answered 403. */
static const struct stream_protocol *stream_negotiate(struct http_exchange *x, const char *name, const char *accepted,
                                                      const struct stream_protocol *table, size_t count)
{
    cleanup_buf struct buf names = BUF_INIT, text = BUF_INIT;
    bool named = http_exchange_header(x, name) != NULL;

    for (size_t i = 0; i < count; i++) {
        if (*table[i].name == '\0' ? !named : http_exchange_has_token(x, name, table[i].name))
            return &table[i];
        if (*table[i].name != '\0')
            buf_printf(&names, "%s%s", names.n > 0 ? ", " : "", table[i].name);
    }
    buf_printf(&text, "none of the protocols in %s is spoken here; these are: %s\n", name, buf_cstr(&names));
    const struct http_header headers[] = {
        { "Content-Type", "text/plain; charset=utf-8" },
        { accepted, buf_cstr(&names) },
    };
    http_reply(x, 403, headers, COUNT_OF(headers), text.p, text.n);
    return NULL;
}

static void stream_upgrade_required(struct http_exchange *x, int http_status, const char *name, const char *value,
                                    const char *text)
{
    const struct http_header headers[] = { { "Content-Type", "text/plain; charset=utf-8" }, { name, value } };

    http_reply(x, http_status, headers, COUNT_OF(headers), text, strlen(text));
}

/* RFC 6455 section 4.2.1. */
static bool stream_websocket_check(struct http_exchange *x)
{
    const char *version = http_exchange_header(x, "Sec-WebSocket-Version");
    const char *key = http_exchange_header(x, "Sec-WebSocket-Key");

    if (strcmp(http_exchange_method(x), "GET") != 0) {
        http_replyf(x, 400, "a WebSocket is opened with GET");
        return false;
    }
    if (version == NULL || strcmp(version, "13") != 0) {
        stream_upgrade_required(x, 426, "Sec-WebSocket-Version", "13", "WebSocket is spoken here in version 13 only\n");
        return false;
    }
    if (key == NULL || !websocket_key_valid(key)) {
        http_replyf(x, 400, "Sec-WebSocket-Key is missing, or not 16 bytes in base64");
        return false;
    }
    return true;
}

const struct stream_protocol *stream_upgrade_choose(struct http_exchange *x, enum stream_kind kind)
{
    bool forward = kind == STREAM_FORWARD;

    if (strcmp(http_exchange_method(x), "HEAD") == 0) {
        http_replyf(x, 400, "a stream is opened with GET or POST");
        return NULL;
    }
    if (http_exchange_wants_upgrade(x, STREAM_WEBSOCKET)) {
        if (!stream_websocket_check(x))
            return NULL;
        return forward ? stream_negotiate(x, STREAM_WEBSOCKET_HEADER, STREAM_WEBSOCKET_HEADER, stream_forward_websocket,
                                          COUNT_OF(stream_forward_websocket))
                       : stream_negotiate(x, STREAM_WEBSOCKET_HEADER, STREAM_WEBSOCKET_HEADER, stream_command_websocket,
                                          COUNT_OF(stream_command_websocket));
    }
    if (!http_exchange_wants_upgrade(x, STREAM_SPDY)) {
        stream_upgrade_required(x, 426, "Upgrade", STREAM_SPDY ", " STREAM_WEBSOCKET,
                                "this needs a request with Connection: Upgrade, and Upgrade: " STREAM_SPDY
                                " or " STREAM_WEBSOCKET "\n");
        return NULL;
    }
    if (http_exchange_header(x, STREAM_SPDY_HEADER) == NULL) {
        http_replyf(x, 400, "the header " STREAM_SPDY_HEADER " is missing");
        return NULL;
    }
    return forward ? stream_negotiate(x, STREAM_SPDY_HEADER, "X-Accepted-Stream-Protocol-Versions", stream_forward_spdy,
                                      COUNT_OF(stream_forward_spdy))
                   : stream_negotiate(x, STREAM_SPDY_HEADER, "X-Accepted-Stream-Protocol-Versions", stream_command_spdy,
                                      COUNT_OF(stream_command_spdy));
}

struct stream *stream_upgrade(struct http_exchange *x, const struct stream_protocol *protocol, struct buf *early)
{
    bool websocket = protocol->carrier != CHANNEL_SPDY;
    char accept[WEBSOCKET_ACCEPT_SIZE];
    struct http_header headers[2];
    size_t count = 0;

    if (websocket) {
        websocket_accept(http_exchange_header(x, "Sec-WebSocket-Key"), accept);
        headers[count++] = (struct http_header){ "Sec-WebSocket-Accept", accept };
    }
    if (*protocol->name != '\0')
        headers[count++] = (struct http_header){ websocket ? STREAM_WEBSOCKET_HEADER : STREAM_SPDY_HEADER, protocol->name };
    return http_exchange_upgrade(x, websocket ? STREAM_WEBSOCKET : STREAM_SPDY, headers, count, early);
}

#undef STREAM_SPDY
#undef STREAM_SPDY_HEADER
#undef STREAM_WEBSOCKET
#undef STREAM_WEBSOCKET_HEADER
