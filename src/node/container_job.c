/* SPDX-License-Identifier: Apache-2.0 */
#include "node/container_job_internal.h"

#include <signal.h>

#include "image/store.h"
#include "interlink/interlink.h"
#include "node/container_job_log.h"
#include "node/container_job_pod.h"
#include "node/job_size.h"
#include "agent/logfile.h"
#include "node/sandbox.h"
#include "node/waiter.h"
#include "rpc/pb.h"

static void container_job_on_request(void *arg, const struct status *err, struct buf *output);
static const struct interlink_job_events container_job_events;

static struct container_job *container_job_of(struct container *container)
{
    if (container->job == NULL) {
        container->job = xcalloc(1, sizeof *container->job);
        container->job->container = container;
        container->job->words = xstrdup("");
    }
    return container->job;
}

void container_job_free(struct container_job *job)
{
    if (job == NULL)
        return;
    if (job->creating != NULL)
        rpc_failf(job->creating, STATUS_ABORTED, "the pod was stopped while the container was being created");
    worker_cancel(&job->writer);
    timer_stop(&job->hold);
    timer_stop(&job->patience);
    container_job_log_free(job->log);
    container_inside_free(job);
    interlink_job_free(job->job);
    buf_free(&job->request);
    free(job->words);
    free(job);
}

bool container_job_held(const struct container *container)
{
    return container->record->job_wanted || (container->job != NULL && container->job->job != NULL);
}

const char *container_job_words(const struct container *container)
{
    return container->job != NULL ? container->job->words : "";
}

/* Takes the words. A container that runs only as far as kubelet is told shows them as its message. */
static void container_job_say(struct container_job *job, char *words)
{
    free(job->words);
    job->words = words;
    if (job->container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING)
        pb_set(&job->container->record->message, words);
}

static const char *container_job_name(const struct container *container)
{
    return *container->record->job_id != '\0' ? container->record->job_id : container->record->job_uid;
}

/* ---- create ---- */

struct container_job_writing {
    const struct container *container;
    const struct image_config *image;
};

static bool container_job_work(void *arg, struct buf *output, struct status *err)
{
    const struct container_job_writing *w = arg;

    return container_job_write(w->container, w->image, output, err);
}

static bool container_job_prepare(struct container *container, const struct image_config *image, struct status *err)
{
    struct container_job *job = container_job_of(container);
    struct container_job_writing writing = { container, image };

    return worker_start(container->node->loop, &job->writer, container_job_work, &writing, container_job_on_request, container, err);
}

bool container_job_read_image(const struct container *container, struct image_config *out, struct status *err)
{
    struct image_store *images = container->node->images;
    const struct image *image = image_store_held(images, container->record->image_id);
    cleanup_buf struct buf text = BUF_INIT;

    if (image == NULL)
        return status_set(err, STATUS_NOT_FOUND, "image %s is not on this node any more", container->record->image_id);
    return image_store_read_config_text(images, image, &text, err) &&
           image_config_parse((struct str){ (const char *)text.p, text.n }, out, err);
}

static bool container_job_prepare_again(struct container *container, struct status *err)
{
    struct image_config config = { .arena = ARENA_INIT };

    if (!container_job_read_image(container, &config, err))
        return false;
    bool ok = container_job_prepare(container, &config, err);
    image_config_free(&config);
    return ok;
}

static void container_job_creation_failed(struct container *container, const struct status *err)
{
    struct rpc_call *call = container->job->creating;

    container->job->creating = NULL;
    container_drop(container);
    if (call != NULL)
        rpc_fail(call, err);
}

static void container_job_on_created(void *arg, const struct status *err)
{
    struct container *container = arg;
    struct container_job *job = container->job;
    struct rpc_call *call = job->creating;
    Runtime__V1__CreateContainerResponse response = RUNTIME__V1__CREATE_CONTAINER_RESPONSE__INIT;
    struct status gone = STATUS_INIT;

    if (err == NULL && call == NULL)
        status_set(&gone, STATUS_CANCELLED, "the client has gone");
    if (err != NULL || call == NULL) {
        container_job_creation_failed(container, err != NULL ? err : &gone);
        return;
    }
    job->creating = NULL;
    job->created = true;
    container->creating = false;
    container_changed(container);
    announce_container(container, announced_container_phase((int)container->record->phase));
    response.container_id = container->record->id;
    rpc_reply(call, &response.base);
}

static void container_job_on_create_cancelled(void *arg)
{
    ((struct container_job *)arg)->creating = NULL;
}

/* kubelet has given an attempt up whose start it did not see end well, and never comes back to it. */
static void container_job_drop_older(struct sandbox *sandbox, const Runtime__V1__ContainerMetadata *metadata)
{
    for (LIST_EACH(struct container, c, &sandbox->containers, link)) {
        const Runtime__V1__ContainerMetadata *m = c->record->config->metadata;
        if (m->attempt >= metadata->attempt || strcmp(m->name, metadata->name) != 0 || !container_job_held(c) ||
            c->record->phase != INTERLINK__STATE__V1__CONTAINER_PHASE__CREATED)
            continue;
        log_info("container %.13s: %s was created anew before this attempt had started: its job is cancelled", c->record->id, m->name);
        container_job_end(c, 0);
    }
}

void container_job_create(struct sandbox *sandbox, struct rpc_call *call, Interlink__State__V1__Container *record,
                          const struct image_config *image)
{
    struct status err = STATUS_INIT;
    cleanup_buf struct buf note = BUF_INIT;
    char uid[UUID_LENGTH + 1], token[ID_LENGTH + 1];

    record->size = job_size_choose_container(sandbox->record->config, record->config, &sandbox->node->options->size, &err);
    if (record->size == NULL || !container_job_check(sandbox, record->config, &note, &err)) {
        protobuf_c_message_free_unpacked(&record->base, NULL);
        rpc_fail(call, &err);
        return;
    }
    container_job_drop_older(sandbox, record->config->metadata);
    if (sandbox->handler->inside) {
        random_id(token); /* 256 bits */
        pb_set(&record->token, token);
    }
    uuid_of_id(record->id, uid);
    pb_set(&record->job_uid, uid);
    pb_set(&record->note, buf_cstr(&note));
    struct container *container = container_new(sandbox, record);
    container->creating = true;
    container_hold_images(container);
    struct container_job *job = container_job_of(container);
    job->creating = call;
    rpc_call_on_cancel(call, container_job_on_create_cancelled, job);
    if (!container_job_prepare(container, image, &err))
        container_job_creation_failed(container, &err);
}

/* ---- start ---- */

void container_job_start_failed(struct container *container, const struct status *err)
{
    container->starting = container->job->starting = false;
    timer_stop(&container->job->hold);
    waiters_fail(&container->waiters, WAIT_READY, err);
}

static void container_job_on_running_recorded(void *arg, const struct status *err)
{
    struct container *container = arg;

    if (container->job->starting && err != NULL)
        container_job_start_failed(container, err);
    container->starting = container->job->starting = false;
    announce_container(container, ANNOUNCED_STARTED);
    waiters_reply(&container->waiters, WAIT_READY, "", 0);
}

void container_job_running(struct container *container, int64_t started_ns)
{
    Interlink__State__V1__Container *record = container->record;
    bool created = record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__CREATED;
    bool newer = started_ns != 0 && record->started_at != started_ns;

    timer_stop(&container->job->hold);
    if (record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED || (!created && !container->job->starting && !newer))
        return;
    if (created || newer) {
        record->started_at = started_ns != 0 ? started_ns : clock_real_ns();
        pb_set(&record->message, started_ns != 0 ? "" : container->job->words);
    }
    if (created)
        container_move(container, INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING);
    container_put(container, container_job_on_running_recorded, container);
}

static void container_job_on_hold_over(void *arg)
{
    container_job_running(arg, 0);
}

/* Nothing of it is at the site. */
static void container_job_forget(struct container *container)
{
    struct container_job *job = container->job;

    interlink_job_free(job->job);
    job->job = NULL;
    job->cancelled = false;
    container->record->job_wanted = container->record->submitted = false;
    container_put(container, NULL, NULL); /* after a crash a deletion is asked for once more, which does no harm */
}

static void container_job_submit(struct container *container)
{
    struct container_job *job = container->job;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct interlink_create create;
    struct status err = STATUS_INIT;

    if (!interlink_create_read(&arena, (struct str){ (const char *)job->request.p, job->request.n }, &create, &err)) {
        container_job_forget(container);
        container_job_start_failed(container, &err);
        return;
    }
    job->job = interlink_job_new(container->sandbox->handler->target, &create, &container_job_events, container);
    buf_free(&job->request);
    container_job_say(job, xstrdup("its job is being submitted"));
    interlink_job_submit(job->job);
}

static void container_job_gone(struct container *container);

static void container_job_on_wanted(void *arg, const struct status *err)
{
    struct container *container = arg;
    struct status stopped = STATUS_INIT;

    if (err == NULL && !container->job->ending) {
        container_job_submit(container);
        return;
    }
    status_set(&stopped, STATUS_ABORTED, "the container was stopped before it had started");
    container_job_start_failed(container, err != NULL ? err : &stopped);
    container->record->job_wanted = false;
    if (container->job->ending)
        container_job_gone(container);
}

/* On disk before the API hears of it: a job must never exist that nobody remembers. */
static void container_job_want(struct container *container)
{
    container->record->job_wanted = true;
    container->record->submitted = false;
    container->record->submitted_at = clock_real_ns();
    container_put(container, container_job_on_wanted, container);
}

static void container_job_on_request(void *arg, const struct status *err, struct buf *output)
{
    struct container *container = arg;
    struct container_job *job = container->job;

    if (err == NULL) {
        buf_clear(&job->request);
        buf_append(&job->request, output->p, output->n);
    }
    if (job->created && err != NULL)
        container_job_start_failed(container, err);
    else if (job->created)
        container_job_want(container);
    else if (err != NULL)
        container_job_creation_failed(container, err);
    else
        container_put(container, container_job_on_created, container);
}

/* An earlier attempt whose job is not gone yet; NULL when there is none. */
static const struct container *container_job_older(const struct container *container)
{
    const Runtime__V1__ContainerMetadata *m = container->record->config->metadata;

    for (LIST_EACH(struct container, c, &container->sandbox->containers, link))
        if (c != container && c->record->phase != INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED && container_job_held(c) &&
            strcmp(c->record->config->metadata->name, m->name) == 0)
            return c;
    return NULL;
}

static void container_job_start(struct container *container, struct rpc_call *call)
{
    struct container_job *job = container_job_of(container);
    const struct container *older = container_job_older(container);
    struct status err = STATUS_INIT;

    if (!container_check_start(container, &err) || !sandbox_check_ready(container->sandbox, &err) ||
        !container_open_log(container, &err)) {
        rpc_fail(call, &err);
        return;
    }
    if (job->ending || older != NULL) {
        rpc_failf(call, STATUS_UNAVAILABLE, "the job of %s is being cancelled: try again",
                  older != NULL ? "an earlier attempt" : "this container");
        return;
    }
    waiter_add(&container->waiters, WAIT_READY, call, container->node->loop, 0, NULL, NULL);
    if (job->starting || container_job_held(container))
        return; /* this call joins */
    container->starting = job->starting = true;
    if (container->sandbox->handler->inside && container_inside_take_over(container))
        return;
    if (job->request.n > 0)
        container_job_want(container);
    else if (!container_job_prepare_again(container, &err))
        container_job_start_failed(container, &err);
}

/* ---- what the site says ---- */

static void container_job_on_submitted(void *arg, const char *jid)
{
    struct container *container = arg;
    struct container_job *job = container->job;

    container->record->submitted = true;
    pb_set(&container->record->job_id, jid);
    log_info("container %.13s: job %s", container->record->id, container_job_name(container));
    container_job_say(job, xasprintf("job %s has been submitted and waits for its turn", container_job_name(container)));
    container_put(container, NULL, NULL);
    timer_start(container->node->loop, &job->hold, container->node->options->queue_hold_ms, container_job_on_hold_over, container);
}

static void container_job_on_rejected(void *arg, const struct status *err)
{
    struct container *container = arg;
    struct status wrapped = *err;

    status_prefix(&wrapped, "handler %s did not take the container", container->sandbox->handler->options->name);
    log_warn("container %.13s: %s", container->record->id, wrapped.message);
    container_job_say(container->job, xstrdup(wrapped.message));
    container_job_forget(container);
    container_job_start_failed(container, &wrapped);
}

/* It has ended there: its output first, then the end. */
static void container_job_ended(struct container *container, const struct interlink_job_state *state)
{
    Interlink__Agent__V1__ContainerState end = INTERLINK__AGENT__V1__CONTAINER_STATE__INIT;

    container_job_running(container, state->started_ns != 0 ? state->started_ns : container->record->started_at);
    end.phase = INTERLINK__AGENT__V1__CONTAINER_PHASE__EXITED;
    end.exit_code = state->exit_code;
    end.reason = (char *)(uintptr_t)(*state->reason != '\0' ? state->reason : state->exit_code == 0 ? "Completed" : "Error");
    end.message = (char *)(uintptr_t)state->message;
    end.started_at = container->record->started_at;
    end.finished_at = state->finished_ns;
    end.log_end = UINT64_MAX; /* nobody says how much it is */
    container_on_state(container, &end);
}

static void container_job_on_waiting(struct container *container, const struct interlink_job_state *state)
{
    container_job_say(container->job, xasprintf("job %s is queued%s%s%s%s", container_job_name(container),
                                                *state->reason != '\0' ? ": " : "", state->reason,
                                                *state->message != '\0' ? ", " : "", state->message));
}

static void container_job_on_state(void *arg, const struct interlink_job_state *state)
{
    struct container *container = arg;

    if (*state->jid != '\0')
        pb_set(&container->record->job_id, state->jid);
    switch (state->phase) {
    case INTERLINK_WAITING:
        container_job_on_waiting(container, state);
        break;
    case INTERLINK_RUNNING:
        if (container->sandbox->handler->inside) { /* it runs when its agent says so */
            if (container->job->link == NULL)
                container_job_say(container->job, xasprintf("job %s has started; its agent has not called in yet",
                                                            container_job_name(container)));
            break;
        }
        container_job_say(container->job, xstrdup(""));
        container_job_running(container, state->started_ns != 0 ? state->started_ns : clock_real_ns());
        container_follow_log(container);
        break;
    case INTERLINK_TERMINATED:
        if (container->exit == NULL && container->record->phase != INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED)
            container_job_ended(container, state);
        break;
    case INTERLINK_GONE:
        container_job_running(container, 0);
        container_on_lost(container, "the site no longer knows the container's job");
        container_job_end(container, 0); /* what may be left of it */
        break;
    case INTERLINK_UNKNOWN:
        container_job_say(container->job, xasprintf("the site cannot say how job %s is: %s", container_job_name(container),
                                                    state->message));
        break;
    }
}

/* The stock plugin reports a job whose nodes are being booted as one that has succeeded; its batch script knows. */
static void container_job_on_doubt(void *arg)
{
    struct container *container = arg;
    struct container_job *job = container->job;

    if (container->sandbox->handler->inside)
        return;
    if (job->log == NULL)
        job->log = container_job_log_new(container);
    container_job_log_probe(job->log);
}

static const struct interlink_job_events container_job_events = {
    .on_doubt = container_job_on_doubt,
    .on_submitted = container_job_on_submitted,
    .on_rejected = container_job_on_rejected,
    .on_state = container_job_on_state,
};

/* ---- its output ---- */

static void container_job_on_log_room(void *arg)
{
    struct container *container = arg;

    if (container->job != NULL && container->job->log != NULL)
        container_job_log_resume(container->job->log);
}

static void container_job_follow_log(struct container *container)
{
    struct container_job *job = container_job_of(container);
    bool ended = container->exit != NULL || container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED;

    /* An agent's lines and those of /getLogs are not the same bytes: where the agent has told some, it alone counts. */
    if (container->sandbox->handler->inside && (job->link != NULL || logfile_stored(container->log) > 0 || !ended)) {
        container_inside_follow_log(container);
        return;
    }
    if (job->log == NULL)
        job->log = container_job_log_new(container);
    if (ended || job->ending)
        container_job_log_last(job->log);
    else
        container_job_log_follow(job->log);
}

/* ---- the end ---- */

/* Its deletion is confirmed, or it never came to be. */
static void container_job_gone(struct container *container)
{
    struct container_job *job = container->job;
    struct sandbox *sandbox = container->sandbox;
    struct status err = STATUS_INIT;

    job->ending = false;
    container_job_forget(container);
    status_set(&err, STATUS_ABORTED, "the container was stopped before it had started");
    if (container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__CREATED)
        container_job_start_failed(container, &err); /* else the start is answered when that is on disk */
    if (container->record->phase != INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED)
        container_on_cancelled(container, 128 + (job->grace_s > 0 ? SIGTERM : SIGKILL),
                               "its job was cancelled; sites do not say how such a job ended");
    container_job_log_free(job->log);
    job->log = NULL;
    if (container->removing)
        container_forget(container);
    sandbox_on_container_job_gone(sandbox);
}

static void container_job_on_cancelled(void *arg)
{
    container_job_gone(arg);
}

static void container_job_on_cancel_retry(void *arg, const struct status *err)
{
    struct container *container = arg;
    struct status wrapped = *err;

    status_prefix(&wrapped, "the job of container %.13s cannot be cancelled yet (it is tried again)", container->record->id);
    log_warn("%s", wrapped.message);
    waiters_fail(&container->waiters, WAIT_STOPPED, &wrapped);
    waiters_fail(&container->waiters, WAIT_REMOVED, &wrapped);
    sandbox_on_container_job_stays(container->sandbox, &wrapped);
}

void container_job_delete(void *arg)
{
    struct container *container = arg;
    struct container_job *job = container->job;

    timer_stop(&job->patience);
    if (job->job == NULL || job->cancelled)
        return; /* container_job_on_wanted() goes on; or it is under way */
    if (!job->farewell && container_inside_shutdown(container)) {
        job->farewell = true;
        timer_start(container->node->loop, &job->patience, CONTAINER_JOB_STOP_LOG_MS, container_job_delete, container);
        return;
    }
    job->cancelled = true;
    interlink_job_cancel(job->job, job->grace_s, container_job_on_cancelled, container_job_on_cancel_retry, container);
}

/* The job goes, once what the container has written so far is stored. */
void container_job_end(struct container *container, int64_t grace_s)
{
    struct container_job *job = container_job_of(container);
    bool output = job->log != NULL && container->log != NULL && !logfile_ended(container->log) && !container->record->log_done;

    if (!container_job_held(container))
        return;
    if (!job->ending || grace_s < job->grace_s)
        job->grace_s = grace_s;
    if (job->ending)
        return;
    job->ending = true;
    if (!output) {
        container_job_delete(container);
        return;
    }
    container_job_log_last(job->log);
    timer_start(container->node->loop, &job->patience, CONTAINER_JOB_STOP_LOG_MS, container_job_delete, container);
}

static void container_job_on_linger_over(void *arg)
{
    container_job_end(arg, 0);
}

/* All output is stored. */
static void container_job_on_log_over(struct container *container)
{
    struct container_job *job = container->job;

    if (job == NULL)
        return;
    if (job->ending && !job->farewell) /* else it is deleted when the agent has gone */
        container_job_delete(container);
    else if (!job->ending && job->link != NULL && !job->stopped && container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED)
        timer_start(container->node->loop, &job->patience, CONTAINER_JOB_LINGER_MS, container_job_on_linger_over, container);
    else if (!job->ending && container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED)
        container_job_end(container, 0); /* the site need not keep its files any longer */
}

static void container_job_stop(struct container *container, struct rpc_call *call, int64_t timeout_s)
{
    if (container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED || !container_job_held(container)) {
        rpc_reply_packed(call, "", 0);
        return;
    }
    container->job->stopped = true;
    if (container->job->link != NULL && container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING && !container->job->ending) {
        container_stop_by_agent(container, call, timeout_s);
        return;
    }
    waiter_add(&container->waiters, WAIT_STOPPED, call, container->node->loop, 0, NULL, NULL);
    if (container->exit == NULL) /* else it has ended already, and its output is on the way */
        container_job_end(container, timeout_s > 0 ? timeout_s : 0);
}

static void container_job_remove(struct container *container, struct rpc_call *call)
{
    waiter_add(&container->waiters, WAIT_REMOVED, call, container->node->loop, 0, NULL, NULL);
    if (container->removing)
        return;
    container->removing = true;
    if (container_job_held(container))
        container_job_end(container, 0);
    else
        container_forget(container);
}

void container_job_cancel(struct container *container)
{
    container_job_end(container, 0);
}

/* ---- after a restart ---- */

/* By a later attempt, of which this one's record does not tell yet. */
static bool container_job_was_taken(const struct container *container)
{
    const Interlink__State__V1__Container *record = container->record;

    for (LIST_EACH(struct container, c, &container->sandbox->containers, link))
        if (c != container && c->record->job_wanted && strcmp(c->record->job_uid, record->job_uid) == 0 &&
            record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED && c->record->created_at > record->created_at)
            return true;
    return false;
}

struct container *container_job_by_agent(struct node *node, const char *id)
{
    struct strmap_iter it = { 0 };

    while (strmap_next(&node->containers, &it)) {
        struct container *container = it.value;
        if (strcmp(container->record->agent_id, id) == 0 && container_job_held(container))
            return container;
    }
    return strmap_get(&node->containers, id);
}

void container_job_adopt(struct container *container)
{
    const Interlink__State__V1__Container *record = container->record;
    struct container_job *job = container_job_of(container);
    cleanup_arena struct arena arena = ARENA_INIT;
    struct interlink_create create;
    struct status err = STATUS_INIT;
    int64_t age_ms = (clock_real_ns() - record->submitted_at) / 1000000;

    job->created = true;
    if (container_job_was_taken(container)) {
        container_job_forget(container);
        return;
    }
    if (!record->job_wanted || !container_job_fill(&arena, container, NULL, &create, &err))
        return;
    job->job = interlink_job_new(container->sandbox->handler->target, &create, &container_job_events, container);
    interlink_job_adopt(job->job, record->job_id, record->submitted, age_ms > 0 ? age_ms : 0);
    container_job_say(job, record->submitted ? xasprintf("job %s has been submitted", container_job_name(container))
                                             : xstrdup("serve was restarted while its job was being submitted: the site is asked "
                                                       "whether it has it"));
    if (record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED && record->log_done)
        container_job_end(container, 0);
    else if (record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED)
        container_follow_log(container);
}

/* ---- the backend ---- */

static struct link *container_job_link(struct container *container, struct status *err)
{
    if (container->sandbox->handler->inside)
        return container_inside_link(container, err);
    status_set(err, STATUS_UNIMPLEMENTED,
               "container %.13s is a job of its own (JobPer: container), and interLink can only start, watch and stop it: exec, attach, "
               "port-forward, statistics and new limits need JobPer: pod for handler %s, or Program and Relay.Listen, with which an "
               "agent runs inside the container",
               container->record->id, container->sandbox->handler->options->name);
    return NULL;
}

const struct container_backend container_backend_job = {
    .start = container_job_start,
    .stop = container_job_stop,
    .remove = container_job_remove,
    .follow_log = container_job_follow_log,
    .on_log_over = container_job_on_log_over,
    .on_log_room = container_job_on_log_room,
    .link = container_job_link,
    .drain_ms = CONTAINER_JOB_DRAIN_MS,
};
