/* SPDX-License-Identifier: Apache-2.0 */
#include "node/operator.h"

#include "http/server.h"
#include "interlink/interlink.h"
#include "node/counters.h"
#include "node/operator_state.h"

/* A record is written for a check at most this often, and then this much time is given to it. */
#define OPERATOR_PROBE_EVERY_MS 10000
#define OPERATOR_PROBE_TIMEOUT_MS 5000
/* A target without jobs is not asked for states: then it is pinged, at most this often. */
#define OPERATOR_PING_EVERY_MS 30000
/* A turn of the loop that took longer than this held up every call. */
#define OPERATOR_LAG_MAX_MS 2000
/* The record's name; one that a crash left behind is empty, and is overwritten by the next. */
#define OPERATOR_PROBE_ID "probe"

struct operator {
    struct node *node;
    struct http_server *server;
    struct listener listener;
    bool leaving;
    /* the record that is written for a check */
    bool probing;
    int64_t probed_ms; /* when the last one was done; 0: never */
    struct status probe, written; /* how it went; how the first half did */
    struct timer probe_timer;
    struct list waiting; /* of operator_check.link */
    int64_t *pinged_ms;  /* owned; by handler */
};

/* ---- health ---- */

/* A request for /healthz that waits for the record. */
struct operator_check {
    struct list link;
    struct operator *operator;
    struct http_exchange *exchange;
};

/* "exclude=a&exclude=b" in the query. */
static bool operator_excluded(const char *query, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = query; (p = strstr(p, "exclude=")) != NULL; p++)
        if ((p == query || p[-1] == '&') && strncmp(p + strlen("exclude="), name, n) == 0 &&
            (p[strlen("exclude=") + n] == '\0' || p[strlen("exclude=") + n] == '&'))
            return true;
    return false;
}

struct operator_report {
    const char *query;
    struct buf text;
    bool failed;
};

static void operator_report(struct operator_report *r, const char *name, const struct status *err)
{
    if (operator_excluded(r->query, name)) {
        buf_printf(&r->text, "[+]%s excluded: ok\n", name);
    } else if (err->code == STATUS_OK) {
        buf_printf(&r->text, "[+]%s ok\n", name);
    } else {
        buf_printf(&r->text, "[-]%s failed: %s\n", name, err->message);
        r->failed = true;
    }
}

static void operator_check_targets(const struct operator *operator, struct operator_report *r)
{
    const struct node *node = operator->node;

    for (size_t i = 0; i < node->options->handler_count; i++) {
        char name[128];
        snprintf(name, sizeof name, "target-%s", node->handlers[i].options->name);
        operator_report(r, name, interlink_target_health(node->handlers[i].target));
    }
}

static void operator_answer_health(struct operator *operator, struct http_exchange *x)
{
    struct operator_report r = { .query = http_exchange_query(x), .text = BUF_INIT };
    struct status state = operator->probe, loop = STATUS_INIT, leaving = STATUS_INIT;
    int64_t lag_ms = loop_lag_ms(operator->node->loop);

    if (state.code == STATUS_OK)
        state_healthy(operator->node->state, NODE_STATE_PATIENCE_MS, &state);
    if (lag_ms > OPERATOR_LAG_MAX_MS)
        status_set(&loop, STATUS_UNAVAILABLE, "one turn of the event loop took %" PRId64 " ms within the last minute", lag_ms);
    if (operator->leaving)
        status_set(&leaving, STATUS_UNAVAILABLE, "the node is being stopped");
    operator_report(&r, "serving", &leaving);
    operator_report(&r, "state", &state);
    operator_report(&r, "loop", &loop);
    operator_check_targets(operator, &r);
    if (!r.failed && http_exchange_query_get(x, "verbose") == NULL) {
        http_reply_text(x, 200, "text/plain; charset=utf-8", STR("ok"));
    } else {
        buf_append_str(&r.text, r.failed ? "healthz check failed\n" : "healthz check passed\n");
        http_reply_text(x, r.failed ? 503 : 200, "text/plain; charset=utf-8", (struct str){ (const char *)r.text.p, r.text.n });
    }
    buf_free(&r.text);
}

static void operator_probe_done(struct operator *operator, const struct status *err)
{
    timer_stop(&operator->probe_timer);
    operator->probed_ms = clock_mono_ms();
    operator->probe = err != NULL ? *err : (struct status)STATUS_INIT;
    while (!list_empty(&operator->waiting)) {
        struct operator_check *check = CONTAINER_OF(operator->waiting.next, struct operator_check, link);
        struct http_exchange *x = check->exchange;
        list_remove(&check->link);
        free(check);
        operator_answer_health(operator, x);
    }
}

static void operator_on_probe_written(void *arg, const struct status *err)
{
    struct operator *operator = arg;

    operator->written = err != NULL ? *err : (struct status)STATUS_INIT;
}

static void operator_on_probe_deleted(void *arg, const struct status *err)
{
    struct operator *operator = arg;

    operator->probing = false;
    operator_probe_done(operator, operator->written.code != STATUS_OK ? &operator->written : err);
}

static void operator_on_probe_timeout(void *arg)
{
    struct operator *operator = arg;
    struct status err = STATUS_INIT;

    status_set(&err, STATUS_UNAVAILABLE, "a record was not written within %d s", OPERATOR_PROBE_TIMEOUT_MS / 1000);
    operator_probe_done(operator, &err);
}

static void operator_probe(struct operator *operator)
{
    Interlink__State__V1__Node record = INTERLINK__STATE__V1__NODE__INIT;
    struct node *node = operator->node;

    if (!timer_running(&operator->probe_timer))
        timer_start(node->loop, &operator->probe_timer, OPERATOR_PROBE_TIMEOUT_MS, operator_on_probe_timeout, operator);
    if (operator->probing)
        return;
    operator->probing = true;
    state_put(node->state, STATE_NODE, OPERATOR_PROBE_ID, &record.base, operator_on_probe_written, operator);
    state_delete(node->state, STATE_NODE, OPERATOR_PROBE_ID, operator_on_probe_deleted, operator);
}

static void operator_on_ping(void *arg, const struct interlink_ping *ping, const struct status *err)
{
    (void)arg; /* the target keeps how it went */
    (void)ping;
    (void)err;
}

static void operator_ping_targets(struct operator *operator)
{
    int64_t now = clock_mono_ms();

    for (size_t i = 0; i < operator->node->options->handler_count; i++) {
        struct handler *h = &operator->node->handlers[i];
        if (interlink_target_job_count(h->target) > 0 ||
            (operator->pinged_ms[i] != 0 && now - operator->pinged_ms[i] < OPERATOR_PING_EVERY_MS))
            continue;
        operator->pinged_ms[i] = now;
        interlink_target_ping(h->target, operator_on_ping, NULL);
    }
}

static void operator_on_check_gone(void *arg)
{
    struct operator_check *check = arg;

    list_remove(&check->link);
    free(check);
}

static void operator_on_health(void *context, struct http_exchange *x)
{
    struct operator *operator = context;

    operator_ping_targets(operator);
    if (operator->probed_ms != 0 && clock_mono_ms() - operator->probed_ms < OPERATOR_PROBE_EVERY_MS) {
        operator_answer_health(operator, x);
        return;
    }
    struct operator_check *check = xcalloc(1, sizeof *check);
    check->operator = operator;
    check->exchange = x;
    list_append(&operator->waiting, &check->link);
    http_exchange_on_gone(x, operator_on_check_gone, check);
    operator_probe(operator);
}

/* ---- the rest ---- */

static void operator_on_metrics(void *context, struct http_exchange *x)
{
    struct operator *operator = context;
    cleanup_buf struct buf text = BUF_INIT;

    counters_write(operator->node->counters, &text);
    http_reply_text(x, 200, PROMETHEUS_CONTENT_TYPE, (struct str){ (const char *)text.p, text.n });
}

static void operator_on_state(void *context, struct http_exchange *x)
{
    struct operator *operator = context;
    cleanup_buf struct buf text = BUF_INIT;

    operator_state_write(operator->node, &text);
    http_reply_text(x, 200, "application/json", (struct str){ (const char *)text.p, text.n });
}

static const struct http_route operator_routes[] = {
    { "GET", "/healthz", 0, false, operator_on_health },
    { "GET", "/metrics", 0, false, operator_on_metrics },
    { "GET", "/debug/state", 0, false, operator_on_state },
};

struct operator *operator_start(struct node *node, struct status *err)
{
    struct operator *operator = xcalloc(1, sizeof *operator);
    const struct http_server_options options = {
        .routes = operator_routes,
        .route_count = COUNT_OF(operator_routes),
        .context = operator,
        .connections_max = OPERATOR_CONNECTIONS_MAX,
    };
    struct address address;
    uint16_t port = 0;

    operator->node = node;
    operator->listener.fd = -1;
    list_init(&operator->waiting);
    operator->pinged_ms = xcalloc(node->options->handler_count, sizeof *operator->pinged_ms);
    operator->server = http_server_new(node->loop, &options);
    if (!address_parse(node->options->metrics_address, &address, err) ||
        !listener_open(node->loop, &operator->listener, &address, 0600, http_server_accept_fd, operator->server, &port, err)) {
        status_prefix(err, "Metrics.Address");
        operator_stop(operator);
        return NULL;
    }
    if (address.is_unix)
        log_info("metrics and health on unix://%s", address.path);
    else
        log_info("metrics and health on http://%s:%u", address.host, port);
    return operator;
}

void operator_leaving(struct operator *operator)
{
    if (operator != NULL)
        operator->leaving = true;
}

void operator_stop(struct operator *operator)
{
    if (operator == NULL)
        return;
    listener_close(&operator->listener);
    http_server_free(operator->server);
    timer_stop(&operator->probe_timer);
    state_forget(operator->node->state, operator);
    free(operator->pinged_ms);
    free(operator);
}

#undef OPERATOR_PROBE_EVERY_MS
#undef OPERATOR_PROBE_TIMEOUT_MS
#undef OPERATOR_PING_EVERY_MS
#undef OPERATOR_LAG_MAX_MS
#undef OPERATOR_PROBE_ID
