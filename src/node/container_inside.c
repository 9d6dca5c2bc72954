/* SPDX-License-Identifier: Apache-2.0 */
#include "node/container_job_internal.h"

#include "node/container_job_pod.h"
#include "node/link.h"
#include "agent/logfile.h"
#include "node/sandbox.h"
#include "rpc/pb.h"

/* The agent answers these at once; the command is a process of its own. */
#define CONTAINER_INSIDE_CALL_MS 30000

/* One call to the agent. The container may be gone when it is answered. */
struct container_inside_call {
    struct node *node;
    char id[ID_LENGTH + 1];
};

static struct container_inside_call *container_inside_call_new(const struct container *container)
{
    struct container_inside_call *call = xcalloc(1, sizeof *call);

    call->node = container->node;
    memcpy(call->id, container->record->id, sizeof call->id);
    return call;
}

/* Frees the call. NULL: there is nobody any more to whom the answer matters. */
static struct container *container_inside_call_end(struct container_inside_call *call)
{
    struct container *container = strmap_get(&call->node->containers, call->id);

    free(call);
    return container != NULL && container->job != NULL && container->job->link != NULL ? container : NULL;
}

/* The command cannot be run: its start fails, or, when that was answered already because of the queue, the container ends. */
static void container_inside_failed(struct container *container, const struct status *err)
{
    log_warn("container %.13s: %s", container->record->id, err->message);
    if (container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__CREATED)
        container_job_start_failed(container, err);
    else
        container_on_cancelled(container, 128, err->message);
    container_job_end(container, 0);
}

/* ---- create and start ---- */

static void container_inside_on_started(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct container *container = container_inside_call_end(arg);
    const Interlink__Agent__V1__StartContainerResponse *started = (const void *)response;

    /* Without a word of the agent's it is asked again when it calls again. */
    if (container == NULL || status->code == STATUS_UNAVAILABLE || status->code == STATUS_DEADLINE_EXCEEDED)
        return;
    if (status->code != STATUS_OK) {
        container_inside_failed(container, status);
        return;
    }
    container_set_created(container, started->created);
    container_job_running(container, started->started_at);
    container_follow_log(container);
}

static void container_inside_start(struct container *container)
{
    Interlink__Agent__V1__StartContainerRequest request = INTERLINK__AGENT__V1__START_CONTAINER_REQUEST__INIT;

    request.id = container->record->id;
    rpc_unary(link_conn(container->job->link), "/interlink.agent.v1.Agent/StartContainer", &request.base,
              &interlink__agent__v1__start_container_response__descriptor, CONTAINER_INSIDE_CALL_MS, container_inside_on_started,
              container_inside_call_new(container));
}

static void container_inside_on_created(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct container *container = container_inside_call_end(arg);

    if (container == NULL || status->code == STATUS_UNAVAILABLE || status->code == STATUS_DEADLINE_EXCEEDED)
        return;
    if (status->code != STATUS_OK) {
        container_inside_failed(container, status);
        return;
    }
    container_set_created(container, (const void *)response);
    container_inside_start(container);
}

static void container_inside_create(struct container *container)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct image_config image = { .arena = ARENA_INIT };
    Runtime__V1__ContainerConfig config;
    Interlink__Agent__V1__CreateContainerRequest request = INTERLINK__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    struct status err = STATUS_INIT;

    if (!container_job_read_image(container, &image, &err)) {
        container_inside_failed(container, &err);
        return;
    }
    bool ok = container_job_inside(&arena, container, &image, &config, &err);
    image_config_free(&image);
    if (!ok) {
        container_inside_failed(container, &err);
        return;
    }
    request.id = container->record->id;
    request.config = &config;
    rpc_unary(link_conn(container->job->link), "/interlink.agent.v1.Agent/CreateContainer", &request.base,
              &interlink__agent__v1__create_container_response__descriptor, CONTAINER_INSIDE_CALL_MS, container_inside_on_created,
              container_inside_call_new(container));
}

/* ---- another attempt in the same job ---- */

static struct container *container_inside_idle(const struct container *container)
{
    const Interlink__State__V1__Container *record = container->record;

    for (LIST_EACH(struct container, c, &container->sandbox->containers, link))
        if (c != container && c->job != NULL && c->job->link != NULL && link_ready(c->job->link) && c->job->job != NULL &&
            !c->job->ending && c->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED &&
            strcmp(c->record->config->metadata->name, record->config->metadata->name) == 0 &&
            strcmp(c->record->image_id, record->image_id) == 0)
            return c;
    return NULL;
}

static void container_inside_on_taken(void *arg, const struct status *err)
{
    struct container *container = arg;

    if (err != NULL)
        container_inside_failed(container, err);
    else if (container->job->link != NULL && link_ready(container->job->link))
        container_inside_create(container); /* else when the agent calls again */
}

bool container_inside_take_over(struct container *container)
{
    struct container *old = container_inside_idle(container);
    Interlink__State__V1__Container *record = container->record;
    struct container_job *job = container->job;

    if (old == NULL)
        return false;
    log_info("container %.13s: goes on in the job of attempt %.13s", record->id, old->record->id);
    timer_stop(&old->job->patience);
    pb_set(&record->job_uid, old->record->job_uid);
    pb_set(&record->job_id, old->record->job_id);
    pb_set(&record->token, old->record->token);
    pb_set(&record->agent_id, *old->record->agent_id != '\0' ? old->record->agent_id : old->record->id);
    record->submitted_at = old->record->submitted_at;
    record->job_wanted = record->submitted = true;
    buf_free(&job->request);
    job->job = old->job->job;
    job->link = old->job->link;
    old->job->job = NULL;
    old->job->link = NULL;
    interlink_job_give(job->job, container);
    link_give(job->link, container);
    /* In this order: the job is never without somebody who remembers it. */
    container_put(container, container_inside_on_taken, container);
    old->record->job_wanted = old->record->submitted = false;
    container_put(old, NULL, NULL);
    return true;
}

/* ---- the link ---- */

static void container_inside_on_ready(void *arg, const Interlink__Agent__V1__HelloResponse *hello)
{
    struct container *container = arg;
    const Interlink__Agent__V1__ContainerState *state = NULL;

    for (size_t i = 0; i < hello->n_containers; i++)
        if (strcmp(hello->containers[i]->id, container->record->id) == 0)
            state = hello->containers[i];
    if (container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED) {
        container_follow_log(container);
    } else if (state == NULL) {
        container_inside_create(container);
    } else if (state->phase == INTERLINK__AGENT__V1__CONTAINER_PHASE__CREATED) {
        container_inside_start(container);
    } else {
        container_job_running(container, state->started_at);
        container_on_state(container, state);
        container_follow_log(container);
    }
}

static void container_inside_on_refused(void *arg, const struct status *err)
{
    container_inside_failed(arg, err);
}

static void container_inside_on_lost(void *arg, const struct status *err)
{
    struct container *container = arg;
    struct link *link = container->job->link;

    log_info("container %.13s: its agent's connection ended (%s); it will call again if it lives", container->record->id, err->message);
    container_unfollow_log(container);
    container->job->link = NULL;
    link_free(link);
    if (container->job->ending && container->job->farewell)
        container_job_delete(container);
    else
        interlink_target_poll_soon(container->sandbox->handler->target);
}

static const struct link_owner container_inside_owner = { container_inside_on_ready, container_inside_on_refused,
                                                          container_inside_on_lost };

void container_job_attach(struct container *container, struct stream *stream, struct str early)
{
    struct status err = STATUS_INIT;

    if (container->job == NULL) {
        stream_free(stream);
        return;
    }
    if (container->job->link != NULL) {
        status_set(&err, STATUS_UNAVAILABLE, "a newer connection replaced it");
        container_inside_on_lost(container, &err);
    }
    container->job->link = link_new(container->sandbox, &container_inside_owner, container, stream, early);
    container->sandbox->handler->agent_connections++;
}

static void container_inside_on_shutdown(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    (void)response;
    free(arg);
    if (status->code != STATUS_OK)
        log_debug("an agent does not end by itself: %s", status->message);
}

bool container_inside_shutdown(struct container *container)
{
    Interlink__Agent__V1__ShutdownRequest request = INTERLINK__AGENT__V1__SHUTDOWN_REQUEST__INIT;
    struct link *link = container->job->link;

    if (link == NULL || !link_ready(link))
        return false;
    /* Its connection closes as it ends: container_inside_on_lost. */
    rpc_unary(link_conn(link), "/interlink.agent.v1.Agent/Shutdown", &request.base,
              &interlink__agent__v1__shutdown_response__descriptor, CONTAINER_INSIDE_CALL_MS, container_inside_on_shutdown,
              container_inside_call_new(container));
    return true;
}

struct link *container_inside_link(struct container *container, struct status *err)
{
    struct link *link = container->job != NULL ? container->job->link : NULL;

    if (link != NULL && link_ready(link))
        return link;
    status_set(err, STATUS_UNAVAILABLE, "the agent in container %.13s is not connected at the moment%s%s", container->record->id,
               *container_job_words(container) != '\0' ? ": " : "", container_job_words(container));
    return NULL;
}

struct link *container_job_any_link(struct sandbox *sandbox, struct status *err)
{
    struct status last = STATUS_INIT;

    for (LIST_EACH(struct container, c, &sandbox->containers, link)) {
        struct link *link = container_inside_link(c, &last);
        if (link != NULL && c->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING)
            return link;
    }
    status_set(err, STATUS_UNAVAILABLE, "no container of sandbox %.13s runs at the moment with its agent connected", sandbox->record->id);
    return NULL;
}

void container_inside_follow_log(struct container *container)
{
    struct link *link = container->job->link;

    if (link != NULL && link_ready(link))
        logfile_connect(container->log, link_conn(link));
    else if (link == NULL && container->exit != NULL) /* the job has ended, and the agent with it */
        logfile_take_end(container->log);
}

void container_inside_free(struct container_job *job)
{
    link_free(job->link);
    job->link = NULL;
}

#undef CONTAINER_INSIDE_CALL_MS
