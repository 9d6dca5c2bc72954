/* SPDX-License-Identifier: Apache-2.0 */
/* port-forward. Source: k8s.io/client-go/tools/portforward (the protocol portforward.k8s.io). */
#include "cli/ctl_stream.h"

#include "io/socket.h"

/* Connections at a time. */
#define CTL_FORWARDS_MAX 256
#define CTL_FORWARD_READ_SIZE (64 << 10)
/* Of an error's words. */
#define CTL_FORWARD_ERROR_MAX 2048

struct ctl_forwarder;

/* One port here and the one it stands for. */
struct ctl_forward_port {
    struct ctl_forwarder *forwarder;
    uint16_t local, remote; /* local 0: any */
    struct listener listeners[2]; /* 127.0.0.1 and ::1 */
};

struct ctl_forwarder {
    struct ctl *ctl;
    struct channel_conn *conn;
    struct ctl_forward_port *ports; /* on the arena */
    size_t port_count;
    struct list connections;
    size_t connection_count;
    unsigned next_id;
    uint8_t *block; /* owned; CTL_FORWARD_READ_SIZE */
    bool closed;
    struct status closed_why;
};

/* One connection: a socket here; a channel for its data and one for words about what went wrong. */
struct ctl_forwarded {
    struct list link;
    struct ctl_forwarder *forwarder;
    const struct ctl_forward_port *port;
    struct stream *stream;        /* owned; NULL once closed */
    struct channel *data, *error; /* NULL: gone */
    struct buf rest;  /* for the socket; the channel is paused meanwhile */
    struct buf words; /* what came of the error channel */
    bool in_over;     /* the socket sends no more */
    bool out_over;    /* the pod sends no more */
    bool told_end;    /* and the socket has been told */
    bool full;        /* the channel does not take more */
    bool paused;      /* the channel, until `rest` is written */
};

/* ---- one connection ---- */

static void ctl_forwarded_close_socket(struct ctl_forwarded *c)
{
    stream_free(c->stream);
    c->stream = NULL;
    buf_clear(&c->rest);
}

/* Frees it once nothing is left of it. */
static void ctl_forwarded_settle(struct ctl_forwarded *c)
{
    if (c->stream != NULL && c->in_over && c->told_end)
        ctl_forwarded_close_socket(c);
    if (c->stream != NULL || c->data != NULL || c->error != NULL)
        return;
    list_remove(&c->link);
    c->forwarder->connection_count--;
    buf_free(&c->rest);
    buf_free(&c->words);
    free(c);
}

static void ctl_forwarded_want(struct ctl_forwarded *c)
{
    if (c->stream != NULL)
        stream_want(c->stream, (c->in_over || c->full || c->data == NULL ? 0 : WATCH_READ) | (c->rest.n > 0 ? WATCH_WRITE : 0));
}

/* The socket is of no use any more, nor is the pod's side of it. */
static void ctl_forwarded_break(struct ctl_forwarded *c)
{
    ctl_forwarded_close_socket(c);
    c->in_over = true;
    if (c->data != NULL)
        channel_reset(c->data); /* on_gone settles it */
    else
        ctl_forwarded_settle(c);
}

/* How much the socket took; SIZE_MAX when it broke, and c may be gone then. */
static size_t ctl_forwarded_put(struct ctl_forwarded *c, const void *p, size_t n)
{
    size_t done = 0;

    while (done < n) {
        ssize_t written = stream_write(c->stream, (const uint8_t *)p + done, n - done);
        if (written == -EAGAIN)
            break;
        if (written <= 0) {
            ctl_forwarded_break(c);
            return SIZE_MAX;
        }
        done += (size_t)written;
    }
    return done;
}

/* False when the socket broke; c may be gone then. */
static bool ctl_forwarded_flush(struct ctl_forwarded *c)
{
    size_t done = ctl_forwarded_put(c, c->rest.p, c->rest.n);

    if (done == SIZE_MAX)
        return false;
    buf_consume(&c->rest, done);
    if (c->rest.n > 0)
        return true;
    if (c->out_over && !c->told_end) {
        stream_shutdown_write(c->stream);
        c->told_end = true;
    }
    if (c->paused && c->data != NULL)
        channel_pause(c->data, false);
    c->paused = false;
    return true;
}

static bool ctl_forwarded_read(struct ctl_forwarded *c)
{
    ssize_t n = stream_read(c->stream, c->forwarder->block, CTL_FORWARD_READ_SIZE);

    if (n == -EAGAIN)
        return true;
    if (n < 0) {
        ctl_forwarded_break(c);
        return false;
    }
    if (n == 0) {
        c->in_over = true;
        channel_end(c->data);
    } else {
        c->full = !channel_send(c->data, c->forwarder->block, (size_t)n);
    }
    return true;
}

static void ctl_forwarded_on_event(void *arg, unsigned events)
{
    struct ctl_forwarded *c = arg;

    if ((events & (WATCH_WRITE | WATCH_HANGUP)) && c->rest.n > 0 && !ctl_forwarded_flush(c))
        return;
    /* What is left of one that hung up is little: it is taken, full or not. */
    if ((events & (WATCH_READ | WATCH_HANGUP)) && !c->in_over && (!c->full || (events & WATCH_HANGUP)) && c->data != NULL &&
        !ctl_forwarded_read(c))
        return;
    if ((events & WATCH_HANGUP) && c->in_over && c->rest.n == 0 && !c->out_over) {
        ctl_forwarded_break(c); /* both ways: nobody will take what the pod still sends */
        return;
    }
    ctl_forwarded_want(c);
    ctl_forwarded_settle(c);
}

static void ctl_forwarded_on_data(void *arg, struct str piece)
{
    struct ctl_forwarded *c = arg;

    if (c->stream == NULL)
        return;
    size_t done = c->rest.n > 0 ? 0 : ctl_forwarded_put(c, piece.p, piece.n);
    if (done == SIZE_MAX || done == piece.n)
        return;
    buf_append(&c->rest, piece.p + done, piece.n - done);
    c->paused = true;
    channel_pause(c->data, true);
    ctl_forwarded_want(c);
}

static void ctl_forwarded_on_data_end(void *arg)
{
    struct ctl_forwarded *c = arg;

    c->out_over = true;
    if (c->stream == NULL || !ctl_forwarded_flush(c))
        return;
    ctl_forwarded_want(c);
}

static void ctl_forwarded_on_writable(void *arg)
{
    struct ctl_forwarded *c = arg;

    c->full = false;
    ctl_forwarded_want(c);
}

/* In peace both ends have had all; else the connection here breaks off, too. */
static void ctl_forwarded_on_data_gone(void *arg, const struct status *err)
{
    struct ctl_forwarded *c = arg;

    c->data = NULL;
    c->in_over = c->out_over = true;
    if (c->stream != NULL && err != NULL)
        ctl_forwarded_close_socket(c);
    else if (c->stream != NULL && !ctl_forwarded_flush(c))
        return;
    ctl_forwarded_want(c);
    ctl_forwarded_settle(c);
}

static void ctl_forwarded_on_error_data(void *arg, struct str piece)
{
    struct ctl_forwarded *c = arg;
    size_t room = CTL_FORWARD_ERROR_MAX - c->words.n;

    buf_append(&c->words, piece.p, piece.n < room ? piece.n : room);
}

static void ctl_forwarded_on_error_gone(void *arg, const struct status *err)
{
    struct ctl_forwarded *c = arg;

    (void)err;
    c->error = NULL;
    if (c->words.n > 0)
        ctl_warn(c->forwarder->ctl, "forwarding %u -> %u: %s", c->port->local, c->port->remote, buf_cstr(&c->words));
    ctl_forwarded_settle(c);
}

static struct channel *ctl_forwarded_open(struct ctl_forwarded *c, const char *type)
{
    char port[8], id[16];
    const struct http_header headers[] = { { "streamtype", type }, { "port", port }, { "requestid", id } };

    snprintf(port, sizeof port, "%u", c->port->remote);
    snprintf(id, sizeof id, "%u", c->forwarder->next_id);
    return channel_open(c->forwarder->conn, headers, COUNT_OF(headers));
}

static void ctl_forward_on_accept(void *arg, int fd)
{
    struct ctl_forward_port *port = arg;
    struct ctl_forwarder *f = port->forwarder;
    struct channel_listener data = { .on_data = ctl_forwarded_on_data, .on_end = ctl_forwarded_on_data_end,
                                     .on_writable = ctl_forwarded_on_writable, .on_gone = ctl_forwarded_on_data_gone };
    struct channel_listener error = { .on_data = ctl_forwarded_on_error_data, .on_gone = ctl_forwarded_on_error_gone };
    struct status err = STATUS_INIT;
    struct stream *stream = stream_of_fd(f->ctl->loop, fd, &err);

    if (stream == NULL || f->connection_count == CTL_FORWARDS_MAX) {
        ctl_warn(f->ctl, "a connection to port %u is closed at once: %s", port->local,
                 stream == NULL ? err.message : "there are too many already");
        stream_free(stream);
        return;
    }
    struct ctl_forwarded *c = xcalloc(1, sizeof *c);
    c->forwarder = f;
    c->port = port;
    c->stream = stream;
    list_append(&f->connections, &c->link);
    f->connection_count++;
    buf_printf(&f->ctl->out, "Handling connection for %u\n", port->local);
    ctl_flush(f->ctl);
    data.arg = error.arg = c;
    c->error = ctl_forwarded_open(c, "error");
    c->data = ctl_forwarded_open(c, "data");
    f->next_id++;
    if (c->error != NULL) {
        channel_listen(c->error, &error);
        channel_end(c->error); /* we have nothing to say on it */
    }
    if (c->data == NULL) {
        ctl_forwarded_break(c);
        return;
    }
    channel_listen(c->data, &data);
    stream_listen(stream, ctl_forwarded_on_event, c);
    ctl_forwarded_want(c);
}

/* ---- the ports ---- */

/* "8080", "8080:80", ":80", "0:80" */
static bool ctl_forward_parse(const char *text, struct ctl_forward_port *out, struct status *err)
{
    const char *colon = strchr(text, ':');
    uint64_t local = 0, remote;
    char first[8] = "";

    if (colon != NULL && (size_t)(colon - text) < sizeof first)
        memcpy(first, text, (size_t)(colon - text));
    bool ok = parse_u64(colon != NULL ? colon + 1 : text, UINT16_MAX, &remote) && remote != 0 &&
              (colon == NULL || colon == text || (*first != '\0' && parse_u64(first, UINT16_MAX, &local)));
    if (!ok)
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.64s\": wanted [LOCAL_PORT:]REMOTE_PORT", text);
    out->local = colon != NULL ? (uint16_t)local : (uint16_t)remote;
    out->remote = (uint16_t)remote;
    return true;
}

/* On 127.0.0.1 and ::1, one of which is enough. */
static bool ctl_forward_listen(struct ctl_forward_port *port, struct status *err)
{
    static const struct {
        const char *host, *shown;
    } places[] = { { "127.0.0.1", "127.0.0.1" }, { "::1", "[::1]" } };
    struct ctl *ctl = port->forwarder->ctl;
    bool any = false;

    for (size_t i = 0; i < COUNT_OF(places); i++) {
        struct address address = { .port = port->local };
        struct status failed = STATUS_INIT;
        uint16_t taken = port->local;
        snprintf(address.host, sizeof address.host, "%s", places[i].host);
        if (listener_open(ctl->loop, &port->listeners[i], &address, 0, ctl_forward_on_accept, port, &taken, &failed)) {
            any = true;
            port->local = taken;
            buf_printf(&ctl->out, "Forwarding from %s:%u -> %u\n", places[i].shown, port->local, port->remote);
        } else if (!any) {
            *err = failed;
        }
    }
    return any;
}

/* ---- the verb ---- */

static void ctl_forward_on_close(void *arg, const struct status *err)
{
    struct ctl_forwarder *f = arg;

    f->closed = true;
    f->closed_why = *err;
}

static bool ctl_forward_connect(struct ctl_forwarder *f, const char *url, struct status *err)
{
    static const char *const spdy[] = { "portforward.k8s.io" };
    static const char *const tunnel[] = { "SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io" };
    struct ctl_upgraded upgraded;
    bool websocket;

    if (!ctl_wants_websocket(f->ctl, &websocket, err))
        return false;
    struct ctl_upgrade wanted = { .url = url, .protocols = websocket ? tunnel : spdy,
                                  .protocol_count = websocket ? COUNT_OF(tunnel) : COUNT_OF(spdy) };
    if (!ctl_upgrade(f->ctl, &wanted, &upgraded, err))
        return false;
    struct channel_conn_options options = { .carrier = websocket ? CHANNEL_WEBSOCKET_SPDY : CHANNEL_SPDY, .client = true,
                                            .on_close = ctl_forward_on_close, .arg = f };
    f->conn = channel_conn_new(f->ctl->loop, upgraded.stream, (struct str){ (const char *)upgraded.early.p, upgraded.early.n },
                               &options);
    buf_free(&upgraded.early);
    return true;
}

static void ctl_forward_free(struct ctl_forwarder *f)
{
    for (size_t i = 0; i < f->port_count; i++)
        for (size_t j = 0; j < COUNT_OF(f->ports[i].listeners); j++)
            listener_close(&f->ports[i].listeners[j]);
    for (LIST_EACH(struct ctl_forwarded, c, &f->connections, link))
        ctl_forwarded_close_socket(c);
    channel_conn_free(f->conn); /* which ends the channels, and so what is left */
    while (!list_empty(&f->connections)) {
        struct ctl_forwarded *c = CONTAINER_OF(f->connections.next, struct ctl_forwarded, link);
        c->data = c->error = NULL;
        ctl_forwarded_settle(c);
    }
    free(f->block);
}

int ctl_port_forward(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    struct ctl_forwarder f = { .ctl = ctl, .port_count = count - 1 };
    Runtime__V1__PortForwardRequest request = RUNTIME__V1__PORT_FORWARD_REQUEST__INIT;
    const Runtime__V1__PortForwardResponse *r;
    bool ok = true;

    list_init(&f.connections);
    f.ports = ARENA_ARRAY(&ctl->arena, struct ctl_forward_port, f.port_count);
    f.block = xmalloc(CTL_FORWARD_READ_SIZE);
    for (size_t i = 0; i < f.port_count && ok; i++) {
        f.ports[i].forwarder = &f;
        ok = ctl_forward_parse(arguments[i + 1], &f.ports[i], &err);
    }
    request.pod_sandbox_id = (char *)(uintptr_t)arguments[0];
    ok = ok && (r = ctl_call(ctl, CTL_RUNTIME, "PortForward", &request, &runtime__v1__port_forward_response__descriptor,
                             CTL_CALL_TIMEOUT_MS, &err)) != NULL &&
         ctl_forward_connect(&f, r->url, &err);
    for (size_t i = 0; i < f.port_count && ok; i++)
        ok = ctl_forward_listen(&f.ports[i], &err);
    ctl_flush(ctl);
    while (ok && !f.closed && ctl_turn(ctl, -1, &err))
        ;
    bool lost = ok && f.closed;
    if (lost)
        status_set(&err, STATUS_UNAVAILABLE, "the connection to the pod is lost%s%s",
                   f.closed_why.code != STATUS_OK ? ": " : "", f.closed_why.message);
    ctl_forward_free(&f);
    /* That it is interrupted is its usual end. */
    return lost || (!ok && !ctl->interrupted) ? ctl_fail(ctl, &err) : 0;
}

#undef CTL_FORWARDS_MAX
#undef CTL_FORWARD_READ_SIZE
#undef CTL_FORWARD_ERROR_MAX
