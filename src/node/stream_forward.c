/* SPDX-License-Identifier: Apache-2.0 */
/* Port forward. Source: k8s.io/kubelet/pkg/cri/streaming/portforward. */
#include "node/pod_conn.h"
#include "node/sandbox.h"
#include "node/stream_session.h"

/* One forwarded connection: two channels of the client's, one connection to the pod.
 *
 *   first channel          both there             connected, or not          all of them are gone
 *  ---------------> HALF ------------> CONNECTING ----------------> OPEN ---------------> freed
 *                     +---- the other never came: an error ---------> DONE -------------------^     */
enum stream_forward_state {
    STREAM_FORWARD_HALF,
    STREAM_FORWARD_CONNECTING,
    STREAM_FORWARD_OPEN,
    STREAM_FORWARD_DONE, /* nothing more comes from the pod */
};

struct stream_forward_pair {
    struct list link;
    struct stream_forward *forward;
    enum stream_forward_state state;
    char *id; /* owned: requestID, chosen by the client; "" with plain WebSocket */
    uint16_t port;
    struct channel *data, *error; /* NULL: not there yet, or gone */
    bool data_came, error_came;
    bool data_ended;         /* the client sends no more */
    bool ending;             /* its channels are being ended, which may say that they are gone */
    struct pod_conn *pod; /* owned; NULL when there is none */
    struct timer creation;
};

struct stream_forward {
    struct stream_session s; /* first */
    Runtime__V1__PortForwardRequest *request; /* owned */
    struct list pairs;
    bool numbered; /* plain WebSocket: the pairs are there from the start, and the session ends with them */
    bool closing;
    struct timer linger; /* runs when the client has left in peace, while what it said last is on its way */
};

static struct stream_forward *stream_forward_of(struct stream_session *s)
{
    return (struct stream_forward *)(void *)s;
}

/* ---- the end of a pair ---- */

static void stream_forward_pair_free(struct stream_forward_pair *pair)
{
    pod_conn_cancel(pair->pod);
    timer_stop(&pair->creation);
    list_remove(&pair->link);
    stream_forwards_remove(pair->forward->s.streaming);
    free(pair->id);
    free(pair);
}

/* Frees it when nobody needs it any more. */
static void stream_forward_pair_settle(struct stream_forward_pair *pair)
{
    if (!pair->ending && pair->pod == NULL && pair->data == NULL && pair->error == NULL)
        stream_forward_pair_free(pair);
}

static void stream_forward_free(struct stream_session *s);

/* A session of plain WebSocket ends with its pairs, and one whose client has left, too. */
static void stream_forward_check_end(struct stream_forward *forward)
{
    if (timer_running(&forward->linger) && list_empty(&forward->pairs)) {
        stream_forward_free(&forward->s);
        return;
    }
    if (!forward->numbered || forward->closing)
        return;
    for (LIST_EACH(struct stream_forward_pair, pair, &forward->pairs, link))
        if (pair->state != STREAM_FORWARD_DONE)
            return;
    forward->closing = true;
    channel_conn_close(forward->s.conn);
}

/* Nothing more comes from the pod; the pair may be gone afterwards. With an error its text goes to the error channel, and the
 * data channel breaks off: what came of it may not be all. */
static void stream_forward_pair_done(struct stream_forward_pair *pair, const struct status *err)
{
    struct stream_forward *forward = pair->forward;
    cleanup_free char *text = NULL;

    pair->state = STREAM_FORWARD_DONE;
    timer_stop(&pair->creation);
    pod_conn_cancel(pair->pod);
    pair->pod = NULL;
    pair->ending = true;
    if (err != NULL) {
        log_info("streaming: pod %.13s, port %u: %s", forward->request->pod_sandbox_id, pair->port, err->message);
        text = xasprintf("error forwarding port %u to pod %.13s: %s", pair->port, forward->request->pod_sandbox_id,
                         err->message);
    }
    if (pair->error != NULL && text != NULL)
        channel_send(pair->error, text, strlen(text));
    if (pair->error != NULL)
        stream_channel_end(&forward->s, pair->error);
    if (pair->data != NULL && (err == NULL || forward->numbered))
        stream_channel_end(&forward->s, pair->data);
    else if (pair->data != NULL)
        channel_reset(pair->data);
    if (pair->data != NULL)
        channel_pause(pair->data, false); /* what still comes goes nowhere, and holds nothing up */
    pair->ending = false;
    stream_forward_pair_settle(pair);
    stream_forward_check_end(forward);
}

/* ---- from the pod ---- */

static void stream_forward_on_connected(void *arg)
{
    struct stream_forward_pair *pair = arg;

    pair->state = STREAM_FORWARD_OPEN;
    if (pair->data != NULL)
        channel_pause(pair->data, false);
}

static void stream_forward_on_pod_data(void *arg, struct str piece)
{
    struct stream_forward_pair *pair = arg;

    if (pair->data != NULL && !channel_send(pair->data, piece.p, piece.n) && pair->pod != NULL)
        pod_conn_pause(pair->pod, true);
}

static void stream_forward_on_pod_end(void *arg)
{
    struct stream_forward_pair *pair = arg;

    if (pair->data != NULL)
        stream_channel_end(&pair->forward->s, pair->data);
}

static void stream_forward_on_finish(void *arg, const struct status *err)
{
    struct stream_forward_pair *pair = arg;

    pair->pod = NULL;
    stream_forward_pair_done(pair, err->code != STATUS_OK ? err : NULL);
}

static void stream_forward_on_pod_writable(void *arg)
{
    struct stream_forward_pair *pair = arg;

    if (pair->data != NULL && pair->state == STREAM_FORWARD_OPEN)
        channel_pause(pair->data, false);
}

/* ---- from the client ---- */

static void stream_forward_on_data(void *arg, struct str piece)
{
    struct stream_forward_pair *pair = arg;

    if (pair->pod != NULL && piece.n > 0 && !pod_conn_send(pair->pod, piece) && pair->data != NULL)
        channel_pause(pair->data, true);
}

static void stream_forward_on_data_end(void *arg)
{
    struct stream_forward_pair *pair = arg;

    if (pair->data_ended)
        return;
    pair->data_ended = true;
    if (pair->pod != NULL)
        pod_conn_half_close(pair->pod);
}

static void stream_forward_on_writable(void *arg)
{
    struct stream_forward_pair *pair = arg;

    if (pair->pod != NULL)
        pod_conn_pause(pair->pod, false);
}

/* Both ways have ended, or the client gave it up: then what is still under way is of no use. */
static void stream_forward_on_data_gone(void *arg, const struct status *err)
{
    struct stream_forward_pair *pair = arg;

    pair->data = NULL;
    if (err != NULL && pair->state != STREAM_FORWARD_DONE) {
        stream_forward_pair_done(pair, NULL);
        return;
    }
    stream_forward_on_writable(pair);
    stream_forward_pair_settle(pair);
}

/* The client has nothing to say on the error channel, and ends its way at once. */
static void stream_forward_on_error_data(void *arg, struct str piece)
{
    (void)arg;
    (void)piece;
}

static void stream_forward_on_error_gone(void *arg, const struct status *err)
{
    struct stream_forward_pair *pair = arg;

    (void)err;
    pair->error = NULL;
    stream_forward_pair_settle(pair);
}

/* ---- a new pair ---- */

static void stream_forward_pair_start(struct stream_forward_pair *pair)
{
    struct stream_forward *forward = pair->forward;
    struct status err = STATUS_INIT;
    struct sandbox *sandbox = node_sandbox(forward->s.node, forward->request->pod_sandbox_id, &err);
    const struct pod_conn_listener listener = {
        .on_connected = stream_forward_on_connected,
        .on_data = stream_forward_on_pod_data,
        .on_end = stream_forward_on_pod_end,
        .on_writable = stream_forward_on_pod_writable,
        .on_finish = stream_forward_on_finish,
        .arg = pair,
    };

    timer_stop(&pair->creation);
    if (sandbox != NULL) {
        const char *ip = sandbox->record->ip;
        const char *addresses[] = { "127.0.0.1", "::1", *ip != '\0' ? ip : NULL, NULL };
        pair->pod = pod_conn_start(sandbox, pair->port, addresses, &listener, &err);
    }
    if (pair->pod == NULL) {
        stream_forward_pair_done(pair, &err);
        return;
    }
    pair->state = STREAM_FORWARD_CONNECTING;
    if (pair->data_ended)
        pod_conn_half_close(pair->pod);
}

static void stream_forward_pair_take(struct stream_forward_pair *pair, struct channel *channel, bool is_error)
{
    const struct channel_listener data = {
        .on_data = stream_forward_on_data,
        .on_end = stream_forward_on_data_end,
        .on_writable = stream_forward_on_writable,
        .on_gone = stream_forward_on_data_gone,
        .arg = pair,
    };
    const struct channel_listener error = {
        .on_data = stream_forward_on_error_data,
        .on_gone = stream_forward_on_error_gone,
        .arg = pair,
    };

    if (is_error) {
        pair->error = channel;
        pair->error_came = true;
        channel_listen(channel, &error);
    } else {
        pair->data = channel;
        pair->data_came = true;
        channel_listen(channel, &data);
        channel_pause(channel, true); /* until the other side is connected */
    }
}

/* NULL: there are too many. */
static struct stream_forward_pair *stream_forward_pair_new(struct stream_forward *forward, const char *id, uint16_t port)
{
    if (!stream_forwards_add(forward->s.streaming))
        return NULL;
    struct stream_forward_pair *pair = xcalloc(1, sizeof *pair);
    pair->forward = forward;
    pair->id = xstrdup(id);
    pair->port = port;
    list_append(&forward->pairs, &pair->link);
    return pair;
}

/* ---- SPDY: pairs come and go ---- */

static void stream_forward_on_creation_timeout(void *arg)
{
    struct stream_forward_pair *pair = arg;
    struct status err = STATUS_INIT;

    status_set(&err, STATUS_DEADLINE_EXCEEDED, "the client did not create both of its streams within %" PRId64 " s",
               pair->forward->s.node->options->streaming.creation_timeout_ms / 1000);
    stream_forward_pair_done(pair, &err);
}

struct stream_forward_headers {
    const char *type, *id;
    uint16_t port;
};

static bool stream_forward_read_headers(const struct stream_forward *forward, const struct http_header *headers,
                                        size_t count, struct stream_forward_headers *out, struct status *err)
{
    const Runtime__V1__PortForwardRequest *request = forward->request;
    const char *port_text = "";
    bool allowed = request->n_port == 0;
    uint64_t port;

    *out = (struct stream_forward_headers){ "", NULL, 0 };
    for (size_t i = 0; i < count; i++) {
        if (strcmp(headers[i].name, "streamtype") == 0)
            out->type = headers[i].value;
        else if (strcmp(headers[i].name, "requestid") == 0)
            out->id = headers[i].value;
        else if (strcmp(headers[i].name, "port") == 0)
            port_text = headers[i].value;
    }
    if (!parse_u64(port_text, 65535, &port) || port == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "port: \"%.32s\" is none: they go from 1 to 65535", port_text);
    if (strcmp(out->type, "data") != 0 && strcmp(out->type, "error") != 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "streamType: \"%.32s\" is neither data nor error", out->type);
    if (out->id != NULL && strlen(out->id) > STREAM_REQUEST_ID_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "requestID: longer than %d bytes", STREAM_REQUEST_ID_MAX);
    for (size_t i = 0; i < request->n_port; i++)
        allowed = allowed || request->port[i] == (int32_t)port;
    out->port = (uint16_t)port;
    return allowed || status_set(err, STATUS_PERMISSION_DENIED, "port %u is not one of those that were asked for", out->port);
}

/* The pair that waits for this stream. Clients without requestID make one pair after another, the error stream first. */
static struct stream_forward_pair *stream_forward_find_half(struct stream_forward *forward,
                                                            const struct stream_forward_headers *h, bool is_error)
{
    for (LIST_EACH(struct stream_forward_pair, pair, &forward->pairs, link))
        if (pair->state == STREAM_FORWARD_HALF && pair->port == h->port &&
            strcmp(pair->id, h->id != NULL ? h->id : "") == 0 && !(is_error ? pair->error_came : pair->data_came))
            return pair;
    return NULL;
}

static void stream_forward_on_channel(void *arg, struct channel *channel, const struct http_header *headers, size_t count)
{
    struct stream_forward *forward = arg;
    struct stream_forward_headers h;
    struct status err = STATUS_INIT;

    if (forward->closing || !stream_forward_read_headers(forward, headers, count, &h, &err)) {
        if (!forward->closing)
            log_info("streaming: pod %.13s: a stream of a port forward is refused: %s", forward->request->pod_sandbox_id,
                     err.message);
        stream_channel_refuse(channel);
        return;
    }
    bool is_error = strcmp(h.type, "error") == 0;
    struct stream_forward_pair *pair = stream_forward_find_half(forward, &h, is_error);
    if (pair == NULL) {
        pair = stream_forward_pair_new(forward, h.id != NULL ? h.id : "", h.port);
        if (pair == NULL) {
            log_warn("streaming: pod %.13s: a stream of a port forward is refused: %d connections are forwarded already",
                     forward->request->pod_sandbox_id, STREAM_FORWARDS_ALL_MAX);
            stream_channel_refuse(channel);
            return;
        }
        timer_start(forward->s.node->loop, &pair->creation, forward->s.node->options->streaming.creation_timeout_ms,
                    stream_forward_on_creation_timeout, pair);
    }
    stream_forward_pair_take(pair, channel, is_error);
    if (pair->data_came && pair->error_came)
        stream_forward_pair_start(pair);
}

/* ---- the session ---- */

static void stream_forward_free(struct stream_session *s)
{
    struct stream_forward *forward = stream_forward_of(s);

    forward->closing = true;
    timer_stop(&forward->linger);
    stream_session_done(s);
    while (!list_empty(&forward->pairs))
        stream_forward_pair_free(CONTAINER_OF(forward->pairs.next, struct stream_forward_pair, link));
    protobuf_c_message_free_unpacked(&forward->request->base, NULL);
    free(forward);
}

static void stream_forward_on_linger(void *arg)
{
    struct stream_forward *forward = arg;

    stream_forward_free(&forward->s);
}

/* What a client said that ended its connections in order is for the pod still, though nobody hears the answers. */
static bool stream_forward_linger(struct stream_forward *forward)
{
    for (LIST_EACH_SAFE(struct stream_forward_pair, pair, &forward->pairs, link))
        if (!pair->data_ended || pair->pod == NULL)
            stream_forward_pair_free(pair);
    if (list_empty(&forward->pairs))
        return false;
    channel_conn_free(forward->s.conn);
    forward->s.conn = NULL;
    timer_start(forward->s.node->loop, &forward->linger, STREAM_LINGER_MS, stream_forward_on_linger, forward);
    return true;
}

static void stream_forward_on_close(void *arg, const struct status *err)
{
    struct stream_forward *forward = arg;

    if (err->code != STATUS_OK)
        log_debug("streaming: the client of a port forward to pod %.13s left: %s", forward->request->pod_sandbox_id,
                  err->message);
    if (err->code != STATUS_OK || forward->closing || !stream_forward_linger(forward))
        stream_forward_free(&forward->s);
}

static void stream_forward_stop(struct stream_session *s, const struct status *why)
{
    struct stream_forward *forward = stream_forward_of(s);

    if (timer_running(&forward->linger)) {
        stream_forward_free(s);
        return;
    }
    if (forward->closing)
        return;
    forward->closing = true;
    for (LIST_EACH_SAFE(struct stream_forward_pair, pair, &forward->pairs, link))
        if (pair->state != STREAM_FORWARD_DONE)
            stream_forward_pair_done(pair, why);
    channel_conn_close(s->conn);
}

static const struct stream_session_ops stream_forward_ops = { stream_forward_stop, stream_forward_free };

/* Plain WebSocket: channel 2n carries the n-th port's data, 2n + 1 its errors. The first message of each is the port, two
 * bytes, the lower one first. */
static void stream_forward_take_all(struct stream_forward *forward, const uint16_t *ports, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct stream_forward_pair *pair = stream_forward_pair_new(forward, "", ports[i]);
        const uint8_t number[] = { (uint8_t)(ports[i] & 0xff), (uint8_t)(ports[i] >> 8) };
        stream_forward_pair_take(pair, channel_number(forward->s.conn, 2 * i), false);
        stream_forward_pair_take(pair, channel_number(forward->s.conn, 2 * i + 1), true);
        channel_send(pair->data, number, sizeof number);
        channel_send(pair->error, number, sizeof number);
    }
    for (LIST_EACH_SAFE(struct stream_forward_pair, pair, &forward->pairs, link))
        stream_forward_pair_start(pair);
}

struct stream_session *stream_forward_open(const struct stream_opening *opening, const uint16_t *ports, size_t port_count)
{
    struct stream_forward *forward = xcalloc(1, sizeof *forward);
    struct channel_conn_options options = {
        .channel_count = 2 * port_count,
        .channels_max = 2 * STREAM_FORWARDS_MAX,
        .on_channel = stream_forward_on_channel,
        .on_close = stream_forward_on_close,
    };

    forward->request = (Runtime__V1__PortForwardRequest *)(void *)opening->request;
    list_init(&forward->pairs);
    forward->numbered = port_count > 0;
    stream_session_init(&forward->s, opening, &stream_forward_ops);
    stream_session_connect(&forward->s, opening, &options);
    if (forward->numbered)
        stream_forward_take_all(forward, ports, port_count);
    return &forward->s;
}
