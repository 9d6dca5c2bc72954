/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the way: the first machine of a job, and the addresses an agent tries in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent_relay.h"
#include "io/file.h"
#include "node/call_in.h"

static void test_first_node(void **state)
{
    static const struct {
        const char *nodes, *first; /* NULL: cannot be told */
    } cases[] = {
        { "n1", "n1" },           { "n1,n2", "n1" },           { "n[1-3,7],m2", "n1" },  { "n[03]", "n03" },
        { "r1-[12-14]-ib", "r1-12-ib" }, { "r1-[12-14]-ib,x", "r1-12-ib" }, { "n[1-2]x[3-4]", NULL }, { "n[1-2", NULL },
        { "n[]", NULL },          { "n[-2]", NULL },           { "", NULL },             { ",n1", NULL },
        { "[1-2]", "1" },         { "averylongnameofanode", NULL },
    };
    char out[16];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        bool ok = call_in_first_node(cases[i].nodes, out, sizeof out);
        if (ok != (cases[i].first != NULL) || (ok && strcmp(out, cases[i].first) != 0))
            fail_msg("%s: %s", cases[i].nodes, ok ? out : "refused");
    }
}

static void expect_turns(struct agent_relay *relay, const char *const *turns)
{
    for (; *turns != NULL; turns++)
        assert_string_equal(agent_relay_next(relay), *turns);
}

static void test_addresses_in_turn(void **state)
{
    char dir[] = "/tmp/test-call-in-XXXXXX";
    struct status err = STATUS_INIT;

    (void)state;
    assert_non_null(mkdtemp(dir));
    cleanup_free char *path = xasprintf("%s/relay", dir);
    struct agent_relay relay = { .given = xstrdup("a:1, b:2,"), .job_dir = dir };
    expect_turns(&relay, (const char *const[]){ "a:1", "b:2", "a:1", "b:2", NULL });
    agent_relay_learn(&relay, "a:1, b:2,"); /* no news */
    assert_int_equal(access(path, F_OK), -1);
    /* The node has moved; the same word again changes nothing. */
    agent_relay_learn(&relay, "c:3");
    expect_turns(&relay, (const char *const[]){ "c:3", "c:3", NULL });
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    agent_relay_learn(&relay, "c:3");
    agent_relay_learn(&relay, "");
    agent_relay_learn(&relay, "no address");
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(after.st_mode & 0777, 0600);
    /* An operator's file, as editors leave it; one that is of no use does not count. */
    assert_true(file_replace(path, "d:4\ne:5\n", 8, 0600, &err));
    expect_turns(&relay, (const char *const[]){ "e:5", "d:4", "e:5", NULL });
    assert_true(file_replace(path, "\xff\x00nonsense", 10, 0600, &err));
    expect_turns(&relay, (const char *const[]){ "a:1", "b:2", NULL });
    assert_true(file_replace(path, "\n", 1, 0600, &err));
    expect_turns(&relay, (const char *const[]){ "a:1", NULL });
    agent_relay_free(&relay);
    relay = (struct agent_relay){ .given = xstrdup(""), .job_dir = "/nonexistent" };
    expect_turns(&relay, (const char *const[]){ "", "", NULL });
    agent_relay_free(&relay);
    assert_true(agent_relay_check("", &err));
    assert_true(agent_relay_check("unix:///x,[::1]:2", &err));
    assert_false(agent_relay_check("a:1,b", &err));
    assert_true(tree_remove(dir, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_node),
        cmocka_unit_test(test_addresses_in_turn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
