/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox_internal.h"

#include "node/call_in.h"
#include "node/container.h"
#include "node/container_job.h"
#include "node/container_job_pod.h"
#include "node/link.h"
#include "node/counters.h"
#include "node/gate.h"
#include "node/last_words.h"
#include "node/pod_network.h"
#include "node/sandbox_job.h"
#include "node/sandbox_lease.h"
#include "node/sandbox_size.h"
#include "node/setbacks.h"
#include "node/stats.h"
#include "node/streaming.h"
#include "node/volumes.h"
#include "node/waiter.h"
#include "rpc/pb.h"

/* After the agent's last answer its connection closes; one that does not is cut. */
#define SANDBOX_STOP_TIMEOUT_MS 10000

static void sandbox_finish_removal(struct sandbox *sandbox);

/* ---- the object ---- */

static Interlink__State__V1__SandboxPhase sandbox_phase(const struct sandbox *sandbox)
{
    return sandbox->record->phase;
}

bool sandbox_listed(const struct sandbox *sandbox)
{
    return sandbox_phase(sandbox) >= INTERLINK__STATE__V1__SANDBOX_PHASE__READY;
}

void sandbox_changed(struct sandbox *sandbox)
{
    const Interlink__State__V1__Sandbox *record = sandbox->record;
    Runtime__V1__PodSandbox item = RUNTIME__V1__POD_SANDBOX__INIT;

    lists_changed(sandbox->node, LISTS_SANDBOXES);
    buf_clear(&sandbox->item);
    if (!sandbox_listed(sandbox))
        return;
    item.id = record->id;
    item.metadata = record->config->metadata;
    item.state = record->phase == INTERLINK__STATE__V1__SANDBOX_PHASE__READY
                     ? RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_READY
                     : RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_NOTREADY;
    item.created_at = record->created_at;
    item.n_labels = record->config->n_labels;
    item.labels = (Runtime__V1__PodSandbox__LabelsEntry **)(void *)record->config->labels;
    item.n_annotations = record->config->n_annotations;
    item.annotations = (Runtime__V1__PodSandbox__AnnotationsEntry **)(void *)record->config->annotations;
    item.runtime_handler = record->runtime_handler;
    pb_encode_item(&item.base, &sandbox->item);
}

struct sandbox *sandbox_new(struct node *node, struct handler *handler, Interlink__State__V1__Sandbox *record)
{
    struct sandbox *sandbox = xcalloc(1, sizeof *sandbox);

    sandbox->node = node;
    sandbox->handler = handler;
    sandbox->record = record;
    list_init(&sandbox->containers);
    list_init(&sandbox->waiters);
    sandbox->queue_words = xstrdup("its job has been submitted");
    strmap_put(&node->sandboxes, record->id, sandbox);
    lists_add_sandbox(sandbox);
    sandbox_changed(sandbox);
    return sandbox;
}

void sandbox_free(struct sandbox *sandbox)
{
    struct status err = STATUS_INIT;

    while (!list_empty(&sandbox->containers))
        container_free(CONTAINER_OF(sandbox->containers.next, struct container, link));
    status_set(&err, STATUS_UNAVAILABLE, "the pod's sandbox went away");
    waiters_fail(&sandbox->waiters, WAIT_READY, &err);
    waiters_fail(&sandbox->waiters, WAIT_STOPPED, &err);
    waiters_fail(&sandbox->waiters, WAIT_REMOVED, &err);
    state_forget(sandbox->node->state, sandbox);
    strmap_remove(&sandbox->node->sandboxes, sandbox->record->id);
    lists_remove_sandbox(sandbox);
    timer_stop(&sandbox->stop_timer);
    pod_volumes_free(sandbox->volumes);
    link_free(sandbox->link);
    stats_free(sandbox->stats);
    gate_remove(sandbox);
    pod_network_free(sandbox);
    sandbox_size_free(sandbox);
    last_words_cancel(sandbox->last_words);
    sandbox_lease_free(sandbox);
    call_in_free(sandbox);
    interlink_job_free(sandbox->job);
    buf_free(&sandbox->item);
    free(sandbox->queue_words);
    protobuf_c_message_free_unpacked(&sandbox->record->base, NULL);
    free(sandbox);
}

static void sandbox_put(struct sandbox *sandbox, void (*on_done)(void *arg, const struct status *err))
{
    state_put(sandbox->node->state, STATE_SANDBOX, sandbox->record->id, &sandbox->record->base, on_done, sandbox);
}

/* The one place where the phase changes. False: an impossible move, refused. */
static bool sandbox_move(struct sandbox *sandbox, Interlink__State__V1__SandboxPhase to)
{
    Interlink__State__V1__SandboxPhase from = sandbox_phase(sandbox);
    static const unsigned allowed[] = {
        [INTERLINK__STATE__V1__SANDBOX_PHASE__SUBMITTED] = 1u << INTERLINK__STATE__V1__SANDBOX_PHASE__QUEUED |
                                                           1u << INTERLINK__STATE__V1__SANDBOX_PHASE__READY,
        [INTERLINK__STATE__V1__SANDBOX_PHASE__QUEUED] = 1u << INTERLINK__STATE__V1__SANDBOX_PHASE__READY,
        [INTERLINK__STATE__V1__SANDBOX_PHASE__READY] = 1u << INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY,
        [INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY] = 0,
    };

    if ((allowed[from] & 1u << to) == 0) {
        log_error("pod %.13s: the move from phase %d to %d was refused", sandbox->record->id, (int)from, (int)to);
        return false;
    }
    sandbox->record->phase = to;
    sandbox_changed(sandbox);
    return true;
}

void sandbox_say(struct sandbox *sandbox, char *words) /* takes words */
{
    free(sandbox->queue_words);
    sandbox->queue_words = words;
}

void sandbox_say_submitted(struct sandbox *sandbox)
{
    const char *jid = sandbox->record->job_id;

    sandbox_say(sandbox, xasprintf("%s %s has been submitted and waits for its turn", *jid != '\0' ? "job" : "its", *jid != '\0' ? jid : "job"));
}

/* ---- run ---- */

static void sandbox_reply_ready(struct sandbox *sandbox)
{
    Runtime__V1__RunPodSandboxResponse response = RUNTIME__V1__RUN_POD_SANDBOX_RESPONSE__INIT;
    uint8_t bytes[ID_LENGTH + 16];

    response.pod_sandbox_id = sandbox->record->id;
    waiters_reply(&sandbox->waiters, WAIT_READY, bytes, protobuf_c_message_pack(&response.base, bytes));
}

static void sandbox_on_hold_over(void *arg, struct rpc_call *call)
{
    struct sandbox *sandbox = arg;

    rpc_failf(call, STATUS_UNAVAILABLE, "%s%s", sandbox->queue_words,
              pod_network_up(sandbox) ? "" : "; its network is still being set up by CNI plugins");
}

static void sandbox_wait_ready(struct sandbox *sandbox, struct rpc_call *call)
{
    struct node *node = sandbox->node;

    sandbox_lease_renew(sandbox);
    waiter_add(&sandbox->waiters, WAIT_READY, call, node->loop, node->options->queue_hold_ms, sandbox_on_hold_over,
               sandbox);
    if (sandbox_phase(sandbox) == INTERLINK__STATE__V1__SANDBOX_PHASE__READY)
        sandbox_reply_ready(sandbox);
}

/* It never became a pod: nothing was listed, nothing is left. */
void sandbox_abandon(struct sandbox *sandbox, const struct status *err)
{
    waiters_fail(&sandbox->waiters, WAIT_READY, err);
    if (pod_network_held(sandbox)) {
        sandbox->abandoned = sandbox->stopping = true;
        pod_network_remove(sandbox);
        return;
    }
    waiters_reply(&sandbox->waiters, WAIT_STOPPED, "", 0);
    waiters_reply(&sandbox->waiters, WAIT_REMOVED, "", 0);
    state_delete(sandbox->node->state, STATE_SANDBOX, sandbox->record->id, NULL, NULL);
    sandbox_free(sandbox);
}

static void sandbox_on_ready_recorded(void *arg, const struct status *err)
{
    struct sandbox *sandbox = arg;

    announce_sandbox(sandbox, ANNOUNCED_STARTED);
    if (err == NULL && sandbox_phase(sandbox) == INTERLINK__STATE__V1__SANDBOX_PHASE__READY)
        sandbox_reply_ready(sandbox);
    else if (err != NULL)
        waiters_fail(&sandbox->waiters, WAIT_READY, err);
}

static void sandbox_become_ready(struct sandbox *sandbox)
{
    if (!sandbox_move(sandbox, INTERLINK__STATE__V1__SANDBOX_PHASE__READY))
        return;
    setbacks_forget(sandbox->node->setbacks, sandbox->record->config->metadata);
    sandbox_put(sandbox, sandbox_on_ready_recorded);
}

static void sandbox_on_recorded(void *arg, const struct status *err)
{
    struct sandbox *sandbox = arg;

    if (err != NULL) {
        sandbox_abandon(sandbox, err);
        return;
    }
    if (sandbox->handler->per_container) {
        sandbox_become_ready(sandbox);
        return;
    }
    if (!pod_network_start(sandbox))
        interlink_job_submit(sandbox->job);
}

void sandbox_on_sized(struct sandbox *sandbox)
{
    struct status err = STATUS_INIT;

    if (sandbox->stopping) {
        status_set(&err, STATUS_UNAVAILABLE, "%s", sandbox->queue_words);
        sandbox_abandon(sandbox, &err);
        return;
    }
    sandbox_say(sandbox, xstrdup("its job is being submitted"));
    sandbox->record->job_deleted = sandbox->handler->per_container; /* its containers' are others */
    if (!sandbox->handler->per_container)
        sandbox->job = sandbox_job_new(sandbox, &sandbox_job_events);
    /* On disk before the API hears of it: a job must never exist that nobody remembers. */
    sandbox_put(sandbox, sandbox_on_recorded);
}

void sandbox_run(struct node *node, struct rpc_call *call, const Runtime__V1__RunPodSandboxRequest *request)
{
    struct status err = STATUS_INIT;
    struct handler *handler = NULL;

    if (!sandbox_check_request(request, &err) || (handler = node_handler_of_pod(node, request, &err)) == NULL ||
        (handler->per_container && !container_job_check_sandbox(request->config, &err))) {
        rpc_fail(call, &err);
        return;
    }
    struct sandbox *sandbox = sandbox_find(node, request->config->metadata);
    bool leaving = sandbox != NULL && sandbox->stopping && !sandbox_listed(sandbox);
    if ((sandbox == NULL || leaving) && !setbacks_allow(node->setbacks, request->config->metadata, clock_mono_ms(), &err)) {
        rpc_fail(call, &err);
        return;
    }
    if (leaving) {
        const char *fault = pod_network_fault(sandbox);
        rpc_failf(call, STATUS_UNAVAILABLE, "what an earlier try has left of the pod is being removed: try again%s%s",
                  *fault != '\0' ? ": " : "", fault);
        return;
    }
    if (sandbox != NULL && (sandbox->stopping || sandbox_phase(sandbox) == INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY)) {
        rpc_failf(call, STATUS_ALREADY_EXISTS,
                  "pod %s/%s (uid %s, attempt %u) exists as sandbox %.13s, which has been stopped: remove it first",
                  request->config->metadata->namespace_, request->config->metadata->name,
                  request->config->metadata->uid, request->config->metadata->attempt, sandbox->record->id);
        return;
    }
    if (sandbox != NULL) {
        sandbox_wait_ready(sandbox, call);
        return;
    }
    Interlink__State__V1__Sandbox *record = sandbox_record_new(node, handler, request, &err);
    if (record == NULL) {
        rpc_fail(call, &err);
        return;
    }
    sandbox = sandbox_new(node, handler, record);
    gate_add(sandbox);
    sandbox_wait_ready(sandbox, call);
    log_info("pod %.13s: %s/%s (uid %s, attempt %u), handler %s", record->id, record->config->metadata->namespace_,
             record->config->metadata->name, record->config->metadata->uid, record->config->metadata->attempt,
             handler->options->name);
    if (!sandbox_size_start(sandbox))
        sandbox_on_sized(sandbox);
}

/* ---- the job's side ---- */

static void sandbox_on_submitted(void *arg, const char *jid)
{
    struct sandbox *sandbox = arg;

    sandbox->record->submitted = true;
    pod_network_start(sandbox);
    pb_set(&sandbox->record->job_id, jid);
    sandbox_say_submitted(sandbox);
    sandbox_put(sandbox, NULL);
}

/* For the next call, since often nobody waits for it at this moment. */
static void sandbox_note_setback(struct sandbox *sandbox, const struct status *why, bool had_job)
{
    if (!sandbox->stopping)
        setbacks_note(sandbox->node->setbacks, sandbox->record->config->metadata, why,
                      waiters_any(&sandbox->waiters, WAIT_READY), had_job, clock_mono_ms());
}

static void sandbox_on_rejected(void *arg, const struct status *err)
{
    struct sandbox *sandbox = arg;
    struct status wrapped = *err;

    status_prefix(&wrapped, "handler %s did not take the pod", sandbox->handler->options->name);
    log_warn("pod %.13s: %s", sandbox->record->id, wrapped.message);
    sandbox_note_setback(sandbox, &wrapped, false);
    sandbox_abandon(sandbox, &wrapped);
}

static void sandbox_on_job_cancelled(void *arg)
{
    struct sandbox *sandbox = arg;
    struct status err = STATUS_INIT;

    interlink_job_free(sandbox->job);
    sandbox->job = NULL;
    sandbox->record->job_deleted = true;
    if (!sandbox_listed(sandbox)) {
        status_set(&err, STATUS_UNAVAILABLE, "%s", sandbox->queue_words);
        sandbox_abandon(sandbox, &err);
        return;
    }
    sandbox_put(sandbox, NULL);
    if (sandbox->stopping)
        sandbox_stopped(sandbox, "");
    if (sandbox->removing)
        sandbox_finish_removal(sandbox);
}

void sandbox_cancel_job(struct sandbox *sandbox)
{
    if (sandbox->job != NULL)
        interlink_job_cancel(sandbox->job, 0, sandbox_on_job_cancelled, sandbox_job_on_cancel_retry, sandbox);
}

/* It will not become a pod. */
static void sandbox_give_up(struct sandbox *sandbox, const struct status *err, bool had_job)
{
    if (sandbox_listed(sandbox) || sandbox->stopping)
        return;
    sandbox_note_setback(sandbox, err, had_job);
    waiters_fail(&sandbox->waiters, WAIT_READY, err);
    sandbox_say(sandbox, xstrdup(err->message));
    sandbox->stopping = true;
    sandbox_cancel_job(sandbox); /* then it is abandoned */
}

static void sandbox_on_last_words(void *arg, const char *text)
{
    struct sandbox *sandbox = arg;
    struct status err = STATUS_INIT;

    sandbox->last_words = NULL;
    status_set(&err, STATUS_UNAVAILABLE, "%s%s%s", sandbox->queue_words, *text != '\0' ? "; its log ends in: " : "", text);
    sandbox_give_up(sandbox, &err, true);
}

/* The job is over though nobody stopped the pod. */
static void sandbox_on_job_over(struct sandbox *sandbox, const struct interlink_job_state *state)
{
    struct status err = STATUS_INIT;
    cleanup_free char *words = sandbox_job_end_words(state);

    log_warn("pod %.13s: %s", sandbox->record->id, words);
    status_set(&err, STATUS_UNAVAILABLE, "%s", words);
    sandbox_say(sandbox, xstrdup(words));
    if (sandbox_phase(sandbox) == INTERLINK__STATE__V1__SANDBOX_PHASE__READY)
        sandbox_stopped(sandbox, words);
    else if (*state->message != '\0' || state->phase == INTERLINK_GONE || !sandbox_job_ask(sandbox, sandbox_on_last_words))
        sandbox_give_up(sandbox, &err, true); /* what is left of it at the site is cancelled */
}

static void sandbox_on_state(void *arg, const struct interlink_job_state *state)
{
    struct sandbox *sandbox = arg;
    const Interlink__State__V1__Sandbox *record = sandbox->record;
    const char *jid = *state->jid != '\0' ? state->jid : *record->job_id != '\0' ? record->job_id : record->job_uid;

    sandbox_learn_job(sandbox, state->jid, state->phase == INTERLINK_RUNNING ? state->nodes : "");
    switch (state->phase) {
    case INTERLINK_WAITING:
        if (sandbox_phase(sandbox) == INTERLINK__STATE__V1__SANDBOX_PHASE__SUBMITTED &&
            sandbox_move(sandbox, INTERLINK__STATE__V1__SANDBOX_PHASE__QUEUED))
            sandbox_put(sandbox, NULL);
        sandbox_say(sandbox, xasprintf("job %s is queued%s%s%s%s", jid, *state->reason != '\0' ? ": " : "", state->reason,
                                       *state->message != '\0' ? ", " : "", state->message));
        break;
    case INTERLINK_RUNNING:
        call_in_expect(sandbox);
        break;
    case INTERLINK_TERMINATED:
    case INTERLINK_GONE:
        if (!sandbox->stopping && sandbox_phase(sandbox) != INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY)
            sandbox_on_job_over(sandbox, state);
        break;
    case INTERLINK_UNKNOWN:
        if (*state->message != '\0')
            sandbox_say(sandbox, xasprintf("the site does not tell how job %s is: %s", jid, state->message));
        break;
    }
}

const struct interlink_job_events sandbox_job_events = {
    .on_submitted = sandbox_on_submitted,
    .on_rejected = sandbox_on_rejected,
    .on_state = sandbox_on_state,
};

void sandbox_expire(struct sandbox *sandbox)
{
    sandbox->stopping = true;
    sandbox_cancel_job(sandbox);
}

/* ---- the agent's side ---- */

static const struct link_owner sandbox_link_owner = { sandbox_on_agent_ready, sandbox_on_agent_refused, sandbox_on_agent_lost };

void sandbox_attach(struct sandbox *sandbox, struct stream *stream, struct str early)
{
    struct status err = STATUS_INIT;

    if (sandbox->link != NULL) {
        status_set(&err, STATUS_UNAVAILABLE, "a newer connection replaced it");
        sandbox_on_agent_lost(sandbox, &err);
    }
    call_in_came(sandbox, stream);
    sandbox->link = link_new(sandbox, &sandbox_link_owner, sandbox, stream, early);
    sandbox->handler->agent_connections++;
}

bool sandbox_check_ready(const struct sandbox *sandbox, struct status *err)
{
    return (sandbox_phase(sandbox) == INTERLINK__STATE__V1__SANDBOX_PHASE__READY && !sandbox->stopping) ||
           status_set(err, STATUS_FAILED_PRECONDITION, "sandbox %.13s is not ready%s%s", sandbox->record->id,
                      *sandbox->record->message != '\0' ? ": " : "", sandbox->record->message);
}

struct link *sandbox_link(struct sandbox *sandbox, struct status *err)
{
    if (!sandbox_check_ready(sandbox, err))
        return NULL;
    if (sandbox->handler->inside)
        return container_job_any_link(sandbox, err);
    if (sandbox->handler->per_container) {
        status_set(err, STATUS_UNIMPLEMENTED,
                   "sandbox %.13s has no agent: each of its containers is a job of its own (JobPer: container); port-forward and "
                   "statistics of pods need JobPer: pod for handler %s",
                   sandbox->record->id, sandbox->handler->options->name);
        return NULL;
    }
    if (sandbox->link == NULL || !link_ready(sandbox->link)) {
        status_set(err, STATUS_UNAVAILABLE, "the agent of sandbox %.13s is not connected at the moment%s%s", sandbox->record->id,
                   *call_in_words(sandbox) != '\0' ? ": " : "", call_in_words(sandbox));
        return NULL;
    }
    return sandbox->link;
}

void sandbox_on_agent_ready(void *arg, const Interlink__Agent__V1__HelloResponse *hello)
{
    struct sandbox *sandbox = arg;

    sandbox_reconcile(sandbox, hello);
    sandbox_learn_job(sandbox, hello->job_id, hello->job_nodes);
    for (LIST_EACH(struct container, c, &sandbox->containers, link))
        container_follow_log(c);
    volumes_on_agent(sandbox, hello);
    gate_on_agent(sandbox);
    if (sandbox_listed(sandbox) || sandbox->stopping)
        return;
    if (!pod_network_held(sandbox) && sandbox->handler->local)
        pb_set(&sandbox->record->ip, sandbox->node->node_ip);
    counters_queue_wait(sandbox->handler, sandbox->record->created_at);
    sandbox_become_ready(sandbox);
}

void sandbox_on_agent_refused(void *arg, const struct status *err)
{
    struct sandbox *sandbox = arg;

    log_warn("pod %.13s: the agent refuses it: %s", sandbox->record->id, err->message);
    sandbox_give_up(sandbox, err, true);
}

void sandbox_on_agent_lost(void *arg, const struct status *err)
{
    struct sandbox *sandbox = arg;
    struct link *link = sandbox->link;

    for (LIST_EACH(struct container, c, &sandbox->containers, link))
        if (c->log != NULL)
            container_unfollow_log(c);
    streaming_pod_gone(sandbox, err->message);
    gate_on_agent_lost(sandbox);
    sandbox->link = NULL;
    link_free(link);
    if (sandbox->stopping) {
        sandbox_stopped(sandbox, "");
        return;
    }
    log_info("pod %.13s: the agent's connection ended (%s); it will call again if it lives", sandbox->record->id,
             err->message);
    if (sandbox->job != NULL && interlink_job_state(sandbox->job)->phase < INTERLINK_TERMINATED) /* it ran, whatever was told last */
        call_in_expect(sandbox);
    interlink_target_poll_soon(sandbox->handler->target);
}

/* ---- stop and remove ---- */

static void sandbox_check_stopped(struct sandbox *sandbox)
{
    if (sandbox->saving_stop || pod_network_held(sandbox))
        return;
    waiters_reply(&sandbox->waiters, WAIT_STOPPED, "", 0);
    if (sandbox->removing)
        sandbox_finish_removal(sandbox);
}

static void sandbox_on_stop_recorded(void *arg, const struct status *err)
{
    struct sandbox *sandbox = arg;

    sandbox->saving_stop = false;
    announce_sandbox(sandbox, ANNOUNCED_STOPPED);
    if (err != NULL)
        waiters_fail(&sandbox->waiters, WAIT_STOPPED, err);
    sandbox_check_stopped(sandbox);
}

/* Nothing of the pod runs any more. */
void sandbox_stopped(struct sandbox *sandbox, const char *message)
{
    if (sandbox_phase(sandbox) != INTERLINK__STATE__V1__SANDBOX_PHASE__READY)
        return;
    timer_stop(&sandbox->stop_timer);
    streaming_pod_gone(sandbox, *message != '\0' ? message : "it has ended");
    gate_on_stopped(sandbox);
    for (LIST_EACH_SAFE(struct container, c, &sandbox->containers, link))
        container_on_lost(c, *message != '\0' ? message : "the pod was stopped");
    pb_set(&sandbox->record->message, message);
    if (sandbox_move(sandbox, INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY)) {
        sandbox->saving_stop = true;
        sandbox_put(sandbox, sandbox_on_stop_recorded);
    }
    sandbox->stopping = false;
    sandbox_cancel_job(sandbox);
    pod_network_remove(sandbox);
}

static void sandbox_on_stop_timeout(void *arg)
{
    struct sandbox *sandbox = arg;
    struct status err = STATUS_INIT;

    status_set(&err, STATUS_DEADLINE_EXCEEDED, "the agent did not end in time");
    log_warn("pod %.13s: %s", sandbox->record->id, err.message);
    if (sandbox->link != NULL)
        sandbox_on_agent_lost(sandbox, &err);
    else
        sandbox_stopped(sandbox, "");
}

static void sandbox_on_shutdown(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct sandbox *sandbox = arg;

    (void)response;
    /* The agent closes its connection as it ends: sandbox_on_agent_lost. */
    if (status->code != STATUS_OK && sandbox->link != NULL)
        timer_start(sandbox->node->loop, &sandbox->stop_timer, 0, sandbox_on_stop_timeout, sandbox);
}

static void sandbox_begin_stop(struct sandbox *sandbox)
{
    Interlink__Agent__V1__ShutdownRequest request = INTERLINK__AGENT__V1__SHUTDOWN_REQUEST__INIT;

    if (sandbox->stopping)
        return;
    sandbox->stopping = true;
    if (sandbox_listed(sandbox) && sandbox->handler->per_container) {
        sandbox_cancel_container_jobs(sandbox);
        return;
    }
    if (sandbox_listed(sandbox) && sandbox->link != NULL && link_ready(sandbox->link)) {
        rpc_unary(link_conn(sandbox->link), "/interlink.agent.v1.Agent/Shutdown", &request.base,
                  &interlink__agent__v1__shutdown_response__descriptor, SANDBOX_STOP_TIMEOUT_MS, sandbox_on_shutdown,
                  sandbox);
        timer_start(sandbox->node->loop, &sandbox->stop_timer, SANDBOX_STOP_TIMEOUT_MS, sandbox_on_stop_timeout,
                    sandbox);
        return;
    }
    /* No agent to ask: the site ends the job, and the pod with it. */
    sandbox_say(sandbox, xstrdup("the pod was stopped before it became ready"));
    sandbox_cancel_job(sandbox);
}

void sandbox_stop(struct sandbox *sandbox, struct rpc_call *call)
{
    bool stopped = sandbox_phase(sandbox) == INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY;

    if (stopped && !pod_network_held(sandbox)) {
        rpc_reply_packed(call, "", 0);
        return;
    }
    waiter_add(&sandbox->waiters, WAIT_STOPPED, call, sandbox->node->loop, 0, NULL, NULL);
    if (stopped || sandbox->abandoned)
        pod_network_remove(sandbox);
    else
        sandbox_begin_stop(sandbox);
}

static void sandbox_on_record_deleted(void *arg, const struct status *err)
{
    struct sandbox *sandbox = arg;

    if (err != NULL) {
        sandbox->removing = sandbox->deleting = false;
        waiters_fail(&sandbox->waiters, WAIT_REMOVED, err);
        return;
    }
    log_info("pod %.13s: removed", sandbox->record->id);
    announce_sandbox_deleted(sandbox);
    waiters_reply(&sandbox->waiters, WAIT_REMOVED, "", 0);
    sandbox_free(sandbox);
}

static void sandbox_finish_removal(struct sandbox *sandbox)
{
    if (sandbox->deleting || sandbox->job != NULL || pod_network_held(sandbox) || sandbox_phase(sandbox) != INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY)
        return;
    while (!list_empty(&sandbox->containers))
        container_drop(CONTAINER_OF(sandbox->containers.next, struct container, link));
    sandbox->deleting = true;
    state_delete(sandbox->node->state, STATE_SANDBOX, sandbox->record->id, sandbox_on_record_deleted, sandbox);
}

void sandbox_remove(struct sandbox *sandbox, struct rpc_call *call)
{
    waiter_add(&sandbox->waiters, WAIT_REMOVED, call, sandbox->node->loop, 0, NULL, NULL);
    if (sandbox->abandoned || sandbox_phase(sandbox) == INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY)
        pod_network_remove(sandbox);
    if (sandbox->removing)
        return;
    sandbox->removing = true;
    if (sandbox_phase(sandbox) == INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY)
        sandbox_finish_removal(sandbox);
    else
        sandbox_begin_stop(sandbox);
}

/* ---- its network's side ---- */

void sandbox_on_network_made(struct sandbox *sandbox)
{
    if (sandbox->job != NULL && !sandbox->stopping)
        interlink_job_submit(sandbox->job);
}

void sandbox_on_network_up(struct sandbox *sandbox)
{
    sandbox_put(sandbox, NULL);
    if (sandbox->link != NULL)
        link_configure(sandbox->link);
}

void sandbox_on_network_failed(struct sandbox *sandbox, const struct status *err)
{
    sandbox_give_up(sandbox, err, false);
}

void sandbox_on_network_removed(struct sandbox *sandbox, const struct status *err)
{
    if (err != NULL) {
        waiters_fail(&sandbox->waiters, WAIT_STOPPED, err);
        waiters_fail(&sandbox->waiters, WAIT_REMOVED, err);
    } else if (sandbox->abandoned) {
        struct status gone = STATUS_INIT;
        status_set(&gone, STATUS_UNAVAILABLE, "%s", sandbox->queue_words);
        sandbox_abandon(sandbox, &gone);
    } else {
        sandbox_put(sandbox, NULL);
        sandbox_check_stopped(sandbox);
    }
}
