/* SPDX-License-Identifier: Apache-2.0 */
/* How paths are resolved inside a root where the kernel has no openat2(2). */
#include "agent/rootfs.c"

#include <setjmp.h>

#include <cmocka.h>

static int root;

static int set_up(void **state)
{
    static char dir[] = "/tmp/test_rootfs.XXXXXX";

    *state = dir;
    if (mkdtemp(dir) == NULL || (root = open(dir, O_PATH | O_DIRECTORY)) < 0)
        return -1;
    return mkdirat(root, "a", 0755) | mkdirat(root, "a/b", 0755) | mkdirat(root, "etc", 0755) |
           symlinkat("/etc", root, "a/absolute") | symlinkat("../../../../etc/passwd", root, "a/b/up") |
           symlinkat("b/../b", root, "a/around") | symlinkat("self", root, "self") | symlinkat("one", root, "two") |
           symlinkat("two", root, "one") | symlinkat("gone/for/good", root, "dangling");
}

static int tear_down(void **state)
{
    struct status err;

    close(root);
    return tree_remove(*state, &err) ? 0 : -1;
}

static void assert_resolves(const char *path, bool last, const char *to)
{
    struct buf b = BUF_INIT;
    int links = 0;

    assert_true(rootfs_resolve(root, path, &b, last, &links));
    assert_string_equal(buf_cstr(&b), to);
    buf_free(&b);
}

static void assert_fails(const char *path, int number)
{
    struct buf b = BUF_INIT;
    int links = 0;

    assert_false(rootfs_resolve(root, path, &b, false, &links));
    assert_int_equal(errno, number);
    buf_free(&b);
}

static void test_resolve(void **state)
{
    (void)state;
    assert_resolves("/", false, "");
    assert_resolves("", false, "");
    assert_resolves("//a/./b//", false, "a/b");
    assert_resolves("/../../a/../a/b/..", false, "a");
    assert_resolves("/a/absolute/passwd", false, "etc/passwd");
    assert_resolves("a/absolute", false, "etc");
    assert_resolves("a/absolute", true, "a/absolute");
    assert_resolves("a/b/up", false, "etc/passwd");
    assert_resolves("a/around/up", true, "a/b/up");
    assert_resolves("a/around/new", false, "a/b/new");
    assert_fails("self", ELOOP);
    assert_fails("one/x", ELOOP);
    assert_fails("no/such/folder", ENOENT);
    assert_fails("dangling", ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_resolve) };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
