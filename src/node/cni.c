/* SPDX-License-Identifier: Apache-2.0 */
#include "node/cni.h"

#include <bearssl_hash.h>
#include <dirent.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/child.h"
#include "io/netns.h"
#include "node/pod_network.h"
#include "node/sandbox.h"

#define CNI_NETNS_DIR "/run/netns"
/* An answer to STATUS counts for this long; kubelet asks for ours every 5 s. */
#define CNI_STATUS_KEEP_MS 10000
#define CNI_STATUS_TIMEOUT_MS 10000

struct cni {
    struct node *node;
    struct cni_exec exec;
    char tag[8 + 1];
    bool started;
    size_t running;    /* turns */
    struct list waiting;
    bool checking;     /* some pod's CHECK is under way */
    struct worker sweep;
    struct worker status;      /* asks the plugins */
    struct buf status_of;      /* of which network: its configuration */
    bool status_known;
    int64_t status_at_ms;      /* monotonic */
    struct status status_said; /* OK, or why not */
};

/* ---- what may be done here ---- */

static bool cni_may_make_namespaces(void)
{
    static const unsigned needed[] = { CAP_SYS_ADMIN, CAP_NET_ADMIN };
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { { 0, 0, 0 }, { 0, 0, 0 } };

    if (geteuid() != 0 || syscall(SYS_capget, &header, data) < 0)
        return false;
    for (size_t i = 0; i < COUNT_OF(needed); i++)
        if ((data[needed[i] / 32].effective & 1u << needed[i] % 32) == 0)
            return false;
    return true;
}

static void cni_make_tag(struct cni *cni)
{
    const char *dir = cni->node->options->state_dir;
    struct stat st = { .st_ino = 0 };
    br_sha256_context context;
    uint8_t digest[br_sha256_SIZE];

    stat(dir, &st);
    cleanup_free char *text = xasprintf("%s %ju %ju", dir, (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    br_sha256_init(&context);
    br_sha256_update(&context, text, strlen(text));
    br_sha256_out(&context, digest);
    hex_encode(digest, 4, cni->tag);
}

struct cni *cni_new(struct node *node)
{
    struct cni *cni = xcalloc(1, sizeof *cni);
    const struct node_options *o = node->options;

    cni->node = node;
    cni->exec = (struct cni_exec){ .folders = o->cni_bin_dirs, .timeout_ms = o->cni_timeout_ms };
    list_init(&cni->waiting);
    cni_make_tag(cni);
    return cni;
}

void cni_stop(struct cni *cni)
{
    if (cni != NULL)
        cni->started = false;
}

void cni_free(struct cni *cni)
{
    if (cni == NULL)
        return;
    worker_leave(&cni->sweep);
    worker_cancel(&cni->status);
    buf_free(&cni->status_of);
    free(cni);
}

const struct cni_exec *cni_exec_options(const struct cni *cni)
{
    return &cni->exec;
}

char *cni_netns_path(const struct cni *cni, struct arena *arena, const char *sandbox_id)
{
    return arena_printf(arena, CNI_NETNS_DIR "/icri-%s-%s", cni->tag, sandbox_id);
}

bool cni_started(const struct cni *cni)
{
    return cni->started;
}

/* ---- turns ---- */

void cni_turn_take(struct cni *cni, struct cni_turn *turn, void (*run)(void *arg), void *arg)
{
    turn->run = run;
    turn->arg = arg;
    turn->state = CNI_TURN_WAITS;
    list_init(&turn->link);
    if (cni->running >= CNI_RUNNING_MAX) {
        list_append(&cni->waiting, &turn->link);
        return;
    }
    cni->running++;
    turn->state = CNI_TURN_RUNS;
    run(arg);
}

void cni_turn_end(struct cni *cni, struct cni_turn *turn)
{
    bool ran = turn->state == CNI_TURN_RUNS;

    if (turn->state == CNI_TURN_WAITS)
        list_remove(&turn->link);
    turn->state = CNI_TURN_NONE;
    if (!ran)
        return;
    if (list_empty(&cni->waiting) || !cni->started) {
        cni->running--;
        return;
    }
    struct cni_turn *next = CONTAINER_OF(cni->waiting.next, struct cni_turn, link);
    list_remove(&next->link);
    next->state = CNI_TURN_RUNS;
    next->run(next->arg);
}

/* ---- CHECK, of one pod at a time: nobody waits for it ---- */

bool cni_check_begin(struct cni *cni)
{
    if (cni->checking)
        return false;
    cni->checking = true;
    return true;
}

void cni_check_end(struct cni *cni)
{
    struct strmap_iter it = { 0 };

    cni->checking = false;
    while (!cni->checking && strmap_next(&cni->node->sandboxes, &it))
        pod_network_resume(it.value);
}

/* ---- what there is ---- */

static bool cni_is_local(const struct node_options *o)
{
    bool local = false;

    for (size_t i = 0; i < o->handler_count; i++)
        local |= *o->handlers[i].url == '\0';
    return local;
}

/* Why pods use the machine's network whatever is configured; NULL: they need not. */
static const char *cni_off_reason(const struct node_options *o)
{
    if (strcmp(o->network_mode, "never") == 0)
        return "Network.Mode is never";
    if (!cni_is_local(o))
        return "no handler runs pods on this machine";
    if (!cni_may_make_namespaces() && strcmp(o->network_mode, "always") != 0)
        return "networks of their own need serve to be root, with CAP_SYS_ADMIN and CAP_NET_ADMIN";
    return NULL;
}

/* *reason: a word for the condition. */
static bool cni_find(const struct node_options *o, struct arena *arena, struct cni_network *out, bool *found, const char **reason,
                     struct status *err)
{
    *found = false;
    *reason = "CNINotPermitted";
    if (!cni_may_make_namespaces())
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "Network.Mode is always, but serve is not root with CAP_SYS_ADMIN and CAP_NET_ADMIN");
    *reason = "CNIConfigInvalid";
    if (!cni_network_find(arena, o->cni_conf_dir, out, found, err))
        return status_prefix(err, "the pod network's configuration is of no use");
    *reason = "CNINotConfigured";
    if (!*found && strcmp(o->network_mode, "always") == 0)
        return status_set(err, STATUS_UNAVAILABLE, "Network.Mode is always, but there is no CNI configuration in %s (yet)",
                          o->cni_conf_dir);
    *reason = "CNIPluginMissing";
    if (*found && !cni_network_check_programs(out, o->cni_bin_dirs, err)) {
        err->code = STATUS_FAILED_PRECONDITION;
        return false;
    }
    *reason = *found ? "CNI" : "JobNetwork";
    return true;
}

bool cni_describe(const struct node_options *o, struct arena *arena, struct cni_network *out, bool *found, const char **reason,
                  const char **message)
{
    static const char machines[] = "pods use the network of the machine their job runs on";
    const char *off = cni_off_reason(o);
    struct status err = STATUS_INIT;

    *found = false;
    *reason = "JobNetwork";
    if (off != NULL) {
        *message = arena_printf(arena, "%s: %s", machines, off);
        return true;
    }
    if (!cni_find(o, arena, out, found, reason, &err)) {
        *message = arena_strdup(arena, err.message);
        return false;
    }
    *message = *found ? arena_printf(arena, "pods on this machine get the CNI network %s of %s", out->name, out->file)
                      : arena_printf(arena, "%s: no CNI configuration is in %s", machines, o->cni_conf_dir);
    return true;
}

bool cni_offer(struct cni *cni, struct arena *arena, struct cni_network *out, bool *offered, struct status *err)
{
    const char *reason;

    *offered = false;
    return cni_off_reason(cni->node->options) != NULL || cni_find(cni->node->options, arena, out, offered, &reason, err);
}

/* ---- STATUS ---- */

/* In a worker. */
static bool cni_ask_status(void *arg, struct buf *output, struct status *err)
{
    struct cni *cni = arg;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct cni_exec exec = { .folders = cni->exec.folders, .timeout_ms = CNI_STATUS_TIMEOUT_MS };
    struct cni_network network;
    const char *reason;
    bool found;

    (void)output;
    return cni_find(cni->node->options, &arena, &network, &found, &reason, err) && (!found || cni_status(&exec, &network, err));
}

static void cni_on_status(void *arg, const struct status *err, struct buf *output)
{
    struct cni *cni = arg;

    (void)output;
    if (err != NULL && (cni->status_said.code == STATUS_OK || !cni->status_known))
        log_warn("the pod network is not ready: %s", err->message);
    cni->status_said = err != NULL ? *err : (struct status)STATUS_INIT;
    cni->status_known = true;
}

static void cni_renew_status(struct cni *cni, const struct cni_network *network)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;

    cni_network_write(network, &text);
    if (text.n != cni->status_of.n || memcmp(text.p, cni->status_of.p, text.n) != 0) {
        worker_cancel(&cni->status);
        cni->status_known = false;
        buf_clear(&cni->status_of);
        buf_append(&cni->status_of, text.p, text.n);
    }
    if (worker_running(&cni->status) || (cni->status_known && clock_mono_ms() - cni->status_at_ms < CNI_STATUS_KEEP_MS))
        return;
    cni->status_at_ms = clock_mono_ms();
    if (!worker_start(cni->node->loop, &cni->status, cni_ask_status, cni, cni_on_status, cni, &err))
        cni_on_status(cni, &err, NULL);
}

bool cni_condition(struct cni *cni, struct arena *arena, const char **reason, const char **message)
{
    struct cni_network network;
    bool found;

    if (!cni_describe(cni->node->options, arena, &network, &found, reason, message))
        return false;
    if (!found || !cni_network_since(&network, "1.1.0"))
        return true;
    cni_renew_status(cni, &network);
    if (cni->status_known && cni->status_said.code == STATUS_OK)
        return true;
    *reason = "CNINotReady";
    *message = cni->status_known ? arena_strdup(arena, cni->status_said.message)
                                 : "the plugins have not said yet whether they are ready";
    return false;
}

/* ---- the start ---- */

static bool cni_has_record(const struct cni *cni, const char *id)
{
    cleanup_free char *path = xasprintf("%s/sandboxes/%s", cni->node->options->state_dir, id);

    return access(path, F_OK) == 0;
}

/* A namespace whose pod nobody remembers: its record was lost. DEL is tried with what is configured now. */
static void cni_tidy(struct cni *cni, const char *name, const char *id)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const char *path = arena_printf(&arena, CNI_NETNS_DIR "/%s", name), *reason;
    struct status err = STATUS_INIT;
    struct cni_network network;
    bool found = false;
    struct cni_attachment attachment = { .container_id = id,
                                         .netns = netns_present(path) ? path : "",
                                         .interface = POD_NETWORK_INTERFACE,
                                         .arguments = "IgnoreUnknown=1" };

    cleanup_close int lock = cni_lock(id, cni->exec.timeout_ms, &err);
    cni_end_strays(id, 0);
    if (cni_off_reason(cni->node->options) == NULL && cni_find(cni->node->options, &arena, &network, &found, &reason, &err) && found)
        (void)cni_del(&cni->exec, &network, &attachment, &err);
    if (netns_remove(path, &err))
        log_warn("the network of pod %.13s, of which there is no record, was removed%s%s", id, *err.message != '\0' ? "; but " : "",
                 err.message);
    else
        log_warn("%s", err.message);
}

/* What is left in plugins' own stores. Nobody else's chain runs yet. */
static void cni_collect_garbage(struct cni *cni, const char *const *ids, size_t count)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    struct cni_network network;
    struct json *valid = json_new(&arena, JSON_ARRAY, "", 0);
    const char *reason;
    bool found;

    if (!cni->node->options->cni_gc || cni_off_reason(cni->node->options) != NULL ||
        !cni_find(cni->node->options, &arena, &network, &found, &reason, &err) || !found)
        return;
    for (size_t i = 0; i < count; i++) {
        /* An earlier life's chains must not run beside it. */
        int lock = cni_lock(ids[i], cni->exec.timeout_ms, &err);
        if (lock >= 0)
            close(lock);
        struct json *attachment = json_new(&arena, JSON_OBJECT, "", 0);
        json_append(attachment, "containerID", json_new(&arena, JSON_STRING, ids[i], strlen(ids[i])));
        json_append(attachment, "ifname", json_new(&arena, JSON_STRING, POD_NETWORK_INTERFACE, strlen(POD_NETWORK_INTERFACE)));
        json_append(valid, "", attachment);
    }
    if (!cni_gc(&cni->exec, &network, valid, &err))
        log_warn("%s", err.message);
}

/* In a worker. */
static bool cni_do_sweep(void *arg, struct buf *output, struct status *err)
{
    struct cni *cni = arg;
    cleanup_arena struct arena arena = ARENA_INIT;
    const char *prefix = arena_printf(&arena, "icri-%s-", cni->tag);
    const char **ids = ARENA_ARRAY(&arena, const char *, cni->node->sandboxes.count);
    struct strmap_iter it = { 0 };
    size_t count = 0;

    (void)output;
    (void)err;
    while (strmap_next(&cni->node->sandboxes, &it))
        if (pod_network_held(it.value))
            ids[count++] = it.key;
    DIR *dir = opendir(CNI_NETNS_DIR);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        const char *id = entry->d_name + strlen(prefix);
        if (str_starts(entry->d_name, prefix) && strlen(id) == ID_LENGTH && strspn(id, "0123456789abcdef") == ID_LENGTH &&
            !cni_has_record(cni, id))
            cni_tidy(cni, entry->d_name, id);
    }
    if (dir != NULL)
        closedir(dir);
    cni_collect_garbage(cni, ids, count);
    return true;
}

static void cni_on_swept(void *arg, const struct status *err, struct buf *output)
{
    struct cni *cni = arg;
    struct strmap_iter it = { 0 };

    (void)output;
    if (err != NULL)
        log_warn("tidying up pods' networks: %s", err->message);
    cni->started = true;
    while (strmap_next(&cni->node->sandboxes, &it))
        pod_network_resume(it.value);
}

void cni_start(struct cni *cni)
{
    struct status err = STATUS_INIT;

    /* Without the right to make any there are none to be tidied. */
    if (!cni_may_make_namespaces() || !cni_is_local(cni->node->options))
        cni_on_swept(cni, NULL, NULL);
    else if (!worker_start_lasting(cni->node->loop, &cni->sweep, cni_do_sweep, cni, cni_on_swept, cni, &err))
        cni_on_swept(cni, &err, NULL);
}

#undef CNI_NETNS_DIR
#undef CNI_STATUS_KEEP_MS
#undef CNI_STATUS_TIMEOUT_MS
