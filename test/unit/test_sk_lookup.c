/* SPDX-License-Identifier: Apache-2.0 */
/* Local ranges and the program that gives their connections to one socket. What the kernel must do runs in a network namespace of a
 * child's; where that is refused it is skipped. */
#include "in_namespace.h"

#include "io/route.h"
#include "io/sk_lookup.h"
#include "io/sock_listeners.h"

static struct prefix range(const char *text)
{
    struct prefix p;
    struct status err = STATUS_INIT;

    if (!prefix_parse(text, &p, &err))
        abort();
    return p;
}

static int listen_at(const char *text, uint16_t port)
{
    struct ip ip;
    struct sockaddr_storage a;

    ip_parse(text, &ip);
    socklen_t n = ip_to_sockaddr(&ip, port, &a);
    int fd = socket(a.ss_family, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&a, n) < 0 || listen(fd, 8) < 0)
        abort();
    return fd;
}

/* 0, or errno. */
static int connect_to(const char *text, uint16_t port)
{
    struct ip ip;
    struct sockaddr_storage a;

    ip_parse(text, &ip);
    socklen_t n = ip_to_sockaddr(&ip, port, &a);
    int fd = socket(a.ss_family, SOCK_STREAM, 0);
    int result = connect(fd, (struct sockaddr *)&a, n) < 0 ? errno : 0;
    close(fd);
    return result;
}

/* ---- routes ---- */

static int try_routes(void)
{
    static const char *const texts[] = { "10.244.1.0/24", "fd00:10:1::/64" };
    struct status err = STATUS_INIT;
    bool there;

    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct prefix p = range(texts[i]), only;
        CHECK(route_check(&p, 7, &there, &err) && !there);
        CHECK(connect_to(i == 0 ? "10.244.1.9" : "fd00:10:1::9", 80) != ECONNREFUSED);
        CHECK(route_add_local(&p, 7, &err) && route_add_local(&p, 7, &err));
        CHECK(route_check(&p, 7, &there, &err) && there);
        CHECK(route_list_local(7, &only, 1) == 1 && prefix_equal(&only, &p) && route_list_local(8, &only, 1) == 0);
        CHECK(connect_to(i == 0 ? "10.244.1.9" : "fd00:10:1::9", 80) == ECONNREFUSED);
        /* Somebody else's route is in the way; one to more is not. */
        CHECK(!route_check(&p, 8, &there, &err) && err.code == STATUS_FAILED_PRECONDITION && strstr(err.message, texts[i]) != NULL);
        err = (struct status)STATUS_INIT;
        struct prefix part = range(i == 0 ? "10.244.1.128/25" : "fd00:10:1::/80"), more = range(i == 0 ? "10.244.0.0/16" : "fd00:10::/32");
        CHECK(route_check(&part, 7, &there, &err) && !there);
        CHECK(!route_check(&more, 7, &there, &err) && strstr(err.message, "is not free") != NULL);
        err = (struct status)STATUS_INIT;
        CHECK(route_remove_local(&p, 7, &err) && route_remove_local(&p, 7, &err));
        CHECK(route_check(&more, 7, &there, &err) && !there);
    }
    struct prefix mine = range("127.0.0.0/8"), six = range("::/64");
    CHECK(!route_check(&mine, 7, &there, &err) && strstr(err.message, "lo has the address 127.0.0.1") != NULL);
    CHECK(!route_check(&six, 7, &there, &err) && strstr(err.message, "::1") != NULL);
    return GOOD;
}

static void routes(void **state)
{
    (void)state;
    in_namespace(try_routes);
}

/* ---- the program ---- */

static void instructions(void **state)
{
    struct bpf_insn code[SK_LOOKUP_INSTRUCTIONS_MAX];
    size_t n = sk_lookup_program(code, 11, 12, 13), maps = 0;

    (void)state;
    assert_in_range(n, 40, SK_LOOKUP_INSTRUCTIONS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (code[i].code == (BPF_LD | BPF_DW | BPF_IMM)) {
            assert_int_equal(code[i].imm, 11 + (int)maps++);
            i++;
        } else if (BPF_CLASS(code[i].code) == BPF_JMP && BPF_OP(code[i].code) != BPF_CALL && BPF_OP(code[i].code) != BPF_EXIT) {
            /* Forward, into the program. */
            assert_in_range(code[i].off, 1, n - i - 2);
        } else if (BPF_CLASS(code[i].code) == BPF_STX) {
            assert_in_range(-code[i].off, 4, 56);
        }
    }
    assert_int_equal(maps, 3);
    assert_int_equal(code[n - 1].code, BPF_JMP | BPF_EXIT);
}

static int accept_at(int fd, const char *text, uint16_t port)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    struct ip wanted, got;
    uint16_t got_port;
    int accepted = accept(fd, NULL, NULL);
    bool ok = accepted >= 0 && getsockname(accepted, (struct sockaddr *)&a, &n) == 0 && ip_parse(text, &wanted) &&
              ip_of_sockaddr((struct sockaddr *)&a, &got, &got_port) && memcmp(&got, &wanted, sizeof got) == 0 && got_port == port;

    close(accepted);
    return ok;
}

static int try_steering(void)
{
    static const char *const ranges[] = { "10.244.1.0/24", "fd00:10:1::/64" }, *const ips[] = { "10.244.1.9", "fd00:10:1::9" };
    static const char *const others[] = { "10.244.1.10", "fd00:10:1::a" }, *const own[] = { "127.0.0.1", "::1" };
    struct status err = STATUS_INIT;
    struct sk_lookup *s = sk_lookup_open(&err);

    if (s == NULL) {
        fprintf(stderr, "skipped: %s\n", err.message);
        return SKIPPED;
    }
    for (size_t i = 0; i < 2; i++) {
        struct prefix p = range(ranges[i]);
        struct ip ip;
        int fd = listen_at(own[i], 4711), any = listen_at(i == 0 ? "0.0.0.0" : "::", 9000);
        ip_parse(ips[i], &ip);
        CHECK(route_add_local(&p, 7, &err));
        CHECK(connect_to(ips[i], 9000) == 0); /* without us the machine's own programs are reached */
        CHECK(sk_lookup_set_socket(s, i == 1, fd, &err) && sk_lookup_set_range(s, &p, true, &err));
        CHECK(connect_to(ips[i], 9000) == ECONNREFUSED && connect_to(ips[i], 80) == ECONNREFUSED);
        CHECK(sk_lookup_set_port(s, &ip, 80, true, &err) && sk_lookup_set_port(s, &ip, 9000, true, &err));
        CHECK(connect_to(ips[i], 80) == 0 && accept_at(fd, ips[i], 80));
        CHECK(connect_to(ips[i], 9000) == 0 && accept_at(fd, ips[i], 9000));
        CHECK(connect_to(others[i], 80) == ECONNREFUSED && connect_to(ips[i], 81) == ECONNREFUSED);
        CHECK(connect_to(own[i], 9000) == 0 && connect_to(own[i], 80) == ECONNREFUSED); /* others are left alone */
        CHECK(sk_lookup_set_port(s, &ip, 80, false, &err) && sk_lookup_set_port(s, &ip, 80, false, &err));
        CHECK(connect_to(ips[i], 80) == ECONNREFUSED);
        CHECK(sk_lookup_set_range(s, &p, false, &err) && connect_to(ips[i], 9000) == 0);
        close(fd);
        close(any);
    }
    sk_lookup_free(s);
    return GOOD;
}

static void steering(void **state)
{
    (void)state;
    in_namespace(try_steering);
}

/* ---- who listens ---- */

static int try_listeners(void)
{
    struct status err = STATUS_INIT;
    struct sock_listener found[8];
    size_t count;
    const int fds[] = { listen_at("0.0.0.0", 80), listen_at("127.0.0.1", 81), listen_at("::1", 82), listen_at("::", 83) };
    bool seen[4] = { false };

    if (!sock_listeners_read(found, 8, &count, &err) && err.code == STATUS_UNIMPLEMENTED)
        return SKIPPED;
    CHECK(err.code == STATUS_OK && count == COUNT_OF(fds));
    for (size_t i = 0; i < count; i++) {
        unsigned n = found[i].port - 80u;
        CHECK(n < 4 && !seen[n] && found[i].inode != 0 && found[i].ipv6 == (n >= 2));
        CHECK(sock_listener_is_loopback(&found[i]) == (n == 1 || n == 2));
        seen[n] = true;
    }
    CHECK(sock_listeners_read(found, 2, &count, &err) && count == 2);
    return GOOD;
}

static void listeners(void **state)
{
    (void)state;
    in_namespace(try_listeners);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes),
        cmocka_unit_test(instructions),
        cmocka_unit_test(steering),
        cmocka_unit_test(listeners),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
