/* SPDX-License-Identifier: Apache-2.0 */
/* ps and inspect. */
#include "cli/ctl.h"

#include "text/protojson.h"

#include <strings.h>

/* Labels that kubelet gives every container. */
#define CTL_POD_NAME_LABEL "io.kubernetes.pod.name"
#define CTL_POD_NAMESPACE_LABEL "io.kubernetes.pod.namespace"

/* ---- listing ---- */

static int ctl_compare_containers(const void *a, const void *b)
{
    const Runtime__V1__Container *const *x = a, *const *y = b;

    return ((*x)->created_at < (*y)->created_at) - ((*x)->created_at > (*y)->created_at);
}

static bool ctl_container_filter(struct ctl *ctl, Runtime__V1__ContainerFilter *filter, struct status *err)
{
    static const struct {
        const char *word;
        Runtime__V1__ContainerState state;
    } states[] = { { "created", RUNTIME__V1__CONTAINER_STATE__CONTAINER_CREATED },
                   { "running", RUNTIME__V1__CONTAINER_STATE__CONTAINER_RUNNING },
                   { "exited", RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED },
                   { "unknown", RUNTIME__V1__CONTAINER_STATE__CONTAINER_UNKNOWN } };
    const struct ctl_flags *f = &ctl->flags;
    const char *word = *f->state != '\0' ? f->state : "running";
    Runtime__V1__ContainerStateValue *state = ARENA_NEW(&ctl->arena, Runtime__V1__ContainerStateValue);
    bool known = false;

    runtime__v1__container_state_value__init(state);
    for (size_t i = 0; i < COUNT_OF(states); i++)
        if (strcasecmp(states[i].word, word) == 0) {
            state->state = states[i].state;
            known = true;
        }
    if (!known)
        return status_set(err, STATUS_INVALID_ARGUMENT, "--state: wanted created, running, exited or unknown, got \"%.64s\"",
                          word);
    /* The newest ones count whatever their state. */
    if (!f->latest && f->last <= 0 && (!f->all || *f->state != '\0'))
        filter->state = state;
    filter->id = arena_strdup(&ctl->arena, f->id);
    filter->pod_sandbox_id = arena_strdup(&ctl->arena, f->pod);
    return ctl_read_pairs(ctl, &f->labels, &runtime__v1__container_filter__label_selector_entry__descriptor,
                          &filter->n_label_selector, &filter->label_selector, err);
}

static const char *ctl_container_image(const Runtime__V1__Container *c)
{
    return c->image != NULL ? c->image->image : "";
}

/* --image: the same image by id. */
static bool ctl_is_image(struct ctl *ctl, const char *wanted_id, const Runtime__V1__Container *c, bool *is,
                         struct status *err)
{
    Runtime__V1__ImageStatusResponse *r;

    *is = wanted_id == NULL;
    if (wanted_id == NULL)
        return true;
    if (!ctl_image_status(ctl, ctl_container_image(c), false, &r, err))
        return false;
    *is = r != NULL && strcmp(r->image->id, wanted_id) == 0;
    return true;
}

static bool ctl_keep_container(struct ctl *ctl, const char *image_id, const Runtime__V1__Container *c, bool *keep,
                               struct status *err)
{
    bool name = false, name_space = false, image = false;

    *keep = false;
    if (c->metadata == NULL)
        return true;
    if (!ctl_match(ctl->flags.name, c->metadata->name, &name, err) ||
        !ctl_match(ctl->flags.name_space, ctl_pair(c->labels, c->n_labels, CTL_POD_NAMESPACE_LABEL, "unknown"), &name_space,
                   err) ||
        (name && name_space && !ctl_is_image(ctl, image_id, c, &image, err)))
        return false;
    *keep = name && name_space && image;
    return true;
}

bool ctl_list_containers(struct ctl *ctl, Runtime__V1__Container ***out, size_t *count, struct status *err)
{
    const struct ctl_flags *f = &ctl->flags;
    Runtime__V1__ContainerFilter filter = RUNTIME__V1__CONTAINER_FILTER__INIT;
    Runtime__V1__ListContainersRequest request = RUNTIME__V1__LIST_CONTAINERS_REQUEST__INIT;
    Runtime__V1__ImageStatusResponse *image = NULL;
    const char *image_id = NULL;
    size_t n = 0;

    request.filter = &filter;
    if (!ctl_container_filter(ctl, &filter, err))
        return false;
    if (*f->image != '\0') {
        if (!ctl_image_status(ctl, f->image, false, &image, err))
            return false;
        image_id = image != NULL ? image->image->id : ""; /* of no image there: fits nothing */
    }
    Runtime__V1__ListContainersResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "ListContainers", &request, &runtime__v1__list_containers_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err);
    if (r == NULL)
        return status_prefix(err, "listing containers");
    for (size_t i = 0; i < r->n_containers; i++) {
        bool keep;
        if (!ctl_keep_container(ctl, image_id, r->containers[i], &keep, err))
            return false;
        if (keep)
            r->containers[n++] = r->containers[i];
    }
    if (n > 0)
        qsort(r->containers, n, sizeof(Runtime__V1__Container *), ctl_compare_containers);
    size_t limit = f->last > 0 ? (size_t)f->last : f->latest ? 1 : n;
    *out = r->containers;
    *count = n < limit ? n : limit;
    return true;
}

/* ---- ps ---- */

static const char *ctl_container_state(Runtime__V1__ContainerState state)
{
    switch (state) {
    case RUNTIME__V1__CONTAINER_STATE__CONTAINER_CREATED:
        return "Created";
    case RUNTIME__V1__CONTAINER_STATE__CONTAINER_RUNNING:
        return "Running";
    case RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED:
        return "Exited";
    default:
        return "Unknown";
    }
}

/* What the IMAGE column says: kubelet gives containers images by id, which is cut or, when asked, made a name again. */
static bool ctl_image_column(struct ctl *ctl, const Runtime__V1__Container *c, const char **out, struct status *err)
{
    Runtime__V1__ImageStatusResponse *r = NULL;

    *out = ctl_container_image(c);
    if (ctl->flags.resolve_image_path) {
        if (!ctl_image_status(ctl, *out, false, &r, err))
            return false;
        if (r != NULL && r->image->n_repo_tags > 0)
            *out = r->image->repo_tags[0];
        return true;
    }
    if (str_starts(*out, "sha256:"))
        *out = ctl_short_id(ctl, *out);
    return true;
}

static bool ctl_print_container_table(struct ctl *ctl, Runtime__V1__Container *const *containers, size_t count,
                                      struct status *err)
{
    static const char *const titles[] = { "CONTAINER", "IMAGE",  "CREATED", "STATE",    "NAME",
                                          "ATTEMPT",   "POD ID", "POD",     "NAMESPACE" };
    struct ctl_table table = ctl_table_new(ctl, titles, COUNT_OF(titles));

    for (size_t i = 0; i < count; i++) {
        const Runtime__V1__Container *c = containers[i];
        const char *image;
        if (!ctl_image_column(ctl, c, &image, err))
            return false;
        ctl_table_row(&table,
                      (const char *const[]){ ctl_short_id(ctl, c->id), image, ctl_ago(ctl, c->created_at),
                                             ctl_container_state(c->state), c->metadata->name,
                                             arena_printf(&ctl->arena, "%" PRIu32, c->metadata->attempt),
                                             ctl_short_id(ctl, c->pod_sandbox_id),
                                             ctl_pair(c->labels, c->n_labels, CTL_POD_NAME_LABEL, "unknown"),
                                             ctl_pair(c->labels, c->n_labels, CTL_POD_NAMESPACE_LABEL, "unknown") });
    }
    ctl_table_print(&table);
    return true;
}

static void ctl_print_container(struct ctl *ctl, const Runtime__V1__Container *c)
{
    struct buf *out = &ctl->out;

    buf_printf(out, "ID: %s\nPodID: %s\nNamespace: %s\n", c->id, c->pod_sandbox_id,
               ctl_pair(c->labels, c->n_labels, CTL_POD_NAMESPACE_LABEL, "unknown"));
    if (*c->metadata->name != '\0')
        buf_printf(out, "Name: %s\n", c->metadata->name);
    buf_printf(out, "Attempt: %" PRIu32 "\nState: %s\n", c->metadata->attempt, ctl_container_state(c->state));
    if (c->image != NULL)
        buf_printf(out, "Image: %s\n", c->image->image);
    buf_printf(out, "Created: %s\n", ctl_ago(ctl, c->created_at));
    ctl_print_pairs(ctl, "Labels", c->labels, c->n_labels);
    ctl_print_pairs(ctl, "Annotations", c->annotations, c->n_annotations);
    buf_append_byte(out, '\n');
}

int ctl_ps(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    enum ctl_format format;
    Runtime__V1__Container **containers;
    (void)arguments;

    if (!ctl_format(ctl, CTL_TABLE, &format, &err) || !ctl_list_containers(ctl, &containers, &count, &err))
        return ctl_fail(ctl, &err);
    if (format != CTL_TABLE) {
        Runtime__V1__ListContainersResponse all = RUNTIME__V1__LIST_CONTAINERS_RESPONSE__INIT;
        all.containers = containers;
        all.n_containers = count;
        ctl_print_message(ctl, &all.base, format);
        return 0;
    }
    if (!ctl->flags.quiet && !ctl->flags.verbose)
        return ctl_print_container_table(ctl, containers, count, &err) ? 0 : ctl_fail(ctl, &err);
    for (size_t i = 0; i < count; i++)
        if (ctl->flags.quiet)
            buf_printf(&ctl->out, "%s\n", containers[i]->id);
        else
            ctl_print_container(ctl, containers[i]);
    return 0;
}

/* ---- inspect ---- */

static void ctl_print_container_status(struct ctl *ctl, const Runtime__V1__ContainerStatusResponse *r)
{
    const Runtime__V1__ContainerStatus *s = r->status;
    const ProtobufCEnumValue *state = protobuf_c_enum_descriptor_get_value(&runtime__v1__container_state__descriptor,
                                                                           (int)s->state);
    struct buf *out = &ctl->out;

    buf_printf(out, "ID: %s\n", s->id);
    if (s->metadata != NULL && *s->metadata->name != '\0')
        buf_printf(out, "Name: %s\n", s->metadata->name);
    if (s->metadata != NULL && s->metadata->attempt != 0)
        buf_printf(out, "Attempt: %" PRIu32 "\n", s->metadata->attempt);
    buf_printf(out, "State: %s\nCreated: %s\n", state != NULL ? state->name : "?", ctl_ago(ctl, s->created_at));
    if (s->state != RUNTIME__V1__CONTAINER_STATE__CONTAINER_CREATED)
        buf_printf(out, "Started: %s\n", ctl_ago(ctl, s->started_at));
    if (s->state == RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED) {
        if (s->finished_at > 0)
            buf_printf(out, "Finished: %s\n", ctl_ago(ctl, s->finished_at));
        buf_printf(out, "Exit Code: %" PRId32 "\n", s->exit_code);
    }
    ctl_print_pairs(ctl, "Labels", s->labels, s->n_labels);
    ctl_print_pairs(ctl, "Annotations", s->annotations, s->n_annotations);
    ctl_print_pairs(ctl, "Info", r->info, r->n_info);
}

/* As crictl: times as text, and those that have not come yet as Go's zero time. */
static struct json *ctl_container_tree(struct ctl *ctl, const Runtime__V1__ContainerStatusResponse *r)
{
    const Runtime__V1__ContainerStatus *s = r->status;
    bool started = s->state != RUNTIME__V1__CONTAINER_STATE__CONTAINER_CREATED;
    bool finished = s->state == RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED ||
                    s->state == RUNTIME__V1__CONTAINER_STATE__CONTAINER_UNKNOWN;
    struct json *status = ctl_tree(ctl, s, PROTOJSON_EMIT_DEFAULTS);

    ctl_tree_set(ctl, status, "createdAt", ctl_time(ctl, s->created_at));
    ctl_tree_set(ctl, status, "startedAt", ctl_time(ctl, started ? s->started_at : 0));
    ctl_tree_set(ctl, status, "finishedAt", ctl_time(ctl, finished ? s->finished_at : 0));
    return ctl_status_tree(ctl, status, r->info, r->n_info);
}

static const Runtime__V1__ContainerStatusResponse *ctl_container_status(struct ctl *ctl, const char *id, struct status *err)
{
    Runtime__V1__ContainerStatusRequest request = RUNTIME__V1__CONTAINER_STATUS_REQUEST__INIT;

    request.container_id = (char *)(uintptr_t)id;
    request.verbose = !ctl->flags.quiet;
    const Runtime__V1__ContainerStatusResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "ContainerStatus", &request, &runtime__v1__container_status_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err);
    if (r == NULL)
        status_prefix(err, "the status of the container %s", id);
    else if (r->status == NULL)
        status_set(err, STATUS_INTERNAL, "the runtime gave no status of the container %s", id);
    return r != NULL && r->status != NULL ? r : NULL;
}

static bool ctl_inspect_ids(struct ctl *ctl, const char *const **ids, size_t *count, struct status *err)
{
    Runtime__V1__Container **found;

    if (!ctl_list_containers(ctl, &found, count, err))
        return false;
    const char **list = ARENA_ARRAY(&ctl->arena, const char *, *count + 1);
    for (size_t i = 0; i < *count; i++)
        list[i] = found[i]->id;
    *ids = list;
    return true;
}

static bool ctl_inspect_show(struct ctl *ctl, const char *id, bool text, struct json **tree, struct status *err)
{
    const Runtime__V1__ContainerStatusResponse *r = ctl_container_status(ctl, id, err);

    if (r != NULL && text)
        ctl_print_container_status(ctl, r);
    else if (r != NULL)
        *tree = ctl_container_tree(ctl, r);
    return r != NULL;
}

int ctl_inspect(void *context, const char *const *arguments, size_t count)
{
    static const struct ctl_inspection kind = { "container", ctl_inspect_ids, ctl_inspect_show };

    return ctl_inspect_each(context, &kind, arguments, count);
}

#undef CTL_POD_NAME_LABEL
#undef CTL_POD_NAMESPACE_LABEL
