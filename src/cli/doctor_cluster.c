/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster that this node belongs to. */
#include "cli/doctor.h"

#include <unistd.h>

#include "io/loop.h"
#include "kube/kube.h"
#include "kube/node_name.h"
#include "kube/pod_size.h"
#include "node/site_capacity.h"
#include "text/json.h"

/* Asked of the API server in a dry run: whether the policy would take it over. */
#define DOCTOR_PROBE "interlink.eu/doctor"
#define DOCTOR_PROBE_PATCH "{\"metadata\":{\"annotations\":{\"" SITE_CAPACITY_PREFIX "interlink.eu_doctor\":\"1\"}}}"

bool doctor_is_remote(const struct doctor *d)
{
    for (size_t i = 0; d->configured && i < d->config.node.handler_count; i++)
        if (*d->config.node.handlers[i].url != '\0')
            return true;
    return false;
}

/* ---- calls, one after another ---- */

struct doctor_cluster {
    struct doctor *d;
    struct loop *loop;
    struct kube *kube;
    struct arena arena;
    const struct json *answer; /* on `arena` */
    struct str body;           /* likewise */
    int http_status;
    struct status err;
    bool done;
    char node[NODE_NAME_SIZE];
};

static void doctor_cluster_on_answer(void *arg, const struct kube_answer *answer)
{
    struct doctor_cluster *c = arg;

    c->done = true;
    c->http_status = answer->http_status;
    c->err = answer->err != NULL ? *answer->err : (struct status)STATUS_INIT;
    c->body = (struct str){ arena_strndup(&c->arena, answer->body.p, answer->body.n), answer->body.n };
}

static bool doctor_cluster_call(struct doctor_cluster *c, const char *method, const char *path, struct str body)
{
    c->done = false;
    c->answer = NULL;
    kube_call_start(c->kube, &(struct kube_call_options){ .method = method,
                                                          .path = path,
                                                          .content_type = strcmp(method, "PATCH") == 0
                                                                              ? "application/merge-patch+json"
                                                                              : NULL,
                                                          .body = body,
                                                          .timeout_ms = 5000,
                                                          .on_answer = doctor_cluster_on_answer,
                                                          .arg = c });
    while (!c->done)
        loop_turn(c->loop, -1);
    if (c->err.code == STATUS_OK)
        c->answer = json_parse(&c->arena, c->body, &c->err);
    return c->answer != NULL;
}

/* ---- the API server and the Node ---- */

static bool doctor_cluster_who(struct doctor_cluster *c)
{
    static const char mend[] = "see Kubeconfig in docs/config.example.yaml; serve goes on without, but does not know how large pods are";
    char user[NODE_NAME_SIZE] = "somebody";

    bool answered = doctor_cluster_call(c, "POST", NODE_NAME_PATH, STR(NODE_NAME_BODY));
    if (!answered && c->http_status != 404 && c->http_status != 403) {
        doctor_say(c->d, FINDING_FAIL, "cluster", mend, "%s", c->err.message);
        return false;
    }
    if (!answered || !node_name_read(c->body, c->node, user))
        node_name_of_host(c->node);
    if (*c->d->config.node.node_name != '\0')
        snprintf(c->node, sizeof c->node, "%s", c->d->config.node.node_name);
    doctor_say(c->d, FINDING_OK, "cluster", "", "%s takes us for %s", kube_server(c->kube), user);
    return true;
}

static bool doctor_cluster_node(struct doctor_cluster *c)
{
    cleanup_free char *path = xasprintf("/api/v1/nodes/%s", c->node);

    if (!doctor_cluster_call(c, "GET", path, (struct str){ "", 0 })) {
        doctor_say(c->d, FINDING_WARN, "node", "start kubelet, or say in Node.Name what the cluster calls this node", "%s",
                   c->err.message);
        return false;
    }
    for (JSON_EACH(a, json_get(c->answer, "metadata", "annotations"))) {
        if (!str_starts(a->key, SITE_CAPACITY_PREFIX "hugepages-"))
            continue;
        doctor_say(c->d, FINDING_WARN, "node", "kubectl annotate node NAME ANNOTATION-", "%s has the annotation %s: the policy passes it "
                   "over, since kubelet would evict every pod", c->node, a->key);
        return true;
    }
    doctor_say(c->d, FINDING_OK, "node", "", "%s is in the cluster", c->node);
    return true;
}

/* A dry run goes through admission and changes nothing. */
static void doctor_cluster_policy(struct doctor_cluster *c)
{
    cleanup_free char *path = xasprintf("/api/v1/nodes/%s/status?dryRun=All", c->node);

    if (!doctor_cluster_call(c, "PATCH", path, STR(DOCTOR_PROBE_PATCH))) {
        doctor_say(c->d, FINDING_WARN, "capacity", "use kubelet's credentials, or those of deploy/node-access.yaml", "%s", c->err.message);
        return;
    }
    if (strcmp(json_string(json_get(c->answer, "status", "capacity", DOCTOR_PROBE), ""), "1") == 0) {
        doctor_say(c->d, FINDING_OK, "capacity", "", "the admission policy gives %s the capacity of the sites behind it", c->node);
        return;
    }
    const char *version = "";
    if (doctor_cluster_call(c, "GET", "/version", (struct str){ "", 0 }))
        version = json_string(json_member(c->answer, "gitVersion"), "");
    doctor_say(c->d, FINDING_WARN, "capacity", "kubectl apply -f deploy/capacity-policy.yaml (Kubernetes 1.36 or newer)",
               "the cluster (%s) has no policy that gives %s the capacity of the sites behind it: larger pods are not scheduled",
               version, c->node);
}

/* Pods name a RuntimeClass, and that names a handler. */
static void doctor_cluster_classes(struct doctor_cluster *c)
{
    const struct node_options *o = &c->d->config.node;
    cleanup_buf struct buf missing = BUF_INIT;

    if (!doctor_cluster_call(c, "GET", "/apis/node.k8s.io/v1/runtimeclasses", (struct str){ "", 0 })) {
        doctor_say(c->d, FINDING_WARN, "runtime classes", "use kubelet's credentials, or those of deploy/node-access.yaml", "%s", c->err.message);
        return;
    }
    for (size_t i = 0; i < o->handler_count; i++) {
        bool found = strcmp(o->handlers[i].name, o->default_handler) == 0;
        for (JSON_EACH(class, json_member(c->answer, "items")))
            found = found || strcmp(json_string(json_member(class, "handler"), ""), o->handlers[i].name) == 0;
        if (!found)
            buf_printf(&missing, "%s%s", missing.n > 0 ? ", " : "", o->handlers[i].name);
    }
    if (missing.n > 0)
        doctor_say(c->d, FINDING_WARN, "runtime classes", "kubectl apply -f deploy/runtime-classes.yaml, with a RuntimeClass for each handler",
                   "no pod can ask for handler %s: no RuntimeClass names it", buf_cstr(&missing));
    else
        doctor_say(c->d, FINDING_OK, "runtime classes", "", "there is one for each handler, or it is the default");
}

void doctor_check_cluster(struct doctor *d)
{
    struct doctor_cluster c = { .d = d };
    struct status err = STATUS_INIT;

    if (!d->configured)
        return;
    if (*d->config.node.kubeconfig == '\0') {
        if (doctor_is_remote(d))
            doctor_say(d, FINDING_WARN, "cluster", "set Kubeconfig, on a node of a cluster to kubelet's",
                       "without Kubeconfig jobs are not told of memory requests, GPUs and deadlines but by annotations");
        return;
    }
    if (access(d->config.node.kubeconfig, F_OK) < 0 && errno == ENOENT) {
        doctor_say(d, FINDING_WARN, "cluster", "join the cluster (kubeadm join), or set Kubeconfig", "%s is not there yet", d->config.node.kubeconfig);
        return;
    }
    c.loop = loop_new(&err);
    if (c.loop == NULL) {
        doctor_say(d, FINDING_FAIL, "cluster", "", "%s", err.message);
        return;
    }
    c.kube = kube_new(c.loop, d->config.node.kubeconfig);
    if (doctor_cluster_who(&c)) {
        doctor_cluster_classes(&c);
        if (doctor_cluster_node(&c) && doctor_is_remote(d) && d->config.node.keep_capacity)
            doctor_cluster_policy(&c);
    }
    kube_free(c.kube);
    loop_free(c.loop);
    arena_free(&c.arena);
}

#undef DOCTOR_PROBE
#undef DOCTOR_PROBE_PATCH
