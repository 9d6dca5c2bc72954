/* SPDX-License-Identifier: Apache-2.0 */
/* update, checkpoint, update-runtime-config. */
#include "cli/ctl.h"

int ctl_update(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    const struct ctl_flags *f = &ctl->flags;
    struct status err = STATUS_INIT;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    Runtime__V1__UpdateContainerResourcesRequest request = RUNTIME__V1__UPDATE_CONTAINER_RESOURCES_REQUEST__INIT;

    request.linux = &resources;
    resources.cpu_period = f->cpu_period;
    resources.cpu_quota = f->cpu_quota;
    resources.cpu_shares = f->cpu_shares;
    resources.memory_limit_in_bytes = f->memory;
    resources.oom_score_adj = f->oom_score_adj;
    resources.cpuset_cpus = (char *)(uintptr_t)f->cpuset_cpus;
    resources.cpuset_mems = (char *)(uintptr_t)f->cpuset_mems;
    for (size_t i = 0; i < count; i++) {
        request.container_id = (char *)(uintptr_t)arguments[i];
        if (ctl_call(ctl, CTL_RUNTIME, "UpdateContainerResources", &request,
                     &runtime__v1__update_container_resources_response__descriptor, CTL_CALL_TIMEOUT_MS, &err) == NULL) {
            status_prefix(&err, "updating the container %s", arguments[i]);
            return ctl_fail(ctl, &err);
        }
        buf_printf(&ctl->out, "%s\n", arguments[i]);
    }
    return 0;
}

int ctl_checkpoint(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    Runtime__V1__CheckpointContainerRequest request = RUNTIME__V1__CHECKPOINT_CONTAINER_REQUEST__INIT;

    if (*ctl->flags.export_path == '\0') {
        status_set(&err, STATUS_INVALID_ARGUMENT, "where to? --export=/path/to/checkpoint.tar");
        return ctl_fail(ctl, &err);
    }
    request.location = (char *)(uintptr_t)ctl->flags.export_path;
    for (size_t i = 0; i < count; i++) {
        request.container_id = (char *)(uintptr_t)arguments[i];
        if (ctl_call(ctl, CTL_RUNTIME, "CheckpointContainer", &request,
                     &runtime__v1__checkpoint_container_response__descriptor, 0, &err) == NULL) {
            status_prefix(&err, "checkpointing the container %s", arguments[i]);
            return ctl_fail(ctl, &err);
        }
    }
    return 0;
}

int ctl_update_runtime_config(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    Runtime__V1__NetworkConfig network = RUNTIME__V1__NETWORK_CONFIG__INIT;
    Runtime__V1__RuntimeConfig config = RUNTIME__V1__RUNTIME_CONFIG__INIT;
    Runtime__V1__UpdateRuntimeConfigRequest request = RUNTIME__V1__UPDATE_RUNTIME_CONFIG_REQUEST__INIT;
    (void)arguments;
    (void)count;

    if (ctl->flags.pod_cidr == NULL) {
        status_set(&err, STATUS_INVALID_ARGUMENT, "what to update? --pod-cidr CIDR");
        return ctl_fail(ctl, &err);
    }
    network.pod_cidr = (char *)(uintptr_t)ctl->flags.pod_cidr;
    config.network_config = &network;
    request.runtime_config = &config;
    if (ctl_call(ctl, CTL_RUNTIME, "UpdateRuntimeConfig", &request, &runtime__v1__update_runtime_config_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, &err) == NULL)
        return ctl_fail(ctl, &err);
    buf_append_str(&ctl->out, "Runtime config successfully updated\n");
    return 0;
}
