/* SPDX-License-Identifier: Apache-2.0 */
#include "node/features.h"

#include "io/child.h"
#include "io/file.h"
#include "text/protojson.h"

#include <fcntl.h>
#include <unistd.h>

/* The answer is some hundred bytes of JSON. */
#define FEATURES_ANSWER_MAX 65536u

/* `interlink-cri agent features`, running. */
struct features_question {
    struct handler *handler;
    struct child child;
    struct watch watch;
    int fd; /* owned; its standard output */
    struct buf text;
};

static void features_take(struct handler *handler, const Interlink__Agent__V1__Features *features)
{
    handler->recursive_read_only_mounts = features->recursive_read_only_mounts;
    handler->user_namespaces = features->user_namespaces;
}

void features_learn(struct handler *handler, const Interlink__Agent__V1__Features *features)
{
    /* Our own machine was asked, and answered more than an agent tries when it calls in. */
    if (features != NULL && !handler->local)
        features_take(handler, features);
}

void features_free(struct handler *handler)
{
    struct features_question *q = handler->question;

    handler->question = NULL;
    if (q == NULL)
        return;
    watch_stop(&q->watch);
    child_forget(&q->child); /* it ends by itself */
    close(q->fd);
    buf_free(&q->text);
    free(q);
}

static void features_read_answer(struct features_question *q)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    const struct json *j = json_parse(&arena, (struct str){ (const char *)q->text.p, q->text.n }, &err);
    const Interlink__Agent__V1__HelloResponse *answer =
        j == NULL ? NULL
                  : (const void *)protojson_read(&arena, &interlink__agent__v1__hello_response__descriptor, j,
                                                 PROTOJSON_IGNORE_UNKNOWN, &err);

    if (answer == NULL) {
        log_warn("what containers can have on this machine is not known: %s", err.message);
        return;
    }
    if (answer->features != NULL)
        features_take(q->handler, answer->features);
    log_debug("handler %s: engine %s (%s)", q->handler->options->name, answer->engine, answer->engine_reason);
}

static void features_on_readable(void *arg, unsigned events)
{
    struct features_question *q = arg;
    ssize_t n = read(q->fd, buf_reserve(&q->text, 4096), 4096);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0 && q->text.n + (size_t)n <= FEATURES_ANSWER_MAX) {
        q->text.n += (size_t)n;
        return;
    }
    features_read_answer(q);
    features_free(q->handler);
}

static void features_on_exit(void *arg, int wait_status)
{
    (void)arg; /* its output tells */
    (void)wait_status;
}

static bool features_start(struct node *node, struct handler *handler, struct status *err)
{
    static const char *const argv[] = { "/proc/self/exe", "agent", "features", NULL };
    const char *engine = *handler->options->engine != '\0' ? handler->options->engine : "auto";
    cleanup_free char *variable = xasprintf("INTERLINK_ENGINE=%s", engine);
    cleanup_free char *images = xasprintf("INTERLINK_IMAGES=%s", node->options->image_dir);
    const char *const envp[] = { variable, images, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
    struct features_question *q = xcalloc(1, sizeof *q);
    int fds[2];

    *q = (struct features_question){ .handler = handler, .fd = -1 };
    if (pipe2(fds, O_CLOEXEC) < 0) {
        free(q);
        return status_errno(err, "no pipe");
    }
    struct child_options options = {
        .argv = argv, .envp = envp, .stdin_fd = -1, .stdout_fd = fds[1], .stderr_fd = -1, .die_with_parent = true,
    };
    q->fd = fds[0];
    handler->question = q;
    fd_set_nonblocking(q->fd, true);
    bool ok = child_spawn(node->loop, &q->child, &options, features_on_exit, q, err);
    close(fds[1]);
    return ok && watch_start(node->loop, &q->watch, q->fd, WATCH_READ, features_on_readable, q, err);
}

void features_ask(struct node *node)
{
    struct status err = STATUS_INIT;

    for (size_t i = 0; i < node->options->handler_count; i++) {
        struct handler *handler = &node->handlers[i];
        if (!handler->local || features_start(node, handler, &err))
            continue;
        log_warn("what containers can have on this machine is not known: %s", err.message);
        features_free(handler);
    }
}

#undef FEATURES_ANSWER_MAX
