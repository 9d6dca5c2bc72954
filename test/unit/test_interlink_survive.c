/* SPDX-License-Identifier: Apache-2.0 */
/* What the REST client outlives: answers that are slow, cut off, huge, of the wrong type, of somebody else, or "not now". */
#include "interlink_kit.h"

/* ---- create ---- */

/* A success that is none of ours says nothing: the job may be there. It is asked for, and not made again. */
static void test_only_200_is_a_success(void **state)
{
    struct fixture *f = *state;
    static const int statuses[] = { 201, 202, 204 };

    f->state = "{\"running\":{}}";
    for (size_t i = 0; i < COUNT_OF(statuses); i++) {
        struct owner *o = new_job(f, i);
        f->create = (struct way){ .status = statuses[i], .text = statuses[i] == 204 ? "" : "{\"PodUID\":\"x\",\"PodJID\":\"7\"}" };
        interlink_job_submit(o->job);
        UNTIL(f, o->submitted == 1 && o->phase == INTERLINK_RUNNING);
        assert_int_equal(f->creates, i + 1);
        assert_int_equal(o->rejected, 0);
    }
}

/* Answers of the right status with nonsense in them. */
static void test_nonsense_in_answers_to_create(void **state)
{
    struct fixture *f = *state;
    static const char *const texts[] = {
        "<html><head><title>Sign in</title></head></html>", "[]", "null", "{\"PodUID\":7}", "{\"PodUID\":[\"x\"],\"PodJID\":{}}",
        "\"ok\"", "{\"PodUID\":\"x\"", "\xff\xfe\x00",
    };

    f->state = "{\"running\":{}}";
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct owner *o = new_job(f, i);
        f->create = (struct way){ .status = 200, .text = texts[i] };
        interlink_job_submit(o->job);
        UNTIL(f, o->submitted == 1 && o->phase == INTERLINK_RUNNING);
        assert_int_equal(f->creates, i + 1);
    }
}

static void test_a_create_whose_answer_is_cut_off(void **state)
{
    struct fixture *f = *state;
    struct owner *o = new_job(f, 0);

    f->create.truncate = true;
    interlink_job_submit(o->job);
    UNTIL(f, o->submitted == 1);
    assert_int_equal(f->creates, 1);
}

/* Nobody follows it anywhere, with the pod and its token. */
static void test_a_redirected_create(void **state)
{
    struct fixture *f = *state;
    static const int statuses[] = { 301, 302, 307, 308 };

    for (size_t i = 0; i < COUNT_OF(statuses); i++) {
        struct owner *o = new_job(f, i);
        f->create = (struct way){ .status = statuses[i], .text = "moved", .header = "Location", .value = "http://127.0.0.1:1/create" };
        interlink_job_submit(o->job);
        UNTIL(f, o->rejected == 1);
        assert_non_null(strstr(o->error.message, "/create answered 30"));
        assert_int_equal(f->creates, i + 1);
    }
    assert_int_equal(f->statuses, 0);
}

/* ---- status ---- */

/* Whatever comes instead of states, what is known stays, and a good answer later counts. */
static void test_nonsense_in_answers_to_status(void **state)
{
    struct fixture *f = *state;
    struct owner *o = submitted_job(f, 0);
    const struct way ways[] = {
        { .status = 200, .text = "<html>Sign in</html>" },
        { .status = 200, .text = "" },
        { .status = 200, .text = "null" },
        { .status = 200, .text = "{}" },
        { .status = 200, .text = "[null]" },
        { .status = 200, .text = "[7,\"x\"]" },
        { .status = 200, .text = "[{\"UID\":7,\"containers\":{}}]" },
        { .status = 200, .text = "[{\"UID\":\"x\",\"containers\":[{\"state\":[]}]}]" },
        { .status = 200, .text = "[{\"UID\":\"x\",\"containers\":[{\"name\":\"c\",\"state\":{\"terminated\":{\"exitCode\":\"7\"}}}]}]" },
        { .status = 204, .text = "" },
        { .status = 302, .text = "", .header = "Location", .value = "http://127.0.0.1:1/" },
        { .status = 404, .text = "404 page not found" },
        { .status = 200, .truncate = true },
        { .status = 200, .text = "[]", .huge = INTERLINK_ANSWER_MAX + 1 },
    };

    f->state = "{\"running\":{}}";
    UNTIL(f, o->phase == INTERLINK_RUNNING);
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        int states = o->states, asked = f->statuses;
        f->status = ways[i];
        interlink_target_poll_soon(f->target);
        UNTIL(f, f->statuses > asked && f->target->poll.call == NULL && f->target->poll.probe == NULL);
        if (o->states != states || o->phase != INTERLINK_RUNNING)
            fail_msg("answer %zu changed the state to %d", i, (int)o->phase);
        /* A failure's pause is not waited for here. */
        f->status = (struct way){ .status = 200 };
        target_forget_pause(f);
    }
    f->state = "{\"terminated\":{\"exitCode\":3}}";
    interlink_target_poll_soon(f->target);
    UNTIL(f, o->phase == INTERLINK_TERMINATED);
    assert_int_equal(o->exit_code, 3);
}

/* A query that hangs holds up nothing else, and there is no second one meanwhile. */
static void test_a_status_that_hangs(void **state)
{
    struct fixture *f = *state;
    struct owner *o = submitted_job(f, 0);

    f->status.hold = true;
    UNTIL(f, f->held != NULL);
    int asked = f->statuses;
    struct owner *other = new_job(f, 1);
    interlink_job_submit(other->job);
    UNTIL(f, other->submitted == 1);
    interlink_job_cancel(o->job, 0, heard_cancelled, heard_retry, o);
    UNTIL(f, o->cancelled == 1);
    turn_for(f, 50);
    assert_int_equal(f->statuses, asked);
    f->status.hold = false;
    reply(steal_ptr(&f->held), &well, "[]");
    UNTIL(f, other->phase == INTERLINK_WAITING);
}

/* The plugin of a controller that is down: create in its words, status and ping fail, and so does a delete, which is repeated. */
static void test_the_controller_is_down(void **state)
{
    static const char words[] = "HTTP InterLink session R:  call exit status: 500. Body: slurm_load_jobs error: Unable to contact slurm "
                                "controller (connect failure)";
    struct fixture *f = *state;
    struct owner *o = submitted_job(f, 0), *other = new_job(f, 1);

    f->state = "{\"running\":{}}";
    UNTIL(f, o->phase == INTERLINK_RUNNING);
    f->create = (struct way){ .status = 504, .text = words };
    f->status = f->ping = f->delete_ = (struct way){ .status = 500, .text = words };
    interlink_job_submit(other->job);
    UNTIL(f, other->rejected == 1);
    assert_non_null(strstr(other->error.message, "Unable to contact slurm controller"));
    interlink_target_poll_soon(f->target);
    UNTIL(f, f->pings > 0 && interlink_target_health(f->target)->code != STATUS_OK);
    assert_int_equal(o->phase, INTERLINK_RUNNING);
    interlink_job_cancel(o->job, 0, heard_cancelled, heard_retry, o);
    UNTIL(f, o->retries == 1);
    f->delete_ = well;
    UNTIL(f, o->cancelled == 1);
    assert_int_equal(f->deletes, 2);
}

/* A site that knows a job and then says nothing of it, or knows less of it, has not lost it at once. */
static void test_a_state_that_comes_and_goes(void **state)
{
    struct fixture *f = *state;
    struct owner *o = submitted_job(f, 0);
    int asked;

    f->state = "{\"running\":{}}";
    UNTIL(f, o->phase == INTERLINK_RUNNING);
    f->state = "{}";
    asked = f->statuses;
    UNTIL(f, f->statuses > asked);
    f->state = "{\"running\":{}}";
    asked = f->statuses;
    UNTIL(f, f->statuses > asked + 1);
    assert_int_equal(o->phase, INTERLINK_RUNNING);
    f->left_out = o->uid;
    asked = f->statuses;
    UNTIL(f, f->statuses > asked + INTERLINK_GONE_ANSWERS + 1);
    assert_int_equal(o->phase, INTERLINK_RUNNING);
}

/* Killed, and forgotten by Slurm before anybody looked: the stock plugin then fails on all pods, for ever. */
static void test_a_job_that_slurm_forgot(void **state)
{
    struct fixture *f = *state;
    struct owner *lost = submitted_job(f, 0), *other = submitted_job(f, 1);

    f->state = "{\"running\":{}}";
    UNTIL(f, lost->phase == INTERLINK_RUNNING && other->phase == INTERLINK_RUNNING);
    f->poison = lost->uid;
    interlink_target_poll_soon(f->target);
    UNTIL(f, lost->job->poison);
    /* With other words it may have any cause, and goes on being asked for. */
    for (int i = 0; i < INTERLINK_GONE_ANSWERS + 1; i++) {
        int asked = f->statuses;
        lost->job->poison_ms = 0;
        interlink_poll_schedule(f->target);
        UNTIL(f, f->statuses > asked && lost->job->poison_ms > 0);
    }
    assert_int_equal(lost->phase, INTERLINK_UNKNOWN);
    f->poison_text = "HTTP InterLink session R: unable to retrieve container status: open /jobs/default-x/run-c.status: no such file or "
                     "directory";
    for (int i = 0; i < INTERLINK_GONE_ANSWERS; i++) {
        assert_int_equal(lost->phase, INTERLINK_UNKNOWN);
        lost->job->poison_ms = 0;
        interlink_poll_schedule(f->target);
        UNTIL(f, lost->job->poison_ms > 0);
    }
    assert_int_equal(lost->phase, INTERLINK_GONE);
    f->state = "{\"terminated\":{\"exitCode\":3}}";
    UNTIL(f, other->phase == INTERLINK_TERMINATED);
}

/* ---- not now ---- */

/* Nothing is sent before the time is over, and who asks hears why. */
static void test_retry_after_is_heeded(void **state)
{
    struct fixture *f = *state;
    static const int statuses[] = { 429, 503 };

    for (size_t i = 0; i < COUNT_OF(statuses); i++) {
        struct owner *o = new_job(f, i);
        int creates = f->creates;
        f->create = (struct way){ .status = statuses[i], .text = "busy", .header = "Retry-After", .value = "1" };
        interlink_job_submit(o->job);
        UNTIL(f, o->rejected == 1);
        assert_non_null(strstr(o->error.message, "busy"));
        f->create = well;
        interlink_job_submit(o->job);
        UNTIL(f, o->rejected == 2);
        assert_int_equal(o->error.code, STATUS_UNAVAILABLE);
        assert_non_null(strstr(o->error.message, "wants to be left alone for another 1 s: /create was not sent"));
        assert_int_equal(f->creates, creates + 1);
        target_forget_pause(f);
        interlink_job_submit(o->job);
        UNTIL(f, o->submitted == 1);
        assert_int_equal(f->creates, creates + 2);
    }
    assert_int_equal(f->deletes, 0);
}

static void test_retry_after_of_status_and_delete(void **state)
{
    struct fixture *f = *state;
    struct owner *o = submitted_job(f, 0);
    int64_t began;
    int asked;

    f->state = "{\"running\":{}}";
    UNTIL(f, o->phase == INTERLINK_RUNNING);
    f->status = (struct way){ .status = 503, .text = "<html>503 slow down</html>", .header = "Retry-After", .value = "1" };
    interlink_target_poll_soon(f->target);
    asked = f->statuses;
    UNTIL(f, f->statuses > asked);
    began = clock_mono_ms();
    f->status = well;
    /* A cancel waits, too. */
    UNTIL(f, f->target->hold_ms > began - 100);
    interlink_job_cancel(o->job, 0, heard_cancelled, heard_retry, o);
    UNTIL(f, o->retries == 1);
    assert_int_equal(f->deletes, 0);
    assert_int_equal(f->pings, 0); /* nobody is to blame: no search for a bad pod */
    UNTIL(f, o->cancelled == 1);
    assert_true(clock_mono_ms() - began >= 900);
    assert_int_equal(f->deletes, 1);
    assert_int_equal(f->statuses, asked + 1);
}

/* A time that nobody would wait for, or none at all. */
static void test_odd_retry_after(void **state)
{
    struct fixture *f = *state;
    static const char *const values[] = { "soon", "-5", "", "0" };

    for (size_t i = 0; i < COUNT_OF(values); i++) {
        struct owner *o = new_job(f, i);
        f->create = (struct way){ .status = 503, .text = "busy", .header = "Retry-After", .value = values[i] };
        interlink_job_submit(o->job);
        UNTIL(f, o->rejected == 1);
        f->create = well;
        interlink_job_submit(o->job);
        UNTIL(f, o->submitted == 1);
    }
    struct owner *o = new_job(f, 9);
    f->create = (struct way){ .status = 429, .text = "busy", .header = "Retry-After", .value = "999999999" };
    interlink_job_submit(o->job);
    UNTIL(f, o->rejected == 1);
    assert_true(f->target->hold_ms - clock_mono_ms() <= INTERLINK_HOLD_MAX_MS);
}

/* ---- logs, and a server that speaks no TLS ---- */

static void test_a_log_that_is_cut_off(void **state)
{
    struct fixture *f = *state;
    struct interlink_log_request request = { .namespace_ = "d", .pod_uid = f->owners[0].uid, .pod_name = "n", .container = "c" };

    f->logs_cut = true;
    assert_non_null(interlink_logs_start(f->target, &request, &log_events, f));
    UNTIL(f, f->log_ends == 1);
    assert_int_not_equal(f->log_error.code, STATUS_OK);
}

static void test_no_tls_there(void **state)
{
    struct fixture *f = *state;
    struct owner *o = &f->owners[0];
    struct status err = STATUS_INIT;
    struct listener tcp;
    struct address address;
    uint16_t port;

    assert_true(address_parse("127.0.0.1:0", &address, &err));
    assert_true(listener_open(f->loop, &tcp, &address, 0, http_server_accept_fd, f->server, &port, &err));
    interlink_target_free(f->target);
    snprintf(f->url, sizeof f->url, "https://127.0.0.1:%u", port);
    target_start(f, false);
    new_job(f, 0);
    interlink_job_submit(o->job);
    UNTIL(f, o->rejected == 1);
    assert_non_null(strstr(o->error.message, "interLink at \"hpc\": /create"));
    assert_int_equal(f->creates, 0);
    listener_close(&tcp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_only_200_is_a_success, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense_in_answers_to_create, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_create_whose_answer_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_redirected_create, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense_in_answers_to_status, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_status_that_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_controller_is_down, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_state_that_comes_and_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_job_that_slurm_forgot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retry_after_is_heeded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retry_after_of_status_and_delete, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_retry_after, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_log_that_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_tls_there, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
