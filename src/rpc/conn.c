/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/conn.h"

/* ---- what h2 says, handed to the call or request ---- */

static struct rpc_stream *rpc_conn_stream(struct h2_stream *s)
{
    return (struct rpc_stream *)(void *)s; /* the first member */
}

static struct h2_stream *rpc_conn_on_request(void *arg)
{
    struct rpc_conn *conn = arg;

    if (conn->methods == NULL)
        return NULL;
    if (conn->abandoned >= RPC_ABANDONED_MAX) {
        log_warn("%s: %zu calls were given up by the client and are not finished yet; refusing another", h2_peer(conn->h2),
                 conn->abandoned);
        return NULL;
    }
    return &rpc_call_open(conn)->h2;
}

static void rpc_conn_on_header(struct h2_stream *h2s, nghttp2_rcbuf *name, nghttp2_rcbuf *value)
{
    struct rpc_stream *s = rpc_conn_stream(h2s);

    s->ops->on_header(s, name, value);
}

static void rpc_conn_on_headers(struct h2_stream *h2s)
{
    struct rpc_stream *s = rpc_conn_stream(h2s);

    s->holds++;
    s->ops->on_headers(s);
    s->holds--;
    s->ops->unhold(s);
}

static void rpc_conn_on_data(struct h2_stream *h2s, const uint8_t *p, size_t n)
{
    rpc_inbound_data(rpc_conn_stream(h2s), p, n);
}

static void rpc_conn_on_end(struct h2_stream *h2s)
{
    rpc_inbound_end(rpc_conn_stream(h2s));
}

static void rpc_conn_on_drained(struct h2_stream *h2s)
{
    struct rpc_stream *s = rpc_conn_stream(h2s);

    s->holds++;
    s->ops->on_writable(s);
    s->holds--;
    s->ops->unhold(s);
}

static void rpc_conn_on_stream_close(struct h2_stream *h2s, uint32_t code)
{
    struct rpc_stream *s = rpc_conn_stream(h2s);

    s->holds++;
    s->ops->on_close(s, code);
    s->holds--;
    s->ops->unhold(s);
}

static void rpc_conn_on_quiet(void *arg)
{
    struct rpc_conn *conn = arg;

    rpc_call_pool_free(conn);
    for (LIST_EACH(struct rpc_stream, s, &conn->streams, link))
        if (s->in.n == 0 && s->holds == 0)
            buf_free(&s->in);
}

static void rpc_conn_on_close(void *arg, const struct status *err)
{
    struct rpc_conn *conn = arg;

    if (conn->options.on_close != NULL)
        conn->options.on_close(conn->options.arg, err);
}

static const struct h2_ops rpc_conn_ops = {
    .on_request = rpc_conn_on_request,
    .on_header = rpc_conn_on_header,
    .on_headers = rpc_conn_on_headers,
    .on_data = rpc_conn_on_data,
    .on_end = rpc_conn_on_end,
    .on_drained = rpc_conn_on_drained,
    .on_stream_close = rpc_conn_on_stream_close,
    .on_quiet = rpc_conn_on_quiet,
    .on_close = rpc_conn_on_close,
};

/* ---- the connection ---- */

static struct rpc_conn *rpc_conn_make(struct loop *loop, struct stream *stream, const struct rpc_conn_options *options,
                                      const struct rpc_methods *shared, struct str early)
{
    struct rpc_conn *conn = xcalloc(1, sizeof *conn);

    conn->loop = loop;
    conn->options = *options;
    conn->methods = shared;
    list_init(&conn->streams);
    list_init(&conn->unstarted);
    if (shared == NULL && options->services != NULL)
        conn->methods = conn->own_methods = rpc_methods_new(options->services);
    struct h2_options h2_options = {
        .server = conn->methods != NULL,
        .keepalive_ms = options->keepalive_ms,
        .keepalive_timeout_ms = options->keepalive_timeout_ms,
        .budget = options->budget,
        .ops = &rpc_conn_ops,
        .arg = conn,
    };
    conn->h2 = h2_new(loop, stream, &h2_options, early);
    return conn;
}

struct rpc_conn *rpc_conn_new(struct loop *loop, struct stream *stream, const struct rpc_conn_options *options,
                              struct str early)
{
    return rpc_conn_make(loop, stream, options, NULL, early);
}

struct rpc_conn *rpc_conn_new_shared(struct loop *loop, struct stream *stream, const struct rpc_conn_options *options,
                                     const struct rpc_methods *methods, struct str early)
{
    return rpc_conn_make(loop, stream, options, methods, early);
}

void rpc_conn_shutdown(struct rpc_conn *conn)
{
    h2_shutdown(conn->h2);
}

void rpc_conn_bytes(const struct rpc_conn *conn, uint64_t *received, uint64_t *sent)
{
    h2_bytes(conn->h2, received, sent);
}

size_t rpc_conn_active(const struct rpc_conn *conn)
{
    return h2_open_streams(conn->h2);
}

struct stream *rpc_conn_carrier(const struct rpc_conn *conn)
{
    return h2_carrier(conn->h2);
}

void rpc_conn_free(struct rpc_conn *conn)
{
    struct list ending;
    bool server;

    if (conn == NULL)
        return;
    server = conn->methods != NULL;
    deferred_stop(&conn->fail);
    h2_free(conn->h2);
    rpc_call_pool_free(conn);
    rpc_methods_free(conn->own_methods);
    /* What ends now may start or end others: nothing of it may find the connection. */
    list_init(&ending);
    while (!list_empty(&conn->unstarted)) {
        struct list *link = conn->unstarted.next;
        list_remove(link);
        list_append(&conn->streams, link);
    }
    while (!list_empty(&conn->streams)) {
        struct rpc_stream *s = CONTAINER_OF(conn->streams.next, struct rpc_stream, link);
        list_remove(&s->link);
        list_append(&ending, &s->link);
        s->conn = NULL;
    }
    free(conn);
    while (!list_empty(&ending)) {
        struct rpc_stream *s = CONTAINER_OF(ending.next, struct rpc_stream, link);
        list_remove(&s->link);
        if (server)
            rpc_call_connection_gone(s);
        else
            rpc_request_connection_gone(s);
    }
}
