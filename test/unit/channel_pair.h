/* SPDX-License-Identifier: Apache-2.0 */
/* channel_pair.h: two ends of a channel connection on a socket pair, in one loop, and ears for their channels. */
#ifndef TEST_CHANNEL_PAIR_H
#define TEST_CHANNEL_PAIR_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "http/channel.h"
#include "io/tls.h"
#include "tls_fixtures.h"

#define EARS_MAX 16

struct end;

/* What is heard of one channel. */
struct ear {
    struct end *end;
    struct channel *channel; /* NULL when gone */
    struct buf heard;
    size_t bytes; /* heard, also when not kept */
    char header[64]; /* the value of "streamtype" */
    bool ended, gone, writable, keep, echo, pause_at_once, reset_at_once;
    bool failed; /* gone with an error */
    struct status err;
};

struct end {
    struct channel_conn *conn; /* NULL when closed */
    struct ear ears[EARS_MAX];
    size_t count;  /* channels that the peer opened, or that are there */
    size_t opened; /* also those beyond the ears */
    bool echo, keep, closed, free_on_close, reset_on_channel;
    struct status why;
};

struct pair {
    struct loop *loop;
    struct end server, client;
    bool tls;
    struct channel_conn_options options; /* for both */
};

static inline void ear_on_data(void *arg, struct str piece)
{
    struct ear *ear = arg;

    ear->bytes += piece.n;
    if (ear->keep)
        buf_append(&ear->heard, piece.p, piece.n);
    if (ear->echo && !channel_send(ear->channel, piece.p, piece.n))
        channel_pause(ear->channel, true);
    if (ear->pause_at_once)
        channel_pause(ear->channel, true);
    if (ear->reset_at_once)
        channel_reset(ear->channel);
}

static inline void ear_on_end(void *arg)
{
    struct ear *ear = arg;

    ear->ended = true;
    if (ear->echo)
        channel_end(ear->channel);
}

static inline void ear_on_writable(void *arg)
{
    struct ear *ear = arg;

    ear->writable = true;
    if (ear->echo)
        channel_pause(ear->channel, false);
}

static inline void ear_on_gone(void *arg, const struct status *err)
{
    struct ear *ear = arg;

    assert_false(ear->gone);
    ear->gone = true;
    ear->channel = NULL;
    ear->failed = err != NULL;
    if (err != NULL)
        ear->err = *err;
}

static inline void ear_listen(struct ear *ear, struct end *end, struct channel *c)
{
    const struct channel_listener listener = { ear_on_data, ear_on_end, ear_on_writable, ear_on_gone, ear };

    assert_non_null(c);
    *ear = (struct ear){ .end = end, .channel = c, .echo = end->echo, .keep = end->keep };
    channel_listen(c, &listener);
}

static inline void ignore_data(void *arg, struct str piece)
{
    (void)arg;
    (void)piece;
}

static inline void ignore_gone(void *arg, const struct status *err)
{
    (void)arg;
    (void)err;
}

static inline void end_on_channel(void *arg, struct channel *c, const struct http_header *headers, size_t count)
{
    const struct channel_listener nobody = { .on_data = ignore_data, .on_gone = ignore_gone };
    struct end *end = arg;

    end->opened++;
    if (end->count == EARS_MAX || end->reset_on_channel) {
        channel_listen(c, &nobody);
        if (end->reset_on_channel)
            channel_reset(c);
        return;
    }
    struct ear *ear = &end->ears[end->count++];
    ear_listen(ear, end, c);
    for (size_t i = 0; i < count; i++)
        if (strcmp(headers[i].name, "streamtype") == 0)
            snprintf(ear->header, sizeof ear->header, "%s", headers[i].value);
}

static inline void end_on_close(void *arg, const struct status *err)
{
    struct end *end = arg;

    assert_false(end->closed);
    for (size_t i = 0; i < end->count; i++)
        assert_true(end->ears[i].gone);
    end->closed = true;
    end->why = *err;
    if (end->free_on_close) {
        channel_conn_free(end->conn);
        end->conn = NULL;
    }
}

static inline void end_connect(struct pair *pair, struct end *end, int fd, bool client)
{
    struct channel_conn_options options = pair->options;
    struct status err = STATUS_INIT;

    options.client = client;
    options.on_channel = end_on_channel;
    options.on_close = end_on_close;
    options.arg = end;
    struct stream *stream = stream_of_fd(pair->loop, fd, &err);
    assert_non_null(stream);
    if (pair->tls) {
        struct tls_trust *anyone = tls_trust_anyone();
        struct tls_identity *identity = tls_identity_parse(str_of(fixture_ec_crt), str_of(fixture_ec_key), &err);
        stream = client ? tls_client(pair->loop, stream, anyone, "localhost", NULL, 0, &err)
                        : tls_server(pair->loop, stream, identity, 0, &err);
        assert_non_null(stream);
        tls_trust_free(anyone);
        tls_identity_free(identity);
    }
    end->conn = channel_conn_new(pair->loop, stream, STR(""), &options);
    for (; end->count < options.channel_count; end->count++)
        ear_listen(&end->ears[end->count], end, channel_number(end->conn, end->count));
}

static inline void pair_open_loop(struct pair *pair)
{
    struct status err = STATUS_INIT;

    pair->loop = loop_new(&err);
    assert_non_null(pair->loop);
}

/* One end of ours; the other is a plain descriptor. */
static inline int pair_open_raw(struct pair *pair, struct end *end, bool client)
{
    int fds[2];

    pair_open_loop(pair);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    end_connect(pair, end, fds[0], client);
    return fds[1];
}

static inline void pair_open(struct pair *pair)
{
    end_connect(pair, &pair->client, pair_open_raw(pair, &pair->server, false), true);
}

static inline void end_close(struct end *end)
{
    channel_conn_free(end->conn);
    end->conn = NULL;
    for (size_t i = 0; i < EARS_MAX; i++)
        buf_free(&end->ears[i].heard);
}

static inline void pair_close(struct pair *pair)
{
    end_close(&pair->client);
    end_close(&pair->server);
    loop_free(pair->loop);
}

/* Turns the loop until the condition holds; fails after 20 s. */
#define pair_until(pair, condition)                                                                                    \
    do {                                                                                                               \
        int64_t until_ = clock_mono_ms() + 20000;                                                                      \
        while (!(condition)) {                                                                                         \
            if (clock_mono_ms() > until_)                                                                              \
                fail_msg("did not come: %s", #condition);                                                              \
            loop_turn((pair)->loop, 100);                                                                              \
        }                                                                                                              \
    } while (0)

/* Turns the loop until nothing happens any more. */
static inline void pair_settle(struct pair *pair)
{
    for (int i = 0; i < 50; i++)
        loop_turn(pair->loop, 1);
}

#endif
