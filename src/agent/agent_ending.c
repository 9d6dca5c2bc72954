/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_ending.h"

#include <signal.h>

#include "agent/agent_container.h"
#include "agent/agent_container_work.h"
#include "agent/agent_context.h"

static void agent_ending_on_step(void *arg);

static void agent_ending_on_timer(void *arg);

static void agent_ending_enter(struct agent *agent, enum agent_ending_phase phase, int64_t limit_ms)
{
    agent->ending.phase = phase;
    timer_start(agent->loop, &agent->ending.timer, limit_ms, agent_ending_on_timer, agent);
}

/* Signals every container that runs and was not signalled yet, and gives up what is not made yet. */
static bool agent_ending_anything_runs(struct agent *agent, bool signal)
{
    struct strmap_iter it = { 0 };
    bool runs = false;

    while (strmap_next(&agent->containers, &it)) {
        struct agent_container *c = it.value;
        struct status err = STATUS_INIT;
        bool kill = agent->ending.phase == AGENT_ENDING_KILLING;
        runs = runs || agent_container_runs(c) || (c->state == AGENT_CONTAINER_CREATED && c->busy);
        if (!signal || c->state != AGENT_CONTAINER_RUNNING || (c->stop_sent && !kill))
            continue;
        c->stop_sent = true;
        if (!engine_signal(agent->engine, c->id, c->bundle, c->pid, kill ? SIGKILL : c->stop_signal, kill, &err))
            log_warn("container %.13s cannot be signalled: %s", c->id, err.message);
    }
    return runs;
}

/* What the node is reading and has not stored yet. */
static bool agent_ending_unread(struct agent *agent)
{
    struct strmap_iter it = { 0 };

    while (strmap_next(&agent->containers, &it)) {
        const struct agent_container *c = it.value;
        if (agent_output_unread(&c->output))
            return true;
    }
    return false;
}

static void agent_ending_on_removed(void *arg, const struct status *err, const struct agent_container *c)
{
    struct agent *agent = arg;

    if (err != NULL)
        log_warn("container %.13s is not wholly removed: %s", c != NULL ? c->id : "", err->message);
    agent->ending.removing--;
    agent_ending_check(agent);
}

static void agent_ending_remove(struct agent *agent)
{
    struct strmap_iter it = { 0 };

    agent->ending.removing = 1; /* ours, while we ask */
    while (strmap_next(&agent->containers, &it)) {
        const struct agent_container *c = it.value;
        agent->ending.removing++;
        agent_container_remove(agent, c->id, agent_ending_on_removed, agent);
    }
    agent->ending.removing--;
}

static void agent_ending_finish(struct agent *agent)
{
    struct agent_ending *ending = &agent->ending;
    Interlink__Agent__V1__ShutdownResponse response = INTERLINK__AGENT__V1__SHUTDOWN_RESPONSE__INIT;

    ending->phase = AGENT_ENDING_DONE;
    timer_stop(&ending->timer);
    worker_cancel(&ending->worker);
    engine_free(agent->engine);
    agent->engine = NULL;
    agent_events_close(&agent->events);
    agent_ports_close(agent);
    for (size_t i = 0; i < ending->call_count; i++)
        rpc_reply(ending->calls[i], &response.base);
    ending->call_count = 0;
    ending->on_done(ending->arg);
}

/* ---- what was brought for the containers ---- */

static bool agent_ending_clear_work(void *arg, struct buf *output, struct status *err)
{
    (void)output;
    agent_worker_enter(arg);
    return agent_files_clear(arg, err);
}

static void agent_ending_on_cleared(void *arg, const struct status *err, struct buf *output)
{
    struct agent *agent = arg;

    (void)output;
    if (err != NULL)
        log_warn("the pod's files are not wholly removed: %s", err->message);
    agent_ending_finish(agent);
}

static void agent_ending_clear(struct agent *agent)
{
    struct agent_ending *ending = &agent->ending;
    struct status err = STATUS_INIT;

    if (ending->clearing)
        return;
    ending->clearing = true;
    if (!agent_files_any(agent) ||
        !worker_start(agent->loop, &ending->worker, agent_ending_clear_work, agent, agent_ending_on_cleared, agent, &err))
        agent_ending_finish(agent);
}

static void agent_ending_on_step(void *arg)
{
    struct agent *agent = arg;
    struct agent_ending *ending = &agent->ending;

    if (ending->phase == AGENT_ENDING_STOPPING || ending->phase == AGENT_ENDING_KILLING) {
        if (agent_ending_anything_runs(agent, true))
            return;
        agent_ending_enter(agent, AGENT_ENDING_HANDOVER, AGENT_HANDOVER_MS);
    }
    if (ending->phase == AGENT_ENDING_HANDOVER) {
        if (agent_ending_unread(agent))
            return;
        agent_ending_enter(agent, AGENT_ENDING_REMOVING, AGENT_REMOVE_MS);
        agent_ending_remove(agent);
    }
    if (ending->phase == AGENT_ENDING_REMOVING && ending->removing == 0)
        agent_ending_clear(agent);
}

/* The phase has lasted as long as it may. */
static void agent_ending_on_timer(void *arg)
{
    struct agent *agent = arg;

    switch (agent->ending.phase) {
    case AGENT_ENDING_STOPPING:
        agent_ending_enter(agent, AGENT_ENDING_KILLING, AGENT_KILL_MS);
        break;
    case AGENT_ENDING_KILLING:
        agent_ending_enter(agent, AGENT_ENDING_HANDOVER, AGENT_HANDOVER_MS);
        break;
    case AGENT_ENDING_HANDOVER:
        agent_ending_enter(agent, AGENT_ENDING_REMOVING, AGENT_REMOVE_MS);
        agent_ending_remove(agent);
        break;
    case AGENT_ENDING_REMOVING:
        log_warn("the pod ends with %zu containers%s that could not be removed in time", agent->ending.removing,
                 agent->ending.clearing ? " and with files" : "");
        agent_ending_finish(agent);
        return;
    case AGENT_ENDING_NOT:
    case AGENT_ENDING_DONE:
        return;
    }
    agent_ending_on_step(agent);
}

void agent_ending_start(struct agent *agent, int64_t grace_ms, struct rpc_call *call)
{
    struct agent_ending *ending = &agent->ending;
    struct strmap_iter it = { 0 };
    int64_t until;

    if (grace_ms < 0)
        grace_ms = 0;
    if (grace_ms > INT32_MAX)
        grace_ms = INT32_MAX;
    until = clock_mono_ms() + grace_ms;
    if (call != NULL && ending->call_count == COUNT_OF(ending->calls)) {
        rpc_failf(call, STATUS_RESOURCE_EXHAUSTED, "%zu calls wait for the pod's end already", ending->call_count);
        return;
    }
    if (call != NULL)
        ending->calls[ending->call_count++] = call;
    if (ending->phase == AGENT_ENDING_NOT) {
        ending->phase = AGENT_ENDING_STOPPING;
        ending->grace_until_ms = until + 1;
        while (strmap_next(&agent->containers, &it))
            agent_container_abandon(it.value);
    }
    if (ending->phase == AGENT_ENDING_STOPPING && until < ending->grace_until_ms) {
        ending->grace_until_ms = until;
        agent_ending_enter(agent, grace_ms > 0 ? AGENT_ENDING_STOPPING : AGENT_ENDING_KILLING,
                           grace_ms > 0 ? grace_ms : AGENT_KILL_MS);
    }
    agent_ending_check(agent);
}

bool agent_ending_unasked(const struct agent *agent)
{
    return agent->ending.phase != AGENT_ENDING_NOT && agent->ending.call_count == 0;
}

void agent_ending_check(struct agent *agent)
{
    if (agent->ending.phase != AGENT_ENDING_NOT && agent->ending.phase != AGENT_ENDING_DONE)
        deferred_start(agent->loop, &agent->ending.step, agent_ending_on_step, agent);
}

void agent_ending_cancel(struct agent *agent)
{
    timer_stop(&agent->ending.timer);
    deferred_stop(&agent->ending.step);
    worker_cancel(&agent->ending.worker);
}
