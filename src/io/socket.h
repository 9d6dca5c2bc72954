/* SPDX-License-Identifier: Apache-2.0 */
/* socket.h: addresses, listening and connecting. */
#ifndef IO_SOCKET_H
#define IO_SOCKET_H

#include "io/loop.h"
#include "io/stream.h"

#include <sys/socket.h>
#include <sys/un.h>

/* "unix:///run/x.sock", "unix:x", "/run/x.sock" (a path), or "host:port", "[v6]:port", "tcp://host:port". */
struct address {
    bool is_unix;
    char path[sizeof((struct sockaddr_un *)0)->sun_path]; /* when is_unix */
    char host[256];                                       /* else; brackets removed */
    uint16_t port;
};
bool address_parse(const char *text, struct address *out, struct status *err);

struct listener {
    struct watch watch;
    struct timer rest; /* after accept failed */
    int fd; /* owned; -1 when closed */
    char path[sizeof((struct sockaddr_un *)0)->sun_path]; /* unlinked on close when not empty */
    void (*on_accept)(void *arg, int fd); /* takes fd: non-blocking, close-on-exec */
    void *arg;
};
/* A unix socket is made with the given mode in a folder that exists; a stale socket file there is replaced (ours is
 * bound to a temporary name and renamed, so clients never see it missing); one on which somebody still listens is
 * FAILED_PRECONDITION. TCP: host must be a literal address; port 0 takes a free one (port_out may be NULL). */
bool listener_open(struct loop *loop, struct listener *l, const struct address *address, mode_t mode,
                   void (*on_accept)(void *arg, int fd), void *arg, uint16_t *port_out, struct status *err);
/* The same with a socket that is bound already: takes it (also when it fails), and listens. */
bool listener_take(struct loop *loop, struct listener *l, int fd, int backlog, void (*on_accept)(void *arg, int fd), void *arg,
                   struct status *err);
void listener_close(struct listener *l);

/* Connects without blocking to a unix path or a literal address. on_done hears fd >= 0 (takes it) or -1 with err. */
struct connector {
    struct watch watch;
    struct timer timer;
    int fd;
    int number; /* in on_done: errno of the failure; ETIMEDOUT for ours, too */
    void (*on_done)(void *arg, int fd, const struct status *err);
    void *arg;
};
void connector_start(struct loop *loop, struct connector *c, const struct address *address, int64_t timeout_ms,
                     void (*on_done)(void *arg, int fd, const struct status *err), void *arg);
void connector_cancel(struct connector *c);
/* The peer will see a reset, not an end in peace, when fd is closed. */
void socket_reset_at_close(int fd);
/* Blocking connect of a unix socket: for the command line. Returns fd or -1. */
int socket_connect_unix(const char *path, struct status *err);

#endif
