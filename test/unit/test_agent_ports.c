/* SPDX-License-Identifier: Apache-2.0 */
/* Which of a machine's listening sockets are told as a pod's ports, and where they are to be reached. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <sys/socket.h>

#include "agent/agent_ports.h"

static struct agent_ports_socket sockets[2000];
static size_t count;

static void add(bool ours, const char *address, uint16_t port, bool ipv6_only)
{
    struct agent_ports_socket *s = &sockets[count++];

    memset(s, 0, sizeof *s);
    s->known = true;
    s->ours = ours;
    s->listener.port = port;
    s->listener.ipv6_only = ipv6_only;
    s->listener.ipv6 = inet_pton(AF_INET, address, s->listener.address) != 1;
    if (s->listener.ipv6)
        assert_int_equal(inet_pton(AF_INET6, address, s->listener.address), 1);
}

/* "80 127.0.0.1 ::1, 81 - ::1" */
static void told(const char *wanted)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    const Interlink__Agent__V1__PortsResponse *m = agent_ports_message(&arena, sockets, count);

    for (size_t i = 0; i < m->n_ports; i++)
        buf_printf(&text, "%s%u %s %s", i > 0 ? ", " : "", m->ports[i]->port, *m->ports[i]->ipv4 != '\0' ? m->ports[i]->ipv4 : "-",
                   *m->ports[i]->ipv6 != '\0' ? m->ports[i]->ipv6 : "-");
    assert_string_equal(buf_cstr(&text), wanted);
    count = 0;
}

static void families(void **state)
{
    (void)state;
    add(true, "0.0.0.0", 80, false);
    told("80 127.0.0.1 -");
    add(true, "::", 80, false);
    told("80 127.0.0.1 ::1");
    add(true, "::", 80, true);
    told("80 - ::1");
    add(true, "10.1.2.3", 80, false);
    told("80 10.1.2.3 -");
    add(true, "fd00::5", 80, false);
    told("80 - fd00::5");
    add(true, "::ffff:10.1.2.3", 80, false);
    told("80 10.1.2.3 -");
}

static void what_is_not_the_pods(void **state)
{
    (void)state;
    add(false, "0.0.0.0", 22, false);
    add(true, "127.0.0.1", 81, false);
    add(true, "127.0.1.1", 82, false);
    add(true, "::1", 83, false);
    add(true, "::ffff:127.0.0.1", 84, false);
    told("");
    add(false, "::", 80, false);
    add(true, "10.1.2.3", 80, false);
    told("80 10.1.2.3 -");
}

static void several_sockets_of_a_port(void **state)
{
    (void)state;
    add(true, "0.0.0.0", 443, false);
    add(true, "127.0.0.1", 80, false);
    add(true, "10.1.2.3", 80, false);
    add(true, "::", 80, true);
    told("80 10.1.2.3 ::1, 443 127.0.0.1 -");
    add(true, "10.1.2.3", 80, false);
    add(true, "0.0.0.0", 80, false); /* SO_REUSEPORT: any address covers the other one */
    told("80 127.0.0.1 -");
}

static void bounded(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;

    (void)state;
    for (uint16_t port = 1; port <= COUNT_OF(sockets); port++)
        add(true, "0.0.0.0", port, false);
    assert_int_equal(agent_ports_message(&arena, sockets, count)->n_ports, AGENT_PORTS_MAX);
    count = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families),
        cmocka_unit_test(what_is_not_the_pods),
        cmocka_unit_test(several_sockets_of_a_port),
        cmocka_unit_test(bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
