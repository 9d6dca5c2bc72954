/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of pods elsewhere: given, kept, taken over, run out; ranges that cannot be had. In a network namespace of a child's; where
 * that is refused it is skipped. */
#include "in_namespace.h"

#include "io/child.h"
#include "io/file.h"
#include "io/route.h"
#include "node/gate_internal.h"
#include "rpc/pb.h"

static char folder[] = "/tmp/gate-XXXXXX";
static struct node_handler_options handler_options = { .name = "cluster", .url = "http://site" };
static struct handler handler = { .options = &handler_options };
static const char *ranges[3];
static struct node_options options = {
    .handlers = &handler_options, .handler_count = 1, .network_mode = "never", .cni_conf_dir = "/nonexistent", .relay_cidrs = ranges,
};
static struct node node = { .options = &options, .node_ip = "127.0.0.1" };

/* Before each test, in its own process. */
static void begin_node(void)
{
    struct status err = STATUS_INIT;

    node.loop = loop_new(&err);
    node.pod_cidr = (char *)(uintptr_t) "";
    options.state_dir = folder;
    child_reaper_start(node.loop, NULL, NULL, &err);
}

static void begin(const char *first, const char *second)
{
    struct status err = STATUS_INIT;

    ranges[0] = first;
    ranges[1] = first != NULL ? second : NULL;
    node.state = state_open(node.loop, folder, &err);
    if (node.state == NULL)
        abort();
    gate_start(&node);
}

static void end(void)
{
    gate_stop(node.gate);
    node.gate = NULL;
    state_close(node.state);
}

static struct sandbox *pod(const char *name, int port, struct status *err)
{
    struct sandbox *s = xcalloc(1, sizeof *s);
    Interlink__State__V1__Sandbox *r = xmalloc(sizeof *r);

    interlink__state__v1__sandbox__init(r);
    pb_set(&r->id, name);
    r->config = xmalloc(sizeof *r->config);
    runtime__v1__pod_sandbox_config__init(r->config);
    r->config->metadata = xmalloc(sizeof *r->config->metadata);
    runtime__v1__pod_sandbox_metadata__init(r->config->metadata);
    if (port > 0) {
        r->config->port_mappings = xcalloc(1, sizeof *r->config->port_mappings);
        r->config->port_mappings[0] = xmalloc(sizeof **r->config->port_mappings);
        runtime__v1__port_mapping__init(r->config->port_mappings[0]);
        r->config->port_mappings[0]->container_port = port;
        r->config->n_port_mappings = 1;
    }
    *s = (struct sandbox){ .node = &node, .handler = &handler, .record = r };
    if (!gate_plan(&node, &handler, r, err)) {
        protobuf_c_message_free_unpacked(&r->base, NULL);
        free(s);
        return NULL;
    }
    gate_add(s);
    strmap_put(&node.sandboxes, name, s);
    return s;
}

static void away(struct sandbox *s)
{
    gate_remove(s);
    strmap_remove(&node.sandboxes, s->record->id);
    protobuf_c_message_free_unpacked(&s->record->base, NULL);
    free(s);
}

static int try_addresses(void)
{
    struct status err = STATUS_INIT;
    struct sandbox *a, *b, *c;

    begin_node();
    begin("10.9.0.0/29", "fd00:9::/64");
    CHECK((a = pod("a", 0, &err)) != NULL && a->record->own_addresses);
    CHECK(strcmp(a->record->ip, "10.9.0.2") == 0 && a->record->n_additional_ips == 1 && strcmp(a->record->additional_ips[0], "fd00:9::2") == 0);
    CHECK((b = pod("b", 0, &err)) != NULL && strcmp(b->record->ip, "10.9.0.3") == 0);
    away(b);
    CHECK((b = pod("b", 0, &err)) != NULL && strcmp(b->record->ip, "10.9.0.4") == 0); /* not the one that has just come free */
    end();
    /* Another life: records are kept, and where the ranges stood. */
    Interlink__State__V1__Node *record = xmalloc(sizeof *record);
    interlink__state__v1__node__init(record);
    record->relay = xmalloc(sizeof *record->relay);
    interlink__state__v1__relay_ranges__init(record->relay);
    record->relay->last = xcalloc(3, sizeof *record->relay->last);
    record->relay->last[0] = xstrdup("10.9.0.5");
    record->relay->last[1] = xstrdup("192.0.2.1"); /* of a range that is gone */
    record->relay->last[2] = xstrdup("nonsense");
    record->relay->n_last = 3;
    node.gate_record = record;
    begin("10.9.0.0/29", "fd00:9::/64");
    CHECK(a->gate != NULL && b->gate != NULL && strmap_get(&node.gate->by_ip, "10.9.0.4") == b->gate);
    CHECK((c = pod("c", 0, &err)) != NULL && strcmp(c->record->ip, "10.9.0.6") == 0);
    struct sandbox *d = pod("d", 0, &err), *e = pod("e", 0, &err); /* round: .2 and .4 are taken */
    CHECK(d != NULL && strcmp(d->record->ip, "10.9.0.3") == 0 && e != NULL && strcmp(e->record->ip, "10.9.0.5") == 0);
    CHECK(pod("f", 0, &err) == NULL && err.code == STATUS_UNAVAILABLE && strstr(err.message, "10.9.0.0/29") != NULL);
    err = (struct status)STATUS_INIT;
    /* Another range: what pods have stays, with its route, as long as they have it. */
    struct prefix old, found[4];
    CHECK(prefix_parse("10.9.0.0/29", &old, &err));
    end();
    begin("10.10.0.0/24", NULL);
    CHECK(route_list_local(node.gate->metric, found, 4) == 3);
    struct sandbox *f = pod("f", 0, &err);
    CHECK(f != NULL && strcmp(f->record->ip, "10.10.0.2") == 0 && f->record->n_additional_ips == 0);
    struct sandbox *all[] = { a, b, c, d, e };
    for (size_t i = 0; i < COUNT_OF(all); i++)
        away(all[i]);
    end();
    begin("10.10.0.0/24", NULL);
    CHECK(route_list_local(node.gate->metric, found, 4) == 1 && !prefix_equal(&found[0], &old));
    away(f);
    uint32_t metric = node.gate->metric;
    end();
    CHECK(route_list_local(metric, found, 4) == 0); /* nobody needs it */
    return GOOD;
}

static int try_fallback(void)
{
    struct status err = STATUS_INIT;
    struct sandbox *a, *b, *c;

    begin_node();
    begin("127.0.0.0/24", NULL);
    CHECK(node.gate->mode == GATE_NODE && strstr(node.gate->why.message, "127.0.0.1") != NULL);
    CHECK((a = pod("a", 8080, &err)) != NULL && strcmp(a->record->ip, "127.0.0.1") == 0 && !a->record->own_addresses);
    CHECK((b = pod("b", 8080, &err)) != NULL && *b->record->ip == '\0' && b->gate == NULL);
    CHECK((c = pod("c", 0, &err)) != NULL && strcmp(c->record->ip, "127.0.0.1") == 0);
    gate_on_stopped(a); /* still there, but it needs no port */
    away(b);
    CHECK((b = pod("b", 8080, &err)) != NULL && strcmp(b->record->ip, "127.0.0.1") == 0);
    away(a);
    away(b);
    away(c);
    end();
    begin(NULL, NULL);
    node.pod_cidr = (char *)(uintptr_t) "";
    CHECK(node.gate->mode == GATE_NODE && strstr(node.gate->why.message, "kubelet has told no pod CIDR") != NULL);
    node.pod_cidr = (char *)(uintptr_t) "10.11.0.1/24"; /* bits behind the length */
    gate_refresh(node.gate);
    CHECK(node.gate->mode == GATE_NODE && strstr(node.gate->why.message, "begins at") != NULL);
    node.pod_cidr = (char *)(uintptr_t) "10.11.0.0/24";
    gate_refresh(node.gate);
    CHECK(node.gate->mode > GATE_NODE);
    end();
    return GOOD;
}

static void addresses(void **state)
{
    (void)state;
    in_namespace(try_addresses);
}

static void fallback(void **state)
{
    (void)state;
    in_namespace(try_fallback);
}

static void declared(void **state)
{
    Runtime__V1__PortMapping m[5];
    Runtime__V1__PortMapping *list[5];
    Runtime__V1__PodSandboxConfig config = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
    static const int ports[5] = { 80, 53, 80, 0, 443 };
    uint16_t out[5];

    (void)state;
    for (size_t i = 0; i < 5; i++) {
        runtime__v1__port_mapping__init(&m[i]);
        m[i].container_port = ports[i];
        m[i].protocol = i == 1 ? RUNTIME__V1__PROTOCOL__UDP : RUNTIME__V1__PROTOCOL__TCP;
        list[i] = &m[i];
    }
    config.port_mappings = list;
    config.n_port_mappings = 5;
    assert_int_equal(gate_declared(&config, out, 5), 2);
    assert_int_equal(out[0], 80);
    assert_int_equal(out[1], 443);
    assert_int_equal(gate_declared(&config, out, 1), 1);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) != NULL ? 0 : 1;
}

static int tear_down(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    return tree_remove(folder, &err) ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),
        cmocka_unit_test(fallback),
        cmocka_unit_test(declared),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
