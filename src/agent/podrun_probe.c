/* SPDX-License-Identifier: Apache-2.0 */
/* Probes and hooks, as kubelet's prober does them (pkg/kubelet/prober, pkg/probe). */
#include "agent/podrun_internal.h"

#include <unistd.h>


/* Of a command's output, for the message of a failure. */
#define PODRUN_CHECK_OUTPUT_MAX 256

/* ---- one action ---- */

static void podrun_check_end(struct podrun_check *check, bool ok, const char *why)
{
    cleanup_free char *words = xstrdup(why); /* it may be of what is freed now */

    podrun_check_cancel(check);
    check->done(check->arg, ok, words);
}

static void podrun_check_on_timeout(void *arg)
{
    struct podrun_check *check = arg;
    char why[64];

    snprintf(why, sizeof why, "no result within %" PRId64 " s", check->timeout_ms / 1000);
    podrun_check_end(check, false, why);
}

static void podrun_check_on_slept(void *arg)
{
    podrun_check_end(arg, true, "");
}

static void podrun_check_on_exec(void *arg, const ProtobufCMessage *message)
{
    struct podrun_check *check = arg;
    const Interlink__Agent__V1__ExecResponse *response = (const void *)message;
    const ProtobufCBinaryData *parts[] = { &response->stdout, &response->stderr };
    char why[PODRUN_CHECK_OUTPUT_MAX + 64];

    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        size_t room = PODRUN_CHECK_OUTPUT_MAX - check->output.n;
        buf_append(&check->output, parts[i]->data, parts[i]->len < room ? parts[i]->len : room);
    }
    if (response->exited == NULL)
        return;
    snprintf(why, sizeof why, "the command ended with %d: %.*s", response->exited->exit_code, (int)check->output.n,
             check->output.n > 0 ? (const char *)check->output.p : "");
    podrun_check_end(check, response->exited->exit_code == 0, why);
}

static void podrun_check_on_exec_finish(void *arg, const struct status *status)
{
    struct podrun_check *check = arg;

    check->exec = NULL;
    podrun_check_end(check, false, status->message);
}

static void podrun_check_exec(struct podrun_check *check, const struct podspec_action *action)
{
    Interlink__Agent__V1__ExecStart start = INTERLINK__AGENT__V1__EXEC_START__INIT;
    Interlink__Agent__V1__ExecRequest first = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Exec",
        .output = &interlink__agent__v1__exec_response__descriptor,
        .on_message = podrun_check_on_exec,
        .on_finish = podrun_check_on_exec_finish,
        .arg = check,
    };

    check->exec = rpc_request_start(check->container->run->conn, &options);
    start.container_id = check->container->id;
    start.n_command = action->command.count;
    start.command = (char **)(uintptr_t)action->command.items;
    first.start = &start;
    rpc_request_send(check->exec, &first.base);
}

static void podrun_check_on_http(void *arg, const struct http_result *result)
{
    struct podrun_check *check = arg;
    char why[256];

    check->http = NULL;
    /* What came of an answer too large to be kept is an answer. */
    bool ok = (result->err == NULL || result->err->code == STATUS_RESOURCE_EXHAUSTED) && result->http_status >= 200 &&
              result->http_status < 400;
    if (result->http_status > 0)
        snprintf(why, sizeof why, "HTTP status %d", result->http_status);
    else
        snprintf(why, sizeof why, "%.250s", result->err != NULL ? result->err->message : "");
    podrun_check_end(check, ok, why);
}

static void podrun_check_http(struct podrun_check *check, const struct podspec_action *a)
{
    struct podrun *run = check->container->run;
    cleanup_free struct http_header *headers = xcalloc(a->headers.count + 1, sizeof *headers);
    bool v6 = strchr(a->host, ':') != NULL;
    cleanup_free char *url = xasprintf("%s://%s%s%s:%u%s%s", a->https ? "https" : "http", v6 ? "[" : "",
                                       a->host[0] != '\0' ? a->host : "127.0.0.1", v6 ? "]" : "", (unsigned)a->port,
                                       a->path[0] == '/' ? "" : "/", a->path);

    for (size_t i = 0; i < a->headers.count; i++)
        headers[i] = (struct http_header){ a->headers.items[i].name, a->headers.items[i].value };
    /* As kubelet: no proxy, and any certificate. */
    if (run->http == NULL)
        run->http = http_client_new(run->loop, &(struct http_client_options){ .proxy = "", .skip_verify = true });
    check->http = http_request_start(run->http, &(struct http_request_options){
        .url = url, .headers = headers, .header_count = a->headers.count, .on_done = podrun_check_on_http, .arg = check });
}

static void podrun_check_on_tcp(void *arg, int fd, const struct status *err)
{
    struct podrun_check *check = arg;

    if (fd >= 0)
        close(fd);
    podrun_check_end(check, fd >= 0, fd >= 0 ? "" : err->message);
}

static void podrun_check_tcp(struct podrun_check *check, const struct podspec_action *a)
{
    struct address address = { .port = a->port };

    snprintf(address.host, sizeof address.host, "%s", a->host[0] != '\0' ? a->host : "127.0.0.1");
    connector_start(check->container->run->loop, &check->tcp, &address, check->timeout_ms, podrun_check_on_tcp, check);
}

void podrun_check_start(struct podrun_check *check, struct podrun_container *c, const struct podspec_action *action,
                        int64_t timeout_ms, void (*done)(void *arg, bool ok, const char *why), void *arg)
{
    struct loop *loop = c->run->loop;

    podrun_check_cancel(check);
    check->container = c;
    check->timeout_ms = timeout_ms;
    check->done = done;
    check->arg = arg;
    if (action->kind == PODSPEC_SLEEP) {
        timer_start(loop, &check->timer, action->sleep_seconds * 1000, podrun_check_on_slept, check);
        return;
    }
    timer_start(loop, &check->timer, timeout_ms, podrun_check_on_timeout, check);
    if (action->kind == PODSPEC_EXEC)
        podrun_check_exec(check, action);
    else if (action->kind == PODSPEC_HTTP)
        podrun_check_http(check, action);
    else
        podrun_check_tcp(check, action);
}

void podrun_check_cancel(struct podrun_check *check)
{
    if (check->container == NULL)
        return;
    rpc_request_cancel(steal_ptr(&check->exec));
    http_request_cancel(steal_ptr(&check->http));
    connector_cancel(&check->tcp);
    timer_stop(&check->timer);
    buf_free(&check->output);
    check->container = NULL;
}

/* ---- probes ---- */

static void podrun_probe_next(struct podrun_probe *p, int64_t delay_ms);

static const struct podspec_probe *podrun_probe_spec(const struct podrun_container *c, enum podspec_probe_kind kind)
{
    return &c->spec->probes[kind];
}

/* The startup probe has succeeded, or there is none. */
static void podrun_probe_started(struct podrun_container *c)
{
    c->started = true;
    c->ready = podrun_probe_spec(c, PODSPEC_READINESS)->action.kind == PODSPEC_NONE;
    for (int kind = PODSPEC_READINESS; kind <= PODSPEC_LIVENESS; kind++)
        if (podrun_probe_spec(c, (enum podspec_probe_kind)kind)->action.kind != PODSPEC_NONE)
            podrun_probe_next(&c->probes[kind], podrun_probe_spec(c, (enum podspec_probe_kind)kind)->initial_delay * 1000);
    podrun_status_changed(c->run);
    podrun_step_soon(c->run); /* a sidecar: the next one's turn */
}

static void podrun_probe_failed(struct podrun_container *c, const struct podspec_probe *spec, const char *name, const char *why)
{
    char text[256];

    snprintf(text, sizeof text, "its %s probe failed: %.200s", name, why);
    podrun_container_stop(c, (spec->grace >= 0 ? spec->grace : c->run->spec.grace_seconds) * 1000, text);
}

static void podrun_probe_on_done(void *arg, bool ok, const char *why)
{
    struct podrun_probe *p = arg;
    struct podrun_container *c = p->container;
    const struct podspec_probe *spec = podrun_probe_spec(c, p->kind);

    p->streak = ok ? (p->streak > 0 ? p->streak + 1 : 1) : (p->streak < 0 ? p->streak - 1 : -1);
    bool good = p->streak >= spec->successes, bad = -p->streak >= spec->failures;
    if (!ok)
        log_info("container %s: a probe failed: %s", c->spec->base->name, why);
    if (p->kind == PODSPEC_READINESS && (good || bad) && c->ready != good) {
        c->ready = good;
        podrun_status_changed(c->run);
    }
    if (p->kind == PODSPEC_STARTUP && good) {
        podrun_probe_started(c);
        return; /* it has done its work */
    }
    if (p->kind != PODSPEC_READINESS && bad) {
        podrun_probe_failed(c, spec, p->kind == PODSPEC_STARTUP ? "startup" : "liveness", why);
        return;
    }
    podrun_probe_next(p, spec->period * 1000);
}

static void podrun_probe_run(void *arg)
{
    struct podrun_probe *p = arg;
    const struct podspec_probe *spec = podrun_probe_spec(p->container, p->kind);

    podrun_check_start(&p->check, p->container, &spec->action, spec->timeout * 1000, podrun_probe_on_done, p);
}

static void podrun_probe_next(struct podrun_probe *p, int64_t delay_ms)
{
    timer_start(p->container->run->loop, &p->timer, delay_ms, podrun_probe_run, p);
}

void podrun_probes_start(struct podrun_container *c)
{
    for (size_t i = 0; i < PODSPEC_PROBES; i++) {
        c->probes[i].container = c;
        c->probes[i].kind = (enum podspec_probe_kind)i;
        c->probes[i].streak = 0;
    }
    c->started = c->ready = false;
    if (podrun_probe_spec(c, PODSPEC_STARTUP)->action.kind == PODSPEC_NONE)
        podrun_probe_started(c);
    else
        podrun_probe_next(&c->probes[PODSPEC_STARTUP], podrun_probe_spec(c, PODSPEC_STARTUP)->initial_delay * 1000);
}

void podrun_probes_stop(struct podrun_container *c)
{
    for (size_t i = 0; i < PODSPEC_PROBES; i++) {
        timer_stop(&c->probes[i].timer);
        podrun_check_cancel(&c->probes[i].check);
    }
    c->ready = false;
}

#undef PODRUN_CHECK_OUTPUT_MAX
