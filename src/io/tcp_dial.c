/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tcp_dial.h"

#include "io/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

struct tcp_dial_address {
    char host[INET6_ADDRSTRLEN];
    int number; /* errno, when it was tried in vain */
};

struct tcp_dial {
    struct loop *loop;
    struct tcp_dialer *dialer;
    struct tcp_dial_listener listener;
    uint16_t port;
    struct tcp_dial_address addresses[TCP_DIAL_ADDRESSES_MAX];
    size_t address_count, address; /* how many; the one that is tried or connected */
    int netns_fd;                  /* owned; -1: ours */
    struct connector connector;
    int fd; /* owned; -1 until it is connected */
    struct watch watch;
    struct buf rest;  /* what the connection has not taken yet */
    bool refused;     /* the sender was told to wait */
    bool in_end;      /* we send no more */
    bool in_over;     /* and the connection has been told, or takes no more */
    bool out_over;    /* the connection sends no more, and that was told */
    bool paused;
    bool busy;        /* in a callback of the loop: what is to be watched, and freed, is seen to at its end */
    bool cancelled;   /* meanwhile */
    struct deferred end;
    struct status err;
};

static void tcp_dial_on_event(void *arg, unsigned events);

/* ---- the end ---- */

static void tcp_dial_free(struct tcp_dial *d)
{
    struct tcp_dialer *dialer = d->dialer;

    connector_cancel(&d->connector);
    watch_stop(&d->watch);
    deferred_stop(&d->end);
    if (d->fd >= 0)
        close(d->fd);
    if (d->netns_fd >= 0)
        close(d->netns_fd);
    buf_free(&d->rest);
    free(d);
    if (--dialer->count == 0) {
        free(dialer->block);
        dialer->block = NULL;
    }
}

static void tcp_dial_on_finished(void *arg)
{
    struct tcp_dial *d = arg;
    struct tcp_dial_listener l = d->listener;
    struct status err = d->err;

    tcp_dial_free(d);
    l.on_finish(l.arg, &err);
}

/* d->err says how. */
static void tcp_dial_finish(struct tcp_dial *d)
{
    watch_stop(&d->watch);
    deferred_start(d->loop, &d->end, tcp_dial_on_finished, d);
}

/* What its sender does not want any more is no end in peace to the other side either. */
void tcp_dial_cancel(struct tcp_dial *d)
{
    if (d == NULL)
        return;
    if (d->fd >= 0)
        socket_reset_at_close(d->fd);
    d->cancelled = true;
    if (!d->busy)
        tcp_dial_free(d);
}

static void tcp_dial_broken(struct tcp_dial *d, int number)
{
    status_set(&d->err, STATUS_UNAVAILABLE, "port %u: the connection to %s broke: %s", d->port,
               d->addresses[d->address].host, strerror(number));
    d->in_over = d->out_over = true;
}

/* ---- data ---- */

/* Watches for what there is to do; ends it when that is nothing. */
static void tcp_dial_next(struct tcp_dial *d)
{
    unsigned events = (d->out_over || d->paused ? 0 : WATCH_READ) | (d->rest.n > 0 ? WATCH_WRITE : 0);

    if (d->busy || d->fd < 0) /* in a callback it is done after that; without a connection when it is there */
        return;
    if (d->in_over && d->out_over) {
        tcp_dial_finish(d);
        return;
    }
    /* With nothing to do a connection that hung up would still be reported, for ever. */
    if (events == 0)
        watch_stop(&d->watch);
    else if (d->watch.loop != NULL)
        watch_set(&d->watch, events);
    else if (!watch_start(d->loop, &d->watch, d->fd, events, tcp_dial_on_event, d, &d->err))
        tcp_dial_finish(d);
}

/* How much the connection took. */
static size_t tcp_dial_put(struct tcp_dial *d, const uint8_t *p, size_t n)
{
    size_t done = 0;

    while (done < n) {
        ssize_t sent = send(d->fd, p + done, n - done, MSG_NOSIGNAL);
        if (sent >= 0) {
            done += (size_t)sent;
        } else if (errno == EAGAIN) {
            return done;
        } else if (errno != EINTR) {
            /* It takes no more. What it has sent is still to be read, and says whether that is its end or a breach. */
            d->in_over = true;
            return n;
        }
    }
    return done;
}

/* All that was sent is written. */
static void tcp_dial_check_input_end(struct tcp_dial *d)
{
    if (!d->in_end || d->in_over || d->rest.n > 0)
        return;
    shutdown(d->fd, SHUT_WR);
    d->in_over = true;
}

static void tcp_dial_flush(struct tcp_dial *d)
{
    buf_consume(&d->rest, tcp_dial_put(d, (const uint8_t *)d->rest.p, d->rest.n));
    if (d->rest.n > 0)
        return;
    buf_free(&d->rest);
    tcp_dial_check_input_end(d);
    if (d->refused) {
        d->refused = false;
        d->listener.on_writable(d->listener.arg);
    }
}

static void tcp_dial_read(struct tcp_dial *d)
{
    if (d->dialer->block == NULL)
        d->dialer->block = xmalloc(TCP_DIAL_READ_SIZE);
    ssize_t n = recv(d->fd, d->dialer->block, TCP_DIAL_READ_SIZE, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        tcp_dial_broken(d, errno);
    } else if (n == 0) {
        d->out_over = true;
        d->listener.on_end(d->listener.arg);
    } else {
        d->listener.on_data(d->listener.arg, (struct str){ (const char *)d->dialer->block, (size_t)n });
    }
}

/* The end of a callback: d may be gone. */
static void tcp_dial_leave(struct tcp_dial *d)
{
    d->busy = false;
    if (d->cancelled)
        tcp_dial_free(d);
    else
        tcp_dial_next(d);
}

static void tcp_dial_on_event(void *arg, unsigned events)
{
    struct tcp_dial *d = arg;

    (void)events; /* a hang-up is learnt by trying */
    d->busy = true;
    if (d->rest.n > 0)
        tcp_dial_flush(d);
    if (!d->cancelled && !d->out_over && !d->paused)
        tcp_dial_read(d);
    tcp_dial_leave(d);
}

bool tcp_dial_send(struct tcp_dial *d, const void *p, size_t n)
{
    if (d->in_end || d->in_over) /* nobody reads it any more */
        return true;
    size_t done = d->fd >= 0 && d->rest.n == 0 ? tcp_dial_put(d, p, n) : 0;
    buf_append(&d->rest, (const uint8_t *)p + done, n - done);
    d->refused = d->rest.n > 0;
    tcp_dial_next(d);
    return !d->refused;
}

void tcp_dial_half_close(struct tcp_dial *d)
{
    d->in_end = true;
    if (d->fd >= 0)
        tcp_dial_check_input_end(d);
    tcp_dial_next(d);
}

void tcp_dial_pause(struct tcp_dial *d, bool paused)
{
    d->paused = paused;
    tcp_dial_next(d);
}

/* ---- connecting ---- */

/* "connection refused" and so on: the first letter of strerror's words is not the beginning of ours. */
static void tcp_dial_reason(int number, struct buf *out)
{
    const char *text = strerror(number);

    buf_printf(out, "%c%s", text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'a' ? text[0] - 'A' + 'a' : text[0], text + 1);
}

/* "port 8080: connection refused on 127.0.0.1 and ::1": addresses that fail alike are named together. */
static void tcp_dial_fail(struct tcp_dial *d)
{
    struct buf text cleanup_buf = BUF_INIT;
    enum status_code code = STATUS_FAILED_PRECONDITION;

    buf_printf(&text, "port %u: ", d->port);
    for (size_t i = 0; i < d->address_count; i++) {
        const struct tcp_dial_address *a = &d->addresses[i];
        size_t alike = 0, named = 0;
        if (a->number == 0)
            continue; /* named with one before */
        for (size_t j = i; j < d->address_count; j++)
            alike += d->addresses[j].number == a->number;
        if (a->number != ECONNREFUSED && a->number != EADDRNOTAVAIL && a->number != EAFNOSUPPORT)
            code = STATUS_UNAVAILABLE; /* not just that nothing listens, or that there is no such address: it may pass */
        buf_printf(&text, "%s", i > 0 ? "; " : "");
        tcp_dial_reason(a->number, &text);
        for (size_t j = i, number = (size_t)a->number; j < d->address_count; j++) {
            if (d->addresses[j].number != (int)number)
                continue;
            buf_printf(&text, "%s%s", named == 0 ? " on " : named + 1 < alike ? ", " : " and ", d->addresses[j].host);
            d->addresses[j].number = 0;
            named++;
        }
    }
    status_set(&d->err, code, "%s", buf_cstr(&text));
    tcp_dial_finish(d);
}

static void tcp_dial_try(struct tcp_dial *d);

static void tcp_dial_on_connected(void *arg, int fd, const struct status *err)
{
    struct tcp_dial *d = arg;

    if (err != NULL) {
        d->addresses[d->address].number = d->connector.number;
        d->address++;
        tcp_dial_try(d);
        return;
    }
    d->fd = fd;
    if (d->netns_fd >= 0)
        close(d->netns_fd);
    d->netns_fd = -1;
    d->busy = true;
    d->listener.on_connected(d->listener.arg);
    if (!d->cancelled)
        tcp_dial_flush(d);
    tcp_dial_leave(d);
}

/* A socket belongs for ever to the network namespace of who makes it: a visit is enough. The way back; -1 when there is none. */
static int tcp_dial_visit(struct tcp_dial *d)
{
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

    if (home >= 0 && setns(d->netns_fd, CLONE_NEWNET) == 0)
        return home;
    int number = errno;
    if (home >= 0)
        close(home);
    errno = number;
    return -1;
}

/* Without it nothing that this process does would be where it should. */
static void tcp_dial_return(int home)
{
    if (setns(home, CLONE_NEWNET) < 0) {
        log_error("cannot go back to our own network namespace: %s", strerror(errno));
        abort();
    }
    close(home);
}

static void tcp_dial_try(struct tcp_dial *d)
{
    struct address address = { .port = d->port };
    int home = -1;

    while (d->netns_fd >= 0 && d->address < d->address_count && (home = tcp_dial_visit(d)) < 0)
        d->addresses[d->address++].number = errno;
    if (d->address == d->address_count) {
        tcp_dial_fail(d);
        return;
    }
    snprintf(address.host, sizeof address.host, "%s", d->addresses[d->address].host);
    connector_start(d->loop, &d->connector, &address, TCP_DIAL_CONNECT_MS, tcp_dial_on_connected, d);
    if (home >= 0)
        tcp_dial_return(home);
}

/* ---- the start ---- */

static bool tcp_dial_add_address(struct tcp_dial *d, const char *text, struct status *err)
{
    struct in6_addr ignored;

    if (inet_pton(AF_INET, text, &ignored) != 1 && inet_pton(AF_INET6, text, &ignored) != 1)
        return status_set(err, STATUS_INVALID_ARGUMENT, "addresses: \"%.60s\" is not an IP address", text);
    snprintf(d->addresses[d->address_count++].host, sizeof d->addresses[0].host, "%s", text);
    return true;
}

struct tcp_dial *tcp_dial_start(struct loop *loop, struct tcp_dialer *dialer, int netns_fd, uint16_t port,
                                const char *const *addresses, size_t address_count,
                                const struct tcp_dial_listener *listener, struct status *err)
{
    struct tcp_dial *d = xcalloc(1, sizeof *d);
    bool ok = address_count > 0 && address_count <= TCP_DIAL_ADDRESSES_MAX;

    *d = (struct tcp_dial){ .loop = loop, .dialer = dialer, .listener = *listener, .port = port, .netns_fd = netns_fd, .fd = -1 };
    d->connector.fd = -1;
    dialer->count++;
    if (!ok)
        status_set(err, STATUS_INVALID_ARGUMENT, "addresses: %zu, not 1 to %d", address_count, TCP_DIAL_ADDRESSES_MAX);
    for (size_t i = 0; ok && i < address_count; i++)
        ok = tcp_dial_add_address(d, addresses[i], err);
    if (ok && netns_fd >= 0) {
        int home = tcp_dial_visit(d);
        ok = home >= 0 || status_errno(err, "cannot enter the network namespace");
        if (home >= 0)
            tcp_dial_return(home);
    }
    if (!ok) {
        tcp_dial_free(d);
        return NULL;
    }
    tcp_dial_try(d);
    return d;
}

struct tcp_dial *tcp_dial_adopt(struct loop *loop, struct tcp_dialer *dialer, int fd, const struct tcp_dial_listener *listener)
{
    struct tcp_dial *d = xcalloc(1, sizeof *d);

    *d = (struct tcp_dial){ .loop = loop, .dialer = dialer, .listener = *listener, .netns_fd = -1, .fd = fd, .paused = true };
    d->connector.fd = -1;
    strcpy(d->addresses[0].host, "us");
    dialer->count++;
    return d;
}
