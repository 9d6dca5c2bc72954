/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/lookup.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

/* In the worker: one literal address a line. */
static bool lookup_work(void *work_arg, struct buf *output, struct status *err)
{
    const struct lookup *l = work_arg;
    const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    struct addrinfo *found = NULL;
    size_t count = 0;

    int code = getaddrinfo(l->host, NULL, &hints, &found);
    if (code != 0)
        return status_set(err, STATUS_UNAVAILABLE, "cannot look up the name %s: %s", l->host, gai_strerror(code));
    for (const struct addrinfo *a = found; a != NULL && count < LOOKUP_MAX; a = a->ai_next) {
        char text[INET6_ADDRSTRLEN] = "";
        const void *ip = a->ai_family == AF_INET ? (const void *)&((struct sockaddr_in *)(void *)a->ai_addr)->sin_addr
                                                 : (const void *)&((struct sockaddr_in6 *)(void *)a->ai_addr)->sin6_addr;
        if (inet_ntop(a->ai_family, ip, text, sizeof text) != NULL) {
            buf_printf(output, "%s\n", text);
            count++;
        }
    }
    freeaddrinfo(found);
    return count > 0 || status_set(err, STATUS_UNAVAILABLE, "the name %s has no address", l->host);
}

static void lookup_on_worker(void *arg, const struct status *err, struct buf *output)
{
    struct lookup *l = arg;
    struct address addresses[LOOKUP_MAX];
    size_t count = 0;

    if (err != NULL) {
        l->on_done(l->arg, NULL, 0, err);
        return;
    }
    const char *line = buf_cstr(output);
    while (*line != '\0' && count < LOOKUP_MAX) {
        size_t n = strcspn(line, "\n");
        addresses[count] = (struct address){ .port = l->port };
        snprintf(addresses[count].host, sizeof addresses[count].host, "%.*s", (int)n, line);
        count++;
        line += n + (line[n] == '\n');
    }
    l->on_done(l->arg, addresses, count, NULL);
}

static void lookup_on_literal(void *arg)
{
    struct lookup *l = arg;
    struct address address = { .port = l->port };

    strcpy(address.host, l->host);
    l->on_done(l->arg, &address, 1, NULL);
}

static void lookup_on_failed(void *arg)
{
    struct lookup *l = arg;
    struct status err = l->err;

    status_prefix(&err, "cannot look up the name %s", l->host);
    l->on_done(l->arg, NULL, 0, &err);
}

static void lookup_on_unix(void *arg)
{
    struct lookup *l = arg;
    struct address address = { .is_unix = true };

    strcpy(address.path, l->host);
    l->on_done(l->arg, &address, 1, NULL);
}

void lookup_start(struct loop *loop, struct lookup *l, const struct address *address,
                  void (*on_done)(void *arg, const struct address *addresses, size_t count, const struct status *err),
                  void *arg)
{
    uint8_t ignored[16];

    l->on_done = on_done;
    l->arg = arg;
    l->port = address->port;
    snprintf(l->host, sizeof l->host, "%s", address->is_unix ? address->path : address->host);
    if (address->is_unix)
        deferred_start(loop, &l->deferred, lookup_on_unix, l);
    else if (strcmp(l->host, "localhost") == 0 || inet_pton(AF_INET, l->host, ignored) == 1 ||
             inet_pton(AF_INET6, l->host, ignored) == 1)
        deferred_start(loop, &l->deferred, lookup_on_literal, l);
    else if (!worker_start(loop, &l->worker, lookup_work, l, lookup_on_worker, l, &l->err))
        deferred_start(loop, &l->deferred, lookup_on_failed, l);
}

void lookup_cancel(struct lookup *l)
{
    worker_cancel(&l->worker);
    deferred_stop(&l->deferred);
}
