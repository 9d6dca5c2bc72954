/* SPDX-License-Identifier: Apache-2.0 */
/* A listening server's connections. */
#include "rpc/conn.h"

struct rpc_server_conn {
    struct list link;
    struct rpc_server *server;
    struct rpc_conn *conn; /* owned */
};

struct rpc_server {
    struct loop *loop;
    struct rpc_methods *methods; /* owned */
    struct list conns;           /* of rpc_server_conn.link; owned */
    bool draining;
    struct deferred drained;
    void (*on_drained)(void *arg);
    void *arg;
};

struct rpc_server *rpc_server_new(struct loop *loop, const struct rpc_services *services)
{
    struct rpc_server *server = xcalloc(1, sizeof *server);

    server->loop = loop;
    server->methods = rpc_methods_new(services);
    list_init(&server->conns);
    return server;
}

static void rpc_server_tell_drained(void *arg)
{
    struct rpc_server *server = arg;
    void (*fn)(void *arg) = server->on_drained;

    server->on_drained = NULL;
    if (fn != NULL)
        fn(server->arg);
}

static void rpc_server_drop(struct rpc_server_conn *c)
{
    list_remove(&c->link);
    rpc_conn_free(c->conn);
    free(c);
}

static void rpc_server_on_close(void *arg, const struct status *err)
{
    struct rpc_server_conn *c = arg;
    struct rpc_server *server = c->server;

    log_debug("%s", err->message);
    rpc_server_drop(c);
    if (server->draining && list_empty(&server->conns))
        deferred_start(server->loop, &server->drained, rpc_server_tell_drained, server);
}

void rpc_server_accept(struct rpc_server *server, struct stream *stream)
{
    struct rpc_server_conn *c;

    if (server->draining) {
        stream_free(stream);
        return;
    }
    c = xcalloc(1, sizeof *c);
    c->server = server;
    struct rpc_conn_options options = { .on_close = rpc_server_on_close, .arg = c };
    c->conn = rpc_conn_new_shared(server->loop, stream, &options, server->methods, STR(""));
    list_append(&server->conns, &c->link);
}

void rpc_server_shutdown(struct rpc_server *server, void (*on_drained)(void *arg), void *arg)
{
    server->draining = true;
    server->on_drained = on_drained;
    server->arg = arg;
    for (LIST_EACH(struct rpc_server_conn, c, &server->conns, link))
        rpc_conn_shutdown(c->conn);
    if (list_empty(&server->conns))
        deferred_start(server->loop, &server->drained, rpc_server_tell_drained, server);
}

void rpc_server_free(struct rpc_server *server)
{
    if (server == NULL)
        return;
    deferred_stop(&server->drained);
    while (!list_empty(&server->conns))
        rpc_server_drop(CONTAINER_OF(server->conns.next, struct rpc_server_conn, link));
    rpc_methods_free(server->methods);
    free(server);
}
