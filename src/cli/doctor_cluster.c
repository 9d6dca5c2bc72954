/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster that this node belongs to. */
#include "cli/doctor.h"

#include <dirent.h>

#include "io/file.h"
#include "io/loop.h"
#include "kube/kube.h"
#include "kube/node_name.h"
#include "kube/pod_size.h"
#include "node/site_capacity.h"
#include "text/yaml.h"

/* kubelet's files are small. */
#define DOCTOR_FILE_MAX (1u << 20)
#define DOCTOR_HUGEPAGES "/sys/kernel/mm/hugepages"
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
        doctor_say(c->d, DOCTOR_FAIL, "cluster", mend, "%s", c->err.message);
        return false;
    }
    if (!answered || !node_name_read(c->body, c->node, user))
        node_name_of_host(c->node);
    if (*c->d->config.node.node_name != '\0')
        snprintf(c->node, sizeof c->node, "%s", c->d->config.node.node_name);
    doctor_say(c->d, DOCTOR_OK, "cluster", "", "%s takes us for %s", kube_server(c->kube), user);
    return true;
}

static bool doctor_cluster_node(struct doctor_cluster *c)
{
    cleanup_free char *path = xasprintf("/api/v1/nodes/%s", c->node);

    if (!doctor_cluster_call(c, "GET", path, (struct str){ "", 0 })) {
        doctor_say(c->d, DOCTOR_WARN, "node", "start kubelet, or say in Node.Name what the cluster calls this node", "%s",
                   c->err.message);
        return false;
    }
    for (JSON_EACH(a, json_get(c->answer, "metadata", "annotations"))) {
        if (!str_starts(a->key, SITE_CAPACITY_PREFIX "hugepages-"))
            continue;
        doctor_say(c->d, DOCTOR_WARN, "node", "kubectl annotate node NAME ANNOTATION-", "%s has the annotation %s: the policy passes it "
                   "over, since kubelet would evict every pod", c->node, a->key);
        return true;
    }
    doctor_say(c->d, DOCTOR_OK, "node", "", "%s is in the cluster", c->node);
    return true;
}

/* A dry run goes through admission and changes nothing. */
static void doctor_cluster_policy(struct doctor_cluster *c)
{
    cleanup_free char *path = xasprintf("/api/v1/nodes/%s/status?dryRun=All", c->node);

    if (!doctor_cluster_call(c, "PATCH", path, STR(DOCTOR_PROBE_PATCH))) {
        doctor_say(c->d, DOCTOR_WARN, "capacity", "use kubelet's credentials, or those of deploy/node-access.yaml", "%s", c->err.message);
        return;
    }
    if (strcmp(json_string(json_get(c->answer, "status", "capacity", DOCTOR_PROBE), ""), "1") == 0) {
        doctor_say(c->d, DOCTOR_OK, "capacity", "", "the admission policy gives %s the capacity of the sites behind it", c->node);
        return;
    }
    const char *version = "";
    if (doctor_cluster_call(c, "GET", "/version", (struct str){ "", 0 }))
        version = json_string(json_member(c->answer, "gitVersion"), "");
    doctor_say(c->d, DOCTOR_WARN, "capacity", "kubectl apply -f deploy/capacity-policy.yaml (Kubernetes 1.36 or newer)",
               "the cluster (%s) has no policy that gives %s the capacity of the sites behind it: larger pods are not scheduled",
               version, c->node);
}

void doctor_check_cluster(struct doctor *d)
{
    struct doctor_cluster c = { .d = d };
    struct status err = STATUS_INIT;

    if (!d->configured)
        return;
    if (*d->config.node.kubeconfig == '\0') {
        if (doctor_is_remote(d))
            doctor_say(d, DOCTOR_WARN, "cluster", "set Kubeconfig, on a node of a cluster to kubelet's",
                       "without Kubeconfig jobs are not told of memory requests, GPUs and deadlines but by annotations");
        return;
    }
    c.loop = loop_new(&err);
    if (c.loop == NULL) {
        doctor_say(d, DOCTOR_FAIL, "cluster", "", "%s", err.message);
        return;
    }
    c.kube = kube_new(c.loop, d->config.node.kubeconfig);
    if (doctor_cluster_who(&c) && doctor_cluster_node(&c) && doctor_is_remote(d) && d->config.node.keep_capacity)
        doctor_cluster_policy(&c);
    kube_free(c.kube);
    loop_free(c.loop);
    arena_free(&c.arena);
}

/* ---- kubelet's own settings, which go by this machine ---- */

/* The value of a top-level key of one of kubelet's files, YAML or JSON; "" when there is none. */
static const char *doctor_kubelet_value(struct arena *arena, const char *dir, const char *file, const char *key)
{
    cleanup_free char *path = xasprintf("%s/%s", dir, file);
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;

    if (!file_read(path, DOCTOR_FILE_MAX, &text, &ignored))
        return "";
    return json_string(json_member(yaml_parse(arena, (struct str){ buf_cstr(&text), text.n }, &ignored), key), "");
}

void doctor_check_kubelet(struct doctor *d)
{
    static const struct {
        const char *what, *file, *key, *policy;
    } table[] = {
        { "cpuManagerPolicy", "cpu_manager_state", "policyName", "static" },
        { "cpuManagerPolicy", "config.yaml", "cpuManagerPolicy", "static" },
        { "memoryManagerPolicy", "memory_manager_state", "policyName", "Static" },
        { "memoryManagerPolicy", "config.yaml", "memoryManagerPolicy", "Static" },
    };
    cleanup_arena struct arena arena = ARENA_INIT;

    if (!doctor_is_remote(d))
        return;
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        if (strcmp(doctor_kubelet_value(&arena, d->kubelet_dir, table[i].file, table[i].key), table[i].policy) != 0)
            continue;
        cleanup_free char *mend = xasprintf("set %s to none (None) in kubelet's configuration, remove %s/*_manager_state, and start it anew",
                                            table[i].what, d->kubelet_dir);
        doctor_say(d, DOCTOR_WARN, "kubelet", mend, "%s/%s: %s is %s: kubelet refuses pods that need more than this machine has",
                   d->kubelet_dir, table[i].file, table[i].what, table[i].policy);
        return;
    }
    doctor_say(d, DOCTOR_OK, "kubelet", "", "its CPU and memory managers keep out of the way, as far as %s tells", d->kubelet_dir);
}

void doctor_check_hugepages(struct doctor *d)
{
    cleanup_buf struct buf found = BUF_INIT;
    struct status ignored = STATUS_INIT;
    const struct dirent *entry;

    if (!doctor_is_remote(d))
        return;
    DIR *dir = opendir(DOCTOR_HUGEPAGES);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        cleanup_free char *path = xasprintf(DOCTOR_HUGEPAGES "/%s/nr_hugepages", entry->d_name);
        cleanup_buf struct buf text = BUF_INIT;
        if (str_starts(entry->d_name, "hugepages-") && file_read(path, 64, &text, &ignored) && strtoll(buf_cstr(&text), NULL, 10) > 0)
            buf_printf(&found, "%s%lld of %s", found.n > 0 ? ", " : "", strtoll(buf_cstr(&text), NULL, 10),
                       entry->d_name + strlen("hugepages-"));
    }
    if (dir != NULL)
        closedir(dir);
    if (found.n > 0)
        doctor_say(d, DOCTOR_WARN, "huge pages", "set vm.nr_hugepages to 0, unless pods on this machine itself need them",
                   "%s: kubelet counts this machine's, whatever sites have, and takes them off the memory that it sees", buf_cstr(&found));
    else
        doctor_say(d, DOCTOR_OK, "huge pages", "", "none are set aside on this machine");
}

#undef DOCTOR_FILE_MAX
#undef DOCTOR_HUGEPAGES
#undef DOCTOR_PROBE
#undef DOCTOR_PROBE_PATCH
