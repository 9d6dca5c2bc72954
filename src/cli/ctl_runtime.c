/* SPDX-License-Identifier: Apache-2.0 */
/* version, info, runtime-config. */
#include "cli/ctl.h"

#include "text/protojson.h"

int ctl_version(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    Runtime__V1__VersionRequest request = RUNTIME__V1__VERSION_REQUEST__INIT;
    (void)arguments;
    (void)count;

    request.version = (char *)(uintptr_t)"v1";
    const Runtime__V1__VersionResponse *r = ctl_call(ctl, CTL_RUNTIME, "Version", &request,
                                                     &runtime__v1__version_response__descriptor, CTL_CALL_TIMEOUT_MS, &err);
    if (r == NULL)
        return ctl_fail(ctl, &err);
    buf_printf(&ctl->out, "Version:  %s\nRuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n", r->version,
               r->runtime_name, r->runtime_version, r->runtime_api_version);
    return 0;
}

int ctl_info(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    enum ctl_format format;
    Runtime__V1__StatusRequest request = RUNTIME__V1__STATUS_REQUEST__INIT;
    (void)arguments;
    (void)count;

    if (!ctl_format(ctl, CTL_JSON, &format, &err))
        return ctl_fail(ctl, &err);
    request.verbose = !ctl->flags.quiet;
    const Runtime__V1__StatusResponse *r = ctl_call(ctl, CTL_RUNTIME, "Status", &request,
                                                    &runtime__v1__status_response__descriptor, CTL_CALL_TIMEOUT_MS, &err);
    if (r == NULL)
        return ctl_fail(ctl, &err);
    Runtime__V1__RuntimeStatus none = RUNTIME__V1__RUNTIME_STATUS__INIT;
    struct json *status = ctl_tree(ctl, r->status != NULL ? r->status : &none, PROTOJSON_EMIT_DEFAULTS);
    struct json *tree = ctl_status_tree(ctl, status, r->info, r->n_info);
    struct json *handlers = json_new(&ctl->arena, JSON_ARRAY, "", 0);
    for (size_t i = 0; i < r->n_runtime_handlers; i++)
        json_append(handlers, "", ctl_tree(ctl, r->runtime_handlers[i], PROTOJSON_PROTO_NAMES));
    if (handlers->count > 0)
        json_append(tree, "runtimeHandlers", handlers);
    if (r->features != NULL)
        json_append(tree, "features", ctl_tree(ctl, r->features, PROTOJSON_PROTO_NAMES));
    ctl_print_trees(ctl, &tree, 1, format == CTL_TABLE ? CTL_JSON : format);
    return 0;
}

int ctl_runtime_config(void *context, const char *const *arguments, size_t count)
{
    static const char *const drivers[] = { "SYSTEMD", "CGROUPFS" };
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    Runtime__V1__RuntimeConfigRequest request = RUNTIME__V1__RUNTIME_CONFIG_REQUEST__INIT;
    (void)arguments;
    (void)count;

    const Runtime__V1__RuntimeConfigResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "RuntimeConfig", &request, &runtime__v1__runtime_config_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, &err);
    if (r == NULL)
        return ctl_fail(ctl, &err);
    if (r->linux != NULL)
        buf_printf(&ctl->out, "cgroup driver:   %s\n",
                   (size_t)r->linux->cgroup_driver < COUNT_OF(drivers) ? drivers[r->linux->cgroup_driver] : "UNKNOWN");
    return 0;
}
