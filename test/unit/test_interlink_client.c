/* SPDX-License-Identifier: Apache-2.0 */
/* The REST client against a server in the same process that answers as API servers and plugins do, faults included. */
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
    struct {
        int status;
        const char *text; /* NULL: computed */
        bool drop, hold;
    } create, status, delete_, ping;
    const char *state; /* JSON of every container's state */
    const char *poison; /* a uid that makes /status fail */
    const char *left_out; /* a uid that /status does not name */
    int creates, statuses, deletes, pings, largest_batch, last_batch;
    struct http_exchange *held;
    struct buf last_body, authorization, session;
    struct owner owners[JOBS_MAX];
    int pinged;
    char ping_status[64], ping_cpu[16];
    struct status ping_error;
    struct buf logs;
    int log_ends;
    struct status log_error;
    bool log_slow;
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

static void reply(struct http_exchange *x, int status, const char *text)
{
    http_reply(x, status, NULL, 0, text, strlen(text));
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
        f->held = x;
    else if (f->create.text != NULL)
        reply(x, f->create.status, f->create.text);
    else
        http_replyf(x, 200, "{\"PodUID\":\"%s\",\"PodJID\":\"job-%.4s\"}", create.pod.uid, create.pod.uid);
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
        http_replyf(x, 500, "HTTP InterLink session R:  call exit status: 500. Body: open run-c.status: no such file");
    else if (f->status.text != NULL)
        reply(x, f->status.status, f->status.text);
    else
        reply(x, 200, buf_cstr(&out));
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
        reply(x, f->delete_.status, f->delete_.text != NULL ? f->delete_.text : "ok");
}

static void on_ping(void *context, struct http_exchange *x)
{
    struct fixture *f = context;

    note(f, x);
    f->pings++;
    reply(x, f->ping.status, f->ping.text != NULL ? f->ping.text : "{\"status\":\"ok\",\"resources\":{\"cpu\":\"4\"}}");
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

static const struct interlink_job_events events = { heard_submitted, heard_rejected, heard_state };

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

/* ---- a job's life ---- */

static void test_life(void **state)
{
    struct fixture *f = *state;
    struct owner *o = submitted_job(f, 0);

    assert_string_equal(o->jid, "job-0000");
    assert_true(str_starts(buf_cstr(&f->session), "interlink-cri-"));
    UNTIL(f, o->phase == INTERLINK_WAITING);
    turn_for(f, 100);
    assert_int_equal(o->states, 1); /* what has not changed is not told again */
    f->state = "{\"waiting\":{\"reason\":\"Priority\",\"message\":\"12 ahead\"}}";
    UNTIL(f, o->states == 2);
    assert_string_equal(o->message, "Priority|12 ahead");
    f->state = "{\"running\":{\"startedAt\":\"2026-11-24T03:29:36Z\"}}";
    UNTIL(f, o->phase == INTERLINK_RUNNING);
    assert_true(interlink_job_state(o->job)->started_ns > 0);
    assert_string_equal(interlink_job_state(o->job)->jid, "job-0000");
    turn_for(f, 120);
    assert_non_null(strstr(buf_cstr(&f->last_body), "\"phase\":\"Running\""));
    f->state = "{\"terminated\":{\"exitCode\":7,\"reason\":\"Error\"}}";
    UNTIL(f, o->phase == INTERLINK_TERMINATED);
    assert_int_equal(o->exit_code, 7);
    int asked = f->statuses;
    turn_for(f, 200);
    assert_int_equal(f->statuses, asked); /* it has ended: nobody asks any more */
    interlink_job_cancel(o->job, 5, heard_cancelled, heard_retry, o);
    UNTIL(f, o->cancelled == 1);
    assert_non_null(strstr(buf_cstr(&f->last_body), "\"deletionGracePeriodSeconds\":5"));
    assert_int_equal(interlink_job_stage(o->job), INTERLINK_JOB_CANCELLED);
    assert_int_equal(f->creates, 1);
}

static void test_nothing_is_asked_without_jobs(void **state)
{
    struct fixture *f = *state;

    turn_for(f, 150);
    assert_int_equal(f->statuses + f->pings, 0);
    struct owner *o = submitted_job(f, 0);
    UNTIL(f, f->statuses > 0);
    drop_job(o);
    turn_for(f, 60);
    int asked = f->statuses;
    turn_for(f, 150);
    assert_int_equal(f->statuses, asked);
}

static void test_one_query_for_all(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < JOBS_MAX; i++)
        submitted_job(f, i);
    UNTIL(f, f->last_batch == JOBS_MAX);
    for (size_t i = 0; i < JOBS_MAX; i++)
        UNTIL(f, f->owners[i].phase == INTERLINK_WAITING);
}

/* ---- create ---- */

static void test_refused_in_the_plugins_words(void **state)
{
    struct fixture *f = *state;
    struct owner *o = new_job(f, 0);

    f->create.status = 504;
    f->create.text = "HTTP InterLink session R:  call exit status: 500. Body: sbatch: &lt;Invalid&gt; account";
    interlink_job_submit(o->job);
    UNTIL(f, o->rejected == 1);
    assert_int_equal(o->error.code, STATUS_UNAVAILABLE);
    assert_string_equal(o->error.message, "interLink at \"hpc\": /create answered 504: sbatch: <Invalid> account");
    assert_int_equal(interlink_job_stage(o->job), INTERLINK_JOB_REJECTED);
    f->create.status = 422;
    f->create.text = "no such pods here";
    interlink_job_submit(o->job);
    UNTIL(f, o->rejected == 2);
    assert_int_equal(o->error.code, STATUS_FAILED_PRECONDITION);
    f->create.text = NULL;
    interlink_job_submit(o->job);
    UNTIL(f, o->submitted == 1);
    assert_int_equal(f->creates, 3);
}

static void test_nobody_there(void **state)
{
    struct fixture *f = *state;
    struct owner *o = new_job(f, 0);

    listener_close(&f->listener);
    interlink_job_submit(o->job);
    UNTIL(f, o->rejected == 1);
    assert_int_equal(o->error.code, STATUS_UNAVAILABLE);
    interlink_job_cancel(o->job, -1, heard_cancelled, heard_retry, o);
    UNTIL(f, o->cancelled == 1); /* it was never there */
}

/* Each way in which a create gets no clear answer. */
enum { NO_ANSWERS = 8 };
static void no_answer(struct fixture *f, int way)
{
    f->create.drop = way == 0;
    static const int statuses[NO_ANSWERS] = { 200, 500, 504, 200, 200, 504, 502, 503 };
    static const char *const texts[NO_ANSWERS] = {
        NULL, "", "", "", "{}", "<html><title>504 Gateway Time-out</title></html>", "Bad Gateway", "<html>503</html>",
    };

    f->create.status = statuses[way];
    f->create.text = texts[way];
}

static void test_no_answer_and_it_was_created(void **state)
{
    struct fixture *f = *state;

    f->state = "{\"running\":{}}";
    for (int way = 0; way < NO_ANSWERS; way++) {
        struct owner *o = new_job(f, (size_t)way);
        no_answer(f, way);
        interlink_job_submit(o->job);
        UNTIL(f, o->submitted == 1);
        assert_int_equal(o->states, 1);
        assert_int_equal(o->phase, INTERLINK_RUNNING);
        assert_int_equal(f->creates, way + 1);
        assert_int_equal(o->rejected, 0);
    }
}

static void test_no_answer_and_it_was_not(void **state)
{
    struct fixture *f = *state;

    f->state = "{}";
    for (int way = 0; way < NO_ANSWERS; way++) {
        struct owner *o = new_job(f, (size_t)way);
        int asked = f->statuses;
        no_answer(f, way);
        interlink_job_submit(o->job);
        UNTIL(f, o->rejected == 1);
        assert_int_equal(o->error.code, STATUS_UNAVAILABLE);
        assert_true(f->statuses - asked >= INTERLINK_GONE_ANSWERS);
        assert_int_equal(o->states + o->submitted, 0);
    }
    assert_int_equal(f->creates, NO_ANSWERS);
    /* Now it may be sent again. */
    f->create.text = NULL;
    f->create.status = 200;
    f->create.drop = false;
    interlink_job_submit(f->owners[0].job);
    UNTIL(f, f->owners[0].submitted == 1);
}

/* Answers that never name the pod settle nothing: what may be there under its uid is deleted before anything is told. */
static void test_no_answer_and_never_named(void **state)
{
    struct fixture *f = *state;
    struct owner *o = new_job(f, 0);

    f->create.drop = true;
    f->left_out = o->uid;
    f->delete_.status = 500;
    f->delete_.text = "";
    interlink_job_submit(o->job);
    UNTIL(f, o->rejected == 1);
    assert_int_equal(f->deletes, 1);
    assert_int_equal(f->creates, 1);
}

static void test_status_fails_while_unsure(void **state)
{
    struct fixture *f = *state;
    struct owner *o = new_job(f, 0);

    f->create.drop = true;
    f->status.status = 200;
    f->status.text = "null";
    interlink_job_submit(o->job);
    UNTIL(f, f->statuses > 0);
    assert_int_equal(interlink_job_stage(o->job), INTERLINK_JOB_UNSURE);
    assert_int_equal(interlink_job_error(o->job)->code, STATUS_UNAVAILABLE);
    f->status.text = NULL;
    UNTIL(f, o->submitted == 1);
}

static void test_adoption(void **state)
{
    struct fixture *f = *state;
    struct owner *known = new_job(f, 0), *unsure = new_job(f, 1), *lost = new_job(f, 2);

    known->submitted = 1; /* in an earlier life */
    interlink_job_adopt(known->job, "4711", true, 0);
    interlink_job_adopt(unsure->job, "", false, 0);
    assert_string_equal(interlink_job_state(known->job)->jid, "4711");
    UNTIL(f, known->phase == INTERLINK_WAITING && unsure->submitted == 1 && unsure->phase == INTERLINK_WAITING);
    f->state = "{}";
    interlink_job_adopt(lost->job, "", false, 0);
    UNTIL(f, lost->rejected == 1);
    UNTIL(f, known->phase == INTERLINK_GONE); /* the site has forgotten it */
    assert_int_equal(interlink_job_stage(known->job), INTERLINK_JOB_GONE);
    assert_int_equal(f->creates, 0);
}

/* ---- cancel ---- */

static void test_cancel_of_what_is_unknown(void **state)
{
    struct fixture *f = *state;
    struct owner *a = submitted_job(f, 0), *b = submitted_job(f, 1);

    f->delete_.status = 404;
    f->delete_.text = "no job with the uid";
    interlink_job_cancel(a->job, 0, heard_cancelled, heard_retry, a);
    UNTIL(f, a->cancelled == 1);
    assert_int_equal(f->deletes, 1);
    /* A bare 500 is either that or a plugin that is down: a ping between two of them tells. */
    f->delete_.status = 500;
    f->delete_.text = "";
    interlink_job_cancel(b->job, 0, heard_cancelled, heard_retry, b);
    UNTIL(f, b->cancelled == 1);
    assert_int_equal(f->deletes, 3);
    assert_int_equal(f->pings, 1);
    assert_int_equal(b->retries, 0);
}

static void test_cancel_is_repeated(void **state)
{
    struct fixture *f = *state;
    struct owner *o = submitted_job(f, 0);

    f->delete_.status = f->ping.status = 500;
    f->delete_.text = f->ping.text = "";
    interlink_job_cancel(o->job, 0, heard_cancelled, heard_retry, o);
    UNTIL(f, o->retries == 1); /* down */
    f->ping.status = 200;
    f->delete_.status = 504;
    f->delete_.text = "HTTP InterLink session R:  call exit status: 500. Body: scancel: error: busy";
    UNTIL(f, o->retries == 2);
    assert_non_null(strstr(o->retry.message, "scancel: error: busy"));
    f->delete_.drop = true;
    UNTIL(f, o->retries == 3);
    f->delete_.drop = false;
    f->delete_.status = 200;
    /* A second cancel does not wait for the back-off of the first. */
    interlink_job_cancel(o->job, 1, heard_cancelled, heard_retry, o);
    UNTIL(f, o->cancelled == 1);
    assert_non_null(strstr(buf_cstr(&f->last_body), "\"deletionGracePeriodSeconds\":1"));
}

static void test_cancel_waits_for_the_create(void **state)
{
    struct fixture *f = *state;
    struct owner *o = new_job(f, 0);

    f->create.hold = true;
    interlink_job_submit(o->job);
    UNTIL(f, f->held != NULL);
    interlink_job_cancel(o->job, 0, heard_cancelled, heard_retry, o);
    turn_for(f, 50);
    assert_int_equal(f->deletes, 0);
    reply(steal_ptr(&f->held), 200, "{\"PodUID\":\"x\",\"PodJID\":\"7\"}");
    UNTIL(f, o->cancelled == 1);
    assert_int_equal(f->deletes, 1);
    assert_int_equal(o->submitted, 0);
}

static void test_cancel_before_anything(void **state)
{
    struct fixture *f = *state;
    struct owner *o = new_job(f, 0);

    interlink_job_cancel(o->job, 0, heard_cancelled, heard_retry, o);
    assert_int_equal(o->cancelled, 0); /* not from inside the call */
    UNTIL(f, o->cancelled == 1);
    interlink_job_cancel(o->job, 0, heard_cancelled, heard_retry, o);
    UNTIL(f, o->cancelled == 2);
    assert_int_equal(f->creates + f->deletes, 0);
}

static void test_cancel_while_unsure(void **state)
{
    struct fixture *f = *state;
    struct owner *o = new_job(f, 0);

    f->create.drop = true;
    f->status.text = "null";
    interlink_job_submit(o->job);
    UNTIL(f, interlink_job_stage(o->job) == INTERLINK_JOB_UNSURE);
    interlink_job_cancel(o->job, 0, heard_cancelled, heard_retry, o);
    UNTIL(f, o->cancelled == 1);
    assert_int_equal(f->deletes, 1);
}

/* ---- status ---- */

static void test_no_news(void **state)
{
    static const char *const texts[] = { "null", "[]", "[null]", "", "[{\"name\":\"x\",\"UID\":7", "true" };
    struct fixture *f = *state;
    struct owner *o = submitted_job(f, 0);

    UNTIL(f, o->phase == INTERLINK_WAITING);
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        f->status.text = texts[i];
        int asked = f->statuses;
        interlink_target_poll_soon(f->target);
        UNTIL(f, f->statuses > asked);
        turn_for(f, 20);
        assert_int_equal(interlink_target_health(f->target)->code == STATUS_OK, i < 3);
        f->status.text = NULL;
        asked = f->statuses;
        UNTIL(f, interlink_target_health(f->target)->code == STATUS_OK && f->statuses > asked);
    }
    assert_int_equal(o->states, 1);
    assert_int_equal(interlink_job_stage(o->job), INTERLINK_JOB_SUBMITTED);
}

static void test_a_pod_that_spoils_the_batch(void **state)
{
    struct fixture *f = *state;

    f->state = "{\"running\":{}}";
    for (size_t i = 0; i < 9; i++) {
        struct owner *o = new_job(f, i);
        o->submitted = 1;
        interlink_job_adopt(o->job, "", true, 0);
    }
    f->poison = f->owners[5].uid;
    UNTIL(f, f->owners[5].states == 1);
    assert_int_equal(f->owners[5].phase, INTERLINK_UNKNOWN);
    assert_non_null(strstr(f->owners[5].message, "run-c.status"));
    for (size_t i = 0; i < 9; i++)
        if (i != 5)
            UNTIL(f, f->owners[i].phase == INTERLINK_RUNNING);
    assert_true(f->pings > 0);
    int pings = f->pings;
    f->state = "{\"terminated\":{\"exitCode\":0}}";
    for (size_t i = 0; i < 9; i++)
        if (i != 5)
            UNTIL(f, f->owners[i].phase == INTERLINK_TERMINATED);
    assert_int_equal(f->pings, pings); /* it was left out */
    assert_int_equal(f->owners[5].states, 1);
}

static void test_plugin_down(void **state)
{
    struct fixture *f = *state;
    struct owner *a = submitted_job(f, 0), *b = submitted_job(f, 1);

    UNTIL(f, a->phase == INTERLINK_WAITING && b->phase == INTERLINK_WAITING);
    f->status.status = f->ping.status = 500;
    f->status.text = f->ping.text = "";
    UNTIL(f, interlink_target_health(f->target)->code == STATUS_UNAVAILABLE && f->pings > 0);
    turn_for(f, 100);
    assert_int_equal(a->states + b->states, 2);
    f->status.status = f->ping.status = 200;
    f->status.text = f->ping.text = NULL;
    f->state = "{\"running\":{}}";
    UNTIL(f, a->phase == INTERLINK_RUNNING && b->phase == INTERLINK_RUNNING);
    assert_int_equal(interlink_target_health(f->target)->code, STATUS_OK);
}

static void test_remote_pace(void **state)
{
    struct fixture *f = *state;

    interlink_target_free(f->target);
    target_start(f, true);
    struct owner *o = new_job(f, 0);
    o->submitted = 1;
    interlink_job_adopt(o->job, "", true, 0);
    interlink_target_poll_soon(f->target);
    UNTIL(f, o->phase == INTERLINK_WAITING);
    for (int i = 0; i < 50; i++) {
        interlink_target_poll_soon(f->target);
        turn_for(f, 10);
    }
    assert_int_equal(f->statuses, 1);
}

/* The stock Slurm plugin calls a job whose nodes are being booted ended, with 0. */
static void test_an_end_before_the_beginning(void **state)
{
    struct fixture *f = *state;
    struct interlink_container_state c = { .name = "c", .phase = INTERLINK_TERMINATED, .reason = "", .message = "" };
    struct interlink_pod_status s = { .name = "", .uid = "", .namespace_ = "", .jid = "", .nodes = "", .containers = &c,
                                      .container_count = 1 };

    interlink_target_free(f->target);
    target_start(f, true);
    struct owner *o = new_job(f, 0);
    o->submitted = 1;
    interlink_job_adopt(o->job, "", true, 0);
    interlink_job_apply(o->job, &s);
    assert_int_equal(o->states, 0);
    c.phase = INTERLINK_RUNNING;
    interlink_job_apply(o->job, &s);
    assert_int_equal(o->phase, INTERLINK_RUNNING);
    c.phase = INTERLINK_TERMINATED;
    interlink_job_apply(o->job, &s); /* it has run: believed at once */
    assert_int_equal(o->phase, INTERLINK_TERMINATED);
    o = new_job(f, 1);
    o->submitted = 1;
    interlink_job_adopt(o->job, "", true, 0);
    interlink_job_apply(o->job, &s);
    assert_int_equal(o->states, 0);
    o->job->doubt_ms -= INTERLINK_END_DOUBT_MS; /* it stayed so */
    interlink_job_apply(o->job, &s);
    assert_int_equal(o->phase, INTERLINK_TERMINATED);
    o = new_job(f, 2);
    o->submitted = 1;
    interlink_job_adopt(o->job, "", true, 0);
    c.exit_code = 1; /* a failure is one */
    interlink_job_apply(o->job, &s);
    assert_int_equal(o->phase, INTERLINK_TERMINATED);
}

/* ---- callbacks that free ---- */

static void test_jobs_may_go_in_any_callback(void **state)
{
    struct fixture *f = *state;
    struct owner *a = new_job(f, 0), *b = submitted_job(f, 1), *c = new_job(f, 2), *d = new_job(f, 3), *e;

    a->free_on_submitted = true;
    f->create.drop = true; /* told by a status answer */
    interlink_job_submit(a->job);
    UNTIL(f, a->submitted == 1 && a->job == NULL);
    f->create.drop = false;
    b->states = 0;
    b->free_on_state = true;
    f->state = "{\"running\":{}}";
    UNTIL(f, b->job == NULL);
    f->create.status = 400;
    f->create.text = "no";
    c->free_on_rejected = true;
    interlink_job_submit(c->job);
    UNTIL(f, c->job == NULL);
    d->free_on_cancelled = true;
    interlink_job_cancel(d->job, 0, heard_cancelled, NULL, d);
    UNTIL(f, d->job == NULL);
    f->create.text = NULL;
    e = submitted_job(f, 4);
    e->free_on_cancelled = true;
    interlink_job_cancel(e->job, 0, heard_cancelled, NULL, e);
    UNTIL(f, e->job == NULL);
    assert_int_equal(interlink_target_job_count(f->target), 0);
}

/* ---- token, ping, logs, URLs ---- */

static void test_bearer_token(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;
    cleanup_free char *path = xasprintf("%s/token", f->dir);

    assert_true(file_replace(path, "one\n", 4, 0600, &err));
    interlink_target_free(f->target);
    target_start(f, false);
    submitted_job(f, 0);
    assert_string_equal(buf_cstr(&f->authorization), "Bearer one");
    assert_true(file_replace(path, "two", 3, 0600, &err));
    submitted_job(f, 1);
    assert_string_equal(buf_cstr(&f->authorization), "Bearer two");
    assert_true(file_replace(path, "a\nb", 3, 0600, &err));
    struct owner *o = new_job(f, 2);
    interlink_job_submit(o->job);
    UNTIL(f, o->rejected == 1);
    assert_int_equal(o->error.code, STATUS_FAILED_PRECONDITION);
    unlink(path);
    interlink_job_submit(o->job);
    UNTIL(f, o->rejected == 2);
    assert_int_equal(o->error.code, STATUS_NOT_FOUND);
}

static void heard_ping(void *arg, const struct interlink_ping *ping, const struct status *err)
{
    struct fixture *f = arg;

    f->pinged++;
    if (err != NULL) {
        f->ping_error = *err;
        return;
    }
    snprintf(f->ping_status, sizeof f->ping_status, "%s", ping->status);
    snprintf(f->ping_cpu, sizeof f->ping_cpu, "%s", ping->cpu);
}

static void test_ping(void **state)
{
    struct fixture *f = *state;

    interlink_target_ping(f->target, heard_ping, f);
    UNTIL(f, f->pinged == 1);
    assert_string_equal(f->ping_cpu, "4");
    f->ping.text = "pong";
    interlink_target_ping(f->target, heard_ping, f);
    UNTIL(f, f->pinged == 2);
    assert_string_equal(f->ping_status, "pong");
    f->ping.status = 503;
    interlink_target_ping(f->target, heard_ping, f);
    UNTIL(f, f->pinged == 3);
    assert_int_equal(f->ping_error.code, STATUS_UNAVAILABLE);
    assert_int_equal(interlink_target_health(f->target)->code, STATUS_UNAVAILABLE);
    interlink_target_ping(f->target, heard_ping, f); /* dropped with the target */
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

static void test_logs(void **state)
{
    static const struct interlink_logs_events log_events = { heard_bytes, heard_log_end };
    struct fixture *f = *state;
    struct interlink_log_request request = { .namespace_ = "d", .pod_uid = f->owners[0].uid, .pod_name = "p", .container = "c" };

    interlink_logs_start(f->target, &request, &log_events, f);
    UNTIL(f, f->log_ends == 1);
    assert_int_equal(f->log_error.code, STATUS_OK);
    assert_int_equal(f->logs.n, 256 * 4096);
    /* Slowly: one piece, a pause, the next. */
    buf_clear(&f->logs);
    f->log_slow = true;
    struct interlink_logs *logs = interlink_logs_start(f->target, &request, &log_events, f);
    UNTIL(f, f->logs.n > 0);
    size_t before = f->logs.n;
    turn_for(f, 50);
    assert_int_equal(f->logs.n, before);
    while (f->log_ends == 1) {
        interlink_logs_resume(logs);
        loop_turn(f->loop, 5);
    }
    assert_int_equal(f->logs.n, 256 * 4096);
    request.tail = 9;
    interlink_logs_start(f->target, &request, &log_events, f);
    UNTIL(f, f->log_ends == 3);
    assert_int_equal(f->log_error.code, STATUS_NOT_FOUND);
    request.tail = 0;
    logs = interlink_logs_start(f->target, &request, &log_events, f);
    UNTIL(f, f->logs.n > 256 * 4096);
    interlink_logs_cancel(logs);
    interlink_logs_start(f->target, &request, &log_events, f); /* dropped with the target */
    assert_int_equal(f->log_ends, 3);
}

static void test_urls(void **state)
{
    static const char *const bad[] = { "", "unix://relative", "ftp://x", "http://", "http://h/?q=1", "nonsense" };
    struct fixture *f = *state;
    struct status err = STATUS_INIT;
    struct interlink_target_options options = { .name = "x", .bearer_token_file = "", .ca_file = "", .client_cert_file = "",
                                                .client_key_file = "" };

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        options.url = bad[i];
        assert_null(interlink_target_new(f->loop, &options, &err));
        assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    }
}

/* A path in the URL is kept: interLink behind a proxy. */
static void test_over_tcp_with_a_path(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;
    struct address address;
    uint16_t port;

    listener_close(&f->listener);
    assert_true(address_parse("127.0.0.1:0", &address, &err));
    assert_true(listener_open(f->loop, &f->listener, &address, 0600, http_server_accept_fd, f->server, &port, &err));
    snprintf(f->url, sizeof f->url, "http://127.0.0.1:%u/base/", port);
    interlink_target_free(f->target);
    target_start(f, false);
    struct owner *o = submitted_job(f, 0);
    assert_string_equal(o->jid, "job-0000");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_life),
        TEST(test_nothing_is_asked_without_jobs),
        TEST(test_one_query_for_all),
        TEST(test_refused_in_the_plugins_words),
        TEST(test_nobody_there),
        TEST(test_no_answer_and_it_was_created),
        TEST(test_no_answer_and_it_was_not),
        TEST(test_no_answer_and_never_named),
        TEST(test_status_fails_while_unsure),
        TEST(test_adoption),
        TEST(test_cancel_of_what_is_unknown),
        TEST(test_cancel_is_repeated),
        TEST(test_cancel_waits_for_the_create),
        TEST(test_cancel_before_anything),
        TEST(test_cancel_while_unsure),
        TEST(test_no_news),
        TEST(test_a_pod_that_spoils_the_batch),
        TEST(test_plugin_down),
        TEST(test_remote_pace),
        TEST(test_an_end_before_the_beginning),
        TEST(test_jobs_may_go_in_any_callback),
        TEST(test_bearer_token),
        TEST(test_ping),
        TEST(test_logs),
        TEST(test_urls),
        TEST(test_over_tcp_with_a_path),
    };

    log_setup(LOG_ERROR, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
