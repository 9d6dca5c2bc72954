/* SPDX-License-Identifier: Apache-2.0 */
/* rpc_pair.h: a gRPC server and a client on the two ends of a socket pair, in one loop: for the tests of src/rpc.
 * The messages are CRI's ExecSyncResponse: two fields of bytes and a number. */
#ifndef TEST_RPC_PAIR_H
#define TEST_RPC_PAIR_H

#include "cri.pb-c.h"
#include "rpc/rpc.h"

#include <setjmp.h>

#include <cmocka.h>
#include <sys/socket.h>
#include <unistd.h>

typedef Runtime__V1__ExecSyncResponse test_message;
#define TEST_MESSAGE_INIT RUNTIME__V1__EXEC_SYNC_RESPONSE__INIT
#define TEST_MESSAGE_TYPE (&runtime__v1__exec_sync_response__descriptor)

struct rpc_pair {
    struct loop *loop;
    struct rpc_server *server;
    struct rpc_conn *client;
    bool client_closed;
    struct status client_status;
    bool drained;
};

static inline void rpc_pair_on_close(void *arg, const struct status *err)
{
    struct rpc_pair *pair = arg;

    pair->client_closed = true;
    pair->client_status = *err;
}

static inline struct stream *rpc_pair_stream(struct rpc_pair *pair, int fd)
{
    struct status err;
    struct stream *stream = stream_of_fd(pair->loop, fd, &err);

    assert_non_null(stream);
    return stream;
}

/* A server alone; the other end of its connection is returned. */
static inline int rpc_pair_open_raw(struct rpc_pair *pair, const struct rpc_services *services)
{
    struct status err;
    int fds[2];

    *pair = (struct rpc_pair){ .loop = loop_new(&err) };
    assert_non_null(pair->loop);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    pair->server = rpc_server_new(pair->loop, services);
    rpc_server_accept(pair->server, rpc_pair_stream(pair, fds[0]));
    return fds[1];
}

static inline void rpc_pair_open(struct rpc_pair *pair, const struct rpc_services *services)
{
    int fd = rpc_pair_open_raw(pair, services);
    struct rpc_conn_options options = { .on_close = rpc_pair_on_close, .arg = pair };

    pair->client = rpc_conn_new(pair->loop, rpc_pair_stream(pair, fd), &options, STR(""));
}

static inline void rpc_pair_close(struct rpc_pair *pair)
{
    rpc_conn_free(pair->client);
    rpc_server_free(pair->server);
    loop_free(pair->loop);
}

/* Turns the loop until *done, or fails after some seconds. */
static inline void rpc_pair_run(struct rpc_pair *pair, const bool *done)
{
    int64_t give_up = clock_mono_ms() + 20000;

    while (!*done) {
        assert_true(clock_mono_ms() < give_up);
        loop_turn(pair->loop, 50);
    }
}

/* Turns it until nothing happens any more for a moment. */
static inline void rpc_pair_settle(struct rpc_pair *pair)
{
    for (int i = 0; i < 20; i++)
        loop_turn(pair->loop, 1);
}

#endif
