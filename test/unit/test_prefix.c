/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges of addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/prefix.h"

static struct prefix parse(const char *text)
{
    struct prefix p;
    struct status err = STATUS_INIT;

    if (!prefix_parse(text, &p, &err))
        fail_msg("%s: %s", text, err.message);
    return p;
}

static struct ip address(const char *text)
{
    struct ip ip;

    assert_true(ip_parse(text, &ip));
    return ip;
}

static void parses_and_formats(void **state)
{
    static const char *const good[] = { "10.244.1.0/24", "0.0.0.0/0", "10.0.0.1/32", "fd00:10::/64", "::/0", "::1/128" };
    static const char *const bad[] = { "", "10.244.1.0", "10.244.1.0/33", "10.244.1.0/-1", "10.244.1.0/", "/24", "10.244.1/24",
                                       "10.244.1.1/24", "fd00::1/64", "fd00::/129", "fd00::/6 4", "host/24", "10.0.0.0/24/24",
                                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/1" };
    char text[IP_TEXT_MAX + 4];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct prefix p = parse(good[i]);
        prefix_format(&p, text);
        assert_string_equal(text, good[i]);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct prefix p;
        struct status err = STATUS_INIT;
        assert_false(prefix_parse(bad[i], &p, &err));
        assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    }
}

static void knows_what_is_inside(void **state)
{
    struct prefix p = parse("10.244.1.0/24"), inner = parse("10.244.1.128/25"), other = parse("fd00::/64"), all = parse("::/0");
    struct ip ip = address("10.244.1.255");

    (void)state;
    assert_true(prefix_contains(&p, &ip));
    assert_true(prefix_contains(&inner, &ip));
    assert_false(prefix_contains(&other, &ip));
    assert_true(prefix_within(&inner, &p));
    assert_true(prefix_within(&p, &p));
    assert_false(prefix_within(&p, &inner));
    assert_true(prefix_within(&other, &all));
    ip = address("10.244.2.0");
    assert_false(prefix_contains(&p, &ip));
}

static void counts(void **state)
{
    struct prefix p = parse("10.244.1.0/24"), wide = parse("fd00::/64"), one = parse("10.0.0.7/32");
    struct ip ip;
    char text[IP_TEXT_MAX];

    (void)state;
    assert_int_equal(prefix_size(&p), 256);
    assert_int_equal(prefix_size(&one), 1);
    assert_true(prefix_size(&wide) == UINT32_MAX);
    assert_true(prefix_at(&p, 200, &ip));
    ip_format(&ip, text);
    assert_string_equal(text, "10.244.1.200");
    assert_int_equal(prefix_index(&p, &ip), 200);
    assert_false(prefix_at(&p, 256, &ip));
    assert_true(prefix_at(&wide, 0x12345678, &ip));
    ip_format(&ip, text);
    assert_string_equal(text, "fd00::1234:5678");
    assert_true(prefix_index(&wide, &ip) == 0x12345678);
}

static void sockaddrs(void **state)
{
    static const char *const texts[] = { "10.1.2.3", "fd00::9" };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct ip ip = address(texts[i]), back;
        struct sockaddr_storage a;
        uint16_t port;
        assert_int_equal(ip_to_sockaddr(&ip, 8080, &a), i == 0 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        assert_true(ip_of_sockaddr((struct sockaddr *)&a, &back, &port));
        assert_memory_equal(&ip, &back, sizeof ip);
        assert_int_equal(port, 8080);
    }
    struct sockaddr_storage unix_one = { .ss_family = AF_UNIX };
    struct ip ip;
    assert_false(ip_of_sockaddr((struct sockaddr *)&unix_one, &ip, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_and_formats),
        cmocka_unit_test(knows_what_is_inside),
        cmocka_unit_test(counts),
        cmocka_unit_test(sockaddrs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
