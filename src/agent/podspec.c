/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/podspec.h"

#include "io/beneath.h"
#include "text/json.h"

/* ---- names ---- */

/* RFC 1123: what Kubernetes takes for a container or a volume. It becomes part of a path. */
static bool podspec_label_ok(const char *name)
{
    size_t n = strlen(name);

    return n > 0 && n <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n && name[0] != '-' && name[n - 1] != '-';
}

static bool podspec_check_name(struct strmap *seen, const char *name, const char *field, struct status *err)
{
    if (!podspec_label_ok(name))
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s.name: \"%.80s\" is no DNS label", field, name);
    if (strmap_put(seen, name, seen) != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s.name: there are two called \"%s\"", field, name);
    return true;
}

/* ---- what cannot be had ---- */

/* Whether a client has said something by it: Go's clients write what is empty, too. */
static bool podspec_says(const struct json *j)
{
    if (j == NULL || j->type == JSON_NULL)
        return false;
    if (j->type == JSON_BOOL)
        return j->boolean;
    return j->type == JSON_ARRAY || j->type == JSON_OBJECT ? j->count > 0 : j->text[0] != '\0';
}

/* Nothing is dropped in silence. */
static bool podspec_refuse(const struct json *j, const char *const *names, size_t count, struct status *err)
{
    for (size_t i = 0; i < count; i++) {
        const struct json *member = json_member(j, names[i]);
        if (!podspec_says(member))
            continue;
        json_fail(member, err, "this cannot be had here");
        err->code = STATUS_FAILED_PRECONDITION;
        return false;
    }
    return true;
}

static bool podspec_refuse_of_pod(const struct json *spec, const struct json *context, struct status *err)
{
    static const char *const fields[] = { "hostPID", "hostIPC", "hostAliases", "resourceClaims", "ephemeralContainers" };
    static const char *const security[] = { "seLinuxOptions", "sysctls", "windowsOptions" };

    return podspec_refuse(spec, fields, COUNT_OF(fields), err) && podspec_refuse(context, security, COUNT_OF(security), err);
}

static bool podspec_refuse_of_container(const struct json *j, const struct json *context, struct status *err)
{
    static const char *const fields[] = { "volumeDevices", "restartPolicyRules" };
    static const char *const security[] = { "seLinuxOptions", "windowsOptions" };
    static const char *const mounts[] = { "subPathExpr", "recursiveReadOnly" };
    static const char *const life[] = { "stopSignal" };
    const struct json *list = json_member(j, "volumeMounts");
    const char *mask = json_string(json_member(context, "procMount"), "");

    for (JSON_EACH(mount, list)) {
        const char *propagation = json_string(json_member(mount, "mountPropagation"), "");
        if (!podspec_refuse(mount, mounts, COUNT_OF(mounts), err))
            return false;
        if (propagation[0] != '\0' && strcmp(propagation, "None") != 0)
            return json_fail(mount, err, "mountPropagation: \"%.40s\" cannot be had here", propagation);
    }
    if (mask[0] != '\0' && strcmp(mask, "Default") != 0)
        return json_fail(context, err, "procMount: \"%.40s\" cannot be had here", mask);
    return podspec_refuse(j, fields, COUNT_OF(fields), err) && podspec_refuse(context, security, COUNT_OF(security), err) &&
           podspec_refuse(json_member(j, "lifecycle"), life, COUNT_OF(life), err);
}

/* ---- volumes ---- */

const struct interlink_volume *podspec_volume(const struct podspec *spec, const char *name)
{
    for (size_t i = 0; i < spec->create.pod.volume_count; i++)
        if (strcmp(spec->create.pod.volumes[i].name, name) == 0)
            return &spec->create.pod.volumes[i];
    return NULL;
}

static const struct interlink_object *podspec_find_object(const struct interlink_object *objects, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(objects[i].name, name) == 0)
            return &objects[i];
    return NULL;
}

const struct interlink_object *podspec_object(const struct podspec *spec, const struct interlink_volume *v)
{
    const struct interlink_create *create = &spec->create;

    switch (v->kind) {
    case INTERLINK_VOLUME_CONFIG_MAP:
        return podspec_find_object(create->config_maps, create->config_map_count, v->source);
    case INTERLINK_VOLUME_SECRET:
        return podspec_find_object(create->secrets, create->secret_count, v->source);
    case INTERLINK_VOLUME_PROJECTED:
        return podspec_find_object(create->projected, create->projected_count, v->name);
    case INTERLINK_VOLUME_EMPTY_DIR:
    case INTERLINK_VOLUME_HOST_PATH:
    case INTERLINK_VOLUME_OTHER:
        break;
    }
    return NULL;
}

static bool podspec_check_items(const struct interlink_volume *v, const struct interlink_object *object, const char *field,
                                struct status *err)
{
    for (size_t i = 0; i < v->item_count; i++)
        if (!beneath_is_plain(v->items[i].path))
            return status_set(err, STATUS_INVALID_ARGUMENT, "%s.items[%zu].path: \"%.80s\" is no path within a volume", field, i,
                              v->items[i].path);
    for (size_t i = 0; object != NULL && v->item_count == 0 && i < object->file_count; i++)
        if (!beneath_is_plain(object->files[i].key))
            return status_set(err, STATUS_INVALID_ARGUMENT, "%s: the key \"%.80s\" of %.80s is no path within a volume", field,
                              object->files[i].key, object->name);
    return true;
}

static bool podspec_check_volume(const struct podspec *spec, const struct interlink_volume *v, const char *field, struct status *err)
{
    const struct interlink_object *object = podspec_object(spec, v);

    if (v->kind == INTERLINK_VOLUME_OTHER)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s: a volume of the kind \"%.60s\" cannot be had here", field, v->other);
    if (v->kind == INTERLINK_VOLUME_HOST_PATH)
        return v->source[0] == '/' || status_set(err, STATUS_INVALID_ARGUMENT, "%s.hostPath.path: \"%.80s\" is not absolute", field,
                                                 v->source);
    return podspec_check_items(v, object, field, err);
}

/* An API server sends along only what a container mounts. */
static bool podspec_check_mounted(const struct podspec *spec, const struct interlink_volume *v, const char *field, struct status *err)
{
    bool files = v->kind == INTERLINK_VOLUME_CONFIG_MAP || v->kind == INTERLINK_VOLUME_SECRET || v->kind == INTERLINK_VOLUME_PROJECTED;

    if (!files || v->optional || podspec_object(spec, v) != NULL)
        return true;
    return status_set(err, STATUS_FAILED_PRECONDITION, "%s: what volume %s is made of (\"%.80s\") did not come with the create request",
                      field, v->name, v->kind == INTERLINK_VOLUME_PROJECTED ? v->name : v->source);
}

static bool podspec_check_volumes(struct podspec *spec, struct status *err)
{
    cleanup_strmap struct strmap seen = STRMAP_INIT;

    for (size_t i = 0; i < spec->create.pod.volume_count; i++) {
        char field[64];
        snprintf(field, sizeof field, "pod.spec.volumes[%zu]", i);
        if (!podspec_check_name(&seen, spec->create.pod.volumes[i].name, field, err) ||
            !podspec_check_volume(spec, &spec->create.pod.volumes[i], field, err))
            return false;
    }
    return true;
}

static bool podspec_check_mounts(const struct podspec *spec, const struct podspec_container *c, struct status *err)
{
    if (c->base->mount_count > PODSPEC_MOUNTS_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s.volumeMounts: more than %d", c->field, PODSPEC_MOUNTS_MAX);
    for (size_t i = 0; i < c->base->mount_count; i++) {
        const struct interlink_mount *m = &c->base->mounts[i];
        const struct interlink_volume *v = podspec_volume(spec, m->name);
        char field[128];
        snprintf(field, sizeof field, "%s.volumeMounts[%zu]", c->field, i);
        if (v == NULL)
            return status_set(err, STATUS_INVALID_ARGUMENT, "%s.name: the pod has no volume \"%.80s\"", field, m->name);
        if (m->mount_path[0] != '/' || strlen(m->mount_path) > FILES_PATH_MAX)
            return status_set(err, STATUS_INVALID_ARGUMENT, "%s.mountPath: \"%.80s\" is no absolute path", field, m->mount_path);
        if (m->sub_path[0] != '\0' && !beneath_is_plain(m->sub_path))
            return status_set(err, STATUS_INVALID_ARGUMENT, "%s.subPath: \"%.80s\" is no path within a volume", field, m->sub_path);
        if (!podspec_check_mounted(spec, v, field, err))
            return false;
    }
    return true;
}

/* ---- security ---- */

static bool podspec_read_strings(struct arena *arena, const struct json *parent, const char *name, struct interlink_strings *out,
                                 struct status *err)
{
    const struct json *list = NULL;

    if (!json_read_node(parent, name, JSON_ARRAY, &list, err))
        return false;
    if (list == NULL || list->count == 0)
        return true;
    *out = (struct interlink_strings){ ARENA_ARRAY(arena, const char *, list->count), 0 };
    for (JSON_EACH(item, list))
        if (!json_as_string(item, &out->items[out->count++], err))
            return false;
    return true;
}

/* What pods and containers have in common; the latter's counts more. */
static bool podspec_read_security_common(const struct json *j, struct podspec_security *s, struct status *err)
{
    const struct json *seccomp = NULL;

    if (!json_read_i64(j, "runAsUser", 0, INT32_MAX, &s->run_as_user, err) ||
        !json_read_i64(j, "runAsGroup", 0, INT32_MAX, &s->run_as_group, err) ||
        !json_read_bool(j, "runAsNonRoot", &s->run_as_non_root, err) ||
        !json_read_node(j, "seccompProfile", JSON_OBJECT, &seccomp, err) || !json_read_string(seccomp, "type", &s->seccomp, err))
        return false;
    if (s->seccomp[0] != '\0' && strcmp(s->seccomp, "RuntimeDefault") != 0 && strcmp(s->seccomp, "Unconfined") != 0)
        return json_fail(seccomp, err, "\"%.60s\" cannot be had here: RuntimeDefault and Unconfined can", s->seccomp);
    return true;
}

static bool podspec_read_security(struct arena *arena, const struct json *j, struct podspec_security *s, struct status *err)
{
    const struct json *capabilities = NULL;
    bool escalation = true;

    if (!podspec_read_security_common(j, s, err) || !json_read_bool(j, "privileged", &s->privileged, err) ||
        !json_read_bool(j, "readOnlyRootFilesystem", &s->read_only_root, err) ||
        !json_read_bool(j, "allowPrivilegeEscalation", &escalation, err) ||
        !json_read_node(j, "capabilities", JSON_OBJECT, &capabilities, err) ||
        !podspec_read_strings(arena, capabilities, "add", &s->add, err) ||
        !podspec_read_strings(arena, capabilities, "drop", &s->drop, err))
        return false;
    s->no_new_privs = !escalation;
    if (s->run_as_non_root && s->run_as_user == 0)
        return json_fail(j, err, "runAsNonRoot does not allow the user 0");
    return true;
}

static bool podspec_read_groups(struct arena *arena, const struct json *j, struct podspec *spec, struct status *err)
{
    const struct json *list = NULL;

    if (!json_read_i64(j, "fsGroup", 0, INT32_MAX, &spec->fs_group, err) ||
        !json_read_node(j, "supplementalGroups", JSON_ARRAY, &list, err))
        return false;
    spec->groups = ARENA_ARRAY(arena, int64_t, (list != NULL ? list->count : 0) + 1);
    for (JSON_EACH(item, list))
        if (!json_as_i64(item, 0, INT32_MAX, &spec->groups[spec->group_count++], err))
            return false;
    if (spec->fs_group >= 0)
        spec->groups[spec->group_count++] = spec->fs_group;
    return true;
}

/* ---- containers ---- */

static bool podspec_read_termination(const struct json *j, struct podspec_container *c, struct status *err)
{
    const char *policy = "";

    c->termination_path = "/dev/termination-log";
    if (!json_read_string(j, "terminationMessagePath", &c->termination_path, err) ||
        !json_read_string(j, "terminationMessagePolicy", &policy, err))
        return false;
    c->termination_log_falls_back = strcmp(policy, "FallbackToLogsOnError") == 0;
    return c->termination_path[0] == '/' || c->termination_path[0] == '\0' || json_fail(j, err, "terminationMessagePath is not absolute");
}

/* As Kubernetes defaults it: a moving tag is looked up each time. */
static const char *podspec_default_policy(const char *image)
{
    const char *name = strrchr(image, '/'), *tag;

    name = name != NULL ? name : image;
    if (image[0] == '/' || strchr(name, '@') != NULL)
        return "IfNotPresent";
    tag = strrchr(name, ':');
    return tag == NULL || strcmp(tag, ":latest") == 0 ? "Always" : "IfNotPresent";
}

static bool podspec_read_container(struct arena *arena, struct podspec *spec, struct podspec_container *c,
                                   const struct podspec_security *pods, struct status *err)
{
    const struct json *j = c->base->json, *security = NULL;
    const char *restart = "";

    c->security = *pods;
    c->pull_policy = "";
    if (c->base->image[0] == '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s.image: missing", c->field);
    if (!json_read_string(j, "restartPolicy", &restart, err) || !json_read_string(j, "imagePullPolicy", &c->pull_policy, err) ||
        !json_read_bool(j, "stdin", &c->stdin, err) || !podspec_read_termination(j, c, err) ||
        !json_read_node(j, "securityContext", JSON_OBJECT, &security, err) ||
        !podspec_read_security(arena, security, &c->security, err) || !podspec_refuse_of_container(j, security, err))
        return false;
    if (c->pull_policy[0] == '\0')
        c->pull_policy = podspec_default_policy(c->base->image);
    if (restart[0] != '\0' && (c->role == PODSPEC_MAIN || strcmp(restart, "Always") != 0))
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s.restartPolicy: \"%.40s\" cannot be had here%s", c->field, restart,
                          c->role == PODSPEC_MAIN ? ": it is the pod's that counts" : ": Always (a sidecar) can");
    if (restart[0] != '\0')
        c->role = PODSPEC_SIDECAR;
    return podspec_check_mounts(spec, c, err) && podspec_read_env(arena, spec, c, err) &&
           podspec_read_probes(arena, j, c, err);
}

static bool podspec_read_containers(struct arena *arena, struct podspec *spec, const struct podspec_security *pods, struct status *err)
{
    const struct interlink_pod *pod = &spec->create.pod;
    cleanup_strmap struct strmap seen = STRMAP_INIT;

    spec->init_count = pod->init_container_count;
    spec->count = pod->init_container_count + pod->container_count;
    if (pod->container_count == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "pod.spec.containers: a pod has at least one");
    if (spec->count > PODSPEC_CONTAINERS_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "pod.spec.containers: %zu with the init containers; at most %d are run",
                          spec->count, PODSPEC_CONTAINERS_MAX);
    spec->containers = ARENA_ARRAY(arena, struct podspec_container, spec->count);
    for (size_t i = 0; i < spec->count; i++) {
        struct podspec_container *c = &spec->containers[i];
        bool init = i < spec->init_count;
        c->base = init ? &pod->init_containers[i] : &pod->containers[i - spec->init_count];
        c->role = init ? PODSPEC_INIT : PODSPEC_MAIN;
        c->field = arena_printf(arena, "pod.spec.%s[%zu]", init ? "initContainers" : "containers", init ? i : i - spec->init_count);
        if (!podspec_check_name(&seen, c->base->name, c->field, err) || !podspec_read_container(arena, spec, c, pods, err))
            return false;
    }
    return true;
}

/* ---- the pod ---- */

static bool podspec_read_restart(const struct interlink_pod *pod, enum podspec_restart *out, struct status *err)
{
    static const char *const names[] = { "Always", "OnFailure", "Never" };

    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (strcmp(pod->restart_policy, names[i]) == 0 || (i == 0 && pod->restart_policy[0] == '\0')) {
            *out = (enum podspec_restart)i;
            return true;
        }
    return status_set(err, STATUS_INVALID_ARGUMENT, "pod.spec.restartPolicy: \"%.40s\" is none of Always, OnFailure, Never",
                      pod->restart_policy);
}

/* A create request, or only a pod: then it needs nothing else. */
static bool podspec_read_create(struct arena *arena, struct str manifest, struct interlink_create *out, struct status *err)
{
    const struct json *j = json_parse(arena, manifest, err);

    if (j == NULL || !json_want(j, JSON_OBJECT, err))
        return false;
    if (json_member(j, "pod") != NULL)
        return interlink_create_read(arena, manifest, out, err);
    *out = (struct interlink_create)INTERLINK_CREATE_INIT;
    return interlink_pod_read(arena, manifest, &out->pod, err);
}

bool podspec_read(struct arena *arena, struct str manifest, const char *address, struct podspec *out, struct status *err)
{
    struct podspec_security security = { .run_as_user = -1, .run_as_group = -1, .seccomp = "" };
    const struct json *spec = NULL, *context = NULL, *dns = NULL;

    *out = (struct podspec){ .fs_group = -1, .address = address };
    if (!podspec_read_create(arena, manifest, &out->create, err))
        return false;
    const struct interlink_pod *pod = &out->create.pod;
    if (!interlink_uid_valid(pod->uid))
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "pod.metadata.uid: wanted lower-case letters, digits and hyphens, at most %d", INTERLINK_UID_MAX);
    out->grace_seconds = pod->termination_grace_seconds >= 0 ? pod->termination_grace_seconds : PODSPEC_GRACE_SECONDS;
    out->hostname = pod->hostname[0] != '\0' ? pod->hostname : pod->name;
    return podspec_read_restart(pod, &out->restart, err) && json_read_node(pod->json, "spec", JSON_OBJECT, &spec, err) &&
           json_read_bool(spec, "shareProcessNamespace", &out->share_pids, err) &&
           json_read_node(spec, "securityContext", JSON_OBJECT, &context, err) &&
           json_read_node(spec, "dnsConfig", JSON_OBJECT, &dns, err) && podspec_read_strings(arena, dns, "nameservers", &out->dns_servers, err) &&
           podspec_read_strings(arena, dns, "searches", &out->dns_searches, err) && podspec_refuse_of_pod(spec, context, err) &&
           podspec_read_security_common(context, &security, err) && podspec_read_groups(arena, context, out, err) &&
           podspec_check_volumes(out, err) && podspec_read_containers(arena, out, &security, err);
}
