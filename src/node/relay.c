/* SPDX-License-Identifier: Apache-2.0 */
#include "node/relay.h"

#include <libgen.h>
#include <strings.h>

#include "http/server.h"
#include "io/file.h"
#include "io/socket.h"
#include "rpc/dial.h"

/* Longer ids are not ours. */
#define RELAY_ID_MAX 128

struct relay {
    struct loop *loop;
    struct relay_options options; /* strings not kept */
    struct tls_identity *identity;
    struct http_server *server;
    struct listener unix_listener, tcp_listener;
    uint16_t port;
};

static int relay_http_status(enum status_code code)
{
    return code == STATUS_FAILED_PRECONDITION ? 410 : http_from_status_code(code);
}

static bool relay_id_valid(const char *id)
{
    size_t n = strspn(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.");

    return n > 0 && n <= RELAY_ID_MAX && id[n] == '\0';
}

/* The token of "Authorization: Bearer TOKEN"; NULL when there is none. */
static const char *relay_token(const struct http_exchange *x)
{
    const char *value = http_exchange_header(x, "Authorization");

    if (value == NULL || strncasecmp(value, "Bearer ", 7) != 0)
        return NULL;
    value += 7;
    value += strspn(value, " ");
    return *value != '\0' ? value : NULL;
}

static void relay_on_agent(void *context, struct http_exchange *x)
{
    struct relay *relay = context;
    struct status err = STATUS_INIT;
    cleanup_buf struct buf early = BUF_INIT;
    const char *id = http_exchange_header(x, DIAL_SANDBOX_HEADER), *token = relay_token(x);

    if (!http_exchange_wants_upgrade(x, DIAL_PROTOCOL)) {
        const struct http_header header = { "Upgrade", DIAL_PROTOCOL };
        static const char text[] = "agents upgrade to " DIAL_PROTOCOL " here\n";
        http_reply(x, 426, &header, 1, text, sizeof text - 1);
        return;
    }
    if (id == NULL || !relay_id_valid(id)) {
        http_replyf(x, 400, DIAL_SANDBOX_HEADER " is missing or malformed");
        return;
    }
    if (token == NULL) {
        http_replyf(x, 401, "a bearer token is required");
        return;
    }
    if (!relay->options.authorise(relay->options.arg, id, token, &err)) {
        log_warn("relay: agent of sandbox %s from %s refused: %s", id, http_exchange_peer(x), err.message);
        http_replyf(x, relay_http_status(err.code), "%s", err.message);
        return;
    }
    char sandbox_id[RELAY_ID_MAX + 1]; /* the exchange and its strings end with the upgrade */
    snprintf(sandbox_id, sizeof sandbox_id, "%s", id);
    struct stream *stream = http_exchange_upgrade(x, DIAL_PROTOCOL, NULL, 0, &early);
    if (stream != NULL)
        relay->options.on_agent(relay->options.arg, sandbox_id, stream, (struct str){ buf_cstr(&early), early.n });
}

static void relay_on_health(void *context, struct http_exchange *x)
{
    (void)context;
    http_reply_text(x, 200, "text/plain; charset=utf-8", STR("ok\n"));
}

static const struct http_route relay_routes[] = {
    { "GET", DIAL_PATH, 0, false, relay_on_agent },
    { "GET", "/healthz", 0, false, relay_on_health },
};

static void relay_on_accept_unix(void *arg, int fd)
{
    struct relay *relay = arg;

    http_server_accept_fd(relay->server, fd);
}

void relay_accept(struct relay *relay, struct stream *stream)
{
    struct status err = STATUS_INIT;

    /* Before a handshake is begun, for it costs most. */
    if (http_server_connections(relay->server) >= RELAY_PENDING_MAX) {
        log_warn("relay: %s turned away: too many connections have not proved yet who they are", stream->peer);
        stream_free(stream);
        return;
    }
    stream = tls_server(relay->loop, stream, relay->identity, RELAY_HEAD_TIMEOUT_MS, &err);
    if (stream != NULL)
        http_server_accept(relay->server, stream);
    else
        log_warn("relay: %s", err.message);
}

static void relay_on_accept_tcp(void *arg, int fd)
{
    struct relay *relay = arg;
    struct status err = STATUS_INIT;
    struct stream *stream = stream_of_fd(relay->loop, fd, &err);

    if (stream != NULL)
        relay_accept(relay, stream);
    else
        log_warn("relay: %s", err.message);
}

static bool relay_listen_unix(struct relay *relay, const char *path, struct status *err)
{
    struct address address;
    cleanup_free char *copy = NULL;

    if (!address_parse(path, &address, err))
        return false;
    if (!address.is_unix)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s is not a path", path);
    copy = xstrdup(address.path);
    return dir_make(dirname(copy), 0700, err) &&
           listener_open(relay->loop, &relay->unix_listener, &address, 0600, relay_on_accept_unix, relay, NULL, err);
}

static bool relay_listen_tcp(struct relay *relay, const char *text, struct status *err)
{
    struct address address;

    if (!address_parse(text, &address, err))
        return false;
    if (address.is_unix || relay->identity == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: agents reach the relay by TCP with TLS only: host:port and a key "
                          "are needed", text);
    return listener_open(relay->loop, &relay->tcp_listener, &address, 0, relay_on_accept_tcp, relay, &relay->port, err);
}

struct relay *relay_start(struct loop *loop, const struct relay_options *options, struct status *err)
{
    struct relay *relay = xcalloc(1, sizeof *relay);
    const struct http_server_options server = {
        .routes = relay_routes,
        .route_count = COUNT_OF(relay_routes),
        .context = relay,
        .connections_max = RELAY_PENDING_MAX,
        .head_timeout_ms = RELAY_HEAD_TIMEOUT_MS,
        .idle_timeout_ms = RELAY_HEAD_TIMEOUT_MS,
    };

    relay->loop = loop;
    relay->options = *options;
    relay->identity = options->identity != NULL ? tls_identity_ref(options->identity) : NULL;
    relay->server = http_server_new(loop, &server);
    relay->unix_listener.fd = relay->tcp_listener.fd = -1;
    bool has_unix = options->unix_path != NULL && *options->unix_path != '\0';
    bool has_tcp = options->listen != NULL && *options->listen != '\0';
    if ((has_unix && !relay_listen_unix(relay, options->unix_path, err)) ||
        (has_tcp && !relay_listen_tcp(relay, options->listen, err))) {
        status_prefix(err, "relay");
        relay_free(relay);
        return NULL;
    }
    relay->options.unix_path = relay->options.listen = NULL;
    return relay;
}

uint16_t relay_port(const struct relay *relay)
{
    return relay->port;
}

void relay_free(struct relay *relay)
{
    if (relay == NULL)
        return;
    listener_close(&relay->unix_listener);
    listener_close(&relay->tcp_listener);
    http_server_free(relay->server);
    tls_identity_free(relay->identity);
    free(relay);
}
