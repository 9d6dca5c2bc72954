/* SPDX-License-Identifier: Apache-2.0 */
#include "node/container.h"

#include <signal.h>
#include <unistd.h>

#include "agent/image_volume.h"
#include "image/store.h"
#include "node/container_job.h"
#include "node/link.h"
#include "agent/logfile.h"
#include "node/counters.h"
#include "node/sandbox.h"
#include "node/volumes.h"
#include "node/waiter.h"
#include "rpc/pb.h"

/* An agent on a healthy link sends the last output at once. */
#define CONTAINER_DRAIN_MS 2000
/* ... and one that ended with its job until the site has said why: the agent's own end (AGENT_HANDOVER_MS, AGENT_REMOVE_MS), and
 * what a site's status may be late by. */
#define CONTAINER_JOB_END_MS 40000
/* What an agent on a healthy link answers at once. */
#define CONTAINER_CALL_TIMEOUT_MS 30000

#define CONTAINER_METHOD(name) "/interlink.agent.v1.Agent/" name

/* ---- the object ---- */

static const struct container_backend container_backend_agent;

static const struct container_backend *container_backend_of(const struct container *container)
{
    return container->sandbox->handler->per_container ? &container_backend_job : &container_backend_agent;
}

bool container_listed(const struct container *container)
{
    return !container->creating;
}

void container_changed(struct container *container)
{
    const Interlink__State__V1__Container *record = container->record;
    Runtime__V1__Container item = RUNTIME__V1__CONTAINER__INIT;

    lists_changed(container->node, LISTS_CONTAINERS);
    buf_clear(&container->item);
    if (!container_listed(container))
        return;
    item.id = record->id;
    item.pod_sandbox_id = record->sandbox_id;
    item.metadata = record->config->metadata;
    item.image = record->config->image;
    item.image_ref = record->image_id;
    item.image_id = record->image_id;
    item.state = (Runtime__V1__ContainerState)record->phase; /* CREATED, RUNNING, EXITED have the same numbers */
    item.created_at = record->created_at;
    item.n_labels = record->config->n_labels;
    item.labels = (Runtime__V1__Container__LabelsEntry **)(void *)record->config->labels;
    item.n_annotations = record->config->n_annotations;
    item.annotations = (Runtime__V1__Container__AnnotationsEntry **)(void *)record->config->annotations;
    pb_encode_item(&item.base, &container->item);
}

struct container *container_new(struct sandbox *sandbox, Interlink__State__V1__Container *record)
{
    struct container *container = xcalloc(1, sizeof *container);

    container->node = sandbox->node;
    container->sandbox = sandbox;
    container->record = record;
    list_init(&container->waiters);
    list_append(&sandbox->containers, &container->link);
    strmap_put(&container->node->containers, record->id, container);
    lists_add_container(container);
    return container;
}

void container_hold_images(struct container *container)
{
    const Interlink__State__V1__Container *record = container->record;
    struct image_store *images = container->node->images;
    struct status err = STATUS_INIT;

    if (!image_store_hold(images, record->image_id, record->id, &err))
        log_warn("container %.13s: its image %s: %s", record->id, record->image_id, err.message);
    for (size_t i = 0; i < record->config->n_mounts; i++) {
        const Runtime__V1__Mount *mount = record->config->mounts[i];
        if (image_volume_wanted(mount) && !image_store_hold(images, mount->image->image_ref, record->id, &err))
            log_warn("container %.13s: the image %s that it mounts: %s", record->id, mount->image->image_ref, err.message);
    }
}

static void container_close_log(struct container *container)
{
    deferred_stop(&container->log_over);
    logfile_free(container->log);
    container->log = NULL;
}

static void container_forget_exit(struct container *container)
{
    timer_stop(&container->exit_timer);
    if (container->exit != NULL)
        protobuf_c_message_free_unpacked(&container->exit->base, NULL);
    container->exit = NULL;
}

void container_free(struct container *container)
{
    struct status err = STATUS_INIT;

    status_set(&err, STATUS_NOT_FOUND, "container %.13s was removed meanwhile", container->record->id);
    waiters_fail(&container->waiters, WAIT_READY, &err);
    waiters_fail(&container->waiters, WAIT_STOPPED, &err);
    waiters_fail(&container->waiters, WAIT_REMOVED, &err);
    container_job_free(container->job);
    state_forget(container->node->state, container);
    timer_stop(&container->kill_timer);
    container_forget_exit(container);
    container_close_log(container);
    list_remove(&container->link);
    volumes_follow(container->sandbox);
    strmap_remove(&container->node->containers, container->record->id);
    lists_remove_container(container);
    image_store_release(container->node->images, container->record->id);
    buf_free(&container->item);
    buf_free(&container->stats_item);
    protobuf_c_message_free_unpacked(&container->record->base, NULL);
    free(container);
}

static char *container_position_path(const struct container *container)
{
    return xasprintf("%s/logs/%s", container->node->options->state_dir, container->record->id);
}

void container_drop(struct container *container)
{
    cleanup_free char *position = container_position_path(container);

    state_delete(container->node->state, STATE_CONTAINER, container->record->id, NULL, NULL);
    unlink(position);
    announce_container_deleted(container);
    waiters_reply(&container->waiters, WAIT_STOPPED, "", 0);
    waiters_reply(&container->waiters, WAIT_REMOVED, "", 0);
    container_free(container);
}

void container_put(struct container *container, void (*on_done)(void *arg, const struct status *err), void *arg)
{
    state_put(container->node->state, STATE_CONTAINER, container->record->id, &container->record->base, on_done, arg);
}

void container_set_created(struct container *container, const Interlink__Agent__V1__CreateContainerResponse *created)
{
    Interlink__State__V1__Container *record = container->record;
    Runtime__V1__LinuxContainerUser user = RUNTIME__V1__LINUX_CONTAINER_USER__INIT;

    if (created == NULL)
        return;
    user.uid = created->uid;
    user.gid = created->gid;
    user.supplemental_groups = created->groups;
    user.n_supplemental_groups = created->n_groups;
    if (record->user != NULL)
        protobuf_c_message_free_unpacked(&record->user->base, NULL);
    record->user = (void *)pb_copy(&user.base);
    pb_set(&record->note, created->note);
    if (record->phase != INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED) /* whose message is about its end */
        pb_set(&record->message, created->note);
}

bool container_move(struct container *container, Interlink__State__V1__ContainerPhase to)
{
    Interlink__State__V1__ContainerPhase from = container->record->phase;

    if (to <= from) {
        log_error("container %.13s: the move from phase %d to %d was refused", container->record->id, (int)from,
                  (int)to);
        return false;
    }
    container->record->phase = to;
    container_changed(container);
    return true;
}

/* What the move was is durable, or could not be made so: it is true and in the lists all the same. */
static void container_on_run_recorded(void *arg, const struct status *err)
{
    (void)err;
    announce_container(arg, ANNOUNCED_STARTED);
}

static void container_on_exit_recorded(void *arg, const struct status *err)
{
    (void)err;
    announce_container(arg, ANNOUNCED_STOPPED);
}

/* ---- its log ---- */

static void container_on_log_over(void *arg)
{
    struct container *container = arg;

    container->record->log_done = true;
    container_close_log(container);
    if (container->exit != NULL && !container->exit->with_job)
        container_apply_exit(container);
    else if (container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED)
        container_put(container, NULL, NULL);
    if (container_backend_of(container)->on_log_over != NULL)
        container_backend_of(container)->on_log_over(container);
}

static void container_on_log_end(void *arg)
{
    struct container *container = arg;

    /* The log file itself is the caller here: it is closed from the loop. */
    deferred_start(container->node->loop, &container->log_over, container_on_log_over, container);
}

bool container_open_log(struct container *container, struct status *err)
{
    const Runtime__V1__PodSandboxConfig *sandbox = container->sandbox->record->config;
    const Runtime__V1__ContainerConfig *config = container->record->config;
    cleanup_free char *path = *sandbox->log_directory != '\0' && *config->log_path != '\0'
                                  ? xasprintf("%s/%s", sandbox->log_directory, config->log_path)
                                  : xstrdup("");
    cleanup_free char *position = container_position_path(container);
    struct logfile_options options = {
        .loop = container->node->loop,
        .container_id = container->record->id,
        .path = path,
        .position_path = position,
        .total = &container->node->counters->log_bytes,
        .on_end = container_on_log_end,
        .on_room = container_backend_of(container)->on_log_room,
        .arg = container,
    };

    if (container->log == NULL)
        container->log = logfile_new(&options, err);
    return container->log != NULL;
}

void container_follow_log(struct container *container)
{
    struct status err = STATUS_INIT;

    if (container->creating || container->record->log_done ||
        container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__CREATED)
        return;
    if (container_open_log(container, &err))
        container_backend_of(container)->follow_log(container);
    else
        log_error("container %.13s: %s; its output is not stored", container->record->id, err.message);
}

static void container_agent_follow_log(struct container *container)
{
    struct link *link = container->sandbox->link;

    if (link != NULL && link_ready(link))
        logfile_connect(container->log, link_conn(link));
}

void container_unfollow_log(struct container *container)
{
    if (container->log != NULL)
        logfile_connect(container->log, NULL);
}

/* ---- what the agent says ---- */

void container_apply_exit(struct container *container)
{
    Interlink__State__V1__Container *record = container->record;
    Interlink__Agent__V1__ContainerState *state = container->exit;

    container->exit = NULL;
    timer_stop(&container->exit_timer);
    timer_stop(&container->kill_timer);
    volumes_put_back(container, state);
    if (record->started_at == 0)
        record->started_at = state->started_at;
    record->finished_at = state->finished_at != 0 ? state->finished_at : clock_real_ns();
    record->exit_code = state->exit_code;
    pb_set(&record->reason, state->reason);
    pb_set(&record->message, state->message);
    protobuf_c_message_free_unpacked(&state->base, NULL);
    if (container_move(container, INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED))
        container_put(container, container_on_exit_recorded, container);
    volumes_follow(container->sandbox);
    waiters_reply(&container->waiters, WAIT_STOPPED, "", 0);
}

static void container_on_drained(void *arg)
{
    struct container *container = arg;

    if (container->exit != NULL)
        container_apply_exit(container);
}

static void container_on_running(struct container *container, int64_t started_at)
{
    if (container->record->phase != INTERLINK__STATE__V1__CONTAINER_PHASE__CREATED)
        return;
    container->record->started_at = started_at;
    if (container_move(container, INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING) && !container->starting)
        container_put(container, container_on_run_recorded, container);
}

void container_on_state(struct container *container, const Interlink__Agent__V1__ContainerState *state)
{
    if (container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED || container->exit != NULL)
        return;
    if (state->phase == INTERLINK__AGENT__V1__CONTAINER_PHASE__RUNNING) {
        container_on_running(container, state->started_at);
        return;
    }
    if (state->phase != INTERLINK__AGENT__V1__CONTAINER_PHASE__EXITED)
        return;
    if (container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__CREATED && state->started_at != 0)
        container_on_running(container, state->started_at);
    container->exit = (void *)pb_copy(&state->base);
    container_follow_log(container);
    if (state->with_job) {
        timer_start(container->node->loop, &container->exit_timer, CONTAINER_JOB_END_MS, container_on_drained, container);
        interlink_target_poll_soon(container->sandbox->handler->target);
        return;
    }
    /* What it wrote last should be in the log by the time kubelet sees that it has ended. */
    if (container->log != NULL && logfile_stored(container->log) < state->log_end)
        timer_start(container->node->loop, &container->exit_timer, container_backend_of(container)->drain_ms, container_on_drained,
                    container);
    else
        container_apply_exit(container);
}

/* The word of the site for the end of the job (TIMEOUT, PREEMPTED...), else Kubernetes' own. */
static const char *container_lost_reason(const struct container *container)
{
    const struct interlink_job *job = container->sandbox->job;
    const struct interlink_job_state *state = job != NULL ? interlink_job_state(job) : NULL;
    bool told = state != NULL && state->phase == INTERLINK_TERMINATED && *state->reason != '\0' &&
                strcmp(state->reason, "Completed") != 0;

    return told ? state->reason : "Error";
}

void container_on_lost(struct container *container, const char *message)
{
    container_on_cancelled(container, 128 + SIGKILL, message);
}

void container_on_cancelled(struct container *container, int exit_code, const char *message)
{
    Interlink__Agent__V1__ContainerState lost = INTERLINK__AGENT__V1__CONTAINER_STATE__INIT;

    if (container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__EXITED)
        return;
    if (container->exit == NULL) {
        lost.exit_code = exit_code;
        lost.reason = (char *)(uintptr_t)container_lost_reason(container);
        lost.message = (char *)(uintptr_t)message;
        lost.finished_at = clock_real_ns();
        container->exit = (void *)pb_copy(&lost.base);
    } else if (container->exit->with_job) {
        pb_set(&container->exit->reason, container_lost_reason(container));
        pb_set(&container->exit->message, message);
    }
    container_apply_exit(container);
    container_close_log(container);
}

/* ---- start ---- */

/* One StartContainer under way. */
struct container_starting {
    struct node *node;
    char id[ID_LENGTH + 1];
    struct rpc_call *call; /* NULL: its client has gone */
};

static void container_start_on_cancel(void *arg)
{
    ((struct container_starting *)arg)->call = NULL;
}

static void container_start_on_recorded(void *arg, const struct status *err)
{
    struct container_starting *starting = arg;
    struct container *container = strmap_get(&starting->node->containers, starting->id);

    if (container != NULL)
        announce_container(container, ANNOUNCED_STARTED);
    if (starting->call != NULL && err != NULL)
        rpc_fail(starting->call, err);
    else if (starting->call != NULL)
        rpc_reply_packed(starting->call, "", 0);
    free(starting);
}

static void container_start_on_done(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct container_starting *starting = arg;
    const Interlink__Agent__V1__StartContainerResponse *started = (const void *)response;
    struct container *container = strmap_get(&starting->node->containers, starting->id);

    if (container != NULL)
        container->starting = false;
    if (container == NULL || status->code != STATUS_OK) {
        /* The agent's event may have come though its answer did not. */
        if (container != NULL && container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING)
            container_put(container, container_on_run_recorded, container);
        if (starting->call != NULL && status->code != STATUS_OK)
            rpc_fail(starting->call, status);
        else if (starting->call != NULL)
            rpc_failf(starting->call, STATUS_NOT_FOUND, "container %.13s was removed meanwhile", starting->id);
        free(starting);
        return;
    }
    if (container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__CREATED) {
        container->record->started_at = started->started_at;
        container_move(container, INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING);
    }
    container_set_created(container, started->created);
    container_follow_log(container);
    container_put(container, container_start_on_recorded, starting);
}

bool container_check_start(const struct container *container, struct status *err)
{
    static const char *const phases[] = { "created", "running", "exited" };

    return container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__CREATED ||
           status_set(err, STATUS_FAILED_PRECONDITION, "container %.13s is %s and cannot be started", container->record->id,
                      phases[container->record->phase]);
}

static void container_agent_start(struct container *container, struct rpc_call *call)
{
    struct status err = STATUS_INIT;
    Interlink__Agent__V1__StartContainerRequest request = INTERLINK__AGENT__V1__START_CONTAINER_REQUEST__INIT;
    struct link *link = NULL;

    /* The log file before the container: one whose output cannot be kept is not started. */
    if (!container_check_start(container, &err) || (link = container_link(container, &err)) == NULL ||
        !container_open_log(container, &err)) {
        rpc_fail(call, &err);
        return;
    }
    struct container_starting *starting = xcalloc(1, sizeof *starting);
    starting->node = container->node;
    starting->call = call;
    memcpy(starting->id, container->record->id, sizeof starting->id);
    rpc_call_on_cancel(call, container_start_on_cancel, starting);
    container->starting = true;
    request.id = starting->id;
    rpc_unary(link_conn(link), CONTAINER_METHOD("StartContainer"), &request.base,
              &interlink__agent__v1__start_container_response__descriptor, 0, container_start_on_done, starting);
}

/* ---- stop ---- */

static void container_on_signalled(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    (void)arg;
    (void)response;
    if (status->code != STATUS_OK)
        log_warn("a container could not be signalled: %s", status->message);
}

static void container_signal(struct container *container, int number, bool all)
{
    struct status err = STATUS_INIT;
    struct link *link = container_link(container, &err);
    Interlink__Agent__V1__SignalContainerRequest request = INTERLINK__AGENT__V1__SIGNAL_CONTAINER_REQUEST__INIT;

    if (link == NULL)
        return;
    request.id = container->record->id;
    request.signal = number;
    request.all = all;
    rpc_unary(link_conn(link), CONTAINER_METHOD("SignalContainer"), &request.base,
              &interlink__agent__v1__signal_container_response__descriptor, CONTAINER_CALL_TIMEOUT_MS,
              container_on_signalled, NULL);
}

static void container_on_grace_over(void *arg)
{
    container_signal(arg, SIGKILL, true);
}

void container_stop_by_agent(struct container *container, struct rpc_call *call, int64_t timeout_s)
{
    struct status err = STATUS_INIT;

    if (container->record->phase != INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING) {
        rpc_reply_packed(call, "", 0);
        return;
    }
    if (container_link(container, &err) == NULL) {
        rpc_fail(call, &err);
        return;
    }
    waiter_add(&container->waiters, WAIT_STOPPED, call, container->node->loop, 0, NULL, NULL);
    if (timeout_s <= 0) {
        container_on_grace_over(container);
        return;
    }
    container_signal(container, container->record->stop_signal, false);
    /* A later stop with a shorter grace counts; a longer one does not lengthen the first. */
    int64_t grace_ms = timeout_s > INT32_MAX ? (int64_t)INT32_MAX * 1000 : timeout_s * 1000;
    if (!timer_running(&container->kill_timer) || container->kill_timer.due_ms > clock_mono_ms() + grace_ms)
        timer_start(container->node->loop, &container->kill_timer, grace_ms, container_on_grace_over, container);
}

/* ---- remove ---- */

struct container_removing {
    struct node *node;
    char id[ID_LENGTH + 1];
};

static void container_on_record_deleted(void *arg, const struct status *err)
{
    struct container *container = arg;
    cleanup_free char *position = container_position_path(container);

    if (err != NULL) {
        container->removing = false;
        waiters_fail(&container->waiters, WAIT_REMOVED, err);
        return;
    }
    unlink(position);
    announce_container_deleted(container);
    waiters_reply(&container->waiters, WAIT_STOPPED, "", 0);
    waiters_reply(&container->waiters, WAIT_REMOVED, "", 0);
    container_free(container);
}

void container_forget(struct container *container)
{
    state_delete(container->node->state, STATE_CONTAINER, container->record->id, container_on_record_deleted, container);
}

static void container_on_agent_removed(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct container_removing *removing = arg;
    struct container *container = strmap_get(&removing->node->containers, removing->id);

    (void)response;
    free(removing);
    if (container == NULL)
        return;
    /* One that has ended may go without the agent: it hears of it when it calls again. */
    if (status->code != STATUS_OK && container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING) {
        container->removing = false;
        waiters_fail(&container->waiters, WAIT_REMOVED, status);
        return;
    }
    container_forget(container);
}

static void container_agent_remove(struct container *container, struct rpc_call *call)
{
    struct status err = STATUS_INIT;
    struct link *link = container_link(container, &err);
    bool running = container->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__RUNNING;
    Interlink__Agent__V1__RemoveContainerRequest request = INTERLINK__AGENT__V1__REMOVE_CONTAINER_REQUEST__INIT;

    if (link == NULL && running) {
        rpc_fail(call, &err);
        return;
    }
    waiter_add(&container->waiters, WAIT_REMOVED, call, container->node->loop, 0, NULL, NULL);
    if (container->removing)
        return;
    container->removing = true;
    if (link == NULL) {
        container_forget(container);
        return;
    }
    struct container_removing *removing = xcalloc(1, sizeof *removing);
    removing->node = container->node;
    memcpy(removing->id, container->record->id, sizeof removing->id);
    request.id = removing->id;
    rpc_unary(link_conn(link), CONTAINER_METHOD("RemoveContainer"), &request.base,
              &interlink__agent__v1__remove_container_response__descriptor, CONTAINER_CALL_TIMEOUT_MS,
              container_on_agent_removed, removing);
}

/* ---- either way ---- */

static struct link *container_agent_link(struct container *container, struct status *err)
{
    return sandbox_link(container->sandbox, err);
}

static const struct container_backend container_backend_agent = {
    .start = container_agent_start,
    .stop = container_stop_by_agent,
    .remove = container_agent_remove,
    .follow_log = container_agent_follow_log,
    .link = container_agent_link,
    .drain_ms = CONTAINER_DRAIN_MS,
};

void container_start(struct container *container, struct rpc_call *call)
{
    container_backend_of(container)->start(container, call);
}

void container_stop(struct container *container, struct rpc_call *call, int64_t timeout_s)
{
    container_backend_of(container)->stop(container, call, timeout_s);
}

void container_remove(struct container *container, struct rpc_call *call)
{
    container_backend_of(container)->remove(container, call);
}

struct link *container_link(struct container *container, struct status *err)
{
    return container_backend_of(container)->link(container, err);
}

/* ---- after a restart ---- */

void container_restore(struct node *node, Interlink__State__V1__Container *record)
{
    struct sandbox *sandbox = strmap_get(&node->sandboxes, record->sandbox_id);

    if (sandbox == NULL) {
        log_warn("container %.13s: its sandbox %.13s has no record: dropped", record->id, record->sandbox_id);
        state_delete(node->state, STATE_CONTAINER, record->id, NULL, NULL);
        protobuf_c_message_free_unpacked(&record->base, NULL);
        return;
    }
    struct container *container = container_new(sandbox, record);
    container_hold_images(container);
    container->announced = announced_container_phase((int)record->phase);
    container_changed(container);
    if (sandbox->record->phase == INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY)
        container_on_lost(container, "the pod was stopped");
}
