/* SPDX-License-Identifier: Apache-2.0 */
/* interlink_kit.h: the REST client, and in the same process a server that answers as API servers and plugins do, faults included. */
#ifndef TEST_INTERLINK_KIT_H
#define TEST_INTERLINK_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <unistd.h>

#include "http/server.h"
#include "interlink/interlink.h"
#include "interlink/target.h"
#include "io/file.h"
#include "io/socket.h"
#include "text/json.h"

#define JOBS_MAX 16

/* How the server answers. */
struct way {
    int status;
    const char *text; /* NULL: computed */
    bool drop, hold;
    const char *header, *value; /* one more header; NULL: none */
    bool truncate;              /* the connection breaks in the middle of the text */
    size_t huge;                /* so many blanks before the text */
};

/* What one job's owner has heard. */
struct owner {
    struct fixture *f;
    struct interlink_job *job;
    char uid[40];
    int submitted, rejected, states, cancelled, retries;
    char jid[64];
    struct status error, retry;
    enum interlink_phase phase;
    int exit_code;
    char message[256];
    bool free_on_submitted, free_on_state, free_on_rejected, free_on_cancelled;
};

struct fixture {
    struct loop *loop;
    struct http_server *server;
    struct listener listener;
    struct interlink_target *target;
    char dir[64], url[128];
    /* How to answer: a status and a text, or one of the ways below. */
    struct way create, status, delete_, ping;
    const char *state; /* JSON of every container's state */
    const char *poison; /* a uid that makes /status fail */
    const char *poison_text;
    const char *left_out; /* a uid that /status does not name */
    int creates, statuses, deletes, pings, largest_batch, last_batch;
    struct http_exchange *held;
    struct http_exchange *held_creates[JOBS_MAX];
    size_t held_count;
    struct buf last_body, authorization, session;
    struct owner owners[JOBS_MAX];
    int pinged;
    char ping_status[64], ping_cpu[16];
    struct status ping_error;
    struct buf logs;
    int log_ends;
    struct status log_error;
    bool log_slow, logs_cut;
};

/* ---- the server ---- */

static void keep(struct buf *to, const char *text)
{
    buf_clear(to);
    buf_append_str(to, text != NULL ? text : "");
}

static void note(struct fixture *f, struct http_exchange *x)
{
    struct str body = http_exchange_body(x);

    buf_clear(&f->last_body);
    buf_append(&f->last_body, body.p, body.n);
    keep(&f->authorization, http_exchange_header(x, "Authorization"));
    keep(&f->session, http_exchange_header(x, "InterLink-Http-Session"));
    const char *path = http_exchange_path(x);
    assert_string_equal(http_exchange_method(x), strstr(path, "create") != NULL   ? "POST"
                                                 : strstr(path, "delete") != NULL ? "DELETE"
                                                                                  : "GET");
}

static const struct way well = { .status = 200 };

/* `text`: when the way has none. */
static void reply(struct http_exchange *x, const struct way *way, const char *text)
{
    static char blanks[65536];
    const struct http_header header = { way->header, way->value };

    if (way->text != NULL)
        text = way->text;
    if (!way->truncate && way->huge == 0) {
        http_reply(x, way->status, &header, way->header != NULL, text, strlen(text));
        return;
    }
    memset(blanks, ' ', sizeof blanks);
    http_reply_start(x, way->status, &header, way->header != NULL);
    for (size_t sent = 0; sent < way->huge; sent += sizeof blanks)
        http_reply_send(x, blanks, sizeof blanks);
    http_reply_send(x, text, way->truncate ? strlen(text) / 2 : strlen(text));
    if (way->truncate)
        http_reply_abort(x);
    else
        http_reply_end(x);
}

static void on_create(void *context, struct http_exchange *x)
{
    struct fixture *f = context;
    struct interlink_create create;
    struct status err = STATUS_INIT;

    note(f, x);
    f->creates++;
    assert_true(interlink_create_read(http_exchange_arena(x), http_exchange_body(x), &create, &err));
    if (f->create.drop)
        http_reply_abort(x);
    else if (f->create.hold)
        f->held = f->held_creates[f->held_count++ % JOBS_MAX] = x;
    else
        reply(x, f->create.text != NULL || f->create.truncate ? &f->create : &well,
              arena_printf(http_exchange_arena(x), "{\"PodUID\":\"%s\",\"PodJID\":\"job-%.4s\"}", create.pod.uid, create.pod.uid));
}

static void on_status(void *context, struct http_exchange *x)
{
    struct fixture *f = context;
    cleanup_buf struct buf out = BUF_INIT;
    struct status err = STATUS_INIT;
    const struct json *pods = json_parse(http_exchange_arena(x), http_exchange_body(x), &err);
    bool poisoned = false;

    note(f, x);
    f->statuses++;
    assert_true(json_is(pods, JSON_ARRAY));
    f->last_batch = (int)pods->count;
    f->largest_batch = f->last_batch > f->largest_batch ? f->last_batch : f->largest_batch;
    buf_append_byte(&out, '[');
    for (JSON_EACH(pod, pods)) {
        const char *uid = json_string(json_get(pod, "metadata", "uid"), "");
        const char *phase = json_string(json_get(pod, "status", "phase"), "");
        assert_true(strcmp(phase, "Pending") == 0 || strcmp(phase, "Running") == 0);
        assert_true(json_get(pod, "spec", "containers", "0", "name") != NULL);
        poisoned = poisoned || (f->poison != NULL && strcmp(uid, f->poison) == 0);
        if (f->left_out != NULL && strcmp(uid, f->left_out) == 0)
            continue;
        buf_printf(&out, "%s{\"name\":\"n\",\"UID\":\"%s\",\"namespace\":\"d\",\"JID\":\"\",\"containers\":[{\"name\":\"c\",\"state\":%s}],"
                         "\"initContainers\":null}", out.n > 1 ? "," : "", uid, f->state);
    }
    buf_append_byte(&out, ']');
    if (poisoned)
        http_replyf(x, 500, "HTTP InterLink session R:  call exit status: 500. Body: %s", f->poison_text);
    else if (f->status.hold)
        f->held = x;
    else
        reply(x, f->status.text != NULL || f->status.truncate || f->status.huge > 0 ? &f->status : &well, buf_cstr(&out));
}

static void on_delete(void *context, struct http_exchange *x)
{
    struct fixture *f = context;
    struct interlink_pod pod;
    struct status err = STATUS_INIT;

    note(f, x);
    f->deletes++;
    assert_true(interlink_pod_read(http_exchange_arena(x), http_exchange_body(x), &pod, &err));
    assert_true(interlink_uid_valid(pod.uid));
    if (f->delete_.drop)
        http_reply_abort(x);
    else
        reply(x, &f->delete_, "ok");
}

static void on_ping(void *context, struct http_exchange *x)
{
    struct fixture *f = context;

    note(f, x);
    f->pings++;
    reply(x, &f->ping, "{\"status\":\"ok\",\"resources\":{\"cpu\":\"4\"}}");
}

static void on_logs(void *context, struct http_exchange *x)
{
    struct fixture *f = context;
    char line[4096];

    note(f, x);
    if (strstr(buf_cstr(&f->last_body), "\"Tail\":9") != NULL) {
        http_replyf(x, 404, "no such job");
        return;
    }
    memset(line, 'x', sizeof line);
    http_reply_start(x, 200, NULL, 0);
    for (int i = 0; i < 256; i++)
        http_reply_send(x, line, sizeof line);
    if (f->logs_cut)
        http_reply_abort(x);
    else
        http_reply_end(x);
}

static const struct http_route routes[] = {
    { NULL, "/base/create", 1 << 20, false, on_create }, { NULL, "/create", 1 << 20, false, on_create },
    { NULL, "/status", 8 << 20, false, on_status },      { NULL, "/delete", 1 << 20, false, on_delete },
    { NULL, "/pinglink", 1 << 20, false, on_ping },      { NULL, "/getLogs", 1 << 20, false, on_logs },
};

/* ---- the owner ---- */

static void drop_job(struct owner *o)
{
    interlink_job_free(o->job);
    o->job = NULL;
}

static void heard_submitted(void *arg, const char *jid)
{
    struct owner *o = arg;

    o->submitted++;
    snprintf(o->jid, sizeof o->jid, "%s", jid);
    if (o->free_on_submitted)
        drop_job(o);
}

static void heard_rejected(void *arg, const struct status *err)
{
    struct owner *o = arg;

    o->rejected++;
    o->error = *err;
    if (o->free_on_rejected)
        drop_job(o);
}

static void heard_state(void *arg, const struct interlink_job_state *state)
{
    struct owner *o = arg;

    assert_true(o->submitted > 0 || o->f == NULL);
    o->states++;
    o->phase = state->phase;
    o->exit_code = state->exit_code;
    snprintf(o->message, sizeof o->message, "%s|%s", state->reason, state->message);
    if (o->free_on_state)
        drop_job(o);
}

static void heard_cancelled(void *arg)
{
    struct owner *o = arg;

    o->cancelled++;
    if (o->free_on_cancelled)
        drop_job(o);
}

static void heard_retry(void *arg, const struct status *err)
{
    struct owner *o = arg;

    o->retries++;
    o->retry = *err;
}

static bool heard_bytes(void *arg, const void *p, size_t n)
{
    struct fixture *f = arg;

    buf_append(&f->logs, p, n);
    return !f->log_slow;
}

static void heard_log_end(void *arg, const struct status *err)
{
    struct fixture *f = arg;

    f->log_ends++;
    f->log_error = err != NULL ? *err : (struct status)STATUS_INIT;
}

static const struct interlink_job_events events = { .on_submitted = heard_submitted, .on_rejected = heard_rejected, .on_state = heard_state };
static const struct interlink_logs_events log_events = { heard_bytes, heard_log_end };

/* ---- fixture ---- */

static void target_start(struct fixture *f, bool remote)
{
    struct status err = STATUS_INIT;
    struct interlink_target_options options = { .name = "hpc", .url = f->url, .bearer_token_file = "", .ca_file = "",
                                                .client_cert_file = "", .client_key_file = "", .remote = remote,
                                                .poll_ms = 20, .poll_steady_ms = 50 };
    cleanup_free char *token = xasprintf("%s/token", f->dir);

    if (access(token, F_OK) == 0)
        options.bearer_token_file = token;
    f->target = interlink_target_new(f->loop, &options, &err);
    assert_non_null(f->target);
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct status err = STATUS_INIT;
    struct address address;

    snprintf(f->dir, sizeof f->dir, "/tmp/test-interlink-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->url, sizeof f->url, "unix://%s/api.sock", f->dir);
    f->loop = loop_new(&err);
    f->server = http_server_new(f->loop, &(struct http_server_options){ .routes = routes, .route_count = COUNT_OF(routes),
                                                                        .context = f });
    assert_true(address_parse(f->url, &address, &err));
    assert_true(listener_open(f->loop, &f->listener, &address, 0600, http_server_accept_fd, f->server, NULL, &err));
    f->create.status = f->status.status = f->delete_.status = f->ping.status = 200;
    f->state = "{\"waiting\":{}}";
    f->poison_text = "open run-c.status: no such file";
    for (size_t i = 0; i < JOBS_MAX; i++) {
        f->owners[i].f = f;
        snprintf(f->owners[i].uid, sizeof f->owners[i].uid, "%08zx-0000-4000-8000-000000000000", i + 1);
    }
    target_start(f, false);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;

    for (size_t i = 0; i < JOBS_MAX; i++)
        interlink_job_free(f->owners[i].job);
    interlink_target_free(f->target);
    if (f->listener.fd >= 0)
        listener_close(&f->listener);
    http_server_free(f->server);
    if (f->held != NULL)
        http_reply_abort(f->held);
    loop_free(f->loop);
    assert_true(tree_remove(f->dir, &err));
    buf_free(&f->last_body);
    buf_free(&f->authorization);
    buf_free(&f->session);
    buf_free(&f->logs);
    free(f);
    return 0;
}

/* Turns the loop until the condition holds; fails after ten seconds. */
#define UNTIL(f, condition)                                                                                            \
    do {                                                                                                               \
        int64_t until_ = clock_mono_ms() + 10000;                                                                      \
        while (!(condition)) {                                                                                         \
            if (clock_mono_ms() > until_)                                                                              \
                fail_msg("never: %s", #condition);                                                                     \
            loop_turn((f)->loop, 10);                                                                                  \
        }                                                                                                              \
    } while (0)

/* What a failed query or a Retry-After makes the client wait for is over. */
__attribute__((unused)) static void target_forget_pause(struct fixture *f)
{
    f->target->hold_ms = f->target->poll.allowed_ms = 0;
    timer_stop(&f->target->poll.timer);
    interlink_poll_schedule(f->target);
}

static void turn_for(struct fixture *f, int64_t ms)
{
    for (int64_t until = clock_mono_ms() + ms; clock_mono_ms() < until;)
        loop_turn(f->loop, 5);
}

static struct owner *new_job(struct fixture *f, size_t i)
{
    static struct interlink_container container = { .name = "c", .image = "i", .working_dir = "", .env_from = "" };
    struct owner *o = &f->owners[i];
    struct interlink_create create = INTERLINK_CREATE_INIT;
    cleanup_free char *name = xasprintf("pod-%zu", i);

    create.pod.name = name;
    create.pod.namespace_ = "default";
    create.pod.uid = o->uid;
    create.pod.containers = &container;
    create.pod.container_count = 1;
    o->job = interlink_job_new(f->target, &create, &events, o);
    return o;
}

static struct owner *submitted_job(struct fixture *f, size_t i)
{
    struct owner *o = new_job(f, i);

    interlink_job_submit(o->job);
    UNTIL(f, o->submitted == 1);
    return o;
}

#endif
