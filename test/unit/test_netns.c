/* SPDX-License-Identifier: Apache-2.0 */
/* Network namespaces with a name. Run as root, in a mount namespace of the test's own; else there is nothing to be made. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "io/netns.h"
#include "io/file.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/netns-XXXXXX";
static bool able;

static ino_t inode(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? st.st_ino : 0;
}

static int set_up(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    assert_non_null(mkdtemp(folder));
    able = geteuid() == 0 && unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    if (able) {
        cleanup_free char *path = xasprintf("%s/probe", folder);
        able = netns_make(path, NULL, &err) && netns_remove(path, &err);
    }
    return 0;
}

static int tear_down(void **state)
{
    struct status err = STATUS_INIT;

    cleanup_free char *below = xasprintf("%s/made/for", folder);

    (void)state;
    if (able) {
        umount2(below, MNT_DETACH);
        umount2(folder, MNT_DETACH);
    }
    return tree_remove(folder, &err) ? 0 : 1;
}

/* 'y': the namespace is another one and its loopback interface carries data. */
static int look_inside(const char *path, int user_of)
{
    ino_t own = inode("/proc/self/ns/net");
    pid_t pid = fork();
    int wait_status;

    if (pid == 0) {
        struct status err = STATUS_INIT;
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(80), .sin_addr = { htonl(INADDR_LOOPBACK) } };
        char byte;
        if (!netns_enter(path, &err) || inode("/proc/self/ns/net") == own || inode("/proc/self/ns/net") != inode(path))
            _exit(1);
        int fd = socket(AF_INET, SOCK_DGRAM, 0);
        if (bind(fd, (struct sockaddr *)&to, sizeof to) < 0 || sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to) != 1 ||
            recv(fd, &byte, 1, 0) != 1)
            _exit(2);
        int ns = open(path, O_RDONLY);
        struct stat owner, machine;
        int owner_fd = (int)syscall(SYS_ioctl, ns, _IO(0xb7, 0x1));
        if (fstat(owner_fd, &owner) < 0 || stat("/proc/self/ns/user", &machine) < 0)
            _exit(3);
        _exit((owner.st_ino == machine.st_ino) == (user_of == 0) ? 0 : 4);
    }
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
}

static void test_make_and_remove(void **state)
{
    cleanup_free char *path = xasprintf("%s/made/for/us", folder);
    struct status err = STATUS_INIT;

    (void)state;
    if (!able)
        skip();
    assert_false(netns_present(path));
    assert_true(netns_make(path, NULL, &err));
    assert_true(netns_present(path));
    ino_t first = inode(path);
    assert_int_equal(look_inside(path, 0), 0);
    assert_true(netns_make(path, NULL, &err)); /* stays as it is */
    assert_int_equal(inode(path), first);
    assert_true(netns_remove(path, &err));
    assert_false(netns_present(path));
    assert_int_equal(access(path, F_OK), -1);
    assert_true(netns_remove(path, &err));
}

static void test_belongs_to_a_user_namespace(void **state)
{
    static const struct userns_map map = { .uids = { .ranges = { { 0, 100000, 65536 } }, .count = 1 },
                                           .gids = { .ranges = { { 0, 100000, 65536 } }, .count = 1 } };
    cleanup_free char *path = xasprintf("%s/mapped", folder);
    struct status err = STATUS_INIT;

    (void)state;
    if (!able)
        skip();
    assert_true(netns_make(path, &map, &err));
    assert_int_equal(look_inside(path, 1), 0);
    assert_true(netns_remove(path, &err));
}

static void test_what_is_no_namespace(void **state)
{
    cleanup_free char *plain = xasprintf("%s/plain", folder), *link = xasprintf("%s/link", folder);
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(file_replace(plain, "x", 1, 0600, &err));
    assert_false(netns_present(plain));
    assert_false(netns_enter(plain, &err));
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    assert_false(netns_enter("/does/not/exist", &err));
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    assert_int_equal(symlink("/etc/passwd", link), 0);
    assert_false(netns_make(link, NULL, &err)); /* a name that leads elsewhere is not followed */
    assert_true(netns_remove(link, &err));
    assert_true(netns_remove(plain, &err)); /* the name without its mount, as after a restart of the machine */
    assert_int_equal(access(plain, F_OK), -1);
}

/* A copy of the mount in another mount namespace does not keep it. */
static void test_copies_go_with_the_name(void **state)
{
    cleanup_free char *path = xasprintf("%s/copied", folder);
    struct status err = STATUS_INIT;
    int go[2], ready[2], wait_status;
    char byte = 'x';

    (void)state;
    if (!able)
        skip();
    assert_true(netns_make(path, NULL, &err));
    assert_true(pipe(go) == 0 && pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        bool ok = unshare(CLONE_NEWNS) == 0 && netns_present(path) && write(ready[1], &byte, 1) == 1 && read(go[0], &byte, 1) == 1;
        _exit(ok && !netns_present(path) ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_true(netns_remove(path, &err));
    assert_int_equal(write(go[1], &byte, 1), 1);
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    assert_int_equal(wait_status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_make_and_remove),
        cmocka_unit_test(test_belongs_to_a_user_namespace),
        cmocka_unit_test(test_what_is_no_namespace),
        cmocka_unit_test(test_copies_go_with_the_name),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
