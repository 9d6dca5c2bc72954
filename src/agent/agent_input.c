/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_input.h"

#include <unistd.h>

#include "io/file.h"

void agent_input_init(struct agent_input *in, struct loop *loop)
{
    *in = (struct agent_input){ .loop = loop, .fd = -1 };
    list_init(&in->waiting);
}

void agent_input_open(struct agent_input *in, int fd)
{
    if (fd >= 0)
        fd_set_nonblocking(fd, true);
    in->fd = fd;
}

void agent_input_writer_init(struct agent_input_writer *w, void (*on_room)(void *arg), void *arg)
{
    *w = (struct agent_input_writer){ .on_room = on_room, .arg = arg };
    list_init(&w->link);
}

static struct agent_input_writer *agent_input_first(struct agent_input *in)
{
    return CONTAINER_OF(in->waiting.next, struct agent_input_writer, link);
}

/* Its piece is done with. It may write again at once. */
static void agent_input_release(struct agent_input_writer *w)
{
    list_remove(&w->link);
    buf_free(&w->rest);
    w->on_room(w->arg);
}

void agent_input_close(struct agent_input *in)
{
    watch_stop(&in->watch);
    if (in->fd >= 0)
        close(in->fd);
    in->fd = -1;
    while (!list_empty(&in->waiting))
        agent_input_release(agent_input_first(in));
}

/* How much was taken; closes when nobody reads. */
static size_t agent_input_put(struct agent_input *in, const uint8_t *p, size_t n)
{
    size_t done = 0;

    while (done < n) {
        ssize_t written = write(in->fd, p + done, n - done);
        if (written > 0) {
            done += (size_t)written;
        } else if (written < 0 && errno == EAGAIN) {
            return done;
        } else if (written == 0 || errno != EINTR) {
            agent_input_close(in);
            return n;
        }
    }
    return done;
}

static void agent_input_on_writable(void *arg, unsigned events)
{
    struct agent_input *in = arg;

    (void)events;
    /* One piece a turn: whoever is told may bring the next one, or end. */
    struct agent_input_writer *w = agent_input_first(in);
    size_t done = agent_input_put(in, w->rest.p, w->rest.n);
    if (in->fd < 0)
        return;
    buf_consume(&w->rest, done);
    if (w->rest.n > 0)
        return;
    if (in->waiting.next == in->waiting.prev)
        watch_stop(&in->watch);
    agent_input_release(w);
}

bool agent_input_write(struct agent_input *in, struct agent_input_writer *w, const void *p, size_t n)
{
    struct status err = STATUS_INIT;
    size_t done = 0;

    if (in->fd < 0 || n == 0)
        return true;
    if (list_empty(&in->waiting))
        done = agent_input_put(in, p, n);
    if (done == n)
        return true;
    if (in->watch.loop == NULL &&
        !watch_start(in->loop, &in->watch, in->fd, WATCH_WRITE, agent_input_on_writable, in, &err)) {
        log_error("a process's standard input cannot be written any more: %s", err.message);
        agent_input_close(in);
        return true;
    }
    buf_append(&w->rest, (const uint8_t *)p + done, n - done);
    list_append(&in->waiting, &w->link);
    return false;
}

void agent_input_drop(struct agent_input *in, struct agent_input_writer *w)
{
    list_remove(&w->link);
    buf_free(&w->rest);
    if (list_empty(&in->waiting))
        watch_stop(&in->watch);
}
