/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/job_status.h"

#include "io/file.h"

/* A hundred containers with a message of a KiB each, twice. */
#define JOB_STATUS_MAX (1u << 20)

static const struct interlink_pod_status *job_status_read(struct arena *arena, const char *job_dir)
{
    cleanup_free char *path = xasprintf("%s/status.json", job_dir);
    cleanup_buf struct buf text = BUF_INIT;
    struct interlink_pod_status *all;
    struct status err = STATUS_INIT;
    size_t count;

    if (!file_read(path, JOB_STATUS_MAX, &text, &err))
        return NULL;
    if (interlink_statuses_read(arena, (struct str){ (const char *)text.p, text.n }, &all, &count, &err) && count == 1)
        return &all[0];
    log_warn("%s: %s", path, err.code != STATUS_OK ? err.message : "not the status of one pod");
    return NULL;
}

static const struct interlink_container_state *job_status_find(const struct interlink_container_state *states, size_t count,
                                                               const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(states[i].name, name) == 0)
            return &states[i];
    return NULL;
}

/* The job is over, and its end was not the pod's own: killed, out of memory, its node lost. */
static void job_status_cut_off(const struct interlink_container_state *job, struct interlink_container_state *out)
{
    int64_t started_ns = out->phase == INTERLINK_RUNNING ? out->started_ns : 0;

    out->phase = INTERLINK_TERMINATED;
    out->exit_code = job->exit_code != 0 ? job->exit_code : 137;
    out->signal = job->signal;
    out->reason = job->reason;
    out->message = job->message;
    out->started_ns = started_ns;
    out->finished_ns = job->finished_ns;
    out->ready = false;
}

/* `said`: by the agent; NULL: nothing. */
static void job_status_merge(const struct interlink_container_state *job, const struct interlink_container_state *said,
                             struct interlink_container_state *out)
{
    const char *name = out->name;
    bool site = job->reason[0] != '\0' && strcmp(job->reason, "Completed") != 0 && strcmp(job->reason, "Error") != 0;

    if (said != NULL && job->phase != INTERLINK_UNKNOWN && job->phase != INTERLINK_WAITING) {
        *out = *said;
        out->name = name;
    }
    switch (job->phase) {
    case INTERLINK_WAITING:
        out->phase = INTERLINK_WAITING;
        out->reason = job->reason;
        out->message = job->message;
        break;
    case INTERLINK_RUNNING:
        if (said != NULL)
            break;
        out->phase = INTERLINK_WAITING;
        out->reason = "ContainerCreating";
        break;
    case INTERLINK_TERMINATED:
        if (out->phase != INTERLINK_TERMINATED) {
            job_status_cut_off(job, out);
        } else if (site && str_starts(out->message, "the pod was stopped")) {
            /* The agent was told to stop; why, the site knows. */
            out->reason = job->reason;
            out->message = job->message;
        }
        break;
    case INTERLINK_UNKNOWN:
    case INTERLINK_GONE:
        break;
    }
}

void job_status_fill(struct arena *arena, const char *job_dir, const struct interlink_container_state *job, struct interlink_pod_status *out)
{
    const struct interlink_pod_status *said = job_status_read(arena, job_dir);

    for (size_t i = 0; i < out->container_count; i++)
        job_status_merge(job, said == NULL ? NULL : job_status_find(said->containers, said->container_count, out->containers[i].name),
                         &out->containers[i]);
    for (size_t i = 0; i < out->init_container_count; i++)
        job_status_merge(
            job, said == NULL ? NULL : job_status_find(said->init_containers, said->init_container_count, out->init_containers[i].name),
            &out->init_containers[i]);
}

bool job_status_container(struct arena *arena, const char *job_dir, const struct interlink_container_state *job, const char *container,
                          struct interlink_container_state *out)
{
    const struct interlink_pod_status *said = job_status_read(arena, job_dir);
    const struct interlink_container_state *one = NULL;

    *out = INTERLINK_STATE_INIT(container);
    if (said != NULL)
        one = job_status_find(said->containers, said->container_count, container);
    if (said != NULL && one == NULL)
        one = job_status_find(said->init_containers, said->init_container_count, container);
    job_status_merge(job, one, out);
    return said == NULL || one != NULL;
}

#undef JOB_STATUS_MAX
