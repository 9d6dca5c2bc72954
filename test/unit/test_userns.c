/* SPDX-License-Identifier: Apache-2.0 */
/* User namespaces: maps, ranges of /etc/subuid, what pods may ask for. Needs no privilege; what needs some is tried where it is
 * there. */
#include "io/subid.c"

#include "agent/podns.h"

#include <setjmp.h>
#include <sys/stat.h>

#include <cmocka.h>

static void test_counting(void **state)
{
    struct userns_ids none = { .count = 0 };
    struct userns_ids all = { .ranges = { { 0, 0, UINT32_MAX } }, .count = 1 };
    struct userns_ids mixed = { .ranges = { { 11, 300, 5 }, { 0, 1000, 1 }, { 20, 400, 5 }, { 1, 100000, 10 } }, .count = 4 };
    struct userns_ids no_root = { .ranges = { { 1, 100000, 10 } }, .count = 1 };
    uint32_t outside = 7;

    (void)state;
    assert_int_equal(userns_ids_count(&none), 0);
    assert_int_equal(userns_ids_count(&all), UINT32_MAX);
    assert_int_equal(userns_ids_count(&mixed), 16);
    assert_int_equal(userns_ids_count(&no_root), 0);
    assert_true(userns_outside(&mixed, 0, &outside) && outside == 1000);
    assert_true(userns_outside(&mixed, 10, &outside) && outside == 100009);
    assert_true(userns_outside(&mixed, 24, &outside) && outside == 404);
    outside = 7;
    assert_false(userns_outside(&mixed, 16, &outside));
    assert_false(userns_outside(&all, UINT32_MAX, &outside));
    assert_int_equal(outside, 7);
}

static void test_text(void **state)
{
    struct userns_map a = { .uids = { .ranges = { { 0, 1000, 1 }, { 1, 100000, 65536 } }, .count = 2 } };
    struct userns_map b = a;
    struct buf text = BUF_INIT;

    (void)state;
    userns_print_ids(&a.uids, &text);
    assert_string_equal(buf_cstr(&text), "0:1000:1,1:100000:65536");
    buf_free(&text);
    assert_true(userns_maps_equal(&a, &b));
    b.gids.count = 1;
    assert_false(userns_maps_equal(&a, &b));
    b = a;
    b.uids.ranges[1].count--;
    assert_false(userns_maps_equal(&a, &b));
}

static void test_own_map(void **state)
{
    struct userns_map map;
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(userns_read_map("self", &map, &err));
    assert_true(map.uids.count >= 1 && map.gids.count >= 1);
    assert_false(userns_read_map("0", &map, &err));
}

static void test_subid_lines(void **state)
{
    static const char text[] = "root:1:2\nalice:100000:65536\n1001:300000:10\nbob:5:5\nalice:200000:5\nalice:x:5\nalice:9\nalice::\n"
                               "alice:4294967295:2\nalice:400000:0\nalice:0:5\nali:7:7\nalice:500000:4294967295\n\n:::\nalice:600000:3";
    const char *const names[] = { "1001", "alice", NULL, NULL };
    struct userns_ids ids = { .ranges = { { 0, 1001, 1 } }, .count = 1 };
    struct buf got = BUF_INIT;

    (void)state;
    subid_parse(text, names, COUNT_OF(names), &ids);
    userns_print_ids(&ids, &got);
    assert_string_equal(buf_cstr(&got), "0:1001:1,1:100000:65536,65537:300000:10,65547:200000:5,65552:600000:3");
    buf_free(&got);
    ids.count = 1;
    subid_parse("", names, COUNT_OF(names), &ids);
    assert_int_equal(ids.count, 1);
    /* More ranges than there is room for. */
    for (int i = 0; i < 40; i++)
        buf_printf(&got, "alice:%d:10\n", 100000 + i * 100);
    subid_parse(buf_cstr(&got), names, COUNT_OF(names), &ids);
    assert_int_equal(ids.count, USERNS_RANGES_MAX);
    buf_free(&got);
}

static void test_subid_answers(void **state)
{
    struct userns_ids ids = { .ranges = { { 0, 1001, 1 } }, .count = 1 };
    struct buf got = BUF_INIT;

    (void)state;
    subid_parse_answer("0: alice 100000 65536\n1: alice 200000 10\n2: alice x\nnonsense\n3: alice\n\n: \n4: alice 7 4294967295\n5: a b c", &ids);
    userns_print_ids(&ids, &got);
    assert_string_equal(buf_cstr(&got), "0:1001:1,1:100000:65536,65537:200000:10");
    buf_free(&got);
    subid_parse_answer("", &ids);
    assert_int_equal(ids.count, 3);
}

/* An ordinary user that nobody has heard of. */
static void test_no_ranges(void **state)
{
    struct userns_map map;
    struct status err = STATUS_INIT;

    (void)state;
    unsetenv("USER");
    unsetenv("LOGNAME");
    assert_false(subid_map(4200000, 4200000, &map, &err));
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "/etc/subuid"));
    assert_non_null(strstr(err.message, "newuidmap"));
}

static void test_programs_that_refuse(void **state)
{
    const struct userns_ids ids = { .ranges = { { 0, 1001, 1 } }, .count = 1 };
    char *const speaks[] = { (char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c", (char *)(uintptr_t) "echo no such range >&2; exit 1", NULL };
    char *const silent[] = { (char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c", (char *)(uintptr_t) "kill -9 $$", NULL };
    struct status err = STATUS_INIT;
    struct buf said = BUF_INIT;

    (void)state;
    assert_false(subid_wait("/bin/sh", speaks, &said, &err));
    assert_string_equal(err.message, "/bin/sh refused: no such range");
    buf_clear(&said);
    assert_false(subid_wait("/bin/sh", silent, &said, &err));
    buf_free(&said);
    assert_string_equal(err.message, "/bin/sh refused: it gave no reason");
    assert_false(subid_run("no-such-program-anywhere", getpid(), &ids, &err));
    assert_non_null(strstr(err.message, "is missing"));
}

static void test_namespace_of_root(void **state)
{
    const struct userns_map map = { .uids = { .ranges = { { 0, 70000, 10 } }, .count = 1 },
                                    .gids = { .ranges = { { 0, 80000, 10 } }, .count = 1 } };
    const struct userns_map nonsense = { .uids = { .ranges = { { 0, 5, 10 }, { 3, 7, 10 } }, .count = 2 } };
    struct userns_map seen;
    struct status err = STATUS_INIT;
    char dir[] = "/tmp/test_userns.XXXXXX";
    int told[2];
    char byte;

    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(userns_new(&nonsense, &err), -1);
    int fd = userns_new(&map, &err);
    if (fd < 0 || pipe(told) < 0)
        fail_msg("%s", err.message);
    pid_t pid = fork();
    if (pid == 0) {
        bool ok = userns_join(fd, &err) && getuid() == 0 && getgid() == 0;
        ok = write(told[1], ok ? "y" : "n", 1) == 1;
        pause();
    }
    assert_int_equal(read(told[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    char number[16];
    snprintf(number, sizeof number, "%d", (int)pid);
    assert_true(userns_read_map(number, &seen, &err));
    assert_true(userns_maps_equal(&map, &seen));
    kill(pid, 9);
    waitpid(pid, NULL, 0);
    /* Owners of a mount; where the file system cannot, the error says so. */
    assert_non_null(mkdtemp(dir));
    int mount_fd = userns_open_mapped(dir, fd, false, &err);
    struct stat st;
    if (mount_fd >= 0)
        assert_true(fstat(mount_fd, &st) == 0 && st.st_uid == 70000 && st.st_gid == 80000);
    else
        assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    assert_int_equal(userns_open_mapped("/proc/self", fd, false, &err), -1);
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    assert_int_equal(userns_open_mapped("/no/such/path", fd, false, &err), -1);
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    rmdir(dir);
    close(mount_fd);
    close(fd);
    close(told[0]);
    close(told[1]);
}

/* ---- what pods ask for ---- */

struct wish {
    Runtime__V1__IDMapping range[2], *ranges[2];
    Runtime__V1__UserNamespace user;
    Runtime__V1__NamespaceOption options;
};

static void wish_init(struct wish *w)
{
    for (int i = 0; i < 2; i++) {
        runtime__v1__idmapping__init(&w->range[i]);
        w->range[i].host_id = 100000;
        w->range[i].length = 65536;
        w->ranges[i] = &w->range[i];
    }
    runtime__v1__user_namespace__init(&w->user);
    w->user.uids = w->user.gids = w->ranges;
    w->user.n_uids = w->user.n_gids = 1;
    runtime__v1__namespace_option__init(&w->options);
    w->options.userns_options = &w->user;
}

static void nonsense(const struct wish *w, const char *says)
{
    struct userns_map map;
    struct status err = STATUS_INIT;
    bool own;

    assert_false(podns_parse("there", &w->options, &map, &own, &err));
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    if (strstr(err.message, says) == NULL)
        fail_msg("%s; wanted %s", err.message, says);
}

static void test_wishes(void **state)
{
    struct wish w;
    struct userns_map map;
    struct status err = STATUS_INIT;
    bool own = true;

    (void)state;
    assert_true(podns_parse("there", NULL, &map, &own, &err) && !own);
    wish_init(&w);
    w.options.userns_options = NULL;
    assert_true(podns_parse("there", &w.options, &map, &own, &err) && !own);
    wish_init(&w);
    assert_true(podns_parse("there", &w.options, &map, &own, &err) && own);
    assert_int_equal(userns_ids_count(&map.uids), 65536);
    w.user.n_uids = 2;
    nonsense(&w, "there.userns_options.uids: mode POD needs one mapping, 2 are given");
    w.user.n_uids = 0;
    nonsense(&w, "uids");
    wish_init(&w);
    w.range[0].container_id = 1;
    nonsense(&w, "there.userns_options.uids[0].container_id");
    wish_init(&w);
    w.range[0].length = 0;
    nonsense(&w, "uids[0]");
    w.range[0].length = UINT32_MAX;
    nonsense(&w, "uids[0]");
    wish_init(&w);
    w.user.mode = RUNTIME__V1__NAMESPACE_MODE__TARGET;
    nonsense(&w, "there.userns_options.mode");
    w.user.mode = (Runtime__V1__NamespaceMode)77;
    nonsense(&w, "there.userns_options.mode");
    w.user.mode = RUNTIME__V1__NAMESPACE_MODE__NODE;
    nonsense(&w, "without mappings");
    w.user.n_uids = w.user.n_gids = 0;
    assert_true(podns_parse("there", &w.options, &map, &own, &err) && !own);
}

static void test_wishes_of_mounts(void **state)
{
    Runtime__V1__Mount m;
    struct wish w;
    struct userns_map map;
    struct status err = STATUS_INIT;
    bool mapped = true;

    (void)state;
    wish_init(&w);
    runtime__v1__mount__init(&m);
    assert_true(podns_parse_mount(&m, 3, &map, &mapped, &err) && !mapped);
    m.uidmappings = w.ranges;
    m.n_uidmappings = 1;
    assert_false(podns_parse_mount(&m, 3, &map, &mapped, &err));
    assert_non_null(strstr(err.message, "mounts[3].gidMappings: missing"));
    m.gidmappings = w.ranges;
    m.n_gidmappings = 2;
    w.range[1].container_id = 65536;
    w.range[1].host_id = 300000;
    assert_true(podns_parse_mount(&m, 3, &map, &mapped, &err) && mapped);
    assert_int_equal(userns_ids_count(&map.gids), 131072);
    w.range[1].length = 0;
    assert_false(podns_parse_mount(&m, 3, &map, &mapped, &err));
    assert_non_null(strstr(err.message, "mounts[3].gidMappings[1]"));
    m.n_gidmappings = USERNS_RANGES_MAX + 1;
    assert_false(podns_parse_mount(&m, 3, &map, &mapped, &err));
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
}

static void test_ids_of_a_pod(void **state)
{
    struct podns pod = PODNS_INIT;

    (void)state;
    assert_int_equal(podns_uid(&pod, 1000), 1000);
    pod.on = true;
    pod.map.uids = (struct userns_ids){ .ranges = { { 0, 100000, 10 } }, .count = 1 };
    pod.map.gids = (struct userns_ids){ .ranges = { { 0, 200000, 10 } }, .count = 1 };
    assert_int_equal(podns_uid(&pod, 9), 100009);
    assert_int_equal(podns_gid(&pod, 0), 200000);
    assert_int_equal(podns_uid(&pod, 10), 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counting), cmocka_unit_test(test_text), cmocka_unit_test(test_own_map),
        cmocka_unit_test(test_subid_lines), cmocka_unit_test(test_subid_answers), cmocka_unit_test(test_no_ranges), cmocka_unit_test(test_programs_that_refuse),
        cmocka_unit_test(test_namespace_of_root), cmocka_unit_test(test_wishes), cmocka_unit_test(test_wishes_of_mounts),
        cmocka_unit_test(test_ids_of_a_pod),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
