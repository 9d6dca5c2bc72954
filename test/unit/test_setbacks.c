/* SPDX-License-Identifier: Apache-2.0 */
#include "node/setbacks.h"

#include <setjmp.h>
#include <cmocka.h>

static Runtime__V1__PodSandboxMetadata pod(const char *uid, unsigned attempt)
{
    Runtime__V1__PodSandboxMetadata m = RUNTIME__V1__POD_SANDBOX_METADATA__INIT;

    m.uid = (char *)(uintptr_t)uid;
    m.attempt = attempt;
    return m;
}

static void note(struct setbacks *setbacks, const Runtime__V1__PodSandboxMetadata *m, bool told, bool had_job, int64_t now)
{
    struct status why = STATUS_INIT;

    status_set(&why, STATUS_UNAVAILABLE, "the pod's job ended");
    setbacks_note(setbacks, m, &why, told, had_job, now);
}

static void test_what_nobody_heard_is_told_once(void **state)
{
    struct setbacks *setbacks = setbacks_new();
    Runtime__V1__PodSandboxMetadata a = pod("a", 0), again = pod("a", 1);
    struct status err = STATUS_INIT;
    (void)state;

    assert_true(setbacks_allow(setbacks, &a, 0, &err));
    note(setbacks, &a, false, false, 0);
    assert_true(setbacks_allow(setbacks, &again, 0, &err));
    assert_false(setbacks_allow(setbacks, &a, 60000, &err));
    assert_int_equal(err.code, STATUS_UNAVAILABLE);
    assert_string_equal(err.message, "the pod's job ended");
    assert_true(setbacks_allow(setbacks, &a, 60000, &err));
    note(setbacks, &a, true, false, 60000);
    assert_true(setbacks_allow(setbacks, &a, 60000, &err));
    setbacks_free(setbacks);
}

static void test_pauses_grow_up_to_a_bound(void **state)
{
    struct setbacks *setbacks = setbacks_new();
    Runtime__V1__PodSandboxMetadata a = pod("a", 0);
    struct status err = STATUS_INIT;
    int64_t now = 5, pause = SETBACK_PAUSE_MS;
    (void)state;

    for (int i = 0; i < 70; i++) {
        note(setbacks, &a, true, true, now);
        assert_false(setbacks_allow(setbacks, &a, now + pause - 1, &err));
        assert_non_null(strstr(err.message, " in a row"));
        now += pause;
        assert_true(setbacks_allow(setbacks, &a, now, &err));
        pause = pause * 2 < SETBACK_PAUSE_MAX_MS ? pause * 2 : SETBACK_PAUSE_MAX_MS;
    }
    /* After hours in the queue it begins anew. */
    now += 3600000;
    note(setbacks, &a, true, true, now);
    assert_true(setbacks_allow(setbacks, &a, now + SETBACK_PAUSE_MS, &err));
    note(setbacks, &a, true, true, now);
    setbacks_forget(setbacks, &a);
    assert_true(setbacks_allow(setbacks, &a, now, &err));
    setbacks_free(setbacks);
}

static void test_the_oldest_are_forgotten(void **state)
{
    struct setbacks *setbacks = setbacks_new();
    struct status err = STATUS_INIT;
    (void)state;

    for (int round = 0; round < 2; round++)
        for (int i = 0; i < SETBACKS_MAX; i++) {
            cleanup_free char *uid = xasprintf("%d", i);
            Runtime__V1__PodSandboxMetadata m = pod(uid, 0);
            note(setbacks, &m, true, true, 0);
        }
    Runtime__V1__PodSandboxMetadata first = pod("0", 0), second = pod("1", 0), more = pod("more", 0);
    note(setbacks, &first, true, true, 0); /* now the newest */
    note(setbacks, &more, true, true, 0);
    assert_true(setbacks_allow(setbacks, &second, 0, &err));
    assert_false(setbacks_allow(setbacks, &first, 0, &err));
    setbacks_free(setbacks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_nobody_heard_is_told_once),
        cmocka_unit_test(test_pauses_grow_up_to_a_bound),
        cmocka_unit_test(test_the_oldest_are_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
