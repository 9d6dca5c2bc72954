/* SPDX-License-Identifier: Apache-2.0 */
#include "node/pod_network.h"

#include "agent/podns.h"
#include "io/child.h"
#include "io/netns.h"
#include "node/sandbox.h"
#include "rpc/pb.h"

/* Between attempts to remove a network: the first pause and the longest. */
#define POD_NETWORK_RETRY_MS 1000
#define POD_NETWORK_RETRY_MAX_MS 60000
/* What a plugin's worker left when it was killed has this long to end by itself. */
#define POD_NETWORK_STRAY_MS 2000

enum pod_network_op { POD_NETWORK_REST, POD_NETWORK_MAKE, POD_NETWORK_ADD, POD_NETWORK_CHECK, POD_NETWORK_REMOVE };

struct pod_network {
    struct sandbox *sandbox;
    enum pod_network_op op; /* under way, or waiting for its turn */
    struct cni_turn turn;
    struct worker worker;
    bool wanted;    /* it is to be made */
    bool resumed;   /* of an earlier life, and what is left of it was looked at */
    bool made;      /* the namespace is there */
    bool tried;     /* ADD was begun, as far as is known: so DEL is due */
    bool strays;    /* an earlier life's plugins may still be there */
    bool failed;    /* and will not be tried again */
    bool check;     /* is due */
    bool unwanted;  /* it is to be removed */
    struct timer retry;
    int64_t pause_ms;
    char *fault; /* owned */
};

static void pod_network_step(struct pod_network *net);

static struct pod_network *pod_network_of(struct sandbox *sandbox)
{
    if (sandbox->record->network == NULL || sandbox->record->network->removed)
        return NULL;
    if (sandbox->network == NULL) {
        sandbox->network = xcalloc(1, sizeof *sandbox->network);
        sandbox->network->sandbox = sandbox;
        sandbox->network->fault = xstrdup("");
        sandbox->network->pause_ms = POD_NETWORK_RETRY_MS;
    }
    return sandbox->network;
}

bool pod_network_held(const struct sandbox *sandbox)
{
    return sandbox->record->network != NULL && !sandbox->record->network->removed;
}

bool pod_network_up(const struct sandbox *sandbox)
{
    return sandbox->record->network == NULL || sandbox->record->network->result.len > 0;
}

const char *pod_network_fault(const struct sandbox *sandbox)
{
    return sandbox->network != NULL ? sandbox->network->fault : "";
}

/* ---- the work, in a forked copy of this process ---- */

struct pod_network_call {
    struct cni_network network;
    struct cni_attachment attachment;
};

static struct str pod_network_bytes(const ProtobufCBinaryData *data)
{
    return (struct str){ (const char *)data->data, data->len };
}

static bool pod_network_read(struct arena *arena, const struct sandbox *sandbox, struct pod_network_call *out, struct status *err)
{
    const Interlink__State__V1__PodNetwork *record = sandbox->record->network;

    if (!cni_network_parse(arena, pod_network_bytes(&record->network), &out->network, err))
        return status_prefix(err, "the network of the pod's record");
    out->attachment = (struct cni_attachment){ .container_id = sandbox->record->id,
                                               .netns = netns_present(record->netns) ? record->netns : "",
                                               .interface = POD_NETWORK_INTERFACE,
                                               .arguments = record->arguments };
    struct status ignored;
    out->attachment.capabilities = json_parse(arena, pod_network_bytes(&record->capabilities), &ignored);
    out->attachment.result = json_parse(arena, pod_network_bytes(&record->result), &ignored);
    return true;
}

static bool pod_network_make(const struct sandbox *sandbox, struct status *err)
{
    const Runtime__V1__LinuxPodSandboxConfig *config = sandbox->record->config->linux;
    const Runtime__V1__LinuxSandboxSecurityContext *s = config != NULL ? config->security_context : NULL;
    struct userns_map map;
    bool own;

    /* A pod with a user namespace of its own is the master of its network, too. */
    return podns_parse("linux.security_context.namespace_options", s != NULL ? s->namespace_options : NULL, &map, &own, err) &&
           netns_make(sandbox->record->network->netns, own ? &map : NULL, err);
}

static bool pod_network_work(void *arg, struct buf *output, struct status *err)
{
    const struct pod_network *net = arg;
    const struct cni_exec *exec = cni_exec_options(net->sandbox->node->cni);
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf result = BUF_INIT;
    struct pod_network_call call;

    cleanup_close int lock = cni_lock(net->sandbox->record->id, exec->timeout_ms, err);
    if (lock < 0)
        return false;
    if (net->op == POD_NETWORK_MAKE)
        return pod_network_make(net->sandbox, err);
    if (net->strays && net->op != POD_NETWORK_CHECK)
        cni_end_strays(net->sandbox->record->id, POD_NETWORK_STRAY_MS);
    if (!pod_network_read(&arena, net->sandbox, &call, err))
        return false;
    switch (net->op) {
    case POD_NETWORK_ADD:
        /* An ADD of an earlier life may have got anywhere. */
        if ((net->tried && !cni_del(exec, &call.network, &call.attachment, err)) ||
            !cni_add(exec, &call.network, &call.attachment, &result, err))
            return false;
        buf_append(output, result.p, result.n);
        return true;
    case POD_NETWORK_CHECK:
        return cni_check(exec, &call.network, &call.attachment, err);
    default:
        return (!net->tried || cni_del(exec, &call.network, &call.attachment, err)) &&
               netns_remove(net->sandbox->record->network->netns, err);
    }
}

/* ---- what comes of it ---- */

static void pod_network_note(struct pod_network *net, const struct status *err)
{
    free(net->fault);
    net->fault = xstrdup(err->message);
}

static void pod_network_fail(struct pod_network *net, const struct status *err)
{
    net->failed = true;
    log_warn("pod %.13s: its network: %s", net->sandbox->record->id, err->message);
    sandbox_on_network_failed(net->sandbox, err);
}

static void pod_network_added(struct pod_network *net, const struct buf *output)
{
    struct sandbox *sandbox = net->sandbox;
    Interlink__State__V1__Sandbox *record = sandbox->record;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct cni_result result;
    struct status err = STATUS_INIT;

    if (!cni_result_parse(&arena, (struct str){ (const char *)output->p, output->n }, POD_NETWORK_INTERFACE, &result, &err) ||
        result.address_count == 0) {
        pod_network_fail(net, &err);
        return;
    }
    free(record->network->result.data);
    record->network->result = (ProtobufCBinaryData){ .len = output->n, .data = xmemdup(output->p, output->n) };
    pb_set(&record->ip, result.addresses[0]);
    record->additional_ips = xcalloc(result.address_count, sizeof *record->additional_ips);
    for (size_t i = 1; i < result.address_count; i++)
        record->additional_ips[record->n_additional_ips++] = xstrdup(result.addresses[i]);
    sandbox_on_network_up(sandbox);
}

static void pod_network_removed(struct pod_network *net, const struct status *err)
{
    struct sandbox *sandbox = net->sandbox;

    if (err == NULL) {
        sandbox->record->network->removed = true;
        sandbox_on_network_removed(sandbox, NULL);
    } else {
        log_warn("pod %.13s: its network cannot be removed yet: %s", sandbox->record->id, err->message);
        pod_network_note(net, err);
        sandbox_on_network_removed(sandbox, err);
    }
}

static void pod_network_on_retry(void *arg)
{
    pod_network_step(arg);
}

static void pod_network_on_done(void *arg, const struct status *err, struct buf *output)
{
    struct pod_network *net = arg;
    struct sandbox *sandbox = net->sandbox;
    struct loop *loop = sandbox->node->loop;
    enum pod_network_op op = net->op;

    net->op = POD_NETWORK_REST;
    cni_turn_end(sandbox->node->cni, &net->turn);
    switch (op) {
    case POD_NETWORK_MAKE:
        net->made = err == NULL;
        if (err != NULL)
            pod_network_fail(net, err);
        else if (!net->unwanted)
            sandbox_on_network_made(sandbox);
        break;
    case POD_NETWORK_ADD:
        if (err != NULL)
            pod_network_fail(net, err);
        else
            pod_network_added(net, output);
        break;
    case POD_NETWORK_CHECK:
        if (err != NULL) {
            log_warn("pod %.13s: its network is not as it was made: %s", sandbox->record->id, err->message);
            pod_network_note(net, err);
        }
        cni_check_end(sandbox->node->cni);
        break;
    case POD_NETWORK_REMOVE:
        if (err != NULL) {
            timer_start(loop, &net->retry, net->pause_ms, pod_network_on_retry, net);
            net->pause_ms = net->pause_ms * 2 < POD_NETWORK_RETRY_MAX_MS ? net->pause_ms * 2 : POD_NETWORK_RETRY_MAX_MS;
        }
        /* The sandbox may be gone afterwards. */
        pod_network_removed(net, err);
        return;
    case POD_NETWORK_REST:
        break;
    }
    pod_network_step(net);
}

/* ---- one step after another ---- */

static void pod_network_run(void *arg)
{
    struct pod_network *net = arg;
    struct status err = STATUS_INIT;

    if (worker_start_lasting(net->sandbox->node->loop, &net->worker, pod_network_work, net, pod_network_on_done, net, &err)) {
        net->tried = net->tried || net->op == POD_NETWORK_ADD;
        net->strays = net->strays && net->op == POD_NETWORK_CHECK;
        return;
    }
    /* No process to be had: another try later, whatever it was to be. */
    log_warn("pod %.13s: its network: %s", net->sandbox->record->id, err.message);
    if (net->op == POD_NETWORK_CHECK)
        cni_check_end(net->sandbox->node->cni);
    net->op = POD_NETWORK_REST;
    cni_turn_end(net->sandbox->node->cni, &net->turn);
    timer_start(net->sandbox->node->loop, &net->retry, POD_NETWORK_RETRY_MS, pod_network_on_retry, net);
}

static enum pod_network_op pod_network_next(const struct pod_network *net)
{
    if (net->unwanted)
        return POD_NETWORK_REMOVE;
    if (net->failed)
        return POD_NETWORK_REST;
    if (net->wanted && !net->made)
        return POD_NETWORK_MAKE;
    if (net->wanted && !pod_network_up(net->sandbox))
        return POD_NETWORK_ADD;
    return net->check ? POD_NETWORK_CHECK : POD_NETWORK_REST;
}

static void pod_network_step(struct pod_network *net)
{
    struct cni *cni = net->sandbox->node->cni;

    if (net->op != POD_NETWORK_REST || !cni_started(cni) || timer_running(&net->retry))
        return;
    net->op = pod_network_next(net);
    if (net->op == POD_NETWORK_CHECK) {
        if (!cni_check_begin(cni))
            net->op = POD_NETWORK_REST;
        else
            net->check = false;
    }
    if (net->op != POD_NETWORK_REST)
        cni_turn_take(cni, &net->turn, pod_network_run, net);
}

bool pod_network_start(struct sandbox *sandbox)
{
    struct pod_network *net = pod_network_of(sandbox);

    if (net == NULL)
        return false;
    net->wanted = true;
    pod_network_step(net);
    return true;
}

void pod_network_remove(struct sandbox *sandbox)
{
    struct pod_network *net = pod_network_of(sandbox);

    if (net == NULL)
        return;
    net->unwanted = true;
    timer_stop(&net->retry);
    if (net->turn.state == CNI_TURN_WAITS) {
        if (net->op == POD_NETWORK_CHECK)
            cni_check_end(sandbox->node->cni);
        cni_turn_end(sandbox->node->cni, &net->turn);
        net->op = POD_NETWORK_REST;
    }
    pod_network_step(net);
}

void pod_network_resume(struct sandbox *sandbox)
{
    struct pod_network *net = pod_network_of(sandbox);
    struct status err = STATUS_INIT;

    if (net == NULL)
        return;
    if (sandbox->restored && !net->resumed) {
        net->resumed = net->tried = net->strays = true;
        /* Else the site is asked first whether there is a job: most often there is none, and ADD would be for nothing. */
        net->wanted = net->wanted || sandbox->record->submitted;
        net->made = netns_present(sandbox->record->network->netns);
        net->check = sandbox->record->phase == INTERLINK__STATE__V1__SANDBOX_PHASE__READY;
        if (sandbox->record->phase == INTERLINK__STATE__V1__SANDBOX_PHASE__NOTREADY)
            net->unwanted = true;
        else if (!net->made && !pod_network_up(sandbox)) {
            /* No job was submitted, or the machine has been started anew since: there is nothing to go on with. */
            status_set(&err, STATUS_UNAVAILABLE, "the pod's network was not finished when serve ended: try again");
            pod_network_fail(net, &err);
            return;
        }
        net->made = true;
    }
    pod_network_step(net);
}

void pod_network_free(struct sandbox *sandbox)
{
    struct pod_network *net = sandbox->network;

    if (net == NULL)
        return;
    /* What is begun is ended, also without us. */
    worker_leave(&net->worker);
    cni_turn_end(sandbox->node->cni, &net->turn);
    timer_stop(&net->retry);
    free(net->fault);
    free(net);
    sandbox->network = NULL;
}

#undef POD_NETWORK_RETRY_MS
#undef POD_NETWORK_RETRY_MAX_MS
#undef POD_NETWORK_STRAY_MS
