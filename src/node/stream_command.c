/* SPDX-License-Identifier: Apache-2.0 */
/* Exec and attach. Source: k8s.io/kubelet/pkg/cri/streaming/remotecommand. */
#include "node/container.h"
#include "node/link.h"
#include "node/sandbox.h"
#include "node/stream_session.h"
#include "node/stream_status.h"
#include "text/json.h"

/* The numbers are those of WebSocket's channels. */
enum {
    STREAM_COMMAND_IN,
    STREAM_COMMAND_OUT,
    STREAM_COMMAND_ERR,
    STREAM_COMMAND_STATUS, /* "error": how it ended */
    STREAM_COMMAND_RESIZE,
    STREAM_COMMAND_CHANNELS,
};

/*   upgraded              all channels there             exited, or an error
 *  ---------> OPENING -----------------------> RUNNING ---------------------> ENDING -> gone with its connection
 *                 +------ the client made no channels in time --------------------^      */
enum stream_command_state { STREAM_COMMAND_OPENING, STREAM_COMMAND_RUNNING, STREAM_COMMAND_ENDING };

struct stream_command_channel {
    struct stream_command *command;
    struct channel *channel; /* NULL: not there yet, or gone */
    bool came;
    bool ended; /* the client sends no more */
};

struct stream_command {
    struct stream_session s; /* first */
    enum stream_command_state state;
    ProtobufCMessage *request; /* owned; what the next three are of */
    bool attach;
    const char *container_id;
    bool wanted[STREAM_COMMAND_CHANNELS];
    bool tty;
    struct stream_command_channel channels[STREAM_COMMAND_CHANNELS];
    struct rpc_request *rpc; /* owned; NULL when it is not running */
    bool full[STREAM_COMMAND_CHANNELS]; /* outputs that their client does not take at the moment */
    bool input_paused;                  /* the agent does not take more */
    struct buf resize;                  /* a terminal size, in parts */
    struct timer creation;
};

static const char *stream_command_what(const struct stream_command *c)
{
    return c->attach ? "error attaching to container" : "error executing command in container";
}

static struct stream_command *stream_command_of(struct stream_session *s)
{
    return (struct stream_command *)(void *)s;
}

/* ---- the end ---- */

static void stream_command_free(struct stream_session *s)
{
    struct stream_command *c = stream_command_of(s);

    rpc_request_cancel(c->rpc); /* the agent ends the command; an attached one goes on */
    c->rpc = NULL;
    timer_stop(&c->creation);
    stream_session_done(s);
    protobuf_c_message_free_unpacked(c->request, NULL);
    buf_free(&c->resize);
    free(c);
}

static void stream_command_on_close(void *arg, const struct status *err)
{
    struct stream_command *c = arg;

    if (c->state != STREAM_COMMAND_ENDING)
        log_debug("streaming: the client of %s in container %.13s left%s%s", c->attach ? "an attach" : "a command",
                  c->container_id, err->code != STATUS_OK ? ": " : "", err->code != STATUS_OK ? err->message : "");
    stream_command_free(&c->s);
}

/* The last word; then the outputs end, in peace. */
static void stream_command_end(struct stream_command *c, const struct buf *status)
{
    struct channel *channel = c->channels[STREAM_COMMAND_STATUS].channel;

    c->state = STREAM_COMMAND_ENDING;
    timer_stop(&c->creation);
    rpc_request_cancel(c->rpc);
    c->rpc = NULL;
    if (channel != NULL && status->n > 0)
        channel_send(channel, status->p, status->n);
    for (int i = 0; i < STREAM_COMMAND_CHANNELS; i++)
        if (c->channels[i].channel != NULL)
            stream_channel_end(&c->s, c->channels[i].channel);
    channel_conn_close(c->s.conn);
}

static void stream_command_fail(struct stream_command *c, const struct status *err)
{
    cleanup_buf struct buf status = BUF_INIT;

    log_info("streaming: container %.13s: %s: %s", c->container_id, stream_command_what(c), err->message);
    stream_status_error(&status, c->s.protocol->version, stream_command_what(c), err);
    stream_command_end(c, &status);
}

static void stream_command_stop(struct stream_session *s, const struct status *why)
{
    if (stream_command_of(s)->state != STREAM_COMMAND_ENDING)
        stream_command_fail(stream_command_of(s), why);
}

static const struct stream_session_ops stream_command_ops = { stream_command_stop, stream_command_free };

/* ---- output ---- */

static void stream_command_flow(struct stream_command *c)
{
    if (c->rpc != NULL)
        rpc_request_pause(c->rpc, c->full[STREAM_COMMAND_OUT] || c->full[STREAM_COMMAND_ERR]);
}

static void stream_command_put(struct stream_command *c, int which, const ProtobufCBinaryData *data)
{
    struct channel *channel = c->channels[which].channel;

    /* An output that was not asked for, or that the client has given up, goes nowhere: the process must not wait for it. */
    if (data->len == 0 || channel == NULL || !c->wanted[which])
        return;
    c->full[which] = !channel_send(channel, data->data, data->len);
}

static void stream_command_on_message(void *arg, const ProtobufCMessage *message)
{
    struct stream_command *c = arg;
    const Interlink__Agent__V1__ExecResponse *response = (const void *)message;
    cleanup_buf struct buf status = BUF_INIT;

    stream_command_put(c, STREAM_COMMAND_OUT, &response->stdout);
    stream_command_put(c, STREAM_COMMAND_ERR, &response->stderr);
    if (response->exited == NULL) {
        stream_command_flow(c);
        return;
    }
    /* How a container ends is its own affair; an attach has done what it was to do. */
    stream_status_exit(&status, c->s.protocol->version, c->attach ? 0 : response->exited->exit_code);
    stream_command_end(c, &status);
}

static void stream_command_on_finish(void *arg, const struct status *err)
{
    struct stream_command *c = arg;
    struct status failure = *err;
    cleanup_buf struct buf status = BUF_INIT;

    c->rpc = NULL;
    if (c->attach && err->code == STATUS_OK) { /* it had an input only, and that has ended */
        stream_status_exit(&status, c->s.protocol->version, 0);
        stream_command_end(c, &status);
        return;
    }
    if (failure.code == STATUS_OK)
        status_set(&failure, STATUS_INTERNAL, "the agent did not say how it ended");
    stream_command_fail(c, &failure);
}

/* ---- input ---- */

static void stream_command_pause_input(struct stream_command *c, bool paused)
{
    static const int inputs[] = { STREAM_COMMAND_IN, STREAM_COMMAND_RESIZE };

    c->input_paused = paused;
    for (size_t i = 0; i < COUNT_OF(inputs); i++)
        if (c->channels[inputs[i]].channel != NULL)
            channel_pause(c->channels[inputs[i]].channel, paused);
}

static void stream_command_send(struct stream_command *c, const Interlink__Agent__V1__ExecRequest *request)
{
    if (c->rpc != NULL && !rpc_request_send(c->rpc, &request->base) && !c->input_paused)
        stream_command_pause_input(c, true);
}

static void stream_command_on_agent_writable(void *arg)
{
    stream_command_pause_input(arg, false);
}

static void stream_command_end_input(struct stream_command *c)
{
    Interlink__Agent__V1__ExecRequest request = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;

    c->channels[STREAM_COMMAND_IN].ended = true;
    if (c->state != STREAM_COMMAND_RUNNING || !c->wanted[STREAM_COMMAND_IN])
        return;
    request.stdin_end = true;
    stream_command_send(c, &request);
}

static void stream_command_set_size(struct stream_command *c, struct str text)
{
    struct arena cleanup_arena arena = ARENA_INIT;
    Interlink__Agent__V1__ExecRequest request = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;
    struct status err = STATUS_INIT;
    uint64_t width = 0, height = 0;
    const struct json *j = json_parse(&arena, text, &err);

    if (j == NULL || !json_read_u64(j, "Width", UINT16_MAX, &width, &err) ||
        !json_read_u64(j, "Height", UINT16_MAX, &height, &err)) {
        log_debug("streaming: a terminal size is malformed: %s", err.message);
        return;
    }
    if (width == 0 || height == 0)
        return;
    request.width = (uint32_t)width;
    request.height = (uint32_t)height;
    stream_command_send(c, &request);
}

/* Objects one after another, cut anywhere. They hold no others, so that each ends at its first brace. */
static void stream_command_on_resize(struct stream_command *c, struct str piece)
{
    size_t done = 0;
    const uint8_t *end;

    buf_append(&c->resize, piece.p, piece.n);
    while (done < c->resize.n && (end = memchr(c->resize.p + done, '}', c->resize.n - done)) != NULL) {
        size_t n = (size_t)(end - c->resize.p) + 1 - done;
        stream_command_set_size(c, (struct str){ (const char *)c->resize.p + done, n });
        done += n;
    }
    buf_consume(&c->resize, done);
    if (c->resize.n > STREAM_RESIZE_MAX)
        buf_clear(&c->resize); /* nothing that we know */
}

/* ---- the client's channels ---- */

static int stream_command_which(const struct stream_command_channel *channel)
{
    return (int)(channel - channel->command->channels);
}

static void stream_command_on_data(void *arg, struct str piece)
{
    struct stream_command_channel *channel = arg;
    struct stream_command *c = channel->command;
    Interlink__Agent__V1__ExecRequest request = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;
    int which = stream_command_which(channel);

    if (c->state != STREAM_COMMAND_RUNNING || !c->wanted[which] || channel->ended)
        return;
    if (which == STREAM_COMMAND_RESIZE) {
        stream_command_on_resize(c, piece);
    } else if (which == STREAM_COMMAND_IN && piece.n > 0) {
        request.stdin = (ProtobufCBinaryData){ piece.n, (uint8_t *)(uintptr_t)piece.p };
        stream_command_send(c, &request);
    }
}

static void stream_command_on_data_end(void *arg)
{
    struct stream_command_channel *channel = arg;

    if (stream_command_which(channel) == STREAM_COMMAND_IN && !channel->ended)
        stream_command_end_input(channel->command);
    channel->ended = true;
}

static void stream_command_on_writable(void *arg)
{
    struct stream_command_channel *channel = arg;
    struct stream_command *c = channel->command;

    c->full[stream_command_which(channel)] = false;
    stream_command_flow(c);
}

static void stream_command_on_gone(void *arg, const struct status *err)
{
    struct stream_command_channel *channel = arg;

    (void)err;
    channel->channel = NULL;
    stream_command_on_data_end(channel);
    stream_command_on_writable(channel);
}

static void stream_command_take_channel(struct stream_command *c, int which, struct channel *channel)
{
    struct channel_listener listener = {
        .on_data = stream_command_on_data,
        .on_end = stream_command_on_data_end,
        .on_writable = stream_command_on_writable,
        .on_gone = stream_command_on_gone,
        .arg = &c->channels[which],
    };

    c->channels[which].channel = channel;
    c->channels[which].came = true;
    channel_listen(channel, &listener);
    if (which == STREAM_COMMAND_IN || which == STREAM_COMMAND_RESIZE)
        channel_pause(channel, true); /* until the agent listens */
}

/* ---- the start ---- */

static void stream_command_start_exec(struct stream_command *c)
{
    const Runtime__V1__ExecRequest *request = (const void *)c->request;
    Interlink__Agent__V1__ExecStart start = INTERLINK__AGENT__V1__EXEC_START__INIT;
    Interlink__Agent__V1__ExecRequest first = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;

    start.container_id = (char *)(uintptr_t)c->container_id;
    start.n_command = request->n_cmd;
    start.command = request->cmd;
    start.tty = c->tty;
    start.stdin = c->wanted[STREAM_COMMAND_IN];
    first.start = &start;
    stream_command_send(c, &first);
}

static void stream_command_start_attach(struct stream_command *c)
{
    Interlink__Agent__V1__AttachStart start = INTERLINK__AGENT__V1__ATTACH_START__INIT;
    Interlink__Agent__V1__ExecRequest first = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;

    start.container_id = (char *)(uintptr_t)c->container_id;
    start.stdin = c->wanted[STREAM_COMMAND_IN];
    start.stdout = c->wanted[STREAM_COMMAND_OUT];
    start.stderr = c->wanted[STREAM_COMMAND_ERR];
    first.attach = &start;
    stream_command_send(c, &first);
}

static void stream_command_start(struct stream_command *c)
{
    struct status err = STATUS_INIT;
    struct container *container = node_container(c->s.node, c->container_id, &err);
    struct link *link = container != NULL ? container_link(container, &err) : NULL;
    struct rpc_request_options options = {
        .method = c->attach ? "/interlink.agent.v1.Agent/Attach" : "/interlink.agent.v1.Agent/Exec",
        .bulk = true,
        .output = &interlink__agent__v1__exec_response__descriptor,
        .on_message = stream_command_on_message,
        .on_writable = stream_command_on_agent_writable,
        .on_finish = stream_command_on_finish,
        .arg = c,
    };

    timer_stop(&c->creation);
    if (link == NULL) {
        stream_command_fail(c, &err);
        return;
    }
    c->state = STREAM_COMMAND_RUNNING;
    c->rpc = rpc_request_start(link_conn(link), &options);
    if (c->attach)
        stream_command_start_attach(c);
    else
        stream_command_start_exec(c);
    if (c->channels[STREAM_COMMAND_IN].ended)
        stream_command_end_input(c);
    if (!c->input_paused)
        stream_command_pause_input(c, false);
}

static bool stream_command_complete(const struct stream_command *c)
{
    for (int i = 0; i < STREAM_COMMAND_CHANNELS; i++)
        if (c->wanted[i] && !c->channels[i].came)
            return false;
    return true;
}

static void stream_command_on_channel(void *arg, struct channel *channel, const struct http_header *headers,
                                      size_t header_count)
{
    static const char *const types[STREAM_COMMAND_CHANNELS] = { "stdin", "stdout", "stderr", "error", "resize" };
    struct stream_command *c = arg;
    const char *type = "";

    for (size_t i = 0; i < header_count; i++)
        if (strcmp(headers[i].name, "streamtype") == 0)
            type = headers[i].value;
    for (int i = 0; i < STREAM_COMMAND_CHANNELS; i++) {
        if (strcmp(types[i], type) != 0 || !c->wanted[i] || c->channels[i].came)
            continue;
        stream_command_take_channel(c, i, channel);
        if (c->state == STREAM_COMMAND_OPENING && stream_command_complete(c))
            stream_command_start(c);
        return;
    }
    log_info("streaming: a stream of type \"%.32s\" was not asked for, or comes twice: refused", type);
    stream_channel_refuse(channel);
}

static void stream_command_on_creation_timeout(void *arg)
{
    struct stream_command *c = arg;
    struct status err = STATUS_INIT;

    status_set(&err, STATUS_DEADLINE_EXCEEDED, "the client did not create all of its streams within %" PRId64 " s",
               c->s.node->options->streaming.creation_timeout_ms / 1000);
    stream_command_fail(c, &err);
}

/* WebSocket: the channels are there. An empty message tells the client that all is well. */
static void stream_command_take_all(struct stream_command *c)
{
    int greeting = c->wanted[STREAM_COMMAND_OUT]   ? STREAM_COMMAND_OUT
                   : c->wanted[STREAM_COMMAND_ERR] ? STREAM_COMMAND_ERR
                                                   : STREAM_COMMAND_STATUS;

    for (int i = 0; i < STREAM_COMMAND_CHANNELS; i++)
        stream_command_take_channel(c, i, channel_number(c->s.conn, (size_t)i));
    channel_send(c->channels[greeting].channel, "", 0);
    stream_command_start(c);
}

static struct stream_command *stream_command_new(const struct stream_opening *opening)
{
    struct stream_command *c = xcalloc(1, sizeof *c);
    const Runtime__V1__ExecRequest *exec = (const void *)opening->request;
    const Runtime__V1__AttachRequest *attach = (const void *)opening->request;

    c->attach = opening->kind == STREAM_ATTACH;
    c->request = opening->request;
    c->container_id = c->attach ? attach->container_id : exec->container_id;
    c->tty = (c->attach ? attach->tty : exec->tty) != 0;
    c->wanted[STREAM_COMMAND_IN] = (c->attach ? attach->stdin : exec->stdin) != 0;
    c->wanted[STREAM_COMMAND_OUT] = (c->attach ? attach->stdout : exec->stdout) != 0;
    c->wanted[STREAM_COMMAND_ERR] = (c->attach ? attach->stderr : exec->stderr) != 0;
    c->wanted[STREAM_COMMAND_STATUS] = true;
    /* Older versions of SPDY's protocol do not know it; WebSocket's have it from the first. */
    c->wanted[STREAM_COMMAND_RESIZE] =
        c->tty && (opening->protocol->carrier != CHANNEL_SPDY || opening->protocol->version >= 3);
    for (int i = 0; i < STREAM_COMMAND_CHANNELS; i++)
        c->channels[i].command = c;
    stream_session_init(&c->s, opening, &stream_command_ops);
    return c;
}

struct stream_session *stream_command_open(const struct stream_opening *opening)
{
    struct stream_command *c = stream_command_new(opening);
    struct channel_conn_options options = {
        .channel_count = STREAM_COMMAND_CHANNELS,
        .channels_max = STREAM_COMMAND_CHANNELS,
        .on_channel = stream_command_on_channel,
        .on_close = stream_command_on_close,
    };

    stream_session_connect(&c->s, opening, &options);
    if (opening->protocol->carrier == CHANNEL_SPDY)
        timer_start(c->s.node->loop, &c->creation, c->s.node->options->streaming.creation_timeout_ms,
                    stream_command_on_creation_timeout, c);
    else
        stream_command_take_all(c);
    return &c->s;
}
