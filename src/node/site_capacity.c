/* SPDX-License-Identifier: Apache-2.0 */
#include "node/site_capacity.h"

#include "kube/pod_size.h"
#include "rpc/pb.h"

/* What the policy takes for a count: at most 15 digits. */
#define SITE_CAPACITY_COUNT_MAX INT64_C(999999999999999)

/* ---- what a ping says ---- */

static void site_report_odd(struct buf *odd, const char *what, const char *value, const char *why)
{
    buf_printf(odd, "%s%.64s \"%.64s\": %s", odd->n > 0 ? "; " : "", what, value, why);
}

static bool site_report_is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Made of `allowed`, with a letter or digit at both ends. */
static bool site_report_is_word(struct str s, const char *allowed)
{
    for (size_t i = 0; i < s.n; i++)
        if (strchr(allowed, s.p[i]) == NULL)
            return false;
    return s.n > 0 && s.n <= 63 && site_report_is_alnum(s.p[0]) && site_report_is_alnum(s.p[s.n - 1]);
}

/* A name such as example.com/device, as the policy takes it: a domain of two parts or more and a name. */
static bool site_report_is_extended(const char *resource)
{
    static const char domain[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    static const char name[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    const char *slash = strchr(resource, '/');
    size_t parts = 0;

    if (slash == NULL || strlen(resource) > 200 || !site_report_is_word(str_of(slash + 1), name))
        return false;
    for (const char *at = resource; at < slash; parts++) {
        size_t n = strcspn(at, "./");
        if (!site_report_is_word((struct str){ at, n }, domain) || (at[n] == '.' && at + n + 1 == slash))
            return false;
        at += n + (at[n] == '.');
    }
    /* Kubernetes' own names are not for others to give. */
    size_t n = (size_t)(slash - resource);
    bool own = n >= 13 && strncmp(slash - 13, "kubernetes.io", 13) == 0 && (n == 13 || slash[-14] == '.');
    return parts >= 2 && !own;
}

static void site_report_add(Interlink__State__V1__SiteReport *report, const char *resource, int64_t amount)
{
    Interlink__State__V1__SiteReport__Quantity *q = NULL;

    for (size_t i = 0; i < report->n_quantities; i++) /* the same accelerator twice: both count */
        if (strcmp(report->quantities[i]->resource, resource) == 0)
            q = report->quantities[i];
    if (q == NULL) {
        q = xmalloc(sizeof *q);
        interlink__state__v1__site_report__quantity__init(q);
        pb_set(&q->resource, resource);
        report->quantities = xrealloc(report->quantities, (report->n_quantities + 1) * sizeof *report->quantities);
        report->quantities[report->n_quantities++] = q;
    }
    if (__builtin_add_overflow(q->amount, amount, &q->amount))
        q->amount = INT64_MAX;
}

static void site_report_quantity(Interlink__State__V1__SiteReport *report, const char *resource, const char *text, bool zero,
                                 struct buf *odd)
{
    struct status err = STATUS_INIT;
    int64_t amount;

    if (*text == '\0')
        return;
    if (!pod_size_parse(resource, text, &amount, &err))
        site_report_odd(odd, resource, text, "no quantity");
    else if (amount > 0 || zero)
        site_report_add(report, resource, amount);
}

static void site_report_add_taint(Interlink__State__V1__SiteReport *report, const char *key, const char *value,
                                  const char *effect)
{
    Interlink__State__V1__SiteReport__Taint *t = xmalloc(sizeof *t);

    interlink__state__v1__site_report__taint__init(t);
    pb_set(&t->key, key);
    pb_set(&t->value, value);
    pb_set(&t->effect, effect);
    report->taints = xrealloc(report->taints, (report->n_taints + 1) * sizeof *report->taints);
    report->taints[report->n_taints++] = t;
}

static void site_report_taint(Interlink__State__V1__SiteReport *report, const struct interlink_taint *taint, struct buf *odd)
{
    static const char *const effects[] = { "NoSchedule", "PreferNoSchedule", "NoExecute" };
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    const char *rest = taint->key + strspn(taint->key, allowed);
    bool known = false;

    for (size_t i = 0; i < COUNT_OF(effects); i++)
        known = known || strcmp(taint->effect, effects[i]) == 0;
    rest += *rest == '/' ? 1 + strspn(rest + 1, allowed) : 0;
    if (!known || *rest != '\0' || strlen(taint->key) > 317 || strlen(taint->value) > 63 ||
        strspn(taint->value, allowed) != strlen(taint->value)) {
        site_report_odd(odd, "taint", taint->key, known ? "not a key and value that Kubernetes takes" : "no such effect");
        return;
    }
    site_report_add_taint(report, taint->key, taint->value, taint->effect);
}

Interlink__State__V1__SiteReport *site_report_of_ping(const char *handler, const struct interlink_ping *ping,
                                                      const Interlink__State__V1__SiteReport *before, struct buf *odd)
{
    Interlink__State__V1__SiteReport *report = xmalloc(sizeof *report);

    interlink__state__v1__site_report__init(report);
    pb_set(&report->handler, handler);
    /* A site without any CPU, memory or place for a pod has not told its size. */
    site_report_quantity(report, "cpu", ping->cpu, false, odd);
    site_report_quantity(report, "memory", ping->memory, false, odd);
    site_report_quantity(report, "pods", ping->pods, false, odd);
    for (size_t i = 0; i < ping->accelerator_count && report->n_quantities < POD_SIZE_RESOURCES_MAX; i++) {
        const struct interlink_accelerator *a = &ping->accelerators[i];
        if (site_report_is_extended(a->resource))
            site_report_quantity(report, a->resource, a->available, true, odd);
        else
            site_report_odd(odd, "accelerator", a->resource, "not a resource such as nvidia.com/gpu");
    }
    for (size_t i = 0; i < ping->taint_count && report->n_taints < SITE_TAINTS_MAX; i++)
        site_report_taint(report, &ping->taints[i], odd);
    for (size_t i = 0; !ping->has_taints && before != NULL && i < before->n_taints; i++) /* nothing said: as before */
        site_report_add_taint(report, before->taints[i]->key, before->taints[i]->value, before->taints[i]->effect);
    return report;
}

bool site_report_equal(const Interlink__State__V1__SiteReport *a, const Interlink__State__V1__SiteReport *b)
{
    size_t n = protobuf_c_message_get_packed_size(&a->base);

    if (n != protobuf_c_message_get_packed_size(&b->base))
        return false;
    cleanup_free uint8_t *bytes = xmalloc(2 * n + 1);
    protobuf_c_message_pack(&a->base, bytes);
    protobuf_c_message_pack(&b->base, bytes + n);
    return memcmp(bytes, bytes + n, n) == 0;
}

/* ---- the sum ---- */

static bool site_capacity_is_count(const char *resource)
{
    return strcmp(resource, "cpu") != 0 && strcmp(resource, "memory") != 0;
}

struct site_capacity site_capacity_sum(struct arena *arena, Interlink__State__V1__SiteReport *const *reports, size_t count)
{
    Interlink__State__V1__SiteReport total = INTERLINK__STATE__V1__SITE_REPORT__INIT;
    struct site_capacity sum = { NULL, 0 };

    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < reports[i]->n_quantities; k++)
            site_report_add(&total, reports[i]->quantities[k]->resource, reports[i]->quantities[k]->amount);
    sum.items = ARENA_ARRAY(arena, struct site_capacity_item, total.n_quantities + 1);
    for (size_t i = 0; i < total.n_quantities; i++) {
        Interlink__State__V1__SiteReport__Quantity *q = total.quantities[i];
        char *name = arena_strdup(arena, q->resource), *slash = strchr(name, '/');
        int64_t most = q->amount < SITE_CAPACITY_COUNT_MAX ? q->amount : SITE_CAPACITY_COUNT_MAX;
        if (slash != NULL)
            *slash = '_';
        sum.items[sum.count++] = (struct site_capacity_item){
            .resource = arena_strdup(arena, q->resource),
            .name = name,
            .value = site_capacity_is_count(name) ? arena_printf(arena, "%" PRId64, most) : pod_size_text(arena, name, q->amount),
        };
        protobuf_c_message_free_unpacked(&q->base, NULL);
    }
    free(total.quantities);
    return sum;
}

const char *site_capacity_text(struct arena *arena, const struct site_capacity *wanted)
{
    const char *text = "";

    for (size_t i = 0; i < wanted->count; i++)
        text = arena_printf(arena, "%s%s%s=%s", text, i > 0 ? ", " : "", wanted->items[i].resource, wanted->items[i].value);
    return text;
}

/* ---- annotations ---- */

static const struct json *site_node_annotation(const struct json *node, const char *name)
{
    return json_get(node, "metadata", "annotations", name);
}

/* Whether a list with commas holds the word. */
static bool site_list_has(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *at = list; *at != '\0'; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == n && strncmp(at, word, n) == 0)
            return true;
    return false;
}

static bool site_capacity_has(const struct site_capacity *wanted, const char *name, size_t n)
{
    for (size_t i = 0; i < wanted->count; i++)
        if (strlen(wanted->items[i].name) == n && strncmp(wanted->items[i].name, name, n) == 0)
            return true;
    return false;
}

/* One annotation into the patch, unless the Node has it; value NULL removes it. True when it went in. */
static bool site_capacity_put(struct json_writer *w, const struct json *node, const char *key, const char *value, bool all)
{
    const struct json *now = site_node_annotation(node, key);

    if (!all && (value == NULL ? now == NULL : strcmp(json_string(now, ""), value) == 0 && now != NULL))
        return false;
    json_write_key(w, key);
    if (value != NULL)
        json_write_string(w, value);
    else
        json_write_null(w);
    return true;
}

/* What was ours and is of no site any more. */
static bool site_capacity_put_gone(struct json_writer *w, const struct site_capacity *wanted, const struct json *node,
                                   const char *managed, struct buf *left, bool all)
{
    bool changed = false;

    for (const char *at = managed; *at != '\0'; at += strcspn(at, ","), at += *at == ',') {
        size_t n = strcspn(at, ",");
        if (n == 0 || site_capacity_has(wanted, at, n))
            continue;
        cleanup_free char *key = xasprintf(SITE_CAPACITY_PREFIX "%.*s", (int)n, at);
        bool extended = memchr(at, '_', n) != NULL;
        changed |= site_capacity_put(w, node, key, extended ? "0" : NULL, all && extended);
        if (extended)
            buf_printf(left, "%s%.*s", left->n > 0 ? "," : "", (int)n, at);
    }
    return changed;
}

bool site_capacity_patch(const struct site_capacity *wanted, const struct json *node, bool all, struct buf *patch)
{
    const char *managed = json_string(site_node_annotation(node, SITE_CAPACITY_MANAGED), "");
    cleanup_buf struct buf list = BUF_INIT;
    struct json_writer w;
    bool changed = false;

    if (wanted->count == 0 && *managed == '\0')
        return false;
    json_writer_init(&w, patch, 0);
    json_write_object(&w);
    json_write_member_object(&w, "metadata");
    json_write_member_object(&w, "annotations");
    for (size_t i = 0; i < wanted->count; i++) {
        cleanup_free char *key = xasprintf(SITE_CAPACITY_PREFIX "%s", wanted->items[i].name);
        changed |= site_capacity_put(&w, node, key, wanted->items[i].value, all);
        buf_printf(&list, "%s%s", i > 0 ? "," : "", wanted->items[i].name);
    }
    changed |= site_capacity_put_gone(&w, wanted, node, managed, &list, all);
    changed |= site_capacity_put(&w, node, SITE_CAPACITY_MANAGED, list.n > 0 ? buf_cstr(&list) : NULL, all && list.n > 0);
    json_write_end(&w);
    json_write_end(&w);
    json_write_end(&w);
    return changed;
}

const char *site_capacity_unmet(const struct site_capacity *wanted, const struct json *node)
{
    const struct json *capacity = json_get(node, "status", "capacity");
    struct status ignored = STATUS_INIT;

    for (size_t i = 0; i < wanted->count; i++) {
        const struct site_capacity_item *item = &wanted->items[i];
        const struct json *found = json_member(capacity, item->resource);
        int64_t is = -1, should = -2;
        if (found == NULL || !pod_size_parse(item->resource, found->text, &is, &ignored) ||
            !pod_size_parse(item->resource, item->value, &should, &ignored) || is != should)
            return item->resource;
    }
    return NULL;
}

/* ---- taints ---- */

/* "key=value:Effect" */
static const char *site_taint_text(struct arena *arena, const char *key, const char *value, const char *effect)
{
    return arena_printf(arena, "%s%s%s:%s", key, *value != '\0' ? "=" : "", value, effect);
}

static const Interlink__State__V1__SiteReport__Taint *site_taint_find(Interlink__State__V1__SiteReport *const *reports,
                                                                      size_t count, const char *key, const char *effect)
{
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < reports[i]->n_taints; k++)
            if (strcmp(reports[i]->taints[k]->key, key) == 0 && strcmp(reports[i]->taints[k]->effect, effect) == 0)
                return reports[i]->taints[k];
    return NULL;
}

static const struct json *site_node_taint(const struct json *node, const char *key, const char *effect)
{
    for (JSON_EACH(t, json_get(node, "spec", "taints")))
        if (strcmp(json_string(json_member(t, "key"), ""), key) == 0 && strcmp(json_string(json_member(t, "effect"), ""), effect) == 0)
            return t;
    return NULL;
}

static void site_taint_write(struct json_writer *w, const Interlink__State__V1__SiteReport__Taint *t)
{
    json_write_object(w);
    json_write_member_string(w, "key", t->key);
    if (*t->value != '\0')
        json_write_member_string(w, "value", t->value);
    json_write_member_string(w, "effect", t->effect);
    json_write_end(w);
}

struct site_taints {
    struct arena *arena;
    Interlink__State__V1__SiteReport *const *reports;
    size_t count;
    const struct json *node;
    const char *managed; /* those that are ours now */
    struct buf list;     /* and those that will be */
};

static void site_taints_list(struct site_taints *s, const char *text)
{
    buf_printf(&s->list, "%s%s", s->list.n > 0 ? "," : "", text);
}

/* The taints that the Node has: ours go when no site has them, the others stay as they are. True when something changed. */
static bool site_taints_keep(struct site_taints *s, struct json_writer *w)
{
    bool changed = false;

    for (JSON_EACH(t, json_get(s->node, "spec", "taints"))) {
        const char *key = json_string(json_member(t, "key"), ""), *value = json_string(json_member(t, "value"), "");
        const char *effect = json_string(json_member(t, "effect"), "");
        const char *text = site_taint_text(s->arena, key, value, effect);
        const Interlink__State__V1__SiteReport__Taint *wanted = site_taint_find(s->reports, s->count, key, effect);
        bool ours = site_list_has(s->managed, text);
        if (!ours) {
            json_write_tree(w, t);
        } else if (wanted == NULL) {
            changed = true;
        } else if (strcmp(wanted->value, value) == 0) {
            json_write_tree(w, t);
            site_taints_list(s, text);
        } else {
            site_taint_write(w, wanted);
            site_taints_list(s, site_taint_text(s->arena, wanted->key, wanted->value, wanted->effect));
            changed = true;
        }
    }
    return changed;
}

static bool site_taints_add(struct site_taints *s, struct json_writer *w)
{
    bool changed = false;

    for (size_t i = 0; i < s->count; i++) {
        for (size_t k = 0; k < s->reports[i]->n_taints; k++) {
            const Interlink__State__V1__SiteReport__Taint *t = s->reports[i]->taints[k];
            if (site_taint_find(s->reports, s->count, t->key, t->effect) != t || /* an earlier site has it, too */
                site_node_taint(s->node, t->key, t->effect) != NULL)
                continue;
            site_taint_write(w, t);
            site_taints_list(s, site_taint_text(s->arena, t->key, t->value, t->effect));
            changed = true;
        }
    }
    return changed;
}

bool site_taints_patch(Interlink__State__V1__SiteReport *const *reports, size_t count, const struct json *node,
                       struct buf *patch)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct site_taints s = { &arena, reports, count, node,
                             json_string(site_node_annotation(node, SITE_CAPACITY_TAINTS), ""), BUF_INIT };
    struct json_writer w;

    json_writer_init(&w, patch, 0);
    json_write_object(&w);
    json_write_member_object(&w, "spec");
    json_write_member_array(&w, "taints");
    bool changed = site_taints_keep(&s, &w);
    changed |= site_taints_add(&s, &w);
    json_write_end(&w);
    json_write_end(&w);
    /* Somebody may have taken a taint of ours away: it was added again, or is in the list no more. */
    changed |= strcmp(buf_cstr(&s.list), s.managed) != 0;
    json_write_member_object(&w, "metadata");
    json_write_member_string(&w, "resourceVersion", json_string(json_get(node, "metadata", "resourceVersion"), ""));
    json_write_member_object(&w, "annotations");
    json_write_key(&w, SITE_CAPACITY_TAINTS);
    if (s.list.n > 0)
        json_write_string(&w, buf_cstr(&s.list));
    else
        json_write_null(&w);
    json_write_end(&w);
    json_write_end(&w);
    json_write_end(&w);
    buf_free(&s.list);
    return changed;
}

#undef SITE_CAPACITY_COUNT_MAX
