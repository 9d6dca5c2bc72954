/* SPDX-License-Identifier: Apache-2.0 */
/* create, start, run, stop, rm. */
#include "cli/ctl.h"

#include <glob.h>
#include <unistd.h>

/* ---- create, start, run ---- */

static bool ctl_pull_for(struct ctl *ctl, const Runtime__V1__ContainerConfig *config,
                         const Runtime__V1__PodSandboxConfig *pod, struct status *err)
{
    const char *image_ref;

    if (!ctl_pull_image(ctl, config->image->image, pod, &image_ref, err))
        return false;
    for (size_t i = 0; i < config->n_mounts; i++) {
        const Runtime__V1__ImageSpec *image = config->mounts[i]->image;
        if (image != NULL && *image->image != '\0' && !ctl_pull_image(ctl, image->image, pod, &image_ref, err))
            return false;
    }
    return true;
}

/* The new container's id, or NULL. */
static const char *ctl_create_container(struct ctl *ctl, const char *pod_id, const char *container_path,
                                        const char *pod_path, bool pull, struct status *err)
{
    Runtime__V1__CreateContainerRequest request = RUNTIME__V1__CREATE_CONTAINER_REQUEST__INIT;

    request.pod_sandbox_id = (char *)(uintptr_t)pod_id;
    request.config = ctl_read_container(ctl, container_path, err);
    request.sandbox_config = request.config != NULL ? ctl_read_pod(ctl, pod_path, err) : NULL;
    if (request.sandbox_config == NULL || (pull && !ctl_pull_for(ctl, request.config, request.sandbox_config, err)))
        return NULL;
    const Runtime__V1__CreateContainerResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "CreateContainer", &request, &runtime__v1__create_container_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err);
    if (r == NULL)
        status_prefix(err, "creating the container");
    return r != NULL ? r->container_id : NULL;
}

static bool ctl_start_container(struct ctl *ctl, const char *id, struct status *err)
{
    Runtime__V1__StartContainerRequest request = RUNTIME__V1__START_CONTAINER_REQUEST__INIT;

    request.container_id = (char *)(uintptr_t)id;
    if (ctl_call(ctl, CTL_RUNTIME, "StartContainer", &request, &runtime__v1__start_container_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err) == NULL)
        return status_prefix(err, "starting the container %s", id);
    buf_printf(&ctl->out, "%s\n", id);
    return true;
}

static bool ctl_check_pull_flags(const struct ctl *ctl, struct status *err)
{
    return !ctl->flags.no_pull || !ctl->flags.with_pull ||
           status_set(err, STATUS_INVALID_ARGUMENT, "--no-pull and --with-pull are both given");
}

int ctl_create(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    bool pull = ctl->flags.with_pull || (ctl->pull_on_create && !ctl->flags.no_pull);
    const char *id = NULL;
    (void)count;

    if (ctl_check_pull_flags(ctl, &err))
        id = ctl_create_container(ctl, arguments[0], arguments[1], arguments[2], pull, &err);
    if (id == NULL)
        return ctl_fail(ctl, &err);
    buf_printf(&ctl->out, "%s\n", id);
    return 0;
}

int ctl_start(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;

    for (size_t i = 0; i < count; i++)
        if (!ctl_start_container(ctl, arguments[i], &err))
            return ctl_fail(ctl, &err);
    return 0;
}

int ctl_run(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    bool pull = ctl->flags.with_pull || (!ctl->no_pull_on_run && !ctl->flags.no_pull);
    (void)count;

    if (!ctl_check_pull_flags(ctl, &err) || ctl_read_container(ctl, arguments[0], &err) == NULL)
        return ctl_fail(ctl, &err); /* before there is a pod */
    const char *pod = ctl_run_pod(ctl, arguments[1], &err);
    if (pod == NULL)
        return ctl_fail(ctl, &err);
    const char *id = ctl_create_container(ctl, pod, arguments[0], arguments[1], pull, &err);
    if (id == NULL || !ctl_start_container(ctl, id, &err)) {
        status_prefix(&err, "in the pod %.13s, which runs on", pod);
        return ctl_fail(ctl, &err);
    }
    return 0;
}

/* ---- stop ---- */

static bool ctl_stop_container(struct ctl *ctl, const char *id, int64_t grace_seconds, struct status *err)
{
    Runtime__V1__StopContainerRequest request = RUNTIME__V1__STOP_CONTAINER_REQUEST__INIT;

    request.container_id = (char *)(uintptr_t)id;
    request.timeout = grace_seconds;
    if (ctl_call(ctl, CTL_RUNTIME, "StopContainer", &request, &runtime__v1__stop_container_response__descriptor,
                 CTL_CALL_TIMEOUT_MS + grace_seconds * 1000, err) == NULL)
        return status_prefix(err, "stopping the container %s", id);
    buf_printf(&ctl->out, "%s\n", id);
    return true;
}

bool ctl_all_containers(struct ctl *ctl, const char *const **ids, size_t *count, struct status *err)
{
    Runtime__V1__Container **containers;

    if (!ctl_list_containers(ctl, &containers, count, err))
        return false;
    const char **all = ARENA_ARRAY(&ctl->arena, const char *, *count + 1);
    for (size_t i = 0; i < *count; i++)
        all[i] = containers[i]->id;
    *ids = all;
    return true;
}

int ctl_stop(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    int64_t grace = ctl->flags.timeout_seconds;

    if (grace < 0 || grace > INT32_MAX) {
        status_set(&err, STATUS_INVALID_ARGUMENT, "--timeout: wanted a number of seconds");
        return ctl_fail(ctl, &err);
    }
    if (ctl->flags.all == (count > 0)) {
        status_set(&err, STATUS_INVALID_ARGUMENT,
                   count > 0 ? "containers are named and --all is given: one is enough"
                             : "which containers? CONTAINER-ID [CONTAINER-ID...], or --all");
        return ctl_fail(ctl, &err);
    }
    if (ctl->flags.all) {
        ctl->flags.all = false; /* of the running ones */
        if (!ctl_all_containers(ctl, &arguments, &count, &err))
            return ctl_fail(ctl, &err);
        if (count == 0)
            buf_append_str(&ctl->out, "No running containers found.\n");
    }
    for (size_t i = 0; i < count; i++)
        if (!ctl_stop_container(ctl, arguments[i], grace, &err))
            return ctl_fail(ctl, &err);
    return 0;
}

/* ---- rm ---- */

/* The log file and its rotations, which kubelet would remove. */
static void ctl_remove_logs(const struct ctl *ctl, const char *id, const char *log_path)
{
    cleanup_free char *pattern = xasprintf("%s.*", log_path);
    glob_t found;

    if (glob(pattern, GLOB_NOSORT, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++)
            unlink(found.gl_pathv[i]);
        globfree(&found);
    }
    if (unlink(log_path) < 0 && errno != ENOENT)
        ctl_warn(ctl, "removing %s, the log of container %s: %s", log_path, id, strerror(errno));
}

static bool ctl_remove_container(struct ctl *ctl, const char *id, struct status *err)
{
    Runtime__V1__ContainerStatusRequest query = RUNTIME__V1__CONTAINER_STATUS_REQUEST__INIT;
    Runtime__V1__RemoveContainerRequest request = RUNTIME__V1__REMOVE_CONTAINER_REQUEST__INIT;

    query.container_id = request.container_id = (char *)(uintptr_t)id;
    const Runtime__V1__ContainerStatusResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "ContainerStatus", &query, &runtime__v1__container_status_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err);
    if (r == NULL)
        return status_prefix(err, "the status of the container %s", id);
    if (r->status != NULL && r->status->state == RUNTIME__V1__CONTAINER_STATE__CONTAINER_RUNNING) {
        if (!ctl->flags.force)
            return status_set(err, STATUS_FAILED_PRECONDITION, "the container %s is running: stop it first, or use --force",
                              id);
        if (!ctl_stop_container(ctl, id, 0, err))
            return false;
    }
    if (ctl_call(ctl, CTL_RUNTIME, "RemoveContainer", &request, &runtime__v1__remove_container_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err) == NULL)
        return status_prefix(err, "removing the container %s", id);
    buf_printf(&ctl->out, "%s\n", id);
    if (!ctl->flags.keep_logs && r->status != NULL && *r->status->log_path == '/')
        ctl_remove_logs(ctl, id, r->status->log_path);
    return true;
}

int ctl_rm(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    int result = 0;

    if (!ctl->flags.all && count == 0) {
        status_set(&err, STATUS_INVALID_ARGUMENT, "which containers? CONTAINER-ID [CONTAINER-ID...], or --all");
        return ctl_fail(ctl, &err);
    }
    if (ctl->flags.all && !ctl_all_containers(ctl, &arguments, &count, &err))
        return ctl_fail(ctl, &err);
    for (size_t i = 0; i < count; i++)
        if (!ctl_remove_container(ctl, arguments[i], &err))
            result = ctl_fail(ctl, &err);
    return result;
}
