/* SPDX-License-Identifier: Apache-2.0 */
#include "interlink/message.h"

#include "text/json.h"
#include "text/timefmt.h"

/* ---- times: absent, null and Go's year 1 all mean "not told" ---- */

static bool message_read_time(const struct json *j, const char *name, int64_t *out, struct status *err)
{
    const char *text = "";

    *out = 0;
    if (!json_read_string(j, name, &text, err))
        return false;
    if (text[0] != '\0' && (!timefmt_parse(str_of(text), out) || *out < 0))
        *out = 0;
    return true;
}

static void message_write_time(struct json_writer *w, const char *key, int64_t ns)
{
    char text[TIMEFMT_SIZE];

    json_write_key(w, key);
    if (ns <= 0) {
        json_write_null(w);
        return;
    }
    timefmt_seconds(ns, text);
    json_write_string(w, text);
}

/* ---- states ---- */

static bool message_read_terminated(const struct json *j, struct interlink_container_state *out, struct status *err)
{
    int64_t exit_code = 0, sig = 0;

    if (!json_read_i64(j, "exitCode", INT32_MIN, INT32_MAX, &exit_code, err) ||
        !json_read_i64(j, "signal", INT32_MIN, INT32_MAX, &sig, err) ||
        !json_read_string(j, "reason", &out->reason, err) || !json_read_string(j, "message", &out->message, err) ||
        !message_read_time(j, "startedAt", &out->started_ns, err) ||
        !message_read_time(j, "finishedAt", &out->finished_ns, err))
        return false;
    out->exit_code = (int)exit_code;
    out->signal = (int)sig;
    return true;
}

/* `state`: of v1.ContainerState. */
static bool message_read_one_state(const struct json *state, struct interlink_container_state *out, struct status *err)
{
    const struct json *waiting = NULL, *running = NULL, *terminated = NULL;

    if (!json_read_node(state, "waiting", JSON_OBJECT, &waiting, err) ||
        !json_read_node(state, "running", JSON_OBJECT, &running, err) ||
        !json_read_node(state, "terminated", JSON_OBJECT, &terminated, err))
        return false;
    if (terminated != NULL) {
        out->phase = INTERLINK_TERMINATED;
        return message_read_terminated(terminated, out, err);
    }
    if (running != NULL) {
        out->phase = INTERLINK_RUNNING;
        return message_read_time(running, "startedAt", &out->started_ns, err);
    }
    if (waiting != NULL)
        out->phase = INTERLINK_WAITING;
    return json_read_string(waiting, "reason", &out->reason, err) &&
           json_read_string(waiting, "message", &out->message, err);
}

#define MESSAGE_JOB_SCHEME "job://"

/* "" of what was made by others. */
static const char *message_nodes(const struct json *list)
{
    for (JSON_EACH(item, list)) {
        const char *id = json_string(json_member(item, "containerID"), "");
        const char *at = str_starts(id, MESSAGE_JOB_SCHEME) ? strchr(id, '@') : NULL;
        if (at != NULL)
            return at + 1;
    }
    return "";
}

static bool message_read_state(struct arena *arena, const struct json *j, struct interlink_container_state *out, struct status *err)
{
    const struct json *state = NULL, *last = NULL;

    *out = INTERLINK_STATE_INIT("");
    if (!json_read_string(j, "name", &out->name, err) || !json_read_node(j, "state", JSON_OBJECT, &state, err) ||
        !json_read_node(j, "lastState", JSON_OBJECT, &last, err) || !json_read_bool(j, "ready", &out->ready, err) ||
        !json_read_i64(j, "restartCount", 0, INT32_MAX, &out->restart_count, err) ||
        !json_read_string(j, "image", &out->image, err) || !json_read_string(j, "imageID", &out->image_id, err))
        return false;
    if (last != NULL && last->count > 0) {
        struct interlink_container_state *before = ARENA_NEW(arena, struct interlink_container_state);
        *before = INTERLINK_STATE_INIT(out->name);
        if (!message_read_one_state(last, before, err))
            return false;
        out->last = before;
    }
    return message_read_one_state(state, out, err);
}

static bool message_read_states(struct arena *arena, const struct json *j, const char *name,
                                struct interlink_container_state **out, size_t *count, const char **nodes,
                                struct status *err)
{
    const struct json *list = NULL;

    *out = NULL;
    *count = 0;
    if (!json_read_node(j, name, JSON_ARRAY, &list, err))
        return false;
    if (list == NULL || list->count == 0)
        return true;
    *out = ARENA_ARRAY(arena, struct interlink_container_state, list->count);
    for (JSON_EACH(item, list))
        if (!json_want(item, JSON_OBJECT, err) || !message_read_state(arena, item, &(*out)[(*count)++], err))
            return false;
    if (**nodes == '\0')
        *nodes = message_nodes(list);
    return true;
}

bool interlink_statuses_read(struct arena *arena, struct str json, struct interlink_pod_status **out, size_t *count,
                             struct status *err)
{
    *out = NULL;
    *count = 0;
    if (json.n == 0)
        return true;
    const struct json *j = json_parse(arena, json, err);
    if (j == NULL)
        return false;
    if (j->type == JSON_NULL)
        return true;
    if (!json_want(j, JSON_ARRAY, err))
        return false;
    *out = ARENA_ARRAY(arena, struct interlink_pod_status, j->count + 1);
    for (JSON_EACH(item, j)) {
        struct interlink_pod_status *s = &(*out)[*count];
        if (item->type == JSON_NULL)
            continue;
        *s = (struct interlink_pod_status){ .name = "", .uid = "", .namespace_ = "", .jid = "", .nodes = "" };
        if (!json_want(item, JSON_OBJECT, err) || !json_read_string(item, "name", &s->name, err) ||
            !json_read_string(item, "UID", &s->uid, err) ||
            !json_read_string(item, "namespace", &s->namespace_, err) ||
            !json_read_string(item, "JID", &s->jid, err) ||
            !message_read_states(arena, item, "containers", &s->containers, &s->container_count, &s->nodes, err) ||
            !message_read_states(arena, item, "initContainers", &s->init_containers, &s->init_container_count, &s->nodes,
                                 err))
            return false;
        (*count)++;
    }
    return true;
}

static void message_write_text(struct json_writer *w, const char *key, const char *value)
{
    if (value[0] != '\0')
        json_write_member_string(w, key, value);
}

static void message_write_state(struct json_writer *w, const char *key, const struct interlink_container_state *s)
{
    json_write_member_object(w, key);
    switch (s->phase) {
    case INTERLINK_WAITING:
        json_write_member_object(w, "waiting");
        message_write_text(w, "reason", s->reason);
        message_write_text(w, "message", s->message);
        json_write_end(w);
        break;
    case INTERLINK_RUNNING:
        json_write_member_object(w, "running");
        message_write_time(w, "startedAt", s->started_ns);
        json_write_end(w);
        break;
    case INTERLINK_TERMINATED:
        json_write_member_object(w, "terminated");
        json_write_member_i64(w, "exitCode", s->exit_code);
        if (s->signal != 0)
            json_write_member_i64(w, "signal", s->signal);
        message_write_text(w, "reason", s->reason);
        message_write_text(w, "message", s->message);
        message_write_time(w, "startedAt", s->started_ns);
        message_write_time(w, "finishedAt", s->finished_ns);
        json_write_end(w);
        break;
    case INTERLINK_UNKNOWN:
    case INTERLINK_GONE:
        break;
    }
    json_write_end(w);
}

static void message_write_states(struct json_writer *w, const char *key, const struct interlink_pod_status *s,
                                 const struct interlink_container_state *states, size_t count)
{
    static const struct interlink_container_state none = { .phase = INTERLINK_UNKNOWN };
    cleanup_free char *id = *s->nodes != '\0' ? xasprintf(MESSAGE_JOB_SCHEME "%s@%s", s->jid, s->nodes) : xstrdup("");

    json_write_member_array(w, key);
    for (size_t i = 0; i < count; i++) {
        json_write_object(w);
        json_write_member_string(w, "name", states[i].name);
        message_write_state(w, "state", &states[i]);
        message_write_state(w, "lastState", states[i].last != NULL ? states[i].last : &none);
        json_write_member_bool(w, "ready", states[i].ready);
        json_write_member_i64(w, "restartCount", states[i].restart_count);
        json_write_member_string(w, "image", states[i].image);
        json_write_member_string(w, "imageID", states[i].image_id);
        message_write_text(w, "containerID", id);
        json_write_end(w);
    }
    json_write_end(w);
}

void interlink_statuses_write(struct buf *out, const struct interlink_pod_status *statuses, size_t count)
{
    struct json_writer w;

    json_writer_init(&w, out, 0);
    json_write_array(&w);
    for (size_t i = 0; i < count; i++) {
        const struct interlink_pod_status *s = &statuses[i];
        json_write_object(&w);
        json_write_member_string(&w, "name", s->name);
        json_write_member_string(&w, "UID", s->uid);
        json_write_member_string(&w, "namespace", s->namespace_);
        json_write_member_string(&w, "JID", s->jid);
        message_write_states(&w, "containers", s, s->containers, s->container_count);
        message_write_states(&w, "initContainers", s, s->init_containers, s->init_container_count);
        json_write_end(&w);
    }
    json_write_end(&w);
}

/* ---- create ---- */

bool interlink_created_read(struct arena *arena, struct str json, struct interlink_created *out, struct status *err)
{
    const struct json *j = json_parse(arena, json, err);

    *out = (struct interlink_created){ "", "" };
    return j != NULL && json_want(j, JSON_OBJECT, err) && json_read_string(j, "PodUID", &out->uid, err) &&
           json_read_string(j, "PodJID", &out->jid, err);
}

void interlink_created_write(struct buf *out, const struct interlink_created *created)
{
    struct json_writer w;

    json_writer_init(&w, out, 0);
    json_write_object(&w);
    json_write_member_string(&w, "PodUID", created->uid);
    json_write_member_string(&w, "PodJID", created->jid);
    json_write_end(&w);
}

/* ---- ping ---- */

/* A quantity as plugins write it: text, or a bare number. Lenient: what is neither is not told. */
static const char *message_quantity(const struct json *j, const char *name)
{
    const struct json *value = json_member(j, name);

    return json_is(value, JSON_NUMBER) ? value->text : json_string(value, "");
}

static void message_read_accelerators(struct arena *arena, const struct json *list, struct interlink_ping *out)
{
    if (!json_is(list, JSON_ARRAY) || list->count == 0)
        return;
    out->accelerators = ARENA_ARRAY(arena, struct interlink_accelerator, list->count);
    for (JSON_EACH(item, list)) {
        const char *resource = json_string(json_member(item, "resourceType"), "");
        if (resource[0] != '\0')
            out->accelerators[out->accelerator_count++] =
                (struct interlink_accelerator){ resource, message_quantity(item, "available") };
    }
}

static void message_read_taints(struct arena *arena, const struct json *list, struct interlink_ping *out)
{
    if (!json_is(list, JSON_ARRAY))
        return;
    out->has_taints = true;
    out->taints = ARENA_ARRAY(arena, struct interlink_taint, list->count + 1);
    for (JSON_EACH(item, list)) {
        const char *key = json_string(json_member(item, "key"), "");
        if (key[0] != '\0')
            out->taints[out->taint_count++] = (struct interlink_taint){ key,
                                                                       json_string(json_member(item, "value"), ""),
                                                                       json_string(json_member(item, "effect"), "") };
    }
}

void interlink_ping_read(struct arena *arena, struct str text, struct interlink_ping *out)
{
    struct status ignored = STATUS_INIT;
    const struct json *j = json_parse(arena, text, &ignored);

    *out = (struct interlink_ping){ .status = "", .cpu = "", .memory = "", .pods = "" };
    if (!json_is(j, JSON_OBJECT)) {
        out->status = arena_strndup(arena, text.p, text.n < INTERLINK_PING_TEXT_MAX ? text.n : INTERLINK_PING_TEXT_MAX);
        return;
    }
    const struct json *resources = json_member(j, "resources");
    out->status = json_string(json_member(j, "status"), "");
    out->cpu = message_quantity(resources, "cpu");
    out->memory = message_quantity(resources, "memory");
    out->pods = message_quantity(resources, "pods");
    message_read_accelerators(arena, json_member(resources, "accelerators"), out);
    message_read_taints(arena, json_member(j, "taints"), out);
}

void interlink_ping_write(struct buf *out, const struct interlink_ping *ping)
{
    struct json_writer w;

    json_writer_init(&w, out, 0);
    json_write_object(&w);
    json_write_member_string(&w, "status", ping->status);
    json_write_member_object(&w, "resources");
    message_write_text(&w, "cpu", ping->cpu);
    message_write_text(&w, "memory", ping->memory);
    message_write_text(&w, "pods", ping->pods);
    if (ping->accelerator_count > 0) {
        json_write_member_array(&w, "accelerators");
        for (size_t i = 0; i < ping->accelerator_count; i++) {
            json_write_object(&w);
            json_write_member_string(&w, "resourceType", ping->accelerators[i].resource);
            json_write_member_string(&w, "available", ping->accelerators[i].available);
            json_write_end(&w);
        }
        json_write_end(&w);
    }
    json_write_end(&w);
    if (ping->has_taints) {
        json_write_member_array(&w, "taints");
        for (size_t i = 0; i < ping->taint_count; i++) {
            json_write_object(&w);
            json_write_member_string(&w, "key", ping->taints[i].key);
            message_write_text(&w, "value", ping->taints[i].value);
            json_write_member_string(&w, "effect", ping->taints[i].effect);
            json_write_end(&w);
        }
        json_write_end(&w);
    }
    json_write_end(&w);
}

/* ---- logs ---- */

bool interlink_log_request_read(struct arena *arena, struct str json, struct interlink_log_request *out,
                                struct status *err)
{
    const struct json *opts = NULL;
    const struct json *j = json_parse(arena, json, err);

    *out = (struct interlink_log_request){ .namespace_ = "", .pod_uid = "", .pod_name = "", .container = "" };
    return j != NULL && json_want(j, JSON_OBJECT, err) && json_read_string(j, "Namespace", &out->namespace_, err) &&
           json_read_string(j, "PodUID", &out->pod_uid, err) && json_read_string(j, "PodName", &out->pod_name, err) &&
           json_read_string(j, "ContainerName", &out->container, err) &&
           json_read_node(j, "Opts", JSON_OBJECT, &opts, err) &&
           json_read_u64(opts, "Tail", INT64_MAX, &out->tail, err) &&
           json_read_u64(opts, "Bytes", INT64_MAX, &out->bytes, err) &&
           json_read_bool(opts, "Timestamps", &out->timestamps, err) &&
           json_read_bool(opts, "Follow", &out->follow, err) &&
           json_read_bool(opts, "Previous", &out->previous, err) &&
           json_read_u64(opts, "SinceSeconds", INT64_MAX / 1000000000, &out->since_seconds, err) &&
           message_read_time(opts, "SinceTime", &out->since_time_ns, err);
}

void interlink_log_request_write(struct buf *out, const struct interlink_log_request *request)
{
    struct json_writer w;
    char since[TIMEFMT_SIZE] = "0001-01-01T00:00:00Z"; /* Go's "unset" */

    if (request->since_time_ns > 0)
        timefmt_nano(request->since_time_ns, since);
    json_writer_init(&w, out, 0);
    json_write_object(&w);
    json_write_member_string(&w, "Namespace", request->namespace_);
    json_write_member_string(&w, "PodUID", request->pod_uid);
    json_write_member_string(&w, "PodName", request->pod_name);
    json_write_member_string(&w, "ContainerName", request->container);
    json_write_member_object(&w, "Opts");
    json_write_member_i64(&w, "Tail", (int64_t)request->tail);
    json_write_member_i64(&w, "Bytes", (int64_t)request->bytes);
    json_write_member_bool(&w, "Timestamps", request->timestamps);
    json_write_member_bool(&w, "Follow", request->follow);
    json_write_member_bool(&w, "Previous", request->previous);
    json_write_member_i64(&w, "SinceSeconds", (int64_t)request->since_seconds);
    json_write_member_string(&w, "SinceTime", since);
    json_write_end(&w);
    json_write_end(&w);
}

#undef MESSAGE_JOB_SCHEME
