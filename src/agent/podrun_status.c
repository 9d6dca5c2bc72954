/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/podrun_internal.h"

#include "interlink/message.h"
#include "io/file.h"

static void podrun_status_of_end(const char *name, const struct podrun_end *end, struct interlink_container_state *out)
{
    *out = INTERLINK_STATE_INIT(name);
    out->phase = INTERLINK_TERMINATED;
    out->exit_code = end->exit_code;
    out->signal = end->signal;
    out->reason = end->reason;
    out->message = end->message;
    out->started_ns = end->started_ns;
    out->finished_ns = end->finished_ns;
}

static void podrun_status_of(const struct podrun_container *c, struct interlink_container_state *last, struct interlink_container_state *out)
{
    const char *name = c->spec->base->name;

    *out = INTERLINK_STATE_INIT(name);
    if (c->phase == PODRUN_ENDED) {
        podrun_status_of_end(name, &c->end, out);
    } else if (c->phase == PODRUN_RUNNING) {
        out->phase = INTERLINK_RUNNING;
        out->started_ns = c->started_ns;
        out->ready = c->ready;
    } else {
        out->phase = INTERLINK_WAITING;
        out->reason = c->waiting_reason[0] != '\0' ? c->waiting_reason
                      : c->phase == PODRUN_WAITING ? "PodInitializing"
                                                   : "ContainerCreating";
        out->message = c->waiting_message;
    }
    /* Kubelet: an init container is ready once it has succeeded. */
    if (c->spec->role == PODSPEC_INIT)
        out->ready = c->phase == PODRUN_ENDED && c->end.exit_code == 0;
    const struct podrun_end *before = c->phase == PODRUN_BACKOFF ? &c->end : &c->last;
    if (before->known) {
        podrun_status_of_end(name, before, last);
        out->last = last;
    }
    out->restart_count = c->attempt;
    out->image = c->spec->base->image;
    out->image_id = c->image_id;
}

bool podrun_status_write(struct podrun *run, struct status *err)
{
    const struct interlink_pod *pod = &run->spec.create.pod;
    size_t count = run->spec.count, inits = run->spec.init_count;
    cleanup_free struct interlink_container_state *states = xcalloc(count + 1, sizeof *states);
    cleanup_free struct interlink_container_state *last = xcalloc(count + 1, sizeof *last);
    cleanup_free char *path = xasprintf("%s/status.json", run->job_dir);
    cleanup_buf struct buf text = BUF_INIT;
    struct interlink_pod_status status = {
        .name = pod->name, .uid = pod->uid, .namespace_ = pod->namespace_, .jid = "", .nodes = "",
        .init_containers = states, .init_container_count = inits, .containers = states + inits, .container_count = count - inits,
    };

    for (size_t i = 0; i < count; i++)
        podrun_status_of(&run->containers[i], &last[i], &states[i]);
    interlink_statuses_write(&text, &status, 1);
    return file_write_atomic(path, text.p, text.n, 0600, err);
}

static void podrun_status_on_timer(void *arg)
{
    struct podrun *run = arg;
    struct status err = STATUS_INIT;

    if (podrun_status_write(run, &err))
        return;
    log_warn("the pod's status cannot be told: %s", err.message);
    timer_start(run->loop, &run->status_timer, 1000, podrun_status_on_timer, run);
}

void podrun_status_changed(struct podrun *run)
{
    if (!timer_running(&run->status_timer))
        timer_start(run->loop, &run->status_timer, PODRUN_STATUS_GATHER_MS, podrun_status_on_timer, run);
}
