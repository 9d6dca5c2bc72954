/* SPDX-License-Identifier: Apache-2.0 */
#include "node/node_object.h"

#include "interlink/interlink.h"
#include "kube/kube.h"
#include "kube/node_name.h"
#include "node/site_capacity.h"
#include "rpc/pb.h"

#define NODE_OBJECT_RECORD "sites"
/* Between two watches, so that a server which ends each at once is not asked all the time. */
#define NODE_OBJECT_PAUSE_MS 500

struct node_object_ping {
    struct node_object *object;
    struct handler *handler;
    bool under_way;
};

struct node_object {
    struct node *node;
    Interlink__State__V1__Node *record; /* owned; what the sites said last */
    struct node_object_ping *pings;     /* one for each handler */
    struct timer ping_timer;
    char *name;                         /* of the Node; "" until it is known */
    bool name_guessed, ask_name;        /* nobody has said it; it is to be asked for again */
    struct timer watch_timer;           /* until the next attempt to find out the name, or to watch */
    struct kube_call *watch;            /* or the question for the name */
    unsigned watch_failures;            /* in a row */
    struct buf line;                    /* of the watch, as far as it has come */
    struct deferred watch_broken;
    struct arena arena;                 /* owns `seen` */
    const struct json *seen;            /* the Node as the watch told it last; NULL: there is none */
    struct kube_call *patch;
    struct timer patch_timer;           /* until the next attempt */
    unsigned patch_failures;
    bool dirty;                         /* something changed while a patch was under way */
    int64_t forbidden_ms;               /* monotonic: no patch of taints before */
    bool in_force, judged;              /* the policy; not judged before the first patch */
    struct status fault;                /* why the API server cannot be told, or cannot tell us; OK */
    struct status refused;              /* why taints cannot be set; OK */
};

static void node_object_reconcile(struct node_object *o, bool nudge);
static void node_object_watch(void *arg);

/* ---- what is wrong, said once ---- */

static void node_object_fault(struct node_object *o, struct status *fault, const struct status *err)
{
    if (strcmp(fault->message, err->message) != 0)
        log_warn("node %s in the cluster: %s", *o->name != '\0' ? o->name : "(its name is not known yet)", err->message);
    *fault = *err;
}

static void node_object_well(struct node_object *o, struct status *fault)
{
    if (fault->code != STATUS_OK)
        log_info("node %s in the cluster: well again", o->name);
    *fault = (struct status)STATUS_INIT;
}

static int64_t node_object_backoff(unsigned failures)
{
    int64_t ms = failures < 7 ? INT64_C(1000) << failures : NODE_OBJECT_BACKOFF_MAX_MS;

    return ms < NODE_OBJECT_BACKOFF_MAX_MS ? ms : NODE_OBJECT_BACKOFF_MAX_MS;
}

/* ---- the sites ---- */

static void node_object_on_ping(void *arg, const struct interlink_ping *ping, const struct status *err)
{
    struct node_object_ping *p = arg;
    struct node_object *o = p->object;
    Interlink__State__V1__Node *record = o->record;
    cleanup_buf struct buf odd = BUF_INIT;
    const char *handler = p->handler->options->name;
    size_t at = 0;

    p->under_way = false;
    if (err != NULL) /* what it said last holds; its health tells of it */
        return;
    while (at < record->n_sites && strcmp(record->sites[at]->handler, handler) != 0)
        at++;
    Interlink__State__V1__SiteReport *report =
        site_report_of_ping(handler, ping, at < record->n_sites ? record->sites[at] : NULL, &odd);
    if (at < record->n_sites && site_report_equal(report, record->sites[at])) {
        protobuf_c_message_free_unpacked(&report->base, NULL);
        return;
    }
    if (odd.n > 0)
        log_warn("handler %s: its ping has what cannot be used: %s", handler, buf_cstr(&odd));
    if (at < record->n_sites) {
        protobuf_c_message_free_unpacked(&record->sites[at]->base, NULL);
    } else {
        record->sites = xrealloc(record->sites, (record->n_sites + 1) * sizeof *record->sites);
        record->n_sites++;
    }
    record->sites[at] = report;
    state_put(o->node->state, STATE_NODE, NODE_OBJECT_RECORD, &record->base, NULL, NULL);
    node_object_reconcile(o, false);
}

static void node_object_on_ping_timer(void *arg)
{
    struct node_object *o = arg;

    timer_start(o->node->loop, &o->ping_timer, NODE_OBJECT_PING_MS, node_object_on_ping_timer, o);
    for (size_t i = 0; i < o->node->options->handler_count; i++) {
        struct node_object_ping *p = &o->pings[i];
        if (p->handler->local || p->under_way)
            continue;
        p->under_way = true;
        interlink_target_ping(p->handler->target, node_object_on_ping, p);
    }
    node_object_reconcile(o, true);
}

/* ---- patches ---- */

static struct site_capacity node_object_wanted(const struct node_object *o, struct arena *arena)
{
    return site_capacity_sum(arena, o->record->sites, o->record->n_sites);
}

/* Whether the policy put our annotations into the Node's status. */
static void node_object_judge(struct node_object *o, const struct site_capacity *wanted)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const char *unmet = site_capacity_unmet(wanted, o->seen);

    if (unmet == NULL && (!o->in_force || !o->judged))
        log_info("node %s has the capacity of the sites behind it: %s", o->name, site_capacity_text(&arena, wanted));
    else if (unmet != NULL && (o->in_force || !o->judged))
        log_warn("node %s: its capacity of %s is not what its annotation says: the admission policy interlink-node-capacity "
                 "(deploy/capacity-policy.yaml) is not in force", o->name, unmet);
    o->judged = true;
    o->in_force = unmet == NULL;
}

static void node_object_on_patch_timer(void *arg)
{
    node_object_reconcile(arg, false);
}

static void node_object_on_patched(struct node_object *o, bool status, const struct kube_answer *answer)
{
    struct status err = STATUS_INIT;

    o->patch = NULL;
    if (answer->err == NULL) {
        o->patch_failures = 0;
        node_object_well(o, status ? &o->fault : &o->refused);
    } else if (!status && answer->http_status == 403) {
        err = *answer->err;
        status_prefix(&err, "its sites' taints cannot be set with these credentials (kubelets may not; see deploy/node-access.yaml)");
        node_object_fault(o, &o->refused, &err);
        o->forbidden_ms = clock_mono_ms() + NODE_OBJECT_FORBIDDEN_MS;
        o->dirty = true;
    } else if (answer->http_status != 409 && answer->http_status != 404) { /* else it has changed or is gone: the watch tells */
        node_object_fault(o, &o->fault, answer->err);
        timer_start(o->node->loop, &o->patch_timer, node_object_backoff(o->patch_failures++), node_object_on_patch_timer, o);
    }
    if (o->dirty)
        node_object_reconcile(o, false);
}

static void node_object_on_status_patched(void *arg, const struct kube_answer *answer)
{
    node_object_on_patched(arg, true, answer);
}

static void node_object_on_taints_patched(void *arg, const struct kube_answer *answer)
{
    node_object_on_patched(arg, false, answer);
}

static void node_object_send(struct node_object *o, const char *part, struct buf *patch,
                             void (*on_answer)(void *arg, const struct kube_answer *answer))
{
    cleanup_free char *path = xasprintf("/api/v1/nodes/%s%s", o->name, part);

    o->patch = kube_call_start(o->node->kube, &(struct kube_call_options){
                                                  .method = "PATCH",
                                                  .path = path,
                                                  .content_type = "application/merge-patch+json",
                                                  .body = { buf_cstr(patch), patch->n },
                                                  .on_answer = on_answer,
                                                  .arg = o,
                                              });
}

/* Makes the Node what it should be, one step; the watch's next word brings the next one. `nudge`: when the annotations are there
 * and the capacity is not, they are sent again, so that the policy sees them once it is there. */
static void node_object_reconcile(struct node_object *o, bool nudge)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf capacity = BUF_INIT, taints = BUF_INIT, again = BUF_INIT;
    struct site_capacity wanted = node_object_wanted(o, &arena);

    if (o->patch != NULL || timer_running(&o->patch_timer)) {
        o->dirty = true;
        return;
    }
    o->dirty = false;
    if (o->seen == NULL)
        return;
    if (site_capacity_patch(&wanted, o->seen, false, &capacity)) {
        node_object_send(o, "/status", &capacity, node_object_on_status_patched);
        return;
    }
    nudge = nudge || !o->judged;
    if (wanted.count > 0)
        node_object_judge(o, &wanted);
    if (!site_taints_patch(o->record->sites, o->record->n_sites, o->seen, &taints))
        o->refused = (struct status)STATUS_INIT;
    else if (clock_mono_ms() >= o->forbidden_ms)
        node_object_send(o, "", &taints, node_object_on_taints_patched);
    if (nudge && o->patch == NULL && !o->in_force && site_capacity_patch(&wanted, o->seen, true, &again))
        node_object_send(o, "/status", &again, node_object_on_status_patched);
}

/* ---- the watch ---- */

static void node_object_watch_later(struct node_object *o, const struct status *err)
{
    int64_t pause = NODE_OBJECT_PAUSE_MS;

    if (err != NULL) {
        node_object_fault(o, &o->fault, err);
        pause = node_object_backoff(o->watch_failures++);
    }
    timer_start(o->node->loop, &o->watch_timer, pause, node_object_watch, o);
}

static void node_object_on_event(struct node_object *o, struct str line)
{
    struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    const struct json *event = json_parse(&arena, line, &err);
    const char *type = json_string(json_member(event, "type"), "");
    const struct json *object = json_member(event, "object");

    if (strcmp(type, "ERROR") == 0) /* it ends now, and begins anew */
        log_debug("the watch of node %s: %s", o->name, json_string(json_member(object, "message"), "an error without words"));
    bool there = strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0;
    if (!there && strcmp(type, "DELETED") != 0) {
        arena_free(&arena);
        return;
    }
    arena_free(&o->arena);
    o->arena = arena;
    o->seen = there ? object : NULL;
    o->watch_failures = 0;
    if (o->patch_failures == 0)
        node_object_well(o, &o->fault);
    if (!there)
        log_info("node %s is in the cluster no more", o->name);
    node_object_reconcile(o, false);
}

static void node_object_on_broken(void *arg)
{
    struct node_object *o = arg;
    struct status err = STATUS_INIT;

    kube_call_cancel(o->watch);
    o->watch = NULL;
    buf_free(&o->line);
    status_set(&err, STATUS_RESOURCE_EXHAUSTED, "the API server sends more than %u bytes on one line of a watch", KUBE_ANSWER_MAX);
    node_object_watch_later(o, &err);
}

static void node_object_on_piece(void *arg, struct str piece)
{
    struct node_object *o = arg;

    while (piece.n > 0) {
        const char *end = memchr(piece.p, '\n', piece.n);
        size_t n = end != NULL ? (size_t)(end - piece.p) : piece.n;
        if (o->line.n + n > KUBE_ANSWER_MAX) {
            deferred_start(o->node->loop, &o->watch_broken, node_object_on_broken, o);
            return;
        }
        buf_append(&o->line, piece.p, n);
        piece.p += n + (end != NULL);
        piece.n -= n + (end != NULL);
        if (end == NULL)
            return;
        node_object_on_event(o, (struct str){ buf_cstr(&o->line), o->line.n });
        buf_clear(&o->line);
    }
}

static void node_object_on_watch_end(void *arg, const struct kube_answer *answer)
{
    struct node_object *o = arg;

    o->watch = NULL;
    buf_free(&o->line);
    o->ask_name = o->name_guessed && answer->err != NULL;
    node_object_watch_later(o, answer->err);
}

/* ---- its name ---- */

static void node_object_take_name(struct node_object *o, const char *name, const char *why)
{
    if (strcmp(o->name, name) != 0) {
        log_info("this node is called %s in the cluster (%s)", name, why);
        free(o->name);
        o->name = xstrdup(name);
    }
    node_object_watch(o);
}

static void node_object_on_self(void *arg, const struct kube_answer *answer)
{
    struct node_object *o = arg;
    char name[NODE_NAME_SIZE];

    o->watch = NULL;
    o->ask_name = false;
    /* Before Kubernetes 1.28 there is no such question (404). A server that has just started refuses it (403): then the name is a
     * guess, and is asked for again when it turns out to be of no use. */
    o->name_guessed = answer->err != NULL;
    if (answer->err != NULL && answer->http_status != 404 && answer->http_status != 403) {
        node_object_watch_later(o, answer->err);
        return;
    }
    if (answer->err == NULL && node_name_read(answer->body, name, NULL)) {
        node_object_take_name(o, name, "as the credentials name it");
    } else {
        node_name_of_host(name);
        node_object_take_name(o, name, "this machine's host name; Node.Name says another");
    }
}

static void node_object_watch(void *arg)
{
    struct node_object *o = arg;
    struct kube *kube = o->node->kube;

    if (*o->name == '\0' || o->ask_name) {
        o->watch = kube_call_start(kube, &(struct kube_call_options){
                                             .method = "POST",
                                             .path = NODE_NAME_PATH,
                                             .body = STR(NODE_NAME_BODY),
                                             .on_answer = node_object_on_self,
                                             .arg = o,
                                         });
        return;
    }
    cleanup_free char *path = xasprintf("/api/v1/nodes?fieldSelector=metadata.name%%3D%s&watch=true&timeoutSeconds=%d", o->name,
                                        NODE_OBJECT_WATCH_SECONDS);
    o->watch = kube_call_start(kube, &(struct kube_call_options){
                                         .path = path,
                                         .timeout_ms = NODE_OBJECT_WATCH_SECONDS * 1000 + KUBE_CALL_TIMEOUT_MS,
                                         .on_answer = node_object_on_watch_end,
                                         .on_piece = node_object_on_piece,
                                         .arg = o,
                                     });
}

/* ---- life ---- */

static struct node_object *node_object_get(struct node *node)
{
    if (node->object == NULL) {
        node->object = xcalloc(1, sizeof *node->object);
        node->object->node = node;
        node->object->name = xstrdup(node->options->node_name);
    }
    return node->object;
}

void node_object_restore(struct node *node, Interlink__State__V1__Node *record)
{
    struct node_object *o = node_object_get(node);

    if (o->record != NULL)
        protobuf_c_message_free_unpacked(&o->record->base, NULL);
    o->record = record;
}

/* Sites whose handlers are configured no more count no more. */
static void node_object_drop_strangers(struct node_object *o)
{
    Interlink__State__V1__Node *record = o->record;
    struct status ignored = STATUS_INIT;
    size_t kept = 0;

    for (size_t i = 0; i < record->n_sites; i++) {
        const struct handler *handler = node_handler(o->node, record->sites[i]->handler, &ignored);
        if (handler != NULL && !handler->local)
            record->sites[kept++] = record->sites[i];
        else
            protobuf_c_message_free_unpacked(&record->sites[i]->base, NULL);
    }
    if (kept == record->n_sites)
        return;
    record->n_sites = kept;
    state_put(o->node->state, STATE_NODE, NODE_OBJECT_RECORD, &record->base, NULL, NULL);
}

void node_object_start(struct node *node)
{
    const struct node_options *options = node->options;
    bool remote = false;

    for (size_t i = 0; i < options->handler_count; i++)
        remote = remote || !node->handlers[i].local;
    /* Sites of an earlier configuration are taken back. */
    bool known = node->object != NULL && node->object->record != NULL && node->object->record->n_sites > 0;
    if (node->kube == NULL || !options->keep_capacity || (!remote && !known)) {
        node_object_free(node->object);
        node->object = NULL;
        return;
    }
    struct node_object *o = node_object_get(node);
    if (o->record == NULL) {
        o->record = xmalloc(sizeof *o->record);
        interlink__state__v1__node__init(o->record);
    }
    node_object_drop_strangers(o);
    o->pings = xcalloc(options->handler_count, sizeof *o->pings);
    for (size_t i = 0; i < options->handler_count; i++)
        o->pings[i] = (struct node_object_ping){ .object = o, .handler = &node->handlers[i] };
    timer_start(node->loop, &o->ping_timer, 0, node_object_on_ping_timer, o);
    timer_start(node->loop, &o->watch_timer, 0, node_object_watch, o);
}

void node_object_free(struct node_object *o)
{
    if (o == NULL)
        return;
    kube_call_cancel(o->watch);
    kube_call_cancel(o->patch);
    timer_stop(&o->ping_timer);
    timer_stop(&o->watch_timer);
    timer_stop(&o->patch_timer);
    deferred_stop(&o->watch_broken);
    if (o->record != NULL)
        protobuf_c_message_free_unpacked(&o->record->base, NULL);
    arena_free(&o->arena);
    buf_free(&o->line);
    free(o->pings);
    free(o->name);
    free(o);
}

void node_object_write(const struct node *node, struct json_writer *w)
{
    const struct node_object *o = node->object;
    cleanup_arena struct arena arena = ARENA_INIT;

    if (node->kube == NULL)
        return;
    const struct status *fault = kube_health(node->kube);
    if (fault->code == STATUS_OK && o != NULL)
        fault = o->fault.code != STATUS_OK ? &o->fault : &o->refused;
    json_write_member_object(w, "cluster");
    json_write_member_string(w, "server", kube_server(node->kube));
    json_write_member_bool(w, "healthy", fault->code == STATUS_OK);
    json_write_member_string(w, "message", fault->message);
    if (o != NULL) {
        struct site_capacity wanted = node_object_wanted(o, &arena);
        json_write_member_string(w, "node", o->name);
        json_write_member_string(w, "capacity", site_capacity_text(&arena, &wanted));
        json_write_member_bool(w, "policyInForce", o->judged && o->in_force);
    }
    json_write_end(w);
}

#undef NODE_OBJECT_RECORD
#undef NODE_OBJECT_PAUSE_MS
