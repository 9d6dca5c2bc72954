/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/user.h"

#include <setjmp.h>

#include <cmocka.h>

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
                             "# a comment\n"
                             "broken\n"
                             ":x:5:5::/:\n"
                             "bad:x:no:1::/:\n"
                             "web:x:1000:1001:Web,,:/srv/web:/bin/sh\n"
                             "web:x:2000:2000::/other:/bin/sh\n"
                             "big:x:4294967295:0::/:\n"
                             "relative:x:1500:1500::home:/bin/sh\n"
                             "last:x:7:7::/last:/bin/false";
static const char group[] = "root:x:0:\n"
                            "web:x:1001:\n"
                            "disk:x:6:root,web\n"
                            "almost:x:8:webb,we\n"
                            "audio:x:29:web\n"
                            "odd:x:x:web\n"
                            "twice:x:29:web\n"
                            "staff:x:50:";

static struct user_request request(void)
{
    return (struct user_request){ .username = "", .image_user = "" };
}

static bool resolve(const struct user_request *r, struct user *u, struct status *err)
{
    *err = (struct status)STATUS_INIT;
    return user_resolve(r, STR(passwd), STR(group), u, err);
}

static void assert_groups(const struct user *u, const uint32_t *groups, size_t count)
{
    assert_int_equal(u->group_count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(u->groups[i], groups[i]);
}
#define GROUPS(u, ...) assert_groups(u, (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4)

static void test_nobody_named(void **state)
{
    struct user_request r = request();
    struct user u;
    struct status err;

    (void)state;
    assert_true(resolve(&r, &u, &err));
    assert_int_equal(u.uid, 0);
    assert_string_equal(u.home, "/root");
    GROUPS(&u, 0, 6);
    assert_true(user_resolve(&r, STR(""), STR(""), &u, &err));
    assert_int_equal(u.uid, 0);
    assert_string_equal(u.home, "/");
    GROUPS(&u, 0);
}

static void test_image_user(void **state)
{
    struct user_request r = request();
    struct user u;
    struct status err;

    (void)state;
    r.image_user = "web";
    assert_true(resolve(&r, &u, &err));
    assert_int_equal(u.uid, 1000);
    assert_int_equal(u.gid, 1001);
    assert_string_equal(u.home, "/srv/web");
    GROUPS(&u, 1001, 6, 29);
    r.image_user = "1000";
    assert_true(resolve(&r, &u, &err));
    GROUPS(&u, 1001, 6, 29);
    r.image_user = "4242";
    assert_true(resolve(&r, &u, &err));
    assert_int_equal(u.uid, 4242);
    GROUPS(&u, 0);
    r.image_user = "web:staff";
    assert_true(resolve(&r, &u, &err));
    assert_int_equal(u.gid, 50);
    GROUPS(&u, 50, 6, 29);
    r.image_user = "4242:77";
    assert_true(resolve(&r, &u, &err));
    GROUPS(&u, 77);
    r.image_user = ":50";
    assert_true(resolve(&r, &u, &err));
    assert_int_equal(u.uid, 0);
    assert_int_equal(u.gid, 50);
    r.image_user = "last";
    assert_true(resolve(&r, &u, &err));
    assert_int_equal(u.uid, 7);
    r.image_user = "relative";
    assert_true(resolve(&r, &u, &err));
    assert_string_equal(u.home, "/");
    r.image_user = "nobody";
    assert_false(resolve(&r, &u, &err));
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "image config: User: the image's /etc/passwd has no user \"nobody\""));
    r.image_user = "web:nothing";
    assert_false(resolve(&r, &u, &err));
    assert_non_null(strstr(err.message, "no group \"nothing\""));
    r.image_user = "big";
    assert_false(resolve(&r, &u, &err));
}

static void test_security_context(void **state)
{
    static const int64_t groups[] = { 3000, 1001, 29 };
    struct user_request r = request();
    struct user u;
    struct status err;

    (void)state;
    r.image_user = "web:staff"; /* overridden whole */
    r.has_uid = true;
    r.uid = 1000;
    assert_true(resolve(&r, &u, &err));
    assert_int_equal(u.gid, 1001);
    r.has_gid = true;
    r.gid = 5;
    r.groups = groups;
    r.group_count = 3;
    assert_true(resolve(&r, &u, &err));
    assert_int_equal(u.asked_count, 4);
    GROUPS(&u, 5, 3000, 1001, 29, 6);
    r.strict = true;
    assert_true(resolve(&r, &u, &err));
    GROUPS(&u, 5, 3000, 1001, 29);
    r.username = "web";
    assert_false(resolve(&r, &u, &err));
    assert_non_null(strstr(err.message, "run_as_username"));
    r.has_uid = false;
    r.strict = false;
    assert_true(resolve(&r, &u, &err));
    assert_int_equal(u.uid, 1000);
    assert_int_equal(u.gid, 5);
    r.username = "";
    assert_false(resolve(&r, &u, &err));
    assert_non_null(strstr(err.message, "run_as_group: needs run_as_user"));
}

static void test_bounds(void **state)
{
    struct user_request r = request();
    int64_t groups[USER_GROUPS_MAX + 1];
    struct user u;
    struct status err;

    (void)state;
    r.has_uid = true;
    r.uid = -1;
    assert_false(resolve(&r, &u, &err));
    r.uid = 4294967295;
    assert_false(resolve(&r, &u, &err));
    r.uid = 4294967294;
    assert_true(resolve(&r, &u, &err));
    r.has_gid = true;
    r.gid = 1ll << 40;
    assert_false(resolve(&r, &u, &err));
    r.gid = 1;
    for (size_t i = 0; i < COUNT_OF(groups); i++)
        groups[i] = (int64_t)i + 1;
    r.groups = groups;
    r.group_count = USER_GROUPS_MAX;
    assert_true(resolve(&r, &u, &err));
    assert_int_equal(u.group_count, USER_GROUPS_MAX);
    r.group_count++;
    assert_false(resolve(&r, &u, &err));
    assert_non_null(strstr(err.message, "supplemental_groups"));
    groups[0] = -3;
    assert_false(resolve(&r, &u, &err));
    assert_non_null(strstr(err.message, "supplemental_groups[0]"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_named),
        cmocka_unit_test(test_image_user),
        cmocka_unit_test(test_security_context),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
