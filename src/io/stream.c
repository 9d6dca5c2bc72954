/* SPDX-License-Identifier: Apache-2.0 */
#include "io/stream.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/file.h"

/* A stream over one descriptor, or over one for each direction. */
struct stream_fd {
    struct stream base;
    int read_fd, write_fd; /* equal for a socket */
    bool is_socket;
    struct watch read_watch, write_watch; /* write_watch only when the descriptors differ */
};

static ssize_t stream_fd_read(struct stream *s, void *p, size_t n)
{
    struct stream_fd *f = (struct stream_fd *)(void *)s;
    ssize_t got;

    do
        got = f->is_socket ? recv(f->read_fd, p, n, 0) : read(f->read_fd, p, n);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static ssize_t stream_fd_write(struct stream *s, const struct iovec *iov, int count)
{
    struct stream_fd *f = (struct stream_fd *)(void *)s;
    struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count };
    ssize_t put;

    do
        put = f->is_socket ? sendmsg(f->write_fd, &message, MSG_NOSIGNAL) : writev(f->write_fd, iov, count);
    while (put < 0 && errno == EINTR);
    return put < 0 ? -errno : put;
}

static void stream_fd_want(struct stream *s, unsigned events)
{
    struct stream_fd *f = (struct stream_fd *)(void *)s;

    if (f->read_fd == f->write_fd) {
        watch_set(&f->read_watch, events);
    } else {
        watch_set(&f->read_watch, events & (WATCH_READ | WATCH_END));
        watch_set(&f->write_watch, events & WATCH_WRITE);
    }
}

static void stream_fd_shutdown_write(struct stream *s)
{
    struct stream_fd *f = (struct stream_fd *)(void *)s;

    if (f->read_fd == f->write_fd) {
        shutdown(f->write_fd, SHUT_WR);
    } else if (f->write_fd >= 0) {
        watch_stop(&f->write_watch);
        close(f->write_fd);
        f->write_fd = -1;
    }
}

static void stream_fd_free(struct stream *s)
{
    struct stream_fd *f = (struct stream_fd *)(void *)s;

    watch_stop(&f->read_watch);
    watch_stop(&f->write_watch);
    close(f->read_fd);
    if (f->write_fd != f->read_fd && f->write_fd >= 0)
        close(f->write_fd);
    free(f);
}

static void stream_fd_on_event(void *arg, unsigned events)
{
    struct stream_fd *f = arg;

    if (f->base.on_event != NULL)
        f->base.on_event(f->base.arg, events);
}

static const struct stream_ops stream_fd_ops = {
    stream_fd_read, stream_fd_write, stream_fd_want, stream_fd_shutdown_write, stream_fd_free,
};

static void stream_name_peer(struct stream_fd *f)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = { .any.sa_family = AF_UNSPEC };
    socklen_t address_n = sizeof address, n = sizeof(struct ucred);
    char text[INET6_ADDRSTRLEN] = "", *peer = f->base.peer;
    struct ucred who = { .pid = 0 };

    if (f->is_socket)
        getpeername(f->read_fd, &address.any, &address_n);
    if (address.any.sa_family == AF_INET && inet_ntop(AF_INET, &address.v4.sin_addr, text, sizeof text) != NULL)
        snprintf(peer, sizeof f->base.peer, "%s:%u", text, ntohs(address.v4.sin_port));
    else if (address.any.sa_family == AF_INET6 && inet_ntop(AF_INET6, &address.v6.sin6_addr, text, sizeof text) != NULL)
        snprintf(peer, sizeof f->base.peer, "[%s]:%u", text, ntohs(address.v6.sin6_port));
    else if (f->is_socket && getsockopt(f->read_fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 && who.pid > 0)
        snprintf(peer, sizeof f->base.peer, "unix:pid=%d,uid=%u", who.pid, who.uid);
    else
        snprintf(peer, sizeof f->base.peer, "%s:fd=%d", f->is_socket ? "socket" : "pipe", f->read_fd);
}

/* A process that has ended has no connection any more: while there is one, its number is its own. */
int stream_peer_netns(const struct stream *s)
{
    const struct stream_fd *f = (const struct stream_fd *)(const void *)s;
    struct ucred who = { .pid = 0 };
    socklen_t n = sizeof who;
    char path[64];

    if (s->ops != &stream_fd_ops || !f->is_socket || getsockopt(f->read_fd, SOL_SOCKET, SO_PEERCRED, &who, &n) < 0 ||
        who.pid <= 0)
        return -1;
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)who.pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct pollfd gone = { f->read_fd, POLLRDHUP, 0 };
    if (fd >= 0 && poll(&gone, 1, 0) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

struct stream *stream_of_fds(struct loop *loop, int read_fd, int write_fd, struct status *err)
{
    struct stream_fd *f = xcalloc(1, sizeof *f);
    int type;
    socklen_t n = sizeof type;

    f->base.ops = &stream_fd_ops;
    f->read_fd = read_fd;
    f->write_fd = write_fd;
    f->is_socket = getsockopt(read_fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && read_fd == write_fd;
    fd_set_nonblocking(read_fd, true);
    fd_set_nonblocking(write_fd, true);
    stream_name_peer(f);
    if (!watch_start(loop, &f->read_watch, read_fd, 0, stream_fd_on_event, f, err) ||
        (read_fd != write_fd && !watch_start(loop, &f->write_watch, write_fd, 0, stream_fd_on_event, f, err))) {
        stream_fd_free(&f->base);
        return NULL;
    }
    return &f->base;
}

struct stream *stream_of_fd(struct loop *loop, int fd, struct status *err)
{
    return stream_of_fds(loop, fd, fd, err);
}
