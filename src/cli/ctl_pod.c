/* SPDX-License-Identifier: Apache-2.0 */
/* runp, stopp, rmp, pods, inspectp. */
#include "cli/ctl.h"

#include "text/protojson.h"

#include <strings.h>

/* kubelet's deadline for RunPodSandbox: twice that of other calls. */
#define CTL_RUN_POD_TIMEOUT_MS 240000

/* ---- runp, stopp, rmp ---- */

char *ctl_run_pod(struct ctl *ctl, const char *path, struct status *err)
{
    Runtime__V1__RunPodSandboxRequest request = RUNTIME__V1__RUN_POD_SANDBOX_REQUEST__INIT;

    request.config = ctl_read_pod(ctl, path, err);
    if (request.config == NULL)
        return NULL;
    request.runtime_handler = arena_strdup(&ctl->arena, ctl->flags.runtime);
    const Runtime__V1__RunPodSandboxResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "RunPodSandbox", &request, &runtime__v1__run_pod_sandbox_response__descriptor,
                 CTL_RUN_POD_TIMEOUT_MS, err);
    if (r == NULL) {
        status_prefix(err, "running the pod");
        return NULL;
    }
    return r->pod_sandbox_id;
}

int ctl_runp(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    const char *id = ctl_run_pod(ctl, arguments[0], &err);
    (void)count;

    if (id == NULL)
        return ctl_fail(ctl, &err);
    buf_printf(&ctl->out, "%s\n", id);
    return 0;
}

static bool ctl_stop_pod(struct ctl *ctl, const char *id, struct status *err)
{
    Runtime__V1__StopPodSandboxRequest request = RUNTIME__V1__STOP_POD_SANDBOX_REQUEST__INIT;

    request.pod_sandbox_id = (char *)(uintptr_t)id;
    if (ctl_call(ctl, CTL_RUNTIME, "StopPodSandbox", &request, &runtime__v1__stop_pod_sandbox_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err) == NULL)
        return status_prefix(err, "stopping the pod %s", id);
    buf_printf(&ctl->out, "Stopped sandbox %s\n", id);
    return true;
}

int ctl_stopp(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;

    for (size_t i = 0; i < count; i++)
        if (!ctl_stop_pod(ctl, arguments[i], &err))
            return ctl_fail(ctl, &err);
    return 0;
}

static const Runtime__V1__PodSandboxStatusResponse *ctl_pod_status(struct ctl *ctl, const char *id, bool verbose,
                                                                   struct status *err)
{
    Runtime__V1__PodSandboxStatusRequest request = RUNTIME__V1__POD_SANDBOX_STATUS_REQUEST__INIT;

    request.pod_sandbox_id = (char *)(uintptr_t)id;
    request.verbose = verbose;
    const Runtime__V1__PodSandboxStatusResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "PodSandboxStatus", &request, &runtime__v1__pod_sandbox_status_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err);
    if (r == NULL)
        status_prefix(err, "the status of the pod %s", id);
    else if (r->status == NULL)
        status_set(err, STATUS_INTERNAL, "the runtime gave no status of the pod %s", id);
    return r != NULL && r->status != NULL ? r : NULL;
}

static bool ctl_remove_pod(struct ctl *ctl, const char *id, struct status *err)
{
    Runtime__V1__RemovePodSandboxRequest request = RUNTIME__V1__REMOVE_POD_SANDBOX_REQUEST__INIT;
    const Runtime__V1__PodSandboxStatusResponse *r = ctl_pod_status(ctl, id, false, err);

    if (r == NULL)
        return false;
    if (r->status->state == RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_READY) {
        if (!ctl->flags.force)
            return status_set(err, STATUS_FAILED_PRECONDITION, "the pod %s is running: stop it first, or use --force", id);
        if (!ctl_stop_pod(ctl, id, err))
            return false;
    }
    request.pod_sandbox_id = (char *)(uintptr_t)id;
    if (ctl_call(ctl, CTL_RUNTIME, "RemovePodSandbox", &request, &runtime__v1__remove_pod_sandbox_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err) == NULL)
        return status_prefix(err, "removing the pod %s", id);
    buf_printf(&ctl->out, "Removed sandbox %s\n", id);
    return true;
}

int ctl_rmp(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    int result = 0;

    if (ctl->flags.all) {
        Runtime__V1__PodSandbox **pods;
        if (!ctl_list_pods(ctl, &pods, &count, &err))
            return ctl_fail(ctl, &err);
        const char **ids = ARENA_ARRAY(&ctl->arena, const char *, count + 1);
        for (size_t i = 0; i < count; i++)
            ids[i] = pods[i]->id;
        arguments = ids;
    } else if (count == 0) {
        status_set(&err, STATUS_INVALID_ARGUMENT, "which pods? POD-ID [POD-ID...], or --all");
        return ctl_fail(ctl, &err);
    }
    for (size_t i = 0; i < count; i++)
        if (!ctl_remove_pod(ctl, arguments[i], &err))
            result = ctl_fail(ctl, &err);
    return result;
}

/* ---- pods ---- */

static int ctl_compare_pods(const void *a, const void *b)
{
    const Runtime__V1__PodSandbox *const *x = a, *const *y = b;

    return ((*x)->created_at < (*y)->created_at) - ((*x)->created_at > (*y)->created_at);
}

static bool ctl_pod_filter(struct ctl *ctl, Runtime__V1__PodSandboxFilter *filter, struct status *err)
{
    const struct ctl_flags *f = &ctl->flags;
    Runtime__V1__PodSandboxStateValue *state = ARENA_NEW(&ctl->arena, Runtime__V1__PodSandboxStateValue);

    runtime__v1__pod_sandbox_state_value__init(state);
    filter->id = arena_strdup(&ctl->arena, f->id);
    if (*f->state != '\0') {
        if (strcasecmp(f->state, "ready") != 0 && strcasecmp(f->state, "notready") != 0)
            return status_set(err, STATUS_INVALID_ARGUMENT, "--state: wanted ready or notready, got \"%.64s\"", f->state);
        state->state = strcasecmp(f->state, "ready") == 0 ? RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_READY
                                                          : RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_NOTREADY;
        filter->state = state;
    }
    return ctl_read_pairs(ctl, &f->labels, &runtime__v1__pod_sandbox_filter__label_selector_entry__descriptor,
                          &filter->n_label_selector, &filter->label_selector, err);
}

bool ctl_list_pods(struct ctl *ctl, Runtime__V1__PodSandbox ***out, size_t *count, struct status *err)
{
    const struct ctl_flags *f = &ctl->flags;
    Runtime__V1__PodSandboxFilter filter = RUNTIME__V1__POD_SANDBOX_FILTER__INIT;
    Runtime__V1__ListPodSandboxRequest request = RUNTIME__V1__LIST_POD_SANDBOX_REQUEST__INIT;
    size_t n = 0;

    request.filter = &filter;
    if (!ctl_pod_filter(ctl, &filter, err))
        return false;
    Runtime__V1__ListPodSandboxResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "ListPodSandbox", &request, &runtime__v1__list_pod_sandbox_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err);
    if (r == NULL)
        return status_prefix(err, "listing pods");
    for (size_t i = 0; i < r->n_items; i++) {
        bool name = false, name_space = false;
        if (r->items[i]->metadata == NULL)
            continue;
        if (!ctl_match(f->name, r->items[i]->metadata->name, &name, err) ||
            !ctl_match(f->name_space, r->items[i]->metadata->namespace_, &name_space, err))
            return false;
        if (name && name_space)
            r->items[n++] = r->items[i];
    }
    if (n > 0)
        qsort(r->items, n, sizeof(Runtime__V1__PodSandbox *), ctl_compare_pods);
    size_t limit = f->last > 0 ? (size_t)f->last : f->latest ? 1 : n;
    *out = r->items;
    *count = n < limit ? n : limit;
    return true;
}

static const char *ctl_pod_state(Runtime__V1__PodSandboxState state)
{
    return state == RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_READY ? "Ready" : "NotReady";
}

static const char *ctl_handler(const Runtime__V1__PodSandbox *pod)
{
    return *pod->runtime_handler != '\0' ? pod->runtime_handler : "(default)";
}

static void ctl_print_pod(struct ctl *ctl, const Runtime__V1__PodSandbox *pod)
{
    struct buf *out = &ctl->out;

    buf_printf(out, "ID: %s\n", pod->id);
    if (*pod->metadata->name != '\0')
        buf_printf(out, "Name: %s\n", pod->metadata->name);
    if (*pod->metadata->uid != '\0')
        buf_printf(out, "UID: %s\n", pod->metadata->uid);
    if (*pod->metadata->namespace_ != '\0')
        buf_printf(out, "Namespace: %s\n", pod->metadata->namespace_);
    if (pod->metadata->attempt != 0)
        buf_printf(out, "Attempt: %" PRIu32 "\n", pod->metadata->attempt);
    buf_printf(out, "Status: %s\nCreated: %s\n", ctl_pod_state(pod->state), ctl_time(ctl, pod->created_at));
    ctl_print_pairs(ctl, "Labels", pod->labels, pod->n_labels);
    ctl_print_pairs(ctl, "Annotations", pod->annotations, pod->n_annotations);
    buf_printf(out, "Runtime: %s\n\n", ctl_handler(pod));
}

static void ctl_print_pod_table(struct ctl *ctl, Runtime__V1__PodSandbox *const *pods, size_t count)
{
    static const char *const titles[] = { "POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME" };
    struct ctl_table table = ctl_table_new(ctl, titles, COUNT_OF(titles));

    for (size_t i = 0; i < count; i++) {
        const Runtime__V1__PodSandbox *pod = pods[i];
        ctl_table_row(&table, (const char *const[]){ ctl_short_id(ctl, pod->id), ctl_ago(ctl, pod->created_at),
                                                     ctl_pod_state(pod->state), pod->metadata->name,
                                                     pod->metadata->namespace_,
                                                     arena_printf(&ctl->arena, "%" PRIu32, pod->metadata->attempt),
                                                     ctl_handler(pod) });
    }
    ctl_table_print(&table);
}

int ctl_pods(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    enum ctl_format format;
    Runtime__V1__PodSandbox **pods;
    (void)arguments;

    if (!ctl_format(ctl, CTL_TABLE, &format, &err) || !ctl_list_pods(ctl, &pods, &count, &err))
        return ctl_fail(ctl, &err);
    if (format != CTL_TABLE) {
        Runtime__V1__ListPodSandboxResponse all = RUNTIME__V1__LIST_POD_SANDBOX_RESPONSE__INIT;
        all.items = pods;
        all.n_items = count;
        ctl_print_message(ctl, &all.base, format);
    } else if (ctl->flags.quiet || ctl->flags.verbose) {
        for (size_t i = 0; i < count; i++)
            if (ctl->flags.quiet)
                buf_printf(&ctl->out, "%s\n", pods[i]->id);
            else
                ctl_print_pod(ctl, pods[i]);
    } else {
        ctl_print_pod_table(ctl, pods, count);
    }
    return 0;
}

/* ---- inspectp ---- */

static void ctl_print_pod_status(struct ctl *ctl, const Runtime__V1__PodSandboxStatusResponse *r)
{
    const Runtime__V1__PodSandboxStatus *s = r->status;
    struct buf *out = &ctl->out;

    buf_printf(out, "ID: %s\n", s->id);
    if (s->metadata != NULL)
        buf_printf(out, "Name: %s\nUID: %s\nNamespace: %s\nAttempt: %" PRIu32 "\n", s->metadata->name, s->metadata->uid,
                   s->metadata->namespace_, s->metadata->attempt);
    buf_printf(out, "Status: %s\nCreated: %s\n",
               protobuf_c_enum_descriptor_get_value(&runtime__v1__pod_sandbox_state__descriptor, (int)s->state) != NULL
                   ? protobuf_c_enum_descriptor_get_value(&runtime__v1__pod_sandbox_state__descriptor, (int)s->state)->name
                   : "?",
               ctl_time(ctl, s->created_at));
    if (s->network != NULL) {
        buf_printf(out, "IP Addresses: %s\n", s->network->ip);
        for (size_t i = 0; i < s->network->n_additional_ips; i++)
            buf_printf(out, "Additional IP: %s\n", s->network->additional_ips[i]->ip);
    }
    ctl_print_pairs(ctl, "Labels", s->labels, s->n_labels);
    ctl_print_pairs(ctl, "Annotations", s->annotations, s->n_annotations);
    ctl_print_pairs(ctl, "Info", r->info, r->n_info);
}

static bool ctl_inspectp_ids(struct ctl *ctl, const char *const **ids, size_t *count, struct status *err)
{
    Runtime__V1__PodSandbox **found;

    if (!ctl_list_pods(ctl, &found, count, err))
        return false;
    const char **list = ARENA_ARRAY(&ctl->arena, const char *, *count + 1);
    for (size_t i = 0; i < *count; i++)
        list[i] = found[i]->id;
    *ids = list;
    return true;
}

static bool ctl_inspectp_show(struct ctl *ctl, const char *id, bool text, struct json **tree, struct status *err)
{
    const Runtime__V1__PodSandboxStatusResponse *r = ctl_pod_status(ctl, id, !ctl->flags.quiet, err);

    if (r == NULL)
        return false;
    if (text) {
        ctl_print_pod_status(ctl, r);
        return true;
    }
    struct json *status = ctl_tree(ctl, r->status, PROTOJSON_EMIT_DEFAULTS);
    ctl_tree_set(ctl, status, "createdAt", ctl_time(ctl, r->status->created_at));
    *tree = ctl_status_tree(ctl, status, r->info, r->n_info);
    return true;
}

int ctl_inspectp(void *context, const char *const *arguments, size_t count)
{
    static const struct ctl_inspection kind = { "pod", ctl_inspectp_ids, ctl_inspectp_show };

    return ctl_inspect_each(context, &kind, arguments, count);
}

#undef CTL_RUN_POD_TIMEOUT_MS
