/* SPDX-License-Identifier: Apache-2.0 */
#include "io/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Connections waiting to be accepted: kubelet opens a handful, agents reconnect in crowds after a restart. */
#define SOCKET_BACKLOG 512
/* How often, and after which pauses, a listener must be met before it counts as live. */
#define LISTENER_LIVE_LOOKS 10
#define LISTENER_LIVE_MS 10

static bool address_set_path(const char *path, struct address *out, struct status *err)
{
    if (*path == '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT, "a unix socket needs a path");
    if (strlen(path) >= sizeof out->path)
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "the socket path %s is longer than the %zu bytes that the kernel takes; use a shorter folder",
                          path, sizeof out->path - 1);
    out->is_unix = true;
    strcpy(out->path, path);
    return true;
}

bool address_parse(const char *text, struct address *out, struct status *err)
{
    *out = (struct address){ 0 };
    if (str_starts(text, "unix://"))
        return address_set_path(text + 7, out, err);
    if (str_starts(text, "unix:"))
        return address_set_path(text + 5, out, err);
    if (*text == '/' || *text == '.')
        return address_set_path(text, out, err);
    const char *s = str_starts(text, "tcp://") ? text + 6 : text;
    const char *colon = strrchr(s, ':');
    uint64_t port;
    if (colon == NULL || !parse_u64(colon + 1, UINT16_MAX, &port))
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "address \"%s\" is neither unix:///path nor host:port with a port from 0 to 65535", text);
    struct str host = { s, (size_t)(colon - s) };
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = (struct str){ host.p + 1, host.n - 2 };
    else if (memchr(host.p, ':', host.n) != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "address \"%s\": an IPv6 address needs brackets", text);
    if (host.n == 0 || host.n >= sizeof out->host)
        return status_set(err, STATUS_INVALID_ARGUMENT, "address \"%s\" has no usable host", text);
    memcpy(out->host, host.p, host.n);
    out->port = (uint16_t)port;
    return true;
}

/* The kernel's form of an address; the host must be a literal. */
static bool address_to_kernel(const struct address *a, struct sockaddr_storage *out, socklen_t *length, struct status *err)
{
    struct sockaddr_un *un = (struct sockaddr_un *)(void *)out;
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)out;

    memset(out, 0, sizeof *out);
    if (a->is_unix) {
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, a->path, sizeof un->sun_path);
        *length = sizeof *un;
    } else if (inet_pton(AF_INET, strcmp(a->host, "localhost") == 0 ? "127.0.0.1" : a->host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(a->port);
        *length = sizeof *in;
    } else if (inet_pton(AF_INET6, a->host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(a->port);
        *length = sizeof *in6;
    } else {
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%s\" is not an IP address", a->host);
    }
    return true;
}

static int socket_open(const struct sockaddr_storage *kernel, int flags, struct status *err)
{
    int fd = socket(kernel->ss_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    int on = 1;

    if (fd < 0) {
        status_errno(err, "cannot make a socket");
        return -1;
    }
    if (kernel->ss_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

void socket_reset_at_close(int fd)
{
    struct linger reset = { .l_onoff = 1, .l_linger = 0 };

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

int socket_connect_unix(const char *path, struct status *err)
{
    struct address address;
    struct sockaddr_storage kernel;
    socklen_t length;

    if (!address_parse(path, &address, err) || !address_to_kernel(&address, &kernel, &length, err))
        return -1;
    int fd = socket_open(&kernel, 0, err);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&kernel, length) < 0) {
        status_errno(err, "cannot connect to %s", path);
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- listening ---- */

static void listener_on_rested(void *arg)
{
    struct listener *l = arg;

    watch_set(&l->watch, WATCH_READ);
}

static void listener_on_event(void *arg, unsigned events)
{
    struct listener *l = arg;

    (void)events;
    /* A bounded number a turn, so that a crowd of clients does not starve the rest. */
    for (int i = 0; i < 16 && l->fd >= 0; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                watch_set(&l->watch, 0);
                timer_start(l->watch.loop, &l->rest, LISTENER_REST_MS, listener_on_rested, l);
            }
            return;
        }
        int on = 1;
        if (l->path[0] == '\0')
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        l->on_accept(l->arg, fd);
    }
}

/* Whether somebody listens there. A process that was just killed may leave, for a few milliseconds, a child between fork
 * and exec that still holds its sockets; so a listener counts as live only when it stays. */
static bool listener_is_live(const char *path)
{
    struct status ignored;

    for (int i = 0; i < LISTENER_LIVE_LOOKS; i++) {
        int fd = socket_connect_unix(path, &ignored);
        if (fd < 0)
            return false;
        close(fd);
        nanosleep(&(struct timespec){ 0, LISTENER_LIVE_MS * 1000000L }, NULL);
    }
    return true;
}

static bool listener_bind_unix(int fd, const struct address *address, mode_t mode, struct status *err)
{
    struct address temporary = *address;
    struct sockaddr_storage kernel;
    socklen_t length;
    struct stat st;

    if (lstat(address->path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return status_set(err, STATUS_FAILED_PRECONDITION, "%s exists and is not a socket: move it away",
                              address->path);
        if (listener_is_live(address->path))
            return status_set(err, STATUS_FAILED_PRECONDITION, "another process listens on %s: stop it first",
                              address->path);
    }
    /* Bound under another name and renamed: a client never meets a socket with the wrong mode. */
    if (strlen(temporary.path) + 5 > sizeof temporary.path)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the socket path %s is too long", address->path);
    strcat(temporary.path, ".new");
    unlink(temporary.path);
    if (!address_to_kernel(&temporary, &kernel, &length, err))
        return false;
    if (bind(fd, (struct sockaddr *)&kernel, length) < 0)
        return status_errno(err, "cannot make the socket %s", temporary.path);
    if (chmod(temporary.path, mode) < 0 || listen(fd, SOCKET_BACKLOG) < 0 || rename(temporary.path, address->path) < 0) {
        status_errno(err, "cannot listen on %s", address->path);
        unlink(temporary.path);
        return false;
    }
    return true;
}

static bool listener_bind_tcp(int fd, const struct sockaddr_storage *kernel, socklen_t length,
                              const struct address *address, uint16_t *port_out, struct status *err)
{
    struct sockaddr_storage bound;
    socklen_t bound_length = sizeof bound;
    int on = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)kernel, length) < 0 || listen(fd, SOCKET_BACKLOG) < 0)
        return status_errno(err, "cannot listen on %s port %u", address->host, address->port);
    if (port_out != NULL && getsockname(fd, (struct sockaddr *)&bound, &bound_length) == 0)
        *port_out = ntohs(bound.ss_family == AF_INET ? ((struct sockaddr_in *)(void *)&bound)->sin_port
                                                     : ((struct sockaddr_in6 *)(void *)&bound)->sin6_port);
    return true;
}

bool listener_open(struct loop *loop, struct listener *l, const struct address *address, mode_t mode,
                   void (*on_accept)(void *arg, int fd), void *arg, uint16_t *port_out, struct status *err)
{
    struct sockaddr_storage kernel;
    socklen_t length;

    *l = (struct listener){ .fd = -1, .on_accept = on_accept, .arg = arg };
    if (!address_to_kernel(address, &kernel, &length, err))
        return false;
    int fd = socket_open(&kernel, SOCK_NONBLOCK, err);
    if (fd < 0)
        return false;
    bool ok = address->is_unix ? listener_bind_unix(fd, address, mode, err)
                               : listener_bind_tcp(fd, &kernel, length, address, port_out, err);
    if (!ok || !watch_start(loop, &l->watch, fd, WATCH_READ, listener_on_event, l, err)) {
        close(fd);
        return false;
    }
    l->fd = fd;
    if (address->is_unix)
        strcpy(l->path, address->path);
    return true;
}

bool listener_take(struct loop *loop, struct listener *l, int fd, int backlog, void (*on_accept)(void *arg, int fd), void *arg,
                   struct status *err)
{
    *l = (struct listener){ .fd = -1, .on_accept = on_accept, .arg = arg };
    if (listen(fd, backlog) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        status_errno(err, "cannot listen");
        close(fd);
        return false;
    }
    if (!watch_start(loop, &l->watch, fd, WATCH_READ, listener_on_event, l, err)) {
        close(fd);
        return false;
    }
    l->fd = fd;
    return true;
}

void listener_close(struct listener *l)
{
    if (l->watch.loop == NULL)
        return;
    watch_stop(&l->watch);
    timer_stop(&l->rest);
    close(l->fd);
    l->fd = -1;
    if (l->path[0] != '\0')
        unlink(l->path);
}

/* ---- connecting ---- */

static void connector_finish(struct connector *c, const struct status *err)
{
    int fd = c->fd;

    watch_stop(&c->watch);
    timer_stop(&c->timer);
    c->fd = -1;
    if (err != NULL && fd >= 0)
        close(fd);
    c->on_done(c->arg, err == NULL ? fd : -1, err);
}

/* A failure known at once is still told from the loop, never from inside connector_start. */
static void connector_on_timer(void *arg)
{
    struct connector *c = arg;
    struct status err = STATUS_INIT;

    c->number = ETIMEDOUT;
    status_set(&err, STATUS_DEADLINE_EXCEEDED, "no answer to the connection attempt in time");
    connector_finish(c, &err);
}

static void connector_on_event(void *arg, unsigned events)
{
    struct connector *c = arg;
    struct status err = STATUS_INIT;
    int number = 0;
    socklen_t n = sizeof number;

    (void)events;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &number, &n) < 0)
        number = errno;
    c->number = number;
    if (number != 0) {
        errno = number;
        status_errno(&err, "cannot connect");
    }
    connector_finish(c, number != 0 ? &err : NULL);
}

static void connector_on_failed(void *arg)
{
    struct connector *c = arg;
    struct status err = STATUS_INIT;

    errno = c->number;
    status_errno(&err, "cannot connect");
    connector_finish(c, &err);
}

void connector_start(struct loop *loop, struct connector *c, const struct address *address, int64_t timeout_ms,
                     void (*on_done)(void *arg, int fd, const struct status *err), void *arg)
{
    struct sockaddr_storage kernel;
    socklen_t length;
    struct status err = STATUS_INIT;
    int number = EINVAL;

    *c = (struct connector){ .fd = -1, .on_done = on_done, .arg = arg };
    if (address_to_kernel(address, &kernel, &length, &err)) {
        c->fd = socket_open(&kernel, SOCK_NONBLOCK, &err);
        number = errno;
    }
    if (c->fd >= 0) {
        if ((connect(c->fd, (struct sockaddr *)&kernel, length) == 0 || errno == EINPROGRESS) &&
            watch_start(loop, &c->watch, c->fd, WATCH_WRITE, connector_on_event, c, &err)) {
            timer_start(loop, &c->timer, timeout_ms, connector_on_timer, c);
            return;
        }
        number = errno;
        close(c->fd);
    }
    c->fd = -1;
    c->number = number;
    timer_start(loop, &c->timer, 0, connector_on_failed, c);
}

void connector_cancel(struct connector *c)
{
    watch_stop(&c->watch);
    timer_stop(&c->timer);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}
