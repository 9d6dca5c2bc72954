/* SPDX-License-Identifier: Apache-2.0 */
/* agent_kit_streams.h: a node's ends of Events and Logs, for agent_kit.h. */
#ifndef TEST_AGENT_KIT_STREAMS_H
#define TEST_AGENT_KIT_STREAMS_H

#include "agent_kit.h"

/* ---- events ---- */
struct events {
    struct rpc_request *request;
    bool finished;
    struct status status;
    size_t count;
    struct {
        uint64_t sequence;
        int phase, exit_code;
        char id[ID_LENGTH + 1], reason[32], message[64];
        uint64_t log_end;
    } seen[1024];
};

static void on_event(void *arg, const ProtobufCMessage *message)
{
    struct events *e = arg;
    const PB(Event) *event = (const void *)message;

    assert_true(e->count < COUNT_OF(e->seen));
    e->seen[e->count].sequence = event->sequence;
    e->seen[e->count].phase = (int)event->state->phase;
    e->seen[e->count].exit_code = event->state->exit_code;
    e->seen[e->count].log_end = event->state->log_end;
    snprintf(e->seen[e->count].id, sizeof e->seen[0].id, "%s", event->state->id);
    snprintf(e->seen[e->count].reason, sizeof e->seen[0].reason, "%s", event->state->reason);
    snprintf(e->seen[e->count].message, sizeof e->seen[0].message, "%.60s", event->state->message);
    e->count++;
}

static void on_events_finish(void *arg, const struct status *status)
{
    struct events *e = arg;

    e->finished = true;
    e->status = *status;
}

UNUSED static void events_open(struct events *e, uint64_t from)
{
    PB(EventsRequest) request = INTERLINK__AGENT__V1__EVENTS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Events",
        .output = &interlink__agent__v1__event__descriptor,
        .on_message = on_event,
        .on_finish = on_events_finish,
        .arg = e,
    };

    *e = (struct events){ 0 };
    request.from_sequence = from;
    e->request = rpc_request_start(kit->client, &options);
    rpc_request_send(e->request, &request.base);
    rpc_request_half_close(e->request);
}

UNUSED static void events_wait(struct events *e, size_t count)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    while (e->count < count && clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, 100);
    assert_int_equal(e->count, count);
}

/* ---- logs ---- */
struct reader {
    struct rpc_request *request;
    char id[ID_LENGTH + 1];
    struct buf file;
    uint64_t position;
    bool ack, end, finished;
    size_t jumps;
    struct status status;
};

static void on_chunk(void *arg, const ProtobufCMessage *message)
{
    struct reader *r = arg;
    const PB(LogsResponse) *chunk = (const void *)message;
    PB(LogsRequest) request = INTERLINK__AGENT__V1__LOGS_REQUEST__INIT;

    assert_true(chunk->offset >= r->position);
    r->jumps += chunk->offset > r->position;
    buf_append(&r->file, chunk->data.data, chunk->data.len);
    r->position = chunk->offset + chunk->data.len;
    r->end = r->end || chunk->end;
    request.stored = r->position;
    if (r->ack)
        rpc_request_send(r->request, &request.base);
}

static void on_logs_finish(void *arg, const struct status *status)
{
    struct reader *r = arg;

    r->finished = true;
    r->request = NULL;
    r->status = *status;
}

UNUSED static void reader_open(struct reader *r, unsigned number)
{
    PB(LogsRequest) request = INTERLINK__AGENT__V1__LOGS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Logs",
        .output = &interlink__agent__v1__logs_response__descriptor,
        .on_message = on_chunk,
        .on_finish = on_logs_finish,
        .arg = r,
    };

    r->finished = false;
    r->ack = true;
    memcpy(r->id, kit_id(number), sizeof r->id);
    request.container_id = r->id;
    request.from = r->position;
    r->request = rpc_request_start(kit->client, &options);
    rpc_request_send(r->request, &request.base);
}

/* The text of the log, one stream after the other, without prefixes. */
UNUSED static char *reader_text(struct reader *r, const char *stream)
{
    struct buf out = BUF_INIT;
    const char *p = (const char *)r->file.p, *end = p + r->file.n;

    while (p < end) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        struct crilog_line line;
        assert_non_null(line_end);
        assert_true(crilog_parse((struct str){ p, (size_t)(line_end - p) }, &line));
        if (line.stream == (strcmp(stream, "stdout") == 0 ? CRILOG_STDOUT : CRILOG_STDERR)) {
            buf_append(&out, line.text.p, line.text.n);
            if (!line.partial)
                buf_append_byte(&out, '\n');
        }
        p = line_end + 1;
    }
    return buf_steal(&out);
}

#endif
