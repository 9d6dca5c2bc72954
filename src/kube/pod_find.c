/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/pod_find.h"

struct pod_find {
    struct kube_call *call; /* NULL: the names cannot be a pod's */
    struct loop *loop;
    struct deferred refused;
    char *namespace_, *name, *uid;
    void (*on_done)(void *arg, const struct json *pod, const struct status *err);
    void *arg;
};

/* kubelet gives static pods a uid of its own making; their mirror in the API says it in this annotation. */
#define POD_FIND_MIRROR "kubernetes.io/config.mirror"

static bool pod_find_is_it(const struct pod_find *find, const struct json *pod)
{
    const struct json *metadata = json_member(pod, "metadata");

    return strcmp(json_string(json_member(metadata, "uid"), ""), find->uid) == 0 ||
           strcmp(json_string(json_get(metadata, "annotations", POD_FIND_MIRROR), ""), find->uid) == 0;
}

static void pod_find_end(struct pod_find *find, const struct json *pod, const struct status *err)
{
    void (*on_done)(void *arg, const struct json *pod, const struct status *err) = find->on_done;
    void *arg = find->arg;

    find->call = NULL;
    pod_find_cancel(find);
    on_done(arg, pod, err);
}

static void pod_find_on_answer(void *arg, const struct kube_answer *answer)
{
    struct pod_find *find = arg;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    const struct json *pod = NULL;

    if (answer->err != NULL) {
        err = *answer->err;
    } else if ((pod = json_parse(&arena, answer->body, &err)) == NULL) {
        status_prefix(&err, "the API server's answer for pod %s/%s", find->namespace_, find->name);
    } else if (!pod_find_is_it(find, pod)) {
        status_set(&err, STATUS_NOT_FOUND, "the API server has pod %s/%s with uid %.64s, not %.64s", find->namespace_, find->name,
                   json_string(json_get(pod, "metadata", "uid"), "none"), find->uid);
        pod = NULL;
    }
    pod_find_end(find, pod, pod == NULL ? &err : NULL);
}

static void pod_find_on_refused(void *arg)
{
    struct pod_find *find = arg;
    struct status err = STATUS_INIT;

    status_set(&err, STATUS_NOT_FOUND, "%.100s/%.100s is not the name of a Kubernetes pod", find->namespace_, find->name);
    pod_find_end(find, NULL, &err);
}

struct pod_find *pod_find_start(struct kube *kube, struct loop *loop, const char *namespace_, const char *name, const char *uid,
                                void (*on_done)(void *arg, const struct json *pod, const struct status *err), void *arg)
{
    struct pod_find *find = xcalloc(1, sizeof *find);

    *find = (struct pod_find){ .loop = loop, .namespace_ = xstrdup(namespace_), .name = xstrdup(name), .uid = xstrdup(uid),
                               .on_done = on_done, .arg = arg };
    if (!kube_name_valid(namespace_) || !kube_name_valid(name)) {
        deferred_start(loop, &find->refused, pod_find_on_refused, find);
        return find;
    }
    cleanup_free char *path = xasprintf("/api/v1/namespaces/%s/pods/%s", namespace_, name);
    find->call = kube_call_start(kube, &(struct kube_call_options){ .path = path, .timeout_ms = KUBE_POD_WAIT_MS,
                                                                    .on_answer = pod_find_on_answer, .arg = find });
    return find;
}

void pod_find_cancel(struct pod_find *find)
{
    if (find == NULL)
        return;
    kube_call_cancel(find->call);
    deferred_stop(&find->refused);
    free(find->namespace_);
    free(find->name);
    free(find->uid);
    free(find);
}

#undef POD_FIND_MIRROR
