/* SPDX-License-Identifier: Apache-2.0 */
/* stream.h: a connection, whatever carries it (socket, pipe pair, TLS): non-blocking reads and writes, and one
 * callback that says when to try again. Nothing is buffered here beyond what TLS needs for one record, so back-pressure
 * is simply not reading. */
#ifndef IO_STREAM_H
#define IO_STREAM_H

#include "io/loop.h"

#include <sys/uio.h>

struct stream; /* owns its descriptor */

struct stream_ops {
    ssize_t (*read)(struct stream *s, void *p, size_t n);
    ssize_t (*write)(struct stream *s, const struct iovec *iov, int count);
    void (*want)(struct stream *s, unsigned events);
    void (*shutdown_write)(struct stream *s);
    void (*free)(struct stream *s);
};

/* Embedded first in each kind of stream. */
struct stream {
    const struct stream_ops *ops;
    void (*on_event)(void *arg, unsigned events); /* WATCH_READ, WATCH_WRITE, WATCH_HANGUP, WATCH_END */
    void *arg;
    char peer[64]; /* for log lines: "unix:pid=4711", "[::1]:5432" */
};

/* Takes fd (made non-blocking). */
struct stream *stream_of_fd(struct loop *loop, int fd, struct status *err);
/* Two descriptors as one connection (a command's standard output and input). Takes both. */
struct stream *stream_of_fds(struct loop *loop, int read_fd, int write_fd, struct status *err);
/* The network namespace of the process that made the connection, when it is one of this machine and the connection still stands: a
 * descriptor for the caller to close; else -1. Needs what ptrace(2) calls PTRACE_MODE_READ over that process. */
int stream_peer_netns(const struct stream *s);
/* Sets the callback and what it should hear. */
static inline void stream_listen(struct stream *s, void (*on_event)(void *arg, unsigned events), void *arg)
{
    s->on_event = on_event;
    s->arg = arg;
}
/* Bytes read; 0 at the end; -EAGAIN: wait for WATCH_READ; other negative errno: the connection is broken. */
static inline ssize_t stream_read(struct stream *s, void *p, size_t n)
{
    return s->ops->read(s, p, n);
}
/* Bytes taken, possibly fewer than given; -EAGAIN: wait for WATCH_WRITE; other negative errno: broken. No SIGPIPE. */
static inline ssize_t stream_writev(struct stream *s, const struct iovec *iov, int count)
{
    return s->ops->write(s, iov, count);
}
static inline ssize_t stream_write(struct stream *s, const void *p, size_t n)
{
    struct iovec iov = { (void *)(uintptr_t)p, n };
    return s->ops->write(s, &iov, 1);
}
/* Which of WATCH_READ, WATCH_WRITE and WATCH_END to report (0: only hang-up). Level-triggered. */
static inline void stream_want(struct stream *s, unsigned events)
{
    s->ops->want(s, events);
}
/* No more writes; the peer reads an end. */
static inline void stream_shutdown_write(struct stream *s)
{
    s->ops->shutdown_write(s);
}
static inline void stream_free(struct stream *s) /* closes; NULL is fine */
{
    if (s != NULL)
        s->ops->free(s);
}

#endif
