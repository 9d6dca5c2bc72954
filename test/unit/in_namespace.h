/* SPDX-License-Identifier: Apache-2.0 */
/* in_namespace.h: a test that runs in a child's own network namespace, with a loopback, and is skipped where that is refused. It
 * says GOOD or, by CHECK (which needs a struct status err), what was not so. */
#ifndef TEST_IN_NAMESPACE_H
#define TEST_IN_NAMESPACE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GOOD, SKIPPED = 77 };

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, err.message);                                   \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

static void in_namespace(int (*test)(void))
{
    int status;

    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
        int fd = unshare(CLONE_NEWNET) == 0 ? socket(AF_INET, SOCK_DGRAM, 0) : -1;
        _exit(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0 ? test() : SKIPPED);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == SKIPPED)
        skip();
    assert_int_equal(WEXITSTATUS(status), GOOD);
}

#endif
