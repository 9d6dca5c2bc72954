/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_attach.h"

#include "agent/agent_container.h"
#include "agent/agent_context.h"
#include "agent/terminal.h"

struct agent_attach {
    struct list link;   /* in the container's attaches */
    struct agent *agent;
    struct agent_container *container; /* NULL before the first message */
    struct rpc_call *call;
    bool in, out, err;  /* what was asked for */
    bool in_ended;      /* no more input will come */
    struct agent_input_writer writer; /* the call is paused while it waits */
    struct agent_output_tap tap;
    struct timer stall; /* runs while the call cannot take output */
};

/* The client has the container's standard input no more. */
static void agent_attach_leave_input(struct agent_attach *a)
{
    struct agent_container *c = a->container;

    if (c == NULL || !a->in)
        return;
    a->in = false;
    agent_input_drop(&c->input, &a->writer);
    if (!c->stdin_once || c->tty)
        return;
    c->stdin_over = true;
    agent_input_close(&c->input);
}

/* Gives the call back: the caller ends it. */
static struct rpc_call *agent_attach_free(struct agent_attach *a)
{
    struct rpc_call *call = a->call;

    timer_stop(&a->stall);
    agent_attach_leave_input(a);
    agent_output_untap(&a->tap);
    list_remove(&a->link);
    a->agent->attach_count--;
    free(a);
    return call;
}

static void agent_attach_on_cancel(void *arg)
{
    agent_attach_free(arg);
}

void agent_attach_end_all(struct agent_container *c)
{
    Interlink__Agent__V1__ExecExited exited = INTERLINK__AGENT__V1__EXEC_EXITED__INIT;
    Interlink__Agent__V1__ExecResponse response = INTERLINK__AGENT__V1__EXEC_RESPONSE__INIT;

    exited.exit_code = c->exit_code;
    response.exited = &exited;
    while (!list_empty(&c->attaches)) {
        struct rpc_call *call = agent_attach_free(CONTAINER_OF(c->attaches.next, struct agent_attach, link));
        rpc_send(call, &response.base);
        rpc_finish(call, NULL);
    }
}

/* ---- output ---- */

static void agent_attach_on_stall(void *arg)
{
    struct agent_attach *a = arg;

    rpc_failf(agent_attach_free(a), STATUS_RESOURCE_EXHAUSTED,
              "the attached client took no output for %d s; the container goes on without it", AGENT_ATTACH_STALL_MS / 1000);
}

static bool agent_attach_take(void *arg, enum crilog_stream kind, struct str piece)
{
    struct agent_attach *a = arg;
    Interlink__Agent__V1__ExecResponse response = INTERLINK__AGENT__V1__EXEC_RESPONSE__INIT;
    ProtobufCBinaryData *data = kind == CRILOG_STDERR ? &response.stderr : &response.stdout;

    if (!(kind == CRILOG_STDERR ? a->err : a->out))
        return true;
    data->data = (uint8_t *)(uintptr_t)piece.p;
    data->len = piece.n;
    if (rpc_send(a->call, &response.base))
        return true;
    if (!timer_running(&a->stall))
        timer_start(a->agent->loop, &a->stall, AGENT_ATTACH_STALL_MS, agent_attach_on_stall, a);
    return false;
}

static void agent_attach_on_writable(void *arg)
{
    struct agent_attach *a = arg;

    timer_stop(&a->stall);
    if (a->tap.output != NULL)
        agent_output_tap_ready(&a->tap);
}

/* ---- input ---- */

static void agent_attach_check_input_end(struct agent_attach *a)
{
    if (!a->in_ended)
        return;
    agent_attach_leave_input(a);
    if (!a->out && !a->err)
        rpc_finish(agent_attach_free(a), NULL);
}

static void agent_attach_on_input_room(void *arg)
{
    struct agent_attach *a = arg;

    rpc_call_pause(a->call, false);
    agent_attach_check_input_end(a);
}

static void agent_attach_on_input(struct agent_attach *a, const Interlink__Agent__V1__ExecRequest *request)
{
    struct agent_container *c = a->container;

    if (request->width != 0 && request->height != 0 && c->tty && c->input.fd >= 0)
        terminal_resize(c->input.fd, request->width, request->height);
    if (!a->in)
        return;
    a->in_ended = request->stdin_end != 0;
    agent_output_expect(&c->output);
    if (agent_input_write(&c->input, &a->writer, request->stdin.data, request->stdin.len))
        agent_attach_check_input_end(a);
    else
        rpc_call_pause(a->call, true);
}

/* ---- the start ---- */

static bool agent_attach_check_input(const struct agent_container *c, struct status *err)
{
    if (!c->with_stdin)
        return status_set(err, STATUS_FAILED_PRECONDITION, "stdin: container %.13s was created without a standard input", c->id);
    return !c->stdin_over ||
           status_set(err, STATUS_FAILED_PRECONDITION,
                      "stdin: of container %.13s it was closed when the first client that had it went (stdin_once)", c->id);
}

static bool agent_attach_start(struct agent_attach *a, const Interlink__Agent__V1__AttachStart *start, struct status *err)
{
    if (!agent_usable(a->agent, err))
        return false;
    struct agent_container *c = agent_container_find(a->agent, start->container_id);
    if (c == NULL)
        return status_set(err, STATUS_NOT_FOUND, "container \"%.64s\" is not in this pod", start->container_id);
    if (c->state != AGENT_CONTAINER_RUNNING)
        return status_set(err, STATUS_FAILED_PRECONDITION, "container %s is not running", c->id);
    if (!start->stdin && !start->stdout && !start->stderr)
        return status_set(err, STATUS_INVALID_ARGUMENT, "attach: none of stdin, stdout and stderr is asked for");
    if (start->stdin && !agent_attach_check_input(c, err))
        return false;
    a->container = c;
    a->in = start->stdin != 0;
    a->out = start->stdout != 0;
    a->err = start->stderr != 0;
    list_append(&c->attaches, &a->link);
    if (a->out || a->err)
        agent_output_tap(&c->output, &a->tap);
    return true;
}

static void agent_attach_on_message(void *arg, const ProtobufCMessage *message)
{
    struct agent_attach *a = arg;
    const Interlink__Agent__V1__ExecRequest *request = (const void *)message;
    Interlink__Agent__V1__ExecRequest end = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;
    struct status err = STATUS_INIT;

    if (a->container == NULL) {
        if (request == NULL || request->attach == NULL)
            status_set(&err, STATUS_INVALID_ARGUMENT, "attach: missing: it must be in the first message");
        else
            agent_attach_start(a, request->attach, &err);
        if (err.code != STATUS_OK) {
            rpc_fail(agent_attach_free(a), &err);
            return;
        }
    }
    /* The caller's half-close ends the input, and nothing else. */
    end.stdin_end = true;
    agent_attach_on_input(a, request != NULL ? request : &end);
}

void agent_attach(struct agent *agent, struct rpc_call *call)
{
    if (agent->attach_count == AGENT_ATTACHES_MAX) {
        rpc_failf(call, STATUS_RESOURCE_EXHAUSTED, "%d clients are attached in this pod already; try again later",
                  AGENT_ATTACHES_MAX);
        return;
    }
    struct agent_attach *a = xcalloc(1, sizeof *a);
    a->agent = agent;
    a->call = call;
    a->tap.take = agent_attach_take;
    a->tap.arg = a;
    agent_input_writer_init(&a->writer, agent_attach_on_input_room, a);
    list_init(&a->link);
    list_init(&a->tap.link);
    agent->attach_count++;
    rpc_call_on_message(call, agent_attach_on_message, a);
    rpc_call_on_writable(call, agent_attach_on_writable, a);
    rpc_call_on_cancel(call, agent_attach_on_cancel, a);
}
