/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/podspec.h"

#include "text/json.h"

/* A number, or the name of one of the container's ports. */
static bool podspec_read_port(const struct json *action, const struct podspec_container *c, uint16_t *out, struct status *err)
{
    const struct json *port = json_member(action, "port"), *ports = NULL;
    int64_t number = 0;
    uint64_t text;

    if (port == NULL || port->type == JSON_NULL)
        return json_fail(action, err, "port: missing");
    if (port->type == JSON_STRING && parse_u64(port->text, 65535, &text)) {
        number = (int64_t)text;
    } else if (port->type == JSON_STRING) {
        if (!json_read_node(c->base->json, "ports", JSON_ARRAY, &ports, err))
            return false;
        for (JSON_EACH(item, ports))
            if (strcmp(json_string(json_member(item, "name"), ""), port->text) == 0)
                number = json_i64(json_member(item, "containerPort"), 0);
    } else if (!json_as_i64(port, 1, 65535, &number, err)) {
        return false;
    }
    if (number < 1 || number > 65535)
        return json_fail(port, err, "\"%.60s\" is no port of the container", port->text);
    *out = (uint16_t)number;
    return true;
}

static bool podspec_read_http(struct arena *arena, const struct json *j, const struct podspec_container *c, struct podspec_action *a,
                              struct status *err)
{
    const struct json *headers = NULL;
    const char *scheme = "HTTP";

    a->kind = PODSPEC_HTTP;
    a->path = "/";
    if (!json_read_string(j, "path", &a->path, err) || !json_read_string(j, "host", &a->host, err) ||
        !json_read_string(j, "scheme", &scheme, err) || !json_read_node(j, "httpHeaders", JSON_ARRAY, &headers, err) ||
        !podspec_read_port(j, c, &a->port, err))
        return false;
    a->https = strcmp(scheme, "HTTPS") == 0;
    if (!a->https && strcmp(scheme, "HTTP") != 0)
        return json_fail(j, err, "scheme: \"%.40s\" is none of HTTP, HTTPS", scheme);
    if (headers == NULL || headers->count == 0)
        return true;
    a->headers.items = ARENA_ARRAY(arena, struct interlink_pair, headers->count);
    for (JSON_EACH(item, headers)) {
        struct interlink_pair *pair = &a->headers.items[a->headers.count++];
        *pair = (struct interlink_pair){ "", "" };
        if (!json_want(item, JSON_OBJECT, err) || !json_read_string(item, "name", &pair->name, err) ||
            !json_read_string(item, "value", &pair->value, err))
            return false;
    }
    return true;
}

static bool podspec_read_exec(struct arena *arena, const struct json *j, struct podspec_action *a, struct status *err)
{
    const struct json *command = NULL;

    a->kind = PODSPEC_EXEC;
    if (!json_read_node(j, "command", JSON_ARRAY, &command, err))
        return false;
    if (command == NULL || command->count == 0)
        return json_fail(j, err, "command: missing");
    a->command.items = ARENA_ARRAY(arena, const char *, command->count);
    for (JSON_EACH(item, command))
        if (!json_as_string(item, &a->command.items[a->command.count++], err))
            return false;
    return true;
}

/* `j`: a probe or a handler of lifecycle. */
static bool podspec_read_action(struct arena *arena, const struct json *j, const struct podspec_container *c, struct podspec_action *a,
                                struct status *err)
{
    const struct json *exec = NULL, *http = NULL, *tcp = NULL, *grpc = NULL, *sleep_for = NULL;

    a->host = a->path = "";
    if (!json_read_node(j, "exec", JSON_OBJECT, &exec, err) || !json_read_node(j, "httpGet", JSON_OBJECT, &http, err) ||
        !json_read_node(j, "tcpSocket", JSON_OBJECT, &tcp, err) || !json_read_node(j, "grpc", JSON_OBJECT, &grpc, err) ||
        !json_read_node(j, "sleep", JSON_OBJECT, &sleep_for, err))
        return false;
    if (exec != NULL)
        return podspec_read_exec(arena, exec, a, err);
    if (http != NULL)
        return podspec_read_http(arena, http, c, a, err);
    if (tcp != NULL) {
        a->kind = PODSPEC_TCP;
        return json_read_string(tcp, "host", &a->host, err) && podspec_read_port(tcp, c, &a->port, err);
    }
    if (sleep_for != NULL) {
        a->kind = PODSPEC_SLEEP;
        return json_read_i64(sleep_for, "seconds", 0, INT32_MAX, &a->sleep_seconds, err);
    }
    if (grpc == NULL)
        return json_fail(j, err, "none of exec, httpGet, tcpSocket, sleep");
    json_fail(grpc, err, "probes by gRPC cannot be had here: exec, httpGet and tcpSocket can");
    err->code = STATUS_FAILED_PRECONDITION;
    return false;
}

static bool podspec_read_probe(struct arena *arena, const struct json *j, const struct podspec_container *c, struct podspec_probe *p,
                               struct status *err)
{
    /* Kubernetes' own defaults (v1.Probe). */
    *p = (struct podspec_probe){ .timeout = 1, .period = 10, .successes = 1, .failures = 3, .grace = -1 };
    if (!podspec_read_action(arena, j, c, &p->action, err) ||
        !json_read_i64(j, "initialDelaySeconds", 0, INT32_MAX, &p->initial_delay, err) ||
        !json_read_i64(j, "timeoutSeconds", 0, INT32_MAX, &p->timeout, err) ||
        !json_read_i64(j, "periodSeconds", 0, INT32_MAX, &p->period, err) ||
        !json_read_i64(j, "successThreshold", 0, INT32_MAX, &p->successes, err) ||
        !json_read_i64(j, "failureThreshold", 0, INT32_MAX, &p->failures, err) ||
        !json_read_i64(j, "terminationGracePeriodSeconds", 0, INT32_MAX, &p->grace, err))
        return false;
    if (p->action.kind == PODSPEC_SLEEP)
        return json_fail(j, err, "sleep is no probe");
    /* 0 is what a client sends that leaves the default to the API server. */
    p->timeout = p->timeout > 0 ? p->timeout : 1;
    p->period = p->period > 0 ? p->period : 10;
    p->successes = p->successes > 0 ? p->successes : 1;
    p->failures = p->failures > 0 ? p->failures : 3;
    return true;
}

static bool podspec_read_hook(struct arena *arena, const struct json *lifecycle, const char *name, const struct podspec_container *c,
                              struct podspec_action *a, struct status *err)
{
    const struct json *hook = NULL;

    return json_read_node(lifecycle, name, JSON_OBJECT, &hook, err) &&
           (hook == NULL || podspec_read_action(arena, hook, c, a, err));
}

bool podspec_read_probes(struct arena *arena, const struct json *container, struct podspec_container *c, struct status *err)
{
    static const char *const names[PODSPEC_PROBES] = { "startupProbe", "readinessProbe", "livenessProbe" };
    const struct json *lifecycle = NULL;

    for (size_t i = 0; i < PODSPEC_PROBES; i++) {
        const struct json *probe = NULL;
        if (!json_read_node(container, names[i], JSON_OBJECT, &probe, err))
            return false;
        if (probe == NULL)
            continue;
        if (c->role == PODSPEC_INIT)
            return json_fail(probe, err, "an init container has no probes");
        if (!podspec_read_probe(arena, probe, c, &c->probes[i], err))
            return false;
    }
    return json_read_node(container, "lifecycle", JSON_OBJECT, &lifecycle, err) &&
           podspec_read_hook(arena, lifecycle, "postStart", c, &c->post_start, err) &&
           podspec_read_hook(arena, lifecycle, "preStop", c, &c->pre_stop, err);
}
