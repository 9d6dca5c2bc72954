/* SPDX-License-Identifier: Apache-2.0 */
/* agent_kit_exec.h: a node's end of Exec and Attach, for agent_kit.h. */
#ifndef TEST_AGENT_KIT_EXEC_H
#define TEST_AGENT_KIT_EXEC_H

#include "agent_kit.h"

struct exec {
    struct rpc_request *request; /* NULL once finished */
    struct buf out, err;
    bool exited, finished, timed_out;
    int exit_code;
    size_t messages;
    struct status status;
};

static void on_exec_message(void *arg, const ProtobufCMessage *message)
{
    struct exec *e = arg;
    const PB(ExecResponse) *response = (const void *)message;

    assert_false(e->exited); /* it is the last message */
    e->messages++;
    buf_append(&e->out, response->stdout.data, response->stdout.len);
    buf_append(&e->err, response->stderr.data, response->stderr.len);
    if (response->exited == NULL)
        return;
    e->exited = true;
    e->exit_code = response->exited->exit_code;
    e->timed_out = response->exited->timed_out != 0;
}

static void on_exec_finish(void *arg, const struct status *status)
{
    struct exec *e = arg;

    e->finished = true;
    e->request = NULL;
    e->status = *status;
}

UNUSED static void exec_open(struct exec *e, const char *method)
{
    char path[64];
    struct rpc_request_options options = {
        .method = path,
        .output = &interlink__agent__v1__exec_response__descriptor,
        .on_message = on_exec_message,
        .on_finish = on_exec_finish,
        .arg = e,
    };

    snprintf(path, sizeof path, "/interlink.agent.v1.Agent/%s", method);
    *e = (struct exec){ 0 };
    e->request = rpc_request_start(kit->client, &options);
}

UNUSED static bool exec_input(struct exec *e, const void *p, size_t n, bool end)
{
    PB(ExecRequest) request = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;

    request.stdin.data = (uint8_t *)(uintptr_t)p;
    request.stdin.len = n;
    request.stdin_end = end;
    return rpc_request_send(e->request, &request.base);
}

UNUSED static void exec_free(struct exec *e)
{
    buf_free(&e->out);
    buf_free(&e->err);
}

#endif
