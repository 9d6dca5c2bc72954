/* SPDX-License-Identifier: Apache-2.0 */
/* The REST client against a server in the same process that answers as API servers and plugins do, faults included. */
#include "interlink_kit.h"

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
    reply(steal_ptr(&f->held), &(struct way){ .status = 200 }, "{\"PodUID\":\"x\",\"PodJID\":\"7\"}");
    UNTIL(f, o->cancelled == 1);
    assert_int_equal(f->deletes, 1);
    assert_int_equal(o->submitted, 0);
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

/* Only some creates are under way, the others' time does not run, and nothing else waits behind them. */
static void test_many_creates(void **state)
{
    struct fixture *f = *state;

    f->create.hold = true;
    for (size_t i = 0; i < JOBS_MAX; i++)
        interlink_job_submit(new_job(f, i)->job);
    UNTIL(f, f->held_count == INTERLINK_CREATES_MAX);
    interlink_target_ping(f->target, heard_ping, f);
    UNTIL(f, f->pinged == 1);
    assert_int_equal(f->creates, INTERLINK_CREATES_MAX);
    /* What was not sent is not there: nothing is to be deleted. */
    struct owner *last = &f->owners[JOBS_MAX - 1];
    interlink_job_cancel(last->job, 0, heard_cancelled, heard_retry, last);
    UNTIL(f, last->cancelled == 1);
    assert_int_equal(f->deletes, 0);
    drop_job(&f->owners[JOBS_MAX - 2]);
    f->create.hold = false;
    f->held = NULL;
    for (size_t i = 0; i < f->held_count; i++)
        reply(f->held_creates[i], &(struct way){ .status = 200 }, "{\"PodUID\":\"x\",\"PodJID\":\"7\"}");
    for (size_t i = 0; i < JOBS_MAX - 2; i++)
        UNTIL(f, f->owners[i].submitted == 1);
    assert_int_equal(f->creates, JOBS_MAX - 2);
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
    struct interlink_container_state c = { .name = "c", .phase = INTERLINK_TERMINATED, .reason = "", .message = "", .image = "",
                                           .image_id = "" };
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

static void test_logs(void **state)
{
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
        TEST(test_many_creates),
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
