/* SPDX-License-Identifier: Apache-2.0 */
#include "node/operator_state.h"

#include "interlink/interlink.h"
#include "node/container.h"
#include "node/events.h"
#include "node/link.h"
#include "agent/logfile.h"
#include "node/counters.h"
#include "node/sandbox.h"
#include "node/streaming.h"
#include "text/json.h"
#include "text/timefmt.h"

static void operator_state_time(struct json_writer *w, const char *key, int64_t ns)
{
    char text[TIMEFMT_SIZE];

    if (ns == 0)
        return;
    timefmt_nano(ns, text);
    json_write_member_string(w, key, text);
}

static void operator_state_container(struct json_writer *w, const struct container *c)
{
    static const char *const phases[] = { "CREATED", "RUNNING", "EXITED" };
    const Interlink__State__V1__Container *record = c->record;
    const Runtime__V1__ImageSpec *image = record->config->image;

    json_write_object(w);
    json_write_member_string(w, "id", record->id);
    json_write_member_string(w, "name", record->config->metadata->name);
    json_write_member_i64(w, "attempt", record->config->metadata->attempt);
    json_write_member_string(w, "state", phases[record->phase]);
    json_write_member_string(w, "image", *image->user_specified_image != '\0' ? image->user_specified_image : image->image);
    operator_state_time(w, "createdAt", record->created_at);
    operator_state_time(w, "startedAt", record->started_at);
    operator_state_time(w, "finishedAt", record->finished_at);
    if (record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED) {
        json_write_member_i64(w, "exitCode", record->exit_code);
        json_write_member_string(w, "reason", record->reason);
    }
    json_write_member_string(w, "message", record->message);
    json_write_member_bool(w, "creating", c->creating);
    json_write_member_bool(w, "removing", c->removing);
    json_write_member_bool(w, "logComplete", record->log_done);
    json_write_member_i64(w, "logBytes", c->log != NULL ? (int64_t)logfile_stored(c->log) : 0);
    json_write_end(w);
}

static void operator_state_sandbox(struct json_writer *w, const struct sandbox *s)
{
    static const char *const phases[] = { "SUBMITTED", "QUEUED", "READY", "NOTREADY" };
    const Interlink__State__V1__Sandbox *record = s->record;
    const Runtime__V1__PodSandboxMetadata *metadata = record->config->metadata;
    uint64_t received = 0, sent = 0;

    json_write_object(w);
    json_write_member_string(w, "id", record->id);
    json_write_member_string(w, "namespace", metadata->namespace_);
    json_write_member_string(w, "name", metadata->name);
    json_write_member_string(w, "uid", metadata->uid);
    json_write_member_i64(w, "attempt", metadata->attempt);
    json_write_member_string(w, "handler", s->handler->options->name);
    json_write_member_string(w, "state", phases[record->phase]);
    operator_state_time(w, "createdAt", record->created_at);
    json_write_member_string(w, "jobUid", record->job_uid);
    json_write_member_string(w, "jobId", record->job_id);
    json_write_member_string(w, "jobNodes", record->job_nodes);
    json_write_member_bool(w, "jobSubmitted", record->submitted);
    json_write_member_bool(w, "jobDeleted", record->job_deleted);
    json_write_member_string(w, "ip", record->ip);
    json_write_member_string(w, "message", sandbox_listed(s) ? record->message : s->queue_words);
    json_write_member_bool(w, "stopping", s->stopping);
    json_write_member_bool(w, "removing", s->removing);
    if (s->link != NULL) {
        link_bytes(s->link, &received, &sent);
        json_write_member_object(w, "agent");
        json_write_member_bool(w, "ready", link_ready(s->link));
        json_write_member_i64(w, "received", (int64_t)received);
        json_write_member_i64(w, "sent", (int64_t)sent);
        json_write_end(w);
    }
    json_write_member_array(w, "containers");
    for (LIST_EACH(struct container, c, &s->containers, link))
        operator_state_container(w, c);
    json_write_end(w);
    json_write_end(w);
}

static void operator_state_handlers(struct json_writer *w, const struct node *node)
{
    json_write_member_array(w, "handlers");
    for (size_t i = 0; i < node->options->handler_count; i++) {
        const struct handler *h = &node->handlers[i];
        const struct status *health = interlink_target_health(h->target);
        json_write_object(w);
        json_write_member_string(w, "name", h->options->name);
        json_write_member_string(w, "target", h->local ? "local" : h->options->url);
        json_write_member_bool(w, "healthy", health->code == STATUS_OK);
        json_write_member_string(w, "message", health->message);
        json_write_member_i64(w, "jobs", (int64_t)interlink_target_job_count(h->target));
        json_write_end(w);
    }
    json_write_end(w);
}

void operator_state_write(struct node *node, struct buf *out)
{
    struct json_writer w;
    struct strmap_iter it = { 0 };

    json_writer_init(&w, out, 0);
    json_write_object(&w);
    json_write_member_string(&w, "version", node->options->version);
    operator_state_time(&w, "startedAt", node->counters->started_ns);
    json_write_member_string(&w, "socket", node->options->socket);
    json_write_member_string(&w, "stateDir", node->options->state_dir);
    json_write_member_string(&w, "defaultHandler", node->options->default_handler);
    json_write_member_string(&w, "podCIDR", node->pod_cidr);
    json_write_member_i64(&w, "loopLagMs", loop_lag_ms(node->loop));
    json_write_member_i64(&w, "pendingRecords", (int64_t)state_pending(node->state));
    json_write_member_i64(&w, "eventSubscribers", (int64_t)events_subscribers(node->events));
    json_write_member_i64(&w, "streams", node->streaming != NULL ? (int64_t)streaming_sessions(node->streaming) : 0);
    operator_state_handlers(&w, node);
    json_write_member_array(&w, "sandboxes");
    while (strmap_next(&node->sandboxes, &it))
        operator_state_sandbox(&w, it.value);
    json_write_end(&w);
    json_write_end(&w);
}
